/* The hub against a model: the list of all events. Watchers of random intervals come and go, take
 * often or seldom, whole or in fragments, and fail in between; writes, compactions and restores go
 * on meanwhile. Each watcher must get just the events that the list has for it, in order, a
 * revision in one piece, or be told that what it needs next was compacted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/history.h"
#include "store/watch.h"
#include "tests/lib/fault.h"
#include "tests/lib/states.h"

#define KEYS       200
#define KEY_ROOM   16
#define EVENTS_MAX 400000
#define WATCHERS   120
#define NONE       UINT64_MAX

struct event {
    uint64_t revision;
    uint64_t value; /* unique */
    uint64_t prev;  /* its place in the log; NONE: the key wasn't there */
    unsigned key;
    bool deleted;
};

struct world {
    struct store *store;
    struct store *ahead; /* gets every command; `store` is restored from it when it was away */
    bool away;
    struct event *log;
    uint64_t n, revision, compacted;
    uint64_t newest[KEYS]; /* place of the key's newest put in the log; NONE: not there */
    uint64_t seed;
};

static size_t key_text(unsigned key, char out[KEY_ROOM]) {
    return (size_t)snprintf(out, KEY_ROOM, "%s%u", key % 3 == 0 ? "a/" : "b/", key);
}

/* --- the store, and one that is ahead of it --- */

static void world_start(struct world *w) {
    w->store = store_for_test();
    w->ahead = store_for_test();
}

static void world_end(struct world *w) {
    store_free(w->store);
    store_free(w->ahead);
}

static void both(struct world *w, const struct command *c) {
    struct result r = apply(w->ahead, c);
    assert_int_equal(r.error, OK);
    assert_int_equal(r.revision, w->revision);
    if (!w->away) assert_int_equal(apply(w->store, c).error, OK);
}

/* The events of the log from here on, all of one revision. */
static void world_commit(struct world *w, uint64_t from) {
    struct buf items = buf_new(COMMAND_MAX);
    for (uint64_t i = from; i < w->n; i++) {
        const struct event *e = &w->log[i];
        char text[KEY_ROOM];
        uint8_t value[8];
        struct span key = span_of(text, key_text(e->key, text));
        put_u64(value, e->value);
        struct command item = {.op = OP_PUT};
        item.put = (struct put){.key = key, .value = span_of(value, sizeof value)};
        if (e->deleted) item = (struct command){.op = OP_DELETE, .del = {.in = {.key = key}}};
        assert_int_equal(command_batch_add(&items, &item), OK);
    }
    struct command c = {.op = OP_BATCH};
    c.batch.n = (uint32_t)(w->n - from);
    c.batch.items = buf_span(&items);
    both(w, &c);
    buf_free(&items);
}

static void world_compact(struct world *w) {
    struct command c = {.op = OP_COMPACT, .compact_revision = w->compacted};
    both(w, &c);
}

static void world_work(struct world *w) {
    (void)store_work(w->store);
    (void)store_work(w->ahead);
}

static void world_away(struct world *w) { w->away = true; }

static void world_restore(struct world *w) {
    uint8_t hash[STATE_HASH_SIZE];
    struct buf image = image_of(w->ahead);
    hash_of(w->ahead, hash);
    assert_int_equal(restore_from(w->store, buf_span(&image), 0, &w->seed, hash), OK);
    assert_int_equal(store_revision(w->store), w->revision);
    buf_free(&image);
    w->away = false;
}

static uint64_t pick(struct world *w, uint64_t n) { return random_next(&w->seed) % n; }

static struct world *world_new(uint64_t seed) {
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->log = calloc(EVENTS_MAX, sizeof *w->log);
    assert_non_null(w->log);
    w->revision = 1;
    w->seed = seed;
    memset(w->newest, 0xff, sizeof w->newest);
    world_start(w);
    return w;
}

static void world_free(struct world *w) {
    world_end(w);
    free(w->log);
    free(w);
}

