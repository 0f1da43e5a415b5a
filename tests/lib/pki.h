/* A cluster's certificates for tests: a root, and nodes under it. Asserts on every failure. */
#ifndef CONCLAVE_TEST_PKI_H
#define CONCLAVE_TEST_PKI_H

#include "crypto/secret.h"
#include "crypto/x509.h"

struct pki {
    struct secret *key;            /* the root's */
    struct buf root;               /* its certificate, PEM */
    char digest[ROOT_DIGEST_TEXT]; /* of the root, as in a token */
    char cluster_id[CLUSTER_ID_SIZE + 1];
};

struct pki_node {
    struct secret *key;
    struct buf cert; /* PEM */
};

void pki_new(struct pki *p, const char *cluster_id);
void pki_free(struct pki *p);
/* A certificate with CN `node_id`, OU `role`, O `cluster_id`, issued `age_s` ago for 90 days. */
void pki_node_new(const struct pki *p, const char *node_id, const char *role,
                  const char *cluster_id, int64_t age_s, struct pki_node *out);
void pki_node_free(struct pki_node *n);

#endif
