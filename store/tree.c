/* Changes of the tree (tree.h). A change walks the path that tree_find left, makes every node on it
 * its own (a copy, where a view can see the node), changes the leaf, then splits or merges upwards.
 * All memory is had before the first step: a change happens whole or not at all. A node that a
 * removal leaves nearly empty is merged with a neighbour if they are three quarters full together;
 * a node is never empty. */
#include "store/tree_node.h"

#include <assert.h>
#include <stdlib.h>

#define MERGE_BELOW (FANOUT / 4)
#define MERGED_MAX  (FANOUT * 3 / 4)

/* --- memory ahead --- */

static RESULT reserve_nodes(struct tree *t, unsigned leaves, unsigned inners) {
    assert(leaves <= ARRAY_SIZE(t->spare_leaves) && inners <= ARRAY_SIZE(t->spare_inners));
    while (t->n_leaves < leaves) {
        struct leaf *l = malloc(sizeof *l);
        if (l == NULL) return ERR_NOMEM;
        t->spare_leaves[t->n_leaves++] = l;
    }
    while (t->n_inners < inners) {
        struct inner *i = malloc(sizeof *i);
        if (i == NULL) return ERR_NOMEM;
        t->spare_inners[t->n_inners++] = i;
    }
    return OK;
}

static void node_start(const struct tree *t, struct tree_node *n, bool leaf) {
    n->born = t->epoch;
    n->n = 0;
    n->prefix = 0;
    n->leaf = leaf;
    memset(n->heads, 0xff, sizeof n->heads);
}

static struct leaf *take_leaf(struct tree *t) {
    assert(t->n_leaves > 0);
    struct leaf *l = t->spare_leaves[--t->n_leaves];
    node_start(t, &l->node, true);
    l->tombs = 0;
    return l;
}

static struct inner *take_inner(struct tree *t) {
    assert(t->n_inners > 0);
    struct inner *i = t->spare_inners[--t->n_inners];
    node_start(t, &i->node, false);
    return i;
}

/* The shortest key that is above `left` and not above `right`. */
static RESULT reserve_separator(struct tree *t, struct span left, struct span right) {
    size_t size = common_prefix(left, right) + 1;
    struct separator *s = malloc(sizeof *s + size);
    if (s == NULL) return ERR_NOMEM;
    s->born = t->epoch;
    s->size = (uint16_t)size;
    memcpy(s->bytes, right.at, size);
    t->spare_separator = s;
    return OK;
}

static struct separator *take_separator(struct tree *t) {
    struct separator *s = t->spare_separator;
    assert(s != NULL);
    t->spare_separator = NULL;
    return s;
}

/* --- one node --- */

static void set_heads(struct tree_node *n) {
    unsigned keys = node_keys(n);
    for (unsigned i = 0; i < FANOUT; i++)
        n->heads[i] = i < keys ? key_head(node_key(n, i), n->prefix) : UINT32_MAX;
}

/* Prefix and heads anew, after many keys have moved. */
static void node_refresh(struct tree_node *n) {
    unsigned keys = node_keys(n);
    n->prefix = keys == 0 ? 0 : (uint16_t)common_prefix(node_key(n, 0), node_key(n, keys - 1));
    set_heads(n);
}

/* The head of a new key at `at`, whose pointer is in place already. A key that lacks the prefix of
 * the others shortens it: any neighbour tells. */
static void add_head(struct tree_node *n, unsigned at) {
    unsigned keys = node_keys(n);
    struct span key = node_key(n, at);
    size_t common = key.size;
    if (keys > 1) common = common_prefix(key, node_key(n, at > 0 ? at - 1 : 1));
    if (keys == 1 || common < n->prefix) {
        n->prefix = (uint16_t)common;
        set_heads(n);
        return;
    }
    memmove(n->heads + at + 1, n->heads + at, (keys - 1 - at) * sizeof n->heads[0]);
    n->heads[at] = key_head(key, n->prefix);
}

static void drop_head(struct tree_node *n, unsigned at, unsigned keys_before) {
    memmove(n->heads + at, n->heads + at + 1, (keys_before - 1 - at) * sizeof n->heads[0]);
    n->heads[keys_before - 1] = UINT32_MAX;
}

