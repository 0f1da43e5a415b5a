/* Transactions carried out (format and rules: txn.c). First the way is found: all compares, those
 * of nested transactions too, are answered by the state as it was before, which gives one branch
 * for each transaction that will be met, in order. Then what could fail on that way is looked for,
 * so that nothing fails once something was written: keys that must be there, leases, revisions that
 * can't be read, more keys than a command may look at. Then the operations happen, each seeing
 * those before it. All three walks follow the same way with a stack of their own; the bytes were
 * checked by txn_check. Source: etcd 3.4, applierV3backend.Txn. */
#include <assert.h>
#include <stdlib.h>

#include "store/state.h"

/* --- the way --- */

struct way {
    struct buf taken; /* one byte for each transaction met: its compares held */
    size_t at;        /* the next one */
    uint64_t cost;    /* keys that compares and ranges look at: the same on every member */
    uint64_t looked;  /* keys that compares have looked at here, deleted ones too */
};

struct walk {
    struct way *way;
    struct cursor list[TXN_DEPTH_MAX]; /* what is left of the branches taken; innermost last */
    unsigned depth;
};

static void next_op(struct walk *w, struct txn_op *op) {
    enum err e = txn_op_next(&w->list[w->depth - 1], op);
    assert(e == OK);
}

/* Leaves the lists that are through; false: all are. */
static bool more_ops(struct walk *w) {
    while (w->depth > 0 && w->list[w->depth - 1].left == 0)
        w->depth--;
    return w->depth > 0;
}

static unsigned count_ops(struct span list) {
    struct cursor in = cursor_of(list);
    struct txn_op op;
    unsigned n = 0;
    while (in.left > 0 && txn_op_next(&in, &op) == OK)
        n++;
    return n;
}

static struct txn_view opened(struct span txn) {
    struct txn_view v;
    enum err e = txn_open(txn, &v);
    assert(e == OK);
    return v;
}

/* Enters the branch of the transaction that the way says. */
static struct span enter(struct walk *w, struct span txn, bool *succeeded) {
    struct txn_view v = opened(txn);
    assert(w->depth < TXN_DEPTH_MAX && w->way->at < w->way->taken.size);
    *succeeded = w->way->taken.at[w->way->at++] != 0;
    struct span list = *succeeded ? v.success : v.failure;
    w->list[w->depth++] = cursor_of(list);
    return list;
}

/* --- compares --- */

static bool holds(enum compare_result wanted, int order) {
    switch (wanted) {
    case COMPARE_EQUAL: return order == 0;
    case COMPARE_GREATER: return order > 0;
    case COMPARE_LESS: return order < 0;
    case COMPARE_NOT_EQUAL: return order != 0;
    }
    return false;
}

static int number_order(int64_t a, int64_t b) { return (a > b) - (a < b); }

static bool compare_kv(const struct compare *c, const struct kv *kv) {
    int64_t number = 0;
    switch (c->target) {
    case COMPARE_VALUE: return holds(c->result, span_compare(kv->value, c->value));
    case COMPARE_VERSION: number = (int64_t)kv->version; break;
    case COMPARE_CREATE: number = (int64_t)kv->create_revision; break;
    case COMPARE_MOD: number = (int64_t)kv->mod_revision; break;
    case COMPARE_LEASE: number = (int64_t)kv->lease; break;
    }
    return holds(c->result, number_order(number, c->number));
}

static bool compare_one(const struct store *store, const struct compare *c, struct way *way) {
    struct interval_cursor at;
    const struct item *i;
    bool any = false;
    interval_seek(tree_root(store->state.keys), &c->in, &at);
    while ((i = interval_next(&at)) != NULL) {
        struct kv kv;
        if (++way->looked % KEYS_A_BREATH == 0) machine_busy(&store->machine);
        if (item_tomb(i)) continue;
        item_read(i, &kv);
        any = true;
        if (!compare_kv(c, &kv)) return false;
    }
    const struct kv none = {.lease = 0};
    return any || (c->target != COMPARE_VALUE && compare_kv(c, &none));
}

