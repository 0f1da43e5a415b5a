/* What the leader does about nodes by itself (idea: nodes.h): their state follows what the managers
 * report, their granted role follows the desired one. It keeps nothing that another leader would
 * miss: a new one waits three periods before it says of anybody that he is down.
 *
 * All writes are proposals with the versions that were read, so a leader that is none any more, or
 * has read something old, changes nothing. At most one is under way. */
#ifndef CONCLAVE_ROLES_H
#define CONCLAVE_ROLES_H

#include "api/manager.h"
#include "store/node.h"

#define NODE_LEFT "node left" /* message of a row */
/* First bytes of replica calls; those of admin.h and leases.h are below. */
#define NODES_CALL  65 /* a request of nodes.h: nodes.c */
#define REPORT_CALL 66 /* u8, then node ids of 25 bytes each: held by the caller */
#define VAULT_CALL  67 /* a member asks for cluster keys: vault.c */
#define TASKS_CALL  68 /* u8, then task reports (assign_wire.h): scheduler.c */

RESULT roles_open(struct manager *m); /* with the store; ERR_NOMEM */
void roles_close(struct manager *m);
void roles_led(struct manager *m);  /* who leads has changed */
void roles_beat(struct manager *m); /* every BEAT_MS */
void roles_step(struct manager *m); /* in the check phase */
void roles_wake(struct manager *m); /* a step soon */
void roles_row(struct manager *m, const struct row *before, const struct row *after);
void roles_restored(struct manager *m); /* the whole state is another one */
void roles_report(struct manager *m, struct span request, struct reply *reply);
RESULT roles_report_start(struct buf *request);
RESULT roles_report_add(struct buf *request, const char *id);

/* Appends a change of a node's row; REPLACE and REMOVE of the version in `row`. `node` is not
 * looked at for REMOVE. */
RESULT node_change_add(struct buf *changes, enum row_action action, const struct row *row,
                       const struct node_row *node);
/* An OP_ROWS of these changes, encoded into w->command. */
RESULT rows_command(struct manager *m, const struct buf *changes, unsigned n, struct write *w);

/* --- nodes.c --------------------------------------------------------------------------------- */

void nodes_call(struct manager *m, struct span request, struct reply *reply);
void nodes_step(struct manager *m); /* requests, as leader */
void nodes_stop(struct manager *m);
bool nodes_forced(const struct manager *m, const char *id); /* a request insists */

#endif
