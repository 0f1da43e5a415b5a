/* A certificate authority that its user brings: what it must be so that every node can live on it
 * for years (reference: swarmkit ca, "root rotation"; its rules hold for each certificate of the
 * chain here). Rules that have no sentence of their own (constraints on names, purposes, lengths of
 * paths) are found out by trying: one certificate is issued for nobody and verified. */
#include "crypto/x509_internal.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#define CHAIN_MAX 4 /* certificates of a CA, with the root */

static enum err refused(struct why *why, int at, const char *what) {
    return fail_with(why, ERR_INVALID, "CA certificate %d: %s", at + 1, what);
}

static bool signed_with_sha2(X509 *cert) {
    int digest = NID_undef;
    if (X509_get_signature_info(cert, &digest, NULL, NULL, NULL) != 1) return false;
    return digest == NID_sha256 || digest == NID_sha384 || digest == NID_sha512;
}

static enum err check_life(X509 *cert, int at, int64_t now_s, struct why *why) {
    int64_t from_s, until_s;
    if (cert_dates(cert, &from_s, &until_s) != OK)
        return refused(why, at, "its dates can't be read");
    if (from_s > now_s) return refused(why, at, "it is not yet valid");
    if (until_s <= now_s) return refused(why, at, "it has expired");
    if (until_s - now_s < CA_LIFE_MIN_S)
        return refused(why, at, "it ends within a year; a CA must last longer");
    return OK;
}

/* What holds for every certificate of the chain by itself. */
static enum err check_one(X509 *cert, int at, int64_t now_s, struct why *why) {
    EVP_PKEY *key = X509_get0_pubkey(cert);
    if ((X509_get_extension_flags(cert) & EXFLAG_CA) == 0)
        return refused(why, at, "it is not one of a CA (basic constraints CA:TRUE)");
    if ((X509_get_key_usage(cert) & KU_KEY_CERT_SIGN) == 0 ||
        X509_get_ext_by_NID(cert, NID_key_usage, -1) < 0)
        return refused(why, at, "it may not sign certificates (key usage keyCertSign)");
    if (X509_get0_subject_key_id(cert) == NULL)
        return refused(why, at, "it has no subject key identifier");
    if (!signed_with_sha2(cert))
        return refused(why, at, "it is not signed with SHA-256, SHA-384 or SHA-512");
    if (key == NULL || signing_digest(key) == NULL)
        return refused(why, at,
                       "its key is neither RSA of 2048 bits or more nor on P-256, P-384 or P-521");
    return check_life(cert, at, now_s, why);
}

/* Each signed by the next, the last by itself. */
static enum err check_order(STACK_OF(X509) * chain, struct why *why) {
    int n = sk_X509_num(chain);
    for (int i = 0; i + 1 < n; i++) {
        if (cert_signed_by(sk_X509_value(chain, i), sk_X509_value(chain, i)) == OK)
            return refused(why, i, "it is a root already; nothing may follow it");
        if (cert_signed_by(sk_X509_value(chain, i), sk_X509_value(chain, i + 1)) != OK)
            return refused(why, i, "it is not signed by the next one");
    }
    if (cert_signed_by(sk_X509_value(chain, n - 1), sk_X509_value(chain, n - 1)) != OK)
        return refused(why, n - 1, "it is not self-signed: the chain must go up to the root");
    return OK;
}

/* Its key is none that the cluster has now. The CAs above it may well be the same ones. */
static enum err check_new(STACK_OF(X509) * chain, struct span present_pem, struct why *why) {
    STACK_OF(X509) * present;
    enum err e = OK;
    if (present_pem.size == 0) return OK;
    TRY(certs_parse(present_pem, "present CA", &present, why));
    EVP_PKEY *key = X509_get0_pubkey(sk_X509_value(chain, 0));
    for (int i = 0; e == OK && i < sk_X509_num(present); i++) {
        EVP_PKEY *have = X509_get0_pubkey(sk_X509_value(present, i));
        if (have != NULL && EVP_PKEY_eq(key, have) == 1)
            e = refused(why, 0, "its key is one that the cluster uses now");
    }
    certs_free(present);
    ERR_clear_error();
    return e;
}

