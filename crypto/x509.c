/* The implementation of x509.h over OpenSSL 3. Certificates are built from validated values as
 * objects, never through OpenSSL's configuration strings, where a comma in a name is another name.
 * Called by store/ca.c to issue, and by whoever holds a certificate to check it.
 *
 * Invariants: every key is on P-256, every signature ECDSA with SHA-256; serials are 127 random
 * bits; a subject's parts are 1..NAME_MAX_SIZE characters of [A-Za-z0-9._-]. Private keys pass
 * through OpenSSL's locked heap only and are freed before a function returns. */
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

#define GROUP       "prime256v1" /* P-256 as OpenSSL calls it */
#define KEY_ID_SIZE 20           /* of the SHA-256 of the public key, RFC 7093 */
#define SERIAL_SIZE 16
#define CERTS_MAX   8   /* in one PEM */
#define HOST_MAX    253 /* a DNS name, RFC 1035 */
#define ROOT_CN     "conclave-ca"

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

static bool is_p256(const EVP_PKEY *key) {
    char group[32];
    size_t size;
    return EVP_PKEY_is_a(key, "EC") == 1 &&
           EVP_PKEY_get_group_name(key, group, sizeof group, &size) == 1 &&
           strcmp(group, GROUP) == 0;
}

RESULT pkey_parse(const struct secret *pem, EVP_PKEY **out, struct why *why) {
    BIO *in = bio_over(secret_span(pem));
    if (in == NULL) return openssl_fail(why, ERR_NOMEM, "private key");
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, no_passphrase, NULL);
    BIO_free(in);
    if (key == NULL) return openssl_fail(why, ERR_INVALID, "private key");
    if (!is_p256(key)) {
        EVP_PKEY_free(key);
        return fail_with(why, ERR_INVALID, "private key: not on the curve P-256");
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

/* The first certificate of a PEM. */
static enum err cert_parse(struct span pem, const char *what, X509 **out, struct why *why) {
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

static enum err check_name(const char *what, const char *s, struct why *why) {
    if (name_fits(s)) return OK;
    return fail_with(why, ERR_INVALID, "%s: 1 to %d letters, digits, '-', '_' or '.'", what,
                     NAME_MAX_SIZE);
}

/* An IP address or a DNS name; never a role's name, by which a server is known to its clients. */
static bool host_fits(void *ctx, const char *host) {
    static const char permitted[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.";
    uint8_t ip[sizeof(struct in6_addr)];
    (void)ctx;
    if (inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1) return true;
    return strspn(host, permitted) == strlen(host) && strcasecmp(host, ROLE_MANAGER) != 0 &&
           strcasecmp(host, ROLE_CLIENT) != 0;
}

/* Calls `each` for every host of the list; false at the first that it refuses, or when one is
 * empty. */
static bool hosts_walk(const char *hosts, bool (*each)(void *ctx, const char *host), void *ctx) {
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

static enum err check_subject(const struct x509_subject *s, struct why *why) {
    TRY(check_name("CN", s->cn, why));
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

/* In the order O, OU, CN; NULL parts are left out. */
static bool name_fill(X509_NAME *name, const char *o, const char *ou, const char *cn) {
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

static bool set_dates(X509 *cert, int64_t from_s, int64_t until_s) {
    ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)from_s);
    ASN1_TIME *until = ASN1_TIME_set(NULL, (time_t)until_s);
    bool done = from != NULL && until != NULL && X509_set1_notBefore(cert, from) == 1 &&
                X509_set1_notAfter(cert, until) == 1;
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    return done;
}

static bool seconds_of(const ASN1_TIME *t, int64_t *out) {
    struct tm parts;
    if (ASN1_TIME_to_tm(t, &parts) != 1) return false;
    *out = (int64_t)timegm(&parts);
    return true;
}

static enum err cert_dates(const X509 *cert, int64_t *not_before_s, int64_t *not_after_s) {
    bool fine = seconds_of(X509_get0_notBefore(cert), not_before_s) &&
                seconds_of(X509_get0_notAfter(cert), not_after_s);
    return fine ? OK : ERR_CERTIFICATE;
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

/* --- extensions --- */

static bool ext_add(X509 *cert, int nid, void *value, bool critical) {
    return value != NULL && X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_DEFAULT) == 1;
}

/* pathlen < 0: not a CA. */
static bool ext_constraints(X509 *cert, long pathlen) {
    BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
    if (bc == NULL) return false;
    bool fine = true;
    if (pathlen >= 0) {
        bc->ca = 1;
        bc->pathlen = ASN1_INTEGER_new();
        fine = bc->pathlen != NULL && ASN1_INTEGER_set(bc->pathlen, pathlen) == 1;
    }
    fine = fine && ext_add(cert, NID_basic_constraints, bc, true);
    BASIC_CONSTRAINTS_free(bc);
    return fine;
}

#define USAGE_SIGN      0 /* digitalSignature, RFC 5280 4.2.1.3 */
#define USAGE_CERT_SIGN 5 /* keyCertSign */

static bool ext_usage(X509 *cert, int bit) {
    ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();
    bool fine = usage != NULL && ASN1_BIT_STRING_set_bit(usage, bit, 1) == 1 &&
                ext_add(cert, NID_key_usage, usage, true);
    ASN1_BIT_STRING_free(usage);
    return fine;
}

static bool ext_purposes(X509 *cert) {
    EXTENDED_KEY_USAGE *eku = EXTENDED_KEY_USAGE_new();
    bool fine = eku != NULL && sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_server_auth)) > 0 &&
                sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_client_auth)) > 0 &&
                ext_add(cert, NID_ext_key_usage, eku, false);
    EXTENDED_KEY_USAGE_free(eku);
    return fine;
}

