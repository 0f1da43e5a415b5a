/* HTTP/2 against clients that break its rules or use them as weapons: each limit of
 * crypto/limits.h, "connections of clients", is met, the server stays within it, and another
 * client is served meanwhile. Also time: what is too slow, silent or idle is cut, the rest not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/h2.h"

static struct web web;
static struct h2 client, other;

static const struct server_times quick = {
    .request = 200, .idle = 60000, .ping = 60000, .pong = 60000, .stall = 60000};

static void begin(const struct server_times *times) {
    web_open(&web, times);
    h2_open(&client, &web, web_connect_unix(&web), NULL);
    WEB_UNTIL(&web, client.settings == 1 && client.acks == 1);
}

/* Somebody else still gets his answer. */
static void end(void) {
    h2_open(&other, &web, web_connect_unix(&web), NULL);
    h2_request(&other, 1, "GET", "/small", NULL, true);
    WEB_UNTIL(&web, h2_stream(&other, 1)->status == 200);
    h2_close(&other);
    h2_close(&client);
    web_close(&web);
}

static void assert_calmed(uint32_t code) {
    WEB_UNTIL(&web, client.goaway || client.closed);
    if (client.goaway) assert_int_equal(client.code, code);
    WEB_UNTIL(&web, client.closed);
}

/* --- heads ---------------------------------------------------------------------------------- */

static void assert_refused(const char *const *more, unsigned status) {
    static int32_t id;
    if (client.answered == 0) id = -1;
    id += 2;
    h2_request(&client, id, "POST", "/echo", more, true);
    WEB_UNTIL(&web, h2_stream(&client, id)->ended);
    assert_int_equal(h2_stream(&client, id)->status, status);
}

static void heads_that_break_the_rules_are_refused_on_the_lenient_socket_too(void **state) {
    (void)state;
    static const char *const bad[][6] = {
        {"Upper", "x"},
        {"connection", "close"},
        {"transfer-encoding", "chunked"},
        {"upgrade", "h2c"},
        {"te", "gzip"},
        {":path", "/again"},
        {":unknown", "x"},
        {"a", "b", ":authority", ""},
        {"a b", "c"},
        {"a", "b\x01"
              "c"},
        {"a", "b\r\nc: d"},
        {"content-length", "x"},
        {"content-length", "0", "content-length", "0"},
        {"", "x"},
    };
    begin(NULL);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_refused(bad[i], 400);
    assert_int_equal(web.handled, 0);
    static const char *const good[] = {"te", "trailers", "x-y", "z", NULL};
    assert_refused(good, 200);
    end();
}

static void a_head_without_its_parts_is_refused(void **state) {
    (void)state;
    begin(NULL);
    static const uint8_t only_get[] = {0x82}, get_and_path[] = {0x82, 0x84};
    h2_frame(&client, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, only_get, sizeof only_get);
    h2_frame(&client, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 3, get_and_path,
             sizeof get_and_path);
    WEB_UNTIL(&web, client.answered == 2);
    assert_int_equal(h2_stream(&client, 1)->status, 400);
    assert_int_equal(h2_stream(&client, 3)->status, 400);
    assert_int_equal(web.handled, 0);
    end();
}

static void a_socket_for_an_authority_is_taken_on_the_socket(void **state) {
    (void)state;
    begin(NULL);
    static const char path[] = "unix:/run/some.sock";
    uint8_t block[64] = {0x82, 0x86, 0x04, 6, '/', 's', 'm', 'a', 'l', 'l', 0x01, sizeof path - 1};
    memcpy(block + 12, path, sizeof path - 1);
    h2_frame(&client, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, block, 12 + sizeof path - 1);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(h2_stream(&client, 1)->status, 200);
    end();
}

static void a_head_has_a_size(void **state) {
    (void)state;
    static char value[6000];
    memset(value, 'v', sizeof value - 1);
    const char *const large[] = {"a", value, "b", value, "c", value, NULL};
    const char *many[2 * 100 + 1] = {NULL};
    for (unsigned i = 0; i < 200; i += 2) {
        many[i] = "a";
        many[i + 1] = "b";
    }
    begin(NULL);
    assert_refused(large, 413);
    assert_refused(many, 413);
    end();
}

