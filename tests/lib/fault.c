/* The implementation of fault.h: counters in front of a disk, counters in front of the allocator.
 */
#include "tests/lib/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

struct fault_disk {
    struct disk disk;      /* the interface; first */
    struct disk *inner;    /* borrowed */
    pthread_mutex_t mutex; /* guards what follows */
    unsigned kinds;        /* what counts */
    unsigned at;           /* the one that fails; 0: none */
    unsigned count;        /* operations so far */
    enum fault_how how;    /* once or forever */
    enum err error;        /* what it fails with */
    size_t torn;           /* bytes that a failing write still writes */
    bool fired;            /* a fault was given */
};

struct fault_file {
    struct file file;   /* the interface; first */
    struct file *inner; /* owned: closed with this one */
};

static struct fault_disk *faulty(struct disk *d) { return (struct fault_disk *)d; }
static struct fault_file *handle(struct file *f) { return (struct fault_file *)f; }
static struct disk *inner_of(struct file *f) { return handle(f)->inner->disk; }

static enum err fault(struct disk *d, enum fault_kind kind, const char *what, struct why *why) {
    struct fault_disk *f = faulty(d);
    enum err e = OK;
    pthread_mutex_lock(&f->mutex);
    if (f->at != 0 && (f->kinds & kind) != 0) {
        f->count++;
        if (f->how == FAULT_ONCE ? f->count == f->at : f->count >= f->at) e = f->error;
        if (e != OK) f->fired = true;
    }
    pthread_mutex_unlock(&f->mutex);
    return e == OK ? OK : fail_with(why, e, "%s: fault on demand", what);
}

/* What the disk underneath allocates is not the code under test. */
#define INNER(call)                                                                                \
    do {                                                                                           \
        fault_alloc_pause();                                                                       \
        enum err inner_err_ = (call);                                                              \
        fault_alloc_resume();                                                                      \
        return inner_err_;                                                                         \
    } while (0)

static enum err fault_open(struct disk *d, const char *path, unsigned flags, struct file **out,
                           struct why *why) {
    TRY(fault(d, FAULT_OPEN, "open", why));
    struct fault_file *f = calloc(1, sizeof *f);
    if (f == NULL) return fail_with(why, ERR_NOMEM, "%s: open: out of memory", path);
    struct disk *inner = faulty(d)->inner;
    fault_alloc_pause();
    enum err e = inner->open(inner, path, flags, &f->inner, why);
    fault_alloc_resume();
    if (e != OK) {
        free(f);
        return e;
    }
    f->file = (struct file){.disk = d, .durable_writes = f->inner->durable_writes};
    *out = &f->file;
    return OK;
}

static void fault_close(struct file *f) {
    inner_of(f)->close(handle(f)->inner);
    free(f);
}

static enum err fault_read(struct file *f, uint64_t offset, void *at, size_t size, size_t *got,
                           struct why *why) {
    TRY(fault(f->disk, FAULT_READ, "read", why));
    INNER(inner_of(f)->read(handle(f)->inner, offset, at, size, got, why));
}

static enum err fault_write(struct file *f, uint64_t offset, const void *at, size_t size,
                            struct why *why) {
    enum err e = fault(f->disk, FAULT_WRITE, "write", why);
    size_t torn = faulty(f->disk)->torn;
    if (e != OK && torn == 0) return e;
    size_t part = e != OK && torn < size ? torn : size;
    fault_alloc_pause();
    enum err written = inner_of(f)->write(handle(f)->inner, offset, at, part, why);
    fault_alloc_resume();
    return e != OK ? fail_with(why, e, "write: torn on demand") : written;
}

static enum err fault_allocate(struct file *f, uint64_t size, struct why *why) {
    TRY(fault(f->disk, FAULT_ALLOCATE, "allocate", why));
    INNER(inner_of(f)->allocate(handle(f)->inner, size, why));
}

static enum err fault_sync(struct file *f, struct why *why) {
    TRY(fault(f->disk, FAULT_SYNC, "sync", why));
    INNER(inner_of(f)->sync(handle(f)->inner, why));
}

