/* A snapshot file: the state at one index, as a sequence of chunks, each LZ4-compressed and then
 * sealed under the node's own DEK; a header that says which index, term and configuration it is of;
 * an end record with the count, the bytes and the state hash, without which the file is not a
 * snapshot. Written to `snapshots/<index>.part`, synced, renamed to `snapshots/<index>.snap`.
 * Format: top of snapshot.c.
 *
 * Between members chunks travel compressed but not sealed (TLS seals the wire), numbered, so that a
 * transfer goes on where it was cut. Never whole in memory: one chunk at a time.
 * A writer or reader belongs to one thread at a time. Blocking. */
#ifndef CONCLAVE_SNAPSHOT_H
#define CONCLAVE_SNAPSHOT_H

#include "crypto/disk.h"
#include "crypto/keyring.h"
#include "crypto/limits.h"
#include "crypto/seal.h"
#include "raft/wal.h"

#define STATE_HASH_SIZE 32

struct snapshot_meta {
    uint64_t index;      /* last entry it contains */
    uint64_t term;       /* its term */
    uint64_t conf_index; /* where the configuration was committed */
    struct span conf;    /* raft_configuration_encode bytes; owner: see each function */
};

struct snapshot_options {
    struct disk *disk;
    struct keyring *keys;
    struct identity identity;
    enum seal_alg alg;
    struct ballot *ballot; /* gives and checks the ballot count; NULL: not checked */
    bool beside;           /* read while the log beside it is written: not ahead */
};

/* One chunk as it travels: number, flags and bytes. */
struct snapshot_chunk {
    uint64_t number;   /* 0, 1, 2, ... */
    uint32_t raw_size; /* bytes before compression, <= SNAPSHOT_CHUNK */
    bool compressed;   /* data is LZ4; otherwise as is */
    bool last;         /* the end record: data is the 32-byte state hash, then u64 chunk count */
    struct span data;
};

struct snapshot_writer;
/* Starts `snapshots/<index>.part`, replacing an older attempt. Copies meta. */
RESULT snapshot_create(const struct snapshot_options *o, const struct snapshot_meta *meta,
                       struct snapshot_writer **out, struct why *why);
/* Compresses; one chunk for each SNAPSHOT_CHUNK bytes or part of it. */
RESULT snapshot_write(struct snapshot_writer *w, struct span raw, struct why *why);
/* A chunk as received; its number must be the next one. Of the end record only the count is
 * checked: snapshot_finish writes it. ERR_PROTOCOL. Whether LZ4 data inflate is not tried here. */
RESULT snapshot_write_chunk(struct snapshot_writer *w, const struct snapshot_chunk *c,
                            struct why *why);
uint64_t snapshot_next_chunk(const struct snapshot_writer *w);
/* Ends with the hash, syncs, renames, syncs the directory: durable on return. Frees the writer. */
RESULT snapshot_finish(struct snapshot_writer *w, const uint8_t hash[STATE_HASH_SIZE],
                       struct why *why);
void snapshot_abort(struct snapshot_writer *w); /* frees the writer, removes the part file */

struct snapshot_reader;
/* Opens the snapshot of `index`; meta's conf points into the reader. */
RESULT snapshot_open(const struct snapshot_options *o, uint64_t index, struct snapshot_reader **out,
                     struct snapshot_meta *meta, struct why *why);
/* Chunk `number` (any order), unsealed into `scratch` (cleared first); c->data points into it. */
RESULT snapshot_read(struct snapshot_reader *r, uint64_t number, struct buf *scratch,
                     struct snapshot_chunk *c, struct why *why);
/* Decompresses a chunk to exactly raw_size bytes, into `raw` (cleared first). ERR_CORRUPT when it
 * is not what it says. */
RESULT snapshot_inflate(const struct snapshot_chunk *c, struct buf *raw);
uint64_t snapshot_chunks(const struct snapshot_reader *r); /* count, the end record included */
uint64_t snapshot_size(const struct snapshot_reader *r);   /* bytes of the file */
uint32_t snapshot_generation(const struct snapshot_reader *r);
void snapshot_close(
    struct snapshot_reader *r); /* the file may be removed while a reader has it open */

/* Index of the newest complete snapshot, 0 when none. Verifies its header and end record only. A
 * damaged newest snapshot is ERR_CORRUPT, never passed over for an older one. Removes left-over
 * part files. */
RESULT snapshot_latest(const struct snapshot_options *o, uint64_t *index, struct why *why);
RESULT snapshot_remove_before(const struct snapshot_options *o, uint64_t index, struct why *why);

#endif
