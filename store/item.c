/* Making, reading and hashing of items (item.h). The hash is SipHash-2-4 with 128 bits of output
 * under a constant key: it finds members that differ by a fault; it is no defence against someone
 * who chooses keys and values so that sums collide, which would make a comparison of states blind,
 * not wrong. */
#include "store/item.h"

#include <assert.h>
#include <stdlib.h>

#include <sodium.h>

static size_t block_size(size_t key, size_t value, bool lease) {
    return sizeof(struct item) + key + value + (lease ? sizeof(uint64_t) : 0);
}

struct item *item_new(const struct kv *fields, size_t key_size, size_t value_size) {
    assert(key_size <= KEY_MAX && value_size <= VALUE_MAX);
    struct item *i = malloc(block_size(key_size, value_size, fields->lease != 0));
    if (i == NULL) return NULL;
    i->mod_revision = htole64(fields->mod_revision);
    i->create_revision = htole64(fields->create_revision);
    i->version = htole64(fields->version);
    i->value_size = htole32((uint32_t)value_size);
    i->key_size = htole16((uint16_t)key_size);
    i->flags = htole16(fields->lease != 0 ? ITEM_LEASE : 0);
    if (fields->lease != 0) put_u64(i->bytes + key_size + value_size, fields->lease);
    return i;
}

struct item *item_copy(const struct kv *kv) {
    struct item *i = item_new(kv, kv->key.size, kv->value.size);
    if (i == NULL) return NULL;
    if (kv->key.size != 0) memcpy(i->bytes, kv->key.at, kv->key.size);
    if (kv->value.size != 0) memcpy(i->bytes + kv->key.size, kv->value.at, kv->value.size);
    return i;
}

static bool has_lease(const struct item *i) { return (le16toh(i->flags) & ITEM_LEASE) != 0; }

void item_read(const struct item *i, struct kv *out) {
    out->key = item_key(i);
    out->value = item_value(i);
    out->create_revision = le64toh(i->create_revision);
    out->mod_revision = le64toh(i->mod_revision);
    out->version = le64toh(i->version);
    out->lease = has_lease(i) ? get_u64(out->value.at + out->value.size) : 0;
}

struct lanes lanes_of(struct span bytes) {
    static const uint8_t key[crypto_shorthash_siphashx24_KEYBYTES] = "conclave  state";
    uint8_t raw[crypto_shorthash_siphashx24_BYTES];
    (void)crypto_shorthash_siphashx24(raw, bytes.at, bytes.size, key);
    return (struct lanes){{get_u64(raw), get_u64(raw + 8)}};
}

struct lanes item_lanes(const struct item *i) {
    size_t size = block_size(le16toh(i->key_size), le32toh(i->value_size), has_lease(i));
    return lanes_of(span_of(i, size));
}
