/* What a node says and asks: reports on its tasks and on others', secrets that it may have and may
 * not, too much of it; and the values that drivers supply. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/assign_world.h"

#define TASK_1 "task1task1task1task1task1"
#define TASK_2 "task2task2task2task2task2"
#define TASK_3 "task3task3task3task3task3"
#define SERV_A "servicea0servicea0service"
#define SERV_B "serviceb0serviceb0service"

static void put_state(const char *id, enum task_state state, struct buf *out) {
    struct task_report r = {.state = state};
    *out = buf_new(SESSION_BODY_MAX);
    (void)snprintf(r.id, sizeof r.id, "%s", id);
    assert_int_equal(report_add(out, &r), OK);
}

static void say_state(struct mind *n, const char *id, enum task_state state) {
    struct buf b;
    put_state(id, state, &b);
    uplink_say(n->uplink, NODE_TASKS, buf_span(&b));
    buf_free(&b);
}

/* What is taken waits for the leader: the scheduler is off, so it stays. */
static void a_report_on_another_nodes_task_is_dropped(void **state) {
    (void)state;
    static struct mind a, b;
    world_begin();
    mind_new(&a, "a");
    mind_new(&b, "b");
    make_service(SERV_A, NULL, NULL, 0);
    make_task(TASK_1, SERV_A, &a);
    world_await(mind_has_task, &a, TASK_1, 0);
    world.manager->assigns->call_ms = UINT64_MAX; /* nothing is handed on */
    say_state(&b, TASK_1, TASK_FAILED);
    say_state(&b, TASK_3, TASK_FAILED);
    mind_settle(&b);
    assert_int_equal(assign_of_node(world.manager->assigns, b.id)->n_reports, 0);
    say_state(&a, TASK_1, TASK_RUNNING);
    say_state(&a, TASK_1, TASK_ACCEPTED); /* an older word */
    mind_settle(&a);
    const struct assigned *of = assign_of_node(world.manager->assigns, a.id);
    assert_int_equal(of->n_reports, 1);
    assert_int_equal(of->reports[0].is.state, TASK_RUNNING);
    set_task(TASK_1, SERV_A, &a, TASK_RUNNING, TASK_RUNNING);
    mind_settle(&a);
    assert_int_equal(of->n_reports, 0); /* the row shows it */
    mind_free(&a);
    mind_free(&b);
    world_end();
}

/* The first word of a session comes before the manager knows that it may believe it. */
static void what_is_said_at_once_is_heard(void **state) {
    (void)state;
    static struct mind n;
    struct buf b;
    world_begin();
    mind_new(&n, "one");
    make_service(SERV_A, NULL, NULL, 0);
    make_task(TASK_1, SERV_A, &n);
    world_await(mind_has_task, &n, TASK_1, 0);
    mind_disconnect(&n);
    world.manager->assigns->call_ms = UINT64_MAX;
    put_state(TASK_1, TASK_FAILED, &b);
    n.hello = buf_span(&b);
    mind_connect(&n);
    mind_settle(&n);
    const struct assigned *of = assign_of_node(world.manager->assigns, n.id);
    assert_int_equal(of->n_reports, 1);
    assert_int_equal(of->reports[0].is.state, TASK_FAILED);
    mind_free(&n);
    buf_free(&b);
    world_end();
}

