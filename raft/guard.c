/* libraft 0.22.1 with its faults fenced. The core is a pure function of events; this file turns
 * each event of replica.c into one or more steps, and stands between every step's update and the
 * caller: term and vote are made durable first, messages are mended, commit only grows. What the
 * library gets wrong (L), and what fences it:
 *
 *   fault (L)                                            guard                    without it
 *   a stale AppendEntries with prev 0, or InstallSnap-   stale-reply: the answer  acknowledged data
 *   shot, is answered with uninitialised memory          is made neutral          is lost
 *   a repeated rejection drives next below match         repeated-rejection:      only empty
 *                                                        neutral, or raised hint  messages for ever
 *   a CHANGE behind other new entries gets their index   change-split: it comes   rollback missed,
 *                                                        as its own first         changes blocked
 *   a sole voter leads again in its old term             sole-voter: term + 1     logs diverge
 *   AppendEntries below the compaction point appends     below-compaction: is     a corrupt log
 *   there                                                rebased on the snapshot
 *   snapshots are sent again while one is under way      snapshot-in-flight       wasted streams,
 *                                                                                 a lost write
 *   a truncated tail is reported durable                 persisted-prefix         acknowledged data
 *                                                                                 is lost
 *   commit goes back with an old AppendEntries           commit-max               applied twice
 *   a CHANGE before an entry of the own term             own-term-change:         two majorities
 *                                                        refused; a barrier after
 *                                                        every election
 *   a CHANGE is sent before it is on the own disk        change-sync: held back   no leader, ever
 *   a leader demotes or removes itself, then crashes     self-change: refused     no leader, ever
 *   a non-voter by its own, older configuration denies   non-voter-vote: it votes no leader, ever
 *   votes and never forgets its leader
 *   a pre-vote denial repeats the candidate's term       pre-vote-term: the       no leader, ever
 *                                                        higher one
 *   conflicts are repaired one index a round trip        conflict-term: the hint  hours
 *                                                        skips the term
 *   disrupt_leader survives retries                      disrupt: once            leaders deposed
 *   a server made SPARE leaves the timer in the past     timer-floor              a busy loop
 *   a heartbeat during an install raises commit          install-apply: stands    gaps applied
 *                                                        still
 *   a late answer to a pre-vote counts as a real term    late-pre-vote: dropped   leaders deposed
 *   a second try of an election skips the pre-vote       retry-pre-vote           leaders deposed
 *   TIMEOUT_NOW goes out with the first acknowledgement, early-transfer: waits    transfers fail
 *   not the last, and is not repeated                    for the last             under load
 *   the catch-up of a server that has everything waits   idle-catch-up: a         never promoted
 *   for an entry                                         barrier comes
 *   with the snapshot at index 1 the leader takes entry  first-snapshot: none     an empty member
 *   1 for present, and sends an empty server nothing     at index 1               never catches up
 *
 * Called by replica.c and the simulator, on one thread. */
#include "raft/guard.h"

#include <assert.h>
#include <stdlib.h>

#include "raft/guard_internal.h"

_Static_assert(RAFT_VERSION_NUMBER == GUARD_RAFT_VERSION, "the guards are made for libraft 0.22.1");
/* The static library has this function, the shared one does not export it: headers decide then. */
#pragma weak raft_version_number

