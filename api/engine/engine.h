/* The Engine API: JSON over HTTP as docker's clients speak it, on <data>/engine.sock for the owner
 * of the data, and by choice over mutual TLS for administrators (--engine ADDR:PORT). A server of
 * its own (server.h) has one route for all its paths; what they mean is told here and by route.h.
 *
 *   a request -> engine_find -> version, path, method -> a handler
 *     reads:  engine_current (all that was acknowledged before is here) -> rows -> encode.h
 *     writes: request.h -> nodes.h, authority.h, OP_ROWS, OP_LOCK -> the leader
 *
 * What a node can say of itself (_ping, version, info, leave, init, join, unlock) it says in every
 * state; all else needs a running manager, and says so with docker's sentences (503). Errors are
 * {"message"}; a sentence of Swarm's manager carries gRPC's prefix, as there.
 *
 * Files: answer.c (answers, errors, reads), info.c, swarm.c (init, join, leave, unlock), update.c,
 * nodes.c, secrets.c (configs too), services.c, tasks.c, event_stream.c, rest.c (the table of
 * routes and what is not there). */
#ifndef CONCLAVE_ENGINE_H
#define CONCLAVE_ENGINE_H

#include "api/api.h"
#include "api/engine/encode.h"
#include "api/engine/encode_service.h"
#include "api/engine/filters.h"
#include "api/engine/issuer.h"
#include "api/engine/request.h"
#include "api/engine/route.h"
#include "api/node/nodes.h"
#include "api/secret/secrets.h"

#define ENGINE_JOIN_WAIT_MS  20000 /* a join that takes longer goes on in the background */
#define ENGINE_JOIN_AGAIN_MS 1000  /* before another attempt */
#define ENGINE_INFO_WAIT_MS  2000  /* after which /info tells of no leader */
#define ENGINE_EVENTS_MAX    256   /* events kept for whoever asks later */
#define ENGINE_READERS_MAX   256   /* streams of events at once */
#define ENGINE_EVENT_MAX     (4 * KIB)
#define ENGINE_ANSWER_MAX    (64 * MIB) /* a list of all nodes or tasks */

struct engine_event;   /* events.c */
struct engine_reader;  /* a stream of them */
struct engine_joining; /* swarm.c: an init or join that is under way */

struct engine {
    struct api *api;                /* the owner */
    uv_loop_t *loop;                /* the owner's */
    char peer[ADDRESS_MAX];         /* --peer, if it was given; else "" */
    char advertise[ADDRESS_MAX];    /* --advertise; "" */
    struct engine_joining *joining; /* NULL: none */
    struct engine_event *events;    /* a ring of ENGINE_EVENTS_MAX */
    uint64_t n_events;              /* ever */
    struct engine_reader *readers;  /* all */
    unsigned n_readers;             /* their number */
};

/* `peer`: the option's text, "" when it was not given. */
RESULT engine_new(struct api *api, uv_loop_t *loop, const char *peer, const char *advertise);
void engine_stop(struct engine *e); /* answers all that waits; no more requests come */
extern const struct route engine_no_routes[];
const struct route *engine_find(const struct http_head *head); /* for server_config */
/* A node's row has changed, on the loop, inside apply (row.h, row_changed). */
void engine_row_changed(struct engine *e, const struct row *before, const struct row *after);

/* --- between its files: answers (answer.c) ---------------------------------------------------- */

static inline struct engine *engine_of(const struct exchange *x) {
    return ((const struct api *)x->ctx)->engine;
}
static inline struct manager *engine_manager(const struct exchange *x) {
    return ((const struct api *)x->ctx)->manager;
}
/* With docker's headers, and `more` of them (ANSWER_HEADERS_MAX - 4 at the most). */
void engine_answer(struct exchange *x, unsigned status, const char *type, struct span body,
                   const struct http_header *more, unsigned n);
