/* What the handlers share: the manager, the server, the figures of /metrics; the functions are in
 * handlers.c. Handlers are grouped by file: handlers_info.c (version, status, the table of routes),
 * handlers_health.c, handlers_metrics.c, handlers_admin.c (the cluster and its members),
 * handlers_keys.c (locks, keys, certificates, backup), handlers_tokens.c, handlers_nodes.c,
 * handlers_ca.c, handlers_held.c (secrets and configs), handlers_services.c, handlers_vault.c (the
 * cluster keys), handlers_audit.c, handlers_run.c. */
#ifndef CONCLAVE_API_H
#define CONCLAVE_API_H

#include "api/admin.h"
#include "api/http/server.h"
#include "api/manager.h"
#include "store/audit.h"

#define ETCD_VERSION "3.5.13" /* what clients of etcd's gateway may expect from us */

struct api_figures {
    uint64_t ranges, puts, deletes;   /* requests */
    uint64_t failed;                  /* writes that did not end well */
    uint64_t leader_changes;          /* seen here */
    uint64_t health_good, health_bad; /* answers of /health */
};

/* How long the way to a member and back takes (handlers_metrics.c). */
struct peer_times {
    uint64_t raft_id; /* 0: nobody's */
    struct histogram round_trip;
};

struct engine; /* api/engine */

struct api {
    const struct log *log;       /* the caller's */
    struct manager *manager;     /* the caller's */
    struct server *server;       /* the caller's */
    struct rpcs *rpcs;           /* the caller's; api/rpc */
    struct health_watch *health; /* watches of the health service (api/etcd/health.c) */
    struct api_figures figures;
    struct peer_times peer_times[MEMBERS_MAX];
    int64_t started_s;          /* when the program was started, UTC */
    uint64_t quota;             /* bytes of the store past which writes are refused; 0: none */
    bool raising;               /* the NOSPACE alarm is on its way (api/etcd/kv.c) */
    bool insecure;              /* the client port is plaintext */
    struct transfer *transfers; /* hand-overs whose outcome is awaited (handlers_admin.c) */
    struct stream *streams;     /* backups under way (handlers_keys.c) */
    struct callers *callers;    /* tokens and passwords (api/etcd/caller.h) */
    struct engine *engine;      /* the Engine API's; NULL: none */
    struct watch_hub *hub;      /* while there is a store; api/etcd/watch.c */
    struct lookout *lookouts;   /* waits of our own for keys (api/etcd/lookout.c) */
    struct watches *watches;    /* the Watch service; NULL: not yet */
    uint64_t progress_ms;       /* between its notices of progress */
    /* Reads what the operator has changed (certificates) again; an error: it can't be used. */
    enum err (*reload)(struct api *api, struct why *why);
};

extern const struct route api_routes[];
void api_led(struct api *api);  /* who leads has changed */
void api_stop(struct api *api); /* the state goes away: ends what still reads it */

/* One per file; the table is in handlers_info.c. */
void handle_metrics(struct exchange *x);
void api_sample(struct api *api); /* once a second: what is measured by looking at it */
void handle_health(struct exchange *x);
void handle_livez(struct exchange *x);
void handle_readyz(struct exchange *x);
void handle_check(struct exchange *x);
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
void handle_backup_key(struct exchange *x);
void handle_unlock_key_rotate(struct exchange *x);
void handle_keys_rotate(struct exchange *x);
void handle_tokens(struct exchange *x); /* handlers_tokens.c */
void handle_token_create(struct exchange *x);
void handle_token_remove(struct exchange *x);
void handle_token_show(struct exchange *x);
void handle_token_rotate(struct exchange *x);
void handle_nodes(struct exchange *x); /* handlers_nodes.c */
void handle_node(struct exchange *x);
void handle_node_update(struct exchange *x);
void handle_node_promote(struct exchange *x);
void handle_node_demote(struct exchange *x);
void handle_node_remove(struct exchange *x);
void handle_node_approve(struct exchange *x);
void handle_node_deny(struct exchange *x);
void handle_ca(struct exchange *x); /* handlers_ca.c */
void handle_ca_rotate(struct exchange *x);
void handle_ca_abort(struct exchange *x);
void handle_ca_force(struct exchange *x);
void handle_ca_set(struct exchange *x);
void handle_held(struct exchange *x); /* handlers_held.c: secrets and configs */
void handle_held_inspect(struct exchange *x);
void handle_config_value(struct exchange *x);
void handle_held_create(struct exchange *x);
void handle_held_put(struct exchange *x);
void handle_held_update(struct exchange *x);
void handle_held_remove(struct exchange *x);
void handle_services(struct exchange *x); /* handlers_services.c */
void handle_service(struct exchange *x);
void handle_service_tasks(struct exchange *x);
void handle_service_create(struct exchange *x);
void handle_service_update(struct exchange *x);
void handle_service_scale(struct exchange *x);
void handle_service_remove(struct exchange *x);
void handle_vault(struct exchange *x); /* handlers_vault.c */
void handle_vault_rotate(struct exchange *x);
void handle_vault_escrow(struct exchange *x);
void handle_vault_import(struct exchange *x);
void handle_secret_shred(struct exchange *x);
void handle_audit(struct exchange *x); /* handlers_audit.c */
void handle_audit_head(struct exchange *x);
void handle_run(struct exchange *x); /* handlers_run.c */
void handle_certificate(struct exchange *x);
void handle_reload(struct exchange *x);
void api_stop_transfers(struct api *api);
void handle_backup(struct exchange *x);
void handle_import(struct exchange *x); /* handlers_import.c */

/* The body as JSON, or an answered exchange (false). Free with json_decref. */
bool api_body(struct exchange *x, json_t **out);
/* "chain" and "key" (PEM, both may be absent) of a body, which is wiped; *key is the caller's. */
RESULT api_chain(const struct exchange *x, json_t *body, struct buf *chain, struct secret **key,
                 struct why *why);
/* Running, or an answered exchange (false). */
bool api_ready(struct exchange *x);
void api_fail(struct exchange *x, enum err e,
              const struct why *why); /* why's text, or the error's own */
/* Calls `then` once the state here holds all that was acknowledged before; errors are answered. */
void api_current(struct exchange *x, void (*then)(struct exchange *x));
/* The Idempotency-Key header: 32 hexadecimal digits. ERR_INVALID. */
RESULT api_token(const struct exchange *x, struct command *c, struct why *why);

/* A write on behalf of an exchange: proposes, and answers errors; `done` only sees success. What it
 * needs then is in `kept` (taken over in all cases, freed after; may be NULL). Frees itself. */
typedef void api_written(struct exchange *x, const struct result *r, const struct secret *kept);
void api_write(struct exchange *x, const struct command *c, api_written *done, struct secret *kept);
/* The same for changes of rows. */
void api_rows(struct exchange *x, const struct row_change *changes, unsigned n, api_written *done,
              struct secret *kept);
/* A record of the audit, by and from whoever asks (its who and from are filled in). What it tells
 * of is done by `done`, so nothing of it happens unrecorded. */
void api_audit(struct exchange *x, const struct audit_record *record, api_written *done,
               struct secret *kept);
void api_empty(struct exchange *x, const struct result *r,
               const struct secret *kept);              /* an api_written: "{}" */
void api_done(void *ctx, enum err e, const char *text); /* a manager_done, ctx: the exchange */
/* Ends `j` and answers with `out`, which is wiped and freed in all cases. */
void api_answer(struct exchange *x, struct jout *j, struct buf *out);

#endif
