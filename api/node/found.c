/* Becoming a node: init makes a cluster, join asks a manager of one for admission. Both end in a
 * keyring with an identity, after which manager_start does the rest. Whatever fails before that
 * leaves the directory empty. */
#include "api/manager_parts.h"
#include "api/node/ask.h"

#include <stdio.h>
#include <stdlib.h>

#include "raft/loop.h"

/* --- init ----------------------------------------------------------------------------------- */

static RESULT begin(struct manager *m, struct why *why) {
    struct node_identity *self = &m->self;
    if (m->state == MANAGER_RUNNING || m->state == MANAGER_WORKER || m->state == MANAGER_LEAVING)
        return fail_with(why, ERR_EXISTS, "this node is a member of cluster %s already",
                         self->cluster_id);
    if (m->state != MANAGER_EMPTY) return manager_ready(m, why);
    TRY(name_check(m->config.name, why));
    identity_clear(self);
    (void)snprintf(self->name, sizeof self->name, "%s", m->config.name);
    (void)snprintf(self->client_listen, ADDRESS_MAX, "%s", m->config.client);
    (void)snprintf(self->peer_listen, ADDRESS_MAX, "%s", m->config.peer);
    credentials_advertised(m->config.advertise, self->client_listen, self->client_address);
    credentials_advertised(m->config.advertise, self->peer_listen, self->peer_address);
    return OK;
}

/* The identity is complete: makes it durable and starts. */
static RESULT settle(struct manager *m, struct kek kek, struct why *why) {
    TRY(keyring_create(m->disk, kek, &m->keys, why));
    TRY(identity_store(&m->self, m->keys, why));
    return m->self.role == NODE_WORKER ? worker_start(m, why) : manager_start(m, why);
}

static void fail_later(uv_timer_t *timer) {
    struct manager *m = timer->data;
    (void)uv_timer_stop(timer);
    manager_undo(m, m->error, m->reason);
}

/* Nothing was achieved: down again, and the one who asked is told. */
static void give_up(struct manager *m, enum err e, const char *text) {
    m->error = e;
    if (text != m->reason) (void)snprintf(m->reason, sizeof m->reason, "%s", text);
    manager_set_state(m, MANAGER_LEAVING);
    (void)uv_timer_start(&m->beat, fail_later, 0, 0);
}

RESULT manager_own_ca(struct manager *m, struct span chain_pem, const struct secret *key,
                      struct why *why) {
    if (m->state != MANAGER_EMPTY) return OK; /* manager_init says what is wrong */
    manager_forget_ca(m);
    if (!key) return fail_with(why, ERR_INVALID, "the key of the signing certificate is needed");
    m->own_ca.root = buf_new(PEM_MAX);
    m->own_ca.issuer = buf_new(PEM_MAX);
    enum err e = x509_ca_check(chain_pem, key, span_of(NULL, 0), m->clock.wall_s(&m->clock),
                               &m->own_ca.root, &m->own_ca.issuer, why);
    if (e == OK) e = secret_copy(key, &m->own_ca.key);
    if (e != OK) manager_forget_ca(m);
    return e;
}

void manager_forget_ca(struct manager *m) {
    buf_free(&m->own_ca.root);
    buf_free(&m->own_ca.issuer);
    secret_free(m->own_ca.key);
    m->own_ca.key = NULL;
}

/* The root that was brought, if any, becomes the identity's. */
static RESULT take_ca(struct manager *m) {
    struct node_identity *self = &m->self;
    if (!m->own_ca.key) return OK;
    TRY(buf_add_span(&self->root_pem, buf_span(&m->own_ca.root)));
    TRY(buf_add_span(&self->issuer_pem, buf_span(&m->own_ca.issuer)));
    self->root_key = m->own_ca.key;
    m->own_ca.key = NULL;
    return OK;
}

RESULT manager_init(struct manager *m, bool autolock, manager_done *done, void *ctx,
                    struct why *why) {
    enum err e = begin(m, why);
    if (e != OK) manager_forget_ca(m); /* the next init may want none */
    TRY(e);
    e = take_ca(m);
    manager_forget_ca(m);
    if (e == OK) e = credentials_found(&m->self, autolock, m->clock.wall_s(&m->clock), why);
    if (e != OK) {
        identity_clear(&m->self);
        return e;
    }
    m->done = done;
    m->done_ctx = ctx;
    e = settle(m, manager_kek(m), why);
    if (e != OK) give_up(m, e, why->text);
    return OK;
}

/* --- join ----------------------------------------------------------------------------------- */

/* Autolock's key seals a manager's new keyring from its first byte on. */
static RESULT settle_joined(struct manager *m, struct asking *a, struct why *why) {
    struct kek kek = manager_kek(m);
    struct span unlock_key = a->answer.unlock_key;
    TRY(ask_take(a, &m->self, NULL, why));
    m->self.role = a->answer.raft_id != 0 ? NODE_MANAGER : NODE_WORKER;
    if (kek.kind == KEK_PLAIN && unlock_key.size == KEY_SIZE) {
        secret_free(m->unlock_key);
        m->unlock_key = NULL;
        TRY(secret_new(unlock_key.at, KEY_SIZE, &m->unlock_key));
        kek = (struct kek){.kind = KEK_UNLOCK_KEY, .key = m->unlock_key};
    }
    return settle(m, kek, why);
}

static void on_asked(struct asking *a) {
    struct manager *m = a->manager;
    struct why why = a->why;
    enum err e = a->error;
    if (m->state != MANAGER_JOINING) return;
    bool touched = e == OK;
    if (e == OK) e = settle_joined(m, a, &why);
    if (e == OK) {
        manager_finish(m, OK, "");
    } else if (touched) {
        give_up(m, e, why.text);
    } else {
        identity_clear(&m->self);
        manager_set_state(m, MANAGER_EMPTY);
        manager_finish(m, e, why.text);
    }
}

RESULT manager_join(struct manager *m, const char *address, const char *token, manager_done *done,
                    void *ctx, struct why *why) {
    char digest[ROOT_DIGEST_TEXT], secret[TOKEN_SECRET_SIZE + 1];
    struct address parts;
    struct asking *a;
    TRY(begin(m, why));
    TRY(token_parse(token, digest, secret, why));
    TRY(address_split(address, &parts, why));
    TRY(ask_new(m, JOIN_TOKEN, &a, why));
    a->request.member = 1; /* if the token is for that */
    memcpy(a->digest, digest, sizeof a->digest);
    (void)snprintf(a->request.token, sizeof a->request.token, "%s", secret);
    sodium_memzero(secret, sizeof secret);
    ask_at(a, address);
    TRY(ask_start(a, on_asked, why));
    m->done = done;
    m->done_ctx = ctx;
    manager_set_state(m, MANAGER_JOINING);
    return OK;
}
