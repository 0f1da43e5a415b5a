/* A state from the bytes of an image (format: top of image.c), in whatever pieces they come. It is
 * built beside the present state, on any thread; the loop swaps it in when all of it was there, in
 * order and within its bounds, and the hash of what was built is the one in the image and the one
 * that the caller expects. Until then nothing of the present state is touched. Memory: the new
 * state, one part of it, and a pointer for each event, which come in the order of the keys and are
 * sorted into the history at the end. */
#include <assert.h>
#include <stdlib.h>

#include "store/state.h"
#include "store/watch.h"

/* What is being read: each part is awaited whole in `into` before it is looked at. */
enum restore_part {
    READ_HEAD,
    READ_CLUSTER,
    READ_AUTH,
    READ_ALARMS,
    READ_TOKENS,
    READ_TOKEN,
    READ_LEASE,
    READ_ROW,
    READ_ROW_BYTES,
    READ_ITEM,
    READ_ITEM_BYTES,
    READ_TAIL,
    READ_NOTHING
};

struct machine_restore {
    struct store *store;     /* taken over by it at the end */
    struct state state;      /* being built */
    struct retired *retired; /* RETIRED_TREES of them, for the old trees */
    enum err failed;         /* the first error; nothing is read after it */
    enum restore_part part;
    uint8_t *into;                          /* where its bytes go */
    size_t have, need;                      /* bytes of the part */
    uint8_t small[ALARMS_MAX * ALARM_SIZE]; /* a part of fixed size */
    struct buf cluster, auth;               /* their bytes; wiped after */
    uint64_t tokens, leases, rows;          /* still to come */
    uint64_t last_lease;                    /* id; they ascend */
    const struct item *last_row;            /* they ascend by key */
    uint64_t keys;                          /* live ones, as the head says */
    struct item *item;                      /* waits for its key and value */
    bool older;                             /* it hangs behind `last` */
    struct item *newest;                    /* of the last key; stands in the tree */
    struct item *last;                      /* the oldest of its versions so far */
    struct item **event;                    /* those of the history */
    size_t events, events_room;             /* in use, allocated */
    struct lanes others;                    /* as image.c sums them up */
    uint8_t hash[STATE_HASH_SIZE];          /* as the tail says */
};

#define RETIRED_TREES 4

static void await(struct machine_restore *r, enum restore_part part, uint8_t *into, size_t need) {
    r->part = part;
    r->into = into;
    r->have = 0;
    r->need = need;
}

static void await_small(struct machine_restore *r, enum restore_part part, size_t need) {
    assert(need <= sizeof r->small);
    await(r, part, r->small, need);
}

static void retired_free(struct retired *r) {
    while (r != NULL) {
        struct retired *next = r->next;
        free(r);
        r = next;
    }
}

static RESULT retired_new(struct retired **out) {
    *out = NULL;
    for (unsigned i = 0; i < RETIRED_TREES; i++) {
        struct retired *r = malloc(sizeof *r);
        if (r == NULL) return ERR_NOMEM;
        *r = (struct retired){.next = *out};
        *out = r;
    }
    return OK;
}

