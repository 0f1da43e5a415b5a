/* Commands and results as bytes. A command is checked whole before apply sees it, so that apply
 * meets no malformed field; encoding makes the same checks, so that no member proposes what the
 * others refuse.
 *
 * Integers are little-endian; a block is u32 length + bytes; a text is a block without zero bytes.
 *   command:     u8 operation, u8 flags (1: a token follows; 2: a user follows; 4: on behalf of
 *                nobody), [16 bytes token], [block user, not empty, u64 auth revision], body;
 *                a CLUSTER and what is below it has no user and no flag 4
 *   PUT, DELETE: put, delete (codec.h)
 *   BATCH:       u32 n, then n times: u8 operation (PUT or DELETE), its body
 *   TXN:         a transaction (top of txn.c)
 *   COMPACT:     u64 revision
 *   LEASE_GRANT: u64 id (1 to 2^63 - 1), u64 TTL in ms (1 to TTL_MAX_S seconds)
 *   LEASE_REVOKE: u64 id
 *   ALARM:       u8 alarm, u8 raise (0 or 1), u64 raft id (0 only when clearing)
 *   AUTH:        a change (top of auth.c)
 *   CLUSTER:     text id, u64 now_s, ca, 32 bytes join key, u8 replaces (0 or 1), node
 *   NODE_ADD, NODE_UPDATE: node (cluster.c)
 *   NODE_REMOVE: u64 raft id
 *   CA:          u8 action, u64 rotation; of START: ca, block cross_pem; of FINISH: u8 retire (0 or
 *                1)
 *   ca:          block root_pem (not empty), block issuer_pem, block key
 *   LOCK:        block unlock key, block digest of the one that it replaces, each of 0 or 32 bytes
 *   ROWS:        i64 now_ns, u32 n, n changes (row.c)
 *   result:      u16 error, u64 revision, u8 flags (1: repeated; 2: the key existed), u64 deleted,
 *                u64 mod_revision and u64 version the key had before, then the answer (codec.h)
 */
#include "store/command.h"
#include "store/codec.h"
#include "store/import.h"

#define FLAG_TOKEN    1
#define FLAG_USER     2
#define FLAG_NOBODY   4
#define FLAG_REPEATED 1
#define FLAG_EXISTED  2

/* --- bounds, the same for both ways --- */

static RESULT check_ca(const struct ca_spans *a) {
    bool good = a->root_pem.size >= 1 && a->root_pem.size <= PEM_MAX &&
                a->issuer_pem.size <= PEM_MAX && a->key.size <= PEM_MAX;
    return good ? OK : ERR_INVALID;
}

static RESULT check_cluster(const struct command *c) {
    if (c->cluster.id[0] == '\0' || c->cluster.join_key.size != KEY_SIZE) return ERR_INVALID;
    return check_ca(&c->cluster.ca);
}

static RESULT check_rotation(const struct command *c) {
    if (c->ca.action < CA_START || c->ca.action > CA_FORGET) return ERR_INVALID;
    if (c->ca.action != CA_START) return OK;
    if (c->ca.cross_pem.size > PEM_MAX) return ERR_INVALID;
    return check_ca(&c->ca.next);
}

static RESULT check_rows(const struct command *c) {
    struct cursor changes = cursor_of(c->rows.changes);
    struct row_change one;
    if (c->rows.n < 1 || c->rows.n > ROWS_CHANGE_MAX) return ERR_INVALID;
    for (uint32_t i = 0; i < c->rows.n; i++)
        TRY(row_change_next(&changes, &one));
    return cursor_end(&changes) == OK ? OK : ERR_INVALID;
}

static bool good_lease(uint64_t id) { return id != 0 && id >> 63 == 0; }

static RESULT check_grant(const struct command *c) {
    uint64_t ttl = c->lease.ttl_ms;
    return good_lease(c->lease.id) && ttl >= 1 && ttl <= TTL_MAX_S * 1000 ? OK : ERR_INVALID;
}

static RESULT check_alarm(const struct command *c) {
    return c->alarm.alarm == ALARM_NOSPACE || c->alarm.alarm == ALARM_CORRUPT ? OK : ERR_INVALID;
}

