/* The disk of disk.h on Linux: a tree under one directory, held by a file descriptor, so that
 * nobody can move it away underneath; every path is opened relative to it and never through a
 * symbolic link at its end. The directory is locked by an open-file-description lock on `LOCK`,
 * which the kernel drops when the process ends, however it ends. `LOCK` is not listed.
 *
 * Failures: every call says "<path>: <operation>: <system's words>". Interrupted and short calls
 * are gone on with. Nothing is retried after an error. Errors of close are ignored: what must be
 * kept was synced before. */
#include "crypto/disk.h"

#include "crypto/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LOCK_NAME  "LOCK"
#define LIST_MAX   65536      /* names in one directory */
#define ZEROS_SIZE (64 * KIB) /* bytes a write where the file system can't reserve */

struct real_disk {
    struct disk disk; /* the interface; first, so that a cast leads here */
    int root;         /* the directory */
    int lock;         /* `LOCK`, open as long as the disk is */
};

struct real_file {
    struct file file;     /* the interface; first */
    int fd;               /* owned */
    bool direct;          /* O_DIRECT: memory, offset and size are aligned */
    bool grown;           /* the size has changed since the last sync */
    uint64_t size;        /* bytes, as this handle knows it */
    char path[PATH_ROOM]; /* for sentences */
};

static enum err say(struct why *why, const char *path, const char *what, int os_error) {
    const char *words = strerrordesc_np(os_error);
    return fail_with(why, err_from_errno(os_error), "%s: %s: %s", path[0] == '\0' ? "." : path,
                     what, words != NULL ? words : "unknown error");
}

static int root_of(struct disk *d) { return ((struct real_disk *)d)->root; }
static struct real_file *real(struct file *f) { return (struct real_file *)f; }

/* Relative, no empty, "." or ".." component, shorter than PATH_ROOM. */
static bool path_fits(const char *path) {
    size_t size = strnlen(path, PATH_ROOM);
    if (size == 0 || size == PATH_ROOM) return false;
    for (const char *at = path;; at++) {
        size_t part = strcspn(at, "/");
        if (part == 0 || (part == 1 && at[0] == '.')) return false;
        if (part == 2 && at[0] == '.' && at[1] == '.') return false;
        at += part;
        if (*at == '\0') return true;
    }
}

static enum err check_path(const char *path, const char *what, struct why *why) {
    if (path_fits(path)) return OK;
    return fail_with(why, ERR_INVALID, "%.100s: %s: not a path under the root", path, what);
}