/* A small frame that refers to a large header of the table, again and again. */
static void a_head_that_swells_when_unpacked_is_refused(void **state) {
    (void)state;
    begin(NULL);
    uint8_t block[8000] = {0x82, 0x86, 0x84, 0x40, 1, 'a', 0x7f, 0xf0, 0x1e}; /* 4079 bytes */
    size_t n = 9 + 4079 - 16;
    block[7] = 0xe0; /* 127 + 0x60 + 0x1e * 128 = 4063 */
    memset(block + 9, 'v', n - 9);
    while (n < sizeof block)
        block[n++] = 0x80 | 62; /* the newest of the table */
    h2_frame(&client, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, 1, block, n);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended || client.closed);
    assert_int_not_equal(h2_stream(&client, 1)->status, 200);
    assert_int_equal(web.handled, 0);
    end();
}

static void a_head_in_too_many_pieces_ends_the_connection(void **state) {
    (void)state;
    begin(NULL);
    h2_frame(&client, H2_HEADERS, 0, 1, "\x82", 1);
    for (unsigned i = 0; i < 10 * CONTINUATIONS_MAX; i++)
        h2_frame(&client, H2_CONTINUATION, 0, 1, "\x84", 1);
    WEB_UNTIL(&web, client.closed);
    assert_int_equal(web.handled, 0);
    end();
}

/* --- bodies --------------------------------------------------------------------------------- */

static void a_body_has_a_size(void **state) {
    (void)state;
    static uint8_t bytes[256 * KIB];
    begin(NULL);
    h2_request(&client, 1, "POST", "/echo", NULL, false);
    for (unsigned i = 0; i < 18 && !h2_stream(&client, 1)->ended; i++) {
        h2_data(&client, 1, bytes, sizeof bytes, false);
        WEB_UNTIL(&web, client.out.size == 0);
        for (unsigned turn = 0; turn < 3; turn++) /* for windows to come back */
            web_turn(&web);
    }
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(h2_stream(&client, 1)->status, 413);
    assert_int_equal(web.handled, 0);
    end();
}

static void bodies_have_a_size_together(void **state) {
    (void)state;
    static uint8_t bytes[960 * KIB];
    begin(NULL);
    unsigned n = 80; /* times 960 KiB passes CONN_BODIES_MAX */
    for (unsigned i = 0; i < n; i++) {
        h2_request(&client, (int32_t)(2 * i + 1), "POST", "/echo", NULL, false);
        h2_data(&client, (int32_t)(2 * i + 1), bytes, sizeof bytes, false);
        WEB_UNTIL(&web, client.out.size == 0);
    }
    WEB_UNTIL(&web, h2_stream(&client, (int32_t)(2 * n - 1))->ended);
    assert_int_equal(h2_stream(&client, (int32_t)(2 * n - 1))->status, 503);
    assert_int_equal(h2_stream(&client, 1)->status, 0);
    end();
}

static void a_body_is_as_long_as_was_said(void **state) {
    (void)state;
    static const char *const five[] = {"content-length", "5", NULL};
    begin(NULL);
    h2_request(&client, 1, "POST", "/echo", five, false);
    h2_data(&client, 1, "four", 4, true);
    h2_request(&client, 3, "POST", "/echo", five, false);
    h2_data(&client, 3, "sixsix", 6, true);
    h2_request(&client, 5, "POST", "/feed", five, false);
    h2_data(&client, 5, "sixsix", 6, false);
    h2_request(&client, 7, "POST", "/echo", five, false);
    h2_data(&client, 7, "fives", 5, true);
    WEB_UNTIL(&web, client.answered == 4);
    for (int32_t id = 1; id <= 5; id += 2)
        assert_true(h2_stream(&client, id)->reset &&
                    h2_stream(&client, id)->code == NGHTTP2_PROTOCOL_ERROR);
    assert_int_equal(h2_stream(&client, 7)->status, 200);
    end();
}

