/* gRPC over HTTP/2 (its PROTOCOL-HTTP2): POST /SERVICE/METHOD with content-type application/grpc.
 *
 *   request   a stream of messages: u8 compressed (0), u32 big-endian length, the message
 *   answer    200, content-type; messages in the same form; trailers grpc-status and, unless it is
 *             0, grpc-message (percent-encoded)
 *   error     before any message: the trailers alone, with the content-type
 *
 * No compression: a request that says it is compressed is UNIMPLEMENTED. A message may come in any
 * number of pieces; one that lies whole in what the connection gives is decoded where it is. A
 * client that does not take its answers is not listened to (call->blocked): its messages wait. */
#include <stdio.h>

#include "api/rpc/call.h"
#include "api/rpc/rpcs.h"

#define PREFIX    5                                          /* bytes before a message */
#define HELD_MAX  (PREFIX + RPC_MESSAGE_MAX + STREAM_WINDOW) /* a message, and what came with it */
#define TEXT_ROOM 1024                                       /* of grpc-message, encoded */

static const char content_type[] = "application/grpc";

static struct http_header header(const char *name, struct span value) {
    return (struct http_header){.name = span_str(name), .value = value};
}

/* --- answers ---------------------------------------------------------------------------------- */

static RESULT write_prefix(struct rpc_call *c, size_t size) {
    if (size > UINT32_MAX) return ERR_TOO_LARGE;
    uint32_t n = (uint32_t)size;
    uint8_t prefix[PREFIX] = {0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
                              (uint8_t)n};
    c->rpcs->sent_bytes += PREFIX + size;
    return exchange_write(c->x, span_of(prefix, sizeof prefix));
}

static RESULT write_message(struct rpc_call *c, struct span message) {
    enum err e = write_prefix(c, message.size);
    if (message.size == 0 || (e != OK && e != ERR_BUSY)) return e;
    return exchange_write(c->x, message);
}

static RESULT begin(struct rpc_call *c) {
    if (c->streaming) return OK;
    c->streaming = true;
    return exchange_stream(c->x, content_type);
}

/* Printable ASCII but for '%' as it is, all else as %XX. */
static struct span encode_text(const char *text, char out[TEXT_ROOM]) {
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    for (; *text && n + 3 <= TEXT_ROOM; text++) {
        uint8_t c = (uint8_t)*text;
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = digits[c >> 4];
        out[n++] = digits[c & 15];
    }
    return span_of(out, n); /* cppcheck-suppress uninitvar ; n bytes of it are written */
}

static void end(struct exchange *x, bool streaming, unsigned code, const char *text) {
    char status[12] = "0", message[TEXT_ROOM];
    struct http_header trailers[4];
    unsigned n = 0;
    if (code != CODE_OK) (void)snprintf(status, sizeof status, "%u", code);
    if (!streaming) trailers[n++] = header("content-type", span_str(content_type));
    trailers[n++] = header("grpc-status", span_str(status));
    if (text[0]) trailers[n++] = header("grpc-message", encode_text(text, message));
    if (code == CODE_UNIMPLEMENTED)
        trailers[n++] = header("grpc-accept-encoding", span_str("identity"));
    exchange_trailers(x, trailers, n);
}

/* A failure here is the client's leaving: the trailers then go nowhere, too. */
static void carry_finish(struct rpc_call *c, const struct outcome *o) {
    if (o->code == CODE_OK) (void)!begin(c);
    end(c->x, c->streaming, o->code, o->text);
}

static RESULT write_answer(struct rpc_call *c, struct span message) {
    TRY(begin(c));
    if (message.size <= ANSWER_QUEUE_MAX) return write_message(c, message);
    TRY(call_tail(c, message));
    return write_prefix(c, message.size);
}

static void carry_answer(struct rpc_call *c, struct span message) {
    enum err e = write_answer(c, message);
    bool good = e == OK || e == ERR_BUSY;
    if (good && c->tail.size > 0) return;
    if (c->tail.at) buf_wipe(&c->tail);
    end(c->x, c->streaming, good ? CODE_OK : (unsigned)err_grpc(e), good ? "" : err_text(e));
}

static RESULT carry_send(struct rpc_call *c, struct span message) {
    TRY(begin(c));
    return write_message(c, message);
}

/* --- requests --------------------------------------------------------------------------------- */

/* The size of the message that begins here, with its prefix; of the prefix alone while that is not
 * there. */
static RESULT measure(const uint8_t *at, size_t have, size_t *need) {
    *need = PREFIX;
    if (have < PREFIX) return OK;
    if (at[0] != 0) return at[0] == 1 ? ERR_UNSUPPORTED : ERR_PROTOCOL;
    uint32_t n = (uint32_t)at[1] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 8 | at[4];
    *need += n;
    return n > RPC_MESSAGE_MAX ? ERR_TOO_LARGE : OK;
}

/* The next whole message: where it came, or gathered in c->in. Else all is gathered there. */
static RESULT next_message(struct rpc_call *c, struct cursor *in, struct span *out, bool *whole) {
    size_t need;
    struct span piece;
    *whole = false;
    if (c->in.size == 0) {
        TRY(measure(in->at, in->left, &need));
        if (in->left < need)
            return cursor_bytes(in, in->left, &piece) != OK ? ERR_INTERNAL
                                                            : buf_add_span(&c->in, piece);
        TRY(cursor_bytes(in, need, &piece));
        *out = span_of(piece.at + PREFIX, need - PREFIX);
        *whole = true;
        return OK;
    }
    for (;;) {
        TRY(measure(c->in.at, c->in.size, &need));
        if (c->in.size >= need) break;
        size_t more = need - c->in.size < in->left ? need - c->in.size : in->left;
        if (more == 0) return OK;
        TRY(cursor_bytes(in, more, &piece));
        TRY(buf_add_span(&c->in, piece));
    }
    *out = span_of(c->in.at + PREFIX, need - PREFIX);
    *whole = true;
    return OK;
}

