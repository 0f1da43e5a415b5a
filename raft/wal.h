/* The encrypted log on disk: fixed-size segments, pre-written with zeros, one sealed record a
 * batch, one write and one sync a record. Nothing that was written is ever written again: a
 * truncation is a new segment whose header says from which index the log goes on. The format stands
 * byte by byte at the top of wal.c, and the reasoning that tells a torn tail from damage with it.
 *
 * Threads: append, truncate and compact are called by one thread at a time (the log exec); read may
 * run beside them (the loop); prepare may run beside all (the snapshot exec). Blocking. */
#ifndef CONCLAVE_WAL_H
#define CONCLAVE_WAL_H

#include "crypto/disk.h"
#include "crypto/keyring.h"
#include "crypto/limits.h"
#include "crypto/seal.h"
#include "raft/ballot.h"

/* What kind of bytes an entry carries; the values are libraft's and are on disk and on the wire. */
enum entry_type { ENTRY_COMMAND = 1, ENTRY_BARRIER = 2, ENTRY_CHANGE = 3 };

/* One log entry, reference-counted by its holders on the loop; immutable once made. */
struct entry {
    uint64_t index;
    uint64_t term;
    uint32_t refs; /* atomic */
    uint32_t size; /* bytes in data, <= ENTRY_MAX */
    uint8_t type;  /* enum entry_type */
    uint8_t data[];
};

RESULT entry_new(uint64_t index, uint64_t term, enum entry_type type, size_t size,
                 struct entry **out); /* data is uninitialised, for the caller to fill; refs 1 */
struct entry *entry_hold(struct entry *e);
void entry_drop(struct entry *e); /* frees with the last reference; NULL is fine */

/* Who the log belongs to; bound into every record, so that files can't move between nodes. */
struct identity {
    char cluster_id[CLUSTER_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1];
};

struct wal_options {
    struct disk *disk;
    struct keyring *keys;  /* the current generation seals new segments */
    struct ballot *ballot; /* holds the watermark; outlives the log */
    struct identity identity;
    enum seal_alg alg;
    uint64_t segment_size; /* SEGMENT_SIZE; a multiple of BLOCK_SIZE; smaller in tests */
};

struct wal;

/* Opens directory `log` (made when absent) and gives every live entry, ascending, to `each` (which
 * takes its own reference when it wants to keep it). ERR_CORRUPT names the file and the byte; a
 * torn, never acknowledged tail is dropped in silence and told in *torn (may be NULL). */
RESULT wal_open(const struct wal_options *o, enum err (*each)(void *ctx, struct entry *e),
                void *ctx, bool *torn, struct wal **out, struct why *why);
void wal_close(struct wal *w); /* after a clean stop call wal_mark first */

/* Appends entries (consecutive, following the last one or the truncation point) as one record;
 * durable on return. Any error but ERR_NOSPACE is final: the node stops. After ERR_NOSPACE nothing
 * was written. */
RESULT wal_append(struct wal *w, struct entry *const *entries, size_t n, struct why *why);
/* How many of the entries, from the first on, one record holds: the most that wal_append takes at
 * once (more is ERR_TOO_LARGE, nothing written). 0: the first one alone is too large for a segment.
 */
size_t wal_batch(const struct wal *w, struct entry *const *entries, size_t n);
/* Do the entries make a record of one block that the active segment has room for? Such an append is
 * one small write. Not while another call is under way on another thread. */
bool wal_one_block(const struct wal *w, struct entry *const *entries, size_t n);
/* As with append: ERR_NOSPACE leaves everything as it was, any other error is final. */
RESULT wal_truncate(struct wal *w, uint64_t from_index,
                    struct why *why); /* drops >= from_index; durable */
/* The log now begins after `index`: after an installed snapshot, everything goes. Durable. */
RESULT wal_reset(struct wal *w, uint64_t index, struct why *why);
/* Removes whole segments that hold nothing above `index`. Best effort: what stays is removed later.
 */
RESULT wal_compact(struct wal *w, uint64_t index, struct why *why);
RESULT wal_prepare(struct wal *w,
                   struct why *why); /* pre-writes the next segment if none is ready */
bool wal_wants_prepare(struct wal *w);
RESULT wal_roll(struct wal *w, struct why *why); /* next record goes to a new segment (new DEK) */
RESULT wal_mark(struct wal *w, struct why *why); /* stores the watermark in the ballot */

/* Reads live entry `index` back; *out has one reference. ERR_NOT_FOUND below the first or above the
 * last. */
RESULT wal_read(struct wal *w, uint64_t index, struct entry **out, struct why *why);

uint64_t wal_first(struct wal *w); /* index of the first live entry; last + 1 when empty */
uint64_t wal_last(struct wal *w);
uint64_t wal_bytes(struct wal *w);             /* payload bytes of live entries */
uint64_t wal_file_bytes(struct wal *w);        /* size of the segments' files */
uint32_t wal_oldest_generation(struct wal *w); /* the oldest DEK that a segment still needs */

#endif
