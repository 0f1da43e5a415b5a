/* The operator: grows the cluster of one to its size, then changes members, hands leadership on,
 * takes snapshots and rotates keys, at whoever leads, now and then at somebody who does not. One
 * change at a time. A node whose removal was asked for is never added again; a new member is a new
 * node with a new raft id.
 *
 * Calls: a request is u8 kind, u64 nonce; the answer must be the same bytes. Answers come at once
 * or later. */
#include <stdlib.h>

#include "tests/sim/node.h"
#include "tests/sim/sim.h"

#define CALLS_MAX 32

/* A call of ours that waits for its answer; freed when it comes or its node goes. */
struct asked {
    struct call call; /* the replica's until done */
    struct world *world;
    struct sim_node *node; /* who asks; NULL: free */
    uint8_t request[9];
};

struct admin {
    struct change change; /* the one under way */
    struct world *world;
    struct sim_node *at; /* who was asked for it; NULL: none is under way */
    uint64_t since_us;   /* when */
    uint64_t nonce;      /* of the next call */
    uint32_t proved;     /* bit per raft id: has led and changed something at the end */
    struct asked asked[CALLS_MAX];
};

struct admin *admin_new(void) {
    return sim_alloc(sizeof(struct admin));
}
void admin_free(struct admin *a) { free(a); }
bool admin_busy(struct world *w) { return w->admin->at != NULL; }

struct sim_node *admin_leader(struct world *w) {
    struct sim_node *best = NULL;
    uint64_t term = 0;
    for (unsigned i = 0; i < w->n; i++) {
        struct sim_node *n = w->nodes[i];
        struct replica_status s;
        if (n->replica == NULL || n->state != NODE_UP || n->stopping) continue;
        replica_status(n->replica, &s);
        if (!s.leading || s.term < term) continue;
        best = n;
        term = s.term;
    }
    return best;
}

/* ---- changes of membership ---- */

static void retire(struct world *w, struct sim_node *n) {
    n->removed = true;
    sim_trace(w, "n%llu is removed", (unsigned long long)n->id);
    if (rng_chance(&w->rng, w->plan.zombie_pm)) return;
    sim_after(w, rng_below(&w->rng, 500000),
              (struct event){.kind = EV_DIE, .node = n, .life = n->life});
}

static void changed(struct change *c, enum err e, const char *text) {
    struct world *w = c->ctx;
    struct admin *a = w->admin;
    sim_trace(w, "change %d of n%llu ends: %s %s", (int)c->kind, (unsigned long long)c->raft_id,
              err_name(e), text == NULL ? "" : text);
    if (a->at->submitting == c)
        sim_violate(w, "n%llu calls back inside the call that submitted",
                    (unsigned long long)a->at->id);
    if (e == OK && w->heal_us != 0) a->proved |= 1u << a->at->id;
    a->at = NULL;
    if (e != OK) return;
    w->figures.changes++;
    if (c->kind == CHANGE_REMOVE && c->raft_id != GHOST_ID) retire(w, node_by_id(w, c->raft_id));
}

static void change(struct world *w, struct sim_node *at, enum change_kind kind, uint64_t raft_id) {
    struct admin *a = w->admin;
    struct why why = {0};
    if (a->at != NULL) return;
    a->change = (struct change){.kind = kind, .raft_id = raft_id, .done = changed, .ctx = w};
    a->at = at;
    a->since_us = w->now_us;
    struct sim_node *target = node_by_id(w, raft_id);
    if (kind == CHANGE_REMOVE && target != NULL) target->doomed = true;
    if (rng_chance(&w->rng, w->plan.ambush_pm))
        sim_after(w, rng_below(&w->rng, 20000), (struct event){.kind = EV_AMBUSH});
    at->submitting = &a->change;
    enum err e = replica_change(at->replica, &a->change, &why);
    at->submitting = NULL;
    sim_trace(w, "n%llu: change %d of n%llu begins: %s %s", (unsigned long long)at->id, (int)kind,
              (unsigned long long)raft_id, err_name(e), why.text);
    if (e != OK) a->at = NULL;
    node_leave(at);
}

static const struct replica_member *member_of(const struct replica_status *s, uint64_t raft_id) {
    for (unsigned i = 0; i < s->n; i++)
        if (s->members[i].raft_id == raft_id) return &s->members[i];
    return NULL;
}

