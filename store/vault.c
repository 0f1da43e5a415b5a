/* The epochs of the cluster key as bytes (vault.h). Whatever is encoded was checked by the same
 * rules as what is decoded, and what is decoded encodes to the same bytes. Little-endian.
 *
 *   vault: u32 current, u32 next, u32 oldest, 16 bytes id of the current key, 16 bytes id of the
 *          next one (zeros where there is none), i64 rotated_ns, u8 number of holders, their ids as
 *          texts, ascending */
#include "store/vault.h"

#include "store/state.h"

static bool no_key(const uint8_t id[16]) {
    static const uint8_t none[16];
    return memcmp(id, none, sizeof none) == 0;
}

static RESULT check(const struct vault_row *v) {
    if (v->oldest > v->current || (v->next != 0 && v->next <= v->current)) return ERR_INVALID;
    if (v->current == 0 && !no_key(v->key_ids[0])) return ERR_INVALID;
    if (v->next == 0 && !no_key(v->key_ids[1])) return ERR_INVALID;
    if (v->n > MEMBERS_MAX || (v->current == 0 && v->next == 0)) return ERR_INVALID;
    for (unsigned i = 0; i < v->n; i++) {
        if (!row_good_id(span_str(v->holders[i]))) return ERR_INVALID;
        if (i > 0 && strcmp(v->holders[i - 1], v->holders[i]) >= 0) return ERR_INVALID;
    }
    return OK;
}

RESULT vault_row_encode(const struct vault_row *v, struct buf *out) {
    TRY(check(v));
    TRY(buf_u32(out, v->current));
    TRY(buf_u32(out, v->next));
    TRY(buf_u32(out, v->oldest));
    TRY(buf_add(out, v->key_ids, sizeof v->key_ids));
    TRY(buf_u64(out, (uint64_t)v->rotated_ns));
    TRY(buf_u8(out, (uint8_t)v->n));
    for (unsigned i = 0; i < v->n; i++)
        TRY(buf_block(out, span_str(v->holders[i])));
    return OK;
}

static RESULT decode(struct cursor *in, struct vault_row *out) {
    uint64_t rotated_ns;
    uint8_t n;
    TRY(cursor_u32(in, &out->current));
    TRY(cursor_u32(in, &out->next));
    TRY(cursor_u32(in, &out->oldest));
    TRY(cursor_copy(in, out->key_ids, sizeof out->key_ids));
    TRY(cursor_u64(in, &rotated_ns));
    out->rotated_ns = (int64_t)rotated_ns;
    TRY(cursor_u8(in, &n));
    if (n > MEMBERS_MAX) return ERR_CORRUPT;
    for (out->n = 0; out->n < n; out->n++)
        TRY(cursor_text(in, out->holders[out->n], sizeof out->holders[out->n]));
    TRY(cursor_end(in));
    return check(out);
}

RESULT vault_row_decode(struct span body, struct vault_row *out) {
    struct cursor in = cursor_of(body);
    *out = (struct vault_row){.n = 0};
    return decode(&in, out) == OK ? OK : ERR_CORRUPT;
}

bool vault_row_get(const struct store *s, struct row *row, struct vault_row *out) {
    if (row_get(s, ROW_VAULT, store_cluster(s)->id, row) && vault_row_decode(row->body, out) == OK)
        return true;
    *out = (struct vault_row){.n = 0};
    return false;
}

bool vault_values_below(const struct store *s, uint32_t epoch) {
    return value_epoch_lowest(tree_root(s->state.rows.tree)) < epoch;
}
