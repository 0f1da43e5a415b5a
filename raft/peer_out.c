/* A member and our connection to it: dial, prove who we are, send, and when it ends dial again.
 *
 * Happy path: link_dial -> the name is looked up (numeric: at once) -> connect -> TLS, in which the
 * certificate must be the member's -> our HELLO -> its HELLO -> OPEN, `connected`. Then link_send
 * only queues; once a loop turn link_flush seals as much as the socket takes and writes it
 * together. Small frames are gathered in blocks of one TLS record.
 *
 * Failure: in any state the connection is cut, the queue dropped (the engine sends again what
 * matters), and after a back-off with jitter we dial anew. Frames for a member that is not OPEN, or
 * for which PEER_QUEUE_MAX bytes wait, are dropped and counted. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "raft/peer_internal.h"

/* ---- the queue ---- */

static struct block *block_new(struct link *l) {
    struct block *b = l->spare;
    l->spare = NULL;
    if (b == NULL) b = calloc(1, sizeof *b);
    if (b != NULL) b->bytes.max = RECORD_SIZE;
    return b;
}

static void block_free(struct link *l, struct block *b) {
    if (l->spare == NULL && b->bytes.room != 0 && b->bytes.room <= RECORD_SIZE) {
        b->next = NULL;
        buf_clear(&b->bytes);
        l->spare = b;
        return;
    }
    buf_free(&b->bytes);
    free(b);
}

static void queue_push(struct link *l, struct block *b) {
    if (l->tail == NULL)
        l->head = b;
    else
        l->tail->next = b;
    l->tail = b;
}

static void queue_pop(struct link *l) {
    struct block *b = l->head;
    l->head = b->next;
    if (l->head == NULL) l->tail = NULL;
    l->head_at = 0;
    block_free(l, b);
}

static void queue_drop(struct link *l) {
    while (l->head != NULL)
        queue_pop(l);
    l->queued = 0;
}

/* A small frame goes behind others into one record. */
static RESULT gather(struct link *l, struct buf *frame) {
    struct block *b = l->tail;
    if (b == NULL || b->bytes.max != RECORD_SIZE || b->bytes.size + frame->size > RECORD_SIZE) {
        b = block_new(l);
        if (b == NULL) return ERR_NOMEM;
        if (buf_reserve(&b->bytes, RECORD_SIZE) != OK) {
            free(b);
            return ERR_NOMEM;
        }
        queue_push(l, b);
    }
    TRY(buf_add_span(&b->bytes, buf_span(frame)));
    buf_free(frame);
    return OK;
}

static RESULT enqueue(struct link *l, struct buf *frame) {
    size_t size = frame->size;
    if (size < RECORD_SIZE / 2) {
        TRY(gather(l, frame));
    } else {
        struct block *b = calloc(1, sizeof *b);
        if (b == NULL) return ERR_NOMEM;
        b->bytes = *frame;
        *frame = buf_new(frame->max);
        queue_push(l, b);
    }
    l->queued += size;
    return OK;
}

void link_send(struct link *l, struct buf *frame) {
    struct peers_figures *f = &l->peers->figures;
    bool fits = l->state == LINK_OPEN &&
                l->queued + channel_waiting(&l->out->channel) + frame->size <= PEER_QUEUE_MAX;
    if (!fits || enqueue(l, frame) != OK) {
        f->dropped++;
        l->dropped++;
        buf_free(frame);
        return;
    }
    f->frames_out++;
    peers_dirty(l->peers);
}

static RESULT seal_some(struct link *l, struct channel *c, struct why *why) {
    while (l->head != NULL && tls_pending(c->tls).size < SEND_AHEAD) {
        struct buf *b = &l->head->bytes;
        size_t left = b->size - l->head_at;
        size_t size = left < 4 * RECORD_SIZE ? left : 4 * RECORD_SIZE;
        TRY(channel_seal(c, span_of(b->at + l->head_at, size), why));
        l->head_at += size;
        l->queued -= size;
        if (size == left) queue_pop(l);
    }
    return OK;
}

void link_flush(struct link *l) {
    if (l->state != LINK_OPEN) return;
    struct channel *c = &l->out->channel; /* stays readable when closed in between */
    while (!c->closing && !c->writing && l->head != NULL) {
        struct why why = {0};
        enum err e = seal_some(l, c, &why);
        if (e != OK)
            channel_fail(c, e, why.text);
        else
            channel_flush(c);
    }
}

/* ---- leaving a connection ---- */

