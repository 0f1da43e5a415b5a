/* What each node is to run and may know, told on its session: the manager that holds the session
 * works it out of its own state, so a node is given a secret only while a task of it that uses the
 * secret is wanted to run, and loses it with the last such task.
 *
 * Messages (node_wire.h has the kinds; bodies are specified in assign_wire.h):
 *   NODE_ASSIGN   manager -> node: COMPLETE first, then INCREMENTAL, each with applies_to and
 *                 results_in; parts of at most SESSION_BODY_MAX: a long one is sent in several, the
 *                 last one says so, and takes effect as a whole
 *   NODE_TASKS    node -> manager: reports on tasks (state, message, error, exit code, pid)
 *   NODE_RESYNC   node -> manager: applies_to was not what it has; COMPLETE is sent again
 *   NODE_FETCH    node -> manager: `conclave run` on that node asks for secrets, configs
 *   NODE_FETCHED  the answer: values, or an error
 *
 * What an assignment carries: tasks with all that is needed to run them (assign_task), secrets and
 * configs as values (assign_value: id, version, bytes), and what is to be removed. Values are
 * opened here, at that moment, and wiped when they are sent. Each giving of a value is a record of
 * the audit (AUDIT_DELIVER), proposed together, at most AUDIT_BATCH in one command, before the
 * value is sent: what can't be recorded is not given. A node can't cause such records at will
 * (assign_pace.c).
 *
 * A change of rows marks the sessions that it concerns (task_each_of_node, service_each_of_held);
 * assign_step works out the difference for those only. Drivers: a value of a secret that has one is
 * asked of it on a worker thread (driver.h) for each task.
 *
 * NODE_FETCH is allowed to a node whose row names it: the label `conclave.run` lists the
 * nodes (ids, names that the operator gave, separated by ','; '*' all) that may; a manager may
 * always. */
#ifndef CONCLAVE_ASSIGN_H
#define CONCLAVE_ASSIGN_H

#include "api/node/sessions.h"

struct node_link; /* a session (sessions_parts.h) */
struct assigned;  /* what a session has been told; node_link.assigned */

RESULT assign_open(struct manager *m); /* with the store; ERR_NOMEM */
void assign_close(struct manager *m);
void assign_step(struct manager *m); /* in the check phase */
void assign_beat(struct manager *m); /* every BEAT_MS */
void assign_row(struct manager *m, const struct row *before, const struct row *after);
/* By sessions.c: the session is proven; a message of ours has come; it is gone. */
void assign_proven(struct node_link *h);
RESULT assign_message(struct node_link *h, uint8_t kind, struct span body, struct why *why);
void assign_drained(struct node_link *h); /* what waited for its socket has gone */
void assign_gone(struct node_link *h);

#endif
