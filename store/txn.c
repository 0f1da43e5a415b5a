/* Transactions as bytes: putting them together, taking them apart, and the check that they keep
 * etcd's rules. Carrying out: txn_apply.c.
 *
 *   transaction: block compares, block success, block failure
 *   compares:    each: compare (codec.h)
 *   success, failure: operations, each: u8 kind, then range, put, delete (codec.h) or, of
 *                TXN_NESTED, block transaction
 *
 * The check goes through all branches, also those that will not be taken, with a stack of its own.
 * Overlaps (source: etcd 3.4, checkIntervals): within one list of operations each put must miss all
 * other puts and all deletes of the list, nested ones included; a put inside a nested transaction
 * must miss the list's own deletes and those nested before it (not those after it, which is how
 * etcd does it). The two branches of one nested transaction exclude each other.
 *
 * So every list of operations gets a number, every delete as well: a list's own first, then the
 * nested ones' in order. What a put may not meet is then one run of delete numbers for each list
 * around it, and a sweep over the keys asks a Fenwick tree whether any delete of such a run is open
 * there. Puts that meet each other stand beside each other when sorted by key and place. */
#include <assert.h>
#include <stdlib.h>

#include "store/codec.h"

/* --- building --- */

RESULT txn_compare_add(struct buf *compares, const struct compare *c) {
    size_t before = compares->size;
    enum err e = compare_encode(c, compares);
    if (e != OK) compares->size = before;
    return e;
}

static RESULT op_encode(const struct txn_op *op, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)op->kind));
    switch (op->kind) {
    case TXN_RANGE: return range_encode(&op->range, out);
    case TXN_PUT: return put_encode(&op->put, out);
    case TXN_DELETE: return del_encode(&op->del, out);
    case TXN_NESTED: return buf_block(out, op->txn);
    }
    return ERR_INVALID;
}

RESULT txn_op_add(struct buf *ops, const struct txn_op *op) {
    size_t before = ops->size;
    enum err e = op_encode(op, ops);
    if (e != OK) ops->size = before;
    return e;
}

RESULT txn_add(struct buf *out, struct span compares, struct span success, struct span failure) {
    TRY(buf_block(out, compares));
    TRY(buf_block(out, success));
    return buf_block(out, failure);
}

/* --- taking apart --- */

static RESULT open_bytes(struct span txn, struct txn_view *out) {
    struct cursor in = cursor_of(txn);
    TRY(cursor_block(&in, COMMAND_MAX, &out->compares));
    TRY(cursor_block(&in, COMMAND_MAX, &out->success));
    TRY(cursor_block(&in, COMMAND_MAX, &out->failure));
    return cursor_end(&in);
}

RESULT txn_open(struct span txn, struct txn_view *out) {
    return invalid_for_protocol(open_bytes(txn, out));
}

RESULT txn_compare_next(struct cursor *compares, struct compare *out) {
    return invalid_for_protocol(compare_decode(compares, out));
}

static RESULT op_decode(struct cursor *in, struct txn_op *out) {
    uint8_t kind;
    TRY(cursor_u8(in, &kind));
    out->kind = (enum txn_kind)kind;
    switch (out->kind) {
    case TXN_RANGE: return range_decode(in, &out->range);
    case TXN_PUT: return put_decode(in, &out->put);
    case TXN_DELETE: return del_decode(in, &out->del);
    case TXN_NESTED: return cursor_block(in, COMMAND_MAX, &out->txn);
    }
    return ERR_UNSUPPORTED;
}

RESULT txn_op_next(struct cursor *ops, struct txn_op *out) {
    return invalid_for_protocol(op_decode(ops, out));
}

static bool list_writes(struct span ops) {
    struct cursor in = cursor_of(ops);
    struct txn_op op = {0};
    while (in.left > 0 && txn_op_next(&in, &op) == OK)
        if (op.kind != TXN_RANGE) return true;
    return false;
}

bool txn_writes(struct span txn) {
    struct txn_view v;
    return txn_open(txn, &v) == OK && (list_writes(v.success) || list_writes(v.failure));
}

bool txn_puts(struct span txn) {
    struct cursor at[2 * TXN_DEPTH_MAX];
    unsigned n = 0;
    struct txn_view v;
    struct txn_op op = {.kind = TXN_NESTED, .txn = txn};
    do {
        if (op.kind == TXN_PUT) return true;
        if (op.kind == TXN_NESTED && n + 2 <= ARRAY_SIZE(at) && txn_open(op.txn, &v) == OK) {
            at[n++] = cursor_of(v.failure);
            at[n++] = cursor_of(v.success);
        }
        while (n > 0 && at[n - 1].left == 0)
            n--;
    } while (n > 0 && txn_op_next(&at[n - 1], &op) == OK);
    return false;
}

