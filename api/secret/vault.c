/* See vault.h. Here: what every manager does about the cluster keys, whoever leads. The state says
 * which epochs there are; a manager drops those that are destroyed, asks the leader for those that
 * it misses, and tells the leader what it holds. The keyring is written before anything is said or
 * used, and a key that is not the very one of the state (its id tells) is dropped.
 *
 *   follow: drop -> save -> rekey -> ASK until nothing is missing -> HOLD when that is news */
#include "api/secret/vault_parts.h"

#include <stdlib.h>

#include "api/manager_parts.h"
#include "api/node/roles.h"
#include "api/secret/secrets_parts.h"

#define CALL_MS 500  /* between two calls of the same kind that came to nothing */
#define SAVE_MS 2000 /* before the keyring is tried again */
#define DENY_MS 5000 /* between two warnings of calls that were refused */

uint64_t vault_now(const struct manager *m) {
    return m->clock.now_ms((struct clock *)(uintptr_t)&m->clock);
}

void vault_wake(struct manager *m) {
    m->ops = true;
    m->env.wake(m);
}

/* The first key belongs to the founding. */
bool vault_leads(const struct manager *m) {
    if (m->state != MANAGER_RUNNING || m->leader != m->self.raft_id) return false;
    if (m->self.state == IDENTITY_FOUNDING) return row_count(m->store, ROW_SPEC) > 0;
    return m->self.state == IDENTITY_MEMBER && m->current_once;
}

bool vault_is_made(const struct manager *m) {
    struct row row;
    struct vault_row v;
    return vault_row_get(m->store, &row, &v) && v.current != 0;
}

const struct vault_key *vault_held(const struct manager *m, const struct vault_row *v,
                                   uint32_t epoch) {
    const struct vault_key *key = vault_key_of(&m->self, epoch);
    if (!key) return NULL;
    if (epoch == v->current && memcmp(key->id, v->key_ids[0], VAULT_KEY_ID) != 0) return NULL;
    if (epoch == v->next && memcmp(key->id, v->key_ids[1], VAULT_KEY_ID) != 0) return NULL;
    return key;
}

bool vault_is_on_roll(const struct manager *m, uint64_t raft_id) {
    return cluster_node(store_cluster(m->store), raft_id) != NULL;
}

/* --- the keyring ------------------------------------------------------------------------------ */

static void complain(struct manager *m, const struct why *why) {
    m->vault->save_ms = vault_now(m) + SAVE_MS;
    log_event(m->config.log, LOG_ERROR, "keys", "the cluster keys can't be kept: %s", why->text);
}

RESULT vault_keep(struct manager *m, uint32_t epoch, const struct secret *key, struct why *why) {
    if (vault_key_of(&m->self, epoch)) vault_key_drop(&m->self, epoch);
    enum err e = vault_key_put(&m->self, epoch, secret_span(key));
    if (e == OK) e = identity_store(&m->self, m->keys, why);
    if (e != OK) vault_key_drop(&m->self, epoch);
    return e;
}

/* What is destroyed, and what only looks like a key of the state. A key that the state does not
 * know is one whose proposal came to nothing, unless the state may be an old one. */
static void drop(struct manager *m, const struct vault_row *v) {
    struct vault *a = m->vault;
    uint32_t highest = v->next > v->current ? v->next : v->current;
    bool sure = m->current_once && m->leader != 0 && !a->writing;
    for (unsigned i = m->self.vault_n; i-- > 0;) {
        uint32_t epoch = m->self.vault[i].epoch;
        bool named = epoch == v->current || epoch == v->next;
        bool destroyed = epoch<v->oldest, unknown = epoch> highest && sure;
        if (!destroyed && !unknown && (!named || vault_held(m, v, epoch))) continue;
        if (destroyed)
            log_event(m->config.log, LOG_INFO, "keys",
                      "the cluster key of epoch %u is destroyed here", epoch);
        vault_key_drop(&m->self, epoch);
        a->unsaved = true;
        a->rekey |= destroyed;
    }
}

/* An older copy of the keyring is not to be opened by the KEK that lies here from now on. */
static void rekey(struct manager *m) {
    struct why why = {0};
    bool beside = !m->unlock_key && m->config.kek_kind == KEK_PLAIN;
    enum err e = beside ? manager_rekey(m, (struct kek){.kind = KEK_PLAIN}, false, &why) : OK;
    if (e != OK)
        complain(m, &why);
    else
        m->vault->rekey = false;
}

static void save(struct manager *m) {
    struct why why = {0};
    if (vault_now(m) < m->vault->save_ms) return;
    if (m->vault->unsaved) {
        if (identity_store(&m->self, m->keys, &why) != OK) {
            complain(m, &why);
            return;
        }
        m->vault->unsaved = false;
    }
    if (m->vault->rekey) rekey(m);
}

