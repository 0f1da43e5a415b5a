/* The leader's clock of the leases: deadlines, kept in memory only. A new leader gives every
 * lease its whole time again; keep-alives touch nothing but this. Time comes in as monotonic
 * milliseconds; who calls it (api/leases.c) proposes the revocations. One thread: the loop.
 *
 * A leader that stood still (a stopped process, a loop held up) could not be reached by the clients
 * that wanted to renew, so it must not take their leases when it wakes (etcd issue 15247). Hence
 * the leases' time is not the clock's: each call lets it go on by what has passed since the call
 * before, but by LESSOR_GAP_MS at most. Whoever leads calls lessor_due at least every
 * LESSOR_TICK_MS, so a longer gap is one in which the leader wasn't there, and what is beyond
 * the bound is given back to all leases at once, in no time.
 *
 * Once an id has been given as due its revocation may be in the log, so that it can no longer be
 * renewed: nobody is told that he has a lease which is about to go. If the revocation comes to
 * nothing, the next leader gives the lease its whole time. */
#ifndef CONCLAVE_LESSOR_H
#define CONCLAVE_LESSOR_H

#include "store/lease.h"

#define LESSOR_TICK_MS  100                 /* lessor_due is called at least as often */
#define LESSOR_GAP_MS   ELECTION_TIMEOUT_MS /* a leader away for longer is none to the others */
#define LESSOR_RETRY_MS 2000                /* a lease given as due is given again after this */

struct lessor;
RESULT lessor_new(struct lessor **out);
void lessor_free(struct lessor *l); /* NULL is fine */
/* We lead from now on: all leases, whole time. ERR_NOMEM: we don't, as before. */
RESULT lessor_lead(struct lessor *l, const struct leases *all, uint64_t now_ms);
void lessor_follow(struct lessor *l); /* we don't; forgets all */
bool lessor_leads(const struct lessor *l);
/* Applied; without leading OK and nothing. ERR_NOMEM: this lease would never run out; the caller
 * gives up leading (lessor_follow) and leads again later. */
RESULT lessor_granted(struct lessor *l, const struct lease *lease, uint64_t now_ms);
void lessor_revoked(struct lessor *l, uint64_t id); /* applied; unknown: nothing */
/* Whole time again. *ttl_ms is what it got. ERR_LEASE_NOT_FOUND, also when it was given as due;
 * ERR_NOT_LEADER. */
RESULT lessor_renew(struct lessor *l, uint64_t id, uint64_t now_ms, uint64_t *ttl_ms);
/* 0 when it has run out. ERR_LEASE_NOT_FOUND, ERR_NOT_LEADER. */
RESULT lessor_remaining(const struct lessor *l, uint64_t id, uint64_t now_ms, uint64_t *ms);
/* The ids that have run out, longest ago first, at most `max`, each given once and then again every
 * LESSOR_RETRY_MS until it is revoked. Returns how many; *next_ms: when to ask again, at
 * `now_ms` itself if there are more. */
size_t lessor_due(struct lessor *l, uint64_t now_ms, uint64_t *ids, size_t max, uint64_t *next_ms);

#endif
