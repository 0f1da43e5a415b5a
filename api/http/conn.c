/* See conn.h. Reading: the kernel fills the loop's one scratch buffer, which is fed to TLS or
 * appended to `in`; when `in` has no room reading stops until the owner consumes. Writing: what is
 * written in a turn collects in `out`; at the turn's end it is encrypted as one piece and offered
 * to the kernel, and what the kernel does not take waits in `sending` as the one write under way.
 * The timer is lazy: moving the deadline costs a store, and the timer that fires too early is set
 * again. */
#include "api/http/conn.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#define READ_SIZE  (256 * 1024) /* given to the kernel at once */
#define OUT_KEEP   (16 * KIB)   /* an empty buffer gives back what is more */
#define ROUNDS_MAX 4            /* of flushing in one turn */

static void untouch(struct conn *c) {
    if (!c->link) return;
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    c->link = NULL;
}

static void on_closed(uv_handle_t *handle) {
    struct conn *c = handle->data;
    if (--c->handles > 0) return;
    untouch(c);
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

/* --- the timer ------------------------------------------------------------------------------ */

/* The sooner of two times; 0: never. */
static uint64_t sooner(uint64_t a, uint64_t b) {
    if (!a || !b) return a ? a : b;
    return a < b ? a : b;
}

/* When somebody must look: a deadline, the end, or whether the peer still takes bytes. */
static uint64_t next_look(const struct conn *c) {
    uint64_t stall = c->writing ? c->moved_ms + c->all->stall_ms : 0;
    return sooner(sooner(c->deadline_ms, c->end_ms), stall);
}

static void on_timer(uv_timer_t *timer);

static void arm(struct conn *c) {
    uint64_t at = next_look(c), now = uv_now(c->all->loop);
    if (at == 0 || c->closing) return;
    if (uv_is_active((uv_handle_t *)&c->timer) &&
        uv_timer_get_due_in(&c->timer) <= (at > now ? at - now : 0))
        return;
    (void)uv_timer_start(&c->timer, on_timer, at > now ? at - now : 0, 0);
}

/* Has the peer taken nothing of the write under way for too long? */
static bool stalled(struct conn *c, uint64_t now) {
    if (!c->writing) return false;
    size_t left = uv_stream_get_write_queue_size(&c->stream);
    if (left != c->left) c->moved_ms = now;
    c->left = left;
    return now >= c->moved_ms + c->all->stall_ms;
}

static void on_timer(uv_timer_t *timer) {
    struct conn *c = timer->data;
    uint64_t now = uv_now(c->all->loop);
    if (c->closing) return;
    if (stalled(c, now)) {
        conn_close(c, "it takes nothing of what is sent to it");
    } else if (c->end_ms && now >= c->end_ms) {
        conn_close(c, "its time is over");
    } else if (c->deadline_ms && now >= c->deadline_ms) {
        c->deadline_ms = 0;
        if (c->lingering)
            conn_close(c, "");
        else
            c->events->expired(c);
    }
    arm(c);
}

void conn_timeout(struct conn *c, uint64_t after_ms) {
    c->deadline_ms = after_ms ? uv_now(c->all->loop) + after_ms : 0;
    arm(c);
}

void conn_end(struct conn *c, uint64_t after_ms) {
    c->end_ms = uv_now(c->all->loop) + after_ms;
    arm(c);
}

/* --- writing -------------------------------------------------------------------------------- */

size_t conn_queued(const struct conn *c) {
    size_t encrypted = c->tls ? tls_pending(c->tls).size : 0;
    return c->out.size + encrypted + c->sending.size;
}

static void on_written(uv_write_t *write, int status) {
    struct conn *c = write->data;
    c->writing = false;
    buf_clear(&c->sending);
    if (c->sending.room > OUT_KEEP) buf_wipe(&c->sending);
    if (c->closing) return;
    if (status < 0)
        conn_close(c, uv_strerror(status));
    else
        conn_touch(c);
}

/* What the kernel did not take at once. */
static RESULT send_later(struct conn *c, struct span rest) {
    TRY(buf_add_span(&c->sending, rest));
    uv_buf_t piece = uv_buf_init((char *)c->sending.at, (unsigned)c->sending.size);
    c->write.data = c;
    if (uv_write(&c->write, &c->stream, &piece, 1, on_written) != 0) return ERR_IO;
    c->writing = true;
    c->left = c->sending.size;
    c->moved_ms = uv_now(c->all->loop);
    arm(c);
    return OK;
}

static RESULT send_now(struct conn *c, struct span data) {
    uv_buf_t piece = uv_buf_init((char *)(uintptr_t)data.at, (unsigned)data.size);
    int n = uv_try_write(&c->stream, &piece, 1);
    if (n < 0 && n != UV_EAGAIN) return ERR_IO;
    size_t taken = n > 0 ? (size_t)n : 0;
    return taken == data.size ? OK : send_later(c, span_of(data.at + taken, data.size - taken));
}

static RESULT flush_plain(struct conn *c) {
    if (c->out.size == 0) return OK;
    enum err e = send_now(c, buf_span(&c->out));
    buf_clear(&c->out);
    if (c->out.room > OUT_KEEP) buf_wipe(&c->out);
    return e;
}

static RESULT flush_tls(struct conn *c) {
    if (c->out.size > 0) TRY(tls_write(c->tls, buf_span(&c->out), NULL));
    buf_clear(&c->out);
    if (c->out.room > OUT_KEEP) buf_wipe(&c->out);
    struct span waiting = tls_pending(c->tls);
    if (waiting.size == 0) return OK;
    enum err e = send_now(c, waiting);
    tls_sent(c->tls, waiting.size);
    return e;
}

static RESULT flush(struct conn *c) {
    if (c->closing) return ERR_CLOSED;
    if (c->writing) return OK;
    return c->tls ? flush_tls(c) : flush_plain(c);
}

RESULT conn_write(struct conn *c, struct span data) {
    if (c->closing) return ERR_CLOSED;
    if (conn_queued(c) + data.size > CONN_OUT_MAX) return ERR_BUSY;
    TRY(buf_add_span(&c->out, data));
    conn_touch(c);
    return OK;
}

void conn_finish(struct conn *c) {
    c->finishing = true;
    conn_touch(c);
}

/* The last that is sent is the end of TLS, behind what was written. */
static RESULT say_goodbye(struct conn *c) {
    if (!c->tls || !c->open) return OK;
    TRY(flush(c));
    if (!c->writing && tls_shutdown(c->tls) == OK) return flush(c);
    return OK;
}

/* --- the turn's end ------------------------------------------------------------------------- */

static void on_prepare(uv_prepare_t *prepare);
static void on_idle(uv_idle_t *idle) { (void)idle; }

void conn_touch(struct conn *c) {
    struct conns *all = c->all;
    if (c->link || c->closing) return;
    if (!all->touched) (void)uv_prepare_start(&all->prepare, on_prepare);
    c->next = all->touched;
    c->link = &all->touched;
    if (c->next) c->next->link = &c->next;
    all->touched = c;
}

/* We have said all; what the peer may still say is heard, and dropped. */
static void linger(struct conn *c) {
    uv_os_fd_t fd;
    if (c->lingering) return;
    c->lingering = true;
    buf_wipe(&c->in);
    if (uv_fileno(&c->handle, &fd) != 0 || shutdown(fd, SHUT_WR) != 0) {
        conn_close(c, "");
        return;
    }
    conn_timeout(c, LINGER_MS);
    conn_resume(c);
}

static void flush_one(struct conn *c) {
    if (c->lingering) return;
    if (c->open && c->events->fill) c->events->fill(c);
    enum err e = c->finishing ? say_goodbye(c) : OK;
    if (e == OK) e = flush(c);
    if (c->closing || c->writing) return;
    if (e != OK)
        conn_close(c, "can't write");
    else if (c->finishing)
        linger(c);
    else if (c->open)
        c->events->drained(c);
}

/* What is touched while this runs is looked at in the next round, up to ROUNDS_MAX of them. */
static void on_prepare(uv_prepare_t *prepare) {
    struct conns *all = prepare->data;
    for (int round = 0; round < ROUNDS_MAX && all->touched; round++) {
        struct conn *due = all->touched;
        all->touched = NULL;
        due->link = &due;
        while (due) {
            struct conn *c = due;
            untouch(c);
            if (!c->closing) flush_one(c);
        }
    }
    if (all->touched) {
        (void)uv_idle_start(&all->idle, on_idle);
        return;
    }
    (void)uv_idle_stop(&all->idle);
    (void)uv_prepare_stop(prepare);
}

static void on_handle_closed(uv_handle_t *handle) {
    struct conns *all = handle->data;
    if (--all->handles > 0) return;
    free(all->scratch);
    all->gone(all, all->ctx);
}

static void on_spare_closed(uv_handle_t *handle) {
    struct conns *all = handle->data;
    all->spare_used = false;
    for (size_t i = 0; i < ARRAY_SIZE(all->unaccepted); i++) {
        uv_stream_t *listener = all->unaccepted[i];
        all->unaccepted[i] = NULL;
        if (listener && !uv_is_closing((uv_handle_t *)listener)) conn_refuse(all, listener);
    }
    on_handle_closed(handle);
}

void conn_refuse(struct conns *all, uv_stream_t *listener) {
    bool pipe = listener->type == UV_NAMED_PIPE;
    if (all->spare_used) {
        all->unaccepted[pipe ? 0 : 1] = listener;
        return;
    }
    if (pipe)
        (void)uv_pipe_init(all->loop, &all->spare.pipe, 0);
    else
        (void)uv_tcp_init(all->loop, &all->spare.tcp);
    all->spare.handle.data = all;
    all->spare_used = true;
    all->handles++;
    (void)uv_accept(listener, &all->spare.stream);
    uv_close(&all->spare.handle, on_spare_closed);
}

RESULT conns_open(uv_loop_t *loop, uint64_t stall_ms, struct conns *out, struct why *why) {
    *out = (struct conns){.loop = loop, .stall_ms = stall_ms, .scratch = malloc(READ_SIZE)};
    if (!out->scratch) return fail_with(why, ERR_NOMEM, "no memory for the server");
    (void)uv_prepare_init(loop, &out->prepare);
    (void)uv_idle_init(loop, &out->idle);
    out->prepare.data = out->idle.data = out;
    out->handles = 2;
    return OK;
}

void conns_close(struct conns *all, void (*gone)(struct conns *all, void *ctx), void *ctx) {
    all->gone = gone;
    all->ctx = ctx;
    uv_close((uv_handle_t *)&all->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&all->idle, on_handle_closed);
}

/* --- reading -------------------------------------------------------------------------------- */

static void open_it(struct conn *c) {
    c->open = true;
    enum err e = c->tls ? tls_peer(c->tls, &c->peer) : ERR_NOT_FOUND;
    c->certified = e != ERR_NOT_FOUND;
    if (e != OK) c->peer = (struct x509_subject){0};
    c->events->opened(c);
}

/* Decrypts what has come; also drives the handshake. */
static RESULT feed_tls(struct conn *c, struct span wire, struct why *why) {
    bool open = c->open;
    TRY(tls_feed(c->tls, wire, why));
    enum err e = tls_read(c->tls, &c->in, &open, why);
    enum err flushed = flush(c); /* alerts must go out even when reading failed */
    TRY(e);
    TRY(flushed);
    if (open && !c->open) open_it(c);
    return OK;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    const struct conn *c = handle->data;
    (void)suggested;
    *out = uv_buf_init((char *)c->all->scratch, READ_SIZE);
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

static bool has_room(const struct conn *c) { return c->in.size + 2 * READ_SIZE <= c->in.max; }

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *bytes) {
    struct conn *c = stream->data;
    if (c->closing || (c->lingering && size >= 0)) return;
    if (size > 0) {
        take(c, span_of(bytes->base, (size_t)size));
        sodium_memzero(bytes->base, (size_t)size); /* a request may bring a secret */
    } else if (size < 0)
        conn_close(c, size == UV_EOF ? "" : uv_strerror((int)size));
    if (!c->closing && !has_room(c)) conn_pause(c);
}

void conn_pause(struct conn *c) {
    if (c->reading) (void)uv_read_stop(&c->stream);
    c->reading = false;
}

void conn_resume(struct conn *c) {
    if (c->reading || c->closing || !has_room(c)) return;
    int rc = uv_read_start(&c->stream, on_alloc, on_read);
    if (rc != 0) conn_close(c, uv_strerror(rc));
    c->reading = rc == 0;
}

void conn_consume(struct conn *c, size_t size) {
    if (size < c->in.size) memmove(c->in.at, c->in.at + size, c->in.size - size);
    c->in.size -= size;
    if (size > 0) sodium_memzero(c->in.at + c->in.size, size);
    if (c->in.size == 0 && c->in.room > OUT_KEEP) buf_wipe(&c->in);
}

/* --- accepting ------------------------------------------------------------------------------ */

static RESULT start_handles(struct conn *c, bool pipe) {
    uv_loop_t *loop = c->all->loop;
    int rc = pipe ? uv_pipe_init(loop, &c->pipe, 0) : uv_tcp_init(loop, &c->tcp);
    if (rc != 0) return ERR_NOMEM;
    (void)uv_timer_init(loop, &c->timer);
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

static struct conn *conn_new(struct conns *all, bool pipe) {
    static const struct conn_events refused = {.closed = on_refused};
    struct conn *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->all = all;
    c->events = &refused;
    c->in = buf_new_wiped(CONN_IN_MAX);
    c->out = buf_new(CONN_OUT_MAX);
    c->sending = buf_new(CONN_OUT_MAX + MIB);
    if (start_handles(c, pipe) == OK) return c;
    free(c);
    return NULL;
}

static void conn_begin(struct conn *c, const struct conn_events *events, void *ctx) {
    if (c->handle.type == UV_TCP) (void)uv_tcp_nodelay(&c->tcp, 1);
    c->events = events;
    c->ctx = ctx;
}

RESULT conn_accept(struct conns *all, uv_stream_t *listener, struct tls_context *tls,
                   const struct conn_events *events, void *ctx, struct conn **out,
                   struct why *why) {
    struct conn *c = conn_new(all, listener->type == UV_NAMED_PIPE);
    if (!c) {
        conn_refuse(all, listener);
        return fail_with(why, ERR_NOMEM, "no memory for a connection");
    }
    int rc = uv_accept(listener, &c->stream);
    enum err e = rc == 0 ? OK : fail_with(why, ERR_IO, "accept: %s", uv_strerror(rc));
    if (e == OK && tls) e = tls_new(tls, NULL, &c->tls, why);
    if (e != OK) {
        conn_close(c, "");
        return e;
    }
    conn_begin(c, events, ctx);
    *out = c;
    return OK;
}

RESULT conn_adopt(struct conns *all, int fd, bool pipe, struct tls *tls,
                  const struct conn_events *events, void *ctx, struct conn **out, struct why *why) {
    struct conn *c = conn_new(all, pipe);
    int rc = !c ? UV_ENOMEM : pipe ? uv_pipe_open(&c->pipe, fd) : uv_tcp_open(&c->tcp, fd);
    if (rc != 0) {
        (void)close(fd);
        tls_free(tls);
        if (c) conn_close(c, "");
        return fail_with(why, ERR_IO, "a connection was lost: %s", uv_strerror(rc));
    }
    c->tls = tls;
    conn_begin(c, events, ctx);
    *out = c;
    return OK;
}
