/* Transactions: their bytes, the rules that they must keep (against a plain rendering of etcd's
 * own), what they do and what they answer; and whose permission they need. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "crypto/secret.h"
#include "store/state.h"
#include "tests/lib/fault.h"
#include "tests/lib/states.h"

/* --- building by hand --- */

static void add_put(struct buf *ops, const char *key, const char *value) {
    struct txn_op op = {.kind = TXN_PUT,
                        .put = {.key = span_str(key), .value = span_str(value), .prev_kv = true}};
    assert_int_equal(txn_op_add(ops, &op), OK);
}

static void add_delete(struct buf *ops, const char *key, const char *end) {
    struct txn_op op = {.kind = TXN_DELETE, .del = {.in = {span_str(key), span_str(end)}}};
    assert_int_equal(txn_op_add(ops, &op), OK);
}

static void add_range(struct buf *ops, const char *key, const char *end, uint64_t revision) {
    struct txn_op op = {.kind = TXN_RANGE,
                        .range = {.in = {span_str(key), span_str(end)}, .revision = revision}};
    assert_int_equal(txn_op_add(ops, &op), OK);
}

static void add_nested(struct buf *ops, struct span txn) {
    struct txn_op op = {.kind = TXN_NESTED, .txn = txn};
    assert_int_equal(txn_op_add(ops, &op), OK);
}

static void add_compare(struct buf *compares, const char *key, enum compare_target target,
                        enum compare_result result, int64_t number, const char *value) {
    struct compare c = {.in = {.key = span_str(key)},
                        .target = target,
                        .result = result,
                        .number = number,
                        .value = span_str(value)};
    assert_int_equal(txn_compare_add(compares, &c), OK);
}

/* --- the rules --- */

#define SET_MAX 4096

struct keys {
    struct span at[SET_MAX];
    unsigned n;
};

struct intervals {
    struct interval at[SET_MAX];
    unsigned n;
};

static bool has_key(const struct keys *k, struct span key) {
    for (unsigned i = 0; i < k->n; i++)
        if (span_equal(k->at[i], key)) return true;
    return false;
}

/* As etcd's interval tree sees it: the end is compared as it is written. */
static bool deletes(const struct intervals *d, struct span key) {
    for (unsigned i = 0; i < d->n; i++) {
        const struct interval *in = &d->at[i];
        if (in->end.size == 0 ? span_equal(in->key, key)
                              : span_compare(in->key, key) <= 0 && span_compare(key, in->end) < 0)
            return true;
    }
    return false;
}

static bool intervals_ok(struct span ops, struct keys *puts, struct intervals *dels);

static bool nested_ok(struct span txn, struct keys *puts, struct intervals *dels) {
    struct keys *branch = calloc(2, sizeof *branch);
    struct intervals *gone = calloc(2, sizeof *gone);
    struct txn_view v;
    assert_true(branch != NULL && gone != NULL && txn_open(txn, &v) == OK);
    bool ok = intervals_ok(v.success, &branch[0], &gone[0]) &&
              intervals_ok(v.failure, &branch[1], &gone[1]);
    for (unsigned b = 0; ok && b < 2; b++)
        for (unsigned i = 0; ok && i < branch[b].n; i++) {
            struct span key = branch[b].at[i];
            bool twice = has_key(puts, key) && (b == 0 || !has_key(&branch[0], key));
            ok = !twice && !deletes(dels, key);
            if (!has_key(puts, key)) puts->at[puts->n++] = key;
        }
    for (unsigned b = 0; ok && b < 2; b++)
        for (unsigned i = 0; i < gone[b].n; i++)
            dels->at[dels->n++] = gone[b].at[i];
    free(branch);
    free(gone);
    return ok;
}

/* checkIntervals of etcd 3.4: own deletes, then nested ones in order, then own puts. */
static bool intervals_ok(struct span ops, struct keys *puts, struct intervals *dels) {
    for (unsigned pass = 0; pass < 3; pass++) {
        struct cursor in = cursor_of(ops);
        while (in.left > 0) {
            struct txn_op op;
            assert_int_equal(txn_op_next(&in, &op), OK);
            if (pass == 0 && op.kind == TXN_DELETE) dels->at[dels->n++] = op.del.in;
            if (pass == 1 && op.kind == TXN_NESTED && !nested_ok(op.txn, puts, dels)) return false;
            if (pass != 2 || op.kind != TXN_PUT) continue;
            if (has_key(puts, op.put.key) || deletes(dels, op.put.key)) return false;
            puts->at[puts->n++] = op.put.key;
        }
    }
    return true;
}

