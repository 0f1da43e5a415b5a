/* The real clock, and the parsing and printing of addresses. CLOCK_BOOTTIME goes on through a
 * suspend and never back, which is what the engine's timers need. Hosts are restricted to the
 * characters of names and addresses, since they end up in sentences and in the member table. */
#include "raft/loop.h"

#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

static uint64_t read_us(clockid_t id) {
    struct timespec t = {0};
    (void)clock_gettime(id, &t); /* can't fail: the id is known and t is valid */
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t real_us(struct clock *c) {
    (void)c;
    return read_us(CLOCK_BOOTTIME);
}

static uint64_t real_ms(struct clock *c) { return real_us(c) / 1000; }

static int64_t real_wall_s(struct clock *c) {
    (void)c;
    return (int64_t)(read_us(CLOCK_REALTIME) / 1000000);
}

static int64_t real_wall_ns(struct clock *c) {
    struct timespec now = {0};
    (void)c;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void clock_real(struct clock *out) {
    *out = (struct clock){
        .now_ms = real_ms, .wall_s = real_wall_s, .wall_ns = real_wall_ns, .now_us = real_us};
}

void loop_block_sigpipe(void) {
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static enum err refuse(const char *text, struct why *why, const char *reason) {
    return fail_with(why, ERR_INVALID, "\"%.100s\" is no address (HOST:PORT): %s", text, reason);
}

static bool port_is_valid(const char *port) {
    unsigned v = 0;
    size_t n = strnlen(port, 6);
    if (n == 0 || n > 5) return false;
    for (size_t i = 0; i < n; i++) {
        if (port[i] < '0' || port[i] > '9') return false;
        v = v * 10 + (unsigned)(port[i] - '0');
    }
    return v <= 65535;
}

static bool host_is_valid(const char *host, size_t size, bool bracketed) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    if (size == 0 || size >= ADDRESS_MAX) return false;
    for (size_t i = 0; i < size; i++) {
        bool extra = bracketed && (host[i] == ':' || host[i] == '%');
        if (host[i] == '\0' || (strchr(letters, host[i]) == NULL && !extra)) return false;
    }
    return true;
}

RESULT address_split(const char *text, struct address *out, struct why *why) {
    size_t size = strnlen(text, ADDRESS_MAX);
    if (size == ADDRESS_MAX) return refuse(text, why, "it is too long");
    const char *colon = strrchr(text, ':');
    if (colon == NULL) return refuse(text, why, "the port is missing");
    if (!port_is_valid(colon + 1)) return refuse(text, why, "the port is not 0 to 65535");
    const char *host = text;
    size_t host_size = (size_t)(colon - text);
    bool bracketed = host_size >= 2 && host[0] == '[' && host[host_size - 1] == ']';
    if (bracketed) {
        host++;
        host_size -= 2;
    }
    if (!bracketed && memchr(host, ':', host_size) != NULL)
        return refuse(text, why, "an IPv6 address stands in brackets");
    if (!host_is_valid(host, host_size, bracketed))
        return refuse(text, why, "the host is not valid");
    struct address a = {0};
    memcpy(a.host, host, host_size);
    memcpy(a.port, colon + 1, strlen(colon + 1));
    *out = a;
    return OK;
}

static int look_up(const struct address *a, int flags, struct sockaddr_storage *out) {
    struct addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int e = getaddrinfo(a->host, a->port, &hints, &found);
    if (e != 0) return e;
    memset(out, 0, sizeof *out);
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

RESULT address_numeric(const struct address *a, struct sockaddr_storage *out) {
    return look_up(a, AI_NUMERICHOST, out) == 0 ? OK : ERR_NOT_FOUND;
}

RESULT address_parse(const char *text, struct sockaddr_storage *out, struct why *why) {
    struct address a;
    TRY(address_split(text, &a, why));
    int e = look_up(&a, 0, out);
    if (e == 0) return OK;
    return fail_with(why, ERR_UNREACHABLE, "%s: %s", a.host, gai_strerror(e));
}

void address_join(const char *host, unsigned port, char out[ADDRESS_MAX]) {
    const char *format = strchr(host, ':') != NULL ? "[%.240s]:%u" : "%.240s:%u";
    (void)snprintf(out, ADDRESS_MAX, format, host, port);
}

void address_format(const struct sockaddr *a, char out[ADDRESS_MAX]) {
    char host[NI_MAXHOST], port[NI_MAXSERV];
    socklen_t size =
        a->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    bool ip = a->sa_family == AF_INET || a->sa_family == AF_INET6;
    if (!ip || getnameinfo(a, size, host, sizeof host, port, sizeof port,
                           NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        memcpy(out, "?", 2);
        return;
    }
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)a;
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)a;
    address_join(host, ntohs(a->sa_family == AF_INET6 ? a6->sin6_port : a4->sin_port), out);
}
