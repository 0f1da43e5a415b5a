/* Records of the audit trail as bytes, and the chain that links them (audit.h). Whatever is encoded
 * was checked by the same rules as what is decoded, and what is decoded encodes to the same bytes.
 * Little-endian; a text is a block without zero bytes, shorter than its field.
 *
 *   record: u8 what, u8 kind (0: none), text id, block name, block who, block from, text node id,
 *           text task id, u32 version, block detail */
#include "store/audit.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>

#include "store/state.h"

#define AUDIT_NUMBER_MAX (UINT64_MAX / 2) /* there is always a next one */

/* --- records --- */

static bool id_or_none(const char *id) { return id[0] == '\0' || row_good_id(span_str(id)); }

static bool bounded(struct span s) { return s.size <= AUDIT_TEXT_MAX; }

static RESULT check(const struct audit_record *a) {
    if (a->what < AUDIT_CREATE || a->what > AUDIT_HEAD) return ERR_INVALID;
    if ((unsigned)a->kind > ROW_KIND_MAX) return ERR_INVALID;
    if (!id_or_none(a->id) || !id_or_none(a->node_id) || !id_or_none(a->task_id))
        return ERR_INVALID;
    bool good = bounded(a->name) && bounded(a->who) && bounded(a->from) &&
                a->detail.size <= AUDIT_DETAIL_MAX;
    return good ? OK : ERR_INVALID;
}

RESULT audit_encode(const struct audit_record *a, struct buf *out) {
    TRY(check(a));
    TRY(buf_u8(out, (uint8_t)a->what));
    TRY(buf_u8(out, (uint8_t)a->kind));
    TRY(buf_block(out, span_str(a->id)));
    TRY(buf_block(out, a->name));
    TRY(buf_block(out, a->who));
    TRY(buf_block(out, a->from));
    TRY(buf_block(out, span_str(a->node_id)));
    TRY(buf_block(out, span_str(a->task_id)));
    TRY(buf_u32(out, a->version));
    return buf_block(out, a->detail);
}

static RESULT decode(struct cursor *in, struct audit_record *out) {
    uint8_t what, kind;
    TRY(cursor_u8(in, &what));
    out->what = (enum audit_what)what;
    TRY(cursor_u8(in, &kind));
    out->kind = (enum row_kind)kind;
    TRY(cursor_text(in, out->id, sizeof out->id));
    TRY(cursor_block(in, AUDIT_TEXT_MAX, &out->name));
    TRY(cursor_block(in, AUDIT_TEXT_MAX, &out->who));
    TRY(cursor_block(in, AUDIT_TEXT_MAX, &out->from));
    TRY(cursor_text(in, out->node_id, sizeof out->node_id));
    TRY(cursor_text(in, out->task_id, sizeof out->task_id));
    TRY(cursor_u32(in, &out->version));
    TRY(cursor_block(in, AUDIT_DETAIL_MAX, &out->detail));
    TRY(cursor_end(in));
    return check(out);
}

RESULT audit_decode(struct span record, struct audit_record *out) {
    struct cursor in = cursor_of(record);
    *out = (struct audit_record){.version = 0};
    return decode(&in, out) == OK ? OK : ERR_CORRUPT;
}

RESULT audit_add(struct buf *changes, const struct audit_record *a) {
    struct buf record = buf_new(AUDIT_RECORD_MAX);
    struct row_change c = {.action = ROW_CREATE, .kind = ROW_AUDIT, .id = AUDIT_NEXT};
    size_t before = changes->size;
    enum err e = audit_encode(a, &record);
    c.body = buf_span(&record);
    if (e == OK) e = row_change_add(changes, &c);
    if (e != OK) changes->size = before;
    buf_free(&record);
    return e;
}

/* --- the chain --- */

