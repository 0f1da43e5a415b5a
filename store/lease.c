/* The replicated leases (lease.h): two copy-on-write trees that the store changes as commands say.
 *
 *   all       id, 8 bytes big-endian           -> TTL in ms, 8 bytes little-endian
 *   attached  id, 8 bytes big-endian, then key -> nothing
 *
 * Big-endian ids make the trees' order the numbers' order, and a lease's keys one interval in the
 * order of the keys. `changes` is the revision at which an item is born; it says nothing about the
 * content (a restored state counts anew), so it stays out of the hash. Each change first has all
 * its memory, then happens: ERR_NOMEM has changed nothing. */
#include "store/lease.h"

#include <assert.h>
#include <stdlib.h>

#define ID_SIZE ITEM_KEY_MORE

static void put_id(uint8_t *at, uint64_t id) {
    uint64_t raw = htobe64(id);
    memcpy(at, &raw, ID_SIZE);
}

static uint64_t get_id(const uint8_t *at) {
    uint64_t raw;
    memcpy(&raw, at, ID_SIZE);
    return be64toh(raw);
}

RESULT leases_start(struct leases *l) {
    *l = (struct leases){.changes = 0};
    TRY(tree_new(&l->all));
    return tree_new(&l->attached);
}

void leases_end(struct leases *l) {
    tree_free(l->attached);
    tree_free(l->all);
    *l = (struct leases){.changes = 0};
}

uint64_t leases_count(const struct leases *l) { return tree_count(l->all); }

/* --- leases --- */

static void lease_read(const struct item *i, struct lease *out) {
    out->id = get_id(item_key(i).at);
    out->ttl_ms = get_u64(item_value(i).at);
}

static struct lanes lease_lanes(const struct lease *lease) {
    uint8_t raw[16];
    put_u64(raw, lease->id);
    put_u64(raw + 8, lease->ttl_ms);
    return lanes_of(span_of(raw, sizeof raw));
}

bool lease_find(const struct leases *l, uint64_t id, struct lease *out) {
    uint8_t key[ID_SIZE];
    put_id(key, id);
    const struct item *i = tree_lookup(tree_root(l->all), span_of(key, ID_SIZE));
    if (i != NULL) lease_read(i, out);
    return i != NULL;
}

static bool lease_known(const struct leases *l, uint64_t id) {
    struct lease found;
    return lease_find(l, id, &found);
}

static RESULT put_new(struct leases *l, struct tree *t, struct tree_path *path, struct span key,
                      struct span value) {
    struct kv kv = {.key = key, .value = value, .mod_revision = l->changes + 1};
    struct item *item = item_copy(&kv);
    if (item == NULL) return ERR_NOMEM;
    enum err e = tree_put(t, path, item);
    if (e != OK) {
        free(item);
        return e;
    }
    l->changes++;
    return OK;
}

RESULT lease_grant(struct leases *l, const struct lease *lease) {
    uint8_t key[ID_SIZE], ttl[8];
    put_id(key, lease->id);
    put_u64(ttl, lease->ttl_ms);
    struct tree_path path;
    if (tree_find(l->all, span_of(key, ID_SIZE), &path) != NULL) return ERR_LEASE_EXISTS;
    if (leases_count(l) >= LEASES_MAX) return ERR_BUSY;
    TRY(put_new(l, l->all, &path, span_of(key, ID_SIZE), span_of(ttl, sizeof ttl)));
    lanes_add(&l->sum, lease_lanes(lease));
    return OK;
}

RESULT lease_remove(struct leases *l, uint64_t id) {
    uint8_t key[ID_SIZE];
    put_id(key, id);
    struct tree_path path;
    const struct item *i = tree_find(l->all, span_of(key, ID_SIZE), &path);
    if (i == NULL) return ERR_LEASE_NOT_FOUND;
    struct span hangs;
    assert(!lease_first_key(l, id, &hangs));
    struct lease gone;
    lease_read(i, &gone);
    TRY(tree_remove(l->all, &path));
    l->changes++;
    lanes_subtract(&l->sum, lease_lanes(&gone));
    return OK;
}

void leases_each(const struct leases *l, lease_each *each, void *ctx) {
    struct tree_cursor c;
    struct lease lease;
    tree_seek(tree_root(l->all), span_of(NULL, 0), &c);
    while (lease_next(&c, &lease))
        if (!each(ctx, &lease)) return;
}

RESULT leases_view(struct leases *l, struct tree_view **out) {
    return tree_view_new(l->all, l->changes, out);
}

bool lease_next(struct tree_cursor *c, struct lease *out) {
    const struct item *i = tree_next(c);
    if (i != NULL) lease_read(i, out);
    return i != NULL;
}

/* --- what hangs on them --- */

static struct span attached_key(uint8_t room[ITEM_KEY_MORE + KEY_MAX], uint64_t id,
                                struct span key) {
    assert(key.size <= KEY_MAX);
    put_id(room, id);
    if (key.size != 0) memcpy(room + ID_SIZE, key.at, key.size);
    return span_of(room, ID_SIZE + key.size);
}

RESULT lease_attach(struct leases *l, uint64_t id, struct span key) {
    if (!lease_known(l, id)) return ERR_LEASE_NOT_FOUND;
    uint8_t room[ITEM_KEY_MORE + KEY_MAX];
    struct span whole = attached_key(room, id, key);
    struct tree_path path;
    if (tree_find(l->attached, whole, &path) != NULL) return OK;
    return put_new(l, l->attached, &path, whole, span_of(NULL, 0));
}

RESULT lease_detach(struct leases *l, uint64_t id, struct span key) {
    uint8_t room[ITEM_KEY_MORE + KEY_MAX];
    struct tree_path path;
    if (tree_find(l->attached, attached_key(room, id, key), &path) == NULL) return OK;
    TRY(tree_remove(l->attached, &path));
    l->changes++;
    return OK;
}

/* The key of the attached item that the cursor gives next, if it hangs on the lease. */
static bool next_key(struct tree_cursor *c, uint64_t id, struct span *key) {
    const struct item *i = tree_next(c);
    if (i == NULL || get_id(item_key(i).at) != id) return false;
    *key = span_of(item_key(i).at + ID_SIZE, item_key(i).size - ID_SIZE);
    return true;
}

static void seek_keys(const struct leases *l, uint64_t id, struct tree_cursor *c) {
    uint8_t from[ID_SIZE];
    put_id(from, id);
    tree_seek(tree_root(l->attached), span_of(from, ID_SIZE), c);
}

void lease_keys(const struct leases *l, uint64_t id, lease_each_key *each, void *ctx) {
    struct tree_cursor c;
    struct span key;
    seek_keys(l, id, &c);
    while (next_key(&c, id, &key))
        if (!each(ctx, key)) return;
}

bool lease_first_key(const struct leases *l, uint64_t id, struct span *key) {
    struct tree_cursor c;
    seek_keys(l, id, &c);
    return next_key(&c, id, key);
}
