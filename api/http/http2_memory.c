/* nghttp2's memory. It asks for some ten small pieces a request and frees them soon after, which
 * with many requests at once is what a general allocator is slow at. Pieces have sizes of 64 bytes
 * times a class; a freed one goes to the list of its class, and the lists together hold at most
 * MEMORY_POOL_MAX. In front of each piece stand PREFIX bytes with its class; larger pieces, of
 * class 0, are the allocator's own. One loop, one pool: no locks. */
#include <stdlib.h>

#include "api/http/http2_internal.h"

#define UNIT    64
#define CLASSES 17 /* up to 1 KiB */
#define PREFIX  16 /* keeps the alignment of malloc */

struct piece {
    size_t class;       /* times UNIT is its room, without PREFIX; 0: it is larger */
    struct piece *next; /* while it is in a list */
};

struct memory_pool {
    struct piece *lists[CLASSES]; /* freed pieces by class */
    size_t kept;                  /* bytes in all lists */
};

_Static_assert(sizeof(struct piece) == PREFIX, "a piece begins with its prefix");

static size_t class_of(size_t size) {
    size_t class = (size + UNIT - 1) / UNIT;
    return KEEPS_MEMORY && class < CLASSES ? class : 0;
}

static size_t room_of(const struct piece *p) { return p->class * UNIT; }

static void *allocate(size_t size, void *ctx) {
    struct memory_pool *pool = ctx;
    size_t class = class_of(size);
    struct piece *p = class ? pool->lists[class] : NULL;
    if (p) {
        pool->lists[class] = p->next;
        pool->kept -= room_of(p);
    } else {
        if (size > SIZE_MAX - PREFIX) return NULL;
        p = malloc(PREFIX + (class ? class * UNIT : size));
        if (!p) return NULL;
        p->class = class;
    }
    return (uint8_t *)p + PREFIX;
}

static struct piece *piece_of(void *at) { return (struct piece *)(void *)((uint8_t *)at - PREFIX); }

static void release(void *at, void *ctx) {
    struct memory_pool *pool = ctx;
    if (!at) return;
    struct piece *p = piece_of(at);
    if (p->class == 0 || pool->kept + room_of(p) > MEMORY_POOL_MAX) {
        free(p);
        return;
    }
    p->next = pool->lists[p->class];
    pool->lists[p->class] = p;
    pool->kept += room_of(p);
}

static void *allocate_zeroed(size_t n, size_t size, void *ctx) {
    if (size && n > SIZE_MAX / size) return NULL;
    void *at = allocate(n * size, ctx);
    if (at) memset(at, 0, n * size);
    return at;
}

static void *bytes_of(struct piece *p) { return (uint8_t *)p + PREFIX; }

static void *reallocate(void *at, size_t size, void *ctx) {
    if (!at) return allocate(size, ctx);
    struct piece *p = piece_of(at);
    if (p->class && size <= room_of(p)) return at;
    if (!p->class) { /* never shrinks into a class: its size is not known */
        if (size > SIZE_MAX - PREFIX) return NULL;
        struct piece *moved = realloc(p, PREFIX + size);
        return moved ? bytes_of(moved) : NULL;
    }
    void *larger = allocate(size, ctx);
    if (!larger) return NULL;
    memcpy(larger, at, room_of(p));
    release(at, ctx);
    return larger;
}

struct memory_pool *memory_pool_new(nghttp2_mem *out) {
    struct memory_pool *pool = calloc(1, sizeof *pool);
    *out = (nghttp2_mem){.mem_user_data = pool,
                         .malloc = allocate,
                         .free = release,
                         .calloc = allocate_zeroed,
                         .realloc = reallocate};
    return pool;
}

void memory_pool_free(struct memory_pool *pool) {
    if (!pool) return;
    for (size_t class = 0; class < CLASSES; class ++) {
        while (pool->lists[class]) {
            struct piece *p = pool->lists[class];
            pool->lists[class] = p->next;
            free(p);
        }
    }
    free(pool);
}
