/* Secrets on their way to nodes: one real manager, a process of its own with its disk directory,
 * and as many nodes as asked for, simulated by real sessions over TLS from here: each joins by a
 * token, holds its session, takes what it is told and says that its tasks run. Secrets and services
 * are made, and values changed, through the manager's own API.
 *
 * Two loads, each a series of changes, one after another: a secret of one service (its tasks are on
 * a few nodes), and a secret that every node has. A value begins with the number of its change; the
 * time to each node is from the acknowledgement of the change, so it is below the line (0) where a
 * node has the value before its operator has the answer; beside it, from the request. Bytes are
 * those of the frames on the sessions, without TLS's own.
 *
 * Threads: the main one has the nodes' loop; one does the script; joins and requests in numbers are
 * done by some more, which it starts and awaits. */
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "api/client.h"
#include "api/json.h"
#include "api/node/identity.h"
#include "api/node/node_wire.h"
#include "api/service/assign_wire.h"
#include "bench/bench.h"
#include "bench/server.h"
#include "raft/peer.h"

#define ARRIVAL_MS    20000 /* for anything that must come */
#define ASK_MS        20000
#define WORKERS       16 /* threads for joins and requests */
#define NODES_LIMIT   1000
#define VALUE_SIZE    64
#define PER_SERVICE   10 /* secrets of a service, where there are so many */
#define REPLICAS      2
#define CHANGES_MAX   10000
#define FRAME_EXTRA   10 /* bytes of a frame beside its body */
#define SHARED_SECRET "shared"
#define LOOK_MS       5
#define DIALED        64 /* nodes whose sessions are being opened */

struct options {
    const char *dir; /* for the data */
    uint64_t secrets, nodes, services;
    uint64_t changes; /* of each load */
};

/* A simulated node. */
struct bench_peer {
    struct world *w;
    char id[NODE_ID_SIZE + 1];
    struct secret *key;
    struct buf cert, root;
    struct uplink *uplink;
    uint64_t beat; /* sequence */
};

/* One change: when it was asked for, when it was acknowledged, and its latest arrivals. */
struct change_times {
    uint64_t asked_ns;
    _Atomic uint64_t acknowledged_ns;
    _Atomic unsigned arrived;
    uint64_t *at_ns; /* of each arrival, NODES_LIMIT of them; written by the loop */
};

struct world {
    const struct options *o;
    struct bench_server server;
    char digest[ROOT_DIGEST_TEXT];
    char secret[TOKEN_SECRET_SIZE + 1]; /* of the workers' token */
    char cluster_id[CLUSTER_ID_SIZE + 1];
    struct bench_peer *peers;
    uv_loop_t loop;
    uv_timer_t timer;
    _Atomic bool connect, over; /* what the loop is to do */
    uint64_t connected;         /* nodes that have dialed */
    unsigned freed;
    _Atomic unsigned complete, closed; /* sessions that were told all; that have ended */
    _Atomic unsigned tasks;            /* told to run */
    _Atomic uint64_t bytes;            /* frames to the nodes so far */
    _Atomic unsigned change;           /* under way, from 1 */
    struct change_times now;           /* of it */
    _Atomic int failed;                /* enum err of the first failure */
    struct why why;                    /* of it */
    pthread_mutex_t lock;              /* of why */
};

static void fail(struct world *w, enum err e, const char *text) {
    (void)pthread_mutex_lock(&w->lock);
    if (w->failed == OK)
        (void)snprintf(w->why.text, sizeof w->why.text, "%s", text[0] ? text : err_text(e));
    if (w->failed == OK) w->failed = (int)e;
    (void)pthread_mutex_unlock(&w->lock);
}

static RESULT start(struct world *w) {
    const char *const init[] = {"--init", NULL};
    TRY(bench_server_prepare(&w->server, w->o->dir));
    return bench_server_conclave(&w->server, "bench", init);
}

static double resident_mib(const struct world *w) {
    return (double)bench_server_memory_kib(&w->server) / 1024;
}

