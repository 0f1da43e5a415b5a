/* See roles.h.
 *
 *   report of a manager -> heard (a table by id) -> states(): READY for those heard anew, DOWN for
 *   those that were not heard for three periods -> one OP_ROWS
 *
 *   reconcile(): the first node whose granted role is not the desired one, one step at a time:
 *   hand over | remove the member | take it off the roll | write granted = worker */
#include "api/node/roles.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/admin.h"
#include "api/node/admit.h"
#include "store/spec.h"

#define STATES_MS       500 /* between two looks at all states */
#define SILENCE_PERIODS 3   /* without a word: down */
#define SILENCE_MIN_MS  2000
#define HAND_OVER_MS    3000 /* between two attempts */
#define SILENT          "heartbeat failure"

/* A node, as its row says, and when it was heard: all that is looked at often. */
struct heard {
    char id[NODE_ID_SIZE + 1];
    uint8_t state, desired, granted; /* of its row */
    bool fresh;                      /* heard since the last look */
    uint64_t at_ms;                  /* its last word; 0: none since this one leads */
};

struct roles {
    struct heard *heard;   /* one a row, ascending by id */
    size_t n, room;        /* <= ROW_NODES_MAX */
    bool known;            /* the table is there: since this one leads */
    bool fresh;            /* some of them are */
    bool due;              /* reconcile */
    uint64_t look_ms;      /* the next look at states */
    uint64_t hand_over_ms; /* the next attempt */
    bool changing;         /* the change below is under way */
    struct change change;
    bool writing; /* the write below is under way */
    struct write write;
};

static uint64_t now_of(struct manager *m) { return m->clock.now_ms(&m->clock); }

static bool leads(const struct manager *m) {
    return m->state == MANAGER_RUNNING && m->leader == m->self.raft_id &&
           m->self.state == IDENTITY_MEMBER;
}

void roles_wake(struct manager *m) {
    if (m->roles) m->roles->due = true;
    m->ops = true;
    m->env.wake(m);
}

/* --- who was heard ---------------------------------------------------------------------------- */

