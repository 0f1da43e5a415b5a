/* The error table, bounded bytes and the cursor: bounds hold at their edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/base.h"

static void a_buffer_never_passes_its_maximum(void **state) {
    (void)state;
    struct buf b = buf_new(10);
    assert_int_equal(buf_add(&b, "0123456789", 10), OK);
    assert_int_equal(buf_u8(&b, 1), ERR_TOO_LARGE);
    assert_int_equal(b.size, 10);
    assert_int_equal(buf_reserve(&b, SIZE_MAX), ERR_TOO_LARGE);
    buf_free(&b);
}

static void what_is_written_is_read_back(void **state) {
    (void)state;
    struct buf b = buf_new(100);
    assert_int_equal(buf_u16(&b, 0xabcd), OK);
    assert_int_equal(buf_u64(&b, 0x0123456789abcdefULL), OK);
    assert_int_equal(buf_block(&b, span_str("hello")), OK);
    struct cursor c = cursor_of(buf_span(&b));
    uint16_t small = 0;
    uint64_t large = 0;
    char text[6];
    assert_int_equal(cursor_u16(&c, &small), OK);
    assert_int_equal(cursor_u64(&c, &large), OK);
    assert_int_equal(cursor_text(&c, text, sizeof text), OK);
    assert_int_equal(small, 0xabcd);
    assert_int_equal(large, 0x0123456789abcdefULL);
    assert_string_equal(text, "hello");
    assert_int_equal(cursor_end(&c), OK);
    buf_free(&b);
}

static void a_short_input_is_a_protocol_error_and_changes_nothing(void **state) {
    (void)state;
    struct cursor c = cursor_of(span_of("\x05\0\0\0abc", 7));
    struct span s = span_str("old");
    assert_int_equal(cursor_block(&c, 100, &s), ERR_PROTOCOL);
    assert_int_equal(s.size, 3);
    assert_int_equal(c.left, 7);
}

static void every_error_has_a_name_and_a_text(void **state) {
    (void)state;
    for (int e = 0; e < ERR_COUNT; e++) {
        assert_true(err_name((enum err)e)[0] != '\0');
        assert_true(err_text((enum err)e)[0] != '\0');
        assert_true(e == OK || err_exit((enum err)e) != 0);
    }
}

static void a_sentence_is_prefixed_and_cut_not_overrun(void **state) {
    (void)state;
    struct why why;
    char longer[2 * WHY_MAX];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(fail_with(&why, ERR_IO, "%s", longer), ERR_IO);
    assert_int_equal(fail_in(&why, ERR_IO, "place"), ERR_IO);
    assert_memory_equal(why.text, "place: x", 8);
    assert_true(strlen(why.text) < WHY_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_never_passes_its_maximum),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_short_input_is_a_protocol_error_and_changes_nothing),
        cmocka_unit_test(every_error_has_a_name_and_a_text),
        cmocka_unit_test(a_sentence_is_prefixed_and_cut_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
