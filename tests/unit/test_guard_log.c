/* Logs: what the bare engine does to them, and the guards that prevent it. Each case tells one
 * story twice, with its guard taken away and with all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/guard_cluster.h"

/* Leaves a pattern where the next calls will have their locals. */
static __attribute__((noinline)) void paint_stack(void) {
    volatile uint8_t area[32 * 1024];
    for (size_t i = 0; i < sizeof area; i++)
        area[i] = 0x07;
}

static struct guards *led_by_one(unsigned nodes, unsigned voters, uint32_t away) {
    struct guards *c = guards_new(nodes, voters, away, 7);
    guards_start_all(c);
    assert_true(guards_elect(c, 1));
    guards_run(c, 2 * GC_HEARTBEAT_MS);
    assert_string_equal(c->violation, "");
    return c;
}

static struct raft_message append_message(uint64_t term, uint64_t prev, uint64_t prev_term,
                                          uint64_t commit) {
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES};
    m.append_entries.term = term;
    m.append_entries.prev_log_index = prev;
    m.append_entries.prev_log_term = prev_term;
    m.append_entries.leader_commit = commit;
    return m;
}

/* A follower alone with made-up leaders; the first configuration has three voters. */
static struct guards *lone_follower(uint32_t away) {
    struct guards *c = guards_new(3, 3, away, 7);
    guards_start(c, 3);
    c->lazy_disk = true;
    return c;
}

static void give_entries(struct guards *c, uint64_t term, uint64_t prev, uint64_t prev_term,
                         uint64_t commit, struct entry *const *entries, unsigned n) {
    struct raft_message m = append_message(term, prev, prev_term, commit);
    guards_push(c, term % 2 + 1, 3, &m, entries, n);
    assert_true(guards_deliver(c, RAFT_APPEND_ENTRIES, 0, 3));
}

static struct entry *command(struct guards *c, uint64_t index, uint64_t term) {
    uint64_t number = ++c->payload;
    return guards_entry(c, index, term, ENTRY_COMMAND, span_of(&number, sizeof number));
}

/* What the bare library sends here is what happens to lie on its stack; the paint above reaches it
 * only where no sanitizer lays out the frames. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_IS_OURS false
#else
#define STACK_IS_OURS true
#endif

/* Whether the leader takes the answer to an old message for the acknowledgement of a new entry. */
static bool old_message_commits(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    struct raft_message m = append_message(1, 0, 0, 0);
    assert_int_equal(guards_submit(c, 1), OK);
    guards_drop(c, 0, 0, 0); /* nobody has it but the leader */
    guards_push(c, 1, 2, &m, NULL, 0);
    paint_stack();
    assert_true(guards_deliver(c, RAFT_APPEND_ENTRIES, 1, 2));
    assert_true(guards_deliver(c, RAFT_APPEND_ENTRIES_RESULT, 2, 1));
    bool committed = guard_commit(c->nodes[1].g) == guard_last_index(c->nodes[1].g);
    guards_free(c);
    return committed;
}

static void an_answer_to_an_old_term_is_no_acknowledgement(void **state) {
    (void)state;
    assert_true(!STACK_IS_OURS || old_message_commits(1u << GUARD_STALE_REPLY));
    assert_false(old_message_commits(0));
}

static bool old_snapshot_commits(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT};
    m.install_snapshot.term = 1;
    m.install_snapshot.last_index = m.install_snapshot.last_term = 1;
    m.install_snapshot.conf_index = 1;
    assert_int_equal(guards_submit(c, 1), OK);
    guards_drop(c, 0, 0, 0);
    guards_push(c, 1, 2, &m, NULL, 0);
    c->queue[0]->conf_size = c->nodes[2].conf_size;
    memcpy(c->queue[0]->conf, c->nodes[2].conf, c->nodes[2].conf_size);
    paint_stack();
    assert_true(guards_deliver(c, RAFT_INSTALL_SNAPSHOT, 1, 2));
    assert_true(guards_deliver(c, RAFT_APPEND_ENTRIES_RESULT, 2, 1));
    bool committed = guard_commit(c->nodes[1].g) == guard_last_index(c->nodes[1].g);
    guards_free(c);
    return committed;
}

