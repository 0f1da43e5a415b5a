/* Nodes and labels as bytes: all fields come back, nothing out of bounds gets in or out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "tests/lib/row_lists.h"

static struct node_row full_node(struct buf *labels) {
    struct node_row n = some_node(NODE_WORKER, 5);
    assert_int_equal(labels_add(labels, span_str("a"), span_str("1")), OK);
    assert_int_equal(labels_add(labels, span_str("b"), span_str("")), OK);
    n.labels = buf_span(labels);
    n.desired = NODE_MANAGER;
    n.availability = NODE_DRAIN;
    n.state = NODE_DISCONNECTED;
    n.raft_id = 77;
    n.certificate = NODE_CERT_PENDING;
    n.approved = true;
    memset(n.issuer_digest, 6, sizeof n.issuer_digest);
    memset(n.wanted_digest, 7, sizeof n.wanted_digest);
    (void)snprintf(n.message, sizeof n.message, "a message");
    (void)snprintf(n.address, sizeof n.address, "10.0.0.7");
    (void)snprintf(n.client_address, sizeof n.client_address, "10.0.0.7:2379");
    (void)snprintf(n.peer_address, sizeof n.peer_address, "10.0.0.7:2377");
    (void)snprintf(n.token_id, sizeof n.token_id, "token");
    return n;
}

static void all_of_a_node_is_read_back(void **state) {
    (void)state;
    struct buf labels = buf_new(NODE_LABELS_BYTES), body = buf_new(ROW_BODY_MAX);
    struct node_row in = full_node(&labels), out;
    assert_int_equal(node_row_encode(&in, &body), OK);
    assert_int_equal(node_row_decode(buf_span(&body), &out), OK);
    assert_true(span_equal(out.labels, in.labels));
    out.labels = in.labels;
    assert_int_equal(out.desired, NODE_MANAGER);
    assert_int_equal(out.granted, NODE_WORKER);
    assert_int_equal(out.availability, NODE_DRAIN);
    assert_int_equal(out.state, NODE_DISCONNECTED);
    assert_int_equal(out.certificate, NODE_CERT_PENDING);
    assert_true(out.approved);
    assert_int_equal(out.raft_id, 77);
    assert_int_equal(out.nano_cpus, in.nano_cpus);
    assert_int_equal(out.memory_bytes, in.memory_bytes);
    assert_int_equal(out.not_after_s, in.not_after_s);
    assert_string_equal(out.hostname, in.hostname);
    assert_string_equal(out.os, in.os);
    assert_string_equal(out.arch, in.arch);
    assert_string_equal(out.engine, in.engine);
    assert_string_equal(out.message, in.message);
    assert_string_equal(out.address, in.address);
    assert_string_equal(out.client_address, in.client_address);
    assert_string_equal(out.peer_address, in.peer_address);
    assert_string_equal(out.token_id, in.token_id);
    assert_memory_equal(out.key_digest, in.key_digest, NODE_DIGEST_SIZE);
    assert_memory_equal(out.issuer_digest, in.issuer_digest, NODE_DIGEST_SIZE);
    assert_memory_equal(out.wanted_digest, in.wanted_digest, NODE_DIGEST_SIZE);
    buf_free(&labels);
    buf_free(&body);
}

static void a_part_or_more_than_a_node_is_refused(void **state) {
    (void)state;
    struct buf labels = buf_new(NODE_LABELS_BYTES), body = buf_new(ROW_BODY_MAX);
    struct node_row in = full_node(&labels), out;
    assert_int_equal(node_row_encode(&in, &body), OK);
    for (size_t size = 0; size < body.size; size++)
        assert_int_equal(node_row_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(node_row_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&labels);
    buf_free(&body);
}

static void words_that_are_none_are_refused(void **state) {
    (void)state;
    struct buf body = buf_new(ROW_BODY_MAX);
    struct node_row bad[10];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_node(NODE_WORKER, 1);
    bad[0].desired = (enum node_role)0;
    bad[1].desired = (enum node_role)3;
    bad[2].granted = (enum node_role)0;
    bad[3].granted = (enum node_role)3;
    bad[4].availability = (enum node_availability)0;
    bad[5].availability = (enum node_availability)4;
    bad[6].state = (enum node_state)0;
    bad[7].state = (enum node_state)5;
    bad[8].certificate = (enum node_certificate)0;
    bad[9].certificate = (enum node_certificate)4;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(node_row_encode(&bad[i], &body), ERR_INVALID);
    assert_int_equal(body.size, 0);
    struct node_row n = some_node(NODE_WORKER, 1), out;
    assert_int_equal(node_row_encode(&n, &body), OK);
    for (size_t at = 0; at < 2; at++) { /* desired, availability */
        body.at[at] ^= 0x40;
        assert_int_equal(node_row_decode(buf_span(&body), &out), ERR_CORRUPT);
        body.at[at] ^= 0x40;
    }
    assert_int_equal(node_row_decode(buf_span(&body), &out), OK);
    buf_free(&body);
}

