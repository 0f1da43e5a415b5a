/* One accepted connection: bytes in and out over a unix socket or TCP, plain or TLS, with bounded
 * buffers and one timer. It knows no protocol: whoever owns it gets `data` when there are new bytes
 * in `in`, and writes with conn_write and conn_flush. HTTP/1.1 (server.c) stands on it; HTTP/2
 * will.
 *
 *   handshake (TLS only) -> open -> finishing (flushes, then closes) -> closed
 *
 * Happy path: conn_accept -> opened -> data ... conn_write, conn_flush ... -> drained. Failure of
 * any kind, the peer's end and the timer all end in conn_close. Close: `closed` is the last call,
 * when both handles are gone; the memory is freed right after it. Callbacks come from the loop, but
 * conn_close may be called from one. */
#ifndef CONCLAVE_CONN_H
#define CONCLAVE_CONN_H

#include <uv.h>

#include "crypto/tls.h"

#define CONN_IN_MAX  (HTTP_HEAD_MAX + HTTP_BODY_MAX + 64 * KIB) /* received, not yet consumed */
#define CONN_OUT_MAX (16 * MIB)                                 /* to be sent; past it ERR_BUSY */

struct conn;

struct conn_events {
    void (*opened)(struct conn *c);  /* the handshake is over, or there is none */
    void (*data)(struct conn *c);    /* `in` has grown */
    void (*drained)(struct conn *c); /* everything written has been given to the kernel */
    void (*expired)(struct conn *c); /* the time of conn_timeout is over */
    void (*closed)(struct conn *c, const char *reason); /* "" when nobody is to blame */
};

struct conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    uv_timer_t timer;                 /* conn_timeout */
    uv_write_t write;                 /* the one write under way */
    const struct conn_events *events; /* the owner's */
    void *ctx;                        /* the owner's */
    struct tls *tls;                  /* NULL: plain */
    struct buf in;                    /* received, in clear; the owner consumes with conn_consume */
    struct buf out;                   /* to be sent, plain connections only (TLS keeps its own) */
    struct buf sending;               /* with the kernel */
    struct x509_subject peer;         /* of the peer's certificate; empty: it gave none */
    bool open, writing, reading, finishing, closing; /* where it is in its life */
    int handles;                                     /* still to be closed */
    char reason[WHY_MAX];                            /* why it was closed */
};

/* Accepts from `listener`. `tls` may be NULL. On failure the connection is gone and nothing is
 * called. */
RESULT conn_accept(uv_stream_t *listener, struct tls_context *tls, const struct conn_events *events,
                   void *ctx, struct conn **out, struct why *why);
void conn_consume(struct conn *c, size_t size); /* drops the first bytes of `in` */
void conn_pause(struct conn *c);                /* `in` stays as it is until conn_resume */
void conn_resume(struct conn *c);
RESULT conn_write(struct conn *c, struct span data); /* copies */
RESULT conn_flush(struct conn *c);
void conn_finish(struct conn *c); /* close once all is flushed */
void conn_close(struct conn *c, const char *reason);
void conn_timeout(struct conn *c, uint64_t after_ms); /* 0: none; replaces the last */
size_t conn_queued(const struct conn *c);             /* bytes written, not yet with the kernel */

#endif
