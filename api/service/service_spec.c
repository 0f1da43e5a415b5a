/* docker's ServiceSpec as a service's row: what a task is made of is taken over, what is wrong or
 * can't be had here is refused, and what has no meaning here is kept in spec_json and named in a
 * warning. Sentences are Swarm's where it has one. The spec is untrusted: everything is bounded,
 * and nothing of the row counts before all of it was read.
 *
 *   image        "host" (any tag), or the absolute path of a root file system on the node
 *   delays of 0  are kept as one nanosecond, since the row's 0 stands for the default */
#include "api/service/service_spec.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "api/engine/request_fields.h"
#include "api/service/service_signal.h"
#include "crypto/secret.h"

#define IMAGE_HOST "host"

RESULT spec_warn(struct spec_reading *r, const char *format, ...) {
    char line[WHY_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (r->warnings->size + strlen(line) + 1 > r->warnings->max) return OK; /* enough was said */
    if (r->warnings->size > 0) TRY(buf_u8(r->warnings, '\n'));
    return buf_add(r->warnings, line, strlen(line));
}

/* --- texts and lists -------------------------------------------------------------------------- */

static bool is_plain(struct span text) {
    for (size_t i = 0; i < text.size; i++)
        if (text.at[i] < 0x20 || text.at[i] == 0x7f) return false;
    return true;
}

bool spec_good_path(struct span path) {
    if (path.size < 2 || path.at[0] != '/' || !is_plain(path)) return false;
    size_t start = 1;
    for (size_t i = 1; i <= path.size; i++) {
        if (i < path.size && path.at[i] != '/') continue;
        size_t part = i - start;
        const uint8_t *at = path.at + start;
        if (part == 0 || (at[0] == '.' && (part == 1 || (part == 2 && at[1] == '.')))) return false;
        start = i + 1;
    }
    return true;
}

static RESULT member_text(struct why *why, const json_t *value, const char *name,
                          struct span *out) {
    if (!json_is_string(value))
        return fail_with(why, ERR_INVALID, "field %s has a value that is no text", name);
    *out = span_of(json_string_value(value), json_string_length(value));
    if (out->size > SERVICE_TEXT_MAX)
        return fail_with(why, ERR_INVALID, "field %s has a value that passes %llu bytes", name,
                         SERVICE_TEXT_MAX);
    if (out->size > 0 && memchr(out->at, 0, out->size))
        return fail_with(why, ERR_INVALID, "field %s has a value with a zero byte", name);
    return OK;
}

/* As good as not there; of objects and lists, those without members. */
static bool is_nothing(const json_t *value) {
    if (!value || json_is_null(value) || json_is_false(value)) return true;
    if (json_is_string(value)) return json_string_length(value) == 0;
    if (json_is_integer(value)) return json_integer_value(value) == 0;
    if (json_is_real(value)) return json_real_value(value) == 0.0;
    if (json_is_array(value)) return json_array_size(value) == 0;
    return json_is_object(value) && json_object_size(value) == 0;
}

/* The same, or an object of which that is true of each member. */
static bool is_empty(const json_t *value) {
    const char *key;
    json_t *member;
    if (is_nothing(value)) return true;
    json_object_foreach((json_t *)(uintptr_t)value, key,
                        member) if (!is_nothing(member)) return false;
    return json_is_object(value);
}

/* --- the container's members ------------------------------------------------------------------ */

static RESULT read_image(struct spec_reading *r, const json_t *container) {
    struct span image = span_of("", 0);
    size_t host = strlen(IMAGE_HOST);
    TRY(field_span(container, "Image", &image, r->why));
    if (image.size == 0)
        return fail_with(r->why, ERR_INVALID,
                         "ContainerSpec: image reference must be provided: \"host\" or the "
                         "absolute path of a root file system on the node");
    bool is_host = image.size >= host && memcmp(image.at, IMAGE_HOST, host) == 0 &&
                   (image.size == host || image.at[host] == ':' || image.at[host] == '@');
    if (is_host) image.size = host;
    bool path = image.size < sizeof r->out->image && spec_good_path(image);
    if (!is_host && !path)
        return fail_with(r->why, ERR_INVALID,
                         "ContainerSpec: \"%.*s\" is not a valid image: use \"host\" (the node's "
                         "own file system) or the absolute path of a root file system on the node",
                         (int)(image.size < 128 ? image.size : 128), (const char *)image.at);
    memcpy(r->out->image, image.at, image.size);
    r->out->image[image.size] = 0;
    return OK;
}

static RESULT add_words(struct spec_reading *r, const json_t *container, const char *name,
                        unsigned *n) {
    const json_t *list;
    json_t *value;
    size_t i;
    struct span text;
    TRY(field_array(container, name, &list, r->why));
    json_array_foreach(list, i, value) {
        TRY(member_text(r->why, value, name, &text));
        if (++*n > SERVICE_ARGS_MAX)
            return fail_with(r->why, ERR_INVALID, "there are more than %d words of a command",
                             SERVICE_ARGS_MAX);
        TRY(buf_block(r->memory, text));
    }
    return OK;
}

static RESULT read_command(struct spec_reading *r, const json_t *container) {
    size_t mark = spec_mark(r);
    unsigned n = 0;
    struct cursor words;
    struct span first;
    TRY(add_words(r, container, "Command", &n));
    TRY(add_words(r, container, "Args", &n));
    r->out->command = spec_since(r, mark);
    words = cursor_of(r->out->command);
    if (n == 0 || cursor_block(&words, SERVICE_TEXT_MAX, &first) != OK || first.size == 0)
        return fail_with(r->why, ERR_INVALID,
                         "ContainerSpec: a command must be provided: an image has none here");
    return OK;
}

/* NAME without a value takes a variable of the image away; there is none. */
static RESULT read_env(struct spec_reading *r, const json_t *container) {
    const json_t *list;
    json_t *value;
    size_t i, mark = spec_mark(r);
    struct span text;
    TRY(field_array(container, "Env", &list, r->why));
    if (json_array_size(list) > SERVICE_ENV_MAX)
        return fail_with(r->why, ERR_INVALID, "field Env has more than %d members",
                         SERVICE_ENV_MAX);
    json_array_foreach(list, i, value) {
        TRY(member_text(r->why, value, "Env", &text));
        const uint8_t *equals = text.size > 0 ? memchr(text.at, '=', text.size) : NULL;
        if (text.size == 0 || equals == text.at)
            return fail_with(r->why, ERR_INVALID, "invalid environment variable: \"%.*s\"",
                             (int)(text.size < 128 ? text.size : 128), (const char *)text.at);
        if (equals) TRY(buf_block(r->memory, text));
    }
    r->out->env = spec_since(r, mark);
    return OK;
}

static bool below(struct span path, const char *folder) {
    size_t size = strlen(folder);
    return path.size >= size && memcmp(path.at, folder, size) == 0 &&
           (path.size == size || path.at[size] == '/');
}

static RESULT check_mount(struct spec_reading *r, struct span source, struct span target,
                          size_t mark) {
    struct cursor c = cursor_of(spec_since(r, mark));
    struct span mount, from, to;
    uint8_t read_only;
    if (!spec_good_path(source) || source.size >= 4096)
        return fail_with(r->why, ERR_INVALID,
                         "invalid mount source, must be an absolute path: \"%.*s\"",
                         (int)(source.size < 128 ? source.size : 128), (const char *)source.at);
    if (!spec_good_path(target) || target.size >= 4096)
        return fail_with(r->why, ERR_INVALID,
                         "invalid mount target, must be an absolute path: \"%.*s\"",
                         (int)(target.size < 128 ? target.size : 128), (const char *)target.at);
    if (below(target, "/proc") || below(target, "/run/secrets"))
        return fail_with(r->why, ERR_INVALID,
                         "invalid mount target: \"%.*s\" is where a task has its own",
                         (int)(target.size < 128 ? target.size : 128), (const char *)target.at);
    while (cursor_block(&c, SERVICE_SPEC_MAX, &mount) == OK) {
        struct cursor fields = cursor_of(mount);
        TRY(cursor_u8(&fields, &read_only));
        TRY(cursor_block(&fields, SERVICE_SPEC_MAX, &from));
        TRY(cursor_block(&fields, SERVICE_SPEC_MAX, &to));
        if (span_equal(to, target))
            return fail_with(r->why, ERR_INVALID, "ContainerSpec: duplicate mount point: %.*s",
                             (int)(to.size < 128 ? to.size : 128), (const char *)to.at);
    }
    return OK;
}

static RESULT add_mount(struct spec_reading *r, const json_t *object, size_t mark) {
    struct span source = span_of("", 0), target = span_of("", 0);
    char type[16] = "";
    bool read_only = false;
    if (!json_is_object(object))
        return fail_with(r->why, ERR_INVALID, "field Mounts has a value that is no object");
    TRY(field_text(object, "Type", type, sizeof type, r->why));
    TRY(field_span(object, "Source", &source, r->why));
    TRY(field_span(object, "Target", &target, r->why));
    TRY(field_bool(object, "ReadOnly", &read_only, r->why));
    if (type[0] && strcmp(type, "bind") != 0)
        return fail_with(r->why, ERR_INVALID,
                         "a mount of type %s can't be had: a task gets what lies on its node, by "
                         "type=bind",
                         type);
    TRY(check_mount(r, source, target, mark));
    TRY(buf_u32(r->memory, (uint32_t)(1 + 4 + source.size + 4 + target.size)));
    TRY(buf_u8(r->memory, read_only));
    TRY(buf_block(r->memory, source));
    return buf_block(r->memory, target);
}

static RESULT read_mounts(struct spec_reading *r, const json_t *container) {
    const json_t *list;
    json_t *value;
    size_t i, mark = spec_mark(r);
    TRY(field_array(container, "Mounts", &list, r->why));
    if (json_array_size(list) > SERVICE_MOUNTS_MAX)
        return fail_with(r->why, ERR_INVALID, "field Mounts has more than %d members",
                         SERVICE_MOUNTS_MAX);
    json_array_foreach(list, i, value) TRY(add_mount(r, value, mark));
    r->out->mounts = spec_since(r, mark);
    return OK;
}

static RESULT read_duration(struct spec_reading *r, const json_t *object, const char *name,
                            int64_t *out) {
    int64_t ns = -1;
    TRY(field_number(object, name, 0, SPEC_NS_MAX, &ns, r->why));
    *out = ns < 0 ? 0 : ns == 0 ? 1 : ns;
    return OK;
}

static RESULT read_signal(struct spec_reading *r, struct span text, uint32_t *out) {
    char word[16] = "";
    if (text.size == 0) return OK;
    if (text.size < sizeof word) memcpy(word, text.at, text.size);
    *out = signal_number(word);
    if (*out == 0)
        return fail_with(r->why, ERR_INVALID, "\"%.*s\" is no signal",
                         (int)(text.size < 32 ? text.size : 32), (const char *)text.at);
    return OK;
}

static RESULT read_names(struct spec_reading *r, const json_t *container) {
    struct service_row *s = r->out;
    struct span stop = span_of("", 0);
    TRY(field_text(container, "User", s->user, sizeof s->user, r->why));
    TRY(field_text(container, "Dir", s->dir, sizeof s->dir, r->why));
    TRY(field_text(container, "Hostname", s->hostname, sizeof s->hostname, r->why));
    if (!is_plain(span_str(s->user)) || !is_plain(span_str(s->hostname)))
        return fail_with(r->why, ERR_INVALID, "a user or host name has a control character");
    if (s->dir[0] && strcmp(s->dir, "/") != 0 && !spec_good_path(span_str(s->dir)))
        return fail_with(r->why, ERR_INVALID,
                         "the working directory \"%.128s\" is invalid, it "
                         "needs to be an absolute path",
                         s->dir);
    TRY(field_span(container, "StopSignal", &stop, r->why));
    TRY(read_signal(r, stop, &s->stop_signal));
    return read_duration(r, container, "StopGracePeriod", &s->stop_grace_ns);
}

/* --- the rest of a task ----------------------------------------------------------------------- */

static RESULT read_restart(struct spec_reading *r, const json_t *template) {
    const json_t *policy;
    char condition[16] = "";
    int64_t attempts = 0;
    struct service_row *s = r->out;
    TRY(field_object(template, "RestartPolicy", &policy, r->why));
    TRY(field_text(policy, "Condition", condition, sizeof condition, r->why));
    if (strcmp(condition, "none") == 0)
        s->restart = RESTART_NONE;
    else if (strcmp(condition, "on-failure") == 0)
        s->restart = RESTART_ON_FAILURE;
    else if (strcmp(condition, "any") == 0 || !condition[0])
        s->restart = RESTART_ANY;
    else
        return fail_with(r->why, ERR_INVALID, "invalid RestartCondition: \"%s\"", condition);
    TRY(read_duration(r, policy, "Delay", &s->restart_delay_ns));
    TRY(field_number(policy, "MaxAttempts", 0, SPEC_ATTEMPTS_MAX, &attempts, r->why));
    s->restart_max = (uint64_t)attempts;
    return field_number(policy, "Window", 0, SPEC_NS_MAX, &s->restart_window_ns, r->why);
}

static const char *const constraint_keys[] = {"node.id", "node.hostname", "node.role",
                                              "node.platform.os", "node.platform.arch"};
#define CONSTRAINT_LABEL "node.labels."

static struct span trimmed(struct span text) {
    while (text.size > 0 && text.at[0] == ' ')
        text = span_of(text.at + 1, text.size - 1);
    while (text.size > 0 && text.at[text.size - 1] == ' ')
        text.size--;
    return text;
}

static bool is_constraint_key(struct span key) {
    size_t label = strlen(CONSTRAINT_LABEL);
    if (key.size > label && strncasecmp((const char *)key.at, CONSTRAINT_LABEL, label) == 0)
        return true;
    for (size_t i = 0; i < sizeof constraint_keys / sizeof constraint_keys[0]; i++)
        if (key.size == strlen(constraint_keys[i]) &&
            strncasecmp((const char *)key.at, constraint_keys[i], key.size) == 0)
            return true;
    return false;
}

/* "KEY == VALUE" with one blank on each side, as scheduler_place.c reads it. */
static RESULT add_constraint(struct spec_reading *r, struct span text) {
    size_t at = 0;
    while (at + 1 < text.size &&
           !((text.at[at] == '=' || text.at[at] == '!') && text.at[at + 1] == '='))
        at++;
    if (at + 1 >= text.size)
        return fail_with(r->why, ERR_INVALID, "constraint expected one operator from ==, !=");
    struct span key = trimmed(span_of(text.at, at));
    struct span value = trimmed(span_of(text.at + at + 2, text.size - at - 2));
    if (!is_plain(text) || !is_constraint_key(key))
        return fail_with(r->why, ERR_INVALID,
                         "key '%.*s' is invalid: there are node.id, node.hostname, node.role, "
                         "node.platform.os, node.platform.arch and node.labels.NAME",
                         (int)(key.size < 128 ? key.size : 128), (const char *)key.at);
    if (value.size == 0) return fail_with(r->why, ERR_INVALID, "value '' is invalid");
    TRY(buf_u32(r->memory, (uint32_t)(key.size + 4 + value.size)));
    TRY(buf_add_span(r->memory, key));
    TRY(buf_add(r->memory, text.at[at] == '=' ? " == " : " != ", 4));
    return buf_add_span(r->memory, value);
}

static RESULT read_placement(struct spec_reading *r, const json_t *template) {
    const json_t *placement, *list;
    json_t *value;
    struct span text;
    size_t i, mark = spec_mark(r);
    TRY(field_object(template, "Placement", &placement, r->why));
    TRY(field_array(placement, "Constraints", &list, r->why));
    if (json_array_size(list) > SERVICE_CONSTRAINTS_MAX)
        return fail_with(r->why, ERR_INVALID, "there are more than %d constraints",
                         SERVICE_CONSTRAINTS_MAX);
    json_array_foreach(list, i, value) {
        TRY(member_text(r->why, value, "Constraints", &text));
        TRY(add_constraint(r, text));
    }
    r->out->constraints = spec_since(r, mark);
    if (!is_empty(field_of(placement, "Preferences")))
        TRY(spec_warn(r, "placement preferences have no effect: tasks are spread over all nodes"));
    if (!is_empty(field_of(placement, "MaxReplicas")))
        TRY(spec_warn(r, "the maximum of replicas per node has no effect"));
    return OK;
}

static RESULT read_mode(struct spec_reading *r, const json_t *json) {
    const json_t *mode, *replicated, *global;
    int64_t replicas = 1;
    TRY(field_object(json, "Mode", &mode, r->why));
    if (!is_empty(field_of(mode, "ReplicatedJob")) || !is_empty(field_of(mode, "GlobalJob")) ||
        json_is_object(field_of(mode, "ReplicatedJob")) ||
        json_is_object(field_of(mode, "GlobalJob")))
        return fail_with(r->why, ERR_UNSUPPORTED, "jobs are not supported");
    TRY(field_object(mode, "Replicated", &replicated, r->why));
    TRY(field_object(mode, "Global", &global, r->why));
    if (replicated && global)
        return fail_with(r->why, ERR_INVALID, "must specify only one service mode");
    TRY(field_number(replicated, "Replicas", INT64_MIN, INT64_MAX, &replicas, r->why));
    if (replicas < 0)
        return fail_with(r->why, ERR_INVALID, "Number of replicas must be non-negative");
    if (replicas > SERVICE_REPLICAS_MAX)
        return fail_with(r->why, ERR_INVALID, "Number of replicas must be %d at most",
                         SERVICE_REPLICAS_MAX);
    r->out->mode = global ? SERVICE_GLOBAL : SERVICE_REPLICATED;
    r->out->replicas = global ? 0 : (uint64_t)replicas;
    return OK;
}

static RESULT read_labels(struct spec_reading *r, const json_t *json) {
    struct buf labels;
    struct span key, value;
    size_t mark = spec_mark(r);
    enum err e = field_labels(json, "Labels", &labels, r->why);
    if (e == OK) e = buf_add_span(r->memory, buf_span(&labels));
    buf_free(&labels);
    TRY(e);
    r->out->labels = spec_since(r, mark);
    struct cursor c = cursor_of(r->out->labels);
    while (labels_next(&c, &key, &value))
        if (span_equal(key, span_str(SPEC_LABEL_RELOAD)))
            TRY(read_signal(r, value, &r->out->reload_signal));
    return OK;
}

/* --- what has no meaning here ----------------------------------------------------------------- */

struct idle {
    const char *member;
    const char *says;
};

/* What is done anyway: docker's own defaults, which its clients send back. */
static bool is_usual_update(const json_t *config) {
    const char *action = jin_string(config, "FailureAction"), *order = jin_string(config, "Order");
    const json_t *parallelism = field_of(config, "Parallelism");
    bool one = !parallelism || json_integer_value(parallelism) == 1;
    return json_is_object(config) && one && is_nothing(field_of(config, "Delay")) &&
           is_nothing(field_of(config, "MaxFailureRatio")) &&
           (!action[0] || strcmp(action, "pause") == 0) &&
           (!order[0] || strcmp(order, "stop-first") == 0);
}

static RESULT warn_idle(struct spec_reading *r, const json_t *object, const struct idle *idle,
                        size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!is_empty(field_of(object, idle[i].member))) TRY(spec_warn(r, "%s", idle[i].says));
    return OK;
}

