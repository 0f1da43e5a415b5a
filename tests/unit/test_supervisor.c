/* A supervisor and its task: what the task sees and may do, what changes while it runs, and that
 * nothing stays behind, whatever ends it. Needs root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/task_room.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/scratch.h"

#define SEARCHED_MAX (1 * GIB) /* bytes of a mapping */

/* --- looking from outside --------------------------------------------------------------------- */

static void read_all(const char *path, struct buf *out) {
    char piece[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0;)
        assert_int_equal(buf_add(out, piece, (size_t)n), OK);
    (void)close(fd);
}

/* The device of the task's /run/secrets, "0:57"; of nothing else on this machine. */
static void note_device(struct room *r) {
    char path[64];
    struct buf text = buf_new(1 * MIB);
    (void)snprintf(path, sizeof path, "/proc/%u/mountinfo", r->state.pid);
    read_all(path, &text);
    assert_int_equal(buf_u8(&text, 0), OK);
    char *line = strstr((char *)text.at, " /run/secrets ");
    assert_non_null(line);
    while (line > (char *)text.at && line[-1] != '\n')
        line--;
    assert_int_equal(sscanf(line, "%*d %*d %15s", r->device), 1);
    buf_free(&text);
}

/* A supervisor or an init of ours: no process of a task outlives its init. (Others have tasks on
 * this machine, too, and the kernel gives their mounts the numbers that ours had.) */
static bool is_ours(const char *pid) {
    char path[300], theirs[300], own[300];
    (void)snprintf(path, sizeof path, "/proc/%s/exe", pid);
    ssize_t n = readlink(path, theirs, sizeof theirs),
            m = readlink("/proc/self/exe", own, sizeof own);
    return n > 0 && n == m && memcmp(theirs, own, (size_t)n) == 0;
}

/* In any mount namespace that could have it. */
static bool is_mounted(const struct room *r) {
    DIR *proc = opendir("/proc");
    bool found = false;
    assert_non_null(proc);
    assert_true(r->device[0] != '\0');
    for (const struct dirent *d; !found && (d = readdir(proc));) {
        char path[300], device[32];
        struct buf text = buf_new(1 * MIB);
        (void)snprintf(path, sizeof path, "/proc/%s/mountinfo", d->d_name);
        (void)snprintf(device, sizeof device, " %s ", r->device);
        if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && is_ours(d->d_name)) read_all(path, &text);
        assert_int_equal(buf_u8(&text, 0), OK);
        found = strstr((const char *)text.at, device) != NULL;
        buf_free(&text);
    }
    (void)closedir(proc);
    return found;
}

static bool exists(pid_t pid) { return kill(pid, 0) == 0; }

/* --- what the task sees ----------------------------------------------------------------------- */

static void a_task_reads_its_secret_on_memory_that_is_never_swapped(void **state) {
    struct room *r = *state;
    const char *text =
        room_run_shell(r, "cat /run/secrets/db; echo; grep ' /run/secrets ' "
                          "/proc/self/mountinfo; stat -c '%u:%g:%a' /run/secrets/db; "
                          "stat -c 'dir %a' /run/secrets; ls /run/secrets");
    assert_non_null(strstr(text, ROOM_VALUE));
    bool noswap = strstr(text, "noswap") != NULL, ram = strstr(text, " - ramfs ") != NULL;
    assert_true(noswap || ram);
    assert_non_null(strstr(text, " ro,nosuid,nodev,noexec"));
    if (noswap) assert_non_null(strstr(text, "size="));
    assert_non_null(strstr(text, "0:0:444"));
    assert_non_null(strstr(text, "dir 755"));
    assert_int_equal(r->state.exit_code, 0);
    assert_int_equal(r->state.n, 0); /* its files are gone */
}

static void owner_and_mode_are_as_asked_and_others_may_not_read(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    struct sup_file mine = room_file("mine", "for-1234", 1),
                    other = room_file("sub/other", "root", 1);
    (void)snprintf(o.user, sizeof o.user, "1234:4321");
    mine.uid = 1234;
    mine.gid = 4321;
    mine.mode = other.mode = 0400;
    room_send_shell(r, &o,
                    "id -u; id -g; cat /run/secrets/mine; stat -c ' %u:%g:%a' /run/secrets/mine; "
                    "cat /run/secrets/sub/other || echo refused; grep CapEff /proc/self/status");
    room_send_file(r, &mine, "for-1234");
    room_send_file(r, &other, "root");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    assert_non_null(strstr(room_output(r), "1234\n4321\nfor-1234 1234:4321:400"));
    assert_non_null(strstr(room_output(r), "refused"));
    assert_non_null(strstr(room_output(r), "CapEff:\t0000000000000000"));
}

