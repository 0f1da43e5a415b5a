/* A data directory as a whole: wiping what a node leaves, and telling an empty one from one whose
 * keyring was lost. */
#ifndef CONCLAVE_DIRECTORY_H
#define CONCLAVE_DIRECTORY_H

#include "crypto/disk.h"

/* Removes the keys first, then ballot, log and snapshots; a wipe that was cut short is finished by
 * directory_check_empty. Best effort: without the keys the rest is noise. */
void directory_wipe(struct disk *disk);
/* The ballot, the log and the snapshots alone: the keyring stays. */
void directory_wipe_log(struct disk *disk);
/* There is no keyring: is there nothing else either? ERR_CORRUPT when a log or ballot is there. */
RESULT directory_check_empty(struct disk *disk, const char *name, struct why *why);

#endif
