/* Secrets and configs as an operator changes them: every manager takes the request, seals the
 * value, and proposes one OP_ROWS: the secret's row, its values' rows, a record of the audit.
 * Versions that were seen guard each (ERR_CONFLICT). Reading a secret's value is no request: it is
 * opened for a delivery (assign.h) only; a config's value is shown.
 *
 * `who` and `from` of the actor go into the audit. `done` once, later, when the function gave OK.
 * ERR_EXISTS: the name. ERR_NOT_FOUND. ERR_PRECONDITION: in use, with the services' names; the
 * vault is not ready. ERR_INVALID, ERR_TOO_LARGE: name, labels, size, with docker's sentences
 * (reference/swarm.md 3). */
#ifndef CONCLAVE_SECRETS_H
#define CONCLAVE_SECRETS_H

#include "api/manager.h"
#include "store/audit.h"
#include "store/held.h"

struct actor {
    char who[128]; /* as in audit_record */
    char from[64];
};

struct held_spec {
    enum row_kind kind; /* ROW_SECRET, ROW_CONFIG */
    struct span name;
    struct span labels;              /* node.h's form */
    const char *templating, *driver; /* "" none */
    struct span templating_options, driver_options;
    struct span value; /* empty with a driver */
};

const char *held_word(enum row_kind kind); /* "secret", "config" */

typedef void held_done(void *ctx, enum err e, const char *text, const char *id, uint32_t version);
RESULT secrets_create(struct manager *m, const struct held_spec *spec, const struct actor *actor,
                      held_done *done, void *ctx, struct why *why);
/* Labels alone, as docker updates: the row's version must be the one seen (0: any). */
RESULT secrets_label(struct manager *m, enum row_kind kind, const char *id, uint64_t version,
                     struct span labels, const struct actor *actor, held_done *done, void *ctx,
                     struct why *why);
/* Another version of the value. The oldest one that nobody names goes when there are
 * HELD_VERSIONS_MAX. */
RESULT secrets_put(struct manager *m, enum row_kind kind, const char *id, struct span value,
                   const struct actor *actor, held_done *done, void *ctx, struct why *why);
RESULT secrets_remove(struct manager *m, enum row_kind kind, const char *id,
                      const struct actor *actor, held_done *done, void *ctx, struct why *why);
/* Removes one version (not the only one). */
RESULT secrets_remove_version(struct manager *m, enum row_kind kind, const char *id,
                              uint32_t version, const struct actor *actor, held_done *done,
                              void *ctx, struct why *why);
/* Removes the secret, rotates the cluster key, destroys the older epochs, and replaces the unlock
 * key where there is one; done when that is so, with a sentence for whoever asked. */
RESULT secrets_shred(struct manager *m, const char *id, const struct actor *actor, held_done *done,
                     void *ctx, struct why *why);
/* The value of a version (0: the newest). For configs, deliveries and `run`; writes no audit. */
RESULT secrets_value(const struct manager *m, enum row_kind kind, const char *id, uint32_t version,
                     struct secret **out, uint32_t *out_version, struct why *why);

/* The label that lists the nodes which may have the value for `conclave run`: ids, names that the
 * operator gave, '*', separated by ','. Who sets it may say host names, too (run_label.c). */
#define RUN_LABEL "conclave.run"
/* The next word of its value, without blanks around it and never empty; false: no more. */
bool run_label_next(struct span *list, struct span *word);

/* Who does the exchange: the operator on a unix socket, an administrator by certificate. */
struct exchange;
void actor_of(const struct exchange *x, struct actor *out);

#endif
