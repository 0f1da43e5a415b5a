/* The services of etcd's API, each a table of its own file: see api/rpc/rpc.h. */
#include "api/etcd/methods.h"

const struct method *const api_services[] = {
    auth_methods,  kv_methods,   watch_methods,    cluster_methods, maintenance_methods,
    lease_methods, lock_methods, election_methods, health_methods,  NULL,
};
