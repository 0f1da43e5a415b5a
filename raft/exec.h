/* Work off the loop: a FIFO of jobs whose `run` may block on the disk and whose `done` comes back
 * on the loop. The log has one, snapshots have another. Real side: exec_real.c, one thread each,
 * woken by a condition variable, answering through uv_async. Simulated side: tests/sim, where a job
 * runs at a simulated moment and is lost in a crash.
 *
 * Happy path: submit -> run (other thread) -> done (loop), in order of submission, one at a time.
 * No callback fires inside exec_submit. The job's memory is the caller's and is reusable from done
 * on. Close: exec_close runs what was submitted, delivers every done, then stops the thread. */
#ifndef CONCLAVE_EXEC_H
#define CONCLAVE_EXEC_H

#include "crypto/base.h"

struct job {
    void (*run)(struct job *j);  /* on the other thread; may block; must not touch loop state */
    void (*done)(struct job *j); /* on the loop */
    bool light;                  /* one small synced write: see below */
    struct job *next;            /* the exec's */
};

/* A light job may be run on the loop itself, at the end of its turn, when what was to be sent has
 * been: where a sync takes less than two wakings of a thread, the wakings are what a lone write
 * waits for. The real exec does so while nothing else is under way and such jobs have been quick of
 * late. */

struct exec {
    void (*submit)(struct exec *e, struct job *j);
};

struct uv_loop_s;

/* A thread of its own, called `name` (15 characters are kept), that answers on `loop`; submit may
 * be called on the loop only. On an error nothing was started; run the loop once more before
 * closing it. `nice` is added to the thread's nice value: work that can wait gives way to the loop
 * and to the log (0: none). */
RESULT exec_real_start(struct uv_loop_s *loop, const char *name, int nice, struct exec **out,
                       struct why *why);
#define EXEC_NICE 10 /* of snapshots */
/* Runs what was submitted, calls every done, frees, then calls `closed` (may be NULL) on the loop.
 * Not blocking; call it once, on the loop. A done may still submit until `closed`. */
void exec_real_close(struct exec *e, void (*closed)(void *ctx), void *ctx);

#endif
