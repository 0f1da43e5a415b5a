/* The keyring: what it keeps, what opens it, what damage and crashes do to it. Most cases run on
 * the simulated disk, which after a crash keeps of un-synced changes what it likes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/kek.h"
#include "crypto/keyring.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/fault.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#define CHEAP ((struct kek_cost){.passes = 1, .memory_kib = 8})
#define SEEDS 12 /* of a crash at every place */

/* Keys of every kind; made once. */
struct keys {
    struct secret *unlock[2];     /* 32 bytes */
    struct secret *passphrase[2]; /* text */
};
static struct keys keys;

static int start(void **state) {
    (void)state;
    if (crypto_start(NULL) != OK) return -1;
    if (secret_random(KEY_SIZE, &keys.unlock[0]) != OK) return -1;
    if (secret_random(KEY_SIZE, &keys.unlock[1]) != OK) return -1;
    if (secret_new("correct horse", 13, &keys.passphrase[0]) != OK) return -1;
    return secret_new("battery staple", 14, &keys.passphrase[1]) == OK ? 0 : -1;
}

static int finish(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        secret_free(keys.unlock[i]);
        secret_free(keys.passphrase[i]);
    }
    return 0;
}

/* KEK number `i` (0 or 1) of a kind. */
static struct kek kek_of(enum kek_kind kind, int i) {
    if (kind == KEK_PLAIN) return (struct kek){.kind = KEK_PLAIN};
    return (struct kek){.kind = kind,
                        .key = kind == KEK_PASSPHRASE ? keys.passphrase[i] : keys.unlock[i]};
}

static struct disk *sim(void **state) { return *state; }
static int enter(void **state) {
    *state = disk_sim_new(1);
    return 0;
}
static int leave(void **state) {
    disk_sim_free(*state);
    return 0;
}

static struct keyring *must_create(struct disk *d, struct kek kek) {
    struct keyring *k = NULL;
    struct why why = {0};
    if (keyring_create_at(d, kek, CHEAP, &k, &why) != OK) fail_msg("%s", why.text);
    return k;
}

static struct keyring *must_open(struct disk *d, struct kek kek) {
    struct keyring *k = NULL;
    struct why why = {0};
    if (keyring_open(d, kek, &k, &why) != OK) fail_msg("%s", why.text);
    return k;
}

static void must(enum err e, const struct why *why) {
    if (e != OK) fail_msg("%s: %s", err_name(e), why->text);
}

static void a_new_keyring_has_generation_1_and_opens_the_same(void **state) {
    for (int kind = KEK_PLAIN; kind <= KEK_FILE; kind++) {
        struct disk *d = disk_sim_new(7);
        struct keyring *k = must_create(d, kek_of((enum kek_kind)kind, 0));
        struct secret *dek;
        enum kek_kind seen;
        assert_int_equal(keyring_generation(k), 1);
        assert_null(keyring_identity(k));
        assert_null(keyring_dek(k, 0));
        assert_null(keyring_dek(k, 2));
        assert_int_equal(secret_copy(keyring_dek(k, 1), &dek), OK);
        keyring_close(k);
        assert_int_equal(keyring_kind(d, &seen, NULL), OK);
        assert_int_equal(seen, kind);
        k = must_open(d, kek_of((enum kek_kind)kind, 0));
        assert_true(secret_equal(keyring_dek(k, 1), dek));
        assert_int_equal(keyring_generation(k), 1);
        keyring_close(k);
        secret_free(dek);
        disk_sim_free(d);
    }
    (void)state;
}

static void no_keyring_and_a_second_keyring_are_told(void **state) {
    struct keyring *k;
    enum kek_kind kind;
    struct why why = {0};
    assert_int_equal(keyring_open(sim(state), kek_of(KEK_PLAIN, 0), &k, &why), ERR_NOT_FOUND);
    assert_non_null(strstr(why.text, "keyring"));
    assert_int_equal(keyring_kind(sim(state), &kind, &why), ERR_NOT_FOUND);
    keyring_close(must_create(sim(state), kek_of(KEK_PLAIN, 0)));
    assert_int_equal(keyring_create(sim(state), kek_of(KEK_PLAIN, 0), &k, &why), ERR_EXISTS);
    assert_string_equal(why.text, "keyring: there is one already");
    keyring_close(must_open(sim(state), kek_of(KEK_PLAIN, 0)));
}

