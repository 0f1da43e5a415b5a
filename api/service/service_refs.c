/* The secrets and configs that a service names, as docker sends them:
 *
 *   Secrets: [{SecretID, SecretName, File: {Name, UID, GID, Mode}}]   file: the secret's name
 *   Configs: [{ConfigID, ConfigName, File: {...}}]                    UID, GID "0"; Mode 0444
 *
 * Ids and names must match those of the state. No two may be the same file of a task: a secret's
 * is below /run/secrets, a config's below /, unless it is a path. Which version: the newest, as it
 * changes, unless the label conclave.version.NAME of the service has a number. */
#include "api/service/service_spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/engine/request_fields.h"
#include "store/held.h"

#define MODE_USUAL        0444
#define MODE_BITS         0777
#define MISSING_NAMES_MAX 256 /* bytes of names in one sentence */

struct words {
    const char *list, *id, *name; /* members */
    const char *one, *many;       /* for people */
};

static const struct words of_secrets = {"Secrets", "SecretID", "SecretName", "secret", "secrets"};
static const struct words of_configs = {"Configs", "ConfigID", "ConfigName", "config", "configs"};

static const struct words *words_of(enum row_kind kind) {
    return kind == ROW_SECRET ? &of_secrets : &of_configs;
}

/* --- reading ---------------------------------------------------------------------------------- */

static RESULT read_owner(const json_t *file, const char *name, uint32_t *out, struct why *why) {
    char text[16] = "0", *end;
    TRY(field_text(file, name, text, sizeof text, why));
    errno = 0;
    unsigned long id = text[0] ? strtoul(text, &end, 10) : 0;
    bool number = !text[0] || (text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0);
    if (!number || id >= UINT32_MAX)
        return fail_with(why, ERR_INVALID, "%s \"%s\" of a file is no number of a %s", name, text,
                         name[0] == 'U' ? "user" : "group");
    *out = (uint32_t)id;
    return OK;
}

/* Below a folder ("a/b"), or a path ("/a/b"). */
static bool good_target(const char *target) {
    char path[1 + TARGET_MAX + 1];
    if (target[0] == '/') return spec_good_path(span_str(target));
    int size = snprintf(path, sizeof path, "/%s", target);
    return spec_good_path(span_of(path, (size_t)size));
}

static RESULT read_file(const json_t *object, struct service_ref *ref, struct why *why) {
    const struct words *w = words_of(ref->kind);
    const json_t *file;
    int64_t mode = MODE_USUAL;
    TRY(field_object(object, "File", &file, why));
    if (ref->kind == ROW_CONFIG && !file && field_of(object, "Runtime"))
        return fail_with(why, ERR_UNSUPPORTED, "a config that is no file is not supported");
    memcpy(ref->target, ref->name, sizeof ref->name);
    if (field_of(file, "Name")) TRY(field_text(file, "Name", ref->target, sizeof ref->target, why));
    if (!good_target(ref->target))
        return fail_with(why, ERR_INVALID,
                         "malformed file %s reference, invalid target file name provided", w->one);
    TRY(read_owner(file, "UID", &ref->uid, why));
    TRY(read_owner(file, "GID", &ref->gid, why));
    TRY(field_number(file, "Mode", 0, UINT32_MAX, &mode, why));
    if (mode > MODE_BITS)
        return fail_with(why, ERR_INVALID, "the mode of the file %s has other bits than 0777",
                         ref->target);
    ref->mode = (uint32_t)mode;
    return OK;
}

static RESULT read_ref(const json_t *object, enum row_kind kind, struct service_ref *ref,
                       struct why *why) {
    const struct words *w = words_of(kind);
    *ref = (struct service_ref){.kind = kind};
    if (!json_is_object(object))
        return fail_with(why, ERR_INVALID, "field %s has a value that is no object", w->list);
    TRY(field_text(object, w->id, ref->id, sizeof ref->id, why));
    TRY(field_text(object, w->name, ref->name, sizeof ref->name, why));
    if (!ref->id[0] || !ref->name[0])
        return fail_with(why, ERR_INVALID, "malformed %s reference", w->one);
    return read_file(object, ref, why);
}

static void place_of(const struct service_ref *ref,
                     char out[sizeof SPEC_SECRETS_FOLDER + TARGET_MAX]) {
    const char *folder = ref->kind == ROW_SECRET ? SPEC_SECRETS_FOLDER : "/";
    (void)snprintf(out, sizeof SPEC_SECRETS_FOLDER + TARGET_MAX, "%s%s",
                   ref->target[0] == '/' ? "" : folder, ref->target);
}

static RESULT check_unique(const struct spec_reading *r, const struct service_ref *ref) {
    char place[sizeof SPEC_SECRETS_FOLDER + TARGET_MAX], other[sizeof place];
    place_of(ref, place);
    for (unsigned i = 0; i < r->out->n; i++) {
        const struct service_ref *before = &r->out->refs[i];
        place_of(before, other);
        if (strcmp(place, other) == 0)
            return fail_with(r->why, ERR_INVALID,
                             "%s references '%s' and '%s' have a conflicting target: '%s'",
                             words_of(ref->kind)->one, before->name, ref->name, ref->target);
    }
    return OK;
}

