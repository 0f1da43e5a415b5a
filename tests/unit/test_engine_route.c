/* Routes of the Engine API: versions that are served and refused, patterns, methods; and the query
 * and filters of a request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/engine/filters.h"
#include "api/engine/request.h"
#include "api/engine/route.h"

static void nothing(struct exchange *x) { (void)x; }

static const struct engine_route table[] = {
    {HTTP_GET, "/nodes", nothing},         {HTTP_GET, "/nodes/{id}", nothing},
    {HTTP_DELETE, "/nodes/{id}", nothing}, {HTTP_POST, "/nodes/{id}/update", nothing},
    {HTTP_GET, "/any/*", nothing},         {HTTP_GET, NULL, NULL},
};

static enum err find(enum http_method method, const char *path, struct engine_target *target) {
    const struct engine_route *route = NULL;
    struct why why = {0};
    assert_int_equal(engine_target(span_str(path), target, &why), OK);
    enum err e = engine_route(table, method, target, &route);
    if (e == OK) assert_non_null(route);
    return e;
}

static void a_version_in_front_is_taken_off(void **state) {
    (void)state;
    struct engine_target t;
    static const char *const good[] = {"/v1.24/nodes", "/v1.51/nodes", "/v1.40/nodes", "/nodes"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(find(HTTP_GET, good[i], &t), OK);
        assert_true(span_equal(t.path, span_str("/nodes")));
    }
    assert_int_equal(engine_target(span_str("/v1.30/x"), &t, NULL), OK);
    assert_true(span_equal(t.version, span_str("1.30")));
}

static void what_only_looks_like_a_version_is_a_path(void **state) {
    (void)state;
    static const char *const paths[] = {
        "/v", "/volumes", "/v1.51", "/vx/nodes", "/v/nodes", "/", "/v1.51.0000000000000000/nodes"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        struct engine_target t;
        assert_int_equal(engine_target(span_str(paths[i]), &t, NULL), OK);
        assert_true(span_equal(t.path, span_str(paths[i])));
    }
}

static void versions_out_of_range_are_refused_in_docker_s_words(void **state) {
    (void)state;
    struct engine_target t;
    struct why why = {0};
    assert_int_equal(engine_target(span_str("/v1.52/info"), &t, &why), ERR_INVALID);
    assert_string_equal(why.text,
                        "client version 1.52 is too new. Maximum supported API version is 1.51");
    assert_int_equal(engine_target(span_str("/v1.9/info"), &t, &why), ERR_INVALID);
    assert_string_equal(why.text, "client version 1.9 is too old. Minimum supported API version is "
                                  "1.24, please upgrade your client to a newer version");
    assert_int_equal(engine_target(span_str("/v2/info"), &t, &why), ERR_INVALID);
    assert_int_equal(engine_target(span_str("/v1.51.1/info"), &t, &why), ERR_INVALID);
    assert_int_equal(engine_target(span_str("/v.../info"), &t, &why), ERR_INVALID);
}

static void a_pattern_s_id_is_one_segment_decoded(void **state) {
    (void)state;
    struct engine_target t;
    assert_int_equal(find(HTTP_GET, "/nodes/abc", &t), OK);
    assert_string_equal(t.id, "abc");
    assert_int_equal(find(HTTP_POST, "/v1.30/nodes/a%2Fb+c/update", &t), OK);
    assert_string_equal(t.id, "a/b+c");
    assert_int_equal(find(HTTP_GET, "/any/a/b/c", &t), OK);
    assert_string_equal(t.id, "a/b/c");
    static const char *const bad[] = {"/nodes/",     "/nodes/a/b", "/nodes/a%", "/nodes/a%2",
                                      "/nodes/a%zz", "/nodes/%00", "/node",     "/any/"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(find(HTTP_GET, bad[i], &t), ERR_NOT_FOUND);
        assert_string_equal(t.id, "");
    }
}

static void an_id_that_is_too_long_is_not_found(void **state) {
    (void)state;
    struct engine_target t;
    char path[ENGINE_ID_MAX + 16] = "/nodes/";
    memset(path + 7, 'a', ENGINE_ID_MAX - 1);
    assert_int_equal(find(HTTP_GET, path, &t), OK);
    assert_int_equal(strlen(t.id), ENGINE_ID_MAX - 1);
    path[7 + ENGINE_ID_MAX - 1] = 'a';
    assert_int_equal(find(HTTP_GET, path, &t), ERR_NOT_FOUND);
}

static void methods_are_told_apart(void **state) {
    (void)state;
    struct engine_target t;
    assert_int_equal(find(HTTP_DELETE, "/nodes/a", &t), OK);
    assert_int_equal(find(HTTP_HEAD, "/nodes/a", &t), OK);
    assert_int_equal(find(HTTP_PUT, "/nodes/a", &t), ERR_UNSUPPORTED);
    assert_int_equal(find(HTTP_POST, "/nodes", &t), ERR_UNSUPPORTED);
    assert_int_equal(find(HTTP_POST, "/nope", &t), ERR_NOT_FOUND);
}

/* --- the query ------------------------------------------------------------------------------ */

