/* A node of the cluster, manager or worker: the body of a ROW_NODE. What its operator wants of it
 * (spec), what it says of itself (description), how it is seen to be (status), and the certificate
 * that it was given last. Text is bounded; spans point into the row. The role in `granted` is what
 * the cluster takes the node for, live: a certificate says who it is, this says what it may do.
 *
 *   worker, granted worker --promote--> desired manager --certificate, member--> granted manager
 *   manager, granted manager --demote--> desired worker --member removed--> granted worker
 *
 * granted MANAGER: may open manager connections and ask to become a member of the quorum.
 *
 * What a node says of itself nobody vouches for. Its host name is as good as the node: several may
 * join with the same one, and a node may take another that no row has. Ids, the row's name, labels
 * and roles are the managers' and the operator's; what a node may have hangs on those alone. */
#ifndef CONCLAVE_NODE_H
#define CONCLAVE_NODE_H

#include "store/row.h"

enum node_role { NODE_WORKER = 1, NODE_MANAGER = 2 };
enum node_availability { NODE_ACTIVE = 1, NODE_PAUSE = 2, NODE_DRAIN = 3 };
enum node_state { NODE_UNKNOWN = 1, NODE_DOWN = 2, NODE_READY = 3, NODE_DISCONNECTED = 4 };
/* Of its certificate: as it should be; to be renewed soon (a rotation, a changed role or address);
 * a node whose certificate ran out asks to come back. */
enum node_certificate { NODE_CERT_ISSUED = 1, NODE_CERT_RENEW = 2, NODE_CERT_PENDING = 3 };

#define NODE_DIGEST_SIZE  32
#define NODE_LABELS_MAX   128        /* of one node */
#define NODE_LABELS_BYTES (16 * KIB) /* all of them, encoded */
#define NODE_TEXT_MAX     255        /* a host name, a message */

struct node_row {
    enum node_role desired; /* spec */
    enum node_availability availability;
    struct span labels; /* each: block key, block value; keys ascend (labels_next) */
    /* description, as the node says */
    char hostname[NODE_TEXT_MAX + 1];
    char os[32], arch[32]; /* Docker's words: linux, x86_64 */
    char engine[64];       /* version of the program */
    uint64_t nano_cpus, memory_bytes;
    /* status */
    enum node_state state;
    char message[NODE_TEXT_MAX + 1];
    char address[ADDRESS_MAX]; /* host that it is seen to come from */
    /* manager */
    enum node_role granted;
    uint64_t raft_id;                 /* of its membership, present or last; 0: never one */
    char client_address[ADDRESS_MAX]; /* HOST:PORT of a manager's client port; "" */
    char peer_address[ADDRESS_MAX];   /* HOST:PORT of its peer port; "" */
    /* certificate */
    enum node_certificate certificate;
    uint8_t key_digest[NODE_DIGEST_SIZE]; /* SHA-256 of its key (SPKI, DER) */
    /* Of the key before, which is good until the node is seen with the present one (the answer that
     * brought that may have been lost); 0: none is. */
    uint8_t previous_digest[NODE_DIGEST_SIZE];
    uint8_t issuer_digest[NODE_DIGEST_SIZE]; /* SHA-256 of the issuing key (SPKI, DER) */
    int64_t not_after_s;                     /* UTC seconds */
    uint8_t wanted_digest[NODE_DIGEST_SIZE]; /* PENDING: the key that it asks to come back with */
    bool approved;                           /* PENDING: a manager has said yes */
    char token_id[NODE_ID_SIZE + 1];         /* by which it joined; "" the founder */
};

RESULT node_row_encode(const struct node_row *n, struct buf *out); /* ERR_INVALID */
RESULT node_row_decode(struct span body, struct node_row *out);    /* ERR_CORRUPT */
RESULT node_row_get(const struct store *s, const char *id, struct row *row, struct node_row *out);
/* How many nodes have this host name, without case: 0, 1, or 2 for more. `id` of the first one. */
unsigned node_row_of_host(const struct store *s, struct span hostname, char id[NODE_ID_SIZE + 1]);

/* Labels as they stand in a row; none: no bytes. Keys are not empty; read to the end with
 * labels_next over cursor_of(labels). ERR_INVALID: a key out of order, too many, too long. */
RESULT labels_add(struct buf *labels, struct span key, struct span value); /* keys must ascend */
bool labels_next(struct cursor *labels, struct span *key, struct span *value);
bool labels_find(struct span labels, struct span key, struct span *value);
RESULT labels_check(struct span labels); /* ERR_INVALID */

#endif
