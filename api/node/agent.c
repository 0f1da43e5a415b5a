/* See agent.h. A session's life here:
 *
 *   (none) --dial--> uplink --opened--> open: HELLO, BEATs --closed, silence--> ended --> (none)
 *
 * The uplink is freed in a step of its own, never in its callback. */
#include "api/node/agent.h"
#include "api/manager_parts.h"

#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "api/node/ask.h"
#include "api/node/nodes.h"
#include "api/node/sessions.h"
#include "api/task/runner.h"

#define DIAL_MIN_MS      100
#define DIAL_MAX_MS      5000
#define SILENCE_PERIODS  3
#define HEARTBEAT_MS_MIN 500
#define LEAVE_MS         2000
#define OWN_WITHOUT_MS   3000 /* with ourselves, and nobody leads: another manager may know more */

static uint64_t now_of(struct manager *m) { return m->clock.now_ms(&m->clock); }

static bool lives(const struct manager *m) {
    return m->state == MANAGER_RUNNING || m->state == MANAGER_WORKER;
}

void agent_wake(struct manager *m) {
    m->agent.due = true;
    m->env.wake(m);
}

/* --- what the node is ------------------------------------------------------------------------ */

/* Its host name is what it was started with: the machine's, unless told. */
static void describe(const struct manager *m, struct node_hello *out) {
    struct utsname u;
    *out = (struct node_hello){0};
    (void)snprintf(out->name, sizeof out->name, "%s", m->self.name);
    (void)snprintf(out->client_address, ADDRESS_MAX, "%s", m->self.client_address);
    (void)snprintf(out->peer_address, ADDRESS_MAX, "%s", m->self.peer_address);
    (void)snprintf(out->engine, sizeof out->engine, "%s", CONCLAVE_VERSION);
    (void)snprintf(out->os, sizeof out->os, "linux");
    (void)snprintf(out->hostname, sizeof out->hostname, "%s", m->self.name);
    if (uname(&u) == 0)
        (void)snprintf(out->arch, sizeof out->arch, "%.*s", (int)sizeof out->arch - 1, u.machine);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    if (cpus > 0) out->nano_cpus = (uint64_t)cpus * 1000000000ULL;
    if (pages > 0 && page > 0) out->memory_bytes = (uint64_t)pages * (uint64_t)page;
}

static void say_hello(struct manager *m) {
    struct node_hello hello;
    struct buf body = buf_new(SESSION_BODY_MAX);
    describe(m, &hello);
    if (node_hello_encode(&hello, &body) == OK)
        uplink_say(m->agent.uplink, NODE_HELLO, buf_span(&body));
    buf_free(&body);
    m->agent.said_ms = now_of(m);
}

static void say_beat(struct manager *m) {
    uint8_t body[8];
    put_u64(body, ++m->agent.sequence);
    uplink_say(m->agent.uplink, NODE_BEAT, span_of(body, sizeof body));
    m->agent.said_ms = now_of(m);
}

/* --- callbacks of the session ----------------------------------------------------------------- */

static void on_opened(void *ctx, struct uplink *u) {
    struct manager *m = ctx;
    (void)u;
    m->agent.open = true;
    m->agent.heard_ms = now_of(m);
    say_hello(m);
    runner_session(m);
}

RESULT agent_want(struct manager *m, const struct node_want *want) {
    struct agent *a = &m->agent;
    a->roots.max = PEM_MAX;
    buf_clear(&a->roots);
    TRY(buf_add_span(&a->roots, want->root_pem));
    a->want = *want;
    a->want.root_pem = buf_span(&a->roots);
    a->wanted = true;
    if (a->wait_ms > 0 && !a->pending) a->ask_ms = 0; /* what failed may be right now */
    agent_wake(m);
    return OK;
}

static RESULT on_message(void *ctx, struct uplink *u, uint8_t kind, struct span body,
                         struct why *why) {
    struct manager *m = ctx;
    struct node_want want;
    (void)u;
    m->agent.heard_ms = now_of(m);
    m->agent.failures = 0;
    if (kind == NODE_BEAT) return OK;
    if (kind == NODE_LEAVE) {
        m->agent.leaving_ms = 0;
        agent_wake(m);
        return OK;
    }
    if (kind == NODE_ASSIGN || kind == NODE_FETCHED) return runner_message(m, kind, body, why);
    if (kind != NODE_WANT) return OK; /* of a later version */
    if (node_want_decode(body, &want) != OK)
        return fail_with(why, ERR_PROTOCOL, "what is wanted of the node is not understood");
    m->agent.trouble[0] = 0;
    return agent_want(m, &want);
}

static void on_closed(void *ctx, struct uplink *u, enum err e, const char *text) {
    struct manager *m = ctx;
    struct agent *a = &m->agent;
    (void)u;
    (void)snprintf(a->trouble, sizeof a->trouble, "%s", text[0] ? text : err_text(e));
    log_event(m->config.log, a->open || e == ERR_PERMISSION ? LOG_WARNING : LOG_DEBUG, "node",
              "the session with %s: %s", a->address, a->trouble);
    a->ended = true;
    if (m->runner) runner_lost(m, e == ERR_PERMISSION);
    agent_wake(m);
}

