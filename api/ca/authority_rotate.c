/* Rotations: what a new CA must be, its bridge from the present one, and the leader's part
 * (authority.h). Each step is one proposal that names the rotation as its proposer has seen it; the
 * end of a rotation is two, other join tokens first. A leader that fails in between leaves tokens
 * that were made once more for nothing; the next leader begins the end anew. */
#include "api/ca/authority.h"

#include <stdlib.h>

#include "api/node/roles.h"
#include "store/join_token.h"

#define LOOK_MS        500 /* between two looks at all nodes */
#define SPREAD_PERIODS 3   /* heartbeats, in which whoever is up hears of a new root */
#define SPREAD_MIN_MS  2000
#define RETIRED_MAX    4 /* old roots at once */

/* One change of the authority, under way. */
struct authority_op {
    struct manager *manager;
    struct write write;
    enum ca_action then; /* behind the rows of the tokens; 0: nothing */
    bool retire;         /* CA_FINISH: nodes that trust only the old root are left */
    uint64_t rotation;   /* as seen when it was begun */
    manager_done *done;
    void *ctx; /* of done */
};

struct authority {
    bool busy;         /* an op of the leader's own is under way */
    uint64_t look_ms;  /* no look before */
    uint64_t rotation; /* seen under way... */
    uint64_t since_ms; /* ...since */
};

static uint64_t now_of(const struct manager *m) {
    return m->clock.now_ms((struct clock *)(uintptr_t)&m->clock);
}

static struct span signer_of(const struct ca *ca) {
    return ca->issuer_pem.size > 0 ? buf_span(&ca->issuer_pem) : buf_span(&ca->root_pem);
}

/* --- proposals ------------------------------------------------------------------------------ */

static void on_written(struct write *w, enum err e, const char *text, const struct result *r);

static RESULT propose(struct authority_op *op, const struct command *c) {
    op->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = op};
    enum err e = command_encode(c, &op->write.command);
    if (e != OK) {
        buf_wipe(&op->write.command);
        return e;
    }
    return manager_write(op->manager, &op->write);
}

static RESULT send_action(struct authority_op *op, enum ca_action action) {
    struct command c = {.op = OP_CA};
    c.ca.action = action;
    c.ca.rotation = op->rotation;
    c.ca.retire = op->retire;
    return propose(op, &c);
}

static void end(struct authority_op *op, enum err e, const char *text) {
    op->done(op->ctx, e, text);
    free(op);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct authority_op *op = w->ctx;
    enum ca_action then = op->then;
    if (e == OK) e = r->error;
    if (e == OK && then != 0) {
        op->then = 0;
        e = send_action(op, then);
        if (e == OK) return;
    }
    if (e == ERR_CONFLICT && (!text || !text[0]))
        text = "the authority has just been changed by somebody else";
    end(op, e, e == OK || (text && text[0]) ? text : err_text(e));
}

static RESULT op_new(struct manager *m, manager_done *done, void *ctx, struct authority_op **out,
                     struct why *why) {
    TRY(manager_ready(m, why));
    const struct cluster *c = store_cluster(m->store);
    if (!c->initialised) return fail_with(why, ERR_BUSY, "the cluster is being founded; try again");
    struct authority_op *op = calloc(1, sizeof *op);
    if (!op) return fail_with(why, ERR_NOMEM, "no memory for a change of the authority");
    *op = (struct authority_op){.manager = m, .rotation = c->rotation, .done = done, .ctx = ctx};
    *out = op;
    return OK;
}

/* --- the next CA ---------------------------------------------------------------------------- */

static RESULT make_ca(const struct cluster *c, struct ca *out, struct why *why) {
    TRY(x509_key_new(&out->key, why));
    return x509_root(out->key, c->id, &out->root_pem, why);
}

/* Keys that the next one may not sign with: the present one, and those on their way out. */
static RESULT present_pem(const struct cluster *c, struct buf *out) {
    TRY(x509_first(signer_of(&c->ca), out, NULL));
    return buf_add_span(out, buf_span(&c->retired_pem));
}