static RESULT compare_all(const struct store *s, struct span compares, struct way *way,
                          bool *hold) {
    struct cursor in = cursor_of(compares);
    *hold = true;
    while (in.left > 0 && *hold) {
        struct compare c;
        enum err e = txn_compare_next(&in, &c);
        assert(e == OK);
        way->cost += interval_live(tree_root(s->state.keys), &c.in);
        if (way->cost > TXN_LOOK_MAX) return ERR_TOO_MANY_OPS;
        *hold = compare_one(s, &c, way);
    }
    return OK;
}

static RESULT meet(const struct store *s, struct walk *w, struct span txn) {
    bool succeeded;
    TRY(compare_all(s, opened(txn).compares, w->way, &succeeded));
    TRY(buf_u8(&w->way->taken, succeeded));
    (void)enter(w, txn, &succeeded);
    return OK;
}

/* ERR_TOO_MANY_OPS, ERR_NOMEM. */
static RESULT find_way(const struct store *s, struct span txn, struct way *way) {
    struct walk w = {.way = way};
    TRY(meet(s, &w, txn));
    while (more_ops(&w)) {
        struct txn_op op;
        next_op(&w, &op);
        if (op.kind == TXN_NESTED) TRY(meet(s, &w, op.txn));
    }
    return OK;
}

/* --- what could fail --- */

struct doubts {
    struct range_source now;
    uint64_t puts;       /* on the way */
    uint64_t cost;       /* see struct way */
    enum err put, range; /* the first that fails of each; etcd looks at the puts first */
};

static enum err doubt_put(const struct state *s, const struct put *p) {
    struct lease lease;
    if ((p->ignore_value || p->ignore_lease) &&
        item_live(tree_lookup(tree_root(s->keys), p->key)) == NULL)
        return ERR_KEY_NOT_FOUND;
    return p->lease == 0 || lease_find(&s->leases, p->lease, &lease) ? OK : ERR_LEASE_NOT_FOUND;
}

static void doubt_op(const struct state *s, const struct txn_op *op, struct doubts *d) {
    if (op->kind == TXN_PUT) {
        d->puts++;
        if (d->put == OK) d->put = doubt_put(s, &op->put);
    }
    if (op->kind == TXN_RANGE && d->range == OK) d->range = range_possible(&d->now, &op->range);
    if (op->kind == TXN_RANGE && d->range == OK) d->cost += range_cost(s, &op->range);
    if (op->kind == TXN_DELETE && op->del.prev_kv)
        d->cost += interval_live(tree_root(s->keys), &op->del.in);
}

static enum err doubt(const struct state *s, struct span txn, struct way *way) {
    struct walk w = {.way = way};
    struct doubts d = {.now = range_source_of(s, s->revision), .cost = way->cost};
    bool succeeded;
    way->at = 0;
    (void)enter(&w, txn, &succeeded);
    while (more_ops(&w) && d.cost <= TXN_LOOK_MAX) {
        struct txn_op op;
        next_op(&w, &op);
        if (op.kind == TXN_NESTED)
            (void)enter(&w, op.txn, &succeeded);
        else
            doubt_op(s, &op, &d);
    }
    if (d.cost > TXN_LOOK_MAX) return ERR_TOO_MANY_OPS;
    if (d.put != OK) return d.put;
    if (d.range != OK) return d.range;
    return d.puts == 0 ? OK : mvcc_room(s, d.puts);
}

/* --- doing it --- */

struct adding {
    struct answering *a;
    enum err e; /* ERR_NOMEM */
};

static bool add_kv(void *ctx, const struct kv *kv) {
    struct adding *adding = ctx;
    adding->e = answer_add(adding->a, kv);
    return adding->e == OK && adding->a->out != NULL;
}

static struct range_source source_in(const struct writing *w) {
    struct range_source from = range_source_of(&w->store->state, writing_now(w));
    from.busy = &w->store->machine;
    return from;
}

static RESULT answer_range(const struct writing *w, const struct range *r, struct answering *a) {
    struct range_source from = source_in(w);
    struct answer head = {.kind = ANSWER_RANGE, .revision = from.now};
    struct adding adding = {.a = a};
    struct range_end end = {.count = 0};
    if (a->out == NULL) return OK;
    TRY(answer_begin(a, &head));
    TRY(range_over(&from, r, add_kv, &adding, &end));
    TRY(adding.e);
    answer_close(a, end.count, end.more);
    return OK;
}

