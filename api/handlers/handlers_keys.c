/* Keys: unlocking, autolock, rotation, client certificates; and the backup's stream.
 * Bodies that carry a key are wiped. */
#include "api/api.h"
#include "api/backup.h"
#include "api/ca/authority.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/etcd/lookout.h"
#include "api/etcd/watch.h"
#include "api/rpc/rpcs.h"

/* --- unlock --------------------------------------------------------------------------------- */

/* {"key": "SWMKEY-1-..."} or {"passphrase": "..."} or {"key_file": base64 of the key}. */
static RESULT parse_unlock(const json_t *body, enum kek_kind *kind, struct secret **out,
                           struct why *why) {
    const char *text = jin_string(body, "key"), *phrase = jin_string(body, "passphrase");
    if (text[0]) {
        *kind = KEK_UNLOCK_KEY;
        return unlock_key_parse(text, out, why);
    }
    if (phrase[0]) {
        *kind = KEK_PASSPHRASE;
        return secret_new(phrase, strlen(phrase), out);
    }
    struct buf bytes = buf_new(KEY_SIZE);
    *kind = KEK_FILE;
    enum err e = jin_bytes(body, "key_file", &bytes, why);
    if (e == OK && bytes.size != KEY_SIZE)
        e = fail_with(why, ERR_INVALID, "there is no key in the request");
    if (e == OK) e = secret_new(bytes.at, bytes.size, out);
    buf_wipe(&bytes);
    return e;
}

void handle_unlock(struct exchange *x) {
    struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    enum kek_kind kind = KEK_PLAIN;
    struct secret *key = NULL;
    if (!api_body(x, &body)) return;
    enum err e = parse_unlock(body, &kind, &key, &why);
    jin_wipe(body);
    json_decref(body);
    sodium_memzero((uint8_t *)(uintptr_t)x->body.at,
                   x->body.size); /* the connection's own buffer */
    if (e == OK) e = manager_unlock(api->manager, key, kind, &why);
    secret_free(key);
    if (e == OK)
        exchange_answer(x, 200, "application/json", span_str("{}"));
    else
        api_fail(x, e, &why);
}

/* --- the client port's own certificates ------------------------------------------------------ */

void handle_reload(struct exchange *x) {
    struct api *api = x->ctx;
    struct why why = {0};
    enum err e = api->reload(api, &why);
    if (e == OK)
        exchange_answer(x, 200, "application/json", span_str("{}"));
    else
        api_fail(x, e, &why);
}

/* --- autolock ------------------------------------------------------------------------------- */

