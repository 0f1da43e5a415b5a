/* Reading snapshots; the layout stands at the top of snapshot.c. Opening walks over the chunks'
 * heads and opens the end record, and remembers where each chunk begins (8 bytes a chunk); the data
 * of a chunk are verified when the chunk is read. */
#include <stdlib.h>

#include <lz4.h>

#include "raft/snapshot_format.h"

struct snapshot_reader {
    struct snapshot_options o;   /* as given */
    struct envelope envelope;    /* of the file */
    struct sealer *sealer;       /* of the file */
    struct file *file;           /* open for reading */
    char path[PATH_ROOM];        /* its name */
    uint64_t size;               /* its bytes */
    uint8_t conf[SNAP_CONF_MAX]; /* the configuration */
    uint64_t *places;            /* where chunks begin; one more: where the last one ends */
    size_t count, room;          /* chunks, the end record included; allocated */
    uint8_t sealed[SNAP_CHUNK];  /* the chunk being read */
};

static RESULT damage(const struct snapshot_reader *r, uint64_t at, const char *what,
                     struct why *why) {
    return fail_with(why, ERR_CORRUPT, "%s: byte %llu: %s", r->path, (unsigned long long)at, what);
}

/* Exactly `size` bytes into `sealed`. */
static RESULT in_bytes(struct snapshot_reader *r, uint64_t at, size_t size, struct why *why) {
    size_t got = 0;
    if (at > r->size || size > r->size - at) return damage(r, r->size, "the file is cut off", why);
    for (size_t done = 0; done < size; done += got) {
        size_t part = size - done < SNAP_PIECE ? size - done : SNAP_PIECE;
        TRY(r->o.disk->read(r->file, at + done, r->sealed + done, part, &got, why));
        if (got != part) return damage(r, at + done + got, "the file is cut off", why);
    }
    return OK;
}

static RESULT header_read(struct snapshot_reader *r, struct snap_header *h, struct why *why) {
    TRY(in_bytes(r, 0, SNAP_HEADER, why));
    TRY(envelope_read(span_of(r->sealed, SNAP_HEADER), &snap_kind, r->path, 0, &r->envelope, why));
    TRY(envelope_sealer(&r->envelope, &snap_kind, r->o.keys, r->path, 0, &r->sealer, why));
    enum err e = snap_header_open(r->sealer, &r->o.identity, r->sealed, h);
    if (e == ERR_CORRUPT) return damage(r, 0, "the header does not authenticate", why);
    TRY(e);
    TRY(in_bytes(r, 0, SNAP_HEADER + h->conf_size + SEAL_TAG, why));
    e = snap_conf_open(r->sealer, h, r->sealed, r->sealed + SNAP_HEADER, r->conf);
    if (e == ERR_CORRUPT)
        return damage(r, SNAP_HEADER, "the configuration does not authenticate", why);
    return e;
}

static RESULT place_add(struct snapshot_reader *r, uint64_t at) {
    if (r->count + 1 >= r->room) {
        size_t room = r->room == 0 ? 64 : r->room * 2;
        uint64_t *places = realloc(r->places, room * sizeof *places);
        if (places == NULL) return ERR_NOMEM;
        r->places = places;
        r->room = room;
    }
    r->places[r->count] = at;
    return OK;
}

/* Walks from head to head to the end record, which must be where the file ends. */
static RESULT walk(struct snapshot_reader *r, uint64_t at, struct why *why) {
    struct snap_head h = {0};
    while (!h.last) {
        TRY(in_bytes(r, at, SNAP_HEAD, why));
        enum err e = snap_head_open(&r->envelope, r->sealer, r->count, r->sealed, &h);
        if (e == ERR_CORRUPT) return damage(r, at, "the chunk's head does not authenticate", why);
        TRY(e);
        TRY(place_add(r, at));
        at += SNAP_HEAD + (uint64_t)h.data_size + SEAL_TAG;
        r->count++;
        TRY(place_add(r, at));
    }
    return at == r->size ? OK : damage(r, at, "the file goes on behind its end record", why);
}

static RESULT chunk_read(struct snapshot_reader *r, uint64_t number, struct snap_head *h,
                         uint8_t *data, struct why *why) {
    uint64_t at = r->places[number];
    TRY(in_bytes(r, at, (size_t)(r->places[number + 1] - at), why));
    enum err e = snap_head_open(&r->envelope, r->sealer, number, r->sealed, h);
    if (e == OK && at + SNAP_HEAD + h->data_size + SEAL_TAG != r->places[number + 1])
        e = ERR_CORRUPT;
    if (e == OK) e = snap_data_open(&r->envelope, r->sealer, number, h, r->sealed, data);
    if (e == ERR_CORRUPT) return damage(r, at, "the chunk does not authenticate", why);
    return e;
}

