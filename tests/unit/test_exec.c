/* The real exec: jobs run on another thread, one at a time and in order; done comes on the loop;
 * closing loses nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include <uv.h>

#include "raft/exec.h"
#include "tests/lib/fault.h"

#define JOBS 500

struct world {
    uv_loop_t loop;
    struct exec *exec;
    pthread_t thread;   /* of the loop */
    unsigned ran, told; /* jobs run (their thread), done called (loop) */
    bool closed;
    unsigned again; /* resubmissions left */
};

struct test_job {
    struct job job; /* first */
    struct world *world;
    unsigned number;
};

static void run(struct job *j) {
    struct test_job *t = (struct test_job *)j;
    assert_false(pthread_equal(pthread_self(), t->world->thread));
    assert_int_equal(t->number, t->world->ran);
    t->world->ran++;
}

static void done(struct job *j) {
    struct test_job *t = (struct test_job *)j;
    assert_true(pthread_equal(pthread_self(), t->world->thread));
    assert_int_equal(t->number, t->world->told);
    t->world->told++;
    if (t->world->again == 0) return;
    t->world->again--;
    t->number = JOBS + 50 - t->world->again - 1;
    t->world->exec->submit(t->world->exec, j);
}

static void closed(void *ctx) { ((struct world *)ctx)->closed = true; }

static void start(struct world *w) {
    *w = (struct world){.thread = pthread_self()};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(exec_real_start(&w->loop, "a name that is too long", 0, &w->exec, NULL), OK);
}

static void finish(struct world *w) {
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    assert_true(w->closed);
    assert_int_equal(uv_loop_close(&w->loop), 0);
}

static void submit_all(struct world *w, struct test_job *jobs) {
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i] = (struct test_job){.job = {.run = run, .done = done}, .world = w, .number = i};
        w->exec->submit(w->exec, &jobs[i].job);
    }
}

static void jobs_run_and_are_told_in_order_and_closing_loses_none(void **state) {
    (void)state;
    struct world w;
    static struct test_job jobs[JOBS];
    start(&w);
    submit_all(&w, jobs);
    assert_int_equal(w.told, 0);
    exec_real_close(w.exec, closed, &w);
    assert_false(w.closed);
    finish(&w);
    assert_int_equal(w.ran, JOBS);
    assert_int_equal(w.told, JOBS);
}

static void a_done_may_submit_while_closing(void **state) {
    (void)state;
    struct world w;
    static struct test_job jobs[JOBS];
    start(&w);
    w.again = 50;
    submit_all(&w, jobs);
    exec_real_close(w.exec, closed, &w);
    finish(&w);
    assert_int_equal(w.told, JOBS + 50);
}

static void an_idle_exec_closes(void **state) {
    (void)state;
    struct world w;
    start(&w);
    exec_real_close(w.exec, closed, &w);
    finish(&w);
}

static void without_memory_nothing_is_started(void **state) {
    (void)state;
    uv_loop_t loop;
    struct exec *e = NULL;
    assert_int_equal(uv_loop_init(&loop), 0);
    fault_alloc_at(1);
    assert_int_equal(exec_real_start(&loop, "x", 0, &e, NULL), ERR_NOMEM);
    fault_alloc_off();
    assert_null(e);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

struct light_job {
    struct job job; /* first */
    struct world *world;
    uint64_t takes_us; /* of the clock, at least */
    bool on_loop;      /* where it ran */
};

static void run_light(struct job *j) {
    struct light_job *t = (struct light_job *)j;
    uint64_t until = uv_hrtime() + t->takes_us * 1000;
    t->on_loop = pthread_equal(pthread_self(), t->world->thread);
    t->world->ran++;
    while (uv_hrtime() < until)
        ;
}

static void light_done(struct job *j) { ((struct light_job *)j)->world->told++; }

/* Did it run on the loop? */
static bool lone(struct world *w, uint64_t takes_us) {
    struct light_job t = {.job = {.run = run_light, .done = light_done, .light = true},
                          .world = w,
                          .takes_us = takes_us};
    unsigned told = w->told;
    w->exec->submit(w->exec, &t.job);
    assert_int_equal(w->told, told); /* never inside the call */
    while (w->told == told)
        (void)uv_run(&w->loop, UV_RUN_NOWAIT); /* once would wait behind a job of its own */
    return t.on_loop;
}

static bool comes_to_the_loop(struct world *w) {
    for (int i = 0; i < 10000; i++)
        if (lone(w, 0)) return true;
    return false;
}

static void light_jobs_run_on_the_loop_while_they_are_quick(void **state) {
    (void)state;
    struct world w;
    start(&w);
    assert_false(lone(&w, 0)); /* nothing is known yet */
    assert_true(comes_to_the_loop(&w));
    while (lone(&w, 20000)) /* a slow one: the thread has them again */
        ;
    assert_true(comes_to_the_loop(&w));
    exec_real_close(w.exec, closed, &w);
    finish(&w);
}

static void a_job_behind_a_light_one_keeps_its_place(void **state) {
    (void)state;
    struct world w;
    start(&w);
    assert_true(comes_to_the_loop(&w));
    w.ran = w.told = 0;
    struct light_job first = {.job = {.run = run_light, .done = light_done, .light = true},
                              .world = &w};
    struct test_job second = {.job = {.run = run, .done = done}, .world = &w, .number = 1};
    w.exec->submit(w.exec, &first.job);
    w.exec->submit(w.exec, &second.job); /* asserts that it is number 1 */
    exec_real_close(w.exec, closed, &w);
    finish(&w);
    assert_int_equal(w.told, 2);
    assert_false(first.on_loop);
}

static void closing_runs_a_light_job_that_waits(void **state) {
    (void)state;
    struct world w;
    start(&w);
    assert_true(comes_to_the_loop(&w));
    struct light_job t = {.job = {.run = run_light, .done = light_done, .light = true},
                          .world = &w};
    w.told = 0;
    w.exec->submit(w.exec, &t.job);
    exec_real_close(w.exec, closed, &w);
    finish(&w);
    assert_int_equal(w.told, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_run_and_are_told_in_order_and_closing_loses_none),
        cmocka_unit_test(a_done_may_submit_while_closing),
        cmocka_unit_test(an_idle_exec_closes),
        cmocka_unit_test(without_memory_nothing_is_started),
        cmocka_unit_test(light_jobs_run_on_the_loop_while_they_are_quick),
        cmocka_unit_test(a_job_behind_a_light_one_keeps_its_place),
        cmocka_unit_test(closing_runs_a_light_job_that_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
