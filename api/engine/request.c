/* See request.h: the body as such, getters, and the small bodies. The settings are in
 * request_spec.c. */
#include "api/engine/request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include <sodium.h>

#include "api/engine/request_fields.h"
#include "api/http/http.h"

/* --- the body --------------------------------------------------------------------------------- */

static bool is_json(struct span type) {
    const uint8_t *mark = type.size > 0 ? memchr(type.at, ';', type.size) : NULL;
    if (mark) type.size = (size_t)(mark - type.at);
    while (type.size > 0 && type.at[type.size - 1] == ' ')
        type.size--;
    return http_is(type, "application/json");
}

RESULT engine_body(const struct http_head *head, struct span body, json_t **out, struct why *why) {
    const struct http_header *type = http_find(head, "content-type");
    if (body.size > 0 && (!type || !is_json(type->value)))
        return fail_with(why, ERR_INVALID,
                         "unsupported Content-Type header (%.*s): must be 'application/json'",
                         type ? (int)(type->value.size < 64 ? type->value.size : 64) : 0,
                         type ? (const char *)type->value.at : "");
    return jin_parse(body, out, why);
}

/* --- fields ----------------------------------------------------------------------------------- */

const json_t *field_of(const json_t *object, const char *name) {
    const char *key;
    json_t *value, *found = json_object_get(object, name);
    if (!found) {
        json_object_foreach((json_t *)(uintptr_t)object, key, value) {
            if (strcasecmp(key, name) != 0) continue;
            found = value;
            break;
        }
    }
    return json_is_null(found) ? NULL : found;
}

RESULT field_object(const json_t *object, const char *name, const json_t **out, struct why *why) {
    *out = field_of(object, name);
    if (*out && !json_is_object(*out))
        return fail_with(why, ERR_INVALID, "field %s is no object", name);
    return OK;
}

RESULT field_array(const json_t *object, const char *name, const json_t **out, struct why *why) {
    *out = field_of(object, name);
    if (*out && !json_is_array(*out))
        return fail_with(why, ERR_INVALID, "field %s is no list", name);
    return OK;
}

RESULT field_bool(const json_t *object, const char *name, bool *out, struct why *why) {
    const json_t *value = field_of(object, name);
    if (!value) return OK;
    if (!json_is_boolean(value))
        return fail_with(why, ERR_INVALID, "field %s is not true or false", name);
    *out = json_is_true(value);
    return OK;
}

RESULT field_number(const json_t *object, const char *name, int64_t least, int64_t most,
                    int64_t *out, struct why *why) {
    const json_t *value = field_of(object, name);
    if (!value) return OK;
    if (!json_is_integer(value)) return fail_with(why, ERR_INVALID, "field %s is no number", name);
    int64_t number = json_integer_value(value);
    if (number < least || number > most)
        return fail_with(why, ERR_INVALID,
                         "field %s is %" PRId64 ", which is not between %" PRId64 " and %" PRId64,
                         name, number, least, most);
    *out = number;
    return OK;
}

RESULT field_span(const json_t *object, const char *name, struct span *out, struct why *why) {
    const json_t *value = field_of(object, name);
    if (!value) return OK;
    if (!json_is_string(value)) return fail_with(why, ERR_INVALID, "field %s is no text", name);
    *out = span_of(json_string_value(value), json_string_length(value));
    if (memchr(json_string_value(value), 0, out->size))
        return fail_with(why, ERR_INVALID, "field %s has a zero byte", name);
    return OK;
}

RESULT field_text(const json_t *object, const char *name, char *out, size_t room, struct why *why) {
    struct span text = span_of("", 0);
    TRY(field_span(object, name, &text, why));
    if (text.size >= room)
        return fail_with(why, ERR_INVALID, "field %s passes %zu bytes", name, room - 1);
    memcpy(out, text.at, text.size);
    out[text.size] = 0;
    return OK;
}

struct pair {
    struct span key, value;
};

static int by_key(const void *a, const void *b) {
    return span_compare(((const struct pair *)a)->key, ((const struct pair *)b)->key);
}

static RESULT collect(const json_t *object, const char *name, struct pair *pairs, size_t *n,
                      struct why *why) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        if (!json_is_string(value))
            return fail_with(why, ERR_INVALID, "field %s has a value that is no text", name);
        if (*n == NODE_LABELS_MAX)
            return fail_with(why, ERR_INVALID, "field %s has more than %d members", name,
                             NODE_LABELS_MAX);
        pairs[(*n)++] =
            (struct pair){.key = span_str(key),
                          .value = span_of(json_string_value(value), json_string_length(value))};
    }
    return OK;
}

