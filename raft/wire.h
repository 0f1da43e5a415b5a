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

#define WIRE_VERSION 1
#define WIRE_HEADER  5 /* length and type */

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
    WIRE_JOIN,   /* a newcomer asks for a certificate (join connection only) */
    WIRE_JOINED, /* the answer to it */
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

struct wire_join {
    char token[64]; /* the secret part only: 25 characters */
    char name[NAME_MAX_SIZE + 1];
    char client_address[ADDRESS_MAX];
    char peer_address[ADDRESS_MAX];
    struct span request; /* certificate request, PEM */
};

struct wire_member {
    uint64_t raft_id;
    char node_id[NODE_ID_SIZE + 1];
    char peer_address[ADDRESS_MAX];
};

struct wire_joined {
    uint16_t error;           /* enum err */
    char text[256];           /* sentence when error != OK */
    char leader[ADDRESS_MAX]; /* ERR_NOT_LEADER: ask there */
    uint64_t raft_id;
    char cluster_id[CLUSTER_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1];
    struct span cert;       /* PEM */
    struct span root;       /* PEM */
    struct span unlock_key; /* 32 bytes when autolock is on, else empty */
    uint32_t n;             /* members, <= MEMBERS_MAX */
    struct wire_member members[MEMBERS_MAX];
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
