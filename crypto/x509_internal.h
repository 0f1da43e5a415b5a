/* Private to x509.c and tls.c: OpenSSL's objects from our bytes, and sentences from its errors. */
#ifndef CONCLAVE_X509_INTERNAL_H
#define CONCLAVE_X509_INTERNAL_H

#include "crypto/x509.h"

#include <openssl/x509.h>

/* `e` with "<what>: <OpenSSL's reason>"; empties OpenSSL's queue of errors. */
enum err openssl_fail(struct why *why, enum err e, const char *what);

/* A private key on P-256; the caller frees. ERR_INVALID with a sentence. */
RESULT pkey_parse(const struct secret *pem, EVP_PKEY **out, struct why *why);

/* All certificates in the PEM, at least one; the caller frees. `what` names them in sentences. */
RESULT certs_parse(struct span pem, const char *what, STACK_OF(X509) * *out, struct why *why);
void certs_free(STACK_OF(X509) * certs);
RESULT cert_write(X509 *cert, struct buf *out_pem); /* appends */

/* A store that trusts the roots and checks strictly; the caller frees. */
RESULT trust_new(struct span root_pem, X509_STORE **out, struct why *why);

/* CN, OU and O, each there once and of permitted characters; ERR_CERTIFICATE. */
RESULT subject_read(X509 *cert, struct x509_subject *out, struct why *why);

/* ERR_CERTIFICATE with the sentence for a failed verification (an X509_V_ERR_*). */
enum err cert_refused(int verify_error, struct why *why);

#endif
