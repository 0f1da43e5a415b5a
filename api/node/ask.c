/* See ask.h. Nothing of a manager is touched away from the loop: what the thread needs is copied
 * into the question before it starts, and what it brings stays there until it is over. */
#include "api/node/ask.h"

#include <stdio.h>
#include <stdlib.h>

#include "raft/loop.h"

#define ASK_TIMEOUT_MS    6000
#define MEMBER_TIMEOUT_MS 20000 /* the leader has to add a member first */

void ask_free(struct asking *a) {
    if (!a) return;
    secret_free(a->key);
    secret_free(a->old_key);
    buf_free(&a->csr);
    buf_free(&a->root);
    buf_free(&a->cert);
    buf_free(&a->proof);
    buf_wipe(&a->memory);
    sodium_memzero(a, sizeof *a);
    free(a);
}

/* Whoever asks to come back keeps its key: an approval is for that one. */
static RESULT make_key(struct asking *a, struct why *why) {
    struct manager *m = a->manager;
    struct secret **kept = &m->agent.return_key;
    if (a->request.kind != JOIN_EXPIRED) return x509_key_new(&a->key, why);
    if (!*kept) {
        uint8_t digest[NODE_DIGEST_SIZE];
        char text[2 * sizeof digest + 1];
        TRY(x509_key_new(kept, why));
        TRY(x509_private_digest(*kept, digest, why));
        log_event(m->config.log, LOG_INFO, "keys", "this node asks to come back with the key %s",
                  sodium_bin2hex(text, sizeof text, digest, sizeof digest));
    }
    return secret_copy(*kept, &a->key);
}

static RESULT prepare(struct asking *a, const struct node_identity *self, struct why *why) {
    struct wire_join *r = &a->request;
    TRY(make_key(a, why));
    TRY(x509_request(a->key, self->name, &a->csr, why));
    (void)snprintf(r->name, sizeof r->name, "%s", self->name);
    (void)snprintf(r->client_address, sizeof r->client_address, "%s", self->client_address);
    (void)snprintf(r->peer_address, sizeof r->peer_address, "%s", self->peer_address);
    (void)snprintf(r->hostname, sizeof r->hostname, "%s", self->name);
    if (r->kind == JOIN_TOKEN) r->availability = (uint8_t)a->manager->config.availability;
    r->request = buf_span(&a->csr);
    return OK;
}

/* What a node has already: its roots and its certificate, or the proof that it had one. */
static RESULT bring(struct asking *a, const struct node_identity *self, struct why *why) {
    TRY(buf_add_span(&a->root, buf_span(&self->root_pem)));
    TRY(buf_add_span(&a->cert, buf_span(&self->cert_pem)));
    TRY(secret_copy(self->key_pem, &a->old_key));
    if (a->request.kind != JOIN_EXPIRED) return OK;
    TRY(x509_prove(a->old_key, buf_span(&a->csr), &a->proof, why));
    a->request.old_cert = buf_span(&a->cert);
    a->request.proof = buf_span(&a->proof);
    return OK;
}

RESULT ask_new(struct manager *m, enum join_kind kind, struct asking **out, struct why *why) {
    struct asking *a = calloc(1, sizeof *a);
    if (!a) return fail_with(why, ERR_NOMEM, "no memory to ask for a certificate");
    a->manager = m;
    a->request.kind = (uint8_t)kind;
    a->csr = a->root = a->cert = buf_new(PEM_MAX);
    a->proof = buf_new(PROOF_MAX);
    a->memory = buf_new(FRAME_MAX);
    enum err e = prepare(a, &m->self, why);
    if (e == OK && kind != JOIN_TOKEN) e = bring(a, &m->self, why);
    if (e != OK) {
        ask_free(a);
        return e;
    }
    *out = a;
    return OK;
}

void ask_at(struct asking *a, const char *address) {
    for (unsigned i = 0; i < a->n; i++)
        if (strcmp(a->addresses[i], address) == 0) return;
    if (a->n < ARRAY_SIZE(a->addresses) && address[0])
        (void)snprintf(a->addresses[a->n++], ADDRESS_MAX, "%s", address);
}

/* --- away from the loop --------------------------------------------------------------------- */

/* Nobody has judged the question: another manager may. */
static bool is_passing(enum err e) {
    return e == ERR_UNREACHABLE || e == ERR_TIMEOUT || e == ERR_CERTIFICATE || e == ERR_CLOSED ||
           e == ERR_NO_LEADER || e == ERR_PROTOCOL;
}