RESULT field_labels(const json_t *object, const char *name, struct buf *out, struct why *why) {
    const json_t *labels;
    struct pair pairs[NODE_LABELS_MAX] = {0};
    size_t n = 0;
    *out = buf_new(NODE_LABELS_BYTES);
    TRY(field_object(object, name, &labels, why));
    if (labels) TRY(collect(labels, name, pairs, &n, why));
    qsort(pairs, n, sizeof pairs[0], by_key);
    for (size_t i = 0; i < n; i++) {
        if (labels_add(out, pairs[i].key, pairs[i].value) == OK) continue;
        buf_free(out);
        return fail_with(why, ERR_INVALID, "field %s is too large", name);
    }
    return OK;
}

static RESULT field_availability(const json_t *object, bool needed, enum node_availability *out,
                                 struct why *why) {
    char text[32] = "";
    *out = NODE_ACTIVE;
    TRY(field_text(object, "Availability", text, sizeof text, why));
    if (!text[0] && !needed) return OK;
    if (strcasecmp(text, "active") == 0) return OK;
    *out = strcasecmp(text, "pause") == 0 ? NODE_PAUSE : NODE_DRAIN;
    if (*out == NODE_PAUSE || strcasecmp(text, "drain") == 0) return OK;
    return fail_with(why, ERR_INVALID, "invalid Availability: \"%s\"", text);
}

/* --- init and join ---------------------------------------------------------------------------- */

/* What has to do with networks is not there to be chosen yet; docker sends its defaults. */
static RESULT check_networks(const json_t *object, struct why *why) {
    const json_t *pools;
    int64_t subnet = 0, port = 0;
    TRY(field_array(object, "DefaultAddrPool", &pools, why));
    TRY(field_number(object, "SubnetSize", 0, UINT32_MAX, &subnet, why));
    TRY(field_number(object, "DataPathPort", 0, UINT16_MAX, &port, why));
    bool usual =
        json_array_size(pools) == 0 && (subnet == 0 || subnet == 24) && (port == 0 || port == 4789);
    return usual ? OK
                 : fail_with(why, ERR_UNSUPPORTED,
                             "address pools, subnet sizes and data path ports can't be chosen: "
                             "this cluster has no networks");
}

static RESULT decode_init(const json_t *object, struct engine_init *out, struct why *why) {
    const json_t *spec;
    char data_path[ADDRESS_MAX];
    TRY(field_text(object, "ListenAddr", out->listen, ADDRESS_MAX, why));
    TRY(field_text(object, "AdvertiseAddr", out->advertise, ADDRESS_MAX, why));
    TRY(field_text(object, "DataPathAddr", data_path, sizeof data_path, why));
    TRY(field_bool(object, "ForceNewCluster", &out->force_new, why));
    TRY(field_bool(object, "AutoLockManagers", &out->autolock, why));
    TRY(field_availability(object, false, &out->availability, why));
    TRY(check_networks(object, why));
    TRY(field_object(object, "Spec", &spec, why));
    TRY(engine_spec_decode(spec, NULL, &out->spec, why));
    out->autolock |= out->spec.autolock;
    return OK;
}

RESULT engine_init_decode(const json_t *object, struct engine_init *out, struct why *why) {
    *out = (struct engine_init){0};
    return decode_init(object, out, why);
}

static RESULT decode_remotes(const json_t *object, struct engine_join *out, struct why *why) {
    const json_t *list;
    json_t *value;
    size_t i;
    TRY(field_array(object, "RemoteAddrs", &list, why));
    if (json_array_size(list) == 0)
        return fail_with(why, ERR_INVALID, "at least 1 RemoteAddr is required to join");
    json_array_foreach(list, i, value) {
        size_t size = json_string_length(value);
        if (!json_is_string(value) || size >= ADDRESS_MAX ||
            strlen(json_string_value(value)) != size)
            return fail_with(why, ERR_INVALID, "field RemoteAddrs has a value that is no address");
        if (size == 0)
            return fail_with(why, ERR_INVALID, "invalid remoteAddr \"\": invalid empty address");
        if (out->n == ENGINE_REMOTES_MAX)
            return fail_with(why, ERR_INVALID, "there are more than %d RemoteAddrs",
                             ENGINE_REMOTES_MAX);
        memcpy(out->remotes[out->n++], json_string_value(value), size + 1);
    }
    return OK;
}

static RESULT decode_join(const json_t *object, struct engine_join *out, struct why *why) {
    char data_path[ADDRESS_MAX];
    TRY(field_text(object, "ListenAddr", out->listen, ADDRESS_MAX, why));
    TRY(field_text(object, "AdvertiseAddr", out->advertise, ADDRESS_MAX, why));
    TRY(field_text(object, "DataPathAddr", data_path, sizeof data_path, why));
    TRY(field_availability(object, false, &out->availability, why));
    TRY(decode_remotes(object, out, why));
    return field_text(object, "JoinToken", out->token, sizeof out->token, why);
}

