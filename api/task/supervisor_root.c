/* The root that a task sees. It is a small tmpfs of its own, read-only in the end, into which each
 * name of the image's top level is bound, read-only and without devices; what every task needs is
 * then put on it:
 *
 *   /proc  of its own PID namespace, the dangerous parts of it read-only or hidden
 *   /dev   null, zero, full, random, urandom, tty, a pts and a shm of its own; no disk, no memory
 *   /tmp, /run  empty and its own; /run/secrets: the secrets, read-only
 *   the node's data directory and its other /proc are covered by an empty directory, wherever the
 *   image or a mount shows them
 *
 * Everything of the node that is needed is copied as detached mounts first; then the new root is
 * entered and the old one given up; then paths are resolved, by the kernel, inside the new root
 * alone: links in an image lead nowhere else. Runs in the task's init, in its namespaces. */
#include "api/task/supervisor_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define ROOT_ENTRIES_MAX 512 /* names of an image's top level */
#define TMP_SIZE         "268435456"
#define RUN_SIZE         "16777216"
#define SHM_SIZE         "67108864"

#define PLAIN (MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID)

static RESULT failed(struct why *why, const char *what) {
    int error = errno;
    if (error == ENOSYS)
        return fail_with(why, ERR_UNSUPPORTED,
                         "this kernel has no mount_setattr: tasks need Linux 5.12 or later");
    return fail_with(why, err_from_errno(error), "%s: %s", what, strerror(error));
}

/* --- mounts ----------------------------------------------------------------------------------- */

/* Options come in pairs; a flag's value is NULL. */
static bool configure(int context, const char *const options[]) {
    for (; options[0]; options += 2) {
        unsigned how = options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
        if (fsconfig(context, how, options[0], options[1], 0) != 0) return false;
    }
    return fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0;
}

RESULT sup_mount_new(const char *type, const char *const options[], unsigned attributes, int *out,
                     struct why *why) {
    int context = fsopen(type, FSOPEN_CLOEXEC);
    *out = -1;
    if (context >= 0 && configure(context, options))
        *out = fsmount(context, FSMOUNT_CLOEXEC, attributes);
    enum err e = *out >= 0 ? OK : failed(why, type);
    if (context >= 0) (void)close(context);
    return e;
}

RESULT sup_mount_copy(int dir, const char *path, bool whole, uint64_t attributes, int *out,
                      struct why *why) {
    struct mount_attr change = {.attr_set = attributes, .propagation = MS_PRIVATE};
    unsigned deep = whole ? AT_RECURSIVE : 0, empty = path[0] ? 0 : AT_EMPTY_PATH;
    *out = open_tree(dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | deep | empty);
    if (*out >= 0 && mount_setattr(*out, "", AT_EMPTY_PATH | deep, &change, sizeof change) == 0)
        return OK;
    enum err e = failed(why, path[0] ? path : "mount");
    if (*out >= 0) (void)close(*out);
    *out = -1;
    return e;
}

RESULT sup_mount_place(int mount, int dir, const char *path, struct why *why) {
    if (move_mount(mount, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH) == 0) return OK;
    return failed(why, path);
}

/* Closes `mount` in any case. */
static RESULT put(int mount, int dir, const char *path, struct why *why) {
    enum err e = sup_mount_place(mount, dir, path, why);
    (void)close(mount);
    return e;
}

static RESULT put_new(const char *type, const char *const options[], unsigned attributes,
                      const char *path, struct why *why) {
    int mount;
    TRY(sup_mount_new(type, options, attributes, &mount, why));
    return put(mount, AT_FDCWD, path, why);
}

RESULT sup_mount_point(const char *path, bool directory, struct why *why) {
    char part[SUP_PATH_MAX];
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode) == !directory) return OK;
    for (const char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        (void)snprintf(part, sizeof part, "%.*s", (int)(at - path), path);
        if (mkdir(part, 0755) == 0) (void)!chmod(part, 0755);
    }
    int fd = -1;
    bool made = directory ? mkdir(path, 0755) == 0
                          : (fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644)) >= 0;
    if (fd >= 0) (void)close(fd);
    if (made) return OK;
    int error = errno;
    return fail_with(why, err_from_errno(error),
                     "%s is not there, and can't be made: %s; the image has to have an empty %s of "
                     "that name",
                     path, error == EROFS ? "the image is read-only" : strerror(error),
                     directory ? "directory" : "file");
}

/* --- before the new root is entered ----------------------------------------------------------- */

struct sources {
    struct sup_hidden hidden;
    int secrets;                    /* the directory of secrets, read-only */
    int files[SERVICE_REFS_MAX];    /* single ones; -1 */
    int mounts[SERVICE_MOUNTS_MAX]; /* what the service binds */
    int devices[8];                 /* of /dev */
    int resolver;                   /* what /etc/resolv.conf is, when that is below /run; -1 */
    char resolver_path[SUP_PATH_MAX];
};

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};