static void a_worker_gets_by_asking_only_what_names_it(void **state) {
    (void)state;
    static struct mind a, b;
    char secret[NODE_ID_SIZE + 1];
    world_begin();
    mind_new(&a, "a");
    mind_new(&b, "b");
    make_secret("db", "hunter2", secret);
    make_service(SERV_A, secret, "db", 0);
    make_task(TASK_1, SERV_A, &b); /* even who has it by a task does not get it so */
    world_await(mind_has_task, &b, TASK_1, 0);
    mind_ask(&a, "db");
    assert_int_equal(a.answer.error, ERR_PERMISSION);
    assert_int_equal(a.answer.n, 0);
    mind_ask(&b, "db");
    assert_int_equal(b.answer.error, ERR_PERMISSION);
    mind_ask(&a, "nothing");
    assert_int_equal(a.answer.error, ERR_PERMISSION);
    assert_int_equal(audited(AUDIT_DENY, &a, NULL, NULL), 2);
    mind_name(&a, "first");
    label_secret(secret, "conclave.run", " first ,");
    mind_ask(&a, "db");
    assert_int_equal(a.answer.error, OK);
    assert_string_equal(a.value, "hunter2");
    assert_int_equal(audited(AUDIT_READ, &a, NULL, secret), 1);
    mind_ask(&b, "db");
    assert_int_equal(b.answer.error, ERR_PERMISSION);
    label_secret(secret, "conclave.run", b.id);
    mind_ask(&b, "db");
    assert_int_equal(b.answer.error, OK);
    mind_ask(&a, "db");
    assert_int_equal(a.answer.error, ERR_PERMISSION);
    assert_int_equal(label_refused(secret, "conclave.run", "firs"), ERR_NOT_FOUND);
    label_secret(secret, "conclave.run", "*");
    mind_ask(&a, "db");
    assert_int_equal(a.answer.error, OK);
    mind_free(&a);
    mind_free(&b);
    world_end();
}

static void a_config_is_asked_for_by_the_same_rule(void **state) {
    (void)state;
    static struct mind n;
    char id[NODE_ID_SIZE + 1];
    uint8_t labels[64];
    struct buf b = {.at = labels, .room = sizeof labels, .max = sizeof labels};
    struct held_spec spec = {.kind = ROW_CONFIG,
                             .name = span_str("app"),
                             .templating = "",
                             .driver = "",
                             .value = span_str("port=1")};
    world_begin();
    mind_new(&n, "one");
    make_held(&spec, id);
    make_secret("app", "hunter2", id);
    n.asks_config = true;
    mind_ask(&n, "app");
    assert_int_equal(n.answer.error, ERR_PERMISSION);
    assert_int_equal(labels_add(&b, span_str(RUN_LABEL), span_str("one")), OK);
    spec.labels = buf_span(&b);
    spec.name = span_str("other");
    make_held(&spec, id);
    mind_ask(&n, "other");
    assert_int_equal(n.answer.error, OK);
    assert_int_equal(n.answer.values[0].kind, ROW_CONFIG);
    assert_string_equal(n.value, "port=1");
    assert_int_equal(audited(AUDIT_READ, &n, NULL, id), 1);
    n.asks_config = false;
    mind_ask(&n, "other"); /* no secret is called so */
    assert_int_equal(n.answer.error, ERR_PERMISSION);
    mind_free(&n);
    world_end();
}

static const char *said; /* a host name */

static bool is_called_so(const struct mind *n) {
    struct row row;
    struct node_row node;
    return node_row_get(world.manager->store, n->id, &row, &node) == OK &&
           strcmp(node.hostname, said) == 0;
}

static bool is_taken_in(const struct mind *n) {
    const struct node_link *h = assign_of_node(world.manager->assigns, n->id)->link;
    return h->described && !h->dirty && !h->behind && !h->writing;
}

static void await_host(struct mind *n, const char *hostname) {
    said = hostname;
    mind_say_host(n, hostname);
    world_until(is_called_so, n);
}

/* An operator may say a host name; what is kept is the id of the node that has it then. */
static void a_host_name_gives_a_worker_nothing(void **state) {
    (void)state;
    static struct mind a, b, c;
    char secret[NODE_ID_SIZE + 1];
    world_begin();
    mind_new(&a, "a");
    mind_new(&b, "b");
    mind_new(&c, "a");
    make_secret("db", "hunter2", secret);
    assert_int_equal(label_refused(secret, "conclave.run", "b,a"), ERR_INVALID); /* two have it */
    await_host(&c, "c");
    label_secret(secret, "conclave.run", "A");
    mind_ask(&a, "db");
    assert_int_equal(a.answer.error, OK);
    mind_say_host(&b, "A"); /* one that another node has is not taken over */
    mind_settle(&b);
    world_until(is_taken_in, &b);
    said = "b";
    assert_true(is_called_so(&b));
    mind_ask(&b, "db");
    assert_int_equal(b.answer.error, ERR_PERMISSION);
    await_host(&a, "elsewhere");
    await_host(&b, "a"); /* it is free now, and means nothing */
    mind_ask(&b, "db");
    assert_int_equal(b.answer.error, ERR_PERMISSION);
    mind_ask(&a, "db");
    assert_int_equal(a.answer.error, OK);
    mind_free(&a);
    mind_free(&b);
    mind_free(&c);
    world_end();
}

