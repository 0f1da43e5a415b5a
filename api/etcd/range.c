/* Range and RangeStream. A range of one key is answered at once; any other is walked in steps
 * over a view (store.h), so that a million keys don't hold up the loop: the first step here, the
 * others as a chore. A unary answer is collected whole, a streamed one goes out as it is found
 * and waits when its client does not read.
 *
 *   (ReadIndex) -> walking <-> waiting (streams) -> answered
 *
 * A client that asks for much at once and reads slowly waits before its ranges are even read, so
 * that what they hold does not pile up here.
 *
 * A client that leaves ends the walk; a chore that is queued is freed by its own next step. */
#include <stdlib.h>

#include "api/etcd/kv.h"

#define STEP_KEYS   4096       /* looked at in one step */
#define PIECE_BYTES (64 * KIB) /* of a streamed answer, at least, but for the last */

struct walking {
    struct chore chore;
    struct rpc *r;           /* NULL: the client has left */
    struct range range;      /* its spans are the request's */
    struct range_walk *walk; /* under way */
    struct range_end end;    /* once it is done */
    struct buf out;          /* the answer, or its next piece */
    size_t mark;             /* streams: where the piece's answer was opened */
    enum err error;          /* of adding to `out` */
    bool streams, queued;    /* RangeStream; the chore is the manager's now */
};

enum { FIELD_HEADER = 1, FIELD_KVS = 2, FIELD_MORE = 3, FIELD_COUNT = 4 };
enum { FIELD_PIECE = 1 }; /* of RangeStreamResponse */

static bool add(void *ctx, const struct kv *kv) {
    struct walking *w = ctx;
    w->error = pb_kv(&w->out, FIELD_KVS, kv, !w->range.keys_only);
    return w->error == OK;
}

static RESULT add_end(struct walking *w) {
    TRY(etcd_header(&w->out, FIELD_HEADER, w->r->api, 0));
    TRY(pb_number(&w->out, FIELD_MORE, w->end.more));
    return pb_number(&w->out, FIELD_COUNT, w->end.count);
}

/* --- one key --------------------------------------------------------------------------------- */

static void answer_one(struct rpc *r, const struct range *range) {
    struct walking w = {.r = r, .range = *range, .out = buf_new(ANSWER_MAX)};
    enum err e = store_range_read(r->api->manager->store, range, add, &w, &w.end);
    if (e == OK) e = w.error;
    if (e == OK) e = add_end(&w);
    if (e == OK)
        rpc_answer_bytes(r, buf_span(&w.out));
    else
        etcd_fail(r, e, NULL);
    buf_free(&w.out);
}

/* --- many ------------------------------------------------------------------------------------ */

static void walking_free(struct walking *w) {
    range_walk_free(w->walk);
    buf_free(&w->out);
    free(w);
}

static void on_gone(struct rpc *r) {
    struct walking *w = r->data;
    w->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
    if (!w->queued) walking_free(w);
}

static void queue(struct walking *w) {
    w->queued = true;
    manager_chore(w->r->api->manager, &w->chore);
}

static void finish(struct walking *w, enum err e) {
    struct rpc *r = w->r;
    r->gone = NULL;
    if (e != OK)
        etcd_fail(r, e, NULL);
    else if (w->streams)
        rpc_end(r);
    else
        rpc_answer_bytes(r, buf_span(&w->out));
    walking_free(w);
}

/* Streams: a piece is a whole message of its own. */
static RESULT open_piece(struct walking *w) {
    buf_clear(&w->out);
    return w->streams ? pb_open(&w->out, FIELD_PIECE, &w->mark) : OK;
}

static RESULT send_piece(struct walking *w) {
    TRY(pb_close(&w->out, w->mark));
    return rpc_send_bytes(w->r, buf_span(&w->out));
}

/* OK: go on in the next turn, ERR_BUSY: when the client has read. */
static RESULT step(struct walking *w, bool *done) {
    if (w->out.size == 0) TRY(open_piece(w));
    TRY(range_walk_step(w->walk, STEP_KEYS, add, w, done, &w->end));
    TRY(w->error);
    if (*done) TRY(add_end(w));
    if (!w->streams || (!*done && w->out.size < PIECE_BYTES)) return OK;
    enum err e = send_piece(w);
    buf_clear(&w->out);
    return e == ERR_BUSY && *done ? OK : e;
}

static void go_on(struct walking *w) {
    bool done = false;
    enum err e = step(w, &done);
    if (done || (e != OK && e != ERR_BUSY))
        finish(w, e);
    else if (e == OK)
        queue(w);
}

static void on_drained(struct rpc *r) {
    struct walking *w = r->data;
    if (!w->queued) queue(w);
}

static bool on_chore(struct chore *chore) {
    struct walking *w = (struct walking *)(void *)chore;
    w->queued = false;
    if (w->r == NULL)
        walking_free(w);
    else
        go_on(w);
    return false; /* go_on has queued it again */
}

static void walk(struct rpc *r, const struct range *range, bool streams) {
    struct walking *w = calloc(1, sizeof *w);
    enum err e = ERR_NOMEM;
    if (w != NULL) {
        *w = (struct walking){.chore = {.step = on_chore},
                              .r = r,
                              .range = *range,
                              .out = buf_new(ANSWER_MAX),
                              .streams = streams};
        e = range_walk_new(r->api->manager->store, &w->range, &w->walk);
    }
    if (e != OK) {
        free(w);
        etcd_fail(r, e, NULL);
        return;
    }
    r->data = w;
    r->gone = on_gone;
    r->drained = on_drained;
    go_on(w);
}

/* --- both ------------------------------------------------------------------------------------ */

static void answer(struct rpc *r, void *message);

static void has_left(struct rpc *r) { rpc_fail(r, ERR_CLOSED, NULL); }

static void has_room(struct rpc *r) {
    r->gone = r->drained = NULL;
    answer(r, r->data);
}

static void wait_for_room(struct rpc *r, void *message) {
    r->data = message;
    r->gone = has_left;
    r->drained = has_room;
}

/* Permissions are judged when the keys are read, not when it was asked. */
static void answer(struct rpc *r, void *message) {
    struct range range;
    if (r == NULL) return;
    if (rpc_room(r) == ERR_BUSY) {
        wait_for_room(r, message);
        return;
    }
    enum err e = range_of(message, &range);
    if (e == OK) e = caller_may(r->api, &r->caller, PERMISSION_READ, &range.in);
    if (e != OK)
        etcd_fail(r, e, NULL);
    else if (r->method->kind == METHOD_SERVER_STREAM)
        walk(r, &range, true);
    else if (interval_one(&range.in))
        answer_one(r, &range);
    else
        walk(r, &range, false);
}

void kv_range(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__RangeRequest *request = (const Etcdserverpb__RangeRequest *)m;
    void *message = (void *)(uintptr_t)m; /* it stays as long as the call */
    r->api->figures.ranges++;
    if (request->serializable || request->key.len == 0)
        answer(r, message);
    else
        etcd_read(r, answer, message);
}
