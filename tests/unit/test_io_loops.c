/* Loops of connections beside the handlers': notes between loops, and what the tests of HTTP with
 * `web_io_loops` don't show: where connections go, what the figures say, and the two ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http/mailbox.h"
#include "tests/lib/h2.h"

#define LOOPS   3
#define CLIENTS 7

static struct web web;

/* --- notes ----------------------------------------------------------------------------------- */

#define NOTES 20000

/* A thread that sends everything back, doubled. */
struct echo {
    struct mailbox to, from;
    uv_loop_t loop, main_loop;
    uv_thread_t thread;
    struct note last; /* ends the thread */
    unsigned seen;    /* by the main loop, in order */
    bool over;        /* the thread said so */
    unsigned parts;   /* times that `last` came back */
};

static void on_thread_note(struct mailbox *box, struct note *note) {
    struct echo *e = box->ctx;
    if (note->part) {
        mail_post(&e->from, note);
        mail_close_sender(&e->from, NULL);
        mail_close_receiver(&e->to, NULL);
        return;
    }
    struct note *answer = mail_note(&e->from, note->size);
    assert_non_null(answer);
    answer->number = 2 * note->number;
    memcpy(note_bytes(answer), note_bytes(note), note->size);
    mail_post(&e->from, answer);
    mail_spend(box, note);
}

static void on_main_note(struct mailbox *box, struct note *note) {
    struct echo *e = box->ctx;
    if (note->part) {
        e->over = true;
        mail_spend(box, note);
        return;
    }
    assert_int_equal(note->number, 2 * e->seen);
    assert_int_equal(note->size, e->seen % (2 * NOTE_BYTES));
    for (size_t i = 0; i < note->size; i += 97)
        assert_int_equal(note_bytes(note)[i], e->seen % 251);
    e->seen++;
    mail_spend(box, note);
}

static void on_returned(struct mailbox *box, struct note *note) {
    struct echo *e = box->ctx;
    assert_ptr_equal(note, &e->last);
    e->parts++;
}

static void run(void *ctx) {
    struct echo *e = ctx;
    (void)uv_run(&e->loop, UV_RUN_DEFAULT);
}

static void send_one(struct echo *e, unsigned number) {
    struct note *note = mail_note(&e->to, number % (2 * NOTE_BYTES));
    assert_non_null(note);
    note->number = number;
    memset(note_bytes(note), (int)(number % 251), note->size);
    mail_post(&e->to, note);
}

static void notes_arrive_in_order_and_go_round(void **state) {
    static struct echo e;
    (void)state;
    e.to.ctx = e.from.ctx = &e;
    e.to.arrived = on_thread_note;
    e.from.arrived = on_main_note;
    e.from.returned = on_returned;
    e.last = (struct note){.part = true};
    assert_int_equal(uv_loop_init(&e.loop), 0);
    assert_int_equal(uv_loop_init(&e.main_loop), 0);
    assert_int_equal(mail_open(&e.to, &e.main_loop, &e.loop), OK);
    assert_int_equal(mail_open(&e.from, &e.loop, &e.main_loop), OK);
    assert_int_equal(uv_thread_create(&e.thread, run, &e), 0);
    for (unsigned sent = 0; sent < NOTES;) {
        for (unsigned i = 0; i < 1 + sent % 37 && sent < NOTES; i++)
            send_one(&e, sent++);
        (void)uv_run(&e.main_loop, UV_RUN_NOWAIT);
    }
    for (unsigned i = NOTES; i < NOTES + 3; i++) { /* what was spent comes with the next ones */
        while (e.seen < i)
            (void)uv_run(&e.main_loop, UV_RUN_ONCE);
        send_one(&e, i);
    }
    mail_post(&e.to, &e.last);
    while (!e.over)
        (void)uv_run(&e.main_loop, UV_RUN_ONCE);
    assert_int_equal(uv_thread_join(&e.thread), 0);
    assert_int_equal(e.seen, NOTES + 3);
    assert_true(e.to.n_kept <= NOTES_KEPT_MAX && e.to.n_kept > 0);
    mail_close_sender(&e.to, NULL);
    mail_close_receiver(&e.from, NULL);
    (void)uv_run(&e.main_loop, UV_RUN_DEFAULT);
    mail_free(&e.to);
    mail_free(&e.from);
    assert_int_equal(e.parts, 1);
    assert_int_equal(uv_loop_close(&e.loop), 0);
    assert_int_equal(uv_loop_close(&e.main_loop), 0);
}

/* --- the server ------------------------------------------------------------------------------ */

static unsigned connections(unsigned loop) {
    struct server_figures f;
    assert_true(server_figures(web.server, loop, &f));
    return f.connections;
}

static uint64_t requests(unsigned loop) {
    struct server_figures f;
    assert_true(server_figures(web.server, loop, &f));
    return f.requests;
}

