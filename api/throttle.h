/* Guessing made slow: whoever asks with wrong keys gets THROTTLE_FREE tries, and after each further
 * wrong one a pause that doubles, from THROTTLE_FIRST_MS up to THROTTLE_MOST_MS, in which nothing
 * is tried at all. So a thousand tries take days, cost nothing, and hold up nobody. A right key
 * forgets them; each THROTTLE_FORGET_MS in which nothing was tried takes one of them back. Pure:
 * the caller brings the time. */
#ifndef CONCLAVE_THROTTLE_H
#define CONCLAVE_THROTTLE_H

#include "crypto/base.h"

#define THROTTLE_FREE      3      /* wrong tries without a pause */
#define THROTTLE_FIRST_MS  1000   /* the first pause */
#define THROTTLE_MOST_MS   300000 /* the longest one */
#define THROTTLE_FORGET_MS 600000
#define THROTTLE_WRONG_MAX 16

struct throttle {      /* zeroed: nothing has been tried */
    unsigned wrong;    /* tries that count */
    uint64_t total;    /* wrong tries and refused ones, for the log and metrics */
    uint64_t refused;  /* of them refused unseen, since the last one that was looked at */
    uint64_t until_ms; /* no try before that */
};

/* May a key be tried now? ERR_BUSY with the seconds that are left. */
RESULT throttle_ask(struct throttle *t, uint64_t now_ms, struct why *why);
void throttle_wrong(struct throttle *t, uint64_t now_ms);
void throttle_right(struct throttle *t);

#endif
