/* A gRPC client for the benchmarks: a few connections in plaintext on loopback, any number of calls
 * on each, one thread, one poll for all. Fast enough not to be what is measured: no TLS, nothing is
 * copied but into the messages that a call gathers. A failure of a connection is the end of the
 * benchmark, so it is kept and given by h2_step. */
#ifndef CONCLAVE_BENCH_H2_H
#define CONCLAVE_BENCH_H2_H

#include <nghttp2/nghttp2.h>

#include "crypto/base.h"

#define H2_LINKS_MAX 64 /* connections */

struct h2_link;
struct h2_call;

struct h2 {
    struct h2_link *links[H2_LINKS_MAX]; /* owned */
    unsigned n;                          /* of them */
};

/* A message came, or (message.at NULL) the call has ended, with gRPC's status; the call is freed
 * after that. */
typedef void h2_message(void *ctx, struct h2_call *c, struct span message, int status);

void h2_free(struct h2 *h);
RESULT h2_connect(struct h2 *h, unsigned port, struct h2_link **out); /* h owns it */
/* A connection that reads nothing any more: the server's answers pile up. */
void h2_stall(struct h2_link *l, bool stalled);
RESULT h2_call(struct h2_link *l, const char *path, h2_message *got, void *ctx,
               struct h2_call **out);
RESULT h2_send(struct h2_call *c, struct span message, bool last);
/* Sends what there is, waits for at most `ms` and takes what came. */
RESULT h2_step(struct h2 *h, int ms);

#endif
