/* See few.h. A step delivers the frames that were on their way, and lets each member do one of each
 * kind: a job an exec, its turn, its timer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/command.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/few.h"

#define ELECTION_MS 100
#define WAIT_MS     20000

/* ---- the environment ---- */

static struct few *few_of_clock(struct clock *c) {
    return ((struct few_node *)(void *)((char *)c - offsetof(struct few_node, clock)))->all;
}

static uint64_t now_ms(struct clock *c) { return few_of_clock(c)->now_ms; }
static uint64_t now_us(struct clock *c) { return few_of_clock(c)->now_ms * 1000; }
static int64_t wall_s(struct clock *c) { return (int64_t)few_of_clock(c)->now_ms / 1000; }

static unsigned slot_of(const struct few_node *n) { return (unsigned)(n - n->all->at); }

static struct few_node *by_id(struct few *all, uint64_t id) {
    for (unsigned i = 0; i < all->n; i++)
        if (all->at[i].id == id) return &all->at[i];
    return NULL;
}

static bool is_open(const struct few_node *from, const struct few_node *to) {
    return to != NULL && !from->all->closed[slot_of(from)][slot_of(to)];
}

static void env_send(void *ctx, uint64_t to, struct buf *frame) {
    struct few_node *n = ctx, *other = by_id(n->all, to);
    struct few *all = n->all;
    if (!is_open(n, other) || (all->lose != NULL && all->lose(to, buf_span(frame)))) {
        buf_free(frame);
        return;
    }
    struct few_frame *f = calloc(1, sizeof *f);
    assert_non_null(f);
    *f = (struct few_frame){.from = slot_of(n), .to = slot_of(other), .bytes = *frame};
    *frame = buf_new(FRAME_MAX);
    *all->last = f;
    all->last = &f->next;
}

static size_t env_queued(void *ctx, uint64_t to) {
    struct few_node *n = ctx;
    return is_open(n, by_id(n->all, to)) ? 0 : SIZE_MAX;
}

static void env_wake(void *ctx) { ((struct few_node *)ctx)->turn = true; }
static void env_arm(void *ctx, uint64_t at_ms) { ((struct few_node *)ctx)->armed_ms = at_ms; }
static void env_failed(void *ctx, enum err e, const char *text) {
    fail_msg("member %llu: %s: %s", (unsigned long long)((struct few_node *)ctx)->id, err_name(e),
             text);
}

static void env_call(void *ctx, uint64_t from, struct span request, struct reply *reply) {
    (void)ctx;
    (void)from;
    reply_send(reply, OK, request);
}

static void submit(struct exec *e, struct job *j) {
    struct few_exec *x = (struct few_exec *)e;
    j->next = NULL;
    *x->tail = j;
    x->tail = &j->next;
}

static void run_one(struct few_exec *x) {
    struct job *j = x->head;
    if (j == NULL || x->held) return;
    x->head = j->next;
    if (x->head == NULL) x->tail = &x->head;
    j->run(j);
    j->done(j);
}

/* ---- life ---- */

static void fill(struct few_node *n) {
    n->clock = (struct clock){.now_ms = now_ms, .wall_s = wall_s, .now_us = now_us};
    n->log = (struct few_exec){.exec = {.submit = submit}, .tail = &n->log.head};
    n->side = (struct few_exec){.exec = {.submit = submit}, .tail = &n->side.head};
    n->turn = true;
    n->armed_ms = 0;
    n->env = (struct replica_env){.ctx = n,
                                  .clock = &n->clock,
                                  .disk = n->disk,
                                  .keys = n->keys,
                                  .log_exec = &n->log.exec,
                                  .snapshot_exec = &n->side.exec,
                                  .machine = store_machine(n->store),
                                  .send = env_send,
                                  .queued = env_queued,
                                  .wake = env_wake,
                                  .arm = env_arm,
                                  .failed = env_failed,
                                  .call = env_call};
    n->config = (struct replica_config){.raft_id = n->id,
                                        .identity = {.cluster_id = "few0000000000000000000000"},
                                        .alg = SEAL_XCHACHA20,
                                        .election_ms = ELECTION_MS,
                                        .heartbeat_ms = ELECTION_MS / 5,
                                        .seed = (unsigned)n->id,
                                        .segment_size = n->all->segment_size,
                                        .snapshot_log_min = 1 * GIB,
                                        .auto_promote = true};
    (void)snprintf(n->config.identity.node_id, sizeof n->config.identity.node_id, "node%021llu",
                   (unsigned long long)n->id);
}