static void more_than_the_window_ends_the_connection(void **state) {
    (void)state;
    static uint8_t bytes[2 * STREAM_WINDOW];
    begin(NULL);
    web.hold = true;
    h2_request(&client, 1, "POST", "/feed", NULL, false);
    h2_data(&client, 1, bytes, sizeof bytes, false);
    WEB_UNTIL(&web, client.closed || h2_stream(&client, 1)->reset);
    assert_true(web.fed <= STREAM_WINDOW);
    WEB_UNTIL(&web, web.gone == 1);
    end();
}

/* --- floods --------------------------------------------------------------------------------- */

static void more_streams_than_allowed_end_the_connection(void **state) {
    (void)state;
    begin(NULL);
    for (int32_t i = 0; i <= (int32_t)STREAMS_MAX; i++)
        h2_request(&client, 2 * i + 1, "POST", "/late", NULL, true);
    WEB_UNTIL(&web, client.goaway);
    assert_int_equal(client.code, NGHTTP2_PROTOCOL_ERROR);
    WEB_UNTIL(&web, web.n_late == STREAMS_MAX);
    web_answer_late(&web);
    end();
}

static void rapid_resets_end_the_connection(void **state) {
    (void)state;
    static const uint8_t cancel[4] = {0, 0, 0, 8};
    begin(NULL);
    for (int32_t id = 1; id < 8000; id += 2) {
        h2_request(&client, id, "POST", "/late", NULL, true);
        h2_frame(&client, H2_RST, 0, id, cancel, sizeof cancel);
    }
    WEB_UNTIL(&web, client.closed);
    assert_true(web.n_late <= LIVE_MAX);
    end();
}

/* Below the rate at which resets end the connection, what handlers hold is bounded as well. */
static void requests_that_are_dropped_but_at_work_are_bounded(void **state) {
    (void)state;
    static const uint8_t cancel[4] = {0, 0, 0, 8};
    begin(NULL);
    int32_t id = 1;
    for (; id < 2 * 990; id += 2) {
        h2_request(&client, id, "POST", "/late", NULL, true);
        h2_frame(&client, H2_RST, 0, id, cancel, sizeof cancel);
    }
    for (int32_t i = 0; i < (int32_t)LIVE_MAX - 990; i++, id += 2) {
        h2_request(&client, id, "POST", "/late", NULL, true);
        if (i % 100 == 0) WEB_UNTIL(&web, client.out.size == 0);
    }
    WEB_UNTIL(&web, web.n_late + client.answered >= LIVE_MAX - 50);
    assert_true(web.n_late <= LIVE_MAX);
    web_answer_late(&web);
    end();
}

static void control_frames(enum h2_type type, size_t size) {
    static const uint8_t bytes[16] = {0, 0, 0, 1};
    begin(NULL);
    h2_request(&client, 1, "POST", "/echo", NULL, false);
    int32_t id = type == H2_DATA ? 1 : 0;
    for (unsigned i = 0; i < 4 * CONTROL_FRAMES_MAX && !client.closed; i++) {
        h2_frame(&client, type, 0, id, bytes, size);
        if (i % 500 == 0) web_turn(&web);
    }
    assert_calmed(NGHTTP2_ENHANCE_YOUR_CALM);
    end();
}

static void a_flood_of_pings_ends_the_connection(void **state) {
    (void)state;
    control_frames(H2_PING, 8);
}

static void a_flood_of_settings_ends_the_connection(void **state) {
    (void)state;
    control_frames(H2_SETTINGS, 0);
}

static void a_flood_of_empty_data_ends_the_connection(void **state) {
    (void)state;
    control_frames(H2_DATA, 0);
}

static void a_flood_of_tiny_windows_ends_the_connection(void **state) {
    (void)state;
    control_frames(H2_WINDOW, 4);
}

static void pings_beside_work_are_no_flood(void **state) {
    (void)state;
    static const uint8_t bytes[8];
    begin(NULL);
    unsigned n = 2 * CONTROL_FRAMES_MAX;
    for (unsigned i = 0; i < n; i++) {
        h2_frame(&client, H2_PING, 0, 0, bytes, sizeof bytes);
        if (i % 500 == 0) {
            h2_request(&client, (int32_t)(i / 500 * 2 + 1), "GET", "/small", NULL, true);
            WEB_UNTIL(&web, client.answered == i / 500 + 1);
        }
    }
    WEB_UNTIL(&web, client.pongs == n);
    assert_false(client.goaway || client.closed);
    end();
}

