/* One request of HTTP/2: its head as it comes, header by header; its body, kept until it is whole
 * or given as it comes; its answer, kept until nghttp2 may send it. See http2_internal.h for its
 * life. Names and values of the head lie in nghttp2's own buffers, which are kept alive, so that a
 * head is not copied. Heads are checked here by the rules of RFC 9113 8.2 and 8.3, not by nghttp2:
 * gRPC clients on a unix socket put its path into :authority, which nghttp2 does not forgive.
 *
 * Windows: what came is given back to the connection's at once, so that no stream can stop another;
 * to the stream's when its handler has taken it. */
#include <stdlib.h>

#include <sodium.h>

#include "api/http/http2_internal.h"

#define BUF_KEEP (4 * KIB) /* of a pooled stream's buffers */

static struct stream *stream_of(struct exchange *x) { return (struct stream *)(void *)x; }

static struct conn *conn_of(const struct stream *st) { return st->h->session->conn; }

static size_t queued(const struct stream *st) { return st->out.size - st->out_at; }

/* --- life ----------------------------------------------------------------------------------- */

static void unlink_stream(struct stream *st) {
    *st->link = st->next;
    if (st->next)
        st->next->link = st->link;
    else
        st->h->end = st->link;
}

static void link_last(struct stream *st) {
    struct http2 *h = st->h;
    st->next = NULL;
    st->link = h->end;
    *h->end = st;
    h->end = &st->next;
}

/* Memory for the next request; what a request or an answer held is gone from it. */
static void buf_recycle(struct buf *b, size_t max) {
    if (b->room > BUF_KEEP)
        buf_wipe(b);
    else if (b->at)
        sodium_memzero(b->at, b->size);
    buf_clear(b);
    b->max = max;
}

static void free_memory(struct stream *st) {
    buf_wipe(&st->body);
    buf_wipe(&st->out);
    buf_wipe(&st->trailers);
    free(st);
}

static struct stream *take_memory(struct http2_setup *setup) {
    struct stream *st = setup->pool;
    if (!st) return calloc(1, sizeof *st);
    setup->pool = st->next;
    setup->pooled--;
    return st;
}

static void give_memory(struct http2_setup *setup, struct stream *st) {
    buf_recycle(&st->body, HTTP_BODY_MAX);
    buf_recycle(&st->out, CONN_ANSWERS_MAX);
    buf_recycle(&st->trailers, HTTP_HEAD_MAX);
    if (!KEEPS_MEMORY || setup->pooled == STREAM_POOL_MAX) {
        free_memory(st);
        return;
    }
    st->next = setup->pool;
    setup->pool = st;
    setup->pooled++;
}

void stream_free_pool(struct http2_setup *setup) {
    while (setup->pool)
        free_memory(take_memory(setup));
}

/* All that is not the request, and not memory that is kept. */
static void clear(struct stream *st) {
    st->n_kept = st->pseudo = st->n_trailers = 0;
    st->head_size = st->owed = st->out_at = 0;
    st->received = 0;
    st->refused = OK;
    st->headed = st->dispatched = st->feeds = st->ended = st->end_given = st->held = false;
    st->answering = st->deferred = st->complete = st->waits = false;
    st->finished = st->closed = st->calling = false;
}

struct stream *stream_new(struct http2 *h, int32_t id) {
    struct stream *st = take_memory(h->session->lane->http2);
    if (!st) return NULL;
    clear(st);
    st->body.max = HTTP_BODY_MAX;
    st->body.wiped = true; /* it may bring a secret */
    st->out.max = CONN_ANSWERS_MAX;
    st->trailers.max = HTTP_HEAD_MAX;
    st->h = h;
    st->id = id;
    st->started_ms = uv_now(h->session->lane->loop);
    st->request.session = h->session;
    request_reset(&st->request);
    st->request.exchange.head.method = HTTP_GET;
    h->live++;
    link_last(st);
    return st;
}

/* Bytes that are no longer kept for the handler. */
static void drop_body(struct stream *st) {
    st->h->bodies -= st->body.size;
    if (st->body.at) sodium_memzero(st->body.at, st->body.size);
    buf_clear(&st->body);
}

