/* Services: listed, shown with their tasks, made, changed, scaled, removed. What is to run comes as
 * docker's ServiceSpec, read by service_spec (services.h); a secret or config may be named in it
 * without its id, which is filled in here from the state that the request is judged by. */
#include "api/api.h"
#include "api/service/service_spec.h"
#include "api/service/services.h"
#include "api/words.h"

#include <stdio.h>
#include <stdlib.h>

static void put_span(struct jout *j, const char *key, struct span text) {
    jout_key(j, key);
    jout_text(j, text);
}

static struct store *store_of(const struct exchange *x) {
    return ((const struct api *)x->ctx)->manager->store;
}

/* --- tasks ---------------------------------------------------------------------------------- */

struct counts {
    uint64_t running; /* tasks that run */
    uint64_t desired; /* that shall run */
};

static bool count(void *ctx, const struct row *r) {
    struct counts *c = ctx;
    struct task_row t;
    if (task_decode(r->body, &t) != OK) return true;
    c->desired += t.desired == TASK_RUNNING;
    c->running += t.desired == TASK_RUNNING && t.state == TASK_RUNNING;
    return true;
}

static const char *node_name(const struct store *s, const char *id, char out[NODE_TEXT_MAX + 1]) {
    struct row row;
    struct node_row n;
    out[0] = '\0';
    if (!row_get(s, ROW_NODE, id, &row) || node_row_decode(row.body, &n) != OK) return id;
    const struct node *named = cluster_node(store_cluster(s), n.raft_id);
    struct span name = row.name.size > 0 ? row.name : span_str(named ? named->name : n.hostname);
    (void)snprintf(out, NODE_TEXT_MAX + 1, "%.*s", (int)name.size, (const char *)name.at);
    return out;
}

struct tasks {
    struct jout *j;
    const struct store *store;
};

static bool put_task(void *ctx, const struct row *r) {
    const struct tasks *l = ctx;
    struct jout *j = l->j;
    struct task_row t;
    char name[256], node[NODE_TEXT_MAX + 1];
    if (task_decode(r->body, &t) != OK) return true;
    task_name(l->store, r, &t, name, sizeof name);
    jout_open(j, '{');
    jout_put_text(j, "id", r->id);
    jout_put_text(j, "name", name);
    jout_put_number(j, "slot", t.slot);
    jout_put_text(j, "node", t.node_id);
    jout_put_text(j, "node_name", t.node_id[0] ? node_name(l->store, t.node_id, node) : "");
    jout_put_text(j, "desired", task_state_name(t.desired));
    jout_put_text(j, "state", task_state_name(t.state));
    jout_put_number(j, "state_ns", (uint64_t)t.state_ns);
    jout_put_number(j, "created_ns", (uint64_t)r->created_ns);
    jout_put_number(j, "spec_version", t.spec_version);
    jout_put_text(j, "message", t.message);
    jout_put_text(j, "error", t.error);
    jout_put_number(j, "exit_code", (uint64_t)(uint32_t)t.exit_code);
    jout_put_number(j, "pid", t.pid);
    jout_close(j, '}');
    return j->error == OK;
}

/* --- services ------------------------------------------------------------------------------- */

static void put_command(struct jout *j, struct span blocks) {
    struct cursor c = cursor_of(blocks);
    struct span word;
    jout_key(j, "command");
    jout_open(j, '[');
    while (c.left > 0 && cursor_block(&c, SERVICE_TEXT_MAX, &word) == OK)
        jout_text(j, word);
    jout_close(j, ']');
}

/* Leaves the object open. */
static void put_service(struct jout *j, const struct store *store, const struct row *r,
                        const struct service_row *s) {
    struct counts counts = {0};
    task_each_of_service(store, r->id, count, &counts);
    jout_open(j, '{');
    jout_put_text(j, "id", r->id);
    put_span(j, "name", r->name);
    jout_put_number(j, "version", r->version);
    jout_put_number(j, "spec_version", s->spec_version);
    jout_put_number(j, "created_ns", (uint64_t)r->created_ns);
    jout_put_number(j, "updated_ns", (uint64_t)r->updated_ns);
    jout_put_text(j, "mode", s->mode == SERVICE_GLOBAL ? "global" : "replicated");
    jout_put_number(j, "replicas", s->replicas);
    jout_put_number(j, "running", counts.running);
    jout_put_number(j, "desired", counts.desired);
    jout_put_text(j, "image", s->image);
    put_command(j, s->command);
    labels_put(j, "labels", s->labels);
}

struct listing {
    struct jout j;
    const struct store *store;
    struct service_row *service; /* large, so not on the stack */
};

