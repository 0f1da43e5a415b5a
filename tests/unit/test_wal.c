/* The log: what was appended is there, after any number of openings, truncations and compactions;
 * what is asked wrongly is refused. Faults, crashes and damage: test_wal_faults.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/disk_sim.h"
#include "tests/lib/log_box.h"

static struct keyring *keys;
static struct disk *keys_disk;

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

static void must(enum err e, const struct why *why) {
    if (e != OK) fail_msg("%s: %s", err_name(e), why->text);
}

static struct box new_box(void) { return (struct box){.disk = disk_sim_new(7), .keys = keys}; }

static void drop_box(struct box *b) {
    box_free(b);
    disk_sim_free(b->disk);
}

static void open_box(struct box *b) {
    struct why why = {0};
    must(box_open(b, &why), &why);
    assert_false(b->wrong);
}

static void reopen(struct box *b) {
    box_close(b);
    open_box(b);
}

static void append(struct box *b, uint64_t term, size_t n, size_t size_max) {
    struct why why = {0};
    must(box_append(b, term, n, size_max, &why), &why);
}

static void check_read(struct box *b, uint64_t index, uint64_t term) {
    struct why why = {0};
    struct entry *e = NULL;
    must(wal_read(b->wal, index, &e, &why), &why);
    assert_int_equal(e->index, index);
    assert_int_equal(e->term, term);
    assert_true(box_entry_right(e));
    entry_drop(e);
}

static void what_was_appended_is_there_after_opening_again(void **state) {
    (void)state;
    struct box b = new_box();
    open_box(&b);
    assert_int_equal(wal_first(b.wal), 1);
    assert_int_equal(wal_last(b.wal), 0);
    for (uint64_t i = 0; i < 40; i++)
        append(&b, 1, 1 + i % 7, 3000);
    uint64_t last = wal_last(b.wal), bytes = wal_bytes(b.wal);
    for (uint64_t i = 1; i <= last; i++)
        check_read(&b, i, 1);
    reopen(&b);
    assert_int_equal(b.first, 1);
    assert_int_equal(b.count, last);
    assert_int_equal(wal_last(b.wal), last);
    assert_int_equal(wal_bytes(b.wal), bytes);
    assert_false(b.torn);
    for (uint64_t i = last; i >= 1; i--)
        check_read(&b, i, 1);
    drop_box(&b);
}

static void an_entry_that_is_not_there_is_not_found(void **state) {
    (void)state;
    struct box b = new_box();
    struct entry *e = NULL;
    open_box(&b);
    assert_int_equal(wal_read(b.wal, 1, &e, NULL), ERR_NOT_FOUND);
    append(&b, 1, 3, 10);
    assert_int_equal(wal_read(b.wal, 0, &e, NULL), ERR_NOT_FOUND);
    assert_int_equal(wal_read(b.wal, 4, &e, NULL), ERR_NOT_FOUND);
    drop_box(&b);
}

static void entries_that_do_not_follow_are_refused(void **state) {
    (void)state;
    struct box b = new_box();
    struct entry *e = NULL;
    open_box(&b);
    assert_int_equal(box_entry(2, 1, 10, &e), OK);
    assert_int_equal(wal_append(b.wal, &e, 1, NULL), ERR_INVALID);
    assert_int_equal(wal_append(b.wal, &e, 0, NULL), ERR_INVALID);
    entry_drop(e);
    append(&b, 1, 1, 10);
    drop_box(&b);
}

static void a_batch_is_as_large_as_a_record_and_no_larger(void **state) {
    (void)state;
    struct box b = new_box();
    struct entry *e[3];
    open_box(&b);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(entry_new(i + 1, 1, ENTRY_COMMAND, 30000, &e[i]), OK);
        memset(e[i]->data, 0, 30000);
    }
    assert_int_equal(wal_batch(b.wal, e, 3), 2);
    assert_int_equal(wal_append(b.wal, e, 3, NULL), ERR_TOO_LARGE);
    assert_int_equal(wal_append(b.wal, e, 2, NULL), OK);
    assert_int_equal(wal_append(b.wal, e + 2, 1, NULL), OK);
    assert_int_equal(wal_last(b.wal), 3);
    for (size_t i = 0; i < 3; i++)
        entry_drop(e[i]);
    drop_box(&b);
}

static void a_truncated_tail_is_gone_and_its_place_is_taken(void **state) {
    (void)state;
    struct box b = new_box();
    open_box(&b);
    append(&b, 1, 10, 100);
    append(&b, 1, 10, 100);
    assert_int_equal(wal_truncate(b.wal, 15, NULL), OK);
    assert_int_equal(wal_last(b.wal), 14);
    reopen(&b);
    assert_int_equal(b.count, 14);
    append(&b, 2, 3, 100);
    assert_int_equal(wal_truncate(b.wal, 16, NULL), OK);
    assert_int_equal(wal_truncate(b.wal, 16, NULL), OK);
    append(&b, 3, 3, 100);
    check_read(&b, 14, 1);
    check_read(&b, 15, 2);
    check_read(&b, 16, 3);
    reopen(&b);
    assert_int_equal(b.count, 18);
    assert_int_equal(b.terms[13], 1);
    assert_int_equal(b.terms[14], 2);
    assert_int_equal(b.terms[15], 3);
    drop_box(&b);
}

static void a_reset_leaves_nothing_before_it(void **state) {
    (void)state;
    struct box b = new_box();
    open_box(&b);
    append(&b, 1, 10, 100);
    assert_int_equal(wal_reset(b.wal, 500, NULL), OK);
    assert_int_equal(wal_first(b.wal), 501);
    assert_int_equal(wal_last(b.wal), 500);
    assert_int_equal(wal_bytes(b.wal), 0);
    reopen(&b);
    assert_int_equal(b.count, 0);
    assert_int_equal(wal_first(b.wal), 501);
    append(&b, 2, 2, 100);
    reopen(&b);
    assert_int_equal(b.first, 501);
    assert_int_equal(b.count, 2);
    drop_box(&b);
}

static void compaction_removes_whole_segments_only(void **state) {
    (void)state;
    struct box b = new_box();
    open_box(&b);
    while (wal_last(b.wal) < 100)
        append(&b, 1, 1, 4000);
    assert_int_equal(wal_compact(b.wal, 50, NULL), OK);
    uint64_t first = wal_first(b.wal);
    assert_true(first > 1 && first <= 51);
    reopen(&b);
    assert_int_equal(b.first, first);
    assert_int_equal(b.count, 101 - first);
    for (uint64_t i = first; i <= 100; i++)
        check_read(&b, i, 1);
    assert_int_equal(wal_roll(b.wal, NULL), OK);
    assert_int_equal(wal_compact(b.wal, 100, NULL), OK);
    assert_int_equal(wal_first(b.wal), 101);
    assert_int_equal(wal_last(b.wal), 100);
    reopen(&b);
    assert_int_equal(wal_last(b.wal), 100);
    drop_box(&b);
}

static void a_new_key_generation_takes_over_and_the_old_one_is_not_needed(void **state) {
    (void)state;
    struct box b = new_box();
    open_box(&b);
    append(&b, 1, 5, 100);
    uint32_t old = keyring_generation(keys);
    assert_int_equal(wal_oldest_generation(b.wal), old);
    assert_int_equal(keyring_rotate(keys, NULL), OK);
    assert_int_equal(wal_roll(b.wal, NULL), OK);
    append(&b, 1, 5, 100);
    assert_int_equal(wal_oldest_generation(b.wal), old);
    reopen(&b);
    assert_int_equal(b.count, 10);
    assert_int_equal(wal_compact(b.wal, 5, NULL), OK);
    assert_int_equal(wal_oldest_generation(b.wal), old + 1);
    assert_int_equal(ballot_reseal(b.ballot, NULL), OK);
    assert_int_equal(ballot_oldest_generation(b.ballot), old + 1);
    assert_int_equal(keyring_destroy_before(keys, old + 1, NULL), OK);
    reopen(&b);
    assert_int_equal(b.count, 5);
    drop_box(&b);
}

static void a_full_disk_refuses_and_goes_on_when_there_is_space(void **state) {
    (void)state;
    struct box b = new_box();
    struct why why = {0};
    open_box(&b);
    disk_sim_limit(b.disk, 3 * BOX_SEGMENT + 16 * KIB);
    enum err e;
    do
        e = box_append(&b, 1, 1, 4000, &why);
    while (e == OK);
    assert_int_equal(e, ERR_NOSPACE);
    uint64_t last = wal_last(b.wal);
    assert_true(last > 10);
    assert_int_equal(box_append(&b, 1, 1, 4000, NULL), ERR_NOSPACE);
    assert_int_equal(wal_truncate(b.wal, last, NULL), ERR_NOSPACE);
    assert_int_equal(wal_last(b.wal), last);
    reopen(&b);
    assert_int_equal(b.count, last);
    assert_int_equal(box_append(&b, 1, 1, 4000, NULL), ERR_NOSPACE);
    disk_sim_limit(b.disk, DISK_SIM_NEVER);
    append(&b, 1, 1, 4000);
    reopen(&b);
    assert_int_equal(b.count, last + 1);
    drop_box(&b);
}

static void a_prepared_segment_is_a_reserve_on_a_full_disk(void **state) {
    (void)state;
    struct box b = new_box();
    open_box(&b);
    assert_true(wal_wants_prepare(b.wal));
    assert_int_equal(wal_prepare(b.wal, NULL), OK);
    assert_false(wal_wants_prepare(b.wal));
    disk_sim_limit(b.disk, 0);
    append(&b, 1, 1, 100);
    assert_true(wal_wants_prepare(b.wal));
    assert_int_equal(wal_prepare(b.wal, NULL), ERR_NOSPACE);
    drop_box(&b);
}

/* ---- a model ---- */

