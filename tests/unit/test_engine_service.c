/* Secrets, configs, services and tasks of the Engine API: bodies in, objects out, events. What goes
 * out has docker's names and types, never a secret's value; what comes in is refused by the field.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/engine/encode_service.h"
#include "api/engine/events.h"
#include "api/engine/request.h"
#include "tests/lib/engine_json.h"
#include "tests/lib/fault.h"

static struct buf out;
static struct jout j;

static void begin(void) {
    out = buf_new(1 * MIB);
    jout_start(&j, &out);
}

static json_t *parse(const char *text) {
    json_t *json = NULL;
    struct why why = {0};
    if (jin_parse(span_str(text), &json, &why) != OK) fail_msg("%s", why.text);
    return json;
}

/* --- bodies of secrets and configs ------------------------------------------------------------ */

static struct engine_held_spec said;

static enum err decode(enum row_kind kind, const char *text, struct why *why) {
    json_t *json = parse(text);
    enum err e = engine_held_decode(json, kind, &said, why);
    if (e == OK) assert_true(labels_check(buf_span(&said.labels)) == OK);
    said.name = span_of(NULL, 0); /* it goes with the JSON */
    json_decref(json);
    return e;
}

static void docker_s_secret_is_understood(void **state) {
    (void)state;
    json_t *json = parse("{\"Name\":\"pw\",\"Labels\":{\"b\":\"2\",\"a\":\"1\"},\"Data\":\"dgA=\","
                         "\"Templating\":{\"Name\":\"golang\"}}");
    assert_int_equal(engine_held_decode(json, ROW_SECRET, &said, NULL), OK);
    assert_true(span_equal(said.name, span_str("pw")));
    assert_string_equal(said.templating, "golang");
    assert_string_equal(said.driver, "");
    assert_true(said.has_data);
    assert_true(span_equal(secret_span(said.data), span_of("v\0", 2)));
    struct cursor c = cursor_of(buf_span(&said.labels));
    struct span key, value;
    assert_true(labels_next(&c, &key, &value) && span_equal(key, span_str("a")));
    assert_true(labels_next(&c, &key, &value) && span_equal(value, span_str("2")));
    engine_held_free(&said);
    json_decref(json);
}

static void a_driver_takes_the_place_of_data(void **state) {
    (void)state;
    assert_int_equal(
        decode(ROW_SECRET, "{\"Driver\":{\"Name\":\"vault\",\"Options\":{\"x\":\"y\"}}}", NULL),
        OK);
    assert_string_equal(said.driver, "vault");
    assert_true(said.driver_options.size > 0 && !said.data && !said.has_data);
    engine_held_free(&said);
    /* A config has no driver: the field is passed over. */
    assert_int_equal(decode(ROW_CONFIG, "{\"Driver\":{\"Name\":\"vault\"}}", NULL), OK);
    assert_string_equal(said.driver, "");
    engine_held_free(&said);
}

static void data_is_bounded_and_base64(void **state) {
    (void)state;
    static const struct {
        const char *data;
        size_t size; /* 0: refused */
    } cases[] = {
        {"dg==", 1},  {"dmE=", 2},  {"dmFs", 3}, {"dmFs\\r\\ndmFs\\n", 6},
        {"dg", 0},    {"dg=", 0},   {"====", 0}, {"dg==dg==", 0},
        {"d*==", 0},  {"dmFs=", 0}, {"=dmF", 0}, {"\\n", 0},
        {"dm Fs", 0},
    };
    char body[128];
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        (void)snprintf(body, sizeof body, "{\"Data\":\"%s\"}", cases[i].data);
        enum err e = decode(ROW_SECRET, body, NULL);
        assert_int_equal(e, cases[i].size ? OK : ERR_INVALID);
        if (e == OK) assert_int_equal(secret_span(said.data).size, cases[i].size);
        if (e == OK) engine_held_free(&said);
    }
    assert_int_equal(decode(ROW_SECRET, "{\"Data\":\"\"}", NULL), OK);
    assert_true(said.has_data && !said.data);
    engine_held_free(&said);
}

