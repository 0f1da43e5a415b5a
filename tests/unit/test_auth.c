/* Users, roles, permissions: etcd's outcomes in etcd's order, judging beside a plain model of it,
 * versions that do not disturb each other, and bytes that have one form only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "store/auth.h"
#include "tests/lib/fault.h"
#include "tests/lib/states.h"

static const uint8_t key_a[AUTH_KEY_SIZE] = "first token key, of 32 bytes ...";
static const uint8_t key_b[AUTH_KEY_SIZE] = "another token key of 32 bytes ..";
#define ALL "\x01" /* stands for the end "\0" in the texts below */

static struct interval interval(const char *key, const char *end) {
    struct interval in = {.key = span_str(key), .end = span_str(end)};
    if (end[0] == ALL[0]) in.end = span_of("", 1);
    return in;
}

static enum err apply_change(struct auth *a, const struct auth_change *c) {
    enum err outcome = ERR_INTERNAL;
    assert_int_equal(auth_apply(a, c, &outcome), OK);
    return outcome;
}

static enum err switch_to(struct auth *a, enum auth_op op) {
    struct auth_change c = {.op = op, .token_key = span_of(key_a, AUTH_KEY_SIZE)};
    return apply_change(a, &c);
}

static enum err user(struct auth *a, enum auth_op op, const char *name, const char *role) {
    struct auth_change c = {.op = op, .user = span_str(name), .role = span_str(role)};
    return apply_change(a, &c);
}

static enum err password(struct auth *a, enum auth_op op, const char *name, const char *hash) {
    struct auth_change c = {.op = op, .user = span_str(name), .password_hash = span_str(hash)};
    return apply_change(a, &c);
}

static enum err role(struct auth *a, enum auth_op op, const char *name) {
    struct auth_change c = {.op = op, .role = span_str(name)};
    return apply_change(a, &c);
}

static enum err grant(struct auth *a, const char *name, enum permission p, const char *key,
                      const char *end) {
    struct auth_change c = {
        .op = AUTH_ROLE_GRANT, .role = span_str(name), .permission = p, .in = interval(key, end)};
    return apply_change(a, &c);
}

static enum err revoke(struct auth *a, const char *name, const char *key, const char *end) {
    struct auth_change c = {
        .op = AUTH_ROLE_REVOKE, .role = span_str(name), .in = interval(key, end)};
    return apply_change(a, &c);
}

static struct auth *fresh(void) {
    struct auth *a;
    assert_int_equal(auth_new(&a), OK);
    return a;
}

/* root with the root role, "u" with role "r", "n" without a password; enabled. */
static struct auth *enabled(void) {
    struct auth *a = fresh();
    assert_int_equal(password(a, AUTH_USER_ADD, "root", "hash of root"), OK);
    assert_int_equal(user(a, AUTH_USER_GRANT, "root", "root"), OK);
    assert_int_equal(password(a, AUTH_USER_ADD, "u", "hash of u"), OK);
    assert_int_equal(password(a, AUTH_USER_ADD, "n", ""), OK);
    assert_int_equal(role(a, AUTH_ROLE_ADD, "r"), OK);
    assert_int_equal(user(a, AUTH_USER_GRANT, "u", "r"), OK);
    assert_int_equal(switch_to(a, AUTH_ENABLE), OK);
    return a;
}

static enum err may(const struct auth *a, const char *name, enum permission p, const char *key,
                    const char *end) {
    struct interval in = interval(key, end);
    return auth_may(a, span_str(name), p, &in);
}

/* --- outcomes --- */

static void enabling_wants_a_root_user_with_the_root_role(void **state) {
    (void)state;
    struct auth *a = fresh();
    assert_false(auth_enabled(a));
    assert_null(auth_token_key(a));
    assert_int_equal(switch_to(a, AUTH_ENABLE), ERR_ROOT_USER);
    assert_int_equal(user(a, AUTH_USER_ADD, "root", ""), OK);
    assert_int_equal(switch_to(a, AUTH_ENABLE), ERR_ROOT_ROLE);
    assert_int_equal(user(a, AUTH_USER_GRANT, "root", "root"), OK); /* no role "root" needed */
    assert_int_equal(switch_to(a, AUTH_ENABLE), OK);
    assert_true(auth_enabled(a));
    assert_memory_equal(auth_token_key(a), key_a, AUTH_KEY_SIZE);
    auth_free(a);
}

