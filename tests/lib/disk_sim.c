/* The simulated disk. An inode holds its bytes as pages of 4 KiB: what readers see (`now`) and,
 * while any of its sectors is un-synced, what is durable (`old`). Names live twice too: in `now`,
 * the tree that callers see, and in `durable`, the tree as a crash would leave it if it dropped
 * every pending name change; `pending` lists the changes between the two in order. A crash plays a
 * random subset of them.
 *
 * An inode is counted by the names and handles that hold it. Invariant: a page whose `dirty` is 0
 * has no `old`; a missing page is zeros, durable and seen. */
#include "tests/lib/disk_sim.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

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

struct handle {
    struct file file;    /* first */
    struct inode *inode; /* held */
    uint64_t epoch;      /* of its opening */
    bool writable;
};

static void *must(void *p) {
    if (p == NULL) abort();
    return p;
}

static struct sim *sim_of(struct disk *d) { return (struct sim *)d; }

static uint64_t next_random(struct sim *s) {
    uint64_t z = s->random += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* How a fault treats many things at once: none, all, or each by a coin. */
enum luck { LUCK_NONE, LUCK_ALL, LUCK_COIN };

static enum luck draw_luck(struct sim *s) {
    switch (next_random(s) % 5) {
    case 0: return LUCK_NONE;
    case 1: return LUCK_ALL;
    default: return LUCK_COIN;
    }
}

static bool lucky(struct sim *s, enum luck luck) {
    return luck == LUCK_ALL || (luck == LUCK_COIN && (next_random(s) & 1) != 0);
}

/* ---- inodes ---- */

static void page_free(struct page *p) {
    if (p == NULL) return;
    free(p->old);
    free(p);
}

static uint64_t reserved(uint64_t size) { return (size + PAGE - 1) / PAGE * PAGE; }

static void inode_drop(struct sim *s, struct inode *n) {
    if (n == NULL || --n->refs != 0) return;
    s->used -= reserved(n->size);
    for (size_t i = 0; i < n->pages_count; i++)
        page_free(n->pages[i]);
    free(n->pages);
    free(n);
}

static struct inode *inode_new(bool dir) {
    struct inode *n = must(calloc(1, sizeof *n));
    n->refs = 1;
    n->dir = dir;
    return n;
}

static void inode_resize(struct sim *s, struct inode *n, uint64_t size) {
    size_t count = (size_t)((size + PAGE - 1) / PAGE);
    for (size_t i = count; i < n->pages_count; i++)
        page_free(n->pages[i]);
    if (count == 0) {
        free(n->pages);
        n->pages = NULL;
    } else if (count != n->pages_count) {
        n->pages = must(realloc(n->pages, count * sizeof *n->pages));
        for (size_t i = n->pages_count; i < count; i++)
            n->pages[i] = NULL;
    }
    if (size < n->size && size % PAGE != 0 && n->pages[count - 1] != NULL)
        memset(n->pages[count - 1]->now + size % PAGE, 0, PAGE - size % PAGE);
    n->pages_count = count;
    s->used = s->used - reserved(n->size) + reserved(size);
    n->size = size;
}

static bool all_zero(const uint8_t *at, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (at[i] != 0) return false;
    return true;
}

/* Writes within one sector of one page; an equal content changes nothing and so can't be lost. */
static void sector_write(struct inode *n, size_t page, size_t at, const uint8_t *bytes,
                         size_t size) {
    struct page *p = n->pages[page];
    if (p == NULL) {
        if (all_zero(bytes, size)) return;
        p = n->pages[page] = must(calloc(1, sizeof *p));
    }
    uint8_t bit = (uint8_t)(1u << (at / SECTOR));
    if (memcmp(p->now + at, bytes, size) == 0 && (p->doomed & bit) == 0) return;
    if (p->dirty == 0) {
        p->old = must(malloc(PAGE));
        memcpy(p->old, p->now, PAGE);
    }
    p->dirty |= bit;
    p->doomed &= (uint8_t)~bit;
    memcpy(p->now + at, bytes, size);
}

/* Writes the sectors that luck lets through. */
static void inode_write(struct sim *s, struct inode *n, uint64_t offset, const uint8_t *bytes,
                        size_t size, enum luck luck) {
    while (size != 0) {
        size_t at = (size_t)(offset % PAGE);
        size_t part = SECTOR - at % SECTOR;
        if (part > size) part = size;
        if (lucky(s, luck)) sector_write(n, (size_t)(offset / PAGE), at, bytes, part);
        offset += part;
        bytes += part;
        size -= part;
    }
}

static void page_settle(struct sim *s, struct page *p, enum luck luck, bool doom) {
    for (unsigned i = 0; i < SECTORS; i++) {
        uint8_t bit = (uint8_t)(1u << i);
        if ((p->dirty & bit) == 0 || (p->doomed & bit) != 0) continue;
        if (lucky(s, luck)) {
            memcpy(p->old + i * SECTOR, p->now + i * SECTOR, SECTOR);
            p->dirty &= (uint8_t)~bit;
        } else if (doom) {
            p->doomed |= bit;
        }
    }
    if (p->dirty == 0) {
        free(p->old);
        p->old = NULL;
    }
}

/* Makes sectors durable; those that luck leaves out stay un-synced, or are doomed. */
static void inode_sync(struct sim *s, struct inode *n, enum luck luck, bool doom) {
    if (lucky(s, luck)) n->size_old = n->size;
    for (size_t i = 0; i < n->pages_count; i++)
        if (n->pages[i] != NULL && n->pages[i]->dirty != 0) page_settle(s, n->pages[i], luck, doom);
}

/* After a crash the durable bytes are what is seen. */
static void inode_crash(struct sim *s, struct inode *n) {
    enum luck luck = draw_luck(s);
    inode_sync(s, n, luck, false);
    for (size_t i = 0; i < n->pages_count; i++) {
        struct page *p = n->pages[i];
        if (p == NULL || p->dirty == 0) continue;
        memcpy(p->now, p->old, PAGE);
        p->dirty = p->doomed = 0;
        free(p->old);
        p->old = NULL;
    }
    if (n->size_old != n->size) inode_resize(s, n, n->size_old);
}

/* ---- names ---- */

static size_t names_place(const struct names *t, const char *path, bool *found) {
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = strcmp(t->at[mid].path, path);
        if (order == 0) {
            *found = true;
            return mid;
        }
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *found = false;
    return low;
}

static struct inode *names_find(const struct names *t, const char *path) {
    bool found;
    size_t i = names_place(t, path, &found);
    return found ? t->at[i].inode : NULL;
}

static void names_remove(struct sim *s, struct names *t, const char *path) {
    bool found;
    size_t i = names_place(t, path, &found);
    if (!found) return;
    struct inode *n = t->at[i].inode;
    memmove(&t->at[i], &t->at[i + 1], (t->count - i - 1) * sizeof *t->at);
    t->count--;
    inode_drop(s, n);
}

/* Sets path to the inode, replacing; an inode has one name a tree. */
static void names_set(struct sim *s, struct names *t, const char *path, struct inode *n) {
    n->refs++;
    for (size_t i = 0; i < t->count; i++)
        if (t->at[i].inode == n && strcmp(t->at[i].path, path) != 0) {
            char other[PATH_ROOM];
            memcpy(other, t->at[i].path, sizeof other);
            names_remove(s, t, other);
            break;
        }
    names_remove(s, t, path);
    if (t->count == t->room) {
        t->room = t->room == 0 ? 16 : t->room * 2;
        t->at = must(realloc(t->at, t->room * sizeof *t->at));
    }
    bool found;
    size_t i = names_place(t, path, &found);
    memmove(&t->at[i + 1], &t->at[i], (t->count - i) * sizeof *t->at);
    (void)snprintf(t->at[i].path, sizeof t->at[i].path, "%s", path);
    t->at[i].inode = n;
    t->count++;
}

static void names_free(struct sim *s, struct names *t) {
    while (t->count != 0)
        names_remove(s, t, t->at[t->count - 1].path);
    free(t->at);
    *t = (struct names){0};
}

static void names_assign(struct sim *s, struct names *to, const struct names *from) {
    names_free(s, to);
    for (size_t i = 0; i < from->count; i++)
        names_set(s, to, from->at[i].path, from->at[i].inode);
}

static size_t parent_size(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path);
}

