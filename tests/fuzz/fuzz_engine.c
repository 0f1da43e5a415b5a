/* Any bytes as a request of the Engine API, cut at the first two zeros into path, query and body:
 * no fault, what is decoded can be encoded, and what is kept lies within its bounds. */
#include <stdlib.h>

#include "api/engine/address.h"
#include "api/engine/encode_service.h"
#include "api/engine/events.h"
#include "api/engine/filters.h"
#include "api/engine/request.h"
#include "api/engine/route.h"

static void nothing(struct exchange *x) { (void)x; }

static const struct engine_route table[] = {
    {HTTP_GET, "/nodes/{id}", nothing},
    {HTTP_POST, "/nodes/{id}/update", nothing},
    {HTTP_GET, "/distribution/*", nothing},
    {HTTP_GET, NULL, NULL},
};

/* Takes what stands before the next zero. */
static struct span part(struct span *rest) {
    const uint8_t *end = rest->size > 0 ? memchr(rest->at, 0, rest->size) : NULL;
    size_t size = end ? (size_t)(end - rest->at) : rest->size;
    struct span out = span_of(rest->at, size);
    *rest = span_of(rest->at + size + (end ? 1 : 0), rest->size - size - (end ? 1 : 0));
    return out;
}

static void try_path(struct span path) {
    struct engine_target target;
    const struct engine_route *route;
    struct why why;
    if (engine_target(path, &target, &why) != OK) return;
    for (unsigned method = HTTP_GET; method <= HTTP_DELETE; method++) {
        enum err e = engine_route(table, (enum http_method)method, &target, &route);
        if (e == OK && !target.id[0]) abort();
    }
}

static void try_query(struct span query) {
    static const struct event event = {
        .type = "node", .action = "update", .id = "abc", .n = 1, .attributes = {{"name", "n"}}};
    struct filters f;
    bool flag;
    uint64_t version;
    int64_t ns;
    char word[8];
    (void)engine_query_flag(query, "force");
    if (engine_query_word(query, "rollback", word, sizeof word, NULL) == OK &&
        strlen(word) >= sizeof word)
        abort();
    (void)!engine_query_bool(query, "rotateWorkerToken", &flag, NULL);
    (void)!engine_query_version(query, "node", &version, NULL);
    if (engine_query_time(query, "since", &ns, NULL) == OK && ns < 0) abort();
    if (filters_parse(query, &f, NULL) == OK) (void)event_wanted(&f, &event);
    filters_free(&f);
}

static void keep(const struct engine_spec *said) {
    struct buf bytes = buf_new(ROW_BODY_MAX);
    struct spec back;
    if (spec_encode(&said->spec, &bytes) == OK && spec_decode(buf_span(&bytes), &back) != OK)
        abort();
    buf_free(&bytes);
}

static void try_addresses(const char *listen, const char *advertise) {
    const struct engine_wish wish = {
        .listen = listen, .advertise = advertise, .peer = "", .own_advertise = "a"};
    struct engine_place place;
    (void)!engine_place(&wish, &place, NULL);
}

static void try_held(const json_t *json, enum row_kind kind, size_t most) {
    struct engine_held_spec held;
    if (engine_held_decode(json, kind, &held, NULL) != OK) return;
    if (labels_check(buf_span(&held.labels)) != OK) abort();
    if (labels_check(buf_span(&held.driver_options)) != OK) abort();
    if (held.data && (secret_span(held.data).size == 0 || secret_span(held.data).size > most))
        abort();
    engine_held_free(&held);
}

/* A spec as it could stand in a row: what is made of it is JSON again. */
static void try_spec(struct span body) {
    const struct service_row s = {.spec_json = body, .previous_json = body, .spec_version = 1};
    char *made[] = {engine_template(&s, 0), engine_template(&s, 1), engine_defaults(&s)};
    for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
        json_t *json = NULL;
        if (made[i] && jin_parse(span_str(made[i]), &json, NULL) != OK) abort();
        json_decref(json);
        free(made[i]);
    }
}

static void try_body(struct span body) {
    static struct engine_init init; /* large */
    static struct engine_join join;
    static struct engine_spec spec;
    struct engine_node_spec node;
    json_t *json;
    if (jin_parse(body, &json, NULL) != OK) return;
    if (engine_init_decode(json, &init, NULL) == OK) {
        keep(&init.spec);
        try_addresses(init.listen, init.advertise);
        engine_spec_free(&init.spec);
    }
    if (engine_join_decode(json, &join, NULL) == OK && (join.n == 0 || join.n > ENGINE_REMOTES_MAX))
        abort();
    if (engine_spec_decode(json, NULL, &spec, NULL) == OK) {
        keep(&spec);
        engine_spec_free(&spec);
    }
    if (engine_node_spec_decode(json, &node, NULL) == OK) {
        if (labels_check(buf_span(&node.labels)) != OK) abort();
        buf_free(&node.labels);
    }
    try_held(json, ROW_SECRET, SECRET_SIZE_MAX);
    try_held(json, ROW_CONFIG, CONFIG_SIZE_MAX);
    engine_wipe(json);
    json_decref(json);
    try_spec(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span rest = span_of(data, size);
    if (crypto_start(NULL) != OK) abort();
    try_path(part(&rest));
    try_query(part(&rest));
    try_body(rest);
    return 0;
}
