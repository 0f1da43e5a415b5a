/* CAs that their users bring, made by the openssl command; CAs that certify each other, so that one
 * may take the place of the other; keys known by their digests, and proofs of old keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/x509.h"
#include "tests/lib/fault.h"
#include "tests/lib/scratch.h"

#include <stdio.h>
#include <time.h>

#include <sodium.h>

#define DAY_S   86400
#define NOTHING span_of(NULL, 0)

static const char config[] = "[req]\ndistinguished_name=dn\n[dn]\n"
                             "[ca]\nbasicConstraints=critical,CA:TRUE\n"
                             "keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
                             "[mid]\nbasicConstraints=critical,CA:TRUE,pathlen:0\n"
                             "keyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
                             "authorityKeyIdentifier=keyid\n"
                             "[leaf]\nbasicConstraints=critical,CA:FALSE\n"
                             "keyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\n"
                             "[revoker]\nbasicConstraints=critical,CA:TRUE\n"
                             "keyUsage=critical,cRLSign\nsubjectKeyIdentifier=hash\n"
                             "[silent]\nbasicConstraints=critical,CA:TRUE\n"
                             "subjectKeyIdentifier=hash\n"
                             "[nameless]\nbasicConstraints=critical,CA:TRUE\n"
                             "keyUsage=critical,keyCertSign\nsubjectKeyIdentifier=none\n"
                             "[narrow]\nbasicConstraints=critical,CA:TRUE\n"
                             "keyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
                             "nameConstraints=critical,permitted;DNS:example.org\n";

/* A CA: what there is of one in a cluster. */
struct ca {
    struct secret *key; /* PEM; the signing one */
    struct buf root;    /* PEM */
    struct buf issuer;  /* PEM; empty when the root signs */
};

static struct scratch dir;
static int64_t now_s;
static struct secret *node_key; /* PEM */
static struct buf request;      /* PEM, for it */
static struct ca ours;          /* a cluster's own */

static int start(void **state) {
    (void)state;
    now_s = (int64_t)time(NULL);
    request = buf_new(PEM_MAX);
    ours = (struct ca){.root = buf_new(PEM_MAX), .issuer = buf_new(PEM_MAX)};
    scratch_new(&dir);
    scratch_put(&dir, "conf", span_str(config));
    if (crypto_start(NULL) != OK || x509_key_new(&node_key, NULL) != OK) return -1;
    if (x509_request(node_key, "node-1", &request, NULL) != OK) return -1;
    if (x509_key_new(&ours.key, NULL) != OK) return -1;
    return x509_root(ours.key, "cluster", &ours.root, NULL) == OK ? 0 : -1;
}

static void ca_free(struct ca *c) {
    secret_free(c->key);
    buf_free(&c->root);
    buf_free(&c->issuer);
}

static int finish(void **state) {
    (void)state;
    scratch_free(&dir);
    secret_free(node_key);
    buf_free(&request);
    ca_free(&ours);
    return 0;
}

static void must(struct buf *said, int code) {
    if (code != 0) fail_msg("%.*s", (int)said->size, (const char *)said->at);
    buf_free(said);
}

static const char *algorithm(const char *kind) {
    if (strcmp(kind, "rsa1024") == 0) return "RSA -pkeyopt rsa_keygen_bits:1024";
    if (strcmp(kind, "rsa2048") == 0) return "RSA -pkeyopt rsa_keygen_bits:2048";
    if (strcmp(kind, "ed25519") == 0) return "ED25519";
    if (strcmp(kind, "p384") == 0) return "EC -pkeyopt ec_paramgen_curve:P-384";
    if (strcmp(kind, "p521") == 0) return "EC -pkeyopt ec_paramgen_curve:P-521";
    if (strcmp(kind, "k256") == 0) return "EC -pkeyopt ec_paramgen_curve:secp256k1";
    return "EC -pkeyopt ec_paramgen_curve:P-256";
}

/* NAME.key and NAME.pem: a self-signed one. */
static void make_root(const char *name, const char *kind, const char *extensions, int days,
                      const char *digest) {
    struct buf said = buf_new(8 * KIB);
    must(&said, scratch_run(&dir, &said, "openssl genpkey -algorithm %s -out %s.key",
                            algorithm(kind), name));
    must(&said, scratch_run(&dir, &said,
                            "openssl req -x509 -config conf -extensions %s -key %s.key -out %s.pem "
                            "-days %d %s -subj /O=Acme/CN=%s",
                            extensions, name, name, days, digest, name));
}

