/* The store's machine behind a lock (embed.h). Everything that changes the store, or counts its
 * views, is done under the write lock; writing a view out and building a restore touch nothing that
 * anyone else does, and are handed on as they are. */
#include "api/embed.h"

#include <stdlib.h>

static struct guarded *guarded_of(struct machine *m) { return (struct guarded *)(void *)m; }

static void take(struct guarded *g) {
    if (g->applying) return;
    (void)pthread_rwlock_wrlock(&g->lock);
    g->applying = true;
}

void guarded_release(struct guarded *g) {
    if (!g->applying) return;
    g->applying = false;
    (void)pthread_rwlock_unlock(&g->lock);
}

static enum err apply(struct machine *m, uint64_t index, struct span command, struct buf *result,
                      struct why *why) {
    struct guarded *g = guarded_of(m);
    take(g);
    enum err e = g->inner->apply(g->inner, index, command, result, why);
    if (e != OK) guarded_release(g);
    return e;
}

static void applied(struct machine *m, uint64_t index) {
    struct guarded *g = guarded_of(m);
    take(g);
    g->inner->applied(g->inner, index);
    guarded_release(g);
}

/* The machine's handles for views and restores don't say whose they are: these do. */
struct machine_view {
    struct guarded *owner;
    struct machine_view *inner;
};

struct machine_restore {
    struct guarded *owner;
    struct machine_restore *inner;
};

static enum err view(struct machine *m, struct machine_view **out) {
    struct guarded *g = guarded_of(m);
    struct machine_view *v = malloc(sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    v->owner = g;
    take(g);
    enum err e = g->inner->view(g->inner, &v->inner);
    guarded_release(g);
    if (e == OK)
        *out = v;
    else
        free(v);
    return e;
}

static enum err view_next(struct machine_view *v, struct buf *out, bool *done) {
    return v->owner->inner->view_next(v->inner, out, done);
}

static void view_hash(const struct machine_view *v, uint8_t hash[STATE_HASH_SIZE]) {
    v->owner->inner->view_hash(v->inner, hash);
}

static void view_free(struct machine_view *v) {
    if (v == NULL) return;
    take(v->owner);
    v->owner->inner->view_free(v->inner);
    guarded_release(v->owner);
    free(v);
}

static enum err restore(struct machine *m, struct machine_restore **out) {
    struct guarded *g = guarded_of(m);
    struct machine_restore *r = malloc(sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    r->owner = g;
    enum err e = g->inner->restore(g->inner, &r->inner);
    if (e == OK)
        *out = r;
    else
        free(r);
    return e;
}

static enum err restore_bytes(struct machine_restore *r, struct span bytes) {
    return r->owner->inner->restore_bytes(r->inner, bytes);
}

static enum err restore_end(struct machine_restore *r, const uint8_t hash[STATE_HASH_SIZE]) {
    struct guarded *g = r->owner;
    take(g);
    enum err e = g->inner->restore_end(r->inner, hash);
    guarded_release(g);
    free(r);
    return e;
}

static void restore_abort(struct machine_restore *r) {
    if (r == NULL) return;
    r->owner->inner->restore_abort(r->inner);
    free(r);
}

static void hash(struct machine *m, uint8_t out[STATE_HASH_SIZE]) {
    struct guarded *g = guarded_of(m);
    g->inner->hash(g->inner, out);
}

bool guarded_work(struct guarded *g, struct store *s) {
    take(g);
    bool more = store_work(s);
    guarded_release(g);
    return more;
}

RESULT guarded_start(struct guarded *g, struct machine *inner) {
    pthread_rwlockattr_t attr;
    *g = (struct guarded){.inner = inner};
    g->machine = (struct machine){.apply = apply,
                                  .applied = applied,
                                  .view = view,
                                  .view_next = view_next,
                                  .view_hash = view_hash,
                                  .view_free = view_free,
                                  .restore = restore,
                                  .restore_bytes = restore_bytes,
                                  .restore_end = restore_end,
                                  .restore_abort = restore_abort,
                                  .hash = hash};
    if (pthread_rwlockattr_init(&attr) != 0) return ERR_NOMEM;
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    int rc = pthread_rwlock_init(&g->lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    return rc == 0 ? OK : ERR_NOMEM;
}

void guarded_end(struct guarded *g) { (void)pthread_rwlock_destroy(&g->lock); }