static void each_enabling_but_no_second_one_takes_another_token_key(void **state) {
    (void)state;
    struct auth *a = enabled();
    struct auth_change c = {.op = AUTH_ENABLE, .token_key = span_of(key_b, AUTH_KEY_SIZE)};
    assert_int_equal(apply_change(a, &c), OK);
    assert_memory_equal(auth_token_key(a), key_a, AUTH_KEY_SIZE);
    assert_int_equal(switch_to(a, AUTH_DISABLE), OK);
    assert_int_equal(apply_change(a, &c), OK);
    assert_memory_equal(auth_token_key(a), key_b, AUTH_KEY_SIZE);
    auth_free(a);
}

static void what_is_not_there_or_there_already_is_told_as_etcd_tells_it(void **state) {
    (void)state;
    struct auth *a = enabled();
    assert_int_equal(user(a, AUTH_USER_ADD, "", ""), ERR_USER_EMPTY);
    assert_int_equal(user(a, AUTH_USER_ADD, "u", ""), ERR_USER_EXISTS);
    assert_int_equal(user(a, AUTH_USER_DELETE, "zz", ""), ERR_USER_NOT_FOUND);
    assert_int_equal(user(a, AUTH_USER_PASSWORD, "zz", ""), ERR_USER_NOT_FOUND);
    assert_int_equal(user(a, AUTH_USER_GRANT, "zz", "zz"), ERR_USER_NOT_FOUND);
    assert_int_equal(user(a, AUTH_USER_GRANT, "u", "zz"), ERR_ROLE_NOT_FOUND);
    assert_int_equal(user(a, AUTH_USER_REVOKE, "zz", "r"), ERR_USER_NOT_FOUND);
    assert_int_equal(user(a, AUTH_USER_REVOKE, "u", "zz"), ERR_ROLE_NOT_GRANTED);
    assert_int_equal(role(a, AUTH_ROLE_ADD, ""), ERR_ROLE_EMPTY);
    assert_int_equal(role(a, AUTH_ROLE_ADD, "r"), ERR_ROLE_EXISTS);
    assert_int_equal(role(a, AUTH_ROLE_DELETE, "zz"), ERR_ROLE_NOT_FOUND);
    assert_int_equal(grant(a, "zz", PERMISSION_READ, "a", ""), ERR_ROLE_NOT_FOUND);
    assert_int_equal(revoke(a, "zz", "a", ""), ERR_ROLE_NOT_FOUND);
    assert_int_equal(revoke(a, "r", "a", ""), ERR_PERMISSION_NOT_GRANTED);
    auth_free(a);
}

static void an_interval_that_holds_nothing_is_not_granted(void **state) {
    (void)state;
    struct auth *a = enabled();
    assert_int_equal(grant(a, "zz", PERMISSION_READ, "", ""), ERR_AUTH_MANAGEMENT);
    assert_int_equal(grant(a, "zz", PERMISSION_READ, "b", "a"), ERR_AUTH_MANAGEMENT);
    assert_int_equal(grant(a, "zz", PERMISSION_READ, "b", "b"), ERR_AUTH_MANAGEMENT);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "b", ALL), OK);
    auth_free(a);
}

static void root_is_kept_while_auth_is_enabled(void **state) {
    (void)state;
    struct auth *a = enabled();
    assert_int_equal(user(a, AUTH_USER_DELETE, "root", ""), ERR_AUTH_MANAGEMENT);
    assert_int_equal(user(a, AUTH_USER_REVOKE, "root", "root"), ERR_AUTH_MANAGEMENT);
    assert_int_equal(role(a, AUTH_ROLE_DELETE, "root"), ERR_AUTH_MANAGEMENT);
    assert_int_equal(user(a, AUTH_USER_REVOKE, "root", "r"), ERR_ROLE_NOT_GRANTED);
    assert_int_equal(switch_to(a, AUTH_DISABLE), OK);
    assert_int_equal(role(a, AUTH_ROLE_DELETE, "root"), ERR_ROLE_NOT_FOUND);
    assert_int_equal(user(a, AUTH_USER_REVOKE, "root", "root"), OK);
    assert_int_equal(user(a, AUTH_USER_DELETE, "root", ""), OK);
    auth_free(a);
}

