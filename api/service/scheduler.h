/* What the leader does about services by itself: it makes the tasks that a service wants, places
 * each on an active, ready node that meets the constraints and has the fewest (of the service
 * first, then of all), replaces those whose node is DOWN, drained or gone, restarts what has ended
 * as the restart policy says, replaces tasks of an older spec one after another (a new one runs
 * before the next old one ends), ends what is too much, and removes old ended ones
 * (spec_task_history a slot). The nodes' words on their tasks (assign.h hands them in) are written
 * here, batched.
 *
 * It keeps nothing that another leader would miss: all follows from rows. Proposals carry versions;
 * at most one command of its own is under way; only what changed is looked at (a set of dirty
 * services, filled by scheduler_row); a new leader looks at all once, and takes nobody for dead
 * before three periods (roles.h). */
#ifndef CONCLAVE_SCHEDULER_H
#define CONCLAVE_SCHEDULER_H

#include "api/manager.h"
#include "store/service.h"

RESULT scheduler_open(struct manager *m); /* with the store; ERR_NOMEM */
void scheduler_close(struct manager *m);
void scheduler_led(struct manager *m);
void scheduler_beat(struct manager *m);
void scheduler_step(struct manager *m); /* in the check phase */
void scheduler_row(struct manager *m, const struct row *before, const struct row *after);
/* A member tells the leader what its nodes say (TASKS_CALL on member connections). */
void scheduler_call(struct manager *m, struct span request, struct reply *reply);
/* Is nothing under way, and nothing left to do for now? False unless this one leads. */
bool scheduler_idle(const struct manager *m);

#endif
