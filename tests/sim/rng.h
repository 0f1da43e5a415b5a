/* Random numbers of the simulator: splitmix64, integers only, the same on every machine. */
#ifndef CONCLAVE_TESTS_SIM_RNG_H
#define CONCLAVE_TESTS_SIM_RNG_H

#include "crypto/base.h"

struct rng {
    uint64_t state; /* any value is a seed */
};

static inline uint64_t rng_next(struct rng *r) {
    uint64_t z = r->state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* 0 .. n - 1; n > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t n) { return rng_next(r) % n; }

/* low .. high, both included. */
static inline uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high) {
    return low + rng_below(r, high - low + 1);
}

/* True `per_mille` times in a thousand. */
static inline bool rng_chance(struct rng *r, unsigned per_mille) {
    return rng_below(r, 1000) < per_mille;
}

/* Around `mean`, from a tenth of it to four times as much, mostly less. */
static inline uint64_t rng_around(struct rng *r, uint64_t mean) {
    uint64_t tenths = rng_between(r, 1, rng_chance(r, 250) ? 40 : 13);
    return mean * tenths / 10 + 1;
}

#endif
