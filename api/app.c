/* See app.h. Start: harden, open the socket, open the manager; the client port opens once the node
 * has a certificate. Stop: the server takes no more requests, the manager hands over and closes;
 * whichever answer is not out a second later is not waited for. */
#include "api/app.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raft/loop.h"

#define JOIN_AGAIN_MS 1000
#define JOIN_TRIES    60
#define GIVE_UP_MS    1000

struct app {
    const struct app_config *config;
    uv_loop_t loop;
    struct log log;
    struct api api;
    uv_signal_t term, interrupt;
    uv_timer_t timer; /* another attempt to join; then the end of patience when stopping */
    unsigned join_tries;
    bool stopping, manager_gone, server_gone;
    bool listening; /* the client port is open */
    enum err error; /* why it ends */
    struct why why;
};

RESULT app_harden(struct why *why) {
    const struct rlimit none = {0, 0};
    (void)umask(077);
    (void)signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0)
        return fail_with(why, ERR_INTERNAL, "core dumps can't be switched off: %s",
                         strerror(errno));
    return OK;
}

/* Keys live in memory that can't be swapped out; how much of it there is shows only by trying. */
static RESULT check_locked_memory(struct why *why) {
    enum { PIECES = 8 };
    struct secret *pieces[PIECES] = {NULL};
    struct rlimit limit = {0};
    enum err e = OK;
    for (int i = 0; i < PIECES && e == OK; i++)
        e = secret_random(PEM_MAX, &pieces[i]);
    for (int i = 0; i < PIECES; i++)
        secret_free(pieces[i]);
    if (e == OK) return OK;
    (void)getrlimit(RLIMIT_MEMLOCK, &limit);
    return fail_with(why, e,
                     "memory for keys can't be locked: the limit is %llu KiB and 1024 are needed "
                     "(ulimit -l, or LimitMEMLOCK= of a service)",
                     (unsigned long long)limit.rlim_cur / KIB);
}

/* --- stopping ------------------------------------------------------------------------------- */

static void maybe_gone(struct app *a) {
    if (a->manager_gone && a->server_gone) uv_stop(&a->loop);
}

static void on_patience(uv_timer_t *timer) {
    struct app *a = timer->data;
    uv_stop(&a->loop);
}

static void on_manager_closed(void *ctx) {
    struct app *a = ctx;
    a->manager_gone = true;
    a->api.manager = NULL;
    (void)uv_timer_start(&a->timer, on_patience, GIVE_UP_MS, 0);
    maybe_gone(a);
}

static void on_server_closed(void *ctx) {
    struct app *a = ctx;
    a->server_gone = true;
    maybe_gone(a);
}

static void stop(struct app *a, enum err e, const char *text) {
    if (a->stopping) return;
    a->stopping = true;
    a->error = e;
    (void)snprintf(a->why.text, sizeof a->why.text, "%s", text);
    (void)uv_timer_stop(&a->timer);
    api_stop(&a->api);
    if (a->api.server)
        server_close(a->api.server, on_server_closed, a);
    else
        a->server_gone = true;
    if (a->api.manager)
        manager_close(a->api.manager, on_manager_closed, a);
    else
        on_manager_closed(a);
}

static void on_signal(uv_signal_t *signal, int number) {
    struct app *a = signal->data;
    log_event(&a->log, LOG_INFO, "node", "%s: stopping", number == SIGTERM ? "SIGTERM" : "SIGINT");
    if (a->stopping) uv_stop(&a->loop); /* the second one */
    stop(a, OK, "");
}

static void on_failed(void *ctx, enum err e, const char *text) { stop(ctx, e, text); }

/* --- the client port ------------------------------------------------------------------------ */

