/* The tables of methods, one a service, each in the service's file; methods.c gathers them. */
#ifndef CONCLAVE_METHODS_H
#define CONCLAVE_METHODS_H

#include "api/rpc/rpc.h"

extern const struct method auth_methods[];
extern const struct method kv_methods[];
extern const struct method watch_methods[];
extern const struct method cluster_methods[];
extern const struct method maintenance_methods[];
extern const struct method health_methods[];
extern const struct method lease_methods[];
extern const struct method lock_methods[];
extern const struct method election_methods[];

#endif
