/* Sealed records: both algorithms against another library and known answers, and what tampering
 * does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/gcm.h"
#include "crypto/limits.h"
#include "crypto/seal.h"
#include "tests/lib/fault.h"

#include <stdlib.h>

#include <openssl/evp.h>
#include <sodium.h>

static const enum seal_alg algs[] = {SEAL_XCHACHA20, SEAL_AES256GCM};

static bool openssl_only; /* the second time round */

static int start(void **state) {
    (void)state;
    gcm_force_openssl(openssl_only);
    return crypto_start(NULL) == OK ? 0 : -1;
}

static struct sealer *sealer_with(enum seal_alg alg, const uint8_t key[KEY_SIZE]) {
    struct secret *s;
    struct sealer *sealer;
    assert_int_equal(secret_new(key, KEY_SIZE, &s), OK);
    assert_int_equal(sealer_new(alg, s, &sealer), OK);
    secret_free(s);
    return sealer;
}

static struct sealer *random_sealer(enum seal_alg alg) {
    uint8_t key[KEY_SIZE];
    random_bytes(key, sizeof key);
    return sealer_with(alg, key);
}

static void what_is_sealed_opens_again_at_every_size(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 17, 31, 63, 64, 65, 255, 4096, 4097, 1 << 20};
    for (size_t a = 0; a < 2; a++) {
        struct sealer *s = random_sealer(algs[a]);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t size = sizes[i];
            uint8_t *plain = malloc(size + 1);
            uint8_t *sealed = malloc(size + SEAL_TAG);
            uint8_t *opened = malloc(size + 1);
            random_bytes(plain, size);
            assert_int_equal(seal(s, i, span_str("ad"), span_of(plain, size), sealed), OK);
            assert_int_equal(unseal(s, i, span_str("ad"), span_of(sealed, size + SEAL_TAG), opened),
                             OK);
            assert_true(span_equal(span_of(plain, size), span_of(opened, size)));
            if (size >= 16) assert_memory_not_equal(plain, sealed, size);
            free(plain);
            free(sealed);
            free(opened);
        }
        sealer_free(s);
    }
}

static void sealing_in_place_gives_the_same_bytes(void **state) {
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        struct sealer *s = random_sealer(algs[a]);
        uint8_t plain[1000];
        uint8_t apart[sizeof plain + SEAL_TAG];
        uint8_t inside[sizeof plain + SEAL_TAG];
        random_bytes(plain, sizeof plain);
        memcpy(inside, plain, sizeof plain);
        struct span ad = span_str("place");
        assert_int_equal(seal(s, 5, ad, span_of(plain, sizeof plain), apart), OK);
        assert_int_equal(seal(s, 5, ad, span_of(inside, sizeof plain), inside), OK);
        assert_memory_equal(apart, inside, sizeof apart);
        assert_int_equal(unseal(s, 5, ad, span_of(inside, sizeof inside), inside), OK);
        assert_memory_equal(plain, inside, sizeof plain);
        sealer_free(s);
    }
}

/* Pieces that lie elsewhere, one that lies at its place already, and none. */
static void pieces_give_the_same_bytes_as_the_whole(void **state) {
    (void)state;
    enum { SIZE = 20000 };
    static const size_t ends[] = {13, 13, 13 + 4096, 9000, SIZE};
    static uint8_t plain[SIZE], whole[SIZE + SEAL_TAG], out[SIZE + SEAL_TAG];
    random_bytes(plain, sizeof plain);
    for (size_t a = 0; a < ARRAY_SIZE(algs); a++) {
        struct sealer *s = random_sealer(algs[a]);
        struct sealing g;
        size_t at = 0;
        assert_int_equal(seal(s, 7, span_str("ad"), span_of(plain, SIZE), whole), OK);
        memcpy(out, plain, 13);
        assert_int_equal(seal_begin(&g, s, 7, span_str("ad"), out), OK);
        for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
            const uint8_t *from = i == 0 ? out : plain + at;
            assert_int_equal(seal_add(&g, span_of(from, ends[i] - at)), OK);
            at = ends[i];
        }
        assert_int_equal(seal_end(&g), OK);
        assert_memory_equal(out, whole, sizeof whole);
        assert_int_equal(seal(s, 8, span_of(NULL, 0), span_of(plain, 100), whole), OK);
        assert_int_equal(seal_begin(&g, s, 8, span_of(NULL, 0), out), OK); /* begun, left, anew */
        assert_int_equal(seal_begin(&g, s, 8, span_of(NULL, 0), out), OK);
        assert_int_equal(seal_add(&g, span_of(plain, 100)), OK);
        assert_int_equal(seal_end(&g), OK);
        assert_memory_equal(out, whole, 100 + SEAL_TAG);
        sealer_free(s);
    }
}

