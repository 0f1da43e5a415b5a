/* docker's ServiceSpec as a row: what its client really sends, what is left out, what is refused
 * and in which words, what is warned of, secrets and configs against the state, versions by label.
 * Whatever is accepted can be encoded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "api/json.h"
#include "api/service/service_signal.h"
#include "api/service/services.h"
#include "tests/lib/fault.h"
#include "tests/lib/held_lists.h"

/* --- reading ---------------------------------------------------------------------------------- */

static struct manager *world; /* its store has secrets pw (2 versions) and api, config cf */

struct reading {
    struct service_row row;
    struct span name;
    struct buf memory, warnings;
    struct why why;
    enum err error;
};

static void list_config(struct row_list *l) {
    struct held_row h = some_held("cf", 1);
    struct value_row v = some_value(ROW_CONFIG, "cf", 1, 1);
    list_held(l, ROW_CREATE, ROW_CONFIG, "cf", "cf", &h);
    list_value(l, ROW_CREATE, "cf-1", &v);
}

static int make_world(void **state) {
    struct row_list l = row_list();
    (void)state;
    assert_int_equal(crypto_start(NULL), OK);
    world = calloc(1, sizeof *world);
    world->store = store_with_vault();
    list_secret(&l, "pw", 2);
    list_secret(&l, "api", 1);
    list_config(&l);
    assert_int_equal(list_apply(world->store, &l).error, OK);
    return 0;
}

static int end_world(void **state) {
    (void)state;
    store_free(world->store);
    free(world);
    return 0;
}

static struct reading *read_spec(const char *text) {
    struct reading *r = calloc(1, sizeof *r);
    json_t *json;
    r->memory = buf_new(SERVICE_SPEC_MEMORY);
    r->warnings = buf_new(SERVICE_WARNINGS);
    if (jin_parse(span_str(text), &json, &r->why) != OK) fail_msg("%s", r->why.text);
    r->error = service_spec(world, json, &r->memory, &r->row, &r->name, &r->warnings, &r->why);
    json_decref(json);
    return r;
}

static void reading_free(struct reading *r) {
    buf_free(&r->memory);
    buf_free(&r->warnings);
    free(r);
}

static struct reading *accepted(const char *text) {
    struct reading *r = read_spec(text);
    struct buf body = buf_new(ROW_BODY_MAX);
    struct service_row *back = malloc(sizeof *back);
    if (r->error != OK) fail_msg("%s: %s", err_name(r->error), r->why.text);
    assert_int_equal(service_encode(&r->row, &body), OK);
    assert_int_equal(service_decode(buf_span(&body), back), OK);
    free(back);
    buf_free(&body);
    return r;
}

/* The rest of a spec around what a test is about. */
static const char *spec_of(const char *container, const char *task, const char *service) {
    static char text[128 * 1024];
    (void)snprintf(text, sizeof text,
                   "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"host\"%s%s},"
                   "\"ForceUpdate\":0%s}%s}",
                   strstr(container, "\"Args\"") ? "" : ",\"Args\":[\"true\"]", container, task,
                   service);
    return text;
}

static void check_refused(const char *spec, enum err error, const char *sentence) {
    struct reading *r = read_spec(spec);
    if (r->error != error || !strstr(r->why.text, sentence))
        fail_msg("%s \"%s\" for %s", err_name(r->error), r->why.text, spec);
    reading_free(r);
}

static void refuse_container(const char *members, const char *sentence) {
    check_refused(spec_of(members, "", ""), ERR_INVALID, sentence);
}

static void check_block(struct cursor *c, const char *text) {
    struct span block;
    assert_int_equal(cursor_block(c, c->left, &block), OK);
    if (!span_equal(block, span_str(text)))
        fail_msg("%.*s is not %s", (int)block.size, (const char *)block.at, text);
}

/* --- what docker sends ------------------------------------------------------------------------ */

