/* One member in the simulator: the real replica with everything around it. Its life is
 *
 *     OFF --start--> UP --stop--> CLOSING --closed--> OFF
 *                     |--crash, kill-----------------> OFF
 *                     `--env.failed--> FAILED --die--> OFF
 *
 * `life` counts the starts; an event or callback of an earlier life is dropped. A paused node's
 * events wait until it goes on. Its clock is the world's plus an offset that only grows. */
#ifndef CONCLAVE_TESTS_SIM_NODE_H
#define CONCLAVE_TESTS_SIM_NODE_H

#include "tests/lib/disk_sim.h"
#include "tests/sim/sim.h"

enum node_state { NODE_OFF, NODE_UP, NODE_CLOSING, NODE_FAILED };

/* A FIFO of jobs that run at simulated moments, one at a time. */
struct sim_exec {
    struct exec base;        /* first: the replica holds this */
    struct sim_node *node;   /* whose */
    struct job *head, *tail; /* waiting */
    bool running;            /* an EV_RUN is in the queue */
    uint64_t done_us;        /* the last EV_DONE's time: they keep their order */
    unsigned times;          /* a job takes this many times the plan's */
};

/* The machine that the replica drives: passes on to the store's and tells what was applied. */
struct watch {
    struct machine base;   /* first */
    struct machine *inner; /* the store's */
    struct sim_node *node; /* whose */
    uint64_t applied;      /* last index of which all is applied */
    uint64_t index;        /* the entry that is being applied */
    uint32_t ordinal;      /* its next command */
    bool restored;         /* a snapshot came in: the next index may jump */
};

struct sim_node {
    struct world *world;
    uint64_t id;   /* raft id: slot + 1 */
    uint32_t life; /* starts so far */
    enum node_state state;
    struct replica_env env;   /* what the replica gets */
    struct clock clock;       /* in env */
    struct identity identity; /* for ever */
    struct disk *disk;        /* for ever */
    struct keyring *keys;     /* while it lives, as all below */
    struct store *store;
    struct watch watch;
    struct sim_exec log_exec, snapshot_exec;
    struct replica *replica; /* NULL: none */
    uint64_t clock_us;       /* its clock is ahead of the world's by this */
    uint64_t armed_ms;       /* when it wants its tick, its own time; 0: no */
    uint64_t tick_us;        /* when the EV_TICK that counts is due, world time; 0: none */
    uint64_t tick_number;    /* its arg: an older one is void */
    uint64_t paused_us;      /* stands still until then; 0: no */
    uint64_t busy_us;        /* what the call in progress has taken of its time */
    uint64_t full_us;        /* its disk is full until then; 0: no */
    bool turn;               /* an EV_TURN is in the queue */
    bool cut;                /* a power cut is set: it dies when the disk does */
    const void *submitting;  /* what a call is handing over: its callback may not fire inside */
    bool resealing;          /* after a rotation of its keys */
    bool bootstrapped;       /* has been started once */
    bool member;             /* healing: the leader has it in its configuration */
    bool doomed;             /* its removal was asked for: it is never added again */
    bool removed;            /* is no member any more, and never will be */
    bool stopping;           /* EV_CLOSE will close it */
    uint64_t close_us;       /* when the close began */
    uint64_t off_us;         /* how long it stays off after it */
    uint64_t seen_commit, seen_term, seen_applied; /* never go back in one life */
};

struct sim_node *node_new(struct world *w); /* off, with an empty disk and new keys */
void node_free(struct sim_node *n);
void node_start(struct sim_node *n); /* OFF -> UP */
void node_drop(struct sim_node *n);  /* any -> OFF: the process ends, the disk stays as it is */
void node_power(struct sim_node *n); /* the same, and what was not synced is lost */
void node_stop(struct sim_node *n,
               uint64_t off_us);     /* clean: transfer, close; starts again after off_us */
void node_close(struct sim_node *n); /* EV_CLOSE */
void node_start_after(struct sim_node *n, uint64_t us);
void node_pause(struct sim_node *n, uint64_t us);
void node_busy(struct sim_node *n, uint64_t us); /* within an apply: it takes so long */
void node_jump(struct sim_node *n, uint64_t us); /* its clock goes forward */
void node_full(struct sim_node *n, uint64_t us);
void node_tick(struct sim_node *n, uint64_t number);   /* EV_TICK */
void node_turn(struct sim_node *n);                    /* EV_TURN */
void node_run(struct sim_node *n, struct sim_exec *x); /* EV_RUN */
void node_done(struct sim_node *n, struct job *j);     /* EV_DONE */
uint64_t node_now_ms(const struct sim_node *n);
bool node_up(const struct sim_node *n); /* running, not paused, not closing */
struct sim_node *node_by_id(struct world *w, uint64_t raft_id); /* NULL: no such */

/* Brackets of every call into a replica: after it, its status is checked, and a power cut takes
 * effect. */
void node_enter(struct sim_node *n);
void node_leave(struct sim_node *n);
bool node_leads(struct sim_node *n);

void watch_init(struct watch *s, struct sim_node *n, struct machine *inner);

#endif
