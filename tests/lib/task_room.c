/* See task_room.h: frames by hand, each wait with a limit, the room cleared at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/task_room.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* --- the agent's side ------------------------------------------------------------------------- */

void room_say(struct room *r, enum sup_kind kind, struct span body) {
    struct buf frame = buf_new(SUP_FRAME_MAX + SUP_HEAD);
    assert_int_equal(sup_frame(&frame, kind, body), OK);
    for (size_t at = 0; at < frame.size;) {
        struct pollfd p = {.fd = r->fd, .events = POLLOUT};
        assert_int_equal(poll(&p, 1, ROOM_WAIT_MS), 1);
        ssize_t n = send(r->fd, frame.at + at, frame.size - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) continue;
        assert_true(n > 0);
        at += (size_t)n;
    }
    buf_free(&frame);
}

static void take(struct room *r, void *at, size_t size) {
    for (size_t n = 0; n < size;) {
        struct pollfd p = {.fd = r->fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, ROOM_WAIT_MS), 1);
        ssize_t got = recv(r->fd, (uint8_t *)at + n, size - n, 0);
        if (got < 0 && errno == EAGAIN) continue;
        if (got <= 0) fail_msg("the supervisor hung up");
        n += (size_t)got;
    }
}

enum sup_kind room_hear(struct room *r) {
    uint8_t head[4];
    take(r, head, sizeof head);
    size_t size = get_u32(head);
    assert_in_range(size, 1, SUP_FRAME_MAX);
    uint8_t *frame = malloc(size);
    assert_non_null(frame);
    take(r, frame, size);
    enum sup_kind kind = (enum sup_kind)frame[0];
    struct span body = span_of(frame + 1, size - 1);
    if (kind == SUP_STATE) assert_int_equal(sup_state_decode(body, &r->state), OK);
    if (kind == SUP_OUTPUT) {
        buf_clear(&r->text);
        assert_int_equal(buf_add_span(&r->text, body), OK);
        assert_int_equal(buf_u8(&r->text, 0), OK);
    }
    free(frame);
    return kind;
}

void room_wait(struct room *r, enum sup_phase phase) {
    while (r->state.phase != phase) {
        if (r->state.phase == SUP_REJECTED || r->state.phase == SUP_ENDED || r->state.error[0])
            fail_msg("phase %d, not %d: %s", r->state.phase, phase, r->state.error);
        (void)room_hear(r);
    }
}

const char *room_output(struct room *r) {
    room_say(r, SUP_LOGS, span_of(NULL, 0));
    while (room_hear(r) != SUP_OUTPUT)
        continue;
    return (const char *)r->text.at;
}

void room_wait_text(struct room *r, const char *text) {
    for (int i = 0; i < ROOM_WAIT_MS / 10; i++) {
        if (strstr(room_output(r), text)) return;
        if (r->state.error[0]) fail_msg("%s", r->state.error);
        (void)poll(NULL, 0, 10);
    }
    fail_msg("'%s' is not in '%s'", text, (const char *)r->text.at);
}

void room_words(struct buf *out, const char *const list[]) {
    for (; *list; list++)
        assert_int_equal(buf_block(out, span_str(*list)), OK);
}

struct sup_order room_order(const struct room *r) {
    struct sup_order o = {
        .id = ROOM_TASK, .image = "host", .stop_signal = SIGTERM, .reload_signal = SIGHUP};
    (void)snprintf(o.data, sizeof o.data, "%s", r->data);
    return o;
}

void room_send_order(struct room *r, const struct sup_order *o) {
    struct buf body = buf_new(SUP_FRAME_MAX);
    assert_int_equal(sup_order_encode(o, &body), OK);
    room_say(r, SUP_ORDER, buf_span(&body));
    buf_free(&body);
}

void room_add_mount(struct buf *mounts, bool read_only, const char *source, const char *target) {
    struct buf one = buf_new(2 * SUP_PATH_MAX);
    assert_int_equal(buf_u8(&one, read_only), OK);
    assert_int_equal(buf_block(&one, span_str(source)), OK);
    assert_int_equal(buf_block(&one, span_str(target)), OK);
    assert_int_equal(buf_block(mounts, buf_span(&one)), OK);
    buf_free(&one);
}

struct sup_file room_file(const char *target, const char *value, uint32_t version) {
    struct sup_file f = {.kind = ROW_SECRET, .id = "s", .version = version, .mode = 0444};
    (void)snprintf(f.target, sizeof f.target, "%s", target);
    f.size = (uint32_t)strlen(value);
    return f;
}

void room_send_file(struct room *r, const struct sup_file *f, const char *value) {
    struct buf body = buf_new(4096);
    assert_int_equal(sup_file_encode(f, &body), OK);
    room_say(r, SUP_FILE, buf_span(&body));
    buf_free(&body);
    struct span left = span_of(value, f->size);
    while (left.size > 0) {
        size_t n = left.size < SUP_DATA_MAX ? left.size : SUP_DATA_MAX;
        room_say(r, SUP_DATA, span_of(left.at, n));
        left = span_of(left.at + n, left.size - n);
    }
}

void room_send_shell(struct room *r, struct sup_order *o, const char *script) {
    struct buf command = buf_new(64 * KIB);
    room_words(&command, (const char *const[]){"/bin/sh", "-c", script, NULL});
    o->command = buf_span(&command);
    room_send_order(r, o);
    buf_free(&command);
}