/* The same, signed by BY. */
static void make_below(const char *name, const char *kind, const char *extensions, const char *by) {
    struct buf said = buf_new(8 * KIB);
    must(&said, scratch_run(&dir, &said, "openssl genpkey -algorithm %s -out %s.key",
                            algorithm(kind), name));
    must(&said, scratch_run(&dir, &said,
                            "openssl req -new -config conf -key %s.key -out %s.csr -subj "
                            "/O=Acme/CN=%s",
                            name, name, name));
    must(&said, scratch_run(&dir, &said,
                            "openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key -out %s.pem "
                            "-days 1000 -sha256 -set_serial 77 -extfile conf -extensions %s",
                            name, by, by, name, extensions));
}

static struct secret *key_of(const char *name) {
    char file[64];
    struct buf pem = buf_new(PEM_MAX);
    struct secret *out;
    (void)snprintf(file, sizeof file, "%s.key", name);
    scratch_get(&dir, file, &pem);
    assert_int_equal(secret_new(pem.at, pem.size, &out), OK);
    buf_free(&pem);
    return out;
}

/* Certificates of these names, one after the other, up to the first NULL. */
static struct buf pem_of(const char *a, const char *b, const char *c) {
    struct buf pem = buf_new(PEM_MAX);
    const char *names[] = {a, b, c};
    char file[64];
    for (int i = 0; i < 3 && names[i] != NULL; i++) {
        (void)snprintf(file, sizeof file, "%s.pem", names[i]);
        scratch_get(&dir, file, &pem);
    }
    return pem;
}

/* Judges a chain with the key of `name` (NULL: without one). */
static enum err judge(struct buf chain, const char *name, struct ca *out, struct why *why) {
    *out = (struct ca){.root = buf_new(PEM_MAX), .issuer = buf_new(PEM_MAX)};
    *why = (struct why){0};
    now_s = (int64_t)time(NULL); /* it may be made this second */
    if (name != NULL) out->key = key_of(name);
    enum err e = x509_ca_check(buf_span(&chain), out->key, buf_span(&ours.root), now_s, &out->root,
                               &out->issuer, why);
    if (e != OK) assert_int_equal(out->root.size + out->issuer.size, 0);
    buf_free(&chain);
    return e;
}

static struct span signer_of(const struct ca *c) {
    return buf_span(c->issuer.size != 0 ? &c->issuer : &c->root);
}

/* A manager's certificate and its chain. */
static struct buf chain_by(const struct ca *c, struct span cross) {
    static const struct x509_subject subject = {
        .cn = "node-1", .ou = ROLE_MANAGER, .o = "cluster", .hosts = "127.0.0.1"};
    struct buf leaf = buf_new(PEM_MAX), chain = buf_new(PEM_MAX);
    struct why why = {0};
    if (x509_issue(c->key, signer_of(c), buf_span(&request), &subject, now_s, DAY_S, &leaf, &why) !=
        OK)
        fail_msg("%s", why.text);
    assert_int_equal(x509_chain(buf_span(&leaf), buf_span(&c->issuer), cross, &chain), OK);
    buf_free(&leaf);
    return chain;
}

/* We and the openssl command say the same of the chain. */
static void expect_trusted(const struct buf *chain, struct span roots, bool trusted) {
    struct x509_subject seen;
    enum err e = x509_verify(roots, buf_span(chain), now_s, &seen, NULL);
    scratch_put(&dir, "roots", roots);
    scratch_put(&dir, "chain", buf_span(chain));
    int code = scratch_run(&dir, NULL,
                           "openssl verify -x509_strict -purpose sslserver -verify_hostname "
                           "swarm-ca -CAfile roots -untrusted chain chain");
    assert_int_equal(e, trusted ? OK : ERR_CERTIFICATE);
    if (trusted)
        assert_int_equal(code, 0);
    else
        assert_int_not_equal(code, 0);
}

