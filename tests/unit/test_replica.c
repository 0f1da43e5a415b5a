/* What a few replicas make of steps in an unlucky order: links that close one way, disks that lag,
 * members that come and go, a leader that dies half-way through a snapshot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "raft/wire.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/few.h"

#define SMALL       100
#define GIVES_UP_MS 31000 /* a stream that nobody feeds is long over */

static bool has_applied_all(void *ctx) {
    struct few_node *n = ctx;
    struct replica_status s = few_status(n), leader = few_status(few_leader(n->all));
    return s.applied == leader.last;
}

static void put(struct few_node *n, unsigned times) {
    for (unsigned i = 0; i < times; i++)
        assert_int_equal(few_put(n, SMALL), OK);
}

/* Three voters, of which the first leads. */
static void three(struct few *all) {
    few_start(all);
    (void)few_join(all, 2);
    (void)few_join(all, 3);
    assert_ptr_equal(few_leader(all), &all->at[0]);
}

/* ---- the way to the leader ---- */

static bool is_set(void *ctx) { return *(bool *)ctx; }

struct asked {
    struct call c;
    bool done;
    enum err error;
};

static void on_answered(struct call *c, enum err e, struct span answer) {
    struct asked *a = c->ctx;
    (void)answer;
    a->done = true;
    a->error = e;
}

static void ask(struct few_node *n, struct asked *a) {
    *a = (struct asked){.c = {.request = span_str("?"), .done = on_answered, .ctx = a}};
    assert_int_equal(replica_call(n->r, &a->c), OK);
}

static void what_is_for_the_leader_waits_for_the_way_to_it(void **state) {
    (void)state;
    struct few all;
    struct few_write w;
    struct asked a;
    three(&all);
    struct few_node *leader = &all.at[0], *n = &all.at[2];
    few_link(n, leader, true);
    few_write(n, &w, SMALL);
    ask(n, &a);
    few_pass(&all, 200);
    few_link(n, leader, false);
    assert_true(few_until(&all, 1000, is_set, &w.done));
    assert_true(few_until(&all, 1000, is_set, &a.done));
    assert_int_equal(w.error, OK);
    assert_int_equal(a.error, OK);
    buf_free(&w.bytes);
    few_end(&all);
}

static void what_never_left_was_certainly_not_done(void **state) {
    (void)state;
    struct few all;
    struct few_write w;
    struct asked a;
    three(&all);
    struct few_node *n = &all.at[2];
    few_link(n, &all.at[0], true);
    few_write(n, &w, SMALL);
    ask(n, &a);
    assert_true(few_until(&all, PROPOSAL_TIMEOUT_MS + 100, is_set, &w.done));
    assert_true(few_until(&all, 100, is_set, &a.done));
    assert_int_equal(w.error, ERR_NO_LEADER);
    assert_int_equal(a.error, ERR_NO_LEADER);
    buf_free(&w.bytes);
    few_end(&all);
}

/* ---- membership ---- */

static void members_come_and_go_for_ever(void **state) {
    (void)state;
    struct few all;
    few_start(&all);
    struct few_node *leader = &all.at[0];
    put(leader, 10);
    assert_int_equal(few_snapshot(leader), OK);
    for (uint64_t id = 2; id < 22; id++) { /* none of them is ever there */
        few_change(leader, CHANGE_ADD, id);
        few_pass(&all, 100);
        few_change(leader, CHANGE_REMOVE, id);
        assert_int_equal(few_snapshot(leader), OK);
    }
    struct few_node *n = few_join(&all, 22); /* by a snapshot */
    assert_true(few_status(n).first > 1);
    assert_int_equal(few_read(leader), OK); /* confirmed by it */
    assert_int_equal(few_read(n), OK);
    few_end(&all);
}

/* ---- snapshots ---- */

#define CUT_OFF 10

static bool leads(void *ctx) { return few_status(ctx).leading; }

/* Member 1 has ten entries that nobody else has; the others have half as many in their place, and a
 * snapshot of them, and no log. The links are as they were when this returns. */