static RESULT copy_files(const struct sup_files *f, struct sources *s, struct why *why) {
    char path[32];
    TRY(sup_mount_copy(f->fs, "secrets", false, MOUNT_ATTR_RDONLY, &s->secrets, why));
    for (unsigned i = 0; i < f->n; i++) {
        s->files[i] = -1;
        if (f->slots[i].now.target[0] != '/') continue;
        sup_files_path(&f->slots[i], i, path);
        TRY(sup_mount_copy(f->fs, path, false, MOUNT_ATTR_RDONLY, &s->files[i], why));
    }
    return OK;
}

bool sup_is_below(const char *path, const char *dir) {
    size_t size = strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return strncmp(path, dir, size) == 0 && (path[size] == '/' || path[size] == '\0');
}

struct bind {
    bool read_only;
    char source[SUP_PATH_MAX], target[SUP_PATH_MAX];
};

static RESULT next_bind(struct cursor *list, struct bind *out, struct why *why) {
    struct span block;
    uint8_t read_only;
    struct cursor in;
    bool good = cursor_block(list, SERVICE_TEXT_MAX, &block) == OK;
    in = cursor_of(block);
    good = good && cursor_u8(&in, &read_only) == OK &&
           cursor_text(&in, out->source, sizeof out->source) == OK &&
           cursor_text(&in, out->target, sizeof out->target) == OK && cursor_end(&in) == OK;
    if (!good) return fail_with(why, ERR_INVALID, "a mount can't be read, or a path is too long");
    out->read_only = read_only != 0;
    if (out->source[0] != '/' || sup_target_check(out->target, why) != OK || out->target[0] != '/')
        return fail_with(why, ERR_INVALID, "a mount needs absolute paths: '%s' to '%s'",
                         out->source, out->target);
    return OK;
}

/* What a service binds must not be, have, or lie in the data directory, nor show processes of the
 * node. */
static RESULT copy_mounts(const struct sup_order *o, struct sources *s, struct why *why) {
    struct cursor list = cursor_of(o->mounts);
    struct bind b;
    for (unsigned i = 0; list.left > 0 && i < SERVICE_MOUNTS_MAX; i++) {
        TRY(next_bind(&list, &b, why));
        char real[PATH_MAX];
        struct statfs st;
        if (!realpath(b.source, real) || statfs(real, &st) != 0) return failed(why, b.source);
        if (sup_is_below(real, o->data) || sup_is_below(o->data, real))
            return fail_with(why, ERR_PERMISSION,
                             "%s can't be mounted: the node's data directory is there", b.source);
        if (st.f_type == PROC_SUPER_MAGIC)
            return fail_with(why, ERR_PERMISSION,
                             "%s can't be mounted: the node's processes are there", b.source);
        TRY(sup_mount_copy(AT_FDCWD, real, true, PLAIN | (b.read_only ? MOUNT_ATTR_RDONLY : 0),
                           &s->mounts[i], why));
    }
    return OK;
}

static RESULT copy_devices(struct sources *s, struct why *why) {
    char path[64];
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        (void)snprintf(path, sizeof path, "/dev/%s", devices[i]);
        TRY(sup_mount_copy(AT_FDCWD, path, false, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                           &s->devices[i], why));
    }
    return OK;
}

/* Names are resolved by a file that is often a link into /run, which the task has its own of. */
static void copy_resolver(const struct sup_order *o, struct sources *s) {
    char real[PATH_MAX];
    s->resolver = -1;
    if (strcmp(o->image, "host") != 0 || !realpath("/etc/resolv.conf", real)) return;
    if (!sup_is_below(real, "/run") || strlen(real) >= sizeof s->resolver_path) return;
    (void)snprintf(s->resolver_path, sizeof s->resolver_path, "%.*s", SUP_PATH_MAX - 1, real);
    (void)!sup_mount_copy(AT_FDCWD, real, false, PLAIN | MOUNT_ATTR_RDONLY, &s->resolver, NULL);
}

/* --- the image's top level -------------------------------------------------------------------- */

static bool is_own(const char *name) {
    static const char *const own[] = {".", "..", "proc", "dev", "run", "tmp", "lost+found"};
    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        if (strcmp(own[i], name) == 0) return true;
    return false;
}