/* The cluster's own operations are the members', never a user's of the keys. */
static RESULT check_user(const struct command *c) {
    return c->op >= OP_CLUSTER || c->user.size > USER_NAME_MAX ? ERR_INVALID : OK;
}

static RESULT check_lock(const struct command *c) {
    size_t key = c->unlock_key.size, replaces = c->lock_replaces.size;
    bool good = (key == 0 || key == KEY_SIZE) && (replaces == 0 || replaces == LOCK_DIGEST_SIZE);
    return good ? OK : ERR_INVALID;
}

/* --- out --- */

static RESULT encode_put(const struct command *c, struct buf *out) {
    TRY(put_check(&c->put));
    return put_encode(&c->put, out);
}

static RESULT encode_delete(const struct command *c, struct buf *out) {
    TRY(del_check(&c->del));
    return del_encode(&c->del, out);
}

static RESULT encode_txn(const struct command *c, struct buf *out) {
    TRY(txn_check(c->txn, NULL));
    return buf_add_span(out, c->txn);
}

static RESULT encode_grant(const struct command *c, struct buf *out) {
    TRY(check_grant(c));
    TRY(buf_u64(out, c->lease.id));
    return buf_u64(out, c->lease.ttl_ms);
}

static RESULT good_rows(struct span rows) {
    struct cursor in = cursor_of(rows);
    struct kv kv;
    while (in.left > 0)
        TRY(import_next(&in, &kv));
    return OK;
}

static RESULT encode_import(const struct command *c, struct buf *out) {
    TRY(good_rows(c->import.rows));
    TRY(buf_u64(out, c->import.begin));
    return buf_block(out, c->import.rows);
}

static RESULT encode_alarm(const struct command *c, struct buf *out) {
    TRY(check_alarm(c));
    TRY(buf_u8(out, (uint8_t)c->alarm.alarm));
    TRY(buf_u8(out, c->alarm.raise));
    return buf_u64(out, c->alarm.raft_id);
}

static RESULT check_batch(const struct command *c) {
    if (c->batch.n > BATCH_MAX) return ERR_INVALID;
    struct cursor items = cursor_of(c->batch.items);
    struct command item;
    for (uint32_t i = 0; i < c->batch.n; i++)
        TRY(command_batch_next(&items, &item));
    return cursor_end(&items) == OK ? OK : ERR_INVALID;
}

static RESULT encode_batch(const struct command *c, struct buf *out) {
    TRY(check_batch(c));
    TRY(buf_u32(out, c->batch.n));
    return buf_add_span(out, c->batch.items);
}

static RESULT encode_ca(const struct ca_spans *a, struct buf *out) {
    TRY(buf_block(out, a->root_pem));
    TRY(buf_block(out, a->issuer_pem));
    return buf_block(out, a->key);
}

static RESULT encode_rotation(const struct command *c, struct buf *out) {
    TRY(check_rotation(c));
    TRY(buf_u8(out, (uint8_t)c->ca.action));
    TRY(buf_u64(out, c->ca.rotation));
    if (c->ca.action == CA_FINISH) return buf_u8(out, c->ca.retire);
    if (c->ca.action != CA_START) return OK;
    TRY(encode_ca(&c->ca.next, out));
    return buf_block(out, c->ca.cross_pem);
}

static RESULT encode_rows(const struct command *c, struct buf *out) {
    TRY(check_rows(c));
    TRY(buf_u64(out, (uint64_t)c->rows.now_ns));
    TRY(buf_u32(out, c->rows.n));
    return buf_add_span(out, c->rows.changes);
}

static RESULT encode_cluster(const struct command *c, struct buf *out) {
    TRY(check_cluster(c));
    TRY(buf_block(out, span_str(c->cluster.id)));
    TRY(buf_u64(out, (uint64_t)c->cluster.now_s));
    TRY(encode_ca(&c->cluster.ca, out));
    TRY(buf_add_span(out, c->cluster.join_key));
    TRY(buf_u8(out, c->cluster.replace));
    return node_encode(&c->cluster.first, out);
}

