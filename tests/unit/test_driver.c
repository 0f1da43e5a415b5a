/* Drivers of secrets: the option that names them, the answers that are believed, programs and
 * sockets that answer, fail, say too much, hang or are not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/service/driver.h"

#define QUESTION "{\"SecretName\":\"db\"}"
#define FAST_MS  300 /* of those that hang */

static char dir[64];

static int set_up(void **state) {
    struct why why;
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/conclave-driver-XXXXXX");
    (void)signal(SIGPIPE, SIG_IGN); /* as main.c has it */
    return mkdtemp(dir) && crypto_start(&why) == OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return rmdir(dir);
}

/* --- the option ------------------------------------------------------------------------------- */

static void the_option_names_drivers(void **state) {
    (void)state;
    struct driver_table t = {0};
    struct why why = {0};
    assert_int_equal(driver_table_read(&t, "a=/x,b.c=/y/z=1", &why), OK);
    assert_int_equal(t.n, 2);
    assert_string_equal(driver_find(&t, "a")->path, "/x");
    assert_string_equal(driver_find(&t, "b.c")->path, "/y/z=1");
    assert_null(driver_find(&t, "b"));
    static const char *const bad[] = {"",      "a",         "a=",   "=/x",   "c=x",
                                      "c=/x,", "c=/x,c=/y", "a=/x", ",c=/x", "c=/"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct driver_table again = t;
        assert_int_equal(driver_table_read(&again, bad[i], &why), ERR_USAGE);
        assert_true(why.text[0] != '\0');
    }
    while (t.n < DRIVERS_MAX)
        t.at[t.n++] = (struct driver){.name = "x"};
    assert_int_equal(driver_table_read(&t, "y=/y", &why), ERR_USAGE);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void answer_is(const char *json, enum err e, const char *value, bool reuse) {
    struct secret *got = NULL;
    struct why why = {0};
    bool again = false;
    assert_int_equal(driver_answer(span_str(json), &got, &again, &why), e);
    if (e != OK) {
        assert_null(got);
        assert_true(why.text[0] != '\0');
        return;
    }
    assert_true(span_equal(secret_span(got), span_str(value)));
    assert_true(again == reuse);
    secret_free(got);
}

static void answers_are_checked(void **state) {
    (void)state;
    answer_is("{\"Value\":\"YWJj\"}", OK, "abc", true);
    answer_is("{\"Value\":\"YWJj\",\"DoNotReuse\":true,\"More\":[]}", OK, "abc", false);
    answer_is("{\"Value\":\"YWJj\",\"Err\":\"\"}", OK, "abc", true);
    answer_is("{\"Value\":\"YWJj\",\"Err\":\"no\"}", ERR_PRECONDITION, NULL, false);
    answer_is("{}", ERR_PROTOCOL, NULL, false);
    answer_is("{\"Value\":\"\"}", ERR_PROTOCOL, NULL, false);
    answer_is("{\"Value\":\"*\"}", ERR_INVALID, NULL, false);
    answer_is("{\"Value\":1}", ERR_INVALID, NULL, false);
    answer_is("{\"Value\":\"YWJj\",\"DoNotReuse\":7}", ERR_INVALID, NULL, false);
    answer_is("[]", ERR_PROTOCOL, NULL, false);
    answer_is("nonsense", ERR_PROTOCOL, NULL, false);
}

static void a_value_is_bounded(void **state) {
    (void)state;
    size_t size = (SECRET_SIZE_MAX / 3 + 1) * 4; /* decodes to a little more */
    char *json = malloc(size + 64);
    assert_non_null(json);
    int head = snprintf(json, 64, "{\"Value\":\"");
    memset(json + head, 'A', size);
    (void)snprintf(json + head + size, 16, "\"}");
    answer_is(json, ERR_TOO_LARGE, NULL, false);
    free(json);
}

/* --- programs --------------------------------------------------------------------------------- */

static enum err ask_it(const char *path, const char *value, char text[WHY_MAX]) {
    struct driver d = {.name = "d", .timeout_ms = FAST_MS * 10};
    struct secret *got = NULL;
    struct why why = {0};
    bool reuse = false;
    (void)snprintf(d.path, sizeof d.path, "%s", path);
    if (!value) d.timeout_ms = FAST_MS;
    enum err e = driver_ask(&d, span_str(QUESTION), &got, &reuse, &why);
    (void)snprintf(text, WHY_MAX, "%s", why.text);
    if (e == OK) assert_true(value && span_equal(secret_span(got), span_str(value)));
    if (e != OK) assert_null(got);
    secret_free(got);
    return e;
}

static enum err run_script(const char *script, const char *value, char text[WHY_MAX]) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/program", dir);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    (void)fprintf(f, "#!/bin/sh\n%s\n", script);
    (void)fchmod(fileno(f), 0700);
    (void)fclose(f);
    enum err e = ask_it(path, value, text);
    (void)unlink(path);
    return e;
}