static bool put_row(void *ctx, const struct row *r) {
    struct listing *l = ctx;
    if (service_decode(r->body, l->service) != OK) return true;
    put_service(&l->j, l->store, r, l->service);
    jout_close(&l->j, '}');
    return l->j.error == OK;
}

static void list(struct exchange *x) {
    struct buf out = buf_new(256 * MIB);
    struct listing l = {.store = store_of(x), .service = malloc(sizeof *l.service)};
    if (!l.service) {
        exchange_error(x, ERR_NOMEM, NULL);
        return;
    }
    jout_start(&l.j, &out);
    jout_open(&l.j, '{');
    jout_key(&l.j, "services");
    jout_open(&l.j, '[');
    row_all(l.store, ROW_SERVICE, put_row, &l);
    jout_close(&l.j, ']');
    jout_close(&l.j, '}');
    free(l.service);
    api_answer(x, &l.j, &out);
}

void handle_services(struct exchange *x) { api_current(x, list); }

static void put_refs(struct jout *j, const struct service_row *s) {
    jout_key(j, "files");
    jout_open(j, '[');
    for (unsigned i = 0; i < s->n; i++) {
        const struct service_ref *f = &s->refs[i];
        char mode[8];
        (void)snprintf(mode, sizeof mode, "%04o", f->mode);
        jout_open(j, '{');
        jout_put_text(j, "kind", f->kind == ROW_CONFIG ? "config" : "secret");
        jout_put_text(j, "id", f->id);
        jout_put_text(j, "name", f->name);
        jout_put_text(j, "target", f->target);
        jout_put_number(j, "uid", f->uid);
        jout_put_number(j, "gid", f->gid);
        jout_put_text(j, "mode", mode);
        jout_put_number(j, "version", f->version);
        jout_close(j, '}');
    }
    jout_close(j, ']');
}

static void put_spec(struct jout *j, const char *key, struct span json) {
    if (json.size == 0) return;
    jout_key(j, key);
    jout_raw(j, json);
}

static void put_tasks(struct jout *j, const struct store *store, const char *id) {
    struct tasks l = {.j = j, .store = store};
    jout_key(j, "tasks");
    jout_open(j, '[');
    task_each_of_service(store, id, put_task, &l);
    jout_close(j, ']');
}

