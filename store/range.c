/* Questions about the keys (range.h). A question runs over a root of the tree, in steps, through
 * these phases:
 *
 *   LOOK --> [HEAP --> GIVE] --> DONE
 *
 * In the order of the keys, what fits is given while looking. Any other order collects the items
 * first and makes a heap of them, from which they are given one by one: so no step is long, and
 * a small limit costs no whole sort. Equal ones come in the order of their keys.
 *
 * How many keys there are is not counted but known by the tree, as long as the newest versions
 * are asked for; then looking ends with the limit. At an older revision each key's versions are
 * followed back to the one that was there then.
 *
 * Source of the details, the odd ones as well: etcd 3.4, applierV3backend.Range. A limit without
 * filters and without an order, but with a target other than the key, sorts the first limit + 1. */
#include "store/range.h"

#include <stdlib.h>

#include "store/state.h"

/* --- intervals --- */

bool interval_one(const struct interval *i) { return i->end.size == 0; }

static bool endless(const struct interval *i) { return i->end.size == 1 && i->end.at[0] == 0; }

bool interval_has(const struct interval *i, struct span key) {
    if (interval_one(i)) return span_equal(i->key, key);
    return span_compare(key, i->key) >= 0 && (endless(i) || span_compare(key, i->end) < 0);
}

static bool empty(const struct interval *i) {
    return !interval_one(i) && !endless(i) && span_compare(i->key, i->end) >= 0;
}

/* Does all of `a` lie before the first key of `b`? */
static bool before(const struct interval *a, const struct interval *b) {
    if (interval_one(a)) return span_compare(a->key, b->key) < 0;
    return !endless(a) && span_compare(a->end, b->key) <= 0;
}

bool interval_meets(const struct interval *a, const struct interval *b) {
    return !empty(a) && !empty(b) && !before(a, b) && !before(b, a);
}

void interval_seek(const struct tree_node *root, const struct interval *in,
                   struct interval_cursor *c) {
    c->in = *in;
    tree_seek(root, in->key, &c->at);
}

/* Of keys that are not below the first. */
static bool below_end(const struct interval *i, struct span key) {
    if (interval_one(i)) return span_equal(i->key, key);
    return endless(i) || span_compare(key, i->end) < 0;
}

const struct item *interval_next(struct interval_cursor *c) {
    const struct item *i = tree_next(&c->at);
    if (i == NULL) return NULL;
    bool inside = below_end(&c->in, item_key(i));
    if (!inside || interval_one(&c->in)) c->at.path.depth = 0; /* no more will come */
    return inside ? i : NULL;
}

/* --- a question under way --- */

enum phase { LOOK, HEAP, GIVE, DONE };

struct query {
    const struct range *r;
    const struct tree_node *root;
    uint64_t revision; /* asked for; 0: the newest versions */
    struct interval_cursor at;
    enum phase phase;
    bool sorted;              /* collect and sort, else give while looking */
    bool counting;            /* the count is what was looked at, else it is known */
    uint64_t collect_max;     /* enough are collected then; 0: all */
    const struct item **item; /* collected; from HEAP on a heap of `n` */
    size_t n, room;           /* in use, allocated */
    size_t heap;              /* HEAP: items from here on are in order already */
    uint64_t given, looked;   /* to `each`; at live keys */
    struct range_end end;
};

static bool has_filters(const struct range *r) {
    return (r->min_mod_revision | r->max_mod_revision | r->min_create_revision |
            r->max_create_revision) != 0;
}

RESULT range_possible(const struct range_source *from, const struct range *r) {
    if (r->revision > from->now) return ERR_FUTURE_REVISION;
    return r->revision != 0 && r->revision < from->compacted ? ERR_COMPACTED : OK;
}

uint64_t interval_live(const struct tree_node *root, const struct interval *in) {
    if (interval_one(in)) return 1;
    if (empty(in)) return 0;
    uint64_t end = endless(in) ? tree_root_live(root) : tree_rank(root, in->end);
    return end - tree_rank(root, in->key);
}

static bool sorts(const struct range *r) {
    return r->target != SORT_KEY || r->order == SORT_DESCEND;
}

