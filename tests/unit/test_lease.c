/* The replicated leases against a plain table: random grants, removals, attaching and detaching
 * with views open; that the hash is one of the content and not of the way there; and that an
 * allocation that fails leaves nothing half done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "store/lease.h"
#include "tests/lib/fault.h"
#include "tests/lib/states.h"

#define IDS  24
#define KEYS 40

struct model {
    uint64_t ttl_ms[IDS]; /* 0: no such lease */
    bool hangs[IDS][KEYS];
};

/* Ids whose order as text or little-endian bytes is another one. */
static uint64_t id_of(unsigned i) { return 1 + (uint64_t)i * i * i * 0x10f0f0f0f0f0ULL; }

/* Keys of all sizes, with zero and 255 in them, and one as long as may be. */
static struct span key_of(unsigned i, uint8_t room[KEY_MAX]) {
    size_t size = i == 0 ? 0 : i == KEYS - 1 ? KEY_MAX : 1 + i % 9;
    memset(room, i % 3 == 0 ? 0 : 255, KEY_MAX);
    if (size != 0) room[size - 1] = (uint8_t)i;
    return span_of(room, size);
}

static struct leases start(void) {
    struct leases l;
    assert_int_equal(leases_start(&l), OK);
    return l;
}

struct gathered {
    unsigned n;
    uint64_t last_id;
    struct span last_key;
    const struct model *model;
    unsigned lease; /* whose keys */
    unsigned stop;  /* after so many */
};

static unsigned lease_index(uint64_t id) {
    for (unsigned i = 0; i < IDS; i++)
        if (id_of(i) == id) return i;
    fail();
    return 0;
}

static bool gather_lease(void *ctx, const struct lease *lease) {
    struct gathered *g = ctx;
    assert_true(lease->id > g->last_id);
    assert_int_equal(lease->ttl_ms, g->model->ttl_ms[lease_index(lease->id)]);
    g->last_id = lease->id;
    return ++g->n < g->stop;
}

static bool gather_key(void *ctx, struct span key) {
    struct gathered *g = ctx;
    if (g->n > 0) assert_true(span_compare(g->last_key, key) < 0);
    g->last_key = key;
    return ++g->n < g->stop;
}

static void check_keys(const struct leases *l, const struct model *m, unsigned i) {
    unsigned hang = 0;
    for (unsigned k = 0; k < KEYS; k++)
        hang += m->hangs[i][k];
    struct gathered g = {.stop = UINT32_MAX};
    lease_keys(l, id_of(i), gather_key, &g);
    assert_int_equal(g.n, hang);
    struct span first;
    assert_int_equal(lease_first_key(l, id_of(i), &first), hang > 0);
    g = (struct gathered){.stop = 1};
    lease_keys(l, id_of(i), gather_key, &g);
    assert_int_equal(g.n, hang > 0);
    if (hang > 0) assert_true(span_equal(first, g.last_key));
}

static void check(const struct leases *l, const struct model *m) {
    unsigned there = 0;
    for (unsigned i = 0; i < IDS; i++) {
        struct lease found = {0};
        assert_int_equal(lease_find(l, id_of(i), &found), m->ttl_ms[i] != 0);
        assert_int_equal(found.ttl_ms, m->ttl_ms[i]);
        there += m->ttl_ms[i] != 0;
        check_keys(l, m, i);
    }
    assert_int_equal(leases_count(l), there);
    struct gathered g = {.model = m, .stop = UINT32_MAX};
    leases_each(l, gather_lease, &g);
    assert_int_equal(g.n, there);
}

static void check_view(const struct tree_view *v, const struct model *m) {
    struct tree_cursor c;
    struct lease lease;
    unsigned n = 0;
    uint64_t last = 0;
    tree_seek(tree_view_root(v), span_of(NULL, 0), &c);
    for (; lease_next(&c, &lease); n++) {
        assert_true(lease.id > last);
        assert_int_equal(lease.ttl_ms, m->ttl_ms[lease_index(lease.id)]);
        last = lease.id;
    }
    unsigned there = 0;
    for (unsigned i = 0; i < IDS; i++)
        there += m->ttl_ms[i] != 0;
    assert_int_equal(n, there);
}

static enum err detach_all(struct leases *l, struct model *m, unsigned i) {
    struct span key;
    while (lease_first_key(l, id_of(i), &key))
        TRY(lease_detach(l, id_of(i), key));
    memset(m->hangs[i], 0, sizeof m->hangs[i]);
    return OK;
}

/* One random change of both; an error of memory has changed neither, but perhaps detached. */
static enum err change(struct leases *l, struct model *m, uint64_t *seed) {
    unsigned i = (unsigned)(random_next(seed) % IDS), k = (unsigned)(random_next(seed) % KEYS);
    uint8_t room[KEY_MAX];
    struct span key = key_of(k, room);
    uint64_t ttl_ms = 1 + random_next(seed) % 1000000;
    enum err e;
    switch (random_next(seed) % 8) {
    case 0:
    case 1:
        e = lease_grant(l, &(struct lease){id_of(i), ttl_ms});
        if (e == ERR_NOMEM) return e;
        assert_int_equal(e, m->ttl_ms[i] == 0 ? OK : ERR_LEASE_EXISTS);
        if (e == OK) m->ttl_ms[i] = ttl_ms;
        return OK;
    case 2:
        TRY(detach_all(l, m, i));
        e = lease_remove(l, id_of(i));
        if (e == ERR_NOMEM) return e;
        assert_int_equal(e, m->ttl_ms[i] != 0 ? OK : ERR_LEASE_NOT_FOUND);
        m->ttl_ms[i] = 0;
        return OK;
    case 3:
        TRY(lease_detach(l, id_of(i), key));
        m->hangs[i][k] = false;
        return OK;
    default:
        e = lease_attach(l, id_of(i), key);
        if (e == ERR_NOMEM) return e;
        assert_int_equal(e, m->ttl_ms[i] != 0 ? OK : ERR_LEASE_NOT_FOUND);
        if (e == OK) m->hangs[i][k] = true;
        return OK;
    }
}