RESULT op_put(struct writing *w, const struct put *p, struct answering *a) {
    struct state *s = &w->store->state;
    struct answer head = {.kind = ANSWER_PUT, .revision = w->revision};
    struct tree_path path;
    struct item *old = tree_find(s->keys, p->key, &path);
    struct kv kv = {.key = p->key, .value = p->value, .lease = p->lease}, before = {.lease = 0};
    bool existed = item_live(old) != NULL;
    if (existed) item_read(old, &before);
    if (p->ignore_value) kv.value = before.value;
    if (p->ignore_lease) kv.lease = before.lease;
    TRY(answer_begin(a, &head));
    if (p->prev_kv && existed) TRY(answer_add(a, &before));
    answer_close(a, 0, false);
    return mvcc_put(w, &path, old, &kv);
}

RESULT op_delete(struct writing *w, const struct del *d, struct answering *a, uint64_t *deleted) {
    struct adding adding = {.a = a};
    struct range all = {.in = d->in};
    struct range_end end;
    struct range_source from = source_in(w);
    struct answer head = {.kind = ANSWER_DELETE};
    uint64_t n = 0;
    TRY(answer_begin(a, &head));
    if (d->prev_kv && a->out != NULL) TRY(range_over(&from, &all, add_kv, &adding, &end));
    TRY(adding.e);
    TRY(mvcc_delete(w, &d->in, &n));
    *deleted += n;
    answer_close(a, n, false);
    if (a->out != NULL) put_u64(a->out->at + a->head + 2, writing_now(w));
    return OK;
}

static RESULT answer_txn(struct answering *a, bool succeeded, struct span list) {
    struct answer head = {.kind = ANSWER_TXN, .succeeded = succeeded};
    if (a->out == NULL) return OK;
    head.n_answers = count_ops(list);
    return answer_begin(a, &head);
}

static RESULT do_op(struct writing *w, const struct txn_op *op, struct answering *a) {
    uint64_t deleted = 0;
    switch (op->kind) {
    case TXN_RANGE: return answer_range(w, &op->range, a);
    case TXN_PUT: return op_put(w, &op->put, a);
    case TXN_DELETE: return op_delete(w, &op->del, a, &deleted);
    case TXN_NESTED: break;
    }
    return OK;
}

static RESULT do_all(struct writing *w, struct span txn, struct way *way, struct answering *a) {
    struct walk walk = {.way = way};
    bool succeeded;
    way->at = 0;
    struct span list = enter(&walk, txn, &succeeded);
    TRY(answer_txn(a, succeeded, list));
    while (more_ops(&walk)) {
        struct txn_op op;
        next_op(&walk, &op);
        if (op.kind == TXN_NESTED) {
            list = enter(&walk, op.txn, &succeeded);
            TRY(answer_txn(a, succeeded, list));
        } else {
            TRY(do_op(w, &op, a));
        }
    }
    return OK;
}

RESULT txn_apply(struct writing *w, struct span txn, struct answering *a, enum err *outcome) {
    struct way way = {.taken = buf_new(COMMAND_MAX)};
    enum err e = find_way(w->store, txn, &way);
    if (e == OK) *outcome = doubt(&w->store->state, txn, &way);
    if (e == OK && *outcome == OK) e = do_all(w, txn, &way, a);
    buf_free(&way.taken);
    if (e != ERR_TOO_MANY_OPS) return e;
    *outcome = e;
    return OK;
}

RESULT txn_read(const struct store *s, struct span txn, struct buf *out) {
    /* Nothing is written, so the store stays as it is. */
    struct writing w = writing_on((struct store *)(uintptr_t)s);
    struct answering a = answering_in(out);
    enum err outcome = OK;
    if (txn_writes(txn)) return ERR_INVALID;
    TRY(txn_apply(&w, txn, &a, &outcome));
    return outcome != OK ? outcome : a.failed;
}
