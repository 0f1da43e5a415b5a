/* Who this node is: its role, ids, certificate and key, and the managers that it knew last, kept
 * sealed in the keyring (keyring_set_identity). While a cluster is being founded it also carries
 * what the first commands need, so that a crash between the steps of init loses nothing; that part
 * is dropped once the cluster stands.
 *
 *   made -> founding -> member     init: keys are there -> the log is there -> the cluster is in it
 *   member                         join
 *   member -> recovered -> member  recover --force-new-cluster: the other rows are to be removed */
#ifndef CONCLAVE_IDENTITY_H
#define CONCLAVE_IDENTITY_H

#include "crypto/keyring.h"
#include "crypto/x509.h"
#include "raft/wire.h"
#include "store/node.h"

enum identity_state {
    IDENTITY_MADE = 1,      /* the log may not be there yet */
    IDENTITY_FOUNDING = 2,  /* OP_CLUSTER may not be applied yet */
    IDENTITY_MEMBER = 3,    /* an ordinary member */
    IDENTITY_RECOVERED = 4, /* sole member by force: removes the others' rows */
};

#define TOKEN_SECRET_SIZE 25 /* characters of a join token's secret */
#define VAULT_EPOCHS_MAX  8  /* cluster keys held at once */
#define VAULT_KEY_ID      16

/* A cluster key (vault.h). */
struct vault_key {
    uint32_t epoch;           /* from 1 */
    uint8_t id[VAULT_KEY_ID]; /* BLAKE2b-128 of the key: what the state knows of it */
    struct secret *key;       /* KEY_SIZE bytes */
};

struct node_identity {
    enum identity_state state;
    enum node_role role; /* as which it starts: with a replica or without */
    char cluster_id[CLUSTER_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1];
    uint64_t raft_id; /* a worker's: 0 */
    char name[NAME_MAX_SIZE + 1];
    char client_address[ADDRESS_MAX]; /* as announced */
    char peer_address[ADDRESS_MAX];   /* as announced */
    char client_listen[ADDRESS_MAX];  /* as listened on; may be a wildcard */
    char peer_listen[ADDRESS_MAX];    /* the same for peers; "": no peers */
    struct buf cert_pem, root_pem;
    struct buf issuer_pem; /* certificates from root_key's on, without the root; "": the root's */
    struct secret *key_pem;
    struct secret *root_key;   /* the signing key, PEM; NULL until the node has seen it */
    struct secret *join_key;   /* founding only: what the standing tokens follow from, 32 bytes */
    struct secret *token;      /* founding only: the manager token's secret part */
    struct secret *unlock_key; /* founding with autolock only: 32 bytes */
    unsigned n;                /* managers */
    struct wire_member members[MEMBERS_MAX];  /* where to look for them before there is a store */
    unsigned vault_n;                         /* cluster keys; a worker has none */
    struct vault_key vault[VAULT_EPOCHS_MAX]; /* ascending by epoch */
};

void identity_init(struct node_identity *id);  /* empty, ready to be filled */
void identity_clear(struct node_identity *id); /* frees and wipes; empty after */
void identity_forget_founding(struct node_identity *id);
void identity_forget_vault(struct node_identity *id); /* all cluster keys */

/* The cluster key of an epoch; NULL: it is not held. */
const struct vault_key *vault_key_of(const struct node_identity *id, uint32_t epoch);
/* Puts it at its place, instead of the one of its epoch if there is one. A copy is taken of `key`.
 * ERR_TOO_LARGE: VAULT_EPOCHS_MAX are held. */
RESULT vault_key_put(struct node_identity *id, uint32_t epoch, struct span key);
void vault_key_drop(struct node_identity *id, uint32_t epoch);
/* Several keys as bytes: u32 n, each u32 epoch, 32 bytes; epochs ascend. Whoever has them wipes
 * them. Decoded keys are added by vault_key_put unless their epoch is held; nothing is added when
 * the bytes are not understood. ERR_PROTOCOL. */
#define VAULT_KEYS_SIZE (4 + VAULT_EPOCHS_MAX * (4 + 32))
RESULT vault_keys_encode(const struct node_identity *id, struct buf *out);
RESULT vault_keys_check(struct span bytes);
RESULT vault_keys_take(struct node_identity *id, struct span bytes);
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