static const char *const names[GUARD_COUNT] = {
    [GUARD_STALE_REPLY] = "stale-reply",
    [GUARD_REPEATED_REJECTION] = "repeated-rejection",
    [GUARD_CHANGE_SPLIT] = "change-split",
    [GUARD_SOLE_VOTER] = "sole-voter",
    [GUARD_BELOW_COMPACTION] = "below-compaction",
    [GUARD_SNAPSHOT_IN_FLIGHT] = "snapshot-in-flight",
    [GUARD_PERSISTED_PREFIX] = "persisted-prefix",
    [GUARD_COMMIT_MAX] = "commit-max",
    [GUARD_OWN_TERM_CHANGE] = "own-term-change",
    [GUARD_CHANGE_SYNC] = "change-sync",
    [GUARD_SELF_CHANGE] = "self-change",
    [GUARD_NON_VOTER_VOTE] = "non-voter-vote",
    [GUARD_PRE_VOTE_TERM] = "pre-vote-term",
    [GUARD_CONFLICT_TERM] = "conflict-term",
    [GUARD_DISRUPT] = "disrupt",
    [GUARD_TIMER_FLOOR] = "timer-floor",
    [GUARD_INSTALL_APPLY] = "install-apply",
    [GUARD_LATE_PRE_VOTE] = "late-pre-vote",
    [GUARD_RETRY_PRE_VOTE] = "retry-pre-vote",
    [GUARD_EARLY_TRANSFER] = "early-transfer",
    [GUARD_IDLE_CATCH_UP] = "idle-catch-up",
    [GUARD_FIRST_SNAPSHOT] = "first-snapshot",
};

const char *guard_name(enum guard_id id) {
    return (unsigned)id < GUARD_COUNT ? names[id] : "unknown";
}
bool guard_on(const struct guard *g, enum guard_id id) { return (g->away & (1u << id)) == 0; }
void guard_take_away(struct guard *g, enum guard_id id) { g->away |= 1u << id; }

enum err guard_fail(struct guard *g, enum err e) {
    if (g->failed == OK) g->failed = e;
    return e;
}

enum err guard_soft(struct guard *g, enum err e, const char *reason) {
    g->reason = reason;
    return e;
}

enum err guard_map(int raft_error) {
    switch (raft_error) {
    case 0: return OK;
    case RAFT_NOMEM: return ERR_NOMEM;
    case RAFT_NOTLEADER: return ERR_NOT_LEADER;
    case RAFT_CANTCHANGE: return ERR_BUSY;
    case RAFT_BADID: return ERR_INVALID;
    case RAFT_NOTFOUND: return ERR_NOT_FOUND;
    case RAFT_NOSPACE: return ERR_BUSY;
    case RAFT_MALFORMED: return ERR_CORRUPT;
    case RAFT_SHUTDOWN: return ERR_DIVERGED; /* a committed entry differs from the leader's */
    default: return ERR_INTERNAL;
    }
}

static bool is_soft(const struct raft_event *event, int rv) {
    if (event->type != RAFT_SUBMIT && event->type != RAFT_TRANSFER) return false;
    return rv == RAFT_NOTLEADER || rv == RAFT_CANTCHANGE || rv == RAFT_BADID ||
           rv == RAFT_NOTFOUND || rv == RAFT_NOSPACE;
}

/* Every event begins here: nothing after a failure, nothing from within a hook, no step back in
 * time. */
enum err guard_enter(struct guard *g, uint64_t now_ms) {
    assert(!g->in_hook);
    if (now_ms > g->now) g->now = now_ms;
    return g->failed;
}

enum err guard_shells(struct guard *g, size_t n) {
    if (g->batch == NULL) g->batch = raft_malloc(1);
    if (g->batch == NULL) return guard_fail(g, ERR_NOMEM);
    if (n <= g->shells_room) return OK;
    size_t room = n < 64 ? 64 : 2 * n;
    struct raft_entry *grown = realloc(g->shells, room * sizeof *grown);
    if (grown == NULL) return guard_fail(g, ERR_NOMEM);
    g->shells = grown;
    g->shells_room = room;
    return OK;
}

enum err guard_remember(struct guard *g, const struct snapshot_meta *meta) {
    struct buf conf = buf_new(GUARD_CONF_MAX);
    if (buf_add_span(&conf, meta->conf) != OK) return guard_fail(g, ERR_NOMEM);
    buf_free(&g->snapshot_conf);
    g->snapshot_conf = conf;
    g->snapshot = *meta;
    g->snapshot.conf = buf_span(&g->snapshot_conf);
    return OK;
}

/* Commit only grows, and stands still while a snapshot is being installed: the entries are not
 * there. */
