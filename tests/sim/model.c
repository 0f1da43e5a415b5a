/* Keys are few, so lists do; the history of a key only grows within one run. Invariant: versions of
 * a key ascend by index; within one index the later one counts. */
#include "tests/sim/model.h"

#include <sodium.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

struct version {
    uint64_t index;       /* of the entry */
    struct model_key key; /* as of then */
};

struct history {
    uint8_t name[32];         /* the key */
    size_t name_size;         /* its length */
    struct version *versions; /* ascending */
    size_t n, room;           /* in use, allocated */
};

struct known {
    bool there;           /* a command with this operation's token was applied */
    struct result result; /* its answer */
};

struct model {
    struct history *keys;      /* in order of appearance */
    size_t n, room;            /* in use, allocated */
    struct known *tokens;      /* by operation number */
    size_t tokens_room;        /* allocated */
    uint64_t revision;         /* of the store */
    uint64_t compacted;        /* the last compaction's */
    bool leases[MODEL_LEASES]; /* which there are */
    bool succeeded;            /* the last transaction took its first branch */
};

struct model *model_new(void) {
    struct model *m = sim_alloc(sizeof *m);
    m->revision = 1;
    return m;
}

void model_free(struct model *m) {
    for (size_t i = 0; i < m->n; i++)
        free(m->keys[i].versions);
    free(m->keys);
    free(m->tokens);
    free(m);
}

uint64_t model_digest(struct span bytes) {
    static const uint8_t key[crypto_shorthash_KEYBYTES] = "conclave digest";
    uint64_t out = 0;
    (void)crypto_shorthash((uint8_t *)&out, bytes.at, bytes.size, key);
    return out;
}

static void *grown(void *at, size_t *room, size_t need, size_t size) {
    if (need <= *room) return at;
    size_t more = *room == 0 ? 16 : *room * 2;
    if (more < need) more = need;
    at = realloc(at, more * size);
    if (at == NULL) abort();
    memset((char *)at + *room * size, 0, (more - *room) * size);
    *room = more;
    return at;
}

static struct history *find(const struct model *m, struct span key) {
    for (size_t i = 0; i < m->n; i++)
        if (span_equal(span_of(m->keys[i].name, m->keys[i].name_size), key)) return &m->keys[i];
    return NULL;
}

static struct history *find_or_make(struct model *m, struct span key) {
    struct history *h = find(m, key);
    if (h != NULL) return h;
    m->keys = grown(m->keys, &m->room, m->n + 1, sizeof *m->keys);
    h = &m->keys[m->n++];
    h->name_size = key.size < sizeof h->name ? key.size : sizeof h->name;
    memcpy(h->name, key.at, h->name_size);
    return h;
}

static struct model_key newest(const struct history *h) {
    struct model_key never = {0};
    return h == NULL || h->n == 0 ? never : h->versions[h->n - 1].key;
}

static void push(struct history *h, uint64_t index, struct model_key key) {
    h->versions = grown(h->versions, &h->room, h->n + 1, sizeof *h->versions);
    h->versions[h->n++] = (struct version){.index = index, .key = key};
}

struct model_key model_get(const struct model *m, struct span key, uint64_t index) {
    const struct history *h = find(m, key);
    size_t i = h == NULL ? 0 : h->n;
    while (i != 0 && h->versions[i - 1].index > index)
        i--;
    struct model_key never = {0};
    return i == 0 ? never : h->versions[i - 1].key;
}

uint64_t model_revision(const struct model *m) { return m->revision; }

bool model_succeeded(const struct model *m) { return m->succeeded; }

uint64_t model_keys(const struct model *m) {
    uint64_t n = 0;
    for (size_t i = 0; i < m->n; i++)
        n += newest(&m->keys[i]).there;
    return n;
}

/* ---- commands ---- */

static bool next_item(struct cursor *items, struct command *c);

uint64_t model_op(const struct command *c) {
    struct command first;
    struct cursor items;
    switch (c->op) {
    case OP_PUT: return c->put.value.size < OP_BYTES ? 0 : get_u64(c->put.value.at);
    case OP_DELETE:
        if (c->has_token) return get_u64(c->token);
        if (c->del.in.end.size < c->del.in.key.size + 1 + OP_BYTES) return 0;
        return get_u64(c->del.in.end.at + c->del.in.key.size + 1);
    case OP_BATCH:
        items = cursor_of(c->batch.items);
        return next_item(&items, &first) ? model_op(&first) : 0;
    case OP_TXN:
    case OP_COMPACT:
    case OP_LEASE_GRANT:
    case OP_LEASE_REVOKE: return get_u64(c->token);
    case OP_ALARM:
    case OP_AUTH:
    case OP_IMPORT:
    case OP_CLUSTER:
    case OP_NODE_ADD:
    case OP_NODE_REMOVE:
    case OP_NODE_UPDATE:
    case OP_CA:
    case OP_LOCK:
    case OP_ROWS: break;
    }
    return 0;
}

static void put(struct model *m, uint64_t index, uint64_t revision, const struct put *p) {
    struct history *h = find_or_make(m, p->key);
    struct model_key k = newest(h);
    if (!k.there) k = (struct model_key){.there = true, .create_revision = revision};
    k.value = model_digest(p->value);
    k.lease = p->lease;
    k.mod_revision = revision;
    k.version++;
    push(h, index, k);
}

static void apply_put(struct model *m, uint64_t index, const struct command *c, struct result *r) {
    struct model_key k = newest(find(m, c->put.key));
    r->previous.existed = k.there;
    r->previous.mod_revision = k.there ? k.mod_revision : 0;
    r->previous.version = k.there ? k.version : 0;
    if (c->put.must_not_exist && k.there)
        r->error = ERR_EXISTS;
    else if (c->put.mod_revision != 0 && (!k.there || k.mod_revision != c->put.mod_revision))
        r->error = ERR_PRECONDITION;
    else
        put(m, index, ++m->revision, &c->put);
}

