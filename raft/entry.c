/* A log entry: one allocation, immutable once filled, freed with its last reference. The counter is
 * atomic because the loop and the log's thread hold the same entry. */
#include <stdlib.h>

#include "raft/wal.h"

RESULT entry_new(uint64_t index, uint64_t term, enum entry_type type, size_t size,
                 struct entry **out) {
    if (size > ENTRY_MAX) return ERR_TOO_LARGE;
    struct entry *e = malloc(sizeof *e + size);
    if (e == NULL) return ERR_NOMEM;
    e->index = index;
    e->term = term;
    e->refs = 1;
    e->size = (uint32_t)size;
    e->type = (uint8_t)type;
    *out = e;
    return OK;
}

struct entry *entry_hold(struct entry *e) {
    (void)__atomic_add_fetch(&e->refs, 1, __ATOMIC_RELAXED);
    return e;
}

void entry_drop(struct entry *e) {
    if (e == NULL) return;
    if (__atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL) == 0) free(e);
}
