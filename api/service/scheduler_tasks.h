/* What a service wants of its tasks: from the service, its tasks as they stand, the nodes and the
 * time follows what is to be written. Pure: no store, no loop; the same in, the same wishes out.
 *
 * The tasks of a replicated service with one number (slot), of a global one on one node, are a line
 * of which the newest counts:
 *
 *   wanted to run, does or will      stays, unless its node is down, drained or gone, or no longer
 *                                    meets the constraints: then another one is made at once
 *   wanted to run, has ended         another one by the restart policy, after its delay; else done
 *   told to stop for a newer spec    another one when it has stopped
 *   to be removed (scaled down)      the line ends; its rows go
 *
 * At most one line at a time is between an older spec and the present one. Rows of ended tasks are
 * kept as history: `history` rows a line, and what the restart policy has to count. */
#ifndef CONCLAVE_SCHEDULER_TASKS_H
#define CONCLAVE_SCHEDULER_TASKS_H

#include "api/service/scheduler_place.h"
#include "store/service.h"

#define RESTART_DELAY_NS     5000000000LL
#define REJECTED_DELAY_NS    60000000000LL  /* the most between two that were rejected */
#define FAILURES_RECENT_NS   300000000000LL /* what counts against a node */
#define FAILURES_A_REJECTION 3              /* that weigh as much as one rejection */

enum sched_action { SCHED_KEEP = 0, SCHED_CREATE, SCHED_WRITE, SCHED_DROP };

struct sched_task {
    enum sched_action action; /* what is to be done with it */
    bool place;               /* a node is to be found for it */
    char id[NODE_ID_SIZE + 1];
    uint64_t version;         /* of its row; 0: it is to be created */
    uint64_t created_version; /* of its row, for the order */
    struct task_row row;
};

struct sched_tasks {
    struct sched_task *at;
    size_t n, room;
};

RESULT sched_tasks_add(struct sched_tasks *t, const struct sched_task *task); /* ERR_NOMEM */
void sched_tasks_free(struct sched_tasks *t);

struct sched_world {
    const char *service_id;
    const struct service_row *service; /* NULL: it was removed */
    struct places *places;             /* own and failures are 0, and will be again */
    int64_t now_ns;
    int64_t history; /* rows a line */
};

/* Sets the action of each, and appends those that are to be created. *waiting: some wait for a
 * node. ERR_NOMEM. */
RESULT sched_decide(const struct sched_world *w, struct sched_tasks *tasks, bool *waiting);

#endif
