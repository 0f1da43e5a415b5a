/* A backup file: the whole state at one index, compressed and sealed under a random key that only
 * the user gets. It is made from a running member's stream (handlers_keys.c) and becomes the state
 * of a new cluster of one. Blocking; one thread.
 *
 * The file, integers little-endian:
 *   header, 32 bytes: "CCLBAK01", u8 algorithm (seal.h), 7 zero bytes, 16 random bytes file id
 *   records: u32 word, u32 size of the bytes before compression, then the sealed bytes.
 *     word: bits 0-23 sealed bytes (tag included), bit 30 LZ4, bit 31 the last record.
 * A record is sealed under the key derived from the backup's key for the purpose "backup" and the
 * file id; its number (0, 1, ...) is the nonce, its associated data is header || u64 number || the
 * 8 bytes in front of it, so that records can't be moved, dropped or taken from another file.
 *   record 0:    u32 version (1), i64 UTC seconds, 32 bytes state hash, u64 revision, u64 index
 *   then:        the state as the machine serialises it, up to BACKUP_CHUNK bytes each
 *   the last:    u64 number of records before it, u64 bytes of the state
 * Then nothing, or, in a file that an etcd client has saved (api/etcd/snapshot.c), zeros up to a
 * multiple of BACKUP_PADDING and the SHA-256 of all before it.
 *
 * The key as text: "CCLBAK-1-" + 43 characters of unpadded standard base64 of 32 bytes. */
#ifndef CONCLAVE_BACKUP_H
#define CONCLAVE_BACKUP_H

#include <stdio.h>

#include "crypto/limits.h"
#include "crypto/secret.h"
#include "raft/snapshot.h"
#include "store/cluster.h"

#define BACKUP_KEY_TEXT 53 /* with the NUL */
#define BACKUP_CHUNK    (256 * KIB)
#define BACKUP_PADDING  512 /* etcd's clients take its remainder of 32 for the sum's being there */

RESULT backup_key_format(const struct secret *key, char out[BACKUP_KEY_TEXT]);
RESULT backup_key_parse(const char *text, struct secret **out, struct why *why);
/* The key of what etcd's clients save, who can't be given one: it follows from a key that the
 * cluster has for its whole life, and whoever may administer the cluster can ask for it (conclave
 * backup-key). ERR_BUSY: the cluster is being founded. */
RESULT backup_cluster_key(const struct cluster *c, struct secret **out);

struct backup_head {
    int64_t time_s;                /* when it was made */
    uint8_t hash[STATE_HASH_SIZE]; /* of the state */
    uint64_t revision, index;      /* of the store, of the log */
};

struct backup_writer;
/* Writes to `file`, which stays the caller's. */
RESULT backup_create(FILE *file, const struct secret *key, const struct backup_head *head,
                     struct backup_writer **out, struct why *why);
RESULT backup_write(struct backup_writer *w, struct span state, struct why *why); /* any size */
RESULT backup_finish(struct backup_writer *w, uint64_t *state_bytes, struct why *why);
void backup_writer_free(struct backup_writer *w); /* also after finish */

/* Reads and verifies everything; gives the state to `each` piece by piece. ERR_WRONG_KEY when the
 * first record does not open, ERR_CORRUPT with the place for anything later. */
RESULT backup_read(FILE *file, const char *name, const struct secret *key, struct backup_head *head,
                   enum err (*each)(void *ctx, struct span state), void *ctx, struct why *why);

#endif
