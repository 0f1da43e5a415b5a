/* See admit.h. Here: who asks, by what right, and what certificate he gets. */
#include "api/node/admit.h"

#include <stdio.h>

#include "api/ca/authority.h"
#include "api/ca/cfssl.h"
#include "api/node/roles.h"
#include "api/node/sessions.h"
#include "store/join_token.h"
#include "store/spec.h"

static int64_t wall(struct manager *m) { return m->clock.wall_s(&m->clock); }

/* --- the certificate ------------------------------------------------------------------------ */

static void on_signed(void *ctx, enum err e, const char *text, struct span cert_pem) {
    struct admission *a = ctx;
    if (e == OK) e = buf_add_span(&a->foreign, cert_pem);
    /* Another manager would ask the same CA. */
    admit_resume(a, e == OK || e == ERR_PERMISSION ? e : ERR_BUSY, text);
}

static RESULT sign_outside(struct admission *a, const struct spec *spec,
                           const struct x509_subject *subject) {
    struct manager *m = a->manager;
    if (a->foreign.size > 0 && memcmp(&a->foreign_for, subject, sizeof *subject) == 0)
        return authority_accept(store_cluster(m->store), buf_span(&a->foreign), buf_span(&a->csr),
                                subject, wall(m), &a->cert, &a->why);
    buf_clear(&a->foreign);
    a->foreign_for = *subject;
    TRY(cfssl_start(m, spec, buf_span(&a->csr), subject, on_signed, a, &a->why));
    a->waiting = true;
    return ERR_BUSY;
}

/* Signs, and notes in the row what was signed. The key by which the node asks stays good until it
 * is seen with this one. Only managers serve clients, so only their certificates have hosts. */
static RESULT sign(struct admission *a, struct node_row *node) {
    struct manager *m = a->manager;
    const struct cluster *c = store_cluster(m->store);
    struct x509_subject subject = {0};
    struct row row;
    struct spec spec;
    int64_t from_s;
    uint8_t key[NODE_DIGEST_SIZE];
    spec_get(m->store, &row, &spec);
    bool manager = node->desired == NODE_MANAGER || node->granted == NODE_MANAGER;
    a->role = manager ? NODE_MANAGER : NODE_WORKER;
    (void)snprintf(subject.cn, sizeof subject.cn, "%s", a->node_id);
    (void)snprintf(subject.ou, sizeof subject.ou, "%s", manager ? ROLE_MANAGER : ROLE_WORKER);
    (void)snprintf(subject.o, sizeof subject.o, "%s", c->id);
    if (manager)
        credentials_hosts(a->request.client_address, a->request.peer_address, subject.hosts);
    buf_clear(&a->cert);
    buf_clear(&a->roots);
    TRY(authority_is_external(c, &spec)
            ? sign_outside(a, &spec, &subject)
            : authority_sign(c, &spec, buf_span(&a->csr), &subject, wall(m), &a->cert, &a->why));
    TRY(authority_roots(c, &a->roots));
    TRY(x509_key_digest(buf_span(&a->cert), key));
    TRY(x509_dates(buf_span(&a->cert), &from_s, &node->not_after_s));
    if (memcmp(key, a->who.key_digest, sizeof key) != 0)
        memcpy(node->previous_digest, a->who.key_digest, sizeof key);
    memcpy(node->key_digest, key, sizeof key);
    node->certificate = NODE_CERT_ISSUED;
    node->approved = false;
    memset(node->wanted_digest, 0, sizeof node->wanted_digest);
    return authority_issuer(c, node->issuer_digest);
}

/* --- becoming a member ---------------------------------------------------------------------- */

static void fill_member(struct admission *a, struct node_row *node) {
    const struct cluster *c = store_cluster(a->manager->store);
    a->row = (struct node){.raft_id = c->next_raft_id, .joined_s = wall(a->manager)};
    memcpy(a->row.id, a->node_id, sizeof a->row.id);
    (void)snprintf(a->row.name, sizeof a->row.name, "%s", a->request.name);
    (void)snprintf(a->row.client_address, ADDRESS_MAX, "%s", a->request.client_address);
    (void)snprintf(a->row.peer_address, ADDRESS_MAX, "%s", a->request.peer_address);
    node->granted = NODE_MANAGER;
    node->raft_id = a->row.raft_id;
}

