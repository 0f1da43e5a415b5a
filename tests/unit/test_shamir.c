/* Shares of a key: any k of n give it back, fewer don't, and what is no share of one set is
 * refused with a sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/shamir.h"
#include "tests/lib/fault.h"

#include <stdio.h>

#include <sodium.h>

#define SMALL_MAX 7 /* shares where every choice is tried */

static int start(void **state) {
    (void)state;
    return crypto_start(NULL) == OK ? 0 : -1;
}

/* The shares of `mask`, as a list. */
static unsigned chosen(char (*all)[SHARE_TEXT], unsigned n, unsigned mask, const char **out) {
    unsigned count = 0;
    for (unsigned i = n; i-- > 0;) /* from the last: any order will do */
        if ((mask >> i & 1) != 0) out[count++] = all[i];
    return count;
}

static void any_k_of_n_give_the_key_back_and_fewer_do_not(void **state) {
    (void)state;
    struct secret *key;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    for (unsigned n = 2; n <= SMALL_MAX; n++)
        for (unsigned k = 2; k <= n; k++) {
            char all[SMALL_MAX][SHARE_TEXT];
            const char *some[SMALL_MAX];
            assert_int_equal(shamir_split(key, k, n, all, NULL), OK);
            for (unsigned mask = 0; mask < 1U << n; mask++) {
                struct secret *back = NULL;
                struct why why = {0};
                unsigned count = chosen(all, n, mask, some);
                enum err e = shamir_combine(some, count, &back, &why);
                assert_int_equal(e, count < k ? ERR_PRECONDITION : OK);
                if (e == OK) assert_true(secret_equal(back, key));
                if (e != OK) assert_null(back);
                char words[32];
                (void)snprintf(words, sizeof words, "%u of %u shares", count, k);
                if (e != OK && count > 0) assert_string_equal(why.text, words);
                secret_free(back);
            }
        }
    secret_free(key);
}

static void the_largest_set_works(void **state) {
    (void)state;
    static char all[SHARES_MAX][SHARE_TEXT];
    static const char *some[SHARES_MAX];
    struct secret *key, *back;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_int_equal(shamir_split(key, SHARES_MAX, SHARES_MAX, all, NULL), OK);
    for (unsigned i = 0; i < SHARES_MAX; i++)
        some[i] = all[SHARES_MAX - 1 - i];
    assert_int_equal(shamir_combine(some, SHARES_MAX - 1, &back, NULL), ERR_PRECONDITION);
    assert_int_equal(shamir_combine(some, SHARES_MAX, &back, NULL), OK);
    assert_true(secret_equal(key, back));
    secret_free(back);
    secret_free(key);
}

/* With k - 1 shares known and one more made up, any key at all may come out: that one share more
 * decides, so k - 1 say nothing. Seen here as: shares of the same key split twice have nothing in
 * common, and a y byte of one share takes every value. */
static void one_share_alone_is_random(void **state) {
    (void)state;
    enum { ROUNDS = 2048 };
    struct secret *key;
    static const uint8_t zeros[KEY_SIZE];
    unsigned seen[36] = {0};
    assert_int_equal(secret_new(zeros, KEY_SIZE, &key), OK);
    for (unsigned r = 0; r < ROUNDS; r++) {
        char all[2][SHARE_TEXT];
        assert_int_equal(shamir_split(key, 2, 2, all, NULL), OK);
        /* a digit in the middle of y */
        char c = all[0][50];
        seen[c <= '9' ? c - '0' : c - 'a' + 10]++;
    }
    for (unsigned i = 0; i < 36; i++) /* 57 on average; 5 is nine deviations off */
        assert_true(seen[i] > 5 && seen[i] < 120);
    secret_free(key);
}

static void every_altered_character_is_refused(void **state) {
    (void)state;
    static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzCLSHARE-_ \n\x80";
    char all[2][SHARE_TEXT];
    struct secret *key, *back = NULL;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_int_equal(shamir_split(key, 2, 2, all, NULL), OK);
    size_t size = strlen(all[1]);
    const char *both[] = {all[0], all[1]};
    for (size_t i = 0; i < size; i++)
        for (size_t c = 0; c < sizeof letters; c++) { /* the NUL, too */
            struct why why = {0};
            char was = all[1][i];
            if (letters[c] == was) continue;
            all[1][i] = letters[c];
            assert_int_equal(shamir_combine(both, 2, &back, &why), ERR_INVALID);
            assert_true(why.text[0] != '\0');
            assert_null(back);
            all[1][i] = was;
        }
    assert_int_equal(shamir_combine(both, 2, &back, NULL), OK);
    secret_free(back);
    secret_free(key);
}

