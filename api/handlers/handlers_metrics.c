/* /metrics, in the names that the dashboards of etcd know, where there is the same thing here; what
 * is only ours begins with conclave_. Every figure is of what really happens: the log's syncs are
 * timed where they are done (timed_disk.h), "backend commits" are the syncs of snapshots, which is
 * where the state goes to the disk here, and the peers' round trip is what the kernel measures on
 * their connections, looked at once a second. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <dirent.h>

#include "api/api.h"
#include "api/rpc/rpcs.h"

#define ROUND_TRIP_FIRST_NS 100000 /* as etcd's: 0.1 ms to 3 s */
#define ROUND_TRIP_BUCKETS  16

static struct replica_status status_of(const struct api *api) {
    struct replica_status s = {0};
    if (api->manager->replica) replica_status(api->manager->replica, &s);
    return s;
}

/* --- peers ----------------------------------------------------------------------------------- */

/* The place of a member's times, which is taken by a newcomer when it has gone. */
static struct peer_times *times_of(struct api *api, uint64_t raft_id) {
    struct peer_times *free_place = NULL;
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        struct peer_times *t = &api->peer_times[i];
        if (t->raft_id == raft_id) return t;
        if (t->raft_id == 0 && !free_place) free_place = t;
    }
    if (!free_place) return NULL;
    free_place->raft_id = raft_id;
    histogram_start(&free_place->round_trip, ROUND_TRIP_FIRST_NS, ROUND_TRIP_BUCKETS);
    return free_place;
}

static bool still_there(const struct peer_traffic *peers, unsigned n, uint64_t raft_id) {
    for (unsigned i = 0; i < n; i++)
        if (peers[i].raft_id == raft_id) return true;
    return false;
}

void api_sample(struct api *api) {
    struct peer_traffic peers[MEMBERS_MAX];
    unsigned n =
        api->manager && api->manager->peers ? peers_traffic(api->manager->peers, peers) : 0;
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (!still_there(peers, n, api->peer_times[i].raft_id)) api->peer_times[i].raft_id = 0;
    for (unsigned i = 0; i < n; i++) {
        struct peer_times *t = peers[i].round_trip_us ? times_of(api, peers[i].raft_id) : NULL;
        if (t) histogram_add(&t->round_trip, (uint64_t)peers[i].round_trip_us * 1000);
    }
}

struct peer_column {
    const char *name, *label, *help;
    size_t field; /* of struct peer_traffic */
};

static RESULT write_traffic(const struct api *api, struct buf *out) {
    static const struct peer_column columns[] = {
        {"etcd_network_peer_sent_bytes_total", "To", "Bytes sent to a member, TLS included",
         offsetof(struct peer_traffic, sent)},
        {"etcd_network_peer_received_bytes_total", "From", "Bytes of a member, TLS included",
         offsetof(struct peer_traffic, received)},
        {"etcd_network_peer_sent_failures_total", "To", "Frames that a member did not get",
         offsetof(struct peer_traffic, dropped)},
    };
    struct peer_traffic peers[MEMBERS_MAX];
    unsigned n = api->manager->peers ? peers_traffic(api->manager->peers, peers) : 0;
    for (size_t c = 0; c < ARRAY_SIZE(columns); c++) {
        TRY(metric_head(out, columns[c].name, "counter", columns[c].help));
        for (unsigned i = 0; i < n; i++) {
            uint64_t value;
            memcpy(&value, (const uint8_t *)&peers[i] + columns[c].field, sizeof value);
            TRY(buf_format(out, "%s{%s=\"%" PRIx64 "\"} %" PRIu64 "\n", columns[c].name,
                           columns[c].label, peers[i].raft_id, value));
        }
    }
    TRY(metric_head(out, "etcd_network_active_peers", "gauge", "Members we are connected to"));
    for (unsigned i = 0; i < n; i++)
        TRY(buf_format(out, "etcd_network_active_peers{Remote=\"%" PRIx64 "\"} %d\n",
                       peers[i].raft_id, peers[i].connected));
    return OK;
}

