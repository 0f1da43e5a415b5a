/* The cluster keys on real managers when they are lost: what is said then, their escrow and whose
 * key is in it, another manager that has it, and going on without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "tests/lib/vault_world.h"

static const char value[] = "correct horse battery staple";

static struct buf kept; /* an escrow file */

static void on_escrowed(void *ctx, enum err e, const char *text, struct span file) {
    if (e == OK) assert_int_equal(buf_add_span(&kept, file), OK);
    loners_done(ctx, e, text);
}

static struct secret *words(const char *text) {
    struct secret *s;
    assert_int_equal(secret_new(text, strlen(text), &s), OK);
    return s;
}

static bool is_lost(void *ctx) {
    struct why why = {0};
    return vault_ready(ctx, &why) == ERR_PRECONDITION && strstr(why.text, "escrow") != NULL;
}

static void import(struct manager *m, struct span file, const char *passphrase, enum err want) {
    struct why why = {0};
    struct secret *phrase = words(passphrase);
    all.done = false;
    must(vault_import(m, file, phrase, &tester, loners_done, &all, &why), &why);
    await_done(want);
    secret_free(phrase);
}

static void a_lost_key_comes_back_from_its_escrow(void **state) {
    (void)state;
    struct why why = {0};
    struct held_spec spec = {.kind = ROW_SECRET,
                             .name = span_str("new"),
                             .templating = "",
                             .driver = "",
                             .value = span_str("x")};
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    char id[NODE_ID_SIZE + 1];
    struct secret *phrase = words("apart from the backups");
    kept = buf_new(ESCROW_MAX);
    (void)snprintf(id, sizeof id, "%s", create(m, "db", span_str(value)));
    all.done = false;
    must(vault_escrow(m, phrase, &tester, on_escrowed, &all, &why), &why);
    assert_int_equal(vault_escrow(m, phrase, &tester, on_escrowed, &all, &why), ERR_BUSY);
    await_done(OK);
    assert_false(loners_found(&kept, secret_span(m->self.vault[0].key)));
    vault_key_drop(&m->self, 1);
    assert_int_equal(identity_store(&m->self, m->keys, &why), OK);
    loners_until(&all, is_lost, m);
    assert_false(opens(m, id, value));
    assert_int_equal(secrets_create(m, &spec, &tester, on_held, &all, &why), ERR_PRECONDITION);
    import(m, buf_span(&kept), "another passphrase", ERR_WRONG_KEY);
    import(m, buf_span(&kept), "apart from the backups", OK);
    assert_true(opens(m, id, value));
    loner_stop(&all.at[0]);
    loner_again(&all.at[0]);
    assert_true(opens(all.at[0].manager, id, value));
    secret_free(phrase);
    buf_free(&kept);
    loners_end(&all);
}

static bool has_next(void *ctx) { return vault_of(ctx).current == 2; }

static void a_key_that_is_lost_with_nothing_sealed_is_replaced(void **state) {
    (void)state;
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    vault_key_drop(&m->self, 1);
    loners_until(&all, has_next, m);
    (void)create(m, "db", span_str(value));
    assert_true(opens(m, made_id, value));
    loners_end(&all);
}

static bool is_told(void *ctx) { return ((const struct loners *)ctx)->done; }

/* No escrow was kept: what was sealed is lost, and the cluster goes on without it. */
static void a_lost_key_can_be_left_behind(void **state) {
    (void)state;
    struct why why = {0};
    struct vault_status status;
    struct loners removing = {0};
    char id[NODE_ID_SIZE + 1];
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    (void)snprintf(id, sizeof id, "%s", create(m, "db", span_str(value)));
    vault_key_drop(&m->self, 1);
    loners_until(&all, is_lost, m);
    all.done = false;
    must(vault_rotate(m, &tester, loners_done, &removing, &why), &why);
    loners_until(&all, has_next, m);
    const char *other = create(m, "other", span_str("new"));
    assert_true(opens(m, other, "new"));
    assert_false(opens(m, id, value));
    assert_false(removing.done); /* the old value keeps it from its end */
    vault_status(m, &status);
    assert_int_equal(status.oldest, 1);
    all.done = false;
    must(secrets_remove(m, ROW_SECRET, id, &tester, on_held, &all, &why), &why);
    await_done(OK);
    loners_until(&all, is_told, &removing);
    assert_int_equal(removing.error, OK);
    assert_int_equal(vault_of(m).oldest, 2);
    loners_end(&all);
}

static bool all_hold(void *ctx) {
    struct loners *who = ctx;
    for (unsigned i = 0; i < who->n; i++)
        if (vault_ready(who->at[i].manager, NULL) != OK) return false;
    return true;
}

static void a_leader_that_misses_the_key_lets_a_holder_lead(void **state) {
    (void)state;
    start_three();
    const char *id = create(loners_leader(&all)->manager, "db", span_str(value));
    struct loner *before = loners_leader(&all);
    vault_key_drop(&before->manager->self, 1);
    assert_int_equal(vault_ready(before->manager, NULL), ERR_BUSY); /* not lost: others hold it */
    loners_until(&all, all_hold, &all);
    assert_true(loners_leader(&all) != before);
    assert_int_equal(vault_of(before->manager).current, 1); /* it is the same key */
    assert_true(opens(before->manager, id, value));
    loners_end(&all);
}

