/* Snapshots: what was written is read back chunk by chunk; a file that is not whole, not the one
 * that its name says, or not as it was written is found out; faults leave the old snapshot or the
 * new one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "raft/snapshot.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/fault.h"
#include "tests/lib/log_box.h"

#define STATE_SIZE (600 * 1024) /* three chunks: one that LZ4 squeezes, two that it can't */

static struct keyring *keys;
static struct disk *keys_disk;
static uint8_t *state_bytes;
static const uint8_t hash[STATE_HASH_SIZE] = "the hash of the state";

static int set_up(void **state) {
    (void)state;
    keys = box_keys(&keys_disk);
    state_bytes = malloc(STATE_SIZE);
    assert_non_null(state_bytes);
    uint64_t random = 1;
    for (size_t i = 0; i < STATE_SIZE; i++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        state_bytes[i] = (uint8_t)(i < SNAPSHOT_CHUNK ? i / 1000 : random >> 56);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free(state_bytes);
    keyring_close(keys);
    disk_sim_free(keys_disk);
    return 0;
}

static struct snapshot_options options(struct disk *d) {
    return (struct snapshot_options){
        .disk = d, .keys = keys, .identity = {"cluster", "node"}, .alg = SEAL_XCHACHA20};
}

static struct snapshot_meta meta_of(uint64_t index) {
    return (struct snapshot_meta){
        .index = index, .term = 3, .conf_index = 2, .conf = span_str("the configuration")};
}

static enum err take(struct disk *d, uint64_t index, size_t size, struct why *why) {
    struct snapshot_options o = options(d);
    struct snapshot_meta m = meta_of(index);
    struct snapshot_writer *w = NULL;
    enum err e = snapshot_create(&o, &m, &w, why);
    if (e != OK) return e;
    e = snapshot_write(w, span_of(state_bytes, size), why);
    if (e == OK) return snapshot_finish(w, hash, why);
    snapshot_abort(w);
    return e;
}

static void must_take(struct disk *d, uint64_t index, size_t size) {
    struct why why = {0};
    enum err e = take(d, index, size, &why);
    if (e != OK) fail_msg("%s: %s", err_name(e), why.text);
}

/* Reads all of it; OK only if every byte is as written. */
static enum err verify(struct disk *d, uint64_t index, size_t size, struct why *why) {
    struct snapshot_options o = options(d);
    struct snapshot_meta m;
    struct snapshot_reader *r = NULL;
    struct buf scratch = buf_new(SNAPSHOT_CHUNK), raw = buf_new(SNAPSHOT_CHUNK);
    struct snapshot_chunk c;
    size_t at = 0;
    enum err e = snapshot_open(&o, index, &r, &m, why);
    if (e != OK) return e;
    bool same = m.index == index && m.term == 3 && m.conf_index == 2 &&
                span_equal(m.conf, span_str("the configuration"));
    for (uint64_t k = 0; e == OK && k < snapshot_chunks(r); k++) {
        e = snapshot_read(r, k, &scratch, &c, why);
        if (e != OK || c.last) break;
        e = snapshot_inflate(&c, &raw);
        if (e != OK) break;
        same = same && at + raw.size <= size && memcmp(state_bytes + at, raw.at, raw.size) == 0;
        at += raw.size;
    }
    if (e == OK) same = same && c.last && at == size && memcmp(c.data.at, hash, sizeof hash) == 0;
    snapshot_close(r);
    buf_free(&scratch);
    buf_free(&raw);
    if (e == OK) assert_true(same);
    return e;
}

static void must_verify(struct disk *d, uint64_t index, size_t size) {
    struct why why = {0};
    enum err e = verify(d, index, size, &why);
    if (e != OK) fail_msg("%s: %s", err_name(e), why.text);
}

static void what_was_written_is_read_back(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, 1000, SNAPSHOT_CHUNK, SNAPSHOT_CHUNK + 1, STATE_SIZE};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct disk *d = disk_sim_new(1);
        must_take(d, 77, sizes[i]);
        disk_sim_crash(d);
        must_verify(d, 77, sizes[i]);
        disk_sim_free(d);
    }
}

