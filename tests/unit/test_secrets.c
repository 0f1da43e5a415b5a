/* Secrets and configs as an operator changes them, on a real manager that is alone: names, sizes,
 * labels, versions, what is in use; each change is in the audit with it, and says who and from
 * where, never what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "api/http/server.h"
#include "api/node/roles.h"
#include "api/secret/secrets.h"
#include "store/service.h"
#include "tests/lib/held_lists.h"
#include "tests/lib/loners.h"

static const struct actor tester = {.who = "admin alice", .from = "10.1.2.3"};

static struct loners all;
static struct manager *m;
static char made_id[NODE_ID_SIZE + 1];
static uint32_t made_version;

static int set_up(void **state) {
    (void)state;
    loners_start(&all, true);
    m = all.at[0].manager;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    loners_end(&all);
    return 0;
}

static void on_held(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    loners_done(ctx, e, text);
    (void)snprintf(made_id, sizeof made_id, "%s", id);
    made_version = version;
}

/* What became of a request: at once, or later. */
static enum err outcome(enum err e, const struct why *why) {
    if (e != OK) {
        (void)snprintf(all.text, sizeof all.text, "%s", why->text);
        return e;
    }
    loners_wait(&all);
    return all.error;
}

static struct held_spec spec_of(enum row_kind kind, const char *name, const char *bytes) {
    return (struct held_spec){.kind = kind,
                              .name = span_str(name),
                              .templating = "",
                              .driver = "",
                              .value = span_str(bytes)};
}

static enum err create_spec(const struct held_spec *spec) {
    struct why why = {0};
    all.done = false;
    return outcome(secrets_create(m, spec, &tester, on_held, &all, &why), &why);
}

static enum err create(enum row_kind kind, const char *name, const char *bytes) {
    struct held_spec spec = spec_of(kind, name, bytes);
    return create_spec(&spec);
}

static enum err another(enum row_kind kind, const char *id, const char *bytes) {
    struct why why = {0};
    all.done = false;
    return outcome(secrets_put(m, kind, id, span_str(bytes), &tester, on_held, &all, &why), &why);
}

static enum err drop(enum row_kind kind, const char *id) {
    struct why why = {0};
    all.done = false;
    return outcome(secrets_remove(m, kind, id, &tester, on_held, &all, &why), &why);
}

static enum err drop_version(enum row_kind kind, const char *id, uint32_t version) {
    struct why why = {0};
    all.done = false;
    return outcome(secrets_remove_version(m, kind, id, version, &tester, on_held, &all, &why),
                   &why);
}

static enum err label(const char *id, uint64_t version, struct span labels) {
    struct why why = {0};
    all.done = false;
    return outcome(secrets_label(m, ROW_SECRET, id, version, labels, &tester, on_held, &all, &why),
                   &why);
}

static bool opens(enum row_kind kind, const char *id, uint32_t version, const char *want) {
    struct secret *s = NULL;
    uint32_t got;
    if (secrets_value(m, kind, id, version, &s, &got, NULL) != OK) return false;
    bool same = span_equal(secret_span(s), span_str(want)) && (version == 0 || got == version);
    secret_free(s);
    return same;
}

static void held_of(enum row_kind kind, const char *id, struct row *row, struct held_row *h) {
    assert_true(row_get(m->store, kind, id, row));
    assert_int_equal(held_decode(row->body, h), OK);
}

/* --- the cases -------------------------------------------------------------------------------- */

static void names_are_dockers_and_unique_whatever_their_case(void **state) {
    (void)state;
    char name[HELD_NAME_MAX + 2];
    assert_int_equal(create(ROW_SECRET, "Db.password_1-a", "x"), OK);
    assert_int_equal(create(ROW_SECRET, "dB.PASSWORD_1-A", "x"), ERR_EXISTS);
    assert_string_equal(all.text, "secret dB.PASSWORD_1-A already exists");
    assert_int_equal(create(ROW_CONFIG, "Db.password_1-a", "x"), OK); /* a kind of its own */
    assert_int_equal(create(ROW_SECRET, "-a", "x"), ERR_INVALID);
    assert_int_equal(create(ROW_SECRET, "", "x"), ERR_INVALID);
    assert_int_equal(create(ROW_SECRET, "a b", "x"), ERR_INVALID);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(create(ROW_SECRET, name, "x"), ERR_INVALID);
    assert_int_equal(create(ROW_SECRET, name + 1, "x"), OK);
    assert_int_equal(row_count(m->store, ROW_SECRET), 2);
}

