/* A call between its carrier (grpc.c or gateway.c: bytes, frames, JSON, one exchange) and its
 * method (rpc.h: messages). The carrier begins it and hands over messages as bytes; call.c decodes
 * them into the call's arena, asks who calls, counts, watches the deadline, and gives what the
 * method answers back to the carrier as bytes.
 *
 *   open -> finished (by the method) -> freed
 *     \---> aborted (client gone, deadline, no leader) -> finished -> freed
 *
 * A large unary answer is written piece by piece as the client takes it (`tail`); its call is then
 * finished, and freed when the last piece is out.
 *
 * Invariant: `x` is there until the call is finished or aborted, and the exchange is answered
 * exactly once, by the carrier's `finish` or `answer`. A method may finish its call inside any
 * callback: the memory goes when the callback has returned (`busy`). Every function here that calls
 * a method returns whether the call still goes on; when not, its pointer is dead. */
#ifndef CONCLAVE_CALL_H
#define CONCLAVE_CALL_H

#include "api/rpc/arena.h"
#include "api/rpc/rpc.h"

#define RPC_CODES     17  /* gRPC's status codes */
#define RPC_BUCKETS   11  /* of the histogram of times */
#define WHEEL_SLOTS   256 /* of the wheel of deadlines */
#define WHEEL_TICK_MS 16

enum rpc_code { /* those that are not in the table of errors */
                CODE_OK = 0,
                CODE_CANCELLED = 1,
                CODE_UNKNOWN = 2,
                CODE_DEADLINE = 4,
                CODE_EXHAUSTED = 8,
                CODE_UNIMPLEMENTED = 12,
                CODE_INTERNAL = 13,
                CODE_UNAVAILABLE = 14,
};

struct rpc_call;

/* How a call ended. */
struct outcome {
    unsigned code;    /* gRPC's */
    const char *text; /* never NULL */
    const char *name; /* of the error, for our own command line; NULL: none */
};

/* How answers travel. All of these are called with call->x there. */
struct carrier {
    /* A unary answer, and OK: now, or begun and left to call_tail. */
    void (*answer)(struct rpc_call *c, struct span message);
    RESULT (*send)(struct rpc_call *c, struct span message); /* one of a stream; as rpc_send */
    void (*finish)(struct rpc_call *c, const struct outcome *o);
    void (*room)(struct rpc_call *c); /* the client takes answers again, after ERR_BUSY */
};

/* A method and its figures. */
struct served {
    const struct method *method;
    uint64_t started, received, sent;  /* calls, messages */
    uint64_t handled[RPC_CODES];       /* calls, by how they ended */
    uint64_t buckets[RPC_BUCKETS + 1]; /* calls, by time; the last is everything above */
    uint64_t sum_ns;                   /* of those times */
};

struct rpc_call {
    struct rpc rpc; /* what the method sees; first, so that the one leads to the other */
    const struct carrier *carrier;
    struct exchange *x;               /* NULL: answered, nothing can be sent */
    struct rpcs *rpcs;                /* all calls */
    struct served *served;            /* the method */
    struct rpc_call *next, **link;    /* in the list of all */
    struct rpc_call *later, **sooner; /* in the slot of the wheel */
    uint64_t started_ns;              /* on uv_hrtime's clock */
    size_t size;                      /* bytes of requests so far */
    struct span token;                /* of the user; lies in the exchange's head */
    unsigned busy;                    /* callbacks of the method on the stack */
    bool finished;                    /* the method is through with it */
    bool given;                       /* a message was handed over */
    bool ended;                       /* the method was told that the client sends no more */
    bool ending;                      /* the carrier knows it */
    bool blocked;                     /* ERR_BUSY was said, room not yet */
    bool streaming;                   /* the carrier has begun its answer */
    struct buf tail;                  /* what is left to write of a large answer... */
    size_t tail_at;                   /* ...from here on */
    struct buf in;                    /* the carrier's: bytes that are no whole message yet */
    unsigned depth;                   /* the gateway's: open brackets in them */
    bool named;                       /* the gateway's: errors are given with their names */
    bool in_text, escaped;            /* the gateway's: the last byte was within a text, a '\\' */
    struct arena arena;               /* last: most of the size */
};

