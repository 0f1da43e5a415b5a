/* A lane: the connections of one loop, see session.h. What a connection tells goes to its session's
 * protocol; which one that is, is found out here. Nothing here knows whether handlers run on the
 * same loop. Happy path: lane_take -> opened -> the protocol -> session_free. Close: lane_stop ends
 * idle connections at once, the others after their answers; `gone` is the last call. The same
 * for those whose certificate is trusted no more (lane_review), within times.grace. */
#include <stdlib.h>
#include <unistd.h>

#include "api/http/io_loop.h"
#include "api/http/session.h"

static void on_conns_gone(struct conns *all, void *ctx) {
    struct lane *lane = ctx;
    (void)all;
    http2_setup_free(lane->http2);
    tls_context_release(lane->trust);
    lane->gone(lane);
}

void lane_maybe_gone(struct lane *lane) {
    if (!lane->closing || lane->held || lane->last || lane->n > 0) return;
    lane->last = true;
    conns_close(&lane->conns, on_conns_gone, lane);
}

RESULT lane_open(struct lane *lane, struct server *server, uv_loop_t *loop, struct io_loop *io,
                 struct why *why) {
    *lane = (struct lane){.server = server, .loop = loop, .io = io};
    TRY(http2_setup_new(&lane->http2, why));
    enum err e = conns_open(loop, server->config.times.stall, &lane->conns, why);
    if (e != OK) http2_setup_free(lane->http2);
    return e;
}

/* --- sessions ------------------------------------------------------------------------------- */

void session_free(struct session *session) {
    struct lane *lane = session->lane;
    *session->link = session->next;
    if (session->next) session->next->link = session->link;
    lane->n--;
    if (session->far) io_loop_left(session->far);
    free(session);
    lane_maybe_gone(lane);
}

static void on_closed(struct conn *c, const char *reason) {
    struct session *session = c->ctx;
    if (reason[0])
        log_event(session->server->config.log, LOG_DEBUG, "api", "a client's connection: %s",
                  reason);
    session->conn = NULL;
    if (session->protocol)
        session->protocol->left(session, &c->in);
    else
        session_free(session);
}

static enum standing standing_of(const struct session *session) {
    const struct conn *c = session->conn;
    if (c->handle.type == UV_NAMED_PIPE) return STANDING_ADMIN;
    if (!c->tls || !session->cluster_id[0]) return STANDING_CLIENT;
    if (strcmp(c->peer.ou, ROLE_ADMIN) == 0) return STANDING_ADMIN;
    return strcmp(c->peer.ou, ROLE_MANAGER) == 0 ? STANDING_MANAGER : STANDING_CLIENT;
}

static void note_caller(struct session *session) {
    const struct conn *c = session->conn;
    struct caller *caller = &session->caller;
    uint8_t issuer[KEY_DIGEST_SIZE];
    session->standing = standing_of(session);
    caller->tls = c->tls != NULL;
    caller->by_certificate = caller->tls && c->peer.cn[0];
    (void)snprintf(caller->name, sizeof caller->name, "%s", c->peer.cn);
    if (session->standing == STANDING_MANAGER &&
        tls_peer_digests(c->tls, caller->key, issuer) != OK)
        caller->barred = "the key of this certificate can't be told";
    if (caller->tls && session->cluster_id[0] && strcmp(c->peer.ou, ROLE_WORKER) == 0)
        caller->barred = "a worker's certificate is none for clients: `conclave cert` makes them";
}

static void start(struct session *session, const struct protocol *protocol) {
    session->protocol = protocol;
    if (protocol->start(session) == OK) return;
    session->protocol = NULL;
    conn_close(session->conn, "no memory for a session");
}

/* ALPN decides where there is any; else the first bytes, which no request of HTTP/1 begins with. */
static void find_protocol(struct session *session) {
    static const char preface[] = "PRI ";
    const struct conn *c = session->conn;
    const char *alpn = c->tls ? tls_alpn(c->tls) : "";
    size_t size = c->in.size < sizeof preface - 1 ? c->in.size : sizeof preface - 1;
    if (strcmp(alpn, "h2") == 0)
        start(session, &http2_protocol);
    else if (alpn[0] || (size > 0 && memcmp(c->in.at, preface, size) != 0))
        start(session, &http1_protocol);
    else if (size == sizeof preface - 1)
        start(session, &http2_protocol);
}