/* --- its API ---------------------------------------------------------------------------------- */

static RESULT open_api(const struct world *w, struct client **out, struct why *why) {
    const struct client_config config = {.socket_path = w->server.socket};
    return client_open(&config, out, why);
}

static RESULT call(struct client *c, enum http_method method, const char *path, struct span body,
                   json_t **out, struct why *why) {
    struct buf answer = buf_new(4 * MIB);
    struct client_request request = {.method = method,
                                     .path = path,
                                     .headers = "Content-Type: application/json\r\n",
                                     .body = body,
                                     .timeout_ms = ASK_MS};
    enum err e = client_call(c, &request, &answer, why);
    if (e == OK && out) e = jin_parse(buf_span(&answer), out, why);
    buf_free(&answer);
    return e;
}

/* --- many at once ----------------------------------------------------------------------------- */

typedef RESULT work(struct world *w, struct client *c, uint64_t i, struct why *why);

struct crew {
    struct world *w;
    work *work;
    uint64_t n;
    _Atomic uint64_t next;
};

/* The manager was busy: asked again. */
static bool passes(enum err e) {
    return e == ERR_BUSY || e == ERR_TIMEOUT || e == ERR_MAYBE_APPLIED || e == ERR_NO_LEADER;
}

static void *run_worker(void *ctx) {
    struct crew *crew = ctx;
    struct world *w = crew->w;
    struct client *c = NULL;
    struct why why = {0};
    enum err e = open_api(w, &c, &why);
    for (uint64_t i = crew->next++; e == OK && i < crew->n && w->failed == OK; i = crew->next++)
        do
            e = crew->work(w, c, i, &why);
        while (passes(e) && w->failed == OK);
    if (e != OK) fail(w, e, why.text);
    client_close(c);
    return NULL;
}

static RESULT each(struct world *w, uint64_t n, work *work_one, const char *text) {
    struct crew crew = {.w = w, .work = work_one, .n = n};
    pthread_t threads[WORKERS];
    unsigned started = 0;
    uint64_t began = bench_now_ns();
    for (; started < WORKERS; started++)
        if (pthread_create(&threads[started], NULL, run_worker, &crew) != 0) break;
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    double took = (double)(bench_now_ns() - began) / 1e9;
    if (w->failed == OK)
        (void)printf("%-40s %8llu in %6.1f s  %7.0f/s  manager %6.1f MiB\n", text,
                     (unsigned long long)n, took, (double)n / took, resident_mib(w));
    (void)fflush(stdout);
    return started > 0 ? (enum err)w->failed : ERR_NOMEM;
}

static RESULT join_one(struct world *w, struct client *c, uint64_t i, struct why *why) {
    struct bench_peer *p = &w->peers[i];
    struct buf csr = buf_new(PEM_MAX), memory = buf_new(FRAME_MAX);
    struct join_credentials known = {0};
    struct wire_join request = {.kind = JOIN_TOKEN};
    struct wire_joined joined;
    (void)c;
    (void)known;
    secret_free(p->key);
    p->key = NULL;
    enum err e = x509_key_new(&p->key, why);
    if (e == OK) e = x509_request(p->key, "bench", &csr, why);
    request.request = buf_span(&csr);
    (void)snprintf(request.name, sizeof request.name, "w%llu", (unsigned long long)i);
    (void)snprintf(request.hostname, sizeof request.hostname, "%s", request.name);
    (void)snprintf(request.client_address, ADDRESS_MAX, "127.0.0.1:2379");
    (void)snprintf(request.peer_address, ADDRESS_MAX, "127.0.0.1:2377");
    memcpy(request.token, w->secret, sizeof w->secret);
    if (e == OK)
        e = join_request(w->server.peer, w->digest, NULL, &request, ASK_MS, &memory, &joined, why);
    if (e == OK) e = buf_add_span(&p->cert, joined.cert);
    if (e == OK) e = buf_add_span(&p->root, joined.root);
    if (e == OK) memcpy(p->id, joined.node_id, sizeof p->id);
    if (e == OK && i == 0) memcpy(w->cluster_id, joined.cluster_id, sizeof w->cluster_id);
    buf_free(&csr);
    buf_wipe(&memory);
    return e;
}