static enum err expected_of(struct span txn) {
    struct keys *puts = calloc(2, sizeof *puts);
    struct intervals *dels = calloc(2, sizeof *dels);
    struct txn_view v;
    assert_true(puts != NULL && dels != NULL && txn_open(txn, &v) == OK);
    bool ok =
        intervals_ok(v.success, &puts[0], &dels[0]) && intervals_ok(v.failure, &puts[1], &dels[1]);
    free(puts);
    free(dels);
    return ok ? OK : ERR_DUPLICATE_KEY;
}

static void overlaps_are_refused_exactly_as_etcd_does(void **state) {
    (void)state;
    uint64_t seed = 17;
    unsigned refused = 0, taken = 0;
    struct buf txn = buf_new(COMMAND_MAX);
    for (unsigned i = 0; i < 20000; i++) {
        buf_clear(&txn);
        random_txn(&seed, 4, &txn);
        enum err e = txn_check(buf_span(&txn), NULL), expected = expected_of(buf_span(&txn));
        if (e != expected)
            fail_msg("transaction %u: %s, not %s", i, err_name(e), err_name(expected));
        refused += e != OK;
        taken += e == OK;
    }
    assert_true(refused > 500 && taken > 500);
    buf_free(&txn);
}

static void overlaps_by_hand(void **state) {
    (void)state;
    struct parts p = parts_new(), inner = parts_new();
    add_delete(&p.success, "a", "c");
    add_delete(&p.success, "b", "");
    assert_int_equal(txn_check(joined(&p), NULL), OK); /* delete and delete */
    add_put(&p.failure, "b", "other branch");
    assert_int_equal(txn_check(joined(&p), NULL), OK);
    add_put(&p.success, "c", "just behind");
    assert_int_equal(txn_check(joined(&p), NULL), OK);
    add_put(&inner.success, "d", "");
    add_put(&inner.failure, "d", "");
    add_nested(&p.success, joined(&inner));
    assert_int_equal(txn_check(joined(&p), NULL), OK); /* never both */
    add_put(&inner.success, "b", "");
    add_nested(&p.success, joined(&inner));
    assert_int_equal(txn_check(joined(&p), NULL), ERR_DUPLICATE_KEY);
    parts_free(&p);
    parts_free(&inner);
}

static void nested_transactions_share_the_limit(void **state) {
    (void)state;
    struct parts p = parts_new(), inner = parts_new();
    for (unsigned i = 0; i < TXN_OPS_MAX - 10; i++)
        add_range(&inner.success, "k", "", 0);
    for (unsigned i = 0; i < 10; i++)
        add_nested(&p.success, joined(&inner));
    assert_int_equal(txn_check(joined(&p), NULL), OK);
    add_compare(&inner.compares, "k", COMPARE_VALUE, COMPARE_EQUAL, 0, "");
    add_range(&p.success, "k", "", 0);
    assert_int_equal(txn_check(joined(&p), NULL), ERR_TOO_MANY_OPS);
    buf_clear(&p.success);
    for (unsigned i = 0; i <= TXN_OPS_MAX; i++)
        add_range(&p.failure, "k", "", 0);
    assert_int_equal(txn_check(joined(&p), NULL), ERR_TOO_MANY_OPS);
    parts_free(&p);
    parts_free(&inner);
}

static void depth_has_a_bound(void **state) {
    (void)state;
    struct buf txn[2] = {buf_new(COMMAND_MAX), buf_new(COMMAND_MAX)};
    struct span none = span_of(NULL, 0);
    assert_int_equal(txn_add(&txn[0], none, none, none), OK);
    for (unsigned depth = 1; depth <= TXN_DEPTH_MAX + 1; depth++) {
        struct buf *from = &txn[(depth + 1) % 2], *to = &txn[depth % 2], op = buf_new(COMMAND_MAX);
        assert_int_equal(txn_check(buf_span(from), NULL),
                         depth <= TXN_DEPTH_MAX ? OK : ERR_TOO_MANY_OPS);
        add_nested(&op, buf_span(from));
        buf_clear(to);
        assert_int_equal(txn_add(to, none, buf_span(&op), none), OK);
        buf_free(&op);
    }
    buf_free(&txn[0]);
    buf_free(&txn[1]);
}