static struct few_node *left_behind(struct few *all, struct few_write w[CUT_OFF]) {
    three(all);
    few_part(&all->at[0], true);
    for (unsigned i = 0; i < CUT_OFF; i++) {
        few_write(&all->at[0], &w[i], SMALL);
        few_pass(all, 2);
    }
    struct few_node *leader = few_leader(all);
    put(leader, CUT_OFF / 2);
    assert_int_equal(few_snapshot(leader), OK);
    assert_true(few_status(leader).first > few_status(leader).last);
    assert_true(few_status(leader).last < few_status(&all->at[0]).last);
    assert_int_equal(few_status(&all->at[0]).persisted, few_status(&all->at[0]).last);
    return leader;
}

static void writes_above_an_installed_snapshot_are_over(void **state) {
    (void)state;
    struct few all;
    struct few_write w[CUT_OFF];
    struct few_node *leader = left_behind(&all, w), *n = &all.at[0];
    few_part(n, false);
    assert_true(few_until(&all, 2000, has_applied_all, n));
    for (unsigned i = 0; i < CUT_OFF; i++) {
        assert_true(w[i].done);
        assert_int_equal(w[i].error, ERR_MAYBE_APPLIED);
        buf_free(&w[i].bytes);
    }
    assert_int_equal(replica_transfer(leader->r, 1, NULL), OK);
    assert_true(few_until(&all, 2000, leads, n));
    put(n, CUT_OFF);
    few_end(&all);
}

static unsigned snapshot_files(struct few_node *n) {
    unsigned count = 0;
    const char *name;
    for (size_t i = 0; (name = disk_sim_name(n->disk, i)) != NULL; i++)
        count += strstr(name, ".snap") != NULL;
    return count;
}

static bool has_snapshot(void *ctx) { return snapshot_files(ctx) > 0; }

/* The snapshot is durable, but the log is as it was: it reaches beyond, with other entries. */
static void recovery_drops_a_log_that_the_snapshot_has_overtaken(void **state) {
    (void)state;
    struct few all;
    struct few_write w[CUT_OFF];
    struct few_node *n = &all.at[0];
    uint64_t index = few_status(left_behind(&all, w)).last;
    n->log.held = true;
    few_part(n, false);
    assert_true(few_until(&all, 2000, has_snapshot, n));
    few_crash(n);
    few_part(n, true);
    few_recover(n);
    few_open(n);
    assert_true(few_until(&all, 2000, leads, n));
    assert_true(few_status(n).applied > index);
    put(n, CUT_OFF);
    for (unsigned i = 0; i < CUT_OFF; i++)
        buf_free(&w[i].bytes);
    few_end(&all);
}

static bool is_installing(void *ctx) { return few_status(ctx).installing; }
static bool is_not_installing(void *ctx) { return !few_status(ctx).installing; }

/* All chunks but the first. */
static bool lose_chunks(uint64_t to, struct span frame) {
    struct wire_message m;
    (void)to;
    assert_int_equal(wire_decode(frame, &m), OK);
    return m.type == WIRE_SNAPSHOT_CHUNK && m.chunk.chunk.number > 0;
}

/* Member 3 has got the first chunk of a snapshot, and who sent it has died. */
static struct few_node *half_sent(struct few *all) {
    three(all);
    struct few_node *n = &all->at[2];
    few_part(n, true);
    put(&all->at[0], 10);
    assert_int_equal(few_snapshot(&all->at[0]), OK);
    few_part(n, false);
    all->lose = lose_chunks;
    assert_true(few_until(all, 2000, is_installing, n));
    few_pass(all, 20);
    few_crash(&all->at[0]);
    assert_true(few_status(n).installing);
    return n;
}

static void a_snapshot_whose_sender_died_is_given_up_when_the_log_has_passed_it(void **state) {
    (void)state;
    struct few all;
    struct few_node *n = half_sent(&all);
    put(few_leader(&all), 1);
    assert_true(few_until(&all, 2000, has_applied_all, n));
    assert_true(few_until(&all, 100, is_not_installing, n));
    assert_int_equal(few_snapshot(n), OK);
    few_end(&all);
}

static void a_snapshot_whose_sender_is_silent_is_given_up(void **state) {
    (void)state;
    struct few all;
    struct few_node *n = half_sent(&all);
    few_crash(&all.at[1]);
    assert_true(few_until(&all, GIVES_UP_MS, is_not_installing, n));
    few_end(&all);
}

