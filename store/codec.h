/* The bytes of what commands and transactions are made of, and of answers; private to command.c,
 * txn.c and those who answer. Decoding says ERR_PROTOCOL or, for a flag of a later version,
 * ERR_UNSUPPORTED; what is decoded encodes to the same bytes. Whether a key may be empty and the
 * like is not asked here: *_check.
 *
 * Integers are little-endian; a block is u32 length + bytes.
 *   put:      u8 flags (1: must not exist, 2: mod revision follows, 4: lease follows, 8: prev_kv,
 *             16: ignore_value, 32: ignore_lease), [u64 mod revision > 0], [u64 lease > 0],
 *             block key, block value
 *   delete:   u8 flags (2, 8 as above), [u64 mod revision > 0], interval
 *   range:    u8 flags (1: keys_only, 2: count_only, 4: limit follows, 8: revision follows,
 *             16: bounds follow), u8 order, u8 target, [u64 limit > 0], [u64 revision > 0],
 *             [4 u64, not all 0: min and max mod revision, min and max create revision], interval
 *   compare:  u8 target, u8 result, interval, u64 number (of COMPARE_VALUE: block value)
 *   interval: block key, block end
 *   answer:   u8 kind, u8 more (0 or 1), u64 revision, u64 number (count, deleted, succeeded),
 *             u64 kvs that follow, u64 answers that follow (of a transaction); the kvs
 *   kv:       block key, block value, u64 create revision, u64 mod revision, u64 version, u64 lease
 */
#ifndef CONCLAVE_CODEC_H
#define CONCLAVE_CODEC_H

#include "store/txn.h"

#define BOUND_MAX   (KEY_MAX + 1) /* of an interval: clients go on behind a key with key + "\0" */
#define ANSWER_SIZE 34            /* bytes of an answer without its kvs */

RESULT put_encode(const struct put *p, struct buf *out);
RESULT put_decode(struct cursor *in, struct put *out);
RESULT put_check(const struct put *p); /* ERR_INVALID, ERR_VALUE_PROVIDED, ERR_LEASE_PROVIDED */
RESULT del_encode(const struct del *d, struct buf *out);
RESULT del_decode(struct cursor *in, struct del *out);
RESULT del_check(const struct del *d); /* ERR_INVALID */
RESULT range_encode(const struct range *r, struct buf *out);
RESULT range_decode(struct cursor *in, struct range *out);
RESULT range_check(const struct range *r); /* ERR_INVALID, ERR_SORT_OPTION */
RESULT compare_encode(const struct compare *c, struct buf *out);
RESULT compare_decode(struct cursor *in, struct compare *out);
RESULT invalid_for_protocol(enum err e); /* ERR_PROTOCOL is ERR_INVALID to who proposes */

/* An answer under way; `out` NULL: nobody wants one. One that does not fit is dropped whole, and
 * `failed` says so: the writes that it tells of have happened. */
struct answering {
    struct buf *out; /* NULL: nothing is made (any more) */
    size_t start;    /* size of `out` before */
    size_t head;     /* where the answer begins that kvs are added to */
    uint64_t n_kvs;  /* of it */
    enum err failed; /* ERR_TOO_LARGE, or OK */
};
struct answering answering_in(struct buf *out);                      /* NULL is fine */
RESULT answer_begin(struct answering *a, const struct answer *head); /* ERR_NOMEM */
RESULT answer_add(struct answering *a, const struct kv *kv);         /* ERR_NOMEM */
/* What is known only after the kvs: their number, count and more. */
void answer_close(struct answering *a, uint64_t number, bool more);

#endif