static void drop_answer(struct stream *st) {
    st->h->answers -= queued(st);
    st->out_at = st->out.size;
}

static void no_longer_waits(struct stream *st) {
    if (st->waits) st->h->waiting--;
    st->waits = false;
}

/* Both sides are done with it. May free the session. */
static void maybe_free(struct stream *st) {
    struct http2 *h = st->h;
    if (!st->finished || !st->closed || st->calling) return;
    drop_answer(st);
    unlink_stream(st);
    give_memory(h->session->lane->http2, st);
    h->used_ms = uv_now(h->session->lane->loop);
    http2_maybe_free(h);
}

/* The handler is done: the request's bytes go. */
static void finish(struct stream *st) {
    struct exchange *x = &st->request.exchange;
    st->finished = true;
    st->h->live--;
    no_longer_waits(st);
    x->data = NULL;
    x->drained = NULL;
    for (unsigned i = 0; i < st->n_kept; i++)
        nghttp2_rcbuf_decref(st->kept[i]);
    st->n_kept = 0;
    drop_body(st);
    if (!st->closed) conn_touch(conn_of(st));
    maybe_free(st);
}

void stream_closed(struct stream *st) {
    struct exchange *x = &st->request.exchange;
    st->closed = true;
    drop_answer(st);
    no_longer_waits(st);
    x->data = NULL;
    if (!st->finished) {
        x->gone = true;
        st->calling = true;
        /* Nobody works on a request that has not been handed over. */
        if (!st->dispatched)
            finish(st);
        else if (x->drained)
            x->drained(x);
        st->calling = false;
    }
    maybe_free(st);
}

void stream_reset(struct stream *st, uint32_t code) {
    if (st->closed) return;
    (void)nghttp2_submit_rst_stream(st->h->frames, NGHTTP2_FLAG_NONE, st->id, code);
    conn_touch(conn_of(st));
}

/* nghttp2 only fails for want of memory here: the connection has no future. */
static bool check(const struct stream *st, int rc) {
    if (rc != 0) conn_close(conn_of(st), nghttp2_strerror(rc));
    return rc == 0;
}

/* --- the head ------------------------------------------------------------------------------- */

static void refuse_head(struct stream *st, enum err e, const char *text) {
    if (st->refused != OK) return;
    st->refused = e;
    st->refusal = text;
}

static bool equals(struct span text, const char *literal, size_t size) {
    return text.size == size && memcmp(text.at, literal, size) == 0;
}

#define IS(text, literal) equals(text, literal, sizeof(literal) - 1)

static void pseudo_header(struct stream *st, struct span name, struct span value) {
    struct http_head *head = &st->request.exchange.head;
    enum pseudo which = IS(name, ":method")      ? PSEUDO_METHOD
                        : IS(name, ":scheme")    ? PSEUDO_SCHEME
                        : IS(name, ":path")      ? PSEUDO_PATH
                        : IS(name, ":authority") ? PSEUDO_AUTHORITY
                                                 : 0;
    if (!which || (st->pseudo & which) || head->n > (st->pseudo & PSEUDO_AUTHORITY ? 1 : 0)) {
        refuse_head(st, ERR_PROTOCOL, "a pseudo-header is unknown, repeated or late");
        return;
    }
    st->pseudo |= which;
    if (which == PSEUDO_AUTHORITY) {
        head->headers[head->n++] = (struct http_header){.name = span_str("host"), .value = value};
    } else if (which == PSEUDO_METHOD) {
        if (http_parse_method(value, &head->method, NULL) != OK)
            refuse_head(st, ERR_UNSUPPORTED, "the method is not supported");
    } else if (which == PSEUDO_PATH && http_parse_target(value, head, NULL) != OK) {
        refuse_head(st, ERR_PROTOCOL, "the request's target is malformed");
    }
}