static void rotation_adds_generations_and_destruction_takes_the_oldest(void **state) {
    struct kek kek = kek_of(KEK_UNLOCK_KEY, 0);
    struct keyring *k = must_create(sim(state), kek);
    struct secret *third;
    for (int i = 0; i < 4; i++)
        assert_int_equal(keyring_rotate(k, NULL), OK);
    assert_int_equal(keyring_generation(k), 5);
    assert_int_equal(secret_copy(keyring_dek(k, 3), &third), OK);
    for (uint32_t i = 1; i < 5; i++)
        assert_false(secret_equal(keyring_dek(k, i), keyring_dek(k, i + 1)));
    assert_int_equal(keyring_destroy_before(k, 1, NULL), OK);
    assert_int_equal(keyring_destroy_before(k, 3, NULL), OK);
    assert_int_equal(keyring_destroy_before(k, 3, NULL), OK);
    assert_int_equal(keyring_destroy_before(k, 6, NULL), ERR_INVALID);
    keyring_close(k);
    k = must_open(sim(state), kek);
    assert_null(keyring_dek(k, 1));
    assert_null(keyring_dek(k, 2));
    assert_true(secret_equal(keyring_dek(k, 3), third));
    assert_int_equal(keyring_generation(k), 5);
    assert_int_equal(keyring_destroy_before(k, 5, NULL), OK);
    assert_null(keyring_dek(k, 4));
    assert_non_null(keyring_dek(k, 5));
    keyring_close(k);
    secret_free(third);
}

static void generations_have_a_bound(void **state) {
    struct keyring *k = must_create(sim(state), kek_of(KEK_UNLOCK_KEY, 0));
    for (int i = 1; i < DEK_GENERATIONS_MAX; i++)
        assert_int_equal(keyring_rotate(k, NULL), OK);
    struct why why = {0};
    assert_int_equal(keyring_rotate(k, &why), ERR_TOO_LARGE);
    assert_string_equal(why.text, "keyring: it holds 64 generations already");
    assert_int_equal(keyring_destroy_before(k, 2, NULL), OK);
    assert_int_equal(keyring_rotate(k, NULL), OK);
    keyring_close(k);
    k = must_open(sim(state), kek_of(KEK_UNLOCK_KEY, 0));
    assert_int_equal(keyring_generation(k), DEK_GENERATIONS_MAX + 1);
    keyring_close(k);
}

static void the_identity_is_kept_up_to_its_bound(void **state) {
    static uint8_t bytes[KEYRING_MAX / 2 + 1];
    struct keyring *k = must_create(sim(state), kek_of(KEK_PLAIN, 0));
    struct secret *first;
    struct secret *largest;
    struct secret *past;
    random_bytes(bytes, sizeof bytes);
    assert_int_equal(secret_new("a name", 6, &first), OK);
    assert_int_equal(secret_new(bytes, sizeof bytes - 1, &largest), OK);
    assert_int_equal(secret_new(bytes, sizeof bytes, &past), OK);
    assert_int_equal(keyring_set_identity(k, first, NULL), OK);
    assert_true(secret_equal(keyring_identity(k), first));
    assert_int_equal(keyring_set_identity(k, largest, NULL), OK);
    assert_int_equal(keyring_set_identity(k, past, NULL), ERR_TOO_LARGE);
    assert_true(secret_equal(keyring_identity(k), largest));
    keyring_close(k);
    k = must_open(sim(state), kek_of(KEK_PLAIN, 0));
    assert_true(secret_equal(keyring_identity(k), largest));
    keyring_close(k);
    secret_free(first);
    secret_free(largest);
    secret_free(past);
}

static void a_key_of_another_kind_is_told_as_locked(void **state) {
    (void)state;
    static const char *const words[] = {"no key is needed", "an unlock key is needed",
                                        "a passphrase is needed", "a key file is needed"};
    for (int has = KEK_PLAIN; has <= KEK_FILE; has++) {
        struct disk *d = disk_sim_new(1);
        keyring_close(must_create(d, kek_of((enum kek_kind)has, 0)));
        for (int given = KEK_PLAIN; given <= KEK_FILE; given++) {
            struct keyring *k;
            struct why why = {0};
            enum err e = keyring_open(d, kek_of((enum kek_kind)given, 0), &k, &why);
            assert_int_equal(e, has == given ? OK : ERR_LOCKED);
            if (e == OK)
                keyring_close(k);
            else
                assert_non_null(strstr(why.text, words[has]));
        }
        disk_sim_free(d);
    }
}