static void data_of(enum row_kind kind, size_t size, enum err expected, const char *sentence) {
    struct why why = {0};
    size_t coded = (size + 2) / 3 * 4, pads = (3 - size % 3) % 3;
    struct buf text = buf_new(4 * MIB);
    assert_int_equal(buf_format(&text, "{\"Data\":\""), OK);
    assert_int_equal(buf_reserve(&text, coded + 3), OK);
    for (size_t i = 0; i < coded; i++)
        assert_int_equal(buf_u8(&text, i < coded - pads ? 'A' : '='), OK);
    assert_int_equal(buf_add(&text, "\"}", 3), OK);
    assert_int_equal(decode(kind, (const char *)text.at, &why), expected);
    if (expected == OK) assert_int_equal(secret_span(said.data).size, size);
    if (expected == OK) engine_held_free(&said);
    if (expected != OK) assert_string_equal(why.text, sentence);
    buf_free(&text);
}

static void data_has_docker_s_limits(void **state) {
    (void)state;
    data_of(ROW_SECRET, SECRET_SIZE_MAX, OK, "");
    data_of(ROW_SECRET, SECRET_SIZE_MAX + 1, ERR_TOO_LARGE,
            "secret data must be larger than 0 and less than 512000 bytes");
    data_of(ROW_CONFIG, CONFIG_SIZE_MAX, OK, "");
    data_of(ROW_CONFIG, CONFIG_SIZE_MAX + 1, ERR_TOO_LARGE,
            "config data must be larger than 0 and less than 1024000 bytes");
}

static void other_types_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *body, *field;
    } cases[] = {
        {"{\"Name\":1}", "Name"},
        {"{\"Labels\":[]}", "Labels"},
        {"{\"Labels\":{\"a\":1}}", "Labels"},
        {"{\"Data\":{}}", "Data"},
        {"{\"Data\":1}", "Data"},
        {"{\"Driver\":\"x\"}", "Driver"},
        {"{\"Driver\":{}}", "Driver"},
        {"{\"Templating\":[]}", "Templating"},
        {"{\"Templating\":{\"Name\":\"x\",\"Options\":[]}}", "Options"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct why why = {0};
        assert_int_equal(decode(ROW_SECRET, cases[i].body, &why), ERR_INVALID);
        if (!strstr(why.text, cases[i].field)) fail_msg("%s: %s", cases[i].body, why.text);
        assert_null(said.data);
    }
}

struct sweep {
    json_t *json;
    enum err e;
};

static void decode_once(void *ctx) {
    struct sweep *w = ctx;
    w->e = engine_held_decode(w->json, ROW_SECRET, &said, NULL);
}

/* What is left after an error is seen by the address sanitizer. */
static void whole_or_nothing(void *ctx, bool fired) {
    const struct sweep *w = ctx;
    if (w->e == OK) {
        assert_true(said.data && said.labels.size > 0 && said.driver_options.size > 0);
        engine_held_free(&said);
    } else {
        assert_true(fired);
        assert_true(!said.data && !said.labels.at && !said.driver_options.at);
    }
}

static void without_memory_nothing_is_left_behind(void **state) {
    (void)state;
    struct sweep w = {
        .json = parse("{\"Name\":\"pw\",\"Labels\":{\"a\":\"1\"},\"Data\":\"dmFs\",\"Driver\":{"
                      "\"Name\":\"d\",\"Options\":{\"x\":\"y\"}}}")};
    assert_true(fault_sweep_alloc(decode_once, whole_or_nothing, &w) >= 4);
    json_decref(w.json);
}

/* --- secrets and configs ---------------------------------------------------------------------- */

static const struct row held_row_of = {.kind = ROW_CONFIG,
                                       .id = "id1",
                                       .name = {(const uint8_t *)"cf", 2},
                                       .version = 9,
                                       .created_ns = 1000000000,
                                       .updated_ns = 2000000000};

