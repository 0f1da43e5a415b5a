/* The certificate authority of three real managers, each a process of its own with its own disk
 * directory: how many workers a second join by a token (root fetched and checked, CSR, the row
 * replicated on three, certificate), and how many nodes a second renew; both as real exchanges on
 * the leader's peer port, over as many connections at once as asked for. Beside it what this
 * machine gives bare: P-256 signatures and verifications of one core, in the same run. */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/json.h"
#include "api/node/identity.h"
#include "bench/bench.h"
#include "bench/server.h"
#include "crypto/x509.h"
#include "raft/peer.h"

#define MANAGERS   3
#define ASK_MS     20000
#define ASKERS_MAX 64
#define BARE_S     1.0 /* for each of the bare figures */

struct options {
    const char *dir;      /* for the data */
    uint64_t connections; /* at once */
    uint64_t seconds;     /* of each load */
};

struct world {
    const struct options *o;
    struct bench_server servers[MANAGERS];
    char leader[ADDRESS_MAX]; /* its peer port */
    char digest[ROOT_DIGEST_TEXT];
    char secret[TOKEN_SECRET_SIZE + 1]; /* of the workers' token */
    _Atomic bool measuring, over;
    _Atomic int failed;     /* enum err of the first failure */
    _Atomic uint64_t nodes; /* names given */
    _Atomic uint64_t again; /* exchanges that had to be repeated */
    struct why why;         /* of it */
    pthread_mutex_t lock;   /* of why */
};

/* One that joins or renews, on a thread of its own. */
struct asker {
    struct world *w;
    bool renews; /* else it joins, each time as another node */
    struct secret *key;
    struct buf cert, root;
    struct latency latency;
    uint64_t done; /* while measured */
    pthread_t thread;
};

/* --- the servers ------------------------------------------------------------------------------ */

static RESULT start(struct world *w, unsigned i, const char *token) {
    const char *const init[] = {"--init", NULL};
    const char *const join[] = {"--join", w->servers[0].peer, "--token", token, NULL};
    char name[16];
    TRY(bench_server_prepare(&w->servers[i], w->o->dir));
    (void)snprintf(name, sizeof name, "bench%u", i);
    return bench_server_conclave(&w->servers[i], name, i == 0 ? init : join);
}

/* Processor time of the managers so far, in seconds. */
static double managers_cpu_s(const struct world *w) {
    double sum = 0;
    for (unsigned i = 0; i < MANAGERS; i++)
        sum += bench_server_cpu_s(&w->servers[i]);
    return sum;
}

/* How many vote; the leader's address is noted. */
static unsigned voters(struct world *w) {
    json_t *answer = NULL;
    size_t i;
    const json_t *m;
    unsigned n = 0;
    if (bench_server_get(&w->servers[0], "/conclave/v1/members", &answer, NULL) != OK) return 0;
    json_array_foreach(json_object_get(answer, "members"), i, m) {
        bool leads = strcmp(jin_string(m, "role"), "leader") == 0;
        n += leads || strcmp(jin_string(m, "role"), "voter") == 0;
        if (leads) (void)snprintf(w->leader, sizeof w->leader, "%s", jin_string(m, "peer_address"));
    }
    json_decref(answer);
    return n;
}

static RESULT start_all(struct world *w) {
    char token[JOIN_TOKEN_TEXT];
    TRY(start(w, 0, NULL));
    TRY(bench_server_token(&w->servers[0], "manager", token, NULL));
    for (unsigned i = 1; i < MANAGERS; i++)
        TRY(start(w, i, token));
    for (unsigned ms = 0; voters(w) < MANAGERS; ms += 50) {
        if (ms > BENCH_READY_MS) return ERR_TIMEOUT;
        bench_pause_s(0.05);
    }
    TRY(bench_server_token(&w->servers[0], "worker", token, NULL));
    return token_parse(token, w->digest, w->secret, NULL);
}

/* --- one exchange ----------------------------------------------------------------------------- */

static RESULT take(struct asker *a, struct secret *key, const struct wire_joined *joined) {
    buf_clear(&a->cert);
    buf_clear(&a->root);
    TRY(buf_add_span(&a->cert, joined->cert));
    TRY(buf_add_span(&a->root, joined->root));
    secret_free(a->key);
    a->key = key;
    return OK;
}

