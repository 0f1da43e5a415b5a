/* The watchers of a hub, found by a key that has changed. Private to watch.c and watch_index.c.
 *
 * Watchers of a single key stand in a hash table (linear hashing: it grows by one bucket at a time,
 * so that no insertion is slow), watchers of an interval in a treap ordered by the start, in which
 * every node knows the farthest end of its subtree: all intervals that hold a key are found in
 * O(log n) and what they are. Hash key and priorities are random, so that nobody can choose keys
 * that make it slow. Links are in the watcher: moving one from an index to another can't fail. */
#ifndef CONCLAVE_WATCH_INDEX_H
#define CONCLAVE_WATCH_INDEX_H

#include "store/watch.h"

#define WATCH_INLINE 2 /* positions noted without memory of their own */

enum watch_place {
    PLACE_LIVE,    /* in hub->live: hears of each event */
    PLACE_SCANNED, /* in hub->scanned: hears of what the pass over the history meets */
    PLACE_LAGGED,  /* in hub->lagged: must take what is noted, and goes on from `from` then */
    PLACE_WAITING, /* in hub->waiting: for the next pass, from `from` on */
    PLACE_LOST,    /* nowhere: events that it needs were compacted */
};

struct watch_links {
    union {
        struct {
            struct watcher *left, *right, *parent; /* in a treap */
            struct watcher *last;                  /* the farthest end of the subtree */
        };
        struct {
            struct watcher *next;      /* in a bucket or list */
            struct watcher **previous; /* what points to this one */
        };
    };
};

struct watcher {
    struct watch_hub *hub;
    struct watch_links links;
    struct watcher *next_full; /* in hub->full */
    void (*wake)(void *ctx);
    void *ctx;
    uint64_t revision; /* all up to here is given, or not wanted; may lag when live */
    uint64_t from;     /* but live: position that must be looked at next */
    union {
        uint64_t few[WATCH_INLINE]; /* positions noted, from `head` on */
        uint64_t *many;             /* the same, when room > WATCH_INLINE */
    };
    uint32_t priority;           /* in the treap */
    uint32_t within;             /* events of revision + 1 that were looked at; see `cut` */
    uint16_t key_size, end_size; /* bytes */
    uint8_t head, n, room;       /* of the positions; those from head to n are to be taken */
    uint8_t place;               /* enum watch_place */
    bool one : 1;                /* a single key */
    bool endless : 1;            /* all keys from `key` on */
    bool no_put : 1, no_delete : 1, prev_kv : 1;
    bool cut : 1;    /* revision + 1 was given in part */
    uint8_t bytes[]; /* key, end */
};

static inline struct span watcher_key(const struct watcher *w) {
    return span_of(w->bytes, w->key_size);
}
static inline struct span watcher_end(const struct watcher *w) {
    return span_of(w->bytes + w->key_size, w->end_size);
}

#define WATCH_SEGMENT 1024 /* buckets that are had at once */

struct watch_index {
    struct watcher **segments[WATCHERS_MAX / WATCH_SEGMENT]; /* the buckets; NULL: not yet */
    size_t buckets;                                          /* in use, >= 1 */
    size_t half;                                             /* power of two <= buckets */
    size_t singles;                                          /* watchers in the table */
    size_t n;                                                /* watchers in all */
    struct watcher *root;                                    /* of the treap; NULL: none */
    uint8_t key[16];                                         /* of the hash; random */
};

RESULT watch_index_start(struct watch_index *x);
void watch_index_end(struct watch_index *x); /* no watchers are left in it */
void watch_index_add(struct watch_index *x, struct watcher *w);
void watch_index_remove(struct watch_index *x, struct watcher *w);
struct watcher *watch_index_any(struct watch_index *x, size_t *bucket); /* NULL: none; see .c */
/* Calls `each` for all whose interval has the key; it must not change the index. Returns how many
 * watchers were looked at. */
typedef void watch_index_each(void *ctx, struct watcher *w);
size_t watch_index_find(struct watch_index *x, struct span key, watch_index_each *each, void *ctx);

/* Lists, by the same links. */
struct watch_list {
    struct watcher *first;
    struct watcher **last; /* where the next is hung */
    size_t n;
};
void watch_list_start(struct watch_list *l);
void watch_list_add(struct watch_list *l, struct watcher *w);
void watch_list_remove(struct watch_list *l, struct watcher *w);

#endif
