/* The load through Conclave as it is run: real managers, each on a thread and a loop of its own,
 * joined by token, TLS 1.3 between them, logs sealed. The writer lives on the leader's loop and
 * keeps its window full with puts of its own keys; a write ends when its command is applied.
 *
 * Phases: founding -> joining -> (all vote) warm-up -> measured -> over. The main thread only moves
 * them on. */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "api/manager.h"
#include "bench/bench.h"

#define BASE_PORT   19400
#define LOOK_MS     5
#define KEYS        10000 /* the writer goes round these */
#define READY_TRIES 3000  /* of 10 ms: until all vote */

struct founding { /* what the others need of member 1 */
    struct bench_run run;
    _Atomic int founded; /* member 1 runs; `token` and `peer` are there */
    char token[JOIN_TOKEN_TEXT];
    char peer[ADDRESS_MAX]; /* where member 1 takes newcomers */
};

struct slot {           /* one write of the window */
    struct write write; /* the manager's */
    struct bench_node *node;
    uint64_t began_ns;
    bool under_way;
};

struct bench_node {
    struct founding *all;
    struct bench_run *run; /* of `all` */
    unsigned id;           /* 1.. */
    uv_loop_t loop;
    uv_timer_t timer;
    uv_thread_t thread;
    struct log log;
    char dir[320]; /* its data */
    struct manager *manager;
    struct slot *slots; /* window of them */
    uint8_t *value;     /* c->size bytes */
    uint64_t next_key;
    bool joining, closing;
};

static void start_write(struct slot *s);

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct slot *s = w->ctx;
    struct bench_run *run = s->node->run;
    (void)text;
    (void)r;
    s->under_way = false;
    if (e == OK) bench_run_written(run, s->began_ns);
    if (e == OK && run->phase < PHASE_OVER) start_write(s);
}

static void start_write(struct slot *s) {
    struct bench_node *n = s->node;
    char key[32];
    (void)snprintf(key, sizeof key, "bench/%08llu", (unsigned long long)(n->next_key++ % KEYS));
    struct command c = {.op = OP_PUT,
                        .put = {.key = span_str(key), .value = span_of(n->value, n->run->c->size)}};
    s->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = s};
    s->began_ns = bench_now_ns();
    if (command_encode(&c, &s->write.command) != OK) return;
    s->under_way = manager_write(n->manager, &s->write) == OK;
}

static void give_up(struct bench_node *n, enum err e, const char *text) {
    fprintf(stderr, "conclave-bench: member %u: %s\n", n->id, text);
    n->run->failed = (int)e;
}

static void on_founded(void *ctx, enum err e, const char *text) {
    struct bench_node *n = ctx;
    if (e != OK) {
        give_up(n, e, text);
        return;
    }
    (void)snprintf(n->all->peer, ADDRESS_MAX, "%s", peers_address(n->manager->peers));
    n->all->founded = 1;
}

static void on_joined(void *ctx, enum err e, const char *text) {
    if (e != OK) give_up(ctx, e, text);
}

static void on_changed(void *ctx) { (void)ctx; }
static void on_failed(void *ctx, enum err e, const char *text) { give_up(ctx, e, text); }

static bool all_vote(struct bench_node *n) {
    struct replica_status status;
    if (n->manager->replica == NULL) return false;
    replica_status(n->manager->replica, &status);
    if (!status.leading || status.n != n->run->c->nodes) return false;
    for (unsigned i = 0; i < status.n; i++)
        if (status.members[i].role != REPLICA_VOTER) return false;
    return true;
}

static void on_closed(void *ctx) {
    struct bench_node *n = ctx;
    uv_close((uv_handle_t *)&n->timer, NULL);
}

static void look(uv_timer_t *timer) {
    struct bench_node *n = timer->data;
    struct bench_run *run = n->run;
    struct why why = {0};
    if (run->phase == PHASE_OVER || run->failed != OK) {
        if (!n->closing) manager_close(n->manager, on_closed, n);
        n->closing = true;
        (void)uv_timer_stop(timer);
        return;
    }
    if (n->id > 1 && n->all->founded && !n->joining) {
        n->joining = true;
        enum err e = manager_join(n->manager, n->all->peer, n->all->token, on_joined, n, &why);
        if (e != OK) give_up(n, e, why.text);
    }
    if (!all_vote(n)) return;
    run->ready = 1;
    if (run->phase == PHASE_READY) return;
    for (unsigned i = 0; i < run->c->window; i++)
        if (!n->slots[i].under_way) start_write(&n->slots[i]);
}

static RESULT open_manager(struct bench_node *n, struct why *why) {
    (void)snprintf(n->dir, sizeof n->dir, "%s/m%u", n->run->c->dirs[n->id - 1], n->id);
    struct manager_config config = {.loop = &n->loop,
                                    .log = &n->log,
                                    .data = n->dir,
                                    .null_cipher = n->run->c->null_cipher,
                                    .ctx = n,
                                    .changed = on_changed,
                                    .failed = on_failed};
    (void)snprintf(config.client, sizeof config.client, "127.0.0.1:%u", BASE_PORT + n->id);
    (void)snprintf(config.peer, sizeof config.peer, "127.0.0.1:%u", BASE_PORT + 100 + n->id);
    (void)snprintf(config.name, sizeof config.name, "m%u", n->id);
    TRY(manager_new(&config, &n->manager, why));
    TRY(manager_open(n->manager, why));
    if (n->id != 1) return OK;
    TRY(manager_init(n->manager, false, on_founded, n, why));
    const struct node_identity *self = &n->manager->self;
    return token_format(buf_span(&self->root_pem), self->token, n->all->token);
}

static void member(void *arg) {
    struct bench_node *n = arg;
    struct why why = {0};
    (void)uv_loop_init(&n->loop);
    n->timer.data = n;
    (void)uv_timer_init(&n->loop, &n->timer);
    enum err e = open_manager(n, &why);
    if (e != OK) {
        give_up(n, e, why.text);
        return;
    }
    (void)uv_timer_start(&n->timer, look, LOOK_MS, LOOK_MS);
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&n->loop);
}

static void start(struct bench_node *n, struct founding *all, unsigned id) {
    struct bench_run *run = &all->run;
    n->all = all;
    n->run = run;
    n->id = id;
    n->slots = calloc(run->c->window, sizeof *n->slots);
    n->value = malloc(run->c->size);
    if (n->slots == NULL || n->value == NULL) abort();
    memset(n->value, 'x', run->c->size);
    for (unsigned i = 0; i < run->c->window; i++)
        n->slots[i].node = n;
    log_open(&n->log, 2, LOG_ERROR);
    if (uv_thread_create(&n->thread, member, n) != 0) abort();
}

RESULT bench_conclave(const struct bench_case *c, struct bench_figures *out) {
    struct founding all = {.run.c = c};
    struct bench_node *nodes = calloc(c->nodes, sizeof *nodes);
    if (nodes == NULL) return ERR_NOMEM;
    seal_allow_null(c->null_cipher);
    for (unsigned i = 0; i < c->nodes; i++)
        start(&nodes[i], &all, i + 1);
    bench_run_measure(&all.run, out);
    for (unsigned i = 0; i < c->nodes; i++) {
        (void)uv_thread_join(&nodes[i].thread);
        free(nodes[i].slots);
        free(nodes[i].value);
    }
    bench_run_latencies(&all.run, out);
    free(nodes);
    return (enum err)all.run.failed;
}
