/* Draws a plan from a seed: first the profile, then everything at random, then the profile's bends.
 * Called once a run, before anything else uses the random numbers. */
#include "tests/sim/plan.h"

#include "crypto/limits.h"
#include "raft/guard.h"

static const char *const profile_names[PROFILE_COUNT] = {
    [PROFILE_MIXED] = "mixed",   [PROFILE_CALM] = "calm",       [PROFILE_SOLE] = "sole",
    [PROFILE_RESIZE] = "resize", [PROFILE_DIVERGE] = "diverge", [PROFILE_SNAPSHOT] = "snapshot",
    [PROFILE_SLOW] = "slow",     [PROFILE_POWER] = "power",     [PROFILE_ECHO] = "echo",
    [PROFILE_LATE] = "late",     [PROFILE_BUSY] = "busy",
};

static const char *const fault_names[FAULT_COUNT] = {
    [FAULT_KILL] = "kill",     [FAULT_POWER] = "power",         [FAULT_POWER_ALL] = "power-all",
    [FAULT_CUT] = "cut",       [FAULT_STOP] = "stop",           [FAULT_PAUSE] = "pause",
    [FAULT_CLOCK] = "clock",   [FAULT_PARTITION] = "partition", [FAULT_BREAK] = "break",
    [FAULT_SLOW] = "slow",     [FAULT_FULL] = "full",           [FAULT_ERROR] = "error",
    [FAULT_LEADER] = "leader",
};

const char *profile_name(enum profile p) { return profile_names[p]; }
const char *fault_name(enum fault f) { return fault_names[f]; }

static void draw_size(struct plan *p, struct rng *r) {
    static const unsigned elections[] = {150, 300, 300, 1000};
    p->voters = (unsigned[]){1, 3, 3, 3, 3, 5}[rng_below(r, 6)];
    p->election_ms = elections[rng_below(r, ARRAY_SIZE(elections))];
    p->heartbeat_ms = p->election_ms / 10;
    p->segment_size = (4ULL << rng_below(r, 3)) * 4 * KIB;
    p->snapshot_log_min = (8ULL << rng_below(r, 3)) * KIB;
    p->trailing_bytes = rng_below(r, 3) * 2 * KIB;
    p->auto_promote = rng_chance(r, 700);
    p->early = rng_chance(r, 250);
    p->active_us = rng_between(r, 4, 16) * 1000 * p->election_ms * 4;
    p->bound_us = 80000ULL * p->election_ms + 12000000ULL;
}

static void draw_network(struct plan *p, struct rng *r) {
    p->ordered = rng_chance(r, 500);
    p->delay_min_us = rng_between(r, 20, 500);
    p->delay_max_us = p->delay_min_us + rng_between(r, 10, rng_chance(r, 200) ? 20000 : 1500);
    p->loss_pm = rng_chance(r, 500) ? (unsigned)rng_between(r, 1, p->ordered ? 5 : 150) : 0;
    p->double_pm = !p->ordered && rng_chance(r, 500) ? (unsigned)rng_between(r, 1, 100) : 0;
    p->stray_pm = !p->ordered && rng_chance(r, 400) ? (unsigned)rng_between(r, 1, 30) : 0;
    p->stray_us = 4000ULL * p->election_ms;
    p->zombie_pm = rng_chance(r, 300) ? 500 : 0;
}

static void draw_process(struct plan *p, struct rng *r) {
    p->sync_min_us = rng_between(r, 50, 1000);
    p->sync_max_us = p->sync_min_us + rng_between(r, 50, rng_chance(r, 200) ? 30000 : 3000);
    p->turn_max_us = rng_between(r, 1, 300);
    p->late_ms = (unsigned)rng_below(r, 4);
}

/* By a generator of its own: what else a seed draws does not depend on it. */
static void draw_busy(struct plan *p, struct rng r) {
    p->busy_pm = rng_chance(&r, 300) ? (unsigned)rng_between(&r, 1, 20) : 0;
}

static void draw_faults(struct plan *p, struct rng *r) {
    for (unsigned i = 0; i < FAULT_COUNT; i++)
        p->weight[i] = rng_chance(r, 450) ? (unsigned)rng_between(r, 1, 10) : 0;
    p->fault_us = rng_between(r, 200, 3000) * 1000;
    p->down_us = rng_between(r, 100, 3000) * 1000;
}

static void draw_clients(struct plan *p, struct rng *r) {
    p->clients = (unsigned)rng_between(r, 1, 6);
    p->burst = (unsigned)rng_between(r, 1, rng_chance(r, 300) ? 24 : 4);
    p->keys = (unsigned)rng_between(r, 1, 24);
    p->think_us = rng_between(r, 60, 800) * 1000;
    p->value_max = rng_chance(r, 200) ? 6000 : (size_t)rng_between(r, 0, 400);
    p->read_pm = (unsigned)rng_between(r, 100, 600);
    p->delete_pm = (unsigned)rng_between(r, 0, 150);
    p->batch_pm = (unsigned)rng_between(r, 0, 100);
    p->condition_pm = (unsigned)rng_between(r, 0, 300);
    p->token_pm = (unsigned)rng_between(r, 0, 1000);
}

