/* The replica's world on a libuv loop. Waking sets a flag; the check handle, which libuv calls
 * after every poll, runs the turn, so that all requests and frames of one poll become one entry.
 * While a turn is due an idle handle keeps the loop from sleeping. */
#include "api/manager_parts.h"
#include "api/node/roles.h"
#include "api/node/sessions.h"
#include "api/secret/audit.h"
#include "api/secret/vault.h"
#include "api/service/assign.h"
#include "api/service/scheduler.h"
#include "api/task/runner.h"

#include <stddef.h>

#include "raft/loop.h"

#define BEAT_MS 250

static void env_send(void *ctx, uint64_t to, struct buf *frame) {
    struct manager *m = ctx;
    if (m->peers)
        peers_send(m->peers, to, frame);
    else
        buf_free(frame);
}

static void env_flush(void *ctx) {
    struct manager *m = ctx;
    if (m->peers) peers_flush(m->peers);
}

static size_t env_queued(void *ctx, uint64_t to) {
    struct manager *m = ctx;
    return m->peers ? peers_queued(m->peers, to) : 0;
}

static void on_idle(uv_idle_t *idle) { (void)idle; }

static void env_wake(void *ctx) {
    struct manager *m = ctx;
    m->turn = true;
    (void)uv_idle_start(&m->idle, on_idle);
}

void manager_chore(struct manager *m, struct chore *j) {
    j->next = m->chores;
    m->chores = j;
    (void)uv_idle_start(&m->idle, on_idle);
}

static void step_chores(struct manager *m) {
    struct chore *all = m->chores, *next;
    m->chores = NULL;
    for (struct chore *j = all; j; j = next) {
        next = j->next;
        if (j->step(j)) manager_chore(m, j);
    }
}

#define STACK_WIPED (256 * KIB) /* deeper than a turn goes */

void manager_wipe_stack(struct manager *m) { m->stack_wiped = true; }

static void on_check(uv_check_t *check) {
    struct manager *m = check->data;
    (void)uv_idle_stop(&m->idle);
    if (m->turn) {
        leases_step(m);
        m->turn = false;
        if (m->replica) replica_turn(m->replica);
    }
    step_chores(m);
    if (m->store && store_work(m->store)) (void)uv_idle_start(&m->idle, on_idle);
    if (m->ops && m->state == MANAGER_RUNNING) {
        m->ops = false;
        sessions_step(m);
        admit_step(m);
        admin_step(m);
        nodes_step(m);
        roles_step(m);
        vault_step(m);
        scheduler_step(m);
        assign_step(m);
    }
    if (m->agent.due) agent_step(m);
    if (m->runner) runner_step(m);
    if (m->dirty && m->state == MANAGER_RUNNING) {
        m->dirty = false;
        table_follow(m);
    }
    if (m->stack_wiped) sodium_stackzero(STACK_WIPED);
    if (m->stack_wiped) secret_wipe_registers();
    m->stack_wiped = false;
}

static void on_timer(uv_timer_t *timer) {
    struct manager *m = timer->data;
    uint64_t now = m->clock.now_ms(&m->clock);
    if (now < m->armed_ms)
        (void)uv_timer_start(timer, on_timer, m->armed_ms - now, 0);
    else if (m->replica)
        replica_tick(m->replica);
}

static void env_arm(void *ctx, uint64_t at_ms) {
    struct manager *m = ctx;
    uint64_t now = m->clock.now_ms(&m->clock);
    m->armed_ms = at_ms;
    uv_update_time(m->config.loop);
    (void)uv_timer_start(&m->timer, on_timer, at_ms > now ? at_ms - now : 0, 0);
}

static const char *name_of(const struct manager *m, uint64_t raft_id) {
    const struct node *row = m->store ? cluster_node(store_cluster(m->store), raft_id) : NULL;
    return row ? row->name : raft_id == m->self.raft_id ? m->self.name : "a member";
}

