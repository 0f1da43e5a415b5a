/* Who issues certificates, as clients compare it: the subject and the public key of a CA's
 * certificate, in DER. A node's row only has the digest of its issuer's key; here is found which of
 * the cluster's CAs that is, and which root its holder trusts. */
#ifndef CONCLAVE_ENGINE_ISSUER_H
#define CONCLAVE_ENGINE_ISSUER_H

#include "crypto/base.h"
#include "store/node.h"

#define ENGINE_ISSUERS_MAX 32 /* certificates of all CAs, present, next and retired */

struct engine_issuer {
    uint8_t digest[NODE_DIGEST_SIZE]; /* SHA-256 of public_key */
    struct buf subject;               /* DER */
    struct buf public_key;            /* SubjectPublicKeyInfo, DER */
    struct span pem;                  /* the certificate's, in the text that it was found in */
};

struct engine_issuers {
    unsigned n;
    struct engine_issuer list[ENGINE_ISSUERS_MAX];
};

/* Adds the certificates of a PEM text, which has to stay; those that are there already are passed
 * over, and so is what does not fit. ERR_INVALID, ERR_NOMEM. */
RESULT issuers_add(struct engine_issuers *all, struct span pem);
void issuers_free(struct engine_issuers *all);
/* NULL: none of them. */
const struct engine_issuer *issuers_find(const struct engine_issuers *all,
                                         const uint8_t digest[NODE_DIGEST_SIZE]);

#endif