static void a_held_is_shown_without_its_value(void **state) {
    (void)state;
    static const struct held_row held = {.driver = "vault"};
    begin();
    engine_put_held(&j, &(struct engine_held){.row = &held_row_of, .held = &held});
    json_t *json = json_of(&j);
    assert_string_equal(text_at(json, "ID"), "id1");
    assert_int_equal(number_at(json, "Version.Index"), 9);
    assert_string_equal(text_at(json, "CreatedAt"), "1970-01-01T00:00:01Z");
    assert_string_equal(text_at(json, "Spec.Name"), "cf");
    assert_true(json_is_object(json_at(json, "Spec.Labels")));
    assert_string_equal(text_at(json, "Spec.Driver.Name"), "vault");
    assert_null(json_at(json, "Spec.Data"));
    assert_null(json_at(json, "Spec.Templating"));
    json_decref(json);
}

static void a_config_s_data_is_base64(void **state) {
    (void)state;
    static const struct held_row held = {.templating = "golang"};
    const struct span data = span_of("v\0", 2);
    begin();
    engine_put_held(&j, &(struct engine_held){.row = &held_row_of, .held = &held, .data = &data});
    json_t *json = json_of(&j);
    assert_string_equal(text_at(json, "Spec.Data"), "dgA=");
    assert_string_equal(text_at(json, "Spec.Templating.Name"), "golang");
    assert_null(json_at(json, "Spec.Driver"));
    json_decref(json);
}

/* --- services --------------------------------------------------------------------------------- */

static const char spec_now[] = "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":"
                               "\"host:latest\",\"StopGracePeriod\":1}},\"Mode\":{\"Replicated\":"
                               "{\"Replicas\":2}}}";
static const char spec_before[] =
    "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"/old\"}}}";

static struct service_row service_of(bool updated) {
    return (struct service_row){.spec_json = span_str(spec_now),
                                .previous_json = updated ? span_str(spec_before) : span_of(NULL, 0),
                                .spec_version = 7,
                                .image = "host",
                                .mode = SERVICE_REPLICATED,
                                .replicas = 2};
}

static const struct row service_row_of = {.kind = ROW_SERVICE, .id = "s1", .version = 8};

static json_t *shown(const struct service_row *s, struct engine_count count, bool status) {
    const struct engine_service service = {
        .row = &service_row_of, .service = s, .count = count, .status = status};
    begin();
    engine_put_service(&j, &service);
    return json_of(&j);
}

static void a_service_shows_its_spec_as_it_was_given(void **state) {
    (void)state;
    const struct service_row s = service_of(false);
    json_t *json = shown(&s, (struct engine_count){0}, false);
    assert_string_equal(text_at(json, "Spec.Name"), "web");
    assert_int_equal(number_at(json, "Spec.Mode.Replicated.Replicas"), 2);
    assert_int_equal(number_at(json, "Version.Index"), 8);
    assert_true(json_is_object(json_at(json, "Endpoint.Spec")));
    assert_null(json_at(json, "PreviousSpec"));
    assert_null(json_at(json, "UpdateStatus"));
    assert_null(json_at(json, "ServiceStatus"));
    json_decref(json);
}

static void the_status_counts_tasks(void **state) {
    (void)state;
    struct service_row s = service_of(false);
    json_t *json = shown(&s, (struct engine_count){.running = 1, .wanted = 3}, true);
    assert_int_equal(number_at(json, "ServiceStatus.RunningTasks"), 1);
    assert_int_equal(number_at(json, "ServiceStatus.DesiredTasks"), 2);
    json_decref(json);
    s.mode = SERVICE_GLOBAL; /* as many as there are nodes for */
    json = shown(&s, (struct engine_count){.running = 1, .wanted = 3}, true);
    assert_int_equal(number_at(json, "ServiceStatus.DesiredTasks"), 3);
    json_decref(json);
}

