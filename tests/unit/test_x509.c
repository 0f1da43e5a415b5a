/* Roots, requests and certificates: what is issued, what is refused, and that the openssl command
 * agrees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/x509.h"
#include "tests/lib/fault.h"
#include "tests/lib/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sodium.h>

#define DAY_S 86400

/* A cluster's root and one node's key and request; made once. */
struct world {
    struct secret *root_key; /* PEM */
    struct buf root;         /* PEM */
    struct secret *node_key; /* PEM */
    struct buf request;      /* PEM */
    int64_t now_s;           /* of the start */
};
static struct world w;

static const struct x509_subject subject = {.cn = "node-1", .ou = ROLE_MANAGER, .o = "cluster.1_a"};

static int start(void **state) {
    (void)state;
    w = (struct world){.root = buf_new(PEM_MAX), .request = buf_new(PEM_MAX)};
    w.now_s = (int64_t)time(NULL);
    if (crypto_start(NULL) != OK) return -1;
    if (x509_key_new(&w.root_key, NULL) != OK || x509_key_new(&w.node_key, NULL) != OK) return -1;
    if (x509_root(w.root_key, "cluster.1_a", &w.root, NULL) != OK) return -1;
    return x509_request(w.node_key, "who-i-say-i-am", &w.request, NULL) == OK ? 0 : -1;
}

static int finish(void **state) {
    (void)state;
    secret_free(w.root_key);
    secret_free(w.node_key);
    buf_free(&w.root);
    buf_free(&w.request);
    return 0;
}

static enum err issue_at(int64_t now_s, int64_t validity_s, struct buf *out) {
    struct why why = {0};
    *out = buf_new(PEM_MAX);
    enum err e = x509_issue(w.root_key, buf_span(&w.root), buf_span(&w.request), &subject, now_s,
                            validity_s, out, &why);
    if (e != OK) fail_msg("%s", why.text);
    return e;
}

static X509 *parsed(const struct buf *pem) {
    BIO *in = BIO_new_mem_buf(pem->at, (int)pem->size);
    X509 *cert = PEM_read_bio_X509(in, NULL, NULL, NULL);
    BIO_free(in);
    assert_non_null(cert);
    return cert;
}

static void an_issued_certificate_verifies_and_says_what_the_signer_said(void **state) {
    (void)state;
    struct buf cert;
    struct x509_subject seen;
    struct why why = {0};
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &cert), OK);
    assert_int_equal(x509_verify(buf_span(&w.root), buf_span(&cert), w.now_s, &seen, &why), OK);
    assert_string_equal(seen.cn, "node-1");
    assert_string_equal(seen.ou, ROLE_MANAGER);
    assert_string_equal(seen.o, "cluster.1_a");
    assert_int_equal(x509_key_matches(buf_span(&cert), w.node_key, &why), OK);
    assert_int_equal(x509_key_matches(buf_span(&cert), w.root_key, &why), ERR_CERTIFICATE);
    buf_free(&cert);
}

static void a_leaf_carries_the_promised_extensions(void **state) {
    (void)state;
    struct buf pem;
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &pem), OK);
    X509 *cert = parsed(&pem);
    assert_int_equal(X509_check_host(cert, "node-1", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, ROLE_MANAGER, 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, ROOT_CN, 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, ROLE_WORKER, 0, 0, NULL), 0);
    assert_int_equal(X509_check_host(cert, "node-2", 0, 0, NULL), 0);
    assert_int_equal(X509_check_host(cert, "who-i-say-i-am", 0, 0, NULL), 0);
    assert_int_equal(X509_check_purpose(cert, X509_PURPOSE_SSL_SERVER, 0), 1);
    assert_int_equal(X509_check_purpose(cert, X509_PURPOSE_SSL_CLIENT, 0), 1);
    assert_int_equal(X509_check_ca(cert), 0);
    assert_int_equal(X509_get_key_usage(cert), KU_DIGITAL_SIGNATURE);
    assert_int_equal(X509_get_extended_key_usage(cert), XKU_SSL_SERVER | XKU_SSL_CLIENT);
    assert_non_null(X509_get0_subject_key_id(cert));
    assert_non_null(X509_get0_authority_key_id(cert));
    assert_int_equal(X509_get_signature_nid(cert), NID_ecdsa_with_SHA256);
    assert_int_equal(ASN1_STRING_length(X509_get0_serialNumber(cert)), 16);
    X509_free(cert);
    buf_free(&pem);
}

