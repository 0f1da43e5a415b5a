/* The implementation of peer_net.h. A node is a struct peers whose callbacks only note what came; a
 * stranger is a socket under uv_poll with a struct tls on it. A timer turns a hang into a failure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raft/loop.h"
#include "tests/lib/peer_net.h"

#define PATIENCE_MS 20000

/* ---- the loop ---- */

static void on_late(uv_timer_t *t) { ((struct net *)t->data)->late = true; }

void net_open(struct net *n) {
    memset(n, 0, sizeof *n);
    pki_new(&n->pki, NET_CLUSTER);
    assert_int_equal(uv_loop_init(&n->loop), 0);
    assert_int_equal(uv_timer_init(&n->loop, &n->guard), 0);
    n->guard.data = n;
}

void net_begin(struct net *n) {
    n->late = false;
    uv_update_time(&n->loop);
    assert_int_equal(uv_timer_start(&n->guard, on_late, PATIENCE_MS, 0), 0);
}

void net_end(struct net *n) { (void)uv_timer_stop(&n->guard); }

void net_turn(struct net *n, const char *what) {
    if (n->late) {
        for (int i = 0; i < NET_NODES; i++)
            print_message("node %d:\n%s", i + 1, n->nodes[i].log);
        fail_msg("too late: %s", what);
    }
    (void)uv_run(&n->loop, UV_RUN_ONCE);
}

static void node_free(struct net_node *node) {
    for (size_t i = 0; i < ARRAY_SIZE(node->asked); i++)
        buf_free(&node->asked[i]);
    pki_node_free(&node->cert);
}

void net_close(struct net *n) {
    for (int i = 0; i < NET_NODES; i++)
        if (n->nodes[i].peers != NULL) net_node_close(&n->nodes[i]);
    uv_close((uv_handle_t *)&n->guard, NULL);
    while (uv_run(&n->loop, UV_RUN_DEFAULT) != 0) {
    }
    assert_int_equal(uv_loop_close(&n->loop), 0);
    for (int i = 0; i < NET_NODES; i++)
        node_free(&n->nodes[i]);
    pki_free(&n->pki);
}

/* ---- nodes ---- */

void net_frame(uint64_t seq, size_t size, struct buf *out) {
    assert_true(size >= WIRE_HEADER + 8 && size <= FRAME_MAX);
    *out = buf_new(FRAME_MAX);
    assert_int_equal(buf_reserve(out, size), OK);
    assert_int_equal(buf_u32(out, (uint32_t)(size - 4)), OK);
    assert_int_equal(buf_u8(out, WIRE_FORWARD), OK);
    assert_int_equal(buf_u64(out, seq), OK);
    memset(out->at + out->size, (uint8_t)seq, size - out->size);
    out->size = size;
}

static bool take_frame(void *ctx, uint64_t from, struct span frame) {
    struct net_node *node = ctx;
    assert_true(from <= NET_NODES);
    const uint8_t *fill = frame.at + WIRE_HEADER + 8;
    size_t n = frame.size - WIRE_HEADER - 8;
    uint64_t seq = get_u64(frame.at + WIRE_HEADER);
    bool same = n == 0 || (fill[0] == (uint8_t)seq && memcmp(fill, fill + 1, n - 1) == 0);
    if (seq != node->got[from] || !same) node->disorder = true;
    node->got[from]++;
    return true;
}

static void take_connected(void *ctx, uint64_t peer) {
    ((struct net_node *)ctx)->connected[peer]++;
}

static void take_moved(void *ctx, uint64_t peer, const char *address) {
    struct net_node *node = ctx;
    node->moved_id = peer;
    (void)snprintf(node->moved, sizeof node->moved, "%s", address);
}

static void keep(struct buf *b, struct span s) {
    buf_free(b);
    *b = buf_new(PEM_MAX);
    assert_int_equal(buf_add_span(b, s), OK);
}

static void take_join(void *ctx, struct join_connection *c, const struct wire_join *request,
                      const struct node_caller *who) {
    struct net_node *node = ctx;
    node->request = *request;
    node->asker = *who;
    keep(&node->asked[0], request->request);
    keep(&node->asked[1], request->old_cert);
    keep(&node->asked[2], request->proof);
    node->joins++;
    if (node->answer != NULL)
        join_answer(c, node->answer);
    else
        node->joiner = c;
}

static void take_sentence(void *ctx, int level, const char *text) {
    struct net_node *node = ctx;
    size_t room = sizeof node->log - node->log_size;
    int n = snprintf(node->log + node->log_size, room, "%d %s\n", level, text);
    if (n > 0 && (size_t)n < room) node->log_size += (size_t)n;
    node->sentences++;
}