/* The replica cuts entries to a quarter of a segment, but the largest command has to fit. */
static void fit_segment(struct plan *p) {
    uint64_t most = 3 * (p->value_max + 128); /* a batch of three */
    while (p->segment_size < 4 * most)
        p->segment_size *= 2;
}

static void draw_operator(struct plan *p, struct rng *r) {
    p->admin_us = rng_chance(r, 700) ? rng_between(r, 300, 4000) * 1000 : 0;
    p->change_pm = rng_chance(r, 600) ? (unsigned)rng_between(r, 100, 800) : 0;
    p->transfer_pm = (unsigned)rng_between(r, 0, 500);
    p->snapshot_pm = (unsigned)rng_between(r, 0, 300);
    p->ambush_pm = rng_chance(r, 300) ? (unsigned)rng_between(r, 1, 300) : 0;
    p->rotate_pm = rng_chance(r, 300) ? (unsigned)rng_between(r, 1, 200) : 0;
}

static void only(struct plan *p, const enum fault *faults, size_t n) {
    for (unsigned i = 0; i < FAULT_COUNT; i++)
        p->weight[i] = 0;
    for (size_t i = 0; i < n; i++)
        p->weight[faults[i]] = 4;
}
#define ONLY(p, ...)                                                                               \
    only(p, (const enum fault[]){__VA_ARGS__},                                                     \
         sizeof((const enum fault[]){__VA_ARGS__}) / sizeof(enum fault))

static void bend_sole(struct plan *p, struct rng *r) {
    p->voters = (unsigned)rng_between(r, 1, 2);
    p->early = rng_chance(r, 500);
    p->admin_us = rng_between(r, 200, 1200) * 1000;
    p->change_pm = 850;
    p->ambush_pm = 400;
    p->fault_us = rng_between(r, 150, 900) * 1000;
    p->down_us = rng_between(r, 100, 1500) * 1000;
    ONLY(p, FAULT_KILL, FAULT_POWER, FAULT_PARTITION, FAULT_LEADER, FAULT_STOP);
}

static void bend_resize(struct plan *p, struct rng *r) {
    p->admin_us = rng_between(r, 100, 700) * 1000;
    p->change_pm = 700;
    p->ambush_pm = 300;
    p->transfer_pm = 300;
    p->fault_us = rng_between(r, 300, 2000) * 1000;
    ONLY(p, FAULT_KILL, FAULT_POWER, FAULT_PARTITION, FAULT_LEADER, FAULT_BREAK);
}

static void bend_diverge(struct plan *p, struct rng *r) {
    p->voters = rng_chance(r, 700) ? 3 : 5;
    p->fault_us = rng_between(r, 400, 1500) * 1000;
    p->down_us = rng_between(r, 300, 2500) * 1000;
    p->think_us = rng_between(r, 30, 120) * 1000;
    p->read_pm = 150;
    ONLY(p, FAULT_PARTITION, FAULT_LEADER, FAULT_POWER, FAULT_PAUSE);
}

static void bend_snapshot(struct plan *p, struct rng *r) {
    p->voters = 3;
    p->snapshot_log_min = 8 * KIB;
    if (rng_chance(r, 300)) p->sync_max_us += rng_between(r, 200, 1500) * p->election_ms;
    p->trailing_bytes = 0;
    p->value_max = rng_chance(r, 300) ? 30000 : 3000;
    p->think_us = rng_between(r, 30, 200) * 1000;
    p->read_pm = 100;
    p->fault_us = rng_between(r, 200, 1200) * 1000;
    p->down_us = rng_between(r, 300, 2500) * 1000;
    ONLY(p, FAULT_KILL, FAULT_POWER, FAULT_PARTITION, FAULT_LEADER, FAULT_BREAK, FAULT_CUT);
}

static void bend_slow(struct plan *p, struct rng *r) {
    p->sync_max_us = p->sync_min_us + rng_between(r, 1, 2) * 1000 * p->election_ms;
    p->fault_us = rng_between(r, 200, 1200) * 1000;
    ONLY(p, FAULT_SLOW, FAULT_PAUSE, FAULT_CLOCK, FAULT_PARTITION, FAULT_LEADER, FAULT_POWER);
}

/* Loss makes rejections, and some of these arrive long after their matter is settled; nothing else
 * may happen meanwhile, for any new entry would hide what they do. */
static void bend_echo(struct plan *p, struct rng *r) {
    p->ordered = false;
    p->voters = 3;
    p->election_ms = rng_chance(r, 500) ? 150 : 300;
    p->heartbeat_ms = p->election_ms / 10;
    p->loss_pm = (unsigned)rng_between(r, 50, 250);
    p->double_pm = (unsigned)rng_between(r, 50, 300);
    p->stray_pm = (unsigned)rng_between(r, 20, 300);
    p->stray_us = rng_between(r, 2, 12) * 1000 * p->election_ms;
    p->fault_us = rng_between(r, 3, 8) * 1000 * p->election_ms;
    p->down_us = rng_between(r, 1, 4) * 1000 * p->election_ms;
    p->think_us = rng_between(r, 300, 3000) * 1000;
    p->clients = (unsigned)rng_between(r, 1, 2);
    p->burst = 1;
    if (rng_chance(r, 600)) p->admin_us = 0;
    ONLY(p, FAULT_PARTITION, FAULT_PAUSE, FAULT_KILL);
}