/* What the node says of itself, known before its first session. Another host name than the row has
 * is for that to say (sessions.c). */
static void fill_description(const struct admission *a, struct node_row *node) {
    const struct wire_join *r = &a->request;
    (void)snprintf(node->client_address, ADDRESS_MAX, "%s", r->client_address);
    (void)snprintf(node->peer_address, ADDRESS_MAX, "%s", r->peer_address);
    if (!node->hostname[0])
        (void)snprintf(node->hostname, sizeof node->hostname, "%s", r->hostname);
    if (a->who.remote[0]) (void)snprintf(node->address, ADDRESS_MAX, "%s", a->who.remote);
}

static RESULT write_node(struct admission *a, struct admit_batch *b, enum row_action action,
                         const struct row *row, struct node_row *node) {
    TRY(sign(a, node));
    fill_description(a, node);
    if (a->member) fill_member(a, node);
    TRY(node_change_add(&b->changes, action, row, node));
    b->n++;
    return OK;
}

/* --- a token -------------------------------------------------------------------------------- */

static RESULT wrong_token(struct admission *a) {
    struct manager *m = a->manager;
    guesses_wrong(&m->guesses, a->who.remote);
    return fail_with(&a->why, ERR_PERMISSION,
                     "the token is not valid any more: `conclave token rotate` makes a new one");
}

/* The token as it will be with the uses of this batch. */
static RESULT find_token(struct admission *a, struct admit_batch *b, struct admit_token **out) {
    struct manager *m = a->manager;
    struct row row;
    struct join_token token;
    if (!join_token_find(m->store, a->request.token, &row, &token)) return wrong_token(a);
    for (unsigned i = 0; i < b->tokens_n; i++) {
        *out = &b->tokens[i];
        if (strcmp((*out)->row.id, row.id) == 0) return OK;
    }
    if (b->tokens_n == ADMIT_TOKENS_MAX) return ERR_BUSY;
    *out = &b->tokens[b->tokens_n];
    **out = (struct admit_token){.row = row, .token = token};
    return OK;
}

/* The row of a manager that never came: the answer to an earlier attempt got lost. */
struct orphan {
    const struct admission *a;
    char id[NODE_ID_SIZE + 1]; /* "" none */
};

static bool look_for_orphan(void *ctx, const struct row *row) {
    struct orphan *o = ctx;
    struct node_row n;
    if (node_row_decode(row->body, &n) != OK) return true;
    bool same = n.desired == NODE_MANAGER && strcmp(n.hostname, o->a->request.hostname) == 0 &&
                strcmp(n.peer_address, o->a->request.peer_address) == 0;
    bool never = n.state == NODE_UNKNOWN || (n.state == NODE_DOWN && n.engine[0] == 0);
    if (!same || !never) return true;
    memcpy(o->id, row->id, sizeof o->id);
    return false;
}

static RESULT remove_orphan(const struct admission *a, struct admit_batch *b) {
    struct manager *m = a->manager;
    struct orphan o = {.a = a};
    struct row row;
    row_all(m->store, ROW_NODE, look_for_orphan, &o);
    if (!o.id[0] || cluster_node_by_id(store_cluster(m->store), o.id)) return OK;
    if (!row_get(m->store, ROW_NODE, o.id, &row)) return OK;
    b->n++;
    return node_change_add(&b->changes, ROW_REMOVE, &row, NULL);
}

