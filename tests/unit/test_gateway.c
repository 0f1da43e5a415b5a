/* The JSON gateway: the same methods by their JSON paths, bodies in any pieces, answers and errors
 * in the form of etcd's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>

#include "api/etcd/rpc.pb-c.h"
#include "tests/lib/etcd_methods.h"
#include "tests/lib/rpc/rpc_world.h"

static void call_json(struct world *w, struct exbox *b, const char *path, const char *body) {
    world_forget();
    exbox_open(b, &w->api, path, span_str(body));
    assert_true(exbox_json(b, w->api.rpcs));
}

static void assert_body(struct exbox *b, unsigned status, const char *want) {
    assert_true(b->done && b->whole);
    assert_int_equal(b->status, status);
    assert_string_equal(b->type, "application/json");
    assert_int_equal(buf_u8(&b->body, 0), OK);
    assert_string_equal((char *)b->body.at, want);
    exbox_free(b);
}

static void json_calls_the_same_methods(void **state) {
    struct world *w = *state;
    struct exbox b;
    call_json(w, &b, "/v3/t/echo", "{\"key\":\"Zm9v\"}");
    assert_memory_equal(seen.keys.at, "foo", 3);
    assert_body(&b, 200, "{\"kvs\":[{\"key\":\"Zm9v\"}]}");
    call_json(w, &b, "/v3beta/t/echo", "");
    assert_body(&b, 200, "{\"kvs\":[{}]}");
    call_json(w, &b, "/v3/t/echo", "{\"key\":\"YmFk\"}");
    assert_body(&b, 400,
                "{\"error\":\"etcdserver: mvcc: required revision is a future revision\","
                "\"message\":\"etcdserver: mvcc: required revision is a future revision\","
                "\"code\":11}");
    world_forget();
    exbox_open(&b, &w->api, "/v3/t/echo", span_str("{\"key\":\"YmFk\"}"));
    exbox_header(&b, "User-Agent", "conclave/1");
    assert_true(exbox_json(&b, w->api.rpcs));
    assert_body(&b, 400,
                "{\"error\":\"etcdserver: mvcc: required revision is a future revision\","
                "\"message\":\"etcdserver: mvcc: required revision is a future revision\","
                "\"code\":11,\"name\":\"ERR_FUTURE_REVISION\"}");
    call_json(w, &b, "/v3/t/echo", "{\"key\":\"Zm9v\"} not looked at {");
    assert_body(&b, 200, "{\"kvs\":[{\"key\":\"Zm9v\"}]}");
    call_json(w, &b, "/v3/t/echo", "{\"key\":5}");
    assert_body(&b, 400,
                "{\"error\":\"field key is not base64\",\"message\":\"field key is not base64\","
                "\"code\":3}");
    call_json(w, &b, "/v3/t/echo", "[]");
    assert_int_equal(b.status, 400);
    exbox_free(&b);
    world_forget();
    exbox_open(&b, &w->api, "/v3/t/nothing", span_str("{}"));
    assert_false(exbox_json(&b, w->api.rpcs));
    exbox_free(&b);
    assert_int_equal(world_calls(w), 0);
}

static void etcds_older_lease_paths_lead_to_the_same(void **state) {
    struct world *w = *state;
    struct method methods[ETCD_METHODS_MAX];
    const struct method *const all[] = {methods, NULL};
    struct rpcs *rpcs;
    static const char *const paths[] = {"/v3/lease/leases",        "/v3beta/lease/leases",
                                        "/v3/kv/lease/leases",     "/v3beta/kv/lease/revoke",
                                        "/v3/kv/lease/timetolive", "/v3/watch"};
    (void)etcd_methods(methods, NULL, NULL);
    assert_int_equal(rpcs_new(&w->api, &w->loop, all, world_routes, &rpcs), OK);
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        bool found = false;
        for (const struct route *r = rpcs_routes(rpcs); r->path; r++)
            found |= strcmp(r->path, paths[i]) == 0;
        assert_true(found);
    }
    rpcs_close(rpcs);
}

static void json_objects_of_a_stream_may_be_cut_anywhere(void **state) {
    struct world *w = *state;
    static const char body[] = " {\"key\":\"YQ==\",\"x\":\"}\\\"{\"}\n{\"key\":\"Yg==\"}{ }";
    static const char want[] = "{\"result\":{\"count\":\"1\"}}\n{\"result\":{\"count\":\"2\"}}\n"
                               "{\"result\":{\"count\":\"3\"}}\n";
    for (size_t cut = 0; cut < sizeof body; cut++) {
        struct exbox b;
        call_json(w, &b, "/v3/t/talk", "");
        assert_true(exbox_data(&b, span_of(body, cut), false));
        assert_true(exbox_data(&b, span_of(body + cut, sizeof body - 1 - cut), true));
        assert_memory_equal(seen.keys.at, "ab", 2);
        assert_int_equal(seen.messages, 3);
        assert_body(&b, 200, want);
    }
}

/* Answers of their own block the stream while half an object has come. */
static void a_stream_that_was_blocked_goes_on_within_an_object(void **state) {
    struct world *w = *state;
    static const char body[] = "{}{\"key\":\"YQ==\",\"x\":[\"}\\\"{\"]}";
    Etcdserverpb__RangeResponse event = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    for (size_t cut = 2; cut < sizeof body; cut++) {
        struct exbox b;
        call_json(w, &b, "/v3/t/talk", "");
        assert_true(exbox_data(&b, span_of(body, cut), false));
        b.full = true;
        assert_int_equal(rpc_send(seen.r, &event.base), ERR_BUSY);
        exbox_drain(&b);
        assert_int_equal(seen.drained, 1);
        assert_true(exbox_data(&b, span_of(body + cut, sizeof body - 1 - cut), true));
        assert_int_equal(seen.messages, 2);
        assert_memory_equal(seen.keys.at, "a", 1);
        assert_true(b.done && b.whole && b.status == 200);
        exbox_free(&b);
    }
}