static void labels_ascend_and_have_bounds(void **state) {
    (void)state;
    struct buf labels = buf_new(1 * MIB);
    struct span key, value;
    char text[16];
    assert_int_equal(labels_add(&labels, span_str(""), span_str("v")), ERR_INVALID);
    assert_int_equal(labels_add(&labels, span_str("b"), span_str("2")), OK);
    size_t before = labels.size;
    assert_int_equal(labels_add(&labels, span_str("b"), span_str("3")), ERR_INVALID);
    assert_int_equal(labels_add(&labels, span_str("a"), span_str("3")), ERR_INVALID);
    assert_int_equal(labels.size, before);
    assert_int_equal(labels_add(&labels, span_str("bb"), span_str("")), OK);
    struct cursor in = cursor_of(buf_span(&labels));
    assert_true(labels_next(&in, &key, &value));
    assert_true(span_equal(key, span_str("b")) && span_equal(value, span_str("2")));
    assert_true(labels_next(&in, &key, &value));
    assert_true(span_equal(key, span_str("bb")) && value.size == 0);
    assert_false(labels_next(&in, &key, &value));
    buf_clear(&labels);
    for (unsigned i = 0; i < NODE_LABELS_MAX; i++) {
        (void)snprintf(text, sizeof text, "key-%03u", i);
        assert_int_equal(labels_add(&labels, span_str(text), span_str("v")), OK);
    }
    assert_int_equal(labels_add(&labels, span_str("more"), span_str("v")), ERR_INVALID);
    buf_clear(&labels);
    static const uint8_t big[NODE_LABELS_BYTES];
    assert_int_equal(labels_add(&labels, span_str("k"), span_of(big, sizeof big - 9)), OK);
    assert_int_equal(labels.size, NODE_LABELS_BYTES);
    buf_clear(&labels);
    assert_int_equal(labels_add(&labels, span_str("k"), span_of(big, sizeof big - 8)), ERR_INVALID);
    buf_free(&labels);
}

static void a_node_is_read_from_its_row(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct node_row in = some_node(NODE_MANAGER, 9), out;
    struct row row;
    assert_int_equal(make_cluster(s).error, OK);
    assert_int_equal(node_row_get(s, "a", &row, &out), ERR_NOT_FOUND);
    assert_int_equal(create_node(s, "a", &in), OK);
    assert_int_equal(node_row_get(s, "a", &row, &out), OK);
    assert_string_equal(row.id, "a");
    assert_memory_equal(out.key_digest, in.key_digest, NODE_DIGEST_SIZE);
    store_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_a_node_is_read_back),
        cmocka_unit_test(a_part_or_more_than_a_node_is_refused),
        cmocka_unit_test(words_that_are_none_are_refused),
        cmocka_unit_test(labels_ascend_and_have_bounds),
        cmocka_unit_test(a_node_is_read_from_its_row),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
