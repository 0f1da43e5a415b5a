/* A member whose state differs from the leader's at the same entry stops and says so; one whose
 * state is the same, or who does not know that entry, goes on. The leader's word comes as the
 * frame that it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "raft/wire.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/lone.h"

#define PUTS 200

static void start(struct lone *n) {
    *n = (struct lone){.disk = disk_sim_new(9), .now_ms = 1000};
    lone_found(n);
    lone_reopen(n);
    for (unsigned i = 0; i < PUTS; i++)
        lone_put(n, i, 100);
}

static void end(struct lone *n) {
    lone_free(n);
    disk_sim_free(n->disk);
}

/* The last entry at which this node keeps a hash is its newest one: written until it is. */
static uint64_t hashed_entry(struct lone *n, uint8_t hash[STATE_HASH_SIZE]) {
    struct replica_status s;
    for (unsigned i = PUTS;; i++) {
        replica_status(n->r, &s);
        if (s.applied % 64 == 0) break;
        lone_put(n, i, 100);
    }
    memcpy(hash, s.hash, STATE_HASH_SIZE);
    return s.applied;
}

static void hear(struct lone *n, uint64_t index, const uint8_t hash[STATE_HASH_SIZE]) {
    struct replica_status s;
    struct buf frame = buf_new(FRAME_MAX);
    replica_status(n->r, &s);
    struct wire_message m = {.type = WIRE_PING,
                             .ping = {.term = s.term, .seq = 1, .hash_index = index}};
    memcpy(m.ping.hash, hash, STATE_HASH_SIZE);
    assert_int_equal(wire_encode(&m, &frame), OK);
    assert_true(replica_receive(n->r, 2, buf_span(&frame)));
    buf_free(&frame);
}

static void the_same_state_goes_on(void **state) {
    (void)state;
    struct lone n;
    uint8_t hash[STATE_HASH_SIZE];
    start(&n);
    uint64_t index = hashed_entry(&n, hash);
    hear(&n, index, hash);
    assert_int_equal(n.failed, OK);
    lone_put(&n, 1, 100);
    end(&n);
}

static void an_entry_that_is_not_known_proves_nothing(void **state) {
    (void)state;
    struct lone n;
    uint8_t hash[STATE_HASH_SIZE];
    start(&n);
    uint64_t index = hashed_entry(&n, hash);
    hash[0] ^= 1;
    hear(&n, index + 64, hash);
    assert_int_equal(n.failed, OK);
    end(&n);
}

static void another_state_stops_the_member_and_names_the_entry(void **state) {
    (void)state;
    struct lone n;
    struct replica_status s;
    uint8_t hash[STATE_HASH_SIZE];
    char entry[32];
    start(&n);
    uint64_t index = hashed_entry(&n, hash);
    hash[STATE_HASH_SIZE - 1] ^= 1;
    hear(&n, index, hash);
    assert_int_equal(n.failed, ERR_DIVERGED);
    (void)snprintf(entry, sizeof entry, "entry %llu", (unsigned long long)index);
    assert_non_null(strstr(n.text, entry));
    replica_status(n.r, &s);
    assert_int_equal(s.failed, ERR_DIVERGED);
    struct proposal p = {.command = span_str("x")};
    assert_int_equal(replica_propose(n.r, &p), ERR_CLOSED);
    end(&n);
}

int main(void) {
    if (crypto_start(NULL) != OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_state_goes_on),
        cmocka_unit_test(an_entry_that_is_not_known_proves_nothing),
        cmocka_unit_test(another_state_stops_the_member_and_names_the_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
