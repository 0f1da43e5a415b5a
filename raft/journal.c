/* See journal.h. The ring holds one reference for each entry in memory; a job holds its own ones.
 */
#include "raft/journal.h"

#include <assert.h>
#include <stdlib.h>

#define RING_MIN         1024
#define WORK_ENTRIES_MAX 4096

static struct entry **slot(struct journal *l, uint64_t index) {
    return &l->ring[index & (l->room - 1)];
}

RESULT journal_open(struct journal *l, struct exec *log_exec, struct exec *side_exec,
                    const struct journal_hooks *hooks) {
    *l =
        (struct journal){.log_exec = log_exec, .side_exec = side_exec, .hooks = *hooks, .first = 1};
    l->cache_first = 1;
    l->ring = calloc(RING_MIN, sizeof *l->ring);
    l->work.entries = calloc(WORK_ENTRIES_MAX, sizeof *l->work.entries);
    if (l->ring == NULL || l->work.entries == NULL) {
        journal_close(l);
        return ERR_NOMEM;
    }
    l->room = RING_MIN;
    l->work.room = WORK_ENTRIES_MAX;
    return OK;
}

static size_t weight(const struct entry *e) { return sizeof *e + e->size; }

static void drop_cached_below(struct journal *l, uint64_t index) {
    for (; l->cache_first < index && l->cache_first <= l->last; l->cache_first++) {
        struct entry **e = slot(l, l->cache_first);
        l->cache_bytes -= (*e)->size;
        entry_drop(*e);
        *e = NULL;
    }
}

static void drop_cached_from(struct journal *l, uint64_t index) {
    for (; l->last >= index && l->last >= l->cache_first; l->last--) {
        struct entry **e = slot(l, l->last);
        l->cache_bytes -= (*e)->size;
        if (l->last > l->persisted) l->lagging_bytes -= weight(*e);
        entry_drop(*e);
        *e = NULL;
    }
    if (l->last >= index) { /* the rest was on disk only */
        l->last = index - 1;
        l->cache_first = index;
    }
}

/* Keeps memory bounded: what is durable and applied can be read back. */
static void evict(struct journal *l) {
    while (l->cache_bytes > LOG_CACHE_MAX && l->cache_first <= l->persisted &&
           l->cache_first <= l->applied)
        drop_cached_below(l, l->cache_first + 1);
}

static RESULT grow(struct journal *l) {
    assert(l->room > 0);
    struct entry **ring = calloc(l->room * 2, sizeof *ring);
    if (ring == NULL) return ERR_NOMEM;
    for (uint64_t i = l->cache_first; i <= l->last; i++)
        ring[i & (l->room * 2 - 1)] = *slot(l, i);
    free(l->ring);
    l->ring = ring;
    l->room *= 2;
    return OK;
}

static RESULT keep(struct journal *l, struct entry *e) {
    if (l->cache_first > l->last) l->cache_first = e->index;
    if (e->index - l->cache_first >= l->room) TRY(grow(l));
    *slot(l, e->index) = entry_hold(e);
    l->last = e->index;
    l->cache_bytes += e->size;
    l->lagging_bytes += weight(e);
    return OK;
}

RESULT journal_load(struct journal *l, struct entry *e) {
    if (l->last == 0 || l->first > l->last) {
        l->first = e->index;
        l->last = e->index - 1;
        l->cache_first = e->index;
    }
    TRY(keep(l, e));
    while (l->cache_bytes > LOG_CACHE_MAX)
        drop_cached_below(l, l->cache_first + 1);
    return OK;
}

void journal_start(struct journal *l, struct wal *wal) {
    bool empty = l->cache_first > l->last; /* an empty log may begin anywhere */
    l->wal = wal;
    l->first = wal_first(wal);
    l->last = wal_last(wal);
    if (empty) l->cache_first = l->last + 1;
    l->persisted = l->submitted = l->last;
    l->lagging_bytes = 0;
    l->disk_bytes = wal_file_bytes(wal); /* each start begins a segment: they add up too */
}