/* Whatever is under way is given up; it frees itself when the loop is done with it. */
static void leave(struct link *l) {
    if (l->out != NULL) {
        l->out->link = NULL;
        l->out->channel.counts = NULL;
        channel_close(&l->out->channel);
        l->out = NULL;
    }
    if (l->resolve != NULL) {
        l->resolve->link = NULL;
        (void)uv_cancel((uv_req_t *)&l->resolve->req);
        l->resolve = NULL;
    }
    queue_drop(l);
    (void)uv_timer_stop(&l->timer);
}

static void dial(struct link *l);

static void on_back_off(uv_timer_t *t) { dial(t->data); }

/* Doubles from PEER_BACKOFF_MIN_MS; a random half of it, so that members don't dial in step. */
static uint64_t back_off_ms(struct link *l) {
    unsigned shift = l->attempts < 8 ? l->attempts : 8;
    uint64_t ms = (uint64_t)PEER_BACKOFF_MIN_MS << shift;
    if (ms > PEER_BACKOFF_MAX_MS) ms = PEER_BACKOFF_MAX_MS;
    return ms / 2 + random_u64() % (ms / 2 + 1);
}

static void link_fail(struct link *l, const char *text) {
    struct peers *p = l->peers;
    bool was_open = l->state == LINK_OPEN;
    if (was_open && uv_now(p->config.loop) - l->opened_ms >= STABLE_MS) l->attempts = 0;
    peers_log(p, &l->limiter, LEVEL_WARNING, "member %s at %s: %s%s", l->node_id, l->address,
              was_open ? "connection lost: " : "can't connect: ", text);
    leave(l);
    l->state = LINK_WAIT;
    (void)uv_timer_start(&l->timer, on_back_off, back_off_ms(l), 0);
    l->attempts++;
}

/* ---- the connection's events ---- */

static RESULT on_opened(struct channel *c, struct why *why) {
    struct link *l = ((struct outbound *)c)->link;
    struct node_caller who;
    struct buf hello = buf_new(HELLO_FRAME_MAX);
    if (l == NULL) return ERR_CLOSED;
    TRY(peers_manager(peers_of(c), c, &who, why));
    if (strcmp(who.subject.cn, l->node_id) != 0)
        return fail_with(why, ERR_CERTIFICATE, "its certificate is of node %s", who.subject.cn);
    enum err e = peers_hello(peers_of(c), &hello);
    if (e == OK) e = channel_seal(c, buf_span(&hello), why);
    buf_free(&hello);
    return e;
}

/* The acceptor says one thing only: who it is. */
static RESULT on_frame(struct channel *c, struct span frame, struct why *why) {
    struct peers *p = peers_of(c);
    struct link *l = ((struct outbound *)c)->link;
    struct link *of = NULL;
    struct node_caller who;
    struct wire_hello hello;
    if (l == NULL) return ERR_CLOSED;
    if (l->state != LINK_HELLO)
        return fail_with(why, ERR_PROTOCOL, "a frame where none is expected");
    TRY(peers_manager(p, c, &who, why));
    TRY(peers_check_hello(p, frame, &who, &hello, &of, why));
    if (of != l) return fail_with(why, ERR_CERTIFICATE, "another member answers there");
    l->state = LINK_OPEN;
    l->opened_ms = uv_now(p->config.loop);
    channel_deadline(c, 0);
    p->figures.connected++;
    peers_log(p, NULL, LEVEL_INFO, "member %s at %s: connected", l->node_id, l->address);
    p->config.connected(p->config.ctx, l->raft_id);
    if (!c->closing) peers_tell_moved(p, l, hello.peer_address);
    return OK;
}

void link_review(struct link *l) {
    struct node_caller who;
    struct why why = {0};
    if (l->state != LINK_OPEN) return;
    enum err e = peers_manager(l->peers, &l->out->channel, &who, &why);
    if (e == OK) e = peers_judge(l->peers, &who, &why);
    if (e != OK) link_fail(l, why.text);
}

static void on_drained(struct channel *c) {
    struct link *l = ((struct outbound *)c)->link;
    if (l != NULL) link_flush(l);
}

static void on_failed(struct channel *c, enum err e, const char *text) {
    struct link *l = ((struct outbound *)c)->link;
    bool refused = e == ERR_CLOSED && l->state == LINK_HELLO && c->open;
    link_fail(l, refused ? "it closed the connection before its hello; its log says why" : text);
}

static void on_gone(struct channel *c) { free((struct outbound *)c); }

static const struct channel_events outbound_events = {
    .opened = on_opened,
    .frame = on_frame,
    .drained = on_drained,
    .failed = on_failed,
    .gone = on_gone,
};

/* ---- dialing ---- */

