/* The hub. A watcher is live (each event is looked up in the index of live watchers, and its
 * position noted), or it has history to catch up with: it waits for a pass, in which the history is
 * read once for all that wait (as many as WATCH_PASS_MAX), in steps, and noted in the same way.
 *
 *   new ----> live <--- the pass is at the end --- scanned <--- a pass begins --- waiting ---> lost
 *    |           |  too much to note                |                             ^   ^
 *    |           +---------> lagged <---------------+                             |   |
 *    |                          +------- has taken all that was noted ------------+   |
 *    +--- starts in the past, or was restored ----------------------------------------+
 *
 * Who lags is in no index and costs nothing until it takes. Lost: what it needs next was
 * compacted.
 *
 * Invariants: what is noted for a watcher ascends, and lies below `from` when it lags; all events
 * of its interval from revision + 1 (or, when cut, from the one that is given in part) up to what
 * is noted last are noted or were given. Passes stop only between revisions, so what is noted ends
 * within a revision only if the watcher lags from there; the take then reads on to that revision's
 * end itself. */
#include "store/watch.h"

#include <assert.h>
#include <stdlib.h>

#include "store/history.h"
#include "store/watch_index.h"

struct watch_hub {
    struct store *store;
    uint64_t revision;          /* of the newest event */
    size_t n;                   /* watchers */
    struct watch_index live;    /* hear of what happens */
    struct watch_index scanned; /* hear of what the pass meets */
    struct watcher *full;       /* will lag when the index that they are in is walked through */
    struct watch_list lagged;   /* must take first */
    struct watch_list waiting;  /* for the next pass, first come first */
    bool passing;               /* there is a pass */
    uint64_t at;                /* where it is: the next position */
    size_t bytes;               /* of the intervals of all watchers */
    void (*behind)(void *ctx);  /* see watch_hub_behind; NULL: nobody asked */
    void *behind_ctx;
};

static const struct history *history_of(const struct watch_hub *h) {
    return store_history(h->store);
}

RESULT watch_hub_new(struct store *s, struct watch_hub **out) {
    struct watch_hub *h = calloc(1, sizeof *h);
    if (h == NULL) return ERR_NOMEM;
    enum err e = watch_index_start(&h->live);
    if (e == OK) e = watch_index_start(&h->scanned);
    if (e != OK) {
        watch_index_end(&h->live);
        free(h);
        return e;
    }
    watch_list_start(&h->lagged);
    watch_list_start(&h->waiting);
    h->store = s;
    h->revision = store_revision(s);
    store_watched(s, h);
    *out = h;
    return OK;
}

void watch_hub_free(struct watch_hub *h) {
    if (h == NULL) return;
    assert(h->n == 0);
    store_watched(h->store, NULL);
    watch_index_end(&h->live);
    watch_index_end(&h->scanned);
    free(h);
}

void watch_hub_behind(struct watch_hub *h, void (*behind)(void *ctx), void *ctx) {
    h->behind = behind;
    h->behind_ctx = ctx;
}

/* --- places --- */

static void place(struct watcher *w, enum watch_place at) {
    struct watch_hub *h = w->hub;
    w->place = (uint8_t)at;
    switch (at) {
    case PLACE_LIVE: watch_index_add(&h->live, w); break;
    case PLACE_SCANNED: watch_index_add(&h->scanned, w); break;
    case PLACE_LAGGED: watch_list_add(&h->lagged, w); break;
    case PLACE_WAITING: watch_list_add(&h->waiting, w); break;
    case PLACE_LOST: break;
    }
    if (at == PLACE_WAITING && h->behind != NULL) h->behind(h->behind_ctx);
}

static void unplace(struct watcher *w) {
    struct watch_hub *h = w->hub;
    switch ((enum watch_place)w->place) {
    case PLACE_LIVE: watch_index_remove(&h->live, w); break;
    case PLACE_SCANNED: watch_index_remove(&h->scanned, w); break;
    case PLACE_LAGGED: watch_list_remove(&h->lagged, w); break;
    case PLACE_WAITING: watch_list_remove(&h->waiting, w); break;
    case PLACE_LOST: break;
    }
}

static void move(struct watcher *w, enum watch_place to) {
    unplace(w);
    place(w, to);
}

/* --- what is noted --- */

static unsigned noted(const struct watcher *w) { return w->n - w->head; }
static uint64_t *positions(struct watcher *w) { return w->room > WATCH_INLINE ? w->many : w->few; }

static void forget(struct watcher *w) {
    if (w->room > WATCH_INLINE) free(w->many);
    w->room = WATCH_INLINE;
    w->head = w->n = 0;
}