static RESULT warn_all(struct spec_reading *r, const json_t *json, const json_t *template,
                       const json_t *container) {
    static const struct idle of_update[] = {
        {"UpdateConfig", "the update config has no effect: tasks are replaced one by one"},
        {"RollbackConfig", "the rollback config has no effect: tasks are replaced one by one"},
    };
    static const struct idle of_service[] = {
        {"Networks", "networks have no effect: a task has its node's"},
    };
    static const struct idle of_endpoint[] = {
        {"Ports", "published ports have no effect: a task has its node's network"}};
    static const struct idle of_template[] = {
        {"Networks", "networks have no effect: a task has its node's"},
        {"LogDriver", "the log driver has no effect"},
    };
    static const struct idle of_resources[] = {
        {"Limits", "resource limits have no effect"},
        {"Reservations", "resource reservations have no effect"},
    };
    static const struct idle of_container[] = {
        {"TTY", "a task has no terminal"},
        {"OpenStdin", "a task has no standard input"},
        {"Healthcheck", "the health check has no effect"},
        {"Hosts", "host names have no effect: a task has its node's"},
        {"DNSConfig", "the DNS config has no effect: a task has its node's"},
        {"Groups", "supplementary groups have no effect"},
        {"Privileges", "the privileges' config has no effect"},
        {"Sysctls", "sysctls have no effect"},
        {"CapabilityAdd", "added capabilities have no effect"},
        {"CapabilityDrop", "dropped capabilities have no effect"},
        {"Ulimits", "ulimits have no effect"},
    };
    const json_t *resources, *endpoint;
#define N(table) (sizeof(table) / sizeof((table)[0]))
    TRY(field_object(json, "EndpointSpec", &endpoint, r->why));
    TRY(field_object(template, "Resources", &resources, r->why));
    for (size_t i = 0; i < N(of_update); i++) {
        const json_t *config = field_of(json, of_update[i].member);
        if (config && !is_usual_update(config)) TRY(spec_warn(r, "%s", of_update[i].says));
    }
    TRY(warn_idle(r, json, of_service, N(of_service)));
    TRY(warn_idle(r, endpoint, of_endpoint, N(of_endpoint)));
    TRY(warn_idle(r, template, of_template, N(of_template)));
    TRY(warn_idle(r, resources, of_resources, N(of_resources)));
    return warn_idle(r, container, of_container, N(of_container));
#undef N
}

