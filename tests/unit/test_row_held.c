/* What must hold between secrets, values, services, tasks and nodes, each rule by itself: what
 * breaks it is refused and has changed nothing, what is next to it is allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "store/state.h"
#include "tests/lib/held_lists.h"

/* Applies the list; a refused one has changed nothing. */
static enum err done(struct store *s, struct row_list *l) {
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    uint64_t items = tree_count(s->state.rows.tree);
    hash_of(s, before);
    enum err e = list_apply(s, l).error;
    hash_of(s, after);
    assert_int_equal(memcmp(before, after, STATE_HASH_SIZE) == 0, e != OK);
    if (e != OK) assert_int_equal(tree_count(s->state.rows.tree), items);
    return e;
}

static struct store *with_secret(unsigned versions) {
    struct store *s = store_with_vault();
    struct row_list l = row_list();
    list_secret(&l, "s", versions);
    assert_int_equal(done(s, &l), OK);
    return s;
}

/* --- secrets and their values --- */

static void a_secret_comes_with_the_values_of_its_versions(void **state) {
    (void)state;
    struct store *s = store_with_vault();
    struct row_list l = row_list();
    struct held_row h = some_held("s", 2);
    struct value_row v[2] = {some_value(ROW_SECRET, "s", 1, 1), some_value(ROW_SECRET, "s", 2, 1)};
    list_held(&l, ROW_CREATE, ROW_SECRET, "s", "s", &h);
    list_value(&l, ROW_CREATE, "s-1", &v[0]);
    assert_int_equal(done(s, &l), ERR_PRECONDITION); /* one is missing */
    list_value(&l, ROW_CREATE, "s-1", &v[0]);
    assert_int_equal(done(s, &l), ERR_PRECONDITION); /* nobody's */
    h = some_held("s", 1);
    list_held(&l, ROW_CREATE, ROW_SECRET, "s", "s", &h);
    list_value(&l, ROW_CREATE, "s-1", &v[0]);
    list_value(&l, ROW_CREATE, "s-2", &v[1]);
    assert_int_equal(done(s, &l), ERR_PRECONDITION); /* one too many */
    list_value(&l, ROW_CREATE, "s-1", &v[0]);        /* in any order */
    list_held(&l, ROW_CREATE, ROW_SECRET, "s", "s", &h);
    assert_int_equal(done(s, &l), OK);
    store_free(s);
}

static void a_value_is_what_its_version_says(void **state) {
    (void)state;
    struct store *s = store_with_vault();
    struct row_list l = row_list();
    struct held_row h = some_held("s", 1);
    struct value_row bad[4];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_value(ROW_SECRET, "s", 1, 1);
    bad[0].of = ROW_CONFIG;
    bad[1].held_id[0] = 't';
    bad[2].version = 2;
    bad[3].sealed.size--;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        list_held(&l, ROW_CREATE, ROW_SECRET, "s", "s", &h);
        list_value(&l, ROW_CREATE, "s-1", &bad[i]);
        assert_int_equal(done(s, &l), ERR_PRECONDITION);
    }
    struct value_row good = some_value(ROW_SECRET, "s", 1, 1);
    list_held(&l, ROW_CREATE, ROW_SECRET, "s", "s", &h);
    list_value(&l, ROW_CREATE, "s-other", &good);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    store_free(s);
}

static void a_secret_goes_with_all_its_values(void **state) {
    (void)state;
    struct store *s = with_secret(2);
    struct row_list l = row_list();
    list_plain(&l, ROW_REMOVE, ROW_SECRET, "s", 0);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    list_plain(&l, ROW_REMOVE, ROW_SECRET, "s", 0);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-2", 0);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-1", 0);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-1", 0);
    list_plain(&l, ROW_REMOVE, ROW_SECRET, "s", 0);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-2", 0);
    assert_int_equal(done(s, &l), OK);
    assert_int_equal(row_count(s, ROW_SECRET) + row_count(s, ROW_VALUE), 0);
    assert_false(vault_values_below(s, UINT32_MAX));
    store_free(s);
}

