/* Keys and values under the paths and in the JSON of etcd's gateway (reference: etcd v3): bytes are
 * base64, 64-bit integers are strings, zero values are omitted. What needs the history of keys (a
 * past revision, prev_kv) is refused until the store has it. A range that passes RANGE_BYTES_MAX is
 * cut with "more": true; the caller goes on behind the last key.
 *
 * Beyond etcd: the header Idempotency-Key makes a write that is sent twice happen once;
 * must_not_exist and mod_revision make a put conditional. */
#include "api/api.h"

#include <stdlib.h>

#define ANSWER_MAX (8 * MIB)

/* --- shared --------------------------------------------------------------------------------- */

void api_fail(struct exchange *x, enum err e, const struct why *why) {
    exchange_error(x, e, why && why->text[0] ? why->text : NULL);
}

bool api_body(struct exchange *x, json_t **out) {
    struct why why = {0};
    enum err e = jin_parse(x->body, out, &why);
    if (e != OK) api_fail(x, e, &why);
    return e == OK;
}

bool api_ready(struct exchange *x) {
    const struct api *api = x->ctx;
    struct why why = {0};
    enum err e = manager_ready(api->manager, &why);
    if (e != OK) api_fail(x, e, &why);
    return e == OK;
}

void api_header(struct jout *j, const struct api *api) {
    const struct manager *m = api->manager;
    struct replica_status status = {0};
    uint8_t id[8];
    (void)crypto_generichash(id, 16 > sizeof id ? sizeof id : 16,
                             (const uint8_t *)m->self.cluster_id, strlen(m->self.cluster_id), NULL,
                             0);
    if (m->replica) replica_status(m->replica, &status);
    jout_key(j, "header");
    jout_open(j, '{');
    jout_put_quoted(j, "cluster_id", get_u64(id));
    jout_put_quoted(j, "member_id", m->self.raft_id);
    jout_put_quoted(j, "revision", m->store ? store_revision(m->store) : 0);
    jout_put_quoted(j, "raft_term", status.term);
    jout_close(j, '}');
}

static int hex(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

RESULT api_token(const struct exchange *x, struct command *c, struct why *why) {
    const struct http_header *h = http_find(&x->head, "idempotency-key");
    if (!h) return OK;
    bool good = h->value.size == 2 * TOKEN_SIZE;
    for (size_t i = 0; good && i < TOKEN_SIZE; i++) {
        int high = hex(h->value.at[2 * i]), low = hex(h->value.at[2 * i + 1]);
        good = high >= 0 && low >= 0;
        c->token[i] = (uint8_t)(good ? high * 16 + low : 0);
    }
    if (!good)
        return fail_with(why, ERR_INVALID,
                         "Idempotency-Key is not 32 lower-case hexadecimal digits");
    c->has_token = true;
    return OK;
}

struct api_write {
    struct write write;
    struct exchange *x;
    api_written *done;
    void *data;
};

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct api_write *aw = w->ctx;
    struct api *api = aw->x->ctx;
    if (e == OK && r->error != OK) {
        e = r->error;
        text = "";
    }
    if (e == OK) {
        aw->done(aw->x, r, aw->data);
    } else {
        api->figures.failed++;
        exchange_error(aw->x, e, text);
    }
    free(aw);
}

static RESULT submit(struct api_write *aw, const struct command *c) {
    struct api *api = aw->x->ctx;
    aw->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = aw};
    enum err e = command_encode(c, &aw->write.command);
    if (e == OK) return manager_write(api->manager, &aw->write);
    buf_wipe(&aw->write.command);
    return e;
}

void api_write(struct exchange *x, const struct command *c, api_written *done, void *data) {
    struct api *api = x->ctx;
    if (!api_ready(x)) return;
    struct api_write *aw = calloc(1, sizeof *aw);
    if (!aw) {
        exchange_error(x, ERR_NOMEM, NULL);
        return;
    }
    *aw = (struct api_write){.x = x, .done = done, .data = data};
    enum err e = submit(aw, c);
    if (e == OK) return; /* on_written frees it */
    api->figures.failed++;
    free(aw);
    exchange_error(x, e, NULL);
}

struct current {
    struct read read;
    struct exchange *x;
    void (*then)(struct exchange *x);
};

static void on_confirmed(struct read *read, enum err e) {
    struct current *c = read->ctx;
    struct exchange *x = c->x;
    void (*then)(struct exchange * x) = c->then;
    free(c);
    if (e == OK)
        then(x);
    else
        exchange_error(x, e, e == ERR_TIMEOUT ? "no leader confirmed the read in time" : NULL);
}

