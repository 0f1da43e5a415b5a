/* Linearizable reads by ReadIndex (Raft thesis, 6.4), with our own round trip, since the engine's
 * append results carry no round and can be old.
 *
 *     waiting --round starts: index = commit, PING{term, seq}--> pinged --majority PONGed--> ready
 *     waiting --on a follower: asks the leader for an index------------------------------->  ready
 *     ready --applied >= index--> done(OK)
 *
 * One round serves all reads that were there when its PING left. A PONG for a later round confirms
 * earlier ones too. A round starts only on a leader that has committed an entry of its own term.
 * PING also carries a state hash, which every member compares with its own at the same index. */
#include "raft/replica_internal.h"

#include <stdlib.h>

#define PING_EVERY_MS    1000 /* without reads: for the hash and for who is alive */
#define PING_AGAIN_MS    60   /* with reads waiting: the last one may be lost */
#define FORWARD_AGAIN_MS 200  /* the question to the leader may be lost */

/* A question for the read index from another member: answered when its round is confirmed. */
struct remote_read {
    uint64_t from, id;   /* whom to answer */
    uint64_t index, seq; /* 0: not yet in a round */
    struct remote_read *next;
};

static void push(struct read ***tail, struct read *rd) {
    rd->next = NULL;
    **tail = rd;
    *tail = &rd->next;
}

void reads_start(struct replica *r) {
    struct reads *q = &r->reads;
    q->waiting_tail = &q->waiting;
    q->pinged_tail = &q->pinged;
    q->ready_tail = &q->ready;
}

bool reads_waiting(const struct replica *r) { return r->reads.n > 0 || r->reads.remote != NULL; }

RESULT replica_read(struct replica *r, struct read *rd) {
    if (r->failed != OK || r->closing) return ERR_CLOSED;
    if (r->reads.n >= READS_MAX) return ERR_BUSY;
    if (rd->deadline_ms == 0)
        rd->deadline_ms = r->env.clock->now_ms(r->env.clock) + PROPOSAL_TIMEOUT_MS;
    push(&r->reads.waiting_tail, rd);
    r->reads.n++;
    r->env.wake(r->env.ctx);
    return OK;
}

/* --- rounds, on the leader --- */

static void send_ping(struct replica *r) {
    const struct raft *raft = guard_raft(r->guard);
    uint64_t at = r->applied / HASH_EVERY * HASH_EVERY;
    const struct hash_item *h = &r->hashes[at / HASH_EVERY % HASHES_KEPT];
    struct wire_message m = {.type = WIRE_PING, .ping = {.term = r->term, .seq = r->reads.seq}};
    if (at > 0 && h->index == at) {
        m.ping.hash_index = at;
        memcpy(m.ping.hash, h->hash, sizeof m.ping.hash);
    }
    r->reads.ping_ms = r->now_ms;
    for (unsigned i = 0; i < raft->configuration.n; i++)
        if (raft->configuration.servers[i].id != r->config.raft_id)
            replica_send(r, raft->configuration.servers[i].id, &m);
}

static void start_round(struct replica *r) {
    struct reads *q = &r->reads;
    uint64_t seq = q->seq + 1;
    bool any = q->waiting != NULL;
    for (struct read *rd = q->waiting; rd != NULL; rd = rd->next) {
        rd->index = r->commit;
        rd->seq = seq;
    }
    for (struct remote_read *rr = q->remote; rr != NULL; rr = rr->next)
        if (rr->seq == 0) {
            rr->index = r->commit;
            rr->seq = seq;
            any = true;
        }
    if (!any) return;
    if (q->waiting != NULL) {
        *q->pinged_tail = q->waiting;
        q->pinged_tail = q->waiting_tail;
        q->waiting = NULL;
        q->waiting_tail = &q->waiting;
    }
    q->seq = seq;
    send_ping(r);
}

/* The latest round that a majority of the voters of the latest configuration has confirmed. */
static uint64_t confirmed(struct replica *r) {
    const struct raft *raft = guard_raft(r->guard);
    uint64_t seqs[MEMBERS_MAX];
    unsigned voters = 0;
    for (unsigned i = 0; i < raft->configuration.n && voters < MEMBERS_MAX; i++) {
        const struct raft_server *s = &raft->configuration.servers[i];
        if (s->role != RAFT_VOTER) continue;
        const struct peer_state *p = replica_peer(r, s->id);
        uint64_t seq = s->id == r->config.raft_id ? r->reads.seq : p == NULL ? 0 : p->pong_seq;
        unsigned at = voters++;
        for (; at > 0 && seqs[at - 1] < seq; at--)
            seqs[at] = seqs[at - 1];
        seqs[at] = seq;
    }
    return voters == 0 ? 0 : seqs[voters / 2];
}

