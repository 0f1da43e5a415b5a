/* Nothing below TLS 1.3 is spoken on the peer port, by no protocol and in neither direction: an old
 * client is refused whatever it shows, and an old server is left before anything is said to it,
 * even one with a manager's good certificate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raft/loop.h"
#include "tests/lib/peer_net.h"

static struct net net;
static struct net_node *a, *b;

/* OpenSSL as it comes, on one socket: `version` at most, and with a certificate. */
struct old {
    SSL_CTX *context;
    SSL *ssl;
    uv_poll_t poll, accepting; /* open when fd and listener are */
    int fd, listener;          /* -1: none */
    bool ended, open;
    char address[ADDRESS_MAX]; /* where it listens */
};

static void use_certificate(SSL_CTX *context, const struct pki_node *node) {
    struct span key_pem = secret_span(node->key);
    BIO *cert_bio = BIO_new_mem_buf(node->cert.at, (int)node->cert.size);
    BIO *key_bio = BIO_new_mem_buf(key_pem.at, (int)key_pem.size);
    X509 *cert = PEM_read_bio_X509(cert_bio, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, NULL);
    assert_int_equal(SSL_CTX_use_certificate(context, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(cert_bio);
    BIO_free(key_bio);
}

static int take_any(SSL *ssl, const unsigned char **out, unsigned char *size,
                    const unsigned char *in, unsigned in_size, void *ctx) {
    (void)ssl;
    (void)in_size;
    (void)ctx;
    *size = in[0];
    *out = in + 1;
    return SSL_TLSEXT_ERR_OK;
}

static void old_new(struct old *o, bool server, int version, const struct pki_node *cert) {
    memset(o, 0, sizeof *o);
    o->fd = o->listener = -1;
    o->context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_security_level(o->context, 0); /* or it would not speak 1.1 itself */
    assert_int_equal(SSL_CTX_set_min_proto_version(o->context, TLS1_VERSION), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(o->context, version), 1);
    use_certificate(o->context, cert);
    SSL_CTX_set_alpn_select_cb(o->context, take_any, NULL);
    o->ssl = SSL_new(o->context);
}

static void on_old(uv_poll_t *h, int status, int events) {
    struct old *o = h->data;
    (void)status;
    (void)events;
    int n = SSL_do_handshake(o->ssl);
    if (n == 1) o->open = true;
    int e = n == 1 ? SSL_ERROR_NONE : SSL_get_error(o->ssl, n);
    o->ended = n != 1 && e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE;
    if (o->ended || o->open) (void)uv_poll_stop(h);
}

static void watch(struct old *o, uv_poll_t *poll, uv_poll_cb call, int fd) {
    assert_int_equal(uv_poll_init(&net.loop, poll, fd), 0); /* makes the socket non-blocking */
    poll->data = o;
    assert_int_equal(uv_poll_start(poll, UV_READABLE, call), 0);
}

static void talk(struct old *o) {
    assert_true(o->fd >= 0);
    assert_int_equal(SSL_set_fd(o->ssl, o->fd), 1);
    watch(o, &o->poll, on_old, o->fd);
    on_old(&o->poll, 0, 0);
}

static void old_dial(struct old *o, const char *address, const char *alpn) {
    struct sockaddr_storage to;
    uint8_t list[64];
    list[0] = (uint8_t)strnlen(alpn, 63);
    memcpy(list + 1, alpn, list[0]);
    assert_int_equal(SSL_set_alpn_protos(o->ssl, list, list[0] + 1U), 0);
    assert_int_equal(address_parse(address, &to, NULL), OK);
    o->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(o->fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
    SSL_set_connect_state(o->ssl);
    talk(o);
}

static void on_caller(uv_poll_t *h, int status, int events) {
    struct old *o = h->data;
    (void)status;
    (void)events;
    (void)uv_poll_stop(h);
    o->fd = accept4(o->listener, NULL, NULL, SOCK_CLOEXEC);
    SSL_set_accept_state(o->ssl);
    talk(o);
}

static void old_listen(struct old *o) {
    struct sockaddr_storage at;
    socklen_t size = sizeof at;
    assert_int_equal(address_parse("127.0.0.1:0", &at, NULL), OK);
    o->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(o->listener, (struct sockaddr *)&at, sizeof(struct sockaddr_in)), 0);
    assert_int_equal(listen(o->listener, 5), 0);
    assert_int_equal(getsockname(o->listener, (struct sockaddr *)&at, &size), 0);
    address_format((struct sockaddr *)&at, o->address);
    watch(o, &o->accepting, on_caller, o->listener);
}

static void old_free(struct old *o) {
    if (o->fd >= 0) uv_close((uv_handle_t *)&o->poll, NULL);
    if (o->listener >= 0) uv_close((uv_handle_t *)&o->accepting, NULL);
    (void)uv_run(&net.loop, UV_RUN_NOWAIT);
    SSL_free(o->ssl);
    SSL_CTX_free(o->context);
    if (o->fd >= 0) (void)close(o->fd);
    if (o->listener >= 0) (void)close(o->listener);
}

static bool both_connected(void) {
    return peers_is_connected(a->peers, b->id) && peers_is_connected(b->peers, a->id);
}

static void open_two(void) {
    net_open(&net);
    a = net_node_open(&net, 1, NULL);
    b = net_node_open(&net, 2, NULL);
    net_meet(a, b);
    UNTIL(&net, both_connected());
}

static void assert_members_go_on(void) {
    assert_true(both_connected());
    net_send(a, b, b->got[1], 1000);
    uint64_t want = b->got[1] + 1;
    UNTIL(&net, b->got[1] == want);
    assert_int_equal(a->connected[2], 1);
}

static const int versions[] = {TLS1_1_VERSION, TLS1_2_VERSION};

static void old_clients_are_refused_whatever_they_ask_for(void **state) {
    (void)state;
    static const char *const protocols[] = {ALPN_PEER, ALPN_JOIN, ALPN_NODE};
    for (size_t i = 0; i < ARRAY_SIZE(protocols) * ARRAY_SIZE(versions); i++) {
        struct old o;
        struct pki_node cert;
        struct peers_figures f;
        open_two();
        assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
        pki_node_new(&net.pki, "node3", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
        old_new(&o, false, versions[i / ARRAY_SIZE(protocols)], &cert);
        old_dial(&o, a->address, protocols[i % ARRAY_SIZE(protocols)]);
        UNTIL(&net, (o.ended || o.open) && net_logged(a, "refused: "));
        assert_false(o.open);
        assert_true(net_logged(a, "version") || net_logged(a, "protocol"));
        peers_figures(a->peers, &f);
        assert_int_equal(f.refused, 1);
        assert_int_equal(a->joins, 0);
        old_free(&o);
        pki_node_free(&cert);
        assert_members_go_on();
        net_close(&net);
    }
}

static void an_old_server_is_no_member(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct old o;
        struct pki_node cert;
        open_two();
        pki_node_new(&net.pki, "node3", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
        old_new(&o, true, versions[i], &cert);
        old_listen(&o);
        assert_int_equal(peers_set(a->peers, 3, "node3", o.address), OK);
        UNTIL(&net, net_logged(a, "member node3 at ") && (o.ended || o.open));
        assert_false(o.open);
        assert_false(peers_is_connected(a->peers, 3));
        peers_remove(a->peers, 3);
        old_free(&o);
        pki_node_free(&cert);
        assert_members_go_on();
        net_close(&net);
    }
}

/* ---- uplinks ---- */

static struct {
    unsigned opened, closed;
    enum err error;
} uplink;

static void node_opened(void *ctx, struct uplink *u) {
    (void)ctx;
    (void)u;
    uplink.opened++;
}

static RESULT node_message(void *ctx, struct uplink *u, uint8_t kind, struct span body,
                           struct why *why) {
    (void)ctx;
    (void)u;
    (void)kind;
    (void)body;
    return fail_with(why, ERR_PROTOCOL, "nothing should come");
}

static void node_closed(void *ctx, struct uplink *u, enum err e, const char *text) {
    (void)ctx;
    (void)text;
    uplink.closed++;
    uplink.error = e;
    uplink_free(u, NULL, NULL);
}

static void an_old_server_gets_no_session(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct old o;
        struct pki_node cert;
        struct uplink *u;
        memset(&uplink, 0, sizeof uplink);
        net_open(&net);
        pki_node_new(&net.pki, "node3", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
        old_new(&o, true, versions[i], &cert);
        old_listen(&o);
        struct uplink_config c = {.loop = &net.loop,
                                  .root_pem = buf_span(&net.pki.root),
                                  .cert_pem = buf_span(&cert.cert),
                                  .key_pem = cert.key,
                                  .opened = node_opened,
                                  .message = node_message,
                                  .closed = node_closed};
        (void)snprintf(c.address, sizeof c.address, "%s", o.address);
        (void)snprintf(c.cluster_id, sizeof c.cluster_id, NET_CLUSTER);
        assert_int_equal(uplink_open(&c, &u, NULL), OK);
        UNTIL(&net, uplink.closed == 1 && (o.ended || o.open));
        assert_false(o.open);
        assert_int_equal(uplink.opened, 0);
        assert_int_equal(uplink.error, ERR_PROTOCOL);
        old_free(&o);
        pki_node_free(&cert);
        net_close(&net);
    }
}

/* ---- joins ---- */

struct newcomer {
    uv_thread_t thread;
    char address[ADDRESS_MAX];
    enum err result;
    atomic_bool done;
};

static void newcomer_run(void *arg) {
    struct newcomer *n = arg;
    struct buf memory = buf_new(FRAME_MAX);
    struct wire_joined joined;
    struct wire_join request = {.kind = JOIN_TOKEN, .token = "thesecretpartofthetoken00"};
    request.request = span_str("the certificate request");
    n->result =
        join_request(n->address, net.pki.digest, NULL, &request, 10000, &memory, &joined, NULL);
    buf_wipe(&memory);
    atomic_store(&n->done, true);
}

static void tick(uv_timer_t *t) { (void)t; } /* makes the loop turn, so that UNTIL sees `done` */

static void an_old_server_learns_no_token(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct old o;
        struct pki_node cert;
        struct newcomer n = {0};
        uv_timer_t ticks;
        net_open(&net);
        pki_node_new(&net.pki, "node3", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
        old_new(&o, true, versions[i], &cert);
        old_listen(&o);
        (void)snprintf(n.address, sizeof n.address, "%s", o.address);
        assert_int_equal(uv_timer_init(&net.loop, &ticks), 0);
        assert_int_equal(uv_timer_start(&ticks, tick, 1, 1), 0);
        assert_int_equal(uv_thread_create(&n.thread, newcomer_run, &n), 0);
        UNTIL(&net, atomic_load(&n.done) && (o.ended || o.open));
        assert_int_equal(uv_thread_join(&n.thread), 0);
        assert_false(o.open);
        assert_int_equal(n.result, ERR_PROTOCOL);
        uv_close((uv_handle_t *)&ticks, NULL);
        old_free(&o);
        pki_node_free(&cert);
        net_close(&net);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_clients_are_refused_whatever_they_ask_for),
        cmocka_unit_test(an_old_server_is_no_member),
        cmocka_unit_test(an_old_server_gets_no_session),
        cmocka_unit_test(an_old_server_learns_no_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
