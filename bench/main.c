/* conclave-bench NAME [ARGUMENTS]: finds the benchmark in the table and runs it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "crypto/secret.h"

static const struct {
    const char *name;
    const char *text;
    int (*run)(int argc, char **argv);
} benchmarks[] = {
    {"replication", "committed writes a second and their latency, beside libraft's own driver",
     bench_replication},
    {"floor", "what the bare disk and the loopback give", bench_floor},
    {"store", "the state machine alone: puts, gets, scans, image, memory", bench_store},
    {"embed", "the embedded library: durable puts, transactions, gets, open", bench_embed},
    {"watch", "ten thousand watchers on one member: memory, latency, a client that stalls",
     bench_watch},
    {"ca", "nodes that join and renew a second, beside bare signatures", bench_ca},
    {"secrets", "changed secrets on their way to nodes: time, the manager's memory, bytes",
     bench_secrets},
};

static void usage(FILE *out) {
    (void)fputs(
        "usage: conclave-bench NAME [ARGUMENTS]     conclave-bench NAME --help tells more\n\n",
        out);
    for (size_t i = 0; i < sizeof benchmarks / sizeof benchmarks[0]; i++)
        (void)fprintf(out, "  %-12s %s\n", benchmarks[i].name, benchmarks[i].text);
}

int main(int argc, char **argv) {
    struct why why;
    (void)signal(SIGPIPE, SIG_IGN); /* a closed connection is an error code, not an end */
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stdout);
        return 0;
    }
    enum err e = crypto_start(&why);
    if (e != OK) {
        (void)fprintf(stderr, "conclave-bench: %s\n", why.text);
        return err_exit(e);
    }
    for (size_t i = 0; i < sizeof benchmarks / sizeof benchmarks[0]; i++)
        if (strcmp(argv[1], benchmarks[i].name) == 0) return benchmarks[i].run(argc - 1, argv + 1);
    (void)fprintf(stderr, "conclave-bench: no benchmark \"%s\"\n", argv[1]);
    usage(stderr);
    return err_exit(ERR_USAGE);
}
