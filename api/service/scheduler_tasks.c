/* See scheduler_tasks.h. In this order: tasks are sorted into lines; lines that are too many end;
 * each other line takes its step; what is missing is added; then one line is brought to the present
 * spec if none is on the way; and last, when all that leaves its node is known, nodes are chosen.
 *
 * Invariants of the outcome: of a line one task at the most is wanted to run; nothing new is placed
 * on a node that is not ready, not active or does not meet the constraints. */
#include "api/service/scheduler_tasks.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/service/scheduler_lines.h"
#include "crypto/secret.h"

/* --- lists ------------------------------------------------------------------------------------ */

RESULT sched_tasks_add(struct sched_tasks *t, const struct sched_task *task) {
    if (t->n == t->room) {
        size_t room = t->room == 0 ? 16 : t->room * 2;
        struct sched_task *more = realloc(t->at, room * sizeof *more);
        if (!more) return ERR_NOMEM;
        t->at = more;
        t->room = room;
    }
    t->at[t->n++] = *task;
    return OK;
}

void sched_tasks_free(struct sched_tasks *t) {
    free(t->at);
    *t = (struct sched_tasks){0};
}

/* --- single tasks ----------------------------------------------------------------------------- */

static bool has_ended(const struct task_row *t) { return t->state > TASK_RUNNING; }

/* By itself, not because somebody wanted it to. */
static bool has_ended_itself(const struct task_row *t) {
    return t->state == TASK_COMPLETE || t->state == TASK_FAILED || t->state == TASK_REJECTED;
}

static bool is_wanted(const struct sched_task *t) {
    return t->action != SCHED_DROP && t->row.desired == TASK_RUNNING;
}

static void touch(struct sched_task *t) {
    if (t->action == SCHED_KEEP) t->action = SCHED_WRITE;
}

static void set_desired(struct sched_task *t, enum task_state desired) {
    if (t->row.desired == desired) return;
    t->row.desired = desired;
    touch(t);
}

static void set_orphaned(const struct decision *d, struct sched_task *t) {
    t->row.state = TASK_ORPHANED;
    t->row.state_ns = d->w->now_ns;
    (void)snprintf(t->row.error, sizeof t->row.error, "its node was removed");
    touch(t);
}

static struct place *node_of(const struct decision *d, const struct sched_task *t) {
    return t->row.node_id[0] ? places_find(d->w->places, t->row.node_id) : NULL;
}

/* Nobody will say any more what became of it. */
static bool is_lost(const struct decision *d, const struct sched_task *t) {
    const struct place *p = node_of(d, t);
    return !p || p->state == NODE_DOWN;
}

/* Its process, if there is one, is to end. */
static void stop(struct sched_task *t) {
    if (t->row.node_id[0])
        set_desired(t, TASK_SHUTDOWN);
    else
        t->action = SCHED_DROP;
}

/* It is to go, row and all, as soon as it does not run any more. */
static void remove_task(const struct decision *d, struct sched_task *t) {
    if (has_ended(&t->row) || is_lost(d, t))
        t->action = SCHED_DROP;
    else
        set_desired(t, TASK_REMOVE);
}

/* --- making another one ----------------------------------------------------------------------- */

static RESULT make(struct decision *d, uint32_t slot, const char *node_id, int64_t not_before_ns) {
    const struct sched_world *w = d->w;
    struct sched_task t = {.action = SCHED_CREATE,
                           .row = {.slot = slot,
                                   .desired = TASK_RUNNING,
                                   .state = TASK_PENDING,
                                   .state_ns = w->now_ns,
                                   .spec_version = w->service->spec_version,
                                   .not_before_ns = not_before_ns > w->now_ns ? not_before_ns : 0,
                                   .message = "pending task scheduling"}};
    random_id(t.id);
    (void)snprintf(t.row.service_id, sizeof t.row.service_id, "%s", w->service_id);
    t.place = true;
    if (node_id) (void)snprintf(t.row.node_id, sizeof t.row.node_id, "%s", node_id);
    d->made++;
    return sched_tasks_add(d->tasks, &t);
}

