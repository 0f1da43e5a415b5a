/* The cluster's own state: look-ups, the commands that change it, and its bytes in a snapshot. The
 * roll stands in one array ascending by raft id; ids and names are unique; next_raft_id is above
 * all that ever were.
 *
 *   node:    u64 raft id > 0, text id, text name, text client address, text peer address, u64
 *            joined_s; id and name are not empty
 *   ca:      block root_pem, block issuer_pem, block key (empty: none)
 *   cluster: u8 initialised, text id, u64 created_s, ca, ca next, block cross_pem, u32 bytes of it
 *            that are new, block retired_pem, u64 rotation, block join key (0 or 32 bytes), block
 *            unlock key (the same), u64 next raft id, u32 n, n nodes */
#include "store/cluster.h"

#include <sodium.h>
#include <stdlib.h>

#include "store/command.h"

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

static void ca_start(struct ca *a) {
    *a = (struct ca){.root_pem = buf_new(PEM_MAX), .issuer_pem = buf_new(PEM_MAX)};
}

static void ca_end(struct ca *a) {
    buf_free(&a->root_pem);
    buf_free(&a->issuer_pem);
    secret_free(a->key);
    a->key = NULL;
}

/* Into an empty one. */
static RESULT ca_set(struct ca *a, const struct ca_spans *from) {
    TRY(buf_add_span(&a->root_pem, from->root_pem));
    TRY(buf_add_span(&a->issuer_pem, from->issuer_pem));
    return from->key.size == 0 ? OK : secret_new(from->key.at, from->key.size, &a->key);
}

static struct span span_or_none(const struct secret *s) {
    return s != NULL ? secret_span(s) : span_of(NULL, 0);
}

static struct ca_spans spans_of(const struct ca *a) {
    return (struct ca_spans){.root_pem = buf_span(&a->root_pem),
                             .issuer_pem = buf_span(&a->issuer_pem),
                             .key = span_or_none(a->key)};
}

/* What owns memory, empty. */
static void start(struct cluster *c) {
    ca_start(&c->ca);
    ca_start(&c->next);
    c->cross_pem = buf_new(PEM_MAX);
    c->retired_pem = buf_new(PEM_MAX);
    c->join_key = c->unlock_key = NULL;
}

/* Nothing of it is left. */
static void end(struct cluster *c) {
    ca_end(&c->ca);
    ca_end(&c->next);
    buf_free(&c->cross_pem);
    buf_free(&c->retired_pem);
    secret_free(c->join_key);
    secret_free(c->unlock_key);
    c->join_key = c->unlock_key = NULL;
}

RESULT cluster_new(struct cluster **out) {
    struct cluster *c = calloc(1, sizeof *c);
    if (c == NULL) return ERR_NOMEM;
    start(c);
    c->next_raft_id = 1;
    *out = c;
    return OK;
}

void cluster_free(struct cluster *c) {
    if (c == NULL) return;
    end(c);
    free(c);
}

static RESULT copy_secret(const struct secret *s, struct secret **out) {
    return s == NULL ? OK : secret_copy(s, out);
}

static RESULT copy_owned(const struct cluster *c, struct cluster *copy) {
    struct ca_spans ca = spans_of(&c->ca), next = spans_of(&c->next);
    TRY(ca_set(&copy->ca, &ca));
    TRY(ca_set(&copy->next, &next));
    TRY(buf_add_span(&copy->cross_pem, buf_span(&c->cross_pem)));
    TRY(buf_add_span(&copy->retired_pem, buf_span(&c->retired_pem)));
    TRY(copy_secret(c->join_key, &copy->join_key));
    return copy_secret(c->unlock_key, &copy->unlock_key);
}

RESULT cluster_copy(const struct cluster *c, struct cluster **out) {
    struct cluster *copy = malloc(sizeof *copy);
    if (copy == NULL) return ERR_NOMEM;
    *copy = *c;
    start(copy);
    enum err e = copy_owned(c, copy);
    if (e != OK) {
        cluster_free(copy);
        return e;
    }
    *out = copy;
    return OK;
}

/* --- founding --- */

/* Nothing is left of the cluster that a restored state was of: no node, no key, no root. */
static void forget_cluster(struct cluster *c) {
    end(c);
    memset(c->nodes, 0, sizeof c->nodes);
    c->cross_new = 0;
    c->rotation = 0;
}

