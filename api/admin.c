/* See admin.h. A change of membership on the leader:
 *
 *   starting -> (handing over: answered when another one leads)
 *            |  changing -> (removed: dropping from the roll -> forgetting the node) -> answered
 *
 * The leader never changes itself (reference: libraft): it hands leadership over and answers
 * ERR_NOT_LEADER, so that the asker asks the next leader. Whatever would leave no majority of
 * reachable voters is refused unless forced. Steps after a callback are taken in the loop's check
 * phase (admin_step). */
#include "api/admin.h"
#include "api/manager_parts.h"
#include "api/node/roles.h"
#include "api/secret/vault.h"
#include "api/service/scheduler.h"

#include <stdio.h>
#include <stdlib.h>

#define OPS_MAX       32
#define HAND_OVER_MS  3000
#define NEW_LEADER_MS 2000

enum op_stage { OP_STARTING, OP_CHANGING, OP_DROPPING, OP_FORGETTING, OP_HANDING_OVER, OP_DONE };

struct member_op {
    struct manager *manager;
    struct reply *reply; /* NULL: answered */
    struct admin_request request;
    char node_id[NODE_ID_SIZE + 1]; /* of a member that is removed */
    enum op_stage stage;
    bool waiting;         /* for a callback */
    uint64_t deadline_ms; /* of a hand-over */
    enum err error;       /* the outcome so far */
    struct why why;
    struct change change;
    struct write write;
    struct member_op *next;
};

/* --- encodings ------------------------------------------------------------------------------ */

RESULT admin_encode(const struct admin_request *r, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)r->kind));
    TRY(buf_u8(out, (uint8_t)r->change));
    TRY(buf_u8(out, r->force));
    return buf_u64(out, r->raft_id);
}

static RESULT decode(struct span bytes, struct admin_request *out) {
    struct cursor c = cursor_of(bytes);
    uint8_t kind, change, force;
    uint64_t raft_id;
    TRY(cursor_u8(&c, &kind));
    TRY(cursor_u8(&c, &change));
    TRY(cursor_u8(&c, &force));
    TRY(cursor_u64(&c, &raft_id));
    TRY(cursor_end(&c));
    if (kind < ADMIN_MEMBERS || kind > ADMIN_TRANSFER || change > CHANGE_REMOVE || force > 1)
        return ERR_PROTOCOL;
    *out = (struct admin_request){.kind = (enum admin_kind)kind,
                                  .change = (enum change_kind)change,
                                  .force = force == 1,
                                  .raft_id = raft_id};
    return OK;
}

/* A new leader has not had an answer from everybody yet: at first an open connection is enough. */
bool admin_hears(const struct manager *m, const struct replica_member *member) {
    if (member->active || member->raft_id == m->self.raft_id) return true;
    uint64_t now = m->clock.now_ms((struct clock *)(uintptr_t)&m->clock);
    return now < m->led_since_ms + NEW_LEADER_MS && m->peers &&
           peers_is_connected(m->peers, member->raft_id);
}

static RESULT encode_members(const struct manager *m, const struct replica_status *s,
                             struct buf *out) {
    TRY(buf_u64(out, s->leader));
    TRY(buf_u32(out, s->n));
    for (unsigned i = 0; i < s->n; i++) {
        TRY(buf_u64(out, s->members[i].raft_id));
        TRY(buf_u8(out, (uint8_t)s->members[i].role));
        TRY(buf_u8(out, admin_hears(m, &s->members[i])));
        TRY(buf_u64(out, s->members[i].raft_id == s->raft_id ? s->last : s->members[i].match));
    }
    return OK;
}

RESULT admin_decode_members(struct span bytes, struct admin_members *out) {
    struct cursor c = cursor_of(bytes);
    uint32_t n;
    *out = (struct admin_members){0};
    TRY(cursor_u64(&c, &out->leader));
    TRY(cursor_u32(&c, &n));
    if (n > MEMBERS_MAX) return ERR_PROTOCOL;
    for (unsigned i = 0; i < n; i++) {
        struct replica_member *m = &out->members[i];
        uint8_t role, active;
        TRY(cursor_u64(&c, &m->raft_id));
        TRY(cursor_u8(&c, &role));
        TRY(cursor_u8(&c, &active));
        TRY(cursor_u64(&c, &m->match));
        if (role > REPLICA_SPARE) return ERR_PROTOCOL;
        m->role = (enum replica_role)role;
        m->active = active == 1;
    }
    out->n = n;
    return cursor_end(&c);
}

/* --- steps ---------------------------------------------------------------------------------- */

