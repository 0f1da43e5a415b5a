/* Bytes of puts, deletes, ranges, compares and answers; the format is in codec.h. */
#include "store/codec.h"

#define FLAG_NOT_EXIST    1
#define FLAG_MOD_REVISION 2
#define FLAG_LEASE        4
#define FLAG_PREV_KV      8
#define FLAG_IGNORE_VALUE 16
#define FLAG_IGNORE_LEASE 32

#define FLAG_KEYS_ONLY  1
#define FLAG_COUNT_ONLY 2
#define FLAG_LIMIT      4
#define FLAG_REVISION   8
#define FLAG_BOUNDS     16

RESULT invalid_for_protocol(enum err e) { return e == ERR_PROTOCOL ? ERR_INVALID : e; }

static uint8_t flag(bool set, unsigned value) { return (uint8_t)(set ? value : 0); }

static RESULT flags_decode(struct cursor *in, unsigned known, uint8_t *flags) {
    TRY(cursor_u8(in, flags));
    return (*flags & ~known) == 0 ? OK : ERR_UNSUPPORTED;
}

/* A number that is there only when it is not zero. */
static RESULT some_encode(uint64_t v, struct buf *out) { return v != 0 ? buf_u64(out, v) : OK; }

static RESULT some_decode(struct cursor *in, bool there, uint64_t *v) {
    *v = 0;
    if (!there) return OK;
    TRY(cursor_u64(in, v));
    return *v != 0 ? OK : ERR_PROTOCOL;
}

static RESULT interval_encode(const struct interval *i, struct buf *out) {
    if (i->key.size > BOUND_MAX || i->end.size > BOUND_MAX) return ERR_INVALID;
    TRY(buf_block(out, i->key));
    return buf_block(out, i->end);
}

static RESULT interval_decode(struct cursor *in, struct interval *out) {
    TRY(cursor_block(in, BOUND_MAX, &out->key));
    return cursor_block(in, BOUND_MAX, &out->end);
}

/* --- put --- */

RESULT put_encode(const struct put *p, struct buf *out) {
    if (p->key.size > KEY_MAX || p->value.size > VALUE_MAX) return ERR_INVALID;
    unsigned flags =
        flag(p->must_not_exist, FLAG_NOT_EXIST) | flag(p->mod_revision != 0, FLAG_MOD_REVISION) |
        flag(p->lease != 0, FLAG_LEASE) | flag(p->prev_kv, FLAG_PREV_KV) |
        flag(p->ignore_value, FLAG_IGNORE_VALUE) | flag(p->ignore_lease, FLAG_IGNORE_LEASE);
    TRY(buf_u8(out, (uint8_t)flags));
    TRY(some_encode(p->mod_revision, out));
    TRY(some_encode(p->lease, out));
    TRY(buf_block(out, p->key));
    return buf_block(out, p->value);
}

RESULT put_decode(struct cursor *in, struct put *out) {
    uint8_t flags;
    TRY(flags_decode(in, 2 * FLAG_IGNORE_LEASE - 1, &flags));
    out->must_not_exist = (flags & FLAG_NOT_EXIST) != 0;
    out->prev_kv = (flags & FLAG_PREV_KV) != 0;
    out->ignore_value = (flags & FLAG_IGNORE_VALUE) != 0;
    out->ignore_lease = (flags & FLAG_IGNORE_LEASE) != 0;
    TRY(some_decode(in, (flags & FLAG_MOD_REVISION) != 0, &out->mod_revision));
    TRY(some_decode(in, (flags & FLAG_LEASE) != 0, &out->lease));
    TRY(cursor_block(in, KEY_MAX, &out->key));
    return cursor_block(in, VALUE_MAX, &out->value);
}

RESULT put_check(const struct put *p) {
    if (p->key.size < 1 || p->key.size > KEY_MAX || p->value.size > VALUE_MAX) return ERR_INVALID;
    if (p->must_not_exist && p->mod_revision != 0) return ERR_INVALID;
    if (p->ignore_value && p->value.size != 0) return ERR_VALUE_PROVIDED;
    return p->ignore_lease && p->lease != 0 ? ERR_LEASE_PROVIDED : OK;
}

/* --- delete --- */

RESULT del_encode(const struct del *d, struct buf *out) {
    unsigned flags = flag(d->mod_revision != 0, FLAG_MOD_REVISION) | flag(d->prev_kv, FLAG_PREV_KV);
    TRY(buf_u8(out, (uint8_t)flags));
    TRY(some_encode(d->mod_revision, out));
    return interval_encode(&d->in, out);
}

