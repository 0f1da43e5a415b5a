/* See app.h. Start: harden, open the socket, open the manager; the client port opens once the node
 * has a certificate. Stop: the server takes no more requests, the manager hands over and closes;
 * whichever answer is not out a second later is not waited for. */
#include "api/app.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/ca/authority.h"
#include "api/client_tls.h"
#include "api/engine/engine.h"
#include "api/etcd/caller.h"
#include "api/etcd/health.h"
#include "api/etcd/watch.h"
#include "api/node/sessions.h"
#include "api/notify.h"
#include "api/rpc/rpcs.h"
#include "raft/loop.h"

#define JOIN_AGAIN_MS 1000
#define SAMPLE_MS     1000
#define JOIN_TRIES    60
#define GIVE_UP_MS    1000

struct app {
    const struct app_config *config;
    uv_loop_t loop;
    struct log log;
    struct api api;
    struct compactor *compactor;
    uv_signal_t term, interrupt, hangup;
    uv_timer_t watchdog;         /* tells the service manager that the loop turns */
    uv_timer_t sample;           /* looks at what is measured by looking */
    struct client_tls_watch tls; /* the client port's files */
    struct buf roots;            /* the cluster's, that clients were last judged by */
    bool review;                 /* those with open connections are to be judged by them */
    bool told;                   /* the service manager was told that we are ready */
    uv_timer_t timer; /* another attempt to join; then the end of patience when stopping */
    unsigned join_tries;
    struct server *engine; /* of the Engine API; NULL once it is gone */
    bool stopping, manager_gone, server_gone;
    bool listening;        /* the client port is open */
    bool engine_listening; /* the port of the Engine API is */
    enum err error;        /* why it ends */
    struct why why;
};

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
    if (a->manager_gone && a->server_gone && !a->engine) uv_stop(&a->loop);
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

static void on_engine_closed(void *ctx) {
    struct app *a = ctx;
    a->engine = NULL;
    maybe_gone(a);
}

