/* See server.h and session.h: listeners, routes, and the end of it all. Connections are in lane.c,
 * on this loop, or on those of io_loop.c. What a protocol does is in http1.c and http2.c; the
 * functions with which handlers answer pass on to it. */
#include "api/http/server.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/http/ferry.h"
#include "api/http/io_loop.h"
#include "raft/loop.h"

void server_maybe_closed(struct server *s) {
    if (!s->closing || !s->own_gone || s->io_live > 0) return;
    void (*closed)(void *ctx) = s->closed;
    void *ctx = s->closed_ctx;
    if (s->tls) tls_context_release(s->tls);
    free(s);
    if (closed) closed(ctx);
}

static void on_own_gone(struct lane *lane) {
    lane->server->own_gone = true;
    server_maybe_closed(lane->server);
}

/* --- requests ------------------------------------------------------------------------------- */

void request_reset(struct request *r) {
    struct exchange *x = &r->exchange;
    const struct session *s = r->session;
    x->ctx = s->server->config.ctx;
    x->route = NULL;
    x->head.n = 0;
    x->head.keep_alive = true;
    x->head.chunked = x->head.has_length = x->head.expect = false;
    x->head.length = 0;
    x->head.path = x->head.query = x->body = span_of(NULL, 0);
    x->stream = NULL;
    x->headers = NULL;
    x->n_headers = 0;
    x->drained = NULL;
    x->data = NULL;
    x->caller = s->caller;
    x->http2 = s->protocol == &http2_protocol;
    x->gone = false;
    r->path_known = false;
}

/* RFC-less but settled by gRPC: application/grpc, with +proto or parameters; not grpc-web. */
static bool is_rpc(const struct exchange *x) {
    static const char type[] = "application/grpc";
    if (x->head.method != HTTP_POST) return false;
    const struct http_header *h = http_find(&x->head, "content-type");
    if (!h || h->value.size < sizeof type - 1) return false;
    if (!http_is(span_of(h->value.at, sizeof type - 1), type)) return false;
    return h->value.size == sizeof type - 1 || h->value.at[sizeof type - 1] == '+' ||
           h->value.at[sizeof type - 1] == ';';
}

void request_route(struct request *r) {
    struct exchange *x = &r->exchange;
    const struct server_config *config = &r->session->server->config;
    enum http_method method = x->head.method == HTTP_HEAD ? HTTP_GET : x->head.method;
    x->route = NULL;
    r->path_known = false;
    if (config->rpc && is_rpc(x)) {
        x->route = config->rpc;
        return;
    }
    for (const struct route *at = config->routes; at->path && !x->route; at++) {
        if (!span_equal(x->head.path, span_str(at->path))) continue;
        r->path_known = true;
        if (at->method == method) x->route = at;
    }
    if (!x->route && !r->path_known && config->find) x->route = config->find(&x->head);
}

/* A manager's certificate outlives its membership, so the node table has the last word. */
static void judge(const struct server_config *config, enum standing standing, struct caller *c) {
    bool manager = standing == STANDING_MANAGER;
    bool member = manager && !c->barred && config->is_member(config->ctx, c->name, c->key);
    if (manager && !member && !c->barred)
        c->barred = "this certificate's node is not one of the cluster's managers";
    c->admin = !c->barred && (member || standing == STANDING_ADMIN);
}

void request_handle(struct request *r) {
    struct exchange *x = &r->exchange;
    const struct server_config *config = &r->session->server->config;
    judge(config, r->session->standing, &x->caller);
    if (x->caller.barred && x->route != config->rpc)
        exchange_error(x, ERR_PERMISSION, x->caller.barred);
    else if (x->route->access == ACCESS_ADMIN && !x->caller.admin)
        exchange_error(x, ERR_PERMISSION,
                       "this needs the server's unix socket or an admin certificate");
    else
        x->route->handle(x);
}

void request_dispatch(struct request *r) {
    struct exchange *x = &r->exchange;
    if (!x->route) {
        if (r->path_known)
            exchange_answer(x, 405, "text/plain", span_str("method not allowed\n"));
        else
            exchange_error(x, ERR_NOT_FOUND, "there is nothing at this path");
    } else if (r->session->lane->io) {
        ferry_take(r);
    } else {
        r->session->server->requests++;
        request_handle(r);
    }
}

/* --- answers -------------------------------------------------------------------------------- */

static const struct protocol *protocol_of(struct exchange *x) {
    return ((struct request *)(void *)x)->session->protocol;
}

