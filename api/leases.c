/* See leases.h. A call: u8 LEASE_CALL, u32 n, n times (u8 renew, u64 id); the answer: n times (u16
 * error, u64 TTL ms, u64 ms left). Answers of a leader that lost its place meanwhile are refused
 * as a whole (ERR_NOT_LEADER), and so may be a call on its way (ERR_MAYBE_APPLIED): both are asked
 * again until their deadline, since a renewal may happen twice. */
#include "api/leases.h"

#include <assert.h>
#include <stdlib.h>

#include "api/manager.h"

#define AGAIN_MS  50 /* before what failed is tried again */
#define ASK_SIZE  9
#define TOLD_SIZE 18

static uint64_t now_ms(const struct manager *m) {
    return m->clock.now_ms((struct clock *)(uintptr_t)&m->clock);
}

static bool leading(const struct manager *m, uint64_t term) {
    return m->leader == m->self.raft_id && m->term == term && m->state != MANAGER_FAILED;
}

/* --- the clock ------------------------------------------------------------------------------ */

static void on_timer(uv_timer_t *timer);

static void arm(struct manager *m, uint64_t wait_ms) {
    uv_timer_t *timer = &m->leases.timer;
    if (uv_is_active((uv_handle_t *)timer) && uv_timer_get_due_in(timer) <= wait_ms) return;
    uv_update_time(m->config.loop);
    (void)uv_timer_start(timer, on_timer, wait_ms, 0);
}

/* Something is to be tried again. */
static void try_again(struct manager *m) {
    m->leases.again = true;
    arm(m, AGAIN_MS);
}

struct revocation {
    struct write write;
    struct manager *manager;
};

/* What was not done is due again after LESSOR_RETRY_MS; if it is another leader's business now, the
 * lessor has forgotten it. */
static void on_revoked(struct write *w, enum err e, const char *text, const struct result *r) {
    struct revocation *v = w->ctx;
    struct manager *m = v->manager;
    (void)e;
    (void)text;
    (void)r;
    free(v);
    m->leases.revoking--;
    if (lessor_leads(m->leases.lessor) && m->leases.revoking == REVOKING_MAX / 2) arm(m, 0);
}

static RESULT propose_revoke(struct manager *m, uint64_t id) {
    struct command c = {.op = OP_LEASE_REVOKE, .lease = {.id = id}};
    struct revocation *v = calloc(1, sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    *v = (struct revocation){.manager = m};
    v->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_revoked, .ctx = v};
    v->write.proposal.here = true;
    enum err e = command_encode(&c, &v->write.command);
    if (e == OK) {
        e = manager_write(m, &v->write);
    } else {
        buf_wipe(&v->write.command);
    }
    if (e == OK)
        m->leases.revoking++;
    else
        free(v);
    return e;
}

static void tick(struct manager *m) {
    struct lease_clock *l = &m->leases;
    uint64_t ids[REVOKING_MAX], now = now_ms(m), next_ms;
    size_t n = lessor_due(l->lessor, now, ids, REVOKING_MAX - l->revoking, &next_ms);
    for (size_t i = 0; i < n; i++)
        if (propose_revoke(m, ids[i]) != OK) break; /* busy: the rest is due again */
    if (leases_count(store_leases(m->store)) == 0) return;
    arm(m, l->revoking == REVOKING_MAX ? LESSOR_TICK_MS : next_ms - now);
}

static void on_timer(uv_timer_t *timer) {
    struct manager *m = timer->data;
    if (m->replica == NULL || m->leases.stopped) return;
    if (m->leases.again) m->env.wake(m);
    if (lessor_leads(m->leases.lessor)) tick(m);
}

/* --- leading -------------------------------------------------------------------------------- */

static void lead(struct manager *m) {
    struct lease_clock *l = &m->leases;
    if (lessor_lead(l->lessor, store_leases(m->store), now_ms(m)) != OK) {
        try_again(m);
        return;
    }
    l->lead = false;
    if (leases_count(store_leases(m->store)) > 0) arm(m, 0);
}

static void on_read(struct read *rd, enum err e) {
    struct manager *m = rd->ctx;
    struct lease_clock *l = &m->leases;
    l->reading = false;
    if (!l->lead || e == ERR_CLOSED) return;
    if (e == OK && leading(m, l->term))
        lead(m);
    else
        try_again(m);
}

static void begin_to_lead(struct manager *m) {
    struct lease_clock *l = &m->leases;
    l->read = (struct read){.done = on_read, .ctx = m};
    l->term = m->term;
    l->reading = replica_read(m->replica, &l->read) == OK;
    if (!l->reading) try_again(m);
}

/* Also called while the replica is being opened. */
void leases_led(struct manager *m) {
    lessor_follow(m->leases.lessor);
    m->leases.lead = m->leader == m->self.raft_id;
    m->leases.again = true;
    m->env.wake(m);
}

