/* The nodes of the cluster, managers and workers, as the managers keep them. Three things:
 *
 * - What an operator asks of a node (below): every manager takes it, the leader judges it (the
 *   last manager stays, the quorum is not lost, a node is not removed while it runs) and writes
 *   the row; the asker hears the verdict.
 * - What the leader does by itself: `granted` follows `desired` (a member of the quorum is added
 *   by its own request, admit.c, and taken away here), READY and DOWN follow what the sessions
 *   hear, and a node's word on itself is written when it has changed. Only changes are written.
 * - What any manager may want to know of a node beside its row.
 *
 *   desired manager: WANT says so -> the node renews -> asks to be a member -> granted manager
 *   desired worker, granted manager: (hands over) -> member removed -> granted worker
 *
 * Answers to a request: `done` is called once, later, when the function gave OK; never when it
 * gave an error. ERR_NOT_MANAGER on a worker. */
#ifndef CONCLAVE_NODES_H
#define CONCLAVE_NODES_H

#include "api/manager.h"
#include "store/node.h"

/* What an operator sets of a node, all of it together. */
struct node_spec {
    struct span name;    /* empty: none; else unique */
    enum node_role role; /* desired */
    enum node_availability availability;
    struct span labels; /* as in a row (node.h) */
};
void nodes_spec(const struct row *row, const struct node_row *n, struct node_spec *out);

/* Puts the spec in place of the one in the row's `version` (0: whichever it is). A changed role is
 * a promotion or a demotion and obeys their guards: ERR_PRECONDITION with a sentence for the last
 * manager, and where the quorum would be lost (`force`: only the last manager is sacred). Done when
 * it is written; the node follows. ERR_CONFLICT: another version. ERR_NOT_FOUND. ERR_EXISTS: the
 * name. Copies what it needs. */
RESULT nodes_update(struct manager *m, const char *id, uint64_t version,
                    const struct node_spec *spec, bool force, manager_done *done, void *ctx,
                    struct why *why);
/* The same for the role alone; OK as well when it is that already. */
RESULT nodes_role(struct manager *m, const char *id, enum node_role role, bool force,
                  manager_done *done, void *ctx, struct why *why);
/* Removes the node: its certificate is refused from then on, its connections are cut. A manager
 * has to be demoted before, and a node that is not DOWN has to be forced: ERR_PRECONDITION.
 * `force` with a manager: it is taken out of the quorum first, unless that would be lost. */
RESULT nodes_remove(struct manager *m, const char *id, bool force, manager_done *done, void *ctx,
                    struct why *why);
/* Lets a node come back whose certificate ran out and which asks for another one
 * (NODE_CERT_PENDING). ERR_PRECONDITION: it does not. */
RESULT nodes_approve(struct manager *m, const char *id, manager_done *done, void *ctx,
                     struct why *why);
/* Asks a node to renew its certificate now. */
RESULT nodes_renew(struct manager *m, const char *id, manager_done *done, void *ctx,
                   struct why *why);

/* This node leaves its cluster and wipes what it has of it; empty when done(OK). A worker tells a
 * manager, if one answers within a moment. A manager leaves the quorum first: ERR_PRECONDITION
 * when that would be lost or it is the last one, unless `force`. Its row stays, DOWN. */
RESULT nodes_leave(struct manager *m, bool force, manager_done *done, void *ctx, struct why *why);

/* This node, if it was leaving, has become a worker meanwhile: it goes on as one. */
void nodes_leave_on(struct manager *m);

/* --- beside the row --------------------------------------------------------------------------- */

/* A member of the quorum, as docker's ManagerStatus tells it. */
struct node_member {
    bool member;    /* of the quorum; else the rest is false */
    bool leader;    /* it leads */
    bool reachable; /* this manager is connected to it, or is it */
};
void nodes_member(const struct manager *m, const struct node_row *n, struct node_member *out);

/* This node as it sees itself; for /info and status, on managers and workers. */
struct node_self {
    enum node_role role;       /* as it runs now */
    bool connected;            /* to the manager below */
    char manager[ADDRESS_MAX]; /* that it has its session with; "" none */
    bool pending;              /* its certificate ran out and it waits for an approval */
    char trouble[WHY_MAX];     /* what keeps it from a session or a certificate; "" nothing */
};
void nodes_self(const struct manager *m, struct node_self *out);

#endif
