/* The journal: what gathers while a write is under way goes out as one, a truncated tail's late
 * completion says nothing, and a full disk loses nothing. The exec is driven by hand; disk and log
 * are real code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/journal.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/log_box.h"

#define SEGMENT (64 * KIB)

struct hand_exec {
    struct exec exec;         /* first */
    struct job *head, **tail; /* waiting */
};

struct bench_of_one {
    struct disk *disk, *keys_disk;
    struct keyring *keys;
    struct ballot *ballot;
    struct hand_exec log, side;
    struct journal journal;
    unsigned told;   /* persisted hook */
    enum err failed; /* failed hook */
};

static void submit(struct exec *e, struct job *j) {
    struct hand_exec *h = (struct hand_exec *)e;
    j->next = NULL;
    *h->tail = j;
    h->tail = &j->next;
}

static bool run_one(struct hand_exec *h) {
    struct job *j = h->head;
    if (j == NULL) return false;
    h->head = j->next;
    if (h->head == NULL) h->tail = &h->head;
    j->run(j);
    j->done(j);
    return true;
}

static void on_persisted(void *ctx) { ((struct bench_of_one *)ctx)->told++; }

static void on_failed(void *ctx, enum err e, const char *text) {
    (void)text;
    ((struct bench_of_one *)ctx)->failed = e;
}

static enum err load(void *ctx, struct entry *e) {
    return journal_load(&((struct bench_of_one *)ctx)->journal, e);
}

static void start(struct bench_of_one *b) {
    struct identity identity = {.cluster_id = "cluster", .node_id = "node"};
    struct journal_hooks hooks = {.ctx = b, .persisted = on_persisted, .failed = on_failed};
    struct wal *wal;
    b->log = (struct hand_exec){.exec = {.submit = submit}, .tail = &b->log.head};
    b->side = (struct hand_exec){.exec = {.submit = submit}, .tail = &b->side.head};
    assert_int_equal(ballot_open(b->disk, b->keys, &identity, SEAL_XCHACHA20, &b->ballot, NULL),
                     OK);
    struct wal_options o = {.disk = b->disk,
                            .keys = b->keys,
                            .ballot = b->ballot,
                            .identity = identity,
                            .alg = SEAL_XCHACHA20,
                            .segment_size = SEGMENT};
    assert_int_equal(journal_open(&b->journal, &b->log.exec, &b->side.exec, &hooks), OK);
    assert_int_equal(wal_open(&o, load, b, NULL, &wal, NULL), OK);
    journal_start(&b->journal, wal);
}

static void stop(struct bench_of_one *b) {
    journal_close(&b->journal);
    ballot_close(b->ballot);
}

static struct bench_of_one *begin(struct bench_of_one *b) {
    *b = (struct bench_of_one){.disk = disk_sim_new(3)};
    b->keys = box_keys(&b->keys_disk);
    start(b);
    return b;
}

static void end(struct bench_of_one *b) {
    stop(b);
    keyring_close(b->keys);
    disk_sim_free(b->disk);
    disk_sim_free(b->keys_disk);
}

static void append(struct bench_of_one *b, uint64_t index, uint64_t term, size_t size) {
    struct entry *e;
    assert_int_equal(entry_new(index, term, ENTRY_COMMAND, size, &e), OK);
    memset(e->data, (int)index, size);
    assert_int_equal(journal_append(&b->journal, e), OK);
    entry_drop(e);
}

static void drain(struct bench_of_one *b) {
    do
        journal_kick(&b->journal);
    while (run_one(&b->log) || run_one(&b->side));
}

static void what_gathers_during_a_write_is_written_as_one(void **state) {
    (void)state;
    struct bench_of_one b;
    begin(&b);
    append(&b, 1, 1, 10);
    journal_kick(&b.journal);
    for (uint64_t i = 2; i <= 50; i++) {
        append(&b, i, 1, 10);
        journal_kick(&b.journal);
    }
    assert_int_equal(b.journal.persisted, 0);
    assert_true(run_one(&b.log));
    assert_int_equal(b.journal.persisted, 1);
    journal_kick(&b.journal);
    assert_true(run_one(&b.log));
    assert_int_equal(b.journal.persisted, 50);
    assert_false(run_one(&b.log));
    end(&b);
}