static void what_a_single_operation_may_not_be(void **state) {
    (void)state;
    struct parts p = parts_new();
    add_compare(&p.compares, "", COMPARE_VALUE, COMPARE_EQUAL, 0, "");
    assert_int_equal(txn_check(joined(&p), NULL), ERR_EMPTY_KEY);
    buf_clear(&p.compares);
    add_put(&p.failure, "", "v");
    assert_int_equal(txn_check(joined(&p), NULL), ERR_EMPTY_KEY);
    buf_clear(&p.failure);
    struct txn_op op = {.kind = TXN_PUT,
                        .put = {span_str("k"), .value = span_str("v"), .ignore_value = true}};
    assert_int_equal(txn_op_add(&p.success, &op), OK);
    assert_int_equal(txn_check(joined(&p), NULL), ERR_VALUE_PROVIDED);
    buf_clear(&p.success);
    op.put = (struct put){span_str("k"), .lease = 4, .ignore_lease = true};
    assert_int_equal(txn_op_add(&p.success, &op), OK);
    assert_int_equal(txn_check(joined(&p), NULL), ERR_LEASE_PROVIDED);
    buf_clear(&p.success);
    op.put = (struct put){span_str("k"), .must_not_exist = true};
    assert_int_equal(txn_op_add(&p.success, &op), OK);
    assert_int_equal(txn_check(joined(&p), NULL), ERR_INVALID);
    assert_int_equal(txn_check(span_str("no transaction"), NULL), ERR_INVALID);
    parts_free(&p);
}

/* Damage is refused or is another transaction; it is never an error of ours. */
static void flipped_bytes_do_no_harm(void **state) {
    (void)state;
    struct buf txn = buf_new(COMMAND_MAX), out = buf_new(COMMAND_MAX);
    uint64_t seed = 5;
    struct store *s = store_for_test();
    for (unsigned i = 0; i < 300; i++) {
        buf_clear(&txn);
        random_txn(&seed, 2, &txn);
        for (unsigned flips = 0; flips < 20; flips++) {
            txn.at[random_next(&seed) % txn.size] ^= (uint8_t)(1U << random_next(&seed) % 8);
            struct command c = {.op = OP_TXN, .txn = buf_span(&txn)};
            buf_clear(&out);
            if (command_encode(&c, &out) == OK) (void)apply_bytes(s, buf_span(&out));
        }
    }
    buf_free(&txn);
    buf_free(&out);
    store_free(s);
}

/* --- doing --- */

struct done {
    struct result r;
    struct buf out;
    struct cursor in;
};

static struct done carry_out(struct store *s, struct span txn) {
    struct done d = {.out = buf_new(RESULT_MAX)};
    struct command c = {.op = OP_TXN, .txn = txn};
    struct buf bytes = buf_new(COMMAND_MAX);
    struct machine *m = store_machine(s);
    assert_int_equal(command_encode(&c, &bytes), OK);
    assert_int_equal(m->apply(m, 1, buf_span(&bytes), &d.out, NULL), OK);
    assert_int_equal(result_decode(buf_span(&d.out), &d.r), OK);
    d.in = cursor_of(d.r.answer);
    buf_free(&bytes);
    return d;
}

static struct answer next(struct done *d, enum answer_kind kind) {
    struct answer a;
    assert_int_equal(answer_next(&d->in, &a), OK);
    assert_int_equal(a.kind, kind);
    return a;
}

static void next_kv(struct done *d, const char *key, const char *value, uint64_t mod_revision) {
    struct kv kv;
    assert_int_equal(answer_kv(&d->in, &kv), OK);
    assert_true(span_equal(kv.key, span_str(key)));
    assert_true(span_equal(kv.value, span_str(value)));
    assert_int_equal(kv.mod_revision, mod_revision);
}

static void done_free(struct done *d) {
    assert_int_equal(d->in.left, 0);
    buf_free(&d->out);
}

