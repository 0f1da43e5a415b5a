/* A server that is measured: a process of its own on this machine, with a scratch directory and two
 * free ports, so that its memory and processor time are its own. It has no output, and is killed in
 * the end. */
#ifndef CONCLAVE_BENCH_SERVER_H
#define CONCLAVE_BENCH_SERVER_H

#include <sys/types.h>

#include "api/json.h"
#include "api/node/identity.h"
#include "crypto/limits.h"

#define BENCH_READY_MS 30000 /* for a server to serve */

struct bench_server {
    pid_t pid;                                  /* 0: not started */
    unsigned port;                              /* of its clients */
    char client[ADDRESS_MAX];                   /* its address for them */
    char peer[ADDRESS_MAX];                     /* its address for other members */
    char dir[256];                              /* for its data; "": none */
    char socket[sizeof "/conclave.sock" + 256]; /* of its API */
};

/* Ports and a directory in `parent`; then one of the two starts it. After either: stop. */
RESULT bench_server_prepare(struct bench_server *s, const char *parent);
RESULT bench_server_run(struct bench_server *s, const char *const *argv); /* ends with NULL */
/* The conclave beside this program: `serve` with the ports and the directory, and `more` options,
 * which end with NULL. */
RESULT bench_server_conclave(struct bench_server *s, const char *name, const char *const *more);
void bench_server_stop(struct bench_server *s);                 /* and its directory is gone */
bool bench_server_gone(const struct bench_server *s);           /* it ended by itself */
uint64_t bench_server_memory_kib(const struct bench_server *s); /* resident */
double bench_server_cpu_s(const struct bench_server *s);        /* user and system time so far */

/* GET on its own socket. Free with json_decref. */
RESULT bench_server_get(const struct bench_server *s, const char *path, json_t **out,
                        struct why *why);
/* The standing token of a role, as soon as it serves. ERR_CLOSED, ERR_TIMEOUT. */
RESULT bench_server_token(const struct bench_server *s, const char *role, char out[JOIN_TOKEN_TEXT],
                          struct why *why);

#endif
