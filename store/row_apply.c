/* OP_ROWS carried out. The list is applied change by change to the tree, each judged by what the
 * ones before it have left; if one is refused, or what must hold of all rows does not hold at the
 * end, or memory runs out, the tree is rolled back to the view that was taken before the first
 * (tree_rollback), so that a list happens whole or not at all. The view also tells what a row was
 * like before: to the rules, and to the one who watches. A row is changed once in a list. */
#include <assert.h>
#include <stdlib.h>

#include "store/audit.h"
#include "store/state.h"
#include "store/vault.h"

/* One OP_ROWS under way. */
struct rowing {
    struct rows *rows;
    unsigned kinds; /* of the rows that were changed; a bit each */
    const struct cluster *cluster;
    const struct tree_node *before; /* the tree as it was */
    uint64_t version;               /* what the changed rows get */
    int64_t now_ns;
};

RESULT rows_start(struct rows *r) {
    *r = (struct rows){.version = 0};
    return tree_new(&r->tree);
}

void rows_end(struct rows *r) {
    tree_free(r->tree);
    *r = (struct rows){.version = 0};
}

/* --- marks --- */

static bool has_mark(const struct row_marks *m, const struct row_key *k) {
    for (unsigned i = 0; i < m->n; i++)
        if (span_equal(row_key_span(&m->at[i]), row_key_span(k))) return true;
    return false;
}

static RESULT put_item(struct rows *r, struct tree_path *path, struct item *i) {
    if (i == NULL) return ERR_NOMEM;
    enum err e = tree_put(r->tree, path, i);
    if (e != OK) free(i);
    return e;
}

static RESULT put_mark(struct rows *r, const struct row_key *k, const struct row *row) {
    struct tree_path path;
    struct kv kv = {.key = row_key_span(k),
                    .value = span_str(row->id),
                    .create_revision = row->version,
                    .mod_revision = row->version,
                    .version = 1};
    if (tree_find(r->tree, kv.key, &path) != NULL)
        return (k->bytes[0] & ROW_NAMED) != 0 ? ERR_EXISTS : ERR_PRECONDITION;
    return put_item(r, &path, item_copy(&kv));
}

static RESULT move_marks(struct rows *r, const struct row *before, const struct row *after) {
    struct row_marks old, new;
    struct tree_path path;
    old.n = new.n = 0;
    if (before != NULL) row_marks_of(before, &old);
    if (after != NULL) row_marks_of(after, &new);
    for (unsigned i = 0; i < old.n; i++) {
        if (has_mark(&new, &old.at[i])) continue;
        (void)tree_find(r->tree, row_key_span(&old.at[i]), &path);
        TRY(tree_remove(r->tree, &path));
    }
    for (unsigned i = 0; i < new.n; i++)
        if (!has_mark(&old, &new.at[i])) TRY(put_mark(r, &new.at[i], after));
    return OK;
}

/* --- rows --- */

static void count(struct rows *r, const struct row *row, const struct item *i, bool there) {
    uint64_t bytes = row->name.size + row->body.size;
    r->n[row->kind] += there ? 1 : UINT64_MAX;
    r->n[0] += there ? 1 : UINT64_MAX;
    r->bytes += there ? bytes : -bytes;
    if (there)
        lanes_add(&r->sum, item_lanes(i));
    else
        lanes_subtract(&r->sum, item_lanes(i));
    row_counted(r, row, there);
}

/* The row as an item; `changes` is how often it was written. */
static struct item *make_item(const struct row *row, uint64_t changes) {
    struct row_key k = row_key(row->kind, row->id);
    struct kv kv = {.key = row_key_span(&k),
                    .create_revision = row->created_version,
                    .mod_revision = row->version,
                    .version = changes};
    struct item *i = item_new(&kv, k.size, ROW_HEAD_MAX + row->name.size + row->body.size);
    if (i == NULL) return NULL;
    uint8_t *at = item_bytes(i);
    memcpy(at, k.bytes, k.size);
    at += k.size;
    put_u64(at, (uint64_t)row->created_ns);
    put_u64(at + 8, (uint64_t)row->updated_ns);
    put_u32(at + 16, (uint32_t)row->name.size);
    if (row->name.size != 0) memcpy(at + 20, row->name.at, row->name.size);
    at += 20 + row->name.size;
    put_u32(at, (uint32_t)row->body.size);
    if (row->body.size != 0) memcpy(at + 4, row->body.at, row->body.size);
    return i;
}

