/* See conn.h. Reading: one buffer on the stack of the callback's allocation, fed to TLS or appended
 * to `in`; when `in` has no room reading stops until the owner consumes. Writing: one uv_write at a
 * time; what is written meanwhile is collected and goes out together. */
#include "api/conn.h"

#include <stdlib.h>

static void on_closed(uv_handle_t *handle) {
    struct conn *c = handle->data;
    if (--c->handles > 0) return;
    c->events->closed(c, c->reason);
    tls_free(c->tls);
    buf_wipe(&c->in);
    buf_wipe(&c->out);
    buf_wipe(&c->sending);
    free(c);
}

void conn_close(struct conn *c, const char *reason) {
    if (c->closing) return;
    c->closing = true;
    (void)snprintf(c->reason, sizeof c->reason, "%s", reason);
    uv_close(&c->handle, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
}

static void on_timer(uv_timer_t *timer) {
    struct conn *c = timer->data;
    if (!c->closing) c->events->expired(c);
}

void conn_timeout(struct conn *c, uint64_t after_ms) {
    if (c->closing) return;
    if (after_ms == 0)
        (void)uv_timer_stop(&c->timer);
    else
        (void)uv_timer_start(&c->timer, on_timer, after_ms, 0);
}

size_t conn_queued(const struct conn *c) {
    size_t waiting = c->tls ? tls_pending(c->tls).size : c->out.size;
    return waiting + c->sending.size;
}

static void on_written(uv_write_t *write, int status) {
    struct conn *c = write->data;
    c->writing = false;
    buf_clear(&c->sending);
    if (c->closing) return;
    if (status < 0) {
        conn_close(c, uv_strerror(status));
        return;
    }
    if (conn_queued(c) > 0) {
        if (conn_flush(c) != OK) conn_close(c, "can't write");
    } else if (c->finishing) {
        conn_close(c, "");
    } else if (c->open) {
        c->events->drained(c);
    }
}

/* Moves what waits into `sending`. */
static RESULT collect(struct conn *c) {
    if (!c->tls) {
        struct buf empty = c->sending;
        c->sending = c->out;
        c->out = empty;
        return OK;
    }
    struct span waiting = tls_pending(c->tls);
    TRY(buf_add_span(&c->sending, waiting));
    tls_sent(c->tls, waiting.size);
    return OK;
}

RESULT conn_flush(struct conn *c) {
    if (c->closing) return ERR_CLOSED;
    if (c->writing) return OK;
    TRY(collect(c));
    if (c->sending.size == 0) return OK;
    uv_buf_t piece = uv_buf_init((char *)c->sending.at, (unsigned)c->sending.size);
    c->write.data = c;
    if (uv_write(&c->write, &c->stream, &piece, 1, on_written) != 0) return ERR_IO;
    c->writing = true;
    return OK;
}

RESULT conn_write(struct conn *c, struct span data) {
    if (c->closing) return ERR_CLOSED;
    if (conn_queued(c) + data.size > CONN_OUT_MAX) return ERR_BUSY;
    return c->tls ? tls_write(c->tls, data, NULL) : buf_add_span(&c->out, data);
}

void conn_finish(struct conn *c) {
    c->finishing = true;
    if (c->closing) return;
    if (c->tls && c->open) (void)!tls_shutdown(c->tls);
    if (conn_flush(c) != OK || !c->writing) conn_close(c, "");
}

static void open_it(struct conn *c) {
    c->open = true;
    if (c->tls && tls_peer(c->tls, &c->peer) != OK) c->peer = (struct x509_subject){0};
    c->events->opened(c);
}

/* Decrypts what has come; also drives the handshake. */
static RESULT feed_tls(struct conn *c, struct span wire, struct why *why) {
    bool open = c->open;
    TRY(tls_feed(c->tls, wire, why));
    enum err e = tls_read(c->tls, &c->in, &open, why);
    enum err flushed = conn_flush(c); /* alerts must go out even when reading failed */
    TRY(e);
    TRY(flushed);
    if (open && !c->open) open_it(c);
    return OK;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    (void)handle;
    (void)suggested;
    enum { READ_SIZE = 64 * 1024 };
    out->base = malloc(READ_SIZE);
    out->len = out->base ? READ_SIZE : 0;
}

static void take(struct conn *c, struct span wire) {
    struct why why = {0};
    enum err e = c->tls ? feed_tls(c, wire, &why) : buf_add_span(&c->in, wire);
    if (c->closing) return;
    if (e == ERR_CLOSED) {
        conn_close(c, "");
    } else if (e != OK) {
        conn_close(c, why.text[0] ? why.text : err_text(e));
    } else if (c->open && c->in.size > 0) {
        c->events->data(c);
    }
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *bytes) {
    struct conn *c = stream->data;
    if (!c->closing) {
        if (size > 0)
            take(c, span_of(bytes->base, (size_t)size));
        else if (size < 0)
            conn_close(c, size == UV_EOF ? "" : uv_strerror((int)size));
    }
    free(bytes->base);
    if (!c->closing && c->in.size + 128 * KIB > c->in.max) conn_pause(c);
}

void conn_pause(struct conn *c) {
    if (c->reading) (void)uv_read_stop(&c->stream);
    c->reading = false;
}

void conn_resume(struct conn *c) {
    if (c->reading || c->closing || c->in.size + 128 * KIB > c->in.max) return;
    int rc = uv_read_start(&c->stream, on_alloc, on_read);
    if (rc != 0) conn_close(c, uv_strerror(rc));
    c->reading = rc == 0;
}

void conn_consume(struct conn *c, size_t size) {
    memmove(c->in.at, c->in.at + size, c->in.size - size);
    c->in.size -= size;
    if (c->in.size == 0 && c->in.room > 256 * KIB) buf_wipe(&c->in);
}

static RESULT start_handles(struct conn *c, uv_stream_t *listener) {
    bool pipe = listener->type == UV_NAMED_PIPE;
    int rc =
        pipe ? uv_pipe_init(listener->loop, &c->pipe, 0) : uv_tcp_init(listener->loop, &c->tcp);
    if (rc != 0) return ERR_NOMEM;
    (void)uv_timer_init(listener->loop, &c->timer);
    c->handle.data = c;
    c->timer.data = c;
    c->handles = 2;
    return OK;
}

/* Until `opened` the owner knows nothing of the connection. */
static void on_refused(struct conn *c, const char *reason) {
    (void)c;
    (void)reason;
}

RESULT conn_accept(uv_stream_t *listener, struct tls_context *tls, const struct conn_events *events,
                   void *ctx, struct conn **out, struct why *why) {
    static const struct conn_events refused = {.closed = on_refused};
    struct conn *c = calloc(1, sizeof *c);
    if (!c || start_handles(c, listener) != OK) {
        free(c);
        return fail_with(why, ERR_NOMEM, "no memory for a connection");
    }
    c->events = &refused;
    c->in = buf_new(CONN_IN_MAX);
    c->out = buf_new(CONN_OUT_MAX);
    c->sending = buf_new(CONN_OUT_MAX + MIB);
    int rc = uv_accept(listener, &c->stream);
    enum err e = rc == 0 ? OK : fail_with(why, ERR_IO, "accept: %s", uv_strerror(rc));
    if (e == OK && tls) e = tls_new(tls, NULL, &c->tls, why);
    if (e != OK) {
        conn_close(c, "");
        return e;
    }
    if (listener->type == UV_TCP) (void)uv_tcp_nodelay(&c->tcp, 1);
    c->events = events;
    c->ctx = ctx;
    *out = c;
    return OK;
}