static void nor_is_one_to_an_old_snapshot(void **state) {
    (void)state;
    assert_true(!STACK_IS_OURS || old_snapshot_commits(1u << GUARD_STALE_REPLY));
    assert_false(old_snapshot_commits(0));
}

/* Whether a follower whose rejection comes late still gets entries. */
static bool late_rejection_heals(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    raft_index match = 0;
    guards_cut(c, 2, true);
    for (unsigned i = 0; i < 4; i++) { /* the leader does not hear of 2 and probes */
        guards_timeout(c, 1);
        guards_quiet(c);
    }
    guards_cut(c, 2, false);
    assert_int_equal(raft_match_index(guard_raft(c->nodes[1].g), 2, &match), 0);
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT};
    m.append_entries_result.term = c->nodes[1].term;
    m.append_entries_result.rejected = match;
    guards_push(c, 2, 1, &m, NULL, 0);
    guards_quiet(c);
    assert_int_equal(guards_submit(c, 1), OK);
    guards_run(c, 3000);
    bool healed = c->nodes[2].last == c->nodes[1].last;
    guards_free(c);
    return healed;
}

static void a_repeated_rejection_does_not_stop_replication(void **state) {
    (void)state;
    assert_false(late_rejection_heals(1u << GUARD_REPEATED_REJECTION));
    assert_true(late_rejection_heals(0));
}

/* A member gets a command and a CHANGE in one message and leads later: may it change members? */
static enum err change_after_change(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    assert_int_equal(guards_submit(c, 1), OK);
    assert_int_equal(guards_change(c, 1, 4, RAFT_STANDBY), OK);
    guards_drop(c, RAFT_APPEND_ENTRIES, 1, 3); /* the repetition has both in one message */
    guards_run(c, 1000);
    assert_int_equal(c->nodes[3].applied, c->nodes[1].applied);
    assert_int_equal(guard_transfer(c->nodes[1].g, c->now, 3), OK);
    guards_run(c, 1000);
    assert_ptr_equal(guards_leader(c), &c->nodes[3]);
    enum err e = guards_change(c, 3, 4, -1);
    assert_string_equal(c->violation, "");
    guards_free(c);
    return e;
}

static void a_change_behind_other_entries_is_taken_at_its_own_index(void **state) {
    (void)state;
    assert_int_equal(change_after_change(1u << GUARD_CHANGE_SPLIT), ERR_BUSY);
    assert_int_equal(change_after_change(0), OK);
}

static struct entry *change_entry(struct guards *c, uint64_t index, uint64_t term, unsigned n) {
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (unsigned i = 1; i <= n; i++) {
        char address[2] = {(char)('0' + i), '\0'};
        assert_int_equal(raft_configuration_add(&conf, i, address, RAFT_VOTER), 0);
    }
    struct entry *e = guards_entry(c, index, term, ENTRY_CHANGE, guards_conf(c, &conf));
    raft_configuration_close(&conf);
    return e;
}

/* Two CHANGEs come in one message, and the second is cut off again: how many servers are left? */
static unsigned servers_after_rollback(uint32_t away) {
    struct guards *c = lone_follower(away);
    struct entry *both[2] = {change_entry(c, 2, 2, 4), change_entry(c, 3, 2, 5)};
    struct entry *other = command(c, 3, 3);
    give_entries(c, 2, 1, 1, 1, both, 2);
    give_entries(c, 3, 2, 2, 1, &other, 1);
    unsigned n = guard_raft(c->nodes[3].g)->configuration.n;
    guards_free(c);
    return n;
}

static void a_second_change_proves_the_first_one_committed(void **state) {
    (void)state;
    assert_int_equal(servers_after_rollback(1u << GUARD_CHANGE_SPLIT), 5); /* never cut off */
    assert_int_equal(servers_after_rollback(0), 4);
}

