/* The manager's life: opening what lies in the directory, starting and stopping what runs. Stopping
 * goes down one step at a time, each waiting for the one before: replica (so nothing new is
 * written), peers, the two execs. */
#include "api/manager_parts.h"

#include "api/ca/authority.h"
#include "api/node/admit.h"
#include "api/node/ask.h"
#include "api/node/directory.h"
#include "api/node/roles.h"
#include "api/node/sessions.h"
#include "api/secret/audit.h"
#include "api/secret/vault.h"
#include "api/service/assign.h"
#include "api/service/scheduler.h"
#include "api/task/runner.h"

#include <stdlib.h>
#include <unistd.h>

#include "raft/loop.h"

#define HANDOVER_MS 1000 /* how long a clean stop waits for another leader */

const char *manager_state_name(enum manager_state s) {
    static const char *const names[] = {"empty",  "joining", "locked",   "running",
                                        "worker", "leaving", "stopping", "failed"};
    return names[s];
}

void manager_set_state(struct manager *m, enum manager_state s) {
    if (m->state == s) return;
    log_event(m->config.log, LOG_INFO, "node", "%s", manager_state_name(s));
    m->state = s;
    m->config.changed(m->config.ctx);
}

void manager_fail(struct manager *m, enum err e, const char *text) {
    m->error = e;
    if (text != m->reason) (void)snprintf(m->reason, sizeof m->reason, "%s", text);
    log_event(m->config.log, LOG_ERROR, "node", "%s", m->reason);
    manager_set_state(m, MANAGER_FAILED);
    m->config.failed(m->config.ctx, e, m->reason);
}

void manager_finish(struct manager *m, enum err e, const char *text) {
    manager_done *done = m->done;
    m->done = NULL;
    if (done) done(m->done_ctx, e, text);
}

RESULT manager_ready(const struct manager *m, struct why *why) {
    switch (m->state) {
    case MANAGER_RUNNING: return OK;
    case MANAGER_EMPTY:
        return fail_with(why, ERR_PRECONDITION,
                         "this node belongs to no cluster yet: `conclave init` makes one, "
                         "`conclave join` joins one");
    case MANAGER_JOINING: return fail_with(why, ERR_BUSY, "this node is joining a cluster");
    case MANAGER_LOCKED: return fail_with(why, ERR_LOCKED, "%s", m->reason);
    case MANAGER_WORKER: return fail_with(why, ERR_NOT_MANAGER, "%s", err_text(ERR_NOT_MANAGER));
    case MANAGER_LEAVING:
        return fail_with(why, ERR_PRECONDITION, "this node is leaving its cluster");
    case MANAGER_STOPPING: return fail_with(why, ERR_CLOSED, "this node is stopping");
    case MANAGER_FAILED:
        return fail_with(why, m->error, "this node has stopped itself: %s", m->reason);
    }
    return ERR_INTERNAL;
}

struct kek manager_kek(const struct manager *m) {
    return (struct kek){.kind = m->config.kek_kind, .key = m->config.kek};
}

/* --- writes --------------------------------------------------------------------------------- */

const char *manager_text(enum err e, struct span text, struct why *why) {
    size_t size = text.size < sizeof why->text ? text.size : sizeof why->text - 1;
    if (size > 0) memcpy(why->text, text.at, size);
    why->text[size] = 0;
    return size > 0 ? why->text : err_text(e);
}

static void on_proposed(struct proposal *p, enum err e, uint64_t index, struct span bytes) {
    struct write *w = p->ctx;
    (void)index;
    struct why why;
    struct result result = {0};
    const char *text = e == OK ? "" : manager_text(e, bytes, &why);
    if (e == OK) e = result_decode(bytes, &result);
    buf_wipe(&w->command);
    w->done(w, e, text, &result);
}

