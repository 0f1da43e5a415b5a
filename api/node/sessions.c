/* See sessions.h. What there is of a session: events that note what it said, the proof that it may
 * stay, the row that follows what it said, the want that follows the row, the report of it to the
 * leader. */
#include "api/node/sessions.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/ca/authority.h"
#include "api/node/roles.h"
#include "api/node/sessions_parts.h"
#include "api/secret/vault.h"
#include "api/service/assign.h"
#include "api/service/scheduler.h"
#include "raft/loop.h"

#define SESSIONS_STEP   64   /* sessions looked at in one step */
#define DESCRIBE_MS     1000 /* between two writes of what one node says of itself */
#define DESCRIBES_MAX   32   /* such writes under way */
#define SILENCE_MIN_MS  2000
#define REPORT_SOON_MS  100 /* of a node that has just come */
#define SILENCE_PERIODS 3
#define EARLY_MAX       (64 * KIB) /* said of tasks before the session was proven */

static uint64_t now_of(struct manager *m) { return m->clock.now_ms(&m->clock); }

static void wake(struct manager *m) {
    m->ops = true;
    m->env.wake(m);
}

/* --- what is wanted --------------------------------------------------------------------------- */

RESULT sessions_want(const struct manager *m, const struct node_row *node, struct buf *roots_pem,
                     struct node_want *out) {
    const struct cluster *c = store_cluster(m->store);
    struct row row;
    struct spec spec;
    spec_get(m->store, &row, &spec);
    *out = (struct node_want){.role = node->desired,
                              .granted = node->granted,
                              .heartbeat_ms = (uint32_t)spec_heartbeat_ms(&spec),
                              .renew = node->certificate == NODE_CERT_RENEW,
                              .cert_validity_s = (uint64_t)spec_cert_validity_s(&spec)};
    TRY(authority_issuer(c, out->issuer));
    TRY(authority_roots(c, roots_pem));
    out->root_pem = buf_span(roots_pem);
    for (unsigned i = 0; i < c->n && out->n < MEMBERS_MAX; i++) {
        struct wire_member *to = &out->managers[out->n++];
        to->raft_id = c->nodes[i].raft_id;
        (void)snprintf(to->node_id, sizeof to->node_id, "%s", c->nodes[i].id);
        (void)snprintf(to->peer_address, sizeof to->peer_address, "%s", c->nodes[i].peer_address);
    }
    return OK;
}

/* Says it, unless it has been said. */
static void say_want(struct node_link *h, const struct node_row *node) {
    struct node_want want;
    struct buf roots = buf_new(PEM_MAX), body = buf_new(SESSION_BODY_MAX);
    uint8_t hash[NODE_DIGEST_SIZE];
    enum err e = sessions_want(h->manager, node, &roots, &want);
    if (e == OK) e = node_want_encode(&want, &body);
    if (e == OK) {
        (void)crypto_generichash(hash, sizeof hash, body.at, body.size, NULL, 0);
        if (h->sequence == 0 || memcmp(hash, h->said, sizeof hash) != 0) {
            memcpy(h->said, hash, sizeof hash);
            want.sequence = ++h->sequence;
            buf_clear(&body);
            e = node_want_encode(&want, &body);
            if (e == OK) session_send(h->session, NODE_WANT, buf_span(&body));
        }
    }
    if (e != OK)
        log_event(h->manager->config.log, LOG_ERROR, "nodes", "%s can't be told: %s", h->id,
                  err_text(e));
    buf_free(&roots);
    buf_free(&body);
}

/* --- who may stay ----------------------------------------------------------------------------- */

bool sessions_key_is_good(const struct node_row *node, const uint8_t key_digest[NODE_DIGEST_SIZE]) {
    static const uint8_t none[NODE_DIGEST_SIZE];
    if (sodium_memcmp(node->key_digest, key_digest, NODE_DIGEST_SIZE) == 0) return true;
    return memcmp(node->previous_digest, none, sizeof none) != 0 &&
           sodium_memcmp(node->previous_digest, key_digest, NODE_DIGEST_SIZE) == 0;
}

