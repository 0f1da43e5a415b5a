/* etcd's Election service: candidates queue up (contest.h), the first one leads; he proclaims by
 * putting his key anew and resigns by deleting it. Both are bound to the create revision of the
 * key, so that nobody speaks for a leadership that has ended.
 *
 * Observe sends the leader's key as it is, then each of its values, then the next leader's. What
 * was there for a moment only, while an observer was not looking, may be left out; the newest never
 * is.
 *
 *   reading --> (nobody leads: seeking, for the first put) --> following, until it is deleted
 *      ^-----------------------------------------------------------'
 */
#include <stdlib.h>

#include "api/etcd/caller.h"
#include "api/etcd/contest.h"
#include "api/etcd/election.pb-c.h"
#include "api/etcd/lookout.h"
#include "api/etcd/methods.h"

static const char not_leader[] = "election: not leader";
static const char no_leader[] = "election: no leader";
static const char no_key[] = "\"leader\" field must be provided";

static void answer_with(struct rpc *r, enum err e, struct buf *b) {
    if (e == OK)
        rpc_answer_bytes(r, buf_span(b));
    else
        etcd_fail(r, e, NULL);
    buf_free(b);
}

/* --- campaign ------------------------------------------------------------------------------- */

/* The key is "name/" and the lease in hexadecimal. */
static struct span name_of(struct span key) {
    while (key.size > 0 && key.at[key.size - 1] != '/')
        key.size--;
    if (key.size > 0) key.size--;
    return key;
}

static RESULT encode_place(struct buf *b, const struct rpc *r, const struct contest_place *p) {
    size_t mark;
    TRY(etcd_header(b, 1, r->api, p->revision));
    TRY(pb_open(b, 2, &mark));
    TRY(pb_bytes(b, 1, name_of(p->key)));
    TRY(pb_bytes(b, 2, p->key));
    TRY(pb_number(b, 3, p->created));
    TRY(pb_number(b, 4, p->lease));
    return pb_close(b, mark);
}

static void on_won(struct rpc *r, const struct contest_place *place) {
    struct buf b = buf_new(ANSWER_MAX);
    answer_with(r, encode_place(&b, r, place), &b);
}

static void campaign_call(struct rpc *r, const ProtobufCMessage *message) {
    const V3electionpb__CampaignRequest *m = (const void *)message;
    const struct contest_options o = {.name = etcd_span(m->name),
                                      .lease = m->lease,
                                      .campaign = true,
                                      .value = etcd_span(m->value)};
    contest_begin(r, &o, on_won);
}

/* --- proclaim and resign -------------------------------------------------------------------- */

struct saying {
    struct rpc *r; /* NULL: the caller has left */
    bool resign;   /* succeeds whatever it finds */
};

static void saying_gone(struct rpc *r) {
    struct saying *s = r->data;
    s->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
}

static void on_said(void *ctx, enum err e, const char *text, const struct result *result) {
    struct saying *s = ctx;
    struct rpc *r = s->r;
    struct answer whole;
    struct cursor in = cursor_of(e == OK ? result->answer : span_of(NULL, 0));
    bool resign = s->resign;
    free(s);
    if (r == NULL) return;
    r->gone = NULL;
    r->data = NULL;
    if (e == OK && answer_next(&in, &whole) != OK) e = ERR_INTERNAL;
    if (e == OK && !whole.succeeded && !resign) {
        e = ERR_UNKNOWN;
        text = not_leader;
    }
    if (e != OK) {
        errand_fail(r, e, text);
        return;
    }
    struct buf b = buf_new(ANSWER_MAX);
    answer_with(r, etcd_header(&b, 1, r->api, result->revision), &b);
}

static RESULT say(struct rpc *r, const V3electionpb__LeaderKey *leader, const struct txn_op *op,
                  struct saying *s) {
    struct buf txn = buf_new(COMMAND_MAX);
    enum err e = errand_txn(&txn, etcd_span(leader->key), (uint64_t)leader->rev, op, NULL);
    struct command c = {.op = OP_TXN, .txn = buf_span(&txn)};
    if (e == OK) e = errand_write(r->api, &r->caller, &c, on_said, s);
    buf_free(&txn);
    return e;
}

/* As the leader that he claims to be. */
static void say_as(struct rpc *r, const V3electionpb__LeaderKey *leader, const struct txn_op *op) {
    enum err e = leader->key.len == 0 ? ERR_EMPTY_KEY : OK;
    struct saying *s = e == OK ? malloc(sizeof *s) : NULL;
    if (e == OK && s == NULL) e = ERR_NOMEM;
    if (e == OK) {
        *s = (struct saying){.r = r, .resign = op->kind == TXN_DELETE};
        e = say(r, leader, op, s);
    }
    if (e == OK) {
        r->data = s;
        r->gone = saying_gone;
        return;
    }
    free(s);
    errand_fail(r, e, NULL);
}

