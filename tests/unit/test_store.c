/* The state machine: revisions as etcd counts them, conditions, batches, tokens, views; against a
 * plain model at random; and that the same commands give the same everywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"
#include "tests/lib/fault.h"
#include "tests/lib/states.h"

static void a_put_takes_a_revision_and_counts_versions(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct kv kv;
    assert_int_equal(store_revision(s), 1);
    struct result r = put(s, "a", "1");
    assert_int_equal(r.error, OK);
    assert_int_equal(r.revision, 2);
    assert_false(r.previous.existed);
    r = put(s, "a", "22");
    assert_int_equal(r.revision, 3);
    assert_true(r.previous.existed);
    assert_int_equal(r.previous.mod_revision, 2);
    assert_int_equal(r.previous.version, 1);
    assert_true(store_get(s, span_str("a"), &kv));
    assert_int_equal(kv.create_revision, 2);
    assert_int_equal(kv.mod_revision, 3);
    assert_int_equal(kv.version, 2);
    assert_true(span_equal(kv.value, span_str("22")));
    assert_int_equal(store_keys(s), 1);
    assert_int_equal(store_bytes(s), 3);
    store_free(s);
}

static void a_delete_of_nothing_takes_no_revision_and_a_new_key_starts_at_version_1(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct kv kv;
    struct result r = delete_key(s, "a");
    assert_int_equal(r.revision, 1);
    assert_int_equal(r.deleted, 0);
    (void)put(s, "a", "1");
    (void)put(s, "a", "2");
    r = delete_key(s, "a");
    assert_int_equal(r.revision, 4);
    assert_int_equal(r.deleted, 1);
    assert_int_equal(r.previous.version, 2);
    assert_int_equal(store_keys(s), 0);
    assert_int_equal(store_bytes(s), 0);
    (void)put(s, "a", "3");
    assert_true(store_get(s, span_str("a"), &kv));
    assert_int_equal(kv.version, 1);
    assert_int_equal(kv.create_revision, 5);
    store_free(s);
}

static void a_range_is_deleted_in_one_revision(void **state) {
    (void)state;
    struct store *s = store_for_test();
    char key[16];
    for (int i = 0; i < 300; i++) {
        (void)snprintf(key, sizeof key, "k%03d", i);
        (void)put(s, key, "v");
    }
    struct command c = {.op = OP_DELETE,
                        .del = {.in = {.key = span_str("k100"), .end = span_str("k200")}}};
    struct result r = apply(s, &c);
    assert_int_equal(r.deleted, 100);
    assert_int_equal(r.revision, 302);
    assert_int_equal(store_keys(s), 200);
    c.del.in.end = span_str("k000"); /* reversed: nothing */
    r = apply(s, &c);
    assert_int_equal(r.error, OK);
    assert_int_equal(r.deleted, 0);
    assert_int_equal(r.revision, 302);
    store_free(s);
}

static struct command put_if(const char *key, bool must_not_exist, uint64_t mod_revision) {
    return (struct command){.op = OP_PUT,
                            .put = {.key = span_str(key),
                                    .value = span_str("new"),
                                    .must_not_exist = must_not_exist,
                                    .mod_revision = mod_revision}};
}

static void a_condition_that_fails_changes_nothing(void **state) {
    (void)state;
    struct store *s = store_for_test();
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    (void)put(s, "a", "1");
    hash_of(s, before);
    struct command c = put_if("a", true, 0);
    assert_int_equal(apply(s, &c).error, ERR_EXISTS);
    c = put_if("a", false, 7);
    assert_int_equal(apply(s, &c).error, ERR_PRECONDITION);
    c = put_if("b", false, 2);
    assert_int_equal(apply(s, &c).error, ERR_PRECONDITION);
    c = (struct command){.op = OP_DELETE, .del = {.in = {.key = span_str("a")}, .mod_revision = 9}};
    assert_int_equal(apply(s, &c).error, ERR_PRECONDITION);
    hash_of(s, after);
    assert_memory_equal(before, after, STATE_HASH_SIZE);
    c = put_if("a", false, 2);
    assert_int_equal(apply(s, &c).error, OK);
    c = put_if("b", true, 0);
    assert_int_equal(apply(s, &c).error, OK);
    store_free(s);
}

static struct result batch(struct store *s, const struct command *items, uint32_t n) {
    struct buf bytes = buf_new(COMMAND_MAX);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(command_batch_add(&bytes, &items[i]), OK);
    struct command c = {.op = OP_BATCH, .batch = {.n = n, .items = buf_span(&bytes)}};
    struct result r = apply(s, &c);
    buf_free(&bytes);
    return r;
}

