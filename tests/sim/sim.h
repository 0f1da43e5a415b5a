/* The simulator's world: a cluster of real replicas in one thread under one seed. Time is the event
 * queue's: nothing here reads a clock, starts a thread, looks at an address or iterates over
 * anything unordered, so a seed is a history, and the same seed gives the same trace hash.
 *
 *   world.c     event queue, the run of one seed: an active phase with faults, a healing phase
 *   plan.c      what a seed draws: profile, sizes, delays, which faults and how often
 *   node.c      one member: its disk, keys, store, clock, execs; start, stop, crash, pause
 *   net.c       links: delay, loss, doubles, reordering, cuts, partitions
 *   watch.c     the machine around the store that tells what was applied
 *   check.c     what must hold: terms, votes, agreement
 *   model.c     a second, naive state machine that says what each command must answer
 *   workload.c  clients: writes and reads at random members
 *   admin.c     the operator: members, transfers, snapshots, keys
 *   faults.c    what goes wrong, and the end of it
 *   entropy.c   libsodium's random numbers, from the seed
 *   main.c      command line, many seeds, figures, the ablation of guards
 *
 * A broken property is told once by sim_violate; the run ends. */
#ifndef CONCLAVE_TESTS_SIM_H
#define CONCLAVE_TESTS_SIM_H

#include "raft/replica.h"
#include "raft/wire.h"
#include "store/command.h"
#include "store/store.h"
#include "tests/sim/plan.h"
#include "tests/sim/rng.h"

#define NODES_ROOM    10 /* members in a run, the removed ones counted */
#define VIOLATION_MAX 1024
#define EVENTS_MAX    20000000ULL /* of one seed: more is a busy loop */
#define MEMORY_MAX    (512 * MIB) /* of one seed, all nodes together */

struct sim_node;
struct check;
struct model;
struct load;
struct admin;

enum event_kind {
    EV_FRAME,   /* a frame arrives: p is a struct frame */
    EV_TURN,    /* replica_turn */
    EV_TICK,    /* replica_tick */
    EV_RUN,     /* an exec takes its next job: p is the struct sim_exec */
    EV_DONE,    /* a job is done: p is the struct job */
    EV_CONNECT, /* a link to node `arg` is up again */
    EV_START,   /* a stopped node starts */
    EV_DIE,     /* a failed node's process ends */
    EV_CLOSE,   /* a clean stop goes on from transfer to close */
    EV_REPLY,   /* the operator's call gets its answer: p is a struct reply */
    EV_CLIENT,  /* client `arg` does something */
    EV_ADMIN,   /* the operator does something */
    EV_FAULT,   /* something breaks */
    EV_AMBUSH,  /* the leader is hit; arg 1: all lose their power */
    EV_MEND,    /* a lasting fault ends; arg says which */
    EV_PROBE,   /* looks at every node's status */
    EV_HEAL,    /* the active phase is over */
    EV_COUNT
};

struct event {
    uint64_t at_us, seq;   /* when; order of making among equals */
    enum event_kind kind;  /* what */
    struct sim_node *node; /* whose; NULL: the world's */
    uint32_t life;         /* of the node; another life drops the event; 0: any life */
    uint64_t arg;          /* the kind's */
    void *p;               /* the kind's; owned by EV_FRAME, EV_REPLY */
};

struct queue {
    struct event *at; /* binary heap by (at_us, seq) */
    size_t n, room;   /* in use, allocated */
    uint64_t seq;     /* given to the next event */
};

/* What happened in a run, or in many of them. */
struct figures {
    uint64_t seeds, us, events, frames, elections, crashes, stops, failures, snapshots, installs;
    uint64_t changes, transfers, rotations, proposed, acknowledged, refused, unknown, reads;
    uint64_t commands, full_disk; /* applied once in the history; refused for lack of space */
};

struct sim_options {
    unsigned nodes;   /* 1, 3, 5; 0: as the seed says */
    unsigned profile; /* enum profile + 1; 0: as the seed says */
    uint32_t without; /* guards taken away */
    bool trace;       /* print every event */
};

/* One direction of one pair of nodes. */
struct link {
    uint64_t last_us; /* the last frame's arrival, for order */
    uint64_t down_us; /* no connection before */
    size_t queued;    /* bytes on the way */
    uint32_t epoch;   /* of the connection: a cut one's frames are lost */
    bool blocked;     /* by a partition */
};

struct world {
    uint64_t seed;                             /* of it all */
    uint64_t now_us;                           /* simulated microseconds since the start */
    uint64_t trace_hash;                       /* over every event */
    struct rng rng;                            /* every decision's */
    struct queue queue;                        /* what will happen */
    struct sim_options options;                /* from the command line */
    struct plan plan;                          /* drawn from the seed */
    struct sim_node *nodes[NODES_ROOM];        /* by raft id - 1 */
    unsigned n;                                /* nodes so far */
    struct link links[NODES_ROOM][NODES_ROOM]; /* from, to */
    struct check *check;                       /* check.c's */
    struct load *load;                         /* workload.c's */
    struct admin *admin;                       /* admin.c's */
    uint64_t heal_us;                          /* when healing began; 0: not yet */
    uint64_t slow_until_us;                    /* disks are slow */
    bool grown;                                /* it has had its number of voters */
    bool over;                                 /* the run is complete */
    struct figures figures;                    /* so far */
    char violation[VIOLATION_MAX];             /* what was broken; empty: nothing */
};

