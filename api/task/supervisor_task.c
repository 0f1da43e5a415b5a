/* The task's processes. The init is the first one in its PID namespace, in which nobody else is of
 * ours: it makes the root, starts the command as its child, takes in orphans, and ends with the
 * command's exit code; the kernel then ends whatever is left in the namespace. It dies with the
 * supervisor (PR_SET_PDEATHSIG), and with it all the rest.
 *
 * What they say until the command is started goes over a socket pair of packets: 'P' from the
 * command's process just before exec (the kernel tells its pid as the supervisor sees it), 'E' and
 * a sentence when something fails; the end without one: exec is done. */
#include "api/task/supervisor_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATUS_ROOM  (NODE_TEXT_MAX + 2)
#define EXIT_NO_EXEC 127
#define PATH_USUAL   "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static _Noreturn void give_up(int status, const struct why *why) {
    char message[STATUS_ROOM];
    int size = snprintf(message, sizeof message, "E%.*s", NODE_TEXT_MAX, why->text);
    (void)!send(status, message, (size_t)size, MSG_NOSIGNAL);
    _exit(EXIT_NO_EXEC);
}

/* --- the command ------------------------------------------------------------------------------ */

/* The list as an array of C strings of its own, with room for `more`; never freed: exec follows. */
static char **words_of(struct span list, unsigned more, unsigned *n) {
    struct cursor c = cursor_of(list);
    struct span block;
    char **out = calloc(SERVICE_ENV_MAX + SERVICE_ARGS_MAX + more + 1, sizeof *out);
    for (*n = 0; out && cursor_block(&c, SERVICE_TEXT_MAX, &block) == OK;)
        out[(*n)++] = strndup((const char *)block.at, block.size);
    return out;
}

static const char *variable(char **env, const char *name) {
    size_t size = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, size) == 0 && (*env)[size] == '=') return *env + size + 1;
    return NULL;
}

static void add_variable(char **env, unsigned *n, const char *name, const char *value) {
    char text[SUP_PATH_MAX];
    if (variable(env, name)) return;
    (void)snprintf(text, sizeof text, "%s=%s", name, value);
    env[(*n)++] = strdup(text);
}

static void execute(char **args, char **env) {
    char path[SUP_PATH_MAX];
    int error = ENOENT;
    if (strchr(args[0], '/')) {
        (void)execve(args[0], args, env);
        return;
    }
    for (const char *at = variable(env, "PATH"); at && *at;) {
        const char *end = strchrnul(at, ':');
        (void)snprintf(path, sizeof path, "%.*s/%s", (int)(end - at), at, args[0]);
        (void)execve(path, args, env);
        if (errno != ENOENT && errno != ENOTDIR) error = errno;
        at = *end ? end + 1 : end;
    }
    errno = error;
}