static void a_batch_is_one_revision_and_all_or_nothing(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct kv kv;
    (void)put(s, "gone", "x");
    struct command items[] = {
        put_if("a", true, 0),
        put_if("b", false, 0),
        {.op = OP_DELETE, .del = {.in = {.key = span_str("gone")}}},
        put_if("b", false, 0),
    };
    struct result r = batch(s, items, 4);
    assert_int_equal(r.error, OK);
    assert_int_equal(r.revision, 3);
    assert_int_equal(r.deleted, 1);
    assert_true(store_get(s, span_str("b"), &kv));
    assert_int_equal(kv.mod_revision, 3);
    assert_int_equal(kv.version, 2);
    assert_int_equal(store_keys(s), 2);
    r = batch(s, items, 4); /* "a" is there now */
    assert_int_equal(r.error, ERR_EXISTS);
    assert_int_equal(r.revision, 3);
    r = batch(s, items + 2, 1);
    assert_int_equal(r.error, OK);
    assert_int_equal(r.revision, 3);
    r = batch(s, items, 0);
    assert_int_equal(r.revision, 3);
    store_free(s);
}

static struct result put_with_token(struct store *s, uint32_t token, const char *value) {
    struct command c = put_if("counter", false, 0);
    c.put.value = span_str(value);
    c.has_token = true;
    memcpy(c.token, &token, sizeof token);
    return apply(s, &c);
}

static void a_command_with_a_known_token_is_not_applied_again(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct kv kv;
    struct result first = put_with_token(s, 1, "one");
    (void)put_with_token(s, 2, "two");
    struct result again = put_with_token(s, 1, "one");
    assert_true(again.repeated);
    assert_false(first.repeated);
    assert_int_equal(again.revision, first.revision);
    assert_int_equal(store_revision(s), 3);
    assert_true(store_get(s, span_str("counter"), &kv));
    assert_true(span_equal(kv.value, span_str("two")));
    /* A refusal is remembered as well. */
    struct command c = put_if("counter", true, 0);
    c.has_token = true;
    memset(c.token, 9, sizeof c.token);
    assert_int_equal(apply(s, &c).error, ERR_EXISTS);
    (void)delete_key(s, "counter");
    struct result refused = apply(s, &c);
    assert_int_equal(refused.error, ERR_EXISTS);
    assert_true(refused.repeated);
    store_free(s);
}

static void the_oldest_token_is_forgotten_first(void **state) {
    (void)state;
    struct store *s = store_for_test();
    for (uint32_t i = 0; i < 3 * TOKENS_MAX / 2; i++)
        assert_false(put_with_token(s, i, "v").repeated);
    assert_true(put_with_token(s, TOKENS_MAX / 2, "v").repeated);
    assert_true(put_with_token(s, 3 * TOKENS_MAX / 2 - 1, "v").repeated);
    assert_true(put_with_token(s, TOKENS_MAX, "v").repeated);
    assert_false(
        put_with_token(s, TOKENS_MAX / 2 - 1, "v").repeated); /* this forgets the next one */
    assert_false(put_with_token(s, TOKENS_MAX / 2, "v").repeated);
    store_free(s);
}

static void what_is_no_command_is_refused_and_changes_nothing(void **state) {
    (void)state;
    struct store *s = store_for_test();
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    hash_of(s, before);
    assert_int_equal(apply_bytes(s, span_of("", 0)).error, ERR_INVALID);
    assert_int_equal(apply_bytes(s, span_of("\x01", 1)).error, ERR_INVALID);
    assert_int_equal(apply_bytes(s, span_of("\xee\0", 2)).error, ERR_UNSUPPORTED);
    assert_int_equal(apply_bytes(s, span_of("\x01\x80", 2)).error, ERR_UNSUPPORTED);
    hash_of(s, after);
    assert_memory_equal(before, after, STATE_HASH_SIZE);
    store_free(s);
}

struct seen {
    unsigned n;
    unsigned stop_at; /* 0: never */
    uint8_t last[KEY_MAX];
    size_t last_size;
};

static bool see(void *ctx, const struct kv *kv) {
    struct seen *seen = ctx;
    assert_true(span_compare(span_of(seen->last, seen->last_size), kv->key) < 0);
    memcpy(seen->last, kv->key.at, kv->key.size);
    seen->last_size = kv->key.size;
    return ++seen->n != seen->stop_at;
}