static void settle_commit(struct guard *g, struct raft_update *u) {
    struct raft *r = &g->r;
    bool still = r->snapshot.installing && guard_on(g, GUARD_INSTALL_APPLY);
    if (!still && (r->commit_index > g->commit || !guard_on(g, GUARD_COMMIT_MAX))) {
        g->commit = r->commit_index;
        return;
    }
    u->flags &= ~(unsigned)(RAFT_UPDATE_COMMIT_INDEX);
    if (!r->snapshot.installing && r->commit_index < g->commit) r->commit_index = g->commit;
}

/* New entries that replace some, or a snapshot that replaces all, make older writes late. */
static void settle_epoch(struct guard *g, const struct raft_update *u) {
    if (u->flags & (RAFT_UPDATE_SNAPSHOT)) {
        g->epoch++;
        g->given_last = u->snapshot.metadata.index;
    }
    if (u->flags & (RAFT_UPDATE_ENTRIES)) {
        if (u->entries.index <= g->given_last) g->epoch++;
        g->given_last = u->entries.index + u->entries.n - 1;
    }
}

static enum err settle_vote(struct guard *g) {
    if (g->r.current_term == g->term && g->r.voted_for == g->vote) return OK;
    TRY(g->hooks.persist(g->hooks.ctx, g->r.current_term, g->r.voted_for));
    g->term = g->r.current_term;
    g->vote = g->r.voted_for;
    return OK;
}

static void settle_free(struct guard *g, struct raft_update *u) {
    if (u->flags & (RAFT_UPDATE_ENTRIES)) {
        void *batch = u->entries.batch[0].batch;
        if (batch != g->batch) raft_free(batch); /* the core's own barrier */
    }
    if (u->flags & (RAFT_UPDATE_SNAPSHOT)) {
        raft_free(u->snapshot.chunk.base);
        raft_configuration_close(&u->snapshot.metadata.configuration);
    }
}

enum err guard_settle(struct guard *g, struct raft_update *u) {
    settle_commit(g, u);
    settle_epoch(g, u);
    g->in_hook = true;
    enum err e = settle_vote(g);
    if (e == OK) {
        guard_mend(g, u);
        if (u->flags != 0) e = g->hooks.update(g->hooks.ctx, u);
    }
    g->in_hook = false;
    settle_free(g, u);
    return e == OK ? OK : guard_fail(g, e);
}

/* The core has freed the batch of entries that it did not want. */
static bool batch_is_gone(const struct raft_event *event, const struct raft_update *u, int rv) {
    if (event->type != RAFT_RECEIVE || event->receive.message->type != RAFT_APPEND_ENTRIES)
        return false;
    if (event->receive.message->append_entries.n_entries == 0) return false;
    return rv != 0 || !(u->flags & (RAFT_UPDATE_ENTRIES));
}

enum err guard_step(struct guard *g, struct raft_event *event) {
    struct raft_update u = {0};
    event->time = g->now;
    int rv = raft_step(&g->r, event, &u);
    if (batch_is_gone(event, &u, rv)) g->batch = NULL;
    if (rv == 0) return guard_settle(g, &u);
    if (is_soft(event, rv)) return guard_soft(g, guard_map(rv), raft_strerror(rv));
    return guard_fail(g, guard_map(rv));
}

static enum err submit(struct guard *g, enum raft_entry_type type, struct span bytes) {
    TRY(guard_shells(g, 1));
    g->shells[0] = (struct raft_entry){.term = g->r.current_term, .type = type, .batch = g->batch};
    g->shells[0].buf.base = (void *)(uintptr_t)bytes.at;
    g->shells[0].buf.len = bytes.size;
    struct raft_event event = {.type = RAFT_SUBMIT};
    event.submit.entries = g->shells;
    event.submit.n = 1;
    return guard_step(g, &event);
}

/* A leader whose log does not end in its own term was just elected and has nothing to commit. */
static bool wants_barrier(const struct guard *g) {
    if (g->r.state != RAFT_LEADER || !guard_on(g, GUARD_OWN_TERM_CHANGE)) return false;
    return trail_term(&g->r.trail, trail_last(&g->r.trail)) != g->r.current_term;
}

