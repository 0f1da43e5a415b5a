/* Calls between their carriers and their methods: metadata, who may call when, ends of calls from
 * either side, deadlines, streams that wait, figures, and all of it while memory fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/etcd/methods.h"
#include "api/etcd/rpc.pb-c.h"
#include "tests/lib/etcd_methods.h"
#include "tests/lib/fault.h"
#include "tests/lib/rpc/rpc_world.h"

/* --- who, and when ---------------------------------------------------------------------------- */

static void metadata_tells_the_token_the_key_and_the_time(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf bytes = buf_new(1 * KIB);
    world_request(&bytes, "later");
    world_open(w, &b, "/t.T/Echo");
    exbox_header(&b, "authorization", "second");
    exbox_header(&b, "token", "first");
    exbox_header(&b, "authorization", "third");
    exbox_header(&b, "hasleader", "true");
    exbox_header(&b, "grpc-timeout", "7S");
    exbox_header(&b, "idempotency-key", "000102030405060708090a0b0c0d0e0f");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, buf_span(&bytes), true));
    const struct rpc_call *c = w->api.rpcs->calls;
    assert_non_null(c);
    assert_true(span_equal(c->token, span_str("first")));
    assert_true(c->rpc.has_leader && c->rpc.has_token);
    for (unsigned i = 0; i < TOKEN_SIZE; i++)
        assert_int_equal(c->rpc.token[i], i);
    assert_int_equal(c->rpc.deadline_ms, uv_now(&w->loop) + 7000);
    exbox_leave(&b);
    assert_int_equal(seen.gone, 1);
    assert_int_equal(world_calls(w), 0);
    exbox_free(&b);
    buf_free(&bytes);
}

static void malformed_metadata_is_refused(void **state) {
    struct world *w = *state;
    static const char *const times[] = {"", "5", "S", "-1S", "5x", "123456789S", " 5S"};
    struct exbox b;
    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        world_open(w, &b, "/t.T/Echo");
        exbox_header(&b, "grpc-timeout", times[i]);
        exbox_grpc(&b);
        world_failed(&b, 13, "malformed grpc-timeout");
        exbox_free(&b);
    }
    static const char *const keys[] = {"", "0001", "000102030405060708090a0b0c0d0e0g",
                                       "000102030405060708090a0b0c0d0e0f00"};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        world_open(w, &b, "/t.T/Echo");
        exbox_header(&b, "idempotency-key", keys[i]);
        exbox_grpc(&b);
        assert_int_equal(b.code, 3);
        exbox_free(&b);
    }
    static const char *const good[] = {"99999999H", "1n", "0m", "12345678u"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct buf bytes = buf_new(1 * KIB);
        world_request(&bytes, "x");
        world_open(w, &b, "/t.T/Echo");
        exbox_header(&b, "grpc-timeout", good[i]);
        exbox_grpc(&b);
        assert_true(exbox_data(&b, buf_span(&bytes), true));
        assert_int_equal(b.code, 0);
        exbox_free(&b);
        buf_free(&bytes);
    }
}

static void a_node_that_does_not_run_says_why(void **state) {
    struct world *w = *state;
    struct exbox b;
    w->manager->state = MANAGER_LOCKED;
    (void)snprintf(w->manager->reason, sizeof w->manager->reason, "it is locked");
    world_call(w, &b, "/t.T/Echo", "x");
    world_failed(&b, 14, "it is locked");
    exbox_free(&b);
    w->manager->state = MANAGER_EMPTY;
    world_call(w, &b, "/t.T/Standby", "x");
    assert_int_equal(b.code, 14);
    exbox_free(&b);
    world_call(w, &b, "/t.T/Always", "x");
    assert_int_equal(b.code, 0);
    exbox_free(&b);
    w->manager->state = MANAGER_RUNNING;
}