static bool is_in(const char *path, const char *dir) {
    size_t size = strlen(dir);
    return parent_size(path) == size && strncmp(path, dir, size) == 0;
}

static void change_play(struct sim *s, struct names *t, const struct change *c) {
    switch (c->kind) {
    case CHANGE_LINK: names_set(s, t, c->path, c->inode); break;
    case CHANGE_UNLINK: names_remove(s, t, c->path); break;
    case CHANGE_RENAME:
        names_remove(s, t, c->from);
        names_set(s, t, c->path, c->inode);
        break;
    }
}

static void change_add(struct sim *s, enum change_kind kind, const char *path, const char *from,
                       struct inode *n) {
    if (s->pending_count == s->pending_room) {
        s->pending_room = s->pending_room == 0 ? 16 : s->pending_room * 2;
        s->pending = must(realloc(s->pending, s->pending_room * sizeof *s->pending));
    }
    struct change *c = &s->pending[s->pending_count++];
    *c = (struct change){.kind = kind, .inode = n};
    (void)snprintf(c->path, sizeof c->path, "%s", path);
    (void)snprintf(c->from, sizeof c->from, "%s", from);
    if (n != NULL) n->refs++;
    change_play(s, &s->now, c);
}

static bool names_meet(const struct change *a, const struct change *b) {
    return strcmp(a->path, b->path) == 0 || strcmp(a->path, b->from) == 0 ||
           (a->from[0] != '\0' && (strcmp(a->from, b->path) == 0 || strcmp(a->from, b->from) == 0));
}