static void operations_see_those_before_them_and_share_a_revision(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new();
    (void)put(s, "a", "old"); /* 2 */
    (void)put(s, "b", "old"); /* 3 */
    add_range(&p.success, "a", "", 0);
    add_put(&p.success, "a", "new");
    add_range(&p.success, "a", "", 0);
    add_range(&p.success, "a", "", 3);
    add_delete(&p.success, "b", "z");
    add_range(&p.success, "a", "z", 0);
    struct done d = carry_out(s, joined(&p));
    assert_int_equal(d.r.error, OK);
    assert_int_equal(d.r.revision, 4);
    struct answer a = next(&d, ANSWER_TXN);
    assert_true(a.succeeded);
    assert_int_equal(a.n_answers, 6);
    a = next(&d, ANSWER_RANGE);
    assert_int_equal(a.revision, 3);
    assert_int_equal(a.n_kvs, 1);
    next_kv(&d, "a", "old", 2);
    a = next(&d, ANSWER_PUT);
    assert_int_equal(a.revision, 4);
    assert_int_equal(a.n_kvs, 1);
    next_kv(&d, "a", "old", 2);
    a = next(&d, ANSWER_RANGE);
    assert_int_equal(a.revision, 4);
    next_kv(&d, "a", "new", 4);
    (void)next(&d, ANSWER_RANGE); /* at revision 3 */
    next_kv(&d, "a", "old", 2);
    a = next(&d, ANSWER_DELETE);
    assert_int_equal(a.deleted, 1);
    assert_int_equal(a.revision, 4);
    a = next(&d, ANSWER_RANGE);
    assert_int_equal(a.range.count, 1);
    next_kv(&d, "a", "new", 4);
    done_free(&d);
    parts_free(&p);
    store_free(s);
}

static void compares_are_answered_by_the_state_before(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new(), inner = parts_new();
    add_compare(&inner.compares, "a", COMPARE_VERSION, COMPARE_EQUAL, 0, "");
    add_put(&inner.success, "b", "a was not there");
    add_put(&inner.failure, "b", "a was there");
    add_put(&p.success, "a", "1");
    add_nested(&p.success, joined(&inner));
    struct done d = carry_out(s, joined(&p));
    assert_int_equal(d.r.error, OK);
    (void)next(&d, ANSWER_TXN);
    (void)next(&d, ANSWER_PUT);
    struct answer a = next(&d, ANSWER_TXN);
    assert_true(a.succeeded);
    assert_int_equal(a.revision, 0);
    (void)next(&d, ANSWER_PUT);
    done_free(&d);
    struct kv kv;
    assert_true(store_get(s, span_str("b"), &kv));
    assert_true(span_equal(kv.value, span_str("a was not there")));
    parts_free(&p);
    parts_free(&inner);
    store_free(s);
}

static bool holds(struct store *s, const char *key, const char *end, enum compare_target target,
                  enum compare_result result, int64_t number, const char *value) {
    struct parts p = parts_new();
    struct compare c = {.in = {span_str(key), span_str(end)},
                        .target = target,
                        .result = result,
                        .number = number,
                        .value = span_str(value)};
    struct buf out = buf_new(RESULT_MAX);
    assert_int_equal(txn_compare_add(&p.compares, &c), OK);
    assert_int_equal(txn_read(s, joined(&p), &out), OK);
    struct cursor in = cursor_of(buf_span(&out));
    struct answer a;
    assert_int_equal(answer_next(&in, &a), OK);
    buf_free(&out);
    parts_free(&p);
    return a.succeeded;
}

