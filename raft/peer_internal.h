/* What the files of the member connections share; nobody else includes this.
 *
 * - peer.c: the member table, credentials, open and close, who is who
 * - peer_channel.c: struct channel, one TLS connection over one socket; frames in, bytes out
 * - peer_out.c: struct link, one member and our connection to it
 * - peer_in.c: struct inbound, an accepted connection, a member's, a newcomer's or a node's
 * - session_in.c: struct node_session, a node's session on an inbound
 * - session_out.c: struct uplink, our own session with a manager; it has a home of its own
 *
 * Memory: as peer_channel.h says; the last handle or request to go ends a peers_close. */
#ifndef CONCLAVE_PEER_INTERNAL_H
#define CONCLAVE_PEER_INTERNAL_H

#include "crypto/limits.h"
#include "raft/loop.h"
#include "raft/peer.h"
#include "raft/peer_channel.h"

#define READ_SIZE        (256 * KIB) /* one read of a socket, into a buffer that all share */
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

static inline struct peers *peers_of(const struct channel *c) { /* of a member's or newcomer's */
    return (struct peers *)(void *)c->home;
}

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
    uint64_t sent, received, dropped; /* see struct peer_traffic */
};

RESULT link_new(struct peers *p, uint64_t raft_id, const char *node_id, struct link **out);
void link_dial(struct link *l, const char *address); /* leaves what was there and dials anew */
void link_hurry(struct link *l); /* it has just dialed us, so it is there: waits no longer */
void link_send(struct link *l, struct buf *frame);
void link_flush(struct link *l);
void link_review(struct link *l); /* cuts our connection when it may not be a member any more */
void link_free(struct link *l);   /* closes both connections; freed when its timer is closed */

/* A session of a node, as its manager has it; lives in its inbound. */
struct node_session {
    struct node_session *next, **at; /* of peers.said; at NULL: not in it */
    void *owner;                     /* the api's */
    enum err error;                  /* it is to be ended with `why`; OK: none */
    struct why why;
    bool told; /* `opened` has let it stay, so `closed` is due */
};

/* An accepted connection.
 *
 *   HANDSHAKE --peer--> HELLO --> OPEN
 *       |------join--> JOIN --> ASKED --> ANSWERED
 *       `------node--> SESSION --> ENDED
 */
enum in_state {
    IN_HANDSHAKE,
    IN_HELLO,
    IN_OPEN,
    IN_JOIN,
    IN_ASKED,
    IN_ANSWERED,
    IN_SESSION,
    IN_ENDED,
};

struct inbound {
    struct channel channel;      /* first: a channel of ours is an inbound */
    struct inbound *prev, *next; /* peers.in_first .. in_last, the oldest first */
    enum in_state state;
    struct node_caller who;       /* from HELLO, JOIN and SESSION on */
    bool known;                   /* in JOIN, ASKED and ANSWERED: it has shown a certificate */
    struct link *link;            /* in OPEN: whose it is */
    struct join_connection *join; /* in ASKED */
    struct node_session session;  /* in SESSION and ENDED */
};

void inbound_become(struct inbound *in, enum in_state state);

/* Sessions, session_in.c. */
RESULT session_open(struct inbound *in, struct why *why); /* TLS is up */
RESULT session_frame(struct inbound *in, struct span frame, struct why *why);
/* Says why, then closes; `limiter` is for the log and may be NULL. */
void session_end(struct inbound *in, struct limiter *limiter, enum err e, const char *text);
void session_review(struct inbound *in);
void session_leave(struct inbound *in);   /* its connection is being closed */
void session_drained(struct inbound *in); /* what it was given is with the kernel */
void session_gone(struct inbound *in);    /* its memory goes */
void sessions_flush(struct peers *p);     /* the turn's end */
/* The next certificate of a PEM, as it stands there; false: there is none. */
bool pem_next(struct cursor *pem, struct span *cert);

void peers_accept(uv_stream_t *listener, int status);
void inbound_close(struct inbound *in);

struct peers {
    struct channel_home home;   /* first: a home of ours is a peers */
    struct peers_config config; /* its spans and its key are not kept */
    char address[ADDRESS_MAX];  /* as bound */
    uv_tcp_t listener;
    uv_prepare_t prepare; /* flushes all links before the loop waits */
    uv_idle_t idle;       /* runs while something is to be flushed: the loop must not wait */
    bool closing;
    void (*closed)(void *ctx); /* of peers_close */
    void *closed_ctx;
    struct tls_context *server, *client;
    unsigned n; /* links */
    struct link *links[MEMBERS_MAX];
    struct inbound *in_first, *in_last;
    struct node_session *said;         /* sessions with something to be flushed */
    unsigned strangers;                /* inbounds in HANDSHAKE and HELLO */
    unsigned joins, renewals;          /* inbounds in JOIN, ASKED and ANSWERED, by `known` */
    unsigned sessions;                 /* inbounds in SESSION and ENDED */
    uv_tcp_t rejected;                 /* a connection that there is no memory for */
    bool rejecting;                    /* it is being closed */
    bool reject_more;                  /* another one waits for that */
    struct limiter limiters[LIMITERS]; /* of refused connections, by source */
    struct peers_figures figures;
    char read[READ_SIZE]; /* every socket is read into this */
};

struct link *peers_find(struct peers *p, uint64_t raft_id);
void peers_dirty(struct peers *p); /* something is to be flushed this turn */
/* A sentence for the log; `limiter` may be NULL. */
void peers_log(struct peers *p, struct limiter *limiter, int level, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
RESULT peers_hello(struct peers *p, struct buf *out); /* our own, as a frame */
/* Who is on the other side, by a certificate of this cluster. ERR_NOT_FOUND without a sentence: it
 * shows none; `remote` is filled then, too. */
RESULT peers_caller(struct peers *p, const struct channel *c, struct node_caller *out,
                    struct why *why);
RESULT peers_manager(struct peers *p, const struct channel *c, struct node_caller *out,
                     struct why *why); /* the same, and it must be a manager's certificate */
/* Is the frame a HELLO in which certificate, node id and raft id agree, and may its sender be a
 * member? Gives it, and its member. */
RESULT peers_check_hello(struct peers *p, struct span frame, const struct node_caller *who,
                         struct wire_hello *hello, struct link **out, struct why *why);
RESULT peers_judge(struct peers *p, const struct node_caller *who, struct why *why); /* is_member */
/* By the address without port, since a stranger's port changes. */
struct limiter *peers_limiter(const struct channel *c);
/* Tells the owner when the member announces another address than it has. The link may be gone
 * after. */
void peers_tell_moved(struct peers *p, const struct link *l, const char *announced);

#endif
