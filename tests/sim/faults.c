/* What goes wrong, when, and how it ends. Each EV_FAULT draws one of the plan's faults and a
 * victim. Any number of nodes may be down at once: safety asks nobody's leave, and liveness is only
 * asked for after faults_heal, when everything is mended, every node runs and the cluster has to
 * come to itself. */
#include <stdio.h>

#include "tests/sim/node.h"
#include "tests/sim/sim.h"

static struct sim_node *victim(struct world *w) {
    struct sim_node *n = w->nodes[rng_below(&w->rng, w->n)];
    return n->state == NODE_UP && n->paused_us <= w->now_us ? n : NULL;
}

static uint64_t down(struct world *w) { return rng_around(&w->rng, w->plan.down_us); }

static void crash(struct world *w, struct sim_node *n, bool power) {
    w->figures.crashes++;
    sim_trace(w, "n%llu is killed", (unsigned long long)n->id);
    if (power || n->cut)
        node_power(n);
    else
        node_drop(n);
    node_start_after(n, down(w));
}

static void crash_all(struct world *w) {
    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i]->state != NODE_OFF) crash(w, w->nodes[i], true);
}

static void set_cut(struct world *w, struct sim_node *n) {
    n->cut = true;
    disk_sim_cut_at(n->disk, rng_between(&w->rng, 1, 60));
    sim_trace(w, "n%llu will lose its power soon", (unsigned long long)n->id);
}

static void set_error(struct world *w, struct sim_node *n) {
    if (n->cut) return;
    disk_sim_fail_at(n->disk, rng_between(&w->rng, 1, 60), ERR_IO);
    sim_trace(w, "n%llu's disk will fail soon", (unsigned long long)n->id);
}

static void jump(struct world *w, struct sim_node *n) {
    uint64_t most = rng_chance(&w->rng, 200) ? 60000 : 3ULL * w->plan.election_ms;
    node_jump(n, rng_between(&w->rng, 5, most) * 1000);
}

static void break_links(struct world *w) {
    for (unsigned i = 0; i < w->n; i++)
        for (unsigned k = 0; k < w->n; k++)
            if (i != k && rng_chance(&w->rng, 300)) net_cut(w, i, k);
}

static void slow(struct world *w) {
    uint64_t until = w->now_us + down(w);
    if (until > w->slow_until_us) w->slow_until_us = until;
    sim_trace(w, "disks are slow");
}

static void hit_leader(struct world *w) {
    struct sim_node *n = admin_leader(w);
    if (n == NULL || n->state != NODE_UP) return;
    switch (rng_below(&w->rng, 4)) {
    case 0: crash(w, n, false); break;
    case 1: crash(w, n, true); break;
    case 2: node_pause(n, down(w)); break;
    default: net_partition(w); break;
    }
}

void faults_ambush(struct world *w, bool all) {
    if (w->heal_us != 0) return;
    if (all)
        crash_all(w);
    else
        hit_leader(w);
}

static void strike(struct world *w, enum fault f) {
    struct sim_node *n = victim(w);
    switch (f) {
    case FAULT_POWER_ALL: crash_all(w); return;
    case FAULT_PARTITION: net_partition(w); return;
    case FAULT_BREAK: break_links(w); return;
    case FAULT_SLOW: slow(w); return;
    case FAULT_LEADER: hit_leader(w); return;
    case FAULT_KILL:
    case FAULT_POWER:
    case FAULT_CUT:
    case FAULT_STOP:
    case FAULT_PAUSE:
    case FAULT_CLOCK:
    case FAULT_FULL:
    case FAULT_ERROR:
    case FAULT_COUNT: break;
    }
    if (n == NULL) return;
    if (f == FAULT_KILL) crash(w, n, false);
    if (f == FAULT_POWER) crash(w, n, true);
    if (f == FAULT_CUT) set_cut(w, n);
    if (f == FAULT_STOP) node_stop(n, down(w));
    if (f == FAULT_PAUSE) node_pause(n, down(w));
    if (f == FAULT_CLOCK) jump(w, n);
    if (f == FAULT_FULL) node_full(n, down(w));
    if (f == FAULT_ERROR) set_error(w, n);
}

void faults_act(struct world *w) {
    if (w->heal_us != 0) return;
    sim_after(w, rng_around(&w->rng, w->plan.fault_us), (struct event){.kind = EV_FAULT});
    unsigned total = 0;
    for (unsigned i = 0; i < FAULT_COUNT; i++)
        total += w->plan.weight[i];
    if (total == 0 || (!w->plan.early && !w->grown)) return;
    uint64_t at = rng_below(&w->rng, total);
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        if (at < w->plan.weight[i]) {
            strike(w, (enum fault)i);
            return;
        }
        at -= w->plan.weight[i];
    }
}

