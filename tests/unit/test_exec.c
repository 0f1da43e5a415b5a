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
    assert_int_equal(exec_real_start(&w->loop, "a name that is too long", &w->exec, NULL), OK);
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
    assert_int_equal(exec_real_start(&loop, "x", &e, NULL), ERR_NOMEM);
    fault_alloc_off();
    assert_null(e);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_run_and_are_told_in_order_and_closing_loses_none),
        cmocka_unit_test(a_done_may_submit_while_closing),
        cmocka_unit_test(an_idle_exec_closes),
        cmocka_unit_test(without_memory_nothing_is_started),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