static void on_asked(void *ctx, enum err e, uint64_t index) {
    (void)index;
    assert_int_equal(e, OK);
    *(bool *)ctx = true;
}

static void a_snapshot_is_sent_while_the_next_one_waits_for_the_log(void **state) {
    (void)state;
    struct few all;
    bool taken = false;
    three(&all);
    struct few_node *leader = &all.at[0], *n = few_join(&all, 4);
    few_change(leader, CHANGE_DEMOTE, 4);
    few_part(n, true);
    put(leader, 10);
    assert_int_equal(few_snapshot(leader), OK);
    leader->log.held = true;
    put(leader, 10); /* on the disks of 2 and 3 */
    replica_snapshot(leader->r, on_asked, &taken);
    few_pass(&all, 200);
    few_part(n, false);
    assert_true(few_until(&all, 2000, has_applied_all, n));
    assert_false(taken);
    leader->log.held = false;
    assert_true(few_until(&all, 2000, is_set, &taken));
    assert_int_equal(snapshot_files(leader), 1);
    few_end(&all);
}

/* ---- a disk that stands still ---- */

#define MUCH      120 /* of LARGE, more than what may wait for a disk */
#define LARGE     MIB
#define WAITS_MAX (INFLIGHT_BYTES_MAX / LARGE + 8)

static uint64_t not_durable(struct few_node *n) {
    struct replica_status s = few_status(n);
    return s.last - s.persisted;
}

static void three_with_large_segments(struct few *all) {
    few_start(all);
    few_crash(&all->at[0]);
    all->segment_size = 8 * MIB;
    few_open(&all->at[0]);
    (void)few_join(all, 2);
    (void)few_join(all, 3);
    assert_ptr_equal(few_leader(all), &all->at[0]);
}

/* Much is written while the disk of `held` stands still. The term is still the same after. */
static void outrun(struct few *all, struct few_node *held) {
    struct few_node *leader = &all->at[0];
    struct few_write *w = calloc(MUCH, sizeof *w);
    uint64_t term = few_status(leader).term;
    assert_non_null(w);
    held->log.held = true;
    for (unsigned i = 0; i < MUCH; i++) {
        few_write(leader, &w[i], LARGE);
        few_pass(all, 1);
        assert_true(not_durable(held) < WAITS_MAX);
        assert_int_equal(few_status(held).leader, 1);
    }
    few_pass(all, 1000);
    assert_true(not_durable(held) < WAITS_MAX);
    assert_true(few_status(held).commit > few_status(held).persisted); /* the others have it */
    held->log.held = false;
    for (unsigned i = 0; i < MUCH; i++) {
        assert_true(few_until(all, 5000, is_set, &w[i].done));
        assert_int_equal(w[i].error, OK);
        buf_free(&w[i].bytes);
    }
    assert_true(few_until(all, 5000, has_applied_all, held));
    assert_int_equal(few_status(held).term, term);
    free(w);
}

static void a_leader_does_not_outrun_its_own_disk(void **state) {
    (void)state;
    struct few all;
    three_with_large_segments(&all);
    outrun(&all, &all.at[0]);
    few_end(&all);
}

static void a_follower_does_not_outrun_its_own_disk(void **state) {
    (void)state;
    struct few all;
    three_with_large_segments(&all);
    outrun(&all, &all.at[2]);
    few_end(&all);
}

int main(void) {
    if (crypto_start(NULL) != OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_for_the_leader_waits_for_the_way_to_it),
        cmocka_unit_test(what_never_left_was_certainly_not_done),
        cmocka_unit_test(members_come_and_go_for_ever),
        cmocka_unit_test(writes_above_an_installed_snapshot_are_over),
        cmocka_unit_test(recovery_drops_a_log_that_the_snapshot_has_overtaken),
        cmocka_unit_test(a_snapshot_whose_sender_died_is_given_up_when_the_log_has_passed_it),
        cmocka_unit_test(a_snapshot_whose_sender_is_silent_is_given_up),
        cmocka_unit_test(a_snapshot_is_sent_while_the_next_one_waits_for_the_log),
        cmocka_unit_test(a_leader_does_not_outrun_its_own_disk),
        cmocka_unit_test(a_follower_does_not_outrun_its_own_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
