/* See encode_service.h. The order of fields is that of docker's structs; specs, which came as JSON,
 * are only parsed where something is taken out of them or put in. */
#include "api/engine/encode_service.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

static void put_meta(struct jout *j, const struct row *row) {
    jout_put_text(j, "ID", row->id);
    jout_key(j, "Version");
    jout_open(j, '{');
    jout_put_number(j, "Index", row->version);
    jout_close(j, '}');
    engine_put_time(j, "CreatedAt", row->created_ns);
    engine_put_time(j, "UpdatedAt", row->updated_ns);
}

static void put_name(struct jout *j, struct span name) {
    jout_key(j, "Name");
    jout_text(j, name);
}

static void put_json(struct jout *j, const char *key, struct span json) {
    jout_key(j, key);
    jout_raw(j, json);
}

/* --- secrets and configs ---------------------------------------------------------------------- */

static void put_driver(struct jout *j, const char *key, const char *name, struct span options) {
    if (!name[0]) return;
    jout_key(j, key);
    jout_open(j, '{');
    jout_put_text(j, "Name", name);
    engine_put_labels(j, "Options", options);
    jout_close(j, '}');
}

void engine_put_held(struct jout *j, const struct engine_held *h) {
    jout_open(j, '{');
    put_meta(j, h->row);
    jout_key(j, "Spec");
    jout_open(j, '{');
    put_name(j, h->row->name);
    engine_put_labels(j, "Labels", h->held->labels);
    if (h->data) {
        jout_key(j, "Data");
        jout_base64(j, *h->data);
    }
    put_driver(j, "Driver", h->held->driver, h->held->driver_options);
    put_driver(j, "Templating", h->held->templating, h->held->templating_options);
    jout_close(j, '}');
    jout_close(j, '}');
}

/* --- services --------------------------------------------------------------------------------- */

void engine_count_task(struct engine_count *c, const struct service_row *s, const char *id,
                       const struct task_row *t) {
    bool runs = t->state == TASK_RUNNING, wanted = t->desired <= TASK_RUNNING;
    bool fresh = t->spec_version == s->spec_version;
    c->running += runs;
    c->wanted += wanted;
    c->old += wanted && !fresh;
    c->over += fresh && t->state == TASK_COMPLETE;
    c->fresh += wanted && fresh && runs;
    if (fresh && (t->state == TASK_FAILED || t->state == TASK_REJECTED))
        (void)snprintf(c->failed, sizeof c->failed, "%s", id);
}

static uint64_t desired_of(const struct engine_service *s) {
    return s->service->mode == SERVICE_GLOBAL ? s->count.wanted : s->service->replicas;
}

/* How far the last update has come. It is told by the tasks alone: a service whose tasks are all of
 * the present spec is up to date. While a new one does not run, no further old one is replaced:
 * that is docker's "paused", by which a client that waits learns that it would wait in vain. */
static void put_update(struct jout *j, const struct engine_service *s) {
    if (s->service->previous_json.size == 0) return;
    char text[128];
    bool done = s->count.old == 0 && s->count.wanted + s->count.over >= desired_of(s);
    bool paused = !done && s->count.failed[0];
    (void)snprintf(text, sizeof text, "%s%s",
                   done     ? "update completed"
                   : paused ? "update paused due to failure or early termination of task "
                            : "update in progress",
                   paused ? s->count.failed : "");
    jout_key(j, "UpdateStatus");
    jout_open(j, '{');
    jout_put_text(j, "State", done ? "completed" : paused ? "paused" : "updating");
    engine_put_time(j, "StartedAt", s->row->updated_ns);
    if (done) engine_put_time(j, "CompletedAt", s->row->updated_ns);
    jout_put_text(j, "Message", text);
    jout_close(j, '}');
}

static void put_status(struct jout *j, const struct engine_service *s) {
    if (!s->status) return;
    jout_key(j, "ServiceStatus");
    jout_open(j, '{');
    jout_put_number(j, "RunningTasks", s->count.running);
    jout_put_number(j, "DesiredTasks", desired_of(s));
    jout_put_number(j, "CompletedTasks", 0);
    jout_close(j, '}');
}

void engine_put_service(struct jout *j, const struct engine_service *s) {
    jout_open(j, '{');
    put_meta(j, s->row);
    put_json(j, "Spec", s->spec ? span_str(s->spec) : s->service->spec_json);
    if (s->service->previous_json.size > 0) put_json(j, "PreviousSpec", s->service->previous_json);
    put_json(j, "Endpoint", span_str("{\"Spec\":{}}"));
    put_update(j, s);
    put_status(j, s);
    jout_close(j, '}');
}

/* --- specs ------------------------------------------------------------------------------------ */

static json_t *parse(struct span json) {
    return json_loadb((const char *)json.at, json.size, JSON_REJECT_DUPLICATES, NULL);
}

