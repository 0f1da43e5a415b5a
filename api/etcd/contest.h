/* A place in a queue of keys: what Lock and Campaign share. Each who takes part has the key
 * "name/" + his lease's id in hexadecimal, bound to the lease; whose key was created first has what
 * all want. Without a lease he gets one of CONTEST_TTL_S, which nobody renews.
 *
 *   granting --> entering --> [proclaiming] --> reading --> waiting --> [checking] --> won
 *                    \--- nobody is before him -------------------------------------------^
 *
 * waiting: for the deletion of the key before his own, then again while there is one. Who gives up
 * or fails after he has entered takes his key away again (leaving). As etcd's server does it,
 * message by message. */
#ifndef CONCLAVE_CONTEST_H
#define CONCLAVE_CONTEST_H

#include "api/etcd/errand.h"

#define CONTEST_TTL_S 60

struct contest_options {
    struct span name;
    int64_t lease; /* 0: a new one */
    bool campaign; /* he has a value to say; else he only wants the lock */
    struct span value;
};
/* What he has got. Spans are good in `won`. */
struct contest_place {
    uint64_t revision; /* for the header */
    struct span key;
    uint64_t created; /* its create revision */
    uint64_t lease;
};
typedef void contest_won(struct rpc *r, const struct contest_place *place);
/* Finishes the call, by `won` or with an error. Takes over r->data and r->gone. */
void contest_begin(struct rpc *r, const struct contest_options *o, contest_won *won);

#endif