/* --- asking the leader ------------------------------------------------------------------------ */

static enum err fill_private(void *ctx, uint8_t *at, size_t size) {
    uint8_t *public_key = ctx;
    return size == crypto_box_SECRETKEYBYTES && crypto_box_keypair(public_key, at) == 0
               ? OK
               : ERR_INTERNAL;
}

static void forget_question(struct vault *a) {
    secret_free(a->private_key);
    a->private_key = NULL;
    sodium_memzero(a->public_key, sizeof a->public_key);
}

struct sealed_answer {
    const struct vault *vault;
    struct span box;
};

static enum err fill_answer(void *ctx, uint8_t *at, size_t size) {
    const struct sealed_answer *a = ctx;
    (void)size;
    int bad = crypto_box_seal_open(at, a->box.at, a->box.size, a->vault->public_key,
                                   secret_span(a->vault->private_key).at);
    return bad == 0 ? OK : ERR_PROTOCOL;
}

static RESULT take_keys(struct manager *m, struct span box) {
    struct sealed_answer a = {.vault = m->vault, .box = box};
    struct secret *keys;
    if (box.size <= crypto_box_SEALBYTES || box.size > VAULT_KEYS_SIZE + crypto_box_SEALBYTES)
        return ERR_PROTOCOL;
    TRY(secret_fill(box.size - crypto_box_SEALBYTES, fill_answer, &a, &keys));
    enum err e = vault_keys_take(&m->self, secret_span(keys));
    m->vault->unsaved = true;
    secret_free(keys);
    manager_wipe_stack(m);
    return e;
}

static void on_called(struct call *c, enum err e, struct span answer) {
    struct manager *m = c->ctx;
    struct vault *a = m->vault;
    struct why why;
    bool asked = a->asking;
    a->calling = a->asking = false;
    if (asked && (e == OK || e == ERR_PRECONDITION)) a->lost = e == ERR_PRECONDITION;
    if (e == OK && asked) {
        e = take_keys(m, answer);
        if (e == OK)
            log_event(m->config.log, LOG_INFO, "keys", "the leader has given its cluster keys");
    } else if (e == OK) {
        a->told = a->says;
    }
    if (asked) forget_question(a);
    if (e != OK && e != ERR_CLOSED && e != ERR_NO_LEADER && e != ERR_MAYBE_APPLIED)
        log_event(m->config.log, LOG_WARNING, "keys", "the leader on the cluster keys: %s",
                  manager_text(e, answer, &why));
    vault_wake(m);
}

static RESULT begin_call(struct vault *a, enum vault_call_kind kind) {
    buf_clear(&a->request);
    TRY(buf_u8(&a->request, VAULT_CALL));
    return buf_u8(&a->request, (uint8_t)kind);
}

static void end_call(struct manager *m, enum err e) {
    struct vault *a = m->vault;
    a->call = (struct call){.request = buf_span(&a->request), .done = on_called, .ctx = m};
    a->call_ms = vault_now(m) + CALL_MS;
    if (e == OK) e = replica_call(m->replica, &a->call);
    a->calling = e == OK;
    if (e != OK) forget_question(a);
}

static void ask(struct manager *m) {
    struct vault *a = m->vault;
    forget_question(a);
    enum err e =
        secret_fill(crypto_box_SECRETKEYBYTES, fill_private, a->public_key, &a->private_key);
    if (e == OK) e = begin_call(a, VAULT_ASK);
    if (e == OK) e = buf_add(&a->request, a->public_key, sizeof a->public_key);
    a->asking = e == OK;
    end_call(m, e);
    a->asking &= a->calling;
}

static void tell(struct manager *m, const struct vault_holding *says) {
    struct vault *a = m->vault;
    a->says = *says;
    enum err e = begin_call(a, VAULT_HOLD);
    if (e == OK) e = buf_u32(&a->request, says->lowest);
    if (e == OK) e = buf_u8(&a->request, says->held);
    if (e == OK) e = buf_u32(&a->request, says->epoch);
    if (e == OK) e = buf_add(&a->request, says->id, sizeof says->id);
    end_call(m, e);
}

/* With the key that is spread come all others that the leader has; the current one may be lost. */
static bool misses(const struct manager *m, const struct vault_row *v) {
    uint32_t epoch = v->next != 0 ? v->next : v->current;
    return epoch != 0 && !vault_held(m, v, epoch);
}