static void every_flipped_bit_is_refused(void **state) {
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        struct sealer *s = random_sealer(algs[a]);
        uint8_t plain[37];
        uint8_t sealed[sizeof plain + SEAL_TAG];
        uint8_t opened[sizeof plain];
        uint8_t ad[9];
        random_bytes(plain, sizeof plain);
        random_bytes(ad, sizeof ad);
        struct span bound = span_of(ad, sizeof ad);
        assert_int_equal(seal(s, 77, bound, span_of(plain, sizeof plain), sealed), OK);
        struct span record = span_of(sealed, sizeof sealed);
        for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
            sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(unseal(s, 77, bound, record, opened), ERR_CORRUPT);
            sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (size_t bit = 0; bit < 8 * sizeof ad; bit++) {
            ad[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(unseal(s, 77, bound, record, opened), ERR_CORRUPT);
            ad[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (unsigned bit = 0; bit < 64; bit++)
            assert_int_equal(unseal(s, 77 ^ 1ULL << bit, bound, record, opened), ERR_CORRUPT);
        assert_int_equal(unseal(s, 77, bound, record, opened), OK);
        sealer_free(s);
    }
}

static void a_shortened_or_lengthened_record_is_refused(void **state) {
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        struct sealer *s = random_sealer(algs[a]);
        uint8_t sealed[20 + SEAL_TAG + 1] = {0};
        uint8_t opened[21];
        struct span none = span_of(NULL, 0);
        assert_int_equal(seal(s, 0, none, span_of(opened, 0), sealed), OK);
        memset(opened, 3, sizeof opened);
        assert_int_equal(seal(s, 1, none, span_of(opened, 20), sealed), OK);
        for (size_t size = 0; size <= sizeof sealed; size++)
            assert_int_equal(unseal(s, 1, none, span_of(sealed, size), opened),
                             size == 20 + SEAL_TAG ? OK : ERR_CORRUPT);
        sealer_free(s);
    }
}

static void another_key_or_algorithm_opens_nothing(void **state) {
    (void)state;
    uint8_t key[KEY_SIZE];
    uint8_t sealed[5 + SEAL_TAG];
    uint8_t opened[5];
    random_bytes(key, sizeof key);
    for (size_t a = 0; a < 2; a++) {
        struct sealer *s = sealer_with(algs[a], key);
        struct sealer *other_alg = sealer_with(algs[1 - a], key);
        assert_int_equal(seal(s, 1, span_str(""), span_str("hello"), sealed), OK);
        key[31] ^= 1;
        struct sealer *other_key = sealer_with(algs[a], key);
        key[31] ^= 1;
        struct span record = span_of(sealed, sizeof sealed);
        assert_int_equal(unseal(other_key, 1, span_str(""), record, opened), ERR_CORRUPT);
        assert_int_equal(unseal(other_alg, 1, span_str(""), record, opened), ERR_CORRUPT);
        assert_int_equal(unseal(s, 1, span_str(""), record, opened), OK);
        sealer_free(other_key);
        sealer_free(other_alg);
        sealer_free(s);
    }
}

/* NIST GCM test cases 13 and 14: a key and a nonce of zeros. */
static void aes_gives_the_known_answers(void **state) {
    (void)state;
    static const uint8_t zeros[KEY_SIZE];
    static const uint8_t empty[SEAL_TAG] = {0x53, 0x0f, 0x8a, 0xfb, 0xc7, 0x45, 0x36, 0xb9,
                                            0xa9, 0x63, 0xb4, 0xf1, 0xc4, 0xcb, 0x73, 0x8b};
    static const uint8_t block[32] = {0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e,
                                      0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18,
                                      0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0,
                                      0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19};
    uint8_t out[32];
    struct sealer *s = sealer_with(SEAL_AES256GCM, zeros);
    assert_int_equal(seal(s, 0, span_of(NULL, 0), span_of(NULL, 0), out), OK);
    assert_memory_equal(out, empty, sizeof empty);
    assert_int_equal(seal(s, 0, span_of(NULL, 0), span_of(zeros, 16), out), OK);
    assert_memory_equal(out, block, sizeof block);
    sealer_free(s);
}

static void aes_agrees_with_libsodium(void **state) {
    (void)state;
    if (crypto_aead_aes256gcm_is_available() == 0) return; /* the known answers still stand */
    uint8_t key[KEY_SIZE];
    uint8_t nonce[12] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    uint8_t plain[777];
    uint8_t ours[sizeof plain + SEAL_TAG];
    uint8_t theirs[sizeof plain + SEAL_TAG];
    random_bytes(key, sizeof key);
    random_bytes(plain, sizeof plain);
    struct sealer *s = sealer_with(SEAL_AES256GCM, key);
    assert_int_equal(
        seal(s, 0x1122334455667788, span_str("ad"), span_of(plain, sizeof plain), ours), OK);
    assert_int_equal(crypto_aead_aes256gcm_encrypt(theirs, NULL, plain, sizeof plain,
                                                   (const uint8_t *)"ad", 2, NULL, nonce, key),
                     0);
    assert_memory_equal(ours, theirs, sizeof ours);
    sealer_free(s);
}

/* XChaCha20-Poly1305 is ChaCha20-Poly1305 (RFC 8439) under a key from HChaCha20 of the first 16
 * bytes of the nonce; OpenSSL has the former. */
static void xchacha_agrees_with_openssl(void **state) {
    (void)state;
    uint8_t key[KEY_SIZE];
    uint8_t inner[KEY_SIZE];
    uint8_t nonce[24] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    uint8_t rest[12] = {0};
    uint8_t plain[777];
    uint8_t ours[sizeof plain + SEAL_TAG];
    uint8_t theirs[sizeof plain + SEAL_TAG];
    int done;
    random_bytes(key, sizeof key);
    random_bytes(plain, sizeof plain);
    struct sealer *s = sealer_with(SEAL_XCHACHA20, key);
    assert_int_equal(
        seal(s, 0x1122334455667788, span_str("ad"), span_of(plain, sizeof plain), ours), OK);
    assert_int_equal(crypto_core_hchacha20(inner, nonce, key, NULL), 0);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex2(c, EVP_chacha20_poly1305(), inner, rest, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(c, NULL, &done, (const uint8_t *)"ad", 2), 1);
    assert_int_equal(EVP_EncryptUpdate(c, theirs, &done, plain, sizeof plain), 1);
    assert_int_equal(EVP_EncryptFinal_ex(c, theirs + done, &done), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG, theirs + sizeof plain),
                     1);
    EVP_CIPHER_CTX_free(c);
    assert_memory_equal(ours, theirs, sizeof ours);
    sealer_free(s);
}

