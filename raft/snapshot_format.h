/* The bytes of a snapshot file, to and from memory; the layout stands at the top of snapshot.c.
 * Private to raft/snapshot*.c. */
#ifndef CONCLAVE_SNAPSHOT_FORMAT_H
#define CONCLAVE_SNAPSHOT_FORMAT_H

#include "raft/envelope.h"
#include "raft/snapshot.h"

#define SNAP_HEADER_PLAIN (IDENTITY_SIZE + 4 * 8 + 4)
#define SNAP_HEADER       (ENVELOPE_SIZE + SNAP_HEADER_PLAIN + SEAL_TAG)
#define SNAP_CONF_MAX     (64 * KIB) /* bytes of an encoded configuration */
#define SNAP_HEAD_PLAIN   16
#define SNAP_HEAD         (SNAP_HEAD_PLAIN + SEAL_TAG) /* a sealed chunk head; the data follow */
#define SNAP_CHUNK        (SNAP_HEAD + SNAPSHOT_CHUNK + SEAL_TAG) /* the largest sealed chunk */
#define SNAP_END_DATA     (STATE_HASH_SIZE + 8)                   /* data of the end record */
#define SNAP_PIECE        (64 * KIB) /* goes to or comes from the disk at once */
#define SNAP_DIR          "snapshots"

extern const struct envelope_kind snap_kind;

struct snap_header {
    uint64_t index, term, conf_index; /* struct snapshot_meta */
    uint64_t ballot;                  /* ballot_count when it was begun */
    uint32_t conf_size;               /* bytes of the configuration behind the header */
};

/* What a chunk's sealed head says. */
struct snap_head {
    uint32_t raw_size;  /* of the state bytes */
    uint32_t data_size; /* of the data on disk, before their tag */
    bool compressed;    /* data are LZ4 */
    bool last;          /* the end record */
};

/* Header and configuration, to `out` (SNAP_HEADER + conf + SEAL_TAG bytes), and back. Opening first
 * takes SNAP_HEADER bytes; ERR_CORRUPT when they do not authenticate. */
RESULT snap_header_seal(const struct envelope *e, struct sealer *s, const struct identity *who,
                        const struct snap_header *h, struct span conf, uint8_t *out);
RESULT snap_header_open(struct sealer *s, const struct identity *who, const uint8_t *raw,
                        struct snap_header *h);
RESULT snap_conf_open(struct sealer *s, const struct snap_header *h, const uint8_t *header,
                      const uint8_t *raw, uint8_t *conf);

/* One chunk, to `out` (SNAP_HEAD + data + SEAL_TAG bytes), and back. */
RESULT snap_chunk_seal(const struct envelope *e, struct sealer *s, const struct snapshot_chunk *c,
                       uint8_t *out);
RESULT snap_head_open(const struct envelope *e, struct sealer *s, uint64_t number,
                      const uint8_t *raw, struct snap_head *h);
RESULT snap_data_open(const struct envelope *e, struct sealer *s, uint64_t number,
                      const struct snap_head *h, const uint8_t *raw, uint8_t *data);

bool snap_chunk_sane(const struct snap_head *h); /* do its sizes and flags go together? */
void snap_path(uint64_t index, const char *suffix, char out[PATH_ROOM]);

#endif
