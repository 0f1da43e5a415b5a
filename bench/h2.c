/* See h2.h: nghttp2 between calls and sockets that never block. */
#include "bench/h2.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PREFIX      5            /* bytes before a gRPC message */
#define MESSAGE_MAX (64U << 20)  /* gathered for one call */
#define WINDOW      (16 << 20)   /* bytes that the server may send ahead */
#define READ_SIZE   (256U << 10) /* at once */

struct h2_link {
    int fd;
    nghttp2_session *session;
    bool stalled;
    enum err error; /* what ended it */
    uint8_t *bytes; /* READ_SIZE */
};

struct h2_call {
    struct h2_link *link;
    int32_t id;         /* of the stream */
    struct buf out, in; /* not yet sent; of messages, not yet whole */
    size_t sent;        /* of out */
    bool last;          /* nothing follows what is in out */
    int status;         /* gRPC's; -1: none came */
    h2_message *got;
    void *ctx;
};

/* --- nghttp2's callbacks ---------------------------------------------------------------------- */

static void free_call(struct h2_call *c) {
    buf_free(&c->out);
    buf_free(&c->in);
    free(c);
}

static struct h2_call *call_of(nghttp2_session *s, int32_t id) {
    return nghttp2_session_get_stream_user_data(s, id);
}

static ssize_t read_out(nghttp2_session *s, int32_t id, uint8_t *at, size_t room, uint32_t *flags,
                        nghttp2_data_source *source, void *ctx) {
    struct h2_call *c = source->ptr;
    size_t n = c->out.size - c->sent < room ? c->out.size - c->sent : room;
    (void)s, (void)id, (void)ctx;
    if (n == 0 && !c->last) return NGHTTP2_ERR_DEFERRED;
    if (n != 0) memcpy(at, c->out.at + c->sent, n);
    c->sent += n;
    if (c->sent == c->out.size) {
        buf_clear(&c->out);
        c->sent = 0;
        if (c->last) *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)n;
}

static void messages_of(struct h2_call *c) {
    size_t at = 0;
    while (c->in.size - at >= PREFIX) {
        const uint8_t *p = c->in.at + at;
        size_t n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
        if (c->in.size - at - PREFIX < n) break;
        c->got(c->ctx, c, span_of(p + PREFIX, n), 0);
        at += PREFIX + n;
    }
    if (at == 0) return;
    memmove(c->in.at, c->in.at + at, c->in.size - at);
    c->in.size -= at;
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *at, size_t size,
                   void *ctx) {
    struct h2_link *l = ctx;
    struct h2_call *c = call_of(s, id);
    (void)flags;
    if (c == NULL) return 0;
    if (buf_add(&c->in, at, size) != OK) l->error = ERR_NOMEM;
    messages_of(c);
    return 0;
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t size,
                     const uint8_t *value, size_t value_size, uint8_t flags, void *ctx) {
    struct h2_call *c = call_of(s, f->hd.stream_id);
    (void)flags, (void)ctx;
    if (c == NULL || size != 11 || memcmp(name, "grpc-status", 11) != 0) return 0;
    c->status = 0;
    for (size_t i = 0; i < value_size; i++)
        c->status = 10 * c->status + (value[i] - '0');
    return 0;
}

static int on_close(nghttp2_session *s, int32_t id, uint32_t code, void *ctx) {
    struct h2_call *c = call_of(s, id);
    (void)code, (void)ctx;
    if (c == NULL) return 0;
    c->got(c->ctx, c, span_of(NULL, 0), c->status);
    free_call(c);
    return 0;
}

/* --- connections ------------------------------------------------------------------------------ */

static RESULT start_session(struct h2_link *l) {
    nghttp2_session_callbacks *calls;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    if (nghttp2_session_callbacks_new(&calls) != 0) return ERR_NOMEM;
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_data);
    nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_close);
    int rc = nghttp2_session_client_new(&l->session, calls, l);
    nghttp2_session_callbacks_del(calls);
    if (rc != 0) return ERR_NOMEM;
    rc = nghttp2_submit_settings(l->session, NGHTTP2_FLAG_NONE, settings, 1);
    if (rc == 0)
        rc = nghttp2_session_set_local_window_size(l->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
    return rc == 0 ? OK : ERR_NOMEM;
}

static RESULT dial(struct h2_link *l, unsigned port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&to, sizeof to) != 0) return ERR_UNREACHABLE;
    (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    l->bytes = malloc(READ_SIZE);
    return l->bytes == NULL ? ERR_NOMEM : start_session(l);
}

