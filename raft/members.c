/* Membership: one server, one change at a time, on the leader (Raft thesis, 4.1). A change is done
 * when its CHANGE entry is committed. A standby is caught up by the engine before it becomes a
 * voter; with auto_promote the leader does so by itself for those that were added and never
 * demoted.
 *
 * The engine's address field is ours to use, since addresses live in the store: "<id> auto" or
 * "<id> held". A demoted member is held: only an explicit promotion makes it a voter again. */
#include "raft/replica_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PROMOTE_AGAIN_MS 500 /* after a promotion that did not come off */
#define NOTE_MAX         40

static void note_text(char out[NOTE_MAX], uint64_t id, bool held) {
    (void)snprintf(out, NOTE_MAX, "%" PRIu64 " %s", id, held ? "held" : "auto");
}

RESULT members_only(uint64_t raft_id, struct buf *out) {
    struct raft_configuration conf;
    struct raft_buffer bytes;
    char note[NOTE_MAX];
    note_text(note, raft_id, false);
    raft_configuration_init(&conf);
    enum err e = raft_configuration_add(&conf, raft_id, note, RAFT_VOTER) == 0 ? OK : ERR_NOMEM;
    if (e == OK) e = raft_configuration_encode(&conf, &bytes) == 0 ? OK : ERR_NOMEM;
    raft_configuration_close(&conf);
    if (e != OK) return e;
    e = buf_add(out, bytes.base, bytes.len);
    raft_free(bytes.base);
    return e;
}

const struct raft_server *members_find(const struct replica *r, uint64_t id) {
    const struct raft_configuration *c = &guard_raft(r->guard)->configuration;
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id) return &c->servers[i];
    return NULL;
}

/* The present configuration with one delta, servers in their order. */
static RESULT changed(const struct replica *r, enum change_kind kind, uint64_t id,
                      struct raft_configuration *out) {
    const struct raft_configuration *now = &guard_raft(r->guard)->configuration;
    char note[NOTE_MAX];
    raft_configuration_init(out);
    for (unsigned i = 0; i < now->n; i++) {
        const struct raft_server *s = &now->servers[i];
        bool is_it = s->id == id;
        if (is_it && kind == CHANGE_REMOVE) continue;
        int role = s->role;
        if (is_it) role = kind == CHANGE_PROMOTE ? RAFT_VOTER : RAFT_STANDBY;
        note_text(note, id, kind == CHANGE_DEMOTE);
        if (raft_configuration_add(out, s->id, is_it ? note : s->address, role) != 0)
            return ERR_NOMEM;
    }
    if (kind != CHANGE_ADD) return OK;
    note_text(note, id, false);
    return raft_configuration_add(out, id, note, RAFT_STANDBY) == 0 ? OK : ERR_NOMEM;
}

static RESULT make_entry(struct replica *r, enum change_kind kind, uint64_t id,
                         struct entry **out) {
    struct raft_configuration conf;
    struct raft_buffer bytes;
    enum err e = changed(r, kind, id, &conf);
    if (e == OK) e = raft_configuration_encode(&conf, &bytes) == 0 ? OK : ERR_NOMEM;
    raft_configuration_close(&conf);
    if (e != OK) return e;
    e = entry_new(r->log.last + 1, raft_current_term(guard_raft(r->guard)), ENTRY_CHANGE, bytes.len,
                  out);
    if (e == OK) memcpy((*out)->data, bytes.base, bytes.len);
    raft_free(bytes.base);
    return e;
}

static RESULT submit(struct replica *r, enum change_kind kind, uint64_t id, uint64_t *index) {
    struct entry *e;
    TRY(make_entry(r, kind, id, &e));
    r->step.entries = &e;
    r->step.first = e->index;
    r->step.n = 1;
    enum err outcome = guard_change(r->guard, r->now_ms, e);
    (void)replica_step(r, outcome);
    *index = e->index;
    r->change_term = e->term;
    entry_drop(e);
    return outcome;
}

static void finish(struct replica *r, enum err e, const char *text) {
    struct change *c = r->change;
    r->change = NULL;
    r->change_catching_up = false;
    if (c != NULL) c->done(c, e, text);
}

static RESULT check(const struct replica *r, const struct change *c, struct why *why) {
    const struct raft_server *s = members_find(r, c->raft_id);
    bool self = c->raft_id == r->config.raft_id;
    if (c->kind == CHANGE_ADD) {
        if (s != NULL) return fail_with(why, ERR_EXISTS, "already a member");
        if (guard_raft(r->guard)->configuration.n >= MEMBERS_MAX)
            return fail_with(why, ERR_PRECONDITION, "a cluster has at most %d members",
                             MEMBERS_MAX);
        return OK;
    }
    if (s == NULL) return fail_with(why, ERR_NOT_FOUND, "no such member");
    if (self && c->kind != CHANGE_PROMOTE && guard_on(r->guard, GUARD_SELF_CHANGE))
        return fail_with(why, ERR_PRECONDITION,
                         "the leader can't demote or remove itself: transfer first");
    if (c->kind == CHANGE_PROMOTE && s->role == RAFT_VOTER)
        return fail_with(why, ERR_EXISTS, "already a voter");
    if (c->kind == CHANGE_DEMOTE && s->role != RAFT_VOTER)
        return fail_with(why, ERR_EXISTS, "not a voter");
    return OK;
}