static void put_value(struct jout *j, unsigned change) {
    char value[VALUE_SIZE];
    memset(value, '.', sizeof value);
    (void)snprintf(value, sizeof value, "%u ", change);
    jout_key(j, "value");
    jout_base64(j, span_of(value, sizeof value));
}

static void name_of(uint64_t secret, char out[32]) {
    (void)snprintf(out, 32, "s%06llu", (unsigned long long)secret);
}

static RESULT create_secret(struct client *c, const char *name, struct why *why) {
    struct buf body = buf_new(4 * KIB);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_put_text(&j, "name", name);
    put_value(&j, 0);
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    if (e == OK) e = call(c, HTTP_POST, "/conclave/v1/secrets/create", buf_span(&body), NULL, why);
    buf_free(&body);
    return e == ERR_EXISTS ? OK : e;
}

static RESULT secret_one(struct world *w, struct client *c, uint64_t i, struct why *why) {
    char name[32];
    (void)w;
    name_of(i, name);
    return create_secret(c, name, why);
}

static RESULT change_secret(struct client *c, const char *name, unsigned change, struct why *why) {
    struct buf body = buf_new(4 * KIB);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_put_text(&j, "secret", name);
    put_value(&j, change);
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    if (e == OK) e = call(c, HTTP_POST, "/conclave/v1/secrets/put", buf_span(&body), NULL, why);
    buf_free(&body);
    return e;
}

/* --- services --------------------------------------------------------------------------------- */

static uint64_t per_service(const struct world *w) {
    uint64_t n = w->o->secrets / w->o->services;
    return n < 1 ? 1 : n > PER_SERVICE ? PER_SERVICE : n;
}

static void put_secret(struct jout *j, const char *name) {
    jout_open(j, '{');
    jout_put_text(j, "SecretName", name);
    jout_key(j, "File");
    jout_open(j, '{');
    jout_put_text(j, "Name", name);
    jout_put_text(j, "UID", "0");
    jout_put_text(j, "GID", "0");
    jout_put_number(j, "Mode", 292);
    jout_close(j, '}');
    jout_close(j, '}');
}

/* On workers only: the manager would really run it. */
static void put_template(struct jout *j, const char *name, uint64_t first, uint64_t n) {
    char secret[32];
    jout_key(j, "TaskTemplate");
    jout_open(j, '{');
    jout_key(j, "Placement");
    jout_open(j, '{');
    jout_key(j, "Constraints");
    jout_open(j, '[');
    jout_text(j, span_str("node.role==worker"));
    jout_close(j, ']');
    jout_close(j, '}');
    jout_key(j, "ContainerSpec");
    jout_open(j, '{');
    jout_put_text(j, "Image", "host");
    jout_key(j, "Command");
    jout_open(j, '[');
    jout_text(j, span_str("/bin/true"));
    jout_close(j, ']');
    jout_key(j, "Secrets");
    jout_open(j, '[');
    if (n == 0) put_secret(j, name);
    for (uint64_t i = 0; i < n; i++) {
        name_of(first + i, secret);
        put_secret(j, secret);
    }
    jout_close(j, ']');
    jout_close(j, '}');
    jout_close(j, '}');
}

static void put_mode(struct jout *j, bool global) {
    jout_key(j, "Mode");
    jout_open(j, '{');
    jout_key(j, global ? "Global" : "Replicated");
    jout_open(j, '{');
    if (!global) jout_put_number(j, "Replicas", REPLICAS);
    jout_close(j, '}');
    jout_close(j, '}');
}

