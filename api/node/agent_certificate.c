/* The agent's care for the node's certificate; see agent.h. A question goes to the managers' join
 * port on a thread of its own (ask.h); the leader answers itself in process (admit_own). */
#include "api/manager_parts.h"
#include "api/node/admit.h"
#include "api/node/agent.h"
#include "api/node/ask.h"

#include <stdio.h>

#define RETRY_MIN_MS   5000
#define RETRY_MAX_MS   3600000
#define PENDING_MIN_MS 1000
#define PENDING_MAX_MS 30000
#define ALONE_MS       5000 /* that all managers must have been silent before it signs for itself */

static uint64_t now_of(struct manager *m) { return m->clock.now_ms(&m->clock); }
static int64_t wall(struct manager *m) { return m->clock.wall_s(&m->clock); }

/* --- what we have ---------------------------------------------------------------------------- */

static bool is_expired(struct manager *m) { return m->agent.known && wall(m) > m->agent.to_s; }

void certificate_fresh(struct manager *m) {
    struct agent *a = &m->agent;
    struct x509_subject subject;
    struct span cert = buf_span(&m->self.cert_pem);
    a->known = x509_dates(cert, &a->from_s, &a->to_s) == OK &&
               x509_issuer_digest(cert, buf_span(&m->self.root_pem), a->issuer) == OK &&
               x509_subject(cert, &subject) == OK;
    if (!a->known) return;
    a->role = strcmp(subject.ou, ROLE_MANAGER) == 0 ? NODE_MANAGER : NODE_WORKER;
    int64_t begin = a->from_s + BACKDATE_S < a->to_s ? a->from_s + BACKDATE_S : a->from_s;
    int64_t life = a->to_s - begin;
    a->renew_s = begin + life / 2 + (int64_t)(random_u64() % (uint64_t)(life * 3 / 10 + 1));
    if (is_expired(m)) return;
    secret_free(a->return_key);
    a->return_key = NULL;
}

/* The role that the certificate should say. */
static enum node_role wanted_role(const struct agent *a) {
    bool manager = a->want.role == NODE_MANAGER || a->want.granted == NODE_MANAGER;
    return manager ? NODE_MANAGER : NODE_WORKER;
}

/* A changed validity calls once: what is signed may be shorter than what was asked for. */
static bool wants_validity(struct agent *a) {
    int64_t life = a->to_s - a->from_s - BACKDATE_S, want = (int64_t)a->want.cert_validity_s;
    int64_t off = life > want ? life - want : want - life;
    if (want == 0 || off <= want / 10 || a->validity_tried_s == a->want.cert_validity_s)
        return false;
    return true;
}

static bool is_due(struct manager *m) {
    struct agent *a = &m->agent;
    char hosts[HOSTS_ROOM];
    int64_t now_s = wall(m);
    if (!a->known || now_s < a->from_s || now_s >= a->renew_s) return true;
    if (!a->wanted) return false;
    if (a->want.renew || wanted_role(a) != a->role) return true;
    if (memcmp(a->want.issuer, a->issuer, sizeof a->issuer) != 0 || wants_validity(a)) return true;
    if (a->role != NODE_MANAGER) return false;
    credentials_hosts(m->self.client_address, m->self.peer_address, hosts);
    return !x509_has_hosts(buf_span(&m->self.cert_pem), hosts);
}

/* A worker that is to be a manager asks for both in one. */
static bool is_promoted(const struct manager *m) {
    return m->state == MANAGER_WORKER && m->agent.wanted && m->agent.want.role == NODE_MANAGER;
}

/* --- outcomes -------------------------------------------------------------------------------- */

static void wait_more(struct manager *m, uint64_t min_ms, uint64_t max_ms) {
    struct agent *a = &m->agent;
    int64_t left_s = a->known ? a->to_s - wall(m) : 0;
    uint64_t most = max_ms;
    if (left_s > 0 && (uint64_t)left_s * 1000 < most) most = (uint64_t)left_s * 1000;
    a->wait_ms = a->wait_ms == 0 ? min_ms : a->wait_ms * 2;
    if (a->wait_ms > most) a->wait_ms = most > min_ms ? most : min_ms;
    a->ask_ms = now_of(m) + a->wait_ms;
}

static void failed(struct manager *m, enum err e, const char *text) {
    struct agent *a = &m->agent;
    bool again = a->wait_ms > 0 && strcmp(a->trouble, text) == 0;
    if (e != ERR_PENDING && a->pending) a->wait_ms = 0;
    a->pending = e == ERR_PENDING;
    (void)snprintf(a->trouble, sizeof a->trouble, "%s", text);
    log_event(m->config.log, again ? LOG_DEBUG : LOG_WARNING, "keys", "no new certificate: %s",
              text);
    if (a->pending || a->extended || is_expired(m) || is_promoted(m)) /* somebody waits for it */
        wait_more(m, PENDING_MIN_MS, PENDING_MAX_MS);
    else
        wait_more(m, RETRY_MIN_MS, RETRY_MAX_MS);
}

