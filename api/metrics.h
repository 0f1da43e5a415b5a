/* Figures in the words of Prometheus: a histogram of durations that any thread may add to, and the
 * lines of the text format. Source: Prometheus' exposition formats, text 0.0.4. */
#ifndef CONCLAVE_METRICS_H
#define CONCLAVE_METRICS_H

#include <stdatomic.h>

#include "crypto/base.h"

#define HISTOGRAM_BUCKETS_MAX 16

/* Bucket i counts what took at most first_ns * 2^i. */
struct histogram {
    uint64_t first_ns;                                  /* bound of the first bucket */
    unsigned n;                                         /* buckets, beside the endless one */
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS_MAX + 1]; /* each alone, not summed up */
    _Atomic uint64_t sum_ns;
};

void histogram_start(struct histogram *h, uint64_t first_ns, unsigned n);
void histogram_add(struct histogram *h, uint64_t ns);
/* Its lines; `labels` as NAME="VALUE",... or "". */
RESULT histogram_write(struct buf *out, const char *name, const char *labels,
                       const struct histogram *h);

RESULT metric_head(struct buf *out, const char *name, const char *type, const char *help);
/* Head and value of a figure without labels. */
RESULT metric_write(struct buf *out, const char *name, const char *type, const char *help,
                    uint64_t value);

#endif