void exchange_answer(struct exchange *x, unsigned status, const char *content_type,
                     struct span body) {
    protocol_of(x)->answer(x, status, content_type, body);
}

void exchange_json(struct exchange *x, struct buf *body) {
    exchange_answer(x, 200, "application/json", buf_span(body));
    buf_wipe(body);
}

void exchange_error(struct exchange *x, enum err e, const char *text) {
    struct buf body = buf_new(4 * KIB);
    const char *message = text && text[0] ? text : err_text(e);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_put_text(&j, "error", message);
    jout_put_number(&j, "code", (uint64_t)err_grpc(e));
    jout_put_text(&j, "message", message);
    jout_put_text(&j, "name", err_name(e));
    jout_close(&j, '}');
    if (jout_end(&j) != OK) buf_clear(&body);
    exchange_answer(x, (unsigned)err_http(e), "application/json", buf_span(&body));
    buf_free(&body);
}

RESULT exchange_stream(struct exchange *x, const char *content_type) {
    return protocol_of(x)->stream(x, content_type);
}

RESULT exchange_write(struct exchange *x, struct span data) {
    return protocol_of(x)->write(x, data);
}

RESULT exchange_room(struct exchange *x) { return protocol_of(x)->room(x); }

void exchange_end(struct exchange *x, bool whole) { protocol_of(x)->end(x, whole); }

void exchange_resume(struct exchange *x) { protocol_of(x)->resume(x); }

void exchange_trailers(struct exchange *x, const struct http_header *trailers, unsigned n) {
    protocol_of(x)->trailers(x, trailers, n);
}

/* --- listeners ------------------------------------------------------------------------------ */

static unsigned connections(const struct server *s) {
    unsigned n = s->own.n;
    for (unsigned i = 0; i < s->io_n; i++)
        n += s->io[i]->connections;
    return n;
}

static struct io_loop *least_busy(const struct server *s) {
    struct io_loop *least = s->io[0];
    for (unsigned i = 1; i < s->io_n; i++)
        if (s->io[i]->connections < least->connections) least = s->io[i];
    return least;
}

static void on_connection(uv_stream_t *listener, int status) {
    struct server *s = listener->data;
    struct why why = {0};
    struct arrival a = {.listener = listener, .cluster_id = s->cluster_id};
    a.pipe = listener->type == UV_NAMED_PIPE;
    if (!a.pipe && !s->plaintext) a.tls = s->tls;
    enum err e = OK;
    if (status != 0)
        e = fail_with(&why, ERR_IO, "%s", uv_strerror(status));
    else if (connections(s) >= CONNECTIONS_MAX)
        conn_refuse(&s->own.conns, listener);
    else
        e = s->io_n > 0 ? io_loop_give(least_busy(s), &a, &why) : lane_take(&s->own, &a, &why);
    if (e != OK)
        log_event(s->config.log, LOG_WARNING, "api", "a connection was lost: %s", why.text);
}

static void default_times(struct server_times *t) {
    if (!t->request) t->request = REQUEST_TIMEOUT_MS;
    if (!t->idle) t->idle = IDLE_TIMEOUT_MS;
    if (!t->wait) t->wait = WAIT_NOTICED_MS;
    if (!t->ping) t->ping = PING_AFTER_MS;
    if (!t->pong) t->pong = PONG_TIMEOUT_MS;
    if (!t->stall) t->stall = STALL_TIMEOUT_MS;
    if (!t->grace) t->grace = GRACE_MS;
}

static RESULT start_io(struct server *s, struct why *why) {
    for (; s->io_n < s->config.io_loops && s->io_n < IO_LOOPS_MAX; s->io_n++)
        TRY(io_loop_start(s, s->io_n, &s->io[s->io_n], why));
    return OK;
}

RESULT server_new(const struct server_config *config, struct server **out, struct why *why) {
    struct server *s = calloc(1, sizeof *s);
    if (!s) return fail_with(why, ERR_NOMEM, "no memory for the server");
    s->config = *config;
    default_times(&s->config.times);
    enum err e = lane_open(&s->own, s, config->loop, NULL, why);
    if (e != OK) {
        free(s);
        return e;
    }
    s->own.gone = on_own_gone;
    e = start_io(s, why);
    if (e == OK)
        *out = s;
    else
        server_close(s, NULL, NULL); /* goes with the loop */
    return e;
}

static void on_listener_closed(uv_handle_t *handle) {
    struct server *s = handle->data;
    s->own.held = --s->handles > 0;
    lane_maybe_gone(&s->own);
}

