/* A supervisor and a task of root that is up to no good: it reaches no other task, and holds up
 * nobody. Needs root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/task_room.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- the node's processes --------------------------------------------------------------------- */

/* A tree with the node's /proc, as one makes it for chroot, with parts of that bound once more. */
struct jail {
    char path[64]; /* of it */
    char proc[96], bus[96], file[96];
};

static void bind(const char *from, const char *to) {
    assert_int_equal(mount(from, to, NULL, MS_BIND, NULL), 0);
}

static void jail_make(struct jail *j) {
    (void)snprintf(j->path, sizeof j->path, "/var/tmp/conclave-jail-XXXXXX");
    assert_non_null(mkdtemp(j->path));
    (void)snprintf(j->proc, sizeof j->proc, "%s/proc", j->path);
    (void)snprintf(j->bus, sizeof j->bus, "%s/proc/bus", j->path);
    (void)snprintf(j->file, sizeof j->file, "%s/version", j->path);
    assert_int_equal(mkdir(j->proc, 0755), 0);
    FILE *file = fopen(j->file, "we");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(mount("proc", j->proc, "proc", 0, NULL), 0);
    bind(j->bus, j->bus);
    bind("/proc/version", j->file);
}

static void jail_remove(const struct jail *j) {
    assert_int_equal(umount2(j->file, MNT_DETACH), 0);
    assert_int_equal(umount2(j->proc, MNT_DETACH), 0);
    assert_int_equal(unlink(j->file), 0);
    assert_int_equal(rmdir(j->proc), 0);
    assert_int_equal(rmdir(j->path), 0);
}

static void another_task_is_not_reached_through_a_proc_of_the_node(void **state) {
    struct room *r = *state;
    struct jail jail = {.path = ""};
    void *other;
    char script[1024];
    struct buf mounts = buf_new(4096);
    assert_int_equal(room_set_up(&other), 0);
    struct room *victim = other;
    room_start_shell(victim, "exec sleep 600");
    room_wait(victim, SUP_RUNNING);
    jail_make(&jail);
    struct sup_order o = room_order(r);
    room_add_mount(&mounts, true, jail.path, "/tmp/jail");
    o.mounts = buf_span(&mounts);
    (void)snprintf(script, sizeof script,
                   "for p in %s /tmp/jail; do cat $p/proc/%u/root/run/secrets/db; "
                   "echo $(ls $p/proc | wc -l) $(wc -c < $p/version); done; test -d /proc/self && "
                   "cat /proc/version",
                   jail.path, victim->state.pid);
    room_send_shell(r, &o, script);
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    jail_remove(&jail);
    const char *text = room_output(r);
    if (strstr(text, ROOM_VALUE)) fail_msg("it was read: %s", text);
    const char *first = strstr(text, "0 0\n");
    if (!first || !strstr(first + 1, "0 0\n")) fail_msg("%s", text);
    assert_non_null(strstr(text, "Linux version"));
    assert_int_equal(room_tear_down(&other), 0);
    buf_free(&mounts);
}

static void reject_mount(struct room *r, const char *source) {
    struct sup_order o = room_order(r);
    struct buf mounts = buf_new(4096);
    room_add_mount(&mounts, true, source, "/tmp/m");
    o.mounts = buf_span(&mounts);
    room_send_shell(r, &o, "true");
    room_expect_rejected(r, "/proc");
    assert_non_null(strstr(r->state.error, "can't be mounted: the node's processes are there"));
    buf_free(&mounts);
}

static void a_mount_of_the_nodes_proc_is_rejected(void **state) { reject_mount(*state, "/proc"); }

static void a_mount_of_a_part_of_it_is_rejected(void **state) {
    reject_mount(*state, "/proc/self/ns");
}

/* --- time ------------------------------------------------------------------------------------- */

static uint64_t now_ms(void) {
    struct timespec t;
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &t), 0);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A script that is given "db" and "/app.conf", up to the word that it says when it is there. */
static void start_with_config(struct room *r, const char *script, const char *ready) {
    struct sup_order o = room_order(r);
    struct sup_file config = room_file("/app.conf", "c1", 1);
    room_send_shell(r, &o, script);
    room_send_file(r, &config, "c1");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, ready);
}

