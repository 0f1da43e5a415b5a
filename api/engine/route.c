/* See route.h. Versions are compared as numbers between dots, as docker does. */
#include "api/engine/route.h"

#include <stdlib.h>

#define VERSION_TEXT 16 /* bytes of a version in a path */
#define PARTS        4  /* numbers in it */

static void version_parts(const char *text, unsigned long out[PARTS]) {
    for (unsigned i = 0; i < PARTS; i++) {
        char *end;
        out[i] = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
        while (*text >= '0' && *text <= '9')
            text++;
        if (*text == '.') text++;
    }
}

static int version_compare(const char *a, const char *b) {
    unsigned long left[PARTS], right[PARTS];
    version_parts(a, left);
    version_parts(b, right);
    for (unsigned i = 0; i < PARTS; i++)
        if (left[i] != right[i]) return left[i] < right[i] ? -1 : 1;
    return 0;
}

static RESULT version_check(struct span version, struct why *why) {
    char text[VERSION_TEXT] = "";
    memcpy(text, version.at, version.size);
    if (version_compare(text, ENGINE_API_MIN) < 0)
        return fail_with(why, ERR_INVALID,
                         "client version %s is too old. Minimum supported API version is %s, "
                         "please upgrade your client to a newer version",
                         text, ENGINE_API_MIN);
    if (version_compare(text, ENGINE_API) > 0)
        return fail_with(why, ERR_INVALID,
                         "client version %s is too new. Maximum supported API version is %s", text,
                         ENGINE_API);
    return OK;
}

RESULT engine_target(struct span path, struct engine_target *out, struct why *why) {
    *out = (struct engine_target){.path = path};
    if (path.size < 3 || memcmp(path.at, "/v", 2) != 0) return OK;
    size_t size = 0;
    while (2 + size < path.size && strchr("0123456789.", path.at[2 + size]) && path.at[2 + size])
        size++;
    if (size == 0 || 2 + size == path.size || path.at[2 + size] != '/' || size >= VERSION_TEXT)
        return OK; /* no version: a path like any other */
    out->version = span_of(path.at + 2, size);
    out->path = span_of(path.at + 2 + size, path.size - 2 - size);
    return version_check(out->version, why);
}

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A segment's text; false: malformed, too long, empty, or with a NUL. */
static bool decode(struct span in, char out[ENGINE_ID_MAX]) {
    size_t size = 0;
    for (size_t i = 0; i < in.size; i++) {
        int byte = in.at[i];
        if (byte == '%') {
            int high = i + 2 < in.size ? hex_value(in.at[i + 1]) : -1;
            int low = high >= 0 ? hex_value(in.at[i + 2]) : -1;
            if (low < 0) return false;
            byte = high * 16 + low;
            i += 2;
        }
        if (byte == 0 || size + 1 >= ENGINE_ID_MAX) return false;
        out[size++] = (char)byte;
    }
    out[size] = 0;
    return size > 0;
}

/* Takes a piece of the pattern, and of the path what it stands for. */
static bool matches(const char *pattern, struct span path, char id[ENGINE_ID_MAX]) {
    size_t at = 0;
    while (*pattern) {
        if (strcmp(pattern, "*") == 0) return decode(span_of(path.at + at, path.size - at), id);
        if (strncmp(pattern, "{id}", 4) == 0) {
            size_t from = at;
            while (at < path.size && path.at[at] != '/')
                at++;
            if (!decode(span_of(path.at + from, at - from), id)) return false;
            pattern += 4;
        } else {
            if (at == path.size || path.at[at] != (uint8_t)*pattern) return false;
            pattern++;
            at++;
        }
    }
    return at == path.size;
}

RESULT engine_route(const struct engine_route *table, enum http_method method,
                    struct engine_target *target, const struct engine_route **out) {
    enum err e = ERR_NOT_FOUND;
    if (method == HTTP_HEAD) method = HTTP_GET;
    for (const struct engine_route *at = table; at->pattern; at++) {
        target->id[0] = 0;
        if (!matches(at->pattern, target->path, target->id)) continue;
        e = ERR_UNSUPPORTED;
        if (at->method != method) continue;
        *out = at;
        return OK;
    }
    target->id[0] = 0;
    return e;
}
