/* Watchers on one real member, over real gRPC: what ten thousand of them cost in memory, how long
 * after a put its event is there, and what a client costs the others that watches everything and
 * reads nothing. The server is a process of its own (ours, or Debian's etcd with the same load), so
 * that its memory and processor time are its own. A put's value begins with the time at which it
 * was sent; the latency of an event is from there to its arrival. */
#include <stdio.h>
#include <stdlib.h>

#include "api/etcd/pb.h"
#include "api/etcd/rpc.pb-c.h"
#include "bench/bench.h"
#include "bench/h2.h"
#include "bench/server.h"
#include "crypto/limits.h"

#define READY_S   20   /* for the server to serve, and for anything that must come */
#define VALUE     256  /* bytes of a value */
#define STALLED_N 1000 /* watchers of the client that does not read */

struct options {
    const char *against; /* "conclave" or "etcd" */
    const char *dir;     /* for the data */
    uint64_t watchers, connections, streams;
    uint64_t rate;    /* puts a second */
    uint64_t seconds; /* of each load */
    uint64_t leases;
};

struct world {
    const struct options *o;
    struct bench_server server;
    struct h2 h2;
    struct h2_link *writer;
    uint64_t created, events; /* answers so far */
    uint64_t puts_done, failed;
    uint64_t keep_alives;
    struct latency latency, put_latency;
    struct buf out;
    int64_t *leases;
};

/* --- the server ------------------------------------------------------------------------------- */

static RESULT start_etcd(struct bench_server *s) {
    char client[ADDRESS_MAX + 8], peer[ADDRESS_MAX + 8], cluster[ADDRESS_MAX + 16];
    (void)snprintf(client, sizeof client, "http://%s", s->client);
    (void)snprintf(peer, sizeof peer, "http://%s", s->peer);
    (void)snprintf(cluster, sizeof cluster, "default=%s", peer);
    const char *const argv[] = {"etcd",  "--data-dir",
                                s->dir,  "--listen-client-urls",
                                client,  "--advertise-client-urls",
                                client,  "--listen-peer-urls",
                                peer,    "--initial-advertise-peer-urls",
                                peer,    "--initial-cluster",
                                cluster, "--log-level",
                                "error", "--logger",
                                "zap",   NULL};
    return bench_server_run(s, argv);
}

static RESULT start_server(struct world *w) {
    const char *const more[] = {"--init", "--client-insecure", NULL};
    TRY(bench_server_prepare(&w->server, w->o->dir));
    if (strcmp(w->o->against, "etcd") == 0) return start_etcd(&w->server);
    return bench_server_conclave(&w->server, "bench", more);
}

/* --- calls ------------------------------------------------------------------------------------ */

/* Until *counter reaches n. */
static RESULT wait_for(struct world *w, const uint64_t *counter, uint64_t n) {
    uint64_t end = bench_now_ns() + READY_S * 1000000000ULL;
    while (*counter < n) {
        TRY(h2_step(&w->h2, 10));
        if (bench_now_ns() > end) return ERR_TIMEOUT;
    }
    return OK;
}

static void put_done(void *ctx, struct h2_call *c, struct span message, int status) {
    struct world *w = ctx;
    (void)c;
    if (message.at != NULL) return;
    w->puts_done++;
    w->failed += status != 0;
}

static RESULT put(struct world *w, uint64_t key) {
    struct h2_call *c;
    uint8_t value[VALUE] = {0};
    char name[32];
    int n = snprintf(name, sizeof name, "w/%08llu", (unsigned long long)key);
    put_u64(value, bench_now_ns());
    buf_clear(&w->out);
    TRY(pb_bytes(&w->out, 1, span_of(name, (size_t)n)));
    TRY(pb_bytes(&w->out, 2, span_of(value, sizeof value)));
    TRY(h2_call(w->writer, "/etcdserverpb.KV/Put", put_done, w, &c));
    return h2_send(c, buf_span(&w->out), true);
}