static void stop(struct app *a, enum err e, const char *text) {
    if (a->stopping) return;
    a->stopping = true;
    notify("STOPPING=1");
    a->error = e;
    (void)snprintf(a->why.text, sizeof a->why.text, "%s", text);
    (void)uv_timer_stop(&a->timer);
    api_stop(&a->api);
    if (a->api.engine) engine_stop(a->api.engine);
    compactor_stop(a->compactor);
    if (a->engine) server_close(a->engine, on_engine_closed, a);
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

static RESULT open_port(struct app *a, struct span roots, struct why *why) {
    const struct node_identity *self = &a->api.manager->self;
    struct tls_context *tls = NULL;
    if (!a->config->insecure) TRY(client_tls_context(&a->config->tls, self, roots, &tls, why));
    server_credentials(a->api.server, tls, a->config->tls.ca ? "" : self->cluster_id);
    if (a->listening || !self->client_listen[0]) return OK;
    TRY(server_listen_tcp(a->api.server, self->client_listen, a->config->insecure, why));
    a->listening = true;
    log_event(&a->log, LOG_INFO, "api", "clients are served on %s%s", server_address(a->api.server),
              a->config->insecure ? " WITHOUT TLS" : "");
    return OK;
}

/* Always with the cluster's own root: who holds an administrator's certificate is its to say. */
static RESULT open_engine_port(struct app *a, struct span roots, struct why *why) {
    const struct node_identity *self = &a->api.manager->self;
    const struct client_tls_config plain = {.cert = a->config->tls.cert, .key = a->config->tls.key};
    struct tls_context *tls = NULL;
    if (!a->config->engine[0]) return OK;
    TRY(client_tls_context(&plain, self, roots, &tls, why));
    server_credentials(a->engine, tls, self->cluster_id);
    if (a->engine_listening) return OK;
    enum err e = server_listen_tcp(a->engine, a->config->engine, false, why);
    if (e != OK) return fail_in(why, e, "--engine");
    a->engine_listening = true;
    log_event(&a->log, LOG_INFO, "api", "the Engine API is served on %s",
              server_address(a->engine));
    return OK;
}

static void review(struct app *a) {
    enum err e = OK, engine = OK;
    if (!a->review) return;
    if (!a->config->tls.ca) e = server_review(a->api.server);
    if (a->engine) engine = server_review(a->engine);
    a->review = e != OK || engine != OK; /* then once more with the next sample */
}

static RESULT open_ports(struct app *a, struct why *why) {
    struct buf roots = buf_new(3 * PEM_MAX);
    enum err e = authority_client_roots(a->api.manager, &roots);
    if (e == OK) e = open_port(a, buf_span(&roots), why);
    if (e == OK) e = open_engine_port(a, buf_span(&roots), why);
    if (e != OK || span_equal(buf_span(&roots), buf_span(&a->roots))) {
        buf_free(&roots);
        return e;
    }
    buf_free(&a->roots);
    a->roots = roots;
    a->review = true;
    review(a);
    return OK;
}

/* Files that can't be used leave the port as it was. */
static enum err reload(struct app *a, struct why *why) {
    if (a->stopping || !a->api.manager || a->api.manager->state != MANAGER_RUNNING) return OK;
    enum err e = open_ports(a, why);
    if (e == OK)
        log_event(&a->log, LOG_INFO, "api", "the client port's certificates were read again");
    else
        log_event(&a->log, LOG_ERROR, "api", "the client port's certificates stay as they were: %s",
                  why->text);
    return e;
}

static enum err api_reload(struct api *api, struct why *why) {
    return reload((struct app *)((uint8_t *)api - offsetof(struct app, api)), why);
}

static void on_files_changed(void *ctx) {
    struct why why = {0};
    (void)reload(ctx, &why);
}

static void on_hangup(uv_signal_t *signal, int number) {
    struct app *a = signal->data;
    struct why why = {0};
    (void)number;
    notify_reloading();
    (void)reload(a, &why);
    notify("READY=1");
}

/* Ready: clients are served, or somebody else has to do something first. */
static void tell_ready(struct app *a) {
    enum manager_state state = a->api.manager->state;
    char status[64];
    (void)snprintf(status, sizeof status, "STATUS=%s", manager_state_name(state));
    notify(status);
    if (a->told || (state != MANAGER_RUNNING && state != MANAGER_WORKER && state != MANAGER_EMPTY &&
                    state != MANAGER_LOCKED))
        return;
    a->told = true;
    notify("READY=1");
}

static void on_changed(void *ctx) {
    struct app *a = ctx;
    struct why why = {0};
    if (!a->api.manager || a->stopping) return;
    health_changed(&a->api);
    if (a->api.manager->state == MANAGER_RUNNING) {
        enum err e = watches_start(&a->api);
        if (e == OK) e = open_ports(a, &why);
        if (e == OK)
            tell_ready(a);
        else if (a->listening)
            log_event(&a->log, LOG_ERROR, "api", "the client port stays as it was: %s", why.text);
        else
            stop(a, e, why.text);
        return;
    }
    if (a->told) tell_ready(a);
    api_stop(&a->api);
    if (a->listening) server_close_tcp(a->api.server);
    if (a->engine_listening) server_close_tcp(a->engine);
    a->listening = a->engine_listening = false;
}

static void on_led(void *ctx) {
    struct app *a = ctx;
    if (a->api.manager) api_led(&a->api);
}

static void on_rows(void *ctx, const struct row *before, const struct row *after) {
    const struct app *a = ctx;
    if (a->api.engine) engine_row_changed(a->api.engine, before, after);
}

static bool is_member(void *ctx, const char *node_id, const uint8_t key[KEY_DIGEST_SIZE]) {
    const struct api *api = ctx;
    struct row row;
    struct node_row node;
    return api->manager && api->manager->store &&
           node_row_get(api->manager->store, node_id, &row, &node) == OK &&
           node.granted == NODE_MANAGER && sessions_key_is_good(&node, key);
}

/* A manager's certificate does not open the Engine API: its node has other ways. */
static bool is_nobody(void *ctx, const char *node_id, const uint8_t key[KEY_DIGEST_SIZE]) {
    (void)ctx;
    (void)node_id;
    (void)key;
    return false;
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
    if (a->config->init && a->config->ca_chain.size > 0)
        TRY(manager_own_ca(m, buf_span(&a->config->ca_chain), a->config->ca_key, why));
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
                                   .rpc = &rpc_route,
                                   .ctx = &a->api,
                                   .is_member = is_member,
                                   .io_loops = a->config->io_loops};
    char path[4096];
    TRY(callers_new(&a->loop, &a->api.callers));
    TRY(rpcs_new(&a->api, &a->loop, api_services, api_routes, &a->api.rpcs));
    config.routes = rpcs_routes(a->api.rpcs);
    TRY(server_new(&config, &a->api.server, why));
    (void)snprintf(path, sizeof path, "%s/conclave.sock", a->config->manager.data);
    return server_listen_unix(a->api.server, path, why);
}

