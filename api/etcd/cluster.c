/* The Cluster service: etcd's view of the members. A member's number is its raft id. Members are
 * added by joining with a token, which gives them a certificate, so MemberAdd says how; the other
 * changes go to the leader as `conclave member` does it (admin.h). */
#include <stdio.h>
#include <stdlib.h>

#include "api/etcd/kv.h"

/* --- the list -------------------------------------------------------------------------------- */

#define URL_MAX (ADDRESS_MAX + 8)

struct member_row {
    Etcdserverpb__Member message;
    char name[NAME_MAX_SIZE + 1];
    char peer_url[URL_MAX], client_url[URL_MAX];
    char *peer_urls[1], *client_urls[1]; /* of the message */
};

struct member_list {
    size_t n;
    Etcdserverpb__Member *all[NODES_MAX]; /* of the message */
    struct member_row rows[NODES_MAX];
};

static bool is_learner(const struct replica_status *s, uint64_t raft_id) {
    for (unsigned i = 0; i < s->n; i++)
        if (s->members[i].raft_id == raft_id) return s->members[i].role != REPLICA_VOTER;
    return true;
}

static void fill_row(struct member_row *row, const struct node *node, bool learner,
                     const char *scheme) {
    row->message = (Etcdserverpb__Member)ETCDSERVERPB__MEMBER__INIT;
    (void)snprintf(row->name, sizeof row->name, "%s", node->name);
    (void)snprintf(row->peer_url, URL_MAX, "https://%s", node->peer_address);
    (void)snprintf(row->client_url, URL_MAX, "%s://%s", scheme, node->client_address);
    row->peer_urls[0] = row->peer_url;
    row->client_urls[0] = row->client_url;
    row->message.id = node->raft_id;
    row->message.name = row->name;
    row->message.n_peerurls = row->message.n_clienturls = 1;
    row->message.peerurls = row->peer_urls;
    row->message.clienturls = row->client_urls;
    row->message.islearner = learner;
}

static struct member_list *list_new(const struct api *api) {
    struct member_list *list = calloc(1, sizeof *list);
    const struct cluster *c = store_cluster(api->manager->store);
    struct replica_status s;
    if (list == NULL) return NULL;
    replica_status(api->manager->replica, &s);
    for (unsigned i = 0; i < c->n; i++) {
        const struct node *node = &c->nodes[i];
        struct member_row *row = &list->rows[list->n];
        fill_row(row, node, is_learner(&s, node->raft_id), api->insecure ? "http" : "https");
        list->all[list->n++] = &row->message;
    }
    return list;
}

/* All answers of this service are a header and the members, with the same field numbers but for
 * MemberAdd's, which is never answered. */
