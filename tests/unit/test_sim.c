/* The simulator is only worth what its checks see and what its seeds repeat: a seed gives one
 * history, a calm cluster works, each check finds the lie that it is there for, and a guard that is
 * missing shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/model.h"
#include "tests/sim/node.h"
#include "tests/sim/sim.h"

static bool run(uint64_t seed, const struct sim_options *o, struct figures *f, uint64_t *hash) {
    char violation[VIOLATION_MAX];
    bool good = sim_run(seed, o, f, hash, violation);
    if (!good) print_message("seed %llu: %s\n", (unsigned long long)seed, violation);
    return good;
}

static void a_seed_is_one_history(void **state) {
    (void)state;
    struct sim_options o = {0};
    struct figures f = {0};
    for (uint64_t seed = 900; seed < 910; seed++) {
        uint64_t one, two;
        assert_true(run(seed, &o, &f, &one));
        assert_true(run(seed, &o, &f, &two));
        assert_int_equal(one, two);
    }
}

static void another_seed_is_another_history(void **state) {
    (void)state;
    struct sim_options o = {0};
    struct figures f = {0};
    uint64_t one, two;
    assert_true(run(1, &o, &f, &one));
    assert_true(run(2, &o, &f, &two));
    assert_int_not_equal(one, two);
}

static void a_calm_cluster_grows_and_serves(void **state) {
    (void)state;
    struct sim_options o = {.nodes = 3, .profile = PROFILE_CALM + 1};
    struct figures f = {0};
    uint64_t hash;
    assert_true(run(7, &o, &f, &hash));
    assert_true(f.changes >= 2);
    assert_true(f.acknowledged > 10);
    assert_true(f.reads > 10);
    assert_int_equal(f.crashes, 0);
    assert_int_equal(f.failures, 0);
}

static void without_its_guard_a_sole_voter_diverges(void **state) {
    (void)state;
    struct sim_options o = {.profile = PROFILE_SOLE + 1, .without = 1u << GUARD_SOLE_VOTER};
    struct figures f = {0};
    bool good = true;
    uint64_t hash;
    for (uint64_t seed = 1; good && seed < 400; seed++)
        good = run(seed, &o, &f, &hash);
    assert_false(good);
}

/* ---- the checks, by themselves ---- */

struct scene {
    struct world world;
    struct sim_node node;
};

static int set_up(void **state) {
    struct scene *s = sim_alloc(sizeof *s);
    s->world.check = check_new();
    s->world.load = load_new(&s->world);
    s->world.n = 1;
    s->world.nodes[0] = &s->node;
    s->node.world = &s->world;
    s->node.id = 1;
    *state = s;
    return 0;
}

static int tear_down(void **state) {
    struct scene *s = *state;
    check_free(s->world.check);
    load_free(s->world.load);
    free(s);
    return 0;
}

static void two_leaders_in_a_term_are_seen(void **state) {
    struct scene *s = *state;
    check_leader(&s->world, 4, 1);
    check_leader(&s->world, 4, 1);
    check_leader(&s->world, 5, 2);
    assert_false(sim_bad(&s->world));
    check_leader(&s->world, 4, 2);
    assert_true(sim_bad(&s->world));
}

static void say(struct scene *s, uint64_t to, const struct wire_message *m) {
    struct buf frame = buf_new(FRAME_MAX);
    assert_int_equal(wire_encode(m, &frame), OK);
    check_frame(&s->world, &s->node, to, buf_span(&frame));
    buf_free(&frame);
}

static void two_votes_in_a_term_are_seen(void **state) {
    struct scene *s = *state;
    struct wire_message m = {.type = WIRE_VOTE_RESULT,
                             .vote_result = {.version = 2, .term = 7, .vote_granted = true}};
    struct wire_message pre = m;
    pre.vote_result.pre_vote = true;
    say(s, 2, &m);
    say(s, 2, &m);
    say(s, 3, &pre);
    assert_false(sim_bad(&s->world));
    say(s, 3, &m);
    assert_true(sim_bad(&s->world));
}

