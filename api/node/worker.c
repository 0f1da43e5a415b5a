/* A node without a replica, and the ways between the two roles, in the running process. What is
 * durable leads: the identity says which role a node starts in, and is written before the role is
 * taken up or its traces are wiped; a crash in between is finished by the next start.
 *
 *   promote: certificate, raft id, managers -> identity -> replica (empty, waits to be contacted)
 *   demote:  replica down -> identity -> log, snapshots, ballot wiped -> another DEK, the old ones
 *            destroyed; the cluster's unlock, signing and cluster keys (vault.h) forgotten */
#include "api/manager_parts.h"
#include "api/node/ask.h"
#include "api/node/directory.h"
#include "api/node/nodes.h"

#include <stdio.h>

RESULT worker_start(struct manager *m, struct why *why) {
    (void)why;
    directory_wipe_log(m->disk); /* of a demotion that was cut short */
    log_event(m->config.log, LOG_INFO, "node", "%s (id %s, worker) of cluster %s", m->self.name,
              m->self.node_id, m->self.cluster_id);
    manager_beat_start(m);
    manager_set_state(m, MANAGER_WORKER);
    agent_start(m);
    return OK;
}

/* --- demotion ------------------------------------------------------------------------------- */

static RESULT forget_quorum(struct manager *m, struct why *why) {
    struct node_identity *self = &m->self;
    secret_free(self->root_key);
    self->root_key = NULL;
    buf_free(&self->issuer_pem);
    identity_forget_vault(self);
    self->role = NODE_WORKER;
    self->raft_id = 0;
    TRY(identity_store(self, m->keys, why));
    directory_wipe_log(m->disk);
    TRY(keyring_rotate(m->keys, why));
    TRY(keyring_destroy_before(m->keys, keyring_generation(m->keys), why));
    bool beside = m->config.kek_kind == KEK_PLAIN; /* another one: for older copies */
    return m->unlock_key || beside ? manager_rekey(m, manager_kek(m), false, why) : OK;
}

static void on_demoted(struct manager *m) {
    struct why why = {0};
    enum err e = forget_quorum(m, &why);
    if (e == OK) e = worker_start(m, &why);
    if (e != OK)
        manager_fail(m, e, why.text);
    else
        nodes_leave_on(m);
}

void worker_demote(struct manager *m) {
    log_event(m->config.log, LOG_INFO, "node",
              "this node is no manager any more: its log, snapshots and keys are wiped");
    manager_set_state(m, MANAGER_LEAVING);
    manager_stop(m, on_demoted);
}

/* --- promotion ------------------------------------------------------------------------------ */

static RESULT promote(struct manager *m, struct asking *a, struct why *why) {
    struct kek kek = manager_kek(m);
    struct span unlock_key = a->answer.unlock_key;
    struct secret *key = NULL;
    if (kek.kind == KEK_PLAIN && unlock_key.size == KEY_SIZE) {
        TRY(secret_new(unlock_key.at, KEY_SIZE, &key));
        enum err e = manager_rekey(m, (struct kek){.kind = KEK_UNLOCK_KEY, .key = key}, false, why);
        secret_free(key);
        TRY(e);
    }
    struct node_identity *self = &m->self;
    self->role = NODE_MANAGER;
    enum err e = ask_take(a, self, m->keys, why);
    if (e != OK) self->role = NODE_WORKER;
    TRY(e);
    return manager_start(m, why);
}

void worker_promote(struct manager *m, struct asking *a) {
    struct why why = {0};
    if (a->answer.raft_id == 0)
        (void)fail_with(&why, ERR_PROTOCOL, "the answer names no member of the quorum");
    enum err e = a->answer.raft_id == 0 ? ERR_PROTOCOL : promote(m, a, &why);
    if (e == OK)
        log_event(m->config.log, LOG_INFO, "node", "this node is a manager now");
    else
        manager_fail(m, e, why.text);
}