/* Bit `at` comes new among the bits; the higher ones move up. */
static uint64_t bits_open(uint64_t bits, unsigned at, bool bit) {
    uint64_t below = (1ULL << at) - 1;
    return (bits & below) | (uint64_t)bit << at | (bits & ~below) << 1;
}

static uint64_t bits_close(uint64_t bits, unsigned at) {
    uint64_t below = (1ULL << at) - 1;
    return (bits & below) | (bits >> 1 & ~below);
}

static uint64_t tombs_of(struct item *const *items, unsigned n) {
    uint64_t bits = 0;
    for (unsigned i = 0; i < n; i++)
        bits |= (uint64_t)item_tomb(items[i]) << i;
    return bits;
}

static void leaf_insert(struct leaf *l, unsigned at, struct item *item) {
    memmove(l->items + at + 1, l->items + at, (l->node.n - at) * sizeof l->items[0]);
    l->items[at] = item;
    l->node.n++;
    l->tombs = bits_open(l->tombs, at, item_tomb(item));
    add_head(&l->node, at);
}

/* `child` comes to stand right of child `at`, behind the separator. */
static void inner_insert(struct inner *i, unsigned at, struct separator *s,
                         struct tree_node *child) {
    unsigned right = i->node.n - at - 1U;
    memmove(i->separators + at + 1, i->separators + at, right * sizeof(struct separator *));
    memmove(i->children + at + 2, i->children + at + 1, right * sizeof(struct tree_node *));
    memmove(i->live + at + 2, i->live + at + 1, right * sizeof i->live[0]);
    i->separators[at] = s;
    i->children[at + 1] = child;
    i->live[at + 1] = node_live(child, child->n);
    i->node.n++;
    add_head(&i->node, at);
}

/* Takes child `at` out with the separator on its left (of the first child: on its right). The child
 * and the separator are the caller's to bury. */
static struct separator *inner_erase(struct inner *i, unsigned at) {
    unsigned n = i->node.n;
    assert(n > 1);
    unsigned gone = at > 0 ? at - 1 : 0;
    struct separator *s = i->separators[gone];
    memmove(i->separators + gone, i->separators + gone + 1,
            (n - 2 - gone) * sizeof(struct separator *));
    memmove(i->children + at, i->children + at + 1, (n - 1 - at) * sizeof(struct tree_node *));
    memmove(i->live + at, i->live + at + 1, (n - 1 - at) * sizeof i->live[0]);
    i->node.n--;
    drop_head(&i->node, gone, n - 1);
    return s;
}

/* --- owning the path --- */

static unsigned shared_on(const struct tree *t, const struct tree_path *path, unsigned steps) {
    unsigned shared = 0;
    for (unsigned i = 0; i < steps; i++)
        shared += !node_owned(t, path->step[i].node);
    return shared;
}

static struct tree_node *copy_node(struct tree *t, struct tree_node *n) {
    struct tree_node *copy = n->leaf ? &take_leaf(t)->node : &take_inner(t)->node;
    if (n->leaf)
        *leaf_of(copy) = *leaf_of(n);
    else
        *inner_of(copy) = *inner_of(n);
    copy->born = t->epoch;
    return copy;
}

static void replace_child(struct tree *t, struct tree_path *path, unsigned level,
                          struct tree_node *n) {
    if (level == 0)
        t->root = n;
    else
        inner_of(path->step[level - 1].node)->children[path->step[level - 1].at] = n;
    path->step[level].node = n;
}

static void own_path(struct tree *t, struct tree_path *path) {
    for (unsigned i = 0; i < path->depth; i++) {
        struct tree_node *n = path->step[i].node;
        if (node_owned(t, n)) continue;
        replace_child(t, path, i, copy_node(t, n));
        bury(t, n, GRAVE_NODE);
    }
}

/* --- put --- */

/* What a put will need: as many full nodes from the leaf upwards as will split. */
static unsigned full_on(const struct tree_path *path) {
    unsigned full = 0;
    while (full < path->depth && path->step[path->depth - 1 - full].node->n == FANOUT)
        full++;
    return full;
}

