/* The machine that the simulator puts between the replica and the store: everything is the store's,
 * and what is applied is told to check.c with its result and the state's hash. It also holds the
 * replica to the machine's contract: indexes ascend by one, except after a restored snapshot, where
 * they may jump forward: to the snapshot's own index, whose commands it does not see, or to the one
 * after. A process that died in the middle of an entry applies it again in its next life. */
#include <stdlib.h>

#include "tests/sim/node.h"
#include "tests/sim/sim.h"

static RESULT watch_apply(struct machine *m, uint64_t index, struct span command,
                          struct buf *result, struct why *why) {
    struct watch *s = (struct watch *)m;
    struct world *w = s->node->world;
    if (index != s->index) {
        bool follows = index == s->applied + 1 || (s->restored && index > s->applied);
        if (!follows)
            sim_violate(w, "n%llu applies index %llu after %llu", (unsigned long long)s->node->id,
                        (unsigned long long)index, (unsigned long long)s->applied);
        s->index = index;
        s->ordinal = 0;
    }
    if (w->plan.busy_pm != 0 && w->heal_us == 0 && w->grown && rng_chance(&w->rng, w->plan.busy_pm))
        node_busy(s->node, rng_below(&w->rng, 3000ULL * w->plan.election_ms));
    /* A result that nobody asked for is as good to compare; every other one is really left out. */
    struct buf own = buf_new(RESULT_MAX);
    bool silent = result == NULL && index % 2 == 0 && index <= check_last(w->check);
    if (result == NULL && !silent) result = &own;
    size_t before = silent ? 0 : result->size;
    enum err e = s->inner->apply(s->inner, index, command, result, why);
    struct span answer = {0};
    if (!silent) answer = span_of(result->at + before, result->size - before);
    if (e == OK) check_command(w, s->node, index, s->ordinal++, command, answer);
    buf_free(&own);
    return e;
}

static void watch_applied(struct machine *m, uint64_t index) {
    struct watch *s = (struct watch *)m;
    bool follows = index == s->applied + 1 || (s->restored && index > s->applied);
    if (!follows)
        sim_violate(s->node->world, "n%llu ends index %llu after %llu",
                    (unsigned long long)s->node->id, (unsigned long long)index,
                    (unsigned long long)s->applied);
    uint32_t commands = s->index == index ? s->ordinal : s->restored ? COMMANDS_UNKNOWN : 0;
    s->inner->applied(s->inner, index);
    uint8_t hash[STATE_HASH_SIZE];
    s->inner->hash(s->inner, hash);
    s->applied = s->index = index;
    s->ordinal = 0;
    s->restored = false;
    check_applied(s->node->world, s->node, index, commands, hash);
}

static RESULT watch_view(struct machine *m, struct machine_view **out) {
    struct watch *s = (struct watch *)m;
    s->node->world->figures.snapshots++;
    sim_trace(s->node->world, "n%llu takes a snapshot at %llu", (unsigned long long)s->node->id,
              (unsigned long long)s->applied);
    return s->inner->view(s->inner, out);
}

/* A restore of the store's, and whose it is. */
struct received {
    struct machine_restore *inner; /* the store's */
    struct watch *watch;           /* ours */
};

static RESULT watch_restore(struct machine *m, struct machine_restore **out) {
    struct watch *s = (struct watch *)m;
    struct received *r = sim_alloc(sizeof *r);
    enum err e = s->inner->restore(s->inner, &r->inner);
    r->watch = s;
    if (e == OK)
        *out = (struct machine_restore *)(void *)r;
    else
        free(r);
    return e;
}

static RESULT watch_restore_bytes(struct machine_restore *restore, struct span bytes) {
    struct received *r = (struct received *)(void *)restore;
    return r->watch->inner->restore_bytes(r->inner, bytes);
}

static RESULT watch_restore_end(struct machine_restore *restore,
                                const uint8_t hash[STATE_HASH_SIZE]) {
    struct received *r = (struct received *)(void *)restore;
    struct watch *s = r->watch;
    enum err e = s->inner->restore_end(r->inner, hash);
    free(r);
    s->restored = true;
    s->node->world->figures.installs++;
    sim_trace(s->node->world, "n%llu restored a snapshot", (unsigned long long)s->node->id);
    return e;
}

static void watch_restore_abort(struct machine_restore *restore) {
    struct received *r = (struct received *)(void *)restore;
    r->watch->inner->restore_abort(r->inner);
    free(r);
}

static void watch_hash(struct machine *m, uint8_t hash[STATE_HASH_SIZE]) {
    struct watch *s = (struct watch *)m;
    s->inner->hash(s->inner, hash);
}

void watch_init(struct watch *s, struct sim_node *n, struct machine *inner) {
    *s = (struct watch){.base = *inner, .inner = inner, .node = n};
    s->base.apply = watch_apply;
    s->base.applied = watch_applied;
    s->base.view = watch_view;
    s->base.restore = watch_restore;
    s->base.restore_bytes = watch_restore_bytes;
    s->base.restore_end = watch_restore_end;
    s->base.restore_abort = watch_restore_abort;
    s->base.hash = watch_hash;
}
