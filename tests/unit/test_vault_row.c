/* What the state says of the cluster keys, as bytes and by its rules: epochs go up, an epoch's key
 * stays, the next one becomes current when a majority of the roll holds it, and none is given up
 * while a value is sealed under it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "tests/lib/held_lists.h"

/* --- bytes --- */

static void check_bytes(const struct vault_row *v) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct vault_row out;
    assert_int_equal(vault_row_encode(v, &body), OK);
    assert_int_equal(vault_row_decode(buf_span(&body), &out), OK);
    assert_true(v->current == out.current && v->next == out.next && v->oldest == out.oldest);
    assert_true(v->rotated_ns == out.rotated_ns && v->n == out.n);
    assert_memory_equal(v->key_ids, out.key_ids, sizeof v->key_ids);
    for (unsigned i = 0; i < v->n; i++)
        assert_string_equal(v->holders[i], out.holders[i]);
    for (size_t size = 0; size < body.size; size++)
        assert_int_equal(vault_row_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(vault_row_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&body);
}

static void epochs_are_read_as_they_were_written(void **state) {
    (void)state;
    struct vault_row first = {.next = 1}, full = some_vault(UINT32_MAX - 1);
    full.next = UINT32_MAX;
    memset(full.key_ids[1], 7, sizeof full.key_ids[1]);
    full.rotated_ns = INT64_MIN;
    full.oldest = 0;
    for (full.n = 0; full.n < MEMBERS_MAX; full.n++)
        (void)snprintf(full.holders[full.n], sizeof full.holders[0], "%025u", full.n);
    check_bytes(&first);
    check_bytes(&full);
}

static void epochs_past_their_bounds_are_not_written(void **state) {
    (void)state;
    struct buf body = buf_new(ROW_BODY_MAX);
    struct vault_row bad[9];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_vault(3);
    bad[0].oldest = 4;
    bad[1].next = 3;
    bad[2].next = 2;
    bad[3].current = bad[3].oldest = 0;                       /* neither one nor the next one */
    bad[4].key_ids[1][5] = 1;                                 /* there is no next key */
    bad[5] = (struct vault_row){.next = 1, .key_ids = {{1}}}; /* no current one */
    bad[6].n = MEMBERS_MAX + 1;
    bad[7].holders[0][0] = '\0';
    bad[8].n = 2;
    memcpy(bad[8].holders[1], "id-1", sizeof "id-1"); /* twice */
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(vault_row_encode(&bad[i], &body), ERR_INVALID);
    assert_int_equal(body.size, 0);
}

/* --- rules --- */

static enum err set(struct store *s, enum row_action action, const char *id,
                    const struct vault_row *v) {
    struct row_list l = row_list();
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    hash_of(s, before);
    list_vault(&l, action, id, v);
    enum err e = list_apply(s, &l).error;
    hash_of(s, after);
    assert_int_equal(memcmp(before, after, STATE_HASH_SIZE) == 0, e != OK);
    return e;
}

static enum err change(struct store *s, const struct vault_row *v) {
    return set(s, ROW_REPLACE, "cluster", v);
}

static struct store *founded(void) {
    struct store *s = store_for_test();
    assert_int_equal(make_cluster(s).error, OK);
    return s;
}

static struct vault_row spreading(uint32_t current, uint32_t next) {
    struct vault_row v = {.n = 0};
    if (current != 0) v = some_vault(current);
    v.next = next;
    memset(v.key_ids[1], (int)next, sizeof v.key_ids[1]);
    return v;
}

static void there_is_one_row_of_the_cluster_and_it_stays(void **state) {
    (void)state;
    struct store *s = founded();
    struct vault_row v = some_vault(1), out;
    struct row r;
    struct row_list l = row_list();
    assert_false(vault_row_get(s, &r, &out));
    assert_int_equal(out.current, 0);
    assert_int_equal(set(s, ROW_CREATE, "another", &v), ERR_PRECONDITION);
    assert_int_equal(set(s, ROW_CREATE, "cluster", &v), OK);
    assert_int_equal(set(s, ROW_CREATE, "another", &v), ERR_PRECONDITION);
    list_plain(&l, ROW_REMOVE, ROW_VAULT, "cluster", 0);
    assert_int_equal(list_apply(s, &l).error, ERR_PRECONDITION);
    assert_true(vault_row_get(s, &r, &out));
    assert_int_equal(out.current, 1);
    store_free(s);
}

