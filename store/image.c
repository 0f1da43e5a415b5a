/* The state as bytes: what a snapshot holds, before the snapshot compresses and seals it. A view is
 * taken on the loop in O(1) and written out piece by piece on any thread. The bytes are the same on
 * every member with the same state. They contain the cluster's keys in clear: whoever holds them
 * seals or wipes them.
 *
 * Integers are little-endian.
 *   head:   8 bytes "CCLSTATE", u32 version 1, u64 revision, u64 number of keys, u32 size of the
 * cluster cluster: its bytes (top of cluster.c) tokens: u64 number of the oldest, u32 count; then
 * each, oldest first: 16 bytes token, 35 bytes result (top of command.c) keys, ascending, each: u16
 * key size, u32 value size, u64 create revision, u64 mod revision, u64 version, u64 lease (0:
 * none), key, value tail:   8 bytes "CCLEND\r\n", 32 bytes state hash (top of store.c) */
#include "store/state.h"

#include <stdlib.h>

enum image_part { PART_HEAD, PART_TOKENS, PART_TOKEN, PART_ITEM, PART_TAIL, PART_NONE };

struct machine_view {
    struct tree_view *keys;
    struct cluster_version *cluster;
    struct tokens_view tokens;
    uint8_t hash[STATE_HASH_SIZE];
    enum image_part next;          /* what comes after the pending bytes */
    uint64_t token;                /* number of the next one */
    struct tree_cursor cursor;     /* on the next item */
    uint8_t small[64];             /* a fixed part that is being written */
    struct buf cluster_bytes;      /* while they are being written; wiped after */
    struct span pending, pending2; /* what is being written: first the one, then the other */
};

enum err store_image(struct machine *m, struct machine_view **out) {
    struct state *s = &store_of(m)->state;
    struct machine_view *v = calloc(1, sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    enum err e = tree_view_new(s->keys, s->revision, &v->keys);
    if (e != OK) {
        free(v);
        return e;
    }
    v->cluster = s->cluster;
    v->cluster->refs++;
    tokens_view_start(&s->tokens, &v->tokens);
    state_hash(s, v->hash);
    v->cluster_bytes = buf_new(CLUSTER_BYTES_MAX);
    v->next = PART_HEAD;
    v->token = v->tokens.first;
    tree_seek(tree_view_root(v->keys), span_of(NULL, 0), &v->cursor);
    *out = v;
    return OK;
}

void image_hash(const struct machine_view *v, uint8_t hash[STATE_HASH_SIZE]) {
    memcpy(hash, v->hash, STATE_HASH_SIZE);
}

void image_free(struct machine_view *v) {
    if (v == NULL) return;
    tree_view_free(v->keys);
    cluster_version_drop(v->cluster);
    tokens_view_end(&v->tokens);
    buf_wipe(&v->cluster_bytes);
    free(v);
}

static RESULT next_head(struct machine_view *v) {
    TRY(cluster_encode(v->cluster->cluster, &v->cluster_bytes));
    memcpy(v->small, IMAGE_MAGIC, 8);
    put_u32(v->small + 8, IMAGE_VERSION);
    put_u64(v->small + 12, tree_view_revision(v->keys));
    put_u64(v->small + 20, tree_view_count(v->keys));
    put_u32(v->small + 28, (uint32_t)v->cluster_bytes.size);
    v->pending = span_of(v->small, IMAGE_HEAD_SIZE);
    v->pending2 = buf_span(&v->cluster_bytes);
    v->next = PART_TOKENS;
    return OK;
}

static void next_tokens(struct machine_view *v) {
    buf_wipe(&v->cluster_bytes);
    put_u64(v->small, v->tokens.first);
    put_u32(v->small + 8, (uint32_t)(v->tokens.next - v->tokens.first));
    v->pending = span_of(v->small, IMAGE_TOKENS_SIZE);
    v->next = PART_TOKEN;
}

static void next_token(struct machine_view *v) {
    if (v->token == v->tokens.next) {
        v->next = PART_ITEM;
        return;
    }
    const struct tokens_entry *e = tokens_view_at(&v->tokens, v->token++);
    v->pending = span_of(e->token, TOKEN_SIZE);
    v->pending2 = span_of(e->result, RESULT_SIZE);
}

static void next_item(struct machine_view *v) {
    const struct item *i = tree_next(&v->cursor);
    if (i == NULL) {
        v->next = PART_TAIL;
        return;
    }
    struct kv kv;
    item_read(i, &kv);
    v->small[0] = (uint8_t)kv.key.size;
    v->small[1] = (uint8_t)(kv.key.size >> 8);
    put_u32(v->small + 2, (uint32_t)kv.value.size);
    put_u64(v->small + 6, kv.create_revision);
    put_u64(v->small + 14, kv.mod_revision);
    put_u64(v->small + 22, kv.version);
    put_u64(v->small + 30, kv.lease);
    v->pending = span_of(v->small, IMAGE_ITEM_SIZE);
    v->pending2 = span_of(i->bytes, kv.key.size + kv.value.size);
}

static void next_tail(struct machine_view *v) {
    memcpy(v->small, IMAGE_END, 8);
    memcpy(v->small + 8, v->hash, STATE_HASH_SIZE);
    v->pending = span_of(v->small, IMAGE_TAIL_SIZE);
    v->next = PART_NONE;
}

static RESULT next_part(struct machine_view *v) {
    switch (v->next) {
    case PART_HEAD: return next_head(v);
    case PART_TOKENS: next_tokens(v); break;
    case PART_TOKEN: next_token(v); break;
    case PART_ITEM: next_item(v); break;
    case PART_TAIL: next_tail(v); break;
    case PART_NONE: break;
    }
    return OK;
}

enum err image_next(struct machine_view *v, struct buf *out, bool *done) {
    size_t room = SNAPSHOT_CHUNK;
    TRY(buf_reserve(out, room));
    while (room > 0) {
        if (v->pending.size == 0) {
            v->pending = v->pending2;
            v->pending2 = span_of(NULL, 0);
        }
        if (v->pending.size == 0) {
            if (v->next == PART_NONE) break;
            TRY(next_part(v));
            continue;
        }
        size_t size = v->pending.size < room ? v->pending.size : room;
        memcpy(out->at + out->size, v->pending.at, size);
        out->size += size;
        room -= size;
        v->pending.at += size;
        v->pending.size -= size;
    }
    *done = v->next == PART_NONE && v->pending.size == 0 && v->pending2.size == 0;
    return OK;
}
