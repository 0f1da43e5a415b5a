/* Services on real managers: what is written and refused when an operator changes them, and what
 * the leader makes of them: tasks placed on nodes, reports taken in, another leader, and a thousand
 * services at once. The nodes are rows only; the managers' own are drained, so that nothing
 * runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/json.h"
#include "api/node/roles.h"
#include "api/service/assign_wire.h"
#include "api/service/scheduler.h"
#include "api/service/services.h"
#include "store/spec.h"
#include "tests/lib/loners.h"

static struct loners all; /* of the test that runs */
static const struct actor tester = {.who = "operator", .from = "socket"};
static char made_id[NODE_ID_SIZE + 1];

/* --- writing ---------------------------------------------------------------------------------- */

static void on_service(void *ctx, enum err e, const char *text, const char *id) {
    loners_done(ctx, e, text);
    (void)snprintf(made_id, sizeof made_id, "%s", id);
}

static void expect_answer(enum err got, const struct why *why, enum err want,
                          const char *sentence) {
    if (got == OK) {
        loners_wait(&all);
        got = all.error;
    } else {
        (void)snprintf(all.text, sizeof all.text, "%s", why->text);
    }
    if (got != want || !strstr(all.text, sentence))
        fail_msg("%s \"%s\" in place of %s \"%s\"", err_name(got), all.text, err_name(want),
                 sentence);
    all.done = false;
}

/* Reads the spec and creates or updates. */
struct asked {
    struct service_row row;
    struct span name;
    struct buf memory, warnings;
};

static struct asked *read_spec(const struct manager *m, const char *text) {
    struct asked *a = calloc(1, sizeof *a);
    struct why why = {0};
    json_t *json;
    a->memory = buf_new(SERVICE_SPEC_MEMORY);
    a->warnings = buf_new(SERVICE_WARNINGS);
    assert_int_equal(jin_parse(span_str(text), &json, NULL), OK);
    if (service_spec(m, json, &a->memory, &a->row, &a->name, &a->warnings, &why) != OK)
        fail_msg("%s", why.text);
    json_decref(json);
    return a;
}

static void asked_free(struct asked *a) {
    buf_free(&a->memory);
    buf_free(&a->warnings);
    free(a);
}

static const char *spec_of(const char *name, const char *env, unsigned replicas, unsigned force) {
    static char text[512];
    (void)snprintf(text, sizeof text,
                   "{\"Name\":\"%s\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"host\","
                   "\"Args\":[\"true\"],\"Env\":[\"A=%s\"]},\"ForceUpdate\":%u},"
                   "\"Mode\":{\"Replicated\":{\"Replicas\":%u}}}",
                   name, env, force, replicas);
    return text;
}

static void create(struct manager *m, const char *spec, enum err want, const char *sentence) {
    struct why why = {0};
    struct asked *a = read_spec(m, spec);
    expect_answer(services_create(m, a->name, &a->row, &tester, on_service, &all, &why), &why, want,
                  sentence);
    asked_free(a);
}

static void update(struct manager *m, uint64_t version, const char *spec, enum err want,
                   const char *sentence) {
    struct why why = {0};
    struct asked *a = read_spec(m, spec);
    char id[NODE_ID_SIZE + 1];
    memcpy(id, made_id, sizeof id);
    expect_answer(
        services_update(m, id, version, a->name, &a->row, &tester, on_service, &all, &why), &why,
        want, sentence);
    asked_free(a);
}

static void remove_service(struct manager *m, const char *id, enum err want, const char *sentence) {
    struct why why = {0};
    char copy[NODE_ID_SIZE + 1];
    (void)snprintf(copy, sizeof copy, "%s", id);
    expect_answer(services_remove(m, copy, &tester, on_service, &all, &why), &why, want, sentence);
}

/* Any rows, as the loop's own command. */
struct rows_write {
    struct write write;
    struct buf changes;
    unsigned n;
};