static void answer(struct member_op *op, enum err e, const char *text) {
    if (op->reply) reply_send(op->reply, e, span_str(text));
    op->reply = NULL;
    op->stage = OP_DONE;
}

static void resume(struct member_op *op, enum err e, const char *text) {
    struct manager *m = op->manager;
    op->waiting = false;
    op->error = e;
    (void)snprintf(op->why.text, sizeof op->why.text, "%s", text);
    m->ops = true;
    m->env.wake(m);
}

static void on_changed(struct change *c, enum err e, const char *text) { resume(c->ctx, e, text); }

static void on_dropped(struct write *w, enum err e, const char *text, const struct result *r) {
    if (e == OK && r->error == ERR_NOT_FOUND)
        e = OK; /* dropped before */
    else if (e == OK)
        e = r->error;
    resume(w->ctx, e, text[0] || e == OK ? text : err_text(e));
}

static RESULT drop_row(struct member_op *op) {
    struct command c = {.op = OP_NODE_REMOVE, .raft_id = op->request.raft_id};
    const struct node *n = cluster_node(store_cluster(op->manager->store), op->request.raft_id);
    if (n) memcpy(op->node_id, n->id, sizeof op->node_id);
    op->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_dropped, .ctx = op};
    op->stage = OP_DROPPING;
    TRY(command_encode(&c, &op->write.command));
    TRY(manager_write(op->manager, &op->write));
    op->waiting = true;
    return OK;
}

/* The node goes as well: it would come back by itself as another member. */
static RESULT forget_node(struct member_op *op) {
    struct manager *m = op->manager;
    struct buf changes = buf_new(COMMAND_MAX / 2);
    struct row row = {.kind = ROW_NODE}; /* whichever version */
    memcpy(row.id, op->node_id, sizeof row.id);
    op->write = (struct write){.done = on_dropped, .ctx = op};
    enum err e = node_change_add(&changes, ROW_REMOVE, &row, NULL);
    if (e == OK) e = rows_command(m, &changes, 1, &op->write);
    if (e == OK) e = manager_write(m, &op->write);
    buf_free(&changes);
    op->stage = OP_FORGETTING;
    op->waiting = e == OK;
    return e;
}

RESULT admin_quorum(const struct manager *manager, const struct replica_status *s, uint64_t without,
                    bool force, struct why *why) {
    unsigned voters = 0, reachable = 0;
    for (unsigned i = 0; i < s->n; i++) {
        const struct replica_member *m = &s->members[i];
        if (m->raft_id == without && m->role != REPLICA_VOTER) return OK;
        if (m->role != REPLICA_VOTER || m->raft_id == without) continue;
        voters++;
        reachable += admin_hears(manager, m);
    }
    if (voters == 0)
        return fail_with(why, ERR_PRECONDITION, "it is the only voter: the cluster would be gone");
    if (force || reachable > voters / 2) return OK;
    return fail_with(why, ERR_PRECONDITION,
                     "only %u of the %u voters that would be left can be reached: the quorum would "
                     "be lost (--force)",
                     reachable, voters);
}

static const struct replica_member *find(const struct replica_status *s, uint64_t raft_id) {
    for (unsigned i = 0; i < s->n; i++)
        if (s->members[i].raft_id == raft_id) return &s->members[i];
    return NULL;
}

static RESULT begin_change(struct member_op *op) {
    struct manager *m = op->manager;
    struct replica_status status;
    replica_status(m->replica, &status);
    const struct admin_request *r = &op->request;
    const struct replica_member *member = find(&status, r->raft_id);
    if (!member && r->change == CHANGE_REMOVE && cluster_node(store_cluster(m->store), r->raft_id))
        return drop_row(op);
    bool loses = r->change == CHANGE_REMOVE || r->change == CHANGE_DEMOTE;
    if (member && member->role == REPLICA_VOTER && loses)
        TRY(admin_quorum(m, &status, r->raft_id, r->force, &op->why));
    if (loses && r->raft_id == status.raft_id) {
        op->stage = OP_HANDING_OVER;
        return replica_transfer(m->replica, 0, &op->why);
    }
    op->change =
        (struct change){.kind = r->change, .raft_id = r->raft_id, .done = on_changed, .ctx = op};
    op->stage = OP_CHANGING;
    TRY(replica_change(m->replica, &op->change, &op->why));
    op->waiting = true;
    return OK;
}

static void begin(struct member_op *op) {
    enum err e = OK;
    if (op->request.kind == ADMIN_CHANGE) {
        e = begin_change(op);
    } else if (op->request.raft_id == op->manager->self.raft_id) {
        answer(op, OK, ""); /* it leads already */
    } else {
        op->stage = OP_HANDING_OVER;
        e = replica_transfer(op->manager->replica, op->request.raft_id, &op->why);
    }
    if (e != OK) answer(op, e, op->why.text[0] ? op->why.text : err_text(e));
}

