/* Auto-compaction: forgets history that is old enough, so that it does not grow for ever. As etcd:
 *
 *   periodic   what was overwritten before the last period; looked at ten times a period, done at
 *              most once in min(period, 1 h)
 *   revision   all but the last so many revisions; looked at every 5 minutes
 *
 * Off unless asked for, as etcd's: only who uses the store knows which revisions he may still ask
 * for, kube-apiserver compacts by itself, and the quota bounds what is kept. Every member notes its
 * revisions, so that a new leader goes on where the old one was; only the leader proposes, and
 * that happens under it or not at all.
 *
 * compactor_tick is all of it but the timer and the proposal. */
#ifndef CONCLAVE_COMPACTOR_H
#define CONCLAVE_COMPACTOR_H

#include "api/manager.h"

enum compact_mode { COMPACT_OFF, COMPACT_PERIODIC, COMPACT_REVISION };
struct compact_options {
    enum compact_mode mode;
    uint64_t retention; /* milliseconds; COMPACT_REVISION: revisions */
};
/* etcd's flags: mode "periodic" or "revision" (NULL: periodic); retention "0" or NULL for off, a
 * number of hours, or a duration as 1h30m (h, m, s, ms; COMPACT_PERIOD_MIN_MS and more), or a
 * number of revisions. ERR_USAGE. */
RESULT compact_options_parse(const char *mode, const char *retention, struct compact_options *out,
                             struct why *why);

#define COMPACT_PERIOD_MIN_MS 1000
#define COMPACT_PERIOD_MAX_MS (10ULL * 366 * 24 * 3600 * 1000)
#define COMPACT_SAMPLES_MAX   2400 /* revisions noted; longer periods are noted in longer steps */

struct compactor;
RESULT compactor_new(const struct compact_options *o, struct compactor **out);
void compactor_free(struct compactor *c);              /* NULL is fine; not while it is started */
uint64_t compactor_step_ms(const struct compactor *c); /* between ticks; 0: it is off */
/* The revision to compact now; 0: none. `compacted`: the last one that was. */
uint64_t compactor_tick(struct compactor *c, uint64_t now_ms, uint64_t revision,
                        uint64_t compacted);

void compactor_start(struct compactor *c, struct manager *m); /* its timer and proposals */
void compactor_stop(struct compactor *c); /* before the manager is closed; NULL is fine */

#endif