static uint64_t versions_since(const struct state *s, const struct range *r) {
    uint64_t n = 0;
    if (!interval_one(&r->in))
        return history_end(s->history) - history_find(s->history, r->revision + 1);
    const struct item *i = tree_lookup(tree_root(s->keys), r->in.key);
    for (; i != NULL && item_born(i) > r->revision; i = i->older)
        n++;
    return n;
}

uint64_t range_cost(const struct state *s, const struct range *r) {
    uint64_t n = interval_live(tree_root(s->keys), &r->in);
    if (r->revision != 0 && r->revision != s->revision) return n + versions_since(s, r);
    if (r->count_only) return 1;
    if (!sorts(r) && !has_filters(r) && r->limit != 0 && r->limit < n) return r->limit;
    return n;
}

static void query_start(struct query *q, const struct range_source *from, const struct range *r) {
    *q = (struct query){.r = r, .root = from->root};
    q->revision = r->revision == from->now ? 0 : r->revision;
    q->sorted = sorts(r);
    if (r->order == SORT_NONE && !has_filters(r) && r->limit != 0 && r->limit != UINT64_MAX)
        q->collect_max = r->limit + 1;
    q->counting = q->revision != 0 || interval_one(&r->in);
    if (!q->counting) q->end.count = interval_live(q->root, &r->in);
    interval_seek(q->root, &r->in, &q->at);
    if (empty(&r->in) || (!q->counting && r->count_only)) q->phase = DONE;
}

static void query_end(struct query *q) { free(q->item); }

/* The version that was there at the revision; NULL: none. */
static const struct item *version_at(const struct item *i, uint64_t revision) {
    if (revision != 0)
        while (i != NULL && item_born(i) > revision)
            i = i->older;
    return i == NULL || item_tomb(i) ? NULL : i;
}

static bool passes(const struct range *r, const struct item *i) {
    if (!has_filters(r)) return true;
    struct kv kv;
    item_read(i, &kv);
    if (r->min_mod_revision != 0 && kv.mod_revision < r->min_mod_revision) return false;
    if (r->max_mod_revision != 0 && kv.mod_revision > r->max_mod_revision) return false;
    if (r->min_create_revision != 0 && kv.create_revision < r->min_create_revision) return false;
    return r->max_create_revision == 0 || kv.create_revision <= r->max_create_revision;
}

static bool give(struct query *q, const struct item *i, store_each *each, void *ctx) {
    struct kv kv;
    item_read(i, &kv);
    if (q->r->keys_only) kv.value.size = 0;
    q->given++;
    return each(ctx, &kv);
}

static bool full(const struct query *q) { return q->r->limit != 0 && q->given == q->r->limit; }

static RESULT collect(struct query *q, const struct item *i) {
    if (q->collect_max != 0 && q->n == q->collect_max) return OK;
    if (q->n == q->room) {
        size_t room = q->room == 0 ? 64 : 2 * q->room;
        const struct item **item = realloc(q->item, room * sizeof(struct item *));
        if (item == NULL) return ERR_NOMEM;
        q->item = item;
        q->room = room;
    }
    q->item[q->n++] = i;
    return OK;
}

/* Nothing that may still come would change the answer. */
static bool seen_enough(const struct query *q) {
    if (q->counting) return false;
    return q->sorted ? q->collect_max != 0 && q->n == q->collect_max : q->end.more;
}

/* One key; *go_on false: `each` wants no more for now. */
static RESULT look(struct query *q, const struct item *newest, store_each *each, void *ctx,
                   bool *go_on) {
    const struct item *i = version_at(newest, q->revision);
    if (i == NULL) return OK;
    q->looked++;
    if (q->r->count_only || !passes(q->r, i)) return OK;
    if (q->sorted) return collect(q, i);
    if (full(q))
        q->end.more = true;
    else
        *go_on = give(q, i, each, ctx);
    return OK;
}

static RESULT look_on(struct query *q, size_t keys, store_each *each, void *ctx, bool *go_on) {
    while (keys-- > 0 && *go_on) {
        const struct item *i = seen_enough(q) ? NULL : interval_next(&q->at);
        if (i != NULL) {
            TRY(look(q, i, each, ctx, go_on));
            continue;
        }
        if (q->counting) q->end.count = q->looked;
        q->heap = q->n / 2;
        q->phase = q->sorted ? HEAP : DONE;
        return OK;
    }
    return OK;
}

/* --- order --- */

static int number_order(uint64_t a, uint64_t b) { return (a > b) - (a < b); }