void leases_applied(struct manager *m, struct span command) {
    struct lease_clock *l = &m->leases;
    struct command c;
    struct lease lease;
    uint64_t ms;
    if (!lessor_leads(l->lessor) || command_decode(command, &c) != OK) return;
    if (!lease_find(store_leases(m->store), c.lease.id, &lease)) {
        lessor_revoked(l->lessor, c.lease.id);
        return;
    }
    if (lessor_remaining(l->lessor, lease.id, 0, &ms) == OK) return; /* it was there before */
    if (lessor_granted(l->lessor, &lease, now_ms(m)) == OK) {
        arm(m, lease.ttl_ms < LESSOR_TICK_MS ? lease.ttl_ms : LESSOR_TICK_MS);
        return;
    }
    lessor_follow(l->lessor); /* no memory: all of them anew */
    l->lead = true;
    try_again(m);
}

/* --- asking --------------------------------------------------------------------------------- */

struct lease_round {
    struct call call;
    struct manager *manager;
    struct buf request;
    struct lease_ask *asks;
};

static void finish(struct manager *m, struct lease_ask *a, enum err e) {
    m->leases.n--;
    a->done(a, e);
}

static void finish_all(struct manager *m, struct lease_ask *a, enum err e) {
    for (struct lease_ask *next; a != NULL; a = next) {
        next = a->next;
        finish(m, a, e);
    }
}

static void push(struct lease_clock *l, struct lease_ask *a) {
    a->next = NULL;
    *l->end = a;
    l->end = &a->next;
}

RESULT leases_ask(struct manager *m, struct lease_ask *a) {
    if (m->replica == NULL || m->leases.stopped) return ERR_CLOSED;
    if (m->leases.n >= LEASE_ASKS_MAX) return ERR_BUSY;
    if (a->deadline_ms == 0) a->deadline_ms = now_ms(m) + PROPOSAL_TIMEOUT_MS;
    push(&m->leases, a);
    m->leases.n++;
    m->env.wake(m);
    return OK;
}

/* Nobody answered for certain: those that have time left ask again. */
static void ask_again(struct manager *m, struct lease_ask *a) {
    uint64_t now = now_ms(m);
    for (struct lease_ask *next; a != NULL; a = next) {
        next = a->next;
        if (m->leases.stopped || a->deadline_ms <= now)
            finish(m, a, m->leases.stopped ? ERR_CLOSED : ERR_TIMEOUT);
        else
            push(&m->leases, a);
    }
    if (m->leases.asks != NULL) try_again(m);
}

static RESULT told_next(struct cursor *c, struct lease_ask *a, enum err *e) {
    uint16_t code;
    TRY(cursor_u16(c, &code));
    TRY(cursor_u64(c, &a->ttl_ms));
    TRY(cursor_u64(c, &a->left_ms));
    *e = code < ERR_COUNT ? (enum err)code : ERR_PROTOCOL;
    return OK;
}

static void on_answer(struct call *c, enum err e, struct span answer) {
    struct lease_round *round = c->ctx;
    struct manager *m = round->manager;
    struct lease_ask *a = round->asks;
    struct cursor told = cursor_of(answer);
    buf_free(&round->request);
    free(round);
    if (e == ERR_NOT_LEADER || e == ERR_MAYBE_APPLIED || e == ERR_NO_LEADER) {
        ask_again(m, a);
        return;
    }
    for (struct lease_ask *next; a != NULL; a = next) {
        enum err outcome = e;
        next = a->next;
        if (e == OK && told_next(&told, a, &outcome) != OK) outcome = ERR_PROTOCOL;
        finish(m, a, outcome);
    }
}

/* One call of as many questions as go into one. */
static RESULT call(struct manager *m, struct lease_round *round) {
    struct lease_clock *l = &m->leases;
    struct buf *b = &round->request;
    unsigned n = 0;
    TRY(buf_u8(b, LEASE_CALL));
    TRY(buf_u32(b, 0));
    round->call = (struct call){.done = on_answer, .ctx = round};
    round->call.deadline_ms = l->asks->deadline_ms;
    for (const struct lease_ask *a = l->asks; a != NULL && n < LEASE_CALL_MAX; a = a->next, n++) {
        TRY(buf_u8(b, a->renew));
        TRY(buf_u64(b, a->id));
    }
    put_u32(b->at + 1, n);
    round->call.request = buf_span(b);
    TRY(replica_call(m->replica, &round->call));
    struct lease_ask **cut = &round->asks;
    for (*cut = l->asks; n > 0; n--)
        cut = &(*cut)->next;
    l->asks = *cut;
    if (l->asks == NULL) l->end = &l->asks;
    *cut = NULL;
    return OK;
}