static void roots_of_all_permitted_keys_may_be_brought(void **state) {
    (void)state;
    static const char *const kinds[] = {"p256", "p384", "p521", "rsa2048"};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct ca c;
        struct why why;
        uint8_t issuer[KEY_DIGEST_SIZE], key[KEY_DIGEST_SIZE];
        make_root("good", kinds[i], "ca", 400, "-sha256");
        if (judge(pem_of("good", NULL, NULL), "good", &c, &why) != OK) fail_msg("%s", why.text);
        assert_int_equal(c.issuer.size, 0);
        struct buf chain = chain_by(&c, NOTHING);
        expect_trusted(&chain, buf_span(&c.root), true);
        expect_trusted(&chain, buf_span(&ours.root), false);
        assert_int_equal(x509_issuer_digest(buf_span(&chain), buf_span(&c.root), issuer), OK);
        assert_int_equal(x509_private_digest(c.key, key, NULL), OK);
        assert_memory_equal(issuer, key, sizeof key);
        buf_free(&chain);
        ca_free(&c);
    }
}

static void a_root_may_stay_offline_above_the_one_that_signs(void **state) {
    (void)state;
    struct ca c;
    struct why why;
    uint8_t issuer[KEY_DIGEST_SIZE], key[KEY_DIGEST_SIZE];
    make_root("above", "rsa2048", "ca", 4000, "-sha512");
    make_below("below", "p384", "mid", "above");
    if (judge(pem_of("below", "above", NULL), "below", &c, &why) != OK) fail_msg("%s", why.text);
    assert_true(c.issuer.size != 0);
    struct buf chain = chain_by(&c, NOTHING);
    expect_trusted(&chain, buf_span(&c.root), true);
    assert_int_equal(x509_issuer_digest(buf_span(&chain), NOTHING, issuer), OK);
    assert_int_equal(x509_key_digest(buf_span(&c.issuer), key), OK);
    assert_memory_equal(issuer, key, sizeof key);
    /* both apart, as we write them: the digest of a root does not hang on its user's spaces */
    struct buf spaced = buf_new(PEM_MAX);
    struct ca again;
    assert_int_equal(buf_add_span(&spaced, span_str("some words before\n")), OK);
    struct buf plain = pem_of("below", "above", NULL);
    assert_int_equal(buf_add_span(&spaced, buf_span(&plain)), OK);
    assert_int_equal(judge(spaced, NULL, &again, &why), OK);
    assert_true(span_equal(buf_span(&again.root), buf_span(&c.root)));
    assert_true(span_equal(buf_span(&again.issuer), buf_span(&c.issuer)));
    buf_free(&plain);
    buf_free(&chain);
    ca_free(&again);
    ca_free(&c);
}

static void what_can_not_be_a_ca_is_refused_with_its_reason(void **state) {
    (void)state;
    static const struct {
        const char *kind, *extensions;
        int days;
        const char *digest, *words;
    } bad[] = {
        {"p256", "leaf", 4000, "-sha256", "CA:TRUE"},
        {"p256", "revoker", 4000, "-sha256", "keyCertSign"},
        {"p256", "silent", 4000, "-sha256", "keyCertSign"},
        {"p256", "nameless", 4000, "-sha256", "subject key identifier"},
        {"p256", "narrow", 4000, "-sha256", "would not be accepted"},
        {"p256", "ca", 364, "-sha256", "within a year"},
        {"p256", "ca", 4000, "-sha1", "SHA-256"},
        {"rsa1024", "ca", 4000, "-sha256", "2048 bits"},
        {"k256", "ca", 4000, "-sha256", "P-256"},
        {"ed25519", "ca", 4000, "-sha256", "SHA-256"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct ca c;
        struct why why;
        make_root("bad", bad[i].kind, bad[i].extensions, bad[i].days, bad[i].digest);
        enum err e = judge(pem_of("bad", NULL, NULL), "bad", &c, &why);
        if (e != ERR_INVALID || strstr(why.text, bad[i].words) == NULL)
            fail_msg("%zu: %s: %s", i, err_name(e), why.text);
        ca_free(&c);
    }
}

static void a_ca_of_another_time_is_refused(void **state) {
    (void)state;
    static const struct {
        int64_t shift_s;
        const char *words;
    } cases[] = {{-DAY_S, "not yet valid"}, {500 * DAY_S, "has expired"}, {60 * DAY_S, "a year"}};
    make_root("timed", "p256", "ca", 400, "-sha256");
    struct buf pem = pem_of("timed", NULL, NULL), root = buf_new(PEM_MAX), issuer = buf_new(1);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct why why = {0};
        assert_int_equal(x509_ca_check(buf_span(&pem), NULL, NOTHING, now_s + cases[i].shift_s,
                                       &root, &issuer, &why),
                         ERR_INVALID);
        assert_non_null(strstr(why.text, cases[i].words));
    }
    buf_free(&pem);
}

