/* The log against a hostile disk: a power cut in any change, a failure of any call or allocation, a
 * flip of any byte, files cut, swapped, doubled, renamed, missing or older. After each: everything
 * that was acknowledged is there, of what was not a prefix at most; or a refusal that names file
 * and place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/disk_sim.h"
#include "tests/lib/fault.h"
#include "tests/lib/log_box.h"

#define TERMS_MAX 1024

static struct keyring *keys;
static struct disk *keys_disk;

static int set_up(void **state) {
    (void)state;
    keys = box_keys(&keys_disk);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    keyring_close(keys);
    disk_sim_free(keys_disk);
    return 0;
}

/* ---- a life of the log, and what it promised ---- */

/* Live entries [first, next); compaction may leave more below `first`, never less from there on. */
struct promise {
    uint64_t first, next;
    uint64_t terms[TERMS_MAX];
};

struct life {
    struct box box;
    struct promise sure; /* acknowledged */
    struct promise wish; /* if the call that failed was done after all */
    bool failed;         /* a call failed; wish is what it wanted */
};

static bool wanted(struct life *l, enum err e) {
    if (e == OK)
        l->sure = l->wish;
    else
        l->failed = true;
    return e == OK;
}

static bool live_append(struct life *l, uint64_t term, size_t n, size_t size_max) {
    for (size_t i = 0; i < n; i++)
        l->wish.terms[l->wish.next++] = term;
    return wanted(l, box_append(&l->box, term, n, size_max, NULL));
}

static bool live_truncate(struct life *l, uint64_t from) {
    l->wish.next = from;
    return wanted(l, wal_truncate(l->box.wal, from, NULL));
}

static bool live_compact(struct life *l, uint64_t index) {
    l->wish.first = index + 1;
    return wanted(l, wal_compact(l->box.wal, index, NULL));
}

static bool live_reset(struct life *l, uint64_t index) {
    l->wish.first = l->wish.next = index + 1;
    return wanted(l, wal_reset(l->box.wal, index, NULL));
}

static bool live_vote(struct life *l, uint64_t term) {
    return ballot_vote(l->box.ballot, term, 1, NULL) == OK;
}

/* Everything that a log goes through, ended by the first failure. */
static void live(struct life *l) {
    struct wal *w;
    if (box_open(&l->box, NULL) != OK) return;
    w = l->box.wal;
    if (!live_vote(l, 1)) return;
    for (size_t i = 0; i < 10; i++)
        if (!live_append(l, 1, 1 + i % 3, i == 5 ? 20000 : 900)) return;
    if (wal_prepare(w, NULL) != OK || !live_vote(l, 2)) return;
    for (size_t i = 0; i < 8; i++)
        if (!live_append(l, 2, 2, 9000)) return;
    if (!live_truncate(l, 20) || !live_append(l, 3, 3, 500)) return;
    if (!live_compact(l, 12) || !live_append(l, 3, 4, 500)) return;
    if (wal_roll(w, NULL) != OK || !live_append(l, 4, 2, 3000)) return;
    if (!live_compact(l, 24) || wal_mark(w, NULL) != OK) return;
    box_close(&l->box);
    if (box_open(&l->box, NULL) != OK) return;
    if (!live_append(l, 5, 5, 2000) || !live_truncate(l, 26)) return;
    if (!live_append(l, 6, 2, 200) || !live_reset(l, 60)) return;
    if (!live_append(l, 7, 3, 5000)) return;
    if (wal_prepare(l->box.wal, NULL) != OK) return;
}

static struct life *life_new(struct disk *d) {
    struct life *l = calloc(1, sizeof *l);
    assert_non_null(l);
    l->box = (struct box){.disk = d, .keys = keys};
    l->sure.first = l->wish.first = l->sure.next = l->wish.next = 1;
    return l;
}

static void life_free(struct life *l) {
    box_free(&l->box);
    free(l);
}

