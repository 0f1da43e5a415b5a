/* The node's side of assignments with real supervisors and tasks, and with a manager made by hand:
 * what is assigned runs, what follows changes, what is removed ends, and another agent finds all of
 * it. Needs root. The program is its own supervisor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/task/runner_parts.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/scratch.h"

#define WAIT_MS 20000
#define TASK    "task0000000000000000000aa"
#define OTHER   "task0000000000000000000bb"
#define SECRET  "secret0000000000000000000"
#define SERVICE "service000000000000000000"

struct room {
    struct scratch scratch;
    struct log log;
    uv_loop_t loop;
    struct manager *manager;
    uint64_t results; /* of the last assignment */
    bool ended;
};

static struct room *room;
static enum task_state desired; /* of the next task that is added */

static void no_wake(void *ctx) { (void)ctx; }

static uint64_t now_ms(struct clock *c) {
    (void)c;
    return uv_hrtime() / 1000000;
}

static int set_up(void **state) {
    room = calloc(1, sizeof *room);
    assert_non_null(room);
    desired = TASK_RUNNING;
    scratch_new(&room->scratch);
    log_open(&room->log, STDERR_FILENO, LOG_ERROR);
    assert_int_equal(uv_loop_init(&room->loop), 0);
    struct manager *m = room->manager = calloc(1, sizeof *m);
    assert_non_null(m);
    m->config =
        (struct manager_config){.loop = &room->loop, .log = &room->log, .data = room->scratch.path};
    m->env.wake = no_wake;
    m->clock.now_ms = now_ms;
    (void)snprintf(m->self.name, sizeof m->self.name, "node-1");
    assert_int_equal(runner_open(m, NULL), OK);
    *state = room;
    return 0;
}

static void turn(void) {
    (void)uv_run(&room->loop, UV_RUN_NOWAIT);
    runner_step(room->manager);
    (void)poll(NULL, 0, 2);
    runner_beat(room->manager);
}

#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        uint64_t until_ = uv_hrtime() / 1000000 + WAIT_MS;                                         \
        while (!(condition)) {                                                                     \
            if (uv_hrtime() / 1000000 > until_) fail_msg("never: %s", #condition);                 \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

static void on_ended(struct manager *m) {
    (void)m;
    room->ended = true;
}

static int tear_down(void **state) {
    (void)state;
    runner_end(room->manager, on_ended);
    WAIT_UNTIL(room->ended);
    runner_close(room->manager);
    (void)uv_run(&room->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&room->loop), 0);
    free(room->manager);
    char path[64];
    (void)snprintf(path, sizeof path, "%s/tasks", room->scratch.path);
    for (int i = 0; rmdir(path) != 0; i++) { /* supervisors remove their sockets at their end */
        if (i > WAIT_MS / 10) fail_msg("sockets are left");
        (void)poll(NULL, 0, 10);
    }
    scratch_free(&room->scratch);
    free(room);
    return 0;
}

/* --- the manager's words
 * ----------------------------------------------------------------------- */

static struct buf body;

static void begin(enum assign_type type, uint64_t applies_to, bool last) {
    struct assign_head head = {
        .type = type, .applies_to = applies_to, .results_in = room->results + 1, .last = last};
    body = buf_new(SESSION_BODY_MAX);
    assert_int_equal(assign_begin(&body, &head), OK);
}

static void say(enum err expected) {
    struct why why = {0};
    enum err e = runner_message(room->manager, NODE_ASSIGN, buf_span(&body), &why);
    if (e != expected) fail_msg("%d: %s", e, why.text);
    buf_free(&body);
}

static void done(void) {
    say(OK);
    room->results++;
}

static void add_task(const char *id, const char *script, uint32_t version, bool templated) {
    struct assign_task *t = calloc(1, sizeof *t);
    struct buf command = buf_new(4096);
    assert_non_null(t);
    const char *const words[] = {"/bin/sh", "-c", script};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        assert_int_equal(buf_block(&command, span_str(words[i])), OK);
    *t = (struct assign_task){.desired = desired,
                              .slot = 1,
                              .image = "host",
                              .command = buf_span(&command),
                              .stop_signal = SIGTERM,
                              .reload_signal = SIGHUP,
                              .stop_grace_ns = 5000000000,
                              .n = version > 0};
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    (void)snprintf(t->name, sizeof t->name, "web.1.%s", id);
    (void)snprintf(t->service_id, sizeof t->service_id, SERVICE);
    (void)snprintf(t->service_name, sizeof t->service_name, "web");
    struct assign_file *f = &t->files[0];
    *f = (struct assign_file){.kind = ROW_SECRET,
                              .id = SECRET,
                              .name = "db",
                              .target = "db",
                              .mode = 0444,
                              .version = version,
                              .follows = true,
                              .templated = templated};
    assert_int_equal(assign_add_task(&body, t), OK);
    buf_free(&command);
    free(t);
}

static void add_value(const char *text, uint32_t version) {
    struct assign_value v = {
        .kind = ROW_SECRET, .id = SECRET, .version = version, .bytes = span_str(text)};
    assert_int_equal(assign_add_value(&body, &v), OK);
}

static struct run_task *task(const char *id) { return job_find(room->manager->runner, id); }

static enum task_state state_of(const char *id) {
    const struct run_task *t = task(id);
    return t ? t->report.state : TASK_NEW;
}

/* What the task has in its file. */
static bool reads(const char *id, const char *text) {
    char path[64], bytes[256] = "";
    const struct run_task *t = task(id);
    (void)snprintf(path, sizeof path, "/proc/%u/root/run/secrets/db", t->told ? t->told->pid : 0);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, bytes, sizeof bytes - 1) : -1;
    if (fd >= 0) (void)close(fd);
    return n >= 0 && strcmp(bytes, text) == 0;
}

