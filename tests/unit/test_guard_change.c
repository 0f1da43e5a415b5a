/* Membership: what the bare engine allows that it must not, and the guards that prevent it. Each
 * case tells one story twice, with its guard taken away and with all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/guard_cluster.h"

static struct guards *led_by_one(unsigned nodes, unsigned voters, uint32_t away) {
    struct guards *c = guards_new(nodes, voters, away, 7);
    guards_start_all(c);
    assert_true(guards_elect(c, 1));
    guards_run(c, 2 * GC_HEARTBEAT_MS);
    assert_string_equal(c->violation, "");
    return c;
}

/* Delivers what runs between two nodes until nothing does, and loses all else. */
static void between(struct guards *c, uint64_t a, uint64_t b) {
    for (unsigned i = 0; i < 1000; i++)
        if (!guards_deliver(c, 0, a, b) && !guards_deliver(c, 0, b, a)) break;
    guards_drop(c, 0, 0, 0);
}

/* The fault of single-server changes (Ongaro, raft-dev, 2015). Leader 1 adds server 5, which alone
 * hears of it; leader 2 removes server 1, which 3 hears of; 1 comes back with 4 and 5. */
static bool two_changes_keep_what_is_committed(uint32_t away) {
    struct guards *c = led_by_one(4, 4, away);
    guards_start(c, 5);
    assert_int_equal(guards_change(c, 1, 5, RAFT_VOTER), OK);
    for (unsigned i = 0; i < 3; i++) { /* nobody else hears of it */
        for (uint64_t id = 2; id <= 4; id++)
            guards_drop(c, 0, 1, id);
        between(c, 1, 5);
        guards_timeout(c, 1);
    }
    guards_drop(c, 0, 0, 0);
    assert_int_equal(c->nodes[5].last, c->nodes[1].last);
    guards_cut(c, 1, true);
    guards_cut(c, 5, true);
    assert_true(guards_elect(c, 2));
    assert_int_equal(guards_change(c, 2, 1, -1), OK);
    between(c, 2, 3);
    assert_int_equal(guard_commit(c->nodes[2].g), c->nodes[2].last);
    guards_cut(c, 1, false);
    guards_cut(c, 5, false);
    guards_cut(c, 2, true);
    guards_cut(c, 3, true);
    guards_run(c, 5000);
    bool kept = c->violation[0] == '\0';
    guards_free(c);
    return kept;
}

static void a_change_waits_for_an_entry_of_its_term(void **state) {
    (void)state;
    assert_false(two_changes_keep_what_is_committed(1u << GUARD_OWN_TERM_CHANGE));
    assert_true(two_changes_keep_what_is_committed(0));
}

static void until_then_it_is_refused(void **state) {
    (void)state;
    struct guards *c = guards_new(3, 3, 0, 7);
    guards_start_all(c);
    c->lazy_disk = true;
    for (unsigned i = 0; i < 100 && guards_leader(c) == NULL; i++) {
        guards_timeout(c, 1);
        while (c->n_queue > 0 && guards_leader(c) == NULL)
            guards_deliver_at(c, 0);
    }
    assert_false(guard_own_term_committed(c->nodes[1].g));
    assert_int_equal(guards_change(c, 1, 4, RAFT_STANDBY), ERR_BUSY);
    assert_string_equal(guard_reason(c->nodes[1].g), "nothing is committed in this term yet");
    guards_quiet(c);
    assert_true(guard_own_term_committed(c->nodes[1].g));
    assert_int_equal(guards_change(c, 1, 4, RAFT_STANDBY), OK);
    assert_int_equal(guards_change(c, 1, 5, RAFT_STANDBY), ERR_BUSY); /* one at a time */
    guards_quiet(c);
    assert_int_equal(guards_change(c, 1, 5, RAFT_STANDBY), OK);
    guards_free(c);
}

/* Leader 1 demotes 2, the only other voter, and crashes before the CHANGE is on its disk. */
static bool unsynced_change_is_survived(uint32_t away) {
    struct guards *c = led_by_one(2, 2, away);
    c->lazy_disk = true;
    assert_int_equal(guards_change(c, 1, 2, RAFT_STANDBY), OK);
    while (c->n_queue > 0)
        guards_deliver_at(c, 0);
    guards_write_all(c, 2);
    guards_crash(c, 1);
    guards_start(c, 1);
    guards_run(c, 10000);
    bool led = guards_leader(c) != NULL;
    assert_string_equal(c->violation, "");
    guards_free(c);
    return led;
}