RESULT h2_connect(struct h2 *h, unsigned port, struct h2_link **out) {
    if (h->n == H2_LINKS_MAX) return ERR_BUSY;
    struct h2_link *l = calloc(1, sizeof *l);
    if (l == NULL) return ERR_NOMEM;
    h->links[h->n++] = l;
    TRY(dial(l, port));
    *out = l;
    return OK;
}

void h2_free(struct h2 *h) {
    for (unsigned i = 0; i < h->n; i++) {
        struct h2_link *l = h->links[i];
        nghttp2_session_del(l->session);
        if (l->fd >= 0) (void)close(l->fd);
        free(l->bytes);
        free(l);
    }
    h->n = 0;
}

void h2_stall(struct h2_link *l, bool stalled) { l->stalled = stalled; }

/* --- calls ------------------------------------------------------------------------------------ */

static nghttp2_nv header(const char *name, const char *value) {
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

RESULT h2_call(struct h2_link *l, const char *path, h2_message *got, void *ctx,
               struct h2_call **out) {
    struct h2_call *c = calloc(1, sizeof *c);
    if (c == NULL) return ERR_NOMEM;
    *c = (struct h2_call){.link = l, .status = -1, .got = got, .ctx = ctx};
    c->out = buf_new(MESSAGE_MAX);
    c->in = buf_new(MESSAGE_MAX);
    const nghttp2_nv headers[] = {
        header(":method", "POST"), header(":scheme", "http"),
        header(":path", path),     header(":authority", "localhost"),
        header("te", "trailers"),  header("content-type", "application/grpc"),
    };
    const nghttp2_data_provider body = {.source = {.ptr = c}, .read_callback = read_out};
    c->id = nghttp2_submit_request(l->session, NULL, headers, ARRAY_SIZE(headers), &body, c);
    if (c->id < 0) {
        free_call(c);
        return ERR_NOMEM;
    }
    *out = c;
    return OK;
}

RESULT h2_send(struct h2_call *c, struct span message, bool last) {
    uint8_t prefix[PREFIX] = {0};
    for (unsigned i = 0; i < 4; i++)
        prefix[1 + i] = (uint8_t)(message.size >> (24 - 8 * i));
    TRY(buf_add(&c->out, prefix, sizeof prefix));
    TRY(buf_add_span(&c->out, message));
    c->last = last;
    int rc = nghttp2_session_resume_data(c->link->session, c->id);
    return rc == 0 || rc == NGHTTP2_ERR_INVALID_ARGUMENT ? OK : ERR_INTERNAL; /* not deferred: OK */
}

/* --- the loop --------------------------------------------------------------------------------- */

static RESULT put_out(struct h2_link *l) {
    const uint8_t *at;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(l->session, &at)) > 0) {
        for (ssize_t done = 0; done < n;) {
            ssize_t more = send(l->fd, at + done, (size_t)(n - done), MSG_NOSIGNAL);
            if (more < 0 && errno != EINTR) return ERR_CLOSED;
            if (more > 0) done += more;
        }
    }
    return n < 0 ? ERR_PROTOCOL : l->error;
}

static RESULT take_in(struct h2_link *l) {
    for (;;) {
        ssize_t n = recv(l->fd, l->bytes, READ_SIZE, MSG_DONTWAIT);
        if (n == 0) return ERR_CLOSED;
        if (n < 0) return errno == EAGAIN || errno == EINTR ? l->error : ERR_CLOSED;
        if (nghttp2_session_mem_recv(l->session, l->bytes, (size_t)n) < 0) return ERR_PROTOCOL;
        if ((size_t)n < READ_SIZE) return l->error;
    }
}

RESULT h2_step(struct h2 *h, int ms) {
    struct pollfd fds[H2_LINKS_MAX];
    for (unsigned i = 0; i < h->n; i++) {
        TRY(put_out(h->links[i]));
        fds[i].fd = h->links[i]->stalled ? -1 : h->links[i]->fd;
        fds[i].events = POLLIN;
        fds[i].revents = 0;
    }
    if (poll(fds, h->n, ms) < 0 && errno != EINTR) return ERR_IO;
    for (unsigned i = 0; i < h->n; i++)
        if (fds[i].revents != 0) TRY(take_in(h->links[i]));
    return OK;
}