enum err store_restore(struct machine *m, struct machine_restore **out) {
    struct machine_restore *r = calloc(1, sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    enum err e = state_start(&r->state);
    if (e != OK) {
        free(r);
        return e;
    }
    r->store = store_of(m);
    r->cluster = buf_new(CLUSTER_BYTES_MAX);
    r->auth = buf_new(AUTH_BYTES_MAX);
    e = retired_new(&r->retired);
    if (e != OK) {
        restore_abort(r);
        return e;
    }
    await_small(r, READ_HEAD, IMAGE_HEAD_SIZE);
    *out = r;
    return OK;
}

void restore_abort(struct machine_restore *r) {
    if (r == NULL) return;
    state_end(&r->state);
    buf_wipe(&r->cluster);
    buf_wipe(&r->auth);
    free(r->item);
    free(r->event);
    retired_free(r->retired);
    free(r);
}

/* --- the parts --- */

static void await_next(struct machine_restore *r) {
    if (r->tokens > 0)
        await_small(r, READ_TOKEN, IMAGE_TOKEN_SIZE);
    else if (r->leases > 0)
        await_small(r, READ_LEASE, IMAGE_LEASE_SIZE);
    else if (r->rows > 0)
        await_small(r, READ_ROW, IMAGE_ROW_SIZE);
    else
        await_small(r, READ_ITEM, IMAGE_ITEM_SIZE);
}

static RESULT read_head(struct machine_restore *r) {
    struct state *s = &r->state;
    uint32_t cluster_size = get_u32(r->small + 60), auth_size = get_u32(r->small + 64);
    if (memcmp(r->small, IMAGE_MAGIC, 8) != 0 || get_u32(r->small + 8) != IMAGE_VERSION)
        return ERR_CORRUPT;
    s->revision = get_u64(r->small + 12);
    s->compacted = get_u64(r->small + 20);
    if (s->revision == 0 || s->compacted > s->revision) return ERR_CORRUPT;
    if (cluster_size == 0 || cluster_size > CLUSTER_BYTES_MAX) return ERR_CORRUPT;
    if (auth_size == 0 || auth_size > AUTH_BYTES_MAX) return ERR_CORRUPT;
    r->keys = get_u64(r->small + 28);
    s->events = (struct lanes){{get_u64(r->small + 36), get_u64(r->small + 44)}};
    r->leases = get_u64(r->small + 52);
    s->alarms.n = get_u32(r->small + 68);
    if (s->alarms.n > ALARMS_MAX || r->leases > LEASES_MAX) return ERR_CORRUPT;
    r->rows = get_u64(r->small + 72);
    s->rows.version = get_u64(r->small + 80);
    TRY(buf_reserve(&r->cluster, cluster_size));
    TRY(buf_reserve(&r->auth, auth_size));
    r->cluster.size = cluster_size;
    r->auth.size = auth_size;
    await(r, READ_CLUSTER, r->cluster.at, cluster_size);
    return OK;
}

static RESULT read_cluster(struct machine_restore *r) {
    struct cluster *c;
    struct cluster_version *v;
    TRY(cluster_decode(buf_span(&r->cluster), &c));
    buf_wipe(&r->cluster);
    enum err e = cluster_version_new(c, &v);
    if (e != OK) {
        cluster_free(c);
        return e;
    }
    cluster_version_drop(r->state.cluster);
    r->state.cluster = v;
    await(r, READ_AUTH, r->auth.at, r->auth.size);
    return OK;
}

static RESULT read_auth(struct machine_restore *r) {
    struct auth *a;
    struct auth_version *v;
    TRY(auth_decode(buf_span(&r->auth), &a));
    buf_wipe(&r->auth);
    enum err e = auth_version_new(a, &v);
    if (e != OK) {
        auth_free(a);
        return e;
    }
    auth_version_drop(r->state.auth);
    r->state.auth = v;
    await_small(r, READ_ALARMS, r->state.alarms.n * (size_t)ALARM_SIZE);
    return OK;
}

static RESULT read_alarms(struct machine_restore *r) {
    unsigned n = r->state.alarms.n;
    r->state.alarms.n = 0;
    for (unsigned i = 0; i < n; i++) {
        struct raised a = {.alarm = r->small[i * ALARM_SIZE],
                           .raft_id = get_u64(r->small + i * ALARM_SIZE + 1)};
        if (a.alarm != ALARM_NOSPACE && a.alarm != ALARM_CORRUPT) return ERR_CORRUPT;
        TRY(alarms_raise(&r->state.alarms, a));
        if (r->state.alarms.n != i + 1 || r->state.alarms.at[i].raft_id != a.raft_id ||
            r->state.alarms.at[i].alarm != a.alarm)
            return ERR_CORRUPT; /* not ascending */
    }
    await_small(r, READ_TOKENS, IMAGE_TOKENS_SIZE);
    return OK;
}

static RESULT read_tokens(struct machine_restore *r) {
    uint64_t first = get_u64(r->small);
    r->tokens = get_u32(r->small + 8);
    if (r->tokens > TOKENS_MAX || first > UINT64_MAX - r->tokens) return ERR_CORRUPT;
    r->state.tokens.first = r->state.tokens.next = first;
    await_next(r);
    return OK;
}

static RESULT read_token(struct machine_restore *r) {
    struct result result, known;
    if (result_decode(span_of(r->small + TOKEN_SIZE, RESULT_SIZE), &result) != OK)
        return ERR_CORRUPT;
    if (result.repeated || tokens_find(&r->state.tokens, r->small, &known)) return ERR_CORRUPT;
    TRY(tokens_reserve(&r->state.tokens));
    tokens_add(&r->state.tokens, r->small, &result);
    r->tokens--;
    await_next(r);
    return OK;
}

static RESULT read_lease(struct machine_restore *r) {
    struct lease lease = {.id = get_u64(r->small), .ttl_ms = get_u64(r->small + 8)};
    if (lease.id == 0 || lease.id >> 63 != 0 || lease.ttl_ms == 0) return ERR_CORRUPT;
    if (lease.id <= r->last_lease) return ERR_CORRUPT;
    TRY(lease_grant(&r->state.leases, &lease));
    r->last_lease = lease.id;
    r->leases--;
    await_next(r);
    return OK;
}

/* --- rows --- */

static RESULT read_row(struct machine_restore *r) {
    struct kv kv = {.key = {.size = r->small[0] | (size_t)r->small[1] << 8},
                    .value = {.size = get_u32(r->small + 2)},
                    .create_revision = get_u64(r->small + 6),
                    .mod_revision = get_u64(r->small + 14),
                    .version = get_u64(r->small + 22)};
    if (kv.key.size < 2 || kv.key.size > ROW_KEY_MAX) return ERR_CORRUPT;
    if (kv.value.size > ROW_HEAD_MAX + ROW_NAME_MAX + ROW_BODY_MAX) return ERR_CORRUPT;
    if (kv.create_revision == 0 || kv.create_revision > kv.mod_revision) return ERR_CORRUPT;
    if (kv.version == 0 || (kv.version == 1) != (kv.create_revision == kv.mod_revision))
        return ERR_CORRUPT;
    r->item = item_new(&kv, kv.key.size, kv.value.size);
    if (r->item == NULL) return ERR_NOMEM;
    await(r, READ_ROW_BYTES, item_bytes(r->item), kv.key.size + kv.value.size);
    return OK;
}

static RESULT read_row_bytes(struct machine_restore *r) {
    struct item *i = r->item;
    if (r->last_row != NULL && span_compare(item_key(r->last_row), item_key(i)) >= 0)
        return ERR_CORRUPT;
    static const struct rows none;
    TRY(rows_restore(&r->state.rows, i));
    r->item = NULL;
    if (row_rules_all(&none, &r->state.rows) != OK) return ERR_CORRUPT;
    r->last_row = i;
    r->rows--;
    await_next(r);
    return OK;
}

/* --- versions --- */

static bool good_revisions(const struct kv *kv, bool tomb, const struct state *s) {
    if (kv->mod_revision == 0 || kv->mod_revision > s->revision) return false;
    if (tomb) {
        if (kv->mod_revision < s->compacted || kv->value.size != 0) return false;
        return kv->create_revision == 0 && kv->version == 0 && kv->lease == 0;
    }
    if (kv->create_revision == 0 || kv->create_revision > kv->mod_revision) return false;
    if (kv->version == 0 || kv->lease >> 63 != 0) return false;
    return kv->version > 1 || kv->create_revision == kv->mod_revision;
}

/* May this one be the version before `newer`? */
static bool good_older(const struct machine_restore *r, const struct item *newer,
                       const struct kv *kv, uint32_t sub, bool tomb) {
    uint64_t compacted = r->state.compacted;
    struct kv next;
    item_read(newer, &next);
    if (kv->key.size != next.key.size) return false;
    if (kv->mod_revision > next.mod_revision) return false;
    if (kv->mod_revision == next.mod_revision && sub >= item_sub(newer)) return false;
    if (next.mod_revision < compacted) return false;
    if (next.mod_revision == compacted && kv->mod_revision < compacted) return false;
    if (item_tomb(newer)) return !tomb;
    if (next.version == 1) return tomb;
    return !tomb && kv->version == next.version - 1 && kv->create_revision == next.create_revision;
}

/* Is nothing missing behind the last version of a key? */
static bool good_oldest(const struct machine_restore *r) {
    if (r->last == NULL || item_born(r->last) <= r->state.compacted) return true;
    struct kv kv;
    item_read(r->last, &kv);
    return kv.version == 1;
}

static RESULT read_item_bytes(struct machine_restore *r);

static RESULT make_item(struct machine_restore *r, const struct kv *kv, uint32_t sub, bool tomb,
                        bool foreign) {
    r->item = tomb ? item_tombstone(kv->mod_revision, kv->key)
                   : item_new(kv, kv->key.size, kv->value.size);
    if (r->item == NULL) return ERR_NOMEM;
    item_number(r->item, sub);
    if (foreign) item_estrange(r->item);
    uint8_t *into = item_bytes(r->item);
    size_t size = kv->key.size + kv->value.size;
    if (r->older) {
        memcpy(into, item_key(r->last).at, kv->key.size);
        into += kv->key.size;
        size -= kv->key.size;
    }
    await(r, READ_ITEM_BYTES, into, size);
    return size > 0 ? OK : read_item_bytes(r);
}

static RESULT end_items(struct machine_restore *r) {
    for (size_t i = 0; i < IMAGE_ITEM_SIZE; i++)
        if (r->small[i] != 0) return ERR_CORRUPT;
    if (!good_oldest(r) || tree_live(r->state.keys) != r->keys) return ERR_CORRUPT;
    await_small(r, READ_TAIL, IMAGE_TAIL_SIZE);
    return OK;
}

static RESULT read_item(struct machine_restore *r) {
    uint8_t kind = r->small[0] & (uint8_t) ~(IMAGE_ITEM_TOMB | IMAGE_ITEM_FOREIGN);
    bool foreign = (r->small[0] & IMAGE_ITEM_FOREIGN) != 0;
    bool tomb = (r->small[0] & IMAGE_ITEM_TOMB) != 0;
    struct kv kv = {.key = {.size = r->small[1] | (size_t)r->small[2] << 8},
                    .value = {.size = get_u32(r->small + 3)},
                    .create_revision = get_u64(r->small + 7),
                    .mod_revision = get_u64(r->small + 15),
                    .version = get_u64(r->small + 23),
                    .lease = get_u64(r->small + 31)};
    uint32_t sub = get_u32(r->small + 39);
    if (kind == IMAGE_ITEM_NONE) return end_items(r);
    if (kind != IMAGE_ITEM_KEY && kind != IMAGE_ITEM_OLDER) return ERR_CORRUPT;
    if (kv.key.size == 0 || kv.key.size > KEY_MAX || kv.value.size > VALUE_MAX) return ERR_CORRUPT;
    if (sub > ITEM_SUB_MAX || !good_revisions(&kv, tomb, &r->state)) return ERR_CORRUPT;
    r->older = kind == IMAGE_ITEM_OLDER;
    if (r->older ? r->last == NULL || !good_older(r, r->last, &kv, sub, tomb) : !good_oldest(r))
        return ERR_CORRUPT;
    if (foreign && (tomb || sub != 0 || kv.mod_revision > r->state.compacted)) return ERR_CORRUPT;
    return make_item(r, &kv, sub, tomb, foreign);
}

static RESULT add_event(struct machine_restore *r, struct item *i) {
    if (item_born(i) < r->state.compacted || item_foreign(i)) return OK;
    if (r->events == r->events_room) {
        size_t room = r->events_room == 0 ? 1024 : 2 * r->events_room;
        struct item **event = realloc(r->event, room * sizeof(struct item *));
        if (event == NULL) return ERR_NOMEM;
        r->event = event;
        r->events_room = room;
    }
    r->event[r->events++] = i;
    return OK;
}

static RESULT put_newest(struct machine_restore *r, struct item *i) {
    struct state *s = &r->state;
    struct tree_path path;
    struct kv kv;
    if (r->newest != NULL && span_compare(item_key(r->newest), item_key(i)) >= 0)
        return ERR_CORRUPT;
    item_read(i, &kv);
    if (kv.lease != 0) {
        enum err e = lease_attach(&s->leases, kv.lease, kv.key);
        if (e != OK) return e == ERR_LEASE_NOT_FOUND ? ERR_CORRUPT : e;
    }
    (void)tree_find(s->keys, item_key(i), &path);
    TRY(tree_put(s->keys, &path, i));
    r->item = NULL;
    r->newest = i;
    if (item_tomb(i)) return OK;
    lanes_add(&s->sum, item_lanes(i));
    s->bytes += kv.key.size + kv.value.size;
    return OK;
}

static RESULT read_item_bytes(struct machine_restore *r) {
    struct item *i = r->item;
    TRY(add_event(r, i));
    if (r->older) {
        r->last->older = i;
        r->item = NULL;
    } else {
        TRY(put_newest(r, i));
    }
    if (r->older || item_tomb(i)) lanes_add(&r->others, item_lanes(i));
    r->last = i;
    r->state.size += item_cost(i);
    await_small(r, READ_ITEM, IMAGE_ITEM_SIZE);
    return OK;
}

/* --- the history --- */

/* Revisions from the compaction on are dense, since each takes at least one event (that of the
 * compaction itself may have none): so an event's place is its revision's first plus its sub. */
struct places {
    uint64_t from;       /* the first revision */
    uint64_t n;          /* revisions */
    size_t *first;       /* of each: place of its first event; n + 1 of them */
    struct item **event; /* by place */
};

static void count_events(const struct machine_restore *r, struct places *p) {
    for (size_t i = 0; i < r->events; i++)
        p->first[item_born(r->event[i]) - p->from + 1]++;
    for (uint64_t i = 1; i <= p->n; i++)
        p->first[i] += p->first[i - 1];
}

static RESULT place_events(const struct machine_restore *r, struct places *p) {
    for (size_t i = 0; i < r->events; i++) {
        uint64_t revision = item_born(r->event[i]) - p->from;
        size_t at = p->first[revision] + item_sub(r->event[i]);
        if (at >= p->first[revision + 1] || p->event[at] != NULL) return ERR_CORRUPT;
        p->event[at] = r->event[i];
    }
    return OK;
}

static RESULT add_events(const struct machine_restore *r, const struct places *p) {
    for (size_t i = 0; i < r->events; i++) {
        TRY(history_reserve(r->state.history));
        (void)history_add(r->state.history, p->event[i]);
    }
    return OK;
}

static RESULT make_history(struct machine_restore *r) {
    struct places p = {.from = r->state.compacted};
    if (r->events == 0) return OK;
    p.n = r->state.revision - p.from + 1;
    if (p.n > r->events + 2) return ERR_CORRUPT;
    p.first = calloc(p.n + 1, sizeof *p.first);
    p.event = calloc(r->events, sizeof(struct item *));
    enum err e = p.first == NULL || p.event == NULL ? ERR_NOMEM : OK;
    if (e == OK) count_events(r, &p);
    if (e == OK) e = place_events(r, &p);
    if (e == OK) e = add_events(r, &p);
    free(p.first);
    free(p.event);
    free(r->event);
    r->event = NULL;
    return e;
}

static RESULT read_tail(struct machine_restore *r) {
    if (memcmp(r->small, IMAGE_END, 8) != 0) return ERR_CORRUPT;
    if (get_u64(r->small + 8) != r->others.at[0] || get_u64(r->small + 16) != r->others.at[1])
        return ERR_CORRUPT;
    memcpy(r->hash, r->small + 24, STATE_HASH_SIZE);
    TRY(make_history(r));
    await_small(r, READ_NOTHING, 1);
    return OK;
}

static RESULT read_part(struct machine_restore *r) {
    switch (r->part) {
    case READ_HEAD: return read_head(r);
    case READ_CLUSTER: return read_cluster(r);
    case READ_AUTH: return read_auth(r);
    case READ_ALARMS: return read_alarms(r);
    case READ_TOKENS: return read_tokens(r);
    case READ_TOKEN: return read_token(r);
    case READ_LEASE: return read_lease(r);
    case READ_ROW: return read_row(r);
    case READ_ROW_BYTES: return read_row_bytes(r);
    case READ_ITEM: return read_item(r);
    case READ_ITEM_BYTES: return read_item_bytes(r);
    case READ_TAIL: return read_tail(r);
    case READ_NOTHING: break;
    }
    return ERR_CORRUPT;
}

enum err restore_bytes(struct machine_restore *r, struct span bytes) {
    while (r->failed == OK && bytes.size > 0) {
        size_t size = r->need - r->have < bytes.size ? r->need - r->have : bytes.size;
        memcpy(r->into + r->have, bytes.at, size);
        r->have += size;
        bytes.at += size;
        bytes.size -= size;
        if (r->have == r->need) r->failed = read_part(r);
    }
    return r->failed;
}

const struct state *restore_state(const struct machine_restore *r) { return &r->state; }
struct lanes restore_others(const struct machine_restore *r) {
    return r->others;
}

/* --- the end --- */

static RESULT check(const struct machine_restore *r, const uint8_t expected[STATE_HASH_SIZE]) {
    uint8_t hash[STATE_HASH_SIZE];
    TRY(r->failed);
    if (r->part != READ_NOTHING) return ERR_CORRUPT;
    state_hash(&r->state, hash);
    if (memcmp(hash, r->hash, STATE_HASH_SIZE) != 0) return ERR_CORRUPT;
    return memcmp(hash, expected, STATE_HASH_SIZE) == 0 ? OK : ERR_CORRUPT;
}

static void retire(struct machine_restore *r, struct tree *t) {
    struct retired *place = r->retired;
    assert(place != NULL);
    r->retired = place->next;
    *place = (struct retired){.tree = t, .next = r->store->retired};
    r->store->retired = place;
}

static void take_over(struct machine_restore *r) {
    struct store *store = r->store;
    struct state *now = &store->state;
    retire(r, now->keys);
    retire(r, now->leases.all);
    retire(r, now->leases.attached);
    retire(r, now->rows.tree);
    history_free(now->history);
    cluster_version_drop(now->cluster);
    auth_version_drop(now->auth);
    tokens_end(&now->tokens);
    *now = r->state;
    now->swept = history_first(now->history);
    free(r);
    if (store->hub != NULL) watch_restored(store->hub);
    if (store->row_changed != NULL) store->row_changed(store->row_changed_ctx, NULL, NULL);
}

enum err restore_end(struct machine_restore *r, const uint8_t hash[STATE_HASH_SIZE]) {
    enum err e = check(r, hash);
    if (e != OK) {
        restore_abort(r);
        return e;
    }
    take_over(r);
    return OK;
}
