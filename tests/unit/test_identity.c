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

#include "api/node/credentials.h"
#include "api/node/directory.h"
#include "api/node/identity.h"

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
    const uint8_t key[2][KEY_SIZE] = {{7}, {8}};
    assert_int_equal(vault_key_put(&f->id, 9, span_of(key[1], KEY_SIZE)), OK);
    assert_int_equal(vault_key_put(&f->id, 3, span_of(key[0], KEY_SIZE)), OK);
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
    assert_int_equal(back.role, NODE_MANAGER);
    assert_string_equal(back.cluster_id, f->id.cluster_id);
    assert_string_equal(back.node_id, f->id.node_id);
    assert_string_equal(back.peer_address, f->id.peer_address);
    assert_true(span_equal(buf_span(&back.cert_pem), buf_span(&f->id.cert_pem)));
    assert_true(secret_equal(back.key_pem, f->id.key_pem));
    assert_true(secret_equal(back.token, f->id.token));
    assert_true(secret_equal(back.unlock_key, f->id.unlock_key));
    assert_int_equal(back.n, 1);
    assert_string_equal(back.members[0].node_id, "other");
    assert_int_equal(back.vault_n, 2);
    assert_int_equal(back.vault[0].epoch, 3); /* ascending, however they were put */
    assert_true(secret_equal(back.vault[1].key, vault_key_of(&f->id, 9)->key));
    assert_memory_equal(back.vault[1].id, vault_key_of(&f->id, 9)->id, VAULT_KEY_ID);
    identity_clear(&back);
    keyring_close(keys);
}

/* What an earlier version has written: the same without cluster keys, under another number. */
static void an_older_identity_is_understood(void **state) {
    struct fixture *f = *state;
    struct keyring *keys;
    struct node_identity back;
    struct secret *blob;
    struct buf bytes = buf_new(KEYRING_MAX / 2);
    assert_int_equal(credentials_found(&f->id, false, (int64_t)time(NULL), NULL), OK);
    assert_int_equal(keyring_create(f->disk, (struct kek){.kind = KEK_PLAIN}, &keys, NULL), OK);
    assert_int_equal(identity_store(&f->id, keys, NULL), OK);
    assert_int_equal(buf_add_span(&bytes, secret_span(keyring_identity(keys))), OK);
    bytes.at[0] = 2;
    identity_init(&back);
    for (size_t cut = 0; cut <= 4; cut++) { /* the count of keys is 4 bytes, and is left out */
        assert_int_equal(secret_new(bytes.at, bytes.size - cut, &blob), OK);
        assert_int_equal(keyring_set_identity(keys, blob, NULL), OK);
        assert_int_equal(identity_load(keys, &back, NULL), cut == 4 ? OK : ERR_CORRUPT);
        secret_free(blob);
    }
    assert_string_equal(back.node_id, f->id.node_id);
    assert_int_equal(back.vault_n, 0);
    identity_clear(&back);
    buf_wipe(&bytes);
    keyring_close(keys);
}