static void note_origin(struct conn *c, char *out, size_t room) {
    struct sockaddr_storage from = {0};
    int size = sizeof from;
    out[0] = 0;
    if (c->handle.type == UV_NAMED_PIPE)
        (void)snprintf(out, room, "socket");
    else if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&from, &size) == 0)
        (void)uv_ip_name((const struct sockaddr *)&from, out, room);
}

static void judge(struct session *session) {
    struct conn *c = session->conn;
    if (!c->certified || c->closing || tls_review(c->tls, session->lane->trust) == OK) return;
    session->caller.barred = "this certificate is not trusted any more";
    if (!session->protocol) {
        conn_close(c, session->caller.barred);
        return;
    }
    conn_end(c, session->server->config.times.grace);
    session->protocol->stop(session);
}

void lane_review(struct lane *lane, struct tls_context *by) {
    tls_context_release(lane->trust);
    lane->trust = tls_context_share(by);
    for (struct session *session = lane->sessions; session; session = session->next) {
        if (!session->conn || !session->conn->tls) continue;
        session->unjudged = !session->conn->open;
        if (session->conn->open) judge(session);
    }
}

static void on_opened(struct conn *c) {
    struct session *session = c->ctx;
    if (c->certified && session->cluster_id[0] && strcmp(c->peer.o, session->cluster_id) != 0) {
        conn_close(c, "its certificate is of another cluster");
        return;
    }
    note_caller(session);
    note_origin(c, session->caller.from, sizeof session->caller.from);
    conn_timeout(c, session->server->config.times.idle);
    if (session->lane->closing) conn_close(c, "");
    if (session->unjudged) judge(session);
    if (!c->closing) find_protocol(session);
}

static void on_data(struct conn *c) {
    struct session *session = c->ctx;
    if (!session->protocol) find_protocol(session);
    if (session->protocol && !c->closing) session->protocol->data(session);
}

static void on_fill(struct conn *c) {
    struct session *session = c->ctx;
    if (session->protocol) session->protocol->fill(session);
}

static void on_drained(struct conn *c) {
    struct session *session = c->ctx;
    if (session->protocol) session->protocol->drained(session);
}

static void on_expired(struct conn *c) {
    struct session *session = c->ctx;
    if (session->protocol)
        session->protocol->expired(session);
    else
        conn_close(c, "timed out");
}

static const struct conn_events events = {.opened = on_opened,
                                          .data = on_data,
                                          .fill = on_fill,
                                          .drained = on_drained,
                                          .expired = on_expired,
                                          .closed = on_closed};

static void session_start(struct lane *lane, struct session *session, struct conn *c) {
    session->conn = c;
    session->next = lane->sessions;
    session->link = &lane->sessions;
    if (lane->sessions) lane->sessions->link = &session->next;
    lane->sessions = session;
    lane->n++;
    conn_timeout(c, HANDSHAKE_TIMEOUT_MS);
    if (!c->tls) {
        c->open = true;
        on_opened(c);
    }
    conn_resume(c);
}

static RESULT connect_it(struct lane *lane, const struct arrival *a, struct session *session,
                         struct conn **out, struct why *why) {
    if (a->listener)
        return conn_accept(&lane->conns, a->listener, a->tls, &events, session, out, why);
    return conn_adopt(&lane->conns, a->fd, a->pipe, a->started, &events, session, out, why);
}

static RESULT no_memory(struct lane *lane, const struct arrival *a, struct why *why) {
    if (a->listener) {
        conn_refuse(&lane->conns, a->listener);
    } else {
        (void)close(a->fd);
        tls_free(a->started);
    }
    return fail_with(why, ERR_NOMEM, "no memory for a session");
}

RESULT lane_take(struct lane *lane, const struct arrival *a, struct why *why) {
    struct session *session = calloc(1, sizeof *session);
    struct conn *c;
    if (!session) return no_memory(lane, a, why);
    enum err e = connect_it(lane, a, session, &c, why);
    if (e != OK) {
        free(session);
        return e;
    }
    session->server = lane->server;
    session->lane = lane;
    session->far = a->far;
    (void)snprintf(session->cluster_id, sizeof session->cluster_id, "%s", a->cluster_id);
    session_start(lane, session, c);
    return OK;
}

void lane_stop(struct lane *lane) {
    lane->closing = true;
    for (struct session *session = lane->sessions; session; session = session->next) {
        if (!session->conn) continue;
        if (session->protocol)
            session->protocol->stop(session);
        else
            conn_close(session->conn, "");
    }
    lane_maybe_gone(lane);
}
