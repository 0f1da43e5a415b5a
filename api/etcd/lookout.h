/* A watcher of the server's own: it looks at what happened to an interval of keys, in the turn
 * after it happened. For Lock and Election, which wait for keys on behalf of their callers. */
#ifndef CONCLAVE_LOOKOUT_H
#define CONCLAVE_LOOKOUT_H

#include "api/api.h"
#include "store/watch.h"

struct lookout;
struct lookout_options {
    struct api *api;
    struct interval in; /* copied */
    uint64_t start;     /* first revision */
    bool no_put;        /* deletions only */
    watch_each *each;   /* sees the events (watcher_take); must not close the lookout */
    /* After each look, in the loop's check phase; may close it. OK; ERR_COMPACTED: events were
     * missed; ERR_CLOSED: the state goes away. After an error nothing is seen any more. */
    void (*looked)(void *ctx, enum err e);
    void *ctx;
};
RESULT lookout_open(const struct lookout_options *o, struct lookout **out);
void lookout_again(struct lookout *l); /* looks in the next turn: `each` has refused an event */
void lookout_close(struct lookout *l); /* NULL is fine */
void lookouts_stop(struct api *api);   /* the state goes away */

#endif
