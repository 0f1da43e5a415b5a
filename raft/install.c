/* Receiving a snapshot. The chunks go to the disk (sealed under our own DEK) and into a second
 * state beside the present one, in one job a chunk; only when the file is durable does the engine
 * hear of it, and only when the engine accepts does the second state take the place of the first.
 * Until then this member goes on as it is. Chunks that come while a job is under way wait in order,
 * SNAPSHOT_WINDOW of them at most; what is out of order is dropped and asked for again.
 *
 *     none --OFFER--> receiving --chunks in order--> durable --engine accepts--> swapped, installed
 *                        |  ^                            `--engine refuses--> dropped
 *                        |  `--OFFER of the same, after a cut: WANT(next) resumes--
 *                        `--OFFER of another, error, silence, applied without it--> dropped */
#include "raft/replica_internal.h"

#include <stdlib.h>

#define SILENCE_MAX_MS (2 * STREAM_GIVES_UP_MS) /* whoever sent has given up long ago */

/* A chunk that waits for its job, or has it. */
struct waiting {
    struct snapshot_chunk chunk; /* data is `bytes` */
    struct buf bytes;
};

struct receiving {
    struct job job;                          /* the chunk under way */
    struct replica *r;                       /* the replica */
    uint64_t from, term;                     /* who sends; term of the offer */
    uint64_t heard_ms;                       /* when it last sent, or we were done with that */
    struct snapshot_meta meta;               /* conf is `conf` */
    struct buf conf;                         /* owned bytes */
    uint64_t chunks, next;                   /* of the snapshot; the first that is not written */
    struct snapshot_writer *writer;          /* NULL before the first chunk and after the last */
    struct machine_restore *restore;         /* the second state */
    struct waiting waiting[SNAPSHOT_WINDOW]; /* chunk n at n % SNAPSHOT_WINDOW */
    unsigned waiting_n;                      /* those from `next` on */
    struct buf raw;                          /* the bytes of the one under way, decompressed */
    uint64_t size, raw_size;       /* bytes of the chunks taken so far, as sent; as read */
    uint8_t hash[STATE_HASH_SIZE]; /* of the state, from the end record */
    bool busy, durable,
        ended;      /* a job is under way; the file is complete; free it when the job is done */
    enum err error; /* outcome of the job */
    struct why why;
};

static void receiving_free(struct receiving *v) {
    if (v->writer != NULL) snapshot_abort(v->writer);
    if (v->restore != NULL) v->r->env.machine->restore_abort(v->restore);
    buf_free(&v->conf);
    for (unsigned i = 0; i < SNAPSHOT_WINDOW; i++)
        buf_wipe(&v->waiting[i].bytes);
    buf_wipe(&v->raw);
    v->r->receiving = NULL;
    free(v);
}

static void receiving_end(struct receiving *v) {
    if (v->busy)
        v->ended = true;
    else
        receiving_free(v);
}

static void want(struct replica *r, uint64_t to, uint64_t term, uint64_t index, uint64_t next,
                 enum want what) {
    struct wire_message m = {
        .type = WIRE_SNAPSHOT_WANT,
        .want = {.term = term, .index = index, .next = next, .want = (uint8_t)what}};
    replica_send(r, to, &m);
}

/* --- the job --- */

static RESULT write_chunk(struct receiving *v) {
    struct replica *r = v->r;
    const struct snapshot_chunk *chunk = &v->waiting[v->next % SNAPSHOT_WINDOW].chunk;
    if (v->writer == NULL) TRY(snapshot_create(&r->files, &v->meta, &v->writer, &v->why));
    if (!chunk->last) {
        TRY(snapshot_write_chunk(v->writer, chunk, &v->why));
        buf_clear(&v->raw);
        TRY(snapshot_inflate(chunk, &v->raw));
        v->raw_size += v->raw.size;
        return r->env.machine->restore_bytes(v->restore, buf_span(&v->raw));
    }
    if (chunk->data.size < STATE_HASH_SIZE) return ERR_PROTOCOL;
    memcpy(v->hash, chunk->data.at, sizeof v->hash);
    struct snapshot_writer *w = v->writer;
    v->writer = NULL;
    TRY(snapshot_finish(w, v->hash, &v->why));
    v->durable = true;
    return OK;
}