static void the_null_cipher_exists_only_when_allowed(void **state) {
    (void)state;
    struct secret *key;
    struct sealer *s = NULL;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_false(seal_known(SEAL_NULL));
    assert_int_equal(sealer_new(SEAL_NULL, key, &s), ERR_UNSUPPORTED);
    seal_allow_null(true);
    assert_true(seal_known(SEAL_NULL));
    assert_int_equal(sealer_new(SEAL_NULL, key, &s), OK);
    uint8_t sealed[5 + SEAL_TAG];
    uint8_t opened[5];
    assert_int_equal(seal(s, 1, span_str(""), span_str("hello"), sealed), OK);
    assert_memory_equal(sealed, "hello", 5);
    assert_int_equal(unseal(s, 1, span_str(""), span_of(sealed, sizeof sealed), opened), OK);
    assert_memory_equal(opened, "hello", 5);
    sealed[20] = 1;
    assert_int_equal(unseal(s, 1, span_str(""), span_of(sealed, sizeof sealed), opened),
                     ERR_CORRUPT);
    seal_allow_null(false);
    assert_false(seal_known(SEAL_NULL));
    sealer_free(s);
    secret_free(key);
}

static void only_known_algorithms_and_whole_keys_make_a_sealer(void **state) {
    (void)state;
    struct secret *key;
    struct secret *half;
    struct sealer *s = NULL;
    assert_int_equal(secret_random(KEY_SIZE, &key), OK);
    assert_int_equal(secret_random(KEY_SIZE / 2, &half), OK);
    for (unsigned alg = 0; alg < 256; alg++)
        assert_int_equal(seal_known((uint8_t)alg), alg == SEAL_XCHACHA20 || alg == SEAL_AES256GCM);
    assert_int_equal(sealer_new((enum seal_alg)3, key, &s), ERR_UNSUPPORTED);
    assert_int_equal(sealer_new((enum seal_alg)257, key, &s), ERR_UNSUPPORTED);
    assert_int_equal(sealer_new(SEAL_XCHACHA20, half, &s), ERR_INVALID);
    assert_int_equal(sealer_new(SEAL_AES256GCM, half, &s), ERR_INVALID);
    assert_null(s);
    secret_free(key);
    secret_free(half);
}

static void the_fastest_is_one_of_the_two_and_stays(void **state) {
    (void)state;
    enum seal_alg first = seal_fastest();
    assert_true(first == SEAL_XCHACHA20 || first == SEAL_AES256GCM);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seal_fastest(), first);
}

struct making {
    enum seal_alg alg;   /* which to make */
    struct secret *key;  /* of 32 bytes */
    struct sealer *made; /* by the scenario, or NULL */
    enum err e;          /* what it got */
};

