/* Nodes: the list, one of them, and what an operator wants of one. Reads are of a state that is
 * known to be current; changes go through nodes.h, whose verdict is the answer. */
#include "api/api.h"
#include "api/ca/authority.h"
#include "api/node/nodes.h"
#include "api/words.h"
#include "store/node.h"

#include <stdio.h>

static int64_t wall(const struct exchange *x) {
    const struct api *api = x->ctx;
    return api->manager->clock.wall_s(&api->manager->clock);
}

/* --- finding one ---------------------------------------------------------------------------- */

/* `self`, an id, a name, the name that a manager was started with, the beginning of an id, a host
 * name that is one node's only. */
static RESULT find(const struct manager *m, const char *text, struct row *out, struct why *why) {
    const struct node *member;
    char id[NODE_ID_SIZE + 1];
    struct why other;
    if (text[0] == '\0') return fail_with(why, ERR_INVALID, "which node?");
    if (strcmp(text, "self") == 0) text = m->self.node_id;
    enum err e = row_find(m->store, ROW_NODE, text, out, why);
    if (e == OK) return OK;
    if (cluster_find(store_cluster(m->store), text, &member, &other) == OK &&
        row_get(m->store, ROW_NODE, member->id, out))
        return OK;
    if (e != ERR_NOT_FOUND) return e;
    unsigned n = node_row_of_host(m->store, span_str(text), id);
    if (n == 1 && row_get(m->store, ROW_NODE, id, out)) return OK;
    if (n > 1)
        return fail_with(why, ERR_INVALID, "more than one node has the host name %.64s; say an id",
                         text);
    return fail_with(why, ERR_NOT_FOUND, "there is no node %.64s", text);
}

/* --- showing -------------------------------------------------------------------------------- */

static void put_span(struct jout *j, const char *key, struct span text) {
    jout_key(j, key);
    jout_text(j, text);
}

static void put_certificate(struct jout *j, const struct api *api, const struct node_row *n,
                            int64_t now_s) {
    uint8_t issuer[NODE_DIGEST_SIZE];
    bool known = authority_issuer(store_cluster(api->manager->store), issuer) == OK;
    jout_key(j, "certificate");
    jout_open(j, '{');
    jout_put_text(j, "state", words_of_certificate(n->certificate));
    jout_put_number(j, "until_s", (uint64_t)n->not_after_s);
    jout_put_bool(j, "expired", n->not_after_s > 0 && now_s > n->not_after_s);
    jout_put_bool(j, "current", known && memcmp(issuer, n->issuer_digest, sizeof issuer) == 0);
    jout_put_hex(j, "key_digest", span_of(n->key_digest, NODE_DIGEST_SIZE));
    jout_put_hex(j, "issuer_digest", span_of(n->issuer_digest, NODE_DIGEST_SIZE));
    if (n->certificate == NODE_CERT_PENDING) {
        jout_put_hex(j, "wanted_digest", span_of(n->wanted_digest, NODE_DIGEST_SIZE));
        jout_put_bool(j, "approved", n->approved);
    }
    jout_close(j, '}');
}

static void put_description(struct jout *j, const struct node_row *n) {
    jout_put_text(j, "hostname", n->hostname);
    jout_put_text(j, "os", n->os);
    jout_put_text(j, "arch", n->arch);
    jout_put_text(j, "engine", n->engine);
    jout_put_number(j, "nano_cpus", n->nano_cpus);
    jout_put_number(j, "memory_bytes", n->memory_bytes);
}

