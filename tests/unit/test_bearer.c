/* Tokens: good on every member that holds the same state, void as soon as what they stand for is
 * gone, and too old when nobody uses them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "api/etcd/bearer.h"
#include "crypto/secret.h"

static void change(struct auth *a, struct auth_change c) {
    enum err outcome;
    assert_int_equal(auth_apply(a, &c, &outcome), OK);
    assert_int_equal(outcome, OK);
}

static void add_user(struct auth *a, const char *name, const char *hash) {
    change(a, (struct auth_change){
                  .op = AUTH_USER_ADD, .user = span_str(name), .password_hash = span_str(hash)});
}

static void enable(struct auth *a, uint8_t key) {
    uint8_t bytes[AUTH_KEY_SIZE] = {key};
    change(a, (struct auth_change){.op = AUTH_ENABLE, .token_key = span_of(bytes, AUTH_KEY_SIZE)});
}

static struct auth *make(void) {
    struct auth *a;
    assert_int_equal(crypto_start(NULL), OK);
    assert_int_equal(auth_new(&a), OK);
    add_user(a, "root", "hash of root");
    add_user(a, "u", "hash of u");
    add_user(a, "nobody", "");
    change(a, (struct auth_change){
                  .op = AUTH_USER_GRANT, .user = span_str("root"), .role = span_str("root")});
    enable(a, 1);
    return a;
}

struct member {
    struct bearers *bearers;
    struct bearer_now now;
    char user[USER_NAME_MAX + 1];
    uint8_t proof[AUTH_PROOF_SIZE];
};

static struct member member(int64_t wall_s, uint64_t mono_s) {
    struct member m = {.now = {.wall_s = wall_s, .mono_s = mono_s}};
    assert_int_equal(bearers_new(&m.bearers), OK);
    return m;
}

static enum err open_at(struct member *m, const struct auth *a, const char *token) {
    return bearer_open(a, m->bearers, span_str(token), &m->now, m->user, m->proof);
}

static void pass(struct member *m, unsigned seconds) {
    m->now.wall_s += seconds;
    m->now.mono_s += seconds;
}

static void a_token_names_its_user_on_every_member(void **state) {
    (void)state;
    struct auth *a = make();
    struct member here = member(1000, 5), there = member(1003, 77);
    char token[BEARER_TEXT_MAX], other[BEARER_TEXT_MAX];
    assert_int_equal(bearer_make(a, span_str("u"), 1000, token), OK);
    assert_int_equal(bearer_make(a, span_str("u"), 1000, other), OK);
    assert_string_not_equal(token, other);
    for (const char *c = token; *c; c++)
        assert_true(*c > ' ' && *c < 0x7f);
    assert_int_equal(open_at(&here, a, token), OK);
    assert_string_equal(here.user, "u");
    assert_int_equal(open_at(&there, a, token), OK);
    assert_memory_equal(here.proof, there.proof, AUTH_PROOF_SIZE);
    bearers_free(here.bearers);
    bearers_free(there.bearers);
    auth_free(a);
}

static void only_who_has_a_password_gets_one_and_only_while_auth_is_on(void **state) {
    (void)state;
    struct auth *a = make();
    char token[BEARER_TEXT_MAX];
    assert_int_equal(bearer_make(a, span_str("nobody"), 0, token), ERR_AUTH_FAILED);
    assert_int_equal(bearer_make(a, span_str("zz"), 0, token), ERR_AUTH_FAILED);
    change(a, (struct auth_change){.op = AUTH_DISABLE});
    assert_int_equal(bearer_make(a, span_str("u"), 0, token), ERR_AUTH_DISABLED);
    auth_free(a);
}

static void a_token_is_void_once_its_password_user_or_enabling_is_gone(void **state) {
    (void)state;
    struct auth *a = make();
    struct member m = member(0, 0);
    char u[BEARER_TEXT_MAX], root[BEARER_TEXT_MAX];
    struct auth_change password = {
        .op = AUTH_USER_PASSWORD, .user = span_str("u"), .password_hash = span_str("another")};
    assert_int_equal(bearer_make(a, span_str("u"), 0, u), OK);
    assert_int_equal(bearer_make(a, span_str("root"), 0, root), OK);
    change(a, (struct auth_change){.op = AUTH_ROLE_ADD, .role = span_str("r")});
    assert_int_equal(open_at(&m, a, u), OK); /* other changes leave it good */
    change(a, password);
    assert_int_equal(open_at(&m, a, u), ERR_AUTH_TOKEN);
    assert_int_equal(open_at(&m, a, root), OK);
    assert_int_equal(bearer_make(a, span_str("u"), 0, u), OK);
    change(a, (struct auth_change){.op = AUTH_USER_DELETE, .user = span_str("u")});
    assert_int_equal(open_at(&m, a, u), ERR_AUTH_TOKEN);
    add_user(a, "u", "made anew");
    assert_int_equal(open_at(&m, a, u), ERR_AUTH_TOKEN);
    change(a, (struct auth_change){.op = AUTH_DISABLE});
    assert_int_equal(open_at(&m, a, root), ERR_AUTH_TOKEN);
    enable(a, 2);
    assert_int_equal(open_at(&m, a, root), ERR_AUTH_TOKEN);
    bearers_free(m.bearers);
    auth_free(a);
}

