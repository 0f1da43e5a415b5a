/* The supervisor on a kernel that puts no mount beneath another (before Linux 6.5): this one with
 * a filter that refuses it. Needs root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/task_room.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define BENEATH 0x200 /* of move_mount's last argument, whose low half is first on both machines */

static bool be_older(void) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_move_mount, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[4])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, BENEATH, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = ARRAY_SIZE(steps), .filter = steps};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static void a_config_is_replaced_a_hundred_times_in_the_room_of_one(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    struct sup_file f = room_file("/app.conf", "one", 1);
    static char text[200 * KIB];
    char seen[4];
    memset(text, 'x', sizeof text - 1);
    room_send_shell(r, &o, "exec sleep 600");
    room_send_file(r, &f, "one");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_RUNNING);
    for (uint32_t version = 2; version <= 101; version++) {
        (void)snprintf(seen, sizeof seen, "%03u", version);
        memcpy(text, seen, 3);
        f = room_file("/app.conf", text, version);
        room_send_file(r, &f, text);
        room_say(r, SUP_COMMIT, span_of(NULL, 0));
        while (r->state.files[0].version != version)
            (void)room_hear(r);
        assert_true(room_begins(r, "/app.conf", seen));
        assert_in_range(room_bytes(r), 0, 2 * sizeof text);
    }
}

int main(int argc, char **argv) {
    int code;
    if (argc > 1 && !be_older()) return 1;
    if (room_main(argc, argv, &code)) return code;
#define CASE(f) cmocka_unit_test_setup_teardown(f, room_set_up, room_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_config_is_replaced_a_hundred_times_in_the_room_of_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
