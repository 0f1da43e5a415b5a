/* What becomes of a task's files over many updates: one that fails changes nothing and leaves
 * nothing, and no older version is kept. Needs root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/task_room.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char large[200 * KIB]; /* a text */

static int make_large(void **state) {
    (void)state;
    memset(large, 'x', sizeof large - 1);
    return 0;
}

static void start(struct room *r, const char *script, const char *target) {
    struct sup_order o = room_order(r);
    struct sup_file f = room_file(target, "one", 1);
    room_send_shell(r, &o, script);
    room_send_file(r, &f, "one");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_RUNNING);
}

static void update(struct room *r, const char *target, const char *text, uint32_t version) {
    struct sup_file f = room_file(target, text, version);
    room_send_file(r, &f, text);
    room_say(r, SUP_COMMIT, span_of(NULL, 0));
}

static void wait_version(struct room *r, uint32_t version) {
    while (r->state.n != 1 || r->state.files[0].version != version)
        (void)room_hear(r);
}

static void expect_error(struct room *r, const char *text) {
    r->state.error[0] = '\0';
    while (!r->state.error[0])
        (void)room_hear(r);
    if (!strstr(r->state.error, text)) fail_msg("'%s' is not in '%s'", text, r->state.error);
}

/* --- updates that fail ------------------------------------------------------------------------ */

static void one_file_that_fails_takes_its_update_with_it(void **state) {
    struct room *r = *state;
    start(r, "exec sleep 600", "db");
    for (unsigned i = 0; i <= SERVICE_REFS_MAX; i++) { /* the first one is "db" */
        char target[16];
        (void)snprintf(target, sizeof target, i == 0 ? "db" : "f%u", i);
        struct sup_file f = room_file(target, large, 2);
        room_send_file(r, &f, large);
    }
    room_say(r, SUP_COMMIT, span_of(NULL, 0));
    expect_error(r, "a task has at most");
    room_say(r, SUP_HELLO, span_of(NULL, 0));
    (void)room_hear(r);
    wait_version(r, 1);
    assert_non_null(strstr(r->state.error, "a task has at most"));
    assert_true(room_reads(r, "/run/secrets/db", "one"));
    update(r, "db", "three", 3);
    wait_version(r, 3);
    assert_string_equal(r->state.error, "");
    assert_true(room_reads(r, "/run/secrets/db", "three"));
}

static void an_agent_that_goes_in_the_middle_of_a_file_leaves_nothing_of_it(void **state) {
    struct room *r = *state;
    struct buf head = buf_new(4096);
    start(r, "exec sleep 600", "db");
    struct sup_file f = room_file("db", "two", 2);
    assert_int_equal(sup_file_encode(&f, &head), OK);
    room_say(r, SUP_FILE, buf_span(&head));
    room_say(r, SUP_DATA, span_str("t"));
    (void)close(r->fd);
    assert_int_equal(supervisor_dial(r->data, ROOM_TASK, &r->fd, NULL), OK);
    room_say(r, SUP_HELLO, span_of(NULL, 0));
    (void)room_hear(r);
    update(r, "db", "three", 3);
    wait_version(r, 3);
    assert_true(room_reads(r, "/run/secrets/db", "three"));
    buf_free(&head);
}

static void a_target_that_is_out_of_reach_is_replaced_when_it_is_back(void **state) {
    struct room *r = *state;
    start(r,
          "mv /tmp/d /tmp/e; echo moved; while test ! -e /tmp/go; do sleep 0.02; done; "
          "mv /tmp/e /tmp/d; echo back; exec sleep 600",
          "/tmp/d/app.conf");
    room_wait_text(r, "moved");
    for (uint32_t version = 2; version < 12; version++) {
        update(r, "/tmp/d/app.conf", large, version);
        expect_error(r, "/tmp/d/app.conf can't be replaced in the running task");
        assert_in_range(room_bytes(r), 0, sizeof large);
    }
    assert_true(room_reads(r, "/tmp/e/app.conf", "one"));
    assert_int_equal(r->state.files[0].version, 1);
    r->state.error[0] = '\0';
    room_go(r);
    room_wait_text(r, "back");
    update(r, "/tmp/d/app.conf", "two", 2);
    wait_version(r, 2);
    assert_true(room_reads(r, "/tmp/d/app.conf", "two"));
}

/* --- older versions --------------------------------------------------------------------------- */

static void a_reader_gets_to_the_end_of_what_it_has_opened(struct room *r, const char *target,
                                                           const char *seen) {
    char path[64], bytes[16] = "";
    struct stat st;
    start(r, "exec sleep 600", target);
    (void)snprintf(path, sizeof path, "/proc/%u/root%s", r->state.pid, seen);
    int fd = open(path, O_RDONLY | O_CLOEXEC), old = open(path, O_PATH | O_CLOEXEC);
    assert_true(fd >= 0 && old >= 0);
    for (uint32_t version = 2; version < 4; version++) {
        update(r, target, "another", version);
        wait_version(r, version);
        assert_int_equal(pread(fd, bytes, sizeof bytes, 0), 3);
        assert_string_equal(bytes, "one");
    }
    (void)close(fd);
    (void)close(old);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    old = open(path, O_PATH | O_CLOEXEC);
    assert_true(fd >= 0 && old >= 0);
    update(r, target, "last", 4);
    wait_version(r, 4);
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), 7);
    assert_string_equal(bytes, "another");
    (void)close(fd);
    WAIT_UNTIL(fstat(old, &st) == 0 && st.st_size == 0); /* overwritten, then cut */
    (void)close(old);
}

static void an_older_secret_is_overwritten_when_its_last_reader_goes(void **state) {
    a_reader_gets_to_the_end_of_what_it_has_opened(*state, "db", "/run/secrets/db");
}

static void an_older_config_is_overwritten_when_its_last_reader_goes(void **state) {
    a_reader_gets_to_the_end_of_what_it_has_opened(*state, "/app.conf", "/app.conf");
}

int main(int argc, char **argv) {
    int code;
    if (room_main(argc, argv, &code)) return code;
#define CASE(f) cmocka_unit_test_setup_teardown(f, room_set_up, room_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(one_file_that_fails_takes_its_update_with_it),
        CASE(an_agent_that_goes_in_the_middle_of_a_file_leaves_nothing_of_it),
        CASE(a_target_that_is_out_of_reach_is_replaced_when_it_is_back),
        CASE(an_older_secret_is_overwritten_when_its_last_reader_goes),
        CASE(an_older_config_is_overwritten_when_its_last_reader_goes),
    };
    return cmocka_run_group_tests(tests, make_large, NULL);
}
