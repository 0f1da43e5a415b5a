/* See secrets.h. A request is built from the state as it is here, with the versions that were seen,
 * and proposed; what became of it is told in the words of Docker's API. Values are sealed before
 * anything else is made of them: behind secrets_seal there is ciphertext only. */
#include "api/secret/secrets_parts.h"

#include <stdlib.h>

#include "api/node/roles.h"
#include "api/secret/vault.h"
#include "store/service.h"

const char *held_word(enum row_kind kind) { return kind == ROW_CONFIG ? "config" : "secret"; }

/* --- what became of it ------------------------------------------------------------------------ */

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct held_op *op = w->ctx;
    struct why why = {0};
    if (e == OK) e = r->error;
    if (e == ERR_EXISTS)
        (void)fail_with(&why, e, "%s %s already exists", held_word(op->kind), op->name);
    else if (e == ERR_NOT_FOUND)
        (void)fail_with(&why, e, "%s %s not found", held_word(op->kind), op->id);
    else if (e == ERR_PRECONDITION && op->removes)
        secrets_in_use(op->manager, op->kind, op->id, op->name, &why);
    else if (e == ERR_PRECONDITION)
        e = fail_with(&why, ERR_BUSY, "the cluster key was rotated meanwhile; try again");
    else if (e != OK)
        (void)fail_with(&why, e, "%s", text[0] ? text : err_text(e));
    op->done(op->ctx, e, why.text, op->id, e == OK ? op->version : 0);
    free(op);
}

RESULT held_op_new(struct manager *m, enum row_kind kind, held_done *done, void *ctx,
                   struct held_op **out, struct why *why) {
    TRY(manager_ready(m, why));
    if (!store_cluster(m->store)->initialised)
        return fail_with(why, ERR_BUSY, "the cluster is being founded; try again");
    struct held_op *op = calloc(1, sizeof *op);
    if (!op) return fail_with(why, ERR_NOMEM, "no memory for a change of a secret");
    *op = (struct held_op){.manager = m, .kind = kind, .done = done, .ctx = ctx};
    op->changes = buf_new(COMMAND_MAX - 1 * KIB);
    *out = op;
    return OK;
}

/* Takes over `op`, whatever `e` is; an error is given back. */
RESULT held_op_send(struct held_op *op, enum err e, struct why *why) {
    op->write = (struct write){.done = on_written, .ctx = op};
    bool said = e != OK && why != NULL && why->text[0] != 0;
    if (e == OK) e = rows_command(op->manager, &op->changes, op->n, &op->write);
    if (e == OK) e = manager_write(op->manager, &op->write);
    buf_free(&op->changes);
    if (e == OK) return OK;
    free(op);
    return said ? e : fail_with(why, e, "%s", err_text(e));
}

/* --- changes ---------------------------------------------------------------------------------- */

static RESULT add_change(struct held_op *op, const struct row_change *c) {
    TRY(row_change_add(&op->changes, c));
    op->n++;
    return OK;
}

static RESULT add_held(struct held_op *op, const struct row *before, struct span name,
                       const struct held_row *h) {
    struct row_change c = {.action = before ? ROW_REPLACE : ROW_CREATE,
                           .kind = op->kind,
                           .version = before ? before->version : 0,
                           .name = name};
    struct buf body = buf_new(ROW_BODY_MAX);
    memcpy(c.id, op->id, sizeof c.id);
    enum err e = held_encode(h, &body);
    c.body = buf_span(&body);
    if (e == OK) e = add_change(op, &c);
    buf_free(&body);
    return e;
}

static RESULT add_removal(struct held_op *op, enum row_kind kind, const char *id,
                          uint64_t version) {
    struct row_change c = {.action = ROW_REMOVE, .kind = kind, .version = version};
    (void)snprintf(c.id, sizeof c.id, "%s", id);
    return add_change(op, &c);
}

RESULT held_op_audit(struct held_op *op, enum audit_what what, const struct actor *actor,
                     struct span name, uint32_t version, const char *detail) {
    struct audit_record a = {.what = what,
                             .kind = op->kind,
                             .name = name,
                             .who = span_str(actor->who),
                             .from = span_str(actor->from),
                             .version = version,
                             .detail = span_str(detail)};
    memcpy(a.id, op->id, sizeof a.id);
    TRY(audit_add(&op->changes, &a));
    op->n++;
    return OK;
}

