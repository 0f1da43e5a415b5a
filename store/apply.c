/* Commands become state. Deterministic: what a command does follows from its bytes and the state
 * alone.
 *
 * Bytes that are no command, or one of a later version, change nothing and give ERR_INVALID or
 * ERR_UNSUPPORTED as their result, the same on every member: a fault of one proposer must not stop
 * a cluster. The only error of apply itself is ERR_NOMEM; the state is then whole, but perhaps
 * holds half of a batch or range, so the node stops and comes back from its snapshot and log. */
#include "store/import.h"
#include "store/state.h"

#include <assert.h>
#include <stdlib.h>

#define TIDY_ITEMS 1024 /* freed in passing, for each entry */

/* One command under way. */
struct doing {
    struct store *store;
    const struct command *c;
    struct writing writing;
    struct answering answering;
    struct result *result;
};

/* --- keys --- */

static void remember_previous(struct result *r, const struct item *old) {
    struct kv kv;
    r->previous.existed = old != NULL;
    if (old == NULL) return;
    item_read(old, &kv);
    r->previous.mod_revision = kv.mod_revision;
    r->previous.version = kv.version;
}

static enum err condition(const struct item *now, bool must_not_exist, uint64_t mod_revision) {
    if (must_not_exist && now != NULL) return ERR_EXISTS;
    if (mod_revision == 0) return OK;
    return now != NULL && item_born(now) == mod_revision ? OK : ERR_PRECONDITION;
}

/* What keeps a put from happening. Source of the order: etcd. */
static enum err put_refused(const struct state *s, const struct put *p, const struct item *now) {
    struct lease lease;
    if (p->lease != 0 && !lease_find(&s->leases, p->lease, &lease)) return ERR_LEASE_NOT_FOUND;
    if ((p->ignore_value || p->ignore_lease) && now == NULL) return ERR_KEY_NOT_FOUND;
    return condition(now, p->must_not_exist, p->mod_revision);
}

static RESULT apply_put(struct doing *d) {
    struct state *s = &d->store->state;
    const struct put *p = &d->c->put;
    struct tree_path path;
    struct item *old = tree_find(s->keys, p->key, &path), *now = item_live(old);
    struct result *r = d->result;
    remember_previous(r, now);
    r->error = put_refused(s, p, now);
    if (r->error == OK) r->error = mvcc_room(s, 1);
    if (r->error != OK) return OK;
    if (p->prev_kv || p->ignore_value || p->ignore_lease)
        return op_put(&d->writing, p, &d->answering);
    struct kv kv = {.key = p->key, .value = p->value, .lease = p->lease};
    return mvcc_put(&d->writing, &path, old, &kv);
}

static const struct item *newest(const struct state *s, struct span key) {
    return item_live(tree_lookup(tree_root(s->keys), key));
}

static RESULT apply_delete(struct doing *d) {
    const struct state *s = &d->store->state;
    const struct del *del = &d->c->del;
    struct result *r = d->result;
    if (interval_one(&del->in)) {
        const struct item *now = newest(s, del->in.key);
        remember_previous(r, now);
        r->error = condition(now, false, del->mod_revision);
        if (r->error != OK) return OK;
    }
    if (del->prev_kv) return op_delete(&d->writing, del, &d->answering, &r->deleted);
    return mvcc_delete(&d->writing, &del->in, &r->deleted);
}

static RESULT apply_txn(struct doing *d) {
    return txn_apply(&d->writing, d->c->txn, &d->answering, &d->result->error);
}

/* --- batches --- */

/* The next item of a batch that command_decode has checked. */
static void next_item(struct cursor *items, struct command *out) {
    enum err e = command_batch_next(items, out);
    assert(e == OK);
}

static enum err batch_refused(const struct state *s, const struct command *c) {
    struct cursor items = cursor_of(c->batch.items);
    for (uint32_t i = 0; i < c->batch.n; i++) {
        struct command item;
        next_item(&items, &item);
        enum err e;
        if (item.op == OP_PUT)
            e = put_refused(s, &item.put, newest(s, item.put.key));
        else if (item.del.mod_revision != 0)
            e = condition(newest(s, item.del.in.key), false, item.del.mod_revision);
        else
            e = OK;
        if (e != OK) return e;
    }
    return mvcc_room(s, c->batch.n);
}

static RESULT apply_batch(struct doing *d) {
    const struct command *c = d->c;
    struct answering none = answering_in(NULL);
    d->result->error = batch_refused(&d->store->state, c);
    if (d->result->error != OK) return OK;
    struct cursor items = cursor_of(c->batch.items);
    for (uint32_t i = 0; i < c->batch.n; i++) {
        struct command item;
        next_item(&items, &item);
        if (item.op == OP_DELETE)
            TRY(mvcc_delete(&d->writing, &item.del.in, &d->result->deleted));
        else
            TRY(op_put(&d->writing, &item.put, &none));
    }
    return OK;
}

