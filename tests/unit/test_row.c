/* Rows: versions and times, names, look-ups, lists that happen whole or not at all (each failing
 * allocation too), and who is told of what. */
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
#include "tests/lib/row_lists.h"

static struct store *founded(void) {
    struct store *s = store_for_test();
    assert_int_equal(make_cluster(s).error, OK);
    return s;
}

static enum err create_named(struct store *s, const char *id, const char *name) {
    struct row_list l = row_list();
    struct node_row n = some_node(NODE_WORKER, 0);
    list_node(&l, ROW_CREATE, id, 0, name, &n);
    return list_apply(s, &l).error;
}

static void rows_are_the_founded_clusters(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct node_row n = some_node(NODE_WORKER, 1);
    assert_int_equal(create_node(s, "a", &n), ERR_PRECONDITION);
    assert_int_equal(make_cluster(s).error, OK);
    assert_int_equal(create_node(s, "a", &n), OK);
    store_free(s);
}

static void a_row_has_versions_and_times(void **state) {
    (void)state;
    struct store *s = founded();
    struct node_row n = some_node(NODE_WORKER, 1);
    struct row r;
    struct row_list l = row_list();
    assert_int_equal(row_version(s), 0);
    list_node(&l, ROW_CREATE, "a", 0, "alpha", &n);
    struct command c = list_command(&l, 111);
    assert_int_equal(apply(s, &c).error, OK);
    assert_true(row_get(s, ROW_NODE, "a", &r));
    assert_int_equal(r.version, 1);
    assert_int_equal(r.created_version, 1);
    assert_int_equal(r.created_ns, 111);
    assert_int_equal(r.updated_ns, 111);
    assert_true(span_equal(r.name, span_str("alpha")));
    buf_free(&l.changes);
    l = row_list();
    list_node(&l, ROW_REPLACE, "a", 1, "beta", &n);
    c = list_command(&l, 222);
    assert_int_equal(apply(s, &c).error, OK);
    assert_int_equal(apply(s, &c).error, ERR_CONFLICT); /* it is at version 2 now */
    assert_true(row_get(s, ROW_NODE, "a", &r));
    assert_int_equal(r.version, 2);
    assert_int_equal(r.created_version, 1);
    assert_int_equal(r.created_ns, 111);
    assert_int_equal(r.updated_ns, 222);
    assert_true(span_equal(r.name, span_str("beta")));
    assert_int_equal(row_version(s), 2);
    assert_int_equal(row_count(s, ROW_NODE), 1);
    assert_int_equal(store_revision(s), 1);
    buf_free(&l.changes);
    store_free(s);
}

static void a_change_needs_the_row_and_its_version(void **state) {
    (void)state;
    struct store *s = founded();
    struct node_row n = some_node(NODE_WORKER, 0);
    struct row_list l = row_list();
    assert_int_equal(replace_node(s, "a", &n), ERR_NOT_FOUND);
    assert_int_equal(remove_row(s, ROW_NODE, "a"), ERR_NOT_FOUND);
    assert_int_equal(create_node(s, "a", &n), OK);
    assert_int_equal(create_node(s, "a", &n), ERR_EXISTS);
    list_plain(&l, ROW_CHECK, ROW_NODE, "a", 1);
    assert_int_equal(list_apply(s, &l).error, OK);
    list_plain(&l, ROW_CHECK, ROW_NODE, "a", 7);
    assert_int_equal(list_apply(s, &l).error, ERR_CONFLICT);
    list_plain(&l, ROW_CHECK, ROW_NODE, "b", 0);
    assert_int_equal(list_apply(s, &l).error, ERR_NOT_FOUND);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "a", 7);
    assert_int_equal(list_apply(s, &l).error, ERR_CONFLICT);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "a", 1);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_int_equal(row_count(s, ROW_NODE), 0);
    store_free(s);
}

