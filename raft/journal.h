/* The replica's log: the newest entries in memory, all of them in the WAL, and the group commit
 * between the two. The loop appends and truncates in memory at once; one job at a time carries what
 * has gathered to the disk, so that a busy log writes ever larger batches with the same number of
 * syncs.
 *
 *     idle --append/truncate/reset/compact--> busy --done--> idle (or busy again with what
 * gathered)
 *                                              `--no space--> full --journal_retry--> busy
 *
 * Invariants: first - 1 <= persisted <= submitted <= last; every entry above `persisted` is in
 * memory; an index is reported persisted only if the entry that was written is still the log's
 * entry there (a truncated tail's late completion says nothing). On the loop only; the job's run
 * touches `work` alone. */
#ifndef CONCLAVE_JOURNAL_H
#define CONCLAVE_JOURNAL_H

#include "raft/exec.h"
#include "raft/wal.h"

struct journal_hooks {
    void *ctx;                    /* for both */
    void (*persisted)(void *ctx); /* journal_persisted() went up, or the job ended */
    void (*failed)(void *ctx, enum err e,
                   const char *text); /* the disk failed: the node must stop */
};

struct journal_work {
    uint64_t truncate; /* from this index; 0: nothing */
    bool reset;        /* empty the log after reset_index */
    uint64_t reset_index;
    uint64_t compact;       /* remove what is not above it; 0: nothing */
    bool roll, mark;        /* wal_roll, wal_mark */
    size_t written;         /* of the entries: a retry goes on behind them */
    struct entry **entries; /* held references, consecutive */
    size_t n, room;
    enum err error; /* outcome */
    struct why why;
};

struct journal {
    struct wal *wal;
    struct exec *log_exec, *side_exec; /* appends; pre-writing */
    struct journal_hooks hooks;
    struct entry **ring;      /* entries cache_first..last, at index % room */
    size_t room;              /* a power of two */
    uint64_t first;           /* index of the log's first entry; last + 1 when empty */
    uint64_t cache_first;     /* index of the first entry in memory; last + 1: none */
    uint64_t last;            /* index of the last entry */
    uint64_t submitted;       /* handed to the WAL up to here */
    uint64_t persisted;       /* durable up to here */
    uint64_t applied;         /* the owner's: entries above it stay in memory */
    size_t cache_bytes;       /* entry bytes in memory */
    size_t lagging_bytes;     /* of entries above `persisted`: the owner's to bound */
    uint64_t disk_bytes;      /* bytes that the log takes on disk since the owner set it to 0 */
    struct journal_work next; /* what gathers */
    struct journal_work work; /* what the job carries */
    struct job job, prepare_job;
    enum err prepare_error; /* outcome of the pre-writing */
    struct why prepare_why;
    struct entry *loaned; /* reference behind the last journal_peek from disk */
    bool busy, preparing; /* a job is under way */
    bool trust_late;      /* the simulator only: report what was written even if it was truncated */
    bool full;            /* the disk is full: nothing new should be proposed */
};

/* Takes over `wal` (closed by journal_close). Entries it loaded are given by journal_load before
 * any other call. */
RESULT journal_open(struct journal *l, struct exec *log_exec, struct exec *side_exec,
                    const struct journal_hooks *hooks);
RESULT journal_load(struct journal *l,
                    struct entry *e); /* while wal_open runs; takes its own reference */
void journal_start(struct journal *l,
                   struct wal *wal);   /* after loading: everything there is durable */
void journal_close(struct journal *l); /* not while busy, but after a simulated crash */

/* Appends (index last + 1, or lower: truncates first). Takes its own reference. */
RESULT journal_append(struct journal *l, struct entry *e);
void journal_reset(struct journal *l,
                   uint64_t index); /* drops everything; the next one is index + 1 */
void journal_compact(struct journal *l,
                     uint64_t index);       /* entries up to it are not needed any more */
void journal_roll(struct journal *l);       /* the next record goes into a new segment */
void journal_mark(struct journal *l);       /* stores the watermark (clean stop) */
void journal_kick(struct journal *l);       /* starts a job when there is work and none runs */
void journal_retry(struct journal *l);      /* after `full`: tries again */
bool journal_idle(const struct journal *l); /* no job under way and nothing to do */

/* Borrowed: valid until the next call on the log. NULL when not there; reads the disk when not
 * cached. */
struct entry *journal_peek(struct journal *l, uint64_t index);

#endif
