/* The node's certificate, kept valid. Every manager has the root's key in its state, so each renews
 * its own: at 50-80 % of its life, and when an address that stands in it has changed. */
#include "api/manager.h"

/* A moment between 50 and 80 % of the life, the same one for the same certificate. */
static int64_t renewal_s(const struct manager *m, int64_t from_s, int64_t to_s) {
    unsigned percent = 50 + m->self.cert_pem.at[m->self.cert_pem.size / 2] % 30U;
    return from_s + (to_s - from_s) / 100 * percent;
}

static bool due(struct manager *m) {
    int64_t from_s, to_s;
    char hosts[HOSTS_ROOM];
    struct span cert = buf_span(&m->self.cert_pem);
    credentials_hosts(m->self.client_address, m->self.peer_address, hosts);
    if (x509_dates(cert, &from_s, &to_s) != OK) return false;
    return m->clock.wall_s(&m->clock) >= renewal_s(m, from_s, to_s) || !x509_has_hosts(cert, hosts);
}

void manager_renew(struct manager *m, const struct cluster *c) {
    struct why why = {0};
    if (!c->root_key || !due(m)) return;
    enum err e = credentials_issue(&m->self, c->root_key, m->clock.wall_s(&m->clock), &why);
    if (e == OK) e = identity_store(&m->self, m->keys, &why);
    if (e == OK && m->peers)
        e = peers_credentials(m->peers, buf_span(&m->self.root_pem), buf_span(&m->self.cert_pem),
                              m->self.key_pem, &why);
    if (e != OK) {
        log_event(m->config.log, LOG_ERROR, "keys", "the certificate can't be renewed: %s",
                  why.text);
        return;
    }
    log_event(m->config.log, LOG_INFO, "keys", "this node has a new certificate");
    m->config.changed(m->config.ctx);
}
