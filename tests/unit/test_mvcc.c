/* Versions of keys against a plain model, which is a list of all writes that there ever were: any
 * question at any revision, views, compaction that goes on under open views, restored states,
 * HashKV. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/state.h"
#include "tests/lib/fault.h"
#include "tests/lib/states.h"

#define KEYS   40
#define EVENTS 60000
#define VIEWS  6

/* --- the model --- */

struct event {
    unsigned key;
    uint64_t revision;
    uint32_t sub;
    bool tomb;
    uint64_t create, version, lease;
    unsigned value; /* its number as text */
};

struct model {
    struct event at[EVENTS];
    unsigned n;
    uint64_t revision, compacted;
    uint32_t sub; /* of the next write of the revision under way */
};

static struct model *model_new(void) {
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->revision = 1;
    return m;
}

/* The version of the key at the revision; NULL: none. `until`: events to look at. */
static const struct event *model_at(const struct model *m, unsigned until, unsigned key,
                                    uint64_t revision) {
    while (until-- > 0) {
        const struct event *e = &m->at[until];
        if (e->key == key && e->revision <= revision) return e->tomb ? NULL : e;
    }
    return NULL;
}

static const struct event *model_now(const struct model *m, unsigned key) {
    return model_at(m, m->n, key, UINT64_MAX);
}

static void model_write(struct model *m, struct event e) {
    assert_true(m->n < EVENTS);
    e.revision = m->revision + 1;
    e.sub = m->sub++;
    m->at[m->n++] = e;
}

static void model_put(struct model *m, unsigned key, unsigned value, uint64_t lease) {
    const struct event *old = model_now(m, key);
    struct event e = {.key = key, .value = value, .lease = lease, .version = 1};
    e.create = old != NULL ? old->create : m->revision + 1;
    if (old != NULL) e.version = old->version + 1;
    model_write(m, e);
}

static uint64_t model_delete(struct model *m, unsigned from, unsigned end) {
    uint64_t n = 0;
    for (unsigned k = from; k < end; k++)
        if (model_now(m, k) != NULL) {
            model_write(m, (struct event){.key = k, .tomb = true});
            n++;
        }
    return n;
}

static void model_done(struct model *m) {
    m->revision += m->sub > 0;
    m->sub = 0;
}

static struct span key_text(unsigned key, char room[16]) {
    (void)snprintf(room, 16, key % 3 == 0 ? "k%02u" : "k%02u/more", key);
    return span_str(room);
}

static struct span value_text(unsigned value, char room[16]) {
    (void)snprintf(room, 16, "%u", value);
    return span_str(room);
}

/* An interval of the model's keys from .. end - 1. */
static struct interval model_interval(unsigned from, unsigned end, char a[16], char b[16]) {
    struct interval in = {.key = key_text(from, a), .end = key_text(end, b)};
    if (end == from + 1) in.end = span_of(NULL, 0);
    if (end >= KEYS) in.end = span_of("", 1);
    if (from == 0 && end >= KEYS) in.key = span_of("", 1);
    return in;
}

/* --- writing both --- */

struct both {
    struct store *s;
    struct model *m;
    uint64_t seed;
    unsigned values;
};

static uint64_t below(struct both *b, uint64_t n) { return random_next(&b->seed) % n; }

static void check_result(struct both *b, struct result r) {
    model_done(b->m);
    assert_int_equal(r.error, OK);
    assert_int_equal(r.revision, b->m->revision);
}

static void random_put(struct both *b, struct put *p, char key[16], char value[16]) {
    unsigned k = (unsigned)below(b, KEYS), v = ++b->values;
    *p = (struct put){.key = key_text(k, key), .value = value_text(v, value)};
    if (below(b, 5) == 0) p->lease = 1 + below(b, 3);
    const struct event *old = model_now(b->m, k);
    uint64_t lease = p->lease;
    if (old != NULL && below(b, 8) == 0) {
        p->ignore_value = true;
        p->value = span_of(NULL, 0);
        v = old->value;
    }
    if (old != NULL && p->lease == 0 && below(b, 4) == 0) {
        p->ignore_lease = true;
        lease = old->lease;
    }
    model_put(b->m, k, v, lease);
}

