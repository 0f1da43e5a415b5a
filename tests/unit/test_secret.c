/* Guarded memory, key derivation and random ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/limits.h"
#include "crypto/secret.h"
#include "tests/lib/fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>

static int start(void **state) {
    (void)state;
    return crypto_start(NULL) == OK && crypto_start(NULL) == OK ? 0 : -1;
}

static void a_secret_holds_what_it_was_given(void **state) {
    (void)state;
    struct secret *s;
    struct secret *copy;
    assert_int_equal(secret_new("guarded", 7, &s), OK);
    assert_true(span_equal(secret_span(s), span_str("guarded")));
    assert_int_equal(secret_copy(s, &copy), OK);
    assert_ptr_not_equal(secret_span(s).at, secret_span(copy).at);
    assert_true(secret_equal(s, copy));
    secret_free(s);
    secret_free(copy);
    secret_free(NULL);
}

static void sizes_have_bounds(void **state) {
    (void)state;
    struct secret *s = NULL;
    static uint8_t big[SECRET_MAX + 1];
    assert_int_equal(secret_new("", 0, &s), ERR_INVALID);
    assert_int_equal(secret_new(big, sizeof big, &s), ERR_TOO_LARGE);
    assert_null(s);
    assert_int_equal(secret_new(big, SECRET_MAX, &s), OK);
    secret_free(s);
}

static void equality_looks_at_size_and_bytes(void **state) {
    (void)state;
    static const char *const texts[] = {"abc", "abd", "ab", "abcd"};
    struct secret *base;
    assert_int_equal(secret_new("abc", 3, &base), OK);
    for (size_t i = 0; i < 4; i++) {
        struct secret *s;
        assert_int_equal(secret_new(texts[i], strlen(texts[i]), &s), OK);
        assert_int_equal(secret_equal(base, s), i == 0);
        secret_free(s);
    }
    secret_free(base);
}

static enum err refuse(void *ctx, uint8_t *at, size_t size) {
    *(size_t *)ctx = size;
    at[0] = 1;
    return ERR_IO;
}

static void a_failed_fill_gives_no_secret(void **state) {
    (void)state;
    struct secret *s = NULL;
    size_t seen = 0;
    assert_int_equal(secret_fill(12, refuse, &seen, &s), ERR_IO);
    assert_int_equal(seen, 12);
    assert_null(s);
}

/* Runs `act` on a secret in a child; returns the child's wait status. */
static int in_child(void (*act)(const struct secret *s)) {
    struct secret *s;
    assert_int_equal(secret_new("sixteen byte key", 16, &s), OK);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)!freopen("/dev/null", "w", stderr);
        (void)signal(SIGSEGV, SIG_DFL); /* cmocka would go on with its tests in the child */
        act(s);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    secret_free(s);
    return status;
}

static void write_it(const struct secret *s) { *(volatile uint8_t *)secret_span(s).at = 1; }
static void read_past_it(const struct secret *s) {
    volatile const uint8_t *at = secret_span(s).at;
    (void)at[16];
}
static void expect_zeros(const struct secret *s) {
    _exit(sodium_is_zero(secret_span(s).at, 16) ? 7 : 8);
}

