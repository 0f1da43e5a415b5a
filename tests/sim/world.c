/* The event queue and the run of one seed. The active phase starts with a cluster of one that the
 * operator grows to its size while clients and faults go on; the healing phase ends all faults,
 * starts all nodes, and then the cluster must be whole and serve within the plan's bound.
 * Invariant: now_us never goes back; equal moments go in the order in which they were made. */
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/node.h"
#include "tests/sim/sim.h"

#define PROBE_US 50000

void *sim_alloc(size_t size) {
    void *p = calloc(1, size);
    if (p == NULL) abort();
    return p;
}

void sim_mix(struct world *w, uint64_t value) {
    w->trace_hash = (w->trace_hash ^ value) * 0x100000001b3ULL;
    w->trace_hash ^= w->trace_hash >> 29;
}

void sim_trace(struct world *w, const char *format, ...) {
    if (!w->options.trace) return;
    va_list args;
    va_start(args, format);
    printf("%10.3f ", (double)w->now_us / 1000.0);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void sim_violate(struct world *w, const char *format, ...) {
    if (sim_bad(w)) return;
    int at = snprintf(w->violation, sizeof w->violation,
                      "at %.3f ms (profile %s%s): ", (double)w->now_us / 1000.0,
                      profile_name(w->plan.profile), w->heal_us != 0 ? ", healing" : "");
    va_list args;
    va_start(args, format);
    (void)vsnprintf(w->violation + at, sizeof w->violation - (size_t)at, format, args);
    va_end(args);
    sim_trace(w, "VIOLATION %s", w->violation);
}

/* ---- the queue ---- */

static bool earlier(const struct event *a, const struct event *b) {
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

void sim_at(struct world *w, uint64_t at_us, struct event e) {
    struct queue *q = &w->queue;
    if (q->n == q->room) {
        q->room = q->room == 0 ? 256 : q->room * 2;
        q->at = realloc(q->at, q->room * sizeof *q->at);
        if (q->at == NULL) abort();
    }
    e.at_us = at_us < w->now_us ? w->now_us : at_us;
    e.seq = ++q->seq;
    size_t i = q->n++;
    for (; i != 0 && earlier(&e, &q->at[(i - 1) / 2]); i = (i - 1) / 2)
        q->at[i] = q->at[(i - 1) / 2];
    q->at[i] = e;
}

static struct event queue_take(struct queue *q) {
    struct event first = q->at[0], e = q->at[--q->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= q->n) break;
        if (child + 1 < q->n && earlier(&q->at[child + 1], &q->at[child])) child++;
        if (!earlier(&q->at[child], &e)) break;
        q->at[i] = q->at[child];
        i = child;
    }
    if (q->n != 0) q->at[i] = e;
    return first;
}

static void queue_free(struct world *w) {
    for (size_t i = 0; i < w->queue.n; i++)
        if (w->queue.at[i].kind == EV_FRAME)
            net_free_frame(w, &w->queue.at[i]);
        else if (w->queue.at[i].kind == EV_REPLY)
            reply_send(w->queue.at[i].p, ERR_CLOSED, span_of(NULL, 0));
    free(w->queue.at);
}

/* ---- events ---- */

static void heal_check(struct world *w) {
    if (w->heal_us == 0 || w->now_us < w->heal_us) return;
    w->over = faults_healed(w);
    if (!w->over && w->now_us > w->heal_us + w->plan.bound_us) faults_explain(w);
}

static void probe(struct world *w) {
    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i]->replica != NULL) check_status(w, w->nodes[i]);
    if ((w->queue.seq & 63) == 0 && mallinfo2().uordblks > MEMORY_MAX)
        sim_violate(w, "%zu bytes of memory are in use", (size_t)mallinfo2().uordblks);
    heal_check(w);
    sim_after(w, PROBE_US, (struct event){.kind = EV_PROBE});
}

