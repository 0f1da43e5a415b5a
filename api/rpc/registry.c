/* The methods of a node, found by path: a hash table for gRPC, routes for the gateway. A method
 * with a JSON path is served under /v3 and /v3beta, and what etcd has moved, under its older path
 * too. */
#include "api/rpc/rpcs.h"

#include <stdlib.h>

#include "api/rpc/call.h"

#define PATH_MAX_SIZE 64 /* of a route of the gateway, with its NUL */

static const struct {
    const char *path, *also;
} aliases[] = {{"/v3/lease/revoke", "/v3/kv/lease/revoke"},
               {"/v3/lease/timetolive", "/v3/kv/lease/timetolive"},
               {"/v3/lease/leases", "/v3/kv/lease/leases"}};

static uint32_t hash(struct span path) {
    uint32_t h = 2166136261U; /* FNV-1a */
    for (size_t i = 0; i < path.size; i++)
        h = (h ^ path.at[i]) * 16777619U;
    return h;
}

/* --- gRPC ------------------------------------------------------------------------------------- */

struct served *served_find(const struct rpcs *r, struct span path) {
    for (uint32_t i = hash(path);; i++) {
        unsigned at = r->index[i & (r->index_size - 1)];
        if (at == 0) return NULL;
        struct served *s = &r->served[at - 1];
        if (span_equal(path, span_str(s->method->path))) return s;
    }
}

bool service_known(const struct rpcs *r, struct span service) {
    for (unsigned i = 0; i < r->n; i++) {
        const char *path = r->served[i].method->path;
        if (strncmp(path + 1, (const char *)service.at, service.size) == 0 &&
            path[1 + service.size] == '/')
            return true;
    }
    return false;
}

static RESULT build_index(struct rpcs *r) {
    r->index_size = 16;
    while (r->index_size < 4 * r->n)
        r->index_size *= 2;
    r->index = calloc(r->index_size, sizeof *r->index);
    if (!r->index) return ERR_NOMEM;
    for (unsigned n = 0; n < r->n; n++) {
        uint32_t i = hash(span_str(r->served[n].method->path));
        while (r->index[i & (r->index_size - 1)] != 0)
            i++;
        r->index[i & (r->index_size - 1)] = (uint16_t)(n + 1);
    }
    return OK;
}

static RESULT list_methods(struct rpcs *r, const struct method *const *services) {
    for (const struct method *const *s = services; *s; s++)
        for (const struct method *m = *s; m->path; m++)
            r->n++;
    r->served = calloc(r->n + 1, sizeof *r->served);
    if (!r->served) return ERR_NOMEM;
    unsigned n = 0;
    for (const struct method *const *s = services; *s; s++)
        for (const struct method *m = *s; m->path; m++)
            r->served[n++].method = m;
    return OK;
}

/* --- the gateway ------------------------------------------------------------------------------ */

struct served *served_of(const struct rpcs *r, const struct route *route) {
    return &r->served[r->routed[route - r->routes]];
}

/* `path` begins with /v3, which becomes `prefix`. */
static RESULT add_route(struct rpcs *r, unsigned *n, unsigned served, const char *prefix,
                        const char *path) {
    struct buf text = buf_new(PATH_MAX_SIZE);
    TRY(buf_format(&text, "%s%s", prefix, path + 3));
    r->routed[*n] = (uint16_t)served;
    r->routes[(*n)++] = (struct route){
        .method = HTTP_POST,
        .path = (const char *)text.at, /* freed with the route */
        .access = ACCESS_CLIENT,
        .handle = gateway_handle,
        .streams = r->served[served].method->kind == METHOD_BIDI,
    };
    return buf_u8(&text, 0);
}

static RESULT add_method(struct rpcs *r, unsigned *n, unsigned served) {
    const char *path = r->served[served].method->json;
    if (!path) return OK;
    TRY(add_route(r, n, served, "/v3", path));
    TRY(add_route(r, n, served, "/v3beta", path));
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        if (strcmp(path, aliases[i].path) != 0) continue;
        TRY(add_route(r, n, served, "/v3", aliases[i].also));
        TRY(add_route(r, n, served, "/v3beta", aliases[i].also));
    }
    return OK;
}

