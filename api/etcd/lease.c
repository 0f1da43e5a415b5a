/* etcd's Lease service. Grants and revocations are commands; what is about time is asked of the
 * leader (api/leases.h), so that any member serves all of it.
 *
 * A TTL is whole seconds in etcd's API; below LEASE_TTL_MIN_S (or not positive) it becomes that.
 * With the field ttl_ms it may be anything from LEASE_TTL_MIN_MS on; then seconds are rounded up in
 * answers, so that a client of etcd's never reads a live lease's TTL as 0, and the fields from
 * 1001 on say it exactly.
 *
 * Permissions, as etcd has them: a keep-alive needs WRITE, listing the keys needs READ, on all keys
 * of the lease; revoking is judged by apply. */
#include <stdlib.h>

#include "api/etcd/caller.h"
#include "api/etcd/kv.h"
#include "api/etcd/rpc.pb-c.h"
#include "api/leases.h"

#define TTL_MS_FIELD     1001
#define GRANTED_MS_FIELD 1002
#define KEEP_ALIVES_MAX  4096 /* of one stream, not yet answered; past it ERR_BUSY */
#define LEASE_COST       64   /* bytes that a lease counts for the quota, as in etcd */

static const struct store *store_of(const struct rpc *r) { return r->api->manager->store; }

static uint64_t ceil_s(uint64_t ms) { return (ms + 999) / 1000; }

/* Milliseconds, if whole seconds don't say it. */
static RESULT exact_ms(struct buf *b, unsigned field, uint64_t ttl_ms, uint64_t ms) {
    return ttl_ms % 1000 == 0 ? OK : pb_number(b, field, ms);
}

static void answer_with(struct rpc *r, enum err e, struct buf *b) {
    if (e == OK)
        rpc_answer_bytes(r, buf_span(b));
    else
        etcd_fail(r, e, NULL);
    buf_free(b);
}

/* --- permissions ---------------------------------------------------------------------------- */

struct judging {
    const struct rpc *r;
    enum permission permission;
    enum err error; /* OK so far */
};

static bool judge_key(void *ctx, struct span key) {
    struct judging *j = ctx;
    struct interval in = {.key = key};
    j->error = caller_may(j->r->api, &j->r->caller, j->permission, &in);
    return j->error == OK;
}

static bool judge_lease(void *ctx, const struct lease *lease) {
    struct judging *j = ctx;
    lease_keys(store_leases(store_of(j->r)), lease->id, judge_key, j);
    return j->error == OK;
}

#define ALL_LEASES UINT64_MAX /* no lease's id */

/* May the caller do this with all keys of the lease? */
static enum err may(const struct rpc *r, enum permission permission, uint64_t id) {
    const struct leases *leases = store_leases(store_of(r));
    struct judging j = {.r = r, .permission = permission};
    TRY(caller_known(r->api, &r->caller));
    if (caller_root(r->api, &r->caller) == OK) return OK;
    if (id == ALL_LEASES)
        leases_each(leases, judge_lease, &j);
    else
        lease_keys(leases, id, judge_key, &j);
    return j.error;
}

/* --- grant and revoke ----------------------------------------------------------------------- */

static RESULT ttl_of(const Etcdserverpb__LeaseGrantRequest *m, uint64_t *ttl_ms) {
    if (m->ttl_ms > 0) {
        *ttl_ms = (uint64_t)m->ttl_ms;
        if (*ttl_ms > TTL_MAX_S * 1000) return ERR_LEASE_TTL;
        if (*ttl_ms < LEASE_TTL_MIN_MS) *ttl_ms = LEASE_TTL_MIN_MS;
        return OK;
    }
    uint64_t ttl_s = m->ttl < LEASE_TTL_MIN_S ? LEASE_TTL_MIN_S : (uint64_t)m->ttl;
    if (ttl_s > TTL_MAX_S) return ERR_LEASE_TTL;
    *ttl_ms = ttl_s * 1000;
    return OK;
}

static uint64_t draw_id(void) {
    uint64_t id;
    do
        id = random_u64() & INT64_MAX;
    while (id == 0);
    return id;
}