static void writing_to_a_secret_kills_the_process(void **state) {
    (void)state;
    int status = in_child(write_it);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void reading_past_a_secret_kills_the_process(void **state) {
    (void)state;
    int status = in_child(read_past_it);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void a_forked_child_sees_zeros(void **state) {
    (void)state;
    int status = in_child(expect_zeros);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

/* The VmFlags of the mapping that holds `at`, from the kernel. */
static void flags_of(const void *at, char *out, size_t room) {
    FILE *maps = fopen("/proc/self/smaps", "re");
    assert_non_null(maps);
    char line[512];
    bool inside = false;
    out[0] = '\0';
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long from;
        unsigned long to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = (uintptr_t)at >= from && (uintptr_t)at < to;
        if (inside && strncmp(line, "VmFlags:", 8) == 0) (void)snprintf(out, room, "%s", line);
    }
    (void)fclose(maps);
}

static void secrets_stay_out_of_core_dumps_and_children(void **state) {
    (void)state;
    struct secret *s;
    char flags[512];
    assert_int_equal(secret_random(32, &s), OK);
    flags_of(secret_span(s).at, flags, sizeof flags);
    secret_free(s);
    assert_non_null(strstr(flags, " dd")); /* do not dump */
    assert_non_null(strstr(flags, " wf")); /* wipe on fork */
    assert_null(strstr(flags, " wr"));     /* not writable */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_non_null(strstr(flags, " lo")); /* locked; sanitizers make mlock do nothing */
#endif
}

static void derivation_is_keyed_blake2b_of_purpose_and_id(void **state) {
    (void)state;
    static const uint8_t text[] = "wal segment\0id-1";
    struct secret *master;
    struct secret *key;
    uint8_t expected[KEY_SIZE];
    assert_int_equal(secret_random(KEY_SIZE, &master), OK);
    assert_int_equal(secret_derive(master, "wal segment", span_str("id-1"), &key), OK);
    assert_int_equal(crypto_generichash(expected, KEY_SIZE, text, sizeof text - 1,
                                        secret_span(master).at, KEY_SIZE),
                     0);
    assert_true(span_equal(secret_span(key), span_of(expected, KEY_SIZE)));
    secret_free(key);
    secret_free(master);
}

static void derived_keys_differ_by_master_purpose_and_id(void **state) {
    (void)state;
    struct secret *master[2];
    struct secret *key[4];
    for (int i = 0; i < 2; i++)
        assert_int_equal(secret_random(KEY_SIZE, &master[i]), OK);
    assert_int_equal(secret_derive(master[0], "a", span_str("x"), &key[0]), OK);
    assert_int_equal(secret_derive(master[1], "a", span_str("x"), &key[1]), OK);
    assert_int_equal(secret_derive(master[0], "b", span_str("x"), &key[2]), OK);
    assert_int_equal(secret_derive(master[0], "a", span_str("y"), &key[3]), OK);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            assert_false(secret_equal(key[i], key[j]));
    for (int i = 0; i < 4; i++)
        secret_free(key[i]);
    for (int i = 0; i < 2; i++)
        secret_free(master[i]);
}

static void a_short_master_derives_nothing(void **state) {
    (void)state;
    struct secret *master;
    struct secret *key;
    assert_int_equal(secret_random(16, &master), OK);
    assert_int_equal(secret_derive(master, "a", span_str("x"), &key), ERR_INVALID);
    secret_free(master);
}

static void ids_are_25_characters_of_base36_and_all_digits_occur_everywhere(void **state) {
    (void)state;
    bool seen[25][36] = {{false}};
    for (int n = 0; n < 4000; n++) {
        char id[26];
        random_id(id);
        assert_int_equal(strlen(id), 25);
        for (int i = 0; i < 25; i++) {
            static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
            const char *at = strchr(digits, id[i]);
            assert_non_null(at);
            seen[i][at - digits] = true;
        }
    }
    for (int i = 0; i < 25; i++)
        for (int d = 0; d < 36; d++)
            assert_true(seen[i][d]);
}

struct making {
    struct secret *made; /* by the scenario, or NULL */
    enum err e;          /* what it got */
};

static void make(void *ctx) {
    struct making *m = ctx;
    struct secret *master = NULL;
    m->made = NULL;
    m->e = secret_random(KEY_SIZE, &master);
    if (m->e == OK) m->e = secret_derive(master, "a", span_str("x"), &m->made);
    secret_free(master);
}

static void made_or_not(void *ctx, bool fired) {
    struct making *m = ctx;
    assert_int_equal(m->e, fired ? ERR_NOMEM : OK);
    assert_true(fired == (m->made == NULL));
    secret_free(m->made);
}

static void running_out_of_memory_leaks_nothing(void **state) {
    (void)state;
    struct making m = {0};
    assert_int_equal(fault_sweep_alloc(make, made_or_not, &m), 4);
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(a_secret_holds_what_it_was_given),
        cmocka_unit_test(sizes_have_bounds),
        cmocka_unit_test(equality_looks_at_size_and_bytes),
        cmocka_unit_test(a_failed_fill_gives_no_secret),
        cmocka_unit_test(writing_to_a_secret_kills_the_process),
        cmocka_unit_test(reading_past_a_secret_kills_the_process),
        cmocka_unit_test(a_forked_child_sees_zeros),
        cmocka_unit_test(secrets_stay_out_of_core_dumps_and_children),
        cmocka_unit_test(derivation_is_keyed_blake2b_of_purpose_and_id),
        cmocka_unit_test(derived_keys_differ_by_master_purpose_and_id),
        cmocka_unit_test(a_short_master_derives_nothing),
        cmocka_unit_test(ids_are_25_characters_of_base36_and_all_digits_occur_everywhere),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    return cmocka_run_group_tests_name("secret", cases, start, NULL);
}
