/* The implementation of web.h: the real server with real sockets; only the handlers are made up. */
#include "tests/lib/web.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "raft/loop.h"

unsigned web_io_loops;

static void handle_small(struct exchange *x) {
    struct web *w = x->ctx;
    w->handled++;
    exchange_answer(x, 200, "text/plain", span_str("small"));
}

static void handle_headed(struct exchange *x) {
    static const struct http_header more = {{(const uint8_t *)"x-more", 6},
                                            {(const uint8_t *)"told", 4}};
    struct web *w = x->ctx;
    w->handled++;
    x->headers = &more;
    x->n_headers = 1;
    if (!http_is(x->head.query, "streamed")) {
        exchange_answer(x, 200, "text/plain", span_str("whole"));
        return;
    }
    enum err e = exchange_stream(x, "text/plain");
    if (e == OK) e = exchange_write(x, span_str("piece"));
    exchange_end(x, e == OK);
}

static void handle_echo(struct exchange *x) {
    struct web *w = x->ctx;
    w->handled++;
    exchange_answer(x, 200, "application/octet-stream", x->body);
}

static void on_late_gone(struct exchange *x) {
    struct web *w = x->ctx;
    w->late_gone += x->gone;
}

static void handle_late(struct exchange *x) {
    struct web *w = x->ctx;
    x->drained = on_late_gone;
    w->handled++;
    assert(w->n_late < WEB_LATE);
    w->late[w->n_late++] = x;
}

void web_answer_late(struct web *w) {
    for (unsigned i = 0; i < w->n_late; i++)
        exchange_answer(w->late[i], 200, "text/plain", w->late[i]->body);
    w->n_late = 0;
}

static void handle_big(struct exchange *x) {
    struct web *w = x->ctx;
    char text[16] = "0";
    w->handled++;
    if (http_query(x->head.query, "size", text, sizeof text) != OK) text[0] = 0;
    size_t size = strtoul(text, NULL, 10);
    char *bytes = calloc(1, size + 1);
    if (bytes)
        exchange_answer(x, 200, "text/plain", span_of(bytes, size));
    else
        exchange_error(x, ERR_NOMEM, NULL);
    free(bytes);
}

static void flow(struct exchange *x) {
    static const uint8_t piece[10000];
    struct web *w = x->ctx;
    enum err e = x->gone ? ERR_CLOSED : OK;
    size_t *done = x->stream;
    while (e == OK && *done < w->flow) {
        size_t size = w->flow - *done < sizeof piece ? w->flow - *done : sizeof piece;
        e = exchange_write(x, span_of(piece, size));
        if (e == OK || e == ERR_BUSY) *done += size;
        if (e == OK || e == ERR_BUSY) w->flowed += size;
    }
    w->busy += e == ERR_BUSY;
    if (e == ERR_BUSY) return;
    w->gone += x->gone;
    free(done);
    exchange_end(x, e == OK);
}

static void handle_flow(struct exchange *x) {
    struct web *w = x->ctx;
    w->handled++;
    x->stream = calloc(1, sizeof(size_t));
    if (!x->stream) {
        exchange_error(x, ERR_NOMEM, NULL);
        return;
    }
    x->drained = flow;
    if (exchange_stream(x, "application/octet-stream") == OK || x->gone)
        flow(x);
    else {
        free(x->stream);
        exchange_end(x, false);
    }
}

static bool on_feed(struct exchange *x, struct span bytes, bool end) {
    struct web *w = x->ctx;
    w->fed += bytes.size;
    w->fed_by = x;
    if (!end) return !w->hold;
    char text[24];
    w->fed_by = NULL;
    w->ends++;
    (void)snprintf(text, sizeof text, "%zu", w->fed);
    exchange_answer(x, 200, "text/plain", span_str(text));
    return true;
}

static void on_feed_gone(struct exchange *x) {
    struct web *w = x->ctx;
    if (!x->gone) return;
    w->gone++;
    w->fed_by = NULL;
    exchange_answer(x, 200, NULL, span_of(NULL, 0));
}

static void handle_feed(struct exchange *x) {
    struct web *w = x->ctx;
    w->handled++;
    x->data = on_feed;
    x->drained = on_feed_gone;
}

static void handle_admin(struct exchange *x) {
    struct web *w = x->ctx;
    w->handled++;
    exchange_answer(x, 200, "text/plain", span_str(x->caller.name));
}

static void finish_rpc(struct exchange *x) {
    const struct http_header trailers[] = {{span_str("grpc-status"), span_str("0")}};
    exchange_trailers(x, trailers, ARRAY_SIZE(trailers));
}

static bool on_message(struct exchange *x, struct span bytes, bool end) {
    if (bytes.size > 0) (void)!exchange_write(x, bytes);
    if (end) finish_rpc(x);
    return true;
}

static void on_rpc_gone(struct exchange *x) {
    struct web *w = x->ctx;
    if (!x->gone) return;
    w->gone++;
    finish_rpc(x);
}

static void handle_rpc(struct exchange *x) {
    struct web *w = x->ctx;
    w->handled++;
    if (span_equal(x->head.path, span_str("/refused"))) {
        const struct http_header trailers[] = {{span_str("grpc-status"), span_str("12")},
                                               {span_str("grpc-message"), span_str("no")}};
        exchange_trailers(x, trailers, ARRAY_SIZE(trailers));
        return;
    }
    x->data = on_message;
    x->drained = on_rpc_gone;
    if (exchange_stream(x, "application/grpc") != OK && !x->gone) exchange_end(x, false);
}

