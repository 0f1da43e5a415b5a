/* The implementation of h2.h: frames are made by hand, heads by nghttp2's packer. */
#include "tests/lib/h2.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/fault.h"

#define HEAD 9 /* bytes of a frame's */

static void listen_for(struct h2 *c);

static uint32_t number(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_number(uint8_t *at, uint32_t n) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(n >> (24 - 8 * i));
}

/* --- sending -------------------------------------------------------------------------------- */

static void flush(struct h2 *c) {
    if (c->closed) return;
    if (c->tls && c->tls_open && c->plain.size > 0) {
        assert(tls_write(c->tls, buf_span(&c->plain), NULL) == OK);
        buf_clear(&c->plain);
    }
    if (c->tls) {
        struct span waiting = tls_pending(c->tls);
        assert(buf_add_span(&c->out, waiting) == OK);
        tls_sent(c->tls, waiting.size);
    }
    while (c->out.size > 0) {
        ssize_t n = send(c->fd, c->out.at, c->out.size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN) c->closed = true;
        if (n <= 0) break;
        memmove(c->out.at, c->out.at + n, c->out.size - (size_t)n);
        c->out.size -= (size_t)n;
    }
    listen_for(c);
}

void h2_bytes(struct h2 *c, const void *at, size_t size) {
    assert(buf_add(c->tls ? &c->plain : &c->out, at, size) == OK);
    flush(c);
}

void h2_frame(struct h2 *c, enum h2_type type, uint8_t flags, int32_t id, const void *at,
              size_t size) {
    uint8_t head[HEAD] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, (uint8_t)type,
                          flags};
    put_number(head + 5, (uint32_t)id);
    assert(buf_add(c->tls ? &c->plain : &c->out, head, sizeof head) == OK);
    h2_bytes(c, at, size);
}

static nghttp2_nv pair(const char *name, const char *value) {
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

void h2_request(struct h2 *c, int32_t id, const char *method, const char *path,
                const char *const *more, bool end) {
    nghttp2_nv list[128] = {pair(":method", method), pair(":scheme", "http"), pair(":path", path),
                            pair(":authority", "localhost")};
    size_t n = 4;
    for (; more && more[0] && n < ARRAY_SIZE(list); more += 2)
        list[n++] = pair(more[0], more[1]);
    uint8_t block[16384];
    ssize_t size = nghttp2_hd_deflate_hd(c->packer, block, sizeof block, list, n);
    assert(size > 0);
    h2_frame(c, H2_HEADERS, H2_END_HEADERS | (end ? H2_END_STREAM : 0), id, block, (size_t)size);
}

void h2_data(struct h2 *c, int32_t id, const void *at, size_t size, bool end) {
    const uint8_t *from = at;
    do {
        size_t piece = size < 16384 ? size : 16384;
        h2_frame(c, H2_DATA, end && piece == size ? H2_END_STREAM : 0, id, from, piece);
        if (from) from += piece;
        size -= piece;
    } while (size > 0);
}

void h2_window(struct h2 *c, int32_t id, uint32_t more) {
    uint8_t bytes[4];
    put_number(bytes, more);
    h2_frame(c, H2_WINDOW, 0, id, bytes, sizeof bytes);
}

/* --- receiving ------------------------------------------------------------------------------ */

static struct h2_stream *stream(struct h2 *c, uint32_t id) {
    assert(id / 2 < H2_STREAMS);
    return &c->streams[id / 2];
}

const struct h2_stream *h2_stream(const struct h2 *c, int32_t id) { return &c->streams[id / 2]; }

static void copy(char *to, size_t room, const uint8_t *at, size_t size) {
    (void)snprintf(to, room, "%.*s", (int)size, (const char *)at);
}

static void take_head(struct h2 *c, struct h2_stream *st, const uint8_t *at, size_t size) {
    st->heads++;
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t n = nghttp2_hd_inflate_hd2(c->unpacker, &nv, &flags, at, size, 1);
        assert(n >= 0);
        at += n;
        size -= (size_t)n;
        char value[64];
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            copy(value, sizeof value, nv.value, nv.valuelen);
            if (nv.namelen == 7 && memcmp(nv.name, ":status", 7) == 0)
                st->status = (unsigned)strtoul(value, NULL, 10);
            if (nv.namelen == 12 && memcmp(nv.name, "content-type", 12) == 0)
                copy(st->type, sizeof st->type, nv.value, nv.valuelen);
            if (nv.namelen == 11 && memcmp(nv.name, "grpc-status", 11) == 0)
                copy(st->grpc_status, sizeof st->grpc_status, nv.value, nv.valuelen);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) break;
    }
    assert(nghttp2_hd_inflate_end_headers(c->unpacker) == 0);
}

static void take_data(struct h2 *c, struct h2_stream *st, uint32_t id, const uint8_t *at,
                      size_t size) {
    if (st->size < sizeof st->text - 1) {
        size_t room = sizeof st->text - 1 - st->size;
        memcpy(st->text + st->size, at, size < room ? size : room);
    }
    st->size += size;
    if (c->stingy || size == 0) return;
    h2_window(c, 0, (uint32_t)size);
    h2_window(c, (int32_t)id, (uint32_t)size);
}

