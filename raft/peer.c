/* The members' connections as one thing: the member table, the credentials, the listener, who is
 * who.
 *
 * A connection is a member's when four things agree: the certificate verifies against the cluster's
 * root (TLS), its subject says manager and this cluster, its CN is the node id of the HELLO, and
 * the table has this node id with the HELLO's raft id. Both sides check the other so.
 *
 * A turn: peers_send marks the loop dirty with an idle handle, so that it does not wait; the
 * prepare handle, which runs last before the loop would wait, flushes every link. Close:
 * peers_close cuts everything; the last handle that goes calls `closed` and frees. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "raft/peer_internal.h"

#define BACKLOG 256

/* ---- sentences ---- */

static uint32_t hash_of(const char *text) {
    uint32_t hash = 2166136261U;
    for (; *text != '\0'; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619U;
    return hash;
}

static bool limiter_holds(struct limiter *l, const char *text, uint64_t now_ms) {
    uint32_t hash = hash_of(text);
    if (now_ms < l->next_ms || (hash == l->hash && now_ms < l->again_ms)) {
        l->held++;
        return true;
    }
    l->hash = hash;
    l->next_ms = now_ms + SENTENCE_MS;
    l->again_ms = now_ms + SAME_SENTENCE_MS;
    return false;
}

void peers_log(struct peers *p, struct limiter *limiter, int level, const char *format, ...) {
    char text[2 * WHY_MAX];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (size < 0 || p->config.log == NULL) return;
    if (limiter != NULL) {
        if (limiter_holds(limiter, text, uv_now(p->config.loop))) return;
        size_t at = strlen(text);
        if (limiter->held != 0)
            (void)snprintf(text + at, sizeof text - at, " (and %u before)", limiter->held);
        limiter->held = 0;
    }
    p->config.log(p->config.ctx, level, text);
}

/* ---- who is who ---- */

/* A listener for both families sees IPv4 as a part of IPv6; people write it as it is. */
static void remote_host(const struct channel *c, char out[64]) {
    struct address a = {.host = "?"};
    if (address_split(c->remote, &a, NULL) != OK) (void)snprintf(a.host, sizeof a.host, "?");
    bool mapped = strncmp(a.host, "::ffff:", 7) == 0 && strchr(a.host, '.') != NULL;
    (void)snprintf(out, 64, "%.63s", mapped ? a.host + 7 : a.host);
}

RESULT peers_caller(struct peers *p, const struct channel *c, struct node_caller *out,
                    struct why *why) {
    struct node_caller who = {0};
    remote_host(c, who.remote);
    enum err e = tls_peer(c->tls, &who.subject);
    if (e == ERR_NOT_FOUND) *out = who;
    TRY(e);
    TRY(tls_peer_digests(c->tls, who.key_digest, who.issuer_digest));
    if (strcmp(who.subject.o, p->config.identity.cluster_id) != 0)
        return fail_with(why, ERR_CERTIFICATE, "its certificate is of cluster \"%s\"",
                         who.subject.o);
    *out = who;
    return OK;
}

RESULT peers_manager(struct peers *p, const struct channel *c, struct node_caller *out,
                     struct why *why) {
    struct node_caller who;
    enum err e = peers_caller(p, c, &who, why);
    if (e == ERR_NOT_FOUND) return fail_with(why, ERR_CERTIFICATE, "it shows no certificate");
    TRY(e);
    if (strcmp(who.subject.ou, ROLE_MANAGER) != 0)
        return fail_with(why, ERR_CERTIFICATE, "its certificate is a \"%s\"'s, not a manager's",
                         who.subject.ou);
    *out = who;
    return OK;
}

RESULT peers_judge(struct peers *p, const struct node_caller *who, struct why *why) {
    const char *id = who->subject.cn;
    if (p->config.is_member == NULL ||
        p->config.is_member(p->config.ctx, id, who->key_digest, who->issuer_digest))
        return OK;
    return fail_with(why, ERR_PERMISSION,
                     "the cluster does not take node %s with this certificate for a manager", id);
}

struct limiter *peers_limiter(const struct channel *c) {
    char host[64];
    remote_host(c, host);
    return &peers_of(c)->limiters[hash_of(host) % LIMITERS];
}

RESULT peers_hello(struct peers *p, struct buf *out) {
    struct wire_message m = {.type = WIRE_HELLO};
    struct wire_hello *h = &m.hello;
    const char *announced = p->config.advertise[0] != '\0' ? p->config.advertise : p->address;
    h->version = WIRE_VERSION;
    h->raft_id = p->config.raft_id;
    (void)snprintf(h->cluster_id, sizeof h->cluster_id, "%s", p->config.identity.cluster_id);
    (void)snprintf(h->node_id, sizeof h->node_id, "%s", p->config.identity.node_id);
    (void)snprintf(h->peer_address, sizeof h->peer_address, "%s", announced);
    return wire_encode(&m, out);
}

static struct link *find_node(struct peers *p, const char *node_id) {
    for (unsigned i = 0; i < p->n; i++)
        if (strcmp(p->links[i]->node_id, node_id) == 0) return p->links[i];
    return NULL;
}

/* Texts of a HELLO go into no sentence before they are known to be what the certificate says. */
static RESULT check_hello(struct peers *p, const struct wire_hello *h,
                          const struct x509_subject *subject, struct why *why) {
    if (h->version != WIRE_VERSION)
        return fail_with(why, ERR_UNSUPPORTED, "it speaks version %u, we speak %d", h->version,
                         WIRE_VERSION);
    if (strcmp(h->cluster_id, p->config.identity.cluster_id) != 0)
        return fail_with(why, ERR_CERTIFICATE, "its hello is of another cluster");
    if (strcmp(h->node_id, subject->cn) != 0)
        return fail_with(why, ERR_CERTIFICATE,
                         "its certificate says node %s, its hello another one", subject->cn);
    const struct link *l = find_node(p, h->node_id);
    if (l == NULL)
        return fail_with(why, ERR_PERMISSION, "node %s is no member known here", h->node_id);
    if (l->raft_id != h->raft_id)
        return fail_with(why, ERR_CERTIFICATE, "node %s says raft id %llu, the members have %llu",
                         h->node_id, (unsigned long long)h->raft_id,
                         (unsigned long long)l->raft_id);
    return OK;
}

void peers_tell_moved(struct peers *p, const struct link *l, const char *announced) {
    struct address a;
    if (p->config.moved == NULL || strcmp(l->address, announced) == 0) return;
    if (address_split(announced, &a, NULL) != OK) return;
    p->config.moved(p->config.ctx, l->raft_id, announced);
}

RESULT peers_check_hello(struct peers *p, struct span frame, const struct node_caller *who,
                         struct wire_hello *hello, struct link **out, struct why *why) {
    struct wire_message m;
    if (wire_decode(frame, &m) != OK || m.type != WIRE_HELLO)
        return fail_with(why, ERR_PROTOCOL, "it does not begin with a hello");
    TRY(check_hello(p, &m.hello, &who->subject, why));
    TRY(peers_judge(p, who, why));
    *hello = m.hello;
    *out = find_node(p, m.hello.node_id);
    return OK;
}

/* ---- the member table ---- */

struct link *peers_find(struct peers *p, uint64_t raft_id) {
    for (unsigned i = 0; i < p->n; i++)
        if (p->links[i]->raft_id == raft_id) return p->links[i];
    return NULL;
}

static RESULT check_member(uint64_t raft_id, const char *node_id, const char *address) {
    struct address a;
    if (raft_id == 0 || strnlen(node_id, NODE_ID_SIZE + 1) > NODE_ID_SIZE || node_id[0] == '\0')
        return ERR_INVALID;
    return address[0] == '\0' ? OK : address_split(address, &a, NULL);
}

RESULT peers_set(struct peers *p, uint64_t raft_id, const char *node_id, const char *address) {
    if (raft_id == p->config.raft_id) return OK;
    TRY(check_member(raft_id, node_id, address));
    struct link *l = peers_find(p, raft_id);
    if (l != NULL && strcmp(l->node_id, node_id) != 0) {
        peers_remove(p, raft_id);
        l = NULL;
    }
    if (l != NULL && strcmp(l->address, address) == 0) return OK;
    if (l == NULL) {
        if (p->closing) return ERR_CLOSED;
        if (p->n == MEMBERS_MAX) return ERR_TOO_LARGE;
        TRY(link_new(p, raft_id, node_id, &l));
        p->links[p->n++] = l;
    }
    link_dial(l, address);
    return OK;
}

void peers_remove(struct peers *p, uint64_t raft_id) {
    for (unsigned i = 0; i < p->n; i++) {
        struct link *l = p->links[i];
        if (l->raft_id != raft_id) continue;
        p->links[i] = p->links[--p->n];
        link_free(l);
        return;
    }
}

/* ---- sending ---- */

static void on_idle(uv_idle_t *h) { (void)h; }

void peers_dirty(struct peers *p) { (void)uv_idle_start(&p->idle, on_idle); }

void peers_flush(struct peers *p) {
    for (unsigned i = 0; i < p->n; i++)
        link_flush(p->links[i]);
}

static void on_prepare(uv_prepare_t *h) {
    struct peers *p = h->data;
    if (!uv_is_active((uv_handle_t *)&p->idle)) return;
    (void)uv_idle_stop(&p->idle);
    peers_flush(p);
    sessions_flush(p);
}

void peers_send(struct peers *p, uint64_t to, struct buf *frame) {
    struct link *l = peers_find(p, to);
    if (l == NULL) {
        p->figures.dropped++;
        buf_free(frame);
        return;
    }
    link_send(l, frame);
}

size_t peers_queued(struct peers *p, uint64_t to) {
    struct link *l = peers_find(p, to);
    if (l == NULL || l->state != LINK_OPEN) return SIZE_MAX;
    return l->queued + channel_waiting(&l->out->channel);
}

bool peers_is_connected(struct peers *p, uint64_t to) {
    struct link *l = peers_find(p, to);
    return l != NULL && l->state == LINK_OPEN;
}

const char *peers_address(struct peers *p) { return p->address; }

void peers_figures(struct peers *p, struct peers_figures *out) {
    *out = p->figures;
    out->sessions = p->sessions;
}

static uint32_t round_trip_us(struct link *l) {
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    int fd = -1;
    if (l->state != LINK_OPEN || uv_fileno((uv_handle_t *)&l->out->channel.tcp, &fd) != 0) return 0;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_rtt : 0;
}

unsigned peers_traffic(struct peers *p, struct peer_traffic out[MEMBERS_MAX]) {
    for (unsigned i = 0; i < p->n; i++) {
        struct link *l = p->links[i];
        out[i] = (struct peer_traffic){.raft_id = l->raft_id,
                                       .sent = l->sent,
                                       .received = l->received,
                                       .dropped = l->dropped,
                                       .connected = l->state == LINK_OPEN,
                                       .round_trip_us = round_trip_us(l)};
    }
    return p->n;
}

static void review_inbound(struct peers *p, struct inbound *in) {
    struct why why = {0};
    if (in->state == IN_SESSION) session_review(in);
    if (in->state != IN_OPEN) return;
    enum err e = peers_judge(p, &in->who, &why);
    if (e != OK) channel_fail(&in->channel, e, why.text);
}

/* What is cut stays in memory until the loop has turned, so `next` can be followed. */
void peers_review(struct peers *p) {
    for (unsigned i = 0; i < p->n; i++)
        link_review(p->links[i]);
    for (struct inbound *next, *in = p->in_first; in != NULL; in = next) {
        next = in->next;
        review_inbound(p, in);
    }
}

/* ---- credentials ---- */

/* The newcomer needs to see the root that its token pins, at the end of the chain: of several
 * trusted ones it is the first. */
static RESULT new_server(struct span root_pem, struct span cert_pem, const struct secret *key_pem,
                         struct tls_context **out, struct why *why) {
    static const char *const alpn[] = {ALPN_PEER, ALPN_JOIN, ALPN_NODE, NULL};
    struct buf chain = buf_new(PEM_MAX);
    struct cursor roots = cursor_of(root_pem);
    struct span first = {0};
    (void)pem_next(&roots, &first);
    enum err e = buf_add_span(&chain, cert_pem);
    if (e == OK) e = buf_add_span(&chain, first);
    struct tls_config config = {.server = true,
                                .verify = TLS_VERIFY_OPTIONAL,
                                .root_pem = root_pem,
                                .cert_pem = buf_span(&chain),
                                .key_pem = key_pem,
                                .alpn = alpn};
    if (e == OK) e = tls_context_new(&config, out, why);
    buf_free(&chain);
    return e;
}

static RESULT new_client(struct span root_pem, struct span cert_pem, const struct secret *key_pem,
                         struct tls_context **out, struct why *why) {
    static const char *const alpn[] = {ALPN_PEER, NULL};
    struct tls_config config = {.verify = TLS_VERIFY_REQUIRED,
                                .root_pem = root_pem,
                                .cert_pem = cert_pem,
                                .key_pem = key_pem,
                                .alpn = alpn};
    return tls_context_new(&config, out, why);
}

RESULT peers_credentials(struct peers *p, struct span root_pem, struct span cert_pem,
                         const struct secret *key_pem, struct why *why) {
    struct tls_context *server = NULL, *client = NULL;
    TRY(new_server(root_pem, cert_pem, key_pem, &server, why));
    enum err e = new_client(root_pem, cert_pem, key_pem, &client, why);
    if (e != OK) {
        tls_context_release(server);
        return e;
    }
    tls_context_release(p->server);
    tls_context_release(p->client);
    p->server = server;
    p->client = client;
    return OK;
}

/* ---- open and close ---- */

/* The last handle is gone. */
static void finish(struct channel_home *home) {
    struct peers *p = (struct peers *)(void *)home;
    void (*closed)(void *ctx) = p->closed;
    void *ctx = p->closed_ctx;
    tls_context_release(p->server);
    tls_context_release(p->client);
    free(p);
    if (closed != NULL) closed(ctx);
}

static void on_handle_closed(uv_handle_t *h) { home_leave(h->data); }

static void init_handles(struct peers *p) {
    uv_loop_t *loop = p->config.loop;
    (void)uv_tcp_init(loop, &p->listener); /* none of the three can fail */
    (void)uv_prepare_init(loop, &p->prepare);
    (void)uv_idle_init(loop, &p->idle);
    p->listener.data = p->prepare.data = p->idle.data = p;
    p->home.handles = 3;
}

static RESULT bind_listener(struct peers *p, const struct sockaddr *at, struct why *why) {
    int e = uv_tcp_bind(&p->listener, at, 0); /* with SO_REUSEADDR */
    if (e == 0) e = uv_listen((uv_stream_t *)&p->listener, BACKLOG, peers_accept);
    if (e == 0) return OK;
    return fail_with(why, err_from_errno(-e), "can't listen at %s: %s", p->config.address,
                     uv_strerror(e));
}

/* The host as it was written, the port as it was given by the system. */
static RESULT learn_address(struct peers *p, const struct address *a) {
    struct sockaddr_storage bound;
    struct address real;
    char text[ADDRESS_MAX];
    int size = sizeof bound;
    memset(&bound, 0, sizeof bound);
    int e = uv_tcp_getsockname(&p->listener, (struct sockaddr *)&bound, &size);
    if (e != 0) return err_from_errno(-e);
    address_format((const struct sockaddr *)&bound, text);
    TRY(address_split(text, &real, NULL));
    unsigned port = (unsigned)strtoul(real.port, NULL, 10);
    address_join(a->host, port, p->address);
    return OK;
}

static RESULT listen_now(struct peers *p, struct why *why) {
    struct address a;
    struct sockaddr_storage at;
    TRY(address_split(p->config.address, &a, why));
    if (p->config.advertise[0] != '\0') {
        struct address other;
        TRY(address_split(p->config.advertise, &other, why));
    }
    TRY(address_parse(p->config.address, &at, why));
    TRY(bind_listener(p, (const struct sockaddr *)&at, why));
    return learn_address(p, &a);
}

RESULT peers_open(const struct peers_config *config, struct peers **out, struct why *why) {
    struct peers *p = calloc(1, sizeof *p);
    if (p == NULL) return ERR_NOMEM;
    loop_block_sigpipe();
    p->config = *config;
    p->home = (struct channel_home){
        .loop = config->loop, .read = p->read, .read_size = sizeof p->read, .empty = finish};
    enum err e = peers_credentials(p, config->root_pem, config->cert_pem, config->key_pem, why);
    if (e != OK) {
        free(p);
        return e;
    }
    p->config.root_pem = p->config.cert_pem = (struct span){0};
    p->config.key_pem = NULL;
    init_handles(p);
    e = listen_now(p, why);
    if (e != OK) {
        peers_close(p, NULL, NULL); /* frees when the loop runs next */
        return e;
    }
    (void)uv_prepare_start(&p->prepare, on_prepare);
    *out = p;
    return OK;
}

void peers_close(struct peers *p, void (*closed)(void *ctx), void *ctx) {
    for (unsigned i = 0; i < p->n; i++)
        link_flush(p->links[i]); /* a last word, such as the hand-over of leadership */
    p->closing = true;
    p->closed = closed;
    p->closed_ctx = ctx;
    while (p->n > 0)
        peers_remove(p, p->links[p->n - 1]->raft_id);
    while (p->in_first != NULL)
        inbound_close(p->in_first);
    uv_close((uv_handle_t *)&p->listener, on_handle_closed);
    uv_close((uv_handle_t *)&p->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&p->idle, on_handle_closed);
}
