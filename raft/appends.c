/* Entries on their way to the other members. The engine says "these entries to that peer"; here
 * they are taken from the log and cut into frames. It counts entries, not bytes, and repeats what a
 * peer has not acknowledged at each heartbeat and each rejection: one that is far behind would
 * drown. So entries go out once and in order, `sent` says how far, and each message of the engine,
 * a heartbeat too, is an occasion to go on from there: as far as the engine has come, as much as
 * has room beside what already waits for the peer, and from the disk only so much that the loop
 * stays short.
 *
 * Frames of one connection arrive in order, so what went out need not go again, unless the
 * connection is a new one, the engine goes back behind where the sending began, or the peer gets no
 * further for half an election time-out: then the engine says where to begin.
 *
 * The engine lets the others know of a commit with its next message, which may be the next
 * heartbeat. A member that a client waits at would be slow then, and all would lag. So they are
 * told by an AppendEntries without entries: at once when a client waits and nothing is under way
 * to that member, and else when nothing has told it for COMMIT_TELL_MS. It goes no further than
 * what the member has acknowledged, so that it commits nothing but what we have too. */
#include "raft/replica_internal.h"

#define FROM_DISK_MAX (2 * MIB) /* read back for one message */

/* A message being cut into frames. */
struct cutting {
    struct replica *r;
    uint64_t to;
    struct wire_append frame; /* under construction */
    size_t bytes;             /* of its entries */
    unsigned frames;          /* sent so far */
    struct entry *entries[INFLIGHT_ENTRIES_MAX];
};

/* What a frame says is committed, of what the member has once it has the frame. */
static void note_told(struct appends *f, const struct wire_append *a) {
    uint64_t has = a->prev_index + a->n, told = a->commit < has ? a->commit : has;
    if (told > f->told) f->told = told;
}

static void frame_send(struct cutting *c) {
    struct wire_message m = {.type = WIRE_APPEND, .append = c->frame};
    struct peer_state *p = replica_peer(c->r, c->to);
    replica_send(c->r, c->to, &m);
    if (p != NULL) note_told(&p->appends, &c->frame);
    c->frames++;
    if (p != NULL) p->said = c->frame;
    if (p != NULL) p->said.n = 0;
    if (c->frame.n == 0) return;
    c->frame.prev_index += c->frame.n;
    c->frame.prev_term = c->entries[c->frame.n - 1]->term;
    c->frame.n = 0;
    c->bytes = 0;
}

/* An entry that was read from the disk is borrowed only until the next look: it goes alone. */
static void frame_add(struct cutting *c, struct entry *e) {
    bool borrowed = e == c->r->log.loaned;
    bool full = c->bytes + e->size > APPEND_BYTES_MAX || c->frame.n == INFLIGHT_ENTRIES_MAX;
    if (c->frame.n > 0 && (full || borrowed)) frame_send(c);
    c->entries[c->frame.n++] = e;
    c->bytes += e->size + wire_entry_overhead();
    if (borrowed) frame_send(c);
}

/* The state of the flow to a peer, void in another term. NULL: no room for one. */
static struct appends *flow_of(struct replica *r, uint64_t to, uint64_t term) {
    struct peer_state *p = replica_peer(r, to);
    raft_index match = 0;
    if (p == NULL) return NULL;
    struct appends *f = &p->appends;
    if (f->term != term || p->stream != NULL) *f = (struct appends){.term = term};
    if (raft_match_index(guard_raft(r->guard), to, &match) != 0) return NULL;
    if (match > f->match || f->match >= f->sent) f->moved_ms = r->now_ms;
    f->match = match;
    return f;
}

/* Can the sending go on behind what was sent? */
static bool goes_on(struct replica *r, struct appends *f, uint64_t prev) {
    if (f == NULL || f->sent == 0) return false;
    bool stuck = r->now_ms >= f->moved_ms + r->config.election_ms / 2;
    bool back = prev + 1 < f->from, ahead = f->match > f->sent, gone = f->sent + 1 < r->log.first;
    if (stuck || back || ahead || gone) f->sent = 0;
    return f->sent != 0;
}

