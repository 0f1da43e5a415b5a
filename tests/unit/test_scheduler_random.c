/* The pure half of the scheduler, at random: nodes come, go down, drain and vanish, tasks run and
 * end, the service is changed; after each event the wishes are carried out, there are none within a
 * few rounds, and the invariants of scheduler_tasks.h hold. And what placing many costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <time.h>

#include "tests/lib/sched_world.h"
#include "tests/lib/states.h"

#define NODES_MAX_HERE 12

/* --- at random -------------------------------------------------------------------------------- */

static void random_node(struct world *w) {
    unsigned i = (unsigned)(random_next(&w->seed) % NODES_MAX_HERE);
    static const enum node_state states[] = {NODE_READY, NODE_READY, NODE_READY, NODE_DOWN,
                                             NODE_UNKNOWN};
    static const enum node_availability wishes[] = {NODE_ACTIVE, NODE_ACTIVE, NODE_ACTIVE,
                                                    NODE_PAUSE, NODE_DRAIN};
    if (random_next(&w->seed) % 6 == 0)
        sched_world_drop_node(w, i);
    else
        sched_world_put_node(w, i, states[random_next(&w->seed) % 5],
                             wishes[random_next(&w->seed) % 5]);
}

static void random_task(struct world *w) {
    static const enum task_state states[] = {TASK_ACCEPTED, TASK_STARTING, TASK_RUNNING,
                                             TASK_RUNNING,  TASK_COMPLETE, TASK_FAILED,
                                             TASK_REJECTED, TASK_SHUTDOWN};
    if (w->tasks.n == 0) return;
    struct task_row *t = &w->tasks.at[random_next(&w->seed) % w->tasks.n].row;
    enum task_state next = states[random_next(&w->seed) % 8];
    if (next == TASK_SHUTDOWN && t->desired == TASK_RUNNING) return;
    if (t->state > TASK_RUNNING || next < t->state || !t->node_id[0]) return;
    t->state = next;
    t->state_ns = w->now_ns;
}

static void random_event(struct world *w) {
    static const char *const constraints[] = {"", "node.hostname != host-1", "node.id == node002"};
    w->now_ns += (int64_t)(random_next(&w->seed) % 20) * SECOND;
    switch (random_next(&w->seed) % 10) {
    case 0:
    case 1: random_node(w); break;
    case 2: w->service.replicas = random_next(&w->seed) % 9; break;
    case 3:
        if (random_next(&w->seed) % 3 == 0) {
            sched_world_constrain(w, constraints[random_next(&w->seed) % 3]);
            w->service.spec_version++;
        }
        break;
    case 4: sched_world_run(w); break;
    case 5:
        w->service.restart = (enum restart_condition)(1 + random_next(&w->seed) % 3);
        w->service.restart_max = random_next(&w->seed) % 4;
        w->service.spec_version++;
        break;
    default: random_task(w); break;
    }
}

static bool fits(const struct world *w, const struct place *p) {
    return place_is_open(p) && place_meets(p, w->service.constraints);
}

static void check_task(const struct world *w, const struct sched_task *t) {
    const struct place *p = places_find(&w->places, t->row.node_id);
    bool present = t->row.spec_version == w->service.spec_version;
    if (!sched_world_is_live(t) || !t->row.node_id[0]) return;
    assert_non_null(p);
    assert_int_not_equal(p->availability, NODE_DRAIN);
    if (present) assert_true(place_meets(p, w->service.constraints));
    if (w->service.mode == SERVICE_REPLICATED) assert_int_not_equal(p->state, NODE_DOWN);
}

/* Live tasks of the line of this one, and its rows of ended tasks. */
static void check_line(const struct world *w, const struct sched_task *t, uint64_t keep) {
    size_t wanted = 0, ended = 0;
    for (size_t i = 0; i < w->tasks.n; i++) {
        const struct sched_task *other = &w->tasks.at[i];
        if (other->row.slot != t->row.slot) continue;
        if (t->row.slot == 0 && strcmp(other->row.node_id, t->row.node_id) != 0) continue;
        wanted += sched_world_is_live(other);
        ended += other->row.state > TASK_RUNNING;
    }
    assert_true(wanted <= 1);
    assert_true(ended <= keep + 1);
}

/* Lines that are neither ending nor too many. */
static uint64_t lines_of(const struct world *w) {
    uint64_t n = 0;
    for (uint32_t slot = 1; slot <= 64; slot++) {
        bool any = false;
        for (size_t i = 0; i < w->tasks.n; i++)
            any |= w->tasks.at[i].row.slot == slot && w->tasks.at[i].row.desired != TASK_REMOVE;
        n += any;
    }
    return n;
}

static void check_world(const struct world *w) {
    uint64_t keep = w->service.restart_max > 4 ? w->service.restart_max : 4;
    bool some_fits = false, some_waits = false;
    for (size_t i = 0; i < w->places.n; i++)
        some_fits |= fits(w, &w->places.at[i]);
    for (size_t i = 0; i < w->tasks.n; i++) {
        check_task(w, &w->tasks.at[i]);
        check_line(w, &w->tasks.at[i], keep);
        some_waits |= sched_world_is_live(&w->tasks.at[i]) && !w->tasks.at[i].row.node_id[0];
    }
    assert_int_equal(some_waits, w->waiting);
    assert_false(some_waits && some_fits);
    if (w->service.mode == SERVICE_REPLICATED) assert_int_equal(lines_of(w), w->service.replicas);
}

static void whatever_happens_the_invariants_hold(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct world w;
        sched_world_open(&w, (unsigned)(seed % 7), seed % 5);
        w.seed = seed;
        if (seed % 3 == 0) w.service.mode = SERVICE_GLOBAL;
        if (w.service.mode == SERVICE_GLOBAL) w.service.replicas = 0;
        for (unsigned i = 0; i < 150; i++) {
            random_event(&w);
            sched_world_settle(&w);
            check_world(&w);
        }
        sched_world_close(&w);
    }
}

/* --- cost ------------------------------------------------------------------------------------- */

static double cpu_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void a_thousand_services_are_placed_on_200_nodes_in_no_time(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 200, 3);
    double start = cpu_s();
    for (unsigned i = 0; i < 1000; i++) {
        w.tasks.n = 0;
        (void)sched_world_look(&w);
        assert_int_equal(w.tasks.n, 3);
    }
    for (size_t i = 0; i < w.places.n; i++) /* 3,000 tasks: 15 each */
        assert_int_equal(w.places.at[i].planned, 15);
    assert_true(cpu_s() - start < 1.0);
    sched_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_happens_the_invariants_hold),
        cmocka_unit_test(a_thousand_services_are_placed_on_200_nodes_in_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