RESULT manager_write(struct manager *m, struct write *w) {
    struct why why;
    enum err e = manager_ready(m, &why);
    w->proposal = (struct proposal){.command = buf_span(&w->command),
                                    .done = on_proposed,
                                    .ctx = w,
                                    .deadline_ms = w->proposal.deadline_ms,
                                    .here = w->proposal.here};
    if (e == OK) e = replica_propose(m->replica, &w->proposal);
    if (e != OK) buf_wipe(&w->command);
    return e;
}

/* --- opening -------------------------------------------------------------------------------- */

static RESULT merge_config(struct manager *m) {
    struct node_identity *self = &m->self;
    struct node_identity before = *self;
    if (m->config.client[0]) {
        (void)snprintf(self->client_listen, ADDRESS_MAX, "%s", m->config.client);
        credentials_advertised(m->config.advertise, self->client_listen, self->client_address);
    }
    if (m->config.peer[0]) {
        (void)snprintf(self->peer_listen, ADDRESS_MAX, "%s", m->config.peer);
        credentials_advertised(m->config.advertise, self->peer_listen, self->peer_address);
    }
    if (m->config.name[0] && strcmp(m->config.name, self->name) != 0)
        log_event(m->config.log, LOG_WARNING, "node", "this node keeps its name %s", self->name);
    bool same = strcmp(before.client_listen, self->client_listen) == 0 &&
                strcmp(before.peer_listen, self->peer_listen) == 0 &&
                strcmp(before.client_address, self->client_address) == 0 &&
                strcmp(before.peer_address, self->peer_address) == 0;
    return same ? OK : identity_store(self, m->keys, NULL);
}

/* The keyring is open: goes on with what it says. */
static RESULT go_on(struct manager *m, struct why *why) {
    enum err e = identity_load(m->keys, &m->self, why);
    if (e == ERR_NOT_FOUND) { /* init or join ended before there was anything to lose */
        keyring_close(m->keys);
        m->keys = NULL;
        directory_wipe(m->disk);
        return OK;
    }
    TRY(e);
    if (merge_config(m) != OK) return fail_with(why, ERR_IO, "the keyring can't be written");
    return m->self.role == NODE_WORKER ? worker_start(m, why) : manager_start(m, why);
}

static RESULT note_unlock_key(struct manager *m, const struct kek *kek) {
    secret_free(m->unlock_key);
    m->unlock_key = NULL;
    return kek->kind == KEK_UNLOCK_KEY ? secret_copy(kek->key, &m->unlock_key) : OK;
}

static RESULT open_keyring(struct manager *m, enum kek_kind kind, struct why *why) {
    static const char *const wants[] = {"nothing", "its unlock key: `conclave unlock`",
                                        "its passphrase: `conclave unlock --passphrase`",
                                        "its key file: `conclave unlock --key-file FILE`"};
    struct kek kek = {.kind = KEK_PLAIN};
    if (kind != KEK_PLAIN) kek = manager_kek(m);
    if (kek.kind != kind) {
        (void)snprintf(m->reason, sizeof m->reason, "this node is locked; it needs %s",
                       wants[kind]);
        manager_set_state(m, MANAGER_LOCKED);
        return OK;
    }
    enum err e = keyring_open(m->disk, kek, &m->keys, why);
    if (e == ERR_WRONG_KEY && m->config.kek_offered) {
        m->keys = NULL;
        (void)snprintf(m->reason, sizeof m->reason,
                       "this node is locked; the key that was offered is not its own; it needs %s",
                       wants[kind]);
        manager_set_state(m, MANAGER_LOCKED);
        return OK;
    }
    TRY(e);
    TRY(note_unlock_key(m, &kek));
    return go_on(m, why);
}

/* A wrong key: counted, and told to the log with those that were refused unseen. */
static void unlock_failed(struct manager *m, uint64_t now_ms, uint64_t refused) {
    throttle_wrong(&m->unlocking, now_ms);
    log_event(m->config.log, LOG_WARNING, "keys",
              "a wrong key was tried (%llu so far; %llu refused unseen before it)",
              (unsigned long long)m->unlocking.total, (unsigned long long)refused);
}