static void start_one(void) {
    begin(ASSIGN_COMPLETE, 0, true);
    add_value("one", 1);
    add_task(TASK, "exec sleep 600", 1, false);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
}

/* --- the cases
 * --------------------------------------------------------------------------------- */

static void what_is_assigned_runs_and_has_its_values(void **state) {
    (void)state;
    start_one();
    assert_true(reads(TASK, "one"));
    assert_true(task(TASK)->report.pid > 0);
}

static void a_followed_file_gets_the_new_version(void **state) {
    (void)state;
    start_one();
    begin(ASSIGN_INCREMENTAL, room->results, true);
    assert_int_equal(assign_remove_value(&body, ROW_SECRET, SECRET, 1), OK);
    add_value("two", 2);
    add_task(TASK, "exec sleep 600", 2, false);
    done();
    WAIT_UNTIL(reads(TASK, "two"));
    assert_int_equal(room->manager->runner->values.n, 1);
    assert_int_equal(state_of(TASK), TASK_RUNNING);
}

static void templates_are_expanded_here(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    add_value("{{.Service.Name}} on {{.Node.Hostname}}", 1);
    add_task(TASK, "exec sleep 600", 1, true);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
    assert_true(reads(TASK, "web on node-1"));
    begin(ASSIGN_INCREMENTAL, room->results, true);
    add_value("{{.Nothing}}", 2);
    add_task(OTHER, "exec sleep 600", 2, true);
    done();
    WAIT_UNTIL(state_of(OTHER) == TASK_REJECTED);
    assert_non_null(strstr(task(OTHER)->report.error, "db: template, action 1"));
}

static void follow(const char *text, uint32_t version) {
    begin(ASSIGN_INCREMENTAL, room->results, true);
    assert_int_equal(assign_remove_value(&body, ROW_SECRET, SECRET, version - 1), OK);
    add_value(text, version);
    add_task(TASK, "exec sleep 600", version, true);
    done();
}

