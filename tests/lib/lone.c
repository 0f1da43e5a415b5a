/* See lone.h: the replica's world by hand. A step runs the oldest job, or the turn that was
 * asked for, or moves time to where the timer is armed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "store/command.h"
#include "tests/lib/lone.h"

#define SEGMENT     (32 * KIB)
#define STEPS_MAX   100000
#define ELECTION_MS 100

static struct lone *node_of_clock(struct clock *c) {
    return (struct lone *)(void *)((char *)c - offsetof(struct lone, clock));
}
static struct lone *node_of_exec(struct exec *e) {
    return (struct lone *)(void *)((char *)e - offsetof(struct lone, exec));
}

static uint64_t now_ms(struct clock *c) { return node_of_clock(c)->now_ms; }
static uint64_t now_us(struct clock *c) { return node_of_clock(c)->now_ms * 1000; }
static int64_t wall_s(struct clock *c) { return (int64_t)node_of_clock(c)->now_ms / 1000; }

static void submit(struct exec *e, struct job *j) {
    struct lone *n = node_of_exec(e);
    j->next = NULL;
    *n->tail = j;
    n->tail = &j->next;
}

static void env_send(void *ctx, uint64_t to, struct buf *frame) {
    struct lone *n = ctx;
    if (n->sent != NULL) n->sent(n, to, buf_span(frame));
    buf_free(frame);
}
static size_t env_queued(void *ctx, uint64_t to) {
    (void)ctx;
    (void)to;
    return 0;
}
static void env_wake(void *ctx) { ((struct lone *)ctx)->turn = true; }
static void env_arm(void *ctx, uint64_t at_ms) { ((struct lone *)ctx)->armed_ms = at_ms; }
static void env_leader(void *ctx, uint64_t term, uint64_t leader) {
    (void)ctx;
    (void)term;
    (void)leader;
}
static void env_members(void *ctx) { (void)ctx; }
static void env_failed(void *ctx, enum err e, const char *text) {
    struct lone *n = ctx;
    n->failed = e;
    (void)snprintf(n->text, sizeof n->text, "%s", text);
}
static void env_call(void *ctx, uint64_t from, struct span request, struct reply *reply) {
    (void)ctx;
    (void)from;
    (void)request;
    reply_send(reply, ERR_CLOSED, span_of(NULL, 0));
}
static void env_log(void *ctx, int level, const char *text) {
    (void)ctx;
    (void)level;
    (void)text;
}

static void fill(struct lone *n) {
    n->clock = (struct clock){.now_ms = now_ms, .wall_s = wall_s, .now_us = now_us};
    n->exec.submit = submit;
    n->head = NULL;
    n->tail = &n->head;
    n->env = (struct replica_env){.ctx = n,
                                  .clock = &n->clock,
                                  .disk = n->disk,
                                  .keys = n->keys,
                                  .log_exec = &n->exec,
                                  .snapshot_exec = &n->exec,
                                  .machine = store_machine(n->store),
                                  .send = env_send,
                                  .queued = env_queued,
                                  .wake = env_wake,
                                  .arm = env_arm,
                                  .leader = env_leader,
                                  .members = env_members,
                                  .failed = env_failed,
                                  .call = env_call,
                                  .log = env_log};
    n->config = (struct replica_config){
        .raft_id = 1,
        .identity = {"flippedcluster00000000000", "flippednode00000000000000"},
        .alg = SEAL_XCHACHA20,
        .election_ms = ELECTION_MS,
        .heartbeat_ms = ELECTION_MS / 5,
        .seed = 1,
        .segment_size = SEGMENT,
        .snapshot_log_min = 4 * MIB,
        .trailing_bytes = 4 * KIB};
}

bool lone_step(struct lone *n) {
    struct job *j = n->head;
    n->now_ms++;
    if (j != NULL) {
        n->head = j->next;
        if (n->head == NULL) n->tail = &n->head;
        j->run(j);
        j->done(j);
    } else if (n->turn) {
        n->turn = false;
        replica_turn(n->r);
    } else if (n->armed_ms != 0) {
        if (n->now_ms < n->armed_ms) n->now_ms = n->armed_ms;
        replica_tick(n->r);
    } else {
        return false;
    }
    return true;
}

static bool caught_up(struct lone *n) {
    struct replica_status s;
    replica_status(n->r, &s);
    return s.leading && s.applied == s.last && s.persisted == s.last;
}

static RESULT settle(struct lone *n, struct why *why) {
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        if (n->failed != OK) return fail_with(why, n->failed, "%s", n->text);
        if (caught_up(n) && n->head == NULL && !n->turn) return OK;
        if (!lone_step(n)) break;
    }
    return fail_with(why, ERR_TIMEOUT, "the node opens but does not come to rest");
}

void lone_free(struct lone *n) {
    if (n->r != NULL) replica_drop(n->r);
    if (n->store != NULL) store_free(n->store);
    if (n->keys != NULL) keyring_close(n->keys);
    n->r = NULL;
    n->store = NULL;
    n->keys = NULL;
}

RESULT lone_open(struct lone *n, struct why *why) {
    struct disk *disk = n->disk;
    *n = (struct lone){.disk = disk, .now_ms = 1000};
    TRY(keyring_open(disk, (struct kek){.kind = KEK_PLAIN}, &n->keys, why));
    if (keyring_identity(n->keys) == NULL)
        return fail_with(why, ERR_CORRUPT, "keyring: the identity is gone");
    assert_int_equal(store_new(&n->store), OK);
    fill(n);
    TRY(replica_open(&n->env, &n->config, &n->r, why));
    return settle(n, why);
}

static void on_closed(void *ctx) { ((struct lone *)ctx)->closed = true; }

void lone_stop(struct lone *n) {
    replica_close(n->r, on_closed, n);
    while (!n->closed)
        assert_true(lone_step(n));
    n->r = NULL;
    lone_free(n);
}

struct write {
    struct proposal p;
    struct buf bytes; /* of the command */
    bool done;
};

