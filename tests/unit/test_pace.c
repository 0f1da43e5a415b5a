/* The pace of a stream follows what the writes beside it feel, and never stands still. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/pace.h"

static void note(struct pace *p, uint64_t us, unsigned times) {
    for (unsigned i = 0; i < times; i++)
        pace_note(p, us);
}

/* Writes of 2 ms, and some in a hundred of 4 ms: those are usual when there are enough of them. */
static struct pace usual(unsigned long_ones) {
    struct pace p = {0};
    for (unsigned i = 0; i < PACE_RECENT; i++)
        pace_note(&p, i % 100 < long_ones ? 4000 : 2000);
    return p;
}

static void usual_writes_leave_the_whole_rate(void **state) {
    (void)state;
    struct pace p = usual(2);
    pace_begin(&p);
    note(&p, 4000, 50);
    note(&p, 6000, 50); /* 1.5 times */
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE);
    pace_end(&p);
}

static void a_slow_write_halves_the_rate_and_a_hundred_others_double_it(void **state) {
    (void)state;
    struct pace p = usual(0);
    pace_begin(&p);
    note(&p, 3001, 1);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 2);
    note(&p, 3001, 1);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 4);
    note(&p, 3000, 99);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 4);
    note(&p, 3000, 1);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 2);
    note(&p, 3000, 100);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE);
    pace_end(&p);
}

static void the_rate_never_falls_below_its_least(void **state) {
    (void)state;
    struct pace p = usual(0);
    pace_begin(&p);
    note(&p, UINT64_MAX, 100000);
    assert_int_equal(pace_rate(&p), STREAM_MIN_RATE);
    note(&p, 1, 300);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE); /* and comes back as fast as after three */
    pace_end(&p);
}

static void without_writes_before_only_a_long_one_is_slow(void **state) {
    (void)state;
    struct pace p = {0};
    note(&p, 1, PACE_KNOWN - 1);
    pace_begin(&p);
    note(&p, PACE_UNKNOWN_US, 10);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE);
    note(&p, PACE_UNKNOWN_US + 1, 1);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 2);
    pace_end(&p);
}

static void what_takes_less_than_a_millisecond_is_never_slow(void **state) {
    (void)state;
    struct pace p = {0};
    note(&p, 10, PACE_RECENT);
    pace_begin(&p);
    note(&p, PACE_SLOW_MIN_US, 10);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE);
    pace_end(&p);
}

static void only_the_latest_writes_say_what_is_usual(void **state) {
    (void)state;
    struct pace p = {0};
    note(&p, 50000, 3 * PACE_RECENT);
    note(&p, 2000, PACE_RECENT);
    pace_begin(&p);
    note(&p, 3001, 1);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 2);
    pace_end(&p);
}

static void writes_beside_a_stream_do_not_become_usual(void **state) {
    (void)state;
    struct pace p = usual(0);
    pace_begin(&p);
    note(&p, 50000, 3 * PACE_RECENT);
    pace_end(&p);
    pace_begin(&p);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE); /* a new one begins anew */
    note(&p, 3001, 1);
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 2);
    pace_begin(&p); /* a second one beside it does not */
    assert_int_equal(pace_rate(&p), STREAM_BUSY_RATE / 2);
    pace_end(&p);
    pace_end(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usual_writes_leave_the_whole_rate),
        cmocka_unit_test(a_slow_write_halves_the_rate_and_a_hundred_others_double_it),
        cmocka_unit_test(the_rate_never_falls_below_its_least),
        cmocka_unit_test(without_writes_before_only_a_long_one_is_slow),
        cmocka_unit_test(what_takes_less_than_a_millisecond_is_never_slow),
        cmocka_unit_test(only_the_latest_writes_say_what_is_usual),
        cmocka_unit_test(writes_beside_a_stream_do_not_become_usual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