/* A value that has itself twice in it, and its own blanks: of `size` bytes when expanded. */
static char *of_size(const char *template, size_t blanks, size_t size) {
    size_t own = strlen(template);
    char *text = malloc(own + blanks + 1);
    assert_non_null(text);
    memcpy(text, template, own);
    memset(text + own, ' ', blanks);
    text[own + blanks] = '\0';
    assert_int_equal(2 * (own + blanks) + blanks, size);
    return text;
}

static off_t size_of(const char *id) {
    char path[64];
    struct stat st = {0};
    (void)snprintf(path, sizeof path, "/proc/%u/root/run/secrets/db", task(id)->told->pid);
    return stat(path, &st) == 0 ? st.st_size : -1;
}

static void a_template_expands_to_the_largest_file_and_no_further(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    add_value("one", 1);
    add_task(TASK, "exec sleep 600", 1, true);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
    uint32_t pid = task(TASK)->report.pid;
    char *largest = of_size("{{secret \"db\"}}{{secret \"db\"}}", 341313, CONFIG_SIZE_MAX);
    follow(largest, 2);
    WAIT_UNTIL(size_of(TASK) == CONFIG_SIZE_MAX);
    char *more = of_size("{{secret \"db\"}}{{secret \"db\"}}{{/**/}}", 341308, CONFIG_SIZE_MAX + 1);
    follow(more, 3);
    for (int i = 0; i < 50; i++)
        turn();
    assert_int_equal(size_of(TASK), CONFIG_SIZE_MAX);
    follow("four", 4);
    WAIT_UNTIL(reads(TASK, "four"));
    assert_int_equal(state_of(TASK), TASK_RUNNING);
    assert_int_equal(task(TASK)->report.pid, pid);
    free(largest);
    free(more);
}

static void a_task_whose_value_has_not_come_is_rejected(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    add_task(TASK, "exec sleep 600", 1, false);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_REJECTED);
    assert_non_null(strstr(task(TASK)->report.error, "has not come"));
}

static void how_a_task_ends_is_reported_until_it_is_removed(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    add_task(TASK, "exit 5", 0, false);
    add_task(OTHER, "exit 0", 0, false);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_FAILED && state_of(OTHER) == TASK_COMPLETE);
    assert_int_equal(task(TASK)->report.exit_code, 5);
    assert_string_equal(task(TASK)->report.error, "task: non-zero exit (5)");
    begin(ASSIGN_INCREMENTAL, room->results, true);
    assert_int_equal(assign_remove_task(&body, TASK), OK);
    done();
    WAIT_UNTIL(!task(TASK));
    assert_non_null(task(OTHER));
}

static void what_is_removed_ends_and_its_value_goes(void **state) {
    (void)state;
    start_one();
    pid_t pid = (pid_t)task(TASK)->report.pid;
    begin(ASSIGN_INCREMENTAL, room->results, true);
    assert_int_equal(assign_remove_task(&body, TASK), OK);
    assert_int_equal(assign_remove_value(&body, ROW_SECRET, SECRET, 1), OK);
    done();
    WAIT_UNTIL(!task(TASK));
    assert_int_not_equal(kill(pid, 0), 0);
    assert_int_equal(room->manager->runner->values.n, 0);
}

static void say_in_parts(enum assign_type type) {
    begin(type, room->results, false);
    add_task(TASK, "exec sleep 600", 1, false);
    say(OK);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(state_of(TASK), TASK_NEW);
    begin(type, room->results, true);
    add_value("one", 1);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
}

static void parts_take_effect_with_the_last_one(void **state) {
    (void)state;
    say_in_parts(ASSIGN_COMPLETE);
}

static void parts_of_a_later_assignment_do_so_too(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    done();
    say_in_parts(ASSIGN_INCREMENTAL);
}

/* The last part does not come: the node is removed. */
static void nothing_is_left_of_a_part_when_the_node_is_removed(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    done();
    begin(ASSIGN_INCREMENTAL, room->results, false);
    add_task(TASK, "exec sleep 600", 1, false);
    say(OK);
    runner_lost(room->manager, true);
    WAIT_UNTIL(!task(TASK));
}

