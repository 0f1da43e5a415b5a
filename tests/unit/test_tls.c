/* TLS between two ends in memory: who gets in, who doesn't and with which sentence, and bytes that
 * arrive as they were sent, however the wire cuts them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/tls.h"
#include "tests/lib/fault.h"

#include <stdlib.h>
#include <time.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>

#define ROUNDS 50 /* no handshake takes more exchanges */

/* One who has a certificate. */
struct party {
    struct secret *key; /* PEM */
    struct buf cert;    /* PEM: own, then the root */
    struct buf root;    /* PEM: who it trusts */
};

static struct party manager;  /* of our cluster */
static struct party worker;   /* of our cluster, a client's role */
static struct party expired;  /* of our cluster, long ago */
static struct party early;    /* of our cluster, in a year */
static struct party stranger; /* of another cluster */

static const char *const peer_alpn[] = {"conclave/1", NULL};
static const char *const other_alpn[] = {"conclave/2", NULL};
static const char *const http_alpn[] = {"h2", "http/1.1", NULL};
static const char *const old_http_alpn[] = {"http/1.1", NULL};

static int party_make(struct party *p, const struct secret *root_key, const struct buf *root,
                      const char *cn, const char *ou, int64_t now_s) {
    struct x509_subject s = {0};
    struct buf request = buf_new(PEM_MAX);
    struct why why = {0};
    memcpy(s.cn, cn, strlen(cn) + 1);
    memcpy(s.ou, ou, strlen(ou) + 1);
    memcpy(s.o, "cluster", 8);
    *p = (struct party){.cert = buf_new(PEM_MAX), .root = buf_new(PEM_MAX)};
    enum err e = x509_key_new(&p->key, &why);
    if (e == OK) e = x509_request(p->key, cn, &request, &why);
    if (e == OK)
        e = x509_issue(root_key, buf_span(root), buf_span(&request), &s, now_s, 86400, &p->cert,
                       &why);
    if (e == OK) e = buf_add_span(&p->cert, buf_span(root));
    if (e == OK) e = buf_add_span(&p->root, buf_span(root));
    buf_free(&request);
    return e == OK ? 0 : -1;
}

static int start(void **state) {
    (void)state;
    struct secret *keys[2];
    struct buf roots[2] = {buf_new(PEM_MAX), buf_new(PEM_MAX)};
    int64_t now_s = (int64_t)time(NULL);
    if (crypto_start(NULL) != OK) return -1;
    for (int i = 0; i < 2; i++) {
        if (x509_key_new(&keys[i], NULL) != OK) return -1;
        if (x509_root(keys[i], i == 0 ? "cluster" : "elsewhere", &roots[i], NULL) != OK) return -1;
    }
    int bad = party_make(&manager, keys[0], &roots[0], "node-1", ROLE_MANAGER, now_s);
    bad |= party_make(&worker, keys[0], &roots[0], "node-2", ROLE_CLIENT, now_s);
    bad |= party_make(&expired, keys[0], &roots[0], "node-3", ROLE_MANAGER, now_s - 2 * 86400);
    bad |= party_make(&early, keys[0], &roots[0], "node-4", ROLE_MANAGER, now_s + 365 * 86400);
    bad |= party_make(&stranger, keys[1], &roots[1], "node-1", ROLE_MANAGER, now_s);
    for (int i = 0; i < 2; i++) {
        secret_free(keys[i]);
        buf_free(&roots[i]);
    }
    return bad;
}

static int finish(void **state) {
    (void)state;
    struct party *all[] = {&manager, &worker, &expired, &early, &stranger};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        secret_free(all[i]->key);
        buf_free(&all[i]->cert);
        buf_free(&all[i]->root);
    }
    return 0;
}

/* A context as the peer port has it. */
static struct tls_config config_of(bool server, const struct party *p) {
    return (struct tls_config){.server = server,
                               .verify = TLS_VERIFY_REQUIRED,
                               .root_pem = buf_span(&p->root),
                               .cert_pem = buf_span(&p->cert),
                               .key_pem = p->key,
                               .alpn = peer_alpn};
}