static void nothing_of_the_node_can_be_written_and_no_disk_is_there(void **state) {
    struct room *r = *state;
    const char *text = room_run_shell(
        r, "for f in /run/secrets/x /etc/x /x /usr/x /proc/sys/kernel/hostname /dev/x; do "
           "  (echo hello > $f) 2>/dev/null && echo wrote $f; done; "
           "echo a > /tmp/a && cat /tmp/a; ls /dev | tr '\\n' ' '; echo; "
           "mknod /tmp/d b 254 0 2>/dev/null && echo made; "
           "mount -t tmpfs t /tmp 2>/dev/null && echo mounted; "
           "umount /run/secrets 2>/dev/null && echo unmounted; "
           "mount -o remount,rw /run/secrets 2>/dev/null && echo remounted; "
           "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; grep NoNewPrivs /proc/self/status; "
           "ulimit -c; "
           "ls /proc/self/fd | tr '\\n' ' '");
    static const char *const never[] = {"wrote", "made", "mounted", "sda", "vda", "mem"};
    for (size_t i = 0; i < ARRAY_SIZE(never); i++)
        if (strstr(text, never[i])) fail_msg("'%s' in: %s", never[i], text);
    assert_non_null(strstr(text, "a\nfd full null ptmx pts random shm stderr stdin stdout tty "
                                 "urandom zero"));
    if (!strstr(text, "\n0\nNoNewPrivs:\t1\n0\n0 1 2 3 ")) fail_msg("%s", text); /* 3: of ls */
}

static void other_tasks_and_the_data_directory_are_not_there(void **state) {
    struct room *r = *state;
    char script[512];
    (void)snprintf(script, sizeof script,
                   "ls -A %s | wc -l; ls /proc | grep -c '^[0-9]'; ls /run; hostname; "
                   "test / -ef /.. || echo escaped; "
                   "cat /proc/1/environ 2>&1 | wc -c; ls -l /proc/1/root 2>&1 | head -1",
                   r->data);
    struct sup_order o = room_order(r);
    (void)snprintf(o.hostname, sizeof o.hostname, "task-host");
    room_send_shell(r, &o, script);
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    const char *text = room_output(r);
    assert_int_equal(strncmp(text, "0\n", 2), 0);
    assert_non_null(strstr(text, "secrets\ntask-host\n"));
    assert_null(strstr(text, "escaped"));
    long processes = strtol(strchr(text, '\n') + 1, NULL, 10);
    assert_in_range(processes, 2, 6);
}

static void files_of_other_places_and_mounts_are_bound(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    struct buf mounts = buf_new(4096);
    struct sup_file config = room_file("/app.conf", "config-1", 1);
    struct sup_file deep = room_file("/run/app/deep.conf", "deep-1", 1);
    room_add_mount(&mounts, true, "/etc", "/tmp/there/etc");
    config.kind = ROW_CONFIG;
    o.mounts = buf_span(&mounts);
    room_send_shell(
        r, &o,
        "cat /app.conf /run/app/deep.conf; test -f /tmp/there/etc/passwd && echo bound; "
        "echo x >> /app.conf || echo no; echo x > /tmp/there/etc/x || echo no");
    room_send_file(r, &config, "config-1");
    room_send_file(r, &deep, "deep-1");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    const char *text = room_output(r);
    assert_non_null(strstr(text, "config-1deep-1bound\n"));
    buf_free(&mounts);
}

/* Its file system is there a second time, at a place that the task is given. */
static void the_data_directory_is_hidden_wherever_it_shows(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    char script[512], path[128];
    struct buf mounts = buf_new(4096);
    struct scratch scratch;
    scratch_new(&scratch);
    (void)snprintf(path, sizeof path, "%s/r", scratch.path);
    assert_int_equal(mkdir(path, 0755), 0);
    room_add_mount(&mounts, false, path, "/tmp/seen");
    (void)snprintf(path, sizeof path, "%s/r/again", scratch.path);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(mount("/var", path, NULL, MS_BIND, NULL), 0);
    o.mounts = buf_span(&mounts);
    (void)snprintf(script, sizeof script,
                   "ls -A /tmp/seen/again%s | wc -l; ls -A %s | wc -l; ls /tmp/seen/again/tmp",
                   r->data + sizeof "/var" - 1, r->data);
    room_send_shell(r, &o, script);
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    if (strncmp(room_output(r), "0\n0\n", 4) != 0 || !strstr(room_output(r), "conclave-sup-"))
        fail_msg("%s", room_output(r));
    assert_int_equal(rmdir(path), 0);
    (void)snprintf(path, sizeof path, "%s/r", scratch.path);
    assert_int_equal(rmdir(path), 0);
    scratch_free(&scratch);
    buf_free(&mounts);
}