static RESULT bind_entry(int image, int root, const char *name, struct why *why) {
    struct stat st;
    char link[PATH_MAX];
    int mount;
    if (fstatat(image, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return OK; /* gone meanwhile */
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlinkat(image, name, link, sizeof link - 1);
        if (n < 0) return OK;
        link[n] = '\0';
        return symlinkat(link, root, name) == 0 ? OK : failed(why, name);
    }
    if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)) return OK;
    int fd = -1;
    bool made = S_ISDIR(st.st_mode)
                    ? mkdirat(root, name, 0755) == 0
                    : (fd = openat(root, name, O_CREAT | O_EXCL | O_CLOEXEC, 0644)) >= 0;
    if (fd >= 0) (void)close(fd);
    if (!made) return failed(why, name);
    TRY(sup_mount_copy(image, name, S_ISDIR(st.st_mode), PLAIN | MOUNT_ATTR_RDONLY, &mount, why));
    return put(mount, root, name, why);
}

static RESULT bind_image(const char *path, int root, struct why *why) {
    int image = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (image < 0)
        return fail_with(why, ERR_NOT_FOUND, "the image %s is no root file system of this node: %s",
                         path, strerror(errno));
    DIR *dir = fdopendir(dup(image));
    enum err e = dir ? OK : failed(why, path);
    unsigned n = 0;
    for (const struct dirent *d; dir && e == OK && (d = readdir(dir));) {
        if (is_own(d->d_name)) continue;
        if (++n > ROOT_ENTRIES_MAX)
            e = fail_with(why, ERR_TOO_LARGE, "the image %s has more than %d names in its root",
                          path, ROOT_ENTRIES_MAX);
        else
            e = bind_entry(image, root, d->d_name, why);
    }
    if (dir) (void)closedir(dir);
    (void)close(image);
    return e;
}

/* --- inside ----------------------------------------------------------------------------------- */

static RESULT make_dir(const char *path, mode_t mode, struct why *why) {
    return mkdir(path, 0700) == 0 && chmod(path, mode) == 0 ? OK : failed(why, path);
}

/* Something of /proc that would change the node, or tell of it. */
static RESULT fence_proc(struct why *why) {
    static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                            "/proc/sysrq-trigger"};
    static const char *const hidden[] = {
        "/proc/kcore",      "/proc/keys",         "/proc/kmsg",        "/proc/key-users",
        "/proc/timer_list", "/proc/sched_debug",  "/proc/vmallocinfo", "/proc/kpagecount",
        "/proc/kallsyms",   "/proc/latency_stats"};
    int mount;
    for (size_t i = 0; i < ARRAY_SIZE(read_only); i++) {
        if (access(read_only[i], F_OK) != 0) continue;
        TRY(sup_mount_copy(AT_FDCWD, read_only[i], true, PLAIN | MOUNT_ATTR_RDONLY, &mount, why));
        TRY(put(mount, AT_FDCWD, read_only[i], why));
    }
    for (size_t i = 0; i < ARRAY_SIZE(hidden); i++) {
        if (access(hidden[i], F_OK) != 0) continue;
        TRY(sup_mount_copy(AT_FDCWD, "/dev/null", false, 0, &mount, why));
        TRY(put(mount, AT_FDCWD, hidden[i], why));
    }
    return OK;
}

static RESULT make_proc(struct why *why) {
    static const char *const options[] = {"hidepid", "2", NULL};
    TRY(make_dir("/proc", 0555, why));
    TRY(put_new("proc", options, PLAIN | MOUNT_ATTR_NOEXEC, "/proc", why));
    return fence_proc(why);
}