/* n 0: of one secret, called as the service, on every node. */
static RESULT create_service(struct client *c, const char *name, uint64_t first, uint64_t n,
                             struct why *why) {
    struct buf body = buf_new(64 * KIB);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_key(&j, "spec");
    jout_open(&j, '{');
    jout_put_text(&j, "Name", name);
    put_template(&j, name, first, n);
    put_mode(&j, n == 0);
    jout_close(&j, '}');
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    if (e == OK) e = call(c, HTTP_POST, "/conclave/v1/services/create", buf_span(&body), NULL, why);
    buf_free(&body);
    return e == ERR_EXISTS ? OK : e;
}

static RESULT service_one(struct world *w, struct client *c, uint64_t i, struct why *why) {
    char name[32];
    uint64_t n = per_service(w);
    (void)snprintf(name, sizeof name, "service%llu", (unsigned long long)i);
    return create_service(c, name, i * n % (w->o->secrets - n + 1), n, why);
}

/* --- the nodes' side -------------------------------------------------------------------------- */

static void arrive(struct world *w, struct span value) {
    uint64_t now = bench_now_ns();
    char text[16] = "";
    memcpy(text, value.at, value.size < sizeof text ? value.size : sizeof text - 1);
    unsigned change = (unsigned)strtoul(text, NULL, 10);
    if (change == 0 || change != w->change) return;
    unsigned n = w->now.arrived;
    if (n < NODES_LIMIT) w->now.at_ns[n] = now;
    w->now.arrived = n + 1;
}

static void report(struct bench_peer *p, const struct assign_task *t) {
    struct task_report r = {.pid = 1};
    struct buf body = buf_new(SESSION_BODY_MAX);
    r.state = t->desired == TASK_RUNNING ? TASK_RUNNING : TASK_SHUTDOWN;
    memcpy(r.id, t->id, sizeof r.id);
    (void)snprintf(r.message, sizeof r.message, "bench");
    if (report_add(&body, &r) == OK) uplink_say(p->uplink, NODE_TASKS, buf_span(&body));
    buf_free(&body);
    p->w->tasks++;
}

static RESULT take(struct bench_peer *p, struct span body) {
    static struct assign_task task; /* the loop's alone */
    struct cursor in = cursor_of(body);
    struct assign_head head;
    struct assign_one one;
    bool more = true;
    TRY(assign_head(&in, &head));
    while (more) {
        TRY(assign_next(&in, &task, &one, &more));
        if (!more) break;
        if (one.item == ASSIGN_VALUE) arrive(p->w, one.value.bytes);
        if (one.item == ASSIGN_TASK && p->w->change == 0) report(p, one.task);
    }
    if (head.type == ASSIGN_COMPLETE && head.last) p->w->complete++;
    return OK;
}

static RESULT on_message(void *ctx, struct uplink *u, uint8_t kind, struct span body,
                         struct why *why) {
    struct bench_peer *p = ctx;
    (void)u;
    if (kind != NODE_ASSIGN) return OK;
    p->w->bytes += body.size + FRAME_EXTRA;
    enum err e = take(p, body);
    return e == OK ? OK : fail_with(why, e, "an assignment that can't be read");
}

static void on_opened(void *ctx, struct uplink *u) {
    const struct bench_peer *p = ctx;
    struct node_hello hello = {0};
    struct buf body = buf_new(SESSION_BODY_MAX);
    (void)snprintf(hello.hostname, sizeof hello.hostname, "%.20s", p->id);
    (void)snprintf(hello.os, sizeof hello.os, "linux");
    if (node_hello_encode(&hello, &body) == OK) uplink_say(u, NODE_HELLO, buf_span(&body));
    buf_free(&body);
}

static void on_closed(void *ctx, struct uplink *u, enum err e, const char *text) {
    struct bench_peer *p = ctx;
    (void)u;
    p->w->closed++;
    if (!p->w->over) fail(p->w, e, text);
}

static void on_freed(void *ctx) { ((struct world *)ctx)->freed++; }