static void every_change_but_enabling_takes_a_revision_and_nothing_else_does(void **state) {
    (void)state;
    struct auth *a = fresh();
    assert_int_equal(auth_revision(a), 1);
    assert_int_equal(switch_to(a, AUTH_DISABLE), OK);
    assert_int_equal(switch_to(a, AUTH_ENABLE), ERR_ROOT_USER);
    assert_int_equal(auth_revision(a), 1);
    assert_int_equal(user(a, AUTH_USER_ADD, "root", ""), OK);
    assert_int_equal(user(a, AUTH_USER_GRANT, "root", "root"), OK);
    assert_int_equal(auth_revision(a), 3);
    assert_int_equal(user(a, AUTH_USER_GRANT, "root", "root"), OK);
    assert_int_equal(switch_to(a, AUTH_ENABLE), OK);
    assert_int_equal(switch_to(a, AUTH_ENABLE), OK);
    assert_int_equal(auth_revision(a), 3);
    assert_int_equal(role(a, AUTH_ROLE_ADD, "r"), OK);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "a", ""), OK);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "a", ""), OK);
    assert_int_equal(revoke(a, "r", "a", ""), OK);
    assert_int_equal(revoke(a, "r", "a", ""), ERR_PERMISSION_NOT_GRANTED);
    assert_int_equal(user(a, AUTH_USER_PASSWORD, "root", ""), OK);
    assert_int_equal(role(a, AUTH_ROLE_DELETE, "r"), OK);
    assert_int_equal(auth_revision(a), 9);
    assert_int_equal(switch_to(a, AUTH_DISABLE), OK);
    assert_int_equal(auth_revision(a), 10);
    auth_free(a);
}

static void a_password_is_replaced_but_never_given_to_who_was_made_without(void **state) {
    (void)state;
    struct auth *a = enabled();
    struct span hash;
    assert_int_equal(password(a, AUTH_USER_PASSWORD, "u", "new"), OK);
    assert_int_equal(password(a, AUTH_USER_PASSWORD, "n", "new"), OK);
    assert_true(auth_user(a, span_str("u"), &hash));
    assert_true(span_equal(hash, span_str("new")));
    assert_true(auth_user(a, span_str("n"), &hash));
    assert_int_equal(hash.size, 0);
    assert_false(auth_user(a, span_str("zz"), &hash));
    auth_free(a);
}

/* --- reading --- */

static void add_name(void *ctx, struct span name) {
    struct buf *out = ctx;
    assert_int_equal(buf_format(out, "%.*s ", (int)name.size, (const char *)name.at), OK);
}

static void add_permission(void *ctx, const struct auth_permission *p) {
    struct buf *out = ctx;
    assert_int_equal(buf_format(out, "%d:%.*s-%.*s ", (int)p->permission, (int)p->in.key.size,
                                (const char *)p->in.key.at, (int)p->in.end.size,
                                (const char *)p->in.end.at),
                     OK);
}

static void assert_text(struct buf *b, const char *text) {
    assert_true(span_equal(buf_span(b), span_str(text)));
    buf_free(b);
}

static void names_and_permissions_are_told_in_order(void **state) {
    (void)state;
    struct auth *a = enabled();
    struct buf b = buf_new(1024);
    assert_int_equal(role(a, AUTH_ROLE_ADD, "q"), OK);
    assert_int_equal(user(a, AUTH_USER_GRANT, "u", "q"), OK);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "c", "d"), OK);
    assert_int_equal(grant(a, "r", PERMISSION_WRITE, "a", "z"), OK);
    assert_int_equal(grant(a, "r", PERMISSION_BOTH, "a", ""), OK);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "a", "z"), OK); /* instead of writing */
    auth_users(a, add_name, &b);
    assert_text(&b, "n root u ");
    auth_roles(a, add_name, &b);
    assert_text(&b, "q r ");
    auth_user_roles(a, span_str("u"), add_name, &b);
    assert_text(&b, "q r ");
    auth_user_roles(a, span_str("zz"), add_name, &b);
    assert_text(&b, "");
    auth_role_permissions(a, span_str("r"), add_permission, &b);
    assert_text(&b, "3:a- 1:a-z 1:c-d ");
    auth_role_permissions(a, span_str("zz"), add_permission, &b);
    assert_text(&b, "");
    assert_true(auth_role(a, span_str("r")));
    assert_false(auth_role(a, span_str("root")));
    auth_free(a);
}

