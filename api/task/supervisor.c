/* See supervisor.h. One thread, one poll: the signals, the socket, its connections, the task's
 * status and output. Memory is locked and never dumped; a frame with bytes of a file is wiped as
 * soon as they are written.
 *
 * Close: the task has ended -> files overwritten, mounts gone -> STATE to whoever is there -> BYE,
 * at the latest when somebody asks how it ended -> the socket is removed, exit. */
#include "api/task/supervisor_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/app.h"

#define OUT_MAX       (256 * KIB) /* answers that wait for a connection; past it it is cut */
#define FED_MS        30000       /* of `conclave run`: until its files are there */
#define KILL_AGAIN_MS 1000
#define STOP_GRACE_MS 10000 /* when we are told to end by a signal */
#define TIDY_MS       1000  /* between looks at older versions that were still read */
#define OOM_SCORE     "-900"
#define POLL_MAX      (5 + SUP_CONNS_MAX)

struct conn {
    int fd;             /* -1: free */
    bool mute;          /* nobody hears answers any more; what was said before is still read */
    bool feeding;       /* files have come from it that are not in place yet */
    uint8_t head[4];    /* the frame's length, as far as it has come */
    size_t head_n;      /* bytes of it */
    size_t want;        /* bytes of the frame; 0: not known yet */
    struct buf in, out; /* the frame; answers that wait */
};

struct supervisor {
    struct sup_order order;        /* spans into `order_bytes`, or the caller's */
    struct buf order_bytes;        /* as it came */
    bool ordered;                  /* `order` is there */
    bool own;                      /* `conclave run`: own stdio, own order, nobody to wait for */
    bool bye;                      /* how it ended is known: it may end */
    enum sup_phase phase;          /* see the header */
    bool asked;                    /* it was told to stop */
    int32_t exit_code;             /* when it has ended */
    uint64_t kill_ms, feed_ms;     /* deadlines; 0: none */
    uint64_t tidy_ms;              /* when older versions are looked at; 0: there are none */
    struct sup_files files;        /* in memory */
    struct sup_task task;          /* its processes */
    int signals;                   /* signalfd */
    int listener, dir;             /* the socket; the directory that it is in */
    int out[2];                    /* the task's stdout and stderr, our ends; -1 */
    char error[NODE_TEXT_MAX + 1]; /* why it can't be run, or an update could not be made */
    struct conn conns[SUP_CONNS_MAX];
    uint8_t *ring;          /* SUP_OUTPUT_MAX bytes of output; NULL: none is kept */
    size_t ring_at, ring_n; /* where the next one goes; how many there are */
};

static uint64_t now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool is_over(const struct supervisor *s) {
    return s->phase == SUP_ENDED || s->phase == SUP_REJECTED;
}

/* --- connections ------------------------------------------------------------------------------ */

static void conn_close(struct conn *c) {
    if (c->fd >= 0) (void)close(c->fd);
    buf_wipe(&c->in);
    buf_wipe(&c->out);
    *c = (struct conn){.fd = -1, .in = buf_new(SUP_FRAME_MAX), .out = buf_new(OUT_MAX)};
}

static void conn_flush(struct conn *c) {
    while (c->fd >= 0 && c->out.size > 0) {
        ssize_t n = send(c->fd, c->out.at, c->out.size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            c->mute = true;
            buf_clear(&c->out);
            return;
        }
        c->out.size -= (size_t)n;
        memmove(c->out.at, c->out.at + n, c->out.size);
    }
}

static void conn_send(struct conn *c, enum sup_kind kind, struct span body) {
    if (c->mute) return;
    if (sup_frame(&c->out, kind, body) != OK)
        conn_close(c);
    else
        conn_flush(c);
}

static void conn_add(struct supervisor *s, int fd) {
    for (int i = 0; i < SUP_CONNS_MAX; i++) {
        if (s->conns[i].fd >= 0) continue;
        s->conns[i].fd = fd;
        return;
    }
    (void)close(fd);
}

static void accept_one(struct supervisor *s) {
    struct ucred who = {0};
    socklen_t size = sizeof who;
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == geteuid())
        conn_add(s, fd);
    else
        (void)close(fd);
}

/* --- what is said ----------------------------------------------------------------------------- */