static void update_config(struct room *r, const char *text, uint32_t version) {
    struct sup_file config = room_file("/app.conf", text, version);
    room_send_file(r, &config, text);
    room_say(r, SUP_COMMIT, span_of(NULL, 0));
}

static void a_task_that_stops_every_process_is_updated_and_stopped(void **state) {
    struct room *r = *state;
    start_with_config(
        r, "trap '' TERM; echo ready; while :; do kill -s STOP -- -1 2>/dev/null; done", "ready");
    uint64_t from = now_ms();
    for (uint32_t version = 2; version < 50; version++)
        update_config(r, "c2", version);
    room_stop(r, 1000);
    room_wait(r, SUP_ENDED);
    assert_in_range(now_ms() - from, 1000, 5000);
    assert_int_equal(r->state.exit_code, 128 + SIGKILL);
}

/* --- paths ------------------------------------------------------------------------------------ */

#define SWAP       "swap" /* the verb of this program as a task */
#define SWAPS_LOOK 64     /* between looks */

static bool is_empty(const char *path) {
    DIR *dir = opendir(path);
    bool empty = true;
    for (const struct dirent *d; dir && (d = readdir(dir));)
        empty &= d->d_name[0] == '.';
    if (dir) (void)closedir(dir);
    return empty;
}

/* The task: /tmp/d, where its config is, is by turns that directory and a link to where the node's
 * data directory is, which has the config's name. */
static int swap(const char *data) {
    if (symlink("/var/tmp", "/tmp/l") != 0) return 1;
    (void)puts("swapping");
    (void)fflush(stdout);
    for (unsigned i = 0;; i++) {
        if (renameat2(AT_FDCWD, "/tmp/d", AT_FDCWD, "/tmp/l", RENAME_EXCHANGE) != 0) return 1;
        if (i % SWAPS_LOOK != 0 || is_empty(data)) continue;
        (void)puts("the data directory is seen");
        return fflush(stdout);
    }
}

static void what_is_on_the_path_of_a_file_cannot_be_changed_meanwhile(void **state) {
    struct room *r = *state;
    struct buf command = buf_new(4096);
    char own[PATH_MAX] = "", target[128];
    assert_true(readlink("/proc/self/exe", own, sizeof own - 1) > 0);
    (void)snprintf(target, sizeof target, "/tmp/d/%s", strrchr(r->data, '/') + 1);
    struct sup_order o = room_order(r);
    room_words(&command, (const char *const[]){own, SWAP, r->data, NULL});
    o.command = buf_span(&command);
    room_send_order(r, &o);
    struct sup_file f = room_file(target, "c1", 1);
    room_send_file(r, &f, "c1");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, "swapping");
    unsigned replaced = 0;
    for (uint32_t version = 2; version < 300 && r->state.phase == SUP_RUNNING; version++) {
        f = room_file(target, "c", version);
        room_send_file(r, &f, "c");
        room_say(r, SUP_COMMIT, span_of(NULL, 0));
        (void)room_hear(r);
        replaced += r->state.files[0].version == version;
    }
    assert_null(strstr(room_output(r), "seen"));
    assert_int_equal(r->state.phase, SUP_RUNNING);
    assert_true(replaced > 0);
    buf_free(&command);
}

int main(int argc, char **argv) {
    int code;
    if (argc > 2 && strcmp(argv[1], SWAP) == 0) return swap(argv[2]);
    if (room_main(argc, argv, &code)) return code;
#define CASE(f) cmocka_unit_test_setup_teardown(f, room_set_up, room_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(another_task_is_not_reached_through_a_proc_of_the_node),
        CASE(a_mount_of_the_nodes_proc_is_rejected),
        CASE(a_mount_of_a_part_of_it_is_rejected),
        CASE(a_task_that_stops_every_process_is_updated_and_stopped),
        CASE(what_is_on_the_path_of_a_file_cannot_be_changed_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
