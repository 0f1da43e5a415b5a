/* A ballot file made of the input: an even first byte and the rest are the file; an odd one, and
 * the rest is a list of damages (offset, mask) done to a good one. It must be refused, or hold the
 * same vote. */
#include <stdlib.h>

#include "raft/ballot.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/log_box.h"

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t size);

static const struct identity identity = {"cluster", "node"};
static struct disk *good; /* with a ballot, made on the first call */
static struct keyring *keys;

static void must(bool right) {
    if (!right) abort();
}

static enum err open_on(struct disk *d, struct ballot **b) {
    return ballot_open(d, keys, &identity, SEAL_XCHACHA20, b, NULL);
}

static void make_good(void) {
    struct disk *keys_disk;
    struct ballot *b = NULL;
    keys = box_keys(&keys_disk);
    good = disk_sim_new(1);
    must(open_on(good, &b) == OK);
    must(ballot_vote(b, 7, 3, NULL) == OK);
    ballot_close(b);
}

static void damage(struct cursor *c, struct disk *d) {
    uint8_t mask;
    uint16_t offset;
    while (cursor_u16(c, &offset) == OK && cursor_u8(c, &mask) == OK)
        (void)disk_sim_flip(d, "ballot", offset % (2 * BLOCK_SIZE), mask);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t size) {
    struct cursor c = {.at = at, .left = size};
    uint8_t mode;
    uint64_t term, vote;
    struct ballot *b = NULL;
    if (good == NULL) make_good();
    if (cursor_u8(&c, &mode) != OK) return 0;
    struct disk *d = disk_sim_clone(good, 1);
    if (mode % 2 != 0)
        damage(&c, d);
    else
        must(disk_write_file(d, "ballot", span_of(c.at, c.left), NULL) == OK);
    enum err e = open_on(d, &b);
    must(e == OK || e == ERR_CORRUPT);
    if (e == OK) {
        ballot_get(b, &term, &vote);
        must(term == 7 && vote == 3);
        ballot_close(b);
    }
    disk_sim_free(d);
    return 0;
}
