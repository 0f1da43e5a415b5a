/* Commands: what an entry of the log is made of. One is u8 operation, u8 flags, [16 bytes token
 * when flag 1], then the operation's fields, little-endian, blocks as u32 length + bytes (format:
 * top of command.c). The leader puts time, ids, keys and certificates into the command; apply has
 * no clock and no randomness.
 *
 * A command with a token is applied once: its result is remembered (TOKENS_MAX of them, the oldest
 * forgotten first, the same on every member), and a second one with the same token gives the first
 * one's result.
 *
 * The result of a command: u16 error (enum err), u64 revision of the store after it, then the
 * operation's own fields; decoded by result_decode. */
#ifndef CONCLAVE_COMMAND_H
#define CONCLAVE_COMMAND_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "store/cluster.h"

enum op {
    OP_PUT = 1,          /* key, value, conditions */
    OP_DELETE = 2,       /* key, end (empty: just the key) */
    OP_BATCH = 3,        /* puts and deletes in one revision, all or nothing */
    OP_CLUSTER = 32,     /* makes the cluster; only once */
    OP_NODE_ADD = 33,    /* a node */
    OP_NODE_REMOVE = 34, /* by raft id */
    OP_NODE_UPDATE = 35, /* addresses, name */
    OP_TOKEN = 36,       /* another join token */
    OP_LOCK = 37,        /* autolock: unlock key, or empty for off */
};

#define TOKEN_SIZE 16
#define BATCH_MAX  4096 /* puts and deletes in one OP_BATCH */

struct command {
    enum op op;
    bool has_token;
    uint8_t token[TOKEN_SIZE];
    union {
        struct {
            struct span key, value;
            bool must_not_exist;   /* else ERR_EXISTS */
            uint64_t mod_revision; /* 0: any; else the key's, or ERR_PRECONDITION */
        } put;
        struct {
            struct span key, end;
            uint64_t mod_revision; /* as above, single key only */
        } del;
        struct {
            uint32_t n;        /* <= BATCH_MAX */
            struct span items; /* encoded put and delete bodies, made by command_batch_add */
        } batch;
        struct {
            char id[CLUSTER_ID_SIZE + 1];
            int64_t now_s;
            struct span root_pem, root_key; /* root_key: PEM; wiped by the caller after encoding */
            uint8_t token_hash[TOKEN_HASH_SIZE];
            bool replace; /* a restored state: takes the place of the cluster that it was of */
            struct node first;
        } cluster;
        struct node node; /* OP_NODE_ADD (raft_id given by the leader), OP_NODE_UPDATE */
        uint64_t raft_id; /* OP_NODE_REMOVE */
        uint8_t token_hash[TOKEN_HASH_SIZE]; /* OP_TOKEN */
        struct span unlock_key;              /* OP_LOCK: 32 bytes or empty */
    };
};

/* Both refuse the same things: ERR_INVALID: a field out of its bounds, or bytes that are no
 * command; ERR_UNSUPPORTED: an operation or flag of a later version. Encoding also ERR_TOO_LARGE,
 * ERR_NOMEM; what was appended before an error stays in `out`. */
RESULT command_encode(const struct command *c, struct buf *out); /* out->max: COMMAND_MAX */
RESULT command_decode(struct span bytes, struct command *out);   /* spans point into bytes */
/* Appends a put or delete (its token is not looked at) to the items; the caller counts them into
 * batch.n. */
RESULT command_batch_add(struct buf *items, const struct command *put_or_delete);
/* Takes the next put or delete from the items of a batch. */
RESULT command_batch_next(struct cursor *items, struct command *out);

struct result {
    enum err error;    /* what became of it */
    uint64_t revision; /* of the store after it */
    bool repeated;     /* the token was known: this is the first one's result */
    uint64_t deleted;  /* OP_DELETE, OP_BATCH: keys removed */
    struct {
        bool existed; /* OP_PUT, single OP_DELETE: what the key had before */
        uint64_t mod_revision, version;
    } previous;
};

#define RESULT_SIZE 35 /* bytes of every result of this version */
void result_pack(const struct result *r, uint8_t out[RESULT_SIZE]);
RESULT result_encode(const struct result *r, struct buf *out);
RESULT result_decode(struct span bytes, struct result *out);

#endif
