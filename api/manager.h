/* One running manager: the data directory, the keys, the replica, the store and the peers, on one
 * libuv loop. It knows no HTTP and no command line; server handlers and the embedded library stand
 * on it.
 *
 *   empty ----> joining --> running --> leaving --> empty        init goes from empty to running at
 * once
 *     \-> locked ------------^   \----> stopping --> closed      failed: the replica stopped
 * itself; only close
 *
 * Invariant: replica, peers, store and execs are there in running and leaving, and only there.
 * Everything is called from the loop; no callback fires inside the call that submitted it. */
#ifndef CONCLAVE_MANAGER_H
#define CONCLAVE_MANAGER_H

#include <sodium.h>
#include <uv.h>

#include "api/credentials.h"
#include "api/identity.h"
#include "api/log.h"
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
    MANAGER_LEAVING, /* removed from the cluster, wiping */
    MANAGER_STOPPING,
    MANAGER_FAILED,
};
const char *manager_state_name(enum manager_state s);

struct manager;

struct manager_config {
    uv_loop_t *loop;
    const struct log *log;        /* outlives the manager */
    const char *data;             /* the directory */
    char name[NAME_MAX_SIZE + 1]; /* of this node; "" with existing data: as before */
    char client[ADDRESS_MAX];     /* HOST:PORT to listen on for clients; "" as before */
    char peer[ADDRESS_MAX];       /* HOST:PORT to listen on for peers; "" as before */
    char advertise[ADDRESS_MAX];  /* HOST announced to others; "": the one of the addresses */
    bool alone;                   /* no peers at all: one embedded node */
    bool null_cipher;             /* the benchmark's only: nothing is sealed at rest */
    enum kek_kind kek_kind;       /* what seals the keyring, unless autolock's key does */
    struct secret *kek; /* passphrase or key; the manager's from manager_open on; NULL: none */
    void *ctx;          /* for the functions below */
    void (*changed)(void *ctx); /* the state, the identity or its certificate is another one */
    void (*led)(void *ctx);     /* another member leads, or nobody; may be NULL */
    void (*failed)(void *ctx, enum err e, const char *text); /* once: close it */
};

/* A write of one encoded command. Memory is the caller's until done. */
struct write {
    struct proposal proposal; /* the replica's */
    struct buf command;       /* encoded; wiped before done is called */
    void (*done)(struct write *w, enum err e, const char *text,
                 const struct result *r); /* r: when e is OK */
    void *ctx;                            /* the caller's */
};

struct manager_op;
typedef void manager_done(void *ctx, enum err e, const char *text);

struct admission;
struct member_op;

struct manager {
    struct manager_config config;
    enum manager_state state;
    char reason[WHY_MAX];      /* why it is locked or failed */
    enum err error;            /* of the failure */
    struct disk *disk;         /* open and locked for the manager's whole life */
    struct keyring *keys;      /* NULL: empty or locked */
    struct node_identity self; /* empty without keys */
    struct secret *unlock_key; /* the keyring's present KEK when autolock's key seals it */
    struct clock clock;
    struct exec *log_exec, *snapshot_exec;
    struct store *store;
    struct machine machine; /* the store's, watched for changes of the cluster's own state */
    struct replica_env env;
    struct replica_config raft;
    struct replica *replica;
    struct peers *peers;
    uv_idle_t idle;                    /* keeps the loop from sleeping while a turn is due */
    uv_check_t check;                  /* runs the turn, once for all that one poll brought */
    uv_timer_t timer;                  /* the replica's */
    uv_timer_t beat;                   /* housekeeping, BEAT_MS */
    uint64_t armed_ms;                 /* when the timer is to fire */
    unsigned beats;                    /* of the housekeeping so far */
    bool joining;                      /* a thread asks for admission */
    bool ops;                          /* admissions or membership changes can go on */
    bool turn, dirty;                  /* a turn is due; the cluster's own state may have changed */
    uint64_t leader;                   /* raft id; 0: nobody */
    uint64_t led_since_ms;             /* when that became so */
    unsigned peers_n;                  /* rows given to peers */
    struct node peers_rows[NODES_MAX]; /* the same, to find what changed */
    bool writing;                      /* a command of the manager's own is under way (table.c) */
    struct write own;                  /* that command */
    bool reading;                      /* the read below is under way */
    struct read current;               /* after it the table is known to be current (table.c) */
    struct admission *admissions;      /* newcomers, the first one is being served (admit.c) */
    struct member_op *member_ops;      /* membership changes under way as leader (admin.c) */
    unsigned wrong_tokens;             /* lately; decays with the beat */
    int handles;                       /* of ours on the loop */
    void (*stopped)(struct manager *m); /* what follows once everything is down */
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
/* Joins through `address`; done when admitted and running (as a standby at first). Only when empty.
 */
RESULT manager_join(struct manager *m, const char *address, const char *token, manager_done *done,
                    void *ctx, struct why *why);
RESULT manager_unlock(struct manager *m, const struct secret *key, enum kek_kind kind,
                      struct why *why);
/* Stops, wipes keys, log and snapshots; empty after. The cluster must have let it go before. */
RESULT manager_wipe(struct manager *m, manager_done *done, void *ctx, struct why *why);

/* OK when running; otherwise the error that a request gets, with a sentence. */
RESULT manager_ready(const struct manager *m, struct why *why);
RESULT manager_write(struct manager *m, struct write *w); /* an error here: done won't fire */
/* The reason for an error result of a proposal: its text, or the error's own. */
const char *manager_text(enum err e, struct span text, struct why *why);

/* --- between the manager's own files --------------------------------------------------------- */

RESULT manager_start(struct manager *m,
                     struct why *why); /* keys and identity are there -> running */
void manager_stop(struct manager *m,
                  void (*stopped)(struct manager *m)); /* running -> nothing runs */
void manager_set_state(struct manager *m, enum manager_state s);
void manager_undo(struct manager *m, enum err e,
                  const char *text); /* a failed init or join: empty again */
void manager_finish(struct manager *m, enum err e, const char *text); /* tells m->done, if any */
struct kek manager_kek(const struct manager *m); /* as the user wants the keyring sealed */
void manager_env(struct manager *m);             /* env.c: fills m->env, starts its handles */
void manager_env_close(struct manager *m);
RESULT manager_store_open(struct manager *m, struct why *why); /* env.c: the store, watched */
RESULT manager_peers_open(struct manager *m, struct why *why); /* env.c */
void manager_beat_start(struct manager *m);                    /* env.c: housekeeping begins */
void table_follow(struct manager *m); /* table.c: the state's rows -> peers, keys */
void table_beat(struct manager *m);
void manager_renew(struct manager *m,
                   const struct cluster *c); /* renew.c: the certificate, when due */
void manager_renew_first(struct manager *m); /* the same before anybody is reached */
void admit_request(void *ctx, struct join_connection *c,
                   const struct wire_join *request); /* admit.c */
void admit_step(struct manager *m);                  /* in the check phase */
void admit_stop(struct manager *m);
void admin_call(void *ctx, uint64_t from, struct span request, struct reply *reply); /* admin.c */
bool admin_hears(const struct manager *m, const struct replica_member *member);      /* as leader */
void admin_leader(struct manager *m); /* who leads has changed */
void admin_step(struct manager *m);   /* in the check phase */
void admin_stop(struct manager *m);

#endif
