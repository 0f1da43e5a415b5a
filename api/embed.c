/* An embedded handle from outside: opening a directory or making a store in it, closing, status,
 * and what crosses the border: structs that start with their size, and errors.
 *
 * A store is made in steps, each durable before the next: the keyring; in it the identity, marked
 * "making"; the log's first entry; the identity again, marked "made". A crash in between leaves a
 * store that the next ccl_open with CCL_CREATE finishes. The identity in the keyring, 69 bytes:
 * "CCL embedded 1\0\0", 26 bytes cluster id and 26 bytes node id with their NULs, u8 0 (making) or
 * 1 (made). */
#include "api/embed.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/secret.h"

_Static_assert(CCL_KEY_MAX == KEY_MAX && CCL_VALUE_MAX == VALUE_MAX && CCL_TXN_MAX == BATCH_MAX,
               "the header says what the limits are");

#define OPEN_TIMEOUT_MS 60000
#define IDENTITY_MAGIC  "CCL embedded 1\0"
#define IDENTITY_SIZE   (16 + CLUSTER_ID_SIZE + 1 + NODE_ID_SIZE + 1 + 1)

/* --- errors --- */

static const struct {
    enum err error;
    enum ccl_code code;
    uint32_t flags;
    const char *name;
} codes[] = {
    {OK, CCL_OK, 0, "CCL_OK"},
    {ERR_NOMEM, CCL_NOMEM, CCL_RETRY, "CCL_NOMEM"},
    {ERR_INVALID, CCL_INVALID, 0, "CCL_INVALID"},
    {ERR_TOO_LARGE, CCL_TOO_LARGE, 0, "CCL_TOO_LARGE"},
    {ERR_NOT_FOUND, CCL_NOT_FOUND, 0, "CCL_NOT_FOUND"},
    {ERR_EXISTS, CCL_EXISTS, 0, "CCL_EXISTS"},
    {ERR_PRECONDITION, CCL_PRECONDITION, 0, "CCL_PRECONDITION"},
    {ERR_UNSUPPORTED, CCL_UNSUPPORTED, 0, "CCL_UNSUPPORTED"},
    {ERR_IO, CCL_IO, 0, "CCL_IO"},
    {ERR_NOSPACE, CCL_NOSPACE, CCL_RETRY, "CCL_NOSPACE"},
    {ERR_READONLY, CCL_READONLY, 0, "CCL_READONLY"},
    {ERR_CORRUPT, CCL_CORRUPT, 0, "CCL_CORRUPT"},
    {ERR_LOCKED, CCL_LOCKED, 0, "CCL_LOCKED"},
    {ERR_WRONG_KEY, CCL_WRONG_KEY, 0, "CCL_WRONG_KEY"},
    {ERR_IN_USE, CCL_IN_USE, CCL_RETRY, "CCL_IN_USE"},
    {ERR_BUSY, CCL_BUSY, CCL_RETRY, "CCL_BUSY"},
    {ERR_TIMEOUT, CCL_TIMEOUT, CCL_RETRY, "CCL_TIMEOUT"},
    {ERR_MAYBE_APPLIED, CCL_MAYBE_APPLIED, CCL_MAYBE, "CCL_MAYBE_APPLIED"},
    {ERR_NO_LEADER, CCL_NO_LEADER, CCL_RETRY, "CCL_NO_LEADER"},
    {ERR_NOT_LEADER, CCL_NOT_LEADER, CCL_RETRY | CCL_ELSEWHERE, "CCL_NOT_LEADER"},
    {ERR_CLOSED, CCL_CLOSED, 0, "CCL_CLOSED"},
    {ERR_PERMISSION, CCL_PERMISSION, 0, "CCL_PERMISSION"},
    {ERR_DIVERGED, CCL_DIVERGED, 0, "CCL_DIVERGED"},
    {ERR_INTERNAL, CCL_INTERNAL, 0, "CCL_INTERNAL"}, /* last: stands for all others */
};

const char *ccl_version(void) { return CONCLAVE_VERSION; }

const char *ccl_strerror(int code) {
    if (code == CCL_FORKED) return "the handle was opened in another process";
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
        if ((int)codes[i].code == code) return err_text(codes[i].error);
    return "unknown error";
}