static void shares_that_do_not_belong_together_are_refused(void **state) {
    (void)state;
    char one[3][SHARE_TEXT], other[3][SHARE_TEXT];
    struct secret *key, *back = NULL;
    struct why why;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_int_equal(shamir_split(key, 2, 3, one, NULL), OK);
    assert_int_equal(shamir_split(key, 2, 3, other, NULL), OK);
    const char *mixed[] = {one[0], other[1]}, *twice[] = {one[2], one[0], one[2]};
    assert_int_equal(shamir_combine(mixed, 2, &back, &why), ERR_INVALID);
    assert_string_equal(why.text, "share 2 is not of the same set as share 1");
    assert_int_equal(shamir_combine(twice, 3, &back, &why), ERR_INVALID);
    assert_string_equal(why.text, "share 3 is given twice");
    assert_int_equal(shamir_combine(twice, 0, &back, &why), ERR_PRECONDITION);
    assert_null(back);
    secret_free(key);
}

static void a_share_says_its_number_and_how_many_are_needed(void **state) {
    (void)state;
    char all[9][SHARE_TEXT];
    struct secret *key;
    struct why why = {0};
    unsigned k, x;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_int_equal(shamir_split(key, 4, 9, all, NULL), OK);
    for (unsigned i = 0; i < 9; i++) {
        assert_int_equal(shamir_look(all[i], &k, &x, NULL), OK);
        assert_int_equal(k, 4);
        assert_int_equal(x, i + 1);
        assert_int_equal(strncmp(all[i], "CCLSHARE-1-", 11), 0);
        assert_int_equal(strlen(all[i]), 84);
    }
    assert_int_equal(shamir_look("CCLSHARE-1-", &k, &x, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "not a share"));
    all[0][40] = all[0][40] == 'a' ? 'b' : 'a';
    assert_int_equal(shamir_look(all[0], &k, &x, &why), ERR_INVALID);
    assert_string_equal(why.text, "this share is mistyped");
    secret_free(key);
}

static void impossible_numbers_and_keys_are_refused(void **state) {
    (void)state;
    static const unsigned bad[][2] = {{0, 3}, {1, 3}, {4, 3}, {2, 256}, {2, 0}, {2, 1}};
    static char all[SHARES_MAX + 1][SHARE_TEXT];
    struct secret *key, *half;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_int_equal(secret_random(KEY_SIZE / 2, &half), OK);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(shamir_split(key, bad[i][0], bad[i][1], all, NULL), ERR_INVALID);
    assert_int_equal(shamir_split(half, 2, 3, all, NULL), ERR_INVALID);
    assert_int_equal(all[0][0], 0);
    secret_free(key);
    secret_free(half);
}

struct trying {
    struct secret *key;
    enum err e; /* what the scenario got */
};

static void try_all(void *ctx) {
    struct trying *t = ctx;
    char all[5][SHARE_TEXT];
    const char *some[] = {all[4], all[1], all[2]};
    struct secret *back = NULL;
    t->e = shamir_split(t->key, 3, 5, all, NULL);
    if (t->e == OK) t->e = shamir_combine(some, 3, &back, NULL);
    secret_free(back);
}

static void tried(void *ctx, bool fired) {
    assert_int_equal(((struct trying *)ctx)->e, fired ? ERR_NOMEM : OK);
}

static void running_out_of_memory_leaks_nothing(void **state) {
    (void)state;
    struct trying t = {0};
    assert_int_equal(secret_random(KEY_SIZE, &t.key), OK);
    assert_true(fault_sweep_alloc(try_all, tried, &t) >= 6);
    secret_free(t.key);
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(any_k_of_n_give_the_key_back_and_fewer_do_not),
        cmocka_unit_test(the_largest_set_works),
        cmocka_unit_test(one_share_alone_is_random),
        cmocka_unit_test(every_altered_character_is_refused),
        cmocka_unit_test(shares_that_do_not_belong_together_are_refused),
        cmocka_unit_test(a_share_says_its_number_and_how_many_are_needed),
        cmocka_unit_test(impossible_numbers_and_keys_are_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("shamir", cases, start, NULL);
}