/* A node that asks without end is not heard without end, and its session stays. */
static void asking_is_paced(void **state) {
    (void)state;
    static struct mind n;
    unsigned asked = 0;
    world_begin();
    mind_new(&n, "one");
    do
        mind_ask(&n, "nothing");
    while (n.answer.error == ERR_PERMISSION && ++asked < 1000);
    assert_int_equal(n.answer.error, ERR_BUSY);
    assert_true(asked >= 60 && asked < 200);
    assert_int_equal(audited(AUDIT_DENY, &n, NULL, NULL), asked);
    assert_false(n.closed);
    mind_free(&n);
    world_end();
}

static bool has_come_too_often(const struct mind *n) {
    const struct assigned *a = assign_of_node(world.manager->assigns, n->id);
    return a && !a->begun && a->retry_ms > 0;
}

static void coming_is_paced(void **state) {
    (void)state;
    static struct mind n;
    unsigned times = 0;
    world_begin();
    mind_new(&n, "one");
    while (!has_come_too_often(&n) && ++times < 100) {
        n.completes = 0;
        n.n_tasks = n.n_values = 0;
        uplink_say(n.uplink, NODE_RESYNC, span_of(NULL, 0));
        while (n.completes == 0 && !has_come_too_often(&n))
            (void)uv_run(&world.loop, UV_RUN_ONCE);
    }
    assert_true(times >= 10 && times < 20);
    world_until(mind_is_up, &n); /* it is only a matter of time */
    mind_free(&n);
    world_end();
}

static void what_is_not_understood_ends_the_session(void **state) {
    (void)state;
    static struct mind n;
    static const uint8_t kinds[] = {NODE_TASKS, NODE_FETCH};
    world_begin();
    mind_new(&n, "one");
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        uplink_say(n.uplink, kinds[i], span_str("nonsense"));
        world_until(mind_has_ended, &n);
        assert_int_equal(n.why, ERR_PROTOCOL);
        mind_disconnect(&n);
        mind_connect(&n);
    }
    mind_free(&n);
    world_end();
}

/* --- drivers ---------------------------------------------------------------------------------- */

