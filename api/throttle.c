/* See throttle.h: how long a pause is, and when a wrong try is forgotten. The number that counts
 * has a top, so that a long attack is not held against the owner for longer than a short one. */
#include "api/throttle.h"

static uint64_t pause_of(unsigned wrong) {
    uint64_t ms = THROTTLE_FIRST_MS;
    for (unsigned i = THROTTLE_FREE; i < wrong && ms < THROTTLE_MOST_MS; i++)
        ms *= 2;
    return wrong < THROTTLE_FREE ? 0 : ms < THROTTLE_MOST_MS ? ms : THROTTLE_MOST_MS;
}

/* Time in which nobody tried anything. */
static void forget(struct throttle *t, uint64_t now_ms) {
    while (t->wrong > 0 && now_ms >= t->until_ms + THROTTLE_FORGET_MS) {
        t->until_ms += THROTTLE_FORGET_MS;
        t->wrong--;
    }
}

RESULT throttle_ask(struct throttle *t, uint64_t now_ms, struct why *why) {
    forget(t, now_ms);
    if (t->wrong < THROTTLE_FREE || now_ms >= t->until_ms) return OK;
    t->total++;
    t->refused++;
    unsigned long long left_s = (t->until_ms - now_ms + 999) / 1000;
    return fail_with(why, ERR_BUSY, "too many wrong keys; the next one is looked at in %llu s",
                     left_s);
}

void throttle_wrong(struct throttle *t, uint64_t now_ms) {
    if (t->wrong < THROTTLE_WRONG_MAX) t->wrong++;
    t->total++;
    t->refused = 0;
    t->until_ms = now_ms + pause_of(t->wrong);
}

void throttle_right(struct throttle *t) { *t = (struct throttle){.total = t->total}; }
