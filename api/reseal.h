/* Another data key for this node, and all of its files sealed anew under it (replica_reseal), one
 * at a time: asked for by `conclave key rotate`, and due by itself when the cluster's lock has
 * another key, so that whoever had the old one and a copy of the disk can read nothing that comes
 * later. That a re-seal is due stands in the keyring, which holds more than one data key until it
 * is over: the beat starts it, also after a restart in between, and again after a failure. */
#ifndef CONCLAVE_RESEAL_H
#define CONCLAVE_RESEAL_H

#include "crypto/base.h"

struct manager;

struct reseal {                          /* zeroed: nothing is going on */
    bool running;                        /* under way */
    uint64_t after_ms;                   /* it has failed: not earlier than this by itself */
    void (*done)(void *ctx, enum err e); /* who waits for it; NULL: nobody */
    void *ctx;                           /* of whoever waits */
};

/* With a new data key. ERR_BUSY: it is under way already. `done` later, when it is OK. */
RESULT reseal_start(struct manager *m, void (*done)(void *ctx, enum err e), void *ctx,
                    struct why *why);
void reseal_again(struct manager *m); /* the keyring has another data key: what runs starts over */
void reseal_beat(struct manager *m);  /* starts what is due */
void reseal_stop(struct manager *m);  /* the replica is no more */

#endif
