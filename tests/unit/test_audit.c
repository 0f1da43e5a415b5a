/* The audit trail: records as bytes at their bounds, and the chain that apply makes of them: it is
 * numbered and linked, kept to its length, told to who watches, carried over by images, and an
 * image in which it was altered is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/state.h"
#include "tests/lib/fault.h"
#include "tests/lib/held_lists.h"

/* --- records --- */

static struct audit_record full_record(char text[AUDIT_DETAIL_MAX + 1]) {
    struct audit_record a = {.what = AUDIT_HEAD,
                             .kind = ROW_VAULT,
                             .id = "0123456789012345678901234",
                             .node_id = "abcdefghijabcdefghijabcde",
                             .task_id = "ABCDEFGHIJABCDEFGHIJABCDE",
                             .version = UINT32_MAX};
    memset(text, 'x', AUDIT_DETAIL_MAX + 1);
    a.name = a.who = a.from = span_of(text, AUDIT_TEXT_MAX);
    a.detail = span_of(text, AUDIT_DETAIL_MAX);
    return a;
}

static void assert_same(const struct audit_record *a, const struct audit_record *b) {
    assert_int_equal(a->what, b->what);
    assert_int_equal(a->kind, b->kind);
    assert_string_equal(a->id, b->id);
    assert_string_equal(a->node_id, b->node_id);
    assert_string_equal(a->task_id, b->task_id);
    assert_int_equal(a->version, b->version);
    assert_true(span_equal(a->name, b->name) && span_equal(a->who, b->who));
    assert_true(span_equal(a->from, b->from) && span_equal(a->detail, b->detail));
}

static void a_record_is_read_as_it_was_written(void **state) {
    (void)state;
    char text[AUDIT_DETAIL_MAX + 1];
    struct audit_record records[] = {full_record(text), {.what = AUDIT_CREATE}}, out;
    for (unsigned i = 0; i < ARRAY_SIZE(records); i++) {
        struct buf bytes = buf_new(AUDIT_RECORD_MAX);
        assert_int_equal(audit_encode(&records[i], &bytes), OK);
        assert_int_equal(audit_decode(buf_span(&bytes), &out), OK);
        assert_same(&records[i], &out);
        for (size_t size = 0; size < bytes.size; size++)
            assert_int_equal(audit_decode(span_of(bytes.at, size), &out), ERR_CORRUPT);
        assert_int_equal(buf_u8(&bytes, 0), OK);
        assert_int_equal(audit_decode(buf_span(&bytes), &out), ERR_CORRUPT);
        buf_free(&bytes);
    }
}

static void a_record_past_its_bounds_is_not_written(void **state) {
    (void)state;
    char text[AUDIT_DETAIL_MAX + 1];
    const struct audit_record good = full_record(text);
    struct audit_record bad[9];
    struct buf changes = buf_new(COMMAND_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = good;
    bad[0].name.size = AUDIT_TEXT_MAX + 1;
    bad[1].who.size = AUDIT_TEXT_MAX + 1;
    bad[2].from.size = AUDIT_TEXT_MAX + 1;
    bad[3].detail.size = AUDIT_DETAIL_MAX + 1;
    bad[4].what = (enum audit_what)0;
    bad[5].what = (enum audit_what)(AUDIT_HEAD + 1);
    bad[6].kind = (enum row_kind)(ROW_KIND_MAX + 1);
    bad[7].id[3] = ' ';
    bad[8].task_id[3] = '/';
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(audit_add(&changes, &bad[i]), ERR_INVALID);
        assert_int_equal(audit_encode(&bad[i], &changes), ERR_INVALID);
        assert_int_equal(changes.size, 0);
    }
    assert_int_equal(audit_add(&changes, &good), OK);
    buf_free(&changes);
}

/* --- the chain --- */

static struct store *founded(void) {
    struct store *s = store_for_test();
    assert_int_equal(make_cluster(s).error, OK);
    return s;
}

static void add_records(struct store *s, unsigned n, int64_t now_ns) {
    struct row_list l = row_list();
    for (unsigned i = 0; i < n; i++) {
        char detail[32];
        (void)snprintf(detail, sizeof detail, "record %u of %u", i, n);
        list_audit(&l, AUDIT_CREATE, detail);
    }
    struct command c = list_command(&l, now_ns);
    assert_int_equal(apply(s, &c).error, OK);
    buf_free(&l.changes);
}

struct trail {
    uint64_t first, last;       /* numbers; 0: none yet */
    uint8_t chain[AUDIT_CHAIN]; /* of the last */
};

