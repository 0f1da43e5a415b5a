/* Transactions that would hold up every member: the bounds of the whole tree, and of the keys and
 * versions that are looked at, are met before anything is written. What etcd bounds: test_txn.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "store/state.h"
#include "tests/lib/states.h"

#define MANY 20000 /* keys, or versions of one */

static void add_op(struct buf *ops, struct txn_op op) {
    assert_int_equal(txn_op_add(ops, &op), OK);
}

static void add_put(struct buf *ops) {
    add_op(ops, (struct txn_op){.kind = TXN_PUT, .put = {.key = span_str("a")}});
}

static void add_nested(struct buf *ops, struct span txn) {
    add_op(ops, (struct txn_op){.kind = TXN_NESTED, .txn = txn});
}

/* The key k, or all that begin with it. */
static void add_range(struct buf *ops, bool all, struct range r) {
    r.in = (struct interval){span_str("k"), span_str(all ? "l" : "")};
    add_op(ops, (struct txn_op){.kind = TXN_RANGE, .range = r});
}

static void add_compare(struct buf *compares) {
    const struct compare c = {.in = {span_str("k"), span_str("l")}, .result = COMPARE_GREATER};
    assert_int_equal(txn_compare_add(compares, &c), OK);
}

/* k0, k1, ... or versions of k. */
static void put_many(struct store *s, bool versions) {
    for (unsigned i = 0; i < MANY; i++) {
        char key[16] = "k";
        if (!versions) (void)snprintf(key, sizeof key, "k%u", i);
        (void)put(s, key, "");
    }
}

/* It writes nothing if it is refused, and one that only reads says the same without the log. */
static void assert_outcome(struct store *s, struct parts *p, enum err want) {
    struct command c = {.op = OP_TXN, .txn = joined(p)};
    uint64_t before = store_revision(s);
    struct buf out = buf_new(RESULT_MAX);
    if (!txn_writes(c.txn)) assert_int_equal(txn_read(s, c.txn, &out), want);
    assert_int_equal(apply(s, &c).error, want);
    if (want != OK) assert_int_equal(store_revision(s), before);
    buf_free(&out);
}

static void operations_of_all_branches_count(void **state) {
    (void)state;
    struct parts p = parts_new(), inner = parts_new();
    for (unsigned i = 0; i < 96; i++) {
        add_range(&inner.success, false, (struct range){.limit = 0});
        add_range(&inner.failure, false, (struct range){.limit = 0});
    }
    for (unsigned n = 1; n <= 32; n++) {
        add_nested(&p.success, joined(&inner));
        bool fits = n * (96 + 96) + n <= TXN_TREE_MAX;
        assert_int_equal(txn_check(joined(&p), NULL), fits ? OK : ERR_TOO_MANY_OPS);
    }
    parts_free(&p);
    parts_free(&inner);
}

static void fewer_may_be_over_many_keys(void **state) {
    (void)state;
    struct parts p = parts_new(), inner = parts_new();
    for (unsigned i = 0; i < TXN_OPS_MAX; i++) { /* as many as etcd allows without nesting */
        add_compare(&p.compares);
        add_range(&p.success, true, (struct range){.limit = 0});
        add_range(&p.failure, true, (struct range){.limit = 0});
    }
    assert_int_equal(txn_check(joined(&p), NULL), OK);
    buf_clear(&p.compares);
    buf_clear(&p.success);
    buf_clear(&p.failure);
    for (unsigned i = 0; i < 48; i++) {
        add_compare(&inner.compares);
        add_op(&inner.success,
               (struct txn_op){.kind = TXN_DELETE, .del = {.in = {span_str("k"), span_str("l")}}});
    }
    for (unsigned n = 1; n <= 5; n++) {
        add_nested(&p.success, joined(&inner));
        bool fits = n * (48 + 48) <= TXN_SCANS_MAX;
        assert_int_equal(txn_check(joined(&p), NULL), fits ? OK : ERR_TOO_MANY_OPS);
    }
    parts_free(&p);
    parts_free(&inner);
}

static void count_breath(void *ctx) { ++*(unsigned *)ctx; }

static void compares_look_at_so_many_keys_and_no_more(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new();
    unsigned breaths = 0;
    put_many(s, false);
    store_machine(s)->busy = count_breath;
    store_machine(s)->busy_ctx = &breaths;
    for (unsigned i = 0; i < TXN_LOOK_MAX / MANY; i++)
        add_compare(&p.compares);
    add_put(&p.success);
    assert_outcome(s, &p, OK);
    assert_true(breaths >= TXN_LOOK_MAX / MANY * MANY / KEYS_A_BREATH);
    add_compare(&p.compares);
    assert_outcome(s, &p, ERR_TOO_MANY_OPS);
    parts_free(&p);
    store_free(s);
}

static void ranges_look_at_so_many_keys_and_no_more(void **state) {
    (void)state;
    const struct range kinds[] = {{.target = SORT_MOD, .order = SORT_DESCEND, .limit = 1},
                                  {.limit = 1, .min_mod_revision = UINT64_MAX},
                                  {.limit = 1, .revision = 2}};
    struct store *s = store_for_test();
    struct parts p = parts_new();
    put_many(s, false);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        buf_clear(&p.success);
        for (unsigned i = 0; i <= TXN_LOOK_MAX / MANY; i++)
            add_range(&p.success, true, kinds[k]);
        assert_outcome(s, &p, ERR_TOO_MANY_OPS);
        add_put(&p.success);
        assert_outcome(s, &p, ERR_TOO_MANY_OPS);
    }
    buf_clear(&p.success);
    for (unsigned i = 0; i < TXN_OPS_MAX / 2; i++) { /* these look at one key or none */
        add_range(&p.success, true, (struct range){.limit = 1});
        add_range(&p.success, true, (struct range){.count_only = true});
    }
    assert_outcome(s, &p, OK);
    buf_clear(&p.success);
    add_op(&p.success,
           (struct txn_op){.kind = TXN_DELETE,
                           .del = {.in = {span_str("k1"), span_str("k3")}, .prev_kv = true}});
    add_op(&p.success, (struct txn_op){.kind = TXN_DELETE,
                                       .del = {.in = {.key = span_str("k5")}, .prev_kv = true}});
    assert_outcome(s, &p, OK);
    parts_free(&p);
    store_free(s);
}

static void versions_count_where_they_are_followed(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new();
    put_many(s, true);
    for (unsigned i = 0; i < TXN_OPS_MAX; i++)
        add_range(&p.success, false, (struct range){.revision = store_revision(s) - 100});
    assert_outcome(s, &p, OK);
    buf_clear(&p.success);
    for (unsigned i = 0; i < TXN_OPS_MAX; i++)
        add_range(&p.success, false, (struct range){.revision = 2});
    assert_outcome(s, &p, ERR_TOO_MANY_OPS);
    parts_free(&p);
    store_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_of_all_branches_count),
        cmocka_unit_test(fewer_may_be_over_many_keys),
        cmocka_unit_test(compares_look_at_so_many_keys_and_no_more),
        cmocka_unit_test(ranges_look_at_so_many_keys_and_no_more),
        cmocka_unit_test(versions_count_where_they_are_followed),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