/* --- leases --- */

/* What only ERR_NOMEM may stop; any other error is the command's. */
static RESULT outcome(enum err e, struct result *r) {
    if (e == ERR_NOMEM) return e;
    r->error = e;
    return OK;
}

static RESULT apply_revoke(struct doing *d) {
    struct state *s = &d->store->state;
    uint64_t id = d->c->lease.id;
    struct lease lease;
    struct span key;
    if (!lease_find(&s->leases, id, &lease)) return outcome(ERR_LEASE_NOT_FOUND, d->result);
    while (lease_first_key(&s->leases, id, &key)) {
        /* The tombstone takes the key off the lease, and `key` with it. */
        const struct item *now = newest(s, key);
        assert(now != NULL);
        struct interval in = {.key = item_key(now)};
        TRY(mvcc_delete(&d->writing, &in, &d->result->deleted));
    }
    return lease_remove(&s->leases, id);
}

/* --- alarms, users --- */

static enum err apply_alarm(struct state *s, const struct command *c) {
    struct raised r = {.raft_id = c->alarm.raft_id, .alarm = (uint8_t)c->alarm.alarm};
    if (c->alarm.raise) return alarms_raise(&s->alarms, r);
    alarms_clear(&s->alarms, r);
    return OK;
}

static RESULT apply_auth(struct state *s, const struct command *c, struct result *r) {
    struct auth *next;
    struct auth_version *version = NULL;
    TRY(auth_copy(s->auth->auth, &next));
    enum err e = auth_apply(next, &c->auth, &r->error);
    if (e == OK && r->error == OK) e = outcome(auth_version_new(next, &version), r);
    if (version == NULL) {
        auth_free(next);
        return e;
    }
    auth_version_drop(s->auth);
    s->auth = version;
    return OK;
}

/* --- import --- */

/* What was before is not known: as if compacted there. */
static enum err begin_import(struct state *s, uint64_t revision) {
    if (s->revision == revision && s->compacted == revision) return OK; /* begun before */
    if (s->revision != 1 || tree_count(s->keys) > 0) return ERR_PRECONDITION;
    s->revision = s->compacted = revision;
    return OK;
}

static RESULT apply_import(struct doing *d) {
    struct state *s = &d->store->state;
    struct cursor rows = cursor_of(d->c->import.rows);
    if (d->c->import.begin != 0) d->result->error = begin_import(s, d->c->import.begin);
    while (rows.left > 0 && d->result->error == OK) {
        struct kv kv;
        enum err e = import_next(&rows, &kv);
        assert(e == OK); /* command_decode has checked it */
        if (kv.mod_revision > s->compacted) return outcome(ERR_PRECONDITION, d->result);
        TRY(mvcc_import(s, &kv));
    }
    return OK;
}

/* --- the cluster --- */

static RESULT change_cluster(struct state *s, const struct command *c, struct result *r) {
    struct cluster *next;
    struct cluster_version *version = NULL;
    TRY(cluster_copy(s->cluster->cluster, &next));
    enum err e = cluster_apply(next, c, &r->error);
    if (e == OK && r->error == OK) e = cluster_version_new(next, &version);
    if (version == NULL) {
        cluster_free(next);
        return e;
    }
    cluster_version_drop(s->cluster);
    s->cluster = version;
    return OK;
}

/* The cluster that a restored state was of gives way to another, which inherits some of its rows.
 */
static RESULT replace_cluster(struct store *s, const struct command *c, struct result *r) {
    struct rows *rows = &s->state.rows, was = *rows;
    struct tree_view *before;
    TRY(tree_view_new(rows->tree, rows->version, &before));
    enum err e = rows_inherit(rows, s->state.cluster->cluster->id, c->cluster.id);
    if (e == OK) e = change_cluster(&s->state, c, r);
    if (e != OK || r->error != OK) {
        tree_rollback(before);
        *rows = was;
        return e;
    }
    tree_view_free(before);
    if (s->row_changed != NULL) s->row_changed(s->row_changed_ctx, NULL, NULL);
    return OK;
}

static RESULT apply_cluster(struct store *s, const struct command *c, struct result *r) {
    bool replaces = c->op == OP_CLUSTER && c->cluster.replace;
    return replaces ? replace_cluster(s, c, r) : change_cluster(&s->state, c, r);
}

/* --- all --- */

