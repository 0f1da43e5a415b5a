/* See timed_disk.h. A file of ours holds the one of the disk below; everything is passed on. The
 * log fills its next segment with zeros as log/spare, which nobody waits for: that file counts
 * from its renaming on, which the log does under the same lock as the filling. */
#include "api/timed_disk.h"

#include <stdlib.h>
#include <time.h>

#define SPARE "log/spare"

struct timed_disk {
    struct disk disk;                 /* first: a struct disk * of ours is a struct timed_disk * */
    struct disk *inner;               /* borrowed */
    struct disk_times *times;         /* the caller's */
    struct timed_file *_Atomic spare; /* open as log/spare; NULL: none; of any thread that closes */
};

struct timed_file {
    struct file file;        /* first, as above */
    struct file *inner;      /* owned */
    struct histogram *times; /* where it is counted; NULL: nowhere */
};

static struct timed_disk *timed_of(struct disk *d) { return (struct timed_disk *)(void *)d; }
static struct disk *inner_of(struct disk *d) { return timed_of(d)->inner; }
static struct timed_file *file_of(struct file *f) { return (struct timed_file *)(void *)f; }

static uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct histogram *times_of(const struct timed_disk *d, const char *path) {
    if (strcmp(path, SPARE) == 0) return NULL;
    if (strncmp(path, "log/", 4) == 0) return &d->times->log;
    if (strncmp(path, "snapshots/", 10) == 0) return &d->times->snapshot;
    return NULL;
}

static RESULT timed_open(struct disk *d, const char *path, unsigned flags, struct file **out,
                         struct why *why) {
    struct timed_disk *t = timed_of(d);
    struct timed_file *f = malloc(sizeof *f);
    if (f == NULL) return fail_with(why, ERR_NOMEM, "%s: out of memory", path);
    enum err e = t->inner->open(t->inner, path, flags, &f->inner, why);
    if (e != OK) {
        free(f);
        return e;
    }
    f->file = (struct file){.disk = d, .durable_writes = f->inner->durable_writes};
    f->times = times_of(t, path);
    if (strcmp(path, SPARE) == 0) t->spare = f;
    *out = &f->file;
    return OK;
}

static void timed_close(struct file *f) {
    struct file *inner = file_of(f)->inner;
    struct timed_disk *d = timed_of(f->disk);
    if (d->spare == file_of(f)) d->spare = NULL;
    inner->disk->close(inner);
    free(f);
}

static RESULT timed_read(struct file *f, uint64_t offset, void *at, size_t size, size_t *got,
                         struct why *why) {
    struct file *inner = file_of(f)->inner;
    return inner->disk->read(inner, offset, at, size, got, why);
}

static RESULT timed_write(struct file *f, uint64_t offset, const void *at, size_t size,
                          struct why *why) {
    struct timed_file *t = file_of(f);
    bool counted = t->times != NULL && f->durable_writes;
    uint64_t before = counted ? now_ns() : 0;
    enum err e = t->inner->disk->write(t->inner, offset, at, size, why);
    f->durable_writes = t->inner->durable_writes; /* a disk may find out that it can't */
    if (counted && e == OK) histogram_add(t->times, now_ns() - before);
    return e;
}

static RESULT timed_allocate(struct file *f, uint64_t size, struct why *why) {
    struct file *inner = file_of(f)->inner;
    return inner->disk->allocate(inner, size, why);
}

static RESULT timed_sync(struct file *f, struct why *why) {
    struct timed_file *t = file_of(f);
    uint64_t before = now_ns();
    enum err e = t->inner->disk->sync(t->inner, why);
    if (t->times != NULL && e == OK) histogram_add(t->times, now_ns() - before);
    return e;
}

static RESULT timed_size(struct file *f, uint64_t *out, struct why *why) {
    struct file *inner = file_of(f)->inner;
    return inner->disk->size(inner, out, why);
}

static RESULT timed_rename(struct disk *d, const char *from, const char *to, struct why *why) {
    struct timed_disk *t = timed_of(d);
    TRY(t->inner->rename(t->inner, from, to, why));
    if (t->spare == NULL || strcmp(from, SPARE) != 0) return OK;
    t->spare->times = times_of(t, to);
    t->spare = NULL;
    return OK;
}

static RESULT timed_remove(struct disk *d, const char *path, struct why *why) {
    return inner_of(d)->remove(inner_of(d), path, why);
}

static RESULT timed_make_dir(struct disk *d, const char *path, struct why *why) {
    return inner_of(d)->make_dir(inner_of(d), path, why);
}

static RESULT timed_sync_dir(struct disk *d, const char *path, struct why *why) {
    return inner_of(d)->sync_dir(inner_of(d), path, why);
}

static RESULT timed_list(struct disk *d, const char *path,
                         void (*each)(void *ctx, const char *name), void *ctx, struct why *why) {
    return inner_of(d)->list(inner_of(d), path, each, ctx, why);
}

static RESULT timed_space(struct disk *d, uint64_t *free_bytes, struct why *why) {
    return inner_of(d)->space(inner_of(d), free_bytes, why);
}

RESULT timed_disk_open(struct disk *inner, struct disk_times *times, struct disk **out) {
    struct timed_disk *t = malloc(sizeof *t);
    if (t == NULL) return ERR_NOMEM;
    histogram_start(&times->log, 1000000, 14); /* 1 ms to 8 s, as etcd's */
    histogram_start(&times->snapshot, 1000000, 14);
    *t = (struct timed_disk){.disk = {.open = timed_open,
                                      .close = timed_close,
                                      .read = timed_read,
                                      .write = timed_write,
                                      .allocate = timed_allocate,
                                      .sync = timed_sync,
                                      .size = timed_size,
                                      .rename = timed_rename,
                                      .remove = timed_remove,
                                      .make_dir = timed_make_dir,
                                      .sync_dir = timed_sync_dir,
                                      .list = timed_list,
                                      .space = timed_space},
                             .inner = inner,
                             .times = times};
    *out = &t->disk;
    return OK;
}

struct disk *timed_disk_close(struct disk *d) {
    if (d == NULL) return NULL;
    struct disk *inner = inner_of(d);
    free(d);
    return inner;
}
