/* Encoding and decoding of the log's bytes; the layout stands at the top of wal.c. Everything is
 * decoded into locals or into the caller's output, after the seal was checked; what is sealed is
 * checked too, so that a fault of this program is found as damage and not believed. */
#include "raft/wal_format.h"

#include <stdio.h>

#define HEADER_PLAIN (IDENTITY_SIZE + 6 * 8 + 1 + SEAL_TAG)
#define HEADER_END   (ENVELOPE_SIZE + HEADER_PLAIN + SEAL_TAG)
#define LARGE_ENTRY  2048 /* bytes from which on a copy costs more than another piece */
_Static_assert(HEADER_END == 171 && HEADER_END <= SECTOR_SIZE, "the header is one sector");

const struct envelope_kind wal_kind = {"CONCSEGM", 1, "wal segment"};

void wal_path(uint64_t sequence, char out[PATH_ROOM]) {
    (void)snprintf(out, PATH_ROOM, WAL_PATH, (unsigned long long)sequence);
}

/* Compares a run of bytes with itself, shifted by one: memcmp is the fastest loop there is. */
bool wal_is_zero(const uint8_t *at, uint64_t size) {
    return size == 0 || (at[0] == 0 && memcmp(at, at + 1, (size_t)size - 1) == 0);
}

RESULT wal_header_seal(const struct envelope *e, struct sealer *s, const struct identity *who,
                       const struct wal_header *h, uint8_t *block, uint8_t tag[SEAL_TAG]) {
    const uint64_t numbers[] = {h->sequence,         h->size,        h->first, h->ballot,
                                h->previous_records, h->previous_end};
    memset(block, 0, BLOCK_SIZE);
    envelope_write(e, &wal_kind, block);
    uint8_t *at = block + ENVELOPE_SIZE;
    identity_write(who, at);
    at += IDENTITY_SIZE;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++, at += 8)
        put_u64(at, numbers[i]);
    *at++ = h->reset ? 1 : 0;
    memcpy(at, h->previous_tag, SEAL_TAG);
    TRY(seal(s, 0, span_of(block, ENVELOPE_SIZE), span_of(block + ENVELOPE_SIZE, HEADER_PLAIN),
             block + ENVELOPE_SIZE));
    memcpy(tag, block + HEADER_END - SEAL_TAG, SEAL_TAG);
    return OK;
}

static RESULT header_damage(struct why *why, const char *path, unsigned at, const char *what) {
    return fail_with(why, ERR_CORRUPT, "%s: byte %u: %s", path, at, what);
}

static void header_decode(const uint8_t *at, struct wal_header *h) {
    uint64_t *const numbers[] = {&h->sequence,         &h->size,        &h->first, &h->ballot,
                                 &h->previous_records, &h->previous_end};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++, at += 8)
        *numbers[i] = get_u64(at);
    h->reset = *at++ != 0;
    memcpy(h->previous_tag, at, SEAL_TAG);
}

RESULT wal_header_open(struct sealer *s, const struct identity *who, const uint8_t *block,
                       const char *path, struct wal_header *h, uint8_t tag[SEAL_TAG],
                       struct why *why) {
    uint8_t plain[HEADER_PLAIN];
    enum err e = unseal(s, 0, span_of(block, ENVELOPE_SIZE),
                        span_of(block + ENVELOPE_SIZE, HEADER_PLAIN + SEAL_TAG), plain);
    if (e == ERR_CORRUPT)
        return header_damage(why, path, ENVELOPE_SIZE,
                             "the segment's header does not authenticate");
    TRY(e);
    if (!identity_matches(who, plain))
        return header_damage(why, path, ENVELOPE_SIZE,
                             "the segment belongs to another node or cluster");
    if (!wal_is_zero(block + HEADER_END, BLOCK_SIZE - HEADER_END))
        return header_damage(why, path, HEADER_END, "not zero after the segment's header");
    header_decode(plain + IDENTITY_SIZE, h);
    memcpy(tag, block + HEADER_END - SEAL_TAG, SEAL_TAG);
    if (h->first == 0 || h->size % BLOCK_SIZE != 0 || h->size < 2 * BLOCK_SIZE)
        return header_damage(why, path, ENVELOPE_SIZE, "the segment's header contradicts itself");
    return OK;
}

uint64_t wal_body_size(uint64_t bytes) {
    uint64_t sealed = wal_sealed_size(bytes);
    return bytes + (SECTOR_SIZE - sealed % SECTOR_SIZE) % SECTOR_SIZE;
}

uint64_t wal_entry_size(const struct entry *e) { return WAL_ENTRY_HEAD + (uint64_t)e->size; }

/* Associated data: segment id, record number; for the body also the head's tag. */
struct bond {
    uint8_t at[ENVELOPE_ID + 8 + SEAL_TAG];
};

static struct span bond_head(struct bond *b, const struct envelope *e, uint64_t number) {
    memcpy(b->at, e->id, ENVELOPE_ID);
    put_u64(b->at + ENVELOPE_ID, number);
    return span_of(b->at, ENVELOPE_ID + 8);
}

static struct span bond_body(struct bond *b, const struct envelope *e, uint64_t number,
                             const uint8_t *record) {
    (void)bond_head(b, e, number);
    memcpy(b->at + ENVELOPE_ID + 8, record + WAL_HEAD_PLAIN, SEAL_TAG);
    return span_of(b->at, sizeof b->at);
}

