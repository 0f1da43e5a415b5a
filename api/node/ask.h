/* Asking a manager's peer port for a certificate (raft/peer.h, join_request), away from the loop:
 * it blocks for seconds, so it has a thread of its own. At most one question a node at a time.
 *
 * A question comes with a new key, but for one to come back (agent.h), which keeps its key; the
 * answer is checked here (the certificate is for that key, of the roots that came with it, for the
 * node and cluster that it says), and given to `done` on the loop. Addresses are tried one after
 * the other until one of them gives an answer.
 *
 * Close: a question can't be called back. ask_forget lets its answer go nowhere, and no further
 * address be tried; the loop lives until m->asking is NULL. */
#ifndef CONCLAVE_ASK_H
#define CONCLAVE_ASK_H

#include <stdatomic.h>

#include "api/manager.h"

struct asking {
    struct job job;    /* the one of exec */
    struct exec *exec; /* a thread for it alone */
    struct manager *manager;
    unsigned n;                                   /* addresses */
    char addresses[MEMBERS_MAX + 1][ADDRESS_MAX]; /* of managers, the first one first */
    char digest[ROOT_DIGEST_TEXT];                /* of the token; "": we know the roots */
    struct wire_join request;                     /* its spans are the buffers below */
    struct buf csr, root, cert, proof;            /* what we have and say */
    struct secret *old_key;                       /* of cert */
    struct secret *key;                           /* the new one; `done` may take it */
    struct wire_joined answer;                    /* spans into memory; only when error is OK */
    struct buf memory;
    uint64_t timeout_ms;   /* of each address */
    atomic_bool forgotten; /* no further address is tried */
    enum err error;
    bool heard; /* a manager in touch with its quorum has judged it */
    struct why why;
    void (*done)(struct asking *a); /* on the loop; NULL: forgotten */
};

/* Fills what all questions have in common: key, request, names and addresses of m->self. */
RESULT ask_new(struct manager *m, enum join_kind kind, struct asking **out, struct why *why);
/* Adds an address, unless it is there. */
void ask_at(struct asking *a, const char *address);
/* Takes over `a`, also when it fails: `done` is not called then. ERR_BUSY: another one is under
 * way. */
RESULT ask_start(struct asking *a, void (*done)(struct asking *a), struct why *why);
void ask_forget(struct manager *m);
/* Puts the answer in place of what `self` has, but for its role, and into the keyring first, unless
 * that is NULL: there is none yet. On failure all is as it was. */
RESULT ask_take(struct asking *a, struct node_identity *self, struct keyring *keys,
                struct why *why);
void ask_free(struct asking *a);

#endif
