/* Auto-compaction by its ticks: what is compacted when, over hours that take no time; and what its
 * flags may say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/compactor.h"
#include "tests/lib/fault.h"

#define MINUTE_MS 60000ULL
#define HOUR_MS   (60 * MINUTE_MS)

static struct compactor *start(enum compact_mode mode, uint64_t retention) {
    struct compactor *c;
    assert_int_equal(compactor_new(&(struct compact_options){mode, retention}, &c), OK);
    return c;
}

/* A store whose revision is its age in seconds, and that compacts when told. Returns how often. */
static unsigned run(struct compactor *c, uint64_t hours, uint64_t keeps_ms) {
    uint64_t compacted = 0, step_ms = compactor_step_ms(c), last_ms = 0;
    unsigned times = 0;
    for (uint64_t now = step_ms; now <= hours * HOUR_MS; now += step_ms) {
        uint64_t wanted = compactor_tick(c, now, now / 1000, compacted);
        if (wanted == 0) continue;
        assert_true(wanted > compacted && wanted <= now / 1000);
        assert_true(now / 1000 - wanted >= keeps_ms / 1000);
        assert_true(now / 1000 - wanted <= (keeps_ms + 2 * step_ms) / 1000);
        if (times > 0) assert_true(now - last_ms >= (keeps_ms < HOUR_MS ? keeps_ms : HOUR_MS));
        compacted = wanted;
        last_ms = now;
        times++;
    }
    return times;
}

static void a_period_of_history_is_kept_and_no_more(void **state) {
    (void)state;
    struct compactor *c = start(COMPACT_PERIODIC, 10 * MINUTE_MS);
    assert_int_equal(compactor_step_ms(c), MINUTE_MS);
    assert_in_range(run(c, 24, 10 * MINUTE_MS), 24 * 6 - 2, 24 * 6);
    compactor_free(c);
    c = start(COMPACT_PERIODIC, 5 * HOUR_MS);
    assert_int_equal(compactor_step_ms(c), 6 * MINUTE_MS);
    assert_in_range(run(c, 48, 5 * HOUR_MS), 42, 44);
    compactor_free(c);
}

static void a_long_period_is_noted_in_longer_steps(void **state) {
    (void)state;
    struct compactor *c = start(COMPACT_PERIODIC, 4800 * HOUR_MS);
    assert_int_equal(compactor_step_ms(c), 2 * HOUR_MS);
    assert_in_range(run(c, 5000, 4800 * HOUR_MS), 90, 101);
    compactor_free(c);
}

static void nothing_new_is_nothing_to_compact(void **state) {
    (void)state;
    struct compactor *c = start(COMPACT_PERIODIC, 10 * MINUTE_MS);
    uint64_t compacted = 0;
    unsigned times = 0;
    for (uint64_t now = 0; now < 5 * HOUR_MS; now += MINUTE_MS) {
        uint64_t wanted = compactor_tick(c, now, 77, compacted);
        times += wanted != 0;
        if (wanted != 0) compacted = wanted;
    }
    assert_int_equal(times, 1);
    assert_int_equal(compacted, 77);
    compactor_free(c);
}

static void what_failed_is_tried_again_at_the_next_tick(void **state) {
    (void)state;
    struct compactor *c = start(COMPACT_PERIODIC, 10 * MINUTE_MS);
    unsigned wanted = 0;
    for (uint64_t now = 0; now <= 30 * MINUTE_MS; now += MINUTE_MS)
        wanted += compactor_tick(c, now, 2 + now / 1000, 0) != 0;
    assert_int_equal(wanted, 21);
    compactor_free(c);
}

static void so_many_revisions_are_kept(void **state) {
    (void)state;
    struct compactor *c = start(COMPACT_REVISION, 1000);
    assert_int_equal(compactor_step_ms(c), 5 * MINUTE_MS);
    assert_int_equal(compactor_tick(c, 1, 999, 0), 0);
    assert_int_equal(compactor_tick(c, 2, 1000, 0), 0);
    assert_int_equal(compactor_tick(c, 3, 1001, 0), 1);
    assert_int_equal(compactor_tick(c, 4, 5000, 1), 4000);
    assert_int_equal(compactor_tick(c, 5, 5000, 4000), 0);
    assert_int_equal(compactor_tick(c, 6, 5000, 4500), 0);
    compactor_free(c);
}

