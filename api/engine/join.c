/* swarm init and swarm join. A join tries the managers that it was told, one after the other, as
 * long as it takes; whoever asked is told after ENGINE_JOIN_WAIT_MS that it goes on without him.
 *
 *   join:  asked --> trying --done--> over       leave, or the node's stop: cancelled
 *                     ^ \--passing error, 1 s--> trying
 *   init:  asked --> founded --> settling --> over
 *
 * An init with ForceNewCluster on a manager makes it the only one of its cluster (recover.c).
 *
 * What was said of addresses goes into the manager's configuration, and out of it again when
 * nothing comes of it. Settling: what the request says beyond becoming a member is written. */
#include "api/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#include "api/engine/address.h"
#include "api/engine/settle.h"

struct engine_joining {
    struct engine *engine;      /* the owner; NULL once it is over */
    struct exchange *x;         /* who waits for it; NULL: nobody any more */
    struct engine_join request; /* of a join */
    enum node_availability availability;
    struct engine_place before; /* the addresses of the configuration that were there */
    unsigned at;                /* the manager that is tried */
    bool asking;                /* the manager has it and will call back */
    bool cancelled;             /* leave was said meanwhile */
    uv_timer_t patience;        /* of who asked */
    uv_timer_t again;           /* until the next attempt */
    int handles;                /* of them that are not closed */
};

/* --- life ------------------------------------------------------------------------------------- */

static void on_timer_closed(uv_handle_t *handle) {
    struct engine_joining *j = handle->data;
    if (--j->handles > 0) return;
    sodium_memzero(j, sizeof *j);
    free(j);
}

/* Over: nobody waits and nothing calls back. */
static void finish(struct engine_joining *j) {
    j->engine->joining = NULL;
    sodium_memzero(j->request.token, sizeof j->request.token);
    uv_close((uv_handle_t *)&j->patience, on_timer_closed);
    uv_close((uv_handle_t *)&j->again, on_timer_closed);
}

static RESULT begin(struct exchange *x, struct engine_joining **out) {
    struct engine *g = engine_of(x);
    struct engine_joining *j = calloc(1, sizeof *j);
    if (!j) return ERR_NOMEM;
    j->engine = g;
    j->x = x;
    j->handles = 2;
    (void)uv_timer_init(g->loop, &j->patience);
    (void)uv_timer_init(g->loop, &j->again);
    j->patience.data = j->again.data = j;
    g->joining = j;
    *out = j;
    return OK;
}

/* --- addresses -------------------------------------------------------------------------------- */

static void put_place(struct manager_config *c, const struct engine_place *p) {
    (void)snprintf(c->peer, sizeof c->peer, "%s", p->listen);
    (void)snprintf(c->advertise, sizeof c->advertise, "%s", p->host);
}

/* Chooses the addresses and puts them into the configuration. */
static RESULT choose_place(struct engine_joining *j, const char *listen, const char *advertise,
                           const char *remote, struct why *why) {
    struct engine *g = j->engine;
    struct manager_config *c = &g->api->manager->config;
    const struct engine_wish wish = {.listen = listen,
                                     .advertise = advertise,
                                     .peer = g->peer,
                                     .own_advertise = g->advertise,
                                     .remote = remote};
    struct engine_place place;
    (void)snprintf(j->before.listen, ADDRESS_MAX, "%s", c->peer);
    (void)snprintf(j->before.host, ADDRESS_MAX, "%s", c->advertise);
    TRY(engine_place(&wish, &place, why));
    put_place(c, &place);
    return OK;
}

static void restore_place(struct engine_joining *j) {
    if (j->before.listen[0] && j->engine->api->manager)
        put_place(&j->engine->api->manager->config, &j->before);
}

/* A node that belongs to no cluster and is on its way to none; else it is answered (false). */
static bool is_free(struct exchange *x) {
    const struct engine *g = engine_of(x);
    const struct manager *m = g->api->manager;
    bool known = m->state == MANAGER_RUNNING || m->state == MANAGER_WORKER ||
                 m->state == MANAGER_LOCKED || m->state == MANAGER_JOINING;
    if (g->joining || known)
        engine_fail(x, 503,
                    "This node is already part of a swarm. Use \"docker swarm leave\" to leave "
                    "this swarm and join another one.");
    else if (m->state != MANAGER_EMPTY)
        (void)engine_ready(x);
    else
        return true;
    return false;
}

/* --- init ------------------------------------------------------------------------------------- */