/* docker 28 for `docker service create --name b --secret --config --env --mount --constraint
 * ...`. */
static const char recorded[] =
    "{\"Name\":\"b\",\"Labels\":{\"l\":\"1\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":"
    "\"host:latest\",\"Args\":[\"sleep\",\"5\"],\"Hostname\":\"h\",\"Env\":[\"A=b\"],\"Dir\":\"/"
    "w\",\"User\":\"1:2\",\"Init\":false,\"StopSignal\":\"TERM\",\"Mounts\":[{\"Type\":\"bind\","
    "\"Source\":\"/a\",\"Target\":\"/b\",\"ReadOnly\":true}],\"StopGracePeriod\":3000000000,"
    "\"DNSConfig\":{},\"Secrets\":[{\"File\":{\"Name\":\"x\",\"UID\":\"0\",\"GID\":\"7\",\"Mode\":"
    "256},\"SecretID\":\"pw\",\"SecretName\":\"pw\"}],\"Configs\":[{\"File\":{\"Name\":\"cf\","
    "\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292},\"ConfigID\":\"cf\",\"ConfigName\":\"cf\"}]},"
    "\"Resources\":{\"Limits\":{},\"Reservations\":{}},\"RestartPolicy\":{\"Condition\":\"on-"
    "failure\",\"Delay\":5000000000,\"MaxAttempts\":0},\"Placement\":{\"Constraints\":[\"node.role="
    "=worker\"]},\"ForceUpdate\":0},\"Mode\":{\"Replicated\":{\"Replicas\":2}},\"EndpointSpec\":{"
    "\"Mode\":\"vip\"}}";

static void what_dockers_client_sends_becomes_a_row(void **state) {
    (void)state;
    struct reading *r = accepted(recorded);
    const struct service_row *s = &r->row;
    assert_true(span_equal(r->name, span_str("b")));
    assert_int_equal(r->warnings.size, 0);
    assert_string_equal(s->image, "host");
    struct cursor c = cursor_of(s->command);
    check_block(&c, "sleep");
    check_block(&c, "5");
    assert_int_equal(c.left, 0);
    c = cursor_of(s->env);
    check_block(&c, "A=b");
    c = cursor_of(s->constraints);
    check_block(&c, "node.role == worker");
    assert_string_equal(s->hostname, "h");
    assert_string_equal(s->dir, "/w");
    assert_string_equal(s->user, "1:2");
    assert_int_equal(s->stop_signal, 15);
    assert_int_equal(s->stop_grace_ns, 3000000000);
    assert_int_equal(s->restart, RESTART_ON_FAILURE);
    assert_int_equal(s->restart_delay_ns, 5000000000);
    assert_int_equal(s->mode, SERVICE_REPLICATED);
    assert_int_equal(s->replicas, 2);
    assert_int_equal(s->n, 2);
    assert_int_equal(s->refs[0].kind, ROW_SECRET);
    assert_string_equal(s->refs[0].id, "pw");
    assert_string_equal(s->refs[0].target, "x");
    assert_int_equal(s->refs[0].gid, 7);
    assert_int_equal(s->refs[0].mode, 0400);
    assert_int_equal(s->refs[0].version, 0);
    assert_int_equal(s->refs[1].kind, ROW_CONFIG);
    assert_int_equal(s->refs[1].mode, 0444);
    reading_free(r);
}

static void mounts_are_a_flag_and_two_paths(void **state) {
    (void)state;
    struct reading *r = accepted(recorded);
    struct cursor c = cursor_of(r->row.mounts), fields;
    struct span mount;
    uint8_t read_only;
    assert_int_equal(cursor_block(&c, c.left, &mount), OK);
    fields = cursor_of(mount);
    assert_int_equal(cursor_u8(&fields, &read_only), OK);
    assert_int_equal(read_only, 1);
    check_block(&fields, "/a");
    check_block(&fields, "/b");
    assert_int_equal(c.left + fields.left, 0);
    reading_free(r);
}

