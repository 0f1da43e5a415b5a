/* The audit trail: who created, read, was given and removed what, when and from where; never a
 * value. ROW_AUDIT rows form a hash chain. A proposer adds a record to the same OP_ROWS as what it
 * tells of (so that neither is without the other): CREATE with an id of AUDIT_NEXT and an encoded
 * record as its body. Applying it (row_apply.c) gives it the next number and links it:
 *
 *   id:   the number, 25 decimal digits, from 1 on
 *   body: prev 32, chain 32, record
 *   chain = BLAKE2b-256("conclave audit", 0, prev, u64 number, i64 created_ns, record)
 *   prev of number 1: zeros
 *
 * At most AUDIT_MAX are kept: with each further one the oldest goes; what is left still proves
 * itself from its first `prev` on. Several in one command are linked in their order. Rows of this
 * kind are never replaced, nor removed by a command.
 *
 * A head is (cluster id, number, chain) signed by a manager's certificate key (api/secret/audit.h):
 * whoever keeps one can later tell whether the trail was rewritten. AUDIT_HEAD records keep signed
 * heads in the trail itself. */
#ifndef CONCLAVE_AUDIT_H
#define CONCLAVE_AUDIT_H

#include "store/row.h"

#define AUDIT_MAX        100000
#define AUDIT_CHAIN      32
#define AUDIT_NEXT       "0000000000000000000000000"
#define AUDIT_TEXT_MAX   512
#define AUDIT_DETAIL_MAX 2560 /* a signature and the certificate that it is of */
#define AUDIT_RECORD_MAX (5 * KIB)

enum audit_what {
    AUDIT_CREATE = 1,
    AUDIT_UPDATE = 2,
    AUDIT_REMOVE = 3,
    AUDIT_READ = 4,    /* a value was shown (a config's; `conclave run`) */
    AUDIT_DELIVER = 5, /* a value was given to a node for a task */
    AUDIT_ROTATE = 6,  /* of the cluster key: a step */
    AUDIT_SHRED = 7,
    AUDIT_ESCROW = 8, /* the cluster keys were exported or imported */
    AUDIT_DENY = 9,   /* somebody asked for what he may not have */
    AUDIT_HEAD = 10,  /* detail: a signature over the head before, by `who` */
};

struct audit_record {
    enum audit_what what;
    enum row_kind kind;             /* of what it is about: ROW_SECRET, ROW_VAULT, ...; 0 none */
    char id[NODE_ID_SIZE + 1];      /* its id; "" */
    struct span name;               /* its name at that time */
    struct span who;                /* "operator", "admin NAME" (certificate), "node ID",
                                          "leader ID" */
    struct span from;               /* IP address or "socket"; "" */
    char node_id[NODE_ID_SIZE + 1]; /* that it was delivered to; "" */
    char task_id[NODE_ID_SIZE + 1]; /* for which task; "" */
    uint32_t version;               /* of the value; 0 */
    struct span detail;             /* a sentence or bytes; <= AUDIT_DETAIL_MAX, other spans <=
                                       AUDIT_TEXT_MAX */
};

RESULT audit_encode(const struct audit_record *a, struct buf *out); /* ERR_INVALID */
RESULT audit_decode(struct span record, struct audit_record *out);  /* ERR_CORRUPT */
/* Appends the CREATE of a record to a list of changes. */
RESULT audit_add(struct buf *changes, const struct audit_record *a);

struct audit_link { /* a stored row, read */
    uint64_t number;
    int64_t time_ns;
    uint8_t prev[AUDIT_CHAIN], chain[AUDIT_CHAIN];
    struct span record; /* bytes that were hashed */
    struct audit_record is;
};
RESULT audit_read(const struct row *r, struct audit_link *out); /* ERR_CORRUPT */
void audit_chain(const uint8_t prev[AUDIT_CHAIN], uint64_t number, int64_t time_ns,
                 struct span record, uint8_t out[AUDIT_CHAIN]);
/* From `number` on (0: the first there is), until `each` says false. */
void audit_each(const struct store *s, uint64_t number, row_each *each, void *ctx);
uint64_t audit_last(const struct store *s, uint8_t chain[AUDIT_CHAIN]); /* number; 0: none */

#endif
