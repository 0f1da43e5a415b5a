/* Making, reading and hashing of items (item.h). The hash is XXH3 with 128 bits of output (xxHash
 * 0.8, whose values no later version changes): it finds members that differ by a fault; it is no
 * defence against someone who chooses keys and values so that sums collide, which would make a
 * comparison of states blind, not wrong. Every member hashes every write, so it has to be fast. */
#include "store/item.h"

#include <assert.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static size_t bytes_size(size_t key, size_t value, unsigned flags) {
    return key + value + ((flags & ITEM_LEASE) != 0 ? 8 : 0) + ((flags & ITEM_AGED) != 0 ? 16 : 0);
}

static struct item *make(uint64_t revision, unsigned flags, size_t key, size_t value) {
    assert(key <= ITEM_KEY_MORE + KEY_MAX && value <= VALUE_MAX);
    struct item *i = malloc(sizeof *i + bytes_size(key, value, flags));
    if (i == NULL) return NULL;
    i->older = NULL;
    i->mod_revision = htole64(revision);
    i->packed = htole64(flags | (uint64_t)key << ITEM_FLAG_BITS |
                        (uint64_t)value << (ITEM_FLAG_BITS + ITEM_KEY_BITS));
    return i;
}

void item_number(struct item *i, uint32_t sub) {
    assert(sub <= ITEM_SUB_MAX);
    i->packed |= htole64((uint64_t)sub << (64 - ITEM_SUB_BITS));
}

void item_estrange(struct item *i) { i->packed |= htole64(ITEM_FOREIGN); }

struct item *item_new(const struct kv *fields, size_t key_size, size_t value_size) {
    bool aged = fields->version > 1 || fields->create_revision != fields->mod_revision;
    unsigned flags =
        (fields->lease != 0 ? ITEM_LEASE : 0U) | (aged && fields->version != 0 ? ITEM_AGED : 0U);
    struct item *i = make(fields->mod_revision, flags, key_size, value_size);
    if (i == NULL) return NULL;
    uint8_t *at = i->bytes + key_size + value_size;
    if ((flags & ITEM_LEASE) != 0) {
        put_u64(at, fields->lease);
        at += 8;
    }
    if ((flags & ITEM_AGED) != 0) {
        put_u64(at, fields->create_revision);
        put_u64(at + 8, fields->version);
    }
    return i;
}

struct item *item_copy(const struct kv *kv) {
    struct item *i = item_new(kv, kv->key.size, kv->value.size);
    if (i == NULL) return NULL;
    if (kv->key.size != 0) memcpy(i->bytes, kv->key.at, kv->key.size);
    if (kv->value.size != 0) memcpy(i->bytes + kv->key.size, kv->value.at, kv->value.size);
    return i;
}

struct item *item_tombstone(uint64_t revision, struct span key) {
    struct item *i = make(revision, ITEM_TOMB, key.size, 0);
    if (i != NULL && key.at != NULL) memcpy(i->bytes, key.at, key.size);
    return i;
}

/* Inline: this is where most reading begins. */
static inline uint64_t load_u64(const uint8_t *at) {
    uint64_t raw;
    memcpy(&raw, at, sizeof raw);
    return le64toh(raw);
}

void item_read(const struct item *i, struct kv *out) {
    unsigned flags = item_flags(i);
    out->key = item_key(i);
    out->value = item_value(i);
    out->mod_revision = item_born(i);
    const uint8_t *more = out->value.at + out->value.size;
    out->lease = (flags & ITEM_LEASE) != 0 ? load_u64(more) : 0;
    if ((flags & ITEM_LEASE) != 0) more += 8;
    if ((flags & ITEM_AGED) != 0) {
        out->create_revision = load_u64(more);
        out->version = load_u64(more + 8);
    } else {
        bool tomb = (flags & ITEM_TOMB) != 0;
        out->create_revision = tomb ? 0 : out->mod_revision;
        out->version = tomb ? 0 : 1;
    }
}

size_t item_size(const struct item *i) {
    return sizeof *i + bytes_size(item_key(i).size, item_value(i).size, item_flags(i));
}

struct lanes lanes_of(struct span bytes) {
    XXH128_hash_t hash = XXH3_128bits(bytes.at, bytes.size);
    return (struct lanes){{hash.low64, hash.high64}};
}

struct lanes item_lanes(const struct item *i) {
    size_t head = offsetof(struct item, mod_revision);
    return lanes_of(span_of((const uint8_t *)i + head, item_size(i) - head));
}
