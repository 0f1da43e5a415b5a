/* The embedded library on a real directory: what was acknowledged is there after reopening, many
 * threads at once, iterators that stay as they were, and each way of being refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/embed.h"
#include "tests/lib/fault.h"

struct place {
    char root[256]; /* a directory of the test's own */
};

static int make_place(void **state) {
    struct place *p = calloc(1, sizeof *p);
    const char *tmp = getenv("TMPDIR");
    if (p == NULL) return -1;
    (void)snprintf(p->root, sizeof p->root, "%s/conclave-embed-XXXXXX", tmp != NULL ? tmp : "/tmp");
    *state = p;
    return mkdtemp(p->root) != NULL ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

static int remove_place(void **state) {
    struct place *p = *state;
    (void)nftw(p->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(p);
    return 0;
}

/* --- short forms --- */

static const uint8_t right_key[32] = "a key of thirty-two bytes, right";
static const uint8_t wrong_key[32] = "a key of thirty-two bytes, wrong";

static struct ccl_open_options plain(void) {
    return (struct ccl_open_options){.size = sizeof(struct ccl_open_options),
                                     .api_version = CCL_API_VERSION,
                                     .flags = CCL_CREATE};
}

static struct ccl_open_options with_key(const uint8_t key[32]) {
    struct ccl_open_options o = plain();
    o.key_kind = CCL_KEY_BYTES;
    o.key = key;
    o.key_size = 32;
    return o;
}

static struct ccl_db *open_with(const struct place *p, const struct ccl_open_options *o) {
    struct ccl_error error = CCL_ERROR_INIT;
    struct ccl_db *db = NULL;
    int code = ccl_open(p->root, o, &db, &error);
    if (code != CCL_OK) fail_msg("open: %s: %s", ccl_code_name(code), error.text);
    return db;
}

static struct ccl_db *open_plain(const struct place *p) {
    struct ccl_open_options o = plain();
    return open_with(p, &o);
}

static int open_code(const struct place *p, const struct ccl_open_options *o) {
    struct ccl_db *db = NULL;
    struct ccl_error error = CCL_ERROR_INIT;
    int code = ccl_open(p->root, o, &db, &error);
    assert_int_equal(error.code, code);
    assert_true(code == CCL_OK || error.text[0] != '\0');
    if (code == CCL_OK) ccl_close(db);
    return code;
}

static void put(struct ccl_db *db, const char *key, const char *value) {
    struct ccl_error error = CCL_ERROR_INIT;
    int code = ccl_put(db, key, strlen(key), value, strlen(value), NULL, NULL, &error);
    if (code != CCL_OK) fail_msg("put: %s: %s", ccl_code_name(code), error.text);
}

static void check_value(struct ccl_db *db, const char *key, const char *value) {
    struct ccl_result *r;
    size_t size;
    assert_int_equal(ccl_get(db, key, strlen(key), &r, NULL), CCL_OK);
    const void *at = ccl_result_value(r, &size);
    assert_int_equal(size, strlen(value));
    assert_memory_equal(at, value, size);
    ccl_result_free(r);
}

static unsigned count_keys(struct ccl_db *db, const char *prefix) {
    struct ccl_iter *iter;
    struct ccl_kv kv = CCL_KV_INIT;
    unsigned n = 0;
    assert_int_equal(ccl_iter_open_prefix(db, prefix, strlen(prefix), &iter, NULL), CCL_OK);
    while (ccl_iter_next(iter, &kv))
        n++;
    ccl_iter_free(iter);
    return n;
}

/* --- one thread --- */

static void what_was_put_is_there_after_reopening(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct ccl_written w = CCL_WRITTEN_INIT;
    put(db, "a", "1");
    put(db, "b", "2");
    put(db, "a", "11");
    assert_int_equal(ccl_del(db, "b", 1, NULL, &w, NULL), CCL_OK);
    assert_int_equal(w.deleted, 1);
    assert_int_equal(w.previous_revision, 3);
    assert_int_equal(w.revision, 5);
    ccl_close(db);
    db = open_plain(*state);
    struct ccl_result *r = NULL;
    struct ccl_kv kv = CCL_KV_INIT;
    assert_int_equal(ccl_get(db, "a", 1, &r, NULL), CCL_OK);
    ccl_result_kv(r, &kv);
    assert_int_equal(kv.value_size, 2);
    assert_memory_equal(kv.value, "11", 2);
    assert_int_equal(kv.create_revision, 2);
    assert_int_equal(kv.mod_revision, 4);
    assert_int_equal(kv.version, 2);
    ccl_result_free(r);
    assert_int_equal(ccl_get(db, "b", 1, &r, NULL), CCL_NOT_FOUND);
    struct ccl_status s = CCL_STATUS_INIT;
    assert_int_equal(ccl_status_get(db, &s, NULL), CCL_OK);
    assert_int_equal(s.revision, 5);
    assert_int_equal(s.keys, 1);
    assert_int_equal(s.bytes, 3);
    assert_int_equal(s.leading, 1);
    ccl_close(db);
    ccl_close(NULL);
}

static void conditions_and_tokens_do_what_they_say(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct ccl_write_options o = CCL_WRITE_OPTIONS_INIT;
    struct ccl_written w = CCL_WRITTEN_INIT;
    o.flags = CCL_MUST_NOT_EXIST;
    assert_int_equal(ccl_put(db, "k", 1, "1", 1, &o, &w, NULL), CCL_OK);
    uint64_t revision = w.revision;
    assert_int_equal(ccl_put(db, "k", 1, "2", 1, &o, &w, NULL), CCL_EXISTS);
    assert_int_equal(w.flags, CCL_EXISTED);
    o.flags = 0;
    o.mod_revision = revision + 1;
    assert_int_equal(ccl_put(db, "k", 1, "2", 1, &o, NULL, NULL), CCL_PRECONDITION);
    o.mod_revision = revision;
    assert_int_equal(ccl_put(db, "k", 1, "2", 1, &o, NULL, NULL), CCL_OK);
    o.mod_revision = 0;
    o.flags = CCL_TOKEN;
    memset(o.token, 7, sizeof o.token);
    assert_int_equal(ccl_put(db, "k", 1, "3", 1, &o, &w, NULL), CCL_OK);
    revision = w.revision;
    put(db, "k", "4");
    assert_int_equal(ccl_put(db, "k", 1, "3", 1, &o, &w, NULL), CCL_OK);
    assert_true((w.flags & CCL_REPEATED) != 0);
    assert_int_equal(w.revision, revision);
    check_value(db, "k", "4");
    ccl_close(db);
}

static void a_transaction_is_all_or_nothing(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct ccl_write_options fresh = CCL_WRITE_OPTIONS_INIT;
    struct ccl_written w = CCL_WRITTEN_INIT;
    fresh.flags = CCL_MUST_NOT_EXIST;
    put(db, "old", "x");
    for (int round = 0; round < 2; round++) {
        struct ccl_txn *t = ccl_txn_new(db);
        ccl_txn_put(t, "a", 1, "1", 1, &fresh);
        ccl_txn_put(t, "b", 1, round == 0 ? "1" : "2", 1, NULL);
        ccl_txn_del(t, "old", 3, NULL);
        int code = ccl_txn_commit(t, NULL, &w, NULL);
        assert_int_equal(code, round == 0 ? CCL_OK : CCL_EXISTS);
        ccl_txn_free(t);
    }
    check_value(db, "b", "1");
    assert_int_equal(count_keys(db, ""), 2);
    struct ccl_txn *t = ccl_txn_new(db);
    ccl_txn_put(t, "", 0, "1", 1, NULL); /* refused, but told at the commit */
    ccl_txn_put(t, "c", 1, "1", 1, NULL);
    assert_int_equal(ccl_txn_commit(t, NULL, NULL, NULL), CCL_INVALID);
    ccl_txn_free(t);
    assert_int_equal(count_keys(db, "c"), 0);
    ccl_close(db);
}

static void an_iterator_shows_the_past_and_outlives_the_handle(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct ccl_iter *iter, *rest;
    struct ccl_kv kv = CCL_KV_INIT;
    put(db, "a", "1");
    put(db, "b", "1");
    put(db, "c", "1");
    assert_int_equal(ccl_iter_open(db, NULL, 0, "c", 1, &iter, NULL), CCL_OK);
    assert_int_equal(ccl_iter_open(db, "b", 1, NULL, 0, &rest, NULL), CCL_OK);
    assert_int_equal(ccl_iter_revision(iter), 4);
    assert_int_equal(ccl_del_range(db, NULL, 0, "z", 1, NULL, NULL, NULL), CCL_OK);
    put(db, "b", "2");
    assert_int_equal(ccl_iter_next(iter, &kv), 1);
    assert_memory_equal(kv.key, "a", 1);
    ccl_close(db);
    assert_int_equal(ccl_iter_next(iter, &kv), 1);
    assert_memory_equal(kv.key, "b", 1);
    assert_memory_equal(kv.value, "1", 1);
    assert_int_equal(ccl_iter_next(iter, &kv), 0);
    assert_int_equal(ccl_iter_next(rest, &kv), 1);
    assert_int_equal(ccl_iter_next(rest, &kv), 1);
    assert_memory_equal(kv.key, "c", 1);
    assert_int_equal(ccl_iter_next(rest, &kv), 0);
    ccl_iter_free(iter);
    ccl_iter_free(rest);
    ccl_iter_free(NULL);
    db = open_plain(*state);
    assert_int_equal(count_keys(db, ""), 1);
    ccl_close(db);
}

static void what_is_out_of_bounds_is_refused(void **state) {
    static const uint8_t big[CCL_VALUE_MAX + 1];
    struct ccl_db *db = open_plain(*state);
    struct ccl_result *r;
    struct ccl_error error = CCL_ERROR_INIT;
    assert_int_equal(ccl_put(db, "", 0, "v", 1, NULL, NULL, &error), CCL_INVALID);
    assert_true(strstr(error.text, "4096") != NULL);
    assert_int_equal(ccl_put(db, big, CCL_KEY_MAX + 1, "v", 1, NULL, NULL, NULL), CCL_INVALID);
    assert_int_equal(ccl_put(db, "k", 1, big, sizeof big, NULL, NULL, NULL), CCL_INVALID);
    assert_int_equal(ccl_put(db, NULL, 1, "v", 1, NULL, NULL, NULL), CCL_INVALID);
    assert_int_equal(ccl_get(db, "", 0, &r, NULL), CCL_INVALID);
    assert_int_equal(ccl_del_range(db, "a", 1, NULL, 0, NULL, NULL, NULL), CCL_INVALID);
    assert_int_equal(ccl_put(NULL, "k", 1, "v", 1, NULL, NULL, NULL), CCL_INVALID);
    assert_int_equal(ccl_put(db, big, CCL_KEY_MAX, big, CCL_VALUE_MAX, NULL, NULL, NULL), CCL_OK);
    assert_int_equal(ccl_get(db, big, CCL_KEY_MAX, &r, NULL), CCL_OK);
    size_t size;
    (void)ccl_result_value(r, &size);
    assert_int_equal(size, CCL_VALUE_MAX);
    ccl_result_free(r);
    ccl_close(db);
}

/* --- structs of another version --- */

static void options_of_another_version_are_taken_or_refused_but_never_misread(void **state) {
    struct place *p = *state;
    struct {
        struct ccl_open_options known;
        uint64_t later; /* a field of a later header */
    } o = {.known = plain()};
    o.known.size = sizeof o;
    assert_int_equal(open_code(p, &o.known), CCL_OK);
    o.later = 1;
    assert_int_equal(open_code(p, &o.known), CCL_UNSUPPORTED);
    o.known.size = offsetof(struct ccl_open_options, log); /* an earlier, shorter one */
    assert_int_equal(open_code(p, &o.known), CCL_OK);
    o.known = plain();
    o.known.api_version = CCL_API_VERSION + 1;
    assert_int_equal(open_code(p, &o.known), CCL_UNSUPPORTED);
    o.known = plain();
    o.known.flags = 1U << 31;
    assert_int_equal(open_code(p, &o.known), CCL_UNSUPPORTED);
    struct {
        uint32_t size;
        int32_t code;
    } small = {.size = sizeof small, .code = -1};
    struct ccl_db *db;
    assert_int_equal(ccl_open("", NULL, &db, (struct ccl_error *)(void *)&small), CCL_INVALID);
    assert_int_equal(small.code, CCL_INVALID);
}

static void every_code_has_a_name_and_a_text(void **state) {
    (void)state;
    for (int code = CCL_OK; code <= CCL_DIVERGED; code++) {
        assert_memory_equal(ccl_code_name(code), "CCL_", 4);
        assert_string_not_equal(ccl_strerror(code), "unknown error");
    }
    assert_string_equal(ccl_strerror(12345), "unknown error");
    assert_true(ccl_version()[0] != '\0');
}

/* --- keys --- */

static void only_the_right_key_opens(void **state) {
    struct place *p = *state;
    struct ccl_open_options right = with_key(right_key), wrong = with_key(wrong_key),
                            none = plain();
    struct ccl_db *db = open_with(p, &right);
    put(db, "k", "v");
    ccl_close(db);
    assert_int_equal(open_code(p, &wrong), CCL_WRONG_KEY);
    assert_int_equal(open_code(p, &none), CCL_LOCKED);
    right.key_size = 31;
    assert_int_equal(open_code(p, &right), CCL_INVALID);
    right.key_size = 32;
    db = open_with(p, &right);
    check_value(db, "k", "v");
    ccl_close(db);
}

static void a_passphrase_opens_too(void **state) {
    struct place *p = *state;
    struct ccl_open_options o = plain();
    o.key_kind = CCL_KEY_PASSPHRASE;
    o.key = "correct horse";
    o.key_size = 13;
    struct ccl_db *db = open_with(p, &o);
    put(db, "k", "v");
    ccl_close(db);
    db = open_with(p, &o);
    check_value(db, "k", "v");
    ccl_close(db);
    o.key = "correct horsf";
    assert_int_equal(open_code(p, &o), CCL_WRONG_KEY);
}

static void a_store_is_made_only_when_asked_for(void **state) {
    struct place *p = *state, absent;
    struct ccl_open_options o = plain();
    o.flags = 0;
    assert_int_equal(open_code(p, &o), CCL_NOT_FOUND);
    assert_int_equal(open_code(p, NULL), CCL_NOT_FOUND);
    (void)snprintf(absent.root, sizeof absent.root, "%.200s/absent", p->root);
    assert_int_equal(open_code(&absent, &o), CCL_NOT_FOUND);
    assert_int_equal(access(absent.root, F_OK), -1);
    o.flags = CCL_CREATE;
    assert_int_equal(open_code(&absent, &o), CCL_OK);
    assert_int_equal(open_code(&absent, NULL), CCL_OK);
}

static void a_directory_has_one_handle_at_a_time(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct ccl_open_options o = plain();
    assert_int_equal(open_code(*state, &o), CCL_IN_USE);
    put(db, "still", "works");
    ccl_close(db);
    assert_int_equal(open_code(*state, &o), CCL_OK);
}

static bool file_holds(const char *path, const char *text) {
    bool found = false;
    size_t size = strlen(text), got = 0;
    char *data = malloc(64 * 1024 * 1024);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(data != NULL && fd >= 0);
    for (ssize_t n; (n = read(fd, data + got, 64 * 1024 * 1024 - got)) > 0;)
        got += (size_t)n;
    for (size_t i = 0; i + size <= got && !found; i++)
        found = memcmp(data + i, text, size) == 0;
    (void)close(fd);
    free(data);
    return found;
}

static const char *sought;
static unsigned files_seen;

static int seek_text(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)at;
    if (type != FTW_F) return 0;
    files_seen++;
    return file_holds(path, sought) ? 1 : 0;
}

static void nothing_readable_lies_in_the_directory(void **state) {
    struct place *p = *state;
    struct ccl_open_options o = with_key(right_key);
    struct ccl_db *db = open_with(p, &o);
    put(db, "the-name-of-the-key", "the-text-of-the-value");
    ccl_close(db);
    const char *const texts[] = {"the-name-of-the-key", "the-text-of-the-value"};
    for (size_t i = 0; i < 2; i++) {
        sought = texts[i];
        files_seen = 0;
        assert_int_equal(nftw(p->root, seek_text, 16, FTW_PHYS), 0);
        assert_true(files_seen >= 2);
    }
}

static int remove_log(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)at;
    if (type == FTW_F && strstr(path, "/log/") != NULL) (void)unlink(path);
    return 0;
}