static RESULT reserve_put(struct tree *t, const struct tree_path *path, unsigned splits) {
    unsigned inners = 0, leaves = 0;
    if (splits > 0) {
        leaves = 1;
        inners = splits - 1;
        if (splits == path->depth) inners++; /* a new root */
    }
    if (t->newest != NULL) {
        unsigned last = path->depth - 1;
        leaves += !node_owned(t, path->step[last].node);
        inners += shared_on(t, path, last);
    }
    if (splits == path->depth && path->depth == TREE_DEPTH_MAX) return ERR_TOO_LARGE;
    TRY(graves_reserve(t, path->depth + 1));
    return reserve_nodes(t, leaves, inners);
}

/* The i-th item of a full leaf as if `item` stood in it at `at`. */
static struct item *item_with(const struct leaf *l, unsigned i, unsigned at, struct item *item) {
    if (i == at) return item;
    return l->items[i < at ? i : i - 1];
}

/* Where a full node is cut. At the right edge of the tree nothing will come between, so the left
 * stays full: keys that ascend fill their nodes. */
static unsigned cut_of(const struct tree_path *path, unsigned level, unsigned at) {
    bool edge = at == (path->step[level].node->leaf ? FANOUT : FANOUT - 1);
    for (unsigned i = 0; i < level; i++)
        edge = edge && path->step[i].at == path->step[i].node->n - 1U;
    return edge ? FANOUT : FANOUT / 2 + 1;
}

static struct leaf *split_leaf(struct tree *t, struct leaf *l, unsigned cut, unsigned at,
                               struct item *item) {
    struct item *all[FANOUT + 1];
    for (unsigned i = 0; i <= FANOUT; i++)
        all[i] = item_with(l, i, at, item);
    struct leaf *right = take_leaf(t);
    memcpy(l->items, all, cut * sizeof all[0]);
    memcpy(right->items, all + cut, (FANOUT + 1 - cut) * sizeof all[0]);
    l->node.n = (uint16_t)cut;
    right->node.n = (uint16_t)(FANOUT + 1 - cut);
    l->tombs = tombs_of(l->items, cut);
    right->tombs = tombs_of(right->items, FANOUT + 1 - cut);
    if (cut != FANOUT) node_refresh(&l->node);
    node_refresh(&right->node);
    return right;
}

/* Splits a full inner node while `child` is inserted right of child `at` behind *s; *s becomes the
 * separator between the halves. */
static struct inner *split_inner(struct tree *t, struct inner *left, unsigned cut, unsigned at,
                                 struct separator **s, struct tree_node *child) {
    struct separator *separators[FANOUT];
    struct tree_node *children[FANOUT + 1];
    uint32_t live[FANOUT + 1];
    memcpy(separators, left->separators, at * sizeof separators[0]);
    memcpy(children, left->children, (at + 1) * sizeof children[0]);
    memcpy(live, left->live, (at + 1) * sizeof live[0]);
    separators[at] = *s;
    children[at + 1] = child;
    live[at + 1] = node_live(child, child->n);
    memcpy(separators + at + 1, left->separators + at, (FANOUT - 1 - at) * sizeof separators[0]);
    memcpy(children + at + 2, left->children + at + 1, (FANOUT - 1 - at) * sizeof children[0]);
    memcpy(live + at + 2, left->live + at + 1, (FANOUT - 1 - at) * sizeof live[0]);
    struct inner *right = take_inner(t);
    left->node.n = (uint16_t)cut;
    right->node.n = (uint16_t)(FANOUT + 1 - cut);
    memcpy(left->separators, separators, (cut - 1) * sizeof separators[0]);
    memcpy(left->children, children, cut * sizeof children[0]);
    memcpy(right->separators, separators + cut, (FANOUT - cut) * sizeof separators[0]);
    memcpy(right->children, children + cut, (FANOUT + 1 - cut) * sizeof children[0]);
    memcpy(left->live, live, cut * sizeof live[0]);
    memcpy(right->live, live + cut, (FANOUT + 1 - cut) * sizeof live[0]);
    *s = separators[cut - 1];
    node_refresh(&left->node);
    node_refresh(&right->node);
    return right;
}

