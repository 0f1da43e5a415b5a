/* See vault.h. Here: what the leader does, one proposal at a time. Each step is a REPLACE of the
 * vault's row with the version that was read, so that a leader which has been deposed changes
 * nothing, and the next one goes on from where the row says. What the others hold they tell every
 * new leader anew (VAULT_HOLD).
 *
 *   no row ------------> key 1 kept -> CREATE (next = 1)
 *   next != 0 ---------> all who are connected hold it, and a majority -> current = next
 *   current is missing > hand over to a holder
 *   oldest < current --> values wrapped anew -> none is left below -> oldest = current
 *   their key is missing > hand over to a holder
 *   start, or a secret was shredded and nobody has rotated since
 *   -------------------> another key kept -> next */
#include "api/secret/vault_parts.h"

#include "api/manager_parts.h"
#include "api/node/roles.h"
#include "raft/loop.h"
#include "store/audit.h"

#define HAND_OVER_MS   3000      /* between two attempts */
#define SAVE_MS        2000      /* before another attempt to make a key */
#define SHRED_MS       5000      /* for whoever has shredded to ask for the rotation himself */
#define LOST_MS        2000      /* a new leader waits for holders to connect */
#define SPREAD_MAX_MS  10000     /* for those who are connected; then a majority is enough */
#define PASS_MS        1000      /* before all values are looked through once more */
#define WRAP_BYTES_MAX (1 * MIB) /* of values in one command, one more may pass */

#define SPREAD "is spread to the managers" /* detail of the record that a rotation begins with */

/* --- writing ---------------------------------------------------------------------------------- */

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct manager *m = w->ctx;
    m->vault->writing = false;
    if (e == OK) e = r->error;
    if (e != OK && e != ERR_CONFLICT && e != ERR_CLOSED && e != ERR_NOT_LEADER)
        log_event(m->config.log, LOG_WARNING, "keys", "a step of the cluster key: %s",
                  text[0] ? text : err_text(e));
    if (e == OK || e == ERR_CONFLICT) vault_wake(m);
}

static void propose(struct manager *m, const struct buf *changes, unsigned n) {
    struct vault *a = m->vault;
    a->write = (struct write){.done = on_written, .ctx = m, .proposal = {.here = true}};
    enum err e = rows_command(m, changes, n, &a->write);
    if (e == OK) e = manager_write(m, &a->write);
    a->writing = e == OK;
}

static RESULT add_row(struct manager *m, const struct row *row, const struct vault_row *v,
                      struct buf *changes) {
    struct row_change c = {.kind = ROW_VAULT};
    struct buf body = buf_new(ROW_BODY_MAX);
    c.action = row ? ROW_REPLACE : ROW_CREATE;
    c.version = row ? row->version : 0;
    memcpy(c.id, store_cluster(m->store)->id, sizeof c.id);
    enum err e = vault_row_encode(v, &body);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

static RESULT add_audit(struct manager *m, uint32_t epoch, const char *detail,
                        struct buf *changes) {
    char who[NODE_ID_SIZE + 16];
    (void)snprintf(who, sizeof who, "leader %s", m->self.node_id);
    struct audit_record a = {.what = AUDIT_ROTATE,
                             .kind = ROW_VAULT,
                             .who = span_str(who),
                             .version = epoch,
                             .detail = span_str(detail)};
    memcpy(a.id, store_cluster(m->store)->id, sizeof a.id);
    return audit_add(changes, &a);
}

/* `detail` NULL: nothing that the audit is told of. */
static void write_row(struct manager *m, const struct row *row, const struct vault_row *v,
                      uint32_t epoch, const char *detail) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    enum err e = add_row(m, row, v, &changes);
    if (e == OK && detail) e = add_audit(m, epoch, detail, &changes);
    if (e == OK) propose(m, &changes, detail ? 2 : 1);
    if (e != OK)
        log_event(m->config.log, LOG_ERROR, "keys", "a step of the cluster key: %s", err_text(e));
    if (m->vault->writing && detail)
        log_event(m->config.log, LOG_INFO, "keys", "the cluster key of epoch %u %s", epoch, detail);
    buf_free(&changes);
}

