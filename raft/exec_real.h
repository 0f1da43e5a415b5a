/* The real side of exec.h: one thread with a queue, answering on a libuv loop. */
#ifndef CONCLAVE_EXEC_REAL_H
#define CONCLAVE_EXEC_REAL_H

#include <uv.h>

#include "raft/exec.h"

/* `name` (at most 15 bytes) is what the thread is called in ps and debuggers. */
RESULT exec_real_open(uv_loop_t *loop, const char *name, struct exec **out, struct why *why);
/* Runs what was submitted, delivers every done, then stops the thread and calls closed; the exec is
 * gone then. */
void exec_real_close(struct exec *e, void (*closed)(void *ctx), void *ctx);

#endif
