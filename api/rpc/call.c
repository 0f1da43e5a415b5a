/* See call.h and rpc.h. Also the pool: a call's memory is kept for the next one, so that a unary
 * call costs no malloc. */
#include "api/rpc/call.h"
#include "api/etcd/caller.h"
#include "api/etcd/etcd.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define STANDBY_CHECK_MS 100         /* how old the knowledge of being a standby may be */
#define TAIL_PIECE       (256 * KIB) /* of a large answer, written at once */
#define OUT_KEEP         (1 * MIB)   /* of the answers' buffer, from one call to the next */

static const struct outcome good = {.code = CODE_OK, .text = ""};

/* --- memory --------------------------------------------------------------------------------- */

static struct rpc_call *take(struct rpcs *r) {
    struct rpc_call *c = r->pool;
    if (c) {
        r->pool = c->next;
        r->pooled--;
    } else {
        c = malloc(sizeof *c);
        if (!c) return NULL;
        arena_init(&c->arena);
    }
    memset(c, 0, offsetof(struct rpc_call, arena));
    return c;
}

static void release(struct rpc_call *c) {
    struct rpcs *r = c->rpcs;
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    deadline_remove(c);
    arena_reset(&c->arena);
    if (c->in.at) buf_wipe(&c->in);
    if (c->tail.at) buf_wipe(&c->tail);
    r->live--;
    if (r->pooled == RPC_POOL_MAX) {
        free(c);
        return;
    }
    c->next = r->pool;
    r->pool = c;
    r->pooled++;
}

struct rpc_call *call_begin(struct exchange *x, struct served *s, const struct carrier *carrier) {
    struct api *api = x->ctx;
    struct rpcs *r = api->rpcs;
    struct rpc_call *c = r->live < RPC_CALLS_MAX ? take(r) : NULL;
    if (!c) return NULL;
    r->live++;
    c->rpc.method = s->method;
    c->rpc.api = api;
    c->rpc.caller = x->caller;
    c->carrier = carrier;
    c->x = x;
    c->rpcs = r;
    c->served = s;
    c->started_ns = uv_hrtime();
    c->next = r->calls;
    c->link = &r->calls;
    if (r->calls) r->calls->link = &c->next;
    r->calls = c;
    s->started++;
    return c;
}

/* --- the end of a call ------------------------------------------------------------------------ */

static bool settle(struct rpc_call *c) {
    if (!c->finished || c->busy > 0 || c->tail.size > 0) return !c->finished;
    release(c);
    return false;
}

/* The exchange is answered; nothing can be sent any more. */
static void over(struct rpc_call *c, unsigned code) {
    c->x = NULL;
    figures_done(c, code);
    deadline_remove(c);
}

static void finish(struct rpc_call *c, const struct outcome *o) {
    if (c->x) {
        c->carrier->finish(c, o);
        over(c, o->code);
    }
    c->finished = true;
}