static void flags_are_what_docker_takes_for_true(void **state) {
    (void)state;
    assert_true(engine_query_flag(span_str("force=1"), "force"));
    assert_true(engine_query_flag(span_str("force=true"), "force"));
    assert_true(engine_query_flag(span_str("force=anything-that-is-long-enough"), "force"));
    static const char *const no[] = {"",           "force",    "force=", "force=0", "force=False",
                                     "force=none", "force=no", "other=1"};
    for (size_t i = 0; i < ARRAY_SIZE(no); i++)
        assert_false(engine_query_flag(span_str(no[i]), "force"));
}

static void booleans_and_versions_are_strict(void **state) {
    (void)state;
    bool value;
    uint64_t version;
    struct why why = {0};
    assert_int_equal(engine_query_bool(span_str("a=T"), "a", &value, &why), OK);
    assert_true(value);
    assert_int_equal(engine_query_bool(span_str("a=false"), "a", &value, &why), OK);
    assert_false(value);
    assert_int_equal(engine_query_bool(span_str("b=1"), "a", &value, &why), OK);
    assert_false(value);
    assert_int_equal(engine_query_bool(span_str("a=yes"), "a", &value, &why), ERR_INVALID);
    assert_string_equal(why.text, "invalid value for a: yes");
    assert_int_equal(engine_query_version(span_str("version=42"), "node", &version, &why), OK);
    assert_int_equal(version, 42);
    static const char *const bad[] = {"", "version=", "version=-1", "version=1x",
                                      "version=99999999999999999999"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(engine_query_version(span_str(bad[i]), "node", &version, &why),
                         ERR_INVALID);
}

static void times_are_seconds_with_a_fraction(void **state) {
    (void)state;
    int64_t ns;
    assert_int_equal(engine_query_time(span_str("since=1700000000.000000005"), "since", &ns, NULL),
                     OK);
    assert_true(ns == 1700000000000000005);
    assert_int_equal(engine_query_time(span_str("since=5.5"), "since", &ns, NULL), OK);
    assert_true(ns == 5500000000);
    assert_int_equal(engine_query_time(span_str("until=7"), "since", &ns, NULL), OK);
    assert_true(ns == 0);
    static const char *const bad[] = {"since=x",    "since=1.2.3", "since=1.1234567890",
                                      "since=1.-1", "since=-1",    "since=99999999999"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(engine_query_time(span_str(bad[i]), "since", &ns, NULL), ERR_INVALID);
}

/* --- filters -------------------------------------------------------------------------------- */

/* {"name":{"a":true,"b":true},"id":["x"],"none":{}} */
#define FILTERS                                                                                    \
    "x=1&filters=%7B%22name%22%3A%7B%22a%22%3Atrue%2C%22b%22%3Atrue%7D%2C%22id%22%3A%5B%22x%22%5D" \
    "%2C%22none%22%3A%7B%7D%7D"

static void both_forms_of_filters_are_read(void **state) {
    (void)state;
    struct filters f;
    struct why why = {0};
    static const char *const keys[] = {"name", "id", "none", NULL};
    static const char *const fewer[] = {"name", "none", NULL};
    assert_int_equal(filters_parse(span_str(FILTERS), &f, &why), OK);
    assert_true(filters_exact(&f, "name", "a") && filters_exact(&f, "name", "b"));
    assert_false(filters_exact(&f, "name", "ab"));
    assert_true(filters_prefix(&f, "name", "bcd") && filters_prefix(&f, "id", "xyz"));
    assert_false(filters_prefix(&f, "id", "yx"));
    assert_true(filters_exact(&f, "none", "anything") && filters_exact(&f, "absent", "anything"));
    assert_true(filters_has(&f, "id"));
    assert_false(filters_has(&f, "none"));
    assert_int_equal(filters_accept(&f, keys, &why), OK);
    assert_int_equal(filters_accept(&f, fewer, &why), ERR_INVALID);
    assert_string_equal(why.text, "invalid filter 'id'");
    filters_free(&f);
}

static void no_filters_let_everything_pass(void **state) {
    (void)state;
    static const char *const queries[] = {"", "filters=", "filters=%7B%7D",
                                          "filters=%7B%22a%22%3Anull%7D"};
    for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
        struct filters f;
        assert_int_equal(filters_parse(span_str(queries[i]), &f, NULL), OK);
        assert_true(filters_exact(&f, "a", "b") && filters_prefix(&f, "a", "b"));
        assert_true(filters_labels(&f, "a", NULL, NULL));
        filters_free(&f);
    }
}

static void what_is_no_filter_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"filters=x",
                                      "filters=%5B%5D",
                                      "filters=%7B%22a%22%3A1%7D",
                                      "filters=%7B%22a%22%3A%5B1%5D%7D",
                                      "filters=%7B%22a%22%3A%7B%22b%22%3A1%7D%7D",
                                      "filters=%7B%22a%22%3A%22b%22%7D",
                                      "filters=%ff",
                                      "filters=%00"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct filters f;
        struct why why = {0};
        assert_int_equal(filters_parse(span_str(bad[i]), &f, &why), ERR_INVALID);
        assert_string_equal(why.text, "invalid filter");
        assert_null(f.json);
    }
}