void audit_chain(const uint8_t prev[AUDIT_CHAIN], uint64_t number, int64_t time_ns,
                 struct span record, uint8_t out[AUDIT_CHAIN]) {
    static const uint8_t label[] = "conclave audit"; /* with its zero byte */
    crypto_generichash_state hash;
    uint8_t numbers[16];
    put_u64(numbers, number);
    put_u64(numbers + 8, (uint64_t)time_ns);
    (void)crypto_generichash_init(&hash, NULL, 0, AUDIT_CHAIN);
    (void)crypto_generichash_update(&hash, label, sizeof label);
    (void)crypto_generichash_update(&hash, prev, AUDIT_CHAIN);
    (void)crypto_generichash_update(&hash, numbers, sizeof numbers);
    (void)crypto_generichash_update(&hash, record.at, record.size);
    (void)crypto_generichash_final(&hash, out, AUDIT_CHAIN);
}

void audit_id(uint64_t number, char id[NODE_ID_SIZE + 1]) {
    _Static_assert(sizeof AUDIT_NEXT == NODE_ID_SIZE + 1, "an id is 25 digits");
    (void)snprintf(id, NODE_ID_SIZE + 1, "%025llu", (unsigned long long)number);
}

/* The number that an id of 25 digits says; 0: it says none. */
static uint64_t number_of(const char *id) {
    char again[NODE_ID_SIZE + 1];
    uint64_t number = 0;
    for (const char *at = id; *at >= '0' && *at <= '9'; at++)
        number = number * 10 + (uint64_t)(*at - '0');
    audit_id(number, again);
    return strcmp(id, again) == 0 ? number : 0;
}

void audit_link_next(uint64_t last, const uint8_t prev[AUDIT_CHAIN], int64_t time_ns,
                     struct span record, struct audit_next *out) {
    assert(record.size <= AUDIT_RECORD_MAX);
    audit_id(last + 1, out->id);
    memcpy(out->body, prev, AUDIT_CHAIN);
    audit_chain(prev, last + 1, time_ns, record, out->body + AUDIT_CHAIN);
    memcpy(out->body + 2 * AUDIT_CHAIN, record.at, record.size);
    out->size = 2 * AUDIT_CHAIN + record.size;
}

bool audit_follows(const struct audit_link *l, uint64_t last, const uint8_t prev[AUDIT_CHAIN]) {
    static const uint8_t none[AUDIT_CHAIN];
    uint8_t chain[AUDIT_CHAIN];
    audit_chain(l->prev, l->number, l->time_ns, l->record, chain);
    if (memcmp(chain, l->chain, AUDIT_CHAIN) != 0) return false;
    if (l->number == 1) return last == 0 && memcmp(l->prev, none, AUDIT_CHAIN) == 0;
    return last == 0 || (l->number == last + 1 && memcmp(l->prev, prev, AUDIT_CHAIN) == 0);
}

RESULT audit_read(const struct row *r, struct audit_link *out) {
    struct cursor in = cursor_of(r->body);
    out->number = number_of(r->id);
    out->time_ns = r->created_ns;
    if (out->number == 0 || out->number > AUDIT_NUMBER_MAX) return ERR_CORRUPT;
    if (cursor_copy(&in, out->prev, sizeof out->prev) != OK) return ERR_CORRUPT;
    if (cursor_copy(&in, out->chain, sizeof out->chain) != OK) return ERR_CORRUPT;
    if (in.left > AUDIT_RECORD_MAX) return ERR_CORRUPT;
    out->record = span_of(in.at, in.left);
    return audit_decode(out->record, &out->is);
}

void audit_each(const struct store *s, uint64_t number, row_each *each, void *ctx) {
    char from[NODE_ID_SIZE + 1];
    audit_id(number, from);
    row_from(s, ROW_AUDIT, from, each, ctx);
}

uint64_t audit_last(const struct store *s, uint8_t chain[AUDIT_CHAIN]) {
    memcpy(chain, s->state.rows.audit_chain, AUDIT_CHAIN);
    return s->state.rows.audit_last;
}