/* The body into its place. Small entries are gathered there and sealed as one piece; the bytes of a
 * large one are sealed from where they lie. */
static RESULT body_seal(struct sealing *g, struct entry *const *entries, const struct wal_head *h) {
    uint8_t *at = g->out, *end = g->out + h->body;
    for (uint32_t i = 0; i < h->count; i++) {
        const struct entry *e = entries[i];
        put_u64(at, e->term);
        at[8] = e->type;
        put_u32(at + 9, e->size);
        at += WAL_ENTRY_HEAD;
        if (e->size >= LARGE_ENTRY) {
            TRY(seal_add(g, span_of(g->at, (size_t)(at - g->at))));
            TRY(seal_add(g, span_of(e->data, e->size)));
        } else if (e->size != 0) {
            memcpy(at, e->data, e->size);
        }
        at += e->size;
    }
    memset(at, 0, (size_t)(end - at));
    return seal_add(g, span_of(g->at, (size_t)(end - g->at)));
}

RESULT wal_record_seal(const struct envelope *e, struct sealer *s, const struct wal_head *head,
                       struct entry *const *entries, uint8_t *at, uint8_t tag[SEAL_TAG]) {
    struct sealing g;
    struct bond bond;
    uint64_t sealed = wal_sealed_size(head->body);
    put_u32(at, head->body);
    put_u32(at + 4, head->count);
    put_u64(at + 8, head->first);
    put_u64(at + 16, head->number);
    put_u64(at + 24, head->ballot);
    memcpy(at + 32, head->previous, SEAL_TAG);
    TRY(seal(s, 2 * head->number - 1, bond_head(&bond, e, head->number),
             span_of(at, WAL_HEAD_PLAIN), at));
    TRY(seal_begin(&g, s, 2 * head->number, bond_body(&bond, e, head->number, at), at + WAL_HEAD));
    TRY(body_seal(&g, entries, head));
    TRY(seal_end(&g));
    memset(at + sealed, 0, (size_t)(wal_extent(head->body) - sealed));
    memcpy(tag, at + sealed - SEAL_TAG, SEAL_TAG);
    return OK;
}

RESULT wal_head_open(const struct envelope *e, struct sealer *s, uint64_t number, const uint8_t *at,
                     struct wal_head *head) {
    struct bond bond;
    uint8_t plain[WAL_HEAD_PLAIN];
    TRY(unseal(s, 2 * number - 1, bond_head(&bond, e, number), span_of(at, WAL_HEAD), plain));
    head->body = get_u32(plain);
    head->count = get_u32(plain + 4);
    head->first = get_u64(plain + 8);
    head->number = get_u64(plain + 16);
    head->ballot = get_u64(plain + 24);
    memcpy(head->previous, plain + 32, SEAL_TAG);
    uint64_t sealed = wal_sealed_size(head->body);
    bool sane = head->number == number && head->count != 0 && sealed % SECTOR_SIZE == 0 &&
                sealed <= RECORD_MAX;
    return sane ? OK : ERR_CORRUPT;
}

RESULT wal_body_open(const struct envelope *e, struct sealer *s, const struct wal_head *head,
                     const uint8_t *at, uint8_t *plain, uint8_t tag[SEAL_TAG]) {
    struct bond bond;
    TRY(unseal(s, 2 * head->number, bond_body(&bond, e, head->number, at),
               span_of(at + WAL_HEAD, head->body + SEAL_TAG), plain));
    memcpy(tag, at + WAL_HEAD + head->body, SEAL_TAG);
    return OK;
}

/* One entry's head and bytes. */
struct raw_entry {
    uint64_t term;    /* its term */
    uint8_t type;     /* enum entry_type */
    struct span data; /* its bytes */
};

static RESULT raw_read(struct cursor *c, struct raw_entry *r) {
    TRY(cursor_u64(c, &r->term));
    TRY(cursor_u8(c, &r->type));
    TRY(cursor_block(c, ENTRY_MAX, &r->data));
    return r->type >= ENTRY_COMMAND && r->type <= ENTRY_CHANGE ? OK : ERR_PROTOCOL;
}

RESULT wal_body_check(const struct wal_head *head, struct span body, uint64_t *payload) {
    struct cursor c = cursor_of(body);
    *payload = 0;
    for (uint32_t i = 0; i < head->count; i++) {
        struct raw_entry r;
        if (raw_read(&c, &r) != OK) return ERR_CORRUPT;
        *payload += r.data.size;
    }
    return c.left < SECTOR_SIZE && wal_is_zero(c.at, c.left) ? OK : ERR_CORRUPT;
}

static RESULT raw_entry_make(const struct raw_entry *r, uint64_t index, struct entry **out) {
    TRY(entry_new(index, r->term, (enum entry_type)r->type, r->data.size, out));
    if (r->data.size != 0) memcpy((*out)->data, r->data.at, r->data.size);
    return OK;
}

RESULT wal_body_read(const struct wal_head *head, struct span body,
                     enum err (*each)(void *ctx, struct entry *e), void *ctx) {
    uint64_t payload;
    struct cursor c = cursor_of(body);
    TRY(wal_body_check(head, body, &payload));
    for (uint32_t i = 0; i < head->count; i++) {
        struct raw_entry r;
        struct entry *e = NULL;
        TRY(raw_read(&c, &r));
        TRY(raw_entry_make(&r, head->first + i, &e));
        TRY(each(ctx, e));
    }
    return OK;
}
