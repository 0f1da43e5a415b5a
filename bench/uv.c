/* The yardstick: the same load through libraft's own libuv driver (raft/uv.h), as it comes, without
 * encryption on the disk or the wire. One thread and one loop a member; the writer lives on the
 * leader's loop and keeps its window full. */
#include <raft.h>
#include <raft/uv.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <uv.h>

#include "bench/bench.h"

#define BASE_PORT 19300
#define LOOK_MS   5

struct uv_node {
    struct bench_run *run;
    unsigned id; /* 1.. */
    char dir[320], address[32];
    uv_loop_t loop;
    uv_timer_t timer;
    struct raft_uv_transport transport;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    unsigned under_way;
    bool closing;
    uv_thread_t thread;
};

struct write_request {
    struct raft_apply apply; /* libraft's; data: the node */
    uint64_t began_ns;
};

static int fsm_apply(struct raft_fsm *f, const struct raft_buffer *buf, void **result) {
    (void)f;
    (void)buf;
    *result = NULL;
    return 0;
}

static int fsm_snapshot(struct raft_fsm *f, struct raft_buffer *bufs[], unsigned *n) {
    (void)f;
    *n = 1;
    *bufs = raft_malloc(sizeof **bufs);
    if (*bufs == NULL) return RAFT_NOMEM;
    (*bufs)[0].len = 8;
    (*bufs)[0].base = raft_calloc(1, 8);
    return (*bufs)[0].base == NULL ? RAFT_NOMEM : 0;
}

static int fsm_restore(struct raft_fsm *f, struct raft_buffer *buf) {
    (void)f;
    raft_free(buf->base);
    return 0;
}

static void submit(struct uv_node *n);

static void applied(struct raft_apply *req, int status, void *result) {
    struct write_request *w = (struct write_request *)req;
    struct uv_node *n = req->data;
    (void)result;
    n->under_way--;
    if (status == 0) bench_run_written(n->run, w->began_ns);
    free(w);
    if (status == 0 && n->run->phase != PHASE_OVER) submit(n);
}

static void submit(struct uv_node *n) {
    struct raft_buffer buf = {.len = n->run->c->size};
    struct write_request *w = calloc(1, sizeof *w);
    buf.base = raft_malloc(buf.len);
    if (w == NULL || buf.base == NULL) abort();
    memset(buf.base, 'x', buf.len);
    w->apply.data = n;
    w->began_ns = bench_now_ns();
    if (raft_apply(&n->raft, &w->apply, &buf, 1, applied) != 0) {
        raft_free(buf.base);
        free(w);
        return;
    }
    n->under_way++;
    /* cppcheck-suppress memleak ; it is in applied() that it ends */
}

static void raft_closed(struct raft *r) {
    struct uv_node *n = r->data;
    raft_uv_close(&n->io);
    raft_uv_tcp_close(&n->transport);
    uv_close((uv_handle_t *)&n->timer, NULL);
}

static void look(uv_timer_t *t) {
    struct uv_node *n = t->data;
    if (n->run->phase == PHASE_OVER) {
        if (!n->closing) raft_close(&n->raft, raft_closed);
        n->closing = true;
        (void)uv_timer_stop(t);
        return;
    }
    if (raft_state(&n->raft) != RAFT_LEADER) return;
    n->run->ready = 1;
    while (n->under_way < n->run->c->window) {
        unsigned before = n->under_way;
        submit(n);
        if (n->under_way == before) break;
    }
}

static int bootstrap(struct uv_node *n) {
    struct raft_configuration conf;
    int rv = 0;
    raft_configuration_init(&conf);
    for (unsigned i = 1; rv == 0 && i <= n->run->c->nodes; i++) {
        char address[32];
        (void)snprintf(address, sizeof address, "127.0.0.1:%u", BASE_PORT + i);
        rv = raft_configuration_add(&conf, i, address, RAFT_VOTER);
    }
    if (rv == 0) rv = raft_bootstrap(&n->raft, &conf);
    raft_configuration_close(&conf);
    return rv;
}

static void member(void *arg) {
    struct uv_node *n = arg;
    (void)uv_loop_init(&n->loop);
    n->timer.data = n;
    (void)uv_timer_init(&n->loop, &n->timer);
    n->transport.version = 1;
    n->transport.data = NULL;
    n->fsm = (struct raft_fsm){
        .version = 1, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
    int rv = raft_uv_tcp_init(&n->transport, &n->loop);
    if (rv == 0) rv = raft_uv_init(&n->io, &n->loop, n->dir, &n->transport);
    if (rv == 0) rv = raft_init(&n->raft, &n->io, &n->fsm, n->id, n->address);
    n->raft.data = n;
    n->raft.tracer = NULL;
    if (rv == 0) rv = bootstrap(n);
    if (rv == 0) rv = raft_start(&n->raft);
    if (rv != 0) {
        fprintf(stderr, "conclave-bench: libraft uv: %s: %s\n", raft_strerror(rv),
                raft_errmsg(&n->raft));
        n->run->failed = ERR_IO;
        return;
    }
    (void)uv_timer_start(&n->timer, look, LOOK_MS, LOOK_MS);
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&n->loop);
}

RESULT bench_uv(const struct bench_case *c, struct bench_figures *out) {
    struct bench_run run = {.c = c};
    struct uv_node *nodes = calloc(c->nodes, sizeof *nodes);
    if (nodes == NULL) return ERR_NOMEM;
    for (unsigned i = 0; i < c->nodes; i++) {
        struct uv_node *n = &nodes[i];
        n->run = &run;
        n->id = i + 1;
        (void)snprintf(n->dir, sizeof n->dir, "%s/uv%u", c->dirs[n->id - 1], n->id);
        (void)snprintf(n->address, sizeof n->address, "127.0.0.1:%u", BASE_PORT + n->id);
        if (mkdir(n->dir, 0700) != 0 || uv_thread_create(&n->thread, member, n) != 0) abort();
    }
    bench_run_measure(&run, out);
    for (unsigned i = 0; i < c->nodes; i++) {
        (void)uv_thread_join(&nodes[i].thread);
        bench_remove(nodes[i].dir);
    }
    bench_run_latencies(&run, out);
    free(nodes);
    return (enum err)run.failed;
}