static RESULT write_round_trips(const struct api *api, struct buf *out) {
    static const char name[] = "etcd_network_peer_round_trip_time_seconds";
    char label[32];
    TRY(metric_head(out, name, "histogram", "Round trips to a member, as TCP measures them"));
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        const struct peer_times *t = &api->peer_times[i];
        if (t->raft_id == 0) continue;
        (void)snprintf(label, sizeof label, "To=\"%" PRIx64 "\"", t->raft_id);
        TRY(histogram_write(out, name, label, &t->round_trip));
    }
    return OK;
}

/* --- the node and its store ------------------------------------------------------------------- */

static RESULT write_server(const struct api *api, struct buf *out) {
    struct replica_status s = status_of(api);
    TRY(metric_write(out, "etcd_server_has_leader", "gauge", "1 when a leader is known",
                     s.leader != 0));
    TRY(metric_write(out, "etcd_server_is_leader", "gauge", "1 when this node leads", s.leading));
    TRY(metric_write(out, "etcd_server_leader_changes_seen_total", "counter", "Leader changes seen",
                     api->figures.leader_changes));
    TRY(metric_write(out, "etcd_server_proposals_committed_total", "gauge",
                     "Index of the last committed entry", s.commit));
    TRY(metric_write(out, "etcd_server_proposals_applied_total", "gauge",
                     "Index of the last applied entry", s.applied));
    TRY(metric_write(out, "etcd_server_proposals_pending", "gauge",
                     "Entries of the log that are not yet committed", s.last - s.commit));
    TRY(metric_write(out, "etcd_server_proposals_failed_total", "counter",
                     "Writes that did not end well", api->figures.failed));
    TRY(metric_write(out, "etcd_server_health_success", "counter", "Good answers of /health",
                     api->figures.health_good));
    TRY(metric_write(out, "etcd_server_health_failures", "counter", "Bad answers of /health",
                     api->figures.health_bad));
    TRY(metric_write(out, "etcd_server_quota_backend_bytes", "gauge",
                     "Bytes past which writes are refused", api->quota));
    TRY(metric_head(out, "etcd_server_version", "gauge", "The etcd that clients may expect"));
    TRY(buf_format(out, "etcd_server_version{server_version=\"%s\"} 1\n", ETCD_VERSION));
    TRY(metric_write(out, "conclave_raft_term", "gauge", "The present term", s.term));
    TRY(metric_write(out, "conclave_log_bytes", "gauge", "Bytes of the log that are kept",
                     s.log_bytes));
    return metric_write(out, "conclave_snapshot_index", "gauge", "Index of the last snapshot",
                        s.snapshot_index);
}

static RESULT write_store(const struct api *api, struct buf *out) {
    const struct store *s = api->manager->store;
    TRY(metric_write(out, "etcd_mvcc_put_total", "counter", "Puts requested here",
                     api->figures.puts));
    TRY(metric_write(out, "etcd_mvcc_range_total", "counter", "Ranges requested here",
                     api->figures.ranges));
    TRY(metric_write(out, "etcd_mvcc_delete_total", "counter", "Deletes requested here",
                     api->figures.deletes));
    if (s == NULL) return OK;
    TRY(metric_write(out, "etcd_mvcc_db_total_size_in_bytes", "gauge",
                     "Memory of all versions of all keys", store_memory(s)));
    TRY(metric_write(out, "etcd_mvcc_db_total_size_in_use_in_bytes", "gauge",
                     "The same: there are no holes to defragment", store_memory(s)));
    TRY(metric_write(out, "etcd_debugging_mvcc_keys_total", "gauge", "Keys", store_keys(s)));
    TRY(metric_write(out, "etcd_debugging_mvcc_current_revision", "gauge", "The present revision",
                     store_revision(s)));
    TRY(metric_write(out, "etcd_debugging_mvcc_compact_revision", "gauge",
                     "Revision of the last compaction", store_compacted(s)));
    TRY(metric_write(out, "etcd_debugging_auth_revision", "gauge",
                     "Revision of users and permissions", auth_revision(store_auth(s))));
    return metric_write(out, "etcd_debugging_lease_total", "gauge", "Leases",
                        leases_count(store_leases(s)));
}

