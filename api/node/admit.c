/* See admit.h. Here: requests, the queue of admissions, their batches, answers. */
#include "api/node/admit.h"
#include "api/manager_parts.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/ca/authority.h"
#include "api/node/ask.h"
#include "api/node/roles.h"
#include "raft/loop.h"

#define ADMISSIONS_MAX   256
#define ADMIT_TIMEOUT_MS 15000

static void admission_free(struct admission *a) {
    buf_free(&a->csr);
    buf_free(&a->old_cert);
    buf_free(&a->proof);
    buf_free(&a->cert);
    buf_free(&a->roots);
    buf_wipe(&a->vault);
    buf_free(&a->foreign);
    sodium_memzero(a->request.token, sizeof a->request.token);
    free(a);
}

static uint64_t now_of(struct manager *m) { return m->clock.now_ms(&m->clock); }

/* --- answers -------------------------------------------------------------------------------- */

static void refuse(struct join_connection *c, enum err e, const char *text, const char *leader) {
    struct wire_joined answer = {.error = (uint16_t)e};
    (void)snprintf(answer.text, sizeof answer.text, "%s", text);
    (void)snprintf(answer.leader, sizeof answer.leader, "%s", leader);
    join_answer(c, &answer);
}

static void add_managers(const struct manager *m, struct wire_joined *answer) {
    const struct cluster *c = store_cluster(m->store);
    for (unsigned i = 0; i < c->n && answer->n < MEMBERS_MAX; i++) {
        struct wire_member *out = &answer->members[answer->n++];
        out->raft_id = c->nodes[i].raft_id;
        (void)snprintf(out->node_id, sizeof out->node_id, "%s", c->nodes[i].id);
        (void)snprintf(out->peer_address, sizeof out->peer_address, "%s", c->nodes[i].peer_address);
    }
}

/* A member to be gets the cluster keys with its admission; what it misses still, it asks for. */
static void add_vault(struct admission *a) {
    a->vault = buf_new(VAULT_KEYS_SIZE);
    if (buf_reserve(&a->vault, VAULT_KEYS_SIZE) != OK ||
        vault_keys_encode(&a->manager->self, &a->vault) != OK)
        buf_wipe(&a->vault);
}

static void fill_answer(struct admission *a, struct wire_joined *out) {
    const struct manager *m = a->manager;
    const struct cluster *c = store_cluster(m->store);
    *out = (struct wire_joined){.raft_id = a->member ? a->row.raft_id : 0,
                                .cert = buf_span(&a->cert),
                                .root = buf_span(&a->roots)};
    out->role = a->role == NODE_MANAGER ? JOIN_MANAGER : JOIN_WORKER;
    (void)snprintf(out->cluster_id, sizeof out->cluster_id, "%s", c->id);
    (void)snprintf(out->node_id, sizeof out->node_id, "%s", a->node_id);
    if (a->member && c->unlock_key) out->unlock_key = secret_span(c->unlock_key);
    if (a->member && !a->own) add_vault(a);
    out->vault = buf_span(&a->vault);
    add_managers(m, out);
}

static const char *deed(const struct admission *a) {
    if (a->newcomer) return a->member ? "has joined as a manager" : "has joined as a worker";
    if (a->member) return "becomes a manager";
    return a->request.kind == JOIN_EXPIRED ? "has come back" : "has a new certificate";
}

/* Gives the leader its own answer, in memory that lasts. */
static RESULT fill_own(struct admission *a, struct asking *out) {
    buf_clear(&out->memory);
    TRY(buf_reserve(&out->memory, a->cert.size + a->roots.size));
    TRY(buf_add_span(&out->memory, buf_span(&a->cert)));
    TRY(buf_add_span(&out->memory, buf_span(&a->roots)));
    fill_answer(a, &out->answer);
    out->answer.cert = span_of(out->memory.at, a->cert.size);
    out->answer.root = span_of(out->memory.at + a->cert.size, a->roots.size);
    out->answer.unlock_key = span_of(NULL, 0);
    return OK;
}

static void answer_own(struct admission *a, enum err e, const char *text) {
    if (e == OK) e = fill_own(a, a->own);
    a->own_done(a->own_ctx, e, e == OK || text[0] ? text : err_text(e), a->own);
    a->own = NULL;
}

/* Ends it; its memory goes with the sweep, when nothing is awaited. */
static void end(struct admission *a, enum err e, const char *text) {
    struct manager *m = a->manager;
    const char *who = a->node_id[0] ? a->node_id : a->request.name;
    a->over = true;
    if (e == OK)
        log_event(m->config.log, LOG_INFO, "members", "%s (%s) %s", a->request.name, who, deed(a));
    else
        log_event(m->config.log, e == ERR_PENDING ? LOG_DEBUG : LOG_WARNING, "members",
                  "%s (%s, from %s) was not admitted: %s", a->request.name, who,
                  a->who.remote[0] ? a->who.remote : "itself", text);
    if (a->own) {
        answer_own(a, e, text);
    } else if (e == OK) {
        struct wire_joined answer;
        fill_answer(a, &answer);
        join_answer(a->connection, &answer);
        sodium_memzero(&answer, sizeof answer);
    } else {
        refuse(a->connection, e, text, "");
    }
    a->connection = NULL;
}