/* Room for one more, if there may be. */
static bool make_room(struct watcher *w) {
    if (w->n < w->room) return true;
    uint64_t *now = positions(w);
    if (w->head > 0) {
        memmove(now, now + w->head, noted(w) * sizeof *now);
        w->n = (uint8_t)noted(w);
        w->head = 0;
        return true;
    }
    if (w->room >= WATCH_PENDING_MAX) return false;
    unsigned room = w->room > WATCH_INLINE ? WATCH_PENDING_MAX : 4 * WATCH_INLINE;
    uint64_t *more = malloc(room * sizeof *more);
    if (more == NULL) return false; /* it finds them again in the history */
    memcpy(more, now, w->n * sizeof *now);
    if (w->room > WATCH_INLINE) free(now);
    w->many = more;
    w->room = (uint8_t)room;
    return true;
}

struct heard {
    uint64_t position;
    uint64_t revision;
    bool tomb;
};

static void lag(struct watcher *w, uint64_t from) {
    w->from = from;
    w->next_full = w->hub->full;
    w->hub->full = w;
}

static bool wants(const struct watcher *w, bool tomb) { return tomb ? !w->no_delete : !w->no_put; }

/* An event of its interval, met live or by the pass. */
static void hear(void *ctx, struct watcher *w) {
    const struct heard *e = ctx;
    if (e->revision <= w->revision || !wants(w, e->tomb)) return;
    if (w->place == PLACE_SCANNED && e->position < w->from) return;
    if (!make_room(w)) {
        lag(w, e->position);
        return;
    }
    positions(w)[w->n++] = e->position;
    if (noted(w) > 1) return;
    assert(!w->cut || w->revision == e->revision - 1); /* it was cut because there is more of it */
    w->revision = e->revision - 1;
    w->wake(w->ctx);
}

static size_t tell(struct watch_hub *h, struct watch_index *x, uint64_t position) {
    const struct item *i = history_at(history_of(h), position);
    struct heard e = {.position = position, .revision = item_born(i), .tomb = item_tomb(i)};
    size_t seen = watch_index_find(x, item_key(i), hear, &e);
    for (struct watcher *w; (w = h->full) != NULL;) {
        h->full = w->next_full;
        move(w, PLACE_LAGGED);
    }
    return seen;
}

void watch_applied(struct watch_hub *h, uint64_t position) {
    h->revision = item_born(history_at(history_of(h), position));
    if (h->live.n != 0) (void)tell(h, &h->live, position);
}

/* --- watchers --- */

static bool is_compacted(const struct watch_hub *h, uint64_t revision) {
    return revision < store_compacted(h->store);
}

/* Where a watcher belongs that needs all from the revision on, and `skip` events of it not. */
static void settle(struct watcher *w, uint64_t revision, uint32_t skip) {
    struct watch_hub *h = w->hub;
    w->revision = revision - 1;
    if (is_compacted(h, revision)) {
        place(w, PLACE_LOST);
        return;
    }
    w->from = history_find(history_of(h), revision) + skip;
    if (w->from == history_end(history_of(h)))
        place(w, PLACE_LIVE);
    else if (h->passing && w->from >= h->at && h->scanned.n < WATCH_PASS_MAX)
        place(w, PLACE_SCANNED);
    else
        place(w, PLACE_WAITING);
}

static void copy_interval(struct watcher *w, const struct interval *in) {
    w->one = in->end.size == 0;
    w->endless = in->end.size == 1 && in->end.at[0] == 0;
    w->key_size = (uint16_t)in->key.size;
    w->end_size = w->endless ? 0 : (uint16_t)in->end.size;
    if (w->key_size != 0) memcpy(w->bytes, in->key.at, w->key_size);
    if (w->end_size != 0) memcpy(w->bytes + w->key_size, in->end.at, w->end_size);
}

static size_t watcher_bytes(const struct watcher *w) { return (size_t)w->key_size + w->end_size; }

RESULT watcher_new(struct watch_hub *h, const struct watch_options *o, struct watcher **out) {
    size_t bytes = o->in.key.size + o->in.end.size;
    if (o->in.key.size > KEY_MAX || o->in.end.size > KEY_MAX) return ERR_TOO_LARGE;
    if (h->n == WATCHERS_MAX || h->bytes + bytes > WATCHERS_BYTES_MAX) return ERR_BUSY;
    struct watcher *w = malloc(sizeof *w + bytes);
    if (w == NULL) return ERR_NOMEM;
    *w = (struct watcher){.hub = h, .wake = o->wake, .ctx = o->ctx, .room = WATCH_INLINE};
    w->no_put = o->no_put;
    w->no_delete = o->no_delete;
    w->prev_kv = o->prev_kv;
    copy_interval(w, &o->in);
    settle(w, o->start == 0 ? h->revision + 1 : o->start, 0);
    h->n++;
    h->bytes += watcher_bytes(w);
    *out = w;
    return OK;
}

