/* X.509 objects from bytes and back: PEM, keys, names, hosts, dates, requests and digests. What
 * makes certificates is in x509_issue.c, what judges them in x509_verify.c, a CA that its user
 * brings in x509_ca.c.
 *
 * Invariants: a node's key is on P-256; a subject's parts are 1..NAME_MAX_SIZE characters of
 * [A-Za-z0-9._-]. Private keys pass through OpenSSL's locked heap only and are freed before a
 * function returns. */
#include "crypto/x509_internal.h"

#include "crypto/base36.h"

#include <arpa/inet.h>
#include <limits.h>
#include <strings.h>
#include <time.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sodium.h>

#define GROUP     "prime256v1"                                     /* P-256 as OpenSSL calls it */
#define CERTS_MAX 16                                               /* in one PEM */
#define HOST_MAX  253                                              /* a DNS name, RFC 1035 */
#define PROOF_OF  "conclave: the holder of this certificate's key" /* and a NUL, before the bytes */

enum err openssl_fail(struct why *why, enum err e, const char *what) {
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);
    ERR_clear_error();
    if (code != 0 && ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE) e = ERR_NOMEM;
    return fail_with(why, e, "%s: %s", what, reason != NULL ? reason : err_text(e));
}

/* --- PEM in and out --- */

/* Keys under a passphrase are refused: nobody is asked. */
static int no_passphrase(char *at, int size, int writing, void *ctx) {
    (void)at;
    (void)size;
    (void)writing;
    (void)ctx;
    return -1;
}

static BIO *bio_over(struct span s) {
    return s.size == 0 || s.size > INT_MAX ? NULL : BIO_new_mem_buf(s.at, (int)s.size);
}

static bool is_on(const EVP_PKEY *key, const char *curve) {
    char group[32];
    size_t size;
    return EVP_PKEY_is_a(key, "EC") == 1 &&
           EVP_PKEY_get_group_name(key, group, sizeof group, &size) == 1 &&
           strcmp(group, curve) == 0;
}

static bool is_p256(const EVP_PKEY *key) { return is_on(key, GROUP); }

const EVP_MD *signing_digest(const EVP_PKEY *key) {
    if (is_p256(key)) return EVP_sha256();
    if (is_on(key, "secp384r1")) return EVP_sha384();
    if (is_on(key, "secp521r1")) return EVP_sha512();
    bool rsa = EVP_PKEY_is_a(key, "RSA") == 1 && EVP_PKEY_get_bits(key) >= RSA_BITS_MIN;
    return rsa ? EVP_sha256() : NULL;
}

RESULT pkey_parse_any(const struct secret *pem, EVP_PKEY **out, struct why *why) {
    BIO *in = bio_over(secret_span(pem));
    if (in == NULL) return openssl_fail(why, ERR_NOMEM, "private key");
    *out = PEM_read_bio_PrivateKey(in, NULL, no_passphrase, NULL);
    BIO_free(in);
    return *out == NULL ? openssl_fail(why, ERR_INVALID, "private key") : OK;
}

RESULT pkey_parse(const struct secret *pem, EVP_PKEY **out, struct why *why) {
    EVP_PKEY *key;
    TRY(pkey_parse_any(pem, &key, why));
    if (!is_p256(key)) {
        EVP_PKEY_free(key);
        return fail_with(why, ERR_INVALID, "private key: not on the curve P-256");
    }
    *out = key;
    return OK;
}

RESULT pkey_parse_signer(const struct secret *pem, EVP_PKEY **out, struct why *why) {
    EVP_PKEY *key;
    TRY(pkey_parse_any(pem, &key, why));
    if (signing_digest(key) == NULL) {
        EVP_PKEY_free(key);
        return fail_with(
            why, ERR_INVALID,
            "private key: a CA's is RSA of %d bits or more, or on P-256, P-384 or P-521",
            RSA_BITS_MIN);
    }
    *out = key;
    return OK;
}

void certs_free(STACK_OF(X509) * certs) { sk_X509_pop_free(certs, X509_free); }