/* The server serves once a put succeeds. */
static RESULT wait_ready(struct world *w) {
    for (unsigned i = 0; i < READY_S * 20; i++) {
        w->puts_done = w->failed = 0;
        enum err e = h2_connect(&w->h2, w->server.port, &w->writer);
        if (e == OK) e = put(w, 0);
        if (e == OK) e = wait_for(w, &w->puts_done, 1);
        if (e == OK && w->failed == 0) return OK;
        h2_free(&w->h2);
        if (bench_server_gone(&w->server)) return ERR_CLOSED;
        bench_pause_s(0.05);
    }
    return ERR_TIMEOUT;
}

static void on_watch(void *ctx, struct h2_call *c, struct span message, int status) {
    struct world *w = ctx;
    uint64_t now = bench_now_ns();
    (void)c, (void)status;
    if (message.at == NULL) {
        w->failed++;
        return;
    }
    Etcdserverpb__WatchResponse *r =
        etcdserverpb__watch_response__unpack(NULL, message.size, message.at);
    if (r == NULL) return;
    w->created += r->created != 0;
    w->events += r->n_events;
    for (size_t i = 0; i < r->n_events; i++)
        if (r->events[i]->kv != NULL && r->events[i]->kv->value.len >= 8)
            latency_add(&w->latency, now - get_u64(r->events[i]->kv->value.data));
    etcdserverpb__watch_response__free_unpacked(r, NULL);
}

static void on_ignored(void *ctx, struct h2_call *c, struct span message, int status) {
    (void)ctx, (void)c, (void)message, (void)status;
}

static RESULT watch(struct world *w, struct h2_call *c, struct span key, struct span end) {
    size_t mark;
    buf_clear(&w->out);
    TRY(pb_open(&w->out, 1, &mark));
    TRY(pb_bytes(&w->out, 1, key));
    TRY(pb_bytes(&w->out, 2, end));
    TRY(pb_close(&w->out, mark));
    return h2_send(c, buf_span(&w->out), false);
}

/* Watchers of one key each, or (prefix) all of the same prefix. */
static RESULT open_watchers(struct world *w, bool prefix) {
    const struct options *o = w->o;
    uint64_t per = (o->watchers + o->connections * o->streams - 1) / (o->connections * o->streams);
    uint64_t n = 0;
    w->created = 0;
    for (uint64_t i = 0; i < o->connections; i++) {
        struct h2_link *l;
        TRY(h2_connect(&w->h2, w->server.port, &l));
        for (uint64_t s = 0; s < o->streams && n < o->watchers; s++) {
            struct h2_call *c;
            TRY(h2_call(l, "/etcdserverpb.Watch/Watch", on_watch, w, &c));
            for (uint64_t k = 0; k < per && n < o->watchers; k++, n++) {
                char name[32];
                int size = snprintf(name, sizeof name, "w/%08llu", (unsigned long long)n);
                struct span key = span_of(name, prefix ? 2 : (size_t)size);
                TRY(watch(w, c, key, prefix ? span_str("w0") : span_of(NULL, 0)));
            }
            TRY(h2_step(&w->h2, 0));
        }
        TRY(wait_for(w, &w->created, n));
    }
    return OK;
}

static RESULT open_stalled(struct world *w) {
    struct h2_link *l;
    struct h2_call *c;
    TRY(h2_connect(&w->h2, w->server.port, &l));
    TRY(h2_call(l, "/etcdserverpb.Watch/Watch", on_ignored, NULL, &c));
    for (unsigned i = 0; i < STALLED_N; i++)
        TRY(watch(w, c, span_str("w/"), span_str("w0")));
    for (unsigned i = 0; i < 20; i++)
        TRY(h2_step(&w->h2, 5));
    h2_stall(l, true);
    return OK;
}

/* --- loads ------------------------------------------------------------------------------------ */

struct load {
    const char *text;
    uint64_t rate;
    uint64_t events_each; /* that a put makes */
};

