/* See exbox.h. Answers are kept in one growing buffer; what the layer does wrong with an exchange
 * aborts here. */
#include "tests/lib/rpc/exbox.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/fault.h"

static struct exbox *exbox_of(struct exchange *x) {
    struct exbox *b = (struct exbox *)(void *)x;
    if (b->done) abort();
    return b;
}

/* The test's own memory does not fail. */
static void note(struct exbox *b, struct span bytes) {
    fault_alloc_pause();
    if (buf_add_span(&b->body, bytes) != OK) abort();
    fault_alloc_resume();
}

static void note_head(struct exbox *b, unsigned status, const char *type) {
    if (b->status != 0) abort();
    b->status = status;
    (void)snprintf(b->type, sizeof b->type, "%s", type);
}

/* --- server.h --------------------------------------------------------------------------------- */

void exchange_answer(struct exchange *x, unsigned status, const char *content_type,
                     struct span body) {
    struct exbox *b = exbox_of(x);
    note_head(b, status, content_type);
    note(b, body);
    b->done = b->whole = true;
}

void exchange_json(struct exchange *x, struct buf *body) {
    exchange_answer(x, 200, "application/json", buf_span(body));
    buf_wipe(body);
}

void exchange_error(struct exchange *x, enum err e, const char *text) {
    exchange_answer(x, (unsigned)err_http(e), "application/json",
                    span_str(text ? text : err_text(e)));
}

RESULT exchange_stream(struct exchange *x, const char *content_type) {
    struct exbox *b = exbox_of(x);
    b->streaming = true;
    if (x->gone) return ERR_CLOSED;
    note_head(b, 200, content_type);
    return OK;
}

RESULT exchange_write(struct exchange *x, struct span data) {
    struct exbox *b = exbox_of(x);
    if (!b->streaming) abort();
    if (x->gone) return ERR_CLOSED;
    note(b, data);
    return b->full ? ERR_BUSY : OK;
}

RESULT exchange_room(struct exchange *x) {
    if (x->gone) return ERR_CLOSED;
    return exbox_of(x)->full ? ERR_BUSY : OK;
}

void exchange_end(struct exchange *x, bool whole) {
    struct exbox *b = exbox_of(x);
    if (!b->streaming) abort();
    b->done = true;
    b->whole = whole;
}

void exchange_resume(struct exchange *x) { exbox_of(x)->resumed = true; }

static void note_text(char *out, size_t room, struct span text) {
    if (text.size >= room) abort();
    memcpy(out, text.at, text.size);
    out[text.size] = 0;
}

void exchange_trailers(struct exchange *x, const struct http_header *trailers, unsigned n) {
    struct exbox *b = exbox_of(x);
    char text[16];
    for (unsigned i = 0; i < n; i++) {
        if (http_is(trailers[i].name, "grpc-message"))
            note_text(b->message, sizeof b->message, trailers[i].value);
        if (http_is(trailers[i].name, "grpc-accept-encoding"))
            note_text(b->accepts, sizeof b->accepts, trailers[i].value);
        if (http_is(trailers[i].name, "content-type")) {
            if (b->streaming) abort();
            note_head(b, 200, "application/grpc");
        }
        if (!http_is(trailers[i].name, "grpc-status")) continue;
        note_text(text, sizeof text, trailers[i].value);
        b->code = (int)strtol(text, NULL, 10);
    }
    if (b->code < 0 || (b->status == 0 && !x->gone)) abort();
    b->done = b->whole = true;
}

/* --- driving ---------------------------------------------------------------------------------- */

void exbox_open(struct exbox *b, struct api *api, const char *path, struct span body) {
    *b = (struct exbox){.body = buf_new(64 * MIB), .code = -1};
    b->x.ctx = api;
    b->x.http2 = true;
    b->x.head.method = HTTP_POST;
    b->x.head.path = span_str(path);
    b->x.body = body;
}

void exbox_header(struct exbox *b, const char *name, const char *value) {
    struct http_head *head = &b->x.head;
    if (head->n == HTTP_HEADERS_MAX) abort();
    head->headers[head->n++] =
        (struct http_header){.name = span_str(name), .value = span_str(value)};
}

void exbox_free(struct exbox *b) { buf_free(&b->body); }

void exbox_grpc(struct exbox *b) {
    b->x.route = &rpc_route;
    rpc_route.handle(&b->x);
}

bool exbox_data(struct exbox *b, struct span bytes, bool last) {
    return b->done || !b->x.data || b->x.data(&b->x, bytes, last);
}

void exbox_leave(struct exbox *b) {
    if (b->done) return;
    b->x.gone = true;
    if (b->x.drained) b->x.drained(&b->x);
}

void exbox_drain(struct exbox *b) {
    b->full = false;
    if (!b->done && b->x.drained) b->x.drained(&b->x);
}

RESULT exbox_frame(struct buf *out, struct span message) {
    uint32_t n = (uint32_t)message.size;
    uint8_t prefix[5] = {0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    TRY(buf_add(out, prefix, sizeof prefix));
    return buf_add_span(out, message);
}

bool exbox_answer(const struct exbox *b, unsigned n, struct span *out) {
    struct cursor c = cursor_of(buf_span(&b->body));
    for (unsigned i = 0; i <= n; i++) {
        struct span prefix;
        if (cursor_bytes(&c, 5, &prefix) != OK || prefix.at[0] != 0) return false;
        size_t size = (size_t)prefix.at[1] << 24 | (size_t)prefix.at[2] << 16 |
                      (size_t)prefix.at[3] << 8 | prefix.at[4];
        if (cursor_bytes(&c, size, out) != OK) return false;
    }
    return true;
}

bool exbox_json(struct exbox *b, const struct rpcs *rpcs) {
    b->x.http2 = false;
    for (const struct route *r = rpcs_routes(rpcs); r->path; r++) {
        if (!span_equal(b->x.head.path, span_str(r->path))) continue;
        b->x.route = r;
        if (r->streams) b->x.body = span_of(NULL, 0);
        r->handle(&b->x);
        return true;
    }
    return false;
}