static void what_lz4_can_not_shrink_is_kept_as_it_is(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct snapshot_options o = options(d);
    struct snapshot_reader *r = NULL;
    struct snapshot_meta m;
    struct snapshot_chunk c;
    struct buf scratch = buf_new(SNAPSHOT_CHUNK);
    must_take(d, 5, STATE_SIZE);
    assert_int_equal(snapshot_open(&o, 5, &r, &m, NULL), OK);
    assert_int_equal(snapshot_chunks(r), 4);
    assert_int_equal(snapshot_read(r, 1, &scratch, &c, NULL), OK);
    assert_false(c.compressed);
    assert_int_equal(c.data.size, SNAPSHOT_CHUNK);
    assert_int_equal(snapshot_read(r, 0, &scratch, &c, NULL), OK);
    assert_true(c.compressed);
    assert_true(c.data.size < SNAPSHOT_CHUNK / 10);
    assert_int_equal(snapshot_read(r, 4, &scratch, &c, NULL), ERR_NOT_FOUND);
    snapshot_close(r);
    buf_free(&scratch);
    disk_sim_free(d);
}

/* As from one member to another. */
static void chunks_travel_to_another_file(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1), *other = disk_sim_new(2);
    struct snapshot_options from = options(d), to = options(other);
    struct snapshot_reader *r = NULL;
    struct snapshot_writer *w = NULL;
    struct snapshot_meta m;
    struct snapshot_chunk c;
    struct buf scratch = buf_new(SNAPSHOT_CHUNK);
    must_take(d, 9, STATE_SIZE);
    assert_int_equal(snapshot_open(&from, 9, &r, &m, NULL), OK);
    assert_int_equal(snapshot_create(&to, &m, &w, NULL), OK);
    for (uint64_t k = 0; k < snapshot_chunks(r); k++) {
        assert_int_equal(snapshot_next_chunk(w), k);
        assert_int_equal(snapshot_read(r, k, &scratch, &c, NULL), OK);
        c.number++;
        assert_int_equal(snapshot_write_chunk(w, &c, NULL), ERR_PROTOCOL);
        c.number--;
        assert_int_equal(snapshot_write_chunk(w, &c, NULL), OK);
    }
    assert_int_equal(snapshot_finish(w, c.data.at, NULL), OK);
    snapshot_close(r);
    must_verify(other, 9, STATE_SIZE);
    buf_free(&scratch);
    disk_sim_free(d);
    disk_sim_free(other);
}

static void a_chunk_that_contradicts_itself_is_refused(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct snapshot_options o = options(d);
    struct snapshot_meta m = meta_of(1);
    struct snapshot_writer *w = NULL;
    struct span ten = span_of(state_bytes, 10);
    const struct snapshot_chunk bad[] = {
        {.raw_size = 9, .data = ten},
        {.raw_size = 0},
        {.raw_size = 10, .data = ten, .compressed = true},
        {.raw_size = SNAPSHOT_CHUNK + 1, .data = ten, .compressed = true},
        {.raw_size = 10, .data = ten, .last = true},
        {.data = span_of(state_bytes, STATE_HASH_SIZE + 8), .last = true, .compressed = true},
        {.raw_size = SNAPSHOT_CHUNK + 1, .data = span_of(state_bytes, SNAPSHOT_CHUNK + 1)},
    };
    assert_int_equal(snapshot_create(&o, &m, &w, NULL), OK);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(snapshot_write_chunk(w, &bad[i], NULL), ERR_PROTOCOL);
    snapshot_abort(w);
    assert_null(disk_sim_name(d, 0));
    struct buf raw = buf_new(SNAPSHOT_CHUNK);
    struct snapshot_chunk torn = {.raw_size = 100, .data = ten, .compressed = true};
    assert_int_equal(snapshot_inflate(&torn, &raw), ERR_CORRUPT);
    buf_free(&raw);
    disk_sim_free(d);
}

static void the_newest_is_found_and_older_ones_are_removed(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct snapshot_options o = options(d);
    uint64_t index = 1;
    assert_int_equal(snapshot_latest(&o, &index, NULL), OK);
    assert_int_equal(index, 0);
    must_take(d, 9, 10);
    must_take(d, 300, 20);
    must_take(d, 17, 30);
    assert_int_equal(disk_write_file(d, "snapshots/0000000000000fff.part", span_str("x"), NULL),
                     OK);
    assert_int_equal(snapshot_latest(&o, &index, NULL), OK);
    assert_int_equal(index, 300);
    assert_int_equal(disk_sim_size(d, "snapshots/0000000000000fff.part"), DISK_SIM_NEVER);
    assert_int_equal(snapshot_remove_before(&o, 300, NULL), OK);
    assert_string_equal(disk_sim_name(d, 0), "snapshots/000000000000012c.snap");
    assert_null(disk_sim_name(d, 1));
    disk_sim_free(d);
}

