/* The bytes of the log: segment headers and records, to and from memory. No files here; the layout
 * is specified at the top of wal.c. Private to raft/wal*.c and their tests. */
#ifndef CONCLAVE_WAL_FORMAT_H
#define CONCLAVE_WAL_FORMAT_H

#include "raft/envelope.h"
#include "raft/wal.h"

#define WAL_HEAD_PLAIN 48
#define WAL_HEAD       (WAL_HEAD_PLAIN + SEAL_TAG) /* a sealed record head; the body follows */
#define WAL_ENTRY_HEAD 13                          /* term, type, size before an entry's bytes */
#define WAL_PATH       "log/%016llx.seg"

/* What a segment's sealed header says. */
struct wal_header {
    uint64_t sequence;              /* 1, 2, 3, ...: the file's name */
    uint64_t size;                  /* bytes of the file */
    uint64_t first;                 /* index of the first entry that it will hold */
    uint64_t ballot;                /* ballot_count when it was made */
    uint64_t previous_records;      /* records of the segment before; 0 with sequence 1 */
    uint64_t previous_end;          /* where they end, in bytes; 0 with sequence 1 */
    bool reset;                     /* nothing before this segment counts any more */
    uint8_t previous_tag[SEAL_TAG]; /* of the last record before, or of that segment's header */
};

/* What a record's sealed head says. */
struct wal_head {
    uint32_t body;              /* bytes of the body before its tag, padding included */
    uint32_t count;             /* entries */
    uint64_t first;             /* index of the first */
    uint64_t number;            /* of the record in its segment: 1, 2, ... */
    uint64_t ballot;            /* ballot_count when it was written */
    uint8_t previous[SEAL_TAG]; /* tag of the record before, or of the segment's header */
};

extern const struct envelope_kind wal_kind;

/* Fills the header block of BLOCK_SIZE bytes and gives its tag. */
RESULT wal_header_seal(const struct envelope *e, struct sealer *s, const struct identity *who,
                       const struct wal_header *h, uint8_t *block, uint8_t tag[SEAL_TAG]);
/* Opens the header block whose envelope was already read. ERR_CORRUPT with the place in `path`. */
RESULT wal_header_open(struct sealer *s, const struct identity *who, const uint8_t *block,
                       const char *path, struct wal_header *h, uint8_t tag[SEAL_TAG],
                       struct why *why);

/* Bytes of a record on disk. Sealed bytes end with a sector, the record with a block. */
static inline uint64_t wal_sealed_size(uint64_t body) { return WAL_HEAD + body + SEAL_TAG; }
static inline uint64_t wal_extent(uint64_t body) {
    return (wal_sealed_size(body) + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
}
/* The padded body of `bytes` bytes of entries. */
uint64_t wal_body_size(uint64_t bytes);
uint64_t wal_entry_size(const struct entry *e);

/* Makes the record of head->count entries at `at`, which has room for its extent. Counters 2n - 1
 * and 2n. */
RESULT wal_record_seal(const struct envelope *e, struct sealer *s, const struct wal_head *head,
                       struct entry *const *entries, uint8_t *at, uint8_t tag[SEAL_TAG]);
/* Opens the head of record `number`: ERR_CORRUPT when it does not authenticate or contradicts
 * itself. */
RESULT wal_head_open(const struct envelope *e, struct sealer *s, uint64_t number, const uint8_t *at,
                     struct wal_head *head);
/* Opens the body behind it into `plain` (head->body bytes). */
RESULT wal_body_open(const struct envelope *e, struct sealer *s, const struct wal_head *head,
                     const uint8_t *at, uint8_t *plain, uint8_t tag[SEAL_TAG]);

/* Calls `each` with entries head->first ... that it takes over (one reference). */
RESULT wal_body_read(const struct wal_head *head, struct span body,
                     enum err (*each)(void *ctx, struct entry *e), void *ctx);
/* Bytes of entry data in a body, without making entries; ERR_CORRUPT. */
RESULT wal_body_check(const struct wal_head *head, struct span body, uint64_t *payload);

bool wal_is_zero(const uint8_t *at, uint64_t size);
void wal_path(uint64_t sequence, char out[PATH_ROOM]);

#endif
