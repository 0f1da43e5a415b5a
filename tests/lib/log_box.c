/* The bytes of an entry: its size, then a run of a generator seeded with index and term. */
#include "tests/lib/log_box.h"

#include <stdlib.h>

#include "tests/lib/disk_sim.h"

static void must(enum err e) {
    if (e != OK) abort();
}

struct keyring *box_keys(struct disk **disk) {
    struct keyring *keys = NULL;
    must(crypto_start(NULL));
    *disk = disk_sim_new(1);
    must(keyring_create(*disk, (struct kek){.kind = KEK_PLAIN}, &keys, NULL));
    return keys;
}

static enum err collect(void *ctx, struct entry *e) {
    struct box *b = ctx;
    if (b->count == 0) b->first = e->index;
    if (e->index != b->first + b->count || !box_entry_right(e)) b->wrong = true;
    if (b->count == b->room) {
        size_t room = b->room == 0 ? 256 : b->room * 2;
        uint64_t *terms = realloc(b->terms, room * sizeof *terms);
        if (terms == NULL) return ERR_NOMEM;
        b->terms = terms;
        b->room = room;
    }
    b->terms[b->count++] = e->term;
    return OK;
}

RESULT box_open(struct box *b, struct why *why) {
    struct wal_options o = {.disk = b->disk,
                            .keys = b->keys,
                            .identity = {"cluster0123456789abcdefgh", "node0123456789abcdefghijk"},
                            .alg = SEAL_XCHACHA20,
                            .segment_size = b->segment_size == 0 ? BOX_SEGMENT : b->segment_size};
    b->count = 0;
    b->first = 0;
    b->torn = b->wrong = false;
    TRY(ballot_open(b->disk, b->keys, &o.identity, o.alg, &b->ballot, why));
    o.ballot = b->ballot;
    return wal_open(&o, collect, b, &b->torn, &b->wal, why);
}

void box_close(struct box *b) {
    wal_close(b->wal);
    ballot_close(b->ballot);
    b->wal = NULL;
    b->ballot = NULL;
}

void box_free(struct box *b) {
    box_close(b);
    free(b->terms);
    b->terms = NULL;
    b->count = b->room = 0;
}

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static uint8_t byte_of(const struct entry *e, uint64_t seed, uint64_t at) {
    return (uint8_t)(mix(seed + at / 8) >> (8 * (at % 8)) ^ e->size);
}

static uint64_t seed_of(uint64_t index, uint64_t term) { return mix(index * 1000003 + term); }

RESULT box_entry(uint64_t index, uint64_t term, size_t size_max, struct entry **out) {
    uint64_t seed = seed_of(index, term);
    size_t size = size_max == 0 ? 0 : (size_t)(mix(seed) % (size_max + 1));
    TRY(entry_new(index, term, ENTRY_COMMAND, size, out));
    for (size_t i = 0; i < size; i++)
        (*out)->data[i] = byte_of(*out, seed, i);
    return OK;
}

bool box_entry_right(const struct entry *e) {
    uint64_t seed = seed_of(e->index, e->term);
    for (size_t i = 0; i < e->size; i++)
        if (e->data[i] != byte_of(e, seed, i)) return false;
    return e->type == ENTRY_COMMAND;
}

RESULT box_append(struct box *b, uint64_t term, size_t n, size_t size_max, struct why *why) {
    struct entry *entries[64] = {0};
    enum err e = OK;
    if (n > ARRAY_SIZE(entries)) return ERR_INVALID;
    for (size_t i = 0; i < n && e == OK; i++)
        e = box_entry(wal_last(b->wal) + 1 + i, term, size_max, &entries[i]);
    if (e == OK) e = wal_append(b->wal, entries, n, why);
    for (size_t i = 0; i < n; i++)
        entry_drop(entries[i]);
    return e;
}