/* Takes `text`, also on failure. */
static bool names_push(GENERAL_NAMES *names, int type, ASN1_STRING *text) {
    GENERAL_NAME *name = GENERAL_NAME_new();
    if (name == NULL || text == NULL) {
        GENERAL_NAME_free(name);
        ASN1_STRING_free(text);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, text);
    if (sk_GENERAL_NAME_push(names, name) > 0) return true;
    GENERAL_NAME_free(name);
    return false;
}

static bool names_push_dns(GENERAL_NAMES *names, const char *dns) {
    ASN1_STRING *text = ASN1_IA5STRING_new();
    if (text != NULL && ASN1_STRING_set(text, dns, -1) != 1) {
        ASN1_STRING_free(text);
        text = NULL;
    }
    return names_push(names, GEN_DNS, text);
}

static bool names_push_host(GENERAL_NAMES *names, const char *host) {
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(host);
    if (ip != NULL) return names_push(names, GEN_IPADD, ip);
    ERR_clear_error();
    return names_push_dns(names, host);
}

static bool host_push(void *ctx, const char *host) { return names_push_host(ctx, host); }

static bool ext_names(X509 *cert, const struct x509_subject *s) {
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    bool fine = names != NULL && names_push_dns(names, s->ou) && names_push_dns(names, s->cn) &&
                hosts_walk(s->hosts, host_push, names) &&
                ext_add(cert, NID_subject_alt_name, names, false);
    GENERAL_NAMES_free(names);
    return fine;
}

static bool ext_own_id(X509 *cert) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size;
    ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
    bool fine = id != NULL && X509_pubkey_digest(cert, EVP_sha256(), digest, &size) == 1 &&
                size >= KEY_ID_SIZE && ASN1_OCTET_STRING_set(id, digest, KEY_ID_SIZE) == 1 &&
                ext_add(cert, NID_subject_key_identifier, id, false);
    ASN1_OCTET_STRING_free(id);
    return fine;
}

