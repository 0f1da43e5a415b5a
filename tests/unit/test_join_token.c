/* Join tokens: their bytes, the secrets of the standing ones, how one is found, and when it may be
 * used, from where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "tests/lib/row_lists.h"

static void all_of_a_token_is_read_back_and_a_part_is_not(void **state) {
    (void)state;
    struct buf labels = buf_new(NODE_LABELS_BYTES), body = buf_new(ROW_BODY_MAX);
    struct join_token in = some_token(NODE_MANAGER, 12, "secret"), out;
    in.expires_s = 1800000000;
    in.uses_max = 5;
    in.used = 5;
    in.revoked = true;
    (void)snprintf(in.addresses, sizeof in.addresses, "10.0.0.0/8,::1");
    assert_int_equal(labels_add(&labels, span_str("k"), span_str("v")), OK);
    in.labels = buf_span(&labels);
    assert_int_equal(join_token_encode(&in, &body), OK);
    assert_int_equal(join_token_decode(buf_span(&body), &out), OK);
    assert_int_equal(out.role, NODE_MANAGER);
    assert_memory_equal(out.hash, in.hash, JOIN_HASH_SIZE);
    assert_int_equal(out.epoch, 12);
    assert_int_equal(out.expires_s, in.expires_s);
    assert_int_equal(out.uses_max, 5);
    assert_int_equal(out.used, 5);
    assert_true(out.revoked);
    assert_string_equal(out.addresses, in.addresses);
    assert_true(span_equal(out.labels, in.labels));
    for (size_t size = 0; size < body.size; size++)
        assert_int_equal(join_token_decode(span_of(body.at, size), &out), ERR_CORRUPT);
    assert_int_equal(buf_u8(&body, 0), OK);
    assert_int_equal(join_token_decode(buf_span(&body), &out), ERR_CORRUPT);
    buf_free(&labels);
    buf_free(&body);
}

static void what_is_no_token_is_not_encoded(void **state) {
    (void)state;
    struct buf body = buf_new(ROW_BODY_MAX);
    struct join_token bad[5];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = some_token(NODE_WORKER, 0, "secret");
    bad[0].role = (enum node_role)0;
    bad[1].role = (enum node_role)3;
    bad[2].expires_s = -1;
    bad[3].uses_max = 1;
    bad[3].used = 2;
    (void)snprintf(bad[4].addresses, sizeof bad[4].addresses, "10.0.0.0/33");
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(join_token_encode(&bad[i], &body), ERR_INVALID);
    buf_free(&body);
}

static void standing_secrets_follow_from_key_role_and_epoch(void **state) {
    (void)state;
    struct secret *key, *other;
    char a[JOIN_SECRET_SIZE + 1], b[JOIN_SECRET_SIZE + 1];
    assert_int_equal(secret_new("12345678901234567890123456789012", KEY_SIZE, &key), OK);
    assert_int_equal(secret_random(KEY_SIZE, &other), OK);
    assert_int_equal(join_token_derive(key, NODE_WORKER, 1, a), OK);
    assert_int_equal(join_token_derive(key, NODE_WORKER, 1, b), OK);
    assert_string_equal(a, b);
    /* As Python's hashlib has it. */
    assert_string_equal(a, "cc5g0gl28sexsrdm0q4sdafzp");
    assert_int_equal(strspn(a, "0123456789abcdefghijklmnopqrstuvwxyz"), JOIN_SECRET_SIZE);
    assert_int_equal(join_token_derive(key, NODE_WORKER, 2, b), OK);
    assert_string_not_equal(a, b);
    assert_int_equal(join_token_derive(key, NODE_MANAGER, 1, b), OK);
    assert_string_not_equal(a, b);
    assert_int_equal(join_token_derive(other, NODE_WORKER, 1, b), OK);
    assert_string_not_equal(a, b);
    secret_free(key);
    secret_free(other);
}

static void a_token_is_found_by_its_secret_and_the_standing_one_by_its_role(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct row row;
    struct join_token t;
    struct row_list l = row_list();
    assert_int_equal(make_cluster(s).error, OK);
    assert_false(join_token_find(s, "one", &row, &t));
    assert_false(join_token_standing(s, NODE_WORKER, &row, &t));
    struct join_token one = some_token(NODE_WORKER, 0, "one"),
                      two = some_token(NODE_MANAGER, 3, "two");
    list_token(&l, ROW_CREATE, "a", 0, "", &one);
    list_token(&l, ROW_CREATE, "b", 0, "", &two);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_true(join_token_find(s, "one", &row, &t));
    assert_string_equal(row.id, "a");
    assert_int_equal(t.role, NODE_WORKER);
    assert_true(join_token_find(s, "two", &row, &t));
    assert_string_equal(row.id, "b");
    assert_false(join_token_find(s, "on", &row, &t));
    assert_false(join_token_find(s, "", &row, &t));
    assert_false(join_token_standing(s, NODE_WORKER, &row, &t));
    assert_true(join_token_standing(s, NODE_MANAGER, &row, &t));
    assert_string_equal(row.id, "b");
    assert_int_equal(t.epoch, 3);
    store_free(s);
}

