/* One member: what struct replica_env asks for, on simulated ground, and its life. A kill leaves
 * the disk as it was seen; a power loss leaves what was synced and a random part of the rest. A
 * node fails by itself only after a fault was injected into its disk: all else is a violation. */
#include "tests/sim/node.h"

#include <stdio.h>
#include <stdlib.h>

#define WALL_START_S 1700000000

/* ---- the environment ---- */

static uint64_t now_us(const struct sim_node *n) {
    return n->world->now_us + n->busy_us + n->clock_us;
}

uint64_t node_now_ms(const struct sim_node *n) { return now_us(n) / 1000; }

static struct sim_node *node_of_clock(struct clock *c) {
    return (struct sim_node *)(void *)((char *)c - offsetof(struct sim_node, clock));
}
static uint64_t clock_ms(struct clock *c) { return node_now_ms(node_of_clock(c)); }
static uint64_t clock_us(struct clock *c) { return now_us(node_of_clock(c)); }
static int64_t clock_wall(struct clock *c) {
    return WALL_START_S + (int64_t)(node_now_ms(node_of_clock(c)) / 1000);
}

static struct event own(struct sim_node *n, enum event_kind kind) {
    return (struct event){.kind = kind, .node = n, .life = n->life};
}

static bool powerless(const struct sim_node *n) { return n->cut && disk_sim_failed(n->disk); }

static void env_send(void *ctx, uint64_t to, struct buf *frame) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    if (powerless(n)) {
        buf_free(frame);
        return;
    }
    if (n->state == NODE_FAILED)
        sim_violate(w, "n%llu sends after it failed", (unsigned long long)n->id);
    check_frame(w, n, to, buf_span(frame));
    net_send(w, n, to, frame);
}

static void env_flush(void *ctx) { (void)ctx; } /* env_send has */

static size_t env_queued(void *ctx, uint64_t to) {
    struct sim_node *n = ctx;
    return net_queued(n->world, n, to);
}

static void env_wake(void *ctx) {
    struct sim_node *n = ctx;
    if (n->turn) return;
    n->turn = true;
    sim_after(n->world, rng_below(&n->world->rng, n->world->plan.turn_max_us), own(n, EV_TURN));
}

static void push_tick(struct sim_node *n) {
    uint64_t us = n->armed_ms * 1000;
    us = us > n->clock_us ? us - n->clock_us : 0;
    if (us < n->world->now_us) us = n->world->now_us;
    if (n->tick_us != 0 && n->tick_us <= us) return;
    n->tick_us = us;
    struct event e = own(n, EV_TICK);
    e.arg = ++n->tick_number;
    sim_at(n->world, us + 1000 * rng_below(&n->world->rng, n->world->plan.late_ms + 1U), e);
}

static void env_arm(void *ctx, uint64_t at_ms) {
    struct sim_node *n = ctx;
    n->armed_ms = at_ms;
    push_tick(n);
}

static void env_leader(void *ctx, uint64_t term, uint64_t leader) {
    struct sim_node *n = ctx;
    sim_trace(n->world, "n%llu: leader of term %llu is n%llu", (unsigned long long)n->id,
              (unsigned long long)term, (unsigned long long)leader);
    if (leader != n->id) return;
    n->world->figures.elections++;
    check_leader(n->world, term, leader);
    if (n->world->plan.profile == PROFILE_BUSY && n->world->grown && n->world->heal_us == 0)
        sim_violate(n->world, "n%llu is elected, and the leader was only busy",
                    (unsigned long long)n->id);
}

static void env_members(void *ctx) { (void)ctx; }

static bool may_fail(struct sim_node *n, enum err e) {
    if (e == ERR_DIVERGED || e == ERR_INTERNAL || e == ERR_PROTOCOL) return false;
    return disk_sim_failed(n->disk) || (e == ERR_NOSPACE && n->full_us != 0);
}