bool net_logged(const struct net_node *node, const char *part) {
    return strstr(node->log, part) != NULL;
}

static const char *or_else(const char *text, const char *other) {
    return text != NULL ? text : other;
}

static void node_config(struct net_node *node, const struct net_fault *f, struct peers_config *c) {
    *c = (struct peers_config){
        .loop = &node->net->loop,
        .ctx = node,
        .raft_id = f->raft_id != 0 ? f->raft_id : node->id,
        .root_pem = f->roots.size != 0 ? f->roots : buf_span(&node->net->pki.root),
        .cert_pem = buf_span(&node->cert.cert),
        .key_pem = node->cert.key,
        .frame = take_frame,
        .connected = take_connected,
        .moved = take_moved,
        .join = take_join,
        .log = take_sentence,
        .is_member = f->is_member,
        .node = f->sessions,
        .handshake_ms = f->handshake_ms,
    };
    (void)snprintf(c->address, sizeof c->address, "%s", or_else(f->address, "127.0.0.1:0"));
    (void)snprintf(c->advertise, sizeof c->advertise, "%s", or_else(f->advertise, ""));
    (void)snprintf(c->identity.cluster_id, sizeof c->identity.cluster_id, NET_CLUSTER);
    (void)snprintf(c->identity.node_id, sizeof c->identity.node_id, "%s",
                   or_else(f->node_id, node->node_id));
}

struct net_node *net_node_open(struct net *n, uint64_t id, const struct net_fault *fault) {
    static const struct net_fault none;
    const struct net_fault *f = fault != NULL ? fault : &none;
    struct net_node *node = &n->nodes[id - 1];
    struct peers_config config;
    struct why why = {0};
    assert_null(node->peers);
    node_free(node);
    memset(node, 0, sizeof *node);
    node->net = n;
    node->id = id;
    (void)snprintf(node->node_id, sizeof node->node_id, "node%llu", (unsigned long long)id);
    pki_node_new(f->pki != NULL ? f->pki : &n->pki, or_else(f->cn, node->node_id),
                 or_else(f->ou, ROLE_MANAGER), or_else(f->o, NET_CLUSTER), f->age_s, &node->cert);
    assert_int_equal(buf_add_span(&node->cert.cert, f->more), OK);
    node_config(node, f, &config);
    if (peers_open(&config, &node->peers, &why) != OK) fail_msg("%s", why.text);
    (void)snprintf(node->address, sizeof node->address, "%s", peers_address(node->peers));
    return node;
}

static void take_closed(void *ctx) { ((struct net_node *)ctx)->closed = true; }

void net_node_close(struct net_node *node) {
    peers_close(node->peers, take_closed, node);
    assert_false(node->closed);
    UNTIL(node->net, node->closed);
    node->peers = NULL;
}

void net_know(struct net_node *a, struct net_node *b) {
    assert_int_equal(peers_set(a->peers, b->id, b->node_id, b->address), OK);
}

void net_meet(struct net_node *a, struct net_node *b) {
    net_know(a, b);
    net_know(b, a);
}

void net_send(struct net_node *from, struct net_node *to, uint64_t seq, size_t size) {
    struct buf frame;
    net_frame(seq, size, &frame);
    peers_send(from->peers, to->id, &frame);
    assert_int_equal(frame.size, 0);
    assert_null(frame.at);
}

/* ---- strangers ---- */

static void stranger_init(struct stranger *s, struct net *n) {
    memset(s, 0, sizeof *s);
    s->net = n;
    s->gone = true;
    s->fd = s->listener = -1;
    s->plain = buf_new(64 * MIB);
    s->say = buf_new(64 * MIB);
    s->wire = buf_new(64 * MIB);
}

void stranger_new(struct stranger *s, struct net *n, bool server, const char *alpn,
                  const struct pki_node *cert) {
    const char *const list[] = {alpn, NULL};
    struct why why = {0};
    struct tls_config config = {.server = server, .verify = TLS_VERIFY_NONE};
    if (server) config.verify = TLS_VERIFY_OPTIONAL;
    if (server) config.root_pem = buf_span(&n->pki.root);
    if (alpn != NULL) config.alpn = list;
    if (cert != NULL) config.cert_pem = buf_span(&cert->cert);
    if (cert != NULL) config.key_pem = cert->key;
    stranger_init(s, n);
    if (tls_context_new(&config, &s->context, &why) != OK) fail_msg("%s", why.text);
    if (tls_new(s->context, NULL, &s->tls, &why) != OK) fail_msg("%s", why.text);
}

void stranger_plain(struct stranger *s, struct net *n) { stranger_init(s, n); }