static void add_event(struct world *w, unsigned key, bool deleted) {
    assert_true(w->n < EVENTS_MAX);
    w->log[w->n] = (struct event){.revision = w->revision,
                                  .value = w->n,
                                  .prev = w->newest[key],
                                  .key = key,
                                  .deleted = deleted};
    w->newest[key] = deleted ? NONE : w->n;
    w->n++;
}

/* One revision with up to `most` events of different keys. */
static void commit(struct world *w, unsigned most) {
    uint64_t from = w->n;
    unsigned n = 1 + (unsigned)pick(w, most), first = (unsigned)pick(w, KEYS);
    w->revision++;
    for (unsigned i = 0; i < n && i < KEYS; i++) {
        unsigned key = (first + i * 7) % KEYS;
        add_event(w, key, w->newest[key] != NONE && pick(w, 3) == 0);
    }
    world_commit(w, from);
}

static void compact(struct world *w, uint64_t back) {
    uint64_t to = w->revision > back ? w->revision - back : 0;
    if (to <= w->compacted) return;
    w->compacted = to;
    world_compact(w);
}

/* --- a watcher and what it must get --- */

struct taker {
    struct world *w;
    struct watcher *watcher;
    struct watch_options o;
    char key[KEY_ROOM], end[KEY_ROOM];
    bool covers[KEYS];
    uint64_t start;    /* first revision that it gets */
    uint64_t next;     /* place in the log where its next event is looked for */
    uint64_t revision; /* all up to here was given */
    uint64_t fail_in;  /* events until it fails; 0: never */
    unsigned woken;
    bool owes; /* must take before it is woken again */
    bool lost;
};

static void woken(void *ctx) {
    struct taker *t = ctx;
    t->woken++;
    t->owes = true;
}

static bool covers(const struct interval *in, unsigned which) {
    char text[KEY_ROOM];
    struct span key = span_of(text, key_text(which, text));
    if (in->end.size == 0) return span_equal(key, in->key);
    if (span_compare(key, in->key) < 0) return false;
    return (in->end.size == 1 && in->end.at[0] == 0) || span_compare(key, in->end) < 0;
}

static bool concerns(const struct taker *t, const struct event *e) {
    if (e->revision < t->start || (e->deleted ? t->o.no_delete : t->o.no_put)) return false;
    return t->covers[e->key];
}

/* Place of the next event that concerns it; n: there is none. */
static uint64_t next_of(const struct taker *t) {
    uint64_t i = t->next;
    while (i < t->w->n && !concerns(t, &t->w->log[i]))
        i++;
    return i;
}

static void check_prev(const struct taker *t, const struct watch_event *e, const struct event *is) {
    bool expected = t->o.prev_kv && is->prev != NONE && is->revision > t->w->compacted;
    assert_int_equal(e->has_prev, expected);
    if (!expected) return;
    assert_int_equal(get_u64(e->prev.value.at), is->prev);
    assert_int_equal(e->prev.mod_revision, t->w->log[is->prev].revision);
    assert_true(span_equal(e->prev.key, e->kv.key));
}

static enum err check_event(void *ctx, const struct watch_event *e) {
    struct taker *t = ctx;
    bool fails = t->fail_in == 1;
    if (t->fail_in != 0) t->fail_in--;
    if (fails) return ERR_IO;
    uint64_t place = next_of(t);
    assert_true(place < t->w->n);
    const struct event *is = &t->w->log[place];
    char text[KEY_ROOM];
    assert_true(span_equal(e->kv.key, span_of(text, key_text(is->key, text))));
    assert_int_equal(e->kv.mod_revision, is->revision);
    assert_int_equal(e->deleted, is->deleted);
    if (is->deleted) {
        assert_int_equal(e->kv.value.size + e->kv.create_revision + e->kv.version, 0);
    } else {
        assert_int_equal(get_u64(e->kv.value.at), is->value);
    }
    check_prev(t, e, is);
    t->next = place + 1;
    return OK;
}

/* What it needs next is really gone. */
static void check_lost(struct taker *t) {
    uint64_t needed = t->start > t->revision + 1 ? t->start : t->revision + 1;
    assert_true(needed < t->w->compacted);
    t->lost = true;
}

