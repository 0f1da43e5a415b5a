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
    struct job *next;            /* the exec's */
};

struct exec {
    void (*submit)(struct exec *e, struct job *j);
};

struct uv_loop_s;

/* A thread of its own, called `name` (15 characters are kept), that answers on `loop`; submit may
 * be called on the loop only. On an error nothing was started; run the loop once more before
 * closing it. */
RESULT exec_real_start(struct uv_loop_s *loop, const char *name, struct exec **out,
                       struct why *why);
/* Runs what was submitted, calls every done, frees, then calls `closed` (may be NULL) on the loop.
 * Not blocking; call it once, on the loop. A done may still submit until `closed`. */
void exec_real_close(struct exec *e, void (*closed)(void *ctx), void *ctx);

#endif
