/* The real exec: jobs run one at a time in the order of submission, away from the loop; each done
 * comes on the loop and never inside submit; close waits for all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "raft/exec_real.h"

#define JOBS 1000

struct work {
    struct job job;
    struct fixture *fixture;
    int ran, delivered; /* in which place */
};

struct fixture {
    uv_loop_t loop;
    struct exec *exec;
    struct work work[JOBS];
    pthread_t loop_thread;
    int ran, delivered; /* counts */
    bool submitting, elsewhere, closed;
};

static void run(struct job *j) {
    struct work *w = (struct work *)(void *)j;
    w->ran = ++w->fixture->ran;
    if (!pthread_equal(pthread_self(), w->fixture->loop_thread)) w->fixture->elsewhere = true;
}

static void done(struct job *j) {
    struct work *w = (struct work *)(void *)j;
    assert_false(w->fixture->submitting);
    assert_true(pthread_equal(pthread_self(), w->fixture->loop_thread));
    w->delivered = ++w->fixture->delivered;
}

static void on_closed(void *ctx) { ((struct fixture *)ctx)->closed = true; }

static void jobs_run_in_order_and_close_waits_for_them(void **state) {
    (void)state;
    static struct fixture f;
    f.loop_thread = pthread_self();
    assert_int_equal(uv_loop_init(&f.loop), 0);
    assert_int_equal(exec_real_open(&f.loop, "test", &f.exec, NULL), OK);
    f.submitting = true;
    for (int i = 0; i < JOBS; i++) {
        f.work[i] = (struct work){.job = {.run = run, .done = done}, .fixture = &f};
        f.exec->submit(f.exec, &f.work[i].job);
    }
    exec_real_close(f.exec, on_closed, &f);
    f.submitting = false;
    (void)uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_true(f.closed && f.elsewhere);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(f.work[i].ran, i + 1);
        assert_int_equal(f.work[i].delivered, i + 1);
    }
    assert_int_equal(uv_loop_close(&f.loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_run_in_order_and_close_waits_for_them)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