static void grow_root(struct tree *t, struct separator *s, struct tree_node *right) {
    struct inner *root = take_inner(t);
    root->node.n = 1;
    root->children[0] = t->root;
    root->live[0] = node_live(t->root, t->root->n);
    inner_insert(root, 0, s, right);
    t->root = &root->node;
}

/* The nodes above `level` on the path have more live items now. */
static void count_above(struct tree_path *path, unsigned level, int delta) {
    if (delta == 0) return;
    while (level-- > 0)
        inner_of(path->step[level].node)->live[path->step[level].at] += (uint32_t)delta;
}

/* Puts `right` beside the node at `level`, splitting what is full above. */
static void insert_above(struct tree *t, struct tree_path *path, unsigned level,
                         struct separator *s, struct tree_node *right, int delta) {
    while (level > 0) {
        level--;
        struct inner *parent = inner_of(path->step[level].node);
        unsigned at = path->step[level].at;
        parent->live[at] = node_live(parent->children[at], parent->children[at]->n);
        if (parent->node.n < FANOUT) {
            inner_insert(parent, at, s, right);
            count_above(path, level, delta);
            return;
        }
        unsigned cut = cut_of(path, level, at);
        right = &split_inner(t, parent, cut, at, &s, right)->node;
    }
    grow_root(t, s, right);
}

static RESULT put_split(struct tree *t, struct tree_path *path, struct item *item,
                        unsigned splits) {
    unsigned last = path->depth - 1, at = path->step[last].at;
    struct leaf *full = leaf_of(path->step[last].node);
    unsigned cut = cut_of(path, last, at);
    TRY(reserve_put(t, path, splits));
    TRY(reserve_separator(t, item_key(item_with(full, cut - 1, at, item)),
                          item_key(item_with(full, cut, at, item))));
    own_path(t, path);
    struct leaf *right = split_leaf(t, leaf_of(path->step[last].node), cut, at, item);
    insert_above(t, path, last, take_separator(t), &right->node, !item_tomb(item));
    return OK;
}

static RESULT put_first(struct tree *t, struct item *item) {
    TRY(reserve_nodes(t, 1, 0));
    struct leaf *l = take_leaf(t);
    leaf_insert(l, 0, item);
    t->root = &l->node;
    return OK;
}

static RESULT put_over(struct tree *t, struct tree_path *path, struct item *item) {
    unsigned last = path->depth - 1;
    TRY(reserve_put(t, path, 0));
    own_path(t, path);
    struct leaf *l = leaf_of(path->step[last].node);
    unsigned at = path->step[last].at;
    int delta = item_tomb(l->items[at]) - item_tomb(item);
    if (l->items[at] != item->older) bury(t, l->items[at], GRAVE_ITEM);
    l->items[at] = item;
    l->tombs = (l->tombs & ~(1ULL << at)) | (uint64_t)item_tomb(item) << at;
    t->live += (uint64_t)(int64_t)delta;
    count_above(path, last, delta);
    return OK;
}

static RESULT put_new(struct tree *t, struct tree_path *path, struct item *item) {
    if (path->depth == 0) return put_first(t, item);
    unsigned splits = full_on(path);
    if (splits > 0) return put_split(t, path, item, splits);
    TRY(reserve_put(t, path, 0));
    own_path(t, path);
    unsigned last = path->depth - 1;
    leaf_insert(leaf_of(path->step[last].node), path->step[last].at, item);
    count_above(path, last, !item_tomb(item));
    return OK;
}

RESULT tree_put(struct tree *t, struct tree_path *path, struct item *item) {
    if (path->found) return put_over(t, path, item);
    TRY(put_new(t, path, item));
    t->count++;
    t->live += !item_tomb(item);
    return OK;
}

/* --- remove --- */

static void bury_separator(struct tree *t, struct separator *s) { bury(t, s, GRAVE_SEPARATOR); }

/* The node at `level` has become empty: it goes, and so does what is empty above it. */
static void drop_empty(struct tree *t, struct tree_path *path, unsigned level) {
    while (true) {
        struct tree_node *n = path->step[level].node;
        bury(t, n, GRAVE_NODE);
        if (level == 0) {
            t->root = NULL;
            return;
        }
        level--;
        struct inner *parent = inner_of(path->step[level].node);
        if (parent->node.n > 1) {
            bury_separator(t, inner_erase(parent, path->step[level].at));
            return;
        }
    }
}