void api_current(struct exchange *x, void (*then)(struct exchange *x)) {
    const struct api *api = x->ctx;
    if (!api_ready(x)) return;
    struct current *c = calloc(1, sizeof *c);
    enum err e = ERR_NOMEM;
    if (c) {
        *c = (struct current){.x = x, .then = then};
        c->read = (struct read){.done = on_confirmed, .ctx = c};
        e = replica_read(api->manager->replica, &c->read);
        if (e == OK) return;
    }
    free(c);
    exchange_error(x, e, NULL);
}

/* --- put ------------------------------------------------------------------------------------ */

static void answer_header(struct exchange *x, const struct result *r, void *data) {
    (void)data;
    struct buf out = buf_new(4 * KIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    api_header(&j, x->ctx);
    jout_put_quoted(&j, "deleted", r->deleted);
    jout_close(&j, '}');
    if (jout_end(&j) == OK)
        exchange_json(x, &out);
    else
        exchange_error(x, ERR_NOMEM, NULL);
}

static RESULT refuse_fields(const json_t *body, const char *const *fields, struct why *why) {
    for (; *fields; fields++) {
        const json_t *value = json_object_get(body, *fields);
        bool unset = !value || json_is_false(value) || json_is_null(value) ||
                     (json_is_integer(value) && json_integer_value(value) == 0) ||
                     (json_is_string(value) && (strcmp(json_string_value(value), "0") == 0 ||
                                                strcmp(json_string_value(value), "NONE") == 0));
        if (!unset) return fail_with(why, ERR_UNSUPPORTED, "%s is not supported yet", *fields);
    }
    return OK;
}

static RESULT take_key(const json_t *body, struct buf *key, struct why *why) {
    TRY(jin_bytes(body, "key", key, why));
    if (key->size == 0) return fail_with(why, ERR_INVALID, "etcdserver: key is not provided");
    return OK;
}

static RESULT parse_put(const struct exchange *x, const json_t *body, struct buf *key,
                        struct buf *value, struct command *c, struct why *why) {
    static const char *const later[] = {"lease", "prev_kv", "ignore_value", "ignore_lease", NULL};
    c->op = OP_PUT;
    TRY(refuse_fields(body, later, why));
    TRY(take_key(body, key, why));
    TRY(jin_bytes(body, "value", value, why));
    TRY(jin_bool(body, "must_not_exist", &c->put.must_not_exist, why));
    TRY(jin_u64(body, "mod_revision", &c->put.mod_revision, why));
    TRY(api_token(x, c, why));
    c->put.key = buf_span(key);
    c->put.value = buf_span(value);
    return OK;
}

void handle_put(struct exchange *x) {
    struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    struct buf key = buf_new(KEY_MAX), value = buf_new(VALUE_MAX);
    struct command c = {0};
    api->figures.puts++;
    if (!api_body(x, &body)) return;
    enum err e = parse_put(x, body, &key, &value, &c, &why);
    if (e == OK)
        api_write(x, &c, answer_header, NULL);
    else
        api_fail(x, e, &why);
    json_decref(body);
    buf_free(&key);
    buf_wipe(&value);
}

/* --- delete --------------------------------------------------------------------------------- */

/* etcd's range_end "\0" means: no end. The store writes that as an end of no bytes; for a delete,
 * where no end is a single key, it is written as the largest key there can be. */
static bool is_zero(const struct buf *b) { return b->size == 1 && b->at[0] == 0; }

static RESULT parse_delete(const struct exchange *x, const json_t *body, struct buf *key,
                           struct buf *end, struct command *c, struct why *why) {
    static const char *const later[] = {"prev_kv", NULL};
    c->op = OP_DELETE;
    TRY(refuse_fields(body, later, why));
    TRY(take_key(body, key, why));
    TRY(jin_bytes(body, "range_end", end, why));
    TRY(jin_u64(body, "mod_revision", &c->del.mod_revision, why));
    TRY(api_token(x, c, why));
    if (is_zero(end)) {
        TRY(buf_reserve(end, KEY_MAX));
        memset(end->at, 0xff, KEY_MAX);
        end->size = KEY_MAX;
    }
    c->del.key = buf_span(key);
    c->del.end = buf_span(end);
    return OK;
}

void handle_delete(struct exchange *x) {
    struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    struct buf key = buf_new(KEY_MAX), end = buf_new(KEY_MAX + 1);
    struct command c = {0};
    api->figures.deletes++;
    if (!api_body(x, &body)) return;
    enum err e = parse_delete(x, body, &key, &end, &c, &why);
    if (e == OK)
        api_write(x, &c, answer_header, NULL);
    else
        api_fail(x, e, &why);
    json_decref(body);
    buf_free(&key);
    buf_free(&end);
}

/* --- range ---------------------------------------------------------------------------------- */

struct range {
    struct read read;
    struct exchange *x;
    struct buf key, end; /* end empty: one key */
    uint64_t limit;      /* 0: none */
    bool serializable, keys_only, count_only;
    struct jout j; /* the answer under way */
    struct buf out;
    uint64_t count, given; /* keys in the range, in the answer */
    size_t bytes;          /* of keys and values in the answer */
    bool cut;              /* the answer is full */
};

static void range_free(struct range *r) {
    buf_free(&r->key);
    buf_free(&r->end);
    buf_wipe(&r->out);
    free(r);
}

static void add_kv(struct range *r, const struct kv *kv) {
    struct jout *j = &r->j;
    jout_open(j, '{');
    jout_key(j, "key");
    jout_base64(j, kv->key);
    jout_put_quoted(j, "create_revision", kv->create_revision);
    jout_put_quoted(j, "mod_revision", kv->mod_revision);
    jout_put_quoted(j, "version", kv->version);
    if (!r->keys_only && kv->value.size > 0) {
        jout_key(j, "value");
        jout_base64(j, kv->value);
    }
    jout_put_quoted(j, "lease", kv->lease);
    jout_close(j, '}');
    r->given++;
    r->bytes += kv->key.size + (r->keys_only ? 0 : kv->value.size) + 64;
}

static bool each(void *ctx, const struct kv *kv) {
    struct range *r = ctx;
    r->count++;
    if (r->count_only || r->cut) return true;
    size_t size = kv->key.size + (r->keys_only ? 0 : kv->value.size) + 64;
    if ((r->limit > 0 && r->given >= r->limit) ||
        (r->given > 0 && r->bytes + size > RANGE_BYTES_MAX))
        r->cut = true;
    else
        add_kv(r, kv);
    return true;
}

static void walk(struct range *r) {
    const struct api *api = r->x->ctx;
    const struct store *store = api->manager->store;
    struct kv kv;
    if (r->end.size > 0)
        store_range(store, buf_span(&r->key),
                    is_zero(&r->end) ? span_of(NULL, 0) : buf_span(&r->end), each, r);
    else if (store_get(store, buf_span(&r->key), &kv))
        (void)each(r, &kv);
}

static void answer_range(struct range *r) {
    jout_start(&r->j, &r->out);
    jout_open(&r->j, '{');
    api_header(&r->j, r->x->ctx);
    jout_key(&r->j, "kvs");
    jout_open(&r->j, '[');
    walk(r);
    jout_close(&r->j, ']');
    if (r->cut) jout_put_bool(&r->j, "more", true);
    jout_put_quoted(&r->j, "count", r->count);
    jout_close(&r->j, '}');
    enum err e = jout_end(&r->j);
    if (e == OK)
        exchange_json(r->x, &r->out);
    else
        exchange_error(r->x, e, NULL);
    range_free(r);
}

static void on_current(struct read *read, enum err e) {
    struct range *r = read->ctx;
    if (e == OK) {
        answer_range(r);
        return;
    }
    exchange_error(r->x, e, e == ERR_TIMEOUT ? "no leader confirmed the read in time" : NULL);
    range_free(r);
}

static RESULT parse_range(const json_t *body, struct range *r, struct why *why) {
    static const char *const later[] = {"revision",
                                        "sort_order",
                                        "min_mod_revision",
                                        "max_mod_revision",
                                        "min_create_revision",
                                        "max_create_revision",
                                        NULL};
    TRY(refuse_fields(body, later, why));
    TRY(take_key(body, &r->key, why));
    TRY(jin_bytes(body, "range_end", &r->end, why));
    TRY(jin_u64(body, "limit", &r->limit, why));
    TRY(jin_bool(body, "serializable", &r->serializable, why));
    TRY(jin_bool(body, "keys_only", &r->keys_only, why));
    return jin_bool(body, "count_only", &r->count_only, why);
}

static RESULT begin_range(struct exchange *x, struct range **out, struct why *why) {
    struct range *r = calloc(1, sizeof *r);
    json_t *body;
    if (!r) return ERR_NOMEM;
    *r = (struct range){
        .x = x, .key = buf_new(KEY_MAX), .end = buf_new(KEY_MAX), .out = buf_new(ANSWER_MAX)};
    r->read = (struct read){.done = on_current, .ctx = r};
    enum err e = jin_parse(x->body, &body, why);
    if (e == OK) {
        e = parse_range(body, r, why);
        json_decref(body);
    }
    if (e != OK)
        range_free(r);
    else
        *out = r;
    return e;
}

void handle_range(struct exchange *x) {
    struct api *api = x->ctx;
    struct range *r;
    struct why why = {0};
    api->figures.ranges++;
    if (!api_ready(x)) return;
    enum err e = begin_range(x, &r, &why);
    if (e != OK) {
        api_fail(x, e, &why);
        return;
    }
    if (r->serializable) {
        answer_range(r);
        return;
    }
    e = replica_read(api->manager->replica, &r->read);
    if (e == OK) return;
    range_free(r);
    exchange_error(x, e, NULL);
}
