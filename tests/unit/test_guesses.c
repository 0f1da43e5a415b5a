/* Wrong tokens: a few are free, then one in a while, and only for where they come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "api/node/guesses.h"
#include "crypto/secret.h"

static struct guesses g;

static int set_up(void **state) {
    (void)state;
    assert_int_equal(crypto_start(NULL), OK);
    g = (struct guesses){0};
    guesses_start(&g);
    return 0;
}

static unsigned guess_until_it_has_to_wait(const char *remote) {
    unsigned n = 0;
    for (; !guesses_many(&g, remote); n++)
        guesses_wrong(&g, remote);
    return n;
}

static void a_few_at_once_then_one_in_a_while(void **state) {
    (void)state;
    assert_int_equal(guess_until_it_has_to_wait("10.0.0.7"), GUESS_LIMIT / GUESS_COST + 1);
    for (unsigned i = 0; i < GUESS_COST; i++) {
        assert_true(guesses_many(&g, "10.0.0.7"));
        guesses_beat(&g);
    }
    assert_int_equal(guess_until_it_has_to_wait("10.0.0.7"), 1);
}

static void all_are_forgotten_in_the_end(void **state) {
    (void)state;
    for (unsigned i = 0; i < 100000; i++)
        guesses_wrong(&g, "10.0.0.7"); /* counts no further than it can */
    for (unsigned i = 0; i <= UINT16_MAX && g.some; i++)
        guesses_beat(&g);
    assert_false(g.some);
    assert_false(guesses_many(&g, "10.0.0.7"));
}

static void other_sources_are_not_held_up(void **state) {
    (void)state;
    unsigned held = 0;
    char other[32];
    (void)guess_until_it_has_to_wait("10.0.0.7");
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(other, sizeof other, "10.0.%u.%u", 1 + i / 250, i % 250);
        held += guesses_many(&g, other);
    }
    assert_true(held < 10); /* one in GUESS_BUCKETS shares its counter */
}

static void an_ipv6_network_is_one_source(void **state) {
    (void)state;
    (void)guess_until_it_has_to_wait("2001:db8:1:2::7");
    assert_true(guesses_many(&g, "2001:db8:1:2:ffff::1"));
    assert_true(guesses_many(&g, "2001:0db8:0001:0002::7"));
    unsigned held = 0;
    for (unsigned i = 0; i < 100; i++) {
        char other[32];
        (void)snprintf(other, sizeof other, "2001:db8:1:%x::7", 3 + i);
        held += guesses_many(&g, other);
    }
    assert_true(held < 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_few_at_once_then_one_in_a_while, set_up),
        cmocka_unit_test_setup(all_are_forgotten_in_the_end, set_up),
        cmocka_unit_test_setup(other_sources_are_not_held_up, set_up),
        cmocka_unit_test_setup(an_ipv6_network_is_one_source, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
