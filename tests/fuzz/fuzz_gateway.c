/* JSON and the wire form of every message of etcd's API. Three things an input may be:
 *
 *   a body of the gateway, for a method that answers with what it was asked or nothing: no fault,
 *       the exchange is answered once, and a 200 is JSON
 *   JSON: what is read, decoded, encoded and written is JSON that reads and writes as itself
 *   the wire form of a message: the same from there
 *
 * Input: what it is, the method and which of its messages, size of a piece; then the bytes. */
#include <stdlib.h>

#include "api/rpc/call.h"
#include "api/rpc/pbjson.h"
#include "tests/lib/etcd_methods.h"
#include "tests/lib/rpc/exbox.h"

enum { HEAD = 3, ANSWER_ROOM = 512 };

static struct {
    struct method methods[ETCD_METHODS_MAX];
    const struct method *services[2];
    unsigned n;
    struct log log;
    struct manager manager;
    struct api api;
    uv_loop_t loop;
    bool echo; /* the sink answers with the request's bytes */
} world;

static void on_gone(struct rpc *r) { rpc_fail(r, ERR_CLOSED, NULL); }

static RESULT encode(const ProtobufCMessage *m, struct buf *out) {
    buf_clear(out);
    TRY(buf_reserve(out, protobuf_c_message_get_packed_size(m) + 1));
    out->size = protobuf_c_message_pack(m, out->at);
    return OK;
}

static void sink(struct rpc *r, const ProtobufCMessage *m) {
    _Alignas(16) uint8_t room[ANSWER_ROOM];
    ProtobufCMessage *empty = (ProtobufCMessage *)(void *)room;
    struct buf wire = buf_new(64 * MIB);
    protobuf_c_message_init(r->method->answer, empty);
    r->gone = on_gone;
    if (encode(world.echo ? m : empty, &wire) != OK) abort();
    if (r->method->kind == METHOD_UNARY)
        rpc_answer_bytes(r, buf_span(&wire));
    else
        (void)!rpc_send_bytes(r, buf_span(&wire)); /* fails when it is no such answer */
    buf_free(&wire);
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

/* --- a body ----------------------------------------------------------------------------------- */

static void as_body(const struct method *m, struct span body, size_t piece) {
    struct exbox b;
    if (!m->json) return;
    exbox_open(&b, &world.api, m->json, body);
    if (!exbox_json(&b, world.api.rpcs)) abort();
    if (m->kind == METHOD_BIDI) {
        for (size_t at = 0; at < body.size && !b.done; at += piece)
            (void)exbox_data(
                &b, span_of(body.at + at, body.size - at < piece ? body.size - at : piece), false);
        (void)exbox_data(&b, span_of(NULL, 0), true);
    }
    exbox_leave(&b);
    if (!b.done || world.api.rpcs->calls) abort();
    if (m->kind == METHOD_UNARY && b.status == 200) {
        json_t *json = json_loadb((const char *)b.body.at, b.body.size, 0, NULL);
        if (!json && !memmem(b.body.at, b.body.size, "\\u0000", 6)) abort();
        json_decref(json);
    }
    exbox_free(&b);
}

/* --- there and back --------------------------------------------------------------------------- */

static bool write_json(const ProtobufCMessageDescriptor *type, struct span wire, struct buf *out) {
    struct jout j;
    buf_clear(out);
    jout_start(&j, out);
    return pbjson_write(type, wire, &j) == OK && jout_end(&j) == OK;
}

/* Wire -> message -> wire. */
static bool refine(const ProtobufCMessageDescriptor *type, struct buf *wire) {
    struct arena arena;
    arena_init(&arena);
    ProtobufCMessage *m = protobuf_c_message_unpack(type, &arena.allocator, wire->size, wire->at);
    bool good = m && encode(m, wire) == OK;
    arena_reset(&arena);
    return good;
}

static bool read_json(const ProtobufCMessageDescriptor *type, struct span text, struct buf *wire) {
    json_t *json;
    buf_clear(wire);
    if (jin_parse(text, &json, NULL) != OK) return false;
    enum err e = pbjson_read(type, json, wire, NULL);
    json_decref(json);
    return e == OK;
}

static void there_and_back(const ProtobufCMessageDescriptor *type, struct buf *wire) {
    struct buf first = buf_new(64 * MIB), second = buf_new(64 * MIB);
    bool zeros = false;
    if (refine(type, wire) && write_json(type, buf_span(wire), &first)) {
        zeros = memmem(first.at, first.size, "\\u0000", 6) != NULL; /* jansson takes none */
        if (!zeros && (!read_json(type, buf_span(&first), wire) || !refine(type, wire) ||
                       !write_json(type, buf_span(wire), &second)))
            abort();
        if (!zeros && !span_equal(buf_span(&first), buf_span(&second))) abort();
    }
    buf_free(&first);
    buf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    begin();
    if (size < HEAD || size > HTTP_BODY_MAX) return 0;
    const struct method *m = &world.methods[data[1] % world.n];
    const ProtobufCMessageDescriptor *type = data[0] & 4 ? m->answer : m->request;
    struct span rest = span_of(data + HEAD, size - HEAD);
    struct buf wire = buf_new(64 * MIB);
    world.echo = (data[0] & 8) != 0;
    if ((data[0] & 3) == 0)
        as_body(m, rest, (size_t)data[2] + 1);
    else if ((data[0] & 3) == 1) {
        if (buf_add_span(&wire, rest) == OK) there_and_back(type, &wire);
    } else if (read_json(type, rest, &wire)) {
        there_and_back(type, &wire);
    }
    buf_free(&wire);
    return 0;
}
