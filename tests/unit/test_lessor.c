/* The leader's clock of the leases against a plain table of deadlines: random grants, renewals,
 * revocations and steps of time; a leader that stood still; a new leader; what has been given as
 * due; that an allocation that fails changes nothing; and what a hundred thousand leases cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "store/lessor.h"
#include "tests/lib/fault.h"
#include "tests/lib/states.h"

#define IDS 300

struct model {
    struct {
        uint64_t ttl_ms, due_ms; /* ttl 0: not there */
        bool given;
    } lease[IDS + 1]; /* by id */
    uint64_t now_ms;
};

static struct leases grant_all(unsigned n, uint64_t ttl_ms) {
    struct leases all;
    assert_int_equal(leases_start(&all), OK);
    for (unsigned id = 1; id <= n; id++)
        assert_int_equal(lease_grant(&all, &(struct lease){id, ttl_ms}), OK);
    return all;
}

static struct lessor *lead(unsigned n, uint64_t ttl_ms, uint64_t now_ms) {
    struct leases all = grant_all(n, ttl_ms);
    struct lessor *l;
    assert_int_equal(lessor_new(&l), OK);
    assert_false(lessor_leads(l));
    assert_int_equal(lessor_lead(l, &all, now_ms), OK);
    assert_true(lessor_leads(l));
    leases_end(&all);
    return l;
}

static size_t due(struct lessor *l, uint64_t now_ms, uint64_t *ids, size_t max) {
    uint64_t next_ms;
    size_t n = lessor_due(l, now_ms, ids, max, &next_ms);
    assert_true(next_ms >= now_ms && next_ms <= now_ms + LESSOR_TICK_MS);
    return n;
}

/* To a moment in ticks that a loop that runs would make; nothing must run out before it. */
static void run_to(struct lessor *l, uint64_t from_ms, uint64_t to_ms) {
    uint64_t ids[1];
    for (uint64_t at = from_ms; at < to_ms; at += LESSOR_TICK_MS)
        assert_int_equal(due(l, at, ids, 1), 0);
}

static uint64_t remaining(const struct lessor *l, uint64_t id, uint64_t now_ms) {
    uint64_t ms;
    assert_int_equal(lessor_remaining(l, id, now_ms, &ms), OK);
    return ms;
}

static void check(const struct lessor *l, const struct model *m) {
    for (uint64_t id = 1; id <= IDS; id++) {
        uint64_t ms, is = m->lease[id].due_ms;
        enum err e = lessor_remaining(l, id, m->now_ms, &ms);
        assert_int_equal(e, m->lease[id].ttl_ms != 0 ? OK : ERR_LEASE_NOT_FOUND);
        if (e == OK)
            assert_int_equal(ms, m->lease[id].given || is <= m->now_ms ? 0 : is - m->now_ms);
    }
}

/* The lease that runs out first and may be given; 0: none has. */
static uint64_t first_due(const struct model *m) {
    uint64_t first = 0;
    for (uint64_t id = 1; id <= IDS; id++)
        if (m->lease[id].ttl_ms != 0 && m->lease[id].due_ms <= m->now_ms &&
            (first == 0 || m->lease[id].due_ms < m->lease[first].due_ms))
            first = id;
    return first;
}

static void tick(struct lessor *l, struct model *m, size_t max) {
    uint64_t ids[8], next_ms;
    size_t n = lessor_due(l, m->now_ms, ids, max, &next_ms);
    for (size_t i = 0; i < n; i++) {
        uint64_t first = first_due(m);
        assert_int_not_equal(first, 0);
        assert_true(ids[i] >= 1 && ids[i] <= IDS && m->lease[ids[i]].ttl_ms != 0);
        assert_int_equal(m->lease[ids[i]].due_ms, m->lease[first].due_ms);
        m->lease[ids[i]].given = true;
        m->lease[ids[i]].due_ms = m->now_ms + LESSOR_RETRY_MS;
    }
    if (n < max) assert_int_equal(first_due(m), 0);
    uint64_t wait = LESSOR_TICK_MS;
    for (uint64_t id = 1; id <= IDS; id++) {
        if (m->lease[id].ttl_ms == 0 || m->lease[id].due_ms >= m->now_ms + wait) continue;
        wait = m->lease[id].due_ms > m->now_ms ? m->lease[id].due_ms - m->now_ms : 0;
    }
    assert_int_equal(next_ms, m->now_ms + wait);
}

static void renew(struct lessor *l, struct model *m, uint64_t id) {
    uint64_t ttl_ms;
    bool there = m->lease[id].ttl_ms != 0 && !m->lease[id].given;
    enum err e = lessor_renew(l, id, m->now_ms, &ttl_ms);
    assert_int_equal(e, there ? OK : ERR_LEASE_NOT_FOUND);
    if (!there) return;
    assert_int_equal(ttl_ms, m->lease[id].ttl_ms);
    m->lease[id].due_ms = m->now_ms + ttl_ms;
}