static void an_update_is_over_when_no_old_task_is_wanted(void **state) {
    (void)state;
    const struct service_row s = service_of(true);
    json_t *json = shown(&s, (struct engine_count){.wanted = 2, .old = 1}, false);
    assert_string_equal(text_at(json, "UpdateStatus.State"), "updating");
    assert_null(json_at(json, "UpdateStatus.CompletedAt"));
    assert_string_equal(text_at(json, "PreviousSpec.TaskTemplate.ContainerSpec.Image"), "/old");
    json_decref(json);
    json = shown(&s, (struct engine_count){.wanted = 1}, false); /* one is still to be made */
    assert_string_equal(text_at(json, "UpdateStatus.State"), "updating");
    json_decref(json);
    json = shown(&s, (struct engine_count){.wanted = 2}, false);
    assert_string_equal(text_at(json, "UpdateStatus.State"), "completed");
    json_decref(json);
}

static void an_update_whose_tasks_do_not_run_is_paused(void **state) {
    (void)state;
    const struct service_row s = service_of(true);
    static const struct task_row old = {
        .desired = TASK_RUNNING, .state = TASK_RUNNING, .spec_version = 6};
    static const struct task_row bad = {
        .desired = TASK_SHUTDOWN, .state = TASK_REJECTED, .spec_version = 7};
    struct engine_count c = {0};

    engine_count_task(&c, &s, "t9", &old);
    engine_count_task(&c, &s, "t9", &bad);
    json_t *json = shown(&s, c, false);
    assert_string_equal(text_at(json, "UpdateStatus.State"), "paused");
    assert_non_null(strstr(text_at(json, "UpdateStatus.Message"), "task t9"));
    json_decref(json);
    /* Tasks that came to their end are no reason to wait. */
    json = shown(&s, (struct engine_count){.wanted = 1, .over = 1}, false);
    assert_string_equal(text_at(json, "UpdateStatus.State"), "completed");
    json_decref(json);
    /* One that failed, and runs now. */
    json = shown(&s, (struct engine_count){.wanted = 2, .fresh = 2, .failed = "t9"}, false);
    assert_string_equal(text_at(json, "UpdateStatus.State"), "completed");
    json_decref(json);
}

static void tasks_are_counted_by_what_they_are_and_are_to_be(void **state) {
    (void)state;
    const struct service_row s = service_of(true);
    static const struct task_row tasks[] = {
        {.desired = TASK_RUNNING, .state = TASK_RUNNING, .spec_version = 7},
        {.desired = TASK_RUNNING, .state = TASK_STARTING, .spec_version = 7},
        {.desired = TASK_RUNNING, .state = TASK_RUNNING, .spec_version = 6},
        {.desired = TASK_SHUTDOWN, .state = TASK_RUNNING, .spec_version = 6},
        {.desired = TASK_SHUTDOWN, .state = TASK_FAILED, .spec_version = 7},
        {.desired = TASK_SHUTDOWN, .state = TASK_COMPLETE, .spec_version = 7},
    };
    struct engine_count c = {0};
    for (size_t i = 0; i < ARRAY_SIZE(tasks); i++)
        engine_count_task(&c, &s, "t1", &tasks[i]);
    assert_int_equal(c.running, 3);
    assert_int_equal(c.wanted, 3);
    assert_int_equal(c.old, 1);
    assert_int_equal(c.fresh, 1);
    assert_int_equal(c.over, 1);
    assert_string_equal(c.failed, "t1");
}

static void defaults_stand_where_the_spec_says_nothing(void **state) {
    (void)state;
    const struct service_row s = service_of(false);
    char *text = engine_defaults(&s);
    json_t *json = parse(text);
    assert_int_equal(number_at(json, "TaskTemplate.ContainerSpec.StopGracePeriod"), 1);
    assert_string_equal(text_at(json, "TaskTemplate.RestartPolicy.Condition"), "any");
    assert_true(number_at(json, "TaskTemplate.RestartPolicy.Delay") == 5000000000);
    assert_string_equal(text_at(json, "UpdateConfig.Order"), "stop-first");
    assert_string_equal(text_at(json, "RollbackConfig.FailureAction"), "pause");
    assert_string_equal(text_at(json, "EndpointSpec.Mode"), "vip");
    assert_int_equal(number_at(json, "Mode.Replicated.Replicas"), 2);
    json_decref(json);
    free(text);
}

