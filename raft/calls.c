/* Calls for whoever leads: administrative questions that only the leader can answer. One without a
 * leader, or without a way to it, waits for one; one that was sent and whose leader changed ends
 * with ERR_MAYBE_APPLIED, since it may have been carried out. A call to ourselves goes through the
 * same door, env.call.
 *
 * A reply belongs to whoever env.call gave it to, until reply_send; it may outlive the replica, and
 * is then sent to nobody. */
#include "raft/replica_internal.h"

#include <stdlib.h>

struct reply {
    struct replica *r;        /* the replica; NULL: it has ended */
    uint64_t to, id;          /* whom to answer; to == own id: `call` of ours */
    struct reply *next, **at; /* all that are out */
};

/* `from` is who answers: only whom we have asked may. */
static struct call *take(struct replica *r, uint64_t from, uint64_t id) {
    for (struct call **at = &r->calls; *at != NULL; at = &(*at)->next) {
        struct call *c = *at;
        if (c->id != id || id == 0 || c->to != from) continue;
        *at = c->next;
        return c;
    }
    return NULL;
}

RESULT replica_call(struct replica *r, struct call *c) {
    if (r->failed != OK || r->closing) return ERR_CLOSED;
    if (c->request.size > COMMAND_MAX) return ERR_TOO_LARGE;
    if (c->deadline_ms == 0)
        c->deadline_ms = r->env.clock->now_ms(r->env.clock) + PROPOSAL_TIMEOUT_MS;
    c->id = 0;
    c->next = r->calls;
    r->calls = c;
    r->env.wake(r->env.ctx);
    return OK;
}

static void serve(struct replica *r, uint64_t from, uint64_t id, struct span request) {
    struct reply *reply = calloc(1, sizeof *reply);
    if (reply == NULL) return; /* the caller's deadline tells it */
    *reply = (struct reply){.r = r, .to = from, .id = id, .next = r->replies, .at = &r->replies};
    if (r->replies != NULL) r->replies->at = &reply->next;
    r->replies = reply;
    r->env.call(r->env.ctx, from, request, reply);
}

static struct call *next_unsent(struct replica *r) {
    for (struct call *c = r->calls; c != NULL; c = c->next)
        if (c->id == 0) return c;
    return NULL;
}

void calls_turn(struct replica *r) {
    struct call *c;
    while (r->failed == OK && (r->leading || replica_way_to_leader(r)) &&
           (c = next_unsent(r)) != NULL) {
        c->id = ++r->next_id;
        c->to = r->leading ? r->config.raft_id : r->leader;
        if (r->leading) {
            serve(r, r->config.raft_id, c->id, c->request);
            continue;
        }
        struct wire_message m = {
            .type = WIRE_FORWARD,
            .forward = {.id = c->id, .kind = FORWARD_CALL, .body = c->request}};
        replica_send(r, c->to, &m);
    }
}

static void answer(struct replica *r, uint64_t to, uint64_t id, enum err e, struct span body) {
    if (to == r->config.raft_id) {
        struct call *c = take(r, to, id);
        if (c != NULL) c->done(c, e, body);
        return;
    }
    struct wire_message m = {.type = WIRE_FORWARDED,
                             .forwarded = {.id = id, .error = (uint16_t)e, .body = body}};
    replica_send(r, to, &m);
}

static void reply_unlink(struct reply *reply) {
    *reply->at = reply->next;
    if (reply->next != NULL) reply->next->at = reply->at;
    reply->r = NULL;
}

void reply_send(struct reply *reply, enum err e, struct span body) {
    struct replica *r = reply->r;
    if (r != NULL) {
        reply_unlink(reply);
        answer(r, reply->to, reply->id, e, body);
    }
    free(reply);
}

void calls_receive(struct replica *r, uint64_t from, const struct wire_forward *f) {
    if (r->leading)
        serve(r, from, f->id, f->body);
    else
        answer(r, from, f->id, ERR_NOT_LEADER, span_str("not the leader"));
}

bool calls_forwarded(struct replica *r, uint64_t from, const struct wire_forwarded *f) {
    struct call *c = take(r, from, f->id);
    if (c == NULL) return false;
    if (f->error == ERR_NOT_LEADER && c->deadline_ms > r->now_ms) {
        c->id = 0; /* certainly not carried out: again, to whoever leads */
        c->next = r->calls;
        r->calls = c;
    } else {
        c->done(c, (enum err)f->error, f->body);
    }
    return true;
}

/* Ends the calls that `due` picks; callbacks may add new ones. */
static void end_calls(struct replica *r, bool sent_only, uint64_t due_ms, enum err e) {
    struct call *all = r->calls;
    r->calls = NULL;
    for (struct call *c = all, *next; c != NULL; c = next) {
        next = c->next;
        bool ends = c->deadline_ms <= due_ms && (!sent_only || c->id != 0);
        if (ends) {
            enum err outcome = e != OK ? e : c->id != 0 ? ERR_MAYBE_APPLIED : ERR_NO_LEADER;
            c->done(c, outcome, span_str(err_text(outcome)));
        } else {
            c->next = r->calls;
            r->calls = c;
        }
    }
}

void calls_deadlines(struct replica *r) {
    if (r->calls != NULL) end_calls(r, false, r->now_ms, OK);
}

void calls_leader_changed(struct replica *r) {
    if (r->calls != NULL && !r->leading) end_calls(r, true, UINT64_MAX, ERR_MAYBE_APPLIED);
}

void calls_end(struct replica *r, bool tell) {
    while (r->replies != NULL)
        reply_unlink(r->replies);
    if (tell) end_calls(r, false, UINT64_MAX, ERR_CLOSED);
    r->calls = NULL;
}