static void a_token_lives_on_from_its_last_use_here(void **state) {
    (void)state;
    struct auth *a = make();
    struct member m = member(100000, 50), other = member(100000, 50);
    char token[BEARER_TEXT_MAX];
    assert_int_equal(bearer_make(a, span_str("u"), 100000, token), OK);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(open_at(&m, a, token), OK);
        pass(&m, AUTH_TOKEN_S);
    }
    assert_int_equal(open_at(&m, a, token), OK);
    pass(&m, AUTH_TOKEN_S + 1);
    assert_int_equal(open_at(&m, a, token), ERR_AUTH_TOKEN);
    pass(&other, AUTH_TOKEN_S);
    assert_int_equal(open_at(&other, a, token), OK);
    bearers_free(other.bearers);
    other = member(100000 + AUTH_TOKEN_S + 1, 50);
    assert_int_equal(open_at(&other, a, token), ERR_AUTH_TOKEN);
    bearers_free(m.bearers);
    bearers_free(other.bearers);
    auth_free(a);
}

static void a_token_from_a_future_that_no_clock_explains_is_refused(void **state) {
    (void)state;
    struct auth *a = make();
    struct member m = member(1000, 0);
    char token[BEARER_TEXT_MAX];
    assert_int_equal(bearer_make(a, span_str("u"), 1000 + BEARER_CLOCK_MAX_S, token), OK);
    assert_int_equal(open_at(&m, a, token), OK);
    assert_int_equal(bearer_make(a, span_str("u"), 1001 + BEARER_CLOCK_MAX_S, token), OK);
    assert_int_equal(open_at(&m, a, token), ERR_AUTH_TOKEN);
    bearers_free(m.bearers);
    auth_free(a);
}

static void every_change_of_a_token_is_noticed(void **state) {
    (void)state;
    struct auth *a = make();
    struct member m = member(0, 0);
    char token[BEARER_TEXT_MAX], changed[BEARER_TEXT_MAX];
    assert_int_equal(bearer_make(a, span_str("u"), 0, token), OK);
    size_t size = strlen(token);
    for (size_t i = 0; i < size; i++) {
        memcpy(changed, token, size + 1);
        changed[i] = changed[i] == 'A' ? 'B' : 'A';
        assert_int_equal(open_at(&m, a, changed), ERR_AUTH_TOKEN);
        changed[i] = '!';
        assert_int_equal(open_at(&m, a, changed), ERR_AUTH_TOKEN);
        memcpy(changed, token, i);
        changed[i] = '\0';
        assert_int_equal(open_at(&m, a, changed), ERR_AUTH_TOKEN);
    }
    char big[2 * BEARER_TEXT_MAX];
    memset(big, 'A', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(open_at(&m, a, big), ERR_AUTH_TOKEN);
    big[BEARER_TEXT_MAX - 1] = '\0';
    assert_int_equal(open_at(&m, a, big), ERR_AUTH_TOKEN);
    bearers_free(m.bearers);
    auth_free(a);
}

static void the_longest_name_fits(void **state) {
    (void)state;
    struct auth *a = make();
    struct member m = member(0, 0);
    char name[USER_NAME_MAX + 1], token[BEARER_TEXT_MAX];
    memset(name, 'n', USER_NAME_MAX);
    name[USER_NAME_MAX] = '\0';
    add_user(a, name, "hash");
    assert_int_equal(bearer_make(a, span_str(name), 0, token), OK);
    assert_int_equal(open_at(&m, a, token), OK);
    assert_string_equal(m.user, name);
    bearers_free(m.bearers);
    auth_free(a);
}

static void more_tokens_than_are_remembered_do_no_harm_to_a_busy_one(void **state) {
    (void)state;
    struct auth *a = make();
    struct member m = member(0, 0);
    char busy[BEARER_TEXT_MAX], token[BEARER_TEXT_MAX];
    assert_int_equal(bearer_make(a, span_str("u"), 0, busy), OK);
    for (unsigned i = 0; i < 2 * BEARERS_MAX; i++) {
        assert_int_equal(bearer_make(a, span_str("u"), m.now.wall_s, token), OK);
        assert_int_equal(open_at(&m, a, token), OK);
        if (i % 64 == 0) {
            pass(&m, 1);
            assert_int_equal(open_at(&m, a, busy), OK);
        }
    }
    assert_true(m.now.wall_s > AUTH_TOKEN_S);
    bearers_free(m.bearers);
    auth_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_names_its_user_on_every_member),
        cmocka_unit_test(only_who_has_a_password_gets_one_and_only_while_auth_is_on),
        cmocka_unit_test(a_token_is_void_once_its_password_user_or_enabling_is_gone),
        cmocka_unit_test(a_token_lives_on_from_its_last_use_here),
        cmocka_unit_test(a_token_from_a_future_that_no_clock_explains_is_refused),
        cmocka_unit_test(every_change_of_a_token_is_noticed),
        cmocka_unit_test(the_longest_name_fits),
        cmocka_unit_test(more_tokens_than_are_remembered_do_no_harm_to_a_busy_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