RESULT manager_unlock(struct manager *m, const struct secret *key, enum kek_kind kind,
                      struct why *why) {
    if (m->state != MANAGER_LOCKED)
        return fail_with(why, ERR_PRECONDITION, "this node is not locked");
    struct kek kek = {.kind = kind, .key = key};
    uint64_t now_ms = m->clock.now_ms(&m->clock), refused = m->unlocking.refused;
    TRY(throttle_ask(&m->unlocking, now_ms, why));
    enum err e = keyring_open(m->disk, kek, &m->keys, why);
    if (e != OK) {
        m->keys = NULL;
        if (e == ERR_WRONG_KEY) unlock_failed(m, now_ms, refused);
        return e;
    }
    throttle_right(&m->unlocking);
    e = note_unlock_key(m, &kek);
    if (e == OK) e = go_on(m, why);
    if (e != OK) manager_fail(m, e, why->text);
    return e;
}

RESULT manager_rekey(struct manager *m, struct kek kek, bool rotates, struct why *why) {
    struct secret *copy = NULL;
    enum err e = kek.kind == KEK_UNLOCK_KEY ? secret_copy(kek.key, &copy) : OK;
    if (e == OK) e = keyring_rekey(m->keys, kek, rotates, why);
    if (e != OK) {
        secret_free(copy);
        return e;
    }
    secret_free(m->unlock_key);
    m->unlock_key = copy;
    return OK;
}

RESULT manager_new(const struct manager_config *config, struct manager **out, struct why *why) {
    struct manager *m = calloc(1, sizeof *m);
    *out = m;
    if (!m) return fail_with(why, ERR_NOMEM, "no memory for the node");
    m->config = *config;
    clock_real(&m->clock);
    identity_init(&m->self);
    guesses_start(&m->guesses);
    manager_env(m);
    struct disk *disk = NULL;
    enum err e = disk_real_open(config->data, &disk, why);
    if (e == OK) e = timed_disk_open(disk, &m->disk_times, &m->disk);
    if (e != OK && disk != NULL) disk_real_close(disk);
    return e;
}

RESULT manager_open(struct manager *m, struct why *why) {
    enum kek_kind kind;
    enum err e = keyring_kind(m->disk, &kind, why);
    if (e == ERR_NOT_FOUND) return directory_check_empty(m->disk, m->config.data, why);
    TRY(e);
    return open_keyring(m, kind, why);
}

/* --- starting ------------------------------------------------------------------------------- */

static void own_config(struct manager *m) {
    m->raft = (struct replica_config){
        .raft_id = m->self.raft_id,
        .alg = m->config.null_cipher ? SEAL_NULL : seal_fastest(),
        .election_ms = ELECTION_TIMEOUT_MS,
        .heartbeat_ms = HEARTBEAT_MS,
        .seed = (unsigned)random_u64(),
        .segment_size = SEGMENT_SIZE,
        .snapshot_log_min = SNAPSHOT_LOG_MIN,
        .trailing_bytes = SNAPSHOT_LOG_MIN / 4,
        .auto_promote = true,
    };
    memcpy(m->raft.identity.cluster_id, m->self.cluster_id, sizeof m->raft.identity.cluster_id);
    memcpy(m->raft.identity.node_id, m->self.node_id, sizeof m->raft.identity.node_id);
}

/* The log of a new cluster; also after a crash in between. */
static RESULT found_log(struct manager *m, struct why *why) {
    if (m->self.state != IDENTITY_MADE) return OK;
    enum err e = replica_bootstrap(&m->env, &m->raft, why);
    if (e != OK && e != ERR_EXISTS) return e;
    m->self.state = IDENTITY_FOUNDING;
    return identity_store(&m->self, m->keys, why);
}

