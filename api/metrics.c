/* See metrics.h. Counts are read one by one while they grow: a histogram is right to within what
 * was added meanwhile, and its count is always the sum of its buckets. */
#include "api/metrics.h"

#include <inttypes.h>

void histogram_start(struct histogram *h, uint64_t first_ns, unsigned n) {
    memset(h, 0, sizeof *h);
    h->first_ns = first_ns;
    h->n = n < HISTOGRAM_BUCKETS_MAX ? n : HISTOGRAM_BUCKETS_MAX;
}

void histogram_add(struct histogram *h, uint64_t ns) {
    unsigned i = 0;
    while (i < h->n && ns > h->first_ns << i)
        i++;
    (void)atomic_fetch_add_explicit(&h->counts[i], 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&h->sum_ns, ns, memory_order_relaxed);
}

static uint64_t count_of(const struct histogram *h, unsigned i) {
    return atomic_load_explicit(&h->counts[i], memory_order_relaxed);
}

RESULT histogram_write(struct buf *out, const char *name, const char *labels,
                       const struct histogram *h) {
    const char *comma = labels[0] ? "," : "";
    uint64_t sum = 0;
    for (unsigned i = 0; i < h->n; i++) {
        sum += count_of(h, i);
        TRY(buf_format(out, "%s_bucket{%s%sle=\"%.9g\"} %" PRIu64 "\n", name, labels, comma,
                       (double)(h->first_ns << i) / 1e9, sum));
    }
    sum += count_of(h, h->n);
    uint64_t ns = atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
    TRY(buf_format(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, comma, sum));
    const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
    TRY(buf_format(out, "%s_sum%s%s%s %.9f\n", name, open, labels, close, (double)ns / 1e9));
    return buf_format(out, "%s_count%s%s%s %" PRIu64 "\n", name, open, labels, close, sum);
}

RESULT metric_head(struct buf *out, const char *name, const char *type, const char *help) {
    return buf_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

RESULT metric_write(struct buf *out, const char *name, const char *type, const char *help,
                    uint64_t value) {
    TRY(metric_head(out, name, type, help));
    return buf_format(out, "%s %" PRIu64 "\n", name, value);
}
