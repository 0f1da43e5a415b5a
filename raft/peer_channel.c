/* One TLS connection over one socket: encrypted bytes in and out, whole frames to the owner.
 *
 * Happy path: a read into the shared buffer -> tls_feed -> tls_read into `plain` -> every whole
 * frame to the owner in place, the rest moved to the front. Out: channel_seal as often as wanted,
 * then one channel_flush, which tries to write at once; what the socket does not take is copied to
 * `wire`, so that TLS may go on using its memory, and written by libuv; until that has ended
 * nothing else is written.
 *
 * Failure: whatever goes wrong, `failed` is called at most once a connection (channel_close ends it
 * all); a TLS alert is sent before. Close: both handles are closed, then `gone`; nothing is called
 * in between. Invariant: the frame's length is checked before memory is taken for it; plain.max
 * bounds it; what was in a frame is wiped behind it. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/socket.h>

#include "raft/peer_internal.h"

#define KEEP_SIZE   (1 * MIB) /* a buffer that is empty gives back what is more */
#define KEEPALIVE_S 15        /* of silence, then the other side is probed */

RESULT channel_init(struct channel *c, struct channel_home *home, const struct channel_events *on,
                    struct tls_context *context, struct why *why) {
    TRY(tls_new(context, NULL, &c->tls, why));
    c->home = home;
    c->on = on;
    c->wire = buf_new(2 * SEND_AHEAD + JOINED_FRAME_MAX);
    c->plain.wiped = true;                  /* keys and secrets go through it */
    (void)uv_tcp_init(home->loop, &c->tcp); /* makes no socket yet: can't fail */
    (void)uv_timer_init(home->loop, &c->timer);
    c->tcp.data = c;
    c->timer.data = c;
    c->write.data = c;
    c->handles = 2;
    home->handles += 2;
    channel_accept_frames(c, HELLO_FRAME_MAX);
    return OK;
}

void channel_sessions(struct channel *c) {
    c->lean = true;
    c->wire.max = SESSION_QUEUE_MAX + SESSION_FRAME_MAX;
    channel_accept_frames(c, SESSION_FRAME_MAX);
}

void home_leave(struct channel_home *home) {
    if (--home->handles == 0) home->empty(home);
}

void channel_accept_frames(struct channel *c, size_t frame_max) {
    c->frame_max = frame_max;
    c->plain.max = frame_max + RECORD_SIZE;
}

void channel_fail(struct channel *c, enum err e, const char *text) {
    if (!c->closing) c->on->failed(c, e, text[0] != '\0' ? text : err_text(e));
}

static void fail_uv(struct channel *c, int status) {
    enum err e = status == UV_EOF ? ERR_CLOSED : err_from_errno(-status);
    channel_fail(c, e, status == UV_EOF ? "closed by the other side" : uv_strerror(status));
}

/* ---- in ---- */

static RESULT deliver(struct channel *c, struct why *why) {
    size_t at = 0;
    while (!c->closing && c->plain.size > at) {
        struct span rest = span_of(c->plain.at + at, c->plain.size - at);
        size_t size = 0;
        if (wire_frame_size(rest, &size) != OK || size > c->frame_max)
            return fail_with(why, ERR_PROTOCOL, "a frame that is longer than %zu bytes",
                             c->frame_max);
        if (size == 0 || size > rest.size) break;
        TRY(c->on->frame(c, span_of(rest.at, size), why));
        at += size;
    }
    if (at == 0) return OK;
    memmove(c->plain.at, c->plain.at + at, c->plain.size - at);
    c->plain.size -= at;
    sodium_memzero(c->plain.at + c->plain.size, at); /* it may have held a secret */
    return OK;
}

/* TLS as far as the bytes go. What was readable before an error is delivered before it. */
static RESULT advance(struct channel *c, struct why *why) {
    bool more = true;
    while (more && !c->closing) {
        size_t before = c->plain.size;
        bool open = c->open;
        enum err e = tls_read(c->tls, &c->plain, &open, why);
        more = c->plain.size != before;
        if (open && !c->open) {
            c->open = more = true;
            TRY(c->on->opened(c, why));
        }
        if (c->open && !c->closing) TRY(deliver(c, why));
        if (e != OK) return e;
    }
    return OK;
}

static void step(struct channel *c, struct span wire) {
    struct why why = {0};
    enum err e = wire.size == 0 ? OK : tls_feed(c->tls, wire, &why);
    if (e == OK) e = advance(c, &why);
    channel_flush(c); /* the handshake's next flight, a hello, or the alert that says why not */
    if (e != OK) channel_fail(c, e, why.text);
    if (!c->closing && c->plain.size == 0 && (c->lean || c->plain.room > KEEP_SIZE))
        buf_wipe(&c->plain);
}

