/* Elections: what the bare engine gets wrong in them, and the guards that prevent it. Each case
 * tells one story twice, with its guard taken away and with all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "tests/lib/guard_cluster.h"

static struct guards *led_by_one(unsigned nodes, unsigned voters, uint32_t away) {
    struct guards *c = guards_new(nodes, voters, away, 7);
    guards_start_all(c);
    assert_true(guards_elect(c, 1));
    guards_run(c, 2 * GC_HEARTBEAT_MS);
    assert_string_equal(c->violation, "");
    return c;
}

static int state_of(struct guards *c, uint64_t id) { return guard_raft(c->nodes[id].g)->state; }

/* A sole voter sends an entry to its standby, crashes before it is on its own disk, and goes on. */
static bool logs_agree_after_crash(uint32_t away) {
    struct guards *c = guards_new(2, 1, away, 7);
    guards_start_all(c);
    assert_int_equal(state_of(c, 1), RAFT_LEADER);
    guards_run(c, 100);
    c->lazy_disk = true;
    assert_int_equal(guards_submit(c, 1), OK);
    while (c->n_queue > 0)
        guards_deliver_at(c, 0);
    guards_write_all(c, 2);
    guards_crash(c, 1);
    guards_start(c, 1);
    assert_int_equal(state_of(c, 1), RAFT_LEADER);
    c->lazy_disk = false;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    guards_run(c, 500);
    bool agree = c->violation[0] == '\0';
    guards_free(c);
    return agree;
}

static void a_sole_voter_leads_in_a_new_term_after_a_crash(void **state) {
    (void)state;
    assert_false(logs_agree_after_crash(1u << GUARD_SOLE_VOTER));
    assert_true(logs_agree_after_crash(0));
}

/* A sole voter that has seen a higher term is follower in it. Returns by how much the term rises
 * before it leads again. */
static uint64_t terms_until_lead(uint32_t away) {
    struct guards *c = guards_new(2, 1, away, 7);
    guards_start_all(c);
    guards_run(c, 100);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    guards_snapshot(c, 1, 2);
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT};
    uint64_t term = m.append_entries_result.term = c->nodes[1].term + 7;
    guards_push(c, 2, 1, &m, NULL, 0);
    guards_deliver_at(c, c->n_queue - 1);
    assert_int_equal(state_of(c, 1), RAFT_FOLLOWER);
    guards_timeout(c, 1);
    guards_run(c, 500);
    assert_int_equal(state_of(c, 1), RAFT_LEADER);
    assert_string_equal(c->violation, "");
    assert_true(guards_same(c));
    uint64_t risen = c->nodes[1].term - term;
    guards_free(c);
    return risen;
}

static void a_sole_voter_leads_in_a_new_term_after_a_time_out(void **state) {
    (void)state;
    assert_int_equal(terms_until_lead(1u << GUARD_SOLE_VOTER), 0);
    assert_int_equal(terms_until_lead(0), 1);
}

/* Node 2 leads in a later term and says TIMEOUT_NOW to the sole voter by its own configuration. */
static int state_after_timeout_now(uint32_t away) {
    struct guards *c = guards_new(2, 1, away, 7);
    guards_start_all(c);
    struct gc_node *n = &c->nodes[1];
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES};
    m.append_entries.term = n->term + 1;
    m.append_entries.prev_log_index = n->last;
    m.append_entries.prev_log_term = guard_term_of(n->g, n->last);
    guards_push(c, 2, 1, &m, NULL, 0);
    guards_deliver_at(c, c->n_queue - 1);
    m = (struct raft_message){.type = RAFT_TIMEOUT_NOW};
    m.timeout_now.term = n->term;
    m.timeout_now.last_log_index = n->last;
    m.timeout_now.last_log_term = guard_term_of(n->g, n->last);
    guards_push(c, 2, 1, &m, NULL, 0);
    guards_deliver_at(c, c->n_queue - 1);
    int state = state_of(c, 1);
    guards_free(c);
    return state;
}

static void a_sole_voter_ignores_timeout_now(void **state) {
    (void)state;
    assert_int_equal(state_after_timeout_now(1u << GUARD_SOLE_VOTER), RAFT_LEADER);
    assert_int_equal(state_after_timeout_now(0), RAFT_FOLLOWER);
}