static uint64_t random_delete(struct both *b, struct interval *in, char from[16], char to[16]) {
    unsigned first = (unsigned)below(b, KEYS), end = first + 1 + (unsigned)below(b, 4);
    if (below(b, 50) == 0) {
        first = 0;
        end = KEYS;
    }
    *in = model_interval(first, end, from, to);
    return model_delete(b->m, first, end > KEYS ? KEYS : end);
}

/* Several writes in one revision; a batch may write a key twice. */
static void write_batch(struct both *b) {
    struct buf items = buf_new(COMMAND_MAX);
    struct command c = {.op = OP_BATCH};
    uint64_t deleted = 0;
    for (unsigned n = (unsigned)below(b, 6); n > 0; n--) {
        char one[16], two[16];
        struct command item = {.op = below(b, 3) == 0 ? OP_DELETE : OP_PUT};
        if (item.op == OP_PUT) {
            unsigned k = (unsigned)below(b, KEYS), v = ++b->values;
            item.put = (struct put){.key = key_text(k, one), .value = value_text(v, two)};
            model_put(b->m, k, v, 0);
        } else {
            deleted += random_delete(b, &item.del.in, one, two);
        }
        assert_int_equal(command_batch_add(&items, &item), OK);
        c.batch.n++;
    }
    c.batch.items = buf_span(&items);
    struct result r = apply(b->s, &c);
    assert_int_equal(r.deleted, deleted);
    check_result(b, r);
    buf_free(&items);
}

static void write_something(struct both *b) {
    char one[16], two[16];
    struct command c = {.op = OP_PUT};
    uint64_t deleted = 0;
    switch (below(b, 8)) {
    case 0: write_batch(b); return;
    case 1:
    case 2:
        c.op = OP_DELETE;
        deleted = random_delete(b, &c.del.in, one, two);
        break;
    default: random_put(b, &c.put, one, two);
    }
    struct result r = apply(b->s, &c);
    assert_int_equal(r.deleted, deleted);
    check_result(b, r);
}

static void revoke(struct both *b) {
    struct command c = {.op = OP_LEASE_REVOKE, .lease = {.id = 1 + below(b, 3)}};
    uint64_t deleted = 0;
    for (unsigned k = 0; k < KEYS; k++) {
        const struct event *e = model_now(b->m, k);
        if (e != NULL && e->lease == c.lease.id) deleted += model_delete(b->m, k, k + 1);
    }
    struct result r = apply(b->s, &c);
    assert_int_equal(r.deleted, deleted);
    check_result(b, r);
    c = (struct command){.op = OP_LEASE_GRANT, .lease = {.id = c.lease.id, .ttl_ms = 1000}};
    assert_int_equal(apply(b->s, &c).error, OK);
}

static void compact(struct both *b) {
    struct command c = {.op = OP_COMPACT};
    struct model *m = b->m;
    uint64_t back = below(b, 3) == 0 ? 0 : below(b, 200);
    c.compact_revision = back < m->revision ? m->revision - back : 0;
    if (below(b, 10) == 0) c.compact_revision = m->revision + 1;
    enum err expected = OK;
    if (c.compact_revision <= m->compacted) expected = ERR_COMPACTED;
    if (c.compact_revision > m->revision) expected = ERR_FUTURE_REVISION;
    assert_int_equal(apply(b->s, &c).error, expected);
    if (expected == OK) m->compacted = c.compact_revision;
    assert_int_equal(store_compacted(b->s), m->compacted);
}

