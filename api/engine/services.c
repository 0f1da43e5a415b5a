/* /services: lists, one, create, update, rollback, remove. A spec is read by service_spec
 * (services.h), which the state has to be current for: the secrets and configs that it names must
 * be there. */
#include "api/engine/engine.h"

#include <stdlib.h>

#include "api/service/services.h"

/* --- what is shown ---------------------------------------------------------------------------- */

struct counting {
    const struct service_row *service;
    struct engine_count count;
};

static bool count_task(void *ctx, const struct row *row) {
    struct counting *c = ctx;
    struct task_row task;
    if (task_decode(row->body, &task) == OK)
        engine_count_task(&c->count, c->service, row->id, &task);
    return true;
}

static void put(struct jout *j, const struct store *s, const struct row *row,
                const struct service_row *service, bool status, const char *spec) {
    struct counting c = {.service = service};
    if (status || service->previous_json.size > 0) task_each_of_service(s, row->id, count_task, &c);
    const struct engine_service shown = {
        .row = row, .service = service, .count = c.count, .status = status, .spec = spec};
    engine_put_service(j, &shown);
}

/* --- lists ------------------------------------------------------------------------------------ */

struct listing {
    const struct store *store;
    struct filters filters;
    struct service_row *service; /* the one that is looked at */
    struct jout j;
    struct buf out;
    bool status;
};

static RESULT parse_filters(const struct exchange *x, struct filters *out, struct why *why) {
    static const char *const keys[] = {"name", "id", "label", "mode", "runtime", NULL};
    TRY(filters_parse(x->head.query, out, why));
    enum err e = filters_accept(out, keys, why);
    if (e != OK) filters_free(out);
    return e;
}

static bool find_label(void *ctx, struct span key, struct span *value) {
    const struct service_row *service = ctx;
    return labels_find(service->labels, key, value);
}

static bool is_wanted(const struct filters *f, const struct row *row, struct service_row *s) {
    char name[ROW_NAME_MAX + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)row->name.size, (const char *)row->name.at);
    return filters_prefix(f, "id", row->id) && filters_prefix(f, "name", name) &&
           filters_exact(f, "mode", s->mode == SERVICE_GLOBAL ? "global" : "replicated") &&
           filters_exact(f, "runtime", "container") && filters_labels(f, "label", find_label, s);
}

static bool list_service(void *ctx, const struct row *row) {
    struct listing *l = ctx;
    if (service_decode(row->body, l->service) == OK && is_wanted(&l->filters, row, l->service))
        put(&l->j, l->store, row, l->service, l->status, NULL);
    return true;
}

static void list_services(struct exchange *x) {
    struct listing l = {.store = engine_manager(x)->store, .service = malloc(sizeof *l.service)};
    struct why why = {0};
    enum err e = l.service ? parse_filters(x, &l.filters, &why) : ERR_NOMEM;
    if (e == OK) e = engine_query_bool(x->head.query, "status", &l.status, &why);
    if (e == OK) {
        engine_json_begin(&l.j, &l.out);
        jout_open(&l.j, '[');
        row_all(l.store, ROW_SERVICE, list_service, &l);
        jout_close(&l.j, ']');
        engine_json(x, &l.j);
    } else {
        engine_error(x, e, why.text);
    }
    filters_free(&l.filters);
    free(l.service);
}

void engine_services(struct exchange *x) { engine_filtered(x, parse_filters, list_services); }

/* --- one -------------------------------------------------------------------------------------- */

/* The service that the path names, on the heap, or an answered exchange (NULL). */
static struct service_row *find(struct exchange *x, struct row *row) {
    struct service_row *service = malloc(sizeof *service);
    char id[ENGINE_ID_MAX];
    struct why why = {0};
    engine_id(x, id);
    enum err e =
        !service ? ERR_NOMEM
                 : engine_find_row(engine_manager(x)->store, ROW_SERVICE, "service", id, row, &why);
    if (e == OK) e = service_decode(row->body, service);
    if (e == OK) return service;
    free(service);
    engine_error(x, e, why.text);
    return NULL;
}

static void show_service(struct exchange *x) {
    struct row row;
    struct buf out;
    struct jout j;
    bool defaults;
    struct service_row *service = find(x, &row);
    if (!service) return;
    enum err e = engine_query_bool(x->head.query, "insertDefaults", &defaults, NULL);
    char *spec = e == OK && defaults ? engine_defaults(service) : NULL;
    engine_json_begin(&j, &out);
    put(&j, engine_manager(x)->store, &row, service, false, spec);
    engine_json(x, &j);
    free(spec);
    free(service);
}

void engine_service(struct exchange *x) {
    bool defaults;
    struct why why = {0};
    enum err e = engine_query_bool(x->head.query, "insertDefaults", &defaults, &why);
    if (e == OK)
        engine_current(x, show_service);
    else
        engine_error(x, e, why.text);
}

/* --- made and changed ------------------------------------------------------------------------- */

/* A request that names a spec, and what was read of it, until its proposal is answered. */
struct spec_change {
    struct exchange *x;
    bool update;        /* else it is a new one */
    struct buf memory;  /* what `spec` points to */
    struct buf warning; /* sentences, one a line */
    struct service_row spec;
};

static void change_free(struct spec_change *c) {
    buf_free(&c->memory);
    buf_free(&c->warning);
    free(c);
}

static void put_warnings(struct jout *j, struct span lines) {
    jout_key(j, "Warnings");
    if (lines.size == 0) {
        jout_raw(j, span_str("null"));
        return;
    }
    jout_open(j, '[');
    while (lines.size > 0) {
        const uint8_t *end = memchr(lines.at, '\n', lines.size);
        size_t size = end ? (size_t)(end - lines.at) : lines.size;
        if (size > 0) jout_text(j, span_of(lines.at, size));
        size += end != NULL;
        lines = span_of(lines.at + size, lines.size - size);
    }
    jout_close(j, ']');
}