static enum err fault_size(struct file *f, uint64_t *out, struct why *why) {
    TRY(fault(f->disk, FAULT_SIZE, "size", why));
    INNER(inner_of(f)->size(handle(f)->inner, out, why));
}

static enum err fault_rename(struct disk *d, const char *from, const char *to, struct why *why) {
    TRY(fault(d, FAULT_RENAME, "rename", why));
    INNER(faulty(d)->inner->rename(faulty(d)->inner, from, to, why));
}

static enum err fault_remove(struct disk *d, const char *path, struct why *why) {
    TRY(fault(d, FAULT_REMOVE, "remove", why));
    INNER(faulty(d)->inner->remove(faulty(d)->inner, path, why));
}

static enum err fault_make_dir(struct disk *d, const char *path, struct why *why) {
    TRY(fault(d, FAULT_MAKE_DIR, "make directory", why));
    INNER(faulty(d)->inner->make_dir(faulty(d)->inner, path, why));
}

static enum err fault_sync_dir(struct disk *d, const char *path, struct why *why) {
    TRY(fault(d, FAULT_SYNC_DIR, "sync directory", why));
    INNER(faulty(d)->inner->sync_dir(faulty(d)->inner, path, why));
}

static enum err fault_list(struct disk *d, const char *path, void (*each)(void *, const char *),
                           void *ctx, struct why *why) {
    TRY(fault(d, FAULT_LIST, "list", why));
    INNER(faulty(d)->inner->list(faulty(d)->inner, path, each, ctx, why));
}

static enum err fault_space(struct disk *d, uint64_t *free_bytes, struct why *why) {
    INNER(faulty(d)->inner->space(faulty(d)->inner, free_bytes, why));
}

static const struct disk fault_calls = {
    .open = fault_open,
    .close = fault_close,
    .read = fault_read,
    .write = fault_write,
    .allocate = fault_allocate,
    .sync = fault_sync,
    .size = fault_size,
    .rename = fault_rename,
    .remove = fault_remove,
    .make_dir = fault_make_dir,
    .sync_dir = fault_sync_dir,
    .list = fault_list,
    .space = fault_space,
};

struct fault_disk *fault_disk_new(struct disk *inner) {
    struct fault_disk *f = calloc(1, sizeof *f);
    if (f == NULL) return NULL;
    f->disk = fault_calls;
    f->inner = inner;
    pthread_mutex_init(&f->mutex, NULL);
    return f;
}

void fault_disk_free(struct fault_disk *f) {
    if (f == NULL) return;
    pthread_mutex_destroy(&f->mutex);
    free(f);
}

struct disk *fault_disk(struct fault_disk *f) {
    return &f->disk;
}

void fault_disk_at(struct fault_disk *f, unsigned kinds, unsigned n, enum fault_how how,
                   enum err e) {
    pthread_mutex_lock(&f->mutex);
    f->kinds = kinds;
    f->at = n;
    f->count = 0;
    f->how = how;
    f->error = e;
    f->fired = false;
    pthread_mutex_unlock(&f->mutex);
}

void fault_disk_torn(struct fault_disk *f, size_t bytes) { f->torn = bytes; }

void fault_disk_off(struct fault_disk *f) {
    pthread_mutex_lock(&f->mutex);
    f->at = 0;
    pthread_mutex_unlock(&f->mutex);
}

bool fault_disk_fired(struct fault_disk *f) {
    pthread_mutex_lock(&f->mutex);
    bool fired = f->fired;
    pthread_mutex_unlock(&f->mutex);
    return fired;
}

unsigned fault_disk_count(struct fault_disk *f) {
    pthread_mutex_lock(&f->mutex);
    unsigned count = f->count;
    pthread_mutex_unlock(&f->mutex);
    return count;
}

static atomic_uint alloc_left; /* allocations until the one that fails; 0: off */
static atomic_bool alloc_hit;  /* it has failed */

void fault_alloc_at(unsigned n) {
    atomic_store(&alloc_hit, false);
    atomic_store(&alloc_left, n);
}

void fault_alloc_off(void) { atomic_store(&alloc_left, 0); }
bool fault_alloc_fired(void) { return atomic_load(&alloc_hit); }