static void a_change_is_sent_when_it_is_durable(void **state) {
    (void)state;
    assert_false(unsynced_change_is_survived(1u << GUARD_CHANGE_SYNC));
    assert_true(unsynced_change_is_survived(0));
}

static void and_then_at_once_with_what_came_after(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    c->lazy_disk = true;
    assert_int_equal(guards_submit(c, 1), OK);
    assert_int_equal(guards_change(c, 1, 4, RAFT_STANDBY), OK);
    assert_int_equal(guards_submit(c, 1), OK);
    uint64_t change = c->nodes[1].last - 1;
    for (size_t i = 0; i < c->n_queue; i++) {
        const struct raft_append_entries *a = &c->queue[i]->m.append_entries;
        assert_true(a->prev_log_index + a->n_entries < change);
    }
    while (c->n_queue > 0)
        guards_deliver_at(c, 0);
    assert_int_equal(c->nodes[2].last, change - 1); /* what came before is there */
    guards_write_all(c, 1);
    assert_true(guards_deliver(c, RAFT_APPEND_ENTRIES, 1, 2));
    assert_int_equal(c->nodes[2].last, change + 1); /* no heartbeat was waited for */
    c->lazy_disk = false;
    guards_quiet(c);
    assert_int_equal(guard_commit(c->nodes[1].g), change + 1);
    assert_string_equal(c->violation, "");
    guards_free(c);
}

static void heartbeats_go_on_while_a_change_is_written(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    c->lazy_disk = true;
    assert_int_equal(guards_change(c, 1, 4, RAFT_STANDBY), OK);
    for (unsigned i = 0; i < 100; i++) { /* a disk that hangs for ten elections */
        guards_timeout(c, 1);
        while (c->n_queue > 0)
            guards_deliver_at(c, 0);
        for (uint64_t id = 2; id <= 3; id++)
            assert_int_equal(guard_timeout(c->nodes[id].g, c->now), OK);
    }
    assert_ptr_equal(guards_leader(c), &c->nodes[1]);
    assert_int_equal(c->nodes[2].last, c->nodes[1].last - 1);
    guards_quiet(c);
    assert_int_equal(c->nodes[2].last, c->nodes[1].last);
    guards_free(c);
}

/* Leader 1 removes itself, and crashes before anybody hears of it. */
static bool self_removal_is_survived(uint32_t away) {
    struct guards *c = led_by_one(2, 2, away);
    enum err e = guards_change(c, 1, 1, -1);
    assert_int_equal(e, guard_on(c->nodes[1].g, GUARD_SELF_CHANGE) ? ERR_PRECONDITION : OK);
    guards_drop(c, 0, 0, 0);
    guards_crash(c, 1);
    guards_start(c, 1);
    guards_run(c, 10000);
    bool led = guards_leader(c) != NULL;
    assert_string_equal(c->violation, "");
    guards_free(c);
    return led;
}

static void a_leader_does_not_remove_or_demote_itself(void **state) {
    (void)state;
    assert_false(self_removal_is_survived(1u << GUARD_SELF_CHANGE));
    assert_true(self_removal_is_survived(0));
    struct guards *c = led_by_one(3, 3, 0);
    assert_int_equal(guards_change(c, 1, 1, RAFT_STANDBY), ERR_PRECONDITION);
    assert_int_equal(guards_change(c, 1, 1, RAFT_SPARE), ERR_PRECONDITION);
    guards_free(c);
}

/* A standby that has everything is to be caught up, while nothing happens. */
static int catch_up_of_idle_standby(uint32_t away) {
    struct guards *c = led_by_one(3, 2, away);
    int status = RAFT_CATCH_UP_NONE;
    assert_int_equal(guard_catch_up(c->nodes[1].g, c->now, 3), OK);
    guards_write_all(c, 1);
    guards_run(c, 3000);
    assert_int_equal(raft_catch_up(guard_raft(c->nodes[1].g), 3, &status), 0);
    guards_free(c);
    return status;
}

static void a_standby_that_has_everything_is_caught_up(void **state) {
    (void)state;
    assert_int_equal(catch_up_of_idle_standby(1u << GUARD_IDLE_CATCH_UP), RAFT_CATCH_UP_RUNNING);
    assert_int_equal(catch_up_of_idle_standby(0), RAFT_CATCH_UP_FINISHED);
}