const char *ccl_code_name(int code) {
    if (code == CCL_FORKED) return "CCL_FORKED";
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
        if ((int)codes[i].code == code) return codes[i].name;
    return "unknown";
}

static size_t row_of(enum err e) {
    size_t row = 0;
    while (row < ARRAY_SIZE(codes) - 1 && codes[row].error != e)
        row++;
    return row;
}

RESULT embed_take(void *into, size_t known, const void *from) {
    uint32_t size;
    memset(into, 0, known);
    if (from == NULL) return OK;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size) return ERR_INVALID;
    for (size_t i = known; i < size; i++)
        if (((const uint8_t *)from)[i] != 0) return ERR_UNSUPPORTED;
    memcpy(into, from, size < known ? size : known);
    return OK;
}

void embed_give(void *to, const void *from, size_t known) {
    uint32_t size;
    if (to == NULL) return;
    memcpy(&size, to, sizeof size);
    size_t most = size < known ? size : known;
    if (most <= sizeof size) return;
    memcpy((uint8_t *)to + sizeof size, (const uint8_t *)from + sizeof size, most - sizeof size);
    if (size > known) memset((uint8_t *)to + known, 0, size - known);
}

static int fill_error(struct ccl_error *error, int code, uint32_t flags, const char *text) {
    struct ccl_error out = {.code = code, .flags = flags};
    if (code != CCL_OK) (void)snprintf(out.text, sizeof out.text, "%s", text);
    embed_give(error, &out, sizeof out);
    return code;
}

int embed_error(struct ccl_error *error, enum err e, const char *text) {
    size_t row = row_of(e);
    if (text == NULL || text[0] == '\0') text = err_text(e);
    return fill_error(error, (int)codes[row].code, codes[row].flags, text);
}

int embed_error_forked(struct ccl_error *error) {
    return fill_error(error, CCL_FORKED, CCL_FATAL, ccl_strerror(CCL_FORKED));
}

int embed_error_of(struct ccl_db *db, struct ccl_error *error, enum err e, const char *text) {
    if (!atomic_load(&db->dead)) return embed_error(error, e, text);
    char reason[WHY_MAX];
    (void)pthread_mutex_lock(&db->mutex);
    enum err failed = db->failed;
    memcpy(reason, db->text, sizeof reason);
    (void)pthread_mutex_unlock(&db->mutex);
    if (e == ERR_MAYBE_APPLIED) failed = e;
    return fill_error(error, (int)codes[row_of(failed)].code,
                      (e == ERR_MAYBE_APPLIED ? CCL_MAYBE : 0) | CCL_FATAL, reason);
}

int embed_refused(struct ccl_db *db, struct ccl_error *error) {
    if (db == NULL) return embed_error(error, ERR_INVALID, "no handle");
    if (embed_forked(db)) return embed_error_forked(error);
    if (atomic_load_explicit(&db->dead, memory_order_relaxed))
        return embed_error_of(db, error, ERR_CLOSED, NULL);
    return CCL_OK;
}

/* --- fork --- */

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* A page that the kernel zeroes in a forked child: to look at it costs nothing. */
static void watch_forks(struct ccl_db *db) {
    db->pid = getpid();
    uint32_t *page = aligned_alloc(page_size(), page_size());
    if (page == NULL || madvise(page, page_size(), MADV_WIPEONFORK) != 0) {
        free(page);
        return;
    }
    *page = 1;
    db->alive = page;
}

static void unwatch_forks(struct ccl_db *db) {
    uint32_t *page = db->alive;
    if (page != NULL) (void)madvise(page, page_size(), MADV_KEEPONFORK);
    free(page);
    db->alive = NULL;
}

bool embed_forked(const struct ccl_db *db) {
    if (db->alive != NULL) return *(volatile uint32_t *)db->alive == 0;
    return getpid() != db->pid;
}

/* --- opening --- */

