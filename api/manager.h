/* One running manager: the data directory, the keys, the replica, the store and the peers, on one
 * libuv loop. It knows no HTTP and no command line; server handlers and the embedded library stand
 * on it.
 *
 *   empty ----> joining --> running --> leaving --> empty      init: from empty to running at once
 *     \-> locked ------------^ |  ^ \--> stopping --> closed    failed: the replica stopped itself;
 *                   demoted    v  |   promoted                 only close
 *                             worker --> leaving, stopping
 *
 * Invariant: replica, peers, store and execs are there in running and on the way out of it, and
 * only there. A worker has keys, identity and its agent (agent.h), nothing else.
 * Everything is called from the loop; no callback fires inside the call that submitted it. */
#ifndef CONCLAVE_MANAGER_H
#define CONCLAVE_MANAGER_H

#include <sodium.h>
#include <uv.h>

#include "api/leases.h"
#include "api/log.h"
#include "api/manager_config.h"
#include "api/node/agent.h"
#include "api/node/credentials.h"
#include "api/node/guesses.h"
#include "api/node/identity.h"
#include "api/reseal.h"
#include "api/throttle.h"
#include "api/timed_disk.h"
#include "raft/exec.h"
#include "raft/peer.h"
#include "raft/replica.h"
#include "store/command.h"
#include "store/store.h"

enum manager_state {
    MANAGER_EMPTY,   /* waits for init or join */
    MANAGER_JOINING, /* asks a member for admission */
    MANAGER_LOCKED,  /* waits for the keyring's key */
    MANAGER_RUNNING,
    MANAGER_WORKER,  /* a node without a replica: keys, identity and the agent, nothing else */
    MANAGER_LEAVING, /* removed from the cluster, wiping */
    MANAGER_STOPPING,
    MANAGER_FAILED,
};
const char *manager_state_name(enum manager_state s);

struct manager;

/* A write of one encoded command. Memory is the caller's until done. */
struct write {
    struct proposal proposal; /* the replica's */
    struct buf command;       /* encoded; wiped before done is called */
    void (*done)(struct write *w, enum err e, const char *text,
                 const struct result *r); /* r: when e is OK */
    void *ctx;                            /* the caller's */
};

/* Work in steps, one a loop turn, for what would hold up the loop in one go. The owner's memory;
 * `step` returns false when it is over, and may have freed it then. */
struct chore {
    bool (*step)(struct chore *j);
    struct chore *next; /* the manager's */
};

struct manager_op;
typedef void manager_done(void *ctx, enum err e, const char *text);

struct admission;
struct admit_batch;
struct authority;
struct asking;
struct member_op;
struct node_request;
struct roles;
struct sessions;
struct vault;
struct audits;
struct scheduler;
struct assigns;
struct runner;