static RESULT encode_granted(struct buf *b, const struct rpc *r, uint64_t revision,
                             const struct lease *lease) {
    TRY(etcd_header(b, 1, r->api, revision));
    TRY(pb_number(b, 2, lease->id));
    TRY(pb_number(b, 3, ceil_s(lease->ttl_ms)));
    return exact_ms(b, TTL_MS_FIELD, lease->ttl_ms, lease->ttl_ms);
}

static void on_granted(struct rpc *r, const struct result *result, void *data) {
    struct lease *lease = data;
    if (r != NULL) {
        struct buf b = buf_new(ANSWER_MAX);
        answer_with(r, encode_granted(&b, r, result->revision, lease), &b);
    }
    free(lease);
}

static void lease_grant_call(struct rpc *r, const ProtobufCMessage *message) {
    const Etcdserverpb__LeaseGrantRequest *m = (const void *)message;
    struct command c = {.op = OP_LEASE_GRANT};
    enum err e = ttl_of(m, &c.lease.ttl_ms);
    if (e == OK) e = quota_check(r->api, LEASE_COST);
    if (e == OK && m->id < 0) e = ERR_INVALID;
    struct lease *lease = e == OK ? malloc(sizeof *lease) : NULL;
    if (lease == NULL) {
        etcd_fail(r, e == OK ? ERR_NOMEM : e, e == ERR_INVALID ? "a lease's id is positive" : NULL);
        return;
    }
    c.lease.id = m->id == 0 ? draw_id() : (uint64_t)m->id;
    *lease = c.lease;
    etcd_write(r, &c, on_granted, lease);
}

static void on_revoked(struct rpc *r, const struct result *result, void *data) {
    (void)data;
    struct buf b = buf_new(ANSWER_MAX);
    answer_with(r, etcd_header(&b, 1, r->api, result->revision), &b);
}

static void lease_revoke_call(struct rpc *r, const ProtobufCMessage *message) {
    const Etcdserverpb__LeaseRevokeRequest *m = (const void *)message;
    struct command c = {.op = OP_LEASE_REVOKE, .lease = {.id = (uint64_t)m->id}};
    if (m->id <= 0)
        etcd_fail(r, ERR_LEASE_NOT_FOUND, NULL);
    else
        etcd_write(r, &c, on_revoked, NULL);
}

/* --- keep-alive ----------------------------------------------------------------------------- */

/* A stream of them; freed when it has ended and nothing is asked any more. */
struct keeping {
    struct rpc *r;    /* NULL: finished */
    unsigned pending; /* asked, not answered */
    bool ended;       /* the client sends no more */
};

struct keep {
    struct lease_ask ask;
    struct keeping *stream;
    uint64_t
        revision; /* when it came: whoever sees a lease revoked there knows that this was before */
};

static void keeping_over(struct keeping *k) {
    if (k->pending > 0) return;
    if (k->r != NULL && k->ended) {
        rpc_end(k->r);
        k->r = NULL;
    }
    if (k->r == NULL) free(k);
}

static void keeping_fail(struct keeping *k, enum err e) {
    struct rpc *r = k->r;
    k->r = NULL;
    etcd_fail(r, e, NULL);
}

static void keeping_gone(struct rpc *r) {
    struct keeping *k = r->data;
    keeping_fail(k, ERR_CLOSED);
    keeping_over(k);
}

static struct keeping *keeping_of(struct rpc *r) {
    if (r->data != NULL) return r->data;
    struct keeping *k = calloc(1, sizeof *k);
    if (k == NULL) return NULL;
    k->r = r;
    r->data = k;
    r->gone = keeping_gone;
    return k;
}

static RESULT encode_kept(struct buf *b, const struct rpc *r, const struct keep *keep, enum err e) {
    uint64_t ttl_ms = e == OK ? keep->ask.left_ms : 0;
    TRY(etcd_header(b, 1, r->api, keep->revision));
    TRY(pb_number(b, 2, keep->ask.id));
    TRY(pb_number(b, 3, ceil_s(ttl_ms)));
    return exact_ms(b, TTL_MS_FIELD, ttl_ms, ttl_ms);
}

static RESULT tell_kept(struct rpc *r, const struct keep *keep, enum err e) {
    struct buf b = buf_new(ANSWER_MAX);
    if (e == OK || e == ERR_LEASE_NOT_FOUND) e = encode_kept(&b, r, keep, e);
    if (e == OK) e = rpc_send_bytes(r, buf_span(&b));
    buf_free(&b);
    return e;
}