static void the_wrong_key_is_told_as_such(void **state) {
    (void)state;
    for (int kind = KEK_UNLOCK_KEY; kind <= KEK_FILE; kind++) {
        struct disk *d = disk_sim_new(1);
        struct keyring *k;
        struct why why = {0};
        keyring_close(must_create(d, kek_of((enum kek_kind)kind, 0)));
        assert_int_equal(keyring_open(d, kek_of((enum kek_kind)kind, 1), &k, &why), ERR_WRONG_KEY);
        assert_non_null(strstr(why.text, "keyring: wrong key"));
        keyring_close(must_open(d, kek_of((enum kek_kind)kind, 0)));
        disk_sim_free(d);
    }
}

static void keys_that_can_not_be_keys_are_refused(void **state) {
    struct secret *half;
    struct secret *endless;
    static char text[PASSPHRASE_MAX + 1];
    struct keyring *k;
    struct why why = {0};
    assert_int_equal(secret_random(KEY_SIZE / 2, &half), OK);
    assert_int_equal(secret_new(text, sizeof text, &endless), OK);
    struct kek bad[] = {{.kind = KEK_UNLOCK_KEY, .key = half},
                        {.kind = KEK_FILE, .key = half},
                        {.kind = KEK_UNLOCK_KEY, .key = NULL},
                        {.kind = KEK_PASSPHRASE, .key = endless}};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(keyring_create_at(sim(state), bad[i], CHEAP, &k, &why), ERR_INVALID);
        assert_true(why.text[0] != '\0');
    }
    assert_int_equal(disk_sim_size(sim(state), "keyring"), DISK_SIM_NEVER);
    secret_free(half);
    secret_free(endless);
}

/* With every byte of both files flipped in turn, in every bit, nothing opens and the file is named.
 */
static void every_flipped_bit_is_found_out(void **state) {
    (void)state;
    static const enum kek_kind kinds[] = {KEK_PLAIN, KEK_UNLOCK_KEY, KEK_PASSPHRASE};
    for (size_t n = 0; n < 3; n++) {
        struct disk *d = disk_sim_new(1);
        struct kek kek = kek_of(kinds[n], 0);
        keyring_close(must_create(d, kek));
        for (int f = 0; f < (kinds[n] == KEK_PLAIN ? 2 : 1); f++) {
            const char *name = f == 0 ? "keyring" : "kek";
            uint64_t size = disk_sim_size(d, name);
            for (uint64_t bit = 0; bit < 8 * size; bit++) {
                struct keyring *k;
                struct why why = {0};
                assert_true(disk_sim_flip(d, name, bit / 8, (uint8_t)(1 << bit % 8)));
                assert_int_equal(keyring_open(d, kek, &k, &why), ERR_CORRUPT);
                assert_int_equal(strncmp(why.text, name, strlen(name)), 0);
                assert_non_null(strstr(why.text, ": damaged at byte "));
                assert_true(disk_sim_flip(d, name, bit / 8, (uint8_t)(1 << bit % 8)));
            }
        }
        keyring_close(must_open(d, kek));
        disk_sim_free(d);
    }
}

static void every_other_length_is_found_out(void **state) {
    static const char *const names[] = {"keyring", "kek"};
    struct disk *d = sim(state);
    keyring_close(must_create(d, kek_of(KEK_PLAIN, 0)));
    for (size_t i = 0; i < 2; i++) {
        uint64_t size = disk_sim_size(d, names[i]);
        for (uint64_t cut = 0; cut < size + 3; cut++) {
            if (cut == size) continue;
            struct disk *copy = disk_sim_clone(d, 1);
            struct keyring *k;
            struct why why = {0};
            assert_true(disk_sim_resize(copy, names[i], cut));
            assert_int_equal(keyring_open(copy, kek_of(KEK_PLAIN, 0), &k, &why), ERR_CORRUPT);
            disk_sim_free(copy);
        }
    }
}

static void a_huge_file_is_damage(void **state) {
    keyring_close(must_create(sim(state), kek_of(KEK_UNLOCK_KEY, 0)));
    struct keyring *k;
    struct why why = {0};
    assert_true(disk_sim_resize(sim(state), "keyring", KEYRING_MAX + 1));
    assert_int_equal(keyring_open(sim(state), kek_of(KEK_UNLOCK_KEY, 0), &k, &why), ERR_CORRUPT);
    assert_non_null(strstr(why.text, "keyring: damaged at byte"));
}

