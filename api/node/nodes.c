/* See nodes.h. A request travels as a replica call to the leader and ends there as changes of rows,
 * which the leader's own work (roles.c) follows:
 *
 *   judge -> writing -> answered                             update, role, approve, renew
 *   judge -> writing -> waiting: roles.c takes it out of the quorum -> answered          leave
 *   judge -> writing -> waiting -> writing (the row goes) -> answered      remove of a manager
 *
 * A leader that hands over on the way answers ERR_NOT_LEADER, and the asking side asks the next one
 * (raft/calls.c); every step finds what was done before it. */
#include "api/node/nodes.h"
#include "api/manager_parts.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/admin.h"
#include "api/node/nodes_wire.h"
#include "api/node/roles.h"

#define REQUESTS_MAX 64
#define REQUEST_MS   4500 /* less than what the asking side waits */

enum stage { JUDGE, WRITING, WAITING, REMOVING, DONE };

struct node_request {
    struct manager *manager;
    struct reply *reply; /* NULL: answered */
    struct buf bytes;    /* what `asked` points into */
    struct node_ask asked;
    enum stage stage;
    bool writing;
    enum err error; /* of the write */
    struct why why;
    uint64_t deadline_ms;
    struct write write;
    struct node_request *next;
};

/* --- judging ---------------------------------------------------------------------------------- */

struct count {
    unsigned managers; /* nodes that shall be managers */
};

static bool count_manager(void *ctx, const struct row *row) {
    struct count *c = ctx;
    struct node_row node;
    if (node_row_decode(row->body, &node) == OK && node.desired == NODE_MANAGER &&
        node.granted == NODE_MANAGER)
        c->managers++;
    return true;
}

/* May this manager stop being one? */
static RESULT check_demotion(struct node_request *q, const struct node_row *node) {
    struct manager *m = q->manager;
    struct count c = {0};
    struct replica_status status;
    if (node->granted != NODE_MANAGER) return OK;
    row_all(m->store, ROW_NODE, count_manager, &c);
    if (node->desired == NODE_MANAGER && c.managers <= 1)
        return fail_with(&q->why, ERR_PRECONDITION,
                         "attempting to demote the last manager of the swarm");
    const struct node *member = cluster_node_by_id(store_cluster(m->store), q->asked.id);
    replica_status(m->replica, &status);
    return member ? admin_quorum(m, &status, member->raft_id, q->asked.force, &q->why) : OK;
}

static RESULT judge_update(struct node_request *q, struct row *row, struct node_row *node) {
    const struct node_spec *spec = &q->asked.spec;
    if (q->asked.version != 0 && q->asked.version != row->version)
        return fail_with(&q->why, ERR_CONFLICT, "%s", err_text(ERR_CONFLICT));
    if (spec->role == NODE_WORKER) TRY(check_demotion(q, node));
    node->desired = spec->role;
    if (q->asked.kind == ASK_ROLE) return OK;
    row->name = spec->name;
    node->availability = spec->availability;
    node->labels = spec->labels;
    return OK;
}

static RESULT judge_removal(struct node_request *q, struct node_row *node) {
    bool manager = node->granted == NODE_MANAGER;
    if (manager && !q->asked.force)
        return fail_with(
            &q->why, ERR_PRECONDITION,
            "node %s is a cluster manager and is a member of the raft cluster. It must "
            "be demoted to worker before removal",
            q->asked.id);
    if (!q->asked.force && node->state != NODE_DOWN)
        return fail_with(&q->why, ERR_PRECONDITION, "node %s is not down and can't be removed",
                         q->asked.id);
    if (!manager) return OK;
    bool last = node->desired == NODE_MANAGER;
    q->asked.force = false; /* what it is for was said; the quorum is not to be lost by it */
    enum err e = check_demotion(q, node);
    q->asked.force = true;
    if (last) node->desired = NODE_WORKER;
    return e;
}

static RESULT judge(struct node_request *q, struct row *row, struct node_row *node) {
    switch (q->asked.kind) {
    case ASK_UPDATE:
    case ASK_ROLE: return judge_update(q, row, node);
    case ASK_REMOVE: return judge_removal(q, node);
    case ASK_APPROVE:
        if (node->certificate != NODE_CERT_PENDING)
            return fail_with(&q->why, ERR_PRECONDITION, "node %s waits for no approval",
                             q->asked.id);
        node->approved = true;
        return OK;
    case ASK_RENEW:
        if (node->certificate == NODE_CERT_ISSUED) node->certificate = NODE_CERT_RENEW;
        return OK;
    case ASK_LEAVE:
        TRY(check_demotion(q, node));
        node->desired = NODE_WORKER;
        node->state = NODE_DOWN;
        (void)snprintf(node->message, sizeof node->message, "%s", NODE_LEFT);
        return OK;
    }
    return ERR_INTERNAL;
}

