/* What each kind of row says: is a body well made, is a name, and which marks the row has beside it
 * in the tree (rows.h). A mark is a key that one row only may have (a name, a node's key), or says
 * what the row belongs to, so that the rows of one owner lie together; such a mark ends in the
 * row's own id and meets no other's. Behind the kind's byte:
 *
 *   node:     its key's digest                     token:  its hash; a standing one: its role
 *   value:    u32 epoch, big-endian, id            service: of each ref once: its id, 0, id
 *   task:     'S', service id, 0, id; when it is placed 'N', node id, 0, id */
#include <assert.h>

#include "store/audit.h"
#include "store/join_token.h"
#include "store/rows.h"
#include "store/spec.h"
#include "store/vault.h"

/* --- bodies --- */

static RESULT check_held(enum row_kind kind, struct span body) {
    struct held_row held;
    TRY(held_decode(body, &held));
    if (kind == ROW_CONFIG) return held.driver[0] == '\0' ? OK : ERR_INVALID;
    for (unsigned i = 0; i < held.n; i++)
        if (held.versions[i].size > SECRET_SIZE_MAX) return ERR_INVALID;
    return OK;
}

static RESULT check_value(struct span body) {
    struct value_row value;
    return value_decode(body, &value);
}

static RESULT check_service(struct span body) {
    struct service_row service;
    return service_decode(body, &service);
}

static RESULT check_task(struct span body) {
    struct task_row task;
    return task_decode(body, &task);
}

static RESULT check_record(struct span body) {
    struct audit_record record;
    return audit_decode(body, &record);
}

static RESULT check_vault(struct span body) {
    struct vault_row vault;
    return vault_row_decode(body, &vault);
}

static RESULT check_spec(struct span body) {
    struct spec spec;
    return spec_decode(body, &spec);
}

static RESULT check_node(struct span body) {
    struct node_row node;
    return node_row_decode(body, &node);
}

static RESULT check_token(struct span body) {
    struct join_token token;
    return join_token_decode(body, &token);
}

RESULT row_body_check(enum row_kind kind, struct span body) {
    enum err e = ERR_INVALID;
    switch (kind) {
    case ROW_SPEC: e = check_spec(body); break;
    case ROW_NODE: e = check_node(body); break;
    case ROW_TOKEN: e = check_token(body); break;
    case ROW_SECRET:
    case ROW_CONFIG: e = check_held(kind, body); break;
    case ROW_VALUE: e = check_value(body); break;
    case ROW_SERVICE: e = check_service(body); break;
    case ROW_TASK: e = check_task(body); break;
    case ROW_AUDIT: e = check_record(body); break;
    case ROW_VAULT: e = check_vault(body); break;
    }
    return e == OK ? OK : ERR_INVALID;
}

RESULT row_name_check(enum row_kind kind, struct span name) {
    switch (kind) {
    case ROW_SPEC:
    case ROW_NODE:
    case ROW_TOKEN:
    case ROW_VAULT: return OK;
    case ROW_SECRET:
    case ROW_CONFIG: return held_name_check(name, NULL);
    case ROW_SERVICE: return name.size >= 1 && name.size <= SERVICE_NAME_MAX ? OK : ERR_INVALID;
    case ROW_VALUE:
    case ROW_TASK:
    case ROW_AUDIT: return name.size == 0 ? OK : ERR_INVALID;
    }
    return ERR_INVALID;
}

/* --- keys of marks --- */

static struct row_key begin(enum row_kind kind) {
    struct row_key k;
    k.bytes[0] = (uint8_t)(kind | ROW_MARK);
    k.size = 1;
    return k;
}

static void add(struct row_key *k, struct span s) {
    assert(k->size + s.size <= sizeof k->bytes);
    memcpy(k->bytes + k->size, s.at, s.size);
    k->size += s.size;
}

/* An owner's id, and the byte that no id has and that goes before all of them. */
static void add_owner(struct row_key *k, const char *id) {
    add(k, span_of(id, strnlen(id, NODE_ID_SIZE)));
    add(k, span_of("", 1));
}

struct row_key mark_of_service(const char *service_id) {
    struct row_key k = begin(ROW_TASK);
    add(&k, span_str("S"));
    add_owner(&k, service_id);
    return k;
}

