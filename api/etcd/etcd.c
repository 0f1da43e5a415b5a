/* See etcd.h. An operation under way is one block of memory that holds the write or the read and
 * points to its call; the call's `data` points back while it lasts. */
#include "api/etcd/etcd.h"

#include <stdlib.h>

#include "api/etcd/caller.h"

#define AUTH_TRIES_MAX 4 /* of a write whose permissions change while it is under way */

struct pending {
    union {
        struct write write; /* etcd_write */
        struct read read;   /* etcd_read */
        struct call call;   /* etcd_ask */
        uv_work_t work;     /* etcd_do */
    };
    struct rpc *r;    /* NULL: the client has left */
    struct buf again; /* a user's command, for another try; empty: nobody's */
    unsigned tries;   /* so far */
    union {
        etcd_written *written;
        etcd_current *current;
        etcd_asked *asked;
        struct {
            etcd_work *work;
            etcd_worked *done;
        } worked;
    };
    struct buf request; /* etcd_ask: encoded */
    void *data;         /* the caller's, for the above */
};

uint64_t etcd_cluster_id(const struct api *api) {
    uint64_t n = 1;
    for (const char *c = api->manager->self.cluster_id; *c; c++)
        n = n * 36 + (uint64_t)(*c <= '9' ? *c - '0' : *c - 'a' + 10);
    return n;
}

void etcd_header_of(const struct api *api, Etcdserverpb__ResponseHeader *out) {
    const struct manager *m = api->manager;
    *out = (Etcdserverpb__ResponseHeader)ETCDSERVERPB__RESPONSE_HEADER__INIT;
    out->cluster_id = etcd_cluster_id(api);
    out->member_id = m->self.raft_id;
    out->revision = (int64_t)store_revision(m->store);
    out->raft_term = m->term;
}

RESULT etcd_header(struct buf *b, unsigned field, const struct api *api, uint64_t revision) {
    const struct manager *m = api->manager;
    size_t mark;
    TRY(pb_open(b, field, &mark));
    TRY(pb_number(b, 1, etcd_cluster_id(api)));
    TRY(pb_number(b, 2, m->self.raft_id));
    TRY(pb_number(b, 3, revision ? revision : store_revision(m->store)));
    TRY(pb_number(b, 4, m->term));
    return pb_close(b, mark);
}

/* --- errors --------------------------------------------------------------------------------- */

static const char *etcd_text(enum err e, const char *text) {
    if (e == ERR_MAYBE_APPLIED)
        return "etcdserver: request timed out, possibly due to previous leader failure";
    if (e == ERR_TIMEOUT) return "etcdserver: request timed out";
    if (e == ERR_NO_LEADER) return "etcdserver: no leader";
    if (e == ERR_NOT_LEADER) return "etcdserver: not leader";
    if (e == ERR_CLOSED) return "etcdserver: server stopped";
    if (e == ERR_BUSY) return "etcdserver: too many requests";
    if (e == ERR_TOO_LARGE) return err_text(ERR_REQUEST_TOO_LARGE);
    return text;
}

void etcd_fail(struct rpc *r, enum err e, const char *text) {
    rpc_fail(r, e == ERR_TOO_LARGE ? ERR_REQUEST_TOO_LARGE : e, etcd_text(e, text));
}

/* --- operations ------------------------------------------------------------------------------ */

static void pending_gone(struct rpc *r) {
    struct pending *p = r->data;
    p->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
}

static struct pending *pending_new(struct rpc *r, void *data) {
    struct pending *p = malloc(sizeof *p);
    if (p == NULL) return NULL;
    p->r = r;
    p->again = buf_new(COMMAND_MAX);
    p->tries = 0;
    p->data = data;
    r->data = p;
    r->gone = pending_gone;
    return p;
}