static size_t budget_of(const struct replica *r, uint64_t to) {
    size_t waiting = r->env.queued(r->env.ctx, to);
    return waiting < APPENDS_WAITING_MAX ? APPENDS_WAITING_MAX - waiting : 0;
}

/* Adds entries until the budgets are used up; the index behind the last one. */
static uint64_t add_entries(struct cutting *c, uint64_t from, uint64_t until) {
    size_t budget = budget_of(c->r, c->to), from_disk = FROM_DISK_MAX;
    uint64_t index = from;
    for (; index < until && budget > 0 && from_disk > 0; index++) {
        struct entry *e = journal_peek(&c->r->log, index);
        if (e == NULL) break; /* compacted meanwhile: the engine will find out */
        budget = budget > e->size ? budget - e->size : 0;
        if (e == c->r->log.loaned) from_disk = from_disk > e->size ? from_disk - e->size : 0;
        frame_add(c, e);
    }
    return index;
}

void appends_send(struct replica *r, uint64_t to, const struct raft_append_entries *args) {
    struct cutting c = {.r = r, .to = to};
    struct appends *f = flow_of(r, to, args->term);
    uint64_t until = args->prev_log_index + 1 + args->n_entries;
    c.frame = (struct wire_append){.term = args->term,
                                   .prev_index = args->prev_log_index,
                                   .prev_term = args->prev_log_term,
                                   .commit = args->leader_commit,
                                   .entries = c.entries};
    bool on = goes_on(r, f, args->prev_log_index);
    if (on && f->sent + 1 < until) {
        c.frame.prev_index = f->sent;
        c.frame.prev_term = f->sent_term;
    } else if (on) {
        until = args->prev_log_index + 1; /* all of it went out before */
    }
    uint64_t first = c.frame.prev_index + 1, next = add_entries(&c, first, until);
    if (c.frame.n > 0 || c.frames == 0) frame_send(&c); /* without entries it is a heartbeat */
    if (f == NULL || next == first) return;
    if (f->sent == 0) f->from = first;
    f->sent = next - 1;
    f->sent_term = c.frame.prev_term;
}

void appends_connected(struct replica *r, uint64_t peer) {
    struct peer_state *p = replica_peer(r, peer);
    if (p != NULL) p->appends = (struct appends){0};
}

void appends_await(struct replica *r, uint64_t peer, uint64_t index) {
    struct peer_state *p = replica_peer(r, peer);
    if (p != NULL && index > p->appends.awaited) p->appends.awaited = index;
}

static void tell(struct replica *r, struct peer_state *p, uint64_t match, uint64_t commit) {
    struct wire_message m = {.type = WIRE_APPEND,
                             .append = {.term = r->term,
                                        .prev_index = match,
                                        .prev_term = guard_term_of(r->guard, match),
                                        .commit = commit}};
    p->appends.told = commit;
    if (m.append.prev_term != 0) replica_send(r, p->id, &m); /* else compacted meanwhile */
}

static void tell_in_time(struct replica *r, struct peer_state *p) {
    struct appends *f = &p->appends;
    raft_index match = 0;
    if (f->term != r->term || p->stream != NULL) return;
    if (raft_match_index(guard_raft(r->guard), p->id, &match) != 0) return;
    uint64_t commit = r->commit < match ? r->commit : match;
    if (commit <= f->told) return;
    if (f->untold <= f->told) {
        f->untold = commit;
        f->untold_ms = r->now_ms;
    }
    uint64_t at = f->untold_ms + COMMIT_TELL_MS;
    if (r->now_ms >= at || (f->awaited > f->told && f->sent <= match))
        tell(r, p, match, commit);
    else if (r->tell_ms == 0 || at < r->tell_ms)
        r->tell_ms = at;
}

void appends_settle(struct replica *r) {
    r->tell_ms = 0;
    if (!r->leading) return;
    for (unsigned i = 0; i < r->peers_n; i++)
        tell_in_time(r, &r->peers[i]);
}
