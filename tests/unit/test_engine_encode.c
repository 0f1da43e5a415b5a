/* The objects of the Engine API: names, types and what is left out, as docker's clients expect; the
 * events; and whose key a node's issuer is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/engine/encode.h"
#include "api/engine/events.h"
#include "api/engine/issuer.h"
#include "api/engine/route.h"
#include "tests/lib/engine_json.h"
#include "tests/lib/pki.h"

static struct buf out;
static struct jout j;

static void begin(void) {
    out = buf_new(1 * MIB);
    jout_start(&j, &out);
}

static void times_are_rfc_3339_without_zeros_at_the_end(void **state) {
    (void)state;
    static const struct {
        int64_t ns;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00Z"},
        {1700000000123456789, "2023-11-14T22:13:20.123456789Z"},
        {1700000000120000000, "2023-11-14T22:13:20.12Z"},
        {1700000000000000001, "2023-11-14T22:13:20.000000001Z"},
        {-1, "1969-12-31T23:59:59.999999999Z"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        begin();
        jout_open(&j, '{');
        engine_put_time(&j, "T", cases[i].ns);
        jout_close(&j, '}');
        json_t *json = json_of(&j);
        assert_string_equal(text_at(json, "T"), cases[i].text);
        json_decref(json);
    }
}

static void a_fresh_cluster_shows_swarm_s_defaults(void **state) {
    (void)state;
    static const struct spec spec;
    const struct row row = {
        .version = 7, .created_ns = 1000000000, .updated_ns = 2000000000, .kind = ROW_SPEC};
    const struct engine_cluster c = {.id = "cluster",
                                     .row = &row,
                                     .spec = &spec,
                                     .autolock = true,
                                     .tls = {.trust_root = span_str("PEM"),
                                             .subject = span_of("\x30\x00", 2),
                                             .public_key = span_of("\xff", 1)}};
    begin();
    engine_put_swarm(&j, &c, "worker-token", "manager-token");
    json_t *json = json_of(&j);
    assert_string_equal(text_at(json, "ID"), "cluster");
    assert_int_equal(number_at(json, "Version.Index"), 7);
    assert_string_equal(text_at(json, "UpdatedAt"), "1970-01-01T00:00:02Z");
    assert_string_equal(text_at(json, "Spec.Name"), "default");
    assert_true(json_is_object(json_at(json, "Spec.Labels")));
    assert_int_equal(number_at(json, "Spec.Orchestration.TaskHistoryRetentionLimit"), 5);
    assert_int_equal(number_at(json, "Spec.Raft.SnapshotInterval"), 10000);
    assert_int_equal(number_at(json, "Spec.Raft.KeepOldSnapshots"), 0);
    assert_int_equal(number_at(json, "Spec.Raft.LogEntriesForSlowFollowers"), 500);
    assert_int_equal(number_at(json, "Spec.Raft.ElectionTick"), 10);
    assert_int_equal(number_at(json, "Spec.Raft.HeartbeatTick"), 1);
    assert_true(number_at(json, "Spec.Dispatcher.HeartbeatPeriod") == 5000000000);
    assert_true(number_at(json, "Spec.CAConfig.NodeCertExpiry") == 7776000000000000);
    assert_null(json_at(json, "Spec.CAConfig.ForceRotate"));
    assert_null(json_at(json, "Spec.CAConfig.ExternalCAs"));
    assert_null(json_at(json, "Spec.CAConfig.SigningCACert"));
    assert_null(json_at(json, "Spec.CAConfig.SigningCAKey"));
    assert_true(json_is_true(json_at(json, "Spec.EncryptionConfig.AutoLockManagers")));
    assert_string_equal(text_at(json, "TLSInfo.TrustRoot"), "PEM");
    assert_string_equal(text_at(json, "TLSInfo.CertIssuerSubject"), "MAA=");
    assert_string_equal(text_at(json, "TLSInfo.CertIssuerPublicKey"), "/w==");
    assert_true(json_is_false(json_at(json, "RootRotationInProgress")));
    assert_int_equal(number_at(json, "SubnetSize"), 24);
    assert_int_equal(number_at(json, "DataPathPort"), 4789);
    assert_string_equal(text_at(json, "JoinTokens.Worker"), "worker-token");
    assert_string_equal(text_at(json, "JoinTokens.Manager"), "manager-token");
    json_decref(json);
}

static void external_cas_are_shown_as_they_were_said(void **state) {
    (void)state;
    struct spec spec = {.n_external = 1, .force_rotate = 2};
    struct buf options = buf_new(NODE_LABELS_BYTES);
    assert_int_equal(labels_add(&options, span_str("k"), span_str("v\"")), OK);
    (void)snprintf(spec.external[0].url, URL_MAX, "https://ca/sign");
    spec.external[0].options = buf_span(&options);
    const struct row row = {.version = 1};
    const struct engine_cluster c = {.id = "c", .row = &row, .spec = &spec};
    begin();
    engine_put_cluster(&j, &c);
    json_t *json = json_of(&j);
    const json_t *ca = json_array_get(json_at(json, "Spec.CAConfig.ExternalCAs"), 0);
    assert_string_equal(text_at(ca, "Protocol"), "cfssl");
    assert_string_equal(text_at(ca, "URL"), "https://ca/sign");
    assert_string_equal(text_at(ca, "Options.k"), "v\"");
    assert_int_equal(number_at(json, "Spec.CAConfig.ForceRotate"), 2);
    assert_null(json_at(json, "JoinTokens"));
    buf_free(&options);
    json_decref(json);
}

static void a_worker_has_no_manager_status(void **state) {
    (void)state;
    const struct row row = {.id = "node", .version = 3};
    const struct node_row node = {.desired = NODE_MANAGER,
                                  .granted = NODE_WORKER,
                                  .availability = NODE_PAUSE,
                                  .state = NODE_DOWN,
                                  .hostname = "h",
                                  .os = "linux",
                                  .arch = "x86_64",
                                  .engine = "0.1",
                                  .nano_cpus = 2000000000,
                                  .memory_bytes = 5,
                                  .message = "gone",
                                  .address = "10.0.0.1"};
    struct engine_node n = {.row = &row, .node = &node};
    begin();
    engine_put_node(&j, &n);
    json_t *json = json_of(&j);
    assert_string_equal(text_at(json, "Spec.Role"), "manager"); /* what is wanted of it */
    assert_string_equal(text_at(json, "Spec.Availability"), "pause");
    assert_null(json_at(json, "Spec.Name"));
    assert_string_equal(text_at(json, "Description.Hostname"), "h");
    assert_string_equal(text_at(json, "Description.Platform.OS"), "linux");
    assert_true(number_at(json, "Description.Resources.NanoCPUs") == 2000000000);
    assert_string_equal(text_at(json, "Description.Engine.EngineVersion"), "0.1");
    assert_string_equal(text_at(json, "Status.State"), "down");
    assert_string_equal(text_at(json, "Status.Message"), "gone");
    assert_string_equal(text_at(json, "Status.Addr"), "10.0.0.1");
    assert_null(json_at(json, "ManagerStatus"));
    json_decref(json);
    n.member = n.leader = true;
    begin();
    engine_put_node(&j, &n);
    json = json_of(&j);
    assert_true(json_is_true(json_at(json, "ManagerStatus.Leader")));
    assert_string_equal(text_at(json, "ManagerStatus.Reachability"), "unreachable");
    json_decref(json);
}

