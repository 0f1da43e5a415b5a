/* What members say to each other, as frames: u32 length of the rest, u8 type, then the fields of
 * the type in the order of its struct below, little-endian, blocks as u32 length + bytes. The
 * transport (peer.c, or the simulator) carries whole frames in order over one sender's connection
 * and may lose the tail; TLS seals them. A decoder verifies everything into locals, bounds every
 * count, and fails with ERR_PROTOCOL; the connection is then cut. Spans in a decoded message point
 * into the frame. */
#ifndef CONCLAVE_WIRE_H
#define CONCLAVE_WIRE_H

#include <raft.h>

#include "crypto/base.h"
#include "crypto/limits.h"
#include "raft/snapshot.h"
#include "raft/wal.h"

#define WIRE_VERSION       1
#define WIRE_HEADER        5                     /* length and type */
#define WIRE_NODE_OVERHEAD (WIRE_HEADER + 1 + 4) /* of a WIRE_NODE, beside its body */

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_APPEND, /* AppendEntries */
    WIRE_APPEND_RESULT,
    WIRE_VOTE, /* RequestVote */
    WIRE_VOTE_RESULT,
    WIRE_TIMEOUT_NOW,
    WIRE_PING, /* ReadIndex round, and check of the state hash */
    WIRE_PONG,
    WIRE_FORWARD,        /* a command, a read index or an administrative call for the leader */
    WIRE_FORWARDED,      /* its answer */
    WIRE_SNAPSHOT_OFFER, /* leader: this snapshot is for you */
    WIRE_SNAPSHOT_WANT,  /* follower: send chunks from here, or stop */
    WIRE_SNAPSHOT_CHUNK,
    WIRE_JOIN,   /* somebody asks for a certificate (join connection only) */
    WIRE_JOINED, /* the answer to it */
    WIRE_NODE,   /* between a node and a manager (node session only) */
    WIRE_TYPE_COUNT
};

struct wire_hello {
    uint16_t version; /* WIRE_VERSION */
    uint64_t raft_id; /* the sender's */
    char cluster_id[CLUSTER_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1]; /* must be the certificate's CN */
    char peer_address[ADDRESS_MAX]; /* where the sender takes peers */
};

struct wire_entry {
    uint64_t term;
    uint8_t type;     /* enum entry_type */
    struct span data; /* decoded: points into the frame */
};

struct wire_append {
    uint64_t term, prev_index, prev_term, commit;
    uint32_t n;                   /* entries, <= INFLIGHT_ENTRIES_MAX */
    struct entry *const *entries; /* to encode */
    struct span raw;              /* decoded: n entries, read one by one with wire_next_entry */
};

struct wire_ping {
    uint64_t term, seq;
    uint64_t hash_index;           /* 0: no hash with this one */
    uint8_t hash[STATE_HASH_SIZE]; /* state hash after hash_index */
};

struct wire_pong {
    uint64_t term, seq;
    uint64_t applied; /* the sender's applied index */
    uint8_t differs;  /* 1: my hash at hash_index is another one */
};

enum forward_kind { FORWARD_COMMAND = 1, FORWARD_READ = 2, FORWARD_CALL = 3 };

struct wire_forward {
    uint64_t id;      /* the sender's, given back in the answer */
    uint8_t kind;     /* enum forward_kind */
    struct span body; /* the command, nothing, the call; <= COMMAND_MAX */
};

struct wire_forwarded {
    uint64_t id;
    uint16_t error;   /* enum err */
    uint64_t index;   /* of the entry; the read index */
    struct span body; /* result; or a sentence when error != OK; <= RESULT_MAX */
};

struct wire_offer {
    uint64_t term;
    uint64_t index, snapshot_term, conf_index;
    struct span conf;
    uint64_t chunks; /* the end record included */
};

enum want { WANT_CHUNKS = 1, WANT_NOTHING = 2 };