/* --- holders ---------------------------------------------------------------------------------- */

static const struct vault_holding *says(const struct vault *a, uint64_t raft_id) {
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (raft_id != 0 && a->holdings[i].raft_id == raft_id) return &a->holdings[i];
    return NULL;
}

static bool was_holder(const struct vault_row *v, const char *id) {
    for (unsigned i = 0; i < v->n; i++)
        if (strcmp(v->holders[i], id) == 0) return true;
    return false;
}

/* Does this member of the roll hold the key that is asked about: the next one, or the current? */
static bool holds(const struct manager *m, const struct vault_row *v, const struct node *n) {
    uint32_t epoch = v->next != 0 ? v->next : v->current;
    const uint8_t *id = v->key_ids[v->next != 0 ? 1 : 0];
    const struct vault_holding *h = says(m->vault, n->raft_id);
    if (n->raft_id == m->self.raft_id) return vault_held(m, v, epoch) != NULL;
    if (h) return h->epoch == epoch && memcmp(h->id, id, VAULT_KEY_ID) == 0;
    return was_holder(v, n->id);
}

static void add_holder(struct vault_row *v, const char *id) {
    unsigned at = v->n;
    if (v->n == MEMBERS_MAX) return;
    while (at > 0 && strcmp(v->holders[at - 1], id) > 0) {
        memcpy(v->holders[at], v->holders[at - 1], sizeof v->holders[at]);
        at--;
    }
    (void)snprintf(v->holders[at], sizeof v->holders[at], "%s", id);
    v->n++;
}

/* The row with the holders as they are now; true: they are others than it says. */
static bool with_holders(const struct manager *m, const struct vault_row *v,
                         struct vault_row *out) {
    const struct cluster *c = store_cluster(m->store);
    *out = *v;
    out->n = 0;
    memset(out->holders, 0, sizeof out->holders);
    for (unsigned i = 0; i < c->n; i++)
        if (holds(m, v, &c->nodes[i])) add_holder(out, c->nodes[i].id);
    bool same = out->n == v->n;
    for (unsigned i = 0; same && i < v->n; i++)
        same = strcmp(out->holders[i], v->holders[i]) == 0;
    return !same;
}

/* Is there a member that we hear, and that does not hold it yet? */
static bool is_awaited(struct manager *m, const struct vault_row *v) {
    struct replica_status status;
    replica_status(m->replica, &status);
    for (unsigned i = 0; i < status.n; i++) {
        const struct node *n = cluster_node(store_cluster(m->store), status.members[i].raft_id);
        if (n && admin_hears(m, &status.members[i]) && !holds(m, v, n)) return true;
    }
    return false;
}

bool vault_is_settled(struct manager *m) {
    struct replica_status status;
    struct row row;
    struct vault_row v;
    if (!vault_row_get(m->store, &row, &v) || v.next != 0 || v.oldest != v.current) return false;
    replica_status(m->replica, &status);
    for (unsigned i = 0; i < status.n; i++) {
        const struct replica_member *member = &status.members[i];
        const struct vault_holding *h = says(m->vault, member->raft_id);
        if (member->raft_id == m->self.raft_id || !admin_hears(m, member)) continue;
        if (vault_is_on_roll(m, member->raft_id) && (!h || h->lowest < v.oldest)) return false;
    }
    return !m->vault->unsaved && !m->vault->rekey;
}

/* --- the first key, the next key -------------------------------------------------------------- */

