/* The parts of the KV and Maintenance services, for each other: kv.c, range.c, txn.c,
 * snapshot.c. */
#ifndef CONCLAVE_KV_H
#define CONCLAVE_KV_H

#include "api/etcd/etcd.h"
#include "api/etcd/messages.h"
#include "api/etcd/methods.h"

void kv_range(struct rpc *r, const ProtobufCMessage *m);             /* range.c; also streamed */
void kv_txn(struct rpc *r, const ProtobufCMessage *m);               /* txn.c */
void maintenance_snapshot(struct rpc *r, const ProtobufCMessage *m); /* snapshot.c */
/* May `size` more bytes come in? ERR_QUOTA, and the alarm is raised when it was not. */
RESULT quota_check(struct api *api, size_t size);

#endif
