/* Becoming a member: init makes a cluster, join asks a member of one for admission. Both end in a
 * keyring with an identity, after which manager_start does the rest. Whatever fails before that
 * leaves the directory empty. */
#include "api/manager.h"

#include <stdio.h>
#include <stdlib.h>

#include "raft/loop.h"

#define JOIN_TIMEOUT_MS 20000

/* --- init ----------------------------------------------------------------------------------- */

static RESULT begin(struct manager *m, struct why *why) {
    struct node_identity *self = &m->self;
    if (m->state == MANAGER_RUNNING || m->state == MANAGER_LEAVING)
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
    return manager_start(m, why);
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

RESULT manager_init(struct manager *m, bool autolock, manager_done *done, void *ctx,
                    struct why *why) {
    TRY(begin(m, why));
    enum err e = credentials_found(&m->self, autolock, m->clock.wall_s(&m->clock), why);
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

struct newcomer {
    struct job job;    /* the one of exec */
    struct exec *exec; /* a thread for it alone: it blocks for seconds */
    struct manager *manager;
    char address[ADDRESS_MAX];     /* of a member */
    char digest[ROOT_DIGEST_TEXT]; /* of the token */
    struct wire_join request;
    struct wire_joined answer; /* spans into memory */
    struct buf csr, memory;
    struct secret *key; /* own new key */
    enum err error;
    struct why why;
};

static void newcomer_free(struct newcomer *n) {
    secret_free(n->key);
    buf_free(&n->csr);
    buf_wipe(&n->memory);
    sodium_memzero(n, sizeof *n);
    free(n);
}

/* Away from the loop: it blocks. */
static void ask(struct job *job) {
    struct newcomer *n = (struct newcomer *)(void *)job;
    n->error = join_request(n->address, n->digest, &n->request, JOIN_TIMEOUT_MS, &n->memory,
                            &n->answer, &n->why);
}

static RESULT take_answer(struct manager *m, struct newcomer *n, struct why *why) {
    struct node_identity *self = &m->self;
    const struct wire_joined *a = &n->answer;
    self->state = IDENTITY_MEMBER;
    self->raft_id = a->raft_id;
    (void)snprintf(self->cluster_id, sizeof self->cluster_id, "%s", a->cluster_id);
    (void)snprintf(self->node_id, sizeof self->node_id, "%s", a->node_id);
    self->n = a->n;
    memcpy(self->members, a->members, a->n * sizeof a->members[0]);
    TRY(buf_add_span(&self->cert_pem, a->cert));
    TRY(buf_add_span(&self->root_pem, a->root));
    self->key_pem = n->key;
    n->key = NULL;
    TRY(x509_key_matches(a->cert, self->key_pem, why));
    struct x509_subject subject;
    TRY(x509_verify(a->root, a->cert, m->clock.wall_s(&m->clock), &subject, why));
    if (strcmp(subject.cn, a->node_id) != 0 || strcmp(subject.o, a->cluster_id) != 0)
        return fail_with(why, ERR_CERTIFICATE,
                         "the certificate names another node than the answer");
    return OK;
}

/* Autolock's key seals the new keyring from its first byte on. */
static RESULT settle_joined(struct manager *m, struct newcomer *n, struct why *why) {
    TRY(take_answer(m, n, why));
    struct kek kek = manager_kek(m);
    if (kek.kind == KEK_PLAIN && n->answer.unlock_key.size == KEY_SIZE) {
        secret_free(m->unlock_key);
        m->unlock_key = NULL;
        TRY(secret_new(n->answer.unlock_key.at, KEY_SIZE, &m->unlock_key));
        kek = (struct kek){.kind = KEK_UNLOCK_KEY, .key = m->unlock_key};
    }
    return settle(m, kek, why);
}

static void on_asked(struct job *job) {
    struct newcomer *n = (struct newcomer *)(void *)job;
    struct manager *m = n->manager;
    struct why why = n->why;
    enum err e = n->error;
    exec_real_close(n->exec, NULL, NULL);
    m->joining = false;
    if (m->state == MANAGER_STOPPING) {
        newcomer_free(n);
        return;
    }
    bool touched = e == OK;
    if (e == OK) e = settle_joined(m, n, &why);
    newcomer_free(n);
    if (e == OK) {
        manager_finish(m, OK, "");
    } else if (touched) {
        give_up(m, e, why.text);
    } else {
        identity_clear(&m->self);
        manager_set_state(m, MANAGER_EMPTY);
        manager_finish(m, e, why.text[0] ? why.text : err_text(e));
    }
}

static RESULT prepare(struct manager *m, struct newcomer *n, struct why *why) {
    TRY(x509_key_new(&n->key, why));
    TRY(x509_request(n->key, m->config.name, &n->csr, why));
    (void)snprintf(n->request.name, sizeof n->request.name, "%s", m->self.name);
    (void)snprintf(n->request.client_address, ADDRESS_MAX, "%s", m->self.client_address);
    (void)snprintf(n->request.peer_address, ADDRESS_MAX, "%s", m->self.peer_address);
    n->request.request = buf_span(&n->csr);
    return OK;
}

RESULT manager_join(struct manager *m, const char *address, const char *token, manager_done *done,
                    void *ctx, struct why *why) {
    char digest[ROOT_DIGEST_TEXT], secret[TOKEN_SECRET_SIZE + 1];
    struct address parts;
    TRY(begin(m, why));
    TRY(token_parse(token, digest, secret, why));
    TRY(address_split(address, &parts, why));
    struct newcomer *n = calloc(1, sizeof *n);
    if (!n) return fail_with(why, ERR_NOMEM, "no memory to join");
    n->job = (struct job){.run = ask, .done = on_asked};
    n->manager = m;
    n->csr = buf_new(PEM_MAX);
    n->memory = buf_new(FRAME_MAX);
    memcpy(n->digest, digest, sizeof n->digest);
    (void)snprintf(n->address, sizeof n->address, "%s", address);
    (void)snprintf(n->request.token, sizeof n->request.token, "%s", secret);
    sodium_memzero(secret, sizeof secret);
    enum err e = prepare(m, n, why);
    if (e == OK) e = exec_real_start(m->config.loop, "join", &n->exec, why);
    if (e != OK) {
        newcomer_free(n);
        return e;
    }
    n->exec->submit(n->exec, &n->job);
    m->joining = true;
    m->done = done;
    m->done_ctx = ctx;
    manager_set_state(m, MANAGER_JOINING);
    return OK;
}