static void close_listener(bool *has, uv_handle_t *handle) {
    if (*has) uv_close(handle, on_listener_closed);
    *has = false;
}

RESULT server_listen_unix(struct server *s, const char *path, struct why *why) {
    size_t size = strlen(path);
    if (size >= sizeof s->path)
        return fail_with(why, ERR_INVALID,
                         "%s: a socket's path has at most %zu bytes; use a shorter --data", path,
                         sizeof s->path - 1);
    memcpy(s->path, path, size + 1);
    (void)unlink(path);
    (void)uv_pipe_init(s->config.loop, &s->pipe, 0);
    s->pipe.data = s;
    s->has_pipe = true;
    s->own.held = ++s->handles > 0;
    int rc = uv_pipe_bind(&s->pipe, path);
    if (rc == 0 && chmod(path, 0600) != 0) rc = UV_EPERM;
    if (rc == 0) rc = uv_listen((uv_stream_t *)&s->pipe, 128, on_connection);
    if (rc == 0) return OK;
    close_listener(&s->has_pipe, (uv_handle_t *)&s->pipe);
    return fail_with(why, rc == UV_EADDRINUSE ? ERR_IN_USE : ERR_IO, "%s: %s", path,
                     uv_strerror(rc));
}

static void note_address(struct server *s) {
    struct sockaddr_storage bound;
    int size = sizeof bound;
    if (uv_tcp_getsockname(&s->tcp, (struct sockaddr *)&bound, &size) == 0)
        address_format((const struct sockaddr *)&bound, s->address);
}

RESULT server_listen_tcp(struct server *s, const char *address, bool plaintext, struct why *why) {
    struct sockaddr_storage at;
    if (!plaintext && !s->tls) return fail_with(why, ERR_PRECONDITION, "TLS has no certificate");
    TRY(address_parse(address, &at, why));
    (void)uv_tcp_init(s->config.loop, &s->tcp);
    s->tcp.data = s;
    s->has_tcp = true;
    s->own.held = ++s->handles > 0;
    s->plaintext = plaintext;
    int rc = uv_tcp_bind(&s->tcp, (const struct sockaddr *)&at, 0);
    if (rc == 0) rc = uv_listen((uv_stream_t *)&s->tcp, 511, on_connection);
    if (rc == 0) {
        note_address(s);
        return OK;
    }
    close_listener(&s->has_tcp, (uv_handle_t *)&s->tcp);
    return fail_with(why, rc == UV_EADDRINUSE ? ERR_IN_USE : ERR_IO, "client address %s: %s",
                     address, uv_strerror(rc));
}

void server_credentials(struct server *s, struct tls_context *tls, const char *cluster_id) {
    if (s->tls) tls_context_release(s->tls);
    s->tls = tls;
    (void)snprintf(s->cluster_id, sizeof s->cluster_id, "%s", cluster_id);
}

RESULT server_review(struct server *s) {
    enum err e = OK;
    if (s->closing || !s->tls) return OK;
    lane_review(&s->own, s->tls);
    for (unsigned i = 0; i < s->io_n; i++)
        if (s->io[i] && io_loop_review(s->io[i], s->tls) != OK) e = ERR_NOMEM;
    return e;
}

const char *server_address(const struct server *s) { return s->has_tcp ? s->address : ""; }

void server_close_tcp(struct server *s) { close_listener(&s->has_tcp, (uv_handle_t *)&s->tcp); }

void server_close(struct server *s, void (*closed)(void *ctx), void *ctx) {
    s->closing = true;
    s->closed = closed;
    s->closed_ctx = ctx;
    if (s->has_pipe) (void)unlink(s->path);
    close_listener(&s->has_pipe, (uv_handle_t *)&s->pipe);
    close_listener(&s->has_tcp, (uv_handle_t *)&s->tcp);
    for (unsigned i = 0; i < s->io_n; i++)
        io_loop_stop(s->io[i]);
    lane_stop(&s->own);
}

void server_abandon(struct server *s) {
    for (unsigned i = 0; i < s->io_n; i++)
        if (s->io[i]) io_loop_abandon(s->io[i]);
}

bool server_figures(const struct server *s, unsigned loop, struct server_figures *out) {
    if (loop > s->io_n) return false;
    *out = (struct server_figures){.connections = s->own.n, .requests = s->requests};
    if (loop == 0) return true;
    const struct io_loop *io = s->io[loop - 1];
    *out = (struct server_figures){0};
    if (io) *out = (struct server_figures){io->connections, io->requests};
    return true;
}
