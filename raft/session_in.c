/* A node's session, as the manager has it: it lives in an accepted connection (peer_in.c), and what
 * it says and hears is the api's.
 *
 * Happy path: TLS with ALPN_NODE and a certificate of this cluster, of any role -> `opened` lets it
 * stay -> every message goes to `message`; session_send seals at once into the connection's queue,
 * and the turn's end writes what all sessions were given.
 *
 * Failure: whoever is not wanted hears why (kind 0: u16 error, block sentence), then has LINGER_MS
 * to close; what it says meanwhile is not heard. A failed or full queue is only noted by
 * session_send, and ends the session at the turn's end, so that no callback fires inside a call.
 * `closed` comes when the loop is done with the connection's handles, never earlier. */
#include <stddef.h>
#include <stdio.h>

#include "raft/peer_internal.h"

static struct inbound *inbound_of(const struct node_session *s) {
    return (struct inbound *)(void *)((char *)(uintptr_t)s - offsetof(struct inbound, session));
}

/* ---- what is to be done at the turn's end ---- */

static void note(struct node_session *s) {
    struct peers *p = peers_of(&inbound_of(s)->channel);
    peers_dirty(p);
    if (s->at != NULL) return;
    s->next = p->said;
    if (s->next != NULL) s->next->at = &s->next;
    s->at = &p->said;
    p->said = s;
}

void session_leave(struct inbound *in) {
    struct node_session *s = &in->session;
    if (s->at == NULL) return;
    *s->at = s->next;
    if (s->next != NULL) s->next->at = s->at;
    s->next = NULL;
    s->at = NULL;
}

void sessions_flush(struct peers *p) {
    while (p->said != NULL) {
        struct node_session *s = p->said;
        struct inbound *in = inbound_of(s);
        session_leave(in);
        if (s->error != OK) {
            session_end(in, NULL, s->error, s->why.text);
            continue;
        }
        channel_flush(&in->channel);
        if (!in->channel.writing) session_drained(in);
    }
}

/* ---- out ---- */

/* The body may hold secrets: the frame is reserved at once, so that nothing is left behind, and
 * wiped. */
static RESULT put_message(struct channel *c, uint8_t kind, struct span body, struct why *why) {
    struct wire_message m = {.type = WIRE_NODE, .node = {.kind = kind, .body = body}};
    struct buf frame = buf_new(SESSION_FRAME_MAX);
    size_t size = body.size + WIRE_NODE_OVERHEAD;
    enum err e = size <= SESSION_FRAME_MAX ? buf_reserve(&frame, size) : ERR_TOO_LARGE;
    if (e == OK) e = wire_encode(&m, &frame);
    if (e == OK && channel_waiting(c) + frame.size > SESSION_QUEUE_MAX)
        e = fail_with(why, ERR_BUSY, "it does not take what is said to it");
    if (e == OK) e = channel_seal(c, buf_span(&frame), why);
    buf_wipe(&frame);
    return e;
}

RESULT session_say(struct channel *c, uint8_t kind, struct span body, struct why *why) {
    enum err e = put_message(c, kind, body, why);
    if (e != OK && why->text[0] == '\0') (void)fail_with(why, e, "%s", err_text(e));
    return e;
}

void session_send(struct node_session *s, uint8_t kind, struct span body) {
    struct inbound *in = inbound_of(s);
    if (in->state != IN_SESSION || in->channel.closing || s->error != OK) return;
    s->error = kind == 0 ? ERR_INVALID : session_say(&in->channel, kind, body, &s->why);
    note(s);
}

static RESULT last_word(struct channel *c, enum err e, const char *text, struct why *why) {
    struct buf word = buf_new(2 * WHY_MAX);
    enum err f = buf_u16(&word, (uint16_t)e);
    if (f == OK) f = buf_block(&word, span_of(text, strnlen(text, WHY_MAX - 1)));
    if (f == OK) f = put_message(c, 0, buf_span(&word), why);
    buf_free(&word);
    return f;
}