static void on_rows(struct write *w, enum err e, const char *text, const struct result *r) {
    (void)w;
    loners_done(&all, e == OK ? r->error : e, text);
}

static RESULT try_rows(struct manager *m, struct rows_write *w) {
    w->write = (struct write){.done = on_rows, .ctx = w};
    assert_int_equal(rows_command(m, &w->changes, w->n, &w->write), OK);
    assert_int_equal(manager_write(m, &w->write), OK);
    loners_wait(&all);
    all.done = false;
    buf_free(&w->changes);
    *w = (struct rows_write){.changes = buf_new(COMMAND_MAX)};
    return all.error;
}

static void write_rows(struct manager *m, struct rows_write *w) {
    if (try_rows(m, w) != OK) fail_msg("%s \"%s\"", err_name(all.error), all.text);
}

static void put_node(struct rows_write *w, const struct manager *m, unsigned i,
                     enum node_state state, enum node_availability a) {
    struct node_row n = {.desired = NODE_WORKER, .granted = NODE_WORKER, .certificate = 1};
    struct row row = {.kind = ROW_NODE};
    char id[NODE_ID_SIZE + 1];
    (void)snprintf(id, sizeof id, "node%03u", i);
    bool there = row_get(m->store, ROW_NODE, id, &row);
    memcpy(row.id, id, sizeof id);
    n.state = state;
    n.availability = a;
    (void)snprintf(n.hostname, sizeof n.hostname, "host-%u", i);
    assert_int_equal(node_change_add(&w->changes, there ? ROW_REPLACE : ROW_CREATE, &row, &n), OK);
    w->n++;
}

static bool drain_manager(void *ctx, const struct row *row) {
    struct rows_write *w = ctx;
    struct node_row n;
    assert_int_equal(node_row_decode(row->body, &n), OK);
    if (n.granted != NODE_MANAGER || n.availability == NODE_DRAIN) return true;
    n.availability = NODE_DRAIN;
    assert_int_equal(node_change_add(&w->changes, ROW_REPLACE, row, &n), OK);
    w->n++;
    return true;
}

/* Heartbeats may be silent for long, and the managers' own nodes get no tasks. */
static void prepare(struct manager *m, unsigned nodes) {
    struct rows_write w = {.changes = buf_new(COMMAND_MAX)};
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row row;
    struct spec spec;
    spec_get(m->store, &row, &spec);
    spec.heartbeat_ns = HEARTBEAT_MAX_NS;
    assert_int_equal(spec_encode(&spec, &body), OK);
    struct row_change c = {.action = ROW_REPLACE, .kind = ROW_SPEC, .name = row.name};
    memcpy(c.id, row.id, sizeof c.id);
    c.body = buf_span(&body);
    assert_int_equal(row_change_add(&w.changes, &c), OK);
    w.n++;
    write_rows(m, &w);
    enum err e = ERR_CONFLICT; /* while their sessions begin, which write these rows, too */
    while (e == ERR_CONFLICT) {
        row_all(m->store, ROW_NODE, drain_manager, &w);
        e = w.n > 0 ? try_rows(m, &w) : OK;
    }
    assert_int_equal(e, OK);
    for (unsigned i = 0; i < nodes; i++)
        put_node(&w, m, i, NODE_READY, NODE_ACTIVE);
    if (nodes > 0) write_rows(m, &w);
    buf_free(&w.changes);
    buf_free(&body);
}

static struct manager *start(unsigned nodes) {
    loners_start(&all, true);
    struct manager *m = loners_leader(&all)->manager;
    prepare(m, nodes);
    return m;
}

/* --- looking ---------------------------------------------------------------------------------- */

struct count {
    const struct manager *manager;
    enum task_state state; /* 0: any */
    enum task_state desired;
    const char *node; /* NULL: any */
    size_t n, want;
};