static void connections_go_where_there_are_fewest(void **state) {
    static struct h2 clients[CLIENTS];
    struct server_figures none;
    (void)state;
    web_io_loops = LOOPS;
    web_open(&web, NULL);
    assert_false(server_figures(web.server, LOOPS + 1, &none));
    for (unsigned i = 0; i < CLIENTS; i++) {
        h2_open(&clients[i], &web, web_connect_unix(&web), NULL);
        h2_request(&clients[i], 1, "POST", "/echo", NULL, false);
        h2_data(&clients[i], 1, "hello", 5, true);
        WEB_UNTIL(&web, h2_stream(&clients[i], 1)->ended);
        assert_string_equal(h2_stream(&clients[i], 1)->text, "hello");
    }
    assert_int_equal(connections(0), 0);
    assert_int_equal(requests(0), 0);
    for (unsigned i = 1; i <= LOOPS; i++) {
        assert_in_range(connections(i), CLIENTS / LOOPS, CLIENTS / LOOPS + 1);
        assert_int_equal(requests(i), connections(i));
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        h2_close(&clients[i]);
    WEB_UNTIL(&web, connections(1) + connections(2) + connections(3) == 0);
    web_close(&web);
}

static void who_asks_is_known_there_too(void **state) {
    static struct h2 client;
    (void)state;
    web_io_loops = 1;
    web_open(&web, NULL);
    web_listen(&web);
    h2_open(&client, &web, web_connect_tcp(&web), NULL);
    h2_request(&client, 1, "POST", "/admin", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(h2_stream(&client, 1)->status, 403);
    assert_int_equal(web.handled, 0);
    h2_close(&client);
    h2_open(&client, &web, web_connect_unix(&web), NULL);
    h2_request(&client, 1, "POST", "/admin", NULL, true);
    WEB_UNTIL(&web, h2_stream(&client, 1)->ended);
    assert_int_equal(h2_stream(&client, 1)->status, 200);
    h2_close(&client);
    web_close(&web);
}

/* All that was read until the server has nothing more to say, which it tells by closing. */
static void ask(const char *request, char *text, size_t room) {
    int fd = web_connect_unix(&web);
    size_t size = 0;
    bool over = false;
    assert_int_equal(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    while (!over) {
        web_turn(&web);
        ssize_t n = recv(fd, text + size, room - size - 1, MSG_DONTWAIT);
        over = n == 0;
        if (n > 0) size += (size_t)n;
    }
    text[size] = 0;
    (void)close(fd);
}

static void an_answer_keeps_its_headers(void **state) {
    char text[1024];
    (void)state;
    web_io_loops = 1;
    web_open(&web, NULL);
    ask("GET /headed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", text, sizeof text);
    assert_non_null(strstr(text, "x-more: told\r\n"));
    assert_non_null(strstr(text, "whole"));
    ask("GET /headed?streamed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", text, sizeof text);
    assert_non_null(strstr(text, "x-more: told\r\n"));
    assert_non_null(strstr(text, "piece"));
    web_close(&web);
}

/* Its client has left, its connection is gone, and its bytes are still there for the answer. */
static void a_request_outlives_its_connection(void **state) {
    static struct h2 client;
    (void)state;
    web_io_loops = 1;
    web_open(&web, NULL);
    h2_open(&client, &web, web_connect_unix(&web), NULL);
    h2_request(&client, 1, "POST", "/late", NULL, false);
    h2_data(&client, 1, "still here", 10, true);
    WEB_UNTIL(&web, web.n_late == 1);
    h2_close(&client);
    WEB_UNTIL(&web, web.late[0]->gone);
    assert_int_equal(connections(1), 1);
    assert_memory_equal(web.late[0]->body.at, "still here", 10);
    web_answer_late(&web);
    WEB_UNTIL(&web, connections(1) == 0);
    web_close(&web);
}

/* The program ends with requests at work: no thread may look at what goes now. */
static void an_abandoned_server_has_no_threads(void **state) {
    static struct h2 client;
    (void)state;
    web_io_loops = LOOPS;
    web_open(&web, NULL);
    h2_open(&client, &web, web_connect_unix(&web), NULL);
    h2_request(&client, 1, "POST", "/late", NULL, true);
    WEB_UNTIL(&web, web.n_late == 1);
    web_stop(&web);
    web_turn(&web);
    server_abandon(web.server);
    server_abandon(web.server); /* it is so already */
    assert_false(web.closed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notes_arrive_in_order_and_go_round),
        cmocka_unit_test(connections_go_where_there_are_fewest),
        cmocka_unit_test(who_asks_is_known_there_too),
        cmocka_unit_test(an_answer_keeps_its_headers),
        cmocka_unit_test(a_request_outlives_its_connection),
        cmocka_unit_test(an_abandoned_server_has_no_threads), /* leaves its server behind */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