static void a_deleted_role_is_lost_by_its_users(void **state) {
    (void)state;
    struct auth *a = enabled();
    struct buf b = buf_new(1024);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "a", ""), OK);
    assert_int_equal(user(a, AUTH_USER_GRANT, "n", "r"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "a", ""), OK);
    assert_int_equal(role(a, AUTH_ROLE_DELETE, "r"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "a", ""), ERR_AUTH_DENIED);
    auth_user_roles(a, span_str("u"), add_name, &b);
    auth_user_roles(a, span_str("n"), add_name, &b);
    assert_text(&b, "");
    assert_int_equal(role(a, AUTH_ROLE_ADD, "r"), OK); /* a new one of that name is nobody's */
    auth_user_roles(a, span_str("u"), add_name, &b);
    assert_text(&b, "");
    auth_free(a);
}

/* --- judging --- */

static void without_auth_everybody_may_everything(void **state) {
    (void)state;
    struct auth *a = fresh();
    assert_int_equal(may(a, "", PERMISSION_BOTH, "a", ALL), OK);
    assert_int_equal(may(a, "zz", PERMISSION_BOTH, "a", ALL), OK);
    assert_int_equal(auth_root(a, span_str("")), OK);
    auth_free(a);
}

static void root_may_everything_and_strangers_nothing(void **state) {
    (void)state;
    struct auth *a = enabled();
    assert_int_equal(may(a, "root", PERMISSION_BOTH, "", ALL), OK);
    assert_int_equal(may(a, "", PERMISSION_READ, "a", ""), ERR_USER_EMPTY);
    assert_int_equal(may(a, "zz", PERMISSION_READ, "a", ""), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "a", ""), ERR_AUTH_DENIED);
    assert_int_equal(auth_root(a, span_str("root")), OK);
    assert_int_equal(auth_root(a, span_str("")), ERR_USER_EMPTY);
    assert_int_equal(auth_root(a, span_str("zz")), ERR_USER_NOT_FOUND);
    assert_int_equal(auth_root(a, span_str("u")), ERR_AUTH_DENIED);
    assert_int_equal(user(a, AUTH_USER_GRANT, "u", "root"), OK);
    assert_int_equal(auth_root(a, span_str("u")), OK);
    assert_int_equal(may(a, "u", PERMISSION_BOTH, "", ALL), OK);
    auth_free(a);
}

static void a_single_key_covers_itself_and_no_more(void **state) {
    (void)state;
    struct auth *a = enabled();
    assert_int_equal(grant(a, "r", PERMISSION_READ, "b", ""), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", ""), OK);
    assert_int_equal(may(a, "u", PERMISSION_WRITE, "b", ""), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_BOTH, "b", ""), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "ba", ""), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "a", ""), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", "c"), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", ALL), ERR_AUTH_DENIED);
    struct interval same = {.key = span_str("b"), .end = span_of("b", 2)}; /* b .. b\0 */
    assert_int_equal(auth_may(a, span_str("u"), PERMISSION_READ, &same), OK);
    auth_free(a);
}

static void a_request_may_lie_across_permissions_of_several_roles(void **state) {
    (void)state;
    struct auth *a = enabled();
    assert_int_equal(role(a, AUTH_ROLE_ADD, "q"), OK);
    assert_int_equal(user(a, AUTH_USER_GRANT, "u", "q"), OK);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "b", "c"), OK);
    assert_int_equal(grant(a, "r", PERMISSION_BOTH, "d", "f"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", "f"), ERR_AUTH_DENIED);
    assert_int_equal(grant(a, "q", PERMISSION_READ, "c", "d"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", "f"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", "fa"), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "az", "f"), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_WRITE, "b", "f"), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_WRITE, "d", "f"), OK);
    assert_int_equal(grant(a, "q", PERMISSION_READ, "e", ALL), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", ALL), OK);
    auth_free(a);
}