static void fill_state(const struct supervisor *s, struct sup_state *out) {
    *out = (struct sup_state){.phase = s->phase, .asked = s->asked, .exit_code = s->exit_code};
    (void)snprintf(out->id, sizeof out->id, "%s", s->order.id);
    (void)snprintf(out->error, sizeof out->error, "%s", s->error);
    out->pid = is_over(s) ? 0 : (uint32_t)s->task.pid;
    for (unsigned i = 0; i < s->files.n; i++) {
        if (!s->files.slots[i].placed) continue;
        memcpy(out->files[out->n].target, s->files.slots[i].now.target, TARGET_MAX + 1);
        out->files[out->n++].version = s->files.slots[i].now.version;
    }
}

/* `to` NULL: everybody. */
static void tell_state(struct supervisor *s, struct conn *to) {
    struct sup_state *state = malloc(sizeof *state); /* large */
    struct buf body = buf_new(OUT_MAX);
    if (state) fill_state(s, state);
    if (state && sup_state_encode(state, &body) == OK)
        for (int i = 0; i < SUP_CONNS_MAX; i++)
            if (s->conns[i].fd >= 0 && (!to || to == &s->conns[i]))
                conn_send(&s->conns[i], SUP_STATE, buf_span(&body));
    buf_free(&body);
    free(state);
}

static void set_phase(struct supervisor *s, enum sup_phase phase) {
    s->phase = phase;
    if (is_over(s)) sup_files_close(&s->files);
    tell_state(s, NULL);
}

static void reject(struct supervisor *s, enum err e, const char *text) {
    (void)snprintf(s->error, sizeof s->error, "%.*s", NODE_TEXT_MAX, text[0] ? text : err_text(e));
    set_phase(s, SUP_REJECTED);
}

static void tell_output(struct supervisor *s, struct conn *c) {
    struct buf body = buf_new(SUP_OUTPUT_MAX);
    size_t first = (s->ring_at + SUP_OUTPUT_MAX - s->ring_n) % SUP_OUTPUT_MAX;
    size_t run = SUP_OUTPUT_MAX - first < s->ring_n ? SUP_OUTPUT_MAX - first : s->ring_n;
    if (buf_add(&body, s->ring ? s->ring + first : NULL, run) == OK &&
        buf_add(&body, s->ring, s->ring_n - run) == OK)
        conn_send(c, SUP_OUTPUT, buf_span(&body));
    buf_wipe(&body);
}

static void take_output(struct supervisor *s, int which) {
    uint8_t piece[4096];
    ssize_t n = read(s->out[which], piece, sizeof piece);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
        (void)close(s->out[which]);
        s->out[which] = -1;
        return;
    }
    for (ssize_t i = 0; i < n && s->ring; i++) {
        s->ring[s->ring_at] = piece[i];
        s->ring_at = (s->ring_at + 1) % SUP_OUTPUT_MAX;
        if (s->ring_n < SUP_OUTPUT_MAX) s->ring_n++;
    }
    sodium_memzero(piece, sizeof piece);
}

/* --- what is asked for ------------------------------------------------------------------------ */

static RESULT listen_at(struct supervisor *s, struct why *why);

static RESULT take_order(struct supervisor *s, struct span body, struct why *why) {
    if (s->ordered) return fail_with(why, ERR_PROTOCOL, "a second order");
    s->order_bytes.max = SUP_FRAME_MAX;
    TRY(buf_add_span(&s->order_bytes, body));
    if (sup_order_decode(buf_span(&s->order_bytes), &s->order) != OK)
        return fail_with(why, ERR_PROTOCOL, "the order can't be understood");
    s->ordered = true;
    TRY(listen_at(s, why));
    if (geteuid() != 0)
        return fail_with(why, ERR_PERMISSION,
                         "tasks need root on their node: only root can make their namespaces");
    set_phase(s, SUP_READY);
    return OK;
}

static RESULT make_pipes(struct supervisor *s, int task_end[2], struct why *why) {
    int pair[2];
    for (int i = 0; i < 2; i++) {
        if (pipe2(pair, O_CLOEXEC) != 0)
            return fail_with(why, ERR_IO, "no pipe for the task's output: %s", strerror(errno));
        s->out[i] = pair[0];
        task_end[i] = pair[1];
        (void)fcntl(pair[0], F_SETFL, O_NONBLOCK);
    }
    return OK;
}

