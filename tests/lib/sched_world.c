/* See sched_world.h. The rules that are checked are those of store/service.h: a slot stays, a state
 * and what is wanted never go back, a node is given once. */
#include "tests/lib/sched_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

/* --- nodes and constraints -------------------------------------------------------------------- */

struct node_row sched_world_node(unsigned i) {
    struct node_row n = {.granted = NODE_WORKER,
                         .desired = NODE_WORKER,
                         .availability = NODE_ACTIVE,
                         .state = NODE_READY};
    (void)snprintf(n.hostname, sizeof n.hostname, "host-%u", i);
    (void)snprintf(n.os, sizeof n.os, "linux");
    (void)snprintf(n.arch, sizeof n.arch, "x86_64");
    return n;
}

const char *sched_world_node_id(unsigned i) {
    static char id[8][NODE_ID_SIZE + 1];
    static unsigned turn;
    char *out = id[turn++ % 8];
    (void)snprintf(out, NODE_ID_SIZE + 1, "node%03u", i);
    return out;
}

void sched_world_put_node(struct world *w, unsigned i, enum node_state state,
                          enum node_availability a) {
    struct node_row n = sched_world_node(i);
    n.state = state;
    n.availability = a;
    assert_int_equal(places_put(&w->places, sched_world_node_id(i), &n), OK);
}

void sched_world_drop_node(struct world *w, unsigned i) {
    struct place *p = places_find(&w->places, sched_world_node_id(i));
    if (p) p->gone = true;
    places_sweep(&w->places);
}

void sched_world_open(struct world *w, unsigned nodes, uint64_t replicas) {
    *w = (struct world){.now_ns = 1000 * SECOND, .history = 5};
    w->service = (struct service_row){.mode = SERVICE_REPLICATED,
                                      .replicas = replicas,
                                      .restart = RESTART_ANY,
                                      .spec_version = 1};
    w->constraints = buf_new(4 * KIB);
    for (unsigned i = 0; i < nodes; i++)
        sched_world_put_node(w, i, NODE_READY, NODE_ACTIVE);
}

void sched_world_constrain(struct world *w, const char *text) {
    buf_clear(&w->constraints);
    if (text[0]) assert_int_equal(buf_block(&w->constraints, span_str(text)), OK);
    w->service.constraints = buf_span(&w->constraints);
}

void sched_world_close(struct world *w) {
    places_free(&w->places);
    sched_tasks_free(&w->tasks);
    buf_free(&w->constraints);
}

/* --- carrying out ----------------------------------------------------------------------------- */

static void check_placed(const struct world *w, const struct task_row *t) {
    const struct place *p = places_find(&w->places, t->node_id);
    assert_non_null(p);
    assert_true(place_is_open(p));
    assert_true(place_meets(p, w->service.constraints));
    assert_true(t->state >= TASK_ASSIGNED);
}

static void check_rules(const struct task_row *before, const struct task_row *after) {
    assert_int_equal(before->slot, after->slot);
    assert_true(after->state >= before->state);
    assert_true(after->desired >= before->desired);
    if (before->node_id[0]) assert_string_equal(before->node_id, after->node_id);
}

/* The actions as the store would take them; how many there were. */
static size_t carry_out(struct world *w, const struct sched_tasks *before, struct sched_tasks *t) {
    size_t kept = 0, n = 0;
    for (size_t i = 0; i < t->n; i++) {
        struct sched_task *task = &t->at[i];
        n += task->action != SCHED_KEEP;
        if (task->action == SCHED_DROP) continue;
        if (task->action == SCHED_CREATE) {
            task->created_version = w->version + 1;
            w->made++;
            if (task->row.node_id[0]) check_placed(w, &task->row);
        }
        for (size_t k = 0; task->action == SCHED_WRITE && k < before->n; k++) {
            const struct task_row *old = &before->at[k].row;
            if (strcmp(before->at[k].id, task->id) != 0) continue;
            check_rules(old, &task->row);
            w->stopped += old->desired == TASK_RUNNING && task->row.desired != TASK_RUNNING &&
                          old->state == TASK_RUNNING;
            if (!old->node_id[0] && task->row.node_id[0]) check_placed(w, &task->row);
        }
        if (task->action != SCHED_KEEP) task->version = w->version + 1;
        task->action = SCHED_KEEP;
        task->place = false;
        t->at[kept++] = *task;
    }
    t->n = kept;
    w->version++;
    return n;
}