static bool count_one(void *ctx, const struct row *row) {
    struct count *c = ctx;
    struct task_row t;
    assert_int_equal(task_decode(row->body, &t), OK);
    bool counts = (c->state == 0 || t.state == c->state) &&
                  (c->desired == 0 || t.desired == c->desired) &&
                  (!c->node || strcmp(t.node_id, c->node) == 0);
    c->n += counts;
    return true;
}

static size_t count(const struct manager *m, enum task_state desired, enum task_state state,
                    const char *node) {
    struct count c = {.manager = m, .state = state, .desired = desired, .node = node};
    row_all(m->store, ROW_TASK, count_one, &c);
    return c.n;
}

static bool has_come(void *ctx) {
    struct count *c = ctx;
    return count(c->manager, c->desired, c->state, c->node) == c->want;
}

static void await(const struct manager *m, size_t want, enum task_state desired,
                  enum task_state state, const char *node) {
    struct count c = {.manager = m, .state = state, .desired = desired, .node = node, .want = want};
    loners_until(&all, has_come, &c);
}

static bool is_quiet(void *ctx) { /* nothing is under way, and nothing is left to do */
    struct manager *m = ctx;
    return m->state == MANAGER_RUNNING && scheduler_idle(m);
}

/* --- reports ---------------------------------------------------------------------------------- */

struct reports {
    struct call call;
    struct buf bytes;
    size_t n, most;
};

static bool report_one(void *ctx, const struct row *row) {
    struct reports *r = ctx;
    struct task_row t;
    struct task_report report = {.pid = 7};
    assert_int_equal(task_decode(row->body, &t), OK);
    if (t.state > TASK_RUNNING || !t.node_id[0]) return true;
    memcpy(report.id, row->id, sizeof report.id);
    report.state = t.desired == TASK_RUNNING ? TASK_RUNNING : TASK_SHUTDOWN;
    (void)snprintf(report.message, sizeof report.message, "as told");
    assert_int_equal(report_add(&r->bytes, &report), OK);
    return ++r->n < r->most;
}

static void on_reported(struct call *c, enum err e, struct span answer) {
    struct why why;
    (void)c;
    loners_done(&all, e, manager_text(e, answer, &why));
}

static void send_reports(struct manager *m, struct reports *r) {
    all.done = false;
    r->call = (struct call){.request = buf_span(&r->bytes), .done = on_reported, .ctx = r};
    assert_int_equal(replica_call(m->replica, &r->call), OK);
    expect_answer(OK, NULL, OK, "");
    buf_free(&r->bytes);
}

static struct reports reports_new(void) {
    struct reports r = {.bytes = buf_new(COMMAND_MAX), .most = 4000};
    assert_int_equal(buf_u8(&r.bytes, TASKS_CALL), OK);
    return r;
}

/* All nodes have done what they were told. */
static void report_all(struct manager *m) {
    struct reports r = reports_new();
    row_all(m->store, ROW_TASK, report_one, &r);
    send_reports(m, &r);
}

/* --- operators -------------------------------------------------------------------------------- */

static struct service_row *row_of(const struct manager *m, const char *text, struct row *row) {
    struct service_row *s = calloc(1, sizeof *s);
    struct why why = {0};
    if (service_find(m->store, text, row, s, &why) != OK) fail_msg("%s", why.text);
    return s;
}

static uint64_t spec_version_of(const struct manager *m) {
    struct row row;
    struct service_row *s = row_of(m, made_id, &row);
    uint64_t version = s->spec_version;
    free(s);
    return version;
}

static void a_service_is_found_by_id_name_and_beginning(void **state) {
    (void)state;
    struct manager *m = start(0);
    struct row row;
    struct why why = {0};
    char part[9] = "";
    create(m, spec_of("web", "b", 1, 0), OK, "");
    memcpy(part, made_id, sizeof part - 1);
    free(row_of(m, made_id, &row));
    free(row_of(m, "web", &row));
    free(row_of(m, part, &row));
    assert_string_equal(row.id, made_id);
    struct service_row *s = malloc(sizeof *s);
    assert_int_equal(service_find(m->store, "db", &row, s, &why), ERR_NOT_FOUND);
    assert_string_equal(why.text, "service db not found");
    free(s);
    loners_end(&all);
}