static void an_interval_turned_around_needs_what_lies_between(void **state) {
    (void)state;
    struct auth *a = enabled();
    assert_int_equal(grant(a, "r", PERMISSION_READ, "b", "d"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "c", "b"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "c", "c"), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "c", "a"), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "d", "b"), ERR_AUTH_DENIED);
    assert_int_equal(may(a, "u", PERMISSION_READ, "", "d"), ERR_AUTH_DENIED); /* "": from "\0" */
    struct auth_change c = {.op = AUTH_ROLE_GRANT,
                            .role = span_str("r"),
                            .permission = PERMISSION_READ,
                            .in = {.key = span_of("", 1), .end = span_of("", 1)}};
    assert_int_equal(apply_change(a, &c), OK);
    assert_int_equal(may(a, "u", PERMISSION_READ, "", ALL), OK);
    auth_free(a);
}

/* Keys "a".."p"; an interval is a set of bits. Between the letters lie no keys of the model, so
 * intervals that end at a letter meet where they touch. */
#define LETTERS 16
struct world {
    struct auth *a;
    uint32_t granted[2]; /* letters l for which all of [l, l + 1) may be read, written */
};

static char *letter(char *at, unsigned n) {
    at[0] = (char)('a' + n);
    at[1] = '\0';
    return at;
}

static void grant_at_random(struct world *w, uint64_t *seed) {
    char from[2], to[2], name[2];
    unsigned first = (unsigned)(random_next(seed) % LETTERS);
    unsigned p = 1 + (unsigned)(random_next(seed) % 3);
    unsigned end = first + 1 + (unsigned)(random_next(seed) % 4);
    if (end > LETTERS) end = LETTERS;
    letter(from, first);
    letter(to, end);
    assert_int_equal(
        grant(w->a, letter(name, (unsigned)(random_next(seed) % 3)), (enum permission)p, from, to),
        OK);
}

static void note(void *ctx, const struct auth_permission *p) {
    struct world *w = ctx;
    for (unsigned l = (unsigned)(p->in.key.at[0] - 'a'); l < (unsigned)(p->in.end.at[0] - 'a'); l++)
        for (unsigned k = 0; k < 2; k++)
            if ((p->permission & (1U << k)) != 0) w->granted[k] |= 1U << l;
}

static void check_all(struct world *w) {
    char from[2], to[2];
    for (unsigned first = 0; first < LETTERS; first++) {
        for (unsigned end = first; end <= LETTERS; end++) {
            uint32_t wanted = end == first ? 1U << first : (1U << end) - (1U << first);
            for (unsigned k = 0; k < 2; k++) {
                bool covered = (w->granted[k] & wanted) == wanted;
                enum err e = may(w->a, "u", (enum permission)(1U << k), letter(from, first),
                                 end == first ? "" : letter(to, end));
                assert_int_equal(e, covered ? OK : ERR_AUTH_DENIED);
            }
        }
    }
}

static void judging_agrees_with_a_plain_model_over_random_permissions(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t luck = seed;
        struct world w = {.a = enabled()};
        char name[2];
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(role(w.a, AUTH_ROLE_ADD, letter(name, i)), OK);
            assert_int_equal(user(w.a, AUTH_USER_GRANT, "u", name), OK);
        }
        for (unsigned i = 0; i < 12; i++) {
            grant_at_random(&w, &luck);
            w.granted[0] = w.granted[1] = 0; /* a grant may have taken a permission's place */
            for (unsigned k = 0; k < 3; k++)
                auth_role_permissions(w.a, span_str(letter(name, k)), note, &w);
            check_all(&w);
        }
        auth_free(w.a);
    }
}

/* --- versions --- */

static struct buf bytes_of(const struct auth *a) {
    struct buf b = buf_new(AUTH_BYTES_MAX + KIB);
    assert_int_equal(auth_encode(a, &b), OK);
    return b;
}

