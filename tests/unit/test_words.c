/* Words: durations are read strictly and come back as they were meant; tables know their words and
 * list them in errors; labels are merged in order, and what is none is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/words.h"

static void durations_are_whole_numbers_with_units(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t s;
    } good[] = {{"0s", 0},           {"1s", 1},
                {"2m", 120},         {"1h30m", 5400},
                {"90d", 90 * 86400}, {"2160h0m0s", 2160 * 3600},
                {"1d1h1m1s", 90061}, {"36500d", DURATION_MAX_S},
                {"007m", 420}};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        int64_t s = -1;
        assert_int_equal(words_duration(good[i].text, &s, NULL), OK);
        assert_int_equal(s, good[i].s);
    }
}

static void anything_else_is_no_duration(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "1",
                                      "h",
                                      "1.5h",
                                      "-1h",
                                      "+1h",
                                      " 1h",
                                      "1h ",
                                      "1 h",
                                      "1m1h",
                                      "1h1h",
                                      "1H",
                                      "1w",
                                      "1ms",
                                      "1h30",
                                      "0x1h",
                                      "36501d",
                                      "36500d1s",
                                      "99999999999999999999s",
                                      "9223372036854775808s",
                                      "1h\n"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct why why = {0};
        int64_t s = 77;
        assert_int_equal(words_duration(bad[i], &s, &why), ERR_INVALID);
        assert_int_equal(s, 77);
        assert_true(why.text[0] != '\0');
    }
}

static void every_duration_comes_back(void **state) {
    (void)state;
    char text[DURATION_TEXT];
    for (int64_t s = 0; s <= DURATION_MAX_S; s = s * 3 / 2 + 1) {
        int64_t back = -1;
        assert_int_equal(words_duration(words_duration_text(s, text), &back, NULL), OK);
        assert_int_equal(back, s);
    }
    assert_string_equal(words_duration_text(90 * 86400, text), "90d");
    assert_string_equal(words_duration_text(5400, text), "1h30m");
    assert_string_equal(words_duration_text(0, text), "0s");
}

static void moments_are_utc(void **state) {
    (void)state;
    char text[MOMENT_TEXT];
    assert_string_equal(words_moment(0, text), "never");
    assert_string_equal(words_moment(1, text), "1970-01-01 00:00 UTC");
    assert_string_equal(words_moment(1000000000, text), "2001-09-09 01:46 UTC");
    assert_string_equal(words_moment(INT64_MAX, text), "?");
}

static void words_are_found_and_the_others_listed(void **state) {
    (void)state;
    enum node_role role = NODE_WORKER;
    enum node_availability availability = NODE_ACTIVE;
    enum readmit readmit = READMIT_APPROVAL;
    struct why why = {0};
    assert_int_equal(words_role("manager", &role, NULL), OK);
    assert_int_equal(role, NODE_MANAGER);
    assert_int_equal(words_availability("drain", &availability, NULL), OK);
    assert_int_equal(availability, NODE_DRAIN);
    assert_int_equal(words_readmit("never", &readmit, NULL), OK);
    assert_int_equal(readmit, READMIT_NEVER);
    assert_int_equal(words_role("Manager", &role, &why), ERR_INVALID);
    assert_string_equal(why.text, "'Manager' is no role; there are: worker, manager");
    assert_int_equal(words_availability("", &availability, &why), ERR_INVALID);
    assert_string_equal(words_of_state(NODE_DOWN), "down");
    assert_string_equal(words_of_certificate(NODE_CERT_PENDING), "pending");
    assert_string_equal(words_of_role((enum node_role)99), "?");
}

static void a_label_is_a_key_with_or_without_a_value(void **state) {
    (void)state;
    struct span key, value;
    assert_int_equal(words_label("zone=a=b", &key, &value, NULL), OK);
    assert_true(span_equal(key, span_str("zone")) && span_equal(value, span_str("a=b")));
    assert_int_equal(words_label("com.example/ssd", &key, &value, NULL), OK);
    assert_int_equal(value.size, 0);
    assert_int_equal(words_label("=x", &key, &value, NULL), ERR_INVALID);
    assert_int_equal(words_label("a b=x", &key, &value, NULL), ERR_INVALID);
    assert_int_equal(words_label("a=x\ny", &key, &value, NULL), ERR_INVALID);
    assert_int_equal(words_label("a=\x1b[2J", &key, &value, NULL), ERR_INVALID);
    char large[LABEL_KEY_MAX + 2];
    memset(large, 'k', sizeof large);
    large[LABEL_KEY_MAX + 1] = '\0';
    assert_int_equal(words_label(large, &key, &value, NULL), ERR_INVALID);
    large[LABEL_KEY_MAX] = '\0';
    assert_int_equal(words_label(large, &key, &value, NULL), OK);
}

/* The labels as JSON, after a change written as JSON. */
static void changed(struct buf *labels, const char *add, const char *remove, const char *expected) {
    json_t *a = add ? json_loads(add, 0, NULL) : NULL,
           *r = remove ? json_loads(remove, 0, NULL) : NULL;
    struct buf after = buf_new(NODE_LABELS_BYTES * 2), text = buf_new(64 * KIB);
    assert_int_equal(labels_change(buf_span(labels), a, r, &after, NULL), OK);
    struct jout j;
    jout_start(&j, &text);
    jout_open(&j, '{');
    labels_put(&j, "l", buf_span(&after));
    jout_close(&j, '}');
    assert_int_equal(jout_end(&j), OK);
    assert_int_equal(buf_u8(&text, 0), OK);
    assert_string_equal((const char *)text.at, expected);
    buf_free(&text);
    buf_free(labels);
    *labels = after;
    json_decref(a);
    json_decref(r);
}

