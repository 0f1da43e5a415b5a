/* The agent: what runs on every node, worker or manager, for the node's own sake. It holds a
 * session to a manager (raft/session.h), says what the node is and that it lives, and does what the
 * manager says is wanted of it (api/node/node_wire.h): takes the roots to trust, renews the
 * certificate, becomes a manager, stops being one.
 *
 * The session: a manager that is in touch with its quorum takes its own peer port, others the next
 * of the managers that they know; an attempt that fails is followed by one at the next, later each
 * time round. Each first want of a session is as current as the state was when it opened, later
 * ones only newer: so a node never acts on less than it knew. Callbacks of the session only note;
 * what is wanted is done in the loop's check phase (agent_step).
 *
 * The certificate: renewed at a random 50-80 % of its life, and at once when another issuer, role,
 * validity or address calls for it. A renewal that fails is tried again after 5 s, twice as long
 * each time up to an hour, but never later than the certificate's end. Past its end the node proves
 * its old key and waits until it is let in again (JOIN_EXPIRED), for one new key, which is what an
 * operator approves; a restart makes another one. When no manager is found that is in touch with a
 * leader, as after a long time off, a manager signs its old key anew with the signing key of its
 * keyring, for this run only: it lets the managers find each other, however far apart they come
 * back, and then they renew in order, at once. */
#ifndef CONCLAVE_AGENT_H
#define CONCLAVE_AGENT_H

#include "api/node/node_wire.h"
#include "raft/session.h"

struct manager;
struct asking;

struct agent {
    struct uplink *uplink;              /* the session or an attempt at one; NULL: none */
    char address[ADDRESS_MAX];          /* whom it is with */
    bool open;                          /* it is a session */
    bool own;                           /* with ourselves */
    bool ended;                         /* it is to be freed in the next step */
    bool again;                         /* the node has another certificate to be seen with */
    unsigned freeing;                   /* uplinks that are not gone yet */
    void (*stopped)(struct manager *m); /* called when none is left; NULL: nobody waits */
    unsigned at;                        /* of the managers, whom to try next */
    unsigned failures;                  /* attempts in a row */
    uint64_t next_ms;                   /* no attempt before */
    uint64_t said_ms, heard_ms;         /* the last message each way */
    uint64_t sequence;                  /* of beats */
    bool due;                           /* agent_step has something to do */
    bool wanted;                        /* `want` is there; its root_pem is the buffer below */
    struct node_want want;              /* the last one */
    struct buf roots;
    /* the certificate that we have, as looked at once */
    bool known;                       /* what follows is of it */
    int64_t from_s, to_s, renew_s;    /* its life; when it is due */
    uint8_t issuer[NODE_DIGEST_SIZE]; /* the key that signed it */
    enum node_role role;              /* that it says */
    uint64_t validity_tried_s;        /* a wanted validity that was followed already */
    uint64_t ask_ms;                  /* no question before */
    uint64_t wait_ms;                 /* the next pause after a failure; 0: none failed */
    bool pending;                     /* a manager has to approve */
    bool alone;                       /* no manager has judged a question since the start */
    bool extended;                    /* the certificate is signed by ourselves, for this run */
    struct secret *return_key;        /* with which it asks to come back; NULL: it does not */
    uint64_t started_ms;              /* of the agent */
    bool leaving;                     /* NODE_LEAVE was said */
    uint64_t leaving_ms;              /* the end of patience with it */
    void (*left)(struct manager *m);  /* a manager knows, or none answered */
    char trouble[WHY_MAX];            /* what keeps it from a session or a certificate */
};

void agent_start(struct manager *m); /* the node has become a manager or a worker */
/* Ends the session; `stopped` is called later, also when there was none. */
void agent_stop(struct manager *m, void (*stopped)(struct manager *m));
void agent_beat(struct manager *m); /* every BEAT_MS */
void agent_step(struct manager *m); /* in the check phase */
void agent_wake(struct manager *m); /* agent_step soon */
/* Takes a want as if a session had brought it; for a manager without peers. Copies. */
RESULT agent_want(struct manager *m, const struct node_want *want);
/* Tells the manager of the session that the node leaves; `left` later, in any case. */
void agent_leave(struct manager *m, void (*left)(struct manager *m));

/* --- agent_certificate.c --------------------------------------------------------------------- */

void certificate_step(struct manager *m);  /* asks for another one when it is due */
void certificate_fresh(struct manager *m); /* the identity has another one: looks at it */

#endif
