/* A session of HTTP/1.1: one request at a time, as the parser of http.h reads it.
 *
 *   head -> body -> waiting (a handler has the exchange) -> head ...
 *     `---> waiting, while the body still comes (a route with `streams`)
 *
 * While a handler has the whole of a request the connection is paused, so that its bytes don't
 * move. One that takes longer than times.wait is set aside and the connection read on, so that it
 * is seen when the client leaves, and the handler is told. So a client that ends its half of the
 * connection behind its request (`nc -N`) gets an answer that comes within this time; later it
 * counts as having left, as with nginx and Go's net/http. A route that takes its body as it comes
 * gets a copy of the head instead, and the connection is read on, also behind the body. Answers
 * collect in the connection and leave at the turn's end. A request that is answered before its body
 * has come ends the connection, for nobody knows where the next one would begin. */
#include <stdlib.h>

#include <sodium.h>

#include "api/http/session.h"

enum http1_state { HTTP1_HEAD, HTTP1_BODY, HTTP1_WAITING };

struct http1 {
    struct request request; /* first: the one under way */
    enum http1_state state;
    size_t head_size;          /* of the head in conn->in; 0 once it is in `head` */
    struct http_chunks chunks; /* a chunked body under way */
    struct buf body;           /* its data */
    struct buf head;           /* of a request whose body is given as it comes */
    struct buf kept;    /* what was conn->in: the request lies in it, that waits or is left */
    uint64_t body_left; /* of a body with a length, given as it comes */
    size_t giving;      /* bytes of conn->in that the handler looks at right now */
    unsigned serial;    /* of the request: a handler may have finished it */
    bool feeding;       /* the body is given as it comes, and there is more of it */
    bool held;          /* the handler wants it to wait */
    bool streaming;     /* the answer has begun */
    bool waits;         /* its source does, for room */
    bool in_data;       /* on_data is on the stack */
    bool timed;         /* the request's deadline runs */
};

static struct http1 *http1_of(struct exchange *x) { return (struct http1 *)(void *)x; }

static void free_all(struct http1 *h) {
    struct session *s = h->request.session;
    buf_wipe(&h->body);
    buf_wipe(&h->head);
    buf_wipe(&h->kept);
    free(h);
    session_free(s);
}

static void on_data(struct session *s);

/* What of conn->in is the request's. */
static size_t request_size(const struct http1 *h) {
    const struct http_head *head = &h->request.exchange.head;
    if (h->kept.size > 0) return 0;
    return h->head_size + h->giving +
           (head->chunked || h->head.size > 0 ? 0 : (size_t)head->length);
}

/* Bytes of the request are dropped; the next one may already be there. */
static void next_request(struct http1 *h) {
    struct session *s = h->request.session;
    struct conn *c = s->conn;
    conn_consume(c, request_size(h));
    h->state = HTTP1_HEAD;
    h->head_size = h->giving = 0;
    h->timed = h->streaming = h->waits = h->held = h->feeding = false;
    h->serial++;
    buf_wipe(&h->body);
    buf_wipe(&h->head);
    buf_wipe(&h->kept);
    h->chunks = (struct http_chunks){0};
    request_reset(&h->request);
    conn_timeout(c, s->server->config.times.idle);
    conn_resume(c);
    if (c->in.size > 0 && !h->in_data) on_data(s);
}

/* Is there more of the request's body to come? */
static bool unread(const struct http1 *h) {
    return h->feeding && (h->request.exchange.head.chunked || h->body_left > 0);
}

static void done(struct http1 *h) {
    struct session *s = h->request.session;
    struct conn *c = s->conn;
    if (!c) {
        free_all(h);
        return;
    }
    if (h->request.exchange.head.keep_alive && !unread(h) && !s->lane->closing) {
        next_request(h);
        return;
    }
    h->state = HTTP1_HEAD;
    h->serial++;
    h->feeding = false;
    conn_pause(c);
    conn_timeout(c, s->server->config.times.request); /* for the client to take its answer */
    conn_finish(c);
}

/* --- answers -------------------------------------------------------------------------------- */

