/* The state as bytes: what a snapshot holds, before the snapshot compresses and seals it. A view
 * is taken on the loop in O(1) and written out piece by piece on any thread. The bytes are the
 * same on every member with the same state, however far its compaction has got. They contain the
 * cluster's keys in clear: whoever holds them seals or wipes them.
 *
 * Of each key they hold all versions from the revision of the compaction on, and one from before
 * it if that is what the compaction left readable: the newest one up to it, no tombstone.
 *
 * Integers are little-endian.
 *   head:    8 bytes "CCLSTATE", u32 version 3, u64 revision, u64 compacted, u64 number of live
 *            keys, two u64 lanes summed over all versions ever, u64 number of leases, u32 size of
 *            the cluster, u32 size of the users, u32 number of alarms, u64 number of rows, u64
 *            version of the rows
 *   cluster: its bytes (top of cluster.c)
 *   users:   their bytes (top of auth.c)
 *   alarms:  each: u8 kind, u64 raft id
 *   tokens:  u64 number of the oldest, u32 count; then each, oldest first: 16 bytes token, 35 bytes
 *            result (top of command.c)
 *   leases:  ascending, each: u64 id, u64 TTL in ms
 *   rows:    ascending by key, each: u16 key size, u32 value size, u64 created version, u64
 *            version, u64 changes, key, value (rows.h)
 *   items:   keys ascending, versions of a key newest first, each: u8 kind (1: the next key's
 *            newest; 2: an older one of the same key; + 4: a tombstone; + 8: imported, no event),
 *            u16 key size, u32 value size, u64 create revision, u64 mod revision, u64 version, u64
 *            lease (0: none), u32 sub, key (of an older one: left out), value; at the end as many
 *            zeros as an item has before its key
 *   tail:    8 bytes "CCLEND\r\n", two u64 lanes summed over all items but the live newest ones, 32
 *            bytes state hash (top of store.c) */
#include <stdlib.h>

#include "store/state.h"

enum image_part {
    PART_HEAD,
    PART_AUTH,
    PART_ALARMS,
    PART_TOKENS,
    PART_TOKEN,
    PART_LEASE,
    PART_ROW,
    PART_ITEM,
    PART_TAIL,
    PART_NONE
};

struct machine_view {
    struct tree_view *keys;
    struct tree_view *leases;
    struct tree_view *rows;
    uint64_t rows_n; /* without the marks that stand in their tree */
    struct cluster_version *cluster;
    struct auth_version *auth;
    struct alarms alarms;
    struct tokens_view tokens;
    uint64_t compacted;
    struct lanes events; /* summed over all versions ever */
    struct lanes others; /* over the items written that the state hash does not cover */
    uint8_t hash[STATE_HASH_SIZE];
    enum image_part next;                   /* what comes after the pending bytes */
    uint64_t token;                         /* number of the next one */
    struct tree_cursor lease, row, key;     /* on the next one */
    const struct item *older;               /* next version of the key that is being written */
    uint8_t small[ALARMS_MAX * ALARM_SIZE]; /* a fixed part that is being written */
    struct buf cluster_bytes;               /* while they are being written; wiped after */
    struct buf auth_bytes;                  /* the same */
    struct span pending, pending2; /* what is being written: first the one, then the other */
};

static void free_trees(struct machine_view *v) {
    tree_view_free(v->keys);
    tree_view_free(v->leases);
    tree_view_free(v->rows);
}

static RESULT view_trees(struct state *s, struct machine_view *v) {
    TRY(tree_view_new(s->keys, s->revision, &v->keys));
    tree_view_deepen(v->keys);
    enum err e = leases_view(&s->leases, &v->leases);
    if (e == OK) e = tree_view_new(s->rows.tree, s->rows.version, &v->rows);
    if (e != OK) free_trees(v);
    return e;
}