static _Thread_local unsigned alloc_paused; /* depth, of this thread */

void fault_alloc_pause(void) { alloc_paused++; }
void fault_alloc_resume(void) { alloc_paused--; }

static bool alloc_fails(void) {
    if (alloc_paused != 0) return false;
    unsigned left = atomic_load_explicit(&alloc_left, memory_order_relaxed);
    while (left != 0) {
        if (!atomic_compare_exchange_weak(&alloc_left, &left, left - 1)) continue;
        if (left != 1) return false;
        atomic_store(&alloc_hit, true);
        errno = ENOMEM;
        return true;
    }
    return false;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
int __real_posix_memalign(void **out, size_t align, size_t size);
void *__real_sodium_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
int __wrap_posix_memalign(void **out, size_t align, size_t size);
void *__wrap_sodium_malloc(size_t size);

void *__wrap_malloc(size_t size) { return alloc_fails() ? NULL : __real_malloc(size); }

void *__wrap_calloc(size_t count, size_t size) {
    return alloc_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *at, size_t size) {
    return alloc_fails() ? NULL : __real_realloc(at, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size) {
    return alloc_fails() ? NULL : __real_aligned_alloc(align, size);
}

int __wrap_posix_memalign(void **out, size_t align, size_t size) {
    return alloc_fails() ? ENOMEM : __real_posix_memalign(out, align, size);
}

void *__wrap_sodium_malloc(size_t size) {
    return alloc_fails() ? NULL : __real_sodium_malloc(size);
}

static struct fault_system system_way; /* as set last */
static bool system_turn;               /* the next call is interrupted */

void fault_system(const struct fault_system *how) {
    static const struct fault_system usual;
    if (how == NULL) how = &usual;
    system_way = *how;
    system_turn = how->interrupts;
}

static bool interrupted(void) {
    bool now = system_turn;
    if (system_way.interrupts) system_turn = !now;
    if (now) errno = EINTR;
    return now;
}

static size_t chunk_of(size_t size) {
    return system_way.chunk != 0 && system_way.chunk < size ? system_way.chunk : size;
}

ssize_t __real_pread(int fd, void *at, size_t size, off_t offset);
ssize_t __real_pwrite(int fd, const void *at, size_t size, off_t offset);
int __real_fallocate(int fd, int mode, off_t offset, off_t size);
ssize_t __wrap_pread(int fd, void *at, size_t size, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *at, size_t size, off_t offset);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t size);

ssize_t __wrap_pread(int fd, void *at, size_t size, off_t offset) {
    return interrupted() ? -1 : __real_pread(fd, at, chunk_of(size), offset);
}

ssize_t __wrap_pwrite(int fd, const void *at, size_t size, off_t offset) {
    if (interrupted()) return -1;
    if (system_way.direct != 0 && (fcntl(fd, F_GETFL) & O_DIRECT) != 0) {
        errno = system_way.direct;
        return -1;
    }
    return __real_pwrite(fd, at, chunk_of(size), offset);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t size) {
    if (interrupted()) return -1;
    if (system_way.fallocate == 0) return __real_fallocate(fd, mode, offset, size);
    errno = system_way.fallocate;
    return -1;
}

static void endless(unsigned n) {
    if (n <= FAULT_SWEEP_MAX) return;
    (void)fprintf(stderr, "the sweep does not end\n");
    abort();
}

unsigned fault_sweep_alloc(fault_run run, fault_check check, void *ctx) {
    for (unsigned n = 1;; n++) {
        endless(n);
        fault_alloc_at(n);
        run(ctx);
        fault_alloc_off();
        bool fired = fault_alloc_fired();
        check(ctx, fired);
        if (!fired) return n - 1;
    }
}

unsigned fault_sweep_disk(struct fault_disk *f, unsigned kinds, enum fault_how how, enum err e,
                          fault_run run, fault_check check, void *ctx) {
    for (unsigned n = 1;; n++) {
        endless(n);
        fault_disk_at(f, kinds, n, how, e);
        run(ctx);
        fault_disk_off(f);
        bool fired = fault_disk_fired(f);
        check(ctx, fired);
        if (!fired) return n - 1;
    }
}
