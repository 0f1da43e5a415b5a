/* See issuer.h. A text of several certificates is taken apart here, each one by crypto/x509. */
#include "api/engine/issuer.h"

#include "crypto/x509.h"

#define DER_MAX (8 * KIB) /* a subject, a key */

static const char pem_begin[] = "-----BEGIN CERTIFICATE-----";
static const char pem_end[] = "-----END CERTIFICATE-----";

/* The next certificate's text, its line end included. */
static bool next_pem(struct span *rest, struct span *out) {
    if (rest->size == 0) return false;
    const uint8_t *from = memmem(rest->at, rest->size, pem_begin, sizeof pem_begin - 1);
    size_t left = from ? rest->size - (size_t)(from - rest->at) : 0;
    const uint8_t *to = from ? memmem(from, left, pem_end, sizeof pem_end - 1) : NULL;
    if (!to) return false;
    size_t size = (size_t)(to - from) + sizeof pem_end - 1;
    if (size < left && from[size] == '\n') size++;
    *out = span_of(from, size);
    *rest = span_of(from + size, left - size);
    return true;
}

static void issuer_free(struct engine_issuer *i) {
    buf_free(&i->subject);
    buf_free(&i->public_key);
}

static RESULT add(struct engine_issuers *all, struct span pem) {
    struct engine_issuer *out = &all->list[all->n];
    *out = (struct engine_issuer){
        .subject = buf_new(DER_MAX), .public_key = buf_new(DER_MAX), .pem = pem};
    enum err e = x509_names(pem, &out->subject, &out->public_key);
    if (e == OK) e = x509_key_digest(pem, out->digest);
    if (e != OK || issuers_find(all, out->digest))
        issuer_free(out);
    else
        all->n++;
    return e;
}

RESULT issuers_add(struct engine_issuers *all, struct span pem) {
    struct span one;
    while (all->n < ENGINE_ISSUERS_MAX && next_pem(&pem, &one))
        TRY(add(all, one));
    return OK;
}

void issuers_free(struct engine_issuers *all) {
    while (all->n > 0)
        issuer_free(&all->list[--all->n]);
}

const struct engine_issuer *issuers_find(const struct engine_issuers *all,
                                         const uint8_t digest[NODE_DIGEST_SIZE]) {
    for (unsigned i = 0; i < all->n; i++)
        if (memcmp(all->list[i].digest, digest, NODE_DIGEST_SIZE) == 0) return &all->list[i];
    return NULL;
}
