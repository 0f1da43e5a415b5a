/* What the handlers of our own paths (/conclave/v1/...) share: a body as JSON, the state that they
 * need, a write and a current read on behalf of an exchange, and errors in answers. etcd's paths
 * are served by api/rpc and api/etcd. */
#include "api/api.h"
#include "api/secret/secrets.h"

#include <stdlib.h>

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
    struct secret *kept;
};

static void write_free(struct api_write *aw) {
    secret_free(aw->kept);
    free(aw);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct api_write *aw = w->ctx;
    struct api *api = aw->x->ctx;
    if (e == OK && r->error != OK) {
        e = r->error;
        text = "";
    }
    if (e == OK) {
        aw->done(aw->x, r, aw->kept);
    } else {
        api->figures.failed++;
        exchange_error(aw->x, e, text);
    }
    write_free(aw);
}

static RESULT submit(struct api_write *aw, const struct command *c) {
    struct api *api = aw->x->ctx;
    aw->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = aw};
    enum err e = command_encode(c, &aw->write.command);
    if (e == OK) return manager_write(api->manager, &aw->write);
    buf_wipe(&aw->write.command);
    return e;
}

void api_write(struct exchange *x, const struct command *c, api_written *done,
               struct secret *kept) {
    struct api *api = x->ctx;
    struct why why = {0};
    struct api_write *aw = calloc(1, sizeof *aw);
    enum err e = aw ? manager_ready(api->manager, &why) : ERR_NOMEM;
    if (!aw) secret_free(kept);
    if (aw) *aw = (struct api_write){.x = x, .done = done, .kept = kept};
    if (e == OK) e = submit(aw, c);
    if (e == OK) return; /* on_written frees it */
    api->figures.failed++;
    if (aw) write_free(aw);
    api_fail(x, e, &why);
}

void api_rows(struct exchange *x, const struct row_change *changes, unsigned n, api_written *done,
              struct secret *kept) {
    const struct api *api = x->ctx;
    struct buf bytes = buf_new(COMMAND_MAX);
    enum err e = OK;
    for (unsigned i = 0; e == OK && i < n; i++)
        e = row_change_add(&bytes, &changes[i]);
    struct command c = {.op = OP_ROWS};
    c.rows.n = n;
    c.rows.changes = buf_span(&bytes);
    c.rows.now_ns = api->manager->clock.wall_ns(&api->manager->clock);
    if (e == OK) {
        api_write(x, &c, done, kept);
    } else {
        secret_free(kept);
        exchange_error(x, e, NULL);
    }
    buf_free(&bytes);
}

void api_audit(struct exchange *x, const struct audit_record *record, api_written *done,
               struct secret *kept) {
    struct actor actor;
    struct audit_record full = *record;
    struct buf bytes = buf_new(AUDIT_RECORD_MAX);
    actor_of(x, &actor);
    full.who = span_str(actor.who);
    full.from = span_str(actor.from);
    enum err e = audit_encode(&full, &bytes);
    struct row_change c = {
        .action = ROW_CREATE, .kind = ROW_AUDIT, .id = AUDIT_NEXT, .body = buf_span(&bytes)};
    if (e == OK) {
        api_rows(x, &c, 1, done, kept);
    } else {
        secret_free(kept);
        exchange_error(x, e, NULL);
    }
    buf_free(&bytes);
}

void api_empty(struct exchange *x, const struct result *r, const struct secret *kept) {
    (void)r;
    (void)kept;
    exchange_answer(x, 200, "application/json", span_str("{}"));
}

void api_done(void *ctx, enum err e, const char *text) {
    struct exchange *x = ctx;
    if (e == OK)
        api_empty(x, NULL, NULL);
    else
        exchange_error(x, e, text);
}

void api_answer(struct exchange *x, struct jout *j, struct buf *out) {
    enum err e = jout_end(j);
    if (e == OK)
        exchange_json(x, out);
    else
        exchange_error(x, e, NULL);
    buf_wipe(out);
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
