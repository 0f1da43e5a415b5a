/* See client.h. The connection is a descriptor and perhaps a struct tls; every wait is a poll with
 * the request's deadline. An answer is read into `in` until its head and, unless it is streamed,
 * its body are whole. */
#include "api/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/json.h"
#include "raft/loop.h"

#define ANSWER_MAX (32 * MIB)

struct client {
    struct client_config config;
    struct tls_context *context; /* NULL: no TLS */
    struct address address;      /* of the endpoint */
    struct tls *tls;             /* of the connection */
    int fd;                      /* -1: not connected */
    struct clock clock;
    uint64_t deadline_ms; /* of the request under way */
    struct buf in;        /* received, not yet consumed */
    bool sent;            /* a byte of the request may have reached the server */
};

static void disconnect(struct client *c) {
    if (c->fd >= 0) (void)close(c->fd);
    c->fd = -1;
    tls_free(c->tls);
    c->tls = NULL;
    buf_wipe(&c->in);
}

static const char *place(const struct client *c) {
    return c->config.socket_path ? c->config.socket_path : c->config.endpoint;
}

static RESULT lost(const struct client *c, const char *text, struct why *why) {
    return fail_with(why, c->sent ? ERR_MAYBE_APPLIED : ERR_UNREACHABLE, "%s: %s", place(c), text);
}

static RESULT wait_for(struct client *c, short events, struct why *why) {
    for (;;) {
        uint64_t now = c->clock.now_ms(&c->clock);
        struct pollfd p = {.fd = c->fd, .events = events};
        if (now >= c->deadline_ms) return lost(c, "no answer in time", why);
        uint64_t left = c->deadline_ms - now;
        int n = poll(&p, 1, left < 60000 ? (int)left : 60000);
        if (n > 0) return OK;
        if (n < 0 && errno != EINTR) return lost(c, strerror(errno), why);
    }
}

static RESULT send_all(struct client *c, struct span data, struct why *why) {
    while (data.size > 0) {
        ssize_t n = send(c->fd, data.at, data.size, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            TRY(wait_for(c, POLLOUT, why));
            continue;
        }
        if (n < 0) return lost(c, strerror(errno), why);
        data = span_of(data.at + n, data.size - (size_t)n);
    }
    return OK;
}

static RESULT flush_tls(struct client *c, struct why *why) {
    struct span waiting = tls_pending(c->tls);
    TRY(send_all(c, waiting, why));
    tls_sent(c->tls, waiting.size);
    return OK;
}

/* One read of whatever is there, decrypted into `in`. */
static RESULT receive(struct client *c, bool *open, struct why *why) {
    uint8_t bytes[32 * 1024];
    ssize_t n;
    for (;;) {
        n = recv(c->fd, bytes, sizeof bytes, 0);
        if (n >= 0) break;
        if (errno != EAGAIN && errno != EINTR) return lost(c, strerror(errno), why);
        TRY(wait_for(c, POLLIN, why));
    }
    if (n == 0) return lost(c, "the server closed the connection", why);
    if (!c->tls) return buf_add(&c->in, bytes, (size_t)n);
    TRY(tls_feed(c->tls, span_of(bytes, (size_t)n), why));
    enum err e = tls_read(c->tls, &c->in, open, why);
    enum err flushed = flush_tls(c, NULL);
    if (e == ERR_CLOSED) return lost(c, "the server closed the connection", why);
    TRY(e);
    return flushed == OK ? OK : lost(c, "the connection broke", why);
}

/* --- connecting ----------------------------------------------------------------------------- */

static RESULT connect_unix(struct client *c, struct why *why) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t size = strlen(c->config.socket_path);
    if (size >= sizeof at.sun_path)
        return fail_with(why, ERR_INVALID, "%s: a socket's path has at most %zu bytes",
                         c->config.socket_path, sizeof at.sun_path - 1);
    memcpy(at.sun_path, c->config.socket_path, size);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return lost(c, strerror(errno), why);
    if (connect(c->fd, (const struct sockaddr *)&at, sizeof at) == 0) {
        int flags = fcntl(c->fd, F_GETFL); /* from here on the deadline bounds all waiting */
        return flags >= 0 && fcntl(c->fd, F_SETFL, flags | O_NONBLOCK) == 0
                   ? OK
                   : lost(c, strerror(errno), why);
    }
    if (errno == ENOENT || errno == ECONNREFUSED)
        return fail_with(
            why, ERR_UNREACHABLE,
            "no server runs on %s (conclave serve --data DIR; --data or CONCLAVE_DATA tells where)",
            c->config.socket_path);
    return lost(c, strerror(errno), why);
}

