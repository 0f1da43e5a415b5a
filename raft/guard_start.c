/* Loading the core: the shells of the caller's log, the newest snapshot's metadata, RAFT_START. A
 * sole voter takes a new term first: the library would let it lead again in the old one, with
 * entries that a crash took back, and two different entries would share an index and a term. For
 * the same reason a follower that finds itself sole voter restarts its core here instead of timing
 * out in it.
 *
 * Called by guard_open, and by guard_timeout when all of the log is durable. On an error the core
 * is closed or unchanged; the node stops either way. */
#include "raft/guard_internal.h"

/* The log as RAFT_START wants it; all memory is raft's. */
struct load {
    struct raft_entry *entries; /* n shells */
    unsigned n;                 /* entries */
    uint8_t *batch;            /* the bytes of all CHANGEs, one after the other; owns every shell */
    size_t size, room;         /* of batch */
    size_t conf_at, conf_size; /* the newest CHANGE in batch; size 0: none */
};

static void load_free(struct load *l) {
    raft_free(l->entries);
    raft_free(l->batch);
    *l = (struct load){0};
}

static enum err load_change(struct load *l, const struct entry *e, struct raft_buffer *buf) {
    size_t need = l->size + e->size;
    if (need > l->room) {
        size_t room = need * 2;
        uint8_t *grown = raft_realloc(l->batch, room);
        if (grown == NULL) return ERR_NOMEM;
        l->batch = grown;
        l->room = room;
    }
    memcpy(l->batch + l->size, e->data, e->size);
    buf->len = e->size;
    l->conf_at = l->size;
    l->conf_size = e->size;
    l->size = need;
    return OK;
}

static enum err load_entry(struct guard *g, struct load *l, uint64_t index, uint64_t *term,
                           struct why *why) {
    const struct entry *e = g->hooks.entry(g->hooks.ctx, index);
    bool fits = e != NULL && e->index == index && e->term > 0 && e->term >= *term;
    if (!fits || e->term > g->term || (index == 1 && e->type != ENTRY_CHANGE))
        return fail_with(why, ERR_CORRUPT, "log entry %llu is missing or out of order",
                         (unsigned long long)index);
    struct raft_entry *shell = &l->entries[l->n++];
    *shell = (struct raft_entry){.term = e->term, .type = (enum raft_entry_type)e->type};
    *term = e->term;
    if (e->type != ENTRY_CHANGE) return OK;
    if (guard_configuration_check(span_of(e->data, e->size)) != OK)
        return fail_with(why, ERR_CORRUPT, "log entry %llu is no configuration",
                         (unsigned long long)index);
    return load_change(l, e, &shell->buf);
}

/* The batch has come to rest: point the shells into it. */
static void load_anchor(struct load *l) {
    size_t at = 0;
    for (unsigned i = 0; i < l->n; i++) {
        l->entries[i].batch = l->batch;
        if (l->entries[i].type != RAFT_CHANGE) continue;
        l->entries[i].buf.base = l->batch + at;
        at += l->entries[i].buf.len;
    }
}

static enum err load_log(struct guard *g, uint64_t first, uint64_t last, struct load *l,
                         struct why *why) {
    uint64_t n = last + 1 - first;
    *l = (struct load){.room = 1};
    if (n == 0) return OK;
    if (n > UINT32_MAX / sizeof *l->entries) return fail_with(why, ERR_TOO_LARGE, "log too long");
    l->batch = raft_malloc(l->room);
    l->entries = raft_malloc((size_t)n * sizeof *l->entries);
    if (l->batch == NULL || l->entries == NULL) return ERR_NOMEM;
    uint64_t term = 0;
    for (uint64_t index = first; index <= last; index++)
        TRY(load_entry(g, l, index, &term, why));
    load_anchor(l);
    return OK;
}