static RESULT write_head(struct http1 *h, struct http_answer *answer) {
    struct buf head = buf_new(4 * KIB);
    answer->headers = h->request.exchange.headers;
    answer->n_headers = h->request.exchange.n_headers;
    enum err e = http_write_answer(&head, answer);
    if (e == OK) e = conn_write(h->request.session->conn, buf_span(&head));
    buf_free(&head);
    return e;
}

static bool closes(const struct http1 *h) {
    return !h->request.exchange.head.keep_alive || unread(h) || h->request.session->lane->closing;
}

static void answer(struct exchange *x, unsigned status, const char *content_type,
                   struct span body) {
    struct http1 *h = http1_of(x);
    struct http_answer a = {
        .status = status, .content_type = content_type, .length = body.size, .close = closes(h)};
    enum err e = x->gone ? OK : write_head(h, &a);
    if (e == OK && !x->gone && x->head.method != HTTP_HEAD)
        e = conn_write(h->request.session->conn, body);
    if (e != OK) x->head.keep_alive = false;
    done(h);
}

static RESULT begin_stream(struct exchange *x, const char *content_type) {
    struct http1 *h = http1_of(x);
    struct http_answer a = {
        .status = 200, .content_type = content_type, .chunked = true, .close = closes(h)};
    h->streaming = true;
    if (x->gone) return ERR_CLOSED;
    return write_head(h, &a);
}

static RESULT write_piece(struct exchange *x, struct span data) {
    struct http1 *h = http1_of(x);
    struct conn *c = h->request.session->conn;
    if (x->gone) return ERR_CLOSED;
    if (data.size == 0) return OK; /* an empty chunk would be the last */
    struct buf chunk = buf_new(data.size + 64);
    enum err e = http_write_chunk(&chunk, data);
    if (e == OK) e = conn_write(c, buf_span(&chunk));
    if (e == ERR_BUSY) e = ERR_TOO_LARGE; /* not written: the source did not wait */
    buf_wipe(&chunk);
    h->waits = e == OK && conn_queued(c) > ANSWER_QUEUE_MAX;
    return h->waits ? ERR_BUSY : e; /* written, but wait */
}

static void end(struct exchange *x, bool whole) {
    struct http1 *h = http1_of(x);
    x->drained = NULL;
    x->data = NULL;
    if (!x->gone && whole) {
        struct buf chunk = buf_new(64);
        whole = http_write_chunk(&chunk, span_of(NULL, 0)) == OK &&
                conn_write(h->request.session->conn, buf_span(&chunk)) == OK;
        buf_free(&chunk);
    }
    if (!x->gone && !whole) {
        h->state = HTTP1_HEAD;
        h->serial++;
        h->feeding = false;
        conn_close(h->request.session->conn, "a streamed answer was cut");
        return;
    }
    done(h);
}

static void trailers(struct exchange *x, const struct http_header *list, unsigned n) {
    (void)list;
    (void)n;
    if (http1_of(x)->streaming)
        end(x, true);
    else
        answer(x, 200, NULL, span_of(NULL, 0));
}

/* --- requests ------------------------------------------------------------------------------- */

/* A request that can't be understood is answered and ends the connection. */
static void refuse(struct http1 *h, enum err e, const char *text) {
    struct exchange *x = &h->request.exchange;
    x->head.keep_alive = false;
    x->head.length = 0;
    h->state = HTTP1_WAITING;
    conn_pause(h->request.session->conn);
    exchange_error(x, e, text);
}

/* The request is whole: hands it over. */
static void dispatch(struct http1 *h) {
    h->state = HTTP1_WAITING;
    conn_pause(h->request.session->conn);
    conn_timeout(h->request.session->conn, h->request.session->server->config.times.wait);
    request_dispatch(&h->request);
}

/* It is not answered yet: its bytes stay where they are, and the connection gets another buffer for
 * what comes behind. Who takes an answer is there. */
static void set_aside(struct http1 *h) {
    struct conn *c = h->request.session->conn;
    struct buf behind = buf_new_wiped(CONN_IN_MAX);
    size_t size = request_size(h);
    if (conn_queued(c) > 0 || buf_add(&behind, c->in.at + size, c->in.size - size) != OK) {
        conn_timeout(c, h->request.session->server->config.times.wait);
        return;
    }
    h->kept = c->in;
    c->in = behind;
    conn_resume(c);
}

