/* The state of the simulated disk and the steps that it is made of; disk_sim.c makes calls and
 * faults of them. Private to these two.
 *
 * An inode holds its bytes as pages of 4 KiB: what readers see (`now`) and, while any of its
 * sectors is un-synced, what is durable (`old`). Names live twice too: in `now`, the tree that
 * callers see, and in `durable`, the tree as a crash would leave it if it dropped every pending
 * name change; `pending` lists the changes between the two in order. A crash plays a random subset
 * of them.
 *
 * An inode is counted by the names and handles that hold it. Invariant: a page whose `dirty` is 0
 * has no `old`; a missing page is zeros, durable and seen. */
#ifndef CONCLAVE_TESTS_DISK_TREE_H
#define CONCLAVE_TESTS_DISK_TREE_H

#include <pthread.h>

#include "crypto/disk.h"
#include "crypto/limits.h"

#define PAGE    ((size_t)BLOCK_SIZE)
#define SECTOR  ((size_t)SECTOR_SIZE)
#define SECTORS (PAGE / SECTOR)

struct page {
    uint8_t dirty;     /* a bit a sector: seen, not durable */
    uint8_t doomed;    /* of those: lost by a failed sync, no later sync makes them durable */
    uint8_t *old;      /* the durable bytes while dirty != 0; NULL: zeros */
    uint8_t now[PAGE]; /* the bytes that are seen */
};

struct inode {
    uint64_t refs;       /* names and handles */
    uint64_t size;       /* as seen */
    uint64_t size_old;   /* as durable */
    struct page **pages; /* NULL: zeros */
    size_t pages_count;  /* entries of `pages` */
    bool dir;            /* a directory: only the name counts */
};

struct name {
    char path[PATH_ROOM]; /* from the root */
    struct inode *inode;  /* held */
};

struct names {
    struct name *at; /* sorted by path */
    size_t count;    /* in use */
    size_t room;     /* allocated */
};

enum change_kind { CHANGE_LINK, CHANGE_UNLINK, CHANGE_RENAME };

struct change {
    enum change_kind kind;
    char path[PATH_ROOM]; /* link, unlink: the name; rename: the new one */
    char from[PATH_ROOM]; /* rename: the old name */
    struct inode *inode;  /* held; NULL for unlink */
};

struct sim {
    struct disk disk;        /* first: callers hold this */
    pthread_mutex_t mutex;   /* everything below */
    uint64_t random;         /* state of the generator */
    struct names now;        /* the tree as seen */
    struct names durable;    /* the tree without pending changes */
    struct change *pending;  /* name changes not yet durable, oldest first */
    size_t pending_count;    /* in use */
    size_t pending_room;     /* allocated */
    uint64_t epoch;          /* crashes so far; handles of another one are dead */
    uint64_t calls, changes; /* so far */
    uint64_t fail_at;        /* value of `calls` that fails */
    enum err fail_with;      /* how */
    uint64_t cut_at;         /* value of `changes` at which the power goes */
    bool dead;               /* the power is gone */
    bool struck;             /* a set fault has happened */
    uint64_t limit, used;    /* bytes */
    bool read_only;
    bool direct;
};

/* How a fault treats many things at once: none, all, or each by a coin. */
enum luck { LUCK_NONE, LUCK_ALL, LUCK_COIN };

void *sim_take(size_t size); /* zeroed, never NULL */

enum luck sim_luck(struct sim *s);
bool sim_lucky(struct sim *s, enum luck luck); /* is the next of the many things let through? */

struct inode *inode_new(bool dir);               /* one reference */
void inode_drop(struct sim *s, struct inode *n); /* frees with the last reference */
uint64_t inode_reserved(uint64_t size);          /* what a size takes of the disk */
void inode_resize(struct sim *s, struct inode *n, uint64_t size);
/* Writes the sectors that luck lets through. */
void inode_write(struct sim *s, struct inode *n, uint64_t offset, const uint8_t *bytes, size_t size,
                 enum luck luck);
/* Makes sectors durable; those that luck leaves out stay un-synced, or are doomed. */
void inode_sync(struct sim *s, struct inode *n, enum luck luck, bool doom);
void inode_crash(struct sim *s, struct inode *n); /* afterwards the durable bytes are seen */

struct inode *names_find(const struct names *t, const char *path); /* borrowed; NULL: none */
void names_set(struct sim *s, struct names *t, const char *path, struct inode *n); /* replaces */
void names_remove(struct sim *s, struct names *t, const char *path);
void names_assign(struct sim *s, struct names *to, const struct names *from);
void names_drop_orphans(struct sim *s, struct names *t); /* files of directories that are gone */
void names_free(struct sim *s, struct names *t);
bool path_is_in(const char *path, const char *dir); /* directly in */

/* Changes the seen tree and remembers the change. */
void change_add(struct sim *s, enum change_kind kind, const char *path, const char *from,
                struct inode *n);
/* Plays the pending changes of `dir` (NULL: of all) that luck lets through into the durable tree;
 * the others stay when `keep`. */
void changes_settle(struct sim *s, const char *dir, enum luck luck, bool keep);

#endif
