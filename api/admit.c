/* The leader's side of joining. Newcomers are admitted one after the other:
 *
 *   start -> (removing -> clearing -> start) -> adding -> change -> changing -> answered
 *
 * start checks the name and takes away the row of an earlier newcomer of that name that never
 * became a member; adding puts the row into the log (with the raft id from the state's counter and
 * the certificate's id), change and changing make it a standby of the quorum. A crash in between
 * leaves a row without a member, which the next attempt clears. Steps are taken from the loop's
 * check phase (admit_step), never inside a callback of the replica. */
#include "api/manager.h"

#include <stdio.h>
#include <stdlib.h>

#include "raft/loop.h"

#define ADMISSIONS_MAX     16
#define ADMIT_TIMEOUT_MS   15000
#define WRONG_TOKEN_COST   40  /* beats until it is forgotten */
#define WRONG_TOKENS_LIMIT 400 /* ten at once, then one in ten seconds */

enum stage { START, REMOVING, CLEARING, ADDING, CHANGE, CHANGING };

struct admission {
    struct manager *manager;
    struct join_connection *connection; /* NULL: answered already; only a callback is awaited */
    struct wire_join request;           /* its span is the buffer below */
    struct buf csr, cert;
    struct node row; /* the newcomer's */
    enum stage stage;
    bool waiting;   /* the write or the change has not come back */
    enum err error; /* its outcome */
    struct why why;
    uint64_t deadline_ms;
    struct write write;
    struct change change;
    struct admission *next;
};

static void admission_free(struct admission *a) {
    buf_free(&a->csr);
    buf_free(&a->cert);
    free(a);
}

/* --- answers -------------------------------------------------------------------------------- */

static void refuse(struct join_connection *c, enum err e, const char *text, const char *leader) {
    struct wire_joined answer = {.error = (uint16_t)e};
    (void)snprintf(answer.text, sizeof answer.text, "%s", text);
    (void)snprintf(answer.leader, sizeof answer.leader, "%s", leader);
    join_answer(c, &answer);
}

static bool in_quorum(const struct replica_status *s, uint64_t raft_id) {
    for (unsigned i = 0; i < s->n; i++)
        if (s->members[i].raft_id == raft_id) return true;
    return false;
}

static void add_members(const struct manager *m, struct wire_joined *answer) {
    const struct cluster *c = store_cluster(m->store);
    struct replica_status status;
    replica_status(m->replica, &status);
    for (unsigned i = 0; i < c->n && answer->n < MEMBERS_MAX; i++) {
        if (!in_quorum(&status, c->nodes[i].raft_id)) continue;
        struct wire_member *out = &answer->members[answer->n++];
        out->raft_id = c->nodes[i].raft_id;
        (void)snprintf(out->node_id, sizeof out->node_id, "%s", c->nodes[i].id);
        (void)snprintf(out->peer_address, sizeof out->peer_address, "%s", c->nodes[i].peer_address);
    }
}

static void welcome(struct admission *a) {
    struct manager *m = a->manager;
    const struct cluster *c = store_cluster(m->store);
    struct wire_joined answer = {
        .raft_id = a->row.raft_id, .cert = buf_span(&a->cert), .root = buf_span(&c->root_pem)};
    (void)snprintf(answer.cluster_id, sizeof answer.cluster_id, "%s", c->id);
    (void)snprintf(answer.node_id, sizeof answer.node_id, "%s", a->row.id);
    if (c->unlock_key) answer.unlock_key = secret_span(c->unlock_key);
    add_members(m, &answer);
    log_event(m->config.log, LOG_INFO, "members", "%s (id %s) has joined", a->row.name, a->row.id);
    join_answer(a->connection, &answer);
}

/* Ends the first admission. */
static void end(struct manager *m, enum err e, const char *text) {
    struct admission *a = m->admissions;
    m->admissions = a->next;
    if (e == OK) {
        welcome(a);
    } else {
        log_event(m->config.log, LOG_WARNING, "members", "%s was not admitted: %s", a->request.name,
                  text);
        refuse(a->connection, e, text, "");
    }
    admission_free(a);
}

/* --- steps ---------------------------------------------------------------------------------- */