/* The head is copied aside, so that the body can come and go in `in`. */
static RESULT begin_feeding(struct http1 *h, struct why *why) {
    struct exchange *x = &h->request.exchange;
    struct conn *c = h->request.session->conn;
    size_t used;
    h->head = buf_new(HTTP_HEAD_MAX);
    TRY(buf_add(&h->head, c->in.at, h->head_size));
    TRY(http_parse_request(buf_span(&h->head), &x->head, &used, why));
    conn_consume(c, h->head_size);
    h->head_size = 0;
    h->body_left = x->head.length;
    h->feeding = true;
    h->state = HTTP1_WAITING;
    conn_timeout(c, 0);
    request_dispatch(&h->request);
    return OK;
}

static RESULT read_head(struct http1 *h, struct why *why) {
    struct exchange *x = &h->request.exchange;
    struct session *s = h->request.session;
    TRY(http_parse_request(buf_span(&s->conn->in), &x->head, &h->head_size, why));
    if (!h->timed) conn_timeout(s->conn, s->server->config.times.request);
    h->timed = true;
    if (h->head_size == 0) return OK;
    request_route(&h->request);
    bool streams = x->route && x->route->streams;
    if (x->head.length > HTTP_BODY_MAX && !streams)
        return fail_with(why, ERR_TOO_LARGE, "the body passes %llu bytes", HTTP_BODY_MAX);
    if (x->head.expect) TRY(conn_write(s->conn, span_str("HTTP/1.1 100 Continue\r\n\r\n")));
    h->body = buf_new_wiped(HTTP_BODY_MAX);
    if (streams) return begin_feeding(h, why);
    h->state = HTTP1_BODY;
    return OK;
}

/* Data of a chunked body that is in `in` behind `from` goes to `body`; what is left moves up. */
static RESULT unchunk(struct http1 *h, size_t from, bool *whole, struct why *why) {
    struct buf *in = &h->request.session->conn->in;
    struct cursor c = cursor_of(span_of(in->at + from, in->size - from));
    enum err e = http_chunks_read(&h->chunks, &c, &h->body, whole);
    if (e != OK)
        return fail_with(why, e,
                         e == ERR_TOO_LARGE ? "the body is too large" : "a malformed chunk");
    size_t left = c.left;
    memmove(in->at + from, in->at + in->size - left, left);
    sodium_memzero(in->at + from + left, in->size - from - left);
    in->size = from + left;
    return OK;
}

/* *whole: the body is there. `in` may have moved since the head was parsed: then it is parsed
 * again. */
static RESULT read_body(struct http1 *h, bool *whole, struct why *why) {
    struct exchange *x = &h->request.exchange;
    struct buf *in = &h->request.session->conn->in;
    *whole = false;
    if (x->head.chunked) {
        TRY(unchunk(h, h->head_size, whole, why));
    } else {
        *whole = in->size >= h->head_size + (size_t)x->head.length;
    }
    if (!*whole) return OK;
    TRY(http_parse_request(buf_span(in), &x->head, &h->head_size, why));
    x->body = x->head.chunked ? buf_span(&h->body)
                              : span_of(in->at + h->head_size, (size_t)x->head.length);
    return OK;
}

/* Gives a piece of the body; the handler may finish the exchange meanwhile. */
static void give(struct http1 *h, struct span piece, bool last) {
    struct exchange *x = &h->request.exchange;
    h->feeding = !last;
    if (x->data && !x->data(x, piece, last) && !last) h->held = true;
}

/* What has come of a body that is given as it comes. */
static RESULT feed(struct http1 *h, struct why *why) {
    struct exchange *x = &h->request.exchange;
    struct conn *c = h->request.session->conn;
    bool whole = false;
    if (x->head.chunked) {
        buf_clear(&h->body);
        TRY(unchunk(h, 0, &whole, why));
        if (h->body.size > 0 || whole) give(h, buf_span(&h->body), whole);
        return OK;
    }
    size_t size = c->in.size < h->body_left ? c->in.size : (size_t)h->body_left;
    h->body_left -= size;
    h->giving = size;
    give(h, span_of(c->in.at, size), h->body_left == 0);
    conn_consume(c, h->giving);
    h->giving = 0;
    return OK;
}

