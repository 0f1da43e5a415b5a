/* Services and tasks as bytes: what is written is read, at every bound, cut off at each byte; what
 * is past a bound is neither written nor read; files of a task don't meet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/rows.h"
#include "tests/lib/held_lists.h"

static void fill(char *text, size_t size) {
    memset(text, 'w', size);
    text[size] = '\0';
}

static struct buf list_of(const char *one, unsigned n) {
    struct buf list = buf_new(ROW_BODY_MAX);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(buf_block(&list, span_str(one)), OK);
    return list;
}

static struct buf mount(uint8_t read_only, const char *source, const char *target) {
    struct buf m = buf_new(ROW_BODY_MAX), list = buf_new(ROW_BODY_MAX);
    assert_int_equal(buf_u8(&m, read_only), OK);
    assert_int_equal(buf_block(&m, span_str(source)), OK);
    assert_int_equal(buf_block(&m, span_str(target)), OK);
    assert_int_equal(buf_block(&list, buf_span(&m)), OK);
    buf_free(&m);
    return list;
}

static void assert_same(const struct service_row *a, const struct service_row *b) {
    assert_true(span_equal(a->spec_json, b->spec_json));
    assert_true(span_equal(a->previous_json, b->previous_json));
    assert_true(a->spec_version == b->spec_version && span_equal(a->labels, b->labels));
    assert_true(span_equal(a->command, b->command) && span_equal(a->env, b->env));
    assert_true(span_equal(a->constraints, b->constraints) && span_equal(a->mounts, b->mounts));
    assert_string_equal(a->image, b->image);
    assert_string_equal(a->user, b->user);
    assert_string_equal(a->dir, b->dir);
    assert_string_equal(a->hostname, b->hostname);
    assert_true(a->stop_signal == b->stop_signal && a->reload_signal == b->reload_signal);
    assert_true(a->stop_grace_ns == b->stop_grace_ns && a->mode == b->mode);
    assert_true(a->replicas == b->replicas && a->restart == b->restart);
    assert_true(a->restart_delay_ns == b->restart_delay_ns && a->restart_max == b->restart_max);
    assert_true(a->restart_window_ns == b->restart_window_ns && a->n == b->n);
    for (unsigned i = 0; i < a->n; i++) {
        const struct service_ref *r = &a->refs[i], *q = &b->refs[i];
        assert_string_equal(r->id, q->id);
        assert_string_equal(r->name, q->name);
        assert_string_equal(r->target, q->target);
        assert_true(r->kind == q->kind && r->uid == q->uid && r->gid == q->gid);
        assert_true(r->mode == q->mode && r->version == q->version);
    }
}

static void check_bytes(const struct service_row *s, size_t step) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct service_row out;
    assert_int_equal(service_encode(s, &body), OK);
    assert_int_equal(service_decode(buf_span(&body), &out), OK);
    assert_same(s, &out);
    for (size_t size = 0; size < body.size; size += step)
        assert_int_equal(service_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(service_decode(span_of(body.at, body.size - 1), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(service_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&body);
}

static void a_service_is_read_as_it_was_written(void **state) {
    (void)state;
    struct buf command = list_of("word", 3), env = list_of("NAME=value", 2),
               constraints = list_of("node.role == worker", 1), mounts = mount(1, "/a", "/b"),
               labels = buf_new(NODE_LABELS_BYTES);
    struct service_row s = some_service("s", "name", 3);
    assert_int_equal(labels_add(&labels, span_str("k"), span_str("v")), OK);
    s.previous_json = span_str("{\"Name\":\"x\"}");
    s.labels = buf_span(&labels);
    s.command = buf_span(&command);
    s.env = buf_span(&env);
    s.constraints = buf_span(&constraints);
    s.mounts = buf_span(&mounts);
    memcpy(s.image, "/srv/root", sizeof "/srv/root");
    memcpy(s.user, "1:2", sizeof "1:2");
    memcpy(s.dir, "/w", sizeof "/w");
    memcpy(s.hostname, "h", sizeof "h");
    s.stop_signal = 15;
    s.reload_signal = 64;
    s.stop_grace_ns = s.restart_delay_ns = s.restart_window_ns = INT64_MAX;
    s.mode = SERVICE_GLOBAL;
    s.restart = RESTART_NONE;
    s.replicas = SERVICE_REPLICAS_MAX;
    s.restart_max = s.spec_version = UINT64_MAX;
    s.refs[s.n++] = some_ref(ROW_CONFIG, "c", "config", "/etc/app.conf", 0);
    s.refs[1].uid = s.refs[1].gid = s.refs[1].version = UINT32_MAX;
    s.refs[1].mode = 07777;
    check_bytes(&s, 1);
    buf_free(&command);
    buf_free(&env);
    buf_free(&constraints);
    buf_free(&mounts);
    buf_free(&labels);
}

static void a_service_may_be_as_large_as_its_bounds(void **state) {
    (void)state;
    char *text = malloc(SERVICE_SPEC_MAX);
    assert_non_null(text);
    memset(text, 'x', SERVICE_SPEC_MAX);
    struct buf command = list_of("w", SERVICE_ARGS_MAX), env = list_of("N=", SERVICE_ENV_MAX),
               constraints = list_of("c", SERVICE_CONSTRAINTS_MAX);
    struct service_row s = some_service(NULL, NULL, 0);
    s.spec_json = s.previous_json = span_of(text, SERVICE_SPEC_MAX);
    command.size -= 1 + 4; /* in place of its last word a long one */
    assert_int_equal(buf_block(&command, span_of(text, SERVICE_TEXT_MAX)), OK);
    s.command = buf_span(&command);
    s.env = buf_span(&env);
    s.constraints = buf_span(&constraints);
    for (s.n = 0; s.n < SERVICE_REFS_MAX; s.n++) {
        char name[HELD_NAME_MAX + 1];
        fill(name, HELD_NAME_MAX);
        s.refs[s.n] = some_ref(ROW_SECRET, "s", name, "", 0);
        fill(s.refs[s.n].target, TARGET_MAX);
        (void)snprintf(s.refs[s.n].target, TARGET_MAX, "%03u", s.n);
        s.refs[s.n].target[3] = '-';
    }
    check_bytes(&s, 4099);
    buf_free(&command);
    buf_free(&env);
    buf_free(&constraints);
    free(text);
}