static void send_asks(struct manager *m) {
    while (m->leases.asks != NULL) {
        struct lease_round *round = calloc(1, sizeof *round);
        enum err e = round != NULL ? OK : ERR_NOMEM;
        if (e == OK) {
            *round = (struct lease_round){.manager = m, .request = buf_new(COMMAND_MAX)};
            e = call(m, round);
        }
        if (e == OK) continue;
        if (round != NULL) buf_free(&round->request);
        free(round);
        try_again(m);
        return;
    }
}

void leases_step(struct manager *m) {
    struct lease_clock *l = &m->leases;
    if (m->replica == NULL || l->stopped) return;
    if (l->again || l->asks != NULL) {
        l->again = false;
        if (l->lead && !l->reading) begin_to_lead(m);
        send_asks(m);
    }
}

/* --- answering, on the leader --------------------------------------------------------------- */

struct served {
    struct read read;
    struct manager *manager;
    struct reply *reply;
    uint64_t term;
    uint32_t n;
    uint8_t asks[]; /* as they came */
};

static enum err look_up(struct manager *m, uint64_t id, bool renew, uint64_t *ttl_ms,
                        uint64_t *left_ms) {
    struct lease lease;
    *ttl_ms = *left_ms = 0;
    if (!lease_find(store_leases(m->store), id, &lease)) return ERR_LEASE_NOT_FOUND;
    *ttl_ms = *left_ms = lease.ttl_ms;
    if (renew) return lessor_renew(m->leases.lessor, id, now_ms(m), left_ms);
    return lessor_remaining(m->leases.lessor, id, now_ms(m), left_ms);
}

static RESULT answer_all(struct served *s, struct buf *out) {
    struct cursor c = cursor_of(span_of(s->asks, (size_t)s->n * ASK_SIZE));
    TRY(buf_reserve(out, (size_t)s->n * TOLD_SIZE));
    for (uint32_t i = 0; i < s->n; i++) {
        uint8_t renew;
        uint64_t id, ttl_ms, left_ms;
        TRY(cursor_u8(&c, &renew));
        TRY(cursor_u64(&c, &id));
        TRY(buf_u16(out, (uint16_t)look_up(s->manager, id, renew != 0, &ttl_ms, &left_ms)));
        TRY(buf_u64(out, ttl_ms));
        TRY(buf_u64(out, left_ms));
    }
    return OK;
}

static void on_served(struct read *rd, enum err e) {
    struct served *s = rd->ctx;
    struct manager *m = s->manager;
    struct buf out = buf_new(LEASE_CALL_MAX * TOLD_SIZE);
    if (e == OK && leading(m, s->term) && !lessor_leads(m->leases.lessor)) lead(m);
    if (e == OK && !(leading(m, s->term) && lessor_leads(m->leases.lessor))) e = ERR_NOT_LEADER;
    if (e == OK) e = answer_all(s, &out);
    if (e == ERR_TIMEOUT) e = ERR_NOT_LEADER; /* it may be another one by now */
    reply_send(s->reply, e, e == OK ? buf_span(&out) : span_of(NULL, 0));
    buf_free(&out);
    free(s);
}

static RESULT serve(struct manager *m, struct span request, struct reply *reply) {
    struct cursor c = cursor_of(request);
    uint8_t kind;
    uint32_t n;
    TRY(cursor_u8(&c, &kind));
    TRY(cursor_u32(&c, &n));
    if (n == 0 || n > LEASE_CALL_MAX || c.left != (size_t)n * ASK_SIZE) return ERR_PROTOCOL;
    if (!leading(m, m->term)) return ERR_NOT_LEADER;
    struct served *s = calloc(1, sizeof *s + c.left);
    if (s == NULL) return ERR_NOMEM;
    *s = (struct served){.manager = m, .reply = reply, .term = m->term, .n = n};
    memcpy(s->asks, c.at, c.left);
    s->read = (struct read){.done = on_served, .ctx = s};
    enum err e = replica_read(m->replica, &s->read);
    if (e != OK) free(s);
    return e;
}

void leases_call(struct manager *m, struct span request, struct reply *reply) {
    enum err e = serve(m, request, reply);
    if (e != OK) reply_send(reply, e, span_str(err_text(e)));
}

/* --- life ----------------------------------------------------------------------------------- */

RESULT leases_open(struct manager *m) {
    m->leases.end = &m->leases.asks;
    m->leases.stopped = false;
    return lessor_new(&m->leases.lessor);
}

void leases_stop(struct manager *m) {
    struct lease_clock *l = &m->leases;
    struct lease_ask *all = l->asks;
    l->asks = NULL;
    l->end = &l->asks;
    l->stopped = true;
    finish_all(m, all, ERR_CLOSED);
    (void)uv_timer_stop(&l->timer);
}

void leases_closed(struct manager *m) {
    struct lease_clock *l = &m->leases;
    assert(l->asks == NULL && l->revoking == 0 && !l->reading);
    (void)uv_timer_stop(&l->timer);
    lessor_free(l->lessor);
    l->lessor = NULL;
    l->lead = l->again = false;
}
