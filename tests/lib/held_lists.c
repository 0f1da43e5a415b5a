/* The implementation of held_lists.h: each row is encoded by its kind's module, and appended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/held_lists.h"

/* Takes the body. */
static void add(struct row_list *l, enum row_action action, enum row_kind kind, const char *id,
                const char *name, enum err encoded, struct buf *body) {
    struct row_change c = {.action = action, .kind = kind, .name = span_str(name)};
    assert_int_equal(encoded, OK);
    (void)snprintf(c.id, sizeof c.id, "%s", id);
    c.body = buf_span(body);
    assert_int_equal(row_change_add(&l->changes, &c), OK);
    l->n++;
    buf_free(body);
}

void list_held(struct row_list *l, enum row_action action, enum row_kind kind, const char *id,
               const char *name, const struct held_row *h) {
    struct buf body = buf_new(ROW_BODY_MAX);
    add(l, action, kind, id, name, held_encode(h, &body), &body);
}

void list_value(struct row_list *l, enum row_action action, const char *id,
                const struct value_row *v) {
    struct buf body = buf_new(ROW_BODY_MAX);
    add(l, action, ROW_VALUE, id, "", value_encode(v, &body), &body);
}

void list_service(struct row_list *l, enum row_action action, const char *id, const char *name,
                  const struct service_row *s) {
    struct buf body = buf_new(ROW_BODY_MAX);
    add(l, action, ROW_SERVICE, id, name, service_encode(s, &body), &body);
}

void list_task(struct row_list *l, enum row_action action, const char *id,
               const struct task_row *t) {
    struct buf body = buf_new(ROW_BODY_MAX);
    add(l, action, ROW_TASK, id, "", task_encode(t, &body), &body);
}

void list_vault(struct row_list *l, enum row_action action, const char *id,
                const struct vault_row *v) {
    struct buf body = buf_new(ROW_BODY_MAX);
    add(l, action, ROW_VAULT, id, "", vault_row_encode(v, &body), &body);
}

void list_audit(struct row_list *l, enum audit_what what, const char *detail) {
    struct audit_record a = {.what = what, .kind = ROW_SECRET, .id = "s"};
    a.who = span_str("operator");
    a.detail = span_str(detail);
    assert_int_equal(audit_add(&l->changes, &a), OK);
    l->n++;
}

struct held_row some_held(const char *id, unsigned n) {
    struct held_row h = {.next_version = n + 1, .n = n};
    for (unsigned i = 0; i < n; i++) {
        h.versions[i] = (struct held_version){.number = i + 1, .size = SOME_SIZE};
        (void)snprintf(h.versions[i].value_id, sizeof h.versions[i].value_id, "%.14s-%u", id,
                       i + 1);
    }
    return h;
}

struct value_row some_value(enum row_kind of, const char *id, uint32_t version, uint32_t epoch) {
    static const uint8_t sealed[SOME_SIZE + SEALED_OVERHEAD] = {1, 2, 3};
    struct value_row v = {.of = of, .version = version, .epoch = epoch};
    (void)snprintf(v.held_id, sizeof v.held_id, "%s", id);
    memset(v.wrapped, (int)epoch, sizeof v.wrapped);
    v.sealed = span_of(sealed, sizeof sealed);
    return v;
}

struct service_ref some_ref(enum row_kind kind, const char *id, const char *name,
                            const char *target, uint32_t version) {
    struct service_ref r = {.kind = kind, .mode = 0444, .version = version};
    (void)snprintf(r.id, sizeof r.id, "%s", id);
    (void)snprintf(r.name, sizeof r.name, "%s", name);
    (void)snprintf(r.target, sizeof r.target, "%s", target);
    return r;
}

struct service_row some_service(const char *id, const char *name, uint32_t version) {
    struct service_row s = {.spec_version = 1,
                            .image = "host",
                            .mode = SERVICE_REPLICATED,
                            .replicas = 1,
                            .restart = RESTART_ANY};
    s.spec_json = span_str("{}");
    if (id != NULL && name != NULL) s.refs[s.n++] = some_ref(ROW_SECRET, id, name, name, version);
    return s;
}

struct task_row some_task(const char *service_id, const char *node_id, enum task_state state) {
    struct task_row t = {.slot = 1, .desired = TASK_RUNNING, .state = state, .spec_version = 1};
    (void)snprintf(t.service_id, sizeof t.service_id, "%s", service_id);
    (void)snprintf(t.node_id, sizeof t.node_id, "%s", node_id);
    return t;
}

struct vault_row some_vault(uint32_t epoch) {
    struct vault_row v = {.current = epoch, .oldest = epoch, .n = 1, .holders = {"id-1"}};
    memset(v.key_ids[0], (int)epoch, sizeof v.key_ids[0]);
    return v;
}

