/* Certificates are made here: roots, leaves, and a CA's certificate once more by another CA's key.
 * They are built from validated values as objects, never through OpenSSL's configuration strings,
 * where a comma in a name is another name.
 *
 * Invariants: every signature is with SHA-2; serials are 127 random bits; nothing outlives the
 * certificate of whoever signed it, but for cross-signed CAs, which have the dates of the original
 * (every certificate of a chain is judged by its own). */
#include "crypto/x509_internal.h"

#include <limits.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#define KEY_ID_SIZE 20 /* of the SHA-256 of the public key, RFC 7093 */
#define SERIAL_SIZE 16
#define NO_PATHLEN  (-1L) /* a CA, whatever stands below it */
#define NO_CA       (-2L)

static bool set_dates(X509 *cert, int64_t from_s, int64_t until_s) {
    ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)from_s);
    ASN1_TIME *until = ASN1_TIME_set(NULL, (time_t)until_s);
    bool done = from != NULL && until != NULL && X509_set1_notBefore(cert, from) == 1 &&
                X509_set1_notAfter(cert, until) == 1;
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    return done;
}

/* --- extensions --- */

static bool ext_add(X509 *cert, int nid, void *value, bool critical) {
    return value != NULL && X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_DEFAULT) == 1;
}

/* A pathlen, or one of the two above. */
static bool ext_constraints(X509 *cert, long pathlen) {
    BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
    if (bc == NULL) return false;
    bool fine = true;
    if (pathlen != NO_CA)
        bc->ca = 0xff; /* written as it is; DER knows no other TRUE, and Go insists on it */
    if (pathlen >= 0) {
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
                (strcmp(s->ou, ROLE_MANAGER) != 0 || names_push_dns(names, ROOT_CN)) &&
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
           ext_constraints(cert, NO_PATHLEN) && ext_usage(cert, USAGE_CERT_SIGN) &&
           ext_own_id(cert) && X509_sign(cert, key, EVP_sha256()) > 0;
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

/* --- issuing --- */

/* Who signs. */
struct issuer {
    X509 *cert;    /* owned */
    EVP_PKEY *key; /* owned; the certificate's */
};

static void issuer_free(struct issuer *i) {
    X509_free(i->cert);
    EVP_PKEY_free(i->key);
}

static enum err issuer_parse(const struct secret *key_pem, struct span pem, struct issuer *out,
                             struct why *why) {
    struct issuer i = {0};
    enum err e = cert_parse(pem, "CA certificate", &i.cert, why);
    if (e == OK) e = pkey_parse_signer(key_pem, &i.key, why);
    if (e == OK && X509_check_private_key(i.cert, i.key) != 1)
        e = openssl_fail(why, ERR_INVALID, "CA certificate");
    if (e == OK && X509_check_ca(i.cert) != 1)
        e = fail_with(why, ERR_INVALID, "CA certificate: not one that may sign others");
    if (e == OK)
        *out = i;
    else
        issuer_free(&i);
    return e;
}

static bool sign(X509 *cert, const struct issuer *issuer) {
    return X509_set_issuer_name(cert, X509_get_subject_name(issuer->cert)) == 1 &&
           ext_issuer_id(cert, issuer->cert) &&
           X509_sign(cert, issuer->key, signing_digest(issuer->key)) > 0;
}

static bool leaf_build(X509 *cert, const struct x509_subject *s, int64_t from_s, int64_t until_s) {
    return name_fill(X509_get_subject_name(cert), s->o, s->ou, s->cn) &&
           set_dates(cert, from_s, until_s) && ext_constraints(cert, NO_CA) &&
           ext_usage(cert, USAGE_SIGN) && ext_purposes(cert) && ext_names(cert, s) &&
           ext_own_id(cert);
}

static enum err issue(const struct issuer *issuer, EVP_PKEY *key, const struct x509_subject *s,
                      int64_t now_s, int64_t validity_s, struct buf *out_pem, struct why *why) {
    int64_t ca_from_s;
    int64_t ca_until_s;
    TRY(cert_dates(issuer->cert, &ca_from_s, &ca_until_s));
    int64_t until_s = now_s + validity_s;
    if (until_s > ca_until_s) until_s = ca_until_s; /* nothing outlives its CA */
    X509 *cert = cert_new(key);
    enum err e = OK;
    if (cert == NULL || !leaf_build(cert, s, now_s - BACKDATE_S, until_s) || !sign(cert, issuer))
        e = openssl_fail(why, ERR_INTERNAL, "making a certificate");
    if (e == OK) e = cert_write(cert, out_pem);
    X509_free(cert);
    return e;
}

RESULT x509_issue(const struct secret *ca_key_pem, struct span ca_pem, struct span request_pem,
                  const struct x509_subject *subject, int64_t now_s, int64_t validity_s,
                  struct buf *out_pem, struct why *why) {
    struct issuer issuer;
    EVP_PKEY *key = NULL;
    TRY(check_subject(subject, why));
    if (validity_s <= 0 || validity_s > ROOT_VALIDITY_S || now_s < 0 || now_s > INT64_MAX / 2)
        return fail_with(why, ERR_INVALID, "certificate: no such time of validity");
    TRY(request_key(request_pem, &key, why));
    enum err e = issuer_parse(ca_key_pem, ca_pem, &issuer, why);
    if (e == OK) {
        e = issue(&issuer, key, subject, now_s, validity_s, out_pem, why);
        issuer_free(&issuer);
    }
    EVP_PKEY_free(key);
    return e;
}

RESULT x509_chain(struct span leaf_pem, struct span issuer_pem, struct span cross_pem,
                  struct buf *out_pem) {
    TRY(buf_add_span(out_pem, leaf_pem));
    TRY(buf_add_span(out_pem, issuer_pem));
    return buf_add_span(out_pem, cross_pem);
}

/* --- cross-signing --- */

static bool ext_copy(X509 *cert, const X509 *from, int nid) {
    int at = X509_get_ext_by_NID(from, nid, -1);
    return at < 0 || X509_add_ext(cert, X509_get_ext(from, at), -1) == 1;
}

static bool cross_build(X509 *cert, X509 *original) {
    return X509_set_subject_name(cert, X509_get_subject_name(original)) == 1 &&
           X509_set1_notBefore(cert, X509_get0_notBefore(original)) == 1 &&
           X509_set1_notAfter(cert, X509_get0_notAfter(original)) == 1 &&
           ext_copy(cert, original, NID_basic_constraints) &&
           ext_copy(cert, original, NID_key_usage) &&
           ext_copy(cert, original, NID_subject_key_identifier);
}

static enum err cross(const struct issuer *issuer, X509 *original, struct buf *out_pem,
                      struct why *why) {
    if (X509_check_ca(original) != 1)
        return fail_with(why, ERR_INVALID, "the CA to be certified: not one that may sign others");
    EVP_PKEY *key = X509_get0_pubkey(original);
    X509 *cert = key == NULL ? NULL : cert_new(key);
    enum err e = OK;
    if (cert == NULL || !cross_build(cert, original) || !sign(cert, issuer))
        e = openssl_fail(why, ERR_INTERNAL, "certifying a CA");
    if (e == OK) e = cert_write(cert, out_pem);
    X509_free(cert);
    return e;
}

RESULT x509_cross(const struct secret *ca_key_pem, struct span ca_pem, struct span next_pem,
                  struct buf *out_pem, struct why *why) {
    struct issuer issuer;
    X509 *original;
    TRY(cert_parse(next_pem, "the CA to be certified", &original, why));
    enum err e = issuer_parse(ca_key_pem, ca_pem, &issuer, why);
    if (e == OK) {
        e = cross(&issuer, original, out_pem, why);
        issuer_free(&issuer);
    }
    X509_free(original);
    return e;
}