static void without_retention_it_is_off(void **state) {
    (void)state;
    struct compactor *c = start(COMPACT_OFF, 0);
    assert_int_equal(compactor_step_ms(c), 0);
    assert_int_equal(compactor_tick(c, HOUR_MS, 1000, 0), 0);
    compactor_free(c);
    compactor_free(NULL);
}

static void check_flags(const char *mode, const char *retention, enum compact_mode is,
                        uint64_t value) {
    struct compact_options o;
    struct why why;
    assert_int_equal(compact_options_parse(mode, retention, &o, &why), OK);
    assert_int_equal(o.mode, is);
    assert_int_equal(o.retention, value);
}

static void the_flags_are_etcds(void **state) {
    (void)state;
    check_flags(NULL, NULL, COMPACT_OFF, 0);
    check_flags("periodic", "0", COMPACT_OFF, 0);
    check_flags("revision", "0", COMPACT_OFF, 0);
    check_flags(NULL, "1", COMPACT_PERIODIC, HOUR_MS);
    check_flags("periodic", "10m", COMPACT_PERIODIC, 10 * MINUTE_MS);
    check_flags("periodic", "1h30m", COMPACT_PERIODIC, 90 * MINUTE_MS);
    check_flags("periodic", "72h", COMPACT_PERIODIC, 72 * HOUR_MS);
    check_flags("periodic", "5s", COMPACT_PERIODIC, 5000);
    check_flags("periodic", "1s500ms", COMPACT_PERIODIC, 1500);
    check_flags("revision", "1000", COMPACT_REVISION, 1000);
}

static void what_no_flag_can_be_is_refused(void **state) {
    (void)state;
    static const char *const wrong[][2] = {{"often", "1"},
                                           {"", "1"},
                                           {"periodic", ""},
                                           {"periodic", "-1"},
                                           {"periodic", "1x"},
                                           {"periodic", "h"},
                                           {"periodic", "1h30"},
                                           {"periodic", "1ms"},
                                           {"periodic", "99999999999999999999h"},
                                           {"periodic", "100000h"},
                                           {"revision", "1h"},
                                           {"revision", ""},
                                           {"revision", "99999999999999999999"}};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct compact_options o;
        struct why why = {0};
        enum err e = compact_options_parse(wrong[i][0], wrong[i][1], &o, &why);
        assert_int_equal(e, ERR_USAGE);
        assert_true(why.text[0] != '\0');
    }
}

struct sweep {
    struct compactor *c;
    enum err e;
};

static void run_new(void *ctx) {
    struct sweep *s = ctx;
    s->c = NULL;
    s->e = compactor_new(&(struct compact_options){COMPACT_PERIODIC, HOUR_MS}, &s->c);
}

static void check_new(void *ctx, bool fired) {
    struct sweep *s = ctx;
    assert_int_equal(s->e, fired ? ERR_NOMEM : OK);
    compactor_free(s->c);
}

static void without_memory_there_is_none(void **state) {
    (void)state;
    struct sweep s;
    assert_int_equal(fault_sweep_alloc(run_new, check_new, &s), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_period_of_history_is_kept_and_no_more),
        cmocka_unit_test(a_long_period_is_noted_in_longer_steps),
        cmocka_unit_test(nothing_new_is_nothing_to_compact),
        cmocka_unit_test(what_failed_is_tried_again_at_the_next_tick),
        cmocka_unit_test(so_many_revisions_are_kept),
        cmocka_unit_test(without_retention_it_is_off),
        cmocka_unit_test(the_flags_are_etcds),
        cmocka_unit_test(what_no_flag_can_be_is_refused),
        cmocka_unit_test(without_memory_there_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
