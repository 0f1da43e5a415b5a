/* The Watch service between its two files. One client's stream holds any number of watches, told
 * apart by ids; each is a watcher of the hub (store/watch.h), which all of this node share.
 *
 * A watch whose watcher has been woken stands in its stream's list of those that have something to
 * take; a stream that has such and room to send stands in the service's list. Once a loop turn,
 * after commands were applied, the service takes from both in turn, so that nobody is served twice
 * before the others, and sends what it took at once: nothing is queued here. A stream whose client
 * does not read leaves the list until it has drained. */
#ifndef CONCLAVE_WATCH_STREAM_H
#define CONCLAVE_WATCH_STREAM_H

#include "api/etcd/etcd.h"
#include "api/etcd/watch.h"

struct watch_stream;

struct watch {
    struct watcher *watcher; /* NULL: asked for what never was */
    struct watch_stream *stream;
    struct watch *next_same;    /* in the table of ids */
    struct watch *next, **link; /* in the list of those that have something to take */
    uint64_t auth_stamp;        /* of the permissions that it was judged by */
    int64_t id;                 /* the client's name for it */
    bool dirty;                 /* in that list */
    bool fragment, notify;      /* as asked */
    bool told;                  /* it got events since the last notices of progress */
};

struct watch_queue {
    struct watch *first, **last;
};

struct watch_stream {
    struct rpc *r;
    struct watches *all;
    struct watch_stream *next_all, **link_all; /* in the list of all */
    struct watch_stream *next, **link;         /* in the list of those that can be served */
    struct watch **ids;                        /* table: id -> watches; NULL: none yet */
    size_t buckets, n;                         /* of it; n: watches */
    struct watch_queue dirty;                  /* have something to take */
    int64_t next_id;                           /* that is given to a watch without one */
    uint64_t notices_ms;                       /* when the next notices of progress are due */
    unsigned notify;                           /* watches that want them */
    uint64_t auth_stamp; /* of the permissions by which all its watches were judged */
    bool queued;         /* in the list of those that can be served */
    bool busy;           /* its client must read first */
    bool progress;       /* it was asked how far it is */
};

/* The service of one node; lives as long as the API. */
struct watches {
    struct api *api;
    struct chore chore;                 /* one step a turn while there is something to do */
    bool stepping;                      /* it is with the manager */
    bool behind;                        /* the hub has watchers to catch up */
    struct watch_stream *streams;       /* all */
    struct watch_stream *first, **last; /* that can be served, in turn */
    uv_timer_t beat;                    /* housekeeping, while there are streams */
    bool beating;                       /* it runs */
    struct buf out;                     /* the answer that is being made */
};

/* watch.c */
void watch_end(struct watch *w);                      /* frees it */
void stream_fail(struct watch_stream *s, enum err e); /* the same, with its call */

/* watch_send.c. What sends may find the stream failed: false then, and it is gone. */
void watch_wake(void *watch);              /* there is something to take */
void watches_wake(struct watches *all);    /* there is something to do */
void stream_serve(struct watch_stream *s); /* it has something to take or say, and room */
void stream_unqueue(struct watch_stream *s);
bool watch_step(struct chore *chore);
void watch_beat(uv_timer_t *timer);
bool send_created(struct watch_stream *s, int64_t id);
bool send_refused(struct watch_stream *s, const char *reason); /* of a create */
bool send_canceled(struct watch_stream *s, int64_t id, const char *reason);
enum err watch_permitted(const struct rpc *r, const struct interval *in);
/* As etcd's clients know the error of a call, within a text. */
#define REASON_MAX 160
const char *watch_reason(enum err e, char room[REASON_MAX]);
uint64_t notices_due(const struct watches *all); /* from now */

#endif
