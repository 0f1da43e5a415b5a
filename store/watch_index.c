/* See watch_index.h. Linear hashing: `half` <= buckets < 2 * half; a hash's bucket is its value
 * modulo 2 * half when that bucket is there, else modulo half. A new bucket takes its watchers out
 * of the one that stood for it. The treap is a binary tree by (start), a heap by (priority): with
 * random priorities its depth is logarithmic whatever the keys. Walks go by the parent links and
 * need no stack. */
#include "store/watch_index.h"

#include <assert.h>
#include <stdlib.h>

#include <sodium.h>

/* --- links, lists --- */

static void hang(struct watcher **at, struct watcher *w) {
    w->links.next = *at;
    w->links.previous = at;
    if (*at != NULL) (*at)->links.previous = &w->links.next;
    *at = w;
}

static void unhang(struct watcher *w) {
    *w->links.previous = w->links.next;
    if (w->links.next != NULL) w->links.next->links.previous = w->links.previous;
}

void watch_list_start(struct watch_list *l) { *l = (struct watch_list){.last = &l->first}; }

void watch_list_add(struct watch_list *l, struct watcher *w) {
    hang(l->last, w);
    l->last = &w->links.next;
    l->n++;
}

void watch_list_remove(struct watch_list *l, struct watcher *w) {
    if (l->last == &w->links.next) l->last = w->links.previous;
    unhang(w);
    l->n--;
}

/* --- the table of single keys --- */

static struct watcher **bucket_at(struct watch_index *x, size_t b) {
    return &x->segments[b / WATCH_SEGMENT][b % WATCH_SEGMENT];
}

static struct watcher **bucket_of(struct watch_index *x, struct span key) {
    uint8_t raw[crypto_shorthash_BYTES];
    (void)crypto_shorthash(raw, key.at, key.size, x->key);
    size_t hash = (size_t)get_u64(raw), b = hash & (2 * x->half - 1);
    return bucket_at(x, b < x->buckets ? b : hash & (x->half - 1));
}

/* One bucket more, if there is memory; without, the lists only get longer. */
static void grow(struct watch_index *x) {
    size_t b = x->buckets;
    if (b / WATCH_SEGMENT == ARRAY_SIZE(x->segments)) return;
    struct watcher ***segment = &x->segments[b / WATCH_SEGMENT];
    if (*segment == NULL) *segment = calloc(WATCH_SEGMENT, sizeof **segment);
    if (*segment == NULL) return;
    x->buckets++;
    struct watcher *w = *bucket_at(x, b - x->half), *next;
    for (; w != NULL; w = next) {
        next = w->links.next;
        struct watcher **to = bucket_of(x, watcher_key(w));
        if (to != bucket_at(x, b)) continue;
        unhang(w);
        hang(to, w);
    }
    if (x->buckets == 2 * x->half) x->half *= 2;
}

RESULT watch_index_start(struct watch_index *x) {
    *x = (struct watch_index){.buckets = 1, .half = 1};
    randombytes_buf(x->key, sizeof x->key);
    x->segments[0] = calloc(WATCH_SEGMENT, sizeof *x->segments[0]);
    return x->segments[0] == NULL ? ERR_NOMEM : OK;
}

void watch_index_end(struct watch_index *x) {
    assert(x->n == 0);
    for (size_t i = 0; i < ARRAY_SIZE(x->segments); i++)
        free(x->segments[i]);
}

/* --- the treap of intervals --- */

static bool ends_after(const struct watcher *w, struct span key) {
    return w->endless || span_compare(key, watcher_end(w)) < 0;
}

static bool ends_farther(const struct watcher *a, const struct watcher *b) {
    return !b->endless && ends_after(a, watcher_end(b));
}

static void renew_last(struct watcher *w) {
    struct watcher *last = w, *left = w->links.left, *right = w->links.right;
    if (left != NULL && ends_farther(left->links.last, last)) last = left->links.last;
    if (right != NULL && ends_farther(right->links.last, last)) last = right->links.last;
    w->links.last = last;
}

/* What points to w. */
static struct watcher **place_of(struct watch_index *x, struct watcher *w) {
    struct watcher *p = w->links.parent;
    if (p == NULL) return &x->root;
    return p->links.left == w ? &p->links.left : &p->links.right;
}