static void a_root_may_sign_and_nothing_else(void **state) {
    (void)state;
    X509 *root = parsed(&w.root);
    assert_int_equal(X509_check_ca(root), 1);
    assert_int_equal(X509_get_pathlen(root), -1);
    assert_int_equal(X509_get_key_usage(root), KU_KEY_CERT_SIGN);
    assert_int_equal(X509_get_extension_flags(root) & EXFLAG_SS, EXFLAG_SS);
    X509_free(root);
}

/* OpenSSL reads any byte but 0 as TRUE; Go's clients read DER. */
static void what_a_root_says_is_der(void **state) {
    (void)state;
    static const uint8_t ca[] = {0x30, 3, 1, 1, 0xff}; /* CA:TRUE */
    uint8_t *der = NULL;
    BIO *in = BIO_new_mem_buf(w.root.at, (int)w.root.size);
    X509 *root = PEM_read_bio_X509(in, NULL, NULL, NULL);
    int size = i2d_X509(root, &der);
    assert_true(size > 0);
    assert_non_null(memmem(der, (size_t)size, ca, sizeof ca));
    OPENSSL_free(der);
    X509_free(root);
    BIO_free(in);
}

static void serials_differ(void **state) {
    (void)state;
    struct buf pem[2];
    X509 *cert[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &pem[i]), OK);
        cert[i] = parsed(&pem[i]);
    }
    assert_int_not_equal(
        ASN1_INTEGER_cmp(X509_get0_serialNumber(cert[0]), X509_get0_serialNumber(cert[1])), 0);
    for (int i = 0; i < 2; i++) {
        X509_free(cert[i]);
        buf_free(&pem[i]);
    }
}

static void dates_are_backdated_by_an_hour_and_bounded_by_the_root(void **state) {
    (void)state;
    struct buf cert;
    int64_t from_s;
    int64_t until_s;
    int64_t root_from_s;
    int64_t root_until_s;
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &cert), OK);
    assert_int_equal(x509_dates(buf_span(&cert), &from_s, &until_s), OK);
    assert_int_equal(from_s, w.now_s - BACKDATE_S);
    assert_int_equal(until_s, w.now_s + NODE_VALIDITY_S);
    buf_free(&cert);
    assert_int_equal(x509_dates(buf_span(&w.root), &root_from_s, &root_until_s), OK);
    assert_true(root_from_s <= w.now_s - BACKDATE_S + 5 && root_from_s >= w.now_s - BACKDATE_S);
    assert_int_equal(root_until_s - root_from_s, ROOT_VALIDITY_S + BACKDATE_S);
    assert_int_equal(issue_at(w.now_s + DAY_S, ROOT_VALIDITY_S, &cert), OK);
    assert_int_equal(x509_dates(buf_span(&cert), &from_s, &until_s), OK);
    assert_int_equal(until_s, root_until_s);
    buf_free(&cert);
    assert_int_equal(x509_dates(span_str("nonsense"), &from_s, &until_s), ERR_INVALID);
}

