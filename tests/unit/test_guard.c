/* The guard's contract with its caller: what it refuses at the start and from a peer, how it fails,
 * what configurations it reads. The faults of the engine are in test_guard_log, _election and
 * _change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/guard_cluster.h"

static struct span three(struct guards *c) {
    return span_of(c->nodes[1].disk[1]->data, c->nodes[1].disk[1]->size);
}

/* A start of its own, with hooks that the cases bend. */
struct bench {
    struct guards *c;          /* owns entries */
    struct entry *log[32];     /* by index */
    struct snapshot_meta meta; /* when used */
    struct guard_start start;  /* to be bent */
    enum err persist, update;  /* what the hooks return */
    uint64_t term, vote;       /* as persisted last */
    unsigned updates;          /* seen */
    struct guard *g;           /* NULL: did not start */
    struct why why;            /* of the last start */
};

static enum err bench_persist(void *ctx, uint64_t term, uint64_t vote) {
    struct bench *b = ctx;
    b->term = term;
    b->vote = vote;
    return b->persist;
}

static enum err bench_update(void *ctx, const struct raft_update *u) {
    struct bench *b = ctx;
    assert_int_not_equal(u->flags, 0);
    assert_non_null(b->g); /* *out is set before the first hook */
    b->updates++;
    return b->update;
}

static const struct entry *bench_entry(void *ctx, uint64_t index) {
    struct bench *b = ctx;
    return index < ARRAY_SIZE(b->log) ? b->log[index] : NULL;
}

static enum err bench_open(struct bench *b) {
    struct guard_hooks hooks = {b, bench_persist, bench_update, bench_entry};
    b->why.text[0] = '\0';
    enum err e = guard_open(&b->start, &hooks, &b->g, &b->why);
    if (e != OK) assert_null(b->g);
    return e;
}

static struct bench *bench_new(unsigned voters) {
    struct bench *b = test_calloc(1, sizeof *b);
    b->c = guards_new(3, voters, 0, 1);
    b->log[1] = b->c->nodes[1].disk[1];
    for (uint64_t i = 2; i <= 10; i++)
        b->log[i] = guards_entry(b->c, i, i < 6 ? 1 : 2, ENTRY_COMMAND, span_str("x"));
    b->meta = (struct snapshot_meta){5, 1, 1, three(b->c)};
    b->start = (struct guard_start){.id = 1,
                                    .term = 2,
                                    .first_index = 1,
                                    .last_index = 10,
                                    .election_ms = 300,
                                    .heartbeat_ms = 30,
                                    .inflight_max = 32,
                                    .now_ms = 1000};
    return b;
}

static void bench_free(struct bench *b) {
    guard_close(b->g);
    guards_free(b->c);
    test_free(b);
}

static void expect_open(unsigned voters, void (*bend)(struct bench *), enum err expected) {
    struct bench *b = bench_new(voters);
    if (bend != NULL) bend(b);
    enum err e = bench_open(b);
    if (e != expected) fail_msg("%s: %s", err_name(e), b->why.text);
    if (e == ERR_CORRUPT || e == ERR_INVALID) assert_true(b->why.text[0] != '\0');
    bench_free(b);
}

static void bend_snapshot(struct bench *b) { b->start.snapshot = &b->meta; }
static void bend_compacted(struct bench *b) {
    bend_snapshot(b);
    b->start.first_index = 4;
}
static void bend_all_compacted(struct bench *b) {
    bend_snapshot(b);
    b->start.first_index = 6;
    b->start.last_index = 5;
}
static void bend_joiner(struct bench *b) {
    b->start.term = 0;
    b->start.last_index = 0;
}
static void bend_voted_joiner(struct bench *b) { b->start.last_index = 0; }

static void sound_logs_start(void **state) {
    (void)state;
    for (unsigned voters = 1; voters <= 3; voters += 2) {
        expect_open(voters, NULL, OK);
        expect_open(voters, bend_snapshot, OK);
        expect_open(voters, bend_compacted, OK);
        expect_open(voters, bend_all_compacted, OK);
        expect_open(voters, bend_joiner, OK);
        expect_open(voters, bend_voted_joiner, OK);
    }
}

