/* See offline.h. The replica is opened on a loop of its own with an environment that sends
 * nothing, and dropped. */
#include "api/offline.h"

#include <stdio.h>

#include "api/offline_env.h"
#include "raft/loop.h"

static void no_send(void *ctx, uint64_t to, struct buf *frame) {
    (void)ctx;
    (void)to;
    buf_free(frame);
}

static size_t no_queue(void *ctx, uint64_t to) {
    (void)ctx;
    (void)to;
    return 0;
}

static void no_wake(void *ctx) { (void)ctx; }

static void no_arm(void *ctx, uint64_t at_ms) {
    (void)ctx;
    (void)at_ms;
}

static void no_leader(void *ctx, uint64_t term, uint64_t leader) {
    (void)ctx;
    (void)term;
    (void)leader;
}

static void no_failure(void *ctx, enum err e, const char *text) {
    (void)ctx;
    (void)e;
    (void)text;
}

static void no_call(void *ctx, uint64_t from, struct span request, struct reply *reply) {
    (void)ctx;
    (void)from;
    (void)request;
    reply_send(reply, ERR_CLOSED, span_of(NULL, 0));
}

static void no_log(void *ctx, int level, const char *text) {
    (void)ctx;
    (void)level;
    (void)text;
}

static void no_submit(struct exec *e, struct job *j) {
    (void)e;
    (void)j;
}

void offline_env(struct offline *o) {
    clock_real(&o->clock);
    o->exec.submit = no_submit;
    o->env = (struct replica_env){.ctx = o,
                                  .clock = &o->clock,
                                  .disk = o->disk,
                                  .keys = o->keys,
                                  .log_exec = &o->exec,
                                  .snapshot_exec = &o->exec,
                                  .machine = o->store ? store_machine(o->store) : NULL,
                                  .send = no_send,
                                  .queued = no_queue,
                                  .wake = no_wake,
                                  .arm = no_arm,
                                  .leader = no_leader,
                                  .members = no_wake,
                                  .failed = no_failure,
                                  .call = no_call,
                                  .log = no_log};
    o->raft = (struct replica_config){.raft_id = o->self.raft_id,
                                      .alg = SEAL_XCHACHA20,
                                      .election_ms = ELECTION_TIMEOUT_MS,
                                      .heartbeat_ms = HEARTBEAT_MS,
                                      .seed = 1,
                                      .segment_size = SEGMENT_SIZE,
                                      .snapshot_log_min = SNAPSHOT_LOG_MIN,
                                      .trailing_bytes = SNAPSHOT_LOG_MIN / 4};
    memcpy(o->raft.identity.cluster_id, o->self.cluster_id, sizeof o->raft.identity.cluster_id);
    memcpy(o->raft.identity.node_id, o->self.node_id, sizeof o->raft.identity.node_id);
}

/* A keyring that nothing seals opens without any key, whatever was given. */
static RESULT open_keys(struct offline *o, const char *data, struct kek kek, struct why *why) {
    enum kek_kind kind;
    TRY(disk_real_open(data, &o->disk, why));
    enum err e = keyring_kind(o->disk, &kind, why);
    if (e == ERR_NOT_FOUND) return fail_with(why, e, "%s: there is no node's data here", data);
    TRY(e);
    if (kind == KEK_PLAIN) kek = (struct kek){.kind = KEK_PLAIN};
    TRY(keyring_open(o->disk, kek, &o->keys, why));
    e = identity_load(o->keys, &o->self, why);
    if (e == ERR_NOT_FOUND) return fail_with(why, e, "%s: the node belongs to no cluster", data);
    if (e == OK && o->self.role == NODE_WORKER)
        return fail_with(why, ERR_NOT_MANAGER, "%s: the node is a worker; it has no log", data);
    return e;
}

void offline_close(struct offline *o) {
    if (o->store) store_free(o->store);
    identity_clear(&o->self);
    if (o->keys) keyring_close(o->keys);
    if (o->disk) disk_real_close(o->disk);
}

static RESULT open_replica(struct offline *o, struct offline_report *out, struct why *why) {
    struct replica *replica = NULL;
    struct replica_status status;
    if (store_new(&o->store) != OK) return ERR_NOMEM;
    offline_env(o);
    TRY(replica_open(&o->env, &o->raft, &replica, why));
    replica_status(replica, &status);
    *out = (struct offline_report){.snapshot = status.snapshot_index,
                                   .first = status.first,
                                   .last = status.last,
                                   .term = status.term};
    (void)snprintf(out->name, sizeof out->name, "%s", o->self.name);
    (void)snprintf(out->id, sizeof out->id, "%s", o->self.node_id);
    enum err e = status.failed;
    if (e != OK) (void)fail_with(why, e, "%s", status.text);
    replica_drop(replica);
    return e;
}

RESULT offline_check(const char *data, struct kek kek, struct offline_report *out,
                     struct why *why) {
    struct offline o = {0};
    identity_init(&o.self);
    enum err e = open_keys(&o, data, kek, why);
    if (e == OK) e = open_replica(&o, out, why);
    offline_close(&o);
    return e;
}

RESULT offline_recover(const char *data, struct kek kek, struct why *why) {
    struct offline o = {0};
    identity_init(&o.self);
    enum err e = open_keys(&o, data, kek, why);
    if (e == OK) {
        offline_env(&o);
        e = replica_recover(&o.env, &o.raft, why);
    }
    if (e == OK) {
        o.self.state = IDENTITY_RECOVERED;
        o.self.n = 0; /* nobody else is dialled */
        e = identity_store(&o.self, o.keys, why);
    }
    offline_close(&o);
    return e;
}