static void a_token_is_good_until_its_end_its_last_use_and_its_revocation(void **state) {
    (void)state;
    struct why why;
    struct join_token t = some_token(NODE_WORKER, 0, "secret");
    assert_int_equal(join_token_usable(&t, 1, NULL, &why), OK);
    t.expires_s = 100;
    assert_int_equal(join_token_usable(&t, 99, NULL, &why), OK);
    assert_int_equal(join_token_usable(&t, 100, NULL, &why), ERR_PERMISSION);
    assert_string_equal(why.text, "the token has expired");
    t.expires_s = 0;
    t.uses_max = 2;
    t.used = 1;
    assert_int_equal(join_token_usable(&t, 1, NULL, &why), OK);
    t.used = 2;
    assert_int_equal(join_token_usable(&t, 1, NULL, &why), ERR_PERMISSION);
    assert_string_equal(why.text, "the token is used up");
    t.uses_max = 0;
    assert_int_equal(join_token_usable(&t, 1, NULL, &why), OK);
    t.revoked = true;
    assert_int_equal(join_token_usable(&t, 1, NULL, &why), ERR_PERMISSION);
    assert_string_equal(why.text, "the token was revoked");
}

static void only_lists_of_addresses_are_taken(void **state) {
    (void)state;
    static const char *const good[] = {"",
                                       "10.0.0.1",
                                       "10.0.0.0/8",
                                       "0.0.0.0/0,::/0",
                                       "2001:db8::/32,10.1.2.3/32,::1",
                                       "::ffff:10.0.0.0/104"};
    static const char *const bad[] = {",",          "10.0.0.0/8,",  ",10.0.0.0/8", "10.0.0.0/33",
                                      "::/129",     "10.0.0.0/",    "10.0.0.0/-1", "10.0.0.0/+8",
                                      "10.0.0/8",   "10.0.0.0/8/8", "host",        "10.0.0.1:80",
                                      "[::1]",      " 10.0.0.1",    "10.0.0.1 ",   "10.0.0.0/0008",
                                      "10.0.0.1,,", "::1/1x",       "[::1]:80",    "/8"};
    char long_list[JOIN_ADDRESSES + 16] = "";
    struct why why;
    for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
        assert_int_equal(join_addresses_check(good[i], &why), OK);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        if (join_addresses_check(bad[i], &why) != ERR_INVALID) fail_msg("\"%s\" was taken", bad[i]);
    while (strlen(long_list) < JOIN_ADDRESSES) {
        size_t size = strlen(long_list);
        (void)snprintf(long_list + size, sizeof long_list - size, size == 0 ? "::1" : ",::1");
    }
    assert_int_equal(join_addresses_check(long_list, &why), ERR_INVALID);
}

static bool comes(const char *addresses, const char *remote) {
    struct join_token t = some_token(NODE_WORKER, 0, "secret");
    (void)snprintf(t.addresses, sizeof t.addresses, "%s", addresses);
    return join_token_usable(&t, 1, remote, NULL) == OK;
}

static void an_address_is_in_its_network_or_not(void **state) {
    (void)state;
    assert_true(comes("", "10.0.0.1"));
    assert_true(comes("", NULL));
    assert_false(comes("10.0.0.0/8", NULL));
    assert_true(comes("10.0.0.0/8", "10.255.3.4"));
    assert_false(comes("10.0.0.0/8", "11.0.0.1"));
    assert_true(comes("10.0.0.9/8", "10.1.1.1")); /* bits behind the network's don't count */
    assert_true(comes("10.0.0.1", "10.0.0.1"));
    assert_false(comes("10.0.0.1", "10.0.0.2"));
    assert_true(comes("192.168.4.0/23", "192.168.5.77"));
    assert_false(comes("192.168.4.0/23", "192.168.6.1"));
    assert_true(comes("0.0.0.0/0", "1.2.3.4"));
    assert_false(comes("0.0.0.0/0", "2001:db8::1"));
    assert_true(comes("::/0", "2001:db8::1"));
    assert_true(comes("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(comes("2001:db8::/33", "2001:db8:8000::1"));
    assert_true(comes("1.1.1.1,2001:db8::/32,10.0.0.0/8", "10.9.9.9"));
    assert_true(comes("10.0.0.0/8", "::ffff:10.1.2.3")); /* as a socket for both gives it */
    assert_true(comes("10.0.0.0/8", "10.1.2.3:4711"));
    assert_true(comes("2001:db8::/32", "[2001:db8::5]:4711"));
    assert_false(comes("10.0.0.0/8", "host.example"));
    assert_false(comes("10.0.0.0/8", ""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_a_token_is_read_back_and_a_part_is_not),
        cmocka_unit_test(what_is_no_token_is_not_encoded),
        cmocka_unit_test(standing_secrets_follow_from_key_role_and_epoch),
        cmocka_unit_test(a_token_is_found_by_its_secret_and_the_standing_one_by_its_role),
        cmocka_unit_test(a_token_is_good_until_its_end_its_last_use_and_its_revocation),
        cmocka_unit_test(only_lists_of_addresses_are_taken),
        cmocka_unit_test(an_address_is_in_its_network_or_not),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
