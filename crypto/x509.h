/* X.509 as the cluster uses it, over OpenSSL: ECDSA P-256 everywhere, PEM at the edges. A node's
 * certificate says CN = node id, OU = role, O = cluster id; extended key usage server and client;
 * SAN DNS = OU and CN; not before is backdated by one hour. From a request only the public key is
 * taken: names come from the signer (reference: swarmkit ca). Validated values only go into
 * extensions. */
#ifndef CONCLAVE_X509_H
#define CONCLAVE_X509_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "crypto/secret.h"

#define ROLE_MANAGER    "conclave-manager"
#define ROLE_CLIENT     "conclave-client"
#define ROOT_VALIDITY_S (20LL * 365 * 86400)
#define NODE_VALIDITY_S (90LL * 86400)
#define BACKDATE_S      3600LL

#define HOSTS_ROOM 640

/* What a certificate says of its holder. */
struct x509_subject {
    char cn[NAME_MAX_SIZE + 1]; /* node id, or a client's name */
    char ou[NAME_MAX_SIZE + 1]; /* role */
    char o[NAME_MAX_SIZE + 1];  /* cluster id */
    /* To issue only: further SANs, IP addresses and DNS names separated by ','; "" for none. Each
     * is checked (an IP address, or letters, digits, '-' and '.'), else ERR_INVALID. Verify leaves
     * it "". */
    char hosts[HOSTS_ROOM];
};

/* A fresh P-256 key as PKCS#8 PEM. */
RESULT x509_key_new(struct secret **out_pem, struct why *why);
/* A self-signed root: CN conclave-ca, O = cluster id, CA:TRUE, pathlen 1, keyCertSign. */
RESULT x509_root(const struct secret *key_pem, const char *cluster_id, struct buf *out_pem,
                 struct why *why);
/* A certificate request for the key; its subject is CN=`cn`. */
RESULT x509_request(const struct secret *key_pem, const char *cn, struct buf *out_pem,
                    struct why *why);
/* Checks the request's own signature and that its key is P-256, and issues. `now_s` is UTC seconds.
 */
RESULT x509_issue(const struct secret *root_key_pem, struct span root_pem, struct span request_pem,
                  const struct x509_subject *subject, int64_t now_s, int64_t validity_s,
                  struct buf *out_pem, struct why *why);
/* Verifies `cert_pem` against the root at `now_s`, for use as server and client; fills *out.
 * ERR_CERTIFICATE with the reason: expired, not yet valid, another issuer, ... */
RESULT x509_verify(struct span root_pem, struct span cert_pem, int64_t now_s,
                   struct x509_subject *out, struct why *why);
RESULT x509_key_matches(struct span cert_pem, const struct secret *key_pem, struct why *why);
/* Does the certificate have all of `hosts` (as above) as SANs? */
bool x509_has_hosts(struct span cert_pem, const char *hosts);
RESULT x509_dates(struct span cert_pem, int64_t *not_before_s, int64_t *not_after_s);

/* The join token's digest of a root: SHA-256 of the PEM bytes as 50 characters of base36,
 * '0'-padded. */
#define ROOT_DIGEST_TEXT 51
RESULT x509_digest(struct span root_pem, char out[ROOT_DIGEST_TEXT]);

#endif