static void an_image_of_its_own_is_the_root(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    struct scratch scratch;
    static const char make[] = "mkdir -p r/bin r/etc r/lib r/tmp && cd r && ln -s / proc && "
                               "ln -s lib lib64 && cp /bin/sh bin/ && "
                               "echo 'app:x:77:78:::' > etc/passwd && "
                               "cp $(ldd /bin/sh | grep -o '/[^ ]*') lib/";
    scratch_new(&scratch);
    scratch_put(&scratch, "make", span_str(make));
    assert_int_equal(scratch_run(&scratch, NULL, "sh make"), 0);
    (void)snprintf(o.image, sizeof o.image, "%s/r", scratch.path);
    (void)snprintf(o.user, sizeof o.user, "app");
    room_send_shell(r, &o,
                    "read v < /run/secrets/db; echo got $v; echo *; test -e /var && echo node; "
                    "read a b < /proc/self/stat; cd /proc/1/cwd && echo escaped; "
                    "test -e /../var && echo escaped");
    struct sup_file f = room_file("db", ROOM_VALUE "\n", 1);
    room_send_file(r, &f, ROOM_VALUE "\n");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    assert_non_null(
        strstr(room_output(r), "got " ROOM_VALUE "\nbin dev etc lib lib64 proc run tmp\n"));
    assert_null(strstr(room_output(r), "escaped"));
    assert_int_equal(scratch_run(&scratch, NULL, "rm -r r"), 0);
    scratch_free(&scratch);
}

/* --- what changes ----------------------------------------------------------------------------- */

static void a_followed_file_is_replaced_at_once_and_the_task_is_told(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    room_send_shell(r, &o,
                    "trap 'echo told; cat /run/secrets/db /app.conf; echo' HUP; echo ready; "
                    "while :; do sleep 0.05; v=$(cat /run/secrets/db) || echo missing; done");
    struct sup_file secret = room_file("db", "one", 1), config = room_file("/app.conf", "c1", 1);
    room_send_file(r, &secret, "one");
    room_send_file(r, &config, "c1");
    room_say(r, SUP_START, span_of(NULL, 0));
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, "ready");
    static char large[300 * KIB];
    memset(large, 'x', sizeof large - 1);
    for (uint32_t version = 2; version <= 5; version++) {
        char text[64], expect[64];
        (void)snprintf(text, sizeof text, "value-%u.", version);
        secret = room_file("db", text, version);
        room_send_file(r, &secret, text);
        (void)snprintf(text, sizeof text, "c%u", version);
        config = room_file("/app.conf", text, version);
        room_send_file(r, &config, text);
        room_say(r, SUP_COMMIT, span_of(NULL, 0));
        (void)snprintf(expect, sizeof expect, "told\nvalue-%u.c%u\n", version, version);
        room_wait_text(r, expect);
    }
    secret = room_file("db", large, 6);
    room_send_file(r, &secret, large);
    room_say(r, SUP_COMMIT, span_of(NULL, 0));
    while (r->state.n < 2 || r->state.files[0].version != 6)
        (void)room_hear(r);
    assert_null(strstr(room_output(r), "missing"));
    assert_int_equal(r->state.phase, SUP_RUNNING);
}

static void a_task_that_does_not_catch_the_signal_goes_on(void **state) {
    struct room *r = *state;
    room_start_shell(
        r, "echo ready; while [ \"$(cat /run/secrets/db)\" != two ]; do sleep 0.02; done; "
           "echo seen; sleep 0.2; echo still");
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, "ready");
    struct sup_file f = room_file("db", "two", 2);
    room_send_file(r, &f, "two");
    room_say(r, SUP_COMMIT, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    assert_int_equal(r->state.exit_code, 0);
    assert_non_null(strstr(room_output(r), "seen\nstill"));
}

static void stop_is_a_signal_and_after_the_grace_a_kill(void **state) {
    struct room *r = *state;
    room_start_shell(r, "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done");
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, "ready");
    room_stop(r, 300);
    room_wait(r, SUP_ENDED);
    assert_true(r->state.asked);
    assert_int_equal(r->state.exit_code, 128 + SIGKILL);
    assert_non_null(strstr(room_output(r), "asked"));
}