static struct both both_new(uint64_t seed) {
    struct both b = {.s = store_for_test(), .m = model_new(), .seed = seed};
    for (uint64_t id = 1; id <= 3; id++) {
        struct command c = {.op = OP_LEASE_GRANT, .lease = {.id = id, .ttl_ms = 1000}};
        assert_int_equal(apply(b.s, &c).error, OK);
    }
    return b;
}

static void both_free(struct both *b) {
    store_free(b->s);
    free(b->m);
}

/* --- questions --- */

struct question {
    struct range r;
    unsigned from, end; /* keys of the interval */
    char one[16], two[16];
};

static void random_question(struct both *b, struct question *q) {
    const struct model *m = b->m;
    *q = (struct question){.from = (unsigned)below(b, KEYS)};
    q->end = below(b, 2) ? q->from + 1 : q->from + (unsigned)below(b, KEYS);
    if (below(b, 4) == 0) q->from = 0;
    if (below(b, 4) == 0) q->end = KEYS;
    if (q->end <= q->from) q->end = q->from; /* nothing: an end that is not above */
    q->r.in = model_interval(q->from, q->end, q->one, q->two);
    if (q->end > KEYS) q->end = KEYS;
    if (below(b, 2)) q->r.revision = 1 + below(b, m->revision + 2);
    if (below(b, 2)) q->r.limit = 1 + below(b, 12);
    if (below(b, 2)) q->r.order = (enum sort_order)below(b, 3);
    if (below(b, 2)) q->r.target = (enum sort_target)below(b, 5);
    if (below(b, 6) == 0) q->r.min_mod_revision = 1 + below(b, m->revision);
    if (below(b, 6) == 0) q->r.max_mod_revision = 1 + below(b, m->revision);
    if (below(b, 6) == 0) q->r.min_create_revision = 1 + below(b, m->revision);
    if (below(b, 6) == 0) q->r.max_create_revision = 1 + below(b, m->revision);
    q->r.keys_only = below(b, 6) == 0;
    q->r.count_only = below(b, 6) == 0;
}

struct expected {
    const struct event *at[KEYS];
    unsigned n;
    struct range_end end;
    enum err e;
};

static bool filtered(const struct range *r, const struct event *e) {
    if (r->min_mod_revision != 0 && e->revision < r->min_mod_revision) return true;
    if (r->max_mod_revision != 0 && e->revision > r->max_mod_revision) return true;
    if (r->min_create_revision != 0 && e->create < r->min_create_revision) return true;
    return r->max_create_revision != 0 && e->create > r->max_create_revision;
}

static int event_order(const struct range *r, const struct event *a, const struct event *b) {
    char x[16], y[16];
    switch (r->target) {
    case SORT_KEY: return (a->key > b->key) - (a->key < b->key);
    case SORT_VERSION: return (a->version > b->version) - (a->version < b->version);
    case SORT_CREATE: return (a->create > b->create) - (a->create < b->create);
    case SORT_MOD: return (a->revision > b->revision) - (a->revision < b->revision);
    case SORT_VALUE: return span_compare(value_text(a->value, x), value_text(b->value, y));
    }
    return 0;
}

/* Insertion, so that equal ones stay in the order of their keys. */
static void sort_events(const struct range *r, struct expected *x) {
    for (unsigned i = 1; i < x->n; i++)
        for (unsigned k = i; k > 0; k--) {
            int order = event_order(r, x->at[k - 1], x->at[k]);
            if (r->order == SORT_DESCEND) order = -order;
            if (order <= 0) break;
            const struct event *e = x->at[k];
            x->at[k] = x->at[k - 1];
            x->at[k - 1] = e;
        }
}