/* What was played makes earlier pending changes of the same names or inode a thing of the past:
 * played later, they would undo it. Returns how many of the first `count` are left. */
static size_t changes_supersede(struct sim *s, size_t count, const struct change *played) {
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        struct change c = s->pending[i];
        if ((c.inode != NULL && c.inode == played->inode) || names_meet(&c, played))
            inode_drop(s, c.inode);
        else
            s->pending[left++] = c;
    }
    return left;
}

/* Plays the pending changes of `dir` (NULL: of all) that luck lets through into the durable tree;
 * the others stay when `keep`. */
static void changes_settle(struct sim *s, const char *dir, enum luck luck, bool keep) {
    size_t left = 0;
    for (size_t i = 0; i < s->pending_count; i++) {
        struct change c = s->pending[i];
        bool here = dir == NULL || is_in(c.path, dir);
        bool play = here && lucky(s, luck);
        if (play) {
            change_play(s, &s->durable, &c);
            left = changes_supersede(s, left, &c);
        }
        if (!play && (keep || !here))
            s->pending[left++] = c;
        else
            inode_drop(s, c.inode);
    }
    s->pending_count = left;
}

/* Files whose directory is not there are not there either. */
static void drop_orphans(struct sim *s, struct names *t) {
    for (size_t i = 0; i < t->count;) {
        char dir[PATH_ROOM];
        size_t size = parent_size(t->at[i].path);
        memcpy(dir, t->at[i].path, size);
        dir[size] = '\0';
        if (size == 0 || names_find(t, dir) != NULL) {
            i++;
        } else {
            names_remove(s, t, t->at[i].path);
            i = 0;
        }
    }
}

/* ---- faults ---- */

enum stroke { STROKE_NONE, STROKE_FAIL, STROKE_CUT };

