/* One write: a version of a key comes to stand in the tree before the ones that were there, and in
 * the history. Called by the commands (apply.c, txn_apply.c); what a command may not do was refused
 * before, so the only error here is ERR_NOMEM, and then that one write has not happened.
 *
 * The writes of a command share its revision; `sub` counts them from 0, as etcd does. A key that is
 * written twice within a revision has two versions of that revision. */
#include "store/state.h"

#include <assert.h>
#include <stdlib.h>

#include "store/watch.h"

#define WRITES_A_BREATH 512 /* of one command, between two calls of machine_busy */

struct writing writing_on(struct store *s) {
    return (struct writing){.store = s, .revision = s->state.revision + 1};
}

RESULT mvcc_room(const struct state *s, uint64_t puts) {
    return tree_live(s->keys) + puts <= KEYS_MAX ? OK : ERR_QUOTA;
}

static uint64_t payload(const struct item *i) { return item_key(i).size + item_value(i).size; }

/* The item stands in the tree: all that follows from it. */
static void happened(struct writing *w, struct item *i) {
    struct state *s = &w->store->state;
    struct lanes lanes = item_lanes(i);
    struct item *old = item_live(i->older);
    if (old != NULL) {
        lanes_subtract(&s->sum, item_lanes(old));
        s->bytes -= payload(old);
    }
    if (!item_tomb(i)) {
        lanes_add(&s->sum, lanes);
        s->bytes += payload(i);
    }
    lanes_add(&s->events, lanes);
    s->size += item_cost(i);
    s->revision = w->revision;
    w->sub++;
    if (w->sub % WRITES_A_BREATH == 0) machine_busy(&w->store->machine);
    uint64_t position = history_add(s->history, i);
    if (w->store->hub != NULL) watch_applied(w->store->hub, position);
}

static uint64_t lease_of(const struct item *i) {
    struct kv kv = {.lease = 0};
    if (i != NULL) item_read(i, &kv);
    return kv.lease;
}

static RESULT put_item(struct writing *w, struct tree_path *path, struct item *i) {
    struct state *s = &w->store->state;
    uint64_t lease = lease_of(i), before = lease_of(item_live(i->older));
    TRY(history_reserve(s->history));
    if (lease != 0 && lease != before) TRY(lease_attach(&s->leases, lease, item_key(i)));
    enum err e = tree_put(s->keys, path, i);
    if (e == OK) {
        happened(w, i);
        return before != 0 && before != lease ? lease_detach(&s->leases, before, item_key(i)) : OK;
    }
    if (lease != 0 && lease != before) (void)!lease_detach(&s->leases, lease, item_key(i));
    return e;
}

static void fill_put(struct kv *kv, const struct item *old, uint64_t revision) {
    kv->create_revision = kv->mod_revision = revision;
    kv->version = 1;
    if (old == NULL) return;
    struct kv before;
    item_read(old, &before);
    kv->create_revision = before.create_revision;
    kv->version = before.version + 1;
}

static RESULT put_or_free(struct writing *w, struct tree_path *path, struct item *i,
                          struct item *older) {
    uint32_t subs = w->sub;
    if (i == NULL) return ERR_NOMEM;
    item_number(i, w->sub);
    i->older = older;
    enum err e = put_item(w, path, i);
    if (e != OK && w->sub == subs) free(i);
    return e;
}

RESULT mvcc_put(struct writing *w, struct tree_path *path, struct item *old, const struct kv *put) {
    struct kv kv = *put;
    fill_put(&kv, item_live(old), w->revision);
    return put_or_free(w, path, item_copy(&kv), old);
}

/* The first live key of the interval from `from` on. */
static struct item *next_live(const struct state *s, const struct interval *in, struct span from,
                              struct tree_path *path) {
    struct interval_cursor c;
    struct interval rest = {.key = from, .end = in->end};
    const struct item *i;
    interval_seek(tree_root(s->keys), &rest, &c);
    do
        i = interval_next(&c);
    while (i != NULL && item_tomb(i));
    return i == NULL ? NULL : tree_find(s->keys, item_key(i), path);
}

RESULT mvcc_delete(struct writing *w, const struct interval *in, uint64_t *deleted) {
    struct state *s = &w->store->state;
    struct tree_path path;
    struct span from = in->key;
    struct item *old;
    while ((old = next_live(s, in, from, &path)) != NULL) {
        TRY(put_or_free(w, &path, item_tombstone(w->revision, item_key(old)), old));
        (*deleted)++;
        if (interval_one(in)) break;
        from = item_key(old); /* stays: the tombstone's older version */
    }
    return OK;
}

RESULT mvcc_import(struct state *s, const struct kv *kv) {
    struct tree_path path;
    struct lease lease;
    struct kv kept = *kv;
    if (tree_find(s->keys, kv->key, &path) != NULL) return OK;
    if (!lease_find(&s->leases, kv->lease, &lease)) kept.lease = 0;
    struct item *i = item_copy(&kept);
    if (i == NULL) return ERR_NOMEM;
    item_estrange(i);
    enum err e = kept.lease != 0 ? lease_attach(&s->leases, kept.lease, kv->key) : OK;
    if (e == OK) e = tree_put(s->keys, &path, i);
    if (e != OK) {
        free(i);
        return e;
    }
    struct lanes lanes = item_lanes(i);
    lanes_add(&s->sum, lanes);
    lanes_add(&s->events, lanes);
    s->bytes += payload(i);
    s->size += item_cost(i);
    return OK;
}