static void cluster_keys_are_taken_whole_or_not_at_all(void **state) {
    struct fixture *f = *state;
    struct node_identity to;
    struct buf bytes = buf_new(2 * VAULT_KEYS_SIZE);
    uint8_t key[KEY_SIZE] = {1};
    identity_init(&to);
    for (uint32_t i = 1; i <= VAULT_EPOCHS_MAX; i++, key[0]++)
        assert_int_equal(vault_key_put(&f->id, 2 * i, span_of(key, sizeof key)), OK);
    assert_int_equal(vault_key_put(&f->id, 3, span_of(key, sizeof key)), ERR_TOO_LARGE);
    assert_int_equal(vault_key_put(&f->id, 0, span_of(key, sizeof key)), ERR_INVALID);
    assert_int_equal(vault_key_put(&f->id, 2, span_of(key, 31)), ERR_INVALID);
    assert_int_equal(vault_keys_encode(&f->id, &bytes), OK);
    assert_int_equal(bytes.size, VAULT_KEYS_SIZE);
    for (size_t size = 0; size < bytes.size; size++) {
        assert_int_equal(vault_keys_take(&to, span_of(bytes.at, size)), ERR_PROTOCOL);
        assert_int_equal(to.vault_n, 0);
    }
    put_u32(bytes.at + 4 + 36, 2); /* an epoch twice */
    assert_int_equal(vault_keys_take(&to, buf_span(&bytes)), ERR_PROTOCOL);
    put_u32(bytes.at + 4 + 36, 4);
    put_u32(bytes.at, VAULT_EPOCHS_MAX + 1);
    assert_int_equal(vault_keys_take(&to, buf_span(&bytes)), ERR_PROTOCOL);
    put_u32(bytes.at, VAULT_EPOCHS_MAX);
    assert_int_equal(vault_key_put(&to, 6, span_of(key, sizeof key)), OK); /* held: it stays */
    assert_int_equal(vault_keys_take(&to, buf_span(&bytes)), OK);
    assert_int_equal(to.vault_n, VAULT_EPOCHS_MAX);
    assert_memory_equal(secret_span(vault_key_of(&to, 6)->key).at, key, sizeof key);
    assert_true(secret_equal(vault_key_of(&to, 8)->key, vault_key_of(&f->id, 8)->key));
    vault_key_drop(&to, 8);
    vault_key_drop(&to, 8);
    assert_null(vault_key_of(&to, 8));
    assert_int_equal(to.vault_n, VAULT_EPOCHS_MAX - 1);
    identity_clear(&to);
    assert_int_equal(to.vault_n, 0);
    buf_wipe(&bytes);
}

static void exists(struct disk *disk, const char *path, bool wanted) {
    struct buf bytes = buf_new(64);
    assert_int_equal(disk_read_file(disk, path, &bytes, NULL), wanted ? OK : ERR_NOT_FOUND);
    buf_free(&bytes);
}

static void what_a_manager_wipes_leaves_its_keyring(void **state) {
    struct fixture *f = *state;
    assert_int_equal(f->disk->make_dir(f->disk, "log", NULL), OK);
    assert_int_equal(f->disk->make_dir(f->disk, "snapshots", NULL), OK);
    static const char *const gone[] = {"ballot", "log/1", "snapshots/1"};
    for (size_t i = 0; i < ARRAY_SIZE(gone); i++)
        assert_int_equal(disk_write_file(f->disk, gone[i], span_str("x"), NULL), OK);
    assert_int_equal(disk_write_file(f->disk, "keyring", span_str("x"), NULL), OK);
    directory_wipe_log(f->disk);
    for (size_t i = 0; i < ARRAY_SIZE(gone); i++)
        exists(f->disk, gone[i], false);
    exists(f->disk, "keyring", true);
}

static void an_extended_certificate_has_the_same_key(void **state) {
    struct fixture *f = *state;
    uint8_t before[KEY_DIGEST_SIZE], after[KEY_DIGEST_SIZE];
    struct x509_subject subject;
    int64_t now_s = (int64_t)time(NULL), later_s = now_s + 2 * NODE_VALIDITY_S;
    assert_int_equal(credentials_found(&f->id, false, now_s, NULL), OK);
    assert_int_equal(x509_key_digest(buf_span(&f->id.cert_pem), before), OK);
    struct span roots = buf_span(&f->id.root_pem);
    assert_int_equal(x509_verify(roots, buf_span(&f->id.cert_pem), later_s, &subject, NULL),
                     ERR_CERTIFICATE);
    assert_int_equal(credentials_extend(&f->id, later_s, NULL), OK);
    assert_int_equal(x509_verify(roots, buf_span(&f->id.cert_pem), later_s, &subject, NULL), OK);
    assert_string_equal(subject.cn, f->id.node_id);
    assert_int_equal(x509_key_digest(buf_span(&f->id.cert_pem), after), OK);
    assert_memory_equal(before, after, sizeof before);
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
        cmocka_unit_test_setup_teardown(an_older_identity_is_understood, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cluster_keys_are_taken_whole_or_not_at_all, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_a_manager_wipes_leaves_its_keyring, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_extended_certificate_has_the_same_key, set_up,
                                        tear_down),
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
