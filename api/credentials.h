/* What an identity is made of when a cluster is founded, and its certificate: made by whoever has
 * the root's key. Nothing here knows a running manager. */
#ifndef CONCLAVE_CREDENTIALS_H
#define CONCLAVE_CREDENTIALS_H

#include "api/identity.h"
#include "store/command.h"

/* A new cluster: its id and root, a join token, the first node's id, key and certificate; with
 * `autolock` an unlock key. Names and addresses must be there already. */
RESULT credentials_found(struct node_identity *id, bool autolock, int64_t now_s, struct why *why);
/* A fresh key and certificate of the node, signed by the root, in place of the ones it has. */
RESULT credentials_issue(struct node_identity *id, const struct secret *root_key, int64_t now_s,
                         struct why *why);
/* The names that a node's certificate carries: this machine's own and those of its addresses. */
void credentials_hosts(const char *client_address, const char *peer_address, char out[HOSTS_ROOM]);
/* The row of the node, and the command that makes the cluster; its spans point into `id`. */
void credentials_row(const struct node_identity *id, int64_t now_s, struct node *out);
void credentials_cluster(const struct node_identity *id, int64_t now_s, struct command *out);
/* HOST:PORT as others are told: `advertise` (may be ""), the machine's address for a wildcard, or
 * what is listened on. */
void credentials_advertised(const char *advertise, const char *listen, char out[ADDRESS_MAX]);

#endif