static void a_stream_of_json_that_is_wrong_ends(void **state) {
    struct world *w = *state;
    static const char *const wrong[] = {"]", "5", "{\"key\":}", "{\"key\":5}", "x{}", "\"{}\""};
    struct exbox b;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        call_json(w, &b, "/v3/t/talk", "");
        (void)exbox_data(&b, span_str(wrong[i]), true);
        assert_true(b.done);
        assert_int_equal(b.status, 400);
        exbox_free(&b);
    }
    call_json(w, &b, "/v3/t/talk", "");
    assert_true(exbox_data(&b, span_str("{}{\"key\""), true));
    assert_body(&b, 200,
                "{\"result\":{\"count\":\"1\"}}\n{\"error\":{\"grpc_code\":3,\"http_code\":400,"
                "\"message\":\"unexpected EOF\",\"http_status\":\"Bad Request\"}}\n");
    assert_int_equal(world_calls(w), 0);
}

static void a_stream_of_answers_goes_on_until_its_client_leaves(void **state) {
    struct world *w = *state;
    struct exbox b;
    call_json(w, &b, "/v3/t/feed", "{}");
    assert_false(b.done);
    assert_int_equal(b.status, 200);
    exbox_leave(&b);
    assert_true(b.done);
    assert_int_equal(seen.gone, 1);
    assert_int_equal(world_calls(w), 0);
    exbox_free(&b);
}

static void a_large_answer_in_json_goes_the_same_way(void **state) {
    struct world *w = *state;
    struct exbox b;
    world_forget();
    exbox_open(&b, &w->api, "/v3/t/echo", span_str("{\"key\":\"bGFyZ2U=\"}"));
    b.full = true;
    assert_true(exbox_json(&b, w->api.rpcs));
    assert_false(b.done);
    while (!b.done)
        b.x.drained(&b.x);
    assert_true(b.whole && b.status == 200 && b.body.size > LARGE / 3 * 4);
    assert_int_equal(world_calls(w), 0);
    exbox_free(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(json_calls_the_same_methods),
        TEST(etcds_older_lease_paths_lead_to_the_same),
        TEST(json_objects_of_a_stream_may_be_cut_anywhere),
        TEST(a_stream_that_was_blocked_goes_on_within_an_object),
        TEST(a_stream_of_json_that_is_wrong_ends),
        TEST(a_stream_of_answers_goes_on_until_its_client_leaves),
        TEST(a_large_answer_in_json_goes_the_same_way),
    };
    if (sodium_init() < 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