static void what_is_refused_says_why(void **state) {
    (void)state;
    struct manager *m = start(0);
    struct row row;
    create(m, spec_of("web", "b", 1, 0), OK, "");
    assert_true(row_get(m->store, ROW_SERVICE, made_id, &row));
    char id[NODE_ID_SIZE + 1];
    memcpy(id, made_id, sizeof id);
    create(m, spec_of("web", "b", 1, 0), ERR_EXISTS,
           "name conflicts with an existing object: service web already exists");
    memcpy(made_id, id, sizeof id);
    update(m, row.version + 1, spec_of("web", "b", 2, 0), ERR_CONFLICT, "update out of sequence");
    update(m, row.version, spec_of("other", "b", 2, 0), ERR_UNSUPPORTED,
           "renaming services is not supported");
    update(m, row.version,
           "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"host\",\"Args\":["
           "\"a\"]}},\"Mode\":{\"Global\":{}}}",
           ERR_UNSUPPORTED, "service mode change is not allowed");
    remove_service(m, "nothing", ERR_NOT_FOUND, "service nothing not found");
    remove_service(m, id, OK, "");
    remove_service(m, id, ERR_NOT_FOUND, "not found");
    loners_end(&all);
}

/* Two at once: the log says who was first. */
static void of_two_who_create_one_name_one_is_refused(void **state) {
    (void)state;
    struct manager *m = start(0);
    struct why why = {0};
    struct asked *a = read_spec(m, spec_of("web", "b", 1, 0));
    assert_int_equal(services_create(m, a->name, &a->row, &tester, on_service, &all, &why), OK);
    assert_int_equal(services_create(m, a->name, &a->row, &tester, on_service, &all, &why), OK);
    loners_wait(&all);
    enum err first = all.error;
    if (row_count(m->store, ROW_SERVICE) == 1 && first == OK) {
        all.done = false;
        loners_wait(&all);
    }
    assert_int_equal(all.error, ERR_EXISTS);
    assert_non_null(strstr(all.text, "service web already exists"));
    asked_free(a);
    loners_end(&all);
}

static void only_what_a_task_is_made_of_makes_them_anew(void **state) {
    (void)state;
    struct manager *m = start(0);
    struct row row;
    create(m, spec_of("web", "b", 1, 0), OK, "");
    uint64_t first = spec_version_of(m);
    update(m, 0, spec_of("web", "b", 5, 0), OK, "");
    assert_int_equal(spec_version_of(m), first);
    update(m, 0, spec_of("web", "c", 5, 0), OK, "");
    uint64_t second = spec_version_of(m);
    assert_true(second > first);
    update(m, 0, spec_of("web", "c", 5, 1), OK, "");
    assert_true(spec_version_of(m) > second);
    struct service_row *s = row_of(m, "web", &row);
    assert_true(memmem(s->spec_json.at, s->spec_json.size, "\"ForceUpdate\":1", 15) != NULL);
    assert_true(memmem(s->previous_json.at, s->previous_json.size, "\"ForceUpdate\":0", 15) !=
                NULL);
    free(s);
    loners_end(&all);
}

static bool find_record(void *ctx, const struct row *row) {
    struct audit_link link;
    unsigned *seen = ctx;
    assert_int_equal(audit_read(row, &link), OK);
    if (link.is.kind != ROW_SERVICE) return true;
    assert_true(span_equal(link.is.name, span_str("web")));
    assert_true(span_equal(link.is.who, span_str("operator")));
    assert_true(span_equal(link.is.from, span_str("socket")));
    assert_string_equal(link.is.id, made_id);
    *seen = *seen * 10 + link.is.what;
    return true;
}

