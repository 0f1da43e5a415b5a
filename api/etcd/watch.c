/* The Watch service: what clients ask. Create, cancel and progress requests of one stream are
 * answered in their order; what etcd refuses is refused in its words. Source of the behaviour: etcd
 * 3.4's and 3.6's Watch. As there, the end of the client's own messages does not end the stream. */
#include "api/etcd/watch_stream.h"

#include <assert.h>
#include <stdlib.h>

#include "api/etcd/methods.h"
#include "api/etcd/rpc.pb-c.h"
#include "store/auth.h"

#define IDS_MIN 4 /* buckets of the table of ids at first */

typedef Etcdserverpb__WatchCreateRequest CreateRequest;
typedef Etcdserverpb__WatchRequest Request;

/* --- the table of ids ------------------------------------------------------------------------- */

static struct watch **bucket(const struct watch_stream *s, int64_t id) {
    uint64_t hash = (uint64_t)id * 0x9e3779b97f4a7c15ULL;
    return &s->ids[(hash >> 32) & (s->buckets - 1)];
}

static struct watch *find(const struct watch_stream *s, int64_t id) {
    if (s->ids == NULL) return NULL;
    struct watch *w = *bucket(s, id);
    while (w != NULL && w->id != id)
        w = w->next_same;
    return w;
}

static void hang(struct watch_stream *s, struct watch *w) {
    struct watch **at = bucket(s, w->id);
    w->next_same = *at;
    *at = w;
}

static RESULT grow(struct watch_stream *s) {
    struct watch_stream old = *s;
    s->buckets = old.buckets == 0 ? IDS_MIN : 2 * old.buckets;
    s->ids = calloc(s->buckets, sizeof(struct watch *));
    if (s->ids == NULL) {
        s->ids = old.ids;
        s->buckets = old.buckets;
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < old.buckets; i++)
        for (struct watch *w = old.ids[i], *next; w != NULL; w = next) {
            next = w->next_same;
            hang(s, w);
        }
    free(old.ids);
    return OK;
}

static RESULT add(struct watch_stream *s, struct watch *w) {
    if (s->n == s->buckets) TRY(grow(s));
    hang(s, w);
    s->n++;
    return OK;
}

static void take_out(struct watch_stream *s, struct watch *w) {
    struct watch **at = bucket(s, w->id);
    while (*at != w)
        at = &(*at)->next_same;
    *at = w->next_same;
    s->n--;
}

/* --- streams ---------------------------------------------------------------------------------- */

void watch_end(struct watch *w) {
    struct watch_stream *s = w->stream;
    take_out(s, w);
    if (w->dirty) {
        *w->link = w->next;
        if (w->next != NULL) w->next->link = w->link;
        if (s->dirty.last == &w->next) s->dirty.last = w->link;
    }
    if (w->notify) s->notify--;
    watcher_free(w->watcher);
    free(w);
}

static void stream_end(struct watch_stream *s) {
    stream_unqueue(s);
    for (size_t i = 0; i < s->buckets; i++)
        for (struct watch *w = s->ids[i], *next; w != NULL; w = next) {
            next = w->next_same;
            watch_end(w);
        }
    *s->link_all = s->next_all;
    if (s->next_all != NULL) s->next_all->link_all = s->link_all;
    free(s->ids);
    free(s);
}

static void gone(struct rpc *r) {
    stream_end(r->data);
    rpc_end(r);
}

static void drained(struct rpc *r) {
    struct watch_stream *s = r->data;
    s->busy = false;
    stream_serve(s);
}

static struct watch_stream *stream_new(struct rpc *r) {
    struct watch_stream *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    struct watches *all = r->api->watches;
    *s = (struct watch_stream){
        .r = r, .all = all, .next_all = all->streams, .link_all = &all->streams};
    if (s->next_all != NULL) s->next_all->link_all = &s->next_all;
    all->streams = s;
    s->dirty.last = &s->dirty.first;
    s->notices_ms = notices_due(all);
    s->auth_stamp = auth_stamp(store_auth(r->api->manager->store));
    r->data = s;
    r->gone = gone;
    r->drained = drained;
    if (!all->beating) watch_beat(&all->beat);
    return s;
}

void stream_fail(struct watch_stream *s, enum err e) {
    struct rpc *r = s->r;
    stream_end(s);
    etcd_fail(r, e, NULL);
}

/* --- create ----------------------------------------------------------------------------------- */

static struct interval interval_of(const CreateRequest *c) {
    struct interval in = {.key = etcd_span(c->key), .end = etcd_span(c->range_end)};
    if (in.key.size == 0) in.key = span_of("", 1);
    return in;
}

static bool is_empty(const struct interval *in) {
    if (in->end.size == 0 || (in->end.size == 1 && in->end.at[0] == 0)) return false;
    return span_compare(in->key, in->end) >= 0;
}

static int64_t free_id(struct watch_stream *s) {
    while (find(s, s->next_id) != NULL)
        s->next_id++;
    return s->next_id++;
}

