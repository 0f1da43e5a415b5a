/* What the replicated state says of the cluster, followed: its rows become the peers' table, its
 * unlock key becomes the keyring's, our own row is kept true, and the founding and the recovery of
 * a cluster are finished.
 *
 * A member that comes up sees an old state first, since the log behind it is still to be applied.
 * New rows and new addresses are taken over at once; whatever could cut us off by being old (a
 * missing row, another unlock key) waits for a linearizable read, after which the state is known to
 * be current. */
#include "api/ca/authority.h"
#include "api/manager_parts.h"
#include "api/node/roles.h"
#include "api/node/sessions.h"
#include "api/secret/audit.h"
#include "api/secret/vault.h"
#include "api/service/scheduler.h"

#include <stdio.h>

/* --- our own commands ----------------------------------------------------------------------- */

static void on_own(struct write *w, enum err e, const char *text, const struct result *r) {
    struct manager *m = w->ctx;
    m->writing = false;
    m->dirty = true;
    if (e == OK && r->error != OK && r->error != ERR_EXISTS) {
        e = r->error;
        text = err_text(e);
    }
    if (e != OK && e != ERR_CLOSED)
        log_event(m->config.log, LOG_WARNING, "node", "a command of its own: %s", text);
}

/* The next beat tries again when it fails. */
static void propose(struct manager *m, const struct command *c) {
    m->own = (struct write){.command = buf_new(COMMAND_MAX), .done = on_own, .ctx = m};
    m->writing = command_encode(c, &m->own.command) == OK && manager_write(m, &m->own) == OK;
    if (!m->writing) buf_wipe(&m->own.command);
}

static int64_t wall(struct manager *m) { return m->clock.wall_s(&m->clock); }

static void propose_cluster(struct manager *m) {
    struct command c;
    credentials_cluster(&m->self, wall(m), &c);
    propose(m, &c);
}

static void propose_rows(struct manager *m) {
    struct command c;
    struct buf changes = buf_new(COMMAND_MAX);
    if (credentials_rows(&m->self, wall(m), &changes, &c) == OK) propose(m, &c);
    buf_free(&changes);
}

static void propose_lock(struct manager *m) {
    struct command c = {.op = OP_LOCK, .unlock_key = secret_span(m->self.unlock_key)};
    propose(m, &c);
}

/* The cluster stands. Whoever asked for it is told while the token can still be read. */
static void founded(struct manager *m) {
    manager_finish(m, OK, "");
    identity_forget_founding(&m->self);
    m->self.state = IDENTITY_MEMBER;
    struct why why;
    if (identity_store(&m->self, m->keys, &why) != OK)
        log_event(m->config.log, LOG_ERROR, "node", "%s", why.text);
}

static void go_on_founding(struct manager *m, const struct cluster *c) {
    if (!c->initialised)
        propose_cluster(m);
    else if (row_count(m->store, ROW_SPEC) == 0)
        propose_rows(m);
    else if (m->self.unlock_key && !c->unlock_key)
        propose_lock(m);
    else if (!m->vault || vault_is_made(m))
        founded(m);
    else
        vault_wake(m);
}

struct lost {
    struct manager *manager;
    struct buf changes;
    unsigned n;
};

/* Of another manager: it has another past, and has to join again. */
static bool remove_manager(void *ctx, const struct row *row) {
    struct lost *l = ctx;
    struct node_row node;
    if (strcmp(row->id, l->manager->self.node_id) == 0) return true;
    if (node_row_decode(row->body, &node) != OK || node.granted != NODE_MANAGER) return true;
    if (node_change_add(&l->changes, ROW_REMOVE, row, NULL) == OK) l->n++;
    return l->n < MEMBERS_MAX;
}

/* After recover --force-new-cluster: the other managers go, one command at a time. */
static void go_on_recovering(struct manager *m, const struct cluster *c) {
    for (unsigned i = 0; i < c->n; i++) {
        if (c->nodes[i].raft_id == m->self.raft_id) continue;
        struct command remove = {.op = OP_NODE_REMOVE, .raft_id = c->nodes[i].raft_id};
        propose(m, &remove);
        return;
    }
    struct lost lost = {.manager = m, .changes = buf_new(COMMAND_MAX / 2)};
    row_all(m->store, ROW_NODE, remove_manager, &lost);
    struct command rows = {.op = OP_ROWS};
    rows.rows.n = lost.n;
    rows.rows.changes = buf_span(&lost.changes);
    rows.rows.now_ns = m->clock.wall_ns(&m->clock);
    if (lost.n > 0) propose(m, &rows);
    buf_free(&lost.changes);
    if (lost.n > 0) return;
    m->self.state = IDENTITY_MEMBER;
    (void)!identity_store(&m->self, m->keys, NULL);
    manager_finish(m, OK, ""); /* a recovery that was asked for */
}