static void a_missing_or_foreign_kek_is_told(void **state) {
    struct disk *d = sim(state);
    struct disk *other = disk_sim_new(3);
    struct keyring *k;
    struct why why = {0};
    keyring_close(must_create(d, kek_of(KEK_PLAIN, 0)));
    keyring_close(must_create(other, kek_of(KEK_PLAIN, 0)));
    assert_true(disk_sim_import(d, other, "kek"));
    assert_int_equal(keyring_open(d, kek_of(KEK_PLAIN, 0), &k, &why), ERR_WRONG_KEY);
    assert_string_equal(why.text, "keyring: wrong key: the file kek is of another keyring");
    assert_true(disk_sim_erase(d, "kek"));
    assert_int_equal(keyring_open(d, kek_of(KEK_PLAIN, 0), &k, &why), ERR_CORRUPT);
    assert_non_null(strstr(why.text, "kek: missing"));
    disk_sim_free(other);
}

static void no_key_lies_in_the_file_and_the_plain_kek_only_in_its_own(void **state) {
    struct disk *d = sim(state);
    struct keyring *k = must_create(d, kek_of(KEK_PLAIN, 0));
    struct secret *identity;
    assert_int_equal(secret_new("the identity of this node", 25, &identity), OK);
    assert_int_equal(keyring_set_identity(k, identity, NULL), OK);
    assert_false(disk_sim_contains(d, secret_span(identity)));
    assert_false(disk_sim_contains(d, secret_span(keyring_dek(k, 1))));
    struct kek_file file;
    assert_int_equal(kek_file_read(d, &file, NULL), OK);
    assert_null(file.keys[1]);
    assert_true(disk_sim_contains(d, secret_span(file.keys[0])));
    assert_int_equal(keyring_rekey(k, kek_of(KEK_UNLOCK_KEY, 0), false, NULL), OK);
    assert_int_equal(disk_sim_size(d, "kek"), DISK_SIM_NEVER);
    assert_false(disk_sim_contains(d, secret_span(file.keys[0])));
    kek_file_free(&file);
    keyring_close(k);
    secret_free(identity);
}

