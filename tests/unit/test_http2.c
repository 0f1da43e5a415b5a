/* HTTP/2 on the real server: what clients of good will get, on the unix socket, on loopback and
 * over TLS. What others try is in test_http2_abuse.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/fault.h"
#include "tests/lib/h2.h"

static struct web web;
static struct h2 client;

static void begin(void) {
    web_open(&web, NULL);
    h2_open(&client, &web, web_connect_unix(&web), NULL);
    WEB_UNTIL(&web, client.settings == 1 && client.acks == 1); /* the windows are known now */
}

static void end(void) {
    h2_close(&client);
    web_close(&web);
}

static const char *const rpc_type[] = {"content-type", "application/grpc+proto", "te", "trailers",
                                       NULL};

static bool all_answered(int32_t from, int32_t to) {
    for (int32_t id = from; id <= to; id += 2)
        if (!h2_stream(&client, id)->ended) return false;
    return true;
}

static void a_request_is_answered(void **state) {
    (void)state;
    begin();
    h2_request(&client, 1, "GET", "/small", NULL, true);
    h2_request(&client, 3, "POST", "/echo", NULL, false);
    h2_data(&client, 3, "hello ", 6, false);
    h2_data(&client, 3, "world", 5, true);
    h2_request(&client, 5, "HEAD", "/small?x=y", NULL, true);
    WEB_UNTIL(&web, all_answered(1, 5));
    assert_int_equal(h2_stream(&client, 1)->status, 200);
    assert_string_equal(h2_stream(&client, 1)->text, "small");
    assert_string_equal(h2_stream(&client, 1)->type, "text/plain");
    assert_string_equal(h2_stream(&client, 3)->text, "hello world");
    assert_int_equal(h2_stream(&client, 5)->status, 200);
    assert_int_equal(h2_stream(&client, 5)->size, 0);
    assert_true(client.settings == 1 && client.acks == 1);
    end();
}

static void what_is_not_there_is_told(void **state) {
    (void)state;
    begin();
    h2_request(&client, 1, "GET", "/nothing", NULL, true);
    h2_request(&client, 3, "DELETE", "/small", NULL, true);
    h2_request(&client, 5, "BREW", "/small", NULL, true);
    h2_request(&client, 7, "POST", "/nothing", NULL, false); /* answered before its body */
    WEB_UNTIL(&web, all_answered(1, 7));
    assert_int_equal(h2_stream(&client, 1)->status, 404);
    assert_int_equal(h2_stream(&client, 3)->status, 405);
    assert_int_equal(h2_stream(&client, 5)->status, 501);
    assert_int_equal(h2_stream(&client, 7)->status, 404);
    WEB_UNTIL(&web, h2_stream(&client, 7)->reset); /* its rest is not wanted */
    assert_int_equal(h2_stream(&client, 7)->code, NGHTTP2_NO_ERROR);
    end();
}

static void an_answer_can_have_headers_of_its_own(void **state) {
    (void)state;
    begin();
    h2_request(&client, 1, "PUT", "/rest/of", NULL, true);
    h2_request(&client, 3, "GET", "/small", NULL, true);
    WEB_UNTIL(&web, all_answered(1, 3));
    assert_int_equal(h2_stream(&client, 1)->status, 200);
    assert_string_equal(h2_stream(&client, 1)->text, "/rest/of");
    assert_string_equal(h2_stream(&client, 1)->grpc_status, "7");
    assert_string_equal(h2_stream(&client, 3)->grpc_status, "");
    end();
}

static void a_thousand_requests_wait_and_are_answered_in_any_order(void **state) {
    (void)state;
    begin();
    for (int32_t i = 0; i < (int32_t)STREAMS_MAX; i++) {
        h2_request(&client, 2 * i + 1, "POST", "/late", NULL, false);
        h2_data(&client, 2 * i + 1, &i, sizeof i, true);
    }
    WEB_UNTIL(&web, web.n_late == STREAMS_MAX);
    for (unsigned i = 0; i < STREAMS_MAX / 2; i++) { /* the last first */
        struct exchange *x = web.late[i];
        web.late[i] = web.late[STREAMS_MAX - 1 - i];
        web.late[STREAMS_MAX - 1 - i] = x;
    }
    web_answer_late(&web);
    WEB_UNTIL(&web, client.answered == STREAMS_MAX);
    for (int32_t i = 0; i < (int32_t)STREAMS_MAX; i++) {
        const struct h2_stream *st = h2_stream(&client, 2 * i + 1);
        assert_int_equal(st->status, 200);
        assert_memory_equal(st->text, &i, sizeof i);
    }
    end();
}