#define MODEL_MAX 4096

struct model {
    uint64_t first, next;      /* live: [first, next) */
    uint64_t terms[MODEL_MAX]; /* by index */
    uint64_t term;             /* of the next append */
    uint64_t random;
};

static uint64_t draw(struct model *m, uint64_t below) {
    m->random = m->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (m->random >> 33) % below;
}

static void model_check(struct box *b, struct model *m) {
    uint64_t first = wal_first(b->wal);
    assert_true(first <= m->first || m->first == m->next);
    assert_int_equal(wal_last(b->wal) + 1, m->next);
    for (uint64_t i = m->first; i < m->next; i++)
        check_read(b, i, m->terms[i]);
}

static void model_step(struct box *b, struct model *m) {
    struct why why = {0};
    switch (draw(m, 12)) {
    case 0:
        m->term++;
        if (m->first == m->next) break;
        m->next = m->first + draw(m, m->next - m->first);
        if (m->next < m->first) m->next = m->first;
        must(wal_truncate(b->wal, m->next, &why), &why);
        break;
    case 1:
        if (m->first == m->next) break;
        m->first += draw(m, m->next - m->first);
        must(wal_compact(b->wal, m->first - 1, &why), &why);
        break;
    case 2:
        reopen(b);
        for (size_t i = 0; i < b->count; i++)
            if (b->first + i >= m->first) assert_int_equal(b->terms[i], m->terms[b->first + i]);
        break;
    case 3: must(wal_prepare(b->wal, &why), &why); break;
    case 4:
        if (draw(m, 8) == 0) {
            m->next += draw(m, 20);
            m->first = m->next;
            must(wal_reset(b->wal, m->first - 1, &why), &why);
        } else {
            must(wal_roll(b->wal, &why), &why);
        }
        break;
    case 5: must(wal_mark(b->wal, &why), &why); break;
    default: {
        size_t n = 1 + draw(m, 8);
        if (m->next + n >= MODEL_MAX) break;
        append(b, m->term, n, draw(m, 3) == 0 ? 6000 : 200);
        for (size_t i = 0; i < n; i++)
            m->terms[m->next++] = m->term;
    }
    }
}