static void a_certificate_holds_from_an_hour_before_until_its_end(void **state) {
    (void)state;
    struct buf cert;
    struct x509_subject seen;
    assert_int_equal(issue_at(w.now_s + DAY_S, DAY_S, &cert), OK);
    const struct {
        int64_t at_s;
        const char *words; /* NULL: it holds */
    } cases[] = {
        {w.now_s + DAY_S - BACKDATE_S - 1, "not yet valid"},
        {w.now_s + DAY_S - BACKDATE_S, NULL},
        {w.now_s + 2 * DAY_S - 1, NULL},
        {w.now_s + 2 * DAY_S + 1, "has expired"},
    };
    for (size_t i = 0; i < 4; i++) {
        struct why why = {0};
        enum err e = x509_verify(buf_span(&w.root), buf_span(&cert), cases[i].at_s, &seen, &why);
        assert_int_equal(e, cases[i].words == NULL ? OK : ERR_CERTIFICATE);
        if (e != OK) assert_non_null(strstr(why.text, cases[i].words));
    }
    buf_free(&cert);
}

static void a_foreign_root_verifies_nothing(void **state) {
    (void)state;
    struct secret *other_key;
    struct buf same_name = buf_new(PEM_MAX);
    struct buf other_name = buf_new(PEM_MAX);
    struct buf cert;
    struct x509_subject seen;
    struct why why = {0};
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &cert), OK);
    assert_int_equal(x509_key_new(&other_key, NULL), OK);
    assert_int_equal(x509_root(other_key, "cluster.1_a", &same_name, NULL), OK);
    assert_int_equal(x509_root(other_key, "cluster.2", &other_name, NULL), OK);
    assert_int_equal(x509_verify(buf_span(&other_name), buf_span(&cert), w.now_s, &seen, &why),
                     ERR_CERTIFICATE);
    assert_string_equal(why.text, "certificate refused: issued by another cluster's root");
    assert_int_equal(x509_verify(buf_span(&same_name), buf_span(&cert), w.now_s, &seen, &why),
                     ERR_CERTIFICATE);
    /* a root that says it is ours is no node, and neither is a foreign one */
    assert_int_equal(x509_verify(buf_span(&w.root), buf_span(&other_name), w.now_s, &seen, &why),
                     ERR_CERTIFICATE);
    assert_int_equal(x509_verify(buf_span(&w.root), buf_span(&w.root), w.now_s, &seen, &why),
                     ERR_CERTIFICATE);
    /* two roots, as while a root is replaced: either will do */
    assert_int_equal(buf_add_span(&other_name, buf_span(&w.root)), OK);
    assert_int_equal(x509_verify(buf_span(&other_name), buf_span(&cert), w.now_s, &seen, &why), OK);
    secret_free(other_key);
    buf_free(&same_name);
    buf_free(&other_name);
    buf_free(&cert);
}

static void a_node_can_not_sign_for_another(void **state) {
    (void)state;
    struct buf node;
    struct buf leaf = buf_new(PEM_MAX);
    struct why why = {0};
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &node), OK);
    assert_int_equal(x509_issue(w.node_key, buf_span(&node), buf_span(&w.request), &subject,
                                w.now_s, DAY_S, &leaf, &why),
                     ERR_INVALID);
    assert_int_equal(x509_issue(w.node_key, buf_span(&w.root), buf_span(&w.request), &subject,
                                w.now_s, DAY_S, &leaf, &why),
                     ERR_INVALID);
    assert_int_equal(leaf.size, 0);
    buf_free(&node);
    buf_free(&leaf);
}

