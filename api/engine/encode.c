/* See encode.h. The order of fields is that of docker's structs, so that a reader can compare. */
#include "api/engine/encode.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define NS_PER_S 1000000000LL

const char *engine_role(enum node_role role) { return role == NODE_MANAGER ? "manager" : "worker"; }

const char *engine_availability(enum node_availability a) {
    return a == NODE_PAUSE ? "pause" : a == NODE_DRAIN ? "drain" : "active";
}

const char *engine_state(enum node_state s) {
    switch (s) {
    case NODE_DOWN: return "down";
    case NODE_READY: return "ready";
    case NODE_DISCONNECTED: return "disconnected";
    case NODE_UNKNOWN: break;
    }
    return "unknown";
}

/* --- values ----------------------------------------------------------------------------------- */

void engine_put_time(struct jout *j, const char *key, int64_t ns) {
    int64_t whole = ns / NS_PER_S, rest = ns % NS_PER_S;
    if (rest < 0) {
        rest += NS_PER_S;
        whole--;
    }
    time_t seconds = (time_t)whole;
    struct tm tm = {0};
    char text[64], fraction[16] = "";
    (void)gmtime_r(&seconds, &tm);
    size_t size = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest > 0) { /* without zeros at the end */
        int digits = snprintf(fraction, sizeof fraction, ".%09" PRId64, rest);
        while (fraction[digits - 1] == '0')
            fraction[--digits] = 0;
    }
    (void)snprintf(text + size, sizeof text - size, "%sZ", fraction);
    jout_put_text(j, key, text);
}

void engine_put_signed(struct jout *j, const char *key, int64_t value) {
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    jout_key(j, key);
    jout_raw(j, span_str(text));
}

static void put_span(struct jout *j, const char *key, struct span text) {
    jout_key(j, key);
    jout_text(j, text);
}

/* Left out when it is empty. */
static void put_some(struct jout *j, const char *key, const char *text) {
    if (text[0]) jout_put_text(j, key, text);
}

static void put_some_number(struct jout *j, const char *key, uint64_t value) {
    if (value) jout_put_number(j, key, value);
}

static void put_strings(struct jout *j, const char *key, const char *text) {
    jout_key(j, key);
    jout_open(j, '[');
    if (text) jout_text(j, span_str(text));
    jout_close(j, ']');
}

void engine_put_labels(struct jout *j, const char *key, struct span labels) {
    struct cursor c = cursor_of(labels);
    struct span name, value;
    jout_key(j, key);
    jout_open(j, '{');
    while (labels_next(&c, &name, &value)) {
        jout_key_span(j, name);
        jout_text(j, value);
    }
    jout_close(j, '}');
}

static void put_meta(struct jout *j, const struct row *row) {
    jout_key(j, "Version");
    jout_open(j, '{');
    jout_put_number(j, "Index", row->version);
    jout_close(j, '}');
    engine_put_time(j, "CreatedAt", row->created_ns);
    engine_put_time(j, "UpdatedAt", row->updated_ns);
}

static void put_base64(struct jout *j, const char *key, struct span bytes) {
    if (bytes.size == 0) return;
    jout_key(j, key);
    jout_base64(j, bytes);
}

static void put_tls(struct jout *j, const struct engine_tls *tls) {
    jout_key(j, "TLSInfo");
    jout_open(j, '{');
    if (tls->trust_root.size > 0) put_span(j, "TrustRoot", tls->trust_root);
    put_base64(j, "CertIssuerSubject", tls->subject);
    put_base64(j, "CertIssuerPublicKey", tls->public_key);
    jout_close(j, '}');
}

/* --- the cluster ------------------------------------------------------------------------------ */

static void put_external(struct jout *j, const struct spec *s) {
    if (s->n_external == 0) return;
    jout_key(j, "ExternalCAs");
    jout_open(j, '[');
    for (unsigned i = 0; i < s->n_external; i++) {
        const struct external_ca *ca = &s->external[i];
        jout_open(j, '{');
        jout_put_text(j, "Protocol", "cfssl");
        jout_put_text(j, "URL", ca->url);
        if (ca->options.size > 0) engine_put_labels(j, "Options", ca->options);
        put_span(j, "CACert", ca->ca_pem);
        jout_close(j, '}');
    }
    jout_close(j, ']');
}

static uint64_t or_default(uint64_t value, uint64_t otherwise) { return value ? value : otherwise; }

static void put_raft(struct jout *j, const struct spec *s) {
    jout_key(j, "Raft");
    jout_open(j, '{');
    jout_put_number(j, "SnapshotInterval",
                    or_default(s->snapshot_interval, ENGINE_SNAPSHOT_INTERVAL));
    jout_put_number(j, "KeepOldSnapshots", s->keep_old_snapshots);
    jout_put_number(j, "LogEntriesForSlowFollowers",
                    or_default(s->log_entries, ENGINE_LOG_ENTRIES));
    jout_put_number(j, "ElectionTick", or_default(s->election_tick, ENGINE_ELECTION_TICK));
    jout_put_number(j, "HeartbeatTick", or_default(s->heartbeat_tick, ENGINE_HEARTBEAT_TICK));
    jout_close(j, '}');
}