static bool refuse_frame(struct rpc_call *c, enum err e, struct cursor in) {
    const uint8_t *at = c->in.size > 0 ? c->in.at : in.at;
    switch ((unsigned)e) {
    case ERR_TOO_LARGE:
        return call_refuse(
            c, CODE_EXHAUSTED, "grpc: received message larger than max (%u vs. %llu)",
            (unsigned)at[1] << 24 | (unsigned)at[2] << 16 | (unsigned)at[3] << 8 | at[4],
            RPC_MESSAGE_MAX);
    case ERR_UNSUPPORTED:
        return call_refuse(c, CODE_INTERNAL,
                           "grpc: compressed flag set with identity or empty encoding");
    case ERR_PROTOCOL:
        return call_refuse(c, CODE_INTERNAL, "grpc: received unexpected payload format %u", at[0]);
    default: return call_refuse(c, (unsigned)err_grpc(e), "%s", err_text(e));
    }
}

/* All messages in `bytes`, as long as the client takes the answers. */
static bool process(struct rpc_call *c, struct span bytes) {
    struct cursor in = cursor_of(bytes);
    while (c->x && !c->blocked) {
        struct span message;
        bool whole;
        enum err e = next_message(c, &in, &message, &whole);
        if (e != OK) return refuse_frame(c, e, in);
        if (!whole) return true;
        if (!call_message(c, message)) return false;
        buf_clear(&c->in);
    }
    enum err e = c->x ? buf_add(&c->in, in.at, in.left) : OK;
    return e == OK ? true : refuse_frame(c, e == ERR_TOO_LARGE ? ERR_BUSY : e, in);
}

static bool request_ended(struct rpc_call *c) {
    if (c->in.size > 0) return call_refuse(c, CODE_INTERNAL, "unexpected EOF");
    return call_ended(c);
}

static bool on_data(struct exchange *x, struct span bytes, bool last) {
    struct rpc_call *c = x->stream;
    c->rpcs->received_bytes += bytes.size;
    c->ending |= last;
    if (!process(c, bytes) || !c->x) return true;
    if (c->blocked) return false;
    if (last) (void)request_ended(c);
    return true;
}

/* What waited for the client to take its answers. */
static void carry_room(struct rpc_call *c) {
    struct buf held = c->in;
    c->in = buf_new(HELD_MAX);
    bool lives = process(c, buf_span(&held));
    buf_wipe(&held);
    if (!lives || !c->x || c->blocked) return;
    if (c->ending)
        (void)request_ended(c);
    else
        exchange_resume(c->x);
}

static void on_drained(struct exchange *x) {
    struct rpc_call *c = x->stream;
    if (x->gone)
        (void)call_gone(c);
    else
        call_room(c);
}

static const struct carrier carrier = {
    .answer = carry_answer, .send = carry_send, .finish = carry_finish, .room = carry_room};

/* As grpc-go says it, which clients' tests look for. */
static void refuse_unknown(struct exchange *x, const struct rpcs *r) {
    char text[WHY_MAX];
    struct span path = x->head.path;
    size_t slash = path.size;
    while (slash > 0 && path.at[slash - 1] != '/')
        slash--;
    struct span service = span_of(path.at + 1, slash > 1 ? slash - 2 : 0);
    int service_size = (int)(service.size < 100 ? service.size : 100);
    int name_size = (int)(path.size - slash < 100 ? path.size - slash : 100);
    if (slash < 2)
        (void)snprintf(text, sizeof text, "malformed method name: \"%.*s\"", name_size + 1,
                       (const char *)path.at);
    else if (service_known(r, service))
        (void)snprintf(text, sizeof text, "unknown method %.*s for service %.*s", name_size,
                       (const char *)path.at + slash, service_size, (const char *)service.at);
    else
        (void)snprintf(text, sizeof text, "unknown service %.*s", service_size,
                       (const char *)service.at);
    end(x, false, CODE_UNIMPLEMENTED, text);
}

void grpc_handle(struct exchange *x) {
    const struct api *api = x->ctx;
    if (!x->http2) {
        exchange_answer(x, 505, "text/plain", span_str("gRPC requires HTTP/2\n"));
        return;
    }
    struct served *s = served_find(api->rpcs, x->head.path);
    if (!s) {
        refuse_unknown(x, api->rpcs);
        return;
    }
    struct rpc_call *c = call_begin(x, s, &carrier);
    if (!c) {
        end(x, false, (unsigned)err_grpc(ERR_BUSY), err_text(ERR_BUSY));
        return;
    }
    c->in = buf_new(HELD_MAX);
    x->stream = c;
    x->data = on_data;
    x->drained = on_drained;
    if (metadata_read(c)) (void)call_admit(c);
}

const struct route rpc_route = {.method = HTTP_POST,
                                .path = "",
                                .access = ACCESS_CLIENT,
                                .handle = grpc_handle,
                                .streams = true};