/* RFC 9113 8.2.2: what belongs to one connection of HTTP/1. */
static bool of_connection(struct span name, struct span value) {
    if (!memchr("ckptu", name.at[0], 5)) return false;
    return IS(name, "connection") || IS(name, "keep-alive") || IS(name, "proxy-connection") ||
           IS(name, "transfer-encoding") || IS(name, "upgrade") ||
           (IS(name, "te") && !http_is(value, "trailers"));
}

static void plain_header(struct stream *st, struct span name, struct span value) {
    struct http_head *head = &st->request.exchange.head;
    if (name.size == 0 || !http_all(name, HTTP_LOWER) || !http_all(value, HTTP_FIELD) ||
        of_connection(name, value)) {
        refuse_head(st, ERR_PROTOCOL, "a header is malformed");
    } else if (head->n == HTTP_HEADERS_MAX) {
        refuse_head(st, ERR_TOO_LARGE, "there are too many headers");
    } else if (IS(name, "content-length")) {
        if (head->has_length || http_parse_decimal(value, &head->length) != OK)
            refuse_head(st, ERR_PROTOCOL, "Content-Length is repeated or no number");
        head->has_length = true;
    }
    if (st->refused == OK)
        head->headers[head->n++] = (struct http_header){.name = name, .value = value};
}

static struct span keep(struct stream *st, nghttp2_rcbuf *bytes) {
    nghttp2_vec v = nghttp2_rcbuf_get_buf(bytes);
    nghttp2_rcbuf_incref(bytes);
    st->kept[st->n_kept++] = bytes;
    return span_of(v.base, v.len);
}

void stream_header(struct stream *st, nghttp2_rcbuf *name, nghttp2_rcbuf *value) {
    enum { OVERHEAD = 32 }; /* RFC 9113 10.5.1 */
    st->head_size += nghttp2_rcbuf_get_buf(name).len + nghttp2_rcbuf_get_buf(value).len + OVERHEAD;
    if (st->head_size > HTTP_HEAD_MAX) refuse_head(st, ERR_TOO_LARGE, "the head is too large");
    if (st->refused != OK || st->finished) return;
    if (st->n_kept + 2 > ARRAY_SIZE(st->kept)) {
        refuse_head(st, ERR_TOO_LARGE, "there are too many headers");
        return;
    }
    struct span n = keep(st, name), v = keep(st, value);
    if (n.size > 0 && n.at[0] == ':')
        pseudo_header(st, n, v);
    else
        plain_header(st, n, v);
}

static void dispatch(struct stream *st) {
    st->dispatched = true;
    st->calling = true;
    request_dispatch(&st->request);
    st->calling = false;
    maybe_free(st);
}

void stream_head_end(struct stream *st) {
    const unsigned needed = PSEUDO_METHOD | PSEUDO_SCHEME | PSEUDO_PATH;
    struct exchange *x = &st->request.exchange;
    if (st->finished) return; /* it came too slowly */
    if (st->refused == OK && (st->pseudo & needed) != needed)
        refuse_head(st, ERR_PROTOCOL, "a pseudo-header is missing");
    if (st->refused != OK) {
        exchange_error(x, st->refused, st->refusal);
        return;
    }
    st->headed = true;
    request_route(&st->request);
    st->feeds = !x->route || x->route->streams;
    if (st->feeds) dispatch(st);
}

/* --- the body ------------------------------------------------------------------------------- */

static void consume(const struct stream *st, size_t size) {
    if (!st->closed && size > 0)
        (void)check(st, nghttp2_session_consume_stream(st->h->frames, st->id, size));
}

/* The handler may finish the exchange meanwhile; the caller must not free the stream. */
static void give(struct stream *st, struct span bytes, bool end) {
    struct exchange *x = &st->request.exchange;
    st->end_given = end;
    bool more = !x->data || x->data(x, bytes, end) || end;
    st->held = !more && !st->finished;
    if (st->held)
        st->owed += bytes.size;
    else
        consume(st, bytes.size);
}

/* Nothing of this was asked for by a handler: it is answered, and the rest of it dropped. */
static void refuse(struct stream *st, enum err e, const char *text) {
    st->headed = true;
    exchange_error(&st->request.exchange, e, text);
}

