/* The identity: all of it goes through the keyring and back; a token's text is taken apart as it
 * was put together, and nothing else passes for one; names and the directory are what they should
 * be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "api/credentials.h"
#include "api/directory.h"
#include "api/identity.h"

struct fixture {
    char root[64];     /* a temporary directory */
    struct disk *disk; /* on it */
    struct node_identity id;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    const char *base = getenv("TMPDIR");
    (void)snprintf(f->root, sizeof f->root, "%s/identity-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(f->root));
    assert_int_equal(crypto_start(NULL), OK);
    assert_int_equal(disk_real_open(f->root, &f->disk, NULL), OK);
    identity_init(&f->id);
    (void)snprintf(f->id.name, sizeof f->id.name, "n1");
    (void)snprintf(f->id.client_address, ADDRESS_MAX, "10.1.2.3:2379");
    (void)snprintf(f->id.peer_address, ADDRESS_MAX, "db.example:2377");
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    char path[128];
    identity_clear(&f->id);
    directory_wipe(f->disk);
    disk_real_close(f->disk);
    (void)snprintf(path, sizeof path, "%s/LOCK", f->root);
    (void)unlink(path);
    (void)rmdir(f->root);
    free(f);
    return 0;
}

static void an_identity_goes_through_the_keyring(void **state) {
    struct fixture *f = *state;
    struct keyring *keys;
    struct node_identity back;
    struct kek plain = {.kind = KEK_PLAIN};
    assert_int_equal(credentials_found(&f->id, true, (int64_t)time(NULL), NULL), OK);
    f->id.n = 1;
    f->id.members[0] =
        (struct wire_member){.raft_id = 7, .node_id = "other", .peer_address = "a:1"};
    assert_int_equal(keyring_create(f->disk, plain, &keys, NULL), OK);
    identity_init(&back);
    assert_int_equal(identity_load(keys, &back, NULL), ERR_NOT_FOUND);
    assert_int_equal(identity_store(&f->id, keys, NULL), OK);
    keyring_close(keys);
    assert_int_equal(keyring_open(f->disk, plain, &keys, NULL), OK);
    assert_int_equal(identity_load(keys, &back, NULL), OK);
    assert_int_equal(back.state, IDENTITY_MADE);
    assert_string_equal(back.cluster_id, f->id.cluster_id);
    assert_string_equal(back.node_id, f->id.node_id);
    assert_string_equal(back.peer_address, f->id.peer_address);
    assert_true(span_equal(buf_span(&back.cert_pem), buf_span(&f->id.cert_pem)));
    assert_true(secret_equal(back.key_pem, f->id.key_pem));
    assert_true(secret_equal(back.token, f->id.token));
    assert_true(secret_equal(back.unlock_key, f->id.unlock_key));
    assert_int_equal(back.n, 1);
    assert_string_equal(back.members[0].node_id, "other");
    identity_clear(&back);
    keyring_close(keys);
}

static void a_founder_has_a_certificate_for_its_addresses(void **state) {
    struct fixture *f = *state;
    struct x509_subject subject;
    assert_int_equal(credentials_found(&f->id, false, (int64_t)time(NULL), NULL), OK);
    struct span cert = buf_span(&f->id.cert_pem), root = buf_span(&f->id.root_pem);
    assert_int_equal(x509_verify(root, cert, (int64_t)time(NULL), &subject, NULL), OK);
    assert_string_equal(subject.cn, f->id.node_id);
    assert_string_equal(subject.ou, ROLE_MANAGER);
    assert_string_equal(subject.o, f->id.cluster_id);
    assert_true(x509_has_hosts(cert, "10.1.2.3,db.example,localhost,127.0.0.1,::1"));
    assert_false(x509_has_hosts(cert, "10.1.2.4"));
    assert_null(f->id.unlock_key);
}

static void a_token_is_taken_apart_as_it_was_put_together(void **state) {
    struct fixture *f = *state;
    char text[JOIN_TOKEN_TEXT], digest[ROOT_DIGEST_TEXT], expected[ROOT_DIGEST_TEXT];
    char secret[TOKEN_SECRET_SIZE + 1];
    assert_int_equal(credentials_found(&f->id, false, (int64_t)time(NULL), NULL), OK);
    assert_int_equal(token_format(buf_span(&f->id.root_pem), f->id.token, text), OK);
    assert_int_equal(token_parse(text, digest, secret, NULL), OK);
    assert_int_equal(x509_digest(buf_span(&f->id.root_pem), expected), OK);
    assert_string_equal(digest, expected);
    assert_true(span_equal(span_str(secret), secret_span(f->id.token)));
    for (size_t i = 0; i < sizeof text - 1; i++) { /* no place may hold anything else */
        char kept = text[i];
        text[i] = '!';
        assert_int_equal(token_parse(text, digest, secret, NULL), ERR_INVALID);
        text[i] = 0;
        assert_int_equal(token_parse(text, digest, secret, NULL), ERR_INVALID);
        text[i] = kept;
    }
}

static void names_are_checked(void **state) {
    (void)state;
    char long_name[NAME_MAX_SIZE + 2];
    memset(long_name, 'A', sizeof long_name);
    long_name[NAME_MAX_SIZE + 1] = 0;
    static const char *const good[] = {"n1", "a.b-c_D", "x"};
    static const char *const bad[] = {"", "a b", "a/b", "\xc3\xa9", "abcdefghijklmnopqrstuvwxy"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_int_equal(name_check(good[i], NULL), OK);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(name_check(bad[i], NULL), ERR_INVALID);
    assert_int_equal(name_check(long_name, NULL), ERR_INVALID);
}

static void wildcards_are_not_announced(void **state) {
    (void)state;
    char out[ADDRESS_MAX];
    credentials_advertised("", "10.0.0.1:2379", out);
    assert_string_equal(out, "10.0.0.1:2379");
    credentials_advertised("db.example", "0.0.0.0:2379", out);
    assert_string_equal(out, "db.example:2379");
    credentials_advertised("", "0.0.0.0:2379", out);
    assert_true(strncmp(out, "0.0.0.0", 7) != 0);
    credentials_advertised("", "[::]:2379", out);
    assert_true(strncmp(out, "[::]", 4) != 0);
}

static void a_log_without_its_keyring_is_not_an_empty_directory(void **state) {
    struct fixture *f = *state;
    struct why why = {0};
    assert_int_equal(directory_check_empty(f->disk, f->root, &why), OK);
    assert_int_equal(disk_write_file(f->disk, "ballot", span_str("x"), NULL), OK);
    assert_int_equal(directory_check_empty(f->disk, f->root, &why), ERR_CORRUPT);
    assert_non_null(strstr(why.text, "keyring is missing"));
    directory_wipe(f->disk);
    assert_int_equal(directory_check_empty(f->disk, f->root, &why), OK);
    /* A wipe that a crash cut short goes on. */
    assert_int_equal(disk_write_file(f->disk, "wiping", span_of(NULL, 0), NULL), OK);
    assert_int_equal(disk_write_file(f->disk, "ballot", span_str("x"), NULL), OK);
    assert_int_equal(directory_check_empty(f->disk, f->root, &why), OK);
    struct buf left = buf_new(16);
    assert_int_equal(disk_read_file(f->disk, "ballot", &left, NULL), ERR_NOT_FOUND);
    buf_free(&left);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_identity_goes_through_the_keyring, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_founder_has_a_certificate_for_its_addresses, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_token_is_taken_apart_as_it_was_put_together, set_up,
                                        tear_down),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(wildcards_are_not_announced),
        cmocka_unit_test_setup_teardown(a_log_without_its_keyring_is_not_an_empty_directory, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