static bool keeps(const struct box *b, const struct promise *p, uint64_t next) {
    if (wal_last(b->wal) + 1 != next) return false;
    if (b->count != 0 && b->first + b->count != next) return false;
    if (p->first < next && (b->count == 0 || b->first > p->first)) return false;
    for (uint64_t i = p->first; i < next; i++)
        if (i >= b->first && b->terms[i - b->first] != p->terms[i]) return false;
    return true;
}

/* What is there is what was acknowledged, or that and a prefix of what was not. A batch is one
 * record, so the prefix is none or all of it. */
static bool kept(const struct box *b, const struct life *l) {
    if (keeps(b, &l->sure, l->sure.next)) return true;
    return l->failed && keeps(b, &l->wish, l->wish.next);
}

static void must_open(struct box *b, const char *what, uint64_t n, uint64_t seed) {
    struct why why = {0};
    enum err e = box_open(b, &why);
    if (e != OK)
        fail_msg("%s %llu, seed %llu: %s: %s", what, (unsigned long long)n,
                 (unsigned long long)seed, err_name(e), why.text);
    if (b->wrong)
        fail_msg("%s %llu, seed %llu: a wrong entry", what, (unsigned long long)n,
                 (unsigned long long)seed);
}

static void check_kept(struct life *l, const char *what, uint64_t n, uint64_t seed) {
    struct box b = {.disk = l->box.disk, .keys = keys};
    must_open(&b, what, n, seed);
    if (!kept(&b, l))
        fail_msg("%s %llu, seed %llu: entries %llu to %llu are there, %llu to %llu were promised",
                 what, (unsigned long long)n, (unsigned long long)seed, (unsigned long long)b.first,
                 (unsigned long long)wal_last(b.wal), (unsigned long long)l->sure.first,
                 (unsigned long long)l->sure.next - 1);
    if (box_append(&b, 99, 2, 100, NULL) != OK)
        fail_msg("can't append after %s %llu", what, (unsigned long long)n);
    uint64_t last = wal_last(b.wal);
    box_close(&b);
    must_open(&b, what, n, seed);
    assert_int_equal(wal_last(b.wal), last);
    assert_int_equal(b.terms[b.count - 1], 99);
    box_free(&b);
}

static void after_a_power_cut_anywhere_all_that_was_acknowledged_is_there(void **state) {
    (void)state;
    uint64_t n = 0;
    for (bool struck = true; struck;) {
        n++;
        for (uint64_t seed = 0; seed < 12; seed++) {
            struct disk *d = disk_sim_new(seed * 7919 + n);
            struct life *l = life_new(d);
            disk_sim_direct(d, seed % 3 == 0);
            disk_sim_cut_at(d, n);
            live(l);
            struck = disk_sim_failed(d);
            box_close(&l->box);
            disk_sim_crash(d);
            check_kept(l, "power cut", n, seed);
            life_free(l);
            disk_sim_free(d);
        }
    }
    assert_true(n > 100);
}

/* The recovery itself is cut too: what it saw before must still be there after. */
static void a_power_cut_during_the_recovery_loses_nothing(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct disk *d = disk_sim_new(seed);
        struct life *l = life_new(d);
        disk_sim_cut_at(d, 20 + seed * 2);
        live(l);
        box_close(&l->box);
        disk_sim_crash(d);
        bool struck = true;
        for (uint64_t n = 1; struck; n++) {
            struct disk *c = disk_sim_clone(d, seed + n);
            struct box b = {.disk = c, .keys = keys};
            disk_sim_cut_at(c, n);
            enum err e = box_open(&b, NULL);
            struck = disk_sim_failed(c);
            assert_true(e == OK || struck);
            box_free(&b);
            disk_sim_crash(c);
            struct disk *own = l->box.disk;
            l->box.disk = c;
            check_kept(l, "power cut in recovery", n, seed);
            l->box.disk = own;
            disk_sim_free(c);
        }
        life_free(l);
        disk_sim_free(d);
    }
}

