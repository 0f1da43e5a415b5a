/* What names the file of a secret, and a mount: every part, its bounds, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "api/cli/file_word.h"

static void a_name_alone_is_a_file_of_that_name_for_everybody_to_read(void **state) {
    (void)state;
    struct file_word w;
    assert_int_equal(file_word_parse("db.password-1", false, &w, NULL), OK);
    assert_string_equal(w.name, "db.password-1");
    assert_string_equal(w.target, "db.password-1");
    assert_int_equal(w.uid, 0);
    assert_int_equal(w.gid, 0);
    assert_int_equal(w.mode, 0444);
    assert_int_equal(w.version, 0);
}

static void all_parts_are_taken_in_any_order(void **state) {
    (void)state;
    struct file_word w;
    assert_int_equal(
        file_word_parse("db,target=pw,uid=4294967294,gid=33,mode=0400,version=7", false, &w, NULL),
        OK);
    assert_string_equal(w.target, "pw");
    assert_int_equal(w.uid, 4294967294U);
    assert_int_equal(w.gid, 33);
    assert_int_equal(w.mode, 0400);
    assert_int_equal(w.version, 7);
    assert_int_equal(file_word_parse("mode=777,source=db,target=/etc/x", true, &w, NULL), OK);
    assert_string_equal(w.name, "db");
    assert_string_equal(w.target, "/etc/x");
    assert_int_equal(w.mode, 0777);
    assert_int_equal(file_word_parse("src=db", true, &w, NULL), OK);
}

static void what_is_wrong_is_refused_with_a_sentence(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      ",",
                                      "db,",
                                      "db,x",
                                      "db,db",
                                      "-db",
                                      "db/x",
                                      "db,source=x",
                                      "target=x",
                                      "db,uid=",
                                      "db,uid=-1",
                                      "db,uid=4294967295",
                                      "db,uid=1x",
                                      "db,gid=99999999999999999999",
                                      "db,mode=8",
                                      "db,mode=1000",
                                      "db,mode=rw",
                                      "db,version=0",
                                      "db,version=4294967296",
                                      "db,target=",
                                      "db,target=.",
                                      "db,target=..",
                                      "db,target=a/b",
                                      "db,target=/etc/x",
                                      "db,target=a,target=b",
                                      "db,target=a\nb",
                                      "db,owner=1"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct file_word w = {.mode = 1};
        struct why why = {0};
        if (file_word_parse(bad[i], false, &w, &why) != ERR_INVALID) fail_msg("'%s'", bad[i]);
        assert_true(why.text[0] != '\0');
        assert_int_equal(w.mode, 1); /* untouched */
    }
}

static void an_absolute_target_is_a_path_without_ways_up(void **state) {
    (void)state;
    static const char *const bad[] = {"/", "//x", "/x/", "/x/../y", "/.", "/x//y", "x/y", "./x"};
    char text[64];
    struct file_word w;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        (void)snprintf(text, sizeof text, "db,target=%s", bad[i]);
        if (file_word_parse(text, true, &w, NULL) != ERR_INVALID) fail_msg("'%s'", bad[i]);
    }
}

static void a_target_has_its_bound(void **state) {
    (void)state;
    char text[TARGET_MAX + 32] = "db,target=";
    struct file_word w;
    size_t start = strlen(text);
    for (size_t i = 0; i < TARGET_MAX; i++)
        text[start + i] = 'x';
    assert_int_equal(file_word_parse(text, false, &w, NULL), OK);
    assert_int_equal(strlen(w.target), TARGET_MAX);
    text[start + TARGET_MAX] = 'x';
    assert_int_equal(file_word_parse(text, false, &w, NULL), ERR_INVALID);
}

static void a_mount_has_two_absolute_paths(void **state) {
    (void)state;
    static const char *const bad[] = {"",    "/a",      "a:/b",      "/a:b",     "/a:/",     ":/b",
                                      "/a:", "/a:/b:x", "/a:/b:ro:", "/a/..:/b", "/a:/b/./c"};
    struct mount_word m;
    assert_int_equal(mount_word_parse("/srv/data:/data", &m, NULL), OK);
    assert_string_equal(m.source, "/srv/data");
    assert_string_equal(m.target, "/data");
    assert_false(m.read_only);
    assert_int_equal(mount_word_parse("/:/host:ro", &m, NULL), OK);
    assert_true(m.read_only);
    assert_int_equal(mount_word_parse("/a:/b:rw", &m, NULL), OK);
    assert_false(m.read_only);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct why why = {0};
        if (mount_word_parse(bad[i], &m, &why) != ERR_INVALID) fail_msg("'%s'", bad[i]);
        assert_true(why.text[0] != '\0');
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_alone_is_a_file_of_that_name_for_everybody_to_read),
        cmocka_unit_test(all_parts_are_taken_in_any_order),
        cmocka_unit_test(what_is_wrong_is_refused_with_a_sentence),
        cmocka_unit_test(an_absolute_target_is_a_path_without_ways_up),
        cmocka_unit_test(a_target_has_its_bound),
        cmocka_unit_test(a_mount_has_two_absolute_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