static void bend_hole(struct bench *b) { b->log[7] = NULL; }
static void bend_index(struct bench *b) { b->log[7] = b->log[8]; }
static void bend_terms(struct bench *b) {
    b->log[7] = guards_entry(b->c, 7, 1, ENTRY_COMMAND, span_str("x"));
}
static void bend_term(struct bench *b) { b->start.term = 1; }
static void bend_first(struct bench *b) { b->log[1] = b->log[2]; }
static void bend_first_type(struct bench *b) {
    b->log[1] = guards_entry(b->c, 1, 1, ENTRY_COMMAND, span_str("x"));
}
static void bend_change(struct bench *b) {
    b->log[7] = guards_entry(b->c, 7, 2, ENTRY_CHANGE, span_str("no configuration"));
}
static void bend_no_snapshot(struct bench *b) { b->start.first_index = 4; }
static void bend_gap(struct bench *b) {
    bend_snapshot(b);
    b->start.first_index = 7;
}
static void bend_short_log(struct bench *b) {
    bend_snapshot(b);
    b->start.last_index = 4;
}
static void bend_other_term(struct bench *b) {
    bend_snapshot(b);
    b->meta.term = 2;
}
static void bend_snapshot_conf(struct bench *b) {
    bend_snapshot(b);
    b->meta.conf = span_str("no configuration");
}
static void bend_snapshot_term(struct bench *b) {
    bend_snapshot(b);
    b->meta.term = 3;
}

static void damage_is_found_at_the_start(void **state) {
    (void)state;
    void (*const bends[])(struct bench *) = {
        bend_hole,       bend_index,         bend_terms,        bend_term, bend_first,
        bend_first_type, bend_change,        bend_no_snapshot,  bend_gap,  bend_short_log,
        bend_other_term, bend_snapshot_conf, bend_snapshot_term};
    for (size_t i = 0; i < ARRAY_SIZE(bends); i++)
        expect_open(3, bends[i], ERR_CORRUPT);
}

static void a_log_from_before_an_install_is_told(void **state) {
    (void)state;
    struct bench *b = bench_new(3);
    struct guard_hooks hooks = {b, bench_persist, bench_update, bench_entry};
    assert_false(guard_log_is_stale(&b->start, &hooks));
    bend_snapshot(b);
    assert_false(guard_log_is_stale(&b->start, &hooks));
    bend_short_log(b);
    assert_true(guard_log_is_stale(&b->start, &hooks));
    b->start.last_index = 10;
    bend_other_term(b);
    assert_true(guard_log_is_stale(&b->start, &hooks));
    bend_all_compacted(b);
    assert_false(guard_log_is_stale(&b->start, &hooks));
    bench_free(b);
}

static void bad_settings_are_refused(void **state) {
    (void)state;
    struct bench *b = bench_new(3);
    const struct guard_start good = b->start;
    b->start.id = 0;
    assert_int_equal(bench_open(b), ERR_INVALID);
    b->start = good;
    b->start.election_ms = 0;
    assert_int_equal(bench_open(b), ERR_INVALID);
    b->start = good;
    b->start.inflight_max = 0;
    assert_int_equal(bench_open(b), ERR_INVALID);
    b->start = good;
    b->start.first_index = 12;
    assert_int_equal(bench_open(b), ERR_INVALID);
    bench_free(b);
}

static void a_sole_voter_makes_its_new_term_durable_first(void **state) {
    (void)state;
    struct bench *b = bench_new(1);
    b->persist = ERR_IO;
    assert_int_equal(bench_open(b), ERR_IO);
    assert_int_equal(b->term, 3);
    assert_int_equal(b->vote, 1);
    assert_int_equal(b->updates, 0);
    b->persist = OK;
    assert_int_equal(bench_open(b), OK);
    assert_int_equal(guard_raft(b->g)->current_term, 3);
    assert_int_equal(guard_raft(b->g)->state, RAFT_LEADER);
    bench_free(b);
}