static bool is_unseen(const struct sessions *s, const uint8_t key_digest[NODE_DIGEST_SIZE]) {
    for (unsigned i = 0; i < s->unseen_n; i++)
        if (memcmp(s->unseen[i], key_digest, NODE_DIGEST_SIZE) == 0) return true;
    return s->unseen_more;
}

static void note_unseen(struct sessions *s, const uint8_t key_digest[NODE_DIGEST_SIZE]) {
    if (is_unseen(s, key_digest)) return;
    s->unseen_more = s->unseen_n == MEMBERS_MAX;
    if (!s->unseen_more) memcpy(s->unseen[s->unseen_n++], key_digest, NODE_DIGEST_SIZE);
}

static bool is_in_touch(const struct manager *m) {
    return m->current_once && m->leader != 0 && store_cluster(m->store)->initialised;
}

/* A state that may be old must not cut us off from those by whom it becomes newer: they are let in,
 * and judged when the state is known to be current. Whatever else is open already was judged by the
 * key that was good then. */
bool sessions_is_member(void *ctx, const char *node_id, const uint8_t key_digest[NODE_DIGEST_SIZE],
                        const uint8_t issuer_digest[NODE_DIGEST_SIZE]) {
    const struct manager *m = ctx;
    struct row row;
    struct node_row node;
    (void)issuer_digest;
    if (!m->sessions) return true;
    if (!is_in_touch(m)) {
        if (!m->reviewing) note_unseen(m->sessions, key_digest);
        return true;
    }
    return node_row_get(m->store, node_id, &row, &node) == OK && node.granted == NODE_MANAGER &&
           ((m->reviewing && !is_unseen(m->sessions, key_digest)) ||
            sessions_key_is_good(&node, key_digest));
}

void sessions_current(struct manager *m) {
    struct sessions *s = m->sessions;
    if (!s || s->unseen_n == 0) return;
    s->review = true;
    wake(m);
}

static void review(struct manager *m) {
    struct sessions *s = m->sessions;
    s->review = false;
    m->reviewing = true;
    peers_review(m->peers);
    m->reviewing = false;
    if (!is_in_touch(m)) return;
    s->unseen_n = 0;
    s->unseen_more = false;
}

static RESULT judge(const struct node_link *h, struct node_row *node, struct why *why) {
    const struct node_caller *who = session_caller(h->session);
    struct row row;
    if (node_row_get(h->manager->store, h->id, &row, node) != OK)
        return fail_with(why, ERR_PERMISSION,
                         "this node is not one of the cluster's any more: it was removed");
    if (sessions_key_is_good(node, who->key_digest)) return OK;
    return fail_with(why, ERR_PERMISSION,
                     "the certificate's key is not the one that this node was given last");
}

static void cut(struct node_link *h, enum err e, const char *text) {
    if (h->cut || !h->session) return;
    h->cut = true;
    log_event(h->manager->config.log, LOG_INFO, "nodes", "the session of %s is cut: %s", h->id,
              text);
    session_cut(h->session, e, text);
}

/* --- writes of a row -------------------------------------------------------------------------- */

static void unlink_held(struct sessions *s, struct node_link *h) {
    struct node_link **at = &s->first;
    while (*at != h)
        at = &(*at)->next;
    *at = h->next;
    s->n--;
    buf_free(&h->early);
    free(h);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct node_link *h = w->ctx;
    struct manager *m = h->manager;
    struct sessions *s = m->sessions;
    h->writing = false;
    s->writing--;
    if (e == OK) e = r->error;
    if (e != OK && e != ERR_CONFLICT && e != ERR_CLOSED)
        log_event(m->config.log, LOG_WARNING, "nodes", "the row of %s: %s", h->id,
                  text[0] ? text : err_text(e));
    if (!h->session) {
        unlink_held(s, h);
        return;
    }
    if (e == OK && h->leaving) {
        session_send(h->session, NODE_LEAVE, span_of(NULL, 0));
        h->proven = false; /* it is no more */
    }
    h->dirty = s->dirty = true;
    wake(m);
}