/* Reads certificates until there is none; what else stands in the PEM is an error. */
static enum err certs_read(BIO *in, STACK_OF(X509) * certs) {
    for (;;) {
        X509 *cert = PEM_read_bio_X509(in, NULL, no_passphrase, NULL);
        if (cert == NULL) break;
        if (sk_X509_num(certs) == CERTS_MAX || sk_X509_push(certs, cert) == 0) {
            X509_free(cert);
            return ERR_TOO_LARGE;
        }
    }
    unsigned long code = ERR_peek_last_error();
    bool end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (!end || sk_X509_num(certs) == 0) return ERR_INVALID;
    ERR_clear_error();
    return OK;
}

RESULT certs_parse(struct span pem, const char *what, STACK_OF(X509) * *out, struct why *why) {
    if (pem.size == 0) return fail_with(why, ERR_INVALID, "%s: none given", what);
    if (pem.size > PEM_MAX) return fail_with(why, ERR_TOO_LARGE, "%s: too large", what);
    BIO *in = bio_over(pem);
    STACK_OF(X509) *certs = sk_X509_new_null();
    ERR_clear_error();
    enum err e = in == NULL || certs == NULL ? ERR_NOMEM : certs_read(in, certs);
    BIO_free(in);
    if (e != OK) {
        certs_free(certs);
        return openssl_fail(why, e, what);
    }
    *out = certs;
    return OK;
}

RESULT cert_parse(struct span pem, const char *what, X509 **out, struct why *why) {
    STACK_OF(X509) * certs;
    TRY(certs_parse(pem, what, &certs, why));
    *out = sk_X509_shift(certs);
    certs_free(certs);
    return OK;
}

static enum err bio_take(BIO *bio, bool written, struct buf *out) {
    char *at;
    long size = bio == NULL ? 0 : BIO_get_mem_data(bio, &at);
    enum err e = ERR_NOMEM;
    if (written && size > 0) e = buf_add(out, at, (size_t)size);
    BIO_free(bio);
    return e;
}

RESULT cert_write(X509 *cert, struct buf *out_pem) {
    BIO *bio = BIO_new(BIO_s_mem());
    return bio_take(bio, bio != NULL && PEM_write_bio_X509(bio, cert) == 1, out_pem);
}

/* --- names and dates --- */

static bool name_fits(const char *s) {
    static const char permitted[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    size_t size = strnlen(s, NAME_MAX_SIZE + 1);
    return size > 0 && size <= NAME_MAX_SIZE && strspn(s, permitted) == size;
}

RESULT check_name(const char *what, const char *s, struct why *why) {
    if (name_fits(s)) return OK;
    return fail_with(why, ERR_INVALID, "%s: 1 to %d letters, digits, '-', '_' or '.'", what,
                     NAME_MAX_SIZE);
}

/* The names by which a server is known to be what it is: nobody else is called so. */
static bool is_reserved(const char *name) {
    static const char *const words[] = {ROLE_MANAGER, ROLE_WORKER, ROLE_CLIENT, ROOT_CN};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcasecmp(name, words[i]) == 0) return true;
    return false;
}

