/* The history against a plain array: events are added and dropped at random, and after each step
 * every question gives what the array says; memory that fails changes nothing; a million events
 * cost 8 bytes each and are found again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <malloc.h>
#include <stdlib.h>

#include "store/history.h"
#include "tests/lib/fault.h"

#define EVENTS 20000

static uint64_t random_next(uint64_t *seed) {
    uint64_t z = *seed += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

struct model {
    struct history *h;
    struct item *at[EVENTS]; /* all that were ever added; owned */
    uint64_t first, end;
    uint64_t revision; /* of the newest */
};

static struct item *event(uint64_t revision) {
    struct kv kv = {.mod_revision = revision};
    struct item *i = item_copy(&kv);
    assert_non_null(i);
    return i;
}

/* Some share a revision, some revisions have no event. */
static void add(struct model *m, uint64_t *seed) {
    m->revision += random_next(seed) % 3;
    m->at[m->end] = event(m->revision);
    assert_int_equal(history_reserve(m->h), OK);
    assert_int_equal(history_add(m->h, m->at[m->end]), m->end);
    m->end++;
}

static void drop(struct model *m, uint64_t *seed) {
    uint64_t until = m->first + random_next(seed) % (m->end - m->first + 1);
    history_drop(m->h, until);
    m->first = until;
}

static uint64_t find(const struct model *m, uint64_t revision) {
    uint64_t p = m->first;
    while (p < m->end && item_born(m->at[p]) < revision)
        p++;
    return p;
}

static void check(const struct model *m, uint64_t *seed) {
    assert_int_equal(history_first(m->h), m->first);
    assert_int_equal(history_end(m->h), m->end);
    if (m->first < m->end) {
        uint64_t p = m->first + random_next(seed) % (m->end - m->first);
        assert_ptr_equal(history_at(m->h, p), m->at[p]);
        assert_ptr_equal(history_at(m->h, m->first), m->at[m->first]);
        assert_ptr_equal(history_at(m->h, m->end - 1), m->at[m->end - 1]);
    }
    uint64_t revision = random_next(seed) % (m->revision + 3);
    assert_int_equal(history_find(m->h, revision), find(m, revision));
}

static void free_model(struct model *m) {
    history_free(m->h);
    for (uint64_t p = 0; p < m->end; p++)
        free(m->at[p]);
    free(m);
}

static struct model *new_model(void) {
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    assert_int_equal(history_new(&m->h), OK);
    return m;
}

static void it_answers_as_an_array_would(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 6; seed++) {
        uint64_t random = seed;
        struct model *m = new_model();
        while (m->end < EVENTS) {
            uint64_t many = 1 + random_next(&random) % 500;
            for (uint64_t i = 0; i < many && m->end < EVENTS; i++)
                add(m, &random);
            check(m, &random);
            if (random_next(&random) % (2 + seed * 4) == 0) drop(m, &random);
            check(m, &random);
        }
        for (unsigned i = 0; i < 100; i++)
            check(m, &random);
        free_model(m);
    }
}

static void dropping_all_leaves_an_empty_one_that_goes_on(void **state) {
    (void)state;
    uint64_t seed = 3;
    struct model *m = new_model();
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 2048; i++) /* ends where a block ends */
            add(m, &seed);
        m->first = m->end;
        history_drop(m->h, m->end);
        check(m, &seed);
        history_drop(m->h, m->end - 1); /* is gone already */
        check(m, &seed);
    }
    free_model(m);
}

struct reserving {
    struct model *m;
    enum err e; /* of the reserve */
};

static void reserve(void *ctx) {
    struct reserving *r = ctx;
    r->e = history_reserve(r->m->h);
}

static void nothing_changed(void *ctx, bool fired) {
    struct reserving *r = ctx;
    uint64_t seed = r->m->end;
    assert_int_equal(r->e, fired ? ERR_NOMEM : OK);
    check(r->m, &seed);
}

static void memory_that_fails_changes_nothing(void **state) {
    (void)state;
    uint64_t seed = 5;
    unsigned fired = 0;
    struct model *m = new_model();
    struct reserving r = {.m = m};
    while (m->end < EVENTS) {
        if (m->end % 256 == 0) fired += fault_sweep_alloc(reserve, nothing_changed, &r);
        add(m, &seed);
    }
    assert_in_range(fired, EVENTS / 2048, 2 * EVENTS / 2048 + 2);
    free_model(m);
}

static void a_million_events_cost_8_bytes_each(void **state) {
    (void)state;
    struct history *h;
    struct item *one = event(7);
    assert_int_equal(history_new(&h), OK);
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    for (unsigned i = 0; i < 1000000; i++) {
        assert_int_equal(history_reserve(h), OK);
        (void)history_add(h, one);
    }
    size_t used = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    assert_true(used < 8100000);
    assert_int_equal(history_find(h, 7), 0);
    assert_int_equal(history_find(h, 8), 1000000);
    history_drop(h, 1000000);
    assert_int_equal(history_find(h, 0), 1000000);
    history_free(h);
    free(one);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_answers_as_an_array_would),
        cmocka_unit_test(dropping_all_leaves_an_empty_one_that_goes_on),
        cmocka_unit_test(memory_that_fails_changes_nothing),
        cmocka_unit_test(a_million_events_cost_8_bytes_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
