/* Shamir's secret sharing of a 32-byte key over GF(256), constant-time: n shares, any k of which
 * give the key back, fewer than k say nothing about it (Shamir, "How to share a secret", 1979).
 *
 * A share as text: "CCLSHARE-1-" + base36 of u8 version, 8 bytes set id (which shares belong
 * together), u8 k, u8 x (1..255), 32 bytes y, 4 bytes checksum of all before (BLAKE2b), so that a
 * mistyped share is told from a wrong one. */
#ifndef CONCLAVE_SHAMIR_H
#define CONCLAVE_SHAMIR_H

#include "crypto/secret.h"

#define SHARES_MAX 255
#define SHARE_TEXT 96 /* with the NUL */

/* 2 <= k <= n <= SHARES_MAX. ERR_INVALID, ERR_NOMEM. */
RESULT shamir_split(const struct secret *key, unsigned k, unsigned n, char (*out)[SHARE_TEXT],
                    struct why *why);
/* Shares as text, in any order; more than k must fit the others. ERR_INVALID: not a share, doubled,
 * of another set, not fitting; ERR_PRECONDITION: too few ("2 of 3 shares"). */
RESULT shamir_combine(const char *const *shares, unsigned n, struct secret **out, struct why *why);
/* What a share says without the others: how many are needed, and its number. */
RESULT shamir_look(const char *share, unsigned *k, unsigned *x, struct why *why);

#endif
