/* The simulated disk: the calls of disk.h over the state of disk_tree.h, and the faults that strike
 * them. Each call asks strike() first whether it is to fail, or to be cut by the loss of power; a
 * call that is cut or fails has done a random part of its work. */
#include "tests/lib/disk_sim.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/disk_tree.h"

struct handle {
    struct file file;    /* first */
    struct inode *inode; /* held */
    uint64_t epoch;      /* of its opening */
    bool writable;
};

static struct sim *sim_of(struct disk *d) { return (struct sim *)d; }

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
    if (k == STROKE_CUT && !was && create && n == NULL && sim_lucky(s, LUCK_COIN)) {
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
    struct handle *h = sim_take(sizeof *h);
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
    uint64_t more = inode_reserved(size) - inode_reserved(n->size);
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
    inode_write(s, h->inode, offset, at, size, partly ? sim_luck(s) : LUCK_ALL);
    if (direct) inode_sync(s, h->inode, partly ? sim_luck(s) : LUCK_ALL, k == STROKE_FAIL);
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
    } else if (k == STROKE_NONE || (k == STROKE_CUT && sim_lucky(s, LUCK_COIN))) {
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
        inode_sync(s, h->inode, sim_luck(s), k == STROKE_FAIL);
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
    if (k == STROKE_NONE || sim_lucky(s, LUCK_COIN))
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
    if (!was) changes_settle(s, path, k == STROKE_NONE ? LUCK_ALL : sim_luck(s), true);
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
    struct name *copy = sim_take((s->now.count + 1) * sizeof *copy);
    for (size_t i = 0; i < s->now.count; i++)
        if (!s->now.at[i].inode->dir && path_is_in(s->now.at[i].path, path))
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
    struct sim *s = sim_take(sizeof *s);
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
        n->pages[i] = sim_take(sizeof *n->pages[i]);
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
    changes_settle(s, NULL, sim_luck(s), false);
    names_drop_orphans(s, &s->durable);
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
    if (*p == NULL) *p = sim_take(sizeof **p);
    (*p)->now[offset % PAGE] ^= mask;
    if ((*p)->old != NULL) (*p)->old[offset % PAGE] ^= mask;
    return true;
}

static uint8_t byte_at(const struct inode *n, uint64_t offset) {
    const struct page *p = n->pages[offset / PAGE];
    return p == NULL ? 0 : p->now[offset % PAGE];
}

bool disk_sim_is_zero(struct disk *d, const char *path, uint64_t offset, uint64_t size) {
    const struct inode *n = file_at(d, path);
    if (n == NULL || offset + size > n->size) return false;
    for (uint64_t i = offset; i < offset + size; i++)
        if (byte_at(n, i) != 0) return false;
    return true;
}

bool disk_sim_zero(struct disk *d, const char *path, uint64_t offset, uint64_t size) {
    struct inode *n = file_at(d, path);
    if (n == NULL || offset + size > n->size) return false;
    for (uint64_t i = offset; i < offset + size; i++)
        if (byte_at(n, i) != 0 && !disk_sim_flip(d, path, i, byte_at(n, i))) return false;
    return true;
}

bool disk_sim_move_bytes(struct disk *d, const char *path, uint64_t from, uint64_t to,
                         uint64_t size) {
    struct inode *n = file_at(d, path);
    if (n == NULL || from + size > n->size || to + size > n->size) return false;
    for (uint64_t i = 0; i < size; i++)
        if (!disk_sim_flip(d, path, to + i, byte_at(n, from + i) ^ byte_at(n, to + i)))
            return false;
    return true;
}

bool disk_sim_same(struct disk *a, struct disk *b, const char *path) {
    const struct inode *x = file_at(a, path), *y = file_at(b, path);
    if (x == NULL || y == NULL || x->size != y->size) return false;
    for (uint64_t i = 0; i < x->size; i++)
        if (byte_at(x, i) != byte_at(y, i)) return false;
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
    uint8_t *all = sim_take((size_t)n->size + 1);
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
