/* A few hundred short random runs of three to five guards: messages dropped, doubled and reordered,
 * crashes that lose writes, partitions, membership changes, transfers, snapshots. In each: one
 * leader a term, the same committed entries everywhere, none lost; and, once the weather clears,
 * all agree and go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/guard_cluster.h"

#define RUNS  300
#define STEPS 1500

struct chance {
    uint64_t state; /* of the generator */
};

static unsigned below(struct chance *r, unsigned n) {
    r->state = r->state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)((r->state >> 33) % n);
}

static void weather(struct guards *c, struct chance *r) {
    uint64_t id = 1 + below(r, GC_NODES - 1);
    struct gc_node *n = &c->nodes[id];
    switch (below(r, 12)) {
    case 0:
        if (n->g != NULL) guards_crash(c, id);
        break;
    case 1: guards_cut(c, id, below(r, 2) == 0); break;
    case 2: guards_cut(c, id, false); break;
    case 3:
        if (n->g != NULL) guards_snapshot(c, id, below(r, 4));
        break;
    default:
        if (n->g == NULL && n->disk_first > 0) guards_start(c, id);
        break;
    }
}

static void request(struct guards *c, struct chance *r) {
    struct gc_node *n = guards_leader(c);
    if (n == NULL) return;
    uint64_t id = 1 + below(r, GC_NODES - 1);
    switch (below(r, 12)) {
    case 0: (void)guards_change(c, n->id, id, (int)below(r, 4) - 1); break;
    case 1: (void)guards_change(c, n->id, id, RAFT_VOTER); break;
    case 2: (void)!guard_transfer(n->g, c->now, below(r, 2) == 0 ? 0 : id); break;
    case 3: (void)!guard_catch_up(n->g, c->now, id); break;
    default: (void)guards_submit(c, n->id); break;
    }
}

static void network(struct guards *c, struct chance *r) {
    if (c->n_queue == 0) return;
    size_t i = below(r, 4) == 0 ? below(r, (unsigned)c->n_queue) : 0;
    switch (below(r, 20)) {
    case 0: guards_drop_at(c, i); break;
    case 1: guards_copy_at(c, i); break;
    default: guards_deliver_at(c, i); break;
    }
}

static void timers(struct guards *c, struct chance *r) {
    c->now += below(r, 40);
    for (uint64_t id = 1; id < GC_NODES; id++) {
        struct gc_node *n = &c->nodes[id];
        if (n->g == NULL || guard_timer_ms(n->g, c->now) > c->now) continue;
        if (guard_timeout(n->g, c->now) != OK)
            snprintf(c->violation, sizeof c->violation, "a timer fails");
    }
}

static void one_step(struct guards *c, struct chance *r) {
    unsigned dice = below(r, 100);
    uint64_t id = 1 + below(r, GC_NODES - 1);
    if (dice < 60)
        network(c, r);
    else if (dice < 78 && c->nodes[id].g != NULL)
        (void)guards_write(c, id);
    else if (dice < 88)
        timers(c, r);
    else if (dice < 97)
        request(c, r);
    else
        weather(c, r);
}

static void clear_up(struct guards *c) {
    for (uint64_t id = 1; id < GC_NODES; id++)
        guards_cut(c, id, false);
    for (uint64_t id = 1; id < GC_NODES; id++)
        if (c->nodes[id].g == NULL) guards_start(c, id);
    c->lazy_disk = false;
    guards_run(c, 6000);
}

/* Every voter and standby, as the leader sees it, has applied all that is committed. */
static bool all_follow(struct guards *c, const struct gc_node *leader) {
    const struct raft_configuration *conf = &guard_raft(leader->g)->configuration;
    for (unsigned i = 0; i < conf->n; i++)
        if (conf->servers[i].role != RAFT_SPARE &&
            c->nodes[conf->servers[i].id].applied != leader->applied)
            return false;
    return true;
}

/* Returns false and tells when the run shows a fault. */
static bool run_one(unsigned seed, uint32_t away, char *text, size_t room) {
    struct chance r = {seed * 2654435761ULL + 1};
    unsigned nodes = 3 + below(&r, 3);
    struct guards *c = guards_new(nodes, 1 + below(&r, nodes), away, seed);
    c->lazy_disk = true;
    for (uint64_t id = 1; id <= nodes; id++)
        guards_start(c, id);
    for (unsigned i = 0; i < STEPS && c->violation[0] == '\0'; i++)
        one_step(c, &r);
    if (c->violation[0] == '\0') clear_up(c);
    struct gc_node *leader = guards_leader(c);
    if (c->violation[0] == '\0' && leader == NULL)
        snprintf(c->violation, sizeof c->violation, "no leader");
    if (c->violation[0] == '\0' && guards_submit(c, leader->id) != OK)
        snprintf(c->violation, sizeof c->violation, "the leader takes no entry");
    if (c->violation[0] == '\0') guards_run(c, 2000);
    if (c->violation[0] == '\0' && leader->applied != guard_last_index(leader->g))
        snprintf(c->violation, sizeof c->violation, "an entry is never committed");
    if (c->violation[0] == '\0' && !all_follow(c, leader))
        snprintf(c->violation, sizeof c->violation, "a member does not catch up");
    snprintf(text, room, "seed %u: %s", seed, c->violation);
    bool good = c->violation[0] == '\0';
    guards_free(c);
    return good;
}

static void guarded_runs_stay_sound(void **state) {
    (void)state;
    char text[600];
    for (unsigned seed = 1; seed <= RUNS; seed++)
        if (!run_one(seed, 0, text, sizeof text)) fail_msg("%s", text);
}

/* The guards whose absence shows within a few seeds; the others have scenarios in test_guard*.c. */
static void runs_without_a_guard_do_not(void **state) {
    (void)state;
    const enum guard_id ids[] = {GUARD_SOLE_VOTER, GUARD_COMMIT_MAX, GUARD_SELF_CHANGE,
                                 GUARD_NON_VOTER_VOTE, GUARD_INSTALL_APPLY};
    char text[600];
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        bool good = true;
        for (unsigned seed = 1; seed <= RUNS && good; seed++)
            good = run_one(seed, 1u << ids[i], text, sizeof text);
        if (good) fail_msg("%s is not missed", guard_name(ids[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guarded_runs_stay_sound),
        cmocka_unit_test(runs_without_a_guard_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
