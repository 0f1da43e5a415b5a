/* See contest.h. One step is under way at a time: a write, a read, or the lookout. A contest whose
 * caller has left (r == NULL) goes on to the end of its step and then leaves. */
#include "api/etcd/contest.h"

#include <assert.h>
#include <stdlib.h>

#include "api/etcd/lookout.h"

struct contest {
    struct rpc *r;        /* NULL: finished, or its caller has left */
    struct api *api;      /* of the call */
    struct caller caller; /* on whose behalf */
    contest_won *won;
    bool campaign;
    struct buf prefix, end, key, value; /* end: of the prefix */
    uint64_t lease;
    uint64_t created;        /* create revision of the key; 0: not known to exist */
    uint64_t revision;       /* of the store when he entered */
    bool gone;               /* waiting: what was before him is gone */
    bool waited;             /* somebody was before him */
    struct lookout *lookout; /* waiting */
};

static void contest_free(struct contest *c) {
    lookout_close(c->lookout);
    buf_free(&c->prefix);
    buf_free(&c->end);
    buf_free(&c->key);
    buf_free(&c->value);
    free(c);
}

/* --- leaving -------------------------------------------------------------------------------- */

static void on_left(void *ctx, enum err e, const char *text, const struct result *r) {
    (void)e; /* then the lease's end takes it away */
    (void)text;
    (void)r;
    contest_free(ctx);
}

static RESULT leave_command(const struct contest *c, struct buf *txn) {
    struct txn_op op = {.kind = TXN_DELETE, .del = {.in = {.key = buf_span(&c->key)}}};
    return errand_txn(txn, buf_span(&c->key), c->created, &op, NULL);
}

static void leave(struct contest *c) {
    struct buf txn = buf_new(COMMAND_MAX);
    enum err e = c->created != 0 ? leave_command(c, &txn) : ERR_NOT_FOUND;
    struct command command = {.op = OP_TXN, .txn = buf_span(&txn)};
    lookout_close(c->lookout);
    c->lookout = NULL;
    if (e == OK) e = errand_write(c->api, &c->caller, &command, on_left, c);
    buf_free(&txn);
    if (e != OK) contest_free(c);
}

/* The call's end, if it has not come before. */
static struct rpc *take_call(struct contest *c) {
    struct rpc *r = c->r;
    c->r = NULL;
    if (r == NULL) return NULL;
    r->gone = NULL;
    r->data = NULL;
    return r;
}

static void give_up(struct contest *c, enum err e, const char *text) {
    struct rpc *r = take_call(c);
    if (r != NULL) errand_fail(r, e, text);
    leave(c);
}

static void contest_gone(struct rpc *r) {
    struct contest *c = r->data;
    bool waiting = c->lookout != NULL;
    rpc_fail(take_call(c), ERR_CLOSED, NULL);
    if (waiting) leave(c); /* else the step under way sees it */
}

static void win(struct contest *c, uint64_t revision) {
    const struct contest_place place = {
        .revision = revision, .key = buf_span(&c->key), .created = c->created, .lease = c->lease};
    struct rpc *r = take_call(c);
    c->won(r, &place);
    contest_free(c);
}

/* --- waiting -------------------------------------------------------------------------------- */

static void wait(struct contest *c);

/* The lock is his if his key has outlived the wait. */
static void on_checked(void *ctx, enum err e) {
    struct contest *c = ctx;
    struct kv own;
    if (c->r == NULL)
        leave(c);
    else if (e != OK)
        give_up(c, e, NULL);
    else if (!store_get(c->api->manager->store, buf_span(&c->key), &own))
        give_up(c, ERR_UNKNOWN, "mutex: session is expired");
    else
        win(c, store_revision(c->api->manager->store));
}

static void first(struct contest *c) {
    if (c->campaign || !c->waited) {
        win(c, c->revision);
        return;
    }
    enum err e = errand_read(c->api, on_checked, c);
    if (e != OK) give_up(c, e, NULL);
}

static enum err see(void *ctx, const struct watch_event *event) {
    struct contest *c = ctx;
    (void)event;
    c->gone = true;
    return OK;
}

static void on_looked(void *ctx, enum err e) {
    struct contest *c = ctx;
    if (e == ERR_CLOSED) {
        give_up(c, e, NULL);
    } else if (e != OK || c->gone) {
        lookout_close(c->lookout);
        c->lookout = NULL;
        wait(c);
    }
}

static void wait(struct contest *c) {
    const struct store *store = c->api->manager->store;
    struct kv before;
    if (!errand_before(store, &c->prefix, &c->end, c->created, &before)) {
        first(c);
        return;
    }
    c->gone = false;
    c->waited = true;
    const struct lookout_options o = {.api = c->api,
                                      .in = {.key = before.key},
                                      .start = store_revision(store) + 1,
                                      .no_put = true,
                                      .each = see,
                                      .looked = on_looked,
                                      .ctx = c};
    enum err e = lookout_open(&o, &c->lookout);
    if (e != OK) give_up(c, e, NULL);
}

static void on_caught_up(void *ctx, enum err e) {
    struct contest *c = ctx;
    if (c->r == NULL)
        leave(c);
    else if (e != OK)
        give_up(c, e, NULL);
    else
        wait(c);
}

