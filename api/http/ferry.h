/* A request that came in on the loop of one thread and is answered on another: to the session there
 * it is a request with a handler (the near half), to the handler here it is an exchange of a
 * protocol (the far half). Both keep their contracts (server.h, session.h); what passes between
 * them are notes (mailbox.h).
 *
 *   near: free -> open -----------------------------------------> settled -> free
 *                  | NOTE_OPEN, DATA..., FULL, ROOM, GONE  ^ the last of the answer  ^ spent
 *                  v                                       |                         |
 *   far:          handled -> (BEGIN, WRITE...) -> finished -'   (NOTE_RELEASE) ------'
 *
 * Who owns what: `near` is the thread's, `far` the main loop's; the head and the whole body of the
 * request are nobody's to change between NOTE_OPEN and the answer's last note, so the far half
 * reads them where they lie. After that note the far half touches nothing; after NOTE_RELEASE the
 * thread doesn't, until the crossing comes back with that note spent. So a note that is still under
 * way when the other half has finished always finds a crossing.
 *
 * Back-pressure. Of a body at most IO_GIVEN_MAX bytes pass before the handler has said (by
 * NOTE_TAKEN) that it does not want to wait: then the session holds the client. Of an answer
 * IO_WRITTEN_MAX bytes, or IO_ANSWERS_MAX of one connection, pass before the session is asked
 * whether the client takes them: until NOTE_ROOM the handler is told ERR_BUSY. And neither goes on
 * while IO_BACKLOG_MAX bytes wait for the other thread.
 *
 * Failure: a piece that there is no memory for makes the exchange `broken`: its handler is told
 * that the client is gone, and the client that the answer is not whole. */
#ifndef CONCLAVE_FERRY_H
#define CONCLAVE_FERRY_H

#include "api/http/io_loop.h"

struct near_half {
    struct exchange *x; /* the session's; NULL: settled */
    struct io_loop *io; /* whose thread it is */
    size_t given;       /* bytes of the body since NOTE_TAKEN */
    bool full;          /* NOTE_FULL is out: the session holds the client */
    bool busy;          /* the session has said so, and not `drained` since */
    bool asked;         /* NOTE_ROOM is owed */
    bool told;          /* NOTE_GONE is out */
    bool broken;        /* something of it was lost */
    struct note open, full_note, room, gone, release; /* NOTE_OPEN and so on */
};

struct far_half {
    struct request request;      /* what the handler has */
    struct far *connection;      /* whose it is */
    size_t written;              /* bytes of the answer since NOTE_ROOM */
    uint64_t asked_at;           /* connection->written at the last NOTE_ASK */
    bool asking;                 /* NOTE_ASK is out */
    bool held;                   /* the handler wants the body to wait */
    bool last_waits;             /* its end is in `waiting` */
    bool owes;                   /* NOTE_TAKEN, when nothing waits */
    bool finished;               /* the handler is done */
    struct buf waiting;          /* of the body, while it is held */
    struct note ask, taken, end; /* NOTE_ASK and so on */
};

struct crossing {
    struct near_half near;       /* the thread's */
    struct far_half far;         /* the main loop's */
    const struct exchange *seen; /* the near exchange, for the far half's eyes */
    enum standing standing;      /* of its session */
    struct crossing *next;       /* in the pool */
};

void ferry_take(struct request *r); /* on the thread: instead of its handler */
void ferry_near(struct crossing *c, struct note *note);
void ferry_far(struct crossing *c, struct note *note);
void ferry_returned(struct io_loop *io, struct crossing *c); /* settled; on the thread */
void ferry_free_pool(struct io_loop *io);

#endif
