/* The disk as an interface: a tree of files under one directory, with blocking calls that say what
 * failed. Real side: disk_real.c (Linux, under a directory). Simulated side: tests/sim, under a
 * seed. It lives below raft/ because the keyring writes files too.
 *
 * What an implementation promises, and all that its callers may assume:
 *  - a write is durable only after sync of that file; a new, renamed or removed name only after
 *    sync_dir of its directory;
 *  - a crash keeps of un-synced writes any subset of their 512-byte sectors, each whole or not;
 *  - a failed sync leaves the file unknown: callers stop, they never retry it;
 *  - rename replaces atomically.
 * Paths are relative to the disk's root, components joined by '/', no "..". Calls may come from any
 * thread; calls on one file are the caller's to serialise, except that read may run beside write.
 *
 * Every function fills `why` with the path, the operation and the system's words on failure. */
#ifndef CONCLAVE_DISK_H
#define CONCLAVE_DISK_H

#include "crypto/base.h"

#define PATH_ROOM 128 /* a path under the root, with the NUL */

enum disk_open {
    DISK_READ = 1,   /* must exist */
    DISK_WRITE = 2,  /* read and write, must exist */
    DISK_CREATE = 4, /* read and write, must not exist; mode 0600 */
    DISK_DIRECT =
        8,          /* or'ed: writes bypass the page cache and are durable when they return; memory,
              offset and size are multiples of BLOCK_SIZE; ignored where not possible */
    DISK_BULK = 16, /* or'ed: for large files beside which others must not wait. Written, it is as
               DISK_DIRECT, but durable only after sync: nobody's sync has to wait for what the page
               cache has gathered. Only read, nothing is read ahead of what is asked for: a
               read-ahead is many megabytes at once, and a log's small write waits behind it */
};

struct disk;

/* An open file. Implementations embed it. */
struct file {
    struct disk *disk;
    bool durable_writes; /* DISK_DIRECT is in force: write() includes sync() */
};

struct disk {
    RESULT (*open)(struct disk *d, const char *path, unsigned flags, struct file **out,
                   struct why *why);
    void (*close)(struct file *f);
    /* Reads up to `size` bytes; *got < size only at the end of the file. */
    RESULT (*read)(struct file *f, uint64_t offset, void *at, size_t size, size_t *got,
                   struct why *why);
    RESULT (*write)(struct file *f, uint64_t offset, const void *at, size_t size, struct why *why);
    RESULT (*allocate)(struct file *f, uint64_t size,
                       struct why *why); /* reserves and sets the size */
    RESULT (*sync)(struct file *f, struct why *why);
    RESULT (*size)(struct file *f, uint64_t *out, struct why *why);
    RESULT (*rename)(struct disk *d, const char *from, const char *to, struct why *why);
    RESULT (*remove)(struct disk *d, const char *path,
                     struct why *why); /* ERR_NOT_FOUND if absent */
    RESULT (*make_dir)(struct disk *d, const char *path, struct why *why); /* OK if it is there */
    RESULT (*sync_dir)(struct disk *d, const char *path, struct why *why); /* "" is the root */
    /* Calls `each` for every file name (no directories) in `path`, in byte order. */
    RESULT (*list)(struct disk *d, const char *path, void (*each)(void *ctx, const char *name),
                   void *ctx, struct why *why);
    RESULT (*space)(struct disk *d, uint64_t *free_bytes, struct why *why);
};

/* Opens the directory `root` (absolute or relative; made with mode 0700 when absent) and locks it
 * against other processes (OFD lock on `LOCK`): ERR_IN_USE when another one has it. */
RESULT disk_real_open(const char *root, struct disk **out, struct why *why);
void disk_real_close(struct disk *d); /* after all its files are closed */

/* Whole-file helpers over any disk. */
RESULT disk_read_file(struct disk *d, const char *path, struct buf *out, struct why *why);
/* Durable and atomic: writes `path`.new, syncs, renames, syncs the directory. */
RESULT disk_write_file(struct disk *d, const char *path, struct span data, struct why *why);

#endif