static void a_missing_log_is_an_error_not_an_empty_store(void **state) {
    struct place *p = *state;
    struct ccl_open_options o = plain();
    struct ccl_db *db = open_plain(p);
    put(db, "k", "v");
    ccl_close(db);
    (void)nftw(p->root, remove_log, 16, FTW_PHYS);
    assert_int_equal(open_code(p, &o), CCL_CORRUPT);
}

/* --- forgetting --- */

#define OVERWRITES 300000
#define AT_ONCE    1000

static uint64_t size_of(struct ccl_db *db) {
    (void)pthread_rwlock_rdlock(&db->guarded.lock);
    uint64_t size = store_size(db->store);
    (void)pthread_rwlock_unlock(&db->guarded.lock);
    return size;
}

static uint64_t overwrite(struct ccl_db *db, unsigned n) {
    uint8_t value[200] = {0};
    uint64_t most = 0;
    for (unsigned done = 0; done < n; done += AT_ONCE) {
        struct ccl_txn *t = ccl_txn_new(db);
        for (unsigned i = 0; i < AT_ONCE; i++)
            ccl_txn_put(t, "k", 1, value, sizeof value, NULL);
        assert_int_equal(ccl_txn_commit(t, NULL, NULL, NULL), CCL_OK);
        ccl_txn_free(t);
        if (size_of(db) > most) most = size_of(db);
    }
    return most;
}