/* The call belongs to its handler again. */
static struct rpc *pending_end(struct pending *p) {
    struct rpc *r = p->r;
    if (r != NULL) {
        r->gone = NULL;
        r->data = NULL;
    }
    buf_wipe(&p->again);
    free(p);
    return r;
}

static bool try_again(struct pending *p, enum err *refused);

/* A call that showed its user's token where auth was not yet known to be on: nobody's, until this
 * member has caught up. */
static bool was_nobody(const struct rpc *r) {
    return r != NULL && r->caller.user[0] == '\0' && rpc_shows_token(r);
}

static void written(struct write *w, enum err e, const char *text, const struct result *result) {
    struct pending *p = w->ctx;
    enum err refused = e == OK ? result->error : OK;
    if (refused != OK && try_again(p, &refused)) return;
    etcd_written *done = p->written;
    void *data = p->data;
    struct rpc *r = pending_end(p);
    if (refused != OK) {
        e = refused;
        text = NULL;
    }
    if (e != OK && r != NULL) {
        r->api->figures.failed++;
        etcd_fail(r, e, text);
        r = NULL;
    }
    if (r != NULL || data != NULL) done(r, result, data);
}

static RESULT submit(struct pending *p, const struct command *c) {
    p->write = (struct write){.command = buf_new(COMMAND_MAX), .done = written, .ctx = p};
    enum err e = command_encode(c, &p->write.command);
    if (e == OK && p->write.command.size > REQUEST_MAX) e = ERR_TOO_LARGE;
    if (e == OK && c->has_user && p->again.size == 0 && (c->user.size != 0 || was_nobody(p->r)))
        e = buf_add_span(&p->again, buf_span(&p->write.command));
    if (e == OK) return manager_write(p->r->api->manager, &p->write);
    buf_wipe(&p->write.command);
    return e;
}

/* Users and permissions are others than when the write was proposed (ERR_AUTH_REVISION), or it was
 * proposed as nobody's (ERR_USER_EMPTY). It was not applied; if its user is still who he was, or is
 * somebody after all, it is judged anew. False: *refused is what to answer. */
static bool try_again(struct pending *p, enum err *refused) {
    struct command c;
    if (p->r == NULL || p->again.size == 0 || ++p->tries == AUTH_TRIES_MAX) return false;
    if (*refused == ERR_USER_EMPTY && was_nobody(p->r)) {
        enum err e = rpc_identify(p->r);
        if (e != OK) *refused = e;
        if (e != OK) return false;
    } else if (*refused != ERR_AUTH_REVISION || caller_renew(p->r->api, &p->r->caller) != OK) {
        return false;
    }
    if (command_decode(buf_span(&p->again), &c) != OK) return false;
    caller_sign(&p->r->caller, &c);
    return submit(p, &c) == OK;
}

void etcd_write(struct rpc *r, struct command *c, etcd_written *done, void *data) {
    enum err e = ERR_NOMEM;
    c->has_token = r->has_token;
    if (r->has_token) memcpy(c->token, r->token, TOKEN_SIZE);
    caller_sign(&r->caller, c);
    struct pending *p = pending_new(r, data);
    if (p != NULL) {
        p->written = done;
        e = submit(p, c);
        if (e == OK) return;
        (void)pending_end(p);
    }
    r->api->figures.failed++;
    etcd_fail(r, e, NULL);
    if (data != NULL) done(NULL, NULL, data);
}

static void current(struct read *read, enum err e) {
    struct pending *p = read->ctx;
    etcd_current *then = p->current;
    void *data = p->data;
    struct rpc *r = pending_end(p);
    if (e == OK && was_nobody(r)) e = rpc_identify(r);
    if (e != OK && r != NULL) {
        etcd_fail(r, e, NULL);
        r = NULL;
    }
    if (r != NULL || data != NULL) then(r, data);
}

