/* HTTP/1.1 on the real server: bodies whole and as they come, streamed answers, several requests
 * in one write, clients that leave, break off, don't read or are slow. Heads are in test_http.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/fault.h"
#include "tests/lib/web.h"

static struct web web;
static int fd;
static char got[4 * MIB];
static size_t size;
static bool hung_up;

static void hear(void) {
    ssize_t n = recv(fd, got + size, sizeof got - 1 - size, MSG_DONTWAIT);
    if (n > 0) size += (size_t)n;
    if (n == 0 || (n < 0 && errno != EAGAIN)) hung_up = true;
    got[size] = 0;
}

#define HEARD(text) (hear(), strstr(got, text) != NULL)

static void call(void) {
    size = 0;
    got[0] = 0;
    hung_up = false;
    fd = web_connect_unix(&web);
}

static void begin(const struct server_times *times) {
    web_open(&web, times);
    call();
}

static void end(void) {
    (void)close(fd);
    web_close(&web);
}

static void say(const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* For what has NULs before it. */
static bool heard_last(const char *text) {
    size_t n = strlen(text);
    hear();
    return size >= n && memcmp(got + size - n, text, n) == 0;
}

#define HOST " HTTP/1.1\r\nHost: x\r\n"

static void requests_in_one_write_are_answered_in_order(void **state) {
    (void)state;
    begin(NULL);
    say("GET /small" HOST "\r\nPOST /echo" HOST "Content-Length: 5\r\n\r\nfirst"
        "POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n"
        "POST /feed" HOST "Content-Length: 4\r\n\r\nfourGET /nothing" HOST "\r\n"
        "POST /feed" HOST "Content-Length: 0\r\n\r\n"
        "POST /feed" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nHEAD /small" HOST
        "Connection: close\r\n\r\n");
    WEB_UNTIL(&web, (hear(), hung_up));
    const char *at = got;
    static const char *const parts[] = {
        "\r\n\r\nsmall", "\r\n\r\nfirst", "\r\n\r\nsecond", "\r\n\r\n4HTTP",
        "404 Not Found", "\r\n\r\n4HTTP", "\r\n\r\n6HTTP",  "Connection: close\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        at = strstr(at, parts[i]);
        assert_non_null(at);
        at++;
    }
    assert_int_equal(web.ends, 3);
    end();
}

