/* The uplink: a node's session with a manager, as the node has it. One attempt at one address; a
 * name that has several addresses is tried at each of them until one takes the connection.
 *
 * Happy path: uplink_open -> the name is looked up (numeric: at once) -> connect -> TLS with both
 * certificates, in which the server must be a manager of the cluster -> OPEN, `opened`; then
 * messages both ways. What is said in a turn is written in the next one, together.
 *
 * Failure: from any state to CLOSED, once, with the manager's own sentence when it has said one
 * (kind 0). What fails inside a call is only noted, and told by the timer. Close: uplink_free
 * closes what there is; the last handle that goes frees the memory and calls `freed`. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "raft/peer_internal.h"

#define UPLINK_READ (16 * KIB) /* one read of the socket */

enum uplink_state { UPLINK_CONNECTING, UPLINK_HANDSHAKE, UPLINK_OPEN, UPLINK_CLOSED };

/* One connection; given up, it goes when the loop is done with it. */
struct attempt {
    struct channel channel; /* first: a channel of ours is an attempt */
    uv_connect_t connect;
    struct uplink *uplink; /* NULL: given up */
};

struct uplink {
    struct channel_home home;    /* first: a home of ours is an uplink */
    struct uplink_config config; /* its spans and its key are not kept */
    struct tls_context *tls;
    enum uplink_state state;
    struct attempt *attempt;     /* NULL: none now */
    uv_getaddrinfo_t resolve;    /* of a name */
    bool resolving;              /* it is under way */
    struct addrinfo *found;      /* what it gave; owned */
    const struct addrinfo *next; /* of found, to be tried next */
    uv_timer_t soon;             /* fires in the next turn: to write, or to tell `error` */
    uv_timer_t deadline;         /* until it is open */
    enum err error;              /* it is to be closed with `why`; OK: none */
    struct why why;
    bool freeing; /* uplink_free was called */
    void (*freed)(void *ctx);
    void *freed_ctx;
    char read[UPLINK_READ]; /* its socket is read into this */
};

/* ---- the end ---- */

static void give_up(struct uplink *u) {
    if (u->attempt == NULL) return;
    u->attempt->uplink = NULL;
    channel_close(&u->attempt->channel);
    u->attempt = NULL;
}

/* From a callback of the loop only. */
static void end(struct uplink *u, enum err e, const char *text) {
    struct why why;
    if (u->state == UPLINK_CLOSED) return;
    (void)fail_with(&why, e, "%s", text[0] != '\0' ? text : err_text(e));
    u->state = UPLINK_CLOSED;
    give_up(u);
    if (u->resolving) (void)uv_cancel((uv_req_t *)&u->resolve);
    (void)uv_timer_stop(&u->soon);
    (void)uv_timer_stop(&u->deadline);
    u->config.closed(u->config.ctx, u, e, why.text);
}

static void on_soon(uv_timer_t *t) {
    struct uplink *u = t->data;
    if (u->error != OK)
        end(u, u->error, u->why.text);
    else if (u->attempt != NULL)
        channel_flush(&u->attempt->channel);
}

static void soon(struct uplink *u) { (void)uv_timer_start(&u->soon, on_soon, 0, 0); }

static void on_deadline(uv_timer_t *t) {
    struct uplink *u = t->data;
    struct why why;
    enum err e = fail_with(&why, ERR_TIMEOUT, "%s: no answer in time", u->config.address);
    end(u, e, why.text);
}

/* ---- connecting ---- */

static void dial_next(struct uplink *u);

static void unreachable(struct uplink *u, const char *text) {
    struct why why;
    enum err e = fail_with(&why, ERR_UNREACHABLE, "%s: %s", u->config.address, text);
    end(u, e, why.text);
}

static void on_connected(uv_connect_t *req, int status) {
    struct attempt *a = req->data;
    struct uplink *u = a->uplink;
    if (u == NULL) return;
    if (status == 0) {
        u->state = UPLINK_HANDSHAKE;
        channel_start(&a->channel);
        return;
    }
    give_up(u);
    if (u->next != NULL)
        dial_next(u);
    else
        unreachable(u, uv_strerror(status));
}

static const struct channel_events uplink_events;

