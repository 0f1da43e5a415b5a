/* May the user of a command do what it asks for? Judged by the permissions as they are when the
 * command is applied; one that its caller was judged by earlier is refused (ERR_AUTH_REVISION) and
 * tried again by the API. Source: etcd v3 API, apply_auth.go; beyond it, the puts of a transaction
 * are held to the rules of a put by itself, and nested transactions are looked into. */
#include "store/state.h"

struct judge {
    const struct state *s;
    const struct auth *auth;
    struct span user;
    enum err e; /* the first refusal */
};

static RESULT may(const struct judge *j, enum permission p, const struct interval *in) {
    return auth_may(j->auth, j->user, p, in);
}

static RESULT may_key(const struct judge *j, enum permission p, struct span key) {
    struct interval in = {.key = key};
    return may(j, p, &in);
}

static bool writes_key(void *ctx, struct span key) {
    struct judge *j = ctx;
    j->e = may_key(j, PERMISSION_WRITE, key);
    return j->e == OK;
}

/* Who moves a lease's life moves all keys that hang on it. */
static RESULT may_lease(struct judge *j, uint64_t id) {
    if (id == 0) return OK;
    j->e = OK;
    lease_keys(&j->s->leases, id, writes_key, j);
    return j->e;
}

static RESULT may_put(struct judge *j, const struct put *p) {
    TRY(may_key(j, PERMISSION_WRITE, p->key));
    TRY(may_lease(j, p->lease));
    return p->prev_kv ? may_key(j, PERMISSION_READ, p->key) : OK;
}

static RESULT may_delete(const struct judge *j, const struct del *d) {
    TRY(may(j, PERMISSION_WRITE, &d->in));
    return d->prev_kv ? may(j, PERMISSION_READ, &d->in) : OK;
}

static RESULT may_batch(struct judge *j, const struct command *c) {
    struct cursor items = cursor_of(c->batch.items);
    struct command item;
    for (uint32_t i = 0; i < c->batch.n; i++) {
        TRY(command_batch_next(&items, &item));
        if (item.op == OP_PUT)
            TRY(may_put(j, &item.put));
        else
            TRY(may_delete(j, &item.del));
    }
    return OK;
}

/* --- transactions --- */

/* Lists of operations still to be judged: of each transaction around, two. */
struct lists {
    struct cursor at[2 * TXN_DEPTH_MAX];
    unsigned n;
};

static RESULT open_txn(const struct judge *j, struct span txn, struct lists *l) {
    struct txn_view v;
    TRY(txn_open(txn, &v));
    struct cursor compares = cursor_of(v.compares);
    while (compares.left > 0) {
        struct compare c;
        TRY(txn_compare_next(&compares, &c));
        TRY(may(j, PERMISSION_READ, &c.in));
    }
    if (l->n + 2 > ARRAY_SIZE(l->at)) return ERR_TOO_MANY_OPS;
    l->at[l->n++] = cursor_of(v.failure);
    l->at[l->n++] = cursor_of(v.success);
    return OK;
}

static RESULT may_op(struct judge *j, const struct txn_op *op, struct lists *l) {
    switch (op->kind) {
    case TXN_RANGE: return may(j, PERMISSION_READ, &op->range.in);
    case TXN_PUT: return may_put(j, &op->put);
    case TXN_DELETE: return may_delete(j, &op->del);
    case TXN_NESTED: return open_txn(j, op->txn, l);
    }
    return ERR_INVALID;
}

static RESULT may_txn(struct judge *j, struct span txn) {
    struct lists l = {.n = 0};
    TRY(open_txn(j, txn, &l));
    while (l.n > 0) {
        struct cursor *ops = &l.at[l.n - 1];
        if (ops->left == 0) {
            l.n--;
            continue;
        }
        struct txn_op op;
        TRY(txn_op_next(ops, &op));
        TRY(may_op(j, &op, &l));
    }
    return OK;
}

RESULT txn_may(const struct auth *a, struct span user, struct span txn) {
    struct judge j = {.auth = a, .user = user};
    return auth_enabled(a) ? may_txn(&j, txn) : OK;
}

RESULT permit(const struct state *s, const struct command *c) {
    const struct auth *auth = s->auth->auth;
    if (!c->has_user || !auth_enabled(auth)) return OK;
    if (c->user.size == 0) return ERR_USER_EMPTY;
    if (c->auth_revision != auth_revision(auth)) return ERR_AUTH_REVISION;
    struct judge j = {.s = s, .auth = auth, .user = c->user};
    switch (c->op) {
    case OP_PUT: return may_put(&j, &c->put);
    case OP_DELETE: return may_delete(&j, &c->del);
    case OP_BATCH: return may_batch(&j, c);
    case OP_TXN: return may_txn(&j, c->txn);
    case OP_LEASE_REVOKE: return may_lease(&j, c->lease.id);
    case OP_COMPACT:
    case OP_ALARM:
    case OP_AUTH: return auth_root(auth, c->user);
    case OP_LEASE_GRANT: return OK; /* for every user, as etcd's */
    case OP_IMPORT:
    case OP_CLUSTER:
    case OP_NODE_ADD:
    case OP_NODE_REMOVE:
    case OP_NODE_UPDATE:
    case OP_CA:
    case OP_LOCK:
    case OP_ROWS: break;
    }
    return ERR_AUTH_DENIED;
}
