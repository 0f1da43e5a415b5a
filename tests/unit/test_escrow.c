/* Escrow files: what was sealed comes back under its passphrase alone; each byte counts, each
 * length; a damaged file is told from a wrong passphrase. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>

#include "api/node/identity.h"
#include "api/secret/escrow.h"

static const struct kek_cost cheap = {.passes = 1, .memory_kib = 8};

struct fixture {
    struct buf keys, file;
    struct secret *phrase, *other;
};

static int set_up(void **state) {
    static struct fixture f;
    struct node_identity id;
    uint8_t key[KEY_SIZE];
    f = (struct fixture){.keys = buf_new(VAULT_KEYS_SIZE), .file = buf_new(ESCROW_MAX)};
    assert_int_equal(crypto_start(NULL), OK);
    identity_init(&id);
    for (uint32_t epoch = 3; epoch < 6; epoch++) {
        random_bytes(key, sizeof key);
        assert_int_equal(vault_key_put(&id, epoch, span_of(key, sizeof key)), OK);
    }
    assert_int_equal(vault_keys_encode(&id, &f.keys), OK);
    assert_int_equal(secret_new("apart", 5, &f.phrase), OK);
    assert_int_equal(secret_new("Apart", 5, &f.other), OK);
    assert_int_equal(escrow_seal(buf_span(&f.keys), f.phrase, cheap, &f.file, NULL), OK);
    identity_clear(&id);
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    buf_wipe(&f->keys);
    buf_free(&f->file);
    secret_free(f->phrase);
    secret_free(f->other);
    return 0;
}

static void refuse(struct span file, const struct secret *phrase, enum err want) {
    struct secret *keys = NULL;
    struct why why = {0};
    assert_int_equal(escrow_open(file, phrase, &keys, &why), want);
    assert_null(keys);
    assert_true(why.text[0] != 0);
}

static void the_passphrase_alone_opens_it(void **state) {
    struct fixture *f = *state;
    struct secret *keys;
    assert_int_equal(escrow_open(buf_span(&f->file), f->phrase, &keys, NULL), OK);
    assert_true(span_equal(secret_span(keys), buf_span(&f->keys)));
    secret_free(keys);
    refuse(buf_span(&f->file), f->other, ERR_WRONG_KEY);
    for (size_t i = 8; i < f->keys.size; i += 36) /* no key shows */
        assert_null(memmem(f->file.at, f->file.size, f->keys.at + i, KEY_SIZE));
}

static void a_flipped_bit_is_damage_wherever_it_is(void **state) {
    struct fixture *f = *state;
    for (size_t bit = 0; bit < 8 * f->file.size; bit++) {
        f->file.at[bit / 8] ^= (uint8_t)(1U << bit % 8);
        refuse(buf_span(&f->file), f->phrase, ERR_CORRUPT);
        f->file.at[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}

static void cut_off_or_longer_it_is_damaged(void **state) {
    struct fixture *f = *state;
    for (size_t size = 0; size < f->file.size; size++)
        refuse(span_of(f->file.at, size), f->phrase, ERR_CORRUPT);
    assert_int_equal(buf_u8(&f->file, 0), OK);
    refuse(buf_span(&f->file), f->phrase, ERR_CORRUPT);
}

/* With a sum that fits, as somebody may make it: what it asks for is bounded all the same. */
static void a_head_out_of_bounds_is_refused_before_it_costs(void **state) {
    struct fixture *f = *state;
    static const struct {
        size_t at;
        uint32_t value;
        enum err want;
    } heads[] = {{12, 0, ERR_CORRUPT},       {12, KEK_COST_PASSES_MAX + 1, ERR_CORRUPT},
                 {16, 7, ERR_CORRUPT},       {16, KEK_COST_MEMORY_MAX + 1, ERR_CORRUPT},
                 {60, 0, ERR_CORRUPT},       {60, UINT32_MAX, ERR_CORRUPT},
                 {8, 2, ERR_UNSUPPORTED},    {8, 0x101, ERR_CORRUPT},
                 {36, 12345, ERR_WRONG_KEY}, {20, 12345, ERR_WRONG_KEY}};
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
        uint32_t before = get_u32(f->file.at + heads[i].at);
        size_t summed = f->file.size - 16;
        put_u32(f->file.at + heads[i].at, heads[i].value);
        (void)crypto_generichash(f->file.at + summed, 16, f->file.at, summed, NULL, 0);
        refuse(buf_span(&f->file), f->phrase, heads[i].want);
        put_u32(f->file.at + heads[i].at, before);
    }
}

static void what_is_sealed_has_bounds(void **state) {
    struct fixture *f = *state;
    uint8_t large[VAULT_KEYS_SIZE + 1] = {0};
    buf_clear(&f->file);
    assert_int_equal(escrow_seal(span_of(NULL, 0), f->phrase, cheap, &f->file, NULL), ERR_INVALID);
    assert_int_equal(escrow_seal(span_of(large, sizeof large), f->phrase, cheap, &f->file, NULL),
                     ERR_INVALID);
    assert_int_equal(escrow_seal(span_of(large, 7), f->phrase, cheap, &f->file, NULL), OK);
    refuse(buf_span(&f->file), f->phrase, ERR_CORRUPT); /* it opens, and has no keys in it */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(the_passphrase_alone_opens_it),
        CASE(a_flipped_bit_is_damage_wherever_it_is),
        CASE(cut_off_or_longer_it_is_damaged),
        CASE(a_head_out_of_bounds_is_refused_before_it_costs),
        CASE(what_is_sealed_has_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