static void every_writing_has_another_file_id_and_so_another_key(void **state) {
    struct keyring *k = must_create(sim(state), kek_of(KEK_UNLOCK_KEY, 0));
    struct secret *same;
    struct buf files[2] = {buf_new(KEYRING_MAX), buf_new(KEYRING_MAX)};
    assert_int_equal(secret_new("same", 4, &same), OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(keyring_set_identity(k, same, NULL), OK);
        assert_int_equal(disk_read_file(sim(state), "keyring", &files[i], NULL), OK);
    }
    struct keyring_outer outer[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(keyring_outer_decode(buf_span(&files[i]), &outer[i], NULL), OK);
    assert_false(span_equal(outer[0].id, outer[1].id));
    assert_false(span_equal(outer[0].sealed, outer[1].sealed));
    buf_free(&files[0]);
    buf_free(&files[1]);
    secret_free(same);
    keyring_close(k);
}

static void rekey_goes_from_every_kind_to_every_kind(void **state) {
    (void)state;
    for (int pair = 0; pair < 16; pair++) {
        struct disk *d = disk_sim_new(1);
        struct kek from = kek_of((enum kek_kind)(pair / 4), 0);
        struct kek to = kek_of((enum kek_kind)(pair % 4), 1);
        struct keyring *k = must_create(d, from);
        struct secret *dek;
        struct why why = {0};
        assert_int_equal(secret_copy(keyring_dek(k, 1), &dek), OK);
        must(keyring_rekey(k, to, false, &why), &why);
        assert_int_equal(disk_sim_size(d, "kek") == DISK_SIM_NEVER, to.kind != KEK_PLAIN);
        must(keyring_rotate(k, &why), &why);
        keyring_close(k);
        k = must_open(d, to);
        assert_true(secret_equal(keyring_dek(k, 1), dek));
        assert_int_equal(keyring_generation(k), 2);
        keyring_close(k);
        if (from.kind != KEK_PLAIN) assert_int_not_equal(keyring_open(d, from, &k, &why), OK);
        secret_free(dek);
        disk_sim_free(d);
    }
}

static enum err make_rotate(struct keyring *k, struct why *why) { return keyring_rotate(k, why); }
static enum err make_destroy(struct keyring *k, struct why *why) {
    return keyring_destroy_before(k, 2, why);
}
static enum err make_identity(struct keyring *k, struct why *why) {
    return keyring_set_identity(k, keys.unlock[1], why);
}
static enum err make_plain(struct keyring *k, struct why *why) {
    return keyring_rekey(k, kek_of(KEK_PLAIN, 0), false, why);
}
static enum err make_locked(struct keyring *k, struct why *why) {
    return keyring_rekey(k, kek_of(KEK_UNLOCK_KEY, 1), false, why);
}
static enum err make_followed(struct keyring *k, struct why *why) {
    return keyring_rekey(k, kek_of(KEK_UNLOCK_KEY, 1), true, why);
}

/* Changes that will be cut short. */
static const struct {
    const char *what;                                     /* for messages */
    enum err (*make)(struct keyring *k, struct why *why); /* the change */
    enum kek_kind before;                                 /* the KEK's kind before ... */
    enum kek_kind after;                                  /* ... and after */
} changes[] = {
    {"rotate", make_rotate, KEK_UNLOCK_KEY, KEK_UNLOCK_KEY},
    {"rotate plain", make_rotate, KEK_PLAIN, KEK_PLAIN},
    {"destroy", make_destroy, KEK_PLAIN, KEK_PLAIN},
    {"identity", make_identity, KEK_UNLOCK_KEY, KEK_UNLOCK_KEY},
    {"plain to plain", make_plain, KEK_PLAIN, KEK_PLAIN},
    {"plain to unlock key", make_locked, KEK_PLAIN, KEK_UNLOCK_KEY},
    {"unlock key to plain", make_plain, KEK_UNLOCK_KEY, KEK_PLAIN},
    {"unlock key to another", make_locked, KEK_UNLOCK_KEY, KEK_UNLOCK_KEY},
    {"plain to unlock key, rotated", make_followed, KEK_PLAIN, KEK_UNLOCK_KEY},
    {"unlock key to another, rotated", make_followed, KEK_UNLOCK_KEY, KEK_UNLOCK_KEY},
};
#define CHANGES (sizeof changes / sizeof *changes)

static struct kek kek_before(size_t c) { return kek_of(changes[c].before, 0); }
static struct kek kek_after(size_t c) {
    bool same_key = changes[c].make != make_locked && changes[c].make != make_followed;
    return kek_of(changes[c].after, same_key ? 0 : 1);
}

/* Two generations and an identity; returns the second key. */
static struct secret *prepare(struct disk *d, size_t c) {
    struct keyring *k = must_create(d, kek_before(c));
    struct secret *dek;
    assert_int_equal(keyring_rotate(k, NULL), OK);
    assert_int_equal(keyring_set_identity(k, keys.unlock[0], NULL), OK);
    assert_int_equal(secret_copy(keyring_dek(k, 2), &dek), OK);
    keyring_close(k);
    return dek;
}

/* Opens with the KEK of after or of before, whichever fits. */
static struct keyring *open_either(struct disk *d, size_t c) {
    struct keyring *k = NULL;
    struct why why[2] = {{{0}}, {{0}}};
    bool rotates = changes[c].make == make_followed;
    if (keyring_open(d, kek_after(c), &k, &why[0]) == OK) {
        if (rotates) assert_non_null(keyring_dek(k, 3)); /* never under the other key alone */
        return k;
    }
    if (keyring_open(d, kek_before(c), &k, &why[1]) == OK) return k;
    fail_msg("%s: neither opens: %s; %s", changes[c].what, why[0].text, why[1].text);
    return NULL;
}

static bool is_old(struct keyring *k, size_t c) {
    if (changes[c].make == make_rotate) return keyring_generation(k) == 2;
    if (changes[c].make == make_destroy) return keyring_dek(k, 1) != NULL;
    if (changes[c].make == make_identity) return secret_equal(keyring_identity(k), keys.unlock[0]);
    return false; /* rekey: the same content */
}

/* The keyring is whole, old or new, and goes on working and opening with what it is under now. */
static void check_whole(struct disk *d, size_t c, const struct secret *dek, bool acknowledged) {
    struct why why = {0};
    struct keyring *k = open_either(d, c);
    assert_true(secret_equal(keyring_dek(k, 2), dek));
    assert_non_null(keyring_identity(k));
    if (acknowledged) assert_false(is_old(k, c));
    uint32_t generation = keyring_generation(k);
    must(keyring_rotate(k, &why), &why);
    keyring_close(k);
    k = open_either(d, c);
    assert_int_equal(keyring_generation(k), generation + 1);
    must(changes[c].make(k, &why), &why);
    keyring_close(k);
    k = must_open(d, kek_after(c));
    if (changes[c].after != KEK_PLAIN) {
        assert_int_equal(disk_sim_size(d, "kek"), DISK_SIM_NEVER);
        assert_int_equal(disk_sim_size(d, "kek.new"), DISK_SIM_NEVER);
    }
    keyring_close(k);
}

/* Power goes in the middle of the n-th change of the disk. */
static void a_crash_at_any_place_leaves_the_old_or_the_new_keyring(void **state) {
    (void)state;
    for (size_t c = 0; c < CHANGES; c++) {
        struct disk *base = disk_sim_new(5);
        struct secret *dek = prepare(base, c);
        bool struck = true;
        unsigned places = 0;
        for (uint64_t n = 1; struck; n++) {
            for (uint64_t seed = 0; seed < SEEDS; seed++) {
                struct disk *d = disk_sim_clone(base, n * 1000 + seed);
                struct keyring *k = must_open(d, kek_before(c));
                struct why why = {0};
                disk_sim_cut_at(d, n);
                enum err e = changes[c].make(k, &why);
                struck = disk_sim_failed(d);
                assert_true(struck || e == OK);
                keyring_close(k);
                disk_sim_crash(d);
                check_whole(d, c, dek, e == OK);
                disk_sim_free(d);
            }
            places += struck;
        }
        assert_true(places >= 4);
        secret_free(dek);
        disk_sim_free(base);
    }
}

/* After a failed call: nothing, another change, or the same again until power goes. */
static void go_on(struct disk *d, struct keyring *k, size_t c, uint64_t seed) {
    struct why why = {0};
    enum err e = OK;
    if (seed % 4 == 1) disk_sim_cut_at(d, 1 + seed / 4 % 12);
    if (seed % 2 == 1) e = changes[c].make(k, &why);
    if (seed % 4 == 2) e = keyring_rotate(k, &why);
    if (e != OK) assert_true(why.text[0] != '\0');
    if (seed % 4 != 1) assert_true(e == OK || e == ERR_PRECONDITION);
}

/* One call fails, the process goes on for a while, is killed, comes back, and then power goes. */
static void a_failed_call_and_a_crash_later_leave_the_old_or_the_new_keyring(void **state) {
    (void)state;
    for (size_t c = 0; c < CHANGES; c++) {
        struct disk *base = disk_sim_new(5);
        struct secret *dek = prepare(base, c);
        bool struck = true;
        for (uint64_t n = 1; struck; n++) {
            for (uint64_t seed = 0; seed < 4 * SEEDS; seed++) {
                struct disk *d = disk_sim_clone(base, n * 1000 + seed);
                struct keyring *k = must_open(d, kek_before(c));
                struct why why = {0};
                disk_sim_fail_at(d, n, ERR_IO);
                enum err e = changes[c].make(k, &why);
                struck = disk_sim_failed(d);
                if (e != OK) assert_true(why.text[0] != '\0');
                disk_sim_fail_at(d, DISK_SIM_NEVER, OK);
                go_on(d, k, c, seed);
                keyring_close(k);
                if (seed % 4 == 1) disk_sim_crash(d);
                if (seed % 3 == 0) keyring_close(open_either(d, c));
                if (seed % 4 != 0) disk_sim_crash(d);
                check_whole(d, c, dek, false);
                disk_sim_free(d);
            }
        }
        secret_free(dek);
        disk_sim_free(base);
    }
}

/* What was found on opening stays, even when power goes right after. */
static void what_was_opened_is_durable(void **state) {
    (void)state;
    for (uint64_t n = 1; n < 12; n++) {
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct disk *d = disk_sim_new(n * 1000 + seed);
            struct why why = {0};
            struct keyring *k = must_create(d, kek_of(KEK_PLAIN, 0));
            disk_sim_fail_at(d, n, ERR_IO);
            (void)!keyring_rotate(k, &why);
            disk_sim_fail_at(d, DISK_SIM_NEVER, OK);
            keyring_close(k);
            k = must_open(d, kek_of(KEK_PLAIN, 0));
            uint32_t seen = keyring_generation(k);
            keyring_close(k);
            disk_sim_crash(d);
            k = must_open(d, kek_of(KEK_PLAIN, 0));
            assert_int_equal(keyring_generation(k), seen);
            keyring_close(k);
            disk_sim_free(d);
        }
    }
}

