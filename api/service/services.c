/* See services.h. A request becomes one OP_ROWS: a check of the secrets and configs that are named
 * (as they were seen), the service's row, a record of the audit. What the rules refuse on applying
 * is turned into a sentence by looking again.
 *
 *   create | update | remove -> row of the service + audit -> proposed -> on_written -> done
 *
 * Memory of a request is freed with its answer. */
#include "api/service/services.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "api/engine/request_fields.h"
#include "api/node/roles.h"

/* One under way. */
struct service_op {
    struct write write;
    enum row_action action;
    char id[NODE_ID_SIZE + 1]; /* of the service */
    char name[SERVICE_NAME_MAX + 1];
    struct manager *manager;
    service_done *done; /* the asker's */
    void *ctx;          /* the same */
};

/* --- finding ---------------------------------------------------------------------------------- */

RESULT service_find(const struct store *s, const char *text, struct row *row,
                    struct service_row *out, struct why *why) {
    struct why found = {0};
    enum err e = row_find(s, ROW_SERVICE, text, row, &found);
    if (e == ERR_NOT_FOUND) return fail_with(why, e, "service %.128s not found", text);
    if (e == ERR_INVALID)
        return fail_with(why, e, "service %.128s is ambiguous (more than one match found)", text);
    TRY(e);
    return service_decode(row->body, out);
}

void task_name(const struct store *s, const struct row *row, const struct task_row *t, char *out,
               size_t room) {
    struct row service;
    struct span name = span_str(t->service_id);
    if (row_get(s, ROW_SERVICE, t->service_id, &service)) name = service.name;
    if (t->slot > 0)
        (void)snprintf(out, room, "%.*s.%u.%s", (int)name.size, (const char *)name.at, t->slot,
                       row->id);
    else
        (void)snprintf(out, room, "%.*s.%s.%s", (int)name.size, (const char *)name.at, t->node_id,
                       row->id);
}

/* --- proposing -------------------------------------------------------------------------------- */

static const char *refused(const struct service_op *op, enum err e, struct why *why) {
    const char *name = op->name;
    switch ((int)e) {
    case ERR_EXISTS:
        (void)fail_with(why, e, "name conflicts with an existing object: service %s already exists",
                        name);
        break;
    case ERR_NOT_FOUND: (void)fail_with(why, e, "service %s not found", op->id); break;
    case ERR_CONFLICT: (void)fail_with(why, e, "update out of sequence"); break;
    case ERR_PRECONDITION:
        (void)fail_with(why, e, "a secret or config of service %s is not there any more", name);
        break;
    case ERR_TOO_LARGE: (void)fail_with(why, e, "there is no room for more services"); break;
    default: (void)fail_with(why, e, "%s", err_text(e)); break;
    }
    return why->text;
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct service_op *op = w->ctx;
    struct why why = {0};
    if (e == OK) {
        e = r->error;
        text = e == OK ? "" : refused(op, e, &why);
    }
    op->done(op->ctx, e, text, op->id);
    free(op);
}

static RESULT add_service(const struct service_op *op, uint64_t version,
                          const struct service_row *s, struct buf *changes) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row_change c = {.action = op->action, .kind = ROW_SERVICE, .version = version};
    enum err e = OK;
    (void)snprintf(c.id, sizeof c.id, "%s", op->id);
    if (s) e = service_encode(s, &body);
    if (s) c.name = span_str(op->name);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

static RESULT add_record(const struct service_op *op, const struct actor *actor,
                         struct buf *changes) {
    struct audit_record a = {.kind = ROW_SERVICE,
                             .what = op->action == ROW_CREATE    ? AUDIT_CREATE
                                     : op->action == ROW_REPLACE ? AUDIT_UPDATE
                                                                 : AUDIT_REMOVE,
                             .name = span_str(op->name),
                             .who = span_str(actor->who),
                             .from = span_str(actor->from)};
    (void)snprintf(a.id, sizeof a.id, "%s", op->id);
    return audit_add(changes, &a);
}

static RESULT propose(struct service_op *op, uint64_t version, const struct service_row *s,
                      const struct actor *actor, struct why *why) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    op->write = (struct write){.done = on_written, .ctx = op};
    enum err e = add_service(op, version, s, &changes);
    if (e == OK) e = add_record(op, actor, &changes);
    if (e == OK) e = rows_command(op->manager, &changes, 2, &op->write);
    if (e == OK) e = manager_write(op->manager, &op->write);
    if (e != OK) (void)fail_with(why, e, "service %s: %s", op->name, err_text(e));
    buf_free(&changes);
    return e;
}

static struct service_op *op_new(struct manager *m, enum row_action action, struct span name,
                                 service_done *done, void *ctx) {
    struct service_op *op = calloc(1, sizeof *op);
    if (!op) return NULL;
    op->manager = m;
    op->action = action;
    op->done = done;
    op->ctx = ctx;
    (void)snprintf(op->name, sizeof op->name, "%.*s", (int)name.size, (const char *)name.at);
    return op;
}

/* --- create ----------------------------------------------------------------------------------- */

