/* Guessing is slow: the free tries, the pauses that double up to the longest one, what is forgotten
 * and when; and how long a thousand guesses take, as fast as they are let. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/throttle.h"

static void the_first_wrong_keys_cost_no_pause(void **state) {
    (void)state;
    struct throttle t = {0};
    for (unsigned i = 0; i < THROTTLE_FREE; i++) {
        assert_int_equal(throttle_ask(&t, 1000, NULL), OK);
        throttle_wrong(&t, 1000);
    }
    assert_int_equal(throttle_ask(&t, 1000, NULL), ERR_BUSY);
}

static void pauses_double_up_to_the_longest_one(void **state) {
    (void)state;
    struct throttle t = {0};
    uint64_t now = 5, expected = THROTTLE_FIRST_MS;
    for (unsigned i = 0; i + 1 < THROTTLE_FREE; i++)
        throttle_wrong(&t, now);
    for (unsigned i = 0; i < 40; i++) {
        struct why why = {0};
        throttle_wrong(&t, now);
        assert_int_equal(throttle_ask(&t, now + expected - 1, &why), ERR_BUSY);
        assert_non_null(strstr(why.text, "in 1 s"));
        assert_int_equal(throttle_ask(&t, now + expected, NULL), OK);
        now += expected;
        expected = 2 * expected < THROTTLE_MOST_MS ? 2 * expected : THROTTLE_MOST_MS;
    }
}

static void a_right_key_forgets_the_wrong_ones(void **state) {
    (void)state;
    struct throttle t = {0};
    for (unsigned i = 0; i < 10; i++)
        throttle_wrong(&t, 0);
    assert_int_equal(throttle_ask(&t, 0, NULL), ERR_BUSY);
    throttle_right(&t);
    assert_int_equal(throttle_ask(&t, 0, NULL), OK);
    assert_int_equal(t.total, 11);
}

static void quiet_time_takes_back_one_at_a_time(void **state) {
    (void)state;
    struct throttle t = {0};
    for (unsigned i = 0; i < THROTTLE_FREE + 1; i++)
        throttle_wrong(&t, 0);
    uint64_t later = t.until_ms + THROTTLE_FORGET_MS;
    assert_int_equal(throttle_ask(&t, later, NULL), OK);
    assert_int_equal(t.wrong, THROTTLE_FREE);
    assert_int_equal(throttle_ask(&t, later + (THROTTLE_FREE + 1) * THROTTLE_FORGET_MS, NULL), OK);
    assert_int_equal(t.wrong, 0);
}

static void a_thousand_guesses_take_days(void **state) {
    (void)state;
    struct throttle t = {0};
    uint64_t now = 0;
    for (unsigned i = 0; i < 1000; i++) {
        if (throttle_ask(&t, now, NULL) != OK) now = t.until_ms;
        assert_int_equal(throttle_ask(&t, now, NULL), OK);
        throttle_wrong(&t, now);
    }
    assert_true(now > 3ULL * 86400 * 1000);
}

static void whoever_does_not_wait_is_counted_and_has_nothing_looked_at(void **state) {
    (void)state;
    struct throttle t = {0};
    for (unsigned i = 0; i < THROTTLE_FREE; i++)
        throttle_wrong(&t, 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(throttle_ask(&t, 1, NULL), ERR_BUSY);
    assert_int_equal(t.refused, 1000);
    assert_int_equal(t.total, 1000 + THROTTLE_FREE);
    assert_int_equal(throttle_ask(&t, THROTTLE_FIRST_MS, NULL), OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_wrong_keys_cost_no_pause),
        cmocka_unit_test(pauses_double_up_to_the_longest_one),
        cmocka_unit_test(a_right_key_forgets_the_wrong_ones),
        cmocka_unit_test(quiet_time_takes_back_one_at_a_time),
        cmocka_unit_test(a_thousand_guesses_take_days),
        cmocka_unit_test(whoever_does_not_wait_is_counted_and_has_nothing_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
