/* /tasks: lists and one. A list of one service or one node is walked by their marks, so that a
 * client that waits for a service to converge costs that service's tasks each time. Templates are
 * read out of a service's spec once for all of its tasks that follow one another. */
#include "api/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "api/service/services.h"

/* The service that was looked at last, and its template as JSON. */
struct template {
    struct service_row *service; /* room for it */
    char id[NODE_ID_SIZE + 1];   /* whose; "" nobody's */
    bool there;                  /* it is in the state */
    uint64_t version;            /* of the spec that `json` is of */
    char *json;                  /* NULL: not made yet */
};

struct listing {
    const struct store *store;
    struct filters filters; /* "service" and "node" by name are looked up: the ids below */
    json_t *services, *nodes;
    struct template template;
    struct jout j;
    struct buf out;
    enum err failed;
};

static void template_free(struct template *t) {
    free(t->service);
    free(t->json);
}

/* Puts the task's service into the template's place. */
static void look_at_service(struct template *t, const struct store *s, const char *id) {
    struct row row;
    if (strcmp(t->id, id) == 0) return;
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    free(t->json);
    t->json = NULL;
    t->there = row_get(s, ROW_SERVICE, id, &row) && service_decode(row.body, t->service) == OK;
}

static const char *template_of(struct template *t, const struct task_row *task) {
    if (t->json && t->version == task->spec_version) return t->json;
    free(t->json);
    t->version = task->spec_version;
    t->json = engine_template(t->there ? t->service : NULL, task->spec_version);
    return t->json;
}

static RESULT put(struct jout *j, const struct store *s, const struct row *row,
                  const struct task_row *task, struct template *t) {
    char name[ENGINE_TASK_NAME] = "";
    look_at_service(t, s, task->service_id);
    task_name(s, row, task, name, sizeof name);
    const struct engine_task shown = {
        .row = row, .task = task, .name = name, .spec = template_of(t, task)};
    if (!shown.spec) return ERR_NOMEM;
    engine_put_task(j, &shown);
    return OK;
}

/* --- filters ---------------------------------------------------------------------------------- */

static bool is_state(void *ctx, const char *value) {
    static const char *const all[] = {"new",    "pending",  "assigned", "accepted", "preparing",
                                      "ready",  "starting", "running",  "complete", "shutdown",
                                      "failed", "rejected", "remove",   "orphaned", ""};
    const char **bad = ctx;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (strcasecmp(value, all[i]) == 0) return true;
    *bad = value;
    return false;
}

static RESULT parse_filters(const struct exchange *x, struct filters *out, struct why *why) {
    static const char *const keys[] = {"name",          "id",          "label",   "service", "node",
                                       "desired-state", "_up-to-date", "runtime", NULL};
    const char *bad = "";
    TRY(filters_parse(x->head.query, out, why));
    enum err e = filters_accept(out, keys, why);
    if (e == OK && !filters_walk(out, "desired-state", is_state, &bad))
        e = fail_with(why, ERR_INVALID, "Invalid desired-state filter: '%.64s'", bad);
    if (e != OK) filters_free(out);
    return e;
}

struct resolving {
    const struct store *store;
    json_t *ids; /* of what was found */
    enum err e;
    struct why *why;
};

static bool add_id(struct resolving *r, const char *id) {
    if (r->e == OK && json_object_set_new(r->ids, id, json_true()) != 0) r->e = ERR_NOMEM;
    return r->e == OK;
}

static bool resolve_service(void *ctx, const char *text) {
    struct resolving *r = ctx;
    struct row row;
    r->e = engine_find_row(r->store, ROW_SERVICE, "service", text, &row, r->why);
    return add_id(r, row.id);
}

static bool resolve_node(void *ctx, const char *text) {
    struct resolving *r = ctx;
    struct row row;
    struct node_row node;
    r->e = engine_find_node(r->store, text, &row, &node, r->why);
    return add_id(r, row.id);
}

/* What the filters name becomes ids; whoever is not there is said. */
static RESULT resolve(struct listing *l, struct why *why) {
    struct resolving r = {.store = l->store, .why = why};
    l->services = json_object();
    l->nodes = json_object();
    if (!l->services || !l->nodes) return ERR_NOMEM;
    r.ids = l->services;
    if (!filters_walk(&l->filters, "service", resolve_service, &r)) return r.e;
    r.ids = l->nodes;
    if (!filters_walk(&l->filters, "node", resolve_node, &r)) return r.e;
    return OK;
}

static bool is_among(const struct listing *l, const json_t *ids, const char *key, const char *id) {
    return !filters_has(&l->filters, key) || json_object_get(ids, id) != NULL;
}

static bool is_other_word(void *ctx, const char *value) { return strcasecmp(value, ctx) != 0; }

static bool is_no(void *ctx, const char *value) {
    (void)ctx;
    return strcmp(value, "true") != 0 && strcmp(value, "1") != 0;
}