void watcher_free(struct watcher *w) {
    if (w == NULL) return;
    unplace(w);
    forget(w);
    w->hub->n--;
    w->hub->bytes -= watcher_bytes(w);
    free(w);
}

void watcher_interval(const struct watcher *w, struct interval *out) {
    out->key = watcher_key(w);
    out->end = w->endless ? span_of("", 1) : watcher_end(w);
}

bool watcher_synced(const struct watcher *w) { return w->place == PLACE_LIVE && noted(w) == 0; }

uint64_t watcher_revision(const struct watcher *w) {
    bool behind = !watcher_synced(w);
    return behind || w->revision > w->hub->revision ? w->revision : w->hub->revision;
}

/* --- the pass --- */

static void lose(struct watcher *w) {
    forget(w);
    move(w, PLACE_LOST);
    w->wake(w->ctx);
}

static void join(struct watch_hub *h, struct watcher *w) {
    if (w->from < history_first(history_of(h))) {
        lose(w);
        return;
    }
    if (h->scanned.n == 0 || w->from < h->at) h->at = w->from;
    move(w, PLACE_SCANNED);
}

static void begin_pass(struct watch_hub *h) {
    h->passing = true;
    for (unsigned i = 0; i < WATCH_PASS_MAX && h->waiting.first != NULL; i++)
        join(h, h->waiting.first);
}

/* All in it go on: live when they have seen all; else what the pass was at is compacted, and those
 * that need it will hear so when they join the next. */
static void end_pass(struct watch_hub *h) {
    bool whole = h->at == history_end(history_of(h));
    size_t bucket = 0;
    struct watcher *w;
    while ((w = watch_index_any(&h->scanned, &bucket)) != NULL) {
        move(w, whole ? PLACE_LIVE : PLACE_WAITING);
        if (watcher_synced(w)) w->wake(w->ctx);
    }
    h->passing = false;
}

/* Some of the history, to the end of a revision. */
static void scan(struct watch_hub *h) {
    const struct history *history = history_of(h);
    uint64_t end = history_end(history), last = 0;
    for (size_t looked = 0; h->at < end; h->at++) {
        uint64_t revision = item_born(history_at(history, h->at));
        if (looked >= WATCH_SCAN_STEP && revision != last) return;
        looked += 1 + tell(h, &h->scanned, h->at);
        last = revision;
    }
}

bool watch_hub_step(struct watch_hub *h) {
    if (!h->passing && h->waiting.n == 0) return false;
    if (!h->passing) begin_pass(h);
    bool there = h->at >= history_first(history_of(h));
    if (h->scanned.n != 0 && there) scan(h);
    if (h->scanned.n == 0 || !there || h->at == history_end(history_of(h))) end_pass(h);
    return h->passing || h->waiting.n != 0;
}

static void detach(struct watcher *w, struct watch_list *to) {
    unplace(w);
    watch_list_add(to, w);
}

static void detach_all(struct watch_index *x, struct watch_list *to) {
    size_t bucket = 0;
    struct watcher *w;
    while ((w = watch_index_any(x, &bucket)) != NULL)
        detach(w, to);
}

static void after_restore(struct watcher *w, uint64_t was) {
    uint64_t next = 1 + (watcher_synced(w) && w->revision < was ? was : w->revision);
    forget(w);
    settle(w, next, w->cut ? w->within : 0);
    if (w->place == PLACE_LOST) w->wake(w->ctx);
}

void watch_restored(struct watch_hub *h) {
    struct watch_list all;
    struct watcher *w;
    uint64_t was = h->revision;
    watch_list_start(&all);
    detach_all(&h->live, &all);
    detach_all(&h->scanned, &all);
    while ((w = h->lagged.first) != NULL || (w = h->waiting.first) != NULL)
        detach(w, &all);
    h->passing = false;
    h->revision = store_revision(h->store);
    while ((w = all.first) != NULL) {
        watch_list_remove(&all, w);
        after_restore(w, was);
    }
}

/* --- taking --- */

struct take {
    struct watcher *w;
    const struct history *history;
    size_t bytes, bytes_max; /* given so far; about as many as may be */
    bool fragment;
    uint64_t revision; /* that is being given; 0: none */
    watch_each *each;
    void *ctx;
    struct watch_taken *out;
};