/* What was kept reads as the same again, member for member. */
static void the_kept_spec_is_the_given_one_with_its_defaults(void **state) {
    (void)state;
    struct reading *r = accepted(recorded);
    json_t *given, *kept;
    assert_int_equal(jin_parse(span_str(recorded), &given, NULL), OK);
    assert_int_equal(jin_parse(r->row.spec_json, &kept, NULL), OK);
    assert_true(json_equal(given, kept));
    json_decref(kept);
    reading_free(r);
    r = accepted(spec_of(",\"Secrets\":[{\"SecretID\":\"pw\",\"SecretName\":\"pw\"}]", "", ""));
    json_decref(given);
    assert_int_equal(
        jin_parse(span_str("{\"Name\":\"web\",\"Labels\":{},\"Mode\":{\"Replicated\":{\"Replicas\":"
                           "1}},\"TaskTemplate\":{\"ForceUpdate\":0,\"ContainerSpec\":{\"Image\":"
                           "\"host\",\"Args\":[\"true\"],\"Secrets\":[{\"SecretID\":\"pw\","
                           "\"SecretName\":\"pw\",\"File\":{\"Name\":\"pw\",\"UID\":\"0\","
                           "\"GID\":\"0\",\"Mode\":292}}]}}}"),
                  &given, NULL),
        OK);
    assert_int_equal(jin_parse(r->row.spec_json, &kept, NULL), OK);
    assert_true(json_equal(given, kept));
    json_decref(given);
    json_decref(kept);
    reading_free(r);
}

static void what_is_left_out_has_its_default(void **state) {
    (void)state;
    struct reading *r = accepted(spec_of("", "", ""));
    const struct service_row *s = &r->row;
    assert_int_equal(s->mode, SERVICE_REPLICATED);
    assert_int_equal(s->replicas, 1);
    assert_int_equal(s->restart, RESTART_ANY);
    assert_int_equal(s->restart_delay_ns + s->stop_grace_ns + s->restart_window_ns, 0);
    assert_int_equal(s->stop_signal + s->reload_signal + s->n, 0);
    reading_free(r);
    r = accepted("{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"/srv/root\",\"Command\":[\"/"
                 "bin/x\"],\"StopGracePeriod\":0},\"RestartPolicy\":{\"Delay\":0}},\"Mode\":{"
                 "\"Global\":{}}}");
    assert_int_equal(r->name.size, NODE_ID_SIZE); /* it was given one */
    assert_string_equal(r->row.image, "/srv/root");
    assert_int_equal(r->row.mode, SERVICE_GLOBAL);
    assert_int_equal(r->row.stop_grace_ns, 1); /* at once, which is not the default */
    assert_int_equal(r->row.restart_delay_ns, 1);
    reading_free(r);
}

static void spans_stay_good_though_much_is_kept(void **state) {
    (void)state;
    static char members[60000];
    size_t size = (size_t)snprintf(members, sizeof members, ",\"Env\":[\"A=%0*d\"", 15000, 1);
    for (unsigned i = 0; i < 200; i++)
        size += (size_t)snprintf(members + size, sizeof members - size, ",\"V%u=%0*d\"", i, 190, 1);
    (void)snprintf(members + size, sizeof members - size, "]");
    struct reading *r = accepted(spec_of(members, "", ""));
    struct span all[] = {r->row.spec_json, r->row.env, r->row.command, r->name};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_true(all[i].at >= r->memory.at);
        assert_true(all[i].at + all[i].size <= r->memory.at + r->memory.size);
    }
    struct cursor c = cursor_of(r->row.command);
    check_block(&c, "true");
    reading_free(r);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void images_are_the_host_or_a_path(void **state) {
    (void)state;
    static const char *const good[] = {"host", "host:latest", "host:latest@sha256:00", "/srv/a.b"};
    static const char *const bad[] = {"nginx:latest", "hostile", "srv/x", "/",
                                      "/a/../b",      "/a//b",   "/a/",   "/./a"};
    char spec[256];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        (void)snprintf(spec, sizeof spec,
                       "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"%s\",\"Args\":[\"a\"]}}}",
                       good[i]);
        reading_free(accepted(spec));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)snprintf(spec, sizeof spec,
                       "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"%s\",\"Args\":[\"a\"]}}}",
                       bad[i]);
        check_refused(spec, ERR_INVALID, "is not a valid image");
    }
    check_refused("{\"TaskTemplate\":{\"ContainerSpec\":{}}}", ERR_INVALID,
                  "image reference must be provided");
}