static uint64_t changes_of(const struct item *i) {
    struct kv kv;
    item_read(i, &kv);
    return kv.version;
}

/* `after` where `old`, which says `before`, was; both NULL: nothing was there. */
static RESULT place(struct rows *r, struct tree_path *path, const struct item *old,
                    const struct row *before, const struct row *after) {
    struct item *i = make_item(after, old != NULL ? changes_of(old) + 1 : 1);
    TRY(put_item(r, path, i));
    if (before != NULL) count(r, before, old, false);
    count(r, after, i, true);
    return move_marks(r, before, after);
}

static RESULT take(struct rows *r, struct tree_path *path, const struct item *old,
                   const struct row *before) {
    TRY(tree_remove(r->tree, path));
    count(r, before, old, false);
    return move_marks(r, before, NULL);
}

static RESULT put_row(struct rowing *w, const struct row_change *c, struct tree_path *path,
                      const struct item *old, const struct row *before) {
    struct row after = {.kind = c->kind,
                        .name = c->name,
                        .version = w->version,
                        .created_version = old != NULL ? before->created_version : w->version,
                        .created_ns = old != NULL ? before->created_ns : w->now_ns,
                        .updated_ns = w->now_ns,
                        .body = c->body};
    memcpy(after.id, c->id, sizeof after.id);
    TRY(row_rules_one(w->cluster, before, &after));
    return place(w->rows, path, old, before, &after);
}

static RESULT remove_row(struct rowing *w, struct tree_path *path, const struct item *old,
                         const struct row *before) {
    TRY(row_rules_one(w->cluster, before, NULL));
    return take(w->rows, path, old, before);
}

/* --- records of the audit trail --- */

/* The oldest one goes when there are more than may be kept. */
static RESULT trim_records(struct rows *r) {
    char id[NODE_ID_SIZE + 1];
    struct tree_path path;
    struct row oldest;
    if (r->n[ROW_AUDIT] <= AUDIT_MAX) return OK;
    audit_id(r->audit_last + 1 - r->n[ROW_AUDIT], id);
    struct row_key k = row_key(ROW_AUDIT, id);
    const struct item *old = tree_find(r->tree, row_key_span(&k), &path);
    assert(old != NULL);
    row_read(old, &oldest);
    return take(r, &path, old, &oldest);
}

static RESULT put_record(struct rowing *w, const struct row_change *c) {
    struct rows *r = w->rows;
    struct audit_next next;
    struct tree_path path;
    audit_link_next(r->audit_last, r->audit_chain, w->now_ns, c->body, &next);
    struct row row = {.kind = ROW_AUDIT,
                      .version = w->version,
                      .created_version = w->version,
                      .created_ns = w->now_ns,
                      .updated_ns = w->now_ns,
                      .body = span_of(next.body, next.size)};
    memcpy(row.id, next.id, sizeof row.id);
    struct row_key k = row_key(ROW_AUDIT, row.id);
    if (tree_find(r->tree, row_key_span(&k), &path) != NULL) return ERR_EXISTS;
    TRY(place(r, &path, NULL, NULL, &row));
    r->audit_last++;
    memcpy(r->audit_chain, next.body + AUDIT_CHAIN, AUDIT_CHAIN);
    return trim_records(r);
}

/* --- one change, all of them --- */

static RESULT change(struct rowing *w, const struct row_change *c) {
    struct row_key k = row_key(c->kind, c->id);
    struct tree_path path;
    struct row before;
    if (c->kind == ROW_AUDIT && c->action != ROW_CHECK)
        return c->action == ROW_CREATE ? put_record(w, c) : ERR_PRECONDITION;
    const struct item *old = tree_find(w->rows->tree, row_key_span(&k), &path);
    if (old != tree_lookup(w->before, row_key_span(&k))) return ERR_INVALID; /* changed already */
    if (c->action == ROW_CREATE) return old == NULL ? put_row(w, c, &path, NULL, NULL) : ERR_EXISTS;
    if (old == NULL) return ERR_NOT_FOUND;
    row_read(old, &before); /* it stays: the view sees it */
    if (c->version != 0 && c->version != before.version) return ERR_CONFLICT;
    if (c->action == ROW_CHECK) return OK;
    if (c->action == ROW_REMOVE) return remove_row(w, &path, old, &before);
    return put_row(w, c, &path, old, &before);
}