/* After a callback. */
static void go_on(struct member_op *op) {
    enum err e = op->error;
    if (e == OK && op->stage == OP_CHANGING && op->request.change == CHANGE_REMOVE) {
        e = drop_row(op);
        if (e == OK) return;
    } else if (e == OK && op->stage == OP_DROPPING && op->node_id[0]) {
        e = forget_node(op);
        if (e == OK) return;
    }
    answer(op, e, e == OK ? "" : op->why.text[0] ? op->why.text : err_text(e));
}

static void sweep(struct manager *m) {
    for (struct member_op **at = &m->member_ops; *at;) {
        struct member_op *op = *at;
        if (op->stage != OP_DONE || op->waiting) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        free(op);
    }
}

void admin_step(struct manager *m) {
    uint64_t now = m->clock.now_ms(&m->clock);
    for (struct member_op *op = m->member_ops; op; op = op->next) {
        if (op->waiting) continue;
        if (op->stage == OP_HANDING_OVER && now >= op->deadline_ms)
            answer(op, ERR_TIMEOUT, "nobody took the leadership over");
        if (op->stage == OP_STARTING)
            begin(op);
        else if (op->stage >= OP_CHANGING && op->stage <= OP_FORGETTING)
            go_on(op);
    }
    sweep(m);
}

/* The end of a hand-over: done for a transfer; for a change of the old leader the asker has to ask
 * again. */
void admin_leader(struct manager *m) {
    if (m->leader == 0) return;
    for (struct member_op *op = m->member_ops; op; op = op->next) {
        if (op->stage != OP_HANDING_OVER) continue;
        uint64_t wanted = op->request.raft_id;
        bool moved = wanted == 0 ? m->leader != m->self.raft_id : m->leader == wanted;
        if (op->request.kind == ADMIN_CHANGE)
            answer(op, ERR_NOT_LEADER, "leadership was handed over: ask again");
        else if (moved)
            answer(op, OK, "");
        else
            answer(op, ERR_TIMEOUT, "nobody took the leadership over");
    }
    sweep(m);
}

void admin_stop(struct manager *m) {
    for (struct member_op *op = m->member_ops; op; op = op->next)
        answer(op, ERR_CLOSED, "the node is stopping");
    sweep(m); /* the others go when their callback has come */
}

/* --- calls ---------------------------------------------------------------------------------- */

static void answer_members(struct manager *m, struct reply *reply) {
    struct replica_status status;
    struct buf out = buf_new(4 * KIB);
    replica_status(m->replica, &status);
    enum err e = encode_members(m, &status, &out);
    reply_send(reply, e, e == OK ? buf_span(&out) : span_of(NULL, 0));
    buf_free(&out);
}

void admin_call(void *ctx, uint64_t from, struct span bytes, struct reply *reply) {
    struct manager *m = ctx;
    struct admin_request request;
    struct why why = {0};
    uint8_t kind = bytes.size > 0 ? bytes.at[0] : 0;
    enum err e = manager_ready(m, &why);
    if (kind == LEASE_CALL) {
        leases_call(m, bytes, reply);
        return;
    }
    if (e == OK && kind == NODES_CALL) {
        nodes_call(m, bytes, reply);
        return;
    }
    if (e == OK && kind == REPORT_CALL) {
        roles_report(m, bytes, reply);
        return;
    }
    if (e == OK && kind == VAULT_CALL) {
        vault_call(m, from, bytes, reply);
        return;
    }
    if (e == OK && kind == TASKS_CALL) {
        scheduler_call(m, bytes, reply);
        return;
    }
    if (e == OK) e = decode(bytes, &request);
    if (e != OK) {
        reply_send(reply, e, span_str(why.text[0] ? why.text : "the call is not understood"));
        return;
    }
    if (request.kind == ADMIN_MEMBERS) {
        answer_members(m, reply);
        return;
    }
    unsigned n = 0;
    for (const struct member_op *op = m->member_ops; op; op = op->next)
        n++;
    struct member_op *op = n < OPS_MAX ? calloc(1, sizeof *op) : NULL;
    if (!op) {
        reply_send(reply, ERR_BUSY, span_str("too many changes of membership at once"));
        return;
    }
    *op =
        (struct member_op){.manager = m, .reply = reply, .request = request, .next = m->member_ops};
    op->stage = OP_STARTING;
    op->deadline_ms = m->clock.now_ms(&m->clock) + HAND_OVER_MS;
    m->member_ops = op;
    m->ops = true;
    m->env.wake(m);
}