static enum err check_key(X509 *signer, const struct secret *key_pem, struct why *why) {
    EVP_PKEY *key;
    TRY(pkey_parse_signer(key_pem, &key, why));
    bool fits = X509_check_private_key(signer, key) == 1;
    ERR_clear_error();
    EVP_PKEY_free(key);
    return fits ? OK : fail_with(why, ERR_INVALID, "the private key is not the CA certificate's");
}

static enum err check_chain(STACK_OF(X509) * chain, const struct secret *key_pem,
                            struct span present_pem, int64_t now_s, struct why *why) {
    int n = sk_X509_num(chain);
    if (n > CHAIN_MAX)
        return fail_with(why, ERR_INVALID, "a CA of more than %d certificates", CHAIN_MAX);
    for (int i = 0; i < n; i++)
        TRY(check_one(sk_X509_value(chain, i), i, now_s, why));
    TRY(check_order(chain, why));
    TRY(check_new(chain, present_pem, why));
    return key_pem == NULL ? OK : check_key(sk_X509_value(chain, 0), key_pem, why);
}

static enum err split(STACK_OF(X509) * chain, struct buf *root_pem, struct buf *issuer_pem) {
    int n = sk_X509_num(chain);
    for (int i = 0; i + 1 < n; i++)
        TRY(cert_write(sk_X509_value(chain, i), issuer_pem));
    return cert_write(sk_X509_value(chain, n - 1), root_pem);
}

RESULT x509_ca_check(struct span chain_pem, const struct secret *key_pem, struct span present_pem,
                     int64_t now_s, struct buf *root_pem, struct buf *issuer_pem, struct why *why) {
    STACK_OF(X509) * chain;
    struct buf root = buf_new(PEM_MAX), issuer = buf_new(PEM_MAX);
    TRY(certs_parse(chain_pem, "CA certificate", &chain, why));
    enum err e = check_chain(chain, key_pem, present_pem, now_s, why);
    if (e == OK) e = split(chain, &root, &issuer);
    if (e == OK && key_pem != NULL) {
        e = x509_ca_try(key_pem, buf_span(&root), buf_span(&issuer), span_of(NULL, 0),
                        buf_span(&root), now_s, why);
        if (e == ERR_CERTIFICATE)
            e = fail_in(why, ERR_INVALID, "what this CA signs would not be accepted");
    }
    if (e == OK) e = buf_add_span(root_pem, buf_span(&root));
    if (e == OK) e = buf_add_span(issuer_pem, buf_span(&issuer));
    buf_free(&root);
    buf_free(&issuer);
    certs_free(chain);
    return e;
}

/* The throw-away certificate; a manager's, which has the most names. */
static enum err try_issue(const struct secret *ca_key, struct span ca_pem, int64_t now_s,
                          struct buf *out, struct why *why) {
    static const struct x509_subject nobody = {
        .cn = "nobody", .ou = ROLE_MANAGER, .o = "trial", .hosts = "127.0.0.1,localhost"};
    struct secret *key;
    struct buf request = buf_new(PEM_MAX);
    TRY(x509_key_new(&key, why));
    enum err e = x509_request(key, nobody.cn, &request, why);
    if (e == OK)
        e = x509_issue(ca_key, ca_pem, buf_span(&request), &nobody, now_s, BACKDATE_S, out, why);
    secret_free(key);
    buf_free(&request);
    return e;
}

RESULT x509_ca_try(const struct secret *key_pem, struct span root_pem, struct span issuer_pem,
                   struct span cross_pem, struct span roots_pem, int64_t now_s, struct why *why) {
    struct buf leaf = buf_new(PEM_MAX), chain = buf_new(2 * PEM_MAX);
    struct span signer = issuer_pem.size != 0 ? issuer_pem : root_pem;
    struct x509_subject seen;
    enum err e = try_issue(key_pem, signer, now_s, &leaf, why);
    if (e == OK) e = x509_chain(buf_span(&leaf), issuer_pem, cross_pem, &chain);
    if (e == OK) e = x509_verify(roots_pem, buf_span(&chain), now_s, &seen, why);
    buf_free(&leaf);
    buf_free(&chain);
    return e;
}