/* Flips single bits inside the base64 of the certificate's body; each must be refused. */
static void an_altered_certificate_is_refused(void **state) {
    (void)state;
    struct buf pem;
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &pem), OK);
    X509 *cert = parsed(&pem);
    unsigned char *der = NULL;
    int size = i2d_X509(cert, &der);
    X509_free(cert);
    for (int i = 0; i < size; i++) {
        struct buf altered = buf_new(PEM_MAX);
        struct x509_subject seen;
        der[i] ^= (unsigned char)(1 << i % 8);
        char text[4096];
        size_t room = sodium_base64_encoded_len((size_t)size, sodium_base64_VARIANT_ORIGINAL);
        assert_true(room <= sizeof text);
        (void)sodium_bin2base64(text, room, der, (size_t)size, sodium_base64_VARIANT_ORIGINAL);
        assert_int_equal(buf_format(&altered, "-----BEGIN CERTIFICATE-----\n"), OK);
        for (size_t at = 0; at < room - 1; at += 64)
            assert_int_equal(buf_format(&altered, "%.64s\n", text + at), OK);
        assert_int_equal(buf_format(&altered, "-----END CERTIFICATE-----\n"), OK);
        struct why why = {0};
        assert_int_equal(x509_verify(buf_span(&w.root), buf_span(&altered), w.now_s, &seen, &why),
                         ERR_CERTIFICATE);
        assert_true(why.text[0] != '\0');
        der[i] ^= (unsigned char)(1 << i % 8);
        buf_free(&altered);
    }
    OPENSSL_free(der);
    buf_free(&pem);
}

static void names_that_could_be_syntax_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",         "a b", "a,DNS:b",
        "a/CN=b",   "a=b", "a*",
        "\xc3\xa9", "a\n", "01234567890123456789012345678901234567890123456789012345678901234"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf out = buf_new(PEM_MAX);
        struct why why = {0};
        assert_int_equal(x509_root(w.root_key, bad[i], &out, &why), ERR_INVALID);
        assert_int_equal(x509_request(w.node_key, bad[i], &out, &why), ERR_INVALID);
        for (int part = 0; part < 3 && strlen(bad[i]) <= NAME_MAX_SIZE; part++) {
            struct x509_subject s = subject;
            char *to = part == 0 ? s.cn : part == 1 ? s.ou : s.o;
            memcpy(to, bad[i], strlen(bad[i]) + 1);
            assert_int_equal(x509_issue(w.root_key, buf_span(&w.root), buf_span(&w.request), &s,
                                        w.now_s, DAY_S, &out, &why),
                             ERR_INVALID);
        }
        assert_int_equal(out.size, 0);
        buf_free(&out);
    }
}

