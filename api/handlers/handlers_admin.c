/* The cluster and its members: init, join, leave, the list, and the four changes. What only the
 * leader can do goes to it as a call (admin.h), from whichever member was asked. */
#include "api/api.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/etcd/health.h"
#include "api/node/nodes.h"
#include "api/rpc/rpc.h"

/* --- init and join -------------------------------------------------------------------------- */

static void put_secrets(struct jout *j, const struct manager *m) {
    char token[JOIN_TOKEN_TEXT], key[UNLOCK_KEY_TEXT];
    if (m->self.token && token_format(buf_span(&m->self.root_pem), m->self.token, token) == OK)
        jout_put_text(j, "token", token);
    if (m->self.unlock_key && unlock_key_format(m->self.unlock_key, key) == OK)
        jout_put_text(j, "unlock_key", key);
    sodium_memzero(token, sizeof token);
    sodium_memzero(key, sizeof key);
}

static void on_member(void *ctx, enum err e, const char *text) {
    struct exchange *x = ctx;
    const struct api *api = x->ctx;
    const struct manager *m = api->manager;
    if (e != OK) {
        exchange_error(x, e, text);
        return;
    }
    struct buf out = buf_new(4 * KIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "id", m->self.node_id);
    jout_put_text(&j, "name", m->self.name);
    jout_put_text(&j, "cluster", m->self.cluster_id);
    jout_put_text(&j, "peer_address", m->self.peer_address);
    put_secrets(&j, m);
    jout_close(&j, '}');
    if (jout_end(&j) == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_wipe(&out);
}

static RESULT read_init(struct exchange *x, json_t *body, bool *autolock, struct why *why) {
    struct api *api = x->ctx;
    struct buf chain = buf_new(PEM_MAX);
    struct secret *key = NULL;
    TRY(jin_bool(body, "autolock", autolock, why));
    enum err e = api_chain(x, body, &chain, &key, why);
    if (e == OK && chain.size > 0) e = manager_own_ca(api->manager, buf_span(&chain), key, why);
    buf_free(&chain);
    secret_free(key);
    return e;
}

/* {"autolock", "chain", "key"}: the last two are a root of one's own (PEM). */
void handle_init(struct exchange *x) {
    struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    bool autolock = false;
    if (!api_body(x, &body)) return;
    enum err e = read_init(x, body, &autolock, &why);
    json_decref(body);
    if (e == OK) e = manager_init(api->manager, autolock, on_member, x, &why);
    if (e != OK) api_fail(x, e, &why);
}

void handle_join(struct exchange *x) {
    struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    char address[ADDRESS_MAX] = "", token[128] = "";
    if (!api_body(x, &body)) return;
    enum err e = jin_text(body, "address", address, sizeof address, &why);
    if (e == OK) e = jin_text(body, "token", token, sizeof token, &why);
    if (e == OK) e = manager_join(api->manager, address, token, on_member, x, &why);
    sodium_memzero(token, sizeof token);
    jin_wipe(body);
    json_decref(body);
    if (e != OK) api_fail(x, e, &why);
}

/* --- calls to the leader -------------------------------------------------------------------- */

typedef void asked(struct exchange *x, const struct admin_request *request, enum err e,
                   struct span answer);

struct ask {
    struct call call;
    struct buf bytes;
    struct exchange *x;
    struct admin_request request;
    asked *done;
};

static void on_answer(struct call *c, enum err e, struct span answer) {
    struct ask *a = c->ctx;
    a->done(a->x, &a->request, e, answer);
    buf_free(&a->bytes);
    free(a);
}

static void ask_leader(struct exchange *x, const struct admin_request *request, asked *done) {
    struct api *api = x->ctx;
    struct ask *a = calloc(1, sizeof *a);
    enum err e = a ? OK : ERR_NOMEM;
    if (a) {
        *a = (struct ask){.bytes = buf_new(64), .x = x, .request = *request, .done = done};
        e = admin_encode(request, &a->bytes);
        a->call = (struct call){.request = buf_span(&a->bytes), .done = on_answer, .ctx = a};
        if (e == OK) e = replica_call(api->manager->replica, &a->call);
        if (e == OK) return;
        buf_free(&a->bytes);
        free(a);
    }
    exchange_error(x, e, NULL);
}

static void answer_empty(struct exchange *x, const struct admin_request *request, enum err e,
                         struct span answer) {
    struct why why;
    (void)request;
    if (e == OK)
        exchange_answer(x, 200, "application/json", span_str("{}"));
    else
        exchange_error(x, e, manager_text(e, answer, &why));
}

/* --- members -------------------------------------------------------------------------------- */

static void put_member(struct jout *j, const struct node *row, const struct admin_members *all) {
    const struct replica_member *member = NULL;
    for (unsigned i = 0; i < all->n; i++)
        if (all->members[i].raft_id == row->raft_id) member = &all->members[i];
    const char *role = !member ? "pending" : member->role == REPLICA_VOTER ? "voter" : "standby";
    if (row->raft_id == all->leader) role = "leader";
    jout_open(j, '{');
    jout_put_text(j, "id", row->id);
    jout_put_text(j, "name", row->name);
    jout_put_number(j, "raft_id", row->raft_id);
    jout_put_text(j, "role", role);
    jout_put_bool(j, "reachable", member && member->active);
    jout_put_number(j, "match", member ? member->match : 0);
    jout_put_text(j, "client_address", row->client_address);
    jout_put_text(j, "peer_address", row->peer_address);
    jout_put_number(j, "joined", (uint64_t)row->joined_s);
    jout_close(j, '}');
}

/* Without a leader the members are listed as this node sees them. */
static void local_members(const struct manager *m, struct admin_members *out) {
    struct replica_status s;
    replica_status(m->replica, &s);
    *out = (struct admin_members){.leader = s.leader, .n = s.n};
    memcpy(out->members, s.members, sizeof s.members);
    for (unsigned i = 0; i < s.n; i++)
        out->members[i].active = s.members[i].raft_id == s.raft_id ||
                                 (m->peers && peers_is_connected(m->peers, s.members[i].raft_id));
}

static void answer_members(struct exchange *x, const struct admin_request *request, enum err e,
                           struct span answer) {
    (void)request;
    const struct api *api = x->ctx;
    const struct manager *m = api->manager;
    struct admin_members all;
    if (!api_ready(x)) return;
    if (e != OK || admin_decode_members(answer, &all) != OK) local_members(m, &all);
    const struct cluster *c = store_cluster(m->store);
    struct buf out = buf_new(256 * KIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "self", m->self.node_id);
    jout_put_bool(&j, "has_leader", all.leader != 0);
    jout_key(&j, "members");
    jout_open(&j, '[');
    for (unsigned i = 0; i < c->n; i++)
        put_member(&j, &c->nodes[i], &all);
    jout_close(&j, ']');
    jout_close(&j, '}');
    if (jout_end(&j) == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_free(&out);
}

void handle_members(struct exchange *x) {
    const struct api *api = x->ctx;
    struct admin_request request = {.kind = ADMIN_MEMBERS};
    if (!api_ready(x)) return;
    if (api->manager->leader == 0)
        answer_members(x, &request, ERR_NO_LEADER, span_of(NULL, 0));
    else
        ask_leader(x, &request, answer_members);
}

static RESULT parse_change(struct exchange *x, struct admin_request *out, struct why *why) {
    const struct api *api = x->ctx;
    json_t *body;
    char name[NAME_MAX_SIZE + 1] = "";
    const struct node *row;
    TRY(jin_parse(x->body, &body, why));
    enum err e = jin_text(body, "member", name, sizeof name, why);
    if (e == OK) e = jin_bool(body, "force", &out->force, why);
    json_decref(body);
    if (e == OK) e = manager_ready(api->manager, why);
    if (e != OK) return e;
    if (!name[0] && out->kind == ADMIN_TRANSFER) return OK; /* to whoever is most up to date */
    TRY(cluster_find(store_cluster(api->manager->store), name, &row, why));
    out->raft_id = row->raft_id;
    return OK;
}

static void change_member(struct exchange *x, struct admin_request request) {
    struct why why = {0};
    enum err e = parse_change(x, &request, &why);
    if (e == OK)
        ask_leader(x, &request, answer_empty);
    else
        api_fail(x, e, &why);
}

void handle_promote(struct exchange *x) {
    change_member(x, (struct admin_request){.kind = ADMIN_CHANGE, .change = CHANGE_PROMOTE});
}

void handle_demote(struct exchange *x) {
    change_member(x, (struct admin_request){.kind = ADMIN_CHANGE, .change = CHANGE_DEMOTE});
}

void handle_remove(struct exchange *x) {
    change_member(x, (struct admin_request){.kind = ADMIN_CHANGE, .change = CHANGE_REMOVE});
}

/* --- transfer ------------------------------------------------------------------------------- */

/* Whoever asks the old leader for a hand-over may see the leader change before the answer, which
 * then never comes: the outcome is read from who leads next. */
struct transfer {
    struct exchange *x;
    uint64_t wanted; /* raft id; 0: anybody */
    uint64_t before; /* who led when it was asked; its name may still be told for a moment */
    struct transfer *next;
};

static void end_transfer(struct transfer **at, enum err e, const char *text) {
    struct transfer *t = *at;
    struct exchange *x = t->x;
    *at = t->next;
    free(t);
    if (e == OK)
        exchange_answer(x, 200, "application/json", span_str("{}"));
    else
        exchange_error(x, e, text);
}

void api_led(struct api *api) {
    uint64_t leader = api->manager->leader;
    api->figures.leader_changes++;
    rpcs_no_leader(api);
    health_changed(api);
    for (struct transfer **at = &api->transfers; leader != 0 && *at;) {
        const struct transfer *t = *at;
        if (leader == t->before)
            at = &(*at)->next;
        else if (t->wanted == 0 || t->wanted == leader)
            end_transfer(at, OK, "");
        else
            end_transfer(at, ERR_TIMEOUT, "another member has taken the leadership");
    }
}

void api_stop_transfers(struct api *api) {
    while (api->transfers)
        end_transfer(&api->transfers, ERR_CLOSED, "the node is stopping");
}

static void on_transferred(struct exchange *x, const struct admin_request *request, enum err e,
                           struct span answer) {
    struct api *api = x->ctx;
    struct transfer *t = e == ERR_MAYBE_APPLIED ? calloc(1, sizeof *t) : NULL;
    if (!t) {
        answer_empty(x, request, e, answer);
        return;
    }
    *t = (struct transfer){
        .x = x, .wanted = request->raft_id, .before = request->leader, .next = api->transfers};
    api->transfers = t;
}

void handle_transfer(struct exchange *x) {
    const struct api *api = x->ctx;
    struct admin_request request = {.kind = ADMIN_TRANSFER, .leader = api->manager->leader};
    struct why why = {0};
    enum err e = parse_change(x, &request, &why);
    if (e == OK)
        ask_leader(x, &request, on_transferred);
    else
        api_fail(x, e, &why);
}

/* --- leave ---------------------------------------------------------------------------------- */

static void on_left(void *ctx, enum err e, const char *text) {
    answer_empty(ctx, NULL, e, span_str(text));
}

void handle_leave(struct exchange *x) {
    struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    bool force = false;
    if (!api_body(x, &body)) return;
    enum err e = jin_bool(body, "force", &force, &why);
    json_decref(body);
    if (e == OK) e = nodes_leave(api->manager, force, on_left, x, &why);
    if (e != OK) api_fail(x, e, &why);
}