static RESULT run_load(struct world *w, const struct load *load) {
    uint64_t n = load->rate * w->o->seconds, gap = 1000000000ULL / load->rate;
    double cpu = bench_server_cpu_s(&w->server);
    uint64_t began = bench_now_ns();
    w->events = w->puts_done = w->failed = 0;
    memset(&w->latency, 0, sizeof w->latency);
    for (uint64_t i = 0; i < n; i++) {
        TRY(put(w, i * 7919 % w->o->watchers));
        TRY(h2_step(&w->h2, 0));
        for (uint64_t now; (now = bench_now_ns()) < began + (i + 1) * gap;)
            TRY(h2_step(&w->h2, (int)((began + (i + 1) * gap - now) / 1000000)));
    }
    TRY(wait_for(w, &w->puts_done, n));
    TRY(wait_for(w, &w->events, n * load->events_each));
    double took = (double)(bench_now_ns() - began) / 1e9;
    (void)printf("%-44s %8.0f %9.0f %8.0f %8.0f %7.1f %8.1f\n", load->text, (double)n / took,
                 (double)w->events / took, latency_us(&w->latency, 0.5),
                 latency_us(&w->latency, 0.99), 100 * (bench_server_cpu_s(&w->server) - cpu) / took,
                 (double)bench_server_memory_kib(&w->server) / 1024);
    (void)fflush(stdout);
    return w->failed == 0 ? OK : ERR_INTERNAL;
}

static void show_memory(const struct world *w, const char *what, uint64_t n, uint64_t before) {
    uint64_t now = bench_server_memory_kib(&w->server);
    double more = now > before ? (double)(now - before) : 0;
    (void)printf("%-44s %8.1f MiB, %.0f bytes each\n", what, more / 1024, more * 1024 / (double)n);
}

/* --- leases ----------------------------------------------------------------------------------- */

static void on_grant(void *ctx, struct h2_call *c, struct span message, int status) {
    struct world *w = ctx;
    (void)c;
    if (message.at == NULL) {
        w->puts_done++;
        w->failed += status != 0;
        return;
    }
    Etcdserverpb__LeaseGrantResponse *r =
        etcdserverpb__lease_grant_response__unpack(NULL, message.size, message.at);
    if (r == NULL) return;
    w->leases[w->keep_alives++] = r->id;
    etcdserverpb__lease_grant_response__free_unpacked(r, NULL);
}

static void on_kept(void *ctx, struct h2_call *c, struct span message, int status) {
    struct world *w = ctx;
    (void)c, (void)status;
    w->keep_alives += message.at != NULL;
}

static RESULT grant_all(struct world *w) {
    w->puts_done = w->failed = w->keep_alives = 0;
    for (uint64_t i = 0; i < w->o->leases; i++) {
        struct h2_call *c;
        buf_clear(&w->out);
        TRY(pb_number(&w->out, 1, 600));
        TRY(h2_call(w->writer, "/etcdserverpb.Lease/LeaseGrant", on_grant, w, &c));
        TRY(h2_send(c, buf_span(&w->out), true));
        TRY(i % 256 == 255 ? wait_for(w, &w->puts_done, i) : h2_step(&w->h2, 0));
    }
    TRY(wait_for(w, &w->puts_done, w->o->leases));
    return w->failed == 0 ? OK : ERR_UNSUPPORTED;
}

static RESULT keep_all(struct world *w) {
    struct h2_call *c;
    w->keep_alives = 0;
    TRY(h2_call(w->writer, "/etcdserverpb.Lease/LeaseKeepAlive", on_kept, w, &c));
    for (uint64_t i = 0; i < w->o->leases; i++) {
        buf_clear(&w->out);
        TRY(pb_number(&w->out, 1, (uint64_t)w->leases[i]));
        TRY(h2_send(c, buf_span(&w->out), false));
        if (i % 1000 == 999) TRY(wait_for(w, &w->keep_alives, i + 1));
    }
    return wait_for(w, &w->keep_alives, w->o->leases);
}

static RESULT run_leases(struct world *w) {
    uint64_t before = bench_server_memory_kib(&w->server), began = bench_now_ns();
    w->leases = calloc(w->o->leases, sizeof *w->leases);
    if (w->leases == NULL) return ERR_NOMEM;
    enum err e = grant_all(w);
    double granted = (double)(bench_now_ns() - began) / 1e9;
    if (e == OK) show_memory(w, "leases", w->o->leases, before);
    began = bench_now_ns();
    if (e == OK) e = keep_all(w);
    if (e == OK)
        (void)printf("%-44s granted in %.2f s, all kept alive in %.3f s\n", "leases", granted,
                     (double)(bench_now_ns() - began) / 1e9);
    free(w->leases);
    return e;
}