static RESULT open_engine(struct app *a, struct why *why) {
    const struct server_config config = {.loop = &a->loop,
                                         .log = &a->log,
                                         .routes = engine_no_routes,
                                         .find = engine_find,
                                         .ctx = &a->api,
                                         .is_member = is_nobody};
    char path[4096];
    TRY(engine_new(&a->api, &a->loop, a->config->peer_given ? a->config->manager.peer : "",
                   a->config->manager.advertise));
    TRY(server_new(&config, &a->engine, why));
    (void)snprintf(path, sizeof path, "%s/engine.sock", a->config->manager.data);
    return server_listen_unix(a->engine, path, why);
}

static RESULT open_all(struct app *a, struct why *why) {
    struct manager_config config = a->config->manager;
    config.loop = &a->loop;
    config.log = &a->log;
    config.ctx = a;
    config.changed = on_changed;
    config.led = on_led;
    config.rows = on_rows;
    config.failed = on_failed;
    TRY(manager_new(&config, &a->api.manager, why));
    TRY(compactor_new(&a->config->compact, &a->compactor));
    compactor_start(a->compactor, a->api.manager);
    TRY(open_server(a, why)); /* after the directory is locked: the sockets there are ours */
    TRY(open_engine(a, why));
    TRY(manager_open(a->api.manager, why));
    TRY(begin(a, why));
    tell_ready(a);
    return OK;
}

static void on_sample(uv_timer_t *timer) {
    struct app *a = timer->data;
    if (a->api.server && !a->stopping) review(a);
    api_sample(&a->api);
}

static void on_watchdog(uv_timer_t *timer) {
    (void)timer;
    notify("WATCHDOG=1");
}

static void start_signals(struct app *a) {
    (void)uv_signal_init(&a->loop, &a->term);
    (void)uv_signal_init(&a->loop, &a->interrupt);
    (void)uv_signal_init(&a->loop, &a->hangup);
    (void)uv_timer_init(&a->loop, &a->watchdog);
    (void)uv_timer_init(&a->loop, &a->sample);
    a->sample.data = a;
    (void)uv_timer_start(&a->sample, on_sample, SAMPLE_MS, SAMPLE_MS);
    (void)uv_timer_init(&a->loop, &a->timer);
    a->term.data = a->interrupt.data = a->hangup.data = a->timer.data = a;
    (void)uv_signal_start(&a->term, on_signal, SIGTERM);
    (void)uv_signal_start(&a->interrupt, on_signal, SIGINT);
    (void)uv_signal_start(&a->hangup, on_hangup, SIGHUP);
    uint64_t beat_ms = notify_watchdog_ms();
    if (beat_ms > 0) (void)uv_timer_start(&a->watchdog, on_watchdog, 0, beat_ms);
    client_tls_watch(&a->tls, &a->loop, &a->config->tls, on_files_changed, a);
}

RESULT app_run(const struct app_config *config, struct why *why) {
    static struct app app; /* too large for the stack of a small machine; there is one a process */
    struct app *a = &app;
    TRY(app_harden(why));
    TRY(check_locked_memory(why));
    a->config = config;
    log_open(&a->log, STDERR_FILENO, config->level);
    if (config->log_format != LOG_AS_FITS) a->log.json = config->log_format == LOG_AS_JSON;
    a->api.reload = api_reload;
    a->api.started_s = (int64_t)time(NULL);
    a->api.log = &a->log;
    a->api.quota = config->quota;
    a->api.progress_ms = config->progress_ms;
    a->api.insecure = config->insecure;
    a->roots = buf_new(3 * PEM_MAX);
    if (uv_loop_init(&a->loop) != 0) return fail_with(why, ERR_NOMEM, "no event loop");
    start_signals(a);
    enum err e = open_all(a, why);
    if (e != OK) stop(a, e, why->text);
    (void)uv_run(&a->loop, UV_RUN_DEFAULT);
    if (a->api.server && !a->server_gone) server_abandon(a->api.server);
    if (a->error != OK) (void)fail_with(why, a->error, "%s", a->why.text);
    return a->error;
}
