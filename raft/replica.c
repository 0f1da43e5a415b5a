/* The life of a replica and its step loop: see replica.h for the outside, replica_internal.h for
 * who owns what. An event enters, the engine is stepped (guard.h), its update is recorded by
 * on_update (entries into the log, messages onto the wire), and replica_settle drains what follows
 * from it until nothing does. */
#include "raft/replica_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define IDLE_TICK_MS 1000

void replica_say(struct replica *r, int level, const char *format, ...) {
    char text[WHY_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (r->env.log != NULL) r->env.log(r->env.ctx, level, text);
}

void replica_fail(struct replica *r, enum err e, const char *text) {
    if (r->failed != OK) return;
    r->failed = e == OK ? ERR_INTERNAL : e;
    (void)fail_with(&r->why, e, "%s", text != NULL && text[0] != '\0' ? text : err_text(e));
}

static bool soft(enum err e) {
    static const enum err all[] = {
        OK, ERR_NOT_LEADER, ERR_PRECONDITION, ERR_INVALID, ERR_NOT_FOUND, ERR_BUSY, ERR_PROTOCOL};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (all[i] == e) return true;
    return false;
}

bool replica_step(struct replica *r, enum err e) {
    r->step.entries = NULL;
    r->step.n = 0;
    if (!soft(e)) replica_fail(r, e, "the consensus engine failed");
    return r->failed == OK;
}

void replica_enter(struct replica *r) { r->now_ms = r->env.clock->now_ms(r->env.clock); }

uint64_t replica_now_us(struct replica *r) { return r->env.clock->now_us(r->env.clock); }

/* Ids are never used again: who is no member any more gives its place to the next one. */
static struct peer_state *peer_room(struct replica *r) {
    if (r->peers_n < MEMBERS_MAX) return &r->peers[r->peers_n++];
    for (unsigned i = 0; i < r->peers_n; i++)
        if (r->peers[i].stream == NULL && members_find(r, r->peers[i].id) == NULL)
            return &r->peers[i];
    return NULL;
}

struct peer_state *replica_peer(struct replica *r, uint64_t id) {
    for (unsigned i = 0; i < r->peers_n; i++)
        if (r->peers[i].id == id) return &r->peers[i];
    struct peer_state *p = peer_room(r);
    if (p != NULL) *p = (struct peer_state){.id = id};
    return p;
}

/* --- messages out --- */

void replica_send(struct replica *r, uint64_t to, const struct wire_message *m) {
    struct buf frame = buf_new(FRAME_MAX);
    if (r->failed != OK || wire_encode(m, &frame) != OK)
        buf_free(&frame); /* a lost frame is the network's right */
    else
        r->env.send(r->env.ctx, to, &frame);
}

bool replica_way_to_leader(const struct replica *r) {
    return r->leader != 0 && !r->leading &&
           r->env.queued(r->env.ctx, r->leader) < PEER_QUEUE_MAX / 2;
}

static void send_message(struct replica *r, const struct raft_message *m) {
    struct wire_message w;
    switch (m->type) {
    case RAFT_APPEND_ENTRIES: appends_send(r, m->server_id, &m->append_entries); return;
    case RAFT_INSTALL_SNAPSHOT: snapshots_offer(r, m->server_id); return;
    case RAFT_APPEND_ENTRIES_RESULT:
        w = (struct wire_message){.type = WIRE_APPEND_RESULT,
                                  .append_result = m->append_entries_result};
        pulse_acked(r, m->server_id, &w.append_result);
        break;
    case RAFT_REQUEST_VOTE:
        w = (struct wire_message){.type = WIRE_VOTE, .vote = m->request_vote};
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        w = (struct wire_message){.type = WIRE_VOTE_RESULT, .vote_result = m->request_vote_result};
        break;
    case RAFT_TIMEOUT_NOW:
        w = (struct wire_message){.type = WIRE_TIMEOUT_NOW, .timeout_now = m->timeout_now};
        break;
    default: return;
    }
    replica_send(r, m->server_id, &w);
}

/* --- the engine's hooks --- */

static enum err on_persist(void *ctx, uint64_t term, uint64_t vote) {
    struct replica *r = ctx;
    struct why why = {0};
    enum err e = ballot_vote(r->ballot, term, vote, &why);
    if (e != OK) replica_fail(r, e, why.text);
    return e;
}

static const struct entry *on_entry(void *ctx, uint64_t index) {
    struct replica *r = ctx;
    return journal_peek(&r->log, index);
}

/* One of the entries that the engine accepted: ours from the step, or its barrier. */
static RESULT take_entry(struct replica *r, uint64_t index, const struct raft_entry *shell) {
    struct entry *e = NULL;
    if (shell->type == RAFT_BARRIER &&
        (index < r->step.first || index >= r->step.first + r->step.n ||
         r->step.entries[index - r->step.first]->type != ENTRY_BARRIER)) {
        TRY(entry_new(index, shell->term, ENTRY_BARRIER, 0, &e));
    } else {
        if (index < r->step.first || index >= r->step.first + r->step.n) return ERR_INTERNAL;
        e = entry_hold(r->step.entries[index - r->step.first]);
    }
    enum err outcome =
        e->index == index && e->term == shell->term ? journal_append(&r->log, e) : ERR_INTERNAL;
    entry_drop(e);
    return outcome;
}

static RESULT take_entries(struct replica *r, const struct raft_update *u) {
    if (u->entries.index <= r->log.last) propose_truncated(r, u->entries.index);
    for (unsigned i = 0; i < u->entries.n; i++)
        TRY(take_entry(r, u->entries.index + i, &u->entries.batch[i]));
    return OK;
}

static enum err on_update(void *ctx, const struct raft_update *u) {
    struct replica *r = ctx;
    if (r->failed != OK) return r->failed;
    if (u->flags & (RAFT_UPDATE_ENTRIES)) {
        enum err e = take_entries(r, u);
        if (e != OK) {
            replica_fail(r, e, "the log can't take an entry");
            return e;
        }
    }
    if (u->flags & (RAFT_UPDATE_MESSAGES))
        for (unsigned i = 0; i < u->messages.n; i++)
            send_message(r, &u->messages.batch[i]);
    return r->failed;
}

/* --- committed configurations --- */

bool replica_note_conf(struct replica *r, uint64_t index, struct span bytes) {
    if (r->confs_n > 0 && r->confs[r->confs_n - 1].index >= index) return true;
    if (r->confs_n ==
        CONFIGURATIONS_MAX) { /* the oldest are below any snapshot still to be taken */
        buf_free(&r->confs[0].bytes);
        memmove(&r->confs[0], &r->confs[1], (--r->confs_n) * sizeof r->confs[0]);
    }
    struct conf_item *item = &r->confs[r->confs_n];
    *item = (struct conf_item){.index = index, .bytes = buf_new(FRAME_MAX)};
    if (buf_add_span(&item->bytes, bytes) != OK) return false;
    r->confs_n++;
    return true;
}

const struct conf_item *replica_conf_at(const struct replica *r, uint64_t index) {
    for (unsigned i = r->confs_n; i-- > 0;)
        if (r->confs[i].index <= index) return &r->confs[i];
    return NULL;
}

/* The engine has them already; snapshots need to know which one was in force where. */
static void note_configurations(struct replica *r) {
    while (r->conf_seen < r->commit && r->failed == OK) {
        const struct entry *e = journal_peek(&r->log, r->conf_seen + 1);
        if (e == NULL) {
            replica_fail(r, ERR_INTERNAL, "a committed entry is not in the log");
            return;
        }
        r->conf_seen++;
        if (e->type != ENTRY_CHANGE) continue;
        struct span conf = span_of(e->data, e->size);
        if (!replica_note_conf(r, e->index, conf)) {
            replica_fail(r, ERR_NOMEM, "no memory for a configuration");
            return;
        }
        if (r->env.members != NULL) r->env.members(r->env.ctx);
    }
}

/* --- apply --- */

static void keep_hash(struct replica *r) {
    if (r->applied % HASH_EVERY != 0) return;
    struct hash_item *item = &r->hashes[r->applied / HASH_EVERY % HASHES_KEPT];
    item->index = r->applied;
    r->env.machine->hash(r->env.machine, item->hash);
}

/* Applies what is committed, a bounded amount a turn. Nothing is applied while a snapshot goes in.
 */
static void apply_committed(struct replica *r) {
    size_t bytes = 0;
    if (guard_installing(r->guard)) return;
    while (r->applied < r->commit && r->failed == OK) {
        const struct entry *e = journal_peek(&r->log, r->applied + 1);
        if (e == NULL) {
            replica_fail(r, ERR_INTERNAL, "a committed entry is not in the log");
            return;
        }
        if (bytes > APPLY_BYTES_A_TURN) {
            r->env.wake(r->env.ctx);
            return;
        }
        bytes += e->size + 64;
        r->bytes_since_snapshot += e->size + 64;
        r->applied = e->index;
        r->log.applied = e->index;
        propose_applied(r, e);
        if (r->failed != OK) return;
        r->env.machine->applied(r->env.machine, r->applied);
        keep_hash(r);
    }
}

/* --- settling --- */

static void note_leader(struct replica *r) {
    struct raft *raft = (struct raft *)(uintptr_t)guard_raft(r->guard);
    raft_id id = 0;
    const char *address = NULL;
    raft_leader(raft, &id, &address);
    uint64_t term = raft_current_term(raft);
    bool leading = raft_state(raft) == RAFT_LEADER;
    if (leading) id = r->config.raft_id;
    if (id == r->leader && term == r->term && leading == r->leading) return;
    bool changed = id != r->leader || leading != r->leading || (id != 0 && term != r->term);
    r->term = term;
    r->leader = id;
    r->leading = leading;
    if (!changed) return;
    for (unsigned i = 0; i < r->peers_n; i++)
        r->peers[i].pong_seq = 0;
    propose_leader_changed(r);
    calls_leader_changed(r);
    reads_leader_changed(r);
    members_leader_changed(r);
    snapshots_leader_changed(r);
    if (r->env.leader != NULL) r->env.leader(r->env.ctx, term, id);
}

static bool waiting(const struct replica *r) {
    return propose_waiting(r) || reads_waiting(r) || snapshots_busy(r) || install_busy(r) ||
           r->change != NULL || r->promoting != 0 || r->log.full || r->reseal.wanted;
}

static void arm(struct replica *r) {
    uint64_t at = guard_timer_ms(r->guard, r->now_ms);
    uint64_t mine = r->now_ms + (waiting(r) ? HOUSEKEEPING_MS : IDLE_TICK_MS);
    uint64_t chunk = snapshots_due_ms(r);
    if (mine < at) at = mine;
    if (chunk != 0 && chunk < at) at = chunk;
    if (r->tell_ms != 0 && r->tell_ms < at) at = r->tell_ms;
    /* An earlier time stands: each event would put it off again, and deadlines would never be met.
     */
    if (r->armed_ms != 0 && r->armed_ms <= at) return;
    r->armed_ms = at;
    r->env.arm(r->env.ctx, at);
}

static void end_everything(struct replica *r, bool tell) {
    propose_end(r, tell);
    calls_end(r, tell);
    reads_end(r, tell);
    members_end(r, tell);
}

static void free_replica(struct replica *r) {
    end_everything(r, false);
    snapshots_drop(r);
    install_drop(r);
    if (r->guard != NULL) guard_close(r->guard);
    journal_close(&r->log);
    if (r->ballot != NULL) ballot_close(r->ballot);
    for (unsigned i = 0; i < r->confs_n; i++)
        buf_free(&r->confs[i].bytes);
    buf_free(&r->result);
    free(r);
}

static void tell_failure(struct replica *r) {
    if (r->failure_told) return;
    r->failure_told = true;
    end_everything(r, true);
    if (r->env.failed != NULL) r->env.failed(r->env.ctx, r->failed, r->why.text);
}

static bool jobs_under_way(const struct replica *r) {
    return r->log.busy || r->log.preparing || snapshots_job(r) || install_job(r);
}

/* Closing: the log writes what it has and its watermark, then everything goes. True when it is
 * gone. */
static bool closed(struct replica *r) {
    if (!r->closing) return false;
    if (r->failed == OK && !r->log.full && !journal_idle(&r->log)) {
        journal_kick(&r->log);
        return false;
    }
    if (jobs_under_way(r)) return false;
    void (*told)(void *ctx) = r->closed;
    void *ctx = r->closed_ctx;
    free_replica(r);
    told(ctx);
    return true;
}

void replica_settle(struct replica *r) {
    if (r->settling) return;
    r->settling = true;
    while (r->failed == OK && !r->closing) {
        uint64_t commit = guard_commit(r->guard);
        if (commit > r->commit) r->commit = commit;
        note_leader(r);
        if (r->conf_seen < r->commit)
            note_configurations(r);
        else
            break;
    }
    if (r->failed == OK && !r->closing) {
        apply_committed(r);
        propose_settle(r);
        reads_settle(r);
        appends_settle(r);
        journal_kick(&r->log);
        install_tick(r);
        snapshots_tick(r);
        if (r->failed == OK && propose_ready(r)) r->env.wake(r->env.ctx);
    }
    if (r->failed != OK)
        tell_failure(r);
    else if (!r->closing)
        arm(r);
    r->settling = false;
    (void)closed(r);
}

/* --- the log's hooks --- */

static void on_persisted(void *ctx) {
    struct replica *r = ctx;
    replica_enter(r);
    if (r->failed == OK && !r->closing) {
        const struct raft *raft = guard_raft(r->guard);
        uint64_t index = r->log.persisted;
        if (index > raft->last_stored && index <= r->log.last) {
            const struct entry *e = journal_peek(&r->log, index);
            if (e != NULL)
                (void)replica_step(
                    r, guard_persisted(r->guard, r->now_ms, index, e->term, guard_epoch(r->guard)));
        }
        if (r->leading) propose_turn(r);
    }
    replica_settle(r);
}

static void on_log_failed(void *ctx, enum err e, const char *text) {
    struct replica *r = ctx;
    replica_enter(r);
    replica_fail(r, e, text);
    replica_settle(r);
}

/* --- events from outside --- */

void replica_turn(struct replica *r) {
    replica_enter(r);
    if (r->failed == OK && !r->closing) {
        propose_turn(r);
        calls_turn(r);
        reads_turn(r);
    }
    replica_settle(r);
}

void replica_tick(struct replica *r) {
    uint64_t due_ms = r->armed_ms;
    replica_enter(r);
    r->armed_ms = 0;
    if (r->failed == OK && !r->closing) {
        pulse_late(r, due_ms);
        if (guard_timer_ms(r->guard, r->now_ms) <= r->now_ms)
            (void)replica_step(r, guard_timeout(r->guard, r->now_ms));
        if (r->failed == OK) {
            propose_deadlines(r);
            calls_deadlines(r);
            reads_tick(r);
            members_tick(r);
            if (r->log.full) journal_retry(&r->log);
            propose_turn(r);
            calls_turn(r);
            reads_turn(r);
        }
    }
    replica_settle(r);
}

/* Entries of an append become ours: one object each, shared by log, engine and machine. */
static RESULT read_entries(const struct wire_append *a, struct entry **out, unsigned *n) {
    struct cursor raw = cursor_of(a->raw);
    for (*n = 0; *n < a->n; (*n)++) {
        struct wire_entry w;
        TRY(wire_next_entry(&raw, &w));
        struct entry *e;
        TRY(entry_new(a->prev_index + 1 + *n, w.term, (enum entry_type)w.type, w.data.size, &e));
        if (w.data.size > 0) memcpy(e->data, w.data.at, w.data.size);
        out[*n] = e;
    }
    return OK;
}

/* A disk that stands still must not fill the memory: then the entries count as lost on their way,
 * and come again. What is left still says who leads. */
static void drop_entries(struct wire_append *a) {
    a->n = 0;
    if (a->commit > a->prev_index) a->commit = a->prev_index;
}

static void receive_append(struct replica *r, struct raft_message *m, struct wire_append *a) {
    if (a->n > 0 && r->log.lagging_bytes >= INFLIGHT_BYTES_MAX) drop_entries(a);
    struct entry *entries[INFLIGHT_ENTRIES_MAX];
    unsigned n = 0;
    m->type = RAFT_APPEND_ENTRIES;
    m->append_entries = (struct raft_append_entries){.term = a->term,
                                                     .prev_log_index = a->prev_index,
                                                     .prev_log_term = a->prev_term,
                                                     .leader_commit = a->commit,
                                                     .n_entries = a->n};
    if (read_entries(a, entries, &n) == OK) {
        r->step.entries = entries;
        r->step.first = a->prev_index + 1;
        r->step.n = n;
        (void)replica_step(r, guard_receive(r->guard, r->now_ms, m, entries));
    }
    for (unsigned i = 0; i < n; i++)
        entry_drop(entries[i]);
}

static void receive_raft(struct replica *r, uint64_t from, struct wire_message *w) {
    char address[24];
    (void)snprintf(address, sizeof address, "%llu", (unsigned long long)from);
    struct raft_message m = {.server_id = from, .server_address = address};
    if (w->type == WIRE_APPEND) {
        receive_append(r, &m, &w->append);
        return;
    }
    if (w->type == WIRE_APPEND_RESULT) {
        m.type = RAFT_APPEND_ENTRIES_RESULT;
        m.append_entries_result = w->append_result;
    } else if (w->type == WIRE_VOTE) {
        m.type = RAFT_REQUEST_VOTE;
        m.request_vote = w->vote;
        if (m.request_vote.candidate_id != from) return; /* nobody asks for another */
    } else if (w->type == WIRE_VOTE_RESULT) {
        m.type = RAFT_REQUEST_VOTE_RESULT;
        m.request_vote_result = w->vote_result;
    } else {
        m.type = RAFT_TIMEOUT_NOW;
        m.timeout_now = w->timeout_now;
    }
    (void)replica_step(r, guard_receive(r->guard, r->now_ms, &m, NULL));
}

static void dispatch(struct replica *r, uint64_t from, struct wire_message *w) {
    switch (w->type) {
    case WIRE_APPEND:
    case WIRE_APPEND_RESULT:
    case WIRE_VOTE:
    case WIRE_VOTE_RESULT:
    case WIRE_TIMEOUT_NOW: receive_raft(r, from, w); break;
    case WIRE_PING: reads_ping(r, from, &w->ping); break;
    case WIRE_PONG: reads_pong(r, from, &w->pong); break;
    case WIRE_FORWARD: forward_receive(r, from, &w->forward); break;
    case WIRE_FORWARDED: forwarded_receive(r, from, &w->forwarded); break;
    case WIRE_SNAPSHOT_OFFER: install_offer(r, from, &w->offer); break;
    case WIRE_SNAPSHOT_WANT: snapshots_want(r, from, &w->want); break;
    case WIRE_SNAPSHOT_CHUNK: install_chunk(r, from, &w->chunk); break;
    case WIRE_HELLO:
    case WIRE_JOIN:
    case WIRE_JOINED:
    case WIRE_NODE:
    case WIRE_TYPE_COUNT: break; /* the transport's */
    }
}

bool replica_receive(struct replica *r, uint64_t from, struct span frame) {
    struct wire_message w;
    if (r->failed != OK || r->closing || from == r->config.raft_id) return true;
    if (wire_decode(frame, &w) != OK) return false;
    replica_enter(r);
    dispatch(r, from, &w);
    replica_settle(r);
    return true;
}

void replica_connected(struct replica *r, uint64_t peer) {
    if (r->failed != OK || r->closing) return;
    replica_enter(r);
    struct peer_state *p = replica_peer(r, peer);
    if (p != NULL) p->pong_seq = 0;
    appends_connected(r, peer);
    propose_turn(r); /* what has waited for the way to the leader */
    calls_turn(r);
    reads_tick(r);
    replica_settle(r);
}

/* --- opening --- */

/* The snapshot of `index` into the machine. */
static RESULT restore_file(struct replica *r, uint64_t index, struct snapshot_meta *meta,
                           struct buf *conf, struct why *why) {
    struct snapshot_reader *reader;
    struct machine_restore *restore = NULL;
    struct buf scratch = buf_new(2 * SNAPSHOT_CHUNK), raw = buf_new(2 * SNAPSHOT_CHUNK);
    struct snapshot_chunk c = {0};
    TRY(snapshot_open(&r->files, index, &reader, meta, why));
    r->snapshot_size = snapshot_size(reader);
    r->snapshot_raw = 0;
    r->snapshot_generation = snapshot_generation(reader);
    enum err e = buf_add_span(conf, meta->conf);
    meta->conf = buf_span(conf);
    if (e == OK) e = r->env.machine->restore(r->env.machine, &restore);
    for (uint64_t n = 0; e == OK && !c.last; n++) {
        e = snapshot_read(reader, n, &scratch, &c, why);
        if (e != OK || c.last) break;
        buf_clear(&raw);
        e = snapshot_inflate(&c, &raw);
        r->snapshot_raw += raw.size;
        if (e == OK) e = r->env.machine->restore_bytes(restore, buf_span(&raw));
        if (e != OK)
            (void)fail_with(why, e, "snapshot %llu: chunk %llu can't be restored",
                            (unsigned long long)index, (unsigned long long)n);
    }
    if (e == OK && c.data.size < STATE_HASH_SIZE)
        e = fail_with(why, ERR_CORRUPT, "snapshot: no hash");
    if (e == OK) {
        e = r->env.machine->restore_end(restore, c.data.at);
        restore = NULL;
        if (e != OK)
            (void)fail_with(why, e, "snapshot %llu: the state does not have its hash",
                            (unsigned long long)index);
    }
    if (restore != NULL) r->env.machine->restore_abort(restore);
    buf_wipe(&scratch);
    buf_wipe(&raw);
    snapshot_close(reader);
    return e;
}

static enum err load_entry(void *ctx, struct entry *e) {
    struct replica *r = ctx;
    return journal_load(&r->log, e);
}

static RESULT open_log(struct replica *r, struct why *why) {
    struct wal_options o = {.disk = r->env.disk,
                            .keys = r->env.keys,
                            .ballot = r->ballot,
                            .identity = r->config.identity,
                            .alg = r->config.alg,
                            .segment_size = r->config.segment_size};
    struct journal_hooks hooks = {.ctx = r, .persisted = on_persisted, .failed = on_log_failed};
    struct wal *wal;
    bool torn = false;
    TRY(journal_open(&r->log, r->env.log_exec, r->env.snapshot_exec, &hooks));
    TRY(wal_open(&o, load_entry, r, &torn, &wal, why));
    journal_start(&r->log, wal);
    r->log.trust_late = (r->config.without & 1u << GUARD_PERSISTED_PREFIX) != 0;
    if (torn) replica_say(r, 2, "an unfinished write at the end of the log was dropped");
    return OK;
}

/* The snapshot wins over a log that does not reach it or that says something else at its index. A
 * log that begins behind it has lost it: a snapshot is durable before the log is cut. */
static RESULT reconcile(struct replica *r, const struct snapshot_meta *meta, struct why *why) {
    struct journal *l = &r->log;
    if (l->first > meta->index + 1)
        return fail_with(why, ERR_CORRUPT,
                         "snapshots/: the log begins at entry %llu, but the newest snapshot is of "
                         "entry %llu: a file is missing",
                         (unsigned long long)l->first, (unsigned long long)meta->index);
    if (meta->index == 0 || l->first == meta->index + 1) return OK;
    const struct entry *at = journal_peek(l, meta->index);
    if (at != NULL && at->term == meta->term) return OK;
    TRY(wal_reset(l->wal, meta->index, why));
    journal_reset(l, meta->index);
    l->next.reset = false;
    return OK;
}

static RESULT start_engine(struct replica *r, const struct snapshot_meta *meta, struct why *why) {
    struct guard_hooks hooks = {
        .ctx = r, .persist = on_persist, .update = on_update, .entry = on_entry};
    struct guard_start s = {.id = r->config.raft_id,
                            .seed = r->config.seed,
                            .snapshot = meta->index > 0 ? meta : NULL,
                            .first_index = r->log.first,
                            .last_index = r->log.last,
                            .election_ms = r->config.election_ms,
                            .heartbeat_ms = r->config.heartbeat_ms,
                            .inflight_max = INFLIGHT_ENTRIES_MAX,
                            .now_ms = r->now_ms,
                            .away = r->config.without};
    ballot_get(r->ballot, &s.term, &s.vote);
    return guard_open(&s, &hooks, &r->guard, why);
}

static RESULT load_snapshot(struct replica *r, struct snapshot_meta *meta, struct buf *conf,
                            struct why *why) {
    TRY(snapshot_latest(&r->files, &meta->index, why));
    if (meta->index == 0) return OK;
    TRY(restore_file(r, meta->index, meta, conf, why));
    r->applied = r->commit = r->conf_seen = r->snapshot_index = meta->index;
    return replica_note_conf(r, meta->conf_index, meta->conf) ? OK : ERR_NOMEM;
}

static RESULT open_all(struct replica *r, struct why *why) {
    struct snapshot_meta meta = {0};
    struct buf conf = buf_new(FRAME_MAX);
    enum err e =
        ballot_open(r->env.disk, r->env.keys, &r->config.identity, r->config.alg, &r->ballot, why);
    r->files.ballot = r->ballot;
    if (e == OK) e = load_snapshot(r, &meta, &conf, why);
    if (e == OK) e = open_log(r, why);
    if (e == OK) e = reconcile(r, &meta, why);
    r->log.applied = r->applied;
    if (e == OK) e = start_engine(r, &meta, why);
    buf_free(&conf);
    if (e == OK && r->failed != OK) e = fail_with(why, r->failed, "%s", r->why.text);
    return e;
}

RESULT replica_open(const struct replica_env *env, const struct replica_config *config,
                    struct replica **out, struct why *why) {
    struct replica *r = calloc(1, sizeof *r);
    if (r == NULL) return fail_with(why, ERR_NOMEM, "no memory for the replica");
    r->env = *env;
    r->config = *config;
    r->files = (struct snapshot_options){
        .disk = env->disk, .keys = env->keys, .identity = config->identity, .alg = config->alg};
    r->result = buf_new(RESULT_MAX);
    r->next_id = random_u64() >> 1; /* an answer to an earlier life's question is nobody's */
    propose_start(r);
    pulse_start(r);
    reads_start(r);
    replica_enter(r);
    r->settling = true; /* nothing is settled before everything is there */
    enum err e = open_all(r, why);
    if (e != OK) {
        free_replica(r);
        return e;
    }
    r->settling = false;
    *out = r;
    replica_settle(r);
    return OK;
}

void replica_close(struct replica *r, void (*told)(void *ctx), void *ctx) {
    replica_enter(r);
    r->closing = true;
    r->closed = told;
    r->closed_ctx = ctx;
    end_everything(r, true);
    snapshots_close(r);
    install_close(r);
    if (r->failed == OK) journal_mark(&r->log);
    r->env.wake(r->env.ctx); /* replica_turn settles: closed() never fires inside this call */
}

void replica_drop(struct replica *r) { free_replica(r); }

static void fill_member(struct replica *r, const struct raft *raft, unsigned i,
                        struct replica_member *m) {
    const struct raft_server *s = &raft->configuration.servers[i];
    m->raft_id = s->id;
    m->role = (enum replica_role)s->role;
    if (!r->leading) return;
    raft_index match = 0;
    if (raft_match_index(raft, s->id, &match) == 0) m->match = match;
    struct peer_state *p = replica_peer(r, s->id);
    m->active = s->id == r->config.raft_id ||
                (p != NULL && p->pong_ms + 4ULL * r->config.election_ms > r->now_ms);
}

void replica_status(struct replica *r, struct replica_status *out) {
    const struct raft *raft = guard_raft(r->guard);
    *out = (struct replica_status){.raft_id = r->config.raft_id,
                                   .term = r->term,
                                   .leader = r->leader,
                                   .leading = r->leading,
                                   .first = r->log.first,
                                   .last = r->log.last,
                                   .commit = r->commit,
                                   .applied = r->applied,
                                   .persisted = r->log.persisted,
                                   .snapshot_index = r->snapshot_index,
                                   .failed = r->failed,
                                   .installing = r->receiving != NULL,
                                   .full = r->log.full};
    if (r->log.wal != NULL) out->log_bytes = wal_bytes(r->log.wal);
    memcpy(out->text, r->why.text, sizeof out->text);
    r->env.machine->hash(r->env.machine, out->hash);
    replica_enter(r);
    for (unsigned i = 0; i < raft->configuration.n && i < MEMBERS_MAX; i++)
        fill_member(r, raft, i, &out->members[out->n++]);
}