static void wrong_members_are_named(void **state) {
    (void)state;
    check_refused("{}", ERR_INVALID, "there is no TaskTemplate");
    check_refused("{\"TaskTemplate\":{}}", ERR_INVALID, "there is no ContainerSpec");
    check_refused("{\"TaskTemplate\":7}", ERR_INVALID, "field TaskTemplate is no object");
    check_refused("{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"host\"}}}", ERR_INVALID,
                  "a command must be provided");
    refuse_container(",\"Args\":[\"\"]", "a command must be provided");
    refuse_container(",\"Args\":[7]", "field Args has a value that is no text");
    refuse_container(",\"Env\":[\"=x\"]", "invalid environment variable");
    refuse_container(",\"Env\":{}", "field Env is no list");
    refuse_container(",\"Dir\":\"here\"", "needs to be an absolute path");
    refuse_container(",\"User\":\"a\\nb\"", "control character");
    refuse_container(",\"StopSignal\":\"SIGNOTHING\"", "is no signal");
    refuse_container(",\"StopGracePeriod\":-1", "field StopGracePeriod is -1");
    refuse_container(",\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"v\",\"Target\":\"/v\"}]",
                     "type volume can't be had");
    refuse_container(",\"Mounts\":[{\"Source\":\"v\",\"Target\":\"/v\"}]", "invalid mount source");
    refuse_container(",\"Mounts\":[{\"Source\":\"/v\",\"Target\":\"/\"}]", "invalid mount target");
    refuse_container(",\"Mounts\":[{\"Source\":\"/v\",\"Target\":\"/run/secrets/x\"}]",
                     "is where a task has its own");
    refuse_container(",\"Mounts\":[{\"Source\":\"/v\",\"Target\":\"/a\"},{\"Source\":\"/w\","
                     "\"Target\":\"/a\"}]",
                     "duplicate mount point: /a");
}

