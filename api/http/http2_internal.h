/* What http2.c (the session: frames, floods, time) and http2_stream.c (one request: head, body,
 * answer) share. A stream here is a request of a client with what nghttp2 needs to know of it.
 *
 *   head -> body (whole, or given as it comes) -> at work -> answered
 *
 * It goes back to the pool when two things have happened, in either order: its handler has
 * `finished` it, and nghttp2 has `closed` it. Until the first its bytes stay; until the second its
 * answer is being sent. */
#ifndef CONCLAVE_HTTP2_INTERNAL_H
#define CONCLAVE_HTTP2_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "api/http/session.h"

/* Memory that is kept hides from the address sanitizer who uses it too late. */
#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_MEMORY 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS_MEMORY 0
#endif
#endif
#ifndef KEEPS_MEMORY
#define KEEPS_MEMORY 1
#endif

#define PSEUDO_MAX   5 /* :method, :scheme, :authority, :path; and one :authority as host */
#define TRAILERS_MAX 8

/* What the HTTP/2 sessions of a server share. */
struct http2_setup {
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *options;
    nghttp2_mem memory; /* nghttp2's, from http2_memory.c */
    struct memory_pool *kept;
    struct stream *pool; /* finished streams, by `next` */
    unsigned pooled;     /* their number, at most STREAM_POOL_MAX */
};

struct http2 {
    struct session *session;
    nghttp2_session *frames;
    struct stream *first, **end; /* all streams; who begins to wait for room goes to the end */
    unsigned live;               /* streams that a handler has not finished */
    unsigned waiting;            /* streams whose source waits for room */
    size_t answers;              /* bytes of answers, not yet frames */
    size_t bodies;               /* bytes of request bodies held */
    unsigned control;            /* frames since control_ms without a request or an answer */
    uint64_t control_ms;         /* when counting began */
    uint64_t heard_ms;           /* when the client last sent anything */
    uint64_t asked_ms;           /* when it was last sent a PING, unanswered since; 0: it was not */
    uint64_t used_ms;            /* when there was last a stream */
    uint64_t moved_ms;           /* when a byte of an answer last left */
    bool stopping;               /* GOAWAY is said; it ends with its last stream */
    bool leaving;                /* the connection is gone, the streams are being told */
    bool blocked;                /* frames wait for the kernel to take those before them */
    bool starved;                /* reading is paused: the client takes no answers */
    bool calm;                   /* it was told to be calm: its frames are heard no more */
};

enum pseudo { PSEUDO_METHOD = 1, PSEUDO_SCHEME = 2, PSEUDO_PATH = 4, PSEUDO_AUTHORITY = 8 };

struct stream {
    struct request request;      /* first */
    struct http2 *h;             /* its session */
    struct stream *next, **link; /* in the session's list */
    int32_t id;
    uint64_t started_ms; /* its first frame */
    uint64_t moved_ms;   /* when a byte of its answer last left, or the first began to wait */
    nghttp2_rcbuf *kept[2 * (HTTP_HEADERS_MAX + PSEUDO_MAX)]; /* what the head's spans lie in */
    unsigned n_kept;
    size_t head_size;    /* of names and values */
    unsigned pseudo;     /* enum pseudo, those seen */
    enum err refused;    /* the head is malformed, too large, ...: answered at its end */
    const char *refusal; /* the sentence of that */
    struct buf body;     /* whole; or what came while the handler wanted it to wait */
    uint64_t received;   /* bytes of the body */
    size_t owed;         /* bytes given, but not yet given back as window */
    struct buf out;      /* the answer's body, from out_at on; each piece once a frame */
    size_t out_at;
    struct buf trailers; /* of the answer, each name and value as a block */
    unsigned n_trailers;
    bool headed;     /* the head is complete */
    bool dispatched; /* a handler has had it */
    bool feeds;      /* the body is given as it comes */
    bool ended;      /* the client has sent all */
    bool end_given;  /* and the handler knows */
    bool held;       /* the handler wants the body to wait */
    bool answering;  /* the answer's head is with nghttp2 */
    bool deferred;   /* nghttp2 was told that there is nothing to send now */
    bool complete;   /* `out` and `trailers` are all that there will be */
    bool waits;      /* its source does, for room */
    bool finished;   /* by its handler */
    bool closed;     /* by nghttp2 */
    bool calling;    /* its handler is on the stack: it is not freed under it */
};

/* --- http2_stream.c --- */

struct stream *stream_new(struct http2 *h, int32_t id); /* NULL: no memory */
void stream_header(struct stream *st, nghttp2_rcbuf *name, nghttp2_rcbuf *value);
void stream_head_end(struct stream *st); /* the head is complete */
void stream_bytes(struct stream *st, struct span bytes);
void stream_end(struct stream *st);    /* the client has sent all */
void stream_closed(struct stream *st); /* nghttp2 knows it no more; it may be freed */
void stream_reset(struct stream *st, uint32_t code);
void stream_too_slow(struct stream *st); /* its body did not come in time */
void stream_free_pool(struct http2_setup *setup);
/* nghttp2's callbacks for what an answer's body is and how it is sent. */
ssize_t stream_read(nghttp2_session *frames, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                    nghttp2_data_source *source, void *ctx);
int stream_send(nghttp2_session *frames, nghttp2_frame *frame, const uint8_t *head, size_t size,
                nghttp2_data_source *source, void *ctx);
/* The answers of server.h. */
void stream_answer(struct exchange *x, unsigned status, const char *content_type, struct span body);
RESULT stream_begin(struct exchange *x, const char *content_type);
RESULT stream_write(struct exchange *x, struct span data);
RESULT stream_room(struct exchange *x);
void stream_finish(struct exchange *x, bool whole);
void stream_resume(struct exchange *x);
void stream_trailers(struct exchange *x, const struct http_header *trailers, unsigned n);

void stream_wake(struct stream *st); /* there is room again for its answer */
bool stream_has_room(const struct stream *st);
bool stream_stalls(const struct stream *st); /* an answer waits for the client to give window */

/* --- http2_memory.c --- */

/* An allocator for nghttp2 that keeps what it frees, up to MEMORY_POOL_MAX. It outlives all that is
 * made with it. */
struct memory_pool *memory_pool_new(nghttp2_mem *out); /* NULL: no memory */
void memory_pool_free(struct memory_pool *pool);

/* --- http2.c --- */

void http2_maybe_free(struct http2 *h); /* when the client has left and all is answered */

#endif