static RESULT end_check(struct snapshot_reader *r, struct why *why) {
    uint8_t data[SNAP_END_DATA];
    struct snap_head h;
    TRY(chunk_read(r, r->count - 1, &h, data, why));
    if (get_u64(data + STATE_HASH_SIZE) == r->count - 1) return OK;
    return damage(r, r->places[r->count - 1], "the end record counts other chunks", why);
}

static RESULT reader_start(struct snapshot_reader *r, uint64_t index, struct snapshot_meta *meta,
                           struct why *why) {
    struct disk *d = r->o.disk;
    struct snap_header h = {0};
    snap_path(index, "snap", r->path);
    TRY(d->open(d, r->path, r->o.beside ? DISK_READ | DISK_BULK : DISK_READ, &r->file, why));
    TRY(d->size(r->file, &r->size, why));
    TRY(header_read(r, &h, why));
    if (h.index != index) return damage(r, 0, "the snapshot of another index", why);
    if (r->o.ballot != NULL) TRY(ballot_require(r->o.ballot, h.ballot, r->path, why));
    TRY(walk(r, SNAP_HEADER + h.conf_size + SEAL_TAG, why));
    TRY(end_check(r, why));
    *meta = (struct snapshot_meta){.index = h.index,
                                   .term = h.term,
                                   .conf_index = h.conf_index,
                                   .conf = span_of(r->conf, h.conf_size)};
    return OK;
}

RESULT snapshot_open(const struct snapshot_options *o, uint64_t index, struct snapshot_reader **out,
                     struct snapshot_meta *meta, struct why *why) {
    struct snapshot_reader *r = malloc(sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    r->o = *o;
    r->sealer = NULL;
    r->file = NULL;
    r->places = NULL;
    r->count = r->room = 0;
    enum err e = reader_start(r, index, meta, why);
    if (e == OK)
        *out = r;
    else
        snapshot_close(r);
    return e;
}

void snapshot_close(struct snapshot_reader *r) {
    if (r == NULL) return;
    if (r->file != NULL) r->o.disk->close(r->file);
    sealer_free(r->sealer);
    free(r->places);
    free(r);
}

RESULT snapshot_read(struct snapshot_reader *r, uint64_t number, struct buf *scratch,
                     struct snapshot_chunk *c, struct why *why) {
    struct snap_head h;
    if (number >= r->count)
        return fail_with(why, ERR_NOT_FOUND, "%s: there is no chunk %llu", r->path,
                         (unsigned long long)number);
    size_t size = (size_t)(r->places[number + 1] - r->places[number]) - SNAP_HEAD - SEAL_TAG;
    buf_clear(scratch);
    TRY(buf_reserve(scratch, size));
    TRY(chunk_read(r, number, &h, scratch->at, why));
    scratch->size = size;
    *c = (struct snapshot_chunk){.number = number,
                                 .raw_size = h.raw_size,
                                 .compressed = h.compressed,
                                 .last = h.last,
                                 .data = buf_span(scratch)};
    return OK;
}

RESULT snapshot_inflate(const struct snapshot_chunk *c, struct buf *raw) {
    if (c->last || c->raw_size > SNAPSHOT_CHUNK || c->data.size > SNAPSHOT_CHUNK)
        return ERR_CORRUPT;
    buf_clear(raw);
    if (!c->compressed)
        return c->data.size == c->raw_size ? buf_add_span(raw, c->data) : ERR_CORRUPT;
    TRY(buf_reserve(raw, c->raw_size));
    int size = LZ4_decompress_safe((const char *)c->data.at, (char *)raw->at, (int)c->data.size,
                                   (int)c->raw_size);
    if (size < 0 || (uint32_t)size != c->raw_size) return ERR_CORRUPT;
    raw->size = c->raw_size;
    return OK;
}

uint64_t snapshot_chunks(const struct snapshot_reader *r) { return r->count; }
uint64_t snapshot_size(const struct snapshot_reader *r) { return r->size; }
uint32_t snapshot_generation(const struct snapshot_reader *r) { return r->envelope.generation; }