static void a_name_is_had_once_whatever_its_case(void **state) {
    (void)state;
    struct store *s = founded();
    struct row r;
    struct row_list l = row_list();
    struct node_row n = some_node(NODE_WORKER, 0);
    assert_int_equal(create_named(s, "a", "Alpha"), OK);
    assert_int_equal(create_named(s, "b", "ALPHA"), ERR_EXISTS);
    assert_int_equal(create_named(s, "b", ""), OK);
    assert_int_equal(create_named(s, "c", ""), OK); /* any number without a name */
    assert_true(row_named(s, ROW_NODE, span_str("aLPHA"), &r));
    assert_string_equal(r.id, "a");
    assert_true(span_equal(r.name, span_str("Alpha")));
    assert_false(row_named(s, ROW_TOKEN, span_str("Alpha"), &r));
    assert_false(row_named(s, ROW_NODE, span_str(""), &r));
    /* It goes from one to another in one list, if it is let go first. */
    list_node(&l, ROW_REPLACE, "b", 0, "alpha", &n);
    list_node(&l, ROW_REPLACE, "a", 0, "other", &n);
    assert_int_equal(list_apply(s, &l).error, ERR_EXISTS);
    list_node(&l, ROW_REPLACE, "a", 0, "other", &n);
    list_node(&l, ROW_REPLACE, "b", 0, "alpha", &n);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_true(row_named(s, ROW_NODE, span_str("Alpha"), &r));
    assert_string_equal(r.id, "b");
    assert_int_equal(remove_row(s, ROW_NODE, "b"), OK);
    assert_false(row_named(s, ROW_NODE, span_str("Alpha"), &r));
    assert_int_equal(create_named(s, "d", "alpha"), OK);
    store_free(s);
}

static void a_row_is_found_by_id_by_name_and_by_the_beginning_of_an_id(void **state) {
    (void)state;
    struct store *s = founded();
    struct row r;
    struct why why;
    assert_int_equal(create_named(s, "abcdef1", "one"), OK);
    assert_int_equal(create_named(s, "abcxyz2", "two"), OK);
    assert_int_equal(create_named(s, "q", "abcdef"), OK);
    assert_int_equal(row_find(s, ROW_NODE, "abcdef1", &r, &why), OK);
    assert_int_equal(row_find(s, ROW_NODE, "TWO", &r, &why), OK);
    assert_string_equal(r.id, "abcxyz2");
    assert_int_equal(row_find(s, ROW_NODE, "abcdef", &r, &why), OK); /* a name goes first */
    assert_string_equal(r.id, "q");
    assert_int_equal(row_find(s, ROW_NODE, "abcx", &r, &why), OK);
    assert_string_equal(r.id, "abcxyz2");
    assert_int_equal(row_find(s, ROW_NODE, "abc", &r, &why), ERR_INVALID);
    assert_string_equal(why.text, "\"abc\" begins more than one id");
    assert_int_equal(row_find(s, ROW_NODE, "z", &r, &why), ERR_NOT_FOUND);
    assert_int_equal(row_find(s, ROW_TOKEN, "abcx", &r, &why), ERR_NOT_FOUND);
    assert_int_equal(row_find(s, ROW_NODE, "", &r, &why), ERR_NOT_FOUND);
    assert_int_equal(
        row_find(s, ROW_NODE, "an id that is longer than any id may be, by far", &r, &why),
        ERR_NOT_FOUND);
    assert_false(row_get(s, ROW_NODE, "an id that is longer than any id may be, by far", &r));
    store_free(s);
}

static bool note_id(void *ctx, const struct row *r) {
    char *all = ctx;
    size_t size = strlen(all);
    (void)snprintf(all + size, 64 - size, "%s ", r->id);
    return strcmp(r->id, "c") != 0;
}

