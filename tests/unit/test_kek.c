/* The text of unlock keys, and the file that keeps a plain key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/kek.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/fault.h"

#include <sodium.h>

static int start(void **state) {
    (void)state;
    return crypto_start(NULL) == OK ? 0 : -1;
}

static void unlock_keys_have_a_text_that_reads_back(void **state) {
    (void)state;
    char text[UNLOCK_KEY_TEXT];
    struct secret *back;
    for (int i = 0; i < 100; i++) {
        struct secret *key;
        assert_int_equal(secret_random(KEY_SIZE, &key), OK);
        assert_int_equal(unlock_key_format(key, text), OK);
        assert_int_equal(strlen(text), UNLOCK_KEY_TEXT - 1);
        assert_int_equal(strncmp(text, "SWMKEY-1-", 9), 0);
        assert_int_equal(unlock_key_parse(text, &back, NULL), OK);
        assert_true(secret_equal(key, back));
        secret_free(key);
        secret_free(back);
    }
    static const uint8_t bytes[KEY_SIZE] = {0xfb, 0xff, 0xbf};
    assert_int_equal(secret_new(bytes, KEY_SIZE, &back), OK);
    assert_int_equal(unlock_key_format(back, text), OK);
    assert_string_equal(text, "SWMKEY-1-+/+/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    secret_free(back);
}

static void other_texts_are_no_unlock_keys(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "SWMKEY-1-",
        "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",   /* 42 */
        "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", /* 44 */
        "SWMKEY-2-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",  /* another version */
        "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",  /* bits past the 256th */
        "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAA",  /* another alphabet */
        "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAA AAAAAAAAAAAAAAAAAAAAA",  /* a space */
        "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",  /* padding */
        "swmkey-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct secret *key = NULL;
        struct why why = {0};
        assert_int_equal(unlock_key_parse(bad[i], &key, &why), ERR_INVALID);
        assert_true(why.text[0] != '\0');
        assert_null(key);
    }
}

static void a_kek_file_keeps_one_key_or_two_until_it_is_removed(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct secret *keys[2];
    struct kek_file file;
    for (int i = 0; i < 2; i++)
        assert_int_equal(secret_random(KEY_SIZE, &keys[i]), OK);
    for (int count = 1; count <= 2; count++) {
        assert_int_equal(kek_file_write(d, keys[0], count == 2 ? keys[1] : NULL, NULL), OK);
        assert_int_equal(kek_file_read(d, &file, NULL), OK);
        assert_true(secret_equal(file.keys[0], keys[0]));
        assert_true(count == 2 ? secret_equal(file.keys[1], keys[1]) : file.keys[1] == NULL);
        kek_file_free(&file);
    }
    assert_int_equal(kek_file_remove(d, NULL), OK);
    disk_sim_crash(d);
    assert_int_equal(disk_sim_size(d, "kek"), DISK_SIM_NEVER);
    assert_int_equal(kek_file_remove(d, NULL), OK);
    for (int i = 0; i < 2; i++)
        secret_free(keys[i]);
    disk_sim_free(d);
}

static void a_kek_file_that_can_not_be_removed_is_zeroed_at_least(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct fault_disk *f = fault_disk_new(d);
    struct secret *key;
    struct why why = {0};
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_int_equal(kek_file_write(d, key, NULL, NULL), OK);
    assert_true(disk_sim_contains(d, secret_span(key)));
    fault_disk_at(f, FAULT_REMOVE, 1, FAULT_ONCE, ERR_IO);
    assert_int_equal(kek_file_remove(fault_disk(f), &why), ERR_IO);
    disk_sim_crash(d);
    assert_int_not_equal(disk_sim_size(d, "kek"), DISK_SIM_NEVER);
    assert_false(disk_sim_contains(d, secret_span(key)));
    secret_free(key);
    fault_disk_free(f);
    disk_sim_free(d);
}

static void a_passphrase_is_stretched_by_argon2id(void **state) {
    (void)state;
    struct kek_params params = {.kind = KEK_PASSPHRASE, .cost = {.passes = 2, .memory_kib = 64}};
    struct secret *passphrase;
    struct secret *got;
    uint8_t expected[KEY_SIZE];
    random_bytes(params.salt, sizeof params.salt);
    assert_int_equal(secret_new("correct horse", 13, &passphrase), OK);
    struct kek kek = {.kind = KEK_PASSPHRASE, .key = passphrase};
    assert_int_equal(kek_derive(kek, &params, &got, NULL), OK);
    assert_int_equal(crypto_pwhash_argon2id(expected, KEY_SIZE, "correct horse", 13, params.salt, 2,
                                            64 * 1024, crypto_pwhash_argon2id_ALG_ARGON2ID13),
                     0);
    assert_true(span_equal(secret_span(got), span_of(expected, KEY_SIZE)));
    secret_free(got);
    secret_free(passphrase);
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(unlock_keys_have_a_text_that_reads_back),
        cmocka_unit_test(other_texts_are_no_unlock_keys),
        cmocka_unit_test(a_kek_file_keeps_one_key_or_two_until_it_is_removed),
        cmocka_unit_test(a_kek_file_that_can_not_be_removed_is_zeroed_at_least),
        cmocka_unit_test(a_passphrase_is_stretched_by_argon2id),
    };
    return cmocka_run_group_tests_name("kek", cases, start, NULL);
}