static void put_node(struct jout *j, const struct api *api, const struct row *r,
                     const struct node_row *n, int64_t now_s) {
    struct node_member member;
    nodes_member(api->manager, n, &member);
    const struct node *named = cluster_node(store_cluster(api->manager->store), n->raft_id);
    jout_open(j, '{');
    jout_put_text(j, "id", r->id);
    put_span(j, "name", r->name.size > 0 || !named ? r->name : span_str(named->name));
    jout_put_number(j, "version", r->version);
    jout_put_number(j, "created_ns", (uint64_t)r->created_ns);
    jout_put_number(j, "updated_ns", (uint64_t)r->updated_ns);
    jout_put_text(j, "role", words_of_role(n->desired));
    jout_put_text(j, "granted", words_of_role(n->granted));
    jout_put_text(j, "availability", words_of_availability(n->availability));
    labels_put(j, "labels", n->labels);
    jout_put_text(j, "state", words_of_state(n->state));
    jout_put_text(j, "message", n->message);
    jout_put_text(j, "address", n->address);
    put_description(j, n);
    jout_put_bool(j, "member", member.member);
    jout_put_bool(j, "leader", member.leader);
    jout_put_bool(j, "reachable", member.reachable);
    jout_put_number(j, "raft_id", n->raft_id);
    jout_put_text(j, "client_address", n->client_address);
    jout_put_text(j, "peer_address", n->peer_address);
    jout_put_text(j, "token", n->token_id);
    put_certificate(j, api, n, now_s);
    jout_close(j, '}');
}

struct listing {
    struct jout j;
    const struct api *api;
    int64_t now_s;
};

static bool put_row(void *ctx, const struct row *r) {
    struct listing *l = ctx;
    struct node_row n;
    if (node_row_decode(r->body, &n) == OK) put_node(&l->j, l->api, r, &n, l->now_s);
    return l->j.error == OK;
}

static void list(struct exchange *x) {
    const struct api *api = x->ctx;
    struct buf out = buf_new(256 * MIB);
    struct listing l = {.api = api, .now_s = wall(x)};
    jout_start(&l.j, &out);
    jout_open(&l.j, '{');
    jout_put_text(&l.j, "self", api->manager->self.node_id);
    jout_put_bool(&l.j, "has_leader", api->manager->leader != 0);
    jout_key(&l.j, "nodes");
    jout_open(&l.j, '[');
    row_all(api->manager->store, ROW_NODE, put_row, &l);
    jout_close(&l.j, ']');
    jout_close(&l.j, '}');
    api_answer(x, &l.j, &out);
}

void handle_nodes(struct exchange *x) { api_current(x, list); }

static void show(struct exchange *x) {
    const struct api *api = x->ctx;
    char text[ROW_NAME_MAX + 1] = "";
    struct why why = {0};
    struct row row;
    struct node_row n;
    enum err e = http_query(x->head.query, "node", text, sizeof text);
    if (e == OK) e = find(api->manager, text, &row, &why);
    if (e == OK) e = node_row_decode(row.body, &n);
    if (e != OK) {
        api_fail(x, e, &why);
        return;
    }
    struct buf out = buf_new(256 * KIB);
    struct jout j;
    jout_start(&j, &out);
    put_node(&j, api, &row, &n, wall(x));
    api_answer(x, &j, &out);
}

/* ?node= */
void handle_node(struct exchange *x) { api_current(x, show); }

/* --- changing ------------------------------------------------------------------------------- */

typedef enum err change(struct exchange *x, const json_t *body, const struct row *row,
                        struct why *why);

/* The node that the body names, in the state as it is now. */
static void with_node(struct exchange *x, change *act) {
    const struct api *api = x->ctx;
    json_t *body;
    struct row row;
    struct why why = {0};
    if (!api_body(x, &body)) return;
    enum err e = find(api->manager, jin_string(body, "node"), &row, &why);
    if (e == OK) e = act(x, body, &row, &why);
    if (e != OK) api_fail(x, e, &why);
    json_decref(body);
}

static RESULT check_name(const char *name, struct why *why) {
    return name[0] == '\0' ? OK : name_check(name, why);
}