static void compares_know_missing_keys_and_ranges(void **state) {
    (void)state;
    struct store *s = store_for_test();
    (void)put(s, "a", "x"); /* 2 */
    (void)put(s, "b", "x"); /* 3 */
    (void)put(s, "b", "x"); /* 4 */
    (void)delete_key(s, (put(s, "gone", ""), "gone"));
    assert_true(holds(s, "a", "", COMPARE_VALUE, COMPARE_EQUAL, 0, "x"));
    assert_true(holds(s, "a", "", COMPARE_VALUE, COMPARE_LESS, 0, "y"));
    assert_true(holds(s, "a", "c", COMPARE_VALUE, COMPARE_EQUAL, 0, "x"));
    assert_false(holds(s, "a", "c", COMPARE_VERSION, COMPARE_EQUAL, 1, ""));
    assert_true(holds(s, "a", "c", COMPARE_VERSION, COMPARE_GREATER, 0, ""));
    assert_true(holds(s, "b", "", COMPARE_CREATE, COMPARE_EQUAL, 3, ""));
    assert_true(holds(s, "b", "", COMPARE_MOD, COMPARE_NOT_EQUAL, 3, ""));
    assert_true(holds(s, "b", "", COMPARE_LEASE, COMPARE_EQUAL, 0, ""));
    assert_true(holds(s, "b", "", COMPARE_MOD, COMPARE_GREATER, -1, ""));
    static const char *const none[] = {"gone", "never"};
    for (unsigned i = 0; i < 2; i++) {
        assert_true(holds(s, none[i], "", COMPARE_VERSION, COMPARE_EQUAL, 0, ""));
        assert_true(holds(s, none[i], "", COMPARE_MOD, COMPARE_LESS, 1, ""));
        assert_false(holds(s, none[i], "", COMPARE_VALUE, COMPARE_EQUAL, 0, ""));
        assert_false(holds(s, none[i], "", COMPARE_VALUE, COMPARE_NOT_EQUAL, 0, "x"));
    }
    store_free(s);
}

static void what_fails_fails_before_anything_is_written(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new();
    (void)put(s, "a", "1");
    (void)put(s, "a", "2");
    struct command compact = {.op = OP_COMPACT, .compact_revision = 3};
    assert_int_equal(apply(s, &compact).error, OK);
    add_put(&p.success, "b", "written?");
    add_range(&p.success, "a", "", 2);
    struct done d = carry_out(s, joined(&p));
    assert_int_equal(d.r.error, ERR_COMPACTED);
    done_free(&d);
    buf_clear(&p.success);
    add_put(&p.success, "b", "written?");
    add_range(&p.success, "a", "", 4); /* its own revision is the future */
    d = carry_out(s, joined(&p));
    assert_int_equal(d.r.error, ERR_FUTURE_REVISION);
    done_free(&d);
    struct txn_op op = {.kind = TXN_PUT, .put = {.key = span_str("c"), .ignore_value = true}};
    assert_int_equal(txn_op_add(&p.success, &op), OK);
    d = carry_out(s, joined(&p));
    assert_int_equal(d.r.error, ERR_KEY_NOT_FOUND); /* puts are looked at first */
    done_free(&d);
    op.put = (struct put){.key = span_str("d"), .lease = 77};
    buf_clear(&p.success);
    assert_int_equal(txn_op_add(&p.success, &op), OK);
    d = carry_out(s, joined(&p));
    assert_int_equal(d.r.error, ERR_LEASE_NOT_FOUND);
    done_free(&d);
    assert_int_equal(store_revision(s), 3);
    assert_int_equal(store_keys(s), 1);
    parts_free(&p);
    store_free(s);
}

static void one_that_writes_nothing_takes_no_revision(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new();
    (void)put(s, "a", "1");
    add_delete(&p.success, "b", "c");
    add_range(&p.success, "a", "", 0);
    struct done d = carry_out(s, joined(&p));
    assert_int_equal(d.r.revision, 2);
    (void)next(&d, ANSWER_TXN);
    assert_int_equal(next(&d, ANSWER_DELETE).revision, 2);
    assert_int_equal(next(&d, ANSWER_RANGE).revision, 2);
    next_kv(&d, "a", "1", 2);
    done_free(&d);
    parts_free(&p);
    store_free(s);
}

static void an_answer_that_does_not_fit_says_so_and_the_writes_stay(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new();
    char *big = malloc(1 * MIB);
    assert_non_null(big);
    memset(big, 'x', 1 * MIB - 1);
    big[1 * MIB - 1] = '\0';
    (void)put(s, "a", big);
    for (unsigned i = 0; i < 5; i++)
        add_range(&p.success, "a", "", 0);
    add_put(&p.success, "b", "written");
    struct done d = carry_out(s, joined(&p));
    assert_int_equal(d.r.error, ERR_TOO_LARGE);
    assert_int_equal(d.r.revision, 3);
    assert_int_equal(d.r.answer.size, 0);
    assert_int_equal(store_keys(s), 2);
    done_free(&d);
    free(big);
    parts_free(&p);
    store_free(s);
}