static bool deletes(const struct del *d, const struct history *h) {
    struct span name = span_of(h->name, h->name_size);
    if (d->in.end.size == 0) return span_equal(name, d->in.key);
    return span_compare(name, d->in.key) >= 0 && span_compare(name, d->in.end) < 0;
}

static uint64_t del(struct model *m, uint64_t index, const struct del *d) {
    uint64_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        if (!newest(&m->keys[i]).there || !deletes(d, &m->keys[i])) continue;
        push(&m->keys[i], index, (struct model_key){0});
        n++;
    }
    return n;
}

static void apply_delete(struct model *m, uint64_t index, const struct command *c,
                         struct result *r) {
    struct model_key k = newest(find(m, c->del.in.key));
    if (c->del.in.end.size == 0 && k.there) {
        r->previous.existed = true;
        r->previous.mod_revision = k.mod_revision;
        r->previous.version = k.version;
    }
    r->deleted = del(m, index, &c->del);
    if (r->deleted != 0) m->revision++;
}

static void apply_batch(struct model *m, uint64_t index, const struct command *c,
                        struct result *r) {
    struct cursor items = cursor_of(c->batch.items);
    struct command item;
    bool changed = false;
    while (next_item(&items, &item)) {
        if (item.op == OP_PUT) put(m, index, m->revision + 1, &item.put);
        uint64_t n = item.op == OP_DELETE ? del(m, index, &item.del) : 0;
        r->deleted += n;
        changed = changed || item.op == OP_PUT || n != 0;
    }
    if (changed) m->revision++;
}

/* Transactions of the workload compare single keys by their revision, and are nested nowhere. */
static bool compares_hold(const struct model *m, struct span compares) {
    struct cursor in = cursor_of(compares);
    struct compare c;
    bool hold = true;
    while (in.left > 0 && txn_compare_next(&in, &c) == OK)
        hold = hold && (int64_t)newest(find(m, c.in.key)).mod_revision == c.number;
    return hold;
}

static void apply_txn(struct model *m, uint64_t index, const struct command *c, struct result *r) {
    struct txn_view v;
    struct txn_op op;
    uint64_t changes = 0;
    if (txn_open(c->txn, &v) != OK) abort();
    m->succeeded = compares_hold(m, v.compares);
    struct span list = m->succeeded ? v.success : v.failure;
    struct cursor in = cursor_of(list);
    while (in.left > 0 && txn_op_next(&in, &op) == OK)
        if (op.kind == TXN_PUT && op.put.lease != 0 && !m->leases[op.put.lease % MODEL_LEASES])
            r->error = ERR_LEASE_NOT_FOUND;
    if (r->error != OK) return;
    in = cursor_of(list);
    while (in.left > 0 && txn_op_next(&in, &op) == OK) {
        if (op.kind == TXN_PUT) put(m, index, m->revision + 1, &op.put);
        changes += op.kind == TXN_PUT;
        if (op.kind == TXN_DELETE) changes += del(m, index, &op.del);
    }
    if (changes != 0) m->revision++;
}

static void apply_lease(struct model *m, uint64_t index, const struct command *c,
                        struct result *r) {
    bool *there = &m->leases[c->lease.id % MODEL_LEASES], grant = c->op == OP_LEASE_GRANT;
    if (*there == grant) {
        r->error = grant ? ERR_LEASE_EXISTS : ERR_LEASE_NOT_FOUND;
        return;
    }
    *there = grant;
    for (size_t i = 0; !grant && i < m->n; i++) {
        struct model_key k = newest(&m->keys[i]);
        if (!k.there || k.lease != c->lease.id) continue;
        push(&m->keys[i], index, (struct model_key){0});
        r->deleted++;
    }
    if (r->deleted != 0) m->revision++;
}

static void apply_compact(struct model *m, const struct command *c, struct result *r) {
    if (c->compact_revision <= m->compacted)
        r->error = ERR_COMPACTED;
    else if (c->compact_revision > m->revision)
        r->error = ERR_FUTURE_REVISION;
    else
        m->compacted = c->compact_revision;
}

static struct known *token_of(struct model *m, const struct command *c, uint64_t op) {
    if (!c->has_token || op == 0 || op > 10000000) return NULL;
    m->tokens = grown(m->tokens, &m->tokens_room, op + 1, sizeof *m->tokens);
    return &m->tokens[op];
}

void model_apply(struct model *m, uint64_t index, const struct command *c, struct result *expected,
                 uint64_t *op, bool *effective) {
    *expected = (struct result){.error = OK};
    *op = model_op(c);
    struct known *k = token_of(m, c, *op);
    *effective = k == NULL || !k->there;
    if (!*effective) {
        *expected = k->result;
        expected->repeated = true;
        return;
    }
    if (c->op == OP_PUT) apply_put(m, index, c, expected);
    if (c->op == OP_DELETE) apply_delete(m, index, c, expected);
    if (c->op == OP_BATCH) apply_batch(m, index, c, expected);
    if (c->op == OP_COMPACT) apply_compact(m, c, expected);
    if (c->op == OP_TXN) apply_txn(m, index, c, expected);
    if (c->op == OP_LEASE_GRANT || c->op == OP_LEASE_REVOKE) apply_lease(m, index, c, expected);
    expected->revision = m->revision;
    if (k != NULL) *k = (struct known){.there = true, .result = *expected};
}

/* A batch's items are the encoded bodies of puts and deletes; see the top of command.c. */
static bool next_item(struct cursor *items, struct command *c) {
    return command_batch_next(items, c) == OK;
}
