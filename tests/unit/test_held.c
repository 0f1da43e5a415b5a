/* Secrets, configs and values as bytes: what is written is read, at every bound, cut off at each
 * byte; what is past a bound is neither written nor read. And names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/rows.h"
#include "tests/lib/held_lists.h"

static void assert_same(const struct held_row *a, const struct held_row *b) {
    assert_true(span_equal(a->labels, b->labels));
    assert_true(span_equal(a->templating_options, b->templating_options));
    assert_true(span_equal(a->driver_options, b->driver_options));
    assert_string_equal(a->templating, b->templating);
    assert_string_equal(a->driver, b->driver);
    assert_int_equal(a->next_version, b->next_version);
    assert_int_equal(a->n, b->n);
    for (unsigned i = 0; i < a->n; i++) {
        assert_int_equal(a->versions[i].number, b->versions[i].number);
        assert_string_equal(a->versions[i].value_id, b->versions[i].value_id);
        assert_int_equal(a->versions[i].size, b->versions[i].size);
        assert_int_equal(a->versions[i].created_ns, b->versions[i].created_ns);
    }
}

static void check_held_bytes(const struct held_row *h) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct held_row out;
    assert_int_equal(held_encode(h, &body), OK);
    assert_int_equal(held_decode(buf_span(&body), &out), OK);
    assert_same(h, &out);
    for (size_t size = 0; size < body.size; size++)
        assert_int_equal(held_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(held_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&body);
}

static struct buf labels_of(const char *key, const char *value) {
    struct buf labels = buf_new(NODE_LABELS_BYTES);
    assert_int_equal(labels_add(&labels, span_str(key), span_str(value)), OK);
    return labels;
}

static void fill(char *text, size_t size) {
    memset(text, 'w', size);
    text[size] = '\0';
}

static void a_secret_is_read_as_it_was_written(void **state) {
    (void)state;
    struct buf labels = labels_of("zone", "a"), options = labels_of("o", "");
    struct held_row plain = some_held("s", 1), full = some_held("s", HELD_VERSIONS_MAX),
                    driven = {.next_version = 1};
    full.labels = buf_span(&labels);
    fill(full.templating, HELD_WORD_MAX);
    full.templating_options = buf_span(&options);
    full.next_version = UINT32_MAX;
    full.versions[0].size = 1;
    full.versions[1].size = CONFIG_SIZE_MAX;
    full.versions[2].created_ns = INT64_MIN;
    full.versions[HELD_VERSIONS_MAX - 1].number = UINT32_MAX - 1;
    fill(full.versions[3].value_id, NODE_ID_SIZE);
    fill(driven.driver, HELD_WORD_MAX);
    driven.driver_options = buf_span(&options);
    check_held_bytes(&plain);
    check_held_bytes(&full);
    check_held_bytes(&driven);
    buf_free(&labels);
    buf_free(&options);
}

static void a_secret_past_its_bounds_is_not_written(void **state) {
    (void)state;
    static const struct held_row none;
    struct buf body = buf_new(ROW_BODY_MAX), options = labels_of("o", "");
    struct held_row bad[14];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_held("s", 3);
    bad[0] = none;                 /* a version or a driver */
    bad[1].next_version = 3;       /* above those there are */
    bad[2].versions[1].number = 1; /* ascending */
    bad[3].versions[0].number = 0; /* from 1 */
    bad[4].versions[0].size = 0;   /* of a byte at least */
    bad[5].versions[0].size = CONFIG_SIZE_MAX + 1;
    bad[6].versions[2].value_id[0] = '\0';
    bad[7].versions[2].value_id[0] = ' ';
    bad[8].driver[0] = 'd';                     /* a driver has no versions */
    bad[9].driver_options = buf_span(&options); /* nor are there options without one */
    bad[10].labels = span_str("no labels");
    bad[11].templating_options = span_str("x");
    bad[12].n = HELD_VERSIONS_MAX + 1;
    bad[13].next_version = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(held_encode(&bad[i], &body), ERR_INVALID);
        assert_int_equal(body.size, 0);
    }
    buf_free(&options);
}

static void a_byte_that_says_another_number_of_versions_is_refused(void **state) {
    (void)state;
    struct buf body = buf_new(ROW_BODY_MAX);
    struct held_row h = some_held("s", 2), out;
    assert_int_equal(held_encode(&h, &body), OK);
    size_t at = 4 * 5 + 4; /* behind five empty blocks and next_version */
    assert_int_equal(body.at[at], 2);
    for (unsigned n = 0; n < 256; n++) {
        body.at[at] = (uint8_t)n;
        assert_int_equal(held_decode(buf_span(&body), &out), n == 2 ? OK : ERR_CORRUPT);
    }
    buf_free(&body);
}

static void a_version_is_found_by_its_number(void **state) {
    (void)state;
    struct held_row h = some_held("s", 3), none = {.n = 0};
    h.versions[2].number = 9;
    assert_ptr_equal(held_version(&h, 0), &h.versions[2]); /* the newest */
    assert_ptr_equal(held_version(&h, 9), &h.versions[2]);
    assert_ptr_equal(held_version(&h, 1), &h.versions[0]);
    assert_null(held_version(&h, 3));
    assert_null(held_version(&none, 0));
    assert_null(held_version(&none, 1));
}