static void a_copy_stays_as_it_is_when_the_other_changes(void **state) {
    (void)state;
    struct auth *a = enabled(), *b;
    assert_int_equal(grant(a, "r", PERMISSION_READ, "a", "c"), OK);
    struct buf before = bytes_of(a);
    assert_int_equal(auth_copy(a, &b), OK);
    assert_int_equal(role(a, AUTH_ROLE_DELETE, "r"), OK);
    assert_int_equal(user(a, AUTH_USER_DELETE, "u", ""), OK);
    assert_int_equal(user(a, AUTH_USER_ADD, "new", ""), OK);
    struct buf after = bytes_of(b);
    assert_true(span_equal(buf_span(&before), buf_span(&after)));
    assert_int_equal(may(b, "u", PERMISSION_READ, "b", ""), OK);
    auth_free(b);
    assert_int_equal(may(a, "u", PERMISSION_READ, "b", ""), ERR_AUTH_DENIED);
    buf_free(&before);
    buf_free(&after);
    auth_free(a);
}

static void there_are_only_so_many_users_and_permissions(void **state) {
    (void)state;
    struct auth *a = fresh();
    char name[16];
    for (unsigned i = 0; i < USERS_MAX; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        assert_int_equal(user(a, AUTH_USER_ADD, name, ""), OK);
    }
    assert_int_equal(user(a, AUTH_USER_ADD, "one more", ""), ERR_TOO_LARGE);
    assert_int_equal(role(a, AUTH_ROLE_ADD, "r"), OK);
    for (unsigned i = 0; i < PERMISSIONS_MAX; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        assert_int_equal(grant(a, "r", PERMISSION_READ, name, ""), OK);
    }
    uint64_t revision = auth_revision(a);
    assert_int_equal(grant(a, "r", PERMISSION_READ, "one more", ""), ERR_TOO_LARGE);
    assert_int_equal(grant(a, "r", PERMISSION_BOTH, name, ""), OK);
    assert_int_equal(auth_revision(a), revision + 1);
    struct buf bytes = bytes_of(a);
    struct auth *b;
    assert_int_equal(auth_decode(buf_span(&bytes), &b), OK);
    auth_free(b);
    buf_free(&bytes);
    auth_free(a);
}

static void all_together_has_only_so_many_bytes(void **state) {
    (void)state;
    static char key[KEY_MAX + 1];
    struct auth *a = fresh();
    memset(key, 'k', KEY_MAX);
    enum err e = OK;
    unsigned granted = 0;
    for (unsigned r = 0; e == OK; r++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", r);
        assert_int_equal(role(a, AUTH_ROLE_ADD, name), OK);
        for (unsigned i = 0; e == OK && i < 256; i++, granted += e == OK) {
            (void)snprintf(key, 9, "%08u", i);
            key[8] = 'k';
            e = grant(a, name, PERMISSION_READ, key, "");
        }
    }
    assert_int_equal(e, ERR_TOO_LARGE);
    assert_in_range(granted, AUTH_BYTES_MAX / (KEY_MAX + 16), AUTH_BYTES_MAX / KEY_MAX);
    struct buf bytes = bytes_of(a);
    assert_true(bytes.size <= AUTH_BYTES_MAX + KIB);
    buf_free(&bytes);
    auth_free(a);
}

/* --- bytes --- */

static struct auth *rich(void) {
    struct auth *a = enabled();
    assert_int_equal(grant(a, "r", PERMISSION_READ, "a", "c"), OK);
    assert_int_equal(grant(a, "r", PERMISSION_BOTH, "b", ALL), OK);
    assert_int_equal(grant(a, "r", PERMISSION_WRITE, "x", ""), OK);
    assert_int_equal(role(a, AUTH_ROLE_ADD, "root"), OK);
    assert_int_equal(user(a, AUTH_USER_GRANT, "root", "r"), OK);
    return a;
}

