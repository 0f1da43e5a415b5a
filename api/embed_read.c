/* Reading of an embedded handle, on the caller's thread. A get copies what it finds under the read
 * lock. An iterator takes a view of the store, which stays as it is; the lock is needed only to
 * take the view and to give it back. Iterators hold a reference to the handle, so that they may
 * outlive ccl_close. */
#include "api/embed.h"

#include <stdlib.h>

static void give_kv(struct ccl_kv *out, const struct kv *kv) {
    struct ccl_kv all = {.key = kv->key.at,
                         .key_size = kv->key.size,
                         .value = kv->value.at,
                         .value_size = kv->value.size,
                         .create_revision = kv->create_revision,
                         .mod_revision = kv->mod_revision,
                         .version = kv->version,
                         .lease = kv->lease};
    embed_give(out, &all, sizeof all);
}

/* --- get --- */

struct ccl_result {
    struct kv kv;    /* its spans point into `bytes` */
    uint8_t bytes[]; /* key, value */
};

static struct ccl_result *result_of(const struct kv *kv) {
    struct ccl_result *r = malloc(sizeof *r + kv->key.size + kv->value.size);
    if (r == NULL) return NULL;
    memcpy(r->bytes, kv->key.at, kv->key.size);
    if (kv->value.size != 0) memcpy(r->bytes + kv->key.size, kv->value.at, kv->value.size);
    r->kv = *kv;
    r->kv.key.at = r->bytes;
    r->kv.value.at = r->bytes + kv->key.size;
    return r;
}

int ccl_get(struct ccl_db *db, const void *key, size_t key_size, struct ccl_result **out,
            struct ccl_error *error) {
    int refused = embed_refused(db, error);
    if (refused != CCL_OK) return refused;
    if (key == NULL || key_size == 0 || key_size > KEY_MAX || out == NULL)
        return embed_error(error, ERR_INVALID, "a key has 1 to 4096 bytes");
    struct kv kv;
    struct ccl_result *r = NULL;
    (void)pthread_rwlock_rdlock(&db->guarded.lock);
    bool found = store_get(db->store, span_of(key, key_size), &kv);
    if (found) r = result_of(&kv);
    (void)pthread_rwlock_unlock(&db->guarded.lock);
    if (!found) return embed_error(error, ERR_NOT_FOUND, "there is no such key");
    if (r == NULL) return embed_error(error, ERR_NOMEM, NULL);
    *out = r;
    return embed_error(error, OK, NULL);
}

const void *ccl_result_value(const struct ccl_result *r, size_t *size) {
    if (size != NULL) *size = r->kv.value.size;
    return r->kv.value.at;
}

void ccl_result_kv(const struct ccl_result *r, struct ccl_kv *out) { give_kv(out, &r->kv); }

void ccl_result_free(struct ccl_result *r) { free(r); }

/* --- iterators --- */

struct ccl_iter {
    struct ccl_db *db; /* with a reference */
    struct store_view *view;
    struct store_cursor *cursor;
    size_t end_size;
    uint8_t end[]; /* what the cursor looks at */
};

static RESULT take_view(struct ccl_iter *i) {
    struct ccl_db *db = i->db;
    (void)pthread_rwlock_wrlock(&db->guarded.lock);
    enum err e = store_view_new(db->store, &i->view);
    (void)pthread_rwlock_unlock(&db->guarded.lock);
    if (e != OK) return e;
    (void)pthread_mutex_lock(&db->mutex);
    db->refs++;
    (void)pthread_mutex_unlock(&db->mutex);
    return OK;
}

static void give_view_back(struct ccl_iter *i) {
    (void)pthread_rwlock_wrlock(&i->db->guarded.lock);
    store_view_free(i->view);
    (void)pthread_rwlock_unlock(&i->db->guarded.lock);
    embed_unref(i->db);
}

static RESULT iter_new(struct ccl_db *db, struct span from, struct span end,
                       struct ccl_iter **out) {
    struct ccl_iter *i = malloc(sizeof *i + end.size);
    if (i == NULL) return ERR_NOMEM;
    i->db = db;
    i->end_size = end.size;
    if (end.size != 0) memcpy(i->end, end.at, end.size);
    enum err e = take_view(i);
    if (e == OK) {
        e = store_cursor_new(i->view, from, span_of(i->end, i->end_size), &i->cursor);
        if (e != OK) give_view_back(i);
    }
    if (e != OK) {
        free(i);
        return e;
    }
    *out = i;
    return OK;
}

int ccl_iter_open(struct ccl_db *db, const void *from, size_t from_size, const void *end,
                  size_t end_size, struct ccl_iter **out, struct ccl_error *error) {
    int refused = embed_refused(db, error);
    if (refused != CCL_OK) return refused;
    if (from_size > KEY_MAX || end_size > KEY_MAX || (from_size != 0 && from == NULL) ||
        (end_size != 0 && end == NULL) || out == NULL)
        return embed_error(error, ERR_INVALID, "a bound has at most 4096 bytes");
    enum err e = iter_new(db, span_of(from, from_size), span_of(end, end_size), out);
    return embed_error(error, e, NULL);
}

int ccl_iter_open_prefix(struct ccl_db *db, const void *prefix, size_t prefix_size,
                         struct ccl_iter **out, struct ccl_error *error) {
    uint8_t end[KEY_MAX];
    if (prefix_size > KEY_MAX || (prefix_size != 0 && prefix == NULL))
        return embed_error(error, ERR_INVALID, "a prefix has at most 4096 bytes");
    size_t end_size = store_prefix_end(span_of(prefix, prefix_size), end);
    return ccl_iter_open(db, prefix, prefix_size, end, end_size, out, error);
}

int ccl_iter_next(struct ccl_iter *iter, struct ccl_kv *out) {
    struct kv kv;
    if (embed_forked(iter->db) || !store_cursor_next(iter->cursor, &kv)) return 0;
    give_kv(out, &kv);
    return 1;
}

uint64_t ccl_iter_revision(const struct ccl_iter *iter) { return store_view_revision(iter->view); }

void ccl_iter_free(struct ccl_iter *iter) {
    if (iter == NULL) return;
    store_cursor_free(iter->cursor);
    if (embed_forked(iter->db))
        embed_unref(iter->db);
    else
        give_view_back(iter);
    free(iter);
}
