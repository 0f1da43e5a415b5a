/* What the sealed files of raft/ have in common: 40 bytes in clear that say how to open the rest,
 * and the way from them to the sealer. Log segments, ballot slots and snapshots begin with it.
 *
 *   0  8  magic, a word a kind of file
 *   8  2  version, little-endian like all integers
 *  10  1  algorithm (enum seal_alg)
 *  11  1  zero
 *  12  4  DEK generation
 *  16 24  random id, never used twice
 *
 * The file's key is secret_derive(DEK of the generation, purpose, id), so that no two files (and no
 * two versions of a ballot slot) share one. The clear bytes are associated data of the first seal
 * after them. */
#ifndef CONCLAVE_ENVELOPE_H
#define CONCLAVE_ENVELOPE_H

#include "crypto/keyring.h"
#include "crypto/seal.h"
#include "raft/wal.h"

#define ENVELOPE_SIZE 40
#define ENVELOPE_ID   24
#define IDENTITY_SIZE (CLUSTER_ID_SIZE + NODE_ID_SIZE)

struct envelope {
    enum seal_alg alg;       /* of all seals of the file */
    uint32_t generation;     /* of the DEK that its key comes from */
    uint8_t id[ENVELOPE_ID]; /* random */
};

/* Names a kind of file. */
struct envelope_kind {
    char magic[9];       /* 8 characters */
    uint16_t version;    /* the only one that is known */
    const char *purpose; /* for the key */
};

/* A fresh id under the current generation. */
void envelope_new(struct envelope *e, struct keyring *keys, enum seal_alg alg);
void envelope_write(const struct envelope *e, const struct envelope_kind *kind,
                    uint8_t out[ENVELOPE_SIZE]);
/* ERR_CORRUPT, ERR_UNSUPPORTED for another version; `path` and `at` are where the bytes stood. */
RESULT envelope_read(struct span raw, const struct envelope_kind *kind, const char *path,
                     uint64_t at, struct envelope *out, struct why *why);
/* ERR_CORRUPT when the keyring has no such generation. */
RESULT envelope_sealer(const struct envelope *e, const struct envelope_kind *kind,
                       struct keyring *keys, const char *path, uint64_t at, struct sealer **out,
                       struct why *why);

/* The ids as fixed bytes, padded with zeros. */
void identity_write(const struct identity *i, uint8_t out[IDENTITY_SIZE]);
bool identity_matches(const struct identity *i, const uint8_t raw[IDENTITY_SIZE]);

#endif