static void env_failed(void *ctx, enum err e, const char *text) {
    struct sim_node *n = ctx;
    struct world *w = n->world;
    sim_trace(w, "n%llu failed: %s: %s", (unsigned long long)n->id, err_name(e), text);
    if (n->state == NODE_FAILED) {
        sim_violate(w, "n%llu failed twice", (unsigned long long)n->id);
        return;
    }
    if (!may_fail(n, e))
        sim_violate(w, "n%llu failed without cause: %s: %s", (unsigned long long)n->id, err_name(e),
                    text);
    n->state = NODE_FAILED;
    w->figures.failures++;
    sim_after(w, rng_below(&w->rng, 50000), own(n, EV_DIE));
    node_start_after(n, rng_around(&w->rng, w->plan.down_us) + 60000);
}

static void env_call(void *ctx, uint64_t from, struct span request, struct reply *reply) {
    struct sim_node *n = ctx;
    admin_call(n->world, n, from, request, reply);
}

static void env_log(void *ctx, int level, const char *text) {
    struct sim_node *n = ctx;
    sim_trace(n->world, "n%llu log %d: %s", (unsigned long long)n->id, level, text);
}

/* ---- execs ---- */

static uint64_t job_us(struct sim_node *n, const struct sim_exec *x) {
    struct world *w = n->world;
    uint64_t us = rng_between(&w->rng, w->plan.sync_min_us, w->plan.sync_max_us) * x->times;
    if (w->slow_until_us > w->now_us) us += rng_below(&w->rng, 3000ULL * w->plan.election_ms);
    return us;
}

static void exec_submit(struct exec *base, struct job *j) {
    struct sim_exec *x = (struct sim_exec *)base;
    j->next = NULL;
    if (x->head == NULL)
        x->head = j;
    else
        x->tail->next = j;
    x->tail = j;
    if (x->running) return;
    x->running = true;
    struct event e = own(x->node, EV_RUN);
    e.p = x;
    sim_after(x->node->world, job_us(x->node, x), e);
}

/* The job's outcome reaches the loop after it has run, never before an earlier one's. */
void node_run(struct sim_node *n, struct sim_exec *x) {
    struct world *w = n->world;
    struct job *j = x->head;
    x->head = j->next;
    j->run(j);
    uint64_t at = w->now_us + rng_below(&w->rng, 300);
    if (at < x->done_us) at = x->done_us;
    x->done_us = at;
    struct event done = own(n, EV_DONE), next = own(n, EV_RUN);
    done.p = j;
    sim_at(w, at, done);
    x->running = x->head != NULL;
    next.p = x;
    if (x->running) sim_after(w, job_us(n, x), next);
    if (powerless(n)) node_leave(n);
}

void node_done(struct sim_node *n, struct job *j) {
    node_enter(n);
    j->done(j);
    node_leave(n);
}

/* ---- life ---- */

struct sim_node *node_by_id(struct world *w, uint64_t raft_id) {
    return raft_id == 0 || raft_id > w->n ? NULL : w->nodes[raft_id - 1];
}

bool node_up(const struct sim_node *n) {
    return n->state == NODE_UP && n->paused_us <= n->world->now_us && !n->stopping;
}

struct sim_node *node_new(struct world *w) {
    struct sim_node *n = sim_alloc(sizeof *n);
    w->nodes[w->n++] = n;
    n->world = w;
    n->id = w->n;
    n->disk = disk_sim_new(rng_next(&w->rng));
    (void)snprintf(n->identity.cluster_id, sizeof n->identity.cluster_id,
                   "simulated0000000000000000");
    (void)snprintf(n->identity.node_id, sizeof n->identity.node_id, "node%021u", w->n);
    struct why why = {0};
    struct keyring *keys = NULL;
    if (keyring_create(n->disk, (struct kek){.kind = KEK_PLAIN}, &keys, &why) != OK)
        sim_violate(w, "no keyring: %s", why.text);
    keyring_close(keys);
    return n;
}

void node_free(struct sim_node *n) {
    disk_sim_free(n->disk);
    free(n);
}