enum err guard_deliver(struct guard *g, uint64_t upto) {
    uint64_t index = g->r.configuration_uncommitted_index;
    if (index == 0 || index > upto || !guard_on(g, GUARD_CHANGE_SPLIT)) return OK;
    struct raft_event event = {.type = RAFT_CONFIGURATION};
    event.configuration.index = index;
    if (conf_copy(&g->r.configuration, &event.configuration.conf) != OK)
        return guard_fail(g, ERR_NOMEM);
    return guard_step(g, &event);
}

enum err guard_follow(struct guard *g) {
    if (wants_barrier(g)) TRY(submit(g, RAFT_BARRIER, (struct span){0}));
    return guard_deliver(g, g->commit);
}

static enum err run(struct guard *g, struct raft_event *event) {
    TRY(guard_step(g, event));
    return guard_follow(g);
}

static bool meta_fits(const struct snapshot_meta *m, uint64_t term) {
    return m->index > 0 && m->term > 0 && m->term <= term && m->conf_index > 0 &&
           m->conf_index <= m->index;
}

static enum err open_check(const struct guard_start *s, const struct guard_hooks *hooks,
                           struct why *why) {
    const struct snapshot_meta *m = s->snapshot;
    if (raft_version_number != NULL && raft_version_number() != GUARD_RAFT_VERSION)
        return fail_with(why, ERR_UNSUPPORTED, "libraft is version %d, %d is needed",
                         raft_version_number(), GUARD_RAFT_VERSION);
    if (s->id == 0 || s->election_ms == 0 || s->heartbeat_ms == 0 || s->inflight_max == 0)
        return fail_with(why, ERR_INVALID, "raft id, time-outs and window must not be 0");
    if (s->first_index == 0 || s->first_index > s->last_index + 1)
        return fail_with(why, ERR_INVALID, "the log's first index lies behind its last");
    if (m != NULL && !meta_fits(m, s->term))
        return fail_with(why, ERR_CORRUPT, "snapshots/: the metadata do not fit the ballot's term");
    if (m != NULL && guard_configuration_check(m->conf) != OK)
        return fail_with(why, ERR_CORRUPT, "snapshots/: the configuration is damaged");
    if (s->first_index > (m != NULL ? m->index : 0) + 1)
        return fail_with(
            why, ERR_CORRUPT,
            "snapshots/: the log begins at entry %llu, and no snapshot reaches up to it",
            (unsigned long long)s->first_index);
    if (guard_log_is_stale(s, hooks))
        return fail_with(why, ERR_CORRUPT, "log/: older than the snapshot");
    return OK;
}

bool guard_log_is_stale(const struct guard_start *s, const struct guard_hooks *hooks) {
    const struct snapshot_meta *m = s->snapshot;
    if (m == NULL || s->first_index > m->index) return false;
    if (s->last_index < m->index) return true;
    const struct entry *e = hooks->entry(hooks->ctx, m->index);
    return e == NULL || e->term != m->term;
}

static struct guard *guard_new(const struct guard_start *s, const struct guard_hooks *hooks) {
    struct guard *g = calloc(1, sizeof *g);
    if (g == NULL) return NULL;
    *g = (struct guard){
        .hooks = *hooks,
        .away = s->away,
        .reason = "",
        .now = s->now_ms,
        .term = s->term,
        .vote = s->vote,
        .given_last = s->last_index,
        .election_ms = s->election_ms,
        .heartbeat_ms = s->heartbeat_ms,
        .inflight_max = s->inflight_max,
        .seed = s->seed,
        .id = s->id,
    };
    return g;
}

