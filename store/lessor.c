/* Deadlines of leases (lessor.h): timers in slots that never move, a binary heap of slot numbers
 * with the next deadline on top, and a hash table from ids to slots, chained through them. Renewing
 * is a lookup and a walk through the heap, O(log n); a lease costs about 50 bytes. Room for a
 * grant is had before anything changes. Deadlines are in the leases' own time (`clock_ms`). */
#include "store/lessor.h"

#include <assert.h>
#include <stdlib.h>

#define NONE     UINT32_MAX
#define ROOM_MIN 64 /* slots; a power of two, as all rooms */

struct timer {
    uint64_t id;     /* the lease */
    uint64_t ttl_ms; /* granted */
    uint64_t due_ms; /* runs out, or is to be given again */
    uint32_t at;     /* place in the heap */
    uint32_t next;   /* in the chain of its bucket, or of free slots */
    bool given;      /* as due */
};

struct lessor {
    bool leads;           /* else everything below is empty */
    uint64_t clock_ms;    /* the leases' time as of seen_ms */
    uint64_t seen_ms;     /* monotonic time of the last call */
    struct timer *timers; /* `room` slots */
    uint32_t *heap;       /* slots, the earliest on top; `n` of `room` */
    uint32_t *buckets;    /* first slot of a chain; `room` of them */
    uint32_t n, room;     /* leases; slots */
    uint32_t free;        /* first free slot, chained; NONE: none */
};

RESULT lessor_new(struct lessor **out) {
    struct lessor *l = calloc(1, sizeof *l);
    if (l == NULL) return ERR_NOMEM;
    l->free = NONE;
    *out = l;
    return OK;
}

static void forget_all(struct lessor *l) {
    free(l->timers);
    free(l->heap);
    free(l->buckets);
    *l = (struct lessor){.free = NONE};
}

void lessor_free(struct lessor *l) {
    if (l == NULL) return;
    forget_all(l);
    free(l);
}

void lessor_follow(struct lessor *l) { forget_all(l); }
bool lessor_leads(const struct lessor *l) { return l->leads; }

/* --- time --- */

static uint64_t clock_at(const struct lessor *l, uint64_t now_ms) {
    uint64_t passed = now_ms > l->seen_ms ? now_ms - l->seen_ms : 0;
    return l->clock_ms + (passed < LESSOR_GAP_MS ? passed : LESSOR_GAP_MS);
}

static void pass_time(struct lessor *l, uint64_t now_ms) {
    l->clock_ms = clock_at(l, now_ms);
    if (now_ms > l->seen_ms) l->seen_ms = now_ms;
}

/* --- the table --- */

/* Ids are random or chosen by clients: mixed, so that no pattern fills one bucket. */
static uint32_t bucket_of(const struct lessor *l, uint64_t id) {
    uint64_t z = (id ^ id >> 32) * 0x9e3779b97f4a7c15ULL;
    return (uint32_t)(z >> 32) & (l->room - 1);
}

static struct timer *timer_find(const struct lessor *l, uint64_t id) {
    if (l->n == 0) return NULL;
    uint32_t slot = l->buckets[bucket_of(l, id)];
    while (slot != NONE && l->timers[slot].id != id)
        slot = l->timers[slot].next;
    return slot == NONE ? NULL : &l->timers[slot];
}

static void chain(struct lessor *l, uint32_t slot) {
    uint32_t *bucket = &l->buckets[bucket_of(l, l->timers[slot].id)];
    l->timers[slot].next = *bucket;
    *bucket = slot;
}

static void unchain(struct lessor *l, uint32_t slot) {
    uint32_t *link = &l->buckets[bucket_of(l, l->timers[slot].id)];
    while (*link != slot)
        link = &l->timers[*link].next;
    *link = l->timers[slot].next;
}

static void free_slot(struct lessor *l, uint32_t slot) {
    l->timers[slot].next = l->free;
    l->free = slot;
}

/* On ERR_NOMEM the one or the other is larger than it need be. */
static RESULT resize_slots(struct lessor *l, uint32_t room) {
    struct timer *timers = realloc(l->timers, room * sizeof *timers);
    if (timers == NULL) return ERR_NOMEM;
    l->timers = timers;
    uint32_t *heap = realloc(l->heap, room * sizeof *heap);
    if (heap == NULL) return ERR_NOMEM;
    l->heap = heap;
    return OK;
}

/* Slots are in use from the first to the last when there is no free one, or there are none. */
static RESULT grow(struct lessor *l, uint32_t room) {
    assert(l->free == NONE && room > l->room);
    TRY(resize_slots(l, room));
    uint32_t *buckets = malloc(room * sizeof *buckets);
    if (buckets == NULL) return ERR_NOMEM;
    free(l->buckets);
    l->buckets = buckets;
    memset(buckets, 0xff, room * sizeof *buckets);
    uint32_t old = l->room;
    l->room = room;
    for (uint32_t slot = 0; slot < old; slot++)
        chain(l, slot);
    for (uint32_t slot = room; slot-- > old;)
        free_slot(l, slot);
    return OK;
}

