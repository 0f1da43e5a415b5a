/* The leases' time on a running manager. The leader keeps their deadlines (store/lessor.h) and
 * proposes the revocation of those that have run out; questions about time, from any member, go
 * to the leader, all of one loop turn in one call.
 *
 *   leads: linearizable read of the new term -> lessor_lead -> ticks -> revocations
 *   ask:   leases_ask -> (turn) call -> leader: linearizable read -> lessor -> answer -> done
 *
 * The read makes sure that who answers still leads after the question came, and has applied all
 * that was acknowledged before: what it promises, no revocation of another leader can break, since
 * that one gives each lease its whole time when it begins. All keep-alives that the leader gets in
 * a turn share one round of the read. A revocation is proposed to happen under this leader or not
 * at all (proposal.here).
 *
 * Everything on the loop; no callback fires inside leases_ask. */
#ifndef CONCLAVE_LEASES_H
#define CONCLAVE_LEASES_H

#include <uv.h>

#include "raft/replica.h"
#include "store/lessor.h"

struct manager;
struct lease_round;

#define LEASE_TTL_MIN_S                                                                            \
    ((3 * ELECTION_TIMEOUT_MS / 2 + 999) / 1000) /* etcd's rule: 1.5 elections */
#define LEASE_TTL_MIN_MS 100                     /* of a TTL given in milliseconds: one tick */
#define LEASE_ASKS_MAX   65536                   /* questions waiting; past it ERR_BUSY */
#define LEASE_CALL_MAX   8192                    /* questions in one call */
#define LEASE_CALL       64                      /* first byte of the call; admin.c's are below */
#define REVOKING_MAX     1024                    /* revocations under way at once */

/* A question about a lease's time. Memory is the caller's until done. */
struct lease_ask {
    uint64_t id;                                   /* the lease */
    bool renew;                                    /* give it its whole time again */
    void (*done)(struct lease_ask *a, enum err e); /* OK, ERR_LEASE_NOT_FOUND, ERR_TIMEOUT, ... */
    void *ctx;                                     /* the caller's */
    uint64_t deadline_ms;                          /* 0: PROPOSAL_TIMEOUT_MS from now */
    uint64_t ttl_ms;                               /* answer: granted */
    uint64_t left_ms;                              /* answer: what remains; renewed: all */
    struct lease_ask *next;                        /* ours */
};
RESULT leases_ask(struct manager *m, struct lease_ask *a); /* ERR_BUSY, ERR_CLOSED: no done */

/* --- the manager's part --- */

struct lease_clock {
    struct lessor *lessor;         /* deadlines, while we lead */
    uv_timer_t timer;              /* the next tick */
    uint64_t term;                 /* in which `read` was asked */
    struct read read;              /* after it we may lead */
    bool reading;                  /* it is under way */
    bool lead;                     /* we lead, but the lessor does not yet */
    bool again;                    /* something is to be done, or to be tried again */
    bool stopped;                  /* no more questions */
    struct lease_ask *asks, **end; /* not yet in a call */
    unsigned n;                    /* questions, those in calls included */
    unsigned revoking;             /* revocations under way */
};

RESULT leases_open(struct manager *m); /* with the store */
void leases_stop(struct manager *m);   /* the replica is about to end: ends what waits */
void leases_closed(struct manager *m); /* it has ended */
void leases_led(struct manager *m);    /* who leads has changed */
void leases_step(struct manager *m);   /* in the check phase, before the replica's turn */
/* A command about leases was applied. */
void leases_applied(struct manager *m, struct span command);
/* A member's questions; the reply is ours. */
void leases_call(struct manager *m, struct span request, struct reply *reply);

#endif
