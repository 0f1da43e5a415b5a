/* Faults on demand, for sweeps: a disk over another disk that fails its n-th operation, and a
 * switch that fails the n-th allocation of the program. A sweep runs a scenario for n = 1, 2, ...
 * until no fault fires any more, so that every place that can fail has failed once.
 *
 * Allocations are caught by the linker (--wrap, see tests/CMakeLists.txt) in everything that links
 * conclave_testlib: malloc, calloc, realloc, posix_memalign, aligned_alloc and sodium_malloc as
 * called by our own code; pread, pwrite and fallocate the same way; not inside shared libraries and
 * not in the disk under a fault_disk. Counting is thread-safe; off until asked for. */
#ifndef CONCLAVE_TEST_FAULT_H
#define CONCLAVE_TEST_FAULT_H

#include "crypto/disk.h"

/* Operations that count and fail; or'ed. */
enum fault_kind {
    FAULT_OPEN = 1,
    FAULT_READ = 2,
    FAULT_WRITE = 4, /* nothing of it is written; see fault_disk_torn */
    FAULT_SYNC = 8,
    FAULT_RENAME = 16,
    FAULT_REMOVE = 32,
    FAULT_SYNC_DIR = 64,
    FAULT_ALLOCATE = 128,
    FAULT_SIZE = 256,
    FAULT_MAKE_DIR = 512,
    FAULT_LIST = 1024,
    FAULT_CHANGES = FAULT_WRITE | FAULT_SYNC | FAULT_RENAME | FAULT_REMOVE | FAULT_SYNC_DIR |
                    FAULT_ALLOCATE | FAULT_MAKE_DIR, /* what a failing disk makes fail */
    FAULT_ANY = 2047,
};

enum fault_how {
    FAULT_ONCE,    /* the n-th fails, the next work */
    FAULT_FOREVER, /* the n-th and all later ones fail, as after a crash or on a dead disk */
};

struct fault_disk;

/* `inner` is borrowed and must outlive it; NULL when out of memory. Faults are off. Thread-safe. */
struct fault_disk *fault_disk_new(struct disk *inner);
void fault_disk_free(struct fault_disk *f);
struct disk *fault_disk(struct fault_disk *f); /* the disk to hand to the code under test */

/* The n-th (from 1) operation among `kinds` counted from now on fails with `e`. */
void fault_disk_at(struct fault_disk *f, unsigned kinds, unsigned n, enum fault_how how,
                   enum err e);
/* A failing write first writes this many leading bytes of its data (0 by default). */
void fault_disk_torn(struct fault_disk *f, size_t bytes);
void fault_disk_off(struct fault_disk *f);
bool fault_disk_fired(struct fault_disk *f);     /* since the last fault_disk_at */
unsigned fault_disk_count(struct fault_disk *f); /* operations of the kinds since then */

/* The n-th (from 1) allocation from now on fails, the next work. */
void fault_alloc_at(unsigned n);
void fault_alloc_off(void);
/* Allocations of this thread neither count nor fail in between; for the test's own machinery.
 * Nests. */
void fault_alloc_pause(void);
void fault_alloc_resume(void);
bool fault_alloc_fired(void); /* since the last fault_alloc_at; still valid after fault_alloc_off */

/* What a system may do to pread, pwrite and fallocate without anything being wrong. */
struct fault_system {
    size_t chunk;    /* bytes that a call moves at most; 0: all */
    bool interrupts; /* every other call is interrupted (EINTR) */
    int fallocate;   /* the error of every fallocate; 0: none */
    int direct;      /* the error of writes to a file that is open with O_DIRECT; 0: none */
};
void fault_system(const struct fault_system *how); /* NULL: as usual; not thread-safe */

/* A sweep: for n = 1, 2, ...: run(ctx) with the n-th fault set; then, with faults off, check(ctx,
 * fired); ends after the first n that did not fire. Returns how many faults fired. Fails the
 * test (aborts) past FAULT_SWEEP_MAX. */
#define FAULT_SWEEP_MAX 100000
typedef void (*fault_run)(void *ctx);
typedef void (*fault_check)(void *ctx, bool fired);
unsigned fault_sweep_alloc(fault_run run, fault_check check, void *ctx);
unsigned fault_sweep_disk(struct fault_disk *f, unsigned kinds, enum fault_how how, enum err e,
                          fault_run run, fault_check check, void *ctx);

#endif
