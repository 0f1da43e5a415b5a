/* Bodies of the Engine API: what docker's client really sends is understood, fields of another type
 * are refused by name, Swarm's rules for the settings hold; and which addresses a node takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/engine/address.h"
#include "api/engine/request.h"

static json_t *parse(const char *text) {
    json_t *json = NULL;
    struct why why = {0};
    if (jin_parse(span_str(text), &json, &why) != OK) fail_msg("%s", why.text);
    return json;
}

/* --- the body ------------------------------------------------------------------------------- */

static enum err body(const char *type, const char *text) {
    struct http_head head = {0};
    json_t *json = NULL;
    if (type)
        head.headers[head.n++] = (struct http_header){span_str("Content-Type"), span_str(type)};
    enum err e = engine_body(&head, span_str(text), &json, NULL);
    if (e == OK) assert_true(json_is_object(json));
    json_decref(json);
    return e;
}

static void a_body_is_json_or_nothing(void **state) {
    (void)state;
    assert_int_equal(body("application/json", "{}"), OK);
    assert_int_equal(body("Application/JSON ; charset=utf-8", "{}"), OK);
    assert_int_equal(body(NULL, ""), OK);
    assert_int_equal(body("text/plain", ""), OK);
    assert_int_equal(body("text/plain", "{}"), ERR_INVALID);
    assert_int_equal(body(NULL, "{}"), ERR_INVALID);
    assert_int_equal(body("application/json", "[]"), ERR_INVALID);
    assert_int_equal(body("application/json", "{"), ERR_INVALID);
}

/* --- init and join -------------------------------------------------------------------------- */

/* As docker 28.2.2 sends it. */
static const char docker_init[] =
    "{\"ListenAddr\":\"0.0.0.0:2377\",\"AdvertiseAddr\":\"10.0.0.1\",\"DataPathAddr\":\"\","
    "\"DataPathPort\":0,\"ForceNewCluster\":false,\"Spec\":{\"Labels\":null,\"Orchestration\":{},"
    "\"Raft\":{\"ElectionTick\":0,\"HeartbeatTick\":0},\"Dispatcher\":{\"HeartbeatPeriod\":"
    "5000000000},\"CAConfig\":{\"NodeCertExpiry\":7776000000000000},\"TaskDefaults\":{},"
    "\"EncryptionConfig\":{\"AutoLockManagers\":true}},\"AutoLockManagers\":true,"
    "\"Availability\":\"drain\",\"DefaultAddrPool\":[],\"SubnetSize\":24}";

static void docker_s_init_is_understood(void **state) {
    (void)state;
    struct engine_init init;
    json_t *json = parse(docker_init);
    assert_int_equal(engine_init_decode(json, &init, NULL), OK);
    assert_string_equal(init.listen, "0.0.0.0:2377");
    assert_string_equal(init.advertise, "10.0.0.1");
    assert_true(init.autolock && init.spec.autolock && !init.force_new);
    assert_int_equal(init.availability, NODE_DRAIN);
    assert_int_equal(init.spec.spec.cert_validity_s, 90LL * 86400);
    assert_true(init.spec.spec.heartbeat_ns == 5000000000);
    assert_false(init.spec.has_task_history);
    engine_spec_free(&init.spec);
    json_decref(json);
    json = parse("{}"); /* python3-docker may say as little */
    assert_int_equal(engine_init_decode(json, &init, NULL), OK);
    assert_int_equal(init.availability, NODE_ACTIVE);
    engine_spec_free(&init.spec);
    json_decref(json);
}

static void fields_of_another_type_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *body, *name;
    } cases[] = {
        {"{\"ListenAddr\":1}", "ListenAddr"},
        {"{\"ForceNewCluster\":\"yes\"}", "ForceNewCluster"},
        {"{\"SubnetSize\":\"24\"}", "SubnetSize"},
        {"{\"DefaultAddrPool\":{}}", "DefaultAddrPool"},
        {"{\"Spec\":[]}", "Spec"},
        {"{\"Spec\":{\"Raft\":1}}", "Raft"},
        {"{\"Spec\":{\"Raft\":{\"ElectionTick\":\"3\"}}}", "ElectionTick"},
        {"{\"Spec\":{\"Labels\":[]}}", "Labels"},
        {"{\"Spec\":{\"Labels\":{\"a\":1}}}", "Labels"},
        {"{\"Spec\":{\"EncryptionConfig\":{\"AutoLockManagers\":1}}}", "AutoLockManagers"},
        {"{\"Spec\":{\"CAConfig\":{\"ExternalCAs\":[1]}}}", "ExternalCAs"},
        {"{\"Spec\":{\"CAConfig\":{\"SigningCACert\":1}}}", "SigningCACert"},
        {"{\"Availability\":7}", "Availability"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct engine_init init;
        struct why why = {0};
        json_t *json = parse(cases[i].body);
        assert_int_equal(engine_init_decode(json, &init, &why), ERR_INVALID);
        assert_non_null(strstr(why.text, cases[i].name));
        json_decref(json);
    }
}