static void sizes_are_dockers(void **state) {
    (void)state;
    char *large = malloc(CONFIG_SIZE_MAX + 2);
    memset(large, 'v', CONFIG_SIZE_MAX + 1);
    large[CONFIG_SIZE_MAX + 1] = 0;
    assert_int_equal(create(ROW_SECRET, "a", ""), ERR_INVALID);
    assert_string_equal(all.text, "secret data must be larger than 0 and less than 512000 bytes");
    assert_int_equal(create(ROW_CONFIG, "a", large), ERR_INVALID);
    assert_string_equal(all.text, "config data must be larger than 0 and less than 1024000 bytes");
    large[CONFIG_SIZE_MAX] = 0;
    assert_int_equal(create(ROW_CONFIG, "a", large), OK);
    assert_true(opens(ROW_CONFIG, made_id, 0, large));
    large[SECRET_SIZE_MAX + 1] = 0;
    assert_int_equal(create(ROW_SECRET, "a", large), ERR_INVALID);
    large[SECRET_SIZE_MAX] = 0;
    assert_int_equal(create(ROW_SECRET, "a", large), OK);
    free(large);
}

static void labels_are_changed_with_the_version_that_was_seen(void **state) {
    (void)state;
    struct row row;
    struct held_row h;
    struct buf labels = buf_new(4 * KIB);
    const uint8_t wrong[] = {1, 2, 3};
    assert_int_equal(labels_add(&labels, span_str("a"), span_str("1")), OK);
    assert_int_equal(create(ROW_SECRET, "s", "x"), OK);
    held_of(ROW_SECRET, made_id, &row, &h);
    uint64_t seen = row.version;
    assert_int_equal(label(made_id, seen, buf_span(&labels)), OK);
    assert_int_equal(label(made_id, seen, span_of(NULL, 0)), ERR_CONFLICT);
    assert_int_equal(label(made_id, 0, span_of(wrong, 3)), ERR_INVALID);
    held_of(ROW_SECRET, made_id, &row, &h);
    assert_true(span_equal(h.labels, buf_span(&labels)));
    assert_true(opens(ROW_SECRET, made_id, 0, "x"));
    assert_int_equal(label("nobody", 0, span_of(NULL, 0)), ERR_NOT_FOUND);
    buf_free(&labels);
}

static void versions_come_and_go(void **state) {
    (void)state;
    char id[NODE_ID_SIZE + 1];
    assert_int_equal(create(ROW_SECRET, "s", "one"), OK);
    assert_int_equal(made_version, 1);
    (void)snprintf(id, sizeof id, "%s", made_id);
    assert_int_equal(drop_version(ROW_SECRET, id, 1), ERR_PRECONDITION); /* the only one */
    assert_int_equal(another(ROW_SECRET, id, "two"), OK);
    assert_int_equal(made_version, 2);
    assert_true(opens(ROW_SECRET, id, 0, "two"));
    assert_true(opens(ROW_SECRET, id, 1, "one"));
    assert_int_equal(drop_version(ROW_SECRET, id, 3), ERR_NOT_FOUND);
    assert_int_equal(drop_version(ROW_SECRET, id, 0), ERR_NOT_FOUND);
    assert_int_equal(drop_version(ROW_SECRET, id, 2), OK);
    assert_true(opens(ROW_SECRET, id, 0, "one"));
    assert_int_equal(another(ROW_SECRET, id, "three"), OK);
    assert_int_equal(made_version, 3); /* a number is never used again */
    assert_int_equal(row_count(m->store, ROW_VALUE), 2);
    assert_int_equal(drop(ROW_SECRET, id), OK);
    assert_int_equal(row_count(m->store, ROW_VALUE), 0); /* and the data keys with them */
    assert_int_equal(drop(ROW_SECRET, id), ERR_NOT_FOUND);
    assert_int_equal(another(ROW_SECRET, id, "four"), ERR_NOT_FOUND);
}

