/* The Watch service: what goes to clients. Responses are written as bytes (pb.h): events come from
 * the state straight into the answer, and the fields that are known only afterwards (the header's
 * revision, whether it is a fragment) follow them: protobuf's fields may come in any order. */
#include "api/etcd/watch_stream.h"

#include <stdio.h>

#include "api/etcd/caller.h"
#include "store/auth.h"

#define BEAT_MS   1000      /* between looks at permissions and notices */
#define OUT_KEEP  (2 * MIB) /* of the answer's memory, from one to the next */
#define TAKES_MAX 16        /* of one stream in one go */
#define JUDGE_MAX 16384 /* watches whose permission is looked at in one beat; one stream may pass */

/* Fields of etcdserverpb.WatchResponse and of mvccpb.Event. */
enum field {
    F_HEADER = 1,
    F_WATCH_ID = 2,
    F_CREATED = 3,
    F_CANCELED = 4,
    F_COMPACT_REVISION = 5,
    F_CANCEL_REASON = 6,
    F_FRAGMENT = 7,
    F_EVENTS = 11,
};
enum event_field { F_TYPE = 1, F_KV = 2, F_PREV_KV = 3 };

/* --- who has something to take ---------------------------------------------------------------- */

void watches_wake(struct watches *all) {
    if (all->stepping) return;
    all->stepping = true;
    manager_chore(all->api->manager, &all->chore);
}

void stream_serve(struct watch_stream *s) {
    struct watches *all = s->all;
    if (s->busy || s->queued || (s->dirty.first == NULL && !s->progress)) return;
    s->queued = true;
    s->next = NULL;
    s->link = all->last;
    *all->last = s;
    all->last = &s->next;
    watches_wake(all);
}

void stream_unqueue(struct watch_stream *s) {
    if (!s->queued) return;
    s->queued = false;
    *s->link = s->next;
    if (s->next != NULL) s->next->link = s->link;
    if (s->all->last == &s->next) s->all->last = s->link;
}

static void mark(struct watch *w) {
    struct watch_queue *q = &w->stream->dirty;
    if (w->dirty) return;
    w->dirty = true;
    w->next = NULL;
    w->link = q->last;
    *q->last = w;
    q->last = &w->next;
}

static void unmark(struct watch *w) {
    struct watch_queue *q = &w->stream->dirty;
    w->dirty = false;
    *w->link = w->next;
    if (w->next != NULL) w->next->link = w->link;
    if (q->last == &w->next) q->last = w->link;
}

void watch_wake(void *watch) {
    struct watch *w = watch;
    mark(w);
    stream_serve(w->stream);
}

/* --- answers ---------------------------------------------------------------------------------- */

static struct buf *begin(struct watch_stream *s) {
    struct buf *out = &s->all->out;
    if (out->room > OUT_KEEP) buf_free(out);
    buf_clear(out);
    return out;
}

/* What was made, unless that failed. */
static bool post(struct watch_stream *s, enum err made) {
    enum err e = made == OK ? rpc_send_bytes(s->r, buf_span(&s->all->out)) : made;
    if (e == OK) return true;
    if (e != ERR_BUSY && e != ERR_CLOSED) {
        stream_fail(s, e);
        return false;
    }
    s->busy = true; /* closed: `gone` follows */
    stream_unqueue(s);
    return true;
}

static enum err add_answer(struct watch_stream *s, struct buf *out, int64_t id, uint64_t revision) {
    TRY(etcd_header(out, F_HEADER, s->r->api, revision));
    return pb_number(out, F_WATCH_ID, (uint64_t)id);
}

bool send_created(struct watch_stream *s, int64_t id) {
    struct buf *out = begin(s);
    enum err e = add_answer(s, out, id, 0);
    if (e == OK) e = pb_number(out, F_CREATED, true);
    return post(s, e);
}

bool send_canceled(struct watch_stream *s, int64_t id, const char *reason) {
    struct buf *out = begin(s);
    enum err e = add_answer(s, out, id, 0);
    if (e == OK) e = pb_number(out, F_CANCELED, true);
    if (e == OK && reason != NULL) e = pb_bytes(out, F_CANCEL_REASON, span_str(reason));
    return post(s, e);
}