static void labels_are_added_replaced_and_removed_in_order(void **state) {
    (void)state;
    struct buf labels = buf_new(NODE_LABELS_BYTES * 2);
    changed(&labels, NULL, NULL, "{\"l\":{}}");
    changed(&labels, "{\"m\":\"1\",\"b\":\"2\"}", NULL, "{\"l\":{\"b\":\"2\",\"m\":\"1\"}}");
    changed(&labels, "{\"z\":\"\",\"a\":\"0\",\"m\":\"new\"}", "[\"b\",\"nobody\"]",
            "{\"l\":{\"a\":\"0\",\"m\":\"new\",\"z\":\"\"}}");
    changed(&labels, "{\"z\":\"stays\"}", "[\"z\",\"a\",\"m\"]", "{\"l\":{\"z\":\"stays\"}}");
    changed(&labels, NULL, "[\"z\"]", "{\"l\":{}}");
    buf_free(&labels);
}

static void labels_have_bounds(void **state) {
    (void)state;
    struct buf labels = buf_new(NODE_LABELS_BYTES * 2), after = buf_new(NODE_LABELS_BYTES * 2);
    json_t *many = json_object();
    for (int i = 0; i < NODE_LABELS_MAX; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%04d", i);
        assert_int_equal(json_object_set_new(many, key, json_string("v")), 0);
    }
    assert_int_equal(labels_change((struct span){0}, many, NULL, &labels, NULL), OK);
    json_t *more = json_pack("{s:s}", "another", "v");
    assert_int_equal(labels_change(buf_span(&labels), more, NULL, &after, NULL), ERR_INVALID);
    json_decref(more);
    more = json_pack("{s:i}", "number", 1);
    buf_clear(&after);
    assert_int_equal(labels_change((struct span){0}, more, NULL, &after, NULL), ERR_INVALID);
    json_decref(more);
    json_decref(many);
    buf_free(&labels);
    buf_free(&after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_whole_numbers_with_units),
        cmocka_unit_test(anything_else_is_no_duration),
        cmocka_unit_test(every_duration_comes_back),
        cmocka_unit_test(moments_are_utc),
        cmocka_unit_test(words_are_found_and_the_others_listed),
        cmocka_unit_test(a_label_is_a_key_with_or_without_a_value),
        cmocka_unit_test(labels_are_added_replaced_and_removed_in_order),
        cmocka_unit_test(labels_have_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