static void replace(struct node_link *h, const struct row *row, const struct node_row *node) {
    struct manager *m = h->manager;
    struct command c = {.op = OP_ROWS};
    struct buf changes = buf_new(COMMAND_MAX);
    h->write_ms = now_of(m) + DESCRIBE_MS;
    enum err e = node_change_add(&changes, ROW_REPLACE, row, node);
    c.rows.n = 1;
    c.rows.changes = buf_span(&changes);
    c.rows.now_ns = m->clock.wall_ns(&m->clock);
    h->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = h};
    if (e == OK) e = command_encode(&c, &h->write.command);
    if (e == OK) e = manager_write(m, &h->write);
    if (e != OK) buf_wipe(&h->write.command);
    buf_free(&changes);
    h->writing = e == OK;
    if (h->writing) m->sessions->writing++;
}

static bool put_text(char *to, size_t room, const char *text) {
    if (strcmp(to, text) == 0) return false;
    (void)snprintf(to, room, "%s", text);
    return true;
}

/* Where it is seen to come from; we ourselves come from where others find us. */
static const char *address_of(const struct node_link *h, struct address *at) {
    const struct node_identity *self = &h->manager->self;
    bool own = strcmp(h->id, self->node_id) == 0;
    if (own && address_split(self->peer_address, at, NULL) == OK) return at->host;
    return session_caller(h->session)->remote;
}

/* What the node says of itself, into its row; false: it says nothing new. */
static bool take_hello(const struct node_link *h, struct node_row *n) {
    const struct node_hello *hello = &h->hello;
    struct address at;
    const struct node_caller *who = session_caller(h->session);
    bool changed = put_text(n->address, sizeof n->address, address_of(h, &at));
    if (memcmp(n->key_digest, who->key_digest, NODE_DIGEST_SIZE) == 0) {
        static const uint8_t none[NODE_DIGEST_SIZE];
        changed |= memcmp(n->previous_digest, none, sizeof none) != 0;
        memset(n->previous_digest, 0, sizeof n->previous_digest); /* the new key has been seen */
    }
    if (!h->described) return changed;
    changed |= put_text(n->hostname, sizeof n->hostname, hello->hostname);
    changed |= put_text(n->os, sizeof n->os, hello->os);
    changed |= put_text(n->arch, sizeof n->arch, hello->arch);
    changed |= put_text(n->engine, sizeof n->engine, hello->engine);
    changed |= put_text(n->client_address, sizeof n->client_address, hello->client_address);
    changed |= put_text(n->peer_address, sizeof n->peer_address, hello->peer_address);
    changed |= n->nano_cpus != hello->nano_cpus || n->memory_bytes != hello->memory_bytes;
    n->nano_cpus = hello->nano_cpus;
    n->memory_bytes = hello->memory_bytes;
    return changed;
}

static bool take_leave(const struct node_link *h, struct node_row *n) {
    if (!h->leaving || (n->state == NODE_DOWN && strcmp(n->message, NODE_LEFT) == 0)) return false;
    n->state = NODE_DOWN;
    (void)snprintf(n->message, sizeof n->message, "%s", NODE_LEFT);
    return true;
}

/* A host name that another row has is not taken over: constraints go by it. At most one look at
 * all rows a second. */
static void keep_host(struct node_link *h, const struct node_row *n) {
    struct node_hello *hello = &h->hello;
    char id[NODE_ID_SIZE + 1];
    if (!h->described || strcmp(hello->hostname, n->hostname) == 0) return;
    unsigned others = node_row_of_host(h->manager->store, span_str(hello->hostname), id);
    if (others == 0 || (others == 1 && strcmp(id, h->id) == 0)) return;
    (void)put_text(hello->hostname, sizeof hello->hostname, n->hostname);
    h->write_ms = now_of(h->manager) + DESCRIBE_MS;
}

