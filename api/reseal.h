/* Another data key for this node, and all of its files sealed anew under it (replica_reseal), one
 * at a time: asked for by `conclave key rotate`, and due by itself when the cluster's lock has
 * another key, so that whoever had the old one and a copy of the disk can read nothing that comes
 * later. What is due waits for its turn; the beat starts it. */
#ifndef CONCLAVE_RESEAL_H
#define CONCLAVE_RESEAL_H

#include "crypto/base.h"

struct manager;

struct reseal {                          /* zeroed: nothing is going on */
    bool running, due;                   /* under way; to be started */
    void (*done)(void *ctx, enum err e); /* who waits for it; NULL: nobody */
    void *ctx;                           /* of whoever waits */
};

/* ERR_BUSY: it is under way already. `done` later, when it is OK. */
RESULT reseal_start(struct manager *m, void (*done)(void *ctx, enum err e), void *ctx,
                    struct why *why);
void reseal_beat(struct manager *m); /* starts what is due */

#endif