static void chains_out_of_order_and_keys_of_others_are_refused(void **state) {
    (void)state;
    make_root("top", "p256", "ca", 4000, "-sha256");
    make_root("else", "p256", "ca", 4000, "-sha256");
    make_below("sub", "p256", "mid", "top");
    static const struct {
        const char *chain[3], *key, *words;
    } bad[] = {
        {{"sub", NULL, NULL}, "sub", "up to the root"},
        {{"sub", "else", NULL}, "sub", "not signed by the next"},
        {{"top", "sub", NULL}, "top", "root already"},
        {{"sub", "top", "else"}, "sub", "root already"},
        {{"sub", "top", NULL}, "top", "not the CA certificate's"},
        {{"top", NULL, NULL}, "else", "not the CA certificate's"},
    };
    struct ca c;
    struct why why;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        enum err e =
            judge(pem_of(bad[i].chain[0], bad[i].chain[1], bad[i].chain[2]), bad[i].key, &c, &why);
        if (e != ERR_INVALID || strstr(why.text, bad[i].words) == NULL)
            fail_msg("%zu: %s: %s", i, err_name(e), why.text);
        ca_free(&c);
    }
    struct buf own = buf_new(PEM_MAX);
    assert_int_equal(buf_add_span(&own, buf_span(&ours.root)), OK);
    assert_int_equal(judge(own, NULL, &c, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "uses now"));
    ca_free(&c);
    struct buf none = buf_new(1);
    assert_int_equal(judge(none, NULL, &c, &why), ERR_INVALID);
    ca_free(&c);
    struct buf junk = buf_new(100);
    assert_int_equal(buf_add_span(&junk, span_str("-----BEGIN CERTIFICATE-----\nAAAA\n")), OK);
    assert_int_equal(judge(junk, NULL, &c, &why), ERR_INVALID);
    ca_free(&c);
}

/* --- one CA after the other --- */

static struct ca own_ca(void) {
    struct ca c = {.root = buf_new(PEM_MAX), .issuer = buf_new(PEM_MAX)};
    assert_int_equal(x509_key_new(&c.key, NULL), OK);
    assert_int_equal(x509_root(c.key, "cluster", &c.root, NULL), OK);
    return c;
}

static struct buf cross_of(const struct ca *by, const struct ca *next) {
    struct buf out = buf_new(PEM_MAX);
    struct why why = {0};
    if (x509_cross(by->key, signer_of(by), buf_span(&next->root), &out, &why) != OK)
        fail_msg("%s", why.text);
    return out;
}

static struct buf both_of(const struct buf *a, const struct buf *b) {
    struct buf out = buf_new(PEM_MAX);
    assert_int_equal(buf_add_span(&out, buf_span(a)), OK);
    assert_int_equal(buf_add_span(&out, buf_span(b)), OK);
    return out;
}

/* Whoever trusts one of the two, or both, in either order, takes what the next one signs. */
static void expect_handover(const struct ca *old, const struct ca *next) {
    struct buf cross = cross_of(old, next), chain = chain_by(next, buf_span(&cross));
    struct buf old_next = both_of(&old->root, &next->root),
               next_old = both_of(&next->root, &old->root);
    expect_trusted(&chain, buf_span(&old->root), true);
    expect_trusted(&chain, buf_span(&next->root), true);
    expect_trusted(&chain, buf_span(&old_next), true);
    expect_trusted(&chain, buf_span(&next_old), true);
    assert_int_equal(x509_ca_try(next->key, buf_span(&next->root), buf_span(&next->issuer),
                                 buf_span(&cross), buf_span(&old->root), now_s, NULL),
                     OK);
    assert_int_equal(x509_ca_try(next->key, buf_span(&next->root), buf_span(&next->issuer), NOTHING,
                                 buf_span(&old->root), now_s, NULL),
                     ERR_CERTIFICATE);
    /* as a server shows it to one who joins: with the root at the end */
    struct buf shown = both_of(&chain, &old->root), later = both_of(&chain, &next->root);
    expect_trusted(&shown, buf_span(&old->root), true);
    expect_trusted(&later, buf_span(&old->root), true);
    expect_trusted(&later, buf_span(&next->root), true);
    struct buf all[] = {cross, chain, old_next, next_old, shown, later};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        buf_free(&all[i]);
}