static void a_sole_voter_with_writes_under_way_waits(void **state) {
    (void)state;
    struct guards *c = guards_new(1, 1, 0, 7);
    guards_start_all(c);
    c->lazy_disk = true;
    assert_int_equal(guards_submit(c, 1), OK);
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT};
    m.append_entries_result.term = c->nodes[1].term + 1;
    guards_push(c, 2, 1, &m, NULL, 0);
    guards_deliver_at(c, 0);
    guards_timeout(c, 1);
    assert_int_equal(state_of(c, 1), RAFT_FOLLOWER);
    guards_write_all(c, 1);
    guards_timeout(c, 1);
    assert_int_equal(state_of(c, 1), RAFT_LEADER);
    assert_int_equal(guard_commit(c->nodes[1].g), 3); /* and the barrier waits for the disk */
    guards_write_all(c, 1);
    assert_int_equal(guard_commit(c->nodes[1].g), 4);
    assert_string_equal(c->violation, "");
    guards_free(c);
}

/* The second voter does not yet know that it is one, when the first crashes. */
static bool second_voter_votes(uint32_t away) {
    struct guards *c = led_by_one(2, 1, away);
    assert_int_equal(guards_change(c, 1, 2, RAFT_VOTER), OK);
    guards_drop(c, 0, 0, 0);
    guards_crash(c, 1);
    guards_start(c, 1);
    guards_run(c, 10000);
    bool led = guards_leader(c) != NULL;
    assert_string_equal(c->violation, "");
    if (led) assert_true(guards_same(c));
    guards_free(c);
    return led;
}

static void a_voter_that_does_not_know_it_yet_votes(void **state) {
    (void)state;
    assert_false(second_voter_votes(1u << GUARD_NON_VOTER_VOTE));
    assert_true(second_voter_votes(0));
}

static void it_votes_once_a_term_like_any_other(void **state) {
    (void)state;
    struct guards *c = guards_new(3, 1, 0, 7);
    guards_start(c, 3); /* a standby */
    struct raft_message m = {.type = RAFT_REQUEST_VOTE};
    m.request_vote.term = 5;
    m.request_vote.last_log_index = m.request_vote.last_log_term = 1;
    for (uint64_t id = 1; id <= 2; id++) {
        m.request_vote.candidate_id = id;
        guards_push(c, id, 3, &m, NULL, 0);
        assert_true(guards_deliver(c, RAFT_REQUEST_VOTE, id, 3));
    }
    assert_int_equal(c->n_queue, 2);
    assert_true(c->queue[0]->m.request_vote_result.vote_granted);
    assert_false(c->queue[1]->m.request_vote_result.vote_granted);
    assert_int_equal(c->nodes[3].vote, 1);
    assert_int_equal(guard_raft(c->nodes[3].g)->configuration.n, 3);
    guards_free(c);
}

static void a_follower_that_hears_its_leader_denies_votes(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    struct raft_message m = {.type = RAFT_REQUEST_VOTE};
    m.request_vote.term = c->nodes[1].term + 1;
    m.request_vote.candidate_id = 3;
    m.request_vote.last_log_index = 99;
    m.request_vote.last_log_term = c->nodes[1].term;
    guards_push(c, 3, 2, &m, NULL, 0);
    guards_quiet(c);
    assert_int_equal(c->nodes[2].term, c->nodes[1].term);
    assert_int_equal(state_of(c, 1), RAFT_LEADER);
    guards_free(c);
}

/* One of two has the longer log, the other the higher term. */
static bool longer_log_leads(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    guards_cut(c, 1, true);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    for (uint64_t id = 1; id <= 3; id++)
        guards_crash(c, id);
    guards_cut(c, 1, false);
    c->nodes[2].term += 10; /* it was candidate in vain */
    c->nodes[2].vote = 2;
    guards_start(c, 1);
    guards_start(c, 2);
    guards_run(c, 20000);
    bool led = guards_leader(c) == &c->nodes[1];
    assert_string_equal(c->violation, "");
    guards_free(c);
    return led;
}

static void a_longer_log_wins_against_a_higher_term(void **state) {
    (void)state;
    assert_false(longer_log_leads(1u << GUARD_PRE_VOTE_TERM));
    assert_true(longer_log_leads(0));
}