static void a_state_is_read_back_from_its_bytes(void **state) {
    (void)state;
    struct auth *a = rich(), *b;
    struct buf bytes = bytes_of(a);
    assert_int_equal(auth_decode(buf_span(&bytes), &b), OK);
    struct buf again = bytes_of(b);
    assert_true(span_equal(buf_span(&bytes), buf_span(&again)));
    assert_int_equal(auth_revision(a), auth_revision(b));
    assert_true(auth_enabled(b));
    assert_memory_equal(auth_token_key(b), key_a, AUTH_KEY_SIZE);
    assert_int_equal(may(b, "u", PERMISSION_BOTH, "b", ALL), OK);
    assert_int_equal(may(b, "u", PERMISSION_WRITE, "a", ""), ERR_AUTH_DENIED);
    buf_free(&bytes);
    buf_free(&again);
    auth_free(a);
    auth_free(b);
}

static void bytes_cut_short_changed_or_with_more_behind_do_no_harm(void **state) {
    (void)state;
    struct auth *a = rich(), *b;
    struct buf bytes = bytes_of(a);
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_equal(auth_decode(span_of(bytes.at, size), &b), ERR_CORRUPT);
    for (size_t i = 0; i < bytes.size; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes.at[i] = (uint8_t)(bytes.at[i] ^ (1U << bit));
            enum err e = auth_decode(buf_span(&bytes), &b);
            assert_true(e == OK || e == ERR_CORRUPT);
            if (e == OK) { /* another state, whole */
                struct buf again = bytes_of(b);
                assert_true(span_equal(buf_span(&bytes), buf_span(&again)));
                buf_free(&again);
                auth_free(b);
            }
            bytes.at[i] = (uint8_t)(bytes.at[i] ^ (1U << bit));
        }
    }
    assert_int_equal(buf_u8(&bytes, 0), OK);
    assert_int_equal(auth_decode(buf_span(&bytes), &b), ERR_CORRUPT);
    buf_free(&bytes);
    auth_free(a);
}

static void changes_are_read_back_and_have_bounds(void **state) {
    (void)state;
    static const uint8_t big[KEY_MAX + 1];
    struct auth_change full = {.user = span_str("u"),
                               .role = span_str("r"),
                               .password_hash = span_str("h"),
                               .permission = PERMISSION_WRITE,
                               .in = {.key = span_str("k"), .end = span_str("l")},
                               .token_key = span_of(key_a, AUTH_KEY_SIZE)};
    struct buf bytes = buf_new(COMMAND_MAX), again = buf_new(COMMAND_MAX);
    struct auth_change out;
    for (unsigned op = AUTH_ENABLE; op <= AUTH_ROLE_REVOKE; op++) {
        buf_clear(&bytes);
        buf_clear(&again);
        full.op = (enum auth_op)op;
        assert_int_equal(auth_change_encode(&full, &bytes), OK);
        assert_int_equal(auth_change_decode(buf_span(&bytes), &out), OK);
        assert_int_equal(out.op, op);
        assert_int_equal(auth_change_encode(&out, &again), OK);
        assert_true(span_equal(buf_span(&bytes), buf_span(&again)));
        for (size_t size = 0; size < bytes.size; size++)
            assert_int_equal(auth_change_decode(span_of(bytes.at, size), &out), ERR_INVALID);
    }
    assert_true(span_equal(out.in.end, span_str("l"))); /* of AUTH_ROLE_REVOKE */
    struct auth_change c = full;
    c.in.key = span_of(big, sizeof big);
    assert_int_equal(auth_change_encode(&c, &bytes), ERR_INVALID);
    c = full;
    c.role = span_of(big, USER_NAME_MAX + 1);
    assert_int_equal(auth_change_encode(&c, &bytes), ERR_INVALID);
    c = (struct auth_change){.op = AUTH_ENABLE, .token_key = span_of(big, 31)};
    assert_int_equal(auth_change_encode(&c, &bytes), ERR_INVALID);
    c = (struct auth_change){.op = AUTH_USER_ADD, .password_hash = span_of(big, 129)};
    assert_int_equal(auth_change_encode(&c, &bytes), ERR_INVALID);
    c = (struct auth_change){.op = AUTH_ROLE_GRANT};
    assert_int_equal(auth_change_encode(&c, &bytes), ERR_INVALID);
    c = (struct auth_change){.op = (enum auth_op)99};
    assert_int_equal(auth_change_encode(&c, &bytes), ERR_INVALID);
    buf_free(&bytes);
    buf_free(&again);
}

/* --- memory --- */

