/* The RPC layer over a node by hand: a manager with a real replica and store, a loop, methods that
 * answer, wait, fail or stream as the request's key says, and what they have seen. For the tests of
 * api/rpc; exchanges are exbox.h's. */
#ifndef CONCLAVE_TEST_RPC_WORLD_H
#define CONCLAVE_TEST_RPC_WORLD_H

#include "api/rpc/call.h"
#include "tests/lib/lone.h"
#include "tests/lib/rpc/exbox.h"

#define LARGE (3 * MIB) /* of the answer to "large" */

struct seen {
    struct rpc *r; /* of the last message */
    unsigned messages, ended, gone, drained;
    struct buf keys; /* of all requests, one after the other */
    enum err sent;   /* by the last rpc_send */
    struct rpc kept; /* a copy, from when the message came */
};
extern struct seen seen;

struct world {
    struct lone lone;
    struct log log;
    struct manager *manager;
    struct api api;
    uv_loop_t loop;
    uv_timer_t patience; /* how long the test lets the loop run */
};

/* /t.T/Echo answers with the key: "later" waits, "bad" fails, "own" fails in its own words, "large"
 * answers with LARGE bytes. Standby and Always are the same. Talk (BIDI), Hear (the same without
 * `ended`) and Feed (a stream of answers) send a count for each message. */
extern const struct method *const world_services[];
extern const struct route world_routes[]; /* none */

int world_set_up(void **state);
int world_tear_down(void **state);
void world_forget(void); /* what was seen */
void world_run(struct world *w, uint64_t ms);
void world_request(struct buf *out, const char *key); /* appends a RangeRequest with its prefix */
void world_open(struct world *w, struct exbox *b, const char *path);
void world_call(struct world *w, struct exbox *b, const char *path,
                const char *key);                                        /* a unary one, whole */
void world_failed(const struct exbox *b, int code, const char *message); /* it must have, so */
unsigned world_calls(const struct world *w);                             /* under way */

#endif