static void a_range_is_ascending_and_bounded(void **state) {
    (void)state;
    struct store *s = store_for_test();
    uint8_t end[KEY_MAX];
    const char *const keys[] = {"b/1", "a", "b/2", "b/", "c", "b/\xff", "b/\xff\xff", "b0"};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        (void)put(s, keys[i], "");
    struct seen seen = {0};
    store_range(s, span_of(NULL, 0), span_of(NULL, 0), see, &seen);
    assert_int_equal(seen.n, 8);
    size_t size = store_prefix_end(span_str("b/"), end);
    seen = (struct seen){0};
    store_range(s, span_str("b/"), span_of(end, size), see, &seen);
    assert_int_equal(seen.n, 5);
    seen = (struct seen){.stop_at = 2};
    store_range(s, span_str("b/"), span_of(end, size), see, &seen);
    assert_int_equal(seen.n, 2);
    size = store_prefix_end(span_str("b/\xff"), end);
    assert_true(span_equal(span_of(end, size), span_str("b0")));
    assert_int_equal(store_prefix_end(span_str("\xff\xff"), end), 0);
    assert_int_equal(store_prefix_end(span_str(""), end), 0);
    store_free(s);
}

static void a_view_stays_as_it_was_and_outlives_a_restore(void **state) {
    (void)state;
    struct store *s = store_for_test(), *other = store_for_test();
    struct store_view *v;
    struct kv kv;
    uint8_t hash[STATE_HASH_SIZE];
    (void)put(s, "a", "old");
    assert_int_equal(store_view_new(s, &v), OK);
    (void)put(s, "a", "new");
    (void)put(s, "b", "new");
    struct buf image = image_of(other);
    hash_of(other, hash);
    assert_int_equal(restore_from(s, buf_span(&image), 100, NULL, hash), OK);
    assert_int_equal(store_keys(s), 0);
    assert_int_equal(store_revision(s), 1);
    assert_true(store_view_get(v, span_str("a"), &kv));
    assert_true(span_equal(kv.value, span_str("old")));
    assert_false(store_view_get(v, span_str("b"), &kv));
    assert_int_equal(store_view_revision(v), 2);
    struct seen seen = {0};
    store_view_range(v, span_str("a"), span_str("z"), see, &seen);
    assert_int_equal(seen.n, 1);
    store_view_free(v);
    (void)put(s, "c", "x"); /* tidies the old tree away */
    buf_free(&image);
    store_free(other);
    store_free(s);
}

/* --- a model --- */

struct model_key {
    uint64_t create, mod, version; /* mod 0: not there */
};

static void model_put(struct model_key *k, uint64_t revision) {
    if (k->mod == 0) k->create = revision;
    if (k->mod == 0) k->version = 0;
    if (k->mod != revision) k->version++;
    k->mod = revision;
}

static void random_commands_agree_with_a_model(void **state) {
    (void)state;
    enum { N = 50 };
    struct model_key model[N] = {0};
    struct store *s = store_for_test();
    uint64_t seed = 3, revision = 1;
    char key[16], end[16];
    for (unsigned step = 0; step < 100000; step++) {
        unsigned i = (unsigned)(random_next(&seed) % N), k = i + (unsigned)(random_next(&seed) % 4);
        (void)snprintf(key, sizeof key, "%03u", i);
        (void)snprintf(end, sizeof end, "%03u", k);
        struct command c = {.op = OP_PUT, .put = {.key = span_str(key)}};
        uint64_t deleted = 0;
        if (random_next(&seed) % 3 == 0) {
            c = (struct command){.op = OP_DELETE,
                                 .del = {.in = {.key = span_str(key), .end = span_str(end)}}};
            for (unsigned d = i; d < k && d < N; d++)
                if (model[d].mod != 0) {
                    deleted++;
                    model[d].mod = 0;
                }
            revision += deleted > 0;
        } else {
            model_put(&model[i], ++revision);
        }
        struct result r = apply(s, &c);
        assert_int_equal(r.revision, revision);
        assert_int_equal(r.deleted, deleted);
        struct kv kv;
        bool there = store_get(s, span_str(key), &kv);
        assert_int_equal(there, model[i].mod != 0);
        if (!there) continue;
        assert_int_equal(kv.create_revision, model[i].create);
        assert_int_equal(kv.mod_revision, model[i].mod);
        assert_int_equal(kv.version, model[i].version);
    }
    store_free(s);
}

static void check_same_images(struct store *s[2]) {
    struct buf image[2] = {image_of(s[0]), image_of(s[1])};
    assert_true(span_equal(buf_span(&image[0]), buf_span(&image[1])));
    buf_free(&image[0]);
    buf_free(&image[1]);
}