/* Kinds whose rows have to agree with others. */
#define KIND_BIT(kind) (1U << (kind))
#define KINDS_BETWEEN                                                                              \
    (KIND_BIT(ROW_SECRET) | KIND_BIT(ROW_CONFIG) | KIND_BIT(ROW_VALUE) | KIND_BIT(ROW_SERVICE) |   \
     KIND_BIT(ROW_TASK) | KIND_BIT(ROW_VAULT))

static RESULT judge_between(const struct rowing *w, const struct command *c) {
    struct cursor changes = cursor_of(c->rows.changes);
    struct row_trees t = {w->before, tree_root(w->rows->tree), w->cluster};
    if ((w->kinds & KINDS_BETWEEN) == 0) return OK;
    for (uint32_t i = 0; i < c->rows.n; i++) {
        struct row_change one;
        TRY(row_change_next(&changes, &one));
        if (one.action != ROW_CHECK) TRY(row_rules_between(&t, one.kind, one.id));
    }
    return OK;
}

static RESULT change_all(struct rowing *w, const struct command *c) {
    struct cursor changes = cursor_of(c->rows.changes);
    struct rows was = *w->rows;
    for (uint32_t i = 0; i < c->rows.n; i++) {
        struct row_change one;
        TRY(row_change_next(&changes, &one));
        TRY(change(w, &one));
        if (one.action != ROW_CHECK) w->kinds |= KIND_BIT(one.kind);
    }
    TRY(judge_between(w, c));
    return row_rules_all(&was, w->rows);
}

/* --- the one who watches --- */

static void tell_one(const struct store *s, const struct tree_node *before, enum row_kind kind,
                     const char *id) {
    struct row old, new;
    bool was = row_look(before, kind, id, &old);
    bool is = row_look(tree_root(s->state.rows.tree), kind, id, &new);
    if (was || is) s->row_changed(s->row_changed_ctx, was ? &old : NULL, is ? &new : NULL);
}

/* The record that got this number, and the one that went for it. */
static void tell_record(const struct store *s, const struct tree_node *before, uint64_t number) {
    char id[NODE_ID_SIZE + 1];
    audit_id(number, id);
    tell_one(s, before, ROW_AUDIT, id);
    if (number <= AUDIT_MAX) return;
    audit_id(number - AUDIT_MAX, id);
    tell_one(s, before, ROW_AUDIT, id);
}

static void tell(const struct store *s, const struct tree_node *before, const struct command *c,
                 uint64_t audit_last) {
    struct cursor changes = cursor_of(c->rows.changes);
    for (uint32_t i = 0; s->row_changed != NULL && i < c->rows.n; i++) {
        struct row_change one;
        enum err e = row_change_next(&changes, &one);
        assert(e == OK);
        if (one.action == ROW_CHECK) continue;
        if (one.kind == ROW_AUDIT)
            tell_record(s, before, ++audit_last);
        else
            tell_one(s, before, one.kind, one.id);
    }
}

/* --- all --- */

RESULT rows_apply(struct store *s, const struct command *c) {
    struct rows *rows = &s->state.rows, was = *rows;
    struct tree_view *view;
    if (!s->state.cluster->cluster->initialised) return ERR_PRECONDITION;
    TRY(tree_view_new(rows->tree, rows->version, &view));
    struct rowing w = {.rows = rows,
                       .cluster = s->state.cluster->cluster,
                       .before = tree_view_root(view),
                       .version = rows->version + 1,
                       .now_ns = c->rows.now_ns};
    enum err e = change_all(&w, c);
    if (e != OK) {
        tree_rollback(view);
        *rows = was;
        return e;
    }
    rows->version = w.version;
    tell(s, w.before, c, was.audit_last);
    tree_view_free(view);
    return OK;
}

/* --- another cluster's --- */

