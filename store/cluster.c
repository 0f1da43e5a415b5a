/* The cluster's own state: look-ups, the commands that change it, and its bytes in a snapshot. Rows
 * stand in one array ascending by raft id; ids and names are unique; next_raft_id is above all that
 * ever were.
 *
 *   node:    u64 raft id > 0, text id, text name, text client address, text peer address, u64
 * joined_s; id and name are not empty cluster: u8 initialised, text id, u64 created_s, block
 * root_pem, block root_key, 32 bytes token hash, u8 locked, [32 bytes unlock key], u64 next raft
 * id, u32 n, n nodes */
#include "store/cluster.h"

#include <stdlib.h>

#include <sodium.h>

#include "store/command.h"

void token_hash(const char *secret_text, uint8_t out[TOKEN_HASH_SIZE]) {
    (void)crypto_generichash(out, TOKEN_HASH_SIZE, (const uint8_t *)secret_text,
                             strlen(secret_text), NULL, 0);
}

/* --- look-ups --- */

const struct node *cluster_node(const struct cluster *c, uint64_t raft_id) {
    for (unsigned i = 0; i < c->n; i++)
        if (c->nodes[i].raft_id == raft_id) return &c->nodes[i];
    return NULL;
}

const struct node *cluster_node_by_id(const struct cluster *c, const char *id) {
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->nodes[i].id, id) == 0) return &c->nodes[i];
    return NULL;
}

static const struct node *node_by_name(const struct cluster *c, const char *name) {
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->nodes[i].name, name) == 0) return &c->nodes[i];
    return NULL;
}

RESULT cluster_find(const struct cluster *c, const char *text, const struct node **out,
                    struct why *why) {
    const struct node *found = cluster_node_by_id(c, text);
    if (found == NULL) found = node_by_name(c, text);
    size_t size = strlen(text);
    for (unsigned i = 0; found == NULL && size >= 3 && i < c->n; i++) {
        if (strncmp(c->nodes[i].id, text, size) != 0) continue;
        for (unsigned k = i + 1; k < c->n; k++)
            if (strncmp(c->nodes[k].id, text, size) == 0)
                return fail_with(why, ERR_INVALID, "\"%s\" begins the ids of more than one node",
                                 text);
        found = &c->nodes[i];
    }
    if (found == NULL) return fail_with(why, ERR_NOT_FOUND, "there is no node \"%s\"", text);
    *out = found;
    return OK;
}

/* --- life --- */

RESULT cluster_new(struct cluster **out) {
    struct cluster *c = calloc(1, sizeof *c);
    if (c == NULL) return ERR_NOMEM;
    c->root_pem = buf_new(PEM_MAX);
    c->next_raft_id = 1;
    *out = c;
    return OK;
}

void cluster_free(struct cluster *c) {
    if (c == NULL) return;
    buf_free(&c->root_pem);
    secret_free(c->root_key);
    secret_free(c->unlock_key);
    free(c);
}

RESULT cluster_copy(const struct cluster *c, struct cluster **out) {
    struct cluster *copy = malloc(sizeof *copy);
    if (copy == NULL) return ERR_NOMEM;
    *copy = *c;
    copy->root_pem = buf_new(PEM_MAX);
    copy->root_key = NULL;
    copy->unlock_key = NULL;
    enum err e = buf_add_span(&copy->root_pem, buf_span(&c->root_pem));
    if (e == OK && c->root_key != NULL) e = secret_copy(c->root_key, &copy->root_key);
    if (e == OK && c->unlock_key != NULL) e = secret_copy(c->unlock_key, &copy->unlock_key);
    if (e != OK) {
        cluster_free(copy);
        return e;
    }
    *out = copy;
    return OK;
}

/* --- commands --- */

/* Nothing is left of the cluster that a restored state was of: no row, no key, no token. */
static void forget_cluster(struct cluster *c) {
    buf_free(&c->root_pem);
    secret_free(c->root_key);
    secret_free(c->unlock_key);
    c->root_key = c->unlock_key = NULL;
    memset(c->nodes, 0, sizeof c->nodes);
}