static void proclaim_call(struct rpc *r, const ProtobufCMessage *message) {
    const V3electionpb__ProclaimRequest *m = (const void *)message;
    if (m->leader == NULL) {
        errand_fail(r, ERR_UNKNOWN, no_key);
        return;
    }
    if (m->leader->lease < 0) {
        errand_fail(r, ERR_LEASE_NOT_FOUND, NULL);
        return;
    }
    struct txn_op put = {.kind = TXN_PUT,
                         .put = {.key = etcd_span(m->leader->key),
                                 .value = etcd_span(m->value),
                                 .lease = (uint64_t)m->leader->lease}};
    say_as(r, m->leader, &put);
}

static void resign_call(struct rpc *r, const ProtobufCMessage *message) {
    const V3electionpb__ResignRequest *m = (const void *)message;
    if (m->leader == NULL) {
        errand_fail(r, ERR_UNKNOWN, no_key);
        return;
    }
    struct txn_op delete = {.kind = TXN_DELETE, .del = {.in = {.key = etcd_span(m->leader->key)}}};
    say_as(r, m->leader, &delete);
}

/* --- leader and observe --------------------------------------------------------------------- */

struct observer {
    struct rpc *r;           /* NULL: the caller has left */
    struct api *api;         /* of the call */
    bool once;               /* Leader: one answer */
    bool reading;            /* a read is under way */
    bool full;               /* the caller has to take what he has first */
    bool seeking;            /* the lookout is for the first put */
    bool next;               /* it has seen what it was for: read anew, or follow */
    struct buf prefix, end;  /* end: of the prefix */
    struct buf key;          /* followed */
    uint64_t from;           /* first revision to look at */
    uint64_t auth_stamp;     /* of the permissions that he was judged by */
    enum err refused;        /* he may not read any more */
    struct lookout *lookout; /* NULL: none */
};

static void observer_free(struct observer *o) {
    if (o->reading) return; /* then the read's end does it */
    lookout_close(o->lookout);
    buf_free(&o->prefix);
    buf_free(&o->end);
    buf_free(&o->key);
    free(o);
}

static void observer_fail(struct observer *o, enum err e, const char *text) {
    struct rpc *r = o->r;
    o->r = NULL;
    if (r != NULL) errand_fail(r, e, text);
    observer_free(o);
}

static void observer_gone(struct rpc *r) {
    struct observer *o = r->data;
    o->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
    observer_free(o);
}

static RESULT encode_leader(struct buf *b, const struct observer *o, const struct kv *kv,
                            uint64_t revision) {
    TRY(etcd_header(b, 1, o->api, revision));
    return pb_kv(b, 2, kv, true);
}

/* ERR_BUSY: sent, but no more for now. */
static RESULT tell(struct observer *o, const struct kv *kv, uint64_t revision) {
    struct buf b = buf_new(ANSWER_MAX);
    enum err e = encode_leader(&b, o, kv, revision);
    if (e == OK) e = rpc_send_bytes(o->r, buf_span(&b));
    if (e == ERR_BUSY) o->full = true;
    buf_free(&b);
    return e == ERR_BUSY ? OK : e;
}

static void read_leader(struct observer *o);
static void look_at(struct observer *o, bool seeking);

static RESULT follow_key(struct observer *o, struct span key, uint64_t from) {
    buf_clear(&o->key);
    o->from = from;
    return buf_add_span(&o->key, key);
}

static enum err judge(struct observer *o) {
    struct interval in = {.key = buf_span(&o->prefix), .end = buf_span(&o->end)};
    return etcd_may_still(o->r, &in, &o->auth_stamp);
}

/* Inside the look: nothing is closed or opened here. */
static enum err see(void *ctx, const struct watch_event *event) {
    struct observer *o = ctx;
    if (o->full || o->next) return ERR_BUSY;
    o->refused = judge(o);
    if (o->refused != OK) return o->refused;
    if (event->deleted) {
        o->next = !o->seeking;
        return OK;
    }
    uint64_t at = event->kv.mod_revision;
    TRY(tell(o, &event->kv, at));
    if (!o->seeking) return OK;
    o->next = true;
    return follow_key(o, event->kv.key, at + 1);
}

static void on_looked(void *ctx, enum err e) {
    struct observer *o = ctx;
    if (e == ERR_CLOSED || o->refused != OK) {
        observer_fail(o, e == OK ? o->refused : e, NULL);
        return;
    }
    if (e == OK && !o->next) return;
    bool seeking = o->seeking;
    lookout_close(o->lookout);
    o->lookout = NULL;
    if (e == OK && seeking)
        look_at(o, false);
    else
        read_leader(o);
}