RESULT replica_change(struct replica *r, struct change *c, struct why *why) {
    if (r->failed != OK || r->closing) return fail_with(why, ERR_CLOSED, "the node is stopping");
    if (!r->leading) return fail_with(why, ERR_NOT_LEADER, "another member leads");
    TRY(check(r, c, why));
    if (r->change != NULL || r->promoting != 0)
        return fail_with(why, ERR_BUSY, "another change of membership is under way");
    if (!guard_own_term_committed(r->guard))
        return fail_with(why, ERR_BUSY, "the new leader has not committed an entry yet: try again");
    replica_enter(r);
    enum err e;
    if (c->kind == CHANGE_PROMOTE) {
        e = guard_catch_up(r->guard, r->now_ms, c->raft_id);
        (void)replica_step(r, e);
        r->change_catching_up = e == OK;
    } else {
        e = submit(r, c->kind, c->raft_id, &c->index);
    }
    if (e == OK)
        r->change = c;
    else
        (void)fail_with(why, e, "the membership can't change now: %s", err_text(e));
    replica_settle(r);
    return e;
}

RESULT replica_transfer(struct replica *r, uint64_t to, struct why *why) {
    if (r->failed != OK || r->closing) return fail_with(why, ERR_CLOSED, "the node is stopping");
    if (!r->leading) return fail_with(why, ERR_NOT_LEADER, "another member leads");
    replica_enter(r);
    enum err e = guard_transfer(r->guard, r->now_ms, to);
    (void)replica_step(r, e);
    if (e != OK) (void)fail_with(why, e, "leadership can't be handed over: %s", err_text(e));
    replica_settle(r);
    return e;
}

/* --- while time goes by --- */

/* RAFT_CATCH_UP_* of a standby; ABORTED also when it is gone. */
static int catch_up(const struct replica *r, uint64_t id) {
    int status = RAFT_CATCH_UP_ABORTED;
    if (raft_catch_up(guard_raft(r->guard), id, &status) != 0) return RAFT_CATCH_UP_ABORTED;
    return status;
}

static void poll_change(struct replica *r) {
    struct change *c = r->change;
    if (c == NULL) return;
    if (r->change_catching_up) {
        int status = catch_up(r, c->raft_id);
        if (status == RAFT_CATCH_UP_RUNNING) return;
        r->change_catching_up = false;
        if (status != RAFT_CATCH_UP_FINISHED) {
            finish(r, ERR_TIMEOUT, "the member does not keep up with the log");
            return;
        }
        enum err e = submit(r, CHANGE_PROMOTE, c->raft_id, &c->index);
        if (e != OK) finish(r, e, err_text(e));
        return;
    }
    if (r->commit < c->index || r->applied < c->index) return;
    finish(r, OK, "");
}

static bool wants_promotion(const struct replica *r, const struct raft_server *s) {
    raft_index match = 0;
    size_t n = strlen(s->address);
    bool automatic = n > 5 && strcmp(s->address + n - 5, " auto") == 0;
    if (s->role != RAFT_STANDBY || !automatic || s->id == r->config.raft_id) return false;
    return raft_match_index(guard_raft(r->guard), s->id, &match) == 0 && match > 0 &&
           match + HASH_EVERY >= r->commit;
}

static void start_promotion(struct replica *r) {
    const struct raft_configuration *c = &guard_raft(r->guard)->configuration;
    bool may = r->config.auto_promote && r->change == NULL && r->now_ms >= r->promote_after_ms &&
               guard_own_term_committed(r->guard) && raft_transferee(guard_raft(r->guard)) == 0 &&
               guard_raft(r->guard)->configuration_uncommitted_index == 0;
    for (unsigned i = 0; may && i < c->n; i++) {
        if (!wants_promotion(r, &c->servers[i])) continue;
        uint64_t id = c->servers[i].id;
        enum err e = guard_catch_up(r->guard, r->now_ms, id);
        r->promote_after_ms = r->now_ms + PROMOTE_AGAIN_MS;
        if (replica_step(r, e) && e == OK) r->promoting = id;
        return;
    }
}

static void poll_promotion(struct replica *r) {
    if (r->promoting == 0) {
        start_promotion(r);
        return;
    }
    int status = catch_up(r, r->promoting);
    if (status == RAFT_CATCH_UP_RUNNING) return;
    uint64_t id = r->promoting, index;
    r->promoting = 0;
    r->promote_after_ms = r->now_ms + PROMOTE_AGAIN_MS;
    if (status != RAFT_CATCH_UP_FINISHED) return;
    if (submit(r, CHANGE_PROMOTE, id, &index) == OK)
        replica_say(r, 2, "member %" PRIu64 " has caught up and becomes a voter", id);
}

void members_tick(struct replica *r) {
    if (!r->leading) return;
    poll_change(r);
    if (r->failed == OK && r->change == NULL) poll_promotion(r);
}

void members_leader_changed(struct replica *r) {
    r->promoting = 0;
    if (r->leading) return;
    bool sent = r->change != NULL && !r->change_catching_up;
    finish(r, sent ? ERR_MAYBE_APPLIED : ERR_NOT_LEADER, "leadership was lost");
}

void members_end(struct replica *r, bool tell) {
    if (tell) finish(r, ERR_CLOSED, "the node is stopping");
    r->change = NULL;
}
