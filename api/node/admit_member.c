/* See admit.h. Here: how a node gets into the quorum, and what stands in its way. */
#include "api/manager_parts.h"
#include "api/node/admit.h"

#include <stdio.h>

#include "api/admin.h"
#include "api/node/roles.h"
#include "raft/loop.h"

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    if (e == OK && r->error != OK) {
        e = r->error;
        text =
            e == ERR_EXISTS ? "another node of this name or address has just joined" : err_text(e);
    }
    admit_resume(w->ctx, e, text);
}

static void on_changed(struct change *c, enum err e, const char *text) {
    admit_resume(c->ctx, e, text);
}

static RESULT propose(struct admission *a, const struct command *c) {
    a->write = (struct write){
        .command = buf_new(COMMAND_MAX), .done = on_written, .ctx = a, .proposal = {.here = true}};
    enum err e = command_encode(c, &a->write.command);
    if (e == OK) e = manager_write(a->manager, &a->write);
    if (e != OK) buf_wipe(&a->write.command);
    a->waiting = e == OK;
    return e;
}

static RESULT change_member(struct admission *a, enum change_kind kind, uint64_t raft_id) {
    a->change = (struct change){.kind = kind, .raft_id = raft_id, .done = on_changed, .ctx = a};
    TRY(replica_change(a->manager->replica, &a->change, &a->why));
    a->waiting = true;
    return OK;
}

/* --- making way ----------------------------------------------------------------------------- */

static bool member_of(const struct replica_status *s, uint64_t raft_id,
                      const struct replica_member **out) {
    for (unsigned i = 0; i < s->n; i++) {
        *out = &s->members[i];
        if (s->members[i].raft_id == raft_id) return true;
    }
    return false;
}

static const struct node *in_the_way(const struct cluster *c, const struct admission *a) {
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->nodes[i].name, a->request.name) == 0 ||
            strcmp(c->nodes[i].peer_address, a->request.peer_address) == 0 ||
            strcmp(c->nodes[i].id, a->node_id) == 0)
            return &c->nodes[i];
    return NULL;
}

/* A standby that nobody has ever heard of, of this node, or of this name and address: the answer to
 * an earlier attempt got lost. */
static bool is_earlier_attempt(const struct admission *a, const struct replica_member *member,
                               const struct node *row) {
    bool same = strcmp(row->id, a->node_id) == 0 ||
                (strcmp(row->name, a->request.name) == 0 &&
                 strcmp(row->peer_address, a->request.peer_address) == 0);
    return same && member->role == REPLICA_STANDBY && member->match == 0 &&
           !admin_hears(a->manager, member);
}

static bool another_is_added(const struct admission *a) {
    for (const struct admission *other = a->manager->admissions; other; other = other->next)
        if (other != a && !other->over && other->member && other->stage != JUDGE) return true;
    return false;
}

RESULT admit_make_way(struct admission *a) {
    struct manager *m = a->manager;
    const struct node *row = in_the_way(store_cluster(m->store), a);
    const struct replica_member *member;
    struct replica_status status;
    struct address parts;
    if (another_is_added(a)) return ERR_BUSY;
    TRY(address_split(a->request.peer_address, &parts, &a->why));
    TRY(address_split(a->request.client_address, &parts, &a->why));
    replica_status(m->replica, &status);
    if (!row && status.n >= MEMBERS_MAX)
        return fail_with(&a->why, ERR_PRECONDITION, "a cluster has at most %d members",
                         MEMBERS_MAX);
    if (!row) return OK;
    if (!member_of(&status, row->raft_id, &member)) {
        struct command remove = {.op = OP_NODE_REMOVE, .raft_id = row->raft_id};
        a->stage = CLEARING;
        TRY(propose(a, &remove));
        return ERR_BUSY;
    }
    if (is_earlier_attempt(a, member, row)) {
        a->stage = REMOVING;
        TRY(change_member(a, CHANGE_REMOVE, row->raft_id));
        return ERR_BUSY;
    }
    return fail_with(&a->why, ERR_EXISTS,
                     "there is a member %s at %s already; if it is gone for good: conclave member "
                     "rm %s",
                     row->name, row->peer_address, row->name);
}

/* --- joining -------------------------------------------------------------------------------- */

RESULT admit_member_step(struct admission *a) {
    struct command add = {.op = OP_NODE_ADD, .node = a->row};
    if (a->stage == ADDING) {
        a->stage = CHANGE;
        return propose(a, &add);
    }
    if (a->stage == CHANGE) {
        TRY(change_member(a, CHANGE_ADD, a->row.raft_id));
        a->stage = CHANGING;
    }
    return OK;
}

/* The newcomer has not got its certificate: its row goes again. */
RESULT admit_undo(struct admission *a) {
    struct manager *m = a->manager;
    struct buf changes = buf_new(COMMAND_MAX / 2);
    struct row row = {.kind = ROW_NODE};
    memcpy(row.id, a->node_id, sizeof row.id);
    a->write = (struct write){.done = on_written, .ctx = a, .proposal = {.here = true}};
    enum err e = node_change_add(&changes, ROW_REMOVE, &row, NULL);
    if (e == OK) e = rows_command(m, &changes, 1, &a->write);
    if (e == OK) e = manager_write(m, &a->write);
    buf_free(&changes);
    a->stage = UNDOING;
    a->waiting = e == OK;
    return e;
}
