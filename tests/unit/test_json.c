/* JSON: what the writer writes jansson reads back, whatever the bytes; the getters take what etcd's
 * gateway takes and refuse the rest by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/json.h"

static void what_is_written_is_read_back(void **state) {
    (void)state;
    struct buf out = buf_new(4096);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "text", "a\"b\\c\n\t\x01 \xc3\xa9 \xf0\x9f\x98\x80");
    jout_put_number(&j, "number", 42);
    jout_put_quoted(&j, "big", 123456789012345678ULL);
    jout_put_quoted(&j, "zero", 0);
    jout_put_bool(&j, "yes", true);
    jout_put_hex(&j, "hex", span_of("\x00\xff", 2));
    jout_key(&j, "list");
    jout_open(&j, '[');
    jout_base64(&j, span_of("\x00\x01\x02\xff", 4));
    jout_base64(&j, span_of(NULL, 0));
    jout_close(&j, ']');
    jout_close(&j, '}');
    assert_int_equal(jout_end(&j), OK);
    json_t *value;
    assert_int_equal(jin_parse(buf_span(&out), &value, NULL), OK);
    char text[64] = "";
    uint64_t number = 0, big = 0;
    bool yes = false;
    assert_int_equal(jin_text(value, "text", text, sizeof text, NULL), OK);
    assert_string_equal(text, "a\"b\\c\n\t\x01 \xc3\xa9 \xf0\x9f\x98\x80");
    assert_int_equal(jin_u64(value, "number", &number, NULL), OK);
    assert_int_equal(jin_u64(value, "big", &big, NULL), OK);
    assert_int_equal(jin_bool(value, "yes", &yes, NULL), OK);
    assert_true(number == 42 && big == 123456789012345678ULL && yes);
    assert_null(json_object_get(value, "zero"));
    assert_string_equal(jin_string(value, "hex"), "00ff");
    json_t *first = json_array_get(json_object_get(value, "list"), 0);
    assert_string_equal(json_string_value(first), "AAEC/w==");
    json_decref(value);
    buf_free(&out);
}

static void any_two_bytes_make_valid_json(void **state) {
    (void)state;
    for (unsigned pair = 0; pair < 65536; pair++) {
        uint8_t bytes[4] = {(uint8_t)(pair >> 8), (uint8_t)pair, 'x', 0x80};
        struct buf out = buf_new(256);
        struct jout j;
        jout_start(&j, &out);
        jout_open(&j, '{');
        jout_key(&j, "k");
        jout_text(&j, span_of(bytes, sizeof bytes));
        jout_close(&j, '}');
        assert_int_equal(jout_end(&j), OK);
        json_error_t error;
        json_t *value = json_loadb((const char *)out.at, out.size, JSON_ALLOW_NUL, &error);
        assert_non_null(value);
        json_decref(value);
        buf_free(&out);
    }
}

static void an_error_of_the_buffer_sticks(void **state) {
    (void)state;
    struct buf out = buf_new(8);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "key", "a value that does not fit");
    jout_close(&j, '}');
    assert_int_not_equal(jout_end(&j), OK);
    buf_free(&out);
    jout_start(&j, &out);
    out.max = 64;
    jout_open(&j, '{');
    assert_int_equal(jout_end(&j), ERR_INTERNAL);
    buf_free(&out);
}

static void fields_of_the_wrong_kind_are_named(void **state) {
    (void)state;
    json_t *value;
    struct why why = {0};
    const char *text = "{\"k\":\"!!\",\"n\":\"12x\",\"m\":-1,\"b\":1,\"t\":\"a\\u0000b\",\"z\":"
                       "null,\"long\":\"AAAAAAAA\"}";
    assert_int_equal(jin_parse(span_str(text), &value, &why), ERR_INVALID); /* U+0000 */
    text = "{\"k\":\"!!\",\"n\":\"12x\",\"m\":-1,\"b\":1,\"t\":7,\"z\":null,\"long\":\"AAAAAAAA\"}";
    assert_int_equal(jin_parse(span_str(text), &value, &why), OK);
    struct buf bytes = buf_new(4);
    uint64_t number = 9;
    bool flag;
    char small[4] = "as";
    assert_int_equal(jin_bytes(value, "k", &bytes, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "field k"));
    assert_int_equal(jin_bytes(value, "long", &bytes, &why), ERR_TOO_LARGE);
    assert_int_equal(jin_u64(value, "n", &number, &why), ERR_INVALID);
    assert_int_equal(jin_u64(value, "m", &number, &why), ERR_INVALID);
    assert_int_equal(jin_bool(value, "b", &flag, &why), ERR_INVALID);
    assert_int_equal(jin_text(value, "t", small, sizeof small, &why), ERR_INVALID);
    assert_int_equal(jin_text(value, "long", small, sizeof small, &why), ERR_INVALID);
    assert_int_equal(jin_u64(value, "z", &number, &why), OK);
    assert_int_equal(number, 9);
    assert_string_equal(small, "as");
    json_decref(value);
    buf_free(&bytes);
}

static void bytes_fit_exactly_or_not_at_all(void **state) {
    (void)state;
    for (size_t size = 1; size < 100; size++) {
        uint8_t bytes[100] = {1};
        struct buf text = buf_new(1024), fits = buf_new(size), small = buf_new(size - 1);
        struct jout j;
        json_t *value;
        jout_start(&j, &text);
        jout_open(&j, '{');
        jout_key(&j, "b");
        jout_base64(&j, span_of(bytes, size));
        jout_close(&j, '}');
        assert_int_equal(jout_end(&j), OK);
        assert_int_equal(jin_parse(buf_span(&text), &value, NULL), OK);
        assert_int_equal(jin_bytes(value, "b", &fits, NULL), OK);
        assert_true(span_equal(buf_span(&fits), span_of(bytes, size)));
        assert_int_equal(jin_bytes(value, "b", &small, NULL), ERR_TOO_LARGE);
        json_decref(value);
        buf_free(&text);
        buf_free(&fits);
        buf_free(&small);
    }
}

static void what_is_no_object_is_refused(void **state) {
    (void)state;
    json_t *value;
    struct why why = {0};
    assert_int_equal(jin_parse(span_str("[1]"), &value, &why), ERR_INVALID);
    assert_int_equal(jin_parse(span_str("{\"a\":1,\"a\":2}"), &value, &why), ERR_INVALID);
    assert_int_equal(jin_parse(span_str("{\"a\":1"), &value, &why), ERR_INVALID);
    assert_int_equal(jin_parse(span_of(NULL, 0), &value, &why), OK);
    json_decref(value);
}

static void texts_can_be_wiped(void **state) {
    (void)state;
    json_t *value;
    assert_int_equal(jin_parse(span_str("{\"key\":\"SWMKEY\",\"n\":1}"), &value, NULL), OK);
    jin_wipe(value);
    assert_string_equal(jin_string(value, "key"), "");
    json_decref(value);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(any_two_bytes_make_valid_json),
        cmocka_unit_test(an_error_of_the_buffer_sticks),
        cmocka_unit_test(fields_of_the_wrong_kind_are_named),
        cmocka_unit_test(bytes_fit_exactly_or_not_at_all),
        cmocka_unit_test(what_is_no_object_is_refused),
        cmocka_unit_test(texts_can_be_wiped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
