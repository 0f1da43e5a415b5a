/* See driver.h. A program is started with nothing of ours but the question: no environment, no
 * files, signals as at their default; it and what it has started are killed when its time is up.
 * Values pass through buffers that are reserved at once, and wiped. */
#include "api/service/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/client.h"
#include "api/json.h"
#include "api/manager.h"

#define QUESTION_MAX (512 * KIB)
#define STACK_WIPED  (64 * KIB)

/* --- the table -------------------------------------------------------------------------------- */

const struct driver *driver_find(const struct driver_table *t, const char *name) {
    for (unsigned i = 0; i < t->n; i++)
        if (strcmp(t->at[i].name, name) == 0) return &t->at[i];
    return NULL;
}

static RESULT read_one(struct driver_table *t, const char *text, size_t size, struct why *why) {
    struct driver d = {0};
    const char *equals = memchr(text, '=', size);
    size_t name = equals ? (size_t)(equals - text) : 0, path = equals ? size - name - 1 : 0;
    if (name < 1 || name > HELD_WORD_MAX || path < 2 || path >= DRIVER_PATH_MAX || equals[1] != '/')
        return fail_with(why, ERR_USAGE, "%.*s: this is not NAME=/PATH of a driver", (int)size,
                         text);
    memcpy(d.name, text, name);
    memcpy(d.path, equals + 1, path);
    if (driver_find(t, d.name))
        return fail_with(why, ERR_USAGE, "the driver %s is there twice", d.name);
    if (t->n == DRIVERS_MAX) return fail_with(why, ERR_USAGE, "more than %d drivers", DRIVERS_MAX);
    t->at[t->n++] = d;
    return OK;
}

RESULT driver_table_read(struct driver_table *t, const char *text, struct why *why) {
    for (;;) {
        size_t size = strcspn(text, ",");
        TRY(read_one(t, text, size, why));
        if (text[size] == '\0') return OK;
        text += size + 1;
    }
}

/* --- the question ----------------------------------------------------------------------------- */

static void put_labels(struct jout *j, const char *key, struct span labels) {
    struct cursor in = cursor_of(labels);
    struct span name, value;
    jout_key(j, key);
    jout_open(j, '{');
    while (labels_next(&in, &name, &value)) {
        jout_key_span(j, name);
        jout_text(j, value);
    }
    jout_close(j, '}');
}

static void put_span(struct jout *j, const char *key, struct span text) {
    jout_key(j, key);
    jout_text(j, text);
}

RESULT driver_question_encode(const struct driver_question *q, struct buf *out) {
    struct jout j;
    jout_start(&j, out);
    jout_open(&j, '{');
    put_span(&j, "SecretName", q->secret_name);
    put_labels(&j, "SecretLabels", q->secret_labels);
    put_labels(&j, "SecretOptions", q->secret_options);
    jout_put_text(&j, "ServiceID", q->service_id);
    put_span(&j, "ServiceName", q->service_name);
    put_labels(&j, "ServiceLabels", q->service_labels);
    jout_put_text(&j, "ServiceHostname", q->service_hostname);
    jout_put_text(&j, "TaskID", q->task_id);
    jout_put_text(&j, "TaskName", q->task_name);
    jout_put_text(&j, "TaskImage", q->task_image);
    jout_put_text(&j, "NodeID", q->node_id);
    jout_put_text(&j, "NodeHostname", q->node_hostname);
    jout_close(&j, '}');
    return jout_end(&j);
}

/* --- the answer ------------------------------------------------------------------------------- */

/* A stranger's text, as it may stand in a sentence. */
static void plain(const char *text, char out[200]) {
    size_t n = strnlen(text, 199);
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?';
    out[n] = '\0';
}

static RESULT take_value(const json_t *json, struct secret **value, struct why *why) {
    struct buf bytes = buf_new(SECRET_SIZE_MAX);
    enum err e = buf_reserve(&bytes, SECRET_SIZE_MAX);
    if (e == OK) e = jin_bytes(json, "Value", &bytes, why);
    if (e == OK && bytes.size == 0) e = fail_with(why, ERR_PROTOCOL, "it gives no value");
    if (e == OK) e = secret_new(bytes.at, bytes.size, value);
    buf_wipe(&bytes);
    return e;
}

RESULT driver_answer(struct span text, struct secret **value, bool *reuse, struct why *why) {
    json_t *json = NULL;
    bool not_again = false;
    char said[200];
    *value = NULL;
    if (jin_parse(text, &json, NULL) != OK)
        return fail_with(why, ERR_PROTOCOL, "its answer is not JSON as it should be");
    plain(jin_string(json, "Err"), said);
    enum err e = said[0] ? fail_with(why, ERR_PRECONDITION, "%s", said) : OK;
    if (e == OK) e = jin_bool(json, "DoNotReuse", &not_again, why);
    if (e == OK) e = take_value(json, value, why);
    jin_wipe(json);
    json_decref(json);
    *reuse = !not_again;
    return e;
}

