/* How fast snapshots go to other members while writes go on: as fast as the writes do not feel. A
 * write is measured from the making of its entry to its commit, so the disk, the processor, the
 * loop and the other members all count, whichever it is that the stream takes away from it.
 *
 * The rule. When a stream begins, the writes of late say what is usual: the 99th percentile of the
 * latest PACE_RECENT. From then on a write is slow when it takes more than 1.5 times that. A slow
 * one halves the rate, down to STREAM_MIN_RATE; a hundred that are not slow double it again, up to
 * STREAM_BUSY_RATE. So about one write in a hundred is slow, as before. The rate is never 0: a
 * stream ends, whatever the writes do. That it also ends before the log behind it is gone is its
 * owner's business.
 *
 * No clock in here, no memory of its own; on the loop only. */
#ifndef CONCLAVE_PACE_H
#define CONCLAVE_PACE_H

#include "crypto/base.h"
#include "crypto/limits.h"

#define PACE_RECENT      512   /* writes that say what is usual */
#define PACE_KNOWN       50    /* fewer of them say nothing */
#define PACE_SLOW_MIN_US 1000  /* a write that takes less is never slow */
#define PACE_UNKNOWN_US  10000 /* slow, while nothing is known */

struct pace {
    uint32_t recent[PACE_RECENT]; /* microseconds of writes while nothing was streamed; a ring */
    unsigned n;                   /* of them */
    unsigned next;                /* the place of the next one */
    unsigned streams;             /* under way */
    unsigned owed;                /* writes that must not be slow before the rate is whole again */
    uint64_t slow_us;             /* a longer write is slow; while streams > 0 */
};

void pace_begin(struct pace *p); /* a stream begins */
void pace_end(struct pace *p);   /* it has ended */
/* A write took that long. */
void pace_note(struct pace *p, uint64_t us);
/* Bytes a second, STREAM_MIN_RATE to STREAM_BUSY_RATE; each stream has them. */
uint64_t pace_rate(const struct pace *p);

#endif
