/* Compaction, leases and alarms by hand: what a compaction leaves, when it waits, how far it goes
 * at once; what hangs on a lease; what an alarm refuses. Against a model: test_mvcc.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/secret.h"
#include "store/import.h"
#include "store/state.h"
#include "tests/lib/states.h"

static struct result run(struct store *s, struct command c) { return apply(s, &c); }

static bool count_kv(void *ctx, const struct kv *kv) {
    unsigned *n = ctx;
    (void)kv;
    (*n)++;
    return true;
}

static enum err ask(struct store *s, const char *key, uint64_t revision, unsigned *n) {
    struct range r = {.in = {.key = span_str(key)}, .revision = revision};
    struct range_end end;
    *n = 0;
    return store_range_read(s, &r, count_kv, n, &end);
}

static void the_compacted_revision_can_be_read_and_none_below_it(void **state) {
    (void)state;
    struct store *s = store_for_test();
    unsigned n;
    (void)put(s, "a", "1");
    (void)put(s, "a", "2");
    (void)delete_key(s, "a");
    (void)put(s, "a", "3");
    assert_int_equal(run(s, (struct command){.op = OP_COMPACT, .compact_revision = 3}).error, OK);
    assert_int_equal(ask(s, "a", 2, &n), ERR_COMPACTED);
    assert_int_equal(ask(s, "a", 3, &n), OK);
    assert_int_equal(n, 1);
    assert_int_equal(ask(s, "a", 4, &n), OK);
    assert_int_equal(n, 0);
    assert_int_equal(ask(s, "a", 5, &n), OK);
    assert_int_equal(n, 1);
    assert_int_equal(ask(s, "a", 6, &n), ERR_FUTURE_REVISION);
    store_free(s);
}

static void a_tombstone_at_the_compacted_revision_stays_an_event(void **state) {
    (void)state;
    struct store *s = store_for_test();
    (void)put(s, "a", "1");
    (void)delete_key(s, "a");
    assert_int_equal(run(s, (struct command){.op = OP_COMPACT, .compact_revision = 3}).error, OK);
    while (store_work(s))
        ;
    struct history *h = store_history(s);
    assert_int_equal(history_end(h) - history_first(h), 1);
    assert_true(item_tomb(history_at(h, history_first(h))));
    (void)put(s, "b", "1");
    assert_int_equal(run(s, (struct command){.op = OP_COMPACT, .compact_revision = 4}).error, OK);
    while (store_work(s))
        ;
    assert_int_equal(tree_count(s->state.keys), 1);
    store_free(s);
}

static void a_compaction_waits_for_views_that_look_back(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct store_view *deep, *plain;
    for (unsigned i = 0; i < 100; i++)
        (void)put(s, "a", "1");
    (void)delete_key(s, "a");
    (void)put(s, "b", "1");
    assert_int_equal(store_view_new_with_history(s, &deep), OK);
    assert_int_equal(run(s, (struct command){.op = OP_COMPACT, .compact_revision = 103}).error, OK);
    assert_false(store_work(s));
    assert_true(store_compacting(s));
    assert_int_equal(store_view_new(s, &plain), OK);
    store_view_free(deep);
    assert_false(store_work(s)); /* the other view does not mind */
    assert_false(store_compacting(s));
    assert_int_equal(tree_count(s->state.keys), 1);
    struct kv kv;
    assert_false(store_view_get(plain, span_str("a"), &kv));
    assert_true(store_view_get(plain, span_str("b"), &kv));
    store_view_free(plain);
    store_free(s);
}

/* Steps are bounded, however many versions one key has. */
static void a_compaction_goes_in_steps(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct buf command = buf_new(COMMAND_MAX);
    struct command c = {.op = OP_PUT, .put = {.key = span_str("a")}};
    struct machine *m = store_machine(s);
    assert_int_equal(command_encode(&c, &command), OK);
    for (unsigned i = 0; i < 10 * COMPACT_STEP; i++)
        assert_int_equal(m->apply(m, 1, buf_span(&command), NULL, NULL), OK);
    buf_clear(&command);
    c = (struct command){.op = OP_COMPACT, .compact_revision = store_revision(s)};
    assert_int_equal(command_encode(&c, &command), OK);
    assert_int_equal(m->apply(m, 1, buf_span(&command), NULL, NULL), OK);
    uint64_t size = store_size(s), most = COMPACT_STEP * (size / (10 * COMPACT_STEP) + 1),
             steps = 0;
    while (store_work(s)) {
        assert_true(size - store_size(s) <= most);
        size = store_size(s);
        steps++;
    }
    assert_true(steps >= 10);
    assert_int_equal(history_end(store_history(s)) - history_first(store_history(s)), 1);
    buf_free(&command);
    store_free(s);
}

static void leases_are_attached_moved_and_revoked_in_one_revision(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct put p = {.key = span_str("a"), .lease = 5};
    assert_int_equal(run(s, (struct command){.op = OP_PUT, .put = p}).error, ERR_LEASE_NOT_FOUND);
    for (uint64_t id = 5; id < 7; id++)
        assert_int_equal(
            run(s, (struct command){.op = OP_LEASE_GRANT, .lease = {.id = id, .ttl_ms = 1}}).error,
            OK);
    const char *const keys[] = {"c", "a", "b"};
    for (unsigned i = 0; i < 3; i++) {
        p.key = span_str(keys[i]);
        assert_int_equal(run(s, (struct command){.op = OP_PUT, .put = p}).error, OK);
    }
    (void)put(s, "c", "no lease any more");
    p.key = span_str("b");
    p.lease = 6;
    assert_int_equal(run(s, (struct command){.op = OP_PUT, .put = p}).error, OK);
    uint64_t before = store_revision(s);
    struct command revoke_5 = {.op = OP_LEASE_REVOKE, .lease = {.id = 5}};
    struct result r = run(s, revoke_5);
    assert_int_equal(r.deleted, 1);
    assert_int_equal(r.revision, before + 1);
    assert_int_equal(run(s, revoke_5).error, ERR_LEASE_NOT_FOUND);
    (void)delete_key(s, "b");
    r = run(s, (struct command){.op = OP_LEASE_REVOKE, .lease = {.id = 6}});
    assert_int_equal(r.deleted, 0);
    assert_int_equal(r.revision, before + 2);
    store_free(s);
}

