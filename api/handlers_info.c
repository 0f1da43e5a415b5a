/* The table of routes, and what tells of the node: health, version, metrics, status, and etcd's two
 * ways to ask for it. These answer in every state. */
#include "api/api.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static const char json[] = "application/json";

static struct replica_status status_of(const struct api *api) {
    struct replica_status s = {0};
    if (api->manager->replica) replica_status(api->manager->replica, &s);
    return s;
}

static void handle_health(struct exchange *x) {
    const struct api *api = x->ctx;
    bool good = api->manager->state == MANAGER_RUNNING && api->manager->leader != 0;
    struct span body = span_str(good ? "{\"health\":\"true\",\"reason\":\"\"}"
                                : api->manager->state == MANAGER_RUNNING
                                    ? "{\"health\":\"false\",\"reason\":\"NO LEADER\"}"
                                    : "{\"health\":\"false\",\"reason\":\"NOT RUNNING\"}");
    exchange_answer(x, good ? 200 : 503, json, body);
}

static void handle_version(struct exchange *x) {
    exchange_answer(x, 200, json,
                    span_str("{\"etcdserver\":\"" ETCD_VERSION
                             "\",\"etcdcluster\":\"3.5.0\",\"conclave\":\"" CONCLAVE_VERSION
                             "\"}"));
}

/* --- metrics -------------------------------------------------------------------------------- */

