/* The KV service: Put, DeleteRange, Compact, and the quota that bounds what comes in; Range is in
 * range.c, Txn in txn.c. */
#include <stdlib.h>

#include "api/etcd/kv.h"

enum { FIELD_HEADER = 1, FIELD_PREV_KV = 2 };   /* of PutResponse */
enum { FIELD_DELETED = 2, FIELD_PREV_KVS = 3 }; /* of DeleteRangeResponse */

/* --- quota ----------------------------------------------------------------------------------- */

struct alarm_write {
    struct write write;
    struct api *api;
};

static void alarm_raised(struct write *w, enum err e, const char *text, const struct result *r) {
    struct alarm_write *aw = w->ctx;
    (void)r;
    aw->api->raising = false;
    if (e != OK)
        log_event(aw->api->log, LOG_WARNING, "store", "the NOSPACE alarm can't be raised: %s",
                  text);
    free(aw);
}

static void raise_alarm(struct api *api) {
    struct alarm_write *aw = calloc(1, sizeof *aw);
    if (aw == NULL) return; /* the next request tries again */
    *aw = (struct alarm_write){
        .write = {.command = buf_new(COMMAND_MAX), .done = alarm_raised, .ctx = aw}, .api = api};
    const struct command c = {
        .op = OP_ALARM,
        .alarm = {.alarm = ALARM_NOSPACE, .raft_id = api->manager->self.raft_id, .raise = true}};
    enum err e = command_encode(&c, &aw->write.command);
    if (e == OK) e = manager_write(api->manager, &aw->write);
    api->raising = e == OK;
    if (e == OK) return;
    buf_wipe(&aw->write.command);
    free(aw);
}

RESULT quota_check(struct api *api, size_t size) {
    const struct store *store = api->manager->store;
    if (api->quota == 0 || store_size(store) + size <= api->quota) return OK;
    if (!api->raising && !store_alarm(store, ALARM_NOSPACE, api->manager->self.raft_id)) {
        log_event(api->log, LOG_WARNING, "store",
                  "the quota of %llu bytes is used up: compact, then disarm the alarm",
                  (unsigned long long)api->quota);
        raise_alarm(api);
    }
    return ERR_QUOTA;
}

/* --- put and delete -------------------------------------------------------------------------- */

static void finish(struct rpc *r, struct buf *out, enum err e) {
    if (e == OK)
        rpc_answer_bytes(r, buf_span(out));
    else
        etcd_fail(r, e, NULL);
    buf_free(out);
}

static RESULT put_previous(struct buf *out, unsigned field, struct span answers) {
    struct cursor in = cursor_of(answers);
    struct answer a;
    if (answers.size == 0) return OK;
    TRY(answer_next(&in, &a));
    for (uint64_t i = 0; i < a.n_kvs; i++) {
        struct kv kv;
        TRY(answer_kv(&in, &kv));
        TRY(pb_kv(out, field, &kv, true));
    }
    return OK;
}

static void on_put(struct rpc *r, const struct result *result, void *data) {
    (void)data;
    struct buf out = buf_new(ANSWER_MAX);
    enum err e = etcd_header(&out, FIELD_HEADER, r->api, result->revision);
    if (e == OK) e = put_previous(&out, FIELD_PREV_KV, result->answer);
    finish(r, &out, e);
}

static void kv_put(struct rpc *r, const ProtobufCMessage *m) {
    struct command c = {.op = OP_PUT};
    r->api->figures.puts++;
    enum err e = put_of((const Etcdserverpb__PutRequest *)m, &c.put);
    if (e == OK) e = quota_check(r->api, c.put.key.size + c.put.value.size);
    if (e == OK)
        etcd_write(r, &c, on_put, NULL);
    else
        etcd_fail(r, e, NULL);
}

