/* What the verbs on keys share: one write, with its retries, through any client. put KEY uses it
 * once, put --dir from several threads. */
#ifndef CONCLAVE_CLI_KV_H
#define CONCLAVE_CLI_KV_H

#include "api/cli/cli.h"

/* Writes one key through `client`, with retries. `extra`: a switch of the request, or NULL. The
 * server's JSON is appended to *answer, which may be NULL. Thread-safe with a client of its own. */
RESULT kv_put(struct cli *cli, struct client *client, struct span key, struct span value,
              const char *extra, struct buf *answer, struct why *why);

#endif
