/* The replica: one member of the quorum. It drives the engine (guard.h), keeps the log (wal.h) and
 * the state machine (machine.h), talks to the other members in frames (wire.h), and answers
 * proposals and linearizable reads. One thread: everything here is called from one loop. Disk work
 * goes to two execs. It knows no sockets, no files and no clock but those of its environment, so
 * the simulator runs this very code.
 *
 * Happy path of a write: replica_propose puts it into the inbox -> replica_turn (once a loop turn)
 * makes ONE entry of all that waits -> guard_submit -> the log exec seals, writes and syncs while
 * the same entry goes to the peers -> commit -> machine->apply for each command -> done callbacks.
 *
 * No callback fires inside the call that submitted it. Outcomes: OK; ERR_NOT_LEADER and ERR_BUSY
 * mean certainly not applied; ERR_MAYBE_APPLIED when leadership or the connection was lost in
 * between.
 *
 * Life: open -> running -> (closing) -> closed; or -> failed: a disk error, damage or divergence. A
 * failed replica sends nothing and answers nothing but its reason (replica_status, env.failed). */
#ifndef CONCLAVE_REPLICA_H
#define CONCLAVE_REPLICA_H

#include "crypto/disk.h"
#include "crypto/keyring.h"
#include "crypto/limits.h"
#include "raft/clock.h"
#include "raft/exec.h"
#include "raft/guard.h"
#include "raft/machine.h"
#include "raft/snapshot.h"
#include "raft/wal.h"

struct replica;
struct reply;

/* The world around a replica. All pointers outlive it. Callbacks are on the loop. */
struct replica_env {
    void *ctx; /* for the functions below */
    struct clock *clock;
    struct disk *disk;
    struct keyring *keys;
    struct exec *log_exec;      /* appends */
    struct exec *snapshot_exec; /* snapshots, pre-writing, compaction */
    struct machine *machine;
    /* Hands a frame over; takes the bytes (frame is empty after). May drop it; never blocks, never
     * calls back. */
    void (*send)(void *ctx, uint64_t to, struct buf *frame);
    void (*flush)(void *ctx); /* writes now what was handed over; NULL: nobody is sent anything */
    /* Bytes that still wait for this peer, for flow control; SIZE_MAX: frames would be dropped. */
    size_t (*queued)(void *ctx, uint64_t to);
    void (*wake)(void *ctx);                /* call replica_turn soon (idempotent) */
    void (*arm)(void *ctx, uint64_t at_ms); /* call replica_tick at this time; replaces the last */
    void (*leader)(void *ctx, uint64_t term,
                   uint64_t leader_id); /* new view of who leads; 0: nobody */
    void (*members)(void *ctx);         /* the configuration changed: see replica_status */
    void (*failed)(void *ctx, enum err e, const char *text); /* the node must stop; once */
    /* A call that another member (or this one) sent to the leader; answer with reply_send, now or
     * later. */
    void (*call)(void *ctx, uint64_t from, struct span request, struct reply *reply);
    void (*log)(void *ctx, int level, const char *text); /* 0 error, 1 warning, 2 info, 3 debug */
};

struct replica_config {
    uint64_t raft_id; /* own id, > 0, stable for ever */
    struct identity identity;
    enum seal_alg alg;
    unsigned election_ms;      /* ELECTION_TIMEOUT_MS */
    unsigned heartbeat_ms;     /* HEARTBEAT_MS */
    unsigned seed;             /* of the engine's random timers */
    uint64_t segment_size;     /* SEGMENT_SIZE */
    uint64_t snapshot_log_min; /* SNAPSHOT_LOG_MIN: log bytes that call for a snapshot */
    uint64_t trailing_bytes;   /* log kept behind a snapshot for slow followers */
    bool auto_promote;         /* as leader: make caught-up standbys voters */
    uint32_t without;          /* guards taken away, bit per enum guard_id; simulator only */
};

/* A new cluster of one: writes log[1] with the configuration {raft_id: voter}. Before replica_open.
 */
RESULT replica_bootstrap(const struct replica_env *env, const struct replica_config *config,
                         struct why *why);
/* The same, beginning with the state that env->machine has now: it becomes a snapshot. */
RESULT replica_seed(const struct replica_env *env, const struct replica_config *config,
                    struct why *why);
/* After a lost quorum: makes this member the only voter, keeping all of its log. Before
 * replica_open. */
RESULT replica_recover(const struct replica_env *env, const struct replica_config *config,
                       struct why *why);
/* Opens what is on the disk (blocking: loads snapshot and log) and starts. Nothing there: an empty
 * member that waits to be contacted. */
RESULT replica_open(const struct replica_env *env, const struct replica_config *config,
                    struct replica **out, struct why *why);