/* The candidate of a transfer wins nothing and tries again: does it still ask to disrupt? */
static bool retry_disrupts(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    assert_int_equal(guard_transfer(c->nodes[1].g, c->now, 2), OK);
    assert_true(guards_deliver(c, RAFT_TIMEOUT_NOW, 1, 2));
    int i = guards_find(c, RAFT_REQUEST_VOTE, 2, 3);
    assert_true(i >= 0 && c->queue[i]->m.request_vote.disrupt_leader);
    guards_drop(c, 0, 0, 0);
    guards_timeout(c, 2);
    i = guards_find(c, RAFT_REQUEST_VOTE, 2, 3);
    assert_true(i >= 0);
    bool disrupts = c->queue[i]->m.request_vote.disrupt_leader;
    guards_free(c);
    return disrupts;
}

static void a_leader_is_disrupted_once_a_transfer(void **state) {
    (void)state;
    assert_true(retry_disrupts(1u << GUARD_DISRUPT | 1u << GUARD_RETRY_PRE_VOTE));
    assert_false(retry_disrupts(1u << GUARD_RETRY_PRE_VOTE));
    assert_false(retry_disrupts(0));
}

/* By how much the term of a candidate that is cut off rises. */
static uint64_t terms_of_lonely_candidate(uint32_t away) {
    struct guards *c = guards_new(3, 3, away, 7);
    guards_start_all(c);
    guards_timeout(c, 2);
    while (guards_find(c, RAFT_REQUEST_VOTE, 2, 3) >= 0 && c->nodes[2].term == 1)
        guards_deliver_at(c, 0);
    while (c->nodes[2].term == 1)
        guards_deliver_at(c, 0);
    assert_int_equal(state_of(c, 2), RAFT_CANDIDATE);
    guards_drop(c, 0, 0, 0);
    guards_cut(c, 2, true);
    uint64_t term = c->nodes[2].term;
    for (unsigned i = 0; i < 10; i++) {
        guards_timeout(c, 2);
        guards_drop(c, 0, 2, 0);
    }
    uint64_t risen = c->nodes[2].term - term;
    guards_cut(c, 2, false);
    guards_run(c, 3000);
    assert_string_equal(c->violation, "");
    assert_non_null(guards_leader(c));
    guards_free(c);
    return risen;
}

static void an_election_tried_again_begins_with_a_pre_vote(void **state) {
    (void)state;
    assert_int_equal(terms_of_lonely_candidate(1u << GUARD_RETRY_PRE_VOTE), 10);
    assert_int_equal(terms_of_lonely_candidate(0), 0);
}

/* A follower gets the answer to a pre-vote that it has given up. The engine reads a flag of the
 * candidate out of the follower's state then: a byte of the leader's address pointer. Make that 0,
 * as it may be. */
static bool late_pre_vote_raises_term(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    struct raft *r = (struct raft *)(uintptr_t)guard_raft(c->nodes[2].g);
    char *address = aligned_alloc(65536, 65536);
    assert_non_null(address);
    memcpy(address, "node-1", 7);
    raft_free(r->follower_state.current_leader.address);
    r->follower_state.current_leader.address = address;
    struct raft_message m = {.type = RAFT_REQUEST_VOTE_RESULT};
    m.request_vote_result.term = c->nodes[2].term + 1;
    m.request_vote_result.vote_granted = m.request_vote_result.pre_vote = true;
    guards_push(c, 3, 2, &m, NULL, 0);
    guards_deliver_at(c, 0);
    bool raised = c->nodes[2].term > c->nodes[1].term;
    guards_run(c, 200);
    assert_int_equal(state_of(c, 1) == RAFT_LEADER, !raised);
    guards_free(c);
    return raised;
}

static void a_late_answer_to_a_pre_vote_deposes_nobody(void **state) {
    (void)state;
    assert_true(late_pre_vote_raises_term(1u << GUARD_LATE_PRE_VOTE));
    assert_false(late_pre_vote_raises_term(0));
}

static bool timer_lies_in_the_past(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    assert_int_equal(guards_change(c, 1, 3, RAFT_SPARE), OK);
    guards_quiet(c);
    c->now += 10 * GC_HEARTBEAT_MS;
    guards_timeout(c, 1);
    bool past = guard_timer_ms(c->nodes[1].g, c->now) <= c->now;
    guards_free(c);
    return past;
}

