/* POST /swarm/update: the settings, all of them at once, and what goes with them: join tokens, the
 * unlock key, autolock, the root. Steps, one after the other, each a command of the state:
 *
 *   a confirmed read -> the version is the one that was read? -> ROTATE, ROWS, LOCK; those needed
 *
 * The root's rotation goes first, since it can be refused for what it brings, and then nothing is
 * changed; only a root without a key comes after the rows, which say what external CA signs by
 * it. The settings and both tokens are one command. */
#include "api/engine/engine.h"

#include <stdlib.h>

#include <sodium.h>

#include "api/ca/authority.h"
#include "api/node/credentials.h"

enum step { STEP_ROTATE, STEP_ROWS, STEP_LOCK, STEPS };

struct update {
    struct exchange *x;
    json_t *json;
    struct engine_spec said;
    uint64_t version;
    bool worker_token, manager_token, unlock_key; /* to be made anew */
    unsigned n, at;                               /* steps; the next one */
    enum step steps[STEPS];
    struct write write;
    bool lock;                             /* STEP_LOCK: a new key; else none */
    uint8_t lock_stands[LOCK_DIGEST_SIZE]; /* what it replaces */
};

static void update_free(struct update *u) {
    engine_spec_free(&u->said);
    engine_wipe(u->json);
    json_decref(u->json);
    free(u);
}

static void finish(struct update *u, enum err e, const char *text) {
    struct exchange *x = u->x;
    update_free(u);
    if (e == OK)
        engine_empty(x, 200);
    else
        engine_rpc_error(x, e, text);
}

static void next_step(struct update *u);

static void on_step(void *ctx, enum err e, const char *text) {
    struct update *u = ctx;
    if (e == OK)
        next_step(u);
    else
        finish(u, e, text);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    if (e == OK && r->error != OK) {
        e = r->error;
        text = "";
    }
    on_step(w->ctx, e, text);
}

static RESULT propose(struct update *u, const struct command *c) {
    u->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = u};
    enum err e = command_encode(c, &u->write.command);
    if (e == OK) return manager_write(engine_manager(u->x), &u->write); /* wipes the command */
    buf_wipe(&u->write.command);
    return e;
}

/* --- rows ------------------------------------------------------------------------------------- */

/* docker's words take the place of what is there; what it has no words for stays. */
static RESULT add_settings(struct update *u, struct buf *changes) {
    struct row row;
    struct spec now, *said = &u->said.spec;
    struct buf body = buf_new(ROW_BODY_MAX);
    spec_get(engine_manager(u->x)->store, &row, &now);
    said->readmit = now.readmit;
    said->readmit_within_s = now.readmit_within_s;
    if (!u->said.has_task_history) said->task_history = now.task_history;
    enum err e = spec_encode(said, &body);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_SPEC,
                           .version = u->version,
                           .name = row.name,
                           .body = buf_span(&body)};
    memcpy(c.id, row.id, sizeof c.id);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

/* The next epoch of a role's standing token: the present one lets nobody in any more. */
static RESULT add_token(struct update *u, enum node_role role, struct buf *changes) {
    const struct store *s = engine_manager(u->x)->store;
    struct row row;
    struct join_token token;
    struct buf body = buf_new(ROW_BODY_MAX);
    if (!join_token_standing(s, role, &row, &token)) return ERR_NOT_FOUND;
    enum err e = credentials_token(store_cluster(s)->join_key, role, token.epoch + 1, &body);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_TOKEN,
                           .version = row.version,
                           .name = row.name,
                           .body = buf_span(&body)};
    memcpy(c.id, row.id, sizeof c.id);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

static RESULT write_rows(struct update *u) {
    struct manager *m = engine_manager(u->x);
    struct buf changes = buf_new(COMMAND_MAX);
    struct command c = {.op = OP_ROWS};
    enum err e = add_settings(u, &changes);
    if (e == OK && u->worker_token) e = add_token(u, NODE_WORKER, &changes);
    if (e == OK && u->manager_token) e = add_token(u, NODE_MANAGER, &changes);
    c.rows.n = 1U + u->worker_token + u->manager_token;
    c.rows.changes = buf_span(&changes);
    c.rows.now_ns = m->clock.wall_ns(&m->clock);
    if (e == OK) e = propose(u, &c);
    buf_free(&changes);
    return e;
}