static unsigned voters_of(const struct replica_status *s) {
    unsigned n = 0;
    for (unsigned i = 0; i < s->n; i++)
        n += s->members[i].role == REPLICA_VOTER;
    return n;
}

/* A node that is no member yet: one that waits, or a new one; NULL when there is no more room. */
static struct sim_node *newcomer(struct world *w, const struct replica_status *s) {
    for (unsigned i = 0; i < w->n; i++) {
        struct sim_node *n = w->nodes[i];
        if (member_of(s, n->id) == NULL && !n->doomed && !n->removed) return n;
    }
    if (w->n == NODES_ROOM) return NULL;
    struct sim_node *n = node_new(w);
    node_start(n);
    return n;
}

static void add(struct world *w, struct sim_node *leader, const struct replica_status *s) {
    struct sim_node *n = newcomer(w, s);
    if (n != NULL) change(w, leader, CHANGE_ADD, n->id);
}

static void grow(struct world *w, struct sim_node *leader, const struct replica_status *s) {
    for (unsigned i = 0; i < s->n; i++) {
        if (s->members[i].role == REPLICA_VOTER) continue;
        if (!w->plan.auto_promote || rng_chance(&w->rng, 100))
            change(w, leader, CHANGE_PROMOTE, s->members[i].raft_id);
        return;
    }
    add(w, leader, s);
}

static void change_something(struct world *w, struct sim_node *leader,
                             const struct replica_status *s) {
    const struct replica_member *m = &s->members[rng_below(&w->rng, s->n)];
    if (rng_chance(&w->rng, 200)) m = member_of(s, leader->id); /* it must refuse */
    if (m == NULL) return;
    unsigned voters = voters_of(s);
    switch (rng_below(&w->rng, 5)) {
    case 0: add(w, leader, s); break;
    case 1: change(w, leader, CHANGE_PROMOTE, m->raft_id); break;
    case 2:
        if (voters > 1) change(w, leader, CHANGE_DEMOTE, m->raft_id);
        break;
    case 3:
        if (voters > 1 || m->role != REPLICA_VOTER) change(w, leader, CHANGE_REMOVE, m->raft_id);
        break;
    default:
        if (voters < w->plan.voters) grow(w, leader, s);
    }
}

/* ---- calls ---- */

static void answered(struct call *c, enum err e, struct span answer) {
    struct asked *q = c->ctx;
    struct span sent = span_of(q->request, sizeof q->request);
    if (e == OK && !span_equal(answer, sent))
        sim_violate(q->world, "n%llu gets the answer to another call",
                    (unsigned long long)q->node->id);
    q->node = NULL;
}

static void ask(struct world *w) {
    struct sim_node *n = w->nodes[rng_below(&w->rng, w->n)];
    struct asked *q = NULL;
    for (unsigned i = 0; i < CALLS_MAX && q == NULL; i++)
        if (w->admin->asked[i].node == NULL) q = &w->admin->asked[i];
    if (q == NULL || !node_up(n)) return;
    *q = (struct asked){.world = w, .node = n};
    put_u64(q->request + 1, ++w->admin->nonce);
    q->call = (struct call){
        .request = span_of(q->request, sizeof q->request), .done = answered, .ctx = q};
    if (replica_call(n->replica, &q->call) != OK) q->node = NULL;
    node_leave(n);
}

void admin_call(struct world *w, struct sim_node *n, uint64_t from, struct span request,
                struct reply *reply) {
    (void)from;
    if (request.size != 9) {
        sim_violate(w, "n%llu gets a call that nobody made", (unsigned long long)n->id);
        return;
    }
    if (rng_chance(&w->rng, 600)) {
        reply_send(reply, OK, request);
        return;
    }
    struct event e = {.kind = EV_REPLY, .node = n, .p = reply};
    e.arg = get_u64(request.at + 1);
    sim_after(w, rng_below(&w->rng, 100000), e);
}

/* Also for a node that has gone: a reply is freed by sending it. */
void admin_reply(struct sim_node *n, struct reply *reply, uint64_t nonce) {
    uint8_t answer[9] = {0};
    put_u64(answer + 1, nonce);
    reply_send(reply, OK, span_of(answer, sizeof answer));
    node_leave(n);
}

