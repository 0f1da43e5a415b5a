/* A channel: one TLS connection over one socket; frames in, bytes out. Private to raft/: members'
 * and newcomers' connections (peer_internal.h) and uplinks (session_out.c) are made of it.
 *
 * Memory: a channel lives in what its owner has made, which is freed by `gone`, when the loop is
 * done with its handles. Closing only marks; so whoever calls out looks at `closing` after. Every
 * open handle and request is counted in its home; the last one to go ends the home. */
#ifndef CONCLAVE_PEER_CHANNEL_H
#define CONCLAVE_PEER_CHANNEL_H

#include <uv.h>

#include "crypto/limits.h"
#include "crypto/tls.h"

#define SEND_AHEAD  (256 * KIB) /* sealed bytes under way on one connection */
#define RECORD_SIZE (16 * KIB)  /* plain bytes of a TLS record */

struct link;

/* Where channels live: what they share, and how many handles and requests of it the loop still has.
 */
struct channel_home {
    uv_loop_t *loop;
    char *read;                               /* every socket is read into this */
    size_t read_size;                         /* its bytes */
    unsigned handles;                         /* handles and requests not yet gone */
    void (*empty)(struct channel_home *home); /* the last one is gone */
};
void home_leave(struct channel_home *home); /* one is gone; the home may be, after */

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
    struct channel_home *home;
    const struct channel_events *on; /* the owner's */
    struct tls *tls;
    struct buf plain;         /* decrypted, not yet delivered: less than one frame between reads */
    struct buf wire;          /* sealed bytes of the write under way */
    size_t frame_max;         /* longest frame that is accepted now */
    unsigned handles;         /* of tcp and timer, how many are not closed */
    bool writing;             /* `write` is under way */
    bool open;                /* TLS is up */
    bool closing;             /* channel_close was called */
    bool lean;                /* one of many, and mostly idle: keeps no buffers */
    char remote[ADDRESS_MAX]; /* the other side, for sentences; empty before it is connected */
    struct link *counts;      /* whose bytes these are; NULL: not known */
};

/* Initialises *c (zeroed). On error nothing is left to close. */
RESULT channel_init(struct channel *c, struct channel_home *home, const struct channel_events *on,
                    struct tls_context *context, struct why *why);
void channel_start(struct channel *c); /* the socket is connected: reads, and begins with TLS */
void channel_accept_frames(struct channel *c, size_t frame_max);
void channel_sessions(struct channel *c); /* frames and queue are a session's from here on */
void channel_deadline(struct channel *c, uint64_t ms); /* `failed` with ERR_TIMEOUT then; 0: none */
RESULT channel_seal(struct channel *c, struct span plain,
                    struct why *why);  /* channel_flush sends it */
void channel_flush(struct channel *c); /* may call `failed` */
void channel_fail(struct channel *c, enum err e, const char *text);
void channel_close(struct channel *c); /* idempotent */
/* Seals a message if the queue of a session (either side's) takes it; else ERR_BUSY. Always with a
 * sentence. */
RESULT session_say(struct channel *c, uint8_t kind, struct span body, struct why *why);
static inline size_t channel_waiting(struct channel *c) {
    return c->wire.size + tls_pending(c->tls).size;
}

#endif
