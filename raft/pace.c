/* See pace.h. `owed` is the whole state of the rule: a slow write adds PACE_EACH to it, another one
 * takes one away, and each PACE_EACH of it, begun, halves the rate once. */
#include "raft/pace.h"

#include <assert.h>
#include <stdlib.h>

#define PACE_EACH    100 /* writes of which one may be slow */
#define PACE_HALVES  2   /* the rate is halved at most so often */
#define PACE_PERCENT 99  /* the usual percentile */

_Static_assert(STREAM_BUSY_RATE >> PACE_HALVES == STREAM_MIN_RATE, "the limits name both ends");

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t usual_us(const struct pace *p) {
    uint32_t sorted[PACE_RECENT];
    memcpy(sorted, p->recent, p->n * sizeof *sorted);
    qsort(sorted, p->n, sizeof *sorted, by_size);
    return sorted[p->n * PACE_PERCENT / 100];
}

void pace_begin(struct pace *p) {
    if (p->streams++ > 0) return;
    p->owed = 0;
    p->slow_us = PACE_UNKNOWN_US;
    if (p->n < PACE_KNOWN) return;
    p->slow_us = usual_us(p) * 3 / 2;
    if (p->slow_us < PACE_SLOW_MIN_US) p->slow_us = PACE_SLOW_MIN_US;
}

void pace_end(struct pace *p) {
    assert(p->streams > 0);
    p->streams--;
}

void pace_note(struct pace *p, uint64_t us) {
    if (p->streams == 0) {
        p->recent[p->next] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
        p->next = (p->next + 1) % PACE_RECENT;
        if (p->n < PACE_RECENT) p->n++;
    } else if (us > p->slow_us) {
        p->owed += PACE_EACH;
        if (p->owed > PACE_HALVES * PACE_EACH) p->owed = PACE_HALVES * PACE_EACH;
    } else if (p->owed > 0) {
        p->owed--;
    }
}

uint64_t pace_rate(const struct pace *p) {
    return STREAM_BUSY_RATE >> (p->owed + PACE_EACH - 1) / PACE_EACH;
}