/* --- a socket --------------------------------------------------------------------------------- */

static uint64_t patience_ms(const struct driver *d) {
    return d->timeout_ms > 0 ? d->timeout_ms : DRIVER_MS;
}

static RESULT ask_socket(const struct driver *d, struct span question, struct buf *answer,
                         struct why *why) {
    struct client *client = NULL;
    struct client_config config = {.socket_path = d->path};
    struct client_request request = {.method = HTTP_POST,
                                     .path = "/SecretProvider.GetSecret",
                                     .headers = "Content-Type: application/json\r\n",
                                     .body = question,
                                     .timeout_ms = patience_ms(d)};
    TRY(client_open(&config, &client, why));
    enum err e = client_call(client, &request, answer, why);
    client_close(client);
    return e;
}

/* --- a program -------------------------------------------------------------------------------- */

/* One that runs. */
struct program {
    pid_t pid;
    int in, out;        /* our ends; -1: closed */
    struct span left;   /* of the question */
    uint64_t end_ms;    /* its time is up */
    struct buf *answer; /* reserved in full */
};

static uint64_t now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void shut(int *fd) {
    if (*fd >= 0) (void)close(*fd);
    *fd = -1;
}

static int spawn_with(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, const char *path,
                      const int in[2], const int out[2], pid_t *pid) {
    char *const argv[] = {(char *)(uintptr_t)path, NULL}, *const env[] = {NULL};
    sigset_t all, none;
    (void)sigfillset(&all);
    (void)sigemptyset(&none);
    int e = posix_spawn_file_actions_adddup2(files, in[0], STDIN_FILENO);
    if (e == 0) e = posix_spawn_file_actions_adddup2(files, out[1], STDOUT_FILENO);
    if (e == 0)
        e = posix_spawn_file_actions_addopen(files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (e == 0) e = posix_spawn_file_actions_addclosefrom_np(files, STDERR_FILENO + 1);
    if (e == 0) e = posix_spawnattr_setsigdefault(attr, &all);
    if (e == 0) e = posix_spawnattr_setsigmask(attr, &none);
    if (e == 0) e = posix_spawnattr_setpgroup(attr, 0);
    if (e == 0)
        e = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                               POSIX_SPAWN_SETPGROUP);
    return e == 0 ? posix_spawn(pid, path, files, attr, argv, env) : e;
}

static RESULT spawn(struct program *p, const char *path, struct why *why) {
    int in[2] = {-1, -1}, out[2] = {-1, -1}, e = 0;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) e = errno;
    if (posix_spawn_file_actions_init(&files) != 0) e = e != 0 ? e : ENOMEM;
    if (posix_spawnattr_init(&attr) != 0) e = e != 0 ? e : ENOMEM;
    if (e == 0) e = spawn_with(&files, &attr, path, in, out, &p->pid);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&files);
    shut(&in[0]);
    shut(&out[1]);
    p->in = in[1];
    p->out = out[0];
    if (e != 0) return fail_with(why, ERR_UNREACHABLE, "%s can't be run: %s", path, strerror(e));
    (void)fcntl(p->in, F_SETFL, O_NONBLOCK);
    return OK;
}

static void say_more(struct program *p) {
    ssize_t n = write(p->in, p->left.at, p->left.size);
    if (n > 0) p->left = span_of(p->left.at + n, p->left.size - (size_t)n);
    bool again = n < 0 && (errno == EAGAIN || errno == EINTR);
    if (p->left.size == 0 || (n < 0 && !again)) shut(&p->in); /* it need not read it all */
}

static RESULT hear_more(struct program *p, struct why *why) {
    struct buf *b = p->answer;
    uint8_t over;
    bool full = b->size == b->room;
    ssize_t n = read(p->out, full ? &over : b->at + b->size, full ? 1 : b->room - b->size);
    if (n < 0) return errno == EINTR ? OK : err_from_errno(errno);
    if (n == 0) shut(&p->out);
    if (n > 0 && full) return fail_with(why, ERR_TOO_LARGE, "its answer is too long");
    b->size += (size_t)n;
    return OK;
}

/* Until it has closed its output. */
static RESULT converse(struct program *p, struct why *why) {
    while (p->out >= 0) {
        struct pollfd at[2] = {{.fd = p->out, .events = POLLIN}, {.fd = p->in, .events = POLLOUT}};
        uint64_t now = now_ms();
        if (now >= p->end_ms) return fail_with(why, ERR_TIMEOUT, "no answer in time");
        int n = poll(at, 2, (int)(p->end_ms - now));
        if (n < 0 && errno != EINTR) return err_from_errno(errno);
        if (n <= 0) continue;
        if (p->in >= 0 && at[1].revents != 0) say_more(p);
        if (at[0].revents != 0) TRY(hear_more(p, why));
    }
    return OK;
}

