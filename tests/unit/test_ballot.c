/* The ballot: what was stored holds, whatever is cut, flipped or copied is found out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/ballot.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/fault.h"
#include "tests/lib/log_box.h"

static struct keyring *keys;
static struct disk *keys_disk;
static const struct identity identity = {"cluster", "node"};

static int set_up(void **state) {
    (void)state;
    keys = box_keys(&keys_disk);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    keyring_close(keys);
    disk_sim_free(keys_disk);
    return 0;
}

static enum err open_on(struct disk *d, struct ballot **b, struct why *why) {
    return ballot_open(d, keys, &identity, SEAL_XCHACHA20, b, why);
}

static struct ballot *must_open(struct disk *d) {
    struct ballot *b = NULL;
    struct why why = {0};
    enum err e = open_on(d, &b, &why);
    if (e != OK) fail_msg("%s: %s", err_name(e), why.text);
    return b;
}

static void check(struct ballot *b, uint64_t term, uint64_t vote) {
    uint64_t t, v;
    ballot_get(b, &t, &v);
    assert_int_equal(t, term);
    assert_int_equal(v, vote);
}

static void a_vote_holds(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct ballot *b = must_open(d);
    struct watermark w = {.segment = 3, .records = 9, .first = 2, .tag = {1, 2, 3}};
    check(b, 0, 0);
    assert_int_equal(ballot_vote(b, 1, 0, NULL), OK);
    assert_int_equal(ballot_vote(b, 1, 2, NULL), OK);
    assert_int_equal(ballot_mark(b, &w, NULL), OK);
    uint64_t count = ballot_count(b);
    ballot_close(b);
    disk_sim_crash(d);
    b = must_open(d);
    check(b, 1, 2);
    assert_int_equal(ballot_count(b), count);
    struct watermark seen = ballot_watermark(b);
    assert_memory_equal(&seen, &w, sizeof w);
    ballot_close(b);
    disk_sim_free(d);
}

static void nothing_is_taken_back(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct ballot *b = must_open(d);
    struct watermark w = {.segment = 3, .records = 9, .first = 2}, less = w;
    assert_int_equal(ballot_vote(b, 5, 2, NULL), OK);
    assert_int_equal(ballot_vote(b, 5, 2, NULL), OK);
    assert_int_equal(ballot_vote(b, 5, 3, NULL), ERR_INTERNAL);
    assert_int_equal(ballot_vote(b, 4, 2, NULL), ERR_INTERNAL);
    assert_int_equal(ballot_mark(b, &w, NULL), OK);
    less.records--;
    assert_int_equal(ballot_mark(b, &less, NULL), ERR_INTERNAL);
    less = w;
    less.first = 1;
    assert_int_equal(ballot_mark(b, &less, NULL), ERR_INTERNAL);
    check(b, 5, 2);
    ballot_close(b);
    disk_sim_free(d);
}

static struct disk *written(void) {
    struct disk *d = disk_sim_new(1);
    struct ballot *b = must_open(d);
    for (uint64_t term = 1; term < 6; term++)
        assert_int_equal(ballot_vote(b, term, 1, NULL), OK);
    ballot_close(b);
    return d;
}

static void every_flipped_bit_is_found(void **state) {
    (void)state;
    struct disk *d = written();
    for (uint64_t at = 0; at < 2 * BLOCK_SIZE; at++) {
        struct ballot *b = NULL;
        struct why why = {0};
        assert_true(disk_sim_flip(d, "ballot", at, (uint8_t)(1u << at % 8)));
        assert_int_equal(open_on(d, &b, &why), ERR_CORRUPT);
        assert_non_null(strstr(why.text, "ballot: byte "));
        assert_true(disk_sim_flip(d, "ballot", at, (uint8_t)(1u << at % 8)));
    }
    struct ballot *b = must_open(d);
    check(b, 5, 1);
    ballot_close(b);
    disk_sim_free(d);
}

static void another_size_is_refused(void **state) {
    (void)state;
    for (uint64_t size = 0; size < 3 * BLOCK_SIZE; size += 511) {
        struct disk *d = written();
        struct ballot *b = NULL;
        assert_true(disk_sim_resize(d, "ballot", size));
        assert_int_equal(open_on(d, &b, NULL), ERR_CORRUPT);
        disk_sim_free(d);
    }
}

static void an_older_copy_is_found_by_the_count_that_others_saw(void **state) {
    (void)state;
    struct disk *d = written();
    struct disk *old = disk_sim_clone(d, 2);
    struct ballot *b = must_open(d);
    assert_int_equal(ballot_vote(b, 9, 1, NULL), OK);
    uint64_t seen = ballot_count(b);
    assert_int_equal(ballot_require(b, seen, "log", NULL), OK);
    ballot_close(b);
    for (int i = 0; i < 3; i++) {
        b = must_open(old);
        assert_int_equal(ballot_require(b, seen, "log", NULL), ERR_CORRUPT);
        ballot_close(b);
    }
    disk_sim_free(d);
    disk_sim_free(old);
}

static void a_ballot_of_another_node_is_refused(void **state) {
    (void)state;
    struct disk *d = written();
    struct identity other = {"cluster", "another"};
    struct ballot *b = NULL;
    assert_int_equal(ballot_open(d, keys, &other, SEAL_XCHACHA20, &b, NULL), ERR_CORRUPT);
    disk_sim_free(d);
}

static void a_missing_ballot_is_refused_beside_a_log(void **state) {
    (void)state;
    struct disk *d = written();
    struct ballot *b = NULL;
    struct why why = {0};
    assert_true(disk_sim_erase(d, "ballot"));
    assert_int_equal(d->make_dir(d, "log", NULL), OK);
    assert_int_equal(disk_write_file(d, "log/0000000000000001.seg", span_str("x"), NULL), OK);
    assert_int_equal(open_on(d, &b, &why), ERR_CORRUPT);
    assert_non_null(strstr(why.text, "ballot"));
    disk_sim_free(d);
}

static void resealing_leaves_no_old_generation(void **state) {
    (void)state;
    struct disk *d = written();
    struct ballot *b = must_open(d);
    uint32_t old = keyring_generation(keys);
    assert_int_equal(ballot_oldest_generation(b), old);
    assert_int_equal(keyring_rotate(keys, NULL), OK);
    assert_int_equal(ballot_vote(b, 7, 1, NULL), OK);
    assert_int_equal(ballot_oldest_generation(b), old);
    assert_int_equal(ballot_reseal(b, NULL), OK);
    assert_int_equal(ballot_oldest_generation(b), old + 1);
    ballot_close(b);
    b = must_open(d);
    check(b, 7, 1);
    assert_int_equal(ballot_oldest_generation(b), old + 1);
    ballot_close(b);
    disk_sim_free(d);
}

/* Votes until something fails; *acknowledged is the last term that was said to be durable. */
static void vote_on(struct disk *d, uint64_t *acknowledged, uint64_t *tried) {
    struct ballot *b = NULL;
    if (open_on(d, &b, NULL) != OK) return;
    uint64_t term, vote;
    ballot_get(b, &term, &vote);
    while (term < 8) {
        *tried = ++term;
        if (ballot_vote(b, term, term, NULL) != OK) break;
        *acknowledged = term;
    }
    ballot_close(b);
}