static void answer_list(struct rpc *r) {
    struct member_list *list = list_new(r->api);
    if (list == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    Etcdserverpb__ResponseHeader header;
    etcd_header_of(r->api, &header);
    Etcdserverpb__MemberListResponse answer = ETCDSERVERPB__MEMBER_LIST_RESPONSE__INIT;
    answer.header = &header;
    answer.n_members = list->n;
    answer.members = list->all;
    rpc_answer(r, &answer.base);
    free(list);
}

static void list_now(struct rpc *r, void *data) {
    (void)data;
    answer_list(r);
}

static void cluster_list(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__MemberListRequest *request = (const Etcdserverpb__MemberListRequest *)m;
    if (request->linearizable)
        etcd_read(r, list_now, NULL);
    else
        answer_list(r);
}

/* --- changes --------------------------------------------------------------------------------- */

static const struct node *row_of(const struct rpc *r, uint64_t id) {
    return cluster_node(store_cluster(r->api->manager->store), id);
}

static void fail_unknown(struct rpc *r) {
    rpc_fail(r, ERR_NOT_FOUND, "etcdserver: member not found");
}

static void cluster_add(struct rpc *r, const ProtobufCMessage *m) {
    (void)m;
    enum err e = caller_root(r->api, &r->caller);
    if (e == OK)
        rpc_fail(
            r, ERR_PRECONDITION,
            "etcdserver: a member is added by its own request with a join token: conclave join");
    else
        etcd_fail(r, e, NULL);
}

static void on_changed(struct rpc *r, enum err e, const char *text, void *data) {
    (void)data;
    if (r == NULL) return;
    if (e == OK)
        answer_list(r);
    else if (e == ERR_NOT_FOUND)
        fail_unknown(r);
    else
        etcd_fail(r, e, text);
}

static void change(struct rpc *r, uint64_t id, enum change_kind kind) {
    struct admin_request request = {.kind = ADMIN_CHANGE, .change = kind, .raft_id = id};
    etcd_ask(r, &request, on_changed, NULL);
}

static void cluster_remove(struct rpc *r, const ProtobufCMessage *m) {
    uint64_t id = ((const Etcdserverpb__MemberRemoveRequest *)m)->id;
    enum err e = caller_root(r->api, &r->caller);
    if (e != OK)
        etcd_fail(r, e, NULL);
    else if (row_of(r, id) == NULL)
        fail_unknown(r);
    else
        change(r, id, CHANGE_REMOVE);
}

static void cluster_promote(struct rpc *r, const ProtobufCMessage *m) {
    uint64_t id = ((const Etcdserverpb__MemberPromoteRequest *)m)->id;
    struct replica_status s;
    enum err e = caller_root(r->api, &r->caller);
    replica_status(r->api->manager->replica, &s);
    if (e != OK)
        etcd_fail(r, e, NULL);
    else if (row_of(r, id) == NULL)
        fail_unknown(r);
    else if (!is_learner(&s, id))
        rpc_fail(r, ERR_PRECONDITION, "etcdserver: can only promote a learner member");
    else
        change(r, id, CHANGE_PROMOTE);
}

static RESULT peer_address_of(const Etcdserverpb__MemberUpdateRequest *m, char out[ADDRESS_MAX]) {
    static const char scheme[] = "https://";
    if (m->n_peerurls != 1) return ERR_INVALID;
    const char *url = m->peerurls[0];
    if (strncmp(url, scheme, sizeof scheme - 1) != 0) return ERR_INVALID;
    const char *address = url + sizeof scheme - 1, *colon = strrchr(address, ':');
    if (colon == NULL || colon == address || strlen(address) >= ADDRESS_MAX) return ERR_INVALID;
    if (strspn(colon + 1, "0123456789") != strlen(colon + 1) || strchr(address, '/') != NULL)
        return ERR_INVALID;
    (void)snprintf(out, ADDRESS_MAX, "%s", address);
    return OK;
}

static void on_updated(struct rpc *r, const struct result *result, void *data) {
    (void)result;
    (void)data;
    answer_list(r);
}

static void cluster_update(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__MemberUpdateRequest *request = (const Etcdserverpb__MemberUpdateRequest *)m;
    const struct node *row = row_of(r, request->id);
    struct command c = {.op = OP_NODE_UPDATE};
    enum err e = caller_root(r->api, &r->caller);
    if (e == OK && row == NULL) {
        fail_unknown(r);
        return;
    }
    if (row != NULL) c.node = *row;
    if (e == OK) e = peer_address_of(request, c.node.peer_address);
    if (e == OK)
        etcd_write(r, &c, on_updated, NULL);
    else if (e == ERR_INVALID)
        rpc_fail(r, e, "etcdserver: given member URLs are invalid");
    else
        etcd_fail(r, e, NULL);
}

const struct method cluster_methods[] = {
    {"/etcdserverpb.Cluster/MemberAdd", "/v3/cluster/member/add", METHOD_UNARY, false, false,
     &etcdserverpb__member_add_request__descriptor, &etcdserverpb__member_add_response__descriptor,
     cluster_add, NULL, true},
    {"/etcdserverpb.Cluster/MemberRemove", "/v3/cluster/member/remove", METHOD_UNARY, false, false,
     &etcdserverpb__member_remove_request__descriptor,
     &etcdserverpb__member_remove_response__descriptor, cluster_remove, NULL, true},
    {"/etcdserverpb.Cluster/MemberUpdate", "/v3/cluster/member/update", METHOD_UNARY, false, false,
     &etcdserverpb__member_update_request__descriptor,
     &etcdserverpb__member_update_response__descriptor, cluster_update, NULL, true},
    {"/etcdserverpb.Cluster/MemberList", "/v3/cluster/member/list", METHOD_UNARY, true, false,
     &etcdserverpb__member_list_request__descriptor,
     &etcdserverpb__member_list_response__descriptor, cluster_list, NULL, false},
    {"/etcdserverpb.Cluster/MemberPromote", "/v3/cluster/member/promote", METHOD_UNARY, false,
     false, &etcdserverpb__member_promote_request__descriptor,
     &etcdserverpb__member_promote_response__descriptor, cluster_promote, NULL, true},
    {.path = NULL},
};
