/* The node's side of assignments: what this node is to run, and the secrets that its tasks may see.
 * Values are in guarded memory (struct secret) while a task that uses them is there, and nowhere
 * else; a task's supervisor (supervisor.h) gets copies over a socket pair.
 *
 *   assignment -> tasks and values -> a supervisor for each wanted task -> reports up the session
 *
 * The agent may be restarted, killed or upgraded without touching tasks: supervisors are processes
 * of their own, each with a socket in <data>/tasks/ (NAME is the task's id, mode 0600); a starting
 * agent finds them, asks what they run, and goes on. It waits for the first COMPLETE before it ends
 * a task that it does not know. A node that has lost its session goes on with what it has. A node
 * that was removed, leaves or is wiped ends its tasks first.
 *
 *   task: ACCEPTED -> (not_before) -> PREPARING -> STARTING -> RUNNING -> COMPLETE | FAILED
 *   wanted SHUTDOWN: stop signal, grace, SIGKILL -> SHUTDOWN;  can't be run: REJECTED
 *
 * Reports are sent again on each new session until a COMPLETE has shown that they arrived. */
#ifndef CONCLAVE_RUNNER_H
#define CONCLAVE_RUNNER_H

#include "api/manager.h"
#include "api/service/assign_wire.h"

struct runner; /* manager.runner; there from agent_start on */

/* Finds what runs already. ERR_NOMEM; ERR_TOO_LARGE: the data directory's path; ERR_IO. */
RESULT runner_open(struct manager *m, struct why *why);
/* Lets go of the supervisors; they go on. */
void runner_close(struct manager *m);
void runner_step(struct manager *m); /* in the check phase */
void runner_beat(struct manager *m);
/* By agent.c: a session has opened; a message of ours has come on it; it has ended. */
void runner_session(struct manager *m);
RESULT runner_message(struct manager *m, uint8_t kind, struct span body, struct why *why);
/* `removed`: the manager has said that this node is none of the cluster's: its tasks are ended. */
void runner_lost(struct manager *m, bool removed);
/* Ends all tasks (the node leaves or is wiped); `ended` is called later. */
void runner_end(struct manager *m, void (*ended)(struct manager *m));

/* `conclave run`: values for a command of this node's operator, through the session, or straight
 * from the state on a manager. */
typedef void runner_fetched(void *ctx, const struct fetched *f);
RESULT runner_fetch(struct manager *m, const struct fetch *f, runner_fetched *done, void *ctx,
                    struct why *why);
/* Fetches them and brings them to the supervisor that listens as `id` (supervisor_run), which then
 * starts its command. `done` once, later, when this gave OK: they are on their way there. */
struct run_order {
    char id[NODE_ID_SIZE + 8];                  /* SUP_RUN_PREFIX and an id */
    unsigned n;                                 /* 1.. */
    struct assign_file files[SERVICE_REFS_MAX]; /* name, version, target, owner and mode count */
};
RESULT runner_run(struct manager *m, const struct run_order *order, manager_done *done, void *ctx,
                  struct why *why);

#endif
