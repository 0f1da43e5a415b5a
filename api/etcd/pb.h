/* Protobuf bytes, written straight into a buffer: for the answers that carry keys and values,
 * which would otherwise be copied into messages first (protobuf-c packs all other messages). As
 * in proto3, zero numbers and empty bytes are left out. A message within a message is opened and
 * closed; its length takes its place when it is known. Fields: numbers of api/etcd/rpc.proto. */
#ifndef CONCLAVE_PB_H
#define CONCLAVE_PB_H

#include "crypto/base.h"

struct kv;

RESULT pb_number(struct buf *b, unsigned field, uint64_t v); /* intN, uintN, bool, enum */
RESULT pb_bytes(struct buf *b, unsigned field, struct span s);
RESULT pb_open(struct buf *b, unsigned field, size_t *mark); /* fields below 16 */
RESULT pb_close(struct buf *b, size_t mark);
/* mvccpb.KeyValue; `value` false: without it. */
RESULT pb_kv(struct buf *b, unsigned field, const struct kv *kv, bool value);

#endif