/* On error nothing is left. */
static RESULT dial(struct uplink *u, const struct sockaddr *to, struct why *why) {
    struct attempt *a = calloc(1, sizeof *a);
    if (a == NULL) return ERR_NOMEM;
    enum err e = channel_init(&a->channel, &u->home, &uplink_events, u->tls, why);
    if (e != OK) {
        free(a);
        return e;
    }
    a->uplink = u;
    a->connect.data = a;
    u->attempt = a;
    channel_sessions(&a->channel);
    int rv = uv_tcp_connect(&a->connect, &a->channel.tcp, to, on_connected);
    if (rv == 0) return OK;
    give_up(u);
    return fail_with(why, ERR_UNREACHABLE, "%s: %s", u->config.address, uv_strerror(rv));
}

/* From a callback of the loop only. */
static void dial_next(struct uplink *u) {
    struct why why = {0};
    enum err e = ERR_UNREACHABLE;
    while (e == ERR_UNREACHABLE && u->next != NULL) {
        const struct addrinfo *a = u->next;
        u->next = a->ai_next;
        e = dial(u, a->ai_addr, &why);
    }
    if (e != OK) end(u, e, why.text);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found) {
    struct uplink *u = req->data;
    u->resolving = false;
    if (u->state == UPLINK_CLOSED || u->freeing) {
        uv_freeaddrinfo(found);
    } else if (status != 0 || found == NULL) {
        uv_freeaddrinfo(found);
        unreachable(u, status == 0 ? "its name has no address" : uv_strerror(status));
    } else {
        u->found = found;
        u->next = found;
        dial_next(u);
    }
    home_leave(&u->home);
}

static RESULT resolve(struct uplink *u, const struct address *a, struct why *why) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    u->resolve.data = u;
    int e = uv_getaddrinfo(u->home.loop, &u->resolve, on_resolved, a->host, a->port, &hints);
    if (e != 0) return fail_with(why, ERR_UNREACHABLE, "%s: %s", u->config.address, uv_strerror(e));
    u->resolving = true;
    u->home.handles++;
    return OK;
}

/* ---- the connection's events ---- */

static RESULT check_server(struct uplink *u, const struct channel *c, struct why *why) {
    struct x509_subject s;
    const char *at = u->config.address;
    if (strcmp(tls_alpn(c->tls), ALPN_NODE) != 0)
        return fail_with(why, ERR_PROTOCOL, "%s is no peer port of a cluster", at);
    if (tls_peer(c->tls, &s) != OK)
        return fail_with(why, ERR_CERTIFICATE, "%s shows no certificate", at);
    if (strcmp(s.o, u->config.cluster_id) != 0)
        return fail_with(why, ERR_CERTIFICATE, "%s: its certificate is of cluster \"%s\"", at, s.o);
    if (strcmp(s.ou, ROLE_MANAGER) != 0)
        return fail_with(why, ERR_CERTIFICATE, "%s: its certificate is a \"%s\"'s, not a manager's",
                         at, s.ou);
    /* A certificate outlives a demotion; the list of managers that the node was told does not. */
    if (u->config.node_id[0] != '\0' && strcmp(s.cn, u->config.node_id) != 0)
        return fail_with(why, ERR_CERTIFICATE, "%s: it is node %s, not %s", at, s.cn,
                         u->config.node_id);
    return OK;
}

static RESULT on_opened(struct channel *c, struct why *why) {
    struct uplink *u = ((struct attempt *)c)->uplink;
    if (u == NULL) return ERR_CLOSED;
    TRY(check_server(u, c, why));
    u->state = UPLINK_OPEN;
    (void)uv_timer_stop(&u->deadline);
    u->config.opened(u->config.ctx, u);
    return OK;
}

/* Why the manager ends it. */
static RESULT take_last_word(struct span body, struct why *why) {
    struct cursor c = cursor_of(body);
    char text[WHY_MAX];
    uint16_t error = 0;
    enum err e = cursor_u16(&c, &error);
    if (e == OK) e = cursor_text(&c, text, sizeof text);
    if (e == OK) e = cursor_end(&c);
    if (e != OK || error == OK || error >= ERR_COUNT)
        return fail_with(why, ERR_PROTOCOL, "a last word that makes no sense");
    return fail_with(why, (enum err)error, "%s", text);
}