static void a_truncated_tail_is_not_reported(void **state) {
    (void)state;
    struct bench_of_one b;
    begin(&b);
    for (uint64_t i = 1; i <= 5; i++)
        append(&b, i, 1, 10);
    journal_kick(&b.journal);
    append(&b, 3, 2, 10); /* replaces 3..5 while they are being written */
    assert_true(run_one(&b.log));
    assert_int_equal(b.journal.persisted, 2);
    drain(&b);
    assert_int_equal(b.journal.persisted, 3);
    stop(&b);
    start(&b);
    assert_int_equal(b.journal.last, 3);
    assert_int_equal(journal_peek(&b.journal, 3)->term, 2);
    end(&b);
}

static void a_full_disk_loses_nothing_and_goes_on_later(void **state) {
    (void)state;
    struct bench_of_one b;
    begin(&b);
    append(&b, 1, 1, 10);
    drain(&b);
    disk_sim_limit(b.disk, 0);
    uint64_t last = 1;
    for (; !b.journal.full && last < 1000; last++) {
        append(&b, last + 1, 1, 5000);
        drain(&b);
    }
    assert_true(b.journal.full);
    assert_int_equal(b.failed, OK);
    disk_sim_limit(b.disk, DISK_SIM_NEVER);
    journal_retry(&b.journal);
    drain(&b);
    assert_false(b.journal.full);
    assert_int_equal(b.journal.persisted, last);
    stop(&b);
    start(&b);
    assert_int_equal(b.journal.last, last);
    end(&b);
}

/* Work without entries finds no space; then there is some, and a segment is prepared first. */
static void a_roll_that_found_no_space_is_done_later(void **state) {
    (void)state;
    struct bench_of_one b;
    begin(&b);
    append(&b, 1, 1, 10);
    do
        journal_kick(&b.journal);
    while (run_one(&b.log));
    assert_non_null(b.side.head); /* the preparing is still to come */
    disk_sim_limit(b.disk, 0);
    journal_roll(&b.journal);
    journal_kick(&b.journal);
    assert_true(run_one(&b.log));
    assert_true(b.journal.full);
    disk_sim_limit(b.disk, DISK_SIM_NEVER);
    assert_true(run_one(&b.side));
    append(&b, 2, 1, 10);
    journal_kick(&b.journal);
    journal_retry(&b.journal);
    drain(&b);
    assert_int_equal(b.journal.persisted, 2);
    assert_false(b.journal.full);
    end(&b);
}

static void a_failed_sync_stops_the_node(void **state) {
    (void)state;
    struct bench_of_one b;
    begin(&b);
    append(&b, 1, 1, 10);
    drain(&b);
    append(&b, 2, 1, 10);
    journal_kick(&b.journal);
    disk_sim_fail_at(b.disk, 1, ERR_IO);
    assert_true(run_one(&b.log));
    assert_int_equal(b.failed, ERR_IO);
    assert_int_equal(b.journal.persisted, 1);
    end(&b);
}

static void entries_that_left_memory_are_read_back(void **state) {
    (void)state;
    struct bench_of_one b;
    begin(&b);
    for (uint64_t i = 1; i <= 200; i++)
        append(&b, i, 1, 1000);
    drain(&b);
    stop(&b);
    start(&b);
    b.journal.applied = 200;
    for (uint64_t i = 1; i <= 200; i++) {
        const struct entry *e = journal_peek(&b.journal, i);
        assert_non_null(e);
        assert_int_equal(e->index, i);
        assert_int_equal(e->data[999], (uint8_t)i);
    }
    assert_null(journal_peek(&b.journal, 201));
    assert_null(journal_peek(&b.journal, 0));
    end(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_gathers_during_a_write_is_written_as_one),
        cmocka_unit_test(a_truncated_tail_is_not_reported),
        cmocka_unit_test(a_full_disk_loses_nothing_and_goes_on_later),
        cmocka_unit_test(a_roll_that_found_no_space_is_done_later),
        cmocka_unit_test(a_failed_sync_stops_the_node),
        cmocka_unit_test(entries_that_left_memory_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