/* The two ends of a wire. */
struct end {
    struct tls *tls;  /* owned */
    struct buf plain; /* what was read */
    bool open;        /* as told last */
    enum err e;       /* as told last */
    struct why why;   /* the same */
};
struct pair {
    struct end client; /* one end */
    struct end server; /* the other */
};

static struct end end_of(const struct tls_config *config, const char *server_name) {
    struct tls_context *c;
    struct end end = {.plain = buf_new(64 * MIB)};
    if (tls_context_new(config, &c, &end.why) != OK) fail_msg("%s", end.why.text);
    assert_int_equal(tls_new(c, server_name, &end.tls, &end.why), OK);
    tls_context_release(c); /* the connection keeps it */
    return end;
}

static struct pair pair_of(const struct tls_config *client, const struct tls_config *server,
                           const char *server_name) {
    return (struct pair){.client = end_of(client, server_name), .server = end_of(server, NULL)};
}

static void pair_free(struct pair *p) {
    tls_free(p->client.tls);
    tls_free(p->server.tls);
    buf_free(&p->client.plain);
    buf_free(&p->server.plain);
}

static void end_read(struct end *end) {
    if (end->e == OK) end->e = tls_read(end->tls, &end->plain, &end->open, &end->why);
}

/* Moves what waits in `from`, at most `cut` bytes a time, reading at the other end in between. */
static void move(struct end *from, struct end *to, size_t cut) {
    for (struct span s = tls_pending(from->tls); s.size != 0; s = tls_pending(from->tls)) {
        size_t size = s.size < cut ? s.size : cut;
        struct why ignored;
        (void)!tls_feed(to->tls, span_of(s.at, size), &ignored);
        tls_sent(from->tls, size);
        end_read(to);
    }
}

static void talk(struct pair *p, size_t cut) {
    end_read(&p->client);
    end_read(&p->server);
    for (int i = 0; i < ROUNDS; i++) {
        move(&p->client, &p->server, cut);
        move(&p->server, &p->client, cut);
        if (tls_pending(p->client.tls).size == 0) break;
    }
}

static void assert_open(struct pair *p) {
    if (p->client.e != OK || p->server.e != OK)
        fail_msg("client: %s; server: %s", p->client.why.text, p->server.why.text);
    assert_true(p->client.open);
    assert_true(p->server.open);
}

static void two_members_meet_and_know_each_other(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    struct x509_subject seen;
    struct pair p = pair_of(&client, &server, ROLE_MANAGER);
    assert_int_equal(tls_peer(p.client.tls, &seen), ERR_PRECONDITION);
    assert_string_equal(tls_alpn(p.client.tls), "");
    talk(&p, 1 << 20);
    assert_open(&p);
    assert_string_equal(tls_alpn(p.client.tls), "conclave/1");
    assert_string_equal(tls_alpn(p.server.tls), "conclave/1");
    assert_int_equal(tls_peer(p.client.tls, &seen), OK);
    assert_string_equal(seen.cn, "node-1");
    assert_string_equal(seen.ou, ROLE_MANAGER);
    assert_int_equal(tls_peer(p.server.tls, &seen), OK);
    assert_string_equal(seen.cn, "node-2");
    assert_string_equal(seen.ou, ROLE_CLIENT);
    pair_free(&p);
}

static void bytes_arrive_however_the_wire_cuts_them(void **state) {
    (void)state;
    static const size_t cuts[] = {1, 7, 1000, 1 << 20};
    static const size_t sizes[] = {1, 100, 16384, 16385, 100000};
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    for (size_t c = 0; c < 4; c++) {
        struct pair p = pair_of(&client, &server, ROLE_MANAGER);
        talk(&p, cuts[c]);
        assert_open(&p);
        for (size_t i = 0; i < 5; i++) {
            uint8_t *bytes = malloc(sizes[i]);
            random_bytes(bytes, sizes[i]);
            assert_int_equal(tls_write(p.client.tls, span_of(bytes, sizes[i]), NULL), OK);
            assert_int_equal(tls_write(p.server.tls, span_of(bytes, sizes[i]), NULL), OK);
            talk(&p, cuts[c]);
            assert_open(&p);
            assert_true(span_equal(buf_span(&p.server.plain), span_of(bytes, sizes[i])));
            assert_true(span_equal(buf_span(&p.client.plain), span_of(bytes, sizes[i])));
            buf_clear(&p.server.plain);
            buf_clear(&p.client.plain);
            free(bytes);
        }
        pair_free(&p);
    }
}