static uint64_t resident_bytes(void) {
    unsigned long long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return 0;
    if (fscanf(f, "%llu %llu", &pages, &resident) != 2) resident = 0;
    (void)fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static RESULT metric(struct buf *out, const char *name, const char *type, const char *help,
                     uint64_t value) {
    return buf_format(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type,
                      name, value);
}

static RESULT write_metrics(const struct api *api, struct buf *out) {
    struct replica_status s = status_of(api);
    const struct store *store = api->manager->store;
    TRY(metric(out, "etcd_server_has_leader", "gauge", "1 when a leader is known", s.leader != 0));
    TRY(metric(out, "etcd_server_is_leader", "gauge", "1 when this node leads", s.leading));
    TRY(metric(out, "etcd_server_leader_changes_seen_total", "counter", "Leader changes seen",
               api->figures.leader_changes));
    TRY(metric(out, "etcd_server_proposals_committed_total", "gauge",
               "Index of the last committed entry", s.commit));
    TRY(metric(out, "etcd_server_proposals_applied_total", "gauge",
               "Index of the last applied entry", s.applied));
    TRY(metric(out, "etcd_server_proposals_failed_total", "counter", "Writes that did not end well",
               api->figures.failed));
    TRY(metric(out, "etcd_mvcc_put_total", "counter", "Puts requested here", api->figures.puts));
    TRY(metric(out, "etcd_mvcc_range_total", "counter", "Ranges requested here",
               api->figures.ranges));
    TRY(metric(out, "etcd_mvcc_delete_total", "counter", "Deletes requested here",
               api->figures.deletes));
    TRY(metric(out, "etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of keys and values",
               store ? store_bytes(store) : 0));
    TRY(metric(out, "etcd_debugging_mvcc_keys_total", "gauge", "Keys",
               store ? store_keys(store) : 0));
    TRY(metric(out, "conclave_raft_term", "gauge", "The present term", s.term));
    TRY(metric(out, "conclave_log_bytes", "gauge", "Bytes of the log that are kept", s.log_bytes));
    TRY(metric(out, "conclave_snapshot_index", "gauge", "Index of the last snapshot",
               s.snapshot_index));
    return metric(out, "process_resident_memory_bytes", "gauge", "Resident memory",
                  resident_bytes());
}

static void handle_metrics(struct exchange *x) {
    struct buf out = buf_new(64 * KIB);
    if (write_metrics(x->ctx, &out) == OK)
        exchange_answer(x, 200, "text/plain; version=0.0.4", buf_span(&out));
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_free(&out);
}

/* --- status --------------------------------------------------------------------------------- */

static const char *role_name(const struct replica_status *s) {
    for (unsigned i = 0; i < s->n; i++) {
        if (s->members[i].raft_id != s->raft_id) continue;
        if (s->leading) return "leader";
        return s->members[i].role == REPLICA_VOTER ? "voter" : "standby";
    }
    return "none";
}

static void put_quorum(struct jout *j, const struct api *api) {
    struct replica_status s = status_of(api);
    const struct manager *m = api->manager;
    const struct node *leader = cluster_node(store_cluster(m->store), s.leader);
    jout_put_text(j, "role", role_name(&s));
    jout_put_text(j, "leader", leader ? leader->name : "");
    jout_put_number(j, "term", s.term);
    jout_put_number(j, "commit", s.commit);
    jout_put_number(j, "applied", s.applied);
    jout_put_number(j, "log_first", s.first);
    jout_put_number(j, "log_last", s.last);
    jout_put_number(j, "log_bytes", s.log_bytes);
    jout_put_number(j, "snapshot", s.snapshot_index);
    jout_put_bool(j, "receiving_snapshot", s.installing);
    jout_put_number(j, "members", s.n);
    jout_put_number(j, "revision", store_revision(m->store));
    jout_put_number(j, "keys", store_keys(m->store));
    jout_put_number(j, "bytes", store_bytes(m->store));
    jout_put_hex(j, "hash", span_of(s.hash, sizeof s.hash));
    jout_put_bool(j, "autolock", store_cluster(m->store)->unlock_key != NULL);
}

static void put_node(struct jout *j, const struct api *api) {
    const struct manager *m = api->manager;
    static const char *const kinds[] = {"nothing", "unlock key", "passphrase", "key file"};
    int64_t from_s, to_s;
    enum kek_kind kind;
    jout_put_text(j, "name", m->self.name);
    jout_put_text(j, "id", m->self.node_id);
    jout_put_text(j, "cluster", m->self.cluster_id);
    jout_put_text(j, "client_address", m->self.client_address);
    jout_put_text(j, "peer_address", m->self.peer_address);
    jout_put_number(j, "key_generation", keyring_generation(m->keys));
    if (keyring_kind(m->disk, &kind, NULL) == OK) jout_put_text(j, "sealed_by", kinds[kind]);
    if (x509_dates(buf_span(&m->self.cert_pem), &from_s, &to_s) == OK)
        jout_put_number(j, "certificate_until", (uint64_t)to_s);
}

static void handle_status(struct exchange *x) {
    const struct api *api = x->ctx;
    const struct manager *m = api->manager;
    struct buf out = buf_new(64 * KIB);
    struct jout j;
    struct why why = {0};
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "version", CONCLAVE_VERSION);
    jout_put_text(&j, "state", manager_state_name(m->state));
    if (m->reason[0])
        jout_put_text(&j, "reason", m->reason);
    else if (manager_ready(m, &why) != OK)
        jout_put_text(&j, "reason", why.text);
    if (m->keys) put_node(&j, api);
    if (m->replica) put_quorum(&j, api);
    jout_close(&j, '}');
    if (jout_end(&j) == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_free(&out);
}

/* --- etcd's status and member list ---------------------------------------------------------- */

static void handle_etcd_status(struct exchange *x) {
    const struct api *api = x->ctx;
    if (!api_ready(x)) return;
    struct replica_status s = status_of(api);
    struct buf out = buf_new(64 * KIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    api_header(&j, api);
    jout_put_text(&j, "version", ETCD_VERSION);
    jout_put_quoted(&j, "dbSize", store_bytes(api->manager->store));
    jout_put_quoted(&j, "leader", s.leader);
    jout_put_quoted(&j, "raftIndex", s.commit);
    jout_put_quoted(&j, "raftTerm", s.term);
    jout_put_quoted(&j, "raftAppliedIndex", s.applied);
    jout_put_quoted(&j, "dbSizeInUse", store_bytes(api->manager->store));
    if (strcmp(role_name(&s), "standby") == 0) jout_put_bool(&j, "isLearner", true);
    jout_close(&j, '}');
    if (jout_end(&j) == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_free(&out);
}

static void put_url(struct jout *j, const char *key, const char *address) {
    char url[ADDRESS_MAX + 8];
    (void)snprintf(url, sizeof url, "https://%s", address);
    jout_key(j, key);
    jout_open(j, '[');
    jout_text(j, span_str(url));
    jout_close(j, ']');
}

static void put_etcd_member(struct jout *j, const struct replica_status *s,
                            const struct node *row) {
    bool learner = true;
    for (unsigned i = 0; i < s->n; i++)
        if (s->members[i].raft_id == row->raft_id) learner = s->members[i].role != REPLICA_VOTER;
    jout_open(j, '{');
    jout_put_quoted(j, "ID", row->raft_id);
    jout_put_text(j, "name", row->name);
    put_url(j, "peerURLs", row->peer_address);
    put_url(j, "clientURLs", row->client_address);
    if (learner) jout_put_bool(j, "isLearner", true);
    jout_close(j, '}');
}

static void handle_etcd_members(struct exchange *x) {
    const struct api *api = x->ctx;
    if (!api_ready(x)) return;
    struct replica_status s = status_of(api);
    const struct cluster *c = store_cluster(api->manager->store);
    struct buf out = buf_new(256 * KIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    api_header(&j, api);
    jout_key(&j, "members");
    jout_open(&j, '[');
    for (unsigned i = 0; i < c->n; i++)
        put_etcd_member(&j, &s, &c->nodes[i]);
    jout_close(&j, ']');
    jout_close(&j, '}');
    if (jout_end(&j) == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_free(&out);
}

/* --- routes --------------------------------------------------------------------------------- */

const struct route api_routes[] = {
    {HTTP_POST, "/v3/kv/range", ACCESS_CLIENT, handle_range},
    {HTTP_POST, "/v3/kv/put", ACCESS_CLIENT, handle_put},
    {HTTP_POST, "/v3/kv/deleterange", ACCESS_CLIENT, handle_delete},
    {HTTP_POST, "/v3/maintenance/status", ACCESS_CLIENT, handle_etcd_status},
    {HTTP_POST, "/v3/cluster/member/list", ACCESS_CLIENT, handle_etcd_members},
    {HTTP_GET, "/health", ACCESS_CLIENT, handle_health},
    {HTTP_GET, "/version", ACCESS_CLIENT, handle_version},
    {HTTP_GET, "/metrics", ACCESS_CLIENT, handle_metrics},
    {HTTP_GET, "/conclave/v1/status", ACCESS_CLIENT, handle_status},
    {HTTP_GET, "/conclave/v1/members", ACCESS_CLIENT, handle_members},
    {HTTP_POST, "/conclave/v1/init", ACCESS_ADMIN, handle_init},
    {HTTP_POST, "/conclave/v1/join", ACCESS_ADMIN, handle_join},
    {HTTP_POST, "/conclave/v1/leave", ACCESS_ADMIN, handle_leave},
    {HTTP_POST, "/conclave/v1/members/promote", ACCESS_ADMIN, handle_promote},
    {HTTP_POST, "/conclave/v1/members/demote", ACCESS_ADMIN, handle_demote},
    {HTTP_POST, "/conclave/v1/members/remove", ACCESS_ADMIN, handle_remove},
    {HTTP_POST, "/conclave/v1/members/transfer", ACCESS_ADMIN, handle_transfer},
    {HTTP_POST, "/conclave/v1/unlock", ACCESS_ADMIN, handle_unlock},
    {HTTP_POST, "/conclave/v1/lock", ACCESS_ADMIN, handle_lock},
    {HTTP_GET, "/conclave/v1/unlock-key", ACCESS_ADMIN, handle_unlock_key},
    {HTTP_POST, "/conclave/v1/unlock-key/rotate", ACCESS_ADMIN, handle_unlock_key_rotate},
    {HTTP_POST, "/conclave/v1/keys/rotate", ACCESS_ADMIN, handle_keys_rotate},
    {HTTP_POST, "/conclave/v1/token/rotate", ACCESS_ADMIN, handle_token_rotate},
    {HTTP_POST, "/conclave/v1/certificate", ACCESS_ADMIN, handle_certificate},
    {HTTP_GET, "/conclave/v1/backup", ACCESS_ADMIN, handle_backup},
    {HTTP_GET, NULL, ACCESS_CLIENT, NULL},
};
