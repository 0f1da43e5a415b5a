/* Another data key on a real manager that is alone: with another lock in one write, sealed anew
 * also when a restart or yet another key comes in between, and whoever waits hears of the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/manager_parts.h"
#include "tests/lib/loners.h"

static struct loners all; /* of the test that runs */

static void on_resealed(void *ctx, enum err e) { loners_done(ctx, e, ""); }

static void tell(void *ctx, enum err e) {
    assert_int_equal(e, OK);
    *(bool *)ctx = true;
}

static bool is_sealed_anew(void *ctx) {
    const struct manager *m = ctx;
    return keyring_oldest(m->keys) == keyring_generation(m->keys) && !m->reseal.running;
}

static struct kek unlock_key(uint8_t fill) {
    static struct secret *keys[4];
    uint8_t bytes[KEY_SIZE];
    memset(bytes, fill, sizeof bytes);
    if (!keys[fill]) assert_int_equal(secret_new(bytes, sizeof bytes, &keys[fill]), OK);
    return (struct kek){.kind = KEK_UNLOCK_KEY, .key = keys[fill]};
}

static void on_locked(struct write *w, enum err e, const char *text, const struct result *r) {
    loners_done(w->ctx, e == OK ? r->error : e, text);
}

/* The cluster's lock has another key. */
static void lock(struct manager *m, uint8_t fill) {
    static struct write w;
    struct command c = {.op = OP_LOCK, .unlock_key = secret_span(unlock_key(fill).key)};
    w = (struct write){.command = buf_new(COMMAND_MAX), .done = on_locked, .ctx = &all};
    all.done = false;
    assert_int_equal(command_encode(&c, &w.command), OK);
    assert_int_equal(manager_write(m, &w), OK);
    loners_wait(&all);
    assert_int_equal(all.error, OK);
}

static bool is_locked(void *ctx) { return ((struct manager *)ctx)->unlock_key != NULL; }

static void a_lock_that_is_followed_comes_with_another_data_key(void **state) {
    (void)state;
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    lock(m, 1);
    loners_until(&all, is_locked, m);
    assert_int_equal(keyring_generation(m->keys), 2); /* at once */
    loners_until(&all, is_sealed_anew, m);
    assert_null(keyring_dek(m->keys, 1));
    loners_end(&all);
}

/* As after a crash right behind the keyring's write. */
static void a_reseal_that_a_restart_cut_short_goes_on(void **state) {
    (void)state;
    struct disk *disk;
    struct keyring *keys;
    struct kek plain = {.kind = KEK_PLAIN};
    loners_start(&all, true);
    loner_stop(&all.at[0]);
    assert_int_equal(disk_real_open(all.at[0].root, &disk, NULL), OK);
    assert_int_equal(keyring_open(disk, plain, &keys, NULL), OK);
    assert_int_equal(keyring_rotate(keys, NULL), OK);
    keyring_close(keys);
    disk_real_close(disk);
    loner_again(&all.at[0]);
    struct manager *m = all.at[0].manager;
    assert_int_equal(keyring_oldest(m->keys), 1);
    loners_until(&all, is_sealed_anew, m);
    assert_int_equal(keyring_generation(m->keys), 2);
    loner_stop(&all.at[0]);
    loner_again(&all.at[0]); /* nothing needs the first one any more */
    assert_null(keyring_dek(all.at[0].manager->keys, 1));
    loners_end(&all);
}

static void a_lock_that_comes_meanwhile_is_followed_too(void **state) {
    (void)state;
    struct why why = {0};
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    bool told = false;
    assert_int_equal(reseal_start(m, tell, &told, &why), OK);
    lock(m, 2);
    loners_until(&all, is_locked, m);
    loners_until(&all, is_sealed_anew, m);
    assert_true(told);
    assert_int_equal(keyring_oldest(m->keys), 3);
    loner_stop(&all.at[0]); /* the ballot and the log are under what is left */
    struct disk *disk;
    struct keyring *keys;
    assert_int_equal(disk_real_open(all.at[0].root, &disk, NULL), OK);
    assert_int_equal(keyring_open(disk, unlock_key(2), &keys, NULL), OK);
    assert_int_equal(keyring_rekey(keys, (struct kek){.kind = KEK_PLAIN}, false, NULL), OK);
    keyring_close(keys);
    disk_real_close(disk);
    loner_again(&all.at[0]);
    assert_int_equal(all.at[0].manager->state, MANAGER_RUNNING);
    loners_end(&all);
}

static void whoever_waits_hears_that_the_node_stops(void **state) {
    (void)state;
    struct why why = {0};
    loners_start(&all, true);
    all.done = false;
    assert_int_equal(reseal_start(all.at[0].manager, on_resealed, &all, &why), OK);
    assert_int_equal(reseal_start(all.at[0].manager, on_resealed, &all, &why), ERR_BUSY);
    loner_stop(&all.at[0]);
    assert_true(all.done);
    loners_end(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lock_that_is_followed_comes_with_another_data_key),
        cmocka_unit_test(a_reseal_that_a_restart_cut_short_goes_on),
        cmocka_unit_test(a_lock_that_comes_meanwhile_is_followed_too),
        cmocka_unit_test(whoever_waits_hears_that_the_node_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