/* What we hold; false: nothing that the leader waits for. */
static bool holding_of(const struct manager *m, const struct vault_row *v,
                       struct vault_holding *out) {
    const struct vault_key *key = v->next != 0 ? vault_held(m, v, v->next) : NULL;
    if (!key) key = v->current != 0 ? vault_held(m, v, v->current) : NULL;
    if (!key) return false;
    *out = (struct vault_holding){
        .raft_id = m->leader, .lowest = m->self.vault[0].epoch, .epoch = key->epoch};
    memcpy(out->id, key->id, sizeof out->id);
    for (unsigned i = 0; i < m->self.vault_n; i++) {
        uint32_t above = m->self.vault[i].epoch - out->lowest;
        if (above < 8) out->held |= (uint8_t)(1U << above);
    }
    return true;
}

static bool same_holding(const struct vault_holding *x, const struct vault_holding *y) {
    return x->raft_id == y->raft_id && x->lowest == y->lowest && x->held == y->held &&
           x->epoch == y->epoch && memcmp(x->id, y->id, sizeof x->id) == 0;
}

static void follow(struct manager *m) {
    struct vault *a = m->vault;
    struct row row;
    struct vault_row v;
    struct vault_holding says;
    if (!vault_row_get(m->store, &row, &v)) return;
    drop(m, &v);
    save(m);
    if (!misses(m, &v)) a->lost = false;
    if (a->unsaved || a->rekey || a->calling || m->leader == 0) return;
    if (m->leader == m->self.raft_id || vault_now(m) < a->call_ms) return;
    if (misses(m, &v))
        ask(m);
    else if (holding_of(m, &v, &says) && !same_holding(&says, &a->told))
        tell(m, &says);
}

/* --- answering, as leader --------------------------------------------------------------------- */

/* Only who is a manager, stays one, and is on the roll of the quorum. */
static RESULT judge(const struct manager *m, uint64_t from, struct why *why) {
    const struct node *n = cluster_node(store_cluster(m->store), from);
    struct row row;
    struct node_row node;
    if (n && node_row_get(m->store, n->id, &row, &node) == OK && node.granted == NODE_MANAGER &&
        node.desired == NODE_MANAGER)
        return OK;
    if (vault_now(m) >= m->vault->deny_ms)
        log_event(m->config.log, LOG_WARNING, "keys",
                  "member %llu asks for cluster keys, which is no manager or shall be none",
                  (unsigned long long)from);
    m->vault->deny_ms = vault_now(m) + DENY_MS;
    return fail_with(why, ERR_PERMISSION, "only managers are given cluster keys");
}

static RESULT note_holding(struct manager *m, const struct vault_holding *h) {
    struct vault_holding *place = NULL;
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        struct vault_holding *at = &m->vault->holdings[i];
        if (at->raft_id == h->raft_id || (!place && !vault_is_on_roll(m, at->raft_id))) place = at;
        if (at->raft_id == h->raft_id) break;
    }
    if (!place) return ERR_TOO_LARGE;
    *place = *h;
    vault_wake(m);
    return OK;
}

/* Whoever asks holds nothing that counts, whatever the row says. */
static RESULT answer_ask(struct manager *m, uint64_t from, struct cursor *c, struct buf *out,
                         struct why *why) {
    uint8_t public_key[crypto_box_PUBLICKEYBYTES], box[VAULT_KEYS_SIZE + crypto_box_SEALBYTES];
    struct buf keys = buf_new(VAULT_KEYS_SIZE);
    struct row row;
    struct vault_row v;
    TRY(cursor_copy(c, public_key, sizeof public_key));
    TRY(cursor_end(c));
    TRY(note_holding(m, &(struct vault_holding){.raft_id = from}));
    if (!vault_row_get(m->store, &row, &v)) return ERR_BUSY;
    if (m->vault->unsaved) return ERR_BUSY;
    if (misses(m, &v))
        return fail_with(why, m->vault->lost ? ERR_PRECONDITION : ERR_BUSY,
                         "the leader does not hold the cluster key of epoch %u itself",
                         v.next != 0 ? v.next : v.current);
    enum err e = buf_reserve(&keys, VAULT_KEYS_SIZE);
    if (e == OK) e = vault_keys_encode(&m->self, &keys);
    if (e == OK && crypto_box_seal(box, keys.at, keys.size, public_key) != 0) e = ERR_PROTOCOL;
    if (e == OK) e = buf_add(out, box, keys.size + crypto_box_SEALBYTES);
    buf_wipe(&keys);
    manager_wipe_stack(m);
    return e;
}

static RESULT take_holding(struct manager *m, uint64_t from, struct cursor *c) {
    struct vault_holding h = {.raft_id = from};
    TRY(cursor_u32(c, &h.lowest));
    TRY(cursor_u8(c, &h.held));
    TRY(cursor_u32(c, &h.epoch));
    TRY(cursor_copy(c, h.id, sizeof h.id));
    TRY(cursor_end(c));
    return note_holding(m, &h);
}