static void succeeded(struct manager *m) {
    struct agent *a = &m->agent;
    a->pending = a->extended = false;
    a->trouble[0] = 0;
    a->want.renew = false; /* until it is said again */
    a->validity_tried_s = a->wanted ? a->want.cert_validity_s : 0;
    log_event(m->config.log, LOG_INFO, "keys", "this node has a new certificate");
    manager_certified(m);
    a->again = a->uplink != NULL; /* until it is seen with it, the old key stays good */
    if (a->again) agent_wake(m);
    /* What it did not cure is no reason to ask at once again. */
    if (is_due(m))
        wait_more(m, RETRY_MIN_MS, RETRY_MAX_MS);
    else
        a->wait_ms = a->ask_ms = 0;
}

static void on_asked(struct asking *a) {
    struct manager *m = a->manager;
    struct why why = a->why;
    enum err e = a->error;
    if (m->state != MANAGER_RUNNING && m->state != MANAGER_WORKER) return;
    if (a->heard) m->agent.alone = false;
    if (e == OK && strcmp(a->answer.node_id, m->self.node_id) != 0)
        e = fail_with(&why, ERR_PROTOCOL, "the certificate is another node's");
    if (e == OK && a->request.member) {
        worker_promote(m, a);
        return;
    }
    if (e == OK) a->answer.raft_id = 0; /* stays as it is */
    if (e == OK) e = ask_take(a, &m->self, m->keys, &why);
    if (e == OK)
        succeeded(m);
    else
        failed(m, e, why.text);
}

/* --- asking ---------------------------------------------------------------------------------- */

static RESULT ask_managers(struct manager *m, struct why *why) {
    struct asking *a;
    TRY(ask_new(m, is_expired(m) ? JOIN_EXPIRED : JOIN_RENEW, &a, why));
    a->request.member = is_promoted(m);
    const struct node *leader = m->store ? cluster_node(store_cluster(m->store), m->leader) : NULL;
    if (leader) ask_at(a, leader->peer_address);
    if (m->agent.open && !m->agent.own) ask_at(a, m->agent.address);
    for (unsigned i = 0; i < m->self.n; i++) {
        const struct wire_member *at = &m->self.members[(m->agent.at + i) % m->self.n];
        if (strcmp(at->node_id, m->self.node_id) != 0) ask_at(a, at->peer_address);
    }
    return ask_start(a, on_asked, why);
}

/* The leader's own: through the same gate as everybody else's, but not over the wire. */
static void on_own(void *ctx, enum err e, const char *text, struct asking *a) {
    struct manager *m = ctx;
    struct why why = {0};
    (void)snprintf(why.text, sizeof why.text, "%s", text);
    if (e == OK) e = ask_take(a, &m->self, m->keys, &why);
    ask_free(a);
    if (e == OK)
        succeeded(m);
    else
        failed(m, e, why.text);
}

static RESULT ask_itself(struct manager *m, struct why *why) {
    struct asking *a;
    TRY(ask_new(m, JOIN_RENEW, &a, why));
    return admit_own(m, a, on_own, m, why); /* takes it over */
}

/* All managers were off past the end of their certificates: none of them takes another one's. The
 * old key signed anew, in memory only, lets them meet. Who has done so before us answers, but knows
 * no leader. */
static bool sign_for_itself(struct manager *m) {
    struct agent *a = &m->agent;
    struct why why = {0};
    bool outage = a->alone && is_expired(m) && m->state == MANAGER_RUNNING && m->leader == 0 &&
                  m->self.root_key && now_of(m) >= a->started_ms + ALONE_MS;
    if (!outage) return false;
    a->alone = false;
    enum err e = credentials_extend(&m->self, wall(m), &why);
    if (e != OK) {
        log_event(m->config.log, LOG_ERROR, "keys", "no certificate: %s", why.text);
        return false;
    }
    log_event(m->config.log, LOG_WARNING, "keys",
              "no manager has a valid certificate: this one signs its old key anew");
    manager_certified(m);
    a->extended = true;
    a->renew_s = a->from_s; /* as soon as somebody leads */
    a->wait_ms = a->ask_ms = 0;
    return true;
}

void certificate_step(struct manager *m) {
    struct agent *a = &m->agent;
    struct why why = {0};
    if (m->self.state != IDENTITY_MEMBER || m->asking || admit_has_own(m)) return;
    bool due = is_due(m);
    if (!due && !is_promoted(m)) return;
    if (sign_for_itself(m) || now_of(m) < a->ask_ms) return;
    bool leads = m->state == MANAGER_RUNNING && m->leader == m->self.raft_id;
    if (m->state == MANAGER_RUNNING && m->leader == 0 && !is_expired(m)) return;
    enum err e = leads ? ask_itself(m, &why) : ask_managers(m, &why);
    if (e != OK) failed(m, e, why.text);
}