static void on_kept(struct lease_ask *a, enum err e) {
    struct keep *keep = a->ctx;
    struct keeping *k = keep->stream;
    k->pending--;
    if (k->r != NULL) e = tell_kept(k->r, keep, e);
    /* ERR_BUSY: it does not read its answers. */
    if (k->r != NULL && e != OK) keeping_fail(k, e);
    free(keep);
    keeping_over(k);
}

static enum err keep_alive(struct keeping *k, int64_t id) {
    struct manager *m = k->r->api->manager;
    if (k->pending >= KEEP_ALIVES_MAX) return ERR_BUSY;
    TRY(manager_ready(m, NULL));
    TRY(may(k->r, PERMISSION_WRITE, (uint64_t)id));
    struct keep *keep = malloc(sizeof *keep);
    if (keep == NULL) return ERR_NOMEM;
    *keep = (struct keep){.stream = k, .revision = store_revision(m->store)};
    keep->ask = (struct lease_ask){.id = (uint64_t)id, .renew = true, .done = on_kept, .ctx = keep};
    enum err e = leases_ask(m, &keep->ask);
    if (e == OK)
        k->pending++;
    else
        free(keep);
    return e;
}

static void lease_keep_alive_call(struct rpc *r, const ProtobufCMessage *message) {
    const Etcdserverpb__LeaseKeepAliveRequest *m = (const void *)message;
    struct keeping *k = keeping_of(r);
    if (k == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    enum err e = keep_alive(k, m->id);
    if (e == OK) return;
    keeping_fail(k, e);
    keeping_over(k);
}

static void lease_keep_alive_ended(struct rpc *r) {
    struct keeping *k = r->data;
    if (k == NULL) {
        rpc_end(r);
        return;
    }
    k->ended = true;
    keeping_over(k);
}

/* --- time to live --------------------------------------------------------------------------- */

struct time_left {
    struct lease_ask ask;
    struct rpc *r; /* NULL: the client has left */
    bool keys;     /* wanted */
    enum err e;    /* of the question */
};

struct listing {
    struct buf *b;
    enum err error; /* OK so far */
};

static bool list_key(void *ctx, struct span key) {
    struct listing *l = ctx;
    l->error = pb_bytes(l->b, 5, key);
    return l->error == OK;
}

static RESULT encode_left(struct buf *b, const struct rpc *r, const struct time_left *t) {
    const struct lease_ask *a = &t->ask;
    TRY(etcd_header(b, 1, r->api, 0));
    TRY(pb_number(b, 2, a->id));
    if (t->e != OK) return pb_number(b, 3, (uint64_t)-1);
    TRY(pb_number(b, 3, a->left_ms / 1000));
    TRY(pb_number(b, 4, ceil_s(a->ttl_ms)));
    struct listing l = {.b = b};
    if (t->keys) lease_keys(store_leases(store_of(r)), a->id, list_key, &l);
    TRY(l.error);
    TRY(exact_ms(b, TTL_MS_FIELD, a->ttl_ms, a->left_ms));
    return exact_ms(b, GRANTED_MS_FIELD, a->ttl_ms, a->ttl_ms);
}

static void answer_left(struct rpc *r, struct time_left *t) {
    struct lease lease;
    struct buf b = buf_new(ANSWER_MAX);
    /* The leader's word and the keys are of two moments. */
    if (t->keys && !lease_find(store_leases(store_of(r)), t->ask.id, &lease))
        t->e = ERR_LEASE_NOT_FOUND;
    enum err e = t->keys ? may(r, PERMISSION_READ, t->ask.id) : OK;
    if (e == OK) e = encode_left(&b, r, t);
    answer_with(r, e, &b);
}

static void on_current(struct rpc *r, void *data) {
    struct time_left *t = data;
    if (r != NULL) answer_left(r, t);
    free(t);
}

static void on_left(struct lease_ask *a, enum err e) {
    struct time_left *t = a->ctx;
    struct rpc *r = t->r;
    t->e = e;
    if (r != NULL) {
        r->gone = NULL;
        r->data = NULL;
    }
    if (r != NULL && t->keys && e == OK) {
        etcd_read(r, on_current, t);
        return;
    }
    if (r != NULL && (e == OK || e == ERR_LEASE_NOT_FOUND))
        answer_left(r, t);
    else if (r != NULL)
        etcd_fail(r, e, NULL);
    free(t);
}

static void left_gone(struct rpc *r) {
    struct time_left *t = r->data;
    t->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
}

static void lease_time_to_live_call(struct rpc *r, const ProtobufCMessage *message) {
    const Etcdserverpb__LeaseTimeToLiveRequest *m = (const void *)message;
    struct manager *manager = r->api->manager;
    enum err e = manager_ready(manager, NULL);
    struct time_left *t = e == OK ? malloc(sizeof *t) : NULL;
    if (e == OK && t == NULL) e = ERR_NOMEM;
    if (e == OK && m->keys) e = may(r, PERMISSION_READ, (uint64_t)m->id);
    if (e == OK) {
        *t = (struct time_left){.r = r, .keys = m->keys};
        t->ask = (struct lease_ask){.id = (uint64_t)m->id, .done = on_left, .ctx = t};
        e = leases_ask(manager, &t->ask);
    }
    if (e == OK) {
        r->data = t;
        r->gone = left_gone;
        return;
    }
    free(t);
    etcd_fail(r, e, NULL);
}

/* --- all leases ----------------------------------------------------------------------------- */

static RESULT encode_lease(struct buf *b, uint64_t id) {
    size_t mark;
    TRY(pb_open(b, 2, &mark));
    TRY(pb_number(b, 1, id));
    return pb_close(b, mark);
}

static bool list_lease(void *ctx, const struct lease *lease) {
    struct listing *l = ctx;
    l->error = encode_lease(l->b, lease->id);
    return l->error == OK;
}

static void list_all(struct rpc *r, void *data) {
    (void)data;
    struct buf b = buf_new(ANSWER_MAX);
    struct listing l = {.b = &b, .error = may(r, PERMISSION_READ, ALL_LEASES)};
    if (l.error == OK) l.error = etcd_header(&b, 1, r->api, 0);
    if (l.error == OK) leases_each(store_leases(store_of(r)), list_lease, &l);
    answer_with(r, l.error, &b);
}

static void lease_leases_call(struct rpc *r, const ProtobufCMessage *message) {
    (void)message;
    etcd_read(r, list_all, NULL);
}

const struct method lease_methods[] = {
    {.path = "/etcdserverpb.Lease/LeaseGrant",
     .json = "/v3/lease/grant",
     .kind = METHOD_UNARY,
     .request = &etcdserverpb__lease_grant_request__descriptor,
     .answer = &etcdserverpb__lease_grant_response__descriptor,
     .message = lease_grant_call},
    {.path = "/etcdserverpb.Lease/LeaseRevoke",
     .json = "/v3/lease/revoke",
     .kind = METHOD_UNARY,
     .request = &etcdserverpb__lease_revoke_request__descriptor,
     .answer = &etcdserverpb__lease_revoke_response__descriptor,
     .message = lease_revoke_call},
    {.path = "/etcdserverpb.Lease/LeaseKeepAlive",
     .json = "/v3/lease/keepalive",
     .kind = METHOD_BIDI,
     .request = &etcdserverpb__lease_keep_alive_request__descriptor,
     .answer = &etcdserverpb__lease_keep_alive_response__descriptor,
     .message = lease_keep_alive_call,
     .ended = lease_keep_alive_ended},
    {.path = "/etcdserverpb.Lease/LeaseTimeToLive",
     .json = "/v3/lease/timetolive",
     .kind = METHOD_UNARY,
     .request = &etcdserverpb__lease_time_to_live_request__descriptor,
     .answer = &etcdserverpb__lease_time_to_live_response__descriptor,
     .message = lease_time_to_live_call},
    {.path = "/etcdserverpb.Lease/LeaseLeases",
     .json = "/v3/lease/leases",
     .kind = METHOD_UNARY,
     .request = &etcdserverpb__lease_leases_request__descriptor,
     .answer = &etcdserverpb__lease_leases_response__descriptor,
     .message = lease_leases_call},
    {.path = NULL},
};
