/* The task's secrets and configs as files in memory. One file system that is never written out
 * (tmpfs with noswap, or ramfs where the kernel does not have that), with three directories:
 *
 *   secrets/  the task sees it, read-only, as /run/secrets
 *   files/    files that go to other places, each bound there alone: SLOT.GENERATION
 *   new/      written, but not yet in place: SLOT; nobody sees it
 *
 * A file below secrets/ is replaced by a rename, so that a reader has the old one or the new one.
 * One elsewhere is replaced by a mount: the new one goes beneath the old one, which is then taken
 * off (Linux 6.5), or on top of it; the old one then keeps its name, empty, since the kernel takes
 * off what is mounted on a file that is removed. Either way the old one is overwritten as soon as
 * nobody has it open, so that a reader gets to its end. A lease tells: the kernel gives one only
 * for a file that nobody else has open. */
#include "api/task/supervisor_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES_SLACK (256 * KIB) /* for directories, and a file that is there twice for a moment */
#define ZEROS_SIZE  4096
#define REPLACE_MS  2000

#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x00000200
#endif

static RESULT failed(struct why *why, const char *what) {
    int error = errno;
    return fail_with(why, err_from_errno(error), "%s: %s", what, strerror(error));
}

/* --- the file system -------------------------------------------------------------------------- */

static RESULT make_fs(struct sup_files *f, struct why *why) {
    char size[32];
    f->limit = FILES_SLACK;
    (void)snprintf(size, sizeof size, "%llu", (unsigned long long)f->limit);
    const char *const options[] = {"mode", "0755", "size", size, "noswap", NULL, NULL};
    const char *const plain[] = {"mode", "0755", NULL};
    const unsigned attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    f->ram = false;
    if (sup_mount_new("tmpfs", options, attributes, &f->fs, NULL) == OK) return OK;
    f->ram = true;
    return sup_mount_new("ramfs", plain, attributes, &f->fs, why);
}

static RESULT make_dirs(const struct sup_files *f, struct why *why) {
    static const struct {
        const char *name;
        mode_t mode;
    } dirs[] = {{"secrets", 0755}, {"files", 0700}, {"new", 0700}};
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
        if (mkdirat(f->fs, dirs[i].name, 0700) != 0 ||
            fchmodat(f->fs, dirs[i].name, dirs[i].mode, 0) != 0)
            return failed(why, "the memory for files can't be set up");
    return OK;
}

RESULT sup_files_open(struct sup_files *f, struct why *why) {
    f->home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (f->home < 0) return failed(why, "/proc is needed to run tasks");
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return failed(why, "this node can't make mount namespaces, which a task needs");
    TRY(make_fs(f, why));
    TRY(make_dirs(f, why));
    /* Attached, since older kernels copy nothing out of a detached mount; over the root, where no
     * path leads to. */
    return sup_mount_place(f->fs, AT_FDCWD, "/", why);
}

/* Its limit follows what is in it. */
static RESULT grow(struct sup_files *f, uint32_t size, struct why *why) {
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t need = FILES_SLACK + size + page;
    struct stat st;
    char text[32];
    for (unsigned i = 0; i < f->n; i++) {
        need += (uint64_t)f->slots[i].now.size + f->slots[i].next.size + 4 * page;
        if (f->slots[i].old >= 0 && fstat(f->slots[i].old, &st) == 0) need += (uint64_t)st.st_size;
    }
    if (f->ram || need <= f->limit) return OK;
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)need);
    int context = fspick(f->fs, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
    bool done = context >= 0 && fsconfig(context, FSCONFIG_SET_STRING, "size", text, 0) == 0 &&
                fsconfig(context, FSCONFIG_SET_FLAG, "noswap", NULL, 0) == 0 &&
                fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) == 0;
    enum err e = done ? OK : failed(why, "the memory for files can't grow");
    if (context >= 0) (void)close(context);
    if (e == OK) f->limit = need;
    return e;
}

/* --- writing ---------------------------------------------------------------------------------- */

