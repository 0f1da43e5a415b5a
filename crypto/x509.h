/* X.509 as the cluster uses it, over OpenSSL, PEM at the edges. A node's certificate says CN = node
 * id, OU = role, O = cluster id; its key is on P-256; extended key usage server and client; SAN
 * DNS = OU and CN, a manager's also ROOT_CN; not before is backdated by one hour. From a request
 * only the public key is taken: names come from the signer (reference: swarmkit ca). Validated
 * values only go into extensions.
 *
 * Who signs is a root or a CA below one. Its key may also be RSA or on a larger curve. What a node
 * shows is a chain: its own certificate, then what leads to a root (x509_chain); whom it trusts
 * are one or more roots, one PEM after the other. */
#ifndef CONCLAVE_X509_H
#define CONCLAVE_X509_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "crypto/secret.h"

#define ROLE_MANAGER    "swarm-manager"
#define ROLE_WORKER     "swarm-worker"
#define ROLE_CLIENT     "conclave-client"
#define ROOT_CN         "swarm-ca"
#define ROOT_VALIDITY_S (20LL * 365 * 86400)
#define NODE_VALIDITY_S (90LL * 86400)
#define BACKDATE_S      3600LL
#define CA_LIFE_MIN_S   (365LL * 86400) /* that a CA which is brought has left */

#define HOSTS_ROOM 640

/* What a certificate says of its holder. */
struct x509_subject {
    char cn[NAME_MAX_SIZE + 1]; /* node id, or a client's name; never a role's or ROOT_CN */
    char ou[NAME_MAX_SIZE + 1]; /* role */
    char o[NAME_MAX_SIZE + 1];  /* cluster id */
    /* To issue only: further SANs, IP addresses and DNS names separated by ','; "" for none. Each
     * is checked (an IP address, or letters, digits, '-' and '.'), else ERR_INVALID. Verify leaves
     * it "". */
    char hosts[HOSTS_ROOM];
};

/* A fresh P-256 key as PKCS#8 PEM. */
RESULT x509_key_new(struct secret **out_pem, struct why *why);
/* A self-signed root: CN swarm-ca, O = cluster id, CA:TRUE, keyCertSign. */
RESULT x509_root(const struct secret *key_pem, const char *cluster_id, struct buf *out_pem,
                 struct why *why);
/* A certificate request for the key; its subject is CN=`cn`. */
RESULT x509_request(const struct secret *key_pem, const char *cn, struct buf *out_pem,
                    struct why *why);
/* Checks the request's own signature and that its key is P-256, and issues. `ca_pem` begins with
 * the certificate of the signing key, of a root or of a CA below one. `now_s` is UTC seconds. */
RESULT x509_issue(const struct secret *ca_key_pem, struct span ca_pem, struct span request_pem,
                  const struct x509_subject *subject, int64_t now_s, int64_t validity_s,
                  struct buf *out_pem, struct why *why);
/* The chain that a node shows: its certificate; the CAs from its signer on, without the root (""
 * when the root itself signs); the root as others have certified it (""). In this order any
 * verifier finds its way, whichever root it trusts. */
RESULT x509_chain(struct span leaf_pem, struct span issuer_pem, struct span cross_pem,
                  struct buf *out_pem);

/* --- verifying -------------------------------------------------------------------------------- */

/* Verifies a chain against the roots at `now_s`, for use as server and client; fills *out.
 * ERR_CERTIFICATE with the reason: expired, not yet valid, another issuer, ... */
RESULT x509_verify(struct span roots_pem, struct span chain_pem, int64_t now_s,
                   struct x509_subject *out, struct why *why);
/* The same at the end of its own validity: it was good as long as it lasted. */
RESULT x509_verify_ended(struct span roots_pem, struct span chain_pem, struct x509_subject *out,
                         struct why *why);
