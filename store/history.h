/* The history: every event (put or tombstone) since the last compaction, in order of (revision,
 * sub). Events are items of the key tree's chains (item.h) and belong to the store; the history
 * only points to them. Positions count events for ever, so that a watcher can keep one. */
#ifndef CONCLAVE_HISTORY_H
#define CONCLAVE_HISTORY_H

#include "store/item.h"

struct history;
RESULT history_new(struct history **out);
void history_free(struct history *h);      /* NULL is fine; the items stay */
RESULT history_reserve(struct history *h); /* room for one more: history_add can't fail */
uint64_t history_add(struct history *h, struct item *i); /* its position */
uint64_t history_first(const struct history *h);         /* position of the oldest that is there */
uint64_t history_end(const struct history *h);           /* position after the newest */
struct item *history_at(const struct history *h, uint64_t position); /* first <= position < end */
/* Position of the first event of this or a later revision. */
uint64_t history_find(const struct history *h, uint64_t revision);
void history_drop(struct history *h, uint64_t until); /* forgets all positions below */

#endif