void room_start_shell(struct room *r, const char *script) {
    struct sup_order o = room_order(r);
    struct sup_file f = room_file("db", ROOM_VALUE, 1);
    room_send_shell(r, &o, script);
    room_send_file(r, &f, ROOM_VALUE);
    room_say(r, SUP_START, span_of(NULL, 0));
}

const char *room_run_shell(struct room *r, const char *script) {
    room_start_shell(r, script);
    room_wait(r, SUP_ENDED);
    return room_output(r);
}

void room_find_supervisor(struct room *r) {
    struct ucred who = {0};
    socklen_t size = sizeof who;
    int fd;
    assert_int_equal(supervisor_dial(r->data, ROOM_TASK, &fd, NULL), OK);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size), 0);
    r->supervisor = who.pid;
    (void)close(fd);
}

static bool shares_mounts(pid_t pid) {
    char path[64], theirs[64], ours[64];
    (void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
    ssize_t n = readlink(path, theirs, sizeof theirs),
            m = readlink("/proc/self/ns/mnt", ours, sizeof ours);
    return n > 0 && n == m && memcmp(theirs, ours, (size_t)n) == 0;
}

static int open_of_task(const struct room *r, const char *path, int flags) {
    char whole[SUP_PATH_MAX];
    (void)snprintf(whole, sizeof whole, "/proc/%u/root%s", r->state.pid, path);
    return open(whole, flags | O_CLOEXEC, 0644);
}

void room_go(const struct room *r) {
    int fd = open_of_task(r, "/tmp/go", O_CREAT | O_WRONLY);
    assert_true(fd >= 0);
    (void)close(fd);
}

uint64_t room_bytes(const struct room *r) {
    struct statfs st;
    int fd = open_of_task(r, "/run/secrets", O_RDONLY);
    assert_int_equal(fstatfs(fd, &st), 0);
    (void)close(fd);
    return (uint64_t)(st.f_blocks - st.f_bfree) * (uint64_t)st.f_bsize;
}

static size_t read_of_task(const struct room *r, const char *path, char bytes[256]) {
    int fd = open_of_task(r, path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, bytes, 256) : -1;
    if (fd >= 0) (void)close(fd);
    return n >= 0 ? (size_t)n : SIZE_MAX;
}

bool room_reads(const struct room *r, const char *path, const char *text) {
    char bytes[256];
    size_t n = read_of_task(r, path, bytes);
    return n == strlen(text) && memcmp(bytes, text, n) == 0;
}

bool room_begins(const struct room *r, const char *path, const char *text) {
    char bytes[256];
    size_t n = read_of_task(r, path, bytes);
    return n != SIZE_MAX && n >= strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

void room_stop(struct room *r, uint64_t grace_ms) {
    uint8_t grace[8];
    put_u64(grace, grace_ms);
    room_say(r, SUP_STOP, span_of(grace, sizeof grace));
}

/* --- life ------------------------------------------------------------------------------------- */

int room_set_up(void **state) {
    struct room *r = calloc(1, sizeof *r);
    struct why why = {0};
    assert_non_null(r);
    (void)snprintf(r->data, sizeof r->data, "/var/tmp/conclave-sup-XXXXXX");
    assert_non_null(mkdtemp(r->data));
    r->text = buf_new(SUP_OUTPUT_MAX + 1);
    if (supervisor_spawn(&r->fd, &why) != OK) fail_msg("%s", why.text);
    *state = r;
    return 0;
}

int room_tear_down(void **state) {
    struct room *r = *state;
    char path[128];
    if (r->fd >= 0) {
        bool over = r->state.phase == SUP_ENDED || r->state.phase == SUP_REJECTED;
        if (!over) room_stop(r, 0);
        while (r->state.phase != SUP_ENDED && r->state.phase != SUP_REJECTED)
            (void)room_hear(r);
        room_say(r, SUP_BYE, span_of(NULL, 0));
        (void)close(r->fd);
    }
    (void)snprintf(path, sizeof path, "%s/tasks/%s", r->data, ROOM_TASK);
    WAIT_UNTIL(access(path, F_OK) != 0);
    (void)snprintf(path, sizeof path, "%s/tasks", r->data);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(r->data), 0);
    buf_free(&r->text);
    free(r);
    return 0;
}

void room_expect_rejected(struct room *r, const char *text) {
    room_say(r, SUP_START, span_of(NULL, 0));
    while (r->state.phase != SUP_REJECTED) {
        if (r->state.phase == SUP_ENDED) fail_msg("it ran: %s", room_output(r));
        (void)room_hear(r);
    }
    if (!strstr(r->state.error, text)) fail_msg("'%s' is not in '%s'", text, r->state.error);
    room_find_supervisor(r); /* it is back where it came from, so nobody is where its mounts were */
    assert_true(shares_mounts(r->supervisor));
}

bool room_main(int argc, char **argv, int *code) {
    *code = 0;
    if (argc > 1 && strcmp(argv[1], "task-supervisor") == 0) {
        *code = supervisor_serve(NULL) == OK ? 0 : 1;
        return true;
    }
    if (geteuid() == 0) return false;
    (void)puts("skip: needs root");
    return true;
}
