/* What a write can't be faster than: one synced write of a block into pre-written space, alone and
 * with as many at once as there are members on the disk, and one round trip over the loopback. In
 * one process, medians of many. And how much of it is the disk's doing when a snapshot is written
 * beside it: one write each PACED_US, alone and while another process writes a large file as
 * quickly as a stream of a snapshot goes, the two by turns. And what sealing takes at least: the
 * best of many records, beside the null cipher, which only copies. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "bench/bench.h"
#include "crypto/gcm.h"
#include "crypto/limits.h"
#include "crypto/seal.h"

#define WRITES 2000
#define TRIPS  5000

#define PACED_US     5000       /* between the beginnings of two paced writes */
#define PACED_WRITES 300        /* a turn */
#define TURNS        4          /* alone and beside the other process */
#define BULK_PIECE   (64 * KIB) /* as a snapshot's */
#define BULK_SYNC    (32 * MIB) /* the same */
#define SEAL_ENTRY   (16 * KIB)
#define SEAL_ENTRIES 64
#define SEAL_RECORDS 400
#define BULK_FILE    (512 * MIB) /* then from the beginning */

static int fill(int fd, uint8_t *block) {
    for (int i = 0; i < WRITES; i++)
        if (pwrite(fd, block, BLOCK_SIZE, (off_t)i * BLOCK_SIZE) != BLOCK_SIZE) return -1;
    return fsync(fd);
}

static double write_us(const char *dir, int flags, int writer) {
    char path[300];
    struct latency l = {0};
    uint8_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
    (void)snprintf(path, sizeof path, "%s/floor%d", dir, writer);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || block == NULL) abort();
    memset(block, 0, BLOCK_SIZE);
    if (fill(fd, block) != 0) abort();
    (void)close(fd);
    fd = open(path, O_RDWR | O_CLOEXEC | flags);
    memset(block, 'x', BLOCK_SIZE);
    for (int i = 0; fd >= 0 && i < WRITES; i++) {
        uint64_t began = bench_now_ns();
        if (pwrite(fd, block, BLOCK_SIZE, (off_t)i * BLOCK_SIZE) != BLOCK_SIZE) break;
        if (flags == 0 && fdatasync(fd) != 0) abort();
        latency_add(&l, bench_now_ns() - began);
    }
    if (fd >= 0) (void)close(fd);
    (void)unlink(path);
    free(block);
    return latency_us(&l, 0.5);
}

struct writer {
    const char *dir; /* where */
    int flags, n;    /* of open; number */
    double us;       /* median */
    uv_thread_t thread;
};

static void write_alone(void *arg) {
    struct writer *w = arg;
    w->us = write_us(w->dir, w->flags, w->n);
}

/* As members do it: each that shares a disk with others waits for their flushes too. */
static double writers_us(const char *const dirs[BENCH_MEMBERS], int flags) {
    struct writer w[BENCH_MEMBERS];
    double worst = 0;
    for (int i = 0; i < BENCH_MEMBERS; i++) {
        w[i] = (struct writer){.dir = dirs[i], .flags = flags, .n = i};
        if (uv_thread_create(&w[i].thread, write_alone, &w[i]) != 0) abort();
    }
    for (int i = 0; i < BENCH_MEMBERS; i++) {
        (void)uv_thread_join(&w[i].thread);
        if (w[i].us > worst) worst = w[i].us;
    }
    return worst;
}

static void wait_for(uint64_t at_ns) {
    struct timespec at = {.tv_sec = (time_t)(at_ns / 1000000000),
                          .tv_nsec = (long)(at_ns % 1000000000)};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* The other process: writes and syncs until it is ended, or its parent is. */
static void bulk(const char *path) {
    uint8_t *piece = aligned_alloc(BLOCK_SIZE, BULK_PIECE);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC, 0600);
    if (fd < 0) fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fd < 0 || piece == NULL) _exit(1);
    memset(piece, 'z', BULK_PIECE);
    uint64_t next = bench_now_ns();
    for (uint64_t at = 0;; at += BULK_PIECE) {
        wait_for(next);
        if (pwrite(fd, piece, BULK_PIECE, (off_t)(at % BULK_FILE)) != (ssize_t)BULK_PIECE) break;
        if (at % BULK_SYNC == 0 && fdatasync(fd) != 0) break;
        next += BULK_PIECE * 1000000000 / STREAM_BUSY_RATE;
    }
    _exit(1);
}

static void paced(int fd, struct latency *l) {
    static _Alignas(BLOCK_SIZE) uint8_t block[BLOCK_SIZE];
    uint64_t next = bench_now_ns();
    for (int i = 0; i < PACED_WRITES; i++, next += PACED_US * 1000) {
        wait_for(next);
        uint64_t began = bench_now_ns();
        if (pwrite(fd, block, BLOCK_SIZE, (off_t)i * BLOCK_SIZE) != BLOCK_SIZE) abort();
        latency_add(l, bench_now_ns() - began);
    }
}

static void paced_beside(int fd, const char *path, struct latency *l) {
    pid_t child = fork();
    if (child == 0) bulk(path);
    if (child < 0) abort();
    paced(fd, l);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    (void)unlink(path);
}

/* [0]: alone, [1]: beside the other process. */
static void paced_turns(const char *dir, struct latency l[2]) {
    char path[300], other[300];
    uint8_t *block = calloc(1, BLOCK_SIZE);
    (void)snprintf(path, sizeof path, "%s/paced", dir);
    (void)snprintf(other, sizeof other, "%s/bulk", dir);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || block == NULL || fill(fd, block) != 0) abort();
    (void)close(fd);
    fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT | O_DSYNC);
    if (fd < 0) fd = open(path, O_RDWR | O_CLOEXEC | O_DSYNC);
    if (fd < 0) abort();
    for (int i = 0; i < TURNS; i++) {
        paced(fd, &l[0]);
        paced_beside(fd, other, &l[1]);
    }
    (void)close(fd);
    free(block);
}

