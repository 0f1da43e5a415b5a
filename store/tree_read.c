/* Searching and walking under a root of the tree: for the loop and, through a view, for any thread;
 * nothing here writes to a node. */
#include "store/tree_node.h"

#include <assert.h>

size_t common_prefix(struct span a, struct span b) {
    size_t limit = a.size < b.size ? a.size : b.size;
    size_t i = 0;
    while (i + 8 <= limit) {
        uint64_t left, right;
        memcpy(&left, a.at + i, 8);
        memcpy(&right, b.at + i, 8);
        if (left != right) break;
        i += 8;
    }
    while (i < limit && a.at[i] == b.at[i])
        i++;
    return i;
}

uint32_t key_head(struct span key, size_t prefix) {
    uint32_t head = 0;
    if (key.size >= prefix + 4) {
        memcpy(&head, key.at + prefix, 4);
        return be32toh(head);
    }
    for (size_t i = prefix; i < prefix + 4; i++)
        head = head << 8 | (i < key.size ? key.at[i] : 0);
    return head;
}

static int order_behind(struct span a, struct span b, size_t common) {
    if (common == a.size || common == b.size) return (a.size > b.size) - (a.size < b.size);
    return a.at[common] < b.at[common] ? -1 : 1;
}

static int order_of(struct span a, struct span b) {
    return order_behind(a, b, common_prefix(a, b));
}

/* Among the keys lo..hi-1, which all have the head of `key`. */
static unsigned search_equal_heads(const struct tree_node *n, unsigned lo, unsigned hi,
                                   struct span key, bool *equal) {
    while (lo < hi) {
        unsigned middle = (lo + hi) / 2;
        int order = order_of(key, node_key(n, middle));
        if (order == 0) {
            *equal = true;
            return middle;
        }
        if (order < 0)
            hi = middle;
        else
            lo = middle + 1;
    }
    return lo;
}

unsigned node_search(const struct tree_node *n, struct span key, bool *equal) {
    unsigned keys = node_keys(n);
    *equal = false;
    if (keys == 0) return 0;
    uint32_t head = key_head(key, n->prefix);
    unsigned below = 0, upto = 0;
    for (unsigned i = 0; i < FANOUT; i++) { /* all of them: no branch, vectors */
        below += n->heads[i] < head;
        upto += n->heads[i] <= head;
    }
    if (below > keys) below = keys;
    if (upto > keys) upto = keys;
    if (n->prefix != 0) {
        /* The heads mean something only for a key with the prefix: ask a neighbour. */
        struct span near = node_key(n, below < keys ? below : keys - 1);
        size_t common = common_prefix(key, near);
        if (common < n->prefix) return order_behind(key, near, common) < 0 ? 0 : keys;
    }
    return search_equal_heads(n, below, upto, key, equal);
}

static unsigned child_of(const struct tree_node *n, struct span key) {
    bool equal;
    unsigned at = node_search(n, key, &equal);
    return equal ? at + 1 : at; /* a separator is not above the keys to its right */
}

uint64_t tree_rank(const struct tree_node *root, struct span key) {
    if (root == NULL) return 0;
    const struct tree_node *n = root;
    uint64_t below = 0;
    while (!n->leaf) {
        unsigned at = child_of(n, key);
        below += node_live(n, at);
        n = inner_of(n)->children[at];
    }
    bool equal;
    return below + node_live(n, node_search(n, key, &equal));
}

uint64_t tree_root_live(const struct tree_node *root) {
    return root == NULL ? 0 : node_live(root, root->n);
}

struct item *tree_lookup(const struct tree_node *root, struct span key) {
    if (root == NULL) return NULL;
    const struct tree_node *n = root;
    while (!n->leaf)
        n = inner_of(n)->children[child_of(n, key)];
    bool equal;
    unsigned at = node_search(n, key, &equal);
    return equal ? leaf_of(n)->items[at] : NULL;
}

static void descend(struct tree_node *root, struct span key, struct tree_path *path) {
    path->depth = 0;
    path->found = false;
    struct tree_node *n = root;
    while (n != NULL) {
        assert(path->depth < TREE_DEPTH_MAX);
        unsigned at = n->leaf ? node_search(n, key, &path->found) : child_of(n, key);
        path->step[path->depth].node = n;
        path->step[path->depth].at = at;
        path->depth++;
        n = n->leaf ? NULL : inner_of(n)->children[at];
    }
}

struct item *tree_find(const struct tree *t, struct span key, struct tree_path *path) {
    descend(t->root, key, path);
    if (!path->found) return NULL;
    return leaf_of(path->step[path->depth - 1].node)->items[path->step[path->depth - 1].at];
}

void tree_seek(const struct tree_node *root, struct span key, struct tree_cursor *c) {
    descend((struct tree_node *)(uintptr_t)root, key, &c->path);
}

/* To the first item of the next leaf; false at the end. */
static bool next_leaf(struct tree_path *path) {
    unsigned level = path->depth - 1;
    do {
        if (level == 0) return false;
        level--;
        path->step[level].at++;
    } while (path->step[level].at == path->step[level].node->n);
    while (++level < path->depth) {
        path->step[level].node =
            inner_of(path->step[level - 1].node)->children[path->step[level - 1].at];
        path->step[level].at = 0;
    }
    return true;
}

const struct item *tree_next(struct tree_cursor *c) {
    struct tree_path *path = &c->path;
    if (path->depth == 0) return NULL;
    unsigned last = path->depth - 1;
    if (path->step[last].at == path->step[last].node->n && !next_leaf(path)) {
        path->depth = 0;
        return NULL;
    }
    const struct leaf *leaf = leaf_of(path->step[last].node);
    unsigned at = path->step[last].at++;
    if (at + 8 < leaf->node.n) __builtin_prefetch(leaf->items[at + 8]);
    return leaf->items[at];
}