bool call_refuse(struct rpc_call *c, unsigned code, const char *format, ...) {
    char text[WHY_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const struct outcome o = {.code = code, .text = text};
    if (c->given) return call_abort(c, &o);
    finish(c, &o);
    return settle(c);
}

bool call_abort(struct rpc_call *c, const struct outcome *o) {
    if (!c->x) return true;
    if (c->tail.size > 0) {
        exchange_end(c->x, false); /* within a message: nothing more can be said */
        buf_wipe(&c->tail);
    } else {
        c->carrier->finish(c, o);
    }
    over(c, o->code);
    c->rpc.left = true;
    c->rpc.drained = NULL;
    if (!c->given) c->finished = true; /* no method knows of it */
    c->busy++;
    if (!c->finished && c->rpc.gone) c->rpc.gone(&c->rpc);
    c->busy--;
    return settle(c);
}

bool call_gone(struct rpc_call *c) {
    static const struct outcome cancelled = {.code = CODE_CANCELLED, .text = "context canceled"};
    return call_abort(c, &cancelled);
}

/* --- large answers --------------------------------------------------------------------------- */

RESULT call_tail(struct rpc_call *c, struct span bytes) {
    c->tail = buf_new(bytes.size);
    c->tail_at = 0;
    return buf_add_span(&c->tail, bytes);
}

/* Writes as much as the client takes now; then `room` goes on. */
static void pump(struct rpc_call *c) {
    enum err e = OK;
    c->blocked = false;
    while (e == OK && c->tail_at < c->tail.size) {
        size_t left = c->tail.size - c->tail_at, size = left < TAIL_PIECE ? left : TAIL_PIECE;
        e = exchange_write(c->x, span_of(c->tail.at + c->tail_at, size));
        c->tail_at += size;
    }
    if (e == ERR_BUSY && c->tail_at < c->tail.size) {
        c->blocked = true;
        return;
    }
    buf_wipe(&c->tail);
    if (e == OK || e == ERR_BUSY)
        c->carrier->finish(c, &good);
    else
        exchange_end(c->x, false);
    over(c, e == OK || e == ERR_BUSY ? CODE_OK : (unsigned)err_grpc(e));
}

/* --- before a message ------------------------------------------------------------------------- */

/* What is known of this member's role is kept for a while: to ask copies all of the status. */
static bool is_standby(struct rpcs *r) {
    uint64_t now = uv_now(r->loop);
    struct manager *m = r->api->manager;
    if (r->standby_ms != 0 && now - r->standby_ms < STANDBY_CHECK_MS) return r->standby;
    struct replica_status s;
    replica_status(m->replica, &s);
    r->standby = true;
    for (unsigned i = 0; i < s.n; i++)
        if (s.members[i].raft_id == s.raft_id) r->standby = s.members[i].role != REPLICA_VOTER;
    r->standby_ms = now;
    return r->standby;
}

static bool fail(struct rpc_call *c, enum err e) {
    const struct outcome o = {
        .code = (unsigned)err_grpc(e), .text = err_text(e), .name = err_name(e)};
    finish(c, &o);
    return settle(c);
}

static bool bar(struct rpc_call *c) {
    const struct outcome o = {.code = (unsigned)err_grpc(ERR_PERMISSION),
                              .text = c->rpc.caller.barred,
                              .name = err_name(ERR_PERMISSION)};
    finish(c, &o);
    return settle(c);
}

bool call_admit(struct rpc_call *c) {
    const struct method *method = c->rpc.method;
    const struct manager *m = c->rpc.api->manager;
    struct why why = {0};
    if (c->rpc.caller.barred) return bar(c);
    if (method->open && method->standby) return true;
    enum err e = manager_ready(m, &why);
    if (e != OK) {
        const struct outcome o = {.code = CODE_UNAVAILABLE, .text = why.text, .name = err_name(e)};
        finish(c, &o);
        return settle(c);
    }
    if (!method->standby && is_standby(c->rpcs)) return fail(c, ERR_STANDBY);
    e = rpc_identify(&c->rpc);
    if (e == OK) e = caller_known(c->rpc.api, &c->rpc.caller);
    if (e != OK && !method->open) return fail(c, e);
    if (c->rpc.has_leader && m->leader == 0) {
        const struct outcome o = {.code = CODE_UNAVAILABLE,
                                  .text = "etcdserver: no leader",
                                  .name = err_name(ERR_NO_LEADER)};
        finish(c, &o);
        return settle(c);
    }
    return true;
}

/* --- messages in ------------------------------------------------------------------------------ */

bool call_message(struct rpc_call *c, struct span bytes) {
    const struct method *method = c->rpc.method;
    if (method->kind != METHOD_BIDI && c->given) return true; /* more than was asked for */
    c->served->received++;
    c->size += bytes.size;
    ProtobufCMessage *m =
        protobuf_c_message_unpack(method->request, &c->arena.allocator, bytes.size, bytes.at);
    if (!m) {
        bool full = c->arena.total > RPC_ARENA_MAX / 2;
        arena_reset(&c->arena);
        return full ? call_refuse(c, CODE_EXHAUSTED, "%s", "the message is too large when decoded")
                    : call_refuse(c, CODE_INTERNAL, "%s",
                                  "grpc: error unmarshalling request: the bytes are no such "
                                  "message");
    }
    c->given = true;
    c->busy++;
    if (method->manages)
        etcd_manage(&c->rpc, m, method->message);
    else
        method->message(&c->rpc, m);
    c->busy--;
    if (method->kind == METHOD_BIDI && !c->finished) arena_reset(&c->arena);
    return settle(c);
}

bool call_ended(struct rpc_call *c) {
    const struct method *method = c->rpc.method;
    if (c->ended) return true;
    c->ended = true;
    if (method->kind != METHOD_BIDI)
        return c->given ? true
                        : call_refuse(c, CODE_INTERNAL, "%s", "the request carries no message");
    c->busy++;
    if (method->ended)
        method->ended(&c->rpc);
    else
        finish(c, &good);
    c->busy--;
    return settle(c);
}

void call_room(struct rpc_call *c) {
    if (!c->blocked) return;
    if (c->tail.size > 0) {
        pump(c);
        (void)settle(c);
        return;
    }
    c->blocked = false;
    c->busy++;
    if (c->rpc.drained) c->rpc.drained(&c->rpc);
    c->busy--;
    if (settle(c) && !c->blocked && c->x) c->carrier->room(c);
}

/* --- rpc.h ------------------------------------------------------------------------------------ */

static struct rpc_call *call_of(struct rpc *r) { return (struct rpc_call *)(void *)r; }

bool rpc_shows_token(const struct rpc *r) {
    return ((const struct rpc_call *)(const void *)r)->token.size != 0;
}

RESULT rpc_identify(struct rpc *r) {
    return caller_identify(r->api, &r->caller, call_of(r)->token);
}

/* Into the buffer that all calls share; it is used up at once. */
static RESULT encode(struct rpcs *r, const ProtobufCMessage *answer, struct span *out) {
    size_t size = protobuf_c_message_get_packed_size(answer);
    if (r->out.room > OUT_KEEP) buf_wipe(&r->out);
    buf_clear(&r->out);
    TRY(buf_reserve(&r->out, size));
    r->out.size = protobuf_c_message_pack(answer, r->out.at);
    *out = buf_span(&r->out);
    return OK;
}

void rpc_answer_bytes(struct rpc *r, struct span answer) {
    struct rpc_call *c = call_of(r);
    if (c->x) {
        c->served->sent++;
        c->carrier->answer(c, answer);
        if (c->tail.size > 0)
            pump(c);
        else
            over(c, CODE_OK);
    }
    c->finished = true;
    (void)settle(c);
}

void rpc_answer(struct rpc *r, const ProtobufCMessage *answer) {
    struct span bytes = {0};
    enum err e = encode(call_of(r)->rpcs, answer, &bytes);
    if (e == OK)
        rpc_answer_bytes(r, bytes);
    else
        rpc_fail(r, e, NULL);
}

RESULT rpc_room(struct rpc *r) {
    struct rpc_call *c = call_of(r);
    if (!c->x) return ERR_CLOSED;
    enum err e = exchange_room(c->x);
    if (e == ERR_BUSY) c->blocked = true;
    return e;
}

RESULT rpc_send_bytes(struct rpc *r, struct span answer) {
    struct rpc_call *c = call_of(r);
    if (!c->x) return ERR_CLOSED;
    c->served->sent++;
    enum err e = c->carrier->send(c, answer);
    if (e == ERR_BUSY) c->blocked = true;
    return e;
}

RESULT rpc_send(struct rpc *r, const ProtobufCMessage *answer) {
    struct span bytes = {0};
    TRY(encode(call_of(r)->rpcs, answer, &bytes));
    return rpc_send_bytes(r, bytes);
}

void rpc_end(struct rpc *r) {
    struct rpc_call *c = call_of(r);
    finish(c, &good);
    (void)settle(c);
}

void rpc_fail(struct rpc *r, enum err e, const char *text) {
    struct rpc_call *c = call_of(r);
    const struct outcome o = {.code = (unsigned)err_grpc(e),
                              .text = text && text[0] ? text : err_text(e),
                              .name = err_name(e)};
    finish(c, &o);
    (void)settle(c);
}