static void each_change_is_in_the_audit(void **state) {
    (void)state;
    struct manager *m = start(0);
    unsigned seen = 0;
    create(m, spec_of("web", "b", 1, 0), OK, "");
    update(m, 0, spec_of("web", "c", 1, 0), OK, "");
    remove_service(m, made_id, OK, "");
    audit_each(m->store, 0, find_record, &seen);
    assert_int_equal(seen, AUDIT_CREATE * 100 + AUDIT_UPDATE * 10 + AUDIT_REMOVE);
    loners_end(&all);
}

/* --- the leader ------------------------------------------------------------------------------- */

static void tasks_are_placed_run_and_go_with_their_service(void **state) {
    (void)state;
    struct manager *m = start(3);
    create(m, spec_of("web", "b", 6, 0), OK, "");
    await(m, 6, TASK_RUNNING, TASK_ASSIGNED, NULL);
    assert_int_equal(count(m, 0, 0, "node001"), 2);
    report_all(m);
    assert_int_equal(count(m, TASK_RUNNING, TASK_RUNNING, NULL), 6);
    update(m, 0, spec_of("web", "b", 3, 0), OK, "");
    await(m, 3, TASK_REMOVE, 0, NULL);
    report_all(m);
    await(m, 3, 0, 0, NULL);
    assert_int_equal(count(m, TASK_RUNNING, TASK_RUNNING, "node001"), 1);
    remove_service(m, made_id, OK, "");
    await(m, 3, TASK_REMOVE, 0, NULL);
    report_all(m);
    await(m, 0, 0, 0, NULL);
    loners_end(&all);
}

static void an_update_goes_through_all_tasks(void **state) {
    (void)state;
    struct manager *m = start(2);
    create(m, spec_of("web", "b", 3, 0), OK, "");
    await(m, 3, TASK_RUNNING, TASK_ASSIGNED, NULL);
    report_all(m);
    update(m, 0, spec_of("web", "c", 3, 0), OK, "");
    for (unsigned i = 1; i <= 3; i++) {
        await(m, i, TASK_SHUTDOWN, 0, NULL);
        report_all(m); /* it has stopped */
        await(m, 1, TASK_RUNNING, TASK_ASSIGNED, NULL);
        assert_int_equal(count(m, TASK_RUNNING, TASK_RUNNING, NULL), 2);
        report_all(m); /* its successor runs */
    }
    loners_until(&all, is_quiet, m);
    assert_int_equal(count(m, TASK_RUNNING, TASK_RUNNING, NULL), 3);
    assert_int_equal(count(m, TASK_SHUTDOWN, TASK_SHUTDOWN, NULL), 3);
    loners_end(&all);
}

static void nodes_that_change_move_tasks(void **state) {
    (void)state;
    struct manager *m = start(3);
    struct rows_write w = {.changes = buf_new(COMMAND_MAX)};
    create(m, spec_of("web", "b", 6, 0), OK, "");
    await(m, 6, TASK_RUNNING, TASK_ASSIGNED, NULL);
    report_all(m);
    put_node(&w, m, 0, NODE_DOWN, NODE_ACTIVE);
    write_rows(m, &w);
    await(m, 2, TASK_SHUTDOWN, TASK_RUNNING, "node000");
    await(m, 2, TASK_RUNNING, TASK_ASSIGNED, NULL);
    report_all(m);
    put_node(&w, m, 1, NODE_READY, NODE_DRAIN);
    write_rows(m, &w);
    await(m, 6, TASK_RUNNING, 0, "node002");
    struct row_change c = {.action = ROW_REMOVE, .kind = ROW_NODE, .id = "node000"};
    assert_int_equal(row_change_add(&w.changes, &c), OK);
    w.n = 1;
    write_rows(m, &w);
    await(m, 0, TASK_RUNNING, 0, "node000");
    loners_until(&all, is_quiet, m);
    assert_int_equal(count(m, TASK_SHUTDOWN, TASK_RUNNING, "node000"), 0);
    buf_free(&w.changes);
    loners_end(&all);
}

