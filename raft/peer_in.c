/* Accepted connections: a member that sends us its frames, a newcomer with one question, or a node
 * with its session (session_in.c).
 *
 * Happy path of a member: TLS with ALPN_PEER and a certificate -> its HELLO, in which certificate,
 * node id, raft id and member table must agree -> our HELLO -> OPEN; every frame goes to `frame`
 * where it lies. A member has one such connection: a newer one ends the older. Happy path of a
 * newcomer, with or without a certificate: TLS with ALPN_JOIN -> WIRE_JOIN -> `join` -> join_answer
 * -> it closes.
 *
 * Failure: whatever does not fit is cut, counted, and told to the log, at most once a second for
 * one source address. An outsider can hold at most STRANGERS_MAX + JOINS_MAX connections, each with
 * less than HELLO_FRAME_MAX or JOIN_FRAME_MAX bytes of memory beside TLS's own, and each for a
 * limited time; past STRANGERS_MAX the oldest stranger is cut, so that members still get through,
 * and past JOINS_MAX the oldest newcomer that has asked nothing. Likewise those that renew: one
 * node holds RENEWALS_EACH_MAX connections at most, all of them RENEWALS_MAX.
 */
#include <netinet/in.h>
#include <stdlib.h>

#include "raft/peer_internal.h"

/* What `join` got, until it is answered; may outlive the connection and the peers. */
struct join_connection {
    struct inbound *in; /* NULL: the newcomer has gone */
};

/* ---- states, and the counts that bound them ---- */

static bool is_stranger(enum in_state s) { return s == IN_HANDSHAKE || s == IN_HELLO; }

static void count(const struct inbound *in, unsigned more) {
    struct peers *p = peers_of(&in->channel);
    if (is_stranger(in->state))
        p->strangers += more;
    else if (in->state == IN_SESSION || in->state == IN_ENDED)
        p->sessions += more;
    else if (in->state != IN_OPEN && in->known)
        p->renewals += more;
    else if (in->state != IN_OPEN)
        p->joins += more;
}

void inbound_become(struct inbound *in, enum in_state state) {
    count(in, (unsigned)-1);
    in->state = state;
    count(in, 1);
}

static void list_add(struct peers *p, struct inbound *in) {
    in->prev = p->in_last;
    if (p->in_last != NULL)
        p->in_last->next = in;
    else
        p->in_first = in;
    p->in_last = in;
}

static void list_remove(struct peers *p, struct inbound *in) {
    if (in->prev != NULL)
        in->prev->next = in->next;
    else
        p->in_first = in->next;
    if (in->next != NULL)
        in->next->prev = in->prev;
    else
        p->in_last = in->prev;
}

void inbound_close(struct inbound *in) {
    struct peers *p = peers_of(&in->channel);
    if (in->channel.closing) return;
    count(in, (unsigned)-1);
    list_remove(p, in);
    if (in->link != NULL) in->link->in = NULL;
    if (in->join != NULL) in->join->in = NULL;
    in->link = NULL;
    in->channel.counts = NULL;
    in->join = NULL;
    session_leave(in);
    channel_close(&in->channel);
}

static uint64_t patience_ms(struct peers *p) {
    return p->config.handshake_ms != 0 ? p->config.handshake_ms : HANDSHAKE_TIMEOUT_MS;
}

/* ---- a member ---- */

static RESULT open_peer(struct inbound *in, struct why *why) {
    TRY(peers_manager(peers_of(&in->channel), &in->channel, &in->who, why));
    inbound_become(in, IN_HELLO);
    return OK;
}

static RESULT take_hello(struct inbound *in, struct span frame, struct why *why) {
    struct peers *p = peers_of(&in->channel);
    struct link *l = NULL;
    struct wire_hello theirs;
    TRY(peers_check_hello(p, frame, &in->who, &theirs, &l, why));
    struct buf ours = buf_new(HELLO_FRAME_MAX);
    enum err e = peers_hello(p, &ours);
    if (e == OK) e = channel_seal(&in->channel, buf_span(&ours), why);
    buf_free(&ours);
    TRY(e);
    if (l->in != NULL) inbound_close(l->in);
    l->in = in;
    in->link = l;
    in->channel.counts = l;
    inbound_become(in, IN_OPEN);
    channel_deadline(&in->channel, 0);
    channel_accept_frames(&in->channel, FRAME_MAX);
    peers_log(p, NULL, LEVEL_DEBUG, "member %s connected from %s", l->node_id, in->channel.remote);
    link_hurry(l);
    peers_tell_moved(p, l, theirs.peer_address);
    return OK;
}

