/* HashKV against the real etcd: the same puts, deletes, transactions, leases and compactions go to
 * a Debian etcd, through its JSON gateway, and to our store; revisions agree after each, and so do
 * the hashes at any revision that can be read. Without an etcd on this machine it is skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>

#include "crypto/secret.h"
#include "tests/lib/states.h"

#define ETCD    "/usr/bin/etcd"
#define ETCDCTL "/usr/bin/etcdctl"
#define KEYS    30
#define STEPS   700

struct etcd {
    pid_t pid;
    char directory[64];
    uint16_t port; /* of clients; the next is the peers' */
    int socket;    /* to it, kept alive */
    FILE *log;     /* what it says; not read once it serves */
    char answer[65536];
};

/* --- a server of our own --- */

/* Two free ports in a row. */
static uint16_t free_ports(void) {
    while (true) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t size = sizeof a;
        int one = socket(AF_INET, SOCK_STREAM, 0), two = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(one, (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(getsockname(one, (struct sockaddr *)&a, &size), 0);
        uint16_t port = ntohs(a.sin_port);
        a.sin_port = htons((uint16_t)(port + 1));
        bool both = port < UINT16_MAX && bind(two, (struct sockaddr *)&a, sizeof a) == 0;
        (void)close(one);
        (void)close(two);
        if (both) return port;
    }
}

static void run_etcd(const struct etcd *e, int log) {
    char clients[64], peers[64], cluster[80];
    (void)snprintf(clients, sizeof clients, "http://127.0.0.1:%u", e->port);
    (void)snprintf(peers, sizeof peers, "http://127.0.0.1:%u", e->port + 1U);
    (void)snprintf(cluster, sizeof cluster, "default=%s", peers);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)dup2(log, STDOUT_FILENO);
    (void)dup2(log, STDERR_FILENO);
    (void)execl(ETCD, "etcd", "--data-dir", e->directory, "--listen-client-urls", clients,
                "--advertise-client-urls", clients, "--listen-peer-urls", peers,
                "--initial-advertise-peer-urls", peers, "--initial-cluster", cluster, (char *)NULL);
    _exit(127);
}

/* Reads its log until it says that it serves. */
static void await_ready(FILE *log) {
    char line[1024];
    bool ready = false;
    assert_non_null(log);
    while (!ready && fgets(line, sizeof line, log) != NULL)
        ready = strstr(line, "serving insecure client requests") != NULL || /* 3.4 */
                strstr(line, "serving client traffic insecurely") != NULL;  /* 3.5 */
    assert_true(ready);
}

static void connect_to(struct etcd *e) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    e->socket = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(e->socket, (struct sockaddr *)&a, sizeof a), 0);
}

static void etcd_start(struct etcd *e) {
    int log[2];
    *e = (struct etcd){.port = free_ports()};
    (void)snprintf(e->directory, sizeof e->directory, "/tmp/conclave-hash-XXXXXX");
    assert_non_null(mkdtemp(e->directory));
    assert_int_equal(pipe2(log, O_CLOEXEC), 0);
    assert_true(fcntl(log[1], F_SETPIPE_SZ, 1024 * 1024) > 0);
    e->pid = fork();
    assert_true(e->pid >= 0);
    if (e->pid == 0) run_etcd(e, log[1]);
    (void)close(log[1]);
    (void)signal(SIGPIPE, SIG_IGN);
    e->log = fdopen(log[0], "r");
    await_ready(e->log);
    connect_to(e);
}

/* Runs a program; *from (if wanted) reads what it prints. */
static pid_t start(char *const argv[], FILE **from) {
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(pipes[1], STDOUT_FILENO);
        (void)execv(argv[0], argv);
        _exit(127);
    }
    (void)close(pipes[1]);
    *from = fdopen(pipes[0], "r");
    assert_non_null(*from);
    return pid;
}

static void finish(pid_t pid, FILE *from) {
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)fclose(from);
}

static void etcd_stop(struct etcd *e) {
    char program[] = "/bin/rm", how[] = "-rf";
    char *argv[] = {program, how, e->directory, NULL};
    FILE *from;
    (void)close(e->socket);
    (void)kill(e->pid, SIGKILL);
    (void)waitpid(e->pid, NULL, 0);
    (void)fclose(e->log);
    pid_t rm = start(argv, &from);
    finish(rm, from);
}

/* --- talking to it --- */

static void read_answer(struct etcd *e) {
    size_t have = 0, need = sizeof e->answer - 1;
    while (have < need) {
        ssize_t n = recv(e->socket, e->answer + have, sizeof e->answer - 1 - have, 0);
        assert_true(n > 0);
        have += (size_t)n;
        e->answer[have] = '\0';
        const char *body = strstr(e->answer, "\r\n\r\n"),
                   *length = strstr(e->answer, "Content-Length: ");
        if (body == NULL) continue;
        assert_non_null(length);
        need = (size_t)(body + 4 - e->answer) + strtoul(length + 16, NULL, 10);
    }
}

