/* See events.h. Names of attributes and what they tell are docker's. */
#include "api/engine/events.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/engine/encode.h"
#include "store/service.h"

static void add(struct event *e, const char *name, const char *value) {
    struct event_attribute *a = &e->attributes[e->n++];
    a->name = name;
    (void)snprintf(a->value, sizeof a->value, "%s", value);
}

static void add_change(struct event *e, const char *old_name, const char *new_name,
                       const char *before, const char *after) {
    if (strcmp(before, after) == 0) return;
    add(e, old_name, before);
    add(e, new_name, after);
}

static void add_name(struct event *e, const struct row *row, const char *otherwise) {
    char name[NODE_TEXT_MAX + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)row->name.size, (const char *)row->name.at);
    add(e, "name", row->name.size > 0 ? name : otherwise);
}

/* `row`: the one of before and after that there is, the later one if both. */
static bool of_node(const struct row *before, const struct row *after, const struct row *row,
                    struct event *out) {
    struct node_row now, was;
    if (node_row_decode(row->body, &now) != OK) return false;
    add_name(out, row, now.hostname);
    if (!before || !after || node_row_decode(before->body, &was) != OK) return true;
    add_change(out, "availability.old", "availability.new", engine_availability(was.availability),
               engine_availability(now.availability));
    add_change(out, "role.old", "role.new", engine_role(was.granted), engine_role(now.granted));
    add_change(out, "state.old", "state.new", engine_state(was.state), engine_state(now.state));
    return true;
}

static void add_number(struct event *e, const char *old_name, const char *new_name, uint64_t before,
                       uint64_t after) {
    char old_text[24], new_text[24];
    (void)snprintf(old_text, sizeof old_text, "%" PRIu64, before);
    (void)snprintf(new_text, sizeof new_text, "%" PRIu64, after);
    add_change(e, old_name, new_name, old_text, new_text);
}

/* The rows are large when they are decoded; without memory it is an update all the same. */
static void add_changes(struct event *e, const struct row *before, const struct row *after) {
    struct service_row *was = malloc(sizeof *was), *now = malloc(sizeof *now);
    if (was && now && service_decode(before->body, was) == OK &&
        service_decode(after->body, now) == OK) {
        add_change(e, "image.old", "image.new", was->image, now->image);
        add_number(e, "replicas.old", "replicas.new", was->replicas, now->replicas);
    }
    free(was);
    free(now);
}

bool event_of_row(const struct row *before, const struct row *after, struct event *out) {
    const struct row *row = after ? after : before;
    if (!row) return false;
    *out = (struct event){.time_ns = row->updated_ns};
    out->action = !before ? "create" : after ? "update" : "remove";
    (void)snprintf(out->id, sizeof out->id, "%s", row->id);
    switch (row->kind) {
    case ROW_NODE: out->type = "node"; return of_node(before, after, row, out);
    case ROW_SECRET: out->type = "secret"; break;
    case ROW_CONFIG: out->type = "config"; break;
    case ROW_SERVICE: out->type = "service"; break;
    case ROW_SPEC:
    case ROW_TOKEN:
    case ROW_VALUE:
    case ROW_TASK:
    case ROW_AUDIT:
    case ROW_VAULT: return false;
    }
    add_name(out, row, "");
    if (row->kind == ROW_SERVICE && before && after) add_changes(out, before, after);
    return true;
}

void event_put(struct jout *j, const struct event *e) {
    jout_open(j, '{');
    jout_put_text(j, "Type", e->type);
    jout_put_text(j, "Action", e->action);
    jout_key(j, "Actor");
    jout_open(j, '{');
    jout_put_text(j, "ID", e->id);
    jout_key(j, "Attributes");
    jout_open(j, '{');
    for (unsigned i = 0; i < e->n; i++)
        jout_put_text(j, e->attributes[i].name, e->attributes[i].value);
    jout_close(j, '}');
    jout_close(j, '}');
    jout_put_text(j, "scope", "swarm");
    engine_put_signed(j, "time", e->time_ns / 1000000000);
    engine_put_signed(j, "timeNano", e->time_ns);
    jout_close(j, '}');
}

static bool find_attribute(void *ctx, struct span key, struct span *value) {
    const struct event *e = ctx;
    for (unsigned i = 0; i < e->n; i++) {
        if (!span_equal(span_str(e->attributes[i].name), key)) continue;
        *value = span_str(e->attributes[i].value);
        return true;
    }
    return false;
}

bool event_wanted(const struct filters *f, const struct event *e) {
    /* Whatever kind a filter is for, its values are compared with who it happened to. */
    static const char *const kinds[] = {"container", "daemon", "plugin",  "volume", "network",
                                        "image",     "node",   "service", "secret", "config"};
    if (!filters_exact(f, "type", e->type) || !filters_exact(f, "event", e->action) ||
        !filters_exact(f, "scope", "swarm"))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!filters_prefix(f, kinds[i], e->id) &&
            !filters_prefix(f, kinds[i], e->attributes[0].value))
            return false;
    return filters_labels(f, "label", find_attribute, (void *)(uintptr_t)e);
}