static RESULT connect_one(struct client *c, const struct addrinfo *a, struct why *why) {
    int broken = 0;
    socklen_t size = sizeof broken;
    if (c->fd >= 0) (void)close(c->fd);
    c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0) return lost(c, strerror(errno), why);
    if (connect(c->fd, a->ai_addr, a->ai_addrlen) == 0) return OK;
    if (errno != EINPROGRESS) return lost(c, strerror(errno), why);
    TRY(wait_for(c, POLLOUT, why));
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &broken, &size) != 0) broken = errno;
    return broken == 0 ? OK : lost(c, strerror(broken), why);
}

static RESULT connect_tcp(struct client *c, struct why *why) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;
    int rc = getaddrinfo(c->address.host, c->address.port, &hints, &all);
    if (rc != 0) return lost(c, gai_strerror(rc), why);
    enum err e = ERR_UNREACHABLE;
    for (const struct addrinfo *a = all; a && e != OK; a = a->ai_next)
        e = connect_one(c, a, why);
    freeaddrinfo(all);
    return e;
}

static RESULT shake_hands(struct client *c, struct why *why) {
    bool open = false;
    TRY(tls_new(c->context, c->address.host, &c->tls, why));
    TRY(tls_read(c->tls, &c->in, &open, why)); /* makes the first message */
    TRY(flush_tls(c, why));
    while (!open)
        TRY(receive(c, &open, why));
    return OK;
}

static RESULT connect_it(struct client *c, struct why *why) {
    if (c->fd >= 0) return OK;
    c->in = buf_new_wiped(ANSWER_MAX); /* a value may come this way */
    enum err e = c->config.socket_path ? connect_unix(c, why) : connect_tcp(c, why);
    if (e == OK && c->context) e = shake_hands(c, why);
    if (e != OK) disconnect(c);
    return e;
}

/* --- a request ------------------------------------------------------------------------------ */

static RESULT send_request(struct client *c, const struct client_request *r, struct why *why) {
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE"};
    struct buf head = buf_new(8 * KIB);
    enum err e = buf_format(&head,
                            "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: conclave/" CONCLAVE_VERSION
                            "\r\nContent-Length: %zu\r\n%s\r\n",
                            methods[r->method], r->path,
                            c->config.socket_path ? "localhost" : c->config.endpoint, r->body.size,
                            r->headers ? r->headers : "");
    c->sent = true;
    if (e == OK && c->tls) {
        e = tls_write(c->tls, buf_span(&head), why);
        if (e == OK && r->body.size > 0) e = tls_write(c->tls, r->body, why);
        if (e == OK) e = flush_tls(c, why);
    } else if (e == OK) {
        e = send_all(c, buf_span(&head), why);
        if (e == OK) e = send_all(c, r->body, why);
    }
    buf_free(&head);
    return e;
}

static void consume(struct client *c, size_t size) {
    memmove(c->in.at, c->in.at + size, c->in.size - size);
    c->in.size -= size;
}

static RESULT read_head(struct client *c, struct http_head *head, struct why *why) {
    size_t used = 0;
    bool open = true;
    for (;;) {
        TRY(http_parse_response(buf_span(&c->in), head, &used, why));
        if (used > 0 && head->status >= 200) break;
        if (used > 0)
            consume(c, used); /* an interim answer */
        else
            TRY(receive(c, &open, why));
    }
    consume(c, used); /* spans of the head are dead now; its numbers are kept */
    head->n = 0;
    return OK;
}

static RESULT read_plain(struct client *c, const struct http_head *head, struct buf *answer,
                         struct why *why) {
    bool open = true;
    if (head->length > ANSWER_MAX)
        return fail_with(why, ERR_TOO_LARGE, "%s: the answer is too large", place(c));
    while (c->in.size < head->length)
        TRY(receive(c, &open, why));
    TRY(buf_add(answer, c->in.at, (size_t)head->length));
    consume(c, (size_t)head->length);
    return OK;
}

static RESULT read_chunked(struct client *c, const struct client_request *r, struct buf *answer,
                           struct why *why) {
    struct http_chunks chunks = {0};
    struct buf piece = buf_new_wiped(ANSWER_MAX);
    bool done = false, open = true;
    enum err e = OK;
    while (e == OK && !done) {
        struct cursor in = cursor_of(buf_span(&c->in));
        e = http_chunks_read(&chunks, &in, &piece, &done);
        consume(c, c->in.size - in.left);
        if (e == OK && piece.size > 0)
            e = r->piece ? r->piece(r->ctx, buf_span(&piece))
                         : buf_add_span(answer, buf_span(&piece));
        buf_clear(&piece);
        c->deadline_ms = c->clock.now_ms(&c->clock) + r->timeout_ms;
        if (e == OK && !done) e = receive(c, &open, why);
    }
    buf_wipe(&piece);
    return e;
}

static enum err by_name(const char *name) {
    for (int e = OK + 1; e < ERR_COUNT; e++)
        if (strcmp(name, err_name((enum err)e)) == 0) return (enum err)e;
    return ERR_INTERNAL;
}