static void the_same_commands_give_the_same_everywhere(void **state) {
    (void)state;
    struct store *s[2] = {store_for_test(), store_for_test()};
    struct buf command = buf_new(COMMAND_MAX),
               result[2] = {buf_new(RESULT_MAX), buf_new(RESULT_MAX)};
    uint8_t hash[2][STATE_HASH_SIZE];
    uint64_t seed = 11;
    struct store_view *view = NULL;
    for (unsigned step = 0; step < 20000; step++) {
        buf_clear(&command);
        random_command(&seed, true, &command);
        /* One sweeps as soon as it can, the other has views in its way. */
        if (step % 100 == 0) {
            store_view_free(view);
            assert_int_equal(store_view_new_with_history(s[1], &view), OK);
        }
        for (unsigned i = 0; i < 2; i++) {
            struct machine *m = store_machine(s[i]);
            buf_clear(&result[i]);
            assert_int_equal(m->apply(m, step, buf_span(&command), &result[i], NULL), OK);
            if (i == 0) m->applied(m, step);
            m->hash(m, hash[i]);
        }
        if (step % 1000 == 0) check_same_images(s);
        assert_true(span_equal(buf_span(&result[0]), buf_span(&result[1])));
        assert_memory_equal(hash[0], hash[1], STATE_HASH_SIZE);
    }
    check_same_images(s);
    store_view_free(view);
    assert_true(store_keys(s[0]) > 0 && store_cluster(s[0])->initialised);
    for (unsigned i = 0; i < 2; i++) {
        buf_free(&result[i]);
        store_free(s[i]);
    }
    buf_free(&command);
}

static void the_hash_tells_order_independent_content_and_nothing_less(void **state) {
    (void)state;
    struct store *s = store_for_test();
    uint8_t first[STATE_HASH_SIZE], second[STATE_HASH_SIZE];
    (void)put(s, "a", "1");
    hash_of(s, first);
    (void)put(s, "a", "1"); /* same bytes, other revision */
    hash_of(s, second);
    assert_memory_not_equal(first, second, STATE_HASH_SIZE);
    (void)put_with_token(s, 5, "x");
    hash_of(s, first);
    assert_true(put_with_token(s, 5, "x").repeated);
    hash_of(s, second);
    assert_memory_equal(first, second, STATE_HASH_SIZE);
    (void)make_cluster(s);
    hash_of(s, second);
    assert_memory_not_equal(first, second, STATE_HASH_SIZE);
    store_free(s);
}

/* --- out of memory --- */

struct sweep {
    struct store *s;
    struct buf command, result;
};

static void apply_one(void *ctx) {
    struct sweep *w = ctx;
    struct machine *m = store_machine(w->s);
    buf_clear(&w->result);
    (void)!m->apply(m, 1, buf_span(&w->command), &w->result, NULL);
}

/* Whatever was applied or not: the store is whole, and its image restores. */
static void still_whole(void *ctx, bool fired) {
    struct sweep *w = ctx;
    uint8_t hash[STATE_HASH_SIZE];
    (void)fired;
    struct store *other = store_for_test();
    struct buf image = image_of(w->s);
    hash_of(w->s, hash);
    assert_int_equal(restore_from(other, buf_span(&image), 4096, NULL, hash), OK);
    buf_free(&image);
    store_free(other);
}

static void every_failing_allocation_leaves_a_whole_state(void **state) {
    (void)state;
    struct sweep w = {
        .s = store_for_test(), .command = buf_new(COMMAND_MAX), .result = buf_new(RESULT_MAX)};
    uint64_t seed = 23;
    unsigned fired = 0;
    for (unsigned i = 0; i < 400; i++) {
        struct store_view *v = NULL;
        if (i % 3 == 0) assert_int_equal(store_view_new(w.s, &v), OK);
        buf_clear(&w.command);
        random_command(&seed, false, &w.command);
        fired += fault_sweep_alloc(apply_one, still_whole, &w);
        store_view_free(v);
    }
    assert_true(fired > 400);
    buf_free(&w.command);
    buf_free(&w.result);
    store_free(w.s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_takes_a_revision_and_counts_versions),
        cmocka_unit_test(a_delete_of_nothing_takes_no_revision_and_a_new_key_starts_at_version_1),
        cmocka_unit_test(a_range_is_deleted_in_one_revision),
        cmocka_unit_test(a_condition_that_fails_changes_nothing),
        cmocka_unit_test(a_batch_is_one_revision_and_all_or_nothing),
        cmocka_unit_test(a_command_with_a_known_token_is_not_applied_again),
        cmocka_unit_test(the_oldest_token_is_forgotten_first),
        cmocka_unit_test(what_is_no_command_is_refused_and_changes_nothing),
        cmocka_unit_test(a_range_is_ascending_and_bounded),
        cmocka_unit_test(a_view_stays_as_it_was_and_outlives_a_restore),
        cmocka_unit_test(random_commands_agree_with_a_model),
        cmocka_unit_test(the_same_commands_give_the_same_everywhere),
        cmocka_unit_test(the_hash_tells_order_independent_content_and_nothing_less),
        cmocka_unit_test(every_failing_allocation_leaves_a_whole_state),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