static RESULT encode_lock(const struct command *c, struct buf *out) {
    TRY(check_lock(c));
    TRY(buf_block(out, c->unlock_key));
    return buf_block(out, c->lock_replaces);
}

static RESULT encode_body(const struct command *c, struct buf *out) {
    switch (c->op) {
    case OP_PUT: return encode_put(c, out);
    case OP_DELETE: return encode_delete(c, out);
    case OP_BATCH: return encode_batch(c, out);
    case OP_TXN: return encode_txn(c, out);
    case OP_COMPACT: return buf_u64(out, c->compact_revision);
    case OP_LEASE_GRANT: return encode_grant(c, out);
    case OP_LEASE_REVOKE: return good_lease(c->lease.id) ? buf_u64(out, c->lease.id) : ERR_INVALID;
    case OP_ALARM: return encode_alarm(c, out);
    case OP_AUTH: return auth_change_encode(&c->auth, out);
    case OP_IMPORT: return encode_import(c, out);
    case OP_CLUSTER: return encode_cluster(c, out);
    case OP_NODE_ADD:
    case OP_NODE_UPDATE: return node_encode(&c->node, out);
    case OP_NODE_REMOVE: return buf_u64(out, c->raft_id);
    case OP_CA: return encode_rotation(c, out);
    case OP_LOCK: return encode_lock(c, out);
    case OP_ROWS: return encode_rows(c, out);
    }
    return ERR_UNSUPPORTED;
}

static uint8_t flags_of(const struct command *c) {
    unsigned flags = c->has_token ? FLAG_TOKEN : 0;
    if (c->has_user) flags |= c->user.size != 0 ? FLAG_USER : FLAG_NOBODY;
    return (uint8_t)flags;
}

RESULT command_encode(const struct command *c, struct buf *out) {
    uint8_t flags = flags_of(c);
    TRY(buf_u8(out, (uint8_t)c->op));
    TRY(buf_u8(out, flags));
    if (c->has_token) TRY(buf_add(out, c->token, TOKEN_SIZE));
    if (c->has_user) TRY(check_user(c));
    if ((flags & FLAG_USER) != 0) {
        TRY(buf_block(out, c->user));
        TRY(buf_u64(out, c->auth_revision));
    }
    return encode_body(c, out);
}

RESULT command_batch_add(struct buf *items, const struct command *put_or_delete) {
    if (put_or_delete->op != OP_PUT && put_or_delete->op != OP_DELETE) return ERR_INVALID;
    size_t before = items->size;
    enum err e = buf_u8(items, (uint8_t)put_or_delete->op);
    if (e == OK) e = encode_body(put_or_delete, items);
    if (e != OK) items->size = before;
    return e;
}

/* --- in --- */

static RESULT decode_put(struct cursor *in, struct command *c) {
    TRY(put_decode(in, &c->put));
    return put_check(&c->put);
}

static RESULT decode_delete(struct cursor *in, struct command *c) {
    TRY(del_decode(in, &c->del));
    return del_check(&c->del);
}

static RESULT decode_txn(struct cursor *in, struct command *c) {
    TRY(cursor_bytes(in, in->left, &c->txn));
    return txn_check(c->txn, NULL);
}

static RESULT decode_grant(struct cursor *in, struct command *c) {
    TRY(cursor_u64(in, &c->lease.id));
    TRY(cursor_u64(in, &c->lease.ttl_ms));
    return check_grant(c);
}

static RESULT decode_revoke(struct cursor *in, struct command *c) {
    c->lease.ttl_ms = 0;
    TRY(cursor_u64(in, &c->lease.id));
    return good_lease(c->lease.id) ? OK : ERR_INVALID;
}

static RESULT decode_alarm(struct cursor *in, struct command *c) {
    uint8_t alarm, raise;
    TRY(cursor_u8(in, &alarm));
    TRY(cursor_u8(in, &raise));
    if (raise > 1) return ERR_INVALID;
    c->alarm.alarm = (enum alarm)alarm;
    c->alarm.raise = raise == 1;
    TRY(cursor_u64(in, &c->alarm.raft_id));
    return check_alarm(c);
}