RESULT del_decode(struct cursor *in, struct del *out) {
    uint8_t flags;
    TRY(flags_decode(in, FLAG_MOD_REVISION | FLAG_PREV_KV, &flags));
    out->prev_kv = (flags & FLAG_PREV_KV) != 0;
    TRY(some_decode(in, (flags & FLAG_MOD_REVISION) != 0, &out->mod_revision));
    return interval_decode(in, &out->in);
}

RESULT del_check(const struct del *d) {
    if (d->in.key.size < 1 || d->in.key.size > BOUND_MAX || d->in.end.size > BOUND_MAX)
        return ERR_INVALID;
    return d->in.end.size != 0 && d->mod_revision != 0 ? ERR_INVALID : OK;
}

/* --- range --- */

static bool has_bounds(const struct range *r) {
    return (r->min_mod_revision | r->max_mod_revision | r->min_create_revision |
            r->max_create_revision) != 0;
}

static RESULT bounds_encode(const struct range *r, struct buf *out) {
    if (!has_bounds(r)) return OK;
    TRY(buf_u64(out, r->min_mod_revision));
    TRY(buf_u64(out, r->max_mod_revision));
    TRY(buf_u64(out, r->min_create_revision));
    return buf_u64(out, r->max_create_revision);
}

static RESULT bounds_decode(struct cursor *in, bool there, struct range *r) {
    r->min_mod_revision = r->max_mod_revision = 0;
    r->min_create_revision = r->max_create_revision = 0;
    if (!there) return OK;
    TRY(cursor_u64(in, &r->min_mod_revision));
    TRY(cursor_u64(in, &r->max_mod_revision));
    TRY(cursor_u64(in, &r->min_create_revision));
    TRY(cursor_u64(in, &r->max_create_revision));
    return has_bounds(r) ? OK : ERR_PROTOCOL;
}

RESULT range_encode(const struct range *r, struct buf *out) {
    unsigned flags = flag(r->keys_only, FLAG_KEYS_ONLY) | flag(r->count_only, FLAG_COUNT_ONLY) |
                     flag(r->limit != 0, FLAG_LIMIT) | flag(r->revision != 0, FLAG_REVISION) |
                     flag(has_bounds(r), FLAG_BOUNDS);
    TRY(range_check(r));
    TRY(buf_u8(out, (uint8_t)flags));
    TRY(buf_u8(out, (uint8_t)r->order));
    TRY(buf_u8(out, (uint8_t)r->target));
    TRY(some_encode(r->limit, out));
    TRY(some_encode(r->revision, out));
    TRY(bounds_encode(r, out));
    return interval_encode(&r->in, out);
}

RESULT range_decode(struct cursor *in, struct range *out) {
    uint8_t flags, order, target;
    TRY(flags_decode(in, 2 * FLAG_BOUNDS - 1, &flags));
    TRY(cursor_u8(in, &order));
    TRY(cursor_u8(in, &target));
    out->order = (enum sort_order)order;
    out->target = (enum sort_target)target;
    out->keys_only = (flags & FLAG_KEYS_ONLY) != 0;
    out->count_only = (flags & FLAG_COUNT_ONLY) != 0;
    TRY(some_decode(in, (flags & FLAG_LIMIT) != 0, &out->limit));
    TRY(some_decode(in, (flags & FLAG_REVISION) != 0, &out->revision));
    TRY(bounds_decode(in, (flags & FLAG_BOUNDS) != 0, out));
    return interval_decode(in, &out->in);
}

RESULT range_check(const struct range *r) {
    if ((unsigned)r->order > SORT_DESCEND || (unsigned)r->target > SORT_VALUE)
        return ERR_SORT_OPTION;
    return r->in.key.size <= BOUND_MAX && r->in.end.size <= BOUND_MAX ? OK : ERR_INVALID;
}

/* --- compare --- */

RESULT compare_encode(const struct compare *c, struct buf *out) {
    if ((unsigned)c->target > COMPARE_LEASE || (unsigned)c->result > COMPARE_NOT_EQUAL)
        return ERR_INVALID;
    TRY(buf_u8(out, (uint8_t)c->target));
    TRY(buf_u8(out, (uint8_t)c->result));
    TRY(interval_encode(&c->in, out));
    if (c->target != COMPARE_VALUE) return buf_u64(out, (uint64_t)c->number);
    return c->value.size <= VALUE_MAX ? buf_block(out, c->value) : ERR_INVALID;
}