static void resume(struct exchange *x) {
    struct http1 *h = http1_of(x);
    if (!h->held || x->gone) return;
    h->held = false;
    conn_resume(h->request.session->conn);
    if (!h->in_data) on_data(h->request.session);
}

/* A body that breaks off can't be answered any more where an answer has begun. */
static void broken(struct http1 *h, enum err e, const char *text) {
    if (h->state == HTTP1_WAITING)
        conn_close(h->request.session->conn, text[0] ? text : err_text(e));
    else
        refuse(h, e, text);
}

/* One step; false: more bytes are needed. */
static bool step(struct http1 *h) {
    struct conn *c = h->request.session->conn;
    struct why why = {0};
    bool whole = false;
    enum http1_state before = h->state;
    unsigned serial = h->serial;
    size_t size_before = c->in.size;
    enum err e = before == HTTP1_HEAD   ? read_head(h, &why)
                 : before == HTTP1_BODY ? read_body(h, &whole, &why)
                                        : feed(h, &why);
    if (e != OK)
        broken(h, e, why.text);
    else if (whole)
        dispatch(h);
    return h->serial != serial || h->state != before || c->in.size != size_before;
}

/* An empty body is whole without any byte. */
static bool has_work(const struct http1 *h) {
    const struct conn *c = h->request.session->conn;
    if (c->closing || c->finishing) return false;
    if (h->state == HTTP1_WAITING)
        return h->feeding && !h->held &&
               (c->in.size > 0 || (h->body_left == 0 && !h->request.exchange.head.chunked));
    return c->in.size > 0 && conn_queued(c) <= CONN_SEND_MAX; /* or when the client has read */
}

static void on_data(struct session *s) {
    struct http1 *h = s->state;
    h->in_data = true; /* what is answered inside comes back here through the loop, not the stack */
    /* Only the loop parts a session from its connection, so no answer given here frees it.
     * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    while (has_work(h) && step(h)) {
    }
    h->in_data = false;
    bool enough = h->kept.size > 0 && s->conn->in.size > HTTP_HEAD_MAX;
    if ((h->held || enough) && !s->conn->closing) conn_pause(s->conn);
}

/* --- the connection ------------------------------------------------------------------------- */

static RESULT start(struct session *s) {
    struct http1 *h = calloc(1, sizeof *h);
    if (!h) return ERR_NOMEM;
    h->request.session = s;
    s->state = h;
    request_reset(&h->request);
    return OK;
}

static void on_drained(struct session *s) {
    struct http1 *h = s->state;
    struct exchange *x = &h->request.exchange;
    if (h->waits) {
        h->waits = false;
        if (x->drained) x->drained(x);
    } else if (h->state != HTTP1_WAITING && s->conn->in.size > 0) {
        on_data(s);
    }
}

static void on_expired(struct session *s) {
    struct http1 *h = s->state;
    if (h->state == HTTP1_WAITING)
        set_aside(h);
    else
        conn_close(s->conn, "timed out");
}

static void on_fill(struct session *s) { (void)s; }

static void on_left(struct session *s, struct buf *in) {
    struct http1 *h = s->state;
    struct exchange *x = &h->request.exchange;
    if (h->kept.size == 0) {
        h->kept = *in;
        *in = buf_new(0);
    }
    x->gone = true;
    x->data = NULL;
    if (h->state != HTTP1_WAITING)
        free_all(h);
    else if (x->drained)
        x->drained(x);
}

static void on_stop(struct session *s) {
    const struct http1 *h = s->state;
    if (h->state != HTTP1_WAITING) conn_close(s->conn, "");
}

/* One answer at a time: there is nothing that it could wait for. */
static RESULT room(struct exchange *x) { return x->gone ? ERR_CLOSED : OK; }

const struct protocol http1_protocol = {.start = start,
                                        .data = on_data,
                                        .fill = on_fill,
                                        .drained = on_drained,
                                        .expired = on_expired,
                                        .stop = on_stop,
                                        .left = on_left,
                                        .answer = answer,
                                        .stream = begin_stream,
                                        .write = write_piece,
                                        .room = room,
                                        .end = end,
                                        .resume = resume,
                                        .trailers = trailers};