static void usual_signals(void) {
    sigset_t none;
    (void)sigemptyset(&none);
    for (int i = 1; i < NSIG; i++)
        (void)signal(i, SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_command(const struct sup_order *o, const struct sup_user *user,
                                  int status) {
    struct why why = {0};
    char host[64] = "";
    unsigned n_args, n_env;
    char **args = words_of(o->command, 0, &n_args), **env = words_of(o->env, 3, &n_env);
    if (!args || !env || n_args == 0) {
        (void)fail_with(&why, ERR_NOMEM, "there is no command, or no memory for it");
        give_up(status, &why);
    }
    (void)gethostname(host, sizeof host - 1);
    add_variable(env, &n_env, "PATH", PATH_USUAL);
    add_variable(env, &n_env, "HOSTNAME", host);
    add_variable(env, &n_env, "HOME", user->home);
    (void)umask(022);
    if (sup_user_become(user, &why) != OK) give_up(status, &why);
    if (chdir(o->dir[0] ? o->dir : "/") != 0) {
        (void)fail_with(&why, ERR_INVALID, "the working directory %s: %s", o->dir, strerror(errno));
        give_up(status, &why);
    }
    (void)!send(status, "P", 1, MSG_NOSIGNAL);
    usual_signals();
    execute(args, env);
    (void)fail_with(&why, ERR_INVALID, "%s can't be started: %s", args[0], strerror(errno));
    give_up(status, &why);
}

/* --- the init --------------------------------------------------------------------------------- */

static int exit_code_of(int status) {
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static _Noreturn void wait_for(pid_t command) {
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        if (pid == command) _exit(exit_code_of(status));
        if (pid < 0 && errno != EINTR) _exit(EXIT_NO_EXEC);
    }
}

/* stdin from nowhere, output to the supervisor; an owner that can open /dev/stdout again. */
static RESULT take_output(const int out[2], const struct sup_user *user, struct why *why) {
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bool done = nothing >= 0 && dup2(nothing, 0) == 0 && dup2(out[0], 1) == 1 &&
                dup2(out[1], 2) == 2 && fchown(1, user->uid, user->gid) == 0 &&
                fchown(2, user->uid, user->gid) == 0;
    return done ? OK : fail_with(why, ERR_IO, "output can't be taken: %s", strerror(errno));
}

static RESULT prepare(const struct sup_order *o, const struct sup_files *f, const int out[2],
                      struct sup_user *user, struct why *why) {
    if (unshare(CLONE_NEWIPC | CLONE_NEWUTS) != 0)
        return fail_with(why, ERR_UNSUPPORTED,
                         "this node can't make namespaces, which a task needs: %s",
                         strerror(errno));
    if (o->hostname[0] && sethostname(o->hostname, strlen(o->hostname)) != 0)
        return fail_with(why, ERR_INVALID, "the host name '%s': %s", o->hostname, strerror(errno));
    TRY(sup_root_enter(o, f, why));
    TRY(sup_user_find(o->user, user, why));
    return out ? take_output(out, user, why) : OK;
}

static _Noreturn void be_init(const struct sup_order *o, const struct sup_files *f,
                              const int out[2], int status) {
    struct why why = {0};
    struct sup_user user;
    char nothing;
    (void)signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 ||
        recv(status, &nothing, 1, MSG_DONTWAIT) == 0) /* it has died already */
        _exit(EXIT_NO_EXEC);
    if (prepare(o, f, out, &user, &why) != OK) give_up(status, &why);
    /* The one descriptor that is left to the command closes itself. */
    if (dup3(status, 3, O_CLOEXEC) != 3 && status != 3) _exit(EXIT_NO_EXEC);
    if (syscall(SYS_close_range, 4, ~0U, 0) != 0) _exit(EXIT_NO_EXEC);
    pid_t command = fork();
    if (command == 0) run_command(o, &user, 3);
    if (command < 0) {
        (void)fail_with(&why, ERR_NOMEM, "no process for the command: %s", strerror(errno));
        give_up(3, &why);
    }
    (void)syscall(SYS_close_range, 0, ~0U, 0);
    wait_for(command);
}

/* --- the supervisor's side -------------------------------------------------------------------- */

static int pidfd_of(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

static RESULT status_pair(int pair[2], struct why *why) {
    const int on = 1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
        if (setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0) return OK;
        (void)close(pair[0]);
        (void)close(pair[1]);
    }
    return fail_with(why, ERR_IO, "no socket for the task's status: %s", strerror(errno));
}

/* A child in a PID namespace of its own: 0 in it; -1. Whatever is forked after it is in our own
 * again, where the task has no way to stop or to kill it. */
static pid_t fork_below(struct why *why) {
    int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (own < 0 || unshare(CLONE_NEWPID) != 0) {
        (void)fail_with(why, ERR_UNSUPPORTED,
                        "this node can't make PID namespaces, which a task needs: %s",
                        strerror(errno));
        if (own >= 0) (void)close(own);
        return -1;
    }
    pid_t pid = fork();
    if (pid < 0) (void)fail_with(why, ERR_NOMEM, "no process for the task: %s", strerror(errno));
    bool back = pid == 0 || setns(own, CLONE_NEWPID) == 0;
    (void)close(own);
    if (back || pid < 0) return pid;
    (void)fail_with(why, ERR_INTERNAL, "there is no way back from the task's PID namespace: %s",
                    strerror(errno));
    (void)kill(pid, SIGKILL);
    return -1;
}

RESULT sup_task_start(struct sup_task *t, const struct sup_order *o, const struct sup_files *f,
                      const int out[2], struct why *why) {
    int pair[2];
    *t = (struct sup_task){.init_fd = -1, .pid_fd = -1, .status = -1};
    TRY(status_pair(pair, why));
    pid_t init = fork_below(why);
    if (init == 0) {
        (void)close(pair[0]);
        be_init(o, f, out, pair[1]);
    }
    (void)close(pair[1]);
    t->status = pair[0];
    if (init < 0) return ERR_UNSUPPORTED;
    t->init = init;
    t->init_fd = pidfd_of(t->init);
    return OK;
}

static pid_t sender_of(struct msghdr *head) {
    struct ucred who;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS) continue;
        memcpy(&who, CMSG_DATA(c), sizeof who);
        return who.pid;
    }
    return 0;
}

bool sup_task_hear(struct sup_task *t) {
    char text[STATUS_ROOM] = "";
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec io = {.iov_base = text, .iov_len = sizeof text - 1};
    struct msghdr head = {.msg_iov = &io,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes};
    if (t->status < 0) return false;
    ssize_t n = recvmsg(t->status, &head, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) return true;
    if (n < 0 && errno == EAGAIN) return false;
    if (n > 0 && text[0] == 'P') {
        t->pid = sender_of(&head);
        t->pid_fd = t->pid > 0 ? pidfd_of(t->pid) : -1;
    } else if (n > 0) {
        (void)snprintf(t->error, sizeof t->error, "%.*s", NODE_TEXT_MAX, text + 1);
    } else {
        (void)close(t->status);
        t->status = -1;
        t->started = !t->error[0] && t->pid > 0;
    }
    return t->status >= 0;
}

static void signal_to(int pidfd, int number) {
    if (pidfd >= 0) (void)syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0);
}

void sup_task_signal(const struct sup_task *t, int number) { signal_to(t->pid_fd, number); }

void sup_task_kill(const struct sup_task *t) {
    signal_to(t->init_fd, SIGKILL);
    if (t->init_fd < 0 && t->init > 0) (void)kill(t->init, SIGKILL);
}

void sup_task_close(struct sup_task *t) {
    if (t->status >= 0) (void)close(t->status);
    if (t->init_fd >= 0) (void)close(t->init_fd);
    if (t->pid_fd >= 0) (void)close(t->pid_fd);
    t->status = t->init_fd = t->pid_fd = -1;
    t->init = t->pid = 0;
}