static void megabytes_go_through_a_small_reader(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    struct pair p = pair_of(&client, &server, ROLE_MANAGER);
    size_t size = 5 * MIB;
    uint8_t *bytes = malloc(size);
    random_bytes(bytes, size);
    talk(&p, 1 << 20);
    assert_open(&p);
    assert_int_equal(tls_write(p.client.tls, span_of(bytes, size), NULL), OK);
    struct span wire = tls_pending(p.client.tls);
    assert_true(wire.size > size && wire.size < size + size / 100);
    assert_int_equal(tls_feed(p.server.tls, wire, NULL), OK);
    tls_sent(p.client.tls, wire.size);
    size_t got = 0;
    while (got < size) {
        struct buf plain = buf_new(10000);
        bool open;
        assert_int_equal(tls_read(p.server.tls, &plain, &open, NULL), OK);
        assert_true(plain.size > 0);
        assert_memory_equal(plain.at, bytes + got, plain.size);
        got += plain.size;
        buf_free(&plain);
    }
    assert_int_equal(got, size);
    free(bytes);
    pair_free(&p);
}

/* A meeting that fails: what each end says. NULL: that end is open, or was told nothing. */
struct failure {
    enum err client;          /* its error */
    enum err server;          /* its error */
    const char *client_words; /* part of its sentence */
    const char *server_words; /* part of its sentence */
};

static void expect_failure(const struct tls_config *client, const struct tls_config *server,
                           const char *server_name, const struct failure *f) {
    struct pair p = pair_of(client, server, server_name);
    talk(&p, 1 << 20);
    if (p.client.e != f->client || p.server.e != f->server)
        fail_msg("client: %s %s; server: %s %s", err_name(p.client.e), p.client.why.text,
                 err_name(p.server.e), p.server.why.text);
    assert_non_null(strstr(p.client.why.text, f->client_words));
    assert_non_null(strstr(p.server.why.text, f->server_words));
    /* a closed connection stays closed, with the same words */
    bool open;
    struct why why;
    struct buf plain = buf_new(100);
    assert_int_equal(tls_read(p.server.tls, &plain, &open, &why), f->server);
    assert_string_equal(why.text, p.server.why.text);
    assert_false(open);
    assert_int_not_equal(tls_write(p.server.tls, span_str("x"), &why), OK);
    assert_int_equal(plain.size, 0);
    assert_int_equal(p.server.plain.size, 0);
    pair_free(&p);
}

static void a_client_of_another_cluster_is_refused(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &stranger);
    struct tls_config server = config_of(true, &manager);
    client.root_pem = buf_span(&manager.root); /* it trusts us; we don't trust it */
    expect_failure(&client, &server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE,
                                     "says our certificate was issued by another cluster's root",
                                     "certificate refused: issued by another cluster's root"});
}

static void a_server_of_another_cluster_is_refused(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &stranger);
    expect_failure(&client, &server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE,
                                     "certificate refused: issued by another cluster's root",
                                     "says our certificate was issued by another cluster's root"});
}

static void an_expired_or_future_certificate_is_refused_on_either_side(void **state) {
    (void)state;
    struct tls_config good_client = config_of(false, &worker);
    struct tls_config good_server = config_of(true, &manager);
    struct tls_config old_client = config_of(false, &expired);
    struct tls_config old_server = config_of(true, &expired);
    struct tls_config new_client = config_of(false, &early);
    expect_failure(&old_client, &good_server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE,
                                     "says our certificate has expired",
                                     "certificate refused: it has expired"});
    expect_failure(&good_client, &old_server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE,
                                     "certificate refused: it has expired",
                                     "says our certificate has expired"});
    expect_failure(&new_client, &good_server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE, "refused our certificate",
                                     "certificate refused: it is not yet valid"});
}

