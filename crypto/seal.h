/* AEAD records. A sealer is one key and one algorithm; a record is plaintext sealed under a counter
 * nonce, with associated data that binds it to its place. The caller owns the rule that makes this
 * safe: a sealer's key is derived for one file (one random file id) and a counter is used once.
 *
 * Sealed form: ciphertext (as long as the plaintext) followed by a 16-byte tag.
 * Nonce: the counter as 8 bytes little-endian, then zeros (24 bytes XChaCha20, 12 bytes AES-GCM).
 *
 * Algorithms have a byte that files carry, so every machine reads every file: XChaCha20-Poly1305 by
 * libsodium, AES-256-GCM by gcm.h. SEAL_NULL is for the benchmark alone: it appends a tag of
 * zeros, and nothing opens it unless seal_allow_null(true) was called, which only bench/ does. */
#ifndef CONCLAVE_SEAL_H
#define CONCLAVE_SEAL_H

#include "crypto/base.h"
#include "crypto/secret.h"

#define SEAL_TAG 16

enum seal_alg { SEAL_NULL = 0, SEAL_XCHACHA20 = 1, SEAL_AES256GCM = 2 };

struct sealer;

/* Does not keep `key` (32 bytes). Not thread-safe: one thread at a time. */
RESULT sealer_new(enum seal_alg alg, const struct secret *key, struct sealer **out);
void sealer_free(struct sealer *s);

/* out has room for plain.size + SEAL_TAG; in place is allowed. */
RESULT seal(struct sealer *s, uint64_t counter, struct span ad, struct span plain, uint8_t *out);
/* The same for a plaintext in pieces, without gathering it first: what AES-GCM seals is read where
 * it lies, once, and written to its place. `out` has room for all pieces and the tag. A piece may
 * lie at its very place in `out`; otherwise it must not overlap it. One sealing of a sealer at a
 * time, begun, added to and ended; when a step fails it is over. */
struct sealing {
    struct sealer *sealer; /* not owned */
    uint8_t *out, *at;     /* the beginning; the place of the next piece */
    uint64_t counter;      /* as given */
    struct span ad;        /* as given: it stays until the end */
};
RESULT seal_begin(struct sealing *g, struct sealer *s, uint64_t counter, struct span ad,
                  uint8_t *out);
RESULT seal_add(struct sealing *g, struct span piece);
RESULT seal_end(struct sealing *g); /* writes the tag behind the last piece */

/* out has room for sealed.size - SEAL_TAG. ERR_CORRUPT when the tag does not match: then `out`
 * holds nothing of use. In place is allowed. */
RESULT unseal(struct sealer *s, uint64_t counter, struct span ad, struct span sealed, uint8_t *out);

enum seal_alg seal_fastest(void); /* measured once on this machine, on first use; thread-safe */
void seal_allow_null(bool allowed);
bool seal_known(uint8_t alg); /* may a file carry this byte? */

#endif
