/* What must hold between rows, each rule by itself: it is refused, nothing has changed, and what is
 * next to it is allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "tests/lib/row_lists.h"

/* The cluster with its first node as a manager: id-1, raft id 1, which is on the roll. */
static struct store *founded(void) {
    struct store *s = store_for_test();
    struct node_row first = some_node(NODE_MANAGER, 1);
    first.raft_id = 1;
    assert_int_equal(make_cluster(s).error, OK);
    assert_int_equal(create_node(s, "id-1", &first), OK);
    return s;
}

static void assert_refused(struct store *s, struct row_list *l, enum err expected) {
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    hash_of(s, before);
    assert_int_equal(list_apply(s, l).error, expected);
    hash_of(s, after);
    assert_memory_equal(before, after, STATE_HASH_SIZE);
}

/* --- tokens --- */

static enum err set_token(struct store *s, enum row_action action, const struct join_token *t) {
    struct row_list l = row_list();
    list_token(&l, action, "t", 0, "", t);
    return list_apply(s, &l).error;
}

static void uses_go_up_to_their_maximum_and_not_down(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct buf body = buf_new(ROW_BODY_MAX);
    struct join_token t = some_token(NODE_WORKER, 0, "secret");
    t.uses_max = 2;
    assert_int_equal(set_token(s, ROW_CREATE, &t), OK);
    t.used = 1;
    assert_int_equal(set_token(s, ROW_REPLACE, &t), OK);
    t.used = 0;
    list_token(&l, ROW_REPLACE, "t", 0, "", &t);
    assert_refused(s, &l, ERR_PRECONDITION);
    t.used = 2;
    assert_int_equal(set_token(s, ROW_REPLACE, &t), OK);
    t.used = 3; /* no bytes say so */
    assert_int_equal(join_token_encode(&t, &body), ERR_INVALID);
    t.uses_max = 0;
    assert_int_equal(set_token(s, ROW_REPLACE, &t), OK); /* any number now */
    buf_free(&body);
    store_free(s);
}

static void a_token_that_is_not_derived_stays_what_it_is(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct join_token t = some_token(NODE_WORKER, 0, "secret");
    assert_int_equal(set_token(s, ROW_CREATE, &t), OK);
    struct join_token changed[] = {some_token(NODE_WORKER, 0, "another"),
                                   some_token(NODE_MANAGER, 0, "secret"),
                                   some_token(NODE_WORKER, 1, "secret")};
    for (unsigned i = 0; i < ARRAY_SIZE(changed); i++) {
        list_token(&l, ROW_REPLACE, "t", 0, "", &changed[i]);
        assert_refused(s, &l, ERR_PRECONDITION);
    }
    t.revoked = true;
    t.expires_s = 5;
    assert_int_equal(set_token(s, ROW_REPLACE, &t), OK);
    store_free(s);
}

static void a_standing_token_changes_with_its_epoch_only(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct join_token t = some_token(NODE_WORKER, 3, "third");
    t.used = 9;
    assert_int_equal(set_token(s, ROW_CREATE, &t), OK);
    struct join_token bad[] = {some_token(NODE_WORKER, 3, "other"),
                               some_token(NODE_WORKER, 2, "third"),
                               some_token(NODE_WORKER, 0, "third")};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        bad[i].used = 9;
        list_token(&l, ROW_REPLACE, "t", 0, "", &bad[i]);
        assert_refused(s, &l, ERR_PRECONDITION);
    }
    t = some_token(NODE_WORKER, 4, "fourth");
    assert_int_equal(set_token(s, ROW_REPLACE, &t), OK);
    store_free(s);
}