RESULT manager_start(struct manager *m, struct why *why) {
    TRY(exec_real_start(m->config.loop, "log", 0, &m->log_exec, why));
    TRY(exec_real_start(m->config.loop, "snapshot", EXEC_NICE, &m->snapshot_exec, why));
    TRY(manager_store_open(m, why));
    m->env.disk = m->disk;
    m->env.keys = m->keys;
    m->env.log_exec = m->log_exec;
    m->env.snapshot_exec = m->snapshot_exec;
    own_config(m);
    TRY(found_log(m, why));
    if (!m->config.alone) TRY(manager_peers_open(m, why));
    TRY(replica_open(&m->env, &m->raft, &m->replica, why));
    log_event(m->config.log, LOG_INFO, "node", "%s (id %s, member %llu) of cluster %s",
              m->self.name, m->self.node_id, (unsigned long long)m->self.raft_id,
              m->self.cluster_id);
    m->dirty = true;
    m->current_once = false;
    manager_beat_start(m);
    m->env.wake(m);
    manager_set_state(m, MANAGER_RUNNING);
    agent_start(m);
    return OK;
}

/* --- stopping ------------------------------------------------------------------------------- */

static void on_snapshot_exec_closed(void *ctx) {
    struct manager *m = ctx;
    m->snapshot_exec = NULL;
    leases_closed(m);
    admit_stop(m); /* once more: what was awaited has come */
    admin_stop(m);
    nodes_stop(m);
    reseal_stop(m);
    audits_close(m);
    assign_close(m);
    scheduler_close(m);
    vault_close(m);
    sessions_close(m);
    roles_close(m);
    authority_close(m);
    if (m->store) store_free(m->store);
    m->store = NULL;
    m->peers_n = 0;
    m->leader = 0;
    m->turn = m->dirty = false;
    (void)uv_idle_stop(&m->idle);
    (void)uv_timer_stop(&m->beat);
    m->stopped(m);
}

static void on_log_exec_closed(void *ctx) {
    struct manager *m = ctx;
    m->log_exec = NULL;
    if (m->snapshot_exec)
        exec_real_close(m->snapshot_exec, on_snapshot_exec_closed, m);
    else
        on_snapshot_exec_closed(m);
}

static void on_peers_closed(void *ctx) {
    struct manager *m = ctx;
    m->peers = NULL;
    if (m->log_exec)
        exec_real_close(m->log_exec, on_log_exec_closed, m);
    else
        on_log_exec_closed(m);
}

static void on_replica_closed(void *ctx) {
    struct manager *m = ctx;
    m->replica = NULL;
    (void)uv_timer_stop(&m->timer);
    if (m->peers)
        peers_close(m->peers, on_peers_closed, m);
    else
        on_peers_closed(m);
}

static void on_agent_stopped(struct manager *m) {
    if (m->replica)
        replica_close(m->replica, on_replica_closed, m);
    else
        on_replica_closed(m);
}

void manager_stop(struct manager *m, void (*stopped)(struct manager *m)) {
    m->stopped = stopped;
    admit_stop(m);
    admin_stop(m);
    nodes_stop(m);
    leases_stop(m);
    agent_stop(m, on_agent_stopped);
}

static void free_manager(struct manager *m) {
    void (*closed)(void *ctx) = m->closed;
    void *ctx = m->closed_ctx;
    manager_forget_ca(m);
    secret_free(m->config.kek);
    secret_free(m->unlock_key);
    free(m);
    closed(ctx);
}

static void on_all_stopped(struct manager *m) {
    if (m->keys) keyring_close(m->keys);
    struct disk *disk = timed_disk_close(m->disk);
    if (disk != NULL) disk_real_close(disk);
    identity_clear(&m->self);
    m->stopped = free_manager;
    manager_env_close(m);
}