static void wrong_tasks_and_services_are_named(void **state) {
    (void)state;
    static const struct {
        const char *task, *service;
        enum err error;
        const char *sentence;
    } cases[] = {
        {",\"RestartPolicy\":{\"Condition\":\"maybe\"}", "", ERR_INVALID,
         "invalid RestartCondition"},
        {",\"RestartPolicy\":{\"MaxAttempts\":1001}", "", ERR_INVALID, "field MaxAttempts is 1001"},
        {",\"Placement\":{\"Constraints\":[\"node.role\"]}", "", ERR_INVALID,
         "constraint expected one operator"},
        {",\"Placement\":{\"Constraints\":[\"node.color==red\"]}", "", ERR_INVALID,
         "key 'node.color' is invalid"},
        {",\"Placement\":{\"Constraints\":[\"node.labels.==red\"]}", "", ERR_INVALID, "is invalid"},
        {",\"Placement\":{\"Constraints\":[\"node.role==\"]}", "", ERR_INVALID,
         "value '' is invalid"},
        {",\"Runtime\":\"plugin\"", "", ERR_UNSUPPORTED, "unimplemented runtime"},
        {"", ",\"Mode\":{\"Replicated\":{\"Replicas\":-1}}", ERR_INVALID, "must be non-negative"},
        {"", ",\"Mode\":{\"Replicated\":{\"Replicas\":16385}}", ERR_INVALID, "16384 at most"},
        {"", ",\"Mode\":{\"Replicated\":{},\"Global\":{}}", ERR_INVALID, "only one service mode"},
        {"", ",\"Mode\":{\"GlobalJob\":{}}", ERR_UNSUPPORTED, "jobs are not supported"},
        {"", ",\"Labels\":{\"conclave.reload-signal\":\"x\"}", ERR_INVALID, "is no signal"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_refused(spec_of("", cases[i].task, cases[i].service), cases[i].error,
                      cases[i].sentence);
    check_refused("{\"Name\":\"-a\",\"TaskTemplate\":{\"ContainerSpec\":{}}}", ERR_INVALID,
                  "must be valid as a DNS name component");
    check_refused("{\"Name\":\"a.b\",\"TaskTemplate\":{\"ContainerSpec\":{}}}", ERR_INVALID,
                  "must be valid as a DNS name component");
    check_refused("{\"Name\":"
                  "\"a123456789a123456789a123456789a123456789a123456789a123456789abcd\","
                  "\"TaskTemplate\":{\"ContainerSpec\":{}}}",
                  ERR_INVALID, "63 characters or fewer");
}

static void what_is_too_much_is_refused(void **state) {
    (void)state;
    static char members[80 * 1024];
    (void)snprintf(members, sizeof members, ",\"Env\":[\"A=%0*d\"]", 17000, 1);
    refuse_container(members, "passes 16384 bytes");
    size_t size = (size_t)snprintf(members, sizeof members, ",\"Args\":[\"0\"");
    for (unsigned i = 0; i < SERVICE_ARGS_MAX; i++)
        size += (size_t)snprintf(members + size, sizeof members - size, ",\"0\"");
    (void)snprintf(members + size, sizeof members - size, "]");
    refuse_container(members, "more than 256 words");
    (void)snprintf(members, sizeof members, ",\"Labels\":{\"a\":\"%0*d\"}", 66000, 1);
    refuse_container(members, "spec passes 65536 bytes");
}

static void what_has_no_effect_is_warned_of_and_kept(void **state) {
    (void)state;
    struct reading *r = accepted(
        spec_of(",\"TTY\":true,\"CapabilityAdd\":[\"NET_ADMIN\"]",
                ",\"Resources\":{\"Limits\":{\"NanoCPUs\":1000000000}},\"Networks\":[{\"Target\":"
                "\"n\"}],\"Placement\":{\"MaxReplicas\":2}",
                ",\"UpdateConfig\":{\"Parallelism\":2},\"EndpointSpec\":{\"Ports\":[{}]}"));
    static const char *const lines[] = {"terminal",       "added capabilities",  "resource limits",
                                        "networks",       "maximum of replicas", "update config",
                                        "published ports"};
    assert_int_equal(buf_u8(&r->warnings, 0), OK);
    const char *text = (const char *)r->warnings.at;
    size_t n = 1;
    for (size_t i = 0; text[i]; i++)
        n += text[i] == '\n';
    assert_int_equal(n, sizeof lines / sizeof lines[0]);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!strstr(text, lines[i])) fail_msg("no %s in %s", lines[i], text);
    assert_true(memmem(r->row.spec_json.at, r->row.spec_json.size, "NET_ADMIN", 9) != NULL);
    reading_free(r);
}

static void what_clients_send_back_is_not_warned_of(void **state) {
    (void)state;
    struct reading *r = accepted(
        spec_of(",\"Init\":false,\"Isolation\":\"default\",\"DNSConfig\":{\"Options\":[]}",
                ",\"Resources\":{\"Limits\":{\"Pids\":0},\"Reservations\":{}},\"Runtime\":"
                "\"container\"",
                ",\"UpdateConfig\":{\"Parallelism\":1,\"FailureAction\":\"pause\",\"Monitor\":"
                "5000000000,\"MaxFailureRatio\":0,\"Order\":\"stop-first\"},\"RollbackConfig\":{"
                "\"Parallelism\":1,\"MaxFailureRatio\":0.0},\"EndpointSpec\":{\"Mode\":\"vip\"}"));
    assert_int_equal(r->warnings.size, 0);
    reading_free(r);
    r = accepted(spec_of("", "", ",\"UpdateConfig\":{\"Parallelism\":0}"));
    assert_true(r->warnings.size > 0); /* 0: all at once */
    reading_free(r);
    r = accepted(spec_of("", "", ",\"RollbackConfig\":{\"Order\":\"start-first\"}"));
    assert_true(r->warnings.size > 0);
    reading_free(r);
}

/* --- secrets and configs ---------------------------------------------------------------------- */

static void references_are_held_against_the_state(void **state) {
    (void)state;
#define SECRET(id, name, file)                                                                     \
    "{\"SecretID\":\"" id "\",\"SecretName\":\"" name "\",\"File\":{" file "}}"
    static const struct {
        const char *list, *sentence;
    } cases[] = {
        {SECRET("", "pw", ""), "malformed secret reference"},
        {SECRET("pw", "", ""), "malformed secret reference"},
        {"7", "field Secrets has a value that is no object"},
        {SECRET("no", "no", ""), "secret not found: no"},
        {SECRET("pw", "other", ""), "secret not found: other"},
        {SECRET("cf", "cf", ""), "secret not found: cf"},
        {SECRET("no", "no", "") "," SECRET("nono", "nono", ""), "secrets not found: no, nono"},
        {SECRET("pw", "pw", "\"Name\":\"\""), "invalid target file name provided"},
        {SECRET("pw", "pw", "\"Name\":\"../x\""), "invalid target file name provided"},
        {SECRET("pw", "pw", "\"Name\":\"/\""), "invalid target file name provided"},
        {SECRET("pw", "pw", "\"Name\":\"a/\""), "invalid target file name provided"},
        {SECRET("pw", "pw", "\"UID\":\"root\""), "UID \"root\" of a file is no number of a user"},
        {SECRET("pw", "pw", "\"GID\":\"-1\""), "is no number of a group"},
        {SECRET("pw", "pw", "\"UID\":\"4294967295\""), "is no number of a user"},
        {SECRET("pw", "pw", "\"Mode\":2048"), "other bits than 0777"},
        {SECRET("pw", "pw", "") "," SECRET("api", "api", "\"Name\":\"pw\""),
         "secret references 'pw' and 'api' have a conflicting target: 'pw'"},
        {SECRET("pw", "pw", "") "," SECRET("api", "api", "\"Name\":\"/run/secrets/pw\""),
         "have a conflicting target"},
    };
    char members[1024];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        (void)snprintf(members, sizeof members, ",\"Secrets\":[%s]", cases[i].list);
        refuse_container(members, cases[i].sentence);
    }
    refuse_container(",\"Configs\":[{\"ConfigID\":\"pw\",\"ConfigName\":\"pw\"}]",
                     "config not found: pw");
}

