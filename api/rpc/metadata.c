/* What the headers of a request say about its call: the time it has, the user's token, whether it
 * wants a leader, and our idempotency key. The gateway takes the same, with or without the prefix
 * that etcd's gateway gives to metadata. */
#include "api/rpc/call.h"

#define TIMEOUT_DIGITS_MAX 8 /* of grpc-timeout */
#define GATEWAY_PREFIX     "grpc-metadata-"

static const char own[] = "conclave/"; /* how our command line begins its user-agent */

static int hex(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_key(struct rpc *r, struct span value) {
    if (value.size != 2 * sizeof r->token) return false;
    for (size_t i = 0; i < sizeof r->token; i++) {
        int high = hex(value.at[2 * i]), low = hex(value.at[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        r->token[i] = (uint8_t)(high * 16 + low);
    }
    r->has_token = true;
    return true;
}

/* "100m" and the like: digits and a unit. A time of less than a millisecond is one. */
static bool read_timeout(struct rpc_call *c, struct span value) {
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'H', 3600000000000ULL}, {'M', 60000000000ULL}, {'S', 1000000000ULL},
                 {'m', 1000000ULL},       {'u', 1000ULL},        {'n', 1ULL}};
    uint64_t n = 0;
    if (value.size < 2 || value.size > TIMEOUT_DIGITS_MAX + 1) return false;
    for (size_t i = 0; i + 1 < value.size; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') return false;
        n = n * 10 + (uint64_t)(value.at[i] - '0');
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (units[i].unit != (char)value.at[value.size - 1]) continue;
        /* 8 digits of hours in nanoseconds would pass 64 bits; in milliseconds they don't. */
        uint64_t ms = units[i].ns >= 1000000 ? n * (units[i].ns / 1000000)
                                             : (n * units[i].ns + 999999) / 1000000;
        c->rpc.deadline_ms = uv_now(c->rpcs->loop) + (ms > 0 ? ms : 1);
        return true;
    }
    return false;
}

/* One header. `token` before `authorization`, as etcd takes them. */
static bool read_one(struct rpc_call *c, const struct http_header *h, bool *token) {
    struct span name = h->name;
    size_t prefix = sizeof GATEWAY_PREFIX - 1;
    if (name.size > prefix && (name.at[0] | 0x20) == 'g' &&
        http_is(span_of(name.at, prefix), GATEWAY_PREFIX))
        name = span_of(name.at + prefix, name.size - prefix);
    switch (name.size) {
    case 5:
        if (!http_is(name, "token")) return true;
        c->token = h->value;
        *token = true;
        return true;
    case 9:
        if (http_is(name, "hasleader")) c->rpc.has_leader = http_is(h->value, "true");
        return true;
    case 10:
        if (http_is(name, "user-agent") && h->value.size > sizeof own - 1)
            c->named = http_is(span_of(h->value.at, sizeof own - 1), own);
        return true;
    case 12:
        if (!http_is(name, "grpc-timeout") || read_timeout(c, h->value)) return true;
        return call_refuse(c, CODE_INTERNAL, "malformed grpc-timeout");
    case 13:
        if (!*token && http_is(name, "authorization")) c->token = h->value;
        if (!http_is(name, "grpc-encoding") || http_is(h->value, "identity")) return true;
        return call_refuse(
            c, CODE_UNIMPLEMENTED, "grpc: Decompressor is not installed for grpc-encoding \"%.*s\"",
            (int)(h->value.size < 64 ? h->value.size : 64), (const char *)h->value.at);
    case 15:
        if (!http_is(name, "idempotency-key") || read_key(&c->rpc, h->value)) return true;
        return call_refuse(c, (unsigned)err_grpc(ERR_INVALID),
                           "Idempotency-Key is not 32 hexadecimal digits");
    default: return true;
    }
}

bool metadata_read(struct rpc_call *c) {
    const struct http_head *head = &c->x->head;
    bool token = false;
    for (unsigned i = 0; i < head->n; i++)
        if (!read_one(c, &head->headers[i], &token)) return false;
    deadline_add(c);
    return true;
}