/* --- steps ------------------------------------------------------------------------------------ */

static void answer(struct node_request *q, enum err e, const char *text) {
    if (q->reply)
        reply_send(q->reply, e, span_str(e == OK ? "" : text && text[0] ? text : err_text(e)));
    q->reply = NULL;
    q->stage = DONE;
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct node_request *q = w->ctx;
    q->writing = false;
    q->error = e == OK ? r->error : e;
    if (e != OK) (void)snprintf(q->why.text, sizeof q->why.text, "%s", text);
    roles_wake(q->manager);
}

static RESULT write_row(struct node_request *q, enum row_action action, const struct row *row,
                        const struct node_row *node) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    q->write = (struct write){.done = on_written, .ctx = q, .proposal = {.here = true}};
    enum err e = node_change_add(&changes, action, row, node);
    if (e == OK) e = rows_command(q->manager, &changes, 1, &q->write);
    if (e == OK) e = manager_write(q->manager, &q->write);
    buf_free(&changes);
    q->writing = e == OK;
    return e;
}

static bool same_row(const struct row *row, struct span name, const struct node_row *node) {
    struct buf body = buf_new(ROW_BODY_MAX);
    bool same = span_equal(row->name, name) && node_row_encode(node, &body) == OK &&
                span_equal(buf_span(&body), row->body);
    buf_free(&body);
    return same;
}

/* Is the quorum, and the cluster's own opinion, rid of it? */
static bool is_out(struct node_request *q, const struct node_row *node) {
    const struct cluster *c = store_cluster(q->manager->store);
    struct replica_status status;
    replica_status(q->manager->replica, &status);
    bool in = false;
    for (unsigned i = 0; i < status.n; i++)
        in |= status.members[i].raft_id == node->raft_id;
    if (node->granted == NODE_MANAGER && in) return false;
    return q->asked.kind == ASK_LEAVE ||
           (node->granted == NODE_WORKER && !cluster_node_by_id(c, q->asked.id));
}

static void begin(struct node_request *q) {
    struct row row;
    struct node_row node;
    if (node_row_get(q->manager->store, q->asked.id, &row, &node) != OK) {
        answer(q, ERR_NOT_FOUND, "there is no such node");
        return;
    }
    struct row new = row;
    enum err e = judge(q, &new, &node);
    bool out = q->asked.kind == ASK_REMOVE && node.granted == NODE_WORKER;
    q->stage = out ? REMOVING : WRITING;
    q->error = OK;
    if (e == OK && out)
        e = write_row(q, ROW_REMOVE, &row, &node);
    else if (e == OK && !same_row(&row, new.name, &node))
        e = write_row(q, ROW_REPLACE, &new, &node);
    if (e != OK) answer(q, e, q->why.text);
}

static void go_on_waiting(struct node_request *q) {
    struct row row;
    struct node_row node;
    if (node_row_get(q->manager->store, q->asked.id, &row, &node) != OK) {
        answer(q, OK, "");
    } else if (!is_out(q, &node)) {
        if (q->manager->clock.now_ms(&q->manager->clock) >= q->deadline_ms)
            answer(q, ERR_TIMEOUT, "the manager is not out of the quorum yet; ask again");
    } else if (q->asked.kind == ASK_LEAVE) {
        answer(q, OK, "");
    } else {
        q->stage = JUDGE; /* it is a worker now */
    }
}

static void on_outcome(struct node_request *q) {
    bool again = q->error == ERR_CONFLICT && q->asked.version == 0 &&
                 q->manager->clock.now_ms(&q->manager->clock) < q->deadline_ms;
    if (again)
        q->stage = JUDGE;
    else if (q->error == ERR_PRECONDITION && !q->why.text[0])
        answer(q, q->error, "attempting to demote the last manager of the swarm");
    else if (q->error == ERR_EXISTS && !q->why.text[0])
        answer(q, q->error, "another node has this name");
    else if (q->error != OK)
        answer(q, q->error, q->why.text);
    else if (q->stage == WRITING && (q->asked.kind == ASK_LEAVE || q->asked.kind == ASK_REMOVE))
        q->stage = WAITING;
    else
        answer(q, OK, "");
}