static RESULT on_frame(struct channel *c, struct span frame, struct why *why) {
    struct uplink *u = ((struct attempt *)c)->uplink;
    struct wire_message m;
    if (u == NULL) return ERR_CLOSED;
    if (wire_decode(frame, &m) != OK || m.type != WIRE_NODE)
        return fail_with(why, ERR_PROTOCOL, "a frame that managers don't send");
    if (m.node.kind == 0) return take_last_word(m.node.body, why);
    return u->config.message(u->config.ctx, u, m.node.kind, m.node.body, why);
}

static void on_drained(struct channel *c) { (void)c; }

static void on_failed(struct channel *c, enum err e, const char *text) {
    struct uplink *u = ((struct attempt *)c)->uplink;
    if (u == NULL)
        channel_close(c);
    else
        end(u, e, text);
}

static void on_gone(struct channel *c) { free((struct attempt *)c); }

static const struct channel_events uplink_events = {
    .opened = on_opened,
    .frame = on_frame,
    .drained = on_drained,
    .failed = on_failed,
    .gone = on_gone,
};

/* ---- its life ---- */

static void empty(struct channel_home *home) {
    struct uplink *u = (struct uplink *)(void *)home;
    void (*freed)(void *ctx) = u->freed;
    void *ctx = u->freed_ctx;
    tls_context_release(u->tls);
    uv_freeaddrinfo(u->found);
    free(u);
    if (freed != NULL) freed(ctx);
}

static RESULT uplink_context(const struct uplink_config *config, struct tls_context **out,
                             struct why *why) {
    static const char *const alpn[] = {ALPN_NODE, NULL};
    struct tls_config tls = {.verify = TLS_VERIFY_REQUIRED,
                             .root_pem = config->root_pem,
                             .cert_pem = config->cert_pem,
                             .key_pem = config->key_pem,
                             .alpn = alpn};
    return tls_context_new(&tls, out, why);
}

static void start(struct uplink *u, const struct address *a) {
    struct sockaddr_storage to;
    unsigned ms = u->config.handshake_ms;
    (void)uv_timer_start(&u->deadline, on_deadline, ms != 0 ? ms : HANDSHAKE_TIMEOUT_MS, 0);
    u->error = address_numeric(a, &to) == OK ? dial(u, (const struct sockaddr *)&to, &u->why)
                                             : resolve(u, a, &u->why);
    if (u->error != OK) soon(u);
}

RESULT uplink_open(const struct uplink_config *config, struct uplink **out, struct why *why) {
    struct address a;
    TRY(address_split(config->address, &a, why));
    struct uplink *u = calloc(1, sizeof *u);
    if (u == NULL) return fail_with(why, ERR_NOMEM, "no memory for a session");
    enum err e = uplink_context(config, &u->tls, why);
    if (e != OK) {
        free(u);
        return e;
    }
    loop_block_sigpipe();
    u->config = *config;
    u->config.root_pem = u->config.cert_pem = (struct span){0};
    u->config.key_pem = NULL;
    u->home = (struct channel_home){.loop = config->loop,
                                    .read = u->read,
                                    .read_size = sizeof u->read,
                                    .handles = 2,
                                    .empty = empty};
    (void)uv_timer_init(config->loop, &u->soon); /* neither can fail */
    (void)uv_timer_init(config->loop, &u->deadline);
    u->soon.data = u->deadline.data = u;
    start(u, &a);
    *out = u;
    return OK;
}

void uplink_say(struct uplink *u, uint8_t kind, struct span body) {
    if (u->state != UPLINK_OPEN || u->freeing || u->error != OK) return;
    u->error = kind == 0 ? ERR_INVALID : session_say(&u->attempt->channel, kind, body, &u->why);
    soon(u);
}

static void on_timer_closed(uv_handle_t *h) {
    struct uplink *u = h->data;
    home_leave(&u->home);
}

void uplink_free(struct uplink *u, void (*freed)(void *ctx), void *ctx) {
    u->freeing = true;
    u->freed = freed;
    u->freed_ctx = ctx;
    u->state = UPLINK_CLOSED;
    give_up(u);
    if (u->resolving) (void)uv_cancel((uv_req_t *)&u->resolve);
    uv_close((uv_handle_t *)&u->soon, on_timer_closed);
    uv_close((uv_handle_t *)&u->deadline, on_timer_closed);
}
