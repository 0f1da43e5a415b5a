/* Writing snapshots, and the directory that they lie in; reading is in snapshot_read.c. A file is
 * `snapshots/<index as 16 hex digits>.snap`; under the name `.part` it is none yet.
 *
 *     0   40  envelope (envelope.h), magic "CONCSNAP", purpose "snapshot"
 *    40   50  \  cluster id (25), node id (25), padded with zeros
 *    90    8   | index of the last entry that it contains
 *    98    8   | its term
 *   106    8   | index where the configuration was committed
 *   114    8   | ballot count when it was begun
 *   122    4   | c: bytes of the configuration
 *   126   16  /  sealed with counter 0; associated data: the envelope
 *   142    c  \  the configuration
 *  142+c  16  /  sealed with counter 1; associated data: the tag before
 *  158+c         chunks k = 0, 1, 2, ... one behind the other:
 *
 *     0    4  \  bytes of state in it, 1 to SNAPSHOT_CHUNK; 0 in the end record
 *     4    4   | d: bytes of data
 *     8    4   | flags: 1 the data are LZ4 (and shorter than the state), 2 end record
 *    12    4   | zero
 *    16   16  /  sealed with counter 2k + 2; associated data: file id, k (8)
 *    32    d  \  data; of the end record: state hash (32), k (8)
 *  32+d   16  /  sealed with counter 2k + 3; associated data: file id, k (8), tag of the head
 *
 * The end record is the last chunk, and the file ends with it. What is written goes past the page
 * cache in pieces of SNAP_PIECE and is synced every SYNC_BYTES, so that the log beside it, perhaps
 * another member's on the same disk, never waits for much; the last piece is padded to a block, and
 * then the file is cut to its end. */
#include <stdlib.h>

#include <lz4.h>

#include "raft/snapshot_format.h"

#define SYNC_BYTES (32 * MIB)
_Static_assert(SNAP_PIECE % BLOCK_SIZE == 0 && SYNC_BYTES % SNAP_PIECE == 0, "whole blocks");
_Static_assert(SNAPSHOT_CHUNK <= LZ4_MAX_INPUT_SIZE, "a chunk is one LZ4 block");

struct snapshot_writer {
    struct snapshot_options o; /* as given */
    struct envelope envelope;  /* of the file */
    struct sealer *sealer;     /* of the file */
    struct file *file;         /* the part file; NULL once closed */
    uint64_t index;            /* its name */
    uint64_t number;           /* of the next chunk */
    uint64_t end;              /* bytes given to the disk, and of them ... */
    uint64_t synced;           /* ... certainly durable */
    uint8_t *piece;            /* SNAP_PIECE, aligned: what goes next */
    size_t held;               /* bytes in it */
    uint8_t *sealed;           /* SNAP_CHUNK bytes: the chunk being made */
    uint8_t *squeezed;         /* SNAPSHOT_CHUNK bytes: LZ4 output */
};

