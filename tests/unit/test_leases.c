/* The leases' time on a real manager that is alone, on its loop: questions and their answers, calls
 * that are no questions, revocation by time, and an end while questions are under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/manager.h"

struct loner {
    char root[256]; /* its directory */
    uv_loop_t loop;
    struct log log;
    struct manager *manager;
    bool founded, closed;
};

static void on_changed(void *ctx) { (void)ctx; }
static void on_failed(void *ctx, enum err e, const char *text) {
    (void)ctx;
    fail_msg("%s: %s", err_name(e), text);
}

static void on_founded(void *ctx, enum err e, const char *text) {
    struct loner *n = ctx;
    if (e != OK) fail_msg("%s: %s", err_name(e), text);
    n->founded = true;
}

static void on_closed(void *ctx) { ((struct loner *)ctx)->closed = true; }

static void run_until(struct loner *n, const bool *over) {
    while (!*over)
        (void)uv_run(&n->loop, UV_RUN_ONCE);
}

static struct loner *start(void) {
    struct loner *n = calloc(1, sizeof *n);
    struct why why = {0};
    const char *tmp = getenv("TMPDIR");
    assert_non_null(n);
    (void)snprintf(n->root, sizeof n->root, "%s/conclave-leases-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(n->root));
    assert_int_equal(uv_loop_init(&n->loop), 0);
    log_open(&n->log, open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_ERROR);
    struct manager_config config = {.loop = &n->loop,
                                    .log = &n->log,
                                    .data = n->root,
                                    .name = "alone",
                                    .client = "127.0.0.1:2379",
                                    .peer = "127.0.0.1:2377",
                                    .alone = true,
                                    .ctx = n,
                                    .changed = on_changed,
                                    .failed = on_failed};
    assert_int_equal(manager_new(&config, &n->manager, &why), OK);
    assert_int_equal(manager_open(n->manager, &why), OK);
    assert_int_equal(manager_init(n->manager, false, on_founded, n, &why), OK);
    run_until(n, &n->founded);
    return n;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

static void stop(struct loner *n) {
    if (!n->closed) manager_close(n->manager, on_closed, n);
    run_until(n, &n->closed);
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&n->loop), 0);
    (void)nftw(n->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    (void)close(n->log.fd);
    free(n);
}

/* --- short forms --- */

struct doing {
    struct write write;
    bool over;
    enum err error;
};

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct doing *d = w->ctx;
    (void)text;
    d->error = e != OK ? e : r->error;
    d->over = true;
}

static enum err execute(struct loner *n, const struct command *c) {
    struct doing d = {0};
    d.write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = &d};
    assert_int_equal(command_encode(c, &d.write.command), OK);
    assert_int_equal(manager_write(n->manager, &d.write), OK);
    run_until(n, &d.over);
    return d.error;
}

static enum err grant(struct loner *n, uint64_t id, uint64_t ttl_ms) {
    return execute(n, &(struct command){.op = OP_LEASE_GRANT, .lease = {id, ttl_ms}});
}

static enum err revoke_lease(struct loner *n, uint64_t id) {
    return execute(n, &(struct command){.op = OP_LEASE_REVOKE, .lease = {.id = id}});
}

struct asking {
    struct lease_ask ask;
    bool over;
    enum err error;
};

static void on_answer(struct lease_ask *a, enum err e) {
    struct asking *asking = a->ctx;
    assert_false(asking->over);
    asking->error = e;
    asking->over = true;
}

static void begin(struct loner *n, struct asking *a, uint64_t id, bool renew) {
    *a = (struct asking){.ask = {.id = id, .renew = renew, .done = on_answer, .ctx = a}};
    assert_int_equal(leases_ask(n->manager, &a->ask), OK);
    assert_false(a->over);
}

static struct asking ask(struct loner *n, uint64_t id, bool renew) {
    struct asking a;
    begin(n, &a, id, renew);
    run_until(n, &a.over);
    return a;
}

/* --- cases --- */

static void a_lease_is_renewed_and_its_time_told(void **state) {
    (void)state;
    struct loner *n = start();
    assert_int_equal(ask(n, 7, true).error, ERR_LEASE_NOT_FOUND);
    assert_int_equal(ask(n, 7, false).error, ERR_LEASE_NOT_FOUND);
    assert_int_equal(grant(n, 7, 60000), OK);
    assert_int_equal(grant(n, 7, 90000), ERR_LEASE_EXISTS);
    struct asking a = ask(n, 7, false);
    assert_int_equal(a.error, OK);
    assert_int_equal(a.ask.ttl_ms, 60000);
    assert_in_range(a.ask.left_ms, 50000, 60000);
    a = ask(n, 7, true);
    assert_int_equal(a.error, OK);
    assert_int_equal(a.ask.left_ms, 60000);
    assert_int_equal(revoke_lease(n, 7), OK);
    assert_int_equal(revoke_lease(n, 7), ERR_LEASE_NOT_FOUND);
    assert_int_equal(ask(n, 7, true).error, ERR_LEASE_NOT_FOUND);
    stop(n);
}

