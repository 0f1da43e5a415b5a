/* The replica's log: the newest entries in memory, all of them in the WAL, and the group commit
 * between the two. The loop appends and truncates in memory at once; one job at a time carries what
 * has gathered to the disk, so that a busy log writes ever larger batches with the same number of
 * syncs.
 *
 *     idle --append/truncate/reset/compact--> busy --done--> idle (or busy again with what
 * gathered)
 *                                              `--no space--> full --log_retry--> busy
 *
 * Invariants: first - 1 <= persisted <= submitted <= last; every entry above `persisted` is in
 * memory; an index is reported persisted only if the entry that was written is still the log's
 * entry there (a truncated tail's late completion says nothing). On the loop only; the job's run
 * touches `work` alone. */
#ifndef CONCLAVE_LOG_H
#define CONCLAVE_LOG_H

#include "raft/exec.h"
#include "raft/wal.h"

struct log_hooks {
    void *ctx;                    /* for both */
    void (*persisted)(void *ctx); /* log_persisted() went up, or the job ended */
    void (*failed)(void *ctx, enum err e,
                   const char *text); /* the disk failed: the node must stop */
};

struct log_work {
    uint64_t truncate; /* from this index; 0: nothing */
    bool reset;        /* empty the log after reset_index */
    uint64_t reset_index;
    uint64_t compact;       /* remove what is not above it; 0: nothing */
    bool roll, mark;        /* wal_roll, wal_mark */
    bool written;           /* the entries are on disk: a retry skips them */
    struct entry **entries; /* held references, consecutive */
    size_t n, room;
    enum err error; /* outcome */
    struct why why;
};

struct log {
    struct wal *wal;
    struct exec *log_exec, *side_exec; /* appends; pre-writing */
    struct log_hooks hooks;
    struct entry **ring;  /* entries cache_first..last, at index % room */
    size_t room;          /* a power of two */
    uint64_t first;       /* index of the log's first entry; last + 1 when empty */
    uint64_t cache_first; /* index of the first entry in memory; last + 1: none */
    uint64_t last;        /* index of the last entry */
    uint64_t submitted;   /* handed to the WAL up to here */
    uint64_t persisted;   /* durable up to here */
    uint64_t applied;     /* the owner's: entries above it stay in memory */
    size_t cache_bytes;   /* entry bytes in memory */
    uint64_t disk_bytes;  /* bytes written since log_forget_written: padding included */
    struct log_work next; /* what gathers */
    struct log_work work; /* what the job carries */
    struct job job, prepare_job;
    enum err prepare_error; /* outcome of the pre-writing */
    struct why prepare_why;
    struct entry *loaned; /* reference behind the last log_peek from disk */
    bool busy, preparing; /* a job is under way */
    bool trust_late;      /* the simulator only: report what was written even if it was truncated */
    bool full;            /* the disk is full: nothing new should be proposed */
};

/* Takes over `wal` (closed by log_close). Entries it loaded are given by log_load before any other
 * call. */
RESULT log_open(struct log *l, struct exec *log_exec, struct exec *side_exec,
                const struct log_hooks *hooks);
RESULT log_load(struct log *l, struct entry *e); /* while wal_open runs; takes its own reference */
void log_start(struct log *l, struct wal *wal);  /* after loading: everything there is durable */
void log_close(struct log *l);                   /* not while busy, but after a simulated crash */

/* Appends (index last + 1, or lower: truncates first). Takes its own reference. */
RESULT log_append(struct log *l, struct entry *e);
void log_reset(struct log *l, uint64_t index);   /* drops everything; the next one is index + 1 */
void log_compact(struct log *l, uint64_t index); /* entries up to it are not needed any more */
void log_roll(struct log *l);                    /* the next record goes into a new segment */
void log_mark(struct log *l);                    /* stores the watermark (clean stop) */
void log_kick(struct log *l);                    /* starts a job when there is work and none runs */
void log_retry(struct log *l);                   /* after `full`: tries again */
bool log_idle(const struct log *l);              /* no job under way and nothing to do */

/* Borrowed: valid until the next call on the log. NULL when not there; reads the disk when not
 * cached. */
struct entry *log_peek(struct log *l, uint64_t index);

#endif