/* Another key, durable here before anybody hears of it. */
static RESULT make_key(struct manager *m, uint32_t epoch, uint8_t id[VAULT_KEY_ID]) {
    struct secret *key = NULL;
    struct why why = {0};
    enum err e = secret_random(KEY_SIZE, &key);
    if (e == OK) e = vault_keep(m, epoch, key, &why);
    if (e == OK)
        memcpy(id, vault_key_of(&m->self, epoch)->id, VAULT_KEY_ID);
    else
        log_event(m->config.log, LOG_ERROR, "keys", "no cluster key could be made: %s",
                  why.text[0] ? why.text : err_text(e));
    if (e != OK) m->vault->save_ms = vault_now(m) + SAVE_MS;
    secret_free(key);
    return e;
}

/* row NULL: there is none yet. */
static void spread_new(struct manager *m, const struct row *row, const struct vault_row *before) {
    struct vault_row v = *before;
    uint32_t highest = before->next > before->current ? before->next : before->current;
    if (highest == UINT32_MAX) return;
    v.next = highest + 1;
    if (make_key(m, v.next, v.key_ids[1]) != OK) return;
    v.n = 0;
    memset(v.holders, 0, sizeof v.holders);
    add_holder(&v, m->self.node_id);
    write_row(m, row, &v, v.next, SPREAD);
}

static void spread(struct manager *m, const struct row *row, const struct vault_row *before) {
    struct vault *a = m->vault;
    struct vault_row v;
    unsigned roll = store_cluster(m->store)->n;
    if (!vault_held(m, before, before->next)) {
        spread_new(m, row, before);
        return;
    }
    if (a->spread_epoch != before->next) a->spread_ms = vault_now(m);
    a->spread_epoch = before->next;
    bool news = with_holders(m, before, &v);
    bool waits = is_awaited(m, before) && vault_now(m) < a->spread_ms + SPREAD_MAX_MS;
    if (v.n <= roll / 2 || waits) {
        (void)snprintf(a->text, sizeof a->text,
                       "the key of epoch %u is being spread: %u of %u managers hold it",
                       before->next, v.n, roll);
        if (news) write_row(m, row, &v, v.next, NULL);
        return;
    }
    v.current = v.next;
    if (v.oldest == 0) v.oldest = v.current; /* the very first */
    v.next = 0;
    memcpy(v.key_ids[0], v.key_ids[1], VAULT_KEY_ID);
    memset(v.key_ids[1], 0, VAULT_KEY_ID);
    v.rotated_ns = m->clock.wall_ns(&m->clock);
    a->wrapped_to[0] = 0;
    a->wrap_ms = 0;
    a->text[0] = 0;
    write_row(m, row, &v, v.current, "is the current one");
}

/* --- a leader without a key ------------------------------------------------------------------- */

static bool says_he_holds(const struct manager *m, const struct vault_row *v, const struct node *n,
                          uint32_t epoch) {
    const struct vault_holding *h = says(m->vault, n->raft_id);
    if (epoch == v->current) return h && holds(m, v, n);
    return h && epoch - h->lowest < 8 && (h->held >> (epoch - h->lowest) & 1) != 0;
}

/* True: somebody who is connected holds it, and is asked to lead. His own word counts, not the
 * row's: two who have lost it would hand over to each other for ever. */
static bool hand_over(struct manager *m, const struct vault_row *v, uint32_t epoch) {
    struct vault *a = m->vault;
    struct replica_status status;
    struct why why = {0};
    bool any = false;
    replica_status(m->replica, &status);
    for (unsigned i = 0; i < status.n; i++) {
        const struct replica_member *member = &status.members[i];
        const struct node *n = cluster_node(store_cluster(m->store), member->raft_id);
        if (!n || member->raft_id == m->self.raft_id || member->role != REPLICA_VOTER) continue;
        if (!admin_hears(m, member) || !says_he_holds(m, v, n, epoch)) continue;
        any = true;
        if (vault_now(m) < a->hand_over_ms) break;
        a->hand_over_ms = vault_now(m) + HAND_OVER_MS;
        log_event(m->config.log, LOG_INFO, "keys",
                  "this leader misses the cluster key of epoch %u; %s is to lead, which holds it",
                  epoch, n->name);
        if (replica_transfer(m->replica, member->raft_id, &why) == OK) break;
        log_event(m->config.log, LOG_WARNING, "keys", "it can't: %s", why.text);
    }
    return any;
}