static void release_work(struct journal_work *w) {
    for (size_t i = 0; i < w->n; i++)
        entry_drop(w->entries[i]);
    w->n = 0;
    w->written = 0;
}

void journal_close(struct journal *l) {
    if (l->ring != NULL) drop_cached_below(l, UINT64_MAX);
    release_work(&l->work);
    entry_drop(l->loaned);
    free(l->work.entries);
    free(l->ring);
    if (l->wal != NULL) wal_close(l->wal);
    *l = (struct journal){0};
}

static void truncate_to(struct journal *l, uint64_t from) {
    drop_cached_from(l, from);
    if (l->submitted < from) return;
    l->submitted = from - 1;
    if (l->persisted >= from) l->persisted = from - 1;
    if (l->next.truncate == 0 || from < l->next.truncate) l->next.truncate = from;
}

RESULT journal_append(struct journal *l, struct entry *e) {
    if (e->index <= l->last) truncate_to(l, e->index);
    assert(e->index == l->last + 1);
    TRY(keep(l, e));
    evict(l);
    return OK;
}

void journal_reset(struct journal *l, uint64_t index) {
    drop_cached_from(l, l->cache_first);
    l->first = l->cache_first = index + 1;
    l->last = l->submitted = l->persisted = l->applied = index;
    l->next.truncate = 0;
    l->next.reset = true;
    l->next.reset_index = index;
}

void journal_compact(struct journal *l, uint64_t index) {
    if (index < l->first) return;
    drop_cached_below(l, index + 1);
    l->first = index + 1;
    if (index > l->next.compact) l->next.compact = index;
}

void journal_roll(struct journal *l) { l->next.roll = true; }
void journal_mark(struct journal *l) { l->next.mark = true; }

bool journal_idle(const struct journal *l) {
    const struct journal_work *n = &l->next;
    return !l->busy && !l->preparing && l->submitted == l->last && n->truncate == 0 && !n->reset &&
           n->compact == 0 && !n->roll && !n->mark;
}

/* On the log's thread. */
static void run_work(struct job *job) {
    struct journal *l = (struct journal *)((char *)job - offsetof(struct journal, job));
    struct journal_work *w = &l->work;
    w->error = OK;
    if (w->reset) w->error = wal_reset(l->wal, w->reset_index, &w->why);
    if (w->error == OK && w->truncate != 0) w->error = wal_truncate(l->wal, w->truncate, &w->why);
    if (w->error == OK) {
        w->reset = false;
        w->truncate = 0;
    }
    while (w->error == OK && w->written < w->n) {
        size_t n = wal_batch(l->wal, w->entries + w->written, w->n - w->written);
        w->error = wal_append(l->wal, w->entries + w->written, n, &w->why);
        if (w->error == OK) w->written += n;
    }
    if (w->error == OK && w->roll) w->error = wal_roll(l->wal, &w->why);
    if (w->error == OK && w->compact != 0) w->error = wal_compact(l->wal, w->compact, &w->why);
    if (w->error == OK && w->mark) w->error = wal_mark(l->wal, &w->why);
}

static void persisted_to(struct journal *l, uint64_t index) {
    while (l->persisted < index)
        l->lagging_bytes -= weight(*slot(l, ++l->persisted));
}