static void answer_service(struct exchange *x, const struct row *row, const struct service_row *s,
                           bool whole) {
    struct buf out = buf_new(64 * MIB);
    struct jout j;
    jout_start(&j, &out);
    if (whole) {
        put_service(&j, store_of(x), row, s);
        put_refs(&j, s);
        put_spec(&j, "spec", s->spec_json);
        put_spec(&j, "previous", s->previous_json);
    } else {
        jout_open(&j, '{');
        jout_put_text(&j, "id", row->id);
        put_span(&j, "name", row->name);
        put_tasks(&j, store_of(x), row->id);
    }
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

static void show_some(struct exchange *x, bool whole) {
    char text[ROW_NAME_MAX + 1] = "";
    struct why why = {0};
    struct row row;
    struct service_row *s = malloc(sizeof *s);
    enum err e = s ? http_query(x->head.query, "service", text, sizeof text) : ERR_NOMEM;
    if (e == OK) e = service_find(store_of(x), text, &row, s, &why);
    if (e == OK)
        answer_service(x, &row, s, whole);
    else
        api_fail(x, e, &why);
    free(s);
}

static void show(struct exchange *x) { show_some(x, true); }
static void show_tasks(struct exchange *x) { show_some(x, false); }

void handle_service(struct exchange *x) { api_current(x, show); }             /* ?service= */
void handle_service_tasks(struct exchange *x) { api_current(x, show_tasks); } /* ?service= */

/* --- ids of what is named ------------------------------------------------------------------- */

/* "Version" of a reference, which docker's has not: kept as a label, which docker's clients keep.
 * 0: the newest. */
static RESULT pin(json_t *one, json_t *labels, struct span name) {
    char key[sizeof SPEC_LABEL_VERSION + HELD_NAME_MAX], text[24];
    const json_t *version = json_object_get(one, "Version");
    if (!json_is_integer(version)) return OK;
    json_int_t n = json_integer_value(version);
    (void)snprintf(key, sizeof key, SPEC_LABEL_VERSION "%.*s", (int)name.size,
                   (const char *)name.at);
    (void)snprintf(text, sizeof text, "%lld", (long long)n);
    (void)json_object_del(one, "Version");
    if (n == 0) (void)json_object_del(labels, key);
    return n == 0 || json_object_set_new(labels, key, json_string(text)) == 0 ? OK : ERR_NOMEM;
}

struct list {
    enum row_kind kind;
    const char *member, *id, *name; /* keys */
    const char *word;               /* for people */
};

static RESULT fill_in(const struct store *store, json_t *container, json_t *labels,
                      const struct list *l, struct why *why) {
    json_t *one;
    size_t i;
    json_array_foreach(json_object_get(container, l->member), i, one) {
        struct row row;
        const char *name = jin_string(one, l->name);
        if (!json_is_object(one) || name[0] == '\0') continue;
        if (!row_named(store, l->kind, span_str(name), &row)) {
            if (jin_string(one, l->id)[0]) continue; /* judged by its id */
            return fail_with(why, ERR_NOT_FOUND, "there is no %s '%.64s'", l->word, name);
        }
        TRY(pin(one, labels, row.name));
        if (jin_string(one, l->id)[0]) continue;
        json_t *proper = json_stringn((const char *)row.name.at, row.name.size);
        if (json_object_set_new(one, l->id, json_string(row.id)) != 0 ||
            json_object_set_new(one, l->name, proper) != 0)
            return ERR_NOMEM;
    }
    return OK;
}

static RESULT fill_ids(const struct store *store, json_t *spec, struct why *why) {
    static const struct list secrets = {ROW_SECRET, "Secrets", "SecretID", "SecretName", "secret"};
    static const struct list configs = {ROW_CONFIG, "Configs", "ConfigID", "ConfigName", "config"};
    json_t *task = json_object_get(spec, "TaskTemplate"), *labels = json_object_get(spec, "Labels");
    json_t *container = json_object_get(task, "ContainerSpec");
    if (!json_is_object(labels)) {
        labels = json_object();
        if (json_object_set_new(spec, "Labels", labels) != 0) return ERR_NOMEM;
    }
    TRY(fill_in(store, container, labels, &secrets, why));
    return fill_in(store, container, labels, &configs, why);
}

/* --- changes -------------------------------------------------------------------------------- */

/* A change on its way: the answer has the warnings that its spec deserved. */
struct service_change {
    struct exchange *x;
    struct buf warnings; /* lines */
};

static void change_free(struct service_change *c) {
    buf_free(&c->warnings);
    free(c);
}

static void put_lines(struct jout *j, const char *key, struct span lines) {
    jout_key(j, key);
    jout_open(j, '[');
    while (lines.size > 0) {
        const uint8_t *end = memchr(lines.at, '\n', lines.size);
        size_t size = end ? (size_t)(end - lines.at) : lines.size, gone = end ? size + 1 : size;
        if (size > 0) jout_text(j, span_of(lines.at, size));
        lines = span_of(lines.at + gone, lines.size - gone);
    }
    jout_close(j, ']');
}

static void on_changed(void *ctx, enum err e, const char *text, const char *id) {
    struct service_change *c = ctx;
    struct buf out = buf_new(64 * KIB);
    struct jout j;
    if (e == OK) {
        jout_start(&j, &out);
        jout_open(&j, '{');
        jout_put_text(&j, "id", id);
        put_lines(&j, "warnings", buf_span(&c->warnings));
        jout_close(&j, '}');
        api_answer(c->x, &j, &out);
    } else {
        exchange_error(c->x, e, text);
    }
    change_free(c);
}

typedef enum err change(struct service_change *c, json_t *body, const struct actor *actor,
                        struct why *why);

static void with_body(struct exchange *x, change *act) {
    json_t *body;
    struct why why = {0};
    struct actor actor;
    if (!api_body(x, &body)) return;
    struct service_change *c = calloc(1, sizeof *c);
    enum err e = c ? OK : ERR_NOMEM;
    if (c) *c = (struct service_change){.x = x, .warnings = buf_new(SERVICE_WARNINGS)};
    actor_of(x, &actor);
    if (e == OK) e = act(c, body, &actor, &why);
    if (e != OK && c) change_free(c);
    json_decref(body);
    if (e != OK) api_fail(x, e, &why);
}

/* A spec, read, and the service as it is, when there is one. */
struct reading {
    struct buf memory;
    struct span name;
    struct row row;
    struct service_row spec, now;
};

static struct reading *reading_new(void) {
    struct reading *r = calloc(1, sizeof *r);
    if (r) r->memory = buf_new(SERVICE_SPEC_MEMORY);
    return r;
}

static void reading_free(struct reading *r) {
    buf_free(&r->memory);
    free(r);
}

static RESULT read_spec(struct service_change *c, json_t *spec, struct reading *r,
                        struct why *why) {
    const struct api *api = c->x->ctx;
    if (!json_is_object(spec)) return fail_with(why, ERR_INVALID, "field spec is no object");
    TRY(fill_ids(api->manager->store, spec, why));
    return service_spec(api->manager, spec, &r->memory, &r->spec, &r->name, &c->warnings, why);
}

static enum err create(struct service_change *c, json_t *body, const struct actor *actor,
                       struct why *why) {
    const struct api *api = c->x->ctx;
    struct reading *r = reading_new();
    if (!r) return ERR_NOMEM;
    enum err e = read_spec(c, json_object_get(body, "spec"), r, why);
    if (e == OK) e = services_create(api->manager, r->name, &r->spec, actor, on_changed, c, why);
    reading_free(r);
    return e;
}

static enum err update_with(struct service_change *c, const char *text, uint64_t version,
                            json_t *spec, struct reading *r, const struct actor *actor,
                            struct why *why) {
    const struct api *api = c->x->ctx;
    TRY(service_find(api->manager->store, text, &r->row, &r->now, why));
    TRY(read_spec(c, spec, r, why));
    return services_update(api->manager, r->row.id, version, r->name, &r->spec, actor, on_changed,
                           c, why);
}

static enum err update(struct service_change *c, json_t *body, const struct actor *actor,
                       struct why *why) {
    uint64_t version = 0;
    TRY(jin_u64(body, "version", &version, why));
    struct reading *r = reading_new();
    if (!r) return ERR_NOMEM;
    enum err e = update_with(c, jin_string(body, "service"), version, json_object_get(body, "spec"),
                             r, actor, why);
    reading_free(r);
    return e;
}

/* The spec as it is, with another number of replicas. */
static RESULT scaled(const struct service_row *s, uint64_t replicas, json_t **out,
                     struct why *why) {
    if (s->mode != SERVICE_REPLICATED)
        return fail_with(why, ERR_PRECONDITION, "a global service has one task on each node");
    json_t *spec;
    TRY(jin_parse(s->spec_json, &spec, why));
    json_t *mode = json_pack("{s{sI}}", "Replicated", "Replicas", (json_int_t)replicas);
    if (mode && json_object_set_new(spec, "Mode", mode) == 0) {
        *out = spec;
        return OK;
    }
    json_decref(spec);
    return ERR_NOMEM;
}

static enum err scale_with(struct service_change *c, const char *text, uint64_t replicas,
                           struct reading *r, const struct actor *actor, struct why *why) {
    json_t *spec = NULL;
    TRY(service_find(store_of(c->x), text, &r->row, &r->now, why));
    TRY(scaled(&r->now, replicas, &spec, why));
    enum err e = update_with(c, text, r->row.version, spec, r, actor, why);
    json_decref(spec);
    return e;
}

static enum err scale(struct service_change *c, json_t *body, const struct actor *actor,
                      struct why *why) {
    uint64_t replicas = UINT64_MAX;
    TRY(jin_u64(body, "replicas", &replicas, why));
    if (replicas > SERVICE_REPLICAS_MAX)
        return fail_with(why, ERR_INVALID, "replicas is a number up to %d", SERVICE_REPLICAS_MAX);
    struct reading *r = reading_new();
    if (!r) return ERR_NOMEM;
    enum err e = scale_with(c, jin_string(body, "service"), replicas, r, actor, why);
    reading_free(r);
    return e;
}

static enum err remove_one(struct service_change *c, json_t *body, const struct actor *actor,
                           struct why *why) {
    const struct api *api = c->x->ctx;
    struct reading *r = reading_new();
    if (!r) return ERR_NOMEM;
    enum err e =
        service_find(api->manager->store, jin_string(body, "service"), &r->row, &r->now, why);
    if (e == OK) e = services_remove(api->manager, r->row.id, actor, on_changed, c, why);
    reading_free(r);
    return e;
}

static void create_now(struct exchange *x) { with_body(x, create); }
static void update_now(struct exchange *x) { with_body(x, update); }
static void scale_now(struct exchange *x) { with_body(x, scale); }
static void remove_now(struct exchange *x) { with_body(x, remove_one); }

/* {"spec": ServiceSpec} -> {"id", "warnings": []}, as all below */
void handle_service_create(struct exchange *x) { api_current(x, create_now); }
/* {"service", "version", "spec"} */
void handle_service_update(struct exchange *x) { api_current(x, update_now); }
/* {"service", "replicas"} */
void handle_service_scale(struct exchange *x) { api_current(x, scale_now); }
/* {"service"} */
void handle_service_remove(struct exchange *x) { api_current(x, remove_now); }
