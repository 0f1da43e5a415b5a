/* Histograms as Prometheus reads them, and a disk that measures what is made durable through it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/timed_disk.h"
#include "crypto/limits.h"
#include "tests/lib/disk_sim.h"

static void assert_text(struct buf *out, const char *text) {
    assert_int_equal(buf_u8(out, 0), OK);
    assert_string_equal((const char *)out->at, text);
    buf_free(out);
}

static void a_histograms_buckets_hold_all_that_is_not_above_their_bound(void **state) {
    (void)state;
    struct histogram h;
    struct buf out = buf_new(4 * KIB);
    histogram_start(&h, 1000000, 3);
    histogram_add(&h, 0);
    histogram_add(&h, 1000000);
    histogram_add(&h, 1000001);
    histogram_add(&h, 4000000);
    histogram_add(&h, 4000001);
    assert_int_equal(histogram_write(&out, "t", "a=\"b\"", &h), OK);
    assert_text(&out, "t_bucket{a=\"b\",le=\"0.001\"} 2\nt_bucket{a=\"b\",le=\"0.002\"} 3\n"
                      "t_bucket{a=\"b\",le=\"0.004\"} 4\nt_bucket{a=\"b\",le=\"+Inf\"} 5\n"
                      "t_sum{a=\"b\"} 0.010000002\nt_count{a=\"b\"} 5\n");
    histogram_start(&h, 1000000, 0);
    assert_int_equal(histogram_write(&out, "t", "", &h), OK);
    assert_text(&out, "t_bucket{le=\"+Inf\"} 0\nt_sum 0.000000000\nt_count 0\n");
}

static void a_figure_says_what_it_is(void **state) {
    (void)state;
    struct buf out = buf_new(4 * KIB);
    assert_int_equal(metric_write(&out, "n", "gauge", "What it is", 7), OK);
    assert_text(&out, "# HELP n What it is\n# TYPE n gauge\nn 7\n");
}

static uint64_t total(struct histogram *h) {
    uint64_t n = 0;
    for (unsigned i = 0; i <= h->n; i++)
        n += atomic_load(&h->counts[i]);
    return n;
}

static void write_and_sync(struct disk *d, const char *path, unsigned flags) {
    static uint8_t block[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
    struct file *f;
    struct why why;
    size_t got;
    uint64_t size;
    assert_int_equal(d->open(d, path, DISK_CREATE | flags, &f, &why), OK);
    assert_ptr_equal(f->disk, d);
    assert_int_equal(d->write(f, 0, block, sizeof block, &why), OK);
    if (!f->durable_writes) assert_int_equal(d->sync(f, &why), OK);
    assert_int_equal(d->read(f, 0, block, sizeof block, &got, &why), OK);
    assert_int_equal(got, sizeof block);
    assert_int_equal(d->size(f, &size, &why), OK);
    assert_int_equal(size, sizeof block);
    d->close(f);
}

static struct disk *open_disk(struct disk_times *times) {
    struct disk *d;
    struct why why;
    assert_int_equal(timed_disk_open(disk_sim_new(1), times, &d), OK);
    assert_int_equal(d->make_dir(d, "log", &why), OK);
    assert_int_equal(d->make_dir(d, "snapshots", &why), OK);
    return d;
}

static void close_disk(struct disk *d) { disk_sim_free(timed_disk_close(d)); }

static void only_the_logs_and_the_snapshots_files_are_counted(void **state) {
    (void)state;
    struct disk_times times;
    struct disk *d = open_disk(&times);
    write_and_sync(d, "keyring", 0);
    assert_int_equal(total(&times.log) + total(&times.snapshot), 0);
    write_and_sync(d, "log/1", 0);
    write_and_sync(d, "log/2", DISK_DIRECT);
    assert_int_equal(total(&times.log), 2);
    write_and_sync(d, "snapshots/1", 0);
    assert_int_equal(total(&times.log), 2);
    assert_int_equal(total(&times.snapshot), 1);
    close_disk(d);
}

static void what_is_written_ahead_counts_from_its_renaming_on(void **state) {
    (void)state;
    static uint8_t block[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
    struct disk_times times;
    struct disk *d = open_disk(&times);
    struct file *f;
    struct why why;
    assert_int_equal(d->open(d, "log/spare", DISK_CREATE, &f, &why), OK);
    assert_int_equal(d->write(f, 0, block, sizeof block, &why), OK);
    assert_int_equal(d->sync(f, &why), OK);
    assert_int_equal(total(&times.log), 0);
    assert_int_equal(d->rename(d, "log/spare", "log/1", &why), OK);
    assert_int_equal(d->sync(f, &why), OK);
    assert_int_equal(total(&times.log), 1);
    d->close(f);
    close_disk(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_histograms_buckets_hold_all_that_is_not_above_their_bound),
        cmocka_unit_test(a_figure_says_what_it_is),
        cmocka_unit_test(only_the_logs_and_the_snapshots_files_are_counted),
        cmocka_unit_test(what_is_written_ahead_counts_from_its_renaming_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