static void check_taken(struct taker *t, const struct watch_taken *taken) {
    uint64_t next = next_of(t);
    const struct event *then = next < t->w->n ? &t->w->log[next] : NULL;
    bool within =
        taken->n != 0 && then != NULL && t->w->log[t->next - 1].revision == then->revision;
    assert_int_equal(taken->fragment, within);
    if (then != NULL) assert_true(taken->revision < then->revision);
    assert_true(taken->revision >= t->revision);
    assert_int_equal(taken->revision, watcher_revision(t->watcher));
    if (watcher_synced(t->watcher)) assert_null(then);
    t->revision = taken->revision;
}

static void take_once(struct taker *t, size_t bytes_max, bool fragment) {
    struct watch_taken taken;
    enum err e = watcher_take(t->watcher, bytes_max, fragment, check_event, t, &taken);
    t->owes = e == ERR_IO || (e == OK && taken.more);
    if (e == ERR_COMPACTED) {
        check_lost(t);
        return;
    }
    if (e == ERR_IO) return;
    assert_int_equal(e, OK);
    assert_false(t->lost);
    check_taken(t, &taken);
}

static void random_take(struct taker *t) {
    struct world *w = t->w;
    bool fragment = pick(w, 2) == 0;
    t->fail_in = pick(w, 5) == 0 ? 1 + pick(w, 20) : 0;
    take_once(t, pick(w, 3) == 0 ? 1 : (size_t)pick(w, 4000), fragment);
    t->fail_in = 0;
}

static void choose_interval(struct world *w, struct taker *t) {
    size_t size = key_text((unsigned)pick(w, KEYS), t->key);
    struct interval *in = &t->o.in;
    in->key = span_of(t->key, size);
    switch (pick(w, 6)) {
    case 0: break;
    case 1: in->end = span_of("", 1); break;
    case 2: in->end = span_of(t->end, key_text((unsigned)pick(w, KEYS), t->end)); break;
    case 3: *in = (struct interval){.key = span_str("a/"), .end = span_str("a0")}; break;
    case 4: *in = (struct interval){.key = span_of("", 1), .end = span_of("", 1)}; break;
    default: break;
    }
}

static void begin(struct world *w, struct watch_hub *h, struct taker *t) {
    *t = (struct taker){.w = w, .owes = true};
    choose_interval(w, t);
    for (unsigned i = 0; i < KEYS; i++)
        t->covers[i] = covers(&t->o.in, i);
    t->o.wake = woken;
    t->o.ctx = t;
    t->o.prev_kv = pick(w, 2) == 0;
    t->o.no_put = pick(w, 8) == 0;
    t->o.no_delete = pick(w, 8) == 0;
    uint64_t now = store_revision(w->store);
    if (pick(w, 2) == 0) t->o.start = 1 + pick(w, now + 5);
    t->start = t->o.start == 0 ? now + 1 : t->o.start;
    assert_int_equal(watcher_new(h, &t->o, &t->watcher), OK);
}

static void end(struct taker *t) {
    watcher_free(t->watcher);
    t->watcher = NULL;
}