static void a_vote_beside_ones_own_candidacy_is_seen(void **state) {
    struct scene *s = *state;
    struct wire_message asks = {.type = WIRE_VOTE,
                                .vote = {.version = 2, .term = 7, .candidate_id = 1}};
    struct wire_message gives = {.type = WIRE_VOTE_RESULT,
                                 .vote_result = {.version = 2, .term = 7, .vote_granted = true}};
    say(s, 2, &asks);
    assert_false(sim_bad(&s->world));
    say(s, 3, &gives);
    assert_true(sim_bad(&s->world));
}

static void another_state_hash_is_seen(void **state) {
    struct scene *s = *state;
    uint8_t hash[STATE_HASH_SIZE] = {1}, other[STATE_HASH_SIZE] = {2};
    check_applied(&s->world, &s->node, 1, 0, hash);
    check_applied(&s->world, &s->node, 1, 0, hash);
    assert_false(sim_bad(&s->world));
    check_applied(&s->world, &s->node, 1, 0, other);
    assert_true(sim_bad(&s->world));
}

static void a_hole_in_the_history_is_seen(void **state) {
    struct scene *s = *state;
    uint8_t hash[STATE_HASH_SIZE] = {1};
    check_applied(&s->world, &s->node, 1, 0, hash);
    check_applied(&s->world, &s->node, 3, 0, hash);
    assert_true(sim_bad(&s->world));
}

static void a_command_that_nobody_proposed_is_seen(void **state) {
    struct scene *s = *state;
    load_applied(&s->world, 12, 3, 0, span_of(NULL, 0), true);
    assert_true(sim_bad(&s->world));
}

static void put(struct model *m, uint64_t index, const char *key, uint64_t op, struct result *r) {
    uint8_t value[OP_BYTES];
    put_u64(value, op);
    struct command c = {.op = OP_PUT};
    c.put.key = span_str(key);
    c.put.value = span_of(value, sizeof value);
    uint64_t number;
    bool effective;
    model_apply(m, index, &c, r, &number, &effective);
    assert_int_equal(number, op);
    assert_true(effective);
}

static void the_model_remembers_every_version(void **state) {
    (void)state;
    struct model *m = model_new();
    struct result r;
    put(m, 5, "a", 1, &r);
    assert_int_equal(r.revision, 2);
    put(m, 9, "a", 2, &r);
    assert_int_equal(r.revision, 3);
    assert_true(r.previous.existed);
    assert_false(model_get(m, span_str("a"), 4).there);
    assert_int_equal(model_get(m, span_str("a"), 5).version, 1);
    assert_int_equal(model_get(m, span_str("a"), 8).version, 1);
    assert_int_equal(model_get(m, span_str("a"), 9).version, 2);
    assert_int_equal(model_keys(m), 1);
    model_free(m);
}

static void the_model_knows_a_token_again(void **state) {
    (void)state;
    struct model *m = model_new();
    struct command c = {.op = OP_DELETE, .has_token = true};
    put_u64(c.token, 3);
    c.del.in.key = span_str("a");
    struct result r;
    uint64_t number;
    bool effective;
    model_apply(m, 1, &c, &r, &number, &effective);
    assert_true(effective);
    assert_int_equal(number, 3);
    put(m, 2, "a", 4, &r);
    model_apply(m, 3, &c, &r, &number, &effective);
    assert_false(effective);
    assert_true(r.repeated);
    assert_int_equal(model_keys(m), 1);
    model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_is_one_history),
        cmocka_unit_test(another_seed_is_another_history),
        cmocka_unit_test(a_calm_cluster_grows_and_serves),
        cmocka_unit_test(without_its_guard_a_sole_voter_diverges),
        cmocka_unit_test_setup_teardown(two_leaders_in_a_term_are_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_votes_in_a_term_are_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_vote_beside_ones_own_candidacy_is_seen, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(another_state_hash_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_hole_in_the_history_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_command_that_nobody_proposed_is_seen, set_up, tear_down),
        cmocka_unit_test(the_model_remembers_every_version),
        cmocka_unit_test(the_model_knows_a_token_again),
    };
    entropy_replace();
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