/* Counts the call and tells whether a fault strikes it; *e is then how it ends. */
static enum stroke strike(struct sim *s, bool change, enum err *e) {
    *e = ERR_IO;
    if (s->dead) return STROKE_CUT;
    s->calls++;
    if (change) s->changes++;
    if (change && s->changes == s->cut_at) {
        s->dead = s->struck = true;
        return STROKE_CUT;
    }
    if (s->calls == s->fail_at) {
        s->struck = true;
        *e = s->fail_with;
        return STROKE_FAIL;
    }
    if (change && s->read_only) {
        *e = ERR_READONLY;
        return STROKE_FAIL;
    }
    return STROKE_NONE;
}

static enum err refuse(struct why *why, enum err e, const char *path, const char *call) {
    return fail_with(why, e, "%s: %s: %s", path, call, err_text(e));
}

/* ---- the disk's calls ---- */

static bool path_fits(const char *path) { return strlen(path) < PATH_ROOM; }

static enum err open_locked(struct sim *s, const char *path, unsigned flags, struct file **out,
                            struct why *why) {
    enum err e;
    bool create = (flags & DISK_CREATE) != 0;
    bool was = s->dead;
    enum stroke k = strike(s, create, &e);
    struct inode *n = names_find(&s->now, path);
    if (k == STROKE_CUT && !was && create && n == NULL && lucky(s, LUCK_COIN)) {
        struct inode *made = inode_new(false);
        change_add(s, CHANGE_LINK, path, "", made);
        inode_drop(s, made);
    }
    if (k != STROKE_NONE) return refuse(why, e, path, "open");
    if (create && n != NULL) return refuse(why, ERR_EXISTS, path, "create");
    if (!create && (n == NULL || n->dir)) return refuse(why, ERR_NOT_FOUND, path, "open");
    if (create) {
        n = inode_new(false);
        change_add(s, CHANGE_LINK, path, "", n);
    } else {
        n->refs++;
    }
    struct handle *h = must(calloc(1, sizeof *h));
    h->file.disk = &s->disk;
    h->file.durable_writes = (flags & DISK_DIRECT) != 0 && s->direct;
    h->inode = n;
    h->epoch = s->epoch;
    h->writable = (flags & (DISK_WRITE | DISK_CREATE)) != 0;
    *out = &h->file;
    return OK;
}

static RESULT sim_open(struct disk *d, const char *path, unsigned flags, struct file **out,
                       struct why *why) {
    struct sim *s = sim_of(d);
    if (!path_fits(path)) return refuse(why, ERR_INVALID, "path", "open");
    pthread_mutex_lock(&s->mutex);
    enum err e = open_locked(s, path, flags, out, why);
    pthread_mutex_unlock(&s->mutex);
    return e;
}

static void sim_close(struct file *f) {
    if (f == NULL) return;
    struct handle *h = (struct handle *)f;
    struct sim *s = sim_of(f->disk);
    pthread_mutex_lock(&s->mutex);
    inode_drop(s, h->inode);
    pthread_mutex_unlock(&s->mutex);
    free(h);
}

static enum err read_locked(struct sim *s, struct handle *h, uint64_t offset, uint8_t *at,
                            size_t size, size_t *got, struct why *why) {
    enum err e;
    if (strike(s, false, &e) != STROKE_NONE || h->epoch != s->epoch)
        return refuse(why, e, "file", "read");
    struct inode *n = h->inode;
    if (offset >= n->size)
        size = 0;
    else if (size > n->size - offset)
        size = (size_t)(n->size - offset);
    *got = size;
    while (size != 0) {
        size_t in = (size_t)(offset % PAGE);
        size_t part = PAGE - in < size ? PAGE - in : size;
        const struct page *p = n->pages[offset / PAGE];
        if (p == NULL)
            memset(at, 0, part);
        else
            memcpy(at, p->now + in, part);
        at += part;
        offset += part;
        size -= part;
    }
    return OK;
}

static RESULT sim_read(struct file *f, uint64_t offset, void *at, size_t size, size_t *got,
                       struct why *why) {
    struct sim *s = sim_of(f->disk);
    pthread_mutex_lock(&s->mutex);
    enum err e = read_locked(s, (struct handle *)f, offset, at, size, got, why);
    pthread_mutex_unlock(&s->mutex);
    return e;
}

