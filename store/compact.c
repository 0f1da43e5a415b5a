/* Forgetting history. A compaction at a revision is known at once: nothing below it can be read
 * from then on. The versions themselves go in steps, in the order of the history: behind each event
 * up to that revision hang the versions that it replaced, and nobody can ask for those any more. An
 * event below the revision then leaves the history, and the tree too if it is a tombstone that
 * nothing followed (one that was followed hangs behind what came after, and goes when that does).
 * What happened at the very revision stays in the history, tombstones included: a watch may begin
 * there (source: etcd issue 19179).
 *
 * Nothing goes while a view is open whose reader looks behind the newest versions. What other views
 * may see goes to the graves (tree_bury). How far the sweep is depends on the member; what
 * can be read, the hash and the image do not. */
#include "store/state.h"

#include <stdlib.h>

/* Beside the item itself: the allocator's head and rounding, its places in leaf and history. */
#define ITEM_OVERHEAD 40

uint64_t item_cost(const struct item *i) { return item_size(i) + ITEM_OVERHEAD; }

enum err compact_begin(struct state *s, uint64_t revision) {
    if (revision <= s->compacted) return ERR_COMPACTED;
    if (revision > s->revision) return ERR_FUTURE_REVISION;
    s->compacted = revision;
    s->swept = history_first(s->history);
    s->sweeping = true;
    return OK;
}

/* Frees what hangs behind the event and is below the compaction; false: no memory, or no budget. */
static bool cut_older(struct state *s, struct item *event, size_t *budget) {
    while (event->older != NULL && item_born(event->older) < s->compacted) {
        if (*budget == 0) return false;
        struct item *gone = event->older, *next = gone->older;
        uint64_t cost = item_cost(gone);
        if (tree_bury(s->keys, gone) != OK) return false;
        event->older = next;
        s->size -= cost;
        --*budget;
    }
    return true;
}

/* A tombstone that nothing followed leaves the tree; false: no memory. */
static bool drop_tombstone(struct state *s, struct item *event) {
    struct tree_path path;
    if (!item_tomb(event) || tree_find(s->keys, item_key(event), &path) != event) return true;
    uint64_t cost = item_cost(event);
    if (tree_remove(s->keys, &path) != OK) return false;
    s->size -= cost;
    return true;
}

static bool sweep_event(struct state *s, size_t *budget) {
    struct item *event = history_at(s->history, s->swept);
    bool below = item_born(event) < s->compacted;
    if (!cut_older(s, event, budget)) return false;
    if (below && !drop_tombstone(s, event)) return false;
    s->swept++;
    if (below) history_drop(s->history, s->swept);
    return true;
}

static bool all_swept(const struct state *s) {
    if (s->swept == history_end(s->history)) return true;
    return item_born(history_at(s->history, s->swept)) > s->compacted;
}

bool compact_step(struct state *s, size_t budget) {
    if (!s->sweeping || tree_has_deep_views(s->keys)) return false;
    while (budget > 0) {
        if (all_swept(s)) {
            s->sweeping = false;
            return false;
        }
        if (!sweep_event(s, &budget) && budget > 0) return false;
        if (budget > 0) budget--;
    }
    return true;
}