static void the_oldest_version_makes_room(void **state) {
    (void)state;
    char id[NODE_ID_SIZE + 1];
    struct row row;
    struct held_row h;
    assert_int_equal(create(ROW_CONFIG, "c", "v"), OK);
    (void)snprintf(id, sizeof id, "%s", made_id);
    for (unsigned i = 0; i < HELD_VERSIONS_MAX; i++)
        assert_int_equal(another(ROW_CONFIG, id, "v"), OK);
    held_of(ROW_CONFIG, id, &row, &h);
    assert_int_equal(h.n, HELD_VERSIONS_MAX);
    assert_int_equal(h.versions[0].number, 2);
    assert_int_equal(row_count(m->store, ROW_VALUE), HELD_VERSIONS_MAX);
    assert_false(opens(ROW_CONFIG, id, 1, "v"));
}

static void a_secret_with_a_driver_has_no_value_here(void **state) {
    (void)state;
    struct held_spec spec = spec_of(ROW_SECRET, "s", "");
    struct why why = {0};
    struct secret *out = NULL;
    uint32_t version;
    spec.driver = "outside";
    assert_int_equal(create_spec(&spec), OK);
    assert_int_equal(made_version, 0);
    assert_int_equal(secrets_value(m, ROW_SECRET, made_id, 0, &out, &version, &why),
                     ERR_UNSUPPORTED);
    assert_int_equal(another(ROW_SECRET, made_id, "x"), ERR_PRECONDITION);
    spec.name = span_str("t");
    spec.value = span_str("x");
    assert_int_equal(create_spec(&spec), ERR_INVALID);
    spec.value = span_str("");
    spec.kind = ROW_CONFIG;
    assert_int_equal(create_spec(&spec), ERR_INVALID);
    spec = spec_of(ROW_SECRET, "u", "x");
    spec.templating = "jinja";
    assert_int_equal(create_spec(&spec), ERR_INVALID);
    spec.templating = "golang";
    assert_int_equal(create_spec(&spec), OK);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    loners_done(w->ctx, e == OK ? r->error : e, text);
}

/* A service that names a version of a secret. */
static void add_service(const char *service, const char *id, const char *name, uint32_t version) {
    struct row_list l = row_list();
    struct write w = {.done = on_written, .ctx = &all};
    struct service_row s = some_service(id, name, version);
    list_service(&l, ROW_CREATE, service, service, &s);
    all.done = false;
    assert_int_equal(rows_command(m, &l.changes, l.n, &w), OK);
    assert_int_equal(manager_write(m, &w), OK);
    loners_wait(&all);
    assert_int_equal(all.error, OK);
    buf_free(&l.changes);
}

static void what_a_service_names_stays(void **state) {
    (void)state;
    char id[NODE_ID_SIZE + 1];
    struct why why = {0};
    assert_int_equal(create(ROW_SECRET, "s", "one"), OK);
    (void)snprintf(id, sizeof id, "%s", made_id);
    assert_int_equal(another(ROW_SECRET, id, "two"), OK);
    assert_int_equal(another(ROW_SECRET, id, "three"), OK);
    add_service("web", id, "s", 2);
    assert_int_equal(drop(ROW_SECRET, id), ERR_PRECONDITION);
    assert_string_equal(all.text, "secret 's' is in use by the following service: web");
    assert_int_equal(secrets_shred(m, id, &tester, on_held, &all, &why), ERR_PRECONDITION);
    assert_int_equal(drop_version(ROW_SECRET, id, 2), ERR_PRECONDITION);
    assert_int_equal(drop_version(ROW_SECRET, id, 1), OK);
    add_service("db", id, "s", 0);
    assert_int_equal(drop(ROW_SECRET, id), ERR_PRECONDITION);
    assert_non_null(strstr(all.text, "following services: "));
    for (unsigned i = 0; i < HELD_VERSIONS_MAX + 2; i++)
        assert_int_equal(another(ROW_SECRET, id, "more"), OK);
    assert_true(opens(ROW_SECRET, id, 2, "two")); /* it made room for none of them */
}