/* A callback has come back; the next step is taken in the check phase. */
static void resume(struct admission *a, enum err e, const char *text) {
    struct manager *m = a->manager;
    a->waiting = false;
    if (!a->connection) {
        admission_free(a);
        return;
    }
    a->error = e;
    (void)snprintf(a->why.text, sizeof a->why.text, "%s", text);
    m->ops = true;
    m->env.wake(m);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    if (e == OK && r->error != OK) {
        e = r->error;
        text =
            e == ERR_EXISTS ? "another node of this name or address has just joined" : err_text(e);
    }
    resume(w->ctx, e, text);
}

static void on_changed(struct change *c, enum err e, const char *text) { resume(c->ctx, e, text); }

static RESULT propose(struct admission *a, const struct command *c, enum stage stage) {
    a->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = a};
    a->stage = stage;
    enum err e = command_encode(c, &a->write.command);
    if (e == OK) e = manager_write(a->manager, &a->write);
    a->waiting = e == OK;
    return e;
}

static RESULT sign(struct admission *a, const struct cluster *c) {
    struct manager *m = a->manager;
    struct x509_subject subject = {0};
    (void)snprintf(subject.cn, sizeof subject.cn, "%s", a->row.id);
    (void)snprintf(subject.ou, sizeof subject.ou, "%s", ROLE_MANAGER);
    (void)snprintf(subject.o, sizeof subject.o, "%s", c->id);
    credentials_hosts(a->row.client_address, a->row.peer_address, subject.hosts);
    buf_clear(&a->cert);
    return x509_issue(c->root_key, buf_span(&c->root_pem), buf_span(&a->csr), &subject,
                      m->clock.wall_s(&m->clock), NODE_VALIDITY_S, &a->cert, &a->why);
}

static const struct node *same_name(const struct cluster *c, const struct admission *a) {
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->nodes[i].name, a->request.name) == 0 ||
            strcmp(c->nodes[i].peer_address, a->request.peer_address) == 0)
            return &c->nodes[i];
    return NULL;
}

static RESULT change_member(struct admission *a, enum change_kind kind, uint64_t raft_id,
                            enum stage stage) {
    a->change = (struct change){.kind = kind, .raft_id = raft_id, .done = on_changed, .ctx = a};
    TRY(replica_change(a->manager->replica, &a->change, &a->why));
    a->stage = stage;
    a->waiting = true;
    return OK;
}

/* A standby of this name and address that nobody has ever heard of: the answer to an earlier
 * attempt of the same newcomer got lost. */
static bool is_earlier_attempt(const struct admission *a, const struct replica_status *s,
                               const struct node *row) {
    if (strcmp(row->name, a->request.name) != 0 ||
        strcmp(row->peer_address, a->request.peer_address) != 0)
        return false;
    for (unsigned i = 0; i < s->n; i++)
        if (s->members[i].raft_id == row->raft_id)
            return s->members[i].role == REPLICA_STANDBY && s->members[i].match == 0 &&
                   !admin_hears(a->manager, &s->members[i]);
    return false;
}

/* There is a row of this name or address: it goes when it is nobody's. */
static RESULT make_way(struct admission *a, const struct replica_status *s,
                       const struct node *row) {
    if (!in_quorum(s, row->raft_id)) {
        struct command remove = {.op = OP_NODE_REMOVE, .raft_id = row->raft_id};
        return propose(a, &remove, CLEARING);
    }
    if (is_earlier_attempt(a, s, row))
        return change_member(a, CHANGE_REMOVE, row->raft_id, REMOVING);
    return fail_with(&a->why, ERR_EXISTS,
                     "there is a member %s at %s already; if it is gone for good: conclave member "
                     "rm %s",
                     row->name, row->peer_address, row->name);
}

static RESULT start(struct admission *a) {
    struct manager *m = a->manager;
    const struct cluster *c = store_cluster(m->store);
    const struct node *other = same_name(c, a);
    struct replica_status status;
    replica_status(m->replica, &status);
    if (other) return make_way(a, &status, other);
    if (status.n >= MEMBERS_MAX)
        return fail_with(&a->why, ERR_PRECONDITION, "a cluster has at most %d members",
                         MEMBERS_MAX);
    a->row = (struct node){.raft_id = c->next_raft_id, .joined_s = m->clock.wall_s(&m->clock)};
    random_id(a->row.id);
    (void)snprintf(a->row.name, sizeof a->row.name, "%s", a->request.name);
    (void)snprintf(a->row.client_address, ADDRESS_MAX, "%s", a->request.client_address);
    (void)snprintf(a->row.peer_address, ADDRESS_MAX, "%s", a->request.peer_address);
    TRY(sign(a, c));
    struct command add = {.op = OP_NODE_ADD, .node = a->row};
    return propose(a, &add, ADDING);
}