static bool covers(const struct watcher *w, struct span key) {
    if (w->one) return span_equal(watcher_key(w), key);
    if (span_compare(key, watcher_key(w)) < 0) return false;
    return w->endless || span_compare(key, watcher_end(w)) < 0;
}

/* What of the revision that is being given lies where nothing was noted any more. */
static struct item *read_on(struct take *t) {
    struct watcher *w = t->w;
    if (w->place != PLACE_LAGGED) return NULL;
    for (; w->from < history_end(t->history); w->from++) {
        struct item *i = history_at(t->history, w->from);
        if (item_born(i) != t->revision) return NULL;
        if (wants(w, item_tomb(i)) && covers(w, item_key(i))) return i;
    }
    return NULL;
}

static struct item *peek(struct take *t) {
    struct watcher *w = t->w;
    if (noted(w) == 0) return read_on(t);
    return history_at(t->history, positions(w)[w->head]);
}

static void advance(struct watcher *w) {
    if (noted(w) == 0) {
        w->from++;
        return;
    }
    w->head++;
    if (noted(w) == 0) forget(w);
}

static size_t event_bytes(const struct watch_event *e) {
    return e->kv.key.size + e->kv.value.size + (e->has_prev ? e->prev.key.size : 0) +
           (e->has_prev ? e->prev.value.size : 0);
}

static void make_event(const struct take *t, const struct item *i, struct watch_event *out) {
    *out = (struct watch_event){.deleted = item_tomb(i)};
    item_read(i, &out->kv);
    if (out->deleted)
        out->kv = (struct kv){.key = out->kv.key, .mod_revision = out->kv.mod_revision};
    const struct item *older = i->older;
    while (older != NULL && older->mod_revision == i->mod_revision) /* a batch put it twice */
        older = older->older;
    if (!t->w->prev_kv || older == NULL || item_tomb(older)) return;
    if (!out->deleted && out->kv.version == 1) return; /* deleted and made anew in one revision */
    if (is_compacted(t->w->hub, item_born(i) - 1)) return;
    out->has_prev = true;
    item_read(older, &out->prev);
}

/* May it go into this batch? */
static bool fits(const struct take *t, uint64_t revision, size_t bytes) {
    if (t->out->n == 0 || t->bytes + bytes <= t->bytes_max) return true;
    return !t->fragment && revision == t->revision;
}

static RESULT give(struct take *t) {
    struct item *i;
    while ((i = peek(t)) != NULL) {
        struct watch_event e;
        make_event(t, i, &e);
        size_t bytes = event_bytes(&e);
        t->out->more = !fits(t, item_born(i), bytes);
        enum err error = t->out->more ? OK : t->each(t->ctx, &e);
        t->out->fragment = (t->out->more || error != OK) && item_born(i) == t->revision;
        if (t->out->more || error != OK) return error;
        t->out->n++;
        t->bytes += bytes;
        t->revision = item_born(i);
        advance(t->w);
    }
    return OK;
}

/* Remembers how far it came. */
static void note_progress(struct take *t) {
    struct watcher *w = t->w;
    bool lagged = w->place == PLACE_LAGGED;
    if (t->out->n == 0 && !lagged) return;
    bool drained = noted(w) == 0 && !t->out->fragment;
    w->cut = t->out->fragment;
    if (t->revision != 0) w->revision = t->revision - (w->cut ? 1 : 0);
    if (w->cut) {
        uint64_t next = noted(w) != 0 ? positions(w)[w->head] : w->from;
        w->within = (uint32_t)(next - history_find(t->history, t->revision));
    }
    if (lagged && drained) move(w, PLACE_WAITING);
}

static bool missed(struct watcher *w) {
    uint64_t first = history_first(history_of(w->hub));
    if (noted(w) != 0) return positions(w)[w->head] < first;
    return w->place == PLACE_LAGGED && w->from < first;
}

RESULT watcher_take(struct watcher *w, size_t bytes_max, bool fragment, watch_each *each, void *ctx,
                    struct watch_taken *out) {
    *out = (struct watch_taken){.n = 0};
    if (w->place != PLACE_LOST && missed(w)) move(w, PLACE_LOST);
    if (w->place == PLACE_LOST) return ERR_COMPACTED;
    struct take t = {.w = w,
                     .history = history_of(w->hub),
                     .bytes_max = bytes_max,
                     .fragment = fragment,
                     .revision = w->cut ? w->revision + 1 : 0,
                     .each = each,
                     .ctx = ctx,
                     .out = out};
    enum err e = give(&t);
    note_progress(&t);
    out->revision = watcher_revision(w);
    return e;
}