/* The piece as it is, padded to a block. */
static RESULT out_piece(struct snapshot_writer *w, struct why *why) {
    struct disk *d = w->o.disk;
    size_t size = (w->held + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
    memset(w->piece + w->held, 0, size - w->held);
    TRY(d->write(w->file, w->end, w->piece, size, why));
    w->end += w->held;
    w->held = 0;
    if (w->end - w->synced < SYNC_BYTES) return OK;
    w->synced = w->end;
    return d->sync(w->file, why);
}

static RESULT out_bytes(struct snapshot_writer *w, const uint8_t *at, size_t size,
                        struct why *why) {
    while (size > 0) {
        size_t room = SNAP_PIECE - w->held, part = size < room ? size : room;
        memcpy(w->piece + w->held, at, part);
        w->held += part;
        at += part;
        size -= part;
        if (w->held == SNAP_PIECE) TRY(out_piece(w, why));
    }
    return OK;
}

/* What is left; then the file is as long as it says, and durable. */
static RESULT out_end(struct snapshot_writer *w, struct why *why) {
    struct disk *d = w->o.disk;
    if (w->held > 0) TRY(out_piece(w, why));
    TRY(d->allocate(w->file, w->end, why));
    return d->sync(w->file, why);
}

static RESULT write_header(struct snapshot_writer *w, const struct snapshot_meta *meta,
                           struct why *why) {
    size_t size = SNAP_HEADER + meta->conf.size + SEAL_TAG;
    struct snap_header h = {.index = meta->index,
                            .term = meta->term,
                            .conf_index = meta->conf_index,
                            .conf_size = (uint32_t)meta->conf.size};
    if (w->o.ballot != NULL) h.ballot = ballot_count(w->o.ballot);
    uint8_t *raw = malloc(size);
    if (raw == NULL) return ERR_NOMEM;
    enum err e = snap_header_seal(&w->envelope, w->sealer, &w->o.identity, &h, meta->conf, raw);
    if (e == OK) e = out_bytes(w, raw, size, why);
    free(raw);
    return e;
}

static RESULT open_part(struct snapshot_writer *w, struct why *why) {
    struct disk *d = w->o.disk;
    char path[PATH_ROOM];
    snap_path(w->index, "part", path);
    TRY(d->make_dir(d, SNAP_DIR, why));
    TRY(d->sync_dir(d, "", why));
    enum err e = d->remove(d, path, NULL);
    if (e != OK && e != ERR_NOT_FOUND) return fail_with(why, e, "%s: can't be removed", path);
    envelope_new(&w->envelope, w->o.keys, w->o.alg);
    TRY(envelope_sealer(&w->envelope, &snap_kind, w->o.keys, path, 0, &w->sealer, why));
    return d->open(d, path, DISK_CREATE | DISK_BULK, &w->file, why);
}

RESULT snapshot_create(const struct snapshot_options *o, const struct snapshot_meta *meta,
                       struct snapshot_writer **out, struct why *why) {
    if (meta->conf.size > SNAP_CONF_MAX) return ERR_TOO_LARGE;
    struct snapshot_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return ERR_NOMEM;
    w->o = *o;
    w->index = meta->index;
    w->sealed = malloc(SNAP_CHUNK);
    w->squeezed = malloc(SNAPSHOT_CHUNK);
    w->piece = aligned_alloc(BLOCK_SIZE, SNAP_PIECE);
    bool memory = w->sealed != NULL && w->squeezed != NULL && w->piece != NULL;
    enum err e = memory ? OK : ERR_NOMEM;
    if (e == OK) e = open_part(w, why);
    if (e == OK) e = write_header(w, meta, why);
    if (e == OK)
        *out = w;
    else
        snapshot_abort(w);
    return e;
}

static RESULT put_chunk(struct snapshot_writer *w, const struct snapshot_chunk *c,
                        struct why *why) {
    TRY(snap_chunk_seal(&w->envelope, w->sealer, c, w->sealed));
    TRY(out_bytes(w, w->sealed, SNAP_HEAD + c->data.size + SEAL_TAG, why));
    w->number++;
    return OK;
}

static RESULT put_raw(struct snapshot_writer *w, struct span raw, struct why *why) {
    struct snapshot_chunk c = {.number = w->number, .raw_size = (uint32_t)raw.size, .data = raw};
    int size = LZ4_compress_default((const char *)raw.at, (char *)w->squeezed, (int)raw.size,
                                    (int)raw.size - 1);
    if (size > 0) {
        c.compressed = true;
        c.data = span_of(w->squeezed, (size_t)size);
    }
    return put_chunk(w, &c, why);
}

RESULT snapshot_write(struct snapshot_writer *w, struct span raw, struct why *why) {
    while (raw.size != 0) {
        size_t part = raw.size < SNAPSHOT_CHUNK ? raw.size : SNAPSHOT_CHUNK;
        TRY(put_raw(w, span_of(raw.at, part), why));
        raw = span_of(raw.at + part, raw.size - part);
    }
    return OK;
}

RESULT snapshot_write_chunk(struct snapshot_writer *w, const struct snapshot_chunk *c,
                            struct why *why) {
    struct snap_head h = {.raw_size = c->raw_size,
                          .data_size = (uint32_t)c->data.size,
                          .compressed = c->compressed,
                          .last = c->last};
    if (c->number != w->number)
        return fail_with(why, ERR_PROTOCOL, "snapshot: chunk %llu came, chunk %llu is the next",
                         (unsigned long long)c->number, (unsigned long long)w->number);
    if (c->data.size > SNAPSHOT_CHUNK || !snap_chunk_sane(&h))
        return fail_with(why, ERR_PROTOCOL, "snapshot: chunk %llu contradicts itself",
                         (unsigned long long)c->number);
    if (!c->last) return put_chunk(w, c, why);
    if (get_u64(c->data.at + STATE_HASH_SIZE) == w->number) return OK;
    return fail_with(why, ERR_PROTOCOL, "snapshot: the end record counts other chunks than came");
}

uint64_t snapshot_next_chunk(const struct snapshot_writer *w) { return w->number; }

static RESULT put_end(struct snapshot_writer *w, const uint8_t *hash, struct why *why) {
    uint8_t data[SNAP_END_DATA] = {0};
    struct snapshot_chunk c = {
        .number = w->number, .last = true, .data = span_of(data, sizeof data)};
    memcpy(data, hash, STATE_HASH_SIZE);
    put_u64(data + STATE_HASH_SIZE, w->number);
    TRY(put_chunk(w, &c, why));
    return out_end(w, why);
}

static void writer_free(struct snapshot_writer *w) {
    if (w->file != NULL) w->o.disk->close(w->file);
    sealer_free(w->sealer);
    free(w->sealed);
    free(w->squeezed);
    free(w->piece);
    free(w);
}

RESULT snapshot_finish(struct snapshot_writer *w, const uint8_t hash[STATE_HASH_SIZE],
                       struct why *why) {
    struct disk *d = w->o.disk;
    char part[PATH_ROOM], path[PATH_ROOM];
    snap_path(w->index, "part", part);
    snap_path(w->index, "snap", path);
    enum err e = put_end(w, hash, why);
    if (e == OK) e = d->rename(d, part, path, why);
    if (e != OK) {
        snapshot_abort(w);
        return e;
    }
    writer_free(w);
    return d->sync_dir(d, SNAP_DIR, why);
}

void snapshot_abort(struct snapshot_writer *w) {
    if (w == NULL) return;
    struct disk *d = w->o.disk;
    if (w->file != NULL) {
        char part[PATH_ROOM];
        snap_path(w->index, "part", part);
        d->close(w->file);
        w->file = NULL;
        enum err ignored = d->remove(d, part, NULL);
        (void)ignored; /* the next start removes it */
    }
    writer_free(w);
}

/* ---- the directory ---- */

/* Names are looked at one after the other, each time anew: the list may be long, memory is not. */
struct search {
    const char *suffix; /* "snap" or "part" */
    uint64_t below;     /* only indexes < below */
    bool found;         /* is there one? */
    uint64_t index;     /* the highest such */
};

static bool name_parse(const char *name, const char *suffix, uint64_t *out) {
    uint64_t v = 0;
    if (strlen(name) < 18 || name[16] != '.' || strcmp(name + 17, suffix) != 0) return false;
    for (int i = 0; i < 16; i++) {
        const char *digit = strchr("0123456789abcdef", name[i]);
        if (digit == NULL) return false;
        v = v << 4 | (uint64_t)(digit - "0123456789abcdef");
    }
    *out = v;
    return true;
}

static void look(void *ctx, const char *name) {
    struct search *s = ctx;
    uint64_t index;
    if (!name_parse(name, s->suffix, &index) || index >= s->below) return;
    if (s->found && index < s->index) return;
    s->found = true;
    s->index = index;
}

static RESULT highest(struct disk *d, const char *suffix, uint64_t below, struct search *s,
                      struct why *why) {
    *s = (struct search){.suffix = suffix, .below = below};
    enum err e = d->list(d, SNAP_DIR, look, s, why);
    return e == ERR_NOT_FOUND ? OK : e;
}

static RESULT remove_below(struct disk *d, const char *suffix, uint64_t below, struct why *why) {
    struct search s;
    bool any = false;
    for (;;) {
        char path[PATH_ROOM];
        TRY(highest(d, suffix, below, &s, why));
        if (!s.found) break;
        snap_path(s.index, suffix, path);
        TRY(d->remove(d, path, why));
        any = true;
    }
    return any ? d->sync_dir(d, SNAP_DIR, why) : OK;
}

RESULT snapshot_latest(const struct snapshot_options *o, uint64_t *index, struct why *why) {
    struct search s;
    struct snapshot_reader *r = NULL;
    struct snapshot_meta meta;
    TRY(remove_below(o->disk, "part", UINT64_MAX, why));
    TRY(highest(o->disk, "snap", UINT64_MAX, &s, why));
    if (s.found) {
        TRY(snapshot_open(o, s.index, &r, &meta, why));
        snapshot_close(r);
        TRY(o->disk->sync_dir(o->disk, SNAP_DIR, why));
    }
    *index = s.found ? s.index : 0;
    return OK;
}

RESULT snapshot_remove_before(const struct snapshot_options *o, uint64_t index, struct why *why) {
    return remove_below(o->disk, "snap", index, why);
}