/* Runs one seed from nothing to the end. False: a violation (text in `violation`). */
bool sim_run(uint64_t seed, const struct sim_options *o, struct figures *sum, uint64_t *trace_hash,
             char violation[VIOLATION_MAX]);

void sim_violate(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_mix(struct world *w, uint64_t value);                /* into the trace hash */
void sim_at(struct world *w, uint64_t at_us, struct event e); /* at_us, seq are filled in */
static inline void sim_after(struct world *w, uint64_t us, struct event e) {
    sim_at(w, w->now_us + us, e);
}
void *sim_alloc(size_t size); /* zeroed; aborts without memory */
static inline bool sim_bad(const struct world *w) { return w->violation[0] != '\0'; }

/* entropy.c. Once, before crypto_start; then with each seed. */
void entropy_replace(void);
void entropy_seed(uint64_t seed);

/* net.c */
void net_send(struct world *w, struct sim_node *from, uint64_t to, struct buf *frame);
void net_deliver(struct world *w, struct event *e);
void net_free_frame(struct world *w, struct event *e);
size_t net_queued(struct world *w, struct sim_node *from, uint64_t to);
void net_connect_all(struct world *w, struct sim_node *n); /* a node came up */
void net_cut(struct world *w, unsigned from, unsigned to); /* the connection breaks */
void net_partition(struct world *w);                       /* some random one, for a while */
void net_heal(struct world *w);                            /* all links are good */

/* check.c; model.c */
struct check *check_new(void);
void check_free(struct check *c);
void check_frame(struct world *w, struct sim_node *from, uint64_t to, struct span frame);
void check_leader(struct world *w, uint64_t term, uint64_t leader);
void check_command(struct world *w, struct sim_node *n, uint64_t index, uint32_t ordinal,
                   struct span command, struct span result);
#define COMMANDS_UNKNOWN UINT32_MAX /* the state came with a snapshot */
void check_applied(struct world *w, struct sim_node *n, uint64_t index, uint32_t commands,
                   const uint8_t hash[STATE_HASH_SIZE]);
void check_status(struct world *w, struct sim_node *n); /* after every call into the replica */
void check_state(struct world *w, struct sim_node *n);  /* the whole store against the model */
/* Is `answer` what command `ordinal` of entry `index` was answered? */
bool check_said(const struct check *c, uint64_t index, uint32_t ordinal, struct span answer);
const struct model *check_model(const struct check *c);
uint64_t check_last(const struct check *c); /* newest index that anybody applied */
uint64_t check_term(const struct check *c); /* highest term in which somebody led */

/* workload.c */
struct load *load_new(struct world *w);
void load_free(struct load *l);
void load_client(struct world *w, uint64_t client);       /* EV_CLIENT */
void load_node_gone(struct world *w, struct sim_node *n); /* its callbacks will not come */
void load_applied(struct world *w, uint64_t op, uint64_t index, uint32_t ordinal,
                  struct span result, bool effective); /* a command's first appearance */
unsigned load_waits(const struct world *w,
                    const struct sim_node *n); /* outcomes that it, or (NULL) all owe */
void load_finish(struct world *w);             /* a last write and read at every member */
bool load_finished(struct world *w);           /* they went well */

/* admin.c */
struct admin *admin_new(void);
void admin_free(struct admin *a);
void admin_act(struct world *w); /* EV_ADMIN */
void admin_call(struct world *w, struct sim_node *n, uint64_t from, struct span request,
                struct reply *reply);                                      /* env.call */
void admin_reply(struct sim_node *n, struct reply *reply, uint64_t nonce); /* EV_REPLY */
void admin_node_gone(struct world *w, struct sim_node *n);
#define GHOST_ID (NODES_ROOM + 7)   /* a standby that does not exist, for admin_finish */
bool admin_finish(struct world *w); /* every voter leads and changes something */
bool admin_busy(struct world *w);   /* a change is under way */
struct sim_node *admin_leader(struct world *w); /* who leads in the highest term; NULL */

/* faults.c */
void faults_act(struct world *w);                   /* EV_FAULT */
void faults_ambush(struct world *w, bool all);      /* EV_AMBUSH */
void faults_mend(struct world *w, struct event *e); /* EV_MEND */
void faults_heal(struct world *w);                  /* EV_HEAL */
void faults_explain(struct world *w);               /* violates: it takes too long */
bool faults_healed(struct world *w);                /* EV_PROBE: the cluster is as it should be */

#endif