static void assert_invalid(const struct service_row *s) {
    struct buf body = buf_new(ROW_BODY_MAX);
    assert_int_equal(service_encode(s, &body), ERR_INVALID);
    assert_int_equal(body.size, 0);
}

static void a_list_past_its_bounds_is_not_written(void **state) {
    (void)state;
    char *text = malloc(SERVICE_SPEC_MAX + 1);
    assert_non_null(text);
    memset(text, 'x', SERVICE_SPEC_MAX + 1);
    struct service_row s = some_service(NULL, NULL, 0);
    const struct service_row good = s;
    struct buf lists[] = {list_of("w", SERVICE_ARGS_MAX + 1),
                          list_of("N=", SERVICE_ENV_MAX + 1),
                          list_of("c", SERVICE_CONSTRAINTS_MAX + 1),
                          list_of("NAME", 1),
                          list_of("=value", 1),
                          mount(2, "/a", "/b"),
                          mount(0, "a", "/b"),
                          mount(0, "/a", ""),
                          list_of("", 1),
                          buf_new(ROW_BODY_MAX),
                          buf_new(ROW_BODY_MAX)};
    assert_int_equal(buf_block(&lists[9], span_of(text, SERVICE_TEXT_MAX + 1)), OK);
    assert_int_equal(buf_block(&lists[10], span_of("a\0b", 3)), OK);
    for (unsigned i = 0; i < ARRAY_SIZE(lists); i++) {
        struct span list = buf_span(&lists[i]);
        s = good;
        *(i == 2                       ? &s.constraints
          : i == 1 || i == 3 || i == 4 ? &s.env
          : i >= 5 && i <= 8           ? &s.mounts
                                       : &s.command) = list;
        assert_invalid(&s);
        buf_free(&lists[i]);
    }
    s = good;
    s.command = span_of("\1\0\0", 3); /* cut off */
    assert_invalid(&s);
    s = good;
    s.spec_json = span_of(text, SERVICE_SPEC_MAX + 1);
    assert_invalid(&s);
    s = good;
    s.previous_json = span_of(text, SERVICE_SPEC_MAX + 1);
    assert_invalid(&s);
    free(text);
}

