/* The table of routes, and what tells of the node: version and status. These
 * answer in every state. */
#include "api/api.h"
#include "api/node/nodes.h"
#include "api/secret/vault.h"

#include <stdio.h>

static const char json[] = "application/json";

static struct replica_status status_of(const struct api *api) {
    struct replica_status s = {0};
    if (api->manager->replica) replica_status(api->manager->replica, &s);
    return s;
}

static void handle_version(struct exchange *x) {
    exchange_answer(x, 200, json,
                    span_str("{\"etcdserver\":\"" ETCD_VERSION
                             "\",\"etcdcluster\":\"3.5.0\",\"conclave\":\"" CONCLAVE_VERSION
                             "\"}"));
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

/* One word for people: "ready (epoch 2)", "rotating (epoch 2 to 3)", or why values can't be
 * opened. */
static void put_vault(struct jout *j, const struct manager *m) {
    struct vault_status v;
    char text[WHY_MAX + 64];
    vault_status(m, &v);
    if (v.ready && v.next > 0)
        (void)snprintf(text, sizeof text, "rotating (epoch %u to %u)", v.current, v.next);
    else if (v.ready)
        (void)snprintf(text, sizeof text, "ready (epoch %u)", v.current);
    else
        (void)snprintf(text, sizeof text, "not ready: %s", v.text);
    jout_put_text(j, "cluster_key", text);
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
    put_vault(j, m);
}

static void put_node(struct jout *j, const struct api *api) {
    const struct manager *m = api->manager;
    static const char *const kinds[] = {"nothing", "unlock key", "passphrase", "key file"};
    int64_t from_s, to_s;
    enum kek_kind kind;
    struct node_self self;
    jout_put_text(j, "name", m->self.name);
    jout_put_text(j, "id", m->self.node_id);
    jout_put_text(j, "cluster", m->self.cluster_id);
    jout_put_text(j, "client_address", m->self.client_address);
    jout_put_text(j, "peer_address", m->self.peer_address);
    jout_put_number(j, "key_generation", keyring_generation(m->keys));
    if (keyring_kind(m->disk, &kind, NULL) == OK) jout_put_text(j, "sealed_by", kinds[kind]);
    if (x509_dates(buf_span(&m->self.cert_pem), &from_s, &to_s) == OK)
        jout_put_number(j, "certificate_until", (uint64_t)to_s);
    nodes_self(m, &self);
    jout_put_text(j, "session", self.manager);
    jout_put_bool(j, "pending", self.pending);
    if (self.trouble[0]) jout_put_text(j, "trouble", self.trouble);
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

/* --- routes --------------------------------------------------------------------------------- */

const struct route api_routes[] = {
    {HTTP_GET, "/health", ACCESS_CLIENT, handle_health, false},
    {HTTP_GET, "/livez", ACCESS_CLIENT, handle_livez, false},
    {HTTP_GET, "/livez/serializable_read", ACCESS_CLIENT, handle_check, false},
    {HTTP_GET, "/readyz", ACCESS_CLIENT, handle_readyz, false},
    {HTTP_GET, "/readyz/data_corruption", ACCESS_CLIENT, handle_check, false},
    {HTTP_GET, "/readyz/serializable_read", ACCESS_CLIENT, handle_check, false},
    {HTTP_GET, "/readyz/linearizable_read", ACCESS_CLIENT, handle_check, false},
    {HTTP_GET, "/readyz/non_learner", ACCESS_CLIENT, handle_check, false},
    {HTTP_GET, "/version", ACCESS_CLIENT, handle_version, false},
    {HTTP_GET, "/metrics", ACCESS_CLIENT, handle_metrics, false},
    {HTTP_GET, "/conclave/v1/status", ACCESS_CLIENT, handle_status, false},
    {HTTP_GET, "/conclave/v1/members", ACCESS_CLIENT, handle_members, false},
    {HTTP_POST, "/conclave/v1/init", ACCESS_ADMIN, handle_init, false},
    {HTTP_POST, "/conclave/v1/join", ACCESS_ADMIN, handle_join, false},
    {HTTP_POST, "/conclave/v1/leave", ACCESS_ADMIN, handle_leave, false},
    {HTTP_POST, "/conclave/v1/members/promote", ACCESS_ADMIN, handle_promote, false},
    {HTTP_POST, "/conclave/v1/members/demote", ACCESS_ADMIN, handle_demote, false},
    {HTTP_POST, "/conclave/v1/members/remove", ACCESS_ADMIN, handle_remove, false},
    {HTTP_POST, "/conclave/v1/members/transfer", ACCESS_ADMIN, handle_transfer, false},
    {HTTP_POST, "/conclave/v1/unlock", ACCESS_ADMIN, handle_unlock, false},
    {HTTP_POST, "/conclave/v1/lock", ACCESS_ADMIN, handle_lock, false},
    {HTTP_GET, "/conclave/v1/unlock-key", ACCESS_ADMIN, handle_unlock_key, false},
    {HTTP_POST, "/conclave/v1/unlock-key/rotate", ACCESS_ADMIN, handle_unlock_key_rotate, false},
    {HTTP_POST, "/conclave/v1/keys/rotate", ACCESS_ADMIN, handle_keys_rotate, false},
    {HTTP_GET, "/conclave/v1/tokens", ACCESS_ADMIN, handle_tokens, false},
    {HTTP_POST, "/conclave/v1/tokens/create", ACCESS_ADMIN, handle_token_create, false},
    {HTTP_POST, "/conclave/v1/tokens/remove", ACCESS_ADMIN, handle_token_remove, false},
    {HTTP_GET, "/conclave/v1/tokens/show", ACCESS_ADMIN, handle_token_show, false},
    {HTTP_POST, "/conclave/v1/tokens/rotate", ACCESS_ADMIN, handle_token_rotate, false},
    {HTTP_POST, "/conclave/v1/run", ACCESS_ADMIN, handle_run, false},
    {HTTP_GET, "/conclave/v1/nodes", ACCESS_ADMIN, handle_nodes, false},
    {HTTP_GET, "/conclave/v1/nodes/inspect", ACCESS_ADMIN, handle_node, false},
    {HTTP_POST, "/conclave/v1/nodes/update", ACCESS_ADMIN, handle_node_update, false},
    {HTTP_POST, "/conclave/v1/nodes/promote", ACCESS_ADMIN, handle_node_promote, false},
    {HTTP_POST, "/conclave/v1/nodes/demote", ACCESS_ADMIN, handle_node_demote, false},
    {HTTP_POST, "/conclave/v1/nodes/remove", ACCESS_ADMIN, handle_node_remove, false},
    {HTTP_POST, "/conclave/v1/nodes/approve", ACCESS_ADMIN, handle_node_approve, false},
    {HTTP_POST, "/conclave/v1/nodes/deny", ACCESS_ADMIN, handle_node_deny, false},
    {HTTP_GET, "/conclave/v1/ca", ACCESS_ADMIN, handle_ca, false},
    {HTTP_POST, "/conclave/v1/ca/rotate", ACCESS_ADMIN, handle_ca_rotate, false},
    {HTTP_POST, "/conclave/v1/ca/abort", ACCESS_ADMIN, handle_ca_abort, false},
    {HTTP_POST, "/conclave/v1/ca/force", ACCESS_ADMIN, handle_ca_force, false},
    {HTTP_POST, "/conclave/v1/ca/set", ACCESS_ADMIN, handle_ca_set, false},
    {HTTP_GET, "/conclave/v1/secrets", ACCESS_ADMIN, handle_held, false},
    {HTTP_GET, "/conclave/v1/secrets/inspect", ACCESS_ADMIN, handle_held_inspect, false},
    {HTTP_POST, "/conclave/v1/secrets/create", ACCESS_ADMIN, handle_held_create, false},
    {HTTP_POST, "/conclave/v1/secrets/put", ACCESS_ADMIN, handle_held_put, false},
    {HTTP_POST, "/conclave/v1/secrets/update", ACCESS_ADMIN, handle_held_update, false},
    {HTTP_POST, "/conclave/v1/secrets/remove", ACCESS_ADMIN, handle_held_remove, false},
    {HTTP_POST, "/conclave/v1/secrets/shred", ACCESS_ADMIN, handle_secret_shred, false},
    {HTTP_GET, "/conclave/v1/configs", ACCESS_ADMIN, handle_held, false},
    {HTTP_GET, "/conclave/v1/configs/inspect", ACCESS_ADMIN, handle_held_inspect, false},
    {HTTP_GET, "/conclave/v1/configs/value", ACCESS_ADMIN, handle_config_value, false},
    {HTTP_POST, "/conclave/v1/configs/create", ACCESS_ADMIN, handle_held_create, false},
    {HTTP_POST, "/conclave/v1/configs/put", ACCESS_ADMIN, handle_held_put, false},
    {HTTP_POST, "/conclave/v1/configs/update", ACCESS_ADMIN, handle_held_update, false},
    {HTTP_POST, "/conclave/v1/configs/remove", ACCESS_ADMIN, handle_held_remove, false},
    {HTTP_GET, "/conclave/v1/services", ACCESS_ADMIN, handle_services, false},
    {HTTP_GET, "/conclave/v1/services/inspect", ACCESS_ADMIN, handle_service, false},
    {HTTP_GET, "/conclave/v1/services/tasks", ACCESS_ADMIN, handle_service_tasks, false},
    {HTTP_POST, "/conclave/v1/services/create", ACCESS_ADMIN, handle_service_create, false},
    {HTTP_POST, "/conclave/v1/services/update", ACCESS_ADMIN, handle_service_update, false},
    {HTTP_POST, "/conclave/v1/services/scale", ACCESS_ADMIN, handle_service_scale, false},
    {HTTP_POST, "/conclave/v1/services/remove", ACCESS_ADMIN, handle_service_remove, false},
    {HTTP_GET, "/conclave/v1/vault", ACCESS_ADMIN, handle_vault, false},
    {HTTP_POST, "/conclave/v1/vault/rotate", ACCESS_ADMIN, handle_vault_rotate, false},
    {HTTP_POST, "/conclave/v1/vault/escrow", ACCESS_ADMIN, handle_vault_escrow, false},
    {HTTP_POST, "/conclave/v1/vault/import", ACCESS_ADMIN, handle_vault_import, false},
    {HTTP_GET, "/conclave/v1/audit", ACCESS_ADMIN, handle_audit, false},
    {HTTP_GET, "/conclave/v1/audit/head", ACCESS_ADMIN, handle_audit_head, false},
    {HTTP_POST, "/conclave/v1/certificate", ACCESS_ADMIN, handle_certificate, false},
    {HTTP_GET, "/conclave/v1/backup-key", ACCESS_ADMIN, handle_backup_key, false},
    {HTTP_POST, "/conclave/v1/import", ACCESS_ADMIN, handle_import, false},
    {HTTP_POST, "/conclave/v1/reload", ACCESS_ADMIN, handle_reload, false},
    {HTTP_GET, "/conclave/v1/backup", ACCESS_ADMIN, handle_backup, false},
    {HTTP_GET, NULL, ACCESS_CLIENT, NULL, false},
};
