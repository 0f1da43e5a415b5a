/* The tokens that a password buys (Authenticate). A token is sealed with the state's token key
 * (store/auth.h), so every member can check every token and none is kept; it is void as soon as
 * auth is disabled, its user gone or his password another one. As etcd's, it lives for
 * AUTH_TOKEN_S after its last use on this member, or since it was made on the others: what is kept
 * is when the tokens in use were last seen, BEARERS_MAX of them; one that falls out of that table
 * lives as long as if it were new to this member, and a client then simply asks for another one.
 *
 * Format, base64url without padding: 24 bytes nonce, then sealed with XChaCha20-Poly1305:
 *   u8 1, u64 second it was made (UTC), 16 bytes proof, the user's name to the end
 * The proof is BLAKE2b of the user's name and password hash, keyed with the token key. */
#ifndef CONCLAVE_BEARER_H
#define CONCLAVE_BEARER_H

#include "store/auth.h"

#define BEARER_TEXT_MAX    512   /* a token */
#define BEARERS_MAX        16384 /* tokens whose last use is remembered */
#define BEARER_CLOCK_MAX_S 60    /* how far the clocks of members may be apart */

struct bearers;

RESULT bearers_new(struct bearers **out);
void bearers_free(struct bearers *b); /* NULL is fine */

struct bearer_now {
    int64_t wall_s;  /* UTC: tells the age of a token that is new here */
    uint64_t mono_s; /* never goes back: tells how long ago one was last used here */
};

/* Of a user with a password. ERR_AUTH_DISABLED, ERR_AUTH_FAILED (no such user, no password). */
RESULT bearer_proof(const struct auth *a, struct span user, uint8_t proof[AUTH_PROOF_SIZE]);
RESULT bearer_make(const struct auth *a, struct span user, int64_t wall_s,
                   char out[BEARER_TEXT_MAX]);
/* Checks a token and notes its use. ERR_AUTH_TOKEN: not one of ours, too old, or void. */
RESULT bearer_open(const struct auth *a, struct bearers *b, struct span text,
                   const struct bearer_now *now, char user[USER_NAME_MAX + 1],
                   uint8_t proof[AUTH_PROOF_SIZE]);

#endif
