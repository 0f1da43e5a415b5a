/* `conclave-bench replication`: the same load through Conclave, through Conclave with the null
 * cipher at rest, and through libraft's own libuv driver (no encryption at all), case by case in
 * one run, so that the ratios hold on a noisy machine. Each case runs in a process of its own. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"

#define ROUNDS_MAX 101

enum engine { ENGINE_CONCLAVE, ENGINE_NULL, ENGINE_UV, ENGINES };
static const char *const engine_names[ENGINES] = {"conclave", "conclave, null cipher",
                                                  "libraft uv"};

struct options {
    unsigned nodes[2], nodes_n; /* cluster sizes */
    size_t sizes[3];            /* of a write */
    unsigned sizes_n;
    unsigned windows[3], windows_n; /* writes under way */
    double seconds;                 /* a case, engine and round */
    unsigned rounds;                /* the engines take turns this often */
    const char *dir;                /* data directories go there */
    bool engines[ENGINES];          /* which ones run */
};

static const char usage[] =
    "usage: conclave-bench replication [options]\n\n"
    "  --nodes N      1 or 3 (default: both)\n"
    "  --size BYTES   of a write (default: 128, 1024 and 16384)\n"
    "  --window N     writes under way at any time (default: 1, 64 and 512)\n"
    "  --seconds S    measured per case, engine and round (default: 1)\n"
    "  --rounds N     the engines take turns N times; medians are printed (default: 5)\n"
    "  --dir DIR      where the data goes: the disk that is measured (default: .)\n"
    "  --engine NAME  conclave, null or uv only; may be given again\n\n"
    "Conclave's members talk TLS 1.3 and seal their logs; \"null cipher\" leaves out the sealing "
    "at rest;\n"
    "\"libraft uv\" is libraft's own driver, neither sealed nor TLS. cpu is the time of all "
    "members a write.\n";

static RESULT run_here(enum engine engine, struct bench_case c, struct bench_figures *out) {
    c.null_cipher = engine == ENGINE_NULL;
    return engine == ENGINE_UV ? bench_uv(&c, out) : bench_conclave(&c, out);
}

/* In a child, so that one case's threads, memory and ports are not the next one's. */
static RESULT run(enum engine engine, const struct options *o, struct bench_case c,
                  struct bench_figures *out) {
    char dir[256];
    int ends[2];
    TRY(bench_dir(o->dir, dir));
    if (pipe2(ends, O_CLOEXEC) != 0) return ERR_IO;
    c.dir = dir;
    pid_t child = fork();
    if (child == 0) {
        struct bench_figures f = {0};
        bool fine = run_here(engine, c, &f) == OK && write(ends[1], &f, sizeof f) == sizeof f;
        _exit(fine ? 0 : 1);
    }
    (void)close(ends[1]);
    int status = -1;
    bool fine = child > 0 && read(ends[0], out, sizeof *out) == sizeof *out;
    fine = child > 0 && waitpid(child, &status, 0) == child && status == 0 && fine;
    (void)close(ends[0]);
    bench_remove(dir);
    return fine ? OK : ERR_IO;
}

static void print_row(const char *name, const struct bench_figures *f) {
    printf("  %-22s %9.0f/s  p50 %8.0f  p99 %8.0f  p99.9 %8.0f us  cpu %6.1f us\n", name, f->per_s,
           f->p50_us, f->p99_us, f->p999_us, f->cpu_us);
    (void)fflush(stdout);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, unsigned n) {
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, by_size);
    return sorted[n / 2];
}

/* Figure by figure, over the rounds. */
static struct bench_figures medians(const struct bench_figures *rounds, unsigned n) {
    struct bench_figures out = {0};
    double values[ROUNDS_MAX] = {0};
    for (size_t k = 0; k < sizeof out / sizeof(double); k++) {
        for (unsigned i = 0; i < n; i++)
            values[i] = ((const double *)&rounds[i])[k];
        ((double *)&out)[k] = median(values, n);
    }
    return out;
}

/* The median of the ratios round by round, so that both sides saw the same machine. */
static double ratio(const struct bench_figures *a, const struct bench_figures *b, unsigned n,
                    bool cpu) {
    double values[ROUNDS_MAX] = {0};
    for (unsigned i = 0; i < n; i++)
        values[i] = cpu ? a[i].cpu_us / b[i].cpu_us : a[i].per_s / b[i].per_s;
    return median(values, n);
}

