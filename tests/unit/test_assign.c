/* What reaches a node of tasks and secrets, when, and in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/assign_world.h"
#include "tests/lib/held_lists.h"

#define LARGE      (400 * KIB)
#define LARGE_MANY 16

#define TASK_1 "task1task1task1task1task1"
#define TASK_2 "task2task2task2task2task2"
#define TASK_3 "task3task3task3task3task3"
#define SERV_A "servicea0servicea0service"
#define SERV_B "serviceb0serviceb0service"

static void a_task_comes_with_its_secret_and_goes_with_it(void **state) {
    (void)state;
    static struct mind n;
    char secret[NODE_ID_SIZE + 1];
    world_begin();
    mind_new(&n, "one");
    assert_true(n.completes == 1 && n.n_tasks == 0 && n.n_values == 0);
    make_secret("db", "hunter2", secret);
    make_service(SERV_A, secret, "db", 0);
    mind_settle(&n);
    assert_int_equal(n.n_values, 0); /* no task of it here: nothing is given */
    make_task(TASK_1, SERV_A, &n);
    world_await(mind_has_task, &n, TASK_1, 0);
    assert_string_equal(mind_value(&n, secret, 1)->text, "hunter2");
    assert_int_equal(mind_task(&n, TASK_1)->desired, TASK_RUNNING);
    assert_int_equal(audited(AUDIT_DELIVER, &n, TASK_1, secret), 1);
    make_task(TASK_2, SERV_A, &n);
    world_await(mind_has_task, &n, TASK_2, 0);
    assert_int_equal(n.n_values, 1);
    set_task(TASK_1, SERV_A, &n, TASK_SHUTDOWN, TASK_ASSIGNED);
    world_await(mind_is_shutdown, &n, TASK_1, 0);
    assert_int_equal(mind_task(&n, TASK_1)->n, 0);
    assert_int_equal(n.n_values, 1); /* the other one uses it */
    set_task(TASK_1, SERV_A, &n, TASK_SHUTDOWN, TASK_SHUTDOWN);
    world_await(mind_has_no_task, &n, TASK_1, 0);
    set_task(TASK_2, SERV_A, &n, TASK_RUNNING, TASK_COMPLETE);
    world_await(mind_has_no_task, &n, TASK_2, 0);
    mind_settle(&n);
    assert_int_equal(n.n_values, 0);
    mind_free(&n);
    world_end();
}

static void only_the_node_of_a_task_is_given_its_secret(void **state) {
    (void)state;
    static struct mind a, b;
    char one[NODE_ID_SIZE + 1], two[NODE_ID_SIZE + 1];
    world_begin();
    mind_new(&a, "a");
    mind_new(&b, "b");
    make_secret("one", "of a", one);
    make_secret("two", "of b", two);
    make_service(SERV_A, one, "one", 0);
    make_service(SERV_B, two, "two", 0);
    make_task(TASK_1, SERV_A, &a);
    make_task(TASK_2, SERV_B, &b);
    world_await(mind_has_task, &a, TASK_1, 0);
    world_await(mind_has_task, &b, TASK_2, 0);
    mind_settle(&a);
    mind_settle(&b);
    assert_true(a.n_tasks == 1 && a.n_values == 1 && mind_value(&a, one, 1));
    assert_true(b.n_tasks == 1 && b.n_values == 1 && mind_value(&b, two, 1));
    assert_int_equal(audited(AUDIT_DELIVER, &a, NULL, NULL), 1);
    assert_int_equal(audited(AUDIT_DELIVER, &b, NULL, NULL), 1);
    mind_free(&a);
    mind_free(&b);
    world_end();
}

static void a_followed_version_reaches_those_who_follow(void **state) {
    (void)state;
    static struct mind a, b;
    char secret[NODE_ID_SIZE + 1];
    world_begin();
    mind_new(&a, "a");
    mind_new(&b, "b");
    make_secret("db", "first", secret);
    make_service(SERV_A, secret, "db", 0);
    make_service(SERV_B, secret, "db", 1);
    make_task(TASK_1, SERV_A, &a);
    make_task(TASK_2, SERV_B, &b);
    world_await(mind_has_task, &a, TASK_1, 0);
    world_await(mind_has_task, &b, TASK_2, 0);
    unsigned heard = b.assignments;
    put_secret(secret, "second");
    world_await(mind_is_at, &a, TASK_1, 2);
    assert_string_equal(mind_value(&a, secret, 2)->text, "second");
    mind_settle(&a);
    mind_settle(&b);
    assert_int_equal(a.n_values, 1); /* the first one is gone */
    assert_true(b.n_values == 1 && mind_value(&b, secret, 1) && b.assignments == heard);
    heard = a.assignments;
    label_secret(secret, "a", "b"); /* concerns nobody */
    mind_settle(&a);
    assert_int_equal(a.assignments, heard);
    mind_free(&a);
    mind_free(&b);
    world_end();
}

