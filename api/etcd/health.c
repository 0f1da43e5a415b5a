/* gRPC's own health service, which load balancers and probes ask: service "" is SERVING while this
 * node runs and knows a leader. Answered in every state. A Watch is told of every change; its calls
 * wait in a list of the api. */
#include "api/etcd/health.h"

#include <stdlib.h>

#include "api/etcd/health.pb-c.h"
#include "api/etcd/methods.h"

typedef Grpc__Health__V1__HealthCheckResponse HealthAnswer;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus HealthStatus;

static HealthAnswer answer_of(const struct api *api) {
    HealthAnswer answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    const struct manager *m = api->manager;
    bool good = m && m->state == MANAGER_RUNNING && m->leader != 0;
    answer.status = good ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                         : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    return answer;
}

static void check(struct rpc *r, const ProtobufCMessage *m) {
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)m;
    HealthAnswer answer = answer_of(r->api);
    if (request->service[0])
        rpc_fail(r, ERR_NOT_FOUND, "unknown service");
    else
        rpc_answer(r, &answer.base);
}

static void list(struct rpc *r, const ProtobufCMessage *m) {
    (void)m;
    Grpc__Health__V1__HealthListResponse all = GRPC__HEALTH__V1__HEALTH_LIST_RESPONSE__INIT;
    Grpc__Health__V1__HealthListEntry entry = GRPC__HEALTH__V1__HEALTH_LIST_ENTRY__INIT;
    Grpc__Health__V1__HealthListEntry *entries[] = {&entry};
    HealthAnswer answer = answer_of(r->api);
    entry.value = &answer;
    all.n_statuses = 1;
    all.statuses = entries;
    rpc_answer(r, &all.base);
}

/* --- watch ------------------------------------------------------------------------------------ */

struct health_watch {
    struct rpc *r;                     /* the call */
    struct health_watch *next, **link; /* in the api's list */
    HealthStatus told;                 /* last */
    bool waits;                        /* for the client to take what it has */
};

static void tell(struct health_watch *w) {
    HealthAnswer answer = answer_of(w->r->api);
    if (w->waits || answer.status == w->told) return;
    w->told = answer.status;
    w->waits = rpc_send(w->r, &answer.base) != OK;
}

static void watch_room(struct rpc *r) {
    struct health_watch *w = r->data;
    w->waits = false;
    tell(w);
}

static void watch_gone(struct rpc *r) {
    struct health_watch *w = r->data;
    *w->link = w->next;
    if (w->next) w->next->link = w->link;
    free(w);
    rpc_end(r);
}

static void watch(struct rpc *r, const ProtobufCMessage *m) {
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)m;
    HealthAnswer unknown = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    struct health_watch *w = malloc(sizeof *w);
    if (!w) {
        rpc_fail(r, ERR_NOMEM, NULL);
        return;
    }
    struct api *api = r->api;
    *w = (struct health_watch){.r = r, .next = api->health, .link = &api->health};
    if (w->next) w->next->link = &w->next;
    api->health = w;
    r->data = w;
    r->gone = watch_gone;
    r->drained = watch_room;
    if (!request->service[0]) {
        tell(w);
        return;
    }
    unknown.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    (void)!rpc_send(r, &unknown.base);
    w->waits = true; /* for good: the service will never be there */
    r->drained = NULL;
}

void health_changed(struct api *api) {
    for (struct health_watch *w = api->health; w; w = w->next)
        tell(w);
}

const struct method health_methods[] = {
    {.path = "/grpc.health.v1.Health/Check",
     .kind = METHOD_UNARY,
     .standby = true,
     .open = true,
     .request = &grpc__health__v1__health_check_request__descriptor,
     .answer = &grpc__health__v1__health_check_response__descriptor,
     .message = check},
    {.path = "/grpc.health.v1.Health/Watch",
     .kind = METHOD_SERVER_STREAM,
     .standby = true,
     .open = true,
     .request = &grpc__health__v1__health_check_request__descriptor,
     .answer = &grpc__health__v1__health_check_response__descriptor,
     .message = watch},
    {.path = "/grpc.health.v1.Health/List",
     .kind = METHOD_UNARY,
     .standby = true,
     .open = true,
     .request = &grpc__health__v1__health_list_request__descriptor,
     .answer = &grpc__health__v1__health_list_response__descriptor,
     .message = list},
    {.path = NULL},
};