static int open_again(int root, const char *path, int flags) {
    int fd;
    do
        fd = openat(root, path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* Opens with O_DIRECT when asked to and possible. Creating and O_DIRECT are two steps, because
 * some file systems create the file and then refuse the flag. */
static int open_file(int root, const char *path, unsigned flags, bool *direct) {
    bool create = (flags & DISK_CREATE) != 0;
    int access = flags & (DISK_CREATE | DISK_WRITE) ? O_RDWR : O_RDONLY;
    int synced = access == O_RDWR && (flags & DISK_DIRECT) ? O_DSYNC : 0;
    *direct = false;
    int plain = -1;
    if (create) {
        plain = open_again(root, path, access | O_CREAT | O_EXCL);
        if (plain < 0) return -1;
    }
    if ((flags & DISK_DIRECT) || ((flags & DISK_BULK) && access == O_RDWR)) {
        int fd = open_again(root, path, access | O_DIRECT | synced);
        *direct = fd >= 0;
        if (fd >= 0 && plain >= 0) (void)close(plain);
        if (fd >= 0) return fd;
        if (errno != EINVAL && plain < 0) return -1;
    }
    return plain >= 0 ? plain : open_again(root, path, access);
}

/* Nothing is to be read ahead. Pages that an earlier reader left in the cache are marked where its
 * read-ahead would have gone on, and the mark counts for everybody: they go first. Where the advice
 * isn't taken, reads are only less polite. */
static void advise(int fd) {
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
}

static enum err file_open(struct disk *d, const char *path, unsigned flags, struct file **out,
                          struct why *why) {
    TRY(check_path(path, "open", why));
    struct real_file *f = calloc(1, sizeof *f);
    if (f == NULL) return say(why, path, "open", ENOMEM);
    memcpy(f->path, path, strlen(path) + 1);
    f->file.disk = d;
    f->fd = open_file(root_of(d), path, flags, &f->direct);
    struct stat st;
    if (f->fd >= 0 && (flags & DISK_BULK)) advise(f->fd);
    if (f->fd < 0 || fstat(f->fd, &st) != 0) {
        int os_error = errno;
        if (f->fd >= 0) (void)close(f->fd);
        free(f);
        return say(why, path, "open", os_error);
    }
    bool synced = (flags & DISK_DIRECT) && (flags & (DISK_CREATE | DISK_WRITE));
    f->file.durable_writes = f->direct && synced;
    f->grown = (flags & DISK_CREATE) != 0;
    f->size = (uint64_t)st.st_size;
    *out = &f->file;
    return OK;
}

static void file_close(struct file *f) {
    (void)close(real(f)->fd);
    free(f);
}

static enum err check_range(struct real_file *f, uint64_t offset, size_t size, const char *what,
                            struct why *why) {
    if (offset <= INT64_MAX && size <= (uint64_t)INT64_MAX - offset) return OK;
    return say(why, f->path, what, EINVAL);
}

/* An aligned file can't be read on after an unaligned end. */
static bool read_ends(const struct real_file *f, ssize_t got, size_t total) {
    return got == 0 || (f->direct && total % BLOCK_SIZE != 0);
}

static enum err file_read(struct file *file, uint64_t offset, void *at, size_t size, size_t *got,
                          struct why *why) {
    struct real_file *f = real(file);
    TRY(check_range(f, offset, size, "read", why));
    size_t total = 0;
    while (total < size) {
        ssize_t n = pread(f->fd, (uint8_t *)at + total, size - total, (off_t)(offset + total));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return say(why, f->path, "read", errno);
        total += (size_t)n;
        if (read_ends(f, n, total)) break;
    }
    *got = total;
    return OK;
}

/* A file system may take the flag at open and refuse the write: O_DSYNC, where it was asked for,
 * stays, so it is as durable. */
static bool leave_direct(struct real_file *f, int os_error) {
    if (os_error != EINVAL || !f->direct) return false;
    int flags = fcntl(f->fd, F_GETFL);
    if (flags < 0 || fcntl(f->fd, F_SETFL, flags & ~O_DIRECT) != 0) return false;
    f->direct = false;
    return true;
}

static enum err file_write(struct file *file, uint64_t offset, const void *at, size_t size,
                           struct why *why) {
    struct real_file *f = real(file);
    TRY(check_range(f, offset, size, "write", why));
    size_t total = 0;
    while (total < size) {
        ssize_t n =
            pwrite(f->fd, (const uint8_t *)at + total, size - total, (off_t)(offset + total));
        if (n < 0 && (errno == EINTR || leave_direct(f, errno))) continue;
        if (n < 0) return say(why, f->path, "write", errno);
        if (n == 0) return say(why, f->path, "write", EIO);
        total += (size_t)n;
    }
    if (offset + size > f->size) {
        f->size = offset + size;
        f->grown = true;
    }
    return OK;
}

/* Where the file system can't reserve, only bytes that were written are sure to have a place. */
static enum err write_zeros(struct real_file *f, uint64_t size, struct why *why) {
    void *zeros;
    if (posix_memalign(&zeros, BLOCK_SIZE, ZEROS_SIZE) != 0)
        return say(why, f->path, "allocate", ENOMEM);
    memset(zeros, 0, ZEROS_SIZE); /* no secret: to be written */
    uint64_t before = f->size;
    enum err e = OK;
    while (e == OK && f->size < size) {
        uint64_t left = size - f->size;
        e = file_write(&f->file, f->size, zeros, left < ZEROS_SIZE ? (size_t)left : ZEROS_SIZE,
                       why);
    }
    free(zeros);
    if (e != OK && ftruncate(f->fd, (off_t)before) == 0) f->size = before;
    return e;
}

static int reserve(int fd, uint64_t size) {
    int status;
    do
        status = fallocate(fd, 0, 0, (off_t)size);
    while (status != 0 && errno == EINTR);
    return status == 0 ? 0 : errno;
}

static enum err file_allocate(struct file *file, uint64_t size, struct why *why) {
    struct real_file *f = real(file);
    TRY(check_range(f, size, 0, "allocate", why));
    int os_error = size == 0 ? 0 : reserve(f->fd, size);
    if (os_error == EOPNOTSUPP) {
        TRY(write_zeros(f, size, why));
        os_error = 0;
    }
    if (os_error == 0 && f->size > size && ftruncate(f->fd, (off_t)size) != 0) os_error = errno;
    if (os_error != 0) return say(why, f->path, "allocate", os_error);
    f->size = size;
    f->grown = true;
    return OK;
}

static enum err file_sync(struct file *file, struct why *why) {
    struct real_file *f = real(file);
    if ((f->grown ? fsync(f->fd) : fdatasync(f->fd)) != 0) return say(why, f->path, "sync", errno);
    f->grown = false;
    return OK;
}

static enum err file_size(struct file *file, uint64_t *out, struct why *why) {
    struct stat st;
    if (fstat(real(file)->fd, &st) != 0) return say(why, real(file)->path, "size", errno);
    *out = (uint64_t)st.st_size;
    return OK;
}

static enum err name_rename(struct disk *d, const char *from, const char *to, struct why *why) {
    TRY(check_path(from, "rename", why));
    TRY(check_path(to, "rename", why));
    if (renameat(root_of(d), from, root_of(d), to) == 0) return OK;
    return say(why, from, "rename", errno);
}

static enum err name_remove(struct disk *d, const char *path, struct why *why) {
    TRY(check_path(path, "remove", why));
    return unlinkat(root_of(d), path, 0) == 0 ? OK : say(why, path, "remove", errno);
}

static enum err dir_make(struct disk *d, const char *path, struct why *why) {
    TRY(check_path(path, "make directory", why));
    if (mkdirat(root_of(d), path, 0700) == 0) return OK;
    int os_error = errno;
    struct stat st;
    if (os_error == EEXIST && fstatat(root_of(d), path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(st.st_mode))
        return OK;
    return say(why, path, "make directory", os_error);
}

static int open_dir(struct disk *d, const char *path) {
    return open_again(root_of(d), path[0] == '\0' ? "." : path, O_RDONLY | O_DIRECTORY);
}

static enum err dir_sync(struct disk *d, const char *path, struct why *why) {
    if (path[0] != '\0') TRY(check_path(path, "sync directory", why));
    int fd = open_dir(d, path);
    if (fd < 0) return say(why, path, "sync directory", errno);
    int os_error = fsync(fd) == 0 ? 0 : errno;
    (void)close(fd);
    return os_error == 0 ? OK : say(why, path, "sync directory", os_error);
}

struct names {
    char **at;    /* each malloc'ed */
    size_t count; /* names in use */
    size_t room;  /* names allocated */
};

static void names_free(struct names *n) {
    for (size_t i = 0; i < n->count; i++)
        free(n->at[i]);
    free(n->at);
}

static int names_add(struct names *n, const char *name) {
    if (n->count == LIST_MAX) return EOVERFLOW;
    if (n->count == n->room) {
        size_t room = n->room == 0 ? 32 : n->room * 2;
        char **at = realloc(n->at, room * sizeof *at);
        if (at == NULL) return ENOMEM;
        n->at = at;
        n->room = room;
    }
    size_t size = strlen(name) + 1;
    char *copy = malloc(size);
    if (copy == NULL) return ENOMEM;
    memcpy(copy, name, size);
    n->at[n->count++] = copy;
    return 0;
}

static bool listed(DIR *dir, const struct dirent *entry, bool root) {
    struct stat st;
    if (root && strcmp(entry->d_name, LOCK_NAME) == 0) return false;
    if (entry->d_type != DT_UNKNOWN) return entry->d_type != DT_DIR;
    if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) return false;
    return !S_ISDIR(st.st_mode);
}

static int names_read(struct names *n, DIR *dir, bool root) {
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) return errno;
        if (!listed(dir, entry, root)) continue;
        int os_error = names_add(n, entry->d_name);
        if (os_error != 0) return os_error;
    }
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum err dir_list(struct disk *d, const char *path, void (*each)(void *, const char *),
                         void *ctx, struct why *why) {
    if (path[0] != '\0') TRY(check_path(path, "list", why));
    int fd = open_dir(d, path);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        int os_error = errno;
        if (fd >= 0) (void)close(fd);
        return say(why, path, "list", os_error);
    }
    struct names names = {0};
    int os_error = names_read(&names, dir, path[0] == '\0');
    (void)closedir(dir);
    if (os_error == 0 && names.count != 0) qsort(names.at, names.count, sizeof *names.at, by_bytes);
    for (size_t i = 0; os_error == 0 && i < names.count; i++)
        each(ctx, names.at[i]);
    names_free(&names);
    return os_error == 0 ? OK : say(why, path, "list", os_error);
}