static void a_task_without_a_handler_ends_by_its_stop_signal(void **state) {
    struct room *r = *state;
    room_start_shell(r, "echo ready; exec sleep 600");
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, "ready");
    room_stop(r, ROOM_WAIT_MS);
    room_wait(r, SUP_ENDED);
    assert_int_equal(r->state.exit_code, 128 + SIGTERM);
}

static void another_agent_takes_over(void **state) {
    struct room *r = *state;
    room_start_shell(r, "echo ready; exec sleep 600");
    room_wait(r, SUP_RUNNING);
    uint32_t pid = r->state.pid;
    (void)close(r->fd);
    r->state = (struct sup_state){0};
    assert_int_equal(supervisor_dial(r->data, ROOM_TASK, &r->fd, NULL), OK);
    room_say(r, SUP_HELLO, span_of(NULL, 0));
    room_wait(r, SUP_RUNNING);
    assert_int_equal(r->state.pid, pid);
    assert_string_equal(r->state.id, ROOM_TASK);
    assert_int_equal(r->state.n, 1);
    assert_int_equal(r->state.files[0].version, 1);
    room_wait_text(r, "ready");
}

static void the_end_is_kept_until_somebody_has_heard_it(void **state) {
    struct room *r = *state;
    room_start_shell(r, "while test ! -e /tmp/go; do sleep 0.02; done; exit 7");
    room_wait(r, SUP_RUNNING);
    note_device(r);
    (void)close(r->fd);
    room_go(r);
    WAIT_UNTIL(!is_mounted(r));
    r->state = (struct sup_state){0};
    assert_int_equal(supervisor_dial(r->data, ROOM_TASK, &r->fd, NULL), OK);
    room_say(r, SUP_HELLO, span_of(NULL, 0));
    room_wait(r, SUP_ENDED);
    assert_int_equal(r->state.exit_code, 7);
}

/* --- what ends it ----------------------------------------------------------------------------- */

/* An agent that hangs up before its last words are read: the supervisor can't answer any more, and
 * hears them all the same. */
static void last_words_of_an_agent_that_is_gone_are_heard(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    room_send_shell(r, &o, "true");
    room_wait(r, SUP_READY);
    room_find_supervisor(r);
    assert_int_equal(kill(r->supervisor, SIGSTOP), 0);
    room_stop(r, 0);
    room_say(r, SUP_BYE, span_of(NULL, 0));
    (void)close(r->fd);
    r->fd = -1;
    assert_int_equal(kill(r->supervisor, SIGCONT), 0);
    WAIT_UNTIL(!exists(r->supervisor));
}

static void killing_the_task_leaves_nothing(void **state) {
    struct room *r = *state;
    room_start_shell(r, "sleep 601 & echo ready; exec sleep 600");
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, "ready");
    note_device(r);
    assert_true(is_mounted(r));
    assert_int_equal(kill((pid_t)r->state.pid, SIGKILL), 0);
    room_wait(r, SUP_ENDED);
    assert_int_equal(r->state.exit_code, 128 + SIGKILL);
    assert_false(r->state.asked);
    assert_false(is_mounted(r));
}

static void killing_the_supervisor_ends_the_task_and_leaves_no_mount(void **state) {
    struct room *r = *state;
    int fd;
    room_start_shell(r, "echo ready; trap '' TERM HUP INT; sleep 600");
    room_wait(r, SUP_RUNNING);
    room_wait_text(r, "ready");
    room_find_supervisor(r);
    note_device(r);
    assert_int_equal(kill(r->supervisor, SIGKILL), 0);
    WAIT_UNTIL(!exists((pid_t)r->state.pid));
    WAIT_UNTIL(!is_mounted(r));
    assert_int_equal(supervisor_dial(r->data, ROOM_TASK, &fd, NULL), ERR_CLOSED);
    supervisor_forget(r->data, ROOM_TASK);
    assert_int_equal(supervisor_dial(r->data, ROOM_TASK, &fd, NULL), ERR_NOT_FOUND);
    (void)close(r->fd);
    r->fd = -1;
}

