/* Join tokens: the body of a ROW_TOKEN. Of a token's secret only a hash is kept. The two tokens
 * that docker shows again and again (one a role) are derived from the cluster's join key and an
 * epoch, so they can be shown to a manager without being kept; all others are shown once, when
 * they are made. A use is counted in the same command that creates the node. */
#ifndef CONCLAVE_JOIN_TOKEN_H
#define CONCLAVE_JOIN_TOKEN_H

#include "crypto/secret.h"
#include "store/node.h"

#define JOIN_SECRET_SIZE 25 /* characters of base36; 16 bytes */
#define JOIN_HASH_SIZE   32
#define JOIN_ADDRESSES   512 /* text: CIDRs separated by ',' */

struct join_token {
    enum node_role role;          /* of whoever joins by it */
    uint8_t hash[JOIN_HASH_SIZE]; /* BLAKE2b-256 of the secret's text */
    uint64_t epoch;               /* > 0: derived, the role's standing token; 0: random */
    int64_t expires_s;            /* UTC; 0: never */
    uint32_t uses_max;            /* 0: any number */
    uint32_t used;
    char addresses[JOIN_ADDRESSES]; /* from where; "": anywhere (join_addresses_check) */
    struct span labels;             /* that the node gets (node.h) */
    bool revoked;                   /* kept so that a late comer is told */
};

RESULT join_token_encode(const struct join_token *t, struct buf *out); /* ERR_INVALID */
RESULT join_token_decode(struct span body, struct join_token *out);    /* ERR_CORRUPT */
void join_token_hash(const char *secret_text, uint8_t out[JOIN_HASH_SIZE]);
/* The secret of the standing token of a role: 16 bytes derived from the join key, as base36. */
RESULT join_token_derive(const struct secret *join_key, enum node_role role, uint64_t epoch,
                         char out[JOIN_SECRET_SIZE + 1]);
/* The token that this secret is of; looks at all of them, in constant time each. */
bool join_token_find(const struct store *s, const char *secret_text, struct row *row,
                     struct join_token *out);
/* The standing token of a role. */
bool join_token_standing(const struct store *s, enum node_role role, struct row *row,
                         struct join_token *out);
/* May it be used now, from there (IP address, with or without a port; NULL: not known)?
 * ERR_PERMISSION with the reason: expired, used up, revoked, not from this address. */
RESULT join_token_usable(const struct join_token *t, int64_t now_s, const char *remote,
                         struct why *why);
/* ADDRESS or ADDRESS/BITS, IPv4 or IPv6, separated by ','. ERR_INVALID. */
RESULT join_addresses_check(const char *cidrs, struct why *why);

#endif
