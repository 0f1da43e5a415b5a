/* The asker's side of joining, blocking, with a deadline. A newcomer knows an address and the
 * digest of the cluster's root, nothing else.
 *
 * Two connections. The first trusts nobody and says nothing: it only takes the root certificate
 * that the server shows, and checks its digest against the token's. The second trusts that root,
 * like any member would, and must meet a manager; only then the token's secret leaves this machine.
 * A member that does not lead answers with the leader's address; it is asked next, under the same
 * root. A node that knows the roots already, to renew or to come back, begins with the second, and
 * shows its certificate while it has a good one. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "raft/loop.h"
#include "raft/peer_internal.h"

#define REDIRECTS_MAX 8
#define PLAIN_MAX     (JOINED_FRAME_MAX + 16 * KIB)

struct dialog {
    char address[ADDRESS_MAX]; /* whom we ask */
    uint64_t deadline_ms;      /* of the clock below */
    struct clock clock;
    int fd;          /* -1: none */
    struct tls *tls; /* NULL: none */
};

static RESULT timed_out(const struct dialog *c, struct why *why) {
    return fail_with(why, ERR_TIMEOUT, "%s: no answer in time", c->address);
}

static RESULT lost(const struct dialog *c, int os_error, struct why *why) {
    return fail_with(why, ERR_UNREACHABLE, "%s: %s", c->address, strerror(os_error));
}

/* ---- the socket ---- */

static RESULT wait_for(struct dialog *c, short events, struct why *why) {
    for (;;) {
        uint64_t now = c->clock.now_ms(&c->clock);
        if (now >= c->deadline_ms) return timed_out(c, why);
        uint64_t left = c->deadline_ms - now;
        struct pollfd p = {.fd = c->fd, .events = events};
        int n = poll(&p, 1, left < 60000 ? (int)left : 60000);
        if (n > 0) return OK;
        if (n < 0 && errno != EINTR) return lost(c, errno, why);
    }
}

static RESULT connect_to(struct dialog *c, const struct addrinfo *a, struct why *why) {
    int e = 0, on = 1;
    socklen_t size = sizeof e;
    c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0) return lost(c, errno, why);
    /* The request follows the handshake's last record, and neither waits for the other's ACK. */
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, a->ai_addr, a->ai_addrlen) == 0) return OK;
    if (errno != EINPROGRESS) return lost(c, errno, why);
    TRY(wait_for(c, POLLOUT, why));
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &size) != 0) e = errno;
    return e == 0 ? OK : lost(c, e, why);
}

static void hang_up(struct dialog *c) {
    tls_free(c->tls);
    c->tls = NULL;
    if (c->fd >= 0) (void)close(c->fd);
    c->fd = -1;
}

/* Each address that the name has, until one takes the connection. */
static RESULT connect_any(struct dialog *c, struct why *why) {
    struct address a;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    TRY(address_split(c->address, &a, why));
    int e = getaddrinfo(a.host, a.port, &hints, &found);
    if (e != 0) return fail_with(why, ERR_UNREACHABLE, "%s: %s", c->address, gai_strerror(e));
    enum err result = ERR_UNREACHABLE;
    for (const struct addrinfo *at = found; at != NULL && result == ERR_UNREACHABLE;
         at = at->ai_next) {
        hang_up(c);
        result = connect_to(c, at, why);
    }
    freeaddrinfo(found);
    return result;
}

/* ---- TLS over it ---- */

static RESULT push(struct dialog *c, struct why *why) {
    for (;;) {
        struct span out = tls_pending(c->tls);
        if (out.size == 0) return OK;
        ssize_t n = send(c->fd, out.at, out.size, MSG_NOSIGNAL);
        if (n > 0)
            tls_sent(c->tls, (size_t)n);
        else if (errno == EAGAIN)
            TRY(wait_for(c, POLLOUT, why));
        else if (errno != EINTR)
            return lost(c, errno, why);
    }
}

static RESULT pull(struct dialog *c, struct why *why) {
    uint8_t wire[16 * KIB];
    for (;;) {
        TRY(wait_for(c, POLLIN, why));
        ssize_t n = recv(c->fd, wire, sizeof wire, 0);
        if (n > 0) return tls_feed(c->tls, span_of(wire, (size_t)n), why);
        if (n == 0)
            return fail_with(why, ERR_UNREACHABLE, "%s closed the connection without an answer",
                             c->address);
        if (errno != EAGAIN && errno != EINTR) return lost(c, errno, why);
    }
}