static void a_version_is_added_above_those_there_were(void **state) {
    (void)state;
    struct store *s = with_secret(2);
    struct row_list l = row_list();
    struct held_row h = some_held("s", 3);
    struct value_row v = some_value(ROW_SECRET, "s", 3, 1);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    list_value(&l, ROW_CREATE, "s-3", &v);
    assert_int_equal(done(s, &l), OK);
    h.n = 2; /* the newest goes: its number is not given again */
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-3", 0);
    assert_int_equal(done(s, &l), OK);
    h = some_held("s", 3);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    list_value(&l, ROW_CREATE, "s-3", &v);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    h = some_held("s", 2);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h); /* next_version would be 3 again */
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    h.next_version = 4;
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    assert_int_equal(done(s, &l), OK);
    store_free(s);
}

static void what_there_was_of_a_secret_stays_what_it_was(void **state) {
    (void)state;
    struct store *s = with_secret(2);
    struct row_list l = row_list();
    struct held_row bad[3];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_held("s", 2);
    bad[0].versions[0].size++;
    bad[1].versions[0].created_ns = 7;
    memcpy(bad[2].versions[0].value_id, "s-9", sizeof "s-9");
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &bad[i]);
        assert_int_equal(done(s, &l), ERR_PRECONDITION);
    }
    struct held_row h = some_held("s", 2);
    struct buf labels = buf_new(NODE_LABELS_BYTES);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "S", &h); /* its name, too */
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    assert_int_equal(labels_add(&labels, span_str("k"), span_str("v")), OK);
    h.labels = buf_span(&labels);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    assert_int_equal(done(s, &l), OK);
    list_secret(&l, "S", 1);
    assert_int_equal(done(s, &l), ERR_EXISTS); /* letters compare without case */
    buf_free(&labels);
    store_free(s);
}

static void a_value_is_only_wrapped_anew_under_a_higher_epoch(void **state) {
    (void)state;
    static const uint8_t other[SOME_SIZE + SEALED_OVERHEAD] = {9};
    struct store *s = with_secret(1);
    struct row_list l = row_list();
    struct vault_row vault = some_vault(1);
    vault.next = 2;
    list_vault(&l, ROW_REPLACE, "cluster", &vault);
    assert_int_equal(done(s, &l), OK);
    struct value_row v = some_value(ROW_SECRET, "s", 1, 2);
    list_value(&l, ROW_REPLACE, "s-1", &v);
    assert_int_equal(done(s, &l), ERR_PRECONDITION); /* 2 is not current yet */
    vault = some_vault(2);
    vault.oldest = 1;
    memset(vault.key_ids[0], 0, sizeof vault.key_ids[0]);
    list_vault(&l, ROW_REPLACE, "cluster", &vault);
    assert_int_equal(done(s, &l), OK);
    struct value_row bad[5];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = v;
    bad[0].epoch = 1;
    bad[1].sealed = span_of(other, sizeof other);
    bad[2].version = 2;
    bad[3].held_id[0] = 't';
    bad[4].epoch = 3;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        list_value(&l, ROW_REPLACE, "s-1", &bad[i]);
        assert_int_equal(done(s, &l), ERR_PRECONDITION);
    }
    list_value(&l, ROW_REPLACE, "s-1", &v);
    assert_int_equal(done(s, &l), OK);
    vault.oldest = 2;
    list_vault(&l, ROW_REPLACE, "cluster", &vault);
    assert_int_equal(done(s, &l), OK);
    list_secret(&l, "t", 1);
    assert_int_equal(done(s, &l), ERR_PRECONDITION); /* under epoch 1, which is over */
    store_free(s);
}

static void a_value_needs_a_cluster_key(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct row_list l = row_list();
    struct held_row driven = {.next_version = 1, .driver = "vault"};
    assert_int_equal(make_cluster(s).error, OK);
    list_secret(&l, "s", 1);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    list_held(&l, ROW_CREATE, ROW_SECRET, "d", "d", &driven); /* its value comes from elsewhere */
    assert_int_equal(done(s, &l), OK);
    store_free(s);
}

/* --- services --- */

static void put_service(struct row_list *l, enum row_action action, const char *id,
                        uint32_t version) {
    struct service_row service = some_service("s", "s", version);
    list_service(l, action, id, id, &service);
}

