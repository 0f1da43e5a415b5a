/* Rows as they are read, and changes of rows as bytes (row.h; the tree: rows.h). A change is
 * checked when it is encoded and when it is decoded, its body too, so that apply meets no malformed
 * one.
 *
 *   change:  u8 action, u8 kind, block id (1 to 25 letters, digits, '-', '_', '.'), u64 version; of
 *            CREATE and REPLACE: block name (no zero bytes), block body; the version of a CREATE is
 *            0 */
#include "store/row.h"

#include "store/audit.h"
#include "store/state.h"

/* --- the tree's keys --- */

struct row_key row_key(enum row_kind kind, const char *id) {
    struct row_key k;
    k.bytes[0] = (uint8_t)kind;
    size_t size = strnlen(id, NODE_ID_SIZE);
    memcpy(k.bytes + 1, id, size);
    k.size = 1 + size;
    return k;
}

bool row_name_mark(const struct row *r, struct row_key *out) {
    if (r->name.size == 0) return false;
    out->bytes[0] = (uint8_t)(r->kind | ROW_NAMED);
    for (size_t i = 0; i < r->name.size; i++) {
        uint8_t c = r->name.at[i];
        out->bytes[1 + i] = c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
    }
    out->size = 1 + r->name.size;
    return true;
}

void row_read(const struct item *i, struct row *out) {
    struct kv kv;
    item_read(i, &kv);
    *out = (struct row){.kind = (enum row_kind)kv.key.at[0],
                        .version = kv.mod_revision,
                        .created_version = kv.create_revision};
    memcpy(out->id, kv.key.at + 1, kv.key.size - 1);
    const uint8_t *at = kv.value.at;
    out->created_ns = (int64_t)get_u64(at);
    out->updated_ns = (int64_t)get_u64(at + 8);
    out->name = span_of(at + 20, get_u32(at + 16));
    at += 20 + out->name.size;
    out->body = span_of(at + 4, get_u32(at));
}

const struct item *row_next(struct tree_cursor *c) {
    const struct item *i = tree_next(c);
    return i != NULL && item_key(i).at[0] <= ROW_KIND_MAX ? i : NULL; /* marks come after them */
}

/* --- reading --- */

bool row_look(const struct tree_node *root, enum row_kind kind, const char *id, struct row *out) {
    struct row_key k = row_key(kind, id);
    const struct item *i = tree_lookup(root, row_key_span(&k));
    if (i != NULL) row_read(i, out);
    return i != NULL;
}

bool row_get(const struct store *s, enum row_kind kind, const char *id, struct row *out) {
    return strlen(id) <= NODE_ID_SIZE && row_look(tree_root(s->state.rows.tree), kind, id, out);
}

bool row_named(const struct store *s, enum row_kind kind, struct span name, struct row *out) {
    struct row row = {.kind = kind, .name = name};
    struct row_key k;
    if (!row_good_name(name) || !row_name_mark(&row, &k)) return false;
    const struct item *i = tree_lookup(tree_root(s->state.rows.tree), row_key_span(&k));
    if (i == NULL) return false;
    struct span id = item_value(i);
    memcpy(row.id, id.at, id.size);
    return row_get(s, kind, row.id, out);
}

/* Rows of a kind whose id is not below `from`. */
static void seek(const struct store *s, enum row_kind kind, const char *from,
                 struct tree_cursor *c) {
    struct row_key k = row_key(kind, from);
    tree_seek(tree_root(s->state.rows.tree), row_key_span(&k), c);
}

static bool next_of(struct tree_cursor *c, enum row_kind kind, struct row *out) {
    const struct item *i = row_next(c);
    if (i == NULL || item_key(i).at[0] != kind) return false;
    row_read(i, out);
    return true;
}

void row_from(const struct store *s, enum row_kind kind, const char *from, row_each *each,
              void *ctx) {
    struct tree_cursor c;
    struct row row;
    seek(s, kind, from, &c);
    while (next_of(&c, kind, &row))
        if (!each(ctx, &row)) return;
}

void row_all(const struct store *s, enum row_kind kind, row_each *each, void *ctx) {
    row_from(s, kind, "", each, ctx);
}