static void answer_node_id(struct exchange *x) {
    struct buf out;
    struct jout j;
    engine_json_begin(&j, &out);
    jout_text(&j, span_str(engine_manager(x)->self.node_id));
    engine_json(x, &j);
}

static void end_init(struct engine_joining *j, enum err e, const char *text) {
    struct exchange *x = j->x;
    if (e != OK) restore_place(j);
    finish(j);
    if (x) sodium_memzero((uint8_t *)(uintptr_t)x->body.at, x->body.size); /* may have had a key */
    if (x && e == OK)
        answer_node_id(x);
    else if (x)
        engine_rpc_error(x, e, text);
}

static void on_settled_init(void *ctx, enum err e, const char *text) {
    struct engine_joining *j = ctx;
    j->asking = false;
    end_init(j, e, text);
}

/* The settings of the request; its body is still there while its asker waits. */
static RESULT settle_init(struct engine_joining *j) {
    struct engine_settle wish = {.availability = j->availability};
    struct engine_init said;
    json_t *json;
    if (!j->x) return ERR_NOT_FOUND;
    TRY(engine_body(&j->x->head, j->x->body, &json, NULL));
    enum err e = engine_init_decode(json, &said, NULL);
    if (e == OK) {
        wish.spec = &said.spec;
        e = engine_settle(j->engine->api->manager, &wish, on_settled_init, j);
        engine_spec_free(&said.spec);
    }
    json_decref(json);
    return e;
}

static void on_founded(void *ctx, enum err e, const char *text) {
    struct engine_joining *j = ctx;
    if (e == OK) e = settle_init(j);
    if (e == OK) return;
    j->asking = false;
    end_init(j, e == ERR_NOT_FOUND ? OK : e, text);
}

/* --force-new-cluster on a manager: its addresses and the settings stay. */
static void on_recovered(void *ctx, enum err e, const char *text) {
    struct engine_joining *j = ctx;
    j->asking = false;
    end_init(j, e, text);
}

static RESULT recover(struct exchange *x, struct why *why) {
    struct engine_joining *j;
    TRY(begin(x, &j));
    j->asking = true;
    enum err e = manager_recover(engine_manager(x), on_recovered, j, why);
    if (e != OK) finish(j);
    return e;
}

/* The CA that the request brings is the cluster's from the first certificate on. */
static RESULT bring_ca(struct manager *m, const struct engine_spec *said, struct why *why) {
    struct secret *key = NULL;
    if (said->signing_cert.size == 0) return OK;
    if (said->signing_key.size == 0)
        return fail_with(why, ERR_INVALID, "a CA without its key can't found a cluster");
    TRY(secret_new(said->signing_key.at, said->signing_key.size, &key));
    enum err e = manager_own_ca(m, said->signing_cert, key, why);
    secret_free(key);
    return e;
}

static RESULT init(struct exchange *x, const struct engine_init *said, struct why *why) {
    struct engine_joining *j;
    TRY(bring_ca(engine_manager(x), &said->spec, why));
    TRY(begin(x, &j));
    j->availability = said->availability;
    j->asking = true;
    enum err e = choose_place(j, said->listen, said->advertise, NULL, why);
    if (e == OK) e = manager_init(j->engine->api->manager, said->autolock, on_founded, j, why);
    if (e == OK) return OK;
    restore_place(j);
    finish(j);
    return e;
}

void engine_swarm_init(struct exchange *x) {
    struct engine_init said;
    json_t *json;
    struct why why = {0};
    if (!engine_json_body(x, &json)) return;
    enum err e = engine_init_decode(json, &said, &why);
    if (e == OK) {
        if (said.force_new && !engine_of(x)->joining && engine_manager(x)->state == MANAGER_RUNNING)
            e = recover(x, &why);
        else if (is_free(x))
            e = init(x, &said, &why);
        engine_spec_free(&said.spec);
    }
    engine_wipe(json);
    json_decref(json);
    if (e != OK) engine_error(x, e, why.text);
}

/* --- join ------------------------------------------------------------------------------------- */

static void attempt(struct engine_joining *j);

static void on_again(uv_timer_t *timer) { attempt(timer->data); }

/* What may be otherwise in a moment, or with another manager. */
static bool is_passing(enum err e) {
    static const enum err passing[] = {ERR_UNREACHABLE, ERR_NO_LEADER, ERR_NOT_LEADER,   ERR_BUSY,
                                       ERR_CLOSED,      ERR_TIMEOUT,   ERR_MAYBE_APPLIED};
    for (size_t i = 0; i < ARRAY_SIZE(passing); i++)
        if (e == passing[i]) return true;
    return false;
}

