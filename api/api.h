/* What the handlers share: the manager, the server, the figures of /metrics. Handlers are grouped
 * by file: handlers_kv.c (etcd's gateway paths), handlers_info.c (health, version, metrics,
 * status), handlers_admin.c (the cluster and its members), handlers_keys.c (locks, keys, tokens,
 * certificates, backup). */
#ifndef CONCLAVE_API_H
#define CONCLAVE_API_H

#include "api/admin.h"
#include "api/manager.h"
#include "api/server.h"

#define ETCD_VERSION "3.5.13" /* what clients of etcd's gateway may expect from us */

struct api_figures {
    uint64_t ranges, puts, deletes; /* requests */
    uint64_t failed;                /* writes that did not end well */
    uint64_t leader_changes;        /* seen here */
};

struct api {
    const struct log *log;   /* the caller's */
    struct manager *manager; /* the caller's */
    struct server *server;   /* the caller's */
    struct api_figures figures;
    struct transfer *transfers; /* hand-overs whose outcome is awaited (handlers_admin.c) */
    struct stream *streams;     /* backups under way (handlers_keys.c) */
};

extern const struct route api_routes[];
void api_led(struct api *api);  /* who leads has changed */
void api_stop(struct api *api); /* the state goes away: ends what still reads it */

/* One per file; the table is in handlers_info.c. */
void handle_range(struct exchange *x);
void handle_put(struct exchange *x);
void handle_delete(struct exchange *x);
void handle_init(struct exchange *x);
void handle_join(struct exchange *x);
void handle_leave(struct exchange *x);
void handle_members(struct exchange *x);
void handle_promote(struct exchange *x);
void handle_demote(struct exchange *x);
void handle_remove(struct exchange *x);
void handle_transfer(struct exchange *x);
void handle_unlock(struct exchange *x);
void handle_lock(struct exchange *x);
void handle_unlock_key(struct exchange *x);
void handle_unlock_key_rotate(struct exchange *x);
void handle_keys_rotate(struct exchange *x);
void handle_token_rotate(struct exchange *x);
void handle_certificate(struct exchange *x);
void api_stop_transfers(struct api *api);
void handle_backup(struct exchange *x);

/* The body as JSON, or an answered exchange (false). Free with json_decref. */
bool api_body(struct exchange *x, json_t **out);
/* Running, or an answered exchange (false). */
bool api_ready(struct exchange *x);
void api_fail(struct exchange *x, enum err e,
              const struct why *why); /* why's text, or the error's own */
/* Calls `then` once the state here holds all that was acknowledged before; errors are answered. */
void api_current(struct exchange *x, void (*then)(struct exchange *x));
/* etcd's response header, as the first field of an open object. */
void api_header(struct jout *j, const struct api *api);
/* The Idempotency-Key header: 32 hexadecimal digits. ERR_INVALID. */
RESULT api_token(const struct exchange *x, struct command *c, struct why *why);

/* A write on behalf of an exchange: proposes, and answers errors; `done` only sees success. Frees
 * itself. */
typedef void api_written(struct exchange *x, const struct result *r, void *data);
void api_write(struct exchange *x, const struct command *c, api_written *done, void *data);

#endif
