/* What the benchmarks share: a case, its figures, latencies by logarithmic buckets, and scratch
 * directories. Every figure is measured in the run that prints it. */
#ifndef CONCLAVE_BENCH_H
#define CONCLAVE_BENCH_H

#include <stdatomic.h>

#include "crypto/base.h"

#define BENCH_MEMBERS 3 /* at most */

/* One load: `window` writes of `size` bytes always under way, on `nodes` members, for a while. */
struct bench_case {
    unsigned nodes;                  /* 1 or BENCH_MEMBERS */
    size_t size;                     /* bytes of a write */
    unsigned window;                 /* writes under way, <= BENCH_WINDOW_MAX */
    double seconds;                  /* measured, after a warm-up of a fifth of it */
    const char *dirs[BENCH_MEMBERS]; /* of each member's data; on the disk to be measured */
    bool null_cipher;                /* Conclave only: no encryption at rest */
};

struct bench_figures {
    double per_s;                   /* committed writes a second */
    double p50_us, p99_us, p999_us; /* from submission to outcome */
    double cpu_us;                  /* processor time of all members a write */
};

#define BENCH_WINDOW_MAX 4096
#define LATENCY_BUCKETS  1024

/* Latencies in buckets of 1/16 octave: 4 % wide. */
struct latency {
    uint64_t n[LATENCY_BUCKETS]; /* counts */
    uint64_t total;              /* of all buckets */
};

void latency_add(struct latency *l, uint64_t ns);
double latency_us(const struct latency *l, double fraction); /* 0.5: the median */

/* A case under way, shared by its members' threads. The main thread moves the phases on, in
 * bench_run_measure; whoever leads says ready and, in PHASE_MEASURED, tells what was written. */
enum bench_phase { PHASE_READY, PHASE_WARM, PHASE_MEASURED, PHASE_OVER };

struct bench_run {
    const struct bench_case *c;
    _Atomic int phase;      /* enum bench_phase */
    _Atomic int ready;      /* the members are all there and one leads */
    _Atomic int failed;     /* enum err of a member */
    _Atomic uint64_t done;  /* writes, while measured */
    struct latency latency; /* the leader's thread only */
};

void bench_run_written(struct bench_run *r, uint64_t began_ns);         /* on the leader's thread */
void bench_run_measure(struct bench_run *r, struct bench_figures *out); /* latencies not yet */
void bench_run_latencies(const struct bench_run *r,
                         struct bench_figures *out); /* threads are gone */

uint64_t bench_now_ns(void);
void bench_pause_s(double s);
double bench_cpu_s(void); /* user and system time of the process so far */
RESULT bench_dir(const char *parent, char out[256]); /* a fresh directory */
void bench_remove(const char *dir);                  /* with all that is in it */

/* The least that a write of one member, or of three with these directories, can take, in
 * microseconds. */
struct bench_least {
    double alone_us;    /* a synced 4 KiB write by itself; with three a loopback trip more */
    double together_us; /* the same while as many write as there are members */
};
void bench_floor_least(const char *const dirs[BENCH_MEMBERS], unsigned nodes,
                       struct bench_least *out);

RESULT bench_uv(const struct bench_case *c, struct bench_figures *out); /* libraft's own driver */
RESULT bench_conclave(const struct bench_case *c, struct bench_figures *out); /* ours */

/* The benchmarks: called with their own name as argv[0]; the result is the exit code. main.c has
 * the table. */
int bench_replication(int argc, char **argv);
int bench_floor(int argc, char **argv);
int bench_store(int argc, char **argv);
int bench_embed(int argc, char **argv);
int bench_watch(int argc, char **argv);
int bench_ca(int argc, char **argv);
int bench_secrets(int argc, char **argv);

#endif