static const struct route routes[] = {
    {HTTP_GET, "/small", ACCESS_CLIENT, handle_small, false},
    {HTTP_GET, "/headed", ACCESS_CLIENT, handle_headed, false},
    {HTTP_POST, "/echo", ACCESS_CLIENT, handle_echo, false},
    {HTTP_POST, "/late", ACCESS_CLIENT, handle_late, false},
    {HTTP_GET, "/big", ACCESS_CLIENT, handle_big, false},
    {HTTP_GET, "/flow", ACCESS_CLIENT, handle_flow, false},
    {HTTP_POST, "/feed", ACCESS_CLIENT, handle_feed, true},
    {HTTP_POST, "/admin", ACCESS_ADMIN, handle_admin, false},
    {.path = NULL},
};

static void handle_rest(struct exchange *x) {
    struct web *w = x->ctx;
    const struct http_header more[] = {{span_str("grpc-status"), span_str("7")},
                                       {span_str("x-more"), span_str("as told")}};
    w->handled++;
    x->headers = more;
    x->n_headers = ARRAY_SIZE(more);
    exchange_answer(x, 200, "text/plain", x->head.path);
}

static const struct route rest = {HTTP_GET, "", ACCESS_CLIENT, handle_rest, false};

static const struct route *find(const struct http_head *head) {
    bool found = head->path.size > 6 && memcmp(head->path.at, "/rest/", 6) == 0;
    return found ? &rest : NULL;
}

static const struct route rpc = {HTTP_POST, "", ACCESS_CLIENT, handle_rpc, true};

/* --- life ----------------------------------------------------------------------------------- */

static void on_guard(uv_timer_t *timer) { (void)timer; }

static bool is_member(void *ctx, const char *node_id, const uint8_t key[KEY_DIGEST_SIZE]) {
    struct web *w = ctx;
    (void)node_id;
    memcpy(w->member_key, key, KEY_DIGEST_SIZE);
    return !w->removed;
}

static void must(enum err e, const struct why *why) {
    if (e != OK) (void)fprintf(stderr, "web: %s: %s\n", err_name(e), why->text);
    assert(e == OK);
}

void web_open(struct web *w, const struct server_times *times) {
    struct why why = {0};
    const char *dir = getenv("TMPDIR");
    *w = (struct web){.flow = MIB};
    loop_block_sigpipe();
    log_open(&w->log, STDERR_FILENO, LOG_ERROR);
    assert(uv_loop_init(&w->loop) == 0);
    assert(uv_timer_init(&w->loop, &w->guard) == 0);
    assert(uv_timer_start(&w->guard, on_guard, 20, 20) == 0);
    struct server_config config = {.loop = &w->loop,
                                   .log = &w->log,
                                   .routes = routes,
                                   .find = find,
                                   .rpc = &rpc,
                                   .ctx = w,
                                   .is_member = is_member,
                                   .io_loops = web_io_loops};
    if (times) config.times = *times;
    must(server_new(&config, &w->server, &why), &why);
    (void)snprintf(w->path, sizeof w->path, "%s/web-%d.sock", dir ? dir : "/tmp", (int)getpid());
    must(server_listen_unix(w->server, w->path, &why), &why);
}

void web_listen(struct web *w) {
    struct why why = {0};
    must(server_listen_tcp(w->server, "127.0.0.1:0", true, &why), &why);
}

void web_credentials(struct web *w, const struct pki *pki, const struct pki_node *node) {
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    struct why why = {0};
    struct tls_config config = {.server = true,
                                .verify = TLS_VERIFY_REQUIRED,
                                .root_pem = buf_span(&pki->root),
                                .cert_pem = buf_span(&node->cert),
                                .key_pem = node->key,
                                .alpn = alpn,
                                .tls12 = true};
    struct tls_context *context;
    must(tls_context_new(&config, &context, &why), &why);
    server_credentials(w->server, context, pki->cluster_id);
}

void web_listen_tls(struct web *w, const struct pki *pki, const struct pki_node *node) {
    struct why why = {0};
    web_credentials(w, pki, node);
    must(server_listen_tcp(w->server, "127.0.0.1:0", false, &why), &why);
}

static void on_server_closed(void *ctx) {
    struct web *w = ctx;
    w->closed = true;
}

void web_stop(struct web *w) { server_close(w->server, on_server_closed, w); }

void web_turn(struct web *w) { (void)uv_run(&w->loop, UV_RUN_ONCE); }

void web_close(struct web *w) {
    uint64_t until = uv_hrtime() + 20000000000ULL;
    if (w->server && !w->closed) web_stop(w);
    while (!w->closed && uv_hrtime() < until) {
        web_answer_late(w); /* with I/O loops some come after their client has gone */
        web_turn(w);
    }
    assert(w->closed);
    uv_close((uv_handle_t *)&w->guard, NULL);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    assert(uv_loop_close(&w->loop) == 0);
}

/* --- clients -------------------------------------------------------------------------------- */

int web_connect_unix(struct web *w) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s", w->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert(fd >= 0);
    assert(connect(fd, (const struct sockaddr *)&at, sizeof at) == 0);
    return fd;
}

int web_connect_tcp(struct web *w) {
    struct sockaddr_storage at;
    must(address_parse(server_address(w->server), &at, NULL), &(struct why){0});
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert(fd >= 0);
    assert(connect(fd, (const struct sockaddr *)&at, sizeof(struct sockaddr_in)) == 0);
    return fd;
}