/* Another version of the value, sealed, in `h` and in the changes. */
static RESULT add_value(struct held_op *op, struct span value, struct held_row *h,
                        struct why *why) {
    struct manager *m = op->manager;
    struct value_row v = {.of = op->kind, .version = h->next_version};
    struct row_change c = {.action = ROW_CREATE, .kind = ROW_VALUE};
    struct buf sealed = buf_new(ROW_BODY_MAX), body = buf_new(ROW_BODY_MAX);
    random_id(c.id);
    memcpy(v.held_id, op->id, sizeof v.held_id);
    enum err e = vault_seal(m, c.id, value, &v, &sealed, why);
    if (e == OK) e = value_encode(&v, &body);
    c.body = buf_span(&body);
    if (e == OK) e = add_change(op, &c);
    buf_free(&sealed);
    buf_free(&body);
    TRY(e);
    struct held_version *to = &h->versions[h->n++];
    *to = (struct held_version){.number = h->next_version++,
                                .size = (uint32_t)value.size,
                                .created_ns = m->clock.wall_ns(&m->clock)};
    memcpy(to->value_id, c.id, sizeof to->value_id);
    op->version = to->number;
    return OK;
}

/* --- what may be asked for -------------------------------------------------------------------- */

static RESULT check_value(enum row_kind kind, struct span value, struct why *why) {
    size_t max = kind == ROW_CONFIG ? CONFIG_SIZE_MAX : SECRET_SIZE_MAX;
    if (value.size >= 1 && value.size <= max) return OK;
    return fail_with(why, ERR_INVALID, "%s data must be larger than 0 and less than %zu bytes",
                     held_word(kind), max + 1);
}

static RESULT check_labels(struct span labels, struct why *why) {
    enum err e = labels_check(labels);
    return e == OK ? OK
                   : fail_with(why, ERR_INVALID,
                               "labels: at most %d, %llu bytes of all, and each has a name",
                               NODE_LABELS_MAX, (unsigned long long)NODE_LABELS_BYTES);
}

static RESULT check_spec(const struct held_spec *spec, struct why *why) {
    TRY(held_name_check(spec->name, why));
    TRY(check_labels(spec->labels, why));
    TRY(check_labels(spec->templating_options, why));
    TRY(check_labels(spec->driver_options, why));
    if (strlen(spec->templating) > HELD_WORD_MAX || strlen(spec->driver) > HELD_WORD_MAX)
        return fail_with(why, ERR_INVALID, "the name of a driver has at most %d characters",
                         HELD_WORD_MAX);
    if (spec->templating[0] && strcmp(spec->templating, "golang") != 0)
        return fail_with(why, ERR_INVALID, "the templating driver %s is not known; there is golang",
                         spec->templating);
    if (!spec->driver[0]) return check_value(spec->kind, spec->value, why);
    if (spec->kind == ROW_CONFIG) return fail_with(why, ERR_INVALID, "a config has no driver");
    return spec->value.size == 0
               ? OK
               : fail_with(why, ERR_INVALID, "a secret with a driver has no value of its own");
}

static RESULT find(struct held_op *op, const char *id, struct row *row, struct held_row *h,
                   struct why *why) {
    if (!row_get(op->manager->store, op->kind, id, row))
        return fail_with(why, ERR_NOT_FOUND, "%s %.128s not found", held_word(op->kind), id);
    memcpy(op->id, row->id, sizeof op->id);
    (void)snprintf(op->name, sizeof op->name, "%.*s", (int)row->name.size, row->name.at);
    return held_decode(row->body, h);
}

/* --- who uses it ------------------------------------------------------------------------------ */

struct users {
    const char *id;
    char names[256];
    unsigned n;
    uint32_t version; /* looked for; 0: any */
    bool named;       /* somebody names it */
};

static bool note_user(void *ctx, const struct row *row) {
    struct users *u = ctx;
    size_t size = strlen(u->names);
    (void)snprintf(u->names + size, sizeof u->names - size, "%s%.*s", u->n > 0 ? ", " : "",
                   (int)row->name.size, row->name.at);
    u->n++;
    return true;
}

void secrets_in_use(const struct manager *m, enum row_kind kind, const char *id, const char *name,
                    struct why *why) {
    struct users u = {.id = id};
    service_each_of_held(m->store, id, note_user, &u);
    (void)fail_with(why, ERR_PRECONDITION, "%s '%s' is in use by the following service%s: %s",
                    held_word(kind), name, u.n == 1 ? "" : "s", u.names);
}

static bool look_for_version(void *ctx, const struct row *row) {
    struct users *u = ctx;
    struct service_row *s = malloc(sizeof *s); /* large */
    if (!s || service_decode(row->body, s) != OK) {
        u->named = true; /* rather not */
    } else {
        for (unsigned i = 0; i < s->n; i++)
            u->named |= strcmp(s->refs[i].id, u->id) == 0 && s->refs[i].version == u->version;
    }
    free(s);
    return !u->named;
}