/* A follower with a snapshot and few entries gets the log's beginning once more. */
static bool beginning_is_harmless(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    guards_run(c, 200);
    struct gc_node *n = &c->nodes[3];
    guards_snapshot(c, 3, 1);
    struct raft_message m = append_message(n->term, 0, 0, n->applied);
    guards_push(c, 1, 3, &m, &c->committed_entry[1], 4);
    assert_true(guards_deliver(c, RAFT_APPEND_ENTRIES, 1, 3));
    bool good = c->violation[0] == '\0';
    if (good) {
        int i = guards_find(c, RAFT_APPEND_ENTRIES_RESULT, 3, 1);
        assert_true(i >= 0);
        assert_int_equal(c->queue[i]->m.append_entries_result.last_log_index, n->applied);
        assert_int_equal(c->queue[i]->m.append_entries_result.rejected, 0);
    }
    guards_free(c);
    return good;
}

static void entries_below_the_compaction_point_are_known(void **state) {
    (void)state;
    assert_false(beginning_is_harmless(1u << GUARD_BELOW_COMPACTION));
    assert_true(beginning_is_harmless(0));
}

static unsigned count(const struct guards *c, enum raft_message_type type) {
    unsigned n = 0;
    for (size_t i = 0; i < c->n_queue; i++)
        n += c->queue[i]->m.type == type;
    return n;
}

/* How many snapshots are sent while the first is under way for a second. */
static unsigned snapshots_sent(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    guards_crash(c, 3);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    guards_run(c, 200);
    guards_snapshot(c, 1, 0);
    guards_forget(c, 3);
    guards_start(c, 3);
    for (unsigned i = 0; i < 40; i++) {
        guards_timeout(c, 1);
        while (guards_deliver(c, RAFT_APPEND_ENTRIES, 0, 0) ||
               guards_deliver(c, RAFT_APPEND_ENTRIES_RESULT, 0, 0)) {
        }
    }
    unsigned n = count(c, RAFT_INSTALL_SNAPSHOT);
    guards_run(c, 1000);
    assert_string_equal(c->violation, "");
    assert_true(guards_same(c));
    guards_free(c);
    return n;
}

static void one_snapshot_is_in_flight_a_peer(void **state) {
    (void)state;
    assert_true(snapshots_sent(1u << GUARD_SNAPSHOT_IN_FLIGHT) > 1);
    assert_int_equal(snapshots_sent(0), 1);
}

static void a_stream_that_failed_is_begun_again(void **state) {
    (void)state;
    struct guards *c = led_by_one(3, 3, 0);
    guards_crash(c, 3);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    guards_run(c, 200);
    guards_snapshot(c, 1, 0);
    guards_forget(c, 3);
    guards_start(c, 3);
    for (unsigned i = 0; i < 100 && count(c, RAFT_INSTALL_SNAPSHOT) == 0; i++) {
        guards_timeout(c, 1);
        while (guards_deliver(c, RAFT_APPEND_ENTRIES, 0, 0) ||
               guards_deliver(c, RAFT_APPEND_ENTRIES_RESULT, 0, 0)) {
        }
    }
    assert_int_equal(guards_drop(c, RAFT_INSTALL_SNAPSHOT, 1, 3), 1);
    assert_int_equal(guards_submit(c, 1), OK); /* and a newer snapshot in between */
    guards_run(c, GC_HEARTBEAT_MS);
    guards_snapshot(c, 1, 0);
    guards_run(c, 3000);
    assert_true(guards_same(c));
    guards_free(c);
}

/* A tail is written, cut off by the next leader, and then reported durable. */
static bool late_write_acknowledges(uint32_t away) {
    struct guards *c = lone_follower(away);
    struct entry *old[3] = {command(c, 2, 2), command(c, 3, 2), command(c, 4, 2)};
    struct entry *new[1] = {command(c, 2, 3)};
    give_entries(c, 2, 1, 1, 1, old, 3);
    give_entries(c, 3, 1, 1, 1, new, 1);
    guards_drop(c, 0, 0, 0);
    assert_true(guards_write(c, 3)); /* the old tail: entry 2 of term 3 is not durable */
    bool acknowledged = guards_find(c, RAFT_APPEND_ENTRIES_RESULT, 3, 0) >= 0;
    guards_free(c);
    return acknowledged;
}

