/* What belongs to what is found by walks, however many there are; rows and marks survive failing
 * allocations, images, and another cluster that takes the place of theirs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include "crypto/secret.h"
#include "store/state.h"
#include "tests/lib/fault.h"
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

static void put_service(struct row_list *l, enum row_action action, const char *id,
                        uint32_t version) {
    struct service_row service = some_service("s", "s", version);
    list_service(l, action, id, id, &service);
}

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

/* --- walks --- */

struct walk {
    char ids[128];    /* each and a space */
    const char *stop; /* after this one; NULL: never */
};

static bool note(void *ctx, const struct row *r) {
    struct walk *w = ctx;
    size_t size = strlen(w->ids);
    (void)snprintf(w->ids + size, sizeof w->ids - size, "%s ", r->id);
    return w->stop == NULL || strcmp(w->stop, r->id) != 0;
}

#define ASSERT_WALK(each, s, of, expected)                                                         \
    do {                                                                                           \
        struct walk walk_ = {.ids = ""};                                                           \
        each(s, of, note, &walk_);                                                                 \
        assert_string_equal(walk_.ids, expected);                                                  \
    } while (0)

static void tasks_are_found_by_their_service_and_their_node(void **state) {
    (void)state;
    struct store *s = with_service();
    struct row_list l = row_list();
    struct service_row other = some_service(NULL, NULL, 0);
    struct task_row t = some_task("a", "", TASK_NEW);
    list_service(&l, ROW_CREATE, "aa", "aa", &other); /* begins like "a" */
    assert_int_equal(done(s, &l), OK);
    ASSERT_WALK(task_each_of_service, s, "a", "");
    list_task(&l, ROW_CREATE, "t3", &t);
    list_task(&l, ROW_CREATE, "t1", &t);
    t = some_task("a", "n", TASK_RUNNING);
    list_task(&l, ROW_CREATE, "t2", &t);
    t = some_task("aa", "n2", TASK_RUNNING);
    list_task(&l, ROW_CREATE, "t0", &t);
    assert_int_equal(done(s, &l), OK);
    ASSERT_WALK(task_each_of_service, s, "a", "t1 t2 t3 ");
    ASSERT_WALK(task_each_of_service, s, "aa", "t0 ");
    ASSERT_WALK(task_each_of_service, s, "", "");
    ASSERT_WALK(task_each_of_node, s, "n", "t2 ");
    t = some_task("a", "n", TASK_ASSIGNED);
    list_task(&l, ROW_REPLACE, "t1", &t); /* it is placed */
    assert_int_equal(done(s, &l), OK);
    ASSERT_WALK(task_each_of_node, s, "n", "t1 t2 ");
    ASSERT_WALK(task_each_of_service, s, "a", "t1 t2 t3 ");
    list_plain(&l, ROW_REMOVE, ROW_TASK, "t2", 0);
    assert_int_equal(done(s, &l), OK);
    ASSERT_WALK(task_each_of_node, s, "n", "t1 ");
    struct walk w = {.stop = "t1"};
    task_each_of_service(s, "a", note, &w);
    assert_string_equal(w.ids, "t1 ");
    ASSERT_WALK(task_each_of_service, s, "an id that is longer than any id may be", "");
    store_free(s);
}

static void services_are_found_once_by_what_they_name(void **state) {
    (void)state;
    struct store *s = with_secret(2);
    struct row_list l = row_list();
    struct service_row twice = some_service("s", "s", 0), other = some_service(NULL, NULL, 0);
    twice.refs[twice.n++] = some_ref(ROW_SECRET, "s", "s", "another", 1);
    list_service(&l, ROW_CREATE, "b", "b", &twice);
    list_service(&l, ROW_CREATE, "a", "a", &other);
    put_service(&l, ROW_CREATE, "c", 1);
    assert_int_equal(done(s, &l), OK);
    ASSERT_WALK(service_each_of_held, s, "s", "b c ");
    twice.n = 1; /* one of two refs goes */
    list_service(&l, ROW_REPLACE, "b", "b", &twice);
    put_service(&l, ROW_REPLACE, "a", 0);
    list_service(&l, ROW_REPLACE, "c", "c", &other);
    assert_int_equal(done(s, &l), OK);
    ASSERT_WALK(service_each_of_held, s, "s", "a b ");
    ASSERT_WALK(service_each_of_held, s, "t", "");
    store_free(s);
}

