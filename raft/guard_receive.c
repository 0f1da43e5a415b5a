/* What comes in from a peer: refused when no member would send it, mended where the core would take
 * it wrong, then stepped. The core asserts what it expects, and is built without asserts, so
 * everything that a peer could break is checked here first; a refused message (ERR_PROTOCOL) has
 * changed nothing.
 *
 * One AppendEntries may become several steps: a CHANGE that is new here has to be the first new
 * entry of its step, and the configuration before it has to be committed in the core by then.
 * Called by replica.c through guard_receive. */
#include "raft/guard_internal.h"

#define TERM_MAX (UINT64_MAX / 2) /* terms and indexes beyond are not honest */

/* A run of consecutive entries, as AppendEntries carries it. */
struct piece {
    uint64_t prev, prev_term;     /* what precedes */
    struct entry *const *entries; /* n of them */
    size_t n;                     /* may be 0 */
};

static enum err refuse(struct guard *g, const char *reason) {
    return guard_soft(g, ERR_PROTOCOL, reason);
}

static enum err deliver_message(struct guard *g, struct raft_message *m) {
    struct raft_event event = {.type = RAFT_RECEIVE};
    event.receive.message = m;
    TRY(guard_step(g, &event));
    return guard_follow(g);
}

/* A leader of our own term speaks: that is us, or nobody. */
static enum err check_leader(struct guard *g, uint64_t term) {
    if (term == 0 || term > TERM_MAX) return refuse(g, "a term out of range");
    if (g->r.state == RAFT_LEADER && term == g->r.current_term)
        return refuse(g, "a second leader in our term");
    return OK;
}

static enum err check_entry(struct guard *g, const struct entry *e, uint64_t index, uint64_t floor,
                            uint64_t term) {
    if (e->index != index) return refuse(g, "entries are not consecutive");
    if (e->term < floor || e->term == 0 || e->term > term)
        return refuse(g, "terms are not in order");
    if (e->type < ENTRY_COMMAND || e->type > ENTRY_CHANGE) return refuse(g, "an unknown entry");
    if (index == 1 && e->type != ENTRY_CHANGE) return refuse(g, "a log without a beginning");
    if (e->type != ENTRY_CHANGE) return OK;
    if (guard_configuration_check(span_of(e->data, e->size)) != OK)
        return refuse(g, "a CHANGE that is no configuration");
    return OK;
}

static enum err check_append(struct guard *g, const struct raft_append_entries *a,
                             struct entry *const *entries) {
    TRY(check_leader(g, a->term));
    if (a->prev_log_index > TERM_MAX || (a->prev_log_index == 0) != (a->prev_log_term == 0))
        return refuse(g, "a previous entry that can't be");
    uint64_t floor = a->prev_log_term;
    if (floor > a->term) return refuse(g, "terms are not in order");
    for (unsigned i = 0; i < a->n_entries; i++) {
        TRY(check_entry(g, entries[i], a->prev_log_index + 1 + i, floor, a->term));
        floor = entries[i]->term;
    }
    return OK;
}

static enum err step_piece(struct guard *g, const struct raft_message *m, const struct piece *p) {
    struct raft_message part = *m;
    struct raft_append_entries *a = &part.append_entries;
    if (p->n > 0) TRY(guard_shells(g, p->n));
    for (size_t i = 0; i < p->n; i++) {
        const struct entry *e = p->entries[i];
        struct raft_entry *shell = &g->shells[i];
        *shell = (struct raft_entry){.term = e->term, .type = (enum raft_entry_type)e->type};
        shell->batch = g->batch;
        if (e->type != ENTRY_CHANGE) continue;
        shell->buf.base = (void *)(uintptr_t)e->data; /* read within the step, never kept */
        shell->buf.len = e->size;
    }
    a->prev_log_index = p->prev;
    a->prev_log_term = p->prev_term;
    a->entries = p->n > 0 ? g->shells : NULL;
    a->n_entries = (unsigned)p->n;
    return deliver_message(g, &part);
}

/* Everything up to the newest snapshot is committed, so the leader has it as we do: what a message
 * says of it is dropped, and the rest follows the snapshot. */
static enum err rebase(struct guard *g, struct piece *p) {
    const struct raft_trail *t = &g->r.trail;
    if (p->prev >= t->snapshot.index || trail_term(t, p->prev) != 0) return OK;
    if (p->prev == 0 && t->offset == 0) return OK;
    size_t drop = (size_t)(t->snapshot.index - p->prev);
    if (drop > p->n) drop = p->n;
    p->entries += drop;
    p->n -= drop;
    p->prev = t->snapshot.index;
    p->prev_term = t->snapshot.term;
    if (p->n > 0 && p->entries[0]->term < p->prev_term) return refuse(g, "terms are not in order");
    return OK;
}