RESULT services_create(struct manager *m, struct span name, const struct service_row *spec,
                       const struct actor *actor, service_done *done, void *ctx, struct why *why) {
    struct row other;
    TRY(manager_ready(m, why));
    struct service_op *op = op_new(m, ROW_CREATE, name, done, ctx);
    if (!op) return fail_with(why, ERR_NOMEM, "no memory for the service");
    random_id(op->id);
    enum err e = row_named(m->store, ROW_SERVICE, name, &other) ? ERR_EXISTS : OK;
    if (e == OK)
        e = propose(op, 0, spec, actor, why);
    else
        (void)refused(op, e, why);
    if (e != OK) free(op);
    return e;
}

/* --- update ----------------------------------------------------------------------------------- */

/* docker's counter that makes tasks anew though nothing else is changed. */
static int64_t force_of(struct span spec_json) {
    json_t *json;
    const json_t *template = NULL;
    int64_t force = 0;
    if (jin_parse(spec_json, &json, NULL) != OK) return 0;
    if (field_object(json, "TaskTemplate", &template, NULL) != OK ||
        field_number(template, "ForceUpdate", 0, INT64_MAX, &force, NULL) != OK)
        force = 0;
    json_decref(json);
    return force;
}

static bool same_ref(const struct service_ref *a, const struct service_ref *b) {
    return a->kind == b->kind && strcmp(a->id, b->id) == 0 && strcmp(a->target, b->target) == 0 &&
           a->uid == b->uid && a->gid == b->gid && a->mode == b->mode && a->version == b->version;
}

static bool same_refs(const struct service_row *a, const struct service_row *b) {
    if (a->n != b->n) return false;
    for (unsigned i = 0; i < a->n; i++)
        if (!same_ref(&a->refs[i], &b->refs[i])) return false;
    return true;
}

static bool same_policy(const struct service_row *a, const struct service_row *b) {
    return span_equal(a->constraints, b->constraints) && a->restart == b->restart &&
           a->restart_delay_ns == b->restart_delay_ns && a->restart_max == b->restart_max &&
           a->restart_window_ns == b->restart_window_ns;
}

/* All that docker counts as a task's: how it runs, where, and when it is started again. */
static bool same_task(const struct service_row *a, const struct service_row *b) {
    return strcmp(a->image, b->image) == 0 && span_equal(a->command, b->command) &&
           span_equal(a->env, b->env) && span_equal(a->mounts, b->mounts) &&
           strcmp(a->user, b->user) == 0 && strcmp(a->dir, b->dir) == 0 &&
           strcmp(a->hostname, b->hostname) == 0 && a->stop_signal == b->stop_signal &&
           a->reload_signal == b->reload_signal && a->stop_grace_ns == b->stop_grace_ns &&
           same_refs(a, b) && same_policy(a, b) && force_of(a->spec_json) == force_of(b->spec_json);
}

/* What is put in place of `now`, in *next: spans into both and into the store. */
static RESULT succeed(const struct manager *m, const struct row *row, const struct service_row *now,
                      struct span name, struct service_row *next, struct why *why) {
    if (!span_equal(name, row->name))
        return fail_with(why, ERR_UNSUPPORTED, "renaming services is not supported");
    if (next->mode != now->mode)
        return fail_with(why, ERR_UNSUPPORTED, "service mode change is not allowed");
    next->previous_json = now->spec_json;
    next->spec_version = same_task(now, next) ? now->spec_version : row_version(m->store) + 1;
    return OK;
}

RESULT services_update(struct manager *m, const char *id, uint64_t version, struct span name,
                       const struct service_row *spec, const struct actor *actor,
                       service_done *done, void *ctx, struct why *why) {
    struct row row;
    struct service_row *both;
    TRY(manager_ready(m, why));
    if (!row_get(m->store, ROW_SERVICE, id, &row))
        return fail_with(why, ERR_NOT_FOUND, "service %.128s not found", id);
    if (version != 0 && version != row.version)
        return fail_with(why, ERR_CONFLICT, "update out of sequence");
    struct service_op *op = op_new(m, ROW_REPLACE, name, done, ctx);
    both = malloc(2 * sizeof *both);
    enum err e = op && both ? service_decode(row.body, &both[0]) : ERR_NOMEM;
    if (e == OK) {
        both[1] = *spec;
        (void)snprintf(op->id, sizeof op->id, "%s", row.id);
        e = succeed(m, &row, &both[0], name, &both[1], why);
    }
    if (e == OK) e = propose(op, row.version, &both[1], actor, why);
    if (e != OK) free(op);
    free(both);
    return e;
}

/* --- remove ----------------------------------------------------------------------------------- */

RESULT services_remove(struct manager *m, const char *id, const struct actor *actor,
                       service_done *done, void *ctx, struct why *why) {
    struct row row;
    TRY(manager_ready(m, why));
    if (!row_get(m->store, ROW_SERVICE, id, &row))
        return fail_with(why, ERR_NOT_FOUND, "service %.128s not found", id);
    struct service_op *op = op_new(m, ROW_REMOVE, row.name, done, ctx);
    if (!op) return fail_with(why, ERR_NOMEM, "no memory for the service");
    (void)snprintf(op->id, sizeof op->id, "%s", row.id);
    enum err e = propose(op, 0, NULL, actor, why);
    if (e != OK) free(op);
    return e;
}