static void a_damaged_newest_is_not_passed_over(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct snapshot_options o = options(d);
    uint64_t index = 0;
    must_take(d, 9, 10);
    must_take(d, 10, 10);
    assert_true(disk_sim_flip(d, "snapshots/000000000000000a.snap", 100, 1));
    assert_int_equal(snapshot_latest(&o, &index, NULL), ERR_CORRUPT);
    disk_sim_free(d);
}

static void every_flipped_byte_is_found_by_reading_all(void **state) {
    (void)state;
    const char *name = "snapshots/0000000000000009.snap";
    struct disk *d = disk_sim_new(1);
    must_take(d, 9, 40000); /* one compressed chunk: a small file, every byte of it */
    uint64_t size = disk_sim_size(d, name);
    for (uint64_t at = 0; at < size; at++) {
        struct why why = {0};
        uint8_t mask = (uint8_t)(1u << at % 8);
        assert_true(disk_sim_flip(d, name, at, mask));
        assert_int_equal(verify(d, 9, 40000, &why), ERR_CORRUPT);
        assert_non_null(strstr(why.text, "snapshots/0000000000000009.snap: byte "));
        assert_true(disk_sim_flip(d, name, at, mask));
    }
    must_verify(d, 9, 40000);
    must_take(d, 9, STATE_SIZE);
    size = disk_sim_size(d, name);
    for (uint64_t at = 0; at < size; at += 1531) {
        assert_true(disk_sim_flip(d, name, at, 0x80));
        assert_int_equal(verify(d, 9, STATE_SIZE, NULL), ERR_CORRUPT);
        assert_true(disk_sim_flip(d, name, at, 0x80));
    }
    disk_sim_free(d);
}

static void a_file_of_another_size_is_refused(void **state) {
    (void)state;
    const char *name = "snapshots/0000000000000009.snap";
    struct disk *d = disk_sim_new(1);
    must_take(d, 9, 3000);
    uint64_t size = disk_sim_size(d, name);
    for (uint64_t cut = 0; cut < size + 600; cut += 7) {
        if (cut == size) continue;
        struct disk *c = disk_sim_clone(d, 1);
        assert_true(disk_sim_resize(c, name, cut));
        assert_int_equal(verify(c, 9, 3000, NULL), ERR_CORRUPT);
        disk_sim_free(c);
    }
    disk_sim_free(d);
}

static void a_snapshot_under_another_name_is_refused(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct snapshot_options o = options(d);
    struct why why = {0};
    uint64_t index = 0;
    must_take(d, 9, 100);
    const char *other = "snapshots/000000000000000b.snap";
    assert_true(disk_sim_copy(d, "snapshots/0000000000000009.snap", other));
    assert_int_equal(snapshot_latest(&o, &index, &why), ERR_CORRUPT);
    assert_non_null(strstr(why.text, other));
    o.identity.node_id[0] = 'x';
    struct snapshot_reader *r = NULL;
    struct snapshot_meta m;
    assert_int_equal(snapshot_open(&o, 9, &r, &m, NULL), ERR_CORRUPT);
    disk_sim_free(d);
}

static void an_older_ballot_is_found_out(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct snapshot_options o = options(d);
    struct snapshot_meta m = meta_of(4);
    struct snapshot_writer *w = NULL;
    struct snapshot_reader *r = NULL;
    assert_int_equal(ballot_open(d, keys, &o.identity, o.alg, &o.ballot, NULL), OK);
    struct disk *old = disk_sim_clone(d, 1);
    assert_int_equal(ballot_vote(o.ballot, 2, 1, NULL), OK);
    assert_int_equal(snapshot_create(&o, &m, &w, NULL), OK);
    assert_int_equal(snapshot_finish(w, hash, NULL), OK);
    assert_int_equal(snapshot_open(&o, 4, &r, &m, NULL), OK);
    snapshot_close(r);
    ballot_close(o.ballot);
    assert_true(disk_sim_import(d, old, "ballot"));
    assert_int_equal(ballot_open(d, keys, &o.identity, o.alg, &o.ballot, NULL), OK);
    assert_int_equal(snapshot_open(&o, 4, &r, &m, NULL), ERR_CORRUPT);
    ballot_close(o.ballot);
    disk_sim_free(d);
    disk_sim_free(old);
}