static RESULT reserve(struct lessor *l, uint64_t n) {
    if (n > LEASES_MAX) return ERR_BUSY;
    uint32_t room = l->room == 0 ? ROOM_MIN : l->room;
    while (room < n)
        room *= 2;
    return room == l->room ? OK : grow(l, room);
}

/* --- the heap --- */

static uint64_t due_at(const struct lessor *l, uint32_t at) {
    return l->timers[l->heap[at]].due_ms;
}

static void heap_set(struct lessor *l, uint32_t at, uint32_t slot) {
    l->heap[at] = slot;
    l->timers[slot].at = at;
}

static void sift_up(struct lessor *l, uint32_t at) {
    uint32_t slot = l->heap[at];
    uint64_t due = l->timers[slot].due_ms;
    while (at > 0 && due_at(l, (at - 1) / 2) > due) {
        heap_set(l, at, l->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_set(l, at, slot);
}

static void sift_down(struct lessor *l, uint32_t at) {
    uint32_t slot = l->heap[at];
    uint64_t due = l->timers[slot].due_ms;
    while (true) {
        uint32_t child = 2 * at + 1;
        if (child >= l->n) break;
        if (child + 1 < l->n && due_at(l, child + 1) < due_at(l, child)) child++;
        if (due_at(l, child) >= due) break;
        heap_set(l, at, l->heap[child]);
        at = child;
    }
    heap_set(l, at, slot);
}

static void set_due(struct lessor *l, struct timer *t, uint64_t due_ms) {
    bool later = due_ms > t->due_ms;
    t->due_ms = due_ms;
    if (later)
        sift_down(l, t->at);
    else
        sift_up(l, t->at);
}

/* There is room. */
static void add(struct lessor *l, const struct lease *lease) {
    uint32_t slot = l->free;
    assert(slot != NONE && l->n < l->room);
    struct timer *t = &l->timers[slot];
    l->free = t->next;
    *t = (struct timer){
        .id = lease->id, .ttl_ms = lease->ttl_ms, .due_ms = l->clock_ms + lease->ttl_ms};
    chain(l, slot);
    heap_set(l, l->n, slot);
    l->n++;
    sift_up(l, l->n - 1);
}

/* --- leading --- */

static bool add_each(void *ctx, const struct lease *lease) {
    add(ctx, lease);
    return true;
}

RESULT lessor_lead(struct lessor *l, const struct leases *all, uint64_t now_ms) {
    struct lessor anew = {.leads = true, .seen_ms = now_ms, .free = NONE};
    enum err e = reserve(&anew, leases_count(all));
    if (e != OK) {
        forget_all(&anew);
        return e;
    }
    leases_each(all, add_each, &anew);
    forget_all(l);
    *l = anew;
    return OK;
}

RESULT lessor_granted(struct lessor *l, const struct lease *lease, uint64_t now_ms) {
    if (!l->leads) return OK;
    lessor_revoked(l, lease->id);
    TRY(reserve(l, (uint64_t)l->n + 1));
    pass_time(l, now_ms);
    add(l, lease);
    return OK;
}

void lessor_revoked(struct lessor *l, uint64_t id) {
    struct timer *t = timer_find(l, id);
    if (t == NULL) return;
    uint32_t slot = (uint32_t)(t - l->timers), at = t->at, last = l->heap[--l->n];
    unchain(l, slot);
    free_slot(l, slot);
    if (slot == last) return;
    heap_set(l, at, last);
    sift_up(l, at);
    sift_down(l, l->timers[last].at);
}

RESULT lessor_renew(struct lessor *l, uint64_t id, uint64_t now_ms, uint64_t *ttl_ms) {
    if (!l->leads) return ERR_NOT_LEADER;
    struct timer *t = timer_find(l, id);
    if (t == NULL || t->given) return ERR_LEASE_NOT_FOUND;
    pass_time(l, now_ms);
    set_due(l, t, l->clock_ms + t->ttl_ms);
    *ttl_ms = t->ttl_ms;
    return OK;
}

RESULT lessor_remaining(const struct lessor *l, uint64_t id, uint64_t now_ms, uint64_t *ms) {
    if (!l->leads) return ERR_NOT_LEADER;
    const struct timer *t = timer_find(l, id);
    if (t == NULL) return ERR_LEASE_NOT_FOUND;
    uint64_t clock_ms = clock_at(l, now_ms);
    *ms = t->given || t->due_ms <= clock_ms ? 0 : t->due_ms - clock_ms;
    return OK;
}

size_t lessor_due(struct lessor *l, uint64_t now_ms, uint64_t *ids, size_t max, uint64_t *next_ms) {
    size_t n = 0;
    pass_time(l, now_ms);
    while (l->n > 0 && n < max && due_at(l, 0) <= l->clock_ms) {
        struct timer *t = &l->timers[l->heap[0]];
        ids[n++] = t->id;
        t->given = true;
        set_due(l, t, l->clock_ms + LESSOR_RETRY_MS);
    }
    uint64_t wait = LESSOR_TICK_MS;
    if (l->n > 0 && due_at(l, 0) < l->clock_ms + wait)
        wait = due_at(l, 0) > l->clock_ms ? due_at(l, 0) - l->clock_ms : 0;
    *next_ms = now_ms + wait;
    return n;
}