/* --- the uplink's life ------------------------------------------------------------------------ */

static void on_freed(void *ctx) {
    struct manager *m = ctx;
    struct agent *a = &m->agent;
    a->freeing--;
    if (a->freeing > 0 || a->uplink || !a->stopped) return;
    void (*stopped)(struct manager * m) = a->stopped;
    a->stopped = NULL;
    stopped(m);
}

static void hang_up(struct manager *m) {
    struct agent *a = &m->agent;
    struct uplink *u = a->uplink;
    a->uplink = NULL;
    a->open = a->own = a->ended = false;
    a->address[0] = 0;
    if (!u) return;
    a->freeing++;
    uplink_free(u, on_freed, m);
}

/* Later each time that all have been tried. */
static void wait_after_failure(struct manager *m) {
    struct agent *a = &m->agent;
    unsigned others = m->self.n > 0 ? m->self.n : 1, rounds = a->failures++ / others;
    uint64_t pause = (uint64_t)DIAL_MIN_MS << (rounds < 6 ? rounds : 6);
    if (pause > DIAL_MAX_MS) pause = DIAL_MAX_MS;
    a->next_ms = now_of(m) + pause / 2 + random_u64() % (pause / 2 + 1);
}

static bool in_touch(const struct manager *m) {
    return m->state == MANAGER_RUNNING && m->peers && m->leader != 0 &&
           !(m->agent.wanted && m->agent.want.role == NODE_WORKER);
}

/* Whom to ask for a session now; false: nobody is known. */
static bool next_manager(struct manager *m, struct uplink_config *out, bool *own) {
    struct agent *a = &m->agent;
    *own = in_touch(m) && a->failures % 2 == 0;
    if (*own) {
        (void)snprintf(out->address, ADDRESS_MAX, "%s", peers_address(m->peers));
        memcpy(out->node_id, m->self.node_id, sizeof out->node_id);
        return true;
    }
    for (unsigned i = 0; i < m->self.n; i++) {
        const struct wire_member *at = &m->self.members[a->at++ % m->self.n];
        if (strcmp(at->node_id, m->self.node_id) == 0) continue;
        (void)snprintf(out->address, ADDRESS_MAX, "%s", at->peer_address);
        memcpy(out->node_id, at->node_id, sizeof out->node_id);
        return true;
    }
    return false;
}

static void dial(struct manager *m) {
    struct agent *a = &m->agent;
    struct why why = {0};
    struct uplink_config config = {.loop = m->config.loop,
                                   .ctx = m,
                                   .root_pem = buf_span(&m->self.root_pem),
                                   .cert_pem = buf_span(&m->self.cert_pem),
                                   .key_pem = m->self.key_pem,
                                   .opened = on_opened,
                                   .message = on_message,
                                   .closed = on_closed};
    if (!next_manager(m, &config, &a->own)) {
        a->next_ms = now_of(m) + DIAL_MAX_MS;
        return;
    }
    memcpy(config.cluster_id, m->self.cluster_id, sizeof config.cluster_id);
    memcpy(a->address, config.address, sizeof a->address);
    if (uplink_open(&config, &a->uplink, &why) == OK) return;
    a->uplink = NULL;
    (void)snprintf(a->trouble, sizeof a->trouble, "%s", why.text);
    wait_after_failure(m);
}

/* A session that has to end: silent, or with ourselves while another one would know more. */
static bool is_stale(struct manager *m) {
    const struct agent *a = &m->agent;
    uint64_t now = now_of(m), period = a->wanted ? a->want.heartbeat_ms : 5000;
    if (!a->open) return false;
    if (now > a->heard_ms + SILENCE_PERIODS * (period > 1000 ? period : 1000)) return true;
    bool without = m->leader == 0 && now > m->led_since_ms + OWN_WITHOUT_MS;
    bool leaves = a->wanted && a->want.role == NODE_WORKER;
    return a->own && m->self.n > 1 && (without || leaves);
}

static void keep_session(struct manager *m) {
    struct agent *a = &m->agent;
    uint64_t now = now_of(m);
    if (a->uplink && is_stale(m)) {
        hang_up(m);
        wait_after_failure(m);
    }
    if (!a->uplink && now >= a->next_ms) dial(m);
    if (!a->open) return;
    uint64_t period = a->wanted && a->want.heartbeat_ms > HEARTBEAT_MS_MIN ? a->want.heartbeat_ms
                                                                           : HEARTBEAT_MS_MIN;
    if (now >= a->said_ms + period) say_beat(m);
}

/* --- what is wanted --------------------------------------------------------------------------- */