static enum err grow(struct sim *s, struct inode *n, uint64_t size) {
    if (size <= n->size) return OK;
    uint64_t more = reserved(size) - reserved(n->size);
    if (s->used > s->limit || more > s->limit - s->used) return ERR_NOSPACE;
    inode_resize(s, n, size);
    return OK;
}

static enum err write_locked(struct sim *s, struct handle *h, uint64_t offset, const void *at,
                             size_t size, struct why *why) {
    enum err e;
    bool was = s->dead;
    enum stroke k = strike(s, true, &e);
    if (h->epoch != s->epoch || was) return refuse(why, ERR_IO, "file", "write");
    bool direct = h->file.durable_writes;
    if (!h->writable) return refuse(why, ERR_INVALID, "file", "write");
    if (direct && (((uintptr_t)at | offset | size) % PAGE) != 0)
        return refuse(why, ERR_INVALID, "file", "unaligned direct write");
    bool partly = k == STROKE_CUT || (k == STROKE_FAIL && e == ERR_IO);
    if (k == STROKE_FAIL && !partly) return refuse(why, e, "file", "write");
    if (grow(s, h->inode, offset + size) != OK) return refuse(why, ERR_NOSPACE, "file", "write");
    inode_write(s, h->inode, offset, at, size, partly ? draw_luck(s) : LUCK_ALL);
    if (direct) inode_sync(s, h->inode, partly ? draw_luck(s) : LUCK_ALL, k == STROKE_FAIL);
    return k == STROKE_NONE ? OK : refuse(why, e, "file", "write");
}

static RESULT sim_write(struct file *f, uint64_t offset, const void *at, size_t size,
                        struct why *why) {
    struct sim *s = sim_of(f->disk);
    pthread_mutex_lock(&s->mutex);
    enum err e = write_locked(s, (struct handle *)f, offset, at, size, why);
    pthread_mutex_unlock(&s->mutex);
    return e;
}

static RESULT sim_allocate(struct file *f, uint64_t size, struct why *why) {
    struct sim *s = sim_of(f->disk);
    struct handle *h = (struct handle *)f;
    pthread_mutex_lock(&s->mutex);
    enum err e;
    bool was = s->dead;
    enum stroke k = strike(s, true, &e);
    if (h->epoch != s->epoch || was) {
        k = STROKE_CUT;
        e = ERR_IO;
    } else if (k == STROKE_NONE || (k == STROKE_CUT && lucky(s, LUCK_COIN))) {
        enum err grown = grow(s, h->inode, size);
        if (k == STROKE_NONE) {
            e = grown;
            if (e == OK && size < h->inode->size) inode_resize(s, h->inode, size);
        }
    }
    pthread_mutex_unlock(&s->mutex);
    return e == OK ? OK : refuse(why, e, "file", "allocate");
}

static RESULT sim_sync(struct file *f, struct why *why) {
    struct sim *s = sim_of(f->disk);
    struct handle *h = (struct handle *)f;
    pthread_mutex_lock(&s->mutex);
    enum err e;
    bool was = s->dead;
    enum stroke k = strike(s, true, &e);
    if (h->epoch != s->epoch || was)
        k = STROKE_CUT;
    else if (k == STROKE_NONE)
        inode_sync(s, h->inode, LUCK_ALL, false);
    else
        inode_sync(s, h->inode, draw_luck(s), k == STROKE_FAIL);
    if (h->epoch != s->epoch) e = ERR_IO;
    pthread_mutex_unlock(&s->mutex);
    return k == STROKE_NONE ? OK : refuse(why, e, "file", "sync");
}

static RESULT sim_size(struct file *f, uint64_t *out, struct why *why) {
    struct sim *s = sim_of(f->disk);
    struct handle *h = (struct handle *)f;
    pthread_mutex_lock(&s->mutex);
    enum err e;
    bool good = strike(s, false, &e) == STROKE_NONE && h->epoch == s->epoch;
    if (good) *out = h->inode->size;
    pthread_mutex_unlock(&s->mutex);
    return good ? OK : refuse(why, e, "file", "size");
}

