/* The store: its life, reading, views and the running hash. Commands: apply.c; snapshots: image.c,
 * restore.c.
 *
 * The state hash is BLAKE2b-256 over: "conclave state 1", u64 revision, u64 keys, two u64 lanes
 * summed over the items, u64 first and next token number, two u64 lanes summed over the tokens, 32
 * bytes hash of the cluster's bytes. Sums and the cluster's hash are kept up to date by every
 * command, so it is O(1). */
#include "store/state.h"

#include <assert.h>
#include <stdlib.h>

#include <sodium.h>

/* --- the cluster's part --- */

RESULT cluster_version_new(struct cluster *c, struct cluster_version **out) {
    struct buf bytes = buf_new(CLUSTER_BYTES_MAX);
    struct cluster_version *v = malloc(sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    enum err e = cluster_encode(c, &bytes);
    if (e != OK) {
        buf_wipe(&bytes);
        free(v);
        return e;
    }
    (void)crypto_generichash(v->hash, sizeof v->hash, bytes.at, bytes.size, NULL, 0);
    buf_wipe(&bytes);
    v->cluster = c;
    v->refs = 1;
    *out = v;
    return OK;
}

void cluster_version_drop(struct cluster_version *v) {
    if (v == NULL || --v->refs > 0) return;
    cluster_free(v->cluster);
    free(v);
}

/* --- life --- */

RESULT state_start(struct state *s) {
    memset(s, 0, sizeof *s);
    s->revision = 1;
    tokens_start(&s->tokens);
    struct cluster *c = NULL;
    enum err e = tree_new(&s->keys);
    if (e == OK) e = cluster_new(&c);
    if (e == OK) e = cluster_version_new(c, &s->cluster);
    if (e == OK) return OK;
    cluster_free(c);
    state_end(s);
    return e;
}

void state_end(struct state *s) {
    tree_free(s->keys);
    cluster_version_drop(s->cluster);
    tokens_end(&s->tokens);
}

static void store_hash(struct machine *m, uint8_t hash[STATE_HASH_SIZE]) {
    state_hash(&store_of(m)->state, hash);
}

RESULT store_new(struct store **out) {
    static const struct machine functions = {
        .apply = store_apply,
        .applied = store_applied,
        .view = store_image,
        .view_next = image_next,
        .view_hash = image_hash,
        .view_free = image_free,
        .restore = store_restore,
        .restore_bytes = restore_bytes,
        .restore_end = restore_end,
        .restore_abort = restore_abort,
        .hash = store_hash,
    };
    struct store *s = calloc(1, sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    s->machine = functions;
    enum err e = state_start(&s->state);
    if (e != OK) {
        free(s);
        return e;
    }
    *out = s;
    return OK;
}

void store_free(struct store *s) {
    if (s == NULL) return;
    while (s->retired != NULL) {
        struct retired *r = s->retired;
        s->retired = r->next;
        tree_free(r->tree);
        free(r);
    }
    state_end(&s->state);
    free(s);
}

struct machine *store_machine(struct store *s) {
    return &s->machine;
}

void state_hash(const struct state *s, uint8_t hash[STATE_HASH_SIZE]) {
    uint8_t raw[16 + 8 * 8 + STATE_HASH_SIZE] = "conclave state 1";
    const uint64_t numbers[8] = {
        s->revision,     tree_count(s->keys), s->sum.at[0],        s->sum.at[1],
        s->tokens.first, s->tokens.next,      s->tokens.sum.at[0], s->tokens.sum.at[1],
    };
    for (unsigned i = 0; i < 8; i++)
        put_u64(raw + 16 + 8 * i, numbers[i]);
    memcpy(raw + 16 + 64, s->cluster->hash, STATE_HASH_SIZE);
    (void)crypto_generichash(hash, STATE_HASH_SIZE, raw, sizeof raw, NULL, 0);
}

/* --- reading --- */

uint64_t store_revision(const struct store *s) { return s->state.revision; }
uint64_t store_keys(const struct store *s) { return tree_count(s->state.keys); }
uint64_t store_bytes(const struct store *s) { return s->state.bytes; }
const struct cluster *store_cluster(const struct store *s) { return s->state.cluster->cluster; }

static bool get(const struct tree_node *root, struct span key, struct kv *out) {
    const struct item *i = tree_lookup(root, key);
    if (i == NULL) return false;
    item_read(i, out);
    return true;
}

struct store_cursor {
    struct tree_cursor at;
    struct span end; /* the caller's; size 0: no upper end */
};

bool store_cursor_next(struct store_cursor *c, struct kv *out) {
    const struct item *i = tree_next(&c->at);
    if (i == NULL) return false;
    item_read(i, out);
    return c->end.size == 0 || span_compare(out->key, c->end) < 0;
}

static void range(const struct tree_node *root, struct span from, struct span end, store_each *each,
                  void *ctx) {
    struct store_cursor c = {.end = end};
    struct kv kv;
    tree_seek(root, from, &c.at);
    while (store_cursor_next(&c, &kv))
        if (!each(ctx, &kv)) return;
}

bool store_get(const struct store *s, struct span key, struct kv *out) {
    return get(tree_root(s->state.keys), key, out);
}

void store_range(const struct store *s, struct span from, struct span end, store_each *each,
                 void *ctx) {
    range(tree_root(s->state.keys), from, end, each, ctx);
}

size_t store_prefix_end(struct span prefix, uint8_t *out) {
    size_t size = prefix.size;
    while (size > 0 && prefix.at[size - 1] == 0xff)
        size--;
    if (size == 0) return 0;
    memcpy(out, prefix.at, size);
    out[size - 1]++;
    return size;
}

/* --- views --- */

RESULT store_view_new(const struct store *s, struct store_view **out) {
    struct store_view *v = malloc(sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    enum err e = tree_view_new(s->state.keys, s->state.revision, &v->keys);
    if (e != OK) {
        free(v);
        return e;
    }
    v->bytes = s->state.bytes;
    *out = v;
    return OK;
}

void store_view_free(struct store_view *v) {
    if (v == NULL) return;
    tree_view_free(v->keys);
    free(v);
}

uint64_t store_view_revision(const struct store_view *v) { return tree_view_revision(v->keys); }

bool store_view_get(const struct store_view *v, struct span key, struct kv *out) {
    return get(tree_view_root(v->keys), key, out);
}

void store_view_range(const struct store_view *v, struct span from, struct span end,
                      store_each *each, void *ctx) {
    range(tree_view_root(v->keys), from, end, each, ctx);
}

RESULT store_cursor_new(const struct store_view *v, struct span from, struct span end,
                        struct store_cursor **out) {
    struct store_cursor *c = malloc(sizeof *c);
    if (c == NULL) return ERR_NOMEM;
    c->end = end;
    tree_seek(tree_view_root(v->keys), from, &c->at);
    *out = c;
    return OK;
}

void store_cursor_free(struct store_cursor *c) { free(c); }