static void one_token_a_role_stands_and_no_secret_is_two_tokens(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct join_token worker = some_token(NODE_WORKER, 1, "one");
    struct join_token manager = some_token(NODE_MANAGER, 1, "two");
    list_token(&l, ROW_CREATE, "a", 0, "", &worker);
    list_token(&l, ROW_CREATE, "b", 0, "", &manager);
    assert_int_equal(list_apply(s, &l).error, OK);
    struct join_token second = some_token(NODE_WORKER, 1, "three");
    struct join_token same = some_token(NODE_WORKER, 0, "two");
    list_token(&l, ROW_CREATE, "c", 0, "", &second);
    assert_refused(s, &l, ERR_PRECONDITION);
    list_token(&l, ROW_CREATE, "c", 0, "", &same);
    assert_refused(s, &l, ERR_PRECONDITION);
    struct join_token other = some_token(NODE_WORKER, 0, "three");
    list_token(&l, ROW_CREATE, "c", 0, "", &other);
    assert_int_equal(list_apply(s, &l).error, OK);
    store_free(s);
}

/* --- nodes --- */

static void the_last_manager_stays_one(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct command off = {.op = OP_NODE_REMOVE, .raft_id = 1};
    assert_int_equal(apply(s, &off).error, OK); /* it is on no roll, so that the rule is alone */
    struct node_row worker = some_node(NODE_WORKER, 1), leaving = some_node(NODE_MANAGER, 1);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "id-1", 0);
    assert_refused(s, &l, ERR_PRECONDITION);
    list_node(&l, ROW_REPLACE, "id-1", 0, "", &worker);
    assert_refused(s, &l, ERR_PRECONDITION);
    leaving.desired = NODE_WORKER;
    list_node(&l, ROW_REPLACE, "id-1", 0, "", &leaving);
    assert_refused(s, &l, ERR_PRECONDITION);
    /* With a second one it may go, and the second may not then. */
    struct node_row second = some_node(NODE_MANAGER, 2);
    assert_int_equal(create_node(s, "id-2", &second), OK);
    assert_int_equal(replace_node(s, "id-1", &leaving), OK);
    second.desired = NODE_WORKER;
    list_node(&l, ROW_REPLACE, "id-2", 0, "", &second);
    assert_refused(s, &l, ERR_PRECONDITION);
    assert_int_equal(remove_row(s, ROW_NODE, "id-1"), OK);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "id-2", 0);
    assert_refused(s, &l, ERR_PRECONDITION);
    /* One list may put another in its place. */
    struct node_row third = some_node(NODE_MANAGER, 3);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "id-2", 0);
    list_node(&l, ROW_CREATE, "id-3", 0, "", &third);
    assert_int_equal(list_apply(s, &l).error, OK);
    store_free(s);
}

static void the_last_manager_stays_one_though_it_shall_not(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct row_list l = row_list();
    struct node_row leaving = some_node(NODE_MANAGER, 1), worker = some_node(NODE_WORKER, 1);
    leaving.desired = NODE_WORKER;
    assert_int_equal(make_cluster(s).error, OK);
    assert_int_equal(create_node(s, "alone", &leaving), OK);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "alone", 0);
    assert_refused(s, &l, ERR_PRECONDITION);
    list_node(&l, ROW_REPLACE, "alone", 0, "", &worker);
    assert_refused(s, &l, ERR_PRECONDITION);
    store_free(s);
}

static void a_manager_on_the_roll_is_not_removed(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct command on = {.op = OP_NODE_ADD, .node = make_node(2, "id-2", "second")};
    struct command off = {.op = OP_NODE_REMOVE, .raft_id = 2};
    struct node_row n = some_node(NODE_MANAGER, 2), worker = some_node(NODE_WORKER, 3);
    n.raft_id = 2;
    assert_int_equal(create_node(s, "id-2", &n), OK);
    assert_int_equal(apply(s, &on).error, OK);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "id-2", 0);
    assert_refused(s, &l, ERR_PRECONDITION);
    n.raft_id = 0; /* by its id it is known, too */
    assert_int_equal(replace_node(s, "id-2", &n), OK);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "id-2", 0);
    assert_refused(s, &l, ERR_PRECONDITION);
    struct node_row other = some_node(NODE_MANAGER, 9);
    other.raft_id = 2; /* and by its raft id */
    assert_int_equal(create_node(s, "id-9", &other), OK);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "id-9", 0);
    assert_refused(s, &l, ERR_PRECONDITION);
    assert_int_equal(create_node(s, "id-3", &worker), OK);
    assert_int_equal(remove_row(s, ROW_NODE, "id-3"), OK);
    assert_int_equal(apply(s, &off).error, OK);
    assert_int_equal(remove_row(s, ROW_NODE, "id-2"), OK);
    store_free(s);
}

