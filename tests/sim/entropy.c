/* Keys, ids and segment numbers are random bytes too, and so are part of a history: libsodium's
 * generator is replaced by one that starts with the seed of the run. It has no context pointer to
 * hang its state on, hence the one global. For the simulator only: nothing it makes is secret. */
#include <sodium.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

static struct rng state; /* of the replaced generator */

static const char *seeded_name(void) { return "conclave-sim"; }
static uint32_t seeded_random(void) { return (uint32_t)rng_next(&state); }

static void seeded_bytes(void *const at, const size_t size) {
    uint8_t *p = at;
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)(rng_next(&state) >> 32);
}

static struct randombytes_implementation seeded = {
    .implementation_name = seeded_name, .random = seeded_random, .buf = seeded_bytes};

void entropy_replace(void) {
    if (randombytes_set_implementation(&seeded) != 0) abort();
}

void entropy_seed(uint64_t seed) { state.state = seed; }
