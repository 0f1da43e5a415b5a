/* Judges certificates: whether a chain leads to one of the roots that are trusted, and who signed
 * it. A chain is what its holder shows: the leaf first, then what may lead to a root, in any number
 * of ways (a CA that two others have certified), the way to be taken first before the others. */
#include "crypto/x509_internal.h"

#include <time.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

/* OpenSSL reads a certificate's extensions when they are first asked for and keeps them in it: here
 * before threads share it. Whether it is good for anything is judged when it is used. */
static void read_extensions(X509 *cert) {
    (void)X509_check_purpose(cert, -1, 0);
    ERR_clear_error();
}

RESULT trust_new(struct span root_pem, bool strict, X509_STORE **out, struct why *why) {
    STACK_OF(X509) * roots;
    TRY(certs_parse(root_pem, "root certificate", &roots, why));
    X509_STORE *store = X509_STORE_new();
    bool fine = store != NULL;
    if (fine && strict) fine = X509_STORE_set_flags(store, X509_V_FLAG_X509_STRICT) == 1;
    for (int i = 0; i < sk_X509_num(roots); i++)
        read_extensions(sk_X509_value(roots, i));
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

/* Judged at the last second of the leaf's own validity. */
#define AT_ITS_END INT64_MIN

static enum err verify(X509_STORE *store, STACK_OF(X509) * certs, int64_t at_s,
                       struct x509_subject *out, struct why *why) {
    X509 *leaf = sk_X509_value(certs, 0);
    int64_t from_s;
    if (at_s == AT_ITS_END) {
        if (cert_dates(leaf, &from_s, &at_s) != OK)
            return fail_with(why, ERR_CERTIFICATE, "certificate: its dates can't be read");
        at_s--; /* OpenSSL takes the very end for expired */
    }
    TRY(chain_verify(store, certs, at_s, why));
    return subject_read(leaf, out, why);
}

static enum err verify_pem(struct span roots_pem, struct span chain_pem, int64_t at_s,
                           struct x509_subject *out, struct why *why) {
    STACK_OF(X509) * certs;
    X509_STORE *store = NULL;
    enum err e = certs_parse(chain_pem, "certificate", &certs, why);
    if (e != OK) return e == ERR_INVALID ? ERR_CERTIFICATE : e;
    e = trust_new(roots_pem, true, &store, why);
    if (e == OK) {
        e = verify(store, certs, at_s, out, why);
        X509_STORE_free(store);
    }
    certs_free(certs);
    return e;
}

RESULT x509_verify(struct span roots_pem, struct span chain_pem, int64_t now_s,
                   struct x509_subject *out, struct why *why) {
    return verify_pem(roots_pem, chain_pem, now_s, out, why);
}

RESULT x509_verify_ended(struct span roots_pem, struct span chain_pem, struct x509_subject *out,
                         struct why *why) {
    return verify_pem(roots_pem, chain_pem, AT_ITS_END, out, why);
}

/* --- who signed it --- */

RESULT cert_signed_by(X509 *cert, X509 *by) {
    EVP_PKEY *key = X509_get0_pubkey(by);
    bool fine =
        key != NULL && X509_check_issued(by, cert) == X509_V_OK && X509_verify(cert, key) == 1;
    ERR_clear_error();
    return fine ? OK : ERR_NOT_FOUND;
}

static enum err issuer_among(X509 *cert, STACK_OF(X509) * among, uint8_t out[KEY_DIGEST_SIZE]) {
    for (int i = 0; i < sk_X509_num(among); i++)
        if (cert_signed_by(cert, sk_X509_value(among, i)) == OK)
            return cert_key_digest(sk_X509_value(among, i), out);
    return ERR_NOT_FOUND;
}

RESULT x509_issuer_digest(struct span chain_pem, struct span roots_pem,
                          uint8_t out[KEY_DIGEST_SIZE]) {
    STACK_OF(X509) * chain, *roots;
    TRY(certs_parse(chain_pem, "certificate", &chain, NULL));
    enum err e = issuer_among(sk_X509_value(chain, 0), chain, out);
    if (e == ERR_NOT_FOUND && roots_pem.size != 0) {
        e = certs_parse(roots_pem, "root certificate", &roots, NULL);
        if (e == OK) {
            e = issuer_among(sk_X509_value(chain, 0), roots, out);
            certs_free(roots);
        }
    }
    certs_free(chain);
    return e;
}
