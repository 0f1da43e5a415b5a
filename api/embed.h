/* The inside of an embedded handle, private to embed*.c.
 *
 * One thread of ours runs a loop with the replica of a cluster of one; two more, of the execs, do
 * the disk work. A call of the user is an `op` on the caller's stack: it goes into the inbox under
 * a mutex, the loop takes all that wait at once (many threads' writes become one entry and one
 * sync), and the caller sleeps on the op's semaphore. Reads don't go through the loop: they look at
 * the store under the guard's read lock, which the loop takes for writing only while it applies an
 * entry; an iterator takes the lock to get its view and to give it back, and reads without it.
 *
 *   embed.c          open, close, status; errors and options at the border
 *   embed_loop.c     the thread: loop, replica, inbox
 *   embed_machine.c  the guard: the store's machine behind a lock
 *   embed_read.c     get, iterators
 *   embed_write.c    put, del, transactions */
#ifndef CONCLAVE_EMBED_H
#define CONCLAVE_EMBED_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <uv.h>

#include "api/conclave.h"
#include "raft/replica.h"
#include "store/command.h"
#include "store/store.h"

/* The store's machine behind a lock. The loop holds it for writing from the first command of an
 * entry to its end, and wherever views come and go. Writers go first, so that readers can't hold up
 * the loop. */
struct guarded {
    struct machine machine; /* first: what the replica is given */
    struct machine *inner;  /* the store's */
    pthread_rwlock_t lock;  /* of the store */
    bool applying;          /* the loop holds it for an entry; loop only */
};
RESULT guarded_start(struct guarded *g, struct machine *inner);
void guarded_end(struct guarded *g);
bool guarded_work(struct guarded *g, struct store *s); /* a store_work; loop only */
void guarded_release(struct guarded *g); /* after a failure in the middle of an entry; loop only */

enum embed_kind { EMBED_WRITE, EMBED_STATUS, EMBED_CLOSE };

/* One call that waits for the loop. */
struct embed_op {
    enum embed_kind kind;
    struct proposal proposal;     /* EMBED_WRITE; command: the caller's bytes */
    uint32_t timeout_ms;          /* of it; 0: PROPOSAL_TIMEOUT_MS */
    enum err error;               /* outcome */
    uint8_t result[RESULT_SIZE];  /* EMBED_WRITE and OK */
    struct replica_status status; /* EMBED_STATUS */
    struct embed_op *next;        /* in the inbox, then among the finished */
    sem_t done;                   /* posted last */
};

struct ccl_db {
    uint32_t *alive; /* 1; a page that a forked child finds zeroed; NULL: compare pids */
    pid_t pid;       /* that opened it */
    void (*log)(void *ctx, int level, const char *text); /* may be NULL */
    void *log_ctx;
    uint32_t open_timeout_ms;

    struct disk *disk;
    struct keyring *keys;
    struct store *store;
    struct guarded guarded;
    struct replica_config config;
    bool bootstrap; /* log[1] is still to be written */

    pthread_mutex_t mutex; /* of the next four */
    struct embed_op *inbox, **inbox_tail;
    enum err failed; /* why the node stopped; OK while it runs */
    char text[WHY_MAX];
    unsigned refs;    /* the handle's own and its iterators' */
    atomic_bool dead; /* failed != OK, for a look without the mutex */

    pthread_t thread;
    uv_async_t async;        /* the only handle that other threads touch */
    struct embed_op opening; /* posted when the thread is up or has given up */
};

/* embed_loop.c */
RESULT embed_run(struct ccl_db *db, struct why *why); /* starts the thread, waits until it serves */
/* Puts the op into the inbox and waits; outcome: op->error. */
void embed_do(struct ccl_db *db, struct embed_op *op);
void embed_stop(struct ccl_db *db); /* ends the thread */

/* embed.c */
bool embed_forked(const struct ccl_db *db);
void embed_unref(struct ccl_db *db); /* frees it with the last reference */
/* Fills the caller's error, if there is one, and gives the code. `text` may be NULL. */
int embed_error(struct ccl_error *error, enum err e, const char *text);
int embed_error_forked(struct ccl_error *error);
/* The same for a call on the handle: once it has failed, that is what matters. */
int embed_error_of(struct ccl_db *db, struct ccl_error *error, enum err e, const char *text);
/* What keeps any call on the handle from being made: 0, or the code after filling the error. */
int embed_refused(struct ccl_db *db, struct ccl_error *error);
/* Takes a struct of the caller that starts with its size: what is missing gets zeros, what is
 * unknown must be zero. NULL: all zeros. */
RESULT embed_take(void *into, size_t known, const void *from);
/* Gives one back: as much of it as the caller's size says. NULL: nothing. */
void embed_give(void *to, const void *from, size_t known);

#endif