/* Keeps the row true to the node; at most one write a second. */
static void describe(struct node_link *h) {
    struct manager *m = h->manager;
    struct row row;
    struct node_row node;
    bool may = !h->writing && m->sessions->writing < DESCRIBES_MAX && m->leader != 0 &&
               (now_of(m) >= h->write_ms || h->leaving);
    if (node_row_get(m->store, h->id, &row, &node) != OK) return;
    if (may) keep_host(h, &node);
    bool changed = take_hello(h, &node);
    changed |= take_leave(h, &node);
    h->behind = changed && !may;
    if (changed && may)
        replace(h, &row, &node);
    else if (!changed && h->leaving)
        session_send(h->session, NODE_LEAVE, span_of(NULL, 0));
}

/* --- events of sessions ----------------------------------------------------------------------- */

static RESULT on_opened(void *ctx, struct node_session *session, const struct node_caller *who,
                        struct why *why) {
    struct manager *m = ctx;
    struct sessions *s = m->sessions;
    TRY(manager_ready(m, why));
    if (!s || s->n >= SESSIONS_MAX)
        return fail_with(why, ERR_BUSY, "this manager holds %d sessions already", SESSIONS_MAX);
    struct node_link *h = calloc(1, sizeof *h);
    if (!h) return fail_with(why, ERR_NOMEM, "no memory for a session");
    *h = (struct node_link){
        .manager = m, .session = session, .early = buf_new(EARLY_MAX), .next = s->first};
    (void)snprintf(h->id, sizeof h->id, "%.*s", NODE_ID_SIZE, who->subject.cn);
    h->heard_ms = now_of(m);
    s->first = h;
    s->n++;
    s->unproven = true;
    session_set(session, h);
    wake(m);
    return OK;
}

/* What a node says of its tasks is heard once it is proven; what is too much for here it says again
 * when it is told that nobody has heard it. */
static RESULT hear(struct node_link *h, uint8_t kind, struct span body, struct why *why) {
    if (h->proven) return assign_message(h, kind, body, why);
    size_t before = h->early.size;
    if (buf_u8(&h->early, kind) != OK || buf_block(&h->early, body) != OK) h->early.size = before;
    return OK;
}

static RESULT hear_early(struct node_link *h, struct why *why) {
    struct cursor in = cursor_of(buf_span(&h->early));
    struct span body;
    uint8_t kind = 0;
    while (cursor_u8(&in, &kind) == OK && cursor_block(&in, EARLY_MAX, &body) == OK)
        TRY(assign_message(h, kind, body, why));
    buf_free(&h->early);
    return OK;
}

static RESULT on_message(void *ctx, struct node_session *session, uint8_t kind, struct span body,
                         struct why *why) {
    struct manager *m = ctx;
    struct node_link *h = session_get(session);
    h->heard_ms = now_of(m);
    if (h->cut) return OK;
    switch (kind) {
    case NODE_HELLO:
    case NODE_STATUS:
        if (node_hello_decode(body, &h->hello) != OK)
            return fail_with(why, ERR_PROTOCOL, "the node's description is not understood");
        h->described = true;
        break;
    case NODE_BEAT: session_send(session, NODE_BEAT, body); return OK;
    case NODE_LEAVE: h->leaving = true; break;
    case NODE_TASKS:
    case NODE_RESYNC:
    case NODE_FETCH: return hear(h, kind, body, why);
    default: return OK; /* of a later version */
    }
    h->dirty = m->sessions->dirty = true;
    wake(m);
    return OK;
}

static RESULT on_stays(void *ctx, struct node_session *session, const struct node_caller *who,
                       struct why *why) {
    struct node_row node;
    const struct node_link *h = session_get(session);
    (void)ctx;
    (void)who;
    return h && h->proven ? judge(h, &node, why) : OK;
}

static void on_closed(void *ctx, struct node_session *session) {
    struct manager *m = ctx;
    struct node_link *h = session_get(session);
    if (h->assigned) assign_gone(h);
    h->session = NULL;
    if (!h->writing) unlink_held(m->sessions, h);
}

static void on_drained(void *ctx, struct node_session *session) {
    struct node_link *h = session_get(session);
    (void)ctx;
    if (h) assign_drained(h);
}