static void a_standby_serves_only_what_it_may(void **state) {
    struct world *w = *state;
    struct exbox b;
    w->api.rpcs->standby = true; /* as found out just now */
    w->api.rpcs->standby_ms = uv_now(&w->loop);
    world_call(w, &b, "/t.T/Echo", "x");
    world_failed(&b, 9, "etcdserver: rpc not supported for learner");
    exbox_free(&b);
    world_call(w, &b, "/t.T/Standby", "x");
    assert_int_equal(b.code, 0);
    exbox_free(&b);
    w->api.rpcs->standby_ms = 0; /* a voter, in truth */
    world_call(w, &b, "/t.T/Echo", "x");
    assert_int_equal(b.code, 0);
    exbox_free(&b);
}

static void who_wants_a_leader_fails_without_one(void **state) {
    struct world *w = *state;
    struct exbox b;
    w->manager->leader = 0;
    world_open(w, &b, "/t.T/Echo");
    exbox_header(&b, "hasleader", "true");
    exbox_grpc(&b);
    world_failed(&b, 14, "etcdserver: no leader");
    exbox_free(&b);
    world_call(w, &b, "/t.T/Echo", "x");
    assert_int_equal(b.code, 0);
    exbox_free(&b);
    w->manager->leader = 1;
}

static void streams_that_want_a_leader_are_cut_when_it_stays_away(void **state) {
    struct world *w = *state;
    struct exbox wants, does_not, unary;
    struct buf bytes = buf_new(1 * KIB);
    world_request(&bytes, "later");
    world_open(w, &does_not, "/t.T/Talk");
    exbox_grpc(&does_not);
    assert_true(exbox_data(&does_not, buf_span(&bytes), false));
    world_open(w, &unary, "/t.T/Echo");
    exbox_header(&unary, "hasleader", "true");
    exbox_grpc(&unary);
    assert_true(exbox_data(&unary, buf_span(&bytes), true));
    world_open(w, &wants, "/t.T/Talk");
    exbox_header(&wants, "hasleader", "true");
    exbox_grpc(&wants);
    assert_true(exbox_data(&wants, buf_span(&bytes), false));
    rpcs_no_leader(&w->api); /* there is one */
    world_run(w, 3 * ELECTION_TIMEOUT_MS + 50);
    assert_false(wants.done);
    w->manager->leader = 0;
    rpcs_no_leader(&w->api);
    world_run(w, 100);
    assert_false(wants.done);
    world_run(w, 3 * ELECTION_TIMEOUT_MS);
    assert_true(wants.done);
    assert_int_equal(wants.code, 14);
    assert_string_equal(wants.message, "etcdserver: no leader");
    assert_int_equal(seen.gone, 1);
    assert_false(does_not.done);
    assert_false(unary.done);
    w->manager->leader = 1;
    seen.r = does_not.x.stream;
    exbox_leave(&does_not);
    seen.r = unary.x.stream;
    exbox_leave(&unary);
    assert_int_equal(world_calls(w), 0);
    exbox_free(&wants);
    exbox_free(&does_not);
    exbox_free(&unary);
    buf_free(&bytes);
}

static void a_deadline_ends_the_call_and_the_method_lets_go(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf bytes = buf_new(1 * KIB);
    world_request(&bytes, "later");
    world_open(w, &b, "/t.T/Echo");
    exbox_header(&b, "grpc-timeout", "100m");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, buf_span(&bytes), true));
    world_run(w, 50);
    assert_false(b.done);
    world_run(w, 100);
    world_failed(&b, 4, "context deadline exceeded");
    assert_int_equal(seen.gone, 1);
    assert_int_equal(world_calls(w), 0);
    assert_int_equal(w->api.rpcs->timed, 0);
    exbox_free(&b);
    buf_free(&bytes);
}