static RESULT start(struct supervisor *s, struct why *why) {
    int ends[2] = {-1, -1};
    bool changed;
    if (s->phase != SUP_READY) return fail_with(why, ERR_PROTOCOL, "there is nothing to start");
    if (s->files.fs < 0) TRY(sup_files_open(&s->files, why));
    TRY(sup_files_commit(&s->files, 0, &changed, why));
    enum err e = s->own ? OK : make_pipes(s, ends, why);
    if (e == OK) e = sup_task_start(&s->task, &s->order, &s->files, s->own ? NULL : ends, why);
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0) (void)close(ends[i]);
    s->feed_ms = 0;
    return e;
}

static void stop(struct supervisor *s, uint64_t grace_ms) {
    if (is_over(s)) return;
    s->asked = true;
    if (s->task.init == 0) {
        reject(s, ERR_CLOSED, "it was stopped before it was started");
        return;
    }
    uint64_t kill = now_ms() + grace_ms;
    if (s->kill_ms == 0 || kill < s->kill_ms) s->kill_ms = kill;
    if (s->phase == SUP_RUNNING) sup_task_signal(&s->task, (int)s->order.stop_signal);
    if (s->phase == SUP_RUNNING) set_phase(s, SUP_STOPPING);
}

/* A signal that would end a task which does not care is not sent. */
static bool catches(pid_t pid, uint32_t number) {
    char path[64], text[4096];
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *caught = strstr(text, "\nSigCgt:");
    if (!caught) return false;
    return strtoull(caught + sizeof "\nSigCgt:" - 1, NULL, 16) >> (number - 1) & 1;
}

static RESULT commit(struct supervisor *s, struct why *why) {
    bool changed;
    enum err e = sup_files_commit(&s->files, s->task.started ? s->task.init : 0, &changed, why);
    if (!changed) return e;
    if (s->task.started && catches(s->task.pid, s->order.reload_signal))
        sup_task_signal(&s->task, (int)s->order.reload_signal);
    s->tidy_ms = now_ms();
    s->error[0] = '\0'; /* of an earlier attempt */
    if (e == OK) tell_state(s, NULL);
    return e;
}

static RESULT take_file(struct supervisor *s, struct span body, struct why *why) {
    struct sup_file file;
    if (is_over(s)) return OK; /* it ended meanwhile */
    if (s->phase == SUP_WAITING || sup_file_decode(body, &file) != OK)
        return fail_with(why, ERR_PROTOCOL, "a file that can't be understood");
    return sup_files_begin(&s->files, &file, why);
}

static RESULT take_frame(struct supervisor *s, struct conn *c, uint8_t kind, struct span body,
                         struct why *why) {
    struct cursor in = cursor_of(body);
    uint64_t grace;
    bool over = is_over(s);
    if (kind == SUP_FILE) c->feeding = true;
    if (kind == SUP_START || kind == SUP_COMMIT) c->feeding = false;
    switch (kind) {
    case SUP_ORDER: return take_order(s, body, why);
    case SUP_FILE: return take_file(s, body, why);
    case SUP_DATA: return over ? OK : sup_files_data(&s->files, body, why);
    case SUP_START: return over ? OK : start(s, why);
    case SUP_COMMIT: return over ? OK : commit(s, why);
    case SUP_HELLO: tell_state(s, c); return OK;
    case SUP_LOGS: tell_output(s, c); return OK;
    case SUP_BYE: s->bye = true; return OK;
    case SUP_STOP:
        if (cursor_u64(&in, &grace) != OK) return ERR_PROTOCOL;
        stop(s, grace);
        return OK;
    default: return fail_with(why, ERR_PROTOCOL, "a frame of no kind");
    }
}

/* What fails before the task runs is the task's end; later it is only told: the task goes on with
 * what it has, and the rest of an update is let pass. */
static void frame_failed(struct supervisor *s, struct conn *c, enum err e, const struct why *why) {
    if (c->feeding && e != ERR_PROTOCOL)
        sup_files_fail(&s->files);
    else
        sup_files_forget(&s->files);
    if (s->phase == SUP_READY || (s->phase == SUP_WAITING && s->ordered)) {
        reject(s, e, why->text);
        return;
    }
    (void)snprintf(s->error, sizeof s->error, "%.*s", NODE_TEXT_MAX,
                   why->text[0] ? why->text : err_text(e));
    tell_state(s, NULL);
    if (s->phase == SUP_WAITING || e == ERR_PROTOCOL) conn_close(c);
}

static void conn_frame(struct supervisor *s, struct conn *c) {
    struct why why = {0};
    uint8_t kind = c->in.at[0];
    enum err e = take_frame(s, c, kind, span_of(c->in.at + 1, c->in.size - 1), &why);
    buf_wipe(&c->in);
    secret_wipe_registers();
    c->head_n = c->want = 0;
    if (e != OK) frame_failed(s, c, e, &why);
}

