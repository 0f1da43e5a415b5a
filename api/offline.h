/* What is done to a data directory while no server runs on it. Blocking; each opens and locks the
 * directory (ERR_IN_USE when a server has it) and the keyring, and closes both. */
#ifndef CONCLAVE_OFFLINE_H
#define CONCLAVE_OFFLINE_H

#include <stdio.h>

#include "api/node/identity.h"

struct offline_report {
    char name[NAME_MAX_SIZE + 1], id[NODE_ID_SIZE + 1];
    uint64_t snapshot, first, last; /* indexes; 0: none */
    uint64_t term;
};

/* Opens everything as a start would, every snapshot chunk and log record included, and closes it
 * again. Errors name the file and the place. */
RESULT offline_check(const char *data, struct kek kek, struct offline_report *out, struct why *why);
/* After a lost quorum: the only member from now on; the others' rows go when it runs again. */
RESULT offline_recover(const char *data, struct kek kek, struct why *why);

/* The node that a backup becomes. */
struct offline_place {
    char name[NAME_MAX_SIZE + 1];
    char client[ADDRESS_MAX], peer[ADDRESS_MAX]; /* HOST:PORT to listen on */
    const struct secret *vault; /* cluster keys (vault_keys_encode) of an escrow; NULL: none */
};

struct offline_restored {
    uint64_t keys, revision;
    uint64_t values; /* of secrets and configs */
    uint64_t sealed; /* of them, those that no key opens: their escrow is to be imported */
    char token[JOIN_TOKEN_TEXT]; /* for further members; the caller wipes it */
};

/* Verifies the whole backup, then makes a new cluster of one with its keys and values in `data`.
 * The values of secrets open with the cluster keys of place->vault only.
 * ERR_EXISTS when there is a node; on any error the directory holds none. */
RESULT offline_restore(FILE *file, const char *file_name, const struct secret *key,
                       const char *data, const struct offline_place *place,
                       struct offline_restored *out, struct why *why);

#endif
