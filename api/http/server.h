/* The HTTP server: listeners (a unix socket, TCP with or without TLS), sessions of HTTP/1.1 and
 * HTTP/2 (told apart by ALPN, or in the clear by the first bytes), and the table of routes. A
 * handler gets an exchange (one request) and answers it now or later with exchange_answer, from
 * the loop; the request's bytes stay where they are until then, even when the client has gone
 * meanwhile. Handlers run on one loop; connections do too, or on loops of their own (io_loop.h).
 *
 * Who asks is told by the connection: the unix socket's owner and holders of an admin
 * certificate may do everything, and so may the node of a manager's certificate while it is a
 * member; holders of a client certificate, and anybody on a plaintext port, what a route's access
 * says. A worker's certificate, and one of a manager that is none any more, open nothing.
 *
 * Limits: CONNECTIONS_MAX connections, STREAMS_MAX requests at once on one of HTTP/2, HTTP_HEAD_MAX
 * and HTTP_BODY_MAX, the deadlines below, and what crypto/limits.h has under "connections of
 * clients". A client of HTTP/2 with open requests that answers PINGs is never cut for being idle.
 * Close: listeners first, idle connections at once, the others after their answers. */
#ifndef CONCLAVE_SERVER_H
#define CONCLAVE_SERVER_H

#include <uv.h>

#include "api/http/http.h"
#include "api/json.h"
#include "api/log.h"
#include "crypto/tls.h"

#define ROLE_ADMIN         "conclave-admin" /* OU of whoever may do what the socket may */
#define REQUEST_TIMEOUT_MS 15000            /* from the first byte of a request to its last */
#define IDLE_TIMEOUT_MS    120000           /* without any request */
#define WAIT_NOTICED_MS    1000             /* a request waits; its client's leaving is seen then */
#define PING_AFTER_MS      30000            /* silence while requests are open; then a PING */
#define PONG_TIMEOUT_MS    20000            /* silence after that */
#define STALL_TIMEOUT_MS   60000            /* answers wait, and the client takes none of them */
#define GRACE_MS           5000             /* for answers to a client that is trusted no more */
#define ANSWER_HEADERS_MAX 8

struct server;
struct exchange;

enum access { ACCESS_CLIENT, ACCESS_ADMIN };

struct route {
    enum http_method method; /* HEAD is answered wherever GET is */
    const char *path;        /* exact */
    enum access access;      /* the least that is needed */
    void (*handle)(struct exchange *x);
    bool streams; /* the body is given as it comes, see exchange.data */
};

struct caller {                   /* who asks; filled by the session and the RPC layer */
    bool admin;                   /* the unix socket's owner, an admin certificate */
    bool tls;                     /* the connection is TLS */
    bool by_certificate;          /* with a client certificate of ours */
    char name[NAME_MAX_SIZE + 1]; /* its CN; "" without */
    uint8_t key[KEY_DIGEST_SIZE]; /* of a manager's certificate */
    char from[64];                /* IP address; "socket"; "" not known */
    const char *barred;           /* why nothing is done for it; NULL: it is */
    /* by caller_identify (api/etcd/caller.h): */
    char user[USER_NAME_MAX + 1];   /* etcd's user; "" none */
    bool by_token;                  /* so told a token */
    enum err refused;               /* the token was bad: ERR_AUTH_TOKEN */
    uint8_t proof[AUTH_PROOF_SIZE]; /* of the password that the token was bought with */
    uint64_t auth_revision;         /* of the permissions the user was judged by */
};

struct exchange {
    void *ctx;                           /* of server_config */
    const struct route *route;           /* the one that was found */
    struct http_head head;               /* spans into the connection's bytes */
    struct span body;                    /* whole */
    void *stream;                        /* of the handler, while it streams */
    const struct http_header *headers;   /* further ones of the answer, in lower case, until then */
    unsigned n_headers;                  /* <= ANSWER_HEADERS_MAX */
    void (*drained)(struct exchange *x); /* room again, or gone; set by the handler */
    /* The request's body as it comes, for a route with `streams`: set by the handler, which is
     * called at the end of the head, with x->body empty. `end`: that was all (the bytes may be
     * none; it is said once). Bytes given are taken; they give the client room for more (flow
     * control). A handler that wants it to wait returns false: these bytes are taken too, but
     * nothing more is given until exchange_resume. May finish the exchange. NULL: the body is
     * dropped. */
    bool (*data)(struct exchange *x, struct span bytes, bool end);
    struct caller caller; /* who asks */
    bool http2;           /* trailers are possible */
    bool gone;            /* the client has left: answers go nowhere */
};