static void reading_needs_no_log_and_gives_the_same(void **state) {
    (void)state;
    uint64_t seed = 41;
    struct store *s = store_for_test();
    struct buf txn = buf_new(COMMAND_MAX), out = buf_new(RESULT_MAX),
               command = buf_new(COMMAND_MAX);
    unsigned reads = 0;
    for (unsigned i = 0; i < 3000; i++) {
        buf_clear(&command);
        random_command(&seed, false, &command);
        (void)apply_bytes(s, buf_span(&command));
        buf_clear(&txn);
        random_txn(&seed, 0, &txn);
        if (txn_check(buf_span(&txn), NULL) != OK || txn_writes(buf_span(&txn))) continue;
        uint64_t revision = store_revision(s);
        buf_clear(&out);
        enum err e = txn_read(s, buf_span(&txn), &out);
        struct done d = carry_out(s, buf_span(&txn));
        if (d.r.error != ERR_CORRUPT_CLUSTER) { /* an alarm stops commands */
            assert_int_equal(d.r.error, e);
            if (e == OK) assert_true(span_equal(d.r.answer, buf_span(&out)));
        }
        assert_int_equal(store_revision(s), revision);
        reads++;
        buf_free(&d.out);
    }
    assert_true(reads > 300);
    buf_free(&txn);
    buf_free(&out);
    buf_free(&command);
    store_free(s);
}

/* --- permissions --- */

static void change(struct store *s, struct auth_change c) {
    assert_int_equal(apply(s, &(struct command){.op = OP_AUTH, .auth = c}).error, OK);
}

/* "ann" may write a..m, read a..f. */
static void make_users(struct store *s) {
    static const uint8_t key[AUTH_KEY_SIZE] = {1};
    struct span ann = span_str("ann"), root = span_str("root"), role = span_str("role");
    change(s, (struct auth_change){.op = AUTH_USER_ADD, .user = root});
    change(s, (struct auth_change){.op = AUTH_ROLE_ADD, .role = root});
    change(s, (struct auth_change){.op = AUTH_USER_GRANT, .user = root, .role = root});
    change(s, (struct auth_change){.op = AUTH_USER_ADD, .user = ann});
    change(s, (struct auth_change){.op = AUTH_ROLE_ADD, .role = role});
    change(s, (struct auth_change){.op = AUTH_USER_GRANT, .user = ann, .role = role});
    change(s, (struct auth_change){.op = AUTH_ROLE_GRANT,
                                   .role = role,
                                   .permission = PERMISSION_WRITE,
                                   .in = {span_str("g"), span_str("m")}});
    change(s, (struct auth_change){.op = AUTH_ROLE_GRANT,
                                   .role = role,
                                   .permission = PERMISSION_BOTH,
                                   .in = {span_str("a"), span_str("f")}});
    change(s, (struct auth_change){.op = AUTH_ENABLE, .token_key = span_of(key, sizeof key)});
}

static enum err as_ann(struct store *s, struct command c) {
    c.has_user = true;
    c.user = span_str("ann");
    c.auth_revision = auth_revision(store_auth(s));
    return apply(s, &c).error;
}

static void a_user_may_what_the_permissions_say(void **state) {
    (void)state;
    struct store *s = store_for_test();
    (void)put(s, "z", "");
    make_users(s);
    struct command c = {.op = OP_PUT, .put = {.key = span_str("h")}};
    assert_int_equal(as_ann(s, c), OK);
    c.put.prev_kv = true;
    assert_int_equal(as_ann(s, c), ERR_AUTH_DENIED); /* that is reading */
    c.put.key = span_str("b");
    assert_int_equal(as_ann(s, c), OK);
    c.put.key = span_str("z");
    assert_int_equal(as_ann(s, c), ERR_AUTH_DENIED);
    c = (struct command){.op = OP_DELETE, .del = {.in = {span_str("h"), span_str("i")}}};
    assert_int_equal(as_ann(s, c), OK);
    c.del.in.end = span_str("n");
    assert_int_equal(as_ann(s, c), ERR_AUTH_DENIED);
    c = (struct command){.op = OP_AUTH, .auth = {.op = AUTH_ROLE_ADD, .role = span_str("mine")}};
    assert_int_equal(as_ann(s, c), ERR_AUTH_DENIED);
    c = (struct command){.op = OP_PUT, .put = {.key = span_str("b")}, .has_user = true};
    c.user = span_str("ann");
    c.auth_revision = auth_revision(store_auth(s)) - 1;
    assert_int_equal(apply(s, &c).error, ERR_AUTH_REVISION);
    store_free(s);
}