static void model_answer(const struct model *m, const struct question *q, struct expected *x) {
    const struct range *r = &q->r;
    bool bounds = r->min_mod_revision || r->max_mod_revision || r->min_create_revision ||
                  r->max_create_revision;
    uint64_t fetch = r->order == SORT_NONE && !bounds && r->limit != 0 ? r->limit + 1 : UINT64_MAX;
    *x = (struct expected){.e = OK};
    if (r->revision > m->revision) x->e = ERR_FUTURE_REVISION;
    if (r->revision != 0 && r->revision < m->compacted) x->e = ERR_COMPACTED;
    if (x->e != OK) return;
    for (unsigned k = q->from; k < q->end; k++) {
        const struct event *e = model_at(m, m->n, k, r->revision != 0 ? r->revision : UINT64_MAX);
        if (e == NULL) continue;
        x->end.count++;
        if (!r->count_only && !filtered(r, e) && x->n < fetch) x->at[x->n++] = e;
    }
    if (r->order != SORT_NONE || r->target != SORT_KEY) sort_events(r, x);
    if (r->limit != 0 && x->n > r->limit) {
        x->n = (unsigned)r->limit;
        x->end.more = true;
    }
}

struct comparing {
    const struct expected *x;
    const struct range *r;
    unsigned n;
    unsigned stop; /* every so many kvs `each` says stop; 0: never */
};

static void check_kv(const struct event *e, const struct kv *kv, bool keys_only) {
    char one[16], two[16];
    assert_true(span_equal(kv->key, key_text(e->key, one)));
    if (keys_only)
        assert_int_equal(kv->value.size, 0);
    else
        assert_true(span_equal(kv->value, value_text(e->value, two)));
    assert_int_equal(kv->create_revision, e->create);
    assert_int_equal(kv->mod_revision, e->revision);
    assert_int_equal(kv->version, e->version);
    assert_int_equal(kv->lease, e->lease);
}

static bool compare(void *ctx, const struct kv *kv) {
    struct comparing *c = ctx;
    assert_true(c->n < c->x->n);
    check_kv(c->x->at[c->n++], kv, c->r->keys_only);
    return c->stop == 0 || c->n % c->stop != 0;
}

static void check_end(const struct expected *x, const struct comparing *c, struct range_end end) {
    assert_int_equal(c->n, x->n);
    assert_int_equal(end.count, x->end.count);
    assert_int_equal(end.more, x->end.more);
}

static void check_question(struct both *b) {
    struct question q;
    struct expected x;
    struct range_end end;
    random_question(b, &q);
    model_answer(b->m, &q, &x);
    struct comparing c = {.x = &x, .r = &q.r};
    assert_int_equal(store_range_read(b->s, &q.r, compare, &c, &end), x.e);
    if (x.e == OK) check_end(&x, &c, end);
}

/* --- views --- */

struct seen {
    struct store_view *view; /* NULL: none */
    struct range_walk *walk; /* the same */
    struct question q;       /* of the walk */
    struct expected x;
    struct comparing c;
    bool deep;
    unsigned n; /* events then */
    uint64_t revision, compacted;
};

struct walked {
    const struct model *m;
    const struct seen *seen;
    unsigned key;
};

static bool see_key(void *ctx, const struct kv *kv) {
    struct walked *w = ctx;
    const struct event *e = NULL;
    while (w->key < KEYS && e == NULL)
        e = model_at(w->m, w->seen->n, w->key++, UINT64_MAX);
    assert_non_null(e);
    check_kv(e, kv, false);
    return true;
}

static void crc_bytes(uint32_t *crc, const void *at, size_t size) {
    const uint8_t *bytes = at;
    for (size_t i = 0; i < size; i++) {
        *crc ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            *crc = *crc >> 1 ^ ((*crc & 1) ? 0x82f63b78U : 0);
    }
}

static void crc_field(uint32_t *crc, uint8_t tag, uint64_t v) {
    if (v == 0) return;
    crc_bytes(crc, &tag, 1);
    do {
        uint8_t byte = (uint8_t)(v | 0x80);
        if (v < 0x80) byte = (uint8_t)v;
        crc_bytes(crc, &byte, 1);
        v >>= 7;
    } while (v != 0);
}