static void a_body_is_given_as_it_comes_and_can_be_told_to_wait(void **state) {
    (void)state;
    static uint8_t bytes[STREAM_WINDOW / 2];
    begin();
    web.hold = true;
    h2_request(&client, 1, "POST", "/feed", NULL, false);
    h2_data(&client, 1, "first", 5, false);
    WEB_UNTIL(&web, web.fed == 5);
    h2_data(&client, 1, bytes, sizeof bytes, true);
    h2_request(&client, 3, "GET", "/small", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 3)->ended);
    assert_int_equal(web.fed, 5); /* nothing more is given */
    web.hold = false;
    exchange_resume(web.fed_by);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(web.fed, 5 + sizeof bytes);
    assert_int_equal(web.ends, 1);
    assert_string_equal(h2_stream(&client, 1)->text, "524293");
    end();
}

static void a_body_of_any_size_goes_through_a_small_window(void **state) {
    (void)state;
    static uint8_t bytes[STREAM_WINDOW / 2];
    begin();
    h2_request(&client, 1, "POST", "/feed", NULL, false);
    for (unsigned i = 0; i < 40; i++) {
        h2_data(&client, 1, bytes, sizeof bytes, false);
        WEB_UNTIL(&web, web.fed == (i + 1) * sizeof bytes);
    }
    h2_data(&client, 1, NULL, 0, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_string_equal(h2_stream(&client, 1)->text, "20971520");
    assert_true(client.windows > 0);
    end();
}

static void rpc_ends_with_trailers(void **state) {
    (void)state;
    begin();
    h2_request(&client, 1, "POST", "/any/Method", rpc_type, false);
    h2_data(&client, 1, "message", 7, true);
    h2_request(&client, 3, "POST", "/refused", rpc_type, true);
    WEB_UNTIL(&web, all_answered(1, 3));
    const struct h2_stream *st = h2_stream(&client, 1);
    assert_int_equal(st->status, 200);
    assert_string_equal(st->type, "application/grpc");
    assert_string_equal(st->text, "message");
    assert_string_equal(st->grpc_status, "0");
    assert_int_equal(st->heads, 2);
    st = h2_stream(&client, 3);
    assert_int_equal(st->status, 200);
    assert_string_equal(st->type, "application/grpc");
    assert_string_equal(st->grpc_status, "12");
    assert_int_equal(st->heads, 1);
    end();
}

static void a_conversation_goes_both_ways(void **state) {
    (void)state;
    begin();
    h2_request(&client, 1, "POST", "/any/Method", rpc_type, false);
    WEB_UNTIL(&web, h2_stream(&client, 1)->status == 200); /* before any message */
    for (size_t i = 1; i <= 20; i++) {
        h2_data(&client, 1, "m", 1, false);
        WEB_UNTIL(&web, h2_stream(&client, 1)->size == i);
    }
    assert_false(h2_stream(&client, 1)->ended);
    h2_data(&client, 1, NULL, 0, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    end();
}

static void grpc_web_is_no_rpc(void **state) {
    (void)state;
    static const char *const type[] = {"content-type", "application/grpc-web", NULL};
    begin();
    h2_request(&client, 1, "POST", "/any/Method", type, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(h2_stream(&client, 1)->status, 404);
    end();
}

static void an_answer_waits_for_its_window_and_then_flows(void **state) {
    (void)state;
    begin();
    client.stingy = true;
    web.flow = 8 * MIB;
    h2_request(&client, 1, "GET", "/flow", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->size == 65535);
    WEB_UNTIL(&web, web.busy > 0);
    assert_true(web.flowed <= 65535 + ANSWER_QUEUE_MAX + 10000 + web_on_the_way());
    h2_request(&client, 3, "HEAD", "/small", NULL, true); /* others are not held up */
    WEB_UNTIL(&web, h2_stream(&client, 3)->ended);
    client.stingy = false;
    h2_window(&client, 0, 65535);
    h2_window(&client, 1, 65535);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(h2_stream(&client, 1)->size, 8 * MIB);
    end();
}

static void a_client_that_leaves_is_told_to_whom_it_concerns(void **state) {
    (void)state;
    begin();
    web.hold = true;
    client.stingy = true;
    web.flow = 8 * MIB;
    h2_request(&client, 1, "POST", "/late", NULL, true);
    h2_request(&client, 3, "POST", "/feed", NULL, false);
    h2_request(&client, 5, "GET", "/flow", NULL, true);
    h2_request(&client, 7, "POST", "/any/Method", rpc_type, false);
    h2_request(&client, 9, "POST", "/echo", NULL, false);
    h2_data(&client, 3, "x", 1, false);
    WEB_UNTIL(&web, web.n_late == 1 && web.fed == 1 && web.busy > 0);
    h2_close(&client);
    WEB_UNTIL(&web, web.gone == 3);
    assert_true(web.late[0]->gone);
    web_close(&web); /* answers the late one into nothing */
}

static void a_request_that_is_dropped_by_its_client_is_gone(void **state) {
    (void)state;
    static const uint8_t cancel[4] = {0, 0, 0, 8};
    begin();
    h2_request(&client, 1, "POST", "/any/Method", rpc_type, false);
    h2_request(&client, 3, "POST", "/late", NULL, true);
    WEB_UNTIL(&web, web.handled == 2);
    h2_frame(&client, H2_RST, 0, 1, cancel, sizeof cancel);
    h2_frame(&client, H2_RST, 0, 3, cancel, sizeof cancel);
    WEB_UNTIL(&web, web.gone == 1 && web.late[0]->gone);
    web_answer_late(&web);
    h2_request(&client, 5, "GET", "/small", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 5)->ended);
    end();
}

static void a_stopping_server_answers_what_it_has_taken(void **state) {
    (void)state;
    begin();
    h2_request(&client, 1, "POST", "/late", NULL, true);
    WEB_UNTIL(&web, web.n_late == 1);
    web_stop(&web);
    WEB_UNTIL(&web, client.goaway);
    assert_int_equal(client.code, NGHTTP2_NO_ERROR);
    assert_int_equal(client.last, 1);
    assert_false(client.closed || web.closed);
    h2_request(&client, 3, "GET", "/small", NULL, true); /* too late */
    web_answer_late(&web);
    WEB_UNTIL(&web, client.closed && web.closed);
    assert_int_equal(h2_stream(&client, 1)->status, 200);
    assert_int_equal(h2_stream(&client, 3)->status, 0);
    end();
}

static void both_protocols_live_on_one_port(void **state) {
    (void)state;
    char got[256] = "";
    web_open(&web, NULL);
    web_listen(&web);
    int fd = web_connect_tcp(&web);
    h2_open(&client, &web, web_connect_tcp(&web), NULL);
    static const char request[] = "GET /small HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n";
    for (size_t i = 0; i < sizeof request - 1; i++) /* byte by byte: 'P' alone decides nothing */
        assert_int_equal(send(fd, request + i, 1, 0), 1);
    h2_request(&client, 1, "GET", "/small", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    WEB_UNTIL(&web, recv(fd, got, sizeof got - 1, MSG_DONTWAIT) > 0);
    assert_non_null(strstr(got, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(got, "small"));
    (void)close(fd);
    end();
}

/* --- TLS ------------------------------------------------------------------------------------ */

struct party {
    struct pki pki;
    struct pki_node server, admin, user, worker;
};

static void party_new(struct party *p) {
    pki_new(&p->pki, WEB_CLUSTER);
    pki_node_new(&p->pki, "server", ROLE_MANAGER, WEB_CLUSTER, 60, &p->server);
    pki_node_new(&p->pki, "boss", ROLE_ADMIN, WEB_CLUSTER, 60, &p->admin);
    pki_node_new(&p->pki, "joe", "conclave-client", WEB_CLUSTER, 60, &p->user);
    pki_node_new(&p->pki, "works", ROLE_WORKER, WEB_CLUSTER, 60, &p->worker);
}

static void party_free(struct party *p) {
    pki_node_free(&p->server);
    pki_node_free(&p->admin);
    pki_node_free(&p->user);
    pki_node_free(&p->worker);
    pki_free(&p->pki);
}

static struct tls_context *client_context(const struct party *p, const struct pki_node *node,
                                          const char *const *alpn) {
    struct tls_config config = {.verify = TLS_VERIFY_REQUIRED,
                                .root_pem = buf_span(&p->pki.root),
                                .cert_pem = buf_span(&node->cert),
                                .key_pem = node->key,
                                .alpn = alpn};
    struct tls_context *context;
    assert_int_equal(tls_context_new(&config, &context, NULL), OK);
    return context;
}

static const char *const h2_only[] = {"h2", NULL};

static void over_tls_alpn_decides_and_the_certificate_says_who_asks(void **state) {
    (void)state;
    static struct party p;
    static struct h2 other;
    party_new(&p);
    web_open(&web, NULL);
    web_listen_tls(&web, &p.pki, &p.server);
    struct tls_context *admin = client_context(&p, &p.admin, h2_only);
    struct tls_context *user = client_context(&p, &p.user, h2_only);
    h2_open(&client, &web, web_connect_tcp(&web), admin);
    h2_open(&other, &web, web_connect_tcp(&web), user);
    h2_request(&client, 1, "POST", "/admin", NULL, true);
    h2_request(&other, 1, "POST", "/admin", NULL, true);
    h2_request(&other, 3, "GET", "/big?size=3000000", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended && h2_stream(&other, 3)->ended);
    assert_string_equal(tls_alpn(client.tls), "h2");
    assert_string_equal(h2_stream(&client, 1)->text, "boss");
    assert_int_equal(h2_stream(&other, 1)->status, 403);
    assert_int_equal(h2_stream(&other, 3)->size, 3000000);
    h2_close(&other);
    tls_context_release(admin);
    tls_context_release(user);
    end();
    party_free(&p);
}

static unsigned status_of(struct h2 *h, int32_t id, const char *method, const char *path) {
    h2_request(h, id, method, path, NULL, true);
    WEB_UNTIL(&web, h2_stream(h, id)->ended);
    return h2_stream(h, id)->status;
}

static void certificates_of_nodes_open_nothing_but_a_managers_while_it_is_one(void **state) {
    (void)state;
    static struct party p;
    uint8_t key[KEY_DIGEST_SIZE];
    party_new(&p);
    web_open(&web, NULL);
    web_listen_tls(&web, &p.pki, &p.server);
    struct tls_context *worker = client_context(&p, &p.worker, h2_only);
    struct tls_context *manager = client_context(&p, &p.server, h2_only);
    h2_open(&client, &web, web_connect_tcp(&web), worker);
    assert_int_equal(status_of(&client, 1, "GET", "/small"), 403);
    assert_non_null(strstr(h2_stream(&client, 1)->text, "worker"));
    h2_close(&client);
    h2_open(&client, &web, web_connect_tcp(&web), manager);
    assert_int_equal(status_of(&client, 1, "POST", "/admin"), 200);
    assert_int_equal(x509_key_digest(buf_span(&p.server.cert), key), OK);
    assert_memory_equal(key, web.member_key, sizeof key);
    web.removed = true;
    assert_int_equal(status_of(&client, 3, "GET", "/small"), 403);
    assert_non_null(strstr(h2_stream(&client, 3)->text, "is not one of"));
    web.removed = false;
    assert_int_equal(status_of(&client, 5, "GET", "/small"), 200);
    tls_context_release(worker);
    tls_context_release(manager);
    end();
    party_free(&p);
}

static void a_new_certificate_is_for_new_connections_and_ends_no_old_one(void **state) {
    (void)state;
    static struct party p;
    static struct h2 other;
    struct pki_node renewed;
    struct x509_subject before, after;
    party_new(&p);
    pki_node_new(&p.pki, "renewed", ROLE_MANAGER, WEB_CLUSTER, 10, &renewed);
    web_open(&web, NULL);
    web_listen_tls(&web, &p.pki, &p.server);
    struct tls_context *user = client_context(&p, &p.user, h2_only);
    h2_open(&client, &web, web_connect_tcp(&web), user);
    h2_request(&client, 1, "POST", "/late", NULL, true);
    WEB_UNTIL(&web, web.n_late == 1);
    web_credentials(&web, &p.pki, &renewed);
    h2_open(&other, &web, web_connect_tcp(&web), user);
    h2_request(&other, 1, "GET", "/small", NULL, true);
    web_answer_late(&web);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended && h2_stream(&other, 1)->ended);
    assert_int_equal(tls_peer(client.tls, &before), OK);
    assert_int_equal(tls_peer(other.tls, &after), OK);
    assert_string_equal(before.cn, "server");
    assert_string_equal(after.cn, "renewed");
    h2_request(&client, 3, "GET", "/small", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 3)->ended);
    assert_int_equal(h2_stream(&client, 3)->status, 200);
    h2_close(&other);
    tls_context_release(user);
    end();
    pki_node_free(&renewed);
    party_free(&p);
}

/* From now on the server takes certificates of `root` alone. */
static void trust_only(const struct party *p, const struct pki *root) {
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    const struct tls_config config = {.server = true,
                                      .verify = TLS_VERIFY_REQUIRED,
                                      .root_pem = buf_span(&root->root),
                                      .cert_pem = buf_span(&p->server.cert),
                                      .key_pem = p->server.key,
                                      .alpn = alpn};
    struct tls_context *context;
    assert_int_equal(tls_context_new(&config, &context, NULL), OK);
    server_credentials(web.server, context, WEB_CLUSTER);
    assert_int_equal(server_review(web.server), OK);
}

static void connections_of_a_root_that_is_trusted_no_more_end(void **state) {
    (void)state;
    static struct party p;
    static struct h2 busy, stuck, fresh;
    static const struct server_times times = {.grace = 300};
    struct pki next;
    struct pki_node newer;
    party_new(&p);
    pki_new(&next, WEB_CLUSTER);
    pki_node_new(&next, "newer", ROLE_ADMIN, WEB_CLUSTER, 10, &newer);
    web_open(&web, &times);
    web_listen_tls(&web, &p.pki, &p.server);
    struct tls_context *old = client_context(&p, &p.admin, h2_only);
    struct tls_context *young = client_context(&p, &newer, h2_only);
    h2_open(&client, &web, web_connect_tcp(&web), old);
    h2_open(&busy, &web, web_connect_tcp(&web), old);
    h2_open(&stuck, &web, web_connect_tcp(&web), old);
    assert_int_equal(status_of(&client, 1, "POST", "/admin"), 200);
    h2_request(&busy, 1, "POST", "/late", NULL, true);
    WEB_UNTIL(&web, web.n_late == 1);
    h2_request(&stuck, 1, "POST", "/feed", NULL, false); /* its body never comes */
    h2_data(&stuck, 1, "x", 1, false);
    WEB_UNTIL(&web, web.fed == 1);
    trust_only(&p, &next);
    h2_open(&fresh, &web, web_connect_tcp(&web), young);
    WEB_UNTIL(&web, client.closed);
    assert_int_equal(status_of(&fresh, 1, "POST", "/admin"), 200);
    web_answer_late(&web);
    WEB_UNTIL(&web, busy.closed && stuck.closed);
    assert_int_equal(h2_stream(&busy, 1)->status, 200);
    assert_true(h2_stream(&busy, 1)->ended);
    trust_only(&p, &next); /* nothing changes for who is of it */
    assert_int_equal(status_of(&fresh, 3, "POST", "/admin"), 200);
    h2_close(&busy);
    h2_close(&stuck);
    h2_close(&fresh);
    tls_context_release(old);
    tls_context_release(young);
    end();
    pki_node_free(&newer);
    pki_free(&next);
    party_free(&p);
}

static void a_handshake_under_way_is_judged_by_what_is_trusted_at_its_end(void **state) {
    (void)state;
    static struct party p;
    struct pki next;
    party_new(&p);
    pki_new(&next, WEB_CLUSTER);
    web_open(&web, NULL);
    web_listen_tls(&web, &p.pki, &p.server);
    int silent = web_connect_tcp(&web);
    struct server_figures figures = {0}, more = {0};
    WEB_UNTIL(&web, server_figures(web.server, web_io_loops > 0, &figures) &&
                        (web_io_loops < 2 || server_figures(web.server, 2, &more)) &&
                        figures.connections + more.connections == 1);
    struct tls_context *old = client_context(&p, &p.admin, h2_only);
    trust_only(&p, &next);
    h2_open(&client, &web, silent, old);
    h2_request(&client, 1, "POST", "/admin", NULL, true);
    WEB_UNTIL(&web, client.closed);
    assert_int_not_equal(h2_stream(&client, 1)->status, 200);
    tls_context_release(old);
    end();
    pki_free(&next);
    party_free(&p);
}

/* --- memory --------------------------------------------------------------------------------- */

static void run_requests(void *ctx) {
    static const char *const more[] = {"content-type", "application/grpc", NULL};
    (void)ctx;
    fault_alloc_pause();
    h2_open(&client, &web, web_connect_unix(&web), NULL);
    h2_request(&client, 1, "POST", "/echo", NULL, false);
    h2_data(&client, 1, "echo", 4, true);
    h2_request(&client, 3, "POST", "/any/Method", more, false);
    h2_data(&client, 3, "rpc", 3, true);
    h2_request(&client, 5, "GET", "/big?size=200000", NULL, true);
    h2_request(&client, 7, "GET", "/flow", NULL, true);
    fault_alloc_resume();
    WEB_UNTIL(&web, client.closed || client.answered == 4);
}

static void after_requests(void *ctx, bool fired) {
    (void)ctx;
    if (!fired) assert_int_equal(client.answered, 4);
    h2_close(&client);
}

static void no_lack_of_memory_hurts_more_than_its_request(void **state) {
    (void)state;
    web_open(&web, NULL);
    assert_true(fault_sweep_alloc(run_requests, after_requests, NULL) > 3);
    web_close(&web);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_answered),
        cmocka_unit_test(what_is_not_there_is_told),
        cmocka_unit_test(an_answer_can_have_headers_of_its_own),
        cmocka_unit_test(a_thousand_requests_wait_and_are_answered_in_any_order),
        cmocka_unit_test(a_body_is_given_as_it_comes_and_can_be_told_to_wait),
        cmocka_unit_test(a_body_of_any_size_goes_through_a_small_window),
        cmocka_unit_test(rpc_ends_with_trailers),
        cmocka_unit_test(a_conversation_goes_both_ways),
        cmocka_unit_test(grpc_web_is_no_rpc),
        cmocka_unit_test(an_answer_waits_for_its_window_and_then_flows),
        cmocka_unit_test(a_client_that_leaves_is_told_to_whom_it_concerns),
        cmocka_unit_test(a_request_that_is_dropped_by_its_client_is_gone),
        cmocka_unit_test(a_stopping_server_answers_what_it_has_taken),
        cmocka_unit_test(both_protocols_live_on_one_port),
        cmocka_unit_test(over_tls_alpn_decides_and_the_certificate_says_who_asks),
        cmocka_unit_test(certificates_of_nodes_open_nothing_but_a_managers_while_it_is_one),
        cmocka_unit_test(a_new_certificate_is_for_new_connections_and_ends_no_old_one),
        cmocka_unit_test(connections_of_a_root_that_is_trusted_no_more_end),
        cmocka_unit_test(a_handshake_under_way_is_judged_by_what_is_trusted_at_its_end),
        cmocka_unit_test(no_lack_of_memory_hurts_more_than_its_request),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    web_io_loops = 2;
    return failed + cmocka_run_group_tests_name("with I/O loops", tests, NULL, NULL);
}