static void what_a_cut_off_assignment_had_is_forgotten(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, false);
    add_task(TASK, "exec sleep 600", 1, false);
    say(OK);
    runner_lost(room->manager, false);
    runner_session(room->manager);
    begin(ASSIGN_COMPLETE, 0, true);
    add_task(OTHER, "exec sleep 600", 0, false);
    done();
    WAIT_UNTIL(state_of(OTHER) == TASK_RUNNING);
    assert_true(!task(TASK) || !task(TASK)->assigned);
    assert_int_equal(state_of(TASK) < TASK_STARTING || state_of(TASK) == TASK_SHUTDOWN, true);
}

/* --- no room ---------------------------------------------------------------------------------- */

static void a_value_too_many_leaves_the_rest_of_its_part(void **state) {
    (void)state;
    start_one();
    struct values *values = &room->manager->runner->values;
    values->bytes += RUNNER_BYTES_MAX;
    begin(ASSIGN_INCREMENTAL, room->results, true);
    add_value("two", 2);
    desired = TASK_SHUTDOWN;
    add_task(TASK, "exec sleep 600", 1, false);
    desired = TASK_RUNNING;
    add_task(OTHER, "exec sleep 600", 2, false);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_SHUTDOWN && state_of(OTHER) == TASK_REJECTED);
    assert_string_equal(task(OTHER)->report.error, "db: no room for another secret on this node");
    values->bytes -= RUNNER_BYTES_MAX;
}

static void a_task_too_many_is_rejected_and_the_others_go_on(void **state) {
    (void)state;
    struct runner *r = room->manager->runner;
    struct task_report report;
    bool more;
    start_one();
    uint32_t pid = task(TASK)->report.pid;
    unsigned others = RUNNER_JOBS_MAX - r->n;
    r->n += others;
    runner_lost(room->manager, false);
    runner_session(room->manager);
    begin(ASSIGN_COMPLETE, 0, true);
    add_task(OTHER, "exec sleep 600", 0, false);
    add_value("one", 1);
    add_task(TASK, "exec sleep 600", 1, false);
    done();
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(state_of(TASK), TASK_RUNNING);
    assert_int_equal(task(TASK)->report.pid, pid);
    assert_null(task(OTHER));
    struct cursor said = cursor_of(buf_span(&r->turned_away)); /* once there is a session */
    assert_int_equal(report_next(&said, &report, &more), OK);
    assert_true(more);
    assert_string_equal(report.id, OTHER);
    assert_int_equal(report.state, TASK_REJECTED);
    assert_string_equal(report.error, "no room for another task on this node");
    assert_int_equal(cursor_end(&said), OK);
    r->n -= others;
}

/* --- sessions --------------------------------------------------------------------------------- */

static void an_increment_that_does_not_fit_changes_nothing(void **state) {
    (void)state;
    start_one();
    begin(ASSIGN_INCREMENTAL, room->results + 7, true);
    assert_int_equal(assign_remove_task(&body, TASK), OK);
    say(OK);
    assert_false(room->manager->runner->synced); /* COMPLETE was asked for */
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(state_of(TASK), TASK_RUNNING);
    begin(ASSIGN_COMPLETE, 0, true);
    done();
    WAIT_UNTIL(!task(TASK)); /* and it does not name it */
}

static void nonsense_ends_the_session(void **state) {
    (void)state;
    body = buf_new(64);
    assert_int_equal(buf_add(&body, "\x09nonsense", 9), OK);
    say(ERR_PROTOCOL);
}

/* What a manager says of a task whose service it knows no more. */
static void add_end(const char *id) {
    struct assign_task *t = calloc(1, sizeof *t);
    assert_non_null(t);
    *t = (struct assign_task){
        .desired = TASK_SHUTDOWN, .stop_signal = SIGTERM, .reload_signal = SIGHUP};
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    (void)snprintf(t->service_id, sizeof t->service_id, SERVICE);
    assert_int_equal(assign_add_task(&body, t), OK);
    free(t);
}

