/* Secrets, configs, services and tasks as JSON, as encode.h does it for the cluster and its nodes:
 * docker's names and order. Pure. A secret's value has no place here; a config's comes in as bytes.
 *
 * A service's spec stands in its row as docker's JSON and goes out as it is. A task is shown with
 * the template that it was made of: the present one, or the one before (its service keeps two);
 * where neither is it, the present one stands for it. */
#ifndef CONCLAVE_ENGINE_ENCODE_SERVICE_H
#define CONCLAVE_ENGINE_ENCODE_SERVICE_H

#include "api/engine/encode.h"
#include "store/service.h"

#define ENGINE_TASK_NAME (SERVICE_NAME_MAX + 2 * NODE_ID_SIZE + 3) /* NAME.NODE.ID and its NUL */

struct engine_held { /* a secret or config */
    const struct row *row;
    const struct held_row *held;
    const struct span *data; /* of a config; NULL: not shown */
};

struct engine_count {              /* of a service's tasks */
    uint64_t running;              /* their state is RUNNING */
    uint64_t wanted;               /* they are to run */
    uint64_t old;                  /* of those: made of an older spec */
    uint64_t over;                 /* made of the present spec, and done with what they had to do */
    uint64_t fresh;                /* of those: made of the present spec, and running */
    char failed[NODE_ID_SIZE + 1]; /* one of the present spec that did not run; "" none */
};

struct engine_service {
    const struct row *row;
    const struct service_row *service;
    struct engine_count count; /* of its tasks */
    bool status;               /* ServiceStatus is asked for */
    const char *spec;          /* JSON to be shown as its spec; NULL: the row's own */
};

struct engine_task {
    const struct row *row;
    const struct task_row *task;
    const char *name; /* "" none */
    const char *spec; /* JSON of its template */
};

void engine_put_held(struct jout *j, const struct engine_held *h);
void engine_put_service(struct jout *j, const struct engine_service *s);
void engine_put_task(struct jout *j, const struct engine_task *t);
/* Counts the task of this id. */
void engine_count_task(struct engine_count *c, const struct service_row *s, const char *id,
                       const struct task_row *t);

/* The template of a task that was made of `spec_version`, as JSON; NULL: no memory. The caller
 * frees it. `s` NULL: the service is gone, and an empty one stands for it. */
char *engine_template(const struct service_row *s, uint64_t spec_version);
/* The spec with docker's defaults where it says nothing (`insertDefaults`); NULL as above. */
char *engine_defaults(const struct service_row *s);

#endif