static RESULT decode_import(struct cursor *in, struct command *c) {
    TRY(cursor_u64(in, &c->import.begin));
    TRY(cursor_block(in, COMMAND_MAX, &c->import.rows));
    return good_rows(c->import.rows);
}

static RESULT decode_auth(struct cursor *in, struct command *c) {
    struct span bytes;
    TRY(cursor_bytes(in, in->left, &bytes));
    return auth_change_decode(bytes, &c->auth);
}

static RESULT decode_item(struct cursor *items, struct command *out) {
    uint8_t op;
    TRY(cursor_u8(items, &op));
    out->op = (enum op)op;
    out->has_token = out->has_user = false;
    if (op == OP_PUT) return decode_put(items, out);
    return op == OP_DELETE ? decode_delete(items, out) : ERR_UNSUPPORTED;
}

RESULT command_batch_next(struct cursor *items, struct command *out) {
    return invalid_for_protocol(decode_item(items, out));
}

static RESULT decode_batch(struct cursor *in, struct command *c) {
    TRY(cursor_u32(in, &c->batch.n));
    TRY(cursor_bytes(in, in->left, &c->batch.items));
    return check_batch(c);
}

static RESULT decode_ca(struct cursor *in, struct ca_spans *out) {
    TRY(cursor_block(in, PEM_MAX, &out->root_pem));
    TRY(cursor_block(in, PEM_MAX, &out->issuer_pem));
    return cursor_block(in, PEM_MAX, &out->key);
}

static RESULT decode_rotation(struct cursor *in, struct command *c) {
    uint8_t action, retire = 0;
    TRY(cursor_u8(in, &action));
    c->ca.action = (enum ca_action)action;
    TRY(cursor_u64(in, &c->ca.rotation));
    c->ca.next = (struct ca_spans){.key = {0}};
    c->ca.cross_pem = span_of(NULL, 0);
    if (action == CA_START) {
        TRY(decode_ca(in, &c->ca.next));
        TRY(cursor_block(in, PEM_MAX, &c->ca.cross_pem));
    }
    if (action == CA_FINISH) TRY(cursor_u8(in, &retire));
    if (retire > 1) return ERR_INVALID;
    c->ca.retire = retire == 1;
    return check_rotation(c);
}

static RESULT decode_rows(struct cursor *in, struct command *c) {
    uint64_t now_ns;
    TRY(cursor_u64(in, &now_ns));
    c->rows.now_ns = (int64_t)now_ns;
    TRY(cursor_u32(in, &c->rows.n));
    TRY(cursor_bytes(in, in->left, &c->rows.changes));
    return check_rows(c);
}

static RESULT decode_cluster(struct cursor *in, struct command *c) {
    uint64_t now_s;
    uint8_t replace;
    TRY(cursor_text(in, c->cluster.id, sizeof c->cluster.id));
    TRY(cursor_u64(in, &now_s));
    c->cluster.now_s = (int64_t)now_s;
    TRY(decode_ca(in, &c->cluster.ca));
    TRY(cursor_bytes(in, KEY_SIZE, &c->cluster.join_key));
    TRY(cursor_u8(in, &replace));
    if (replace > 1) return ERR_INVALID;
    c->cluster.replace = replace == 1;
    TRY(check_cluster(c));
    return node_decode(in, &c->cluster.first);
}

static RESULT decode_lock(struct cursor *in, struct command *c) {
    TRY(cursor_block(in, KEY_SIZE, &c->unlock_key));
    TRY(cursor_block(in, LOCK_DIGEST_SIZE, &c->lock_replaces));
    return check_lock(c);
}

