/* Templates of docker's services: values of secrets and configs with `templating`, variables, the
 * host name and mounts. What docker takes from Go's text/template is this subset; anything else is
 * an error that tells which action and why, but not its text: it may be a secret's. One pass: what
 * was put in is not looked at again.
 *
 *   {{.Service.ID}} {{.Service.Name}} {{.Service.Labels.KEY}} {{index .Service.Labels "KEY"}}
 *   {{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}} {{.Node.Platform.Architecture}}
 *   {{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}
 *   {{env "NAME"}} {{secret "TARGET"}} {{config "TARGET"}}      in values of secrets and configs
 *   comments, as in Go; {{- and -}} take the blanks beside them away; "x" and `x` are words
 *
 * A label or a variable that is not there is empty; a secret or config is an error. */
#ifndef CONCLAVE_TEMPLATE_H
#define CONCLAVE_TEMPLATE_H

#include "store/service.h"

#define TEMPLATE_ACTION_MAX 512             /* bytes between {{ and }} */
#define TEMPLATE_RESULT_MAX CONFIG_SIZE_MAX /* what may come out */

struct template_node {
    const char *id, *hostname, *os, *arch;
};

struct template_scope {
    struct template_node node;
    const char *service_id, *service_name;
    struct span service_labels; /* node.h */
    const char *task_id, *task_name;
    uint32_t slot;
    struct span env; /* blocks NAME=VALUE */
    /* The value of the task's file of that target; false: there is none. NULL: {{env}}, {{secret}}
     * and {{config}} are not allowed here. */
    bool (*value)(void *ctx, enum row_kind kind, struct span target, struct span *out);
    void *ctx;
};

/* Appends to `out`, which should wipe what it grows out of. ERR_INVALID, ERR_TOO_LARGE, ERR_NOMEM;
 * `out` is then to be thrown away. */
RESULT template_expand(struct span text, const struct template_scope *scope, struct buf *out,
                       struct why *why);
static inline bool template_is_plain(struct span text) {
    return text.size == 0 || memmem(text.at, text.size, "{{", 2) == NULL;
}

#endif
