/* Questions about the keys, as etcd asks them: one key, a range or all; at this revision or an
 * older one; sorted, filtered and limited. Asked of a store (store_range_read) and inside
 * transactions (txn.h). Source of the semantics: etcd v3 API, Range. */
#ifndef CONCLAVE_RANGE_H
#define CONCLAVE_RANGE_H

#include "crypto/base.h"
#include "crypto/limits.h"

/* key .. end: end.size 0: just the key; end "\0": all keys >= key (with key "\0": all). An end not
 * above the key: nothing. */
struct interval {
    struct span key, end;
};
bool interval_one(const struct interval *i);                             /* a single key */
bool interval_has(const struct interval *i, struct span key);            /* is it inside? */
bool interval_meets(const struct interval *a, const struct interval *b); /* any key in both? */

enum sort_order { SORT_NONE, SORT_ASCEND, SORT_DESCEND };
enum sort_target { SORT_KEY, SORT_VERSION, SORT_CREATE, SORT_MOD, SORT_VALUE };

struct range {
    struct interval in;
    uint64_t limit;    /* kvs at most; 0: all */
    uint64_t revision; /* 0: now */
    enum sort_order order;
    enum sort_target target;
    bool keys_only;                                    /* kvs without values */
    bool count_only;                                   /* no kvs */
    uint64_t min_mod_revision, max_mod_revision;       /* 0: no bound */
    uint64_t min_create_revision, max_create_revision; /* 0: no bound */
};

struct range_end {
    uint64_t count; /* keys in the interval, whatever limit and filters say */
    bool more;      /* the limit left some out */
};

#endif