static void make(void *ctx) {
    struct making *m = ctx;
    m->made = NULL;
    m->e = sealer_new(m->alg, m->key, &m->made);
}

static void made_or_not(void *ctx, bool fired) {
    struct making *m = ctx;
    assert_int_equal(m->e, fired ? ERR_NOMEM : OK);
    assert_true(fired == (m->made == NULL));
    sealer_free(m->made);
}

static void running_out_of_memory_leaks_nothing(void **state) {
    (void)state;
    struct making m = {0};
    assert_int_equal(secret_random(KEY_SIZE, &m.key), OK);
    for (size_t a = 0; a < 2; a++) {
        m.alg = algs[a];
        assert_true(fault_sweep_alloc(make, made_or_not, &m) >= 1);
    }
    secret_free(m.key);
}

/* One of the two implementations of AES-GCM seals, the other opens; pieces of odd sizes. */
static void what_one_library_seals_the_other_opens(void **state) {
    (void)state;
    static const size_t pieces[] = {0, 1, 15, 17, 64, 333, 4096, 70001};
    uint8_t key[KEY_SIZE], plain[80000], sealed[80000 + SEAL_TAG], opened[80000];
    random_bytes(key, sizeof key);
    random_bytes(plain, sizeof plain);
    for (int openssl_first = 0; openssl_first < 2; openssl_first++) {
        struct sealer *s[2];
        struct sealing g;
        size_t at = 0;
        for (int i = 0; i < 2; i++) {
            gcm_force_openssl(i != openssl_first);
            s[i] = sealer_with(SEAL_AES256GCM, key);
        }
        assert_int_equal(seal_begin(&g, s[0], 7, span_str("ad of odd size"), sealed), OK);
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; at += pieces[i++])
            assert_int_equal(seal_add(&g, span_of(plain + at, pieces[i])), OK);
        assert_int_equal(seal_end(&g), OK);
        struct span whole = span_of(sealed, at + SEAL_TAG);
        assert_int_equal(unseal(s[1], 7, span_str("ad of odd size"), whole, opened), OK);
        assert_memory_equal(opened, plain, at);
        sealed[at + SEAL_TAG - 1] ^= 1;
        assert_int_equal(unseal(s[1], 7, span_str("ad of odd size"), whole, opened), ERR_CORRUPT);
        sealer_free(s[0]);
        sealer_free(s[1]);
    }
    gcm_force_openssl(openssl_only);
}

/* A record may be opened while another one is being sealed under the same key. */
static void opening_does_not_disturb_a_sealing(void **state) {
    (void)state;
    struct sealer *s = random_sealer(SEAL_AES256GCM);
    struct sealing g;
    uint8_t other[32 + SEAL_TAG], sealed[64 + SEAL_TAG], plain[64] = {0}, opened[64];
    assert_int_equal(seal(s, 1, span_of(NULL, 0), span_of(plain, 32), other), OK);
    assert_int_equal(seal_begin(&g, s, 2, span_of(NULL, 0), sealed), OK);
    assert_int_equal(seal_add(&g, span_of(plain, 32)), OK);
    assert_int_equal(unseal(s, 1, span_of(NULL, 0), span_of(other, sizeof other), opened), OK);
    assert_int_equal(seal_add(&g, span_of(plain + 32, 32)), OK);
    assert_int_equal(seal_end(&g), OK);
    assert_int_equal(unseal(s, 2, span_of(NULL, 0), span_of(sealed, sizeof sealed), opened), OK);
    assert_memory_equal(opened, plain, sizeof plain);
    sealer_free(s);
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(what_is_sealed_opens_again_at_every_size),
        cmocka_unit_test(sealing_in_place_gives_the_same_bytes),
        cmocka_unit_test(pieces_give_the_same_bytes_as_the_whole),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(a_shortened_or_lengthened_record_is_refused),
        cmocka_unit_test(another_key_or_algorithm_opens_nothing),
        cmocka_unit_test(what_one_library_seals_the_other_opens),
        cmocka_unit_test(opening_does_not_disturb_a_sealing),
        cmocka_unit_test(aes_gives_the_known_answers),
        cmocka_unit_test(aes_agrees_with_libsodium),
        cmocka_unit_test(xchacha_agrees_with_openssl),
        cmocka_unit_test(the_null_cipher_exists_only_when_allowed),
        cmocka_unit_test(only_known_algorithms_and_whole_keys_make_a_sealer),
        cmocka_unit_test(the_fastest_is_one_of_the_two_and_stays),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    int failed = cmocka_run_group_tests_name("seal", cases, start, NULL);
    openssl_only = true;
    return failed + cmocka_run_group_tests_name("seal, with OpenSSL alone", cases, start, NULL);
}
