/* What is done to a member's files while no replica runs on them: the first entry of a new cluster,
 * and the way back after a lost quorum. Both end in one more record of the log, written by the
 * log's own means. */
#include "raft/replica_internal.h"

#include <stdlib.h>

struct offline {
    struct ballot *ballot; /* opened */
    struct wal *wal;       /* opened */
    uint64_t last;         /* index of the log's last entry */
    uint64_t snapshot;     /* of the newest snapshot; 0: none */
    uint64_t term;         /* of its last entry, as it says */
    uint64_t term_in_log;  /* the same, as the log says; 0: not in there */
};

static enum err note_last(void *ctx, struct entry *e) {
    struct offline *o = ctx;
    o->last = e->index;
    if (e->index == o->snapshot) o->term_in_log = e->term;
    return OK;
}

static RESULT look_for_snapshot(const struct replica_env *env, const struct replica_config *config,
                                struct offline *o, struct why *why) {
    struct snapshot_options files = {.disk = env->disk,
                                     .keys = env->keys,
                                     .identity = config->identity,
                                     .alg = config->alg,
                                     .ballot = o->ballot};
    struct snapshot_reader *reader;
    struct snapshot_meta meta;
    TRY(snapshot_latest(&files, &o->snapshot, why));
    if (o->snapshot == 0) return OK;
    TRY(snapshot_open(&files, o->snapshot, &reader, &meta, why));
    o->term = meta.term;
    snapshot_close(reader);
    return OK;
}

static RESULT open_offline(const struct replica_env *env, const struct replica_config *config,
                           struct offline *o, struct why *why) {
    TRY(ballot_open(env->disk, env->keys, &config->identity, config->alg, &o->ballot, why));
    TRY(look_for_snapshot(env, config, o, why));
    struct wal_options w = {.disk = env->disk,
                            .keys = env->keys,
                            .ballot = o->ballot,
                            .identity = config->identity,
                            .alg = config->alg,
                            .segment_size = config->segment_size};
    return wal_open(&w, note_last, o, NULL, &o->wal, why);
}

static void close_offline(struct offline *o) {
    if (o->wal != NULL) wal_close(o->wal);
    if (o->ballot != NULL) ballot_close(o->ballot);
}

/* Appends a CHANGE that makes this member the only one. */
static RESULT append_only_us(struct offline *o, const struct replica_config *config, uint64_t index,
                             uint64_t term, struct why *why) {
    struct buf conf = buf_new(FRAME_MAX);
    struct entry *e = NULL;
    enum err outcome = members_only(config->raft_id, &conf);
    if (outcome == OK) outcome = entry_new(index, term, ENTRY_CHANGE, conf.size, &e);
    if (outcome == OK) {
        memcpy(e->data, conf.at, conf.size);
        outcome = wal_append(o->wal, &e, 1, why);
    }
    if (outcome == OK) outcome = wal_mark(o->wal, why);
    entry_drop(e);
    buf_free(&conf);
    return outcome;
}

RESULT replica_bootstrap(const struct replica_env *env, const struct replica_config *config,
                         struct why *why) {
    struct offline o = {0};
    enum err e = open_offline(env, config, &o, why);
    if (e == OK &&
        o.last == 0) { /* else a bootstrap that a crash cut short, after its work was done */
        e = ballot_vote(o.ballot, 1, 0, why);
        if (e == OK) e = append_only_us(&o, config, 1, 1, why);
    }
    close_offline(&o);
    return e;
}

static RESULT write_state(struct snapshot_writer *w, struct machine *m, struct machine_view *v,
                          struct why *why) {
    struct buf piece = buf_new(2 * SNAPSHOT_CHUNK);
    bool done = false;
    enum err e = OK;
    while (e == OK && !done) {
        buf_clear(&piece);
        e = m->view_next(v, &piece, &done);
        if (e == OK && piece.size > 0) e = snapshot_write(w, buf_span(&piece), why);
    }
    buf_wipe(&piece);
    return e;
}

/* The log begins behind the snapshot: a newcomer has to take the state, not to replay entry 1. The
 * snapshot is not of entry 1 because the engine takes the term that it knows from a snapshot of
 * entry 1 for the entry itself, and would never offer the snapshot. */
#define SEED_INDEX 2

static RESULT forget_log(const struct replica_env *env, const struct replica_config *config,
                         struct why *why) {
    struct offline o = {0};
    enum err e = open_offline(env, config, &o, why);
    if (e == OK) e = wal_reset(o.wal, SEED_INDEX, why);
    if (e == OK) e = wal_mark(o.wal, why);
    close_offline(&o);
    return e;
}

RESULT replica_seed(const struct replica_env *env, const struct replica_config *config,
                    struct why *why) {
    struct snapshot_options files = {
        .disk = env->disk, .keys = env->keys, .identity = config->identity, .alg = config->alg};
    struct buf conf = buf_new(FRAME_MAX);
    struct snapshot_writer *w = NULL;
    struct machine_view *view = NULL;
    uint8_t hash[STATE_HASH_SIZE];
    TRY(replica_bootstrap(env, config, why));
    enum err e = members_only(config->raft_id, &conf);
    struct snapshot_meta meta = {
        .index = SEED_INDEX, .term = 1, .conf_index = 1, .conf = buf_span(&conf)};
    if (e == OK) e = env->machine->view(env->machine, &view);
    if (e == OK) e = snapshot_create(&files, &meta, &w, why);
    if (e == OK) e = write_state(w, env->machine, view, why);
    if (e == OK) {
        env->machine->view_hash(view, hash);
        struct snapshot_writer *whole = w;
        w = NULL;
        e = snapshot_finish(whole, hash, why);
    }
    if (w != NULL) snapshot_abort(w);
    if (view != NULL) env->machine->view_free(view);
    buf_free(&conf);
    return e == OK ? forget_log(env, config, why) : e;
}

/* As in replica_open: the snapshot wins over a log that does not reach it or that says something
 * else at its index. The latter would be reset there, and our CHANGE with it. */
static bool is_stale(const struct offline *o) {
    bool behind = wal_first(o->wal) > o->snapshot;
    return o->last < o->snapshot || (!behind && o->term_in_log != o->term);
}

RESULT replica_recover(const struct replica_env *env, const struct replica_config *config,
                       struct why *why) {
    struct offline o = {0};
    uint64_t term, vote;
    enum err e = open_offline(env, config, &o, why);
    if (e == OK && o.last == 0 && o.snapshot == 0)
        e = fail_with(why, ERR_PRECONDITION, "there is no log to recover from");
    if (e == OK && is_stale(&o)) {
        e = wal_reset(o.wal, o.snapshot, why);
        o.last = o.snapshot;
    }
    if (e == OK) {
        ballot_get(o.ballot, &term, &vote);
        e = ballot_vote(o.ballot, term + 1, config->raft_id, why);
    }
    if (e == OK) e = append_only_us(&o, config, o.last + 1, term + 1, why);
    close_offline(&o);
    return e;
}