static RESULT take_frame(struct inbound *in, struct span frame, struct why *why) {
    struct peers *p = peers_of(&in->channel);
    uint8_t type = frame.at[WIRE_HEADER - 1];
    if (type <= WIRE_HELLO || type >= WIRE_JOIN)
        return fail_with(why, ERR_PROTOCOL, "a frame of type %u, which members don't send", type);
    p->figures.frames_in++;
    if (!p->config.frame(p->config.ctx, in->link->raft_id, frame))
        return fail_with(why, ERR_PROTOCOL, "a frame of type %u that can't be read", type);
    return OK;
}

/* ---- a newcomer ---- */

static bool is_of(const struct inbound *in, const char *cn) {
    return strcmp(in->who.subject.cn, cn) == 0;
}

/* A question comes right behind its handshake; who keeps it back makes room. `cn` NULL: any. */
static void cut_oldest_silent(struct peers *p, bool known, const char *cn) {
    struct inbound *in = p->in_first;
    while (in != NULL && (in->state != IN_JOIN || in->known != known || (cn && !is_of(in, cn))))
        in = in->next;
    if (in == NULL) return;
    channel_fail(&in->channel, ERR_BUSY,
                 known ? "too many renewals that ask nothing"
                       : "too many newcomers that ask nothing");
}

static unsigned renewals_of(const struct peers *p, const char *cn) {
    unsigned n = 0;
    for (const struct inbound *in = p->in_first; in != NULL; in = in->next)
        n += in->known && is_of(in, cn);
    return n;
}

static RESULT renewal_room(struct peers *p, const char *cn, struct why *why) {
    if (renewals_of(p, cn) >= RENEWALS_EACH_MAX) cut_oldest_silent(p, true, cn);
    if (renewals_of(p, cn) >= RENEWALS_EACH_MAX)
        return fail_with(why, ERR_BUSY, "more than %u renewals of one node at once",
                         RENEWALS_EACH_MAX);
    if (p->renewals >= RENEWALS_MAX) cut_oldest_silent(p, true, NULL);
    if (p->renewals < RENEWALS_MAX) return OK;
    return fail_with(why, ERR_BUSY, "more than %u renewals at once", RENEWALS_MAX);
}

static RESULT newcomer_room(struct peers *p, struct why *why) {
    if (p->joins >= JOINS_MAX) cut_oldest_silent(p, false, NULL);
    if (p->joins < JOINS_MAX) return OK;
    return fail_with(why, ERR_BUSY, "more than %u newcomers at once", JOINS_MAX);
}

/* Newcomers can be anybody: however many they are, the nodes get through; and of these, each. */
static RESULT open_join(struct inbound *in, struct why *why) {
    struct peers *p = peers_of(&in->channel);
    enum err e = peers_caller(p, &in->channel, &in->who, why);
    if (e != OK && e != ERR_NOT_FOUND) return e;
    TRY(e == OK ? renewal_room(p, in->who.subject.cn, why) : newcomer_room(p, why));
    in->known = e == OK;
    inbound_become(in, IN_JOIN);
    channel_deadline(&in->channel, patience_ms(p));
    channel_accept_frames(&in->channel, JOIN_FRAME_MAX);
    return OK;
}

static RESULT take_join(struct inbound *in, struct span frame, struct why *why) {
    struct peers *p = peers_of(&in->channel);
    struct wire_message m;
    TRY(wire_decode(frame, &m));
    if (m.type != WIRE_JOIN || p->config.join == NULL)
        return fail_with(why, ERR_PROTOCOL, "a frame of type %u, which newcomers don't send",
                         (unsigned)m.type);
    struct join_connection *c = calloc(1, sizeof *c);
    if (c == NULL) return ERR_NOMEM;
    c->in = in;
    in->join = c;
    inbound_become(in, IN_ASKED);
    channel_deadline(&in->channel, JOIN_WAIT_MS);
    p->config.join(p->config.ctx, c, &m.join, &in->who);
    return OK;
}

/* It may hold the unlock key: reserved at once, so that nothing is left behind, and wiped. */
static RESULT send_answer(struct inbound *in, const struct wire_joined *answer, struct why *why) {
    struct wire_message m = {.type = WIRE_JOINED, .joined = *answer};
    struct buf frame = buf_new(JOINED_FRAME_MAX);
    enum err e = buf_reserve(&frame, JOINED_FRAME_MAX);
    if (e == OK) e = wire_encode(&m, &frame);
    if (e == OK) e = channel_seal(&in->channel, buf_span(&frame), why);
    if (e == OK) e = tls_shutdown(in->channel.tls);
    buf_wipe(&frame);
    return e;
}

void join_answer(struct join_connection *c, const struct wire_joined *answer) {
    struct inbound *in = c->in;
    struct why why = {0};
    free(c);
    if (in == NULL) return;
    in->join = NULL;
    inbound_become(in, IN_ANSWERED);
    channel_deadline(&in->channel,
                     LINGER_MS); /* the newcomer closes; until then its bytes are read */
    enum err e = send_answer(in, answer, &why);
    if (e != OK)
        channel_fail(&in->channel, e, why.text);
    else
        channel_flush(&in->channel);
}

