/* /secrets and /configs: the same calls over two kinds of rows. What is judged of them (names,
 * sizes, who uses them) is in secrets.h; here are docker's calls and words.
 *
 * A secret's value only comes in. A config's goes out again, as docker's clients expect it of one
 * config and of the list: that is a reading, which the audit has before the answer is made, and
 * what can't be recorded is not shown. An update may change labels alone; clients send the whole
 * spec, so a config's data may come again as it is. A secret's may not: comparing would open it. */
#include "api/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#include "store/audit.h"

#define CONFIGS_DATA_MAX (32 * MIB) /* of one list; configs past that are listed without theirs */

struct kind {
    enum row_kind kind;
    const char *what;        /* docker's word */
    const char *const *keys; /* of filters */
};

static const char *const secret_keys[] = {"names", "name", "id", "label", NULL};
static const char *const config_keys[] = {"name", "id", "label", NULL};
static const struct kind secrets = {ROW_SECRET, "secret", secret_keys};
static const struct kind configs = {ROW_CONFIG, "config", config_keys};

static const struct kind *kind_of(const struct exchange *x) {
    struct engine_target target;
    static const char path[] = "/configs";
    if (engine_target(x->head.path, &target, NULL) != OK) return &secrets;
    bool config =
        target.path.size >= sizeof path - 1 && memcmp(target.path.at, path, sizeof path - 1) == 0;
    return config ? &configs : &secrets;
}

static bool find_label(void *ctx, struct span key, struct span *value) {
    const struct held_row *held = ctx;
    return labels_find(held->labels, key, value);
}

/* The row that the path names, or an answered exchange (false). */
static bool find(struct exchange *x, struct row *row, struct held_row *held) {
    const struct kind *k = kind_of(x);
    char id[ENGINE_ID_MAX];
    struct why why = {0};
    engine_id(x, id);
    enum err e = engine_find_row(engine_manager(x)->store, k->kind, k->what, id, row, &why);
    if (e == OK) e = held_decode(row->body, held);
    if (e != OK) engine_error(x, e, why.text);
    return e == OK;
}

/* --- a reading is recorded -------------------------------------------------------------------- */

struct reading {
    struct write write;
    struct exchange *x;
    void (*then)(struct exchange *x);
};

static void on_recorded(struct write *w, enum err e, const char *text, const struct result *r) {
    struct reading *reading = w->ctx;
    struct exchange *x = reading->x;
    void (*then)(struct exchange * x) = reading->then;
    free(reading);
    if (e == OK && r->error != OK) {
        e = r->error;
        text = "";
    }
    if (e != OK)
        engine_rpc_error(x, e, text);
    else if (engine_ready(x))
        then(x);
}

static RESULT propose(struct reading *r, const struct audit_record *a) {
    struct manager *m = engine_manager(r->x);
    struct buf changes = buf_new(AUDIT_RECORD_MAX + KIB);
    struct command c = {.op = OP_ROWS};
    r->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_recorded, .ctx = r};
    enum err e = audit_add(&changes, a);
    c.rows.n = 1;
    c.rows.changes = buf_span(&changes);
    c.rows.now_ns = m->clock.wall_ns(&m->clock);
    if (e == OK) e = command_encode(&c, &r->write.command);
    if (e == OK) e = manager_write(m, &r->write);
    if (e != OK) buf_wipe(&r->write.command);
    buf_free(&changes);
    return e;
}

/* Writes that configs are shown (`row` NULL: a list of them), then goes on. */
static void record_reading(struct exchange *x, const struct row *row, uint32_t version,
                           const char *detail, void (*then)(struct exchange *x)) {
    struct actor actor = {0};
    actor_of(x, &actor);
    struct audit_record a = {.what = AUDIT_READ,
                             .kind = ROW_CONFIG,
                             .who = span_str(actor.who),
                             .from = span_str(actor.from),
                             .version = version,
                             .detail = span_str(detail)};
    if (row) {
        (void)snprintf(a.id, sizeof a.id, "%s", row->id);
        a.name = row->name;
    }
    struct reading *r = calloc(1, sizeof *r);
    enum err e = ERR_NOMEM;
    if (r) {
        *r = (struct reading){.x = x, .then = then};
        e = propose(r, &a);
    }
    if (e == OK) return;
    free(r);
    engine_rpc_error(x, e, NULL);
}