static RESULT make_cluster(struct cluster *c, const struct command *command, enum err *outcome) {
    bool taken = c->initialised && !command->cluster.replace;
    if (taken || command->cluster.first.raft_id == UINT64_MAX) {
        *outcome = taken ? ERR_EXISTS : ERR_PRECONDITION;
        return OK;
    }
    forget_cluster(c);
    TRY(buf_add_span(&c->root_pem, command->cluster.root_pem));
    TRY(secret_new(command->cluster.root_key.at, command->cluster.root_key.size, &c->root_key));
    memcpy(c->id, command->cluster.id, sizeof c->id);
    memcpy(c->token_hash, command->cluster.token_hash, TOKEN_HASH_SIZE);
    c->created_s = command->cluster.now_s;
    c->nodes[0] = command->cluster.first;
    c->n = 1;
    c->next_raft_id = c->nodes[0].raft_id + 1;
    c->initialised = true;
    return OK;
}

static enum err add_node(struct cluster *c, const struct node *n) {
    if (cluster_node_by_id(c, n->id) != NULL || node_by_name(c, n->name) != NULL) return ERR_EXISTS;
    if (n->raft_id < c->next_raft_id || n->raft_id == UINT64_MAX) return ERR_PRECONDITION;
    if (c->n == NODES_MAX) return ERR_TOO_LARGE;
    c->nodes[c->n++] = *n;
    c->next_raft_id = n->raft_id + 1;
    return OK;
}

static enum err remove_node(struct cluster *c, uint64_t raft_id) {
    const struct node *n = cluster_node(c, raft_id);
    if (n == NULL) return ERR_NOT_FOUND;
    size_t at = (size_t)(n - c->nodes);
    memmove(c->nodes + at, c->nodes + at + 1, (c->n - 1 - at) * sizeof c->nodes[0]);
    c->n--;
    return OK;
}

static enum err update_node(struct cluster *c, const struct node *to) {
    const struct node *found = cluster_node(c, to->raft_id);
    if (found == NULL) return ERR_NOT_FOUND;
    const struct node *named = node_by_name(c, to->name);
    if (named != NULL && named != found) return ERR_EXISTS;
    struct node *n = &c->nodes[found - c->nodes];
    memcpy(n->name, to->name, sizeof n->name);
    memcpy(n->client_address, to->client_address, sizeof n->client_address);
    memcpy(n->peer_address, to->peer_address, sizeof n->peer_address);
    return OK;
}

static RESULT set_lock(struct cluster *c, struct span key) {
    struct secret *unlock_key = NULL;
    if (key.size != 0) TRY(secret_new(key.at, key.size, &unlock_key));
    secret_free(c->unlock_key);
    c->unlock_key = unlock_key;
    return OK;
}

RESULT cluster_apply(struct cluster *c, const struct command *command, enum err *outcome) {
    *outcome = OK;
    if (command->op == OP_CLUSTER) return make_cluster(c, command, outcome);
    if (!c->initialised) {
        *outcome = ERR_PRECONDITION;
        return OK;
    }
    switch (command->op) {
    case OP_NODE_ADD: *outcome = add_node(c, &command->node); return OK;
    case OP_NODE_REMOVE: *outcome = remove_node(c, command->raft_id); return OK;
    case OP_NODE_UPDATE: *outcome = update_node(c, &command->node); return OK;
    case OP_TOKEN: memcpy(c->token_hash, command->token_hash, TOKEN_HASH_SIZE); return OK;
    case OP_LOCK: return set_lock(c, command->unlock_key);
    case OP_CLUSTER:
    case OP_PUT:
    case OP_DELETE:
    case OP_BATCH: break;
    }
    *outcome = ERR_UNSUPPORTED;
    return OK;
}

/* --- bytes --- */

RESULT node_encode(const struct node *n, struct buf *out) {
    if (n->raft_id == 0 || n->id[0] == '\0' || n->name[0] == '\0') return ERR_INVALID;
    TRY(buf_u64(out, n->raft_id));
    TRY(buf_block(out, span_str(n->id)));
    TRY(buf_block(out, span_str(n->name)));
    TRY(buf_block(out, span_str(n->client_address)));
    TRY(buf_block(out, span_str(n->peer_address)));
    return buf_u64(out, (uint64_t)n->joined_s);
}