static void step(struct lessor *l, struct model *m, uint64_t *seed) {
    uint64_t id = 1 + random_next(seed) % IDS, ttl_ms = 1 + random_next(seed) % 3000;
    switch (random_next(seed) % 8) {
    case 0:
    case 1:
        assert_int_equal(lessor_granted(l, &(struct lease){id, ttl_ms}, m->now_ms), OK);
        m->lease[id].ttl_ms = ttl_ms;
        m->lease[id].due_ms = m->now_ms + ttl_ms;
        m->lease[id].given = false;
        return;
    case 2:
        lessor_revoked(l, id);
        m->lease[id].ttl_ms = 0;
        return;
    case 3: m->now_ms += random_next(seed) % LESSOR_GAP_MS; return;
    case 4: tick(l, m, 1 + random_next(seed) % 8); return;
    default: renew(l, m, id); return;
    }
}

static void leases_run_out_when_their_time_is_over(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t random = seed;
        struct model m = {.now_ms = random_next(&random) % 1000000};
        struct lessor *l = lead(0, 0, m.now_ms);
        for (unsigned n = 0; n < 3000; n++) {
            step(l, &m, &random);
            /* A loop that runs: no gap for the leases' clock to leave out. */
            tick(l, &m, 1);
            if (n % 97 == 0) check(l, &m);
        }
        check(l, &m);
        lessor_free(l);
    }
}

static void a_lease_given_as_due_is_not_renewed_and_given_again_later(void **state) {
    (void)state;
    struct lessor *l = lead(1, 1000, 50);
    uint64_t ids[4], ttl_ms;
    run_to(l, 50, 1049);
    assert_int_equal(remaining(l, 1, 1049), 1);
    assert_int_equal(due(l, 1050, ids, 4), 1);
    assert_int_equal(ids[0], 1);
    assert_int_equal(remaining(l, 1, 1051), 0);
    assert_int_equal(lessor_renew(l, 1, 1051, &ttl_ms), ERR_LEASE_NOT_FOUND);
    run_to(l, 1051, 1049 + LESSOR_RETRY_MS);
    assert_int_equal(due(l, 1050 + LESSOR_RETRY_MS, ids, 4), 1);
    lessor_revoked(l, 1);
    lessor_revoked(l, 1);
    assert_int_equal(due(l, 1060 + LESSOR_RETRY_MS, ids, 4), 0);
    assert_int_equal(lessor_renew(l, 1, 5000, &ttl_ms), ERR_LEASE_NOT_FOUND);
    lessor_free(l);
}

static void a_leader_that_stood_still_takes_no_lease_when_it_wakes(void **state) {
    (void)state;
    struct lessor *l = lead(100, 1000, 0);
    uint64_t ids[100], ttl_ms, hour = 3600000;
    run_to(l, 0, 500);
    assert_int_equal(due(l, 500, ids, 100), 0);
    assert_int_equal(remaining(l, 1, 500 + hour), 500 - LESSOR_GAP_MS);
    assert_int_equal(due(l, 500 + hour, ids, 100), 0);
    /* The rest is theirs from here on, and a renewal gives just the TTL, nothing of the gap. */
    assert_int_equal(lessor_renew(l, 1, 500 + hour, &ttl_ms), OK);
    assert_int_equal(remaining(l, 1, 500 + hour), 1000);
    run_to(l, 500 + hour, 500 + hour + 500 - LESSOR_GAP_MS);
    assert_int_equal(due(l, hour + 1000 - LESSOR_GAP_MS, ids, 100), 99);
    run_to(l, hour + 1000 - LESSOR_GAP_MS, hour + 1500);
    assert_int_equal(due(l, hour + 1500, ids, 100), 1);
    lessor_free(l);
}

static void renewals_before_the_first_tick_after_a_gap_do_not_hide_it(void **state) {
    (void)state;
    struct lessor *l = lead(2, 1000, 0);
    uint64_t ids[2], ttl_ms;
    assert_int_equal(lessor_renew(l, 1, 60000, &ttl_ms), OK);
    assert_int_equal(lessor_granted(l, &(struct lease){3, 500}, 60000), OK);
    assert_int_equal(remaining(l, 2, 60000), 1000 - LESSOR_GAP_MS);
    assert_int_equal(remaining(l, 3, 60000), 500);
    assert_int_equal(due(l, 60000, ids, 2), 0);
    lessor_free(l);
}

static void a_clock_that_steps_back_is_waited_for(void **state) {
    (void)state;
    struct lessor *l = lead(1, 1000, 10000);
    uint64_t ids[1];
    assert_int_equal(due(l, 9000, ids, 1), 0);
    assert_int_equal(remaining(l, 1, 9000), 1000);
    assert_int_equal(remaining(l, 1, 10100), 900);
    lessor_free(l);
}