bool send_refused(struct watch_stream *s, const char *reason) {
    struct buf *out = begin(s);
    enum err e = add_answer(s, out, -1, 0);
    if (e == OK) e = pb_number(out, F_CREATED, true);
    if (e == OK) e = pb_number(out, F_CANCELED, true);
    if (e == OK) e = pb_bytes(out, F_CANCEL_REASON, span_str(reason));
    return post(s, e);
}

/* Of a watch whose events were compacted. As etcd's, its header says no revision. */
static bool send_compacted(struct watch_stream *s, int64_t id) {
    const struct manager *m = s->r->api->manager;
    uint64_t compacted = store_compacted(m->store);
    struct buf *out = begin(s);
    size_t mark;
    enum err e = pb_open(out, F_HEADER, &mark);
    if (e == OK) e = pb_number(out, 1, etcd_cluster_id(s->r->api));
    if (e == OK) e = pb_number(out, 2, m->self.raft_id);
    if (e == OK) e = pb_number(out, 4, m->term);
    if (e == OK) e = pb_close(out, mark);
    if (e == OK) e = pb_number(out, F_WATCH_ID, (uint64_t)id);
    if (e == OK) e = pb_number(out, F_CANCELED, true);
    if (e == OK) e = pb_number(out, F_COMPACT_REVISION, compacted == 0 ? UINT64_MAX : compacted);
    return post(s, e);
}

static bool send_progress(struct watch_stream *s, int64_t id) {
    struct buf *out = begin(s);
    return post(s, add_answer(s, out, id, 0));
}

/* --- permissions ------------------------------------------------------------------------------ */

enum err watch_permitted(const struct rpc *r, const struct interval *in) {
    return caller_may(r->api, &r->caller, PERMISSION_READ, in);
}

const char *watch_reason(enum err e, char room[REASON_MAX]) {
    static const struct {
        int code;
        const char *name;
    } codes[] = {{3, "InvalidArgument"},
                 {7, "PermissionDenied"},
                 {8, "ResourceExhausted"},
                 {16, "Unauthenticated"}};
    const char *name = "Unknown";
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
        if (codes[i].code == err_grpc(e)) name = codes[i].name;
    (void)snprintf(room, REASON_MAX, "rpc error: code = %s desc = %s", name, err_text(e));
    return room;
}

/* Still permitted? Else the watch is to be cancelled. */
static enum err judge(struct watch *w) {
    struct interval in;
    if (w->watcher == NULL) return OK;
    watcher_interval(w->watcher, &in);
    return etcd_may_still(w->stream->r, &in, &w->auth_stamp);
}

static bool expel(struct watch *w, enum err e) {
    struct watch_stream *s = w->stream;
    char room[REASON_MAX];
    int64_t id = w->id;
    watch_end(w);
    return send_canceled(s, id, watch_reason(e, room));
}

/* --- taking ----------------------------------------------------------------------------------- */

static enum err add_event(void *ctx, const struct watch_event *e) {
    struct buf *out = ctx;
    size_t mark;
    TRY(pb_open(out, F_EVENTS, &mark));
    TRY(pb_number(out, F_TYPE, e->deleted));
    TRY(pb_kv(out, F_KV, &e->kv, true));
    if (e->has_prev) TRY(pb_kv(out, F_PREV_KV, &e->prev, true));
    return pb_close(out, mark);
}

static bool lose(struct watch *w) {
    struct watch_stream *s = w->stream;
    int64_t id = w->id;
    watch_end(w);
    return send_compacted(s, id);
}

/* Once more in turn, behind the others, when there is more. */
static void requeue(struct watch *w, bool more) {
    unmark(w);
    if (more) mark(w);
}

static bool take(struct watch *w, size_t *bytes) {
    struct watch_stream *s = w->stream;
    struct watch_taken taken;
    enum err e = judge(w);
    if (e != OK) return expel(w, e);
    if (w->watcher == NULL) return lose(w);
    struct buf *out = begin(s);
    e = watcher_take(w->watcher, WATCH_BATCH_BYTES, w->fragment, add_event, out, &taken);
    if (e == ERR_COMPACTED) return lose(w);
    if (e != OK) return post(s, e);
    requeue(w, taken.more);
    if (taken.n == 0) return true;
    w->told = true;
    *bytes += out->size;
    e = add_answer(s, out, w->id, taken.revision);
    if (e == OK) e = pb_number(out, F_FRAGMENT, taken.fragment);
    return post(s, e);
}

