/* gRPC's bytes: messages in any pieces, what is refused and in which words, answers that are larger
 * than what a connection takes at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>

#include "api/etcd/rpc.pb-c.h"
#include "tests/lib/rpc/rpc_world.h"

static void a_unary_call_is_answered_with_a_message_and_trailers(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct span answer;
    world_call(w, &b, "/t.T/Echo", "hello");
    assert_true(b.done && b.streaming);
    assert_int_equal(b.status, 200);
    assert_string_equal(b.type, "application/grpc");
    assert_int_equal(b.code, 0);
    assert_true(exbox_answer(&b, 0, &answer));
    assert_memory_equal(answer.at, "\x12\x07\x0a\x05hello", 9);
    assert_int_equal(b.body.size, 5 + 9);
    assert_int_equal(world_calls(w), 0);
    exbox_free(&b);
}

static void a_message_in_any_two_pieces_is_the_same(void **state) {
    struct world *w = *state;
    struct buf bytes = buf_new(1 * KIB);
    world_request(&bytes, "a longer key");
    for (size_t cut = 0; cut <= bytes.size; cut++) {
        struct exbox b;
        world_open(w, &b, "/t.T/Echo");
        exbox_grpc(&b);
        assert_true(exbox_data(&b, span_of(bytes.at, cut), false));
        assert_true(exbox_data(&b, span_of(bytes.at + cut, bytes.size - cut), false));
        assert_true(exbox_data(&b, span_of(NULL, 0), true));
        assert_int_equal(b.code, 0);
        assert_int_equal(seen.messages, 1);
        assert_memory_equal(seen.keys.at, "a longer key", 12);
        exbox_free(&b);
    }
    buf_free(&bytes);
    assert_int_equal(world_calls(w), 0);
}

static void an_error_is_trailers_only_with_its_text_encoded(void **state) {
    struct world *w = *state;
    struct exbox b;
    world_call(w, &b, "/t.T/Echo", "bad");
    world_failed(&b, 11, "etcdserver: mvcc: required revision is a future revision");
    assert_false(b.streaming);
    exbox_free(&b);
    world_call(w, &b, "/t.T/Echo", "own");
    world_failed(&b, 3, "50%25 of \"%C3%A9\"%0A");
    exbox_free(&b);
}

static void what_is_not_there_is_unimplemented(void **state) {
    struct world *w = *state;
    static const struct {
        const char *path, *message;
    } wrong[] = {{"/t.T/Ech", "unknown method Ech for service t.T"},
                 {"/t.T/", "unknown method  for service t.T"},
                 {"/t.U/Echo", "unknown service t.U"},
                 {"/t/Echo", "unknown service t"},
                 {"/a/b/c", "unknown service a/b"},
                 {"/Echo", "malformed method name: \"/Echo\""},
                 {"/", "malformed method name: \"/\""}};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct exbox b;
        world_open(w, &b, wrong[i].path);
        exbox_grpc(&b);
        world_failed(&b, 12, wrong[i].message);
        exbox_free(&b);
    }
}

static void http_1_is_told_that_grpc_needs_more(void **state) {
    struct world *w = *state;
    struct exbox b;
    world_open(w, &b, "/t.T/Echo");
    b.x.http2 = false;
    exbox_grpc(&b);
    assert_int_equal(b.status, 505);
    exbox_free(&b);
}

static void only_what_is_not_compressed_is_taken(void **state) {
    struct world *w = *state;
    struct exbox b;
    world_open(w, &b, "/t.T/Echo");
    exbox_header(&b, "grpc-encoding", "gzip");
    exbox_grpc(&b);
    world_failed(&b, 12, "grpc: Decompressor is not installed for grpc-encoding \"gzip\"");
    assert_string_equal(b.accepts, "identity");
    exbox_free(&b);
    world_open(w, &b, "/t.T/Echo");
    exbox_header(&b, "grpc-encoding", "identity");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, span_of("\1\0\0\0\0", 5), true));
    world_failed(&b, 13, "grpc: compressed flag set with identity or empty encoding");
    exbox_free(&b);
    world_open(w, &b, "/t.T/Echo");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, span_of("\7\0\0\0\0", 5), true));
    world_failed(&b, 13, "grpc: received unexpected payload format 7");
    exbox_free(&b);
    assert_int_equal(world_calls(w), 0);
}

static void a_message_too_large_is_refused_before_it_comes(void **state) {
    struct world *w = *state;
    for (unsigned cut = 0; cut < 5; cut++) { /* whether its prefix comes in one piece or two */
        struct exbox b;
        world_open(w, &b, "/t.T/Echo");
        exbox_grpc(&b);
        static const uint8_t prefix[] = {0, 0, 0x20, 0, 1};
        assert_true(exbox_data(&b, span_of(prefix, cut), false));
        assert_true(exbox_data(&b, span_of(&prefix[cut], 5 - cut), false));
        world_failed(&b, 8, "grpc: received message larger than max (2097153 vs. 2097152)");
        exbox_free(&b);
    }
}