static enum err update(struct exchange *x, const json_t *body, const struct row *row,
                       struct why *why) {
    const struct api *api = x->ctx;
    struct node_row n;
    struct node_spec spec;
    char name[NAME_MAX_SIZE + 1] = "";
    struct buf labels = buf_new(2 * NODE_LABELS_BYTES);
    const char *availability = jin_string(body, "availability");
    TRY(node_row_decode(row->body, &n));
    nodes_spec(row, &n, &spec);
    if (availability[0]) TRY(words_availability(availability, &spec.availability, why));
    if (json_object_get(body, "name")) {
        TRY(jin_text(body, "name", name, sizeof name, why));
        TRY(check_name(name, why));
        spec.name = span_str(name);
    }
    enum err e = labels_change(n.labels, json_object_get(body, "labels_add"),
                               json_object_get(body, "labels_remove"), &labels, why);
    spec.labels = buf_span(&labels);
    if (e == OK)
        e = nodes_update(api->manager, row->id, row->version, &spec, false, api_done, x, why);
    buf_free(&labels);
    return e;
}

static RESULT force_of(const json_t *body, bool *out, struct why *why) {
    *out = false;
    return jin_bool(body, "force", out, why);
}

static enum err promote(struct exchange *x, const json_t *body, const struct row *row,
                        struct why *why) {
    const struct api *api = x->ctx;
    (void)body;
    return nodes_role(api->manager, row->id, NODE_MANAGER, false, api_done, x, why);
}

static enum err demote(struct exchange *x, const json_t *body, const struct row *row,
                       struct why *why) {
    const struct api *api = x->ctx;
    bool force;
    TRY(force_of(body, &force, why));
    return nodes_role(api->manager, row->id, NODE_WORKER, force, api_done, x, why);
}

static enum err remove_one(struct exchange *x, const json_t *body, const struct row *row,
                           struct why *why) {
    const struct api *api = x->ctx;
    bool force;
    TRY(force_of(body, &force, why));
    return nodes_remove(api->manager, row->id, force, api_done, x, why);
}

static enum err approve(struct exchange *x, const json_t *body, const struct row *row,
                        struct why *why) {
    const struct api *api = x->ctx;
    (void)body;
    return nodes_approve(api->manager, row->id, api_done, x, why);
}

/* The node's wish is forgotten; its certificate stays what it was: over. */
static enum err deny(struct exchange *x, const json_t *body, const struct row *row,
                     struct why *why) {
    struct node_row n;
    struct buf bytes = buf_new(ROW_BODY_MAX);
    (void)body;
    TRY(node_row_decode(row->body, &n));
    if (n.certificate != NODE_CERT_PENDING)
        return fail_with(why, ERR_PRECONDITION, "the node does not ask to come back");
    n.certificate = NODE_CERT_ISSUED;
    n.approved = false;
    memset(n.wanted_digest, 0, sizeof n.wanted_digest);
    enum err e = node_row_encode(&n, &bytes);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_NODE,
                           .version = row->version,
                           .name = row->name,
                           .body = buf_span(&bytes)};
    memcpy(c.id, row->id, sizeof c.id);
    if (e == OK) api_rows(x, &c, 1, api_empty, NULL);
    buf_free(&bytes);
    return e;
}

static void now_update(struct exchange *x) { with_node(x, update); }
static void now_promote(struct exchange *x) { with_node(x, promote); }
static void now_demote(struct exchange *x) { with_node(x, demote); }
static void now_remove(struct exchange *x) { with_node(x, remove_one); }
static void now_approve(struct exchange *x) { with_node(x, approve); }
static void now_deny(struct exchange *x) { with_node(x, deny); }

/* {"node", "availability", "name", "labels_add": {}, "labels_remove": []}: what is there changes */
void handle_node_update(struct exchange *x) { api_current(x, now_update); }
/* {"node", "force"} */
void handle_node_promote(struct exchange *x) { api_current(x, now_promote); }
void handle_node_demote(struct exchange *x) { api_current(x, now_demote); }
void handle_node_remove(struct exchange *x) { api_current(x, now_remove); }
void handle_node_approve(struct exchange *x) { api_current(x, now_approve); }
void handle_node_deny(struct exchange *x) { api_current(x, now_deny); }