static void a_policy_past_its_bounds_is_not_written(void **state) {
    (void)state;
    struct service_row bad[14];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_service("s", "name", 0);
    bad[0].stop_signal = 65;
    bad[1].reload_signal = 65;
    bad[2].stop_grace_ns = -1;
    bad[3].restart_delay_ns = -1;
    bad[4].restart_window_ns = -1;
    bad[5].mode = (enum service_mode)0;
    bad[6].mode = (enum service_mode)3;
    bad[7].replicas = SERVICE_REPLICAS_MAX + 1;
    bad[8].restart = (enum restart_condition)0;
    bad[9].restart = (enum restart_condition)4;
    bad[10].image[0] = '\0';
    bad[11].image[0] = 'p'; /* "post" */
    bad[12].labels = span_str("?");
    bad[13].n = SERVICE_REFS_MAX + 1;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_invalid(&bad[i]);
}

static void a_ref_past_its_bounds_is_not_written(void **state) {
    (void)state;
    static const char *const targets[] = {"",     "/",    "a/",  "/a/", "a//b", "..",
                                          "../a", "a/..", "./a", "a/.", "/..",  "/a/../b"};
    struct service_row s;
    struct service_row bad[6];
    for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
        s = some_service("s", "name", 0);
        (void)snprintf(s.refs[0].target, sizeof s.refs[0].target, "%s", targets[i]);
        assert_invalid(&s);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_service("s", "name", 0);
    bad[0].refs[0].kind = ROW_VALUE;
    bad[1].refs[0].id[0] = '\0';
    bad[2].refs[0].id[0] = '/';
    bad[3].refs[0].name[0] = '\0';
    bad[4].refs[0].name[0] = '-';
    bad[5].refs[0].mode = 010000;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_invalid(&bad[i]);
}

static void two_files_of_a_service_have_two_paths(void **state) {
    (void)state;
    static const struct {
        enum row_kind kind[2];
        const char *target[2];
        bool good;
    } cases[] = {
        {{ROW_SECRET, ROW_SECRET}, {"a", "b"}, true},
        {{ROW_SECRET, ROW_SECRET}, {"a", "a"}, false},
        {{ROW_SECRET, ROW_SECRET}, {"a", "A"}, true},
        {{ROW_SECRET, ROW_CONFIG}, {"a", "a"}, true}, /* /run/secrets/a and /a */
        {{ROW_SECRET, ROW_CONFIG}, {"a", "/run/secrets/a"}, false},
        {{ROW_SECRET, ROW_CONFIG}, {"a", "run/secrets/a"}, false},
        {{ROW_CONFIG, ROW_CONFIG}, {"a", "/a"}, false},
        {{ROW_SECRET, ROW_CONFIG}, {"/x/y", "x/y"}, false},
        {{ROW_SECRET, ROW_SECRET}, {"...", "..a"}, true},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct service_row s = some_service(NULL, NULL, 0);
        struct buf body = buf_new(ROW_BODY_MAX);
        for (unsigned k = 0; k < 2; k++)
            s.refs[s.n++] = some_ref(cases[i].kind[k], "s", "name", cases[i].target[k], 0);
        assert_int_equal(service_encode(&s, &body), cases[i].good ? OK : ERR_INVALID);
        buf_free(&body);
    }
}

static void a_service_has_a_name_and_a_task_has_none(void **state) {
    (void)state;
    char name[SERVICE_NAME_MAX + 2];
    fill(name, SERVICE_NAME_MAX);
    assert_int_equal(row_name_check(ROW_SERVICE, span_str(name)), OK);
    assert_int_equal(row_name_check(ROW_SERVICE, span_str("a")), OK);
    assert_int_equal(row_name_check(ROW_SERVICE, span_str("")), ERR_INVALID);
    fill(name, SERVICE_NAME_MAX + 1);
    assert_int_equal(row_name_check(ROW_SERVICE, span_str(name)), ERR_INVALID);
    assert_int_equal(row_name_check(ROW_TASK, span_str("")), OK);
    assert_int_equal(row_name_check(ROW_TASK, span_str("a")), ERR_INVALID);
}