static void the_largest_message_is_taken(void **state) {
    struct world *w = *state;
    struct buf bytes = buf_new(4 * MIB);
    struct exbox b;
    size_t size = RPC_MESSAGE_MAX - 5; /* the key's tag and length take 5 bytes */
    uint8_t head[] = {0, 0, 0x20, 0, 0, 0x0a, 0xfb, 0xff, 0x7f};
    (void)size;
    assert_int_equal(buf_add(&bytes, head, sizeof head), OK);
    assert_int_equal(buf_reserve(&bytes, RPC_MESSAGE_MAX - 4), OK);
    memset(bytes.at + bytes.size, 'k', RPC_MESSAGE_MAX - 4);
    bytes.size += RPC_MESSAGE_MAX - 4;
    bytes.at[6] = 0xfc;
    world_open(w, &b, "/t.T/Echo");
    exbox_grpc(&b);
    for (size_t at = 0; at < bytes.size; at += 16384) {
        size_t piece = bytes.size - at < 16384 ? bytes.size - at : 16384;
        assert_true(exbox_data(&b, span_of(bytes.at + at, piece), at + piece == bytes.size));
    }
    assert_int_equal(b.code, 0);
    assert_int_equal(seen.keys.size, RPC_MESSAGE_MAX - 4);
    exbox_free(&b);
    buf_free(&bytes);
}

static void never(struct rpc *r, const ProtobufCMessage *m) {
    (void)r;
    (void)m;
    fail();
}

static void a_message_that_grows_too_much_is_refused(void **state) {
    struct world *w = *state;
    struct buf bytes = buf_new(4 * MIB), message = buf_new(4 * MIB);
    static const struct method grows[] = {{.path = "/t.T/Txn",
                                           .request = &etcdserverpb__txn_request__descriptor,
                                           .answer = &etcdserverpb__txn_response__descriptor,
                                           .message = never},
                                          {.path = NULL}};
    static const struct method *const two[] = {grows, NULL};
    struct rpcs *rpcs;
    struct exbox b;
    for (unsigned i = 0; i < 1000000; i++) /* empty compares: two bytes become a hundred */
        assert_int_equal(buf_add(&message, "\x0a\0", 2), OK);
    assert_int_equal(exbox_frame(&bytes, buf_span(&message)), OK);
    assert_int_equal(rpcs_new(&w->api, &w->loop, two, world_routes, &rpcs), OK);
    struct rpcs *usual = w->api.rpcs;
    w->api.rpcs = rpcs;
    world_open(w, &b, "/t.T/Txn");
    exbox_grpc(&b);
    (void)exbox_data(&b, buf_span(&bytes), true);
    world_failed(&b, 8, "the message is too large when decoded");
    assert_int_equal(seen.messages, 0);
    w->api.rpcs = usual;
    rpcs_close(rpcs);
    exbox_free(&b);
    buf_free(&bytes);
    buf_free(&message);
}

static void a_request_that_ends_too_soon_is_internal(void **state) {
    struct world *w = *state;
    struct exbox b;
    world_open(w, &b, "/t.T/Echo");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, span_of("\0\0\0\0\3xx", 7), true));
    world_failed(&b, 13, "unexpected EOF");
    exbox_free(&b);
    world_open(w, &b, "/t.T/Echo");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, span_of(NULL, 0), true));
    world_failed(&b, 13, "the request carries no message");
    exbox_free(&b);
    world_open(w, &b, "/t.T/Echo");
    exbox_grpc(&b);
    assert_true(exbox_data(&b, span_of("\0\0\0\0\2\x0a\x05", 7), true));
    assert_int_equal(b.code, 13);
    exbox_free(&b);
    assert_int_equal(world_calls(w), 0);
}

static void a_large_answer_goes_as_the_client_takes_it(void **state) {
    struct world *w = *state;
    struct exbox b;
    struct buf bytes = buf_new(1 * KIB);
    struct span answer;
    world_request(&bytes, "large");
    world_open(w, &b, "/t.T/Echo");
    exbox_grpc(&b);
    b.full = true;
    assert_true(exbox_data(&b, buf_span(&bytes), true));
    assert_false(b.done);
    assert_true(b.body.size < ANSWER_QUEUE_MAX);
    for (size_t before; !b.done;) {
        before = b.body.size;
        b.x.drained(&b.x);
        assert_true(b.done || b.body.size > before);
        assert_true(b.body.size - before <= ANSWER_QUEUE_MAX);
    }
    assert_int_equal(b.code, 0);
    assert_true(exbox_answer(&b, 0, &answer));
    assert_true(answer.size > LARGE && b.body.size == answer.size + 5);
    exbox_free(&b);
    world_open(w, &b, "/t.T/Echo"); /* and who leaves gets no more of it */
    exbox_grpc(&b);
    b.full = true;
    assert_true(exbox_data(&b, buf_span(&bytes), true));
    exbox_leave(&b);
    assert_true(b.done && !b.whole);
    exbox_free(&b);
    assert_int_equal(world_calls(w), 0);
    buf_free(&bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_unary_call_is_answered_with_a_message_and_trailers),
        TEST(a_message_in_any_two_pieces_is_the_same),
        TEST(an_error_is_trailers_only_with_its_text_encoded),
        TEST(what_is_not_there_is_unimplemented),
        TEST(http_1_is_told_that_grpc_needs_more),
        TEST(only_what_is_not_compressed_is_taken),
        TEST(a_message_too_large_is_refused_before_it_comes),
        TEST(the_largest_message_is_taken),
        TEST(a_message_that_grows_too_much_is_refused),
        TEST(a_request_that_ends_too_soon_is_internal),
        TEST(a_large_answer_goes_as_the_client_takes_it),
    };
    if (sodium_init() < 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