/* Keys of another store have its revisions, also several the same; a view may be open meanwhile. */
static void imported_keys_survive_views_and_restores(void **state) {
    (void)state;
    struct store *s = store_for_test(), *other = store_for_test();
    struct command c = {.op = OP_IMPORT, .import = {.begin = 50}};
    struct buf rows = buf_new(COMMAND_MAX);
    struct store_view *view, *later;
    uint8_t hash[STATE_HASH_SIZE];
    assert_int_equal(run(s, c).error, OK);
    assert_int_equal(store_view_new(s, &view), OK);
    const char *const keys[] = {"c", "a", "b"};
    for (unsigned i = 0; i < 3; i++) {
        struct kv kv = {.key = span_str(keys[i]), .value = span_str("v"), .version = 1};
        kv.create_revision = kv.mod_revision = i < 2 ? 50 : 7;
        assert_int_equal(import_add(&rows, &kv), OK);
    }
    c.import.begin = 0;
    c.import.rows = buf_span(&rows);
    assert_int_equal(run(s, c).error, OK);
    assert_int_equal(store_view_new(s, &later), OK);
    (void)put(s, "a", "2");
    (void)delete_key(s, "b");
    assert_int_equal(store_keys(s), 2);
    struct kv kv;
    assert_false(store_view_get(view, span_str("a"), &kv));
    assert_true(store_view_get(later, span_str("b"), &kv));
    struct buf image = image_of(s);
    hash_of(s, hash);
    assert_int_equal(restore_from(other, buf_span(&image), 100, NULL, hash), OK);
    struct buf again = image_of(other);
    assert_true(span_equal(buf_span(&image), buf_span(&again)));
    struct history *h = store_history(s), *g = store_history(other);
    assert_int_equal(history_end(h) - history_first(h), 2);
    assert_int_equal(history_end(g) - history_first(g), 2);
    store_view_free(later);
    store_view_free(view);
    buf_free(&rows);
    buf_free(&image);
    buf_free(&again);
    store_free(s);
    store_free(other);
}

static void a_state_compacted_to_the_end_restores(void **state) {
    (void)state;
    struct store *s = store_for_test(), *other = store_for_test();
    uint8_t hash[STATE_HASH_SIZE];
    for (unsigned i = 0; i < 5; i++)
        (void)put(s, "a", "1");
    assert_int_equal(run(s, (struct command){.op = OP_COMPACT, .compact_revision = 6}).error, OK);
    struct buf image = image_of(s);
    hash_of(s, hash);
    assert_int_equal(restore_from(other, buf_span(&image), 100, NULL, hash), OK);
    assert_int_equal(history_end(store_history(other)), 1);
    buf_free(&image);
    store_free(s);
    store_free(other);
}

static void without_space_only_what_shrinks_is_done(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct command alarm = {.op = OP_ALARM, .alarm = {ALARM_NOSPACE, .raft_id = 2, .raise = true}};
    (void)put(s, "a", "1");
    assert_int_equal(run(s, alarm).error, OK);
    assert_true(store_alarm(s, ALARM_NOSPACE, 0) && store_alarm(s, ALARM_NOSPACE, 2));
    assert_false(store_alarm(s, ALARM_NOSPACE, 1) || store_alarm(s, ALARM_CORRUPT, 0));
    assert_int_equal(put(s, "a", "2").error, ERR_QUOTA);
    struct command grant = {.op = OP_LEASE_GRANT, .lease = {.id = 1, .ttl_ms = 1}};
    assert_int_equal(run(s, grant).error, ERR_QUOTA);
    assert_int_equal(delete_key(s, "a").error, OK);
    assert_int_equal(run(s, (struct command){.op = OP_COMPACT, .compact_revision = 3}).error, OK);
    alarm.alarm.raise = false;
    alarm.alarm.raft_id = 0;
    assert_int_equal(run(s, alarm).error, OK);
    assert_int_equal(put(s, "a", "2").error, OK);
    alarm.alarm.alarm = ALARM_CORRUPT;
    alarm.alarm.raise = true;
    alarm.alarm.raft_id = 1;
    assert_int_equal(run(s, alarm).error, OK);
    assert_int_equal(delete_key(s, "a").error, ERR_CORRUPT_CLUSTER);
    store_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_compacted_revision_can_be_read_and_none_below_it),
        cmocka_unit_test(a_tombstone_at_the_compacted_revision_stays_an_event),
        cmocka_unit_test(a_compaction_waits_for_views_that_look_back),
        cmocka_unit_test(a_compaction_goes_in_steps),
        cmocka_unit_test(leases_are_attached_moved_and_revoked_in_one_revision),
        cmocka_unit_test(imported_keys_survive_views_and_restores),
        cmocka_unit_test(a_state_compacted_to_the_end_restores),
        cmocka_unit_test(without_space_only_what_shrinks_is_done),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