static void sweep(struct manager *m) {
    for (struct admission **at = &m->admissions; *at;) {
        struct admission *a = *at;
        if (!a->over || a->waiting) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        admission_free(a);
    }
}

/* --- batches -------------------------------------------------------------------------------- */

void admit_resume(struct admission *a, enum err e, const char *text) {
    a->waiting = false;
    a->error = e;
    (void)snprintf(a->why.text, sizeof a->why.text, "%s", text);
    a->manager->ops = true;
    a->manager->env.wake(a->manager);
}

static bool is_passing(enum err e) { return e == ERR_CONFLICT || e == ERR_BUSY; }

static void batch_free(struct admit_batch *b) {
    buf_free(&b->changes);
    free(b);
}

static void on_batch(struct write *w, enum err e, const char *text, const struct result *r) {
    struct admit_batch *b = w->ctx;
    struct manager *m = b->manager;
    /* What one of them asks for can't be written: each is judged anew, in a batch of its own. */
    bool spoilt = e == OK && r->error != OK && !is_passing(r->error) && b->admits > 1;
    if (e == OK) e = r->error;
    for (struct admission *a = m->admissions; a; a = a->next) {
        if (!a->batched) continue;
        a->batched = false;
        if (spoilt) {
            a->apart = true;
            a->stage = JUDGE;
        }
        admit_resume(a, spoilt ? OK : e, e == OK || text[0] ? text : err_text(e));
    }
    m->admit_batch = NULL;
    batch_free(b);
}

/* Judges all that wait, up to a batch. */
static void gather(struct manager *m, struct admit_batch *b) {
    for (struct admission *a = m->admissions; a && b->admits < ADMIT_BATCH_MAX; a = a->next) {
        if (a->over || a->waiting || a->stage != JUDGE || (a->apart && b->n > 0)) continue;
        a->why.text[0] = 0;
        enum err e = admit_judge(a, b);
        if (e == OK) {
            a->batched = a->waiting = true;
            a->stage = ROWS;
            b->admits++;
            if (a->apart) return;
        } else if (!a->waiting && (e != ERR_BUSY || now_of(m) >= a->deadline_ms)) {
            end(a, e, a->why.text[0] ? a->why.text : err_text(e));
        }
    }
}

static void start_batch(struct manager *m) {
    if (m->admit_batch) return;
    struct admit_batch *b = calloc(1, sizeof *b);
    if (!b) return; /* with the next beat */
    b->manager = m;
    b->changes = buf_new(COMMAND_MAX - 64 * KIB);
    gather(m, b);
    if (b->n == 0) {
        batch_free(b);
        return;
    }
    b->write = (struct write){.done = on_batch, .ctx = b, .proposal = {.here = true}};
    m->admit_batch = b;
    enum err e = admit_tokens(b);
    if (e == OK) e = rows_command(m, &b->changes, b->n, &b->write);
    if (e == OK) e = manager_write(m, &b->write);
    struct result none = {.error = OK};
    if (e != OK) on_batch(&b->write, e, "", &none);
}

/* --- steps ---------------------------------------------------------------------------------- */

/* What came back failed. */
static void on_failure(struct admission *a) {
    bool again = is_passing(a->error) && now_of(a->manager) < a->deadline_ms;
    if (again && a->stage == ROWS) {
        a->stage = JUDGE;
        a->error = OK;
        return;
    }
    if (again && (a->stage == CHANGE || a->stage == REMOVING)) {
        a->error = OK; /* another change of the quorum is under way: at a later beat */
        return;
    }
    struct why why = a->why;
    enum err e = a->error;
    if (a->stage > ROWS && a->stage != UNDOING && a->newcomer && admit_undo(a) == OK) {
        a->undo_error = e;
        a->undo_why = why;
        return;
    }
    end(a, e, why.text[0] ? why.text : err_text(e));
}

static void step(struct admission *a) {
    if (a->error != OK && a->stage != UNDOING) {
        on_failure(a);
        return;
    }
    enum err e = OK;
    switch (a->stage) {
    case JUDGE: return; /* the next batch's */
    case ROWS:
        if (a->pending) e = admit_pending(&a->why);
        if (a->member) a->stage = ADDING;
        break;
    case REMOVING:
    case CLEARING: a->stage = JUDGE; return;
    case UNDOING: end(a, a->undo_error, a->undo_why.text); return;
    case ADDING:
    case CHANGE:
    case CHANGING: break;
    }
    if (e == OK && a->stage != ROWS) e = admit_member_step(a);
    if (e != OK) {
        a->error = e;
        on_failure(a);
    } else if (!a->waiting && (a->stage == ROWS || a->stage == CHANGING)) {
        end(a, OK, "");
    }
}