struct scarce {
    struct auth *before; /* what a copy is taken of */
    struct buf bytes;    /* of it */
    bool whole;          /* the run came to its end */
};

static const struct auth_change last_changes[] = {
    {.op = AUTH_USER_ADD, .user = {(const uint8_t *)"new", 3}},
    {.op = AUTH_ROLE_ADD, .role = {(const uint8_t *)"new", 3}},
    {.op = AUTH_USER_GRANT, .user = {(const uint8_t *)"n", 1}, .role = {(const uint8_t *)"r", 1}},
    {.op = AUTH_ROLE_GRANT,
     .role = {(const uint8_t *)"r", 1},
     .permission = PERMISSION_READ,
     .in = {.key = {(const uint8_t *)"k", 1}}},
    {.op = AUTH_ROLE_DELETE, .role = {(const uint8_t *)"r", 1}},
    {.op = AUTH_USER_DELETE, .user = {(const uint8_t *)"n", 1}},
};

static void run_scarce(void *ctx) {
    struct scarce *s = ctx;
    struct auth *a = NULL, *b = NULL;
    struct buf bytes = buf_new(AUTH_BYTES_MAX + KIB);
    enum err outcome, e = auth_copy(s->before, &a);
    for (unsigned i = 0; e == OK && i < ARRAY_SIZE(last_changes); i++) {
        e = auth_apply(a, &last_changes[i], &outcome);
        if (e == OK && outcome != OK) abort();
    }
    if (e == OK) e = auth_encode(a, &bytes);
    if (e == OK) e = auth_decode(buf_span(&bytes), &b);
    s->whole = e == OK;
    if (e != OK && e != ERR_NOMEM) abort();
    auth_free(a);
    auth_free(b);
    buf_free(&bytes);
}

static void check_scarce(void *ctx, bool fired) {
    struct scarce *s = ctx;
    assert_true(s->whole != fired);
    struct buf now = bytes_of(s->before);
    assert_true(span_equal(buf_span(&now), buf_span(&s->bytes)));
    buf_free(&now);
}

static void without_memory_a_change_fails_and_the_old_state_is_as_it_was(void **state) {
    (void)state;
    struct scarce s = {.before = rich()};
    s.bytes = bytes_of(s.before);
    assert_in_range(fault_sweep_alloc(run_scarce, check_scarce, &s), 15, 100);
    buf_free(&s.bytes);
    auth_free(s.before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enabling_wants_a_root_user_with_the_root_role),
        cmocka_unit_test(each_enabling_but_no_second_one_takes_another_token_key),
        cmocka_unit_test(what_is_not_there_or_there_already_is_told_as_etcd_tells_it),
        cmocka_unit_test(an_interval_that_holds_nothing_is_not_granted),
        cmocka_unit_test(root_is_kept_while_auth_is_enabled),
        cmocka_unit_test(every_change_but_enabling_takes_a_revision_and_nothing_else_does),
        cmocka_unit_test(a_password_is_replaced_but_never_given_to_who_was_made_without),
        cmocka_unit_test(names_and_permissions_are_told_in_order),
        cmocka_unit_test(a_deleted_role_is_lost_by_its_users),
        cmocka_unit_test(without_auth_everybody_may_everything),
        cmocka_unit_test(root_may_everything_and_strangers_nothing),
        cmocka_unit_test(a_single_key_covers_itself_and_no_more),
        cmocka_unit_test(a_request_may_lie_across_permissions_of_several_roles),
        cmocka_unit_test(an_interval_turned_around_needs_what_lies_between),
        cmocka_unit_test(judging_agrees_with_a_plain_model_over_random_permissions),
        cmocka_unit_test(a_copy_stays_as_it_is_when_the_other_changes),
        cmocka_unit_test(there_are_only_so_many_users_and_permissions),
        cmocka_unit_test(all_together_has_only_so_many_bytes),
        cmocka_unit_test(a_state_is_read_back_from_its_bytes),
        cmocka_unit_test(bytes_cut_short_changed_or_with_more_behind_do_no_harm),
        cmocka_unit_test(changes_are_read_back_and_have_bounds),
        cmocka_unit_test(without_memory_a_change_fails_and_the_old_state_is_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
