/* A small world of nodes, one service and its tasks for tests of the scheduler's pure half: its
 * wishes are carried out as the rows' rules allow, and what is placed is checked. Nodes are called
 * node000 and so on, their hosts host-0. Everything asserts with cmocka. */
#ifndef CONCLAVE_TESTS_SCHED_WORLD_H
#define CONCLAVE_TESTS_SCHED_WORLD_H

#include "api/service/scheduler_tasks.h"

#define SECOND           1000000000LL
#define WORLD_ROUNDS_MAX 6 /* of wishes, until there are none */

struct world {
    struct places places;       /* all nodes */
    struct service_row service; /* the one there is */
    bool removed;               /* it is gone */
    struct sched_tasks tasks;   /* of it */
    int64_t now_ns;             /* the time */
    int64_t history;            /* rows a line */
    uint64_t version;           /* of rows */
    bool waiting;               /* some task does */
    struct buf constraints;     /* of the service */
    size_t made, stopped;       /* of the last settle */
    uint64_t seed;              /* the test's */
};

struct node_row sched_world_node(unsigned i); /* a worker, ready and active */
const char *sched_world_node_id(unsigned i);  /* good for the next seven */
void sched_world_put_node(struct world *w, unsigned i, enum node_state state,
                          enum node_availability a);
void sched_world_drop_node(struct world *w, unsigned i);
void sched_world_open(struct world *w, unsigned nodes, uint64_t replicas);
void sched_world_close(struct world *w);
void sched_world_constrain(struct world *w, const char *text); /* to this alone; "" to nothing */

size_t sched_world_look(struct world *w); /* once; how many actions there were */
void sched_world_settle(struct world *w); /* until nothing is left to do */
void sched_world_run(struct world *w);    /* nodes that are not down do what they were told */
void sched_world_settle_and_run(struct world *w);

bool sched_world_is_live(const struct sched_task *t);             /* wanted, and not ended */
size_t sched_world_live(const struct world *w, const char *node); /* NULL: on all */
void sched_world_check_spread(const struct world *w);             /* over the open nodes */
struct sched_task *sched_world_task_on(struct world *w, const char *node); /* a live one; NULL */
struct sched_task *sched_world_live_of_slot(struct world *w, uint32_t slot);
void sched_world_end_task(struct world *w, struct sched_task *t, enum task_state state);

#endif