static void a_task_keeps_its_grace_when_its_service_is_gone(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    add_task(TASK, "trap '' TERM; while :; do sleep 600; done", 0, false);
    done();
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
    task(TASK)->task->stop_grace_ns = 100000000;
    uint64_t since_ms = now_ms(NULL);
    begin(ASSIGN_INCREMENTAL, room->results, true);
    add_end(TASK);
    done();
    assert_true(task(TASK)->task->stop_grace_ns == 100000000);
    WAIT_UNTIL(state_of(TASK) == TASK_SHUTDOWN);
    assert_true(now_ms(NULL) - since_ms >= 100);
}

static void another_agent_goes_on_with_what_runs(void **state) {
    (void)state;
    start_one();
    uint32_t pid = task(TASK)->report.pid;
    runner_close(room->manager);
    assert_int_equal(runner_open(room->manager, NULL), OK);
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
    assert_int_equal(task(TASK)->report.pid, pid);
    for (int i = 0; i < 20; i++) /* nothing is ended before the first COMPLETE */
        turn();
    assert_int_equal(state_of(TASK), TASK_RUNNING);
    begin(ASSIGN_COMPLETE, 0, true);
    add_value("two", 2);
    add_task(TASK, "exec sleep 600", 2, false);
    done();
    WAIT_UNTIL(reads(TASK, "two"));
    assert_int_equal(task(TASK)->report.pid, pid);
}

static void a_supervisor_that_hangs_up_is_called_again(void **state) {
    (void)state;
    start_one();
    uint32_t pid = task(TASK)->report.pid;
    link_say(task(TASK)->link, (enum sup_kind)99, span_of(NULL, 0)); /* it does not know that */
    for (int i = 0; !task(TASK)->gone; i++) {
        if (i > WAIT_MS / 2) fail_msg("it does not hang up");
        (void)uv_run(&room->loop, UV_RUN_NOWAIT);
        (void)poll(NULL, 0, 2);
    }
    turn();
    WAIT_UNTIL(task(TASK)->link && task(TASK)->told);
    assert_int_equal(state_of(TASK), TASK_RUNNING);
    assert_int_equal(task(TASK)->report.pid, pid);
    follow("two", 2);
    WAIT_UNTIL(reads(TASK, "two"));
    begin(ASSIGN_INCREMENTAL, room->results, true);
    assert_int_equal(assign_remove_task(&body, TASK), OK);
    done();
    WAIT_UNTIL(!task(TASK));
    assert_int_not_equal(kill((pid_t)pid, 0), 0);
}

static void a_supervisor_that_is_killed_is_a_task_that_failed(void **state) {
    (void)state;
    struct ucred who;
    socklen_t size = sizeof who;
    int fd;
    start_one();
    assert_int_equal(supervisor_dial(room->scratch.path, TASK, &fd, NULL), OK);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size), 0);
    (void)close(fd);
    assert_int_equal(kill(who.pid, SIGKILL), 0);
    WAIT_UNTIL(state_of(TASK) == TASK_FAILED);
    assert_string_equal(task(TASK)->report.message, "its supervisor is gone");
}

static void one_that_died_while_no_agent_was_there_failed_too(void **state) {
    (void)state;
    struct ucred who;
    socklen_t size = sizeof who;
    int fd;
    start_one();
    assert_int_equal(supervisor_dial(room->scratch.path, TASK, &fd, NULL), OK);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size), 0);
    runner_close(room->manager);
    assert_int_equal(kill(who.pid, SIGKILL), 0);
    while (kill(who.pid, 0) == 0)
        (void)poll(NULL, 0, 2);
    (void)close(fd);
    assert_int_equal(runner_open(room->manager, NULL), OK);
    WAIT_UNTIL(state_of(TASK) == TASK_FAILED);
}