static bool find_label(void *ctx, struct span key, struct span *value) {
    const struct template *t = ctx;
    return t->there && labels_find(t->service->labels, key, value);
}

/* A task is found by its service's labels, as with Swarm. */
static bool is_wanted(struct listing *l, const struct row *row, const struct task_row *task) {
    const struct filters *f = &l->filters;
    char name[ENGINE_TASK_NAME] = "", *state = (char *)(uintptr_t)task_state_name(task->desired);
    if (!filters_prefix(f, "id", row->id) || !is_among(l, l->nodes, "node", task->node_id) ||
        !is_among(l, l->services, "service", task->service_id) ||
        !filters_exact(f, "runtime", "container"))
        return false;
    if (filters_has(f, "desired-state") && filters_walk(f, "desired-state", is_other_word, state))
        return false;
    look_at_service(&l->template, l->store, task->service_id);
    if (filters_has(f, "_up-to-date") && !filters_walk(f, "_up-to-date", is_no, NULL) &&
        !(l->template.there && l->template.service->spec_version == task->spec_version))
        return false;
    if (filters_has(f, "name")) task_name(l->store, row, task, name, sizeof name);
    return filters_prefix(f, "name", name) && filters_labels(f, "label", find_label, &l->template);
}

/* --- lists ------------------------------------------------------------------------------------ */

static bool list_task(void *ctx, const struct row *row) {
    struct listing *l = ctx;
    struct task_row task;
    if (l->failed != OK) return false;
    if (task_decode(row->body, &task) != OK || !is_wanted(l, row, &task)) return true;
    l->failed = put(&l->j, l->store, row, &task, &l->template);
    return l->failed == OK;
}

static void walk(struct listing *l) {
    const char *id;
    json_t *value;
    if (filters_has(&l->filters, "service")) {
        json_object_foreach(l->services, id, value) {
            (void)value;
            task_each_of_service(l->store, id, list_task, l);
        }
    } else if (filters_has(&l->filters, "node")) {
        json_object_foreach(l->nodes, id, value) {
            (void)value;
            task_each_of_node(l->store, id, list_task, l);
        }
    } else {
        row_all(l->store, ROW_TASK, list_task, l);
    }
}

static void list_tasks(struct exchange *x) {
    struct listing l = {.store = engine_manager(x)->store};
    struct why why = {0};
    l.template.service = malloc(sizeof *l.template.service);
    enum err e = l.template.service ? parse_filters(x, &l.filters, &why) : ERR_NOMEM;
    if (e == OK) e = resolve(&l, &why);
    if (e == OK) {
        engine_json_begin(&l.j, &l.out);
        jout_open(&l.j, '[');
        walk(&l);
        jout_close(&l.j, ']');
        e = l.failed;
        if (e != OK) buf_wipe(&l.out);
    }
    if (e == OK)
        engine_json(x, &l.j);
    else
        engine_error(x, e, why.text);
    template_free(&l.template);
    filters_free(&l.filters);
    json_decref(l.services);
    json_decref(l.nodes);
}

void engine_tasks(struct exchange *x) { engine_filtered(x, parse_filters, list_tasks); }

/* --- one -------------------------------------------------------------------------------------- */

struct search {
    const struct store *store;
    const char *text; /* a task's whole name */
    bool found;
    struct row row;
};

static bool has_name(void *ctx, const struct row *row) {
    struct search *s = ctx;
    struct task_row task;
    char name[ENGINE_TASK_NAME] = "";
    if (task_decode(row->body, &task) != OK) return true;
    task_name(s->store, row, &task, name, sizeof name);
    s->found = strcmp(name, s->text) == 0;
    if (s->found) s->row = *row;
    return !s->found;
}

static RESULT find(const struct store *s, const char *text, struct row *row, struct why *why) {
    struct search search = {.store = s, .text = text};
    if (!row_get(s, ROW_TASK, text, row) && strchr(text, '.'))
        row_all(s, ROW_TASK, has_name, &search);
    if (!search.found) return engine_find_row(s, ROW_TASK, "task", text, row, why);
    *row = search.row;
    return OK;
}

static void show_task(struct exchange *x) {
    const struct store *s = engine_manager(x)->store;
    struct template t = {.service = malloc(sizeof *t.service)};
    char id[ENGINE_ID_MAX];
    struct row row;
    struct task_row task;
    struct buf out;
    struct jout j;
    struct why why = {0};
    engine_id(x, id);
    enum err e = t.service ? find(s, id, &row, &why) : ERR_NOMEM;
    if (e == OK) e = task_decode(row.body, &task);
    if (e == OK) {
        engine_json_begin(&j, &out);
        e = put(&j, s, &row, &task, &t);
        if (e != OK) buf_wipe(&out);
    }
    if (e == OK)
        engine_json(x, &j);
    else
        engine_error(x, e, why.text);
    template_free(&t);
}

void engine_task(struct exchange *x) { engine_current(x, show_task); }
