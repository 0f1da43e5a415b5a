/* Wrong join tokens, counted by where they come from: a few at once, then one in ten seconds, so
 * that whoever guesses keeps nobody out but himself. A source is an address, of IPv6 its /64, in
 * one of GUESS_BUCKETS counters by a hash under a random key: the memory is fixed, and nobody can
 * tell whose counter he shares. Pure. */
#ifndef CONCLAVE_GUESSES_H
#define CONCLAVE_GUESSES_H

#include <sodium.h>

#include "crypto/base.h"

#define GUESS_BUCKETS 1024
#define GUESS_COST    40  /* beats until one is forgotten */
#define GUESS_LIMIT   400 /* ten at once */

struct guesses {
    uint8_t key[crypto_shorthash_KEYBYTES]; /* of the hash */
    bool some;                              /* a counter is not 0 */
    uint16_t beats[GUESS_BUCKETS];          /* until the source's are all forgotten */
};

void guesses_start(struct guesses *g);                          /* zeroed: draws the key */
void guesses_wrong(struct guesses *g, const char *remote);      /* a host, without a port */
bool guesses_many(const struct guesses *g, const char *remote); /* it has to wait */
void guesses_beat(struct guesses *g);                           /* every BEAT_MS */

#endif