void stranger_hello(struct stranger *s, uint64_t raft_id, const char *node_id,
                    const char *cluster_id, uint16_t version) {
    struct wire_message m = {.type = WIRE_HELLO};
    m.hello.version = version;
    m.hello.raft_id = raft_id;
    (void)snprintf(m.hello.node_id, sizeof m.hello.node_id, "%s", node_id);
    (void)snprintf(m.hello.cluster_id, sizeof m.hello.cluster_id, "%s", cluster_id);
    (void)snprintf(m.hello.peer_address, sizeof m.hello.peer_address, "127.0.0.1:1");
    assert_int_equal(wire_encode(&m, &s->say), OK);
}

static void stop_polling(struct stranger *s);

static void push_out(struct stranger *s) {
    for (;;) {
        struct span out = s->tls != NULL ? tls_pending(s->tls) : buf_span(&s->say);
        if (out.size == 0) return;
        ssize_t n = send(s->fd, out.at, out.size, MSG_NOSIGNAL);
        if (n <= 0) {
            s->ended = errno != EAGAIN;
            return;
        }
        assert_int_equal(buf_add(&s->wire, out.at, (size_t)n), OK);
        if (s->tls != NULL)
            tls_sent(s->tls, (size_t)n);
        else
            buf_clear(&s->say);
    }
}

static void go_on(struct stranger *s) {
    struct why why = {0};
    bool open = false;
    enum err e = s->tls == NULL ? OK : tls_read(s->tls, &s->plain, &open, &why);
    bool ready = s->listener < 0 || s->plain.size != 0;
    if (e == OK && open && ready && !s->said) {
        s->said = true;
        assert_int_equal(tls_write(s->tls, buf_span(&s->say), &why), OK);
    }
    push_out(s);
    if (e != OK) s->ended = true;
    if (s->deaf && s->said) stop_polling(s);
}

static void on_stranger(uv_poll_t *h, int status, int events) {
    struct stranger *s = h->data;
    uint8_t bytes[16384];
    struct why why = {0};
    (void)status;
    (void)events;
    ssize_t n = recv(s->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) s->ended = true;
    if (n > 0 && s->tls != NULL && tls_feed(s->tls, span_of(bytes, (size_t)n), &why) != OK)
        s->ended = true;
    if (!s->ended) go_on(s);
    if (s->ended) stop_polling(s);
}

static void on_poll_closed(uv_handle_t *h) { ((struct stranger *)h->data)->gone = true; }

static void stop_polling(struct stranger *s) {
    if (!s->polling) return;
    s->polling = false;
    uv_close((uv_handle_t *)&s->poll, on_poll_closed);
}

static void poll_on(struct stranger *s, int fd, uv_poll_cb call) {
    assert_int_equal(uv_poll_init(&s->net->loop, &s->poll, fd), 0);
    s->poll.data = s;
    s->polling = true;
    s->gone = false;
    assert_int_equal(uv_poll_start(&s->poll, UV_READABLE, call), 0);
}

void stranger_dial(struct stranger *s, const char *address) {
    struct sockaddr_storage to;
    assert_int_equal(address_parse(address, &to, NULL), OK);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->fd >= 0);
    assert_int_equal(connect(s->fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
    poll_on(s, s->fd, on_stranger); /* makes the socket non-blocking */
    go_on(s);
}

static void on_caller(uv_poll_t *h, int status, int events) {
    struct stranger *s = h->data;
    (void)status;
    (void)events;
    s->fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (s->fd < 0) return;
    stop_polling(s);
}

void stranger_listen(struct stranger *s) {
    struct sockaddr_storage at;
    socklen_t size = sizeof at;
    assert_int_equal(address_parse("127.0.0.1:0", &at, NULL), OK);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->listener >= 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&at, sizeof(struct sockaddr_in)), 0);
    assert_int_equal(listen(s->listener, 5), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&at, &size), 0);
    address_format((struct sockaddr *)&at, s->address);
    poll_on(s, s->listener, on_caller);
}

void stranger_answer(struct stranger *s) {
    UNTIL(s->net, s->gone);
    poll_on(s, s->fd, on_stranger);
}

void stranger_hang_up(struct stranger *s) {
    stop_polling(s);
    UNTIL(s->net, s->gone);
    if (s->fd >= 0) (void)close(s->fd);
    if (s->listener >= 0) (void)close(s->listener);
    s->fd = s->listener = -1;
}

void stranger_free(struct stranger *s) {
    stranger_hang_up(s);
    tls_free(s->tls);
    tls_context_release(s->context);
    buf_free(&s->plain);
    buf_free(&s->say);
    buf_free(&s->wire);
}