/* A task waits until a node comes that meets the constraint. */
static void a_waiting_task_gets_the_node_that_comes(void **state) {
    (void)state;
    struct manager *m = start(0);
    struct rows_write w = {.changes = buf_new(COMMAND_MAX)};
    create(m,
           "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"host\",\"Args\":["
           "\"a\"]},\"Placement\":{\"Constraints\":[\"node.hostname==host-5\"]}}}",
           OK, "");
    await(m, 1, TASK_RUNNING, TASK_PENDING, NULL);
    put_node(&w, m, 4, NODE_READY, NODE_ACTIVE);
    write_rows(m, &w);
    loners_until(&all, is_quiet, m);
    assert_int_equal(count(m, 0, TASK_PENDING, NULL), 1);
    put_node(&w, m, 5, NODE_READY, NODE_ACTIVE);
    write_rows(m, &w);
    await(m, 1, TASK_RUNNING, TASK_ASSIGNED, "node005");
    buf_free(&w.changes);
    loners_end(&all);
}

static void get_task(const struct manager *m, const char *id, struct task_row *out) {
    struct row row;
    assert_true(row_get(m->store, ROW_TASK, id, &row));
    assert_int_equal(task_decode(row.body, out), OK);
}

static bool first_id(void *ctx, const struct row *row) {
    (void)snprintf(ctx, NODE_ID_SIZE + 1, "%s", row->id);
    return false;
}

static void report(struct manager *m, const char *id, enum task_state s, const char *error) {
    struct reports r = reports_new();
    struct task_report one = {.state = s, .exit_code = 3};
    (void)snprintf(one.id, sizeof one.id, "%s", id);
    (void)snprintf(one.error, sizeof one.error, "%s", error);
    assert_int_equal(report_add(&r.bytes, &one), OK);
    send_reports(m, &r);
}

static void a_report_never_takes_a_task_back(void **state) {
    (void)state;
    struct manager *m = start(1);
    struct task_row t;
    char id[NODE_ID_SIZE + 1];
    create(m, spec_of("web", "b", 1, 0), OK, "");
    await(m, 1, TASK_RUNNING, TASK_ASSIGNED, NULL);
    row_all(m->store, ROW_TASK, first_id, id);
    report(m, "aaaaaaaaaaaaaaaaaaaaaaaaa", TASK_RUNNING, "");
    report(m, id, TASK_RUNNING, "");
    get_task(m, id, &t);
    assert_int_equal(t.state, TASK_RUNNING);
    report(m, id, TASK_STARTING, "back");
    get_task(m, id, &t);
    assert_int_equal(t.state, TASK_RUNNING);
    assert_string_equal(t.error, "");
    report(m, id, TASK_FAILED, "task: non-zero exit (3)");
    get_task(m, id, &t);
    assert_int_equal(t.state, TASK_FAILED);
    assert_int_equal(t.exit_code, 3);
    report(m, id, TASK_RUNNING, "again");
    report(m, id, TASK_REJECTED, "again");
    get_task(m, id, &t);
    assert_int_equal(t.state, TASK_FAILED);
    assert_string_equal(t.error, "task: non-zero exit (3)");
    await(m, 1, TASK_RUNNING, TASK_ASSIGNED, NULL); /* another one */
    loners_end(&all);
}

