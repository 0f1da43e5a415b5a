/* /swarm: what the cluster is, its unlock key, unlocking and leaving. */
#include "api/engine/engine.h"

#include <stdio.h>

#include <sodium.h>

/* --- GET /swarm ------------------------------------------------------------------------------- */

/* The standing token of a role, which is derived and so can be shown; the caller wipes it. */
static RESULT show_token(const struct manager *m, enum node_role role, char out[JOIN_TOKEN_TEXT]) {
    const struct cluster *c = store_cluster(m->store);
    struct row row;
    struct join_token token;
    char text[JOIN_SECRET_SIZE + 1];
    struct secret *secret = NULL;
    out[0] = 0;
    if (!join_token_standing(m->store, role, &row, &token)) return OK; /* it was revoked */
    TRY(join_token_derive(c->join_key, role, token.epoch, text));
    enum err e = secret_new(text, JOIN_SECRET_SIZE, &secret);
    sodium_memzero(text, sizeof text);
    if (e == OK) e = token_format(buf_span(&c->ca.root_pem), secret, out);
    secret_free(secret);
    return e;
}

static void show_swarm(struct exchange *x) {
    const struct manager *m = engine_manager(x);
    char worker[JOIN_TOKEN_TEXT], manager[JOIN_TOKEN_TEXT];
    struct engine_view view;
    struct buf out;
    struct jout j;
    enum err e = engine_view(m, &view);
    if (e != OK) {
        engine_error(x, e, NULL);
        return;
    }
    e = show_token(m, NODE_WORKER, worker);
    if (e == OK) e = show_token(m, NODE_MANAGER, manager);
    if (e == OK) {
        engine_json_begin(&j, &out);
        engine_put_swarm(&j, &view.cluster, worker, manager);
        engine_json(x, &j);
    } else {
        engine_error(x, e, NULL);
    }
    sodium_memzero(worker, sizeof worker);
    sodium_memzero(manager, sizeof manager);
    engine_view_free(&view);
}

void engine_swarm(struct exchange *x) { engine_current(x, show_swarm); }

/* --- the unlock key --------------------------------------------------------------------------- */

static void show_key(struct exchange *x) {
    const struct secret *key = store_cluster(engine_manager(x)->store)->unlock_key;
    char text[UNLOCK_KEY_TEXT] = "";
    struct buf out;
    struct jout j;
    if (key && unlock_key_format(key, text) != OK) text[0] = 0;
    engine_json_begin(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "UnlockKey", text);
    jout_close(&j, '}');
    engine_json(x, &j);
    sodium_memzero(text, sizeof text);
}

void engine_swarm_unlock_key(struct exchange *x) { engine_current(x, show_key); }

static RESULT take_key(struct exchange *x, struct secret **out, struct why *why) {
    json_t *json;
    TRY(engine_body(&x->head, x->body, &json, why));
    enum err e = unlock_key_parse(jin_string(json, "UnlockKey"), out, why);
    engine_wipe(json);
    json_decref(json);
    sodium_memzero((uint8_t *)(uintptr_t)x->body.at, x->body.size); /* the connection's own */
    return e == ERR_NOMEM ? e : e == OK ? OK : ERR_INVALID;
}

void engine_swarm_unlock(struct exchange *x) {
    struct manager *m = engine_manager(x);
    struct secret *key = NULL;
    struct why why = {0};
    if (m->state == MANAGER_RUNNING) {
        engine_fail(x, 409, "swarm is not locked");
        return;
    }
    if (m->state != MANAGER_LOCKED) {
        (void)engine_ready(x); /* says why */
        return;
    }
    enum err e = take_key(x, &key, &why);
    if (e == OK) e = manager_unlock(m, key, KEK_UNLOCK_KEY, &why);
    secret_free(key);
    if (e == OK)
        engine_empty(x, 200);
    else if (e == ERR_WRONG_KEY)
        engine_fail(x, 401, "swarm could not be unlocked: invalid key provided");
    else
        engine_error(x, e, why.text);
}

/* --- leaving ---------------------------------------------------------------------------------- */

static void on_left(void *ctx, enum err e, const char *text) {
    if (e == OK)
        engine_empty(ctx, 200);
    else
        engine_fail(ctx, 503, text && text[0] ? text : err_text(e));
}

struct quorum {
    const struct manager *manager;
    unsigned reachable, unreachable;
};

static bool count_member(void *ctx, const struct row *row) {
    struct quorum *q = ctx;
    struct node_row node;
    struct node_member member = {0};
    if (node_row_decode(row->body, &node) == OK) nodes_member(q->manager, &node, &member);
    q->reachable += member.member && member.reachable;
    q->unreachable += member.member && !member.reachable;
    return true;
}

/* docker's own words: a manager leaves only by force, and is told what that means. */
static void refuse_leave(struct exchange *x) {
    struct quorum q = {.manager = engine_manager(x)};
    char text[640], effect[160] = "";
    row_all(q.manager->store, ROW_NODE, count_member, &q);
    bool last = q.reachable == 1 && q.unreachable == 0;
    if (last)
        (void)snprintf(effect, sizeof effect,
                       "Removing the last manager erases all current state of the swarm. Use "
                       "`--force` to ignore this message. ");
    else if (q.reachable <= q.unreachable + 2)
        (void)snprintf(effect, sizeof effect,
                       "Removing this node leaves %u managers out of %u. Without a Raft quorum "
                       "your swarm will be inaccessible. ",
                       q.reachable > 0 ? q.reachable - 1 : 0, q.reachable + q.unreachable);
    (void)snprintf(text, sizeof text,
                   "You are attempting to leave the swarm on a node that is participating as a "
                   "manager. %s%s",
                   effect,
                   last ? ""
                        : "The only way to restore a swarm that has lost consensus is to "
                          "reinitialize it with `--force-new-cluster`. Use `--force` to suppress "
                          "this message.");
    engine_fail(x, 503, text);
}

void engine_swarm_leave(struct exchange *x) {
    struct engine *g = engine_of(x);
    struct manager *m = g->api->manager;
    struct why why = {0};
    bool force = engine_query_flag(x->head.query, "force");
    if (g->joining) {
        engine_joining_cancel(g);
        engine_empty(x, 200);
    } else if (m->state == MANAGER_EMPTY) {
        engine_fail(x, 503, "This node is not part of a swarm");
    } else if (m->state == MANAGER_LOCKED && !force) {
        engine_fail(x, 503,
                    "Swarm is encrypted and locked. Please unlock it first or use `--force` to "
                    "ignore this message.");
    } else if (m->state == MANAGER_LOCKED) {
        on_left(x, manager_abandon(m, &why), why.text);
    } else if (m->state == MANAGER_RUNNING && !force) {
        refuse_leave(x);
    } else {
        enum err e = nodes_leave(m, force, on_left, x, &why);
        if (e != OK) engine_fail(x, 503, why.text[0] ? why.text : err_text(e));
    }
}
