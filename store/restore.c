/* A state from the bytes of an image (format: top of image.c), in whatever pieces they come. It is
 * built beside the present state, on any thread; the loop swaps it in when all of it was there, in
 * order and within its bounds, and the hash of what was built is the one in the image and the one
 * that the caller expects. Until then nothing of the present state is touched. Memory: the new
 * state and one part of it. */
#include "store/state.h"

#include <assert.h>
#include <stdlib.h>

/* What is being read: each part is awaited whole in `into` before it is looked at. */
enum restore_part {
    READ_HEAD,
    READ_CLUSTER,
    READ_TOKENS,
    READ_TOKEN,
    READ_ITEM,
    READ_ITEM_BYTES,
    READ_TAIL,
    READ_NOTHING
};

struct machine_restore {
    struct store *store;     /* taken over by it at the end */
    struct state state;      /* being built */
    struct retired *retired; /* for the old tree */
    enum err failed;         /* the first error; nothing is read after it */
    enum restore_part part;
    uint8_t *into;                 /* where its bytes go */
    size_t have, need;             /* bytes of the part */
    uint8_t small[64];             /* a part of fixed size */
    struct buf cluster;            /* the cluster's bytes; wiped after */
    uint64_t tokens, keys;         /* still to come */
    struct item *item;             /* waits for its key and value */
    const struct item *last;       /* in the tree */
    uint8_t hash[STATE_HASH_SIZE]; /* as the tail says */
};

static void await(struct machine_restore *r, enum restore_part part, uint8_t *into, size_t need) {
    r->part = part;
    r->into = into;
    r->have = 0;
    r->need = need;
}

static void await_small(struct machine_restore *r, enum restore_part part, size_t need) {
    assert(need <= sizeof r->small);
    await(r, part, r->small, need);
}