static void a_task_that_its_node_has_lost_is_made_anew(void **state) {
    (void)state;
    struct manager *m = start(1);
    struct task_row t;
    char id[NODE_ID_SIZE + 1];
    create(m, spec_of("web", "b", 1, 0), OK, "");
    await(m, 1, TASK_RUNNING, TASK_ASSIGNED, NULL);
    row_all(m->store, ROW_TASK, first_id, id);
    report(m, id, TASK_REMOVE, "");
    get_task(m, id, &t);
    assert_int_equal(t.state, TASK_FAILED);
    await(m, 1, TASK_RUNNING, TASK_ASSIGNED, NULL);
    loners_end(&all);
}

/* Twice the same task, and more tasks than one command takes. */
static void many_reports_at_once_are_all_taken(void **state) {
    (void)state;
    struct manager *m = start(4);
    create(m, spec_of("web", "b", 1500, 0), OK, "");
    await(m, 1500, TASK_RUNNING, TASK_ASSIGNED, NULL);
    struct reports r = reports_new();
    row_all(m->store, ROW_TASK, report_one, &r);
    row_all(m->store, ROW_TASK, report_one, &r);
    send_reports(m, &r);
    assert_int_equal(count(m, TASK_RUNNING, TASK_RUNNING, NULL), 1500);
    loners_end(&all);
}

static void rubbish_in_a_report_does_no_harm(void **state) {
    (void)state;
    struct manager *m = start(1);
    struct reports r = reports_new();
    assert_int_equal(buf_add(&r.bytes, "\xff\xff\xff\xff\xff", 5), OK);
    send_reports(m, &r);
    create(m, spec_of("web", "b", 1, 0), OK, "");
    await(m, 1, TASK_RUNNING, TASK_ASSIGNED, NULL);
    loners_end(&all);
}

/* --- another leader --------------------------------------------------------------------------- */

static struct manager *other_than(const struct manager *m) {
    for (unsigned i = 0; i < all.n; i++)
        if (all.at[i].manager && all.at[i].manager != m) return all.at[i].manager;
    return NULL;
}

static bool all_vote(void *ctx) {
    struct replica_status status;
    unsigned voters = 0;
    replica_status(((struct manager *)ctx)->replica, &status);
    for (unsigned i = 0; i < status.n; i++)
        voters += status.members[i].role == REPLICA_VOTER;
    return voters == LONERS_MAX;
}

static void another_leader_goes_on_where_the_first_one_was(void **state) {
    (void)state;
    loners_start(&all, false);
    (void)loners_join(&all, NODE_MANAGER);
    (void)loners_join(&all, NODE_MANAGER);
    struct loner *first = loners_leader(&all);
    loners_until(&all, all_vote, first->manager);
    prepare(first->manager, 3);
    create(other_than(first->manager), spec_of("web", "b", 6, 0), OK, ""); /* on any manager */
    struct manager *other = other_than(first->manager);
    await(other, 6, TASK_RUNNING, TASK_ASSIGNED, NULL);
    report_all(other); /* who calls the leader */
    loner_stop(first);
    struct manager *m = loners_leader(&all)->manager;
    update(m, 0, spec_of("web", "b", 8, 0), OK, "");
    await(m, 2, TASK_RUNNING, TASK_ASSIGNED, NULL);
    loners_until(&all, is_quiet, m);
    assert_int_equal(count(m, 0, 0, NULL), 8); /* nothing was made twice */
    await(other_than(m), 8, 0, 0, NULL);
    report_all(other_than(m));
    loners_until(&all, is_quiet, m);
    assert_int_equal(count(m, TASK_RUNNING, TASK_RUNNING, NULL), 8);
    loners_end(&all);
}

/* --- many ------------------------------------------------------------------------------------- */

#define SERVICES 1000
#define NODES    200
#ifdef __SANITIZE_ADDRESS__
#define SLOWER 10
#else
#define SLOWER 1
#endif