static void post(struct etcd *e, const char *path, const char *body) {
    char *request = NULL;
    int size = asprintf(&request, "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s",
                        path, strlen(body), body);
    assert_true(size > 0);
    assert_int_equal(send(e->socket, request, (size_t)size, 0), size);
    free(request);
    read_answer(e);
    if (strncmp(e->answer, "HTTP/1.1 200", 12) != 0) fail_msg("%s: %s", body, e->answer);
}

static uint64_t answered_revision(const struct etcd *e) {
    const char *at = strstr(e->answer, "\"revision\":\"");
    assert_non_null(at);
    return strtoull(at + 12, NULL, 10);
}

static uint32_t etcd_hash(const struct etcd *e, uint64_t revision) {
    char program[] = ETCDCTL, where[64], endpoint[] = "endpoint", hashkv[] = "hashkv", rev[64],
         json[] = "--write-out=json", line[1024];
    char *argv[] = {program, where, endpoint, hashkv, rev, json, NULL};
    FILE *from;
    (void)snprintf(where, sizeof where, "--endpoints=http://127.0.0.1:%u", e->port);
    (void)snprintf(rev, sizeof rev, "--rev=%llu", (unsigned long long)revision);
    pid_t pid = start(argv, &from);
    assert_non_null(fgets(line, sizeof line, from));
    finish(pid, from);
    const char *at = strstr(line, "\"hash\":");
    assert_non_null(at);
    return (uint32_t)strtoull(at + 7, NULL, 10);
}

/* --- the same to both --- */

struct both {
    struct etcd etcd;
    struct store *s;
    uint64_t seed;
    char json[16384];
};

static uint64_t below(struct both *b, uint64_t n) { return random_next(&b->seed) % n; }

static void check_revision(struct both *b, struct result r) {
    assert_int_equal(r.error, OK);
    assert_int_equal(answered_revision(&b->etcd), r.revision);
}

static void say(struct both *b, const char *path, const struct command *c) {
    post(&b->etcd, path, b->json);
    check_revision(b, apply(b->s, c));
}

static void base64(struct span s, char out[200]) {
    (void)sodium_bin2base64(out, 200, s.at, s.size, sodium_base64_VARIANT_ORIGINAL);
}

static struct span random_key(struct both *b, char room[16]) {
    (void)snprintf(room, 16, "key/%02u", (unsigned)below(b, KEYS));
    return span_str(room);
}

static struct put random_put(struct both *b, char key[16], char value[64]) {
    struct put p = {.key = random_key(b, key), .value = {.size = below(b, 60)}};
    memset(value, (int)(below(b, 256)), 64);
    p.value.at = (const uint8_t *)value;
    if (below(b, 4) == 0) p.lease = 1 + below(b, 3);
    return p;
}

static void put_json(const struct put *p, char *out, size_t room) {
    char key[200], value[200];
    base64(p->key, key);
    base64(p->value, value);
    (void)snprintf(out, room, "{\"key\":\"%s\",\"value\":\"%s\",\"lease\":\"%llu\"}", key, value,
                   (unsigned long long)p->lease);
}

static void delete_json(const struct del *d, char *out, size_t room) {
    char key[200], end[200];
    base64(d->in.key, key);
    base64(d->in.end, end);
    (void)snprintf(out, room, "{\"key\":\"%s\",\"range_end\":\"%s\"}", key, end);
}

static void do_put(struct both *b) {
    char key[16], value[64];
    struct command c = {.op = OP_PUT, .put = random_put(b, key, value)};
    put_json(&c.put, b->json, sizeof b->json);
    say(b, "/v3/kv/put", &c);
}

static struct del random_delete(struct both *b, char key[16], char end[16]) {
    struct del d = {.in = {.key = random_key(b, key)}};
    if (below(b, 3) == 0) d.in.end = random_key(b, end);
    return d;
}

static void do_delete(struct both *b) {
    char key[16], end[16];
    struct command c = {.op = OP_DELETE, .del = random_delete(b, key, end)};
    delete_json(&c.del, b->json, sizeof b->json);
    say(b, "/v3/kv/deleterange", &c);
}

