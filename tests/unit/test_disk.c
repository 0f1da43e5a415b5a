/* The real disk under a temporary directory, the whole-file helpers, and the disk of faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/disk.h"
#include "crypto/limits.h"
#include "tests/lib/fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
    char root[64];     /* a fresh directory under the system's place for such */
    struct disk *disk; /* open on `root`/d */
};

static void forget(void *ctx, const char *name) {
    struct disk *d = ctx;
    struct why why;
    assert_int_equal(d->remove(d, name, &why), OK);
}

static int enter(void **state) {
    struct place *p = calloc(1, sizeof *p);
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(p->root, sizeof p->root, "%s/conclave-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
    struct why why = {0};
    if (mkdtemp(p->root) == NULL) return -1;
    if (disk_real_open(p->root, &p->disk, &why) != OK) return -1;
    *state = p;
    return 0;
}

static int leave(void **state) {
    struct place *p = *state;
    char name[128];
    struct why why;
    if (p->disk->list(p->disk, "", forget, p->disk, &why) != OK) return -1;
    disk_real_close(p->disk);
    (void)snprintf(name, sizeof name, "%s/log", p->root);
    (void)rmdir(name);
    (void)snprintf(name, sizeof name, "%s/LOCK", p->root);
    (void)unlink(name);
    int status = rmdir(p->root);
    free(p);
    return status;
}

static struct file *must_open(struct disk *d, const char *path, unsigned flags) {
    struct file *f;
    struct why why = {0};
    enum err e = d->open(d, path, flags, &f, &why);
    if (e != OK) fail_msg("%s", why.text);
    return f;
}

static void bytes_written_are_read_back_at_their_offset(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct file *f = must_open(d, "a", DISK_CREATE);
    uint8_t got_bytes[16];
    size_t got;
    uint64_t size;
    assert_int_equal(d->write(f, 10, "hello", 5, NULL), OK);
    assert_int_equal(d->sync(f, NULL), OK);
    assert_int_equal(d->size(f, &size, NULL), OK);
    assert_int_equal(size, 15);
    assert_int_equal(d->read(f, 8, got_bytes, sizeof got_bytes, &got, NULL), OK);
    assert_int_equal(got, 7);
    assert_memory_equal(got_bytes, "\0\0hello", 7);
    assert_int_equal(d->read(f, 15, got_bytes, 1, &got, NULL), OK);
    assert_int_equal(got, 0);
    d->close(f);
}

static void open_says_what_is_absent_or_there(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct file *f;
    struct why why = {0};
    assert_int_equal(d->open(d, "nothing", DISK_READ, &f, &why), ERR_NOT_FOUND);
    assert_string_equal(why.text, "nothing: open: No such file or directory");
    assert_int_equal(d->open(d, "nothing", DISK_WRITE, &f, &why), ERR_NOT_FOUND);
    d->close(must_open(d, "a", DISK_CREATE));
    assert_int_equal(d->open(d, "a", DISK_CREATE, &f, &why), ERR_EXISTS);
    assert_int_equal(d->open(d, "a", DISK_CREATE | DISK_DIRECT, &f, &why), ERR_EXISTS);
}

static void a_file_open_for_reading_takes_no_writes(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    d->close(must_open(d, "a", DISK_CREATE));
    struct file *f = must_open(d, "a", DISK_READ);
    struct why why = {0};
    assert_int_equal(d->write(f, 0, "x", 1, &why), ERR_IO);
    assert_string_equal(why.text, "a: write: Bad file descriptor");
    d->close(f);
}

static void paths_that_leave_the_root_are_refused(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    static const char *const bad[] = {"",     "/etc/passwd", "..",  "../x", "a/../b",
                                      "a//b", "a/",          "./a", "a/.."};
    struct file *f;
    struct why why;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(d->open(d, bad[i], DISK_READ, &f, &why), ERR_INVALID);
        assert_int_equal(d->remove(d, bad[i], &why), ERR_INVALID);
        assert_int_equal(d->rename(d, bad[i], "x", &why), ERR_INVALID);
        assert_int_equal(d->rename(d, "x", bad[i], &why), ERR_INVALID);
        assert_int_equal(d->make_dir(d, bad[i], &why), ERR_INVALID);
    }
    char endless[PATH_ROOM + 1];
    for (size_t i = 0; i < PATH_ROOM; i++)
        endless[i] = 'a';
    endless[PATH_ROOM] = '\0';
    assert_int_equal(d->open(d, endless, DISK_CREATE, &f, &why), ERR_INVALID);
    endless[PATH_ROOM - 1] = '\0';
    d->close(must_open(d, endless, DISK_CREATE));
}