/* All take until there is nothing more; then all that are not lost have all. */
static void settle(struct watch_hub *h, struct taker *all, unsigned n) {
    for (bool more = true; more;) {
        more = watch_hub_step(h);
        for (unsigned i = 0; i < n; i++) {
            struct taker *t = &all[i];
            if (t->watcher == NULL || t->lost || !t->owes) continue;
            take_once(t, 1000, false);
            more = true;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        struct taker *t = &all[i];
        if (t->watcher == NULL || t->lost) continue;
        assert_int_equal(next_of(t), t->w->n);
        assert_true(watcher_synced(t->watcher));
        uint64_t now = store_revision(t->w->store);
        assert_int_equal(watcher_revision(t->watcher), t->start > now ? t->start - 1 : now);
    }
}

struct plan {
    unsigned steps;
    unsigned events; /* most in a revision */
    unsigned slow;   /* of 100 takers take seldom */
    unsigned before; /* revisions that are there at first */
    uint64_t keep;   /* most that a compaction leaves */
    uint64_t away;   /* of 1000 steps end in a restore */
};

static void some_taker(struct world *w, struct watch_hub *h, struct taker *all,
                       const struct plan *plan) {
    unsigned i = (unsigned)pick(w, WATCHERS);
    struct taker *t = &all[i];
    if (t->watcher == NULL) {
        begin(w, h, t);
    } else if (t->lost || pick(w, 300) == 0) {
        end(t);
    } else if (i * 100 / WATCHERS >= plan->slow || pick(w, 30) == 0) {
        random_take(t);
    }
}

static void some_step(struct world *w, struct watch_hub *h, const struct plan *plan) {
    uint64_t dice = pick(w, 1000);
    if (dice < 300) commit(w, pick(w, 50) == 0 ? plan->events : 3);
    if (dice >= 300 && dice < 303) compact(w, pick(w, plan->keep));
    if (dice >= 400 && dice < 600) (void)watch_hub_step(h);
    if (dice >= 600 && dice < 700) world_work(w);
    if (dice < 1000 - plan->away) return;
    world_away(w);
    for (uint64_t i = pick(w, 5) == 0 ? pick(w, 200) : pick(w, 3); i > 0; i--)
        commit(w, plan->events);
    if (pick(w, 3) == 0) compact(w, pick(w, plan->keep));
    world_restore(w);
}

static void run(uint64_t seed, const struct plan *plan) {
    struct world *w = world_new(seed);
    struct taker *all = calloc(WATCHERS, sizeof *all);
    struct watch_hub *h;
    assert_non_null(all);
    for (unsigned i = 0; i < plan->before; i++)
        commit(w, 3);
    assert_int_equal(watch_hub_new(w->store, &h), OK);
    for (unsigned i = 0; i < plan->steps; i++) {
        some_step(w, h, plan);
        for (unsigned k = 0; k < 4; k++)
            some_taker(w, h, all, plan);
        if (i % 2000 == 1999) settle(h, all, WATCHERS);
    }
    settle(h, all, WATCHERS);
    for (unsigned i = 0; i < WATCHERS; i++)
        end(&all[i]);
    watch_hub_free(h);
    free(all);
    world_free(w);
}

static void each_watcher_gets_its_events_once_and_in_order(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 6; seed++)
        run(seed, &(struct plan){.steps = 20000, .events = 10, .slow = 20, .keep = 300});
}

static void revisions_larger_than_what_is_noted_come_in_one_piece(void **state) {
    (void)state;
    for (uint64_t seed = 10; seed < 14; seed++)
        run(seed, &(struct plan){.steps = 10000, .events = KEYS, .slow = 60, .keep = 300});
}

static void a_restored_state_loses_nothing(void **state) {
    (void)state;
    for (uint64_t seed = 20; seed < 26; seed++)
        run(seed, &(struct plan){
                      .steps = 8000, .events = 20, .slow = 40, .keep = 300, .away = seed % 3 * 20});
}

static void a_pass_over_a_long_history_goes_on_while_it_is_compacted(void **state) {
    (void)state;
    for (uint64_t seed = 30; seed < 33; seed++)
        run(seed, &(struct plan){.steps = 6000,
                                 .events = 10,
                                 .slow = 30,
                                 .before = 20000,
                                 .keep = 20000,
                                 .away = seed % 2});
}

/* --- many watchers --- */

#define MANY 3000

static void just_those_whose_interval_holds_the_key_wake(void **state) {
    (void)state;
    struct world *w = world_new(31);
    struct taker *all = calloc(MANY, sizeof *all);
    struct watch_hub *h;
    assert_non_null(all);
    assert_int_equal(watch_hub_new(w->store, &h), OK);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < MANY; i++) {
            if (all[i].watcher == NULL && pick(w, 2) == 0) begin(w, h, &all[i]);
            if (all[i].watcher != NULL && pick(w, 4) == 0) end(&all[i]);
        }
        settle(h, all, MANY);
        for (unsigned i = 0; i < MANY; i++)
            all[i].woken = 0;
        commit(w, 4);
        for (unsigned i = 0; i < MANY; i++) {
            if (all[i].watcher == NULL) continue;
            assert_int_equal(all[i].woken, next_of(&all[i]) < w->n ? 1 : 0);
        }
    }
    for (unsigned i = 0; i < MANY; i++)
        end(&all[i]);
    watch_hub_free(h);
    free(all);
    world_free(w);
}

