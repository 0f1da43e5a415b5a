/* See filters.h. Both forms are walked as they are; nothing is copied. */
#include "api/engine/filters.h"

#include "api/http/http.h"

static bool is_form(const json_t *values) {
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_null(values)) return true;
    if (json_is_array(values)) {
        json_array_foreach(values, i, value) if (!json_is_string(value)) return false;
        return true;
    }
    if (!json_is_object(values)) return false;
    json_object_foreach((json_t *)(uintptr_t)values, key, value) {
        (void)key;
        if (!json_is_boolean(value)) return false;
    }
    return true;
}

RESULT filters_parse(struct span query, struct filters *out, struct why *why) {
    char text[FILTERS_TEXT_MAX];
    const char *key;
    json_t *values;
    *out = (struct filters){0};
    enum err e = http_query(query, "filters", text, sizeof text);
    if (e == ERR_NOT_FOUND || (e == OK && !text[0])) return OK;
    if (e == OK) e = jin_parse(span_str(text), &out->json, NULL);
    if (e == ERR_NOMEM) return e;
    if (e != OK) return fail_with(why, ERR_INVALID, "invalid filter");
    json_object_foreach(out->json, key, values) {
        (void)key;
        if (is_form(values)) continue;
        filters_free(out);
        return fail_with(why, ERR_INVALID, "invalid filter");
    }
    return OK;
}

void filters_free(struct filters *f) {
    json_decref(f->json);
    f->json = NULL;
}

RESULT filters_accept(const struct filters *f, const char *const *keys, struct why *why) {
    const char *key;
    json_t *values;
    json_object_foreach(f->json, key, values) {
        (void)values;
        const char *const *at = keys;
        while (*at && strcmp(*at, key) != 0)
            at++;
        if (!*at) return fail_with(why, ERR_INVALID, "invalid filter '%.64s'", key);
    }
    return OK;
}

bool filters_walk(const struct filters *f, const char *key, filters_each *each, void *ctx) {
    const json_t *values = json_object_get(f->json, key);
    const char *name;
    json_t *value;
    size_t i;
    if (json_is_array(values)) {
        json_array_foreach(values, i, value) if (!each(ctx, json_string_value(value))) return false;
    } else if (json_is_object(values)) {
        json_object_foreach((json_t *)(uintptr_t)values, name, value) {
            (void)value;
            if (!each(ctx, name)) return false;
        }
    }
    return true;
}

static bool never(void *ctx, const char *value) {
    (void)ctx;
    (void)value;
    return false;
}

bool filters_has(const struct filters *f, const char *key) {
    return !filters_walk(f, key, never, NULL);
}

static bool is_other(void *ctx, const char *value) { return strcmp(value, ctx) != 0; }

bool filters_exact(const struct filters *f, const char *key, const char *text) {
    return !filters_has(f, key) || !filters_walk(f, key, is_other, (void *)(uintptr_t)text);
}

static bool is_no_prefix(void *ctx, const char *value) {
    return strncmp(value, ctx, strlen(value)) != 0;
}

bool filters_prefix(const struct filters *f, const char *key, const char *text) {
    return !filters_has(f, key) || !filters_walk(f, key, is_no_prefix, (void *)(uintptr_t)text);
}

struct search {
    filters_find *find;
    void *ctx;
};

static bool is_there(void *ctx, const char *text) {
    const struct search *s = ctx;
    const char *mark = strchr(text, '=');
    struct span key = mark ? span_of(text, (size_t)(mark - text)) : span_str(text), value;
    if (!s->find || !s->find(s->ctx, key, &value)) return false;
    return !mark || !mark[1] || span_equal(value, span_str(mark + 1));
}

bool filters_labels(const struct filters *f, const char *key, filters_find *find, void *ctx) {
    struct search s = {.find = find, .ctx = ctx};
    return filters_walk(f, key, is_there, &s);
}