static void adopt(struct watcher *parent, struct watcher **at, struct watcher *child) {
    *at = child;
    if (child != NULL) child->links.parent = parent;
}

/* w takes the place of its parent. */
static void rotate_up(struct watch_index *x, struct watcher *w) {
    struct watcher *p = w->links.parent;
    adopt(p->links.parent, place_of(x, p), w);
    if (p->links.left == w) {
        adopt(p, &p->links.left, w->links.right);
        adopt(w, &w->links.right, p);
    } else {
        adopt(p, &p->links.right, w->links.left);
        adopt(w, &w->links.left, p);
    }
    renew_last(p);
    renew_last(w);
}

static void treap_add(struct watch_index *x, struct watcher *w) {
    struct watcher **at = &x->root, *parent = NULL;
    while (*at != NULL) {
        parent = *at;
        if (ends_farther(w, parent->links.last)) parent->links.last = w;
        bool left = span_compare(watcher_key(w), watcher_key(parent)) < 0;
        at = left ? &parent->links.left : &parent->links.right;
    }
    w->links = (struct watch_links){.parent = parent, .last = w};
    w->priority = randombytes_random();
    *at = w;
    while (w->links.parent != NULL && w->links.parent->priority < w->priority)
        rotate_up(x, w);
}

static struct watcher *upper_child(const struct watcher *w) {
    struct watcher *left = w->links.left, *right = w->links.right;
    if (left == NULL || right == NULL) return left != NULL ? left : right;
    return left->priority > right->priority ? left : right;
}

static void treap_remove(struct watch_index *x, struct watcher *w) {
    struct watcher *child;
    while ((child = upper_child(w)) != NULL)
        rotate_up(x, child);
    *place_of(x, w) = NULL;
    for (struct watcher *p = w->links.parent; p != NULL; p = p->links.parent)
        renew_last(p);
}

/* The first of the subtree, in order of starts, below or at which there may be a hit. */
static struct watcher *descend(struct watcher *w, struct span key) {
    while (w->links.left != NULL && ends_after(w->links.left->links.last, key))
        w = w->links.left;
    return w;
}

static struct watcher *next_of(struct watcher *w, struct span key) {
    if (w->links.right != NULL && ends_after(w->links.right->links.last, key))
        return descend(w->links.right, key);
    struct watcher *p = w->links.parent;
    for (; p != NULL && p->links.right == w; p = p->links.parent)
        w = p;
    return p;
}

static size_t treap_find(struct watch_index *x, struct span key, watch_index_each *each,
                         void *ctx) {
    size_t seen = 0;
    if (x->root == NULL || !ends_after(x->root->links.last, key)) return 0;
    for (struct watcher *w = descend(x->root, key); w != NULL; w = next_of(w, key)) {
        seen++;
        if (span_compare(watcher_key(w), key) > 0) break;
        if (ends_after(w, key)) each(ctx, w);
    }
    return seen;
}

/* --- both --- */

void watch_index_add(struct watch_index *x, struct watcher *w) {
    x->n++;
    if (!w->one) {
        treap_add(x, w);
        return;
    }
    x->singles++;
    if (x->singles > x->buckets) grow(x);
    hang(bucket_of(x, watcher_key(w)), w);
}

void watch_index_remove(struct watch_index *x, struct watcher *w) {
    x->n--;
    if (!w->one) {
        treap_remove(x, w);
        return;
    }
    x->singles--;
    unhang(w);
}

/* Some watcher of the index, for emptying it: *bucket is 0 at first and then what the last call
 * left there; nothing is added in between. */
struct watcher *watch_index_any(struct watch_index *x, size_t *bucket) {
    if (x->root != NULL) return x->root;
    if (x->singles == 0) return NULL;
    while (*bucket_at(x, *bucket) == NULL)
        ++*bucket;
    return *bucket_at(x, *bucket);
}

size_t watch_index_find(struct watch_index *x, struct span key, watch_index_each *each, void *ctx) {
    size_t seen = 0;
    if (x->singles != 0)
        for (struct watcher *w = *bucket_of(x, key), *next; w != NULL; w = next) {
            next = w->links.next;
            seen++;
            if (span_equal(watcher_key(w), key)) each(ctx, w);
        }
    return seen + treap_find(x, key, each, ctx);
}
