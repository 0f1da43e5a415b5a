/* The node's own certificate. Every manager has the root's key in its state, so each renews its
 * certificate by itself: at 50-80 % of its life, and when an address that stands in it has changed.
 */
#include "api/manager.h"

#include <stdio.h>

#include "raft/loop.h"

static void add_host(char *out, size_t room, const char *address) {
    struct address parts;
    if (address_split(address, &parts, NULL) != OK) return;
    size_t size = strlen(out);
    (void)snprintf(out + size, room - size, "%s%s", size > 0 ? "," : "", parts.host);
}

void credentials_hosts(const char *client_address, const char *peer_address, char out[HOSTS_ROOM]) {
    (void)snprintf(out, HOSTS_ROOM, "localhost,127.0.0.1,::1");
    add_host(out, HOSTS_ROOM, client_address);
    add_host(out, HOSTS_ROOM, peer_address);
}

static RESULT issue(struct manager *m, const struct secret *root_key, const struct secret *key,
                    struct buf *cert, struct why *why) {
    struct x509_subject subject = {0};
    (void)snprintf(subject.cn, sizeof subject.cn, "%s", m->self.node_id);
    (void)snprintf(subject.ou, sizeof subject.ou, "%s", ROLE_MANAGER);
    (void)snprintf(subject.o, sizeof subject.o, "%s", m->self.cluster_id);
    credentials_hosts(m->self.client_address, m->self.peer_address, subject.hosts);
    struct buf request = buf_new(PEM_MAX);
    enum err e = x509_request(key, m->self.node_id, &request, why);
    if (e == OK)
        e = x509_issue(root_key, buf_span(&m->self.root_pem), buf_span(&request), &subject,
                       m->clock.wall_s(&m->clock), NODE_VALIDITY_S, cert, why);
    buf_free(&request);
    return e;
}

RESULT credentials_issue(struct manager *m, const struct secret *root_key, struct why *why) {
    struct secret *key = NULL;
    struct buf cert = buf_new(PEM_MAX);
    enum err e = x509_key_new(&key, why);
    if (e == OK) e = issue(m, root_key, key, &cert, why);
    if (e != OK) {
        secret_free(key);
        buf_free(&cert);
        return e;
    }
    secret_free(m->self.key_pem);
    buf_free(&m->self.cert_pem);
    m->self.key_pem = key;
    m->self.cert_pem = cert;
    return OK;
}

/* A moment between 50 and 80 % of the life, the same one for the same certificate. */
static int64_t renewal_s(const struct manager *m, int64_t from_s, int64_t to_s) {
    unsigned percent = 50 + m->self.cert_pem.at[m->self.cert_pem.size / 2] % 30U;
    return from_s + (to_s - from_s) / 100 * percent;
}

void credentials_keep(struct manager *m, const struct cluster *c) {
    int64_t from_s, to_s;
    char hosts[HOSTS_ROOM];
    struct why why = {0};
    credentials_hosts(m->self.client_address, m->self.peer_address, hosts);
    if (!c->root_key || x509_dates(buf_span(&m->self.cert_pem), &from_s, &to_s) != OK) return;
    bool due = m->clock.wall_s(&m->clock) >= renewal_s(m, from_s, to_s);
    if (!due && x509_has_hosts(buf_span(&m->self.cert_pem), hosts)) return;
    enum err e = credentials_issue(m, c->root_key, &why);
    if (e == OK) e = identity_store(&m->self, m->keys, &why);
    if (e == OK && m->peers)
        e = peers_credentials(m->peers, buf_span(&m->self.root_pem), buf_span(&m->self.cert_pem),
                              m->self.key_pem, &why);
    if (e != OK) {
        log_event(m->config.log, LOG_ERROR, "keys", "the certificate can't be renewed: %s",
                  why.text);
        return;
    }
    log_event(m->config.log, LOG_INFO, "keys", "a new certificate, for %s", hosts);
    m->config.changed(m->config.ctx);
}
