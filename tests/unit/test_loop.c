/* The real clock goes forward, and addresses are taken apart as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <time.h>

#include "raft/loop.h"

static void the_clock_never_goes_back(void **state) {
    (void)state;
    struct clock c;
    clock_real(&c);
    uint64_t last_ms = c.now_ms(&c), last_us = c.now_us(&c);
    for (int i = 0; i < 100000; i++) {
        uint64_t ms = c.now_ms(&c), us = c.now_us(&c);
        assert_true(ms >= last_ms && us >= last_us);
        last_ms = ms;
        last_us = us;
    }
    assert_true(last_us / 1000 >= last_ms && last_us / 1000 - last_ms < 1000);
}

/* Not time(): it reads a coarser clock, which may still be in the second before. */
static int64_t system_s(void) {
    struct timespec t;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &t), 0);
    return t.tv_sec;
}

static void the_wall_clock_is_the_systems(void **state) {
    (void)state;
    struct clock c;
    clock_real(&c);
    int64_t before = system_s();
    int64_t now = c.wall_s(&c);
    assert_true(now >= before && now <= system_s());
}

static void assert_split(const char *text, const char *host, const char *port) {
    struct address a;
    struct why why = {0};
    assert_int_equal(address_split(text, &a, &why), OK);
    assert_string_equal(a.host, host);
    assert_string_equal(a.port, port);
}

static void an_address_is_a_host_and_a_port(void **state) {
    (void)state;
    assert_split("127.0.0.1:2377", "127.0.0.1", "2377");
    assert_split("[::1]:0", "::1", "0");
    assert_split("[fe80::1%eth0]:65535", "fe80::1%eth0", "65535");
    assert_split("manager-1.example.org:80", "manager-1.example.org", "80");
}

static void what_is_no_address_is_refused_with_a_sentence(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",        "host",   ":80",      "host:",        "host:65536", "host:-1",
        "host:1a", "::1:80", "[::1]",    "[]:80",        "a b:80",     "host:123456",
        "a\nb:80", "[a:80",  "host:80 ", "user@host:80", "h/x:80",     "a:b:80",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct address a = {.host = "old"};
        struct why why = {0};
        assert_int_equal(address_split(bad[i], &a, &why), ERR_INVALID);
        assert_non_null(strstr(why.text, "HOST:PORT"));
        assert_string_equal(a.host, "old");
    }
    char longer[ADDRESS_MAX + 10];
    memset(longer, 'a', sizeof longer);
    memcpy(longer + sizeof longer - 4, ":80", 4);
    struct address a;
    assert_int_equal(address_split(longer, &a, NULL), ERR_INVALID);
}

static void assert_round(const char *text) {
    struct sockaddr_storage s;
    struct why why = {0};
    char back[ADDRESS_MAX];
    assert_int_equal(address_parse(text, &s, &why), OK);
    address_format((const struct sockaddr *)&s, back);
    assert_string_equal(back, text);
}

static void a_numeric_address_comes_back_as_it_was(void **state) {
    (void)state;
    assert_round("127.0.0.1:2377");
    assert_round("0.0.0.0:0");
    assert_round("[::1]:65535");
    assert_round("[2001:db8::5]:1");
}

static void a_name_is_not_numeric_but_is_looked_up(void **state) {
    (void)state;
    struct address a;
    struct sockaddr_storage s;
    struct why why = {0};
    assert_int_equal(address_split("localhost:99", &a, NULL), OK);
    assert_int_equal(address_numeric(&a, &s), ERR_NOT_FOUND);
    assert_int_equal(address_parse("localhost:99", &s, &why), OK);
    assert_true(s.ss_family == AF_INET || s.ss_family == AF_INET6);
    assert_int_equal(address_parse("no-such-name.invalid:99", &s, &why), ERR_UNREACHABLE);
    assert_non_null(strstr(why.text, "no-such-name.invalid"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clock_never_goes_back),
        cmocka_unit_test(the_wall_clock_is_the_systems),
        cmocka_unit_test(an_address_is_a_host_and_a_port),
        cmocka_unit_test(what_is_no_address_is_refused_with_a_sentence),
        cmocka_unit_test(a_numeric_address_comes_back_as_it_was),
        cmocka_unit_test(a_name_is_not_numeric_but_is_looked_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