static bool follow(void *ctx, const struct row *r) {
    struct trail *t = ctx;
    struct audit_link l;
    uint8_t chain[AUDIT_CHAIN];
    assert_int_equal(audit_read(r, &l), OK);
    if (t->last != 0) {
        assert_int_equal(l.number, t->last + 1);
        assert_memory_equal(l.prev, t->chain, AUDIT_CHAIN);
    } else {
        t->first = l.number;
    }
    audit_chain(l.prev, l.number, r->created_ns, l.record, chain);
    assert_memory_equal(chain, l.chain, AUDIT_CHAIN);
    memcpy(t->chain, l.chain, AUDIT_CHAIN);
    t->last = l.number;
    return true;
}

static struct trail trail_of(struct store *s) {
    struct trail t = {.last = 0};
    uint8_t chain[AUDIT_CHAIN];
    audit_each(s, 0, follow, &t);
    assert_int_equal(audit_last(s, chain), t.last);
    assert_memory_equal(chain, t.chain, AUDIT_CHAIN);
    return t;
}

static void records_are_numbered_and_linked_in_their_order(void **state) {
    (void)state;
    struct store *s = founded();
    struct row r;
    struct audit_link l;
    struct trail t = trail_of(s);
    assert_int_equal(t.last, 0);
    add_records(s, 1, 5);
    add_records(s, 3, -7); /* a clock may go back, the numbers don't */
    t = trail_of(s);
    assert_true(t.first == 1 && t.last == 4);
    assert_int_equal(row_count(s, ROW_AUDIT), 4);
    assert_true(row_get(s, ROW_AUDIT, "0000000000000000000000003", &r));
    assert_int_equal(audit_read(&r, &l), OK);
    assert_true(l.number == 3 && l.time_ns == -7);
    assert_true(span_equal(l.is.detail, span_str("record 1 of 3")));
    assert_false(row_get(s, ROW_AUDIT, AUDIT_NEXT, &r));
    t = (struct trail){.last = 0};
    audit_each(s, 3, follow, &t);
    assert_true(t.first == 3 && t.last == 4);
    store_free(s);
}

static void a_row_of_the_trail_is_a_number_and_a_linked_record(void **state) {
    (void)state;
    static const uint8_t none[AUDIT_CHAIN];
    static const char *const no_numbers[] = {
        AUDIT_NEXT,
        "1",
        "000000000000000000000000x",
        "+000000000000000000000001",
        "0000018446744073709551617",
        "0000009223372036854775808"}; /* past 64 bits; past half */
    char text[AUDIT_DETAIL_MAX + 1];
    struct audit_next next;
    struct audit_link l;
    struct buf record = buf_new(AUDIT_RECORD_MAX);
    struct audit_record a = full_record(text);
    assert_int_equal(audit_encode(&a, &record), OK);
    audit_link_next(41, none, 7, buf_span(&record), &next);
    struct row r = {.kind = ROW_AUDIT, .created_ns = 7, .body = span_of(next.body, next.size)};
    memcpy(r.id, next.id, sizeof r.id);
    assert_int_equal(audit_read(&r, &l), OK);
    assert_true(l.number == 42 && l.time_ns == 7 && span_equal(l.record, buf_span(&record)));
    assert_same(&a, &l.is);
    for (r.body.size = 0; r.body.size < next.size; r.body.size++)
        assert_int_equal(audit_read(&r, &l), ERR_CORRUPT);
    for (unsigned i = 0; i < ARRAY_SIZE(no_numbers); i++) {
        (void)snprintf(r.id, sizeof r.id, "%s", no_numbers[i]);
        assert_int_equal(audit_read(&r, &l), ERR_CORRUPT);
    }
    buf_free(&record);
}

static void the_chain_depends_on_all_that_a_record_says(void **state) {
    (void)state;
    uint8_t prev[AUDIT_CHAIN] = {1}, other[AUDIT_CHAIN] = {2}, chain[5][AUDIT_CHAIN];
    audit_chain(prev, 1, 1, span_str("record"), chain[0]);
    audit_chain(other, 1, 1, span_str("record"), chain[1]);
    audit_chain(prev, 2, 1, span_str("record"), chain[2]);
    audit_chain(prev, 1, 2, span_str("record"), chain[3]);
    audit_chain(prev, 1, 1, span_str("recorf"), chain[4]);
    for (unsigned i = 0; i < 5; i++)
        for (unsigned k = 0; k < i; k++)
            assert_memory_not_equal(chain[i], chain[k], AUDIT_CHAIN);
}