static void any_failing_call_is_told_and_harmless(void **state) {
    (void)state;
    const enum err errors[] = {ERR_IO, ERR_NOSPACE, ERR_READONLY};
    for (size_t k = 0; k < ARRAY_SIZE(errors); k++)
        for (uint64_t n = 1, struck = 1; struck != 0; n++) {
            struct disk *d = disk_sim_new(n);
            struct life *l = life_new(d);
            disk_sim_direct(d, n % 2 == 0);
            disk_sim_fail_at(d, n, errors[k]);
            live(l);
            struck = disk_sim_failed(d);
            box_close(&l->box);
            disk_sim_fail_at(d, DISK_SIM_NEVER, OK);
            /* started again at once: what it believes now must survive a crash */
            struct box b = {.disk = d, .keys = keys};
            must_open(&b, "failing call", n, k);
            assert_true(kept(&b, l));
            uint64_t last = wal_last(b.wal);
            box_close(&b);
            disk_sim_crash(d);
            must_open(&b, "failing call", n, k);
            assert_int_equal(wal_last(b.wal), last);
            assert_true(kept(&b, l));
            box_free(&b);
            life_free(l);
            disk_sim_free(d);
        }
}

static void any_failing_allocation_is_told_and_harmless(void **state) {
    (void)state;
    bool fired = true;
    for (unsigned n = 1; fired; n++) {
        struct disk *d = disk_sim_new(n);
        struct life *l = life_new(d);
        fault_alloc_at(n);
        live(l);
        fired = fault_alloc_fired();
        fault_alloc_off();
        box_close(&l->box);
        check_kept(l, "failing allocation", n, 0);
        life_free(l);
        disk_sim_free(d);
    }
}

static void after_a_failed_write_nothing_is_written_any_more(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 2; n++) { /* the write, the sync */
        struct disk *d = disk_sim_new(n);
        struct box b = {.disk = d, .keys = keys};
        must_open(&b, "failed write", n, 0);
        assert_int_equal(box_append(&b, 1, 2, 100, NULL), OK);
        disk_sim_fail_at(d, n, n == 1 ? ERR_NOSPACE : ERR_IO);
        assert_int_equal(box_append(&b, 1, 1, 100, NULL), ERR_IO);
        uint64_t changes = disk_sim_changes(d);
        assert_int_equal(box_append(&b, 1, 1, 100, NULL), ERR_IO);
        assert_int_equal(wal_truncate(b.wal, 2, NULL), ERR_IO);
        assert_int_equal(wal_roll(b.wal, NULL), ERR_IO);
        assert_int_equal(wal_reset(b.wal, 9, NULL), ERR_IO);
        assert_int_equal(wal_compact(b.wal, 1, NULL), ERR_IO);
        assert_int_equal(disk_sim_changes(d), changes);
        assert_int_equal(wal_last(b.wal), 2);
        box_free(&b);
        disk_sim_free(d);
    }
}

static void no_space_at_any_moment_is_refused_and_survived_in_place(void **state) {
    (void)state;
    bool struck = true;
    for (uint64_t n = 1; struck; n++) {
        struct disk *d = disk_sim_new(n);
        struct box b = {.disk = d, .keys = keys};
        must_open(&b, "no space", n, 0);
        disk_sim_fail_at(d, n, ERR_NOSPACE);
        uint64_t refused = 0;
        for (uint64_t i = 1; i <= 20; i++) {
            enum err e = box_append(&b, 1, 1, 9000, NULL);
            if (e == ERR_NOSPACE) refused++;
            if (e == ERR_NOSPACE) e = box_append(&b, 1, 1, 9000, NULL);
            if (e != OK) break; /* it struck where something may have been written: final */
            assert_int_equal(wal_last(b.wal), i);
        }
        struck = disk_sim_failed(d);
        assert_true(refused <= 1);
        box_free(&b);
        disk_sim_free(d);
    }
}

/* ---- torn tails ---- */