static void connect_one(struct world *w, struct bench_peer *p) {
    struct why why = {0};
    struct uplink_config c = {.loop = &w->loop,
                              .ctx = p,
                              .root_pem = buf_span(&p->root),
                              .cert_pem = buf_span(&p->cert),
                              .key_pem = p->key,
                              .opened = on_opened,
                              .message = on_message,
                              .closed = on_closed,
                              .handshake_ms = BENCH_READY_MS};
    memcpy(c.address, w->server.peer, sizeof c.address);
    memcpy(c.cluster_id, w->cluster_id, sizeof c.cluster_id);
    enum err e = uplink_open(&c, &p->uplink, &why);
    if (e != OK) fail(w, e, why.text);
}

/* So many at once: a listener cuts the oldest of too many that have not yet shown who they are. */
static void connect_some(struct world *w) {
    while (w->connected < w->o->nodes && w->connected < w->complete + DIALED && w->failed == OK)
        connect_one(w, &w->peers[w->connected++]);
}

/* Every node says that it lives, in turns. */
static void beat(struct world *w) {
    static uint64_t at;
    uint8_t body[8];
    for (uint64_t i = 0; i < w->o->nodes / 100 + 1; i++) {
        struct bench_peer *p = &w->peers[at++ % w->o->nodes];
        put_u64(body, ++p->beat);
        if (p->uplink) uplink_say(p->uplink, NODE_BEAT, span_of(body, sizeof body));
    }
}

static void on_timer(uv_timer_t *timer) {
    struct world *w = timer->data;
    if (w->connect && !w->over) connect_some(w);
    if (w->connected > 0 && !w->over) beat(w);
    if (!w->over) return;
    (void)uv_timer_stop(timer);
    for (uint64_t i = 0; i < w->o->nodes; i++)
        if (w->peers[i].uplink) uplink_free(w->peers[i].uplink, on_freed, w);
    uv_close((uv_handle_t *)timer, NULL);
}

/* --- loads ------------------------------------------------------------------------------------ */

static RESULT await(struct world *w, _Atomic unsigned *count, unsigned n, const char *what) {
    for (unsigned ms = 0; *count < n; ms++) {
        if (w->failed != OK) return (enum err)w->failed;
        if (ms > ARRIVAL_MS) {
            (void)snprintf(w->why.text, sizeof w->why.text, "%s: %u of %u in time", what, *count,
                           n);
            return ERR_TIMEOUT;
        }
        bench_pause_s(0.001);
    }
    return OK;
}

struct load {
    struct latency acknowledged, asked; /* to each node, from... */
    struct latency last;                /* to the last node, from the acknowledgement */
    struct latency answer;              /* of the request itself */
    uint64_t bytes, arrivals, changes;
};

static void measure(struct load *l, const struct change_times *t, unsigned expected) {
    uint64_t last = 0;
    for (unsigned i = 0; i < expected; i++) {
        uint64_t at = t->at_ns[i], from = t->acknowledged_ns;
        latency_add(&l->acknowledged, at > from ? at - from : 0);
        latency_add(&l->asked, at - t->asked_ns);
        if (at > last) last = at;
    }
    latency_add(&l->last, last > t->acknowledged_ns ? last - t->acknowledged_ns : 0);
    latency_add(&l->answer, t->acknowledged_ns - t->asked_ns);
    l->arrivals += expected;
    l->changes++;
}

static RESULT change_one(struct world *w, struct client *c, const char *name, unsigned expected,
                         struct load *l) {
    struct change_times *t = &w->now;
    uint64_t before = w->bytes;
    t->arrived = 0;
    w->change++;
    t->asked_ns = bench_now_ns();
    TRY(change_secret(c, name, w->change, &w->why));
    t->acknowledged_ns = bench_now_ns();
    TRY(await(w, &t->arrived, expected, name));
    measure(l, t, expected);
    l->bytes += w->bytes - before;
    return OK;
}