/* The length first, then room for exactly that, so that nothing is moved while it grows. */
static ssize_t conn_take(struct conn *c) {
    ssize_t n;
    if (c->want == 0) {
        n = recv(c->fd, c->head + c->head_n, sizeof c->head - c->head_n, 0);
        if (n > 0) c->head_n += (size_t)n;
        if (c->head_n < sizeof c->head) return n;
        c->want = get_u32(c->head);
        if (c->want == 0 || c->want > SUP_FRAME_MAX || buf_reserve(&c->in, c->want) != OK) return 0;
        return n;
    }
    n = recv(c->fd, c->in.at + c->in.size, c->want - c->in.size, 0);
    if (n > 0) c->in.size += (size_t)n;
    return n;
}

static void conn_read(struct supervisor *s, struct conn *c) {
    ssize_t n = conn_take(c);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
        if (c->feeding) sup_files_forget(&s->files); /* nobody puts them in place */
        conn_close(c);
    } else if (c->want > 0 && c->in.size == c->want)
        conn_frame(s, c);
}

/* --- the task --------------------------------------------------------------------------------- */

static void task_ended(struct supervisor *s, int status) {
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    while (sup_task_hear(&s->task)) /* all that it said */
        continue;
    for (int i = 0; i < 2; i++)
        while (s->out[i] >= 0) {
            size_t before = s->ring_at + s->ring_n;
            take_output(s, i);
            if (s->out[i] >= 0 && before == s->ring_at + s->ring_n) break;
        }
    bool started = s->task.started;
    s->exit_code = code;
    sup_task_close(&s->task);
    s->kill_ms = 0;
    if (started || s->asked)
        set_phase(s, SUP_ENDED);
    else
        reject(s, ERR_INTERNAL,
               s->task.error[0] ? s->task.error : "it ended before it was started");
}

static void reap(struct supervisor *s) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == s->task.init) task_ended(s, status);
}

static void hear_task(struct supervisor *s) {
    while (sup_task_hear(&s->task))
        continue;
    if (s->task.status >= 0 || !s->task.started || is_over(s)) return;
    set_phase(s, SUP_RUNNING);
    if (s->kill_ms == 0) return;
    sup_task_signal(&s->task, (int)s->order.stop_signal);
    set_phase(s, SUP_STOPPING);
}

/* Signals of ours. A service manager that ends all processes of a service ends the task, too;
 * `conclave run` passes them on, but not those that the terminal gives to the task as well. */
static void take_signal(struct supervisor *s) {
    struct signalfd_siginfo info;
    if (read(s->signals, &info, sizeof info) != sizeof info) return;
    int number = (int)info.ssi_signo;
    if (number == SIGCHLD)
        reap(s);
    else if (!s->own)
        stop(s, STOP_GRACE_MS);
    else if (info.ssi_code != SI_KERNEL && s->task.started)
        sup_task_signal(&s->task, number);
    else if (info.ssi_code != SI_KERNEL || !s->task.started)
        stop(s, 0);
}

static void deadlines(struct supervisor *s) {
    uint64_t now = now_ms();
    if (s->kill_ms > 0 && now >= s->kill_ms) {
        sup_task_kill(&s->task);
        s->kill_ms = now + KILL_AGAIN_MS;
    }
    if (s->feed_ms > 0 && now >= s->feed_ms) {
        s->feed_ms = 0;
        reject(s, ERR_TIMEOUT, "the node's agent has not brought the secrets");
    }
    if (s->tidy_ms > 0 && now >= s->tidy_ms)
        s->tidy_ms = sup_files_tidy(&s->files) ? now + TIDY_MS : 0;
}

/* --- the socket ------------------------------------------------------------------------------- */

/* By way of the open directory: a path of any length fits. */
static struct sockaddr_un address_of(int dir, const char *id) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    (void)snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/%s", dir, id);
    return at;
}