static void a_catch_up_asks_for_a_present_non_voter(void **state) {
    (void)state;
    struct guards *c = led_by_one(4, 2, 0);
    struct guard *g = c->nodes[1].g;
    assert_int_equal(guard_catch_up(c->nodes[2].g, c->now, 3), ERR_NOT_LEADER);
    assert_int_equal(guard_catch_up(g, c->now, 77), ERR_NOT_FOUND);
    assert_int_equal(guard_catch_up(g, c->now, 2), ERR_PRECONDITION);
    assert_int_equal(guard_catch_up(g, c->now, 3), OK);
    assert_int_equal(guard_catch_up(g, c->now, 4), ERR_BUSY);
    assert_int_equal(guards_change(c, 1, 4, RAFT_VOTER), ERR_BUSY);
    guards_free(c);
}

static struct entry *conf_entry(struct guards *c, uint64_t id,
                                const struct raft_configuration *conf) {
    struct guard *g = c->nodes[id].g;
    return guards_entry(c, guard_last_index(g) + 1, guard_raft(g)->current_term, ENTRY_CHANGE,
                        guards_conf(c, conf));
}

/* What guard_change says to a configuration: ids in order, negative ones are standbys. */
static enum err proposed(struct guards *c, const int *ids, unsigned n, const char *prefix) {
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (unsigned i = 0; i < n; i++) {
        char address[16];
        unsigned id = (unsigned)(ids[i] < 0 ? -ids[i] : ids[i]);
        snprintf(address, sizeof address, "%s-%u", i + 1 == n ? prefix : "node", id);
        int role = ids[i] < 0 ? RAFT_STANDBY : RAFT_VOTER;
        assert_int_equal(raft_configuration_add(&conf, id, address, role), 0);
    }
    struct entry *e = conf_entry(c, 1, &conf);
    raft_configuration_close(&conf);
    c->nodes[1].in = &e;
    c->nodes[1].n_in = 1;
    return guard_change(c->nodes[1].g, c->now, e);
}

static void a_change_is_of_one_server_and_keeps_the_order(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    assert_int_equal(proposed(c, (int[]){1, 2, 3}, 3, "node"), ERR_INVALID);       /* nothing */
    assert_int_equal(proposed(c, (int[]){1, 3, 2}, 3, "node"), ERR_INVALID);       /* order */
    assert_int_equal(proposed(c, (int[]){1, -2, -3}, 3, "node"), ERR_INVALID);     /* two roles */
    assert_int_equal(proposed(c, (int[]){1}, 1, "node"), ERR_INVALID);             /* two gone */
    assert_int_equal(proposed(c, (int[]){1, 2, 3, 4, 5}, 5, "node"), ERR_INVALID); /* two more */
    assert_int_equal(proposed(c, (int[]){1, 2, 4}, 3, "node"), ERR_INVALID);       /* exchanged */
    assert_int_equal(proposed(c, (int[]){1, 4, 2, 3}, 4, "node"), ERR_INVALID);    /* not last */
    assert_int_equal(proposed(c, (int[]){1, -2, 3, 4}, 4, "node"), ERR_INVALID); /* role and more */
    assert_int_equal(proposed(c, (int[]){1, 2, 3}, 3, "moved"), OK);             /* an address */
    guards_free(c);
}

static void every_single_delta_is_taken_and_comes_about(void **state) {
    (void)state;
    const int steps[][2] = {{4, RAFT_STANDBY}, {4, RAFT_VOTER}, {5, RAFT_SPARE}, {5, RAFT_STANDBY},
                            {2, RAFT_STANDBY}, {3, RAFT_SPARE}, {2, -1},         {5, RAFT_VOTER},
                            {3, -1},           {4, -1},         {2, RAFT_VOTER}, {5, -1}};
    struct guards *c = led_by_one(3, 3, 0);
    guards_start(c, 4);
    guards_start(c, 5);
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        assert_int_equal(guards_change(c, 1, (uint64_t)steps[i][0], steps[i][1]), OK);
        guards_run(c, 500);
        assert_string_equal(c->violation, "");
        assert_int_equal(guard_raft(c->nodes[1].g)->configuration_uncommitted_index, 0);
    }
    assert_int_equal(c->nodes[2].applied, c->committed_max);
    guards_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_waits_for_an_entry_of_its_term),
        cmocka_unit_test(until_then_it_is_refused),
        cmocka_unit_test(a_change_is_sent_when_it_is_durable),
        cmocka_unit_test(and_then_at_once_with_what_came_after),
        cmocka_unit_test(heartbeats_go_on_while_a_change_is_written),
        cmocka_unit_test(a_leader_does_not_remove_or_demote_itself),
        cmocka_unit_test(a_standby_that_has_everything_is_caught_up),
        cmocka_unit_test(a_catch_up_asks_for_a_present_non_voter),
        cmocka_unit_test(a_change_is_of_one_server_and_keeps_the_order),
        cmocka_unit_test(every_single_delta_is_taken_and_comes_about),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