/* Puts the content of the neighbour into the node, before or behind its own; `s` stands between. */
static void absorb_leaf(struct leaf *l, const struct leaf *from, bool before) {
    unsigned own = l->node.n, more = from->node.n;
    if (before) memmove(l->items + more, l->items, own * sizeof l->items[0]);
    memcpy(l->items + (before ? 0 : own), from->items, more * sizeof l->items[0]);
    l->node.n = (uint16_t)(own + more);
    l->tombs = before ? l->tombs << more | from->tombs : from->tombs << own | l->tombs;
    node_refresh(&l->node);
}

static void absorb_inner(struct inner *i, const struct inner *from, bool before,
                         struct separator *s) {
    unsigned own = i->node.n, more = from->node.n;
    if (before) {
        memmove(i->children + more, i->children, own * sizeof i->children[0]);
        memmove(i->live + more, i->live, own * sizeof i->live[0]);
        memmove(i->separators + more, i->separators, (own - 1) * sizeof i->separators[0]);
    }
    unsigned at = before ? 0 : own;
    memcpy(i->children + at, from->children, more * sizeof i->children[0]);
    memcpy(i->live + at, from->live, more * sizeof i->live[0]);
    memcpy(i->separators + at, from->separators, (more - 1) * sizeof i->separators[0]);
    i->separators[before ? more - 1 : own - 1] = s;
    i->node.n = (uint16_t)(own + more);
    node_refresh(&i->node);
}

/* Merges the node at `level` with a neighbour, if that is worth it. */
static bool merge(struct tree *t, struct tree_path *path, unsigned level) {
    struct tree_node *n = path->step[level].node;
    struct inner *parent = inner_of(path->step[level - 1].node);
    unsigned at = path->step[level - 1].at;
    if (n->n >= MERGE_BELOW || parent->node.n < 2) return false;
    bool before = at > 0;
    unsigned beside = before ? at - 1 : at + 1;
    struct tree_node *from = parent->children[beside];
    if (n->n + from->n > MERGED_MAX) return false;
    struct separator *s = parent->separators[before ? at - 1 : at];
    if (n->leaf)
        absorb_leaf(leaf_of(n), leaf_of(from), before);
    else
        absorb_inner(inner_of(n), inner_of(from), before, s);
    /* Erase the right one of the two with the separator between, then let the slot hold the node.
     */
    (void)inner_erase(parent, before ? at : at + 1);
    parent->children[before ? at - 1 : at] = n;
    parent->live[before ? at - 1 : at] = node_live(n, n->n);
    if (n->leaf) bury_separator(t, s);
    bury(t, from, GRAVE_NODE);
    return true;
}

static void lower_root(struct tree *t) {
    while (t->root != NULL && !t->root->leaf && t->root->n == 1) {
        struct tree_node *old = t->root;
        t->root = inner_of(old)->children[0];
        bury(t, old, GRAVE_NODE);
    }
}

RESULT tree_remove(struct tree *t, struct tree_path *path) {
    assert(path->found);
    unsigned last = path->depth - 1, at = path->step[last].at;
    unsigned shared = shared_on(t, path, last + 1);
    TRY(graves_reserve(t, 4 * path->depth + 1));
    TRY(reserve_nodes(t, shared > 0, shared > 0 ? shared - 1 : 0));
    own_path(t, path);
    struct leaf *l = leaf_of(path->step[last].node);
    assert(l->items[at]->older == NULL);
    int delta = -!item_tomb(l->items[at]);
    bury(t, l->items[at], GRAVE_ITEM);
    l->tombs = bits_close(l->tombs, at);
    t->live += (uint64_t)(int64_t)delta;
    count_above(path, last, delta);
    memmove(l->items + at, l->items + at + 1, (l->node.n - 1U - at) * sizeof l->items[0]);
    drop_head(&l->node, at, l->node.n);
    l->node.n--;
    t->count--;
    if (l->node.n == 0) {
        drop_empty(t, path, last);
    } else {
        for (unsigned level = last; level > 0 && merge(t, path, level);)
            level--;
    }
    lower_root(t);
    return OK;
}
