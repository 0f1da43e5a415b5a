/* conclave-sim: runs seeds, prints figures, and names the seed and the one command that shows a
 * violation again. --guards takes each guard of the engine away in turn and looks for a seed that
 * breaks without it.
 *
 * The seed that the crash handler prints is the only global here. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim.h"

#ifdef __SANITIZE_ADDRESS__ /* gcc's name */
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) /* clang's */
#define SANITIZED
#endif
#endif
#ifdef SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

static volatile uint64_t seed_now; /* for the crash handler */

static void tell_seed(void) {
    char text[96] = "conclave-sim: crashed; again: build/conclave-sim --runs 1 --seed ", digits[21];
    size_t n = 0, at = strlen(text);
    uint64_t seed = seed_now;
    do
        digits[n++] = (char)('0' + seed % 10);
    while ((seed /= 10) != 0);
    while (n != 0)
        text[at++] = digits[--n];
    text[at++] = '\n';
    (void)!write(STDERR_FILENO, text, at);
}

static void on_crash(int number) {
    tell_seed();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* A sanitizer tells where it was by itself, and calls back. */
static void watch_crashes(void) {
    (void)signal(SIGABRT, on_crash);
#ifdef SANITIZED
    __sanitizer_set_death_callback(tell_seed);
#else
    (void)signal(SIGSEGV, on_crash);
    (void)signal(SIGBUS, on_crash);
    (void)signal(SIGFPE, on_crash);
#endif
}

struct arguments {
    uint64_t seed, runs, seconds; /* the first; how many; for how long: 0: no limit */
    bool twice, guards, keep_going, verbose;
    struct sim_options options;
};

static bool run(const struct arguments *a, uint64_t seed, struct figures *sum, char *violation) {
    uint64_t hash, again;
    seed_now = seed;
    if (!sim_run(seed, &a->options, sum, &hash, violation)) return false;
    if (a->verbose)
        printf("seed %llu: trace %016llx\n", (unsigned long long)seed, (unsigned long long)hash);
    if (!a->twice) return true;
    if (!sim_run(seed, &a->options, sum, &again, violation)) return false;
    if (again == hash) return true;
    (void)snprintf(violation, VIOLATION_MAX, "two runs differ: the simulator is not deterministic");
    return false;
}

static double seconds_now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void print_figures(const struct figures *f, uint64_t violations, double seconds) {
    printf("%llu seeds in %.1f s (%.1f/s), %.2f simulated hours, %llu events, %llu frames, "
           "%llu elections, %llu crashes, %llu clean stops, %llu failed nodes, %llu snapshots, "
           "%llu restored, %llu member changes, %llu transfers, %llu rotations, %llu writes "
           "(%llu acknowledged, %llu refused, %llu unknown, %llu for lack of space), %llu applied, "
           "%llu reads, %llu violations\n",
           (unsigned long long)f->seeds, seconds, seconds > 0 ? (double)f->seeds / seconds : 0,
           (double)f->us / 3.6e9, (unsigned long long)f->events, (unsigned long long)f->frames,
           (unsigned long long)f->elections, (unsigned long long)f->crashes,
           (unsigned long long)f->stops, (unsigned long long)f->failures,
           (unsigned long long)f->snapshots, (unsigned long long)f->installs,
           (unsigned long long)f->changes, (unsigned long long)f->transfers,
           (unsigned long long)f->rotations, (unsigned long long)f->proposed,
           (unsigned long long)f->acknowledged, (unsigned long long)f->refused,
           (unsigned long long)f->unknown, (unsigned long long)f->full_disk,
           (unsigned long long)f->commands, (unsigned long long)f->reads,
           (unsigned long long)violations);
}

static void print_without(uint32_t without) {
    for (unsigned i = 0; i < GUARD_COUNT; i++)
        if ((without >> i & 1) != 0) printf(" --without %s", guard_name((enum guard_id)i));
}

static void print_violation(const struct arguments *a, uint64_t seed, const char *violation) {
    printf("seed %llu: %s\nagain: build/conclave-sim --seed %llu --runs 1 --trace",
           (unsigned long long)seed, violation, (unsigned long long)seed);
    if (a->options.nodes != 0) printf(" --nodes %u", a->options.nodes);
    if (a->options.profile != 0)
        printf(" --profile %s", profile_name((enum profile)(a->options.profile - 1)));
    print_without(a->options.without);
    putchar('\n');
}

static int run_seeds(const struct arguments *a) {
    struct figures sum = {0};
    char violation[VIOLATION_MAX];
    double began = seconds_now(), now = began;
    uint64_t bad = 0, seed = a->seed;
    for (; a->runs == 0 || seed - a->seed < a->runs; seed++) {
        if (a->seconds != 0 && now - began >= (double)a->seconds) break;
        if (!run(a, seed, &sum, violation)) {
            print_violation(a, seed, violation);
            bad++;
        }
        now = seconds_now();
        if (bad >= (a->keep_going ? 1000 : 1)) break;
    }
    print_figures(&sum, bad, now - began);
    return bad == 0 ? 0 : 1;
}

/* ---- the ablation ---- */

/* Looks for a seed that fails without the guard, the profile that is made for it first. */
static bool guard_is_needed(const struct arguments *a, enum guard_id id) {
    struct arguments mine = *a;
    struct figures sum = {0};
    char violation[VIOLATION_MAX];
    double began = seconds_now();
    mine.options.without = 1u << id;
    unsigned long long tried = 0;
    for (; seconds_now() - began < (double)a->seconds; tried++) {
        uint64_t seed = a->seed + tried;
        mine.options.profile = plan_for_guard((unsigned)id, tried) + 1U;
        if (run(&mine, seed, &sum, violation)) continue;
        printf("%-20s needed: after %llu seeds, ", guard_name(id), tried + 1);
        print_violation(&mine, seed, violation);
        return true;
    }
    printf("%-20s %llu seeds, and nothing failed without it\n", guard_name(id), tried);
    return false;
}

static int run_guards(struct arguments *a) {
    static const enum guard_id needed[] = {
        GUARD_SOLE_VOTER,  GUARD_CHANGE_SPLIT,   GUARD_REPEATED_REJECTION, GUARD_PERSISTED_PREFIX,
        GUARD_SELF_CHANGE, GUARD_NON_VOTER_VOTE, GUARD_SNAPSHOT_IN_FLIGHT};
    if (a->seconds == 0) a->seconds = 60;
    unsigned missing = 0;
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
        bool only = a->options.without == 0 || (a->options.without >> needed[i] & 1) != 0;
        if (only && !guard_is_needed(a, needed[i])) missing++;
    }
    printf("%u guards could not be shown to be needed\n", missing);
    return missing == 0 ? 0 : 1;
}