static void prepare(struct few_node *n) {
    assert_int_equal(keyring_open(n->disk, (struct kek){.kind = KEK_PLAIN}, &n->keys, NULL), OK);
    assert_int_equal(store_new(&n->store), OK);
    fill(n);
}

void few_open(struct few_node *n) {
    struct why why = {0};
    if (n->store == NULL) prepare(n);
    if (replica_open(&n->env, &n->config, &n->r, &why) != OK) fail_msg("%s", why.text);
    for (unsigned i = 0; i < n->all->n; i++)
        few_link(&n->all->at[i], n, n->all->closed[i][slot_of(n)]);
}

void few_crash(struct few_node *n) {
    if (n->r != NULL) replica_drop(n->r);
    if (n->store != NULL) store_free(n->store);
    if (n->keys != NULL) keyring_close(n->keys);
    n->r = NULL;
    n->store = NULL;
    n->keys = NULL;
}

void few_recover(struct few_node *n) {
    struct why why = {0};
    prepare(n);
    if (replica_recover(&n->env, &n->config, &why) != OK) fail_msg("%s", why.text);
}

static struct few_node *add(struct few *all, uint64_t id) {
    struct keyring *keys;
    assert_true(all->n < FEW_MAX);
    struct few_node *n = &all->at[all->n++];
    *n = (struct few_node){.all = all, .id = id, .disk = disk_sim_new(id)};
    assert_int_equal(keyring_create(n->disk, (struct kek){.kind = KEK_PLAIN}, &keys, NULL), OK);
    keyring_close(keys);
    return n;
}

void few_start(struct few *all) {
    struct why why = {0};
    *all = (struct few){.now_ms = 1000, .segment_size = 64 * KIB, .last = &all->first};
    struct few_node *n = add(all, 1);
    prepare(n);
    if (replica_bootstrap(&n->env, &n->config, &why) != OK) fail_msg("%s", why.text);
    few_open(n);
    (void)few_leader(all);
}

void few_end(struct few *all) {
    for (unsigned i = 0; i < all->n; i++) {
        few_crash(&all->at[i]);
        disk_sim_free(all->at[i].disk);
    }
    for (struct few_frame *f = all->first, *next; f != NULL; f = next) {
        next = f->next;
        buf_free(&f->bytes);
        free(f);
    }
}

struct replica_status few_status(struct few_node *n) {
    struct replica_status s;
    replica_status(n->r, &s);
    return s;
}

/* ---- time ---- */

static void deliver(struct few *all) {
    struct few_frame *f = all->first;
    all->first = NULL;
    all->last = &all->first;
    for (struct few_frame *next; f != NULL; f = next) {
        next = f->next;
        struct few_node *to = &all->at[f->to];
        if (to->r != NULL && is_open(&all->at[f->from], to))
            assert_true(replica_receive(to->r, all->at[f->from].id, buf_span(&f->bytes)));
        buf_free(&f->bytes);
        free(f);
    }
}

static void act(struct few_node *n) {
    if (n->r == NULL) return;
    run_one(&n->log);
    run_one(&n->side);
    if (n->turn) {
        n->turn = false;
        replica_turn(n->r);
    }
    if (n->armed_ms == 0 || n->armed_ms > n->all->now_ms) return;
    n->armed_ms = 0;
    replica_tick(n->r);
}

void few_step(struct few *all) {
    all->now_ms++;
    deliver(all);
    for (unsigned i = 0; i < all->n; i++)
        act(&all->at[i]);
}

bool few_until(struct few *all, uint64_t ms, bool (*holds)(void *ctx), void *ctx) {
    for (uint64_t until = all->now_ms + ms; all->now_ms < until && !holds(ctx);)
        few_step(all);
    return holds(ctx);
}

void few_pass(struct few *all, uint64_t ms) {
    for (uint64_t until = all->now_ms + ms; all->now_ms < until;)
        few_step(all);
}

/* ---- links ---- */

void few_link(struct few_node *from, struct few_node *to, bool closed) {
    if (from == to) return;
    from->all->closed[slot_of(from)][slot_of(to)] = closed;
    if (!closed && from->r != NULL && to->r != NULL) replica_connected(from->r, to->id);
}