/* Takes decrypted bytes as they are there; what TLS wants to say (an alert, too) is sent. */
static RESULT advance(struct dialog *c, struct buf *plain, bool *open, struct why *why) {
    struct why ignored;
    enum err e = tls_read(c->tls, plain, open, why);
    enum err sent = push(c, e == OK ? why : &ignored);
    if (e == ERR_CLOSED)
        return fail_with(why, ERR_UNREACHABLE, "%s closed the connection without an answer",
                         c->address);
    return e != OK ? fail_in(why, e, c->address) : sent;
}

static RESULT shake_hands(struct dialog *c, struct tls_context *context, struct why *why) {
    struct buf plain = buf_new(PLAIN_MAX);
    bool open = false;
    TRY(connect_any(c, why));
    TRY(tls_new(context, NULL, &c->tls, why));
    enum err e = advance(c, &plain, &open, why);
    while (e == OK && !open) {
        e = pull(c, why);
        if (e == OK) e = advance(c, &plain, &open, why);
    }
    buf_wipe(&plain); /* a server says nothing before it is asked */
    return e;
}

static RESULT join_context(const struct join_credentials *known, struct tls_context **out,
                           struct why *why) {
    static const char *const alpn[] = {ALPN_JOIN, NULL};
    struct tls_config config = {
        .verify = known == NULL ? TLS_VERIFY_NONE : TLS_VERIFY_REQUIRED,
        .alpn = alpn,
    };
    if (known != NULL) config.root_pem = known->root_pem;
    if (known != NULL) config.cert_pem = known->cert_pem;
    if (known != NULL && known->cert_pem.size != 0) config.key_pem = known->key_pem;
    return tls_context_new(&config, out, why);
}

/* ---- roots ---- */

bool pem_next(struct cursor *pem, struct span *cert) {
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    static const char end[] = "-----END CERTIFICATE-----";
    if (pem->left == 0) return false;
    const uint8_t *from = memmem(pem->at, pem->left, begin, sizeof begin - 1);
    if (from == NULL) return false;
    size_t left = pem->left - (size_t)(from - pem->at);
    const uint8_t *to = memmem(from, left, end, sizeof end - 1);
    if (to == NULL) return false;
    size_t size = (size_t)(to - from) + sizeof end - 1;
    if (size < left && from[size] == '\n') size++;
    *cert = span_of(from, size);
    *pem = cursor_of(span_of(from + size, left - size));
    return true;
}

/* ---- the first connection: the root ---- */

/* One of the roots is the token's. */
static RESULT check_digest(struct span roots_pem, const char *digest, const char *address,
                           struct why *why) {
    struct cursor roots = cursor_of(roots_pem);
    struct span root;
    while (pem_next(&roots, &root)) {
        char real[ROOT_DIGEST_TEXT];
        TRY(x509_digest(root, real));
        if (strcmp(real, digest) == 0) return OK;
    }
    return fail_with(why, ERR_CERTIFICATE,
                     "%s shows another root certificate than the one of the token", address);
}

static RESULT fetch_root(struct dialog *c, const char *digest, struct buf *root, struct why *why) {
    struct tls_context *context = NULL;
    TRY(join_context(NULL, &context, why));
    enum err e = shake_hands(c, context, why);
    if (e == OK && tls_peer_root(c->tls, root) != OK)
        e = fail_with(why, ERR_CERTIFICATE, "%s shows no certificate", c->address);
    hang_up(c);
    tls_context_release(context);
    return e != OK ? e : check_digest(buf_span(root), digest, c->address, why);
}

/* ---- the second: the question ---- */

static RESULT say(struct dialog *c, const struct wire_join *request, struct why *why) {
    struct wire_message m = {.type = WIRE_JOIN, .join = *request};
    struct buf frame = buf_new(JOIN_FRAME_MAX);
    enum err e =
        buf_reserve(&frame, JOIN_FRAME_MAX); /* at once: no copy of the token is left behind */
    if (e == OK) e = wire_encode(&m, &frame);
    if (e == OK) e = tls_write(c->tls, buf_span(&frame), why);
    sodium_memzero(&m, sizeof m);
    buf_wipe(&frame);
    TRY(e);
    return push(c, why);
}

/* Until one whole frame is there; the server may end the connection right behind it. */
static RESULT hear(struct dialog *c, struct buf *plain, struct why *why) {
    bool open = true;
    enum err ended = OK;
    for (;;) {
        size_t size = 0;
        TRY(wire_frame_size(buf_span(plain), &size));
        if (size > JOINED_FRAME_MAX)
            return fail_with(why, ERR_PROTOCOL, "%s: the answer is too long", c->address);
        if (size != 0 && size <= plain->size) {
            plain->size = size;
            if (why != NULL) why->text[0] = '\0'; /* of an end after the answer */
            return OK;
        }
        if (ended != OK) return ended;
        TRY(pull(c, why));
        ended = advance(c, plain, &open, why);
    }
}

