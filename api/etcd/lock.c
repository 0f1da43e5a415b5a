/* etcd's Lock service: a lock is a queue of keys under its name (contest.h). */
#include "api/etcd/contest.h"
#include "api/etcd/lock.pb-c.h"
#include "api/etcd/methods.h"

#define HEADER_FIELD 1

static void answer(struct rpc *r, uint64_t revision, struct span key) {
    struct buf b = buf_new(ANSWER_MAX);
    enum err e = etcd_header(&b, HEADER_FIELD, r->api, revision);
    if (e == OK) e = pb_bytes(&b, 2, key);
    if (e == OK)
        rpc_answer_bytes(r, buf_span(&b));
    else
        etcd_fail(r, e, NULL);
    buf_free(&b);
}

static void on_won(struct rpc *r, const struct contest_place *place) {
    answer(r, place->revision, place->key);
}

static void lock_call(struct rpc *r, const ProtobufCMessage *message) {
    const V3lockpb__LockRequest *m = (const void *)message;
    const struct contest_options o = {.name = etcd_span(m->name), .lease = m->lease};
    contest_begin(r, &o, on_won);
}

static void on_unlocked(struct rpc *r, const struct result *result, void *data) {
    (void)data;
    answer(r, result->revision, span_of(NULL, 0));
}

static void unlock_call(struct rpc *r, const ProtobufCMessage *message) {
    const V3lockpb__UnlockRequest *m = (const void *)message;
    struct command c = {.op = OP_DELETE, .del = {.in = {.key = etcd_span(m->key)}}};
    if (m->key.len == 0)
        errand_fail(r, ERR_EMPTY_KEY, NULL);
    else
        etcd_write(r, &c, on_unlocked, NULL);
}

const struct method lock_methods[] = {
    {.path = "/v3lockpb.Lock/Lock",
     .json = "/v3/lock/lock",
     .kind = METHOD_UNARY,
     .request = &v3lockpb__lock_request__descriptor,
     .answer = &v3lockpb__lock_response__descriptor,
     .message = lock_call},
    {.path = "/v3lockpb.Lock/Unlock",
     .json = "/v3/lock/unlock",
     .kind = METHOD_UNARY,
     .request = &v3lockpb__unlock_request__descriptor,
     .answer = &v3lockpb__unlock_response__descriptor,
     .message = unlock_call},
    {.path = NULL},
};
