/* What a node and a manager say to each other on a node session (raft/session.h), as bodies of its
 * messages: fields in the order of their structs, little-endian, blocks as u32 length + bytes. A
 * decoder verifies everything into locals and bounds every count; it is fuzzed
 * (tests/fuzz/fuzz_node.c).
 *
 *   node -> manager:  HELLO first; BEAT every period; STATUS when something of HELLO has changed
 *   manager -> node:  WANT at once and whenever something of it has changed
 *
 * A node does what WANT says: takes the trusted roots; asks for a new certificate (raft/peer.h,
 * join_request) when its own is not of `issuer`, is not for `role`, or is due; becomes a manager
 * or stops being one. */
#ifndef CONCLAVE_NODE_WIRE_H
#define CONCLAVE_NODE_WIRE_H

#include "raft/wire.h"
#include "store/node.h"

enum node_message {
    NODE_HELLO = 1,  /* struct node_hello */
    NODE_BEAT = 2,   /* u64 sequence; the manager sends it back */
    NODE_STATUS = 3, /* struct node_hello again */
    NODE_WANT = 4,   /* struct node_want */
    NODE_LEAVE = 5,  /* nothing; the manager says it back when it is written */
    /* what the node is to run; assign.h, assign_wire.h */
    NODE_ASSIGN = 6,  /* manager -> node */
    NODE_TASKS = 7,   /* node -> manager */
    NODE_RESYNC = 8,  /* node -> manager: nothing; COMPLETE is wanted */
    NODE_FETCH = 9,   /* node -> manager: struct fetch */
    NODE_FETCHED = 10 /* manager -> node: struct fetched */
};

struct node_hello {               /* a node's description, as in struct node_row */
    char name[NAME_MAX_SIZE + 1]; /* that it was started with */
    char hostname[NODE_TEXT_MAX + 1];
    char os[32], arch[32], engine[64];
    uint64_t nano_cpus, memory_bytes;
    char client_address[ADDRESS_MAX], peer_address[ADDRESS_MAX]; /* of a manager or one to be */
};

struct node_want {
    uint64_t sequence;                /* counts the wants of this session */
    enum node_role role;              /* desired */
    enum node_role granted;           /* as the cluster has it now */
    uint32_t heartbeat_ms;            /* between beats */
    uint8_t issuer[NODE_DIGEST_SIZE]; /* digest of the key that its certificate should be of */
    bool renew;                       /* at once, even if it is */
    uint64_t cert_validity_s;         /* a changed one calls for a renewal, too */
    struct span root_pem;             /* the roots to trust */
    unsigned n;                       /* managers, where the next session may go */
    struct wire_member managers[MEMBERS_MAX];
};

RESULT node_hello_encode(const struct node_hello *h, struct buf *out);
RESULT node_hello_decode(struct span body, struct node_hello *out);
RESULT node_want_encode(const struct node_want *w, struct buf *out);
RESULT node_want_decode(struct span body, struct node_want *out); /* spans point into body */

#endif