void stream_too_slow(struct stream *st) {
    st->headed = true;
    exchange_answer(&st->request.exchange, 408, "text/plain",
                    span_str("the request did not come in time\n"));
}

static RESULT hold(struct stream *st, struct span bytes) {
    struct http2 *h = st->h;
    if (h->bodies + bytes.size > CONN_BODIES_MAX) return ERR_BUSY;
    TRY(buf_add_span(&st->body, bytes));
    h->bodies += bytes.size;
    return OK;
}

static void hold_whole(struct stream *st, struct span bytes) {
    enum err e = hold(st, bytes);
    if (e == ERR_TOO_LARGE)
        refuse(st, e, "the body is too large");
    else if (e != OK)
        refuse(st, e, e == ERR_BUSY ? "too much is being sent at once" : NULL);
}

/* Comes although the window is not opened: at most what is left of it. */
static void hold_more(struct stream *st, struct span bytes) {
    st->owed += bytes.size;
    if (hold(st, bytes) != OK) stream_reset(st, NGHTTP2_ENHANCE_YOUR_CALM);
}

void stream_bytes(struct stream *st, struct span bytes) {
    const struct http_head *head = &st->request.exchange.head;
    st->received += bytes.size;
    if (st->finished) {
        consume(st, bytes.size);
    } else if (head->has_length && st->received > head->length) {
        stream_reset(st, NGHTTP2_PROTOCOL_ERROR);
    } else if (!st->feeds) {
        hold_whole(st, bytes);
        consume(st, bytes.size);
    } else if (st->held) {
        hold_more(st, bytes);
    } else {
        st->calling = true;
        give(st, bytes, false);
        st->calling = false;
        maybe_free(st);
    }
}

void stream_end(struct stream *st) {
    struct exchange *x = &st->request.exchange;
    st->ended = true;
    if (st->finished) return;
    if (x->head.has_length && st->received != x->head.length) {
        stream_reset(st, NGHTTP2_PROTOCOL_ERROR);
    } else if (!st->feeds) {
        x->body = buf_span(&st->body);
        dispatch(st);
    } else if (!st->held) {
        st->calling = true;
        give(st, span_of(NULL, 0), true);
        st->calling = false;
        maybe_free(st);
    }
}

/* Gives what came meanwhile, as one piece. */
void stream_resume(struct exchange *x) {
    struct stream *st = stream_of(x);
    if (!st->held || st->closed) return;
    bool outermost = !st->calling;
    size_t owed = st->owed - st->body.size;
    st->held = false;
    st->owed = 0;
    consume(st, owed);
    conn_touch(conn_of(st));
    struct buf held = st->body;
    st->body = buf_new_wiped(HTTP_BODY_MAX);
    st->h->bodies -= held.size;
    st->calling = true;
    if (held.size > 0 || st->ended) give(st, buf_span(&held), st->ended);
    buf_wipe(&held);
    if (!outermost) return;
    st->calling = false;
    maybe_free(st);
}

/* --- the answer ----------------------------------------------------------------------------- */

bool stream_has_room(const struct stream *st) {
    return queued(st) <= ANSWER_QUEUE_MAX && st->h->answers <= CONN_OUT_MAX;
}

bool stream_stalls(const struct stream *st) {
    return !st->closed && queued(st) > 0 &&
           nghttp2_session_get_stream_remote_window_size(st->h->frames, st->id) <= 0;
}

void stream_wake(struct stream *st) {
    struct exchange *x = &st->request.exchange;
    no_longer_waits(st);
    if (x->drained) x->drained(x);
}

/* There is something to send again. */
static void go_on(struct stream *st) {
    if (st->closed) return;
    if (st->deferred) {
        st->deferred = false;
        (void)check(st, nghttp2_session_resume_data(st->h->frames, st->id));
    }
    conn_touch(conn_of(st));
}

static nghttp2_nv pair(const char *name, size_t name_size, const char *value, size_t size) {
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = name_size,
                        .valuelen = size,
                        .flags = NGHTTP2_NV_FLAG_NONE};
}

#define PAIR(name, value, size) pair(name, sizeof(name) - 1, value, size)