static void fill_env(struct sim_node *n) {
    n->clock = (struct clock){.now_ms = clock_ms, .wall_s = clock_wall, .now_us = clock_us};
    n->log_exec = (struct sim_exec){.base.submit = exec_submit, .node = n, .times = 1};
    n->snapshot_exec = (struct sim_exec){.base.submit = exec_submit, .node = n, .times = 3};
    n->env = (struct replica_env){.ctx = n,
                                  .clock = &n->clock,
                                  .disk = n->disk,
                                  .keys = n->keys,
                                  .log_exec = &n->log_exec.base,
                                  .snapshot_exec = &n->snapshot_exec.base,
                                  .machine = &n->watch.base,
                                  .send = env_send,
                                  .flush = env_flush,
                                  .queued = env_queued,
                                  .wake = env_wake,
                                  .arm = env_arm,
                                  .leader = env_leader,
                                  .members = env_members,
                                  .failed = env_failed,
                                  .call = env_call,
                                  .log = env_log};
}

static struct replica_config config_of(struct sim_node *n) {
    const struct plan *p = &n->world->plan;
    return (struct replica_config){.raft_id = n->id,
                                   .identity = n->identity,
                                   .alg = SEAL_XCHACHA20,
                                   .election_ms = p->election_ms,
                                   .heartbeat_ms = p->heartbeat_ms,
                                   .seed = (unsigned)rng_next(&n->world->rng),
                                   .segment_size = p->segment_size,
                                   .snapshot_log_min = p->snapshot_log_min,
                                   .trailing_bytes = p->trailing_bytes,
                                   .auto_promote = p->auto_promote,
                                   .without = n->world->options.without};
}

static enum err open_all(struct sim_node *n, struct why *why) {
    TRY(keyring_open(n->disk, (struct kek){.kind = KEK_PLAIN}, &n->keys, why));
    TRY(store_new(&n->store));
    watch_init(&n->watch, n, store_machine(n->store));
    fill_env(n);
    struct replica_config config = config_of(n);
    if (n->id == 1 && !n->bootstrapped) TRY(replica_bootstrap(&n->env, &config, why));
    n->bootstrapped = true;
    return replica_open(&n->env, &config, &n->replica, why);
}

/* A state of its own while it opens, so that env.failed in there is told apart. */
void node_start(struct sim_node *n) {
    struct world *w = n->world;
    if (n->state != NODE_OFF || n->removed) return;
    n->life++;
    n->state = NODE_UP;
    n->seen_commit = n->seen_term = n->seen_applied = 0;
    struct why why = {0};
    enum err e = open_all(n, &why);
    sim_trace(w, "n%llu starts: %s %s", (unsigned long long)n->id, err_name(e), why.text);
    if (e == OK) {
        net_connect_all(w, n);
        env_wake(n);
        node_leave(n);
        return;
    }
    if (!may_fail(n, e))
        sim_violate(w, "n%llu does not start: %s: %s", (unsigned long long)n->id, err_name(e),
                    why.text);
    n->replica = NULL;
    if (powerless(n))
        node_power(n);
    else
        node_drop(n);
    node_start_after(n, rng_around(&w->rng, w->plan.down_us));
}

void node_start_after(struct sim_node *n, uint64_t us) {
    if (n->world->heal_us != 0 && us > 500000) us = 500000;
    sim_after(n->world, us, (struct event){.kind = EV_START, .node = n});
}

void node_drop(struct sim_node *n) {
    if (n->state == NODE_OFF) return;
    if (n->replica != NULL) replica_drop(n->replica);
    load_node_gone(n->world, n);
    admin_node_gone(n->world, n);
    store_free(n->store);
    keyring_close(n->keys);
    n->replica = NULL;
    n->store = NULL;
    n->keys = NULL;
    n->life++; /* what is in the queue for it is void */
    n->state = NODE_OFF;
    n->turn = n->stopping = n->resealing = false;
    n->submitting = NULL;
    n->armed_ms = n->tick_us = n->paused_us = n->close_us = n->busy_us = 0;
    if (!n->cut) disk_sim_fail_at(n->disk, DISK_SIM_NEVER, OK);
}

void node_power(struct sim_node *n) {
    node_drop(n);
    disk_sim_crash(n->disk);
    n->cut = false;
    sim_trace(n->world, "n%llu loses its power", (unsigned long long)n->id);
}