struct wire_want {
    uint64_t term, index; /* of the offer */
    uint64_t next;        /* first chunk that the follower does not have; all = installed */
    uint8_t want;         /* enum want */
};

struct wire_chunk {
    uint64_t term, index; /* of the offer */
    struct snapshot_chunk chunk;
};

enum join_kind {
    JOIN_TOKEN = 1,   /* a newcomer: the token says what it may become */
    JOIN_RENEW = 2,   /* the connection's certificate says who asks */
    JOIN_EXPIRED = 3, /* the certificate ran out: old_cert and proof say who asks */
};

struct wire_join {
    uint8_t kind;   /* enum join_kind */
    uint8_t member; /* 1: also asks to become a member of the quorum, at the addresses */
    char token[64]; /* JOIN_TOKEN: the secret part only, 25 characters */
    char name[NAME_MAX_SIZE + 1];
    char client_address[ADDRESS_MAX];
    char peer_address[ADDRESS_MAX];
    struct span request;  /* certificate request, PEM; only its key counts */
    struct span old_cert; /* JOIN_EXPIRED: PEM, the chain as it was issued */
    struct span proof;    /* JOIN_EXPIRED: signature of `request` by the old key */
    char hostname[256];
    uint8_t availability; /* JOIN_TOKEN: that the node is to have (store/node.h); 0: as usual */
};

struct wire_member {
    uint64_t raft_id;
    char node_id[NODE_ID_SIZE + 1];
    char peer_address[ADDRESS_MAX];
};

enum join_role { JOIN_WORKER = 1, JOIN_MANAGER = 2 };

struct wire_joined {
    uint16_t error;           /* enum err */
    char text[256];           /* sentence when error != OK */
    char leader[ADDRESS_MAX]; /* ERR_NOT_LEADER: ask there */
    uint8_t role;             /* enum join_role, that the certificate says; 0 with an error */
    uint64_t raft_id;         /* 0: no member of the quorum */
    char cluster_id[CLUSTER_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1];
    struct span cert;       /* PEM, a chain, the leaf first */
    struct span root;       /* PEM, the trusted roots; the one that join tokens pin is the first */
    struct span unlock_key; /* 32 bytes when autolock is on, else empty */
    struct span vault; /* a member of the quorum's: the cluster keys (api/node/identity.h); or "" */
    uint32_t n;        /* members, <= MEMBERS_MAX */
    struct wire_member members[MEMBERS_MAX];
};

/* On a session of a node; raft/ does not look into it. */
struct wire_node {
    uint8_t kind;     /* 0: the transport's own last word (session.h) */
    struct span body; /* <= SESSION_BODY_MAX */
};

struct wire_message {
    enum wire_type type;
    union {
        struct wire_hello hello;
        struct wire_append append;
        struct raft_append_entries_result append_result;
        struct raft_request_vote vote;
        struct raft_request_vote_result vote_result;
        struct raft_timeout_now timeout_now;
        struct wire_ping ping;
        struct wire_pong pong;
        struct wire_forward forward;
        struct wire_forwarded forwarded;
        struct wire_offer offer;
        struct wire_want want;
        struct wire_chunk chunk;
        struct wire_join join;
        struct wire_joined joined;
        struct wire_node node;
    };
};

/* Appends one whole frame to `out` (whose max should be FRAME_MAX). */
RESULT wire_encode(const struct wire_message *m, struct buf *out);
/* Decodes exactly one frame, header included. */
RESULT wire_decode(struct span frame, struct wire_message *out);
/* The next entry of a decoded append; bounds are checked again here. Advances `raw`. */
RESULT wire_next_entry(struct cursor *raw, struct wire_entry *out);
/* How many bytes the frame at the start of `bytes` has; 0: not enough to tell. ERR_PROTOCOL past
 * FRAME_MAX. */
RESULT wire_frame_size(struct span bytes, size_t *size);
size_t wire_append_overhead(void); /* bytes of an append frame without entries */
size_t wire_entry_overhead(void);  /* bytes of one entry beside its data */

#endif