static void a_crash_while_creating_leaves_none_or_a_whole_one(void **state) {
    (void)state;
    for (int kind = KEK_PLAIN; kind <= KEK_UNLOCK_KEY; kind++) {
        struct kek kek = kek_of((enum kek_kind)kind, 0);
        bool struck = true;
        for (uint64_t n = 1; struck; n++) {
            for (uint64_t seed = 0; seed < SEEDS; seed++) {
                struct disk *d = disk_sim_new(n * 1000 + seed);
                struct keyring *k = NULL;
                struct why why = {0};
                disk_sim_cut_at(d, n);
                enum err e = keyring_create(d, kek, &k, &why);
                struck = disk_sim_failed(d);
                if (e == OK) keyring_close(k);
                disk_sim_crash(d);
                enum err opened = keyring_open(d, kek, &k, &why);
                if (e == OK) must(opened, &why);
                if (opened == ERR_NOT_FOUND)
                    k = must_create(d, kek);
                else
                    must(opened, &why);
                keyring_close(k);
                disk_sim_free(d);
            }
        }
    }
}

static void a_full_disk_refuses_and_later_goes_on(void **state) {
    struct disk *d = sim(state);
    struct keyring *k = must_create(d, kek_of(KEK_UNLOCK_KEY, 0));
    struct why why = {0};
    disk_sim_limit(d, 1);
    assert_int_equal(keyring_rotate(k, &why), ERR_NOSPACE);
    assert_int_equal(keyring_generation(k), 1);
    disk_sim_limit(d, DISK_SIM_NEVER);
    must(keyring_rotate(k, &why), &why);
    assert_int_equal(keyring_generation(k), 2);
    disk_sim_read_only(d, true);
    assert_int_equal(keyring_rotate(k, &why), ERR_READONLY);
    disk_sim_read_only(d, false);
    must(keyring_rotate(k, &why), &why);
    keyring_close(k);
}

