/* The table of routes, and what is behind those whose objects a cluster does not have: its tasks
 * are processes, not containers, and it pulls no images and makes no networks and volumes. Their
 * lists are empty, single ones are not found, and what would make one is refused (501). */
#include "api/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

static const char type_json[] = "application/json";

/* --- what is not there ------------------------------------------------------------------------ */

static void empty_list(struct exchange *x) {
    engine_answer(x, 200, type_json, span_str("[]\n"), NULL, 0);
}

static void empty_volumes(struct exchange *x) {
    engine_answer(x, 200, type_json, span_str("{\"Volumes\":[],\"Warnings\":[]}\n"), NULL, 0);
}

static void no_object(struct exchange *x, const char *format) {
    char id[ENGINE_ID_MAX], text[ENGINE_ID_MAX + 64];
    engine_id(x, id);
    (void)snprintf(text, sizeof text, "%s%s", format, id);
    engine_fail(x, 404, text);
}

static void no_container(struct exchange *x) { no_object(x, "No such container: "); }
static void no_image(struct exchange *x) { no_object(x, "No such image: "); }
static void no_network(struct exchange *x) { no_object(x, "no such network: "); }
static void no_plugin(struct exchange *x) { no_object(x, "no such plugin: "); }
static void no_volume(struct exchange *x) { no_object(x, "no such volume: "); }

static void not_here(struct exchange *x) {
    engine_fail(x, 501,
                "this cluster runs tasks as processes of its nodes: it has no containers, images, "
                "volumes and networks");
}

static void no_logs(struct exchange *x) {
    engine_fail(x, 501,
                "the output of tasks is kept nowhere, so that nothing that they say of their "
                "secrets is: there are no logs");
}

/* --- routes ----------------------------------------------------------------------------------- */

static const struct engine_route routes[] = {
    {HTTP_GET, "/_ping", engine_ping},
    {HTTP_GET, "/version", engine_version},
    {HTTP_GET, "/info", engine_info},
    {HTTP_GET, "/events", engine_events},
    {HTTP_GET, "/swarm", engine_swarm},
    {HTTP_POST, "/swarm/init", engine_swarm_init},
    {HTTP_POST, "/swarm/join", engine_swarm_join},
    {HTTP_POST, "/swarm/leave", engine_swarm_leave},
    {HTTP_POST, "/swarm/update", engine_swarm_update},
    {HTTP_GET, "/swarm/unlockkey", engine_swarm_unlock_key},
    {HTTP_POST, "/swarm/unlock", engine_swarm_unlock},
    {HTTP_GET, "/nodes", engine_nodes},
    {HTTP_GET, "/nodes/{id}", engine_node},
    {HTTP_DELETE, "/nodes/{id}", engine_node_remove},
    {HTTP_POST, "/nodes/{id}/update", engine_node_update},
    {HTTP_GET, "/secrets", engine_secrets},
    {HTTP_POST, "/secrets/create", engine_secret_create},
    {HTTP_GET, "/secrets/{id}", engine_secret},
    {HTTP_DELETE, "/secrets/{id}", engine_secret_remove},
    {HTTP_POST, "/secrets/{id}/update", engine_secret_update},
    {HTTP_GET, "/configs", engine_configs},
    {HTTP_POST, "/configs/create", engine_config_create},
    {HTTP_GET, "/configs/{id}", engine_config},
    {HTTP_DELETE, "/configs/{id}", engine_config_remove},
    {HTTP_POST, "/configs/{id}/update", engine_config_update},
    {HTTP_GET, "/services", engine_services},
    {HTTP_POST, "/services/create", engine_service_create},
    {HTTP_GET, "/services/{id}", engine_service},
    {HTTP_DELETE, "/services/{id}", engine_service_remove},
    {HTTP_POST, "/services/{id}/update", engine_service_update},
    {HTTP_GET, "/services/{id}/logs", no_logs},
    {HTTP_GET, "/tasks", engine_tasks},
    {HTTP_GET, "/tasks/{id}", engine_task},
    {HTTP_GET, "/tasks/{id}/logs", no_logs},
    {HTTP_GET, "/networks", empty_list},
    {HTTP_GET, "/networks/{id}", no_network},
    {HTTP_GET, "/containers/json", empty_list},
    {HTTP_GET, "/containers/{id}/json", no_container},
    {HTTP_GET, "/images/json", empty_list},
    {HTTP_GET, "/images/{id}/json", no_image},
    {HTTP_GET, "/volumes", empty_volumes},
    {HTTP_GET, "/volumes/{id}", no_volume},
    {HTTP_GET, "/plugins", empty_list},
    {HTTP_GET, "/plugins/{id}/json", no_plugin},
    {HTTP_GET, "/distribution/*", no_image},
    {HTTP_GET, NULL, NULL},
};

/* Beginnings of what docker has at other paths; with any method. */
static const char *const others[] = {
    "/networks/", "/containers/", "/images/", "/volumes/",      "/plugins/", "/exec/",     "/build",
    "/commit",    "/session",     "/grpc",    "/distribution/", "/auth",     "/system/df",
};

static bool is_other(struct span path) {
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        size_t size = strlen(others[i]);
        if (path.size >= size && memcmp(path.at, others[i], size) == 0) return true;
    }
    return false;
}

static void handle(struct exchange *x) {
    struct engine_target target;
    const struct engine_route *route = NULL;
    struct why why = {0};
    enum err e = engine_target(x->head.path, &target, &why);
    if (e != OK) {
        engine_error(x, e, why.text);
        return;
    }
    e = engine_route(routes, x->head.method, &target, &route);
    if (e == OK)
        route->handle(x);
    else if (is_other(target.path))
        not_here(x);
    else if (e == ERR_NOT_FOUND)
        engine_fail(x, 404, "page not found");
    else
        engine_fail(x, 405, "method not allowed");
}

void engine_id(const struct exchange *x, char out[ENGINE_ID_MAX]) {
    struct engine_target target;
    const struct engine_route *route;
    out[0] = 0;
    if (engine_target(x->head.path, &target, NULL) == OK &&
        engine_route(routes, x->head.method, &target, &route) == OK)
        memcpy(out, target.id, ENGINE_ID_MAX);
}

/* A stream is read on while it goes, so that it is seen when its client leaves. */
static const struct route streamed = {HTTP_GET, "", ACCESS_ADMIN, handle, true};
static const struct route whole = {HTTP_GET, "", ACCESS_ADMIN, handle, false};
const struct route engine_no_routes[] = {{HTTP_GET, NULL, ACCESS_ADMIN, NULL, false}};

const struct route *engine_find(const struct http_head *head) {
    struct engine_target target;
    bool events = engine_target(head->path, &target, NULL) == OK &&
                  span_equal(target.path, span_str("/events")) && head->method == HTTP_GET;
    return events ? &streamed : &whole;
}

/* --- life ------------------------------------------------------------------------------------- */

RESULT engine_new(struct api *api, uv_loop_t *loop, const char *peer, const char *advertise) {
    struct engine *e = calloc(1, sizeof *e);
    struct engine_event *events = e ? engine_events_new() : NULL;
    if (!events) {
        free(e);
        return ERR_NOMEM;
    }
    *e = (struct engine){.api = api, .loop = loop, .events = events};
    (void)snprintf(e->peer, sizeof e->peer, "%s", peer);
    (void)snprintf(e->advertise, sizeof e->advertise, "%s", advertise);
    api->engine = e;
    return OK;
}

void engine_stop(struct engine *e) {
    engine_joining_stop(e);
    engine_events_stop(e);
}
