/* See import.h: keys of another store as bytes, checked one by one. Called by the command line,
 * which makes them, and by the commands, which carry them. */
#include "store/import.h"

RESULT import_add(struct buf *rows, const struct kv *kv) {
    TRY(buf_u64(rows, kv->create_revision));
    TRY(buf_u64(rows, kv->mod_revision));
    TRY(buf_u64(rows, kv->version));
    TRY(buf_u64(rows, kv->lease));
    TRY(buf_block(rows, kv->key));
    return buf_block(rows, kv->value);
}

static RESULT read_row(struct cursor *rows, struct kv *kv) {
    TRY(cursor_u64(rows, &kv->create_revision));
    TRY(cursor_u64(rows, &kv->mod_revision));
    TRY(cursor_u64(rows, &kv->version));
    TRY(cursor_u64(rows, &kv->lease));
    TRY(cursor_block(rows, KEY_MAX, &kv->key));
    return cursor_block(rows, VALUE_MAX, &kv->value);
}

RESULT import_next(struct cursor *rows, struct kv *out) {
    struct kv kv;
    if (read_row(rows, &kv) != OK || kv.key.size == 0) return ERR_INVALID;
    if (kv.create_revision == 0 || kv.create_revision > kv.mod_revision || kv.version == 0 ||
        kv.mod_revision > INT64_MAX || kv.version > INT64_MAX || kv.lease > INT64_MAX)
        return ERR_INVALID;
    *out = kv;
    return OK;
}