static void what_runs_out_is_revoked_and_takes_its_keys_along(void **state) {
    (void)state;
    struct loner *n = start();
    struct kv kv;
    struct lease lease;
    assert_int_equal(grant(n, 1, 150), OK);
    assert_int_equal(grant(n, 2, 60000), OK);
    for (uint64_t id = 1; id <= 2; id++) {
        struct command c = {.op = OP_PUT, .put = {.value = span_str("v"), .lease = id}};
        c.put.key = span_str(id == 1 ? "short" : "long");
        assert_int_equal(execute(n, &c), OK);
    }
    while (lease_find(store_leases(n->manager->store), 1, &lease))
        (void)uv_run(&n->loop, UV_RUN_ONCE);
    assert_false(store_get(n->manager->store, span_str("short"), &kv));
    assert_true(store_get(n->manager->store, span_str("long"), &kv));
    assert_true(lease_find(store_leases(n->manager->store), 2, &lease));
    stop(n);
}

static void many_questions_of_one_turn_are_answered_each(void **state) {
    (void)state;
    enum { N = 20000 };
    struct loner *n = start();
    struct asking *all = calloc(N, sizeof *all);
    assert_non_null(all);
    assert_int_equal(grant(n, 5, 70000), OK);
    for (unsigned i = 0; i < N; i++)
        begin(n, &all[i], i % 3 == 0 ? 5 : 1000 + i, i % 2 == 0);
    for (unsigned i = 0; i < N; i++) {
        run_until(n, &all[i].over);
        assert_int_equal(all[i].error, i % 3 == 0 ? OK : ERR_LEASE_NOT_FOUND);
        if (i % 3 == 0) assert_int_equal(all[i].ask.ttl_ms, 70000);
    }
    free(all);
    stop(n);
}

static void too_many_questions_are_refused(void **state) {
    (void)state;
    struct loner *n = start();
    struct asking *all = calloc(LEASE_ASKS_MAX, sizeof *all), more;
    assert_non_null(all);
    for (unsigned i = 0; i < LEASE_ASKS_MAX; i++)
        begin(n, &all[i], 1, true);
    more = (struct asking){.ask = {.id = 1, .done = on_answer, .ctx = &more}};
    assert_int_equal(leases_ask(n->manager, &more.ask), ERR_BUSY);
    for (unsigned i = 0; i < LEASE_ASKS_MAX; i++)
        run_until(n, &all[i].over);
    assert_int_equal(ask(n, 1, true).error, ERR_LEASE_NOT_FOUND);
    free(all);
    stop(n);
}

static void an_end_answers_what_is_under_way(void **state) {
    (void)state;
    struct loner *n = start();
    struct asking early[10], late[10];
    for (unsigned i = 0; i < 10; i++)
        begin(n, &early[i], 1, true);
    (void)uv_run(&n->loop, UV_RUN_NOWAIT);
    for (unsigned i = 0; i < 10; i++)
        begin(n, &late[i], 1, true);
    manager_close(n->manager, on_closed, n);
    run_until(n, &n->closed);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(early[i].over && late[i].over);
        assert_true(late[i].error == ERR_CLOSED || late[i].error == ERR_LEASE_NOT_FOUND);
    }
    stop(n);
}

struct calling {
    struct call call;
    bool over;
    enum err error;
};

static void on_called(struct call *c, enum err e, struct span answer) {
    struct calling *calling = c->ctx;
    (void)answer;
    calling->error = e;
    calling->over = true;
}

static enum err call(struct loner *n, const void *bytes, size_t size) {
    struct calling c = {0};
    c.call = (struct call){.request = span_of(bytes, size), .done = on_called, .ctx = &c};
    assert_int_equal(replica_call(n->manager->replica, &c.call), OK);
    run_until(n, &c.over);
    return c.error;
}

static void calls_that_are_no_questions_are_refused(void **state) {
    (void)state;
    struct loner *n = start();
    uint8_t good[] = {LEASE_CALL, 1, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(call(n, good, sizeof good), OK);
    for (size_t size = 1; size < sizeof good; size++)
        assert_int_equal(call(n, good, size), ERR_PROTOCOL);
    good[1] = 0;
    assert_int_equal(call(n, good, sizeof good), ERR_PROTOCOL);
    good[1] = 2;
    assert_int_equal(call(n, good, sizeof good), ERR_PROTOCOL);
    good[4] = 255;
    assert_int_equal(call(n, good, sizeof good), ERR_PROTOCOL);
    stop(n);
}

int main(void) {
    if (crypto_start(NULL) != OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_is_renewed_and_its_time_told),
        cmocka_unit_test(what_runs_out_is_revoked_and_takes_its_keys_along),
        cmocka_unit_test(many_questions_of_one_turn_are_answered_each),
        cmocka_unit_test(too_many_questions_are_refused),
        cmocka_unit_test(an_end_answers_what_is_under_way),
        cmocka_unit_test(calls_that_are_no_questions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