enum err store_restore(struct machine *m, struct machine_restore **out) {
    struct machine_restore *r = calloc(1, sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    enum err e = state_start(&r->state);
    if (e != OK) {
        free(r);
        return e;
    }
    r->store = store_of(m);
    r->cluster = buf_new(CLUSTER_BYTES_MAX);
    r->retired = malloc(sizeof *r->retired);
    if (r->retired == NULL) {
        restore_abort(r);
        return ERR_NOMEM;
    }
    await_small(r, READ_HEAD, IMAGE_HEAD_SIZE);
    *out = r;
    return OK;
}

void restore_abort(struct machine_restore *r) {
    if (r == NULL) return;
    state_end(&r->state);
    buf_wipe(&r->cluster);
    free(r->item);
    free(r->retired);
    free(r);
}

/* --- the parts --- */

static void await_token_or_item(struct machine_restore *r) {
    if (r->tokens > 0)
        await_small(r, READ_TOKEN, IMAGE_TOKEN_SIZE);
    else if (r->keys > 0)
        await_small(r, READ_ITEM, IMAGE_ITEM_SIZE);
    else
        await_small(r, READ_TAIL, IMAGE_TAIL_SIZE);
}

static RESULT read_head(struct machine_restore *r) {
    uint64_t revision = get_u64(r->small + 12);
    uint32_t cluster_size = get_u32(r->small + 28);
    if (memcmp(r->small, IMAGE_MAGIC, 8) != 0 || get_u32(r->small + 8) != IMAGE_VERSION)
        return ERR_CORRUPT;
    if (revision == 0 || cluster_size == 0 || cluster_size > CLUSTER_BYTES_MAX) return ERR_CORRUPT;
    TRY(buf_reserve(&r->cluster, cluster_size));
    r->state.revision = revision;
    r->keys = get_u64(r->small + 20);
    r->cluster.size = cluster_size;
    await(r, READ_CLUSTER, r->cluster.at, cluster_size);
    return OK;
}

static RESULT read_cluster(struct machine_restore *r) {
    struct cluster *c;
    struct cluster_version *v;
    TRY(cluster_decode(buf_span(&r->cluster), &c));
    buf_wipe(&r->cluster);
    enum err e = cluster_version_new(c, &v);
    if (e != OK) {
        cluster_free(c);
        return e;
    }
    cluster_version_drop(r->state.cluster);
    r->state.cluster = v;
    await_small(r, READ_TOKENS, IMAGE_TOKENS_SIZE);
    return OK;
}

static RESULT read_tokens(struct machine_restore *r) {
    uint64_t first = get_u64(r->small);
    r->tokens = get_u32(r->small + 8);
    if (r->tokens > TOKENS_MAX || first > UINT64_MAX - r->tokens) return ERR_CORRUPT;
    r->state.tokens.first = r->state.tokens.next = first;
    await_token_or_item(r);
    return OK;
}

static RESULT read_token(struct machine_restore *r) {
    struct result result, known;
    if (result_decode(span_of(r->small + TOKEN_SIZE, RESULT_SIZE), &result) != OK)
        return ERR_CORRUPT;
    if (result.repeated || tokens_find(&r->state.tokens, r->small, &known)) return ERR_CORRUPT;
    TRY(tokens_reserve(&r->state.tokens));
    tokens_add(&r->state.tokens, r->small, &result);
    r->tokens--;
    await_token_or_item(r);
    return OK;
}

static bool good_revisions(const struct kv *kv, uint64_t revision) {
    if (kv->create_revision == 0 || kv->create_revision > kv->mod_revision) return false;
    if (kv->mod_revision > revision || kv->version == 0) return false;
    return kv->version - 1 <= kv->mod_revision - kv->create_revision;
}

static RESULT read_item(struct machine_restore *r) {
    size_t key_size = r->small[0] | (size_t)r->small[1] << 8;
    size_t value_size = get_u32(r->small + 2);
    struct kv kv = {.create_revision = get_u64(r->small + 6),
                    .mod_revision = get_u64(r->small + 14),
                    .version = get_u64(r->small + 22),
                    .lease = get_u64(r->small + 30)};
    if (key_size == 0 || key_size > KEY_MAX || value_size > VALUE_MAX) return ERR_CORRUPT;
    if (!good_revisions(&kv, r->state.revision)) return ERR_CORRUPT;
    r->item = item_new(&kv, key_size, value_size);
    if (r->item == NULL) return ERR_NOMEM;
    await(r, READ_ITEM_BYTES, item_bytes(r->item), key_size + value_size);
    return OK;
}

static RESULT read_item_bytes(struct machine_restore *r) {
    struct item *i = r->item;
    struct tree_path path;
    if (r->last != NULL && span_compare(item_key(r->last), item_key(i)) >= 0) return ERR_CORRUPT;
    (void)tree_find(r->state.keys, item_key(i), &path);
    TRY(tree_put(r->state.keys, &path, i));
    r->item = NULL;
    r->last = i;
    lanes_add(&r->state.sum, item_lanes(i));
    r->state.bytes += item_key(i).size + item_value(i).size;
    r->keys--;
    await_token_or_item(r);
    return OK;
}

static RESULT read_tail(struct machine_restore *r) {
    if (memcmp(r->small, IMAGE_END, 8) != 0) return ERR_CORRUPT;
    memcpy(r->hash, r->small + 8, STATE_HASH_SIZE);
    await_small(r, READ_NOTHING, 1);
    return OK;
}

static RESULT read_part(struct machine_restore *r) {
    switch (r->part) {
    case READ_HEAD: return read_head(r);
    case READ_CLUSTER: return read_cluster(r);
    case READ_TOKENS: return read_tokens(r);
    case READ_TOKEN: return read_token(r);
    case READ_ITEM: return read_item(r);
    case READ_ITEM_BYTES: return read_item_bytes(r);
    case READ_TAIL: return read_tail(r);
    case READ_NOTHING: break;
    }
    return ERR_CORRUPT;
}

enum err restore_bytes(struct machine_restore *r, struct span bytes) {
    while (r->failed == OK && bytes.size > 0) {
        size_t size = r->need - r->have < bytes.size ? r->need - r->have : bytes.size;
        memcpy(r->into + r->have, bytes.at, size);
        r->have += size;
        bytes.at += size;
        bytes.size -= size;
        if (r->have == r->need) r->failed = read_part(r);
    }
    return r->failed;
}

const struct state *restore_state(const struct machine_restore *r) { return &r->state; }

/* --- the end --- */

static RESULT check(const struct machine_restore *r, const uint8_t expected[STATE_HASH_SIZE]) {
    uint8_t hash[STATE_HASH_SIZE];
    TRY(r->failed);
    if (r->part != READ_NOTHING) return ERR_CORRUPT;
    state_hash(&r->state, hash);
    if (memcmp(hash, r->hash, STATE_HASH_SIZE) != 0) return ERR_CORRUPT;
    return memcmp(hash, expected, STATE_HASH_SIZE) == 0 ? OK : ERR_CORRUPT;
}

enum err restore_end(struct machine_restore *r, const uint8_t hash[STATE_HASH_SIZE]) {
    enum err e = check(r, hash);
    if (e != OK) {
        restore_abort(r);
        return e;
    }
    struct state *now = &r->store->state;
    cluster_version_drop(now->cluster);
    tokens_end(&now->tokens);
    *r->retired = (struct retired){.tree = now->keys, .next = r->store->retired};
    r->store->retired = r->retired;
    *now = r->state;
    free(r);
    return OK;
}