static json_t *written(const struct service_ref *ref) {
    const struct words *w = words_of(ref->kind);
    char uid[16], gid[16];
    (void)snprintf(uid, sizeof uid, "%u", ref->uid);
    (void)snprintf(gid, sizeof gid, "%u", ref->gid);
    return json_pack("{s{ssssss sI}ssss}", "File", "Name", ref->target, "UID", uid, "GID", gid,
                     "Mode", (json_int_t)ref->mode, w->id, ref->id, w->name, ref->name);
}

static RESULT read_list(struct spec_reading *r, const json_t *list, enum row_kind kind,
                        json_t *out) {
    json_t *value;
    size_t i;
    json_array_foreach(list, i, value) {
        if (r->out->n == SERVICE_REFS_MAX)
            return fail_with(r->why, ERR_INVALID, "there are more than %d secrets and configs",
                             SERVICE_REFS_MAX);
        struct service_ref *ref = &r->out->refs[r->out->n];
        TRY(read_ref(value, kind, ref, r->why));
        TRY(check_unique(r, ref));
        r->out->n++;
        json_t *now = written(ref);
        if (!now)
            return fail_with(r->why, ERR_INVALID, "field %s has no UTF-8", words_of(kind)->list);
        if (json_array_append_new(out, now) != 0) return ERR_NOMEM;
    }
    return OK;
}

static RESULT read_kind(struct spec_reading *r, json_t *container, enum row_kind kind) {
    const struct words *w = words_of(kind);
    const json_t *list;
    TRY(field_array(container, w->list, &list, r->why));
    if (!list) return OK;
    json_t *out = json_array();
    if (!out) return ERR_NOMEM;
    enum err e = read_list(r, list, kind, out);
    if (e == OK && json_object_set(container, w->list, out) != 0) e = ERR_NOMEM;
    json_decref(out);
    return e;
}

RESULT spec_refs(struct spec_reading *r, json_t *container) {
    TRY(read_kind(r, container, ROW_SECRET));
    return read_kind(r, container, ROW_CONFIG);
}

/* --- against the state ------------------------------------------------------------------------ */

static bool is_there(const struct store *s, const struct service_ref *ref, struct row *row) {
    return row_get(s, ref->kind, ref->id, row) && span_equal(row->name, span_str(ref->name));
}

static RESULT check_there(const struct spec_reading *r, enum row_kind kind) {
    const struct words *w = words_of(kind);
    char names[MISSING_NAMES_MAX] = "";
    size_t size = 0;
    unsigned missing = 0;
    for (unsigned i = 0; i < r->out->n; i++) {
        const struct service_ref *ref = &r->out->refs[i];
        struct row row;
        if (ref->kind != kind || is_there(r->store, ref, &row)) continue;
        missing++;
        if (size + 2 + strlen(ref->name) >= sizeof names) continue;
        size += (size_t)snprintf(names + size, sizeof names - size, "%s%s", size > 0 ? ", " : "",
                                 ref->name);
    }
    if (missing == 0) return OK;
    return fail_with(r->why, ERR_INVALID, "%s not found: %s", missing == 1 ? w->one : w->many,
                     names);
}

static RESULT version_number(struct spec_reading *r, struct span key, struct span value,
                             uint32_t *out) {
    char text[16] = "", *end;
    if (value.size > 0 && value.size < sizeof text) memcpy(text, value.at, value.size);
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || number == 0 || number > UINT32_MAX)
        return fail_with(r->why, ERR_INVALID, "the label %.*s has no number of a version",
                         (int)(key.size < 128 ? key.size : 128), (const char *)key.at);
    *out = (uint32_t)number;
    return OK;
}

static RESULT pin(struct spec_reading *r, struct service_ref *ref, uint32_t version) {
    struct row row;
    struct held_row held;
    if (!is_there(r->store, ref, &row)) return ERR_NOT_FOUND;
    TRY(held_decode(row.body, &held));
    if (!held_version(&held, version))
        return fail_with(r->why, ERR_INVALID, "the %s %s has no version %u",
                         words_of(ref->kind)->one, ref->name, version);
    ref->version = version;
    return OK;
}

static RESULT pin_named(struct spec_reading *r, struct span key, struct span value) {
    size_t prefix = strlen(SPEC_LABEL_VERSION);
    struct span name = span_of(key.at + prefix, key.size - prefix);
    uint32_t version = 0;
    unsigned n = 0;
    TRY(version_number(r, key, value, &version));
    for (unsigned i = 0; i < r->out->n; i++) {
        if (!span_equal(name, span_str(r->out->refs[i].name))) continue;
        TRY(pin(r, &r->out->refs[i], version));
        n++;
    }
    if (n > 0) return OK;
    return spec_warn(r, "the label %.*s names no secret or config of the service",
                     (int)(key.size < 128 ? key.size : 128), (const char *)key.at);
}

RESULT spec_refs_check(struct spec_reading *r) {
    struct cursor c = cursor_of(r->out->labels);
    struct span key, value;
    size_t prefix = strlen(SPEC_LABEL_VERSION);
    TRY(check_there(r, ROW_SECRET));
    TRY(check_there(r, ROW_CONFIG));
    while (labels_next(&c, &key, &value))
        if (key.size > prefix && memcmp(key.at, SPEC_LABEL_VERSION, prefix) == 0)
            TRY(pin_named(r, key, value));
    return OK;
}
