/* The settings: all fields come back, bounds are kept, zero stands for a default. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "tests/lib/row_lists.h"

static struct spec full_spec(struct buf *labels) {
    assert_int_equal(labels_add(labels, span_str("k"), span_str("v")), OK);
    struct spec s = {.labels = buf_span(labels),
                     .task_history = -1,
                     .snapshot_interval = 10000,
                     .keep_old_snapshots = 2,
                     .log_entries = 500,
                     .election_tick = 10,
                     .heartbeat_tick = 1,
                     .heartbeat_ns = 7000000000,
                     .cert_validity_s = 3600,
                     .force_rotate = 4,
                     .readmit = READMIT_AUTOMATIC,
                     .readmit_within_s = 86400,
                     .n_external = EXTERNAL_CAS_MAX};
    for (unsigned i = 0; i < EXTERNAL_CAS_MAX; i++) {
        (void)snprintf(s.external[i].url, URL_MAX, "https://ca-%u.example/sign", i);
        s.external[i].ca_pem = span_str("a root");
        s.external[i].options = buf_span(labels);
    }
    return s;
}

static void all_settings_are_read_back(void **state) {
    (void)state;
    struct buf labels = buf_new(NODE_LABELS_BYTES), body = buf_new(ROW_BODY_MAX);
    struct spec in = full_spec(&labels), out;
    assert_int_equal(spec_encode(&in, &body), OK);
    assert_int_equal(spec_decode(buf_span(&body), &out), OK);
    assert_true(span_equal(out.labels, in.labels));
    assert_int_equal(out.task_history, -1);
    assert_int_equal(out.snapshot_interval, 10000);
    assert_int_equal(out.keep_old_snapshots, 2);
    assert_int_equal(out.log_entries, 500);
    assert_int_equal(out.election_tick, 10);
    assert_int_equal(out.heartbeat_tick, 1);
    assert_int_equal(out.heartbeat_ns, 7000000000);
    assert_int_equal(out.cert_validity_s, 3600);
    assert_int_equal(out.force_rotate, 4);
    assert_int_equal(out.readmit, READMIT_AUTOMATIC);
    assert_int_equal(out.readmit_within_s, 86400);
    assert_int_equal(out.n_external, EXTERNAL_CAS_MAX);
    for (unsigned i = 0; i < EXTERNAL_CAS_MAX; i++) {
        assert_string_equal(out.external[i].url, in.external[i].url);
        assert_true(span_equal(out.external[i].ca_pem, in.external[i].ca_pem));
        assert_true(span_equal(out.external[i].options, in.external[i].options));
    }
    for (size_t size = 0; size < body.size; size++)
        assert_int_equal(spec_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(spec_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&labels);
    buf_free(&body);
}

static void the_largest_settings_fit_into_a_row(void **state) {
    (void)state;
    static const uint8_t pem[PEM_MAX], value[NODE_LABELS_BYTES - 9];
    struct buf labels = buf_new(NODE_LABELS_BYTES), body = buf_new(ROW_BODY_MAX);
    assert_int_equal(labels_add(&labels, span_str("k"), span_of(value, sizeof value)), OK);
    struct spec s = {.labels = buf_span(&labels), .n_external = EXTERNAL_CAS_MAX};
    for (unsigned i = 0; i < EXTERNAL_CAS_MAX; i++) {
        memset(s.external[i].url, 'x', URL_MAX - 1);
        memcpy(s.external[i].url, "https://", 8);
        s.external[i].ca_pem = span_of(pem, sizeof pem);
        s.external[i].options = buf_span(&labels);
    }
    assert_int_equal(spec_encode(&s, &body), OK);
    buf_free(&labels);
    buf_free(&body);
}

static void what_is_out_of_bounds_is_refused(void **state) {
    (void)state;
    struct buf body = buf_new(ROW_BODY_MAX);
    static const uint8_t pem[PEM_MAX + 1];
    static struct spec bad[14];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        bad[i].n_external = 1;
        (void)snprintf(bad[i].external[0].url, URL_MAX, "https://ca");
        assert_int_equal(spec_encode(&bad[i], &body), OK);
    }
    buf_clear(&body);
    bad[0].task_history = -2;
    bad[1].readmit_within_s = -1;
    bad[2].heartbeat_ns = HEARTBEAT_MIN_NS - 1;
    bad[3].heartbeat_ns = HEARTBEAT_MAX_NS + 1;
    bad[4].heartbeat_ns = -1;
    bad[5].cert_validity_s = CERT_VALIDITY_MIN_S - 1;
    bad[6].cert_validity_s = CERT_VALIDITY_MAX_S + 1;
    bad[7].readmit = (enum readmit)3;
    bad[8].n_external = EXTERNAL_CAS_MAX + 1;
    (void)snprintf(bad[9].external[0].url, URL_MAX, "http://ca");
    (void)snprintf(bad[10].external[0].url, URL_MAX, "https://");
    bad[11].external[0].ca_pem = span_of(pem, sizeof pem);
    bad[12].external[0].options = span_str("no labels");
    bad[13].labels = span_str("no labels");
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(spec_encode(&bad[i], &body), ERR_INVALID);
    assert_int_equal(body.size, 0);
    buf_free(&body);
}

static void settings_that_nobody_made_are_the_defaults(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct row row;
    struct spec spec, want = {.cert_validity_s = 120, .heartbeat_ns = 250000000, .task_history = 9};
    struct row_list l = row_list();
    spec_get(s, &row, &spec);
    assert_int_equal(row.version, 0);
    assert_int_equal(make_cluster(s).error, OK);
    spec_get(s, &row, &spec);
    assert_int_equal(row.version, 0);
    assert_string_equal(row.id, "cluster");
    assert_int_equal(spec_cert_validity_s(&spec), CERT_VALIDITY_S);
    assert_int_equal(spec_heartbeat_ms(&spec), 5000);
    assert_int_equal(spec_task_history(&spec), 5);
    list_spec(&l, ROW_CREATE, "cluster", &want);
    assert_int_equal(list_apply(s, &l).error, OK);
    spec_get(s, &row, &spec);
    assert_int_equal(row.version, 1);
    assert_int_equal(spec_cert_validity_s(&spec), 120);
    assert_int_equal(spec_heartbeat_ms(&spec), 250);
    assert_int_equal(spec_task_history(&spec), 9);
    store_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_settings_are_read_back),
        cmocka_unit_test(the_largest_settings_fit_into_a_row),
        cmocka_unit_test(what_is_out_of_bounds_is_refused),
        cmocka_unit_test(settings_that_nobody_made_are_the_defaults),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