/* The configuration that the core will have after START. */
static bool load_sole_voter(const struct guard *g, const struct load *l) {
    struct span bytes = buf_span(&g->snapshot_conf);
    if (l->conf_size > 0) bytes = span_of(l->batch + l->conf_at, l->conf_size);
    struct conf c;
    if (bytes.size == 0 || conf_parse(bytes, &c) != OK || !conf_is_voter(&c, g->id)) return false;
    unsigned voters = 0;
    for (unsigned i = 0; i < c.n; i++)
        voters += c.servers[i].role == RAFT_VOTER;
    return voters == 1;
}

bool guard_sole_voter(const struct raft_configuration *c, uint64_t id) {
    const struct raft_server *self = conf_find(c, id);
    if (self == NULL || self->role != RAFT_VOTER) return false;
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id != id && c->servers[i].role == RAFT_VOTER) return false;
    return true;
}

static enum err new_term(struct guard *g) {
    g->in_hook = true;
    enum err e = g->hooks.persist(g->hooks.ctx, g->term + 1, g->id);
    g->in_hook = false;
    if (e != OK) return e;
    g->term++;
    g->vote = g->id;
    return OK;
}

static enum err core_init(struct guard *g, unsigned seed) {
    struct raft *r = &g->r;
    *r = (struct raft){0};
    if (raft_init(r, NULL, NULL, g->id, "") != 0) return ERR_NOMEM;
    g->open = true;
    r->tracer = NULL; /* the default one formats text at every step */
    raft_seed(r, seed);
    raft_set_election_timeout(r, g->election_ms);
    raft_set_heartbeat_timeout(r, g->heartbeat_ms);
    /* A repetition while a stream is in flight is dropped, so this only bounds how long a peer
     * waits after a stream that failed. */
    raft_set_install_snapshot_timeout(r, 4 * g->election_ms);
    raft_set_pre_vote(r, true);
    raft_set_max_inflight_entries(r, g->inflight_max);
    raft_set_max_catch_up_rounds(r, 10);
    raft_set_max_catch_up_round_duration(r, 10000);
    raft_set_capacity_threshold(r, 0);
    return OK;
}

/* START itself. The core takes the entries' memory only when it fails; we free it after success. */
static enum err core_start(struct guard *g, uint64_t first, struct load *l) {
    struct raft_snapshot_metadata meta = {.index = g->snapshot.index, .term = g->snapshot.term};
    struct raft_update u = {0};
    struct raft_event event = {.time = g->now, .type = RAFT_START};
    if (meta.index > 0) {
        TRY(conf_decode(buf_span(&g->snapshot_conf), &meta.configuration));
        meta.configuration_index = g->snapshot.conf_index;
        event.start.metadata = &meta;
    }
    event.start.term = g->term;
    event.start.voted_for = g->vote;
    event.start.start_index = first;
    event.start.entries = l->entries;
    event.start.n_entries = l->n;
    int rv = raft_step(&g->r, &event, &u);
    if (rv != 0) {
        *l = (struct load){0};
        return guard_map(rv);
    }
    load_free(l);
    return guard_settle(g, &u);
}

static enum err core_run(struct guard *g, uint64_t first, struct load *l, unsigned seed) {
    if (guard_on(g, GUARD_SOLE_VOTER) && load_sole_voter(g, l)) TRY(new_term(g));
    TRY(core_init(g, seed));
    return core_start(g, first, l);
}

enum err guard_load(struct guard *g, uint64_t first, uint64_t last, struct why *why) {
    struct load l;
    enum err e = load_log(g, first, last, &l, why);
    if (e == OK) e = core_run(g, first, &l, g->seed);
    load_free(&l);
    return e;
}

enum err guard_restart(struct guard *g) {
    uint64_t first = g->r.trail.offset + 1;
    unsigned seed = g->r.random;
    struct load l;
    enum err e = load_log(g, first, trail_last(&g->r.trail), &l, NULL);
    if (e == OK) {
        raft_close(&g->r, NULL);
        g->open = false;
        e = core_run(g, first, &l, seed);
    }
    load_free(&l);
    return e;
}