/* Another one of the line. */
static RESULT make_next(struct decision *d, const struct line *l, int64_t not_before_ns) {
    return make(d, l->slot, d->global ? l->node_id : NULL, not_before_ns);
}

/* How many of the line were started again within the window before it ended. */
static uint64_t restarts(const struct decision *d, const struct line *l,
                         const struct sched_task *ended) {
    const struct service_row *s = d->w->service;
    uint64_t n = 0;
    for (size_t i = l->first; i < l->end; i++) {
        const struct task_row *t = &d->tasks->at[i].row;
        bool counts =
            &d->tasks->at[i] != ended && has_ended_itself(t) && t->spec_version == s->spec_version;
        if (counts && s->restart_window_ns > 0)
            counts = t->state_ns > ended->row.state_ns - s->restart_window_ns;
        n += counts;
    }
    return n;
}

static bool should_restart(const struct decision *d, const struct line *l,
                           const struct sched_task *ended) {
    const struct service_row *s = d->w->service;
    if (s->restart == RESTART_NONE) return false;
    if (s->restart == RESTART_ON_FAILURE && ended->row.state == TASK_COMPLETE) return false;
    return s->restart_max == 0 || restarts(d, l, ended) < s->restart_max;
}

/* The delay doubles while one after the other is rejected. */
static int64_t restart_at(const struct decision *d, const struct line *l,
                          const struct sched_task *ended) {
    int64_t delay = d->w->service->restart_delay_ns;
    if (delay == 0) delay = RESTART_DELAY_NS;
    if (ended->row.state != TASK_REJECTED) return ended->row.state_ns + delay;
    for (size_t i = l->end - 1; i > l->first && delay < REJECTED_DELAY_NS; i--) {
        if (d->tasks->at[i - 1].row.state != TASK_REJECTED) break;
        delay = delay * 2 < REJECTED_DELAY_NS ? delay * 2 : REJECTED_DELAY_NS;
    }
    return ended->row.state_ns + delay;
}

/* --- one line --------------------------------------------------------------------------------- */

static bool is_present(const struct decision *d, const struct sched_task *t) {
    return t->row.spec_version == d->w->service->spec_version;
}

/* May the line have a task now? A replicated one may go anywhere. */
static bool line_is_open(const struct decision *d, const struct line *l) {
    if (!d->global) return true;
    const struct place *p = places_find(d->w->places, l->node_id);
    return p && place_is_open(p) && place_meets(p, d->w->service->constraints);
}

static RESULT follow_ended(struct decision *d, struct line *l, const struct sched_task *ended) {
    if (!line_is_open(d, l)) return OK;
    bool again = !is_present(d, ended) || !has_ended_itself(&ended->row);
    if (again) return make_next(d, l, 0);
    if (!should_restart(d, l, ended)) return OK;
    return make_next(d, l, restart_at(d, l, ended));
}

/* Has its node to be left, though it may run well? */
static bool must_leave(const struct decision *d, const struct sched_task *t,
                       const struct place *p) {
    if (p->availability == NODE_DRAIN) return true;
    return is_present(d, t) && !place_meets(p, d->w->service->constraints);
}

static RESULT step_waiting(struct decision *d, const struct line *l, struct sched_task *t) {
    if (is_present(d, t)) {
        t->place = d->busy = true;
        return OK;
    }
    t->action = SCHED_DROP;
    return make_next(d, l, t->row.not_before_ns);
}

static RESULT replace(struct decision *d, const struct line *l, struct sched_task *t) {
    int64_t not_before_ns = t->row.not_before_ns;
    stop(t);
    return line_is_open(d, l) ? make_next(d, l, not_before_ns) : OK;
}