static void all_rows_of_a_kind_come_in_order(void **state) {
    (void)state;
    struct store *s = founded();
    char all[64] = "";
    struct row_list l = row_list();
    struct join_token t = some_token(NODE_WORKER, 0, "secret");
    assert_int_equal(create_named(s, "b", "x"), OK);
    assert_int_equal(create_named(s, "a", "y"), OK);
    list_token(&l, ROW_CREATE, "t", 0, "", &t);
    assert_int_equal(list_apply(s, &l).error, OK);
    row_all(s, ROW_NODE, note_id, all);
    assert_string_equal(all, "a b ");
    all[0] = '\0';
    assert_int_equal(create_named(s, "c", ""), OK);
    assert_int_equal(create_named(s, "d", ""), OK);
    row_all(s, ROW_NODE, note_id, all);
    assert_string_equal(all, "a b c "); /* it said to stop */
    all[0] = '\0';
    row_all(s, ROW_SPEC, note_id, all);
    assert_string_equal(all, "");
    store_free(s);
}

static void a_list_that_is_refused_at_its_end_has_changed_nothing(void **state) {
    (void)state;
    struct store *s = founded();
    struct node_row n = some_node(NODE_WORKER, 0);
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    struct row r;
    assert_int_equal(create_named(s, "a", "alpha"), OK);
    hash_of(s, before);
    struct row_list l = row_list();
    for (unsigned i = 0; i < 200; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "new-%u", i);
        list_node(&l, ROW_CREATE, id, 0, id, &n);
    }
    list_node(&l, ROW_REPLACE, "a", 0, "", &n);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "nobody", 0);
    assert_int_equal(list_apply(s, &l).error, ERR_NOT_FOUND);
    hash_of(s, after);
    assert_memory_equal(before, after, STATE_HASH_SIZE);
    assert_int_equal(row_count(s, ROW_NODE), 1);
    assert_int_equal(row_version(s), 1);
    assert_true(row_named(s, ROW_NODE, span_str("alpha"), &r));
    assert_false(row_get(s, ROW_NODE, "new-7", &r));
    store_free(s);
}

static void a_row_is_changed_once_in_a_list(void **state) {
    (void)state;
    struct store *s = founded();
    struct node_row n = some_node(NODE_WORKER, 0);
    struct row_list l = row_list();
    list_node(&l, ROW_CREATE, "a", 0, "", &n);
    list_node(&l, ROW_REPLACE, "a", 0, "", &n);
    assert_int_equal(list_apply(s, &l).error, ERR_INVALID);
    assert_int_equal(create_node(s, "a", &n), OK);
    list_plain(&l, ROW_REMOVE, ROW_NODE, "a", 0);
    list_node(&l, ROW_CREATE, "a", 0, "", &n);
    assert_int_equal(list_apply(s, &l).error, ERR_INVALID);
    list_plain(&l, ROW_CHECK, ROW_NODE, "a", 0);
    list_node(&l, ROW_REPLACE, "a", 0, "", &n);
    assert_int_equal(list_apply(s, &l).error, OK);
    store_free(s);
}

static void a_malformed_change_is_not_encoded(void **state) {
    (void)state;
    struct buf changes = buf_new(COMMAND_MAX), body = buf_new(ROW_BODY_MAX);
    struct node_row n = some_node(NODE_WORKER, 0);
    char long_name[ROW_NAME_MAX + 2] = "";
    memset(long_name, 'n', ROW_NAME_MAX + 1);
    assert_int_equal(node_row_encode(&n, &body), OK);
    const struct row_change good = {
        .action = ROW_CREATE, .kind = ROW_NODE, .id = "a", .body = buf_span(&body)};
    struct row_change bad[10];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = good;
    bad[0].action = (enum row_action)0;
    bad[1].action = (enum row_action)5;
    bad[2].kind = (enum row_kind)0;
    bad[3].kind = (enum row_kind)4;
    bad[4].id[0] = '\0';
    bad[5].id[0] = ' ';
    bad[6].version = 1;
    bad[7].name = span_str(long_name);
    bad[8].name = span_of("a\0b", 3);
    bad[9].body.size--;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(row_change_add(&changes, &bad[i]), ERR_INVALID);
    assert_int_equal(row_change_add(&changes, &good), OK);
    buf_free(&changes);
    buf_free(&body);
}

