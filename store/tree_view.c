/* Views of the tree, and the freeing of what left it. What no view can see is freed at once; the
 * rest lies in the graves of the newest view that there was when it left. When that view is freed,
 * its graves are sorted, a block at a time: what an older view can see moves to the newest such
 * view, the rest is freed. Only the loop comes here. */
#include "store/tree_node.h"

#include <assert.h>
#include <stdlib.h>

#define TIDY_AT_ONCE                                                                               \
    16384 /* items freed by the call that frees a view; the rest goes in passing                   \
           */

static void *grave_at(uintptr_t entry) { return (void *)(entry & ~(uintptr_t)3); }

/* Nodes are told by epochs; items, which have none, by revisions, which may keep one too long that
 * came into the tree late, but never too short. */
static bool may_see(const struct tree_view *v, const void *what, unsigned kind) {
    switch (kind) {
    case GRAVE_NODE: return ((const struct tree_node *)what)->born <= v->epoch;
    case GRAVE_SEPARATOR: return ((const struct separator *)what)->born <= v->epoch;
    default: return item_born(what) <= v->revision;
    }
}

void bury(struct tree *t, void *what, enum grave_kind kind) {
    if (t->newest == NULL || !may_see(t->newest, what, kind)) {
        free(what);
        return;
    }
    struct graves *g = t->newest->graves;
    assert(g != NULL && g->n < GRAVES);
    g->at[g->n++] = (uintptr_t)what | (uintptr_t)kind;
}

RESULT graves_reserve(struct tree *t, unsigned more) {
    struct tree_view *v = t->newest;
    if (v == NULL || (v->graves != NULL && v->graves->n + more <= GRAVES)) return OK;
    struct graves *g = malloc(sizeof *g);
    if (g == NULL) return ERR_NOMEM;
    g->n = 0;
    g->seen_until = v->epoch;
    g->next = v->graves;
    v->graves = g;
    return OK;
}