static void a_client_without_a_certificate_is_refused_where_one_is_required(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    client.cert_pem = span_of(NULL, 0);
    client.key_pem = NULL;
    expect_failure(&client, &server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE, "asks for a certificate",
                                     "gave no certificate"});
}

static void a_server_of_another_name_is_refused(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    expect_failure(&client, &server, "node-7",
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE,
                                     "certificate refused: issued to another name or role",
                                     "refused our certificate"});
    expect_failure(&client, &server, "127.0.0.1",
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE,
                                     "certificate refused: issued to another name or role",
                                     "refused our certificate"});
}

static void another_or_no_protocol_is_refused(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    const struct failure f = {ERR_PROTOCOL, ERR_PROTOCOL, "no application protocol",
                              "no application protocol"};
    client.alpn = other_alpn;
    expect_failure(&client, &server, ROLE_MANAGER, &f);
    client.alpn = NULL;
    expect_failure(&client, &server, ROLE_MANAGER, &f);
}

static void a_server_without_protocols_is_refused_by_a_client_that_wants_one(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    server.alpn = NULL;
    struct pair p = pair_of(&client, &server, ROLE_MANAGER);
    talk(&p, 1 << 20);
    assert_int_equal(p.client.e, ERR_PROTOCOL);
    assert_non_null(strstr(p.client.why.text, "agreed on no protocol"));
    pair_free(&p);
}

static void a_http_server_takes_its_best_protocol_and_clients_without_any(void **state) {
    (void)state;
    static const struct {
        const char *const *offered; /* by the client */
        const char *agreed;         /* upon */
    } cases[] = {{http_alpn, "h2"}, {old_http_alpn, "http/1.1"}, {NULL, ""}};
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    server.alpn = http_alpn;
    for (size_t i = 0; i < 3; i++) {
        client.alpn = cases[i].offered;
        struct pair p = pair_of(&client, &server, ROLE_MANAGER);
        talk(&p, 1 << 20);
        assert_open(&p);
        assert_string_equal(tls_alpn(p.server.tls), cases[i].agreed);
        pair_free(&p);
    }
}

static void a_joiner_without_trust_gets_the_root_to_check_its_digest(void **state) {
    (void)state;
    struct tls_config client = {.verify = TLS_VERIFY_NONE, .alpn = peer_alpn};
    struct tls_config server = config_of(true, &manager);
    struct x509_subject seen;
    struct buf root = buf_new(PEM_MAX);
    server.verify = TLS_VERIFY_OPTIONAL;
    struct pair p = pair_of(&client, &server, ROLE_MANAGER);
    assert_int_equal(tls_peer_root(p.client.tls, &root), ERR_PRECONDITION);
    talk(&p, 1 << 20);
    assert_open(&p);
    assert_int_equal(tls_peer_root(p.client.tls, &root), OK);
    assert_true(span_equal(buf_span(&root), buf_span(&manager.root)));
    assert_int_equal(tls_peer(p.client.tls, &seen), ERR_UNAUTHENTICATED);
    assert_int_equal(tls_peer(p.server.tls, &seen), ERR_NOT_FOUND);
    buf_clear(&root);
    assert_int_equal(tls_peer_root(p.server.tls, &root), ERR_NOT_FOUND);
    buf_free(&root);
    pair_free(&p);
}

/* --- chains, cross-signed roots, keys by their digest --- */

/* A cluster in the middle of a rotation: one manager has a certificate of the new root. */
struct rotation {
    struct secret *keys[2]; /* of the old root and the new one */
    struct buf roots[2];
    struct buf cross; /* the new one certified by the old one */
    struct party old; /* a worker that knows nothing of it */
    struct party new; /* a manager that has renewed; trusts both */
};