static void add_members(struct store *s, unsigned upto) {
    for (unsigned i = 2; i <= upto; i++) {
        char id[16], name[16];
        struct command c = {.op = OP_NODE_ADD};
        (void)snprintf(id, sizeof id, "id-%u", i);
        (void)snprintf(name, sizeof name, "name-%u", i);
        c.node = make_node(i, id, name);
        assert_int_equal(apply(s, &c).error, OK);
    }
}

static void holders(struct vault_row *v, unsigned n) {
    for (v->n = 0; v->n < n; v->n++)
        (void)snprintf(v->holders[v->n], sizeof v->holders[0], "id-%u", v->n + 1);
}

static void a_key_becomes_current_when_a_majority_of_the_roll_holds_it(void **state) {
    (void)state;
    struct store *s = founded();
    add_members(s, 4);
    struct vault_row v = some_vault(1);
    assert_int_equal(set(s, ROW_CREATE, "cluster", &v), ERR_PRECONDITION); /* one of four has it */
    v = spreading(0, 1);
    assert_int_equal(set(s, ROW_CREATE, "cluster", &v), OK);
    v = some_vault(1);
    for (unsigned i = 0; i <= 2; i++) {
        holders(&v, i);
        assert_int_equal(change(s, &v), ERR_PRECONDITION);
    }
    v.n = 4; /* those who are not on the roll don't count */
    for (unsigned i = 2; i < 4; i++)
        (void)snprintf(v.holders[i], sizeof v.holders[0], "stranger-%u", i);
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    holders(&v, 3);
    assert_int_equal(change(s, &v), OK);
    v = spreading(1, 2);
    assert_int_equal(change(s, &v), OK);
    v = spreading(2, 3); /* whose holders would be the next one's */
    holders(&v, 4);
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = some_vault(2);
    holders(&v, 3);
    assert_int_equal(change(s, &v), OK);
    store_free(s);
}

static void epochs_go_up_and_their_keys_stay(void **state) {
    (void)state;
    struct store *s = store_with_vault();
    struct vault_row v = some_vault(2);
    assert_int_equal(change(s, &v), ERR_PRECONDITION); /* it was not the next one */
    v = some_vault(1);
    v.key_ids[0][0] ^= 1;
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = some_vault(1);
    v.oldest = 0;
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = spreading(1, 3);
    assert_int_equal(change(s, &v), OK);
    v.n = 0;
    assert_int_equal(change(s, &v), OK); /* holders may change */
    v.key_ids[1][0] ^= 1;
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = some_vault(1); /* it is not called back */
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = spreading(1, 2);
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = some_vault(3);
    v.oldest = 1;
    v.key_ids[0][0] ^= 1;
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = spreading(1, 4); /* another takes its place */
    assert_int_equal(change(s, &v), OK);
    v = some_vault(3);
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = some_vault(4);
    v.oldest = 1;
    assert_int_equal(change(s, &v), OK);
    v = some_vault(1);
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    v = some_vault(4);
    assert_int_equal(change(s, &v), OK);
    v.oldest = 3;
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    store_free(s);
}

static void an_epoch_stays_while_a_value_is_sealed_under_it(void **state) {
    (void)state;
    struct store *s = store_with_vault();
    struct row_list l = row_list();
    assert_false(vault_values_below(s, UINT32_MAX));
    list_secret(&l, "s", 2);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_false(vault_values_below(s, 1));
    assert_true(vault_values_below(s, 2));
    struct vault_row v = spreading(1, 2);
    assert_int_equal(change(s, &v), OK);
    v = some_vault(2);
    assert_int_equal(change(s, &v), ERR_PRECONDITION); /* and old values in one */
    v.oldest = 1;
    assert_int_equal(change(s, &v), OK);
    struct value_row one = some_value(ROW_SECRET, "s", 1, 2),
                     two = some_value(ROW_SECRET, "s", 2, 2);
    list_value(&l, ROW_REPLACE, "s-1", &one);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_true(vault_values_below(s, 2));
    v.oldest = 2;
    assert_int_equal(change(s, &v), ERR_PRECONDITION);
    list_vault(&l, ROW_REPLACE, "cluster", &v); /* the last one and the end in one list */
    list_value(&l, ROW_REPLACE, "s-2", &two);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_false(vault_values_below(s, 2));
    assert_true(vault_values_below(s, 3));
    store_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epochs_are_read_as_they_were_written),
        cmocka_unit_test(epochs_past_their_bounds_are_not_written),
        cmocka_unit_test(there_is_one_row_of_the_cluster_and_it_stays),
        cmocka_unit_test(a_key_becomes_current_when_a_majority_of_the_roll_holds_it),
        cmocka_unit_test(epochs_go_up_and_their_keys_stay),
        cmocka_unit_test(an_epoch_stays_while_a_value_is_sealed_under_it),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