static void a_cross_signed_root_is_trusted_by_both_sides(void **state) {
    (void)state;
    struct ca next = own_ca();
    expect_handover(&ours, &next);
    ca_free(&next);
}

static void a_brought_ca_below_its_root_takes_over_and_hands_back(void **state) {
    (void)state;
    struct ca c;
    struct why why;
    make_root("peak", "rsa2048", "ca", 4000, "-sha256");
    make_below("valley", "p521", "ca", "peak");
    if (judge(pem_of("valley", "peak", NULL), "valley", &c, &why) != OK) fail_msg("%s", why.text);
    expect_handover(&ours, &c);
    struct ca next = own_ca();
    expect_trusted(&ours.root, buf_span(&c.root), false);
    struct buf cross = cross_of(&c, &next), chain = buf_new(PEM_MAX);
    /* the way up from the cross-signed root is the present CA's own chain */
    assert_int_equal(buf_add_span(&cross, buf_span(&c.issuer)), OK);
    chain = chain_by(&next, buf_span(&cross));
    expect_trusted(&chain, buf_span(&c.root), true);
    expect_trusted(&chain, buf_span(&next.root), true);
    buf_free(&cross);
    buf_free(&chain);
    ca_free(&next);
    ca_free(&c);
}

static void a_ca_that_may_have_none_below_it_can_not_hand_over(void **state) {
    (void)state;
    struct ca c, next = own_ca();
    struct why why;
    make_root("hill", "p256", "ca", 4000, "-sha256");
    make_below("dale", "p256", "mid", "hill");
    assert_int_equal(judge(pem_of("dale", "hill", NULL), "dale", &c, &why), OK);
    struct buf cross = cross_of(&c, &next);
    assert_int_equal(buf_add_span(&cross, buf_span(&c.issuer)), OK);
    assert_int_equal(x509_ca_try(next.key, buf_span(&next.root), NOTHING, buf_span(&cross),
                                 buf_span(&c.root), now_s, &why),
                     ERR_CERTIFICATE);
    buf_free(&cross);
    ca_free(&next);
    ca_free(&c);
}

static void three_roots_in_a_row_are_bridged(void **state) {
    (void)state;
    struct ca second = own_ca(), third = own_ca();
    struct buf late = cross_of(&second, &third), early = cross_of(&ours, &second);
    struct buf cross = both_of(&late, &early), chain = chain_by(&third, buf_span(&cross));
    expect_trusted(&chain, buf_span(&ours.root), true);
    expect_trusted(&chain, buf_span(&second.root), true);
    expect_trusted(&chain, buf_span(&third.root), true);
    struct buf all[] = {late, early, cross, chain};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        buf_free(&all[i]);
    ca_free(&second);
    ca_free(&third);
}

static void a_cross_signed_root_has_subject_key_and_dates_of_the_root(void **state) {
    (void)state;
    struct ca next = own_ca();
    struct buf cross = cross_of(&ours, &next);
    struct buf names[4] = {buf_new(PEM_MAX), buf_new(PEM_MAX), buf_new(PEM_MAX), buf_new(PEM_MAX)};
    int64_t from_s[2], until_s[2];
    uint8_t issuer[KEY_DIGEST_SIZE], key[KEY_DIGEST_SIZE];
    assert_int_equal(x509_names(buf_span(&cross), &names[0], &names[1]), OK);
    assert_int_equal(x509_names(buf_span(&next.root), &names[2], &names[3]), OK);
    assert_true(span_equal(buf_span(&names[0]), buf_span(&names[2])));
    assert_true(span_equal(buf_span(&names[1]), buf_span(&names[3])));
    assert_int_equal(x509_dates(buf_span(&cross), &from_s[0], &until_s[0]), OK);
    assert_int_equal(x509_dates(buf_span(&next.root), &from_s[1], &until_s[1]), OK);
    assert_int_equal(from_s[0], from_s[1]);
    assert_int_equal(until_s[0], until_s[1]);
    assert_int_equal(x509_issuer_digest(buf_span(&cross), buf_span(&ours.root), issuer), OK);
    assert_int_equal(x509_key_digest(buf_span(&ours.root), key), OK);
    assert_memory_equal(issuer, key, sizeof key);
    assert_int_equal(x509_issuer_digest(buf_span(&cross), buf_span(&next.root), issuer),
                     ERR_NOT_FOUND);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        buf_free(&names[i]);
    buf_free(&cross);
    ca_free(&next);
}

