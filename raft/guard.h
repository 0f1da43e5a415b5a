/* The engine as it should be: libraft's raft_step with every known fault fenced (see the table at the
 * top of guard.c: fault, guard, what happens without). Callers never call raft_step themselves; one event
 * may become several steps, and each one's update is handed on in order.
 *
 * The contract that stays with the caller (raft/replica.c) is the engine's own: PERSISTED only for what
 * is durable and still in the log, apply only up to guard_commit(), fill AppendEntries from one's log. */
#ifndef CONCLAVE_GUARD_H
#define CONCLAVE_GUARD_H

#include <raft.h>

#include "crypto/base.h"
#include "raft/wal.h"

#define GUARD_RAFT_VERSION 2201 /* the one release whose faults are known; others are refused */

/* Each guard can be taken away, by the simulator and the unit tests only, to show that it is needed. */
enum guard_id {
    GUARD_STALE_REPLY,         /* stale-term replies must not count as acknowledgements */
    GUARD_REPEATED_REJECTION,  /* next must stay above match */
    GUARD_CHANGE_SPLIT,        /* a CHANGE is stepped first and alone */
    GUARD_SOLE_VOTER,          /* a sole voter takes a new term before it leads */
    GUARD_BELOW_COMPACTION,    /* AppendEntries below the compaction point is rebased */
    GUARD_SNAPSHOT_IN_FLIGHT,  /* one snapshot in flight a peer */
    GUARD_PERSISTED_PREFIX,    /* (the caller's filter asks guard_on) late completions of a truncated tail */
    GUARD_COMMIT_MAX,          /* commit never goes back */
    GUARD_OWN_TERM_CHANGE,     /* no CHANGE before an own-term entry is committed */
    GUARD_CHANGE_SYNC,         /* (caller) a CHANGE is on the own disk before it is sent */
    GUARD_SELF_CHANGE,         /* a leader never demotes or removes itself */
    GUARD_NON_VOTER_VOTE,      /* a non-voter by its own, older configuration still votes */
    GUARD_PRE_VOTE_TERM,       /* a pre-vote denial carries the higher term */
    GUARD_CONFLICT_TERM,       /* a rejection's hint skips the whole conflicting term */
    GUARD_DISRUPT,             /* disrupt_leader only in the step after TIMEOUT_NOW */
    GUARD_TIMER_FLOOR,         /* the timer never lies in the past */
    GUARD_INSTALL_APPLY,       /* (caller) nothing is applied while installing */
    GUARD_COUNT
};

struct guard;

struct guard_hooks {
    void *ctx;
    /* Makes term and vote durable; blocking. An error stops the node. */
    enum err (*persist)(void *ctx, uint64_t term, uint64_t vote);
    /* One step's update, term and vote already durable. Messages are already mended; their AppendEntries
     * carry prev_log_index, prev_log_term, n_entries, leader_commit and no entries. Copy what is kept. */
    enum err (*update)(void *ctx, const struct raft_update *u);
    /* Entry `index` of the caller's own log, for a restart of the core; NULL when not there. */
    const struct entry *(*entry)(void *ctx, uint64_t index);
};

struct guard_start {
    uint64_t id;                 /* own raft id, > 0 */
    unsigned seed;               /* of the engine's random numbers */
    uint64_t term, vote;         /* as persisted */
    const struct snapshot_meta *snapshot; /* newest snapshot, NULL: none */
    uint64_t first_index;        /* of the log's first entry (last + 1 when empty) */
    uint64_t last_index;
    unsigned election_ms, heartbeat_ms;
    unsigned inflight_max;
    uint64_t now_ms;
};

/* Starts the core (RAFT_START, with the sole-voter guard before it). Entries come through hooks.entry.
 * ERR_UNSUPPORTED when the library is another version. Updates of the start are handed to the hook. */
RESULT guard_open(const struct guard_start *start, const struct guard_hooks *hooks, struct guard **out,
                  struct why *why);
void guard_close(struct guard *g);

/* The events. Each may call the update hook several times before it returns. Soft errors: ERR_NOT_LEADER,
 * ERR_PRECONDITION (can't change now), ERR_INVALID, ERR_NOT_FOUND, ERR_BUSY; anything else stops the node. */
RESULT guard_timeout(struct guard *g, uint64_t now_ms);
/* Takes the message's parts as raft.h says for RECEIVE. For AppendEntries `entries` are ours, in the order of
 * the message (raft's shells are made inside); the update hook's entries.index and n say which to keep. */
RESULT guard_receive(struct guard *g, uint64_t now_ms, struct raft_message *message,
                     struct entry *const *entries);
RESULT guard_persisted(struct guard *g, uint64_t now_ms, uint64_t index);
RESULT guard_snapshot_taken(struct guard *g, uint64_t now_ms, const struct snapshot_meta *meta,
                            unsigned trailing);
RESULT guard_snapshot_installed(struct guard *g, uint64_t now_ms, const struct snapshot_meta *meta);
/* Submits one entry of our own, already made with the current term and the next index. */
RESULT guard_submit(struct guard *g, uint64_t now_ms, const struct entry *e);
RESULT guard_change(struct guard *g, uint64_t now_ms, const struct entry *e); /* a CHANGE, alone */
RESULT guard_committed_configuration(struct guard *g, uint64_t now_ms, uint64_t index,
                                     struct span conf); /* as soon as commit passes a CHANGE */
RESULT guard_catch_up(struct guard *g, uint64_t now_ms, uint64_t id);
RESULT guard_transfer(struct guard *g, uint64_t now_ms, uint64_t id); /* 0: to any voter */

uint64_t guard_timer_ms(struct guard *g, uint64_t now_ms); /* when guard_timeout is due; floored */
uint64_t guard_commit(struct guard *g);                    /* own maximum; never goes back */
bool guard_installing(struct guard *g);
const struct raft *guard_raft(const struct guard *g);      /* to look, never to touch */
bool guard_own_term_committed(struct guard *g);            /* leader with an entry of its term committed */

bool guard_on(const struct guard *g, enum guard_id id);
void guard_take_away(struct guard *g, enum guard_id id);   /* simulator and unit tests only */
const char *guard_name(enum guard_id id);                  /* "stale-reply", ... for --without NAME */

#endif