RESULT x509_key_matches(struct span cert_pem, const struct secret *key_pem, struct why *why);
/* Does the certificate have all of `hosts` (as above) as SANs? */
bool x509_has_hosts(struct span cert_pem, const char *hosts);
RESULT x509_first(struct span pem, struct buf *out_pem, struct why *why); /* of several */
/* What it says, without verification: of one's own certificate. */
RESULT x509_subject(struct span cert_pem, struct x509_subject *out);
/* Its subject for people, as RFC 2253 writes names, cut where there is no room. */
RESULT x509_title(struct span cert_pem, char *out, size_t room);
RESULT x509_dates(struct span cert_pem, int64_t *not_before_s, int64_t *not_after_s);

/* --- certificate authorities ----------------------------------------------------------------- */

/* May this CA be the cluster's? `chain_pem`: the certificate of the signing key, then who signed
 * it, up to a self-signed root; that alone when the root signs. `key_pem`: the signing key; NULL
 * when an external CA has it. `present_pem`: CAs whose keys it may not sign with ("": any). Each
 * is to be a CA that may sign certificates, with SHA-2, with a key as below, for another
 * CA_LIFE_MIN_S; and what it issues must verify. The root and the rest come out apart, in PEM as we
 * write it. Keys: RSA of 2048 bits or more, P-256, P-384, P-521. ERR_INVALID with a sentence for
 * each. */
RESULT x509_ca_check(struct span chain_pem, const struct secret *key_pem, struct span present_pem,
                     int64_t now_s, struct buf *root_pem, struct buf *issuer_pem, struct why *why);
/* Issues one for nobody and verifies its chain against other roots: does it lead there?
 * ERR_CERTIFICATE. */
RESULT x509_ca_try(const struct secret *key_pem, struct span root_pem, struct span issuer_pem,
                   struct span cross_pem, struct span roots_pem, int64_t now_s, struct why *why);
/* The certificate of another CA once more, signed by this one: the same subject, key and dates. Who
 * trusts this one then finds his way to what the other one signs. */
RESULT x509_cross(const struct secret *ca_key_pem, struct span ca_pem, struct span next_pem,
                  struct buf *out_pem, struct why *why);
/* Subject and public key (SubjectPublicKeyInfo), DER, as Docker's API shows an issuer. */
RESULT x509_names(struct span cert_pem, struct buf *subject_der, struct buf *spki_der);

/* --- keys by their digest -------------------------------------------------------------------- */

/* SHA-256 of a public key (SubjectPublicKeyInfo, DER): of the first certificate; of a request,
 * whose signature is checked; of a private key. */
#define KEY_DIGEST_SIZE 32
RESULT x509_key_digest(struct span cert_pem, uint8_t out[KEY_DIGEST_SIZE]);
RESULT x509_request_digest(struct span request_pem, uint8_t out[KEY_DIGEST_SIZE], struct why *why);
RESULT x509_private_digest(const struct secret *key_pem, uint8_t out[KEY_DIGEST_SIZE],
                           struct why *why);
/* Of the key that signed the first certificate of the chain, which is looked for in the chain and
 * among the roots (may be ""). ERR_NOT_FOUND. */
RESULT x509_issuer_digest(struct span chain_pem, struct span roots_pem,
                          uint8_t out[KEY_DIGEST_SIZE]);

/* A signature with a node's key over any bytes (ECDSA, SHA-256, bound to this purpose), and its
 * check by the certificate, whether that is still valid or not. ERR_CERTIFICATE. */
RESULT x509_prove(const struct secret *key_pem, struct span bytes, struct buf *out,
                  struct why *why);
RESULT x509_proof_check(struct span cert_pem, struct span bytes, struct span proof,
                        struct why *why);

/* The join token's digest of a root: SHA-256 of the PEM bytes as 50 characters of base36,
 * '0'-padded. */
#define ROOT_DIGEST_TEXT 51
RESULT x509_digest(struct span root_pem, char out[ROOT_DIGEST_TEXT]);

#endif
