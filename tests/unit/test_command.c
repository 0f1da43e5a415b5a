/* Commands and results as bytes: what is written is read back, and nothing malformed gets through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/row_lists.h"

static void a_put_with_all_its_fields_is_read_back(void **state) {
    (void)state;
    struct command in = {.op = OP_PUT, .has_token = true, .token = "0123456789abcde"}, out;
    in.put.key = span_str("key");
    in.put.value = span_of("v\0lue", 5);
    in.put.mod_revision = 77;
    struct buf bytes = buf_new(COMMAND_MAX);
    assert_int_equal(command_encode(&in, &bytes), OK);
    assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
    assert_int_equal(out.op, OP_PUT);
    assert_true(out.has_token);
    assert_memory_equal(out.token, in.token, TOKEN_SIZE);
    assert_true(span_equal(out.put.key, in.put.key));
    assert_true(span_equal(out.put.value, in.put.value));
    assert_int_equal(out.put.mod_revision, 77);
    assert_false(out.put.must_not_exist);
    buf_free(&bytes);
}

static void a_delete_with_its_end_is_read_back(void **state) {
    (void)state;
    struct command in = {.op = OP_DELETE,
                         .del = {.in = {.key = span_str("a"), .end = span_str("b")}}},
                   out;
    struct buf bytes = buf_new(COMMAND_MAX);
    assert_int_equal(command_encode(&in, &bytes), OK);
    assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
    assert_false(out.has_token);
    assert_true(span_equal(out.del.in.key, in.del.in.key));
    assert_true(span_equal(out.del.in.end, in.del.in.end));
    buf_free(&bytes);
}

static void every_random_command_is_read_back_to_the_same_bytes(void **state) {
    (void)state;
    uint64_t seed = 1;
    struct buf bytes = buf_new(COMMAND_MAX), again = buf_new(COMMAND_MAX);
    for (unsigned i = 0; i < 5000; i++) {
        struct command c;
        buf_clear(&bytes);
        buf_clear(&again);
        random_command(&seed, false, &bytes);
        assert_int_equal(command_decode(buf_span(&bytes), &c), OK);
        assert_int_equal(command_encode(&c, &again), OK);
        assert_true(span_equal(buf_span(&bytes), buf_span(&again)));
    }
    buf_free(&bytes);
    buf_free(&again);
}

static void a_command_cut_short_or_with_bytes_behind_is_refused(void **state) {
    (void)state;
    uint64_t seed = 2;
    struct buf bytes = buf_new(COMMAND_MAX);
    for (unsigned i = 0; i < 300; i++) {
        struct command c;
        buf_clear(&bytes);
        random_command(&seed, false, &bytes);
        size_t whole = bytes.size < 500 ? bytes.size : 500;
        for (size_t size = 0; size < whole; size++)
            if (size != bytes.size)
                assert_int_equal(command_decode(span_of(bytes.at, size), &c), ERR_INVALID);
        assert_int_equal(buf_u8(&bytes, 0), OK);
        assert_int_equal(command_decode(buf_span(&bytes), &c), ERR_INVALID);
    }
    buf_free(&bytes);
}

static enum err encoding(const struct command *c) {
    struct buf bytes = buf_new(COMMAND_MAX);
    enum err e = command_encode(c, &bytes);
    buf_free(&bytes);
    return e;
}

static void what_is_out_of_bounds_is_not_encoded(void **state) {
    (void)state;
    static const uint8_t big[VALUE_MAX + 1];
    struct command c = {.op = OP_PUT, .put = {.key = span_of(big, KEY_MAX)}};
    assert_int_equal(encoding(&c), OK);
    c.put.key.size++;
    assert_int_equal(encoding(&c), ERR_INVALID);
    c.put.key.size = 0;
    assert_int_equal(encoding(&c), ERR_INVALID);
    c.put.key.size = 1;
    c.put.value = span_of(big, VALUE_MAX);
    assert_int_equal(encoding(&c), OK);
    c.put.value.size++;
    assert_int_equal(encoding(&c), ERR_INVALID);
    c.put.value.size = 0;
    c.put.must_not_exist = true;
    c.put.mod_revision = 1;
    assert_int_equal(encoding(&c), ERR_INVALID);
    c = (struct command){.op = OP_DELETE,
                         .del = {.in = {.key = span_str("a"), .end = span_str("b")}}};
    c.del.mod_revision = 1;
    assert_int_equal(encoding(&c), ERR_INVALID);
    c = (struct command){.op = OP_LOCK, .unlock_key = span_of(big, 31)};
    assert_int_equal(encoding(&c), ERR_INVALID);
    c = (struct command){.op = OP_LOCK, .lock_replaces = span_of(big, 31)};
    assert_int_equal(encoding(&c), ERR_INVALID);
    c.lock_replaces.size = LOCK_DIGEST_SIZE;
    assert_int_equal(encoding(&c), OK);
    c = (struct command){.op = OP_NODE_ADD, .node = make_node(0, "id", "name")};
    assert_int_equal(encoding(&c), ERR_INVALID);
    c = (struct command){.op = (enum op)99};
    assert_int_equal(encoding(&c), ERR_UNSUPPORTED);
}

static void a_list_of_rows_is_checked_whole(void **state) {
    (void)state;
    struct row_list l = row_list();
    struct node_row n = some_node(NODE_WORKER, 1);
    list_node(&l, ROW_CREATE, "a", 0, "alpha", &n);
    list_plain(&l, ROW_CHECK, ROW_NODE, "b", 7);
    struct command in = list_command(&l, -5), out;
    struct buf bytes = buf_new(COMMAND_MAX);
    assert_int_equal(command_encode(&in, &bytes), OK);
    assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
    assert_int_equal(out.rows.n, 2);
    assert_int_equal(out.rows.now_ns, -5);
    assert_true(span_equal(out.rows.changes, in.rows.changes));
    struct cursor changes = cursor_of(out.rows.changes);
    struct row_change c;
    assert_int_equal(row_change_next(&changes, &c), OK);
    assert_int_equal(c.action, ROW_CREATE);
    assert_true(span_equal(c.name, span_str("alpha")));
    assert_int_equal(row_change_next(&changes, &c), OK);
    assert_int_equal(c.action, ROW_CHECK);
    assert_int_equal(c.version, 7);
    assert_int_equal(row_change_next(&changes, &c), ERR_INVALID);
    in.rows.n = 1; /* more changes than it says */
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.rows.n = 3;
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.rows.n = 0;
    in.rows.changes.size = 0;
    assert_int_equal(encoding(&in), ERR_INVALID);
    while (l.n <= ROWS_CHANGE_MAX)
        list_plain(&l, ROW_CHECK, ROW_NODE, "b", 7);
    in = list_command(&l, 0);
    assert_int_equal(encoding(&in), ERR_INVALID);
    buf_free(&l.changes);
    buf_free(&bytes);
}