/* An IP address or a DNS name; never a role's name, by which a server is known to its clients. */
static bool host_fits(void *ctx, const char *host) {
    static const char permitted[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.";
    uint8_t ip[sizeof(struct in6_addr)];
    (void)ctx;
    if (inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1) return true;
    return strspn(host, permitted) == strlen(host) && !is_reserved(host);
}

bool hosts_walk(const char *hosts, bool (*each)(void *ctx, const char *host), void *ctx) {
    while (*hosts != '\0') {
        char host[HOST_MAX + 1];
        size_t size = strcspn(hosts, ",");
        if (size == 0 || size > HOST_MAX) return false;
        memcpy(host, hosts, size);
        host[size] = '\0';
        if (!each(ctx, host)) return false;
        hosts += size;
        if (*hosts != ',') continue;
        hosts++;
        if (*hosts == '\0') return false;
    }
    return true;
}

RESULT check_subject(const struct x509_subject *s, struct why *why) {
    TRY(check_name("CN", s->cn, why));
    if (is_reserved(s->cn)) return fail_with(why, ERR_INVALID, "CN: \"%s\" is reserved", s->cn);
    TRY(check_name("OU", s->ou, why));
    TRY(check_name("O", s->o, why));
    if (strnlen(s->hosts, HOSTS_ROOM) < HOSTS_ROOM && hosts_walk(s->hosts, host_fits, NULL))
        return OK;
    return fail_with(why, ERR_INVALID, "hosts: IP addresses and DNS names, separated by ','");
}

static bool name_add(X509_NAME *name, int nid, const char *value) {
    return value == NULL ||
           X509_NAME_add_entry_by_NID(name, nid, MBSTRING_ASC, (const unsigned char *)value, -1, -1,
                                      0) == 1;
}

bool name_fill(X509_NAME *name, const char *o, const char *ou, const char *cn) {
    return name_add(name, NID_organizationName, o) &&
           name_add(name, NID_organizationalUnitName, ou) && name_add(name, NID_commonName, cn);
}

/* The one entry of a kind, as permitted text; else false. */
static bool name_get(const X509_NAME *name, int nid, char out[NAME_MAX_SIZE + 1]) {
    int at = X509_NAME_get_index_by_NID(name, nid, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0) return false;
    const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
    int size = ASN1_STRING_length(value);
    if (size <= 0 || size > NAME_MAX_SIZE) return false;
    memcpy(out, ASN1_STRING_get0_data(value), (size_t)size);
    out[size] = '\0';
    return strlen(out) == (size_t)size && name_fits(out);
}

RESULT subject_read(X509 *cert, struct x509_subject *out, struct why *why) {
    struct x509_subject s = {0};
    const X509_NAME *name = X509_get_subject_name(cert);
    if (!name_get(name, NID_commonName, s.cn) ||
        !name_get(name, NID_organizationalUnitName, s.ou) ||
        !name_get(name, NID_organizationName, s.o))
        return fail_with(why, ERR_CERTIFICATE, "certificate: not a subject of CN, OU and O");
    *out = s;
    return OK;
}

RESULT subject_read_foreign(X509 *cert, struct x509_subject *out) {
    struct x509_subject s = {0};
    if (!name_get(X509_get_subject_name(cert), NID_commonName, s.cn)) s.cn[0] = '\0';
    *out = s;
    return OK;
}

static bool seconds_of(const ASN1_TIME *t, int64_t *out) {
    struct tm parts;
    if (ASN1_TIME_to_tm(t, &parts) != 1) return false;
    *out = (int64_t)timegm(&parts);
    return true;
}

RESULT cert_dates(const X509 *cert, int64_t *not_before_s, int64_t *not_after_s) {
    bool fine = seconds_of(X509_get0_notBefore(cert), not_before_s) &&
                seconds_of(X509_get0_notAfter(cert), not_after_s);
    return fine ? OK : ERR_CERTIFICATE;
}

RESULT x509_first(struct span pem, struct buf *out_pem, struct why *why) {
    X509 *cert;
    enum err e = cert_parse(pem, "certificate", &cert, why);
    if (e != OK) return e == ERR_INVALID ? ERR_CERTIFICATE : e;
    e = cert_write(cert, out_pem);
    X509_free(cert);
    return e;
}

RESULT x509_subject(struct span cert_pem, struct x509_subject *out) {
    X509 *cert;
    TRY(cert_parse(cert_pem, "certificate", &cert, NULL));
    enum err e = subject_read(cert, out, NULL);
    X509_free(cert);
    return e;
}

RESULT x509_dates(struct span cert_pem, int64_t *not_before_s, int64_t *not_after_s) {
    X509 *cert;
    TRY(cert_parse(cert_pem, "certificate", &cert, NULL));
    enum err e = cert_dates(cert, not_before_s, not_after_s);
    X509_free(cert);
    return e;
}

/* --- hosts --- */

static bool cert_has_host(void *ctx, const char *host) {
    X509 *cert = ctx;
    uint8_t ip[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, host, ip) == 1) return X509_check_ip(cert, ip, 4, 0) == 1;
    if (inet_pton(AF_INET6, host, ip) == 1) return X509_check_ip(cert, ip, 16, 0) == 1;
    return X509_check_host(cert, host, strlen(host), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) ==
           1;
}

bool x509_has_hosts(struct span cert_pem, const char *hosts) {
    X509 *cert;
    if (cert_parse(cert_pem, "certificate", &cert, NULL) != OK) return false;
    bool all = hosts_walk(hosts, cert_has_host, cert);
    X509_free(cert);
    return all;
}

/* --- keys, roots, requests --- */

static enum err fill_pem(void *ctx, uint8_t *at, size_t size) {
    memcpy(at, ctx, size);
    return OK;
}