static RESULT take_start(struct manager *m, struct cursor *c, struct why *why) {
    struct row row;
    struct vault_row v;
    uint32_t seen;
    uint8_t again;
    TRY(cursor_u32(c, &seen));
    TRY(cursor_u8(c, &again));
    TRY(cursor_end(c));
    if (!vault_row_get(m->store, &row, &v)) return ERR_BUSY;
    if (again != 0 && (m->vault->start || v.current > seen || v.next > seen)) return OK;
    TRY(vault_may_start(m, why));
    m->vault->start = true;
    vault_wake(m);
    return OK;
}

void vault_call(struct manager *m, uint64_t from, struct span request, struct reply *reply) {
    struct cursor c = cursor_of(request);
    struct buf answer = buf_new(VAULT_KEYS_SIZE + crypto_box_SEALBYTES);
    struct why why = {0};
    uint8_t call, kind;
    enum err e = cursor_u8(&c, &call);
    if (e == OK) e = cursor_u8(&c, &kind);
    if (e == OK && !vault_leads(m)) e = m->leader == m->self.raft_id ? ERR_BUSY : ERR_NOT_LEADER;
    if (e == OK) e = judge(m, from, &why);
    if (e == OK) switch (kind) {
        case VAULT_ASK: e = answer_ask(m, from, &c, &answer, &why); break;
        case VAULT_HOLD: e = take_holding(m, from, &c); break;
        case VAULT_START: e = take_start(m, &c, &why); break;
        case VAULT_SETTLED: e = vault_is_settled(m) ? OK : ERR_BUSY; break;
        default: e = ERR_PROTOCOL;
        }
    if (e == OK)
        reply_send(reply, OK, buf_span(&answer));
    else
        reply_send(reply, e, span_str(why.text[0] ? why.text : err_text(e)));
    buf_free(&answer);
}

/* --- what others see -------------------------------------------------------------------------- */

RESULT vault_ready(const struct manager *m, struct why *why) {
    struct row row;
    struct vault_row v;
    TRY(manager_ready(m, why));
    if (!m->vault || !vault_row_get(m->store, &row, &v) || v.current == 0)
        return fail_with(why, ERR_BUSY, "the cluster key is still being made; try again");
    if (vault_held(m, &v, v.current)) return OK;
    if (m->vault->lost)
        return fail_with(why, ERR_PRECONDITION,
                         "the cluster key of epoch %u is lost: no manager that can be reached "
                         "holds it; import its escrow (conclave key import-escrow)",
                         v.current);
    return fail_with(why, ERR_BUSY, "this manager does not hold the cluster key yet; try again");
}

void vault_status(const struct manager *m, struct vault_status *out) {
    struct row row;
    struct vault_row v;
    struct why why = {0};
    *out = (struct vault_status){.ready = vault_ready(m, &why) == OK};
    if (!m->vault || !m->store) return;
    if (vault_row_get(m->store, &row, &v)) {
        out->current = v.current;
        out->next = v.next;
        out->oldest = v.oldest;
    }
    for (unsigned i = 0; i < m->self.vault_n; i++)
        out->held[i] = m->self.vault[i].epoch;
    const char *text = out->ready ? m->vault->text : why.text;
    if (out->ready && !text[0] && out->next != 0) text = "the next key is being spread";
    if (out->ready && !text[0] && out->oldest < out->current)
        text = "values are being wrapped by the current key";
    (void)snprintf(out->text, sizeof out->text, "%s", text);
}

/* --- life ------------------------------------------------------------------------------------- */

void vault_row_changed(struct manager *m, const struct row *before, const struct row *after) {
    const struct row *any = after ? after : before;
    if (!m->vault) return;
    if (any && any->kind != ROW_VAULT && any->kind != ROW_VALUE) return;
    vault_ops_progress(m);
    if (!any || any->kind == ROW_VAULT) vault_wake(m);
}

void vault_led(struct manager *m) {
    struct vault *a = m->vault;
    if (!a) return;
    a->told = (struct vault_holding){0};
    a->call_ms = 0;
    vault_lead_again(m);
    vault_wake(m);
}

void vault_beat(struct manager *m) {
    if (m->vault) vault_wake(m);
}

void vault_step(struct manager *m) {
    if (!m->vault || !m->keys || !store_cluster(m->store)->initialised) return;
    follow(m);
    if (vault_leads(m)) vault_lead(m);
    vault_ops_step(m);
    shred_step(m);
}

RESULT vault_open(struct manager *m) {
    m->vault = calloc(1, sizeof *m->vault);
    if (!m->vault) return ERR_NOMEM;
    m->vault->request = buf_new(64);
    return OK;
}

void vault_close(struct manager *m) {
    struct vault *a = m->vault;
    if (!a) return;
    vault_ops_end(m); /* which shreds may wait for */
    shred_end(m);
    vault_escrow_end(m);
    forget_question(a);
    buf_free(&a->request);
    free(a);
    m->vault = NULL;
}