static void on_written(struct proposal *p, enum err e, uint64_t index, struct span result) {
    struct write *w = p->ctx;
    (void)index;
    (void)result;
    assert_int_equal(e, OK);
    w->done = true;
}

void lone_put(struct lone *n, unsigned number, size_t size) {
    char key[32];
    uint8_t value[8 * KIB];
    struct write w = {.bytes = buf_new(COMMAND_MAX)};
    assert_true(size <= sizeof value);
    random_bytes(value, size);
    (void)snprintf(key, sizeof key, "key%04u", number);
    struct command c = {.op = OP_PUT};
    c.put.key = span_str(key);
    c.put.value = span_of(value, size);
    assert_int_equal(command_encode(&c, &w.bytes), OK);
    w.p = (struct proposal){.command = buf_span(&w.bytes), .done = on_written, .ctx = &w};
    assert_int_equal(replica_propose(n->r, &w.p), OK);
    for (unsigned i = 0; i < STEPS_MAX && !w.done; i++)
        assert_true(lone_step(n));
    assert_true(w.done);
    buf_free(&w.bytes);
}

static void on_snapshot(void *ctx, enum err e, uint64_t index) {
    assert_int_equal(e, OK);
    *(uint64_t *)ctx = index;
}

void lone_snapshot(struct lone *n) {
    uint64_t index = 0;
    replica_snapshot(n->r, on_snapshot, &index);
    for (unsigned i = 0; i < STEPS_MAX && index == 0; i++)
        assert_true(lone_step(n));
    assert_int_not_equal(index, 0);
}

void lone_reopen(struct lone *n) {
    struct why why = {0};
    enum err e = lone_open(n, &why);
    if (e != OK) print_error("%s: %s\n", err_name(e), why.text);
    assert_int_equal(e, OK);
}

void lone_found(struct lone *n) {
    struct secret *identity;
    struct why why = {0};
    assert_int_equal(keyring_create(n->disk, (struct kek){.kind = KEK_PLAIN}, &n->keys, &why), OK);
    assert_int_equal(secret_new("this node's own", 15, &identity), OK);
    assert_int_equal(keyring_set_identity(n->keys, identity, &why), OK);
    secret_free(identity);
    assert_int_equal(store_new(&n->store), OK);
    fill(n);
    assert_int_equal(replica_bootstrap(&n->env, &n->config, &why), OK);
    lone_free(n);
}