/* --- who is told --- */

struct told {
    struct store *store;
    unsigned n;             /* times */
    char last[64];          /* what was last: "before>after", ids; "*": all */
    uint64_t before, after; /* versions; 0: not there */
};

static void take_note(void *ctx, const struct row *before, const struct row *after) {
    struct told *t = ctx;
    t->n++;
    t->before = before != NULL ? before->version : 0;
    t->after = after != NULL ? after->version : 0;
    const struct row *any = after != NULL ? after : before;
    (void)snprintf(t->last, sizeof t->last, "%s", any != NULL ? any->id : "*");
    struct row now;
    if (after != NULL) assert_true(row_get(t->store, after->kind, after->id, &now));
}

static void whoever_watches_is_told_of_what_has_happened(void **state) {
    (void)state;
    struct store *s = founded();
    struct told told = {.store = s};
    struct node_row n = some_node(NODE_WORKER, 0);
    struct row_list l = row_list();
    uint8_t hash[STATE_HASH_SIZE];
    row_watch(s, take_note, &told);
    assert_int_equal(create_node(s, "a", &n), OK);
    assert_true(told.n == 1 && told.before == 0 && told.after == 1);
    assert_string_equal(told.last, "a");
    assert_int_equal(create_node(s, "a", &n), ERR_EXISTS);
    assert_int_equal(told.n, 1);
    list_plain(&l, ROW_CHECK, ROW_NODE, "a", 0);
    list_node(&l, ROW_CREATE, "b", 0, "", &n);
    list_node(&l, ROW_REPLACE, "a", 0, "", &n);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_true(told.n == 3 && told.before == 1 && told.after == 2);
    assert_int_equal(remove_row(s, ROW_NODE, "b"), OK);
    assert_true(told.n == 4 && told.before == 2 && told.after == 0);
    assert_string_equal(told.last, "b");
    struct buf image = image_of(s);
    hash_of(s, hash);
    assert_int_equal(restore_from(s, buf_span(&image), 100, NULL, hash), OK);
    assert_int_equal(told.n, 5);
    assert_string_equal(told.last, "*");
    row_watch(s, NULL, NULL);
    assert_int_equal(remove_row(s, ROW_NODE, "a"), OK);
    assert_int_equal(told.n, 5);
    buf_free(&image);
    store_free(s);
}

static void another_cluster_has_no_rows_of_the_one_before(void **state) {
    (void)state;
    struct store *s = founded();
    struct told told = {.store = s};
    struct row r;
    struct spec spec = {.task_history = 7};
    struct row_list l = row_list();
    list_spec(&l, ROW_CREATE, "cluster", &spec);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_int_equal(create_named(s, "a", "alpha"), OK);
    row_watch(s, take_note, &told);
    struct command c = {.op = OP_CLUSTER};
    (void)snprintf(c.cluster.id, sizeof c.cluster.id, "another");
    c.cluster.ca.root_pem = c.cluster.ca.key = span_str("pem");
    c.cluster.join_key = span_str("another key of all join tokens!!");
    c.cluster.first = make_node(9, "z", "zeta");
    assert_int_equal(apply(s, &c).error, ERR_EXISTS);
    assert_int_equal(row_count(s, ROW_NODE), 1);
    struct machine_view *view; /* which sees the old rows */
    struct machine *m = store_machine(s);
    assert_int_equal(m->view(m, &view), OK);
    c.cluster.replace = true;
    assert_int_equal(apply(s, &c).error, OK);
    assert_int_equal(told.n, 1);
    assert_string_equal(told.last, "*");
    assert_int_equal(row_count(s, ROW_NODE) + row_count(s, ROW_SPEC), 0);
    assert_false(row_named(s, ROW_NODE, span_str("alpha"), &r));
    assert_int_equal(row_version(s), 3);
    list_spec(&l, ROW_CREATE, "another", &spec);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_int_equal(create_named(s, "a", "alpha"), OK);
    m->view_free(view);
    while (store_work(s))
        continue;
    store_free(s);
}

