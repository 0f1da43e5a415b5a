/* See scheduler_lines.h. Lines are runs of the sorted tasks; of those that are too many the fullest
 * nodes' end, so that what is left is spread as evenly as what was there. */
#include "api/service/scheduler_lines.h"

#include <stdlib.h>

/* --- order ------------------------------------------------------------------------------------ */

static int by_line(const void *a, const void *b) {
    const struct sched_task *x = a, *y = b;
    if (x->row.slot != y->row.slot) return x->row.slot < y->row.slot ? -1 : 1;
    int order = x->row.slot == 0 ? strcmp(x->row.node_id, y->row.node_id) : 0;
    if (order != 0) return order;
    if (x->created_version != y->created_version)
        return x->created_version < y->created_version ? -1 : 1;
    return strcmp(x->id, y->id);
}

void lines_sort(struct sched_tasks *tasks) {
    if (tasks->n > 1) qsort(tasks->at, tasks->n, sizeof tasks->at[0], by_line);
}

static bool same_line(const struct task_row *a, const struct task_row *b) {
    return a->slot == b->slot && (a->slot != 0 || strcmp(a->node_id, b->node_id) == 0);
}

size_t line_newest(const struct decision *d, const struct line *l) {
    for (size_t i = l->end; i > l->first; i--)
        if (d->tasks->at[i - 1].row.desired == TASK_RUNNING) return i - 1;
    return l->end - 1;
}

RESULT lines_find(struct decision *d) {
    const struct sched_tasks *t = d->tasks;
    if (t->n == 0) return OK;
    d->lines = calloc(t->n, sizeof *d->lines);
    if (!d->lines) return ERR_NOMEM;
    for (size_t i = 0; i < t->n; i++) {
        if (i == 0 || !same_line(&t->at[i - 1].row, &t->at[i].row)) {
            struct line *l = &d->lines[d->n++];
            l->first = i;
            l->slot = t->at[i].row.slot;
            if (d->global) memcpy(l->node_id, t->at[i].row.node_id, sizeof l->node_id);
        }
        d->lines[d->n - 1].end = i + 1;
    }
    for (size_t i = 0; i < d->n; i++) {
        const struct line *l = &d->lines[i];
        d->lines[i].over = t->at[line_newest(d, l)].row.desired == TASK_REMOVE;
    }
    return OK;
}

uint64_t lines_alive(const struct decision *d) {
    uint64_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        n += !d->lines[i].over;
    return n;
}

/* --- too many --------------------------------------------------------------------------------- */

/* A line, as one of those that might end. */
struct candidate {
    struct line *line;
    const struct task_row *task; /* its newest */
    bool idle;                   /* no task of it is on a node */
    uint32_t rank;               /* among those on the same node */
};

/* On one node: those that run first, so that the others end first. */
static int by_node(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->idle != y->idle) return x->idle ? 1 : -1;
    int order = strcmp(x->task->node_id, y->task->node_id);
    if (order != 0) return order;
    bool runs_x = x->task->state == TASK_RUNNING, runs_y = y->task->state == TASK_RUNNING;
    if (runs_x != runs_y) return runs_x ? -1 : 1;
    return x->line->slot < y->line->slot ? -1 : 1;
}

/* The first ones end: idle ones, then what stands highest on its node. */
static int by_end(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->idle != y->idle) return x->idle ? -1 : 1;
    if (x->rank != y->rank) return x->rank > y->rank ? -1 : 1;
    return x->line->slot > y->line->slot ? -1 : 1;
}

static void rank_all(struct candidate *all, size_t n) {
    qsort(all, n, sizeof all[0], by_node);
    for (size_t i = 1; i < n; i++) {
        bool same = !all[i].idle && strcmp(all[i].task->node_id, all[i - 1].task->node_id) == 0;
        all[i].rank = same ? all[i - 1].rank + 1 : 0;
    }
}

RESULT lines_limit(struct decision *d) {
    uint64_t alive = lines_alive(d), wanted = d->w->service->replicas;
    size_t n = 0;
    if (alive <= wanted) return OK;
    struct candidate *all = calloc(alive, sizeof *all);
    if (!all) return ERR_NOMEM;
    for (size_t i = 0; i < d->n; i++) {
        struct line *l = &d->lines[i];
        if (l->over) continue;
        const struct task_row *t = &d->tasks->at[line_newest(d, l)].row;
        bool idle = !t->node_id[0] || t->state > TASK_RUNNING || t->desired != TASK_RUNNING;
        all[n++] = (struct candidate){.line = l, .task = t, .idle = idle};
    }
    rank_all(all, n);
    qsort(all, n, sizeof all[0], by_end);
    for (size_t i = 0; i < alive - wanted; i++)
        all[i].line->over = true;
    free(all);
    return OK;
}

/* --- history ---------------------------------------------------------------------------------- */

void line_history(const struct decision *d, const struct line *l, size_t newest) {
    uint64_t ended = 0, keep = d->w->history > 1 ? (uint64_t)d->w->history - 1 : 0;
    if (d->w->service->restart_max > keep) keep = d->w->service->restart_max;
    for (size_t i = l->first; i < l->end; i++)
        ended += i != newest && d->tasks->at[i].row.state > TASK_RUNNING;
    for (size_t i = l->first; i < l->end && ended > keep; i++) {
        struct sched_task *t = &d->tasks->at[i];
        if (i == newest || t->row.state <= TASK_RUNNING) continue;
        t->action = SCHED_DROP;
        ended--;
    }
}