/* Leaves only some sectors of the last record; it was never acknowledged. */
static void any_lost_sector_of_the_last_record_makes_it_a_torn_tail(void **state) {
    (void)state;
    const char *name = "log/0000000000000001.seg";
    struct disk *d = disk_sim_new(1);
    struct box b = {.disk = d, .keys = keys};
    must_open(&b, "torn", 0, 0);
    assert_int_equal(box_append(&b, 1, 4, 100, NULL), OK);
    struct entry *e = NULL;
    assert_int_equal(entry_new(5, 1, ENTRY_COMMAND, 7000, &e), OK);
    memset(e->data, 0, 7000);
    struct disk *before = disk_sim_clone(d, 1);
    assert_int_equal(wal_append(b.wal, &e, 1, NULL), OK);
    entry_drop(e);
    box_close(&b);
    for (unsigned lost = 1; lost < 1u << 14; lost += 1 + lost % 13) {
        struct disk *c = disk_sim_clone(before, lost);
        assert_true(disk_sim_import(c, d, name));
        for (uint64_t s = 0; s < 14; s++)
            if (lost >> s & 1) assert_true(disk_sim_zero(c, name, 8192 + s * 512, 512));
        b.disk = c;
        must_open(&b, "torn", lost, 0);
        assert_int_equal(b.count, 4);
        assert_int_equal(b.torn, lost != (1u << 14) - 1);
        assert_int_equal(box_append(&b, 2, 1, 100, NULL), OK);
        box_close(&b);
        must_open(&b, "torn, later", lost, 0);
        assert_int_equal(b.count, 5);
        assert_int_equal(b.terms[4], 2);
        box_free(&b);
        disk_sim_free(c);
    }
    disk_sim_free(before);
    disk_sim_free(d);
}

/* ---- damage ---- */

/* A log of several segments as it lies there after a clean stop (marked) or a kill. */
static struct disk *left(uint64_t *count, bool marked) {
    struct disk *d = disk_sim_new(3);
    struct box b = {.disk = d, .keys = keys};
    must_open(&b, "building", 0, 0);
    assert_int_equal(ballot_vote(b.ballot, 1, 1, NULL), OK);
    for (size_t i = 0; i < 30; i++)
        assert_int_equal(box_append(&b, 1, 1 + i % 4, 2500, NULL), OK);
    assert_int_equal(wal_truncate(b.wal, 40, NULL), OK);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(box_append(&b, 2, 2, 4000, NULL), OK);
    assert_int_equal(wal_compact(b.wal, 38, NULL), OK);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(box_append(&b, 2, 1, 2500, NULL), OK);
    if (marked) assert_int_equal(wal_mark(b.wal, NULL), OK);
    *count = wal_last(b.wal);
    box_free(&b);
    return d;
}

static struct disk *stopped(uint64_t *count) { return left(count, true); }

/* OK only with the same data as before; otherwise a refusal that names a file of the disk and a
 * byte. */
static enum err judge(struct disk *d, uint64_t last, struct why *why) {
    struct box b = {.disk = d, .keys = keys};
    enum err e = box_open(&b, why);
    if (e == OK) {
        assert_false(b.wrong);
        assert_int_equal(wal_last(b.wal), last);
        assert_true(b.count != 0 && b.first > 1 && b.first <= 39);
        for (uint64_t i = b.first; i <= last; i++)
            assert_int_equal(b.terms[i - b.first], i < 40 ? 1 : 2);
        for (uint64_t i = b.first; i <= last; i += 5) {
            struct entry *entry = NULL;
            assert_int_equal(wal_read(b.wal, i, &entry, NULL), OK);
            assert_true(box_entry_right(entry));
            entry_drop(entry);
        }
    }
    box_free(&b);
    return e;
}

static void flip_all(uint64_t every, uint8_t mask, bool marked) {
    uint64_t last, refused = 0;
    struct disk *d = left(&last, marked);
    for (size_t i = 0; disk_sim_name(d, i) != NULL; i++) {
        char name[PATH_ROOM];
        (void)snprintf(name, sizeof name, "%s", disk_sim_name(d, i));
        for (uint64_t at = 0; at < disk_sim_size(d, name); at += every) {
            struct disk *c = disk_sim_clone(d, at);
            struct why why = {0};
            assert_true(disk_sim_flip(c, name, at, mask));
            enum err e = judge(c, last, &why);
            if (e != OK && (e != ERR_CORRUPT || strstr(why.text, name) == NULL ||
                            strstr(why.text, "byte ") == NULL))
                fail_msg("%s byte %llu: %s: %s", name, (unsigned long long)at, err_name(e),
                         why.text);
            refused += e != OK;
            disk_sim_free(c);
        }
    }
    assert_true(refused > 1000 / every);
    disk_sim_free(d);
}