static RESULT make_cluster(struct cluster *c, const struct command *command, enum err *outcome) {
    bool taken = c->initialised && !command->cluster.replace;
    if (taken || command->cluster.first.raft_id == UINT64_MAX) {
        *outcome = taken ? ERR_EXISTS : ERR_PRECONDITION;
        return OK;
    }
    forget_cluster(c);
    TRY(ca_set(&c->ca, &command->cluster.ca));
    TRY(secret_new(command->cluster.join_key.at, command->cluster.join_key.size, &c->join_key));
    memcpy(c->id, command->cluster.id, sizeof c->id);
    c->created_s = command->cluster.now_s;
    c->nodes[0] = command->cluster.first;
    c->n = 1;
    c->next_raft_id = c->nodes[0].raft_id + 1;
    c->initialised = true;
    return OK;
}

/* --- rotating the root --- */

/* cross_pem is then `from`, and behind it what it had behind the running rotation's own. */
static RESULT set_cross(struct cluster *c, struct span from) {
    struct buf cross = buf_new(PEM_MAX);
    struct span kept = span_of(NULL, 0);
    if (c->cross_pem.size > c->cross_new)
        kept = span_of(c->cross_pem.at + c->cross_new, c->cross_pem.size - c->cross_new);
    enum err e = buf_add_span(&cross, from);
    if (e == OK) e = buf_add_span(&cross, kept);
    if (e != OK) {
        buf_free(&cross);
        return e;
    }
    buf_free(&c->cross_pem);
    c->cross_pem = cross;
    c->cross_new = from.size;
    return OK;
}

static RESULT start_rotation(struct cluster *c, const struct command *command) {
    TRY(set_cross(c, command->ca.cross_pem));
    ca_end(&c->next);
    TRY(ca_set(&c->next, &command->ca.next));
    c->rotation++;
    return OK;
}

static RESULT abort_rotation(struct cluster *c) {
    ca_end(&c->next);
    return set_cross(c, span_of(NULL, 0));
}

static RESULT finish_rotation(struct cluster *c, bool retire) {
    if (retire) TRY(buf_add_span(&c->retired_pem, buf_span(&c->ca.root_pem)));
    ca_end(&c->ca);
    c->ca = c->next;
    ca_start(&c->next);
    c->cross_new = 0;
    if (c->retired_pem.size == 0) buf_free(&c->cross_pem);
    return OK;
}

static RESULT forget_roots(struct cluster *c) {
    buf_free(&c->retired_pem);
    c->cross_pem.size = c->cross_new;
    if (c->cross_new == 0) buf_free(&c->cross_pem);
    return OK;
}

static RESULT change_ca(struct cluster *c, const struct command *command, enum err *outcome) {
    bool rotating = cluster_rotating(c);
    enum ca_action action = command->ca.action;
    enum err e = OK;
    if (command->ca.rotation != c->rotation)
        *outcome = ERR_CONFLICT;
    else if ((action == CA_ABORT || action == CA_FINISH) && !rotating)
        *outcome = ERR_PRECONDITION;
    if (*outcome != OK) return OK;
    switch (action) {
    case CA_START: e = start_rotation(c, command); break;
    case CA_ABORT: e = abort_rotation(c); break;
    case CA_FINISH: e = finish_rotation(c, command->ca.retire); break;
    case CA_FORGET: e = forget_roots(c); break;
    }
    if (e != ERR_TOO_LARGE) return e;
    *outcome = e; /* the roots that are to be remembered */
    return OK;
}

/* --- the roll and the lock --- */

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

void cluster_lock_digest(const struct cluster *c, uint8_t out[LOCK_DIGEST_SIZE]) {
    struct span key = span_or_none(c->unlock_key);
    (void)crypto_generichash(out, LOCK_DIGEST_SIZE, key.at, key.size, NULL, 0);
}