static void a_truncated_tail_is_not_acknowledged(void **state) {
    (void)state;
    assert_true(late_write_acknowledges(1u << GUARD_PERSISTED_PREFIX));
    assert_false(late_write_acknowledges(0));
}

static void nor_is_one_that_was_cut_and_came_back(void **state) {
    (void)state;
    struct guards *c = lone_follower(0);
    struct entry *old[2] = {command(c, 2, 2), command(c, 3, 2)};
    struct entry *new[1] = {command(c, 2, 3)};
    give_entries(c, 2, 1, 1, 1, old, 2);
    give_entries(c, 3, 1, 1, 1, new, 1);
    give_entries(c, 4, 1, 1, 1, old, 2); /* a leader that had never lost them */
    guards_drop(c, 0, 0, 0);
    assert_true(guards_write(c, 3));
    assert_true(guards_write(c, 3));
    assert_int_equal(c->n_queue, 0);
    assert_true(guards_write(c, 3));
    int i = guards_find(c, RAFT_APPEND_ENTRIES_RESULT, 3, 0);
    assert_true(i >= 0);
    assert_int_equal(c->queue[i]->m.append_entries_result.last_log_index, 3);
    guards_free(c);
}

static bool commit_goes_back(uint32_t away) {
    struct guards *c = lone_follower(away);
    struct entry *e[3] = {command(c, 2, 2), command(c, 3, 2), command(c, 4, 2)};
    give_entries(c, 2, 1, 1, 4, e, 3);
    assert_int_equal(guard_commit(c->nodes[3].g), 4);
    give_entries(c, 2, 1, 1, 9, e, 1); /* late, but with a newer commit */
    bool back = guard_commit(c->nodes[3].g) < 4;
    assert_true(back || guard_raft(c->nodes[3].g)->commit_index == 4);
    guards_free(c);
    return back;
}

static void commit_never_goes_back(void **state) {
    (void)state;
    assert_true(commit_goes_back(1u << GUARD_COMMIT_MAX));
    assert_false(commit_goes_back(0));
}

/* Rejections until a follower with 40 entries of another term is repaired. */
static unsigned rejections(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    guards_cut(c, 1, true);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    guards_drop(c, 0, 0, 0);
    assert_true(guards_elect(c, 2));
    for (unsigned i = 0; i < 60; i++)
        assert_int_equal(guards_submit(c, 2), OK);
    guards_run(c, 300);
    guards_crash(c, 2);
    guards_start(c, 2);
    assert_true(guards_elect(c, 3)); /* begins to ask at the end of its long log */
    guards_crash(c, 1);
    guards_cut(c, 1, false);
    guards_start(c, 1);
    unsigned n = 0;
    for (unsigned i = 0; i < 2000 && c->nodes[1].last != c->nodes[3].last; i++) {
        if (c->n_queue == 0) guards_timeout(c, 3);
        int at = guards_find(c, RAFT_APPEND_ENTRIES_RESULT, 1, 3);
        n += at == 0 && c->queue[0]->m.append_entries_result.rejected > 0;
        if (c->n_queue > 0) guards_deliver_at(c, 0);
    }
    assert_int_equal(c->nodes[1].last, c->nodes[3].last);
    assert_string_equal(c->violation, "");
    guards_free(c);
    return n;
}

static void a_conflicting_term_is_skipped_whole(void **state) {
    (void)state;
    assert_true(rejections(1u << GUARD_CONFLICT_TERM) >= 30);
    assert_true(rejections(0) <= 4);
}