static void names_are_found_in_any_case_and_unknown_ones_passed_over(void **state) {
    (void)state;
    struct engine_init init;
    json_t *json = parse("{\"listenaddr\":\"1.2.3.4:5\",\"Whatever\":{\"x\":[1]},\"AVAILABILITY\":"
                         "\"Pause\",\"AdvertiseAddr\":null}");
    assert_int_equal(engine_init_decode(json, &init, NULL), OK);
    assert_string_equal(init.listen, "1.2.3.4:5");
    assert_string_equal(init.advertise, "");
    assert_int_equal(init.availability, NODE_PAUSE);
    engine_spec_free(&init.spec);
    json_decref(json);
}

static void networks_can_not_be_chosen(void **state) {
    (void)state;
    static const char *const bad[] = {"{\"DefaultAddrPool\":[\"10.1.0.0/16\"]}",
                                      "{\"SubnetSize\":26}", "{\"DataPathPort\":5000}"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct engine_init init;
        json_t *json = parse(bad[i]);
        assert_int_equal(engine_init_decode(json, &init, NULL), ERR_UNSUPPORTED);
        json_decref(json);
    }
}

static void a_join_needs_somebody_to_ask(void **state) {
    (void)state;
    struct engine_join join;
    struct why why = {0};
    json_t *json = parse("{\"ListenAddr\":\"0.0.0.0:2377\",\"RemoteAddrs\":[\"10.0.0.1:2377\","
                         "\"10.0.0.2\"],\"JoinToken\":\"SWMTKN-1-x\",\"Availability\":\"active\"}");
    assert_int_equal(engine_join_decode(json, &join, &why), OK);
    assert_int_equal(join.n, 2);
    assert_string_equal(join.remotes[1], "10.0.0.2");
    assert_string_equal(join.token, "SWMTKN-1-x");
    json_decref(json);
    static const char *const bad[] = {"{}", "{\"RemoteAddrs\":[]}", "{\"RemoteAddrs\":[\"\"]}",
                                      "{\"RemoteAddrs\":[1]}", "{\"RemoteAddrs\":\"a\"}"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        json = parse(bad[i]);
        assert_int_equal(engine_join_decode(json, &join, &why), ERR_INVALID);
        json_decref(json);
    }
}

/* --- the settings --------------------------------------------------------------------------- */

static enum err decode(const char *text, const struct spec *now, struct engine_spec *out,
                       json_t **json, struct why *why) {
    *json = parse(text);
    return engine_spec_decode(*json, now, out, why);
}

static void refused(const char *text, const char *sentence) {
    struct engine_spec spec;
    struct why why = {0};
    json_t *json;
    assert_int_equal(decode(text, NULL, &spec, &json, &why), ERR_INVALID);
    assert_string_equal(why.text, sentence);
    json_decref(json);
}

static void swarm_s_rules_for_the_settings_hold(void **state) {
    (void)state;
    refused("{\"CAConfig\":{\"NodeCertExpiry\":3599000000000}}",
            "minimum certificate expiry time is: 1h0m0s");
    refused("{\"CAConfig\":{\"NodeCertExpiry\":-1}}", "minimum certificate expiry time is: 1h0m0s");
    refused("{\"Name\":\"other\"}", "swarm spec must be named \"default\"");
    refused("{\"Dispatcher\":{\"HeartbeatPeriod\":-5}}",
            "heartbeat time period cannot be a negative duration");
    refused("{\"CAConfig\":{\"SigningCAKey\":\"x\"}}",
            "if a signing CA key is provided, the signing CA cert must also be provided");
    refused("{\"CAConfig\":{\"ExternalCAs\":[{\"Protocol\":\"acme\",\"URL\":\"https://x\"}]}}",
            "invalid protocol: \"acme\"");
    refused("{\"Raft\":{\"ElectionTick\":3,\"HeartbeatTick\":3}}",
            "election tick must be greater than heartbeat tick");
    refused("{\"Raft\":{\"ElectionTick\":1}}", "election tick must be greater than heartbeat tick");
}