/* What was written counts as far as it is still what the log holds. */
static void note_persisted(struct journal *l) {
    const struct journal_work *w = &l->work;
    uint64_t bytes = 0;
    for (size_t i = 0; i < w->n; i++) {
        const struct entry *e = w->entries[i];
        bytes += e->size;
        if (l->trust_late) { /* without its guard: whatever was written counts */
            if (e->index <= l->last) persisted_to(l, e->index);
            continue;
        }
        bool current = e->index >= l->cache_first && e->index <= l->last && *slot(l, e->index) == e;
        if (current && e->index == l->persisted + 1 && e->index <= l->submitted)
            persisted_to(l, e->index);
    }
    if (w->n > 0) l->disk_bytes += (bytes + 2 * BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
}

static void prepare_run(struct job *job) {
    struct journal *l = (struct journal *)((char *)job - offsetof(struct journal, prepare_job));
    l->prepare_error = wal_prepare(l->wal, &l->prepare_why);
}

static void prepare_done(struct job *job) {
    struct journal *l = (struct journal *)((char *)job - offsetof(struct journal, prepare_job));
    l->preparing = false;
    if (l->prepare_error != OK && l->prepare_error != ERR_NOSPACE) {
        l->hooks.failed(l->hooks.ctx, l->prepare_error, l->prepare_why.text);
        return; /* a closing owner may be gone now, and we with it */
    }
    if (l->prepare_error == ERR_NOSPACE)
        l->full = true;
    else if (!l->busy && l->work.error != ERR_NOSPACE)
        l->full = false;
    l->hooks.persisted(l->hooks.ctx);
}

static void prepare(struct journal *l) {
    if (l->preparing || l->wal == NULL || !wal_wants_prepare(l->wal)) return;
    l->preparing = true;
    l->prepare_job = (struct job){.run = prepare_run, .done = prepare_done};
    l->side_exec->submit(l->side_exec, &l->prepare_job);
}

static void work_done(struct job *job) {
    struct journal *l = (struct journal *)((char *)job - offsetof(struct journal, job));
    l->busy = false;
    if (l->work.error == ERR_NOSPACE) { /* nothing was written: the work stays, for journal_retry */
        l->full = true;
        l->hooks.persisted(l->hooks.ctx);
        return;
    }
    if (l->work.error != OK) {
        l->hooks.failed(l->hooks.ctx, l->work.error, l->work.why.text);
        return;
    }
    l->full = false;
    note_persisted(l);
    release_work(&l->work);
    evict(l);
    prepare(l);
    l->hooks.persisted(l->hooks.ctx);
}

static void gather(struct journal *l) {
    struct journal_work *w = &l->work, *n = &l->next;
    w->truncate = n->truncate;
    w->reset = n->reset;
    w->reset_index = n->reset_index;
    w->compact = n->compact;
    w->roll = n->roll;
    w->mark = n->mark;
    *n = (struct journal_work){0};
    size_t bytes = 0;
    while (l->submitted < l->last && w->n < w->room) {
        struct entry *e = *slot(l, l->submitted + 1);
        bytes += e->size + 64;
        if (w->n > 0 && bytes > RECORD_MAX / 2) break;
        w->entries[w->n++] = entry_hold(e);
        l->submitted++;
    }
}

/* Only entries, of one block, and the active segment has room for it. */
static bool light(const struct journal *l) {
    const struct journal_work *w = &l->work;
    bool plain = !w->reset && w->truncate == 0 && !w->roll && w->compact == 0 && !w->mark;
    return plain && wal_one_block(l->wal, w->entries, w->n);
}

static void submit(struct journal *l) {
    l->busy = true;
    l->job = (struct job){.run = run_work, .done = work_done, .light = light(l)};
    l->log_exec->submit(l->log_exec, &l->job);
}

void journal_kick(struct journal *l) {
    if (l->busy || l->wal == NULL || l->work.n != 0 || l->work.error == ERR_NOSPACE) return;
    if (l->submitted == l->last && l->next.truncate == 0 && !l->next.reset &&
        l->next.compact == 0 && !l->next.roll && !l->next.mark)
        return;
    gather(l);
    submit(l);
}

void journal_retry(struct journal *l) {
    if (!l->full || l->busy) return;
    if (l->work.error == ERR_NOSPACE)
        submit(l);
    else
        prepare(l);
}

struct entry *journal_peek(struct journal *l, uint64_t index) {
    if (index < l->first || index > l->last) return NULL;
    if (index >= l->cache_first) return *slot(l, index);
    struct entry *e = NULL;
    if (wal_read(l->wal, index, &e, NULL) != OK) return NULL;
    entry_drop(l->loaned);
    l->loaned = e;
    return e;
}