/* The task that is wanted and has not ended. */
static RESULT step_running(struct decision *d, struct line *l, struct sched_task *t) {
    const struct place *p = node_of(d, t);
    if (!t->row.node_id[0]) return step_waiting(d, l, t);
    if (!p) {
        set_orphaned(d, t);
        return replace(d, l, t);
    }
    if (must_leave(d, t, p)) return replace(d, l, t);
    if (p->state == NODE_DOWN) return d->global ? OK : replace(d, l, t);
    if (!is_present(d, t))
        l->outdated = !d->global || place_is_open(p); /* else none could follow it there */
    else if (t->row.state < TASK_RUNNING)
        d->busy = true;
    return OK;
}

/* None is wanted to run; the newest was told to stop. */
static RESULT step_stopping(struct decision *d, struct line *l, struct sched_task *t) {
    const struct place *p = node_of(d, t);
    bool stays = p && p->state != NODE_DOWN && !must_leave(d, t, p);
    if (stays) {
        d->busy = true;
        return OK;
    }
    return line_is_open(d, l) ? make_next(d, l, 0) : OK;
}

static void settle_rest(const struct decision *d, const struct line *l, size_t newest) {
    for (size_t i = l->first; i < l->end; i++) {
        struct sched_task *t = &d->tasks->at[i];
        if (i != newest && is_wanted(t)) stop(t);
        if (!has_ended(&t->row) && t->row.node_id[0] && !node_of(d, t) && i != newest)
            set_orphaned(d, t);
        if (t->row.desired == TASK_REMOVE && t->action != SCHED_DROP) remove_task(d, t);
    }
}

/* `at` may move when another is made: the line's own tasks are looked at before. */
static RESULT step_line(struct decision *d, struct line *l) {
    size_t newest = line_newest(d, l);
    settle_rest(d, l, newest);
    struct sched_task *t = &d->tasks->at[newest];
    line_history(d, l, newest);
    if (t->row.desired != TASK_RUNNING && !has_ended(&t->row)) {
        if (t->row.node_id[0] && !node_of(d, t)) set_orphaned(d, t);
        return step_stopping(d, l, t);
    }
    if (!has_ended(&t->row)) return step_running(d, l, t);
    set_desired(t, TASK_SHUTDOWN);
    return follow_ended(d, l, t);
}

static void end_line(const struct decision *d, const struct line *l) {
    for (size_t i = l->first; i < l->end; i++)
        remove_task(d, &d->tasks->at[i]);
}

/* --- all lines -------------------------------------------------------------------------------- */

static RESULT step_lines(struct decision *d) {
    for (size_t i = 0; i < d->n; i++) {
        struct line *l = &d->lines[i];
        bool node_gone = d->global && !places_find(d->w->places, l->node_id);
        if (l->over || node_gone)
            end_line(d, l);
        else
            TRY(step_line(d, l));
    }
    return OK;
}

static RESULT add_replicas(struct decision *d) {
    uint32_t slot = 1;
    size_t line = 0;
    uint64_t have = lines_alive(d);
    for (; have < d->w->service->replicas; have++, slot++) {
        while (line < d->n && d->lines[line].slot <= slot) { /* lines ascend by slot */
            if (d->lines[line].slot == slot) slot++;
            line++;
        }
        TRY(make(d, slot, NULL, 0));
    }
    return OK;
}

static RESULT add_global(struct decision *d) {
    const struct places *p = d->w->places;
    size_t line = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct place *place = &p->at[i];
        while (line < d->n && strcmp(d->lines[line].node_id, place->id) < 0)
            line++;
        if (line < d->n && strcmp(d->lines[line].node_id, place->id) == 0) continue;
        if (!place_is_open(place) || !place_meets(place, d->w->service->constraints)) continue;
        TRY(make(d, 0, place->id, 0));
    }
    return OK;
}

/* The next line that goes over to the present spec: one that does not run first. */
static void roll_one(struct decision *d) {
    struct sched_task *chosen = NULL;
    if (d->busy || d->made > 0) return;
    for (size_t i = 0; i < d->n; i++) {
        const struct line *l = &d->lines[i];
        if (!l->outdated || l->over) continue;
        struct sched_task *t = &d->tasks->at[line_newest(d, l)];
        if (!chosen || (chosen->row.state == TASK_RUNNING && t->row.state < TASK_RUNNING))
            chosen = t;
    }
    if (chosen) stop(chosen);
}