static void crc_event(uint32_t *crc, const struct event *e) {
    char key[16], value[16];
    uint8_t head[18];
    for (unsigned i = 0; i < 8; i++) {
        head[i] = (uint8_t)(e->revision >> (56 - 8 * i));
        head[9 + i] = (uint8_t)((uint64_t)e->sub >> (56 - 8 * i));
    }
    head[8] = '_';
    head[17] = 't';
    crc_bytes(crc, head, e->tomb ? 18 : 17);
    struct span k = key_text(e->key, key), v = value_text(e->value, value);
    crc_field(crc, 1 << 3 | 2, k.size);
    crc_bytes(crc, k.at, k.size);
    if (e->tomb) return;
    crc_field(crc, 2 << 3, e->create);
    crc_field(crc, 3 << 3, e->revision);
    crc_field(crc, 4 << 3, e->version);
    crc_field(crc, 5 << 3 | 2, v.size);
    crc_bytes(crc, v.at, v.size);
    crc_field(crc, 6 << 3, e->lease);
}

/* The rule as etcd has it: keep(revision) of each key, and what the compaction left. */
static uint32_t model_hash(const struct model *m, const struct seen *s, uint64_t revision) {
    uint32_t crc = UINT32_MAX;
    bool any = false;
    crc_bytes(&crc, "key", 3);
    for (unsigned k = 0; k < KEYS; k++)
        any = any || model_at(m, s->n, k, revision) != NULL;
    for (unsigned i = 0; i < s->n && m->at[i].revision <= revision; i++) {
        const struct event *e = &m->at[i];
        bool counts = e->revision > s->compacted;
        if (!counts && any) counts = model_at(m, s->n, e->key, revision) == e;
        if (!counts && !any) counts = model_at(m, s->n, e->key, s->compacted) == e;
        if (counts) crc_event(&crc, e);
    }
    return ~crc;
}

static void check_hashes(struct both *b, const struct seen *s) {
    for (unsigned i = 0; i < 5; i++) {
        uint64_t revision = i == 0 ? 0 : below(b, s->revision + 2), compacted;
        uint32_t hash = 0;
        enum err expected = OK, e;
        if (revision != 0 && revision <= s->compacted) expected = ERR_COMPACTED;
        if (revision > s->revision) expected = ERR_FUTURE_REVISION;
        e = store_view_hash_kv(s->view, revision, &hash, &compacted);
        assert_int_equal(e, expected);
        if (e != OK) continue;
        assert_int_equal(compacted, s->compacted);
        assert_int_equal(hash, model_hash(b->m, s, revision != 0 ? revision : s->revision));
    }
}

static void end_view(struct both *b, struct seen *s) {
    struct walked w = {.m = b->m, .seen = s};
    assert_int_equal(store_view_revision(s->view), s->revision);
    store_view_range(s->view, span_of(NULL, 0), span_of(NULL, 0), see_key, &w);
    while (w.key < KEYS)
        assert_null(model_at(b->m, s->n, w.key++, UINT64_MAX));
    if (s->deep) check_hashes(b, s);
    store_view_free(s->view);
    s->view = NULL;
}

static void begin_view(struct both *b, struct seen *s) {
    *s = (struct seen){.deep = below(b, 4) == 0,
                       .n = b->m->n,
                       .revision = b->m->revision,
                       .compacted = b->m->compacted};
    enum err e =
        s->deep ? store_view_new_with_history(b->s, &s->view) : store_view_new(b->s, &s->view);
    assert_int_equal(e, OK);
}

/* The answer is that of the time when the walk began, however late its steps come. */
static void step_walk(struct both *b, struct seen *s) {
    bool done = false;
    struct range_end end;
    enum err e = range_walk_step(s->walk, 1 + below(b, 20), compare, &s->c, &done, &end);
    assert_int_equal(e, OK);
    if (!done) return;
    check_end(&s->x, &s->c, end);
    range_walk_free(s->walk);
    s->walk = NULL;
}