static void rotation_new(struct rotation *r) {
    int64_t now_s = (int64_t)time(NULL);
    *r =
        (struct rotation){.roots = {buf_new(PEM_MAX), buf_new(PEM_MAX)}, .cross = buf_new(PEM_MAX)};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(x509_key_new(&r->keys[i], NULL), OK);
        assert_int_equal(x509_root(r->keys[i], "cluster", &r->roots[i], NULL), OK);
    }
    struct span old_root = buf_span(&r->roots[0]), new_root = buf_span(&r->roots[1]);
    assert_int_equal(x509_cross(r->keys[0], old_root, new_root, &r->cross, NULL), OK);
    int bad = party_make(&r->old, r->keys[0], &r->roots[0], "node-8", ROLE_WORKER, now_s);
    bad |= party_make(&r->new, r->keys[1], &r->roots[1], "node-9", ROLE_MANAGER, now_s);
    assert_int_equal(bad, 0);
    /* its own, then the cross-signed root, then the root that joiners ask for */
    struct buf chain = buf_new(PEM_MAX);
    const char *end = "-----END CERTIFICATE-----\n";
    char *after = memmem(r->new.cert.at, r->new.cert.size, end, strlen(end));
    size_t leaf = (size_t)(after - (char *)r->new.cert.at) + strlen(end);
    assert_int_equal(
        x509_chain(span_of(r->new.cert.at, leaf), span_of(NULL, 0), buf_span(&r->cross), &chain),
        OK);
    assert_int_equal(buf_add_span(&chain, old_root), OK);
    buf_free(&r->new.cert);
    r->new.cert = chain;
    assert_int_equal(buf_add_span(&r->new.root, old_root), OK);
}

static void rotation_free(struct rotation *r) {
    struct party *both[] = {&r->old, &r->new};
    for (int i = 0; i < 2; i++) {
        secret_free(r->keys[i]);
        buf_free(&r->roots[i]);
        secret_free(both[i]->key);
        buf_free(&both[i]->cert);
        buf_free(&both[i]->root);
    }
    buf_free(&r->cross);
}

static void assert_digests(const struct tls *t, struct span cert, struct span issuer) {
    uint8_t key[KEY_DIGEST_SIZE], by[KEY_DIGEST_SIZE], expected[KEY_DIGEST_SIZE];
    assert_int_equal(tls_peer_digests(t, key, by), OK);
    assert_int_equal(x509_key_digest(cert, expected), OK);
    assert_memory_equal(key, expected, sizeof key);
    assert_int_equal(x509_key_digest(issuer, expected), OK);
    assert_memory_equal(by, expected, sizeof by);
}

static void nodes_of_the_old_root_and_of_the_new_one_meet(void **state) {
    (void)state;
    struct rotation r;
    rotation_new(&r);
    struct span trusts[] = {buf_span(&r.roots[0]), buf_span(&r.roots[1]), buf_span(&r.new.root)};
    for (size_t i = 0; i < 3; i++) {
        struct tls_config client = config_of(false, &r.old);
        struct tls_config server = config_of(true, &r.new);
        client.root_pem = trusts[i];
        struct pair p = pair_of(&client, &server, ROLE_MANAGER);
        talk(&p, 1 << 20);
        assert_open(&p);
        assert_digests(p.client.tls, buf_span(&r.new.cert), buf_span(&r.roots[1]));
        assert_digests(p.server.tls, buf_span(&r.old.cert), buf_span(&r.roots[0]));
        pair_free(&p);
    }
    rotation_free(&r);
}

static void whoever_does_not_know_the_new_root_refuses_what_lacks_the_bridge(void **state) {
    (void)state;
    struct rotation r;
    rotation_new(&r);
    struct tls_config client = config_of(false, &r.old);
    struct tls_config server = config_of(true, &r.new);
    const char *end = "-----END CERTIFICATE-----\n";
    char *after = memmem(r.new.cert.at, r.new.cert.size, end, strlen(end));
    server.cert_pem.size = (size_t)(after - (char *)r.new.cert.at) + strlen(end);
    expect_failure(&client, &server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE,
                                     "certificate refused: issued by another cluster's root",
                                     "says our certificate was issued by another cluster's root"});
    rotation_free(&r);
}

