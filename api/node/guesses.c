/* See guesses.h. A counter grows by GUESS_COST with each wrong token and shrinks by one a beat. */
#include "api/node/guesses.h"

#include <arpa/inet.h>

#include "crypto/secret.h"

#define PREFIX 8 /* bytes of an IPv6 address that are one source */

static unsigned bucket_of(const struct guesses *g, const char *remote) {
    struct in6_addr six;
    uint8_t hash[crypto_shorthash_BYTES];
    const uint8_t *at = (const uint8_t *)remote;
    size_t size = strlen(remote);
    if (inet_pton(AF_INET6, remote, &six) == 1) {
        at = six.s6_addr;
        size = PREFIX;
    }
    (void)crypto_shorthash(hash, at, size, g->key);
    return get_u32(hash) % GUESS_BUCKETS;
}

void guesses_start(struct guesses *g) { random_bytes(g->key, sizeof g->key); }

void guesses_wrong(struct guesses *g, const char *remote) {
    uint16_t *beats = &g->beats[bucket_of(g, remote)];
    if (*beats <= UINT16_MAX - GUESS_COST) *beats = (uint16_t)(*beats + GUESS_COST);
    g->some = true;
}

bool guesses_many(const struct guesses *g, const char *remote) {
    return g->beats[bucket_of(g, remote)] > GUESS_LIMIT;
}

void guesses_beat(struct guesses *g) {
    if (!g->some) return;
    g->some = false;
    for (unsigned i = 0; i < GUESS_BUCKETS; i++) {
        if (g->beats[i] > 0) g->beats[i]--;
        g->some |= g->beats[i] > 0;
    }
}