struct manager {
    struct manager_config config;
    enum manager_state state;
    char reason[WHY_MAX];         /* why it is locked or failed */
    enum err error;               /* of the failure */
    struct disk *disk;            /* open and locked for the manager's whole life */
    struct disk_times disk_times; /* how long it takes; for metrics */
    struct keyring *keys;         /* NULL: empty or locked */
    struct node_identity self;    /* empty without keys */
    struct secret *unlock_key;    /* the keyring's present KEK when autolock's key seals it */
    struct reseal reseal;         /* another data key (reseal.h) */
    struct throttle unlocking;    /* wrong keys, while it is locked */
    struct own_ca own_ca;         /* of manager_own_ca, until the next init */
    struct clock clock;
    struct exec *log_exec, *snapshot_exec;
    struct store *store;
    struct machine machine; /* the store's, watched for changes of the cluster's own state */
    struct replica_env env;
    struct replica_config raft;
    struct replica *replica;
    struct peers *peers;
    uv_idle_t idle;                /* keeps the loop from sleeping while a turn is due */
    uv_check_t check;              /* runs the turn, once for all that one poll brought */
    uv_timer_t timer;              /* the replica's */
    uv_timer_t beat;               /* housekeeping, BEAT_MS */
    uint64_t armed_ms;             /* when the timer is to fire */
    unsigned beats;                /* of the housekeeping so far */
    struct asking *asking;         /* a question for a certificate; NULL: none (ask.h) */
    struct agent agent;            /* the node's own (agent.h) */
    struct sessions *sessions;     /* of nodes with this manager; NULL: no replica */
    struct roles *roles;           /* what the leader keeps of the nodes; the same */
    struct authority *authority;   /* rotations, as leader; NULL: none was seen */
    struct vault *vault;           /* the cluster keys (vault.h); the same */
    struct scheduler *scheduler;   /* services, as leader (scheduler.h); the same */
    struct assigns *assigns;       /* what the held nodes are told to run (assign.h); the same */
    struct audits *audits;         /* heads of the audit, as leader (audit.h); the same */
    struct runner *runner;         /* what this node runs (runner.h); NULL: no agent */
    unsigned signings;             /* questions to an external CA under way (cfssl.h) */
    unsigned asking_drivers;       /* questions to secrets' drivers under way (driver.h) */
    struct node_request *requests; /* what was asked of nodes, as leader (nodes.c) */
    bool ops;                      /* admissions or membership changes can go on */
    struct chore *chores;          /* one step of each every turn */
    bool turn, dirty;              /* a turn is due; the cluster's own state may have changed */
    bool stack_wiped;              /* it is to be, at the end of this turn */
    uint64_t leader;               /* raft id; 0: nobody */
    uint64_t term;                 /* of the last word about who leads */
    uint64_t led_since_ms;         /* when that became so */
    unsigned peers_n;              /* rows given to peers */
    struct node peers_rows[NODES_MAX];  /* the same, to find what changed */
    struct lease_clock leases;          /* their time (leases.h) */
    bool writing;                       /* a command of the manager's own is under way (table.c) */
    struct write own;                   /* that command */
    bool current_once;                  /* the state has been known to be current */
    bool reviewing;                     /* open connections are judged, not new ones */
    bool reading;                       /* the read below is under way */
    struct read current;                /* after it the table is known to be current (table.c) */
    struct admission *admissions;       /* who wants a certificate, as leader (admit.h) */
    struct admit_batch *admit_batch;    /* their rows on the way into the log; NULL: none */
    struct member_op *member_ops;       /* membership changes under way as leader (admin.c) */
    struct guesses guesses;             /* wrong join tokens lately (guesses.h) */
    int handles;                        /* of ours on the loop */
    void (*stopped)(struct manager *m); /* what follows once everything is down */
    bool leave_forced;                  /* a leave goes on without a quorum, too */
    manager_done *done;                 /* of the init, join or leave under way */
    void *done_ctx;
    void (*closed)(void *ctx); /* of manager_close */
    void *closed_ctx;
};

/* Opens and locks the directory. On failure *out is NULL, or a manager that is only to be closed.
 * Takes over config->kek in both cases. */
RESULT manager_new(const struct manager_config *config, struct manager **out, struct why *why);
/* Starts what can be started: running, locked, or empty. Blocking (loads snapshot and log). */
RESULT manager_open(struct manager *m, struct why *why);
/* Hands leadership over when it has it, finishes what is under way, frees all. */
void manager_close(struct manager *m, void (*closed)(void *ctx), void *ctx);

/* Founds a cluster; done when its first commands are applied. `autolock`: an unlock key is made
 * too. Only when empty. The token's secret and the unlock key are then in m->self until
 * manager_founded. */
RESULT manager_init(struct manager *m, bool autolock, manager_done *done, void *ctx,
                    struct why *why);
/* The CA of the cluster that manager_init is to found: its chain, the signing one first, and that
 * one's key. ERR_INVALID, ERR_CERTIFICATE. When empty; forgotten with the next init. */
RESULT manager_own_ca(struct manager *m, struct span chain_pem, const struct secret *key,
                      struct why *why);
/* Joins through `address`; done when admitted and running, as a standby at first. When empty. */
RESULT manager_join(struct manager *m, const char *address, const char *token, manager_done *done,
                    void *ctx, struct why *why);
/* ERR_WRONG_KEY is counted; after some of them ERR_BUSY, for a while (throttle.h). */
RESULT manager_unlock(struct manager *m, const struct secret *key, enum kek_kind kind,
                      struct why *why);
/* Stops and wipes; empty after. Running or a worker; nodes_leave tells the cluster before. */
RESULT manager_wipe(struct manager *m, manager_done *done, void *ctx, struct why *why);
/* After a lost quorum: becomes the only manager, of what its log has; done when it leads. */
RESULT manager_recover(struct manager *m, manager_done *done, void *ctx, struct why *why);
/* A locked node gives up what it can't open: empty at once. Its cluster is told nothing. */
RESULT manager_abandon(struct manager *m, struct why *why);

/* OK when running; otherwise the error that a request gets, with a sentence. */
RESULT manager_ready(const struct manager *m, struct why *why);
RESULT manager_write(struct manager *m, struct write *w); /* an error here: done won't fire */
void manager_chore(struct manager *m, struct chore *j);   /* its first step is in the next turn */
/* A secret has gone through this turn: what copies of it registers and locals have left on the
 * stack is zeroed at its end. */
void manager_wipe_stack(struct manager *m);
/* The reason for an error result of a proposal: its text, or the error's own. */
const char *manager_text(enum err e, struct span text, struct why *why);

#endif