static void every_64th_flipped_byte_is_refused_or_harmless(void **state) {
    (void)state;
    flip_all(64, 0x01, true);
    flip_all(61, 0x80, false);
}

/* Without the mark of a clean stop only the log itself can tell; what lies behind tells. */
static void a_lost_sector_of_a_record_that_has_a_successor_is_damage(void **state) {
    (void)state;
    uint64_t last;
    struct disk *d = left(&last, false);
    const char *name = NULL;
    for (size_t i = 0; disk_sim_name(d, i) != NULL; i++)
        if (strstr(disk_sim_name(d, i), ".seg") != NULL) name = disk_sim_name(d, i);
    uint64_t end = disk_sim_size(d, name);
    while (disk_sim_is_zero(d, name, end - BLOCK_SIZE, BLOCK_SIZE))
        end -= BLOCK_SIZE;
    assert_true(end >= 4 * BLOCK_SIZE);
    for (uint64_t at = BLOCK_SIZE; at < end - BLOCK_SIZE; at += SECTOR_SIZE) {
        if (disk_sim_is_zero(d, name, at, SECTOR_SIZE)) continue;
        struct disk *c = disk_sim_clone(d, at);
        struct why why = {0};
        assert_true(disk_sim_zero(c, name, at, SECTOR_SIZE));
        assert_int_equal(judge(c, last, &why), ERR_CORRUPT);
        assert_non_null(strstr(why.text, name));
        disk_sim_free(c);
    }
    disk_sim_free(d);
}

static void an_older_ballot_than_a_record_saw_is_found_out(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct box b = {.disk = d, .keys = keys};
    struct why why = {0};
    must_open(&b, "building", 0, 0);
    assert_int_equal(box_append(&b, 1, 1, 100, NULL), OK);
    struct disk *old = disk_sim_clone(d, 1);
    assert_int_equal(ballot_vote(b.ballot, 4, 1, NULL), OK);
    assert_int_equal(box_append(&b, 4, 1, 100, NULL), OK);
    box_close(&b);
    assert_true(disk_sim_import(d, old, "ballot"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(box_open(&b, &why), ERR_CORRUPT);
        assert_non_null(strstr(why.text, "ballot: byte 0: an older copy"));
        box_close(&b);
    }
    box_free(&b);
    disk_sim_free(old);
    disk_sim_free(d);
}

static void every_flipped_byte_of_a_header_and_a_record_is_refused(void **state) {
    (void)state;
    uint64_t last;
    struct disk *d = stopped(&last);
    const char *name = disk_sim_name(d, 1);
    for (uint64_t at = 0; at < 3 * BLOCK_SIZE; at++) {
        struct why why = {0};
        assert_true(disk_sim_flip(d, name, at, (uint8_t)(1u << at % 8)));
        struct disk *c = disk_sim_clone(d, at);
        assert_int_equal(judge(c, last, &why), ERR_CORRUPT);
        assert_non_null(strstr(why.text, name));
        disk_sim_free(c);
        assert_true(disk_sim_flip(d, name, at, (uint8_t)(1u << at % 8)));
    }
    disk_sim_free(d);
}

static void must_refuse(struct disk *d, uint64_t last, const char *what, const char *name) {
    struct why why = {0};
    enum err e = judge(d, last, &why);
    if (e != ERR_CORRUPT || strstr(why.text, "byte ") == NULL)
        fail_msg("%s %s: %s: %s", what, name, err_name(e), why.text);
}

/* The segments' names, oldest first. */
static size_t segment_names(struct disk *d, char names[16][PATH_ROOM]) {
    size_t n = 0;
    for (size_t i = 0; disk_sim_name(d, i) != NULL && n < 16; i++)
        if (strstr(disk_sim_name(d, i), ".seg") != NULL)
            (void)snprintf(names[n++], PATH_ROOM, "%s", disk_sim_name(d, i));
    return n;
}

static void a_segment_of_another_size_is_refused(void **state) {
    (void)state;
    char names[16][PATH_ROOM];
    uint64_t last;
    struct disk *d = stopped(&last);
    size_t n = segment_names(d, names);
    const uint64_t sizes[] = {0, 1, 100, 4095, 4096, 8192, 60000, 65535, 65537, 131072};
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
            struct disk *c = disk_sim_clone(d, 1);
            assert_true(disk_sim_resize(c, names[i], sizes[k]));
            must_refuse(c, last, "resized", names[i]);
            disk_sim_free(c);
        }
    disk_sim_free(d);
}