static void answer_remote(struct replica *r, struct remote_read *rr, enum err e) {
    struct wire_message m = {.type = WIRE_FORWARDED,
                             .forwarded = {.id = rr->id, .error = (uint16_t)e, .index = rr->index}};
    replica_send(r, rr->from, &m);
    if (e == OK) appends_await(r, rr->from, rr->index);
    free(rr);
}

static void confirm(struct replica *r) {
    struct reads *q = &r->reads;
    if (!r->leading || (q->pinged == NULL && q->remote == NULL)) return;
    uint64_t seq = confirmed(r);
    while (q->pinged != NULL && q->pinged->seq <= seq) {
        struct read *rd = q->pinged;
        q->pinged = rd->next;
        if (q->pinged == NULL) q->pinged_tail = &q->pinged;
        push(&q->ready_tail, rd);
    }
    for (struct remote_read **at = &q->remote; *at != NULL;) {
        struct remote_read *rr = *at;
        if (rr->seq == 0 || rr->seq > seq) {
            at = &rr->next;
            continue;
        }
        *at = rr->next;
        answer_remote(r, rr, OK);
    }
}

/* --- a follower's question --- */

static void ask_leader(struct replica *r) {
    struct reads *q = &r->reads;
    if (q->forward_id != 0 && r->now_ms < q->forward_ms + FORWARD_AGAIN_MS) return;
    if (q->forward_id != 0) { /* lost: those that asked ask again, with the new ones */
        *q->pinged_tail = q->waiting;
        if (q->waiting != NULL) q->pinged_tail = q->waiting_tail;
        q->waiting = q->pinged;
        q->waiting_tail = q->pinged != NULL ? q->pinged_tail : &q->waiting;
        q->pinged = NULL;
        q->pinged_tail = &q->pinged;
    }
    if (q->waiting == NULL) {
        q->forward_id = 0;
        return;
    }
    *q->pinged_tail = q->waiting;
    q->pinged_tail = q->waiting_tail;
    q->waiting = NULL;
    q->waiting_tail = &q->waiting;
    q->forward_id = ++r->next_id;
    q->forward_ms = r->now_ms;
    q->forward_to = r->leader;
    struct wire_message m = {.type = WIRE_FORWARD,
                             .forward = {.id = q->forward_id, .kind = FORWARD_READ}};
    replica_send(r, r->leader, &m);
}

void reads_forward(struct replica *r, uint64_t from, const struct wire_forward *f) {
    struct remote_read *rr = calloc(1, sizeof *rr);
    if (rr == NULL) return;
    *rr = (struct remote_read){.from = from, .id = f->id};
    if (!r->leading) {
        answer_remote(r, rr, ERR_NOT_LEADER);
        return;
    }
    rr->next = r->reads.remote;
    r->reads.remote = rr;
    r->env.wake(r->env.ctx);
}

bool reads_forwarded(struct replica *r, uint64_t from, const struct wire_forwarded *f) {
    struct reads *q = &r->reads;
    if (f->id != q->forward_id || f->id == 0 || from != q->forward_to) return false;
    if (f->error != OK) return true; /* asked again after FORWARD_AGAIN_MS, of whoever leads then */
    q->forward_id = 0;
    for (struct read *rd = q->pinged, *next; rd != NULL; rd = next) {
        next = rd->next;
        rd->index = f->index;
        push(&q->ready_tail, rd);
    }
    q->pinged = NULL;
    q->pinged_tail = &q->pinged;
    if (q->waiting != NULL) r->env.wake(r->env.ctx);
    return true;
}

void reads_turn(struct replica *r) {
    if (r->leading) {
        if (guard_own_term_committed(r->guard)) start_round(r);
        confirm(r);
    } else if (r->leader != 0) {
        ask_leader(r);
    }
}

/* --- outcomes --- */

void reads_settle(struct replica *r) {
    struct reads *q = &r->reads;
    confirm(r);
    struct read **at = &q->ready;
    struct read *done = NULL, **done_tail = &done;
    while (*at != NULL) {
        struct read *rd = *at;
        if (rd->index > r->applied) {
            at = &rd->next;
            continue;
        }
        *at = rd->next;
        push(&done_tail, rd);
        q->n--;
    }
    q->ready_tail = at;
    for (struct read *rd = done, *next; rd != NULL; rd = next) {
        next = rd->next;
        rd->done(rd, OK);
    }
}