static void sweep(struct manager *m) {
    for (struct node_request **at = &m->requests; *at;) {
        struct node_request *q = *at;
        if (q->stage != DONE || q->writing) {
            at = &q->next;
            continue;
        }
        *at = q->next;
        buf_free(&q->bytes);
        free(q);
    }
}

void nodes_step(struct manager *m) {
    bool leads = m->leader == m->self.raft_id;
    for (struct node_request *q = m->requests; q; q = q->next) {
        if (q->writing || q->stage == DONE) continue;
        if (!leads) answer(q, ERR_NOT_LEADER, "another manager leads");
        if (q->stage == WRITING || q->stage == REMOVING) on_outcome(q);
        if (q->stage == WAITING) go_on_waiting(q);
        if (q->stage == JUDGE) begin(q);
        if ((q->stage == WRITING || q->stage == REMOVING) && !q->writing) on_outcome(q);
    }
    sweep(m);
}

void nodes_stop(struct manager *m) {
    for (struct node_request *q = m->requests; q; q = q->next)
        answer(q, ERR_CLOSED, "the node is stopping");
    sweep(m); /* the others go when their write has come back */
}

bool nodes_forced(const struct manager *m, const char *id) {
    for (const struct node_request *q = m->requests; q; q = q->next)
        if (q->asked.force && q->asked.kind != ASK_REMOVE && strcmp(q->asked.id, id) == 0)
            return true;
    return false;
}

/* --- calls ------------------------------------------------------------------------------------ */

void nodes_call(struct manager *m, struct span request, struct reply *reply) {
    unsigned n = 0;
    for (const struct node_request *q = m->requests; q; q = q->next)
        n++;
    struct node_request *q = n < REQUESTS_MAX ? calloc(1, sizeof *q) : NULL;
    enum err e = q ? OK : ERR_BUSY;
    if (q) {
        *q = (struct node_request){.manager = m, .bytes = buf_new(NODE_ASK_MAX)};
        e = buf_add_span(&q->bytes, request);
        if (e == OK) e = node_ask_decode(buf_span(&q->bytes), &q->asked);
    }
    if (e != OK) {
        reply_send(reply, e, span_str(err_text(e)));
        if (q) buf_free(&q->bytes);
        free(q);
        return;
    }
    q->reply = reply;
    q->deadline_ms = m->clock.now_ms(&m->clock) + REQUEST_MS;
    q->next = m->requests;
    m->requests = q;
    roles_wake(m);
}

/* --- asking ----------------------------------------------------------------------------------- */

struct ask {
    struct call call;
    struct buf bytes;
    manager_done *done;
    void *ctx;
};

static void on_answer(struct call *c, enum err e, struct span text) {
    struct ask *a = c->ctx;
    struct why why;
    manager_done *done = a->done;
    void *ctx = a->ctx;
    const char *said = e == OK ? "" : manager_text(e, text, &why);
    buf_free(&a->bytes);
    free(a);
    done(ctx, e, said);
}

static RESULT ask_leader(struct manager *m, const struct node_ask *what, manager_done *done,
                         void *ctx, struct why *why) {
    TRY(manager_ready(m, why));
    struct ask *a = calloc(1, sizeof *a);
    if (!a) return fail_with(why, ERR_NOMEM, "no memory for a request");
    *a = (struct ask){.bytes = buf_new(NODE_ASK_MAX), .done = done, .ctx = ctx};
    enum err e = node_ask_encode(what, &a->bytes);
    a->call = (struct call){.request = buf_span(&a->bytes), .done = on_answer, .ctx = a};
    if (e == OK) e = replica_call(m->replica, &a->call);
    if (e == OK) return OK;
    buf_free(&a->bytes);
    free(a);
    return fail_with(why, e, "%s", err_text(e));
}

static RESULT about(const char *id, struct node_ask *out, struct why *why) {
    if (strlen(id) > NODE_ID_SIZE) return fail_with(why, ERR_NOT_FOUND, "there is no such node");
    (void)snprintf(out->id, sizeof out->id, "%s", id);
    return OK;
}

void nodes_spec(const struct row *row, const struct node_row *n, struct node_spec *out) {
    *out = (struct node_spec){.name = row->name,
                              .role = n->desired,
                              .availability = n->availability,
                              .labels = n->labels};
}