struct server_times { /* milliseconds; 0: what the names above say */
    uint64_t request; /* REQUEST_TIMEOUT_MS */
    uint64_t idle;    /* IDLE_TIMEOUT_MS */
    uint64_t wait;    /* WAIT_NOTICED_MS */
    uint64_t ping;    /* PING_AFTER_MS */
    uint64_t pong;    /* PONG_TIMEOUT_MS */
    uint64_t stall;   /* STALL_TIMEOUT_MS */
    uint64_t grace;   /* GRACE_MS */
};

struct server_config {
    uv_loop_t *loop;
    const struct log *log;      /* outlives the server */
    const struct route *routes; /* ends with path NULL */
    const struct route *rpc;    /* for POST with content-type application/grpc; refuses who is
                                   barred in its own words */
    /* For what `routes` has not: its route, by path and method, or NULL: 404. May itself be NULL.
     * With io_loops it is called on their threads. */
    const struct route *(*find)(const struct http_head *head);
    void *ctx; /* for the handlers and the function below */
    /* Is it a manager now, with this key? */
    bool (*is_member)(void *ctx, const char *node_id, const uint8_t key[KEY_DIGEST_SIZE]);
    struct server_times times; /* for tests; zeroed: as usual */
    /* Threads that do sockets, TLS and HTTP, so that only handlers run on `loop`; 0: all of it
     * runs there. Routes are looked up on these threads. */
    unsigned io_loops;
};

RESULT server_new(const struct server_config *config, struct server **out, struct why *why);
RESULT server_listen_unix(struct server *s, const char *path,
                          struct why *why); /* replaces a stale socket */
/* TCP; `tls` NULL: plaintext. Holds a reference of its own on nothing: server_credentials gives the
 * context. */
RESULT server_listen_tcp(struct server *s, const char *address, bool plaintext, struct why *why);
/* For connections from now on; takes over the caller's reference. `cluster_id` must be the O of
 * certificates; "": they are of another PKI, and nobody with one is an administrator. */
void server_credentials(struct server *s, struct tls_context *tls, const char *cluster_id);
/* Connections that are open are judged by the present context, too: whose certificate it does not
 * take gets nothing more, and ends (times.grace). ERR_NOMEM: not all were told; to be called again.
 */
RESULT server_review(struct server *s);
const char *
server_address(const struct server *s); /* of the TCP listener, as bound; "" when there is none */
void server_close_tcp(struct server *s);
void server_close(struct server *s, void (*closed)(void *ctx),
                  void *ctx); /* the server is gone then */
/* Before the end of the program: no thread of the server runs any more. */
void server_abandon(struct server *s);

/* What has come over the connections of one loop; the first is the handlers' own. */
struct server_figures {
    unsigned connections; /* now */
    uint64_t requests;    /* that reached a handler, or were refused by one */
};
bool server_figures(const struct server *s, unsigned loop, struct server_figures *out);

/* Answers. The exchange is gone after. `body` is copied. */
void exchange_answer(struct exchange *x, unsigned status, const char *content_type,
                     struct span body);
void exchange_json(struct exchange *x, struct buf *body); /* 200; wipes and frees body */
void exchange_error(struct exchange *x, enum err e, const char *text); /* text may be NULL */
/* A streamed answer: begin, then write while it is OK, wait for `drained` at ERR_BUSY, then end
 * (whole: false cuts the connection, so that the client sees that it is not). */
RESULT exchange_stream(struct exchange *x, const char *content_type);
RESULT exchange_write(struct exchange *x, struct span data);
/* Before an answer that may be large: OK, or ERR_BUSY: make it when `drained` comes. */
RESULT exchange_room(struct exchange *x);
void exchange_end(struct exchange *x, bool whole);
void exchange_resume(struct exchange *x); /* after `data` said false; `data` may be called inside */
/* Ends a streamed answer with trailers (HTTP/2; for HTTP/1.1 they are dropped). Without any
 * exchange_stream before it: an answer of trailers only. Header names in lower case. */
void exchange_trailers(struct exchange *x, const struct http_header *trailers, unsigned n);

#endif