static void a_failed_hook_ends_the_node(void **state) {
    (void)state;
    struct bench *b = bench_new(1);
    assert_int_equal(bench_open(b), OK);
    struct entry *e = guards_entry(b->c, 12, 3, ENTRY_COMMAND, span_str("x"));
    b->update = ERR_NOSPACE;
    assert_int_equal(guard_submit(b->g, 1000, e), ERR_NOSPACE);
    b->update = OK;
    assert_int_equal(guard_submit(b->g, 1000, e), ERR_NOSPACE);
    assert_int_equal(guard_timeout(b->g, 5000), ERR_NOSPACE);
    assert_int_equal(guard_persisted(b->g, 5000, 12, 3, guard_epoch(b->g)), ERR_NOSPACE);
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT, .server_id = 2};
    assert_int_equal(raft_configuration_add(&m.install_snapshot.conf, 1, "a", RAFT_VOTER), 0);
    m.install_snapshot.data.base = raft_malloc(1); /* taken all the same: no leak */
    assert_int_equal(guard_receive(b->g, 5000, &m, NULL), ERR_NOSPACE);
    bench_free(b);
}

static void a_submission_has_its_place_in_the_log(void **state) {
    (void)state;
    struct bench *b = bench_new(1);
    assert_int_equal(bench_open(b), OK);
    assert_int_equal(guard_last_index(b->g), 11); /* the barrier */
    struct entry *index = guards_entry(b->c, 13, 3, ENTRY_COMMAND, span_str("x"));
    struct entry *term = guards_entry(b->c, 12, 2, ENTRY_COMMAND, span_str("x"));
    struct entry *change = guards_entry(b->c, 12, 3, ENTRY_CHANGE, span_str("x"));
    struct entry *good = guards_entry(b->c, 12, 3, ENTRY_COMMAND, span_str("x"));
    assert_int_equal(guard_submit(b->g, 1000, index), ERR_INVALID);
    assert_int_equal(guard_submit(b->g, 1000, term), ERR_INVALID);
    assert_int_equal(guard_submit(b->g, 1000, change), ERR_INVALID);
    assert_true(guard_reason(b->g)[0] != '\0');
    assert_int_equal(guard_persisted(b->g, 1000, 11, 3, guard_epoch(b->g)), OK);
    assert_int_equal(guard_change(b->g, 1000, change), ERR_INVALID);
    assert_int_equal(guard_submit(b->g, 1000, good), OK);
    assert_int_equal(guard_term_of(b->g, 12), 3);
    assert_int_equal(guard_term_of(b->g, 13), 0);
    bench_free(b);
}

static void a_follower_submits_and_transfers_nothing(void **state) {
    (void)state;
    struct bench *b = bench_new(3);
    assert_int_equal(bench_open(b), OK);
    struct entry *e = guards_entry(b->c, 11, 2, ENTRY_COMMAND, span_str("x"));
    assert_int_equal(guard_submit(b->g, 1000, e), ERR_NOT_LEADER);
    assert_int_equal(guard_change(b->g, 1000, e), ERR_NOT_LEADER);
    assert_int_equal(guard_transfer(b->g, 1000, 2), ERR_NOT_LEADER);
    assert_int_equal(guard_submit(b->g, 1000, e), ERR_NOT_LEADER);
    bench_free(b);
}

static void transfers_name_another_voter(void **state) {
    (void)state;
    struct bench *b = bench_new(1);
    assert_int_equal(bench_open(b), OK);
    assert_int_equal(guard_transfer(b->g, 1000, 0), ERR_NOT_FOUND);
    assert_int_equal(guard_transfer(b->g, 1000, 1), ERR_INVALID);
    assert_int_equal(guard_transfer(b->g, 1000, 3), ERR_INVALID);
    assert_int_equal(guard_transfer(b->g, 1000, 9), ERR_INVALID);
    bench_free(b);
}

static void a_running_transfer_makes_the_leader_busy(void **state) {
    (void)state;
    struct guards *c = guards_new(3, 3, 0, 7);
    guards_start_all(c);
    assert_true(guards_elect(c, 1));
    assert_int_equal(guard_transfer(c->nodes[1].g, c->now, 2), OK);
    assert_int_equal(guard_transfer(c->nodes[1].g, c->now, 3), ERR_BUSY);
    assert_int_equal(guards_submit(c, 1), ERR_BUSY);
    guards_free(c);
}