static RESULT exchange(struct asker *a, struct secret *key, struct buf *csr, struct buf *memory,
                       struct why *why) {
    struct world *w = a->w;
    bool renew = a->cert.size > 0 && a->renews;
    struct wire_join request = {.kind = renew ? JOIN_RENEW : JOIN_TOKEN};
    struct wire_joined joined;
    struct join_credentials known = {
        .root_pem = buf_span(&a->root), .cert_pem = buf_span(&a->cert), .key_pem = a->key};
    TRY(x509_request(key, "bench", csr, why));
    request.request = buf_span(csr);
    (void)snprintf(request.name, sizeof request.name, "w%llu", (unsigned long long)w->nodes++);
    (void)snprintf(request.hostname, sizeof request.hostname, "%s", request.name);
    (void)snprintf(request.client_address, ADDRESS_MAX, "127.0.0.1:2379");
    (void)snprintf(request.peer_address, ADDRESS_MAX, "127.0.0.1:2377");
    if (!renew) memcpy(request.token, w->secret, sizeof w->secret);
    TRY(join_request(w->leader, w->digest, renew ? &known : NULL, &request, ASK_MS, memory, &joined,
                     why));
    return take(a, key, &joined);
}

static RESULT ask(struct asker *a, struct why *why) {
    struct secret *key = NULL;
    struct buf csr = buf_new(PEM_MAX), memory = buf_new(FRAME_MAX);
    uint64_t began = bench_now_ns();
    enum err e = x509_key_new(&key, why);
    if (e == OK) e = exchange(a, key, &csr, &memory, why);
    if (e != OK) secret_free(key);
    buf_free(&csr);
    buf_wipe(&memory);
    if (e == OK && a->w->measuring) {
        latency_add(&a->latency, bench_now_ns() - began);
        a->done++;
    }
    return e;
}

/* The cluster was busy or between two leaders: asked again, and told. */
static bool passes(enum err e) {
    static const enum err passing[] = {ERR_BUSY,       ERR_TIMEOUT,       ERR_NO_LEADER,
                                       ERR_NOT_LEADER, ERR_MAYBE_APPLIED, ERR_CLOSED,
                                       ERR_UNREACHABLE};
    for (size_t i = 0; i < ARRAY_SIZE(passing); i++)
        if (e == passing[i]) return true;
    return false;
}