static bool is_named(const struct manager *m, const char *id, uint32_t version) {
    struct users u = {.id = id, .version = version};
    service_each_of_held(m->store, id, look_for_version, &u);
    return u.named;
}

static RESULT check_unused(const struct held_op *op, struct why *why) {
    struct users u = {.id = op->id};
    service_each_of_held(op->manager->store, op->id, note_user, &u);
    if (u.n == 0) return OK;
    secrets_in_use(op->manager, op->kind, op->id, op->name, why);
    return ERR_PRECONDITION;
}

/* --- requests --------------------------------------------------------------------------------- */

static RESULT build_create(struct held_op *op, const struct held_spec *spec, struct buf *labels,
                           const struct actor *actor, struct why *why) {
    struct held_row h = {.templating_options = spec->templating_options,
                         .driver_options = spec->driver_options,
                         .next_version = 1};
    struct row row;
    TRY(check_spec(spec, why));
    random_id(op->id);
    (void)snprintf(op->name, sizeof op->name, "%.*s", (int)spec->name.size, spec->name.at);
    if (row_named(op->manager->store, spec->kind, spec->name, &row))
        return fail_with(why, ERR_EXISTS, "%s %s already exists", held_word(spec->kind), op->name);
    TRY(run_label_resolve(op->manager->store, span_of(NULL, 0), spec->labels, labels, why));
    h.labels = buf_span(labels);
    (void)snprintf(h.templating, sizeof h.templating, "%s", spec->templating);
    (void)snprintf(h.driver, sizeof h.driver, "%s", spec->driver);
    if (!spec->driver[0]) TRY(add_value(op, spec->value, &h, why));
    TRY(add_held(op, NULL, spec->name, &h));
    return held_op_audit(op, AUDIT_CREATE, actor, spec->name, op->version, "");
}

RESULT secrets_create(struct manager *m, const struct held_spec *spec, const struct actor *actor,
                      held_done *done, void *ctx, struct why *why) {
    struct held_op *op;
    struct buf labels = buf_new(2 * NODE_LABELS_BYTES);
    TRY(held_op_new(m, spec->kind, done, ctx, &op, why));
    enum err e = held_op_send(op, build_create(op, spec, &labels, actor, why), why);
    buf_free(&labels);
    return e;
}

static RESULT build_label(struct held_op *op, const char *id, uint64_t version, struct span labels,
                          struct buf *kept, const struct actor *actor, struct why *why) {
    struct row row;
    struct held_row h;
    TRY(find(op, id, &row, &h, why));
    TRY(check_labels(labels, why));
    if (version != 0 && version != row.version)
        return fail_with(why, ERR_CONFLICT, "%s", err_text(ERR_CONFLICT));
    TRY(run_label_resolve(op->manager->store, h.labels, labels, kept, why));
    h.labels = buf_span(kept);
    op->version = h.n > 0 ? h.versions[h.n - 1].number : 0;
    TRY(add_held(op, &row, row.name, &h));
    return held_op_audit(op, AUDIT_UPDATE, actor, row.name, 0, "labels");
}

RESULT secrets_label(struct manager *m, enum row_kind kind, const char *id, uint64_t version,
                     struct span labels, const struct actor *actor, held_done *done, void *ctx,
                     struct why *why) {
    struct held_op *op;
    struct buf kept = buf_new(2 * NODE_LABELS_BYTES);
    TRY(held_op_new(m, kind, done, ctx, &op, why));
    enum err e = held_op_send(op, build_label(op, id, version, labels, &kept, actor, why), why);
    buf_free(&kept);
    return e;
}

static void forget_version(struct held_row *h, unsigned at) {
    memmove(&h->versions[at], &h->versions[at + 1], (h->n - at - 1) * sizeof h->versions[0]);
    h->n--;
}

/* Room for one more: the oldest one that nobody names goes. */
static RESULT make_room(struct held_op *op, struct held_row *h, struct why *why) {
    if (h->n < HELD_VERSIONS_MAX) return OK;
    for (unsigned i = 0; i + 1 < h->n; i++) {
        if (is_named(op->manager, op->id, h->versions[i].number)) continue;
        TRY(add_removal(op, ROW_VALUE, h->versions[i].value_id, 0));
        forget_version(h, i);
        return OK;
    }
    return fail_with(why, ERR_PRECONDITION,
                     "%s %s has %d versions, all of which services name; remove one first",
                     held_word(op->kind), op->name, HELD_VERSIONS_MAX);
}

