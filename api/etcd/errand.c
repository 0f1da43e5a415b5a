/* See errand.h. An errand is one block of memory, freed before its outcome is told. Those who take
 * part are found by a walk over all keys of the prefix: a queue is short, and each member of it
 * walks only when the one before it has gone. */
#include "api/etcd/errand.h"

#include <stdlib.h>

#include "api/etcd/caller.h"

/* --- writes and reads ----------------------------------------------------------------------- */

struct errand {
    union {
        struct write write;
        struct read read;
    };
    union {
        errand_written *written;
        errand_current *current;
    };
    void *ctx; /* the owner's */
};

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct errand *errand = w->ctx;
    errand_written *written = errand->written;
    void *ctx = errand->ctx;
    free(errand);
    if (e == OK && r->error != OK) {
        e = r->error;
        text = err_text(e);
    }
    written(ctx, e, text, e == OK ? r : NULL);
}

RESULT errand_write(struct api *api, const struct caller *caller, struct command *c,
                    errand_written *done, void *ctx) {
    struct errand *errand = calloc(1, sizeof *errand);
    if (errand == NULL) return ERR_NOMEM;
    errand->written = done;
    errand->ctx = ctx;
    errand->write =
        (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = errand};
    caller_sign(caller, c);
    enum err e = command_encode(c, &errand->write.command);
    if (e == OK && errand->write.command.size > REQUEST_MAX) e = ERR_REQUEST_TOO_LARGE;
    if (e == OK)
        e = manager_write(api->manager, &errand->write);
    else
        buf_wipe(&errand->write.command);
    if (e != OK) free(errand);
    return e;
}

static void on_current(struct read *rd, enum err e) {
    struct errand *errand = rd->ctx;
    errand_current *current = errand->current;
    void *ctx = errand->ctx;
    free(errand);
    current(ctx, e);
}

RESULT errand_read(struct api *api, errand_current *done, void *ctx) {
    TRY(manager_ready(api->manager, NULL));
    struct errand *errand = calloc(1, sizeof *errand);
    if (errand == NULL) return ERR_NOMEM;
    errand->current = done;
    errand->ctx = ctx;
    errand->read = (struct read){.done = on_current, .ctx = errand};
    enum err e = replica_read(api->manager->replica, &errand->read);
    if (e != OK) free(errand);
    return e;
}

void errand_fail(struct rpc *r, enum err e, const char *text) {
    bool later = err_grpc(e) == err_grpc(ERR_NO_LEADER) || e == ERR_BUSY || e == ERR_NOMEM;
    if (later || err_grpc(e) == err_grpc(ERR_PERMISSION) || e == ERR_AUTH_TOKEN)
        etcd_fail(r, e, text);
    else
        rpc_fail(r, ERR_UNKNOWN, text != NULL ? text : err_text(e));
}

/* --- those who take part -------------------------------------------------------------------- */

RESULT errand_prefix(struct span name, struct buf *prefix, struct buf *end) {
    uint8_t room[KEY_MAX];
    if (name.size >= KEY_MAX) return ERR_REQUEST_TOO_LARGE;
    TRY(buf_add_span(prefix, name));
    TRY(buf_u8(prefix, '/'));
    size_t size = store_prefix_end(buf_span(prefix), room);
    return buf_add(end, room, size);
}

struct choice {
    uint64_t below; /* create revisions to look at */
    bool last;      /* the highest of them, else the lowest */
    bool found;
    struct kv *kv;
};

static bool choose(void *ctx, const struct kv *kv) {
    struct choice *c = ctx;
    uint64_t created = kv->create_revision;
    if (created >= c->below) return true;
    if (c->found && (created > c->kv->create_revision) != c->last) return true;
    *c->kv = *kv;
    c->found = true;
    return true;
}

bool errand_first(const struct store *s, const struct buf *prefix, const struct buf *end,
                  struct kv *out) {
    struct choice c = {.below = UINT64_MAX, .kv = out};
    store_range(s, buf_span(prefix), buf_span(end), choose, &c);
    return c.found;
}

bool errand_before(const struct store *s, const struct buf *prefix, const struct buf *end,
                   uint64_t created, struct kv *out) {
    struct choice c = {.below = created, .last = true, .kv = out};
    store_range(s, buf_span(prefix), buf_span(end), choose, &c);
    return c.found;
}

RESULT errand_txn(struct buf *out, struct span key, uint64_t created, const struct txn_op *then,
                  const struct txn_op *otherwise) {
    struct buf compares = buf_new(COMMAND_MAX), success = buf_new(COMMAND_MAX),
               failure = buf_new(COMMAND_MAX);
    const struct compare compare = {.in = {.key = key},
                                    .target = COMPARE_CREATE,
                                    .result = COMPARE_EQUAL,
                                    .number = (int64_t)created};
    enum err e = txn_compare_add(&compares, &compare);
    if (e == OK) e = txn_op_add(&success, then);
    if (e == OK && otherwise != NULL) e = txn_op_add(&failure, otherwise);
    if (e == OK) e = txn_add(out, buf_span(&compares), buf_span(&success), buf_span(&failure));
    if (e == OK) e = txn_check(buf_span(out), NULL);
    buf_free(&compares);
    buf_free(&success);
    buf_free(&failure);
    return e;
}
