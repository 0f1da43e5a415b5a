/* The frames of wire.h, as one table of fields a type: encoder and decoder walk the same table, so
 * they are inverse by construction, and what the encoder lets through the decoder takes.
 *
 * Format. A frame is u32 length (of all that follows, 1..FRAME_MAX - 4), u8 type (enum wire_type),
 * then the fields of its table below, in that order, without padding, and nothing after them:
 * - INT: little-endian, as wide as in its struct, within its range; BOOL: one byte, 0 or 1.
 * - TEXT: u32 length, that many bytes without a NUL. BLOCK: u32 length, bytes.
 * - BYTES: as many bytes as the struct has. KEY: a BLOCK of 0 or 32 bytes.
 * - ENTRIES: u32 n, then n times u64 term, u8 type (1..3), BLOCK data (<= ENTRY_MAX).
 * - MEMBERS: u32 n, then n times u64 raft_id, TEXT node_id, TEXT peer_address.
 *
 * The libraft structs travel without their `version`. Invariant: whatever fails leaves its output
 * as it was. */
#include "raft/wire.h"

#define APPEND_OVERHEAD (WIRE_HEADER + 4 * 8 + 4)
#define ENTRY_OVERHEAD  (8 + 1 + 4)
#define CONF_MAX        (MEMBERS_MAX * (ADDRESS_MAX + 32ULL) + 32ULL) /* an encoded configuration */
#define KEY_BYTES       32
#define VAULT_BLOCK_MAX 1024
#define CHUNK_DATA_MAX  (SNAPSHOT_CHUNK + SNAPSHOT_CHUNK / 255 + 16) /* LZ4's worst case */

enum kind { KIND_INT, KIND_TEXT, KIND_BLOCK, KIND_KEY, KIND_BYTES, KIND_ENTRIES, KIND_MEMBERS };

struct field {
    enum kind kind; /* how it travels */
    uint16_t at;    /* offset in struct wire_message */
    uint16_t size;  /* bytes in the struct */
    uint64_t min;   /* smallest integer */
    uint64_t max;   /* largest integer; longest block */
};

#define AT(f)   (uint16_t) offsetof(struct wire_message, f)
#define SIZE(f) (uint16_t)sizeof(((struct wire_message *)0)->f)
#define FIELD(kind, f, low, high)                                                                  \
    { kind, AT(f), SIZE(f), low, high }
#define RANGE(f, low, high) FIELD(KIND_INT, f, low, high)
#define INT(f)              RANGE(f, 0, UINT64_MAX)
#define BOOL(f)             RANGE(f, 0, 1)
#define TEXT(f)             FIELD(KIND_TEXT, f, 0, 0)
#define BLOCK(f, most)      FIELD(KIND_BLOCK, f, 0, most)
#define KEY(f)              FIELD(KIND_KEY, f, 0, KEY_BYTES)
#define BYTES(f)            FIELD(KIND_BYTES, f, 0, 0)
#define ENTRIES(f)          FIELD(KIND_ENTRIES, f, 0, 0)
#define MEMBERS(f)          FIELD(KIND_MEMBERS, f, 0, 0)

