/* The HTTP/1.1 server: listeners (a unix socket, TCP with or without TLS), sessions, and the table
 * of routes. A handler gets an exchange (one request) and answers it now or later with
 * exchange_answer, from the loop; the request's bytes stay where they are until then, even when the
 * client has gone meanwhile.
 *
 * Who asks is told by the connection: the unix socket's owner and holders of an admin certificate
 * may do everything; holders of a client certificate, and anybody on a plaintext port, what a
 * route's access says.
 *
 * Limits: CONNECTIONS_MAX connections, HTTP_HEAD_MAX and HTTP_BODY_MAX, a deadline for a request's
 * arrival and for idleness. Close: listeners first, idle connections at once, the others after
 * their answer. */
#ifndef CONCLAVE_SERVER_H
#define CONCLAVE_SERVER_H

#include <uv.h>

#include "api/http.h"
#include "api/json.h"
#include "api/log.h"
#include "crypto/tls.h"

#define ROLE_ADMIN         "conclave-admin" /* OU of whoever may do what the socket may */
#define REQUEST_TIMEOUT_MS 15000            /* from the first byte of a request to its last */
#define IDLE_TIMEOUT_MS    120000           /* without any request */

struct server;
struct exchange;

enum access { ACCESS_CLIENT, ACCESS_ADMIN };

struct route {
    enum http_method method; /* HEAD is answered wherever GET is */
    const char *path;        /* exact */
    enum access access;      /* the least that is needed */
    void (*handle)(struct exchange *x);
};

struct exchange {
    void *ctx;                           /* of server_config */
    const struct route *route;           /* the one that was found */
    struct http_head head;               /* spans into the connection's bytes */
    struct span body;                    /* whole */
    void *stream;                        /* of the handler, while it streams */
    void (*drained)(struct exchange *x); /* streaming: room again; set by the handler */
    bool gone;                           /* the client has left: answers go nowhere */
};

struct server_config {
    uv_loop_t *loop;
    const struct log *log;                             /* outlives the server */
    const struct route *routes;                        /* ends with path NULL */
    void *ctx;                                         /* for the handlers and the function below */
    bool (*is_member)(void *ctx, const char *node_id); /* is it in the node table now? */
};

RESULT server_new(const struct server_config *config, struct server **out, struct why *why);
RESULT server_listen_unix(struct server *s, const char *path,
                          struct why *why); /* replaces a stale socket */
/* TCP; `tls` NULL: plaintext. Holds a reference of its own on nothing: server_credentials gives the
 * context. */
RESULT server_listen_tcp(struct server *s, const char *address, bool plaintext, struct why *why);
/* For connections from now on; takes over the caller's reference. `cluster_id` must be the O of
 * certificates. */
void server_credentials(struct server *s, struct tls_context *tls, const char *cluster_id);
const char *
server_address(const struct server *s); /* of the TCP listener, as bound; "" when there is none */
void server_close_tcp(struct server *s);
void server_close(struct server *s, void (*closed)(void *ctx),
                  void *ctx); /* the server is gone then */

/* Answers. The exchange is gone after. `body` is copied. */
void exchange_answer(struct exchange *x, unsigned status, const char *content_type,
                     struct span body);
void exchange_json(struct exchange *x, struct buf *body); /* 200; wipes and frees body */
void exchange_error(struct exchange *x, enum err e, const char *text); /* text may be NULL */
/* A streamed answer: begin, then write while it is OK, wait for `drained` at ERR_BUSY, then end
 * (whole: false cuts the connection, so that the client sees that it is not). */
RESULT exchange_stream(struct exchange *x, const char *content_type);
RESULT exchange_write(struct exchange *x, struct span data);
void exchange_end(struct exchange *x, bool whole);

#endif