static void a_service_may_name_one_secret_twice(void **state) {
    (void)state;
    struct reading *r = accepted(spec_of(",\"Secrets\":[" SECRET("pw", "pw", "") "," SECRET(
                                             "pw", "pw", "\"Name\":\"/etc/pw\",\"Mode\":0") "]",
                                         "", ""));
    assert_int_equal(r->row.n, 2);
    assert_int_equal(r->row.refs[1].mode, 0);
    reading_free(r);
}

static void a_label_fixes_the_version(void **state) {
    (void)state;
    static const char members[] =
        ",\"Secrets\":[" SECRET("pw", "pw", "") "," SECRET("api", "api", "") "]";
    struct reading *r = accepted(
        spec_of(members, "",
                ",\"Labels\":{\"conclave.version.pw\":\"1\",\"conclave.version.none\":\"1\","
                "\"conclave.reload-signal\":\"USR1\"}"));
    assert_int_equal(r->row.refs[0].version, 1);
    assert_int_equal(r->row.refs[1].version, 0);
    assert_int_equal(r->row.reload_signal, 10);
    assert_int_equal(buf_u8(&r->warnings, 0), OK);
    assert_string_equal((const char *)r->warnings.at,
                        "the label conclave.version.none names no secret or config of the service");
    reading_free(r);
    check_refused(spec_of(members, "", ",\"Labels\":{\"conclave.version.pw\":\"3\"}"), ERR_INVALID,
                  "the secret pw has no version 3");
    check_refused(spec_of(members, "", ",\"Labels\":{\"conclave.version.pw\":\"0\"}"), ERR_INVALID,
                  "has no number of a version");
    check_refused(spec_of(members, "", ",\"Labels\":{\"conclave.version.pw\":\"1x\"}"), ERR_INVALID,
                  "has no number of a version");
}

