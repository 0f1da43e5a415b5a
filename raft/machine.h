/* All that raft/ knows of a state machine. The machine is driven from the loop; only view_next and
 * the restore calls may run on another thread (never both, and never beside another call on the
 * same view or restore). apply is deterministic: no clock, no randomness, no I/O; the same commands
 * give the same state, the same results and the same hash on every member. */
#ifndef CONCLAVE_MACHINE_H
#define CONCLAVE_MACHINE_H

#include "crypto/base.h"
#include "raft/snapshot.h"

struct machine_view;
struct machine_restore;

struct machine {
    /* Applies one command of the entry at `index`. Appends the result's bytes to `result`
     * (bounded by RESULT_MAX; NULL: nobody here asked, so no answer need be made). A command
     * that can't be done says so in its result; only ERR_NOMEM or a command that no version of
     * this program would write are errors here, and stop the node. */
    RESULT (*apply)(struct machine *m, uint64_t index, struct span command, struct buf *result,
                    struct why *why);
    /* All commands of the entry at `index` were applied (also called for entries without commands).
     */
    void (*applied)(struct machine *m, uint64_t index);

    /* A view of the state as it is now, O(1); it stays as it is while the machine goes on. */
    RESULT (*view)(struct machine *m, struct machine_view **out);
    /* Appends the next bytes of the serialised state (at most SNAPSHOT_CHUNK) to `out`; *done at
     * the end. */
    RESULT (*view_next)(struct machine_view *v, struct buf *out, bool *done);
    void (*view_hash)(const struct machine_view *v, uint8_t hash[STATE_HASH_SIZE]);
    void (*view_free)(struct machine_view *v); /* on the loop */

    /* Builds a second state beside the present one from serialised bytes, then swaps it in on the
     * loop. restore_end checks the hash (ERR_CORRUPT) and frees the restore whatever happens. */
    RESULT (*restore)(struct machine *m, struct machine_restore **out);
    RESULT (*restore_bytes)(struct machine_restore *r, struct span bytes);
    RESULT (*restore_end)(struct machine_restore *r, const uint8_t hash[STATE_HASH_SIZE]);
    void (*restore_abort)(struct machine_restore *r);

    /* The running hash of the state: O(1). */
    void (*hash)(struct machine *m, uint8_t hash[STATE_HASH_SIZE]);

    /* The replica's, which sets both when it opens: an `apply` that may take longer than some
     * milliseconds calls it all the while, so that the other members hear that this one lives. It
     * calls nothing of the machine. */
    void (*busy)(void *ctx);
    void *busy_ctx;
};

static inline void machine_busy(const struct machine *m) {
    if (m->busy != NULL) m->busy(m->busy_ctx);
}

/* For a machine around another one: its long applies are heard, too. */
static inline void machine_pass_busy(const struct machine *outer, struct machine *inner) {
    inner->busy = outer->busy;
    inner->busy_ctx = outer->busy_ctx;
}

#endif
