/* A lone voter driven by hand: the real replica, store, log and keyring on a simulated disk, one
 * exec for both, time that goes on a millisecond a step. For unit tests of a whole node; the
 * simulator is for many. What must not fail here fails the test. */
#ifndef CONCLAVE_TESTS_LONE_H
#define CONCLAVE_TESTS_LONE_H

#include "raft/replica.h"
#include "store/store.h"

struct lone {
    struct disk *disk;    /* owned */
    struct keyring *keys; /* open between node_open and node_stop */
    struct store *store;  /* the same */
    struct replica *r;    /* NULL after a failed opening */
    struct clock clock;   /* of now_ms */
    uint64_t now_ms;      /* simulated */
    uint64_t armed_ms;    /* 0: not armed */
    struct exec exec;     /* both of the replica's */
    struct job *head;     /* submitted, in order */
    struct job **tail;    /* where the next one goes */
    bool turn, closed;    /* env.wake was called; replica_close is over */
    enum err failed;      /* env.failed's */
    char text[WHY_MAX];   /* its reason */
    void (*sent)(struct lone *n, uint64_t to, struct span frame); /* NULL: frames are lost */
    void *owner;                                                  /* the test's own */
    struct replica_env env;
    struct replica_config config;
};

void lone_found(struct lone *n); /* makes its files on n->disk; not open after */
/* Opens it and lets it apply all that it has. After a failure only lone_free. */
RESULT lone_open(struct lone *n, struct why *why);
void lone_reopen(struct lone *n); /* the same, and it must not fail */
void lone_stop(struct lone *n);   /* a clean stop; lone_free is done */
void lone_free(struct lone *n);   /* all but the disk, as in a crash */
bool lone_step(struct lone *n);   /* one thing that is due: a job, a turn, or the timer */
/* A key with bytes that nothing can compress (<= 8 KiB); acknowledged on return. */
void lone_put(struct lone *n, unsigned number, size_t size);
void lone_snapshot(struct lone *n); /* taken and durable on return */

#endif