static void receiving_run(struct job *job) {
    struct receiving *v = (struct receiving *)job;
    v->error = write_chunk(v);
}

static void write_next(struct receiving *v) {
    v->busy = true;
    v->r->env.snapshot_exec->submit(v->r->env.snapshot_exec, &v->job);
}

/* --- the engine --- */

static RESULT give_to_engine(struct receiving *v) {
    struct replica *r = v->r;
    struct raft_message m = {
        .type = RAFT_INSTALL_SNAPSHOT, .server_id = v->from, .server_address = "leader"};
    struct raft_install_snapshot *s = &m.install_snapshot;
    struct raft_buffer conf = {.base = v->conf.at, .len = v->conf.size};
    *s = (struct raft_install_snapshot){.term = v->term,
                                        .last_index = v->meta.index,
                                        .last_term = v->meta.term,
                                        .conf_index = v->meta.conf_index};
    raft_configuration_init(&s->conf);
    TRY(guard_configuration_check(buf_span(&v->conf)));
    if (raft_configuration_decode(&conf, &s->conf) != 0) return ERR_PROTOCOL;
    s->data.base = raft_malloc(1);
    s->data.len = 1;
    if (s->data.base == NULL) {
        raft_configuration_close(&s->conf);
        return ERR_NOMEM;
    }
    (void)replica_step(r, guard_receive(r->guard, r->now_ms, &m, NULL));
    return OK;
}

/* The engine has accepted: our log gives way, the second state takes the first one's place. */
static void swap_state(struct receiving *v) {
    struct replica *r = v->r;
    uint64_t index = v->meta.index;
    struct machine_restore *restore = v->restore;
    v->restore = NULL;
    enum err e = r->env.machine->restore_end(restore, v->hash);
    if (e != OK) {
        replica_fail(r, e, "the received state does not have the hash that came with it");
        return;
    }
    propose_passed(r, index);
    propose_truncated(r, index + 1); /* our log gives way beyond it, too */
    journal_reset(&r->log, index);
    r->applied = r->commit = r->conf_seen = index;
    r->snapshot_index = index;
    r->snapshot_size = v->size;
    r->snapshot_raw = v->raw_size;
    r->snapshot_generation = keyring_generation(r->env.keys);
    r->bytes_since_snapshot = 0;
    for (unsigned i = 0; i < HASHES_KEPT; i++)
        r->hashes[i].index = 0;
    for (unsigned i = 0; i < r->confs_n; i++)
        buf_free(&r->confs[i].bytes);
    r->confs_n = 0;
    if (!replica_note_conf(r, v->meta.conf_index, buf_span(&v->conf)))
        replica_fail(r, ERR_NOMEM, "no memory for a configuration");
    r->env.machine->applied(r->env.machine, index);
    (void)replica_step(r, guard_snapshot_installed(r->guard, r->now_ms, &v->meta));
    if (r->env.members != NULL) r->env.members(r->env.ctx);
}

static void install(struct receiving *v) {
    struct replica *r = v->r;
    enum err e = v->meta.index > r->applied ? give_to_engine(v) : ERR_PRECONDITION;
    if (e == OK && r->failed == OK && guard_installing(r->guard)) swap_state(v);
    want(r, v->from, v->term, v->meta.index, v->chunks, WANT_CHUNKS);
    receiving_free(v);
}

static void receiving_done(struct job *job) {
    struct receiving *v = (struct receiving *)job;
    struct replica *r = v->r;
    replica_enter(r);
    v->busy = false;
    v->heard_ms = r->now_ms;
    if (v->ended || r->failed != OK || r->closing) {
        receiving_free(v);
    } else if (v->error == ERR_NOSPACE || v->error == ERR_PROTOCOL || v->error == ERR_CORRUPT) {
        replica_say(r, 1, "a snapshot can't be received: %s",
                    v->why.text[0] != '\0' ? v->why.text : err_text(v->error));
        receiving_free(v); /* the leader offers again */
    } else if (v->error != OK) {
        replica_fail(r, v->error, v->why.text);
        receiving_free(v);
    } else if (v->durable) {
        install(v);
    } else {
        v->next++;
        v->waiting_n--;
        if (v->waiting_n > 0) write_next(v);
        want(r, v->from, v->term, v->meta.index, v->next, WANT_CHUNKS);
    }
    replica_settle(r);
}