void list_secret(struct row_list *l, const char *id, unsigned n) {
    struct held_row h = some_held(id, n);
    list_held(l, ROW_CREATE, ROW_SECRET, id, id, &h);
    for (unsigned i = 0; i < n; i++) {
        struct value_row v = some_value(ROW_SECRET, id, i + 1, 1);
        list_value(l, ROW_CREATE, h.versions[i].value_id, &v);
    }
}

struct store *store_with_vault(void) {
    struct store *s = store_for_test();
    struct row_list l = row_list();
    struct vault_row v = some_vault(1);
    assert_int_equal(make_cluster(s).error, OK);
    list_vault(&l, ROW_CREATE, "cluster", &v);
    assert_int_equal(list_apply(s, &l).error, OK);
    return s;
}

/* --- at random --- */

static unsigned below(uint64_t *seed, unsigned n) { return (unsigned)(random_next(seed) % n); }

static enum row_action put_action(uint64_t *seed) {
    return below(seed, 2) == 0 ? ROW_CREATE : ROW_REPLACE;
}

static void random_vault(uint64_t *seed, struct row_list *l) {
    uint32_t epoch = below(seed, 4);
    struct vault_row v = {.n = 0};
    if (epoch != 0) v = some_vault(epoch);
    if (below(seed, 2) == 0) v.oldest -= below(seed, epoch + 1);
    if (epoch == 0 || below(seed, 2) == 0) {
        v.next = epoch + 1;
        memset(v.key_ids[1], (int)v.next, sizeof v.key_ids[1]);
    }
    list_vault(l, put_action(seed), "cluster", &v);
}

/* The values of versions from..upto, all with one action. */
static void each_value(struct row_list *l, enum row_action action, const char *id, unsigned from,
                       unsigned upto, uint32_t epoch) {
    for (unsigned i = from; i <= upto; i++) {
        struct value_row v = some_value(ROW_SECRET, id, i, epoch);
        char value[NODE_ID_SIZE + 1];
        (void)snprintf(value, sizeof value, "%.14s-%u", id, i);
        if (action == ROW_REMOVE)
            list_plain(l, ROW_REMOVE, ROW_VALUE, value, 0);
        else
            list_value(l, action, value, &v);
    }
}

static void random_secret(uint64_t *seed, struct row_list *l) {
    char id[8];
    unsigned n = 1 + below(seed, 3);
    uint32_t epoch = 1 + below(seed, 4);
    (void)snprintf(id, sizeof id, "s%u", below(seed, 6));
    struct held_row h = some_held(id, n);
    switch (below(seed, 4)) {
    case 0:
        list_held(l, ROW_CREATE, ROW_SECRET, id, id, &h);
        each_value(l, ROW_CREATE, id, 1, n, epoch);
        break;
    case 1:
        list_held(l, ROW_REPLACE, ROW_SECRET, id, id, &h);
        each_value(l, ROW_CREATE, id, n, n, epoch);
        break;
    case 2: each_value(l, ROW_REPLACE, id, n, n, epoch); break;
    default: list_plain(l, ROW_REMOVE, ROW_SECRET, id, 0); each_value(l, ROW_REMOVE, id, 1, n, 0);
    }
}

static void random_service(uint64_t *seed, struct row_list *l) {
    char id[8], name[8];
    struct service_row service = some_service(NULL, NULL, 0);
    (void)snprintf(id, sizeof id, "v%u", below(seed, 5));
    for (unsigned n = below(seed, 3); service.n < n;) {
        char target[8];
        (void)snprintf(name, sizeof name, "s%u", below(seed, 6));
        (void)snprintf(target, sizeof target, "f%u", service.n);
        service.refs[service.n++] = some_ref(ROW_SECRET, name, name, target, below(seed, 3));
    }
    if (below(seed, 4) == 0)
        list_plain(l, ROW_REMOVE, ROW_SERVICE, id, 0);
    else
        list_service(l, put_action(seed), id, id, &service);
}

static void random_task(uint64_t *seed, struct row_list *l) {
    static const enum task_state states[] = {TASK_NEW, TASK_ASSIGNED, TASK_RUNNING, TASK_FAILED};
    char id[8], service[8], node[16] = "";
    enum task_state task_state = states[below(seed, ARRAY_SIZE(states))];
    (void)snprintf(id, sizeof id, "t%u", below(seed, 30));
    (void)snprintf(service, sizeof service, "v%u", below(seed, 5));
    if (task_state != TASK_NEW) (void)snprintf(node, sizeof node, "id-%u", below(seed, 90));
    struct task_row t = some_task(service, node, task_state);
    if (below(seed, 4) == 0)
        list_plain(l, ROW_REMOVE, ROW_TASK, id, 0);
    else
        list_task(l, put_action(seed), id, &t);
}

void random_held(uint64_t *seed, struct row_list *l) {
    switch (below(seed, 8)) {
    case 0: random_vault(seed, l); break;
    case 1:
    case 2:
    case 3: random_secret(seed, l); break;
    case 4: random_service(seed, l); break;
    case 5: list_audit(l, AUDIT_UPDATE, "at random"); break;
    default: random_task(seed, l);
    }
}