static void a_body_comes_piece_by_piece_and_can_wait(void **state) {
    (void)state;
    begin(NULL);
    web.hold = true;
    say("POST /feed" HOST "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    WEB_UNTIL(&web, HEARD("100 Continue"));
    say("3\r\nabc\r\n");
    WEB_UNTIL(&web, web.fed == 3);
    say("4\r\ndefg\r\n");
    for (int i = 0; i < 3; i++)
        web_turn(&web);
    assert_int_equal(web.fed, 3);
    web.hold = false;
    exchange_resume(web.fed_by);
    WEB_UNTIL(&web, web.fed == 7);
    say("0\r\n\r\nGET /small" HOST "\r\n");
    WEB_UNTIL(&web, HEARD("\r\n\r\n7") && HEARD("small"));
    end();
}

static void a_body_longer_than_any_buffer_is_given_as_it_comes(void **state) {
    (void)state;
    static char piece[256 * KIB];
    memset(piece, 'x', sizeof piece);
    begin(NULL);
    say("POST /feed" HOST "Content-Length: 16777216\r\n\r\n");
    for (size_t sent = 0; sent < 16 * MIB;) {
        ssize_t n = send(fd, piece, sizeof piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) sent += (size_t)n;
        web_turn(&web);
    }
    WEB_UNTIL(&web, HEARD("\r\n\r\n16777216"));
    end();
}

static void an_answer_before_the_body_ends_the_connection(void **state) {
    (void)state;
    begin(NULL);
    say("POST /any/Method" HOST
        "Content-Type: application/grpc\r\nContent-Length: 100\r\n\r\nshort of it");
    WEB_UNTIL(&web, web.handled == 1);
    say("POST /refused" HOST "Content-Length: 9\r\n\r\n");
    WEB_UNTIL(&web, HEARD("200 OK"));
    (void)close(fd);
    WEB_UNTIL(&web, web.gone == 1);
    call();
    say("POST /refused" HOST "Content-Type: application/grpc\r\nContent-Length: 9\r\n\r\nhalf");
    WEB_UNTIL(&web, (hear(), hung_up));
    assert_true(HEARD("Connection: close"));
    end();
}

static void a_malformed_body_ends_what_it_belongs_to(void **state) {
    (void)state;
    begin(NULL);
    say("POST /feed" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense");
    WEB_UNTIL(&web, (hear(), hung_up) && web.gone == 1);
    (void)close(fd);
    call();
    say("POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense");
    WEB_UNTIL(&web, (hear(), hung_up));
    assert_true(HEARD("400 Bad Request"));
    (void)close(fd);
    call();
    say("POST /echo" HOST "Content-Length: 99999999\r\n\r\n");
    WEB_UNTIL(&web, (hear(), hung_up));
    assert_true(HEARD("413 "));
    end();
}

static void a_streamed_answer_waits_for_who_reads_it(void **state) {
    (void)state;
    begin(NULL);
    web.flow = 3 * MIB;
    say("GET /flow" HOST "\r\n");
    WEB_UNTIL(&web, web.busy > 0);
    assert_true(web.flowed <= 2 * ANSWER_QUEUE_MAX);
    WEB_UNTIL(&web, heard_last("\r\n0\r\n\r\n"));
    assert_int_equal(web.flowed, 3 * MIB);
    assert_true(size > 3 * MIB);
    say("GET /small" HOST "\r\n");
    WEB_UNTIL(&web, heard_last("small"));
    end();
}

static void who_reads_nothing_is_cut(void **state) {
    (void)state;
    const struct server_times times = {.stall = 300};
    begin(&times);
    web.flow = 64 * MIB;
    say("GET /flow" HOST "\r\n");
    WEB_UNTIL(&web, web.gone == 1);
    (void)close(fd);
    call(); /* answers of requests in one write wait for their reader as well */
    static char requests[8000];
    for (size_t n = 0; n + 60 < sizeof requests;)
        n +=
            (size_t)snprintf(requests + n, sizeof requests - n, "GET /big?size=900000" HOST "\r\n");
    say(requests);
    unsigned before = web.handled;
    for (int i = 0; i < 10; i++)
        web_turn(&web);
    assert_true(web.handled - before <= 4);
    WEB_UNTIL(&web, send(fd, "x", 1, MSG_NOSIGNAL) < 0);
    end();
}

static void who_is_slow_or_idle_is_cut(void **state) {
    (void)state;
    const struct server_times times = {.request = 200, .idle = 300};
    begin(&times);
    say("POST /echo" HOST "Content-Length: 5\r\n\r\nfirs");
    WEB_UNTIL(&web, (hear(), hung_up));
    (void)close(fd);
    call();
    say("GET /small" HOST "\r\n");
    WEB_UNTIL(&web, HEARD("small"));
    WEB_UNTIL(&web, (hear(), hung_up));
    end();
}

static const struct server_times impatient = {.wait = 50};

static void who_leaves_while_a_request_waits_is_noticed(void **state) {
    (void)state;
    begin(&impatient);
    say("POST /late" HOST "Content-Length: 4\r\n\r\nbody");
    WEB_UNTIL(&web, web.n_late == 1);
    (void)close(fd);
    WEB_UNTIL(&web, web.late_gone == 1);
    web_answer_late(&web);
    struct server_figures figures;
    WEB_UNTIL(&web, server_figures(web.server, web_io_loops > 0 ? 1 : 0, &figures) &&
                        figures.connections == 0);
    call();
    end();
}

static void a_request_that_waits_is_whole_although_more_comes(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "Content-Length: 5\r\n\r\nfirst",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nfir\r\n2\r\nst\r\n0\r\n\r\n"};
    static char piece[64 * KIB];
    memset(piece, 'x', sizeof piece);
    begin(&impatient);
    for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
        size = 0;
        say("POST /late" HOST);
        say(bodies[i]);
        say("GET /small" HOST "\r\nPOST /feed" HOST "Content-Length: 16777216\r\n\r\n");
        WEB_UNTIL(&web, web.n_late == 1);
        size_t sent = 0;
        uint64_t until = uv_hrtime() + 300000000ULL; /* some times the wait */
        while (uv_hrtime() < until) {
            ssize_t n = send(fd, piece, sizeof piece, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) sent += (size_t)n;
            web_turn(&web);
        }
        assert_true(sent < 4 * MIB); /* what nobody takes is not taken */
        web_answer_late(&web);
        while (sent < 16 * MIB) {
            size_t left = 16 * MIB - sent, n = left < sizeof piece ? left : sizeof piece;
            ssize_t done = send(fd, piece, n, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (done > 0) sent += (size_t)done;
            web_turn(&web);
        }
        WEB_UNTIL(&web, HEARD("first") && HEARD("small") && heard_last("16777216"));
        web.fed = 0;
    }
    end();
}

static void who_says_no_more_gets_an_answer_that_comes_soon(void **state) {
    (void)state;
    begin(NULL);
    say("POST /late" HOST "Content-Length: 5\r\n\r\nfirst");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    WEB_UNTIL(&web, web.n_late == 1);
    for (int i = 0; i < 5; i++)
        web_turn(&web);
    web_answer_late(&web);
    WEB_UNTIL(&web, (hear(), hung_up));
    assert_true(HEARD("first"));
    assert_int_equal(web.late_gone, 0);
    end();
}

static void what_was_said_is_heard_although_more_was_asked(void **state) {
    (void)state;
    begin(NULL);
    web_listen(&web);
    (void)close(fd);
    fd = web_connect_tcp(&web);
    static char rest[100000];
    memset(rest, 'r', sizeof rest - 1);
    say("GET /big?size=200000" HOST "Connection: close\r\n\r\n");
    say(rest); /* unread when the server has said all: must not reset what is under way */
    WEB_UNTIL(&web, (hear(), hung_up));
    assert_true(size > 200000);
    end();
}

static void run_requests(void *ctx) {
    (void)ctx;
    call();
    say("POST /echo" HOST "Content-Length: 5\r\n\r\nfirst"
        "POST /feed" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        "GET /flow" HOST "\r\nGET /big?size=100000" HOST "Connection: close\r\n\r\n");
    WEB_UNTIL(&web, (hear(), hung_up));
}

static void paths_of_no_table_can_have_a_route_and_headers_of_their_own(void **state) {
    (void)state;
    begin(NULL);
    say("PUT /rest/a%20b" HOST "Content-Length: 0\r\n\r\nGET /resting" HOST "\r\n"
        "DELETE /small" HOST "Connection: close\r\n\r\n");
    WEB_UNTIL(&web, (hear(), hung_up));
    assert_non_null(strstr(got, "\r\nx-more: as told\r\n\r\n/rest/a%20bHTTP/1.1 404"));
    assert_non_null(strstr(got, "HTTP/1.1 405")); /* a path of the table is not looked for */
    assert_null(strstr(strstr(got, "404"), "x-more"));
    end();
}

static void after_requests(void *ctx, bool fired) {
    (void)ctx;
    if (!fired) assert_true(size > MIB + 100000);
    (void)close(fd);
}

static void no_lack_of_memory_hurts_more_than_its_connection(void **state) {
    (void)state;
    web_open(&web, NULL);
    assert_true(fault_sweep_alloc(run_requests, after_requests, NULL) > 3);
    web_close(&web);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_of_no_table_can_have_a_route_and_headers_of_their_own),
        cmocka_unit_test(requests_in_one_write_are_answered_in_order),
        cmocka_unit_test(a_body_comes_piece_by_piece_and_can_wait),
        cmocka_unit_test(a_body_longer_than_any_buffer_is_given_as_it_comes),
        cmocka_unit_test(an_answer_before_the_body_ends_the_connection),
        cmocka_unit_test(a_malformed_body_ends_what_it_belongs_to),
        cmocka_unit_test(a_streamed_answer_waits_for_who_reads_it),
        cmocka_unit_test(who_reads_nothing_is_cut),
        cmocka_unit_test(who_is_slow_or_idle_is_cut),
        cmocka_unit_test(who_leaves_while_a_request_waits_is_noticed),
        cmocka_unit_test(a_request_that_waits_is_whole_although_more_comes),
        cmocka_unit_test(who_says_no_more_gets_an_answer_that_comes_soon),
        cmocka_unit_test(what_was_said_is_heard_although_more_was_asked),
        cmocka_unit_test(no_lack_of_memory_hurts_more_than_its_connection),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    web_io_loops = 2;
    return failed + cmocka_run_group_tests_name("with I/O loops", tests, NULL, NULL);
}
