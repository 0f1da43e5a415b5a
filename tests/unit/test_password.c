/* Passwords on worker threads: right and wrong ones, users that are not there, queues that end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "api/etcd/password.h"

struct world {
    uv_loop_t loop;
    struct passwords *passwords;
    unsigned done; /* jobs that have ended */
    enum err last; /* what came of the last one */
    char hash[PASSWORD_HASH_MAX + 1];
};

static int start(void **state) {
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    assert_int_equal(crypto_start(NULL), OK);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(passwords_new(&w->loop, &w->passwords), OK);
    *state = w;
    return 0;
}

static int end(void **state) {
    struct world *w = *state;
    passwords_free(w->passwords);
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    free(w);
    return 0;
}

static void on_done(struct password_job *j) {
    struct world *w = j->ctx;
    assert_null(j->password); /* wiped */
    w->done++;
    w->last = j->error;
    memcpy(w->hash, j->hash, sizeof w->hash);
    password_job_free(j);
}

/* passwords_free has ended it. */
static void on_closed(struct password_job *j) {
    struct world *w = j->ctx;
    w->done++;
    w->last = j->error;
    password_job_free(j);
}

static struct password_job *job(struct world *w) {
    struct password_job *j = calloc(1, sizeof *j);
    assert_non_null(j);
    j->ctx = w;
    j->done = on_done;
    return j;
}

static enum err run(struct world *w) {
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    return w->last;
}

static void make(struct world *w, const char *password) {
    assert_int_equal(password_make(w->passwords, span_str(password), job(w)), OK);
    assert_int_equal(run(w), OK);
}

static enum err check(struct world *w, const char *user, const char *password, const char *hash,
                      uint64_t now_ms) {
    enum err e = password_check(w->passwords, span_str(user), span_str(password), span_str(hash),
                                now_ms, job(w));
    return e != OK ? e : run(w);
}

static void a_password_is_known_again_and_another_is_not(void **state) {
    struct world *w = *state;
    make(w, "right");
    char hash[PASSWORD_HASH_MAX + 1];
    memcpy(hash, w->hash, sizeof hash);
    assert_int_equal(check(w, "u", "right", hash, 0), OK);
    assert_int_equal(check(w, "u", "wrong", hash, 0), ERR_AUTH_FAILED);
    assert_int_equal(check(w, "u", "", hash, 0), ERR_AUTH_FAILED);
    make(w, "right");
    assert_string_not_equal(hash, w->hash); /* salted */
}

static void an_empty_password_is_one(void **state) {
    struct world *w = *state;
    make(w, "");
    char hash[PASSWORD_HASH_MAX + 1];
    memcpy(hash, w->hash, sizeof hash);
    assert_int_equal(check(w, "u", "", hash, 0), OK);
    assert_int_equal(check(w, "u", "x", hash, 0), ERR_AUTH_FAILED);
}

static uint64_t time_of_check(struct world *w, const char *hash) {
    uint64_t before = uv_hrtime();
    assert_int_equal(check(w, "somebody", "wrong", hash, 0), ERR_AUTH_FAILED);
    return uv_hrtime() - before;
}

static void nobody_costs_as_much_as_somebody(void **state) {
    struct world *w = *state;
    make(w, "right");
    char hash[PASSWORD_HASH_MAX + 1];
    memcpy(hash, w->hash, sizeof hash);
    uint64_t somebody = UINT64_MAX, nobody = UINT64_MAX;
    for (unsigned i = 0; i < 4; i++) { /* the least of some: the machine is shared */
        uint64_t one = time_of_check(w, hash), other = time_of_check(w, "");
        if (one < somebody) somebody = one;
        if (other < nobody) nobody = other;
    }
    assert_true(nobody > somebody / 3 && somebody > nobody / 3);
    assert_true(nobody > 2000000); /* ns: it was really computed */
}

static void a_password_that_is_too_long_is_refused(void **state) {
    struct world *w = *state;
    static const uint8_t big[PASSPHRASE_MAX + 1] = {1};
    assert_int_equal(password_make(w->passwords, span_of(big, sizeof big), job(w)), ERR_TOO_LARGE);
    assert_int_equal(w->done, 0);
}

static void wrong_guesses_have_to_wait_and_right_ones_do_not(void **state) {
    struct world *w = *state;
    make(w, "right");
    char hash[PASSWORD_HASH_MAX + 1];
    memcpy(hash, w->hash, sizeof hash);
    for (unsigned i = 0; i < PASSWORD_BURST; i++)
        assert_int_equal(check(w, "u", "wrong", hash, 50), ERR_AUTH_FAILED);
    assert_int_equal(check(w, "u", "right", hash, 50), ERR_BUSY);
    assert_int_equal(check(w, "u", "right", hash, 50 + PASSWORD_PAUSE_MS), OK);
    assert_int_equal(check(w, "u", "right", hash, 50 + PASSWORD_PAUSE_MS), OK);
    assert_int_equal(check(w, "u", "wrong", hash, 50 + PASSWORD_PAUSE_MS), ERR_AUTH_FAILED);
    assert_int_equal(check(w, "u", "right", hash, 50 + PASSWORD_PAUSE_MS), ERR_BUSY);
    assert_int_equal(check(w, "other", "right", hash, 50), OK);
}

static void guesses_at_the_same_time_are_counted_before_they_are_known_to_be_wrong(void **state) {
    struct world *w = *state;
    struct span user = span_str("u"), password = span_str("wrong"), none = {0};
    unsigned taken = 0;
    for (unsigned i = 0; i < 3 * PASSWORD_BURST; i++)
        taken += password_check(w->passwords, user, password, none, 0, job(w)) == OK;
    assert_int_equal(taken, PASSWORD_BURST);
    assert_int_equal(run(w), ERR_AUTH_FAILED);
    assert_int_equal(w->done, PASSWORD_BURST);
}

static void only_so_many_wait_and_closing_ends_them(void **state) {
    struct world *w = *state;
    unsigned taken = 0;
    for (unsigned i = 0; i < 2 * PASSWORD_QUEUE_MAX; i++) {
        struct password_job *j = job(w);
        j->done = on_closed;
        taken += password_make(w->passwords, span_str("x"), j) == OK;
    }
    assert_int_equal(taken, PASSWORD_QUEUE_MAX + PASSWORD_WORKERS);
    passwords_free(w->passwords);
    w->passwords = NULL;
    assert_int_equal(w->done, PASSWORD_QUEUE_MAX);
    assert_int_equal(w->last, ERR_CLOSED);
    (void)run(w);
    assert_int_equal(w->done, taken);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_password_is_known_again_and_another_is_not, start, end),
        cmocka_unit_test_setup_teardown(an_empty_password_is_one, start, end),
        cmocka_unit_test_setup_teardown(nobody_costs_as_much_as_somebody, start, end),
        cmocka_unit_test_setup_teardown(a_password_that_is_too_long_is_refused, start, end),
        cmocka_unit_test_setup_teardown(wrong_guesses_have_to_wait_and_right_ones_do_not, start,
                                        end),
        cmocka_unit_test_setup_teardown(
            guesses_at_the_same_time_are_counted_before_they_are_known_to_be_wrong, start, end),
        cmocka_unit_test_setup_teardown(only_so_many_wait_and_closing_ends_them, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
