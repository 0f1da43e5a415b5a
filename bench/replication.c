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
    unsigned windows[3], windows_n;  /* writes under way */
    double seconds;                  /* a case, engine and round */
    unsigned rounds;                 /* the engines take turns this often */
    const char *dirs[BENCH_MEMBERS]; /* data directories go there */
    unsigned dirs_n;                 /* 1, or one for each member */
    bool engines[ENGINES];           /* which ones run */
};

static const char usage[] =
    "usage: conclave-bench replication [options]\n\n"
    "  --nodes N      1 or 3 (default: both)\n"
    "  --size BYTES   of a write (default: 128, 1024 and 16384)\n"
    "  --window N     writes under way at any time (default: 1, 64 and 512)\n"
    "  --seconds S    measured per case, engine and round (default: 1)\n"
    "  --rounds N     the engines take turns N times; medians are printed (default: 5)\n"
    "  --dir DIR      where the data goes: the disk that is measured (default: .); given three\n"
    "                 times, each member has a disk of its own\n"
    "  --engine NAME  conclave, null or uv only; may be given again\n\n"
    "Conclave's members talk TLS 1.3 and seal their logs; \"null cipher\" leaves out the sealing "
    "at rest;\n"
    "\"libraft uv\" is libraft's own driver, neither sealed nor TLS. cpu is the time of all "
    "members a write.\n";

/* Fresh directories, one for each that the user gave: each member its own, or one for all. */
struct places {
    char made[BENCH_MEMBERS][256];
    unsigned n; /* of them */
    const char *of[BENCH_MEMBERS];
};

static void places_remove(const struct places *p) {
    for (unsigned i = 0; i < p->n; i++)
        bench_remove(p->made[i]);
}

static RESULT places_make(const struct options *o, struct places *p) {
    for (p->n = 0; p->n < o->dirs_n; p->n++) {
        enum err e = bench_dir(o->dirs[p->n], p->made[p->n]);
        if (e == OK) continue;
        places_remove(p);
        return e;
    }
    for (unsigned i = 0; i < BENCH_MEMBERS; i++)
        p->of[i] = p->made[p->n == BENCH_MEMBERS ? i : 0];
    return OK;
}

static RESULT run_here(enum engine engine, struct bench_case c, struct bench_figures *out) {
    c.null_cipher = engine == ENGINE_NULL;
    return engine == ENGINE_UV ? bench_uv(&c, out) : bench_conclave(&c, out);
}

/* In a child, so that one case's threads, memory and ports are not the next one's. */
static RESULT run(enum engine engine, const struct options *o, struct bench_case c,
                  struct bench_figures *out) {
    struct places places;
    int ends[2];
    TRY(places_make(o, &places));
    if (pipe2(ends, O_CLOEXEC) != 0) {
        places_remove(&places);
        return ERR_IO;
    }
    memcpy(c.dirs, places.of, sizeof c.dirs);
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
    places_remove(&places);
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

/* Quartiles: half of the rounds lie between low and high. */
struct spread {
    double low, median, high;
};

static struct spread spread_of(const double *values, unsigned n) {
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, by_size);
    return (struct spread){sorted[n / 4], sorted[n / 2], sorted[n - 1 - n / 4]};
}

static double median(const double *values, unsigned n) { return spread_of(values, n).median; }

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

/* Of the ratios round by round, so that both sides saw the same machine. */
static struct spread ratio(const struct bench_figures *a, const struct bench_figures *b, unsigned n,
                           bool cpu) {
    double values[ROUNDS_MAX] = {0};
    for (unsigned i = 0; i < n; i++)
        values[i] = cpu ? a[i].cpu_us / b[i].cpu_us : a[i].per_s / b[i].per_s;
    return spread_of(values, n);
}

/* Of a lone writer the floor is measured in each round too. */
static RESULT run_floor(const struct options *o, const struct bench_case *c,
                        struct bench_least *least) {
    struct places places;
    if (c->window != 1) return OK;
    TRY(places_make(o, &places));
    bench_floor_least(places.of, c->nodes, least);
    places_remove(&places);
    return OK;
}