static void answer_text(struct exchange *x, const char *key, const char *text) {
    struct buf out = buf_new(4 * KIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, key, text);
    jout_close(&j, '}');
    if (jout_end(&j) == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_wipe(&out);
}

static void answer_key(struct exchange *x, const struct secret *key) {
    char text[UNLOCK_KEY_TEXT] = "";
    if (key && unlock_key_format(key, text) != OK) text[0] = 0;
    answer_text(x, "unlock_key", text);
    sodium_memzero(text, sizeof text);
}

static void answer_lock(struct exchange *x, const struct result *r, const struct secret *key) {
    (void)r;
    answer_key(x, key);
}

/* A new key in the place of the one that stands now: of several at once one is answered its key,
 * and the others that somebody else was faster. */
static void write_lock(struct exchange *x) {
    const struct api *api = x->ctx;
    struct secret *key = NULL, *copy = NULL; /* the copy is for the answer */
    uint8_t stands[LOCK_DIGEST_SIZE];
    cluster_lock_digest(store_cluster(api->manager->store), stands);
    enum err e = secret_random(KEY_SIZE, &key);
    if (e == OK) e = secret_copy(key, &copy);
    if (e == OK) {
        struct command c = {.op = OP_LOCK, .unlock_key = secret_span(key)};
        c.lock_replaces = span_of(stands, sizeof stands);
        api_write(x, &c, answer_lock, copy);
    } else {
        exchange_error(x, e, NULL);
    }
    secret_free(key);
}

static void unlock(struct exchange *x) {
    struct command c = {.op = OP_LOCK};
    api_write(x, &c, answer_lock, NULL);
}

static void lock(struct exchange *x) {
    const struct api *api = x->ctx;
    const struct secret *key = store_cluster(api->manager->store)->unlock_key;
    if (key)
        answer_key(x, key);
    else
        write_lock(x);
}

static void show_key(struct exchange *x) {
    const struct api *api = x->ctx;
    answer_key(x, store_cluster(api->manager->store)->unlock_key);
}

static void rotate_key(struct exchange *x) {
    const struct api *api = x->ctx;
    if (store_cluster(api->manager->store)->unlock_key)
        write_lock(x);
    else
        exchange_error(x, ERR_PRECONDITION,
                       "autolock is off: there is no unlock key; `conclave lock` makes one");
}

/* {"off": true}, or nothing to lock. Locking a locked cluster gives the key that it has. */
void handle_lock(struct exchange *x) {
    json_t *body;
    struct why why = {0};
    bool off = false;
    if (!api_ready(x) || !api_body(x, &body)) return;
    enum err e = jin_bool(body, "off", &off, &why);
    json_decref(body);
    if (e != OK)
        api_fail(x, e, &why);
    else if (off)
        unlock(x);
    else
        api_current(x, lock);
}

void handle_unlock_key(struct exchange *x) { api_current(x, show_key); }

static void show_backup_key(struct exchange *x) {
    const struct api *api = x->ctx;
    struct secret *key = NULL;
    char text[BACKUP_KEY_TEXT];
    enum err e = backup_cluster_key(store_cluster(api->manager->store), &key);
    if (e == OK) e = backup_key_format(key, text);
    secret_free(key);
    if (e == OK)
        answer_text(x, "backup_key", text);
    else
        exchange_error(x, e, NULL);
    sodium_memzero(text, sizeof text);
}

void handle_backup_key(struct exchange *x) { api_current(x, show_backup_key); }

void handle_unlock_key_rotate(struct exchange *x) { api_current(x, rotate_key); }

/* --- data keys ------------------------------------------------------------------------------ */

static void on_resealed(void *ctx, enum err e) {
    struct exchange *x = ctx;
    const struct api *api = x->ctx;
    if (e != OK || !api->manager->keys) {
        exchange_error(x, e == OK ? ERR_CLOSED : e, NULL);
        return;
    }
    char text[16];
    (void)snprintf(text, sizeof text, "%u", keyring_generation(api->manager->keys));
    answer_text(x, "generation", text);
}

void handle_keys_rotate(struct exchange *x) {
    struct api *api = x->ctx;
    struct why why = {0};
    if (!api_ready(x)) return;
    enum err e = reseal_start(api->manager, on_resealed, x, &why);
    if (e != OK) api_fail(x, e, &why);
}

/* --- client certificates -------------------------------------------------------------------- */

static RESULT sign(const struct manager *m, const json_t *body, struct buf *cert, struct why *why) {
    const struct cluster *c = store_cluster(m->store);
    struct x509_subject subject = {0};
    bool admin = false;
    const char *request = jin_string(body, "request");
    TRY(jin_text(body, "name", subject.cn, sizeof subject.cn, why));
    TRY(jin_bool(body, "admin", &admin, why));
    TRY(name_check(subject.cn, why));
    if (!c->initialised) return fail_with(why, ERR_BUSY, "the cluster is being founded; try again");
    (void)snprintf(subject.ou, sizeof subject.ou, "%s", admin ? ROLE_ADMIN : ROLE_CLIENT);
    (void)snprintf(subject.o, sizeof subject.o, "%s", c->id);
    int64_t now_s = m->clock.wall_s((struct clock *)(uintptr_t)&m->clock);
    return authority_sign_client(c, span_str(request), &subject, now_s, cert, why);
}

static void answer_certificate(struct exchange *x, const struct manager *m, struct buf *cert) {
    struct buf out = buf_new(4 * PEM_MAX), roots = buf_new(3 * PEM_MAX);
    struct jout j;
    enum err e = authority_client_roots(m, &roots);
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_key(&j, "certificate");
    jout_text(&j, buf_span(cert));
    jout_key(&j, "root");
    jout_text(&j, buf_span(&roots));
    jout_put_text(&j, "endpoint", m->self.client_address);
    jout_close(&j, '}');
    if (e == OK) e = jout_end(&j);
    if (e == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
    buf_free(&roots);
    buf_free(&out);
}

/* {"name", "request": PEM, "admin"}: the key stays with the one who asks. */
void handle_certificate(struct exchange *x) {
    const struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    struct buf cert = buf_new(PEM_MAX);
    if (!api_ready(x) || !api_body(x, &body)) return;
    enum err e = sign(api->manager, body, &cert, &why);
    json_decref(body);
    if (e == OK)
        answer_certificate(x, api->manager, &cert);
    else
        api_fail(x, e, &why);
    buf_free(&cert);
}

/* --- backup --------------------------------------------------------------------------------- */

/* The stream: 32 bytes state hash, u64 revision, u64 index, then the state as the machine
 * serialises it. */
struct stream {
    struct exchange *x;
    struct stream *next; /* in api->streams */
    struct machine *machine;
    struct machine_view *view;
    struct buf piece;
};

static void stream_free(struct stream *s) {
    struct api *api = s->x->ctx;
    struct stream **at = &api->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->machine->view_free(s->view);
    buf_wipe(&s->piece);
    free(s);
}

static void stream_end(struct stream *s, bool whole) {
    struct exchange *x = s->x;
    x->drained = NULL;
    stream_free(s);
    exchange_end(x, whole);
}

static void pump(struct exchange *x) {
    struct stream *s = x->stream;
    bool done = false;
    enum err e = x->gone ? ERR_CLOSED : OK;
    while (e == OK && !done) {
        buf_clear(&s->piece);
        e = s->machine->view_next(s->view, &s->piece, &done);
        if (e == OK && s->piece.size > 0) e = exchange_write(x, buf_span(&s->piece));
        if (e == ERR_BUSY && done) e = OK;
    }
    if (e != ERR_BUSY) stream_end(s, e == OK); /* ERR_BUSY: `drained` goes on */
}

void api_stop(struct api *api) {
    api_stop_transfers(api);
    if (api->rpcs) rpcs_stop(api->rpcs);
    for (struct stream *s = api->streams, *next; s; s = next) {
        next = s->next;
        stream_end(s, false);
    }
    lookouts_stop(api);
    watches_stop(api);
}

static RESULT stream_head(const struct manager *m, struct stream *s) {
    struct replica_status status;
    uint8_t hash[STATE_HASH_SIZE];
    replica_status(m->replica, &status);
    s->machine->view_hash(s->view, hash);
    TRY(buf_add(&s->piece, hash, sizeof hash));
    TRY(buf_u64(&s->piece, store_revision(m->store)));
    return buf_u64(&s->piece, status.applied);
}

/* A backup holds all that was acknowledged before it was asked for, whichever member makes it. */
static void begin_stream(struct exchange *x) {
    struct api *api = x->ctx;
    struct manager *m = api->manager;
    struct stream *s = calloc(1, sizeof *s);
    enum err e = s ? m->machine.view(&m->machine, &s->view) : ERR_NOMEM;
    if (e != OK) {
        free(s);
        exchange_error(x, e, NULL);
        return;
    }
    s->x = x;
    s->machine = &m->machine;
    s->piece = buf_new(2 * SNAPSHOT_CHUNK + 4 * COMMAND_MAX);
    s->next = api->streams;
    api->streams = s;
    x->stream = s;
    x->drained = pump;
    e = exchange_stream(x, "application/octet-stream");
    if (e == OK) e = stream_head(m, s);
    if (e == OK) e = exchange_write(x, buf_span(&s->piece));
    if (e == OK || e == ERR_BUSY)
        pump(x);
    else
        stream_end(s, false);
}

void handle_backup(struct exchange *x) { api_current(x, begin_stream); }