static void info_tells_of_no_swarm_as_docker_does(void **state) {
    (void)state;
    const struct engine_machine m = {.name = "host", .arch = "aarch64", .data = "/d", .cpus = 4};
    struct engine_info i = {.node_id = "", .address = "", .state = "inactive", .error = ""};
    begin();
    engine_put_info(&j, &m, &i);
    json_t *json = json_of(&j);
    assert_string_equal(text_at(json, "Swarm.LocalNodeState"), "inactive");
    assert_true(json_is_false(json_at(json, "Swarm.ControlAvailable")));
    assert_true(json_is_null(json_at(json, "Swarm.RemoteManagers")));
    assert_null(json_at(json, "Swarm.Cluster"));
    assert_null(json_at(json, "Swarm.Nodes"));
    assert_string_equal(text_at(json, "OSType"), "linux");
    assert_int_equal(number_at(json, "NCPU"), 4);
    json_decref(json);
    i.managers = i.n_peers = 2;
    i.peers[0] = i.peers[1] = (struct engine_peer){"id", "a:1"};
    begin();
    engine_put_info(&j, &m, &i);
    json = json_of(&j);
    assert_int_equal(json_array_size(json_at(json, "Swarm.RemoteManagers")), 2);
    assert_int_equal(json_array_size(json_at(json, "Swarm.Warnings")), 1); /* of two managers */
    json_decref(json);
    begin();
    engine_put_version(&j, &m);
    json = json_of(&j);
    assert_string_equal(text_at(json, "ApiVersion"), ENGINE_API);
    assert_string_equal(text_at(json, "Arch"), "arm64");
    json_decref(json);
}

/* --- events ----------------------------------------------------------------------------------- */

static struct buf body_of(enum node_role granted, enum node_state state,
                          enum node_availability availability) {
    struct buf body = buf_new(ROW_BODY_MAX);
    const struct node_row node = {.desired = granted,
                                  .granted = granted,
                                  .availability = availability,
                                  .state = state,
                                  .certificate = NODE_CERT_ISSUED,
                                  .hostname = "host"};
    assert_int_equal(node_row_encode(&node, &body), OK);
    return body;
}