static void handed_over(uv_timer_t *timer) {
    struct manager *m = timer->data;
    (void)uv_timer_stop(timer);
    ask_forget(m);
    if (m->asking || m->signings > 0 || m->asking_drivers > 0)
        (void)uv_timer_start(timer, handed_over, 100, 0); /* their threads can't be called back */
    else
        manager_stop(m, on_all_stopped);
}

/* Another leader first, so that the cluster does not wait for an election. */
static bool hand_over(struct manager *m) {
    struct replica_status status;
    if (!m->replica || m->error != OK) return false;
    replica_status(m->replica, &status);
    bool others = false;
    for (unsigned i = 0; i < status.n; i++)
        others |= status.members[i].raft_id != status.raft_id &&
                  status.members[i].role == REPLICA_VOTER && status.members[i].active;
    return status.leading && others && replica_transfer(m->replica, 0, NULL) == OK;
}

void manager_close(struct manager *m, void (*closed)(void *ctx), void *ctx) {
    m->closed = closed;
    m->closed_ctx = ctx;
    manager_finish(m, ERR_CLOSED, "the node is stopping");
    bool waiting = hand_over(m);
    manager_set_state(m, MANAGER_STOPPING);
    (void)uv_timer_start(&m->beat, handed_over, waiting ? HANDOVER_MS : 0, 0);
}

/* --- wiping --------------------------------------------------------------------------------- */

/* What the next init or join will want, where the command line did not say it. */
static void keep_names(struct manager *m) {
    const struct node_identity *self = &m->self;
    struct manager_config *c = &m->config;
    if (!c->name[0]) (void)snprintf(c->name, sizeof c->name, "%s", self->name);
    if (!c->client[0]) (void)snprintf(c->client, sizeof c->client, "%s", self->client_listen);
    if (!c->peer[0]) (void)snprintf(c->peer, sizeof c->peer, "%s", self->peer_listen);
}

static void on_wiped(struct manager *m) {
    keep_names(m);
    if (m->keys) keyring_close(m->keys);
    m->keys = NULL;
    identity_clear(&m->self);
    secret_free(m->unlock_key);
    m->unlock_key = NULL;
    directory_wipe(m->disk);
    manager_set_state(m, MANAGER_EMPTY);
    enum err e = m->error;
    m->error = OK;
    manager_finish(m, e, m->reason);
}

/* A close may have come meanwhile: that goes its own way. */
static void on_tasks_ended(struct manager *m) {
    if (m->state == MANAGER_LEAVING) manager_stop(m, on_wiped);
}

RESULT manager_wipe(struct manager *m, manager_done *done, void *ctx, struct why *why) {
    if (m->state != MANAGER_WORKER) TRY(manager_ready(m, why));
    m->done = done;
    m->done_ctx = ctx;
    m->error = OK;
    m->reason[0] = 0;
    manager_set_state(m, MANAGER_LEAVING);
    runner_end(m, on_tasks_ended);
    return OK;
}

/* The locked keyring has the names; these are a new node's. */
static void usual_names(struct manager_config *c) {
    if (!c->name[0] && gethostname(c->name, sizeof c->name - 1) != 0) c->name[0] = 0;
    if (!c->client[0]) (void)snprintf(c->client, sizeof c->client, "%s", CLIENT_USUAL);
    if (!c->peer[0]) (void)snprintf(c->peer, sizeof c->peer, "%s", PEER_USUAL);
}

RESULT manager_abandon(struct manager *m, struct why *why) {
    if (m->state != MANAGER_LOCKED)
        return fail_with(why, ERR_PRECONDITION, "this node is not locked");
    directory_wipe(m->disk);
    usual_names(&m->config);
    m->reason[0] = 0;
    manager_set_state(m, MANAGER_EMPTY);
    return OK;
}

void manager_undo(struct manager *m, enum err e, const char *text) {
    m->error = e;
    if (text != m->reason) (void)snprintf(m->reason, sizeof m->reason, "%s", text);
    manager_stop(m, on_wiped);
}
