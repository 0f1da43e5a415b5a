/* Commands and results as bytes. A command is checked whole before apply sees it, so that apply
 * meets no malformed field; encoding makes the same checks, so that no member proposes what the
 * others refuse.
 *
 * Integers are little-endian; a block is u32 length + bytes; a text is a block without zero bytes.
 *   command:     u8 operation, u8 flags (1: a token follows), [16 bytes token], body
 *   PUT:         u8 flags (1: must not exist; 2: mod_revision follows), [u64 mod_revision > 0],
 *                block key, block value
 *   DELETE:      u8 flags (2: mod_revision follows), [u64 mod_revision > 0], block key, block end
 *   BATCH:       u32 n, then n times: u8 operation (PUT or DELETE), its body
 *   CLUSTER:     text id, u64 now_s, block root_pem, block root_key, 32 bytes token hash,
 *                u8 replaces (0 or 1), node
 *   NODE_ADD, NODE_UPDATE: node (cluster.c)
 *   NODE_REMOVE: u64 raft id
 *   TOKEN:       32 bytes token hash
 *   LOCK:        block unlock key, of 0 or 32 bytes
 *   result:      u16 error, u64 revision, u8 flags (1: repeated; 2: the key existed), u64 deleted,
 *                u64 mod_revision and u64 version the key had before; nothing else in this version
 */
#include "store/command.h"

#define FLAG_TOKEN        1
#define FLAG_NOT_EXIST    1
#define FLAG_MOD_REVISION 2
#define FLAG_REPEATED     1
#define FLAG_EXISTED      2

/* --- bounds, the same for both ways --- */

static RESULT check_key(struct span key) {
    return key.size >= 1 && key.size <= KEY_MAX ? OK : ERR_INVALID;
}

static RESULT check_put(const struct command *c) {
    TRY(check_key(c->put.key));
    if (c->put.value.size > VALUE_MAX) return ERR_INVALID;
    return c->put.must_not_exist && c->put.mod_revision != 0 ? ERR_INVALID : OK;
}

static RESULT check_delete(const struct command *c) {
    TRY(check_key(c->del.key));
    if (c->del.end.size > KEY_MAX) return ERR_INVALID;
    return c->del.end.size != 0 && c->del.mod_revision != 0 ? ERR_INVALID : OK;
}

static bool good_pem(struct span pem) { return pem.size >= 1 && pem.size <= PEM_MAX; }

static RESULT check_cluster(const struct command *c) {
    if (c->cluster.id[0] == '\0' || !good_pem(c->cluster.root_pem)) return ERR_INVALID;
    return good_pem(c->cluster.root_key) ? OK : ERR_INVALID;
}

static RESULT check_lock(const struct command *c) {
    return c->unlock_key.size == 0 || c->unlock_key.size == KEY_SIZE ? OK : ERR_INVALID;
}

/* --- out --- */

static RESULT encode_condition(uint8_t flags, uint64_t mod_revision, struct buf *out) {
    if (mod_revision != 0) flags |= FLAG_MOD_REVISION;
    TRY(buf_u8(out, flags));
    return mod_revision != 0 ? buf_u64(out, mod_revision) : OK;
}

static RESULT encode_put(const struct command *c, struct buf *out) {
    TRY(check_put(c));
    TRY(encode_condition(c->put.must_not_exist ? FLAG_NOT_EXIST : 0, c->put.mod_revision, out));
    TRY(buf_block(out, c->put.key));
    return buf_block(out, c->put.value);
}

static RESULT encode_delete(const struct command *c, struct buf *out) {
    TRY(check_delete(c));
    TRY(encode_condition(0, c->del.mod_revision, out));
    TRY(buf_block(out, c->del.key));
    return buf_block(out, c->del.end);
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

static RESULT encode_cluster(const struct command *c, struct buf *out) {
    TRY(check_cluster(c));
    TRY(buf_block(out, span_str(c->cluster.id)));
    TRY(buf_u64(out, (uint64_t)c->cluster.now_s));
    TRY(buf_block(out, c->cluster.root_pem));
    TRY(buf_block(out, c->cluster.root_key));
    TRY(buf_add(out, c->cluster.token_hash, TOKEN_HASH_SIZE));
    TRY(buf_u8(out, c->cluster.replace));
    return node_encode(&c->cluster.first, out);
}

static RESULT encode_lock(const struct command *c, struct buf *out) {
    TRY(check_lock(c));
    return buf_block(out, c->unlock_key);
}

static RESULT encode_body(const struct command *c, struct buf *out) {
    switch (c->op) {
    case OP_PUT: return encode_put(c, out);
    case OP_DELETE: return encode_delete(c, out);
    case OP_BATCH: return encode_batch(c, out);
    case OP_CLUSTER: return encode_cluster(c, out);
    case OP_NODE_ADD:
    case OP_NODE_UPDATE: return node_encode(&c->node, out);
    case OP_NODE_REMOVE: return buf_u64(out, c->raft_id);
    case OP_TOKEN: return buf_add(out, c->token_hash, TOKEN_HASH_SIZE);
    case OP_LOCK: return encode_lock(c, out);
    }
    return ERR_UNSUPPORTED;
}

RESULT command_encode(const struct command *c, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)c->op));
    TRY(buf_u8(out, c->has_token ? FLAG_TOKEN : 0));
    if (c->has_token) TRY(buf_add(out, c->token, TOKEN_SIZE));
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