static double cpu_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_services(struct manager *m, unsigned n, unsigned replicas) {
    struct rows_write w = {.changes = buf_new(COMMAND_MAX)};
    struct asked *a = read_spec(m, spec_of("web", "b", replicas, 0));
    struct buf body = buf_new(ROW_BODY_MAX);
    assert_int_equal(service_encode(&a->row, &body), OK);
    for (unsigned i = 0; i < n; i++) {
        char name[32];
        struct row_change c = {.action = ROW_CREATE, .kind = ROW_SERVICE, .body = buf_span(&body)};
        (void)snprintf(name, sizeof name, "service%04u", i);
        (void)snprintf(c.id, sizeof c.id, "s%04u", i);
        c.name = span_str(name);
        assert_int_equal(row_change_add(&w.changes, &c), OK);
        w.n++;
    }
    write_rows(m, &w);
    buf_free(&w.changes);
    buf_free(&body);
    asked_free(a);
}

/* The first one fills a command to its last change, with the check of its row. */
static void what_does_not_fit_into_a_command_has_its_turn(void **state) {
    (void)state;
    struct manager *m = start(2);
    make_services(m, 3, ROWS_CHANGE_MAX - 1);
    await(m, 3 * (ROWS_CHANGE_MAX - 1), TASK_RUNNING, TASK_ASSIGNED, NULL);
    loners_until(&all, is_quiet, m);
    assert_int_equal(count(m, 0, 0, NULL), 3 * (ROWS_CHANGE_MAX - 1));
    loners_end(&all);
}

static void a_thousand_services_take_less_than_a_second(void **state) {
    (void)state;
    struct manager *m = start(NODES);
    double begun = cpu_s();
    make_services(m, SERVICES, 3);
    await(m, 3 * SERVICES, TASK_RUNNING, TASK_ASSIGNED, NULL);
    loners_until(&all, is_quiet, m);
    double placed = cpu_s();
    assert_int_equal(count(m, 0, 0, NULL), 3 * SERVICES);
    for (unsigned i = 0; i < NODES; i++) {
        char id[NODE_ID_SIZE + 1];
        (void)snprintf(id, sizeof id, "node%03u", i);
        assert_int_equal(count(m, 0, 0, id), 3 * SERVICES / NODES);
    }
    print_message("%d tasks placed in %.3f s of CPU\n", 3 * SERVICES, placed - begun);
    assert_true(placed - begun < 1.0 * SLOWER);
    report_all(m);
    loners_until(&all, is_quiet, m);
    begun = cpu_s();
    (void)snprintf(made_id, sizeof made_id, "s0500");
    update(m, 0, spec_of("service0500", "b", 5, 0), OK, "");
    await(m, 2, TASK_RUNNING, TASK_ASSIGNED, NULL);
    print_message("one service changed in %.4f s of CPU\n", cpu_s() - begun);
    assert_true(cpu_s() - begun < 0.1 * SLOWER); /* of which counting all tasks is the most */
    loners_end(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_service_is_found_by_id_name_and_beginning),
        cmocka_unit_test(what_is_refused_says_why),
        cmocka_unit_test(of_two_who_create_one_name_one_is_refused),
        cmocka_unit_test(only_what_a_task_is_made_of_makes_them_anew),
        cmocka_unit_test(each_change_is_in_the_audit),
        cmocka_unit_test(tasks_are_placed_run_and_go_with_their_service),
        cmocka_unit_test(an_update_goes_through_all_tasks),
        cmocka_unit_test(nodes_that_change_move_tasks),
        cmocka_unit_test(a_waiting_task_gets_the_node_that_comes),
        cmocka_unit_test(a_report_never_takes_a_task_back),
        cmocka_unit_test(a_task_that_its_node_has_lost_is_made_anew),
        cmocka_unit_test(many_reports_at_once_are_all_taken),
        cmocka_unit_test(rubbish_in_a_report_does_no_harm),
        cmocka_unit_test(another_leader_goes_on_where_the_first_one_was),
        cmocka_unit_test(what_does_not_fit_into_a_command_has_its_turn),
        cmocka_unit_test(a_thousand_services_take_less_than_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