static void a_missing_swapped_or_doubled_segment_is_refused(void **state) {
    (void)state;
    char names[16][PATH_ROOM];
    uint64_t last;
    struct disk *d = stopped(&last);
    size_t n = segment_names(d, names);
    assert_true(n >= 3);
    for (size_t i = 0; i < n; i++) {
        struct disk *c = disk_sim_clone(d, 1);
        assert_true(disk_sim_erase(c, names[i]));
        must_refuse(c, last, "missing", names[i]);
        disk_sim_free(c);
        for (size_t k = 0; k < n; k++) {
            if (k == i) continue;
            c = disk_sim_clone(d, 1);
            assert_true(disk_sim_copy(c, names[i], names[k]));
            must_refuse(c, last, "copied over another", names[i]);
            assert_true(disk_sim_import(c, d, names[i]) && disk_sim_copy(c, names[k], "x"));
            disk_sim_free(c);
            c = disk_sim_clone(d, 1);
            assert_true(disk_sim_copy(c, names[i], "x") && disk_sim_move(c, names[k], names[i]) &&
                        disk_sim_move(c, "x", names[k]));
            must_refuse(c, last, "swapped", names[i]);
            disk_sim_free(c);
        }
        const char *const others[] = {"log/0000000000000001.seg", "log/00000000000000ff.seg"};
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            if (strcmp(others[k], names[i]) == 0) continue;
            c = disk_sim_clone(d, 1);
            assert_true(disk_sim_copy(c, names[i], others[k]));
            must_refuse(c, last, "doubled", names[i]);
            disk_sim_free(c);
            c = disk_sim_clone(d, 1);
            assert_true(disk_sim_move(c, names[i], others[k]));
            must_refuse(c, last, "renamed", names[i]);
            disk_sim_free(c);
        }
    }
    disk_sim_free(d);
}

static void a_record_moved_or_copied_within_a_segment_is_refused(void **state) {
    (void)state;
    uint64_t last;
    struct disk *d = stopped(&last);
    const char *name = disk_sim_name(d, 1);
    for (uint64_t from = 1; from < 8; from++)
        for (uint64_t to = 1; to < 8; to++) {
            if (from == to) continue;
            struct disk *c = disk_sim_clone(d, 1);
            assert_true(
                disk_sim_move_bytes(c, name, from * BLOCK_SIZE, to * BLOCK_SIZE, BLOCK_SIZE));
            must_refuse(c, last, "record copied", name);
            disk_sim_free(c);
        }
    disk_sim_free(d);
}