/* One step of the first admission; false when there is nothing to be done now. */
static bool step(struct manager *m) {
    struct admission *a = m->admissions;
    if (!a || a->waiting) return false;
    enum err e = a->error;
    if (e == OK) {
        switch (a->stage) {
        case START:
        case REMOVING:
        case CLEARING: e = start(a); break;
        case ADDING: a->stage = CHANGE; return true;
        case CHANGE: e = change_member(a, CHANGE_ADD, a->row.raft_id, CHANGING); break;
        case CHANGING: end(m, OK, ""); return true;
        }
    }
    if (e == OK) return true;
    /* ERR_BUSY: another change is under way; at a later beat again. */
    if (e == ERR_BUSY && m->clock.now_ms(&m->clock) < a->deadline_ms) {
        a->error = OK;
        return false;
    }
    end(m, e, a->why.text[0] ? a->why.text : err_text(e));
    return true;
}

void admit_step(struct manager *m) {
    while (m->state == MANAGER_RUNNING && step(m))
        continue;
}

void admit_stop(struct manager *m) {
    struct admission *next;
    for (struct admission *a = m->admissions; a; a = next) {
        next = a->next;
        refuse(a->connection, ERR_CLOSED, "the node is stopping", "");
        a->connection = NULL;
        if (!a->waiting) admission_free(a);
    }
    m->admissions = NULL;
}

/* --- requests ------------------------------------------------------------------------------- */

static RESULT check_token(struct manager *m, const char *secret, struct why *why) {
    uint8_t hash[TOKEN_HASH_SIZE];
    if (m->wrong_tokens > WRONG_TOKENS_LIMIT)
        return fail_with(why, ERR_BUSY, "too many wrong tokens lately; wait a minute");
    token_hash(secret, hash);
    if (sodium_memcmp(hash, store_cluster(m->store)->token_hash, sizeof hash) == 0) return OK;
    m->wrong_tokens += WRONG_TOKEN_COST;
    return fail_with(why, ERR_PERMISSION,
                     "the token is not valid any more: `conclave token rotate` makes a new one");
}

static RESULT check_request(struct manager *m, const struct wire_join *request, struct why *why) {
    struct address parts;
    TRY(manager_ready(m, why));
    if (!store_cluster(m->store)->initialised)
        return fail_with(why, ERR_BUSY, "the cluster is being founded; try again");
    TRY(check_token(m, request->token, why));
    TRY(name_check(request->name, why));
    TRY(address_split(request->peer_address, &parts, why));
    return address_split(request->client_address, &parts, why);
}

static RESULT enqueue(struct manager *m, struct join_connection *c,
                      const struct wire_join *request) {
    struct admission **last = &m->admissions;
    unsigned n = 0;
    for (; *last; last = &(*last)->next)
        n++;
    if (n == ADMISSIONS_MAX) return ERR_BUSY;
    struct admission *a = calloc(1, sizeof *a);
    if (!a) return ERR_NOMEM;
    *a = (struct admission){.manager = m, .connection = c, .request = *request};
    a->csr = buf_new(PEM_MAX);
    a->cert = buf_new(PEM_MAX);
    a->deadline_ms = m->clock.now_ms(&m->clock) + ADMIT_TIMEOUT_MS;
    if (buf_add_span(&a->csr, request->request) != OK) {
        admission_free(a);
        return ERR_NOMEM;
    }
    a->request.request = buf_span(&a->csr);
    sodium_memzero(a->request.token, sizeof a->request.token);
    *last = a;
    m->ops = true;
    m->env.wake(m);
    return OK;
}

void admit_request(void *ctx, struct join_connection *c, const struct wire_join *request) {
    struct manager *m = ctx;
    struct why why = {0};
    enum err e = check_request(m, request, &why);
    if (e == OK && m->leader == 0)
        e = fail_with(&why, ERR_NO_LEADER, "nobody leads the cluster now; try again");
    if (e == OK && m->leader != m->self.raft_id) {
        const struct node *leader = cluster_node(store_cluster(m->store), m->leader);
        refuse(c, ERR_NOT_LEADER, "ask the leader", leader ? leader->peer_address : "");
        return;
    }
    if (e == OK) e = enqueue(m, c, request);
    if (e != OK) refuse(c, e, why.text[0] ? why.text : err_text(e), "");
}
