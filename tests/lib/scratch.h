/* A directory for the files of one test, and programs that run in it: what another implementation
 * (the openssl command, say) makes or says of ours is the strongest oracle that there is. Asserts
 * on every failure of its own. */
#ifndef CONCLAVE_TEST_SCRATCH_H
#define CONCLAVE_TEST_SCRATCH_H

#include "crypto/base.h"

struct scratch {
    char path[40]; /* under /tmp */
};

void scratch_new(struct scratch *s);
void scratch_free(struct scratch *s); /* with all files in it */
void scratch_put(const struct scratch *s, const char *name, struct span bytes);
void scratch_get(const struct scratch *s, const char *name, struct buf *out); /* appends */
/* Runs a program there (words separated by one space, none with a space in it); its exit code, what
 * it says on both outputs appended to `said` (NULL: not kept), cut at its max. */
int scratch_run(const struct scratch *s, struct buf *said, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
