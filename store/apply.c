/* Commands become state. Deterministic: what a command does follows from its bytes and the state
 * alone.
 *
 * Bytes that are no command, or one of a later version, change nothing and give ERR_INVALID or
 * ERR_UNSUPPORTED as their result, the same on every member: a fault of one proposer must not stop
 * a cluster. The only error of apply itself is ERR_NOMEM; the state is then whole, but perhaps
 * holds half of a batch or range, so the node stops and comes back from its snapshot and log. */
#include "store/state.h"

#include <assert.h>
#include <stdlib.h>

#define TIDY_ITEMS 1024 /* freed in passing, for each entry */

/* --- keys --- */

static void remember_previous(struct result *r, const struct item *old) {
    r->previous.existed = old != NULL;
    if (old == NULL) return;
    r->previous.mod_revision = le64toh(old->mod_revision);
    r->previous.version = le64toh(old->version);
}

static enum err condition(const struct item *now, bool must_not_exist, uint64_t mod_revision) {
    if (must_not_exist && now != NULL) return ERR_EXISTS;
    if (mod_revision == 0) return OK;
    return now != NULL && le64toh(now->mod_revision) == mod_revision ? OK : ERR_PRECONDITION;
}

static enum err condition_of(const struct command *c, const struct item *now) {
    if (c->op == OP_PUT) return condition(now, c->put.must_not_exist, c->put.mod_revision);
    return condition(now, false, c->del.mod_revision);
}

static uint64_t item_payload(const struct item *i) { return item_key(i).size + item_value(i).size; }

static void count_in(struct state *s, const struct item *i) {
    lanes_add(&s->sum, item_lanes(i));
    s->bytes += item_payload(i);
}

/* The item that a put makes of what is there. A second put of a key within one revision replaces
 * the first. */
static struct item *item_after(const struct command *c, const struct item *old, uint64_t revision) {
    struct kv kv = {.key = c->put.key,
                    .value = c->put.value,
                    .create_revision = revision,
                    .mod_revision = revision,
                    .version = 1};
    if (old != NULL) {
        bool same = le64toh(old->mod_revision) == revision;
        kv.create_revision = le64toh(old->create_revision);
        kv.version = le64toh(old->version) + (same ? 0 : 1);
    }
    return item_copy(&kv);
}

static RESULT put_at(struct state *s, struct tree_path *path, const struct item *old,
                     const struct command *c, uint64_t revision) {
    struct item *item = item_after(c, old, revision);
    if (item == NULL) return ERR_NOMEM;
    struct lanes before = {{0, 0}};
    uint64_t bytes_before = 0;
    if (old != NULL) {
        before = item_lanes(old);
        bytes_before = item_payload(old);
    }
    enum err e = tree_put(s->keys, path, item);
    if (e != OK) {
        free(item);
        return e;
    }
    lanes_subtract(&s->sum, before);
    s->bytes -= bytes_before;
    count_in(s, item);
    s->revision = revision;
    return OK;
}

static RESULT apply_put(struct state *s, const struct command *c, struct result *r) {
    struct tree_path path;
    const struct item *old = tree_find(s->keys, c->put.key, &path);
    remember_previous(r, old);
    r->error = condition_of(c, old);
    if (r->error != OK) return OK;
    return put_at(s, &path, old, c, s->revision + 1);
}

static RESULT remove_at(struct state *s, struct tree_path *path, struct item *item,
                        uint64_t revision) {
    struct lanes before = item_lanes(item);
    uint64_t bytes_before = item_payload(item);
    TRY(tree_remove(s->keys, path, revision));
    lanes_subtract(&s->sum, before);
    s->bytes -= bytes_before;
    s->revision = revision;
    return OK;
}

static struct item *first_in(const struct state *s, const struct command *c,
                             struct tree_path *path) {
    struct tree_cursor cursor;
    tree_seek(tree_root(s->keys), c->del.key, &cursor);
    const struct item *i = tree_next(&cursor);
    if (i == NULL || span_compare(item_key(i), c->del.end) >= 0) return NULL;
    return tree_find(s->keys, item_key(i), path);
}

static RESULT remove_range(struct state *s, const struct command *c, uint64_t revision,
                           struct result *r) {
    struct tree_path path;
    struct item *i;
    while ((i = first_in(s, c, &path)) != NULL) {
        TRY(remove_at(s, &path, i, revision));
        r->deleted++;
    }
    return OK;
}

static RESULT remove_one(struct state *s, const struct command *c, uint64_t revision,
                         struct result *r) {
    struct tree_path path;
    struct item *i = tree_find(s->keys, c->del.key, &path);
    if (i == NULL) return OK;
    TRY(remove_at(s, &path, i, revision));
    r->deleted++;
    return OK;
}