/* --- all -------------------------------------------------------------------------------------- */

static RESULT run_all(struct world *w) {
    const struct options *o = w->o;
    TRY(start_server(w));
    TRY(wait_ready(w));
    uint64_t before = bench_server_memory_kib(&w->server);
    TRY(open_watchers(w, false));
    show_memory(w, "watchers of a key", o->watchers, before);
    (void)printf("\n%-44s %8s %9s %8s %8s %7s %8s\n", "", "puts/s", "events/s", "p50 us", "p99 us",
                 "CPU %", "MiB");
    TRY(run_load(w, &(struct load){"no load to speak of", 100, 1}));
    TRY(run_load(w, &(struct load){"an event a put", o->rate, 1}));
    TRY(open_stalled(w));
    TRY(run_load(w, &(struct load){"the same, and a client that does not read", o->rate, 1}));
    if (o->leases != 0) TRY(run_leases(w));
    if (o->leases != 0) TRY(run_load(w, &(struct load){"the same, and leases", o->rate, 1}));
    before = bench_server_memory_kib(&w->server);
    TRY(open_watchers(w, true));
    show_memory(w, "watchers of a prefix, besides", o->watchers, before);
    return run_load(w, &(struct load){"all of them hear each put", 10, o->watchers + 1});
}

static int usage(FILE *out, enum err e) {
    (void)fputs("usage: conclave-bench watch [--against conclave|etcd] [--watchers N]\n"
                "           [--connections N] [--streams N] [--rate N] [--seconds N]\n"
                "           [--leases N] [--dir DIR]\n\n"
                "Watchers on one member, over gRPC in plaintext: memory, latency of events, CPU.\n"
                "Defaults: conclave, 10000 watchers, 10 connections with 1 stream each, 1000 puts\n"
                "a second, 5 s, 10000 leases (0: none), the current directory.\n",
                out);
    return err_exit(e);
}

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *out) {
    char *end;
    *out = strtoull(text, &end, 10);
    return *text != '\0' && *end == '\0' && *out >= min && *out <= max;
}

static bool option(struct options *o, const char *name, const char *text) {
    if (strcmp(name, "--against") == 0) {
        o->against = text;
        return strcmp(text, "etcd") == 0 || strcmp(text, "conclave") == 0;
    }
    if (strcmp(name, "--dir") == 0) {
        o->dir = text;
        return true;
    }
    if (strcmp(name, "--watchers") == 0) return number(text, 1, 1000000, &o->watchers);
    if (strcmp(name, "--connections") == 0) return number(text, 1, 20, &o->connections);
    if (strcmp(name, "--streams") == 0) return number(text, 1, 1000, &o->streams);
    if (strcmp(name, "--rate") == 0) return number(text, 1, 1000000, &o->rate);
    if (strcmp(name, "--seconds") == 0) return number(text, 1, 3600, &o->seconds);
    return strcmp(name, "--leases") == 0 && number(text, 0, 1000000, &o->leases);
}

int bench_watch(int argc, char **argv) {
    struct options o = {.against = "conclave",
                        .dir = ".",
                        .watchers = 10000,
                        .connections = 10,
                        .streams = 1,
                        .rate = 1000,
                        .seconds = 5,
                        .leases = 10000};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return usage(stdout, OK);
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !option(&o, argv[i], argv[i + 1])) return usage(stderr, ERR_USAGE);
    struct world *w = calloc(1, sizeof *w);
    if (w == NULL) return err_exit(ERR_NOMEM);
    w->o = &o;
    w->out = buf_new(MIB);
    (void)printf("%s: %llu watchers, %llu connections, %llu streams on each\n", o.against,
                 (unsigned long long)o.watchers, (unsigned long long)o.connections,
                 (unsigned long long)o.streams);
    enum err e = run_all(w);
    if (e != OK) (void)fprintf(stderr, "conclave-bench watch: %s\n", err_text(e));
    h2_free(&w->h2);
    bench_server_stop(&w->server);
    buf_free(&w->out);
    free(w);
    return err_exit(e);
}