void sup_files_path(const struct sup_slot *s, unsigned at, char out[32]) {
    (void)snprintf(out, 32, "files/%u.%u", at, s->generation);
}

static void new_path(unsigned at, char out[32]) { (void)snprintf(out, 32, "new/%u", at); }

/* With zeros first: a page that is only given back keeps its bytes until it is used again. */
static void wipe(int fd) {
    static const uint8_t zeros[ZEROS_SIZE];
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return;
    for (off_t at = 0; at < st.st_size;) {
        size_t size = st.st_size - at < ZEROS_SIZE ? (size_t)(st.st_size - at) : ZEROS_SIZE;
        ssize_t n = pwrite(fd, zeros, size, at);
        if (n <= 0) break;
        at += n;
    }
    (void)!ftruncate(fd, 0);
}

static int open_again(int dir, const char *path) {
    return openat(dir, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
}

static void erase(int dir, const char *path) {
    int fd = open_again(dir, path);
    if (fd >= 0) wipe(fd);
    if (fd >= 0) (void)close(fd);
    (void)unlinkat(dir, path, 0);
}

/* One that is not in place any more: overwritten and closed, unless somebody reads it. */
static bool let_go(int fd) {
    if (fcntl(fd, F_SETLEASE, F_WRLCK) != 0) return false;
    wipe(fd);
    (void)close(fd);
    return true;
}

/* The last version but one that is still read is the reader's own affair. */
static void retire(struct sup_slot *s, int fd) {
    if (s->old >= 0 && !let_go(s->old)) (void)close(s->old);
    s->old = fd >= 0 && !let_go(fd) ? fd : -1;
}

bool sup_files_tidy(struct sup_files *f) {
    bool left = false;
    for (unsigned i = 0; i < f->n; i++) {
        struct sup_slot *s = &f->slots[i];
        if (s->old >= 0 && let_go(s->old)) s->old = -1;
        left |= s->old >= 0;
    }
    return left;
}

static RESULT find_slot(struct sup_files *f, const struct sup_file *file, unsigned *out,
                        struct why *why) {
    for (*out = 0; *out < f->n; ++*out)
        if (strcmp(f->slots[*out].next.target, file->target) == 0) return OK;
    if (f->n == SERVICE_REFS_MAX)
        return fail_with(why, ERR_TOO_LARGE, "a task has at most %d files", SERVICE_REFS_MAX);
    f->slots[f->n++] = (struct sup_slot){.next = *file, .old = -1};
    return OK;
}

RESULT sup_files_begin(struct sup_files *f, const struct sup_file *file, struct why *why) {
    char path[32];
    if (f->failed) return OK;
    if (f->writing >= 0) return fail_with(why, ERR_PROTOCOL, "a file is not whole");
    if (f->fs < 0) TRY(sup_files_open(f, why));
    TRY(grow(f, file->size, why));
    TRY(find_slot(f, file, &f->at, why));
    struct sup_slot *s = &f->slots[f->at];
    new_path(f->at, path);
    if (s->pending) erase(f->fs, path);
    s->pending = false;
    s->next = *file;
    f->writing = openat(f->fs, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (f->writing < 0) return failed(why, file->target);
    f->left = file->size;
    return sup_files_data(f, span_of(NULL, 0), why);
}

/* Owner before mode: a change of owner takes set-id bits away. */
static RESULT finish(struct sup_files *f, struct why *why) {
    struct sup_slot *s = &f->slots[f->at];
    enum err e = OK;
    if (fchown(f->writing, s->next.uid, s->next.gid) != 0 || fchmod(f->writing, s->next.mode) != 0)
        e = failed(why, s->next.target);
    (void)close(f->writing);
    f->writing = -1;
    s->pending = e == OK;
    return e;
}

RESULT sup_files_data(struct sup_files *f, struct span bytes, struct why *why) {
    if (f->failed) return OK;
    if (f->writing < 0 || bytes.size > f->left)
        return fail_with(why, ERR_PROTOCOL, "more bytes than a file has");
    while (bytes.size > 0) {
        ssize_t n = write(f->writing, bytes.at, bytes.size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return failed(why, f->slots[f->at].next.target);
        f->left -= (uint32_t)n;
        bytes = span_of(bytes.at + n, bytes.size - (size_t)n);
    }
    return f->left == 0 ? finish(f, why) : OK;
}

/* --- in place --------------------------------------------------------------------------------- */

/* The directories above secrets/a/b. */
static RESULT make_parents(const struct sup_files *f, const char *path, struct why *why) {
    char part[TARGET_MAX + 16];
    for (const char *at = strchr(path, '/'); at; at = strchr(at + 1, '/')) {
        (void)snprintf(part, sizeof part, "%.*s", (int)(at - path), path);
        if (mkdirat(f->fs, part, 0700) == 0)
            (void)!fchmodat(f->fs, part, 0755, 0);
        else if (errno != EEXIST)
            return failed(why, path);
    }
    return OK;
}

enum { INSTEAD = 0, ON_TOP = 1, NOT = 2 }; /* exit codes of a child */

struct swap {
    int mount;              /* the new file, to be mounted */
    int space, root;        /* of the task: the mount namespace, and its root in that */
    int proc;               /* ours */
    const char *target;     /* the path, in the task's root */
    const struct stat *old; /* the file that is there */
};

/* `at` is what the path led to. */
static int rebind_at(const struct swap *s, int at) {
    const unsigned how = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    struct stat st;
    char again[32];
    if (fstat(at, &st) != 0 || st.st_dev != s->old->st_dev || st.st_ino != s->old->st_ino)
        return NOT;
    if (move_mount(s->mount, "", at, "", how | MOVE_MOUNT_BENEATH) != 0)
        return move_mount(s->mount, "", at, "", how) == 0 ? ON_TOP : NOT;
    (void)snprintf(again, sizeof again, "self/fd/%d", at);
    return fchdir(s->proc) == 0 && umount2(again, MNT_DETACH) == 0 ? INSTEAD : NOT;
}

/* In the child of a fork: the new file instead of the old one in the task's mounts. Its root need
 * not be that of its mount namespace: the node itself may live in a changed root. The path is
 * walked once, to the old file and no other: a task may change what is on it at any moment. */
static int rebind(const struct swap *s) {
    if (setns(s->space, CLONE_NEWNS) != 0 || fchdir(s->root) != 0 || chroot(".") != 0) return NOT;
    int at = open(s->target, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int how = at >= 0 ? rebind_at(s, at) : NOT;
    if (at >= 0) (void)close(at);
    return how;
}

/* The end of a child, for which REPLACE_MS have to do: a path of the task's may lead to a disk that
 * does not answer. One that does not end by then is killed, and reaped with others. */
static int end_of(pid_t child) {
    int fd = (int)syscall(SYS_pidfd_open, child, 0), status = 0, n;
    struct pollfd end = {.fd = fd, .events = POLLIN};
    do
        n = fd >= 0 ? poll(&end, 1, REPLACE_MS) : 0;
    while (n < 0 && errno == EINTR);
    if (fd >= 0) (void)close(fd);
    if (n == 1)
        return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : NOT;
    (void)kill(child, SIGKILL);
    return NOT;
}

static RESULT replace_mount(const struct sup_files *f, const char *path, const char *target,
                            const struct stat *old, pid_t init, bool *on_top, struct why *why) {
    char space[64], root[64];
    struct swap s = {.mount = -1, .target = target, .old = old};
    TRY(sup_mount_copy(f->fs, path, false, MOUNT_ATTR_RDONLY, &s.mount, why));
    (void)snprintf(space, sizeof space, "/proc/%d/ns/mnt", (int)init);
    (void)snprintf(root, sizeof root, "/proc/%d/root", (int)init);
    s.space = open(space, O_RDONLY | O_CLOEXEC);
    s.root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    s.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    pid_t child = s.space >= 0 && s.root >= 0 && s.proc >= 0 ? fork() : -1;
    if (child == 0) _exit(rebind(&s));
    int how = child > 0 ? end_of(child) : NOT;
    if (s.space >= 0) (void)close(s.space);
    if (s.root >= 0) (void)close(s.root);
    if (s.proc >= 0) (void)close(s.proc);
    (void)close(s.mount);
    *on_top = how == ON_TOP;
    if (how != NOT) return OK;
    return fail_with(why, ERR_IO, "%s can't be replaced in the running task", target);
}

/* Where a file is once it is in place. */
static void place_of(const struct sup_slot *s, unsigned at, char out[TARGET_MAX + 16]) {
    if (s->next.target[0] == '/')
        sup_files_path(s, at, out);
    else
        (void)snprintf(out, TARGET_MAX + 16, "secrets/%s", s->next.target);
}

/* Instead of the old one, which is open as `fd`, or -1: there is none. */
static RESULT place_new(struct sup_files *f, unsigned at, int fd, pid_t init, bool *on_top,
                        struct why *why) {
    struct sup_slot *s = &f->slots[at];
    char from[32], to[TARGET_MAX + 16];
    struct stat st = {0};
    bool absolute = s->next.target[0] == '/';
    if (fd >= 0 && fstat(fd, &st) != 0) return failed(why, s->next.target);
    new_path(at, from);
    place_of(s, at, to);
    TRY(make_parents(f, to, why));
    if (renameat(f->fs, from, f->fs, to) != 0) return failed(why, s->next.target);
    if (!absolute || init == 0) return OK;
    enum err e = replace_mount(f, to, s->next.target, &st, init, on_top, why);
    if (e != OK) erase(f->fs, to);
    return e;
}

static RESULT place(struct sup_files *f, unsigned at, pid_t init, struct why *why) {
    struct sup_slot *s = &f->slots[at];
    char old[TARGET_MAX + 16];
    bool absolute = s->next.target[0] == '/', on_top = false;
    place_of(s, at, old);
    int fd = s->placed ? open_again(f->fs, old) : -1;
    if (absolute) s->generation++;
    enum err e = place_new(f, at, fd, init, &on_top, why);
    if (e != OK) {
        if (absolute) s->generation--;
        if (fd >= 0) (void)close(fd);
        return e;
    }
    if (absolute && s->placed && !on_top) (void)unlinkat(f->fs, old, 0);
    retire(s, fd);
    s->now = s->next;
    s->placed = true;
    s->pending = false;
    return OK;
}

RESULT sup_files_commit(struct sup_files *f, pid_t init, bool *changed, struct why *why) {
    *changed = false;
    if (f->failed) {
        f->failed = false;
        return OK;
    }
    if (f->writing >= 0) return fail_with(why, ERR_PROTOCOL, "a file is not whole");
    for (unsigned i = 0; i < f->n; i++) {
        if (!f->slots[i].pending) continue;
        TRY(place(f, i, init, why));
        *changed = true;
    }
    return OK;
}

void sup_files_forget(struct sup_files *f) {
    char path[32];
    if (f->writing >= 0) (void)close(f->writing);
    f->writing = -1;
    f->failed = false;
    for (unsigned i = 0; f->fs >= 0 && i < f->n; i++) {
        new_path(i, path);
        erase(f->fs, path);
        f->slots[i].pending = false;
    }
}

void sup_files_fail(struct sup_files *f) {
    sup_files_forget(f);
    f->failed = true;
}

/* --- the end ---------------------------------------------------------------------------------- */

void sup_files_close(struct sup_files *f) {
    char path[TARGET_MAX + 16];
    sup_files_forget(f);
    for (unsigned i = 0; f->fs >= 0 && i < f->n; i++) {
        const struct sup_slot *s = &f->slots[i];
        if (s->old >= 0) wipe(s->old);
        if (s->old >= 0) (void)close(s->old);
        if (!s->placed) continue;
        place_of(s, i, path);
        erase(f->fs, path);
    }
    if (f->fs >= 0) (void)close(f->fs);
    /* Out of our mount namespace, which is then nobody's. */
    if (f->home >= 0) (void)!setns(f->home, CLONE_NEWNS);
    if (f->home >= 0) (void)close(f->home);
    f->fs = f->home = f->writing = -1;
    f->n = 0;
}