RESULT tree_view_new(struct tree *t, uint64_t revision, struct tree_view **out) {
    assert(t->newest == NULL || revision >= t->newest->revision);
    struct tree_view *v = calloc(1, sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    v->tree = t;
    v->root = t->root;
    v->revision = revision;
    v->epoch = t->epoch++;
    v->count = t->count;
    v->live = t->live;
    v->older = t->newest;
    if (v->older != NULL) v->older->newer = v;
    t->newest = v;
    *out = v;
    return OK;
}

static void forget_view(struct tree_view *v) {
    if (v->older != NULL) v->older->newer = v->newer;
    if (v->newer != NULL)
        v->newer->older = v->older;
    else
        v->tree->newest = v->older;
}

void tree_view_free(struct tree_view *v) {
    if (v == NULL) return;
    struct tree *t = v->tree;
    forget_view(v);
    if (v->deep) t->deep--;
    while (v->graves != NULL) {
        struct graves *g = v->graves;
        v->graves = g->next;
        g->next = t->unsorted;
        t->unsorted = g;
    }
    free(v);
    (void)tree_tidy(t, TIDY_AT_ONCE);
}

/* --- undoing --- */

static bool is_new(const struct tree_view *v, const void *what, enum grave_kind kind) {
    return !may_see(v, what, kind);
}

static void free_new_items(const struct tree_view *v, const struct leaf *l) {
    for (unsigned i = 0; i < l->node.n; i++)
        if (is_new(v, l->items[i], GRAVE_ITEM)) free(l->items[i]);
}

/* Nodes that the view can't see hang below such nodes only. */
static void free_new(const struct tree_view *v, struct tree_node *root) {
    struct {
        struct tree_node *node;
        unsigned next; /* child to be looked at */
    } path[TREE_DEPTH_MAX];
    unsigned depth = 0;
    if (root != NULL && is_new(v, root, GRAVE_NODE)) path[depth++].node = root;
    path[0].next = 0;
    while (depth > 0) {
        struct tree_node *n = path[depth - 1].node;
        unsigned at = path[depth - 1].next++;
        if (!n->leaf && at < n->n) {
            const struct inner *i = inner_of(n);
            if (at > 0 && is_new(v, i->separators[at - 1], GRAVE_SEPARATOR))
                free(i->separators[at - 1]);
            if (!is_new(v, i->children[at], GRAVE_NODE)) continue;
            assert(depth < TREE_DEPTH_MAX);
            path[depth].node = i->children[at];
            path[depth++].next = 0;
            continue;
        }
        if (n->leaf) free_new_items(v, leaf_of(n));
        free(n);
        depth--;
    }
}

void tree_rollback(struct tree_view *v) {
    struct tree *t = v->tree;
    assert(v == t->newest && !v->deep);
    free_new(v, t->root);
    t->root = v->root;
    t->count = v->count;
    t->live = v->live;
    while (v->graves != NULL) { /* what lies in them is of use again */
        struct graves *g = v->graves;
        v->graves = g->next;
        free(g);
    }
    tree_view_free(v);
}

/* --- reading --- */

const struct tree_node *tree_view_root(const struct tree_view *v) { return v->root; }
uint64_t tree_view_revision(const struct tree_view *v) { return v->revision; }
uint64_t tree_view_count(const struct tree_view *v) { return v->count; }
uint64_t tree_view_live(const struct tree_view *v) { return v->live; }

void tree_view_deepen(struct tree_view *v) {
    if (!v->deep) v->tree->deep++;
    v->deep = true;
}

bool tree_has_deep_views(const struct tree *t) { return t->deep != 0; }

RESULT tree_bury(struct tree *t, struct item *item) {
    TRY(graves_reserve(t, 1));
    bury(t, item, GRAVE_ITEM);
    return OK;
}

struct tree *tree_view_tree(const struct tree_view *v) {
    return v->tree;
}
bool tree_has_views(const struct tree *t) { return t->newest != NULL; }

static struct tree_view *newest_that_may_see(const struct tree *t, const struct graves *g) {
    struct tree_view *v = t->newest;
    while (v != NULL && v->epoch > g->seen_until)
        v = v->older;
    return v;
}

/* Hands what is in the block to the view: into its newest block if that has room, else the block
 * itself. */
static void give_graves(struct tree_view *v, struct graves *g) {
    struct graves *into = v->graves;
    if (into != NULL && into->n + g->n <= GRAVES) {
        memcpy(into->at + into->n, g->at, g->n * sizeof g->at[0]);
        into->n += g->n;
        g->n = 0;
    }
    if (g->n == 0) {
        free(g);
        return;
    }
    g->seen_until = v->epoch;
    g->next = v->graves;
    v->graves = g;
}

static void sort_graves(struct tree *t, struct graves *g) {
    struct tree_view *v = newest_that_may_see(t, g);
    unsigned kept = 0;
    for (unsigned i = 0; i < g->n; i++) {
        if (v != NULL && i + 8 < g->n) __builtin_prefetch(grave_at(g->at[i + 8]));
        if (v != NULL && may_see(v, grave_at(g->at[i]), g->at[i] & 3))
            g->at[kept++] = g->at[i];
        else
            free(grave_at(g->at[i]));
    }
    g->n = kept;
    if (v != NULL)
        give_graves(v, g);
    else
        free(g);
}

bool tree_tidy(struct tree *t, size_t budget) {
    size_t done = 0;
    while (t->unsorted != NULL && done < budget) {
        struct graves *g = t->unsorted;
        t->unsorted = g->next;
        done += g->n;
        sort_graves(t, g);
    }
    return t->unsorted == NULL;
}

/* Frees items of the leaf from its end, each with the versions behind it, at most `budget`. */
static size_t empty_leaf(struct leaf *l, size_t budget) {
    size_t done = 0;
    while (l->node.n > 0 && done < budget) {
        struct item **last = &l->items[l->node.n - 1];
        struct item *older = (*last)->older;
        free(*last);
        *last = older;
        if (older == NULL) l->node.n--;
        done++;
    }
    return done;
}

/* Takes the last leaf apart, then whatever is empty above it. */
static size_t dismantle_last_leaf(struct tree *t, size_t budget) {
    struct tree_node *path[TREE_DEPTH_MAX], *n = t->root;
    unsigned depth = 0;
    while (!n->leaf) {
        path[depth++] = n;
        n = inner_of(n)->children[n->n - 1];
    }
    size_t items = empty_leaf(leaf_of(n), budget);
    if (n->n > 0) return items;
    free(n);
    while (depth > 0) {
        n = path[--depth];
        n->n--;
        if (n->n > 0) {
            free(inner_of(n)->separators[n->n - 1]);
            return items;
        }
        free(n);
    }
    t->root = NULL;
    return items;
}

bool tree_dismantle(struct tree *t, size_t budget) {
    assert(t->newest == NULL);
    if (!tree_tidy(t, budget)) return false;
    size_t done = 0;
    while (t->root != NULL && done < budget)
        done += dismantle_last_leaf(t, budget - done) + 1;
    return t->root == NULL;
}

RESULT tree_new(struct tree **out) {
    struct tree *t = calloc(1, sizeof *t);
    if (t == NULL) return ERR_NOMEM;
    *out = t;
    return OK;
}

void tree_free(struct tree *t) {
    if (t == NULL) return;
    (void)tree_dismantle(t, SIZE_MAX);
    while (t->n_leaves > 0)
        free(t->spare_leaves[--t->n_leaves]);
    while (t->n_inners > 0)
        free(t->spare_inners[--t->n_inners]);
    free(t);
}

uint64_t tree_count(const struct tree *t) { return t->count; }
uint64_t tree_live(const struct tree *t) { return t->live; }
const struct tree_node *tree_root(const struct tree *t) { return t->root; }
