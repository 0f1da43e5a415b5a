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
#include "store/auth.h"
#include "store/cluster.h"
#include "store/lease.h"
#include "store/row.h"
#include "store/txn.h"

enum op {
    OP_PUT = 1,          /* key, value, lease, conditions */
    OP_DELETE = 2,       /* an interval of keys */
    OP_BATCH = 3,        /* puts and deletes in one revision, all or nothing */
    OP_TXN = 4,          /* a transaction (txn.h) */
    OP_COMPACT = 5,      /* forget the history below a revision */
    OP_LEASE_GRANT = 6,  /* a lease; its id was drawn by the proposer */
    OP_LEASE_REVOKE = 7, /* a lease and all keys that hang on it */
    OP_ALARM = 8,        /* raises or clears an alarm of a member */
    OP_AUTH = 9,         /* a change of users, roles, permissions (auth.h) */
    OP_IMPORT = 10,      /* keys of another store, with their revisions (import.h) */
    OP_CLUSTER = 32,     /* makes the cluster; only once */
    OP_NODE_ADD = 33,    /* a member of the quorum, onto the roll */
    OP_NODE_REMOVE = 34, /* by raft id */
    OP_NODE_UPDATE = 35, /* addresses, name */
    OP_CA = 36,          /* a step of a rotation of the root */
    OP_LOCK = 37,        /* autolock: unlock key, or empty for off */
    OP_ROWS = 38,        /* changes of nodes, join tokens, settings (row.h) */
};

enum ca_action {
    CA_START = 1,  /* `next` is to become the CA; takes the place of one that was to */
    CA_ABORT = 2,  /* all stays as it is */
    CA_FINISH = 3, /* `next` becomes the CA */
    CA_FORGET = 4  /* no node trusts a retired root any more */
};

/* A CA on its way into the state (struct ca). */
struct ca_spans {
    struct span root_pem;   /* not empty */
    struct span issuer_pem; /* empty: the root signs */
    struct span key;        /* PEM; empty: an external CA signs; wiped by the caller */
};

#define TOKEN_SIZE 16
#define BATCH_MAX  4096 /* puts and deletes in one OP_BATCH */

struct command {
    enum op op;
    bool has_token;
    uint8_t token[TOKEN_SIZE];
    bool has_user;          /* else an operator, whom permissions don't bind */
    struct span user;       /* on whose behalf; empty: nobody's, who may nothing with auth on */
    uint64_t auth_revision; /* of the permissions that the proposer saw */
    union {
        struct put put;
        struct del del;
        struct span txn;           /* OP_TXN: bytes of txn_add, checked by txn_check */
        uint64_t compact_revision; /* OP_COMPACT */
        struct lease lease;        /* OP_LEASE_GRANT; OP_LEASE_REVOKE: its id */
        struct {
            enum alarm alarm;
            uint64_t raft_id; /* the member; 0: all, when clearing */
            bool raise;       /* else clear */
        } alarm;
        struct auth_change auth; /* OP_AUTH */
        struct {
            uint64_t begin;   /* revision that an empty store takes over; 0: `rows` */
            struct span rows; /* keys below it; those that are there already stay */
        } import;
        struct {
            uint32_t n;        /* <= BATCH_MAX */
            struct span items; /* encoded put and delete bodies, made by command_batch_add */
        } batch;
        struct {
            char id[CLUSTER_ID_SIZE + 1];
            int64_t now_s;
            struct ca_spans ca;
            struct span join_key; /* 32 bytes; wiped by the caller */
            bool replace; /* a restored state: takes the place of the cluster that it was of, whose
                             nodes, tokens, settings and tasks are gone then */
            struct node first;
        } cluster;
        struct node node; /* OP_NODE_ADD (raft_id given by the leader), OP_NODE_UPDATE */
        uint64_t raft_id; /* OP_NODE_REMOVE */
        struct {
            enum ca_action action;
            uint64_t rotation;     /* as its proposer has seen it; else ERR_CONFLICT */
            struct ca_spans next;  /* CA_START */
            struct span cross_pem; /* CA_START: next's signing key, certified by the present one;
                                      empty: next's nodes need none */
            bool retire;           /* CA_FINISH: some nodes still trust the old root only */
        } ca;
        struct {                       /* OP_LOCK */
            struct span unlock_key;    /* 32 bytes or empty */
            struct span lock_replaces; /* cluster_lock_digest as its proposer has seen it, else
                                          ERR_CONFLICT; empty: whatever stands */
        };
        struct {
            uint32_t n;          /* 1 to ROWS_CHANGE_MAX */
            struct span changes; /* made by row_change_add */
            int64_t now_ns;      /* UTC */
        } rows;
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
    bool repeated;     /* the token was known: this is the first one's result, without its answer */
    uint64_t deleted;  /* OP_DELETE, OP_BATCH, OP_LEASE_REVOKE: keys removed */
    struct {
        bool existed; /* OP_PUT, single OP_DELETE: what the key had before */
        uint64_t mod_revision, version;
    } previous;
    struct span answer; /* OP_TXN; OP_PUT, OP_DELETE with prev_kv: see answer_next (txn.h) */
};

#define RESULT_SIZE 35 /* bytes of a result without its answer */
void result_pack(const struct result *r, uint8_t out[RESULT_SIZE]);
RESULT result_encode(const struct result *r, struct buf *out);
RESULT result_decode(struct span bytes, struct result *out);

#endif
