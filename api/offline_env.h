/* A data directory that is worked on while no server runs: its parts, and an environment for the
 * replica's functions that sends nothing and runs nothing. Shared by offline.c and restore.c. */
#ifndef CONCLAVE_OFFLINE_ENV_H
#define CONCLAVE_OFFLINE_ENV_H

#include "api/node/identity.h"
#include "raft/replica.h"
#include "store/store.h"

struct offline {
    struct disk *disk;
    struct keyring *keys;
    struct node_identity self;
    struct clock clock;
    struct store *store;
    struct replica_env env;
    struct replica_config raft;
    struct exec exec; /* takes no jobs: nothing runs */
};

void offline_env(struct offline *o); /* fills env and raft from the rest */
void offline_close(struct offline *o);

#endif
