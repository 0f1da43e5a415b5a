/* The network between nodes. Each direction of a pair is a link of its own. An ordered link is a
 * TCP connection: frames come in order, and what is lost is the tail of a connection that breaks;
 * after a while it is there again and the sender hears of it. An unordered link loses, doubles and
 * reorders single frames, which is more than TCP does and all that raft promises to bear. Only a
 * forwarded command is never doubled: nothing in its frame tells the two apart, and no TCP would do
 * it.
 *
 * A link that is blocked takes frames and loses them. Bytes on the way are counted and bounded. */
#include <stdlib.h>

#include "tests/sim/node.h"
#include "tests/sim/sim.h"

#define LINK_MAX (8 * MIB) /* bytes on the way; more is lost */

struct frame {
    unsigned from, to; /* slots */
    uint32_t epoch;    /* of the connection */
    struct buf bytes;  /* owned */
};

static uint8_t frame_type(const struct buf *b) { return b->size >= WIRE_HEADER ? b->at[4] : 0; }

static uint64_t travel_us(struct world *w, struct link *l, unsigned from, size_t size) {
    uint64_t us = rng_between(&w->rng, w->plan.delay_min_us, w->plan.delay_max_us) + size / 100;
    bool faulty = w->heal_us == 0;
    if (faulty && w->plan.stray_pm != 0 && rng_chance(&w->rng, w->plan.stray_pm))
        us += rng_below(&w->rng, w->plan.stray_us);
    uint64_t at = w->now_us + w->nodes[from]->busy_us + us;
    if (w->plan.ordered && at <= l->last_us) at = l->last_us + 1;
    if (w->plan.ordered) l->last_us = at;
    return at;
}

static void post(struct world *w, unsigned from, unsigned to, struct buf *bytes) {
    struct link *l = &w->links[from][to];
    struct frame *f = sim_alloc(sizeof *f);
    *f = (struct frame){.from = from, .to = to, .epoch = l->epoch, .bytes = *bytes};
    *bytes = buf_new(bytes->max);
    l->queued += f->bytes.size;
    sim_at(w, travel_us(w, l, from, f->bytes.size),
           (struct event){.kind = EV_FRAME, .node = w->nodes[to], .p = f});
}

static bool lost(struct world *w, unsigned from, unsigned to, size_t size) {
    struct link *l = &w->links[from][to];
    if (l->blocked || l->down_us > w->now_us || l->queued + size > LINK_MAX) return true;
    if (w->heal_us != 0 || w->plan.loss_pm == 0 || !rng_chance(&w->rng, w->plan.loss_pm))
        return false;
    if (w->plan.ordered) net_cut(w, from, to);
    return true;
}

static void trace_frame(struct world *w, struct sim_node *from, uint64_t to,
                        const struct buf *frame) {
    uint64_t head = 0;
    memcpy(&head, frame->at, frame->size < 8 ? frame->size : 8);
    sim_mix(w, head);
    if (frame->size >= 24) sim_mix(w, get_u64(frame->at + 13));
    sim_trace(w, "n%llu > n%llu type %u, %zu bytes", (unsigned long long)from->id,
              (unsigned long long)to, frame_type(frame), frame->size);
}

void net_send(struct world *w, struct sim_node *from, uint64_t to, struct buf *frame) {
    trace_frame(w, from, to, frame);
    w->figures.frames++;
    struct sim_node *target = node_by_id(w, to);
    unsigned a = (unsigned)(from->id - 1), b = (unsigned)(to - 1);
    if (target == NULL || target == from || lost(w, a, b, frame->size)) {
        buf_free(frame);
        return;
    }
    bool again = w->heal_us == 0 && w->plan.double_pm != 0 && frame_type(frame) != WIRE_FORWARD &&
                 rng_chance(&w->rng, w->plan.double_pm);
    if (again) {
        struct buf copy = buf_new(frame->max);
        if (buf_add(&copy, frame->at, frame->size) != OK) abort();
        post(w, a, b, &copy);
    }
    post(w, a, b, frame);
}