static void snapshots_that_come_too_late_are_without_effect(void **state) {
    (void)state;
    struct bench *b = bench_new(1);
    bend_snapshot(b);
    assert_int_equal(bench_open(b), OK);
    struct snapshot_meta m = {4, 1, 1, three(b->c)};
    assert_int_equal(guard_snapshot_taken(b->g, 1000, &m, 0), OK);
    assert_int_equal(guard_raft(b->g)->trail.snapshot.index, 5);
    m.index = 10;
    assert_int_equal(guard_snapshot_taken(b->g, 1000, &m, 0), ERR_INVALID); /* its term is 2 */
    m.term = 2;
    assert_int_equal(guard_snapshot_taken(b->g, 1000, &m, 3), OK);
    assert_int_equal(guard_raft(b->g)->trail.snapshot.index, 10);
    assert_int_equal(guard_raft(b->g)->trail.offset, 7);
    m.index = 11;
    m.term = 3;
    assert_int_equal(guard_snapshot_taken(b->g, 1000, &m, 0), ERR_INVALID); /* not committed */
    assert_int_equal(guard_snapshot_installed(b->g, 1000, &m), ERR_INVALID);
    bench_free(b);
}

/* Each message is one that no member sends; none of them changes anything. */
static void messages_that_no_member_sends_are_refused(void **state) {
    (void)state;
    struct guards *c = guards_new(3, 3, 0, 7);
    guards_start_all(c);
    assert_true(guards_elect(c, 1));
    guards_run(c, 100);
    struct guard *g = c->nodes[1].g;
    uint64_t term = c->nodes[1].term;
    struct entry *e = guards_entry(c, 3, term + 1, ENTRY_COMMAND, span_str("x"));
    struct entry *bad = guards_entry(c, 3, term + 1, ENTRY_CHANGE, span_str("xxxxxxxx"));
    struct raft_message m[] = {
        {.type = RAFT_APPEND_ENTRIES, .append_entries = {.term = 0}},
        {.type = RAFT_APPEND_ENTRIES, .append_entries = {.term = UINT64_MAX}},
        {.type = RAFT_APPEND_ENTRIES, .append_entries = {.term = term}}, /* we lead in it */
        {.type = RAFT_APPEND_ENTRIES, .append_entries = {.term = term + 1, .prev_log_index = 2}},
        {.type = RAFT_APPEND_ENTRIES, .append_entries = {.term = term + 1, .prev_log_term = 2}},
        {.type = RAFT_APPEND_ENTRIES,
         .append_entries = {.term = term + 1, .prev_log_index = 1, .prev_log_term = term + 2}},
        {.type = RAFT_APPEND_ENTRIES_RESULT, .append_entries_result = {.term = 0}},
        {.type = RAFT_REQUEST_VOTE, .request_vote = {.term = 0, .candidate_id = 2}},
        {.type = RAFT_REQUEST_VOTE, .request_vote = {.term = 9, .candidate_id = 0}},
        {.type = RAFT_REQUEST_VOTE,
         .request_vote = {.term = 9, .candidate_id = 2, .last_log_term = 10}},
        {.type = RAFT_REQUEST_VOTE_RESULT, .request_vote_result = {.term = 0}},
        {.type = RAFT_TIMEOUT_NOW, .timeout_now = {.term = 0}},
        {.type = RAFT_INSTALL_SNAPSHOT, .install_snapshot = {.term = term + 1}},
        {.type = (enum raft_message_type)99},
    };
    unsigned steps = c->nodes[1].steps;
    for (size_t i = 0; i < ARRAY_SIZE(m); i++) {
        m[i].server_id = 2;
        assert_int_equal(guard_receive(g, c->now, &m[i], NULL), ERR_PROTOCOL);
    }
    struct raft_message append = {.type = RAFT_APPEND_ENTRIES, .server_id = 2};
    append.append_entries.term = term + 1;
    append.append_entries.prev_log_index = 1;
    append.append_entries.prev_log_term = 1;
    append.append_entries.n_entries = 1;
    assert_int_equal(guard_receive(g, c->now, &append, &e), ERR_PROTOCOL); /* index 3 after 1 */
    append.append_entries.prev_log_index = 2;
    assert_int_equal(guard_receive(g, c->now, &append, &bad), ERR_PROTOCOL);
    append.append_entries.term = term;
    assert_int_equal(guard_receive(g, c->now, &append, &e), ERR_PROTOCOL); /* above the term */
    append.append_entries.term = term + 1;
    append.server_id = 0;
    assert_int_equal(guard_receive(g, c->now, &append, &e), ERR_PROTOCOL);
    append.server_id = 1;
    assert_int_equal(guard_receive(g, c->now, &append, &e), ERR_PROTOCOL);
    assert_int_equal(c->nodes[1].steps, steps);
    assert_int_equal(guard_raft(g)->state, RAFT_LEADER);
    guards_free(c);
}