static void take_frame(struct h2 *c, const uint8_t *head, const uint8_t *at, size_t size) {
    enum h2_type type = (enum h2_type)head[3];
    uint8_t flags = head[4];
    uint32_t id = number(head + 5) & 0x7fffffff;
    struct h2_stream *st = stream(c, id);
    bool end = (type == H2_HEADERS || type == H2_DATA) && (flags & H2_END_STREAM);
    if (type == H2_HEADERS) take_head(c, st, at, size);
    if (type == H2_DATA) take_data(c, st, id, at, size);
    if (type == H2_RST) {
        st->reset = true;
        st->code = number(at);
    }
    if (type == H2_SETTINGS && (flags & H2_ACK)) c->acks++;
    if (type == H2_SETTINGS && !(flags & H2_ACK)) {
        c->settings++;
        h2_frame(c, H2_SETTINGS, H2_ACK, 0, NULL, 0);
    }
    if (type == H2_PING && (flags & H2_ACK)) c->pongs++;
    if (type == H2_PING && !(flags & H2_ACK)) {
        c->pings++;
        if (!c->mute) h2_frame(c, H2_PING, H2_ACK, 0, at, size);
    }
    if (type == H2_WINDOW) c->windows++;
    if (type == H2_GOAWAY) {
        c->goaway = true;
        c->last = (int32_t)number(at);
        c->code = number(at + 4);
    }
    if ((end || type == H2_RST) && !st->ended) {
        st->ended = true;
        c->answered++;
    }
}

static void take_frames(struct h2 *c) {
    size_t at = 0;
    while (c->in.size - at >= HEAD) {
        const uint8_t *head = c->in.at + at;
        size_t size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        if (c->in.size - at < HEAD + size) break;
        take_frame(c, head, head + HEAD, size);
        at += HEAD + size;
    }
    if (at == 0) return;
    memmove(c->in.at, c->in.at + at, c->in.size - at);
    c->in.size -= at;
}

static void take_bytes(struct h2 *c, const uint8_t *at, size_t size) {
    enum err e = OK;
    if (c->tls) {
        e = tls_feed(c->tls, span_of(at, size), NULL);
        if (e == OK) e = tls_read(c->tls, &c->in, &c->tls_open, NULL);
        if (e != OK) c->closed = true;
    } else {
        assert(buf_add(&c->in, at, size) == OK);
    }
    take_frames(c);
    flush(c);
}

static void on_event(uv_poll_t *poll, int status, int events) {
    struct h2 *c = poll->data;
    static uint8_t bytes[65536];
    fault_alloc_pause();
    if (status < 0) c->closed = true;
    if (events & UV_READABLE) {
        ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0) take_bytes(c, bytes, (size_t)n);
        if (n == 0 || (n < 0 && errno != EAGAIN)) c->closed = true;
    }
    flush(c);
    listen_for(c);
    fault_alloc_resume();
}

static void listen_for(struct h2 *c) {
    int events = (c->deaf ? 0 : UV_READABLE) | (c->out.size > 0 ? UV_WRITABLE : 0);
    if (events && !c->closed)
        (void)uv_poll_start(&c->poll, events, on_event);
    else
        (void)uv_poll_stop(&c->poll);
}

void h2_listen(struct h2 *c, bool deaf) {
    c->deaf = deaf;
    listen_for(c);
}

/* --- life ----------------------------------------------------------------------------------- */

void h2_open(struct h2 *c, struct web *w, int fd, struct tls_context *tls) {
    *c = (struct h2){.web = w,
                     .fd = fd,
                     .plain = buf_new(256 * MIB),
                     .in = buf_new(256 * MIB),
                     .out = buf_new(256 * MIB)};
    assert(nghttp2_hd_deflate_new(&c->packer, 4096) == 0);
    assert(nghttp2_hd_inflate_new(&c->unpacker) == 0);
    assert(uv_poll_init(&w->loop, &c->poll, fd) == 0);
    c->poll.data = c;
    if (tls) {
        assert(tls_new(tls, NULL, &c->tls, NULL) == OK);
        assert(tls_read(c->tls, &c->in, &c->tls_open, NULL) == OK);
    }
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    h2_bytes(c, preface, sizeof preface - 1);
    h2_frame(c, H2_SETTINGS, 0, 0, NULL, 0);
}

static void on_poll_closed(uv_handle_t *handle) { handle->data = NULL; }

void h2_close(struct h2 *c) {
    uv_close((uv_handle_t *)&c->poll, on_poll_closed);
    while (c->poll.data)
        web_turn(c->web);
    (void)close(c->fd);
    tls_free(c->tls);
    nghttp2_hd_deflate_del(c->packer);
    nghttp2_hd_inflate_del(c->unpacker);
    buf_free(&c->plain);
    buf_free(&c->in);
    buf_free(&c->out);
}
