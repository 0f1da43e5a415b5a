/* The store: its life, reading, views and the running hash. Commands: apply.c; snapshots: image.c,
 * restore.c.
 *
 * The state hash is BLAKE2b-256 over: "conclave state 3", u64 revision, u64 keys, two u64 lanes
 * summed over the newest versions (tombstones not), u64 compacted, two u64 lanes summed over all
 * versions ever, u64 leases, two u64 lanes summed over them, u64 first and next token number, two
 * u64 lanes summed over the tokens, u64 version of the rows, u64 their number, two u64 lanes summed
 * over them, 32 bytes hash of the cluster's bytes, the same of the users', then of each alarm u8
 * kind and u64 raft id. Sums and the parts' hashes are kept up to date by
 * every command, so it is O(1), and says nothing of how far a compaction has got. */
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

RESULT auth_version_new(struct auth *a, struct auth_version **out) {
    struct buf bytes = buf_new(AUTH_BYTES_MAX);
    struct auth_version *v = malloc(sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    enum err e = auth_encode(a, &bytes);
    if (e != OK) {
        buf_wipe(&bytes);
        free(v);
        return e;
    }
    (void)crypto_generichash(v->hash, sizeof v->hash, bytes.at, bytes.size, NULL, 0);
    buf_wipe(&bytes);
    v->auth = a;
    v->refs = 1;
    *out = v;
    return OK;
}

void auth_version_drop(struct auth_version *v) {
    if (v == NULL || --v->refs > 0) return;
    auth_free(v->auth);
    free(v);
}

void cluster_version_drop(struct cluster_version *v) {
    if (v == NULL || --v->refs > 0) return;
    cluster_free(v->cluster);
    free(v);
}

/* --- life --- */

static RESULT start_cluster(struct state *s) {
    struct cluster *c;
    TRY(cluster_new(&c));
    enum err e = cluster_version_new(c, &s->cluster);
    if (e != OK) cluster_free(c);
    return e;
}

static RESULT start_auth(struct state *s) {
    struct auth *a;
    TRY(auth_new(&a));
    enum err e = auth_version_new(a, &s->auth);
    if (e != OK) auth_free(a);
    return e;
}

RESULT state_start(struct state *s) {
    memset(s, 0, sizeof *s);
    s->revision = 1;
    tokens_start(&s->tokens);
    enum err e = tree_new(&s->keys);
    if (e == OK) e = history_new(&s->history);
    if (e == OK) e = leases_start(&s->leases);
    if (e == OK) e = rows_start(&s->rows);
    if (e == OK) e = start_cluster(s);
    if (e == OK) e = start_auth(s);
    if (e != OK) state_end(s);
    return e;
}

void state_end(struct state *s) {
    tree_free(s->keys);
    history_free(s->history);
    leases_end(&s->leases);
    rows_end(&s->rows);
    cluster_version_drop(s->cluster);
    auth_version_drop(s->auth);
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
    static const char title[16] = "conclave state 3";
    const uint64_t numbers[18] = {
        s->revision,         tree_live(s->keys),  s->sum.at[0],    s->sum.at[1],
        s->compacted,        s->events.at[0],     s->events.at[1], leases_count(&s->leases),
        s->leases.sum.at[0], s->leases.sum.at[1], s->tokens.first, s->tokens.next,
        s->tokens.sum.at[0], s->tokens.sum.at[1], s->rows.version, s->rows.n[0],
        s->rows.sum.at[0],   s->rows.sum.at[1],
    };
    uint8_t raw[sizeof title + sizeof numbers + 2 * STATE_HASH_SIZE + ALARMS_MAX * ALARM_SIZE];
    uint8_t *at = raw + sizeof title;
    memcpy(raw, title, sizeof title);
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++, at += 8)
        put_u64(at, numbers[i]);
    memcpy(at, s->cluster->hash, STATE_HASH_SIZE);
    memcpy(at + STATE_HASH_SIZE, s->auth->hash, STATE_HASH_SIZE);
    alarms_encode(&s->alarms, at + 2 * STATE_HASH_SIZE);
    size_t size = sizeof raw - (ALARMS_MAX - s->alarms.n) * ALARM_SIZE;
    (void)crypto_generichash(hash, STATE_HASH_SIZE, raw, size, NULL, 0);
}

/* --- reading --- */

uint64_t store_revision(const struct store *s) { return s->state.revision; }
uint64_t store_keys(const struct store *s) { return tree_live(s->state.keys); }
uint64_t store_bytes(const struct store *s) { return s->state.bytes; }
uint64_t store_size(const struct store *s) { return s->state.size; }
uint64_t store_memory(const struct store *s) { return sizeof *s + s->state.size; }
uint64_t store_compacted(const struct store *s) { return s->state.compacted; }
bool store_compacting(const struct store *s) { return s->state.sweeping; }
const struct leases *store_leases(const struct store *s) { return &s->state.leases; }
const struct auth *store_auth(const struct store *s) { return s->state.auth->auth; }
struct history *store_history(const struct store *s) {
    return s->state.history;
}
void store_watched(struct store *s, struct watch_hub *h) { s->hub = h; }

bool store_alarm(const struct store *s, enum alarm alarm, uint64_t raft_id) {
    return alarms_any(&s->state.alarms, alarm, raft_id);
}

bool store_alarm_at(const struct store *s, unsigned at, enum alarm *alarm, uint64_t *raft_id) {
    const struct alarms *a = &s->state.alarms;
    if (at >= a->n) return false;
    *alarm = (enum alarm)a->at[at].alarm;
    *raft_id = a->at[at].raft_id;
    return true;
}

const struct cluster *store_cluster(const struct store *s) { return s->state.cluster->cluster; }

static bool get(const struct tree_node *root, struct span key, struct kv *out) {
    const struct item *i = item_live(tree_lookup(root, key));
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
    while (i != NULL && item_tomb(i))
        i = tree_next(&c->at);
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
    v->compacted = s->state.compacted;
    v->deep = false;
    *out = v;
    return OK;
}

RESULT store_view_new_with_history(const struct store *s, struct store_view **out) {
    TRY(store_view_new(s, out));
    tree_view_deepen((*out)->keys);
    (*out)->deep = true;
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