static const struct field hello_fields[] = {
    INT(hello.version),  INT(hello.raft_id),       TEXT(hello.cluster_id),
    TEXT(hello.node_id), TEXT(hello.peer_address),
};
static const struct field append_fields[] = {
    INT(append.term),   INT(append.prev_index), INT(append.prev_term),
    INT(append.commit), ENTRIES(append),
};
static const struct field append_result_fields[] = {
    INT(append_result.term),     INT(append_result.rejected), INT(append_result.last_log_index),
    INT(append_result.features), INT(append_result.capacity),
};
static const struct field vote_fields[] = {
    INT(vote.term),          INT(vote.candidate_id),    INT(vote.last_log_index),
    INT(vote.last_log_term), BOOL(vote.disrupt_leader), BOOL(vote.pre_vote),
};
static const struct field vote_result_fields[] = {
    INT(vote_result.term),     BOOL(vote_result.vote_granted), BOOL(vote_result.pre_vote),
    INT(vote_result.features), INT(vote_result.capacity),
};
static const struct field timeout_now_fields[] = {
    INT(timeout_now.term),
    INT(timeout_now.last_log_index),
    INT(timeout_now.last_log_term),
};
static const struct field ping_fields[] = {
    INT(ping.term),
    INT(ping.seq),
    INT(ping.hash_index),
    BYTES(ping.hash),
};
static const struct field pong_fields[] = {
    INT(pong.term),
    INT(pong.seq),
    INT(pong.applied),
    BOOL(pong.differs),
};
static const struct field forward_fields[] = {
    INT(forward.id),
    RANGE(forward.kind, FORWARD_COMMAND, FORWARD_CALL),
    BLOCK(forward.body, COMMAND_MAX),
};
static const struct field forwarded_fields[] = {
    INT(forwarded.id),
    RANGE(forwarded.error, OK, ERR_COUNT - 1),
    INT(forwarded.index),
    BLOCK(forwarded.body, RESULT_MAX),
};
static const struct field offer_fields[] = {
    INT(offer.term),
    INT(offer.index),
    INT(offer.snapshot_term),
    INT(offer.conf_index),
    BLOCK(offer.conf, CONF_MAX),
    INT(offer.chunks),
};
static const struct field want_fields[] = {
    INT(want.term),
    INT(want.index),
    INT(want.next),
    RANGE(want.want, WANT_CHUNKS, WANT_NOTHING),
};
static const struct field chunk_fields[] = {
    INT(chunk.term),
    INT(chunk.index),
    INT(chunk.chunk.number),
    RANGE(chunk.chunk.raw_size, 0, SNAPSHOT_CHUNK),
    BOOL(chunk.chunk.compressed),
    BOOL(chunk.chunk.last),
    BLOCK(chunk.chunk.data, CHUNK_DATA_MAX),
};
static const struct field join_fields[] = {
    RANGE(join.kind, JOIN_TOKEN, JOIN_EXPIRED),
    BOOL(join.member),
    TEXT(join.token),
    TEXT(join.name),
    TEXT(join.client_address),
    TEXT(join.peer_address),
    BLOCK(join.request, PEM_MAX),
    BLOCK(join.old_cert, PEM_MAX),
    BLOCK(join.proof, PROOF_MAX),
    TEXT(join.hostname),
    RANGE(join.availability, 0, 3),
};
static const struct field joined_fields[] = {
    RANGE(joined.error, OK, ERR_COUNT - 1),
    TEXT(joined.text),
    TEXT(joined.leader),
    RANGE(joined.role, 0, JOIN_MANAGER),
    INT(joined.raft_id),
    TEXT(joined.cluster_id),
    TEXT(joined.node_id),
    BLOCK(joined.cert, PEM_MAX),
    BLOCK(joined.root, PEM_MAX),
    KEY(joined.unlock_key),
    BLOCK(joined.vault, VAULT_BLOCK_MAX),
    MEMBERS(joined),
};
static const struct field node_fields[] = {
    INT(node.kind),
    BLOCK(node.body, SESSION_BODY_MAX),
};

struct schema {
    const struct field *fields; /* in the order on the wire */
    uint16_t n;                 /* how many */
    uint16_t size;              /* bytes of struct wire_message that this type uses */
};

