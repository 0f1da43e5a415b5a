/* See server.h. A session is one connection's HTTP/1.1 state:
 *
 *   head -> body -> waiting (a handler has the exchange) -> head ...        streaming is a kind of
 * waiting
 *
 * While a handler has the exchange the connection is paused, so its bytes don't move. A session
 * whose client has left stays until its handler has answered. */
#include "api/server.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/conn.h"
#include "raft/loop.h"

#define STREAM_QUEUE_MAX (1 * MIB) /* past it a streaming handler waits */

enum session_state { SESSION_HEAD, SESSION_BODY, SESSION_WAITING, SESSION_STREAMING };

struct session {
    struct exchange exchange;     /* the request under way */
    struct server *server;        /* the owner */
    struct conn *conn;            /* NULL: the client has left */
    struct session *next, **link; /* in the server's list */
    enum session_state state;
    enum access access;        /* what this client may do */
    size_t head_size;          /* of the head in conn->in */
    struct http_chunks chunks; /* a chunked body under way */
    struct buf body;           /* its data */
    bool in_data;              /* on_data is on the stack */
    bool timed;                /* the request's deadline runs */
};

struct server {
    struct server_config config;
    uv_pipe_t pipe;                                         /* the unix socket */
    uv_tcp_t tcp;                                           /* the client port */
    bool has_pipe, has_tcp;                                 /* are they open */
    bool plaintext;                                         /* the client port has no TLS */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* of the unix socket */
    char address[ADDRESS_MAX];                              /* of the client port, as bound */
    char cluster_id[CLUSTER_ID_SIZE + 1];                   /* that certificates must name */
    struct tls_context *tls;                                /* for new connections */
    struct session *sessions;                               /* all */
    unsigned n;                                             /* their number */
    int handles;                                            /* listeners that are not closed yet */
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void maybe_closed(struct server *s) {
    if (!s->closing || s->n > 0 || s->handles > 0) return;
    void (*closed)(void *ctx) = s->closed;
    void *ctx = s->closed_ctx;
    if (s->tls) tls_context_release(s->tls);
    free(s);
    if (closed) closed(ctx);
}

/* --- sessions ------------------------------------------------------------------------------- */

static void session_free(struct session *session) {
    struct server *s = session->server;
    *session->link = session->next;
    if (session->next) session->next->link = session->link;
    s->n--;
    buf_wipe(&session->body);
    free(session);
    maybe_closed(s);
}

static struct session *session_of(struct exchange *x) { return (struct session *)(void *)x; }

static void on_closed(struct conn *c, const char *reason) {
    struct session *session = c->ctx;
    if (reason[0])
        log_event(session->server->config.log, LOG_DEBUG, "api", "a client's connection: %s",
                  reason);
    session->conn = NULL;
    session->exchange.gone = true;
    if (session->state == SESSION_STREAMING && session->exchange.drained)
        session->exchange.drained(&session->exchange);
    else if (session->state != SESSION_WAITING && session->state != SESSION_STREAMING)
        session_free(session);
}

/* Bytes of the request are dropped; the next one may already be there. */
static void next_request(struct session *session) {
    struct conn *c = session->conn;
    bool chunked = session->exchange.head.chunked;
    size_t body_size = chunked ? 0 : (size_t)session->exchange.head.length;
    conn_consume(c, session->head_size + body_size);
    session->state = SESSION_HEAD;
    session->head_size = 0;
    session->timed = false;
    buf_wipe(&session->body);
    session->chunks = (struct http_chunks){0};
    void *ctx = session->exchange.ctx;
    session->exchange = (struct exchange){.ctx = ctx};
    conn_timeout(c, IDLE_TIMEOUT_MS);
    conn_resume(c);
    if (c->in.size > 0 && !session->in_data) c->events->data(c);
}

static void session_done(struct session *session) {
    struct conn *c = session->conn;
    if (!c) {
        session_free(session);
        return;
    }
    if (!session->exchange.head.keep_alive || session->server->closing) {
        session->state = SESSION_HEAD;
        conn_pause(c);
        conn_timeout(c, REQUEST_TIMEOUT_MS); /* for the client to take its answer */
        conn_finish(c);
        return;
    }
    if (conn_flush(c) != OK) {
        session->state = SESSION_HEAD;
        conn_close(c, "can't write");
        return;
    }
    next_request(session);
}

/* --- answers -------------------------------------------------------------------------------- */

void exchange_answer(struct exchange *x, unsigned status, const char *content_type,
                     struct span body) {
    struct session *session = session_of(x);
    struct buf head = buf_new(4 * KIB);
    struct http_answer answer = {.status = status,
                                 .content_type = content_type,
                                 .length = body.size,
                                 .close = !x->head.keep_alive || session->server->closing};
    if (!x->gone && http_write_answer(&head, &answer) == OK &&
        conn_write(session->conn, buf_span(&head)) == OK && x->head.method != HTTP_HEAD &&
        conn_write(session->conn, body) != OK)
        x->head.keep_alive = false;
    buf_free(&head);
    session_done(session);
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
    struct session *session = session_of(x);
    session->state = SESSION_STREAMING;
    if (x->gone) return ERR_CLOSED;
    struct buf head = buf_new(4 * KIB);
    struct http_answer answer = {.status = 200, .content_type = content_type, .chunked = true};
    enum err e = http_write_answer(&head, &answer);
    if (e == OK) e = conn_write(session->conn, buf_span(&head));
    buf_free(&head);
    return e;
}

RESULT exchange_write(struct exchange *x, struct span data) {
    struct session *session = session_of(x);
    if (x->gone) return ERR_CLOSED;
    struct buf chunk = buf_new(data.size + 64);
    enum err e = http_write_chunk(&chunk, data);
    if (e == OK) e = conn_write(session->conn, buf_span(&chunk));
    if (e == OK) e = conn_flush(session->conn);
    buf_wipe(&chunk);
    if (e == OK && conn_queued(session->conn) > STREAM_QUEUE_MAX)
        e = ERR_BUSY; /* written, but wait */
    return e;
}

void exchange_end(struct exchange *x, bool whole) {
    struct session *session = session_of(x);
    if (!x->gone && whole) {
        struct buf chunk = buf_new(64);
        whole = http_write_chunk(&chunk, span_of(NULL, 0)) == OK &&
                conn_write(session->conn, buf_span(&chunk)) == OK;
        buf_free(&chunk);
    }
    if (!x->gone && !whole) {
        session->state = SESSION_HEAD;
        conn_close(session->conn, "a streamed answer was cut");
        return;
    }
    x->drained = NULL;
    session_done(session);
}

/* --- requests ------------------------------------------------------------------------------- */

static const struct route *find_route(const struct server *s, const struct exchange *x,
                                      bool *path_known) {
    *path_known = false;
    enum http_method method = x->head.method == HTTP_HEAD ? HTTP_GET : x->head.method;
    for (const struct route *r = s->config.routes; r->path; r++) {
        if (!span_equal(x->head.path, span_str(r->path))) continue;
        *path_known = true;
        if (r->method == method) return r;
    }
    return NULL;
}

/* The request is whole: hands it over. */
static void dispatch(struct session *session) {
    struct exchange *x = &session->exchange;
    session->state = SESSION_WAITING;
    conn_pause(session->conn);
    conn_timeout(session->conn, 0);
    bool path_known;
    x->route = find_route(session->server, x, &path_known);
    if (!x->route) {
        if (path_known)
            exchange_answer(x, 405, "text/plain", span_str("method not allowed\n"));
        else
            exchange_error(x, ERR_NOT_FOUND, "there is nothing at this path");
    } else if (x->route->access > session->access) {
        exchange_error(x, ERR_PERMISSION,
                       "this needs the server's unix socket or an admin certificate");
    } else {
        x->route->handle(x);
    }
}

/* A request that can't be understood is answered and ends the connection. */
static void refuse(struct session *session, enum err e, const char *text) {
    session->exchange.head.keep_alive = false;
    session->exchange.head.length = 0;
    session->state = SESSION_WAITING;
    conn_pause(session->conn);
    exchange_error(&session->exchange, e, text);
}

static RESULT read_head(struct session *session, struct why *why) {
    struct exchange *x = &session->exchange;
    TRY(http_parse_request(buf_span(&session->conn->in), &x->head, &session->head_size, why));
    if (!session->timed) conn_timeout(session->conn, REQUEST_TIMEOUT_MS);
    session->timed = true;
    if (session->head_size == 0) return OK;
    if (x->head.length > HTTP_BODY_MAX)
        return fail_with(why, ERR_TOO_LARGE, "the body passes %llu bytes", HTTP_BODY_MAX);
    session->state = SESSION_BODY;
    session->body = buf_new(HTTP_BODY_MAX);
    if (!x->head.expect) return OK;
    TRY(conn_write(session->conn, span_str("HTTP/1.1 100 Continue\r\n\r\n")));
    return conn_flush(session->conn);
}

/* *whole: the body is there. `in` may have moved since the head was parsed: then it is parsed
 * again. */
static RESULT read_body(struct session *session, bool *whole, struct why *why) {
    struct exchange *x = &session->exchange;
    struct buf *in = &session->conn->in;
    *whole = false;
    if (!x->head.chunked) {
        size_t size = session->head_size + (size_t)x->head.length;
        if (in->size < size) return OK;
        TRY(http_parse_request(buf_span(in), &x->head, &session->head_size, why));
        x->body = span_of(in->at + session->head_size, (size_t)x->head.length);
        *whole = true;
        return OK;
    }
    struct cursor c =
        cursor_of(span_of(in->at + session->head_size, in->size - session->head_size));
    enum err e = http_chunks_read(&session->chunks, &c, &session->body, whole);
    if (e != OK)
        return fail_with(why, e,
                         e == ERR_TOO_LARGE ? "the body is too large" : "a malformed chunk");
    size_t left = c.left;
    memmove(in->at + session->head_size, in->at + in->size - left, left);
    in->size = session->head_size + left;
    if (!*whole) return OK;
    x->body = buf_span(&session->body);
    return http_parse_request(buf_span(in), &x->head, &session->head_size, why);
}

static void on_data(struct conn *c) {
    struct session *session = c->ctx;
    session->in_data =
        true; /* answers given inside come back here through the loop, not the stack */
    /* Only the loop parts a session from its connection, so no answer given here frees it.
     * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    while (!c->closing && !c->finishing && c->in.size > 0 && session->state <= SESSION_BODY) {
        struct why why = {0};
        bool whole = false;
        enum session_state before = session->state;
        size_t size_before = c->in.size;
        enum err e =
            before == SESSION_HEAD ? read_head(session, &why) : read_body(session, &whole, &why);
        if (e != OK)
            refuse(session, e, why.text);
        else if (whole)
            dispatch(session);
        else if (session->state == before && c->in.size == size_before)
            break;
    }
    session->in_data = false;
}

/* A manager's certificate outlives its membership, so the node table has the last word. */
static enum access access_of(const struct server *s, const struct conn *c) {
    if (c->handle.type == UV_NAMED_PIPE) return ACCESS_ADMIN;
    if (!c->tls) return ACCESS_CLIENT;
    if (strcmp(c->peer.ou, ROLE_ADMIN) == 0) return ACCESS_ADMIN;
    bool manager = strcmp(c->peer.ou, ROLE_MANAGER) == 0;
    return manager && s->config.is_member(s->config.ctx, c->peer.cn) ? ACCESS_ADMIN : ACCESS_CLIENT;
}

static void on_opened(struct conn *c) {
    struct session *session = c->ctx;
    const struct server *s = session->server;
    if (c->tls && strcmp(c->peer.o, s->cluster_id) != 0) {
        conn_close(c, "its certificate is of another cluster");
        return;
    }
    session->access = access_of(s, c);
    conn_timeout(c, IDLE_TIMEOUT_MS);
}

static void on_drained(struct conn *c) {
    struct session *session = c->ctx;
    if (session->state == SESSION_STREAMING && session->exchange.drained)
        session->exchange.drained(&session->exchange);
}

static void on_expired(struct conn *c) { conn_close(c, "timed out"); }

static const struct conn_events events = {.opened = on_opened,
                                          .data = on_data,
                                          .drained = on_drained,
                                          .expired = on_expired,
                                          .closed = on_closed};

/* --- listeners ------------------------------------------------------------------------------ */

static void session_start(struct server *s, struct session *session, struct conn *c) {
    session->server = s;
    session->conn = c;
    session->exchange.ctx = s->config.ctx;
    session->next = s->sessions;
    session->link = &s->sessions;
    if (s->sessions) s->sessions->link = &session->next;
    s->sessions = session;
    s->n++;
    conn_timeout(c, HANDSHAKE_TIMEOUT_MS);
    if (!c->tls) {
        c->open = true;
        on_opened(c);
    }
    conn_resume(c);
}

static void on_connection(uv_stream_t *listener, int status) {
    struct server *s = listener->data;
    struct why why = {0};
    struct tls_context *tls = listener->type == UV_TCP && !s->plaintext ? s->tls : NULL;
    struct session *session = status == 0 ? calloc(1, sizeof *session) : NULL;
    struct conn *c;
    if (!session || conn_accept(listener, tls, &events, session, &c, &why) != OK) {
        log_event(s->config.log, LOG_WARNING, "api", "a connection was lost: %s",
                  status != 0 ? uv_strerror(status) : why.text);
        free(session);
        return;
    }
    session_start(s, session, c);
    if (s->n > CONNECTIONS_MAX) conn_close(c, "too many connections");
}

RESULT server_new(const struct server_config *config, struct server **out, struct why *why) {
    struct server *s = calloc(1, sizeof *s);
    if (!s) return fail_with(why, ERR_NOMEM, "no memory for the server");
    s->config = *config;
    *out = s;
    return OK;
}

static void on_listener_closed(uv_handle_t *handle) {
    struct server *s = handle->data;
    s->handles--;
    maybe_closed(s);
}

static void close_listener(struct server *s, bool *has, uv_handle_t *handle) {
    if (*has) uv_close(handle, on_listener_closed);
    *has = false;
    (void)s;
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
    s->handles++;
    int rc = uv_pipe_bind(&s->pipe, path);
    if (rc == 0 && chmod(path, 0600) != 0) rc = UV_EPERM;
    if (rc == 0) rc = uv_listen((uv_stream_t *)&s->pipe, 128, on_connection);
    if (rc == 0) return OK;
    close_listener(s, &s->has_pipe, (uv_handle_t *)&s->pipe);
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
    TRY(address_parse(address, &at, why));
    (void)uv_tcp_init(s->config.loop, &s->tcp);
    s->tcp.data = s;
    s->has_tcp = true;
    s->handles++;
    s->plaintext = plaintext;
    int rc = uv_tcp_bind(&s->tcp, (const struct sockaddr *)&at, 0);
    if (rc == 0) rc = uv_listen((uv_stream_t *)&s->tcp, 511, on_connection);
    if (rc == 0) {
        note_address(s);
        return OK;
    }
    close_listener(s, &s->has_tcp, (uv_handle_t *)&s->tcp);
    return fail_with(why, rc == UV_EADDRINUSE ? ERR_IN_USE : ERR_IO, "client address %s: %s",
                     address, uv_strerror(rc));
}

void server_credentials(struct server *s, struct tls_context *tls, const char *cluster_id) {
    if (s->tls) tls_context_release(s->tls);
    s->tls = tls;
    (void)snprintf(s->cluster_id, sizeof s->cluster_id, "%s", cluster_id);
}

const char *server_address(const struct server *s) { return s->has_tcp ? s->address : ""; }

void server_close_tcp(struct server *s) { close_listener(s, &s->has_tcp, (uv_handle_t *)&s->tcp); }

void server_close(struct server *s, void (*closed)(void *ctx), void *ctx) {
    s->closing = true;
    s->closed = closed;
    s->closed_ctx = ctx;
    if (s->has_pipe) (void)unlink(s->path);
    close_listener(s, &s->has_pipe, (uv_handle_t *)&s->pipe);
    close_listener(s, &s->has_tcp, (uv_handle_t *)&s->tcp);
    for (struct session *session = s->sessions; session; session = session->next)
        if (session->conn && session->state <= SESSION_BODY) conn_close(session->conn, "");
    maybe_closed(s);
}