static void a_secret_in_use_stays(void **state) {
    (void)state;
    struct store *s = with_secret(1);
    struct row_list l = row_list();
    struct service_row none = some_service(NULL, NULL, 0);
    put_service(&l, ROW_CREATE, "a", 0);
    put_service(&l, ROW_CREATE, "b", 1);
    assert_int_equal(done(s, &l), OK);
    for (unsigned i = 0; i < 3; i++) {
        list_plain(&l, ROW_REMOVE, ROW_SECRET, "s", 0);
        list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-1", 0);
        assert_int_equal(done(s, &l), i < 2 ? ERR_PRECONDITION : OK);
        if (i == 0) list_plain(&l, ROW_REMOVE, ROW_SERVICE, "a", 0);
        if (i == 1) list_service(&l, ROW_REPLACE, "b", "b", &none);
        if (i < 2) assert_int_equal(done(s, &l), OK);
    }
    put_service(&l, ROW_CREATE, "c", 0); /* and what is gone is named by nobody */
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    store_free(s);
}

static void a_config_of_the_same_id_is_another_thing(void **state) {
    (void)state;
    struct store *s = with_secret(1);
    struct row_list l = row_list();
    struct held_row h = some_held("s", 1);
    struct value_row v = some_value(ROW_CONFIG, "s", 1, 1);
    memcpy(h.versions[0].value_id, "c-1", sizeof "c-1");
    list_held(&l, ROW_CREATE, ROW_CONFIG, "s", "s", &h);
    list_value(&l, ROW_CREATE, "c-1", &v);
    put_service(&l, ROW_CREATE, "a", 0);
    assert_int_equal(done(s, &l), OK);
    list_plain(&l, ROW_REMOVE, ROW_CONFIG, "s", 0);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "c-1", 0);
    assert_int_equal(done(s, &l), OK);
    list_plain(&l, ROW_REMOVE, ROW_SECRET, "s", 0);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-1", 0);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    store_free(s);
}

static void a_version_that_a_service_names_stays(void **state) {
    (void)state;
    struct store *s = with_secret(3);
    struct row_list l = row_list();
    struct held_row h = some_held("s", 3);
    put_service(&l, ROW_CREATE, "follows", 0);
    put_service(&l, ROW_CREATE, "named", 2);
    assert_int_equal(done(s, &l), OK);
    put_service(&l, ROW_CREATE, "future", 4);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    h.versions[1] = h.versions[2]; /* 2 is to go */
    h.n = 2;
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-2", 0);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    h = some_held("s", 2); /* 3, the newest, is followed, not named */
    h.next_version = 4;
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-3", 0);
    assert_int_equal(done(s, &l), OK);
    put_service(&l, ROW_REPLACE, "named", 1); /* in one list with what it makes possible */
    h.n = 1;
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-2", 0);
    assert_int_equal(done(s, &l), OK);
    store_free(s);
}

static void a_service_names_what_is_there_by_its_name(void **state) {
    (void)state;
    struct store *s = with_secret(1);
    struct row_list l = row_list();
    struct service_row bad[] = {some_service("x", "s", 0), some_service("s", "x", 0),
                                some_service("s", "S", 0), some_service("s", "s", 2)};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        list_service(&l, ROW_CREATE, "a", "a", &bad[i]);
        assert_int_equal(done(s, &l), ERR_PRECONDITION);
    }
    struct service_row config = some_service("s", "s", 0);
    config.refs[0].kind = ROW_CONFIG;
    list_service(&l, ROW_CREATE, "a", "a", &config);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    put_service(&l, ROW_CREATE, "a", 0); /* both at once */
    list_secret(&l, "t", 1);
    struct service_row other = some_service("t", "t", 1);
    list_service(&l, ROW_CREATE, "b", "b", &other);
    assert_int_equal(done(s, &l), OK);
    store_free(s);
}

/* --- tasks --- */

static void set_task(struct row_list *l, enum row_action action, const char *node,
                     enum task_state task_state) {
    struct task_row t = some_task("a", node, task_state);
    list_task(l, action, "t", &t);
}

static struct store *with_service(void) {
    struct store *s = with_secret(1);
    struct row_list l = row_list();
    struct node_row n = some_node(NODE_WORKER, 0);
    put_service(&l, ROW_CREATE, "a", 0);
    put_service(&l, ROW_CREATE, "b", 0);
    list_node(&l, ROW_CREATE, "n", 0, "", &n);
    list_node(&l, ROW_CREATE, "n2", 0, "", &n);
    assert_int_equal(done(s, &l), OK);
    return s;
}

