/* The term and the vote, durable before anything that depends on them, in two alternating sealed
 * slots of the file `ballot`; and beside them the log's watermark, which tells an older copy of the
 * log from the log. One slot is one sector, so a write leaves the old slot or the new one: a slot
 * that is neither empty nor authentic is damage and refused, never guessed around. Format: top of
 * ballot.c. Thread-safe (the loop stores votes, the log's thread stores watermarks). Blocking,
 * durable on return. */
#ifndef CONCLAVE_BALLOT_H
#define CONCLAVE_BALLOT_H

#include "crypto/disk.h"
#include "crypto/keyring.h"
#include "crypto/seal.h"

struct identity;
struct ballot;

/* How far the log had certainly come: the physical place of its last durable record. Never goes
 * back. */
struct watermark {
    uint64_t segment;      /* sequence number of the segment; 0: no log yet */
    uint64_t records;      /* records in it, header not counted */
    uint64_t first;        /* sequence number of the oldest segment that must be there */
    uint8_t tag[SEAL_TAG]; /* tag of its last record (of its header when records is 0) */
};

/* Opens or makes it. ERR_CORRUPT with file and place. */
RESULT ballot_open(struct disk *disk, struct keyring *keys, const struct identity *identity,
                   enum seal_alg alg, struct ballot **out, struct why *why);
void ballot_close(struct ballot *b);

/* ERR_INTERNAL for a lower term or another vote in a term: it can't be taken back. After a failed
 * write (any error but these and ERR_NOMEM) nothing is ever written again: the node stops. */
void ballot_get(struct ballot *b, uint64_t *term, uint64_t *vote);
RESULT ballot_vote(struct ballot *b, uint64_t term, uint64_t vote, struct why *why);
struct watermark ballot_watermark(struct ballot *b);
RESULT ballot_mark(struct ballot *b, const struct watermark *w, struct why *why);
/* A count of writes, never decreasing; the log and the snapshots carry the one they saw, so that an
 * older copy of this file is found out. ballot_require refuses to go on below `count`. */
uint64_t ballot_count(struct ballot *b);
RESULT ballot_require(struct ballot *b, uint64_t count, const char *path,
                      struct why *why);                  /* `path` saw it */
RESULT ballot_reseal(struct ballot *b, struct why *why); /* both slots under the current DEK */
uint32_t ballot_oldest_generation(struct ballot *b);

#endif