enum err guard_open(const struct guard_start *s, const struct guard_hooks *hooks,
                    struct guard **out, struct why *why) {
    TRY(open_check(s, hooks, why));
    struct guard *g = guard_new(s, hooks);
    if (g == NULL) return ERR_NOMEM;
    *out = g;
    enum err e = s->snapshot != NULL ? guard_remember(g, s->snapshot) : OK;
    if (e == OK) e = guard_load(g, s->first_index, s->last_index, why);
    if (e == OK) e = guard_follow(g);
    if (e == OK) return OK;
    guard_close(g);
    *out = NULL;
    return e;
}

void guard_close(struct guard *g) {
    if (g == NULL) return;
    if (g->open) raft_close(&g->r, NULL);
    raft_free(g->batch);
    free(g->shells);
    buf_free(&g->snapshot_conf);
    free(g);
}

/* A follower that is the only voter would lead again in its old term: it starts again in a new one.
 * Not while writes are under way; the core then only restarts its timer. */
static bool wants_restart(const struct guard *g) {
    const struct raft *r = &g->r;
    if (!guard_on(g, GUARD_SOLE_VOTER) || r->state != RAFT_FOLLOWER) return false;
    if (r->snapshot.installing || r->last_stored < trail_last(&r->trail)) return false;
    return guard_sole_voter(&r->configuration, g->id);
}

void guard_excuse(struct guard *g, uint64_t now_ms, uint64_t ms) {
    struct raft *r = &g->r;
    bool follows = r->state == RAFT_FOLLOWER;
    if (!follows && r->state != RAFT_LEADER) return;
    uint64_t whole = follows ? r->follower_state.randomized_election_timeout : r->election_timeout;
    if (ms > whole || now_ms < whole) return;
    uint64_t start = now_ms + ms - whole, contact = now_ms + ms - g->election_ms;
    if (r->election_timer_start >= start || r->election_timer_start == g->excused) return;
    r->election_timer_start = g->excused = start;
    if (g->contact_at != 0 && g->contact_at < contact) g->contact_at = contact;
}

enum err guard_timeout(struct guard *g, uint64_t now_ms) {
    TRY(guard_enter(g, now_ms));
    if (g->now < guard_timer_ms(g, g->now)) return OK;
    g->timeout_at = g->now;
    if (wants_restart(g)) {
        enum err e = guard_restart(g);
        return e == OK ? guard_follow(g) : guard_fail(g, e);
    }
    if (g->r.state == RAFT_CANDIDATE && guard_on(g, GUARD_RETRY_PRE_VOTE)) {
        g->r.candidate_state.in_pre_vote = g->r.pre_vote;
        g->r.candidate_state.disrupt_leader = false;
    }
    struct raft_event event = {.type = RAFT_TIMEOUT};
    return run(g, &event);
}

/* Whether a completed write is a prefix of the log as it is now. Index and term alone do not tell:
 * a tail may be cut and come back, and then only the second write of it counts. */
static bool persisted_counts(const struct guard *g, uint64_t index, uint64_t term, uint64_t epoch) {
    const struct raft *r = &g->r;
    if (!guard_on(g, GUARD_PERSISTED_PREFIX)) return index > r->last_stored;
    if (r->snapshot.installing || epoch != g->epoch) return false;
    return index > r->last_stored && trail_term(&r->trail, index) == term;
}

enum err guard_persisted(struct guard *g, uint64_t now_ms, uint64_t index, uint64_t term,
                         uint64_t epoch) {
    TRY(guard_enter(g, now_ms));
    if (!persisted_counts(g, index, term, epoch)) return OK;
    struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES};
    event.persisted_entries.index = index;
    TRY(run(g, &event));
    return guard_release_held(g);
}

static enum err snapshot_event(struct guard *g, const struct snapshot_meta *meta,
                               struct raft_snapshot_metadata *out) {
    if (!meta_fits(meta, g->term)) return guard_soft(g, ERR_INVALID, "a snapshot that can't be");
    out->index = meta->index;
    out->term = meta->term;
    out->configuration_index = meta->conf_index;
    enum err e = conf_decode(meta->conf, &out->configuration);
    if (e == ERR_PROTOCOL) return guard_soft(g, ERR_INVALID, "no configuration in the snapshot");
    if (e != OK) return guard_fail(g, e);
    e = guard_remember(g, meta);
    if (e != OK) raft_configuration_close(&out->configuration);
    return e;
}