/* This member has to know what the leader has applied. */
static void catch_up(struct contest *c) {
    enum err e = errand_read(c->api, on_caught_up, c);
    if (e != OK) give_up(c, e, NULL);
}

/* --- entering ------------------------------------------------------------------------------- */

static void on_proclaimed(void *ctx, enum err e, const char *text, const struct result *r) {
    struct contest *c = ctx;
    struct cursor in = cursor_of(e == OK ? r->answer : span_of(NULL, 0));
    struct answer whole;
    if (e == OK && answer_next(&in, &whole) != OK) e = ERR_INTERNAL;
    if (e == OK && !whole.succeeded) {
        e = ERR_UNKNOWN;
        text = "election: not leader";
    }
    if (c->r == NULL)
        leave(c);
    else if (e != OK)
        give_up(c, e, text);
    else
        catch_up(c);
}

static void proclaim(struct contest *c) {
    struct buf txn = buf_new(COMMAND_MAX);
    struct txn_op put = {
        .kind = TXN_PUT,
        .put = {.key = buf_span(&c->key), .value = buf_span(&c->value), .lease = c->lease}};
    enum err e = errand_txn(&txn, buf_span(&c->key), c->created, &put, NULL);
    struct command command = {.op = OP_TXN, .txn = buf_span(&txn)};
    if (e == OK) e = errand_write(c->api, &c->caller, &command, on_proclaimed, c);
    buf_free(&txn);
    if (e != OK) give_up(c, e, NULL);
}

/* What the entering found: his key's create revision, and whether its value is another one. */
static RESULT entered(struct contest *c, const struct result *r, bool *other) {
    struct cursor in = cursor_of(r->answer);
    struct answer whole, own;
    struct kv kv;
    TRY(answer_next(&in, &whole));
    *other = false;
    c->revision = r->revision;
    c->created = r->revision;
    if (whole.succeeded) return OK;
    TRY(answer_next(&in, &own));
    TRY(answer_kv(&in, &kv));
    c->created = kv.create_revision;
    *other = c->campaign && !span_equal(kv.value, buf_span(&c->value));
    return OK;
}

static void on_entered(void *ctx, enum err e, const char *text, const struct result *r) {
    struct contest *c = ctx;
    bool other = false;
    if (e == OK && entered(c, r, &other) != OK) e = ERR_INTERNAL;
    if (c->r == NULL)
        leave(c);
    else if (e != OK)
        give_up(c, e, text);
    else if (other)
        proclaim(c);
    else
        catch_up(c);
}

static RESULT enter(struct contest *c) {
    struct buf txn = buf_new(COMMAND_MAX);
    struct span key = buf_span(&c->key);
    struct txn_op put = {.kind = TXN_PUT,
                         .put = {.key = key, .value = buf_span(&c->value), .lease = c->lease}};
    struct txn_op get = {.kind = TXN_RANGE, .range = {.in = {.key = key}}};
    enum err e = errand_txn(&txn, key, 0, &put, &get);
    struct command command = {.op = OP_TXN, .txn = buf_span(&txn)};
    if (e == OK) e = errand_write(c->api, &c->caller, &command, on_entered, c);
    buf_free(&txn);
    return e;
}

static RESULT make_key(struct contest *c) {
    c->key = buf_new(COMMAND_MAX);
    TRY(buf_add_span(&c->key, buf_span(&c->prefix)));
    TRY(buf_format(&c->key, "%llx", (unsigned long long)c->lease));
    return c->key.size > KEY_MAX ? ERR_REQUEST_TOO_LARGE : OK;
}

static void on_granted(void *ctx, enum err e, const char *text, const struct result *r) {
    struct contest *c = ctx;
    (void)r;
    if (c->r == NULL) {
        leave(c);
        return;
    }
    if (e == OK) e = make_key(c);
    if (e == OK) e = enter(c);
    if (e != OK) give_up(c, e, text);
}

static RESULT grant(struct contest *c) {
    struct command command = {.op = OP_LEASE_GRANT, .lease = {.ttl_ms = CONTEST_TTL_S * 1000}};
    do
        command.lease.id = random_u64() & INT64_MAX;
    while (command.lease.id == 0);
    c->lease = command.lease.id;
    return errand_write(c->api, &c->caller, &command, on_granted, c);
}

static RESULT start(struct contest *c, const struct contest_options *o) {
    if (o->lease < 0) return ERR_LEASE_NOT_FOUND;
    c->prefix = c->end = c->key = c->value = buf_new(COMMAND_MAX);
    TRY(errand_prefix(o->name, &c->prefix, &c->end));
    TRY(buf_add_span(&c->value, o->value));
    c->lease = (uint64_t)o->lease;
    if (c->lease == 0) return grant(c);
    TRY(make_key(c));
    return enter(c);
}

void contest_begin(struct rpc *r, const struct contest_options *o, contest_won *won) {
    struct contest *c = calloc(1, sizeof *c);
    if (c == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    *c = (struct contest){
        .r = r, .api = r->api, .caller = r->caller, .won = won, .campaign = o->campaign};
    r->data = c;
    r->gone = contest_gone;
    enum err e = start(c, o);
    if (e != OK) give_up(c, e, NULL);
}
