/* Who this manager is: its ids, certificate and key, and the members that it knew last, kept sealed
 * in the keyring (keyring_set_identity). While a cluster is being founded it also carries what the
 * first commands need, so that a crash between the steps of init loses nothing; that part is
 * dropped once the cluster stands.
 *
 *   made -> founding -> member          init: keys are there -> the log is there -> the cluster is
 * in the log member                              join member -> recovered -> member       recover
 * --force-new-cluster: the other rows are still to be removed */
#ifndef CONCLAVE_IDENTITY_H
#define CONCLAVE_IDENTITY_H

#include "crypto/keyring.h"
#include "crypto/x509.h"
#include "raft/wire.h"

enum identity_state {
    IDENTITY_MADE = 1,      /* the log may not be there yet */
    IDENTITY_FOUNDING = 2,  /* OP_CLUSTER may not be applied yet */
    IDENTITY_MEMBER = 3,    /* an ordinary member */
    IDENTITY_RECOVERED = 4, /* sole member by force: removes the others' rows */
};

#define TOKEN_SECRET_SIZE 25 /* characters of a join token's secret */

struct node_identity {
    enum identity_state state;
    char cluster_id[CLUSTER_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1];
    uint64_t raft_id;
    char name[NAME_MAX_SIZE + 1];
    char client_address[ADDRESS_MAX]; /* as announced */
    char peer_address[ADDRESS_MAX];   /* as announced */
    char client_listen[ADDRESS_MAX];  /* as listened on; may be a wildcard */
    char peer_listen[ADDRESS_MAX];    /* the same for peers; "": no peers */
    struct buf cert_pem, root_pem;
    struct secret *key_pem;
    struct secret *root_key;   /* the root's key, PEM; NULL until the node has seen it */
    struct secret *token;      /* founding only: the join token's secret part */
    struct secret *unlock_key; /* founding with autolock only: 32 bytes */
    unsigned n;                /* members */
    struct wire_member
        members[MEMBERS_MAX]; /* where to look for the others before the store is there */
};

void identity_init(struct node_identity *id);  /* empty, ready to be filled */
void identity_clear(struct node_identity *id); /* frees and wipes; empty after */
void identity_forget_founding(struct node_identity *id);
RESULT identity_store(const struct node_identity *id, struct keyring *keys, struct why *why);
/* ERR_NOT_FOUND: the keyring has none. ERR_CORRUPT: not understood. */
RESULT identity_load(struct keyring *keys, struct node_identity *id, struct why *why);

/* Names that people and certificates see: letters, digits, '.', '_', '-'; 1..NAME_MAX_SIZE; not of
 * the form of a node id, so that neither can be taken for the other. */
RESULT name_check(const char *name, struct why *why);

/* "SWMTKN-1-<root digest>-<secret>" */
#define JOIN_TOKEN_TEXT 86
RESULT token_format(struct span root_pem, const struct secret *secret, char out[JOIN_TOKEN_TEXT]);
RESULT token_parse(const char *text, char digest[ROOT_DIGEST_TEXT],
                   char secret[TOKEN_SECRET_SIZE + 1], struct why *why);

#endif