static RESULT write_disk(const struct api *api, struct buf *out) {
    static const char log[] = "etcd_disk_wal_fsync_duration_seconds";
    static const char state[] = "etcd_disk_backend_commit_duration_seconds";
    TRY(metric_head(out, log, "histogram", "Time to make the log's entries durable"));
    TRY(histogram_write(out, log, "", &api->manager->disk_times.log));
    TRY(metric_head(out, state, "histogram", "Time to make a part of a snapshot durable"));
    return histogram_write(out, state, "", &api->manager->disk_times.snapshot);
}

/* --- the process ------------------------------------------------------------------------------ */

static unsigned open_files(void) {
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d) return 0;
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", "..", and the directory itself */
}

/* Two numbers of pages. */
static void memory(uint64_t *virtual_bytes, uint64_t *resident_bytes) {
    unsigned long long all = 0, resident = 0;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%llu %llu", &all, &resident) != 2) resident = 0;
    if (f) (void)fclose(f);
    *virtual_bytes = all * page;
    *resident_bytes = resident * page;
}

static RESULT write_process(const struct api *api, struct buf *out) {
    uint64_t all, resident;
    struct rusage used = {0};
    struct rlimit files = {0};
    memory(&all, &resident);
    (void)getrusage(RUSAGE_SELF, &used);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    TRY(metric_write(out, "process_resident_memory_bytes", "gauge", "Resident memory", resident));
    TRY(metric_write(out, "process_virtual_memory_bytes", "gauge", "Virtual memory", all));
    TRY(metric_head(out, "process_cpu_seconds_total", "counter", "Processor time used"));
    TRY(buf_format(out, "process_cpu_seconds_total %.6f\n",
                   (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6));
    TRY(metric_write(out, "process_open_fds", "gauge", "Open files", open_files()));
    TRY(metric_write(out, "process_max_fds", "gauge", "Files that may be open", files.rlim_cur));
    return metric_write(out, "process_start_time_seconds", "gauge", "When it was started (UTC)",
                        (uint64_t)api->started_s);
}

/* By the loop that has the connections; 0 is the one where all requests are handled. */
static RESULT write_loops(const struct api *api, struct buf *out) {
    struct server_figures f;
    if (!api->server) return OK;
    TRY(metric_head(out, "conclave_client_connections", "gauge", "Connections of clients"));
    for (unsigned i = 0; server_figures(api->server, i, &f); i++)
        TRY(buf_format(out, "conclave_client_connections{loop=\"%u\"} %u\n", i, f.connections));
    TRY(metric_head(out, "conclave_client_requests_total", "counter", "Requests of clients"));
    for (unsigned i = 0; server_figures(api->server, i, &f); i++)
        TRY(buf_format(out, "conclave_client_requests_total{loop=\"%u\"} %" PRIu64 "\n", i,
                       f.requests));
    return OK;
}

static RESULT write_all(const struct api *api, struct buf *out) {
    TRY(write_server(api, out));
    TRY(write_store(api, out));
    TRY(write_disk(api, out));
    TRY(write_traffic(api, out));
    TRY(write_round_trips(api, out));
    TRY(rpcs_metrics(api->rpcs, out));
    TRY(write_loops(api, out));
    return write_process(api, out);
}

void handle_metrics(struct exchange *x) {
    struct buf out = buf_new(METRICS_MAX);
    enum err e = write_all(x->ctx, &out);
    if (e == OK)
        exchange_answer(x, 200, "text/plain; version=0.0.4", buf_span(&out));
    else
        exchange_error(x, e, NULL);
    buf_free(&out);
}
