/* Tables for people: columns are as wide as their widest cell, in characters; nothing trails a
 * line; what is not printable is not printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/cli/cli_columns.h"

static void expect_text(struct columns *c, const char *expected) {
    struct buf out = buf_new(64 * KIB);
    assert_int_equal(columns_text(c, &out), OK);
    assert_int_equal(buf_u8(&out, 0), OK);
    assert_string_equal((const char *)out.at, expected);
    buf_free(&out);
    buf_free(&c->cells);
}

static void columns_are_as_wide_as_their_widest_cell(void **state) {
    (void)state;
    struct columns c;
    columns_start(&c, (const char *const[]){"ID", "NAME", "X", NULL});
    columns_cell(&c, "%d", 1);
    columns_cell(&c, "a long name");
    columns_cell(&c, "x");
    columns_cell(&c, "12345");
    columns_cell(&c, "%s", "");
    columns_cell(&c, "y");
    columns_cell(&c, "6");
    columns_cell(&c, "ends here");
    columns_cell(&c, "%s", "");
    expect_text(&c, "ID     NAME         X\n"
                    "1      a long name  x\n"
                    "12345               y\n"
                    "6      ends here\n");
}

static void a_character_of_two_bytes_is_one_wide(void **state) {
    (void)state;
    struct columns c;
    columns_start(&c, (const char *const[]){"A", "B", NULL});
    columns_cell(&c, "\xc3\xa4\xc3\xb6");
    columns_cell(&c, "1");
    columns_cell(&c, "ao");
    columns_cell(&c, "2");
    expect_text(&c, "A   B\n\xc3\xa4\xc3\xb6  1\nao  2\n");
}

static void nothing_moves_the_cursor(void **state) {
    (void)state;
    struct columns c;
    columns_start(&c, (const char *const[]){"A", NULL});
    columns_cell(&c, "a\x1b[2Jb\nc\x7f");
    expect_text(&c, "A\na?[2Jb?c?\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(a_character_of_two_bytes_is_one_wide),
        cmocka_unit_test(nothing_moves_the_cursor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