static void closed(void *ctx) {
    struct sim_node *n = ctx;
    n->replica = NULL;
    if (load_waits(n->world, n) != 0)
        sim_violate(n->world, "n%llu is closed, but has not answered all",
                    (unsigned long long)n->id);
    sim_after(n->world, 0, own(n, EV_DIE));
    node_start_after(n, n->off_us + 1);
}

void node_close(struct sim_node *n) {
    if (n->state != NODE_UP) return;
    n->state = NODE_CLOSING;
    n->close_us = n->world->now_us;
    n->world->figures.stops++;
    sim_trace(n->world, "n%llu closes", (unsigned long long)n->id);
    replica_close(n->replica, closed, n);
    node_leave(n);
}

void node_stop(struct sim_node *n, uint64_t off_us) {
    if (n->state != NODE_UP || n->stopping) return;
    n->stopping = true;
    n->off_us = off_us;
    bool leads = node_leads(n);
    if (leads) {
        node_enter(n);
        (void)!replica_transfer(n->replica, 0, NULL);
        node_leave(n);
    }
    sim_after(n->world, leads ? 2000ULL * n->world->plan.election_ms : 0, own(n, EV_CLOSE));
}

void node_pause(struct sim_node *n, uint64_t us) {
    sim_trace(n->world, "n%llu pauses %llu us", (unsigned long long)n->id, (unsigned long long)us);
    if (n->state == NODE_UP) n->paused_us = n->world->now_us + us;
}

void node_jump(struct sim_node *n, uint64_t us) {
    n->clock_us += us;
    n->tick_us = 0;
    sim_trace(n->world, "n%llu's clock jumps %llu us", (unsigned long long)n->id,
              (unsigned long long)us);
    if (n->armed_ms != 0) push_tick(n);
}

void node_full(struct sim_node *n, uint64_t us) {
    uint64_t until = n->world->now_us + us;
    n->full_us = until > n->full_us ? until : n->full_us;
    disk_sim_limit(n->disk, rng_below(&n->world->rng, 2) * 64 * KIB);
    sim_after(n->world, us, (struct event){.kind = EV_MEND, .node = n, .arg = FAULT_FULL});
}

/* ---- events ---- */

void node_enter(struct sim_node *n) { (void)n; }

void node_busy(struct sim_node *n, uint64_t us) {
    uint64_t step = 1 + rng_below(&n->world->rng, 20000);
    sim_trace(n->world, "n%llu is busy for %llu us", (unsigned long long)n->id,
              (unsigned long long)us);
    for (uint64_t until = n->busy_us + us; n->busy_us < until; n->busy_us += step)
        machine_busy(&n->watch.base);
}

/* What it was busy with is over: nothing else happens to it before. */
static void rest(struct sim_node *n) {
    uint64_t until = n->world->now_us + n->busy_us;
    if (n->busy_us != 0 && until > n->paused_us) n->paused_us = until;
    n->busy_us = 0;
}

void node_leave(struct sim_node *n) {
    struct world *w = n->world;
    rest(n);
    if (powerless(n)) {
        node_power(n);
        node_start_after(n, rng_around(&w->rng, w->plan.down_us));
        return;
    }
    if (n->replica != NULL && n->state == NODE_UP) check_status(w, n);
}

bool node_leads(struct sim_node *n) {
    if (n->replica == NULL || n->state != NODE_UP) return false;
    struct replica_status s;
    replica_status(n->replica, &s);
    return s.leading;
}

void node_turn(struct sim_node *n) {
    n->turn = false;
    if (n->replica == NULL) return;
    node_enter(n);
    replica_turn(n->replica);
    node_leave(n);
}

void node_tick(struct sim_node *n, uint64_t number) {
    if (number != n->tick_number || n->replica == NULL) return;
    n->tick_us = 0;
    if (n->armed_ms == 0) return;
    if (node_now_ms(n) < n->armed_ms) {
        push_tick(n);
        return;
    }
    n->armed_ms = 0;
    node_enter(n);
    replica_tick(n->replica);
    node_leave(n);
}