static RESULT take_ca(struct manager *m, struct span chain, const struct secret *key,
                      struct ca *out, struct why *why) {
    const struct cluster *c = store_cluster(m->store);
    struct row row;
    struct spec spec;
    struct buf present = buf_new(2 * PEM_MAX);
    spec_get(m->store, &row, &spec);
    if (!key && spec.n_external == 0)
        return fail_with(why, ERR_INVALID,
                         "the CA's key is needed, or an external CA that signs with it");
    enum err e = present_pem(c, &present);
    if (e == OK)
        e = x509_ca_check(chain, key, buf_span(&present), m->clock.wall_s(&m->clock),
                          &out->root_pem, &out->issuer_pem, why);
    if (e == OK && key) e = secret_copy(key, &out->key);
    buf_free(&present);
    return e;
}

/* --- its bridge ----------------------------------------------------------------------------- */

/* Stands for a CA whose key we don't have: may the present one certify another? */
static RESULT try_any(const struct cluster *c, int64_t now_s) {
    struct ca any = {.root_pem = buf_new(PEM_MAX)};
    struct buf cross = buf_new(PEM_MAX);
    struct span root = buf_span(&c->ca.root_pem), none = span_of(NULL, 0);
    enum err e = make_ca(c, &any, NULL);
    if (e == OK)
        e = x509_cross(c->ca.key, signer_of(&c->ca), buf_span(&any.root_pem), &cross, NULL);
    if (e == OK) e = buf_add_span(&cross, buf_span(&c->ca.issuer_pem));
    if (e == OK)
        e = x509_ca_try(any.key, buf_span(&any.root_pem), none, buf_span(&cross), root, now_s,
                        NULL);
    buf_free(&any.root_pem);
    secret_free(any.key);
    buf_free(&cross);
    return e;
}

/* The next root, certified by the present CA, and the way from there to the present root. Empty
 * when there is no such way, or none is needed. */
static RESULT bridge(struct manager *m, const struct ca *next, struct buf *out) {
    const struct cluster *c = store_cluster(m->store);
    struct span root = buf_span(&next->root_pem), present = buf_span(&c->ca.root_pem);
    int64_t now_s = m->clock.wall_s(&m->clock);
    if (span_equal(root, present) || !c->ca.key) return OK;
    enum err e = x509_cross(c->ca.key, signer_of(&c->ca), root, out, NULL);
    if (e == OK) e = buf_add_span(out, buf_span(&c->ca.issuer_pem));
    if (e == OK)
        e = next->key ? x509_ca_try(next->key, root, buf_span(&next->issuer_pem), buf_span(out),
                                    present, now_s, NULL)
                      : try_any(c, now_s);
    if (e == ERR_NOMEM) return e;
    if (e != OK) {
        buf_clear(out);
        log_event(m->config.log, LOG_WARNING, "keys",
                  "the present CA can't certify the next one: nodes that are down will have to "
                  "join again");
    }
    return OK;
}

/* --- starting and ending -------------------------------------------------------------------- */

static unsigned certificates(struct span pem) {
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    unsigned n = 0;
    const uint8_t *end = pem.at + pem.size;
    for (const uint8_t *at = pem.at; pem.size > 0; n++) {
        at = memmem(at, (size_t)(end - at), begin, sizeof begin - 1);
        if (!at) break;
        at++;
    }
    return n;
}

static RESULT start(struct authority_op *op, const struct ca *next, struct why *why) {
    struct manager *m = op->manager;
    struct buf cross = buf_new(PEM_MAX);
    struct command c = {.op = OP_CA};
    enum err e = bridge(m, next, &cross);
    c.ca.action = CA_START;
    c.ca.rotation = op->rotation;
    c.ca.next = (struct ca_spans){.root_pem = buf_span(&next->root_pem),
                                  .issuer_pem = buf_span(&next->issuer_pem)};
    if (next->key) c.ca.next.key = secret_span(next->key);
    c.ca.cross_pem = buf_span(&cross);
    if (e == OK) e = propose(op, &c);
    buf_free(&cross);
    return e == OK ? OK : fail_with(why, e, "%s", err_text(e));
}