static void give_buffer(uv_handle_t *h, size_t hint, uv_buf_t *out) {
    (void)hint;
    struct channel *c = h->data;
    *out = uv_buf_init(c->home->read, (unsigned)c->home->read_size);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    struct channel *c = s->data;
    if (c->closing || n == 0) return;
    if (n > 0 && c->counts != NULL) c->counts->received += (uint64_t)n;
    if (n < 0)
        fail_uv(c, (int)n);
    else
        step(c, span_of(b->base, (size_t)n));
}

/* Dead and stuck connections must end soon: the kernel alone would try for a quarter of an hour. */
static void set_options(struct channel *c) {
    int fd = -1;
    unsigned stall_ms = PEER_STALL_MS;
    (void)uv_tcp_nodelay(&c->tcp, 1);
    (void)uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_S);
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stall_ms, sizeof stall_ms);
}

void channel_start(struct channel *c) {
    struct sockaddr_storage from;
    int size = sizeof from;
    memset(&from, 0, sizeof from);
    (void)uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&from, &size);
    address_format((const struct sockaddr *)&from, c->remote);
    set_options(c);
    int e = uv_read_start((uv_stream_t *)&c->tcp, give_buffer, on_read);
    if (e != 0)
        fail_uv(c, e);
    else
        step(c, span_of(NULL, 0));
}

/* ---- out ---- */

RESULT channel_seal(struct channel *c, struct span plain, struct why *why) {
    return tls_write(c->tls, plain, why);
}

static void on_written(uv_write_t *w, int status) {
    struct channel *c = w->data;
    c->writing = false;
    if (c->lean || c->wire.room > KEEP_SIZE)
        buf_free(&c->wire);
    else
        buf_clear(&c->wire);
    if (c->closing) return;
    if (status != 0) {
        fail_uv(c, status);
        return;
    }
    channel_flush(c);
    if (!c->closing && !c->writing) c->on->drained(c);
}

/* The bytes that the socket did not take now. */
static void write_rest(struct channel *c) {
    struct span rest = tls_pending(c->tls);
    if (rest.size == 0) return;
    if (buf_add_span(&c->wire, rest) != OK) {
        channel_fail(c, ERR_NOMEM, "no memory for bytes to be sent");
        return;
    }
    tls_sent(c->tls, rest.size);
    if (c->counts != NULL) c->counts->sent += rest.size;
    uv_buf_t b = uv_buf_init((char *)c->wire.at, (unsigned)c->wire.size);
    int e = uv_write(&c->write, (uv_stream_t *)&c->tcp, &b, 1, on_written);
    c->writing = e == 0;
    if (e != 0) fail_uv(c, e);
}

void channel_flush(struct channel *c) {
    if (c->closing || c->writing) return;
    struct span out = tls_pending(c->tls);
    if (out.size == 0) return;
    size_t size = out.size < SEND_AHEAD * 4 ? out.size : SEND_AHEAD * 4;
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)out.at, (unsigned)size);
    int n = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
    if (n < 0 && n != UV_EAGAIN) {
        fail_uv(c, n);
        return;
    }
    if (n > 0) tls_sent(c->tls, (size_t)n);
    if (n > 0 && c->counts != NULL) c->counts->sent += (uint64_t)n;
    write_rest(c);
}

/* ---- end ---- */

static void on_deadline(uv_timer_t *t) {
    struct channel *c = t->data;
    channel_fail(c, ERR_TIMEOUT, "nothing was said in time");
}

void channel_deadline(struct channel *c, uint64_t ms) {
    if (c->closing) return;
    if (ms == 0)
        (void)uv_timer_stop(&c->timer);
    else
        (void)uv_timer_start(&c->timer, on_deadline, ms, 0);
}

static void on_closed(uv_handle_t *h) {
    struct channel *c = h->data;
    struct channel_home *home = c->home;
    if (--c->handles == 0) {
        tls_free(c->tls);
        buf_wipe(&c->plain); /* it may have held a join token */
        buf_free(&c->wire);
        c->on->gone(c);
    }
    home_leave(home);
}

void channel_close(struct channel *c) {
    if (c->closing) return;
    if (c->open && !c->writing && tls_shutdown(c->tls) == OK) {
        struct span out = tls_pending(c->tls);
        uv_buf_t b = uv_buf_init((char *)(uintptr_t)out.at, (unsigned)out.size);
        if (out.size != 0 && out.size <= SEND_AHEAD)
            (void)uv_try_write((uv_stream_t *)&c->tcp, &b, 1); /* a courtesy: it may fail */
    }
    c->closing = true;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
}
