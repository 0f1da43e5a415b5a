/* Snapshots: taking, sending, and re-sealing.
 *
 * Taking: a view of the state (O(1)) is serialised on the side exec, a bounded piece a job so that
 * other work there gets its turn, while writes go on. When the file is durable the engine is told,
 * the log compacted behind it, older files removed.
 *
 *     idle --log outgrows max(min, snapshot)--> writing (job, job, ...) --durable--> newest
 *                                                  `--no space--> idle, again later
 *     newest: it is the one that is sent --older files are gone (job)--> waiting
 *     waiting --our own log is durable up to there too--> idle
 *
 * Sending: one stream a peer. OFFER -> WANT(next) -> chunks, at most SNAPSHOT_WINDOW ahead of the
 * last WANT, each read from the file in a job of its own on the side exec, and paced while writes
 * go on -> ... -> WANT(all): done. A stream whose peer says nothing offers again and in the end
 * gives up; the engine then starts anew.
 *
 * Re-sealing (a new DEK): a new segment, an empty command to move the log on, a snapshot past all
 * old segments that leaves nothing behind, and then the old generations are destroyed. */
#include "raft/replica_internal.h"

#include <assert.h>
#include <stdlib.h>

#define PIECES_A_JOB     16    /* chunks written in one job */
#define RETRY_MS         2000  /* after a snapshot that found no space */
#define OFFER_AGAIN_MS   1000  /* without a word from the peer */
#define STREAM_BUSY_MS   1000  /* a write within that time: writes go on */
#define STREAM_BEHIND_US 10000 /* what a stream may make up for when it came too late */
#define DISK_FACTOR      4     /* log bytes written, padding included, that also call for one */

struct taking {
    struct job job;                 /* the piece under way */
    struct replica *r;              /* the replica */
    struct machine_view *view;      /* what is written */
    struct snapshot_writer *writer; /* NULL before the first piece */
    struct snapshot_meta meta;      /* of the snapshot; conf is `conf` */
    struct buf conf, piece;         /* owned bytes */
    bool whole_log;                 /* leave no log behind it (re-sealing) */
    bool finished;                  /* the file is durable */
    bool newest;                    /* it is the one that is sent: the job removes older ones */
    bool waiting;                   /* it is, but our own log does not reach it yet: no job runs */
    uint64_t size, raw;             /* bytes of the file; of the state, before compression */
    uint32_t generation;            /* DEK that sealed it */
    enum err error;                 /* outcome */
    struct why why;
};

struct stream {
    struct job job;                 /* the read under way */
    struct replica *r;              /* the replica */
    uint64_t to, index, term;       /* peer; snapshot; our term when it began */
    struct snapshot_reader *reader; /* NULL until opened */
    struct snapshot_meta meta;
    uint64_t chunks;      /* of the snapshot */
    uint64_t acked, sent; /* next chunk that the peer wants; next to send */
    uint64_t heard_ms, offered_ms;
    bool busy, ended;    /* a job is under way; free it when it is done */
    struct buf frame;    /* the chunk that the job has read, to be sent */
    uint64_t next_us;    /* the next chunk may go */
    uint64_t log_before; /* log_used when it began */
    enum err error;      /* outcome of the job */
};

/* --- taking --- */

static void taking_free(struct taking *t) {
    if (t->writer != NULL) snapshot_abort(t->writer);
    if (t->view != NULL) t->r->env.machine->view_free(t->view);
    buf_free(&t->conf);
    buf_wipe(&t->piece);
    t->r->taking = NULL;
    free(t);
}

/* For reading while writes go on. */
static struct snapshot_options beside(const struct replica *r) {
    struct snapshot_options o = r->files;
    o.beside = true;
    return o;
}

static RESULT write_pieces(struct taking *t) {
    struct machine *m = t->r->env.machine;
    bool done = false;
    if (t->writer == NULL) TRY(snapshot_create(&t->r->files, &t->meta, &t->writer, &t->why));
    for (int i = 0; i < PIECES_A_JOB && !done; i++) {
        buf_clear(&t->piece);
        TRY(m->view_next(t->view, &t->piece, &done));
        t->raw += t->piece.size;
        if (t->piece.size > 0) TRY(snapshot_write(t->writer, buf_span(&t->piece), &t->why));
    }
    if (!done) return OK;
    uint8_t hash[STATE_HASH_SIZE];
    struct snapshot_writer *w = t->writer;
    m->view_hash(t->view, hash);
    t->writer = NULL;
    TRY(snapshot_finish(w, hash, &t->why));
    struct snapshot_reader *reader;
    struct snapshot_meta meta;
    struct snapshot_options o = beside(t->r);
    TRY(snapshot_open(&o, t->meta.index, &reader, &meta, &t->why));
    t->size = snapshot_size(reader);
    t->generation = snapshot_generation(reader);
    snapshot_close(reader);
    t->finished = true;
    return OK;
}