/* The common course of rename, remove and make_dir: a name change that a fault does or does not do.
 */
static enum err change_name(struct sim *s, enum change_kind kind, const char *path,
                            const char *from, struct why *why) {
    enum err e;
    bool was = s->dead;
    enum stroke k = strike(s, true, &e);
    if (was || k == STROKE_FAIL) return refuse(why, e, path, "name change");
    struct inode *n = NULL;
    if (kind == CHANGE_LINK) {
        if (names_find(&s->now, path) != NULL) return k == STROKE_NONE ? OK : ERR_IO;
        n = inode_new(true);
    } else {
        n = names_find(&s->now, kind == CHANGE_RENAME ? from : path);
        if (n == NULL)
            return refuse(why, k == STROKE_CUT ? ERR_IO : ERR_NOT_FOUND, path, "no such file");
        n->refs++;
    }
    if (k == STROKE_NONE || lucky(s, LUCK_COIN))
        change_add(s, kind, path, from, kind == CHANGE_UNLINK ? NULL : n);
    inode_drop(s, n);
    return k == STROKE_NONE ? OK : refuse(why, e, path, "name change");
}

static RESULT sim_rename(struct disk *d, const char *from, const char *to, struct why *why) {
    struct sim *s = sim_of(d);
    if (!path_fits(from) || !path_fits(to)) return refuse(why, ERR_INVALID, "path", "rename");
    pthread_mutex_lock(&s->mutex);
    enum err e = change_name(s, CHANGE_RENAME, to, from, why);
    pthread_mutex_unlock(&s->mutex);
    return e;
}

static RESULT sim_remove(struct disk *d, const char *path, struct why *why) {
    struct sim *s = sim_of(d);
    if (!path_fits(path)) return refuse(why, ERR_INVALID, "path", "remove");
    pthread_mutex_lock(&s->mutex);
    enum err e = change_name(s, CHANGE_UNLINK, path, "", why);
    pthread_mutex_unlock(&s->mutex);
    return e;
}

static RESULT sim_make_dir(struct disk *d, const char *path, struct why *why) {
    struct sim *s = sim_of(d);
    if (!path_fits(path)) return refuse(why, ERR_INVALID, "path", "make_dir");
    pthread_mutex_lock(&s->mutex);
    enum err e = change_name(s, CHANGE_LINK, path, "", why);
    pthread_mutex_unlock(&s->mutex);
    return e;
}

static RESULT sim_sync_dir(struct disk *d, const char *path, struct why *why) {
    struct sim *s = sim_of(d);
    pthread_mutex_lock(&s->mutex);
    enum err e;
    bool was = s->dead;
    enum stroke k = strike(s, true, &e);
    if (!was) changes_settle(s, path, k == STROKE_NONE ? LUCK_ALL : draw_luck(s), true);
    pthread_mutex_unlock(&s->mutex);
    return k == STROKE_NONE ? OK : refuse(why, e, path, "sync_dir");
}

/* The callback runs without the mutex, so that it may use the disk. */
static RESULT sim_list(struct disk *d, const char *path, void (*each)(void *ctx, const char *name),
                       void *ctx, struct why *why) {
    struct sim *s = sim_of(d);
    pthread_mutex_lock(&s->mutex);
    enum err e;
    enum stroke k = strike(s, false, &e);
    bool there = path[0] == '\0' || names_find(&s->now, path) != NULL;
    size_t count = 0;
    struct name *copy = must(malloc((s->now.count + 1) * sizeof *copy));
    for (size_t i = 0; i < s->now.count; i++)
        if (!s->now.at[i].inode->dir && is_in(s->now.at[i].path, path))
            copy[count++] = s->now.at[i];
    pthread_mutex_unlock(&s->mutex);
    if (k == STROKE_NONE && there)
        for (size_t i = 0; i < count; i++)
            each(ctx, copy[i].path + (path[0] == '\0' ? 0 : strlen(path) + 1));
    free(copy);
    if (k != STROKE_NONE) return refuse(why, e, path, "list");
    return there ? OK : refuse(why, ERR_NOT_FOUND, path, "list");
}