static void on_deleted(struct rpc *r, const struct result *result, void *data) {
    (void)data;
    struct buf out = buf_new(ANSWER_MAX);
    enum err e = etcd_header(&out, FIELD_HEADER, r->api, result->revision);
    if (e == OK) e = pb_number(&out, FIELD_DELETED, result->deleted);
    if (e == OK) e = put_previous(&out, FIELD_PREV_KVS, result->answer);
    finish(r, &out, e);
}

static void kv_delete(struct rpc *r, const ProtobufCMessage *m) {
    struct command c = {.op = OP_DELETE};
    r->api->figures.deletes++;
    enum err e = delete_of((const Etcdserverpb__DeleteRangeRequest *)m, &c.del);
    if (e == OK)
        etcd_write(r, &c, on_deleted, NULL);
    else
        etcd_fail(r, e, NULL);
}

/* --- compaction ------------------------------------------------------------------------------ */

struct compaction {
    struct chore chore; /* waits until its versions are gone, when `physical` */
    struct rpc *r;      /* NULL: the client has left */
};

static void answer_compaction(struct rpc *r) {
    struct buf out = buf_new(4 * KIB);
    finish(r, &out, etcd_header(&out, FIELD_HEADER, r->api, 0));
}

static void on_gone(struct rpc *r) {
    struct compaction *c = r->data;
    c->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
}

static bool on_chore(struct chore *chore) {
    struct compaction *c = (struct compaction *)(void *)chore;
    if (c->r != NULL && store_compacting(c->r->api->manager->store)) return true;
    if (c->r != NULL) {
        c->r->gone = NULL;
        answer_compaction(c->r);
    }
    free(c);
    return false;
}

static void on_compacted(struct rpc *r, const struct result *result, void *data) {
    const Etcdserverpb__CompactionRequest *m = data;
    (void)result;
    if (r == NULL) return;
    struct compaction *c = m->physical ? malloc(sizeof *c) : NULL;
    if (c == NULL) {
        answer_compaction(r);
        return;
    }
    *c = (struct compaction){.chore = {.step = on_chore}, .r = r};
    r->data = c;
    r->gone = on_gone;
    manager_chore(r->api->manager, &c->chore);
}

static void kv_compact(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__CompactionRequest *request = (const Etcdserverpb__CompactionRequest *)m;
    struct command c = {.op = OP_COMPACT};
    if (request->revision > 0) c.compact_revision = (uint64_t)request->revision;
    etcd_write(r, &c, on_compacted, (void *)(uintptr_t)m);
}

/* --- the service ----------------------------------------------------------------------------- */

const struct method kv_methods[] = {
    {"/etcdserverpb.KV/Range", "/v3/kv/range", METHOD_UNARY, true, false,
     &etcdserverpb__range_request__descriptor, &etcdserverpb__range_response__descriptor, kv_range,
     NULL, false},
    {"/etcdserverpb.KV/RangeStream", NULL, METHOD_SERVER_STREAM, false, false,
     &etcdserverpb__range_request__descriptor, &etcdserverpb__range_stream_response__descriptor,
     kv_range, NULL, false},
    {"/etcdserverpb.KV/Put", "/v3/kv/put", METHOD_UNARY, false, false,
     &etcdserverpb__put_request__descriptor, &etcdserverpb__put_response__descriptor, kv_put, NULL,
     false},
    {"/etcdserverpb.KV/DeleteRange", "/v3/kv/deleterange", METHOD_UNARY, false, false,
     &etcdserverpb__delete_range_request__descriptor,
     &etcdserverpb__delete_range_response__descriptor, kv_delete, NULL, false},
    {"/etcdserverpb.KV/Txn", "/v3/kv/txn", METHOD_UNARY, false, false,
     &etcdserverpb__txn_request__descriptor, &etcdserverpb__txn_response__descriptor, kv_txn, NULL,
     false},
    {"/etcdserverpb.KV/Compact", "/v3/kv/compaction", METHOD_UNARY, false, false,
     &etcdserverpb__compaction_request__descriptor, &etcdserverpb__compaction_response__descriptor,
     kv_compact, NULL, false},
    {.path = NULL},
};