/* The client is told that this answer can't be had now; the exchange goes on into nothing. */
static enum err give_up(struct stream *st, uint32_t code) {
    stream_reset(st, code);
    st->request.exchange.gone = true;
    return ERR_CLOSED;
}

static RESULT add_answer(struct stream *st, struct span data) {
    struct http2 *h = st->h;
    struct buf *out = &st->out;
    if (h->answers + data.size > CONN_ANSWERS_MAX && data.size > ANSWER_ALWAYS)
        return give_up(st, NGHTTP2_ENHANCE_YOUR_CALM);
    if (st->out_at > out->size / 2 && out->room - out->size < data.size) {
        memmove(out->at, out->at + st->out_at, queued(st));
        out->size = queued(st);
        st->out_at = 0;
    }
    if (buf_add_span(out, data) != OK) return give_up(st, NGHTTP2_INTERNAL_ERROR);
    if (h->answers == 0) h->moved_ms = uv_now(h->session->lane->loop);
    if (queued(st) == data.size) st->moved_ms = uv_now(h->session->lane->loop);
    h->answers += data.size;
    return OK;
}

static bool submit(struct stream *st, const nghttp2_nv *list, size_t n, bool with_body) {
    nghttp2_data_provider provider = {.source.ptr = st, .read_callback = stream_read};
    st->answering = true;
    return check(
        st, nghttp2_submit_response(st->h->frames, st->id, list, n, with_body ? &provider : NULL));
}

/* What the handler wants in the head besides. */
static size_t more_headers(const struct exchange *x, nghttp2_nv *list) {
    for (unsigned i = 0; i < x->n_headers; i++)
        list[i] = pair((const char *)x->headers[i].name.at, x->headers[i].name.size,
                       (const char *)x->headers[i].value.at, x->headers[i].value.size);
    return x->n_headers;
}

void stream_answer(struct exchange *x, unsigned status, const char *content_type,
                   struct span body) {
    struct stream *st = stream_of(x);
    char code[8], length[24];
    int code_size = snprintf(code, sizeof code, "%u", status);
    int length_size = snprintf(length, sizeof length, "%zu", body.size);
    nghttp2_nv list[3 + ANSWER_HEADERS_MAX] = {PAIR(":status", code, (size_t)code_size),
                                               PAIR("content-length", length, (size_t)length_size)};
    size_t n = 2;
    if (content_type) list[n++] = PAIR("content-type", content_type, strlen(content_type));
    n += more_headers(x, list + n);
    bool with_body = body.size > 0 && x->head.method != HTTP_HEAD;
    if (!x->gone && (!with_body || add_answer(st, body) == OK))
        (void)submit(st, list, n, with_body);
    st->complete = true;
    finish(st);
}

RESULT stream_begin(struct exchange *x, const char *content_type) {
    struct stream *st = stream_of(x);
    if (x->gone) return ERR_CLOSED;
    nghttp2_nv list[2 + ANSWER_HEADERS_MAX] = {
        PAIR(":status", "200", 3), PAIR("content-type", content_type, strlen(content_type))};
    if (!submit(st, list, 2 + more_headers(x, list + 2), true)) return ERR_NOMEM;
    conn_touch(conn_of(st));
    return OK;
}

/* ERR_BUSY: it will be woken. */
RESULT stream_room(struct exchange *x) {
    struct stream *st = stream_of(x);
    struct http2 *h = st->h;
    if (x->gone) return ERR_CLOSED;
    if (stream_has_room(st)) return OK;
    if (!st->waits) {
        st->waits = true;
        h->waiting++;
        unlink_stream(st); /* in the order in which they began to wait */
        link_last(st);
    }
    return ERR_BUSY;
}

RESULT stream_write(struct exchange *x, struct span data) {
    struct stream *st = stream_of(x);
    if (x->gone) return ERR_CLOSED;
    TRY(add_answer(st, data));
    go_on(st);
    return stream_room(x);
}