void admit_step(struct manager *m) {
    if (m->state != MANAGER_RUNNING) return;
    for (struct admission *a = m->admissions; a; a = a->next)
        if (!a->over && !a->waiting) step(a);
    start_batch(m);
    sweep(m);
}

void admit_stop(struct manager *m) {
    for (struct admission *a = m->admissions; a; a = a->next)
        if (!a->over) end(a, ERR_CLOSED, "the node is stopping");
    sweep(m); /* the others go when their callback has come */
}

/* --- requests ------------------------------------------------------------------------------- */

static RESULT copy(struct admission *a, const struct wire_join *request) {
    a->csr = a->old_cert = a->cert = a->roots = a->foreign = buf_new(PEM_MAX);
    a->proof = buf_new(PROOF_MAX);
    TRY(buf_add_span(&a->csr, request->request));
    TRY(buf_add_span(&a->old_cert, request->old_cert));
    TRY(buf_add_span(&a->proof, request->proof));
    a->request.request = buf_span(&a->csr);
    a->request.old_cert = buf_span(&a->old_cert);
    a->request.proof = buf_span(&a->proof);
    return OK;
}

static RESULT enqueue(struct manager *m, const struct wire_join *request,
                      const struct node_caller *who, struct admission **out) {
    struct admission **last = &m->admissions;
    unsigned n = 0;
    for (; *last; last = &(*last)->next)
        n++;
    if (n == ADMISSIONS_MAX) return ERR_BUSY;
    struct admission *a = calloc(1, sizeof *a);
    if (!a) return ERR_NOMEM;
    *a = (struct admission){.manager = m, .request = *request, .who = *who};
    a->deadline_ms = now_of(m) + ADMIT_TIMEOUT_MS;
    if (copy(a, request) != OK) {
        admission_free(a);
        return ERR_NOMEM;
    }
    *last = *out = a;
    m->ops = true;
    m->env.wake(m);
    return OK;
}

static RESULT check_address(const char *address, struct why *why) {
    struct address parts;
    return address[0] ? address_split(address, &parts, why) : OK; /* a member's: admit_make_way */
}

static RESULT check_request(struct manager *m, const struct wire_join *request, const char *remote,
                            struct why *why) {
    TRY(manager_ready(m, why));
    if (m->leader == 0)
        return fail_with(why, ERR_NO_LEADER, "nobody leads the cluster now; try again");
    if (!store_cluster(m->store)->initialised)
        return fail_with(why, ERR_BUSY, "the cluster is being founded; try again");
    if (request->kind == JOIN_TOKEN && guesses_many(&m->guesses, remote))
        return fail_with(why, ERR_BUSY, "too many wrong tokens from there lately; wait a minute");
    TRY(name_check(request->name, why));
    TRY(check_address(request->peer_address, why));
    return check_address(request->client_address, why);
}

void admit_request(void *ctx, struct join_connection *c, const struct wire_join *request,
                   const struct node_caller *who) {
    struct manager *m = ctx;
    struct why why = {0};
    struct admission *a = NULL;
    enum err e = check_request(m, request, who->remote, &why);
    if (e == OK && m->leader != m->self.raft_id) {
        const struct node *leader = cluster_node(store_cluster(m->store), m->leader);
        refuse(c, ERR_NOT_LEADER, "ask the leader", leader ? leader->peer_address : "");
        return;
    }
    if (e == OK) e = enqueue(m, request, who, &a);
    if (e == OK)
        a->connection = c;
    else
        refuse(c, e, why.text[0] ? why.text : err_text(e), "");
}

RESULT admit_own(struct manager *m, struct asking *own, admit_done *done, void *ctx,
                 struct why *why) {
    struct node_caller who = {0};
    struct admission *a = NULL;
    enum err e = x509_key_digest(buf_span(&m->self.cert_pem), who.key_digest);
    memcpy(who.subject.cn, m->self.node_id, NODE_ID_SIZE + 1);
    if (e == OK) e = enqueue(m, &own->request, &who, &a);
    if (e != OK) {
        ask_free(own);
        return fail_with(why, e, "%s", err_text(e));
    }
    a->own = own;
    a->own_done = done;
    a->own_ctx = ctx;
    return OK;
}

bool admit_has_own(const struct manager *m) {
    for (const struct admission *a = m->admissions; a; a = a->next)
        if (a->own) return true;
    return false;
}

bool admit_is_about(const struct manager *m, const char *node_id) {
    for (const struct admission *a = m->admissions; a; a = a->next)
        if (!a->over && strcmp(a->node_id, node_id) == 0) return true;
    return false;
}