RESULT engine_join_decode(const json_t *object, struct engine_join *out, struct why *why) {
    *out = (struct engine_join){0};
    enum err e = decode_join(object, out, why);
    if (e != OK) sodium_memzero(out->token, sizeof out->token);
    return e;
}

/* --- a node ----------------------------------------------------------------------------------- */

RESULT engine_node_spec_decode(const json_t *object, struct engine_node_spec *out,
                               struct why *why) {
    char role[32] = "";
    *out = (struct engine_node_spec){.role = NODE_WORKER};
    TRY(field_text(object, "Name", out->name, sizeof out->name, why));
    TRY(field_text(object, "Role", role, sizeof role, why));
    if (strcasecmp(role, "manager") == 0)
        out->role = NODE_MANAGER;
    else if (strcasecmp(role, "worker") != 0)
        return fail_with(why, ERR_INVALID, "invalid Role: \"%s\"", role);
    TRY(field_availability(object, true, &out->availability, why));
    return field_labels(object, "Labels", &out->labels, why);
}

/* --- wiping ----------------------------------------------------------------------------------- */

static void wipe(json_t *json, unsigned depth) {
    const char *key;
    json_t *value;
    if (!json_is_object(json)) return;
    jin_wipe(json);
    if (depth == 0) return;
    json_object_foreach(json, key, value) {
        (void)key;
        wipe(value, depth - 1);
    }
}

/* The deepest secret is Spec.CAConfig.SigningCAKey of an init. */
void engine_wipe(json_t *json) { wipe(json, 3); }

/* --- the query -------------------------------------------------------------------------------- */

bool engine_query_flag(struct span query, const char *name) {
    static const char *const no[] = {"", "0", "no", "false", "none"};
    char text[16];
    enum err e = http_query(query, name, text, sizeof text);
    if (e != OK) return e == ERR_INVALID; /* long, so none of these */
    for (size_t i = 0; i < ARRAY_SIZE(no); i++)
        if (strcasecmp(text, no[i]) == 0) return false;
    return true;
}

RESULT engine_query_bool(struct span query, const char *name, bool *out, struct why *why) {
    static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
    static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False", ""};
    char text[16] = "";
    enum err e = http_query(query, name, text, sizeof text);
    *out = false;
    if (e == ERR_NOT_FOUND) return OK;
    for (size_t i = 0; e == OK && i < ARRAY_SIZE(no); i++)
        if (strcmp(text, no[i]) == 0) return OK;
    *out = true;
    for (size_t i = 0; e == OK && i < ARRAY_SIZE(yes); i++)
        if (strcmp(text, yes[i]) == 0) return OK;
    return fail_with(why, ERR_INVALID, "invalid value for %s: %s", name, text);
}

RESULT engine_query_version(struct span query, const char *what, uint64_t *out, struct why *why) {
    char text[24] = "";
    enum err e = http_query(query, "version", text, sizeof text);
    if (e == OK && http_parse_decimal(span_str(text), out) == OK) return OK;
    return fail_with(why, ERR_INVALID, "invalid %s version '%s': it is no number", what, text);
}

RESULT engine_query_word(struct span query, const char *name, char *out, size_t room,
                         struct why *why) {
    enum err e = http_query(query, name, out, room);
    if (e == OK) return OK;
    out[0] = 0;
    return e == ERR_NOT_FOUND ? OK : fail_with(why, ERR_INVALID, "invalid value for %s", name);
}

RESULT engine_query_time(struct span query, const char *name, int64_t *out, struct why *why) {
    char text[40] = "", digits[10] = "000000000";
    uint64_t seconds = 0, rest = 0;
    enum err e = http_query(query, name, text, sizeof text);
    *out = 0;
    if (e == ERR_NOT_FOUND || (e == OK && !text[0])) return OK;
    const char *dot = strchr(text, '.');
    struct span whole = span_of(text, dot ? (size_t)(dot - text) : strlen(text));
    if (e == OK && dot && strlen(dot + 1) <= 9) memcpy(digits, dot + 1, strlen(dot + 1));
    if (e == OK && (!dot || strlen(dot + 1) <= 9) && http_parse_decimal(whole, &seconds) == OK &&
        seconds < INT64_MAX / 1000000000 - 1 &&
        http_parse_decimal(span_of(digits, 9), &rest) == OK) {
        *out = (int64_t)seconds * 1000000000 + (int64_t)rest;
        return OK;
    }
    return fail_with(why, ERR_INVALID, "invalid value for %s: %s is no time", name, text);
}
