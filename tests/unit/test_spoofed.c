/* A member speaks for itself only. Who sent a frame is what its connection's certificate says
 * (peer.c); the replica believes no id inside that says otherwise, and takes an answer from nobody
 * but whom it has asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/wire.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/lone.h"

#define LEADER 2
#define OTHER  3

struct world {
    struct lone n;
    struct wire_message last; /* that went out, of the type looked for; its spans are gone */
    enum wire_type looked_for;
    uint64_t to;       /* where it went */
    unsigned sent;     /* how many of them */
    unsigned answered; /* `done` of the read or the call */
    enum err error;    /* what it said */
    struct buf answer; /* the same, of a call */
    struct replica_status status;
};

static struct world w;

static void take_sent(struct lone *n, uint64_t to, struct span frame) {
    struct wire_message m;
    (void)n;
    assert_int_equal(wire_decode(frame, &m), OK);
    if (m.type != w.looked_for) return;
    w.last = m;
    w.to = to;
    w.sent++;
}

static void hear(uint64_t from, const struct wire_message *m) {
    struct buf frame = buf_new(FRAME_MAX);
    assert_int_equal(wire_encode(m, &frame), OK);
    assert_true(replica_receive(w.n.r, from, buf_span(&frame)));
    buf_free(&frame);
    replica_status(w.n.r, &w.status);
}

static void start(void) {
    memset(&w, 0, sizeof w);
    w.n = (struct lone){.disk = disk_sim_new(9), .now_ms = 1000};
    w.answer = buf_new(1 * KIB);
    lone_found(&w.n);
    lone_reopen(&w.n);
    w.n.sent = take_sent;
    lone_put(&w.n, 1, 100);
    replica_status(w.n.r, &w.status);
    assert_true(w.status.leading);
}

/* Member 2 leads from now on, in a later term. */
static void follow(void) {
    struct wire_message m = {.type = WIRE_APPEND};
    m.append = (struct wire_append){.term = w.status.term + 1,
                                    .prev_index = w.status.last,
                                    .prev_term = w.status.term,
                                    .commit = w.status.last};
    hear(LEADER, &m);
    for (int i = 0; i < 20 && w.n.head != NULL; i++)
        (void)lone_step(&w.n);
    replica_status(w.n.r, &w.status);
    assert_int_equal(w.status.leader, LEADER);
    assert_false(w.status.leading);
}

static void end(void) {
    assert_int_equal(w.n.failed, OK);
    lone_free(&w.n);
    disk_sim_free(w.n.disk);
    buf_free(&w.answer);
}

/* ---- the asker of a vote ---- */

static struct wire_message vote_for(uint64_t candidate, uint64_t term) {
    struct wire_message m = {.type = WIRE_VOTE};
    m.vote = (struct raft_request_vote){.version = 2,
                                        .term = term,
                                        .candidate_id = candidate,
                                        .last_log_index = w.status.last + 10,
                                        .last_log_term = w.status.term,
                                        .disrupt_leader = true};
    return m;
}

static void a_vote_asked_for_another_member_changes_nothing(void **state) {
    (void)state;
    start();
    follow();
    uint64_t term = w.status.term;
    w.looked_for = WIRE_VOTE_RESULT;
    struct wire_message m = vote_for(LEADER, term + 5);
    hear(OTHER, &m); /* says that 2 stands */
    assert_int_equal(w.sent, 0);
    assert_int_equal(w.status.term, term);
    assert_int_equal(w.status.leader, LEADER);
    m = vote_for(OTHER, term + 5);
    hear(OTHER, &m); /* stands itself: the same request is heard */
    for (int i = 0; i < 20 && w.sent == 0; i++)
        (void)lone_step(&w.n);
    assert_int_equal(w.sent, 1);
    assert_int_equal(w.to, OTHER);
    end();
}

/* ---- who answers ---- */

static void take_read(struct read *rd, enum err e) {
    (void)rd;
    w.answered++;
    w.error = e;
}

