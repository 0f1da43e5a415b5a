/* Watches: who wants to hear of which keys. The hub hangs on a store; each applied change wakes the
 * watchers that it concerns, and they then take their events themselves, when they have room. So
 * nothing is queued for a watcher but up to WATCH_PENDING_MAX positions in the history; one that is
 * slower than that finds its events again in the history, and one whose events were compacted
 * meanwhile is told so. A slow watcher costs nobody anything. All that are behind are caught up
 * together, in one pass over the history, in steps (watch_hub_step).
 *
 * Invariants: a watcher gets each event of its interval from its start on exactly once, in order of
 * (revision, sub), all of one revision in one batch or marked as fragments. One thread: the loop.
 * `wake` only notes; it fires inside store_apply and watch_hub_step, and never calls back into the
 * hub. */
#ifndef CONCLAVE_WATCH_H
#define CONCLAVE_WATCH_H

#include "store/range.h"
#include "store/store.h"

struct watch_hub;
struct watcher;

struct watch_event {
    bool deleted;   /* else put */
    struct kv kv;   /* deleted: key and mod_revision only */
    bool has_prev;  /* asked for, there was one, and it isn't compacted */
    struct kv prev; /* what was there before */
};

struct watch_options {
    struct interval in;
    uint64_t start;          /* first revision; 0: from now on */
    bool no_put, no_delete;  /* filters */
    bool prev_kv;            /* events carry what was there before */
    void (*wake)(void *ctx); /* there is something to take, and was not; or it has caught up */
    void *ctx;               /* for it */
};

RESULT watch_hub_new(struct store *s, struct watch_hub **out); /* at most one of a store */
void watch_hub_free(struct watch_hub *h);                      /* no watchers left; NULL is fine */
/* `behind` is called (and, as `wake`, only notes) when a watcher has history to catch up with. */
void watch_hub_behind(struct watch_hub *h, void (*behind)(void *ctx), void *ctx);
/* Copies the interval. ERR_BUSY: WATCHERS_MAX, WATCHERS_BYTES_MAX; ERR_TOO_LARGE: KEY_MAX. A start
 * that is compacted is told by the first take. */
RESULT watcher_new(struct watch_hub *h, const struct watch_options *o, struct watcher **out);
void watcher_free(struct watcher *w);                                 /* NULL is fine */
void watcher_interval(const struct watcher *w, struct interval *out); /* in its own bytes */

/* A step of catching up, some WATCH_SCAN_STEP events; false: nobody is behind, but for those that
 * must take first. The loop calls it once a turn. */
bool watch_hub_step(struct watch_hub *h);

/* Takes the next events, about `bytes_max` of keys and values but at least one revision (unless
 * `fragment`, when a revision is cut at bytes_max). `each` sees them in order; spans are good until
 * it returns, and what it returns but OK ends the take: that event is not taken. ERR_COMPACTED: the
 * watcher missed events (store_compacted says which revision can still be asked for), and will
 * never have more. */
struct watch_taken {
    uint64_t revision; /* all up to here was given (or concerned others) */
    unsigned n;        /* events given */
    bool more;         /* there is more to take now; else `wake` will tell */
    bool fragment;     /* this revision goes on in the next batch */
};
typedef enum err watch_each(void *ctx, const struct watch_event *e);
RESULT watcher_take(struct watcher *w, size_t bytes_max, bool fragment, watch_each *each, void *ctx,
                    struct watch_taken *out);
bool watcher_synced(const struct watcher *w); /* has taken all up to now */
/* It needs what comes after this one; later than the store's when it starts in the future. */
uint64_t watcher_revision(const struct watcher *w);

/* Called by the store: */
struct item;
void watch_applied(struct watch_hub *h, uint64_t position); /* a new event at the history's end */
void watch_restored(struct watch_hub *h); /* a snapshot took the place of the state */

#endif
