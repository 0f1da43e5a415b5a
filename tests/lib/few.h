/* A few members driven by hand, none of which keeps a log behind a snapshot: real replicas, stores,
 * logs and keyrings on simulated disks, with links that can be closed one way, frames that can be
 * lost one by one, and execs that can be held. Time goes on a millisecond a step. For tests whose
 * steps have an order; the simulator is for all others. What must not fail here fails the test. */
#ifndef CONCLAVE_TESTS_FEW_H
#define CONCLAVE_TESTS_FEW_H

#include "raft/replica.h"
#include "store/store.h"

#define FEW_MAX 4

struct few_exec {
    struct exec exec;  /* first */
    struct job *head;  /* submitted, in order */
    struct job **tail; /* where the next one goes */
    bool held;         /* nothing runs */
};

struct few_node {
    struct few *all;
    uint64_t id; /* raft id */
    struct disk *disk;
    struct keyring *keys; /* open while it is up, as all below */
    struct store *store;
    struct replica *r;    /* NULL: it is down */
    struct few_exec log;  /* appends */
    struct few_exec side; /* snapshots, pre-writing */
    uint64_t armed_ms;    /* 0: not armed */
    bool turn;            /* env.wake was called */
    struct clock clock;   /* of all->now_ms */
    struct replica_env env;
    struct replica_config config;
};

struct few_frame {
    unsigned from, to; /* slots */
    struct buf bytes;
    struct few_frame *next;
};

struct few {
    struct few_node at[FEW_MAX];
    unsigned n;
    uint64_t now_ms;
    bool closed[FEW_MAX][FEW_MAX]; /* the link from, to: frames are lost, and the sender knows */
    bool (*lose)(uint64_t to, struct span frame); /* NULL: none is lost but on closed links */
    struct few_frame *first, **last;              /* on their way */
    uint64_t segment_size;                        /* of members that are opened from now on */
};

struct few_write {
    struct proposal p;
    struct buf bytes; /* of the command */
    bool done;
    enum err error;
};

void few_start(struct few *all); /* member 1 founds it and leads */
void few_end(struct few *all);
struct few_node *few_join(struct few *all, uint64_t id); /* a voter on return */
void few_open(struct few_node *n);                       /* from its files */
void few_crash(struct few_node *n);
void few_recover(struct few_node *n); /* after a crash: its files make it the only member */
void few_step(struct few *all);
/* Steps until it holds; false: not within `ms`. */
bool few_until(struct few *all, uint64_t ms, bool (*holds)(void *ctx), void *ctx);
void few_pass(struct few *all, uint64_t ms);    /* lets time go by */
void few_part(struct few_node *n, bool closed); /* all links from and to it */
void few_link(struct few_node *from, struct few_node *to, bool closed);
struct few_node *few_leader(struct few *all); /* waits for one with all links open */
struct replica_status few_status(struct few_node *n);

/* A value of that size, which is kept the first time only. */
void few_write(struct few_node *n, struct few_write *w, size_t size);
enum err few_put(struct few_node *n, size_t size); /* the same; waits for the outcome */
enum err few_read(struct few_node *n);
enum err few_snapshot(struct few_node *n);
void few_change(struct few_node *leader, enum change_kind kind, uint64_t id); /* done on return */

#endif
