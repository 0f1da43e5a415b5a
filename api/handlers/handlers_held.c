/* Secrets and configs: listed, shown, made, labelled, given another version, removed, shredded. One
 * set of handlers for both kinds; the route says which is meant. A secret's value comes in and
 * never goes out; a config's is shown, and the audit has who saw it before he sees it. Bodies that
 * carry a value are wiped, and the value is decoded straight into guarded memory. */
#include "api/api.h"
#include "api/secret/secrets.h"
#include "api/service/services.h"
#include "api/words.h"

#include <sodium.h>
#include <stdio.h>

#define SERVICES_SHOWN_MAX 64 /* that use it, named where it is inspected */

static enum row_kind kind_of(const struct exchange *x) {
    return strncmp(x->route->path, "/conclave/v1/configs", 20) == 0 ? ROW_CONFIG : ROW_SECRET;
}

static size_t size_max(enum row_kind kind) {
    return kind == ROW_CONFIG ? CONFIG_SIZE_MAX : SECRET_SIZE_MAX;
}

static RESULT find(const struct exchange *x, const char *text, struct row *row,
                   struct held_row *held, struct why *why) {
    const struct api *api = x->ctx;
    enum row_kind kind = kind_of(x);
    if (text[0] == '\0')
        return fail_with(why, ERR_INVALID, "which %s is meant is not told", held_word(kind));
    TRY(row_find(api->manager->store, kind, text, row, why));
    return held_decode(row->body, held);
}

/* --- what is shown -------------------------------------------------------------------------- */

static void put_versions(struct jout *j, const struct held_row *h) {
    jout_key(j, "versions");
    jout_open(j, '[');
    for (unsigned i = 0; i < h->n; i++) {
        jout_open(j, '{');
        jout_put_number(j, "version", h->versions[i].number);
        jout_put_number(j, "size", h->versions[i].size);
        jout_put_number(j, "created_ns", (uint64_t)h->versions[i].created_ns);
        jout_close(j, '}');
    }
    jout_close(j, ']');
}

static void put_span(struct jout *j, const char *key, struct span text) {
    jout_key(j, key);
    jout_text(j, text);
}

/* Leaves the object open. */
static void put_held(struct jout *j, const struct row *r, const struct held_row *h) {
    jout_open(j, '{');
    jout_put_text(j, "id", r->id);
    put_span(j, "name", r->name);
    jout_put_number(j, "row_version", r->version);
    jout_put_number(j, "created_ns", (uint64_t)r->created_ns);
    jout_put_number(j, "updated_ns", (uint64_t)r->updated_ns);
    labels_put(j, "labels", h->labels);
    jout_put_text(j, "templating", h->templating);
    if (r->kind == ROW_SECRET) {
        jout_put_text(j, "driver", h->driver);
        labels_put(j, "driver_options", h->driver_options);
    }
    put_versions(j, h);
}

static bool put_row(void *ctx, const struct row *r) {
    struct jout *j = ctx;
    struct held_row h;
    if (held_decode(r->body, &h) != OK) return true;
    put_held(j, r, &h);
    jout_close(j, '}');
    return j->error == OK;
}

