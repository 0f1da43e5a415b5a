/* See arena.h. Requests carry values and passwords, so what was used is zeroed when it goes. */
#include "api/rpc/arena.h"

#include <sodium.h>
#include <stdlib.h>

#define ALIGN 16

struct arena_piece {
    struct arena_piece *next;       /* the one before it */
    size_t size;                    /* of data */
    _Alignas(ALIGN) uint8_t data[]; /* what is given out */
};

static void *alloc(void *ctx, size_t size) { return arena_alloc(ctx, size); }

static void keep(void *ctx, void *at) {
    (void)ctx;
    (void)at;
}

static void start(struct arena *a) {
    a->at = a->first;
    a->left = sizeof a->first;
    a->total = 0;
    a->pieces = NULL;
}

void arena_init(struct arena *a) {
    a->allocator = (ProtobufCAllocator){.alloc = alloc, .free = keep, .allocator_data = a};
    start(a);
}

void arena_reset(struct arena *a) {
    size_t used = a->pieces ? sizeof a->first : sizeof a->first - a->left;
    sodium_memzero(a->first, used);
    while (a->pieces) {
        struct arena_piece *piece = a->pieces;
        a->pieces = piece->next;
        sodium_memzero(piece->data, piece->size);
        free(piece);
    }
    start(a);
}

/* A further piece with room for `size` at least. */
static RESULT grow(struct arena *a, size_t size) {
    size_t room = a->total > ARENA_INLINE * 4 ? a->total : ARENA_INLINE * 4;
    if (room < size) room = size;
    if (room > RPC_ARENA_MAX - a->total) room = RPC_ARENA_MAX - a->total;
    if (room < size) return ERR_TOO_LARGE;
    struct arena_piece *piece = malloc(sizeof *piece + room);
    if (!piece) return ERR_NOMEM;
    piece->next = a->pieces;
    piece->size = room;
    a->pieces = piece;
    a->at = piece->data;
    a->left = room;
    a->total += room;
    return OK;
}

void *arena_alloc(struct arena *a, size_t size) {
    if (size > RPC_ARENA_MAX) return NULL;
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    if (size > a->left && grow(a, size) != OK) return NULL;
    void *at = a->at;
    a->at += size;
    a->left -= size;
    return at;
}