void row_each_marked(const struct tree_node *root, enum row_kind kind, const struct row_key *mark,
                     row_each *each, void *ctx) {
    struct tree_cursor c;
    const struct item *i;
    struct span prefix = row_key_span(mark);
    tree_seek(root, prefix, &c);
    while ((i = tree_next(&c)) != NULL) {
        struct span key = item_key(i), id = item_value(i);
        struct row row = {.kind = kind};
        if (key.size < prefix.size || memcmp(key.at, prefix.at, prefix.size) != 0) return;
        memcpy(row.id, id.at, id.size);
        if (row_look(root, kind, row.id, &row) && !each(ctx, &row)) return;
    }
}

uint64_t row_count(const struct store *s, enum row_kind kind) { return s->state.rows.n[kind]; }
uint64_t row_version(const struct store *s) { return s->state.rows.version; }

RESULT row_find(const struct store *s, enum row_kind kind, const char *text, struct row *out,
                struct why *why) {
    struct tree_cursor c;
    struct row other;
    size_t size = strlen(text);
    if (row_get(s, kind, text, out) || row_named(s, kind, span_str(text), out)) return OK;
    if (size == 0 || size > NODE_ID_SIZE)
        return fail_with(why, ERR_NOT_FOUND, "there is no \"%.128s\"", text);
    seek(s, kind, text, &c);
    if (!next_of(&c, kind, out) || strncmp(out->id, text, size) != 0)
        return fail_with(why, ERR_NOT_FOUND, "there is no \"%s\"", text);
    if (next_of(&c, kind, &other) && strncmp(other.id, text, size) == 0)
        return fail_with(why, ERR_INVALID, "\"%s\" begins more than one id", text);
    return OK;
}

void row_watch(struct store *s, row_changed *changed, void *ctx) {
    s->row_changed = changed;
    s->row_changed_ctx = ctx;
}

/* --- changes as bytes --- */

static bool good_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

bool row_good_letters(struct span text) {
    for (size_t i = 0; i < text.size; i++)
        if (!good_letter(text.at[i])) return false;
    return true;
}

bool row_good_id(struct span id) {
    return id.size >= 1 && id.size <= NODE_ID_SIZE && row_good_letters(id);
}

bool row_good_name(struct span name) {
    if (name.size > ROW_NAME_MAX) return false;
    return name.size == 0 || memchr(name.at, 0, name.size) == NULL;
}

static bool has_content(const struct row_change *c) {
    return c->action == ROW_CREATE || c->action == ROW_REPLACE;
}

static RESULT check(const struct row_change *c) {
    if (c->action < ROW_CREATE || c->action > ROW_CHECK) return ERR_INVALID;
    if (c->kind < ROW_SPEC || c->kind > ROW_KIND_MAX) return ERR_INVALID;
    if (memchr(c->id, 0, sizeof c->id) == NULL || !row_good_id(span_str(c->id))) return ERR_INVALID;
    if (c->action == ROW_CREATE && c->version != 0) return ERR_INVALID;
    if (!has_content(c)) return OK;
    if (!row_good_name(c->name) || c->body.size > ROW_BODY_MAX) return ERR_INVALID;
    if (c->kind == ROW_AUDIT && strcmp(c->id, AUDIT_NEXT) != 0) return ERR_INVALID;
    TRY(row_name_check(c->kind, c->name));
    return row_body_check(c->kind, c->body);
}

RESULT row_change_add(struct buf *changes, const struct row_change *c) {
    TRY(check(c));
    TRY(buf_u8(changes, (uint8_t)c->action));
    TRY(buf_u8(changes, (uint8_t)c->kind));
    TRY(buf_block(changes, span_str(c->id)));
    TRY(buf_u64(changes, c->version));
    if (!has_content(c)) return OK;
    TRY(buf_block(changes, c->name));
    return buf_block(changes, c->body);
}

static RESULT decode(struct cursor *changes, struct row_change *out) {
    uint8_t action, kind;
    TRY(cursor_u8(changes, &action));
    TRY(cursor_u8(changes, &kind));
    *out = (struct row_change){.action = (enum row_action)action, .kind = (enum row_kind)kind};
    TRY(cursor_text(changes, out->id, sizeof out->id));
    TRY(cursor_u64(changes, &out->version));
    if (!has_content(out)) return OK;
    TRY(cursor_block(changes, ROW_NAME_MAX, &out->name));
    return cursor_block(changes, ROW_BODY_MAX, &out->body);
}

RESULT row_change_next(struct cursor *changes, struct row_change *out) {
    if (decode(changes, out) != OK) return ERR_INVALID;
    return check(out);
}