static void expire(struct replica *r, struct read **head, struct read ***tail, uint64_t due_ms,
                   enum err e) {
    struct read *all = *head;
    *head = NULL;
    *tail = head;
    struct read *due = NULL, **due_tail = &due;
    for (struct read *rd = all, *next; rd != NULL; rd = next) {
        next = rd->next;
        push(rd->deadline_ms <= due_ms ? &due_tail : tail, rd);
    }
    for (struct read *rd = due, *next; rd != NULL; rd = next) {
        next = rd->next;
        r->reads.n--;
        rd->done(rd, e);
    }
}

static void expire_all(struct replica *r, uint64_t due_ms, enum err e) {
    struct reads *q = &r->reads;
    expire(r, &q->waiting, &q->waiting_tail, due_ms, e);
    expire(r, &q->pinged, &q->pinged_tail, due_ms, e);
    expire(r, &q->ready, &q->ready_tail, due_ms, e);
}

void reads_tick(struct replica *r) {
    if (r->reads.n > 0) expire_all(r, r->now_ms, ERR_TIMEOUT);
    if (!r->leading) return;
    uint64_t every = reads_waiting(r) ? PING_AGAIN_MS : PING_EVERY_MS;
    if (r->now_ms >= r->reads.ping_ms + every) send_ping(r);
}

static void drop_remote(struct replica *r, bool tell) {
    for (struct remote_read *rr = r->reads.remote, *next; rr != NULL; rr = next) {
        next = rr->next;
        if (tell)
            answer_remote(r, rr, ERR_NOT_LEADER);
        else
            free(rr);
    }
    r->reads.remote = NULL;
}

/* Rounds of another leadership are worth nothing: what was not confirmed waits again. */
void reads_leader_changed(struct replica *r) {
    struct reads *q = &r->reads;
    if (q->pinged != NULL) {
        *q->pinged_tail = q->waiting;
        if (q->waiting == NULL) q->waiting_tail = q->pinged_tail;
        q->waiting = q->pinged;
        q->pinged = NULL;
        q->pinged_tail = &q->pinged;
    }
    q->forward_id = 0;
    if (!r->leading) drop_remote(r, true);
    r->env.wake(r->env.ctx);
}

void reads_end(struct replica *r, bool tell) {
    if (tell) expire_all(r, UINT64_MAX, ERR_CLOSED);
    drop_remote(r, false);
    r->reads.n = 0;
    r->reads.waiting = r->reads.pinged = r->reads.ready = NULL;
    reads_start(r);
}

/* --- PING and PONG --- */

static bool hash_differs(const struct replica *r, const struct wire_ping *m) {
    const struct hash_item *h = &r->hashes[m->hash_index / HASH_EVERY % HASHES_KEPT];
    return m->hash_index != 0 && h->index == m->hash_index &&
           memcmp(h->hash, m->hash, sizeof h->hash) != 0;
}

void reads_ping(struct replica *r, uint64_t from, const struct wire_ping *m) {
    const struct raft *raft = guard_raft(r->guard);
    if (m->term != raft_current_term(raft)) return; /* durable before it can be current */
    bool differs = hash_differs(r, m);
    struct wire_message w = {
        .type = WIRE_PONG,
        .pong = {.term = m->term, .seq = m->seq, .applied = r->applied, .differs = differs}};
    replica_send(r, from, &w);
    if (!differs) return;
    struct why why = {0};
    (void)fail_with(&why, ERR_DIVERGED,
                    "the state after entry %llu differs from the leader's (member %llu)",
                    (unsigned long long)m->hash_index, (unsigned long long)from);
    replica_fail(r, ERR_DIVERGED, why.text);
}

void reads_pong(struct replica *r, uint64_t from, const struct wire_pong *m) {
    if (!r->leading || m->term != r->term) return;
    struct peer_state *p = replica_peer(r, from);
    if (p == NULL) return;
    p->pong_ms = r->now_ms;
    if (m->seq > p->pong_seq && m->seq <= r->reads.seq) p->pong_seq = m->seq;
    if (m->differs != 0)
        replica_say(r, 0, "member %llu says that its state differs from ours",
                    (unsigned long long)from);
}