static RESULT build_put(struct held_op *op, const char *id, struct span value,
                        const struct actor *actor, struct why *why) {
    struct row row;
    struct held_row h;
    TRY(find(op, id, &row, &h, why));
    TRY(check_value(op->kind, value, why));
    if (h.driver[0])
        return fail_with(why, ERR_PRECONDITION,
                         "the value of %s comes from the driver %s; it has no versions", op->name,
                         h.driver);
    if (h.next_version == UINT32_MAX)
        return fail_with(why, ERR_PRECONDITION, "%s has had all versions there are", op->name);
    TRY(make_room(op, &h, why));
    TRY(add_value(op, value, &h, why));
    TRY(add_held(op, &row, row.name, &h));
    return held_op_audit(op, AUDIT_UPDATE, actor, row.name, op->version, "value");
}

RESULT secrets_put(struct manager *m, enum row_kind kind, const char *id, struct span value,
                   const struct actor *actor, held_done *done, void *ctx, struct why *why) {
    struct held_op *op;
    TRY(held_op_new(m, kind, done, ctx, &op, why));
    return held_op_send(op, build_put(op, id, value, actor, why), why);
}

RESULT held_op_remove(struct held_op *op, const char *id, enum audit_what what,
                      const struct actor *actor, struct why *why) {
    struct row row;
    struct held_row h;
    TRY(find(op, id, &row, &h, why));
    TRY(check_unused(op, why));
    op->removes = true;
    for (unsigned i = 0; i < h.n; i++)
        TRY(add_removal(op, ROW_VALUE, h.versions[i].value_id, 0));
    TRY(add_removal(op, op->kind, op->id, row.version));
    return held_op_audit(op, what, actor, row.name, 0,
                         what == AUDIT_SHRED ? "removed; the cluster key is rotated" : "");
}

RESULT secrets_remove(struct manager *m, enum row_kind kind, const char *id,
                      const struct actor *actor, held_done *done, void *ctx, struct why *why) {
    struct held_op *op;
    TRY(held_op_new(m, kind, done, ctx, &op, why));
    return held_op_send(op, held_op_remove(op, id, AUDIT_REMOVE, actor, why), why);
}

static RESULT build_remove_version(struct held_op *op, const char *id, uint32_t version,
                                   const struct actor *actor, struct why *why) {
    struct row row;
    struct held_row h;
    TRY(find(op, id, &row, &h, why));
    const struct held_version *v = version != 0 ? held_version(&h, version) : NULL;
    if (!v)
        return fail_with(why, ERR_NOT_FOUND, "%s %s has no version %u", held_word(op->kind),
                         op->name, version);
    if (h.n == 1)
        return fail_with(why, ERR_PRECONDITION,
                         "version %u is the only one of %s; remove that as a whole", version,
                         op->name);
    if (is_named(op->manager, op->id, version))
        return fail_with(why, ERR_PRECONDITION, "a service names version %u of %s", version,
                         op->name);
    op->version = version;
    TRY(add_removal(op, ROW_VALUE, v->value_id, 0));
    forget_version(&h, (unsigned)(v - h.versions));
    TRY(add_held(op, &row, row.name, &h));
    return held_op_audit(op, AUDIT_REMOVE, actor, row.name, version, "version");
}

RESULT secrets_remove_version(struct manager *m, enum row_kind kind, const char *id,
                              uint32_t version, const struct actor *actor, held_done *done,
                              void *ctx, struct why *why) {
    struct held_op *op;
    TRY(held_op_new(m, kind, done, ctx, &op, why));
    return held_op_send(op, build_remove_version(op, id, version, actor, why), why);
}

/* --- values ----------------------------------------------------------------------------------- */

RESULT secrets_value(const struct manager *m, enum row_kind kind, const char *id, uint32_t version,
                     struct secret **out, uint32_t *out_version, struct why *why) {
    struct row row, value;
    struct held_row h;
    struct value_row v;
    TRY(manager_ready(m, why));
    if (!row_get(m->store, kind, id, &row) || held_decode(row.body, &h) != OK)
        return fail_with(why, ERR_NOT_FOUND, "%s %.128s not found", held_word(kind), id);
    const struct held_version *at = held_version(&h, version);
    if (!at && h.driver[0])
        return fail_with(why, ERR_UNSUPPORTED, "the value of %.*s comes from the driver %s",
                         (int)row.name.size, row.name.at, h.driver);
    if (!at || !row_get(m->store, ROW_VALUE, at->value_id, &value) ||
        value_decode(value.body, &v) != OK)
        return fail_with(why, ERR_NOT_FOUND, "%s %.*s has no version %u", held_word(kind),
                         (int)row.name.size, row.name.at, version);
    TRY(vault_unseal(m, at->value_id, &v, out, why));
    *out_version = at->number;
    return OK;
}
