/* The escrow file: cluster keys for the operator to keep, apart from the backups, sealed under a
 * passphrase (format: top of escrow.c). Whoever has it, its passphrase and a backup of its time has
 * all values; nobody has them with less. Both functions block for about a second (Argon2id). */
#ifndef CONCLAVE_ESCROW_H
#define CONCLAVE_ESCROW_H

#include "crypto/kek.h"

#define ESCROW_MAX (64 * KIB)

/* `keys` as in identity.h (vault_keys_encode). The file is appended to `out`. */
RESULT escrow_seal(struct span keys, const struct secret *passphrase, struct kek_cost cost,
                   struct buf *out, struct why *why);
/* ERR_WRONG_KEY: another passphrase. ERR_CORRUPT: damaged, or no escrow file. What comes out has
 * passed vault_keys_check. */
RESULT escrow_open(struct span file, const struct secret *passphrase, struct secret **keys,
                   struct why *why);

/* Between escrow.c and its fuzzer: the outer form. */
struct escrow_outer {
    struct kek_params params;        /* checked */
    struct span head, nonce, sealed; /* into the file */
};
RESULT escrow_decode(struct span file, struct escrow_outer *out, struct why *why);

#endif
