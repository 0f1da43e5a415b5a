/* Mending what the core wants to send, between its step and the caller's hook. Messages are changed
 * in place in the core's own queue, and dropped by closing the gap. What is done to which message
 * stands at each function; the faults behind it in the table of guard.c.
 *
 * A CHANGE that is not yet on the own disk must not leave: if we crash, nobody else may have it.
 * Until guard_persisted covers it, AppendEntries are cut before it (so heartbeats go on), and what
 * the core believes to have sent is sent once it is durable. Called by guard_settle and
 * guard_persisted. */
#include "raft/guard_internal.h"

bool guard_flying(const struct guard *g, uint64_t peer) {
    for (size_t i = 0; i < MEMBERS_MAX; i++)
        if (g->flying[i] == peer) return true;
    return false;
}

/* Slots of servers that are gone are free; with MEMBERS_MAX servers at most, one always is. */
static bool flying_free(const struct guard *g, size_t i) {
    return g->flying[i] == 0 || conf_find(&g->r.configuration, g->flying[i]) == NULL;
}

void guard_snapshot_stream(struct guard *g, uint64_t peer, bool in_flight) {
    if (peer == 0 || guard_flying(g, peer) == in_flight) return;
    for (size_t i = 0; i < MEMBERS_MAX; i++) {
        if (in_flight ? !flying_free(g, i) : g->flying[i] != peer) continue;
        g->flying[i] = in_flight ? peer : 0;
        return;
    }
}

static void hold(struct guard *g, uint64_t peer, uint64_t upto) {
    if (g->held_term != g->r.current_term) memset(g->held, 0, sizeof g->held);
    g->held_term = g->r.current_term;
    for (size_t i = 0; i < MEMBERS_MAX; i++) {
        struct held *h = &g->held[i];
        if (h->peer != 0 && h->peer != peer) continue;
        h->peer = peer;
        if (upto > h->upto) h->upto = upto;
        return;
    }
}

/* Outgoing AppendEntries: nothing from an unsynced CHANGE on. */
static void mend_append(struct guard *g, struct raft_message *m) {
    struct raft_append_entries *a = &m->append_entries;
    uint64_t change = g->r.configuration_uncommitted_index;
    uint64_t last = a->prev_log_index + a->n_entries;
    a->entries = NULL;
    if (!guard_on(g, GUARD_CHANGE_SYNC)) return;
    if (change <= g->r.last_stored || last < change) return;
    hold(g, m->server_id, last);
    if (a->prev_log_index >= change) {
        a->prev_log_index = change - 1;
        a->prev_log_term = trail_term(&g->r.trail, change - 1);
    }
    a->n_entries = (unsigned)(change - 1 - a->prev_log_index);
}

static bool held_message(const struct guard *g, const struct held *h, struct raft_message *m) {
    const struct raft *r = &g->r;
    const struct raft_server *s = conf_find(&r->configuration, h->peer);
    uint64_t change = r->configuration_uncommitted_index;
    if (change == 0) change = r->configuration_committed_index; /* committed by us alone */
    uint64_t prev_term = trail_term(&r->trail, change - 1);
    if (s == NULL || h->upto < change || prev_term == 0) return false;
    *m = (struct raft_message){.type = RAFT_APPEND_ENTRIES, .server_id = s->id};
    m->server_address = s->address;
    m->append_entries.term = r->current_term;
    m->append_entries.prev_log_index = change - 1;
    m->append_entries.prev_log_term = prev_term;
    m->append_entries.leader_commit = r->commit_index;
    m->append_entries.n_entries = (unsigned)(h->upto - change + 1);
    return true;
}

enum err guard_release_held(struct guard *g) {
    const struct raft *r = &g->r;
    if (g->held_term == 0 || r->configuration_uncommitted_index > r->last_stored) return OK;
    bool still = r->state == RAFT_LEADER && r->current_term == g->held_term;
    struct raft_update u = {.flags = RAFT_UPDATE_MESSAGES, .messages.batch = g->resend};
    for (size_t i = 0; still && i < MEMBERS_MAX; i++)
        if (g->held[i].peer != 0)
            u.messages.n += held_message(g, &g->held[i], &g->resend[u.messages.n]);
    memset(g->held, 0, sizeof g->held);
    g->held_term = 0;
    return u.messages.n > 0 ? guard_settle(g, &u) : OK;
}

/* Outgoing rejection: the hint skips the whole term that conflicts, but nothing that is committed.
 */
static void mend_hint(struct guard *g, struct raft_append_entries_result *a) {
    const struct raft_trail *t = &g->r.trail;
    if (a->rejected == 0 || trail_term(t, a->rejected) == 0) return;
    uint64_t hint = trail_run_start(t, a->rejected) - 1;
    if (hint < g->commit) hint = g->commit;
    if (hint < a->last_log_index) a->last_log_index = hint;
}

/* Outgoing answer: one to a message of an older term says nothing about our log. */
static void mend_result(struct guard *g, struct raft_append_entries_result *a) {
    if (g->stale && guard_on(g, GUARD_STALE_REPLY)) {
        a->rejected = 0;
        a->last_log_index = 0;
    } else if (guard_on(g, GUARD_CONFLICT_TERM)) {
        mend_hint(g, a);
    }
}

/* Outgoing pre-vote denial: a candidate with a better log but a lower term must learn ours. */
static void mend_vote_result(struct guard *g, struct raft_request_vote_result *v) {
    if (!v->pre_vote || v->vote_granted || !guard_on(g, GUARD_PRE_VOTE_TERM)) return;
    if (v->term < g->r.current_term) v->term = g->r.current_term;
}

/* TIMEOUT_NOW to a server that has not all of the log would be ignored, and never said again: take
 * it back, and the acknowledgement of the last entry brings it about. */
static bool keep_timeout_now(struct guard *g, const struct raft_message *m) {
    raft_index match = 0;
    if (!guard_on(g, GUARD_EARLY_TRANSFER)) return true;
    if (raft_match_index(&g->r, m->server_id, &match) != 0) return true;
    if (match >= trail_last(&g->r.trail)) return true;
    g->r.leader_state.transferring = false;
    return false;
}

static bool mend_message(struct guard *g, struct raft_message *m) {
    switch (m->type) {
    case RAFT_APPEND_ENTRIES: mend_append(g, m); break;
    case RAFT_APPEND_ENTRIES_RESULT: mend_result(g, &m->append_entries_result); break;
    case RAFT_REQUEST_VOTE:
        if (guard_on(g, GUARD_DISRUPT) && !g->disrupt_now) m->request_vote.disrupt_leader = false;
        break;
    case RAFT_REQUEST_VOTE_RESULT: mend_vote_result(g, &m->request_vote_result); break;
    case RAFT_INSTALL_SNAPSHOT:
        return !guard_on(g, GUARD_SNAPSHOT_IN_FLIGHT) || !guard_flying(g, m->server_id);
    case RAFT_TIMEOUT_NOW: return keep_timeout_now(g, m);
    }
    return true;
}

void guard_mend(struct guard *g, struct raft_update *u) {
    unsigned kept = 0;
    if (!(u->flags & (RAFT_UPDATE_MESSAGES))) return;
    for (unsigned i = 0; i < u->messages.n; i++) {
        struct raft_message *m = &u->messages.batch[i];
        if (!mend_message(g, m)) continue;
        if (kept != i) u->messages.batch[kept] = *m;
        kept++;
    }
    u->messages.n = kept;
    if (kept == 0) u->flags &= ~(unsigned)(RAFT_UPDATE_MESSAGES);
}
