/* Heads of the audit trail (store/audit.h), and the proof of a trail to whoever reads it.
 *
 * A head is (cluster, number, chain): whoever keeps one can later tell whether what led to it was
 * rewritten, for the chain hashes everything before it. It is signed by a manager's certificate
 * key, over "conclave audit head", 0, cluster id, u64 number, chain (x509_prove). The leader keeps
 * heads in the trail itself: an AUDIT_HEAD record after AUDIT_HEAD_RECORDS further ones, or when
 * one has waited for AUDIT_HEAD_NS; its detail is u64 number, chain 32, block signature, block PEM
 * of the signer's certificates.
 *
 * Who checks (audit_walk) needs no manager's word but the roots: the records are hashed anew, one
 * after the other; heads in the trail are checked against what was hashed; a head that was kept
 * elsewhere has to be one of those that the trail passes. */
#ifndef CONCLAVE_API_AUDIT_H
#define CONCLAVE_API_AUDIT_H

#include "api/json.h"
#include "api/manager.h"
#include "store/audit.h"

#define AUDIT_HEAD_RECORDS  1000
#define AUDIT_HEAD_NS       (3600LL * 1000000000)
#define AUDIT_PAGE_MAX      500 /* records of one answer */
#define AUDIT_SIGNERS_MAX   (8 * KIB)
#define AUDIT_SIGNATURE_MAX 256

const char *audit_what_text(enum audit_what what); /* "create"; "?" for what is none */
const char *audit_kind_text(enum row_kind kind);   /* "secret"; "" for 0 */

struct audit_head {
    char cluster_id[CLUSTER_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1]; /* who signed it */
    uint64_t number;                /* of the record that it stands at; 0: an empty trail */
    uint8_t chain[AUDIT_CHAIN];     /* zeros with number 0 */
    struct span signature;
    struct span signer_pem; /* certificates of the signer, its own first */
};

/* --- managers -------------------------------------------------------------------------------- */

/* The head of the state as it is here, signed by this node. Spans point into `memory` and the
 * manager. */
RESULT audit_head_sign(const struct manager *m, struct audit_head *out, struct buf *memory,
                       struct why *why);

/* The signature of a head that is filled in, at the end of an empty `memory`. */
RESULT audit_head_prove(struct audit_head *h, const struct secret *key_pem, struct buf *memory,
                        struct why *why);

struct audits;                         /* manager.audits: the leader's heads */
RESULT audits_open(struct manager *m); /* with the store; ERR_NOMEM */
void audits_close(struct manager *m);
void audits_beat(struct manager *m); /* every BEAT_MS: as leader, writes a head when one is due */
/* Of a trail that ends at `last`, whose newest head is of `head` (0: none) and whose first record
 * after that is of `since_ns`. */
bool audit_head_due(uint64_t last, uint64_t head, int64_t since_ns, int64_t now_ns);

/* --- as bytes and as JSON --------------------------------------------------------------------- */

RESULT audit_head_encode(const struct audit_head *h, struct buf *out); /* of a record's detail */
/* Cluster and node are taken from the certificate, which is not checked here. ERR_CORRUPT. */
RESULT audit_head_decode(struct span detail, struct audit_head *out);
/* {"cluster", "node", "number", "chain": hex, "signature": base64, "signer": PEM} */
void audit_head_put(struct jout *j, const struct audit_head *h);
RESULT audit_head_read(const json_t *json, struct audit_head *out, struct buf *memory,
                       struct why *why); /* ERR_INVALID */
/* {"number", "time_ns", "prev": hex, "chain": hex, "record": base64} leaves the object open. */
void audit_link_put(struct jout *j, const struct audit_link *l);
RESULT audit_link_read(const json_t *json, struct audit_link *out, struct buf *memory,
                       struct why *why); /* ERR_INVALID, ERR_CORRUPT */

/* --- whoever checks --------------------------------------------------------------------------- */

/* Is the signature by the certificate that it comes with? ERR_CERTIFICATE. */
RESULT audit_head_proven(const struct audit_head *h, struct why *why);
/* And is that a manager's of its cluster, which leads to the roots? Certificates that ran out
 * meanwhile were good then. ERR_CERTIFICATE. */
RESULT audit_head_check(const struct audit_head *h, struct span roots_pem, struct why *why);

#define AUDIT_WALK_KEPT 4096 /* chains behind the present one that a head may be of */

struct audit_walk {
    struct span roots_pem;         /* the caller's; heads in the trail are checked against them */
    const struct audit_head *kept; /* a head that must be passed; NULL: none */
    bool passed;                   /* it was */
    uint64_t first, last;          /* numbers seen; 0: none yet */
    uint8_t chain[AUDIT_CHAIN];    /* of the last */
    uint64_t heads;                /* in the trail, good */
    uint64_t strangers; /* the same, whose signers lead to other roots (before a CA rotation) */
    uint8_t (*ring)[AUDIT_CHAIN]; /* by number, AUDIT_WALK_KEPT of them */
};

RESULT audit_walk_start(struct audit_walk *w, struct span roots_pem, const struct audit_head *kept);
void audit_walk_end(struct audit_walk *w);
/* The next record. ERR_CORRUPT: the sentence says which and what is wrong with it. */
RESULT audit_walk_link(struct audit_walk *w, const struct audit_link *l, struct why *why);
/* Is this a head of what was walked? It may stand AUDIT_WALK_KEPT records before its end.
 * ERR_CORRUPT. */
RESULT audit_walk_has(const struct audit_walk *w, const struct audit_head *h, struct why *why);
/* After the last one: was `kept` passed? ERR_CORRUPT; ERR_NOT_FOUND: the trail begins after it. */
RESULT audit_walk_finish(struct audit_walk *w, struct why *why);

#endif