void faults_mend(struct world *w, struct event *e) {
    if (e->arg == FAULT_PARTITION) {
        sim_trace(w, "the partition ends");
        net_heal(w);
        struct event blackout = {.kind = EV_AMBUSH, .arg = 1};
        if (w->plan.blackout_us != 0 && rng_chance(&w->rng, 600))
            sim_after(w, rng_below(&w->rng, w->plan.blackout_us), blackout);
    }
    if (e->arg == FAULT_FULL && e->node->full_us <= w->now_us)
        disk_sim_limit(e->node->disk, DISK_SIM_NEVER);
}

/* ---- healing ---- */

static void heal_node(struct world *w, struct sim_node *n) {
    disk_sim_limit(n->disk, DISK_SIM_NEVER);
    if (n->cut && !disk_sim_failed(n->disk)) {
        disk_sim_cut_at(n->disk, DISK_SIM_NEVER);
        n->cut = false;
    }
    if (!n->cut && !disk_sim_failed(n->disk)) disk_sim_fail_at(n->disk, DISK_SIM_NEVER, OK);
    if (n->paused_us > w->heal_us)
        w->heal_us = n->paused_us; /* what it was sent waits until then */
    if (n->state == NODE_OFF && !n->removed) node_start_after(n, rng_below(&w->rng, 300000));
}

void faults_heal(struct world *w) {
    sim_trace(w, "everything is mended");
    w->heal_us = w->now_us;
    w->slow_until_us = 0;
    net_heal(w);
    for (unsigned i = 0; i < w->n; i++)
        heal_node(w, w->nodes[i]);
}

static bool same_members(const struct replica_status *a, const struct replica_status *b) {
    for (unsigned i = 0; i < a->n && i < b->n; i++)
        if (a->members[i].raft_id != b->members[i].raft_id ||
            a->members[i].role != b->members[i].role)
            return false;
    return a->n == b->n;
}

/* Does every member of the leader's configuration stand where the leader stands? */
static bool converged(struct world *w) {
    struct sim_node *leader = admin_leader(w);
    if (leader == NULL) return false;
    struct replica_status l, s;
    replica_status(leader->replica, &l);
    if (l.applied != l.commit || l.applied != l.last || l.applied != check_last(w->check))
        return false;
    for (unsigned i = 0; i < w->n; i++)
        w->nodes[i]->member = false;
    for (unsigned i = 0; i < l.n; i++) {
        if (l.members[i].raft_id == GHOST_ID) continue;
        struct sim_node *n = node_by_id(w, l.members[i].raft_id);
        if (n == NULL || n->state != NODE_UP) return false;
        if (n->removed)
            sim_violate(w, "n%llu was removed, and is a member", (unsigned long long)n->id);
        replica_status(n->replica, &s);
        if (s.applied != l.applied || s.leader != leader->id || s.term != l.term) return false;
        if (!same_members(&s, &l)) return false;
        n->member = true;
    }
    return l.n != 0;
}

void faults_explain(struct world *w) {
    char text[VIOLATION_MAX] = "";
    size_t at = 0;
    for (unsigned i = 0; i < w->n && at < sizeof text; i++) {
        struct sim_node *n = w->nodes[i];
        struct replica_status s = {0};
        if (n->replica != NULL) replica_status(n->replica, &s);
        at += (size_t)snprintf(
            text + at, sizeof text - at,
            "; n%u %s%s%s term %llu, leader n%llu, applied %llu, commit %llu, last "
            "%llu, %u members, owes %u",
            i + 1, n->state == NODE_UP ? "up" : "down", s.leading ? " leads" : "",
            s.installing ? " installs" : "", (unsigned long long)s.term,
            (unsigned long long)s.leader, (unsigned long long)s.applied,
            (unsigned long long)s.commit, (unsigned long long)s.last, s.n, load_waits(w, n));
    }
    sim_violate(w, "the healed cluster does not serve within %llu ms%s%s",
                (unsigned long long)(w->plan.bound_us / 1000),
                admin_busy(w) ? "; a change hangs" : "", text);
}

bool faults_healed(struct world *w) {
    if (!converged(w) || admin_busy(w)) return false;
    if (!load_finished(w)) load_finish(w);
    if (!load_finished(w) || load_waits(w, NULL) != 0 || !admin_finish(w)) return false;
    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i]->member) check_state(w, w->nodes[i]);
    return true;
}