static void steps_of_a_rotation_are_read_back_or_refused(void **state) {
    (void)state;
    static const uint8_t big[PEM_MAX + 1];
    struct command in = {.op = OP_CA}, out;
    struct buf bytes = buf_new(COMMAND_MAX);
    in.ca.action = CA_START;
    in.ca.rotation = 4;
    in.ca.next.root_pem = span_str("root");
    in.ca.cross_pem = span_str("cross");
    assert_int_equal(command_encode(&in, &bytes), OK);
    assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
    assert_int_equal(out.ca.rotation, 4);
    assert_true(span_equal(out.ca.next.root_pem, span_str("root")));
    assert_int_equal(out.ca.next.issuer_pem.size + out.ca.next.key.size, 0);
    assert_true(span_equal(out.ca.cross_pem, span_str("cross")));
    in.ca.next.root_pem.size = 0;
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.ca.next.root_pem = span_of(big, sizeof big);
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.ca.next.root_pem = span_str("root");
    in.ca.cross_pem = span_of(big, sizeof big);
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.ca.action = (enum ca_action)0;
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.ca.action = (enum ca_action)5;
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.ca.action = CA_FINISH;
    in.ca.retire = true;
    buf_clear(&bytes);
    assert_int_equal(command_encode(&in, &bytes), OK);
    assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
    assert_true(out.ca.retire);
    bytes.at[bytes.size - 1] = 2;
    assert_int_equal(command_decode(buf_span(&bytes), &out), ERR_INVALID);
    buf_free(&bytes);
}

static void a_cluster_has_a_root_and_a_join_key(void **state) {
    (void)state;
    struct command in = {.op = OP_CLUSTER}, out;
    struct buf bytes = buf_new(COMMAND_MAX);
    memcpy(in.cluster.id, "c", 2);
    in.cluster.ca.root_pem = span_str("root");
    in.cluster.join_key = span_str("12345678901234567890123456789012");
    in.cluster.first = make_node(1, "id", "name");
    assert_int_equal(command_encode(&in, &bytes), OK); /* without a key: an external CA's */
    assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
    assert_true(span_equal(out.cluster.join_key, in.cluster.join_key));
    in.cluster.join_key.size--;
    assert_int_equal(encoding(&in), ERR_INVALID);
    in.cluster.join_key.size++;
    in.cluster.ca.root_pem.size = 0;
    assert_int_equal(encoding(&in), ERR_INVALID);
    buf_free(&bytes);
}