static RESULT remove_keys(struct state *s, const struct command *c, uint64_t revision,
                          struct result *r) {
    return c->del.end.size != 0 ? remove_range(s, c, revision, r) : remove_one(s, c, revision, r);
}

static RESULT apply_delete(struct state *s, const struct command *c, struct result *r) {
    if (c->del.end.size == 0) {
        const struct item *now = tree_lookup(tree_root(s->keys), c->del.key);
        remember_previous(r, now);
        r->error = condition_of(c, now);
        if (r->error != OK) return OK;
    }
    return remove_keys(s, c, s->revision + 1, r);
}

/* --- batches --- */

/* The next item of a batch that command_decode has checked. */
static void next_item(struct cursor *items, struct command *out) {
    enum err e = command_batch_next(items, out);
    assert(e == OK);
}

static bool has_condition(const struct command *c) {
    if (c->op == OP_PUT) return c->put.must_not_exist || c->put.mod_revision != 0;
    return c->del.mod_revision != 0;
}

static enum err batch_conditions(const struct state *s, const struct command *c) {
    struct cursor items = cursor_of(c->batch.items);
    for (uint32_t i = 0; i < c->batch.n; i++) {
        struct command item;
        next_item(&items, &item);
        if (!has_condition(&item)) continue;
        struct span key = item.op == OP_PUT ? item.put.key : item.del.key;
        enum err e = condition_of(&item, tree_lookup(tree_root(s->keys), key));
        if (e != OK) return e;
    }
    return OK;
}

static RESULT batch_item(struct state *s, const struct command *item, uint64_t revision,
                         struct result *r) {
    if (item->op == OP_DELETE) return remove_keys(s, item, revision, r);
    struct tree_path path;
    const struct item *old = tree_find(s->keys, item->put.key, &path);
    return put_at(s, &path, old, item, revision);
}

static RESULT apply_batch(struct state *s, const struct command *c, struct result *r) {
    r->error = batch_conditions(s, c);
    if (r->error != OK) return OK;
    struct cursor items = cursor_of(c->batch.items);
    uint64_t revision = s->revision + 1;
    for (uint32_t i = 0; i < c->batch.n; i++) {
        struct command item;
        next_item(&items, &item);
        TRY(batch_item(s, &item, revision, r));
    }
    return OK;
}

/* --- the cluster --- */

static RESULT apply_cluster(struct state *s, const struct command *c, struct result *r) {
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

/* --- all --- */

static RESULT apply_operation(struct state *s, const struct command *c, struct result *r) {
    switch (c->op) {
    case OP_PUT: return apply_put(s, c, r);
    case OP_DELETE: return apply_delete(s, c, r);
    case OP_BATCH: return apply_batch(s, c, r);
    case OP_CLUSTER:
    case OP_NODE_ADD:
    case OP_NODE_REMOVE:
    case OP_NODE_UPDATE:
    case OP_TOKEN:
    case OP_LOCK: break;
    }
    return apply_cluster(s, c, r);
}

static RESULT apply_once(struct state *s, const struct command *c, struct result *r) {
    if (c->has_token && tokens_find(&s->tokens, c->token, r)) {
        r->repeated = true;
        return OK;
    }
    if (c->has_token) TRY(tokens_reserve(&s->tokens));
    TRY(apply_operation(s, c, r));
    r->revision = s->revision;
    if (c->has_token) tokens_add(&s->tokens, c->token, r);
    return OK;
}

static RESULT apply(struct state *s, struct span bytes, struct buf *out) {
    struct command c;
    struct result r = {.revision = s->revision};
    TRY(buf_reserve(out, RESULT_SIZE));
    r.error = command_decode(bytes, &c);
    if (r.error == OK) TRY(apply_once(s, &c, &r));
    return result_encode(&r, out);
}

enum err store_apply(struct machine *m, uint64_t index, struct span command, struct buf *result,
                     struct why *why) {
    enum err e = apply(&store_of(m)->state, command, result);
    if (e == OK) return OK;
    return fail_with(why, e, "%s while entry %llu was applied", err_text(e),
                     (unsigned long long)index);
}

void store_applied(struct machine *m, uint64_t index) {
    (void)index;
    struct store *s = store_of(m);
    (void)tree_tidy(s->state.keys, TIDY_ITEMS);
    struct retired *r = s->retired;
    if (r == NULL || tree_has_views(r->tree) || !tree_dismantle(r->tree, TIDY_ITEMS)) return;
    s->retired = r->next;
    tree_free(r->tree);
    free(r);
}