static void taking_run(struct job *job) {
    struct taking *t = (struct taking *)job;
    t->error =
        t->newest ? snapshot_remove_before(&t->r->files, t->meta.index, &t->why) : write_pieces(t);
}

/* How many entries behind the snapshot stay for slow followers: as many as fit trailing_bytes. */
static unsigned trailing(struct replica *r, const struct taking *t) {
    uint64_t bytes = 0, index = t->meta.index;
    if (t->whole_log) return 0;
    for (; index >= r->log.first && index >= r->log.cache_first && index > 0; index--) {
        bytes += journal_peek(&r->log, index)->size + 64;
        if (bytes > r->config.trailing_bytes) break;
    }
    return (unsigned)(t->meta.index - index);
}

static void ask_answered(struct replica *r, enum err e, uint64_t index) {
    if (!r->ask.wanted) return;
    r->ask.wanted = false;
    if (r->ask.done != NULL) r->ask.done(r->ask.ctx, e, index);
}

static void taken(struct replica *r, struct taking *t) {
    r->snapshot_index = t->meta.index;
    r->snapshot_size = t->size;
    r->snapshot_raw = t->raw;
    r->snapshot_generation = t->generation;
    const struct raft *raft = guard_raft(r->guard);
    if (!guard_installing(r->guard) && t->meta.index > raft->trail.snapshot.index) {
        enum err e = guard_snapshot_taken(r->guard, r->now_ms, &t->meta, trailing(r, t));
        if (!replica_step(r, e)) return;
    }
    journal_compact(&r->log, raft->trail.offset);
    replica_say(r, 2, "snapshot at entry %llu: %llu bytes", (unsigned long long)t->meta.index,
                (unsigned long long)t->size);
    ask_answered(r, OK, t->meta.index);
}

static void taking_done(struct job *job) {
    struct taking *t = (struct taking *)job;
    struct replica *r = t->r;
    replica_enter(r);
    bool full = t->error == ERR_NOSPACE;
    if (r->failed != OK || r->closing) {
        taking_free(t);
    } else if (full && !t->newest) {
        replica_say(r, 1, "no space for a snapshot: %s", t->why.text);
        r->snapshot_retry_ms = r->now_ms + RETRY_MS;
        taking_free(t);
        ask_answered(r, ERR_NOSPACE, 0);
    } else if (t->error != OK && !full) {
        replica_fail(r, t->error, t->why.text);
        taking_free(t);
    } else if (!t->newest) {
        t->newest = t->finished;
        r->env.snapshot_exec->submit(r->env.snapshot_exec, &t->job);
    } else { /* an older file that is still there goes with the next one */
        t->waiting = true;
    }
    replica_settle(r);
}

/* Others may have committed what our own disk has not got yet: the log is not cut past its end. */
static void maybe_taken(struct replica *r) {
    struct taking *t = r->taking;
    if (t == NULL || !t->waiting || t->meta.index > r->log.persisted) return;
    taken(r, t);
    taking_free(t);
    r->env.wake(r->env.ctx);
}

static RESULT take(struct replica *r, bool whole_log) {
    const struct conf_item *conf = replica_conf_at(r, r->applied);
    const struct entry *last = journal_peek(&r->log, r->applied);
    const struct raft *raft = guard_raft(r->guard);
    if (conf == NULL) return ERR_PRECONDITION;
    struct taking *t = calloc(1, sizeof *t);
    if (t == NULL) return ERR_NOMEM;
    *t = (struct taking){.r = r,
                         .whole_log = whole_log,
                         .conf = buf_new(FRAME_MAX),
                         .piece = buf_new(2 * SNAPSHOT_CHUNK),
                         .job = {.run = taking_run, .done = taking_done}};
    t->meta = (struct snapshot_meta){.index = r->applied,
                                     .term = last != NULL ? last->term : raft->trail.snapshot.term,
                                     .conf_index = conf->index};
    r->taking = t;
    enum err e = buf_add_span(&t->conf, buf_span(&conf->bytes));
    t->meta.conf = buf_span(&t->conf);
    if (e == OK) e = r->env.machine->view(r->env.machine, &t->view);
    if (e != OK) {
        taking_free(t);
        return e;
    }
    r->bytes_since_snapshot = 0;
    r->log.disk_bytes = 0;
    r->env.snapshot_exec->submit(r->env.snapshot_exec, &t->job);
    return OK;
}

