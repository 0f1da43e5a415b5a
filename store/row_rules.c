/* What must hold between rows, whoever proposes: judged while an OP_ROWS is applied (row_apply.c),
 * so that two proposers who have not seen each other's changes can't break it together. The bytes
 * of a body were checked before (row_change_next).
 *
 *   1. A token's uses never pass their maximum. They go down, and its hash and role change, only
 *      when its epoch goes up (a rotation); one that is not derived has epoch 0 for ever.
 *   2. Some node stays a manager, and is wanted as one, once there was one.
 *   3. A granted manager that is on the quorum's roll is not removed.
 *   4. No two nodes have the same key, no two tokens the same hash, and one token a role stands.
 *   5. There is one row of settings, which has the cluster's id and stays.
 *   6. Counts and bytes have their bounds (limits.h).
 *   7. A secret keeps its name; its versions stay as they are and are numbered upwards. A value is
 *      only wrapped anew, under a higher epoch.
 *   8. A task keeps its service and slot, and its node once it has one; it never goes back.
 *   9. There is one row of cluster keys, which has the cluster's id and stays. Epochs go up; an
 *      epoch's key stays the same; the next one becomes the current one when a majority of the
 *      quorum's roll holds it.
 *
 * What holds between rows of different kinds is in row_between.c. */
#include "store/join_token.h"
#include "store/rows.h"
#include "store/spec.h"
#include "store/vault.h"

#include <assert.h>

/* --- bodies --- */

static struct node_row node_of(const struct row *r) {
    struct node_row node;
    enum err e = node_row_decode(r->body, &node);
    assert(e == OK);
    return node;
}

static struct join_token token_of(const struct row *r) {
    struct join_token token;
    enum err e = join_token_decode(r->body, &token);
    assert(e == OK);
    return token;
}

/* --- counts --- */

void row_counted(struct rows *r, const struct row *row, bool there) {
    if (row->kind != ROW_NODE) return;
    struct node_row node = node_of(row);
    if (node.granted != NODE_MANAGER) return;
    r->managers += there ? 1 : UINT64_MAX;
    if (node.desired == NODE_MANAGER) r->staying += there ? 1 : UINT64_MAX;
}

/* --- one row --- */

static RESULT rules_of_token(const struct row *before, const struct row *after) {
    if (before == NULL || after == NULL) return OK;
    struct join_token old = token_of(before), now = token_of(after);
    if (old.epoch > 0 && now.epoch > old.epoch) return OK;
    bool same = now.epoch == old.epoch && now.role == old.role && now.used >= old.used &&
                memcmp(now.hash, old.hash, sizeof old.hash) == 0;
    return same ? OK : ERR_PRECONDITION;
}

static RESULT rules_of_node(const struct cluster *c, const struct row *before,
                            const struct row *after) {
    if (after != NULL) return OK;
    struct node_row node = node_of(before);
    if (node.granted != NODE_MANAGER) return OK;
    bool member =
        cluster_node(c, node.raft_id) != NULL || cluster_node_by_id(c, before->id) != NULL;
    return member ? ERR_PRECONDITION : OK;
}

static bool same_version(const struct held_version *a, const struct held_version *b) {
    return strcmp(a->value_id, b->value_id) == 0 && a->size == b->size &&
           a->created_ns == b->created_ns;
}

/* What there was stays what it was; what is new has a number that was never given. */
static RESULT rules_of_held(const struct row *before, const struct row *after) {
    struct held_row old, now;
    if (before == NULL || after == NULL) return OK;
    if (!span_equal(before->name, after->name)) return ERR_PRECONDITION;
    if (held_decode(before->body, &old) != OK || held_decode(after->body, &now) != OK)
        return ERR_PRECONDITION;
    if (now.next_version < old.next_version) return ERR_PRECONDITION;
    for (unsigned i = 0; i < now.n; i++) {
        const struct held_version *v = &now.versions[i], *was = held_version(&old, v->number);
        bool good = was != NULL ? same_version(was, v) : v->number >= old.next_version;
        if (!good) return ERR_PRECONDITION;
    }
    return OK;
}

/* It is only ever wrapped anew. */
static RESULT rules_of_value(const struct row *before, const struct row *after) {
    struct value_row old, now;
    if (before == NULL || after == NULL) return OK;
    if (value_decode(before->body, &old) != OK || value_decode(after->body, &now) != OK)
        return ERR_PRECONDITION;
    bool same = now.of == old.of && strcmp(now.held_id, old.held_id) == 0 &&
                now.version == old.version && span_equal(now.sealed, old.sealed);
    return same && now.epoch > old.epoch ? OK : ERR_PRECONDITION;
}