static void not_woken(void *ctx) { (void)ctx; }

static void an_idle_watcher_costs_less_than_200_bytes(void **state) {
    (void)state;
    enum { N = 20000 };
    struct world *w = world_new(1);
    struct watch_hub *h;
    struct watcher **all = calloc(N, sizeof(struct watcher *));
    char key[48];
    assert_non_null(all);
    assert_int_equal(watch_hub_new(w->store, &h), OK);
    size_t before = mallinfo2().uordblks;
    for (unsigned i = 0; i < N; i++) {
        size_t size = (size_t)snprintf(key, sizeof key, "/registry/pods/default/%08u/", i);
        struct interval in = {.key = span_of(key, size)};
        if (i % 2 == 0) in.end = span_of(key, size - 1);
        struct watch_options o = {.in = in, .wake = not_woken};
        assert_int_equal(watcher_new(h, &o, &all[i]), OK);
    }
    size_t each = (mallinfo2().uordblks - before) / N;
    print_message("%zu bytes a watcher\n", each);
    assert_true(each < 200);
    for (unsigned i = 0; i < N; i++)
        watcher_free(all[i]);
    watch_hub_free(h);
    free(all);
    world_free(w);
}

/* --- memory that fails --- */

struct sweep {
    struct world *w;
    struct watch_hub *h;
    struct taker all[8];
};

static void start_hub_and_watchers(void *ctx) {
    struct sweep *s = ctx;
    if (watch_hub_new(s->w->store, &s->h) != OK) return;
    for (unsigned i = 0; i < ARRAY_SIZE(s->all); i++) {
        struct taker *t = &s->all[i];
        *t = (struct taker){.w = s->w, .start = 1, .owes = true};
        t->o = (struct watch_options){
            .in = {.key = span_str("a"), .end = span_str("c")}, .start = 1, .prev_kv = true};
        t->o.wake = woken;
        t->o.ctx = t;
        memset(t->covers, true, sizeof t->covers);
        if (watcher_new(s->h, &t->o, &t->watcher) != OK) t->watcher = NULL;
    }
    while (watch_hub_step(s->h))
        for (unsigned i = 0; i < ARRAY_SIZE(s->all); i++)
            if (s->all[i].watcher != NULL && s->all[i].owes) take_once(&s->all[i], 100, true);
}

static void those_that_are_there_get_all(void *ctx, bool fired) {
    struct sweep *s = ctx;
    (void)fired;
    if (s->h == NULL) return;
    settle(s->h, s->all, ARRAY_SIZE(s->all));
    for (unsigned i = 0; i < ARRAY_SIZE(s->all); i++)
        end(&s->all[i]);
    watch_hub_free(s->h);
    s->h = NULL;
}

static void without_memory_a_watcher_is_refused_or_slower_but_misses_nothing(void **state) {
    (void)state;
    struct sweep s = {.w = world_new(5)};
    for (unsigned i = 0; i < 300; i++)
        commit(s.w, 3);
    assert_in_range(fault_sweep_alloc(start_hub_and_watchers, those_that_are_there_get_all, &s), 12,
                    1000);
    world_free(s.w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_watcher_gets_its_events_once_and_in_order),
        cmocka_unit_test(revisions_larger_than_what_is_noted_come_in_one_piece),
        cmocka_unit_test(a_restored_state_loses_nothing),
        cmocka_unit_test(a_pass_over_a_long_history_goes_on_while_it_is_compacted),
        cmocka_unit_test(just_those_whose_interval_holds_the_key_wake),
        cmocka_unit_test(an_idle_watcher_costs_less_than_200_bytes),
        cmocka_unit_test(without_memory_a_watcher_is_refused_or_slower_but_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
