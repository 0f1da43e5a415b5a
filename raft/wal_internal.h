/* What the files of the log share: wal_load.c opens, wal_segment.c makes segments and removes them,
 * wal_read.c reads back, wal.c appends and answers. Private to them. */
#ifndef CONCLAVE_WAL_INTERNAL_H
#define CONCLAVE_WAL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "raft/wal_format.h"

#define WAL_SPARE      "log/spare"
#define WAL_PIECE      (1 * MIB) /* bytes of zeros written at a time */
#define WAL_READERS    4         /* segments open for reading back */
#define WAL_BUFFER_MIN (256 * KIB)

/* One record's place: all that is kept of it in memory. */
struct wal_record {
    uint64_t first;        /* index of its first entry */
    uint32_t count;        /* entries */
    uint32_t payload;      /* bytes of entry data */
    uint32_t block;        /* where it begins, in blocks of the file */
    uint32_t body;         /* bytes of its body */
    uint8_t tag[SEAL_TAG]; /* which the next record names */
};

struct wal_segment {
    struct wal_header header; /* as on disk */
    struct envelope envelope; /* as on disk */
    uint8_t tag[SEAL_TAG];    /* of the header */
    uint64_t limit; /* entries from this index on don't count: a later segment holds them */
    uint64_t end;   /* bytes in use */
    struct wal_record *records; /* ascending */
    size_t count;               /* of records */
    size_t room;                /* allocated */
};

/* Segments in order of sequence; owned. */
struct wal_list {
    struct wal_segment **at;
    size_t count, room;
};

/* A segment open for reading back, and the record that was read last. */
struct wal_reader {
    uint64_t sequence; /* 0: not in use */
    uint64_t used;     /* when, to find the one to give up */
    struct file *file;
    struct sealer *sealer;
    uint64_t number;        /* of the record whose entries are here; 0: none */
    struct entry **entries; /* held */
    size_t count;           /* of entries */
};

/* An aligned, growing buffer that is used again and again. */
struct wal_buffer {
    uint8_t *at;
    size_t size;
};

struct wal {
    struct wal_options o;     /* as given */
    pthread_mutex_t lock;     /* segments, leaving, next, bytes; held briefly; taken last */
    struct wal_list segments; /* from the watermark's first on; the last one may be active */
    struct wal_list leaving;  /* no longer part of the log, files not yet certainly gone */
    uint64_t next;            /* index of the next entry */
    uint64_t bytes;           /* payload of live entries */

    struct file *file;        /* appending thread: the active segment, NULL: none yet */
    struct sealer *sealer;    /* appending thread: its sealer */
    struct wal_buffer buffer; /* appending thread: the record being made */
    bool failed;              /* appending thread: a write failed; nothing is written any more */

    pthread_mutex_t spare_lock; /* spare */
    struct file *spare;         /* log/spare, all zeros and synced; NULL: none */
    atomic_bool spare_ready;    /* spare != NULL, to be asked without waiting */

    pthread_mutex_t read_lock; /* readers, clock, read_buffer; taken before lock */
    struct wal_reader readers[WAL_READERS];
    uint64_t clock;                       /* counts reads */
    struct wal_buffer read_buffer, plain; /* sealed and opened bytes of a record */
};

/* wal_segment.c */
void wal_segment_free(struct wal_segment *s);
RESULT wal_list_reserve(struct wal_list *l, size_t more);
void wal_list_free(struct wal_list *l);
RESULT wal_buffer_reserve(struct wal_buffer *b, uint64_t size);
RESULT wal_record_add(struct wal_segment *s, const struct wal_record *r); /* grows, for loading */
/* The tag that the next thing after this segment's last record names. */
const uint8_t *wal_last_tag(const struct wal_segment *s);
/* Begins a segment whose first entry is `first`; durable, the watermark too. With `reset` all
 * before is left behind. ERR_NOSPACE: nothing has changed; any other error is final. */
RESULT wal_segment_begin(struct wal *w, uint64_t first, bool reset, struct why *why);
RESULT wal_store_mark(struct wal *w, uint64_t first_segment, struct why *why);
/* Moves the first `n` segments to `leaving` and tries to remove their files; call after the
 * watermark. */
void wal_leave(struct wal *w, size_t n);
void wal_sweep(struct wal *w); /* tries to remove the files of `leaving` */

/* wal.c; lock is held */
uint64_t wal_first_locked(const struct wal *w);
void wal_count_bytes(struct wal *w);
size_t wal_live_entries(const struct wal_segment *s, const struct wal_record *r);

/* wal_load.c */
RESULT wal_load(struct wal *w, enum err (*each)(void *ctx, struct entry *e), void *ctx, bool *torn,
                struct why *why);

/* wal_read.c */
void wal_readers_close(struct wal *w, uint64_t below); /* those of sequence < below */

#endif