static void a_program_answers(void **state) {
    (void)state;
    char text[WHY_MAX];
    assert_int_equal(run_script("read -r q; [ \"$q\" = '" QUESTION "' ] || exit 3\n"
                                "printf '{\"Value\":\"YWJj\"}'",
                                "abc", text),
                     OK);
    assert_int_equal(run_script("printf '{\"Value\":\"YWJj\"}'", "abc", text), OK); /* unread */
    /* Nothing of ours but the question: no variable of the environment, no further file. */
    assert_int_equal(setenv("CONCLAVE_TEST_LEAK", "1", 1), 0);
    assert_int_equal(run_script("[ -z \"$CONCLAVE_TEST_LEAK\" ] || exit 4\n"
                                "[ \"$(ls /proc/self/fd | wc -l)\" -le 4 ] || exit 5\n"
                                "printf '{\"Value\":\"YWJj\"}'",
                                "abc", text),
                     OK);
}

static void a_program_fails(void **state) {
    (void)state;
    char text[WHY_MAX];
    assert_int_equal(run_script("exit 7", "", text), ERR_PRECONDITION);
    assert_string_equal(text, "driver d: it has ended with 7");
    assert_int_equal(run_script("printf '{\"Value\":\"YWJj\"}'; exit 1", "abc", text),
                     ERR_PRECONDITION);
    assert_int_equal(run_script("kill -9 $$", "", text), ERR_PRECONDITION);
    assert_string_equal(text, "driver d: it was ended by signal 9");
    assert_int_equal(run_script("printf '{\"Err\":\"sealed\"}'", "", text), ERR_PRECONDITION);
    assert_string_equal(text, "driver d: sealed");
    assert_int_equal(run_script("head -c 3000000 /dev/zero", "", text), ERR_TOO_LARGE);
    assert_int_equal(ask_it("/nowhere/at/all", "", text), ERR_UNREACHABLE);
    assert_int_equal(ask_it("/tmp", "", text), ERR_UNREACHABLE);
    assert_int_equal(ask_it("/etc/passwd", "", text), ERR_UNREACHABLE); /* not to be run */
}

static int pid_in(const char *path) {
    int pid = 0;
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    (void)fclose(f);
    (void)unlink(path);
    return pid;
}

/* Killed with its group; whoever inherits it may take a moment to reap it. */
static bool is_gone(int pid) {
    for (unsigned i = 0; i < 500 && kill(pid, 0) == 0; i++)
        (void)poll(NULL, 0, 10);
    return kill(pid, 0) != 0;
}

/* And takes with it what it has started. */
static void a_program_that_hangs_is_ended(void **state) {
    (void)state;
    char text[WHY_MAX], script[256], pids[128];
    (void)snprintf(pids, sizeof pids, "%s/pid", dir);
    (void)snprintf(script, sizeof script, "/bin/sleep 100 &\necho $! > %s\nwait", pids);
    assert_int_equal(run_script(script, NULL, text), ERR_TIMEOUT);
    assert_string_equal(text, "driver d: no answer in time");
    assert_true(is_gone(pid_in(pids)));
    assert_int_equal(run_script("exec >&-\nexec /bin/sleep 100", NULL, text), ERR_PRECONDITION);
}