static bool filtered(const CreateRequest *c, int filter) {
    for (size_t i = 0; i < c->n_filters; i++)
        if ((int)c->filters[i] == filter) return true;
    return false;
}

static RESULT watch_new(struct watch_stream *s, const CreateRequest *c, const struct interval *in,
                        struct watch **out) {
    struct watch *w = malloc(sizeof *w);
    if (w == NULL) return ERR_NOMEM;
    *w = (struct watch){.stream = s, .fragment = c->fragment, .notify = c->progress_notify};
    w->auth_stamp = auth_stamp(store_auth(s->r->api->manager->store));
    const struct watch_options options = {
        .in = *in,
        .start = (uint64_t)c->start_revision,
        .no_put = filtered(c, ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT),
        .no_delete = filtered(c, ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE),
        .prev_kv = c->prev_kv,
        .wake = watch_wake,
        .ctx = w,
    };
    enum err e = c->start_revision < 0 ? OK : watcher_new(s->r->api->hub, &options, &w->watcher);
    w->id = c->watch_id != 0 ? c->watch_id : free_id(s);
    if (e == OK) e = add(s, w);
    if (e != OK) {
        watcher_free(w->watcher);
        free(w);
        return e;
    }
    if (w->notify) s->notify++;
    *out = w;
    return OK;
}

static void create(struct watch_stream *s, const CreateRequest *c) {
    struct interval in = interval_of(c);
    char room[REASON_MAX];
    struct watch *w = NULL;
    const char *refusal = NULL;
    enum err e = watch_permitted(s->r, &in);
    if (e == OK && is_empty(&in)) refusal = "mvcc: watcher range is empty";
    if (e == OK && refusal == NULL && c->watch_id != 0 && find(s, c->watch_id) != NULL)
        refusal = "mvcc: duplicate watch ID provided on the WatchStream";
    if (e == OK && s->n == WATCHES_STREAM_MAX) e = ERR_BUSY;
    if (e == OK && refusal == NULL) e = watch_new(s, c, &in, &w);
    if (e != OK) refusal = watch_reason(e, room);
    if (refusal != NULL) {
        (void)send_refused(s, refusal);
        return;
    }
    assert(w != NULL);
    if (!send_created(s, w->id)) return;
    if (w->watcher == NULL || !watcher_synced(w->watcher)) watch_wake(w);
}

/* --- the method ------------------------------------------------------------------------------- */

static void cancel(struct watch_stream *s, int64_t id) {
    struct watch *w = find(s, id);
    if (w == NULL) return;
    watch_end(w);
    (void)send_canceled(s, id, NULL);
}

static void message(struct rpc *r, const ProtobufCMessage *m) {
    const Request *q = (const void *)m;
    struct watch_stream *s = r->data;
    if (s == NULL && watches_start(r->api) == OK) s = stream_new(r);
    if (s == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    if (q->request_union_case == ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST)
        create(s, q->create_request);
    if (q->request_union_case == ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST)
        cancel(s, q->cancel_request->watch_id);
    if (q->request_union_case == ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST) {
        s->progress = true;
        stream_serve(s);
    } /* of anything else etcd says nothing, too */
}

static void ended(struct rpc *r) { (void)r; }

const struct method watch_methods[] = {
    {.path = "/etcdserverpb.Watch/Watch",
     .json = "/v3/watch",
     .kind = METHOD_BIDI,
     .open = true, /* who may not is told by the answer to each creation */
     .request = &etcdserverpb__watch_request__descriptor,
     .answer = &etcdserverpb__watch_response__descriptor,
     .message = message,
     .ended = ended},
    {.path = NULL},
};

/* --- beginning and end ------------------------------------------------------------------------ */

static void behind(void *ctx) {
    struct watches *all = ctx;
    all->behind = true;
    watches_wake(all);
}

static struct watches *watches_new(struct api *api) {
    struct watches *all = calloc(1, sizeof *all);
    if (all == NULL) return NULL;
    *all = (struct watches){.api = api, .chore = {.step = watch_step}, .out = buf_new(ANSWER_MAX)};
    all->last = &all->first;
    (void)uv_timer_init(api->manager->config.loop, &all->beat);
    all->beat.data = all;
    return all;
}

RESULT watches_start(struct api *api) {
    if (api->watches == NULL) api->watches = watches_new(api);
    if (api->watches == NULL) return ERR_NOMEM;
    if (api->hub != NULL) return OK;
    TRY(watch_hub_new(api->manager->store, &api->hub));
    watch_hub_behind(api->hub, behind, api->watches);
    return OK;
}

void watches_stop(struct api *api) {
    if (api->watches != NULL) {
        (void)uv_timer_stop(&api->watches->beat);
        api->watches->beating = false;
        buf_free(&api->watches->out);
    }
    watch_hub_free(api->hub);
    api->hub = NULL;
}