static void a_late_answer_goes_nowhere(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf bytes = buf_new(1 * KIB);
    Etcdserverpb__RangeResponse answer = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    world_request(&bytes, "later");
    world_open(w, &b, "/t.T/Echo");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, buf_span(&bytes), true));
    seen.r->gone = NULL; /* such a method does not hear of it */
    exbox_leave(&b);
    assert_true(b.done);
    assert_int_equal(world_calls(w), 1);
    assert_true(seen.r->left);
    assert_int_equal(rpc_send(seen.r, &answer.base), ERR_CLOSED);
    rpc_answer(seen.r, &answer.base);
    assert_int_equal(world_calls(w), 0);
    assert_int_equal(b.body.size, 0);
    exbox_free(&b);
    buf_free(&bytes);
}

/* --- streams ---------------------------------------------------------------------------------- */

static void messages_of_one_piece_come_in_order(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf bytes = buf_new(1 * KIB);
    world_open(w, &b, "/t.T/Talk");
    world_request(&bytes, "a");
    world_request(&bytes, "b");
    world_request(&bytes, "c");
    for (size_t cut = 0; cut <= bytes.size; cut++) {
        struct span answer;
        world_open(w, &b, "/t.T/Talk");
        exbox_grpc(&b);
        assert_true(exbox_data(&b, span_of(bytes.at, cut), false));
        assert_true(exbox_data(&b, span_of(bytes.at + cut, bytes.size - cut), false));
        assert_false(b.done);
        assert_int_equal(seen.messages, 3);
        assert_memory_equal(seen.keys.at, "abc", 3);
        for (unsigned i = 0; i < 3; i++) {
            assert_true(exbox_answer(&b, i, &answer));
            assert_memory_equal(answer.at, ((uint8_t[]){4 << 3, (uint8_t)(i + 1)}), 2);
        }
        assert_true(exbox_data(&b, span_of(NULL, 0), true));
        assert_int_equal(seen.ended, 1);
        assert_true(b.done);
        assert_int_equal(b.code, 0);
        exbox_free(&b);
    }
    buf_free(&bytes);
}

static void a_half_close_ends_a_stream_unless_its_method_says_otherwise(void **state) {
    struct world *w = *state;
    struct exbox b;
    world_open(w, &b, "/t.T/Hear");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, span_of(NULL, 0), true));
    assert_true(b.done && b.status == 200);
    assert_int_equal(b.code, 0);
    assert_int_equal(b.body.size, 0);
    exbox_free(&b);
}

static void who_takes_no_answers_is_not_listened_to(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf bytes = buf_new(1 * KIB);
    world_request(&bytes, "a");
    world_request(&bytes, "b");
    world_request(&bytes, "c");
    world_open(w, &b, "/t.T/Talk");
    exbox_grpc(&b);
    b.full = true;
    assert_false(exbox_data(&b, span_of(bytes.at, bytes.size - 1), false));
    assert_int_equal(seen.messages, 1);
    assert_int_equal(seen.sent, ERR_BUSY);
    b.x.drained(&b.x); /* room for one more */
    assert_int_equal(seen.drained, 1);
    assert_int_equal(seen.messages, 2);
    assert_false(b.resumed);
    exbox_drain(&b);
    assert_int_equal(seen.messages, 2);
    assert_true(b.resumed);
    assert_true(exbox_data(&b, span_of(bytes.at + bytes.size - 1, 1), true));
    assert_int_equal(seen.messages, 3);
    assert_memory_equal(seen.keys.at, "abc", 3);
    assert_true(b.done);
    exbox_free(&b);
    buf_free(&bytes);
}

static void an_end_that_came_while_waiting_is_not_lost(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf bytes = buf_new(1 * KIB);
    world_request(&bytes, "a");
    world_request(&bytes, "b");
    world_open(w, &b, "/t.T/Talk");
    exbox_grpc(&b);
    b.full = true;
    assert_false(exbox_data(&b, buf_span(&bytes), true));
    exbox_drain(&b);
    assert_int_equal(seen.messages, 2);
    assert_int_equal(seen.ended, 1);
    assert_true(b.done);
    exbox_free(&b);
    buf_free(&bytes);
}

