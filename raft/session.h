/* Sessions of nodes: a node, worker or manager, holds one connection to a manager's peer port, on
 * which it hears what the cluster wants of it and says how it is. TLS 1.3 with both certificates,
 * ALPN `conclave-node/1`. Messages are u8 kind (1..) and a body that raft/ does not look into
 * (api/node/node_wire.h), in frames of type WIRE_NODE, <= SESSION_FRAME_MAX. Kind 0 is the
 * transport's own: the manager's last word, u16 error and a sentence, before it closes.
 *
 * Manager's side (session_in.c): whoever comes has a certificate of this cluster; whether it may
 * stay is `opened`'s to say, and can be said again at any time with session_cut, or by `stays` in a
 * peers_review. A bounded queue each; a session whose queue is full is cut, since it would miss
 * something.
 *
 *   opened --> OPEN --cut, error, full queue--> ENDED (says why, waits shortly) --> closed
 *                `-----------the connection ends-----------------------------------^
 *
 * Node's side, the uplink (session_out.c): one attempt at one address; the owner tries the next. A
 * server is believed when its certificate is of the trusted roots and of the cluster and says
 * manager.
 *
 *   CONNECTING -> HANDSHAKE -> OPEN -> CLOSED      `closed` fires once, from any state, later
 *
 * No callback fires inside a call. After uplink_free none but `freed` fires. All on the loop's
 * thread. */
#ifndef CONCLAVE_NODE_SESSION_H
#define CONCLAVE_NODE_SESSION_H

#include <uv.h>

#include "crypto/tls.h"

#define ALPN_NODE "conclave-node/1"

/* Who is on the other side of an accepted connection. */
struct node_caller {
    struct x509_subject subject; /* of its verified certificate; empty: it showed none (joins) */
    uint8_t key_digest[32];      /* SHA-256 of its public key (SPKI, DER) */
    uint8_t issuer_digest[32];   /* of the key that signed it */
    char remote[64];             /* IP address, as text */
};

/* --- manager's side: in struct peers_config --------------------------------------------------- */

struct node_session; /* one that was accepted */

struct node_events {
    /* OK: it may stay; else it is cut with the sentence, and nothing more is heard of it. */
    RESULT (*opened)(void *ctx, struct node_session *s, const struct node_caller *who,
                     struct why *why);
    RESULT (*message)(void *ctx, struct node_session *s, uint8_t kind, struct span body,
                      struct why *why); /* error: cut with the sentence */
    /* Judges an open one again, in peers_review: error: cut. NULL: they all stay. */
    RESULT (*stays)(void *ctx, struct node_session *s, const struct node_caller *who,
                    struct why *why);
    /* After opened, once; `s` is gone then. After a cut it takes up to a second; no message comes
     * in between. Every session is closed before peers_close is. */
    void (*closed)(void *ctx, struct node_session *s);
    /* What waited for the node's socket has gone into it. NULL: nobody asks. */
    void (*drained)(void *ctx, struct node_session *s);
};
/* Bytes that wait to be sent; whoever has much to say goes on in `drained`. */
size_t session_waiting(const struct node_session *s);
void session_send(struct node_session *s, uint8_t kind, struct span body); /* copies */
void session_cut(struct node_session *s, enum err e, const char *text);    /* says why, then ends */
void session_set(struct node_session *s, void *owner);                     /* the api's pointer */
void *session_get(const struct node_session *s);
const struct node_caller *session_caller(const struct node_session *s);

/* --- node's side ------------------------------------------------------------------------------ */

struct uplink; /* one that was dialed */

struct uplink_config {
    uv_loop_t *loop;
    void *ctx;
    char address[ADDRESS_MAX];            /* HOST:PORT of a manager's peer port */
    char cluster_id[CLUSTER_ID_SIZE + 1]; /* O that the server's certificate must have */
    char node_id[NODE_ID_SIZE + 1];       /* its CN: who is meant to be there; "": any manager */
    struct span root_pem;                 /* trusted roots, one or more */
    struct span cert_pem;                 /* own chain */
    const struct secret *key_pem;
    void (*opened)(void *ctx, struct uplink *u); /* the manager may still cut it */
    RESULT (*message)(void *ctx, struct uplink *u, uint8_t kind, struct span body,
                      struct why *why); /* error: closes */
    /* Then free it. `e` is what the manager said, ERR_PERMISSION for one; ERR_CERTIFICATE when one
     * side does not take the other's certificate; ERR_UNREACHABLE, ERR_TIMEOUT, ERR_CLOSED. */
    void (*closed)(void *ctx, struct uplink *u, enum err e, const char *text);
    unsigned handshake_ms; /* 0: HANDSHAKE_TIMEOUT_MS; for connecting, too */
};
/* Copies everything, the credentials too. ERR_INVALID: the address; ERR_CERTIFICATE: the key is not
 * the certificate's. */
RESULT uplink_open(const struct uplink_config *config, struct uplink **out, struct why *why);
void uplink_say(struct uplink *u, uint8_t kind, struct span body); /* copies; while it is open */
void uplink_free(struct uplink *u, void (*freed)(void *ctx), void *ctx); /* at any time, once */

#endif