RESULT x509_key_new(struct secret **out_pem, struct why *why) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_secmem());
    char *at = NULL;
    long size = 0;
    if (key != NULL && bio != NULL &&
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1)
        size = BIO_get_mem_data(bio, &at);
    enum err e = size <= 0 ? openssl_fail(why, ERR_INTERNAL, "making a key")
                           : secret_fill((size_t)size, fill_pem, at, out_pem);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return e;
}

RESULT x509_request(const struct secret *key_pem, const char *cn, struct buf *out_pem,
                    struct why *why) {
    EVP_PKEY *key = NULL;
    TRY(check_name("name", cn, why));
    TRY(pkey_parse(key_pem, &key, why));
    X509_REQ *request = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    bool fine =
        request != NULL && bio != NULL && X509_REQ_set_version(request, X509_REQ_VERSION_1) == 1 &&
        name_fill(X509_REQ_get_subject_name(request), NULL, NULL, cn) &&
        X509_REQ_set_pubkey(request, key) == 1 && X509_REQ_sign(request, key, EVP_sha256()) > 0 &&
        PEM_write_bio_X509_REQ(bio, request) == 1;
    enum err e = fine ? OK : openssl_fail(why, ERR_INTERNAL, "making a certificate request");
    if (e == OK)
        e = bio_take(bio, true, out_pem);
    else
        BIO_free(bio);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
    return e;
}

RESULT request_key(struct span pem, EVP_PKEY **out, struct why *why) {
    if (pem.size > PEM_MAX) return fail_with(why, ERR_TOO_LARGE, "certificate request: too large");
    BIO *in = bio_over(pem);
    X509_REQ *request = in == NULL ? NULL : PEM_read_bio_X509_REQ(in, NULL, no_passphrase, NULL);
    BIO_free(in);
    if (request == NULL) return openssl_fail(why, ERR_INVALID, "certificate request");
    EVP_PKEY *key = X509_REQ_get_pubkey(request);
    enum err e = OK;
    if (key == NULL || !is_p256(key))
        e = fail_with(why, ERR_INVALID, "certificate request: its key is not on the curve P-256");
    else if (X509_REQ_verify(request, key) != 1)
        e = fail_with(why, ERR_INVALID, "certificate request: its signature does not fit its key");
    ERR_clear_error();
    X509_REQ_free(request);
    if (e == OK)
        *out = key;
    else
        EVP_PKEY_free(key);
    return e;
}

RESULT x509_key_matches(struct span cert_pem, const struct secret *key_pem, struct why *why) {
    X509 *cert;
    EVP_PKEY *key = NULL;
    TRY(cert_parse(cert_pem, "certificate", &cert, why));
    enum err e = pkey_parse(key_pem, &key, why);
    if (e == OK) {
        if (X509_check_private_key(cert, key) != 1)
            e = fail_with(why, ERR_CERTIFICATE, "certificate: it is not for this private key");
        ERR_clear_error();
        EVP_PKEY_free(key);
    }
    X509_free(cert);
    return e;
}

/* --- digests and names as others compare them --- */

RESULT spki_of(X509 *cert, struct buf *out) {
    unsigned char *der = NULL;
    int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (size <= 0) return openssl_fail(NULL, ERR_NOMEM, "key");
    enum err e = buf_add(out, der, (size_t)size);
    OPENSSL_free(der);
    return e;
}

static enum err digest_of(struct span bytes, uint8_t out[KEY_DIGEST_SIZE]) {
    return crypto_hash_sha256(out, bytes.at, bytes.size) == 0 ? OK : ERR_INTERNAL;
}

RESULT cert_key_digest(X509 *cert, uint8_t out[KEY_DIGEST_SIZE]) {
    struct buf der = buf_new(PEM_MAX);
    enum err e = spki_of(cert, &der);
    if (e == OK) e = digest_of(buf_span(&der), out);
    buf_free(&der);
    return e;
}

static enum err pkey_digest(EVP_PKEY *key, uint8_t out[KEY_DIGEST_SIZE]) {
    unsigned char *der = NULL;
    int size = i2d_PUBKEY(key, &der);
    if (size <= 0) return openssl_fail(NULL, ERR_NOMEM, "key");
    enum err e = digest_of(span_of(der, (size_t)size), out);
    OPENSSL_free(der);
    return e;
}