static void keep_own_row(struct manager *m, const struct node *row) {
    if (strcmp(row->client_address, m->self.client_address) == 0 &&
        strcmp(row->peer_address, m->self.peer_address) == 0)
        return;
    struct command c = {.op = OP_NODE_UPDATE};
    credentials_row(&m->self, wall(m), &c.node);
    c.node.joined_s = row->joined_s;
    propose(m, &c);
}

/* One step towards the state as it should be; at most one command is under way. */
static void next_step(struct manager *m) {
    const struct cluster *c = store_cluster(m->store);
    if (m->writing || m->leader == 0 || m->state != MANAGER_RUNNING) return;
    bool leading = m->leader == m->self.raft_id;
    const struct node *row = cluster_node(c, m->self.raft_id);
    if (m->self.state == IDENTITY_FOUNDING) {
        if (leading) go_on_founding(m, c);
    } else if (m->self.state == IDENTITY_RECOVERED) {
        if (leading) go_on_recovering(m, c);
    } else if (row) {
        keep_own_row(m, row);
    }
}

/* --- rows to peers -------------------------------------------------------------------------- */

static struct node *given(struct manager *m, uint64_t raft_id) {
    for (unsigned i = 0; i < m->peers_n; i++)
        if (m->peers_rows[i].raft_id == raft_id) return &m->peers_rows[i];
    return NULL;
}

/* Rows that are gone stay until the state is known to be current. */
static void give_rows(struct manager *m, const struct cluster *c) {
    for (unsigned i = 0; i < c->n; i++) {
        const struct node *row = &c->nodes[i];
        struct node *before = given(m, row->raft_id);
        bool same = before && strcmp(before->peer_address, row->peer_address) == 0;
        if (before)
            *before = *row;
        else if (m->peers_n < NODES_MAX)
            m->peers_rows[m->peers_n++] = *row;
        if (same || row->raft_id == m->self.raft_id) continue;
        if (peers_set(m->peers, row->raft_id, row->id, row->peer_address) != OK)
            log_event(m->config.log, LOG_WARNING, "peers", "%s at %s can't be reached", row->name,
                      row->peer_address);
    }
}

static void take_rows(struct manager *m, const struct cluster *c) {
    for (unsigned i = 0; i < m->self.n; i++)
        if (!cluster_node(c, m->self.members[i].raft_id))
            peers_remove(m->peers, m->self.members[i].raft_id);
    for (unsigned i = 0; i < m->peers_n; i++)
        if (!cluster_node(c, m->peers_rows[i].raft_id))
            peers_remove(m->peers, m->peers_rows[i].raft_id);
    m->peers_n = c->n;
    for (unsigned i = 0; i < c->n; i++)
        m->peers_rows[i] = c->nodes[i];
}

/* The members as the identity keeps them, for the next start. */
static void keep_members(struct manager *m, const struct cluster *c) {
    struct wire_member now[MEMBERS_MAX] = {0};
    unsigned n = 0;
    for (unsigned i = 0; i < c->n && n < MEMBERS_MAX; i++) {
        now[n].raft_id = c->nodes[i].raft_id;
        memcpy(now[n].node_id, c->nodes[i].id, sizeof now[n].node_id);
        memcpy(now[n].peer_address, c->nodes[i].peer_address, sizeof now[n].peer_address);
        n++;
    }
    bool same = n == m->self.n;
    for (unsigned i = 0; same && i < n; i++)
        same = now[i].raft_id == m->self.members[i].raft_id &&
               strcmp(now[i].peer_address, m->self.members[i].peer_address) == 0;
    if (same) return;
    memcpy(m->self.members, now, sizeof now);
    m->self.n = n;
    (void)!identity_store(&m->self, m->keys, NULL);
}

/* --- autolock ------------------------------------------------------------------------------- */