static void leases_and_their_keys_are_what_the_changes_made_of_them(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t random = seed;
        struct leases l = start();
        struct model m = {0}, then = {0};
        struct tree_view *view = NULL;
        for (unsigned n = 0; n < 2000; n++) {
            assert_int_equal(change(&l, &m, &random), OK);
            if (n % 37 == 0) check(&l, &m);
            if (n % 101 != 0) continue;
            if (view != NULL) check_view(view, &then);
            tree_view_free(view);
            assert_int_equal(leases_view(&l, &view), OK);
            then = m;
        }
        check(&l, &m);
        check_view(view, &then);
        tree_view_free(view);
        leases_end(&l);
    }
}

static void the_hash_is_of_the_leases_not_of_the_way_there(void **state) {
    (void)state;
    uint64_t random = 7;
    struct leases l = start(), again = start(), empty = start();
    struct model m = {0};
    for (unsigned n = 0; n < 3000; n++)
        assert_int_equal(change(&l, &m, &random), OK);
    for (unsigned i = IDS; i-- > 0;)
        if (m.ttl_ms[i] != 0)
            assert_int_equal(lease_grant(&again, &(struct lease){id_of(i), m.ttl_ms[i]}), OK);
    assert_memory_equal(&l.sum, &again.sum, sizeof l.sum);
    assert_memory_not_equal(&l.sum, &empty.sum, sizeof l.sum);
    uint64_t id = id_of(3);
    enum err e = lease_remove(&again, id);
    assert_true(e == OK || e == ERR_LEASE_NOT_FOUND);
    assert_int_equal(lease_grant(&again, &(struct lease){id, 12345}), OK);
    assert_memory_not_equal(&l.sum, &again.sum, sizeof l.sum);
    for (unsigned i = 0; i < IDS; i++) {
        assert_int_equal(detach_all(&l, &m, i), OK);
        if (m.ttl_ms[i] != 0) assert_int_equal(lease_remove(&l, id_of(i)), OK);
    }
    assert_memory_equal(&l.sum, &empty.sum, sizeof l.sum);
    leases_end(&l);
    leases_end(&again);
    leases_end(&empty);
}

static void a_walk_over_leases_stops_when_told(void **state) {
    (void)state;
    struct leases l = start();
    struct model m = {0};
    for (unsigned i = 0; i < IDS; i++) {
        m.ttl_ms[i] = 1000;
        assert_int_equal(lease_grant(&l, &(struct lease){id_of(i), 1000}), OK);
    }
    struct gathered g = {.model = &m, .stop = 5};
    leases_each(&l, gather_lease, &g);
    assert_int_equal(g.n, 5);
    leases_end(&l);
}

struct sweep {
    struct leases l;
    struct model m;
    struct tree_view *view;
    enum err e;
    bool started;
};

static void run_changes(void *ctx) {
    struct sweep *s = ctx;
    uint64_t random = 11;
    s->m = (struct model){0};
    s->view = NULL;
    s->e = leases_start(&s->l);
    s->started = s->e == OK;
    for (unsigned n = 0; n < 600 && s->e == OK; n++) {
        s->e = change(&s->l, &s->m, &random);
        if (s->e != OK || n % 60 != 0) continue;
        tree_view_free(s->view);
        s->view = NULL;
        s->e = leases_view(&s->l, &s->view);
    }
}

static void check_changes(void *ctx, bool fired) {
    struct sweep *s = ctx;
    assert_int_equal(s->e, fired ? ERR_NOMEM : OK);
    if (s->started) {
        /* What was being detached when memory ran out hangs or does not: ask. */
        for (unsigned i = 0; i < IDS; i++) {
            if (s->e == OK) break;
            assert_int_equal(detach_all(&s->l, &s->m, i), OK);
        }
        check(&s->l, &s->m);
        struct leases again = start();
        for (unsigned i = 0; i < IDS; i++)
            if (s->m.ttl_ms[i] != 0)
                assert_int_equal(lease_grant(&again, &(struct lease){id_of(i), s->m.ttl_ms[i]}),
                                 OK);
        assert_memory_equal(&again.sum, &s->l.sum, sizeof again.sum);
        leases_end(&again);
        tree_view_free(s->view);
    }
    leases_end(&s->l);
}

static void without_memory_nothing_is_half_done(void **state) {
    (void)state;
    struct sweep s;
    assert_true(fault_sweep_alloc(run_changes, check_changes, &s) > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_and_their_keys_are_what_the_changes_made_of_them),
        cmocka_unit_test(the_hash_is_of_the_leases_not_of_the_way_there),
        cmocka_unit_test(a_walk_over_leases_stops_when_told),
        cmocka_unit_test(without_memory_nothing_is_half_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