RESULT compare_decode(struct cursor *in, struct compare *out) {
    uint8_t target, result;
    uint64_t number = 0;
    TRY(cursor_u8(in, &target));
    TRY(cursor_u8(in, &result));
    if (target > COMPARE_LEASE || result > COMPARE_NOT_EQUAL) return ERR_UNSUPPORTED;
    out->target = (enum compare_target)target;
    out->result = (enum compare_result)result;
    out->value = span_of(NULL, 0);
    TRY(interval_decode(in, &out->in));
    if (out->target == COMPARE_VALUE)
        TRY(cursor_block(in, VALUE_MAX, &out->value));
    else
        TRY(cursor_u64(in, &number));
    out->number = (int64_t)number;
    return OK;
}

/* --- answers --- */

struct answering answering_in(struct buf *out) {
    return (struct answering){.out = out, .start = out != NULL ? out->size : 0};
}

static RESULT head_encode(const struct answer *a, struct buf *out) {
    uint64_t number = 0;
    switch (a->kind) {
    case ANSWER_RANGE: number = a->range.count; break;
    case ANSWER_PUT: break;
    case ANSWER_DELETE: number = a->deleted; break;
    case ANSWER_TXN: number = a->succeeded; break;
    }
    TRY(buf_reserve(out, ANSWER_SIZE));
    TRY(buf_u8(out, (uint8_t)a->kind));
    TRY(buf_u8(out, a->kind == ANSWER_RANGE && a->range.more));
    TRY(buf_u64(out, a->revision));
    TRY(buf_u64(out, number));
    TRY(buf_u64(out, a->n_kvs));
    return buf_u64(out, a->n_answers);
}

static RESULT kv_encode(const struct kv *kv, struct buf *out) {
    TRY(buf_reserve(out, kv->key.size + kv->value.size + 40));
    TRY(buf_block(out, kv->key));
    TRY(buf_block(out, kv->value));
    TRY(buf_u64(out, kv->create_revision));
    TRY(buf_u64(out, kv->mod_revision));
    TRY(buf_u64(out, kv->version));
    return buf_u64(out, kv->lease);
}

static RESULT settle(struct answering *a, enum err e) {
    if (e != ERR_TOO_LARGE) return e;
    a->out->size = a->start;
    a->out = NULL;
    a->failed = e;
    return OK;
}

RESULT answer_begin(struct answering *a, const struct answer *head) {
    if (a->out == NULL) return OK;
    a->head = a->out->size;
    a->n_kvs = 0;
    return settle(a, head_encode(head, a->out));
}

RESULT answer_add(struct answering *a, const struct kv *kv) {
    if (a->out == NULL) return OK;
    a->n_kvs++;
    return settle(a, kv_encode(kv, a->out));
}

void answer_close(struct answering *a, uint64_t number, bool more) {
    if (a->out == NULL) return;
    a->out->at[a->head + 1] = more;
    put_u64(a->out->at + a->head + 10, number);
    put_u64(a->out->at + a->head + 18, a->n_kvs);
}

static RESULT head_decode(struct cursor *in, struct answer *out) {
    uint8_t kind, more;
    uint64_t number;
    TRY(cursor_u8(in, &kind));
    TRY(cursor_u8(in, &more));
    TRY(cursor_u64(in, &out->revision));
    TRY(cursor_u64(in, &number));
    TRY(cursor_u64(in, &out->n_kvs));
    TRY(cursor_u64(in, &out->n_answers));
    if (kind < ANSWER_RANGE || kind > ANSWER_TXN || more > 1) return ERR_PROTOCOL;
    out->kind = (enum answer_kind)kind;
    if (out->kind == ANSWER_RANGE) out->range = (struct range_end){.count = number, .more = more};
    if (out->kind == ANSWER_DELETE) out->deleted = number;
    if (out->kind == ANSWER_TXN) out->succeeded = number != 0;
    return OK;
}

RESULT answer_next(struct cursor *in, struct answer *out) {
    *out = (struct answer){.kind = ANSWER_PUT};
    return head_decode(in, out);
}

RESULT answer_kv(struct cursor *in, struct kv *out) {
    TRY(cursor_block(in, KEY_MAX, &out->key));
    TRY(cursor_block(in, VALUE_MAX, &out->value));
    TRY(cursor_u64(in, &out->create_revision));
    TRY(cursor_u64(in, &out->mod_revision));
    TRY(cursor_u64(in, &out->version));
    return cursor_u64(in, &out->lease);
}