/* A program that answers with `answer`, a shell word in which $1 may be the question. */
static void write_driver(char path[320], const char *name, const char *script) {
    (void)snprintf(path, 320, "%s-%s", world.root[0] ? world.root : "/tmp/conclave-assign", name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    (void)fprintf(f, "#!/bin/sh\n%s\n", script);
    (void)fchmod(fileno(f), 0700);
    (void)fclose(f);
}

static void make_driven(const char *name, const char *driver, char id[NODE_ID_SIZE + 1]) {
    struct held_spec spec = {
        .kind = ROW_SECRET, .name = span_str(name), .templating = "", .driver = driver};
    make_held(&spec, id);
}

static bool is_rejected(const struct mind *n) {
    const struct assigned *of = assign_of_node(world.manager->assigns, n->id);
    return of && of->n_reports > 0 && of->reports[0].is.state == TASK_REJECTED;
}

/* The word after "SecretName" comes back as the value, in base64: the question has arrived. */
#define ECHO_SCRIPT                                                                                \
    "read -r q\n"                                                                                  \
    "v=$(printf '%s' \"$q\" | sed 's/.*\"SecretName\":\"\\([^\"]*\\)\".*/\\1/' | "                 \
    "/usr/bin/base64)\n"                                                                           \
    "printf '{\"Value\":\"%s\"}' \"$v\""

static void a_driver_supplies_the_value(void **state) {
    (void)state;
    static struct mind n;
    char good[320], bad[320], secret[NODE_ID_SIZE + 1], other[NODE_ID_SIZE + 1], option[800];
    struct driver_table t = {0};
    struct why why = {0};
    world.root[0] = '\0';
    write_driver(good, "good", "PATH=/bin:/usr/bin\n" ECHO_SCRIPT);
    write_driver(bad, "bad", "printf '{\"Err\":\"no such\\\\nthing\"}'");
    (void)snprintf(option, sizeof option, "good=%s,bad=%s", good, bad);
    assert_int_equal(driver_table_read(&t, option, &why), OK);
    world_begin_with(&t);
    mind_new(&n, "one");
    make_driven("driven", "good", secret);
    make_driven("other", "bad", other);
    make_service(SERV_A, secret, "driven", 0);
    make_service(SERV_B, other, "other", 0);
    make_task(TASK_1, SERV_A, &n);
    world_await(mind_has_task, &n, TASK_1, 0);
    assert_string_equal(mind_value(&n, secret, 0)->text, "driven");
    assert_int_equal(audited(AUDIT_DELIVER, &n, TASK_1, secret), 1);
    world.manager->assigns->call_ms = UINT64_MAX;
    make_task(TASK_2, SERV_B, &n);
    world_until(is_rejected, &n);
    const struct assigned *of = assign_of_node(world.manager->assigns, n.id);
    assert_string_equal(of->reports[0].is.error, "driver bad: no such?thing");
    mind_settle(&n);
    assert_null(mind_task(&n, TASK_2));
    mind_free(&n);
    world_end();
    (void)unlink(good);
    (void)unlink(bad);
}

static unsigned lines_of(const char *path) {
    FILE *f = fopen(path, "re");
    unsigned n = 0;
    for (int c = f ? fgetc(f) : EOF; c != EOF; c = fgetc(f))
        n += c == '\n';
    if (f) (void)fclose(f);
    return n;
}

/* Two tasks on one node: one question, or one each when the driver says so. */
static void a_drivers_value_is_used_again_if_it_may(void **state) {
    (void)state;
    static struct mind n;
    static const char *const more[] = {"", ",\"DoNotReuse\":true"};
    for (unsigned i = 0; i < 2; i++) {
        char path[320], asked[340], script[600], secret[NODE_ID_SIZE + 1];
        struct driver_table t = {.n = 1, .at = {{.name = "counts"}}};
        world.root[0] = '\0';
        (void)snprintf(asked, sizeof asked, "/tmp/conclave-assign-asked-%d", (int)getpid());
        (void)snprintf(script, sizeof script, "echo x >> %s\nprintf '{\"Value\":\"YWJj\"%s}'",
                       asked, more[i]);
        write_driver(path, "counts", script);
        (void)snprintf(t.at[0].path, sizeof t.at[0].path, "%.255s", path);
        world_begin_with(&t);
        mind_new(&n, "one");
        make_driven("driven", "counts", secret);
        make_service(SERV_A, secret, "driven", 0);
        make_task(TASK_1, SERV_A, &n);
        world_await(mind_has_task, &n, TASK_1, 0);
        make_task(TASK_2, SERV_A, &n);
        world_await(mind_has_task, &n, TASK_2, 0);
        assert_string_equal(mind_value(&n, secret, 0)->text, "abc");
        assert_int_equal(lines_of(asked), 1 + i);
        mind_free(&n);
        world_end();
        (void)unlink(path);
        (void)unlink(asked);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_on_another_nodes_task_is_dropped),
        cmocka_unit_test(what_is_said_at_once_is_heard),
        cmocka_unit_test(a_worker_gets_by_asking_only_what_names_it),
        cmocka_unit_test(a_config_is_asked_for_by_the_same_rule),
        cmocka_unit_test(a_host_name_gives_a_worker_nothing),
        cmocka_unit_test(asking_is_paced),
        cmocka_unit_test(coming_is_paced),
        cmocka_unit_test(what_is_not_understood_ends_the_session),
        cmocka_unit_test(a_driver_supplies_the_value),
        cmocka_unit_test(a_drivers_value_is_used_again_if_it_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
