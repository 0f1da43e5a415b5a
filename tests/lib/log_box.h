/* A ballot and a log on a disk, as a node has them, with entries whose bytes follow from index and
 * term, so that a test can tell a wrong entry from a right one without remembering it. */
#ifndef CONCLAVE_TESTS_LOG_BOX_H
#define CONCLAVE_TESTS_LOG_BOX_H

#include "raft/ballot.h"
#include "raft/wal.h"

#define BOX_SEGMENT (64 * KIB)

struct box {
    struct disk *disk;     /* the test's */
    struct keyring *keys;  /* the test's */
    uint64_t segment_size; /* BOX_SEGMENT when 0 */
    struct ballot *ballot; /* open between box_open and box_close */
    struct wal *wal;       /* the same */
    uint64_t first;        /* what wal_open gave: index of the first entry, 0 when none */
    uint64_t *terms;       /* and the terms from there on */
    size_t count, room;    /* of terms */
    bool torn;             /* what wal_open said */
    bool wrong;            /* an entry was out of order or had wrong bytes */
};

/* A keyring on a disk of its own, which `disk` is set to; abort on failure. */
struct keyring *box_keys(struct disk **disk);

RESULT box_open(struct box *b, struct why *why);
void box_close(struct box *b); /* also after a failed box_open; keeps `terms` */
void box_free(struct box *b);  /* closes, and drops `terms` */

/* Bytes and size follow from index, term and `size_max`; ERR_NOMEM. */
RESULT box_entry(uint64_t index, uint64_t term, size_t size_max, struct entry **out);
bool box_entry_right(const struct entry *e);
/* Appends n entries of `term` behind the last one as one record. */
RESULT box_append(struct box *b, uint64_t term, size_t n, size_t size_max, struct why *why);

#endif