/* --- lists ------------------------------------------------------------------------------------ */

struct listing {
    const struct manager *manager;
    const struct kind *kind;
    struct filters filters;
    struct jout j;
    struct buf out;
    size_t shown; /* bytes of values so far */
    unsigned n;   /* rows that are wanted */
    struct why why;
};

static RESULT parse_filters(const struct exchange *x, struct filters *out, struct why *why) {
    TRY(filters_parse(x->head.query, out, why));
    enum err e = filters_accept(out, kind_of(x)->keys, why);
    if (e != OK) filters_free(out);
    return e;
}

static bool is_wanted(const struct filters *f, const struct row *row, struct held_row *held) {
    char name[ROW_NAME_MAX + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)row->name.size, (const char *)row->name.at);
    return filters_prefix(f, "id", row->id) && filters_prefix(f, "name", name) &&
           filters_exact(f, "names", name) && filters_labels(f, "label", find_label, held);
}

static RESULT put(struct jout *j, const struct manager *m, const struct row *row,
                  const struct held_row *held, bool with_data, struct why *why) {
    struct engine_held shown = {.row = row, .held = held};
    struct secret *value = NULL;
    struct span data;
    uint32_t version;
    if (with_data) {
        TRY(secrets_value(m, row->kind, row->id, 0, &value, &version, why));
        data = secret_span(value);
        shown.data = &data;
    }
    engine_put_held(j, &shown);
    secret_free(value);
    return OK;
}

static bool list_one(void *ctx, const struct row *row) {
    struct listing *l = ctx;
    struct held_row held;
    if (held_decode(row->body, &held) != OK || !is_wanted(&l->filters, row, &held)) return true;
    const struct held_version *newest = held_version(&held, 0);
    size_t size = newest ? newest->size : 0;
    bool with_data = l->kind->kind == ROW_CONFIG && l->shown + size <= CONFIGS_DATA_MAX;
    if (with_data) l->shown += size;
    /* A config whose value can't be opened is there all the same, and can be removed. */
    if (put(&l->j, l->manager, row, &held, with_data, NULL) != OK)
        (void)!put(&l->j, l->manager, row, &held, false, NULL);
    return true;
}

static bool count_one(void *ctx, const struct row *row) {
    struct listing *l = ctx;
    struct held_row held;
    if (held_decode(row->body, &held) == OK) l->n += is_wanted(&l->filters, row, &held);
    return true;
}

/* False: answered. */
static bool begin_list(struct exchange *x, struct listing *l) {
    *l = (struct listing){.manager = engine_manager(x), .kind = kind_of(x)};
    enum err e = parse_filters(x, &l->filters, &l->why);
    if (e != OK) engine_error(x, e, l->why.text);
    return e == OK;
}

static void show_list(struct exchange *x) {
    struct listing l;
    if (!begin_list(x, &l)) return;
    engine_json_begin(&l.j, &l.out);
    jout_open(&l.j, '[');
    row_all(l.manager->store, l.kind->kind, list_one, &l);
    jout_close(&l.j, ']');
    engine_json(x, &l.j);
    filters_free(&l.filters);
}

static void record_list(struct exchange *x) {
    struct listing l;
    char detail[64];
    if (!begin_list(x, &l)) return;
    row_all(l.manager->store, l.kind->kind, count_one, &l);
    filters_free(&l.filters);
    (void)snprintf(detail, sizeof detail, "a list of %u", l.n);
    if (l.n > 0)
        record_reading(x, NULL, 0, detail, show_list);
    else
        show_list(x);
}