static bool batch_puts(const struct command *c) {
    struct cursor items = cursor_of(c->batch.items);
    for (uint32_t i = 0; i < c->batch.n; i++) {
        struct command item;
        next_item(&items, &item);
        if (item.op == OP_PUT) return true;
    }
    return false;
}

/* Alarms: without space nothing may grow, in a state that differs nothing may change. */
static enum err alarmed(const struct state *s, const struct command *c) {
    if (s->alarms.n == 0 || c->op > OP_LEASE_REVOKE) return OK;
    if (alarms_any(&s->alarms, ALARM_CORRUPT, 0)) return ERR_CORRUPT_CLUSTER;
    bool grows = c->op == OP_PUT || c->op == OP_LEASE_GRANT ||
                 (c->op == OP_BATCH && batch_puts(c)) || (c->op == OP_TXN && txn_puts(c->txn));
    return grows && alarms_any(&s->alarms, ALARM_NOSPACE, 0) ? ERR_QUOTA : OK;
}

static RESULT apply_operation(struct doing *d) {
    struct state *s = &d->store->state;
    const struct command *c = d->c;
    struct result *r = d->result;
    switch (c->op) {
    case OP_PUT: return apply_put(d);
    case OP_DELETE: return apply_delete(d);
    case OP_BATCH: return apply_batch(d);
    case OP_TXN: return apply_txn(d);
    case OP_COMPACT: return outcome(compact_begin(s, c->compact_revision), r);
    case OP_LEASE_GRANT: return outcome(lease_grant(&s->leases, &c->lease), r);
    case OP_LEASE_REVOKE: return apply_revoke(d);
    case OP_ALARM: return outcome(apply_alarm(s, c), r);
    case OP_AUTH: return apply_auth(s, c, r);
    case OP_IMPORT: return apply_import(d);
    case OP_CLUSTER:
    case OP_NODE_ADD:
    case OP_NODE_REMOVE:
    case OP_NODE_UPDATE:
    case OP_CA:
    case OP_LOCK: break;
    case OP_ROWS: return outcome(rows_apply(d->store, c), r);
    }
    return apply_cluster(d->store, c, r);
}

static RESULT apply_once(struct doing *d) {
    struct state *s = &d->store->state;
    const struct command *c = d->c;
    struct result *r = d->result;
    if (c->has_token && tokens_find(&s->tokens, c->token, r)) {
        r->repeated = true;
        return OK;
    }
    r->error = permit(s, c); /* not remembered: its caller may ask again and be permitted */
    if (r->error != OK) return OK;
    if (c->has_token) TRY(tokens_reserve(&s->tokens));
    r->error = alarmed(s, c);
    if (r->error == OK) TRY(apply_operation(d));
    r->revision = s->revision;
    if (c->has_token) tokens_add(&s->tokens, c->token, r);
    return OK;
}

/* The answer is written behind the place of the result, which is known only then. */
static RESULT apply(struct store *s, struct span bytes, struct buf *out) {
    struct command c;
    struct result r = {.revision = s->state.revision};
    size_t at = 0;
    if (out != NULL) {
        TRY(buf_reserve(out, RESULT_SIZE));
        at = out->size;
        out->size += RESULT_SIZE;
    }
    struct doing d = {.store = s,
                      .c = &c,
                      .writing = writing_on(s),
                      .answering = answering_in(out),
                      .result = &r};
    r.error = command_decode(bytes, &c);
    if (r.error == ERR_NOMEM) return r.error;
    if (r.error == OK) TRY(apply_once(&d));
    if (r.error == OK) r.error = d.answering.failed;
    if (out != NULL) result_pack(&r, out->at + at);
    return OK;
}

enum err store_apply(struct machine *m, uint64_t index, struct span command, struct buf *result,
                     struct why *why) {
    enum err e = apply(store_of(m), command, result);
    if (e == OK) return OK;
    return fail_with(why, e, "%s while entry %llu was applied", err_text(e),
                     (unsigned long long)index);
}

/* --- in the background --- */

static bool work(struct store *s, size_t budget) {
    bool more = !tree_tidy(s->state.leases.all, budget) || !tree_tidy(s->state.keys, budget) ||
                !tree_tidy(s->state.rows.tree, budget) || compact_step(&s->state, budget);
    struct retired **at = &s->retired;
    while (*at != NULL && tree_has_views((*at)->tree))
        at = &(*at)->next;
    struct retired *r = *at;
    if (r == NULL) return more;
    if (!tree_dismantle(r->tree, budget)) return true;
    *at = r->next;
    tree_free(r->tree);
    free(r);
    return true;
}

bool store_work(struct store *s) { return work(s, COMPACT_STEP); }

void store_applied(struct machine *m, uint64_t index) {
    (void)index;
    (void)work(store_of(m), TIDY_ITEMS);
}
