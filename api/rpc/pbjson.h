/* JSON to the wire form of protobuf and back, by protobuf-c's descriptors, as etcd's gateway writes
 * it: bytes as base64, 64-bit integers as texts, enums as names, zeros left out. In: standard and
 * URL-safe base64, padded or not; integers as numbers or texts; enums as names or numbers; fields
 * by their names or those in lowerCamelCase; null is absent; a name that the message does not have
 * is passed over, as etcd does since its clients may be newer.
 *
 * Two fields are declared as bytes but hold messages (nested transactions, see api/etcd/rpc.proto):
 * in JSON they are objects. Neither direction recurses: what is open lies in an array of
 * GATEWAY_DEPTH_MAX. Pure; called by gateway.c and the fuzzer. */
#ifndef CONCLAVE_PBJSON_H
#define CONCLAVE_PBJSON_H

#include <protobuf-c/protobuf-c.h>

#include "api/json.h"
#include "crypto/limits.h"

/* Appends the message. ERR_INVALID names the field; ERR_TOO_LARGE past wire->max. */
RESULT pbjson_read(const ProtobufCMessageDescriptor *type, const json_t *object, struct buf *wire,
                   struct why *why);
/* Writes one object. Elements of a repeated field must lie together, as every encoder of ours puts
 * them. ERR_PROTOCOL: not the wire form of this message. */
RESULT pbjson_write(const ProtobufCMessageDescriptor *type, struct span wire, struct jout *j);

/* What a message-valued field holds, whichever way it is declared; NULL: it is none. */
const ProtobufCMessageDescriptor *pbjson_inner(const ProtobufCMessageDescriptor *type,
                                               const ProtobufCFieldDescriptor *field);

#endif