/* --- the name, and the spec as it is kept ----------------------------------------------------- */

static bool is_word(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_dns_name(struct span name) {
    if (name.size == 0 || !is_word(name.at[0]) || !is_word(name.at[name.size - 1])) return false;
    for (size_t i = 0; i < name.size; i++)
        if (!is_word(name.at[i]) && name.at[i] != '-' && name.at[i] != '_') return false;
    return true;
}

static RESULT read_name(struct spec_reading *r, const json_t *json, struct span *out) {
    char made[NODE_ID_SIZE + 1];
    struct span name = span_of("", 0);
    size_t mark = spec_mark(r);
    TRY(field_span(json, "Name", &name, r->why));
    if (name.size == 0) {
        random_id(made);
        name = span_str(made);
    }
    if (!is_dns_name(name))
        return fail_with(r->why, ERR_INVALID, "name must be valid as a DNS name component");
    if (name.size > SERVICE_NAME_MAX)
        return fail_with(r->why, ERR_INVALID, "name must be %d characters or fewer",
                         SERVICE_NAME_MAX);
    TRY(buf_add_span(r->memory, name));
    *out = spec_since(r, mark);
    return OK;
}

static RESULT set(json_t *object, const char *name, json_t *value) {
    return value && json_object_set_new(object, name, value) == 0 ? OK : ERR_NOMEM;
}

/* The members that clients rely on, each under docker's spelling. */
static RESULT complete(struct spec_reading *r, json_t *json, struct span name) {
    const struct service_row *s = r->out;
    TRY(set(json, "Name", json_stringn((const char *)name.at, name.size)));
    if (!field_of(json, "Labels")) TRY(set(json, "Labels", json_object()));
    if (s->mode == SERVICE_GLOBAL) return set(json, "Mode", json_pack("{s{}}", "Global"));
    return set(json, "Mode",
               json_pack("{s{sI}}", "Replicated", "Replicas", (json_int_t)s->replicas));
}

static RESULT keep(struct spec_reading *r, const json_t *json) {
    size_t mark = spec_mark(r), size = json_dumpb(json, NULL, 0, JSON_COMPACT);
    if (size == 0) return ERR_NOMEM;
    if (size > SERVICE_SPEC_MAX)
        return fail_with(r->why, ERR_INVALID, "the service's spec passes %llu bytes",
                         SERVICE_SPEC_MAX);
    TRY(buf_reserve(r->memory, size));
    if (json_dumpb(json, (char *)r->memory->at + mark, size, JSON_COMPACT) != size)
        return ERR_NOMEM;
    r->memory->size += size;
    r->out->spec_json = spec_since(r, mark);
    return OK;
}

/* --- the whole -------------------------------------------------------------------------------- */

static RESULT read_task(struct spec_reading *r, const json_t *template, json_t *container) {
    char runtime[32] = "";
    TRY(field_text(template, "Runtime", runtime, sizeof runtime, r->why));
    bool other = runtime[0] && strcmp(runtime, "container") != 0;
    if (other || field_of(template, "PluginSpec") || field_of(template, "NetworkAttachmentSpec"))
        return fail_with(r->why, ERR_UNSUPPORTED,
                         "RuntimeSpec: unimplemented runtime in service spec");
    TRY(read_restart(r, template));
    TRY(read_placement(r, template));
    TRY(spec_refs(r, container));
    TRY(read_image(r, container));
    TRY(read_mounts(r, container));
    TRY(read_command(r, container));
    TRY(read_env(r, container));
    return read_names(r, container);
}

/* `json`, `template` and `container` are copies of their own, each within the one before. */
static RESULT read_spec(struct spec_reading *r, json_t *json, json_t *template, json_t *container,
                        struct span *name) {
    TRY(read_name(r, json, name));
    TRY(read_labels(r, json));
    TRY(read_task(r, template, container));
    TRY(read_mode(r, json));
    TRY(warn_all(r, json, template, container));
    TRY(complete(r, json, *name));
    TRY(spec_refs_check(r));
    return keep(r, json);
}

/* A copy of a member in place of the member; both are the object's. */
static RESULT own_copy(json_t *object, const char *name, json_t **out, struct why *why) {
    const json_t *member;
    TRY(field_object(object, name, &member, why));
    if (!member)
        return fail_with(why, ERR_INVALID, "TaskSpec: missing runtime: there is no %s", name);
    *out = json_copy((json_t *)(uintptr_t)member);
    return set(object, name, *out);
}

static RESULT prepare(const json_t *json, struct buf *memory, struct why *why) {
    if (!json_is_object(json))
        return fail_with(why, ERR_INVALID, "the service's spec is no object");
    if (json_dumpb(json, NULL, 0, JSON_COMPACT) > SERVICE_SPEC_MAX)
        return fail_with(why, ERR_INVALID, "the service's spec passes %llu bytes",
                         SERVICE_SPEC_MAX);
    TRY(buf_reserve(memory, SERVICE_SPEC_MEMORY));
    memory->max = memory->size + SERVICE_SPEC_MEMORY;
    return OK;
}

RESULT service_spec(const struct manager *m, const json_t *json, struct buf *memory,
                    struct service_row *out, struct span *name, struct buf *warnings,
                    struct why *why) {
    struct spec_reading r = {
        .store = m->store, .memory = memory, .out = out, .warnings = warnings, .why = why};
    json_t *template, *container;
    *out = (struct service_row){0};
    TRY(prepare(json, memory, why));
    json_t *copy = json_copy((json_t *)(uintptr_t)json);
    if (!copy) return ERR_NOMEM;
    enum err e = own_copy(copy, "TaskTemplate", &template, why);
    if (e == OK) e = own_copy(template, "ContainerSpec", &container, why);
    if (e == OK) e = read_spec(&r, copy, template, container, name);
    json_decref(copy);
    return e;
}