static void what_was_overwritten_is_forgotten(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct ccl_iter *iter;
    struct ccl_kv kv = CCL_KV_INIT;
    put(db, "j", "the past");
    put(db, "k", "the past");
    assert_int_equal(ccl_iter_open(db, NULL, 0, NULL, 0, &iter, NULL), CCL_OK);
    put(db, "j", "now");
    assert_true(overwrite(db, OVERWRITES) < 4 * EMBED_HISTORY_MAX);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ccl_iter_next(iter, &kv), 1);
        assert_int_equal(kv.value_size, 8);
        assert_memory_equal(kv.value, "the past", 8);
    }
    assert_int_equal(ccl_iter_next(iter, &kv), 0);
    ccl_iter_free(iter);
    ccl_close(db);
    db = open_plain(*state);
    assert_true(size_of(db) < 4 * EMBED_HISTORY_MAX);
    check_value(db, "j", "now");
    assert_int_equal(count_keys(db, ""), 2);
    ccl_close(db);
}

/* --- many threads --- */

#define WRITERS 8
#define PUTS    40

struct crowd {
    struct ccl_db *db;
    unsigned number; /* of the thread */
    atomic_bool *stop;
    unsigned failures;
};

static void *write_many(void *arg) {
    struct crowd *c = arg;
    for (unsigned i = 0; i < PUTS; i++) {
        char key[32], value[32];
        int key_size = snprintf(key, sizeof key, "w%u/%03u", c->number, i);
        int value_size = snprintf(value, sizeof value, "%u", i);
        struct ccl_result *r = NULL;
        if (ccl_put(c->db, key, (size_t)key_size, value, (size_t)value_size, NULL, NULL, NULL) !=
            CCL_OK)
            c->failures++;
        else if (ccl_get(c->db, key, (size_t)key_size, &r, NULL) != CCL_OK) /* one's own write */
            c->failures++;
        ccl_result_free(r);
    }
    return NULL;
}

