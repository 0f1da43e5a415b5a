/* HTTP/1.1 heads, chunks and queries: what is well-formed comes out whole, what could be read in
 * two ways is refused, and no prefix of anything is ever enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/http/http.h"

static const char request[] = "POST /v3/kv/put?a=b&c HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n"
                              "Content-Type: application/json\r\n\r\n";

static enum err parse(const char *text) {
    struct http_head head;
    size_t used = 0;
    struct why why = {0};
    enum err e = http_parse_request(span_str(text), &head, &used, &why);
    if (e != OK) assert_true(why.text[0] != 0);
    if (e == OK) assert_int_equal(used, strlen(text));
    return e;
}

static void a_request_comes_out_whole(void **state) {
    (void)state;
    struct http_head head;
    size_t used;
    assert_int_equal(http_parse_request(span_str(request), &head, &used, NULL), OK);
    assert_int_equal(used, sizeof request - 1);
    assert_int_equal(head.method, HTTP_POST);
    assert_true(span_equal(head.path, span_str("/v3/kv/put")));
    assert_true(span_equal(head.query, span_str("a=b&c")));
    assert_true(head.keep_alive && head.has_length && !head.chunked);
    assert_int_equal(head.length, 12);
    const struct http_header *type = http_find(&head, "content-type");
    assert_non_null(type);
    assert_true(span_equal(type->value, span_str("application/json")));
    assert_null(http_find(&head, "cookie"));
}

static void every_prefix_of_a_request_waits_for_more(void **state) {
    (void)state;
    for (size_t size = 0; size < sizeof request - 1; size++) {
        struct http_head head;
        size_t used = 1;
        assert_int_equal(http_parse_request(span_of(request, size), &head, &used, NULL), OK);
        assert_int_equal(used, 0);
    }
}

static void what_can_be_read_in_two_ways_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ("POST / HTTP/1.1\r\nHost: a\r\n"
         "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(parse(bad[i]), ERR_PROTOCOL);
    assert_int_equal(parse("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), ERR_UNSUPPORTED);
    assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n"), OK);
}

static void a_head_has_a_limit(void **state) {
    (void)state;
    struct buf big = buf_new(4 * HTTP_HEAD_MAX);
    assert_int_equal(buf_format(&big, "GET / HTTP/1.1\r\nHost: a\r\nX: "), OK);
    while (big.size < HTTP_HEAD_MAX)
        assert_int_equal(buf_u8(&big, 'x'), OK);
    struct http_head head;
    size_t used;
    assert_int_equal(http_parse_request(buf_span(&big), &head, &used, NULL), ERR_TOO_LARGE);
    buf_clear(&big);
    assert_int_equal(buf_format(&big, "GET / HTTP/1.1\r\nHost: a\r\n"), OK);
    for (int i = 0; i < HTTP_HEADERS_MAX; i++)
        assert_int_equal(buf_format(&big, "a: b\r\n"), OK);
    assert_int_equal(buf_format(&big, "\r\n"), OK);
    assert_int_equal(http_parse_request(buf_span(&big), &head, &used, NULL), ERR_TOO_LARGE);
    buf_free(&big);
}

static void a_response_comes_out_whole(void **state) {
    (void)state;
    struct buf out = buf_new(1024);
    struct http_answer answer = {.status = 503,
                                 .content_type = "application/json",
                                 .length = 7,
                                 .extra = "X-A: b\r\n",
                                 .close = true};
    assert_int_equal(http_write_answer(&out, &answer), OK);
    struct http_head head;
    size_t used;
    assert_int_equal(http_parse_response(buf_span(&out), &head, &used, NULL), OK);
    assert_int_equal(used, out.size);
    assert_int_equal(head.status, 503);
    assert_int_equal(head.length, 7);
    assert_false(head.keep_alive);
    assert_non_null(http_find(&head, "x-a"));
    buf_free(&out);
}

/* Feeds `text` in pieces of `step` bytes. */
static enum err chunks(const char *text, size_t step, struct buf *body, bool *done) {
    struct http_chunks c = {0};
    *done = false;
    for (size_t at = 0; at < strlen(text);) {
        size_t size = strlen(text) - at < step ? strlen(text) - at : step;
        struct cursor in = cursor_of(span_of(text + at, size));
        TRY(http_chunks_read(&c, &in, body, done));
        at += size;
        if (*done) return at - in.left == strlen(text) ? OK : ERR_INTERNAL;
    }
    return OK;
}

static void chunks_cut_anywhere_give_the_same_body(void **state) {
    (void)state;
    static const char text[] = "4\r\nWiki\r\nC\r\npedia in \r\nc\r\n0\r\n\r\n";
    for (size_t step = 1; step < sizeof text; step++) {
        struct buf body = buf_new(64);
        bool done;
        assert_int_equal(chunks(text, step, &body, &done), OK);
        assert_true(done);
        assert_true(span_equal(buf_span(&body), span_str("Wikipedia in \r\nc")));
        buf_free(&body);
    }
}

static void malformed_chunks_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"\r\n",          "g\r\n",          "4;x=y\r\nWiki\r\n",
                                      "4\nWiki\r\n",   "4\r\nWikiX\r\n", "0\r\nA: b\r\n",
                                      "123456789\r\n", " 4\r\n"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct buf body = buf_new(64);
        bool done;
        assert_int_equal(chunks(bad[i], 1, &body, &done), ERR_PROTOCOL);
        buf_free(&body);
    }
    struct buf body = buf_new(3);
    bool done;
    assert_int_equal(chunks("4\r\nWiki\r\n", 64, &body, &done), ERR_TOO_LARGE);
    buf_free(&body);
}

static void a_query_is_decoded(void **state) {
    (void)state;
    char out[8];
    assert_int_equal(http_query(span_str("a=1&bb=x%2Fy+z&c"), "bb", out, sizeof out), OK);
    assert_string_equal(out, "x/y z");
    assert_int_equal(http_query(span_str("a=1&c"), "c", out, sizeof out), OK);
    assert_string_equal(out, "");
    assert_int_equal(http_query(span_str("a=1"), "b", out, sizeof out), ERR_NOT_FOUND);
    assert_int_equal(http_query(span_str("a=%0"), "a", out, sizeof out), ERR_INVALID);
    assert_int_equal(http_query(span_str("a=%00"), "a", out, sizeof out), ERR_INVALID);
    assert_int_equal(http_query(span_str("a=12345678"), "a", out, sizeof out), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_comes_out_whole),
        cmocka_unit_test(every_prefix_of_a_request_waits_for_more),
        cmocka_unit_test(what_can_be_read_in_two_ways_is_refused),
        cmocka_unit_test(a_head_has_a_limit),
        cmocka_unit_test(a_response_comes_out_whole),
        cmocka_unit_test(chunks_cut_anywhere_give_the_same_body),
        cmocka_unit_test(malformed_chunks_are_refused),
        cmocka_unit_test(a_query_is_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