/* --- tasks ------------------------------------------------------------------------------------ */

static void template_is(const struct service_row *s, uint64_t version, const char *image) {
    char *text = engine_template(s, version);
    json_t *json = parse(text);
    assert_true(json_is_object(json_at(json, "ContainerSpec")));
    if (image) assert_string_equal(text_at(json, "ContainerSpec.Image"), image);
    json_decref(json);
    free(text);
}

static void a_task_has_the_template_that_it_was_made_of(void **state) {
    (void)state;
    const struct service_row updated = service_of(true), fresh = service_of(false);
    template_is(&updated, 7, "host:latest");
    template_is(&updated, 6, "/old");
    template_is(&fresh, 6, "host:latest"); /* there is no other */
    template_is(NULL, 7, NULL);            /* its service is gone */
}

static json_t *task_shown(const struct task_row *t, const char *name) {
    static const struct row row = {.kind = ROW_TASK, .id = "t1", .version = 3};
    const struct engine_task task = {
        .row = &row, .task = t, .name = name, .spec = "{\"ContainerSpec\":{}}"};
    begin();
    engine_put_task(&j, &task);
    return json_of(&j);
}

static void a_task_tells_where_it_is_and_how(void **state) {
    (void)state;
    struct task_row t = {.service_id = "s1",
                         .node_id = "n1",
                         .slot = 2,
                         .desired = TASK_SHUTDOWN,
                         .state = TASK_FAILED,
                         .state_ns = 1500000000,
                         .message = "started",
                         .error = "task: non-zero exit (3)",
                         .exit_code = -3,
                         .pid = 77};
    json_t *json = task_shown(&t, "web.2.t1");
    assert_string_equal(text_at(json, "Name"), "web.2.t1");
    assert_string_equal(text_at(json, "ServiceID"), "s1");
    assert_string_equal(text_at(json, "NodeID"), "n1");
    assert_int_equal(number_at(json, "Slot"), 2);
    assert_string_equal(text_at(json, "DesiredState"), "shutdown");
    assert_string_equal(text_at(json, "Status.State"), "failed");
    assert_string_equal(text_at(json, "Status.Err"), "task: non-zero exit (3)");
    assert_string_equal(text_at(json, "Status.Timestamp"), "1970-01-01T00:00:01.5Z");
    assert_int_equal(number_at(json, "Status.ContainerStatus.ExitCode"), -3);
    assert_int_equal(number_at(json, "Status.ContainerStatus.PID"), 77);
    assert_true(json_is_object(json_at(json, "Spec.ContainerSpec")));
    json_decref(json);
}

static void a_task_that_is_nowhere_yet_says_nothing_of_it(void **state) {
    (void)state;
    static const struct task_row t = {
        .service_id = "s1", .desired = TASK_RUNNING, .state = TASK_PENDING};
    json_t *json = task_shown(&t, "");
    assert_null(json_at(json, "NodeID"));
    assert_null(json_at(json, "Slot"));
    assert_null(json_at(json, "Name"));
    assert_null(json_at(json, "Status.ContainerStatus"));
    assert_null(json_at(json, "Status.Err"));
    assert_string_equal(text_at(json, "Status.State"), "pending");
    json_decref(json);
}

/* --- events ----------------------------------------------------------------------------------- */