static RESULT check_answer(const struct asking *a, struct why *why) {
    const struct wire_joined *j = &a->answer;
    struct x509_subject subject;
    struct clock clock;
    clock_real(&clock);
    TRY(x509_key_matches(j->cert, a->key, why));
    TRY(x509_verify(j->root, j->cert, clock.wall_s(&clock), &subject, why));
    const char *role = j->role == JOIN_MANAGER ? ROLE_MANAGER : ROLE_WORKER;
    if (strcmp(subject.cn, j->node_id) == 0 && strcmp(subject.o, j->cluster_id) == 0 &&
        strcmp(subject.ou, role) == 0)
        return OK;
    return fail_with(why, ERR_CERTIFICATE, "the certificate names another node than the answer");
}

static void run(struct job *job) {
    struct asking *a = (struct asking *)(void *)job;
    struct join_credentials known = {.root_pem = buf_span(&a->root)};
    if (a->request.kind == JOIN_RENEW) {
        known.cert_pem = buf_span(&a->cert);
        known.key_pem = a->old_key;
    }
    a->error = fail_with(&a->why, ERR_UNREACHABLE, "no manager is known");
    for (unsigned i = 0; i < a->n && !a->forgotten; i++) {
        a->why.text[0] = 0;
        a->error = join_request(a->addresses[i], a->digest, a->digest[0] ? NULL : &known,
                                &a->request, a->timeout_ms, &a->memory, &a->answer, &a->why);
        if (!is_passing(a->error)) break;
    }
    a->heard = !is_passing(a->error) && a->error != ERR_BUSY;
    if (a->error == OK) a->error = check_answer(a, &a->why);
}

/* --- on the loop ---------------------------------------------------------------------------- */

static void on_run(struct job *job) {
    struct asking *a = (struct asking *)(void *)job;
    exec_real_close(a->exec, NULL, NULL);
    a->exec = NULL;
    a->manager->asking = NULL;
    if (a->error != OK && !a->why.text[0])
        (void)snprintf(a->why.text, sizeof a->why.text, "%s", err_text(a->error));
    if (a->done) a->done(a);
    ask_free(a);
}

RESULT ask_start(struct asking *a, void (*done)(struct asking *a), struct why *why) {
    struct manager *m = a->manager;
    enum err e = OK;
    a->job = (struct job){.run = run, .done = on_run};
    a->done = done;
    a->timeout_ms = a->request.member ? MEMBER_TIMEOUT_MS : ASK_TIMEOUT_MS;
    if (m->asking)
        e = fail_with(why, ERR_BUSY, "this node is still asking for a certificate; try again");
    if (e == OK) e = exec_real_start(m->config.loop, "ask", 0, &a->exec, why);
    if (e != OK) {
        ask_free(a);
        return e;
    }
    m->asking = a;
    a->exec->submit(a->exec, &a->job);
    return OK;
}

/* --- the answer ----------------------------------------------------------------------------- */

static RESULT fill(struct node_identity *next, struct asking *a) {
    const struct wire_joined *j = &a->answer;
    next->cert_pem = buf_new(PEM_MAX);
    next->root_pem = buf_new(PEM_MAX);
    next->key_pem = a->key;
    next->state = IDENTITY_MEMBER;
    if (j->raft_id != 0) next->raft_id = j->raft_id;
    (void)snprintf(next->cluster_id, sizeof next->cluster_id, "%s", j->cluster_id);
    (void)snprintf(next->node_id, sizeof next->node_id, "%s", j->node_id);
    next->n = j->n;
    memcpy(next->members, j->members, j->n * sizeof j->members[0]);
    TRY(buf_add_span(&next->cert_pem, j->cert));
    TRY(buf_add_span(&next->root_pem, j->root));
    return j->vault.size > 0 ? vault_keys_take(next, j->vault) : OK;
}

/* Keys that `self` has not. */
static void drop_new_keys(struct node_identity *next, const struct node_identity *self) {
    for (unsigned i = next->vault_n; i-- > 0;)
        if (!vault_key_of(self, next->vault[i].epoch)) vault_key_drop(next, next->vault[i].epoch);
}

RESULT ask_take(struct asking *a, struct node_identity *self, struct keyring *keys,
                struct why *why) {
    struct node_identity next = *self;
    enum err e = fill(&next, a);
    if (e != OK) (void)fail_with(why, e, "no memory for a certificate");
    if (e == OK && keys) e = identity_store(&next, keys, why);
    if (e != OK) {
        buf_free(&next.cert_pem);
        buf_free(&next.root_pem);
        drop_new_keys(&next, self);
        return e;
    }
    secret_free(self->key_pem);
    buf_free(&self->cert_pem);
    buf_free(&self->root_pem);
    a->key = NULL;
    *self = next;
    return OK;
}

void ask_forget(struct manager *m) {
    if (!m->asking) return;
    m->asking->done = NULL;
    m->asking->forgotten = true;
}