static void a_joiner_finds_the_root_of_its_token_while_another_one_signs(void **state) {
    (void)state;
    struct rotation r;
    rotation_new(&r);
    struct tls_config client = {.verify = TLS_VERIFY_NONE, .alpn = peer_alpn};
    struct tls_config server = config_of(true, &r.new);
    struct buf root = buf_new(PEM_MAX);
    uint8_t key[KEY_DIGEST_SIZE], by[KEY_DIGEST_SIZE];
    server.verify = TLS_VERIFY_OPTIONAL;
    struct pair p = pair_of(&client, &server, NULL);
    assert_int_equal(tls_peer_digests(p.client.tls, key, by), ERR_PRECONDITION);
    talk(&p, 1 << 20);
    assert_open(&p);
    assert_int_equal(tls_peer_root(p.client.tls, &root), OK);
    assert_true(span_equal(buf_span(&root), buf_span(&r.roots[0])));
    assert_int_equal(tls_peer_digests(p.client.tls, key, by), ERR_UNAUTHENTICATED);
    assert_int_equal(tls_peer_digests(p.server.tls, key, by), ERR_NOT_FOUND);
    pair_free(&p);
    /* and trusts the server then, by this root alone */
    client.verify = TLS_VERIFY_REQUIRED;
    client.root_pem = buf_span(&root);
    p = pair_of(&client, &server, ROOT_CN);
    talk(&p, 1 << 20);
    assert_open(&p);
    pair_free(&p);
    buf_free(&root);
    rotation_free(&r);
}

static void an_optional_certificate_must_still_verify(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    struct x509_subject seen;
    server.verify = TLS_VERIFY_OPTIONAL;
    struct pair p = pair_of(&client, &server, ROLE_MANAGER);
    talk(&p, 1 << 20);
    assert_open(&p);
    assert_int_equal(tls_peer(p.server.tls, &seen), OK);
    assert_string_equal(seen.cn, "node-2");
    pair_free(&p);
    client = config_of(false, &stranger);
    client.root_pem = buf_span(&manager.root);
    expect_failure(&client, &server, ROLE_MANAGER,
                   &(struct failure){ERR_CERTIFICATE, ERR_CERTIFICATE, "another cluster's root",
                                     "another cluster's root"});
}

/* A client of the version before, by OpenSSL itself; returns whether it got in. */
static bool old_client_gets_in(bool tls12) {
    struct tls_config config = config_of(true, &manager);
    config.verify = TLS_VERIFY_NONE;
    config.alpn = NULL;
    config.tls12 = tls12;
    struct end server = end_of(&config, NULL);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    SSL *client = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem());
    BIO *out = BIO_new(BIO_s_mem());
    SSL_set_bio(client, in, out);
    int done = 0;
    for (int i = 0; i < ROUNDS && done != 1; i++) {
        char *at;
        done = SSL_connect(client);
        long size = BIO_get_mem_data(out, &at);
        struct why ignored;
        if (size > 0) (void)!tls_feed(server.tls, span_of(at, (size_t)size), &ignored);
        (void)BIO_reset(out);
        end_read(&server);
        struct span reply = tls_pending(server.tls);
        if (reply.size != 0) (void)BIO_write(in, reply.at, (int)reply.size);
        tls_sent(server.tls, reply.size);
    }
    assert_int_equal(server.e, tls12 ? OK : ERR_PROTOCOL);
    if (!tls12) assert_non_null(strstr(server.why.text, "unsupported protocol"));
    SSL_free(client);
    SSL_CTX_free(ctx);
    tls_free(server.tls);
    buf_free(&server.plain);
    return done == 1;
}

static void tls_1_2_gets_in_only_where_it_is_allowed(void **state) {
    (void)state;
    assert_false(old_client_gets_in(false));
    assert_true(old_client_gets_in(true));
}

