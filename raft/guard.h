/* The engine as it should be: libraft's raft_step with every known fault fenced (see the table at
 * the top of guard.c: fault, guard, what happens without). Callers never call raft_step themselves;
 * one event may become several steps, and each one's update is handed on in order.
 *
 * The contract that stays with the caller (raft/replica.c):
 *   - the update hook writes u->entries (truncating its log at u->entries.index first), keeps
 * guard_epoch() with the write, and calls guard_persisted once that write is durable;
 *   - it fills outgoing AppendEntries from its own log at once, and InstallSnapshot from its newest
 * snapshot;
 *   - it applies only up to guard_commit();
 *   - no event is given from within a hook (guard_snapshot_stream and the look-ups are allowed
 * there). Sending a CHANGE only when it is on the own disk, delivering committed configurations, an
 * own-term barrier after every election, the filter for late writes, and holding commit back during
 * an install are inside.
 *
 * raft's memory never leaves the guard: entry shells, snapshot chunks and configurations in an
 * update are freed when the hook has returned; messages are valid until then too. The caller copies
 * what it keeps. */
#ifndef CONCLAVE_GUARD_H
#define CONCLAVE_GUARD_H

#include <raft.h>

#include "crypto/base.h"
#include "raft/snapshot.h"
#include "raft/wal.h"

#define GUARD_RAFT_VERSION 2201 /* the one release whose faults are known; others are refused */

/* Each guard can be taken away, by the simulator and the unit tests only, to show that it is
 * needed. */
enum guard_id {
    GUARD_STALE_REPLY,        /* stale-term replies must not count as acknowledgements */
    GUARD_REPEATED_REJECTION, /* next must stay above match */
    GUARD_CHANGE_SPLIT, /* a CHANGE is the first new entry of its step; configurations delivered */
    GUARD_SOLE_VOTER,   /* a sole voter takes a new term before it leads */
    GUARD_BELOW_COMPACTION,   /* AppendEntries below the compaction point is rebased */
    GUARD_SNAPSHOT_IN_FLIGHT, /* one snapshot in flight a peer */
    GUARD_PERSISTED_PREFIX,   /* late completions of a truncated tail are ignored */
    GUARD_COMMIT_MAX,         /* commit never goes back */
    GUARD_OWN_TERM_CHANGE,    /* no CHANGE before an own-term entry is committed; a barrier sees to
                                 that */
    GUARD_CHANGE_SYNC,        /* a CHANGE is on the own disk before it is sent */
    GUARD_SELF_CHANGE,        /* a leader never demotes or removes itself */
    GUARD_NON_VOTER_VOTE,     /* a non-voter by its own, older configuration still votes */
    GUARD_PRE_VOTE_TERM,      /* a pre-vote denial carries the higher term */
    GUARD_CONFLICT_TERM,      /* a rejection's hint skips the whole conflicting term */
    GUARD_DISRUPT,            /* disrupt_leader only in the step after TIMEOUT_NOW */
    GUARD_TIMER_FLOOR,        /* the timer never lies in the past */
    GUARD_INSTALL_APPLY,      /* nothing is applied while installing: guard_commit stands still */
    GUARD_LATE_PRE_VOTE,      /* a pre-vote's late answer does not raise the term */
    GUARD_RETRY_PRE_VOTE,     /* an election that is tried again begins with a pre-vote again */
    GUARD_EARLY_TRANSFER,     /* TIMEOUT_NOW only to a server that has the whole log */
    GUARD_IDLE_CATCH_UP,      /* a server that has everything already is caught up, too */
    GUARD_FIRST_SNAPSHOT,     /* no snapshot at index 1: an empty follower could never begin */
    GUARD_COUNT
};

struct guard;

struct guard_hooks {
    void *ctx;
    /* Makes term and vote durable; blocking. An error stops the node. */
    enum err (*persist)(void *ctx, uint64_t term, uint64_t vote);
    /* One step's update, term and vote already durable. u->entries.batch[i] are shells: only their
     * term and type mean something, their index is u->entries.index + i. They are entries passed in
     * (same index and term), or a RAFT_BARRIER of the engine's own, for which the caller makes an
     * entry (ENTRY_BARRIER, no bytes). u->messages are mended; their AppendEntries carry
     * prev_log_index, prev_log_term, n_entries, leader_commit and no entries. With
     * RAFT_UPDATE_SNAPSHOT the caller restores its machine and calls guard_snapshot_installed,
     * later. */
    enum err (*update)(void *ctx, const struct raft_update *u);
    /* Entry `index` of the caller's own log, for a start or restart of the core; NULL when not
     * there. It only has to stay valid until the next call. */
    const struct entry *(*entry)(void *ctx, uint64_t index);
};

struct guard_start {
    uint64_t id;                          /* own raft id, > 0 */
    unsigned seed;                        /* of the engine's random numbers */
    uint64_t term, vote;                  /* as persisted */
    const struct snapshot_meta *snapshot; /* newest snapshot, NULL: none; copied */
    uint64_t first_index;                 /* of the log's first entry (last + 1 when empty) */
    uint64_t last_index;                  /* of the log's last entry */
    unsigned election_ms, heartbeat_ms;
    unsigned inflight_max; /* un-acknowledged entries a peer */
    uint64_t now_ms;       /* CLOCK_BOOTTIME; all times are */
    uint32_t away;         /* guards taken away, 1u << guard_id: simulator and unit tests only */
};

