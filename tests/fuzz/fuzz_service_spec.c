/* Any bytes as docker's ServiceSpec: no fault, and whatever is accepted is a row that the store
 * takes, of which the spans lie in the memory that was given, and which reads as itself again. */
#include <stdlib.h>

#include "api/json.h"
#include "api/service/services.h"

static struct store *store;

static void inside(const struct buf *memory, struct span s) {
    if (s.size > 0 && (s.at < memory->at || s.at + s.size > memory->at + memory->size)) abort();
}

static void check(const struct service_row *s, struct span name, const struct buf *memory) {
    static struct service_row back; /* large */
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row_change c = {
        .action = ROW_CREATE, .kind = ROW_SERVICE, .id = "service", .name = name};
    struct buf changes = buf_new(COMMAND_MAX);
    inside(memory, s->spec_json);
    inside(memory, s->labels);
    inside(memory, s->command);
    inside(memory, s->env);
    inside(memory, s->constraints);
    inside(memory, s->mounts);
    inside(memory, name);
    if (service_encode(s, &body) != OK || service_decode(buf_span(&body), &back) != OK) abort();
    c.body = buf_span(&body);
    if (row_change_add(&changes, &c) != OK) abort();
    buf_free(&changes);
    buf_free(&body);
}

/* What is kept is accepted as well, and stays what it is. */
static void check_again(const struct manager *m, struct span kept) {
    static struct service_row again;
    struct buf memory = buf_new(SERVICE_SPEC_MEMORY), warnings = buf_new(SERVICE_WARNINGS);
    struct span name;
    json_t *json;
    if (jin_parse(kept, &json, NULL) != OK) abort();
    if (service_spec(m, json, &memory, &again, &name, &warnings, NULL) != OK) abort();
    if (!span_equal(again.spec_json, kept)) abort();
    json_decref(json);
    buf_free(&memory);
    buf_free(&warnings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct manager *m;
    static struct service_row row;
    struct buf memory = buf_new(SERVICE_SPEC_MEMORY), warnings = buf_new(SERVICE_WARNINGS);
    struct span name;
    struct why why;
    json_t *json;
    if (!m) {
        if (crypto_start(NULL) != OK || store_new(&store) != OK) abort();
        m = calloc(1, sizeof *m);
        m->store = store;
    }
    if (jin_parse(span_of(data, size), &json, NULL) != OK) return 0;
    if (service_spec(m, json, &memory, &row, &name, &warnings, &why) == OK) {
        check(&row, name, &memory);
        check_again(m, row.spec_json);
    }
    if (warnings.size > SERVICE_WARNINGS) abort();
    json_decref(json);
    buf_free(&memory);
    buf_free(&warnings);
    return 0;
}