void engine_empty(struct exchange *x, unsigned status);
/* 200 with what the writer made, or an error; wipes and frees. */
void engine_json(struct exchange *x, struct jout *j);
void engine_json_as(struct exchange *x, unsigned status, struct jout *j); /* not 200 */
/* A writer over a new buffer, which engine_json frees. */
void engine_json_begin(struct jout *j, struct buf *out);
RESULT engine_stream(struct exchange *x); /* 200, JSON, in pieces */
void engine_fail(struct exchange *x, unsigned status, const char *text);
/* With docker's status; text NULL or "": the error's own. */
void engine_error(struct exchange *x, enum err e, const char *text);
/* The same with gRPC's prefix, as errors of Swarm's manager come out of docker. */
void engine_rpc_error(struct exchange *x, enum err e, const char *text);
/* A running manager, or an answered exchange (false). */
bool engine_ready(struct exchange *x);
/* Calls `then` once the state here holds all that was acknowledged before; errors are answered. */
void engine_current(struct exchange *x, void (*then)(struct exchange *x));
/* The same for a list; filters that can't be are refused before anybody is asked. */
typedef RESULT engine_filters(const struct exchange *x, struct filters *out, struct why *why);
void engine_filtered(struct exchange *x, engine_filters *parse, void (*then)(struct exchange *x));
/* As engine_current, but `then` is called in any case; `e` tells whether it was confirmed. */
typedef void engine_asked(struct exchange *x, enum err e);
RESULT engine_ask(struct exchange *x, unsigned wait_ms, engine_asked *then);
extern const char engine_no_leader[]; /* docker's sentence */
/* What {id} of the path stands for. */
void engine_id(const struct exchange *x, char out[ENGINE_ID_MAX]);
/* The body's JSON, or an answered exchange (false). Free with json_decref. */
bool engine_json_body(struct exchange *x, json_t **out);
const char *engine_local_state(const struct engine *e); /* docker's LocalNodeState */
bool engine_is_worker(const struct manager *m);

/* --- what is shown of the state (view.c) ------------------------------------------------------ */

struct engine_view {
    struct row row; /* of the settings */
    struct spec spec;
    struct engine_cluster cluster; /* points to the above, and into the store */
    struct engine_issuers issuers;
};
/* Until engine_view_free, within one callback of the loop. */
RESULT engine_view(const struct manager *m, struct engine_view *out);
void engine_view_free(struct engine_view *v);
struct engine_node engine_node_of(const struct manager *m, const struct engine_view *v,
                                  const struct row *row, const struct node_row *node);
/* By id, by exact name, by the beginning of an id; `what` is docker's word for the kind, of which
 * the sentence is made. ERR_NOT_FOUND; ERR_INVALID: more than one. */
RESULT engine_find_row(const struct store *s, enum row_kind kind, const char *what,
                       const char *text, struct row *row, struct why *why);
/* By id, by host name, by name, by the beginning of an id. ERR_NOT_FOUND; ERR_INVALID. */
RESULT engine_find_node(const struct store *s, const char *text, struct row *row,
                        struct node_row *node, struct why *why);

/* --- handlers --------------------------------------------------------------------------------- */

void engine_ping(struct exchange *x);
void engine_version(struct exchange *x);
void engine_info(struct exchange *x);
void engine_swarm(struct exchange *x);
void engine_swarm_init(struct exchange *x);
void engine_swarm_join(struct exchange *x);
void engine_swarm_leave(struct exchange *x);
void engine_swarm_update(struct exchange *x);
void engine_swarm_unlock_key(struct exchange *x);
void engine_swarm_unlock(struct exchange *x);
void engine_nodes(struct exchange *x);
void engine_node(struct exchange *x);
void engine_node_update(struct exchange *x);
void engine_node_remove(struct exchange *x);
void engine_secrets(struct exchange *x);
void engine_secret(struct exchange *x);
void engine_secret_create(struct exchange *x);
void engine_secret_update(struct exchange *x);
void engine_secret_remove(struct exchange *x);
void engine_configs(struct exchange *x);
void engine_config(struct exchange *x);
void engine_config_create(struct exchange *x);
void engine_config_update(struct exchange *x);
void engine_config_remove(struct exchange *x);
void engine_services(struct exchange *x);
void engine_service(struct exchange *x);
void engine_service_create(struct exchange *x);
void engine_service_update(struct exchange *x);
void engine_service_remove(struct exchange *x);
void engine_tasks(struct exchange *x);
void engine_task(struct exchange *x);
void engine_events(struct exchange *x);

void engine_joining_cancel(struct engine *e); /* join.c; there is one */
void engine_joining_stop(struct engine *e);   /* the same; there may be none */
void engine_events_stop(struct engine *e);    /* event_stream.c */
struct engine_event *engine_events_new(void); /* the ring; NULL: no memory */

#endif