/* One branch of some puts and deletes that do not meet. */
static void do_txn(struct both *b) {
    struct buf ops = buf_new(COMMAND_MAX), txn = buf_new(COMMAND_MAX);
    struct span none = span_of(NULL, 0);
    size_t at = (size_t)snprintf(b->json, sizeof b->json, "{\"success\":[");
    for (unsigned i = 0, n = (unsigned)below(b, 6); i < n; i++) {
        char one[16], two[64], json[1024];
        struct txn_op op = {.kind = below(b, 3) == 0 ? TXN_DELETE : TXN_PUT};
        size_t before = ops.size;
        if (op.kind == TXN_PUT)
            op.put = random_put(b, one, two);
        else
            op.del = random_delete(b, one, two);
        assert_int_equal(txn_op_add(&ops, &op), OK);
        buf_clear(&txn);
        assert_int_equal(txn_add(&txn, none, buf_span(&ops), none), OK);
        if (txn_check(buf_span(&txn), NULL) != OK) {
            ops.size = before;
            continue;
        }
        if (op.kind == TXN_PUT)
            put_json(&op.put, json, sizeof json);
        else
            delete_json(&op.del, json, sizeof json);
        at += (size_t)snprintf(b->json + at, sizeof b->json - at, "%s{\"request_%s\":%s}",
                               before > 0 ? "," : "", op.kind == TXN_PUT ? "put" : "delete_range",
                               json);
    }
    (void)snprintf(b->json + at, sizeof b->json - at, "]}");
    buf_clear(&txn);
    assert_int_equal(txn_add(&txn, none, buf_span(&ops), none), OK);
    say(b, "/v3/kv/txn", &(struct command){.op = OP_TXN, .txn = buf_span(&txn)});
    buf_free(&ops);
    buf_free(&txn);
}

static void grant(struct both *b, uint64_t id) {
    struct command c = {.op = OP_LEASE_GRANT, .lease = {.id = id, .ttl_ms = 600000}};
    (void)snprintf(b->json, sizeof b->json, "{\"ID\":\"%llu\",\"TTL\":\"600\"}",
                   (unsigned long long)id);
    say(b, "/v3/lease/grant", &c);
}

static void do_revoke(struct both *b) {
    struct command c = {.op = OP_LEASE_REVOKE, .lease = {.id = 1 + below(b, 3)}};
    (void)snprintf(b->json, sizeof b->json, "{\"ID\":\"%llu\"}", (unsigned long long)c.lease.id);
    say(b, "/v3/lease/revoke", &c);
    grant(b, c.lease.id);
}

/* `physical`: etcd answers when what was compacted is gone. */
static void do_compact(struct both *b) {
    uint64_t revision = store_revision(b->s) - below(b, 3) * below(b, 20);
    struct command c = {.op = OP_COMPACT, .compact_revision = revision};
    if (revision <= store_compacted(b->s) || revision > store_revision(b->s)) return;
    (void)snprintf(b->json, sizeof b->json, "{\"revision\":\"%llu\",\"physical\":true}",
                   (unsigned long long)revision);
    say(b, "/v3/kv/compaction", &c);
}

static void check_hashes(struct both *b) {
    struct store_view *v;
    uint64_t low = store_compacted(b->s) + 1, now = store_revision(b->s);
    assert_int_equal(store_view_new_with_history(b->s, &v), OK);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t revision = i == 0 || low > now ? 0 : low + below(b, now - low + 1), compacted;
        uint32_t hash;
        assert_int_equal(store_view_hash_kv(v, revision, &hash, &compacted), OK);
        uint32_t expected = etcd_hash(&b->etcd, revision);
        if (hash != expected)
            fail_msg("at revision %llu of %llu, compacted %llu: %08x, etcd says %08x",
                     (unsigned long long)revision, (unsigned long long)now,
                     (unsigned long long)compacted, hash, expected);
    }
    store_view_free(v);
}

static void do_something(struct both *b) {
    switch (below(b, 12)) {
    case 0: do_revoke(b); break;
    case 1:
    case 2: do_delete(b); break;
    case 3:
    case 4:
    case 5: do_txn(b); break;
    default: do_put(b);
    }
}

/* Nothing alive, so that only what the compaction kept is left to be hashed. */
static void delete_all(struct both *b) {
    struct command c = {.op = OP_DELETE, .del = {.in = {span_of("", 1), span_of("", 1)}}};
    delete_json(&c.del, b->json, sizeof b->json);
    say(b, "/v3/kv/deleterange", &c);
}

static void hashes_are_those_of_etcd(void **state) {
    (void)state;
    if (access(ETCD, X_OK) != 0 || access(ETCDCTL, X_OK) != 0) skip();
    struct both *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->seed = 8;
    b->s = store_for_test();
    etcd_start(&b->etcd);
    check_hashes(b);
    for (uint64_t id = 1; id <= 3; id++)
        grant(b, id);
    for (unsigned i = 1; i <= STEPS; i++) {
        do_something(b);
        if (i % 50 == 0) do_compact(b);
        if (i % 200 == 0) delete_all(b);
        if (i % 20 == 0) check_hashes(b);
    }
    etcd_stop(&b->etcd);
    store_free(b->s);
    free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_those_of_etcd),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