enum err guard_snapshot_taken(struct guard *g, uint64_t now_ms, const struct snapshot_meta *meta,
                              unsigned trailing) {
    TRY(guard_enter(g, now_ms));
    const struct raft_trail *t = &g->r.trail;
    if (g->r.snapshot.installing || meta->index <= t->snapshot.index) return OK;
    if (meta->index == 1 && guard_on(g, GUARD_FIRST_SNAPSHOT)) return OK;
    if (meta->index > g->commit || trail_term(t, meta->index) != meta->term)
        return guard_soft(g, ERR_INVALID, "the snapshot is not of a committed entry");
    struct raft_event event = {.type = RAFT_SNAPSHOT};
    TRY(snapshot_event(g, meta, &event.snapshot.metadata));
    /* The core does not expect that what is still being written is compacted. */
    uint64_t stored = g->r.last_stored;
    uint64_t unstored = meta->index > stored ? meta->index - stored : 0;
    event.snapshot.trailing = unstored > trailing ? (unsigned)unstored : trailing;
    return run(g, &event);
}

enum err guard_snapshot_installed(struct guard *g, uint64_t now_ms,
                                  const struct snapshot_meta *meta) {
    TRY(guard_enter(g, now_ms));
    const struct raft_trail *t = &g->r.trail;
    if (!g->r.snapshot.installing || meta->index != t->snapshot.index ||
        meta->term != t->snapshot.term)
        return guard_soft(g, ERR_INVALID, "not the snapshot that is being installed");
    struct raft_event event = {.type = RAFT_PERSISTED_SNAPSHOT};
    TRY(snapshot_event(g, meta, &event.persisted_snapshot.metadata));
    event.persisted_snapshot.last = true;
    return run(g, &event);
}

/* What SUBMIT of any kind asks for. */
static enum err may_submit(struct guard *g, const struct entry *e) {
    const struct raft *r = &g->r;
    if (r->state != RAFT_LEADER) return guard_soft(g, ERR_NOT_LEADER, "not the leader");
    if (r->leader_state.transferee != 0)
        return guard_soft(g, ERR_BUSY, "leadership is being transferred");
    if (e->term != r->current_term || e->index != trail_last(&r->trail) + 1)
        return guard_soft(g, ERR_INVALID, "the entry was made for another place in the log");
    return OK;
}

enum err guard_submit(struct guard *g, uint64_t now_ms, const struct entry *e) {
    TRY(guard_enter(g, now_ms));
    TRY(may_submit(g, e));
    if (e->type == ENTRY_CHANGE) return guard_soft(g, ERR_INVALID, "a CHANGE needs guard_change");
    TRY(submit(g, (enum raft_entry_type)e->type, (struct span){0}));
    return guard_follow(g);
}

static enum err may_change(struct guard *g, const struct entry *e) {
    const struct raft *r = &g->r;
    struct conf to;
    if (conf_parse(span_of(e->data, e->size), &to) != OK)
        return guard_soft(g, ERR_INVALID, "these bytes are no configuration");
    if (guard_on(g, GUARD_OWN_TERM_CHANGE) && !guard_own_term_committed(g))
        return guard_soft(g, ERR_BUSY, "nothing is committed in this term yet");
    if (r->configuration_uncommitted_index != 0)
        return guard_soft(g, ERR_BUSY, "another change is not yet committed");
    if (r->leader_state.promotee_id != 0) return guard_soft(g, ERR_BUSY, "a server is catching up");
    if (guard_on(g, GUARD_SELF_CHANGE) && !conf_is_voter(&to, g->id))
        return guard_soft(g, ERR_PRECONDITION, "a leader can't demote itself: transfer first");
    if (!conf_one_delta(&r->configuration, &to))
        return guard_soft(g, ERR_INVALID, "a change is of exactly one server");
    return OK;
}

