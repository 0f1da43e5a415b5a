/* What must hold between rows of different kinds: secrets and their values, services and what they
 * name, tasks and their service and node, values and the epochs of the cluster key (rules: held.h,
 * service.h, vault.h). A command may change them in any order, so they are judged when all its
 * changes are in the tree, for the rows that it has changed; each judgement looks at what the row
 * names and at what names it, by marks. */
#include "store/rows.h"
#include "store/vault.h"

static bool held_of(const struct tree_node *root, enum row_kind kind, const char *id,
                    struct row *row, struct held_row *out) {
    out->n = 0;
    return row_look(root, kind, id, row) && held_decode(row->body, out) == OK;
}

static bool value_of(const struct tree_node *root, const char *id, struct value_row *out) {
    struct row row;
    return row_look(root, ROW_VALUE, id, &row) && value_decode(row.body, out) == OK;
}

/* --- secrets and configs --- */

static bool is_value_of(const struct value_row *value, enum row_kind kind, const char *id,
                        const struct held_version *v) {
    return value->of == kind && strcmp(value->held_id, id) == 0 && value->version == v->number &&
           value->sealed.size == v->size + SEALED_OVERHEAD;
}

/* Looks for a service that needs what is no longer there. */
struct need {
    enum row_kind kind;
    const char *id;
    const struct held_row *left; /* NULL: nothing */
    bool found;
};

static bool needs(void *ctx, const struct row *r) {
    struct need *n = ctx;
    struct service_row service;
    if (service_decode(r->body, &service) != OK) return true;
    for (unsigned i = 0; i < service.n; i++) {
        const struct service_ref *ref = &service.refs[i];
        if (ref->kind != n->kind || strcmp(ref->id, n->id) != 0) continue;
        bool there =
            n->left != NULL && (ref->version == 0 || held_version(n->left, ref->version) != NULL);
        if (!there) n->found = true;
    }
    return !n->found;
}

static bool needed(const struct row_trees *t, enum row_kind kind, const char *id,
                   const struct held_row *left) {
    struct need n = {.kind = kind, .id = id, .left = left};
    struct row_key mark = mark_of_held(id);
    row_each_marked(t->now, ROW_SERVICE, &mark, needs, &n);
    return n.found;
}

static RESULT between_held(const struct row_trees *t, enum row_kind kind, const char *id) {
    struct held_row old, new;
    struct value_row value;
    struct row row;
    bool was = held_of(t->before, kind, id, &row, &old), is = held_of(t->now, kind, id, &row, &new);
    bool fewer = was && !is;
    for (unsigned i = 0; i < old.n; i++) {
        if (held_version(&new, old.versions[i].number) != NULL) continue;
        fewer = true;
        if (value_of(t->now, old.versions[i].value_id, &value)) return ERR_PRECONDITION;
    }
    for (unsigned i = 0; i < new.n; i++) {
        const struct held_version *v = &new.versions[i];
        if (held_version(&old, v->number) != NULL) continue; /* its value says when it goes */
        if (!value_of(t->now, v->value_id, &value)) return ERR_PRECONDITION;
        if (!is_value_of(&value, kind, id, v)) return ERR_PRECONDITION;
    }
    return fewer && needed(t, kind, id, is ? &new : NULL) ? ERR_PRECONDITION : OK;
}

/* --- values --- */

static bool names_value(const struct row_trees *t, const struct value_row *value, const char *id) {
    struct held_row held;
    struct row row;
    if (!held_of(t->now, value->of, value->held_id, &row, &held)) return false;
    const struct held_version *v = held_version(&held, value->version);
    return v != NULL && strcmp(v->value_id, id) == 0;
}

static RESULT between_value(const struct row_trees *t, const char *id) {
    struct value_row value;
    struct vault_row vault;
    struct row row;
    if (!value_of(t->now, id, &value)) {
        bool was = value_of(t->before, id, &value);
        return was && names_value(t, &value, id) ? ERR_PRECONDITION : OK;
    }
    if (!names_value(t, &value, id)) return ERR_PRECONDITION;
    if (!row_look(t->now, ROW_VAULT, t->cluster->id, &row)) return ERR_PRECONDITION;
    if (vault_row_decode(row.body, &vault) != OK) return ERR_PRECONDITION;
    bool good = value.epoch >= vault.oldest && value.epoch <= vault.current;
    return good ? OK : ERR_PRECONDITION;
}

/* --- services and tasks --- */

static bool good_ref(const struct row_trees *t, const struct service_ref *r) {
    struct held_row held;
    struct row row;
    if (!held_of(t->now, r->kind, r->id, &row, &held)) return false;
    if (!span_equal(row.name, span_str(r->name))) return false;
    return r->version == 0 || held_version(&held, r->version) != NULL;
}

static RESULT between_service(const struct row_trees *t, const char *id) {
    struct service_row service;
    struct row row;
    if (!row_look(t->now, ROW_SERVICE, id, &row)) return OK; /* its tasks are ended later */
    if (service_decode(row.body, &service) != OK) return ERR_PRECONDITION;
    for (unsigned i = 0; i < service.n; i++)
        if (!good_ref(t, &service.refs[i])) return ERR_PRECONDITION;
    return OK;
}

static RESULT between_task(const struct row_trees *t, const char *id) {
    struct task_row old = {.node_id = ""}, new;
    struct row row, other;
    if (!row_look(t->now, ROW_TASK, id, &row)) return OK;
    if (task_decode(row.body, &new) != OK) return ERR_PRECONDITION;
    bool was = row_look(t->before, ROW_TASK, id, &row) && task_decode(row.body, &old) == OK;
    if (!was && !row_look(t->now, ROW_SERVICE, new.service_id, &other)) return ERR_PRECONDITION;
    bool placed = new.node_id[0] != '\0' && old.node_id[0] == '\0';
    return placed && !row_look(t->now, ROW_NODE, new.node_id, &other) ? ERR_PRECONDITION : OK;
}

/* --- all --- */

static RESULT between_vault(const struct row_trees *t, const char *id) {
    struct vault_row vault;
    struct row row;
    if (!row_look(t->now, ROW_VAULT, id, &row)) return ERR_PRECONDITION;
    if (vault_row_decode(row.body, &vault) != OK) return ERR_PRECONDITION;
    return value_epoch_lowest(t->now) < vault.oldest ? ERR_PRECONDITION : OK;
}

RESULT row_rules_between(const struct row_trees *t, enum row_kind kind, const char *id) {
    switch (kind) {
    case ROW_SECRET:
    case ROW_CONFIG: return between_held(t, kind, id);
    case ROW_VALUE: return between_value(t, id);
    case ROW_SERVICE: return between_service(t, id);
    case ROW_TASK: return between_task(t, id);
    case ROW_VAULT: return between_vault(t, id);
    case ROW_SPEC:
    case ROW_NODE:
    case ROW_TOKEN:
    case ROW_AUDIT: break;
    }
    return OK;
}
