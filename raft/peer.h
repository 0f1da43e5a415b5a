/* The members' connections: TLS 1.3 with both certificates, over libuv. Each member dials every
 * other one and sends on that connection; it receives on those that it accepts. So a connection has
 * one direction, and there is nothing to break ties about. ALPN `conclave-peer/1`; who asks for a
 * certificate uses `conclave-join/1` on the same port, with or without one, and may only send
 * WIRE_JOIN; the sessions of nodes are `conclave-node/1` (session.h).
 *
 * On every member's connection, both ways: the certificate verifies against the cluster's roots
 * (role manager, O = cluster id); HELLO comes first; its node id is the certificate's CN, its raft
 * id is the one that the member table has for this node id; and `is_member` agrees, now and at
 * every peers_review. Anything else: cut, with a sentence in the log, and counted.
 *
 * Out: a bounded queue a peer (PEER_QUEUE_MAX); frames of one loop turn are sealed and written
 * together. Reconnect with back-off. In: a frame is bounded by FRAME_MAX before memory is taken for
 * it. Close: peers_close ends all connections and calls closed when the last handle is gone. */
#ifndef CONCLAVE_PEER_H
#define CONCLAVE_PEER_H

#include <uv.h>

#include "crypto/tls.h"
#include "raft/session.h"
#include "raft/wal.h"
#include "raft/wire.h"

#define ALPN_PEER "conclave-peer/1"
#define ALPN_JOIN "conclave-join/1"

struct peers;
struct join_connection;

struct peers_config {
    uv_loop_t *loop;
    void *ctx;
    struct identity identity;
    uint64_t raft_id;
    char
        address[ADDRESS_MAX]; /* HOST:PORT to listen on; also announced unless `advertise` is set */
    char advertise[ADDRESS_MAX]; /* announced to others; empty: address */
    struct span root_pem, cert_pem;
    const struct secret *key_pem;
    /* One whole frame of a member; false: it can't be read, and the connection is cut. */
    bool (*frame)(void *ctx, uint64_t from, struct span frame);
    void (*connected)(void *ctx, uint64_t peer); /* our outgoing connection is open */
    void (*moved)(void *ctx, uint64_t peer,
                  const char *address); /* a known member announces another address */
    /* `who` is from its certificate, if it shows one: of this cluster, any role; else the subject
     * and the digests are empty. Both are there during the call only. */
    void (*join)(void *ctx, struct join_connection *c, const struct wire_join *request,
                 const struct node_caller *who);
    /* Live authority: may the holder of this certificate be the member that it says it is? Asked
     * when it has said its hello, and in peers_review. NULL: the member table alone decides. */
    bool (*is_member)(void *ctx, const char *node_id, const uint8_t key_digest[32],
                      const uint8_t issuer_digest[32]);
    const struct node_events *node; /* sessions of nodes; NULL: they are refused; not copied */
    void (*log)(void *ctx, int level, const char *text); /* 0 error, 1 warning, 2 info, 3 debug */
    unsigned handshake_ms;                               /* 0: HANDSHAKE_TIMEOUT_MS */
};

/* What has happened since peers_open; for metrics. */
struct peers_figures {
    uint64_t refused;   /* connections cut before they were anyone's, and sessions not wanted */
    uint64_t sessions;  /* of nodes, open now */
    uint64_t connected; /* outgoing connections that opened */
    uint64_t frames_out, frames_in;
    uint64_t dropped; /* frames for a peer that was away, unknown or too slow */
};

/* What has gone to and come from one member; for metrics. */
struct peer_traffic {
    uint64_t raft_id;
    uint64_t sent, received; /* bytes on the wire, TLS included */
    uint64_t dropped;        /* frames that it did not get */
    bool connected;          /* our connection to it is open */
    uint32_t round_trip_us;  /* as the kernel measures it (tcp(7), TCP_INFO); 0: not known */
};

/* Listens at once. Called by the thread that runs the loop (its SIGPIPE is blocked). ERR_IN_USE
 * with the address, ERR_INVALID for one that does not parse. */
RESULT peers_open(const struct peers_config *config, struct peers **out, struct why *why);
void peers_close(struct peers *p, void (*closed)(void *ctx), void *ctx);

/* The member table: who may connect, and where to dial. Idempotent; a changed address redials. */
RESULT peers_set(struct peers *p, uint64_t raft_id, const char *node_id, const char *address);
void peers_remove(struct peers *p, uint64_t raft_id); /* also cuts open connections */
/* Own new certificate (a chain, the leaf first) or other roots (one or more, the one that join
 * tokens pin first): for new connections; old ones go on until they end. */
RESULT peers_credentials(struct peers *p, struct span root_pem, struct span cert_pem,
                         const struct secret *key_pem, struct why *why);

/* Judges every open connection again, a member's with is_member, a node's with `stays`, and cuts
 * those that are refused, with a sentence in the log. To be called whenever what they look at has
 * changed. */
void peers_review(struct peers *p);

void peers_flush(struct peers *p); /* writes at once what waits; else the turn's end does */
void peers_send(struct peers *p, uint64_t to,
                struct buf *frame);                /* takes the bytes; drops when full */
size_t peers_queued(struct peers *p, uint64_t to); /* SIZE_MAX: not open, all is dropped */
bool peers_is_connected(struct peers *p, uint64_t to);
const char *peers_address(struct peers *p); /* as bound: with the real port when 0 was asked for */
void peers_figures(struct peers *p, struct peers_figures *out);
unsigned peers_traffic(struct peers *p, struct peer_traffic out[MEMBERS_MAX]); /* how many */

/* Answers who asked and closes its connection after; `c` is gone. Every `c` needs it once, now or
 * later, even after peers_close. What the request's spans point to is only there during the `join`
 * callback. */
void join_answer(struct join_connection *c, const struct wire_joined *answer);

/* What a node has already when it asks again. */
struct join_credentials {
    struct span root_pem; /* roots that it trusts */
    struct span cert_pem; /* its certificate, as a chain; empty: it shows none (it ran out) */
    const struct secret *key_pem; /* of the certificate; NULL without one */
};

/* The asker's side, blocking the calling thread: connects to `address`, checks that the server's
 * root has the digest of the token, sends `request`, gives the answer. With `known` (else NULL)
 * the server is believed by its roots, and root_digest is not looked at. Follows ERR_NOT_LEADER to
 * the leader. Spans in *out point into `memory`. ERR_UNREACHABLE, ERR_CERTIFICATE (digest, roots,
 * or ours is refused), ERR_TIMEOUT, or the answer's own error (ERR_PENDING: ask again later), each
 * with a sentence. */
RESULT join_request(const char *address, const char *root_digest,
                    const struct join_credentials *known, const struct wire_join *request,
                    uint64_t timeout_ms, struct buf *memory, struct wire_joined *out,
                    struct why *why);

#endif
