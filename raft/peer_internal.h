/* What the files of the member connections share; nobody else includes this.
 *
 * - peer.c: the member table, credentials, open and close, who is who
 * - peer_channel.c: struct channel, one TLS connection over one socket; frames in, bytes out
 * - peer_out.c: struct link, one member and our connection to it
 * - peer_in.c: struct inbound, an accepted connection, a member's or a newcomer's
 *
 * Memory: a channel lives in its outbound or inbound, which is freed by `gone`, when the loop is
 * done with its handles. Closing only marks; so whoever calls out looks at `closing` after. Every
 * open handle and request is counted in peers.handles; the last one to go ends a peers_close. */
#ifndef CONCLAVE_PEER_INTERNAL_H
#define CONCLAVE_PEER_INTERNAL_H

#include "crypto/limits.h"
#include "raft/loop.h"
#include "raft/peer.h"

#define READ_SIZE        (256 * KIB) /* one read of a socket, into a buffer that all share */
#define SEND_AHEAD       (256 * KIB) /* sealed bytes under way on one connection */
#define RECORD_SIZE      (16 * KIB)  /* plain bytes of a TLS record */
#define STABLE_MS        1000        /* a connection that lasted so long resets the back-off */
#define LINGER_MS        1000        /* for a newcomer to take its answer */
#define LIMITERS         64          /* sources of refused connections told apart */
#define SAME_SENTENCE_MS 30000       /* the same sentence again: not earlier than this */
#define SENTENCE_MS      1000 /* another sentence about the same peer: not earlier than this */

enum { LEVEL_ERROR, LEVEL_WARNING, LEVEL_INFO, LEVEL_DEBUG };

/* Keeps one source of sentences from flooding the log. */
struct limiter {
    uint64_t next_ms;  /* another sentence may come from here on */
    uint64_t again_ms; /* the same one from here on */
    uint32_t hash;     /* of the last sentence */
    unsigned held;     /* sentences not written since */
};

struct channel;

/* What a connection tells its owner, on the loop. After any of them the owner may have closed it.
 */
struct channel_events {
    RESULT (*opened)(struct channel *c, struct why *why);                   /* TLS is up */
    RESULT (*frame)(struct channel *c, struct span frame, struct why *why); /* one whole frame */
    void (*drained)(struct channel *c); /* an earlier write has ended */
    void (*failed)(struct channel *c, enum err e, const char *text); /* the owner must close it */
    void (*gone)(struct channel *c);                                 /* the memory may go */
};

struct channel {
    uv_tcp_t tcp;
    uv_timer_t timer; /* see channel_deadline */
    uv_write_t write; /* one at a time */
    struct peers *peers;
    const struct channel_events *on; /* the owner's */
    struct tls *tls;
    struct buf plain;         /* decrypted, not yet delivered: less than one frame between reads */
    struct buf wire;          /* sealed bytes of the write under way */
    size_t frame_max;         /* longest frame that is accepted now */
    unsigned handles;         /* of tcp and timer, how many are not closed */
    bool writing;             /* `write` is under way */
    bool open;                /* TLS is up */
    bool closing;             /* channel_close was called */
    char remote[ADDRESS_MAX]; /* the other side, for sentences; empty before it is connected */
};

/* Initialises *c (zeroed). On error nothing is left to close. */
RESULT channel_init(struct channel *c, struct peers *p, const struct channel_events *on,
                    struct tls_context *context, struct why *why);
void channel_start(struct channel *c); /* the socket is connected: reads, and begins with TLS */
void channel_accept_frames(struct channel *c, size_t frame_max);
void channel_deadline(struct channel *c, uint64_t ms); /* `failed` with ERR_TIMEOUT then; 0: none */
RESULT channel_seal(struct channel *c, struct span plain,
                    struct why *why);  /* channel_flush sends it */
void channel_flush(struct channel *c); /* may call `failed` */
void channel_fail(struct channel *c, enum err e, const char *text);
void channel_close(struct channel *c); /* idempotent */
static inline size_t channel_waiting(struct channel *c) {
    return c->wire.size + tls_pending(c->tls).size;
}

/* A member and our connection to it.
 *
 *   IDLE --address--> RESOLVE --> CONNECT --> HELLO --> OPEN
 *     (a name only)      |           |          |        |
 *                        `-----------+----------+--------'--> WAIT --back-off--> RESOLVE
 *
 * Invariant: `out` is set in CONNECT, HELLO and OPEN only; `resolve` in RESOLVE only; the queue is
 * empty but in OPEN. */
enum link_state { LINK_IDLE, LINK_RESOLVE, LINK_CONNECT, LINK_HELLO, LINK_OPEN, LINK_WAIT };