/* --- the other steps -------------------------------------------------------------------------- */

static RESULT write_lock(struct update *u) {
    struct secret *key = NULL;
    struct command c = {.op = OP_LOCK};
    if (u->lock) TRY(secret_random(KEY_SIZE, &key));
    if (key) c.unlock_key = secret_span(key);
    c.lock_replaces = span_of(u->lock_stands, sizeof u->lock_stands);
    enum err e = propose(u, &c);
    secret_free(key);
    return e;
}

static RESULT rotate(struct update *u, struct why *why) {
    struct secret *key = NULL;
    struct span text = u->said.signing_key;
    if (text.size > 0) TRY(secret_new(text.at, text.size, &key));
    enum err e = authority_rotate(engine_manager(u->x), u->said.signing_cert, key, on_step, u, why);
    secret_free(key);
    return e;
}

static void next_step(struct update *u) {
    struct why why = {0};
    enum err e = OK;
    if (u->at == u->n) {
        finish(u, OK, "");
        return;
    }
    switch (u->steps[u->at++]) {
    case STEP_ROTATE: e = rotate(u, &why); break;
    case STEP_ROWS: e = write_rows(u); break;
    case STEP_LOCK: e = write_lock(u); break;
    case STEPS: break;
    }
    if (e != OK) finish(u, e, why.text);
}

/* --- beginning -------------------------------------------------------------------------------- */

static void plan(struct update *u, const struct spec *now) {
    const struct cluster *c = store_cluster(engine_manager(u->x)->store);
    const struct engine_spec *said = &u->said;
    bool rotates = said->signing_cert.size > 0 || said->spec.force_rotate != now->force_rotate;
    bool later = said->signing_cert.size > 0 && said->signing_key.size == 0;
    bool locks = said->autolock ? !c->unlock_key || u->unlock_key : c->unlock_key != NULL;
    u->lock = said->autolock;
    cluster_lock_digest(c, u->lock_stands);
    if (rotates && !later) u->steps[u->n++] = STEP_ROTATE;
    u->steps[u->n++] = STEP_ROWS;
    if (rotates && later) u->steps[u->n++] = STEP_ROTATE;
    if (locks) u->steps[u->n++] = STEP_LOCK;
}

static void on_read(struct exchange *x, enum err e) {
    struct update *u = x->stream;
    const struct manager *m = engine_manager(x);
    struct row row;
    struct spec now;
    struct why why = {0};
    x->stream = NULL;
    if (e == ERR_TIMEOUT) e = ERR_NO_LEADER; /* nobody confirmed the read */
    if (e == OK && (!m || m->state != MANAGER_RUNNING)) e = ERR_CLOSED;
    if (e == OK) {
        spec_get(m->store, &row, &now);
        if (row.version != u->version) e = ERR_CONFLICT;
        if (e == OK) e = engine_spec_decode(u->json, &now, &u->said, &why);
    }
    if (e != OK) {
        finish(u, e, why.text);
        return;
    }
    plan(u, &now);
    next_step(u);
}

static RESULT parse(struct update *u, struct why *why) {
    struct span query = u->x->head.query;
    TRY(engine_query_version(query, "swarm", &u->version, why));
    TRY(engine_query_bool(query, "rotateWorkerToken", &u->worker_token, why));
    TRY(engine_query_bool(query, "rotateManagerToken", &u->manager_token, why));
    TRY(engine_query_bool(query, "rotateManagerUnlockKey", &u->unlock_key, why));
    TRY(engine_body(&u->x->head, u->x->body, &u->json, why));
    sodium_memzero((uint8_t *)(uintptr_t)u->x->body.at, u->x->body.size); /* the connection's own */
    return OK;
}

void engine_swarm_update(struct exchange *x) {
    struct why why = {0};
    struct update *u = calloc(1, sizeof *u);
    if (!u) {
        engine_error(x, ERR_NOMEM, NULL);
        return;
    }
    u->x = x;
    enum err e = parse(u, &why);
    if (e != OK) {
        update_free(u);
        engine_error(x, e, why.text);
    } else if (!engine_ready(x)) {
        update_free(u);
    } else {
        x->stream = u;
        e = engine_ask(x, PROPOSAL_TIMEOUT_MS, on_read);
        if (e != OK) finish(u, e, NULL);
    }
}