static RESULT decode_condition(struct cursor *in, uint8_t known, uint8_t *flags,
                               uint64_t *mod_revision) {
    TRY(cursor_u8(in, flags));
    if ((*flags & ~known) != 0) return ERR_UNSUPPORTED;
    *mod_revision = 0;
    if ((*flags & FLAG_MOD_REVISION) == 0) return OK;
    TRY(cursor_u64(in, mod_revision));
    return *mod_revision != 0 ? OK : ERR_INVALID;
}

static RESULT decode_put(struct cursor *in, struct command *c) {
    uint8_t flags;
    TRY(decode_condition(in, FLAG_NOT_EXIST | FLAG_MOD_REVISION, &flags, &c->put.mod_revision));
    c->put.must_not_exist = (flags & FLAG_NOT_EXIST) != 0;
    TRY(cursor_block(in, KEY_MAX, &c->put.key));
    TRY(cursor_block(in, VALUE_MAX, &c->put.value));
    return check_put(c);
}

static RESULT decode_delete(struct cursor *in, struct command *c) {
    uint8_t flags;
    TRY(decode_condition(in, FLAG_MOD_REVISION, &flags, &c->del.mod_revision));
    TRY(cursor_block(in, KEY_MAX, &c->del.key));
    TRY(cursor_block(in, KEY_MAX, &c->del.end));
    return check_delete(c);
}

static RESULT invalid_for_protocol(enum err e) { return e == ERR_PROTOCOL ? ERR_INVALID : e; }

static RESULT decode_item(struct cursor *items, struct command *out) {
    uint8_t op;
    TRY(cursor_u8(items, &op));
    out->op = (enum op)op;
    out->has_token = false;
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

static RESULT decode_cluster(struct cursor *in, struct command *c) {
    uint64_t now_s;
    uint8_t replace;
    TRY(cursor_text(in, c->cluster.id, sizeof c->cluster.id));
    TRY(cursor_u64(in, &now_s));
    c->cluster.now_s = (int64_t)now_s;
    TRY(cursor_block(in, PEM_MAX, &c->cluster.root_pem));
    TRY(cursor_block(in, PEM_MAX, &c->cluster.root_key));
    TRY(cursor_copy(in, c->cluster.token_hash, TOKEN_HASH_SIZE));
    TRY(cursor_u8(in, &replace));
    if (replace > 1) return ERR_INVALID;
    c->cluster.replace = replace == 1;
    TRY(check_cluster(c));
    return node_decode(in, &c->cluster.first);
}

static RESULT decode_lock(struct cursor *in, struct command *c) {
    TRY(cursor_block(in, KEY_SIZE, &c->unlock_key));
    return check_lock(c);
}

static RESULT decode_body(struct cursor *in, struct command *c) {
    switch (c->op) {
    case OP_PUT: return decode_put(in, c);
    case OP_DELETE: return decode_delete(in, c);
    case OP_BATCH: return decode_batch(in, c);
    case OP_CLUSTER: return decode_cluster(in, c);
    case OP_NODE_ADD:
    case OP_NODE_UPDATE: return node_decode(in, &c->node);
    case OP_NODE_REMOVE: return cursor_u64(in, &c->raft_id);
    case OP_TOKEN: return cursor_copy(in, c->token_hash, TOKEN_HASH_SIZE);
    case OP_LOCK: return decode_lock(in, c);
    }
    return ERR_UNSUPPORTED;
}

static RESULT decode(struct cursor *in, struct command *c) {
    uint8_t op, flags;
    TRY(cursor_u8(in, &op));
    TRY(cursor_u8(in, &flags));
    if ((flags & ~FLAG_TOKEN) != 0) return ERR_UNSUPPORTED;
    c->op = (enum op)op;
    c->has_token = (flags & FLAG_TOKEN) != 0;
    if (c->has_token) TRY(cursor_copy(in, c->token, TOKEN_SIZE));
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
    return buf_add(out, packed, sizeof packed);
}

RESULT result_decode(struct span bytes, struct result *out) {
    if (bytes.size != RESULT_SIZE) return ERR_PROTOCOL;
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
    return OK;
}