RESULT nodes_update(struct manager *m, const char *id, uint64_t version,
                    const struct node_spec *spec, bool force, manager_done *done, void *ctx,
                    struct why *why) {
    struct node_ask a = {.kind = ASK_UPDATE, .force = force, .version = version, .spec = *spec};
    TRY(about(id, &a, why));
    if (spec->name.size > ROW_NAME_MAX)
        return fail_with(why, ERR_INVALID, "a name has at most %d bytes", ROW_NAME_MAX);
    if (labels_check(spec->labels) != OK) return fail_with(why, ERR_INVALID, "too many labels");
    return ask_leader(m, &a, done, ctx, why);
}

RESULT nodes_role(struct manager *m, const char *id, enum node_role role, bool force,
                  manager_done *done, void *ctx, struct why *why) {
    struct node_ask a = {.kind = ASK_ROLE, .force = force};
    a.spec = (struct node_spec){.role = role, .availability = NODE_ACTIVE};
    TRY(about(id, &a, why));
    return ask_leader(m, &a, done, ctx, why);
}

static RESULT simple(struct manager *m, enum node_ask_kind kind, const char *id, bool force,
                     manager_done *done, void *ctx, struct why *why) {
    struct node_ask a = {.kind = kind, .force = force};
    TRY(about(id, &a, why));
    return ask_leader(m, &a, done, ctx, why);
}

RESULT nodes_remove(struct manager *m, const char *id, bool force, manager_done *done, void *ctx,
                    struct why *why) {
    return simple(m, ASK_REMOVE, id, force, done, ctx, why);
}

RESULT nodes_approve(struct manager *m, const char *id, manager_done *done, void *ctx,
                     struct why *why) {
    return simple(m, ASK_APPROVE, id, false, done, ctx, why);
}

RESULT nodes_renew(struct manager *m, const char *id, manager_done *done, void *ctx,
                   struct why *why) {
    return simple(m, ASK_RENEW, id, false, done, ctx, why);
}

void nodes_member(const struct manager *m, const struct node_row *n, struct node_member *out) {
    *out = (struct node_member){0};
    if (n->granted != NODE_MANAGER || !cluster_node(store_cluster(m->store), n->raft_id)) return;
    out->member = true;
    out->leader = n->raft_id == m->leader;
    out->reachable =
        n->raft_id == m->self.raft_id || (m->peers && peers_is_connected(m->peers, n->raft_id));
}

/* --- leaving ---------------------------------------------------------------------------------- */

static void on_told(struct manager *m) {
    struct why why = {0};
    manager_done *done = m->done;
    m->done = NULL;
    if (m->state == MANAGER_STOPPING) return;
    enum err e = manager_wipe(m, done, m->done_ctx, &why);
    if (e != OK && done) done(m->done_ctx, e, why.text);
}

void nodes_leave_on(struct manager *m) {
    if (m->done) agent_leave(m, on_told);
}

/* Out of the quorum, or it does not matter. */
static void on_out(void *ctx, enum err e, const char *text) {
    struct manager *m = ctx;
    bool lost = e == ERR_NO_LEADER || e == ERR_TIMEOUT || e == ERR_MAYBE_APPLIED;
    if (m->state != MANAGER_RUNNING) return;
    if (e == OK || e == ERR_NOT_FOUND || (lost && m->leave_forced))
        on_told(m);
    else
        manager_finish(m, e, text);
}

static RESULT leave_quorum(struct manager *m, bool force, struct why *why) {
    struct replica_status s;
    replica_status(m->replica, &s);
    if (s.n <= 1 && !force)
        return fail_with(why, ERR_PRECONDITION,
                         "this is the last member: leaving ends the cluster and its data "
                         "(--force)");
    m->leave_forced = force;
    if (s.n > 1) return simple(m, ASK_LEAVE, m->self.node_id, force, on_out, m, why);
    agent_leave(m, on_told); /* later, not from here */
    return OK;
}

RESULT nodes_leave(struct manager *m, bool force, manager_done *done, void *ctx, struct why *why) {
    if (m->state != MANAGER_WORKER) TRY(manager_ready(m, why));
    if (m->done) return fail_with(why, ERR_BUSY, "this node is busy with another request");
    m->done = done;
    m->done_ctx = ctx;
    enum err e = OK;
    if (m->state == MANAGER_WORKER)
        agent_leave(m, on_told);
    else
        e = leave_quorum(m, force, why);
    if (e != OK) m->done = NULL;
    return e;
}