static void the_supervisor_has_no_copy_of_a_value_and_is_not_readable(void **state) {
    struct room *r = *state;
    char path[64];
    room_start_shell(r, "echo ready; exec sleep 600");
    room_wait(r, SUP_RUNNING);
    room_find_supervisor(r);
    /* Root may look, with its rights over processes: so the memory itself is searched. */
    (void)snprintf(path, sizeof path, "/proc/%d/maps", (int)r->supervisor);
    struct buf maps = buf_new(1 * MIB);
    read_all(path, &maps);
    assert_int_equal(buf_u8(&maps, 0), OK);
    (void)snprintf(path, sizeof path, "/proc/%d/mem", (int)r->supervisor);
    int mem = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(mem >= 0);
    size_t searched = 0;
    for (char *line = (char *)maps.at; line && *line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        unsigned long from, to;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) != 3 || rights[1] != 'w') continue;
        if (to - from > SEARCHED_MAX) continue; /* a sanitizer's own */
        uint8_t *piece = malloc(to - from);
        assert_non_null(piece);
        ssize_t n = pread(mem, piece, to - from, (off_t)from);
        if (n > 0) searched += (size_t)n;
        if (n > 0) assert_null(memmem(piece, (size_t)n, ROOM_VALUE, strlen(ROOM_VALUE)));
        free(piece);
    }
    assert_true(searched > 64 * KIB);
    (void)close(mem);
    buf_free(&maps);
}

/* --- what can't be run ------------------------------------------------------------------------ */

static void what_cannot_be_started_is_rejected_with_the_reason(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    struct buf command = buf_new(4096);
    room_words(&command, (const char *const[]){"no-such-command", NULL});
    o.command = buf_span(&command);
    room_send_order(r, &o);
    room_expect_rejected(r, "no-such-command can't be started");
    buf_free(&command);
}

static void an_image_that_is_not_there_is_rejected(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    (void)snprintf(o.image, sizeof o.image, "/nowhere");
    room_send_shell(r, &o, "true");
    room_expect_rejected(r, "/nowhere is no root file system of this node");
}

static void an_unknown_user_is_rejected(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    (void)snprintf(o.user, sizeof o.user, "nobody-knows");
    room_send_shell(r, &o, "true");
    room_expect_rejected(r, "no user 'nobody-knows'");
}

static void a_mount_of_the_data_directory_is_rejected(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    struct buf mounts = buf_new(4096);
    room_add_mount(&mounts, false, "/var/tmp", "/tmp/m");
    o.mounts = buf_span(&mounts);
    room_send_shell(r, &o, "true");
    room_expect_rejected(r, "data directory");
    buf_free(&mounts);
}

static void a_file_for_a_place_that_cannot_be_made_is_rejected(void **state) {
    struct room *r = *state;
    struct sup_order o = room_order(r);
    struct sup_file f = room_file("/etc/not/there", "v", 1);
    room_send_shell(r, &o, "true");
    room_send_file(r, &f, "v");
    room_expect_rejected(r, "/etc/not/there");
}

int main(int argc, char **argv) {
    int code;
    if (room_main(argc, argv, &code)) return code;
#define CASE(f) cmocka_unit_test_setup_teardown(f, room_set_up, room_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_task_reads_its_secret_on_memory_that_is_never_swapped),
        CASE(owner_and_mode_are_as_asked_and_others_may_not_read),
        CASE(nothing_of_the_node_can_be_written_and_no_disk_is_there),
        CASE(other_tasks_and_the_data_directory_are_not_there),
        CASE(files_of_other_places_and_mounts_are_bound),
        CASE(an_image_of_its_own_is_the_root),
        CASE(the_data_directory_is_hidden_wherever_it_shows),
        CASE(a_followed_file_is_replaced_at_once_and_the_task_is_told),
        CASE(a_task_that_does_not_catch_the_signal_goes_on),
        CASE(stop_is_a_signal_and_after_the_grace_a_kill),
        CASE(a_task_without_a_handler_ends_by_its_stop_signal),
        CASE(another_agent_takes_over),
        CASE(the_end_is_kept_until_somebody_has_heard_it),
        CASE(last_words_of_an_agent_that_is_gone_are_heard),
        CASE(killing_the_task_leaves_nothing),
        CASE(killing_the_supervisor_ends_the_task_and_leaves_no_mount),
        CASE(the_supervisor_has_no_copy_of_a_value_and_is_not_readable),
        CASE(what_cannot_be_started_is_rejected_with_the_reason),
        CASE(an_image_that_is_not_there_is_rejected),
        CASE(an_unknown_user_is_rejected),
        CASE(a_mount_of_the_data_directory_is_rejected),
        CASE(a_file_for_a_place_that_cannot_be_made_is_rejected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
