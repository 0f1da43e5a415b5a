/* How often a node may cause records: a bucket of tokens each, told by the moment at which it is
 * full again. Kept by node id, so that a new session has no new allowance. */
#include "api/service/assign_parts.h"

static const struct {
    uint64_t each_ms; /* one more in this time */
    uint64_t burst;   /* at once */
} rates[PACED] = {[PACE_BEGIN] = {5000, 12}, [PACE_FETCH] = {1000, 60}};

uint64_t assign_pace(struct assigns *all, const char *node_id, enum paced what) {
    uint64_t *full = &all->allowed[assign_bucket(node_id)].full_ms[what];
    uint64_t now = assign_now(all), each = rates[what].each_ms;
    uint64_t from = *full > now ? *full : now, most = now + rates[what].burst * each;
    if (from + each > most) return from + each - most;
    *full = from + each;
    return 0;
}
