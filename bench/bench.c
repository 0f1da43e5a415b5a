/* Latencies, clocks and scratch directories for the benchmarks: the contract is in bench.h. */
#include "bench/bench.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

void latency_add(struct latency *l, uint64_t ns) {
    double octaves = log2(ns < 1 ? 1.0 : (double)ns);
    size_t bucket = (size_t)(octaves * 16);
    if (bucket >= LATENCY_BUCKETS) bucket = LATENCY_BUCKETS - 1;
    l->n[bucket]++;
    l->total++;
}

double latency_us(const struct latency *l, double fraction) {
    uint64_t rank = (uint64_t)((double)l->total * fraction), seen = 0;
    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += l->n[i];
        if (seen > rank) return exp2(((double)i + 0.5) / 16) / 1000;
    }
    return 0;
}

uint64_t bench_now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

void bench_pause_s(double s) {
    struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    (void)nanosleep(&t, NULL);
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

double bench_cpu_s(void) {
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return seconds(u.ru_utime) + seconds(u.ru_stime);
}

#define READY_TRIES 3000 /* of 10 ms */

void bench_run_written(struct bench_run *r, uint64_t began_ns) {
    if (r->phase != PHASE_MEASURED) return;
    latency_add(&r->latency, bench_now_ns() - began_ns);
    r->done++;
}

void bench_run_measure(struct bench_run *r, struct bench_figures *out) {
    for (int i = 0; i < READY_TRIES && !r->ready && !r->failed; i++)
        bench_pause_s(0.01);
    if (!r->ready && !r->failed) r->failed = ERR_TIMEOUT;
    r->phase = PHASE_WARM;
    bench_pause_s(r->c->seconds / 5);
    double cpu = bench_cpu_s();
    uint64_t began = bench_now_ns();
    r->phase = PHASE_MEASURED;
    bench_pause_s(r->c->seconds);
    r->phase = PHASE_OVER;
    double took = (double)(bench_now_ns() - began) / 1e9;
    double writes = (double)r->done;
    out->per_s = writes / took;
    out->cpu_us = (bench_cpu_s() - cpu) * 1e6 / (writes < 1 ? 1 : writes);
}

void bench_run_latencies(const struct bench_run *r, struct bench_figures *out) {
    out->p50_us = latency_us(&r->latency, 0.5);
    out->p99_us = latency_us(&r->latency, 0.99);
    out->p999_us = latency_us(&r->latency, 0.999);
}

RESULT bench_dir(const char *parent, char out[256]) {
    int n = snprintf(out, 256, "%s/conclave-bench-XXXXXX", parent);
    if (n < 0 || n >= 256) return ERR_TOO_LARGE;
    return mkdtemp(out) != NULL ? OK : ERR_IO;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void bench_remove(const char *dir) { (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS); }