static RESULT sim_space(struct disk *d, uint64_t *free_bytes, struct why *why) {
    struct sim *s = sim_of(d);
    pthread_mutex_lock(&s->mutex);
    enum err e;
    bool good = strike(s, false, &e) == STROKE_NONE;
    *free_bytes = s->limit > s->used ? s->limit - s->used : 0;
    pthread_mutex_unlock(&s->mutex);
    return good ? OK : refuse(why, e, "", "space");
}

/* ---- the simulator's side ---- */

struct disk *disk_sim_new(uint64_t seed) {
    struct sim *s = must(calloc(1, sizeof *s));
    if (pthread_mutex_init(&s->mutex, NULL) != 0) abort();
    s->random = seed;
    s->fail_at = s->cut_at = s->limit = DISK_SIM_NEVER;
    s->disk = (struct disk){.open = sim_open,
                            .close = sim_close,
                            .read = sim_read,
                            .write = sim_write,
                            .allocate = sim_allocate,
                            .sync = sim_sync,
                            .size = sim_size,
                            .rename = sim_rename,
                            .remove = sim_remove,
                            .make_dir = sim_make_dir,
                            .sync_dir = sim_sync_dir,
                            .list = sim_list,
                            .space = sim_space};
    return &s->disk;
}

static struct inode *inode_copy(struct sim *s, const struct inode *from) {
    struct inode *n = inode_new(from->dir);
    inode_resize(s, n, from->size);
    n->size_old = from->size;
    for (size_t i = 0; i < from->pages_count; i++) {
        if (from->pages[i] == NULL) continue;
        n->pages[i] = must(calloc(1, sizeof *n->pages[i]));
        memcpy(n->pages[i]->now, from->pages[i]->now, PAGE);
    }
    return n;
}

static void set_both(struct sim *s, const char *path, struct inode *n) {
    names_set(s, &s->now, path, n);
    names_set(s, &s->durable, path, n);
    inode_drop(s, n);
}

struct disk *disk_sim_clone(struct disk *d, uint64_t seed) {
    struct sim *from = sim_of(d);
    struct sim *s = sim_of(disk_sim_new(seed));
    for (size_t i = 0; i < from->now.count; i++)
        set_both(s, from->now.at[i].path, inode_copy(s, from->now.at[i].inode));
    s->limit = from->limit;
    s->direct = from->direct;
    return &s->disk;
}

void disk_sim_free(struct disk *d) {
    if (d == NULL) return;
    struct sim *s = sim_of(d);
    changes_settle(s, NULL, LUCK_NONE, false);
    names_free(s, &s->now);
    names_free(s, &s->durable);
    free(s->pending);
    (void)pthread_mutex_destroy(&s->mutex);
    free(s);
}

void disk_sim_crash(struct disk *d) {
    struct sim *s = sim_of(d);
    pthread_mutex_lock(&s->mutex);
    changes_settle(s, NULL, draw_luck(s), false);
    drop_orphans(s, &s->durable);
    names_assign(s, &s->now, &s->durable);
    for (size_t i = 0; i < s->now.count; i++)
        inode_crash(s, s->now.at[i].inode);
    s->epoch++;
    s->dead = s->struck = false;
    s->fail_at = s->cut_at = DISK_SIM_NEVER;
    pthread_mutex_unlock(&s->mutex);
}

static uint64_t ahead(uint64_t now, uint64_t n) {
    return n == DISK_SIM_NEVER ? DISK_SIM_NEVER : now + n;
}

void disk_sim_fail_at(struct disk *d, uint64_t n, enum err e) {
    struct sim *s = sim_of(d);
    s->fail_at = ahead(s->calls, n);
    s->fail_with = e;
    s->struck = false;
}