/* Finishes what is under way on the execs, then calls closed; the replica is gone then. For a clean
 * stop transfer leadership first (replica_transfer). Every waiting proposal and read ends with
 * ERR_CLOSED. */
void replica_close(struct replica *r, void (*closed)(void *ctx), void *ctx);
/* A crash, for the simulator: frees all memory at once; no callback fires any more. */
void replica_drop(struct replica *r);

void replica_turn(struct replica *r); /* once a loop turn after wake */
void replica_tick(struct replica *r); /* when the armed time has come */
/* One whole frame; false when it can't be read: the sender's connection should be cut. */
bool replica_receive(struct replica *r, uint64_t from, struct span frame);
void replica_connected(struct replica *r, uint64_t peer); /* (re)connected: frames flow again */

/* A write. Memory is the caller's until done. */
struct proposal {
    struct span command; /* <= COMMAND_MAX; must stay until done */
    /* OK: this member has applied it, so a read here finds it. */
    void (*done)(struct proposal *p, enum err e, uint64_t index, struct span result);
    void *ctx;             /* the caller's */
    uint64_t deadline_ms;  /* 0: PROPOSAL_TIMEOUT_MS from now; past it ERR_MAYBE_APPLIED */
    bool here;             /* as leader of now or not at all: never forwarded, ERR_NOT_LEADER */
    struct proposal *next; /* the replica's */
    uint64_t index, term;  /* the replica's */
};
RESULT replica_propose(struct replica *r,
                       struct proposal *p); /* ERR_BUSY, ERR_NO_LEADER: done won't fire */

/* A linearizable read: done(OK) when this member has applied all that was committed before the
 * call. */
struct read {
    void (*done)(struct read *rd, enum err e);
    void *ctx;            /* the caller's */
    uint64_t deadline_ms; /* as above; past it ERR_TIMEOUT */
    struct read *next;    /* the replica's */
    uint64_t index, seq;  /* the replica's */
};
RESULT replica_read(struct replica *r, struct read *rd);

/* Changes of membership; on the leader only (ERR_NOT_LEADER otherwise). One at a time (ERR_BUSY).
 */
enum change_kind { CHANGE_ADD, CHANGE_PROMOTE, CHANGE_DEMOTE, CHANGE_REMOVE };
struct change {
    enum change_kind kind; /* ADD: as standby */
    uint64_t raft_id;
    void (*done)(struct change *c, enum err e, const char *text);
    void *ctx;
    uint64_t index; /* the replica's */
};
RESULT replica_change(struct replica *r, struct change *c, struct why *why);
/* Hands leadership to `to` (0: whoever is most up to date); watch env.leader for the outcome. */
RESULT replica_transfer(struct replica *r, uint64_t to, struct why *why);

/* A call for whoever leads, here or over the wire: env.call answers it there. */
struct call {
    struct span request; /* <= COMMAND_MAX; must stay until done */
    void (*done)(struct call *c, enum err e,
                 struct span answer); /* e != OK: answer is a sentence */
    void *ctx;
    uint64_t deadline_ms; /* 0: PROPOSAL_TIMEOUT_MS from now */
    struct call *next;    /* the replica's */
    uint64_t id, to;      /* the replica's */
};
RESULT replica_call(struct replica *r, struct call *c);
/* Frees the reply. Also good, and needed, after the replica has ended: it then goes nowhere. */
void reply_send(struct reply *reply, enum err e, struct span answer);

/* Takes a snapshot now (backup, key rotation); done on the loop. */
void replica_snapshot(struct replica *r, void (*done)(void *ctx, enum err e, uint64_t index),
                      void *ctx);
/* Re-seals everything under the keyring's current DEK in the background (new segment, snapshot,
 * compaction), then destroys older generations; done when no file needs them. */
void replica_reseal(struct replica *r, void (*done)(void *ctx, enum err e), void *ctx);

enum replica_role {
    REPLICA_STANDBY = 0,
    REPLICA_VOTER = 1,
    REPLICA_SPARE = 2
}; /* libraft's values */
struct replica_member {
    uint64_t raft_id;
    enum replica_role role;
    uint64_t match; /* leader only: replicated up to here */
    bool active;    /* leader only: heard from within an election timeout */
};
struct replica_status {
    uint64_t raft_id, term, leader; /* leader: raft id, 0 when unknown */
    bool leading;
    uint64_t first, last, commit, applied, persisted;
    uint64_t snapshot_index, log_bytes;
    uint8_t hash[STATE_HASH_SIZE]; /* of the state at `applied` */
    enum err failed;               /* OK while it runs */
    char text[WHY_MAX];            /* why it failed */
    bool installing;               /* a snapshot is being received */
    bool full;                     /* the log waits for space on the disk */
    unsigned n;                    /* members */
    struct replica_member members[MEMBERS_MAX];
};
void replica_status(struct replica *r, struct replica_status *out);

#endif