/* ---- keys and snapshots ---- */

static void snapshot_done(void *ctx, enum err e, uint64_t index) {
    struct sim_node *n = ctx;
    sim_trace(n->world, "n%llu: snapshot of %llu: %s", (unsigned long long)n->id,
              (unsigned long long)index, err_name(e));
}

static void resealed(void *ctx, enum err e) {
    struct sim_node *n = ctx;
    uint32_t newest = keyring_generation(n->keys);
    sim_trace(n->world, "n%llu: resealed: %s", (unsigned long long)n->id, err_name(e));
    n->resealing = false;
    if (e != OK) return;
    n->world->figures.rotations++;
    if (newest > 1 && keyring_dek(n->keys, newest - 1) != NULL)
        sim_violate(n->world, "n%llu keeps an old key", (unsigned long long)n->id);
}

static void rotate(struct sim_node *n) {
    if (n->resealing) return;
    n->resealing = true;
    if (keyring_rotate(n->keys, NULL) == OK)
        replica_reseal(n->replica, resealed, n);
    else
        n->resealing = false;
    node_leave(n);
}

/* ---- acts ---- */

void admin_node_gone(struct world *w, struct sim_node *n) {
    struct admin *a = w->admin;
    if (a->at == n) a->at = NULL;
    for (unsigned i = 0; i < CALLS_MAX; i++)
        if (a->asked[i].node == n) a->asked[i].node = NULL;
}

static void random_act(struct world *w, struct sim_node *leader, const struct replica_status *s) {
    struct sim_node *n = w->nodes[rng_below(&w->rng, w->n)];
    bool up = node_up(n);
    ask(w);
    if (!node_up(leader)) return;
    if (rng_chance(&w->rng, w->plan.change_pm)) {
        change_something(w, leader, s);
    } else if (rng_chance(&w->rng, w->plan.transfer_pm)) {
        uint64_t to = rng_chance(&w->rng, 300) ? 0 : s->members[rng_below(&w->rng, s->n)].raft_id;
        w->figures.transfers += replica_transfer(leader->replica, to, NULL) == OK;
        node_leave(leader);
    } else if (up && n->replica != NULL && rng_chance(&w->rng, w->plan.snapshot_pm)) {
        replica_snapshot(n->replica, snapshot_done, n);
        node_leave(n);
    } else if (up && n->replica != NULL && rng_chance(&w->rng, w->plan.rotate_pm)) {
        rotate(n);
    }
}

void admin_act(struct world *w) {
    if (w->heal_us != 0) return;
    uint64_t pace = w->grown && w->plan.admin_us != 0 ? w->plan.admin_us : 100000;
    sim_after(w, rng_around(&w->rng, pace), (struct event){.kind = EV_ADMIN});
    struct sim_node *leader = admin_leader(w);
    if (leader == NULL || !node_up(leader)) return;
    struct replica_status s;
    replica_status(leader->replica, &s);
    if (s.n == 0) return;
    if (voters_of(&s) >= w->plan.voters) w->grown = true;
    if (!w->grown)
        grow(w, leader, &s);
    else if (w->plan.admin_us != 0)
        random_act(w, leader, &s);
}

/* A cluster that serves may still be unable to change. Each voter has to lead once more and to add
 * or remove a standby that does not exist; in the end it is gone. True when all that is done. */
bool admin_finish(struct world *w) {
    struct admin *a = w->admin;
    struct sim_node *leader = admin_leader(w);
    struct replica_status s;
    if (leader == NULL || a->at != NULL) return false;
    replica_status(leader->replica, &s);
    bool ghost = member_of(&s, GHOST_ID) != NULL;
    uint64_t next = 0;
    for (unsigned i = 0; i < s.n; i++)
        if (s.members[i].role == REPLICA_VOTER && (a->proved >> s.members[i].raft_id & 1) == 0)
            next = s.members[i].raft_id;
    if (next == 0 && !ghost) return true;
    if (next == 0 || (a->proved >> leader->id & 1) == 0) {
        change(w, leader, ghost ? CHANGE_REMOVE : CHANGE_ADD, GHOST_ID);
    } else {
        (void)!replica_transfer(leader->replica, next, NULL);
        node_leave(leader);
    }
    return false;
}