static void *run_asker(void *ctx) {
    struct asker *a = ctx;
    struct world *w = a->w;
    while (!w->over && w->failed == OK) {
        struct why why = {0};
        enum err e = ask(a, &why);
        w->again += e != OK && passes(e);
        if (e == OK || passes(e)) continue;
        (void)pthread_mutex_lock(&w->lock);
        if (w->failed == OK) w->why = why;
        w->failed = (int)e;
        (void)pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* --- loads ------------------------------------------------------------------------------------ */

struct spent {
    double took, managers, clients; /* seconds: of the clock, of processors */
};

static void print_load(const char *text, struct asker *askers, uint64_t n, struct spent spent) {
    struct latency all = {0};
    uint64_t done = 0;
    for (uint64_t i = 0; i < n; i++) {
        done += askers[i].done;
        all.total += askers[i].latency.total;
        for (size_t k = 0; k < LATENCY_BUCKETS; k++)
            all.n[k] += askers[i].latency.n[k];
    }
    double each_ms = done > 0 ? 1000 / (double)done : 0;
    (void)printf("%-32s %9.0f/s %8.1f ms %8.1f ms %8.2f ms %8.2f ms\n", text,
                 (double)done / spent.took, latency_us(&all, 0.5) / 1000,
                 latency_us(&all, 0.99) / 1000, spent.managers * each_ms, spent.clients * each_ms);
    (void)fflush(stdout);
}

/* A first node each, so that there is something to renew, is not measured. */
static RESULT run_load(struct world *w, const char *text, bool renews) {
    struct asker askers[ASKERS_MAX];
    uint64_t n = 0;
    w->measuring = w->over = false;
    w->again = 0;
    for (; n < w->o->connections; n++) {
        askers[n] = (struct asker){
            .w = w, .renews = renews, .cert = buf_new(PEM_MAX), .root = buf_new(PEM_MAX)};
        if (pthread_create(&askers[n].thread, NULL, run_asker, &askers[n]) != 0) break;
    }
    bench_pause_s((double)w->o->seconds / 5);
    w->measuring = true;
    uint64_t began = bench_now_ns();
    double managers = managers_cpu_s(w), clients = bench_cpu_s();
    for (uint64_t ms = 0; ms < w->o->seconds * 1000 && w->failed == OK; ms += 10)
        bench_pause_s(0.01);
    w->measuring = false;
    struct spent spent = {.took = (double)(bench_now_ns() - began) / 1e9,
                          .managers = managers_cpu_s(w) - managers,
                          .clients = bench_cpu_s() - clients};
    w->over = true;
    for (uint64_t i = 0; i < n; i++)
        (void)pthread_join(askers[i].thread, NULL);
    if (w->failed == OK) print_load(text, askers, n, spent);
    if (w->again > 0)
        (void)printf("    %llu exchanges had to be repeated\n", (unsigned long long)w->again);
    for (uint64_t i = 0; i < n; i++) {
        secret_free(askers[i].key);
        buf_free(&askers[i].cert);
        buf_free(&askers[i].root);
    }
    return (enum err)w->failed;
}

/* --- bare ------------------------------------------------------------------------------------- */

static RESULT bare(const char *text, bool verify) {
    static const uint8_t message[256] = {1};
    uint8_t signature[256];
    size_t size = sizeof signature;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    uint64_t n = 0, began = 0;
    bool good = key && c && EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestSign(c, signature, &size, message, sizeof message) == 1;
    for (began = bench_now_ns(); good && bench_now_ns() - began < (uint64_t)(BARE_S * 1e9); n++) {
        size_t room = sizeof signature;
        good = EVP_MD_CTX_reset(c) == 1;
        if (verify)
            good = good && EVP_DigestVerifyInit(c, NULL, EVP_sha256(), NULL, key) == 1 &&
                   EVP_DigestVerify(c, signature, size, message, sizeof message) == 1;
        else
            good = good && EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, key) == 1 &&
                   EVP_DigestSign(c, signature, &room, message, sizeof message) == 1;
        if (good && !verify) size = room;
    }
    double took = (double)(bench_now_ns() - began) / 1e9;
    if (good)
        (void)printf("%-32s %9.0f/s %8.1f us\n", text, (double)n / took, took * 1e6 / (double)n);
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(key);
    return good ? OK : ERR_INTERNAL;
}

/* --- all -------------------------------------------------------------------------------------- */

static RESULT run_all(struct world *w) {
    (void)printf("%-32s %11s %11s %11s %11s %11s\n", "", "rate", "p50", "p99", "managers' CPU",
                 "clients' CPU");
    TRY(bare("P-256 sign, one core", false));
    TRY(bare("P-256 verify, one core", true));
    TRY(start_all(w));
    TRY(run_load(w, "workers that join by a token", false));
    return run_load(w, "nodes that renew", true);
}

static int usage(FILE *out, enum err e) {
    (void)fputs("usage: conclave-bench ca [--connections N] [--seconds N] [--dir DIR]\n\n"
                "Joins and renewals a second on three managers, and what one takes of processors;\n"
                "beside bare P-256 signatures.\n"
                "Defaults: 8 connections at once, 5 s each, the current directory.\n",
                out);
    return err_exit(e);
}

static bool option(struct options *o, const char *name, const char *text) {
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    bool number = *text >= '0' && *text <= '9' && *end == '\0';
    if (strcmp(name, "--dir") == 0) {
        o->dir = text;
        return true;
    }
    if (strcmp(name, "--connections") == 0) {
        o->connections = n;
        return number && n >= 1 && n <= ASKERS_MAX;
    }
    o->seconds = n;
    return strcmp(name, "--seconds") == 0 && number && n >= 1 && n <= 3600;
}

int bench_ca(int argc, char **argv) {
    struct options o = {.dir = ".", .connections = 8, .seconds = 5};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return usage(stdout, OK);
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !option(&o, argv[i], argv[i + 1])) return usage(stderr, ERR_USAGE);
    struct world *w = calloc(1, sizeof *w);
    if (w == NULL) return err_exit(ERR_NOMEM);
    w->o = &o;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)printf("three managers on this machine, %llu connections at once, %llu s each\n",
                 (unsigned long long)o.connections, (unsigned long long)o.seconds);
    enum err e = run_all(w);
    if (e != OK)
        (void)fprintf(stderr, "conclave-bench ca: %s\n",
                      w->why.text[0] ? w->why.text : err_text(e));
    for (unsigned i = 0; i < MANAGERS; i++)
        bench_server_stop(&w->servers[i]);
    sodium_memzero(w->secret, sizeof w->secret);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
    return err_exit(e);
}
