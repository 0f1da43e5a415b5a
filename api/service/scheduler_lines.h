/* Tasks in lines (idea: scheduler_tasks.h), private to scheduler_tasks.c and scheduler_lines.c. */
#ifndef CONCLAVE_SCHEDULER_LINES_H
#define CONCLAVE_SCHEDULER_LINES_H

#include "api/service/scheduler_tasks.h"

struct line {
    size_t first, end;              /* of the sorted tasks */
    uint32_t slot;                  /* 0 of a global service */
    char node_id[NODE_ID_SIZE + 1]; /* of a global service; else "" */
    bool over;                      /* it is not wanted any more */
    bool outdated;                  /* runs, with an older spec */
};

struct decision {
    const struct sched_world *w;
    struct sched_tasks *tasks; /* sorted; those that are made stand behind */
    struct line *lines;        /* ascending by slot, or node id */
    size_t n;
    bool global;
    bool busy;   /* some line is on its way to a running task of the present spec */
    size_t made; /* tasks */
};

/* By slot, of a global service by node; each line from the oldest to the newest. */
void lines_sort(struct sched_tasks *tasks);
RESULT lines_find(struct decision *d); /* ERR_NOMEM */
/* Of those that are too many, which are over: without a task first, then on the fullest nodes. */
RESULT lines_limit(struct decision *d);
uint64_t lines_alive(const struct decision *d);
/* The newest that is wanted to run, else the newest. */
size_t line_newest(const struct decision *d, const struct line *l);
/* Drops the rows of ended tasks that are too many, oldest first, but not `newest`. */
void line_history(const struct decision *d, const struct line *l, size_t newest);

#endif