/* The log since the last snapshot calls for the next one when it has grown past log_most. A state
 * that compresses well costs as much to go through as any other: half of it counts. */
static uint64_t log_most(const struct replica *r) {
    uint64_t most = r->config.snapshot_log_min;
    if (r->snapshot_raw / 2 > most) most = r->snapshot_raw / 2;
    return r->snapshot_size > most ? r->snapshot_size : most;
}

static uint64_t log_used(const struct replica *r) {
    uint64_t disk = r->log.disk_bytes / DISK_FACTOR;
    return r->bytes_since_snapshot > disk ? r->bytes_since_snapshot : disk;
}

static bool due(const struct replica *r) { return log_used(r) > log_most(r); }

static bool reseal_due(const struct replica *r) {
    return r->reseal.wanted && r->reseal.above != 0 && r->applied >= r->reseal.above &&
           r->snapshot_index < r->reseal.above;
}

static void maybe_take(struct replica *r) {
    bool may = r->taking == NULL && r->receiving == NULL && !guard_installing(r->guard) &&
               r->applied > 0 && r->now_ms >= r->snapshot_retry_ms;
    if (!may) return;
    bool reseal = reseal_due(r);
    if (r->ask.wanted && !reseal && r->applied == r->snapshot_index) {
        ask_answered(r, OK, r->snapshot_index);
        return;
    }
    if (!reseal && !r->ask.wanted && (!due(r) || r->applied == r->snapshot_index)) return;
    enum err e = take(r, reseal);
    if (e != OK && e != ERR_PRECONDITION) replica_fail(r, e, "no memory for a snapshot");
}

void replica_snapshot(struct replica *r, void (*done)(void *ctx, enum err e, uint64_t index),
                      void *ctx) {
    r->ask.wanted = true;
    r->ask.done = done;
    r->ask.ctx = ctx;
    r->env.wake(r->env.ctx);
}

/* --- re-sealing --- */

static void reseal_nudged(struct proposal *p, enum err e, uint64_t index, struct span result) {
    struct replica *r = p->ctx;
    (void)result;
    r->reseal.nudged = false;
    if (e == OK && r->reseal.wanted && r->reseal.above == 0) r->reseal.above = index;
}

void replica_reseal(struct replica *r, void (*done)(void *ctx, enum err e), void *ctx) {
    r->reseal.wanted = true;
    r->reseal.rolled = false;
    r->reseal.above = 0;
    r->reseal.done = done;
    r->reseal.ctx = ctx;
    r->env.wake(r->env.ctx);
}

static void reseal_end(struct replica *r, enum err e) {
    r->reseal.wanted = false;
    if (r->reseal.done != NULL) r->reseal.done(r->reseal.ctx, e);
}

static void reseal_start(struct replica *r) {
    struct why why = {0};
    enum err e = ballot_reseal(r->ballot, &why);
    if (e != OK) {
        replica_fail(r, e, why.text);
        return;
    }
    journal_roll(&r->log);
    r->reseal.rolled = true;
    journal_kick(&r->log);
}

/* Rolled and idle: whatever comes now is in a new segment. An empty command makes something come.
 */
static void reseal_nudge(struct replica *r) {
    if (r->reseal.nudged || r->log.next.roll || r->log.busy) return;
    r->reseal.nudge = (struct proposal){.done = reseal_nudged, .ctx = r};
    r->reseal.nudged = replica_propose(r, &r->reseal.nudge) == OK;
}

static void reseal_tick(struct replica *r) {
    if (!r->reseal.wanted) return;
    if (!r->reseal.rolled) {
        reseal_start(r);
        return;
    }
    if (r->reseal.above == 0) {
        reseal_nudge(r);
        return;
    }
    if (r->snapshot_index < r->reseal.above || !journal_idle(&r->log)) return;
    uint32_t now = keyring_generation(r->env.keys);
    if (wal_oldest_generation(r->log.wal) < now || r->snapshot_generation < now) {
        r->reseal.above = 0; /* something old was still needed: once more, a little further on */
        return;
    }
    for (unsigned i = 0; i < r->peers_n; i++)
        if (r->peers[i].stream != NULL) return; /* it may still read an older file */
    struct why why = {0};
    enum err e = keyring_destroy_before(r->env.keys, now, &why);
    if (e != OK) replica_say(r, 1, "older keys can't be destroyed: %s", why.text);
    reseal_end(r, e);
}

/* --- sending --- */

static void stream_free(struct stream *s) {
    pace_end(&s->r->pace);
    buf_free(&s->frame);
    if (s->reader != NULL) snapshot_close(s->reader);
    free(s);
}