static RESULT check_options(const struct ccl_open_options *from, struct ccl_open_options *o,
                            struct why *why) {
    if (embed_take(o, sizeof *o, from) != OK || o->api_version > CCL_API_VERSION ||
        (o->flags & ~CCL_CREATE) != 0 || o->reserved != 0 || o->key_kind > CCL_KEY_BYTES)
        return fail_with(why, ERR_UNSUPPORTED,
                         "the options ask for what this library (API %d) does not know",
                         CCL_API_VERSION);
    size_t least = o->key_kind == CCL_KEY_PASSPHRASE ? 1 : KEY_SIZE;
    size_t most = o->key_kind == CCL_KEY_PASSPHRASE ? PASSPHRASE_MAX : KEY_SIZE;
    if (o->key_kind == CCL_KEY_PLAIN) least = most = 0;
    if (o->key_size < least || o->key_size > most || (o->key_size != 0 && o->key == NULL))
        return fail_with(why, ERR_INVALID, "the key is %zu bytes long, not %zu to %zu", o->key_size,
                         least, most);
    return OK;
}

static RESULT check_directory(const char *path, const struct ccl_open_options *o, struct why *why) {
    struct stat s;
    if (path == NULL || path[0] == '\0') return fail_with(why, ERR_INVALID, "no path");
    if ((o->flags & CCL_CREATE) != 0 || stat(path, &s) == 0) return OK;
    return fail_with(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
}

static RESULT open_keys(struct ccl_db *db, const struct ccl_open_options *o, struct why *why) {
    static const enum kek_kind kinds[] = {KEK_PLAIN, KEK_PASSPHRASE, KEK_FILE};
    struct secret *key = NULL;
    if (o->key_size != 0) TRY(secret_new(o->key, o->key_size, &key));
    struct kek kek = {.kind = kinds[o->key_kind], .key = key};
    enum err e = keyring_open(db->disk, kek, &db->keys, why);
    if (e == ERR_NOT_FOUND && (o->flags & CCL_CREATE) != 0)
        e = keyring_create(db->disk, kek, &db->keys, why);
    secret_free(key);
    return e;
}

static RESULT save_identity(struct ccl_db *db, bool made, struct why *why) {
    uint8_t raw[IDENTITY_SIZE] = IDENTITY_MAGIC;
    struct secret *s;
    memcpy(raw + 16, db->config.identity.cluster_id, CLUSTER_ID_SIZE + 1);
    memcpy(raw + 16 + CLUSTER_ID_SIZE + 1, db->config.identity.node_id, NODE_ID_SIZE + 1);
    raw[IDENTITY_SIZE - 1] = made;
    TRY(secret_new(raw, sizeof raw, &s));
    enum err e = keyring_set_identity(db->keys, s, why);
    secret_free(s);
    return e;
}

static RESULT load_identity(struct ccl_db *db, struct span raw, struct why *why) {
    if (raw.size != IDENTITY_SIZE || memcmp(raw.at, IDENTITY_MAGIC, 16) != 0)
        return fail_with(why, ERR_UNSUPPORTED, "the directory belongs to a server");
    memcpy(db->config.identity.cluster_id, raw.at + 16, CLUSTER_ID_SIZE);
    memcpy(db->config.identity.node_id, raw.at + 16 + CLUSTER_ID_SIZE + 1, NODE_ID_SIZE);
    db->bootstrap = raw.at[IDENTITY_SIZE - 1] == 0;
    return OK;
}

static RESULT open_identity(struct ccl_db *db, const struct ccl_open_options *o, struct why *why) {
    const struct secret *s = keyring_identity(db->keys);
    if (s != NULL) TRY(load_identity(db, secret_span(s), why));
    if (s != NULL && !db->bootstrap) return OK;
    if ((o->flags & CCL_CREATE) == 0)
        return fail_with(why, ERR_NOT_FOUND, "making the store was never finished");
    if (s != NULL) return OK;
    random_id(db->config.identity.cluster_id);
    random_id(db->config.identity.node_id);
    db->bootstrap = true;
    return save_identity(db, false, why);
}

static void set_config(struct ccl_db *db) {
    db->config.raft_id = 1;
    db->config.alg = seal_fastest();
    db->config.election_ms = ELECTION_TIMEOUT_MS;
    db->config.heartbeat_ms = HEARTBEAT_MS;
    db->config.seed = (unsigned)random_u64();
    db->config.segment_size = SEGMENT_SIZE;
    db->config.snapshot_log_min = SNAPSHOT_LOG_MIN;
}

static RESULT open_all(struct ccl_db *db, const char *path, const struct ccl_open_options *o,
                       struct why *why) {
    TRY(disk_real_open(path, &db->disk, why));
    TRY(open_keys(db, o, why));
    TRY(open_identity(db, o, why));
    set_config(db);
    TRY(store_new(&db->store));
    TRY(guarded_start(&db->guarded, store_machine(db->store)));
    TRY(embed_run(db, why));
    if (!db->bootstrap) return OK;
    enum err e = save_identity(db, true, why);
    if (e != OK) embed_stop(db);
    return e;
}

static RESULT new_handle(const struct ccl_open_options *o, struct ccl_db **out) {
    struct ccl_db *db = calloc(1, sizeof *db);
    if (db == NULL) return ERR_NOMEM;
    if (pthread_mutex_init(&db->mutex, NULL) != 0) {
        free(db);
        return ERR_NOMEM;
    }
    db->log = o->log;
    db->log_ctx = o->log_ctx;
    db->open_timeout_ms = o->timeout_ms != 0 ? o->timeout_ms : OPEN_TIMEOUT_MS;
    db->inbox_tail = &db->inbox;
    db->refs = 1;
    watch_forks(db);
    *out = db;
    return OK;
}

static void close_files(struct ccl_db *db) {
    if (db->keys != NULL) keyring_close(db->keys);
    if (db->disk != NULL) disk_real_close(db->disk);
    db->keys = NULL;
    db->disk = NULL;
}

static RESULT open_handle(const char *path, const struct ccl_open_options *options,
                          struct ccl_db **out, struct why *why) {
    struct ccl_open_options o;
    struct ccl_db *db;
    TRY(crypto_start(why));
    TRY(check_options(options, &o, why));
    TRY(check_directory(path, &o, why));
    TRY(new_handle(&o, &db));
    enum err e = open_all(db, path, &o, why);
    if (e != OK) {
        close_files(db);
        embed_unref(db);
        return e;
    }
    *out = db;
    return OK;
}

int ccl_open(const char *path, const struct ccl_open_options *options, struct ccl_db **out,
             struct ccl_error *error) {
    struct why why = {0};
    if (out == NULL) return embed_error(error, ERR_INVALID, "nowhere to put the handle");
    *out = NULL;
    return embed_error(error, open_handle(path, options, out, &why), why.text);
}

/* --- closing --- */

/* In a forked child the handle's threads are not there, its locks may be held for ever, its secrets
 * are wiped, and the store may be half way through a change: it stays as it is. */
static bool last_ref(struct ccl_db *db) {
    if (embed_forked(db)) return --db->refs == 0;
    (void)pthread_mutex_lock(&db->mutex);
    unsigned left = --db->refs;
    (void)pthread_mutex_unlock(&db->mutex);
    if (left > 0) return false;
    store_free(db->store);
    if (db->guarded.inner != NULL) guarded_end(&db->guarded);
    (void)pthread_mutex_destroy(&db->mutex);
    return true;
}

void embed_unref(struct ccl_db *db) {
    if (!last_ref(db)) return;
    unwatch_forks(db);
    free(db);
}

void ccl_close(struct ccl_db *db) {
    if (db == NULL) return;
    if (embed_forked(db)) {
        /* The descriptors of the directory and its lock are ours to close: the parent keeps its
         * own. */
        disk_real_close(db->disk);
        embed_unref(db);
        return;
    }
    embed_stop(db);
    close_files(db);
    embed_unref(db);
}

/* --- status --- */

int ccl_status_get(struct ccl_db *db, struct ccl_status *out, struct ccl_error *error) {
    int refused = embed_refused(db, error);
    if (refused != CCL_OK) return refused;
    struct embed_op op = {.kind = EMBED_STATUS};
    embed_do(db, &op);
    if (op.error != OK) return embed_error_of(db, error, op.error, NULL);
    struct ccl_status s = {.leading = op.status.leading,
                           .applied = op.status.applied,
                           .log_bytes = op.status.log_bytes,
                           .snapshot = op.status.snapshot_index};
    (void)pthread_rwlock_rdlock(&db->guarded.lock);
    s.revision = store_revision(db->store);
    s.keys = store_keys(db->store);
    s.bytes = store_bytes(db->store);
    (void)pthread_rwlock_unlock(&db->guarded.lock);
    embed_give(out, &s, sizeof s);
    return embed_error(error, OK, NULL);
}