static RESULT make_context(const struct node_identity *self, struct tls_context **out,
                           struct why *why) {
    static const char *const alpn[] = {"http/1.1", NULL};
    struct tls_config config = {.server = true,
                                .verify = TLS_VERIFY_REQUIRED,
                                .root_pem = buf_span(&self->root_pem),
                                .cert_pem = buf_span(&self->cert_pem),
                                .key_pem = self->key_pem,
                                .alpn = alpn,
                                .tls12 = true};
    return tls_context_new(&config, out, why);
}

static RESULT open_port(struct app *a, struct why *why) {
    const struct node_identity *self = &a->api.manager->self;
    struct tls_context *tls = NULL;
    if (!a->config->insecure) TRY(make_context(self, &tls, why));
    server_credentials(a->api.server, tls, self->cluster_id);
    if (a->listening || !self->client_listen[0]) return OK;
    TRY(server_listen_tcp(a->api.server, self->client_listen, a->config->insecure, why));
    a->listening = true;
    log_event(&a->log, LOG_INFO, "api", "clients are served on %s%s", server_address(a->api.server),
              a->config->insecure ? " WITHOUT TLS" : "");
    return OK;
}

static void on_changed(void *ctx) {
    struct app *a = ctx;
    struct why why = {0};
    if (!a->api.manager || a->stopping) return;
    if (a->api.manager->state == MANAGER_RUNNING) {
        enum err e = open_port(a, &why);
        if (e != OK) stop(a, e, why.text);
        return;
    }
    api_stop(&a->api);
    if (a->listening) server_close_tcp(a->api.server);
    a->listening = false;
}

static void on_led(void *ctx) {
    struct app *a = ctx;
    if (a->api.manager) api_led(&a->api);
}

static bool is_member(void *ctx, const char *node_id) {
    const struct api *api = ctx;
    return api->manager && api->manager->store &&
           cluster_node_by_id(store_cluster(api->manager->store), node_id);
}

/* --- init and join from the command line ---------------------------------------------------- */

static void print_founded(const struct manager *m) {
    char token[JOIN_TOKEN_TEXT], key[UNLOCK_KEY_TEXT];
    printf("node %s of cluster %s\n", m->self.node_id, m->self.cluster_id);
    if (m->self.token && token_format(buf_span(&m->self.root_pem), m->self.token, token) == OK)
        printf("join token: %s\n", token);
    if (m->self.unlock_key && unlock_key_format(m->self.unlock_key, key) == OK)
        printf("unlock key, needed after every restart; keep it safe: %s\n", key);
    sodium_memzero(token, sizeof token);
    sodium_memzero(key, sizeof key);
    (void)fflush(stdout);
}

static void on_founded(void *ctx, enum err e, const char *text) {
    struct app *a = ctx;
    if (e == OK)
        print_founded(a->api.manager);
    else
        stop(a, e, text);
}

static void join_again(uv_timer_t *timer);

static void on_joined(void *ctx, enum err e, const char *text) {
    struct app *a = ctx;
    if (a->stopping) return;
    if (e == OK) {
        printf("node %s of cluster %s\n", a->api.manager->self.node_id,
               a->api.manager->self.cluster_id);
        (void)fflush(stdout);
        return;
    }
    static const enum err passing[] = {ERR_UNREACHABLE, ERR_NO_LEADER, ERR_NOT_LEADER,   ERR_BUSY,
                                       ERR_CLOSED,      ERR_TIMEOUT,   ERR_MAYBE_APPLIED};
    bool again = false;
    for (size_t i = 0; i < ARRAY_SIZE(passing); i++)
        again |= e == passing[i];
    if (!again || ++a->join_tries == JOIN_TRIES) {
        stop(a, e, text);
        return;
    }
    log_event(&a->log, LOG_WARNING, "node", "joining: %s; trying again", text);
    (void)uv_timer_start(&a->timer, join_again, JOIN_AGAIN_MS, 0);
}

static void join_again(uv_timer_t *timer) {
    struct app *a = timer->data;
    struct why why = {0};
    enum err e =
        manager_join(a->api.manager, a->config->join, a->config->token, on_joined, a, &why);
    if (e != OK) stop(a, e, why.text);
}