/* The engine hears of the end at once; the memory waits for the job. */
static void stream_end(struct replica *r, struct stream *s) {
    if (!s->ended && r->failed == OK) guard_snapshot_stream(r->guard, s->to, false);
    s->ended = true;
    if (s->busy) return;
    for (unsigned i = 0; i < r->peers_n; i++)
        if (r->peers[i].stream == s) r->peers[i].stream = NULL;
    stream_free(s);
}

static void send_offer(struct stream *s) {
    struct wire_message m = {.type = WIRE_SNAPSHOT_OFFER,
                             .offer = {.term = s->term,
                                       .index = s->index,
                                       .snapshot_term = s->meta.term,
                                       .conf_index = s->meta.conf_index,
                                       .conf = s->meta.conf,
                                       .chunks = s->chunks}};
    s->offered_ms = s->r->now_ms;
    replica_send(s->r, s->to, &m);
}

/* Opens the file, or reads the next chunk into a frame. */
static RESULT read_piece(struct stream *s) {
    if (s->reader == NULL) {
        struct snapshot_options o = beside(s->r);
        return snapshot_open(&o, s->index, &s->reader, &s->meta, NULL);
    }
    struct buf scratch = buf_new(2 * SNAPSHOT_CHUNK);
    struct wire_message m = {.type = WIRE_SNAPSHOT_CHUNK,
                             .chunk = {.term = s->term, .index = s->index}};
    enum err e = snapshot_read(s->reader, s->sent, &scratch, &m.chunk.chunk, NULL);
    s->frame = buf_new(FRAME_MAX);
    if (e == OK) e = wire_encode(&m, &s->frame);
    buf_wipe(&scratch);
    return e;
}

static void stream_run(struct job *job) {
    struct stream *s = (struct stream *)job;
    s->error = read_piece(s);
}

/* Is there a chunk that its peer has room for? */
static bool stream_more(const struct stream *s) {
    return s->reader == NULL || (s->sent < s->chunks && s->sent < s->acked + SNAPSHOT_WINDOW);
}

static void stream_kick(struct stream *s) {
    if (s->busy || s->ended || !stream_more(s) || replica_now_us(s->r) < s->next_us) return;
    s->busy = true;
    s->r->env.snapshot_exec->submit(s->r->env.snapshot_exec, &s->job);
}

/* Has less of the snapshot gone than of the log that the next one waits for? The peer would find
 * the log behind its snapshot cut again. */
static bool stream_late(const struct stream *s) {
    uint64_t used = log_used(s->r), most = log_most(s->r);
    if (used < s->log_before || most < s->log_before) return true; /* the next one has begun */
    return (double)(used - s->log_before) * (double)s->chunks >
           (double)(most - s->log_before) * (double)s->sent;
}

/* While writes go on the stream keeps to a rate that leaves them the processor, the disk and the
 * wire (pace.h); otherwise only its window bounds it. */
static uint64_t stream_rate(const struct stream *s) {
    return stream_late(s) ? STREAM_BUSY_RATE : pace_rate(&s->r->pace);
}

static void send_chunk(struct stream *s) {
    struct replica *r = s->r;
    uint64_t now = replica_now_us(r);
    bool busy = r->submitted_ms + STREAM_BUSY_MS > r->now_ms;
    if (s->next_us + STREAM_BEHIND_US < now) s->next_us = now - STREAM_BEHIND_US;
    if (busy) s->next_us += s->frame.size * 1000000 / stream_rate(s);
    r->env.send(r->env.ctx, s->to, &s->frame);
    s->sent++;
}

static void stream_done(struct job *job) {
    struct stream *s = (struct stream *)job;
    struct replica *r = s->r;
    replica_enter(r);
    s->busy = false;
    bool over = s->ended || r->failed != OK || r->closing;
    if (over || s->error != OK) {
        if (s->error != OK) replica_say(r, 1, "a snapshot can't be sent: %s", err_text(s->error));
        stream_end(r, s);
    } else if (s->chunks == 0) {
        s->chunks = snapshot_chunks(s->reader);
        send_offer(s);
    } else {
        send_chunk(s);
        stream_kick(s);
    }
    replica_settle(r);
}

/* The file that is there for sure; 0: none. It may be ahead of what the engine knows of. */
static uint64_t newest_file(const struct replica *r) {
    return r->taking != NULL && r->taking->newest ? r->taking->meta.index : r->snapshot_index;
}