static void env_leader(void *ctx, uint64_t term, uint64_t leader) {
    struct manager *m = ctx;
    m->leader = leader;
    m->term = term;
    m->led_since_ms = m->clock.now_ms(&m->clock);
    if (leader != 0)
        log_event(m->config.log, LOG_INFO, "raft", "%s leads (term %llu)", name_of(m, leader),
                  (unsigned long long)term);
    else
        log_event(m->config.log, LOG_INFO, "raft", "nobody leads (term %llu)",
                  (unsigned long long)term);
    m->dirty = true;
    env_wake(m);
    admin_leader(m);
    roles_led(m);
    vault_led(m);
    scheduler_led(m);
    leases_led(m);
    if (m->config.led) m->config.led(m->config.ctx);
    if (m->state == MANAGER_STOPPING && leader != 0 && leader != m->self.raft_id &&
        uv_is_active((uv_handle_t *)&m->beat))
        (void)uv_timer_start(&m->beat, m->beat.timer_cb, 0, 0);
}

static void env_members(void *ctx) {
    struct manager *m = ctx;
    m->dirty = true;
    env_wake(m);
}

static void env_failed(void *ctx, enum err e, const char *text) {
    struct manager *m = ctx;
    m->error = e;
    (void)snprintf(m->reason, sizeof m->reason, "%s", text);
    log_event(m->config.log, LOG_ERROR, "raft", "%s", text);
    manager_set_state(m, MANAGER_FAILED);
    m->config.failed(m->config.ctx, e, m->reason);
}

static void env_log(void *ctx, int level, const char *text) {
    struct manager *m = ctx;
    log_event(m->config.log, (enum log_level)level, "raft", "%s", text);
}

/* --- the machine, watched ------------------------------------------------------------------- */

static struct manager *manager_of(struct machine *machine) {
    return (struct manager *)(void *)((char *)machine - offsetof(struct manager, machine));
}

static struct machine *inner(struct machine *machine) {
    return store_machine(manager_of(machine)->store);
}

static RESULT watch_apply(struct machine *machine, uint64_t index, struct span command,
                          struct buf *result, struct why *why) {
    uint8_t op = command.size > 0 ? command.at[0] : 0;
    if (op >= OP_CLUSTER) env_members(manager_of(machine));
    machine_pass_busy(machine, inner(machine));
    TRY(inner(machine)->apply(inner(machine), index, command, result, why));
    if (op == OP_LEASE_GRANT || op == OP_LEASE_REVOKE) leases_applied(manager_of(machine), command);
    return OK;
}

static void watch_applied(struct machine *machine, uint64_t index) {
    inner(machine)->applied(inner(machine), index);
}

static RESULT watch_view(struct machine *machine, struct machine_view **out) {
    return inner(machine)->view(inner(machine), out);
}

static RESULT watch_restore(struct machine *machine, struct machine_restore **out) {
    return inner(machine)->restore(inner(machine), out);
}

static void watch_hash(struct machine *machine, uint8_t hash[STATE_HASH_SIZE]) {
    inner(machine)->hash(inner(machine), hash);
}

/* View and restore objects are the store's own, so their functions are taken over as they are. */
static void watch_machine(struct manager *m) {
    m->machine = *store_machine(m->store);
    m->machine.apply = watch_apply;
    m->machine.applied = watch_applied;
    m->machine.view = watch_view;
    m->machine.restore = watch_restore;
    m->machine.hash = watch_hash;
}

RESULT manager_store_open(struct manager *m, struct why *why) {
    if (store_new(&m->store) != OK) return fail_with(why, ERR_NOMEM, "no memory for the store");
    watch_machine(m);
    if (leases_open(m) != OK) return fail_with(why, ERR_NOMEM, "no memory for the leases");
    if (sessions_open(m) != OK || roles_open(m) != OK)
        return fail_with(why, ERR_NOMEM, "no memory for the nodes");
    if (vault_open(m) != OK || scheduler_open(m) != OK || assign_open(m) != OK ||
        audits_open(m) != OK)
        return fail_with(why, ERR_NOMEM, "no memory for the services");
    return OK;
}

/* --- peers ---------------------------------------------------------------------------------- */

static bool on_frame(void *ctx, uint64_t from, struct span frame) {
    struct manager *m = ctx;
    bool open = m->state == MANAGER_RUNNING || m->state == MANAGER_STOPPING;
    return !m->replica || !open || replica_receive(m->replica, from, frame);
}