static size_t place_of(const struct roles *r, const char *id) {
    size_t low = 0, high = r->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(r->heard[middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct heard *find_heard(const struct roles *r, const char *id) {
    size_t at = place_of(r, id);
    return at < r->n && strcmp(r->heard[at].id, id) == 0 ? &r->heard[at] : NULL;
}

static bool grow(struct roles *r) {
    if (r->n < r->room) return true;
    size_t room = r->room == 0 ? 64 : r->room * 2;
    if (room > ROW_NODES_MAX) return false;
    struct heard *more = realloc(r->heard, room * sizeof *more);
    if (!more) return false;
    r->heard = more;
    r->room = room;
    return true;
}

static void forget(struct roles *r, const char *id) {
    struct heard *h = find_heard(r, id);
    if (!h) return;
    size_t at = (size_t)(h - r->heard);
    memmove(h, h + 1, (r->n - at - 1) * sizeof *h);
    r->n--;
}

/* The place of a node that has a row; NULL: no memory, it is met again with the next row. */
static struct heard *place_for(struct roles *r, const char *id) {
    size_t at = place_of(r, id);
    if (at < r->n && strcmp(r->heard[at].id, id) == 0) return &r->heard[at];
    if (!grow(r)) return NULL;
    memmove(&r->heard[at + 1], &r->heard[at], (r->n - at) * sizeof r->heard[0]);
    r->n++;
    r->heard[at] = (struct heard){0};
    (void)snprintf(r->heard[at].id, sizeof r->heard[at].id, "%s", id);
    return &r->heard[at];
}

/* Whoever is written down has to be heard anew before it is ready. */
static bool take_row(void *ctx, const struct row *row) {
    struct roles *r = ctx;
    struct node_row node;
    struct heard *h = place_for(r, row->id);
    if (!h || node_row_decode(row->body, &node) != OK) return true;
    if (node.state == NODE_DOWN && h->state != NODE_DOWN) h->fresh = false;
    h->state = (uint8_t)node.state;
    h->desired = (uint8_t)node.desired;
    h->granted = (uint8_t)node.granted;
    return true;
}

void roles_row(struct manager *m, const struct row *before, const struct row *after) {
    const struct row *any = after ? after : before;
    struct roles *r = m->roles;
    if (!r || !r->known || any->kind != ROW_NODE) return;
    if (after)
        (void)take_row(r, after);
    else
        forget(r, any->id);
    r->due = true;
}

void roles_restored(struct manager *m) {
    if (m->roles) m->roles->known = false;
}

static void hear(struct manager *m, const char *id) {
    struct heard *h = find_heard(m->roles, id);
    if (!h) return;
    h->at_ms = now_of(m);
    h->fresh = m->roles->fresh = true;
}

RESULT roles_report_start(struct buf *request) { return buf_u8(request, REPORT_CALL); }

RESULT roles_report_add(struct buf *request, const char *id) {
    return buf_add(request, id, NODE_ID_SIZE);
}

void roles_report(struct manager *m, struct span request, struct reply *reply) {
    struct cursor c = cursor_of(request);
    char id[NODE_ID_SIZE + 1] = {0};
    uint8_t kind;
    enum err e = cursor_u8(&c, &kind);
    if (e == OK && !leads(m)) e = ERR_NOT_LEADER;
    while (e == OK && c.left > 0) {
        e = cursor_copy(&c, id, NODE_ID_SIZE);
        if (e == OK) hear(m, id);
    }
    reply_send(reply, e, span_str(e == OK ? "" : err_text(e)));
    if (e == OK && m->roles->fresh) roles_wake(m);
}

/* --- writing ---------------------------------------------------------------------------------- */

RESULT node_change_add(struct buf *changes, enum row_action action, const struct row *row,
                       const struct node_row *node) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row_change c = {.action = action, .kind = ROW_NODE, .version = row->version};
    (void)snprintf(c.id, sizeof c.id, "%s", row->id);
    enum err e = OK;
    if (action == ROW_CREATE || action == ROW_REPLACE) {
        c.name = row->name;
        e = node_row_encode(node, &body);
        c.body = buf_span(&body);
    }
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

RESULT rows_command(struct manager *m, const struct buf *changes, unsigned n, struct write *w) {
    struct command c = {.op = OP_ROWS};
    c.rows.n = n;
    c.rows.changes = buf_span(changes);
    c.rows.now_ns = m->clock.wall_ns(&m->clock);
    w->command = buf_new(COMMAND_MAX);
    enum err e = command_encode(&c, &w->command);
    if (e != OK) buf_wipe(&w->command);
    return e;
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct manager *m = w->ctx;
    m->roles->writing = false;
    if (e == OK) e = r->error;
    if (e != OK && e != ERR_CONFLICT && e != ERR_CLOSED && e != ERR_NOT_LEADER)
        log_event(m->config.log, LOG_WARNING, "nodes", "a change of nodes: %s",
                  text[0] ? text : err_text(e));
    roles_wake(m);
}

static void propose_rows(struct manager *m, const struct buf *changes, unsigned n) {
    struct roles *r = m->roles;
    r->write = (struct write){.done = on_written, .ctx = m, .proposal = {.here = true}};
    enum err e = rows_command(m, changes, n, &r->write);
    if (e == OK) e = manager_write(m, &r->write);
    r->writing = e == OK;
}

static void propose(struct manager *m, const struct command *c) {
    struct roles *r = m->roles;
    r->write = (struct write){
        .command = buf_new(COMMAND_MAX), .done = on_written, .ctx = m, .proposal = {.here = true}};
    enum err e = command_encode(c, &r->write.command);
    if (e == OK) e = manager_write(m, &r->write);
    if (e != OK) buf_wipe(&r->write.command);
    r->writing = e == OK;
}

/* --- states ----------------------------------------------------------------------------------- */

/* The state that a node should have; 0: the one that it has. */
static enum node_state new_state(const struct manager *m, struct heard *h, uint64_t now_ms,
                                 uint64_t silence_ms) {
    bool fresh = h->fresh;
    h->fresh = false;
    if (fresh) return h->state != NODE_READY ? NODE_READY : 0;
    uint64_t since = h->at_ms > m->led_since_ms ? h->at_ms : m->led_since_ms;
    return h->state != NODE_DOWN && now_ms >= since + silence_ms ? NODE_DOWN : 0;
}

static RESULT add_state(struct manager *m, const char *id, enum node_state state,
                        struct buf *changes) {
    struct row row;
    struct node_row node;
    TRY(node_row_get(m->store, id, &row, &node));
    node.state = state;
    (void)snprintf(node.message, sizeof node.message, "%s", state == NODE_DOWN ? SILENT : "");
    if (state == NODE_DOWN)
        log_event(m->config.log, LOG_WARNING, "nodes", "%s is down: nobody hears it",
                  node.hostname[0] ? node.hostname : id);
    return node_change_add(changes, ROW_REPLACE, &row, &node);
}

static uint64_t silence_of(const struct manager *m) {
    struct row row;
    struct spec spec;
    spec_get(m->store, &row, &spec);
    uint64_t silence_ms = SILENCE_PERIODS * (uint64_t)spec_heartbeat_ms(&spec);
    return silence_ms > SILENCE_MIN_MS ? silence_ms : SILENCE_MIN_MS;
}

/* What has no place in one command has its turn in the next look, once it is heard again. */
static void states(struct manager *m) {
    struct roles *r = m->roles;
    struct buf changes = buf_new(COMMAND_MAX / 2);
    uint64_t now_ms = now_of(m), silence_ms = silence_of(m);
    unsigned n = 0;
    r->fresh = false;
    for (size_t i = 0; i < r->n && n < ROWS_CHANGE_MAX; i++) {
        enum node_state state = new_state(m, &r->heard[i], now_ms, silence_ms);
        size_t before = changes.size;
        if (state == 0) continue;
        if (add_state(m, r->heard[i].id, state, &changes) == OK)
            n++;
        else
            changes.size = before;
    }
    if (n > 0) propose_rows(m, &changes, n);
    buf_free(&changes);
}

/* --- roles ------------------------------------------------------------------------------------ */

static void on_changed(struct change *c, enum err e, const char *text) {
    struct manager *m = c->ctx;
    m->roles->changing = false;
    if (e != OK && e != ERR_CLOSED)
        log_event(m->config.log, LOG_WARNING, "nodes", "a change of the quorum: %s", text);
    roles_wake(m);
}

static void hand_over(struct manager *m) {
    struct roles *r = m->roles;
    struct why why = {0};
    if (now_of(m) < r->hand_over_ms) return;
    r->hand_over_ms = now_of(m) + HAND_OVER_MS;
    if (replica_transfer(m->replica, 0, &why) != OK)
        log_event(m->config.log, LOG_WARNING, "nodes", "the leadership can't be handed over: %s",
                  why.text);
}

static void remove_member(struct manager *m, const char *id, uint64_t raft_id) {
    struct roles *r = m->roles;
    struct replica_status status;
    replica_status(m->replica, &status);
    if (admin_quorum(m, &status, raft_id, nodes_forced(m, id), NULL) != OK) return;
    if (raft_id == m->self.raft_id) {
        hand_over(m);
        return;
    }
    r->change =
        (struct change){.kind = CHANGE_REMOVE, .raft_id = raft_id, .done = on_changed, .ctx = m};
    r->changing = replica_change(m->replica, &r->change, NULL) == OK;
}

static bool in_quorum(struct manager *m, uint64_t raft_id) {
    struct replica_status status;
    replica_status(m->replica, &status);
    for (unsigned i = 0; i < status.n; i++)
        if (status.members[i].raft_id == raft_id) return true;
    return false;
}

static void write_granted(struct manager *m, const struct row *row, struct node_row *node) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    node->granted = NODE_WORKER;
    if (node_change_add(&changes, ROW_REPLACE, row, node) == OK) propose_rows(m, &changes, 1);
    buf_free(&changes);
    log_event(m->config.log, LOG_INFO, "nodes", "%s is a worker now",
              node->hostname[0] ? node->hostname : row->id);
}

/* One step; false: nothing is to be done for this node, or it can't be done now. */
static bool demote(struct manager *m, const struct row *row, struct node_row *node) {
    const struct node *member = cluster_node_by_id(store_cluster(m->store), row->id);
    if (member && in_quorum(m, member->raft_id)) {
        remove_member(m, row->id, member->raft_id);
    } else if (member) {
        struct command c = {.op = OP_NODE_REMOVE, .raft_id = member->raft_id};
        propose(m, &c);
    } else {
        write_granted(m, row, node);
    }
    return m->roles->changing || m->roles->writing;
}

/* True: a step was taken. */
static bool reconcile(struct manager *m, const struct heard *h) {
    struct row row;
    struct node_row node;
    if (h->granted != NODE_MANAGER) return false;
    const struct node *member = cluster_node_by_id(store_cluster(m->store), h->id);
    bool settled = h->desired == NODE_MANAGER && member && in_quorum(m, member->raft_id);
    if (settled || admit_is_about(m, h->id)) return false;
    return node_row_get(m->store, h->id, &row, &node) == OK && demote(m, &row, &node);
}

/* A member whose row is gone was removed by force. */
static void drop_orphan(struct manager *m) {
    const struct cluster *c = store_cluster(m->store);
    struct row row;
    for (unsigned i = 0; i < c->n; i++) {
        const struct node *n = &c->nodes[i];
        if (n->raft_id == m->self.raft_id || row_get(m->store, ROW_NODE, n->id, &row)) continue;
        if (admit_is_about(m, n->id)) continue;
        if (in_quorum(m, n->raft_id)) {
            remove_member(m, n->id, n->raft_id);
        } else {
            struct command command = {.op = OP_NODE_REMOVE, .raft_id = n->raft_id};
            propose(m, &command);
        }
        return;
    }
}

void roles_step(struct manager *m) {
    struct roles *r = m->roles;
    struct row row;
    if (!r || !leads(m) || !row_get(m->store, ROW_NODE, m->self.node_id, &row)) return;
    uint64_t now = now_of(m);
    if (!r->known) row_all(m->store, ROW_NODE, take_row, r);
    r->known = true;
    if (!r->writing && (r->fresh || now >= r->look_ms)) {
        r->look_ms = now + STATES_MS;
        states(m);
    }
    if (!r->due || r->changing || r->writing) return;
    r->due = false;
    for (size_t i = 0; i < r->n; i++)
        if (reconcile(m, &r->heard[i])) return;
    drop_orphan(m);
}

/* --- life ------------------------------------------------------------------------------------- */

void roles_beat(struct manager *m) {
    if (m->roles && leads(m)) roles_wake(m);
}

void roles_led(struct manager *m) {
    if (!m->roles) return;
    m->roles->n = 0;
    m->roles->known = m->roles->fresh = false;
    if (leads(m)) roles_wake(m);
}

RESULT roles_open(struct manager *m) {
    m->roles = calloc(1, sizeof *m->roles);
    return m->roles ? OK : ERR_NOMEM;
}

void roles_close(struct manager *m) {
    if (!m->roles) return;
    free(m->roles->heard);
    free(m->roles);
    m->roles = NULL;
}