/* --- the check: what is collected --- */

#define NO_LIST UINT32_MAX

/* A list of operations, and the deletes inside it: numbers first .. end - 1. */
struct list {
    uint32_t parent;     /* the list around it; NO_LIST: outermost */
    uint32_t first, end; /* its deletes, nested ones included */
    uint32_t before;     /* the parent's deletes that its puts may not meet: up to here */
    uint32_t place;      /* of the operation that it belongs to, in the order of the bytes */
    uint32_t depth;      /* lists around it */
};

struct put_seen {
    struct span key;
    uint32_t list;  /* that it stands in */
    uint32_t place; /* in the order of the bytes */
};

struct check {
    struct list *lists;    /* by number */
    struct put_seen *puts; /* in the order of the bytes */
    struct interval *dels; /* by number */
    uint32_t n_lists, n_puts, n_dels;
    uint32_t lists_room, puts_room, dels_room;
    uint32_t places; /* operations seen */
    unsigned ops;    /* compares and operations of the transactions seen */
    unsigned scans;  /* of them over more than one key */
};

static RESULT room_for(void **at, uint32_t *room, uint32_t n, size_t size) {
    if (n < *room) return OK;
    uint32_t more = *room == 0 ? 16 : 2 * *room;
    void *grown = realloc(*at, more * size);
    if (grown == NULL) return ERR_NOMEM;
    *at = grown;
    *room = more;
    return OK;
}

static RESULT add_list(struct check *c, struct list l) {
    void *at = c->lists;
    TRY(room_for(&at, &c->lists_room, c->n_lists, sizeof *c->lists));
    c->lists = at;
    c->lists[c->n_lists++] = l;
    return OK;
}

static RESULT add_put(struct check *c, struct put_seen p) {
    void *at = c->puts;
    TRY(room_for(&at, &c->puts_room, c->n_puts, sizeof *c->puts));
    c->puts = at;
    c->puts[c->n_puts++] = p;
    return OK;
}

static RESULT add_del(struct check *c, struct interval i) {
    void *at = c->dels;
    TRY(room_for(&at, &c->dels_room, c->n_dels, sizeof *c->dels));
    c->dels = at;
    c->dels[c->n_dels++] = i;
    return OK;
}

static RESULT op_check(const struct txn_op *op) {
    switch (op->kind) {
    case TXN_RANGE:
        if (op->range.in.key.size == 0) return ERR_EMPTY_KEY;
        return range_check(&op->range);
    case TXN_PUT:
        if (op->put.key.size == 0) return ERR_EMPTY_KEY;
        if (op->put.must_not_exist || op->put.mod_revision != 0) return ERR_INVALID;
        return put_check(&op->put);
    case TXN_DELETE:
        if (op->del.in.key.size == 0) return ERR_EMPTY_KEY;
        return op->del.mod_revision != 0 ? ERR_INVALID : del_check(&op->del);
    case TXN_NESTED: break;
    }
    return OK;
}

/* --- the check: the walk --- */

/* One list under way. The bytes are read twice: for its own deletes, then for all the rest. */
struct step {
    struct cursor ops;   /* what is left of it */
    struct span failure; /* of its transaction, when this is the success list and that is to come */
    bool has_failure;    /* it is */
    uint32_t list;       /* its number */
    unsigned ops_max;    /* operations that a nested transaction's lists may have */
};

struct walk {
    struct check *check;
    struct step at[TXN_DEPTH_MAX]; /* the innermost last */
    unsigned depth;                /* in use */
};

/* Counts a list's operations and collects its own deletes. */
static RESULT scan_list(struct check *c, struct span ops, unsigned *n) {
    struct cursor in = cursor_of(ops);
    *n = 0;
    while (in.left > 0) {
        struct txn_op op;
        TRY(txn_op_next(&in, &op));
        if (++*n > TXN_OPS_MAX) return ERR_TOO_MANY_OPS;
        if (op.kind == TXN_DELETE) TRY(add_del(c, op.del.in));
    }
    return OK;
}