void few_part(struct few_node *n, bool closed) {
    for (unsigned i = 0; i < n->all->n; i++) {
        few_link(n, &n->all->at[i], closed);
        few_link(&n->all->at[i], n, closed);
    }
}

static bool is_apart(const struct few_node *n) {
    for (unsigned i = 0; i < n->all->n; i++)
        if (i != slot_of(n) && is_open(n, &n->all->at[i])) return false;
    return n->all->n > 1;
}

static struct few_node *leader_of(struct few *all) {
    for (unsigned i = 0; i < all->n; i++)
        if (all->at[i].r != NULL && !is_apart(&all->at[i]) && few_status(&all->at[i]).leading)
            return &all->at[i];
    return NULL;
}

static bool has_leader(void *ctx) {
    struct few_node *n = leader_of(ctx);
    return n != NULL && few_status(n).applied == few_status(n).last;
}

struct few_node *few_leader(struct few *all) {
    assert_true(few_until(all, WAIT_MS, has_leader, all));
    return leader_of(all);
}

/* ---- requests ---- */

static void on_written(struct proposal *p, enum err e, uint64_t index, struct span result) {
    struct few_write *w = p->ctx;
    (void)index;
    (void)result;
    w->done = true;
    w->error = e;
}

void few_write(struct few_node *n, struct few_write *w, size_t size) {
    uint8_t *value = calloc(1, size + 1);
    assert_non_null(value);
    struct command c = {.op = OP_PUT};
    c.put.key = span_str("key");
    c.put.value = span_of(value, size);
    c.put.must_not_exist = true;
    *w = (struct few_write){.bytes = buf_new(COMMAND_MAX)};
    assert_int_equal(command_encode(&c, &w->bytes), OK);
    free(value);
    w->p = (struct proposal){.command = buf_span(&w->bytes), .done = on_written, .ctx = w};
    assert_int_equal(replica_propose(n->r, &w->p), OK);
}

static bool is_set(void *ctx) { return *(bool *)ctx; }

enum err few_put(struct few_node *n, size_t size) {
    struct few_write w;
    few_write(n, &w, size);
    assert_true(few_until(n->all, WAIT_MS, is_set, &w.done));
    buf_free(&w.bytes);
    return w.error;
}

struct asked {
    bool done;
    enum err error;
};

static void on_read(struct read *rd, enum err e) {
    *(struct asked *)rd->ctx = (struct asked){.done = true, .error = e};
}

enum err few_read(struct few_node *n) {
    struct asked a = {0};
    struct read rd = {.done = on_read, .ctx = &a};
    assert_int_equal(replica_read(n->r, &rd), OK);
    assert_true(few_until(n->all, WAIT_MS, is_set, &a.done));
    return a.error;
}

static void on_snapshot(void *ctx, enum err e, uint64_t index) {
    (void)index;
    *(struct asked *)ctx = (struct asked){.done = true, .error = e};
}

enum err few_snapshot(struct few_node *n) {
    struct asked a = {0};
    replica_snapshot(n->r, on_snapshot, &a);
    return few_until(n->all, WAIT_MS, is_set, &a.done) ? a.error : ERR_TIMEOUT;
}

static void on_changed(struct change *c, enum err e, const char *text) {
    if (e != OK) fail_msg("%s", text);
    *(bool *)c->ctx = true;
}

void few_change(struct few_node *leader, enum change_kind kind, uint64_t id) {
    bool done = false;
    struct why why = {0};
    struct change c = {.kind = kind, .raft_id = id, .done = on_changed, .ctx = &done};
    if (replica_change(leader->r, &c, &why) != OK) fail_msg("%s", why.text);
    assert_true(few_until(leader->all, WAIT_MS, is_set, &done));
}

static bool is_voter(void *ctx) {
    struct few_node *n = ctx;
    struct replica_status s = few_status(n);
    for (unsigned i = 0; i < s.n; i++)
        if (s.members[i].raft_id == n->id && s.members[i].role == REPLICA_VOTER)
            return s.applied == s.last;
    return false;
}

struct few_node *few_join(struct few *all, uint64_t id) {
    struct few_node *leader = few_leader(all), *n = add(all, id);
    few_open(n);
    few_change(leader, CHANGE_ADD, id);
    assert_true(few_until(all, WAIT_MS, is_voter, n));
    return n;
}