/* --- many --- */

/* Thousands of lists at random while images are taken: what can be read follows from what was
 * accepted, and a restored state has it all. */
static bool count_one(void *ctx, const struct row *r) {
    uint64_t *n = ctx;
    n[0]++;
    n[1] += r->name.size != 0;
    return true;
}

static void check_marks(struct store *s) {
    uint64_t n[2] = {0, 0};
    row_all(s, ROW_NODE, count_one, n);
    assert_int_equal(n[0], row_count(s, ROW_NODE));
    for (unsigned i = 0; i < 40; i++) {
        char name[16];
        struct row r;
        (void)snprintf(name, sizeof name, "name-%u", i);
        n[1] -= row_named(s, ROW_NODE, span_str(name), &r);
    }
    assert_int_equal(n[1], 0);
}

static void thousands_of_lists_leave_rows_marks_and_hash_in_accord(void **state) {
    (void)state;
    struct store *s = founded(), *other = store_for_test();
    struct machine *m = store_machine(s);
    struct machine_view *views[8] = {NULL};
    uint64_t seed = 3, accepted = 0;
    uint8_t hash[STATE_HASH_SIZE], again[STATE_HASH_SIZE];
    for (unsigned i = 0; i < 20000; i++) {
        struct row_list l;
        random_rows(&seed, &l);
        accepted += list_apply(s, &l).error == OK;
        struct machine_view **v = &views[random_next(&seed) % ARRAY_SIZE(views)];
        if (i % 37 == 0 && *v == NULL) {
            assert_int_equal(m->view(m, v), OK);
        } else if (i % 37 == 0) {
            m->view_free(*v);
            *v = NULL;
        }
        if (i % 1000 != 999) continue;
        check_marks(s);
        struct buf image = image_of(s);
        hash_of(s, hash);
        assert_int_equal(restore_from(other, buf_span(&image), 999, NULL, hash), OK);
        hash_of(other, again);
        assert_memory_equal(hash, again, STATE_HASH_SIZE);
        assert_int_equal(tree_count(other->state.rows.tree), tree_count(s->state.rows.tree));
        check_marks(other);
        buf_free(&image);
    }
    assert_true(accepted > 3000 && accepted < 16000);
    for (enum row_kind kind = ROW_SPEC; kind <= ROW_KIND_MAX; kind++)
        assert_true(row_count(s, kind) > 0 || kind == ROW_CONFIG); /* it is all met */
    for (unsigned i = 0; i < ARRAY_SIZE(views); i++)
        if (views[i] != NULL) m->view_free(views[i]);
    store_free(s);
    store_free(other);
}

/* --- out of memory --- */

struct sweep {
    unsigned rows;             /* that are there before */
    bool viewed;               /* by an image under way */
    struct command command;    /* what is applied */
    struct store *store;       /* fresh for every fault */
    struct machine_view *view; /* NULL: none */
    uint8_t before[STATE_HASH_SIZE];
    enum err e;
};

static void some_rows(struct store *s, unsigned n) {
    struct row_list l = row_list();
    for (unsigned i = 0; i < n; i++) {
        char id[16];
        struct node_row node = some_node(NODE_WORKER, i + 1);
        (void)snprintf(id, sizeof id, "id-%03u", i);
        list_node(&l, ROW_CREATE, id, 0, id, &node);
    }
    if (n > 0) assert_int_equal(list_apply(s, &l).error, OK);
    buf_free(&l.changes);
}