/* The present CA again: the rotation to another one is off. */
static bool is_present(const struct cluster *c, struct span chain) {
    uint8_t brought[KEY_DIGEST_SIZE], present[KEY_DIGEST_SIZE];
    return chain.size > 0 && x509_key_digest(chain, brought) == OK &&
           x509_key_digest(signer_of(&c->ca), present) == OK &&
           memcmp(brought, present, sizeof present) == 0;
}

RESULT authority_rotate(struct manager *m, struct span chain_pem, const struct secret *key,
                        manager_done *done, void *ctx, struct why *why) {
    struct authority_op *op;
    TRY(op_new(m, done, ctx, &op, why));
    const struct cluster *c = store_cluster(m->store);
    struct ca next = {.root_pem = buf_new(PEM_MAX), .issuer_pem = buf_new(PEM_MAX)};
    enum err e = OK;
    if (cluster_rotating(c) && is_present(c, chain_pem)) {
        e = send_action(op, CA_ABORT);
    } else if (certificates(buf_span(&c->retired_pem)) >= RETIRED_MAX) {
        e = fail_with(why, ERR_PRECONDITION,
                      "%d old roots are still trusted for nodes that are down: end that first "
                      "(conclave ca force)",
                      RETIRED_MAX);
    } else {
        if (!key && chain_pem.size == 0)
            e = make_ca(c, &next, why);
        else
            e = take_ca(m, chain_pem, key, &next, why);
        if (e == OK) e = start(op, &next, why);
    }
    buf_free(&next.root_pem);
    buf_free(&next.issuer_pem);
    secret_free(next.key);
    if (e != OK) free(op);
    return e;
}

RESULT authority_abort(struct manager *m, manager_done *done, void *ctx, struct why *why) {
    struct authority_op *op;
    TRY(op_new(m, done, ctx, &op, why));
    enum err e = cluster_rotating(store_cluster(m->store)) ? OK : ERR_PRECONDITION;
    if (e != OK)
        (void)fail_with(why, e, "no rotation is under way that could be aborted");
    else
        e = send_action(op, CA_ABORT);
    if (e != OK) free(op);
    return e;
}

