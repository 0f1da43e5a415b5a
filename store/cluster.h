/* What is one of a kind in a cluster, or secret, replicated like any other state: its id, its
 * certificate authority, the key of its standing join tokens, the unlock key when autolock is on,
 * and the roll of its quorum's members. Nodes, tokens and settings are rows (row.h). Changed only
 * by commands (command.h). Secrets are kept in guarded memory.
 *
 *   ca ---START---> ca, next ---FINISH---> ca (that was next), retired ---FORGET---> ca
 *                      \--ABORT--> ca
 *
 * While a rotation runs, nodes trust ca's root still, and what is issued is signed by next: a node
 * that shows cross_pem beside its certificate is trusted by both sides. */
#ifndef CONCLAVE_CLUSTER_H
#define CONCLAVE_CLUSTER_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "crypto/secret.h"

#define NODES_MAX 64 /* of the roll, removed members not counted */

/* A member of the quorum. */
struct node {
    uint64_t raft_id;                 /* > 0, never used again */
    char id[NODE_ID_SIZE + 1];        /* certificate CN */
    char name[NAME_MAX_SIZE + 1];     /* for people; unique */
    char client_address[ADDRESS_MAX]; /* HOST:PORT */
    char peer_address[ADDRESS_MAX];   /* HOST:PORT */
    int64_t joined_s;                 /* UTC seconds */
};

struct ca {
    struct buf root_pem;   /* whom to trust */
    struct buf issuer_pem; /* certificate of the signing key, then of whoever signed that one, but
                              for the root; empty: the root itself signs */
    struct secret *key;    /* the signing key, PEM; NULL: an external CA signs */
};

struct cluster {
    bool initialised;
    char id[CLUSTER_ID_SIZE + 1];
    int64_t created_s;         /* UTC seconds */
    struct ca ca;              /* root_pem is empty until initialised */
    struct ca next;            /* while a rotation runs; else root_pem is empty */
    struct buf cross_pem;      /* next's signing key certified by ca's; behind it, while there are
                                  retired roots, those of earlier rotations */
    size_t cross_new;          /* bytes of it that are the running rotation's; 0: none runs */
    struct buf retired_pem;    /* earlier roots that some nodes still trust; "" none */
    uint64_t rotation;         /* of the last one that was started; 0: none */
    struct secret *join_key;   /* 32 bytes; the standing join tokens follow from it */
    struct secret *unlock_key; /* 32 bytes; NULL: autolock is off */
    uint64_t next_raft_id;     /* given to the next node */
    unsigned n;                /* nodes */
    struct node nodes[NODES_MAX]; /* ascending by raft id */
};

static inline bool cluster_rotating(const struct cluster *c) { return c->next.root_pem.size != 0; }

const struct node *cluster_node(const struct cluster *c, uint64_t raft_id); /* NULL: no such node */
const struct node *cluster_node_by_id(const struct cluster *c, const char *id);
/* By node id, unique id prefix (>= 3 characters) or name. ERR_NOT_FOUND, ERR_INVALID (ambiguous).
 */
RESULT cluster_find(const struct cluster *c, const char *text, const struct node **out,
                    struct why *why);
/* Of the unlock key that stands, or of none. */
#define LOCK_DIGEST_SIZE 32
void cluster_lock_digest(const struct cluster *c, uint8_t out[LOCK_DIGEST_SIZE]);

/* The rest is for store/ only. Bytes: top of cluster.c. */
#define CLUSTER_BYTES_MAX (1 * MIB) /* one encoded: 8 PEMs and the roll */
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
