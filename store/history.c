/* The history as a deque of blocks of pointers. Position p stands in block p / BLOCK; the blocks'
 * addresses stand in a ring, block number b at b modulo its room, so that nothing moves when the
 * front goes away, and growing copies 8 bytes for every BLOCK events. Cost: 8 bytes an event.
 *
 * Invariants: first <= end; blocks first / BLOCK .. blocks_end - 1 are there, and they hold all
 * positions from first to end; at most one block more than those, had by history_reserve. Revisions
 * ascend with the positions, which is what history_find searches by. */
#include "store/history.h"

#include <assert.h>
#include <stdlib.h>

#define BLOCK    2048 /* positions in one block */
#define ROOM_MIN 16   /* blocks in the ring at first; a power of two, as later */

struct history {
    struct item ***ring; /* block number b at b % room */
    size_t room;         /* of the ring, in blocks */
    uint64_t blocks_end; /* number after the last block that is there */
    uint64_t first, end; /* positions */
};

RESULT history_new(struct history **out) {
    struct history *h = calloc(1, sizeof *h);
    if (h == NULL) return ERR_NOMEM;
    *out = h;
    return OK;
}

static struct item ***block_at(const struct history *h, uint64_t number) {
    return &h->ring[number & (h->room - 1)];
}

static void free_blocks(struct history *h, uint64_t from, uint64_t until) {
    for (uint64_t b = from; b < until; b++)
        free(*block_at(h, b));
}

void history_free(struct history *h) {
    if (h == NULL) return;
    free_blocks(h, h->first / BLOCK, h->blocks_end);
    free(h->ring);
    free(h);
}

static RESULT grow_ring(struct history *h) {
    struct history next = *h;
    next.room = h->room == 0 ? ROOM_MIN : 2 * h->room;
    next.ring = malloc(next.room * sizeof(struct item **));
    if (next.ring == NULL) return ERR_NOMEM;
    for (uint64_t b = h->first / BLOCK; b < h->blocks_end; b++)
        *block_at(&next, b) = *block_at(h, b);
    free(h->ring);
    *h = next;
    return OK;
}

RESULT history_reserve(struct history *h) {
    if (h->end / BLOCK < h->blocks_end) return OK;
    if (h->blocks_end - h->first / BLOCK == h->room) TRY(grow_ring(h));
    struct item **block = malloc(BLOCK * sizeof(struct item *));
    if (block == NULL) return ERR_NOMEM;
    *block_at(h, h->blocks_end) = block;
    h->blocks_end++;
    return OK;
}

uint64_t history_add(struct history *h, struct item *i) {
    assert(h->end / BLOCK < h->blocks_end);
    (*block_at(h, h->end / BLOCK))[h->end % BLOCK] = i;
    return h->end++;
}

uint64_t history_first(const struct history *h) { return h->first; }
uint64_t history_end(const struct history *h) { return h->end; }

struct item *history_at(const struct history *h, uint64_t position) {
    assert(position >= h->first && position < h->end);
    return (*block_at(h, position / BLOCK))[position % BLOCK];
}

uint64_t history_find(const struct history *h, uint64_t revision) {
    uint64_t low = h->first, high = h->end;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (item_born(history_at(h, middle)) < revision)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void history_drop(struct history *h, uint64_t until) {
    assert(until <= h->end);
    if (until <= h->first) return;
    free_blocks(h, h->first / BLOCK, until / BLOCK);
    h->first = until;
}