static void an_escrow_may_be_given_to_any_manager(void **state) {
    (void)state;
    struct why why = {0};
    struct secret *phrase = words("apart");
    start_three();
    char id[NODE_ID_SIZE + 1];
    kept = buf_new(ESCROW_MAX);
    (void)snprintf(id, sizeof id, "%s",
                   create(loners_leader(&all)->manager, "db", span_str(value)));
    all.done = false;
    must(vault_escrow(all.at[1].manager, phrase, &tester, on_escrowed, &all, &why), &why);
    await_done(OK);
    for (unsigned i = 0; i < all.n; i++)
        vault_key_drop(&all.at[i].manager->self, 1);
    loners_until(&all, is_lost, loners_leader(&all)->manager);
    struct loner *follower = loners_leader(&all) == &all.at[0] ? &all.at[1] : &all.at[0];
    loners_until(&all, is_lost, follower->manager); /* the leader has said so */
    import(follower->manager, buf_span(&kept), "apart", OK);
    loners_until(&all, all_hold, &all);
    for (unsigned i = 0; i < all.n; i++)
        assert_true(opens(all.at[i].manager, id, value));
    secret_free(phrase);
    buf_free(&kept);
    loners_end(&all);
}

static bool all_at_two(void *ctx) {
    const struct loners *who = ctx;
    for (unsigned i = 0; i < who->n; i++) {
        struct vault_row v = vault_of(who->at[i].manager);
        if (v.current != 2 || !vault_key_of(&who->at[i].manager->self, 2)) return false;
    }
    return true;
}

static bool is_stuck(void *ctx) {
    struct vault_status s;
    vault_status(ctx, &s);
    return s.oldest == 1 && strstr(s.text, "import its escrow") != NULL;
}

static bool is_done_with_one(void *ctx) {
    const struct loners *who = ctx;
    for (unsigned i = 0; i < who->n; i++) {
        const struct manager *m = who->at[i].manager;
        if (vault_of(m).oldest != 2 || vault_key_of(&m->self, 1)) return false;
    }
    return true;
}

/* The key of epoch 1 is in an escrow only, and the cluster has gone on to epoch 2 without it; `id`
 * is of a secret that it seals. */
static void leave_behind(struct secret *phrase, struct loners *rotating, char *id) {
    struct why why = {0};
    struct manager *m = loners_leader(&all)->manager;
    (void)snprintf(id, NODE_ID_SIZE + 1, "%s", create(m, "db", span_str(value)));
    (void)create(m, "other", span_str(value));
    all.done = false;
    must(vault_escrow(m, phrase, &tester, on_escrowed, &all, &why), &why);
    await_done(OK);
    for (unsigned i = 0; i < all.n; i++)
        vault_key_drop(&all.at[i].manager->self, 1);
    loners_until(&all, is_lost, loners_leader(&all)->manager);
    must(vault_rotate(loners_leader(&all)->manager, &tester, loners_done, rotating, &why), &why);
    loners_until(&all, all_at_two, &all);
    loners_until(&all, is_stuck, loners_leader(&all)->manager);
}

static void a_key_that_was_left_behind_may_be_given_to_any_manager(void **state) {
    (void)state;
    struct secret *phrase = words("apart");
    struct loners rotating = {0};
    char id[NODE_ID_SIZE + 1];
    kept = buf_new(ESCROW_MAX);
    start_three();
    leave_behind(phrase, &rotating, id);
    const struct loner *leader = loners_leader(&all);
    import(leader == &all.at[0] ? all.at[1].manager : all.at[0].manager, buf_span(&kept), "apart",
           OK);
    loners_until(&all, is_done_with_one, &all);
    for (unsigned i = 0; i < all.n; i++)
        assert_true(opens(all.at[i].manager, id, value));
    loners_until(&all, is_told, &rotating);
    rotate(loners_leader(&all)->manager); /* nothing is in its way any more */
    secret_free(phrase);
    buf_free(&kept);
    loners_end(&all);
}

static void seal_random_key(uint32_t epoch, const struct secret *phrase, struct secret **key,
                            struct buf *out) {
    struct node_identity id;
    struct buf keys = buf_new(VAULT_KEYS_SIZE);
    struct why why = {0};
    identity_init(&id);
    assert_int_equal(secret_random(KEY_SIZE, key), OK);
    assert_int_equal(vault_key_put(&id, epoch, secret_span(*key)), OK);
    assert_int_equal(vault_keys_encode(&id, &keys), OK);
    assert_int_equal(escrow_seal(buf_span(&keys), phrase, KEK_COST, out, &why), OK);
    identity_clear(&id);
    buf_wipe(&keys);
}

static void the_key_of_another_cluster_is_not_taken_for_one_left_behind(void **state) {
    (void)state;
    struct secret *phrase = words("apart"), *wrong;
    struct buf other = buf_new(ESCROW_MAX);
    struct loners rotating = {0};
    char id[NODE_ID_SIZE + 1];
    kept = buf_new(ESCROW_MAX);
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    leave_behind(phrase, &rotating, id);
    seal_random_key(1, phrase, &wrong, &other);
    import(m, buf_span(&other), "apart", ERR_PRECONDITION);
    assert_null(vault_key_of(&m->self, 1));
    assert_int_equal(vault_key_put(&m->self, 1, secret_span(wrong)), OK); /* however it came */
    import(m, buf_span(&kept), "apart", OK);
    loners_until(&all, is_done_with_one, &all);
    assert_true(opens(m, id, value));
    loners_until(&all, is_told, &rotating);
    secret_free(wrong);
    secret_free(phrase);
    buf_free(&other);
    buf_free(&kept);
    loners_end(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_key_comes_back_from_its_escrow),
        cmocka_unit_test(a_key_that_is_lost_with_nothing_sealed_is_replaced),
        cmocka_unit_test(a_lost_key_can_be_left_behind),
        cmocka_unit_test(a_leader_that_misses_the_key_lets_a_holder_lead),
        cmocka_unit_test(an_escrow_may_be_given_to_any_manager),
        cmocka_unit_test(a_key_that_was_left_behind_may_be_given_to_any_manager),
        cmocka_unit_test(the_key_of_another_cluster_is_not_taken_for_one_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