static RESULT count_ops(struct span ops, unsigned *n) {
    struct cursor in = cursor_of(ops);
    *n = 0;
    while (in.left > 0) {
        struct txn_op op;
        TRY(txn_op_next(&in, &op));
        if (++*n > TXN_OPS_MAX) return ERR_TOO_MANY_OPS;
    }
    return OK;
}

static RESULT count_scan(struct check *c, const struct interval *in) {
    if (!interval_one(in)) c->scans++;
    return c->scans > TXN_SCANS_MAX ? ERR_TOO_MANY_OPS : OK;
}

static RESULT check_compares(struct check *check, struct span compares, unsigned *n) {
    struct cursor in = cursor_of(compares);
    bool empty = false;
    *n = 0;
    while (in.left > 0) {
        struct compare c;
        TRY(txn_compare_next(&in, &c));
        if (++*n > TXN_OPS_MAX) return ERR_TOO_MANY_OPS;
        TRY(count_scan(check, &c.in));
        empty = empty || c.in.key.size == 0;
    }
    return empty ? ERR_EMPTY_KEY : OK;
}

static RESULT enter_list(struct walk *w, struct span ops, struct list l, unsigned ops_max) {
    struct check *c = w->check;
    unsigned n;
    if (w->depth == TXN_DEPTH_MAX) return ERR_TOO_MANY_OPS;
    l.first = c->n_dels;
    TRY(add_list(c, l));
    TRY(scan_list(c, ops, &n));
    w->at[w->depth++] =
        (struct step){.ops = cursor_of(ops), .list = c->n_lists - 1, .ops_max = ops_max};
    return OK;
}

/* A transaction with at most ops_max compares and operations a branch begins with its success
 * list; its failure list follows when that is through. */
static RESULT enter_txn(struct walk *w, struct span txn, struct list l, unsigned ops_max) {
    struct txn_view v;
    unsigned compares, success, failure;
    TRY(txn_open(txn, &v));
    enum err e = check_compares(w->check, v.compares, &compares);
    if (e != OK && e != ERR_EMPTY_KEY) return e;
    TRY(count_ops(v.success, &success));
    TRY(count_ops(v.failure, &failure));
    unsigned most = compares > success ? compares : success;
    if (failure > most) most = failure;
    w->check->ops += compares + success + failure;
    if (most > ops_max || w->check->ops > TXN_TREE_MAX) return ERR_TOO_MANY_OPS;
    if (e != OK) return e;
    TRY(enter_list(w, v.success, l, ops_max - most));
    w->at[w->depth - 1].failure = v.failure;
    w->at[w->depth - 1].has_failure = true;
    return OK;
}

static RESULT leave_list(struct walk *w) {
    struct step done = w->at[--w->depth];
    struct list *l = &w->check->lists[done.list];
    l->end = w->check->n_dels;
    if (!done.has_failure) return OK;
    struct list other = *l;
    return enter_list(w, done.failure, other, done.ops_max);
}

static RESULT walk_op(struct walk *w) {
    struct check *c = w->check;
    struct step *s = &w->at[w->depth - 1];
    struct txn_op op = {0};
    TRY(txn_op_next(&s->ops, &op));
    TRY(op_check(&op));
    if (op.kind == TXN_RANGE) TRY(count_scan(c, &op.range.in));
    if (op.kind == TXN_DELETE) TRY(count_scan(c, &op.del.in));
    uint32_t place = c->places++;
    if (op.kind == TXN_PUT) return add_put(c, (struct put_seen){op.put.key, s->list, place});
    if (op.kind != TXN_NESTED) return OK;
    struct list l = {.parent = s->list, .before = c->n_dels, .place = place, .depth = w->depth};
    return enter_txn(w, op.txn, l, s->ops_max);
}

static RESULT walk(struct check *c, struct span txn) {
    struct walk w = {.check = c};
    TRY(enter_txn(&w, txn, (struct list){.parent = NO_LIST}, TXN_OPS_MAX));
    while (w.depth > 0) {
        if (w.at[w.depth - 1].ops.left > 0)
            TRY(walk_op(&w));
        else
            TRY(leave_list(&w));
    }
    return OK;
}

/* --- the check: overlaps --- */

static int put_order(const void *a, const void *b) {
    const struct put_seen *x = a, *y = b;
    int order = span_compare(x->key, y->key);
    return order != 0 ? order : (x->place > y->place) - (x->place < y->place);
}