static void nothing_is_read_or_written_before_open(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    struct pair p = pair_of(&client, &server, ROLE_MANAGER);
    struct why why = {0};
    assert_int_equal(tls_write(p.client.tls, span_str("x"), &why), ERR_PRECONDITION);
    assert_int_equal(tls_shutdown(p.client.tls), ERR_PRECONDITION);
    end_read(&p.client);
    assert_false(p.client.open);
    assert_int_equal(tls_write(p.client.tls, span_str("x"), &why), ERR_PRECONDITION);
    talk(&p, 100);
    assert_open(&p);
    pair_free(&p);
}

static void a_clean_close_is_told_after_the_last_bytes(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    struct pair p = pair_of(&client, &server, ROLE_MANAGER);
    bool open;
    talk(&p, 1 << 20);
    assert_open(&p);
    assert_int_equal(tls_write(p.client.tls, span_str("last"), NULL), OK);
    assert_int_equal(tls_shutdown(p.client.tls), OK);
    assert_int_equal(tls_shutdown(p.client.tls), OK);
    assert_int_equal(tls_write(p.client.tls, span_str("x"), NULL), ERR_CLOSED);
    struct span wire = tls_pending(p.client.tls);
    assert_int_equal(tls_feed(p.server.tls, wire, NULL), OK);
    assert_int_equal(tls_read(p.server.tls, &p.server.plain, &open, NULL), OK);
    assert_true(span_equal(buf_span(&p.server.plain), span_str("last")));
    assert_int_equal(tls_read(p.server.tls, &p.server.plain, &open, NULL), ERR_CLOSED);
    assert_false(open);
    pair_free(&p);
}

static void every_altered_byte_of_a_record_closes_the_connection(void **state) {
    (void)state;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    for (size_t at = 0;; at++) {
        struct pair p = pair_of(&client, &server, ROLE_MANAGER);
        talk(&p, 1 << 20);
        assert_open(&p);
        assert_int_equal(tls_write(p.client.tls, span_str("pay 100"), NULL), OK);
        struct span wire = tls_pending(p.client.tls);
        uint8_t copy[256];
        assert_true(wire.size <= sizeof copy);
        memcpy(copy, wire.at, wire.size);
        bool last = at + 1 == wire.size;
        copy[at] ^= 1;
        bool open;
        struct why why = {0};
        assert_int_equal(tls_feed(p.server.tls, span_of(copy, wire.size), &why), OK);
        enum err e = tls_read(p.server.tls, &p.server.plain, &open, &why);
        /* a longer length waits for more */
        assert_true(e == ERR_PROTOCOL || (e == OK && (at == 3 || at == 4)));
        assert_int_equal(p.server.plain.size, 0);
        pair_free(&p);
        if (last) break;
    }
}