void etcd_read(struct rpc *r, etcd_current *then, void *data) {
    enum err e = ERR_NOMEM;
    struct pending *p = pending_new(r, data);
    if (p != NULL) {
        p->current = then;
        p->read = (struct read){.done = current, .ctx = p};
        e = replica_read(r->api->manager->replica, &p->read);
        if (e == OK) return;
        (void)pending_end(p);
    }
    etcd_fail(r, e, NULL);
    if (data != NULL) then(NULL, data);
}

/* --- who may manage -------------------------------------------------------------------------- */

struct managing {
    const ProtobufCMessage *m; /* the call's */
    void (*then)(struct rpc *r, const ProtobufCMessage *m);
};

static void refuse(struct rpc *r, enum err e) {
    etcd_fail(r, e,
              e == ERR_PERMISSION ? "without etcd's auth this needs an administrator's certificate "
                                    "(conclave cert --admin) or the server's socket"
                                  : NULL);
}

static void manage_current(struct rpc *r, void *data) {
    struct managing m = *(struct managing *)data;
    free(data);
    if (r == NULL) return;
    enum err e = caller_manages(r->api, &r->caller);
    if (e == OK)
        m.then(r, m.m);
    else
        refuse(r, e);
}

/* A member that lags may not know that auth is on, or who is root. */
void etcd_manage(struct rpc *r, const ProtobufCMessage *m,
                 void (*then)(struct rpc *r, const ProtobufCMessage *m)) {
    if (caller_manages(r->api, &r->caller) == OK) {
        then(r, m);
        return;
    }
    struct managing *managing = malloc(sizeof *managing);
    if (managing == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    *managing = (struct managing){.m = m, .then = then};
    etcd_read(r, manage_current, managing);
}

/* --- other threads and members --------------------------------------------------------------- */

static void asked(struct call *call, enum err e, struct span answer) {
    struct pending *p = call->ctx;
    etcd_asked *then = p->asked;
    void *data = p->data;
    struct why why = {0};
    const char *text = e == OK ? "" : manager_text(e, answer, &why);
    buf_free(&p->request);
    then(pending_end(p), e, text, data);
}

void etcd_ask(struct rpc *r, const struct admin_request *request, etcd_asked *then, void *data) {
    enum err e = ERR_NOMEM;
    struct pending *p = pending_new(r, data);
    if (p != NULL) {
        p->asked = then;
        p->request = buf_new(64);
        e = admin_encode(request, &p->request);
        p->call = (struct call){.request = buf_span(&p->request), .done = asked, .ctx = p};
        if (e == OK) e = replica_call(r->api->manager->replica, &p->call);
        if (e == OK) return;
        buf_free(&p->request);
        (void)pending_end(p);
    }
    then(r, e, err_text(e), data);
}

/* Who came while auth was off has not said who he is. */
RESULT etcd_may_still(struct rpc *r, const struct interval *in, uint64_t *stamp) {
    uint64_t now = auth_stamp(store_auth(r->api->manager->store));
    if (*stamp == now) return OK;
    if (r->caller.user[0] == '\0') TRY(rpc_identify(r));
    TRY(caller_may(r->api, &r->caller, PERMISSION_READ, in));
    *stamp = now;
    return OK;
}

static void on_work(uv_work_t *work) {
    struct pending *p = work->data;
    p->worked.work(p->data);
}

static void on_worked(uv_work_t *work, int status) {
    struct pending *p = work->data;
    etcd_worked *done = p->worked.done;
    void *data = p->data;
    (void)status; /* it is never cancelled */
    done(pending_end(p), data);
}

void etcd_do(struct rpc *r, etcd_work *work, etcd_worked *done, void *data) {
    struct pending *p = pending_new(r, data);
    if (p != NULL) {
        p->worked.work = work;
        p->worked.done = done;
        p->work.data = p;
        if (uv_queue_work(r->api->manager->config.loop, &p->work, on_work, on_worked) == 0) return;
        (void)pending_end(p);
    }
    etcd_fail(r, ERR_NOMEM, NULL);
    done(NULL, data);
}