/* Do the lists lie in the two branches of one transaction? */
static bool exclusive(const struct check *c, uint32_t a, uint32_t b) {
    while (c->lists[a].depth > c->lists[b].depth)
        a = c->lists[a].parent;
    while (c->lists[b].depth > c->lists[a].depth)
        b = c->lists[b].parent;
    while (a != b) {
        const struct list *x = &c->lists[a], *y = &c->lists[b];
        if (x->parent == y->parent && x->place == y->place) return true;
        a = x->parent;
        b = y->parent;
    }
    return false;
}

static RESULT check_puts(const struct check *c) {
    for (uint32_t i = 1; i < c->n_puts; i++) {
        const struct put_seen *a = &c->puts[i - 1], *b = &c->puts[i];
        if (span_equal(a->key, b->key) && !exclusive(c, a->list, b->list)) return ERR_DUPLICATE_KEY;
    }
    return OK;
}

/* Deletes that are open at a key, counted by number: a Fenwick tree. */
struct open_dels {
    uint32_t *sums; /* n + 1 */
    uint32_t n;
};

static void open_add(struct open_dels *o, uint32_t number, uint32_t delta) {
    for (uint32_t i = number + 1; i <= o->n; i += i & -i)
        o->sums[i] += delta;
}

static uint32_t open_below(const struct open_dels *o, uint32_t number) {
    uint32_t sum = 0;
    for (uint32_t i = number; i > 0; i -= i & -i)
        sum += o->sums[i];
    return sum;
}

static bool put_meets(const struct check *c, const struct open_dels *o, const struct put_seen *p) {
    const struct list *l = &c->lists[p->list];
    uint32_t end = l->end;
    while (true) {
        if (open_below(o, end) != open_below(o, l->first)) return true;
        if (l->parent == NO_LIST) return false;
        end = l->before;
        l = &c->lists[l->parent];
    }
}

/* Where a delete begins or ends to cover keys; etcd compares the end as it is written here, so that
 * "\0", which means no end, covers nothing. */
struct border {
    struct span key;
    uint32_t number; /* of the delete */
    bool end;        /* else it begins there */
    bool behind;     /* the key itself is still inside */
};

static int border_order(const void *a, const void *b) {
    const struct border *x = a, *y = b;
    int order = span_compare(x->key, y->key);
    return order != 0 ? order : x->behind - y->behind;
}

static uint32_t make_borders(const struct check *c, struct border *out) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_dels; i++) {
        const struct interval *in = &c->dels[i];
        bool one = in->end.size == 0;
        if (!one && span_compare(in->key, in->end) >= 0) continue;
        out[n++] = (struct border){.key = in->key, .number = i};
        out[n++] = (struct border){
            .key = one ? in->key : in->end, .number = i, .end = true, .behind = one};
    }
    qsort(out, n, sizeof *out, border_order);
    return n;
}

static RESULT sweep(const struct check *c, const struct border *borders, uint32_t n,
                    struct open_dels *o) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < c->n_puts; i++) {
        const struct put_seen *p = &c->puts[i];
        for (; at < n; at++) {
            int order = span_compare(borders[at].key, p->key);
            if (order > 0 || (order == 0 && borders[at].behind)) break;
            open_add(o, borders[at].number, borders[at].end ? UINT32_MAX : 1);
        }
        if (put_meets(c, o, p)) return ERR_DUPLICATE_KEY;
    }
    return OK;
}

static RESULT check_deletes(const struct check *c) {
    if (c->n_dels == 0 || c->n_puts == 0) return OK;
    struct border *borders = malloc(2 * c->n_dels * sizeof *borders);
    struct open_dels open = {.sums = calloc(c->n_dels + 1, sizeof *open.sums), .n = c->n_dels};
    enum err e = ERR_NOMEM;
    if (borders != NULL && open.sums != NULL)
        e = sweep(c, borders, make_borders(c, borders), &open);
    free(borders);
    free(open.sums);
    return e;
}

static RESULT check_overlaps(struct check *c) {
    if (c->n_puts > 1) qsort(c->puts, c->n_puts, sizeof *c->puts, put_order);
    TRY(check_puts(c));
    return check_deletes(c);
}

RESULT txn_check(struct span txn, struct why *why) {
    struct check c = {.lists = NULL};
    enum err e = walk(&c, txn);
    if (e == OK) e = check_overlaps(&c);
    free(c.lists);
    free(c.puts);
    free(c.dels);
    return e == OK ? OK : fail_with(why, e, "%s", err_text(e));
}
