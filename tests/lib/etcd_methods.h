/* Every method of etcd 3.7's API, as its clients know it: path, JSON path, kind and messages. What
 * we serve must be this (tests/unit/test_rpc.c), and fuzzers hand every request to every method. */
#ifndef CONCLAVE_TEST_ETCD_METHODS_H
#define CONCLAVE_TEST_ETCD_METHODS_H

#include "api/rpc/rpc.h"

#define ETCD_METHODS_MAX 64

/* Fills `out` (room for ETCD_METHODS_MAX), ending with path NULL; the handlers are the caller's.
 * Returns their number. */
unsigned etcd_methods(struct method *out, void (*message)(struct rpc *r, const ProtobufCMessage *m),
                      void (*ended)(struct rpc *r));

#endif
