/* The question to an external CA and what is made of its answers, good and bad ones, by a server of
 * one answer on a thread of its own. The real cfssl is asked in tests/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/ca/cfssl.h"
#include "api/json.h"
#include "tests/lib/fault.h"
#include "tests/lib/pki.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static struct pki pki;
static struct pki_node node; /* its certificate is for 127.0.0.1, too */
static struct secret *key;   /* that a certificate is wanted for */
static struct buf request;

static const struct x509_subject asked = {
    .cn = "node-1", .ou = ROLE_MANAGER, .o = "cluster", .hosts = "127.0.0.1,db.example"};

static int start(void **state) {
    struct x509_subject web = {.cn = "web", .ou = "web", .o = "cluster", .hosts = "127.0.0.1"};
    struct buf web_request = buf_new(PEM_MAX);
    (void)state;
    pki_new(&pki, "cluster");
    node = (struct pki_node){.cert = buf_new(PEM_MAX)};
    request = buf_new(PEM_MAX);
    if (x509_key_new(&key, NULL) != OK || x509_key_new(&node.key, NULL) != OK) return -1;
    if (x509_request(key, "any", &request, NULL) != OK) return -1;
    if (x509_request(node.key, "web", &web_request, NULL) != OK) return -1;
    enum err e = x509_issue(pki.key, buf_span(&pki.root), buf_span(&web_request), &web,
                            (int64_t)time(NULL), 86400, &node.cert, NULL);
    buf_free(&web_request);
    return e == OK ? 0 : -1;
}

static int finish(void **state) {
    (void)state;
    pki_node_free(&node);
    pki_free(&pki);
    secret_free(key);
    buf_free(&request);
    return 0;
}

/* --- a server of one answer --- */

struct server {
    pthread_t thread;
    int listener;
    char url[64];
    const char *answer; /* all of it, headers too; NULL: it hangs up when it was asked */
    struct buf heard;   /* the request */
};

static bool push(int fd, struct tls *t) {
    for (struct span s = tls_pending(t); s.size > 0; s = tls_pending(t)) {
        ssize_t n = send(fd, s.at, s.size, MSG_NOSIGNAL);
        if (n <= 0) return false;
        tls_sent(t, (size_t)n);
    }
    return true;
}

/* Is the whole request there: its head, and as many bytes as it says? */
static bool is_whole(const struct buf *b) {
    const char *head = b->at ? memmem(b->at, b->size, "\r\n\r\n", 4) : NULL;
    const char *length = b->at ? memmem(b->at, b->size, "Content-Length: ", 16) : NULL;
    if (!head || !length) return false;
    size_t size = (size_t)strtoul(length + 16, NULL, 10);
    return b->size >= (size_t)(head - (const char *)b->at) + 4 + size;
}

static void talk(struct server *s, int fd, struct tls *t) {
    uint8_t wire[4096];
    bool open = false;
    while (!is_whole(&s->heard)) {
        ssize_t n = recv(fd, wire, sizeof wire, 0);
        if (n <= 0 || tls_feed(t, span_of(wire, (size_t)n), NULL) != OK) return;
        enum err e = tls_read(t, &s->heard, &open, NULL);
        if (!push(fd, t) || e != OK) return;
    }
    if (!s->answer || tls_write(t, span_str(s->answer), NULL) != OK) return;
    (void)push(fd, t);
}

static void *serve(void *ctx) {
    static const char *const alpn[] = {"http/1.1", NULL};
    struct server *s = ctx;
    struct tls_context *context = NULL;
    struct tls *t = NULL;
    struct tls_config config = {.server = true,
                                .verify = TLS_VERIFY_NONE,
                                .cert_pem = buf_span(&node.cert),
                                .key_pem = node.key,
                                .alpn = alpn};
    int fd = accept(s->listener, NULL, NULL);
    if (fd >= 0 && tls_context_new(&config, &context, NULL) == OK &&
        tls_new(context, NULL, &t, NULL) == OK)
        talk(s, fd, t);
    tls_free(t);
    tls_context_release(context);
    if (fd >= 0) (void)close(fd);
    return NULL;
}

static void server_start(struct server *s, const char *answer) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    *s = (struct server){.answer = answer, .heard = buf_new(1 * MIB)};
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(s->listener, 1), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&at, &size), 0);
    (void)snprintf(s->url, sizeof s->url, "https://127.0.0.1:%u/api/v1/cfssl/sign?x=1",
                   ntohs(at.sin_port));
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s) {
    (void)shutdown(s->listener, SHUT_RDWR);
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    (void)close(s->listener);
    buf_free(&s->heard);
}

static enum err ask(const char *url, struct span trust, struct buf *cert, struct why *why) {
    struct cfssl ca = {
        .url = url, .trust_pem = trust, .cert_pem = buf_span(&node.cert), .key_pem = node.key};
    *cert = buf_new(PEM_MAX);
    *why = (struct why){0};
    return cfssl_sign(&ca, buf_span(&request), &asked, cert, why);
}

/* --- answers --- */

#define HEAD(status) "HTTP/1.1 " status "\r\nContent-Type: application/json\r\n"
#define CHUNKED      "Transfer-Encoding: chunked\r\n\r\n"