/* --- tasks --- */

static void check_task_bytes(const struct task_row *t) {
    struct buf body = buf_new(ROW_BODY_MAX), again = buf_new(ROW_BODY_MAX);
    struct task_row out;
    assert_int_equal(task_encode(t, &body), OK);
    assert_int_equal(task_decode(buf_span(&body), &out), OK);
    assert_int_equal(task_encode(&out, &again), OK);
    assert_true(span_equal(buf_span(&body), buf_span(&again)));
    assert_string_equal(t->service_id, out.service_id);
    assert_string_equal(t->node_id, out.node_id);
    assert_string_equal(t->message, out.message);
    assert_string_equal(t->error, out.error);
    assert_true(t->slot == out.slot && t->desired == out.desired && t->state == out.state);
    assert_true(t->state_ns == out.state_ns && t->spec_version == out.spec_version);
    assert_true(t->not_before_ns == out.not_before_ns && t->exit_code == out.exit_code);
    assert_int_equal(t->pid, out.pid);
    for (size_t size = 0; size < body.size; size++)
        assert_int_equal(task_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(task_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&body);
    buf_free(&again);
}

static void a_task_is_read_as_it_was_written(void **state) {
    (void)state;
    struct task_row fresh = some_task("service", "", TASK_NEW),
                    full = some_task("0123456789012345678901234", "n", TASK_FAILED);
    full.slot = full.pid = UINT32_MAX;
    full.desired = TASK_REMOVE;
    full.state_ns = full.not_before_ns = INT64_MIN;
    full.exit_code = INT32_MIN;
    fill(full.message, NODE_TEXT_MAX);
    fill(full.error, NODE_TEXT_MAX);
    check_task_bytes(&fresh);
    check_task_bytes(&full);
}

static void a_task_past_its_bounds_is_not_written(void **state) {
    (void)state;
    struct buf body = buf_new(ROW_BODY_MAX);
    struct task_row bad[7];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_task("service", "node", TASK_RUNNING);
    bad[0].service_id[0] = '\0';
    bad[1].node_id[1] = ' ';
    bad[2].state = (enum task_state)1;
    bad[3].desired = TASK_NEW;
    bad[4].desired = TASK_FAILED;
    bad[5].node_id[0] = '\0'; /* it runs somewhere */
    bad[6].state = TASK_ASSIGNED;
    bad[6].node_id[0] = '\0';
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(task_encode(&bad[i], &body), ERR_INVALID);
    assert_int_equal(body.size, 0);
}

static void states_have_dockers_names_in_dockers_order(void **state) {
    (void)state;
    static const struct {
        unsigned number;
        const char *name;
    } states[] = {{0, "new"},         {64, "pending"},   {192, "assigned"}, {256, "accepted"},
                  {320, "preparing"}, {384, "ready"},    {448, "starting"}, {512, "running"},
                  {576, "complete"},  {640, "shutdown"}, {704, "failed"},   {768, "rejected"},
                  {800, "remove"},    {832, "orphaned"}};
    unsigned known = 0;
    for (unsigned i = 0; i < 1000; i++)
        known += task_state_name((enum task_state)i) != NULL;
    assert_int_equal(known, ARRAY_SIZE(states));
    for (unsigned i = 0; i < ARRAY_SIZE(states); i++)
        assert_string_equal(task_state_name((enum task_state)states[i].number), states[i].name);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_service_is_read_as_it_was_written),
        cmocka_unit_test(a_service_may_be_as_large_as_its_bounds),
        cmocka_unit_test(a_list_past_its_bounds_is_not_written),
        cmocka_unit_test(a_policy_past_its_bounds_is_not_written),
        cmocka_unit_test(a_ref_past_its_bounds_is_not_written),
        cmocka_unit_test(two_files_of_a_service_have_two_paths),
        cmocka_unit_test(a_service_has_a_name_and_a_task_has_none),
        cmocka_unit_test(a_task_is_read_as_it_was_written),
        cmocka_unit_test(a_task_past_its_bounds_is_not_written),
        cmocka_unit_test(states_have_dockers_names_in_dockers_order),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
