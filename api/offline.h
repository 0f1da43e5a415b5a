/* What is done to a data directory while no server runs on it. Blocking; each opens and locks the
 * directory (ERR_IN_USE when a server has it) and the keyring, and closes both. */
#ifndef CONCLAVE_OFFLINE_H
#define CONCLAVE_OFFLINE_H

#include "api/identity.h"

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

#endif