static void streams_end_when_the_state_goes_away(void **state) {
    struct world *w = *state;
    struct exbox stream, unary;
    struct buf bytes = buf_new(1 * KIB);
    world_request(&bytes, "later");
    world_open(w, &unary, "/t.T/Echo");
    exbox_grpc(&unary);
    assert_true(exbox_data(&unary, buf_span(&bytes), true));
    world_open(w, &stream, "/t.T/Feed");
    exbox_grpc(&stream);
    assert_true(exbox_data(&stream, buf_span(&bytes), true));
    rpcs_stop(w->api.rpcs);
    assert_true(stream.done && !unary.done);
    assert_int_equal(stream.code, 14);
    assert_string_equal(stream.message, "etcdserver: server stopped");
    seen.r = unary.x.stream;
    exbox_leave(&unary);
    exbox_free(&stream);
    exbox_free(&unary);
    buf_free(&bytes);
}

/* --- figures ---------------------------------------------------------------------------------- */

static void calls_are_counted(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf out = buf_new(1 * MIB);
    for (unsigned i = 0; i < 3; i++) {
        world_call(w, &b, "/t.T/Echo", i == 0 ? "bad" : "x");
        exbox_free(&b);
    }
    assert_int_equal(rpcs_metrics(w->api.rpcs, &out), OK);
    assert_int_equal(buf_u8(&out, 0), OK);
    static const char *const lines[] = {
        "\ngrpc_server_started_total{grpc_method=\"Echo\",grpc_service=\"t.T\",grpc_type=\"unary\"}"
        " "
        "3\n",
        "\ngrpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Echo\",grpc_service=\"t.T\","
        "grpc_type=\"unary\"} 2\n",
        "\ngrpc_server_handled_total{grpc_code=\"OutOfRange\",grpc_method=\"Echo\","
        "grpc_service=\"t.T\",grpc_type=\"unary\"} 1\n",
        "\ngrpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Talk\",grpc_service=\"t.T\","
        "grpc_type=\"bidi_stream\"} 0\n",
        "\ngrpc_server_handling_seconds_count{grpc_method=\"Echo\",grpc_service=\"t.T\","
        "grpc_type=\"unary\"} 3\n",
        "\netcd_network_client_grpc_received_bytes_total 26\n",
        "\netcd_network_client_grpc_sent_bytes_total 20\n"};
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
        assert_non_null(strstr((char *)out.at, lines[i]));
    buf_free(&out);
}

static void what_is_served_is_what_etcd_serves(void **state) {
    (void)state;
    struct method want[ETCD_METHODS_MAX];
    unsigned n = etcd_methods(want, NULL, NULL);
    for (const struct method *const *s = api_services; *s; s++)
        for (const struct method *m = *s; m->path; m++) {
            const struct method *same = NULL;
            for (unsigned i = 0; i < n; i++)
                if (strcmp(want[i].path, m->path) == 0) same = &want[i];
            assert_non_null(same);
            assert_true(m->json ? same->json && strcmp(m->json, same->json) == 0 : !same->json);
            assert_true(m->kind == same->kind && m->request == same->request &&
                        m->answer == same->answer);
            assert_non_null(m->message);
        }
}

/* --- memory ----------------------------------------------------------------------------------- */

struct sweep {
    struct world *w;
    struct buf bytes;
    struct exbox grpc, json, talk, large;
};