const struct node_events sessions_events = {.opened = on_opened,
                                            .message = on_message,
                                            .stays = on_stays,
                                            .closed = on_closed,
                                            .drained = on_drained};

/* --- proving ---------------------------------------------------------------------------------- */

/* The newest session of a node is the node's. */
static void cut_older(struct sessions *s, const struct node_link *than) {
    for (struct node_link *h = than->next; h; h = h->next)
        if (h != than && strcmp(h->id, than->id) == 0)
            cut(h, ERR_CLOSED, "the node has opened another session");
    (void)s;
}

static void on_read(struct read *rd, enum err e) {
    struct manager *m = rd->ctx;
    struct sessions *s = m->sessions;
    s->reading = false;
    for (struct node_link *h = s->first; h; h = h->next) {
        struct node_row node;
        struct why why = {0};
        if (!h->asked) continue;
        h->asked = false;
        if (!h->session || h->cut) continue;
        enum err verdict =
            e == OK ? judge(h, &node, &why)
                    : fail_with(&why, e, "this manager is not in touch: %s", err_text(e));
        if (verdict != OK) {
            cut(h, verdict, why.text);
            continue;
        }
        h->proven = h->dirty = s->dirty = true;
        cut_older(s, h);
        assign_proven(h);
        verdict = hear_early(h, &why);
        if (verdict != OK) cut(h, verdict, why.text);
        uint64_t soon = now_of(m) + REPORT_SOON_MS;
        if (s->report_ms > soon) s->report_ms = soon;
    }
    wake(m);
}

static void prove(struct manager *m) {
    struct sessions *s = m->sessions;
    if (!s->unproven || s->reading) return;
    s->read = (struct read){.done = on_read, .ctx = m};
    if (replica_read(m->replica, &s->read) != OK) return; /* with the next beat again */
    s->reading = true;
    s->unproven = false;
    for (struct node_link *h = s->first; h; h = h->next)
        h->asked = !h->proven && !h->cut;
}

/* --- changes ---------------------------------------------------------------------------------- */

static void all_dirty(struct manager *m) {
    struct sessions *s = m->sessions;
    for (struct node_link *h = s->first; h; h = h->next)
        h->dirty = s->dirty = true;
    s->review = true;
    wake(m);
}

static enum node_role granted_of(const struct row *row) {
    struct node_row node;
    return row && node_row_decode(row->body, &node) == OK ? node.granted : 0;
}

static void on_row(void *ctx, const struct row *before, const struct row *after) {
    struct manager *m = ctx;
    struct sessions *s = m->sessions;
    const struct row *any = after ? after : before;
    if (m->config.rows) m->config.rows(m->config.ctx, before, after);
    vault_row_changed(m, before, after);
    scheduler_row(m, before, after);
    assign_row(m, before, after);
    if (!any || any->kind == ROW_SPEC) {
        if (!any) roles_restored(m);
        all_dirty(m);
        return;
    }
    roles_row(m, before, after);
    if (any->kind != ROW_NODE) return;
    s->review |= granted_of(before) != granted_of(after);
    for (struct node_link *h = s->first; h; h = h->next)
        if (strcmp(h->id, any->id) == 0) h->dirty = s->dirty = true;
    wake(m);
}

/* Rows alone come often; what is of the cluster itself, seldom. */
void sessions_cluster(struct manager *m) {
    const struct cluster *c = store_cluster(m->store);
    struct sessions *s = m->sessions;
    crypto_generichash_state state;
    uint8_t hash[NODE_DIGEST_SIZE];
    if (!s) return;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof hash);
    (void)crypto_generichash_update(&state, (const uint8_t *)c->nodes, c->n * sizeof c->nodes[0]);
    (void)crypto_generichash_update(&state, c->ca.root_pem.at, c->ca.root_pem.size);
    (void)crypto_generichash_update(&state, c->next.root_pem.at, c->next.root_pem.size);
    (void)crypto_generichash_update(&state, c->retired_pem.at, c->retired_pem.size);
    (void)crypto_generichash_update(&state, c->cross_pem.at, c->cross_pem.size);
    (void)crypto_generichash_final(&state, hash, sizeof hash);
    if (memcmp(hash, s->cluster, sizeof hash) == 0) return;
    memcpy(s->cluster, hash, sizeof hash);
    all_dirty(m);
    m->config.changed(m->config.ctx); /* clients may be of other roots now */
}