static int open_tasks(const char *data) {
    char path[SUP_PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/" SUP_TASKS, data);
    (void)mkdir(path, 0700);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* It has its name when it listens: a socket where nobody does is one that was left behind. */
static RESULT listen_at(struct supervisor *s, struct why *why) {
    char early[SUP_ID_MAX + 1];
    (void)snprintf(early, sizeof early, ".%s", s->order.id);
    s->dir = open_tasks(s->order.data);
    struct sockaddr_un at = address_of(s->dir, early);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->dir >= 0 && s->listener >= 0 &&
        bind(s->listener, (const struct sockaddr *)&at, sizeof at) == 0 &&
        listen(s->listener, SUP_CONNS_MAX) == 0 &&
        renameat(s->dir, early, s->dir, s->order.id) == 0)
        return OK;
    return fail_with(why, ERR_IO, "no socket in %s/" SUP_TASKS ": %s", s->order.data,
                     strerror(errno));
}

static void leave_socket(struct supervisor *s) {
    if (s->dir >= 0) (void)unlinkat(s->dir, s->order.id, 0);
    if (s->dir >= 0) (void)close(s->dir);
    if (s->listener >= 0) (void)close(s->listener);
    s->dir = s->listener = -1;
}

RESULT supervisor_dial(const char *data, const char *id, int *fd, struct why *why) {
    int dir = open_tasks(data);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un at = address_of(dir, id);
    bool done = dir >= 0 && *fd >= 0 && connect(*fd, (const struct sockaddr *)&at, sizeof at) == 0;
    int error = errno;
    if (dir >= 0) (void)close(dir);
    if (done) return OK;
    if (*fd >= 0) (void)close(*fd);
    *fd = -1;
    enum err e = error == ENOENT ? ERR_NOT_FOUND : error == ECONNREFUSED ? ERR_CLOSED : ERR_IO;
    return fail_with(why, e, "the supervisor of %s: %s", id, strerror(error));
}

void supervisor_forget(const char *data, const char *id) {
    int dir = open_tasks(data);
    if (dir < 0) return;
    (void)unlinkat(dir, id, 0);
    (void)close(dir);
}

/* --- the loop --------------------------------------------------------------------------------- */

static int timeout_of(const struct supervisor *s) {
    const uint64_t all[] = {s->kill_ms, s->feed_ms, s->tidy_ms};
    uint64_t now = now_ms(), next = 0;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (all[i] > 0 && (next == 0 || all[i] < next)) next = all[i];
    if (next == 0) return -1;
    return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static void turn(struct supervisor *s) {
    struct pollfd at[POLL_MAX] = {{.fd = s->signals, .events = POLLIN},
                                  {.fd = s->listener, .events = POLLIN},
                                  {.fd = s->task.status, .events = POLLIN},
                                  {.fd = s->out[0], .events = POLLIN},
                                  {.fd = s->out[1], .events = POLLIN}};
    for (int i = 0; i < SUP_CONNS_MAX; i++) {
        at[5 + i].fd = s->conns[i].fd;
        at[5 + i].events = (short)(POLLIN | (s->conns[i].out.size > 0 ? POLLOUT : 0));
    }
    if (poll(at, POLL_MAX, timeout_of(s)) < 0) return;
    deadlines(s);
    for (int i = 0; i < 2; i++)
        if (at[3 + i].revents && s->out[i] == at[3 + i].fd) take_output(s, i);
    if (at[2].revents && s->task.status >= 0) hear_task(s);
    if (at[0].revents) take_signal(s);
    for (int i = 0; i < SUP_CONNS_MAX; i++) {
        struct conn *c = &s->conns[i];
        if (!at[5 + i].revents || c->fd != at[5 + i].fd) continue;
        if (at[5 + i].revents & POLLOUT) conn_flush(c);
        if (c->fd >= 0 && at[5 + i].revents & ~POLLOUT) conn_read(s, c);
    }
    if (at[1].revents && s->listener >= 0) accept_one(s);
}

static bool has_conns(const struct supervisor *s) {
    for (int i = 0; i < SUP_CONNS_MAX; i++)
        if (s->conns[i].fd >= 0) return true;
    return false;
}

/* Without an order nobody will ever come, and a task that is not started when its agent goes away
 * is not missed: its files go at once. One that was started waits until its end is known. */
static bool may_end(const struct supervisor *s) {
    if (s->own) return is_over(s);
    bool begun = s->ordered && (is_over(s) || s->task.init != 0);
    return begun ? is_over(s) && s->bye : !has_conns(s);
}

static RESULT take_signals(struct supervisor *s, struct why *why) {
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        (void)sigaddset(&set, numbers[i]);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGIO, SIG_IGN); /* of leases, see supervisor_files.c */
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signals >= 0 ? OK : fail_with(why, ERR_IO, "signalfd: %s", strerror(errno));
}

static void protect(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) (void)!write(fd, OOM_SCORE, sizeof OOM_SCORE - 1);
    if (fd >= 0) (void)close(fd);
    (void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
}

static struct supervisor *supervisor_new(void) {
    struct supervisor *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->signals = s->listener = s->dir = s->out[0] = s->out[1] = -1;
    s->files.fs = s->files.home = s->files.writing = -1;
    s->task.status = s->task.init_fd = s->task.pid_fd = -1;
    for (int i = 0; i < SUP_CONNS_MAX; i++) {
        s->conns[i].fd = -1;
        conn_close(&s->conns[i]);
    }
    return s;
}

static void supervisor_free(struct supervisor *s) {
    sup_task_kill(&s->task);
    sup_task_close(&s->task);
    sup_files_close(&s->files);
    leave_socket(s);
    for (int i = 0; i < SUP_CONNS_MAX; i++)
        conn_close(&s->conns[i]);
    if (s->signals >= 0) (void)close(s->signals);
    buf_wipe(&s->order_bytes);
    if (s->ring) sodium_memzero(s->ring, SUP_OUTPUT_MAX);
    free(s->ring);
    free(s);
}

/* Our parent waits for nobody, and nobody waits for us. */
static RESULT detach(struct why *why) {
    pid_t pid = fork();
    if (pid > 0) _exit(0);
    if (pid < 0 || setsid() < 0)
        return fail_with(why, ERR_NOMEM, "no process for a supervisor: %s", strerror(errno));
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 1; nothing >= 0 && fd <= 2; fd++)
        (void)dup2(nothing, fd);
    if (nothing > 2) (void)close(nothing);
    return chdir("/") == 0 ? OK : ERR_IO;
}