/* The roots and the managers, durable before they are used. */
static void take_trust(struct manager *m) {
    const struct node_want *w = &m->agent.want;
    struct node_identity *self = &m->self, next = m->self;
    struct why why = {0};
    bool roots = !span_equal(buf_span(&self->root_pem), w->root_pem) && w->root_pem.size > 0;
    bool managers = w->n > 0 && (w->n != self->n || memcmp(w->managers, self->members,
                                                           w->n * sizeof w->managers[0]) != 0);
    managers &= m->state == MANAGER_WORKER; /* a manager knows better (table.c) */
    if (!roots && !managers) return;
    if (managers) {
        next.n = w->n;
        memcpy(next.members, w->managers, w->n * sizeof w->managers[0]);
    }
    enum err e = OK;
    if (roots) {
        next.root_pem = buf_new(PEM_MAX);
        e = buf_add_span(&next.root_pem, w->root_pem);
    }
    if (e == OK) e = identity_store(&next, m->keys, &why);
    if (e != OK) {
        if (roots) buf_free(&next.root_pem);
        log_event(m->config.log, LOG_ERROR, "node", "the managers can't be kept: %s", why.text);
        return;
    }
    if (roots) buf_free(&self->root_pem);
    *self = next;
    if (!roots) return;
    log_event(m->config.log, LOG_INFO, "keys", "this node trusts another set of roots");
    manager_certified(m);
}

/* A manager that the cluster has for a worker stops being one. Also when it is to be a manager
 * again: it then asks anew, as another member of the quorum. */
static bool is_demoted(const struct manager *m) {
    return m->state == MANAGER_RUNNING && m->self.state == IDENTITY_MEMBER &&
           m->agent.want.granted == NODE_WORKER;
}

static void obey(struct manager *m) {
    if (!m->agent.wanted) return;
    take_trust(m);
    if (is_demoted(m))
        worker_demote(m);
    else
        certificate_step(m);
}

static void finish_leaving(struct manager *m) {
    struct agent *a = &m->agent;
    if (!a->leaving || (a->leaving_ms > now_of(m) && a->uplink && !a->ended)) return;
    void (*left)(struct manager * m) = a->left;
    a->leaving = false;
    a->left = NULL;
    left(m);
}

void agent_step(struct manager *m) {
    struct agent *a = &m->agent;
    a->due = false;
    finish_leaving(m);
    if (!lives(m)) return;
    if (a->ended) {
        hang_up(m);
        wait_after_failure(m);
    } else if (a->again) {
        hang_up(m);
        a->next_ms = 0;
    }
    a->again = false;
    obey(m);
}

/* --- a manager without peers ------------------------------------------------------------------ */

static void want_of_itself(struct manager *m) {
    struct row row;
    struct node_row node;
    struct node_want want;
    struct buf roots = buf_new(PEM_MAX);
    bool ready = m->leader == m->self.raft_id && m->self.state == IDENTITY_MEMBER;
    if (ready && node_row_get(m->store, m->self.node_id, &row, &node) == OK &&
        sessions_want(m, &node, &roots, &want) == OK)
        (void)!agent_want(m, &want);
    buf_free(&roots);
}

/* --- life ------------------------------------------------------------------------------------- */

void agent_beat(struct manager *m) {
    struct agent *a = &m->agent;
    finish_leaving(m);
    if (m->runner) runner_beat(m);
    if (!lives(m) || m->self.state == IDENTITY_MADE || m->self.state == IDENTITY_FOUNDING) return;
    if (m->state == MANAGER_RUNNING && !m->peers)
        want_of_itself(m);
    else if (!a->leaving)
        keep_session(m);
    certificate_step(m);
}

void agent_start(struct manager *m) {
    struct agent *a = &m->agent;
    hang_up(m);
    a->wanted = a->pending = a->extended = false;
    a->failures = 0;
    a->next_ms = a->ask_ms = a->wait_ms = a->validity_tried_s = 0;
    a->at = (unsigned)(random_u64() % (m->self.n > 0 ? m->self.n : 1));
    a->started_ms = now_of(m);
    a->alone = true;
    a->trouble[0] = 0;
    certificate_fresh(m);
    struct why why = {0};
    if (runner_open(m, &why) != OK)
        log_event(m->config.log, LOG_ERROR, "node", "no tasks are run here: %s", why.text);
}

void agent_stop(struct manager *m, void (*stopped)(struct manager *m)) {
    struct agent *a = &m->agent;
    hang_up(m);
    runner_close(m);
    a->wanted = a->due = false;
    buf_free(&a->roots);
    secret_free(a->return_key);
    a->return_key = NULL;
    ask_forget(m);
    if (a->freeing > 0)
        a->stopped = stopped;
    else
        stopped(m);
}

void agent_leave(struct manager *m, void (*left)(struct manager *m)) {
    struct agent *a = &m->agent;
    a->leaving = true;
    a->left = left;
    a->leaving_ms = a->open ? now_of(m) + LEAVE_MS : 0;
    if (a->open) uplink_say(a->uplink, NODE_LEAVE, span_of(NULL, 0));
    agent_wake(m);
}

void nodes_self(const struct manager *m, struct node_self *out) {
    const struct agent *a = &m->agent;
    *out = (struct node_self){.role = m->self.role, .pending = a->pending};
    out->connected = a->open || (m->state == MANAGER_RUNNING && !m->peers);
    if (a->open) (void)snprintf(out->manager, sizeof out->manager, "%s", a->address);
    if (!out->connected || a->pending)
        (void)snprintf(out->trouble, sizeof out->trouble, "%s", a->trouble);
}