static void the_timer_of_a_leader_with_a_spare_lies_ahead(void **state) {
    (void)state;
    assert_true(timer_lies_in_the_past(1u << GUARD_TIMER_FLOOR));
    assert_false(timer_lies_in_the_past(0));
}

static void a_timer_is_not_pushed_ahead_by_looking_at_it(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    uint64_t due = guard_timer_ms(c->nodes[1].g, c->now);
    for (; c->now < due; c->now++)
        assert_int_equal(guard_timer_ms(c->nodes[1].g, c->now), due);
    guards_free(c);
}

static void a_time_out_before_its_time_does_nothing(void **state) {
    (void)state;
    struct guards *c = guards_new(3, 3, 0, 7);
    guards_start_all(c);
    unsigned steps = c->nodes[1].steps;
    assert_int_equal(guard_timeout(c->nodes[1].g, c->now + GC_ELECTION_MS - 1), OK);
    assert_int_equal(c->nodes[1].steps, steps);
    assert_int_equal(state_of(c, 1), RAFT_FOLLOWER);
    guards_free(c);
}

/* A transfer begins with two entries on their way to its target. */
static bool transfer_succeeds(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    c->lazy_disk = true;
    assert_int_equal(guards_submit(c, 1), OK);
    assert_int_equal(guards_submit(c, 1), OK);
    assert_int_equal(guard_transfer(c->nodes[1].g, c->now, 2), OK);
    while (c->n_queue > 0)
        guards_deliver_at(c, 0);
    assert_true(guards_write(c, 2)); /* the first is acknowledged */
    while (c->n_queue > 0)
        guards_deliver_at(c, 0);
    c->lazy_disk = false;
    guards_quiet(c);
    bool led = state_of(c, 2) == RAFT_LEADER;
    assert_string_equal(c->violation, "");
    guards_free(c);
    return led;
}

static void a_transfer_waits_for_the_last_entry(void **state) {
    (void)state;
    assert_false(transfer_succeeds(1u << GUARD_EARLY_TRANSFER));
    assert_true(transfer_succeeds(0));
}

static void a_new_leader_commits_an_entry_of_its_term_by_itself(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    assert_true(guard_own_term_committed(c->nodes[1].g));
    assert_int_equal(guard_transfer(c->nodes[1].g, c->now, 2), OK);
    guards_run(c, 200);
    assert_false(guard_own_term_committed(c->nodes[1].g));
    assert_true(guard_own_term_committed(c->nodes[2].g));
    guards_free(c);
}

static void a_leader_without_a_majority_steps_down(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    guards_cut(c, 1, true);
    guards_run(c, 3 * GC_ELECTION_MS);
    assert_int_not_equal(state_of(c, 1), RAFT_LEADER);
    guards_run(c, 2000);
    assert_non_null(guards_leader(c));
    assert_string_equal(c->violation, "");
    guards_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sole_voter_leads_in_a_new_term_after_a_crash),
        cmocka_unit_test(a_sole_voter_leads_in_a_new_term_after_a_time_out),
        cmocka_unit_test(a_sole_voter_ignores_timeout_now),
        cmocka_unit_test(a_sole_voter_with_writes_under_way_waits),
        cmocka_unit_test(a_voter_that_does_not_know_it_yet_votes),
        cmocka_unit_test(it_votes_once_a_term_like_any_other),
        cmocka_unit_test(a_follower_that_hears_its_leader_denies_votes),
        cmocka_unit_test(a_longer_log_wins_against_a_higher_term),
        cmocka_unit_test(a_leader_is_disrupted_once_a_transfer),
        cmocka_unit_test(an_election_tried_again_begins_with_a_pre_vote),
        cmocka_unit_test(a_late_answer_to_a_pre_vote_deposes_nobody),
        cmocka_unit_test(the_timer_of_a_leader_with_a_spare_lies_ahead),
        cmocka_unit_test(a_timer_is_not_pushed_ahead_by_looking_at_it),
        cmocka_unit_test(a_time_out_before_its_time_does_nothing),
        cmocka_unit_test(a_transfer_waits_for_the_last_entry),
        cmocka_unit_test(a_new_leader_commits_an_entry_of_its_term_by_itself),
        cmocka_unit_test(a_leader_without_a_majority_steps_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