static void begin_walk(struct both *b, struct seen *s) {
    random_question(b, &s->q);
    /* The copy of the question moved its texts. */
    s->q.r.in = model_interval(s->q.from, s->q.end, s->q.one, s->q.two);
    model_answer(b->m, &s->q, &s->x);
    s->c = (struct comparing){.x = &s->x, .r = &s->q.r, .stop = (unsigned)below(b, 4)};
    enum err e = range_walk_new(b->s, &s->q.r, &s->walk);
    assert_int_equal(e, s->x.e);
}

static void visit(struct both *b, struct seen *s) {
    if (s->view != NULL) {
        end_view(b, s);
    } else if (s->walk != NULL) {
        while (s->walk != NULL)
            step_walk(b, s);
    } else if (below(b, 2)) {
        begin_view(b, s);
    } else {
        begin_walk(b, s);
    }
}

/* --- what is kept --- */

/* All that should be there once a compaction is through: nothing less, nothing more. */
static void check_kept(const struct both *b) {
    const struct state *s = &b->s->state;
    const struct model *m = b->m;
    uint64_t size = 0, n = 0, kept = 0, position = history_first(s->history);
    struct tree_cursor c;
    const struct item *i;
    tree_seek(tree_root(s->keys), span_of(NULL, 0), &c);
    while ((i = tree_next(&c)) != NULL)
        for (; i != NULL; i = i->older) {
            size += item_cost(i);
            /* A tombstone that was followed goes with the next compaction. */
            n += !item_tomb(i) || item_born(i) >= m->compacted;
        }
    for (unsigned k = 0; k < m->n; k++) {
        const struct event *e = &m->at[k];
        kept += e->revision >= m->compacted || model_at(m, m->n, e->key, m->compacted) == e;
        if (e->revision < m->compacted) continue;
        const struct item *event = history_at(s->history, position++);
        assert_int_equal(item_born(event), e->revision);
        assert_int_equal(item_sub(event), e->sub);
    }
    assert_int_equal(position, history_end(s->history));
    assert_int_equal(store_size(b->s), size);
    /* Of keys written at the very revision the one before goes as well. */
    assert_true(n <= kept);
    for (unsigned k = 0; k < KEYS; k++) {
        const struct event *at = model_at(m, m->n, k, m->compacted);
        if (at == NULL || at->revision >= m->compacted) continue;
        n--;
    }
    assert_int_equal(n, history_end(s->history) - history_first(s->history));
}

static void restored(struct both *b) {
    struct store *other = store_for_test();
    uint8_t hash[STATE_HASH_SIZE], again[STATE_HASH_SIZE];
    struct buf image = image_of(b->s);
    hash_of(b->s, hash);
    assert_int_equal(restore_from(other, buf_span(&image), 0, &b->seed, hash), OK);
    hash_of(other, again);
    assert_memory_equal(hash, again, STATE_HASH_SIZE);
    struct buf second = image_of(other);
    assert_true(span_equal(buf_span(&image), buf_span(&second)));
    buf_free(&second);
    buf_free(&image);
    store_free(b->s);
    b->s = other;
    check_kept(b);
}

static void step(struct both *b, struct seen *seen) {
    write_something(b);
    check_question(b);
    if (below(b, 30) == 0) revoke(b);
    if (below(b, 60) == 0) compact(b);
    if (below(b, 20) == 0) visit(b, &seen[below(b, VIEWS)]);
    for (unsigned i = 0; i < VIEWS; i++)
        if (seen[i].walk != NULL && below(b, 3) == 0) step_walk(b, &seen[i]);
    if (below(b, 10) == 0) (void)store_work(b->s);
}

