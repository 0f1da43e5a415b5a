/* Backup files: what was written comes back; every byte counts: flipped, cut off, moved, appended
 * to, or under another key, a backup is refused with a sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "api/backup.h"

#define STATE_SIZE (3 * BACKUP_CHUNK + 1234)

struct fixture {
    struct secret *key;
    struct buf state; /* what was written */
    struct buf file;  /* the backup */
    struct buf found; /* what was read */
};

static const struct backup_head head = {
    .time_s = 1234567, .hash = {1, 2, 3}, .revision = 42, .index = 99};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_int_equal(crypto_start(NULL), OK);
    assert_int_equal(secret_random(KEY_SIZE, &f->key), OK);
    f->state = buf_new(STATE_SIZE);
    f->file = buf_new(2 * STATE_SIZE);
    f->found = buf_new(STATE_SIZE);
    for (size_t i = 0; i < STATE_SIZE; i++) /* half of it compresses */
        assert_int_equal(buf_u8(&f->state, i < STATE_SIZE / 2 ? 'a' : (uint8_t)random_u64()), OK);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    secret_free(f->key);
    buf_free(&f->state);
    buf_free(&f->file);
    buf_free(&f->found);
    free(f);
    return 0;
}

static void write_backup(struct fixture *f, size_t state_size) {
    char *bytes = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&bytes, &size);
    struct backup_writer *w;
    uint64_t written;
    assert_int_equal(backup_create(file, f->key, &head, &w, NULL), OK);
    for (size_t at = 0; at < state_size;) { /* in uneven pieces */
        size_t piece = state_size - at < 100001 ? state_size - at : 100001;
        assert_int_equal(backup_write(w, span_of(f->state.at + at, piece), NULL), OK);
        at += piece;
    }
    assert_int_equal(backup_finish(w, &written, NULL), OK);
    assert_int_equal(written, state_size);
    backup_writer_free(w);
    assert_int_equal(fclose(file), 0);
    buf_clear(&f->file);
    assert_int_equal(buf_add(&f->file, bytes, size), OK);
    free(bytes);
}

static enum err take(void *ctx, struct span state) {
    struct fixture *f = ctx;
    return buf_add_span(&f->found, state);
}

static enum err read_backup(struct fixture *f, struct span bytes, const struct secret *key) {
    struct backup_head got = {0};
    struct why why = {0};
    FILE *file = fmemopen((void *)(uintptr_t)bytes.at, bytes.size, "r");
    buf_clear(&f->found);
    enum err e = backup_read(file, "f.bak", key, &got, take, f, &why);
    assert_int_equal(fclose(file), 0);
    if (e != OK)
        assert_true(strncmp(why.text, "f.bak: ", 7) == 0);
    else
        assert_memory_equal(&got, &head, sizeof head);
    return e;
}

static void what_was_written_comes_back(void **state) {
    struct fixture *f = *state;
    static const size_t sizes[] = {0,         1, BACKUP_CHUNK - 1, BACKUP_CHUNK, BACKUP_CHUNK + 1,
                                   STATE_SIZE};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        write_backup(f, sizes[i]);
        assert_int_equal(read_backup(f, buf_span(&f->file), f->key), OK);
        assert_true(span_equal(buf_span(&f->found), span_of(f->state.at, sizes[i])));
    }
}

static void every_flipped_byte_is_found(void **state) {
    struct fixture *f = *state;
    write_backup(f, 20000);
    for (size_t i = 0; i < f->file.size; i++) {
        f->file.at[i] ^= 0x10;
        assert_int_not_equal(read_backup(f, buf_span(&f->file), f->key), OK);
        f->file.at[i] ^= 0x10;
    }
}

static void every_cut_and_every_addition_is_found(void **state) {
    struct fixture *f = *state;
    write_backup(f, 5000);
    for (size_t size = 1; size < f->file.size; size++)
        assert_int_not_equal(read_backup(f, span_of(f->file.at, size), f->key), OK);
    assert_int_equal(buf_u8(&f->file, 0), OK);
    assert_int_equal(read_backup(f, buf_span(&f->file), f->key), ERR_CORRUPT);
}

static void another_key_does_not_open_it(void **state) {
    struct fixture *f = *state;
    struct secret *other;
    assert_int_equal(secret_random(KEY_SIZE, &other), OK);
    write_backup(f, 5000);
    assert_int_equal(read_backup(f, buf_span(&f->file), other), ERR_WRONG_KEY);
    secret_free(other);
}

/* The first chunk's record of one backup in the place of another's, same key, same size. */
static void a_record_of_another_backup_is_found(void **state) {
    struct fixture *f = *state;
    write_backup(f, 2 * BACKUP_CHUNK);
    struct buf other = buf_new(f->file.size);
    assert_int_equal(buf_add_span(&other, buf_span(&f->file)), OK);
    write_backup(f, 2 * BACKUP_CHUNK);
    assert_int_equal(other.size, f->file.size);
    memcpy(f->file.at + 200, other.at + 200, 1000);
    assert_int_equal(read_backup(f, buf_span(&f->file), f->key), ERR_CORRUPT);
    buf_free(&other);
}

static void a_key_goes_through_its_text(void **state) {
    struct fixture *f = *state;
    char text[BACKUP_KEY_TEXT];
    struct secret *back;
    assert_int_equal(backup_key_format(f->key, text), OK);
    assert_int_equal(strlen(text), BACKUP_KEY_TEXT - 1);
    assert_int_equal(backup_key_parse(text, &back, NULL), OK);
    assert_true(secret_equal(f->key, back));
    secret_free(back);
    text[20] = '!';
    assert_int_equal(backup_key_parse(text, &back, NULL), ERR_INVALID);
    assert_int_equal(backup_key_parse("SWMKEY-1-x", &back, NULL), ERR_INVALID);
    assert_int_equal(backup_key_parse("", &back, NULL), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_written_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_cut_and_every_addition_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_key_does_not_open_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_record_of_another_backup_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_key_goes_through_its_text, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