static void an_update_tells_what_has_changed(void **state) {
    (void)state;
    struct buf was = body_of(NODE_WORKER, NODE_DOWN, NODE_ACTIVE);
    struct buf is = body_of(NODE_MANAGER, NODE_READY, NODE_ACTIVE);
    const struct row before = {.kind = ROW_NODE, .id = "n1", .body = buf_span(&was)};
    const struct row after = {
        .kind = ROW_NODE, .id = "n1", .body = buf_span(&is), .updated_ns = 1500000000};
    struct event e;
    assert_true(event_of_row(&before, &after, &e));
    begin();
    event_put(&j, &e);
    json_t *json = json_of(&j);
    assert_string_equal(text_at(json, "Type"), "node");
    assert_string_equal(text_at(json, "Action"), "update");
    assert_string_equal(text_at(json, "Actor.ID"), "n1");
    const json_t *attributes = json_at(json, "Actor.Attributes");
    assert_int_equal(json_object_size(attributes), 5);
    assert_string_equal(text_at(attributes, "name"), "host");
    assert_string_equal(json_string_value(json_object_get(attributes, "role.old")), "worker");
    assert_string_equal(json_string_value(json_object_get(attributes, "role.new")), "manager");
    assert_string_equal(json_string_value(json_object_get(attributes, "state.new")), "ready");
    assert_string_equal(text_at(json, "scope"), "swarm");
    assert_int_equal(number_at(json, "time"), 1);
    assert_true(number_at(json, "timeNano") == 1500000000);
    json_decref(json);
    assert_true(event_of_row(NULL, &after, &e));
    assert_string_equal(e.action, "create");
    assert_int_equal(e.n, 1);
    assert_true(event_of_row(&before, NULL, &e));
    assert_string_equal(e.action, "remove");
    assert_false(event_of_row(NULL, NULL, &e));
    buf_free(&was);
    buf_free(&is);
}

static void settings_make_no_events(void **state) {
    (void)state;
    struct buf body = body_of(NODE_WORKER, NODE_DOWN, NODE_ACTIVE);
    const struct row row = {.kind = ROW_SPEC, .id = "x", .body = buf_span(&body)};
    struct event e;
    assert_false(event_of_row(NULL, &row, &e));
    buf_free(&body);
}

static bool wanted(const char *json, const struct event *e) {
    struct filters f = {0};
    assert_int_equal(jin_parse(span_str(json), &f.json, NULL), OK);
    bool is = event_wanted(&f, e);
    filters_free(&f);
    return is;
}

static void filters_choose_events(void **state) {
    (void)state;
    struct event e = {.type = "node", .action = "update", .id = "abcdef", .n = 1};
    e.attributes[0] = (struct event_attribute){.name = "name", .value = "host"};
    assert_true(wanted("{}", &e));
    assert_true(wanted("{\"type\":{\"node\":true},\"event\":[\"update\"]}", &e));
    assert_true(wanted("{\"node\":[\"abc\"]}", &e) && wanted("{\"node\":[\"host\"]}", &e));
    assert_true(wanted("{\"label\":[\"name=host\"]}", &e));
    assert_false(wanted("{\"type\":[\"container\"]}", &e));
    assert_false(wanted("{\"event\":[\"create\"]}", &e));
    assert_false(wanted("{\"node\":[\"bcd\"]}", &e));
    assert_false(wanted("{\"scope\":[\"local\"]}", &e));
    assert_false(wanted("{\"label\":[\"zone\"]}", &e));
}

/* --- issuers ---------------------------------------------------------------------------------- */

static void an_issuer_is_found_by_its_key(void **state) {
    (void)state;
    struct pki first, second;
    static struct engine_issuers all;
    struct buf pems = buf_new(PEM_MAX);
    uint8_t digest[NODE_DIGEST_SIZE];
    pki_new(&first, "cluster0000000000000000aa");
    pki_new(&second, "cluster0000000000000000bb");
    assert_int_equal(buf_add_span(&pems, buf_span(&first.root)), OK);
    assert_int_equal(buf_add_span(&pems, buf_span(&second.root)), OK);
    assert_int_equal(issuers_add(&all, buf_span(&pems)), OK);
    assert_int_equal(issuers_add(&all, buf_span(&first.root)), OK); /* known already */
    assert_int_equal(all.n, 2);
    assert_true(span_equal(all.list[0].pem, buf_span(&first.root)));
    assert_true(all.list[0].subject.size > 0 && all.list[0].public_key.size > 0);
    memcpy(digest, all.list[1].digest, sizeof digest);
    assert_ptr_equal(issuers_find(&all, digest), &all.list[1]);
    digest[0] ^= 1;
    assert_null(issuers_find(&all, digest));
    assert_int_equal(issuers_add(&all, span_of(NULL, 0)), OK);
    assert_int_equal(issuers_add(&all, span_str("-----BEGIN CERTIFICATE-----\nx\n"
                                                "-----END CERTIFICATE-----\n")),
                     ERR_INVALID);
    issuers_free(&all);
    assert_int_equal(all.n, 0);
    buf_free(&pems);
    pki_free(&first);
    pki_free(&second);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_rfc_3339_without_zeros_at_the_end),
        cmocka_unit_test(a_fresh_cluster_shows_swarm_s_defaults),
        cmocka_unit_test(external_cas_are_shown_as_they_were_said),
        cmocka_unit_test(a_worker_has_no_manager_status),
        cmocka_unit_test(info_tells_of_no_swarm_as_docker_does),
        cmocka_unit_test(an_update_tells_what_has_changed),
        cmocka_unit_test(settings_make_no_events),
        cmocka_unit_test(filters_choose_events),
        cmocka_unit_test(an_issuer_is_found_by_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