RESULT x509_key_digest(struct span cert_pem, uint8_t out[KEY_DIGEST_SIZE]) {
    X509 *cert;
    TRY(cert_parse(cert_pem, "certificate", &cert, NULL));
    enum err e = cert_key_digest(cert, out);
    X509_free(cert);
    return e;
}

RESULT x509_request_digest(struct span request_pem, uint8_t out[KEY_DIGEST_SIZE], struct why *why) {
    EVP_PKEY *key;
    TRY(request_key(request_pem, &key, why));
    enum err e = pkey_digest(key, out);
    EVP_PKEY_free(key);
    return e;
}

RESULT x509_private_digest(const struct secret *key_pem, uint8_t out[KEY_DIGEST_SIZE],
                           struct why *why) {
    EVP_PKEY *key;
    TRY(pkey_parse_any(key_pem, &key, why));
    enum err e = pkey_digest(key, out);
    EVP_PKEY_free(key);
    return e;
}

RESULT x509_names(struct span cert_pem, struct buf *subject_der, struct buf *spki_der) {
    X509 *cert;
    const unsigned char *der;
    size_t size;
    TRY(cert_parse(cert_pem, "certificate", &cert, NULL));
    enum err e = ERR_NOMEM;
    if (X509_NAME_get0_der(X509_get_subject_name(cert), &der, &size) == 1)
        e = buf_add(subject_der, der, size);
    if (e == OK) e = spki_of(cert, spki_der);
    X509_free(cert);
    return e;
}

RESULT x509_title(struct span cert_pem, char *out, size_t room) {
    X509 *cert;
    char *text = NULL;
    TRY(cert_parse(cert_pem, "certificate", &cert, NULL));
    BIO *bio = BIO_new(BIO_s_mem());
    int size = -1;
    if (bio) size = X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
    if (size >= 0) size = (int)BIO_get_mem_data(bio, &text);
    if (size >= 0) (void)snprintf(out, room, "%.*s", size, text);
    BIO_free(bio);
    X509_free(cert);
    return size >= 0 ? OK : ERR_NOMEM;
}

RESULT x509_digest(struct span root_pem, char out[ROOT_DIGEST_TEXT]) {
    uint8_t digest[crypto_hash_sha256_BYTES];
    if (crypto_hash_sha256(digest, root_pem.at, root_pem.size) != 0) return ERR_INTERNAL;
    base36_text(digest, sizeof digest, out, ROOT_DIGEST_TEXT - 1);
    return OK;
}

/* --- proofs --- */

static bool prove(EVP_MD_CTX *ctx, EVP_PKEY *key, struct span bytes, struct buf *out) {
    size_t size = 0;
    if (EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1 ||
        EVP_DigestSignUpdate(ctx, PROOF_OF, sizeof PROOF_OF) != 1 ||
        EVP_DigestSignUpdate(ctx, bytes.at, bytes.size) != 1 ||
        EVP_DigestSignFinal(ctx, NULL, &size) != 1 || buf_reserve(out, size) != OK ||
        EVP_DigestSignFinal(ctx, out->at + out->size, &size) != 1)
        return false;
    out->size += size;
    return true;
}

RESULT x509_prove(const struct secret *key_pem, struct span bytes, struct buf *out,
                  struct why *why) {
    EVP_PKEY *key;
    TRY(pkey_parse(key_pem, &key, why));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool fine = ctx != NULL && prove(ctx, key, bytes, out);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return fine ? OK : openssl_fail(why, ERR_NOMEM, "proof");
}

RESULT x509_proof_check(struct span cert_pem, struct span bytes, struct span proof,
                        struct why *why) {
    X509 *cert;
    enum err e = cert_parse(cert_pem, "certificate", &cert, why);
    if (e != OK) return e == ERR_INVALID ? ERR_CERTIFICATE : e;
    EVP_PKEY *key = X509_get0_pubkey(cert);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool fine = ctx != NULL && key != NULL && is_p256(key) &&
                EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerifyUpdate(ctx, PROOF_OF, sizeof PROOF_OF) == 1 &&
                EVP_DigestVerifyUpdate(ctx, bytes.at, bytes.size) == 1 &&
                EVP_DigestVerifyFinal(ctx, proof.at, proof.size) == 1;
    EVP_MD_CTX_free(ctx);
    X509_free(cert);
    ERR_clear_error();
    return fine ? OK : fail_with(why, ERR_CERTIFICATE, "the proof is not by the certificate's key");
}