#define SCHEMA(member)                                                                             \
    { member##_fields, ARRAY_SIZE(member##_fields), (uint16_t)(AT(member) + SIZE(member)) }

static const struct schema schemas[WIRE_TYPE_COUNT] = {
    [WIRE_HELLO] = SCHEMA(hello),
    [WIRE_APPEND] = SCHEMA(append),
    [WIRE_APPEND_RESULT] = SCHEMA(append_result),
    [WIRE_VOTE] = SCHEMA(vote),
    [WIRE_VOTE_RESULT] = SCHEMA(vote_result),
    [WIRE_TIMEOUT_NOW] = SCHEMA(timeout_now),
    [WIRE_PING] = SCHEMA(ping),
    [WIRE_PONG] = SCHEMA(pong),
    [WIRE_FORWARD] = SCHEMA(forward),
    [WIRE_FORWARDED] = SCHEMA(forwarded),
    [WIRE_SNAPSHOT_OFFER] = SCHEMA(offer),
    [WIRE_SNAPSHOT_WANT] = SCHEMA(want),
    [WIRE_SNAPSHOT_CHUNK] = SCHEMA(chunk),
    [WIRE_JOIN] = SCHEMA(join),
    [WIRE_JOINED] = SCHEMA(joined),
    [WIRE_NODE] = SCHEMA(node),
};

_Static_assert(sizeof(struct wire_message) <= UINT16_MAX, "offsets are 16 bits");

static const struct schema *schema_of(unsigned type) {
    return type >= WIRE_HELLO && type < WIRE_TYPE_COUNT ? &schemas[type] : NULL;
}

/* ---- integers of 1, 2, 4 or 8 bytes, in memory and on the wire ---- */

static uint64_t load(const void *at, size_t size) {
    uint8_t v1;
    uint16_t v2;
    uint32_t v4;
    uint64_t v8;
    switch (size) {
    case 1: memcpy(&v1, at, 1); return v1;
    case 2: memcpy(&v2, at, 2); return v2;
    case 4: memcpy(&v4, at, 4); return v4;
    default: memcpy(&v8, at, 8); return v8;
    }
}

static void store(void *at, size_t size, uint64_t v) {
    uint8_t v1 = (uint8_t)v;
    uint16_t v2 = (uint16_t)v;
    uint32_t v4 = (uint32_t)v;
    switch (size) {
    case 1: memcpy(at, &v1, 1); return;
    case 2: memcpy(at, &v2, 2); return;
    case 4: memcpy(at, &v4, 4); return;
    default: memcpy(at, &v, 8); return;
    }
}

static RESULT put_int(struct buf *out, uint64_t v, size_t size) {
    uint8_t raw[8];
    put_u64(raw, v);
    return buf_add(out, raw, size);
}

static RESULT get_int(struct cursor *c, size_t size, uint64_t *v) {
    uint8_t raw[8] = {0};
    TRY(cursor_copy(c, raw, size));
    *v = get_u64(raw);
    return OK;
}

/* ---- encoding ---- */

static RESULT put_text(struct buf *out, const char *text, size_t room) {
    size_t size = strnlen(text, room);
    if (size == room) return ERR_INVALID;
    return buf_block(out, span_of(text, size));
}

static RESULT put_block(struct buf *out, struct span s, uint64_t max) {
    if (s.size > max) return ERR_TOO_LARGE;
    return buf_block(out, s);
}

static RESULT put_entry(struct buf *out, const struct entry *e) {
    if (e->type < ENTRY_COMMAND || e->type > ENTRY_CHANGE) return ERR_INVALID;
    TRY(buf_u64(out, e->term));
    TRY(buf_u8(out, e->type));
    return put_block(out, span_of(e->data, e->size), ENTRY_MAX);
}

/* A message that was decoded has no `entries`; its raw bytes were verified then. */
static RESULT put_entries(struct buf *out, const struct wire_append *a) {
    if (a->n > INFLIGHT_ENTRIES_MAX) return ERR_TOO_LARGE;
    if (a->prev_index > UINT64_MAX - a->n) return ERR_INVALID;
    TRY(buf_u32(out, a->n));
    if (a->entries == NULL) return buf_add_span(out, a->raw);
    size_t total = 0;
    for (uint32_t i = 0; i < a->n; i++)
        total += ENTRY_OVERHEAD + a->entries[i]->size;
    TRY(buf_reserve(out, total));
    for (uint32_t i = 0; i < a->n; i++)
        TRY(put_entry(out, a->entries[i]));
    return OK;
}

static RESULT put_members(struct buf *out, const struct wire_joined *j) {
    if (j->n > MEMBERS_MAX) return ERR_TOO_LARGE;
    TRY(buf_u32(out, j->n));
    for (uint32_t i = 0; i < j->n; i++) {
        const struct wire_member *m = &j->members[i];
        TRY(buf_u64(out, m->raft_id));
        TRY(put_text(out, m->node_id, sizeof m->node_id));
        TRY(put_text(out, m->peer_address, sizeof m->peer_address));
    }
    return OK;
}

static RESULT put_field(struct buf *out, const struct field *f, const struct wire_message *m) {
    const uint8_t *at = (const uint8_t *)m + f->at;
    struct span s = {0};
    switch (f->kind) {
    case KIND_INT: {
        uint64_t v = load(at, f->size);
        if (v < f->min || v > f->max) return ERR_INVALID;
        return put_int(out, v, f->size);
    }
    case KIND_TEXT: return put_text(out, (const char *)at, f->size);
    case KIND_KEY:
    case KIND_BLOCK:
        memcpy(&s, at, sizeof s);
        if (f->kind == KIND_KEY && s.size != 0 && s.size != KEY_BYTES) return ERR_INVALID;
        return put_block(out, s, f->max);
    case KIND_BYTES: return buf_add(out, at, f->size);
    case KIND_ENTRIES: return put_entries(out, &m->append);
    case KIND_MEMBERS: return put_members(out, &m->joined);
    }
    return ERR_INTERNAL;
}

static RESULT put_frame(struct buf *out, size_t start, const struct schema *schema,
                        const struct wire_message *m) {
    TRY(buf_u32(out, 0));
    TRY(buf_u8(out, (uint8_t)m->type));
    for (uint16_t i = 0; i < schema->n; i++)
        TRY(put_field(out, &schema->fields[i], m));
    size_t size = out->size - start;
    if (size > FRAME_MAX) return ERR_TOO_LARGE;
    put_u32(out->at + start, (uint32_t)(size - 4));
    return OK;
}

RESULT wire_encode(const struct wire_message *m, struct buf *out) {
    const struct schema *schema = schema_of(m->type);
    if (schema == NULL) return ERR_INVALID;
    size_t start = out->size;
    enum err e = put_frame(out, start, schema, m);
    if (e != OK) out->size = start;
    return e;
}

/* ---- decoding ---- */

RESULT wire_next_entry(struct cursor *raw, struct wire_entry *out) {
    struct cursor ahead = *raw;
    struct wire_entry e = {0};
    TRY(cursor_u64(&ahead, &e.term));
    TRY(cursor_u8(&ahead, &e.type));
    if (e.type < ENTRY_COMMAND || e.type > ENTRY_CHANGE) return ERR_PROTOCOL;
    TRY(cursor_block(&ahead, ENTRY_MAX, &e.data));
    *raw = ahead;
    *out = e;
    return OK;
}

/* All entries are read once, so that wire_next_entry can't fail on a decoded message. */
static RESULT get_entries(struct cursor *c, struct wire_append *a) {
    struct wire_entry e;
    TRY(cursor_u32(c, &a->n));
    if (a->n > INFLIGHT_ENTRIES_MAX || a->prev_index > UINT64_MAX - a->n) return ERR_PROTOCOL;
    const uint8_t *first = c->at;
    size_t left = c->left;
    for (uint32_t i = 0; i < a->n; i++)
        TRY(wire_next_entry(c, &e));
    a->raw = span_of(first, left - c->left);
    return OK;
}

static RESULT get_members(struct cursor *c, struct wire_joined *j) {
    uint32_t n;
    TRY(cursor_u32(c, &n));
    if (n > MEMBERS_MAX) return ERR_PROTOCOL;
    for (j->n = 0; j->n < n; j->n++) {
        struct wire_member *m = &j->members[j->n];
        TRY(cursor_u64(c, &m->raft_id));
        TRY(cursor_text(c, m->node_id, sizeof m->node_id));
        TRY(cursor_text(c, m->peer_address, sizeof m->peer_address));
    }
    return OK;
}

static RESULT get_field(struct cursor *c, const struct field *f, struct wire_message *m) {
    uint8_t *at = (uint8_t *)m + f->at;
    struct span s;
    uint64_t v;
    switch (f->kind) {
    case KIND_INT:
        TRY(get_int(c, f->size, &v));
        if (v < f->min || v > f->max) return ERR_PROTOCOL;
        store(at, f->size, v);
        return OK;
    case KIND_TEXT: return cursor_text(c, (char *)at, f->size);
    case KIND_KEY:
    case KIND_BLOCK:
        TRY(cursor_block(c, f->max, &s));
        if (f->kind == KIND_KEY && s.size != 0 && s.size != KEY_BYTES) return ERR_PROTOCOL;
        memcpy(at, &s, sizeof s);
        return OK;
    case KIND_BYTES: return cursor_copy(c, at, f->size);
    case KIND_ENTRIES: return get_entries(c, &m->append);
    case KIND_MEMBERS: return get_members(c, &m->joined);
    }
    return ERR_INTERNAL;
}

/* What libraft expects of this version of itself; the wire does not carry them. */
static void set_versions(struct wire_message *m) {
    if (m->type == WIRE_VOTE) m->vote.version = 2;
    if (m->type == WIRE_VOTE_RESULT) m->vote_result.version = 2;
    if (m->type == WIRE_APPEND_RESULT) m->append_result.version = 2;
    if (m->type == WIRE_TIMEOUT_NOW) m->timeout_now.version = 0;
}

RESULT wire_frame_size(struct span bytes, size_t *size) {
    if (bytes.size < 4) {
        *size = 0;
        return OK;
    }
    uint32_t length = get_u32(bytes.at);
    if (length < 1 || length > FRAME_MAX - 4) return ERR_PROTOCOL;
    *size = (size_t)length + 4;
    return OK;
}

RESULT wire_decode(struct span frame, struct wire_message *out) {
    size_t size;
    TRY(wire_frame_size(frame, &size));
    if (frame.size < WIRE_HEADER || size != frame.size) return ERR_PROTOCOL;
    const struct schema *schema = schema_of(frame.at[4]);
    if (schema == NULL) return ERR_PROTOCOL;

    struct wire_message m; /* only the part that this type uses is touched */
    memset(&m, 0, schema->size);
    m.type = (enum wire_type)frame.at[4];
    struct cursor c = cursor_of(span_of(frame.at + WIRE_HEADER, frame.size - WIRE_HEADER));
    for (uint16_t i = 0; i < schema->n; i++)
        TRY(get_field(&c, &schema->fields[i], &m));
    TRY(cursor_end(&c));
    set_versions(&m);
    memcpy(out, &m, schema->size);
    return OK;
}

size_t wire_append_overhead(void) { return APPEND_OVERHEAD; }
size_t wire_entry_overhead(void) { return ENTRY_OVERHEAD; }