static RESULT decode_node(struct cursor *in, struct node *out) {
    uint64_t joined_s;
    TRY(cursor_u64(in, &out->raft_id));
    TRY(cursor_text(in, out->id, sizeof out->id));
    TRY(cursor_text(in, out->name, sizeof out->name));
    TRY(cursor_text(in, out->client_address, sizeof out->client_address));
    TRY(cursor_text(in, out->peer_address, sizeof out->peer_address));
    TRY(cursor_u64(in, &joined_s));
    out->joined_s = (int64_t)joined_s;
    return out->raft_id != 0 && out->id[0] != '\0' && out->name[0] != '\0' ? OK : ERR_PROTOCOL;
}

RESULT node_decode(struct cursor *in, struct node *out) {
    /* Whole rows are copied about and compared: no byte of them may be left undefined. */
    memset(out, 0, sizeof *out);
    return decode_node(in, out) == OK ? OK : ERR_INVALID;
}

static struct span span_or_none(const struct secret *s) {
    return s != NULL ? secret_span(s) : span_of(NULL, 0);
}

RESULT cluster_encode(const struct cluster *c, struct buf *out) {
    TRY(buf_reserve(out,
                    CLUSTER_BYTES_MAX)); /* never moved, so that no copy of a key stays behind */
    TRY(buf_u8(out, c->initialised));
    TRY(buf_block(out, span_str(c->id)));
    TRY(buf_u64(out, (uint64_t)c->created_s));
    TRY(buf_block(out, buf_span(&c->root_pem)));
    TRY(buf_block(out, span_or_none(c->root_key)));
    TRY(buf_add(out, c->token_hash, TOKEN_HASH_SIZE));
    TRY(buf_u8(out, c->unlock_key != NULL));
    TRY(buf_add_span(out, span_or_none(c->unlock_key)));
    TRY(buf_u64(out, c->next_raft_id));
    TRY(buf_u32(out, c->n));
    for (unsigned i = 0; i < c->n; i++)
        TRY(node_encode(&c->nodes[i], out));
    return OK;
}

static RESULT decode_flag(struct cursor *in, bool *out) {
    uint8_t flag;
    TRY(cursor_u8(in, &flag));
    *out = flag == 1;
    return flag <= 1 ? OK : ERR_CORRUPT;
}

static RESULT decode_keys(struct cursor *in, struct cluster *c) {
    struct span pem, key;
    bool locked;
    TRY(cursor_block(in, PEM_MAX, &pem));
    TRY(cursor_block(in, PEM_MAX, &key));
    TRY(buf_add_span(&c->root_pem, pem));
    if (key.size != 0) TRY(secret_new(key.at, key.size, &c->root_key));
    TRY(cursor_copy(in, c->token_hash, TOKEN_HASH_SIZE));
    TRY(decode_flag(in, &locked));
    if (!locked) return OK;
    TRY(cursor_bytes(in, KEY_SIZE, &key));
    return secret_new(key.at, key.size, &c->unlock_key);
}

static RESULT decode_nodes(struct cursor *in, struct cluster *c) {
    uint32_t n;
    struct node node;
    uint64_t next_raft_id;
    TRY(cursor_u64(in, &next_raft_id));
    TRY(cursor_u32(in, &n));
    for (uint32_t i = 0; i < n; i++) {
        TRY(node_decode(in, &node));
        TRY(add_node(c, &node));
    }
    if (next_raft_id < c->next_raft_id) return ERR_CORRUPT;
    c->next_raft_id = next_raft_id;
    return cursor_end(in);
}

static RESULT decode_cluster(struct cursor *in, struct cluster *c) {
    uint64_t created_s;
    TRY(decode_flag(in, &c->initialised));
    TRY(cursor_text(in, c->id, sizeof c->id));
    TRY(cursor_u64(in, &created_s));
    c->created_s = (int64_t)created_s;
    TRY(decode_keys(in, c));
    TRY(decode_nodes(in, c));
    bool made = c->id[0] != '\0' && c->root_pem.size != 0 && c->root_key != NULL;
    return c->initialised == made ? OK : ERR_CORRUPT;
}

RESULT cluster_decode(struct span bytes, struct cluster **out) {
    struct cursor in = cursor_of(bytes);
    struct cluster *c;
    TRY(cluster_new(&c));
    enum err e = decode_cluster(&in, c);
    if (e != OK) {
        cluster_free(c);
        return e == ERR_NOMEM ? e : ERR_CORRUPT;
    }
    *out = c;
    return OK;
}
