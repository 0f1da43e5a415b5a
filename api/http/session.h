/* What the server and its two protocols share, and nobody else sees: a session is one accepted
 * connection with its client, a request is one exchange of it, and a protocol is a table of
 * functions, http1.c's or http2.c's. A lane (lane.c) is the connections of one loop: it finds out
 * which protocol a client speaks, then passes on what the connection tells and what handlers
 * answer. The server's own lane is on the loop of the handlers; with I/O loops (io_loop.h) each has
 * a lane on its thread, and requests are carried over to the handlers (ferry.h).
 *
 *   unknown --(ALPN, or the first bytes)--> HTTP/1.1 | HTTP/2 --(the connection ends)--> left
 *
 * A session whose client has left stays until the handlers have answered all its requests: only
 * then the protocol calls session_free. */
#ifndef CONCLAVE_SESSION_H
#define CONCLAVE_SESSION_H

#include <sys/un.h>

#include "api/http/conn.h"
#include "api/http/server.h"

struct session;
struct http2_setup;
struct stream;
struct io_loop;
struct far;

struct request {
    struct exchange exchange; /* first: handlers know nothing else */
    struct session *session;
    bool path_known; /* there is something at this path, with another method */
};

struct protocol {
    RESULT (*start)(struct session *s); /* sets up s->state; failure closes the connection */
    void (*data)(struct session *s);    /* conn->in has grown */
    void (*fill)(struct session *s);    /* the turn's end */
    void (*drained)(struct session *s);
    void (*expired)(struct session *s);
    void (*stop)(struct session *s); /* the server closes: no new requests, then the end */
    /* The connection is gone. `in`: what it had received, which requests may lie in; whoever
     * empties it keeps it. */
    void (*left)(struct session *s, struct buf *in);
    /* server.h's functions of the same names */
    void (*answer)(struct exchange *x, unsigned status, const char *content_type, struct span body);
    RESULT (*stream)(struct exchange *x, const char *content_type);
    RESULT (*write)(struct exchange *x, struct span data);
    RESULT (*room)(struct exchange *x);
    void (*end)(struct exchange *x, bool whole);
    void (*resume)(struct exchange *x);
    void (*trailers)(struct exchange *x, const struct http_header *trailers, unsigned n);
};

extern const struct protocol http1_protocol, http2_protocol, ferry_protocol;

/* What a connection lets its client be; a manager is an administrator while it is a member. */
enum standing { STANDING_CLIENT, STANDING_MANAGER, STANDING_ADMIN };

struct session {
    struct server *server;                /* the owner's */
    struct lane *lane;                    /* the owner */
    struct conn *conn;                    /* NULL: the client has left */
    struct session *next, **link;         /* in the lane's list */
    const struct protocol *protocol;      /* NULL: not known yet */
    void *state;                          /* the protocol's; freed by it */
    struct caller caller;                 /* who the client is */
    enum standing standing;               /* what it may be */
    char cluster_id[CLUSTER_ID_SIZE + 1]; /* that its certificate must name */
    bool unjudged;                        /* what is trusted changed in its handshake */
    struct far *far;                      /* of a lane of an I/O loop: its other half */
};

/* The connections of one loop; all of it is that loop's thread's. */
struct lane {
    struct server *server;           /* the owner; only what is constant is looked at */
    uv_loop_t *loop;                 /* its thread runs it */
    struct io_loop *io;              /* NULL: it is the server's own, where handlers run */
    struct conns conns;              /* what its connections share */
    struct http2_setup *http2;       /* what HTTP/2 sessions share */
    struct tls_context *trust;       /* of the last lane_review; NULL: none */
    struct session *sessions;        /* all */
    unsigned n;                      /* their number */
    bool closing;                    /* lane_stop was called */
    bool held;                       /* it does not end yet: listeners may need it */
    bool last;                       /* all else is gone; conns closes */
    void (*gone)(struct lane *lane); /* the owner's: nothing is left of it */
};

struct server {
    struct server_config config;
    struct lane own;                                        /* on config.loop */
    struct io_loop *io[IO_LOOPS_MAX];                       /* loops of connections; NULL: ended */
    unsigned io_n;                                          /* their number */
    unsigned io_live;                                       /* of them that have not ended */
    uv_pipe_t pipe;                                         /* the unix socket */
    uv_tcp_t tcp;                                           /* the client port */
    bool has_pipe, has_tcp;                                 /* are they open */
    bool plaintext;                                         /* the client port has no TLS */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* of the unix socket */
    char address[ADDRESS_MAX];                              /* of the client port, as bound */
    char cluster_id[CLUSTER_ID_SIZE + 1];                   /* that certificates must name */
    struct tls_context *tls;                                /* for new connections */
    unsigned handles;                                       /* listeners not closed yet */
    bool closing;                                           /* server_close was called */
    bool own_gone;                                          /* its own lane is */
    uint64_t requests;                                      /* of its own lane */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* --- server.c ------------------------------------------------------------------------------- */

/* Sets exchange.route by the head; NULL: there is none, or none with this method. */
void request_route(struct request *r);
/* Gives it to its route's handler, or answers why not. The exchange may be gone after. */
void request_dispatch(struct request *r);
/* The same, on the handlers' loop. */
void request_handle(struct request *r);
/* Starts over with another request. The headers' places stay unwritten. */
void request_reset(struct request *r);
void server_maybe_closed(struct server *s);

/* --- lane.c --------------------------------------------------------------------------------- */

/* A connection that comes: waiting at `listener`, or accepted already as `fd`. */
struct arrival {
    uv_stream_t *listener;   /* NULL: accepted */
    struct tls_context *tls; /* for `listener`; NULL: plain */
    int fd;                  /* taken over */
    bool pipe;               /* it is the unix socket's */
    struct tls *started;     /* for `fd`; NULL: plain; taken over */
    const char *cluster_id;  /* see session.cluster_id */
    struct far *far;         /* see session.far */
};

RESULT lane_open(struct lane *lane, struct server *server, uv_loop_t *loop, struct io_loop *io,
                 struct why *why);
RESULT lane_take(struct lane *lane, const struct arrival *a, struct why *why);
/* Whose certificate does not verify by this context gets no request answered any more: what is
 * under way has times.grace to end, then its connection is cut. */
void lane_review(struct lane *lane, struct tls_context *by);
void lane_stop(struct lane *lane); /* no new requests; `gone` when all is answered */
void lane_maybe_gone(struct lane *lane);
void session_free(struct session *s);

/* --- http2.c -------------------------------------------------------------------------------- */

RESULT http2_setup_new(struct http2_setup **out, struct why *why);
void http2_setup_free(struct http2_setup *setup);

#endif