static RESULT drop_kind(struct rows *r, enum row_kind kind) {
    struct row_key from = row_key(kind, "");
    struct tree_path path;
    struct row row;
    for (;;) {
        struct tree_cursor c;
        tree_seek(tree_root(r->tree), row_key_span(&from), &c);
        const struct item *i = row_next(&c);
        if (i == NULL || item_key(i).at[0] != kind) return OK;
        row_read(i, &row);
        const struct item *old = tree_find(r->tree, item_key(i), &path);
        TRY(take(r, &path, old, &row));
    }
}

/* A key that was on its way goes: who held it is gone. */
static RESULT put_vault(struct rows *r, const struct row *before, const char *id) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row after = *before;
    struct row_key k = row_key(ROW_VAULT, id);
    struct tree_path path;
    struct vault_row vault;
    enum err e = vault_row_decode(before->body, &vault);
    assert(e == OK);
    if (vault.current == 0) return OK; /* there was no key yet: it makes its own */
    vault.next = vault.n = 0;
    memset(vault.key_ids[1], 0, sizeof vault.key_ids[1]);
    memcpy(after.id, id, sizeof after.id);
    e = vault_row_encode(&vault, &body);
    after.version = after.created_version = r->version + 1;
    after.body = buf_span(&body);
    (void)tree_find(r->tree, row_key_span(&k), &path);
    if (e == OK) e = place(r, &path, NULL, NULL, &after);
    buf_free(&body);
    return e;
}

RESULT rows_inherit(struct rows *r, const char *old_id, const char *new_id) {
    static const enum row_kind gone[] = {ROW_SPEC, ROW_NODE, ROW_TOKEN, ROW_TASK, ROW_VAULT};
    struct row vault;
    bool kept = row_look(tree_root(r->tree), ROW_VAULT, old_id, &vault); /* the view sees it */
    for (size_t i = 0; i < ARRAY_SIZE(gone); i++)
        TRY(drop_kind(r, gone[i]));
    if (kept) TRY(put_vault(r, &vault, new_id));
    r->version++;
    return OK;
}

/* --- from an image --- */

/* Its body, and of a record its place in the trail. */
static RESULT check_restored(struct rows *r, const struct row *row) {
    struct audit_link link;
    TRY(row_name_check(row->kind, row->name));
    if (row->kind != ROW_AUDIT) return row_body_check(row->kind, row->body);
    TRY(audit_read(row, &link));
    if (!audit_follows(&link, r->audit_last, r->audit_chain)) return ERR_CORRUPT;
    r->audit_last = link.number;
    memcpy(r->audit_chain, link.chain, AUDIT_CHAIN);
    return OK;
}

/* Is the value made as make_item makes it? */
static bool good_value(struct span value) {
    struct cursor in = cursor_of(value);
    uint64_t ns;
    struct span name, body;
    return cursor_u64(&in, &ns) == OK && cursor_u64(&in, &ns) == OK &&
           cursor_block(&in, ROW_NAME_MAX, &name) == OK && row_good_name(name) &&
           cursor_block(&in, ROW_BODY_MAX, &body) == OK && cursor_end(&in) == OK;
}

RESULT rows_restore(struct rows *r, struct item *i) {
    struct tree_path path;
    struct kv kv;
    struct row row;
    item_read(i, &kv);
    if (kv.key.at[0] < ROW_SPEC || kv.key.at[0] > ROW_KIND_MAX) return ERR_CORRUPT;
    if (!row_good_id(span_of(kv.key.at + 1, kv.key.size - 1))) return ERR_CORRUPT;
    if (!good_value(kv.value) || kv.mod_revision > r->version) return ERR_CORRUPT;
    row_read(i, &row);
    if (check_restored(r, &row) != OK) return ERR_CORRUPT;
    if (tree_find(r->tree, kv.key, &path) != NULL) return ERR_CORRUPT;
    enum err e = move_marks(r, NULL, &row);
    if (e != OK) return e == ERR_NOMEM ? e : ERR_CORRUPT;
    (void)tree_find(r->tree, kv.key, &path); /* the marks have moved it */
    TRY(tree_put(r->tree, &path, i));
    count(r, &row, i, true);
    return OK;
}