/* The member, which is made an empty object where it is none; NULL: no memory. */
static json_t *object_in(json_t *object, const char *key) {
    json_t *found = json_object_get(object, key);
    if (json_is_object(found)) return found;
    return json_object_set_new(object, key, json_object()) == 0 ? json_object_get(object, key)
                                                                : NULL;
}

/* Clients take it for granted that a task has a ContainerSpec. */
char *engine_template(const struct service_row *s, uint64_t spec_version) {
    bool previous = s && s->spec_version != spec_version && s->previous_json.size > 0;
    json_t *spec = s ? parse(previous ? s->previous_json : s->spec_json) : json_object();
    json_t *template = spec ? object_in(spec, "TaskTemplate") : NULL;
    char *out = template && object_in(template, "ContainerSpec")
                    ? json_dumps(template, JSON_COMPACT)
                    : NULL;
    json_decref(spec);
    return out;
}

/* Sets a member that is not there; takes the value over. */
static bool put_absent(json_t *object, const char *key, json_t *value) {
    json_t *found = json_object_get(object, key);
    if (value && found && !json_is_null(found)) {
        json_decref(value);
        return true;
    }
    return json_object_set_new(object, key, value) == 0;
}

#define GRACE_NS   10000000000LL
#define DELAY_NS   5000000000LL
#define MONITOR_NS 5000000000LL

static bool insert_update(json_t *spec, const char *key) {
    json_t *config = object_in(spec, key);
    return config && put_absent(config, "Parallelism", json_integer(1)) &&
           put_absent(config, "FailureAction", json_string("pause")) &&
           put_absent(config, "Monitor", json_integer(MONITOR_NS)) &&
           put_absent(config, "MaxFailureRatio", json_integer(0)) &&
           put_absent(config, "Order", json_string("stop-first"));
}

static bool insert_restart(json_t *template) {
    json_t *policy = object_in(template, "RestartPolicy");
    return policy && put_absent(policy, "Condition", json_string("any")) &&
           put_absent(policy, "Delay", json_integer(DELAY_NS)) &&
           put_absent(policy, "MaxAttempts", json_integer(0));
}

static bool insert(json_t *spec) {
    json_t *template = object_in(spec, "TaskTemplate");
    json_t *container = template ? object_in(template, "ContainerSpec") : NULL;
    json_t *endpoint = object_in(spec, "EndpointSpec");
    return container && endpoint && object_in(container, "DNSConfig") &&
           put_absent(container, "StopGracePeriod", json_integer(GRACE_NS)) &&
           insert_restart(template) && object_in(template, "Placement") &&
           object_in(template, "Resources") && insert_update(spec, "UpdateConfig") &&
           insert_update(spec, "RollbackConfig") &&
           put_absent(endpoint, "Mode", json_string("vip"));
}

char *engine_defaults(const struct service_row *s) {
    json_t *spec = parse(s->spec_json);
    char *out = json_is_object(spec) && insert(spec) ? json_dumps(spec, JSON_COMPACT) : NULL;
    json_decref(spec);
    return out;
}

/* --- tasks ------------------------------------------------------------------------------------ */

static void put_container(struct jout *j, const struct engine_task *t) {
    if (t->task->state < TASK_STARTING) return;
    jout_key(j, "ContainerStatus");
    jout_open(j, '{');
    jout_put_text(j, "ContainerID", t->row->id);
    jout_put_number(j, "PID", t->task->pid);
    engine_put_signed(j, "ExitCode", t->task->exit_code);
    jout_close(j, '}');
}

static void put_task_status(struct jout *j, const struct engine_task *t) {
    jout_key(j, "Status");
    jout_open(j, '{');
    engine_put_time(j, "Timestamp", t->task->state_ns);
    jout_put_text(j, "State", task_state_name(t->task->state));
    if (t->task->message[0]) jout_put_text(j, "Message", t->task->message);
    if (t->task->error[0]) jout_put_text(j, "Err", t->task->error);
    put_container(j, t);
    put_json(j, "PortStatus", span_str("{}"));
    jout_close(j, '}');
}

void engine_put_task(struct jout *j, const struct engine_task *t) {
    jout_open(j, '{');
    put_meta(j, t->row);
    if (t->name[0]) jout_put_text(j, "Name", t->name);
    engine_put_labels(j, "Labels", span_of(NULL, 0)); /* tasks have none of their own */
    put_json(j, "Spec", span_str(t->spec));
    jout_put_text(j, "ServiceID", t->task->service_id);
    if (t->task->slot > 0) jout_put_number(j, "Slot", t->task->slot);
    if (t->task->node_id[0]) jout_put_text(j, "NodeID", t->task->node_id);
    put_task_status(j, t);
    jout_put_text(j, "DesiredState", task_state_name(t->task->desired));
    jout_close(j, '}');
}
