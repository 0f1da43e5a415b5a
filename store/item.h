/* One version of one key: its revisions, the key and the value in one block of memory. Immutable
 * once it stands in a tree, so that other threads may read it through a view without a lock. The
 * fields are kept little-endian, because the block is hashed as it lies in memory and members may
 * differ in byte order. Made by the store (apply) and the image (restore), owned by the tree
 * (tree.h). */
#ifndef CONCLAVE_ITEM_H
#define CONCLAVE_ITEM_H

#include <endian.h>

#include "store/store.h"

#define ITEM_LEASE 1 /* flag: 8 bytes of lease id follow the value */

struct item {
    uint64_t mod_revision;    /* revision of this put; with it the item was born */
    uint64_t create_revision; /* revision that made the key */
    uint64_t version;         /* puts since it was made */
    uint32_t value_size;      /* bytes */
    uint16_t key_size;        /* bytes */
    uint16_t flags;           /* ITEM_LEASE or 0 */
    uint8_t bytes[];          /* key, value, [lease] */
};

static inline uint64_t item_born(const struct item *i) { return le64toh(i->mod_revision); }
static inline struct span item_key(const struct item *i) {
    return span_of(i->bytes, le16toh(i->key_size));
}
static inline struct span item_value(const struct item *i) {
    return span_of(i->bytes + le16toh(i->key_size), le32toh(i->value_size));
}

/* Room for an item of these sizes, with its fields but not yet its bytes: key first, value behind
 * it (item_bytes). key <= KEY_MAX, value <= VALUE_MAX. Freed with free(). NULL: out of memory. */
struct item *item_new(const struct kv *fields, size_t key_size, size_t value_size);
static inline uint8_t *item_bytes(struct item *i) { return i->bytes; }
/* item_new with the bytes of kv->key and kv->value. */
struct item *item_copy(const struct kv *kv);
void item_read(const struct item *i, struct kv *out); /* spans point into the item */

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