static RESULT set_lock(struct cluster *c, const struct command *command, enum err *outcome) {
    struct span key = command->unlock_key, replaces = command->lock_replaces;
    struct secret *unlock_key = NULL;
    uint8_t stands[LOCK_DIGEST_SIZE];
    cluster_lock_digest(c, stands);
    if (replaces.size != 0 && sodium_memcmp(replaces.at, stands, sizeof stands) != 0) {
        *outcome = ERR_CONFLICT;
        return OK;
    }
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
    case OP_CA: return change_ca(c, command, outcome);
    case OP_LOCK: return set_lock(c, command, outcome);
    case OP_CLUSTER:
    case OP_ROWS:
    case OP_PUT:
    case OP_DELETE:
    case OP_BATCH:
    case OP_TXN:
    case OP_COMPACT:
    case OP_IMPORT:
    case OP_LEASE_GRANT:
    case OP_LEASE_REVOKE:
    case OP_ALARM:
    case OP_AUTH: break;
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

static RESULT ca_encode(const struct ca *a, struct buf *out) {
    TRY(buf_block(out, buf_span(&a->root_pem)));
    TRY(buf_block(out, buf_span(&a->issuer_pem)));
    return buf_block(out, span_or_none(a->key));
}

/* Room for all, so that the bytes are never moved and no copy of a key stays behind. */
static RESULT reserve(const struct cluster *c, struct buf *out) {
    size_t nodes = c->n * (sizeof(struct node) + 64);
    size_t pems = c->ca.root_pem.size + c->ca.issuer_pem.size + span_or_none(c->ca.key).size +
                  c->next.root_pem.size + c->next.issuer_pem.size + span_or_none(c->next.key).size +
                  c->cross_pem.size + c->retired_pem.size;
    return buf_reserve(out, nodes + pems + 1 * KIB);
}

RESULT cluster_encode(const struct cluster *c, struct buf *out) {
    TRY(reserve(c, out));
    TRY(buf_u8(out, c->initialised));
    TRY(buf_block(out, span_str(c->id)));
    TRY(buf_u64(out, (uint64_t)c->created_s));
    TRY(ca_encode(&c->ca, out));
    TRY(ca_encode(&c->next, out));
    TRY(buf_block(out, buf_span(&c->cross_pem)));
    TRY(buf_u32(out, (uint32_t)c->cross_new));
    TRY(buf_block(out, buf_span(&c->retired_pem)));
    TRY(buf_u64(out, c->rotation));
    TRY(buf_block(out, span_or_none(c->join_key)));
    TRY(buf_block(out, span_or_none(c->unlock_key)));
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

static RESULT decode_ca(struct cursor *in, struct ca *out) {
    struct ca_spans a;
    TRY(cursor_block(in, PEM_MAX, &a.root_pem));
    TRY(cursor_block(in, PEM_MAX, &a.issuer_pem));
    TRY(cursor_block(in, PEM_MAX, &a.key));
    if (a.root_pem.size == 0 && (a.issuer_pem.size != 0 || a.key.size != 0)) return ERR_CORRUPT;
    return ca_set(out, &a);
}

static RESULT decode_roots(struct cursor *in, struct cluster *c) {
    struct span pem;
    uint32_t cross_new;
    TRY(decode_ca(in, &c->ca));
    TRY(decode_ca(in, &c->next));
    TRY(cursor_block(in, PEM_MAX, &pem));
    TRY(buf_add_span(&c->cross_pem, pem));
    TRY(cursor_u32(in, &cross_new));
    if (cross_new > pem.size || (cross_new != 0 && !cluster_rotating(c))) return ERR_CORRUPT;
    if (cluster_rotating(c) && c->ca.root_pem.size == 0) return ERR_CORRUPT;
    c->cross_new = cross_new;
    TRY(cursor_block(in, PEM_MAX, &pem));
    TRY(buf_add_span(&c->retired_pem, pem));
    if (pem.size == 0 && c->cross_pem.size != c->cross_new) return ERR_CORRUPT;
    return cursor_u64(in, &c->rotation);
}

static RESULT decode_key(struct cursor *in, struct secret **out) {
    struct span key;
    TRY(cursor_block(in, KEY_SIZE, &key));
    if (key.size == 0) return OK;
    return key.size == KEY_SIZE ? secret_new(key.at, key.size, out) : ERR_CORRUPT;
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
    TRY(decode_roots(in, c));
    TRY(decode_key(in, &c->join_key));
    TRY(decode_key(in, &c->unlock_key));
    TRY(decode_nodes(in, c));
    bool made = c->id[0] != '\0' && c->ca.root_pem.size != 0 && c->join_key != NULL;
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