void stream_finish(struct exchange *x, bool whole) {
    struct stream *st = stream_of(x);
    st->complete = true;
    if (!x->gone && (!whole || !st->answering))
        stream_reset(st, NGHTTP2_INTERNAL_ERROR);
    else if (!x->gone)
        go_on(st);
    finish(st);
}

/* An answer of trailers only: one frame says all. */
static void answer_in_head(struct stream *st, const struct http_header *trailers, unsigned n) {
    nghttp2_nv list[TRAILERS_MAX + 2] = {PAIR(":status", "200", 3)};
    size_t at = 1;
    bool typed = false;
    for (unsigned i = 0; i < n; i++)
        typed |= http_is(trailers[i].name, "content-type");
    if (!typed) list[at++] = PAIR("content-type", "application/grpc", 16);
    for (unsigned i = 0; i < n; i++)
        list[at++] = pair((const char *)trailers[i].name.at, trailers[i].name.size,
                          (const char *)trailers[i].value.at, trailers[i].value.size);
    (void)submit(st, list, at, false);
}

static RESULT keep_trailers(struct stream *st, const struct http_header *trailers, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        TRY(buf_block(&st->trailers, trailers[i].name));
        TRY(buf_block(&st->trailers, trailers[i].value));
    }
    st->n_trailers = n;
    return OK;
}

void stream_trailers(struct exchange *x, const struct http_header *trailers, unsigned n) {
    struct stream *st = stream_of(x);
    if (n > TRAILERS_MAX) n = TRAILERS_MAX;
    st->complete = true;
    if (!x->gone && !st->answering) {
        answer_in_head(st, trailers, n);
    } else if (!x->gone) {
        if (keep_trailers(st, trailers, n) != OK) stream_reset(st, NGHTTP2_INTERNAL_ERROR);
        go_on(st);
    }
    finish(st);
}

/* --- what nghttp2 asks for ------------------------------------------------------------------ */

/* Behind the last byte, so that they leave behind it. */
static int submit_trailers(const struct stream *st) {
    nghttp2_nv list[TRAILERS_MAX];
    struct cursor c = cursor_of(buf_span(&st->trailers));
    unsigned n = 0;
    for (; n < st->n_trailers; n++) {
        struct span name, value;
        if (cursor_block(&c, HTTP_HEAD_MAX, &name) != OK) break;
        if (cursor_block(&c, HTTP_HEAD_MAX, &value) != OK) break;
        list[n] = pair((const char *)name.at, name.size, (const char *)value.at, value.size);
    }
    return nghttp2_submit_trailer(st->h->frames, st->id, list, n);
}

ssize_t stream_read(nghttp2_session *frames, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                    nghttp2_data_source *source, void *ctx) {
    struct stream *st = source->ptr;
    size_t size = queued(st) < room ? queued(st) : room;
    (void)frames;
    (void)id;
    (void)to;
    (void)ctx;
    if (size == 0 && !st->complete) {
        st->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (!st->complete || size < queued(st)) return (ssize_t)size;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (st->n_trailers == 0) return (ssize_t)size;
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    return submit_trailers(st) == 0 ? (ssize_t)size : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* `head` are the nine bytes of the frame's; we never pad. */
int stream_send(nghttp2_session *frames, nghttp2_frame *frame, const uint8_t *head, size_t size,
                nghttp2_data_source *source, void *ctx) {
    enum { FRAME_HEAD = 9 };
    struct stream *st = source->ptr;
    struct http2 *h = ctx;
    struct conn *c = h->session->conn;
    (void)frames;
    (void)frame;
    h->blocked = conn_queued(c) > CONN_SEND_MAX;
    if (h->blocked) return NGHTTP2_ERR_WOULDBLOCK;
    if (conn_write(c, span_of(head, FRAME_HEAD)) != OK ||
        (size > 0 && conn_write(c, span_of(st->out.at + st->out_at, size)) != OK))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    st->out_at += size;
    h->answers -= size;
    h->control = 0;
    h->moved_ms = st->moved_ms = uv_now(h->session->lane->loop);
    if (st->out_at == st->out.size) {
        st->out_at = 0;
        buf_recycle(&st->out, CONN_ANSWERS_MAX);
    }
    return 0;
}