static void dispatch(struct world *w, struct event *e) {
    struct sim_node *n = e->node;
    switch (e->kind) {
    case EV_FRAME: net_deliver(w, e); break;
    case EV_TURN: node_turn(n); break;
    case EV_TICK: node_tick(n, e->arg); break;
    case EV_RUN: node_run(n, e->p); break;
    case EV_DONE: node_done(n, e->p); break;
    case EV_CONNECT:
        if (n->state != NODE_UP) break;
        node_enter(n);
        replica_connected(n->replica, e->arg);
        node_leave(n);
        break;
    case EV_START: node_start(n); break;
    case EV_DIE: node_drop(n); break;
    case EV_CLOSE: node_close(n); break;
    case EV_REPLY: admin_reply(n, e->p, e->arg); break;
    case EV_CLIENT: load_client(w, e->arg); break;
    case EV_ADMIN: admin_act(w); break;
    case EV_FAULT: faults_act(w); break;
    case EV_AMBUSH: faults_ambush(w, e->arg != 0); break;
    case EV_MEND: faults_mend(w, e); break;
    case EV_PROBE: probe(w); break;
    case EV_HEAL: faults_heal(w); break;
    case EV_COUNT: break;
    }
}

/* Is the event for a node that has gone, or one that stands still? Then it is not for now. */
static bool put_off(struct world *w, struct event *e) {
    struct sim_node *n = e->node;
    if (n == NULL) return false;
    if (e->life != 0 && e->life != n->life) return true;
    bool outside = e->kind == EV_START || e->kind == EV_DIE || e->kind == EV_MEND;
    if (outside || n->paused_us <= w->now_us) return false;
    sim_at(w, n->paused_us, *e);
    return true;
}

static void step(struct world *w) {
    struct event e = queue_take(&w->queue);
    w->now_us = e.at_us;
    if (put_off(w, &e)) return;
    w->figures.events++;
    sim_mix(w, e.at_us);
    sim_mix(w, (uint64_t)e.kind << 8 | (e.node != NULL ? e.node->id : 0));
    if (w->figures.events > EVENTS_MAX) sim_violate(w, "a busy loop: too many events");
    dispatch(w, &e);
}

static void world_start(struct world *w) {
    struct sim_node *first = node_new(w);
    node_start(first);
    for (unsigned i = 0; i < w->plan.clients; i++)
        sim_after(w, rng_below(&w->rng, 300000), (struct event){.kind = EV_CLIENT, .arg = i});
    sim_after(w, 50000, (struct event){.kind = EV_ADMIN});
    sim_after(w, PROBE_US, (struct event){.kind = EV_PROBE});
    if (w->plan.fault_us != 0)
        sim_after(w, rng_around(&w->rng, w->plan.fault_us), (struct event){.kind = EV_FAULT});
    sim_after(w, w->plan.active_us, (struct event){.kind = EV_HEAL});
}

static void world_free(struct world *w) {
    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i]->state != NODE_OFF) node_drop(w->nodes[i]);
    queue_free(w);
    for (unsigned i = 0; i < w->n; i++)
        node_free(w->nodes[i]);
    load_free(w->load);
    admin_free(w->admin);
    check_free(w->check);
    free(w);
}

static void figures_add(struct figures *sum, const struct figures *f) {
    const uint64_t *from = (const uint64_t *)f;
    uint64_t *to = (uint64_t *)sum;
    for (size_t i = 0; i < sizeof *f / sizeof *from; i++)
        to[i] += from[i];
}

bool sim_run(uint64_t seed, const struct sim_options *o, struct figures *sum, uint64_t *trace_hash,
             char violation[VIOLATION_MAX]) {
    struct world *w = sim_alloc(sizeof *w);
    entropy_seed(seed);
    w->seed = seed;
    w->options = *o;
    w->rng.state = seed * 0x2545f4914f6cdd1dULL + 1;
    plan_draw(&w->plan, &w->rng, o->nodes, o->profile);
    w->check = check_new();
    w->load = load_new(w);
    w->admin = admin_new();
    sim_trace(w, "seed %llu: profile %s, %u voters, election %u ms, %s network",
              (unsigned long long)seed, profile_name(w->plan.profile), w->plan.voters,
              w->plan.election_ms, w->plan.ordered ? "ordered" : "unordered");
    world_start(w);
    while (!w->over && !sim_bad(w) && w->queue.n != 0)
        step(w);
    w->figures.us = w->now_us;
    w->figures.seeds = 1;
    figures_add(sum, &w->figures);
    *trace_hash = w->trace_hash;
    memcpy(violation, w->violation, VIOLATION_MAX);
    bool good = !sim_bad(w);
    world_free(w);
    return good;
}