/* --- nodes ------------------------------------------------------------------------------------ */

static void set_placed(const struct decision *d, struct sched_task *t, const char *node_id) {
    struct task_row *row = &t->row;
    if (node_id != row->node_id) memcpy(row->node_id, node_id, sizeof row->node_id);
    row->state = TASK_ASSIGNED;
    row->state_ns = d->w->now_ns;
    row->error[0] = 0;
    (void)snprintf(row->message, sizeof row->message, "scheduler assigned task to node");
    touch(t);
}

static void set_unplaced(const struct place_choice *c, struct sched_task *t) {
    char why[sizeof t->row.error];
    place_explain(c, why, sizeof why);
    if (strcmp(why, t->row.error) == 0) return;
    memcpy(t->row.error, why, sizeof why);
    touch(t);
}

static void place_all(struct decision *d, bool *waiting) {
    struct place_choice choice = {0};
    for (size_t i = 0; i < d->tasks->n; i++) {
        struct sched_task *t = &d->tasks->at[i];
        if (!t->place || t->action == SCHED_DROP) continue;
        if (t->row.node_id[0]) { /* a global one */
            set_placed(d, t, t->row.node_id);
            continue;
        }
        const struct place *p = place_choose(&choice, d->w->places, d->w->service->constraints);
        if (p)
            set_placed(d, t, p->id);
        else
            set_unplaced(&choice, t);
        *waiting |= !p;
    }
    place_choice_free(&choice);
}

/* --- counting --------------------------------------------------------------------------------- */

static void count_one(const struct decision *d, const struct sched_task *t, uint32_t *failed) {
    struct place *p = node_of(d, t);
    if (!p) return;
    if (is_wanted(t) && !has_ended(&t->row)) p->own++;
    bool recent =
        d->w->service && is_present(d, t) && t->row.state_ns > d->w->now_ns - FAILURES_RECENT_NS;
    if (recent && t->row.state == TASK_REJECTED) p->failures += FAILURES_A_REJECTION;
    if (recent && t->row.state == TASK_FAILED) p->failures++;
    *failed += recent && has_ended_itself(&t->row);
}

static void count_all(const struct decision *d) {
    uint32_t failed = 0;
    for (size_t i = 0; i < d->tasks->n; i++)
        count_one(d, &d->tasks->at[i], &failed);
    for (size_t i = 0; failed > 0 && i < d->tasks->n; i++) {
        struct place *p = node_of(d, &d->tasks->at[i]);
        if (p && p->failures > 0 && p->failures < FAILURES_A_REJECTION) p->failures = 0;
    }
}

static void uncount_all(const struct decision *d) {
    for (size_t i = 0; i < d->tasks->n; i++) {
        struct place *p = node_of(d, &d->tasks->at[i]);
        if (p) p->own = p->failures = 0;
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

static void remove_all(struct decision *d) {
    for (size_t i = 0; i < d->tasks->n; i++)
        remove_task(d, &d->tasks->at[i]);
}

static RESULT decide(struct decision *d, bool *waiting) {
    if (!d->w->service) {
        remove_all(d);
        return OK;
    }
    TRY(lines_find(d));
    if (!d->global) TRY(lines_limit(d));
    TRY(step_lines(d));
    TRY(d->global ? add_global(d) : add_replicas(d));
    roll_one(d);
    place_all(d, waiting);
    return OK;
}

RESULT sched_decide(const struct sched_world *w, struct sched_tasks *tasks, bool *waiting) {
    struct decision d = {.w = w, .tasks = tasks};
    d.global = w->service && w->service->mode == SERVICE_GLOBAL;
    *waiting = false;
    lines_sort(tasks);
    count_all(&d);
    enum err e = decide(&d, waiting);
    uncount_all(&d);
    free(d.lines);
    return e;
}
