/* The simulated disk keeps what disk.h promises and drops, now and then, everything else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/disk_sim.h"

#define SEEDS 200

static struct file *must_open(struct disk *d, const char *path, unsigned flags) {
    struct file *f = NULL;
    assert_int_equal(d->open(d, path, flags, &f, NULL), OK);
    return f;
}

static void put(struct file *f, uint64_t offset, uint8_t value, size_t size) {
    uint8_t bytes[8192];
    memset(bytes, value, sizeof bytes);
    assert_true(size <= sizeof bytes);
    assert_int_equal(f->disk->write(f, offset, bytes, size, NULL), OK);
}

/* Value of each sector's bytes, 0xff when a sector is mixed. */
static uint8_t sector(struct disk *d, const char *path, uint64_t number) {
    uint8_t at[512];
    size_t got = 0;
    struct file *f = must_open(d, path, DISK_READ);
    assert_int_equal(d->read(f, number * 512, at, sizeof at, &got, NULL), OK);
    d->close(f);
    assert_int_equal(got, sizeof at);
    for (size_t i = 1; i < sizeof at; i++)
        if (at[i] != at[0]) return 0xff;
    return at[0];
}

static void synced_bytes_survive_and_others_are_old_or_new_by_sector(void **state) {
    (void)state;
    unsigned kept = 0, lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct disk *d = disk_sim_new(seed);
        struct file *f = must_open(d, "a", DISK_CREATE);
        put(f, 0, 1, 8192);
        assert_int_equal(d->sync(f, NULL), OK);
        assert_int_equal(d->sync_dir(d, "", NULL), OK);
        put(f, 1024, 2, 4096);
        disk_sim_crash(d);
        d->close(f);
        for (uint64_t i = 0; i < 16; i++) {
            uint8_t v = sector(d, "a", i);
            bool touched = i >= 2 && i < 10;
            assert_true(v == 1 || (touched && v == 2));
            if (touched && v == 2) kept++;
            if (touched && v == 1) lost++;
        }
        disk_sim_free(d);
    }
    assert_true(kept > SEEDS && lost > SEEDS);
}

static void names_are_durable_only_after_sync_dir(void **state) {
    (void)state;
    unsigned there = 0, old_name = 0, new_name = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct disk *d = disk_sim_new(seed);
        assert_int_equal(d->make_dir(d, "x", NULL), OK);
        assert_int_equal(d->sync_dir(d, "", NULL), OK);
        d->close(must_open(d, "x/a", DISK_CREATE));
        assert_int_equal(d->sync_dir(d, "x", NULL), OK);
        assert_int_equal(d->rename(d, "x/a", "x/b", NULL), OK);
        d->close(must_open(d, "x/c", DISK_CREATE));
        disk_sim_crash(d);
        bool a = disk_sim_size(d, "x/a") != DISK_SIM_NEVER;
        bool b = disk_sim_size(d, "x/b") != DISK_SIM_NEVER;
        assert_true(a != b);
        old_name += a;
        new_name += b;
        there += disk_sim_size(d, "x/c") != DISK_SIM_NEVER;
        disk_sim_free(d);
    }
    assert_true(old_name > SEEDS / 10 && new_name > SEEDS / 10);
    assert_true(there > SEEDS / 10 && there < SEEDS * 9 / 10);
}

static void what_a_failed_sync_lost_no_later_sync_brings_back(void **state) {
    (void)state;
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct disk *d = disk_sim_new(seed);
        struct file *f = must_open(d, "a", DISK_CREATE);
        assert_int_equal(d->allocate(f, 4096, NULL), OK);
        assert_int_equal(d->sync(f, NULL), OK);
        assert_int_equal(d->sync_dir(d, "", NULL), OK);
        put(f, 0, 7, 4096);
        disk_sim_fail_at(d, 1, ERR_IO);
        assert_int_equal(d->sync(f, NULL), ERR_IO);
        assert_true(disk_sim_failed(d));
        assert_int_equal(d->sync(f, NULL), OK);
        assert_int_equal(sector(d, "a", 0), 7);
        disk_sim_crash(d);
        d->close(f);
        for (uint64_t i = 0; i < 8; i++)
            lost += sector(d, "a", i) == 0;
        disk_sim_free(d);
    }
    assert_true(lost > SEEDS);
}

static void after_a_power_cut_nothing_works_until_the_crash(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct file *f = must_open(d, "a", DISK_CREATE);
    disk_sim_cut_at(d, 2);
    put(f, 0, 1, 512);
    uint64_t size;
    assert_int_equal(d->sync(f, NULL), ERR_IO);
    assert_int_equal(d->size(f, &size, NULL), ERR_IO);
    assert_int_equal(d->sync_dir(d, "", NULL), ERR_IO);
    disk_sim_crash(d);
    assert_int_equal(d->size(f, &size, NULL), ERR_IO);
    d->close(f);
    assert_int_equal(d->sync_dir(d, "", NULL), OK);
    disk_sim_free(d);
}

static void a_full_disk_refuses_and_goes_on_when_there_is_space(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    disk_sim_limit(d, 16384);
    struct file *a = must_open(d, "a", DISK_CREATE), *b = must_open(d, "b", DISK_CREATE);
    assert_int_equal(d->allocate(a, 12000, NULL), OK);
    assert_int_equal(d->allocate(b, 8192, NULL), ERR_NOSPACE);
    put(a, 0, 1, 8192);
    d->close(a);
    assert_int_equal(d->remove(d, "a", NULL), OK);
    assert_int_equal(d->sync_dir(d, "", NULL), OK);
    assert_int_equal(d->allocate(b, 8192, NULL), OK);
    d->close(b);
    disk_sim_free(d);
}

static void a_clone_is_its_own(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct file *f = must_open(d, "a", DISK_CREATE);
    put(f, 0, 5, 1024);
    struct disk *c = disk_sim_clone(d, 2);
    assert_true(disk_sim_flip(c, "a", 600, 0x10));
    assert_false(disk_sim_flip(c, "a", 1024, 0x10));
    assert_int_equal(sector(c, "a", 0), 5);
    assert_int_equal(sector(c, "a", 1), 0xff);
    assert_int_equal(sector(d, "a", 1), 5);
    d->close(f);
    disk_sim_free(c);
    disk_sim_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synced_bytes_survive_and_others_are_old_or_new_by_sector),
        cmocka_unit_test(names_are_durable_only_after_sync_dir),
        cmocka_unit_test(what_a_failed_sync_lost_no_later_sync_brings_back),
        cmocka_unit_test(after_a_power_cut_nothing_works_until_the_crash),
        cmocka_unit_test(a_full_disk_refuses_and_goes_on_when_there_is_space),
        cmocka_unit_test(a_clone_is_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