static void look_at(struct observer *o, bool seeking) {
    struct interval one = {.key = buf_span(&o->key)};
    struct interval all = {.key = buf_span(&o->prefix), .end = buf_span(&o->end)};
    o->seeking = seeking;
    o->next = false;
    const struct lookout_options options = {.api = o->api,
                                            .in = seeking ? all : one,
                                            .start = o->from,
                                            .each = see,
                                            .looked = on_looked,
                                            .ctx = o};
    enum err e = lookout_open(&options, &o->lookout);
    if (e != OK) observer_fail(o, e, NULL);
}

static void answer_once(struct observer *o, bool found, const struct kv *kv) {
    struct buf b = buf_new(ANSWER_MAX);
    struct rpc *r = o->r;
    if (!found) {
        observer_fail(o, ERR_UNKNOWN, no_leader);
        return;
    }
    enum err e = encode_leader(&b, o, kv, 0);
    o->r = NULL;
    observer_free(o);
    answer_with(r, e, &b);
}

static void on_current(void *ctx, enum err e) {
    struct observer *o = ctx;
    struct kv kv;
    o->reading = false;
    if (o->r != NULL && e == OK) e = judge(o);
    if (o->r == NULL || e != OK) {
        observer_fail(o, e, NULL);
        return;
    }
    const struct store *store = o->api->manager->store;
    bool found = errand_first(store, &o->prefix, &o->end, &kv);
    if (o->once) {
        answer_once(o, found, &kv);
        return;
    }
    o->from = store_revision(store) + 1;
    if (found) e = tell(o, &kv, 0);
    if (found && e == OK) e = follow_key(o, kv.key, o->from);
    if (e == OK)
        look_at(o, !found);
    else
        observer_fail(o, e, NULL);
}

static void read_leader(struct observer *o) {
    enum err e = errand_read(o->api, on_current, o);
    if (e == OK)
        o->reading = true;
    else
        observer_fail(o, e, NULL);
}

static void observer_drained(struct rpc *r) {
    struct observer *o = r->data;
    o->full = false;
    if (o->lookout != NULL) lookout_again(o->lookout);
}

static void observe(struct rpc *r, struct span name, bool once) {
    struct observer *o = calloc(1, sizeof *o);
    if (o == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    *o = (struct observer){.r = r, .api = r->api, .once = once};
    o->prefix = o->end = o->key = buf_new(COMMAND_MAX);
    r->data = o;
    r->gone = observer_gone;
    r->drained = observer_drained;
    enum err e = errand_prefix(name, &o->prefix, &o->end);
    if (e == OK)
        read_leader(o);
    else
        observer_fail(o, e, NULL);
}

static void leader_call(struct rpc *r, const ProtobufCMessage *message) {
    const V3electionpb__LeaderRequest *m = (const void *)message;
    observe(r, etcd_span(m->name), true);
}

static void observe_call(struct rpc *r, const ProtobufCMessage *message) {
    const V3electionpb__LeaderRequest *m = (const void *)message;
    observe(r, etcd_span(m->name), false);
}

const struct method election_methods[] = {
    {.path = "/v3electionpb.Election/Campaign",
     .json = "/v3/election/campaign",
     .kind = METHOD_UNARY,
     .request = &v3electionpb__campaign_request__descriptor,
     .answer = &v3electionpb__campaign_response__descriptor,
     .message = campaign_call},
    {.path = "/v3electionpb.Election/Proclaim",
     .json = "/v3/election/proclaim",
     .kind = METHOD_UNARY,
     .request = &v3electionpb__proclaim_request__descriptor,
     .answer = &v3electionpb__proclaim_response__descriptor,
     .message = proclaim_call},
    {.path = "/v3electionpb.Election/Leader",
     .json = "/v3/election/leader",
     .kind = METHOD_UNARY,
     .request = &v3electionpb__leader_request__descriptor,
     .answer = &v3electionpb__leader_response__descriptor,
     .message = leader_call},
    {.path = "/v3electionpb.Election/Observe",
     .json = "/v3/election/observe",
     .kind = METHOD_SERVER_STREAM,
     .request = &v3electionpb__leader_request__descriptor,
     .answer = &v3electionpb__leader_response__descriptor,
     .message = observe_call},
    {.path = "/v3electionpb.Election/Resign",
     .json = "/v3/election/resign",
     .kind = METHOD_UNARY,
     .request = &v3electionpb__resign_request__descriptor,
     .answer = &v3electionpb__resign_response__descriptor,
     .message = resign_call},
    {.path = NULL},
};
