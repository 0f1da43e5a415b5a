/* The embedded library as a program uses it: durable puts of one thread and of many, transactions
 * of a hundred, gets, a scan, and how long it takes to open again. Through the public header alone,
 * with encryption on. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/conclave.h"
#include "bench/bench.h"

#define THREADS_MAX 256
#define BENCH_KEY   24

struct load {
    const char *parent; /* directory for the data */
    uint64_t keys;      /* number */
    size_t value_size;  /* bytes */
    double seconds;     /* of each measurement of puts */
    char dir[256];
    struct ccl_db *db;
    uint8_t *value;
};

/* One thread that puts for a while. */
struct putter {
    struct load *load;
    pthread_t thread;
    uint64_t first, puts; /* number of its first key; puts made */
    struct latency latency;
    int code; /* of the put that failed */
};

static void key_at(uint64_t i, char out[BENCH_KEY + 1]) {
    (void)snprintf(out, BENCH_KEY + 1, "key-%020llu", (unsigned long long)i);
}

static double seconds_since(uint64_t start_ns) { return (double)(bench_now_ns() - start_ns) / 1e9; }

static int put_one(struct load *l, uint64_t i) {
    char key[BENCH_KEY + 1];
    key_at(i, key);
    return ccl_put(l->db, key, BENCH_KEY, l->value, l->value_size, NULL, NULL, NULL);
}

static void *put_for_a_while(void *arg) {
    struct putter *p = arg;
    uint64_t start = bench_now_ns();
    while (p->code == CCL_OK && seconds_since(start) < p->load->seconds) {
        uint64_t before = bench_now_ns();
        p->code = put_one(p->load, p->first + p->puts++);
        latency_add(&p->latency, bench_now_ns() - before);
    }
    return NULL;
}

static int measure_puts(struct load *l, unsigned threads) {
    struct putter *all = calloc(threads, sizeof *all);
    struct latency latency = {0};
    uint64_t puts = 0;
    int code = CCL_OK;
    if (all == NULL) return CCL_NOMEM;
    uint64_t start = bench_now_ns();
    for (unsigned i = 0; i < threads; i++) {
        all[i].load = l;
        all[i].first = (uint64_t)(i + 1) << 40;
        if (pthread_create(&all[i].thread, NULL, put_for_a_while, &all[i]) != 0) abort();
    }
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(all[i].thread, NULL);
        puts += all[i].puts;
        if (all[i].code != CCL_OK) code = all[i].code;
        for (size_t k = 0; k < LATENCY_BUCKETS; k++)
            latency.n[k] += all[i].latency.n[k];
        latency.total += all[i].latency.total;
    }
    (void)printf("durable put, %3u threads  %10.0f /s   p50 %6.0f us  p99 %6.0f us\n", threads,
                 (double)puts / seconds_since(start), latency_us(&latency, 0.5),
                 latency_us(&latency, 0.99));
    free(all);
    return code;
}

static int put_hundred(struct load *l, uint64_t first) {
    struct ccl_txn *t = ccl_txn_new(l->db);
    char key[BENCH_KEY + 1];
    if (t == NULL) return CCL_NOMEM;
    for (uint64_t i = first; i < first + 100; i++) {
        key_at(i, key);
        ccl_txn_put(t, key, BENCH_KEY, l->value, l->value_size, NULL);
    }
    int code = ccl_txn_commit(t, NULL, NULL, NULL);
    ccl_txn_free(t);
    return code;
}

static int measure_transactions(struct load *l) {
    uint64_t start = bench_now_ns();
    int code = CCL_OK;
    for (uint64_t i = 0; code == CCL_OK && i < l->keys; i += 100)
        code = put_hundred(l, i);
    (void)printf("put, 100 a transaction    %10.0f /s   (%llu keys)\n",
                 (double)l->keys / seconds_since(start), (unsigned long long)l->keys);
    return code;
}

static int measure_gets(struct load *l) {
    char key[BENCH_KEY + 1];
    uint64_t start = bench_now_ns();
    for (uint64_t i = 0; i < l->keys; i++) {
        struct ccl_result *r;
        key_at(i * 7919 % l->keys, key);
        int code = ccl_get(l->db, key, BENCH_KEY, &r, NULL);
        if (code != CCL_OK) return code;
        ccl_result_free(r);
    }
    (void)printf("get                       %10.0f /s\n", (double)l->keys / seconds_since(start));
    return CCL_OK;
}