static void on_connected(void *ctx, uint64_t peer) {
    struct manager *m = ctx;
    if (m->replica && m->state == MANAGER_RUNNING) replica_connected(m->replica, peer);
}

/* The certificate says who it is, so its word on its address is good. */
static void on_moved(void *ctx, uint64_t peer, const char *address) {
    struct manager *m = ctx;
    const struct node *row = m->store ? cluster_node(store_cluster(m->store), peer) : NULL;
    if (!row || m->state != MANAGER_RUNNING) return;
    log_event(m->config.log, LOG_INFO, "peers", "%s has moved to %s", row->name, address);
    if (peers_set(m->peers, peer, row->id, address) != OK)
        log_event(m->config.log, LOG_WARNING, "peers", "%s can't be followed to %s", row->name,
                  address);
}

static void on_peers_log(void *ctx, int level, const char *text) {
    struct manager *m = ctx;
    log_event(m->config.log, (enum log_level)level, "peers", "%s", text);
}

RESULT manager_peers_open(struct manager *m, struct why *why) {
    const struct node_identity *self = &m->self;
    struct peers_config config = {
        .loop = m->config.loop,
        .ctx = m,
        .identity = m->raft.identity,
        .raft_id = self->raft_id,
        .root_pem = buf_span(&self->root_pem),
        .cert_pem = buf_span(&self->cert_pem),
        .key_pem = self->key_pem,
        .frame = on_frame,
        .connected = on_connected,
        .moved = on_moved,
        .join = admit_request,
        .is_member = sessions_is_member,
        .node = &sessions_events,
        .log = on_peers_log,
    };
    (void)snprintf(config.address, ADDRESS_MAX, "%s", self->peer_listen);
    (void)snprintf(config.advertise, ADDRESS_MAX, "%s", self->peer_address);
    TRY(peers_open(&config, &m->peers, why));
    for (unsigned i = 0; i < self->n; i++) {
        const struct wire_member *other = &self->members[i];
        if (other->raft_id == self->raft_id) continue;
        if (peers_set(m->peers, other->raft_id, other->node_id, other->peer_address) != OK)
            return fail_with(why, ERR_NOMEM, "the member %s can't be reached", other->peer_address);
    }
    return OK;
}

/* --- handles -------------------------------------------------------------------------------- */

static void on_beat(uv_timer_t *timer) { table_beat(timer->data); }

void manager_beat_start(struct manager *m) {
    (void)uv_timer_start(&m->beat, on_beat, BEAT_MS, BEAT_MS);
}

void manager_env(struct manager *m) {
    m->env = (struct replica_env){
        .ctx = m,
        .clock = &m->clock,
        .machine = &m->machine,
        .send = env_send,
        .flush = env_flush,
        .queued = env_queued,
        .wake = env_wake,
        .arm = env_arm,
        .leader = env_leader,
        .members = env_members,
        .failed = env_failed,
        .call = admin_call,
        .log = env_log,
    };
    (void)uv_idle_init(m->config.loop, &m->idle);
    (void)uv_check_init(m->config.loop, &m->check);
    (void)uv_timer_init(m->config.loop, &m->timer);
    (void)uv_timer_init(m->config.loop, &m->beat);
    (void)uv_timer_init(m->config.loop, &m->leases.timer);
    m->idle.data = m->check.data = m->timer.data = m->beat.data = m;
    m->leases.timer.data = m;
    m->handles = 5;
    (void)uv_check_start(&m->check, on_check);
}

static void on_handle_closed(uv_handle_t *handle) {
    struct manager *m = handle->data;
    if (--m->handles == 0) m->stopped(m);
}

void manager_env_close(struct manager *m) {
    uv_close((uv_handle_t *)&m->idle, on_handle_closed);
    uv_close((uv_handle_t *)&m->check, on_handle_closed);
    uv_close((uv_handle_t *)&m->timer, on_handle_closed);
    uv_close((uv_handle_t *)&m->beat, on_handle_closed);
    uv_close((uv_handle_t *)&m->leases.timer, on_handle_closed);
}
