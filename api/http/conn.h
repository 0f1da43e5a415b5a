/* One accepted connection: bytes in and out over a unix socket or TCP, plain or TLS, with bounded
 * buffers and one timer. It knows no protocol: whoever owns it gets `data` when there are new bytes
 * in `in`, and writes with conn_write. What all connections of a loop share is a struct conns: the
 * buffer that the kernel fills, and the list of those that have something to send. They are flushed
 * once a loop turn, right before the loop could sleep (its prepare phase): one write a connection,
 * however many answers it holds.
 *
 *   handshake (TLS only) -> open -> finishing (flushes) -> lingering -> closed
 *
 * Happy path: conn_accept -> opened -> data ... conn_write -> (the turn's end) fill -> drained.
 * Failure of any kind, the peer's end, the timer and a peer that takes nothing for conns.stall_ms
 * all end in conn_close. Close: `closed` is the last call, when both handles are gone; the memory
 * is freed right after it. Callbacks come from the loop, but conn_close may be called from one. A
 * connection that is finished lingers until the peer has hung up, or LINGER_MS: closing with bytes
 * unread would take back from it what it has not yet read of ours. */
#ifndef CONCLAVE_CONN_H
#define CONCLAVE_CONN_H

#include <uv.h>

#include "crypto/tls.h"

#define LINGER_MS   1000
#define CONN_IN_MAX (HTTP_HEAD_MAX + HTTP_BODY_MAX + MIB) /* received, not yet consumed */

struct conn;

struct conn_events {
    void (*opened)(struct conn *c);  /* the handshake is over, or there is none */
    void (*data)(struct conn *c);    /* `in` has grown */
    void (*fill)(struct conn *c);    /* the turn's end: write what is to go with it; may be NULL */
    void (*drained)(struct conn *c); /* everything written has been given to the kernel */
    void (*expired)(struct conn *c); /* the time of conn_timeout is over */
    void (*closed)(struct conn *c, const char *reason); /* "" when nobody is to blame */
};

/* What the connections of one loop share. Outlives them. */
struct conns {
    uv_loop_t *loop;      /* the owner's */
    uv_prepare_t prepare; /* the turn's end; runs while something is touched */
    uv_idle_t idle;       /* keeps the loop from sleeping while more is due */
    struct conn *touched; /* have something to send */
    uint8_t *scratch;     /* what the kernel fills; owned */
    uint64_t stall_ms;    /* for a peer to take a byte of what waits for it */
    union {               /* takes the connection there is no memory for */
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } spare;
    bool spare_used;                            /* it is being closed */
    uv_stream_t *unaccepted[2];                 /* listeners that wait for it: a pipe, a TCP one */
    void (*gone)(struct conns *all, void *ctx); /* conns_close */
    void *ctx;
    int handles; /* still to be closed */
};

struct conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct conns *all;                /* of its loop */
    struct conn *next, **link;        /* in all->touched; link NULL: not in it */
    uv_timer_t timer;                 /* conn_timeout and stalls */
    uint64_t deadline_ms;             /* of conn_timeout, loop time; 0: none */
    uint64_t end_ms;                  /* of conn_end; 0: none */
    uint64_t moved_ms;                /* when the peer last took bytes, while `writing` */
    size_t left;                      /* bytes of the write under way that were left then */
    uv_write_t write;                 /* the one write under way */
    const struct conn_events *events; /* the owner's */
    void *ctx;                        /* the owner's */
    struct tls *tls;                  /* NULL: plain */
    struct buf in;                    /* received, in clear; the owner consumes with conn_consume */
    struct buf out;                   /* to be sent, in clear */
    struct buf sending;               /* with the kernel */
    bool certified;                   /* the peer gave a certificate */
    struct x509_subject peer;         /* of it; empty: of no use to us */
    bool open, writing, reading, finishing, lingering, closing; /* where it is in its life */
    int handles;                                                /* still to be closed */
    char reason[WHY_MAX];                                       /* why it was closed */
};

RESULT conns_open(uv_loop_t *loop, uint64_t stall_ms, struct conns *out, struct why *why);
void conns_close(struct conns *all, void (*gone)(struct conns *all, void *ctx), void *ctx);

/* Accepts from `listener`. `tls` may be NULL. On failure the connection is gone and nothing is
 * called. What is announced must be accepted, or the listener falls silent: conn_refuse does it
 * without any memory. */
RESULT conn_accept(struct conns *all, uv_stream_t *listener, struct tls_context *tls,
                   const struct conn_events *events, void *ctx, struct conn **out, struct why *why);
void conn_refuse(struct conns *all, uv_stream_t *listener);
/* One that was accepted elsewhere. Takes over `fd` and `tls` (NULL: plain), on failure too. */
RESULT conn_adopt(struct conns *all, int fd, bool pipe, struct tls *tls,
                  const struct conn_events *events, void *ctx, struct conn **out, struct why *why);
void conn_consume(struct conn *c, size_t size); /* drops the first bytes of `in` */
void conn_pause(struct conn *c);                /* `in` stays as it is until conn_resume */
void conn_resume(struct conn *c);
RESULT conn_write(struct conn *c, struct span data); /* copies; goes at the turn's end */
void conn_touch(struct conn *c);  /* calls `fill` and `drained` at the turn's end */
void conn_finish(struct conn *c); /* close once all is flushed */
void conn_close(struct conn *c, const char *reason);
void conn_timeout(struct conn *c, uint64_t after_ms); /* 0: none; replaces the last; cheap */
void conn_end(struct conn *c, uint64_t after_ms);     /* closes it then, whatever it does */
size_t conn_queued(const struct conn *c);             /* bytes written, not yet with the kernel */

#endif