static int run_rounds(const struct options *o, const struct bench_case *c,
                      struct bench_figures f[ENGINES][ROUNDS_MAX]) {
    for (unsigned i = 0; i < o->rounds; i++)
        for (int e = 0; e < ENGINES; e++) {
            if (!o->engines[e] || run((enum engine)e, o, *c, &f[e][i]) == OK) continue;
            fprintf(stderr, "conclave-bench: replication: %s failed\n", engine_names[e]);
            return err_exit(ERR_IO);
        }
    return 0;
}

static int run_case(const struct options *o, const struct bench_case *c) {
    struct bench_figures f[ENGINES][ROUNDS_MAX] = {0};
    printf("%u member%s, %zu B, window %u\n", c->nodes, c->nodes == 1 ? "" : "s", c->size,
           c->window);
    (void)fflush(stdout);
    int failed = run_rounds(o, c, f);
    if (failed != 0) return failed;
    for (int e = 0; e < ENGINES; e++) {
        if (!o->engines[e]) continue;
        struct bench_figures m = medians(f[e], o->rounds);
        print_row(engine_names[e], &m);
    }
    const struct bench_figures *ours = f[ENGINE_CONCLAVE];
    if (o->engines[ENGINE_CONCLAVE] && o->engines[ENGINE_UV])
        printf("  ratio to libraft uv    %9.2fx\n", ratio(ours, f[ENGINE_UV], o->rounds, false));
    if (o->engines[ENGINE_CONCLAVE] && o->engines[ENGINE_NULL])
        printf("  cost of encryption     %9.1f %% of the rate, %.1f %% of the processor time\n",
               100 * (1 - ratio(ours, f[ENGINE_NULL], o->rounds, false)),
               100 * (ratio(ours, f[ENGINE_NULL], o->rounds, true) - 1));
    (void)fflush(stdout);
    return 0;
}

static bool parse(int argc, char **argv, struct options *o) {
    static const struct option names[] = {{"nodes", required_argument, NULL, 'n'},
                                          {"size", required_argument, NULL, 's'},
                                          {"window", required_argument, NULL, 'w'},
                                          {"seconds", required_argument, NULL, 't'},
                                          {"dir", required_argument, NULL, 'd'},
                                          {"rounds", required_argument, NULL, 'r'},
                                          {"engine", required_argument, NULL, 'e'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    bool chosen = false;
    for (int c; (c = getopt_long(argc, argv, "h", names, NULL)) != -1;) {
        const char *text = optarg != NULL ? optarg : "";
        double number = strtod(text, NULL);
        if (c == 'n' && (number == 1 || number == 3)) {
            o->nodes[0] = (unsigned)number;
            o->nodes_n = 1;
        } else if (c == 's' && number >= 1 && number <= 1e6) {
            o->sizes[0] = (size_t)number;
            o->sizes_n = 1;
        } else if (c == 'w' && number >= 1 && number <= BENCH_WINDOW_MAX) {
            o->windows[0] = (unsigned)number;
            o->windows_n = 1;
        } else if (c == 't' && number > 0 && number < 3600) {
            o->seconds = number;
        } else if (c == 'r' && number >= 1 && number <= ROUNDS_MAX) {
            o->rounds = (unsigned)number;
        } else if (c == 'd') {
            o->dir = text;
        } else if (c == 'e') {
            int e = strcmp(text, "uv") == 0     ? ENGINE_UV
                    : strcmp(text, "null") == 0 ? ENGINE_NULL
                                                : 0;
            if (!chosen) memset(o->engines, 0, sizeof o->engines);
            o->engines[e] = chosen = true;
        } else {
            return false;
        }
    }
    return optind == argc;
}

int bench_replication(int argc, char **argv) {
    struct options o = {.nodes = {1, 3},
                        .nodes_n = 2,
                        .sizes = {128, 1024, 16384},
                        .sizes_n = 3,
                        .windows = {1, 64, 512},
                        .windows_n = 3,
                        .seconds = 1,
                        .rounds = 5,
                        .dir = ".",
                        .engines = {true, true, true}};
    if (!parse(argc, argv, &o)) {
        fputs(usage, argc > 1 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
        return argc > 1 && strcmp(argv[1], "--help") == 0 ? 0 : err_exit(ERR_USAGE);
    }
    for (unsigned n = 0; n < o.nodes_n; n++)
        for (unsigned s = 0; s < o.sizes_n; s++)
            for (unsigned w = 0; w < o.windows_n; w++) {
                struct bench_case c = {.nodes = o.nodes[n],
                                       .size = o.sizes[s],
                                       .window = o.windows[w],
                                       .seconds = o.seconds};
                int rv = run_case(&o, &c);
                if (rv != 0) return rv;
            }
    return 0;
}
