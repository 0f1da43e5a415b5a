/* Private to x509*.c and tls.c: OpenSSL's objects from our bytes, and sentences from its errors. */
#ifndef CONCLAVE_X509_INTERNAL_H
#define CONCLAVE_X509_INTERNAL_H

#include "crypto/x509.h"

#include <openssl/x509.h>

#define RSA_BITS_MIN 2048 /* of a CA's key */

/* `e` with "<what>: <OpenSSL's reason>"; empties OpenSSL's queue of errors. */
enum err openssl_fail(struct why *why, enum err e, const char *what);

/* A private key on P-256; the caller frees. ERR_INVALID with a sentence. */
RESULT pkey_parse(const struct secret *pem, EVP_PKEY **out, struct why *why);
/* The same of any kind, for a certificate that is not of our making. */
RESULT pkey_parse_any(const struct secret *pem, EVP_PKEY **out, struct why *why);
/* The same of a kind that a CA may have. */
RESULT pkey_parse_signer(const struct secret *pem, EVP_PKEY **out, struct why *why);
/* What a CA with this key signs with; NULL: a CA may not have such a key. */
const EVP_MD *signing_digest(const EVP_PKEY *key);

/* All certificates in the PEM, at least one; the caller frees. `what` names them in sentences. */
RESULT certs_parse(struct span pem, const char *what, STACK_OF(X509) * *out, struct why *why);
void certs_free(STACK_OF(X509) * certs);
RESULT cert_parse(struct span pem, const char *what, X509 **out, struct why *why); /* the first */
RESULT cert_write(X509 *cert, struct buf *out_pem);                                /* appends */
/* The public key of a request that was signed with its private key; the caller frees. */
RESULT request_key(struct span pem, EVP_PKEY **out, struct why *why);

/* A store that trusts the roots; `strict`: certificates keep to all of RFC 5280, as ours do. The
 * caller frees. */
RESULT trust_new(struct span roots_pem, bool strict, X509_STORE **out, struct why *why);

/* CN, OU and O, each there once and of permitted characters; ERR_CERTIFICATE. */
RESULT subject_read(X509 *cert, struct x509_subject *out, struct why *why);
/* The CN alone, of a certificate that is not of our making: OU and O stay empty, whatever it says,
 * and so does a CN that is missing, doubled, too long or of other characters. */
RESULT subject_read_foreign(X509 *cert, struct x509_subject *out);
RESULT check_name(const char *what, const char *s, struct why *why); /* ERR_INVALID */
RESULT check_subject(const struct x509_subject *s, struct why *why); /* ERR_INVALID */
/* In the order O, OU, CN; NULL parts are left out. */
bool name_fill(X509_NAME *name, const char *o, const char *ou, const char *cn);
/* Calls `each` for every host of the list; false at the first that it refuses, or when one is
 * empty. */
bool hosts_walk(const char *hosts, bool (*each)(void *ctx, const char *host), void *ctx);

RESULT cert_dates(const X509 *cert, int64_t *not_before_s, int64_t *not_after_s);
RESULT cert_signed_by(X509 *cert, X509 *by);     /* ERR_NOT_FOUND: it was not */
RESULT spki_of(X509 *cert, struct buf *out_der); /* appends */
RESULT cert_key_digest(X509 *cert, uint8_t out[KEY_DIGEST_SIZE]);

/* ERR_CERTIFICATE with the sentence for a failed verification (an X509_V_ERR_*). */
enum err cert_refused(int verify_error, struct why *why);

#endif