static RESULT judge_newcomer(struct admission *a, struct admit_batch *b) {
    struct manager *m = a->manager;
    struct admit_token *t = NULL;
    struct row row = {.kind = ROW_NODE};
    TRY(find_token(a, b, &t));
    TRY(join_token_usable(&t->token, wall(m), a->who.remote, &a->why));
    a->newcomer = true;
    if (t->token.role == NODE_MANAGER) TRY(admit_make_way(a));
    a->member = t->token.role == NODE_MANAGER;
    if (a->member) TRY(remove_orphan(a, b));
    if (!a->node_id[0]) random_id(a->node_id);
    struct node_row node = {.desired = t->token.role,
                            .granted = NODE_WORKER,
                            .availability = a->request.availability
                                                ? (enum node_availability)a->request.availability
                                                : NODE_ACTIVE,
                            .state = NODE_UNKNOWN,
                            .labels = t->token.labels};
    memcpy(row.id, a->node_id, sizeof row.id);
    memcpy(node.token_id, t->row.id, sizeof node.token_id);
    TRY(write_node(a, b, ROW_CREATE, &row, &node));
    t->token.used++;
    if (t == &b->tokens[b->tokens_n]) b->tokens_n++;
    return OK;
}

RESULT admit_tokens(struct admit_batch *b) {
    for (unsigned i = 0; i < b->tokens_n; i++) {
        const struct admit_token *t = &b->tokens[i];
        struct buf body = buf_new(ROW_BODY_MAX);
        struct row_change c = {.action = ROW_REPLACE,
                               .kind = ROW_TOKEN,
                               .version = t->row.version,
                               .name = t->row.name};
        memcpy(c.id, t->row.id, sizeof c.id);
        enum err e = join_token_encode(&t->token, &body);
        c.body = buf_span(&body);
        if (e == OK) e = row_change_add(&b->changes, &c);
        buf_free(&body);
        if (e != OK) return e;
        b->n++;
    }
    return OK;
}

/* --- nodes that we know --------------------------------------------------------------------- */

/* One change of a row is enough for a command. */
static bool in_batch(const struct admission *a) {
    for (const struct admission *other = a->manager->admissions; other; other = other->next)
        if (other != a && !other->over && strcmp(other->node_id, a->node_id) == 0 &&
            (other->batched || other->stage > ROWS))
            return true;
    return false;
}

static RESULT find_node(struct admission *a, const char *id, struct row *row,
                        struct node_row *node) {
    (void)snprintf(a->node_id, sizeof a->node_id, "%.*s", NODE_ID_SIZE, id);
    if (node_row_get(a->manager->store, a->node_id, row, node) != OK)
        return fail_with(&a->why, ERR_PERMISSION,
                         "this node is not one of the cluster's any more: it was removed");
    if (sessions_key_is_good(node, a->who.key_digest)) return OK;
    return fail_with(&a->why, ERR_PERMISSION,
                     "the certificate's key is not the one that this node was given last");
}

static RESULT judge_known(struct admission *a, struct admit_batch *b, const struct row *row,
                          struct node_row *node) {
    bool member = a->request.member != 0;
    if (member && node->desired != NODE_MANAGER)
        return fail_with(&a->why, ERR_PERMISSION, "this node is not to be a manager");
    if (in_batch(a)) return ERR_BUSY;
    if (member) TRY(admit_make_way(a));
    a->member = member;
    return write_node(a, b, ROW_REPLACE, row, node);
}

static RESULT judge_renewal(struct admission *a, struct admit_batch *b) {
    struct row row;
    struct node_row node;
    if (!a->who.subject.cn[0])
        return fail_with(&a->why, ERR_UNAUTHENTICATED, "a certificate of this cluster is needed");
    TRY(find_node(a, a->who.subject.cn, &row, &node));
    return judge_known(a, b, &row, &node);
}

/* --- a certificate that ran out ------------------------------------------------------------- */

/* Whose the old certificate is, as it stood at its end; and that the asker has its key. */
static RESULT check_proof(struct admission *a, int64_t *ended_s) {
    struct manager *m = a->manager;
    const struct cluster *c = store_cluster(m->store);
    struct span cert = buf_span(&a->old_cert);
    struct buf roots = buf_new(8 * PEM_MAX);
    int64_t from_s;
    enum err e = authority_roots(c, &roots);
    if (e == OK) e = x509_dates(cert, &from_s, ended_s);
    if (e == OK) e = x509_verify_ended(buf_span(&roots), cert, &a->who.subject, &a->why);
    buf_free(&roots);
    TRY(e);
    if (strcmp(a->who.subject.o, c->id) != 0)
        return fail_with(&a->why, ERR_CERTIFICATE, "the certificate is of another cluster");
    TRY(x509_proof_check(cert, buf_span(&a->csr), buf_span(&a->proof), &a->why));
    return x509_key_digest(cert, a->who.key_digest);
}

