/* Encoding and decoding of snapshot files; the layout stands at the top of snapshot.c. */
#include "raft/snapshot_format.h"

#include <stdio.h>

_Static_assert(SNAP_HEADER == 142, "as specified");

#define FLAG_COMPRESSED 1u
#define FLAG_LAST       2u

const struct envelope_kind snap_kind = {"CONCSNAP", 1, "snapshot"};

void snap_path(uint64_t index, const char *suffix, char out[PATH_ROOM]) {
    (void)snprintf(out, PATH_ROOM, SNAP_DIR "/%016llx.%s", (unsigned long long)index, suffix);
}

static struct span tag_before(const uint8_t *end) { return span_of(end - SEAL_TAG, SEAL_TAG); }

RESULT snap_header_seal(const struct envelope *e, struct sealer *s, const struct identity *who,
                        const struct snap_header *h, struct span conf, uint8_t *out) {
    const uint64_t numbers[] = {h->index, h->term, h->conf_index, h->ballot};
    uint8_t *at = out + ENVELOPE_SIZE;
    envelope_write(e, &snap_kind, out);
    identity_write(who, at);
    at += IDENTITY_SIZE;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++, at += 8)
        put_u64(at, numbers[i]);
    put_u32(at, h->conf_size);
    TRY(seal(s, 0, span_of(out, ENVELOPE_SIZE), span_of(out + ENVELOPE_SIZE, SNAP_HEADER_PLAIN),
             out + ENVELOPE_SIZE));
    return seal(s, 1, tag_before(out + SNAP_HEADER), conf, out + SNAP_HEADER);
}

RESULT snap_header_open(struct sealer *s, const struct identity *who, const uint8_t *raw,
                        struct snap_header *h) {
    uint8_t plain[SNAP_HEADER_PLAIN];
    const uint8_t *at = plain + IDENTITY_SIZE;
    uint64_t *const numbers[] = {&h->index, &h->term, &h->conf_index, &h->ballot};
    TRY(unseal(s, 0, span_of(raw, ENVELOPE_SIZE),
               span_of(raw + ENVELOPE_SIZE, SNAP_HEADER_PLAIN + SEAL_TAG), plain));
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++, at += 8)
        *numbers[i] = get_u64(at);
    h->conf_size = get_u32(at);
    return identity_matches(who, plain) && h->conf_size <= SNAP_CONF_MAX ? OK : ERR_CORRUPT;
}

RESULT snap_conf_open(struct sealer *s, const struct snap_header *h, const uint8_t *header,
                      const uint8_t *raw, uint8_t *conf) {
    return unseal(s, 1, tag_before(header + SNAP_HEADER), span_of(raw, h->conf_size + SEAL_TAG),
                  conf);
}

bool snap_chunk_sane(const struct snap_head *h) {
    if (h->last) return !h->compressed && h->raw_size == 0 && h->data_size == SNAP_END_DATA;
    if (h->raw_size == 0 || h->raw_size > SNAPSHOT_CHUNK || h->data_size == 0) return false;
    return h->compressed ? h->data_size < h->raw_size : h->data_size == h->raw_size;
}

/* Associated data: file id, number; for the data also the head's tag. */
struct bond {
    uint8_t at[ENVELOPE_ID + 8 + SEAL_TAG];
};

static struct span bond_head(struct bond *b, const struct envelope *e, uint64_t number) {
    memcpy(b->at, e->id, ENVELOPE_ID);
    put_u64(b->at + ENVELOPE_ID, number);
    return span_of(b->at, ENVELOPE_ID + 8);
}

static struct span bond_data(struct bond *b, const struct envelope *e, uint64_t number,
                             const uint8_t *chunk) {
    (void)bond_head(b, e, number);
    memcpy(b->at + ENVELOPE_ID + 8, chunk + SNAP_HEAD_PLAIN, SEAL_TAG);
    return span_of(b->at, sizeof b->at);
}

RESULT snap_chunk_seal(const struct envelope *e, struct sealer *s, const struct snapshot_chunk *c,
                       uint8_t *out) {
    struct bond bond;
    put_u32(out, c->raw_size);
    put_u32(out + 4, (uint32_t)c->data.size);
    put_u32(out + 8, (c->compressed ? FLAG_COMPRESSED : 0) | (c->last ? FLAG_LAST : 0));
    put_u32(out + 12, 0);
    TRY(seal(s, 2 * c->number + 2, bond_head(&bond, e, c->number), span_of(out, SNAP_HEAD_PLAIN),
             out));
    return seal(s, 2 * c->number + 3, bond_data(&bond, e, c->number, out), c->data,
                out + SNAP_HEAD);
}

RESULT snap_head_open(const struct envelope *e, struct sealer *s, uint64_t number,
                      const uint8_t *raw, struct snap_head *h) {
    struct bond bond;
    uint8_t plain[SNAP_HEAD_PLAIN];
    TRY(unseal(s, 2 * number + 2, bond_head(&bond, e, number), span_of(raw, SNAP_HEAD), plain));
    uint32_t flags = get_u32(plain + 8);
    h->raw_size = get_u32(plain);
    h->data_size = get_u32(plain + 4);
    h->compressed = (flags & FLAG_COMPRESSED) != 0;
    h->last = (flags & FLAG_LAST) != 0;
    return snap_chunk_sane(h) ? OK : ERR_CORRUPT;
}

RESULT snap_data_open(const struct envelope *e, struct sealer *s, uint64_t number,
                      const struct snap_head *h, const uint8_t *raw, uint8_t *data) {
    struct bond bond;
    return unseal(s, 2 * number + 3, bond_data(&bond, e, number, raw),
                  span_of(raw + SNAP_HEAD, h->data_size + SEAL_TAG), data);
}