struct row_key mark_of_node(const char *node_id) {
    struct row_key k = begin(ROW_TASK);
    add(&k, span_str("N"));
    add_owner(&k, node_id);
    return k;
}

struct row_key mark_of_held(const char *held_id) {
    struct row_key k = begin(ROW_SERVICE);
    add_owner(&k, held_id);
    return k;
}

uint32_t value_epoch_lowest(const struct tree_node *root) {
    struct row_key k = begin(ROW_VALUE);
    struct tree_cursor c;
    tree_seek(root, row_key_span(&k), &c);
    const struct item *i = tree_next(&c);
    if (i == NULL || item_key(i).at[0] != k.bytes[0]) return UINT32_MAX;
    const uint8_t *at = item_key(i).at + 1;
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* --- marks of a row --- */

static void put(struct row_marks *m, struct row_key k) {
    assert(m->n < ROW_MARKS_MAX);
    m->at[m->n++] = k;
}

static void put_unique(struct row_marks *m, enum row_kind kind, struct span unique) {
    struct row_key k = begin(kind);
    add(&k, unique);
    put(m, k);
}

static void put_owned(struct row_marks *m, struct row_key owner, const char *id) {
    add(&owner, span_str(id));
    put(m, owner);
}

static void mark_node(const struct row *r, struct row_marks *out) {
    static const uint8_t none[NODE_DIGEST_SIZE];
    struct node_row node;
    enum err e = node_row_decode(r->body, &node);
    assert(e == OK);
    if (memcmp(node.key_digest, none, sizeof none) == 0) return; /* it has no certificate yet */
    put_unique(out, r->kind, span_of(node.key_digest, sizeof node.key_digest));
}

static void mark_token(const struct row *r, struct row_marks *out) {
    struct join_token token;
    enum err e = join_token_decode(r->body, &token);
    assert(e == OK);
    uint8_t role = (uint8_t)token.role;
    put_unique(out, r->kind, span_of(token.hash, sizeof token.hash));
    if (token.epoch > 0) put_unique(out, r->kind, span_of(&role, 1));
}

static void mark_value(const struct row *r, struct row_marks *out) {
    struct value_row value;
    enum err e = value_decode(r->body, &value);
    assert(e == OK);
    uint8_t epoch[4] = {(uint8_t)(value.epoch >> 24), (uint8_t)(value.epoch >> 16),
                        (uint8_t)(value.epoch >> 8), (uint8_t)value.epoch};
    struct row_key k = begin(ROW_VALUE);
    add(&k, span_of(epoch, sizeof epoch));
    put_owned(out, k, r->id);
}

static bool named_before(const struct service_row *s, unsigned ref) {
    for (unsigned i = 0; i < ref; i++)
        if (strcmp(s->refs[i].id, s->refs[ref].id) == 0) return true;
    return false;
}

static void mark_service(const struct row *r, struct row_marks *out) {
    struct service_row service;
    enum err e = service_decode(r->body, &service);
    assert(e == OK);
    for (unsigned i = 0; i < service.n; i++)
        if (!named_before(&service, i)) put_owned(out, mark_of_held(service.refs[i].id), r->id);
}

static void mark_task(const struct row *r, struct row_marks *out) {
    struct task_row task;
    enum err e = task_decode(r->body, &task);
    assert(e == OK);
    put_owned(out, mark_of_service(task.service_id), r->id);
    if (task.node_id[0] != '\0') put_owned(out, mark_of_node(task.node_id), r->id);
}

void row_marks_of(const struct row *r, struct row_marks *out) {
    out->n = row_name_mark(r, &out->at[0]) ? 1 : 0;
    switch (r->kind) {
    case ROW_NODE: mark_node(r, out); break;
    case ROW_TOKEN: mark_token(r, out); break;
    case ROW_VALUE: mark_value(r, out); break;
    case ROW_SERVICE: mark_service(r, out); break;
    case ROW_TASK: mark_task(r, out); break;
    case ROW_SPEC:
    case ROW_SECRET:
    case ROW_CONFIG:
    case ROW_AUDIT:
    case ROW_VAULT: break;
    }
}