RESULT admit_pending(struct why *why) {
    return fail_with(why, ERR_PENDING,
                     "the certificate ran out; a manager has to approve that the node comes back "
                     "(conclave node approve)");
}

static bool is_key(const uint8_t a[NODE_DIGEST_SIZE], const uint8_t b[NODE_DIGEST_SIZE]) {
    return memcmp(a, b, NODE_DIGEST_SIZE) == 0;
}

/* The row says that it waits, and with which key: once for each, until one is approved. */
static RESULT wait_for_approval(struct admission *a, struct admit_batch *b, const struct row *row,
                                struct node_row *node, const uint8_t wanted[NODE_DIGEST_SIZE]) {
    bool waits = node->certificate == NODE_CERT_PENDING;
    if (waits && node->approved)
        return fail_with(&a->why, ERR_PENDING,
                         "the approval is for another key than the one that the node asks with now "
                         "(conclave node deny, and it asks anew)");
    if (waits && is_key(node->wanted_digest, wanted)) return admit_pending(&a->why);
    if (in_batch(a)) return ERR_BUSY;
    node->certificate = NODE_CERT_PENDING;
    node->approved = false;
    memcpy(node->wanted_digest, wanted, NODE_DIGEST_SIZE);
    TRY(node_change_add(&b->changes, ROW_REPLACE, row, node));
    b->n++;
    a->pending = true;
    return OK;
}

/* An asker keeps its key until it is let in (agent.h), so an approval, and an answer that may have
 * been lost, are for that key alone. */
static bool is_let_in(const struct admission *a, const struct node_row *node,
                      const uint8_t wanted[NODE_DIGEST_SIZE]) {
    bool approved = node->approved && is_key(node->wanted_digest, wanted);
    bool again = is_key(node->previous_digest, a->who.key_digest) &&
                 is_key(node->key_digest, wanted) && wall(a->manager) <= node->not_after_s;
    return approved || again;
}

static RESULT judge_expired(struct admission *a, struct admit_batch *b) {
    struct manager *m = a->manager;
    struct row row, settings;
    struct node_row node;
    struct spec spec;
    int64_t ended_s;
    uint8_t wanted[NODE_DIGEST_SIZE];
    TRY(check_proof(a, &ended_s));
    TRY(find_node(a, a->who.subject.cn, &row, &node));
    TRY(x509_request_digest(buf_span(&a->csr), wanted, &a->why));
    spec_get(m->store, &settings, &spec);
    if (wall(m) <= ended_s || is_let_in(a, &node, wanted)) return judge_known(a, b, &row, &node);
    if (spec.readmit_within_s > 0 && wall(m) - ended_s > spec.readmit_within_s)
        return fail_with(&a->why, ERR_PERMISSION, "the certificate ran out too long ago");
    switch (spec.readmit) {
    case READMIT_AUTOMATIC: return judge_known(a, b, &row, &node);
    case READMIT_APPROVAL: return wait_for_approval(a, b, &row, &node, wanted);
    case READMIT_NEVER: break;
    }
    return fail_with(&a->why, ERR_PERMISSION,
                     "the certificate ran out, and this cluster lets nobody come back so");
}

RESULT admit_judge(struct admission *a, struct admit_batch *b) {
    size_t before = b->changes.size;
    unsigned n = b->n;
    enum err e = ERR_PROTOCOL;
    a->pending = false;
    switch ((enum join_kind)a->request.kind) {
    case JOIN_TOKEN: e = judge_newcomer(a, b); break;
    case JOIN_RENEW: e = judge_renewal(a, b); break;
    case JOIN_EXPIRED: e = judge_expired(a, b); break;
    }
    if (e == OK) return OK;
    b->changes.size = before;
    b->n = n;
    a->member = false;
    return e;
}