/* What a cut-off leader still writes must not count for what the new one puts in its place. */
static void bend_late(struct plan *p, struct rng *r) {
    p->voters = 3;
    p->election_ms = rng_chance(r, 500) ? 150 : 300;
    p->heartbeat_ms = p->election_ms / 10;
    p->sync_max_us = p->sync_min_us + rng_between(r, 500, 2500) * p->election_ms;
    p->fault_us = rng_between(r, 5, 9) * 1000 * p->election_ms;
    p->down_us = rng_between(r, 1000, 3000) * p->election_ms;
    p->think_us = rng_between(r, 60, 200) * 1000;
    p->clients = 3;
    p->burst = 2;
    p->value_max = 100;
    p->read_pm = 100;
    p->admin_us = 0;
    p->blackout_us = 2 * p->sync_max_us;
    p->busy_pm = 0;
    ONLY(p, FAULT_PARTITION);
}

static void bend_power(struct plan *p, struct rng *r) {
    p->fault_us = rng_between(r, 150, 1000) * 1000;
    p->down_us = rng_between(r, 50, 800) * 1000;
    ONLY(p, FAULT_POWER, FAULT_POWER_ALL, FAULT_CUT, FAULT_ERROR, FAULT_FULL, FAULT_KILL);
}

/* Nothing is wrong but that commands take long: leadership stays where it is. */
static void bend_busy(struct plan *p, struct rng *r) {
    p->fault_us = 0;
    p->loss_pm = p->double_pm = p->stray_pm = p->ambush_pm = 0;
    p->admin_us = 0;
    p->voters = rng_chance(r, 500) ? 3 : 5;
    p->delay_max_us = p->delay_min_us + rng_between(r, 10, 1500);
    p->sync_max_us = p->sync_min_us + rng_between(r, 50, 3000);
    p->busy_pm = (unsigned)rng_between(r, 10, 200);
}

static void bend(struct plan *p, struct rng *r) {
    switch (p->profile) {
    case PROFILE_CALM:
        p->fault_us = 0;
        p->loss_pm = p->double_pm = p->stray_pm = p->ambush_pm = 0;
        break;
    case PROFILE_SOLE: bend_sole(p, r); break;
    case PROFILE_RESIZE: bend_resize(p, r); break;
    case PROFILE_DIVERGE: bend_diverge(p, r); break;
    case PROFILE_SNAPSHOT: bend_snapshot(p, r); break;
    case PROFILE_SLOW: bend_slow(p, r); break;
    case PROFILE_POWER: bend_power(p, r); break;
    case PROFILE_ECHO: bend_echo(p, r); break;
    case PROFILE_LATE: bend_late(p, r); break;
    case PROFILE_BUSY: bend_busy(p, r); break;
    case PROFILE_MIXED:
    case PROFILE_COUNT: break;
    }
}

void plan_draw(struct plan *p, struct rng *r, unsigned nodes, unsigned profile) {
    *p = (struct plan){0};
    unsigned drawn = (unsigned)rng_below(r, PROFILE_COUNT * 2);
    p->profile = drawn < PROFILE_COUNT ? (enum profile)drawn : PROFILE_MIXED;
    if (profile != 0) p->profile = (enum profile)(profile - 1);
    draw_size(p, r);
    draw_network(p, r);
    draw_process(p, r);
    draw_faults(p, r);
    draw_clients(p, r);
    draw_operator(p, r);
    draw_busy(p, *r);
    bend(p, r);
    fit_segment(p);
    if (nodes != 0) p->voters = nodes;
    if (p->voters == 1 && p->profile != PROFILE_SOLE) p->change_pm /= 2;
}

enum profile plan_for_guard(unsigned guard, uint64_t round) {
    static const enum profile all[] = {PROFILE_SOLE,  PROFILE_RESIZE, PROFILE_DIVERGE,
                                       PROFILE_ECHO,  PROFILE_SLOW,   PROFILE_SNAPSHOT,
                                       PROFILE_POWER, PROFILE_LATE,   PROFILE_MIXED};
    static const enum profile made_for[GUARD_COUNT] = {
        [GUARD_REPEATED_REJECTION] = PROFILE_ECHO,     [GUARD_SOLE_VOTER] = PROFILE_SOLE,
        [GUARD_SNAPSHOT_IN_FLIGHT] = PROFILE_SNAPSHOT, [GUARD_PERSISTED_PREFIX] = PROFILE_LATE,
        [GUARD_SELF_CHANGE] = PROFILE_RESIZE,          [GUARD_NON_VOTER_VOTE] = PROFILE_SOLE,
        [GUARD_CHANGE_SPLIT] = PROFILE_RESIZE};
    bool own = guard < GUARD_COUNT && made_for[guard] != PROFILE_MIXED && round % 4 != 3;
    return own ? made_for[guard] : all[round / 4 % ARRAY_SIZE(all)];
}