/* Has it given all that happened up to now? */
static bool is_current(const struct watch *w) {
    const struct store *store = w->stream->r->api->manager->store;
    return w->watcher != NULL && watcher_synced(w->watcher) &&
           watcher_revision(w->watcher) == store_revision(store);
}

static bool all_current(const struct watch_stream *s) {
    for (size_t i = 0; i < s->buckets; i++)
        for (const struct watch *w = s->ids[i]; w != NULL; w = w->next_same)
            if (!is_current(w)) return false;
    return true;
}

static bool answer_progress(struct watch_stream *s) {
    if (!s->progress || s->busy || s->dirty.first != NULL || !all_current(s)) return true;
    s->progress = false;
    return send_progress(s, -1);
}

/* Some of what the stream has to take; false: it is gone. */
static bool serve(struct watch_stream *s, unsigned *takes, size_t *bytes) {
    for (unsigned i = 0; i<TAKES_MAX && * takes> 0 && !s->busy && s->dirty.first != NULL; i++) {
        --*takes;
        if (!take(s->dirty.first, bytes)) return false;
    }
    return answer_progress(s);
}

static void serve_all(struct watches *all) {
    unsigned takes = WATCH_TURN_MAX;
    size_t bytes = 0;
    while (all->first != NULL && takes > 0 && bytes < WATCH_TURN_BYTES) {
        struct watch_stream *s = all->first;
        stream_unqueue(s);
        if (serve(s, &takes, &bytes) && s->dirty.first != NULL) stream_serve(s);
    }
}

bool watch_step(struct chore *chore) {
    struct watches *all =
        (struct watches *)(void *)((char *)chore - offsetof(struct watches, chore));
    if (all->api->hub != NULL) {
        all->behind = watch_hub_step(all->api->hub);
        serve_all(all);
        if (all->behind || all->first != NULL) return true;
    }
    all->stepping = false;
    return false;
}

/* --- housekeeping ----------------------------------------------------------------------------- */

uint64_t notices_due(const struct watches *all) {
    uint64_t every = all->api->progress_ms;
    return uv_now(all->beat.loop) + every + randombytes_uniform((uint32_t)(every / 10) + 1);
}

/* The same for all watches of a stream, until `f` says that the stream is gone. */
static bool each_watch(struct watch_stream *s, bool (*f)(struct watch *w)) {
    for (size_t i = 0; i < s->buckets; i++)
        for (struct watch *w = s->ids[i], *next; w != NULL; w = next) {
            next = w->next_same;
            if (!f(w)) return false;
        }
    return true;
}

static bool judge_one(struct watch *w) {
    enum err e = judge(w);
    return e == OK ? true : expel(w, e);
}

/* To a watch that asked for it and has heard nothing for long. */
static bool notify_one(struct watch *w) {
    bool quiet = w->notify && !w->told && !w->stream->busy && is_current(w);
    w->told = false;
    return quiet ? send_progress(w->stream, w->id) : true;
}

static bool look_after(struct watch_stream *s, uint64_t auth, size_t *judged) {
    if (s->auth_stamp != auth && *judged < JUDGE_MAX) {
        *judged += s->n;
        s->auth_stamp = auth;
        if (!each_watch(s, judge_one)) return false;
    }
    if (s->notify != 0 && uv_now(s->all->beat.loop) >= s->notices_ms) {
        s->notices_ms = notices_due(s->all);
        if (!each_watch(s, notify_one)) return false;
    }
    return answer_progress(s);
}

void watch_beat(uv_timer_t *timer) {
    struct watches *all = timer->data;
    uint64_t auth = auth_stamp(store_auth(all->api->manager->store));
    size_t judged = 0;
    for (struct watch_stream *s = all->streams, *next; s != NULL; s = next) {
        next = s->next_all;
        (void)look_after(s, auth, &judged);
    }
    all->beating = all->streams != NULL;
    if (all->beating) (void)uv_timer_start(timer, watch_beat, BEAT_MS, 0);
}
