/* What an identity is made of when a cluster is founded, and its certificate: made by whoever has
 * the root's key. Nothing here knows a running manager. */
#ifndef CONCLAVE_CREDENTIALS_H
#define CONCLAVE_CREDENTIALS_H

#include "api/node/identity.h"
#include "store/command.h"
#include "store/join_token.h"

/* A root of the operator's own, checked (x509_ca_check). */
struct own_ca {
    struct buf root, issuer; /* as struct ca (store/cluster.h) has them */
    struct secret *key;      /* the signing one, PEM; NULL: none was brought */
};

/* A new cluster: its id and root, a join key, the first node's id, key and certificate; with
 * `autolock` an unlock key. Names and addresses must be there already. A root of one's own, with
 * its issuer and signing key, may be there; then none is made. */
RESULT credentials_found(struct node_identity *id, bool autolock, int64_t now_s, struct why *why);
/* A fresh key and certificate of the node, signed by the root, in place of the ones it has. */
RESULT credentials_issue(struct node_identity *id, const struct secret *root_key, int64_t now_s,
                         struct why *why);
/* The same key signed anew by the signing key that the identity keeps, in memory only. */
RESULT credentials_extend(struct node_identity *id, int64_t now_s, struct why *why);
/* The names that a node's certificate carries: this machine's own and those of its addresses. */
void credentials_hosts(const char *client_address, const char *peer_address, char out[HOSTS_ROOM]);
/* The row of the node, and the command that makes the cluster; its spans point into `id`. */
void credentials_row(const struct node_identity *id, int64_t now_s, struct node *out);
void credentials_cluster(const struct node_identity *id, int64_t now_s, struct command *out);
/* The command behind it: the settings, both standing tokens, the founder's row. `changes` holds
 * what its span points to. */
RESULT credentials_rows(const struct node_identity *id, int64_t now_s, struct buf *changes,
                        struct command *out);
/* The body of a role's standing token. */
RESULT credentials_token(const struct secret *join_key, enum node_role role, uint64_t epoch,
                         struct buf *body);
/* HOST:PORT as others are told: `advertise` (may be ""), the machine's address for a wildcard, or
 * what is listened on. */
void credentials_advertised(const char *advertise, const char *listen, char out[ADDRESS_MAX]);

#endif
