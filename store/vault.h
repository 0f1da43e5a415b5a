/* What the state says of the cluster keys: the body of the one ROW_VAULT (its id is the cluster's).
 * The keys themselves are in the managers' keyrings only (api/secret/vault.h).
 *
 *   STEADY(current) --> SPREADING(next) --all that can be reached hold it--> WRAPPING(current=next)
 *     ^------- oldest = current: everyone drops what is older --no value is of an older epoch---'
 *
 * Rules (row_rules.c, row_between.c), whoever proposes; ERR_PRECONDITION:
 *   1. Epochs only go up; current >= oldest; the key of an epoch stays what it is.
 *   2. What is spread becomes current, or gives way to a higher one. It becomes current when a
 *      majority of the quorum's roll is among the holders.
 *   3. oldest goes up only when no value row is of an epoch below it.
 *   4. The one row stays. With a restored state it passes to the new cluster's id; nobody there
 *      holds a key yet, and one that was being spread is gone. */
#ifndef CONCLAVE_STORE_VAULT_H
#define CONCLAVE_STORE_VAULT_H

#include "store/row.h"

struct vault_row {
    uint32_t current;       /* values are sealed under this one; 0: none yet */
    uint32_t next;          /* being spread; 0: none */
    uint32_t oldest;        /* lower ones are destroyed */
    uint8_t key_ids[2][16]; /* BLAKE2b-128 of the current and the next key: tells two keys of the
                               same number apart, and nothing else */
    int64_t rotated_ns;     /* UTC, of the last change of current */
    unsigned n;             /* holders of `next`, or of `current` when there is none */
    char holders[MEMBERS_MAX][NODE_ID_SIZE + 1]; /* node ids, ascending */
};

RESULT vault_row_encode(const struct vault_row *v, struct buf *out); /* ERR_INVALID */
RESULT vault_row_decode(struct span body, struct vault_row *out);    /* ERR_CORRUPT */
/* False: there is none yet; *out is all 0. */
bool vault_row_get(const struct store *s, struct row *row, struct vault_row *out);
/* Is a value of an epoch below this one left? (The first mark of the values says.) */
bool vault_values_below(const struct store *s, uint32_t epoch);

#endif
