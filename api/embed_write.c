/* Writing of an embedded handle: a call becomes a command (store/command.h), goes through the loop,
 * and comes back with its result. */
#include "api/embed.h"

#include <stdlib.h>

/* Room for the command; the caller's error if the options can't be taken. */
static RESULT take_options(const struct ccl_write_options *from, struct ccl_write_options *o) {
    TRY(embed_take(o, sizeof *o, from));
    bool known = (o->flags & ~(CCL_MUST_NOT_EXIST | CCL_TOKEN)) == 0 && o->reserved == 0;
    return known ? OK : ERR_UNSUPPORTED;
}

static void give_written(struct ccl_written *out, const struct result *r) {
    struct ccl_written w = {.flags = (r->previous.existed ? CCL_EXISTED : 0) |
                                     (r->repeated ? CCL_REPEATED : 0),
                            .revision = r->revision,
                            .deleted = r->deleted,
                            .previous_revision = r->previous.mod_revision,
                            .previous_version = r->previous.version};
    embed_give(out, &w, sizeof w);
}

/* What the command's result means for the caller. */
static int answer(struct ccl_db *db, const struct embed_op *op, struct ccl_written *written,
                  struct ccl_error *error) {
    struct result r;
    if (op->error != OK) return embed_error_of(db, error, op->error, NULL);
    if (result_decode(span_of(op->result, sizeof op->result), &r) != OK)
        return embed_error(error, ERR_INTERNAL, NULL);
    give_written(written, &r);
    if (r.error == ERR_EXISTS) return embed_error(error, r.error, "the key is there already");
    if (r.error == ERR_PRECONDITION)
        return embed_error(error, r.error, "the key does not have the revision asked for");
    return embed_error(error, r.error, NULL);
}

static int run(struct ccl_db *db, const struct command *c, uint32_t timeout_ms,
               struct ccl_written *written, struct ccl_error *error) {
    struct buf bytes = buf_new(COMMAND_MAX);
    enum err e = command_encode(c, &bytes);
    int code;
    if (e == OK) {
        struct embed_op op = {.kind = EMBED_WRITE, .timeout_ms = timeout_ms};
        op.proposal.command = buf_span(&bytes);
        embed_do(db, &op);
        code = answer(db, &op, written, error);
    } else {
        code = embed_error(error, e,
                           e == ERR_INVALID ? "a key has 1 to 4096 bytes, a value at most 1572864; "
                                              "one condition at most, and none on a range"
                                            : NULL);
    }
    buf_wipe(&bytes);
    return code;
}

/* The beginning of every write: a handle that works, options that are known. */
static int begin(struct ccl_db *db, const struct ccl_write_options *from,
                 struct ccl_write_options *o, struct command *c, struct ccl_error *error) {
    int refused = embed_refused(db, error);
    if (refused != CCL_OK) return refused;
    if (take_options(from, o) != OK)
        return embed_error(error, ERR_UNSUPPORTED, "the options ask for what is not known here");
    c->has_token = (o->flags & CCL_TOKEN) != 0;
    memcpy(c->token, o->token, TOKEN_SIZE);
    return CCL_OK;
}

static void fill_put(struct command *c, struct span key, struct span value,
                     const struct ccl_write_options *o) {
    c->op = OP_PUT;
    c->put.key = key;
    c->put.value = value;
    c->put.must_not_exist = (o->flags & CCL_MUST_NOT_EXIST) != 0;
    c->put.mod_revision = o->mod_revision;
}

static void fill_delete(struct command *c, struct span key, struct span end,
                        const struct ccl_write_options *o) {
    c->op = OP_DELETE;
    c->del.in.key = key;
    c->del.in.end = end;
    c->del.mod_revision = o->mod_revision;
}

static bool given(const void *at, size_t size) { return at != NULL || size == 0; }

int ccl_put(struct ccl_db *db, const void *key, size_t key_size, const void *value,
            size_t value_size, const struct ccl_write_options *options, struct ccl_written *written,
            struct ccl_error *error) {
    struct ccl_write_options o;
    struct command c = {0};
    int code = begin(db, options, &o, &c, error);
    if (code != CCL_OK) return code;
    if (!given(key, key_size) || !given(value, value_size))
        return embed_error(error, ERR_INVALID, "a pointer is missing");
    fill_put(&c, span_of(key, key_size), span_of(value, value_size), &o);
    return run(db, &c, o.timeout_ms, written, error);
}