/* How it ended; what it has started ends with it. */
static RESULT reap(struct program *p, bool at_once, struct why *why) {
    int status = 0;
    pid_t got = 0;
    while (!at_once && got == 0 && now_ms() < p->end_ms) {
        got = waitpid(p->pid, &status, WNOHANG);
        if (got == 0) (void)poll(NULL, 0, 5);
    }
    (void)kill(-p->pid, SIGKILL);
    if (got == 0) (void)waitpid(p->pid, &status, 0);
    if (at_once || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) return OK;
    if (WIFEXITED(status))
        return fail_with(why, ERR_PRECONDITION, "it has ended with %d", WEXITSTATUS(status));
    return fail_with(why, ERR_PRECONDITION, "it was ended by signal %d", WTERMSIG(status));
}

static RESULT ask_program(const struct driver *d, struct span question, struct buf *answer,
                          struct why *why) {
    struct program p = {.in = -1,
                        .out = -1,
                        .left = question,
                        .end_ms = now_ms() + patience_ms(d),
                        .answer = answer};
    enum err e = spawn(&p, d->path, why);
    bool runs = e == OK;
    if (e == OK) e = converse(&p, why);
    shut(&p.in);
    shut(&p.out);
    if (!runs) return e;
    enum err ended = reap(&p, e != OK, why);
    return e != OK ? e : ended;
}

/* --- one question ----------------------------------------------------------------------------- */

static RESULT ask(const struct driver *d, struct span question, struct buf *answer,
                  struct why *why) {
    struct stat st;
    if (stat(d->path, &st) != 0)
        return fail_with(why, ERR_UNREACHABLE, "%s: %s", d->path, strerror(errno));
    if (S_ISSOCK(st.st_mode)) return ask_socket(d, question, answer, why);
    if (S_ISREG(st.st_mode)) return ask_program(d, question, answer, why);
    return fail_with(why, ERR_UNREACHABLE, "%s is neither a socket nor a program", d->path);
}

RESULT driver_ask(const struct driver *d, struct span question, struct secret **value, bool *reuse,
                  struct why *why) {
    char prefix[sizeof d->name + 16];
    struct buf answer = buf_new(DRIVER_ANSWER_MAX);
    struct why own = {0};
    enum err e = buf_reserve(&answer, DRIVER_ANSWER_MAX);
    *value = NULL;
    if (e == OK) e = ask(d, question, &answer, &own);
    if (e == OK) e = driver_answer(buf_span(&answer), value, reuse, &own);
    buf_wipe(&answer);
    (void)snprintf(prefix, sizeof prefix, "driver %s", d->name);
    if (why) *why = own;
    return e == OK ? OK : fail_in(why, e, prefix);
}

/* --- away from the loop ----------------------------------------------------------------------- */

struct asking_driver {
    struct job job; /* first: the one of exec */
    struct exec *exec;
    struct manager *manager;
    struct driver driver;
    struct buf question;
    struct secret *value; /* the answer */
    bool reuse;
    enum err error;
    struct why why;
    driver_done *done;
    void *ctx; /* of done */
};

static void run(struct job *job) {
    struct asking_driver *a = (struct asking_driver *)(void *)job;
    a->error = driver_ask(&a->driver, buf_span(&a->question), &a->value, &a->reuse, &a->why);
    sodium_stackzero(STACK_WIPED); /* a thread's stack is kept for the next one */
}

static void on_run(struct job *job) {
    struct asking_driver *a = (struct asking_driver *)(void *)job;
    exec_real_close(a->exec, NULL, NULL);
    a->manager->asking_drivers--;
    a->done(a->ctx, a->error, a->why.text, a->value, a->reuse);
    buf_free(&a->question);
    free(a);
}

RESULT driver_start(struct manager *m, const struct driver *d, struct span question,
                    driver_done *done, void *ctx, struct why *why) {
    if (m->asking_drivers == DRIVER_ASKS_MAX)
        return fail_with(why, ERR_BUSY, "drivers are asked for others; try again");
    struct asking_driver *a = calloc(1, sizeof *a);
    if (!a) return fail_with(why, ERR_NOMEM, "no memory to ask a driver");
    *a = (struct asking_driver){.job = {.run = run, .done = on_run},
                                .manager = m,
                                .driver = *d,
                                .question = buf_new(QUESTION_MAX),
                                .done = done,
                                .ctx = ctx};
    enum err e = buf_add_span(&a->question, question);
    if (e == OK) e = exec_real_start(m->config.loop, "driver", 0, &a->exec, why);
    if (e != OK) {
        buf_free(&a->question);
        free(a);
        return e;
    }
    m->asking_drivers++;
    a->exec->submit(a->exec, &a->job);
    return OK; /* cppcheck-suppress memleak ; it is in on_run that it ends */
}