void session_end(struct inbound *in, struct limiter *limiter, enum err e, const char *text) {
    struct peers *p = peers_of(&in->channel);
    struct why why = {0};
    if (in->state != IN_SESSION || in->channel.closing) return;
    if (text[0] == '\0') text = err_text(e);
    peers_log(p, limiter, LEVEL_INFO, "session of node %s at %s cut: %s", in->who.subject.cn,
              in->channel.remote, text);
    inbound_become(in, IN_ENDED);
    session_leave(in);
    channel_deadline(&in->channel, LINGER_MS);
    e = last_word(&in->channel, e, text, &why);
    if (e == OK) e = tls_shutdown(in->channel.tls);
    if (e != OK)
        channel_fail(&in->channel, e, why.text);
    else
        channel_flush(&in->channel);
}

void session_cut(struct node_session *s, enum err e, const char *text) {
    session_end(inbound_of(s), NULL, e == OK ? ERR_CLOSED : e, text);
}

/* ---- in ---- */

RESULT session_open(struct inbound *in, struct why *why) {
    struct peers *p = peers_of(&in->channel);
    const struct node_events *on = p->config.node;
    if (on == NULL) return fail_with(why, ERR_PROTOCOL, "sessions of nodes are not taken here");
    if (p->sessions >= SESSIONS_MAX)
        return fail_with(why, ERR_BUSY, "more than %u nodes at once", SESSIONS_MAX);
    enum err e = peers_caller(p, &in->channel, &in->who, why);
    if (e == ERR_NOT_FOUND) return fail_with(why, ERR_CERTIFICATE, "it shows no certificate");
    TRY(e);
    inbound_become(in, IN_SESSION);
    channel_deadline(&in->channel, 0);
    channel_sessions(&in->channel);
    in->session.told = true; /* what it says of the session in here is heard */
    e = on->opened(p->config.ctx, &in->session, &in->who, why);
    in->session.told = e == OK;
    if (e == OK) return OK;
    p->figures.refused++;
    session_end(in, peers_limiter(&in->channel), e, why->text);
    return OK;
}

RESULT session_frame(struct inbound *in, struct span frame, struct why *why) {
    struct peers *p = peers_of(&in->channel);
    struct wire_message m;
    enum err e = wire_decode(frame, &m);
    if (e != OK || m.type != WIRE_NODE || m.node.kind == 0)
        e = fail_with(why, ERR_PROTOCOL, "a frame that nodes don't send");
    else
        e = p->config.node->message(p->config.ctx, &in->session, m.node.kind, m.node.body, why);
    if (e != OK) session_end(in, peers_limiter(&in->channel), e, why->text);
    return OK;
}

void session_review(struct inbound *in) {
    struct peers *p = peers_of(&in->channel);
    const struct node_events *on = p->config.node;
    struct why why = {0};
    if (on->stays == NULL || in->session.error != OK) return;
    enum err e = on->stays(p->config.ctx, &in->session, &in->who, &why);
    if (e != OK) session_end(in, NULL, e, why.text);
}

void session_drained(struct inbound *in) {
    struct peers *p = peers_of(&in->channel);
    if (in->state != IN_SESSION || in->channel.closing || !p->config.node->drained) return;
    p->config.node->drained(p->config.ctx, &in->session);
}

void session_gone(struct inbound *in) {
    struct peers *p = peers_of(&in->channel);
    if (in->session.told) p->config.node->closed(p->config.ctx, &in->session);
}

/* ---- the owner's ---- */

void session_set(struct node_session *s, void *owner) { s->owner = owner; }

void *session_get(const struct node_session *s) { return s->owner; }

size_t session_waiting(const struct node_session *s) {
    return channel_waiting(&inbound_of(s)->channel);
}

const struct node_caller *session_caller(const struct node_session *s) {
    return &inbound_of(s)->who;
}