static void nobody_replaces_or_removes_a_record(void **state) {
    (void)state;
    static const char first[] = "0000000000000000000000001";
    struct store *s = founded();
    struct row_list l = row_list();
    struct buf record = buf_new(AUDIT_RECORD_MAX), changes = buf_new(COMMAND_MAX);
    struct audit_record a = {.what = AUDIT_CREATE};
    add_records(s, 2, 1);
    struct trail before = trail_of(s);
    list_plain(&l, ROW_REMOVE, ROW_AUDIT, first, 0);
    assert_int_equal(list_apply(s, &l).error, ERR_PRECONDITION);
    assert_int_equal(audit_encode(&a, &record), OK);
    struct row_change c = {.action = ROW_REPLACE, .kind = ROW_AUDIT, .body = buf_span(&record)};
    memcpy(c.id, AUDIT_NEXT, sizeof c.id);
    assert_int_equal(row_change_add(&l.changes, &c), OK);
    l.n = 1;
    assert_int_equal(list_apply(s, &l).error, ERR_PRECONDITION);
    memcpy(c.id, first, sizeof c.id); /* nor says which one it wants to be */
    assert_int_equal(row_change_add(&changes, &c), ERR_INVALID);
    c.action = ROW_CREATE;
    assert_int_equal(row_change_add(&changes, &c), ERR_INVALID);
    list_plain(&l, ROW_CHECK, ROW_AUDIT, first, 0);
    assert_int_equal(list_apply(s, &l).error, OK);
    struct trail after = trail_of(s);
    assert_memory_equal(&before, &after, sizeof after);
    buf_free(&record);
    buf_free(&changes);
    store_free(s);
}

static void a_refused_list_leaves_the_trail_as_it_was(void **state) {
    (void)state;
    struct store *s = founded();
    struct row_list l = row_list();
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    add_records(s, 2, 1);
    struct trail was = trail_of(s);
    hash_of(s, before);
    list_audit(&l, AUDIT_REMOVE, "what did not happen");
    list_plain(&l, ROW_REMOVE, ROW_SECRET, "nobody", 0);
    assert_int_equal(list_apply(s, &l).error, ERR_NOT_FOUND);
    hash_of(s, after);
    assert_memory_equal(before, after, STATE_HASH_SIZE);
    struct trail is = trail_of(s);
    assert_memory_equal(&was, &is, sizeof is);
    add_records(s, 1, 1);
    assert_int_equal(trail_of(s).last, 3);
    store_free(s);
}

struct told {
    unsigned created, removed;
    char last[NODE_ID_SIZE + 1], gone[NODE_ID_SIZE + 1];
};

static void take_note(void *ctx, const struct row *before, const struct row *after) {
    struct told *t = ctx;
    struct audit_link l;
    const struct row *r = after != NULL ? after : before;
    assert_non_null(r);
    assert_true(before == NULL || after == NULL);
    assert_int_equal(audit_read(r, &l), OK);
    memcpy(after != NULL ? t->last : t->gone, r->id, sizeof t->last);
    (*(after != NULL ? &t->created : &t->removed))++;
}

static void the_trail_is_kept_to_its_length_and_still_proves_itself(void **state) {
    (void)state;
    struct store *s = founded();
    struct told told = {.created = 0};
    for (unsigned i = 0; i < AUDIT_MAX / 1000; i++)
        add_records(s, 1000, i);
    assert_int_equal(trail_of(s).first, 1);
    row_watch(s, take_note, &told);
    add_records(s, 1000, 1);
    assert_int_equal(row_count(s, ROW_AUDIT), AUDIT_MAX);
    assert_true(told.created == 1000 && told.removed == 1000);
    assert_string_equal(told.last, "0000000000000000000101000");
    assert_string_equal(told.gone, "0000000000000000000001000");
    struct trail t = trail_of(s);
    assert_true(t.first == 1001 && t.last == 101000);
    while (store_work(s))
        continue;
    store_free(s);
}

/* --- images --- */

static void a_restored_state_goes_on_with_the_chain(void **state) {
    (void)state;
    struct store *s = founded(), *other = store_for_test();
    uint8_t hash[STATE_HASH_SIZE], again[STATE_HASH_SIZE];
    add_records(s, 12, 3);
    struct buf image = image_of(s);
    hash_of(s, hash);
    assert_int_equal(restore_from(other, buf_span(&image), 7, NULL, hash), OK);
    struct trail a = trail_of(s), b = trail_of(other);
    assert_memory_equal(&a, &b, sizeof a);
    add_records(s, 2, 4);
    add_records(other, 2, 4);
    a = trail_of(s);
    b = trail_of(other);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(a.last, 14);
    hash_of(s, hash);
    hash_of(other, again);
    assert_memory_equal(hash, again, STATE_HASH_SIZE);
    buf_free(&image);
    store_free(s);
    store_free(other);
}