static enum err disk_space(struct disk *d, uint64_t *free_bytes, struct why *why) {
    struct statvfs st;
    if (fstatvfs(root_of(d), &st) != 0) return say(why, "", "space", errno);
    *free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return OK;
}

static const struct disk real_calls = {
    .open = file_open,
    .close = file_close,
    .read = file_read,
    .write = file_write,
    .allocate = file_allocate,
    .sync = file_sync,
    .size = file_size,
    .rename = name_rename,
    .remove = name_remove,
    .make_dir = dir_make,
    .sync_dir = dir_sync,
    .list = dir_list,
    .space = disk_space,
};

/* Makes and opens the root. A directory that was just made gets its name synced in its parent. */
static enum err root_open(const char *root, int *out, struct why *why) {
    bool made = mkdir(root, 0700) == 0;
    if (!made && errno != EEXIST) return say(why, root, "make directory", errno);
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return say(why, root, "open", errno);
    int parent = made ? openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int os_error = parent < 0 || fsync(parent) == 0 ? 0 : errno;
    if (parent >= 0) (void)close(parent);
    if (os_error != 0) {
        (void)close(fd);
        return say(why, root, "sync parent directory", os_error);
    }
    *out = fd;
    return OK;
}

static enum err root_lock(const char *root, int root_fd, int *out, struct why *why) {
    int fd = open_again(root_fd, LOCK_NAME, O_RDWR | O_CREAT);
    if (fd < 0) return fail_in(why, say(why, LOCK_NAME, "open", errno), root);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        int os_error = errno;
        (void)close(fd);
        if (os_error != EAGAIN && os_error != EACCES) return say(why, root, "lock", os_error);
        return fail_with(why, ERR_IN_USE, "%s: another process uses this directory", root);
    }
    *out = fd;
    return OK;
}

RESULT disk_real_open(const char *root, struct disk **out, struct why *why) {
    struct real_disk *d = calloc(1, sizeof *d);
    if (d == NULL) return say(why, root, "open", ENOMEM);
    d->disk = real_calls;
    enum err e = root_open(root, &d->root, why);
    if (e == OK) {
        e = root_lock(root, d->root, &d->lock, why);
        if (e != OK) (void)close(d->root);
    }
    if (e != OK) {
        free(d);
        return e;
    }
    *out = &d->disk;
    return OK;
}

void disk_real_close(struct disk *disk) {
    struct real_disk *d = (struct real_disk *)disk;
    (void)close(d->lock);
    (void)close(d->root);
    free(d);
}