static void a_service_may_name_as_many_as_its_bound(void **state) {
    (void)state;
    struct store *s = store_with_vault();
    struct row_list l = row_list();
    struct service_row service = some_service(NULL, NULL, 0);
    for (service.n = 0; service.n < SERVICE_REFS_MAX; service.n++) {
        char id[16];
        (void)snprintf(id, sizeof id, "s%u", service.n);
        list_secret(&l, id, 1);
        service.refs[service.n] = some_ref(ROW_SECRET, id, id, id, 1);
    }
    list_service(&l, ROW_CREATE, "a", "a", &service);
    assert_int_equal(done(s, &l), OK);
    ASSERT_WALK(service_each_of_held, s, "s0", "a ");
    ASSERT_WALK(service_each_of_held, s, "s127", "a ");
    uint64_t items = tree_count(s->state.rows.tree);
    service.n = 1;
    list_service(&l, ROW_REPLACE, "a", "a", &service);
    assert_int_equal(done(s, &l), OK);
    assert_int_equal(tree_count(s->state.rows.tree), items - (SERVICE_REFS_MAX - 1));
    ASSERT_WALK(service_each_of_held, s, "s127", "");
    store_free(s);
}

/* --- images, another cluster --- */

static struct store *full(void) {
    struct store *s = with_service();
    struct row_list l = row_list();
    struct task_row t = some_task("a", "n", TASK_RUNNING);
    struct spec spec = {.task_history = 3};
    struct join_token token = some_token(NODE_WORKER, 1, "secret");
    list_task(&l, ROW_CREATE, "t", &t);
    list_spec(&l, ROW_CREATE, "cluster", &spec);
    list_token(&l, ROW_CREATE, "token", 0, "", &token);
    list_audit(&l, AUDIT_CREATE, "all of it");
    assert_int_equal(done(s, &l), OK);
    return s;
}

static void a_restored_state_has_all_marks(void **state) {
    (void)state;
    struct store *s = full(), *other = store_for_test();
    struct row_list l = row_list();
    uint8_t hash[STATE_HASH_SIZE], again[STATE_HASH_SIZE];
    struct buf image = image_of(s);
    hash_of(s, hash);
    assert_int_equal(restore_from(other, buf_span(&image), 11, NULL, hash), OK);
    hash_of(other, again);
    assert_memory_equal(hash, again, STATE_HASH_SIZE);
    assert_int_equal(tree_count(other->state.rows.tree), tree_count(s->state.rows.tree));
    ASSERT_WALK(task_each_of_node, other, "n", "t ");
    ASSERT_WALK(service_each_of_held, other, "s", "a b ");
    assert_true(vault_values_below(other, 2));
    list_plain(&l, ROW_REMOVE, ROW_SECRET, "s", 0);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, "s-1", 0);
    assert_int_equal(done(other, &l), ERR_PRECONDITION);
    buf_free(&image);
    store_free(s);
    store_free(other);
}

static struct command another_cluster(void) {
    struct command c = {.op = OP_CLUSTER};
    (void)snprintf(c.cluster.id, sizeof c.cluster.id, "another");
    c.cluster.ca.root_pem = c.cluster.ca.key = span_str("pem");
    c.cluster.join_key = span_str("another key of all join tokens!!");
    c.cluster.first = make_node(9, "z", "zeta");
    c.cluster.replace = true;
    return c;
}

static void another_cluster_inherits_secrets_services_and_the_trail(void **state) {
    (void)state;
    struct store *s = full();
    struct command c = another_cluster();
    struct row before, after, r;
    struct vault_row vault;
    uint8_t chain[AUDIT_CHAIN];
    assert_true(row_get(s, ROW_SECRET, "s", &before));
    uint64_t version = before.version;
    assert_int_equal(apply(s, &c).error, OK);
    assert_int_equal(row_count(s, ROW_NODE) + row_count(s, ROW_TASK) + row_count(s, ROW_SPEC) +
                         row_count(s, ROW_TOKEN),
                     0);
    assert_true(row_get(s, ROW_SECRET, "s", &after) && after.version == version);
    assert_true(row_named(s, ROW_SERVICE, span_str("b"), &r) && row_get(s, ROW_VALUE, "s-1", &r));
    assert_int_equal(audit_last(s, chain), 1);
    assert_true(vault_row_get(s, &r, &vault) && vault.current == 1 && vault.n == 0);
    assert_string_equal(r.id, "another");
    assert_int_equal(row_count(s, ROW_VAULT), 1);
    ASSERT_WALK(task_each_of_node, s, "n", "");
    ASSERT_WALK(task_each_of_service, s, "a", "");
    ASSERT_WALK(service_each_of_held, s, "s", "a b ");
    struct row_list l = row_list();
    struct node_row n = some_node(NODE_WORKER, 0);
    list_node(&l, ROW_CREATE, "n", 0, "", &n); /* all goes on */
    set_task(&l, ROW_CREATE, "n", TASK_ASSIGNED);
    list_audit(&l, AUDIT_CREATE, "of the other one");
    list_secret(&l, "new", 1);
    assert_int_equal(done(s, &l), OK);
    assert_int_equal(audit_last(s, chain), 2);
    struct buf image = image_of(s); /* and an image of it is a good one */
    struct store *other = store_for_test();
    uint8_t hash[STATE_HASH_SIZE];
    hash_of(s, hash);
    assert_int_equal(restore_from(other, buf_span(&image), 99, NULL, hash), OK);
    buf_free(&image);
    store_free(other);
    store_free(s);
}