/* All keys of a writer that an iterator shows are its first ones: nothing is torn. */
static void *iterate_many(void *arg) {
    struct crowd *c = arg;
    while (!atomic_load(c->stop)) {
        struct ccl_iter *iter;
        struct ccl_kv kv = CCL_KV_INIT;
        unsigned next[WRITERS] = {0};
        if (ccl_iter_open(c->db, NULL, 0, NULL, 0, &iter, NULL) != CCL_OK) {
            c->failures++;
            continue;
        }
        while (ccl_iter_next(iter, &kv)) {
            const char *key = kv.key;
            unsigned writer = (unsigned)(key[1] - '0');
            unsigned i = 0;
            for (size_t d = 3; d < kv.key_size; d++)
                i = i * 10 + (unsigned)(key[d] - '0');
            if (writer >= WRITERS || i != next[writer]++) c->failures++;
        }
        ccl_iter_free(iter);
    }
    return NULL;
}

static void many_threads_put_get_and_iterate_at_once(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct crowd crowd[WRITERS + 2];
    pthread_t threads[WRITERS + 2];
    atomic_bool stop = false;
    for (unsigned i = 0; i < WRITERS + 2; i++) {
        crowd[i] = (struct crowd){.db = db, .number = i, .stop = &stop};
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < WRITERS ? write_many : iterate_many, &crowd[i]),
            0);
    }
    for (unsigned i = 0; i < WRITERS + 2; i++) {
        if (i == WRITERS) atomic_store(&stop, true);
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(crowd[i].failures, 0);
    }
    assert_int_equal(count_keys(db, "w"), WRITERS * PUTS);
    struct ccl_status s = CCL_STATUS_INIT;
    assert_int_equal(ccl_status_get(db, &s, NULL), CCL_OK);
    assert_int_equal(s.revision, 1 + WRITERS * PUTS);
    ccl_close(db);
    db = open_plain(*state);
    assert_int_equal(count_keys(db, "w"), WRITERS * PUTS);
    ccl_close(db);
}