static void print_load(const char *text, const struct load *l) {
    (void)printf("%s: %llu changes, %llu deliveries\n", text, (unsigned long long)l->changes,
                 (unsigned long long)l->arrivals);
    (void)printf("    to a node, from the acknowledgement   p50 %8.2f ms   p99 %8.2f ms\n",
                 latency_us(&l->acknowledged, 0.5) / 1000,
                 latency_us(&l->acknowledged, 0.99) / 1000);
    (void)printf("    to a node, from the request           p50 %8.2f ms   p99 %8.2f ms\n",
                 latency_us(&l->asked, 0.5) / 1000, latency_us(&l->asked, 0.99) / 1000);
    (void)printf("    to the last one, from the ack         p50 %8.2f ms   p99 %8.2f ms\n",
                 latency_us(&l->last, 0.5) / 1000, latency_us(&l->last, 0.99) / 1000);
    (void)printf("    the request itself                    p50 %8.2f ms   p99 %8.2f ms\n",
                 latency_us(&l->answer, 0.5) / 1000, latency_us(&l->answer, 0.99) / 1000);
    (void)printf("    bytes on the wire                     %8.0f a change   %8.0f a delivery\n",
                 (double)l->bytes / (double)l->changes, (double)l->bytes / (double)l->arrivals);
    (void)fflush(stdout);
}

/* Secrets of services one after another, as far apart as there are changes. */
static RESULT run_load(struct world *w, struct client *c, const char *text, bool shared) {
    struct load *l = calloc(1, sizeof *l);
    uint64_t used = per_service(w) * w->o->services, step = used / w->o->changes + 1;
    unsigned expected = shared ? (unsigned)w->o->nodes : REPLICAS;
    uint64_t n = shared ? w->o->changes / 10 + 1 : w->o->changes;
    enum err e = l ? OK : ERR_NOMEM;
    if (used > w->o->secrets) used = w->o->secrets;
    for (uint64_t i = 0; e == OK && i < n; i++) {
        char name[32];
        name_of(i * step % used, name);
        e = change_one(w, c, shared ? SHARED_SECRET : name, expected, l);
    }
    if (e == OK) print_load(text, l);
    free(l);
    return e;
}

static RESULT set_up(struct world *w) {
    char token[JOIN_TOKEN_TEXT];
    TRY(start(w));
    TRY(bench_server_token(&w->server, "worker", token, &w->why));
    enum err e = token_parse(token, w->digest, w->secret, &w->why);
    sodium_memzero(token, sizeof token);
    TRY(e);
    TRY(each(w, w->o->nodes, join_one, "nodes joined"));
    w->connect = true;
    TRY(await(w, &w->complete, (unsigned)w->o->nodes, "sessions"));
    return each(w, w->o->secrets, secret_one, "secrets created");
}

static RESULT set_up_services(struct world *w, struct client *c) {
    unsigned tasks = (unsigned)(w->o->services * REPLICAS + w->o->nodes);
    uint64_t began = bench_now_ns(), before = w->bytes;
    TRY(create_secret(c, SHARED_SECRET, &w->why));
    TRY(create_service(c, SHARED_SECRET, 0, 0, &w->why));
    TRY(each(w, w->o->services, service_one, "services created"));
    TRY(await(w, &w->tasks, tasks, "tasks"));
    double took = (double)(bench_now_ns() - began) / 1e9;
    (void)printf("%-40s %8u in %6.1f s  %7.1f MiB on the wire  manager %6.1f MiB\n",
                 "their tasks with the secrets on the nodes", tasks, took,
                 (double)(w->bytes - before) / (double)MIB, resident_mib(w));
    return OK;
}

static RESULT script(struct world *w) {
    struct client *c = NULL;
    TRY(set_up(w));
    TRY(open_api(w, &c, &w->why));
    enum err e = set_up_services(w, c);
    if (e == OK) e = run_load(w, c, "a secret of one service", false);
    if (e == OK) e = run_load(w, c, "a secret that every node has", true);
    if (e == OK) (void)printf("manager at the end: %.1f MiB resident\n", resident_mib(w));
    client_close(c);
    return e;
}