/* --- digests and proofs --- */

static void digests_are_those_of_the_openssl_command(void **state) {
    (void)state;
    struct buf der = buf_new(PEM_MAX), said = buf_new(PEM_MAX), chain = chain_by(&ours, NOTHING);
    uint8_t expected[KEY_DIGEST_SIZE], digest[KEY_DIGEST_SIZE];
    struct span key = secret_span(node_key);
    scratch_put(&dir, "node.key", key);
    must(&said,
         scratch_run(&dir, &said, "openssl pkey -in node.key -pubout -outform DER -out der"));
    scratch_get(&dir, "der", &der);
    (void)crypto_hash_sha256(expected, der.at, der.size);
    assert_int_equal(x509_key_digest(buf_span(&chain), digest), OK);
    assert_memory_equal(digest, expected, sizeof digest);
    assert_int_equal(x509_request_digest(buf_span(&request), digest, NULL), OK);
    assert_memory_equal(digest, expected, sizeof digest);
    assert_int_equal(x509_private_digest(node_key, digest, NULL), OK);
    assert_memory_equal(digest, expected, sizeof digest);
    assert_int_equal(x509_key_digest(span_str("x"), digest), ERR_INVALID);
    assert_int_equal(x509_request_digest(span_str("x"), digest, NULL), ERR_INVALID);
    buf_free(&der);
    buf_free(&chain);
}

static void a_certificate_says_whose_it_is(void **state) {
    (void)state;
    struct buf chain = chain_by(&ours, NOTHING);
    struct x509_subject seen;
    assert_int_equal(x509_subject(buf_span(&chain), &seen), OK);
    assert_string_equal(seen.cn, "node-1");
    assert_string_equal(seen.ou, ROLE_MANAGER);
    assert_string_equal(seen.o, "cluster");
    assert_int_equal(x509_subject(buf_span(&ours.root), &seen), ERR_CERTIFICATE);
    buf_free(&chain);
}

static void a_proof_is_by_one_key_over_the_same_bytes(void **state) {
    (void)state;
    struct buf chain = chain_by(&ours, NOTHING), proof = buf_new(256), other = buf_new(256);
    struct span csr = buf_span(&request);
    struct why why;
    assert_int_equal(x509_prove(node_key, csr, &proof, NULL), OK);
    assert_int_equal(x509_prove(ours.key, csr, &other, NULL), OK);
    assert_int_equal(x509_proof_check(buf_span(&chain), csr, buf_span(&proof), NULL), OK);
    assert_int_equal(x509_proof_check(buf_span(&chain), csr, buf_span(&other), &why),
                     ERR_CERTIFICATE);
    assert_int_equal(x509_proof_check(buf_span(&chain), span_str("y"), buf_span(&proof), &why),
                     ERR_CERTIFICATE);
    assert_int_equal(x509_proof_check(buf_span(&chain), csr, NOTHING, &why), ERR_CERTIFICATE);
    assert_int_equal(x509_proof_check(span_str("x"), csr, buf_span(&proof), &why), ERR_CERTIFICATE);
    for (size_t i = 0; i < proof.size; i++) {
        proof.at[i] ^= 1;
        assert_int_equal(x509_proof_check(buf_span(&chain), csr, buf_span(&proof), &why),
                         ERR_CERTIFICATE);
        proof.at[i] ^= 1;
    }
    /* a bare signature, as the key makes them elsewhere, proves nothing */
    struct buf said = buf_new(8 * KIB);
    scratch_put(&dir, "node.key", secret_span(node_key));
    scratch_put(&dir, "bytes", csr);
    must(&said, scratch_run(&dir, &said, "openssl dgst -sha256 -sign node.key -out bare bytes"));
    buf_clear(&other);
    scratch_get(&dir, "bare", &other);
    assert_int_equal(x509_proof_check(buf_span(&chain), csr, buf_span(&other), &why),
                     ERR_CERTIFICATE);
    buf_free(&chain);
    buf_free(&proof);
    buf_free(&other);
}

