/* The manager's side of node sessions (raft/session.h): which nodes this manager holds, and what it
 * tells them. What a node may do and what is wanted of it follows from this manager's own state,
 * read whenever something of it changes:
 *
 *   opened -> unproven --linearizable read, row allows it--> proven: WANT at once, and at changes
 *                `-- the row is not there, or has another key: cut, with a sentence
 *
 * A manager may lag behind, so nobody is refused, and nothing is wanted of anybody, by a state that
 * is not known to be as new as the session. From then on it only becomes newer. A session is cut in
 * the same turn in which the removal of its node is applied.
 *
 * Callbacks of sessions and of the state only note; the work is done in the loop's check phase, so
 * many at a time (SESSIONS_STEP). */
#ifndef CONCLAVE_SESSIONS_H
#define CONCLAVE_SESSIONS_H

#include "api/manager.h"
#include "store/node.h"

extern const struct node_events sessions_events; /* for struct peers_config */

RESULT sessions_open(struct manager *m);  /* with the store; ERR_NOMEM */
void sessions_close(struct manager *m);   /* after the peers and before the store */
void sessions_step(struct manager *m);    /* in the check phase */
void sessions_beat(struct manager *m);    /* every BEAT_MS: tells the leader who is held */
void sessions_cluster(struct manager *m); /* roots or managers may have changed */
void sessions_current(struct manager *m); /* the state is known to be current */

/* What is wanted of a node; roots_pem holds what out->root_pem points to. */
RESULT sessions_want(const struct manager *m, const struct node_row *node, struct buf *roots_pem,
                     struct node_want *out);
/* May a certificate with this key speak for the node? The present key, or the one before while the
 * node has not been seen with the present one. */
bool sessions_key_is_good(const struct node_row *node, const uint8_t key_digest[NODE_DIGEST_SIZE]);
/* For peers: is the holder of the key a manager, as far as this state knows? */
bool sessions_is_member(void *ctx, const char *node_id, const uint8_t key_digest[NODE_DIGEST_SIZE],
                        const uint8_t issuer_digest[NODE_DIGEST_SIZE]);

#endif