static void a_key_that_was_on_its_way_is_not_inherited(void **state) {
    (void)state;
    struct command c = another_cluster();
    struct vault_row vault, out;
    struct row r;
    for (uint32_t current = 0; current < 2; current++) {
        struct store *s = store_for_test();
        struct row_list l = row_list();
        assert_int_equal(make_cluster(s).error, OK);
        list_vault(&l, ROW_CREATE, "cluster", &(struct vault_row){.next = 1, .n = 0});
        assert_int_equal(done(s, &l), OK);
        if (current == 1) {
            vault = some_vault(1);
            memset(vault.key_ids[0], 0, sizeof vault.key_ids[0]);
            list_vault(&l, ROW_REPLACE, "cluster", &vault);
            assert_int_equal(done(s, &l), OK);
            vault.next = 2;
            memset(vault.key_ids[1], 2, sizeof vault.key_ids[1]);
            list_vault(&l, ROW_REPLACE, "cluster", &vault);
            assert_int_equal(done(s, &l), OK);
        }
        assert_int_equal(apply(s, &c).error, OK);
        assert_int_equal(vault_row_get(s, &r, &out), current == 1);
        assert_true(out.current == current && out.next == 0 && out.n == 0);
        store_free(s);
    }
}

/* --- out of memory --- */

struct sweep {
    bool viewed;               /* by an image under way */
    struct command command;    /* what is applied */
    struct store *store;       /* fresh for every fault */
    struct machine_view *view; /* NULL: none */
    uint64_t items;            /* before */
    uint8_t before[STATE_HASH_SIZE];
    enum err e;
};

static void apply_once(void *ctx) {
    struct sweep *w = ctx;
    struct buf bytes = buf_new(COMMAND_MAX);
    fault_alloc_pause();
    w->store = full();
    w->view = NULL;
    w->items = tree_count(w->store->state.rows.tree);
    struct machine *m = store_machine(w->store);
    if (w->viewed) assert_int_equal(m->view(m, &w->view), OK);
    assert_int_equal(command_encode(&w->command, &bytes), OK);
    hash_of(w->store, w->before);
    fault_alloc_resume();
    w->e = m->apply(m, 1, buf_span(&bytes), NULL, NULL);
    fault_alloc_pause();
    buf_free(&bytes);
    fault_alloc_resume();
}

static void whole_or_nothing(void *ctx, bool fired) {
    struct sweep *w = ctx;
    uint8_t after[STATE_HASH_SIZE];
    struct machine *m = store_machine(w->store);
    hash_of(w->store, after);
    assert_int_equal(w->e, fired ? ERR_NOMEM : OK);
    assert_int_equal(memcmp(w->before, after, STATE_HASH_SIZE) == 0, fired);
    if (fired) { /* and it can be done now */
        assert_int_equal(tree_count(w->store->state.rows.tree), w->items);
        assert_int_equal(apply(w->store, &w->command).error, OK);
    }
    if (w->view != NULL) m->view_free(w->view);
    store_free(w->store);
}

static void every_failing_allocation_leaves_all_as_it_was(void **state) {
    (void)state;
    struct row_list l = row_list();
    struct held_row h = some_held("s", 2);
    struct value_row v = some_value(ROW_SECRET, "s", 2, 1);
    struct task_row t = some_task("a", "n2", TASK_ASSIGNED);
    struct service_row twice = some_service("s", "s", 0);
    twice.refs[twice.n++] = some_ref(ROW_SECRET, "new", "new", "new", 1);
    list_held(&l, ROW_REPLACE, ROW_SECRET, "s", "s", &h);
    list_value(&l, ROW_CREATE, "s-2", &v);
    list_secret(&l, "new", 2);
    list_service(&l, ROW_REPLACE, "a", "a", &twice);
    list_plain(&l, ROW_REMOVE, ROW_SERVICE, "b", 0);
    list_task(&l, ROW_CREATE, "t2", &t);
    list_plain(&l, ROW_REMOVE, ROW_TASK, "t", 0);
    list_audit(&l, AUDIT_UPDATE, "all at once");
    struct sweep w = {.command = list_command(&l, 5)};
    for (unsigned i = 0; i < 2; i++) {
        w.viewed = i == 1;
        assert_true(fault_sweep_alloc(apply_once, whole_or_nothing, &w) > 8);
    }
    buf_free(&l.changes);
}