static void a_conflict_below_commit_is_divergence(void **state) {
    (void)state;
    struct guards *c = guards_new(3, 3, 0, 7);
    guards_start_all(c);
    assert_true(guards_elect(c, 1));
    assert_int_equal(guards_submit(c, 1), OK);
    guards_run(c, 100);
    struct gc_node *n = &c->nodes[2];
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 3};
    m.append_entries.term = n->term + 1;
    m.append_entries.prev_log_index = n->applied;
    m.append_entries.prev_log_term = n->term + 1;
    assert_int_equal(guard_receive(n->g, c->now, &m, NULL), ERR_DIVERGED);
    assert_int_equal(guard_timeout(n->g, c->now + 9999), ERR_DIVERGED);
    guards_free(c);
}

static struct span sample(struct guards *c) {
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    assert_int_equal(raft_configuration_add(&conf, 1, "10.0.0.1:2377", RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_add(&conf, 2, "10.0.0.2:2377", RAFT_STANDBY), 0);
    assert_int_equal(raft_configuration_add(&conf, 3, "10.0.0.33:2377", RAFT_SPARE), 0);
    struct span s = guards_conf(c, &conf);
    raft_configuration_close(&conf);
    return s;
}

/* Every cut is refused; every byte changed is refused or gives another configuration that the
 * engine reads and writes the same. */
static void damaged_configurations_never_reach_the_engine(void **state) {
    (void)state;
    struct guards *c = guards_new(3, 3, 0, 7);
    struct span s = sample(c);
    uint8_t copy[256];
    assert_true(s.size <= sizeof copy);
    assert_int_equal(guard_configuration_check(s), OK);
    for (size_t cut = 0; cut < s.size; cut++)
        assert_int_equal(guard_configuration_check(span_of(s.at, cut)), ERR_PROTOCOL);
    for (size_t at = 0; at < s.size; at++) {
        for (unsigned value = 0; value < 256; value++) {
            memcpy(copy, s.at, s.size);
            copy[at] = (uint8_t)value;
            if (guard_configuration_check(span_of(copy, s.size)) != OK) continue;
            struct raft_buffer in = {copy, s.size};
            struct raft_configuration conf;
            assert_int_equal(raft_configuration_decode(&in, &conf), 0);
            assert_true(span_equal(guards_conf(c, &conf), span_of(copy, s.size)));
            raft_configuration_close(&conf);
        }
    }
    guards_free(c);
}

static void every_guard_has_a_name_and_a_switch(void **state) {
    (void)state;
    struct bench *b = bench_new(3);
    assert_int_equal(bench_open(b), OK);
    for (int id = 0; id < GUARD_COUNT; id++) {
        assert_true(guard_name((enum guard_id)id)[0] != '\0');
        assert_true(guard_on(b->g, (enum guard_id)id));
        guard_take_away(b->g, (enum guard_id)id);
        assert_false(guard_on(b->g, (enum guard_id)id));
    }
    assert_string_equal(guard_name(GUARD_COUNT), "unknown");
    bench_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_logs_start),
        cmocka_unit_test(damage_is_found_at_the_start),
        cmocka_unit_test(a_log_from_before_an_install_is_told),
        cmocka_unit_test(bad_settings_are_refused),
        cmocka_unit_test(a_sole_voter_makes_its_new_term_durable_first),
        cmocka_unit_test(a_failed_hook_ends_the_node),
        cmocka_unit_test(a_submission_has_its_place_in_the_log),
        cmocka_unit_test(a_follower_submits_and_transfers_nothing),
        cmocka_unit_test(transfers_name_another_voter),
        cmocka_unit_test(a_running_transfer_makes_the_leader_busy),
        cmocka_unit_test(snapshots_that_come_too_late_are_without_effect),
        cmocka_unit_test(messages_that_no_member_sends_are_refused),
        cmocka_unit_test(a_conflict_below_commit_is_divergence),
        cmocka_unit_test(damaged_configurations_never_reach_the_engine),
        cmocka_unit_test(every_guard_has_a_name_and_a_switch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