static void any_question_at_any_revision_is_answered_as_by_the_model(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct both b = both_new(seed);
        struct seen seen[VIEWS] = {{.view = NULL}};
        for (unsigned i = 0; i < 4000; i++) {
            step(&b, seen);
            if (i % 500 != 499) continue;
            for (unsigned k = 0; k < VIEWS; k++)
                if (seen[k].view != NULL || seen[k].walk != NULL) visit(&b, &seen[k]);
            while (store_work(b.s))
                ;
            assert_false(store_compacting(b.s));
            check_kept(&b);
            restored(&b);
        }
        both_free(&b);
    }
}

/* --- out of memory --- */

static bool count_kv(void *ctx, const struct kv *kv) {
    unsigned *n = ctx;
    (void)kv;
    (*n)++;
    return true;
}

struct sweep {
    struct store *s;
    struct range r;
    enum err e;
    unsigned n;
};

static void ask_all_ways(void *ctx) {
    struct sweep *w = ctx;
    struct range_walk *walk;
    struct store_view *view;
    struct range_end end;
    uint32_t hash;
    uint64_t compacted;
    bool done = false;
    w->e = store_range_read(w->s, &w->r, count_kv, &w->n, &end);
    if (w->e == OK) w->e = range_walk_new(w->s, &w->r, &walk);
    if (w->e != OK) return;
    while (w->e == OK && !done)
        w->e = range_walk_step(walk, 3, count_kv, &w->n, &done, &end);
    range_walk_free(walk);
    if (w->e == OK) w->e = store_view_new_with_history(w->s, &view);
    if (w->e != OK) return;
    w->e = store_view_hash_kv(view, 0, &hash, &compacted);
    store_view_free(view);
}

static void said_so(void *ctx, bool fired) {
    const struct sweep *w = ctx;
    assert_int_equal(w->e, fired ? ERR_NOMEM : OK);
}

static void a_question_without_memory_says_so(void **state) {
    (void)state;
    struct both b = both_new(3);
    for (unsigned i = 0; i < 300; i++)
        write_something(&b);
    struct sweep w = {.s = b.s,
                      .r = {.in = {.key = span_of("", 1), .end = span_of("", 1)},
                            .order = SORT_DESCEND,
                            .target = SORT_MOD,
                            .revision = 100}};
    assert_true(fault_sweep_alloc(ask_all_ways, said_so, &w) >= 5);
    both_free(&b);
}

static void sweep_step(void *ctx) {
    struct sweep *w = ctx;
    (void)store_work(w->s);
}

static void still_counted(void *ctx, bool fired) {
    (void)ctx;
    (void)fired;
}

/* A step that has no memory is made again later; nothing is lost. */
static void a_compaction_without_memory_waits(void **state) {
    (void)state;
    struct both b = both_new(4);
    struct store_view *view;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 50; i++)
            write_something(&b);
        assert_int_equal(store_view_new(b.s, &view), OK);
        model_put(b.m, 0, ++b.values, 0);
        char value[16], key[16];
        struct put p = {.key = key_text(0, key), .value = value_text(b.values, value)};
        check_result(&b, apply(b.s, &(struct command){.op = OP_PUT, .put = p}));
        b.m->compacted = b.m->revision;
        struct command c = {.op = OP_COMPACT, .compact_revision = b.m->revision};
        struct buf bytes = buf_new(COMMAND_MAX);
        assert_int_equal(command_encode(&c, &bytes), OK);
        struct machine *m = store_machine(b.s);
        assert_int_equal(m->apply(m, 1, buf_span(&bytes), NULL, NULL), OK);
        buf_free(&bytes);
        struct sweep w = {.s = b.s};
        (void)fault_sweep_alloc(sweep_step, still_counted, &w);
        while (store_work(b.s))
            ;
        assert_false(store_compacting(b.s));
        check_kept(&b);
        store_view_free(view);
    }
    both_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_question_at_any_revision_is_answered_as_by_the_model),
        cmocka_unit_test(a_question_without_memory_says_so),
        cmocka_unit_test(a_compaction_without_memory_waits),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