static int run_rounds(const struct options *o, const struct bench_case *c,
                      struct bench_figures f[ENGINES][ROUNDS_MAX], struct bench_least *least) {
    for (unsigned i = 0; i < o->rounds; i++) {
        enum err failed = run_floor(o, c, &least[i]);
        const char *name = "the bare disk";
        for (int k = 0; k < ENGINES && failed == OK; k++) {
            int e = i % 2 == 0 ? k : ENGINES - 1 - k; /* who is first has the quieter machine */
            name = engine_names[e];
            if (o->engines[e]) failed = run((enum engine)e, o, *c, &f[e][i]);
        }
        if (failed == OK) continue;
        fprintf(stderr, "conclave-bench: replication: %s failed\n", name);
        return err_exit(ERR_IO);
    }
    return 0;
}

/* Round by round, as ratio(). */
static void print_floor(const struct bench_figures *ours, const struct bench_least *least,
                        const struct bench_case *c, unsigned n) {
    double alone[ROUNDS_MAX] = {0}, together[ROUNDS_MAX] = {0};
    for (unsigned i = 0; i < n; i++) {
        alone[i] = ours[i].p50_us / least[i].alone_us;
        together[i] = ours[i].p50_us / least[i].together_us;
    }
    if (c->nodes == 1)
        printf("  p50 to the floor       %9.2fx of a synced 4 KiB write\n", median(alone, n));
    else
        printf("  p50 to the floor       %9.2fx of a synced 4 KiB write and a loopback trip, "
               "%.2fx of one while %u write\n",
               median(alone, n), median(together, n), c->nodes);
}

static void print_cost(const struct bench_figures *sealed, const struct bench_figures *plain,
                       unsigned n) {
    struct spread rate = ratio(sealed, plain, n, false), cpu = ratio(sealed, plain, n, true);
    printf("  cost of encryption     %9.1f %% of the rate (half of the rounds: %.1f to %.1f), "
           "%.1f %% of the processor time (%.1f to %.1f)\n",
           100 * (1 - rate.median), 100 * (1 - rate.high), 100 * (1 - rate.low),
           100 * (cpu.median - 1), 100 * (cpu.low - 1), 100 * (cpu.high - 1));
}

static int run_case(const struct options *o, const struct bench_case *c) {
    struct bench_figures f[ENGINES][ROUNDS_MAX] = {0};
    struct bench_least least[ROUNDS_MAX] = {0};
    printf("%u member%s, %zu B, window %u\n", c->nodes, c->nodes == 1 ? "" : "s", c->size,
           c->window);
    (void)fflush(stdout);
    int failed = run_rounds(o, c, f, least);
    if (failed != 0) return failed;
    for (int e = 0; e < ENGINES; e++) {
        if (!o->engines[e]) continue;
        struct bench_figures m = medians(f[e], o->rounds);
        print_row(engine_names[e], &m);
    }
    const struct bench_figures *ours = f[ENGINE_CONCLAVE];
    if (o->engines[ENGINE_CONCLAVE] && c->window == 1) print_floor(ours, least, c, o->rounds);
    if (o->engines[ENGINE_CONCLAVE] && o->engines[ENGINE_UV])
        printf("  ratio to libraft uv    %9.2fx\n",
               ratio(ours, f[ENGINE_UV], o->rounds, false).median);
    if (o->engines[ENGINE_CONCLAVE] && o->engines[ENGINE_NULL])
        print_cost(ours, f[ENGINE_NULL], o->rounds);
    (void)fflush(stdout);
    return 0;
}

/* The options, and what each takes; names as getopt has them. */
static const struct {
    const char *name, *takes;
    int letter;
    double least, most; /* of a number; most 0: it is no number */
    bool whole;         /* it is one without a fraction */
} accepts[] = {
    {"nodes", "1 or 3", 'n', 1, 3, true},
    {"size", "1 to 1000000", 's', 1, 1e6, true},
    {"window", "1 to 4096", 'w', 1, BENCH_WINDOW_MAX, true},
    {"seconds", "0.01 to 3600", 't', 0.01, 3600, false},
    {"rounds", "1 to 101", 'r', 1, ROUNDS_MAX, true},
    {"engine", "conclave, null or uv", 'e', 0, 0, false},
    {"dir", "a directory, once or three times", 'd', 0, 0, false},
    {"help", "nothing", 'h', 0, 0, false},
};
_Static_assert(BENCH_WINDOW_MAX == 4096 && ROUNDS_MAX == 101, "as the sentences say");

