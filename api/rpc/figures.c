/* What is counted of calls, in the names of the usual gRPC metrics, and the word in the log about
 * slow ones: method, time and size, never what was asked. At most SLOW_TOLD_MAX a second; when the
 * whole node is slow, the number says so. */
#include <inttypes.h>

#include "api/rpc/call.h"
#include "api/rpc/rpcs.h"

#define SLOW_TOLD_MAX 10 /* lines a second */

static const char *const code_names[RPC_CODES] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};
static const uint64_t bucket_us[RPC_BUCKETS] = {5000,   10000,   25000,   50000,   100000,  250000,
                                                500000, 1000000, 2500000, 5000000, 10000000};
static const char *const bucket_names[RPC_BUCKETS + 1] = {
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"};

/* --- counting --------------------------------------------------------------------------------- */

static void tell_slow(struct rpc_call *c, uint64_t ms) {
    struct rpcs *r = c->rpcs;
    const struct log *log = r->api->log;
    uint64_t second = uv_now(r->loop) / 1000;
    if (second != r->slow_second) {
        if (r->slow_untold > 0)
            log_event(log, LOG_WARNING, "rpc", "%u more slow requests were not told",
                      r->slow_untold);
        r->slow_second = second;
        r->slow_told = r->slow_untold = 0;
    }
    if (r->slow_told == SLOW_TOLD_MAX) {
        r->slow_untold++;
        return;
    }
    r->slow_told++;
    log_event(log, LOG_WARNING, "rpc",
              "%s took %" PRIu64 " ms (expected: %d), request of %zu bytes", c->rpc.method->path,
              ms, RPC_SLOW_MS, c->size);
}

/* Methods that wait for somebody else by their nature are not slow. */
static bool waits(const struct method *m) {
    return m->kind != METHOD_UNARY || strncmp(m->path, "/etcdserverpb.", 14) != 0;
}

void figures_done(struct rpc_call *c, unsigned code) {
    struct served *s = c->served;
    uint64_t ns = uv_hrtime() - c->started_ns;
    unsigned bucket = 0;
    while (bucket < RPC_BUCKETS && ns > bucket_us[bucket] * 1000)
        bucket++;
    s->handled[code < RPC_CODES ? code : CODE_UNKNOWN]++;
    s->buckets[bucket]++;
    s->sum_ns += ns;
    if (ns > RPC_SLOW_MS * 1000000ULL && !waits(c->rpc.method)) tell_slow(c, ns / 1000000);
}

/* --- /metrics --------------------------------------------------------------------------------- */

struct labels {
    char text[160]; /* grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary" */
};

static struct labels labels_of(const struct method *m) {
    static const char *const kinds[] = {"unary", "server_stream", "bidi_stream"};
    struct labels l;
    const char *slash = strrchr(m->path, '/');
    (void)snprintf(l.text, sizeof l.text,
                   "grpc_method=\"%s\",grpc_service=\"%.*s\",grpc_type=\"%s\"", slash + 1,
                   (int)(slash - m->path - 1), m->path + 1, kinds[m->kind]);
    return l;
}

static RESULT head(struct buf *out, const char *name, const char *type, const char *help) {
    return buf_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static RESULT write_counter(const struct rpcs *r, struct buf *out, const char *name,
                            const char *help, size_t field) {
    TRY(head(out, name, "counter", help));
    for (unsigned i = 0; i < r->n; i++) {
        struct labels l = labels_of(r->served[i].method);
        uint64_t value;
        memcpy(&value, (const uint8_t *)&r->served[i] + field, sizeof value);
        TRY(buf_format(out, "%s{%s} %" PRIu64 "\n", name, l.text, value));
    }
    return OK;
}

static RESULT write_handled(const struct rpcs *r, struct buf *out) {
    TRY(head(out, "grpc_server_handled_total", "counter", "Calls that have ended, by how"));
    for (unsigned i = 0; i < r->n; i++) {
        struct labels l = labels_of(r->served[i].method);
        for (unsigned code = 0; code < RPC_CODES; code++) {
            uint64_t value = r->served[i].handled[code];
            if (value == 0 && code != CODE_OK) continue;
            TRY(buf_format(out, "grpc_server_handled_total{grpc_code=\"%s\",%s} %" PRIu64 "\n",
                           code_names[code], l.text, value));
        }
    }
    return OK;
}

static RESULT write_times(const struct served *s, struct buf *out) {
    struct labels l = labels_of(s->method);
    uint64_t sum = 0;
    for (unsigned i = 0; i <= RPC_BUCKETS; i++) {
        sum += s->buckets[i];
        TRY(buf_format(out, "grpc_server_handling_seconds_bucket{%s,le=\"%s\"} %" PRIu64 "\n",
                       l.text, bucket_names[i], sum));
    }
    return buf_format(out,
                      "grpc_server_handling_seconds_sum{%s} %.9f\n"
                      "grpc_server_handling_seconds_count{%s} %" PRIu64 "\n",
                      l.text, (double)s->sum_ns / 1e9, l.text, sum);
}

RESULT rpcs_metrics(const struct rpcs *r, struct buf *out) {
    TRY(write_counter(r, out, "grpc_server_started_total", "Calls begun",
                      offsetof(struct served, started)));
    TRY(write_handled(r, out));
    TRY(write_counter(r, out, "grpc_server_msg_received_total", "Messages of clients",
                      offsetof(struct served, received)));
    TRY(write_counter(r, out, "grpc_server_msg_sent_total", "Messages to clients",
                      offsetof(struct served, sent)));
    TRY(head(out, "grpc_server_handling_seconds", "histogram",
             "Time from a call's begin to its end"));
    for (unsigned i = 0; i < r->n; i++)
        if (r->served[i].started > 0) TRY(write_times(&r->served[i], out));
    TRY(head(out, "etcd_network_client_grpc_sent_bytes_total", "counter",
             "Bytes of messages to gRPC clients"));
    TRY(buf_format(out, "etcd_network_client_grpc_sent_bytes_total %" PRIu64 "\n", r->sent_bytes));
    TRY(head(out, "etcd_network_client_grpc_received_bytes_total", "counter",
             "Bytes of messages of gRPC clients"));
    return buf_format(out, "etcd_network_client_grpc_received_bytes_total %" PRIu64 "\n",
                      r->received_bytes);
}
