/* What is asked of nodes (nodes.h), on its way to the leader as a replica call. Bytes: u8
 * NODES_CALL (roles.h), u8 kind, u8 force, text id, u64 version, block name, u8 role, u8
 * availability, block labels; the last four count for some kinds only. Spans of a decoded one point
 * into its bytes. */
#ifndef CONCLAVE_NODES_WIRE_H
#define CONCLAVE_NODES_WIRE_H

#include "api/node/nodes.h"

enum node_ask_kind {
    ASK_UPDATE = 1,  /* the whole spec */
    ASK_ROLE = 2,    /* its role alone */
    ASK_REMOVE = 3,  /* takes the node away */
    ASK_APPROVE = 4, /* lets it come back */
    ASK_RENEW = 5,   /* wants it to renew */
    ASK_LEAVE = 6,   /* it goes by itself */
};

#define NODE_ASK_MAX (ROW_NAME_MAX + NODE_LABELS_BYTES + 256)

struct node_ask {
    enum node_ask_kind kind;
    bool force;                /* what may be insisted on */
    char id[NODE_ID_SIZE + 1]; /* of the node */
    uint64_t version;          /* ASK_UPDATE: as seen; 0: any */
    struct node_spec spec;     /* ASK_UPDATE; ASK_ROLE: its role */
};

RESULT node_ask_encode(const struct node_ask *a, struct buf *out);
RESULT node_ask_decode(struct span bytes, struct node_ask *out); /* ERR_PROTOCOL */

#endif
