/* Any bytes as the body of a call to any method of etcd's, in pieces of any size: framing, decoding
 * and the ends of calls. The methods are a sink that answers, waits, fails or sends as the input
 * says. Every exchange is answered once, no call and no byte is left.
 *
 * Input: method, what the sink does, size of a piece, headers; then either frames as they are or
 * one message, which gets its prefix here. */
#include <stdlib.h>

#include "api/rpc/call.h"
#include "tests/lib/etcd_methods.h"
#include "tests/lib/rpc/exbox.h"

enum { ANSWER, FAIL, WAIT, SEND, SEND_AND_END, BEHAVIOURS };
enum { HEAD = 4, ANSWER_ROOM = 512 };

static struct {
    struct method methods[ETCD_METHODS_MAX];
    const struct method *services[2];
    unsigned n;
    struct log log;
    struct manager manager;
    struct api api;
    uv_loop_t loop;
    unsigned behaviour; /* of the sink, now */
} world;

static void on_gone(struct rpc *r) { rpc_fail(r, ERR_CLOSED, NULL); }

static void on_drained(struct rpc *r) {
    if (world.behaviour == SEND_AND_END) rpc_end(r);
}

static void send_all(struct rpc *r, const ProtobufCMessage *empty) {
    r->gone = on_gone;
    r->drained = on_drained;
    for (unsigned i = 0; i < 2; i++)
        if (rpc_send(r, empty) == ERR_CLOSED) abort();
    if (world.behaviour == SEND_AND_END) rpc_end(r);
}

/* Every field is touched: the size that an encoding says is the size that it has. */
static void check(const ProtobufCMessage *m) {
    struct buf wire = buf_new(64 * MIB);
    size_t size = protobuf_c_message_get_packed_size(m);
    if (buf_reserve(&wire, size + 1) == OK && protobuf_c_message_pack(m, wire.at) != size) abort();
    buf_free(&wire);
}

static void sink(struct rpc *r, const ProtobufCMessage *m) {
    _Alignas(16) uint8_t room[ANSWER_ROOM];
    ProtobufCMessage *empty = (ProtobufCMessage *)(void *)room;
    if (r->method->answer->sizeof_message > sizeof room) abort();
    protobuf_c_message_init(r->method->answer, empty);
    check(m);
    if (world.behaviour == FAIL)
        rpc_fail(r, ERR_FUTURE_REVISION, NULL);
    else if (world.behaviour == WAIT)
        r->gone = on_gone;
    else if (r->method->kind != METHOD_UNARY)
        send_all(r, empty);
    else
        rpc_answer(r, empty);
}

static void begin(void) {
    if (world.n > 0) return;
    world.n = etcd_methods(world.methods, sink, NULL);
    world.services[0] = world.methods;
    static const struct route none[] = {{.path = NULL}};
    log_open(&world.log, 2, LOG_ERROR);
    world.manager.state = MANAGER_RUNNING;
    world.manager.leader = 1;
    world.api = (struct api){.log = &world.log, .manager = &world.manager};
    if (uv_loop_init(&world.loop) != 0 ||
        rpcs_new(&world.api, &world.loop, world.services, none, &world.api.rpcs) != OK)
        abort();
    world.api.rpcs->standby_ms = uv_now(&world.loop); /* a voter, for ever: time stands still */
}

static void add_headers(struct exbox *b, uint8_t which) {
    if (which & 1) exbox_header(b, "grpc-timeout", "5S");
    if (which & 2) exbox_header(b, "token", "a.1");
    if (which & 4) exbox_header(b, "hasleader", "true");
    if (which & 8) exbox_header(b, "grpc-encoding", which & 16 ? "identity" : "gzip");
}

static void feed(struct exbox *b, struct span bytes, size_t piece) {
    for (size_t at = 0; at < bytes.size && !b->done; at += piece) {
        size_t size = bytes.size - at < piece ? bytes.size - at : piece;
        bool last = at + size == bytes.size;
        b->resumed = false;
        if (exbox_data(b, span_of(bytes.at + at, size), last)) continue;
        exbox_drain(b); /* it waits for us: then it must go on by itself */
        if (!b->done && !last && !b->resumed) abort();
    }
    if (bytes.size == 0) (void)exbox_data(b, bytes, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    begin();
    if (size < HEAD) return 0;
    struct exbox b;
    struct buf bytes = buf_new(16 * MIB);
    struct span rest = span_of(data + HEAD, size - HEAD);
    if ((data[3] & 128 ? buf_add_span(&bytes, rest) : exbox_frame(&bytes, rest)) != OK) abort();
    world.behaviour = data[1] % BEHAVIOURS;
    exbox_open(&b, &world.api, world.methods[data[0] % world.n].path, span_of(NULL, 0));
    add_headers(&b, data[3]);
    b.full = (data[1] & 128) != 0;
    exbox_grpc(&b);
    feed(&b, buf_span(&bytes), data[2] == 0 ? bytes.size + 1 : data[2]);
    exbox_leave(&b);
    if (!b.done || world.api.rpcs->calls || world.api.rpcs->timed > 0) abort();
    exbox_free(&b);
    buf_free(&bytes);
    return 0;
}
