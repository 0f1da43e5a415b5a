/* Transactions as bytes: compares, then the operations of one of two branches. Built from the
 * inside out: txn_compare_add and txn_op_add append to buffers of their own, txn_add joins them;
 * a nested transaction is an operation whose bytes were made so. Format: top of txn.c.
 *
 * Rules, etcd's: at most TXN_OPS_MAX compares, and operations a branch; a nested transaction
 * gets what its parent leaves; no key is put twice, or put and deleted, by operations that can
 * happen together (txn_check). And ours, far above what clients of etcd do, for a command holds up
 * every member: TXN_TREE_MAX and TXN_SCANS_MAX of the whole; TXN_LOOK_MAX, which depends on the
 * keys that there are and is met before the first write (txn_apply.c). All writes of a transaction
 * share one revision, subs count them.
 *
 * The answer: the kinds of `struct answer`, in the order of the operations, a nested transaction
 * before its own (answer_next). */
#ifndef CONCLAVE_TXN_H
#define CONCLAVE_TXN_H

#include "store/range.h"
#include "store/store.h"

struct put {
    struct span key, value;
    uint64_t lease;        /* 0: none */
    bool prev_kv;          /* answer with what was there */
    bool ignore_value;     /* keep the value; value must be empty */
    bool ignore_lease;     /* keep the lease; lease must be 0 */
    bool must_not_exist;   /* else ERR_EXISTS (not in a transaction) */
    uint64_t mod_revision; /* 0: any; else the key's, or ERR_PRECONDITION (not in a transaction) */
};

struct del {
    struct interval in;
    bool prev_kv;          /* answer with what was there */
    uint64_t mod_revision; /* as above, a single key only */
};

enum compare_target { COMPARE_VERSION, COMPARE_CREATE, COMPARE_MOD, COMPARE_VALUE, COMPARE_LEASE };
enum compare_result { COMPARE_EQUAL, COMPARE_GREATER, COMPARE_LESS, COMPARE_NOT_EQUAL };
struct compare {
    struct interval in; /* all keys of it must match */
    enum compare_target target;
    enum compare_result result;
    int64_t number;    /* what to compare with */
    struct span value; /* the same, of COMPARE_VALUE */
};

enum txn_kind { TXN_RANGE = 1, TXN_PUT = 2, TXN_DELETE = 3, TXN_NESTED = 4 };
struct txn_op {
    enum txn_kind kind;
    union {
        struct range range;
        struct put put;
        struct del del;
        struct span txn; /* bytes made by txn_add */
    };
};

/* All: ERR_INVALID (out of bounds), ERR_NOMEM, ERR_TOO_LARGE (the buffer's max). */
RESULT txn_compare_add(struct buf *compares, const struct compare *c);
RESULT txn_op_add(struct buf *ops, const struct txn_op *op);
RESULT txn_add(struct buf *out, struct span compares, struct span success, struct span failure);

/* What the rules above refuse: ERR_TOO_MANY_OPS, ERR_DUPLICATE_KEY, ERR_EMPTY_KEY, ERR_SORT_OPTION,
 * ERR_VALUE_PROVIDED, ERR_LEASE_PROVIDED; ERR_INVALID: no transaction's bytes; ERR_NOMEM. */
RESULT txn_check(struct span txn, struct why *why);
bool txn_writes(struct span txn); /* may it change anything? (nested ones count as writes) */
bool txn_puts(struct span txn);   /* is there a put in it, however deep? Of what txn_check took */

/* May the user do all that any branch of it reads? For one that only reads. (auth.h) */
struct auth;
RESULT txn_may(const struct auth *a, struct span user, struct span txn);

/* Taking one apart (txn.c, apply, authorisation): */
struct txn_view {
    struct span compares, success, failure; /* for the cursors below */
};
RESULT txn_open(struct span txn, struct txn_view *out);
RESULT txn_compare_next(struct cursor *compares, struct compare *out);
RESULT txn_op_next(struct cursor *ops, struct txn_op *out);

/* --- answers --- */

enum answer_kind { ANSWER_RANGE = 1, ANSWER_PUT = 2, ANSWER_DELETE = 3, ANSWER_TXN = 4 };
struct answer {
    enum answer_kind kind;
    union {
        struct range_end range; /* then n_kvs */
        uint64_t deleted;       /* then n_kvs: what was there */
        bool succeeded;         /* then n_answers: of the branch taken */
    };
    uint64_t revision;  /* as etcd puts it into the header of this answer; a transaction's: 0 */
    uint64_t n_kvs;     /* answer_kv gives them; PUT: 0 or 1, what was there */
    uint64_t n_answers; /* TXN: operations that follow, one answer each */
};
/* From result.answer (command.h). Kvs of an answer are read before the next answer.
 * ERR_PROTOCOL. */
RESULT answer_next(struct cursor *in, struct answer *out);
RESULT answer_kv(struct cursor *in, struct kv *out);

/* A transaction that only reads, now, without the log. `out`: bytes as of result.answer.
 * ERR_COMPACTED, ERR_FUTURE_REVISION; ERR_TOO_LARGE: does not fit; ERR_NOMEM. */
struct store;
RESULT txn_read(const struct store *s, struct span txn, struct buf *out);

#endif