/* --- clients that don't read ---------------------------------------------------------------- */

static void what_waits_for_a_client_is_bounded_by_stream_and_connection(void **state) {
    (void)state;
    struct server_times times = quick;
    times.stall = 600;
    begin(&times);
    web.flow = 64 * MIB;
    h2_listen(&client, true);
    h2_window(&client, 0, 1 << 30);
    for (int32_t i = 0; i < 40; i++) {
        h2_request(&client, 2 * i + 1, "GET", "/flow", NULL, true);
        h2_window(&client, 2 * i + 1, 1 << 30);
    }
    WEB_UNTIL(&web, web.busy >= 17);
    assert_true(web.flowed <= CONN_OUT_MAX + 40 * 10000 + 2 * CONN_SEND_MAX);
    WEB_UNTIL(&web, web.gone == 40); /* cut, for it takes nothing */
    end();
}

static void a_client_that_gives_no_window_is_cut(void **state) {
    (void)state;
    struct server_times times = quick;
    times.stall = 400;
    begin(&times);
    client.stingy = true;
    web.flow = 64 * MIB;
    h2_request(&client, 1, "GET", "/flow", NULL, true);
    WEB_UNTIL(&web, web.gone == 1);
    assert_true(web.flowed <= 65535 + ANSWER_QUEUE_MAX + 10000 + web_on_the_way());
    WEB_UNTIL(&web, client.closed);
    end();
}

static void a_stream_that_is_given_no_window_is_cut_although_others_move(void **state) {
    (void)state;
    struct server_times times = quick;
    times.stall = 400;
    begin(&times);
    client.stingy = true;
    web.flow = 64 * MIB;
    h2_window(&client, 0, 1 << 30);
    h2_request(&client, 1, "GET", "/flow", NULL, true);
    uint64_t until = uv_hrtime() + 20000000000ULL;
    for (int32_t id = 3; !h2_stream(&client, 1)->reset && uv_hrtime() < until; id += 2) {
        h2_request(&client, id, "GET", "/small", NULL, true);
        WEB_UNTIL(&web, h2_stream(&client, id)->ended);
        web_turn(&web);
    }
    assert_int_equal(h2_stream(&client, 1)->code, NGHTTP2_ENHANCE_YOUR_CALM);
    WEB_UNTIL(&web, web.gone == 1);
    assert_false(client.closed || client.goaway);
    end();
}

static void large_answers_that_nobody_takes_are_cut_and_small_ones_not(void **state) {
    (void)state;
    begin(NULL);
    client.stingy = true;
    for (int32_t i = 0; i < 20; i++)
        h2_request(&client, 2 * i + 1, "GET", "/big?size=4000000", NULL, true);
    WEB_UNTIL(&web, web.handled == 20 && client.answered >= 3);
    WEB_UNTIL(&web, h2_stream(&client, 39)->code == NGHTTP2_ENHANCE_YOUR_CALM);
    h2_request(&client, 41, "GET", "/big?size=100", NULL, true);
    h2_window(&client, 0, 1 << 20);
    WEB_UNTIL(&web, h2_stream(&client, 41)->ended);
    assert_int_equal(h2_stream(&client, 41)->size, 100);
    end();
}

static void answers_to_pings_that_nobody_reads_are_bounded(void **state) {
    (void)state;
    static const uint8_t bytes[8];
    struct server_times times = quick;
    times.stall = 400;
    begin(&times);
    h2_listen(&client, true);
    for (unsigned i = 0; i < 1000000 && !client.closed && client.out.size < 4 * MIB; i++) {
        h2_frame(&client, H2_PING, 0, 0, bytes, sizeof bytes);
        if (i % 1000 == 0) web_turn(&web);
        if (i % 1000 == 0)
            h2_request(&client, (int32_t)(i / 1000 * 2 + 1), "GET", "/small", NULL, true);
    }
    h2_listen(&client, false);
    WEB_UNTIL(&web, client.closed);
    end();
}

/* --- time ----------------------------------------------------------------------------------- */

