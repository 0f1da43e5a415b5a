/* etcd's HashKV: a checksum over the keys that two members compare, so that the real etcd can be
 * asked what ours should be. CRC-32C over the bytes "key", then of each version in the order of
 * (revision, sub): u64 revision, '_', u64 sub (both big-endian), 't' of a tombstone, and the bytes
 * of a protobuf mvccpb.KeyValue (of a tombstone: only the key).
 *
 * Which versions: all above the compaction up to the revision asked for; of those up to the
 * compaction the newest of each key, if nothing came after it up to the revision asked for. When
 * that leaves no key alive at the revision, what the compaction kept counts nonetheless (source:
 * etcd 3.4, HashByRev, keyIndex.keep). */
#include <stdlib.h>

#include "store/state.h"

/* --- CRC-32C --- */

#define CRC_POLYNOMIAL 0x82f63b78U

struct crc {
    uint32_t table[256]; /* of one byte */
    uint32_t value;      /* inverted */
};

static void crc_start(struct crc *c) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (unsigned bit = 0; bit < 8; bit++)
            v = v >> 1 ^ ((v & 1) != 0 ? CRC_POLYNOMIAL : 0);
        c->table[i] = v;
    }
    c->value = UINT32_MAX;
}

static void crc_add(struct crc *c, const void *at, size_t size) {
    const uint8_t *bytes = at;
    uint32_t v = c->value;
    for (size_t i = 0; i < size; i++)
        v = v >> 8 ^ c->table[(v ^ bytes[i]) & 0xff];
    c->value = v;
}

/* --- one version --- */

static void add_varint(struct crc *c, uint64_t v) {
    uint8_t raw[10];
    unsigned n = 0;
    for (; v >= 0x80; v >>= 7)
        raw[n++] = (uint8_t)(v | 0x80);
    raw[n++] = (uint8_t)v;
    crc_add(c, raw, n);
}

/* Protobuf fields; of the value zero they are left out. */
static void add_bytes(struct crc *c, unsigned field, struct span bytes) {
    if (bytes.size == 0) return;
    add_varint(c, field << 3 | 2);
    add_varint(c, bytes.size);
    crc_add(c, bytes.at, bytes.size);
}

static void add_number(struct crc *c, unsigned field, uint64_t v) {
    if (v == 0) return;
    add_varint(c, field << 3);
    add_varint(c, v);
}

static void add_version(struct crc *c, const struct item *i) {
    uint8_t raw[18];
    uint64_t revision = htobe64(item_born(i)), sub = htobe64(item_sub(i));
    bool tomb = item_tomb(i);
    struct kv kv;
    memcpy(raw, &revision, 8);
    raw[8] = '_';
    memcpy(raw + 9, &sub, 8);
    raw[17] = 't';
    crc_add(c, raw, tomb ? 18 : 17);
    item_read(i, &kv);
    add_bytes(c, 1, kv.key);
    if (tomb) return;
    add_number(c, 2, kv.create_revision);
    add_number(c, 3, kv.mod_revision);
    add_number(c, 4, kv.version);
    add_bytes(c, 5, kv.value);
    add_number(c, 6, kv.lease);
}

/* --- all of them --- */

struct versions {
    const struct item **at; /* first those that count always, the kept ones from the other end */
    size_t n, room;         /* in use, allocated */
    uint64_t revision;      /* asked for */
    uint64_t compacted;     /* as the view has it */
    bool alive;             /* some key is, at the revision */
};

static RESULT add(struct versions *v, const struct item *i) {
    if (v->n == v->room) {
        size_t room = v->room == 0 ? 1024 : 2 * v->room;
        const struct item **at = realloc(v->at, room * sizeof(struct item *));
        if (at == NULL) return ERR_NOMEM;
        v->at = at;
        v->room = room;
    }
    v->at[v->n++] = i;
    return OK;
}

/* The versions of one key. `kept` alone: only the one that the compaction kept, if it was
 * followed. */
static RESULT add_key(struct versions *v, const struct item *i, bool kept) {
    while (i != NULL && item_born(i) > v->revision)
        i = i->older;
    if (i != NULL && !item_tomb(i)) v->alive = true;
    bool followed = false;
    for (; i != NULL && item_born(i) > v->compacted; i = i->older) {
        if (!kept) TRY(add(v, i));
        followed = true;
    }
    return i != NULL && !item_tomb(i) && followed == kept ? add(v, i) : OK;
}

static RESULT add_all(struct versions *v, const struct tree_node *root, bool kept) {
    struct tree_cursor c;
    const struct item *i;
    tree_seek(root, span_of(NULL, 0), &c);
    while ((i = tree_next(&c)) != NULL)
        TRY(add_key(v, i, kept));
    return OK;
}

static int version_order(const void *a, const void *b) {
    const struct item *x = *(const struct item *const *)a, *y = *(const struct item *const *)b;
    uint64_t left = item_born(x), right = item_born(y);
    if (left != right) return left < right ? -1 : 1;
    if (item_sub(x) != item_sub(y)) return item_sub(x) < item_sub(y) ? -1 : 1;
    return span_compare(item_key(x), item_key(y)); /* imported ones have no subs */
}

RESULT store_view_hash_kv(const struct store_view *view, uint64_t revision, uint32_t *hash,
                          uint64_t *compacted) {
    const struct tree_node *root = tree_view_root(view->keys);
    struct versions v = {.revision = revision != 0 ? revision : store_view_revision(view),
                         .compacted = view->compacted};
    struct crc crc;
    *compacted = v.compacted;
    if (!view->deep) return ERR_INVALID;
    if (revision > store_view_revision(view)) return ERR_FUTURE_REVISION;
    if (revision != 0 && revision <= v.compacted) return ERR_COMPACTED;
    enum err e = add_all(&v, root, false);
    if (e == OK && !v.alive) e = add_all(&v, root, true);
    if (e == OK) {
        if (v.n > 1) qsort(v.at, v.n, sizeof(struct item *), version_order);
        crc_start(&crc);
        crc_add(&crc, "key", 3);
        for (size_t i = 0; i < v.n; i++)
            add_version(&crc, v.at[i]);
        *hash = ~crc.value;
    }
    free(v.at);
    return e;
}