static void a_short_validity_that_is_there_may_stay(void **state) {
    (void)state;
    const struct spec now = {.cert_validity_s = 120};
    struct engine_spec spec;
    json_t *json;
    assert_int_equal(
        decode("{\"CAConfig\":{\"NodeCertExpiry\":120000000000}}", &now, &spec, &json, NULL), OK);
    assert_int_equal(spec.spec.cert_validity_s, 120);
    engine_spec_free(&spec);
    json_decref(json);
    assert_int_equal(
        decode("{\"CAConfig\":{\"NodeCertExpiry\":60000000000}}", &now, &spec, &json, NULL),
        ERR_INVALID);
    json_decref(json);
}

static void settings_can_be_kept_as_they_come(void **state) {
    (void)state;
    struct engine_spec spec;
    struct spec back;
    struct buf bytes = buf_new(ROW_BODY_MAX);
    json_t *json;
    assert_int_equal(
        decode(
            "{\"Name\":\"default\",\"Labels\":{\"b\":\"2\",\"a\":\"1\"},\"Orchestration\":"
            "{\"TaskHistoryRetentionLimit\":9},\"Raft\":{\"SnapshotInterval\":7,"
            "\"KeepOldSnapshots\":2,\"LogEntriesForSlowFollowers\":8,\"ElectionTick\":10,"
            "\"HeartbeatTick\":2},\"CAConfig\":{\"ForceRotate\":3,\"ExternalCAs\":[{\"Protocol\""
            ":\"CFSSL\",\"URL\":\"https://ca/sign\",\"Options\":{\"k\":\"v\"},\"CACert\":\"PEM\"}]"
            "}}",
            NULL, &spec, &json, NULL),
        OK);
    assert_int_equal(spec_encode(&spec.spec, &bytes), OK);
    assert_int_equal(spec_decode(buf_span(&bytes), &back), OK);
    assert_int_equal(back.task_history, 9);
    assert_int_equal(back.keep_old_snapshots, 2);
    assert_int_equal(back.force_rotate, 3);
    assert_int_equal(back.n_external, 1);
    assert_string_equal(back.external[0].url, "https://ca/sign");
    struct cursor c = cursor_of(back.labels);
    struct span key, value;
    assert_true(labels_next(&c, &key, &value) && span_equal(key, span_str("a")));
    assert_true(labels_next(&c, &key, &value) && span_equal(value, span_str("2")));
    assert_false(labels_next(&c, &key, &value));
    buf_free(&bytes);
    engine_spec_free(&spec);
    json_decref(json);
}

static void a_node_s_spec_needs_a_role_and_an_availability(void **state) {
    (void)state;
    static const char *const bad[] = {
        "{}",
        "{\"Role\":\"boss\",\"Availability\":\"active\"}",
        "{\"Role\":\"worker\"}",
        "{\"Role\":\"worker\",\"Availability\":\"away\"}",
        "{\"Role\":\"worker\",\"Availability\":\"active\",\"Labels\":{\"\":\"x\"}}",
        "{\"Role\":\"worker\",\"Availability\":\"active\",\"Name\":7}"};
    struct engine_node_spec spec;
    json_t *json;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        json = parse(bad[i]);
        assert_int_equal(engine_node_spec_decode(json, &spec, NULL), ERR_INVALID);
        json_decref(json);
    }
    json =
        parse("{\"Name\":\"n\",\"Role\":\"Manager\",\"Availability\":\"DRAIN\",\"Labels\":null}");
    assert_int_equal(engine_node_spec_decode(json, &spec, NULL), OK);
    assert_int_equal(spec.role, NODE_MANAGER);
    assert_int_equal(spec.availability, NODE_DRAIN);
    assert_string_equal(spec.name, "n");
    buf_free(&spec.labels);
    json_decref(json);
}

static void secrets_in_a_body_are_wiped(void **state) {
    (void)state;
    json_t *json = parse("{\"UnlockKey\":\"SWMKEY\",\"Spec\":{\"CAConfig\":{\"SigningCAKey\":"
                         "\"PEM\"}}}");
    json_t *ca = json_object_get(json_object_get(json, "Spec"), "CAConfig");
    engine_wipe(json);
    assert_int_equal(json_string_value(json_object_get(json, "UnlockKey"))[0], 0);
    assert_int_equal(json_string_value(json_object_get(ca, "SigningCAKey"))[0], 0);
    json_decref(json);
}

