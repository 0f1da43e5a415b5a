/* Memory of one call: protobuf-c's allocator gives out pieces of it and frees none; all goes at
 * once when the call is over. The first piece is part of the call, so that a usual request costs no
 * malloc; further ones double, and RPC_ARENA_MAX bounds them all: a few bytes on the wire can ask
 * for many times as much memory. */
#ifndef CONCLAVE_ARENA_H
#define CONCLAVE_ARENA_H

#include <protobuf-c/protobuf-c.h>

#include "crypto/base.h"
#include "crypto/limits.h"

#define ARENA_INLINE 1024 /* the first piece */

struct arena_piece;

struct arena {
    ProtobufCAllocator allocator; /* for protobuf-c */
    uint8_t *at;                  /* next free byte, aligned */
    size_t left;                  /* of the present piece */
    size_t total;                 /* of all pieces but the first */
    struct arena_piece *pieces;   /* all but the first */
    _Alignas(16) uint8_t first[ARENA_INLINE];
};

void arena_init(struct arena *a);
void arena_reset(struct arena *a);               /* everything given out is gone */
void *arena_alloc(struct arena *a, size_t size); /* 16-byte aligned; NULL: no memory, or too much */

#endif