void net_free_frame(struct world *w, struct event *e) {
    struct frame *f = e->p;
    w->links[f->from][f->to].queued -= f->bytes.size;
    buf_free(&f->bytes);
    free(f);
}

void net_deliver(struct world *w, struct event *e) {
    struct frame *f = e->p;
    struct link *l = &w->links[f->from][f->to];
    struct sim_node *n = e->node;
    bool arrives = !l->blocked && (!w->plan.ordered || f->epoch == l->epoch);
    if (arrives && (n->state == NODE_UP || n->state == NODE_CLOSING)) {
        node_enter(n);
        (void)replica_receive(n->replica, f->from + 1, buf_span(&f->bytes));
        node_leave(n);
    }
    net_free_frame(w, e);
}

size_t net_queued(struct world *w, struct sim_node *from, uint64_t to) {
    if (to == 0 || to > w->n) return SIZE_MAX;
    const struct link *l = &w->links[from->id - 1][to - 1];
    return l->down_us > w->now_us ? SIZE_MAX : l->queued;
}

static void connect_after(struct world *w, unsigned from, unsigned to, uint64_t us) {
    struct sim_node *n = w->nodes[from];
    w->links[from][to].down_us = w->now_us + us;
    sim_after(w, us, (struct event){.kind = EV_CONNECT, .node = n, .life = n->life, .arg = to + 1});
}

void net_connect_all(struct world *w, struct sim_node *n) {
    unsigned self = (unsigned)(n->id - 1);
    for (unsigned i = 0; i < w->n; i++) {
        if (i == self) continue;
        w->links[self][i].epoch++;
        w->links[i][self].epoch++;
        connect_after(w, self, i, rng_between(&w->rng, 100, 50000));
        if (w->nodes[i]->state == NODE_UP)
            connect_after(w, i, self, rng_between(&w->rng, 100, 50000));
    }
}

void net_cut(struct world *w, unsigned from, unsigned to) {
    w->links[from][to].epoch++;
    if (w->nodes[from]->state != NODE_UP) return;
    connect_after(w, from, to, rng_between(&w->rng, 1000, 200000));
}

/* ---- partitions ---- */

static void block(struct world *w, unsigned from, unsigned to) {
    w->links[from][to].blocked = true;
}

static void split(struct world *w, uint64_t side, bool one_way) {
    for (unsigned i = 0; i < w->n; i++)
        for (unsigned k = 0; k < w->n; k++) {
            bool across = ((side >> i) & 1) != ((side >> k) & 1);
            if (across && (!one_way || ((side >> i) & 1) != 0)) block(w, i, k);
        }
}

void net_partition(struct world *w) {
    net_heal(w);
    uint64_t mean = w->plan.down_us;
    unsigned a = (unsigned)rng_below(&w->rng, w->n), b = (unsigned)rng_below(&w->rng, w->n);
    struct sim_node *leader = admin_leader(w);
    switch (rng_below(&w->rng, 6)) {
    case 0: split(w, 1ULL << a, false); break;                            /* one alone */
    case 1: split(w, 1ULL << a, true); break;                             /* one speaks unheard */
    case 2: split(w, ~(1ULL << a), true); break;                          /* one hears nothing */
    case 3: split(w, rng_next(&w->rng), rng_chance(&w->rng, 200)); break; /* two sides */
    case 4: block(w, a, b), block(w, b, a); break;                        /* a missing edge */
    default: /* the leader, with company or not */
        if (leader != NULL) a = (unsigned)(leader->id - 1);
        split(w, (1ULL << a) | (rng_chance(&w->rng, 400) ? 1ULL << b : 0),
              rng_chance(&w->rng, 200));
    }
    sim_trace(w, "partition");
    sim_after(w, rng_around(&w->rng, mean),
              (struct event){.kind = EV_MEND, .arg = FAULT_PARTITION});
}

void net_heal(struct world *w) {
    for (unsigned i = 0; i < w->n; i++)
        for (unsigned k = 0; k < w->n; k++) {
            if (!w->links[i][k].blocked) continue;
            w->links[i][k].blocked = false;
            if (w->plan.ordered || rng_chance(&w->rng, 500)) net_cut(w, i, k);
        }
}