static void *run_script(void *ctx) {
    struct world *w = ctx;
    enum err e = script(w);
    if (e != OK) fail(w, e, w->why.text);
    w->over = true;
    return NULL;
}

/* --- all -------------------------------------------------------------------------------------- */

static RESULT run_all(struct world *w) {
    pthread_t thread;
    (void)uv_loop_init(&w->loop);
    (void)uv_timer_init(&w->loop, &w->timer);
    w->timer.data = w;
    (void)uv_timer_start(&w->timer, on_timer, LOOK_MS, LOOK_MS);
    if (pthread_create(&thread, NULL, run_script, w) != 0) return ERR_NOMEM;
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    (void)pthread_join(thread, NULL);
    (void)uv_loop_close(&w->loop);
    return (enum err)w->failed;
}

static int usage(FILE *out, enum err e) {
    (void)fputs("usage: conclave-bench secrets [--secrets N] [--nodes N] [--services N]\n"
                "                              [--changes N] [--dir DIR]\n\n"
                "How soon a changed secret is on the nodes that use it, the manager's memory, and\n"
                "bytes on the wire: one manager, simulated nodes with real sessions over TLS.\n"
                "Defaults: 10000 secrets, 200 nodes (at most 1000), 1000 services of 2 tasks, 300\n"
                "changes of one service's secrets and a tenth as many of one that all nodes have;\n"
                "the current directory.\n",
                out);
    return err_exit(e);
}

static bool option(struct options *o, const char *name, const char *text) {
    const struct {
        const char *name;
        uint64_t *to, most;
    } numbers[] = {{"--secrets", &o->secrets, 1000000},
                   {"--nodes", &o->nodes, NODES_LIMIT},
                   {"--services", &o->services, 60000},
                   {"--changes", &o->changes, CHANGES_MAX}};
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    if (strcmp(name, "--dir") == 0) {
        o->dir = text;
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (strcmp(name, numbers[i].name) != 0) continue;
        *numbers[i].to = n;
        return *text >= '0' && *text <= '9' && *end == '\0' && n >= 1 && n <= numbers[i].most;
    }
    return false;
}

static enum err bench(struct world *w) {
    w->peers = calloc(w->o->nodes, sizeof *w->peers);
    w->now.at_ns = calloc(NODES_LIMIT, sizeof *w->now.at_ns);
    if (!w->peers || !w->now.at_ns) return ERR_NOMEM;
    for (uint64_t i = 0; i < w->o->nodes; i++)
        w->peers[i] =
            (struct bench_peer){.w = w, .cert = buf_new(PEM_MAX), .root = buf_new(PEM_MAX)};
    enum err e = run_all(w);
    bench_server_stop(&w->server);
    for (uint64_t i = 0; i < w->o->nodes; i++) {
        secret_free(w->peers[i].key);
        buf_free(&w->peers[i].cert);
        buf_free(&w->peers[i].root);
    }
    return e;
}

int bench_secrets(int argc, char **argv) {
    struct options o = {
        .dir = ".", .secrets = 10000, .nodes = 200, .services = 1000, .changes = 300};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return usage(stdout, OK);
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !option(&o, argv[i], argv[i + 1])) return usage(stderr, ERR_USAGE);
    struct world *w = calloc(1, sizeof *w);
    if (w == NULL) return err_exit(ERR_NOMEM);
    w->o = &o;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)printf("one manager on this machine; %llu secrets, %llu nodes, %llu services\n",
                 (unsigned long long)o.secrets, (unsigned long long)o.nodes,
                 (unsigned long long)o.services);
    enum err e = bench(w);
    if (e != OK)
        (void)fprintf(stderr, "conclave-bench secrets: %s\n",
                      w->why.text[0] ? w->why.text : err_text(e));
    free(w->peers);
    free(w->now.at_ns);
    sodium_memzero(w->secret, sizeof w->secret);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
    return err_exit(e);
}