static int delete_keys(struct ccl_db *db, struct span key, struct span end,
                       const struct ccl_write_options *options, struct ccl_written *written,
                       struct ccl_error *error) {
    struct ccl_write_options o;
    struct command c = {0};
    int code = begin(db, options, &o, &c, error);
    if (code != CCL_OK) return code;
    if (!given(key.at, key.size) || !given(end.at, end.size) || (o.flags & CCL_MUST_NOT_EXIST))
        return embed_error(error, ERR_INVALID, "a pointer is missing, or a flag makes no sense");
    fill_delete(&c, key, end, &o);
    return run(db, &c, o.timeout_ms, written, error);
}

int ccl_del(struct ccl_db *db, const void *key, size_t key_size,
            const struct ccl_write_options *options, struct ccl_written *written,
            struct ccl_error *error) {
    return delete_keys(db, span_of(key, key_size), span_of(NULL, 0), options, written, error);
}

int ccl_del_range(struct ccl_db *db, const void *from, size_t from_size, const void *end,
                  size_t end_size, const struct ccl_write_options *options,
                  struct ccl_written *written, struct ccl_error *error) {
    /* No lower bound: from the first possible key; no upper bound would be a single key. An end of
     * one zero byte, below which there is no key, would be no end at all. */
    struct span first = from_size != 0 ? span_of(from, from_size) : span_of("", 1);
    struct span behind = span_of(end, end_size);
    if (end_size == 0) return embed_error(error, ERR_INVALID, "a range has an end");
    if (given(end, end_size) && span_equal(behind, span_of("", 1)))
        first = behind = span_of("\1", 1);
    return delete_keys(db, first, behind, options, written, error);
}

/* --- transactions --- */

struct ccl_txn {
    struct ccl_db *db;
    struct buf items; /* encoded puts and deletes */
    uint32_t n;       /* of them */
    enum err error;   /* the first one; reported by the commit */
};

struct ccl_txn *ccl_txn_new(struct ccl_db *db) {
    struct ccl_txn *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->db = db;
    t->items = buf_new(COMMAND_MAX);
    return t;
}

static void add(struct ccl_txn *t, const struct command *c) {
    if (t->error == OK && t->n == BATCH_MAX) t->error = ERR_TOO_LARGE;
    if (t->error == OK) t->error = command_batch_add(&t->items, c);
    if (t->error == OK) t->n++;
}

void ccl_txn_put(struct ccl_txn *txn, const void *key, size_t key_size, const void *value,
                 size_t value_size, const struct ccl_write_options *options) {
    struct ccl_write_options o;
    struct command c = {0};
    if (txn->error == OK) txn->error = take_options(options, &o);
    if (txn->error == OK && (!given(key, key_size) || !given(value, value_size)))
        txn->error = ERR_INVALID;
    if (txn->error != OK) return;
    fill_put(&c, span_of(key, key_size), span_of(value, value_size), &o);
    add(txn, &c);
}

void ccl_txn_del(struct ccl_txn *txn, const void *key, size_t key_size,
                 const struct ccl_write_options *options) {
    struct ccl_write_options o;
    struct command c = {0};
    if (txn->error == OK) txn->error = take_options(options, &o);
    if (txn->error == OK && (!given(key, key_size) || (o.flags & CCL_MUST_NOT_EXIST)))
        txn->error = ERR_INVALID;
    if (txn->error != OK) return;
    fill_delete(&c, span_of(key, key_size), span_of(NULL, 0), &o);
    add(txn, &c);
}

int ccl_txn_commit(struct ccl_txn *txn, const struct ccl_write_options *options,
                   struct ccl_written *written, struct ccl_error *error) {
    struct ccl_write_options o;
    struct command c = {.op = OP_BATCH};
    if (txn == NULL) return embed_error(error, ERR_INVALID, "no transaction");
    int code = begin(txn->db, options, &o, &c, error);
    if (code != CCL_OK) return code;
    if (o.mod_revision != 0 || (o.flags & CCL_MUST_NOT_EXIST))
        return embed_error(error, ERR_INVALID, "conditions belong to the puts and deletes");
    if (txn->error != OK)
        return embed_error(error, txn->error, "a put or delete of the transaction was refused");
    c.batch.n = txn->n;
    c.batch.items = buf_span(&txn->items);
    return run(txn->db, &c, o.timeout_ms, written, error);
}

void ccl_txn_free(struct ccl_txn *txn) {
    if (txn == NULL) return;
    buf_wipe(&txn->items);
    free(txn);
}