/* ---- sweeps ---- */

/* The old snapshot is there and good; the new one is whole or not there. */
static void check_after(struct disk *d, bool acknowledged) {
    struct snapshot_options o = options(d);
    struct why why = {0};
    uint64_t index = 0;
    enum err e = snapshot_latest(&o, &index, &why);
    if (e != OK) fail_msg("%s: %s", err_name(e), why.text);
    assert_true(index == 1000 || (index == 500 && !acknowledged));
    must_verify(d, index, index == 1000 ? 300000 : 1000);
    must_verify(d, 500, 1000);
}

static void after_a_power_cut_anywhere_the_old_or_the_new_one_is_there(void **state) {
    (void)state;
    bool struck = true;
    for (uint64_t n = 1; struck; n++)
        for (uint64_t seed = 0; seed < 5; seed++) {
            struct disk *d = disk_sim_new(seed);
            must_take(d, 500, 1000);
            disk_sim_cut_at(d, n);
            bool acknowledged = take(d, 1000, 300000, NULL) == OK;
            struck = disk_sim_failed(d);
            disk_sim_crash(d);
            check_after(d, acknowledged);
            disk_sim_free(d);
        }
}

static void any_failing_call_leaves_the_old_or_the_new_one(void **state) {
    (void)state;
    bool struck = true;
    for (uint64_t n = 1; struck; n++) {
        struct disk *d = disk_sim_new(n);
        must_take(d, 500, 1000);
        disk_sim_fail_at(d, n, n % 2 == 0 ? ERR_IO : ERR_NOSPACE);
        bool acknowledged = take(d, 1000, 300000, NULL) == OK;
        struck = disk_sim_failed(d);
        disk_sim_fail_at(d, DISK_SIM_NEVER, OK);
        check_after(d, acknowledged);
        disk_sim_crash(d);
        check_after(d, acknowledged);
        must_take(d, 1000, 300000);
        disk_sim_free(d);
    }
}

static void any_failing_allocation_is_told(void **state) {
    (void)state;
    bool fired = true;
    for (unsigned n = 1; fired; n++) {
        struct disk *d = disk_sim_new(n);
        must_take(d, 500, 1000);
        fault_alloc_at(n);
        bool acknowledged = take(d, 1000, 300000, NULL) == OK;
        enum err e = acknowledged ? verify(d, 1000, 300000, NULL) : OK;
        fired = fault_alloc_fired();
        fault_alloc_off();
        assert_true(e == OK || e == ERR_NOMEM);
        check_after(d, acknowledged);
        disk_sim_free(d);
    }
}

static void a_full_disk_refuses_and_keeps_what_is_there(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    must_take(d, 500, 1000);
    disk_sim_limit(d, 200000);
    assert_int_equal(take(d, 1000, 600000, NULL), ERR_NOSPACE);
    check_after(d, false);
    disk_sim_limit(d, DISK_SIM_NEVER);
    must_take(d, 1000, 300000);
    check_after(d, true);
    disk_sim_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read_back),
        cmocka_unit_test(what_lz4_can_not_shrink_is_kept_as_it_is),
        cmocka_unit_test(chunks_travel_to_another_file),
        cmocka_unit_test(a_chunk_that_contradicts_itself_is_refused),
        cmocka_unit_test(the_newest_is_found_and_older_ones_are_removed),
        cmocka_unit_test(a_damaged_newest_is_not_passed_over),
        cmocka_unit_test(every_flipped_byte_is_found_by_reading_all),
        cmocka_unit_test(a_file_of_another_size_is_refused),
        cmocka_unit_test(a_snapshot_under_another_name_is_refused),
        cmocka_unit_test(an_older_ballot_is_found_out),
        cmocka_unit_test(after_a_power_cut_anywhere_the_old_or_the_new_one_is_there),
        cmocka_unit_test(any_failing_call_leaves_the_old_or_the_new_one),
        cmocka_unit_test(any_failing_allocation_is_told),
        cmocka_unit_test(a_full_disk_refuses_and_keeps_what_is_there),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