static void missing(struct manager *m, const struct row *row, const struct vault_row *v) {
    struct vault *a = m->vault;
    if (hand_over(m, v, v->current)) return;
    if (store_cluster(m->store)->n > 1 && vault_now(m) < m->led_since_ms + LOST_MS) return;
    if (!vault_values_below(m->store, v->current + 1)) { /* nothing is lost with it */
        spread_new(m, row, v);
        return;
    }
    if (!a->lost)
        log_event(m->config.log, LOG_ERROR, "keys",
                  "the cluster key of epoch %u is lost: no manager that can be reached holds it; "
                  "its escrow is needed (conclave key import-escrow)",
                  v->current);
    a->lost = true;
    if (a->start) {
        a->start = false;
        spread_new(m, row, v);
    }
}

/* --- wrapping anew ---------------------------------------------------------------------------- */

struct wrapping {
    struct manager *manager;
    const struct vault_row *vault;
    const struct vault_key *key; /* the current one */
    struct buf changes;
    unsigned n;
    bool full;
    enum err error;
};

static RESULT wrap(struct wrapping *w, const struct row *row, struct value_row *v,
                   const struct vault_key *old) {
    struct row_change c = {.action = ROW_REPLACE, .kind = ROW_VALUE, .version = row->version};
    struct buf body = buf_new(ROW_BODY_MAX);
    struct secret *data_key;
    TRY(vault_unwrap(old, row->id, v, &data_key));
    enum err e = vault_wrap(w->key, row->id, v, secret_span(data_key), v->wrapped);
    secret_free(data_key);
    v->epoch = w->key->epoch;
    memcpy(c.id, row->id, sizeof c.id);
    if (e == OK) e = value_encode(v, &body);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(&w->changes, &c);
    buf_free(&body);
    return e;
}

static bool look_at(void *ctx, const struct row *row) {
    struct wrapping *w = ctx;
    struct vault *a = w->manager->vault;
    struct value_row v;
    if (strcmp(row->id, a->wrapped_to) <= 0 && a->wrapped_to[0]) return true;
    if (w->n > 0 && w->changes.size + row->body.size > WRAP_BYTES_MAX) w->full = true;
    if (w->n == VAULT_WRAP_STEP) w->full = true;
    if (w->full) return false;
    memcpy(a->wrapped_to, row->id, sizeof a->wrapped_to);
    if (value_decode(row->body, &v) != OK || v.epoch >= w->vault->current) return true;
    const struct vault_key *old = vault_key_of(&w->manager->self, v.epoch);
    enum err e = old ? wrap(w, row, &v, old) : ERR_NOT_FOUND;
    if (e == OK) {
        w->n++;
    } else if (e == ERR_NOT_FOUND || e == ERR_CORRUPT) {
        a->stuck++;
    } else {
        w->error = e;
        return false;
    }
    return true;
}

/* Values are left that can't be wrapped. If their key is with another manager, he is to lead. */
static void stuck(struct manager *m, const struct vault_row *v) {
    struct vault *a = m->vault;
    uint32_t epoch = v->oldest;
    while (epoch < v->current && !vault_values_below(m->store, epoch + 1))
        epoch++;
    (void)snprintf(a->text, sizeof a->text,
                   "%u values can't be wrapped anew, because the key of their epoch is not held: "
                   "import its escrow, or remove them",
                   a->stuck);
    if (!vault_key_of(&m->self, epoch)) (void)hand_over(m, v, epoch);
}