static bool take_engine(struct options *o, const char *text, bool *chosen) {
    static const char *const names[ENGINES] = {"conclave", "null", "uv"};
    for (int e = 0; e < ENGINES; e++) {
        if (strcmp(text, names[e]) != 0) continue;
        if (!*chosen) memset(o->engines, 0, sizeof o->engines);
        o->engines[e] = *chosen = true;
        return true;
    }
    return false;
}

static bool take_dir(struct options *o, const char *text, bool *chosen) {
    if (!*chosen) o->dirs_n = 0;
    *chosen = true;
    if (o->dirs_n == BENCH_MEMBERS) return false;
    o->dirs[o->dirs_n++] = text;
    return true;
}

static bool take_number(struct options *o, int letter, double number) {
    switch (letter) {
    case 'n':
        o->nodes[0] = (unsigned)number;
        o->nodes_n = 1;
        return number != 2;
    case 's':
        o->sizes[0] = (size_t)number;
        o->sizes_n = 1;
        return true;
    case 'w':
        o->windows[0] = (unsigned)number;
        o->windows_n = 1;
        return true;
    case 't': o->seconds = number; return true;
    default: o->rounds = (unsigned)number; return true;
    }
}

/* What the first of an option that may be given again replaces: the default. */
struct chosen {
    bool engine, dir;
};

static bool take(struct options *o, size_t i, const char *text, struct chosen *chosen) {
    char *end;
    if (accepts[i].letter == 'd') return take_dir(o, text, &chosen->dir);
    if (accepts[i].letter == 'e') return take_engine(o, text, &chosen->engine);
    if (accepts[i].most == 0) return true;
    double number = strtod(text, &end);
    bool fits = end != text && *end == '\0' && number >= accepts[i].least &&
                number <= accepts[i].most &&
                (!accepts[i].whole || number == (double)(unsigned)number);
    return fits && take_number(o, accepts[i].letter, number);
}

/* OK, or what is wrong was said. */
static RESULT parse(int argc, char **argv, struct options *o, bool *help) {
    struct option names[ARRAY_SIZE(accepts) + 1] = {0};
    struct chosen chosen = {0};
    for (size_t i = 0; i < ARRAY_SIZE(accepts); i++)
        names[i] = (struct option){accepts[i].name, required_argument, NULL, accepts[i].letter};
    names[ARRAY_SIZE(accepts) - 1].has_arg = no_argument;
    int at;
    for (int c; (c = getopt_long(argc, argv, "h", names, &at)) != -1;) {
        if (c == 'h') {
            *help = true;
            return OK;
        }
        if (c == '?') return ERR_USAGE; /* getopt has said it */
        if (take(o, (size_t)at, optarg, &chosen)) continue;
        fprintf(stderr, "conclave-bench: replication: --%s takes %s, not \"%s\"\n",
                accepts[at].name, accepts[at].takes, optarg);
        return ERR_USAGE;
    }
    if (o->dirs_n == 2) {
        fputs("conclave-bench: replication: --dir is given once or three times\n", stderr);
        return ERR_USAGE;
    }
    if (optind == argc) return OK;
    fprintf(stderr, "conclave-bench: replication: \"%s\" is no option\n", argv[optind]);
    return ERR_USAGE;
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
                        .dirs = {"."},
                        .dirs_n = 1,
                        .engines = {true, true, true}};
    bool help = false;
    if (parse(argc, argv, &o, &help) != OK) {
        fputs("conclave-bench replication --help tells more\n", stderr);
        return err_exit(ERR_USAGE);
    }
    if (help) {
        fputs(usage, stdout);
        return 0;
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