static void further_hosts_are_checked_and_issued(void **state) {
    (void)state;
    static const struct {
        const char *hosts; /* asked for */
        bool fine;         /* issued */
    } cases[] = {{"10.0.0.1,db.example.org,::1,localhost", true},
                 {"", true},
                 {",", false},
                 {"a,", false},
                 {",a", false},
                 {"a,,b", false},
                 {"a b", false},
                 {"*.example.org", false},
                 {"a/b", false},
                 {"x,Swarm-Manager", false},
                 {"swarm-worker", false},
                 {"a,swarm-ca", false},
                 {"conclave-client", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct x509_subject s = subject;
        struct x509_subject seen;
        struct buf pem = buf_new(PEM_MAX);
        memcpy(s.hosts, cases[i].hosts, strlen(cases[i].hosts) + 1);
        enum err e = x509_issue(w.root_key, buf_span(&w.root), buf_span(&w.request), &s, w.now_s,
                                DAY_S, &pem, NULL);
        assert_int_equal(e, cases[i].fine ? OK : ERR_INVALID);
        if (i == 0) {
            X509 *cert = parsed(&pem);
            assert_int_equal(X509_check_ip_asc(cert, "10.0.0.1", 0), 1);
            assert_int_equal(X509_check_ip_asc(cert, "::1", 0), 1);
            assert_int_equal(X509_check_ip_asc(cert, "10.0.0.2", 0), 0);
            assert_int_equal(X509_check_host(cert, "db.example.org", 0, 0, NULL), 1);
            assert_int_equal(X509_check_host(cert, "localhost", 0, 0, NULL), 1);
            assert_int_equal(X509_check_host(cert, "node-1", 0, 0, NULL), 1);
            X509_free(cert);
            assert_int_equal(x509_verify(buf_span(&w.root), buf_span(&pem), w.now_s, &seen, NULL),
                             OK);
            assert_string_equal(seen.hosts, "");
        }
        buf_free(&pem);
    }
}

/* A request as another tool would make it. */
static void foreign_request(EVP_PKEY *key, EVP_PKEY *signer, struct buf *out) {
    X509_REQ *request = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    char *at;
    assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
    assert_true(X509_REQ_sign(request, signer, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_bio_X509_REQ(bio, request), 1);
    long size = BIO_get_mem_data(bio, &at);
    *out = buf_new(PEM_MAX);
    assert_int_equal(buf_add(out, at, (size_t)size), OK);
    BIO_free(bio);
    X509_REQ_free(request);
}

static void requests_of_other_curves_or_signers_are_refused(void **state) {
    (void)state;
    EVP_PKEY *ours = EVP_EC_gen("P-256");
    EVP_PKEY *other = EVP_EC_gen("P-256");
    EVP_PKEY *wide = EVP_EC_gen("P-384");
    EVP_PKEY *rsa = EVP_RSA_gen(1024);
    const struct {
        EVP_PKEY *key;     /* in the request */
        EVP_PKEY *signer;  /* of it */
        const char *words; /* NULL: fine */
    } cases[] = {
        {ours, ours, NULL}, {ours, other, "signature"}, {wide, wide, "P-256"}, {rsa, rsa, "P-256"}};
    for (size_t i = 0; i < 4; i++) {
        struct buf request;
        struct buf cert = buf_new(PEM_MAX);
        struct why why = {0};
        foreign_request(cases[i].key, cases[i].signer, &request);
        enum err e = x509_issue(w.root_key, buf_span(&w.root), buf_span(&request), &subject,
                                w.now_s, DAY_S, &cert, &why);
        assert_int_equal(e, cases[i].words == NULL ? OK : ERR_INVALID);
        if (e != OK) assert_non_null(strstr(why.text, cases[i].words));
        buf_free(&request);
        buf_free(&cert);
    }
    EVP_PKEY_free(ours);
    EVP_PKEY_free(other);
    EVP_PKEY_free(wide);
    EVP_PKEY_free(rsa);
}

static void what_is_no_pem_is_refused_everywhere(void **state) {
    (void)state;
    static char big[PEM_MAX + 1];
    memset(big, 'x', sizeof big);
    struct span bad[] = {span_of(NULL, 0), span_str("x"),
                         span_str("-----BEGIN CERTIFICATE-----\nAAAA\n"), span_of(big, sizeof big)};
    struct secret *junk;
    struct x509_subject seen;
    struct buf out = buf_new(PEM_MAX);
    struct why why;
    assert_int_equal(secret_new("junk", 4, &junk), OK);
    for (size_t i = 0; i < 4; i++) {
        assert_int_not_equal(x509_verify(buf_span(&w.root), bad[i], w.now_s, &seen, &why), OK);
        assert_int_not_equal(x509_verify(bad[i], buf_span(&w.root), w.now_s, &seen, &why), OK);
        assert_int_not_equal(
            x509_issue(w.root_key, buf_span(&w.root), bad[i], &subject, w.now_s, DAY_S, &out, &why),
            OK);
        assert_int_not_equal(x509_issue(w.root_key, bad[i], buf_span(&w.request), &subject, w.now_s,
                                        DAY_S, &out, &why),
                             OK);
        assert_int_not_equal(x509_key_matches(bad[i], w.node_key, &why), OK);
    }
    assert_int_equal(x509_root(junk, "a", &out, &why), ERR_INVALID);
    assert_int_equal(x509_request(junk, "a", &out, &why), ERR_INVALID);
    assert_int_equal(x509_key_matches(buf_span(&w.root), junk, &why), ERR_INVALID);
    secret_free(junk);
    buf_free(&out);
}

static void impossible_validity_is_refused(void **state) {
    (void)state;
    static const int64_t bad[][2] = {
        {1000, 0}, {1000, -1}, {-1, 10}, {INT64_MAX, 10}, {1000, INT64_MAX}};
    struct buf out = buf_new(PEM_MAX);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(x509_issue(w.root_key, buf_span(&w.root), buf_span(&w.request), &subject,
                                    bad[i][0], bad[i][1], &out, NULL),
                         ERR_INVALID);
    buf_free(&out);
}

static void the_digest_is_the_sha256_of_the_pem_in_base36(void **state) {
    (void)state;
    char text[ROOT_DIGEST_TEXT];
    assert_int_equal(x509_digest(span_str(""), text), OK);
    assert_string_equal(text, "5oaq0bjhj6un82wg98mgigso5q7qlhc63je4gw7ivixqqhkd3p");
    assert_int_equal(x509_digest(span_str("abc"), text), OK);
    assert_string_equal(text, "4nb7oofka9ml8nasnokxxc1unhmtpr1wxsuwhpd9km3vt5as31");
}

static void names_of_roles_are_nobodys(void **state) {
    (void)state;
    static const char *const bad[] = {ROLE_MANAGER, ROLE_WORKER, ROLE_CLIENT, ROOT_CN,
                                      "Swarm-Manager"};
    struct buf out = buf_new(PEM_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct x509_subject s = subject;
        struct why why = {0};
        (void)snprintf(s.cn, sizeof s.cn, "%s", bad[i]);
        assert_int_equal(x509_issue(w.root_key, buf_span(&w.root), buf_span(&w.request), &s,
                                    w.now_s, DAY_S, &out, &why),
                         ERR_INVALID);
        assert_non_null(strstr(why.text, "reserved"));
    }
    assert_int_equal(out.size, 0);
}

static void only_a_manager_is_called_a_ca(void **state) {
    (void)state;
    struct x509_subject s = subject;
    struct buf pem = buf_new(PEM_MAX);
    (void)snprintf(s.ou, sizeof s.ou, "%s", ROLE_WORKER);
    assert_int_equal(x509_issue(w.root_key, buf_span(&w.root), buf_span(&w.request), &s, w.now_s,
                                DAY_S, &pem, NULL),
                     OK);
    X509 *cert = parsed(&pem);
    assert_int_equal(X509_check_host(cert, ROLE_WORKER, 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(cert, ROOT_CN, 0, 0, NULL), 0);
    assert_int_equal(X509_check_host(cert, ROLE_MANAGER, 0, 0, NULL), 0);
    X509_free(cert);
    buf_free(&pem);
}

static void the_openssl_command_agrees(void **state) {
    (void)state;
    struct scratch s;
    struct buf cert, foreign = buf_new(PEM_MAX);
    scratch_new(&s);
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &cert), OK);
    assert_int_equal(x509_root(w.node_key, "other", &foreign, NULL), OK);
    scratch_put(&s, "root", buf_span(&w.root));
    scratch_put(&s, "leaf", buf_span(&cert));
    scratch_put(&s, "other", buf_span(&foreign));
    scratch_put(&s, "request", buf_span(&w.request));
    assert_int_equal(scratch_run(&s, NULL,
                                 "openssl verify -x509_strict -purpose sslserver "
                                 "-verify_hostname node-1 -CAfile root leaf"),
                     0);
    assert_int_equal(scratch_run(&s, NULL,
                                 "openssl verify -x509_strict -purpose sslclient "
                                 "-CAfile root leaf"),
                     0);
    assert_int_not_equal(scratch_run(&s, NULL, "openssl verify -CAfile other leaf"), 0);
    assert_int_equal(scratch_run(&s, NULL, "openssl req -verify -noout -in request"), 0);
    scratch_free(&s);
    buf_free(&cert);
    buf_free(&foreign);
}

static void the_openssl_command_describes_what_the_reference_says(void **state) {
    (void)state;
    static const char *const words[] = {
        "Subject: CN=node-1,OU=swarm-manager,O=cluster.1_a",
        "Issuer: CN=swarm-ca,O=cluster.1_a",
        "NIST CURVE: P-256",
        "ecdsa-with-SHA256",
        "CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "DNS:swarm-manager, DNS:node-1, DNS:swarm-ca"};
    struct scratch s;
    struct buf cert, text = buf_new(64 * KIB);
    scratch_new(&s);
    assert_int_equal(issue_at(w.now_s, NODE_VALIDITY_S, &cert), OK);
    scratch_put(&s, "leaf", buf_span(&cert));
    scratch_put(&s, "root", buf_span(&w.root));
    assert_int_equal(scratch_run(&s, &text, "openssl x509 -noout -text -nameopt RFC2253 -in leaf"),
                     0);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (memmem(text.at, text.size, words[i], strlen(words[i])) == NULL)
            fail_msg("no \"%s\" in %.*s", words[i], (int)text.size, (const char *)text.at);
    buf_clear(&text);
    assert_int_equal(scratch_run(&s, &text, "openssl x509 -noout -text -in root"), 0);
    assert_non_null(memmem(text.at, text.size, "CA:TRUE\n", 8));
    assert_non_null(memmem(text.at, text.size, "Certificate Sign\n", 17));
    scratch_free(&s);
    buf_free(&cert);
    buf_free(&text);
}

struct trying {
    enum err e; /* what the scenario got */
};

static void try_all(void *ctx) {
    struct trying *t = ctx;
    struct secret *key = NULL;
    struct buf request = buf_new(PEM_MAX);
    struct buf cert = buf_new(PEM_MAX);
    struct x509_subject seen;
    t->e = x509_key_new(&key, NULL);
    if (t->e == OK) t->e = x509_request(key, "a", &request, NULL);
    if (t->e == OK)
        t->e = x509_issue(w.root_key, buf_span(&w.root), buf_span(&request), &subject, w.now_s,
                          DAY_S, &cert, NULL);
    if (t->e == OK) t->e = x509_verify(buf_span(&w.root), buf_span(&cert), w.now_s, &seen, NULL);
    secret_free(key);
    buf_free(&request);
    buf_free(&cert);
}

static void tried(void *ctx, bool fired) {
    assert_int_equal(((struct trying *)ctx)->e, fired ? ERR_NOMEM : OK);
}

static void running_out_of_memory_leaks_nothing(void **state) {
    (void)state;
    struct trying t;
    assert_true(fault_sweep_alloc(try_all, tried, &t) >= 4);
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(an_issued_certificate_verifies_and_says_what_the_signer_said),
        cmocka_unit_test(a_leaf_carries_the_promised_extensions),
        cmocka_unit_test(a_root_may_sign_and_nothing_else),
        cmocka_unit_test(what_a_root_says_is_der),
        cmocka_unit_test(serials_differ),
        cmocka_unit_test(dates_are_backdated_by_an_hour_and_bounded_by_the_root),
        cmocka_unit_test(a_certificate_holds_from_an_hour_before_until_its_end),
        cmocka_unit_test(a_foreign_root_verifies_nothing),
        cmocka_unit_test(a_node_can_not_sign_for_another),
        cmocka_unit_test(an_altered_certificate_is_refused),
        cmocka_unit_test(names_that_could_be_syntax_are_refused),
        cmocka_unit_test(further_hosts_are_checked_and_issued),
        cmocka_unit_test(requests_of_other_curves_or_signers_are_refused),
        cmocka_unit_test(what_is_no_pem_is_refused_everywhere),
        cmocka_unit_test(impossible_validity_is_refused),
        cmocka_unit_test(the_digest_is_the_sha256_of_the_pem_in_base36),
        cmocka_unit_test(names_of_roles_are_nobodys),
        cmocka_unit_test(only_a_manager_is_called_a_ca),
        cmocka_unit_test(the_openssl_command_agrees),
        cmocka_unit_test(the_openssl_command_describes_what_the_reference_says),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("x509", cases, start, finish);
}