struct block {
    struct block *next;
    struct buf bytes; /* whole frames, one after the other */
};

struct outbound {
    struct channel channel; /* first: a channel of ours is an outbound */
    uv_connect_t connect;
    struct link *link; /* NULL: given up */
};

struct resolve {
    uv_getaddrinfo_t req;
    struct peers *peers;
    struct link *link; /* NULL: given up */
};

struct link {
    struct peers *peers;
    uint64_t raft_id;
    char node_id[NODE_ID_SIZE + 1];
    char address[ADDRESS_MAX]; /* where to dial; empty: not known */
    enum link_state state;
    struct outbound *out;      /* our connection to it */
    struct inbound *in;        /* its connection to us, once it is known to be its */
    struct resolve *resolve;   /* the name being looked up */
    uv_timer_t timer;          /* of WAIT */
    unsigned attempts;         /* failed in a row; which of a name's addresses is next */
    uint64_t opened_ms;        /* when OPEN began */
    struct block *head, *tail; /* the queue */
    struct block *spare;       /* an empty one, kept for the next turn */
    size_t head_at;            /* bytes of head already sealed */
    size_t queued;             /* bytes in the queue, not yet sealed */
    struct limiter limiter;
};

RESULT link_new(struct peers *p, uint64_t raft_id, const char *node_id, struct link **out);
void link_dial(struct link *l, const char *address); /* leaves what was there and dials anew */
void link_hurry(struct link *l); /* it has just dialed us, so it is there: waits no longer */
void link_send(struct link *l, struct buf *frame);
void link_flush(struct link *l);
void link_free(struct link *l); /* closes both connections; freed when its timer is closed */

/* An accepted connection.
 *
 *   HANDSHAKE --peer--> HELLO --> OPEN
 *       `------join--> JOIN --> ASKED --> ANSWERED
 */
enum in_state { IN_HANDSHAKE, IN_HELLO, IN_OPEN, IN_JOIN, IN_ASKED, IN_ANSWERED };

struct inbound {
    struct channel channel;      /* first: a channel of ours is an inbound */
    struct inbound *prev, *next; /* peers.in_first .. in_last, the oldest first */
    enum in_state state;
    struct x509_subject subject;  /* from HELLO on */
    struct link *link;            /* in OPEN: whose it is */
    struct join_connection *join; /* in ASKED */
};

void peers_accept(uv_stream_t *listener, int status);
void inbound_close(struct inbound *in);

struct peers {
    struct peers_config config; /* its spans and its key are not kept */
    char address[ADDRESS_MAX];  /* as bound */
    uv_tcp_t listener;
    uv_prepare_t prepare; /* flushes all links before the loop waits */
    uv_idle_t idle;       /* runs while something is to be flushed: the loop must not wait */
    unsigned handles;     /* handles and requests not yet gone */
    bool closing;
    void (*closed)(void *ctx); /* of peers_close */
    void *closed_ctx;
    struct tls_context *server, *client;
    unsigned n; /* links */
    struct link *links[MEMBERS_MAX];
    struct inbound *in_first, *in_last;
    unsigned strangers;                /* inbounds in HANDSHAKE and HELLO */
    unsigned joins;                    /* inbounds in JOIN, ASKED and ANSWERED */
    uv_tcp_t rejected;                 /* a connection that there is no memory for */
    bool rejecting;                    /* it is being closed */
    bool reject_more;                  /* another one waits for that */
    struct limiter limiters[LIMITERS]; /* of refused connections, by source */
    struct peers_figures figures;
    char read[READ_SIZE]; /* every socket is read into this */
};

struct link *peers_find(struct peers *p, uint64_t raft_id);
void peers_handle_gone(struct peers *p);
void peers_dirty(struct peers *p); /* something is to be flushed this turn */
/* A sentence for the log; `limiter` may be NULL. */
void peers_log(struct peers *p, struct limiter *limiter, int level, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
RESULT peers_hello(struct peers *p, struct buf *out); /* our own, as a frame */
/* Is it a manager's certificate of this cluster? */
RESULT peers_check_certificate(struct peers *p, const struct tls *t, struct x509_subject *out,
                               struct why *why);
/* Is the frame a HELLO in which certificate, node id and raft id agree? Gives it, and its member.
 */
RESULT peers_check_hello(struct peers *p, struct span frame, const struct x509_subject *subject,
                         struct wire_hello *hello, struct link **out, struct why *why);
/* Tells the owner when the member announces another address than it has. The link may be gone
 * after. */
void peers_tell_moved(struct peers *p, const struct link *l, const char *announced);

#endif