/* --- out of memory, on the caller's side --- */

struct sweep {
    struct ccl_db *db;
    int get, iterate, build; /* outcomes */
};

static void read_and_build(void *ctx) {
    struct sweep *w = ctx;
    struct ccl_result *r = NULL;
    struct ccl_iter *iter = NULL;
    w->get = ccl_get(w->db, "k", 1, &r, NULL);
    ccl_result_free(r);
    w->iterate = ccl_iter_open_prefix(w->db, "k", 1, &iter, NULL);
    ccl_iter_free(iter);
    struct ccl_txn *t = ccl_txn_new(w->db);
    w->build = t == NULL ? CCL_NOMEM : CCL_OK;
    if (t != NULL) ccl_txn_put(t, "k", 1, "v", 1, NULL);
    ccl_txn_free(t);
}

static void no_memory_or_all_well(void *ctx, bool fired) {
    struct sweep *w = ctx;
    const int outcomes[] = {w->get, w->iterate, w->build};
    for (size_t i = 0; i < 3; i++)
        assert_true(outcomes[i] == CCL_OK || (fired && outcomes[i] == CCL_NOMEM));
    check_value(w->db, "k", "v");
}

static void every_failing_allocation_of_a_reader_is_reported(void **state) {
    struct sweep w = {.db = open_plain(*state)};
    put(w.db, "k", "v");
    assert_true(fault_sweep_alloc(read_and_build, no_memory_or_all_well, &w) >= 6);
    ccl_close(w.db);
}

