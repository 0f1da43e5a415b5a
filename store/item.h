/* One version of one key: its revisions, the key and the value in one block of memory. Immutable
 * once it stands in a tree, so that other threads may read it through a view without a lock; only
 * `older` is cut by the loop, and only while no view is there that looks behind the newest version.
 * The fields are kept little-endian, because the block is hashed as it lies in memory and members
 * may differ in byte order. Made by the store (mvcc.c), the image (restore.c) and the leases
 * (lease.c), owned by the tree (tree.h).
 *
 * There are many, so the head is small: the sizes, the flags and the sub-revision share 64 bits,
 * and what most versions can do without lies behind the value:
 *   bytes:  key, value, [u64 lease, ITEM_LEASE], [u64 create revision, u64 version, ITEM_AGED] */
#ifndef CONCLAVE_ITEM_H
#define CONCLAVE_ITEM_H

#include <endian.h>

#include "store/store.h"

#define ITEM_LEASE    1 /* flag: a lease */
#define ITEM_AGED     2 /* flag: not the first version since the key was made */
#define ITEM_TOMB     4 /* flag: the key was deleted; key only, create revision and version 0 */
#define ITEM_FOREIGN  8 /* flag: imported; it has a revision, but was no event here */
#define ITEM_KEY_MORE 8 /* a key of lease.c's: a lease's id before a key of KEY_MAX */

/* What shares `packed`, from bit 0: flags, key size, value size, sub. */
#define ITEM_FLAG_BITS  4
#define ITEM_KEY_BITS   13
#define ITEM_VALUE_BITS 21
#define ITEM_SUB_BITS   26
#define ITEM_SUB_MAX    ((1U << ITEM_SUB_BITS) - 1)

struct item {
    struct item *older;    /* the version before; NULL: none, or compacted */
    uint64_t mod_revision; /* revision of this put or deletion; with it the item was born */
    uint64_t packed;       /* flags, sizes, sub */
    uint8_t bytes[];       /* key, value, what the flags say */
};

static inline uint64_t item_field(const struct item *i, unsigned from, unsigned bits) {
    return le64toh(i->packed) >> from & ((1ULL << bits) - 1);
}
static inline uint64_t item_born(const struct item *i) { return le64toh(i->mod_revision); }
static inline unsigned item_flags(const struct item *i) {
    return (unsigned)item_field(i, 0, ITEM_FLAG_BITS);
}
static inline bool item_tomb(const struct item *i) { return (item_flags(i) & ITEM_TOMB) != 0; }
static inline bool item_foreign(const struct item *i) {
    return (item_flags(i) & ITEM_FOREIGN) != 0;
}
/* Which write of its revision made it, from 0. */
static inline uint32_t item_sub(const struct item *i) {
    return (uint32_t)(le64toh(i->packed) >> (64 - ITEM_SUB_BITS));
}
static inline struct span item_key(const struct item *i) {
    return span_of(i->bytes, item_field(i, ITEM_FLAG_BITS, ITEM_KEY_BITS));
}
static inline struct span item_value(const struct item *i) {
    struct span key = item_key(i);
    return span_of(key.at + key.size,
                   item_field(i, ITEM_FLAG_BITS + ITEM_KEY_BITS, ITEM_VALUE_BITS));
}

/* Room for an item of these sizes, with its fields but not yet its bytes: key first, value behind
 * it (item_bytes). key <= ITEM_KEY_MORE + KEY_MAX, value <= VALUE_MAX. Freed with free(). NULL: out
 * of memory. */
struct item *item_new(const struct kv *fields, size_t key_size, size_t value_size);
static inline uint8_t *item_bytes(struct item *i) { return i->bytes; }
/* item_new with the bytes of kv->key and kv->value. */
struct item *item_copy(const struct kv *kv);
/* A deletion; key.at NULL: room for a key of that size. */
struct item *item_tombstone(uint64_t revision, struct span key);
/* Before anyone else sees the item: its number, 0 without it, <= ITEM_SUB_MAX; that it is
 * foreign. */
void item_number(struct item *i, uint32_t sub);
void item_estrange(struct item *i);
void item_read(const struct item *i, struct kv *out); /* spans point into the item */
size_t item_size(const struct item *i);               /* bytes of memory, without the allocator's */

/* The hash of all that the item says, as two lanes that are added up over the items of a state and
 * subtracted again (mod 2^64): the sum depends on the content, not on the order. */
struct lanes {
    uint64_t at[2];
};
struct lanes lanes_of(struct span bytes);
struct lanes item_lanes(const struct item *i);
static inline void lanes_add(struct lanes *sum, struct lanes l) {
    sum->at[0] += l.at[0];
    sum->at[1] += l.at[1];
}
static inline void lanes_subtract(struct lanes *sum, struct lanes l) {
    sum->at[0] -= l.at[0];
    sum->at[1] -= l.at[1];
}

#endif