/* A follower that is installing a snapshot gets a heartbeat. */
static bool heartbeat_during_install_is_harmless(uint32_t away) {
    struct guards *c = led_by_one(3, 3, away);
    guards_crash(c, 3);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(guards_submit(c, 1), OK);
    guards_run(c, 200);
    guards_snapshot(c, 1, 0);
    guards_start(c, 3);
    c->lazy_disk = true;
    for (unsigned i = 0; i < 100 && !guard_installing(c->nodes[3].g); i++) {
        guards_timeout(c, 1);
        while (c->n_queue > 0)
            guards_deliver_at(c, 0);
    }
    assert_true(guard_installing(c->nodes[3].g));
    for (unsigned i = 0; i < 4; i++) {
        guards_timeout(c, 1);
        while (c->n_queue > 0)
            guards_deliver_at(c, 0);
    }
    bool good = c->violation[0] == '\0';
    if (good) {
        guards_run(c, 500);
        assert_true(guards_same(c));
    }
    guards_free(c);
    return good;
}

static void nothing_is_applied_while_installing(void **state) {
    (void)state;
    assert_false(heartbeat_during_install_is_harmless(1u << GUARD_INSTALL_APPLY));
    assert_true(heartbeat_during_install_is_harmless(0));
}

static void a_second_snapshot_while_installing_is_dropped(void **state) {
    (void)state;
    struct guards *c = lone_follower(0);
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT};
    m.install_snapshot.term = 2;
    m.install_snapshot.last_term = 2;
    m.install_snapshot.conf_index = 1;
    for (uint64_t index = 10; index <= 20; index += 10) {
        m.install_snapshot.last_index = index;
        guards_push(c, 1, 3, &m, NULL, 0);
        c->queue[0]->conf_size = c->nodes[3].conf_size;
        memcpy(c->queue[0]->conf, c->nodes[3].conf, c->nodes[3].conf_size);
        guards_deliver_at(c, 0);
    }
    assert_int_equal(c->nodes[3].n_writes, 1);
    assert_true(guards_write(c, 3));
    assert_int_equal(guard_commit(c->nodes[3].g), 10);
    assert_false(guard_installing(c->nodes[3].g));
    assert_string_equal(c->violation, "");
    guards_free(c);
}

/* The only voter with a log has a snapshot at index 1; the other begins with nothing. */
static bool empty_follower_begins(uint32_t away) {
    struct guards *c = guards_new(2, 2, away, 7);
    guards_forget(c, 2);
    guards_start(c, 1);
    guards_start(c, 2);
    assert_int_equal(c->nodes[1].applied, 1);
    guards_snapshot(c, 1, 0);
    guards_run(c, 5000);
    bool good = c->nodes[2].last > 1 && guards_same(c);
    guards_free(c);
    return good;
}

static void a_snapshot_of_the_first_entry_alone_is_none(void **state) {
    (void)state;
    assert_false(empty_follower_begins(1u << GUARD_FIRST_SNAPSHOT));
    assert_true(empty_follower_begins(0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_to_an_old_term_is_no_acknowledgement),
        cmocka_unit_test(nor_is_one_to_an_old_snapshot),
        cmocka_unit_test(a_repeated_rejection_does_not_stop_replication),
        cmocka_unit_test(a_change_behind_other_entries_is_taken_at_its_own_index),
        cmocka_unit_test(a_second_change_proves_the_first_one_committed),
        cmocka_unit_test(entries_below_the_compaction_point_are_known),
        cmocka_unit_test(one_snapshot_is_in_flight_a_peer),
        cmocka_unit_test(a_stream_that_failed_is_begun_again),
        cmocka_unit_test(a_truncated_tail_is_not_acknowledged),
        cmocka_unit_test(nor_is_one_that_was_cut_and_came_back),
        cmocka_unit_test(commit_never_goes_back),
        cmocka_unit_test(a_conflicting_term_is_skipped_whole),
        cmocka_unit_test(nothing_is_applied_while_installing),
        cmocka_unit_test(a_second_snapshot_while_installing_is_dropped),
        cmocka_unit_test(a_snapshot_of_the_first_entry_alone_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