static void take_call(struct call *c, enum err e, struct span answer) {
    (void)c;
    w.answered++;
    w.error = e;
    buf_clear(&w.answer);
    assert_int_equal(buf_add_span(&w.answer, answer), OK);
}

static void ask_until_sent(void) {
    w.looked_for = WIRE_FORWARD;
    for (int i = 0; i < 20 && w.sent == 0; i++)
        (void)lone_step(&w.n);
    assert_int_equal(w.sent, 1);
    assert_int_equal(w.to, LEADER);
}

static struct wire_message answer_to(uint64_t id, struct span body) {
    struct wire_message m = {.type = WIRE_FORWARDED};
    m.forwarded = (struct wire_forwarded){.id = id, .index = w.status.applied, .body = body};
    return m;
}

static void a_read_is_answered_by_whom_it_was_asked_of(void **state) {
    (void)state;
    struct read rd = {.done = take_read, .deadline_ms = 100000};
    start();
    follow();
    assert_int_equal(replica_read(w.n.r, &rd), OK);
    ask_until_sent();
    struct wire_message m = answer_to(w.last.forward.id, (struct span){0});
    hear(OTHER, &m);
    assert_int_equal(w.answered, 0);
    hear(LEADER, &m);
    assert_int_equal(w.answered, 1);
    assert_int_equal(w.error, OK);
    end();
}

static void a_call_is_answered_by_whom_it_was_asked_of(void **state) {
    (void)state;
    struct call c = {.request = span_str("who is who?"), .done = take_call, .deadline_ms = 100000};
    start();
    follow();
    assert_int_equal(replica_call(w.n.r, &c), OK);
    ask_until_sent();
    struct wire_message m = answer_to(w.last.forward.id, span_str("a lie"));
    hear(OTHER, &m);
    assert_int_equal(w.answered, 0);
    m = answer_to(w.last.forward.id, span_str("the truth"));
    hear(LEADER, &m);
    assert_int_equal(w.answered, 1);
    assert_true(span_equal(buf_span(&w.answer), span_str("the truth")));
    end();
}

static void take_write(struct proposal *p, enum err e, uint64_t index, struct span result) {
    (void)p;
    (void)index;
    (void)result;
    w.answered++;
    w.error = e;
}

static void a_write_is_answered_by_whom_it_was_given_to(void **state) {
    (void)state;
    struct proposal p = {.command = span_str("x"), .done = take_write, .deadline_ms = 100000};
    start();
    follow();
    assert_int_equal(replica_propose(w.n.r, &p), OK);
    ask_until_sent();
    struct wire_message m = answer_to(w.last.forward.id, (struct span){0});
    hear(OTHER, &m);
    assert_int_equal(w.answered, 0);
    hear(LEADER, &m);
    assert_int_equal(w.answered, 1);
    assert_int_equal(w.error, OK);
    end();
}

/* Frames that are the transport's reach no replica through a member's connection either. */
static void frames_of_other_connections_change_nothing(void **state) {
    (void)state;
    start();
    follow();
    struct replica_status before = w.status;
    struct wire_message join = {.type = WIRE_JOIN, .join = {.kind = JOIN_RENEW}};
    struct wire_message node = {.type = WIRE_NODE, .node = {.kind = 1, .body = span_str("x")}};
    struct wire_message hello = {.type = WIRE_HELLO, .hello = {.raft_id = OTHER}};
    hear(OTHER, &join);
    hear(OTHER, &node);
    hear(OTHER, &hello);
    assert_int_equal(w.status.term, before.term);
    assert_int_equal(w.status.last, before.last);
    assert_int_equal(w.status.leader, before.leader);
    end();
}

int main(void) {
    if (crypto_start(NULL) != OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vote_asked_for_another_member_changes_nothing),
        cmocka_unit_test(a_read_is_answered_by_whom_it_was_asked_of),
        cmocka_unit_test(a_call_is_answered_by_whom_it_was_asked_of),
        cmocka_unit_test(a_write_is_answered_by_whom_it_was_given_to),
        cmocka_unit_test(frames_of_other_connections_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