/* ---- the connection's events ---- */

static RESULT on_opened(struct channel *c, struct why *why) {
    struct inbound *in = (struct inbound *)c;
    const char *alpn = tls_alpn(c->tls);
    if (strcmp(alpn, ALPN_PEER) == 0) return open_peer(in, why);
    if (strcmp(alpn, ALPN_JOIN) == 0) return open_join(in, why);
    if (strcmp(alpn, ALPN_NODE) == 0) return session_open(in, why);
    return fail_with(why, ERR_PROTOCOL, "it asks for no protocol that is spoken here");
}

static RESULT on_frame(struct channel *c, struct span frame, struct why *why) {
    struct inbound *in = (struct inbound *)c;
    switch (in->state) {
    case IN_HELLO: return take_hello(in, frame, why);
    case IN_OPEN: return take_frame(in, frame, why);
    case IN_JOIN: return take_join(in, frame, why);
    case IN_SESSION: return session_frame(in, frame, why);
    case IN_ANSWERED:
    case IN_ENDED: return OK;
    case IN_HANDSHAKE:
    case IN_ASKED: break;
    }
    return fail_with(why, ERR_PROTOCOL, "a frame out of turn");
}

static void on_drained(struct channel *c) { session_drained((struct inbound *)(void *)c); }

static void on_failed(struct channel *c, enum err e, const char *text) {
    struct inbound *in = (struct inbound *)c;
    struct peers *p = peers_of(c);
    bool quiet = e == ERR_CLOSED && in->state != IN_HELLO;
    if (in->state == IN_OPEN) {
        peers_log(p, &in->link->limiter, LEVEL_INFO, "member %s at %s: its connection ended: %s",
                  in->link->node_id, c->remote, text);
    } else if (in->state == IN_SESSION) {
        peers_log(p, peers_limiter(c), LEVEL_DEBUG, "node %s at %s: its session ended: %s",
                  in->who.subject.cn, c->remote, text);
    } else if (in->state == IN_ANSWERED || in->state == IN_ENDED || quiet) {
        peers_log(p, NULL, LEVEL_DEBUG, "connection from %s ended: %s", c->remote, text);
    } else {
        p->figures.refused++;
        peers_log(p, peers_limiter(c), LEVEL_WARNING, "connection from %s refused: %s", c->remote,
                  text);
    }
    inbound_close(in);
}

static void on_gone(struct channel *c) {
    struct inbound *in = (struct inbound *)c;
    session_gone(in);
    free(in);
}

static const struct channel_events inbound_events = {
    .opened = on_opened,
    .frame = on_frame,
    .drained = on_drained,
    .failed = on_failed,
    .gone = on_gone,
};

/* ---- accepting ---- */

static void cut_oldest_stranger(struct peers *p) {
    struct inbound *in = p->in_first;
    while (in != NULL && !is_stranger(in->state))
        in = in->next;
    if (in != NULL) channel_fail(&in->channel, ERR_BUSY, "too many connections that say nothing");
}

static void on_rejected(uv_handle_t *h) {
    struct peers *p = h->data;
    p->rejecting = false;
    if (p->reject_more && !p->closing) {
        p->reject_more = false;
        peers_accept((uv_stream_t *)&p->listener, 0);
    }
    home_leave(&p->home);
}

/* Without memory a connection is still to be taken, or libuv would listen no more. */
static void reject(struct peers *p, const char *reason) {
    peers_log(p, &p->limiters[0], LEVEL_ERROR, "can't take a connection: %s", reason);
    p->reject_more = p->rejecting;
    if (p->rejecting) return;
    p->rejecting = true;
    (void)uv_tcp_init(p->config.loop, &p->rejected);
    p->rejected.data = p;
    p->home.handles++;
    (void)uv_accept((uv_stream_t *)&p->listener, (uv_stream_t *)&p->rejected);
    uv_close((uv_handle_t *)&p->rejected, on_rejected);
}

void peers_accept(uv_stream_t *listener, int status) {
    struct peers *p = listener->data;
    struct why why = {0};
    if (p->closing || status != 0) return;
    if (p->strangers >= STRANGERS_MAX) cut_oldest_stranger(p);
    struct inbound *in = calloc(1, sizeof *in);
    if (in == NULL ||
        channel_init(&in->channel, &p->home, &inbound_events, p->server, &why) != OK) {
        free(in);
        reject(p, why.text[0] != '\0' ? why.text : err_text(ERR_NOMEM));
        return;
    }
    count(in, 1);
    list_add(p, in);
    int e = uv_accept(listener, (uv_stream_t *)&in->channel.tcp);
    channel_deadline(&in->channel, patience_ms(p));
    if (e != 0)
        channel_fail(&in->channel, err_from_errno(-e), uv_strerror(e));
    else
        channel_start(&in->channel);
}
