/* An I/O loop: a thread with a loop of its own that does sockets, TLS and HTTP for some of the
 * clients, so that the loop of the handlers has only their requests. The listeners stay with the
 * server; a connection that is accepted goes, as a descriptor, to the loop that has the fewest.
 * Nothing is shared but two mailboxes: nghttp2's sessions, TLS and buffers are the thread's alone,
 * the store and all handlers are the main loop's.
 *
 *   started -> running -> stopping (idle connections end, the others after their answers) -> ended
 *                  `-------------> abandoned (the program ends, nobody waits for it) ------> ended
 *
 * A connection is two halves: `struct session` on the thread, and `struct far` on the main loop,
 * made before it goes over, freed when the thread says NOTE_LEFT, which it does when the client has
 * left and all requests of it are settled. Requests are carried by ferry.c. Ends: NOTE_DONE is the
 * thread's last word; it is joined, and what its loop left is freed by the main loop. */
#ifndef CONCLAVE_IO_LOOP_H
#define CONCLAVE_IO_LOOP_H

#include "api/http/mailbox.h"
#include "api/http/session.h"

struct crossing;

struct io_loop {
    /* of the thread */
    struct lane lane;      /* the connections */
    uv_loop_t loop;        /* theirs */
    struct crossing *pool; /* settled crossings, for the next requests */
    unsigned pooled;       /* their number, at most STREAM_POOL_MAX */
    /* of both, each at its end */
    struct mailbox in;  /* to the thread */
    struct mailbox out; /* from it */
    /* of the main loop */
    struct server *server; /* the owner */
    uv_thread_t thread;    /* runs `loop` */
    unsigned number;       /* of the loop, from 0 on */
    unsigned connections;  /* that it has */
    uint64_t requests;     /* that came from it */
    struct note stop;      /* NOTE_STOP or NOTE_ABANDON */
    struct note done;      /* NOTE_DONE; the thread's to post */
    unsigned handles;      /* still to be closed on the main loop */
    bool ended;            /* the thread is joined */
};

/* The main loop's half of a connection. */
struct far {
    struct session session; /* what its requests belong to there; ferry_protocol */
    struct io_loop *io;     /* where it lives */
    uint64_t written;       /* bytes of its answers */
    uint64_t known;         /* of them, when there was last known to be room */
    int fd;                 /* with `adopt` */
    bool pipe;              /* the same */
    struct tls *tls;        /* the same */
    struct note adopt;      /* to the thread, once */
    struct note left;       /* from the thread, once */
};

enum note_kind {
    /* to an I/O loop */
    NOTE_ADOPT,    /* a connection; about: far */
    NOTE_REVIEW,   /* other roots are trusted; about: a context, to be released */
    NOTE_STOP,     /* no new requests */
    NOTE_ABANDON,  /* at once */
    NOTE_ANSWER,   /* about: crossing, as all that follow; the last: all of the answer */
    NOTE_BEGIN,    /* of a streamed answer */
    NOTE_WRITE,    /* a piece of it */
    NOTE_END,      /* the last; flag: whole */
    NOTE_TRAILERS, /* the last */
    NOTE_ASK,      /* is there room? answered by NOTE_ROOM, once there is */
    NOTE_TAKEN,    /* the answer to NOTE_FULL */
    /* from an I/O loop */
    NOTE_LEFT,    /* about: far; it is gone */
    NOTE_DONE,    /* the thread ends */
    NOTE_OPEN,    /* about: crossing, as all that follow; a request */
    NOTE_DATA,    /* a piece of its body; flag: the last */
    NOTE_FULL,    /* say NOTE_TAKEN when all of it so far is taken */
    NOTE_ROOM,    /* the client takes more */
    NOTE_GONE,    /* the client has left, or can't be given this answer */
    NOTE_RELEASE, /* the last about this crossing; spent, it goes back to the thread */
};

RESULT io_loop_start(struct server *s, unsigned number, struct io_loop **out, struct why *why);
RESULT io_loop_give(struct io_loop *io, const struct arrival *a, struct why *why);
RESULT io_loop_review(struct io_loop *io, struct tls_context *by); /* lane_review; ERR_NOMEM */
void io_loop_stop(struct io_loop *io);
void io_loop_abandon(struct io_loop *io); /* the thread has ended when it returns */
void io_loop_left(struct far *far);       /* the thread's: its session is freed */

#endif
