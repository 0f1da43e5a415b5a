/* Txn: checked and converted (messages.c), through the log when it may write, else read here.
 * Its answers come as a flat sequence, a nested transaction before its own (store/txn.h); a
 * stack of the open ones makes protobuf's nesting of it. Inner headers carry only the revision,
 * as etcd's do. */
#include <stdlib.h>

#include "api/etcd/kv.h"

enum { FIELD_HEADER = 1, FIELD_SUCCEEDED = 2, FIELD_RESPONSES = 3 }; /* of TxnResponse */
enum { FIELD_KVS = 2, FIELD_MORE = 3, FIELD_COUNT = 4 };             /* of RangeResponse */
enum { FIELD_PREV_KV = 2 };                                          /* of PutResponse */
enum { FIELD_DELETED = 2, FIELD_PREV_KVS = 3 };                      /* of DeleteRangeResponse */

/* An opened TxnResponse, and what it stands in. */
struct open_txn {
    uint64_t left;                       /* operations still to be answered */
    size_t response, operation, message; /* marks: ResponseOp, its field */
};

struct writer {
    struct buf *out;
    struct cursor in;                    /* answers */
    struct open_txn open[TXN_DEPTH_MAX]; /* the outermost first */
    unsigned depth;
};

static RESULT put_header(struct writer *w, const struct answer *a) {
    size_t mark;
    TRY(pb_open(w->out, FIELD_HEADER, &mark));
    TRY(pb_number(w->out, 3, a->revision));
    return pb_close(w->out, mark);
}

static RESULT put_kvs(struct writer *w, unsigned field, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        struct kv kv;
        TRY(answer_kv(&w->in, &kv));
        TRY(pb_kv(w->out, field, &kv, true));
    }
    return OK;
}

static RESULT put_range(struct writer *w, const struct answer *a) {
    TRY(put_header(w, a));
    TRY(put_kvs(w, FIELD_KVS, a->n_kvs));
    TRY(pb_number(w->out, FIELD_MORE, a->range.more));
    return pb_number(w->out, FIELD_COUNT, a->range.count);
}

static RESULT put_put(struct writer *w, const struct answer *a) {
    TRY(put_header(w, a));
    return put_kvs(w, FIELD_PREV_KV, a->n_kvs);
}

static RESULT put_delete(struct writer *w, const struct answer *a) {
    TRY(put_header(w, a));
    TRY(pb_number(w->out, FIELD_DELETED, a->deleted));
    return put_kvs(w, FIELD_PREV_KVS, a->n_kvs);
}

/* One operation's answer; a transaction stays open until its own are there. */
static RESULT put_answer(struct writer *w, const struct answer *a) {
    struct open_txn marks = {0};
    TRY(pb_open(w->out, FIELD_RESPONSES, &marks.response));
    TRY(pb_open(w->out, a->kind, &marks.operation)); /* ResponseOp's fields are our kinds */
    switch (a->kind) {
    case ANSWER_RANGE: TRY(put_range(w, a)); break;
    case ANSWER_PUT: TRY(put_put(w, a)); break;
    case ANSWER_DELETE: TRY(put_delete(w, a)); break;
    case ANSWER_TXN:
        if (w->depth == TXN_DEPTH_MAX) return ERR_INTERNAL;
        TRY(pb_open(w->out, FIELD_HEADER, &marks.message));
        TRY(pb_close(w->out, marks.message));
        TRY(pb_number(w->out, FIELD_SUCCEEDED, a->succeeded));
        marks.left = a->n_answers;
        w->open[w->depth++] = marks;
        return OK;
    }
    TRY(pb_close(w->out, marks.operation));
    return pb_close(w->out, marks.response);
}

static RESULT put_answers(struct writer *w) {
    while (w->depth > 0) {
        struct open_txn *top = &w->open[w->depth - 1];
        if (top->left > 0) {
            struct answer a;
            top->left--;
            TRY(answer_next(&w->in, &a));
            TRY(put_answer(w, &a));
        } else {
            w->depth--;
            if (w->depth > 0) TRY(pb_close(w->out, top->operation));
            if (w->depth > 0) TRY(pb_close(w->out, top->response));
        }
    }
    return OK;
}

static RESULT encode(const struct rpc *r, struct span answers, uint64_t revision, struct buf *out) {
    struct writer w = {.out = out, .in = cursor_of(answers), .depth = 1};
    struct answer first;
    TRY(answer_next(&w.in, &first));
    if (first.kind != ANSWER_TXN) return ERR_INTERNAL;
    TRY(etcd_header(out, FIELD_HEADER, r->api, revision));
    TRY(pb_number(out, FIELD_SUCCEEDED, first.succeeded));
    w.open[0].left = first.n_answers;
    return put_answers(&w);
}

static void answer(struct rpc *r, struct span answers, uint64_t revision) {
    struct buf out = buf_new(ANSWER_MAX);
    enum err e = encode(r, answers, revision, &out);
    if (e == OK)
        rpc_answer_bytes(r, buf_span(&out));
    else
        etcd_fail(r, e, NULL);
    buf_free(&out);
}

/* --- through the log ------------------------------------------------------------------------- */

static void on_written(struct rpc *r, const struct result *result, void *data) {
    (void)data;
    answer(r, result->answer, result->revision);
}

static void write_txn(struct rpc *r, struct span txn) {
    struct command c = {.op = OP_TXN, .txn = txn};
    enum err e = txn_puts(txn) ? quota_check(r->api, txn.size) : OK;
    if (e == OK)
        etcd_write(r, &c, on_written, NULL);
    else
        etcd_fail(r, e, NULL);
}

/* --- reading only ---------------------------------------------------------------------------- */

struct reading {
    struct buf txn; /* bytes of txn_add */
};

static void reading_free(struct reading *reading) {
    buf_wipe(&reading->txn);
    free(reading);
}

static RESULT may_read(const struct rpc *r, struct span txn) {
    const struct auth *auth = store_auth(r->api->manager->store);
    TRY(caller_known(r->api, &r->caller));
    if (!auth_enabled(auth) || r->caller.user[0] == '\0') return OK; /* an operator */
    return txn_may(auth, span_str(r->caller.user), txn);
}

static void read_now(struct rpc *r, void *data) {
    struct reading *reading = data;
    if (r != NULL) {
        const struct store *store = r->api->manager->store;
        struct buf answers = buf_new(ANSWER_MAX);
        enum err e = may_read(r, buf_span(&reading->txn));
        if (e == OK) e = txn_read(store, buf_span(&reading->txn), &answers);
        if (e == OK)
            answer(r, buf_span(&answers), store_revision(store));
        else
            etcd_fail(r, e, NULL);
        buf_free(&answers);
    }
    reading_free(reading);
}

static void read_txn(struct rpc *r, struct buf *txn, bool serializable) {
    struct reading *reading = malloc(sizeof *reading);
    if (reading == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    reading->txn = *txn;
    *txn = buf_new(0);
    if (serializable)
        read_now(r, reading);
    else
        etcd_read(r, read_now, reading);
}

void kv_txn(struct rpc *r, const ProtobufCMessage *m) {
    struct buf txn = buf_new(COMMAND_MAX);
    struct why why = {0};
    bool serializable;
    enum err e = txn_of((const Etcdserverpb__TxnRequest *)m, &txn, &serializable, &why);
    if (e != OK)
        etcd_fail(r, e, why.text[0] ? why.text : NULL);
    else if (txn_writes(buf_span(&txn)))
        write_txn(r, buf_span(&txn));
    else
        read_txn(r, &txn, serializable);
    buf_wipe(&txn);
}