static void signals_have_their_numbers(void **state) {
    (void)state;
    assert_int_equal(signal_number("TERM"), 15);
    assert_int_equal(signal_number("SIGTERM"), 15);
    assert_int_equal(signal_number("sigint"), 2);
    assert_int_equal(signal_number("9"), 9);
    assert_int_equal(signal_number("RTMIN"), 34);
    assert_int_equal(signal_number("SIGRTMIN+3"), 37);
    assert_int_equal(signal_number("SIGRTMAX-1"), 63);
    assert_int_equal(signal_number("RTMIN+31"), 0);
    assert_int_equal(signal_number("RTMIN+"), 0);
    assert_int_equal(signal_number("65"), 0);
    assert_int_equal(signal_number("0"), 0);
    assert_int_equal(signal_number(""), 0);
    assert_int_equal(signal_number("15x"), 0);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void each_failing_allocation_is_an_error(void **state) {
    (void)state;
    json_t *json;
    assert_int_equal(jin_parse(span_str(recorded), &json, NULL), OK);
    struct reading *r = calloc(1, sizeof *r);
    bool struck = true;
    for (unsigned n = 1; struck; n++) {
        r->memory = buf_new(SERVICE_SPEC_MEMORY);
        r->warnings = buf_new(SERVICE_WARNINGS);
        fault_alloc_at(n);
        enum err e =
            service_spec(world, json, &r->memory, &r->row, &r->name, &r->warnings, &r->why);
        fault_alloc_off();
        struck = fault_alloc_fired();
        assert_int_equal(struck, e != OK);
        buf_free(&r->memory);
        buf_free(&r->warnings);
    }
    free(r);
    json_decref(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_dockers_client_sends_becomes_a_row),
        cmocka_unit_test(mounts_are_a_flag_and_two_paths),
        cmocka_unit_test(the_kept_spec_is_the_given_one_with_its_defaults),
        cmocka_unit_test(what_is_left_out_has_its_default),
        cmocka_unit_test(spans_stay_good_though_much_is_kept),
        cmocka_unit_test(images_are_the_host_or_a_path),
        cmocka_unit_test(wrong_members_are_named),
        cmocka_unit_test(wrong_tasks_and_services_are_named),
        cmocka_unit_test(what_is_too_much_is_refused),
        cmocka_unit_test(what_has_no_effect_is_warned_of_and_kept),
        cmocka_unit_test(what_clients_send_back_is_not_warned_of),
        cmocka_unit_test(references_are_held_against_the_state),
        cmocka_unit_test(a_service_may_name_one_secret_twice),
        cmocka_unit_test(a_label_fixes_the_version),
        cmocka_unit_test(signals_have_their_numbers),
        cmocka_unit_test(each_failing_allocation_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_world, end_world);
}