static int target_order(enum sort_target target, const struct item *a, const struct item *b) {
    struct kv x, y;
    item_read(a, &x);
    item_read(b, &y);
    switch (target) {
    case SORT_KEY: return span_compare(x.key, y.key);
    case SORT_VERSION: return number_order(x.version, y.version);
    case SORT_CREATE: return number_order(x.create_revision, y.create_revision);
    case SORT_MOD: return number_order(x.mod_revision, y.mod_revision);
    case SORT_VALUE: return span_compare(x.value, y.value);
    }
    return 0;
}

static bool comes_first(const struct range *r, const struct item *a, const struct item *b) {
    int order = target_order(r->target, a, b);
    if (order == 0) return span_compare(item_key(a), item_key(b)) < 0;
    return r->order == SORT_DESCEND ? order > 0 : order < 0;
}

static void sink(struct query *q, size_t at) {
    while (2 * at + 1 < q->n) {
        size_t child = 2 * at + 1;
        if (child + 1 < q->n && comes_first(q->r, q->item[child + 1], q->item[child])) child++;
        if (!comes_first(q->r, q->item[child], q->item[at])) return;
        const struct item *i = q->item[at];
        q->item[at] = q->item[child];
        q->item[child] = i;
        at = child;
    }
}

static void heap_on(struct query *q, size_t keys) {
    while (keys-- > 0 && q->heap > 0)
        sink(q, --q->heap);
    if (q->heap == 0) q->phase = GIVE;
}

static void give_on(struct query *q, size_t keys, store_each *each, void *ctx, bool *go_on) {
    while (keys-- > 0 && *go_on) {
        if (q->n == 0 || full(q)) {
            q->end.more = q->n > 0;
            q->phase = DONE;
            return;
        }
        const struct item *first = q->item[0];
        q->item[0] = q->item[--q->n];
        sink(q, 0);
        *go_on = give(q, first, each, ctx);
    }
}

static RESULT query_step(struct query *q, size_t keys, store_each *each, void *ctx, bool *go_on) {
    switch (q->phase) {
    case LOOK: return look_on(q, keys, each, ctx, go_on);
    case HEAP: heap_on(q, keys); break;
    case GIVE: give_on(q, keys, each, ctx, go_on); break;
    case DONE: break;
    }
    return OK;
}

/* --- asking --- */

RESULT range_over(const struct range_source *from, const struct range *r, store_each *each,
                  void *ctx, struct range_end *end) {
    struct query q;
    bool go_on = true;
    TRY(range_possible(from, r));
    query_start(&q, from, r);
    enum err e = OK;
    while (e == OK && go_on && q.phase != DONE) {
        e = query_step(&q, KEYS_A_BREATH, each, ctx, &go_on);
        if (from->busy != NULL) machine_busy(from->busy);
    }
    *end = q.end;
    query_end(&q);
    return e;
}

RESULT store_range_read(const struct store *s, const struct range *r, store_each *each, void *ctx,
                        struct range_end *end) {
    struct range_source from = range_source_of(&s->state, s->state.revision);
    return range_over(&from, r, each, ctx, end);
}

struct range_walk {
    struct store_view *view;
    struct query query;
};

RESULT range_walk_new(const struct store *s, const struct range *r, struct range_walk **out) {
    struct range_source from = range_source_of(&s->state, s->state.revision);
    TRY(range_possible(&from, r));
    struct range_walk *w = calloc(1, sizeof *w);
    if (w == NULL) return ERR_NOMEM;
    bool past = r->revision != 0 && r->revision != from.now;
    enum err e = past ? store_view_new_with_history(s, &w->view) : store_view_new(s, &w->view);
    if (e != OK) {
        free(w);
        return e;
    }
    query_start(&w->query, &from, r);
    *out = w;
    return OK;
}

RESULT range_walk_step(struct range_walk *w, size_t keys, store_each *each, void *ctx, bool *done,
                       struct range_end *end) {
    bool go_on = true;
    if (w->query.phase != DONE) TRY(query_step(&w->query, keys, each, ctx, &go_on));
    *done = w->query.phase == DONE;
    if (*done) *end = w->query.end;
    return OK;
}

void range_walk_free(struct range_walk *w) {
    if (w == NULL) return;
    query_end(&w->query);
    store_view_free(w->view);
    free(w);
}