static void the_question_is_cfssls_and_the_certificate_comes_back(void **state) {
    (void)state;
    struct server s;
    struct buf cert;
    struct why why;
    json_t *json;
    server_start(&s, HEAD("200 OK") "Content-Length: 64\r\n\r\n"
                                    "{\"success\":true,\"result\":{\"certificate\":\"some pem\"}"
                                    ",\"errors\":[]}");
    if (ask(s.url, buf_span(&pki.root), &cert, &why) != OK) fail_msg("%s", why.text);
    assert_true(span_equal(buf_span(&cert), span_str("some pem")));
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    assert_int_equal(memcmp(s.heard.at, "POST /api/v1/cfssl/sign?x=1 HTTP/1.1\r\n", 38), 0);
    const uint8_t *body = memmem(s.heard.at, s.heard.size, "\r\n\r\n", 4);
    struct span text = span_of(body + 4, s.heard.size - (size_t)(body + 4 - s.heard.at));
    assert_int_equal(jin_parse(text, &json, NULL), OK);
    assert_true(span_equal(span_str(jin_string(json, "certificate_request")), buf_span(&request)));
    static const char *const hosts[] = {ROLE_MANAGER, "node-1", ROOT_CN, "127.0.0.1", "db.example"};
    const json_t *list = json_object_get(json, "hosts"),
                 *subject = json_object_get(json, "subject");
    assert_int_equal(json_array_size(list), ARRAY_SIZE(hosts));
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
        assert_string_equal(json_string_value(json_array_get(list, i)), hosts[i]);
    const json_t *names = json_array_get(json_object_get(subject, "names"), 0);
    assert_string_equal(jin_string(subject, "CN"), "node-1");
    assert_string_equal(jin_string(names, "O"), "cluster");
    assert_string_equal(jin_string(names, "OU"), ROLE_MANAGER);
    json_decref(json);
    buf_free(&cert);
    (void)close(s.listener);
    buf_free(&s.heard);
}

static void bad_answers_are_told_and_give_nothing(void **state) {
    (void)state;
    static const struct {
        const char *answer;
        enum err e;
        const char *words;
    } cases[] = {
        {HEAD("400 Bad Request") "Content-Length: 62\r\n\r\n"
                                 "{\"success\":false,\"errors\":[{\"message\":\"no\\u001b[31m "
                                 "way\"}]}"
                                 "   ",
         ERR_PERMISSION, "status 400: no?[31m way"},
        {HEAD("200 OK") "Content-Length: 17\r\n\r\n{\"success\":false}", ERR_PERMISSION,
         "no reason is told"},
        {HEAD("200 OK") "Content-Length: 16\r\n\r\n{\"success\":true}", ERR_PERMISSION,
         "no reason is told"},
        {HEAD("200 OK") "Content-Length: 31\r\n\r\n{\"success\":true,\"result\":[1,2]}",
         ERR_PERMISSION, "no reason is told"},
        {HEAD("200 OK") "Content-Length: 15\r\n\r\n<html>hi</html>", ERR_PROTOCOL,
         "not by CFSSL's protocol"},
        {HEAD("502 Bad Gateway") "Content-Length: 0\r\n\r\n", ERR_PERMISSION, "status 502"},
        {HEAD("200 OK") CHUNKED "5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n", ERR_PERMISSION,
         "status 200"},
        {"what?", ERR_UNREACHABLE, "closed the connection"},
        {HEAD("200 OK") "Content-Length: 99999999999\r\n\r\n", ERR_TOO_LARGE, "too large"},
        {NULL, ERR_UNREACHABLE, "closed the connection"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct server s;
        struct buf cert;
        struct why why;
        server_start(&s, cases[i].answer);
        enum err e = ask(s.url, buf_span(&pki.root), &cert, &why);
        if (e != cases[i].e || !strstr(why.text, cases[i].words))
            fail_msg("%zu: %s: %s", i, err_name(e), why.text);
        assert_int_equal(cert.size, 0);
        buf_free(&cert);
        server_stop(&s);
    }
}

static void a_server_of_another_root_is_told_nothing(void **state) {
    (void)state;
    struct server s;
    struct pki other;
    struct buf cert;
    struct why why;
    pki_new(&other, "other");
    server_start(&s, HEAD("200 OK") "Content-Length: 0\r\n\r\n");
    assert_int_equal(ask(s.url, buf_span(&other.root), &cert, &why), ERR_CERTIFICATE);
    server_stop(&s);
    assert_int_equal(s.heard.size, 0);
    buf_free(&cert);
    pki_free(&other);
}

static void nobody_there_is_told(void **state) {
    (void)state;
    struct server s;
    struct buf cert;
    struct why why;
    server_start(&s, NULL);
    server_stop(&s);
    assert_int_equal(ask(s.url, buf_span(&pki.root), &cert, &why), ERR_UNREACHABLE);
    buf_free(&cert);
}

/* --- addresses --- */

static void what_is_no_https_url_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *url;
        bool fine;
    } cases[] = {
        {"https://ca.example", true},
        {"https://ca.example/", true},
        {"https://ca.example:8888/api/v1/cfssl/sign", true},
        {"https://[::1]:8888/sign", true},
        {"https://[::1]/sign", true},
        {"https://10.0.0.1?x", true},
        {"http://ca.example/", false},
        {"https://", false},
        {"https:///sign", false},
        {"https://user@ca.example/", false},
        {"https://ca.example/a b", false},
        {"https://ca.example/\r\nX: y", false},
        {"https://ca.example/#part", false},
        {"https://ca.example:port/", false},
        {"", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct why why = {0};
        enum err e = cfssl_url_check(cases[i].url, &why);
        if (e != (cases[i].fine ? OK : ERR_INVALID)) fail_msg("%s: %s", cases[i].url, why.text);
    }
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(the_question_is_cfssls_and_the_certificate_comes_back),
        cmocka_unit_test(bad_answers_are_told_and_give_nothing),
        cmocka_unit_test(a_server_of_another_root_is_told_nothing),
        cmocka_unit_test(nobody_there_is_told),
        cmocka_unit_test(what_is_no_https_url_is_refused),
    };
    return cmocka_run_group_tests_name("cfssl", cases, start, finish);
}
