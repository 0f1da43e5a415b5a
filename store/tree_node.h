/* The nodes of the tree, private to tree.c (changes), tree_read.c (searches) and tree_view.c (views
 * and freeing). A leaf holds items; an inner node holds children and, between two of them, a
 * separator: a key that is above all in the left and not above any in the right one, cut as short
 * as that allows.
 *
 * Searching: `prefix` bytes are the same in all keys of a node; the four bytes behind them stand,
 * big-endian and padded with zeros, in heads[]. Comparing heads settles nearly every search within
 * the node's own memory; only keys with the same head are looked at themselves. Unused heads are
 * UINT32_MAX, so that a search always counts over all of them, without a branch. */
#ifndef CONCLAVE_TREE_NODE_H
#define CONCLAVE_TREE_NODE_H

#include "store/tree.h"

#define FANOUT 64

struct tree_node {
    uint64_t born;          /* epoch in which it was made */
    uint16_t n;             /* leaf: items; inner: children */
    uint16_t prefix;        /* bytes that all its keys begin with */
    bool leaf;              /* struct leaf, else struct inner */
    uint32_t heads[FANOUT]; /* of the keys: n of them in a leaf, n - 1 in an inner node */
};

struct leaf {
    struct tree_node node;
    uint64_t tombs;             /* bit i: items[i] is a tombstone */
    struct item *items[FANOUT]; /* ascending */
};

struct separator {
    uint64_t born; /* epoch in which it was made */
    uint16_t size; /* bytes */
    uint8_t bytes[];
};

struct inner {
    struct tree_node node;
    struct separator *separators[FANOUT - 1]; /* [i] stands between children i and i + 1 */
    struct tree_node *children[FANOUT];
    uint32_t live[FANOUT]; /* items below each child that are no tombstones */
};

/* What was replaced while a view could see it, in blocks; a pointer's low bits say what it points
 * to. */
enum grave_kind { GRAVE_ITEM = 0, GRAVE_NODE = 1, GRAVE_SEPARATOR = 2 };
#define GRAVES 1020
struct graves {
    struct graves *next;  /* older block */
    uint64_t seen_until;  /* epoch of the newest view that may see these */
    unsigned n;           /* in use */
    uintptr_t at[GRAVES]; /* pointer | kind */
};

struct tree_view {
    struct tree *tree;       /* whose it is */
    struct tree_node *root;  /* NULL: empty */
    uint64_t revision;       /* no item was born after it */
    uint64_t epoch;          /* no node was born after it */
    uint64_t count;          /* items */
    uint64_t live;           /* of them no tombstones */
    bool deep;               /* its reader looks behind the newest versions */
    struct graves *graves;   /* died while this was the newest view */
    struct tree_view *older; /* ordered by epoch */
    struct tree_view *newer;
};

struct tree {
    struct tree_node *root;       /* NULL: empty */
    uint64_t count;               /* items */
    uint64_t live;                /* of them no tombstones */
    uint64_t epoch;               /* of the nodes that are made now; each view ends one */
    struct tree_view *newest;     /* of its views */
    unsigned deep;                /* views whose reader looks behind the newest versions */
    struct graves *unsorted;      /* blocks of freed views: to be freed or given to older views */
    struct leaf *spare_leaves[2]; /* made before a change, so that it can't fail */
    struct inner *spare_inners[2 * TREE_DEPTH_MAX]; /* the same */
    struct separator *spare_separator;              /* the same; NULL but during a split */
    unsigned n_leaves, n_inners;                    /* of the spares */
};

static inline struct leaf *leaf_of(const struct tree_node *n) {
    return (struct leaf *)(uintptr_t)n;
}
static inline struct inner *inner_of(const struct tree_node *n) {
    return (struct inner *)(uintptr_t)n;
}
static inline unsigned node_keys(const struct tree_node *n) { return n->leaf ? n->n : n->n - 1U; }
static inline struct span separator_key(const struct separator *s) {
    return span_of(s->bytes, s->size);
}
static inline struct span node_key(const struct tree_node *n, unsigned i) {
    return n->leaf ? item_key(leaf_of(n)->items[i]) : separator_key(inner_of(n)->separators[i]);
}

/* tree_read.c */
size_t common_prefix(struct span a, struct span b);
uint32_t key_head(struct span key, size_t prefix); /* the four bytes behind the prefix */
/* Index of the first key of the node that is not below `key`, *equal when it is the key itself. */
unsigned node_search(const struct tree_node *n, struct span key, bool *equal);

/* tree_view.c: this leaves the tree: freed now, or when no view sees it any more. Room in the
 * graves was reserved by graves_reserve. */
void bury(struct tree *t, void *what, enum grave_kind kind);
RESULT graves_reserve(struct tree *t, unsigned more);
/* Items of the leaf that are no tombstones, among the first n. */
static inline uint32_t leaf_live(const struct leaf *l, unsigned n) {
    uint64_t among = n == 0 ? 0 : UINT64_MAX >> (FANOUT - n);
    return n - (uint32_t)__builtin_popcountll(l->tombs & among);
}
/* The same below the first n children of an inner node, or in a leaf. */
static inline uint32_t node_live(const struct tree_node *node, unsigned n) {
    if (node->leaf) return leaf_live(leaf_of(node), n);
    uint32_t sum = 0;
    for (unsigned i = 0; i < n; i++)
        sum += inner_of(node)->live[i];
    return sum;
}
/* No view sees it: it may be changed in place. */
static inline bool node_owned(const struct tree *t, const struct tree_node *n) {
    return t->newest == NULL || n->born > t->newest->epoch;
}

#endif