static RESULT make_dev(const struct sources *s, struct why *why) {
    static const char *const small[] = {"mode", "0755", "size", "65536", NULL};
    static const char *const shm[] = {"mode", "1777", "size", SHM_SIZE, NULL};
    static const char *const pts[] = {"newinstance", NULL,   "ptmxmode", "0666",
                                      "mode",        "0620", NULL};
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"},
                                           {"pts/ptmx", "/dev/ptmx"}};
    struct mount_attr sealed = {.attr_set = MOUNT_ATTR_RDONLY};
    char path[64];
    TRY(make_dir("/dev", 0755, why));
    TRY(put_new("tmpfs", small, PLAIN | MOUNT_ATTR_NOEXEC, "/dev", why));
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        (void)snprintf(path, sizeof path, "/dev/%s", devices[i]);
        TRY(sup_mount_point(path, false, why));
        TRY(sup_mount_place(s->devices[i], AT_FDCWD, path, why));
    }
    for (size_t i = 0; i < ARRAY_SIZE(links); i++)
        if (symlink(links[i][0], links[i][1]) != 0) return failed(why, links[i][1]);
    TRY(make_dir("/dev/pts", 0755, why));
    TRY(put_new("devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "/dev/pts", why));
    TRY(make_dir("/dev/shm", 0755, why));
    TRY(put_new("tmpfs", shm, PLAIN | MOUNT_ATTR_NOEXEC, "/dev/shm", why));
    if (mount_setattr(AT_FDCWD, "/dev", 0, &sealed, sizeof sealed) != 0) return failed(why, "/dev");
    return OK;
}

static RESULT make_scratch(struct why *why) {
    static const char *const tmp[] = {"mode", "1777", "size", TMP_SIZE, NULL};
    static const char *const run[] = {"mode", "0755", "size", RUN_SIZE, NULL};
    TRY(make_dir("/tmp", 0755, why));
    TRY(put_new("tmpfs", tmp, PLAIN, "/tmp", why));
    TRY(make_dir("/run", 0755, why));
    return put_new("tmpfs", run, PLAIN, "/run", why);
}

static RESULT bind_mounts(const struct sup_order *o, const struct sources *s, struct why *why) {
    struct cursor list = cursor_of(o->mounts);
    struct bind b;
    struct stat st;
    for (unsigned i = 0; list.left > 0 && i < SERVICE_MOUNTS_MAX; i++) {
        TRY(next_bind(&list, &b, why));
        if (fstat(s->mounts[i], &st) != 0) return failed(why, b.source);
        TRY(sup_mount_point(b.target, S_ISDIR(st.st_mode), why));
        TRY(sup_mount_place(s->mounts[i], AT_FDCWD, b.target, why));
    }
    return OK;
}

static RESULT bind_files(const struct sup_files *f, const struct sources *s, struct why *why) {
    TRY(sup_mount_point("/run/secrets", true, why));
    TRY(sup_mount_place(s->secrets, AT_FDCWD, "/run/secrets", why));
    for (unsigned i = 0; i < f->n; i++) {
        if (s->files[i] < 0) continue;
        TRY(sup_mount_point(f->slots[i].now.target, false, why));
        TRY(sup_mount_place(s->files[i], AT_FDCWD, f->slots[i].now.target, why));
    }
    return OK;
}

static RESULT fill_root(const struct sup_order *o, const struct sup_files *f,
                        const struct sources *s, struct why *why) {
    struct mount_attr sealed = {.attr_set = MOUNT_ATTR_RDONLY};
    TRY(make_dev(s, why));
    TRY(make_proc(why));
    TRY(make_scratch(why));
    if (s->resolver >= 0 && sup_mount_point(s->resolver_path, false, NULL) == OK)
        TRY(sup_mount_place(s->resolver, AT_FDCWD, s->resolver_path, why));
    TRY(bind_mounts(o, s, why));
    TRY(sup_hidden_cover(&s->hidden, why));
    TRY(bind_files(f, s, why));
    if (mount_setattr(AT_FDCWD, "/", 0, &sealed, sizeof sealed) != 0) return failed(why, "/");
    return OK;
}

/* Nothing of the node may be left over the new root, where ".." would lead to it. */
static bool is_alone(int root) {
    struct stat at, up;
    return fstat(root, &at) == 0 && stat("/..", &up) == 0 && at.st_dev == up.st_dev &&
           at.st_ino == up.st_ino;
}

static RESULT enter(int root, struct why *why) {
    TRY(sup_mount_place(root, AT_FDCWD, "/", why));
    if (fchdir(root) == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
        umount2(".", MNT_DETACH) == 0 && chdir("/") == 0)
        return is_alone(root) ? OK
                              : fail_with(why, ERR_INTERNAL, "the node's root can't be given up");
    return failed(why, "the root of the task can't be entered (pivot_root)");
}

static RESULT enter_root(const struct sup_order *o, const struct sup_files *f, struct sources *s,
                         struct why *why) {
    static const char *const small[] = {"mode", "0755", "size", "4194304", NULL};
    const char *image = strcmp(o->image, "host") == 0 ? "/" : o->image;
    int root;
    TRY(copy_files(f, s, why)); /* of the supervisor's namespace: before we leave it */
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return failed(why, "this node can't make mount namespaces, which a task needs");
    /* The supervisor's file system lies over the root in our copy of its mounts. */
    if (umount2("/", MNT_DETACH) != 0) return failed(why, "the files' memory can't be let go");
    TRY(sup_hidden_find(o->data, &s->hidden, why));
    TRY(copy_mounts(o, s, why));
    TRY(copy_devices(s, why));
    copy_resolver(o, s);
    TRY(sup_mount_new("tmpfs", small, PLAIN, &root, why));
    TRY(bind_image(image, root, why));
    TRY(enter(root, why));
    return fill_root(o, f, s, why);
}

/* What is opened here is closed by the init at once after (sup_task). */
RESULT sup_root_enter(const struct sup_order *o, const struct sup_files *f, struct why *why) {
    struct sources *s = calloc(1, sizeof *s);
    if (!s) return ERR_NOMEM;
    enum err e = enter_root(o, f, s, why);
    free(s);
    return e;
}