static RESULT build_routes(struct rpcs *r, const struct route *others) {
    unsigned n = 0, more = 1;
    for (const struct route *o = others; o->path; o++)
        more++;
    size_t most = 2 * (r->n + ARRAY_SIZE(aliases));
    r->routes = calloc(most + more, sizeof *r->routes);
    r->routed = calloc(most + more, sizeof *r->routed);
    if (!r->routes || !r->routed) return ERR_NOMEM;
    for (unsigned i = 0; i < r->n; i++)
        TRY(add_method(r, &n, i));
    memcpy(&r->routes[n], others, more * sizeof *others);
    return OK;
}

const struct route *rpcs_routes(const struct rpcs *r) { return r->routes; }

/* --- the whole -------------------------------------------------------------------------------- */

static void free_all(struct rpcs *r) {
    for (struct route *route = r->routes; route && route->path; route++)
        if (route->handle == gateway_handle) free((char *)(uintptr_t)route->path);
    while (r->pool) {
        struct rpc_call *c = r->pool;
        r->pool = c->next;
        free(c);
    }
    free(r->routes);
    free(r->routed);
    free(r->index);
    free(r->served);
    buf_wipe(&r->out);
    buf_wipe(&r->json);
    free(r);
}

static void on_closed(uv_handle_t *handle) {
    struct rpcs *r = handle->data;
    if (--r->handles == 0) free_all(r);
}

RESULT rpcs_new(struct api *api, uv_loop_t *loop, const struct method *const *services,
                const struct route *routes, struct rpcs **out) {
    struct rpcs *r = calloc(1, sizeof *r);
    if (!r) return ERR_NOMEM;
    r->api = api;
    r->loop = loop;
    r->out = buf_new(RPC_ANSWER_MAX);
    r->json = buf_new(RPC_ANSWER_MAX);
    enum err e = list_methods(r, services);
    if (e == OK) e = build_index(r);
    if (e == OK) e = build_routes(r, routes);
    if (e != OK) {
        free_all(r);
        return e;
    }
    (void)uv_timer_init(loop, &r->timer);
    (void)uv_timer_init(loop, &r->leaderless);
    uv_unref((uv_handle_t *)&r->timer);
    uv_unref((uv_handle_t *)&r->leaderless);
    r->timer.data = r->leaderless.data = r;
    r->handles = 2;
    *out = r;
    return OK;
}

void rpcs_close(struct rpcs *r) {
    uv_close((uv_handle_t *)&r->timer, on_closed);
    uv_close((uv_handle_t *)&r->leaderless, on_closed);
}

/* --- streams that end before their clients want it -------------------------------------------- */

static void cut(struct rpcs *r, bool leaderless, enum err e, const char *text) {
    const struct outcome o = {.code = (unsigned)err_grpc(e), .text = text, .name = err_name(e)};
    for (struct rpc_call *c = r->calls, *next; c; c = next) {
        next = c->next; /* a method finishes no call but its own in `gone` */
        if (c->rpc.method->kind == METHOD_UNARY || !c->x) continue;
        if (!leaderless || c->rpc.has_leader) (void)call_abort(c, &o);
    }
}

static void on_leaderless(uv_timer_t *timer) {
    struct rpcs *r = timer->data;
    const struct manager *m = r->api->manager;
    if (m && m->leader == 0) cut(r, true, ERR_NO_LEADER, "etcdserver: no leader");
}

/* As etcd does, only after three election timeouts: most elections are over by then. */
void rpcs_no_leader(struct api *api) {
    if (!api->rpcs || api->manager->leader != 0) return;
    (void)uv_timer_start(&api->rpcs->leaderless, on_leaderless, 3 * ELECTION_TIMEOUT_MS, 0);
}

void rpcs_stop(struct rpcs *r) { cut(r, false, ERR_CLOSED, "etcdserver: server stopped"); }