/* --- a socket --------------------------------------------------------------------------------- */

struct plugin {
    int fd;
    const char *answer; /* NULL: none */
    char heard[4096];
};

static void *run_plugin(void *ctx) {
    struct plugin *p = ctx;
    int fd = accept(p->fd, NULL, NULL);
    size_t size = 0;
    while (fd >= 0 && size < sizeof p->heard - 1 && !strstr(p->heard, "}")) {
        ssize_t n = read(fd, p->heard + size, sizeof p->heard - 1 - size);
        if (n <= 0) break;
        size += (size_t)n;
    }
    char head[128];
    if (p->answer) {
        (void)snprintf(head, sizeof head,
                       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n",
                       strlen(p->answer));
        (void)!write(fd, head, strlen(head));
        (void)!write(fd, p->answer, strlen(p->answer));
    }
    char byte;
    (void)!read(fd, &byte, 1); /* until the other side closes */
    (void)close(fd);
    return NULL;
}

static enum err ask_plugin(struct plugin *p, const char *value, char text[WHY_MAX]) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    pthread_t thread;
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s/plugin.sock", dir);
    p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(p->fd, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_plugin, p), 0);
    enum err e = ask_it(at.sun_path, value, text);
    (void)pthread_join(thread, NULL);
    (void)close(p->fd);
    (void)unlink(at.sun_path);
    return e;
}

static void a_plugin_answers_as_docker_asks(void **state) {
    (void)state;
    char text[WHY_MAX];
    struct plugin good = {.answer = "{\"Value\":\"YWJj\",\"Err\":\"\"}"};
    assert_int_equal(ask_plugin(&good, "abc", text), OK);
    assert_non_null(strstr(good.heard, "POST /SecretProvider.GetSecret HTTP/1.1\r\n"));
    assert_non_null(strstr(good.heard, QUESTION));
    struct plugin bad = {.answer = "{\"Err\":\"vault is sealed\"}"};
    assert_int_equal(ask_plugin(&bad, "", text), ERR_PRECONDITION);
    assert_string_equal(text, "driver d: vault is sealed");
    struct plugin silent = {.answer = NULL};
    enum err e = ask_plugin(&silent, NULL, text);
    assert_true(e == ERR_TIMEOUT || e == ERR_MAYBE_APPLIED);
}

/* --- the question ----------------------------------------------------------------------------- */

static void the_question_is_dockers(void **state) {
    (void)state;
    struct buf labels = buf_new(NODE_LABELS_BYTES), out = buf_new(64 * KIB);
    assert_int_equal(labels_add(&labels, span_str("k"), span_str("v\"")), OK);
    const struct driver_question q = {.secret_name = span_str("db"),
                                      .secret_labels = buf_span(&labels),
                                      .service_id = "sid",
                                      .service_name = span_str("web"),
                                      .service_hostname = "h",
                                      .task_id = "tid",
                                      .task_name = "web.1.tid",
                                      .task_image = "host",
                                      .node_id = "nid",
                                      .node_hostname = "host1"};
    assert_int_equal(driver_question_encode(&q, &out), OK);
    assert_true(span_equal(
        buf_span(&out),
        span_str("{\"SecretName\":\"db\",\"SecretLabels\":{\"k\":\"v\\\"\"},\"SecretOptions\":{},"
                 "\"ServiceID\":\"sid\",\"ServiceName\":\"web\",\"ServiceLabels\":{},"
                 "\"ServiceHostname\":\"h\",\"TaskID\":\"tid\",\"TaskName\":\"web.1.tid\","
                 "\"TaskImage\":\"host\",\"NodeID\":\"nid\",\"NodeHostname\":\"host1\"}")));
    buf_free(&labels);
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_option_names_drivers),
        cmocka_unit_test(answers_are_checked),
        cmocka_unit_test(a_value_is_bounded),
        cmocka_unit_test(a_program_answers),
        cmocka_unit_test(a_program_fails),
        cmocka_unit_test(a_program_that_hangs_is_ended),
        cmocka_unit_test(a_plugin_answers_as_docker_asks),
        cmocka_unit_test(the_question_is_dockers),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