static void a_batch_holds_only_puts_and_deletes_and_only_so_many(void **state) {
    (void)state;
    struct buf items = buf_new(COMMAND_MAX);
    struct command put = {.op = OP_PUT, .put = {.key = span_str("k")}};
    struct command other = {.op = OP_NODE_REMOVE, .raft_id = 1};
    assert_int_equal(command_batch_add(&items, &other), ERR_INVALID);
    put.put.key.size = 0;
    assert_int_equal(command_batch_add(&items, &put), ERR_INVALID);
    assert_int_equal(items.size, 0);
    put.put.key.size = 1;
    for (unsigned i = 0; i <= BATCH_MAX; i++)
        assert_int_equal(command_batch_add(&items, &put), OK);
    struct command batch = {.op = OP_BATCH,
                            .batch = {.n = BATCH_MAX + 1, .items = buf_span(&items)}};
    assert_int_equal(encoding(&batch), ERR_INVALID);
    batch.batch.n--;
    assert_int_equal(encoding(&batch), ERR_INVALID); /* one too many in the items */
    buf_free(&items);
}

static void a_users_command_and_nobodys_are_read_back_and_the_clusters_has_no_user(void **state) {
    (void)state;
    static const char *const users[] = {"u", ""};
    for (unsigned i = 0; i < 2; i++) {
        struct command in = {.op = OP_PUT, .has_user = true, .user = span_str(users[i])}, out;
        struct buf bytes = buf_new(COMMAND_MAX);
        in.put.key = span_str("key");
        in.auth_revision = i == 0 ? 77 : 0;
        assert_int_equal(command_encode(&in, &bytes), OK);
        assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
        assert_true(out.has_user && span_equal(out.user, in.user));
        assert_int_equal(out.auth_revision, in.auth_revision);
        bytes.at[1] = 6; /* a user and nobody */
        assert_int_equal(command_decode(buf_span(&bytes), &out), ERR_INVALID);
        in.op = OP_NODE_REMOVE;
        in.raft_id = 1;
        buf_clear(&bytes);
        assert_int_equal(command_encode(&in, &bytes), ERR_INVALID);
        buf_free(&bytes);
    }
}

static void a_later_versions_command_is_unsupported_not_invalid(void **state) {
    (void)state;
    struct command c;
    assert_int_equal(command_decode(span_of("\x63\0abc", 5), &c), ERR_UNSUPPORTED);
    assert_int_equal(command_decode(span_of("\x01\x08", 2), &c), ERR_UNSUPPORTED);
    assert_int_equal(command_decode(span_of("\x01\0\x80", 3), &c), ERR_UNSUPPORTED);
}

static void a_result_is_read_back_and_a_malformed_one_is_not(void **state) {
    (void)state;
    struct result in = {.error = ERR_EXISTS,
                        .revision = 1234567890123,
                        .repeated = true,
                        .deleted = 5},
                  out;
    in.previous.existed = true;
    in.previous.mod_revision = 7;
    in.previous.version = 3;
    struct buf bytes = buf_new(100);
    assert_int_equal(result_encode(&in, &bytes), OK);
    assert_int_equal(bytes.size, RESULT_SIZE);
    assert_int_equal(result_decode(buf_span(&bytes), &out), OK);
    assert_int_equal(out.error, in.error);
    assert_int_equal(out.revision, in.revision);
    assert_true(out.repeated && out.previous.existed);
    assert_int_equal(out.deleted, 5);
    assert_int_equal(out.previous.mod_revision, 7);
    assert_int_equal(out.previous.version, 3);
    assert_int_equal(result_decode(span_of(bytes.at, RESULT_SIZE - 1), &out), ERR_PROTOCOL);
    bytes.at[0] = ERR_COUNT;
    assert_int_equal(result_decode(buf_span(&bytes), &out), ERR_PROTOCOL);
    bytes.at[0] = 0;
    bytes.at[10] = 4;
    assert_int_equal(result_decode(buf_span(&bytes), &out), ERR_PROTOCOL);
    buf_free(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_with_all_its_fields_is_read_back),
        cmocka_unit_test(a_delete_with_its_end_is_read_back),
        cmocka_unit_test(every_random_command_is_read_back_to_the_same_bytes),
        cmocka_unit_test(a_command_cut_short_or_with_bytes_behind_is_refused),
        cmocka_unit_test(what_is_out_of_bounds_is_not_encoded),
        cmocka_unit_test(a_list_of_rows_is_checked_whole),
        cmocka_unit_test(steps_of_a_rotation_are_read_back_or_refused),
        cmocka_unit_test(a_cluster_has_a_root_and_a_join_key),
        cmocka_unit_test(a_batch_holds_only_puts_and_deletes_and_only_so_many),
        cmocka_unit_test(a_users_command_and_nobodys_are_read_back_and_the_clusters_has_no_user),
        cmocka_unit_test(a_later_versions_command_is_unsupported_not_invalid),
        cmocka_unit_test(a_result_is_read_back_and_a_malformed_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