static RESULT check_manager(struct dialog *c, struct x509_subject *subject, struct why *why) {
    if (strcmp(tls_alpn(c->tls), ALPN_JOIN) != 0)
        return fail_with(why, ERR_PROTOCOL, "%s is no peer port of a cluster", c->address);
    if (tls_peer(c->tls, subject) != OK || strcmp(subject->ou, ROLE_MANAGER) != 0)
        return fail_with(why, ERR_CERTIFICATE, "%s: the certificate is not a manager's",
                         c->address);
    return OK;
}

/* What was granted must be of the cluster that we asked. `digest` NULL: its roots were known. */
static RESULT check_answer(struct dialog *c, const char *digest, const struct x509_subject *subject,
                           const struct wire_joined *j, struct why *why) {
    if (j->error != OK) return OK;
    if (digest != NULL) TRY(check_digest(j->root, digest, c->address, why));
    if (strcmp(j->cluster_id, subject->o) == 0) return OK;
    return fail_with(why, ERR_PROTOCOL, "%s: the answer is of another cluster", c->address);
}

static RESULT ask(struct dialog *c, struct tls_context *context, const char *digest,
                  const struct wire_join *request, struct buf *plain, struct wire_joined *out,
                  struct why *why) {
    struct x509_subject subject;
    struct wire_message m;
    TRY(shake_hands(c, context, why));
    TRY(check_manager(c, &subject, why));
    TRY(say(c, request, why));
    plain->size = 0;
    TRY(buf_reserve(plain, PLAIN_MAX)); /* at once: no copy of the unlock key is left behind */
    TRY(hear(c, plain, why));
    if (wire_decode(buf_span(plain), &m) != OK || m.type != WIRE_JOINED)
        return fail_with(why, ERR_PROTOCOL, "%s: the answer makes no sense", c->address);
    TRY(check_answer(c, digest, &subject, &m.joined, why));
    *out = m.joined;
    return OK;
}

static RESULT ask_leader(struct dialog *c, struct tls_context *context, const char *digest,
                         const struct wire_join *request, struct buf *plain,
                         struct wire_joined *out, struct why *why) {
    for (int hop = 0; hop <= REDIRECTS_MAX; hop++) {
        TRY(ask(c, context, digest, request, plain, out, why));
        if (out->error == OK) return OK;
        if (out->error != ERR_NOT_LEADER || out->leader[0] == '\0')
            return fail_with(why, (enum err)out->error, "%s: %s", c->address,
                             out->text[0] != '\0' ? out->text : err_text((enum err)out->error));
        (void)snprintf(c->address, sizeof c->address, "%s", out->leader);
    }
    return fail_with(why, ERR_NO_LEADER, "%d members in a row sent us on to another leader",
                     REDIRECTS_MAX + 1);
}

/* A newcomer learns the root first; it has no certificate to show. */
static RESULT learn(struct dialog *c, const char *digest, struct buf *root,
                    struct join_credentials *known, struct why *why) {
    TRY(fetch_root(c, digest, root, why));
    *known = (struct join_credentials){.root_pem = buf_span(root)};
    return OK;
}

RESULT join_request(const char *address, const char *root_digest,
                    const struct join_credentials *known, const struct wire_join *request,
                    uint64_t timeout_ms, struct buf *memory, struct wire_joined *out,
                    struct why *why) {
    struct dialog c = {.fd = -1};
    struct join_credentials with = {0};
    struct buf root = buf_new(PEM_MAX);
    struct buf plain = buf_new(PLAIN_MAX);
    struct tls_context *context = NULL;
    enum err e = OK;
    if (strnlen(address, ADDRESS_MAX) == ADDRESS_MAX)
        return fail_with(why, ERR_INVALID, "the address is too long");
    (void)snprintf(c.address, sizeof c.address, "%s", address);
    clock_real(&c.clock);
    c.deadline_ms = c.clock.now_ms(&c.clock) + timeout_ms;
    if (known != NULL)
        with = *known;
    else
        e = learn(&c, root_digest, &root, &with, why);
    const char *digest = known != NULL ? NULL : root_digest;
    if (e == OK) e = join_context(&with, &context, why);
    if (e == OK) e = ask_leader(&c, context, digest, request, &plain, out, why);
    hang_up(&c);
    tls_context_release(context);
    buf_free(&root);
    if (e != OK) {
        buf_wipe(&plain);
        return e;
    }
    buf_wipe(memory);
    *memory = plain;
    return OK;
}