static void a_new_session_gets_all_again_and_a_resync_too(void **state) {
    (void)state;
    static struct mind n;
    char secret[NODE_ID_SIZE + 1];
    world_begin();
    mind_new(&n, "one");
    make_secret("db", "hunter2", secret);
    make_service(SERV_A, secret, "db", 0);
    make_task(TASK_1, SERV_A, &n);
    world_await(mind_has_task, &n, TASK_1, 0);
    mind_disconnect(&n);
    mind_connect(&n);
    assert_true(n.n_tasks == 1 && n.n_values == 1 && n.completes == 1);
    assert_int_equal(audited(AUDIT_DELIVER, &n, TASK_1, secret), 2);
    n.completes = 0;
    n.n_tasks = n.n_values = 0;
    uplink_say(n.uplink, NODE_RESYNC, span_of(NULL, 0));
    world_until(mind_is_up, &n);
    assert_true(n.n_tasks == 1 && n.n_values == 1);
    assert_int_equal(audited(AUDIT_DELIVER, &n, TASK_1, secret), 3);
    mind_free(&n);
    world_end();
}

static void what_is_too_much_for_the_queue_comes_in_parts(void **state) {
    (void)state;
    static struct mind n;
    static char ids[LARGE_MANY][NODE_ID_SIZE + 1], value[LARGE];
    struct row_list l = row_list();
    struct service_row s = some_service(NULL, NULL, 0);
    world_begin();
    mind_new(&n, "one");
    memset(value, 'x', sizeof value);
    for (unsigned i = 0; i < LARGE_MANY; i++) {
        char name[16];
        struct held_spec spec = {.kind = ROW_CONFIG, .templating = "", .driver = ""};
        (void)snprintf(name, sizeof name, "large-%u", i);
        spec.name = span_str(name);
        spec.value = span_of(value, sizeof value);
        make_held(&spec, ids[i]);
        s.refs[s.n++] = some_ref(ROW_CONFIG, ids[i], name, name, 0);
    }
    s.replicas = 0;
    list_service(&l, ROW_CREATE, SERV_A, "large", &s);
    world_execute(&l);
    n.parts = 0;
    make_task(TASK_1, SERV_A, &n);
    world_await(mind_has_task, &n, TASK_1, 0);
    assert_int_equal(n.n_values, LARGE_MANY);
    assert_true(n.parts >= LARGE_MANY / 2);
    for (size_t i = 0; i < n.n_values; i++)
        assert_int_equal(n.values[i].size, LARGE);
    mind_disconnect(&n);
    mind_connect(&n); /* all in one COMPLETE */
    assert_true(n.completes == 1 && n.n_values == LARGE_MANY && n.n_tasks == 1);
    mind_free(&n);
    world_end();
}

static void what_can_not_be_recorded_is_not_given(void **state) {
    (void)state;
    static struct mind n;
    char secret[NODE_ID_SIZE + 1];
    world_begin();
    mind_new(&n, "one");
    make_secret("db", "hunter2", secret);
    make_service(SERV_A, secret, "db", 0);
    make_service(SERV_B, NULL, NULL, 0);
    world.manager->assigns->write_ms = UINT64_MAX; /* no record is written */
    make_task(TASK_1, SERV_A, &n);
    make_task(TASK_2, SERV_B, &n);
    world_await(mind_has_task, &n, TASK_2, 0);
    mind_settle(&n);
    assert_null(mind_task(&n, TASK_1));
    assert_int_equal(n.n_values, 0);
    world.manager->assigns->write_ms = 0;
    world_await(mind_has_task, &n, TASK_1, 0);
    assert_true(n.n_tasks == 2 && n.n_values == 1);
    assert_int_equal(audited(AUDIT_DELIVER, &n, TASK_1, secret), 1);
    mind_free(&n);
    world_end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_comes_with_its_secret_and_goes_with_it),
        cmocka_unit_test(only_the_node_of_a_task_is_given_its_secret),
        cmocka_unit_test(a_followed_version_reaches_those_who_follow),
        cmocka_unit_test(a_new_session_gets_all_again_and_a_resync_too),
        cmocka_unit_test(what_is_too_much_for_the_queue_comes_in_parts),
        cmocka_unit_test(what_can_not_be_recorded_is_not_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
