/* Commands and results as bytes: what is written is read back, and nothing malformed gets through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/states.h"

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
    struct command in = {.op = OP_DELETE, .del = {.key = span_str("a"), .end = span_str("b")}}, out;
    struct buf bytes = buf_new(COMMAND_MAX);
    assert_int_equal(command_encode(&in, &bytes), OK);
    assert_int_equal(command_decode(buf_span(&bytes), &out), OK);
    assert_false(out.has_token);
    assert_true(span_equal(out.del.key, in.del.key));
    assert_true(span_equal(out.del.end, in.del.end));
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
    c = (struct command){.op = OP_DELETE, .del = {.key = span_str("a"), .end = span_str("b")}};
    c.del.mod_revision = 1;
    assert_int_equal(encoding(&c), ERR_INVALID);
    c = (struct command){.op = OP_LOCK, .unlock_key = span_of(big, 31)};
    assert_int_equal(encoding(&c), ERR_INVALID);
    c = (struct command){.op = OP_NODE_ADD, .node = make_node(0, "id", "name")};
    assert_int_equal(encoding(&c), ERR_INVALID);
    c = (struct command){.op = (enum op)99};
    assert_int_equal(encoding(&c), ERR_UNSUPPORTED);
}

static void a_batch_holds_only_puts_and_deletes_and_only_so_many(void **state) {
    (void)state;
    struct buf items = buf_new(COMMAND_MAX);
    struct command put = {.op = OP_PUT, .put = {.key = span_str("k")}};
    struct command other = {.op = OP_TOKEN};
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

static void a_later_versions_command_is_unsupported_not_invalid(void **state) {
    (void)state;
    struct command c;
    assert_int_equal(command_decode(span_of("\x63\0abc", 5), &c), ERR_UNSUPPORTED);
    assert_int_equal(command_decode(span_of("\x01\x02", 2), &c), ERR_UNSUPPORTED);
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
        cmocka_unit_test(a_batch_holds_only_puts_and_deletes_and_only_so_many),
        cmocka_unit_test(a_later_versions_command_is_unsupported_not_invalid),
        cmocka_unit_test(a_result_is_read_back_and_a_malformed_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
