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

#endif