/* --- the audit -------------------------------------------------------------------------------- */

struct trail {
    unsigned n;
    struct audit_record last;
    struct buf text; /* all that is in it */
};

static bool take_record(void *ctx, const struct row *row) {
    struct trail *t = ctx;
    struct audit_link link;
    assert_int_equal(audit_read(row, &link), OK);
    assert_int_equal(buf_add_span(&t->text, row->body), OK);
    if (link.is.kind != ROW_SECRET) return true;
    assert_true(span_equal(link.is.who, span_str(tester.who)));
    assert_true(span_equal(link.is.from, span_str(tester.from)));
    assert_true(span_equal(link.is.name, span_str("s")));
    assert_string_equal(link.is.id, made_id);
    t->last = link.is;
    t->n++;
    return true;
}

static void expect_trail(unsigned n, enum audit_what what, uint32_t version) {
    struct trail t = {.text = buf_new(1 * MIB)};
    audit_each(m->store, 0, take_record, &t);
    assert_int_equal(t.n, n);
    assert_int_equal(t.last.what, what);
    assert_int_equal(t.last.version, version);
    assert_false(loners_found(&t.text, span_str("the value itself")));
    buf_free(&t.text);
}

static void each_change_is_in_the_audit_and_no_value(void **state) {
    (void)state;
    assert_int_equal(create(ROW_SECRET, "s", "the value itself"), OK);
    expect_trail(1, AUDIT_CREATE, 1);
    assert_int_equal(another(ROW_SECRET, made_id, "the value itself, again"), OK);
    expect_trail(2, AUDIT_UPDATE, 2);
    assert_int_equal(label(made_id, 0, span_of(NULL, 0)), OK);
    expect_trail(3, AUDIT_UPDATE, 0);
    assert_int_equal(create(ROW_SECRET, "S", "x"), ERR_EXISTS); /* nothing happened */
    expect_trail(3, AUDIT_UPDATE, 0);
    assert_int_equal(drop_version(ROW_SECRET, made_id, 1), OK);
    expect_trail(4, AUDIT_REMOVE, 1);
    assert_int_equal(drop(ROW_SECRET, made_id), OK);
    expect_trail(5, AUDIT_REMOVE, 0);
}

static void an_actor_is_who_the_connection_says(void **state) {
    (void)state;
    struct exchange x = {.caller = {.admin = true, .from = "socket"}};
    struct actor a;
    actor_of(&x, &a);
    assert_string_equal(a.who, "operator");
    assert_string_equal(a.from, "socket");
    x.caller =
        (struct caller){.admin = true, .by_certificate = true, .name = "alice", .from = "10.0.0.1"};
    actor_of(&x, &a);
    assert_string_equal(a.who, "admin alice");
    assert_string_equal(a.from, "10.0.0.1");
    x.caller.admin = false;
    actor_of(&x, &a);
    assert_string_equal(a.who, "client alice");
    x.caller = (struct caller){0};
    actor_of(&x, &a);
    assert_string_equal(a.who, "anybody");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(names_are_dockers_and_unique_whatever_their_case),
        CASE(sizes_are_dockers),
        CASE(labels_are_changed_with_the_version_that_was_seen),
        CASE(versions_come_and_go),
        CASE(the_oldest_version_makes_room),
        CASE(a_secret_with_a_driver_has_no_value_here),
        CASE(what_a_service_names_stays),
        CASE(each_change_is_in_the_audit_and_no_value),
        cmocka_unit_test(an_actor_is_who_the_connection_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