static bool ext_issuer_id(X509 *cert, X509 *issuer) {
    const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(issuer);
    AUTHORITY_KEYID *by = AUTHORITY_KEYID_new();
    bool fine = by != NULL && id != NULL;
    if (fine) {
        by->keyid = ASN1_OCTET_STRING_dup(id);
        fine = by->keyid != NULL && ext_add(cert, NID_authority_key_identifier, by, false);
    }
    AUTHORITY_KEYID_free(by);
    return fine;
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

/* Positive, never zero: the top bit of 128 is clear, the next is set. */
static bool set_serial(X509 *cert) {
    uint8_t raw[SERIAL_SIZE];
    random_bytes(raw, sizeof raw);
    raw[0] = (uint8_t)((raw[0] & 0x7f) | 0x40);
    BIGNUM *number = BN_bin2bn(raw, sizeof raw, NULL);
    bool fine = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
    BN_free(number);
    return fine;
}

static X509 *cert_new(EVP_PKEY *key) {
    X509 *cert = X509_new();
    if (cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
        X509_set_pubkey(cert, key) == 1)
        return cert;
    X509_free(cert);
    return NULL;
}

static bool root_build(X509 *cert, EVP_PKEY *key, const char *cluster_id) {
    int64_t now_s = (int64_t)time(NULL);
    return name_fill(X509_get_subject_name(cert), cluster_id, NULL, ROOT_CN) &&
           X509_set_issuer_name(cert, X509_get_subject_name(cert)) == 1 &&
           set_dates(cert, now_s - BACKDATE_S, now_s + ROOT_VALIDITY_S) &&
           ext_constraints(cert, 1) && ext_usage(cert, USAGE_CERT_SIGN) && ext_own_id(cert) &&
           X509_sign(cert, key, EVP_sha256()) > 0;
}

RESULT x509_root(const struct secret *key_pem, const char *cluster_id, struct buf *out_pem,
                 struct why *why) {
    EVP_PKEY *key = NULL;
    TRY(check_name("cluster id", cluster_id, why));
    TRY(pkey_parse(key_pem, &key, why));
    X509 *cert = cert_new(key);
    enum err e = OK;
    if (cert == NULL || !root_build(cert, key, cluster_id))
        e = openssl_fail(why, ERR_INTERNAL, "making a root certificate");
    if (e == OK) e = cert_write(cert, out_pem);
    X509_free(cert);
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

/* The public key of a request that was signed with its private key. */
static enum err request_key(struct span pem, EVP_PKEY **out, struct why *why) {
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

/* --- issuing --- */

/* Who signs. */
struct issuer {
    X509 *root;    /* owned */
    EVP_PKEY *key; /* owned; the root's */
};

static void issuer_free(struct issuer *i) {
    X509_free(i->root);
    EVP_PKEY_free(i->key);
}

static enum err issuer_parse(const struct secret *key_pem, struct span root_pem, struct issuer *out,
                             struct why *why) {
    struct issuer i = {0};
    enum err e = cert_parse(root_pem, "root certificate", &i.root, why);
    if (e == OK) e = pkey_parse(key_pem, &i.key, why);
    if (e == OK && X509_check_private_key(i.root, i.key) != 1)
        e = openssl_fail(why, ERR_INVALID, "root certificate");
    if (e == OK && X509_check_ca(i.root) != 1)
        e = fail_with(why, ERR_INVALID, "root certificate: not one that may sign others");
    if (e == OK)
        *out = i;
    else
        issuer_free(&i);
    return e;
}

static bool leaf_build(X509 *cert, const struct issuer *issuer, const struct x509_subject *s,
                       int64_t from_s, int64_t until_s) {
    return name_fill(X509_get_subject_name(cert), s->o, s->ou, s->cn) &&
           X509_set_issuer_name(cert, X509_get_subject_name(issuer->root)) == 1 &&
           set_dates(cert, from_s, until_s) && ext_constraints(cert, -1) &&
           ext_usage(cert, USAGE_SIGN) && ext_purposes(cert) && ext_names(cert, s) &&
           ext_own_id(cert) && ext_issuer_id(cert, issuer->root) &&
           X509_sign(cert, issuer->key, EVP_sha256()) > 0;
}

static enum err issue(const struct issuer *issuer, EVP_PKEY *key, const struct x509_subject *s,
                      int64_t now_s, int64_t validity_s, struct buf *out_pem, struct why *why) {
    int64_t root_from_s;
    int64_t root_until_s;
    TRY(cert_dates(issuer->root, &root_from_s, &root_until_s));
    int64_t until_s = now_s + validity_s;
    if (until_s > root_until_s) until_s = root_until_s; /* nothing outlives its root */
    X509 *cert = cert_new(key);
    enum err e = OK;
    if (cert == NULL || !leaf_build(cert, issuer, s, now_s - BACKDATE_S, until_s))
        e = openssl_fail(why, ERR_INTERNAL, "making a certificate");
    if (e == OK) e = cert_write(cert, out_pem);
    X509_free(cert);
    return e;
}

RESULT x509_issue(const struct secret *root_key_pem, struct span root_pem, struct span request_pem,
                  const struct x509_subject *subject, int64_t now_s, int64_t validity_s,
                  struct buf *out_pem, struct why *why) {
    struct issuer issuer;
    EVP_PKEY *key = NULL;
    TRY(check_subject(subject, why));
    if (validity_s <= 0 || validity_s > ROOT_VALIDITY_S || now_s < 0 || now_s > INT64_MAX / 2)
        return fail_with(why, ERR_INVALID, "certificate: no such time of validity");
    TRY(request_key(request_pem, &key, why));
    enum err e = issuer_parse(root_key_pem, root_pem, &issuer, why);
    if (e == OK) {
        e = issue(&issuer, key, subject, now_s, validity_s, out_pem, why);
        issuer_free(&issuer);
    }
    EVP_PKEY_free(key);
    return e;
}

/* --- verifying --- */

RESULT trust_new(struct span root_pem, X509_STORE **out, struct why *why) {
    STACK_OF(X509) * roots;
    TRY(certs_parse(root_pem, "root certificate", &roots, why));
    X509_STORE *store = X509_STORE_new();
    bool fine = store != NULL && X509_STORE_set_flags(store, X509_V_FLAG_X509_STRICT) == 1;
    for (int i = 0; fine && i < sk_X509_num(roots); i++)
        fine = X509_STORE_add_cert(store, sk_X509_value(roots, i)) == 1;
    certs_free(roots);
    if (!fine) {
        X509_STORE_free(store);
        return openssl_fail(why, ERR_NOMEM, "root certificate");
    }
    *out = store;
    return OK;
}

enum err cert_refused(int verify_error, struct why *why) {
    const char *what;
    switch (verify_error) {
    case X509_V_ERR_OUT_OF_MEM: return fail_with(why, ERR_NOMEM, "certificate: out of memory");
    case X509_V_ERR_CERT_HAS_EXPIRED: what = "it has expired"; break;
    case X509_V_ERR_CERT_NOT_YET_VALID: what = "it is not yet valid: is the clock right?"; break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN: what = "issued by another cluster's root"; break;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: what = "its signature is not the root's"; break;
    case X509_V_ERR_INVALID_PURPOSE: what = "not meant for both server and client"; break;
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
    case X509_V_ERR_HOSTNAME_MISMATCH: what = "issued to another name or role"; break;
    default: what = X509_verify_cert_error_string(verify_error); break;
    }
    return fail_with(why, ERR_CERTIFICATE, "certificate refused: %s", what);
}

/* Verifies the first of `certs` with the rest as what may lead to the root. */
static enum err chain_verify(X509_STORE *store, STACK_OF(X509) * certs, int64_t now_s,
                             struct why *why) {
    X509 *leaf = sk_X509_value(certs, 0);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    if (ctx == NULL || X509_STORE_CTX_init(ctx, store, leaf, certs) != 1) {
        X509_STORE_CTX_free(ctx);
        return openssl_fail(why, ERR_NOMEM, "certificate");
    }
    X509_STORE_CTX_set_time(ctx, 0, (time_t)now_s);
    int verified = X509_verify_cert(ctx);
    int verify_error = X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    if (verified != 1) return cert_refused(verify_error, why);
    if (X509_check_purpose(leaf, X509_PURPOSE_SSL_SERVER, 0) != 1 ||
        X509_check_purpose(leaf, X509_PURPOSE_SSL_CLIENT, 0) != 1)
        return cert_refused(X509_V_ERR_INVALID_PURPOSE, why);
    return OK;
}

RESULT x509_verify(struct span root_pem, struct span cert_pem, int64_t now_s,
                   struct x509_subject *out, struct why *why) {
    STACK_OF(X509) * certs;
    X509_STORE *store;
    enum err e = certs_parse(cert_pem, "certificate", &certs, why);
    if (e != OK) return e == ERR_INVALID ? ERR_CERTIFICATE : e;
    e = trust_new(root_pem, &store, why);
    if (e == OK) {
        e = chain_verify(store, certs, now_s, why);
        if (e == OK) e = subject_read(sk_X509_value(certs, 0), out, why);
        X509_STORE_free(store);
    }
    certs_free(certs);
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

RESULT x509_digest(struct span root_pem, char out[ROOT_DIGEST_TEXT]) {
    uint8_t digest[crypto_hash_sha256_BYTES];
    if (crypto_hash_sha256(digest, root_pem.at, root_pem.size) != 0) return ERR_INTERNAL;
    base36_text(digest, sizeof digest, out, ROOT_DIGEST_TEXT - 1);
    return OK;
}