static void a_node_that_was_removed_ends_all(void **state) {
    (void)state;
    start_one();
    runner_lost(room->manager, false);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(state_of(TASK), TASK_RUNNING); /* a lost session changes nothing */
    runner_lost(room->manager, true);
    WAIT_UNTIL(!task(TASK));
    assert_int_equal(room->manager->runner->values.n, 0);
}

static void a_task_waits_for_its_time(void **state) {
    (void)state;
    begin(ASSIGN_COMPLETE, 0, true);
    add_task(TASK, "exec sleep 600", 0, false);
    done();
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    task(TASK)->task->not_before_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec + 300000000;
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(state_of(TASK), TASK_ACCEPTED);
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
}

/* What an assignment has not yet brought is no reason to reject a task. */
static void a_task_whose_time_comes_within_an_assignment_waits_for_its_end(void **state) {
    (void)state;
    static const enum assign_type types[] = {ASSIGN_INCREMENTAL, ASSIGN_COMPLETE};
    begin(ASSIGN_COMPLETE, 0, true);
    add_value("one", 1);
    add_task(TASK, "exec sleep 600", 1, false);
    done();
    task(TASK)->task->not_before_ns = INT64_MAX;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        begin(types[i], types[i] == ASSIGN_COMPLETE ? 0 : room->results, false);
        if (types[i] == ASSIGN_INCREMENTAL)
            assert_int_equal(assign_remove_value(&body, ROW_SECRET, SECRET, 1), OK);
        say(OK);
        task(TASK)->task->not_before_ns = 0;
        for (int k = 0; k < 20; k++)
            turn();
        assert_int_equal(state_of(TASK), TASK_ACCEPTED);
        task(TASK)->task->not_before_ns = INT64_MAX;
        begin(types[i], types[i] == ASSIGN_COMPLETE ? 0 : room->results, true);
        add_value("two", 1);
        if (types[i] == ASSIGN_COMPLETE) add_task(TASK, "exec sleep 600", 1, false);
        done();
    }
    WAIT_UNTIL(state_of(TASK) == TASK_RUNNING);
    assert_true(reads(TASK, "two"));
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "task-supervisor") == 0)
        return supervisor_serve(NULL) == OK ? 0 : 1;
    if (geteuid() != 0) {
        (void)puts("skip: needs root");
        return 0;
    }
    if (crypto_start(NULL) != OK) return 1;
    (void)signal(SIGPIPE, SIG_IGN); /* as in the agent */
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(what_is_assigned_runs_and_has_its_values),
        CASE(a_followed_file_gets_the_new_version),
        CASE(templates_are_expanded_here),
        CASE(a_template_expands_to_the_largest_file_and_no_further),
        CASE(a_task_whose_value_has_not_come_is_rejected),
        CASE(how_a_task_ends_is_reported_until_it_is_removed),
        CASE(what_is_removed_ends_and_its_value_goes),
        CASE(parts_take_effect_with_the_last_one),
        CASE(parts_of_a_later_assignment_do_so_too),
        CASE(nothing_is_left_of_a_part_when_the_node_is_removed),
        CASE(what_a_cut_off_assignment_had_is_forgotten),
        CASE(a_value_too_many_leaves_the_rest_of_its_part),
        CASE(a_task_too_many_is_rejected_and_the_others_go_on),
        CASE(an_increment_that_does_not_fit_changes_nothing),
        CASE(nonsense_ends_the_session),
        CASE(a_task_keeps_its_grace_when_its_service_is_gone),
        CASE(another_agent_goes_on_with_what_runs),
        CASE(a_supervisor_that_hangs_up_is_called_again),
        CASE(a_supervisor_that_is_killed_is_a_task_that_failed),
        CASE(one_that_died_while_no_agent_was_there_failed_too),
        CASE(a_node_that_was_removed_ends_all),
        CASE(a_task_waits_for_its_time),
        CASE(a_task_whose_time_comes_within_an_assignment_waits_for_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
