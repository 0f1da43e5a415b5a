/* Bytes by sector and names by tree, seen and durable; see disk_tree.h. */
#include "tests/lib/disk_tree.h"

#include <stdio.h>
#include <stdlib.h>

/* The disk's own memory never runs out: an injected failed allocation (fault.h) is tried again. */
void *sim_take(size_t size) {
    void *p = calloc(1, size);
    if (p == NULL) p = calloc(1, size);
    if (p == NULL) abort();
    return p;
}

static void *sim_take_more(void *old, size_t size) {
    void *p = realloc(old, size);
    if (p == NULL) p = realloc(old, size);
    if (p == NULL) abort();
    return p;
}

static uint64_t next_random(struct sim *s) {
    uint64_t z = s->random += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

enum luck sim_luck(struct sim *s) {
    switch (next_random(s) % 5) {
    case 0: return LUCK_NONE;
    case 1: return LUCK_ALL;
    default: return LUCK_COIN;
    }
}

bool sim_lucky(struct sim *s, enum luck luck) {
    return luck == LUCK_ALL || (luck == LUCK_COIN && (next_random(s) & 1) != 0);
}

/* ---- inodes ---- */

static void page_free(struct page *p) {
    if (p == NULL) return;
    free(p->old);
    free(p);
}

uint64_t inode_reserved(uint64_t size) { return (size + PAGE - 1) / PAGE * PAGE; }

void inode_drop(struct sim *s, struct inode *n) {
    if (n == NULL || --n->refs != 0) return;
    s->used -= inode_reserved(n->size);
    for (size_t i = 0; i < n->pages_count; i++)
        page_free(n->pages[i]);
    free(n->pages);
    free(n);
}

struct inode *inode_new(bool dir) {
    struct inode *n = sim_take(sizeof *n);
    n->refs = 1;
    n->dir = dir;
    return n;
}

void inode_resize(struct sim *s, struct inode *n, uint64_t size) {
    size_t count = (size_t)((size + PAGE - 1) / PAGE);
    for (size_t i = count; i < n->pages_count; i++)
        page_free(n->pages[i]);
    if (count == 0) {
        free(n->pages);
        n->pages = NULL;
    } else if (count != n->pages_count) {
        n->pages = sim_take_more(n->pages, count * sizeof *n->pages);
        for (size_t i = n->pages_count; i < count; i++)
            n->pages[i] = NULL;
    }
    if (size < n->size && size % PAGE != 0 && n->pages[count - 1] != NULL)
        memset(n->pages[count - 1]->now + size % PAGE, 0, PAGE - size % PAGE);
    n->pages_count = count;
    s->used = s->used - inode_reserved(n->size) + inode_reserved(size);
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
        p = n->pages[page] = sim_take(sizeof *p);
    }
    uint8_t bit = (uint8_t)(1u << (at / SECTOR));
    if (memcmp(p->now + at, bytes, size) == 0 && (p->doomed & bit) == 0) return;
    if (p->dirty == 0) {
        p->old = sim_take(PAGE);
        memcpy(p->old, p->now, PAGE);
    }
    p->dirty |= bit;
    p->doomed &= (uint8_t)~bit;
    memcpy(p->now + at, bytes, size);
}

/* Writes the sectors that luck lets through. */
void inode_write(struct sim *s, struct inode *n, uint64_t offset, const uint8_t *bytes, size_t size,
                 enum luck luck) {
    while (size != 0) {
        size_t at = (size_t)(offset % PAGE);
        size_t part = SECTOR - at % SECTOR;
        if (part > size) part = size;
        if (sim_lucky(s, luck)) sector_write(n, (size_t)(offset / PAGE), at, bytes, part);
        offset += part;
        bytes += part;
        size -= part;
    }
}

static void page_settle(struct sim *s, struct page *p, enum luck luck, bool doom) {
    for (unsigned i = 0; i < SECTORS; i++) {
        uint8_t bit = (uint8_t)(1u << i);
        if ((p->dirty & bit) == 0 || (p->doomed & bit) != 0) continue;
        if (sim_lucky(s, luck)) {
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
void inode_sync(struct sim *s, struct inode *n, enum luck luck, bool doom) {
    if (sim_lucky(s, luck)) n->size_old = n->size;
    for (size_t i = 0; i < n->pages_count; i++)
        if (n->pages[i] != NULL && n->pages[i]->dirty != 0) page_settle(s, n->pages[i], luck, doom);
}

/* After a crash the durable bytes are what is seen. */
void inode_crash(struct sim *s, struct inode *n) {
    enum luck luck = sim_luck(s);
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

struct inode *names_find(const struct names *t, const char *path) {
    bool found;
    size_t i = names_place(t, path, &found);
    return found ? t->at[i].inode : NULL;
}

void names_remove(struct sim *s, struct names *t, const char *path) {
    bool found;
    size_t i = names_place(t, path, &found);
    if (!found) return;
    struct inode *n = t->at[i].inode;
    memmove(&t->at[i], &t->at[i + 1], (t->count - i - 1) * sizeof *t->at);
    t->count--;
    inode_drop(s, n);
}

/* Sets path to the inode, replacing; an inode has one name a tree. */
void names_set(struct sim *s, struct names *t, const char *path, struct inode *n) {
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
        t->at = sim_take_more(t->at, t->room * sizeof *t->at);
    }
    bool found;
    size_t i = names_place(t, path, &found);
    memmove(&t->at[i + 1], &t->at[i], (t->count - i) * sizeof *t->at);
    (void)snprintf(t->at[i].path, sizeof t->at[i].path, "%s", path);
    t->at[i].inode = n;
    t->count++;
}

void names_free(struct sim *s, struct names *t) {
    while (t->count != 0)
        names_remove(s, t, t->at[t->count - 1].path);
    free(t->at);
    *t = (struct names){0};
}

void names_assign(struct sim *s, struct names *to, const struct names *from) {
    names_free(s, to);
    for (size_t i = 0; i < from->count; i++)
        names_set(s, to, from->at[i].path, from->at[i].inode);
}

static size_t parent_size(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path);
}

bool path_is_in(const char *path, const char *dir) {
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

void change_add(struct sim *s, enum change_kind kind, const char *path, const char *from,
                struct inode *n) {
    if (s->pending_count == s->pending_room) {
        s->pending_room = s->pending_room == 0 ? 16 : s->pending_room * 2;
        s->pending = sim_take_more(s->pending, s->pending_room * sizeof *s->pending);
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
void changes_settle(struct sim *s, const char *dir, enum luck luck, bool keep) {
    size_t left = 0;
    for (size_t i = 0; i < s->pending_count; i++) {
        struct change c = s->pending[i];
        bool here = dir == NULL || path_is_in(c.path, dir);
        bool play = here && sim_lucky(s, luck);
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
void names_drop_orphans(struct sim *s, struct names *t) {
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