static bool has(const struct guard *g, uint64_t index, uint64_t term) {
    return index == 0 || trail_term(&g->r.trail, index) == term;
}

/* Before a CHANGE that is new here: raise commit over the configuration before it. Where the
 * leader's commit does not say so, the CHANGE itself does: none is proposed before the last one is
 * committed. */
static enum err before_change(struct guard *g, const struct raft_message *m,
                              const struct piece *p) {
    uint64_t pending = g->r.configuration_uncommitted_index;
    if (pending == 0 || pending > p->prev || p->entries[0]->type != ENTRY_CHANGE) return OK;
    if (!has(g, p->prev, p->prev_term) || has(g, p->prev + 1, p->entries[0]->term)) return OK;
    struct piece empty = {.prev = p->prev, .prev_term = p->prev_term};
    TRY(step_piece(g, m, &empty));
    return guard_deliver(g, p->prev);
}

/* How many entries go into the next step: up to, not including, the second CHANGE or one that has
 * something before it. */
static size_t piece_size(const struct piece *p) {
    for (size_t i = 1; i < p->n; i++)
        if (p->entries[i]->type == ENTRY_CHANGE) return i;
    return p->n;
}

static enum err step_pieces(struct guard *g, const struct raft_message *m, struct piece rest) {
    while (rest.n > 0) {
        struct piece p = rest;
        p.n = piece_size(&rest);
        TRY(before_change(g, m, &p));
        TRY(step_piece(g, m, &p));
        const struct entry *last = p.entries[p.n - 1];
        if (!has(g, last->index, last->term)) return OK; /* rejected: so will be the rest */
        rest.entries += p.n;
        rest.n -= p.n;
        rest.prev = last->index;
        rest.prev_term = last->term;
    }
    return OK;
}

static enum err receive_append(struct guard *g, struct raft_message *m,
                               struct entry *const *entries) {
    struct raft_append_entries *a = &m->append_entries;
    TRY(check_append(g, a, entries));
    g->stale = a->term < g->r.current_term;
    if (!g->stale) g->contact_at = g->now;
    struct piece all = {.prev = a->prev_log_index, .prev_term = a->prev_log_term};
    all.entries = entries;
    all.n = a->n_entries;
    if (!g->stale && guard_on(g, GUARD_BELOW_COMPACTION)) TRY(rebase(g, &all));
    bool whole = g->stale || g->r.snapshot.installing || !guard_on(g, GUARD_CHANGE_SPLIT);
    return whole || all.n == 0 ? step_piece(g, m, &all) : step_pieces(g, m, all);
}

/* A rejection of what the peer has acknowledged is old: neutral. One that hints below it: raised.
 */
static void mend_rejection(struct guard *g, uint64_t peer, struct raft_append_entries_result *a) {
    raft_index match = 0;
    if (a->rejected == 0 || a->term != g->r.current_term) return;
    if (raft_match_index(&g->r, peer, &match) != 0) return;
    bool flying = guard_on(g, GUARD_SNAPSHOT_IN_FLIGHT) && guard_flying(g, peer);
    bool repeated = guard_on(g, GUARD_REPEATED_REJECTION);
    if (flying || (repeated && a->rejected <= match)) {
        a->rejected = 0;
        a->last_log_index = 0;
    } else if (repeated && a->last_log_index < match) {
        a->last_log_index = match;
    }
}

static enum err receive_result(struct guard *g, struct raft_message *m) {
    struct raft_append_entries_result *a = &m->append_entries_result;
    if (a->term == 0 || a->term > TERM_MAX) return refuse(g, "a term out of range");
    a->version = 2;
    mend_rejection(g, m->server_id, a);
    return deliver_message(g, m);
}

/* Whether we are a voter by our own configuration, which may be older than the candidate's. */
static bool is_voter(const struct guard *g) {
    const struct raft_server *self = conf_find(&g->r.configuration, g->id);
    return self != NULL && self->role == RAFT_VOTER;
}

/* Lets a non-voter vote: for this one step its configuration is itself, a voter. A vote counts
 * where the candidate's configuration says so, and is given once a term all the same. */
static enum err vote_as_voter(struct guard *g, struct raft_message *m) {
    char address[] = "";
    struct raft_server self = {.id = g->id, .address = address, .role = RAFT_VOTER};
    struct raft_configuration own = g->r.configuration;
    struct raft_event event = {.time = g->now, .type = RAFT_RECEIVE};
    struct raft_update u = {0};
    event.receive.message = m;
    g->r.configuration = (struct raft_configuration){.servers = &self, .n = 1};
    int rv = raft_step(&g->r, &event, &u);
    g->r.configuration = own; /* before any hook looks at it */
    return rv == 0 ? guard_settle(g, &u) : guard_fail(g, guard_map(rv));
}