static struct sched_tasks copy_of(const struct sched_tasks *t) {
    struct sched_tasks out = {0};
    for (size_t i = 0; i < t->n; i++)
        assert_int_equal(sched_tasks_add(&out, &t->at[i]), OK);
    return out;
}

size_t sched_world_look(struct world *w) {
    struct sched_world s = {.service_id = "service",
                            .service = w->removed ? NULL : &w->service,
                            .places = &w->places,
                            .now_ns = w->now_ns,
                            .history = w->history};
    struct sched_tasks before = copy_of(&w->tasks);
    assert_int_equal(sched_decide(&s, &w->tasks, &w->waiting), OK);
    for (size_t i = 0; i < w->places.n; i++)
        assert_int_equal(w->places.at[i].own + w->places.at[i].failures, 0);
    size_t n = carry_out(w, &before, &w->tasks);
    sched_tasks_free(&before);
    return n;
}

/* Until nothing is left to do. */
void sched_world_settle(struct world *w) {
    unsigned rounds = 0;
    w->made = w->stopped = 0;
    for (size_t i = 0; i < w->places.n; i++)
        w->places.at[i].planned = 0; /* as for each command */
    while (sched_world_look(w) > 0)
        assert_true(++rounds < WORLD_ROUNDS_MAX);
}

bool sched_world_is_live(const struct sched_task *t) {
    return t->row.desired == TASK_RUNNING && t->row.state <= TASK_RUNNING;
}

/* What nodes that are not down make of their tasks. */
void sched_world_run(struct world *w) {
    for (size_t i = 0; i < w->tasks.n; i++) {
        struct task_row *t = &w->tasks.at[i].row;
        const struct place *p = places_find(&w->places, t->node_id);
        if (!p || p->state == NODE_DOWN || t->state > TASK_RUNNING) continue;
        t->state = t->desired == TASK_RUNNING ? TASK_RUNNING : TASK_SHUTDOWN;
        t->state_ns = w->now_ns;
    }
}

void sched_world_settle_and_run(struct world *w) {
    for (unsigned i = 0; i < 4; i++) {
        sched_world_settle(w);
        sched_world_run(w);
    }
    sched_world_settle(w);
}

size_t sched_world_live(const struct world *w, const char *node) {
    size_t n = 0;
    for (size_t i = 0; i < w->tasks.n; i++)
        n += sched_world_is_live(&w->tasks.at[i]) &&
             (!node || strcmp(w->tasks.at[i].row.node_id, node) == 0);
    return n;
}

void sched_world_check_spread(const struct world *w) {
    size_t least = SIZE_MAX, most = 0;
    for (size_t i = 0; i < w->places.n; i++) {
        const struct place *p = &w->places.at[i];
        if (!place_is_open(p) || !place_meets(p, w->service.constraints)) continue;
        size_t n = sched_world_live(w, p->id);
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    assert_true(least == SIZE_MAX || most - least <= 1);
}

struct sched_task *sched_world_task_on(struct world *w, const char *node) {
    for (size_t i = 0; i < w->tasks.n; i++)
        if (sched_world_is_live(&w->tasks.at[i]) && strcmp(w->tasks.at[i].row.node_id, node) == 0)
            return &w->tasks.at[i];
    return NULL;
}

void sched_world_end_task(struct world *w, struct sched_task *t, enum task_state state) {
    assert_non_null(t);
    t->row.state = state;
    t->row.state_ns = w->now_ns;
}

struct sched_task *sched_world_live_of_slot(struct world *w, uint32_t slot) {
    for (size_t i = 0; i < w->tasks.n; i++)
        if (sched_world_is_live(&w->tasks.at[i]) && w->tasks.at[i].row.slot == slot)
            return &w->tasks.at[i];
    return NULL;
}
