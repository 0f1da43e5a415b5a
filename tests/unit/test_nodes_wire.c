/* What is asked of nodes, on its way to the leader; which key may speak for a node; changes of a
 * node's row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>

#include "api/node/nodes_wire.h"
#include "api/node/roles.h"
#include "api/node/sessions.h"

static const char id[] = "a234567890123456789012345";

static struct node_ask update(struct buf *labels) {
    struct node_ask a = {.kind = ASK_UPDATE, .force = true, .version = 77};
    (void)snprintf(a.id, sizeof a.id, "%s", id);
    assert_int_equal(labels_add(labels, span_str("disk"), span_str("fast")), OK);
    a.spec = (struct node_spec){.name = span_str("database"),
                                .role = NODE_MANAGER,
                                .availability = NODE_DRAIN,
                                .labels = buf_span(labels)};
    return a;
}

static void an_update_goes_through_as_it_is(void **state) {
    struct buf labels = buf_new(NODE_LABELS_BYTES), bytes = buf_new(NODE_ASK_MAX);
    struct node_ask a = update(&labels), back;
    (void)state;
    assert_int_equal(node_ask_encode(&a, &bytes), OK);
    assert_int_equal(bytes.at[0], NODES_CALL);
    assert_int_equal(node_ask_decode(buf_span(&bytes), &back), OK);
    assert_int_equal(back.kind, ASK_UPDATE);
    assert_true(back.force);
    assert_int_equal(back.version, 77);
    assert_string_equal(back.id, id);
    assert_int_equal(back.spec.role, NODE_MANAGER);
    assert_int_equal(back.spec.availability, NODE_DRAIN);
    assert_true(span_equal(back.spec.name, span_str("database")));
    assert_true(span_equal(back.spec.labels, buf_span(&labels)));
    buf_free(&labels);
    buf_free(&bytes);
}

static void a_cut_or_longer_one_is_refused(void **state) {
    struct buf labels = buf_new(NODE_LABELS_BYTES), bytes = buf_new(NODE_ASK_MAX);
    struct node_ask a = update(&labels), back;
    (void)state;
    assert_int_equal(node_ask_encode(&a, &bytes), OK);
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_equal(node_ask_decode(span_of(bytes.at, size), &back), ERR_PROTOCOL);
    assert_int_equal(buf_u8(&bytes, 0), OK);
    assert_int_equal(node_ask_decode(buf_span(&bytes), &back), ERR_PROTOCOL);
    buf_free(&labels);
    buf_free(&bytes);
}

static void a_spec_out_of_its_bounds_is_refused(void **state) {
    struct node_ask back, wrong[4];
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct buf labels = buf_new(NODE_LABELS_BYTES), bytes = buf_new(NODE_ASK_MAX);
        wrong[i] = update(&labels);
        if (i == 0) wrong[i].spec.role = (enum node_role)3;
        if (i == 1) wrong[i].spec.availability = (enum node_availability)0;
        if (i == 2) wrong[i].spec.labels = span_str("these are no labels");
        if (i == 3) wrong[i].kind = (enum node_ask_kind)7;
        assert_int_equal(node_ask_encode(&wrong[i], &bytes), OK);
        assert_int_equal(node_ask_decode(buf_span(&bytes), &back), ERR_PROTOCOL);
        buf_free(&labels);
        buf_free(&bytes);
    }
}

static void other_requests_need_no_spec(void **state) {
    (void)state;
    for (int kind = ASK_REMOVE; kind <= ASK_LEAVE; kind++) {
        struct node_ask a = {.kind = (enum node_ask_kind)kind}, back;
        struct buf bytes = buf_new(NODE_ASK_MAX);
        (void)snprintf(a.id, sizeof a.id, "%s", id);
        assert_int_equal(node_ask_encode(&a, &bytes), OK);
        assert_int_equal(node_ask_decode(buf_span(&bytes), &back), OK);
        assert_int_equal(back.kind, kind);
        assert_false(back.force);
        buf_free(&bytes);
    }
}

/* --- keys ------------------------------------------------------------------------------------- */

static void the_present_key_is_good_and_the_one_before_until_it_is_forgotten(void **state) {
    struct node_row n = {.desired = NODE_WORKER};
    uint8_t now[NODE_DIGEST_SIZE] = {1}, before[NODE_DIGEST_SIZE] = {2}, none[NODE_DIGEST_SIZE];
    (void)state;
    memset(none, 0, sizeof none);
    memcpy(n.key_digest, now, sizeof now);
    assert_true(sessions_key_is_good(&n, now));
    assert_false(sessions_key_is_good(&n, before));
    assert_false(sessions_key_is_good(&n, none)); /* no key before is no key at all */
    memcpy(n.previous_digest, before, sizeof before);
    assert_true(sessions_key_is_good(&n, now));
    assert_true(sessions_key_is_good(&n, before));
    memcpy(n.previous_digest, none, sizeof none);
    assert_false(sessions_key_is_good(&n, before));
}

/* --- changes of rows -------------------------------------------------------------------------- */

static void a_change_has_the_version_and_the_name_that_were_read(void **state) {
    struct node_row n = {.desired = NODE_WORKER,
                         .granted = NODE_WORKER,
                         .availability = NODE_ACTIVE,
                         .state = NODE_READY,
                         .certificate = NODE_CERT_ISSUED};
    struct row row = {.kind = ROW_NODE, .version = 9, .name = span_str("db")};
    struct buf changes = buf_new(COMMAND_MAX);
    struct row_change c;
    struct node_row back;
    (void)state;
    memcpy(row.id, id, sizeof row.id);
    assert_int_equal(node_change_add(&changes, ROW_REPLACE, &row, &n), OK);
    assert_int_equal(node_change_add(&changes, ROW_REMOVE, &row, NULL), OK);
    struct cursor in = cursor_of(buf_span(&changes));
    assert_int_equal(row_change_next(&in, &c), OK);
    assert_int_equal(c.action, ROW_REPLACE);
    assert_int_equal(c.version, 9);
    assert_true(span_equal(c.name, row.name));
    assert_int_equal(node_row_decode(c.body, &back), OK);
    assert_int_equal(back.state, NODE_READY);
    assert_int_equal(row_change_next(&in, &c), OK);
    assert_int_equal(c.action, ROW_REMOVE);
    assert_int_equal(c.version, 9);
    assert_int_equal(cursor_end(&in), OK);
    buf_free(&changes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_update_goes_through_as_it_is),
        cmocka_unit_test(a_cut_or_longer_one_is_refused),
        cmocka_unit_test(a_spec_out_of_its_bounds_is_refused),
        cmocka_unit_test(other_requests_need_no_spec),
        cmocka_unit_test(the_present_key_is_good_and_the_one_before_until_it_is_forgotten),
        cmocka_unit_test(a_change_has_the_version_and_the_name_that_were_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