static void another_cluster_inherits_all_or_nothing(void **state) {
    (void)state;
    struct sweep w = {.viewed = true, .command = another_cluster()};
    assert_true(fault_sweep_alloc(apply_once, whole_or_nothing, &w) > 8);
}

/* --- many --- */

#define SECRETS  10000
#define SERVICES 1000
#define TASKS    10000

static void named(char id[16], const char *kind, unsigned i) {
    (void)snprintf(id, 16, "%s%05u", kind, i);
}

static void flush(struct store *s, struct row_list *l, bool all) {
    if (l->n > 0 && (all || l->n > 900)) assert_int_equal(list_apply(s, l).error, OK);
}

/* 1 in `part` of all of them. */
static struct store *crowd(unsigned part) {
    struct store *s = store_with_vault();
    struct row_list l = row_list();
    struct node_row n = some_node(NODE_WORKER, 0);
    char id[16], owner[16];
    list_node(&l, ROW_CREATE, "n", 0, "", &n);
    for (unsigned i = 0; i < SECRETS / part; i++, flush(s, &l, false)) {
        named(id, "s", i);
        list_secret(&l, id, 1);
    }
    flush(s, &l, true);
    for (unsigned i = 0; i < SERVICES / part; i++, flush(s, &l, false)) {
        named(id, "v", i);
        named(owner, "s", i);
        struct service_row service = some_service(owner, owner, 0);
        list_service(&l, ROW_CREATE, id, id, &service);
    }
    flush(s, &l, true);
    for (unsigned i = 0; i < TASKS / part; i++, flush(s, &l, false)) {
        named(id, "t", i);
        named(owner, "v", i % (SERVICES / part));
        struct task_row t = some_task(owner, "n", TASK_RUNNING);
        list_task(&l, ROW_CREATE, id, &t);
    }
    flush(s, &l, true);
    return s;
}

/* One of each kind of change, of the i-th. */
static void change_one(struct store *s, unsigned i) {
    struct row_list l = row_list();
    char id[16], value[16], owner[16];
    named(id, "new", i);
    list_secret(&l, id, 1);
    assert_int_equal(list_apply(s, &l).error, OK);
    named(owner, "v", i % 10);
    struct service_row service = some_service(id, id, 0);
    list_service(&l, ROW_REPLACE, owner, owner, &service);
    named(value, "t", i);
    struct task_row t = some_task(owner, "n", TASK_RUNNING);
    t.state_ns = i;
    list_task(&l, ROW_REPLACE, value, &t);
    list_audit(&l, AUDIT_UPDATE, "one");
    assert_int_equal(list_apply(s, &l).error, OK);
    service = some_service(NULL, NULL, 0);
    list_service(&l, ROW_REPLACE, owner, owner, &service);
    list_plain(&l, ROW_REMOVE, ROW_SECRET, id, 0);
    (void)snprintf(value, sizeof value, "new%05u-1", i % 100000);
    list_plain(&l, ROW_REMOVE, ROW_VALUE, value, 0);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_true(vault_values_below(s, 2));
}

/* Processor time of some changes, the least of a few tries. */
static double time_of(struct store *s) {
    double least = 0;
    for (unsigned try = 0; try < 5; try++) {
        clock_t from = clock();
        for (unsigned i = 0; i < 200; i++)
            change_one(s, i % 10);
        double took = (double)(clock() - from);
        if (try == 0 || took < least) least = took;
    }
    return least;
}

static void a_change_of_one_takes_no_longer_among_many(void **state) {
    (void)state;
    struct store *few = crowd(100), *many = crowd(1);
    assert_int_equal(row_count(many, ROW_SECRET), SECRETS);
    assert_int_equal(row_count(many, ROW_TASK), TASKS);
    double ratio = time_of(many) / (time_of(few) + 1);
    assert_true(ratio < 12); /* a walk over all would be 100 times as long */
    store_free(few);
    store_free(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_are_found_by_their_service_and_their_node),
        cmocka_unit_test(services_are_found_once_by_what_they_name),
        cmocka_unit_test(a_service_may_name_as_many_as_its_bound),
        cmocka_unit_test(a_restored_state_has_all_marks),
        cmocka_unit_test(another_cluster_inherits_secrets_services_and_the_trail),
        cmocka_unit_test(a_key_that_was_on_its_way_is_not_inherited),
        cmocka_unit_test(every_failing_allocation_leaves_all_as_it_was),
        cmocka_unit_test(another_cluster_inherits_all_or_nothing),
        cmocka_unit_test(a_change_of_one_takes_no_longer_among_many),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
