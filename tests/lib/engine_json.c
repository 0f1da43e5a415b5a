/* The encoders' JSON for tests: the contract is in engine_json.h. */
#include "tests/lib/engine_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

json_t *json_of(struct jout *j) {
    json_t *json = NULL;
    struct why why = {0};
    assert_int_equal(jout_end(j), OK);
    if (jin_parse(buf_span(j->out), &json, &why) != OK) fail_msg("%s", why.text);
    buf_free(j->out);
    return json;
}

const json_t *json_at(const json_t *json, const char *path) {
    char name[64];
    while (json && *path) {
        size_t size = strcspn(path, ".");
        (void)snprintf(name, sizeof name, "%.*s", (int)size, path);
        json = json_object_get(json, name);
        path += path[size] ? size + 1 : size;
    }
    return json;
}

const char *text_at(const json_t *json, const char *path) {
    const char *text = json_string_value(json_at(json, path));
    if (!text) fail_msg("no text at %s", path);
    return text;
}

int64_t number_at(const json_t *json, const char *path) {
    if (!json_is_integer(json_at(json, path))) fail_msg("no number at %s", path);
    return json_integer_value(json_at(json, path));
}