static void a_new_leader_gives_every_lease_its_whole_time(void **state) {
    (void)state;
    struct lessor *l = lead(500, 1000, 0);
    struct leases all = grant_all(400, 2000);
    uint64_t ids[8], ms, ttl_ms;
    run_to(l, 0, 999);
    assert_int_equal(due(l, 1000, ids, 8), 8);
    lessor_follow(l);
    assert_false(lessor_leads(l));
    assert_int_equal(lessor_remaining(l, 1, 1000, &ms), ERR_NOT_LEADER);
    assert_int_equal(lessor_renew(l, 1, 1000, &ttl_ms), ERR_NOT_LEADER);
    assert_int_equal(lessor_granted(l, &(struct lease){7, 1}, 1000), OK);
    assert_int_equal(due(l, 1100, ids, 8), 0);
    assert_int_equal(lessor_lead(l, &all, 90000), OK);
    for (uint64_t id = 1; id <= 400; id++)
        assert_int_equal(remaining(l, id, 90000), 2000);
    assert_int_equal(lessor_remaining(l, 401, 90000, &ms), ERR_LEASE_NOT_FOUND);
    /* To lead again at once, over what is there, is the same. */
    assert_int_equal(lessor_lead(l, &all, 91000), OK);
    assert_int_equal(remaining(l, 400, 91000), 2000);
    leases_end(&all);
    lessor_free(l);
}

static void leases_without_an_end_to_speak_of_are_counted_right(void **state) {
    (void)state;
    struct lessor *l = lead(3, TTL_MAX_S * 1000, 5);
    uint64_t ids[1];
    assert_int_equal(remaining(l, 2, 6), TTL_MAX_S * 1000 - 1);
    assert_int_equal(due(l, 100, ids, 1), 0);
    lessor_free(l);
}

struct sweep {
    struct leases all;
    struct lessor *l;
    enum err made, led, granted;
    unsigned grants;
};

static void run_leading(void *ctx) {
    struct sweep *s = ctx;
    s->l = NULL;
    s->grants = 0;
    s->led = s->granted = OK;
    s->made = lessor_new(&s->l);
    if (s->made != OK) return;
    s->led = lessor_lead(s->l, &s->all, 0);
    if (s->led != OK) return;
    for (uint64_t id = 1001; id < 1400 && s->granted == OK; id++, s->grants++)
        s->granted = lessor_granted(s->l, &(struct lease){id, 100}, 0);
}

static void check_leading(void *ctx, bool fired) {
    struct sweep *s = ctx;
    bool failed = s->made != OK || s->led != OK || s->granted != OK;
    assert_int_equal(failed, fired);
    if (s->made != OK) return;
    assert_int_equal(lessor_leads(s->l), s->led == OK);
    uint64_t ids[600], ms;
    if (s->led == OK) {
        unsigned there = s->grants - (s->granted != OK);
        assert_int_equal(due(s->l, 100, ids, 600), there);
        assert_int_equal(lessor_remaining(s->l, 100, 0, &ms), OK);
    }
    assert_int_equal(lessor_lead(s->l, &s->all, 0), OK);
    assert_int_equal(due(s->l, 100, ids, 600), 0);
    lessor_free(s->l);
}

static void without_memory_nothing_is_half_done(void **state) {
    (void)state;
    struct sweep s = {.all = grant_all(100, 5000)};
    assert_true(fault_sweep_alloc(run_leading, check_leading, &s) >= 10);
    leases_end(&s.all);
}

static double seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void a_hundred_thousand_leases_are_led_renewed_and_run_out(void **state) {
    (void)state;
    unsigned n = 100000;
    struct leases all = grant_all(n, 1000);
    struct lessor *l;
    uint64_t ttl_ms, ids[512], random = 3;
    assert_int_equal(lessor_new(&l), OK);
    double t0 = seconds();
    assert_int_equal(lessor_lead(l, &all, 0), OK);
    double t1 = seconds();
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(lessor_renew(l, 1 + random_next(&random) % n, i / 400, &ttl_ms), OK);
    double t2 = seconds();
    size_t gone = 0, some;
    for (uint64_t at = LESSOR_TICK_MS; at <= 1300; at += LESSOR_TICK_MS)
        while ((some = due(l, at, ids, 512)) > 0) {
            for (size_t i = 0; i < some; i++)
                lessor_revoked(l, ids[i]);
            gone += some;
        }
    double t3 = seconds();
    assert_int_equal(gone, n);
    print_message("lead %.1f ms, renew %.0f ns, run out and revoked %.0f ns a lease\n",
                  (t1 - t0) * 1e3, (t2 - t1) * 1e9 / n, (t3 - t2) * 1e9 / n);
    lessor_free(l);
    leases_end(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_run_out_when_their_time_is_over),
        cmocka_unit_test(a_lease_given_as_due_is_not_renewed_and_given_again_later),
        cmocka_unit_test(a_leader_that_stood_still_takes_no_lease_when_it_wakes),
        cmocka_unit_test(renewals_before_the_first_tick_after_a_gap_do_not_hide_it),
        cmocka_unit_test(a_clock_that_steps_back_is_waited_for),
        cmocka_unit_test(a_new_leader_gives_every_lease_its_whole_time),
        cmocka_unit_test(leases_without_an_end_to_speak_of_are_counted_right),
        cmocka_unit_test(without_memory_nothing_is_half_done),
        cmocka_unit_test(a_hundred_thousand_leases_are_led_renewed_and_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