static void on_done(void *ctx, enum err e, const char *text, const char *id) {
    struct spec_change *c = ctx;
    struct buf out;
    struct jout j;
    if (e == OK) {
        engine_json_begin(&j, &out);
        jout_open(&j, '{');
        if (!c->update) jout_put_text(&j, "ID", id);
        put_warnings(&j, buf_span(&c->warning));
        jout_close(&j, '}');
        engine_json_as(c->x, c->update ? 200 : 201, &j);
    } else {
        engine_rpc_error(c->x, e, text);
    }
    change_free(c);
}

static RESULT read_spec(struct spec_change *c, const json_t *json, struct span *name,
                        struct why *why) {
    return service_spec(engine_manager(c->x), json, &c->memory, &c->spec, name, &c->warning, why);
}

/* An answered exchange when it is NULL. */
static struct spec_change *change_new(struct exchange *x, bool update) {
    struct spec_change *c = calloc(1, sizeof *c);
    if (!c) {
        engine_error(x, ERR_NOMEM, NULL);
        return NULL;
    }
    c->x = x;
    c->update = update;
    c->memory = buf_new(SERVICE_SPEC_MEMORY);
    c->warning = buf_new(SERVICE_WARNINGS);
    return c;
}

static void change_fail(struct spec_change *c, enum err e, const struct why *why) {
    engine_rpc_error(c->x, e, why->text);
    change_free(c);
}

static void create_service(struct exchange *x) {
    struct span name;
    struct actor actor = {0};
    struct why why = {0};
    json_t *json;
    if (!engine_json_body(x, &json)) return;
    struct spec_change *c = change_new(x, false);
    if (c) {
        actor_of(x, &actor);
        enum err e = read_spec(c, json, &name, &why);
        if (e == OK)
            e = services_create(engine_manager(x), name, &c->spec, &actor, on_done, c, &why);
        if (e != OK) change_fail(c, e, &why);
    }
    json_decref(json);
}

/* The body is looked at before anybody is asked. */
static void with_body(struct exchange *x, void (*then)(struct exchange *x)) {
    json_t *json;
    if (!engine_ready(x) || !engine_json_body(x, &json)) return;
    json_decref(json);
    engine_current(x, then);
}

void engine_service_create(struct exchange *x) { with_body(x, create_service); }

struct update_query {
    uint64_t version;
    bool rollback;
};

static RESULT parse_query(const struct exchange *x, struct update_query *out, struct why *why) {
    char rollback[16];
    TRY(engine_query_version(x->head.query, "service", &out->version, why));
    TRY(engine_query_word(x->head.query, "rollback", rollback, sizeof rollback, why));
    out->rollback = strcmp(rollback, "previous") == 0;
    if (!rollback[0] || out->rollback || strcmp(rollback, "none") == 0) return OK;
    return fail_with(why, ERR_INVALID, "unrecognized rollback option %s", rollback);
}

/* What is to be the service's spec: the body's, or the one that it had before. */
static RESULT wanted_spec(struct exchange *x, const struct row *row,
                          const struct service_row *service, bool rollback, json_t **out,
                          struct why *why) {
    if (!rollback) return engine_body(&x->head, x->body, out, why);
    if (service->previous_json.size == 0)
        return fail_with(why, ERR_PRECONDITION, "service %s does not have a previous spec",
                         row->id);
    return jin_parse(service->previous_json, out, why);
}

static RESULT apply_update(struct spec_change *c, const struct row *row,
                           const struct update_query *query, const json_t *json, struct why *why) {
    struct span name;
    struct actor actor = {0};
    actor_of(c->x, &actor);
    TRY(read_spec(c, json, &name, why));
    return services_update(engine_manager(c->x), row->id, query->version, name, &c->spec, &actor,
                           on_done, c, why);
}

static void update_service(struct exchange *x) {
    struct row row;
    struct update_query query;
    json_t *json = NULL;
    struct why why = {0};
    struct service_row *service = find(x, &row);
    struct spec_change *c = service ? change_new(x, true) : NULL;
    if (c) {
        enum err e = parse_query(x, &query, &why);
        if (e == OK && query.version != row.version) e = ERR_CONFLICT;
        if (e == OK) e = wanted_spec(x, &row, service, query.rollback, &json, &why);
        if (e == OK) e = apply_update(c, &row, &query, json, &why);
        if (e != OK) change_fail(c, e, &why);
    }
    json_decref(json);
    free(service);
}

void engine_service_update(struct exchange *x) {
    struct update_query query;
    struct why why = {0};
    enum err e = parse_query(x, &query, &why);
    if (e != OK)
        engine_error(x, e, why.text);
    else if (query.rollback)
        engine_current(x, update_service);
    else
        with_body(x, update_service);
}

/* --- removed ---------------------------------------------------------------------------------- */

static void on_removed(void *ctx, enum err e, const char *text, const char *id) {
    (void)id;
    if (e == OK)
        engine_empty(ctx, 200);
    else
        engine_rpc_error(ctx, e, text);
}

static void remove_service(struct exchange *x) {
    struct row row;
    struct actor actor = {0};
    struct why why = {0};
    struct service_row *service = find(x, &row);
    if (!service) return;
    free(service);
    actor_of(x, &actor);
    enum err e = services_remove(engine_manager(x), row.id, &actor, on_removed, x, &why);
    if (e != OK) engine_rpc_error(x, e, why.text);
}

void engine_service_remove(struct exchange *x) { engine_current(x, remove_service); }