static void rekey(struct manager *m, struct kek kek) {
    struct why why = {0};
    enum err e = manager_rekey(m, kek, kek.kind == KEK_UNLOCK_KEY, &why);
    if (e == OK) reseal_again(m);
    if (e == OK)
        log_event(m->config.log, LOG_INFO, "keys", "the keyring is %s",
                  m->unlock_key ? "locked by the cluster's unlock key" : "unlocked");
    else
        log_event(m->config.log, LOG_ERROR, "keys", "the keyring can't take the cluster's lock: %s",
                  why.text);
}

/* A passphrase or a key file that the user chose stays what it is. */
static void follow_lock(struct manager *m, const struct cluster *c) {
    if (m->config.kek_kind == KEK_PASSPHRASE || m->config.kek_kind == KEK_FILE) return;
    if (c->unlock_key && (!m->unlock_key || !secret_equal(c->unlock_key, m->unlock_key)))
        rekey(m, (struct kek){.kind = KEK_UNLOCK_KEY, .key = c->unlock_key});
    else if (!c->unlock_key && m->unlock_key)
        rekey(m, (struct kek){.kind = KEK_PLAIN});
}

/* --- keys and certificates ------------------------------------------------------------------ */

/* For the day when all managers come back with certificates that ran out (agent.h). */
static void keep_signing_key(struct manager *m, const struct cluster *c) {
    struct secret *copy = NULL;
    struct buf issuer = buf_new(PEM_MAX);
    struct why why = {0};
    if (!c->ca.key && !m->self.root_key) return; /* an external CA signs */
    if (c->ca.key && m->self.root_key && secret_equal(m->self.root_key, c->ca.key)) return;
    if (c->ca.key && (buf_add_span(&issuer, buf_span(&c->ca.issuer_pem)) != OK ||
                      secret_copy(c->ca.key, &copy) != OK)) {
        buf_free(&issuer);
        return;
    }
    secret_free(m->self.root_key);
    buf_free(&m->self.issuer_pem);
    m->self.root_key = copy;
    m->self.issuer_pem = issuer;
    if (identity_store(&m->self, m->keys, &why) != OK)
        log_event(m->config.log, LOG_ERROR, "keys", "%s", why.text);
}

void manager_certified(struct manager *m) {
    struct why why = {0};
    enum err e = OK;
    certificate_fresh(m);
    if (m->peers)
        e = peers_credentials(m->peers, buf_span(&m->self.root_pem), buf_span(&m->self.cert_pem),
                              m->self.key_pem, &why);
    if (e != OK)
        log_event(m->config.log, LOG_ERROR, "keys", "the certificate can't be shown: %s", why.text);
    m->config.changed(m->config.ctx);
}

/* --- following ------------------------------------------------------------------------------ */

static void on_current(struct read *rd, enum err e) {
    struct manager *m = rd->ctx;
    m->reading = false;
    if (e != OK || m->state != MANAGER_RUNNING) return;
    const struct cluster *c = store_cluster(m->store);
    if (!c->initialised) return;
    if (m->peers) give_rows(m, c);
    if (m->peers) take_rows(m, c);
    keep_members(m, c);
    follow_lock(m, c);
    keep_signing_key(m, c);
    bool first = !m->current_once;
    m->current_once = true;
    sessions_current(m);
    if (!first) return;
    agent_wake(m);
    vault_wake(m);
    m->config.changed(m->config.ctx); /* what clients may be of is known for certain */
}

void table_follow(struct manager *m) {
    if (m->peers) give_rows(m, store_cluster(m->store));
    sessions_cluster(m);
    next_step(m);
    if (m->reading) return;
    m->current = (struct read){.done = on_current, .ctx = m};
    m->reading = replica_read(m->replica, &m->current) == OK;
}

void table_beat(struct manager *m) {
    guesses_beat(&m->guesses);
    agent_beat(m);
    if (m->state != MANAGER_RUNNING) return;
    m->ops |= m->admissions || m->member_ops || m->requests;
    if (m->ops) m->env.wake(m);
    sessions_beat(m);
    roles_beat(m);
    vault_beat(m);
    scheduler_beat(m);
    audits_beat(m);
    authority_beat(m);
    next_step(m);
    reseal_beat(m);
    if (++m->beats % 240 == 0)
        m->dirty = true; /* once a minute, so that nothing is missed for long */
}
