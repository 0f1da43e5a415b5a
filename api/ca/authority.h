/* The certificate authority as the cluster runs it: what signs now, what is trusted now, rotations
 * of the root, the validity of certificates, and nodes that come back after theirs ran out. It
 * reads the state (store/cluster.h struct ca, store/spec.h) and proposes; the leader's part is
 * authority_step. The private keys never leave the state's and the keyring's guarded memory.
 *
 * A rotation:
 *
 *   STEADY --start--> ROTATING --all reachable nodes have new certificates--> FINISHING
 *      ^                 |  `--abort--> STEADY (the nodes renew back)             |
 *      `---- the last old node has come, or was given up ("force") <-------------'
 *
 * ROTATING: certificates are issued by the new root, and carry it cross-signed by the old one, so
 * that whoever trusts only the old root verifies them; both are trusted, and the join tokens still
 * pin the old one. At the end of it the new root is the root, the tokens pin it. Another new root
 * may take the place of the one that is to be: all is bridged by the old one.
 * FINISHING: nodes that were away still have certificates of the old root. Those roots stay trusted
 * for exactly these nodes, by their recorded keys, until each has renewed or is given up. Another
 * rotation may begin meanwhile.
 *
 * A present CA that can't certify another one (path length 0; its key is elsewhere) leaves no
 * bridge. Then nothing is issued by the new root before its end: ROTATING lasts until the nodes
 * that are up have heard of the new root, and the renewals are in FINISHING. Nodes that were down
 * do not find their way back then: they join again.
 *
 * A node has converged when its row says that its certificate is of the new signing key, and it was
 * seen with it: an answer that got lost must not leave it without trust. */
#ifndef CONCLAVE_AUTHORITY_H
#define CONCLAVE_AUTHORITY_H

#include "api/manager.h"
#include "store/node.h"
#include "store/spec.h"

/* What is trusted now: the root, the next one, those that are not finished; PEM, one after the
 * other. `first` is the one that tokens pin. */
RESULT authority_roots(const struct cluster *c, struct buf *out);
/* The same for clients and what they connect to: without those that are not finished, which are
 * trusted for certain nodes only. While the state may be old, with the root that was last heard of.
 */
RESULT authority_client_roots(const struct manager *m, struct buf *out);
/* The digest (SHA-256 of SPKI) of the key that certificates should be of now. */
RESULT authority_issuer(const struct cluster *c, uint8_t digest[NODE_DIGEST_SIZE]);
/* Signs a request for a node with the key that signs now; ERR_UNSUPPORTED when that is elsewhere
 * (authority_is_external). The chain that the node has to show goes to `out`. */
RESULT authority_sign(const struct cluster *c, const struct spec *spec, struct span csr_pem,
                      const struct x509_subject *subject, int64_t now_s, struct buf *out,
                      struct why *why);
/* The same for a client of the cluster, for NODE_VALIDITY_S. */
RESULT authority_sign_client(const struct cluster *c, struct span csr_pem,
                             const struct x509_subject *subject, int64_t now_s, struct buf *out,
                             struct why *why);
/* The cluster has no key to sign with, but the address of who has: cfssl.h. */
bool authority_is_external(const struct cluster *c, const struct spec *spec);
/* What an external CA has signed is what was asked for: key, subject, names, signed by the CA that
 * should sign now. The chain that the node has to show goes to `out`. ERR_CERTIFICATE. */
RESULT authority_accept(const struct cluster *c, struct span cert_pem, struct span csr_pem,
                        const struct x509_subject *subject, int64_t now_s, struct buf *out,
                        struct why *why);

/* The new CA of a rotation: made here (both empty), or brought: PEM of certificates (the signing
 * one first, up to the root) and the signing one's key (NULL with an external CA). Proposed as
 * OP_CA; `done` when it is applied. Takes the place of a rotation that is under way. Bringing the
 * present CA again aborts it. Works on every manager. ERR_INVALID: what was brought can be no CA.
 */
RESULT authority_rotate(struct manager *m, struct span chain_pem, const struct secret *key,
                        manager_done *done, void *ctx, struct why *why);
RESULT authority_abort(struct manager *m, manager_done *done, void *ctx, struct why *why);
/* Ends it without the nodes that have not converged: they have to join again. ERR_PRECONDITION: a
 * manager that is up is among them. */
RESULT authority_force(struct manager *m, manager_done *done, void *ctx, struct why *why);

enum rotation { ROTATION_STEADY, ROTATION_ROTATING, ROTATION_FINISHING };
struct rotation_status {
    enum rotation phase;
    unsigned nodes, converged; /* in all; with certificates of the new CA */
    unsigned waiting_down;     /* not converged, and down */
    bool managers;             /* all managers that are up have converged */
};
void authority_status(const struct manager *m, struct rotation_status *out);

/* As leader, every BEAT_MS: ends a rotation when it can; drops old roots when nobody needs them.
 * The nodes renew by themselves when they hear of another signing key (node_wire.h). */
void authority_beat(struct manager *m);
void authority_close(struct manager *m); /* with the store */

#endif