static void a_name_has_letters_digits_and_some_signs_between(void **state) {
    (void)state;
    static const char *const good[] = {"a", "Z9", "a-b_c.d", "0.0"};
    static const char *const bad[] = {"",  "-a",  "a-",  ".a",   "a.",
                                      "_", "a b", "a/b", "a\nb", "\xc3\xa4"};
    char name[HELD_NAME_MAX + 2];
    struct why why;
    for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
        assert_int_equal(held_name_check(span_str(good[i]), &why), OK);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(held_name_check(span_str(bad[i]), NULL), ERR_INVALID);
    fill(name, HELD_NAME_MAX);
    assert_int_equal(held_name_check(span_str(name), NULL), OK);
    fill(name, HELD_NAME_MAX + 1);
    assert_int_equal(held_name_check(span_str(name), &why), ERR_INVALID);
    assert_string_equal(why.text,
                        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start "
                        "and end character must be [a-zA-Z0-9]");
    assert_int_equal(held_name_check(span_of("a\0b", 3), NULL), ERR_INVALID);
}

/* --- values --- */

static void check_value_bytes(const struct value_row *v, bool each_byte) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct value_row out;
    assert_int_equal(value_encode(v, &body), OK);
    assert_int_equal(value_decode(buf_span(&body), &out), OK);
    assert_int_equal(v->of, out.of);
    assert_string_equal(v->held_id, out.held_id);
    assert_int_equal(v->version, out.version);
    assert_int_equal(v->epoch, out.epoch);
    assert_memory_equal(v->wrapped, out.wrapped, WRAPPED_SIZE);
    assert_true(span_equal(v->sealed, out.sealed));
    for (size_t size = each_byte ? 0 : body.size - 3; size < body.size; size++)
        assert_int_equal(value_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(value_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&body);
}

static void a_value_is_read_as_it_was_written(void **state) {
    (void)state;
    uint8_t *bytes = calloc(1, CONFIG_SIZE_MAX + SEALED_OVERHEAD);
    assert_non_null(bytes);
    struct value_row v =
        some_value(ROW_SECRET, "0123456789012345678901234", UINT32_MAX, UINT32_MAX);
    check_value_bytes(&v, true);
    v.sealed = span_of(bytes, 1 + SEALED_OVERHEAD);
    check_value_bytes(&v, true);
    v.sealed.size = SECRET_SIZE_MAX + SEALED_OVERHEAD;
    check_value_bytes(&v, false);
    v.of = ROW_CONFIG;
    v.sealed.size = CONFIG_SIZE_MAX + SEALED_OVERHEAD;
    check_value_bytes(&v, false);
    free(bytes);
}

static void a_value_past_its_bounds_is_not_written(void **state) {
    (void)state;
    struct buf body = buf_new(2 * MIB);
    uint8_t *bytes = calloc(1, CONFIG_SIZE_MAX + SEALED_OVERHEAD + 1);
    struct value_row bad[8];
    assert_non_null(bytes);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_value(i == 1 ? ROW_CONFIG : ROW_SECRET, "s", 1, 1);
    bad[0].sealed = span_of(bytes, SECRET_SIZE_MAX + SEALED_OVERHEAD + 1);
    bad[1].sealed = span_of(bytes, CONFIG_SIZE_MAX + SEALED_OVERHEAD + 1);
    bad[2].sealed.size = SEALED_OVERHEAD;
    bad[3].of = ROW_VALUE;
    bad[4].version = 0;
    bad[5].epoch = 0;
    bad[6].held_id[0] = '\0';
    bad[7].held_id[0] = '/';
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(value_encode(&bad[i], &body), ERR_INVALID);
    assert_int_equal(body.size, 0);
    free(bytes);
}

/* --- as rows --- */

static void a_row_is_of_its_kind(void **state) {
    (void)state;
    struct buf secret = buf_new(ROW_BODY_MAX), driven = buf_new(ROW_BODY_MAX),
               large = buf_new(ROW_BODY_MAX);
    struct held_row h = some_held("s", 1), d = {.next_version = 1, .driver = "vault"};
    assert_int_equal(held_encode(&h, &secret), OK);
    assert_int_equal(held_encode(&d, &driven), OK);
    h.versions[0].size = SECRET_SIZE_MAX + 1;
    assert_int_equal(held_encode(&h, &large), OK);
    assert_int_equal(row_body_check(ROW_SECRET, buf_span(&secret)), OK);
    assert_int_equal(row_body_check(ROW_CONFIG, buf_span(&secret)), OK);
    assert_int_equal(row_body_check(ROW_SECRET, buf_span(&driven)), OK);
    assert_int_equal(row_body_check(ROW_CONFIG, buf_span(&driven)), ERR_INVALID);
    assert_int_equal(row_body_check(ROW_SECRET, buf_span(&large)), ERR_INVALID);
    assert_int_equal(row_body_check(ROW_CONFIG, buf_span(&large)), OK);
    for (enum row_kind kind = ROW_SPEC; kind <= ROW_KIND_MAX; kind++)
        if (kind != ROW_SECRET && kind != ROW_CONFIG)
            assert_int_equal(row_body_check(kind, buf_span(&secret)), ERR_INVALID);
    assert_int_equal(row_name_check(ROW_SECRET, span_str("")), ERR_INVALID);
    assert_int_equal(row_name_check(ROW_VALUE, span_str("v")), ERR_INVALID);
    assert_int_equal(row_name_check(ROW_VALUE, span_str("")), OK);
    buf_free(&secret);
    buf_free(&driven);
    buf_free(&large);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_secret_is_read_as_it_was_written),
        cmocka_unit_test(a_secret_past_its_bounds_is_not_written),
        cmocka_unit_test(a_byte_that_says_another_number_of_versions_is_refused),
        cmocka_unit_test(a_version_is_found_by_its_number),
        cmocka_unit_test(a_name_has_letters_digits_and_some_signs_between),
        cmocka_unit_test(a_value_is_read_as_it_was_written),
        cmocka_unit_test(a_value_past_its_bounds_is_not_written),
        cmocka_unit_test(a_row_is_of_its_kind),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
