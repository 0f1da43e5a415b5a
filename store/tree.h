/* The ordered tree of the newest version of every key, tombstones included: a B+tree whose views
 * are free. A view is the root as it was; what a view can see is never changed again, only
 * replaced by copies, and freed when the last view that can see it is gone. "Can see" is told by
 * epochs, which views end: a node born in epoch b and replaced in epoch d is seen by exactly the
 * views that ended the epochs b..d-1. So there are no reference counts, and a change copies
 * nothing but the nodes between the root and the leaf, once for each view.
 *
 * Threads: everything here is called on the loop, but for reading through a view's root
 * (tree_lookup, tree_seek, tree_next), which any other thread may do at the same time without a
 * lock, since what a view sees is immutable.
 *
 * Older versions hang behind an item (item->older). The tree does not look at them but to free
 * them when it is taken apart; `deep` views are those whose readers do, and while there are any,
 * nobody may cut the chains. Each node knows how many items below it are no tombstones, so that
 * keys are counted without touching them (tree_rank).
 *
 * Freeing is done in small portions in passing (tree_tidy), so that dropping a view of millions
 * of replaced keys does not hold up the loop. */
#ifndef CONCLAVE_TREE_H
#define CONCLAVE_TREE_H

#include "store/item.h"

#define TREE_DEPTH_MAX 16 /* levels; nodes are at least 1/4 full on average: good for 2^60 keys */

struct tree;
struct tree_node;

RESULT tree_new(struct tree **out);
void tree_free(struct tree *t); /* everything at once; all views must be freed; NULL is fine */
/* Frees at most about `budget` items; true when nothing is left to be freed. A tree that is no
 * longer of use and has no views is taken apart with tree_dismantle until it says true; then
 * tree_free is instant. */
bool tree_tidy(struct tree *t, size_t budget);
bool tree_dismantle(struct tree *t, size_t budget);

uint64_t tree_count(const struct tree *t); /* items */
uint64_t tree_live(const struct tree *t);  /* items that are no tombstones */
const struct tree_node *
tree_root(const struct tree *t); /* NULL when empty; until the next change */

/* Where a key is or would be; good until the next change of the tree. */
struct tree_path {
    unsigned depth; /* steps in use; 0: the tree is empty */
    bool found;     /* the last step stands on the key itself */
    struct {
        struct tree_node *node; /* from the root down */
        unsigned at;            /* which child, or which item of the leaf */
    } step[TREE_DEPTH_MAX];
};
struct item *tree_find(const struct tree *t, struct span key, struct tree_path *path);

/* Puts the item where tree_find of its key has pointed.
 * The tree takes the item; on ERR_NOMEM nothing has changed and the item is still the caller's. The
 * one that was there is freed when no view sees it any more, unless it is item->older. */
RESULT tree_put(struct tree *t, struct tree_path *path, struct item *item);
/* Removes the item that was found (nothing is behind it). ERR_NOMEM: nothing has changed. */
RESULT tree_remove(struct tree *t, struct tree_path *path);
/* Frees an item that hung behind another and was cut off, when no view can see it any more.
 * ERR_NOMEM: it was not freed. */
RESULT tree_bury(struct tree *t, struct item *item);

struct tree_view;
/* The tree as of `revision`, the revision of its last change or later. */
RESULT tree_view_new(struct tree *t, uint64_t revision, struct tree_view **out);
void tree_view_free(struct tree_view *v);
/* Makes the tree what its newest view saw, and frees the view: undoes all changes since it was
 * taken, without memory. Every item that was put since must be born after the view's revision. */
void tree_rollback(struct tree_view *v);
const struct tree_node *tree_view_root(const struct tree_view *v);
uint64_t tree_view_revision(const struct tree_view *v);
uint64_t tree_view_count(const struct tree_view *v);
uint64_t tree_view_live(const struct tree_view *v);
void tree_view_deepen(struct tree_view *v); /* until it is freed, the chains stay as they are */
struct tree *tree_view_tree(const struct tree_view *v);
bool tree_has_views(const struct tree *t);
bool tree_has_deep_views(const struct tree *t);

/* Reading under a root. */
struct item *tree_lookup(const struct tree_node *root, struct span key); /* NULL: not there */
/* Items that are no tombstones and whose keys are below `key`: O(log n). */
uint64_t tree_rank(const struct tree_node *root, struct span key);
uint64_t tree_root_live(const struct tree_node *root); /* all of them; NULL: 0 */
struct tree_cursor {
    struct tree_path path; /* stands on the item that tree_next gives next */
};
/* Goes to the first key that is not below `key` (size 0: the first of all). */
void tree_seek(const struct tree_node *root, struct span key, struct tree_cursor *c);
const struct item *tree_next(struct tree_cursor *c); /* ascending; NULL at the end */

#endif