static void no_two_nodes_have_the_same_key(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct node_row n = some_node(NODE_WORKER, 1), none = some_node(NODE_WORKER, 0);
    list_node(&l, ROW_CREATE, "id-2", 0, "", &n);
    assert_refused(s, &l, ERR_PRECONDITION);
    assert_int_equal(create_node(s, "id-2", &none), OK);
    assert_int_equal(create_node(s, "id-3", &none), OK); /* without one, any number */
    list_node(&l, ROW_REPLACE, "id-3", 0, "", &n);
    assert_refused(s, &l, ERR_PRECONDITION);
    n = some_node(NODE_WORKER, 7);
    assert_int_equal(replace_node(s, "id-3", &n), OK);
    assert_int_equal(replace_node(s, "id-3", &n), OK); /* it keeps its own */
    list_node(&l, ROW_CREATE, "id-4", 0, "", &n);
    assert_refused(s, &l, ERR_PRECONDITION);
    assert_int_equal(remove_row(s, ROW_NODE, "id-3"), OK);
    assert_int_equal(create_node(s, "id-4", &n), OK);
    store_free(s);
}

/* --- settings, bounds --- */

static void the_settings_are_one_row_that_stays(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct spec spec = {.task_history = 1};
    list_spec(&l, ROW_CREATE, "another", &spec);
    assert_refused(s, &l, ERR_PRECONDITION);
    list_spec(&l, ROW_CREATE, "cluster", &spec);
    assert_int_equal(list_apply(s, &l).error, OK);
    list_spec(&l, ROW_CREATE, "another", &spec);
    assert_refused(s, &l, ERR_PRECONDITION);
    list_plain(&l, ROW_REMOVE, ROW_SPEC, "cluster", 0);
    assert_refused(s, &l, ERR_PRECONDITION);
    list_spec(&l, ROW_REPLACE, "cluster", &spec);
    assert_int_equal(list_apply(s, &l).error, OK);
    store_free(s);
}

static void fill(struct store *s, unsigned from, unsigned to) {
    for (struct row_list l = row_list(); from < to; from++) {
        char id[16], secret[16];
        (void)snprintf(id, sizeof id, "t-%u", from);
        (void)snprintf(secret, sizeof secret, "s-%u", from);
        struct join_token t = some_token(NODE_WORKER, 0, secret);
        list_token(&l, ROW_CREATE, id, 0, "", &t);
        if (l.n == ROWS_CHANGE_MAX || from == to - 1) assert_int_equal(list_apply(s, &l).error, OK);
    }
}

static void there_are_so_many_tokens_and_no_more(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    struct join_token more = some_token(NODE_WORKER, 0, "more");
    fill(s, 0, ROW_TOKENS_MAX);
    assert_int_equal(row_count(s, ROW_TOKEN), ROW_TOKENS_MAX);
    list_token(&l, ROW_CREATE, "more", 0, "", &more);
    assert_refused(s, &l, ERR_TOO_LARGE);
    list_plain(&l, ROW_REMOVE, ROW_TOKEN, "t-7", 0);
    list_token(&l, ROW_CREATE, "more", 0, "", &more);
    assert_int_equal(list_apply(s, &l).error, OK);
    store_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uses_go_up_to_their_maximum_and_not_down),
        cmocka_unit_test(a_token_that_is_not_derived_stays_what_it_is),
        cmocka_unit_test(a_standing_token_changes_with_its_epoch_only),
        cmocka_unit_test(one_token_a_role_stands_and_no_secret_is_two_tokens),
        cmocka_unit_test(the_last_manager_stays_one),
        cmocka_unit_test(the_last_manager_stays_one_though_it_shall_not),
        cmocka_unit_test(a_manager_on_the_roll_is_not_removed),
        cmocka_unit_test(no_two_nodes_have_the_same_key),
        cmocka_unit_test(the_settings_are_one_row_that_stays),
        cmocka_unit_test(there_are_so_many_tokens_and_no_more),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