static RESULT decode_body(struct cursor *in, struct command *c) {
    switch (c->op) {
    case OP_PUT: return decode_put(in, c);
    case OP_DELETE: return decode_delete(in, c);
    case OP_BATCH: return decode_batch(in, c);
    case OP_TXN: return decode_txn(in, c);
    case OP_COMPACT: return cursor_u64(in, &c->compact_revision);
    case OP_LEASE_GRANT: return decode_grant(in, c);
    case OP_LEASE_REVOKE: return decode_revoke(in, c);
    case OP_ALARM: return decode_alarm(in, c);
    case OP_AUTH: return decode_auth(in, c);
    case OP_IMPORT: return decode_import(in, c);
    case OP_CLUSTER: return decode_cluster(in, c);
    case OP_NODE_ADD:
    case OP_NODE_UPDATE: return node_decode(in, &c->node);
    case OP_NODE_REMOVE: return cursor_u64(in, &c->raft_id);
    case OP_CA: return decode_rotation(in, c);
    case OP_LOCK: return decode_lock(in, c);
    case OP_ROWS: return decode_rows(in, c);
    }
    return ERR_UNSUPPORTED;
}

static RESULT decode_user(struct cursor *in, struct command *c) {
    TRY(cursor_block(in, USER_NAME_MAX, &c->user));
    return c->user.size == 0 ? ERR_INVALID : cursor_u64(in, &c->auth_revision);
}

static RESULT decode(struct cursor *in, struct command *c) {
    uint8_t op, flags;
    TRY(cursor_u8(in, &op));
    TRY(cursor_u8(in, &flags));
    if ((flags & ~(FLAG_TOKEN | FLAG_USER | FLAG_NOBODY)) != 0) return ERR_UNSUPPORTED;
    if ((flags & FLAG_USER) != 0 && (flags & FLAG_NOBODY) != 0) return ERR_INVALID;
    c->op = (enum op)op;
    c->has_token = (flags & FLAG_TOKEN) != 0;
    c->has_user = (flags & (FLAG_USER | FLAG_NOBODY)) != 0;
    c->user = span_of(NULL, 0);
    c->auth_revision = 0;
    if (c->has_token) TRY(cursor_copy(in, c->token, TOKEN_SIZE));
    if ((flags & FLAG_USER) != 0) TRY(decode_user(in, c));
    if (c->has_user) TRY(check_user(c));
    TRY(decode_body(in, c));
    return cursor_end(in);
}

RESULT command_decode(struct span bytes, struct command *out) {
    struct cursor in = cursor_of(bytes);
    return invalid_for_protocol(decode(&in, out));
}

/* --- results --- */

void result_pack(const struct result *r, uint8_t out[RESULT_SIZE]) {
    out[0] = (uint8_t)r->error;
    out[1] = (uint8_t)((unsigned)r->error >> 8);
    put_u64(out + 2, r->revision);
    out[10] =
        (uint8_t)((r->repeated ? FLAG_REPEATED : 0) | (r->previous.existed ? FLAG_EXISTED : 0));
    put_u64(out + 11, r->deleted);
    put_u64(out + 19, r->previous.mod_revision);
    put_u64(out + 27, r->previous.version);
}

RESULT result_encode(const struct result *r, struct buf *out) {
    uint8_t packed[RESULT_SIZE];
    result_pack(r, packed);
    TRY(buf_add(out, packed, sizeof packed));
    return buf_add_span(out, r->answer);
}

RESULT result_decode(struct span bytes, struct result *out) {
    if (bytes.size < RESULT_SIZE) return ERR_PROTOCOL;
    unsigned error = bytes.at[0] | (unsigned)bytes.at[1] << 8;
    uint8_t flags = bytes.at[10];
    if (error >= ERR_COUNT || (flags & ~(FLAG_REPEATED | FLAG_EXISTED)) != 0) return ERR_PROTOCOL;
    out->error = (enum err)error;
    out->revision = get_u64(bytes.at + 2);
    out->repeated = (flags & FLAG_REPEATED) != 0;
    out->deleted = get_u64(bytes.at + 11);
    out->previous.existed = (flags & FLAG_EXISTED) != 0;
    out->previous.mod_revision = get_u64(bytes.at + 19);
    out->previous.version = get_u64(bytes.at + 27);
    out->answer = span_of(bytes.at + RESULT_SIZE, bytes.size - RESULT_SIZE);
    return OK;
}