struct living {
    size_t c;                  /* the change */
    struct disk *disk;         /* of this round */
    struct fault_disk *faults; /* over it, so that its own allocations don't fail */
    struct disk *base;         /* what a round starts from */
    struct secret *dek;        /* generation 2 */
    enum err e;                /* what the scenario got */
};

static void live(void *ctx) {
    struct living *l = ctx;
    struct keyring *k = NULL;
    struct why why = {0};
    l->e = keyring_open(fault_disk(l->faults), kek_before(l->c), &k, &why);
    if (l->e == OK) l->e = changes[l->c].make(k, &why);
    keyring_close(k);
    if (l->e != OK) assert_true(why.text[0] != '\0');
}

static void lived(void *ctx, bool fired) {
    struct living *l = ctx;
    if (!fired) assert_int_equal(l->e, OK);
    check_whole(l->disk, l->c, l->dek, !fired);
    fault_disk_free(l->faults);
    disk_sim_free(l->disk);
    l->disk = disk_sim_clone(l->base, 2);
    l->faults = fault_disk_new(l->disk);
}

static void running_out_of_memory_anywhere_leaves_a_whole_keyring(void **state) {
    (void)state;
    for (size_t c = 0; c < CHANGES; c++) {
        struct living l = {.c = c, .base = disk_sim_new(1)};
        l.dek = prepare(l.base, c);
        l.disk = disk_sim_clone(l.base, 2);
        l.faults = fault_disk_new(l.disk);
        unsigned fired = fault_sweep_alloc(live, lived, &l);
        assert_true(fired > 10);
        secret_free(l.dek);
        fault_disk_free(l.faults);
        disk_sim_free(l.disk);
        disk_sim_free(l.base);
    }
}

static void bodies_that_break_a_rule_are_refused(void **state) {
    (void)state;
    struct keyring_body out;
    struct buf body = buf_new(KEYRING_MAX);
    static const uint8_t key[KEY_SIZE] = {1};
    static const uint32_t numbers[][2] = {{1, 2}, {7, 9}, {2, 1}, {1, 1}, {0, 1}};
    for (size_t i = 0; i < 5; i++) {
        buf_clear(&body);
        assert_int_equal(buf_u32(&body, 2), OK);
        for (int g = 0; g < 2; g++) {
            assert_int_equal(buf_u32(&body, numbers[i][g]), OK);
            assert_int_equal(buf_add(&body, key, sizeof key), OK);
        }
        assert_int_equal(buf_block(&body, span_str("id")), OK);
        assert_int_equal(keyring_body_decode(buf_span(&body), &out), i < 2 ? OK : ERR_PROTOCOL);
        for (size_t cut = 0; cut < body.size; cut++)
            assert_int_equal(keyring_body_decode(span_of(body.at, cut), &out), ERR_PROTOCOL);
        assert_int_equal(buf_u8(&body, 0), OK);
        assert_int_equal(keyring_body_decode(buf_span(&body), &out), ERR_PROTOCOL);
    }
    put_u32(body.at, 0);
    assert_int_equal(keyring_body_decode(buf_span(&body), &out), ERR_PROTOCOL);
    put_u32(body.at, DEK_GENERATIONS_MAX + 1);
    assert_int_equal(keyring_body_decode(buf_span(&body), &out), ERR_PROTOCOL);
    buf_free(&body);
}