/* A token that does not let in is an argument that is not valid, as Swarm sees it. */
static void answer_join(struct exchange *x, enum err e, const char *text) {
    if (e == OK)
        engine_empty(x, 200);
    else
        engine_rpc_error(x, e == ERR_PERMISSION ? ERR_INVALID : e, text);
}

static void end_join(struct engine_joining *j, enum err e, const char *text) {
    struct exchange *x = j->x;
    if (e != OK) restore_place(j);
    if (e != OK && !x) log_event(j->engine->api->log, LOG_WARNING, "engine", "joining: %s", text);
    finish(j);
    if (x) answer_join(x, e, text);
}

static void ignore(void *ctx, enum err e, const char *text) {
    (void)ctx;
    (void)e;
    (void)text;
}

static void on_joined(void *ctx, enum err e, const char *text) {
    struct engine_joining *j = ctx;
    struct manager *m = j->engine->api->manager;
    j->asking = false;
    if (j->cancelled) {
        if (e == OK) (void)!nodes_leave(m, true, ignore, NULL, NULL);
        end_join(j, ERR_CLOSED, "cancelled");
    } else if (is_passing(e) && m) {
        j->at = (j->at + 1) % j->request.n;
        log_event(j->engine->api->log, LOG_WARNING, "engine", "joining: %s; trying again", text);
        (void)uv_timer_start(&j->again, on_again, ENGINE_JOIN_AGAIN_MS, 0);
    } else {
        end_join(j, e, text);
    }
}

static void attempt(struct engine_joining *j) {
    struct manager *m = j->engine->api->manager;
    struct why why = {0};
    char remote[ADDRESS_MAX];
    enum err e = engine_full_address(j->request.remotes[j->at], remote, &why);
    j->asking = true;
    m->config.availability = j->availability;
    if (e == OK) e = manager_join(m, remote, j->request.token, on_joined, j, &why);
    if (e == OK) return;
    j->asking = false;
    end_join(j, e, why.text);
}

static void on_patience(uv_timer_t *timer) {
    struct engine_joining *j = timer->data;
    struct exchange *x = j->x;
    j->x = NULL;
    engine_fail(x, 503,
                "Timeout was reached before node joined. The attempt to join the swarm will "
                "continue in the background. Use the \"docker info\" command to see the current "
                "swarm status of your node.");
}

/* The first address is the one that the others are seen from. */
static RESULT place_join(struct engine_joining *j, struct why *why) {
    char remote[ADDRESS_MAX];
    TRY(engine_full_address(j->request.remotes[0], remote, why));
    return choose_place(j, j->request.listen, j->request.advertise, remote, why);
}

static RESULT join(struct exchange *x, const struct engine_join *said, struct why *why) {
    struct engine_joining *j;
    TRY(begin(x, &j));
    j->request = *said;
    j->availability = said->availability;
    enum err e = place_join(j, why);
    if (e == OK) {
        (void)uv_timer_start(&j->patience, on_patience, ENGINE_JOIN_WAIT_MS, 0);
        attempt(j); /* answers whatever goes wrong */
        return OK;
    }
    restore_place(j);
    finish(j);
    return e;
}

void engine_swarm_join(struct exchange *x) {
    struct engine_join said;
    json_t *json;
    struct why why = {0};
    if (!engine_json_body(x, &json)) return;
    enum err e = engine_join_decode(json, &said, &why);
    engine_wipe(json);
    json_decref(json);
    sodium_memzero((uint8_t *)(uintptr_t)x->body.at, x->body.size); /* the connection's own */
    if (e == OK && is_free(x)) e = join(x, &said, &why);
    sodium_memzero(said.token, sizeof said.token);
    if (e != OK) engine_error(x, e, why.text);
}

/* --- the end ---------------------------------------------------------------------------------- */

void engine_joining_cancel(struct engine *g) {
    struct engine_joining *j = g->joining;
    struct exchange *x = j->x;
    j->x = NULL;
    j->cancelled = true;
    (void)uv_timer_stop(&j->patience);
    if (!j->asking) end_join(j, ERR_CLOSED, "cancelled");
    if (x) engine_fail(x, 503, "the join was cancelled by `swarm leave`");
}

void engine_joining_stop(struct engine *g) {
    if (g->joining) engine_joining_cancel(g);
}