static bool find_label(void *ctx, struct span key, struct span *value) {
    (void)ctx;
    *value = span_str("fast");
    return span_equal(key, span_str("disk"));
}

static void all_labels_have_to_be_there(void **state) {
    (void)state;
    static const struct {
        const char *query;
        bool wanted;
    } cases[] = {
        {"filters=%7B%22l%22%3A%5B%22disk%22%5D%7D", true},
        {"filters=%7B%22l%22%3A%5B%22disk%3Dfast%22%5D%7D", true},
        {"filters=%7B%22l%22%3A%5B%22disk%3D%22%5D%7D", true},
        {"filters=%7B%22l%22%3A%5B%22disk%3Dslow%22%5D%7D", false},
        {"filters=%7B%22l%22%3A%5B%22disk%22%2C%22zone%22%5D%7D", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct filters f;
        assert_int_equal(filters_parse(span_str(cases[i].query), &f, NULL), OK);
        assert_int_equal(filters_labels(&f, "l", find_label, NULL), cases[i].wanted);
        filters_free(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_version_in_front_is_taken_off),
        cmocka_unit_test(what_only_looks_like_a_version_is_a_path),
        cmocka_unit_test(versions_out_of_range_are_refused_in_docker_s_words),
        cmocka_unit_test(a_pattern_s_id_is_one_segment_decoded),
        cmocka_unit_test(an_id_that_is_too_long_is_not_found),
        cmocka_unit_test(methods_are_told_apart),
        cmocka_unit_test(flags_are_what_docker_takes_for_true),
        cmocka_unit_test(booleans_and_versions_are_strict),
        cmocka_unit_test(times_are_seconds_with_a_fraction),
        cmocka_unit_test(both_forms_of_filters_are_read),
        cmocka_unit_test(no_filters_let_everything_pass),
        cmocka_unit_test(what_is_no_filter_is_refused),
        cmocka_unit_test(all_labels_have_to_be_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