static void secrets_and_configs_make_events_with_their_names(void **state) {
    (void)state;
    static const struct {
        enum row_kind kind;
        const char *type;
    } cases[] = {{ROW_SECRET, "secret"}, {ROW_CONFIG, "config"}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct row row = {.kind = cases[i].kind, .id = "x1", .name = span_str("pw")};
        struct event e;
        assert_true(event_of_row(NULL, &row, &e));
        assert_string_equal(e.type, cases[i].type);
        assert_string_equal(e.action, "create");
        assert_string_equal(e.attributes[0].value, "pw");
        assert_int_equal(e.n, 1);
        assert_true(event_of_row(&row, &row, &e));
        assert_string_equal(e.action, "update");
        assert_true(event_of_row(&row, NULL, &e));
        assert_string_equal(e.action, "remove");
    }
}

static void values_tasks_and_the_audit_make_no_events(void **state) {
    (void)state;
    static const enum row_kind kinds[] = {ROW_VALUE, ROW_TASK, ROW_AUDIT, ROW_VAULT, ROW_TOKEN};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        const struct row row = {.kind = kinds[i], .id = "x1"};
        struct event e;
        assert_false(event_of_row(NULL, &row, &e));
    }
}

static void a_service_s_update_tells_of_image_and_replicas(void **state) {
    (void)state;
    struct service_row was = service_of(false), is = service_of(false);
    struct buf bodies[2] = {buf_new(MIB), buf_new(MIB)};
    was.stop_grace_ns = is.stop_grace_ns = 1;
    was.restart = is.restart = RESTART_ANY;
    is.replicas = 5;
    (void)snprintf(is.image, sizeof is.image, "/new");
    assert_int_equal(service_encode(&was, &bodies[0]), OK);
    assert_int_equal(service_encode(&is, &bodies[1]), OK);
    const struct row before = {
        .kind = ROW_SERVICE, .id = "s1", .name = span_str("web"), .body = buf_span(&bodies[0])};
    struct row after = before;
    after.body = buf_span(&bodies[1]);
    struct event e;
    assert_true(event_of_row(&before, &after, &e));
    begin();
    event_put(&j, &e);
    json_t *json = json_of(&j);
    assert_string_equal(text_at(json, "Type"), "service");
    const json_t *attributes = json_at(json, "Actor.Attributes");
    assert_string_equal(json_string_value(json_object_get(attributes, "replicas.old")), "2");
    assert_string_equal(json_string_value(json_object_get(attributes, "replicas.new")), "5");
    assert_string_equal(json_string_value(json_object_get(attributes, "image.new")), "/new");
    json_decref(json);
    assert_true(event_of_row(&before, &before, &e));
    assert_int_equal(e.n, 1);
    buf_free(&bodies[0]);
    buf_free(&bodies[1]);
}

static int start(void **state) {
    (void)state;
    return crypto_start(NULL) == OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(docker_s_secret_is_understood),
        cmocka_unit_test(a_driver_takes_the_place_of_data),
        cmocka_unit_test(data_is_bounded_and_base64),
        cmocka_unit_test(data_has_docker_s_limits),
        cmocka_unit_test(other_types_are_refused_by_name),
        cmocka_unit_test(without_memory_nothing_is_left_behind),
        cmocka_unit_test(a_held_is_shown_without_its_value),
        cmocka_unit_test(a_config_s_data_is_base64),
        cmocka_unit_test(a_service_shows_its_spec_as_it_was_given),
        cmocka_unit_test(the_status_counts_tasks),
        cmocka_unit_test(an_update_is_over_when_no_old_task_is_wanted),
        cmocka_unit_test(an_update_whose_tasks_do_not_run_is_paused),
        cmocka_unit_test(tasks_are_counted_by_what_they_are_and_are_to_be),
        cmocka_unit_test(defaults_stand_where_the_spec_says_nothing),
        cmocka_unit_test(a_task_has_the_template_that_it_was_made_of),
        cmocka_unit_test(a_task_tells_where_it_is_and_how),
        cmocka_unit_test(a_task_that_is_nowhere_yet_says_nothing_of_it),
        cmocka_unit_test(secrets_and_configs_make_events_with_their_names),
        cmocka_unit_test(values_tasks_and_the_audit_make_no_events),
        cmocka_unit_test(a_service_s_update_tells_of_image_and_replicas),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