void disk_sim_cut_at(struct disk *d, uint64_t n) {
    struct sim *s = sim_of(d);
    s->cut_at = ahead(s->changes, n);
    s->struck = false;
}

bool disk_sim_failed(struct disk *d) { return sim_of(d)->struck; }
uint64_t disk_sim_calls(struct disk *d) { return sim_of(d)->calls; }
uint64_t disk_sim_changes(struct disk *d) { return sim_of(d)->changes; }
void disk_sim_limit(struct disk *d, uint64_t bytes) { sim_of(d)->limit = bytes; }
void disk_sim_read_only(struct disk *d, bool on) { sim_of(d)->read_only = on; }
void disk_sim_direct(struct disk *d, bool on) { sim_of(d)->direct = on; }

static struct inode *file_at(struct disk *d, const char *path) {
    struct inode *n = names_find(&sim_of(d)->now, path);
    return n == NULL || n->dir ? NULL : n;
}

bool disk_sim_flip(struct disk *d, const char *path, uint64_t offset, uint8_t mask) {
    struct inode *n = file_at(d, path);
    if (n == NULL || offset >= n->size) return false;
    struct page **p = &n->pages[offset / PAGE];
    if (*p == NULL) *p = must(calloc(1, sizeof **p));
    (*p)->now[offset % PAGE] ^= mask;
    if ((*p)->old != NULL) (*p)->old[offset % PAGE] ^= mask;
    return true;
}

bool disk_sim_resize(struct disk *d, const char *path, uint64_t size) {
    struct inode *n = file_at(d, path);
    if (n == NULL) return false;
    inode_resize(sim_of(d), n, size);
    n->size_old = size;
    return true;
}

bool disk_sim_import(struct disk *d, struct disk *from, const char *path) {
    struct inode *n = file_at(from, path);
    if (n == NULL) return false;
    set_both(sim_of(d), path, inode_copy(sim_of(d), n));
    return true;
}

bool disk_sim_copy(struct disk *d, const char *from, const char *to) {
    struct inode *n = file_at(d, from);
    if (n == NULL) return false;
    set_both(sim_of(d), to, inode_copy(sim_of(d), n));
    return true;
}

bool disk_sim_move(struct disk *d, const char *from, const char *to) {
    return disk_sim_copy(d, from, to) && disk_sim_erase(d, from);
}

bool disk_sim_erase(struct disk *d, const char *path) {
    if (file_at(d, path) == NULL) return false;
    names_remove(sim_of(d), &sim_of(d)->now, path);
    names_remove(sim_of(d), &sim_of(d)->durable, path);
    return true;
}

uint64_t disk_sim_size(struct disk *d, const char *path) {
    struct inode *n = file_at(d, path);
    return n == NULL ? DISK_SIM_NEVER : n->size;
}

static bool inode_contains(const struct inode *n, struct span needle) {
    uint8_t *all = must(malloc((size_t)n->size + 1));
    for (size_t i = 0; i < n->pages_count; i++) {
        size_t part = n->size - i * PAGE < PAGE ? (size_t)(n->size - i * PAGE) : PAGE;
        if (n->pages[i] == NULL)
            memset(all + i * PAGE, 0, part);
        else
            memcpy(all + i * PAGE, n->pages[i]->now, part);
    }
    bool found = memmem(all, (size_t)n->size, needle.at, needle.size) != NULL;
    free(all);
    return found;
}

bool disk_sim_contains(struct disk *d, struct span needle) {
    struct sim *s = sim_of(d);
    for (size_t i = 0; i < s->now.count; i++)
        if (inode_contains(s->now.at[i].inode, needle)) return true;
    return false;
}

const char *disk_sim_name(struct disk *d, size_t i) {
    struct sim *s = sim_of(d);
    for (size_t k = 0; k < s->now.count; k++)
        if (!s->now.at[k].inode->dir && i-- == 0) return s->now.at[k].path;
    return NULL;
}