static void follow(struct node_link *h) {
    struct node_row node;
    struct why why = {0};
    h->dirty = false;
    if (!h->session || h->cut || !h->proven) return;
    enum err e = judge(h, &node, &why);
    if (e != OK) {
        cut(h, e, why.text);
        return;
    }
    describe(h);
    say_want(h, &node);
}

/* Those that the change has concerned; the rest has its turn in the next step. */
static void follow_all(struct manager *m) {
    struct sessions *s = m->sessions;
    unsigned n = 0;
    if (!s->dirty) return;
    s->dirty = false;
    for (struct node_link *h = s->first; h; h = h->next) {
        if (!h->dirty) continue;
        if (n++ < SESSIONS_STEP)
            follow(h);
        else
            s->dirty = true;
    }
    if (s->dirty) wake(m);
}

void sessions_step(struct manager *m) {
    struct sessions *s = m->sessions;
    if (!s) return;
    prove(m);
    follow_all(m);
    if (s->review && m->peers) review(m);
}

/* --- the report to the leader ----------------------------------------------------------------- */

static void on_reported(struct call *c, enum err e, struct span answer) {
    struct manager *m = c->ctx;
    (void)answer;
    m->sessions->calling = false;
    if (e != OK) m->sessions->report_ms = now_of(m) + REPORT_SOON_MS;
}

static uint64_t period_of(const struct manager *m) {
    struct row row;
    struct spec spec;
    spec_get(m->store, &row, &spec);
    return (uint64_t)spec_heartbeat_ms(&spec);
}

static RESULT list_held(struct manager *m, uint64_t silence_ms) {
    struct sessions *s = m->sessions;
    uint64_t now = now_of(m);
    buf_clear(&s->report);
    TRY(roles_report_start(&s->report));
    if (!m->peers) TRY(roles_report_add(&s->report, m->self.node_id));
    for (const struct node_link *h = s->first; h; h = h->next)
        if (h->session && h->proven && !h->cut && !h->leaving && now < h->heard_ms + silence_ms)
            TRY(roles_report_add(&s->report, h->id));
    return OK;
}

void sessions_beat(struct manager *m) {
    struct sessions *s = m->sessions;
    uint64_t now = now_of(m);
    if (!s) return;
    for (struct node_link *h = s->first; h; h = h->next) {
        if (h->behind) h->dirty = s->dirty = true;
        s->unproven |= !h->proven && !h->asked && !h->cut && h->session;
    }
    if (s->dirty || s->unproven) wake(m);
    assign_beat(m);
    if (s->calling || m->leader == 0 || now < s->report_ms) return;
    uint64_t period = period_of(m), silence = SILENCE_PERIODS * period;
    if (list_held(m, silence > SILENCE_MIN_MS ? silence : SILENCE_MIN_MS) != OK) return;
    s->call = (struct call){.request = buf_span(&s->report), .done = on_reported, .ctx = m};
    s->calling = replica_call(m->replica, &s->call) == OK;
    s->report_ms = now + period;
}

/* --- life ------------------------------------------------------------------------------------- */

RESULT sessions_open(struct manager *m) {
    struct sessions *s = calloc(1, sizeof *s);
    if (!s) return ERR_NOMEM;
    s->report = buf_new(COMMAND_MAX);
    m->sessions = s;
    row_watch(m->store, on_row, m);
    return OK;
}

void sessions_close(struct manager *m) {
    struct sessions *s = m->sessions;
    if (!s) return;
    if (m->store) row_watch(m->store, NULL, NULL);
    while (s->first)
        unlink_held(s, s->first);
    buf_free(&s->report);
    free(s);
    m->sessions = NULL;
}