static void a_request_that_comes_too_slowly_is_answered_and_streams_are_not(void **state) {
    (void)state;
    begin(&quick);
    h2_request(&client, 1, "POST", "/echo", NULL, false);
    h2_request(&client, 3, "POST", "/feed", NULL, false);
    h2_data(&client, 1, "some", 4, false);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(h2_stream(&client, 1)->status, 408);
    h2_data(&client, 3, "late", 4, true);
    WEB_UNTIL(&web, h2_stream(&client, 3)->ended);
    assert_int_equal(h2_stream(&client, 3)->status, 200);
    end();
}

static void a_silent_client_is_kept_while_it_answers_pings(void **state) {
    (void)state;
    struct server_times times = quick;
    times.idle = times.ping = times.pong = 100;
    begin(&times);
    h2_request(&client, 1, "POST", "/feed", NULL, false);
    WEB_UNTIL(&web, client.pings >= 5); /* several times the idle time */
    assert_false(client.goaway || client.closed);
    client.mute = true;
    WEB_UNTIL(&web, client.closed && web.gone == 1);
    end();
}

static void an_idle_client_is_sent_away_politely(void **state) {
    (void)state;
    struct server_times times = quick;
    times.idle = 200;
    begin(&times);
    h2_request(&client, 1, "GET", "/small", NULL, true);
    WEB_UNTIL(&web, client.closed);
    assert_int_equal(h2_stream(&client, 1)->status, 200);
    assert_true(client.goaway);
    assert_int_equal(client.code, NGHTTP2_NO_ERROR);
    h2_close(&client);
    web_close(&web);
}

static void what_is_no_http2_at_all_ends_the_connection(void **state) {
    (void)state;
    web_open(&web, NULL);
    h2_open(&client, &web, web_connect_unix(&web), NULL);
    h2_bytes(&client, "nonsense that is no frame", 25);
    WEB_UNTIL(&web, client.closed);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_that_break_the_rules_are_refused_on_the_lenient_socket_too),
        cmocka_unit_test(a_head_without_its_parts_is_refused),
        cmocka_unit_test(a_socket_for_an_authority_is_taken_on_the_socket),
        cmocka_unit_test(a_head_has_a_size),
        cmocka_unit_test(a_head_that_swells_when_unpacked_is_refused),
        cmocka_unit_test(a_head_in_too_many_pieces_ends_the_connection),
        cmocka_unit_test(a_body_has_a_size),
        cmocka_unit_test(bodies_have_a_size_together),
        cmocka_unit_test(a_body_is_as_long_as_was_said),
        cmocka_unit_test(more_than_the_window_ends_the_connection),
        cmocka_unit_test(more_streams_than_allowed_end_the_connection),
        cmocka_unit_test(rapid_resets_end_the_connection),
        cmocka_unit_test(requests_that_are_dropped_but_at_work_are_bounded),
        cmocka_unit_test(a_flood_of_pings_ends_the_connection),
        cmocka_unit_test(a_flood_of_settings_ends_the_connection),
        cmocka_unit_test(a_flood_of_empty_data_ends_the_connection),
        cmocka_unit_test(a_flood_of_tiny_windows_ends_the_connection),
        cmocka_unit_test(pings_beside_work_are_no_flood),
        cmocka_unit_test(what_waits_for_a_client_is_bounded_by_stream_and_connection),
        cmocka_unit_test(a_client_that_gives_no_window_is_cut),
        cmocka_unit_test(a_stream_that_is_given_no_window_is_cut_although_others_move),
        cmocka_unit_test(large_answers_that_nobody_takes_are_cut_and_small_ones_not),
        cmocka_unit_test(answers_to_pings_that_nobody_reads_are_bounded),
        cmocka_unit_test(a_request_that_comes_too_slowly_is_answered_and_streams_are_not),
        cmocka_unit_test(a_silent_client_is_kept_while_it_answers_pings),
        cmocka_unit_test(an_idle_client_is_sent_away_politely),
        cmocka_unit_test(what_is_no_http2_at_all_ends_the_connection),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    web_io_loops = 2;
    return failed + cmocka_run_group_tests_name("with I/O loops", tests, NULL, NULL);
}