/* ---- the command line ---- */

static void usage(FILE *to) {
    fprintf(to, "usage: conclave-sim [--seconds N] [--seed S] [--runs N] [--nodes 1|3|5]\n"
                "                    [--profile NAME] [--without GUARD]... [--twice] [--trace]\n"
                "                    [--keep-going] [--verbose]\n"
                "       conclave-sim --guards [--seconds N] [--seed S] [--without GUARD]...\n\n"
                "  --seconds N   runs seeds for N seconds (with --guards: for each guard; 60)\n"
                "  --seed S      the first seed (1); the next ones follow\n"
                "  --runs N      this many seeds\n"
                "  --nodes N     clusters grow to N voters; 0: as the seed says\n"
                "  --twice       runs each seed twice and compares the traces\n"
                "  --trace       prints every event\n"
                "  --keep-going  does not stop at the first violation\n"
                "  --guards      takes guards away and looks for a seed that fails\n\nprofiles:");
    for (unsigned i = 0; i < PROFILE_COUNT; i++)
        fprintf(to, " %s", profile_name((enum profile)i));
    fprintf(to, "\nguards:");
    for (unsigned i = 0; i < GUARD_COUNT; i++)
        fprintf(to, " %s", guard_name((enum guard_id)i));
    fputc('\n', to);
}

static bool parse_number(const char *text, uint64_t *out) {
    char *end;
    *out = strtoull(text, &end, 10);
    return text[0] != '\0' && text[0] != '-' && *end == '\0';
}

static bool parse_guard(const char *text, uint32_t *without) {
    for (unsigned i = 0; i < GUARD_COUNT; i++)
        if (strcmp(text, guard_name((enum guard_id)i)) == 0) {
            *without |= 1u << i;
            return true;
        }
    return false;
}

static bool parse_profile(const char *text, unsigned *out) {
    for (unsigned i = 0; i < PROFILE_COUNT; i++)
        if (strcmp(text, profile_name((enum profile)i)) == 0) {
            *out = i + 1;
            return true;
        }
    return false;
}

static bool parse_option(int option, const char *text, struct arguments *a) {
    uint64_t nodes;
    switch (option) {
    case 's': return parse_number(text, &a->seconds);
    case 'S': return parse_number(text, &a->seed);
    case 'r': return parse_number(text, &a->runs);
    case 'w': return parse_guard(text, &a->options.without);
    case 'p': return parse_profile(text, &a->options.profile);
    case 't': a->options.trace = true; return true;
    case '2': a->twice = true; return true;
    case 'g': a->guards = true; return true;
    case 'k': a->keep_going = true; return true;
    case 'v': a->verbose = true; return true;
    case 'n':
        if (!parse_number(text, &nodes) || nodes > 5) return false;
        a->options.nodes = (unsigned)nodes;
        return true;
    default: return false;
    }
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct arguments *a) {
    static const struct option options[] = {{"seconds", required_argument, NULL, 's'},
                                            {"seed", required_argument, NULL, 'S'},
                                            {"runs", required_argument, NULL, 'r'},
                                            {"nodes", required_argument, NULL, 'n'},
                                            {"without", required_argument, NULL, 'w'},
                                            {"profile", required_argument, NULL, 'p'},
                                            {"trace", no_argument, NULL, 't'},
                                            {"twice", no_argument, NULL, '2'},
                                            {"guards", no_argument, NULL, 'g'},
                                            {"keep-going", no_argument, NULL, 'k'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h') {
            usage(stdout);
            return 0;
        }
        if (!parse_option(option, optarg, a)) {
            usage(stderr);
            return 64;
        }
    }
    if (a->seconds == 0 && a->runs == 0 && !a->guards) a->seconds = 10;
    return optind == argc ? -1 : 64;
}

int main(int argc, char **argv) {
    struct arguments a = {.seed = 1};
    int code = parse(argc, argv, &a);
    if (code >= 0) return code;
    (void)setvbuf(stdout, NULL, a.options.trace ? _IOFBF : _IOLBF, 1 << 16);
    entropy_replace();
    struct why why = {0};
    if (crypto_start(&why) != OK) {
        fprintf(stderr, "conclave-sim: %s\n", why.text);
        return 70;
    }
    watch_crashes();
    return a.guards ? run_guards(&a) : run_seeds(&a);
}