/* --- addresses ------------------------------------------------------------------------------ */

static enum err place(const char *listen, const char *advertise, const char *peer,
                      const char *own_advertise, struct engine_place *out) {
    const struct engine_wish wish = {
        .listen = listen, .advertise = advertise, .peer = peer, .own_advertise = own_advertise};
    struct why why = {0};
    enum err e = engine_place(&wish, out, &why);
    if (e != OK) assert_true(why.text[0] != 0);
    return e;
}

static void what_was_chosen_goes_before_what_was_not(void **state) {
    (void)state;
    static const struct {
        const char *listen, *advertise, *peer, *own, *at, *host;
    } cases[] = {
        {"0.0.0.0:2377", "10.0.0.1", "", "", "0.0.0.0:2377", "10.0.0.1"},
        {"0.0.0.0:2377", "", "10.0.0.5:7000", "", "10.0.0.5:7000", ""},
        {"0.0.0.0:2377", "10.0.0.9", "0.0.0.0:7000", "10.0.0.8", "0.0.0.0:7000", "10.0.0.9"},
        {"0.0.0.0:2377", "", "0.0.0.0:7000", "name.example", "0.0.0.0:7000", "name.example"},
        {"10.0.0.2:9000", "", "10.0.0.5:7000", "", "10.0.0.2:9000", ""},
        {"10.0.0.2", "10.0.0.2:2377", "", "", "10.0.0.2:2377", "10.0.0.2"},
        {":9000", "10.0.0.2", "", "", "0.0.0.0:9000", "10.0.0.2"},
        {"[::1]:9000", "", "", "", "[::1]:9000", ""},
        {"lo:9000", "", "", "", "127.0.0.1:9000", ""},
        {"127.0.0.1", "", "", "", "127.0.0.1:2377", ""},
        {"", "127.0.0.1", "", "", "0.0.0.0:2377", "127.0.0.1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct engine_place out;
        assert_int_equal(
            place(cases[i].listen, cases[i].advertise, cases[i].peer, cases[i].own, &out), OK);
        assert_string_equal(out.listen, cases[i].at);
        assert_string_equal(out.host, cases[i].host);
    }
}

static void addresses_that_can_not_be_are_refused(void **state) {
    (void)state;
    static const char *const listen[] = {"no.such.host:1", "1.2.3.4:99999", "1.2.3.4:x", "a b"};
    static const char *const advertise[] = {"0.0.0.0", "::", "no.such.host", "10.0.0.1:7777"};
    struct engine_place out;
    for (size_t i = 0; i < ARRAY_SIZE(listen); i++)
        assert_int_equal(place(listen[i], "10.0.0.1", "", "", &out), ERR_INVALID);
    for (size_t i = 0; i < ARRAY_SIZE(advertise); i++)
        assert_int_equal(place("0.0.0.0:2377", advertise[i], "", "", &out), ERR_INVALID);
}

static void a_join_is_seen_from_where_the_manager_is_reached(void **state) {
    (void)state;
    const struct engine_wish wish = {.listen = "0.0.0.0:2377",
                                     .advertise = "",
                                     .peer = "",
                                     .own_advertise = "",
                                     .remote = "127.0.0.1:2377"};
    struct engine_place out;
    assert_int_equal(engine_place(&wish, &out, NULL), OK);
    assert_string_equal(out.host, "127.0.0.1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_is_json_or_nothing),
        cmocka_unit_test(docker_s_init_is_understood),
        cmocka_unit_test(fields_of_another_type_are_refused_by_name),
        cmocka_unit_test(names_are_found_in_any_case_and_unknown_ones_passed_over),
        cmocka_unit_test(networks_can_not_be_chosen),
        cmocka_unit_test(a_join_needs_somebody_to_ask),
        cmocka_unit_test(swarm_s_rules_for_the_settings_hold),
        cmocka_unit_test(a_short_validity_that_is_there_may_stay),
        cmocka_unit_test(settings_can_be_kept_as_they_come),
        cmocka_unit_test(a_node_s_spec_needs_a_role_and_an_availability),
        cmocka_unit_test(secrets_in_a_body_are_wiped),
        cmocka_unit_test(what_was_chosen_goes_before_what_was_not),
        cmocka_unit_test(addresses_that_can_not_be_are_refused),
        cmocka_unit_test(a_join_is_seen_from_where_the_manager_is_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
