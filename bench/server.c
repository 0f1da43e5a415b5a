/* Measured servers: the contract is in server.h. What they use is read from /proc; what they
 * answer, from their own socket. */
#include "bench/server.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/client.h"
#include "bench/bench.h"

#define ARGS_MAX 24

static RESULT free_port(unsigned *out) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && bind(fd, (struct sockaddr *)&at, size) == 0 &&
                getsockname(fd, (struct sockaddr *)&at, &size) == 0;
    if (fd >= 0) (void)close(fd);
    *out = ntohs(at.sin_port);
    return good ? OK : ERR_IO;
}

RESULT bench_server_prepare(struct bench_server *s, const char *parent) {
    unsigned peer;
    TRY(free_port(&s->port));
    TRY(free_port(&peer));
    TRY(bench_dir(parent, s->dir));
    (void)snprintf(s->client, sizeof s->client, "127.0.0.1:%u", s->port);
    (void)snprintf(s->peer, sizeof s->peer, "127.0.0.1:%u", peer);
    (void)snprintf(s->socket, sizeof s->socket, "%s/conclave.sock", s->dir);
    return OK;
}

RESULT bench_server_run(struct bench_server *s, const char *const *argv) {
    (void)fflush(stdout);
    s->pid = fork();
    if (s->pid < 0) return ERR_NOMEM;
    if (s->pid > 0) return OK;
    (void)freopen("/dev/null", "w", stdout);
    (void)freopen("/dev/null", "w", stderr);
    (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

RESULT bench_server_conclave(struct bench_server *s, const char *name, const char *const *more) {
    char path[PATH_MAX];
    const char *argv[ARGS_MAX] = {path, "serve",    "--data",  s->dir,   "--name",
                                  name, "--client", s->client, "--peer", s->peer};
    unsigned n = 10;
    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX - 32);
    while (size > 0 && path[size - 1] != '/')
        size--;
    if (size <= 0) return ERR_IO;
    (void)snprintf(path + size, 32, "conclave");
    while (*more && n < ARGS_MAX - 1)
        argv[n++] = *more++;
    return bench_server_run(s, argv);
}

void bench_server_stop(struct bench_server *s) {
    if (s->pid > 0) {
        (void)kill(s->pid, SIGKILL);
        (void)waitpid(s->pid, NULL, 0);
    }
    if (s->dir[0]) bench_remove(s->dir);
}

bool bench_server_gone(const struct bench_server *s) { return waitpid(s->pid, NULL, WNOHANG) != 0; }

uint64_t bench_server_memory_kib(const struct bench_server *s) {
    char path[64], line[256];
    uint64_t kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)s->pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmRSS:", 6) == 0) kib = strtoull(line + 6, NULL, 10);
    if (f) (void)fclose(f);
    return kib;
}

double bench_server_cpu_s(const struct bench_server *s) {
    char path[64], line[1024];
    unsigned long user = 0, system = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)s->pid);
    FILE *f = fopen(path, "re");
    const char *at = f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    if (at)
        (void)sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    if (f) (void)fclose(f);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

RESULT bench_server_get(const struct bench_server *s, const char *path, json_t **out,
                        struct why *why) {
    const struct client_config config = {.socket_path = s->socket};
    struct client_request request = {.method = HTTP_GET, .path = path, .timeout_ms = 2000};
    struct client *client = NULL;
    struct buf answer = buf_new(4 * MIB);
    enum err e = client_open(&config, &client, why);
    if (e == OK) e = client_call(client, &request, &answer, why);
    if (e == OK) e = jin_parse(buf_span(&answer), out, why);
    client_close(client);
    buf_wipe(&answer);
    return e;
}

RESULT bench_server_token(const struct bench_server *s, const char *role, char out[JOIN_TOKEN_TEXT],
                          struct why *why) {
    char path[96];
    (void)snprintf(path, sizeof path, "/conclave/v1/tokens/show?role=%s", role);
    for (unsigned ms = 0; ms < BENCH_READY_MS; ms += 50) {
        json_t *answer = NULL;
        if (bench_server_get(s, path, &answer, why) == OK) {
            enum err e = jin_text(answer, "token", out, JOIN_TOKEN_TEXT, why);
            json_decref(answer);
            return e;
        }
        if (bench_server_gone(s)) return ERR_CLOSED;
        bench_pause_s(0.05);
    }
    return ERR_TIMEOUT;
}
