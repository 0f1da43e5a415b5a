/* Leases, the replicated part: which there are, their time to live, and the keys that hang on
 * them. A lease has no deadline here: time is the leader's guest (lessor.h), which proposes
 * OP_LEASE_REVOKE when one has run out. Revoking deletes the keys, in order, in one revision.
 *
 * The leases stand in a copy-on-write tree of their own (tree.h; key: the id as 8 bytes, big-
 * endian; value: TTL in ms), so that a view costs nothing; what hangs on them in a second one
 * (key: id and key) that no view needs, since it follows from the leases of the items. `changes`
 * counts changes: the trees' revision. */
#ifndef CONCLAVE_LEASE_H
#define CONCLAVE_LEASE_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "store/tree.h"

struct leases {
    struct tree *all;      /* the leases */
    struct tree *attached; /* id + key, for every key with a lease */
    uint64_t changes;      /* of both */
    struct lanes sum;      /* hash over the leases, part of the state's */
};

struct lease {
    uint64_t id;     /* > 0, below 2^63 */
    uint64_t ttl_ms; /* granted */
};

RESULT leases_start(struct leases *l);
void leases_end(struct leases *l); /* good after a failed start */
uint64_t leases_count(const struct leases *l);
bool lease_find(const struct leases *l, uint64_t id, struct lease *out);
/* ERR_LEASE_EXISTS; ERR_BUSY: LEASES_MAX, the same on every member; ERR_NOMEM. Whatever fails here
 * has changed nothing. */
RESULT lease_grant(struct leases *l, const struct lease *lease);
/* Its keys must have been detached. ERR_LEASE_NOT_FOUND, ERR_NOMEM. */
RESULT lease_remove(struct leases *l, uint64_t id);
RESULT lease_attach(struct leases *l, uint64_t id,
                    struct span key); /* ERR_LEASE_NOT_FOUND, ERR_NOMEM */
RESULT lease_detach(struct leases *l, uint64_t id, struct span key); /* not there: OK */
/* Ascending; `each` returns false to stop; it changes nothing here. */
typedef bool lease_each(void *ctx, const struct lease *lease);
typedef bool lease_each_key(void *ctx, struct span key);
void leases_each(const struct leases *l, lease_each *each, void *ctx);
void lease_keys(const struct leases *l, uint64_t id, lease_each_key *each, void *ctx);
/* false: none; *key is good until the next change (lease_detach may be given it). */
bool lease_first_key(const struct leases *l, uint64_t id, struct span *key);
/* For the image: a view of `all` and its leases, one at a time. */
RESULT leases_view(struct leases *l, struct tree_view **out);
bool lease_next(struct tree_cursor *c, struct lease *out); /* cursor: tree_seek over the view */

#endif
