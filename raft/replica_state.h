/* The state of a replica, and who owns which part of it; replica_internal.h has the functions. */
#ifndef CONCLAVE_REPLICA_STATE_H
#define CONCLAVE_REPLICA_STATE_H

#include "raft/ballot.h"
#include "raft/journal.h"
#include "raft/pace.h"
#include "raft/replica.h"
#include "raft/wire.h"

#define HASH_EVERY         64  /* a state hash is kept at every 64th index */
#define HASHES_KEPT        64  /* of them */
#define CONFIGURATIONS_MAX 256 /* committed configurations remembered above the snapshot */
#define HOUSEKEEPING_MS    20 /* deadlines and polls are looked at this often while there are any */
#define STREAM_GIVES_UP_MS 15000 /* a snapshot on its way, without a word from the other side */
#define APPLY_BYTES_A_TURN (8 * MIB)
#define PULSES             4 /* in an election time-out, of a member that is busy: see pulse.c */

/* One entry of ours on its way to commit, with the proposals whose commands are in it, in order. */
struct batch {
    uint64_t index, term;  /* of the entry */
    uint64_t began_us;     /* when it was made */
    size_t bytes;          /* for INFLIGHT_BYTES_MAX */
    struct proposal *head; /* its proposals */
    struct batch *next;
};

struct queue { /* of proposals, in order */
    struct proposal *head, **tail;
    size_t n, bytes;
};

/* A committed configuration, for the metadata of snapshots. */
struct conf_item {
    uint64_t index;   /* of the CHANGE */
    struct buf bytes; /* encoded */
};

struct hash_item {
    uint64_t index; /* 0: unused */
    uint8_t hash[STATE_HASH_SIZE];
};

/* What this member knows of another one. */
struct peer_state {
    uint64_t id;
    uint64_t pong_seq; /* highest read round confirmed in our term */
    uint64_t pong_ms;  /* when it was last heard */
    struct appends {
        uint64_t term;       /* of ours; in another one the rest is void */
        uint64_t from, sent; /* entries that went out, one after the other; sent 0: none */
        uint64_t sent_term;  /* of the last of them */
        uint64_t match;      /* what the engine knows it to have */
        uint64_t moved_ms;   /* when that last rose, or nothing was under way */
        uint64_t told;       /* the commit index that it was last told */
        uint64_t awaited;    /* the one that a client of its waits for */
        uint64_t untold;     /* a later one, which it could be told... */
        uint64_t untold_ms;  /* ...since then; void once told >= untold */
    } appends;
    struct wire_append said; /* the last one that went out, without its entries; term 0: none */
    struct stream *stream;   /* a snapshot on its way to it; NULL: none */
};

struct taking;    /* a snapshot being written: snapshots.c */
struct receiving; /* a snapshot being received: install.c */

struct replica {
    struct replica_env env;
    struct replica_config config;
    struct guard *guard;
    struct ballot *ballot;
    struct journal log;
    struct snapshot_options files; /* for snapshot_* */

    enum err failed;            /* OK while it runs */
    struct why why;             /* the reason */
    bool failure_told, closing; /* env.failed was called; replica_close was */
    bool settling;              /* replica_settle is on the stack */
    void (*closed)(void *ctx);
    void *closed_ctx;

    uint64_t now_ms;                            /* of the event in progress */
    uint64_t armed_ms;                          /* what env.arm was last told */
    uint64_t term, leader;                      /* what env.leader was last told */
    bool leading;                               /* leader in `term` */
    uint64_t commit, applied;                   /* commit: own maximum */
    uint64_t conf_seen;                         /* entries up to here were looked at for a CHANGE */
    struct conf_item confs[CONFIGURATIONS_MAX]; /* ascending */
    unsigned confs_n;
    struct hash_item hashes[HASHES_KEPT];
    struct buf result; /* scratch: of the command being applied */

    struct {                                    /* pulse.c */
        struct raft_append_entries_result said; /* our last one to `to`; term 0: none */
        uint64_t to;
        uint64_t last_ms; /* when the last pulse went out, or the event in progress began */
    } pulse;

    struct { /* what the engine is being stepped with */
        struct entry *const *entries;
        uint64_t first; /* index of entries[0] */
        unsigned n;
    } step;
    struct queue inbox;                    /* proposals not yet in an entry */
    struct batch *batches, **batches_tail; /* ours, not yet committed; ascending */
    size_t inflight_bytes;
    uint64_t submitted_ms;                      /* when the last of them was made */
    struct queue forwarded;                     /* proposals that the leader was sent */
    struct answered *answered, **answered_tail; /* what it has applied of them and we have not */
    size_t answered_n;                          /* of those */
    struct call *calls;    /* calls that the leader was sent, and those without a leader yet */
    struct reply *replies; /* out with env.call's owner */
    uint64_t next_id;      /* of forwards */

    struct reads {
        struct read *waiting, **waiting_tail; /* not yet in a round */
        struct read *pinged, **pinged_tail;   /* in a round, seq ascending */
        struct read *ready, **ready_tail;     /* confirmed: wait for applied >= index */
        struct remote_read *remote;           /* of other members */
        size_t n;
        uint64_t seq;        /* last round */
        uint64_t forward_id; /* our question to the leader; 0: none */
        uint64_t forward_ms; /* when it was asked */
        uint64_t forward_to; /* whom: nobody else's answer counts */
        uint64_t ping_ms;    /* when the last PING went out */
    } reads;

    struct peer_state peers[MEMBERS_MAX];
    unsigned peers_n;
    uint64_t tell_ms;          /* when the next of them is to be told of a commit; 0: none */
    struct change *change;     /* under way; NULL: none */
    bool change_catching_up;   /* waits for raft_catch_up */
    uint64_t change_term;      /* term of its entry */
    uint64_t promoting;        /* standby that is being caught up by itself; 0: none */
    uint64_t promote_after_ms; /* not before */

    struct taking *taking;
    struct receiving *receiving;
    struct pace pace;              /* of the streams to others */
    uint64_t snapshot_index;       /* newest durable snapshot; 0: none */
    uint64_t snapshot_size;        /* bytes of its file */
    uint64_t snapshot_raw;         /* bytes of the state in it, before compression */
    uint32_t snapshot_generation;  /* DEK that it is under */
    uint64_t snapshot_retry_ms;    /* no earlier try */
    uint64_t bytes_since_snapshot; /* entry bytes applied since */
    struct {                       /* one request for a snapshot from outside */
        bool wanted;
        void (*done)(void *ctx, enum err e, uint64_t index);
        void *ctx;
    } ask;
    struct { /* replica_reseal under way */
        bool wanted, rolled;
        uint64_t above; /* a snapshot at or past it frees the old segments; 0: not known yet */
        void (*done)(void *ctx, enum err e);
        void *ctx;
        struct proposal nudge; /* an empty command that moves the log on */
        bool nudged;
    } reseal;
};

#endif