/* Starts the core (RAFT_START, with the sole-voter guard before it). Entries come through
 * hooks.entry. *out is set before the first hook is called. ERR_UNSUPPORTED when the library is
 * another version; ERR_CORRUPT when log, snapshot, term and vote do not fit together: a log that
 * ends below the snapshot, or has another term at the snapshot's index, is left from before an
 * install: wal_reset it first (guard_log_is_stale tells). A first member starts at term 1 with
 * entry 1, the CHANGE that every first member has; a joiner starts at term 0 with nothing. */
RESULT guard_open(const struct guard_start *start, const struct guard_hooks *hooks,
                  struct guard **out, struct why *why);
void guard_close(struct guard *g); /* NULL is fine */
/* Whether the log was superseded by the snapshot as a whole (a crash between install and
 * wal_reset). */
bool guard_log_is_stale(const struct guard_start *start, const struct guard_hooks *hooks);

/* The events. Each may call the update hook several times before it returns. Soft errors, after
 * which all is as it was: ERR_NOT_LEADER, ERR_PRECONDITION (can't change now), ERR_INVALID,
 * ERR_NOT_FOUND, ERR_BUSY (a transfer or catch-up is under way), ERR_PROTOCOL (a message that no
 * member would send). guard_reason says more. Anything else stops the node, and every later event
 * returns the same error. */

/* It was not listening: leaves a follower, or a leader who counts its followers, no less than ms
 * before it takes the silence for a failure. Without effect until somebody was heard after the last
 * time. */
void guard_excuse(struct guard *g, uint64_t now_ms, uint64_t ms);
/* Does nothing before guard_timer_ms. */
RESULT guard_timeout(struct guard *g, uint64_t now_ms);
/* Takes the message. For AppendEntries `entries` are ours, in the order of the message (raft's
 * shells are made inside; message->append_entries.entries is not looked at); the update hook's
 * entries.index and n say which to keep. For InstallSnapshot the whole snapshot is durable here;
 * conf (raft_malloc'ed, decoded) and data (raft_malloc'ed or NULL) are taken in every case.
 * Versions are set inside. */
RESULT guard_receive(struct guard *g, uint64_t now_ms, struct raft_message *message,
                     struct entry *const *entries);
/* The write that ended with the entry (index, term) is durable; `epoch` is what guard_epoch said in
 * the hook that gave it. May be coalesced: the last of several writes suffices. Late ones are
 * ignored. */
RESULT guard_persisted(struct guard *g, uint64_t now_ms, uint64_t index, uint64_t term,
                       uint64_t epoch);
/* A snapshot of our own is durable. Without effect (OK) at index 1, while installing, or when a
 * newer one is known: so compact the log to exactly guard_raft(g)->trail.offset afterwards. meta is
 * copied. */
RESULT guard_snapshot_taken(struct guard *g, uint64_t now_ms, const struct snapshot_meta *meta,
                            unsigned trailing);
/* The snapshot that RAFT_UPDATE_SNAPSHOT announced is in the machine, the log reset. meta is
 * copied. */
RESULT guard_snapshot_installed(struct guard *g, uint64_t now_ms, const struct snapshot_meta *meta);
/* Submits one entry of our own, already made with the current term and the next index. */
RESULT guard_submit(struct guard *g, uint64_t now_ms, const struct entry *e);
/* A CHANGE, alone: one delta to the present configuration, the servers in the same order, new ones
 * last. */
RESULT guard_change(struct guard *g, uint64_t now_ms, const struct entry *e);
/* As soon as commit passes a CHANGE. The guard does it by itself; calling it again is without
 * effect. */
RESULT guard_committed_configuration(struct guard *g, uint64_t now_ms, uint64_t index,
                                     struct span conf);
RESULT guard_catch_up(struct guard *g, uint64_t now_ms, uint64_t id); /* then poll raft_catch_up */
RESULT guard_transfer(struct guard *g, uint64_t now_ms, uint64_t id); /* 0: to any voter */
/* Says that a stream to `peer` has begun or ended. While it runs, further InstallSnapshot messages
 * to the peer are dropped and its rejections neutralised. Always report the end, also when nothing
 * was sent. */
void guard_snapshot_stream(struct guard *g, uint64_t peer, bool in_flight);

uint64_t guard_timer_ms(struct guard *g, uint64_t now_ms); /* when guard_timeout is due; floored */
uint64_t guard_commit(struct guard *g);                    /* own maximum; never goes back */
uint64_t guard_epoch(const struct guard *g);      /* changes when the log's tail is truncated */
uint64_t guard_last_index(const struct guard *g); /* of the log as the engine sees it */
uint64_t guard_term_of(const struct guard *g, uint64_t index); /* 0: compacted or not there */
bool guard_installing(struct guard *g);
const struct raft *guard_raft(const struct guard *g); /* to look, never to touch */
bool guard_own_term_committed(struct guard *g);  /* leader with an entry of its term committed */
const char *guard_reason(const struct guard *g); /* of the last soft error; never NULL */

/* Whether bytes are a configuration that raft_configuration_decode (which checks no bounds) may be
 * given: well-formed, 1 to MEMBERS_MAX servers, no id or address twice. ERR_PROTOCOL otherwise. */
RESULT guard_configuration_check(struct span conf);

bool guard_on(const struct guard *g, enum guard_id id);
void guard_take_away(struct guard *g, enum guard_id id); /* simulator and unit tests only */
const char *guard_name(enum guard_id id);                /* "stale-reply", ... for --without NAME */

#endif