static void put_ca(struct jout *j, const struct spec *s) {
    int64_t validity_s = s->cert_validity_s > 0 ? s->cert_validity_s : CERT_VALIDITY_S;
    jout_key(j, "CAConfig");
    jout_open(j, '{');
    engine_put_signed(j, "NodeCertExpiry", validity_s * NS_PER_S);
    put_external(j, s);
    put_some_number(j, "ForceRotate", s->force_rotate);
    jout_close(j, '}');
}

static void put_spec(struct jout *j, const struct engine_cluster *c) {
    const struct spec *s = c->spec;
    jout_key(j, "Spec");
    jout_open(j, '{');
    jout_put_text(j, "Name", "default");
    engine_put_labels(j, "Labels", s->labels);
    jout_key(j, "Orchestration");
    jout_open(j, '{');
    engine_put_signed(j, "TaskHistoryRetentionLimit",
                      s->task_history > 0 ? s->task_history : ENGINE_TASK_HISTORY);
    jout_close(j, '}');
    put_raft(j, s);
    jout_key(j, "Dispatcher");
    jout_open(j, '{');
    engine_put_signed(j, "HeartbeatPeriod",
                      s->heartbeat_ns > 0 ? s->heartbeat_ns : HEARTBEAT_PERIOD_NS);
    jout_close(j, '}');
    put_ca(j, s);
    jout_key(j, "TaskDefaults");
    jout_open(j, '{');
    jout_close(j, '}');
    jout_key(j, "EncryptionConfig");
    jout_open(j, '{');
    jout_put_bool(j, "AutoLockManagers", c->autolock);
    jout_close(j, '}');
    jout_close(j, '}');
}

static void put_cluster_fields(struct jout *j, const struct engine_cluster *c) {
    jout_put_text(j, "ID", c->id);
    put_meta(j, c->row);
    put_spec(j, c);
    put_tls(j, &c->tls);
    jout_put_bool(j, "RootRotationInProgress", c->rotating);
    put_strings(j, "DefaultAddrPool", ENGINE_ADDRESS_POOL);
    jout_put_number(j, "SubnetSize", ENGINE_SUBNET_SIZE);
    jout_put_number(j, "DataPathPort", ENGINE_DATA_PATH_PORT);
}

void engine_put_cluster(struct jout *j, const struct engine_cluster *c) {
    jout_open(j, '{');
    put_cluster_fields(j, c);
    jout_close(j, '}');
}

void engine_put_swarm(struct jout *j, const struct engine_cluster *c, const char *worker_token,
                      const char *manager_token) {
    jout_open(j, '{');
    put_cluster_fields(j, c);
    jout_key(j, "JoinTokens");
    jout_open(j, '{');
    jout_put_text(j, "Worker", worker_token);
    jout_put_text(j, "Manager", manager_token);
    jout_close(j, '}');
    jout_close(j, '}');
}

/* --- a node ----------------------------------------------------------------------------------- */

static void put_description(struct jout *j, const struct engine_node *n) {
    const struct node_row *node = n->node;
    jout_key(j, "Description");
    jout_open(j, '{');
    put_some(j, "Hostname", node->hostname);
    jout_key(j, "Platform");
    jout_open(j, '{');
    put_some(j, "Architecture", node->arch);
    put_some(j, "OS", node->os);
    jout_close(j, '}');
    jout_key(j, "Resources");
    jout_open(j, '{');
    put_some_number(j, "NanoCPUs", node->nano_cpus);
    put_some_number(j, "MemoryBytes", node->memory_bytes);
    jout_close(j, '}');
    jout_key(j, "Engine");
    jout_open(j, '{');
    put_some(j, "EngineVersion", node->engine);
    jout_close(j, '}');
    put_tls(j, &n->tls);
    jout_close(j, '}');
}

static void put_manager(struct jout *j, const struct engine_node *n) {
    if (!n->member) return;
    jout_key(j, "ManagerStatus");
    jout_open(j, '{');
    if (n->leader) jout_put_bool(j, "Leader", true);
    jout_put_text(j, "Reachability", n->reachable ? "reachable" : "unreachable");
    jout_put_text(j, "Addr", n->node->peer_address);
    jout_close(j, '}');
}

void engine_put_node(struct jout *j, const struct engine_node *n) {
    const struct node_row *node = n->node;
    jout_open(j, '{');
    jout_put_text(j, "ID", n->row->id);
    put_meta(j, n->row);
    jout_key(j, "Spec");
    jout_open(j, '{');
    if (n->row->name.size > 0) put_span(j, "Name", n->row->name);
    engine_put_labels(j, "Labels", node->labels);
    jout_put_text(j, "Role", engine_role(node->desired));
    jout_put_text(j, "Availability", engine_availability(node->availability));
    jout_close(j, '}');
    put_description(j, n);
    jout_key(j, "Status");
    jout_open(j, '{');
    jout_put_text(j, "State", engine_state(node->state));
    put_some(j, "Message", node->message);
    put_some(j, "Addr", node->address);
    jout_close(j, '}');
    put_manager(j, n);
    jout_close(j, '}');
}