static void a_long_random_life_agrees_with_a_list_in_memory(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct box b = new_box();
        struct model m = {.first = 1, .next = 1, .term = 1, .random = seed};
        disk_sim_direct(b.disk, seed % 2 == 0);
        open_box(&b);
        for (int i = 0; i < 150; i++) {
            model_step(&b, &m);
            if (i % 10 == 0) model_check(&b, &m);
        }
        reopen(&b);
        model_check(&b, &m);
        drop_box(&b);
    }
}

/* ---- threads ---- */

struct threads {
    struct box *b;
    uint64_t total; /* entries to append */
};

static void *prepare_often(void *ctx) {
    struct threads *t = ctx;
    while (wal_last(t->b->wal) < t->total)
        if (wal_wants_prepare(t->b->wal) && wal_prepare(t->b->wal, NULL) != OK) abort();
    return NULL;
}

static void *append_all(void *ctx) {
    struct threads *t = ctx;
    while (wal_last(t->b->wal) < t->total) {
        if (box_append(t->b, 1, 1, 2000, NULL) != OK) abort();
        if (wal_last(t->b->wal) % 50 == 0 &&
            wal_compact(t->b->wal, wal_last(t->b->wal) - 20, NULL) != OK)
            abort();
    }
    return NULL;
}

static void reading_and_preparing_run_beside_appending(void **state) {
    (void)state;
    struct box b = new_box();
    open_box(&b);
    struct threads t = {.b = &b, .total = 600};
    pthread_t a, p;
    assert_int_equal(pthread_create(&a, NULL, append_all, &t), 0);
    assert_int_equal(pthread_create(&p, NULL, prepare_often, &t), 0);
    for (uint64_t i = 0; wal_last(b.wal) < t.total; i++) {
        struct entry *e = NULL;
        uint64_t first = wal_first(b.wal), last = wal_last(b.wal);
        if (first > last) continue;
        enum err err = wal_read(b.wal, first + i % (last - first + 1), &e, NULL);
        assert_true(err == OK || err == ERR_NOT_FOUND);
        if (err == OK) assert_true(box_entry_right(e));
        entry_drop(e);
    }
    assert_int_equal(pthread_join(a, NULL), 0);
    assert_int_equal(pthread_join(p, NULL), 0);
    drop_box(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_is_there_after_opening_again),
        cmocka_unit_test(an_entry_that_is_not_there_is_not_found),
        cmocka_unit_test(entries_that_do_not_follow_are_refused),
        cmocka_unit_test(a_batch_is_as_large_as_a_record_and_no_larger),
        cmocka_unit_test(a_truncated_tail_is_gone_and_its_place_is_taken),
        cmocka_unit_test(a_reset_leaves_nothing_before_it),
        cmocka_unit_test(compaction_removes_whole_segments_only),
        cmocka_unit_test(a_new_key_generation_takes_over_and_the_old_one_is_not_needed),
        cmocka_unit_test(a_full_disk_refuses_and_goes_on_when_there_is_space),
        cmocka_unit_test(a_prepared_segment_is_a_reserve_on_a_full_disk),
        cmocka_unit_test(a_long_random_life_agrees_with_a_list_in_memory),
        cmocka_unit_test(reading_and_preparing_run_beside_appending),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