enum err store_image(struct machine *m, struct machine_view **out) {
    struct state *s = &store_of(m)->state;
    struct machine_view *v = calloc(1, sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    enum err e = view_trees(s, v);
    if (e != OK) {
        free(v);
        return e;
    }
    v->cluster = s->cluster;
    v->cluster->refs++;
    v->auth = s->auth;
    v->auth->refs++;
    v->alarms = s->alarms;
    v->compacted = s->compacted;
    v->events = s->events;
    tokens_view_start(&s->tokens, &v->tokens);
    state_hash(s, v->hash);
    v->cluster_bytes = buf_new(CLUSTER_BYTES_MAX);
    v->auth_bytes = buf_new(AUTH_BYTES_MAX);
    v->next = PART_HEAD;
    v->token = v->tokens.first;
    tree_seek(tree_view_root(v->leases), span_of(NULL, 0), &v->lease);
    v->rows_n = s->rows.n[0];
    tree_seek(tree_view_root(v->rows), span_of(NULL, 0), &v->row);
    tree_seek(tree_view_root(v->keys), span_of(NULL, 0), &v->key);
    *out = v;
    return OK;
}

void image_hash(const struct machine_view *v, uint8_t hash[STATE_HASH_SIZE]) {
    memcpy(hash, v->hash, STATE_HASH_SIZE);
}

void image_free(struct machine_view *v) {
    if (v == NULL) return;
    free_trees(v);
    cluster_version_drop(v->cluster);
    auth_version_drop(v->auth);
    tokens_view_end(&v->tokens);
    buf_wipe(&v->cluster_bytes);
    buf_wipe(&v->auth_bytes);
    free(v);
}

/* --- the parts --- */

static RESULT next_head(struct machine_view *v) {
    TRY(cluster_encode(v->cluster->cluster, &v->cluster_bytes));
    TRY(auth_encode(v->auth->auth, &v->auth_bytes));
    memcpy(v->small, IMAGE_MAGIC, 8);
    put_u32(v->small + 8, IMAGE_VERSION);
    put_u64(v->small + 12, tree_view_revision(v->keys));
    put_u64(v->small + 20, v->compacted);
    put_u64(v->small + 28, tree_view_live(v->keys));
    put_u64(v->small + 36, v->events.at[0]);
    put_u64(v->small + 44, v->events.at[1]);
    put_u64(v->small + 52, tree_view_count(v->leases));
    put_u32(v->small + 60, (uint32_t)v->cluster_bytes.size);
    put_u32(v->small + 64, (uint32_t)v->auth_bytes.size);
    put_u32(v->small + 68, v->alarms.n);
    put_u64(v->small + 72, v->rows_n);
    put_u64(v->small + 80, tree_view_revision(v->rows));
    v->pending = span_of(v->small, IMAGE_HEAD_SIZE);
    v->pending2 = buf_span(&v->cluster_bytes);
    v->next = PART_AUTH;
    return OK;
}

static void next_auth(struct machine_view *v) {
    buf_wipe(&v->cluster_bytes);
    v->pending = buf_span(&v->auth_bytes);
    v->next = PART_ALARMS;
}

static void next_alarms(struct machine_view *v) {
    buf_wipe(&v->auth_bytes);
    alarms_encode(&v->alarms, v->small);
    v->pending = span_of(v->small, (size_t)v->alarms.n * ALARM_SIZE);
    v->next = PART_TOKENS;
}

static void next_tokens(struct machine_view *v) {
    put_u64(v->small, v->tokens.first);
    put_u32(v->small + 8, (uint32_t)(v->tokens.next - v->tokens.first));
    v->pending = span_of(v->small, IMAGE_TOKENS_SIZE);
    v->next = PART_TOKEN;
}

static void next_token(struct machine_view *v) {
    if (v->token == v->tokens.next) {
        v->next = PART_LEASE;
        return;
    }
    const struct tokens_entry *e = tokens_view_at(&v->tokens, v->token++);
    v->pending = span_of(e->token, TOKEN_SIZE);
    v->pending2 = span_of(e->result, RESULT_SIZE);
}

static void next_lease(struct machine_view *v) {
    struct lease lease;
    if (!lease_next(&v->lease, &lease)) {
        v->next = PART_ROW;
        return;
    }
    put_u64(v->small, lease.id);
    put_u64(v->small + 8, lease.ttl_ms);
    v->pending = span_of(v->small, IMAGE_LEASE_SIZE);
}

static void next_row(struct machine_view *v) {
    struct kv kv;
    const struct item *i = row_next(&v->row);
    if (i == NULL) {
        v->next = PART_ITEM;
        return;
    }
    item_read(i, &kv);
    v->small[0] = (uint8_t)kv.key.size;
    v->small[1] = (uint8_t)(kv.key.size >> 8);
    put_u32(v->small + 2, (uint32_t)kv.value.size);
    put_u64(v->small + 6, kv.create_revision);
    put_u64(v->small + 14, kv.mod_revision);
    put_u64(v->small + 22, kv.version);
    v->pending = span_of(v->small, IMAGE_ROW_SIZE);
    v->pending2 = span_of(kv.key.at, kv.key.size + kv.value.size);
}

/* The version behind this one that belongs to the image; NULL: none. */
static const struct item *older_of(const struct machine_view *v, const struct item *i) {
    const struct item *older = i->older;
    if (older == NULL || item_born(i) > v->compacted) return older;
    return item_born(older) == v->compacted ? older : NULL;
}

/* What the compaction has taken, whether it is gone already or not. */
static bool forgotten(const struct machine_view *v, const struct item *i) {
    return item_born(i) < v->compacted && item_tomb(i);
}

static const struct item *next_version(struct machine_view *v, uint8_t *kind) {
    const struct item *i = v->older;
    *kind = IMAGE_ITEM_OLDER;
    while (i == NULL || forgotten(v, i)) {
        *kind = IMAGE_ITEM_KEY;
        i = tree_next(&v->key);
        if (i == NULL) return NULL;
    }
    v->older = older_of(v, i);
    return i;
}

static void next_item(struct machine_view *v) {
    struct kv kv;
    uint8_t kind;
    const struct item *i = next_version(v, &kind);
    v->pending = span_of(v->small, IMAGE_ITEM_SIZE);
    if (i == NULL) {
        memset(v->small, 0, IMAGE_ITEM_SIZE);
        v->next = PART_TAIL;
        return;
    }
    item_read(i, &kv);
    if (kind == IMAGE_ITEM_OLDER || item_tomb(i)) lanes_add(&v->others, item_lanes(i));
    v->small[0] = (uint8_t)(kind | (item_tomb(i) ? IMAGE_ITEM_TOMB : 0) |
                            (item_foreign(i) ? IMAGE_ITEM_FOREIGN : 0));
    v->small[1] = (uint8_t)kv.key.size;
    v->small[2] = (uint8_t)(kv.key.size >> 8);
    put_u32(v->small + 3, (uint32_t)kv.value.size);
    put_u64(v->small + 7, kv.create_revision);
    put_u64(v->small + 15, kv.mod_revision);
    put_u64(v->small + 23, kv.version);
    put_u64(v->small + 31, kv.lease);
    put_u32(v->small + 39, item_sub(i));
    bool key = kind == IMAGE_ITEM_KEY;
    v->pending2 = key ? span_of(kv.key.at, kv.key.size + kv.value.size) : kv.value;
}

static void next_tail(struct machine_view *v) {
    memcpy(v->small, IMAGE_END, 8);
    put_u64(v->small + 8, v->others.at[0]);
    put_u64(v->small + 16, v->others.at[1]);
    memcpy(v->small + 24, v->hash, STATE_HASH_SIZE);
    v->pending = span_of(v->small, IMAGE_TAIL_SIZE);
    v->next = PART_NONE;
}

static RESULT next_part(struct machine_view *v) {
    switch (v->next) {
    case PART_HEAD: return next_head(v);
    case PART_AUTH: next_auth(v); break;
    case PART_ALARMS: next_alarms(v); break;
    case PART_TOKENS: next_tokens(v); break;
    case PART_TOKEN: next_token(v); break;
    case PART_LEASE: next_lease(v); break;
    case PART_ROW: next_row(v); break;
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