static void list(struct exchange *x) {
    const struct api *api = x->ctx;
    enum row_kind kind = kind_of(x);
    struct buf out = buf_new(512 * MIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_key(&j, kind == ROW_CONFIG ? "configs" : "secrets");
    jout_open(&j, '[');
    row_all(api->manager->store, kind, put_row, &j);
    jout_close(&j, ']');
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

void handle_held(struct exchange *x) { api_current(x, list); }

struct users {
    struct jout *j;
    unsigned n;
};

static bool put_user(void *ctx, const struct row *r) {
    struct users *u = ctx;
    jout_text(u->j, r->name);
    return ++u->n < SERVICES_SHOWN_MAX;
}

static void show(struct exchange *x) {
    const struct api *api = x->ctx;
    char text[ROW_NAME_MAX + 1] = "";
    struct why why = {0};
    struct row row;
    struct held_row held;
    enum err e = http_query(x->head.query, held_word(kind_of(x)), text, sizeof text);
    if (e == OK || e == ERR_NOT_FOUND) e = find(x, text, &row, &held, &why);
    if (e != OK) {
        api_fail(x, e, &why);
        return;
    }
    struct buf out = buf_new(1 * MIB);
    struct jout j;
    struct users users = {.j = &j};
    jout_start(&j, &out);
    put_held(&j, &row, &held);
    jout_key(&j, "services");
    jout_open(&j, '[');
    service_each_of_held(api->manager->store, row.id, put_user, &users);
    jout_close(&j, ']');
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

/* ?secret= or ?config= */
void handle_held_inspect(struct exchange *x) { api_current(x, show); }

/* --- a config's value ----------------------------------------------------------------------- */

static void answer_value(struct exchange *x, const struct result *r, const struct secret *value) {
    struct buf out = buf_new(2 * CONFIG_SIZE_MAX);
    struct jout j;
    (void)r;
    enum err e = buf_reserve(&out, secret_span(value).size * 4 / 3 + 64); /* one copy of it */
    if (e != OK) {
        exchange_error(x, e, NULL);
        return;
    }
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_key(&j, "value");
    jout_base64(&j, secret_span(value));
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

static RESULT read_version(const struct exchange *x, uint32_t *out, struct why *why) {
    char text[16];
    uint64_t n = 0;
    *out = 0;
    if (http_query(x->head.query, "version", text, sizeof text) != OK) return OK;
    if (http_parse_decimal(span_str(text), &n) != OK || n > UINT32_MAX)
        return fail_with(why, ERR_INVALID, "version is no number");
    *out = (uint32_t)n;
    return OK;
}

static RESULT show_value(struct exchange *x, struct why *why) {
    const struct api *api = x->ctx;
    char text[ROW_NAME_MAX + 1] = "";
    struct row row;
    struct held_row held;
    uint32_t version;
    struct secret *value = NULL;
    (void)!http_query(x->head.query, "config", text, sizeof text);
    TRY(read_version(x, &version, why));
    TRY(find(x, text, &row, &held, why));
    TRY(secrets_value(api->manager, ROW_CONFIG, row.id, version, &value, &version, why));
    struct audit_record record = {
        .what = AUDIT_READ, .kind = ROW_CONFIG, .name = row.name, .version = version};
    memcpy(record.id, row.id, sizeof record.id);
    api_audit(x, &record, answer_value, value);
    return OK;
}

static void value_of(struct exchange *x) {
    struct why why = {0};
    enum err e = show_value(x, &why);
    if (e != OK) api_fail(x, e, &why);
}

/* ?config=&version= -> {"value": base64} */
void handle_config_value(struct exchange *x) { api_current(x, value_of); }

/* --- values that come ----------------------------------------------------------------------- */

struct encoded {
    const char *text; /* base64 */
    size_t size;      /* of it */
};

static enum err decode(void *ctx, uint8_t *at, size_t size) {
    const struct encoded *from = ctx;
    size_t got;
    bool good = sodium_base642bin(at, size, from->text, from->size, NULL, &got, NULL,
                                  sodium_base64_VARIANT_ORIGINAL) == 0;
    return good && got == size ? OK : ERR_INVALID;
}

/* "value" of the body, bounded as its kind wants it; it must be there. */
static RESULT read_value(const json_t *body, enum row_kind kind, struct secret **out,
                         struct why *why) {
    const json_t *value = json_object_get(body, "value");
    struct encoded from = {.text = json_string_value(value), .size = json_string_length(value)};
    size_t size = from.size / 4 * 3;
    for (size_t i = from.size; i > 0 && i + 2 > from.size && from.text[i - 1] == '='; i--)
        size--;
    if (!from.text || size == 0 || size > size_max(kind))
        return fail_with(why, from.text && size > 0 ? ERR_TOO_LARGE : ERR_INVALID,
                         "a %s has 1 to %zu bytes", held_word(kind), size_max(kind));
    enum err e = secret_fill(size, decode, &from, out);
    return e == ERR_INVALID ? fail_with(why, e, "field value is not base64") : e;
}

/* --- changes -------------------------------------------------------------------------------- */

static void on_changed(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    struct exchange *x = ctx;
    struct buf out = buf_new(4 * KIB);
    struct jout j;
    if (e != OK) {
        exchange_error(x, e, text);
        return;
    }
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "id", id);
    jout_put_number(&j, "version", version);
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

typedef enum err change(struct exchange *x, const json_t *body, const struct actor *actor,
                        struct why *why);

static void with_body(struct exchange *x, change *act) {
    json_t *body;
    struct why why = {0};
    struct actor actor;
    if (!api_body(x, &body)) return;
    sodium_memzero((uint8_t *)(uintptr_t)x->body.at, x->body.size); /* the connection's own */
    actor_of(x, &actor);
    enum err e = act(x, body, &actor, &why);
    manager_wipe_stack(((const struct api *)x->ctx)->manager);
    jin_wipe(body);
    json_decref(body);
    if (e != OK) api_fail(x, e, &why);
}

/* Labels and the like: {KEY: VALUE} as a row has them. */
static RESULT read_labels(const json_t *body, const char *key, struct buf *out, struct why *why) {
    enum err e = labels_change(span_of(NULL, 0), json_object_get(body, key), NULL, out, why);
    return e == OK ? OK : fail_in(why, e, key);
}

static enum err make(struct exchange *x, const json_t *body, const struct actor *actor,
                     struct why *why) {
    const struct api *api = x->ctx;
    struct held_spec spec = {.kind = kind_of(x),
                             .name = span_str(jin_string(body, "name")),
                             .templating = jin_string(body, "templating"),
                             .driver = jin_string(body, "driver")};
    struct buf labels = buf_new(2 * NODE_LABELS_BYTES), options = buf_new(2 * NODE_LABELS_BYTES);
    struct secret *value = NULL;
    enum err e = held_name_check(spec.name, why);
    if (e == OK) e = read_labels(body, "labels", &labels, why);
    if (e == OK) e = read_labels(body, "driver_options", &options, why);
    if (e == OK && spec.driver[0] == '\0') e = read_value(body, spec.kind, &value, why);
    if (e == OK && spec.driver[0] != '\0' && json_object_get(body, "value"))
        e = fail_with(why, ERR_INVALID, "a secret with a driver has no value of its own");
    spec.labels = buf_span(&labels);
    spec.driver_options = buf_span(&options);
    if (value) spec.value = secret_span(value);
    if (e == OK) e = secrets_create(api->manager, &spec, actor, on_changed, x, why);
    secret_free(value);
    buf_free(&labels);
    buf_free(&options);
    return e;
}

static enum err put(struct exchange *x, const json_t *body, const struct actor *actor,
                    struct why *why) {
    const struct api *api = x->ctx;
    enum row_kind kind = kind_of(x);
    struct row row;
    struct held_row held;
    struct secret *value = NULL;
    TRY(find(x, jin_string(body, held_word(kind)), &row, &held, why));
    TRY(read_value(body, kind, &value, why));
    enum err e =
        secrets_put(api->manager, kind, row.id, secret_span(value), actor, on_changed, x, why);
    secret_free(value);
    return e;
}

static enum err label(struct exchange *x, const json_t *body, const struct actor *actor,
                      struct why *why) {
    const struct api *api = x->ctx;
    enum row_kind kind = kind_of(x);
    struct row row;
    struct held_row held;
    struct buf labels = buf_new(2 * NODE_LABELS_BYTES);
    TRY(find(x, jin_string(body, held_word(kind)), &row, &held, why));
    enum err e = labels_change(held.labels, json_object_get(body, "labels_add"),
                               json_object_get(body, "labels_remove"), &labels, why);
    if (e == OK)
        e = secrets_label(api->manager, kind, row.id, row.version, buf_span(&labels), actor,
                          on_changed, x, why);
    buf_free(&labels);
    return e;
}

static enum err remove_one(struct exchange *x, const json_t *body, const struct actor *actor,
                           struct why *why) {
    const struct api *api = x->ctx;
    enum row_kind kind = kind_of(x);
    struct row row;
    struct held_row held;
    uint64_t version = 0;
    TRY(jin_u64(body, "version", &version, why));
    TRY(find(x, jin_string(body, held_word(kind)), &row, &held, why));
    if (version == 0) return secrets_remove(api->manager, kind, row.id, actor, on_changed, x, why);
    if (version > UINT32_MAX || !held_version(&held, (uint32_t)version))
        return fail_with(why, ERR_NOT_FOUND, "%.*s has no version %llu", (int)row.name.size,
                         (const char *)row.name.at, (unsigned long long)version);
    return secrets_remove_version(api->manager, kind, row.id, (uint32_t)version, actor, on_changed,
                                  x, why);
}

static void create_now(struct exchange *x) { with_body(x, make); }
static void put_now(struct exchange *x) { with_body(x, put); }
static void label_now(struct exchange *x) { with_body(x, label); }
static void remove_now(struct exchange *x) { with_body(x, remove_one); }

/* {"name", "labels", "templating", "driver", "driver_options", "value": base64}
 * -> {"id", "version"} */
void handle_held_create(struct exchange *x) { api_current(x, create_now); }
/* {"secret" or "config", "value": base64} -> {"id", "version"} */
void handle_held_put(struct exchange *x) { api_current(x, put_now); }
/* {"secret" or "config", "labels_add": {}, "labels_remove": []} */
void handle_held_update(struct exchange *x) { api_current(x, label_now); }
/* {"secret" or "config", "version"} */
void handle_held_remove(struct exchange *x) { api_current(x, remove_now); }