static RESULT rules_of_task(const struct row *before, const struct row *after) {
    struct task_row old, now;
    if (before == NULL || after == NULL) return OK;
    if (task_decode(before->body, &old) != OK || task_decode(after->body, &now) != OK)
        return ERR_PRECONDITION;
    bool same = strcmp(now.service_id, old.service_id) == 0 && now.slot == old.slot &&
                (old.node_id[0] == '\0' || strcmp(now.node_id, old.node_id) == 0);
    return same && now.state >= old.state && now.desired >= old.desired ? OK : ERR_PRECONDITION;
}

/* Do the holders of its current key make a majority of the quorum's roll? */
static bool held_by_majority(const struct cluster *c, const struct vault_row *v) {
    unsigned n = 0;
    for (unsigned i = 0; i < v->n; i++)
        n += cluster_node_by_id(c, v->holders[i]) != NULL;
    return v->next == 0 && n > c->n / 2;
}

static bool same_key(const struct vault_row *a, unsigned i, const struct vault_row *b, unsigned k) {
    return memcmp(a->key_ids[i], b->key_ids[k], sizeof a->key_ids[i]) == 0;
}

/* A key that is on its way arrives, or gives way to one of a higher epoch. */
static RESULT rules_of_next(const struct vault_row *old, const struct vault_row *now) {
    if (now->next == 0) return old->next == 0 || now->current == old->next ? OK : ERR_PRECONDITION;
    if (now->next == old->next) return same_key(now, 1, old, 1) ? OK : ERR_PRECONDITION;
    return now->next > old->next ? OK : ERR_PRECONDITION;
}

static RESULT rules_of_current(const struct cluster *c, const struct vault_row *old,
                               const struct vault_row *now) {
    if (now->current == old->current) return same_key(now, 0, old, 0) ? OK : ERR_PRECONDITION;
    bool next = now->current == old->next && same_key(now, 0, old, 1);
    return next && held_by_majority(c, now) ? OK : ERR_PRECONDITION;
}

static RESULT rules_of_vault(const struct cluster *c, const struct row *before,
                             const struct row *after) {
    struct vault_row old, now;
    if (after == NULL || strcmp(after->id, c->id) != 0) return ERR_PRECONDITION;
    if (vault_row_decode(after->body, &now) != OK) return ERR_PRECONDITION;
    if (before == NULL)
        return now.current == 0 || held_by_majority(c, &now) ? OK : ERR_PRECONDITION;
    if (vault_row_decode(before->body, &old) != OK) return ERR_PRECONDITION;
    if (now.oldest < old.oldest) return ERR_PRECONDITION;
    TRY(rules_of_next(&old, &now));
    return rules_of_current(c, &old, &now);
}

RESULT row_rules_one(const struct cluster *c, const struct row *before, const struct row *after) {
    switch (before != NULL ? before->kind : after->kind) {
    case ROW_SPEC: return after != NULL && strcmp(after->id, c->id) == 0 ? OK : ERR_PRECONDITION;
    case ROW_NODE: return rules_of_node(c, before, after);
    case ROW_TOKEN: return rules_of_token(before, after);
    case ROW_SECRET:
    case ROW_CONFIG: return rules_of_held(before, after);
    case ROW_VALUE: return rules_of_value(before, after);
    case ROW_SERVICE: return OK;
    case ROW_TASK: return rules_of_task(before, after);
    case ROW_AUDIT: break; /* they are put and go by themselves (row_apply.c) */
    case ROW_VAULT: return rules_of_vault(c, before, after);
    }
    return ERR_INVALID;
}

/* --- all rows --- */

static bool too_many(const struct rows *r) {
    return r->n[ROW_NODE] > ROW_NODES_MAX || r->n[ROW_TOKEN] > ROW_TOKENS_MAX ||
           r->n[ROW_SECRET] > ROW_HELD_MAX || r->n[ROW_CONFIG] > ROW_HELD_MAX ||
           r->n[ROW_SERVICE] > ROW_SERVICES_MAX || r->n[ROW_TASK] > ROW_TASKS_MAX ||
           r->n[ROW_AUDIT] > AUDIT_MAX;
}

RESULT row_rules_all(const struct rows *before, const struct rows *after) {
    if (before->managers > 0 && after->managers == 0) return ERR_PRECONDITION;
    if (before->staying > 0 && after->staying == 0) return ERR_PRECONDITION;
    if (too_many(after)) return ERR_TOO_LARGE;
    return after->bytes > ROWS_BYTES_MAX ? ERR_TOO_LARGE : OK;
}
