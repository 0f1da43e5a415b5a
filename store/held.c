/* Secrets, configs and their values as bytes (held.h). Whatever is encoded was checked by the same
 * rules as what is decoded, and what is decoded encodes to the same bytes. Little-endian; a text is
 * a block without zero bytes, shorter than its field; an id is a text of 1 to 25 letters, digits,
 * '-', '_', '.'.
 *
 *   held:     block labels (node.c), text templating, block templating options (as labels), text
 *             driver, block driver options (as labels), u32 next version, u8 number of versions,
 *             these
 *   version:  u32 number, id of the value, u32 size, i64 created_ns
 *   value:    u8 kind, id of the secret or config, u32 version, u32 epoch, 72 bytes wrapped key,
 *             block sealed value */
#include "store/held.h"

#include "store/rows.h"

/* --- names --- */

static bool letter_or_digit(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

RESULT held_name_check(struct span name, struct why *why) {
    static const char sentence[] =
        "invalid name, only %d [a-zA-Z0-9-_.] characters allowed, and the start and end character "
        "must be [a-zA-Z0-9]";
    bool good = name.size >= 1 && name.size <= HELD_NAME_MAX && row_good_letters(name);
    if (!good || !letter_or_digit(name.at[0]) || !letter_or_digit(name.at[name.size - 1]))
        return fail_with(why, ERR_INVALID, sentence, HELD_NAME_MAX);
    return OK;
}

/* --- secrets and configs --- */

static RESULT check_version(const struct held_version *v, uint32_t last, uint32_t next) {
    if (v->number <= last || v->number >= next) return ERR_INVALID;
    if (v->size < 1 || v->size > CONFIG_SIZE_MAX) return ERR_INVALID;
    return row_good_id(span_str(v->value_id)) ? OK : ERR_INVALID;
}

static RESULT check_held(const struct held_row *h) {
    bool driven = h->driver[0] != '\0';
    if (h->next_version < 1 || h->n > HELD_VERSIONS_MAX || (h->n == 0) != driven)
        return ERR_INVALID;
    if (!driven && h->driver_options.size != 0) return ERR_INVALID;
    TRY(labels_check(h->labels));
    TRY(labels_check(h->templating_options));
    TRY(labels_check(h->driver_options));
    for (unsigned i = 0; i < h->n; i++) {
        uint32_t last = i > 0 ? h->versions[i - 1].number : 0;
        TRY(check_version(&h->versions[i], last, h->next_version));
    }
    return OK;
}

RESULT held_encode(const struct held_row *h, struct buf *out) {
    TRY(check_held(h));
    TRY(buf_block(out, h->labels));
    TRY(buf_block(out, span_str(h->templating)));
    TRY(buf_block(out, h->templating_options));
    TRY(buf_block(out, span_str(h->driver)));
    TRY(buf_block(out, h->driver_options));
    TRY(buf_u32(out, h->next_version));
    TRY(buf_u8(out, (uint8_t)h->n));
    for (unsigned i = 0; i < h->n; i++) {
        const struct held_version *v = &h->versions[i];
        TRY(buf_u32(out, v->number));
        TRY(buf_block(out, span_str(v->value_id)));
        TRY(buf_u32(out, v->size));
        TRY(buf_u64(out, (uint64_t)v->created_ns));
    }
    return OK;
}

static RESULT decode_version(struct cursor *in, struct held_version *out) {
    uint64_t created_ns;
    TRY(cursor_u32(in, &out->number));
    TRY(cursor_text(in, out->value_id, sizeof out->value_id));
    TRY(cursor_u32(in, &out->size));
    TRY(cursor_u64(in, &created_ns));
    out->created_ns = (int64_t)created_ns;
    return OK;
}

static RESULT decode_held(struct cursor *in, struct held_row *out) {
    uint8_t n;
    TRY(cursor_block(in, NODE_LABELS_BYTES, &out->labels));
    TRY(cursor_text(in, out->templating, sizeof out->templating));
    TRY(cursor_block(in, NODE_LABELS_BYTES, &out->templating_options));
    TRY(cursor_text(in, out->driver, sizeof out->driver));
    TRY(cursor_block(in, NODE_LABELS_BYTES, &out->driver_options));
    TRY(cursor_u32(in, &out->next_version));
    TRY(cursor_u8(in, &n));
    if (n > HELD_VERSIONS_MAX) return ERR_CORRUPT;
    for (out->n = 0; out->n < n; out->n++)
        TRY(decode_version(in, &out->versions[out->n]));
    TRY(cursor_end(in));
    return check_held(out);
}

RESULT held_decode(struct span body, struct held_row *out) {
    struct cursor in = cursor_of(body);
    *out = (struct held_row){.n = 0};
    return decode_held(&in, out) == OK ? OK : ERR_CORRUPT;
}

const struct held_version *held_version(const struct held_row *h, uint32_t number) {
    if (number == 0) return h->n > 0 ? &h->versions[h->n - 1] : NULL;
    for (unsigned i = 0; i < h->n; i++)
        if (h->versions[i].number == number) return &h->versions[i];
    return NULL;
}

/* --- values --- */

static RESULT check_value(const struct value_row *v) {
    if (v->of != ROW_SECRET && v->of != ROW_CONFIG) return ERR_INVALID;
    if (!row_good_id(span_str(v->held_id)) || v->version < 1 || v->epoch < 1) return ERR_INVALID;
    size_t max = v->of == ROW_SECRET ? SECRET_SIZE_MAX : CONFIG_SIZE_MAX;
    bool good = v->sealed.size > SEALED_OVERHEAD && v->sealed.size <= max + SEALED_OVERHEAD;
    return good ? OK : ERR_INVALID;
}

RESULT value_encode(const struct value_row *v, struct buf *out) {
    TRY(check_value(v));
    TRY(buf_u8(out, (uint8_t)v->of));
    TRY(buf_block(out, span_str(v->held_id)));
    TRY(buf_u32(out, v->version));
    TRY(buf_u32(out, v->epoch));
    TRY(buf_add(out, v->wrapped, sizeof v->wrapped));
    return buf_block(out, v->sealed);
}

static RESULT decode_value(struct cursor *in, struct value_row *out) {
    uint8_t of;
    TRY(cursor_u8(in, &of));
    out->of = (enum row_kind)of;
    TRY(cursor_text(in, out->held_id, sizeof out->held_id));
    TRY(cursor_u32(in, &out->version));
    TRY(cursor_u32(in, &out->epoch));
    TRY(cursor_copy(in, out->wrapped, sizeof out->wrapped));
    TRY(cursor_block(in, CONFIG_SIZE_MAX + SEALED_OVERHEAD, &out->sealed));
    TRY(cursor_end(in));
    return check_value(out);
}

RESULT value_decode(struct span body, struct value_row *out) {
    struct cursor in = cursor_of(body);
    *out = (struct value_row){.version = 0};
    return decode_value(&in, out) == OK ? OK : ERR_CORRUPT;
}