static RESULT server_error(unsigned status, struct span body, struct why *why) {
    json_t *json = NULL;
    if (jin_parse(body, &json, NULL) != OK)
        return fail_with(why, ERR_PROTOCOL, "the server answers with status %u", status);
    enum err e = by_name(jin_string(json, "name"));
    const char *message = jin_string(json, "message");
    (void)fail_with(why, e, "%s", message[0] ? message : err_text(e));
    json_decref(json);
    return e;
}

static RESULT exchange(struct client *c, const struct client_request *r, struct buf *answer,
                       struct why *why) {
    struct http_head head;
    TRY(connect_it(c, why));
    TRY(send_request(c, r, why));
    TRY(read_head(c, &head, why));
    bool good = head.status / 100 == 2 || r->status;
    if (r->status) *r->status = head.status;
    struct buf refusal = buf_new(ANSWER_MAX); /* or an answer that nobody wants */
    struct buf *body = good && answer ? answer : &refusal;
    struct client_request plain = *r;
    if (!good) plain.piece = NULL;
    enum err e =
        head.chunked ? read_chunked(c, &plain, body, why) : read_plain(c, &head, body, why);
    if (e == OK && !head.keep_alive) disconnect(c);
    if (e == OK && !good) {
        e = server_error(head.status, buf_span(&refusal), why);
        buf_free(&refusal);
        return e;
    }
    buf_free(&refusal);
    if (e != OK) disconnect(c);
    return e;
}

RESULT client_call(struct client *c, const struct client_request *r, struct buf *answer,
                   struct why *why) {
    size_t before = answer ? answer->size : 0;
    c->sent = false;
    c->deadline_ms = c->clock.now_ms(&c->clock) + r->timeout_ms;
    enum err e = exchange(c, r, answer, why);
    bool broken = e != OK && c->fd >= 0 &&
                  (e == ERR_MAYBE_APPLIED || e == ERR_UNREACHABLE || e == ERR_PROTOCOL);
    if (broken) disconnect(c);
    if (answer && e != OK) answer->size = before;
    return e;
}

/* --- opening -------------------------------------------------------------------------------- */

static RESULT read_pem(const char *path, struct buf *out, struct why *why) {
    TRY(buf_reserve(out, PEM_MAX));
    FILE *f = fopen(path, "re");
    if (!f) return fail_with(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    out->size = fread(out->at, 1, PEM_MAX, f);
    bool good = !ferror(f) && out->size > 0 && out->size < PEM_MAX;
    (void)fclose(f);
    return good ? OK : fail_with(why, ERR_INVALID, "%s: not a PEM file", path);
}

static const char *const alpn[] = {"http/1.1", NULL};

static RESULT make_foreign(struct client *c, struct why *why) {
    struct tls_config config = {.verify = TLS_VERIFY_REQUIRED,
                                .root_pem = c->config.root_pem,
                                .cert_pem = c->config.cert_pem,
                                .key_pem = c->config.key_pem,
                                .alpn = alpn,
                                .tls12 = true,
                                .foreign_root = true};
    return tls_context_new(&config, &c->context, why);
}

static RESULT make_context(struct client *c, struct why *why) {
    struct buf root = buf_new(PEM_MAX), cert = buf_new(PEM_MAX), key = buf_new(PEM_MAX);
    struct secret *secret = NULL;
    enum err e = read_pem(c->config.cacert, &root, why);
    if (e == OK && c->config.cert) e = read_pem(c->config.cert, &cert, why);
    if (e == OK && c->config.cert) e = read_pem(c->config.key, &key, why);
    if (e == OK && c->config.cert) e = secret_new(key.at, key.size, &secret);
    struct tls_config config = {.verify = TLS_VERIFY_REQUIRED,
                                .root_pem = buf_span(&root),
                                .cert_pem = buf_span(&cert),
                                .key_pem = secret,
                                .alpn = alpn};
    if (e == OK) e = tls_context_new(&config, &c->context, why);
    secret_free(secret);
    buf_wipe(&key);
    buf_free(&cert);
    buf_free(&root);
    return e;
}

RESULT client_open(const struct client_config *config, struct client **out, struct why *why) {
    struct client *c = calloc(1, sizeof *c);
    if (!c) return fail_with(why, ERR_NOMEM, "no memory for the client");
    c->config = *config;
    c->fd = -1;
    clock_real(&c->clock);
    enum err e = OK;
    if (!config->socket_path) e = address_split(config->endpoint, &c->address, why);
    if (e == OK && config->root_pem.size > 0)
        e = make_foreign(c, why);
    else if (e == OK && !config->socket_path && config->cacert)
        e = make_context(c, why);
    if (e != OK)
        client_close(c);
    else
        *out = c;
    return e;
}

void client_close(struct client *c) {
    if (!c) return;
    disconnect(c);
    if (c->context) tls_context_release(c->context);
    free(c);
}
