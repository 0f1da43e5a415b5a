/* /nodes: the list, one node, its update and its removal. What may be done to a node is judged by
 * nodes.h; here are docker's words for it. */
#include "api/engine/engine.h"

#include <stdlib.h>
#include <strings.h>

/* --- lists ------------------------------------------------------------------------------------ */

static bool is_role(void *ctx, const char *value) {
    (void)ctx;
    return strcasecmp(value, "worker") == 0 || strcasecmp(value, "manager") == 0 || !value[0];
}

static bool is_membership(void *ctx, const char *value) {
    (void)ctx;
    return strcasecmp(value, "pending") == 0 || strcasecmp(value, "accepted") == 0 || !value[0];
}

static RESULT parse_filters(const struct exchange *x, struct filters *out, struct why *why) {
    static const char *const keys[] = {"name", "id",         "label", "node.label",
                                       "role", "membership", NULL};
    TRY(filters_parse(x->head.query, out, why));
    enum err e = filters_accept(out, keys, why);
    if (e == OK && !filters_walk(out, "role", is_role, NULL))
        e = fail_with(why, ERR_INVALID, "invalid role filter: it is worker or manager");
    if (e == OK && !filters_walk(out, "membership", is_membership, NULL))
        e = fail_with(why, ERR_INVALID, "invalid membership filter: it is pending or accepted");
    if (e != OK) filters_free(out);
    return e;
}

static bool find_label(void *ctx, struct span key, struct span *value) {
    const struct node_row *node = ctx;
    return labels_find(node->labels, key, value);
}

static bool is_other_word(void *ctx, const char *value) { return strcasecmp(value, ctx) != 0; }

/* Any of the words; docker takes them in either case. */
static bool has_word(const struct filters *f, const char *key, const char *word) {
    return !filters_has(f, key) || !filters_walk(f, key, is_other_word, (void *)(uintptr_t)word);
}

static bool is_wanted(const struct filters *f, const struct row *row, struct node_row *node) {
    return filters_prefix(f, "id", row->id) && filters_prefix(f, "name", node->hostname) &&
           has_word(f, "role", engine_role(node->granted)) &&
           has_word(f, "membership", "accepted") &&
           filters_labels(f, "label", NULL, NULL) && /* the engine's own: it has none */
           filters_labels(f, "node.label", find_label, node);
}

struct listing {
    const struct manager *manager;
    struct engine_view view;
    struct filters filters;
    struct jout j;
    struct buf out;
};

static bool list_node(void *ctx, const struct row *row) {
    struct listing *l = ctx;
    struct node_row node;
    if (node_row_decode(row->body, &node) != OK || !is_wanted(&l->filters, row, &node)) return true;
    struct engine_node shown = engine_node_of(l->manager, &l->view, row, &node);
    engine_put_node(&l->j, &shown);
    return true;
}

static void list_nodes(struct exchange *x) {
    struct listing l = {.manager = engine_manager(x)};
    struct why why = {0};
    enum err e = parse_filters(x, &l.filters, &why);
    if (e == OK) e = engine_view(l.manager, &l.view);
    if (e == OK) {
        engine_json_begin(&l.j, &l.out);
        jout_open(&l.j, '[');
        row_all(l.manager->store, ROW_NODE, list_node, &l);
        jout_close(&l.j, ']');
        engine_json(x, &l.j);
        engine_view_free(&l.view);
    } else {
        engine_error(x, e, why.text);
    }
    filters_free(&l.filters);
}

void engine_nodes(struct exchange *x) { engine_filtered(x, parse_filters, list_nodes); }

/* --- one node --------------------------------------------------------------------------------- */

/* The node that the path names, or an answered exchange (false). */
static bool find(struct exchange *x, struct row *row, struct node_row *node) {
    char id[ENGINE_ID_MAX];
    struct why why = {0};
    engine_id(x, id);
    enum err e = engine_find_node(engine_manager(x)->store, id, row, node, &why);
    if (e != OK) engine_error(x, e, why.text);
    return e == OK;
}

static void show_node(struct exchange *x) {
    const struct manager *m = engine_manager(x);
    struct row row;
    struct node_row node;
    struct engine_view view;
    struct jout j;
    struct buf out;
    if (!find(x, &row, &node)) return;
    enum err e = engine_view(m, &view);
    if (e != OK) {
        engine_error(x, e, NULL);
        return;
    }
    struct engine_node shown = engine_node_of(m, &view, &row, &node);
    engine_json_begin(&j, &out);
    engine_put_node(&j, &shown);
    engine_json(x, &j);
    engine_view_free(&view);
}

void engine_node(struct exchange *x) { engine_current(x, show_node); }

/* --- changes ---------------------------------------------------------------------------------- */

static void on_done(void *ctx, enum err e, const char *text) {
    if (e == OK)
        engine_empty(ctx, 200);
    else
        engine_rpc_error(ctx, e, text);
}

static RESULT decode_update(const struct exchange *x, uint64_t *version,
                            struct engine_node_spec *spec, json_t **json, struct why *why) {
    TRY(engine_body(&x->head, x->body, json, why));
    enum err e = engine_query_version(x->head.query, "node", version, why);
    if (e == OK) e = engine_node_spec_decode(*json, spec, why);
    if (e != OK) json_decref(*json);
    return e;
}

static void update_node(struct exchange *x) {
    struct row row;
    struct node_row node;
    struct engine_node_spec said;
    json_t *json;
    uint64_t version;
    struct why why = {0};
    if (!find(x, &row, &node)) return;
    enum err e = decode_update(x, &version, &said, &json, &why);
    if (e != OK) {
        engine_error(x, e, why.text);
        return;
    }
    const struct node_spec spec = {.name = span_str(said.name),
                                   .role = said.role,
                                   .availability = said.availability,
                                   .labels = buf_span(&said.labels)};
    if (version != row.version)
        e = ERR_CONFLICT;
    else
        e = nodes_update(engine_manager(x), row.id, version, &spec, false, on_done, x, &why);
    buf_free(&said.labels);
    json_decref(json);
    if (e != OK) engine_rpc_error(x, e, why.text);
}

void engine_node_update(struct exchange *x) {
    struct engine_node_spec said;
    json_t *json;
    uint64_t version;
    struct why why = {0};
    enum err e = decode_update(x, &version, &said, &json, &why);
    if (e != OK) {
        engine_error(x, e, why.text);
        return;
    }
    buf_free(&said.labels);
    json_decref(json);
    engine_current(x, update_node);
}

static void remove_node(struct exchange *x) {
    struct row row;
    struct node_row node;
    struct why why = {0};
    bool force = engine_query_flag(x->head.query, "force");
    if (!find(x, &row, &node)) return;
    enum err e = OK;
    if (node.granted == NODE_MANAGER || node.desired == NODE_MANAGER)
        e = fail_with(&why, ERR_PRECONDITION,
                      "node %s is a cluster manager and is a member of the raft cluster. It must "
                      "be demoted to worker before removal",
                      row.id);
    else if (!force && node.state == NODE_READY)
        e = fail_with(&why, ERR_PRECONDITION, "node %s is not down and can't be removed", row.id);
    if (e == OK) e = nodes_remove(engine_manager(x), row.id, force, on_done, x, &why);
    if (e != OK) engine_rpc_error(x, e, why.text);
}

void engine_node_remove(struct exchange *x) { engine_current(x, remove_node); }
