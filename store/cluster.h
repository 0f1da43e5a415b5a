/* What the cluster knows of itself, replicated like any other state: its id, its root of trust with
 * the signing key, the join token (as a hash), the unlock key when autolock is on, and its nodes.
 * Changed only by commands (command.h). Secrets are kept in guarded memory. */
#ifndef CONCLAVE_CLUSTER_H
#define CONCLAVE_CLUSTER_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "crypto/secret.h"

#define TOKEN_HASH_SIZE 32
#define NODES_MAX       64 /* rows, removed members not counted */

struct node {
    uint64_t raft_id;                 /* > 0, never used again */
    char id[NODE_ID_SIZE + 1];        /* certificate CN */
    char name[NAME_MAX_SIZE + 1];     /* for people; unique */
    char client_address[ADDRESS_MAX]; /* HOST:PORT */
    char peer_address[ADDRESS_MAX];   /* HOST:PORT */
    int64_t joined_s;                 /* UTC seconds */
};

struct cluster {
    bool initialised;
    char id[CLUSTER_ID_SIZE + 1];
    int64_t created_s;                   /* UTC seconds */
    struct buf root_pem;                 /* certificate of the root */
    struct secret *root_key;             /* its key, PEM */
    uint8_t token_hash[TOKEN_HASH_SIZE]; /* BLAKE2b of the manager token's secret */
    struct secret *unlock_key;           /* 32 bytes; NULL: autolock is off */
    uint64_t next_raft_id;               /* given to the next node */
    unsigned n;                          /* nodes */
    struct node nodes[NODES_MAX];        /* ascending by raft id */
};

const struct node *cluster_node(const struct cluster *c, uint64_t raft_id); /* NULL: no such node */
const struct node *cluster_node_by_id(const struct cluster *c, const char *id);
/* By node id, unique id prefix (>= 3 characters) or name. ERR_NOT_FOUND, ERR_INVALID (ambiguous).
 */
RESULT cluster_find(const struct cluster *c, const char *text, const struct node **out,
                    struct why *why);
/* What is kept of a join token: BLAKE2b-256 of its secret part. */
void token_hash(const char *secret_text, uint8_t out[TOKEN_HASH_SIZE]);

/* The rest is for store/ only. Bytes: top of cluster.c. */
#define CLUSTER_BYTES_MAX (256 * KIB) /* one encoded */
struct command;

RESULT cluster_new(struct cluster **out); /* not initialised, no nodes */
RESULT cluster_copy(const struct cluster *c, struct cluster **out);
void cluster_free(struct cluster *c); /* NULL is fine */
/* Carries out a command of the cluster kind. What the command did wrong is in *outcome, and `c` is
 * as it was; an error is ERR_NOMEM, and `c` only good for cluster_free. */
RESULT cluster_apply(struct cluster *c, const struct command *command, enum err *outcome);
RESULT cluster_encode(const struct cluster *c, struct buf *out); /* holds secrets: buf_wipe */
RESULT cluster_decode(struct span bytes, struct cluster **out);  /* ERR_CORRUPT, ERR_NOMEM */
RESULT node_encode(const struct node *n, struct buf *out);
RESULT node_decode(struct cursor *in, struct node *out); /* ERR_INVALID */

#endif
