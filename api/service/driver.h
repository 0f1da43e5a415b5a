/* Drivers: outside programs that supply a secret's value when it is delivered. `--secret-driver
 * NAME=PATH[,NAME=PATH...]` of a manager says which there are; PATH is
 *
 *   a unix socket    POST /SecretProvider.GetSecret, as docker's secret plugins take it
 *   an executable    the same question on its standard input, the answer on its standard output;
 *                    environment empty, standard error nowhere, exit code 0
 *
 * Question: {"SecretName", "SecretLabels", "SecretOptions" (of the secret's driver), "ServiceID",
 * "ServiceName", "ServiceLabels", "ServiceHostname", "TaskID", "TaskName", "TaskImage", "NodeID",
 * "NodeHostname"}; answer: {"Value": base64, "Err": text, "DoNotReuse": bool}. An Err, more than
 * SECRET_SIZE_MAX bytes, none at all, or DRIVER_MS without an answer: the task is rejected, with a
 * sentence. Without DoNotReuse the value serves all tasks of the node that use the secret, for as
 * long as there is one.
 *
 * A question blocks, so each has a thread of its own, DRIVER_ASKS_MAX at once. */
#ifndef CONCLAVE_DRIVER_H
#define CONCLAVE_DRIVER_H

#include "crypto/secret.h"
#include "store/held.h"

#define DRIVERS_MAX       16
#define DRIVER_PATH_MAX   256
#define DRIVER_MS         10000
#define DRIVER_ASKS_MAX   8
#define DRIVER_ANSWER_MAX (1 * MIB)

struct manager;

struct driver {
    char name[HELD_WORD_MAX + 1]; /* as secrets name it */
    char path[DRIVER_PATH_MAX];   /* absolute */
    uint64_t timeout_ms;          /* 0: DRIVER_MS */
};
struct driver_table {
    unsigned n;
    struct driver at[DRIVERS_MAX];
};
/* Adds what the option says. ERR_USAGE: no NAME=PATH, a name twice, too many. */
RESULT driver_table_read(struct driver_table *t, const char *text, struct why *why);
const struct driver *driver_find(const struct driver_table *t, const char *name); /* NULL */

struct driver_question {
    struct span secret_name, secret_labels, secret_options; /* labels: node.h's form */
    const char *service_id;
    struct span service_name, service_labels;
    const char *service_hostname;
    const char *task_id, *task_name, *task_image;
    const char *node_id, *node_hostname;
};
RESULT driver_question_encode(const struct driver_question *q, struct buf *out);

/* What came back: ERR_PRECONDITION: the driver's own Err; ERR_PROTOCOL, ERR_TOO_LARGE,
 * ERR_TIMEOUT, ERR_UNREACHABLE. */
RESULT driver_answer(struct span json, struct secret **value, bool *reuse, struct why *why);
RESULT driver_ask(const struct driver *d, struct span question, struct secret **value, bool *reuse,
                  struct why *why); /* at once, blocking */

/* The same away from the loop. `done` is called on the loop, once; `value` is its to free, NULL
 * after an error. Everything is copied. ERR_BUSY: DRIVER_ASKS_MAX are under way. */
typedef void driver_done(void *ctx, enum err e, const char *text, struct secret *value, bool reuse);
RESULT driver_start(struct manager *m, const struct driver *d, struct span question,
                    driver_done *done, void *ctx, struct why *why);

#endif