void engine_secrets(struct exchange *x) { engine_filtered(x, parse_filters, show_list); }
void engine_configs(struct exchange *x) { engine_filtered(x, parse_filters, record_list); }

/* --- one -------------------------------------------------------------------------------------- */

static void show(struct exchange *x) {
    struct row row;
    struct held_row held;
    struct buf out;
    struct jout j;
    struct why why = {0};
    if (!find(x, &row, &held)) return;
    engine_json_begin(&j, &out);
    enum err e =
        put(&j, engine_manager(x), &row, &held, row.kind == ROW_CONFIG && held.n > 0, &why);
    if (e == OK) {
        engine_json(x, &j);
        return;
    }
    buf_wipe(&out);
    engine_rpc_error(x, e, why.text);
}

static void record_one(struct exchange *x) {
    struct row row;
    struct held_row held;
    if (!find(x, &row, &held)) return;
    const struct held_version *newest = held_version(&held, 0);
    record_reading(x, &row, newest ? newest->number : 0, "", show);
}

void engine_secret(struct exchange *x) { engine_current(x, show); }
void engine_config(struct exchange *x) { engine_current(x, record_one); }

/* --- made ------------------------------------------------------------------------------------- */

static void on_created(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    struct exchange *x = ctx;
    struct buf out;
    struct jout j;
    (void)version;
    if (e != OK) {
        engine_rpc_error(x, e, text);
        return;
    }
    engine_json_begin(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "ID", id);
    jout_close(&j, '}');
    engine_json_as(x, 201, &j);
}

/* The body, decoded; what it said is nowhere else then. False: answered. */
static bool take_spec(struct exchange *x, struct engine_held_spec *said, struct buf *name) {
    struct why why = {0};
    json_t *json;
    *name = buf_new(HTTP_BODY_MAX);
    enum err e = engine_body(&x->head, x->body, &json, &why);
    if (e == OK) {
        e = engine_held_decode(json, kind_of(x)->kind, said, &why);
        if (e == OK) {
            e = buf_add_span(name, said->name);
            said->name = buf_span(name);
            if (e != OK) engine_held_free(said);
        }
        engine_wipe(json);
        json_decref(json);
    }
    sodium_memzero((uint8_t *)(uintptr_t)x->body.at, x->body.size); /* the connection's own */
    manager_wipe_stack(engine_manager(x));
    if (e == ERR_TOO_LARGE)
        engine_rpc_error(x, e, why.text);
    else if (e != OK)
        engine_error(x, e, why.text);
    return e == OK;
}

static void create(struct exchange *x) {
    struct engine_held_spec said;
    struct actor actor = {0};
    struct buf name;
    struct why why = {0};
    if (!engine_ready(x) || !take_spec(x, &said, &name)) return;
    actor_of(x, &actor);
    const struct held_spec spec = {.kind = kind_of(x)->kind,
                                   .name = said.name,
                                   .labels = buf_span(&said.labels),
                                   .templating = said.templating,
                                   .driver = said.driver,
                                   .templating_options = buf_span(&said.templating_options),
                                   .driver_options = buf_span(&said.driver_options),
                                   .value = said.data ? secret_span(said.data) : span_of("", 0)};
    enum err e = secrets_create(engine_manager(x), &spec, &actor, on_created, x, &why);
    engine_held_free(&said);
    buf_free(&name);
    if (e != OK) engine_rpc_error(x, e, why.text);
}

void engine_secret_create(struct exchange *x) { create(x); }
void engine_config_create(struct exchange *x) { create(x); }

/* --- changed ---------------------------------------------------------------------------------- */

struct update {
    struct exchange *x;
    struct read read;
    struct engine_held_spec said;
    struct buf name; /* what said.name points to */
    uint64_t version;
};

static void update_free(struct update *u) {
    engine_held_free(&u->said);
    buf_free(&u->name);
    free(u);
}

static void on_updated(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    (void)id;
    (void)version;
    if (e == OK)
        engine_empty(ctx, 200);
    else
        engine_rpc_error(ctx, e, text);
}