static void a_symbolic_link_is_not_followed(void **state) {
    struct place *p = *state;
    char name[128];
    struct file *f;
    struct why why;
    (void)snprintf(name, sizeof name, "%s/link", p->root);
    assert_int_equal(symlink("/etc/passwd", name), 0);
    assert_int_not_equal(p->disk->open(p->disk, "link", DISK_READ, &f, &why), OK);
}

static void direct_files_read_back_what_they_wrote(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct file *f = must_open(d, "a", DISK_CREATE | DISK_DIRECT);
    uint8_t *block = NULL;
    size_t got;
    assert_int_equal(posix_memalign((void **)&block, BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
    for (size_t i = 0; i < 2 * BLOCK_SIZE; i++)
        block[i] = (uint8_t)(i * 7);
    assert_int_equal(d->allocate(f, 4 * BLOCK_SIZE, NULL), OK);
    assert_int_equal(d->write(f, BLOCK_SIZE, block, 2 * BLOCK_SIZE, NULL), OK);
    for (size_t i = 0; i < 2 * BLOCK_SIZE; i++)
        block[i] = 0;
    assert_int_equal(d->read(f, 2 * BLOCK_SIZE, block, BLOCK_SIZE, &got, NULL), OK);
    assert_int_equal(got, BLOCK_SIZE);
    for (size_t i = 0; i < BLOCK_SIZE; i++)
        assert_int_equal(block[i], (uint8_t)((i + BLOCK_SIZE) * 7));
    assert_int_equal(d->sync(f, NULL), OK);
    d->close(f);
    free(block);
}

static void bulk_files_are_written_in_blocks_and_cut_to_their_end(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct file *f = must_open(d, "a", DISK_CREATE | DISK_BULK);
    uint8_t *block = aligned_alloc(BLOCK_SIZE, 2 * BLOCK_SIZE);
    struct buf got = buf_new(4 * BLOCK_SIZE);
    assert_non_null(block);
    memset(block, 7, 2 * BLOCK_SIZE);
    assert_false(f->durable_writes);
    assert_int_equal(d->write(f, 0, block, 2 * BLOCK_SIZE, NULL), OK);
    assert_int_equal(d->allocate(f, BLOCK_SIZE + 5, NULL), OK);
    assert_int_equal(d->sync(f, NULL), OK);
    d->close(f);
    assert_int_equal(disk_read_file(d, "a", &got, NULL), OK);
    assert_int_equal(got.size, BLOCK_SIZE + 5);
    assert_memory_equal(got.at, block, got.size);
    buf_free(&got);
    free(block);
}

static void allocate_reserves_and_sets_the_size(void **state) {
    struct place *p = *state;
    struct disk *d = p->disk;
    struct file *f = must_open(d, "a", DISK_CREATE);
    struct stat st;
    char name[128];
    uint64_t size;
    (void)snprintf(name, sizeof name, "%s/a", p->root);
    assert_int_equal(d->allocate(f, MIB, NULL), OK);
    assert_int_equal(d->size(f, &size, NULL), OK);
    assert_int_equal(size, MIB);
    assert_int_equal(stat(name, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= MIB);
    assert_int_equal(d->allocate(f, 100, NULL), OK);
    assert_int_equal(d->size(f, &size, NULL), OK);
    assert_int_equal(size, 100);
    assert_int_equal(d->allocate(f, 0, NULL), OK);
    struct why why = {0};
    assert_int_not_equal(d->allocate(f, 1ULL << 60, &why), OK);
    d->close(f);
}

static void names_are_renamed_and_removed(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct why why = {0};
    assert_int_equal(d->make_dir(d, "log", &why), OK);
    assert_int_equal(d->make_dir(d, "log", &why), OK);
    assert_int_equal(disk_write_file(d, "log/one", span_str("1"), &why), OK);
    assert_int_equal(disk_write_file(d, "log/two", span_str("2"), &why), OK);
    assert_int_equal(d->rename(d, "log/one", "log/two", &why), OK);
    assert_int_equal(d->sync_dir(d, "log", &why), OK);
    assert_int_equal(d->sync_dir(d, "", &why), OK);
    assert_int_equal(d->sync_dir(d, "none", &why), ERR_NOT_FOUND);
    assert_int_equal(d->rename(d, "log/one", "log/two", &why), ERR_NOT_FOUND);
    struct buf got = buf_new(10);
    assert_int_equal(disk_read_file(d, "log/two", &got, &why), OK);
    assert_true(span_equal(buf_span(&got), span_str("1")));
    buf_free(&got);
    assert_int_equal(d->remove(d, "log/two", &why), OK);
    assert_int_equal(d->remove(d, "log/two", &why), ERR_NOT_FOUND);
    d->close(must_open(d, "file", DISK_CREATE));
    assert_int_equal(d->make_dir(d, "file", &why), ERR_EXISTS);
}

static void collect(void *ctx, const char *name) {
    struct buf *all = ctx;
    assert_int_equal(buf_format(all, "%s ", name), OK);
}

static void list_gives_files_in_byte_order_without_directories_and_the_lock(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct why why = {0};
    static const char *const names[] = {"b", "a", "B", "a1", "a-"};
    assert_int_equal(d->make_dir(d, "log", &why), OK);
    for (size_t i = 0; i < 5; i++)
        d->close(must_open(d, names[i], DISK_CREATE));
    struct buf all = buf_new(4096);
    assert_int_equal(d->list(d, "", collect, &all, &why), OK);
    assert_true(span_equal(buf_span(&all), span_str("B a a- a1 b ")));
    buf_clear(&all);
    assert_int_equal(d->list(d, "log", collect, &all, &why), OK);
    assert_int_equal(all.size, 0);
    assert_int_equal(d->list(d, "none", collect, &all, &why), ERR_NOT_FOUND);
    buf_free(&all);
}

static void files_are_private(void **state) {
    struct place *p = *state;
    struct stat st;
    char name[128];
    p->disk->close(must_open(p->disk, "a", DISK_CREATE | DISK_DIRECT));
    (void)snprintf(name, sizeof name, "%s/a", p->root);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(p->disk->make_dir(p->disk, "log", NULL), OK);
    (void)snprintf(name, sizeof name, "%s/log", p->root);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void a_second_holder_of_the_directory_is_refused(void **state) {
    struct place *p = *state;
    struct disk *other;
    struct why why = {0};
    char expected[160];
    (void)snprintf(expected, sizeof expected, "%s: another process uses this directory", p->root);
    assert_int_equal(disk_real_open(p->root, &other, &why), ERR_IN_USE);
    assert_string_equal(why.text, expected);
    disk_real_close(p->disk);
    assert_int_equal(disk_real_open(p->root, &p->disk, &why), OK);
}

static void opening_a_root_that_can_not_be_says_so(void **state) {
    (void)state;
    struct disk *d;
    struct why why = {0};
    assert_int_equal(disk_real_open("/proc/none/here", &d, &why), ERR_NOT_FOUND);
    assert_string_equal(why.text, "/proc/none/here: make directory: No such file or directory");
    assert_int_equal(disk_real_open("/dev/null", &d, &why), ERR_IO);
    assert_string_equal(why.text, "/dev/null: open: Not a directory");
}

static void a_full_device_is_told_as_such(void **state) {
    struct place *p = *state;
    uint64_t room;
    struct why why = {0};
    struct file *f = must_open(p->disk, "a", DISK_CREATE);
    assert_int_equal(p->disk->space(p->disk, &room, &why), OK);
    assert_true(room > 0);
    assert_int_equal(p->disk->allocate(f, room + 16 * GIB, &why), ERR_NOSPACE);
    assert_string_equal(why.text, "a: allocate: No space left on device");
    p->disk->close(f);
}

static void a_whole_file_past_the_buffer_is_refused(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct why why = {0};
    struct buf got = buf_new(4);
    assert_int_equal(disk_write_file(d, "a", span_str("12345"), &why), OK);
    assert_int_equal(disk_read_file(d, "a", &got, &why), ERR_TOO_LARGE);
    assert_int_equal(disk_write_file(d, "a", span_of(NULL, 0), &why), OK);
    assert_int_equal(disk_read_file(d, "a", &got, &why), OK);
    assert_int_equal(got.size, 0);
    buf_free(&got);
}

static void short_and_interrupted_calls_are_gone_on_with(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    uint8_t bytes[1000];
    uint8_t back[sizeof bytes];
    size_t got;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 13);
    struct file *f = must_open(d, "a", DISK_CREATE);
    fault_system(&(struct fault_system){.chunk = 7, .interrupts = true});
    assert_int_equal(d->allocate(f, 10, NULL), OK);
    assert_int_equal(d->write(f, 3, bytes, sizeof bytes, NULL), OK);
    assert_int_equal(d->read(f, 3, back, sizeof back, &got, NULL), OK);
    fault_system(NULL);
    assert_int_equal(got, sizeof bytes);
    assert_memory_equal(bytes, back, sizeof bytes);
    d->close(f);
}

static void where_nothing_can_be_reserved_zeros_are_written(void **state) {
    struct place *p = *state;
    struct stat st;
    char name[128];
    uint8_t back[3];
    size_t got;
    struct file *f = must_open(p->disk, "a", DISK_CREATE);
    (void)snprintf(name, sizeof name, "%s/a", p->root);
    assert_int_equal(p->disk->write(f, 0, "ab", 2, NULL), OK);
    fault_system(&(struct fault_system){.fallocate = EOPNOTSUPP});
    assert_int_equal(p->disk->allocate(f, 300000, NULL), OK);
    fault_system(NULL);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_size, 300000);
    assert_true(st.st_blocks * 512 >= 300000);
    assert_int_equal(p->disk->read(f, 0, back, 3, &got, NULL), OK);
    assert_memory_equal(back, "ab", 3);
    struct why why = {0};
    fault_system(&(struct fault_system){.fallocate = ENOSPC});
    assert_int_equal(p->disk->allocate(f, 400000, &why), ERR_NOSPACE);
    fault_system(NULL);
    assert_string_equal(why.text, "a: allocate: No space left on device");
    p->disk->close(f);
}

static void a_refused_direct_write_is_made_another_way(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct file *f = must_open(d, "a", DISK_CREATE | DISK_DIRECT);
    uint8_t *block = NULL;
    size_t got;
    assert_int_equal(posix_memalign((void **)&block, BLOCK_SIZE, BLOCK_SIZE), 0);
    memset(block, 5, BLOCK_SIZE);
    fault_system(&(struct fault_system){.direct = EINVAL});
    assert_int_equal(d->write(f, 0, block, BLOCK_SIZE, NULL), OK);
    fault_system(NULL);
    memset(block, 0, BLOCK_SIZE);
    assert_int_equal(d->read(f, 0, block, BLOCK_SIZE, &got, NULL), OK);
    assert_int_equal(got, BLOCK_SIZE);
    assert_int_equal(block[BLOCK_SIZE - 1], 5);
    d->close(f);
    free(block);
}

struct replacing {
    struct fault_disk *faults; /* over the real disk */
    struct disk *real;         /* without faults */
    struct disk *used;         /* by the scenario: one or the other */
    const char *text;          /* what the scenario writes */
    enum err e;                /* what it got */
};

static void replace(void *ctx) {
    struct replacing *r = ctx;
    struct why why = {0};
    r->e = disk_write_file(r->used, "a", span_str(r->text), &why);
    if (r->e != OK) assert_true(why.text[0] != '\0');
}

static void old_or_new(void *ctx, bool fired) {
    struct replacing *r = ctx;
    struct why why = {0};
    struct buf got = buf_new(64);
    assert_int_equal(disk_read_file(r->real, "a", &got, &why), OK);
    bool old = span_equal(buf_span(&got), span_str("old"));
    bool new = span_equal(buf_span(&got), span_str(r->text));
    buf_free(&got);
    assert_true(old || new);
    assert_true(fired ? r->e != OK : r->e == OK && new);
    assert_int_equal(disk_write_file(r->real, "a", span_str("old"), &why), OK);
}

static void replacing_a_file_leaves_the_old_or_the_new_whatever_fails(void **state) {
    struct disk *d = ((struct place *)*state)->disk;
    struct replacing r = {.real = d, .text = "something new", .faults = fault_disk_new(d)};
    assert_int_equal(disk_write_file(d, "a", span_str("old"), NULL), OK);
    fault_disk_torn(r.faults, 5);
    r.used = fault_disk(r.faults);
    /* remove, open, write, sync, rename, sync of the directory */
    assert_int_equal(
        fault_sweep_disk(r.faults, FAULT_ANY, FAULT_ONCE, ERR_IO, replace, old_or_new, &r), 6);
    assert_int_equal(
        fault_sweep_disk(r.faults, FAULT_ANY, FAULT_FOREVER, ERR_NOSPACE, replace, old_or_new, &r),
        6);
    r.used = d;
    assert_int_equal(fault_sweep_alloc(replace, old_or_new, &r), 1);
    fault_disk_free(r.faults);
}

struct walking {
    struct place *place; /* the test's */
    enum err e;          /* what the scenario got */
};

static void ignore(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
}

static void walk(void *ctx) {
    struct walking *w = ctx;
    struct disk *d = w->place->disk;
    struct buf got = buf_new(1000);
    w->e = d->list(d, "", ignore, NULL, NULL);
    if (w->e == OK) w->e = disk_read_file(d, "a", &got, NULL);
    buf_free(&got);
}

static void walked(void *ctx, bool fired) {
    assert_int_equal(((struct walking *)ctx)->e, fired ? ERR_NOMEM : OK);
}

static void running_out_of_memory_is_an_error_that_leaks_nothing(void **state) {
    struct walking w = {.place = *state};
    for (int i = 0; i < 40; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "f%d", i);
        assert_int_equal(disk_write_file(w.place->disk, name, span_str("x"), NULL), OK);
    }
    assert_int_equal(disk_write_file(w.place->disk, "a", span_str("x"), NULL), OK);
    assert_true(fault_sweep_alloc(walk, walked, &w) > 40);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, enter, leave)
    const struct CMUnitTest cases[] = {
        CASE(bytes_written_are_read_back_at_their_offset),
        CASE(open_says_what_is_absent_or_there),
        CASE(a_file_open_for_reading_takes_no_writes),
        CASE(paths_that_leave_the_root_are_refused),
        CASE(a_symbolic_link_is_not_followed),
        CASE(direct_files_read_back_what_they_wrote),
        CASE(bulk_files_are_written_in_blocks_and_cut_to_their_end),
        CASE(allocate_reserves_and_sets_the_size),
        CASE(names_are_renamed_and_removed),
        CASE(list_gives_files_in_byte_order_without_directories_and_the_lock),
        CASE(files_are_private),
        CASE(a_second_holder_of_the_directory_is_refused),
        CASE(opening_a_root_that_can_not_be_says_so),
        CASE(a_full_device_is_told_as_such),
        CASE(a_whole_file_past_the_buffer_is_refused),
        CASE(short_and_interrupted_calls_are_gone_on_with),
        CASE(where_nothing_can_be_reserved_zeros_are_written),
        CASE(a_refused_direct_write_is_made_another_way),
        CASE(replacing_a_file_leaves_the_old_or_the_new_whatever_fails),
        CASE(running_out_of_memory_is_an_error_that_leaks_nothing),
    };
    return cmocka_run_group_tests_name("disk", cases, NULL, NULL);
}
