/* Reading the engine's trail: which term each index of the log has. The library keeps its own
 * look-ups to itself, but the ring of (last index, term) records is public, and one release of it
 * is all that we link to. A record covers the indexes after the record before it (or after the
 * offset) up to its own. Called by the guard only; nothing here changes the trail. */
#include "raft/guard_internal.h"

static unsigned trail_records(const struct raft_trail *t) {
    return t->front <= t->back ? t->back - t->front : t->size - t->front + t->back;
}

/* Position of the i-th record; i is below trail_records. */
static unsigned trail_at(const struct raft_trail *t, unsigned i) {
    return (t->front + i) % t->size;
}

uint64_t trail_last(const struct raft_trail *t) {
    unsigned n = trail_records(t);
    return n > 0 ? t->records[trail_at(t, n - 1)].index : t->snapshot.index;
}

/* Ordinal of the record that covers `index`, or -1. The newest first: that is what is asked for. */
static int trail_find(const struct raft_trail *t, uint64_t index) {
    unsigned n = trail_records(t);
    if (n == 0 || index <= t->offset || index > t->records[trail_at(t, n - 1)].index) return -1;
    while (n > 1 && index <= t->records[trail_at(t, n - 2)].index)
        n--;
    return (int)n - 1;
}

uint64_t trail_term(const struct raft_trail *t, uint64_t index) {
    int i = trail_find(t, index);
    if (i >= 0) return t->records[trail_at(t, (unsigned)i)].term;
    return index == t->snapshot.index ? t->snapshot.term : 0;
}

uint64_t trail_run_start(const struct raft_trail *t, uint64_t index) {
    int i = trail_find(t, index);
    if (i < 0) return index;
    return i == 0 ? t->offset + 1 : t->records[trail_at(t, (unsigned)i - 1)].index + 1;
}