static void on_connected(uv_connect_t *req, int status) {
    struct outbound *o = req->data;
    struct link *l = o->link;
    if (l == NULL) return;
    if (status != 0) {
        link_fail(l, uv_strerror(status));
        return;
    }
    l->state = LINK_HELLO;
    channel_start(&o->channel);
}

static uint64_t handshake_ms(struct peers *p) {
    return p->config.handshake_ms != 0 ? p->config.handshake_ms : HANDSHAKE_TIMEOUT_MS;
}

static void dial_to(struct link *l, const struct sockaddr *to) {
    struct peers *p = l->peers;
    struct why why = {0};
    struct outbound *o = calloc(1, sizeof *o);
    if (o == NULL || channel_init(&o->channel, &p->home, &outbound_events, p->client, &why) != OK) {
        free(o);
        link_fail(l, why.text[0] != '\0' ? why.text : err_text(ERR_NOMEM));
        return;
    }
    o->link = l;
    o->channel.counts = l;
    o->connect.data = o;
    l->out = o;
    l->state = LINK_CONNECT;
    channel_deadline(&o->channel, handshake_ms(p));
    int e = uv_tcp_connect(&o->connect, &o->channel.tcp, to, on_connected);
    if (e != 0) link_fail(l, uv_strerror(e));
}

/* A name may have several addresses (localhost: ::1 and 127.0.0.1): each attempt takes the next. */
static const struct addrinfo *choose(const struct addrinfo *found, unsigned attempts) {
    unsigned n = 0;
    for (const struct addrinfo *a = found; a != NULL; a = a->ai_next)
        n++;
    for (unsigned i = n == 0 ? 0 : attempts % n; i > 0; i--)
        found = found->ai_next;
    return found;
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found) {
    struct resolve *r = req->data;
    struct peers *p = r->peers;
    struct link *l = r->link;
    if (l != NULL) {
        l->resolve = NULL;
        const struct addrinfo *a = status == 0 ? choose(found, l->attempts) : NULL;
        if (a == NULL)
            link_fail(l, status == 0 ? "its name has no address" : uv_strerror(status));
        else
            dial_to(l, a->ai_addr);
    }
    uv_freeaddrinfo(found);
    free(r);
    home_leave(&p->home);
}

static void resolve(struct link *l, const struct address *a) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct resolve *r = calloc(1, sizeof *r);
    int e = UV_ENOMEM;
    if (r != NULL) {
        *r = (struct resolve){.peers = l->peers, .link = l};
        r->req.data = r;
        e = uv_getaddrinfo(l->peers->config.loop, &r->req, on_resolved, a->host, a->port, &hints);
    }
    if (e != 0) {
        free(r);
        link_fail(l, uv_strerror(e));
        return;
    }
    l->peers->home.handles++;
    l->resolve = r;
    l->state = LINK_RESOLVE;
}

static void dial(struct link *l) {
    struct address a;
    struct sockaddr_storage to;
    if (address_split(l->address, &a, NULL) != OK)
        link_fail(l, "this is no address");
    else if (address_numeric(&a, &to) == OK)
        dial_to(l, (const struct sockaddr *)&to);
    else
        resolve(l, &a);
}

/* ---- its life ---- */

RESULT link_new(struct peers *p, uint64_t raft_id, const char *node_id, struct link **out) {
    struct link *l = calloc(1, sizeof *l);
    if (l == NULL) return ERR_NOMEM;
    l->peers = p;
    l->raft_id = raft_id;
    (void)snprintf(l->node_id, sizeof l->node_id, "%s", node_id);
    l->state = LINK_IDLE;
    (void)uv_timer_init(p->config.loop, &l->timer);
    l->timer.data = l;
    p->home.handles++;
    *out = l;
    return OK;
}

void link_dial(struct link *l, const char *address) {
    leave(l);
    l->state = LINK_IDLE;
    l->attempts = 0;
    (void)snprintf(l->address, sizeof l->address, "%s", address);
    if (address[0] != '\0') dial(l);
}

void link_hurry(struct link *l) {
    if (l->state != LINK_WAIT) return;
    (void)uv_timer_stop(&l->timer);
    l->attempts = 0;
    dial(l);
}

static void on_link_closed(uv_handle_t *h) {
    struct link *l = h->data;
    struct peers *p = l->peers;
    free(l);
    home_leave(&p->home);
}

void link_free(struct link *l) {
    if (l->in != NULL) inbound_close(l->in);
    leave(l);
    l->state = LINK_IDLE;
    if (l->spare != NULL) buf_free(&l->spare->bytes);
    free(l->spare);
    l->spare = NULL;
    uv_close((uv_handle_t *)&l->timer, on_link_closed);
}