static void a_lease_is_its_keys(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct command grant = {.op = OP_LEASE_GRANT, .lease = {.id = 3, .ttl_ms = 1000}};
    assert_int_equal(apply(s, &grant).error, OK);
    make_users(s);
    struct command c = {.op = OP_PUT, .put = {.key = span_str("b"), .lease = 3}};
    assert_int_equal(as_ann(s, c), OK);
    struct command theirs = {.op = OP_PUT, .put = {.key = span_str("z"), .lease = 3}};
    assert_int_equal(apply(s, &theirs).error, OK);
    assert_int_equal(as_ann(s, c), ERR_AUTH_DENIED);
    struct command revoke = {.op = OP_LEASE_REVOKE, .lease = {.id = 3}};
    assert_int_equal(as_ann(s, revoke), ERR_AUTH_DENIED);
    (void)delete_key(s, "z");
    assert_int_equal(as_ann(s, revoke), OK);
    store_free(s);
}

static void nested_transactions_hide_nothing(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct parts p = parts_new(), inner = parts_new();
    make_users(s);
    add_put(&p.success, "b", "");
    add_nested(&p.failure, joined(&inner));
    struct command c = {.op = OP_TXN, .txn = joined(&p)};
    assert_int_equal(as_ann(s, c), OK);
    add_range(&inner.failure, "g", "", 0); /* may be written, not read */
    buf_clear(&p.failure);
    add_nested(&p.failure, joined(&inner));
    c.txn = joined(&p);
    assert_int_equal(as_ann(s, c), ERR_AUTH_DENIED);
    buf_clear(&p.failure);
    add_compare(&p.compares, "z", COMPARE_VERSION, COMPARE_EQUAL, 0, "");
    c.txn = joined(&p);
    assert_int_equal(as_ann(s, c), ERR_AUTH_DENIED);
    parts_free(&p);
    parts_free(&inner);
    store_free(s);
}

/* --- out of memory --- */

struct sweep {
    struct span txn;
    enum err e;
};

static void check_once(void *ctx) {
    struct sweep *w = ctx;
    w->e = txn_check(w->txn, NULL);
}

static void said_so(void *ctx, bool fired) {
    const struct sweep *w = ctx;
    assert_int_equal(w->e, fired ? ERR_NOMEM : OK);
}

static void a_check_without_memory_says_so(void **state) {
    (void)state;
    struct parts p = parts_new();
    for (unsigned i = 0; i < 100; i++) {
        char key[2] = {(char)(1 + i), '\0'};
        if (i < 50) add_put(&p.success, key, "");
        if (i >= 50) add_delete(&p.success, key, "");
    }
    struct sweep w = {.txn = joined(&p)};
    assert_true(fault_sweep_alloc(check_once, said_so, &w) >= 5);
    parts_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlaps_are_refused_exactly_as_etcd_does),
        cmocka_unit_test(overlaps_by_hand),
        cmocka_unit_test(nested_transactions_share_the_limit),
        cmocka_unit_test(depth_has_a_bound),
        cmocka_unit_test(what_a_single_operation_may_not_be),
        cmocka_unit_test(flipped_bytes_do_no_harm),
        cmocka_unit_test(operations_see_those_before_them_and_share_a_revision),
        cmocka_unit_test(compares_are_answered_by_the_state_before),
        cmocka_unit_test(compares_know_missing_keys_and_ranges),
        cmocka_unit_test(what_fails_fails_before_anything_is_written),
        cmocka_unit_test(one_that_writes_nothing_takes_no_revision),
        cmocka_unit_test(an_answer_that_does_not_fit_says_so_and_the_writes_stay),
        cmocka_unit_test(reading_needs_no_log_and_gives_the_same),
        cmocka_unit_test(a_user_may_what_the_permissions_say),
        cmocka_unit_test(a_lease_is_its_keys),
        cmocka_unit_test(nested_transactions_hide_nothing),
        cmocka_unit_test(a_check_without_memory_says_so),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