/* An outsider can make the checksums fit, but not the KEK. */
static void a_forged_head_is_refused(void **state) {
    keyring_close(must_create(sim(state), kek_of(KEK_PASSPHRASE, 0)));
    struct buf file = buf_new(KEYRING_MAX);
    assert_int_equal(disk_read_file(sim(state), "keyring", &file, NULL), OK);
    for (size_t i = 8; i < 56; i++) {
        struct keyring *k;
        struct why why = {0};
        for (int bit = 0; bit < 8; bit++) {
            file.at[i] ^= (uint8_t)(1 << bit);
            (void)crypto_generichash(file.at + 56, 16, file.at, 56, NULL, 0);
            /* not past what a test may cost */
            bool costly = (i >= 12 && i < 20) &&
                          (get_u32(file.at + 12) <= KEK_COST_PASSES_MAX &&
                           get_u32(file.at + 16) <= KEK_COST_MEMORY_MAX) &&
                          get_u32(file.at + 16) > 4096;
            if (!costly) {
                assert_int_equal(disk_write_file(sim(state), "keyring", buf_span(&file), &why), OK);
                enum err e = keyring_open(sim(state), kek_of(KEK_PASSPHRASE, 0), &k, &why);
                assert_true(e == ERR_CORRUPT || e == ERR_WRONG_KEY || e == ERR_LOCKED ||
                            (e == ERR_UNSUPPORTED && i == 8));
            }
            file.at[i] ^= (uint8_t)(1 << bit);
        }
    }
    buf_free(&file);
}

struct crowd {
    struct keyring *k;        /* shared */
    const struct secret *dek; /* generation 1 */
    bool fine;                /* what this thread saw */
};

static void *read_much(void *ctx) {
    struct crowd *c = ctx;
    c->fine = true;
    for (int i = 0; i < 200; i++) {
        uint32_t g = keyring_generation(c->k);
        c->fine = c->fine && keyring_dek(c->k, g) != NULL && keyring_dek(c->k, 1) == c->dek;
    }
    return NULL;
}

static void *rotate_some(void *ctx) {
    struct crowd *c = ctx;
    c->fine = true;
    for (int i = 0; i < 10; i++)
        c->fine = c->fine && keyring_rotate(c->k, NULL) == OK;
    return NULL;
}

static void many_threads_may_use_one_keyring(void **state) {
    struct keyring *k = must_create(sim(state), kek_of(KEK_UNLOCK_KEY, 0));
    struct crowd crowd[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        crowd[i] = (struct crowd){.k = k, .dek = keyring_dek(k, 1)};
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < 2 ? rotate_some : read_much, &crowd[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(crowd[i].fine);
    }
    assert_int_equal(keyring_generation(k), 21);
    keyring_close(k);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, enter, leave)
    const struct CMUnitTest cases[] = {
        CASE(a_new_keyring_has_generation_1_and_opens_the_same),
        CASE(no_keyring_and_a_second_keyring_are_told),
        CASE(rotation_adds_generations_and_destruction_takes_the_oldest),
        CASE(generations_have_a_bound),
        CASE(the_identity_is_kept_up_to_its_bound),
        CASE(a_key_of_another_kind_is_told_as_locked),
        CASE(the_wrong_key_is_told_as_such),
        CASE(keys_that_can_not_be_keys_are_refused),
        CASE(every_flipped_bit_is_found_out),
        CASE(every_other_length_is_found_out),
        CASE(a_huge_file_is_damage),
        CASE(a_missing_or_foreign_kek_is_told),
        CASE(no_key_lies_in_the_file_and_the_plain_kek_only_in_its_own),
        CASE(every_writing_has_another_file_id_and_so_another_key),
        CASE(rekey_goes_from_every_kind_to_every_kind),
        CASE(a_crash_at_any_place_leaves_the_old_or_the_new_keyring),
        CASE(a_failed_call_and_a_crash_later_leave_the_old_or_the_new_keyring),
        CASE(what_was_opened_is_durable),
        CASE(a_crash_while_creating_leaves_none_or_a_whole_one),
        CASE(a_full_disk_refuses_and_later_goes_on),
        CASE(running_out_of_memory_anywhere_leaves_a_whole_keyring),
        CASE(bodies_that_break_a_rule_are_refused),
        CASE(a_forged_head_is_refused),
        CASE(many_threads_may_use_one_keyring),
    };
    return cmocka_run_group_tests_name("keyring", cases, start, finish);
}