/* Before anything is made: a port that can't be had is better known now. */
static RESULT check_port(const char *address, struct why *why) {
    struct sockaddr_storage at;
    TRY(address_parse(address, &at, why));
    int on = 1, fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size =
        at.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    bool free_port = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                     bind(fd, (const struct sockaddr *)&at, size) == 0 && listen(fd, 1) == 0;
    int error = errno;
    if (fd >= 0) (void)close(fd);
    if (free_port) return OK;
    return fail_with(why, error == EADDRINUSE ? ERR_IN_USE : err_from_errno(error),
                     "client address %s: %s", address, strerror(error));
}

static RESULT begin(struct app *a, struct why *why) {
    struct manager *m = a->api.manager;
    bool wanted = a->config->init || a->config->join[0];
    if (m->state != MANAGER_EMPTY) {
        if (wanted)
            log_event(&a->log, LOG_INFO, "node",
                      "the data is there already: --init and --join are ignored");
        if (m->state == MANAGER_LOCKED) log_event(&a->log, LOG_WARNING, "node", "%s", m->reason);
        return OK;
    }
    if (wanted) TRY(check_port(m->config.client, why));
    if (a->config->init) return manager_init(m, a->config->autolock, on_founded, a, why);
    if (a->config->join[0])
        return manager_join(m, a->config->join, a->config->token, on_joined, a, why);
    log_event(&a->log, LOG_INFO, "node",
              "waiting for `conclave init` or `conclave join` (--data %s)",
              a->config->manager.data);
    return OK;
}

/* --- running -------------------------------------------------------------------------------- */

static RESULT open_server(struct app *a, struct why *why) {
    struct server_config config = {.loop = &a->loop,
                                   .log = &a->log,
                                   .routes = api_routes,
                                   .ctx = &a->api,
                                   .is_member = is_member};
    char path[4096];
    TRY(server_new(&config, &a->api.server, why));
    (void)snprintf(path, sizeof path, "%s/conclave.sock", a->config->manager.data);
    return server_listen_unix(a->api.server, path, why);
}

static RESULT open_all(struct app *a, struct why *why) {
    struct manager_config config = a->config->manager;
    config.loop = &a->loop;
    config.log = &a->log;
    config.ctx = a;
    config.changed = on_changed;
    config.led = on_led;
    config.failed = on_failed;
    TRY(manager_new(&config, &a->api.manager, why));
    TRY(open_server(a, why)); /* after the directory is locked: the socket there is ours */
    TRY(manager_open(a->api.manager, why));
    return begin(a, why);
}

static void start_signals(struct app *a) {
    (void)uv_signal_init(&a->loop, &a->term);
    (void)uv_signal_init(&a->loop, &a->interrupt);
    (void)uv_timer_init(&a->loop, &a->timer);
    a->term.data = a->interrupt.data = a->timer.data = a;
    (void)uv_signal_start(&a->term, on_signal, SIGTERM);
    (void)uv_signal_start(&a->interrupt, on_signal, SIGINT);
}

RESULT app_run(const struct app_config *config, struct why *why) {
    static struct app app; /* too large for the stack of a small machine; there is one a process */
    struct app *a = &app;
    TRY(app_harden(why));
    TRY(check_locked_memory(why));
    a->config = config;
    log_open(&a->log, STDERR_FILENO, config->level);
    a->api.log = &a->log;
    if (uv_loop_init(&a->loop) != 0) return fail_with(why, ERR_NOMEM, "no event loop");
    start_signals(a);
    enum err e = open_all(a, why);
    if (e != OK) stop(a, e, why->text);
    (void)uv_run(&a->loop, UV_RUN_DEFAULT);
    if (a->error != OK) (void)fail_with(why, a->error, "%s", a->why.text);
    return a->error;
}