static int measure_scan(struct load *l) {
    struct ccl_iter *iter;
    struct ccl_kv kv = CCL_KV_INIT;
    uint64_t n = 0, start = bench_now_ns();
    int code = ccl_iter_open(l->db, NULL, 0, NULL, 0, &iter, NULL);
    if (code != CCL_OK) return code;
    while (ccl_iter_next(iter, &kv))
        n++;
    ccl_iter_free(iter);
    (void)printf("scan                      %10.0f /s\n", (double)n / seconds_since(start));
    return CCL_OK;
}

static int open_store(struct load *l) {
    static const uint8_t key[32] = "a key for a benchmark, no secret";
    struct ccl_open_options o = CCL_OPEN_OPTIONS_INIT;
    struct ccl_error error = CCL_ERROR_INIT;
    o.flags = CCL_CREATE;
    o.key_kind = CCL_KEY_BYTES;
    o.key = key;
    o.key_size = sizeof key;
    uint64_t start = bench_now_ns();
    int code = ccl_open(l->dir, &o, &l->db, &error);
    if (code == CCL_OK)
        (void)printf("open                      %10.1f ms\n", seconds_since(start) * 1e3);
    else
        (void)fprintf(stderr, "conclave-bench embed: %s\n", error.text);
    return code;
}

static int reopen(struct load *l) {
    (void)printf("memory in use             %10.1f MiB\n",
                 (double)mallinfo2().uordblks / (double)(1024 * 1024));
    ccl_close(l->db);
    l->db = NULL;
    return open_store(l);
}

static int run(struct load *l) {
    int code = open_store(l);
    if (code == CCL_OK) code = measure_puts(l, 1);
    if (code == CCL_OK) code = measure_puts(l, 16);
    if (code == CCL_OK) code = measure_puts(l, 128);
    if (code == CCL_OK) code = measure_transactions(l);
    if (code == CCL_OK) code = measure_gets(l);
    if (code == CCL_OK) code = measure_scan(l);
    if (code == CCL_OK) code = reopen(l);
    ccl_close(l->db);
    return code;
}

static int usage(FILE *out, enum err e) {
    (void)fputs(
        "usage: conclave-bench embed [--dir DIR] [--keys N] [--value-size BYTES] [--seconds "
        "S]\n\n"
        "The embedded library, encrypted, one node: durable puts, transactions, gets, scan,\n"
        "open. Defaults: the current directory, 1000000 keys of 24 bytes, values of 256, 3 s.\n",
        out);
    return err_exit(e);
}

static bool option(struct load *l, const char *name, const char *text) {
    char *end = NULL;
    double n = strtod(text, &end);
    bool number = end != text && *end == '\0' && n >= 1;
    if (strcmp(name, "--dir") == 0)
        l->parent = text;
    else if (strcmp(name, "--keys") == 0 && number && n <= 1e9)
        l->keys = (uint64_t)n;
    else if (strcmp(name, "--value-size") == 0 && number && n <= CCL_VALUE_MAX)
        l->value_size = (size_t)n;
    else if (strcmp(name, "--seconds") == 0 && number && n <= 1e4)
        l->seconds = n;
    else
        return false;
    return true;
}

int bench_embed(int argc, char **argv) {
    struct load l = {.parent = ".", .keys = 1000000, .value_size = 256, .seconds = 3};
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return usage(stdout, OK);
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !option(&l, argv[i], argv[i + 1])) return usage(stderr, ERR_USAGE);
    enum err e = bench_dir(l.parent, l.dir);
    l.value = calloc(1, l.value_size);
    if (e == OK && l.value == NULL) e = ERR_NOMEM;
    if (e == OK) {
        int code = run(&l);
        if (code != CCL_OK) (void)fprintf(stderr, "conclave-bench embed: %s\n", ccl_strerror(code));
        if (code != CCL_OK) e = ERR_INTERNAL;
        bench_remove(l.dir);
    }
    free(l.value);
    return err_exit(e);
}