static void apply_once(void *ctx) {
    struct sweep *w = ctx;
    struct buf bytes = buf_new(COMMAND_MAX);
    fault_alloc_pause();
    w->store = founded();
    w->view = NULL;
    some_rows(w->store, w->rows);
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
        struct result r = apply(w->store, &w->command);
        assert_int_equal(r.error, OK);
    }
    if (w->view != NULL) m->view_free(w->view);
    store_free(w->store);
}

static void every_failing_allocation_leaves_all_as_it_was(void **state) {
    (void)state;
    static const unsigned rows[] = {1, 16, 21, 60, 64, 90}; /* marks count too: leaves split */
    struct node_row n = some_node(NODE_WORKER, 200), other = some_node(NODE_WORKER, 201);
    struct row_list l = row_list();
    for (unsigned i = 0; i < 4; i++) {
        char id[16];
        struct node_row more = some_node(NODE_WORKER, 210 + i);
        (void)snprintf(id, sizeof id, "new-%u", i);
        list_node(&l, ROW_CREATE, id, 0, id, &more);
    }
    list_node(&l, ROW_REPLACE, "id-000", 0, "renamed", &n);
    list_node(&l, ROW_CREATE, "id-0005", 0, "between", &other);
    struct sweep w = {.command = list_command(&l, 5)};
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
        w.rows = rows[i / 2];
        w.viewed = i % 2 == 1;
        assert_true(fault_sweep_alloc(apply_once, whole_or_nothing, &w) > 8);
    }
    buf_free(&l.changes);
}

static void a_cluster_that_takes_anothers_place_does_so_whole_or_not(void **state) {
    (void)state;
    struct sweep w = {.rows = 30, .viewed = true, .command = {.op = OP_CLUSTER}};
    struct command *c = &w.command;
    (void)snprintf(c->cluster.id, sizeof c->cluster.id, "another");
    c->cluster.ca.root_pem = c->cluster.ca.issuer_pem = c->cluster.ca.key = span_str("pem");
    c->cluster.join_key = span_str("another key of all join tokens!!");
    c->cluster.first = make_node(9, "z", "zeta");
    c->cluster.replace = true;
    assert_true(fault_sweep_alloc(apply_once, whole_or_nothing, &w) > 8);
}

static void a_step_of_a_rotation_happens_whole_or_not(void **state) {
    (void)state;
    struct sweep w = {.rows = 1, .command = {.op = OP_CA}};
    w.command.ca.action = CA_START;
    w.command.ca.next.root_pem = span_str("root");
    w.command.ca.next.issuer_pem = span_str("issuer");
    w.command.ca.next.key = span_str("key");
    w.command.ca.cross_pem = span_str("cross");
    assert_true(fault_sweep_alloc(apply_once, whole_or_nothing, &w) > 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_the_founded_clusters),
        cmocka_unit_test(a_row_has_versions_and_times),
        cmocka_unit_test(a_change_needs_the_row_and_its_version),
        cmocka_unit_test(a_name_is_had_once_whatever_its_case),
        cmocka_unit_test(a_row_is_found_by_id_by_name_and_by_the_beginning_of_an_id),
        cmocka_unit_test(all_rows_of_a_kind_come_in_order),
        cmocka_unit_test(a_list_that_is_refused_at_its_end_has_changed_nothing),
        cmocka_unit_test(a_row_is_changed_once_in_a_list),
        cmocka_unit_test(a_malformed_change_is_not_encoded),
        cmocka_unit_test(whoever_watches_is_told_of_what_has_happened),
        cmocka_unit_test(another_cluster_has_no_rows_of_the_one_before),
        cmocka_unit_test(thousands_of_lists_leave_rows_marks_and_hash_in_accord),
        cmocka_unit_test(every_failing_allocation_leaves_all_as_it_was),
        cmocka_unit_test(a_cluster_that_takes_anothers_place_does_so_whole_or_not),
        cmocka_unit_test(a_step_of_a_rotation_happens_whole_or_not),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