static void junk_instead_of_a_handshake_is_refused(void **state) {
    (void)state;
    struct tls_config server = config_of(true, &manager);
    struct end end = end_of(&server, NULL);
    assert_int_equal(tls_feed(end.tls, span_str("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), &end.why),
                     OK);
    end_read(&end);
    assert_int_equal(end.e, ERR_PROTOCOL);
    assert_non_null(strstr(end.why.text, "http request"));
    tls_free(end.tls);
    buf_free(&end.plain);
}

static void a_context_wants_a_certificate_with_its_key(void **state) {
    (void)state;
    struct tls_context *c = NULL;
    struct why why = {0};
    struct tls_config config = config_of(true, &manager);
    config.key_pem = worker.key;
    assert_int_equal(tls_context_new(&config, &c, &why), ERR_CERTIFICATE);
    assert_non_null(strstr(why.text, "own certificate"));
    config.key_pem = NULL;
    assert_int_equal(tls_context_new(&config, &c, &why), ERR_INVALID);
    config = config_of(true, &manager);
    config.root_pem = span_str("no root");
    assert_int_equal(tls_context_new(&config, &c, &why), ERR_INVALID);
    config.root_pem = span_of(NULL, 0);
    assert_int_equal(tls_context_new(&config, &c, &why), ERR_INVALID);
    assert_null(c);
}

static void a_context_may_go_while_its_connections_live(void **state) {
    (void)state;
    struct tls_config config = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    struct tls_context *c;
    struct pair p = {.server = end_of(&server, NULL), .client.plain = buf_new(1000)};
    assert_int_equal(tls_context_new(&config, &c, NULL), OK);
    assert_int_equal(tls_new(c, ROLE_MANAGER, &p.client.tls, NULL), OK);
    tls_context_release(c);
    talk(&p, 1 << 20);
    assert_open(&p);
    pair_free(&p);
    tls_context_release(NULL);
    tls_free(NULL);
}

struct meeting {
    bool open; /* both ends */
};

static enum err try_end(const struct tls_config *config, struct end *out) {
    struct tls_context *c;
    *out = (struct end){.plain = buf_new(MIB)};
    TRY(tls_context_new(config, &c, NULL));
    enum err e = tls_new(c, NULL, &out->tls, NULL);
    tls_context_release(c);
    return e;
}

static void meet(void *ctx) {
    struct meeting *m = ctx;
    struct tls_config client = config_of(false, &worker);
    struct tls_config server = config_of(true, &manager);
    struct pair p = {0};
    m->open = false;
    if (try_end(&client, &p.client) == OK && try_end(&server, &p.server) == OK) {
        talk(&p, 1 << 20);
        if (p.client.open && p.server.open &&
            tls_write(p.client.tls, span_str("hello"), NULL) == OK) {
            talk(&p, 1 << 20);
            m->open = p.server.e == OK && span_equal(buf_span(&p.server.plain), span_str("hello"));
        }
    }
    pair_free(&p);
}

static void met(void *ctx, bool fired) { assert_int_equal(((struct meeting *)ctx)->open, !fired); }

static void running_out_of_memory_leaks_nothing(void **state) {
    (void)state;
    struct meeting m;
    assert_true(fault_sweep_alloc(meet, met, &m) >= 6);
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(two_members_meet_and_know_each_other),
        cmocka_unit_test(bytes_arrive_however_the_wire_cuts_them),
        cmocka_unit_test(megabytes_go_through_a_small_reader),
        cmocka_unit_test(a_client_of_another_cluster_is_refused),
        cmocka_unit_test(a_server_of_another_cluster_is_refused),
        cmocka_unit_test(an_expired_or_future_certificate_is_refused_on_either_side),
        cmocka_unit_test(a_client_without_a_certificate_is_refused_where_one_is_required),
        cmocka_unit_test(a_server_of_another_name_is_refused),
        cmocka_unit_test(another_or_no_protocol_is_refused),
        cmocka_unit_test(a_server_without_protocols_is_refused_by_a_client_that_wants_one),
        cmocka_unit_test(a_http_server_takes_its_best_protocol_and_clients_without_any),
        cmocka_unit_test(a_joiner_without_trust_gets_the_root_to_check_its_digest),
        cmocka_unit_test(nodes_of_the_old_root_and_of_the_new_one_meet),
        cmocka_unit_test(whoever_does_not_know_the_new_root_refuses_what_lacks_the_bridge),
        cmocka_unit_test(a_joiner_finds_the_root_of_its_token_while_another_one_signs),
        cmocka_unit_test(an_optional_certificate_must_still_verify),
        cmocka_unit_test(tls_1_2_gets_in_only_where_it_is_allowed),
        cmocka_unit_test(nothing_is_read_or_written_before_open),
        cmocka_unit_test(a_clean_close_is_told_after_the_last_bytes),
        cmocka_unit_test(every_altered_byte_of_a_record_closes_the_connection),
        cmocka_unit_test(junk_instead_of_a_handshake_is_refused),
        cmocka_unit_test(a_context_wants_a_certificate_with_its_key),
        cmocka_unit_test(a_context_may_go_while_its_connections_live),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("tls", cases, start, finish);
}