enum err guard_change(struct guard *g, uint64_t now_ms, const struct entry *e) {
    TRY(guard_enter(g, now_ms));
    TRY(may_submit(g, e));
    TRY(may_change(g, e));
    TRY(submit(g, RAFT_CHANGE, span_of(e->data, e->size)));
    return guard_follow(g);
}

enum err guard_committed_configuration(struct guard *g, uint64_t now_ms, uint64_t index,
                                       struct span conf) {
    TRY(guard_enter(g, now_ms));
    if (index == 0 || g->r.configuration_uncommitted_index != index) return OK;
    struct raft_event event = {.type = RAFT_CONFIGURATION};
    event.configuration.index = index;
    enum err e = conf_decode(conf, &event.configuration.conf);
    if (e == ERR_PROTOCOL) return guard_soft(g, ERR_INVALID, "these bytes are no configuration");
    return e == OK ? run(g, &event) : guard_fail(g, e);
}

static enum err may_catch_up(struct guard *g, uint64_t id) {
    const struct raft *r = &g->r;
    if (r->state != RAFT_LEADER) return guard_soft(g, ERR_NOT_LEADER, "not the leader");
    if (r->leader_state.promotee_id != 0 || r->leader_state.transferee != 0)
        return guard_soft(g, ERR_BUSY, "a transfer or another catch-up is under way");
    const struct raft_server *s = conf_find(&r->configuration, id);
    if (s == NULL) return guard_soft(g, ERR_NOT_FOUND, "no such server");
    if (s->role == RAFT_VOTER || id == g->id)
        return guard_soft(g, ERR_PRECONDITION, "the server is a voter already");
    return OK;
}

enum err guard_catch_up(struct guard *g, uint64_t now_ms, uint64_t id) {
    TRY(guard_enter(g, now_ms));
    TRY(may_catch_up(g, id));
    raft_index match = 0;
    (void)raft_match_index(&g->r, id, &match);
    struct raft_event event = {.type = RAFT_CATCH_UP};
    event.catch_up.server_id = id;
    TRY(run(g, &event));
    if (match < trail_last(&g->r.trail) || !guard_on(g, GUARD_IDLE_CATCH_UP)) return OK;
    TRY(submit(g, RAFT_BARRIER, (struct span){0}));
    return guard_follow(g);
}

enum err guard_transfer(struct guard *g, uint64_t now_ms, uint64_t id) {
    TRY(guard_enter(g, now_ms));
    if (g->r.state == RAFT_LEADER && g->r.leader_state.transferee != 0)
        return guard_soft(g, ERR_BUSY, "leadership is being transferred");
    struct raft_event event = {.type = RAFT_TRANSFER};
    event.transfer.server_id = id;
    return run(g, &event);
}

/* The floor counts from the last TIMEOUT, not from now: else a busy loop of other events would push
 * it ahead for ever, and no heartbeat would go out. */
uint64_t guard_timer_ms(struct guard *g, uint64_t now_ms) {
    (void)now_ms;
    uint64_t due = raft_timeout(&g->r);
    uint64_t floor = g->timeout_at + g->heartbeat_ms / 2;
    return due < floor && guard_on(g, GUARD_TIMER_FLOOR) ? floor : due;
}

uint64_t guard_commit(struct guard *g) { return g->commit; }
uint64_t guard_epoch(const struct guard *g) { return g->epoch; }
uint64_t guard_last_index(const struct guard *g) { return trail_last(&g->r.trail); }
uint64_t guard_term_of(const struct guard *g, uint64_t index) {
    return trail_term(&g->r.trail, index);
}
bool guard_installing(struct guard *g) { return g->r.snapshot.installing; }
const struct raft *guard_raft(const struct guard *g) { return &g->r; }
const char *guard_reason(const struct guard *g) { return g->reason; }

bool guard_own_term_committed(struct guard *g) {
    if (g->r.state != RAFT_LEADER || g->commit == 0) return false;
    return trail_term(&g->r.trail, g->commit) == g->r.current_term;
}