static void print_paced(const char *dir) {
    struct latency l[2] = {0};
    paced_turns(dir, l);
    printf("the same each %d ms                             alone   beside %llu MB/s written and "
           "synced\n",
           PACED_US / 1000, STREAM_BUSY_RATE / 1000000);
    printf("  O_DIRECT|O_DSYNC, p50                     %8.1f us %8.1f us\n",
           latency_us(&l[0], 0.5), latency_us(&l[1], 0.5));
    printf("  p99                                       %8.1f us %8.1f us\n",
           latency_us(&l[0], 0.99), latency_us(&l[1], 0.99));
}

/* Entries of 16 KiB, many in one record, as the log seals them; microseconds an entry. */
static double seal_us(enum seal_alg alg) {
    struct secret *key;
    struct sealer *s;
    uint8_t *plain = calloc(SEAL_ENTRIES, SEAL_ENTRY);
    uint8_t *out = calloc(1, SEAL_ENTRIES * SEAL_ENTRY + SEAL_TAG);
    double best = 1e9;
    if (plain == NULL || out == NULL || secret_random(KEY_SIZE, &key) != OK ||
        sealer_new(alg, key, &s) != OK)
        abort();
    for (uint64_t n = 0; n < SEAL_RECORDS; n++) {
        struct sealing g;
        double began = bench_cpu_s();
        if (seal_begin(&g, s, n, span_of(NULL, 0), out) != OK) abort();
        for (size_t i = 0; i < SEAL_ENTRIES; i++)
            if (seal_add(&g, span_of(plain + i * SEAL_ENTRY, SEAL_ENTRY)) != OK) abort();
        if (seal_end(&g) != OK) abort();
        double us = (bench_cpu_s() - began) * 1e6 / SEAL_ENTRIES;
        if (us > 0 && us < best) best = us;
    }
    sealer_free(s);
    secret_free(key);
    free(plain);
    free(out);
    return best;
}

static void print_seal(void) {
    enum seal_alg alg = seal_fastest();
    seal_allow_null(true);
    printf("sealing 16 KiB, %s %8.2f us, the null cipher %.2f us\n",
           alg == SEAL_AES256GCM ? gcm_name() : "libsodium", seal_us(alg), seal_us(SEAL_NULL));
}

static void echo(void *arg) {
    int fd = *(int *)arg;
    char byte[128];
    ssize_t n;
    while ((n = read(fd, byte, sizeof byte)) > 0)
        if (write(fd, byte, (size_t)n) != n) break;
}

static void connect_pair(int out[2]) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&a, &size) != 0)
        abort();
    out[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(out[0], (struct sockaddr *)&a, sizeof a) != 0) abort();
    out[1] = accept(listener, NULL, NULL);
    for (int i = 0; i < 2; i++)
        (void)setsockopt(out[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)close(listener);
}

static double trip_us(void) {
    int fds[2];
    char bytes[128] = {0};
    struct latency l = {0};
    uv_thread_t thread;
    connect_pair(fds);
    if (uv_thread_create(&thread, echo, &fds[1]) != 0) abort();
    for (int i = 0; i < TRIPS; i++) {
        uint64_t began = bench_now_ns();
        if (write(fds[0], bytes, sizeof bytes) != sizeof bytes ||
            read(fds[0], bytes, sizeof bytes) <= 0)
            break;
        latency_add(&l, bench_now_ns() - began);
    }
    (void)shutdown(fds[0], SHUT_RDWR);
    (void)uv_thread_join(&thread);
    (void)close(fds[0]);
    (void)close(fds[1]);
    return latency_us(&l, 0.5);
}

void bench_floor_least(const char *const dirs[BENCH_MEMBERS], unsigned nodes,
                       struct bench_least *out) {
    const int direct = O_DIRECT | O_DSYNC;
    double trip = nodes == 1 ? 0 : trip_us();
    out->alone_us = write_us(dirs[0], direct, 0) + trip;
    out->together_us = nodes == 1 ? out->alone_us : writers_us(dirs, direct) + trip;
}

int bench_floor(int argc, char **argv) {
    char dir[256];
    const char *parent = argc > 1 ? argv[1] : ".";
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: conclave-bench floor [DIR]\n\nMedians of one synced 4 KiB write and of one "
             "loopback trip,\nand what is left of it beside a large file being written.");
        return 0;
    }
    if (bench_dir(parent, dir) != OK) {
        fprintf(stderr, "conclave-bench: floor: no directory can be made in %s\n", parent);
        return err_exit(ERR_IO);
    }
    const int direct = O_DIRECT | O_DSYNC;
    const char *const dirs[BENCH_MEMBERS] = {dir, dir, dir};
    printf("synced 4 KiB write into pre-written space         alone   3 at once\n");
    printf("  write + fdatasync                         %8.1f us %8.1f us\n", write_us(dir, 0, 0),
           writers_us(dirs, 0));
    printf("  O_DIRECT|O_DSYNC                          %8.1f us %8.1f us\n",
           write_us(dir, direct, 0), writers_us(dirs, direct));
    print_paced(dir);
    printf("loopback round trip, 128 B            %8.1f us\n", trip_us());
    print_seal();
    bench_remove(dir);
    return 0;
}