/* Copies of each file from each moment of the log's life, put beside the files of its end. */
static void an_older_copy_of_any_file_is_found_out(void **state) {
    (void)state;
    uint64_t last = 0, refused = 0;
    struct disk *old[24];
    struct disk *d = disk_sim_new(3);
    struct box b = {.disk = d, .keys = keys};
    must_open(&b, "building", 0, 0);
    for (size_t i = 0; i < ARRAY_SIZE(old); i++) {
        old[i] = disk_sim_clone(d, i);
        if (i % 8 == 7) assert_int_equal(ballot_vote(b.ballot, i, 1, NULL), OK);
        assert_int_equal(box_append(&b, 1, 2, 4000, NULL), OK);
        assert_int_equal(box_append(&b, 1, 2, 4000, NULL), OK);
    }
    assert_int_equal(wal_mark(b.wal, NULL), OK);
    last = wal_last(b.wal);
    box_free(&b);
    for (size_t i = 0; i < ARRAY_SIZE(old); i++) {
        for (size_t k = 0; disk_sim_name(old[i], k) != NULL; k++) {
            char name[PATH_ROOM];
            (void)snprintf(name, sizeof name, "%s", disk_sim_name(old[i], k));
            struct disk *c = disk_sim_clone(d, 1), *fresh = disk_sim_clone(d, 1);
            assert_true(disk_sim_import(c, old[i], name));
            struct why why = {0};
            b.disk = c;
            enum err e = box_open(&b, &why);
            if (e == OK) assert_false(b.wrong);
            if (e == OK) assert_int_equal(wal_last(b.wal), last);
            if (e != OK) assert_int_equal(e, ERR_CORRUPT);
            if (e == OK && !disk_sim_same(c, fresh, name) && strcmp(name, "ballot") != 0)
                fail_msg("an older %s (%zu) was accepted", name, i);
            refused += e != OK;
            box_free(&b);
            disk_sim_free(c);
            disk_sim_free(fresh);
        }
        disk_sim_free(old[i]);
    }
    assert_true(refused > 24);
    disk_sim_free(d);
}

static void a_log_of_another_node_or_under_another_key_is_refused(void **state) {
    (void)state;
    uint64_t last;
    struct disk *d = stopped(&last), *other_disk = NULL;
    struct keyring *other = box_keys(&other_disk);
    struct box b = {.disk = d, .keys = other};
    assert_int_equal(box_open(&b, NULL), ERR_CORRUPT);
    box_free(&b);
    keyring_close(other);
    disk_sim_free(other_disk);
    disk_sim_free(d);
}

static void nothing_that_was_written_can_be_read_on_the_disk(void **state) {
    (void)state;
    struct disk *d = disk_sim_new(1);
    struct box b = {.disk = d, .keys = keys};
    struct span needle = span_str("a value that nobody may see");
    struct entry *e = NULL;
    must_open(&b, "building", 0, 0);
    assert_int_equal(entry_new(1, 1, ENTRY_COMMAND, needle.size, &e), OK);
    memcpy(e->data, needle.at, needle.size);
    assert_int_equal(wal_append(b.wal, &e, 1, NULL), OK);
    entry_drop(e);
    assert_false(disk_sim_contains(d, needle));
    assert_false(disk_sim_contains(d, span_str("node0123456789abcdefghijk")));
    assert_true(disk_sim_contains(d, span_str("CONCSEGM")));
    box_free(&b);
    disk_sim_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_a_power_cut_anywhere_all_that_was_acknowledged_is_there),
        cmocka_unit_test(a_power_cut_during_the_recovery_loses_nothing),
        cmocka_unit_test(any_failing_call_is_told_and_harmless),
        cmocka_unit_test(any_failing_allocation_is_told_and_harmless),
        cmocka_unit_test(after_a_failed_write_nothing_is_written_any_more),
        cmocka_unit_test(no_space_at_any_moment_is_refused_and_survived_in_place),
        cmocka_unit_test(any_lost_sector_of_the_last_record_makes_it_a_torn_tail),
        cmocka_unit_test(every_64th_flipped_byte_is_refused_or_harmless),
        cmocka_unit_test(a_lost_sector_of_a_record_that_has_a_successor_is_damage),
        cmocka_unit_test(an_older_ballot_than_a_record_saw_is_found_out),
        cmocka_unit_test(every_flipped_byte_of_a_header_and_a_record_is_refused),
        cmocka_unit_test(a_segment_of_another_size_is_refused),
        cmocka_unit_test(a_missing_swapped_or_doubled_segment_is_refused),
        cmocka_unit_test(a_record_moved_or_copied_within_a_segment_is_refused),
        cmocka_unit_test(an_older_copy_of_any_file_is_found_out),
        cmocka_unit_test(a_log_of_another_node_or_under_another_key_is_refused),
        cmocka_unit_test(nothing_that_was_written_can_be_read_on_the_disk),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