static enum err receive_vote(struct guard *g, struct raft_message *m) {
    struct raft_request_vote *v = &m->request_vote;
    if (v->term == 0 || v->term > TERM_MAX || v->last_log_term > v->term || v->candidate_id == 0)
        return refuse(g, "a request for a vote that can't be");
    v->version = 2;
    if (g->r.state != RAFT_FOLLOWER || !guard_on(g, GUARD_NON_VOTER_VOTE))
        return deliver_message(g, m);
    if (g->now - g->contact_at >= g->election_ms) v->disrupt_leader = true; /* it is gone */
    return is_voter(g) ? deliver_message(g, m) : vote_as_voter(g, m);
}

/* Answers to what is not asked any more: a granted pre-vote carries a term that nobody is in, and
 * for who is no candidate the core reads the candidate's state out of another one's memory. */
static enum err receive_vote_result(struct guard *g, struct raft_message *m) {
    struct raft_request_vote_result *v = &m->request_vote_result;
    if (v->term == 0 || v->term > TERM_MAX) return refuse(g, "a term out of range");
    v->version = 2;
    bool candidate = g->r.state == RAFT_CANDIDATE;
    bool asked = candidate && (!v->pre_vote || g->r.candidate_state.in_pre_vote);
    if (!asked && guard_on(g, GUARD_LATE_PRE_VOTE)) return OK;
    if (v->vote_granted && v->term > g->r.current_term + v->pre_vote)
        return refuse(g, "a vote for a term that we did not ask for");
    return deliver_message(g, m);
}

static enum err check_install(struct guard *g, const struct raft_install_snapshot *s) {
    TRY(check_leader(g, s->term));
    if (s->last_index == 0 || s->last_index > TERM_MAX || s->last_term == 0)
        return refuse(g, "a snapshot of nothing");
    if (s->last_term > s->term || s->conf_index == 0 || s->conf_index > s->last_index ||
        s->conf.n == 0)
        return refuse(g, "a snapshot that can't be");
    return OK;
}

static enum err receive_install(struct guard *g, struct raft_message *m) {
    struct raft_install_snapshot *s = &m->install_snapshot;
    enum err e = check_install(g, s);
    if (e != OK || g->r.snapshot.installing) { /* the core would leak a second one */
        raft_configuration_close(&s->conf);
        raft_free(s->data.base);
        return e;
    }
    g->stale = s->term < g->r.current_term;
    if (!g->stale) g->contact_at = g->now;
    return deliver_message(g, m);
}

/* A sole voter would lead in its old term; it needs nobody's word to lead in a new one. */
static enum err receive_timeout_now(struct guard *g, struct raft_message *m) {
    if (m->timeout_now.term == 0 || m->timeout_now.term > TERM_MAX)
        return refuse(g, "a term out of range");
    if (guard_on(g, GUARD_SOLE_VOTER) && guard_sole_voter(&g->r.configuration, g->id)) return OK;
    g->disrupt_now = true;
    return deliver_message(g, m);
}

static enum err receive(struct guard *g, struct raft_message *m, struct entry *const *entries) {
    switch (m->type) {
    case RAFT_APPEND_ENTRIES: return receive_append(g, m, entries);
    case RAFT_APPEND_ENTRIES_RESULT: return receive_result(g, m);
    case RAFT_REQUEST_VOTE: return receive_vote(g, m);
    case RAFT_REQUEST_VOTE_RESULT: return receive_vote_result(g, m);
    case RAFT_INSTALL_SNAPSHOT: return receive_install(g, m);
    case RAFT_TIMEOUT_NOW: return receive_timeout_now(g, m);
    }
    return refuse(g, "an unknown message");
}

enum err guard_receive(struct guard *g, uint64_t now_ms, struct raft_message *message,
                       struct entry *const *entries) {
    enum err e = guard_enter(g, now_ms);
    if (e != OK && message->type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&message->install_snapshot.conf);
        raft_free(message->install_snapshot.data.base);
    }
    TRY(e);
    if (message->server_address == NULL) message->server_address = "";
    if (message->server_id == 0 || message->server_id == g->id) {
        e = refuse(g, "a message from nobody, or from ourselves");
        if (message->type != RAFT_INSTALL_SNAPSHOT) return e;
        message->install_snapshot.term = 0; /* refused below, where its parts are freed */
    }
    e = receive(g, message, entries);
    g->stale = false;
    g->disrupt_now = false;
    return e;
}