static void a_task_is_of_a_service_on_a_node(void **state) {
    (void)state;
    struct store *s = with_service();
    struct row_list l = row_list();
    struct task_row t = some_task("nobody", "", TASK_NEW);
    list_task(&l, ROW_CREATE, "t", &t);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    set_task(&l, ROW_CREATE, "nowhere", TASK_ASSIGNED);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    set_task(&l, ROW_CREATE, "", TASK_NEW);
    assert_int_equal(done(s, &l), OK);
    set_task(&l, ROW_REPLACE, "nowhere", TASK_ASSIGNED);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    set_task(&l, ROW_REPLACE, "n", TASK_ASSIGNED);
    assert_int_equal(done(s, &l), OK);
    list_plain(&l, ROW_REMOVE, ROW_SERVICE, "a", 0); /* its tasks end later */
    list_plain(&l, ROW_REMOVE, ROW_NODE, "n", 0);
    assert_int_equal(done(s, &l), OK);
    set_task(&l, ROW_REPLACE, "n", TASK_SHUTDOWN);
    assert_int_equal(done(s, &l), OK);
    list_plain(&l, ROW_REMOVE, ROW_TASK, "t", 0);
    assert_int_equal(done(s, &l), OK);
    set_task(&l, ROW_CREATE, "", TASK_NEW);
    assert_int_equal(done(s, &l), ERR_PRECONDITION);
    store_free(s);
}

static void a_task_goes_on_and_never_back(void **state) {
    (void)state;
    struct store *s = with_service();
    struct row_list l = row_list();
    struct task_row t = some_task("a", "n", TASK_RUNNING), bad[6];
    t.desired = TASK_SHUTDOWN;
    list_task(&l, ROW_CREATE, "t", &t);
    assert_int_equal(done(s, &l), OK);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = t;
    bad[0].state = TASK_STARTING;
    bad[1].desired = TASK_RUNNING;
    memcpy(bad[2].node_id, "n2", sizeof "n2");
    bad[3].slot = 2;
    memcpy(bad[4].service_id, "b", sizeof "b");
    bad[5].state = TASK_SHUTDOWN;
    bad[5].node_id[0] = '\0';
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        list_task(&l, ROW_REPLACE, "t", &bad[i]);
        assert_int_equal(done(s, &l), ERR_PRECONDITION);
    }
    t.state = TASK_FAILED;
    t.desired = TASK_REMOVE;
    list_task(&l, ROW_REPLACE, "t", &t);
    assert_int_equal(done(s, &l), OK);
    store_free(s);
}

static void there_are_as_many_of_each_as_their_bound(void **state) {
    (void)state;
    static const struct {
        enum row_kind kind;
        uint64_t max;
    } bounds[] = {{ROW_NODE, ROW_NODES_MAX},       {ROW_TOKEN, ROW_TOKENS_MAX},
                  {ROW_SECRET, ROW_HELD_MAX},      {ROW_CONFIG, ROW_HELD_MAX},
                  {ROW_SERVICE, ROW_SERVICES_MAX}, {ROW_TASK, ROW_TASKS_MAX},
                  {ROW_AUDIT, AUDIT_MAX}};
    static const struct rows none;
    for (unsigned i = 0; i < ARRAY_SIZE(bounds); i++) {
        struct rows r = none;
        r.n[bounds[i].kind] = bounds[i].max;
        assert_int_equal(row_rules_all(&none, &r), OK);
        r.n[bounds[i].kind]++;
        assert_int_equal(row_rules_all(&none, &r), ERR_TOO_LARGE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_secret_comes_with_the_values_of_its_versions),
        cmocka_unit_test(a_value_is_what_its_version_says),
        cmocka_unit_test(a_secret_goes_with_all_its_values),
        cmocka_unit_test(a_version_is_added_above_those_there_were),
        cmocka_unit_test(what_there_was_of_a_secret_stays_what_it_was),
        cmocka_unit_test(a_value_is_only_wrapped_anew_under_a_higher_epoch),
        cmocka_unit_test(a_value_needs_a_cluster_key),
        cmocka_unit_test(a_secret_in_use_stays),
        cmocka_unit_test(a_config_of_the_same_id_is_another_thing),
        cmocka_unit_test(a_version_that_a_service_names_stays),
        cmocka_unit_test(a_service_names_what_is_there_by_its_name),
        cmocka_unit_test(a_task_is_of_a_service_on_a_node),
        cmocka_unit_test(a_task_goes_on_and_never_back),
        cmocka_unit_test(there_are_as_many_of_each_as_their_bound),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
