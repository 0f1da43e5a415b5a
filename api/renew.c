/* The node's certificate, kept valid. Every manager has the root's key in its state, so each renews
 * its own: at 50-80 % of its life, when it lies in the future (the clock was wrong), and when an
 * address that stands in it has changed. It keeps the root's key in its keyring too: with an
 * expired certificate it reaches nobody, and its state is not known to be current, or is still to
 * be read from the log, until it does. */
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
    int64_t now_s = m->clock.wall_s(&m->clock);
    bool timely = now_s >= from_s && now_s < renewal_s(m, from_s, to_s);
    return !timely || !x509_has_hosts(cert, hosts);
}

static RESULT renew(struct manager *m, struct why *why) {
    int64_t now_s = m->clock.wall_s(&m->clock);
    TRY(credentials_issue(&m->self, m->self.root_key, now_s, why));
    TRY(identity_store(&m->self, m->keys, why));
    log_event(m->config.log, LOG_INFO, "keys", "this node has a new certificate");
    if (!m->peers) return OK;
    return peers_credentials(m->peers, buf_span(&m->self.root_pem), buf_span(&m->self.cert_pem),
                             m->self.key_pem, why);
}

static void tell(const struct manager *m, const struct why *why) {
    log_event(m->config.log, LOG_ERROR, "keys", "the certificate can't be renewed: %s", why->text);
}

static RESULT keep_root_key(struct manager *m, const struct secret *key, struct why *why) {
    struct secret *copy;
    if (m->self.root_key && secret_equal(m->self.root_key, key)) return OK;
    if (secret_copy(key, &copy) != OK) return fail_with(why, ERR_NOMEM, "no memory for a key");
    secret_free(m->self.root_key);
    m->self.root_key = copy;
    return identity_store(&m->self, m->keys, why);
}

void manager_renew(struct manager *m, const struct cluster *c) {
    struct why why = {0};
    if (!c->root_key) return;
    enum err e = keep_root_key(m, c->root_key, &why);
    bool now = e == OK && due(m);
    if (now) e = renew(m, &why);
    if (e != OK)
        tell(m, &why);
    else if (now)
        m->config.changed(m->config.ctx);
}

void manager_renew_first(struct manager *m) {
    struct why why = {0};
    if (m->self.root_key && due(m) && renew(m, &why) != OK) tell(m, &why);
}
