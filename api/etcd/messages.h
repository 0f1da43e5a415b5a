/* Requests of etcd's KV service as what the store understands (store/range.h, store/txn.h). Spans
 * point into the request. Numbers below zero mean what zero means, as with etcd. */
#ifndef CONCLAVE_MESSAGES_H
#define CONCLAVE_MESSAGES_H

#include "api/etcd/rpc.pb-c.h"
#include "store/txn.h"

RESULT range_of(const Etcdserverpb__RangeRequest *m, struct range *out); /* ERR_EMPTY_KEY, ... */
RESULT put_of(const Etcdserverpb__PutRequest *m, struct put *out);
RESULT delete_of(const Etcdserverpb__DeleteRangeRequest *m, struct del *out);
/* Nested ones are decoded here, TXN_DEPTH_MAX deep. ERR_INVALID, ERR_TOO_MANY_OPS, ERR_NOMEM and
 * what txn_check refuses. *serializable: it has reads, and all of them allow an old answer;
 * compares alone are of now. */
RESULT txn_of(const Etcdserverpb__TxnRequest *m, struct buf *out, bool *serializable,
              struct why *why);

#endif