static void wrap_step(struct manager *m, const struct row *row, const struct vault_row *before) {
    struct vault *a = m->vault;
    struct vault_row v;
    struct wrapping w = {.manager = m,
                         .vault = before,
                         .key = vault_held(m, before, before->current),
                         .changes = buf_new(COMMAND_MAX - 64 * KIB)};
    if (!vault_values_below(m->store, before->current)) {
        (void)with_holders(m, before, &v);
        v.oldest = v.current;
        a->text[0] = 0;
        write_row(m, row, &v, v.current, "wraps all values; older ones are destroyed");
        return;
    }
    if (!a->wrapped_to[0] && vault_now(m) < a->wrap_ms) return;
    if (!a->wrapped_to[0]) a->stuck = 0;
    row_from(m->store, ROW_VALUE, a->wrapped_to, look_at, &w);
    manager_wipe_stack(m);
    if (w.n > 0) propose(m, &w.changes, w.n);
    buf_free(&w.changes);
    if (w.n > 0 || w.full || w.error != OK) return;
    a->wrapped_to[0] = 0; /* from the beginning */
    a->wrap_ms = vault_now(m) + PASS_MS;
    if (a->stuck > 0) stuck(m, before);
}

/* --- shreddings that were left alone ---------------------------------------------------------- */

static bool note_record(void *ctx, const struct row *row) {
    struct vault *a = ctx;
    struct audit_link link;
    if (audit_read(row, &link) != OK) return true;
    a->audit_seen = link.number;
    if (link.is.what == AUDIT_SHRED) a->shred_number = link.number;
    if (link.is.what == AUDIT_ROTATE && span_equal(link.is.detail, span_str(SPREAD)))
        a->spread_number = link.number;
    return true;
}

/* A secret was shredded, and the manager that did so has not come to the rotation. */
static bool is_shred_left(struct manager *m) {
    struct vault *a = m->vault;
    uint8_t chain[AUDIT_CHAIN];
    if (audit_last(m->store, chain) != a->audit_seen)
        audit_each(m->store, a->audit_seen + 1, note_record, a);
    if (a->shred_number <= a->spread_number) {
        a->shred_ms = 0;
        return false;
    }
    if (a->shred_ms == 0) a->shred_ms = vault_now(m) + SHRED_MS;
    return vault_now(m) >= a->shred_ms;
}

/* --- all -------------------------------------------------------------------------------------- */

RESULT vault_may_start(struct manager *m, struct why *why) {
    struct row row;
    struct vault_row v;
    if (!vault_row_get(m->store, &row, &v) || v.current == 0)
        return fail_with(why, ERR_BUSY, "the cluster key is still being made; try again");
    bool lost = m->vault->lost && v.current - v.oldest < VAULT_EPOCHS_MAX - 2;
    if (m->vault->start || v.next != 0 || (v.oldest < v.current && !lost))
        return fail_with(why, ERR_BUSY, "a rotation of the cluster key is under way%s%.256s",
                         m->vault->text[0] ? ": " : "", m->vault->text);
    return OK;
}

void vault_lead(struct manager *m) {
    struct vault *a = m->vault;
    struct row row;
    struct vault_row v, other;
    if (a->writing || a->unsaved || vault_now(m) < a->save_ms) return;
    if (!vault_row_get(m->store, &row, &v)) {
        spread_new(m, NULL, &v);
    } else if (v.next != 0) {
        spread(m, &row, &v);
    } else if (!vault_held(m, &v, v.current)) {
        missing(m, &row, &v);
    } else if (v.oldest < v.current) {
        wrap_step(m, &row, &v);
    } else if (a->start || is_shred_left(m)) {
        a->start = false;
        spread_new(m, &row, &v);
    } else if (with_holders(m, &v, &other)) {
        write_row(m, &row, &other, other.current, NULL);
    }
}

void vault_lead_again(struct manager *m) {
    struct vault *a = m->vault;
    memset(a->holdings, 0, sizeof a->holdings);
    a->start = a->lost = false;
    a->hand_over_ms = 0;
    a->spread_epoch = 0;
    a->audit_seen = a->shred_number = a->spread_number = a->shred_ms = 0;
    a->wrapped_to[0] = 0;
    a->wrap_ms = 0;
    a->stuck = 0;
    a->text[0] = 0;
}