/* All calls of a node. */
struct rpcs {
    struct api *api;                     /* the owner */
    uv_loop_t *loop;                     /* the owner's */
    struct served *served;               /* all methods */
    unsigned n;                          /* of them */
    uint16_t *index;                     /* path hash -> served + 1; 0: none */
    unsigned index_size;                 /* a power of two */
    struct route *routes;                /* the gateway's, then the others */
    uint16_t *routed;                    /* route -> served */
    struct rpc_call *calls;              /* under way */
    unsigned live;                       /* their number, at most RPC_CALLS_MAX */
    struct rpc_call *pool;               /* for the next ones, by `next` */
    unsigned pooled;                     /* in it */
    struct rpc_call *wheel[WHEEL_SLOTS]; /* calls with a deadline, by deadline */
    uint64_t wheel_tick;                 /* the last one that was looked at */
    unsigned timed;                      /* calls in it */
    uv_timer_t timer;                    /* runs while there are any */
    uv_timer_t leaderless;               /* to the end of patience with having no leader */
    uint64_t standby_ms;                 /* when the next field was found out */
    bool standby;                        /* this member is no voter */
    struct buf out;                      /* answers are encoded here */
    struct buf json;                     /* and here for the gateway */
    uint64_t sent_bytes, received_bytes; /* gRPC's, of clients */
    uint64_t slow_second;                /* of the last slow calls that were told */
    unsigned slow_told, slow_untold;     /* in that second */
    unsigned handles;                    /* timers that are not closed yet */
};

/* --- call.c --------------------------------------------------------------------------------- */

/* NULL: no memory, or too many calls at once; nothing was answered. */
struct rpc_call *call_begin(struct exchange *x, struct served *s, const struct carrier *carrier);
/* After the metadata is known: may this call be made, here and now? */
bool call_admit(struct rpc_call *c);
bool call_message(struct rpc_call *c, struct span bytes); /* one whole message */
bool call_ended(struct rpc_call *c);                      /* the client sends no more */
void call_room(struct rpc_call *c);                       /* after ERR_BUSY */
/* Answers the client (unless it has left) and takes the call away from the method. */
bool call_abort(struct rpc_call *c, const struct outcome *o);
bool call_gone(struct rpc_call *c); /* the client has left */
/* For the carrier's `answer`: copies what is to be written piece by piece. ERR_NOMEM. */
RESULT call_tail(struct rpc_call *c, struct span bytes);
/* The carrier itself refuses it, before the method has seen anything, or against its will. */
bool call_refuse(struct rpc_call *c, unsigned code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- deadline.c ----------------------------------------------------------------------------- */

void deadline_add(struct rpc_call *c); /* by rpc.deadline_ms; 0: none */
void deadline_remove(struct rpc_call *c);
void deadline_tick(uv_timer_t *timer);

/* --- metadata.c ----------------------------------------------------------------------------- */

/* Takes what the headers say about the call; a refused header ends it: false. */
bool metadata_read(struct rpc_call *c);

/* --- registry.c ----------------------------------------------------------------------------- */

struct served *served_find(const struct rpcs *r, struct span path); /* by gRPC's path; NULL */
bool service_known(const struct rpcs *r, struct span service);      /* "etcdserverpb.KV" */
struct served *served_of(const struct rpcs *r, const struct route *route);

/* --- figures.c ------------------------------------------------------------------------------ */

void figures_done(struct rpc_call *c, unsigned code); /* counts it, and tells of a slow one */

/* --- grpc.c, gateway.c ---------------------------------------------------------------------- */

void grpc_handle(struct exchange *x);
void gateway_handle(struct exchange *x);

#endif