/* --- processes --- */

static void a_forked_child_is_told_and_the_parent_goes_on(void **state) {
    struct ccl_db *db = open_plain(*state);
    struct ccl_iter *iter, *rest;
    put(db, "k", "v");
    assert_int_equal(ccl_iter_open(db, NULL, 0, NULL, 0, &iter, NULL), CCL_OK);
    assert_int_equal(ccl_iter_open(db, NULL, 0, NULL, 0, &rest, NULL), CCL_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct ccl_result *r;
        struct ccl_kv kv = CCL_KV_INIT;
        struct ccl_status s = CCL_STATUS_INIT;
        bool told = ccl_get(db, "k", 1, &r, NULL) == CCL_FORKED &&
                    ccl_put(db, "k", 1, "w", 1, NULL, NULL, NULL) == CCL_FORKED &&
                    ccl_status_get(db, &s, NULL) == CCL_FORKED && ccl_iter_next(iter, &kv) == 0;
        ccl_iter_free(iter);
        ccl_close(db); /* the other iterator outlives it */
        told = told && ccl_iter_next(rest, &kv) == 0;
        ccl_iter_free(rest);
        _exit(told ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check_value(db, "k", "v");
    put(db, "k", "w");
    ccl_iter_free(iter);
    ccl_iter_free(rest);
    ccl_close(db);
    db = open_plain(*state);
    check_value(db, "k", "w");
    ccl_close(db);
}

/* The child acknowledges each write through a pipe until it is killed. */
static void write_until_killed(const struct place *p, int out) {
    struct ccl_open_options o = plain();
    struct ccl_db *db;
    if (ccl_open(p->root, &o, &db, NULL) != CCL_OK) _exit(1);
    for (uint32_t i = 0;; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%08u", i);
        if (ccl_put(db, key, (size_t)size, "v", 1, NULL, NULL, NULL) != CCL_OK) _exit(1);
        if (write(out, &i, sizeof i) != sizeof i) _exit(1);
    }
}

static void what_was_acknowledged_survives_a_kill(void **state) {
    struct place *p = *state;
    int pipe_ends[2], status;
    assert_int_equal(pipe(pipe_ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) write_until_killed(p, pipe_ends[1]);
    (void)close(pipe_ends[1]);
    uint32_t acknowledged = 0, i;
    while (acknowledged < 200 && read(pipe_ends[0], &i, sizeof i) == sizeof i)
        acknowledged++;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    while (read(pipe_ends[0], &i, sizeof i) == sizeof i)
        acknowledged++;
    (void)close(pipe_ends[0]);
    assert_true(acknowledged >= 200);
    struct ccl_db *db = open_plain(p);
    assert_in_range(count_keys(db, ""), acknowledged, acknowledged + 1);
    ccl_close(db);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)
        CASE(what_was_put_is_there_after_reopening),
        CASE(conditions_and_tokens_do_what_they_say),
        CASE(a_transaction_is_all_or_nothing),
        CASE(an_iterator_shows_the_past_and_outlives_the_handle),
        CASE(what_is_out_of_bounds_is_refused),
        CASE(options_of_another_version_are_taken_or_refused_but_never_misread),
        CASE(every_code_has_a_name_and_a_text),
        CASE(only_the_right_key_opens),
        CASE(a_passphrase_opens_too),
        CASE(a_store_is_made_only_when_asked_for),
        CASE(a_directory_has_one_handle_at_a_time),
        CASE(nothing_readable_lies_in_the_directory),
        CASE(a_missing_log_is_an_error_not_an_empty_store),
        CASE(what_was_overwritten_is_forgotten),
        CASE(many_threads_put_get_and_iterate_at_once),
        CASE(every_failing_allocation_of_a_reader_is_reported),
        CASE(a_forked_child_is_told_and_the_parent_goes_on),
        CASE(what_was_acknowledged_survives_a_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
