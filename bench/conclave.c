/* The load through Conclave as it is run: real managers, each on a thread and a loop of its own,
 * joined by token, TLS 1.3 between them, logs sealed. The writer lives on the leader's loop and
 * keeps its window full with puts of its own keys; a write ends when its command is applied.
 *
 * Phases: founding -> joining -> (all vote) warm-up -> measured -> over. The main thread only moves
 * them on. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <uv.h>

#include "api/manager.h"
#include "bench/bench.h"

#define BASE_PORT   19400
#define LOOK_MS     5
#define KEYS        10000 /* the writer goes round these */
#define READY_TRIES 3000  /* of 10 ms: until all vote */

enum phase { PHASE_READY, PHASE_WARM, PHASE_MEASURED, PHASE_OVER };

struct run { /* shared by the members */
    const struct bench_case *c;
    _Atomic int phase;     /* enum phase */
    _Atomic int ready;     /* all members vote and one leads */
    _Atomic int failed;    /* enum err of a member */
    _Atomic uint64_t done; /* writes, while measured */
    _Atomic int founded;   /* member 1 runs; `token` and `peer` are there */
    char token[JOIN_TOKEN_TEXT];
    char peer[ADDRESS_MAX]; /* where member 1 takes newcomers */
    struct latency latency; /* the leader's thread only */
};

struct slot {           /* one write of the window */
    struct write write; /* the manager's */
    struct bench_node *node;
    uint64_t began_ns;
    bool under_way;
};

struct bench_node {
    struct run *run;
    unsigned id; /* 1.. */
    uv_loop_t loop;
    uv_timer_t timer;
    uv_thread_t thread;
    struct log log;
    struct manager *manager;
    struct slot *slots; /* window of them */
    uint8_t *value;     /* c->size bytes */
    uint64_t next_key;
    bool joining, closing;
};

static void start_write(struct slot *s);

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct slot *s = w->ctx;
    struct run *run = s->node->run;
    (void)text;
    (void)r;
    s->under_way = false;
    if (e == OK && run->phase == PHASE_MEASURED) {
        latency_add(&run->latency, bench_now_ns() - s->began_ns);
        run->done++;
    }
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
    (void)snprintf(n->run->peer, ADDRESS_MAX, "%s", peers_address(n->manager->peers));
    n->run->founded = 1;
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
    struct run *run = n->run;
    struct why why = {0};
    if (run->phase == PHASE_OVER || run->failed != OK) {
        if (!n->closing) manager_close(n->manager, on_closed, n);
        n->closing = true;
        (void)uv_timer_stop(timer);
        return;
    }
    if (n->id > 1 && run->founded && !n->joining) {
        n->joining = true;
        enum err e = manager_join(n->manager, run->peer, run->token, on_joined, n, &why);
        if (e != OK) give_up(n, e, why.text);
    }
    if (!all_vote(n)) return;
    run->ready = 1;
    if (run->phase == PHASE_READY) return;
    for (unsigned i = 0; i < run->c->window; i++)
        if (!n->slots[i].under_way) start_write(&n->slots[i]);
}

static RESULT open_manager(struct bench_node *n, struct why *why) {
    char dir[320];
    (void)snprintf(dir, sizeof dir, "%s/m%u", n->run->c->dir, n->id);
    struct manager_config config = {.loop = &n->loop,
                                    .log = &n->log,
                                    .data = dir,
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
    return token_format(buf_span(&self->root_pem), self->token, n->run->token);
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

static void pause_s(double s) {
    struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    (void)nanosleep(&t, NULL);
}

static void measure(struct run *run, struct bench_figures *out) {
    for (int i = 0; i < READY_TRIES && !run->ready && !run->failed; i++)
        pause_s(0.01);
    if (!run->ready && !run->failed) run->failed = ERR_TIMEOUT;
    run->phase = PHASE_WARM;
    pause_s(run->c->seconds / 5);
    double cpu = bench_cpu_s();
    uint64_t began = bench_now_ns();
    run->phase = PHASE_MEASURED;
    pause_s(run->c->seconds);
    run->phase = PHASE_OVER;
    double took = (double)(bench_now_ns() - began) / 1e9;
    double writes = (double)run->done;
    out->per_s = writes / took;
    out->cpu_us = (bench_cpu_s() - cpu) * 1e6 / (writes < 1 ? 1 : writes);
}

static void start(struct bench_node *n, struct run *run, unsigned id) {
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
    struct run run = {.c = c};
    struct bench_node *nodes = calloc(c->nodes, sizeof *nodes);
    if (nodes == NULL) return ERR_NOMEM;
    seal_allow_null(c->null_cipher);
    for (unsigned i = 0; i < c->nodes; i++)
        start(&nodes[i], &run, i + 1);
    measure(&run, out);
    for (unsigned i = 0; i < c->nodes; i++) {
        (void)uv_thread_join(&nodes[i].thread);
        free(nodes[i].slots);
        free(nodes[i].value);
    }
    out->p50_us = latency_us(&run.latency, 0.5);
    out->p99_us = latency_us(&run.latency, 0.99);
    out->p999_us = latency_us(&run.latency, 0.999);
    free(nodes);
    return (enum err)run.failed;
}