void snapshots_offer(struct replica *r, uint64_t to) {
    struct peer_state *p = replica_peer(r, to);
    bool again = !guard_on(r->guard, GUARD_SNAPSHOT_IN_FLIGHT); /* as the engine would have it */
    if (again && p != NULL && p->stream != NULL) stream_end(r, p->stream);
    bool may = p != NULL && p->stream == NULL && newest_file(r) != 0;
    struct stream *s = may ? calloc(1, sizeof *s) : NULL;
    if (s == NULL) { /* not now: the engine asks again */
        if (p == NULL || p->stream == NULL || p->stream->ended)
            guard_snapshot_stream(r->guard, to, false);
        return;
    }
    *s = (struct stream){.r = r,
                         .to = to,
                         .index = newest_file(r),
                         .term = raft_current_term(guard_raft(r->guard)),
                         .heard_ms = r->now_ms,
                         .offered_ms = r->now_ms,
                         .log_before = log_used(r),
                         .job = {.run = stream_run, .done = stream_done}};
    p->stream = s;
    pace_begin(&r->pace);
    guard_snapshot_stream(r->guard, to, true);
    stream_kick(s);
}

void snapshots_want(struct replica *r, uint64_t from, const struct wire_want *m) {
    struct peer_state *p = replica_peer(r, from);
    struct stream *s = p != NULL ? p->stream : NULL;
    if (s == NULL || s->busy || s->ended || m->index != s->index || m->term != s->term ||
        s->chunks == 0) {
        if (s != NULL && m->index == s->index && m->want == WANT_CHUNKS && m->next > s->acked &&
            m->next <= s->sent && m->next < s->chunks) {
            s->acked = m->next;
            s->heard_ms = r->now_ms;
        }
        return;
    }
    s->heard_ms = r->now_ms;
    if (m->want == WANT_NOTHING || m->next >= s->chunks) {
        stream_end(r, s);
        return;
    }
    if (m->next < s->acked || m->next > s->sent)
        s->sent = m->next; /* it was cut: again from there */
    s->acked = m->next;
    stream_kick(s);
}

static void streams_tick(struct replica *r) {
    for (unsigned i = 0; i < r->peers_n; i++) {
        struct stream *s = r->peers[i].stream;
        if (s == NULL || s->busy) continue;
        if (r->now_ms >= s->heard_ms + STREAM_GIVES_UP_MS || members_find(r, s->to) == NULL) {
            stream_end(r, s);
        } else if (r->now_ms >= s->heard_ms + OFFER_AGAIN_MS &&
                   r->now_ms >= s->offered_ms + OFFER_AGAIN_MS) {
            s->sent = s->acked;
            send_offer(s);
        } else {
            stream_kick(s);
        }
    }
}

void snapshots_leader_changed(struct replica *r) {
    for (unsigned i = 0; i < r->peers_n; i++) {
        struct stream *s = r->peers[i].stream;
        bool stale = s != NULL && !s->ended && (!r->leading || s->term != r->term);
        if (stale) stream_end(r, s);
    }
}

/* --- the rest --- */

void snapshots_tick(struct replica *r) {
    maybe_taken(r);
    maybe_take(r);
    reseal_tick(r);
    streams_tick(r);
}

/* When the next chunk may go; 0: nothing waits for its time. */
uint64_t snapshots_due_ms(const struct replica *r) {
    uint64_t due = 0;
    for (unsigned i = 0; i < r->peers_n; i++) {
        const struct stream *s = r->peers[i].stream;
        if (s == NULL || s->busy || s->ended || !stream_more(s)) continue;
        uint64_t at = s->next_us / 1000 + 1;
        if (due == 0 || at < due) due = at;
    }
    return due;
}

bool snapshots_busy(const struct replica *r) {
    if (r->taking != NULL) return true;
    for (unsigned i = 0; i < r->peers_n; i++)
        if (r->peers[i].stream != NULL) return true;
    return false;
}

bool snapshots_job(const struct replica *r) {
    if (r->taking != NULL && !r->taking->waiting) return true;
    for (unsigned i = 0; i < r->peers_n; i++)
        if (r->peers[i].stream != NULL && r->peers[i].stream->busy) return true;
    return false;
}

void snapshots_close(struct replica *r) {
    if (r->taking != NULL && r->taking->waiting) taking_free(r->taking);
    for (unsigned i = 0; i < r->peers_n; i++)
        if (r->peers[i].stream != NULL) stream_end(r, r->peers[i].stream);
    r->ask.wanted = r->reseal.wanted = false;
}

void snapshots_drop(struct replica *r) {
    if (r->taking != NULL) taking_free(r->taking);
    for (unsigned i = 0; i < r->peers_n; i++) {
        if (r->peers[i].stream != NULL) stream_free(r->peers[i].stream);
        r->peers[i].stream = NULL;
    }
}