static void after_a_power_cut_anywhere_the_last_vote_holds(void **state) {
    (void)state;
    bool struck = true;
    for (uint64_t n = 1; struck; n++)
        for (uint64_t seed = 0; seed < 8; seed++) {
            struct disk *d = disk_sim_new(seed);
            uint64_t acknowledged = 0, tried = 0, term, vote;
            disk_sim_direct(d, seed % 2 == 0);
            disk_sim_cut_at(d, n);
            vote_on(d, &acknowledged, &tried);
            struck = disk_sim_failed(d);
            disk_sim_crash(d);
            struct ballot *b = must_open(d);
            ballot_get(b, &term, &vote);
            assert_true(term == acknowledged || term == tried);
            assert_int_equal(vote, term);
            ballot_close(b);
            disk_sim_free(d);
        }
}

static void any_failing_call_is_told_and_harmless(void **state) {
    (void)state;
    bool struck = true;
    for (uint64_t n = 1; struck; n++) {
        struct disk *d = disk_sim_new(n);
        uint64_t acknowledged = 0, tried = 0, term, vote;
        disk_sim_fail_at(d, n, ERR_IO);
        vote_on(d, &acknowledged, &tried);
        struck = disk_sim_failed(d);
        disk_sim_fail_at(d, DISK_SIM_NEVER, OK);
        /* started again without a crash: what is believed now must survive one */
        struct ballot *b = must_open(d);
        ballot_get(b, &term, &vote);
        assert_true(term == acknowledged || term == tried);
        ballot_close(b);
        disk_sim_crash(d);
        b = must_open(d);
        check(b, term, vote);
        ballot_close(b);
        disk_sim_free(d);
    }
}

static void any_failing_allocation_is_told_and_harmless(void **state) {
    (void)state;
    bool fired = true;
    for (unsigned n = 1; fired; n++) {
        struct disk *d = disk_sim_new(n);
        uint64_t acknowledged = 0, tried = 0, term, vote;
        fault_alloc_at(n);
        vote_on(d, &acknowledged, &tried);
        fired = fault_alloc_fired();
        fault_alloc_off();
        struct ballot *b = must_open(d);
        ballot_get(b, &term, &vote);
        assert_true(term == acknowledged || term == tried);
        ballot_close(b);
        disk_sim_free(d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vote_holds),
        cmocka_unit_test(nothing_is_taken_back),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(another_size_is_refused),
        cmocka_unit_test(an_older_copy_is_found_by_the_count_that_others_saw),
        cmocka_unit_test(a_ballot_of_another_node_is_refused),
        cmocka_unit_test(a_missing_ballot_is_refused_beside_a_log),
        cmocka_unit_test(resealing_leaves_no_old_generation),
        cmocka_unit_test(after_a_power_cut_anywhere_the_last_vote_holds),
        cmocka_unit_test(any_failing_call_is_told_and_harmless),
        cmocka_unit_test(any_failing_allocation_is_told_and_harmless),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