static void run_all(void *ctx) {
    struct sweep *s = ctx;
    struct world *w = s->w;
    exbox_open(&s->grpc, &w->api, "/t.T/Echo", span_of(NULL, 0));
    exbox_header(&s->grpc, "grpc-timeout", "1S");
    exbox_grpc(&s->grpc);
    (void)exbox_data(&s->grpc, span_of(s->bytes.at, 3), false);
    (void)exbox_data(&s->grpc, span_of(s->bytes.at + 3, s->bytes.size - 3), true);
    exbox_open(&s->talk, &w->api, "/v3/t/talk", span_of(NULL, 0));
    (void)exbox_json(&s->talk, w->api.rpcs);
    (void)exbox_data(&s->talk, span_str("{\"key\":\"YQ"), false);
    (void)exbox_data(&s->talk, span_str("==\"}"), true);
    exbox_open(&s->json, &w->api, "/v3/t/echo", span_str("{\"key\":\"Zm9v\"}"));
    (void)exbox_json(&s->json, w->api.rpcs);
    exbox_open(&s->large, &w->api, "/v3/t/echo", span_str("{\"key\":\"bGFyZ2U=\"}"));
    (void)exbox_json(&s->large, w->api.rpcs);
}

/* Whatever fails, every exchange is answered and no call is left. */
static void check_all(void *ctx, bool fired) {
    struct sweep *s = ctx;
    assert_true(s->grpc.done && s->json.done && s->talk.done && s->large.done);
    assert_int_equal(world_calls(s->w), 0);
    bool good = s->grpc.code == 0 && s->json.status == 200 && s->json.body.size > 0 &&
                s->talk.status == 200 && s->talk.body.size > 0 && s->large.whole &&
                s->large.status == 200;
    if (!fired) assert_true(good);
    exbox_free(&s->grpc);
    exbox_free(&s->json);
    exbox_free(&s->talk);
    exbox_free(&s->large);
    while (s->w->api.rpcs->pool) { /* so that the next round asks for memory again */
        struct rpc_call *c = s->w->api.rpcs->pool;
        s->w->api.rpcs->pool = c->next;
        free(c);
    }
    s->w->api.rpcs->pooled = 0;
    buf_free(&s->w->api.rpcs->out);
    buf_free(&s->w->api.rpcs->json);
}

static void no_memory_ends_a_call_and_nothing_else(void **state) {
    struct sweep s = {.w = *state, .bytes = buf_new(4 * KIB)};
    uint8_t message[1600] = {0x0a, 0xbd, 0x0c}; /* larger than the arena's first piece */
    world_forget();
    assert_int_equal(exbox_frame(&s.bytes, span_of(message, sizeof message)), OK);
    assert_true(fault_sweep_alloc(run_all, check_all, &s) > 8);
    buf_free(&s.bytes);
}

static void made(void *ctx) {
    struct world *w = ctx;
    struct rpcs *r = NULL;
    if (rpcs_new(&w->api, &w->loop, world_services, world_routes, &r) == OK) rpcs_close(r);
}

static void not_checked(void *ctx, bool fired) {
    (void)ctx;
    (void)fired;
}

static void no_memory_at_the_start_leaves_nothing(void **state) {
    assert_true(fault_sweep_alloc(made, not_checked, *state) > 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(metadata_tells_the_token_the_key_and_the_time),
        TEST(malformed_metadata_is_refused),
        TEST(a_node_that_does_not_run_says_why),
        TEST(a_standby_serves_only_what_it_may),
        TEST(who_wants_a_leader_fails_without_one),
        TEST(streams_that_want_a_leader_are_cut_when_it_stays_away),
        TEST(a_deadline_ends_the_call_and_the_method_lets_go),
        TEST(a_late_answer_goes_nowhere),
        TEST(messages_of_one_piece_come_in_order),
        TEST(a_half_close_ends_a_stream_unless_its_method_says_otherwise),
        TEST(who_takes_no_answers_is_not_listened_to),
        TEST(an_end_that_came_while_waiting_is_not_lost),
        TEST(streams_end_when_the_state_goes_away),
        TEST(calls_are_counted),
        TEST(what_is_served_is_what_etcd_serves),
        TEST(no_memory_ends_a_call_and_nothing_else),
        TEST(no_memory_at_the_start_leaves_nothing),
    };
    if (sodium_init() < 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
