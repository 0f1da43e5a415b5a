/* What a write can't be faster than: one synced write of a block into pre-written space, alone and
 * with as many at once as there are members on the disk, and one round trip over the loopback. In
 * one process, medians of many. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "bench/bench.h"
#include "crypto/limits.h"

#define WRITES  2000
#define TRIPS   5000
#define MEMBERS 3

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

/* As members that share a disk do it: each waits for the others' flushes too. */
static double writers_us(const char *dir, int flags) {
    struct writer w[MEMBERS];
    double worst = 0;
    for (int i = 0; i < MEMBERS; i++) {
        w[i] = (struct writer){.dir = dir, .flags = flags, .n = i};
        if (uv_thread_create(&w[i].thread, write_alone, &w[i]) != 0) abort();
    }
    for (int i = 0; i < MEMBERS; i++) {
        (void)uv_thread_join(&w[i].thread);
        if (w[i].us > worst) worst = w[i].us;
    }
    return worst;
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

int bench_floor(int argc, char **argv) {
    char dir[256];
    const char *parent = argc > 1 ? argv[1] : ".";
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: conclave-bench floor [DIR]\n\nMedians of one synced 4 KiB write and of one "
             "loopback trip.");
        return 0;
    }
    if (bench_dir(parent, dir) != OK) {
        fprintf(stderr, "conclave-bench: floor: no directory can be made in %s\n", parent);
        return err_exit(ERR_IO);
    }
    const int direct = O_DIRECT | O_DSYNC;
    printf("synced 4 KiB write into pre-written space         alone   3 at once\n");
    printf("  write + fdatasync                         %8.1f us %8.1f us\n", write_us(dir, 0, 0),
           writers_us(dir, 0));
    printf("  O_DIRECT|O_DSYNC                          %8.1f us %8.1f us\n",
           write_us(dir, direct, 0), writers_us(dir, direct));
    printf("loopback round trip, 128 B            %8.1f us\n", trip_us());
    bench_remove(dir);
    return 0;
}