static RESULT add_token(const struct manager *m, enum node_role role, struct buf *changes) {
    struct row row;
    struct join_token t;
    char text[JOIN_SECRET_SIZE + 1];
    struct buf body = buf_new(ROW_BODY_MAX);
    if (!join_token_standing(m->store, role, &row, &t)) return ERR_NOT_FOUND;
    t.epoch++;
    t.used = 0;
    TRY(join_token_derive(store_cluster(m->store)->join_key, role, t.epoch, text));
    join_token_hash(text, t.hash);
    sodium_memzero(text, sizeof text);
    struct row_change c = {
        .action = ROW_REPLACE, .kind = ROW_TOKEN, .version = row.version, .name = row.name};
    memcpy(c.id, row.id, sizeof c.id);
    enum err e = join_token_encode(&t, &body);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

/* Other standing tokens, then the next CA is the CA. */
static RESULT finish(struct authority_op *op, bool retire) {
    struct manager *m = op->manager;
    struct buf changes = buf_new(COMMAND_MAX / 2);
    op->then = CA_FINISH;
    op->retire = retire;
    op->write = (struct write){.done = on_written, .ctx = op};
    enum err e = add_token(m, NODE_WORKER, &changes);
    if (e == OK) e = add_token(m, NODE_MANAGER, &changes);
    if (e == OK) e = rows_command(m, &changes, 2, &op->write);
    if (e == OK) e = manager_write(m, &op->write);
    buf_free(&changes);
    return e;
}

RESULT authority_force(struct manager *m, manager_done *done, void *ctx, struct why *why) {
    struct authority_op *op;
    struct rotation_status s;
    TRY(op_new(m, done, ctx, &op, why));
    authority_status(m, &s);
    enum err e = ERR_PRECONDITION;
    if (s.phase == ROTATION_STEADY)
        (void)fail_with(why, e, "no rotation is under way");
    else if (!s.managers)
        (void)fail_with(why, e, "a manager has no certificate of the new CA yet; try again");
    else
        e = s.phase == ROTATION_ROTATING ? finish(op, false) : send_action(op, CA_FORGET);
    if (e != OK) free(op);
    return e;
}

/* --- the leader's part ---------------------------------------------------------------------- */

static void on_own(void *ctx, enum err e, const char *text) {
    struct manager *m = ctx;
    if (m->authority) m->authority->busy = false;
    if (e != OK && e != ERR_CONFLICT && e != ERR_CLOSED && e != ERR_NOT_LEADER)
        log_event(m->config.log, LOG_WARNING, "keys", "the rotation of the root: %s", text);
}

/* Without a bridge: has everybody who is up heard of the new root by now? */
static bool has_spread(struct manager *m, struct authority *a) {
    const struct cluster *c = store_cluster(m->store);
    struct row row;
    struct spec spec;
    uint64_t now = now_of(m);
    if (a->rotation != c->rotation) {
        a->rotation = c->rotation;
        a->since_ms = now;
    }
    spec_get(m->store, &row, &spec);
    uint64_t wait_ms = SPREAD_PERIODS * (uint64_t)spec_heartbeat_ms(&spec);
    return now >= a->since_ms + (wait_ms > SPREAD_MIN_MS ? wait_ms : SPREAD_MIN_MS);
}

static bool same_root(const struct cluster *c) {
    return span_equal(buf_span(&c->ca.root_pem), buf_span(&c->next.root_pem));
}

/* What is to be done now; 0: nothing. */
static enum ca_action next_action(struct manager *m, struct authority *a, bool *retire) {
    const struct cluster *c = store_cluster(m->store);
    struct rotation_status s;
    authority_status(m, &s);
    bool up = s.converged + s.waiting_down == s.nodes, all = s.converged == s.nodes;
    *retire = !all && !same_root(c);
    if (s.phase == ROTATION_FINISHING) return all ? CA_FORGET : 0;
    bool bridged = c->cross_new > 0 || same_root(c);
    return (bridged ? up : has_spread(m, a)) ? CA_FINISH : 0;
}

static bool leads(const struct manager *m) {
    return m->state == MANAGER_RUNNING && m->leader == m->self.raft_id &&
           m->self.state == IDENTITY_MEMBER && m->current_once;
}

static RESULT act(struct manager *m, struct authority *a) {
    struct authority_op *op;
    bool retire;
    enum ca_action action = next_action(m, a, &retire);
    if (action == 0) return OK;
    TRY(op_new(m, on_own, m, &op, NULL));
    enum err e = action == CA_FINISH ? finish(op, retire) : send_action(op, action);
    if (e != OK) {
        free(op);
        return e;
    }
    a->busy = true;
    log_event(m->config.log, LOG_INFO, "keys", "%s",
              action == CA_FORGET ? "no node needs an old root any more"
                                  : "the new root becomes the root");
    return OK;
}

void authority_beat(struct manager *m) {
    if (!leads(m)) return;
    const struct cluster *c = store_cluster(m->store);
    if (!cluster_rotating(c) && c->retired_pem.size == 0) return;
    if (!m->authority) m->authority = calloc(1, sizeof *m->authority);
    struct authority *a = m->authority;
    if (!a || a->busy || now_of(m) < a->look_ms) return;
    a->look_ms = now_of(m) + LOOK_MS;
    (void)!act(m, a); /* what failed is tried again */
}

void authority_close(struct manager *m) {
    free(m->authority);
    m->authority = NULL;
}