/* The item of a record as an image would bring it. */
static struct item *item_of(uint64_t number, const struct audit_next *next) {
    struct row_key k;
    char id[NODE_ID_SIZE + 1];
    uint8_t value[ROW_HEAD_MAX + sizeof next->body] = {0};
    audit_id(number, id);
    k = row_key(ROW_AUDIT, id);
    put_u32(value + 20, (uint32_t)next->size);
    memcpy(value + 24, next->body, next->size);
    struct kv kv = {.key = row_key_span(&k),
                    .value = span_of(value, 24 + next->size),
                    .create_revision = 1,
                    .mod_revision = 1,
                    .version = 1};
    return item_copy(&kv);
}

static void an_image_whose_trail_was_altered_is_refused(void **state) {
    (void)state;
    struct audit_next first, second;
    struct buf record = buf_new(AUDIT_RECORD_MAX);
    struct audit_record a = {.what = AUDIT_CREATE};
    static const uint8_t none[AUDIT_CHAIN];
    assert_int_equal(audit_encode(&a, &record), OK);
    audit_link_next(0, none, 0, buf_span(&record), &first);
    audit_link_next(1, first.body + AUDIT_CHAIN, 0, buf_span(&record), &second);
    /* What is altered: nothing; a record; a link; a number; a number or a link that are made anew;
     * zeros before the first; the first one's size. */
    for (unsigned i = 0; i < 8; i++) {
        struct rows r;
        struct audit_next one = first, two = second;
        const uint8_t *chain = first.body + AUDIT_CHAIN;
        uint64_t number = i == 3 || i == 4 ? 3 : 2;
        if (i == 1) two.body[two.size - 5] ^= 1; /* of the version */
        if (i == 2) two.body[0] ^= 1;
        if (i == 4) audit_link_next(2, chain, 0, buf_span(&record), &two);
        if (i == 5) audit_link_next(1, none, 0, buf_span(&record), &two);
        if (i == 6) audit_link_next(0, chain, 0, buf_span(&record), &one);
        if (i == 7) one.size -= 1;
        assert_int_equal(rows_start(&r), OK);
        r.version = 1;
        struct item *items[2] = {item_of(1, &one), item_of(number, &two)};
        enum err e = rows_restore(&r, items[0]);
        if (e != OK) free(items[0]);
        assert_int_equal(e, i < 6 ? OK : ERR_CORRUPT);
        if (i < 6) e = rows_restore(&r, items[1]);
        if (e != OK) free(items[1]);
        assert_int_equal(e, i == 0 ? OK : ERR_CORRUPT);
        rows_end(&r);
    }
    buf_free(&record);
}

/* --- out of memory --- */

struct sweep {
    struct store *store;
    struct command command;
    enum err e;
};

static void apply_once(void *ctx) {
    struct sweep *w = ctx;
    struct buf bytes = buf_new(COMMAND_MAX);
    fault_alloc_pause();
    w->store = founded();
    add_records(w->store, 40, 1);
    struct machine *m = store_machine(w->store);
    assert_int_equal(command_encode(&w->command, &bytes), OK);
    fault_alloc_resume();
    w->e = m->apply(m, 1, buf_span(&bytes), NULL, NULL);
    fault_alloc_pause();
    buf_free(&bytes);
    fault_alloc_resume();
}

static void whole_or_nothing(void *ctx, bool fired) {
    struct sweep *w = ctx;
    assert_int_equal(w->e, fired ? ERR_NOMEM : OK);
    assert_int_equal(trail_of(w->store).last, fired ? 40 : 43);
    if (fired) assert_int_equal(apply(w->store, &w->command).error, OK);
    assert_int_equal(trail_of(w->store).last, 43);
    store_free(w->store);
}

static void every_failing_allocation_leaves_the_trail_whole(void **state) {
    (void)state;
    struct row_list l = row_list();
    for (unsigned i = 0; i < 3; i++)
        list_audit(&l, AUDIT_READ, "one");
    struct sweep w = {.command = list_command(&l, 9)};
    assert_true(fault_sweep_alloc(apply_once, whole_or_nothing, &w) > 4);
    buf_free(&l.changes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_read_as_it_was_written),
        cmocka_unit_test(a_record_past_its_bounds_is_not_written),
        cmocka_unit_test(records_are_numbered_and_linked_in_their_order),
        cmocka_unit_test(a_row_of_the_trail_is_a_number_and_a_linked_record),
        cmocka_unit_test(the_chain_depends_on_all_that_a_record_says),
        cmocka_unit_test(nobody_replaces_or_removes_a_record),
        cmocka_unit_test(a_refused_list_leaves_the_trail_as_it_was),
        cmocka_unit_test(the_trail_is_kept_to_its_length_and_still_proves_itself),
        cmocka_unit_test(a_restored_state_goes_on_with_the_chain),
        cmocka_unit_test(an_image_whose_trail_was_altered_is_refused),
        cmocka_unit_test(every_failing_allocation_leaves_the_trail_whole),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
