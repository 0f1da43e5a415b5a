/* See messages.h. A transaction is taken apart with a stack of its own, since its depth is the
 * client's choice: each frame is one transaction, and a finished one becomes an operation of the
 * frame below. */
#include "api/etcd/messages.h"

#include "api/etcd/etcd.h"

static uint64_t not_below_zero(int64_t n) { return n > 0 ? (uint64_t)n : 0; }

RESULT range_of(const Etcdserverpb__RangeRequest *m, struct range *out) {
    if (m->key.len == 0) return ERR_EMPTY_KEY;
    if ((unsigned)m->sort_order > SORT_DESCEND || (unsigned)m->sort_target > SORT_VALUE)
        return ERR_SORT_OPTION;
    *out = (struct range){
        .in = {.key = etcd_span(m->key), .end = etcd_span(m->range_end)},
        .limit = not_below_zero(m->limit),
        .revision = not_below_zero(m->revision),
        .order = (enum sort_order)m->sort_order,
        .target = (enum sort_target)m->sort_target,
        .keys_only = m->keys_only,
        .count_only = m->count_only,
        .min_mod_revision = not_below_zero(m->min_mod_revision),
        .max_mod_revision = not_below_zero(m->max_mod_revision),
        .min_create_revision = not_below_zero(m->min_create_revision),
        .max_create_revision = not_below_zero(m->max_create_revision),
    };
    /* No bound is 0; below it is a bound that nothing keeps. */
    if (m->max_mod_revision < 0 || m->max_create_revision < 0) out->min_mod_revision = INT64_MAX;
    return OK;
}

RESULT put_of(const Etcdserverpb__PutRequest *m, struct put *out) {
    if (m->key.len == 0) return ERR_EMPTY_KEY;
    if (m->ignore_value && m->value.len > 0) return ERR_VALUE_PROVIDED;
    if (m->ignore_lease && m->lease != 0) return ERR_LEASE_PROVIDED;
    if (m->key.len > KEY_MAX || m->value.len > VALUE_MAX) return ERR_TOO_LARGE;
    *out = (struct put){
        .key = etcd_span(m->key),
        .value = etcd_span(m->value),
        .lease = (uint64_t)m->lease,
        .prev_kv = m->prev_kv,
        .ignore_value = m->ignore_value,
        .ignore_lease = m->ignore_lease,
        .must_not_exist = m->must_not_exist,
        .mod_revision = m->mod_revision,
    };
    return OK;
}

RESULT delete_of(const Etcdserverpb__DeleteRangeRequest *m, struct del *out) {
    if (m->key.len == 0) return ERR_EMPTY_KEY;
    *out = (struct del){
        .in = {.key = etcd_span(m->key), .end = etcd_span(m->range_end)},
        .prev_kv = m->prev_kv,
        .mod_revision = m->mod_revision,
    };
    return OK;
}

/* --- transactions ---------------------------------------------------------------------------- */

static const unsigned target_union_of[] = {
    [COMPARE_VERSION] = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION,
    [COMPARE_CREATE] = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION,
    [COMPARE_MOD] = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION,
    [COMPARE_VALUE] = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE,
    [COMPARE_LEASE] = ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE,
};

static RESULT compare_of(const Etcdserverpb__Compare *m, struct compare *out) {
    if (m->key.len == 0) return ERR_EMPTY_KEY;
    if ((unsigned)m->target > COMPARE_LEASE || (unsigned)m->result > COMPARE_NOT_EQUAL)
        return ERR_INVALID;
    *out = (struct compare){
        .in = {.key = etcd_span(m->key), .end = etcd_span(m->range_end)},
        .target = (enum compare_target)m->target,
        .result = (enum compare_result)m->result,
    };
    /* What the union holds for another target is not looked at: zero, or empty, is compared. */
    if ((unsigned)m->target_union_case != target_union_of[m->target]) return OK;
    if (out->target == COMPARE_VALUE)
        out->value = etcd_span(m->value);
    else
        out->number = m->version; /* all numbers of the union are of one type */
    return OK;
}

enum branch { SUCCESS, FAILURE, BRANCHES };

struct frame {
    Etcdserverpb__TxnRequest *unpacked;        /* NULL: the outermost, which is the caller's */
    const Etcdserverpb__TxnRequest *m;         /* it */
    struct buf compares, operations[BRANCHES]; /* as far as they are made */
    enum branch branch;                        /* being made */
    size_t at;                                 /* its next operation */
};

struct conversion {
    struct frame frames[TXN_DEPTH_MAX]; /* the outermost first */
    unsigned depth;                     /* in use */
    bool reads;                         /* a range is among the operations */
    bool serializable;                  /* all of them so far */
};