static void a_certificate_that_ran_out_was_good_as_long_as_it_lasted(void **state) {
    (void)state;
    struct buf chain = chain_by(&ours, NOTHING);
    struct ca other = own_ca();
    struct x509_subject seen;
    struct why why = {0};
    int64_t later_s = now_s + 30 * DAY_S;
    assert_int_equal(x509_verify(buf_span(&ours.root), buf_span(&chain), later_s, &seen, &why),
                     ERR_CERTIFICATE);
    assert_non_null(strstr(why.text, "expired"));
    assert_int_equal(x509_verify_ended(buf_span(&ours.root), buf_span(&chain), &seen, NULL), OK);
    assert_string_equal(seen.cn, "node-1");
    assert_int_equal(x509_verify_ended(buf_span(&other.root), buf_span(&chain), &seen, &why),
                     ERR_CERTIFICATE);
    assert_int_equal(x509_verify_ended(buf_span(&ours.root), span_str("x"), &seen, &why),
                     ERR_CERTIFICATE);
    ca_free(&other);
    buf_free(&chain);
}

struct trying {
    enum err e; /* what the scenario got */
};

static void try_all(void *ctx) {
    struct trying *t = ctx;
    struct buf cross = buf_new(PEM_MAX), proof = buf_new(256), root = buf_new(PEM_MAX),
               issuer = buf_new(PEM_MAX), der = buf_new(PEM_MAX);
    uint8_t digest[KEY_DIGEST_SIZE];
    t->e = x509_ca_check(buf_span(&ours.root), ours.key, NOTHING, now_s, &root, &issuer, NULL);
    if (t->e == OK)
        t->e = x509_cross(ours.key, buf_span(&ours.root), buf_span(&ours.root), &cross, NULL);
    if (t->e == OK) t->e = x509_prove(node_key, buf_span(&request), &proof, NULL);
    if (t->e == OK) t->e = x509_names(buf_span(&root), &der, &der);
    if (t->e == OK) t->e = x509_issuer_digest(buf_span(&cross), buf_span(&ours.root), digest);
    struct buf all[] = {cross, proof, root, issuer, der};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        buf_free(&all[i]);
}

static void tried(void *ctx, bool fired) {
    assert_int_equal(((struct trying *)ctx)->e, fired ? ERR_NOMEM : OK);
}

static void running_out_of_memory_leaks_nothing(void **state) {
    (void)state;
    struct trying t;
    assert_true(fault_sweep_alloc(try_all, tried, &t) >= 10);
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(roots_of_all_permitted_keys_may_be_brought),
        cmocka_unit_test(a_root_may_stay_offline_above_the_one_that_signs),
        cmocka_unit_test(what_can_not_be_a_ca_is_refused_with_its_reason),
        cmocka_unit_test(a_ca_of_another_time_is_refused),
        cmocka_unit_test(chains_out_of_order_and_keys_of_others_are_refused),
        cmocka_unit_test(a_cross_signed_root_is_trusted_by_both_sides),
        cmocka_unit_test(a_brought_ca_below_its_root_takes_over_and_hands_back),
        cmocka_unit_test(a_ca_that_may_have_none_below_it_can_not_hand_over),
        cmocka_unit_test(three_roots_in_a_row_are_bridged),
        cmocka_unit_test(a_cross_signed_root_has_subject_key_and_dates_of_the_root),
        cmocka_unit_test(digests_are_those_of_the_openssl_command),
        cmocka_unit_test(a_certificate_says_whose_it_is),
        cmocka_unit_test(a_proof_is_by_one_key_over_the_same_bytes),
        cmocka_unit_test(a_certificate_that_ran_out_was_good_as_long_as_it_lasted),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("x509_ca", cases, start, finish);
}