/* Whether the data that came along is what the config has; the newest version is meant. */
static bool same_data(const struct update *u, const struct row *row, const struct held_row *held) {
    struct secret *value = NULL;
    uint32_t version;
    if (!u->said.has_data) return true;
    if (row->kind != ROW_CONFIG) return u->said.data == NULL;
    const struct held_version *newest = held_version(held, 0);
    if (!u->said.data || !newest || secret_span(u->said.data).size != newest->size) return false;
    if (secrets_value(engine_manager(u->x), row->kind, row->id, 0, &value, &version, NULL) != OK)
        return false;
    bool same = secret_equal(value, u->said.data);
    secret_free(value);
    return same;
}

static RESULT apply_update(const struct update *u, const struct row *row,
                           const struct held_row *held, struct why *why) {
    struct actor actor = {0};
    if (u->version != row->version) return ERR_CONFLICT;
    if (!span_equal(u->said.name, row->name) || !same_data(u, row, held))
        return fail_with(why, ERR_INVALID, "only updates to Labels are allowed");
    actor_of(u->x, &actor);
    return secrets_label(engine_manager(u->x), row->kind, row->id, u->version,
                         buf_span(&u->said.labels), &actor, on_updated, u->x, why);
}

static void on_current(struct read *read, enum err e) {
    struct update *u = read->ctx;
    struct row row;
    struct held_row held;
    struct why why = {0};
    if (e != OK) {
        engine_rpc_error(u->x, e == ERR_TIMEOUT ? ERR_NO_LEADER : e, NULL);
    } else if (engine_ready(u->x) && find(u->x, &row, &held)) {
        e = apply_update(u, &row, &held, &why);
        if (e != OK) engine_rpc_error(u->x, e, why.text);
    }
    update_free(u);
}

/* The body has a value, and so is not kept as it came while the state becomes current. */
static void update(struct exchange *x) {
    struct why why = {0};
    struct update *u = calloc(1, sizeof *u);
    if (!u || !engine_ready(x) || !take_spec(x, &u->said, &u->name)) {
        if (!u) engine_error(x, ERR_NOMEM, NULL);
        free(u);
        return;
    }
    enum err e = engine_query_version(x->head.query, kind_of(x)->what, &u->version, &why);
    if (e != OK) {
        engine_error(x, e, why.text);
        update_free(u);
        return;
    }
    struct clock *clock = &engine_manager(x)->clock;
    u->x = x;
    u->read = (struct read){
        .done = on_current, .ctx = u, .deadline_ms = clock->now_ms(clock) + PROPOSAL_TIMEOUT_MS};
    e = replica_read(engine_manager(x)->replica, &u->read);
    if (e == OK) return;
    engine_rpc_error(x, e, NULL);
    update_free(u);
}

void engine_secret_update(struct exchange *x) { update(x); }
void engine_config_update(struct exchange *x) { update(x); }

/* --- removed ---------------------------------------------------------------------------------- */

/* That it is in use is Swarm's InvalidArgument. */
static enum err removal_error(enum err e) { return e == ERR_PRECONDITION ? ERR_INVALID : e; }

static void on_removed(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    (void)id;
    (void)version;
    if (e == OK)
        engine_empty(ctx, 204);
    else
        engine_rpc_error(ctx, removal_error(e), text);
}

static void remove_held(struct exchange *x) {
    struct row row;
    struct held_row held;
    struct actor actor = {0};
    struct why why = {0};
    if (!find(x, &row, &held)) return;
    actor_of(x, &actor);
    enum err e = secrets_remove(engine_manager(x), row.kind, row.id, &actor, on_removed, x, &why);
    if (e != OK) engine_rpc_error(x, removal_error(e), why.text);
}

void engine_secret_remove(struct exchange *x) { engine_current(x, remove_held); }
void engine_config_remove(struct exchange *x) { engine_current(x, remove_held); }