RESULT supervisor_serve(struct why *why) {
    struct stat st;
    if (fstat(0, &st) != 0 || !S_ISSOCK(st.st_mode))
        return fail_with(why, ERR_USAGE, "this is started by the node's agent alone");
    TRY(app_harden(why));
    TRY(detach(why));
    (void)syscall(SYS_close_range, 3, ~0U, 0);
    int fd = fcntl(0, F_DUPFD_CLOEXEC, 3), nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || nothing < 0 || dup2(nothing, 0) != 0)
        return fail_with(why, ERR_IO, "no file to spare: %s", strerror(errno));
    (void)close(nothing);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    protect();
    struct supervisor *s = supervisor_new();
    if (!s) return ERR_NOMEM;
    s->ring = malloc(SUP_OUTPUT_MAX);
    conn_add(s, fd);
    enum err e = take_signals(s, why);
    while (e == OK && !may_end(s))
        turn(s);
    supervisor_free(s);
    return e;
}

RESULT supervisor_run(const struct sup_order *order, enum err (*ready)(void *ctx, struct why *why),
                      void *ctx, int *exit_code, struct why *why) {
    TRY(app_harden(why));
    (void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
    struct supervisor *s = supervisor_new();
    if (!s) return ERR_NOMEM;
    s->order = *order;
    s->own = s->ordered = true;
    s->phase = SUP_READY;
    enum err e = listen_at(s, why);
    if (e == OK) e = ready(ctx, why);
    if (e == OK) e = take_signals(s, why);
    s->feed_ms = now_ms() + FED_MS;
    while (e == OK && !may_end(s))
        turn(s);
    if (e == OK && s->phase == SUP_REJECTED) e = fail_with(why, ERR_PRECONDITION, "%s", s->error);
    *exit_code = s->exit_code;
    supervisor_free(s);
    return e;
}

/* --- the agent's part ------------------------------------------------------------------------- */

RESULT supervisor_spawn(int *fd, struct why *why) {
    static char name[] = "conclave", verb[] = "task-supervisor", path[] = "PATH=/usr/bin:/bin";
    char *const args[] = {name, verb, NULL}, *const env[] = {path, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    int pair[2], status = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return fail_with(why, ERR_IO, "no socket for a supervisor: %s", strerror(errno));
    int error = posix_spawn_file_actions_init(&actions);
    if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
    if (error == 0) error = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, args, env);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(pair[1]);
    while (error == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (error == 0 && status == 0) {
        (void)fcntl(pair[0], F_SETFL, O_NONBLOCK);
        *fd = pair[0];
        return OK;
    }
    (void)close(pair[0]);
    return fail_with(why, ERR_NOMEM, "a supervisor can't be started: %s",
                     error ? strerror(error) : "it ended at once");
}