static RESULT push(struct conversion *c, const Etcdserverpb__TxnRequest *m,
                   Etcdserverpb__TxnRequest *unpacked) {
    struct frame *f = &c->frames[c->depth++];
    *f = (struct frame){.unpacked = unpacked, .m = m, .compares = buf_new(COMMAND_MAX)};
    for (enum branch b = SUCCESS; b < BRANCHES; b++)
        f->operations[b] = buf_new(COMMAND_MAX);
    if (m->n_compare > TXN_OPS_MAX || m->n_success > TXN_OPS_MAX || m->n_failure > TXN_OPS_MAX)
        return ERR_TOO_MANY_OPS;
    for (size_t i = 0; i < m->n_compare; i++) {
        struct compare compare;
        TRY(compare_of(m->compare[i], &compare));
        TRY(txn_compare_add(&f->compares, &compare));
    }
    return OK;
}

static void pop(struct conversion *c) {
    struct frame *f = &c->frames[--c->depth];
    if (f->unpacked) etcdserverpb__txn_request__free_unpacked(f->unpacked, NULL);
    buf_wipe(&f->compares);
    for (enum branch b = SUCCESS; b < BRANCHES; b++)
        buf_wipe(&f->operations[b]);
}

static RESULT push_nested(struct conversion *c, ProtobufCBinaryData bytes) {
    if (c->depth == TXN_DEPTH_MAX) return ERR_TOO_MANY_OPS;
    Etcdserverpb__TxnRequest *m = etcdserverpb__txn_request__unpack(NULL, bytes.len, bytes.data);
    if (m == NULL) return ERR_INVALID;
    return push(c, m, m);
}

static RESULT add_operation(struct conversion *c, struct frame *f,
                            const Etcdserverpb__RequestOp *m) {
    struct txn_op op = {0};
    switch (m->request_case) {
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE:
        op.kind = TXN_RANGE;
        c->reads = true;
        c->serializable = c->serializable && m->request_range->serializable;
        TRY(range_of(m->request_range, &op.range));
        break;
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT:
        op.kind = TXN_PUT;
        TRY(put_of(m->request_put, &op.put));
        break;
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE:
        op.kind = TXN_DELETE;
        TRY(delete_of(m->request_delete_range, &op.del));
        break;
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN: return push_nested(c, m->request_txn);
    case ETCDSERVERPB__REQUEST_OP__REQUEST__NOT_SET:
    case _ETCDSERVERPB__REQUEST_OP__REQUEST__CASE_IS_INT_SIZE: return ERR_KEY_NOT_FOUND;
    }
    return txn_op_add(&f->operations[f->branch], &op);
}

/* The finished transaction becomes an operation of the one below, or the result. */
static RESULT finish(struct conversion *c, struct buf *out) {
    struct frame *f = &c->frames[c->depth - 1];
    struct span compares = buf_span(&f->compares);
    struct span success = buf_span(&f->operations[SUCCESS]);
    struct span failure = buf_span(&f->operations[FAILURE]);
    if (c->depth == 1) return txn_add(out, compares, success, failure);
    struct buf bytes = buf_new(COMMAND_MAX);
    enum err e = txn_add(&bytes, compares, success, failure);
    struct frame *below = f - 1;
    const struct txn_op op = {.kind = TXN_NESTED, .txn = buf_span(&bytes)};
    if (e == OK) e = txn_op_add(&below->operations[below->branch], &op);
    buf_wipe(&bytes);
    return e;
}

static RESULT convert(struct conversion *c, struct buf *out) {
    while (c->depth > 0) {
        struct frame *f = &c->frames[c->depth - 1];
        size_t n = f->branch == SUCCESS ? f->m->n_success : f->m->n_failure;
        Etcdserverpb__RequestOp **all = f->branch == SUCCESS ? f->m->success : f->m->failure;
        if (f->at < n) {
            TRY(add_operation(c, f, all[f->at++]));
        } else if (f->branch == SUCCESS) {
            f->branch = FAILURE;
            f->at = 0;
        } else {
            TRY(finish(c, out));
            pop(c);
        }
    }
    return OK;
}

RESULT txn_of(const Etcdserverpb__TxnRequest *m, struct buf *out, bool *serializable,
              struct why *why) {
    struct conversion c = {.serializable = true};
    enum err e = push(&c, m, NULL);
    if (e == OK) e = convert(&c, out);
    while (c.depth > 0)
        pop(&c);
    *serializable = c.reads && c.serializable;
    return e == OK ? txn_check(buf_span(out), why) : e;
}