/* --- frames --- */

static RESULT begin(struct replica *r, uint64_t from, const struct wire_offer *m) {
    struct receiving *v = calloc(1, sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    *v = (struct receiving){.r = r,
                            .from = from,
                            .term = m->term,
                            .chunks = m->chunks,
                            .conf = buf_new(FRAME_MAX),
                            .raw = buf_new(2 * SNAPSHOT_CHUNK),
                            .job = {.run = receiving_run, .done = receiving_done}};
    for (unsigned i = 0; i < SNAPSHOT_WINDOW; i++)
        v->waiting[i].bytes = buf_new(2 * SNAPSHOT_CHUNK);
    r->receiving = v;
    enum err e = buf_add_span(&v->conf, m->conf);
    v->meta = (struct snapshot_meta){.index = m->index,
                                     .term = m->snapshot_term,
                                     .conf_index = m->conf_index,
                                     .conf = buf_span(&v->conf)};
    if (e == OK) e = r->env.machine->restore(r->env.machine, &v->restore);
    if (e != OK) receiving_free(v);
    return e;
}

static bool same_offer(const struct receiving *v, uint64_t from, const struct wire_offer *m) {
    return v->from == from && v->meta.index == m->index && v->chunks == m->chunks &&
           v->meta.term == m->snapshot_term;
}

void install_offer(struct replica *r, uint64_t from, const struct wire_offer *m) {
    const struct raft *raft = guard_raft(r->guard);
    if (m->term < raft_current_term(raft) || r->leading) return;
    if (m->index <= r->applied || m->index <= raft->trail.snapshot.index) {
        want(r, from, m->term, m->index, m->chunks, WANT_NOTHING);
        return;
    }
    struct receiving *v = r->receiving;
    if (v != NULL && !v->ended && same_offer(v, from, m)) {
        v->term = m->term;
    } else {
        if (v != NULL) receiving_end(v);
        if (r->receiving != NULL || r->taking != NULL)
            return; /* offered again when the job is over */
        if (begin(r, from, m) != OK) return;
        v = r->receiving;
        replica_say(r, 2, "receiving a snapshot of entry %llu from member %llu",
                    (unsigned long long)m->index, (unsigned long long)from);
    }
    v->heard_ms = r->now_ms;
    want(r, from, m->term, m->index, v->next, WANT_CHUNKS);
}

void install_chunk(struct replica *r, uint64_t from, const struct wire_chunk *m) {
    struct receiving *v = r->receiving;
    bool ours = v != NULL && !v->ended && v->from == from && v->term == m->term &&
                v->meta.index == m->index && m->chunk.last == (m->chunk.number + 1 == v->chunks);
    if (!ours) return;
    v->heard_ms = r->now_ms;
    if (v->waiting_n == SNAPSHOT_WINDOW || m->chunk.number != v->next + v->waiting_n)
        return; /* asked for again */
    struct waiting *w = &v->waiting[m->chunk.number % SNAPSHOT_WINDOW];
    buf_clear(&w->bytes);
    if (buf_add_span(&w->bytes, m->chunk.data) != OK) return;
    w->chunk = m->chunk;
    w->chunk.data = buf_span(&w->bytes);
    v->waiting_n++;
    v->size += m->chunk.data.size;
    if (!v->busy) write_next(v);
}

void install_tick(struct replica *r) {
    struct receiving *v = r->receiving;
    if (v == NULL || v->ended) return;
    bool silent = !v->busy && r->now_ms >= v->heard_ms + SILENCE_MAX_MS;
    if (silent || r->applied >= v->meta.index) receiving_end(v);
}

bool install_job(const struct replica *r) { return r->receiving != NULL && r->receiving->busy; }

void install_close(struct replica *r) {
    if (r->receiving != NULL) receiving_end(r->receiving);
}

bool install_busy(const struct replica *r) { return r->receiving != NULL; }

void install_drop(struct replica *r) {
    if (r->receiving != NULL) receiving_free(r->receiving);
}
