/* What signs and what is trusted, of the state as it is (authority.h), and how far a rotation has
 * come. Nothing here changes anything. */
#include "api/ca/authority.h"

RESULT authority_roots(const struct cluster *c, struct buf *out) {
    TRY(buf_add_span(out, buf_span(&c->ca.root_pem)));
    if (!span_equal(buf_span(&c->next.root_pem), buf_span(&c->ca.root_pem)))
        TRY(buf_add_span(out, buf_span(&c->next.root_pem)));
    return buf_add_span(out, buf_span(&c->retired_pem));
}

RESULT authority_client_roots(const struct manager *m, struct buf *out) {
    const struct cluster *c = store_cluster(m->store);
    bool sure = m->current_once && c->initialised;
    if (!sure) TRY(x509_first(buf_span(&m->self.root_pem), out, NULL));
    if (!span_equal(buf_span(&c->ca.root_pem), buf_span(out)))
        TRY(buf_add_span(out, buf_span(&c->ca.root_pem)));
    if (span_equal(buf_span(&c->next.root_pem), buf_span(&c->ca.root_pem))) return OK;
    return buf_add_span(out, buf_span(&c->next.root_pem));
}

/* --- who signs ------------------------------------------------------------------------------ */

/* What the next one signs is trusted by those who have not heard of it. */
static bool is_bridged(const struct cluster *c) {
    return c->cross_new > 0 || span_equal(buf_span(&c->ca.root_pem), buf_span(&c->next.root_pem));
}

static const struct ca *signer(const struct cluster *c) {
    return cluster_rotating(c) && is_bridged(c) ? &c->next : &c->ca;
}

static struct span signer_pem(const struct ca *ca) {
    return ca->issuer_pem.size > 0 ? buf_span(&ca->issuer_pem) : buf_span(&ca->root_pem);
}

RESULT authority_issuer(const struct cluster *c, uint8_t digest[NODE_DIGEST_SIZE]) {
    return x509_key_digest(signer_pem(signer(c)), digest);
}

bool authority_is_external(const struct cluster *c, const struct spec *spec) {
    return !signer(c)->key && spec->n_external > 0;
}

static RESULT sign(const struct cluster *c, struct span csr, const struct x509_subject *subject,
                   int64_t now_s, int64_t validity_s, struct buf *out, struct why *why) {
    const struct ca *ca = signer(c);
    struct buf leaf = buf_new(PEM_MAX);
    if (!ca->key)
        return fail_with(why, ERR_UNSUPPORTED,
                         "the cluster has no key to sign with, only an external CA has");
    enum err e = x509_issue(ca->key, signer_pem(ca), csr, subject, now_s, validity_s, &leaf, why);
    if (e == OK)
        e = x509_chain(buf_span(&leaf), buf_span(&ca->issuer_pem), buf_span(&c->cross_pem), out);
    buf_free(&leaf);
    return e;
}

RESULT authority_sign(const struct cluster *c, const struct spec *spec, struct span csr_pem,
                      const struct x509_subject *subject, int64_t now_s, struct buf *out,
                      struct why *why) {
    int64_t validity_s = spec_cert_validity_s(spec);
    if (validity_s > ROOT_VALIDITY_S) validity_s = ROOT_VALIDITY_S;
    return sign(c, csr_pem, subject, now_s, validity_s, out, why);
}

RESULT authority_sign_client(const struct cluster *c, struct span csr_pem,
                             const struct x509_subject *subject, int64_t now_s, struct buf *out,
                             struct why *why) {
    return sign(c, csr_pem, subject, now_s, NODE_VALIDITY_S, out, why);
}

/* --- what an external CA has signed --------------------------------------------------------- */

static RESULT not_asked(struct why *why, const char *what) {
    return fail_with(why, ERR_CERTIFICATE, "the external CA's certificate has %s", what);
}

static RESULT check_names(struct span cert, const struct x509_subject *asked,
                          const struct x509_subject *got, struct why *why) {
    bool manager = strcmp(asked->ou, ROLE_MANAGER) == 0;
    if (strcmp(got->cn, asked->cn) != 0 || strcmp(got->ou, asked->ou) != 0 ||
        strcmp(got->o, asked->o) != 0)
        return not_asked(why, "another subject than was asked for");
    if (!x509_has_hosts(cert, asked->ou) || !x509_has_hosts(cert, asked->cn) ||
        (asked->hosts[0] && !x509_has_hosts(cert, asked->hosts)) ||
        (manager && !x509_has_hosts(cert, ROOT_CN)))
        return not_asked(why, "not all names that were asked for");
    if (!manager && (x509_has_hosts(cert, ROLE_MANAGER) || x509_has_hosts(cert, ROOT_CN)))
        return not_asked(why, "a manager's name, which was not asked for");
    return OK;
}

static RESULT check_key(const struct cluster *c, struct span chain, struct span csr,
                        struct span roots, struct why *why) {
    uint8_t asked[KEY_DIGEST_SIZE], got[KEY_DIGEST_SIZE];
    TRY(x509_request_digest(csr, asked, why));
    TRY(x509_key_digest(chain, got));
    if (memcmp(asked, got, sizeof asked) != 0)
        return not_asked(why, "another key than the request");
    TRY(authority_issuer(c, asked));
    if (x509_issuer_digest(chain, roots, got) != OK || memcmp(asked, got, sizeof asked) != 0)
        return not_asked(why, "another signer than the cluster's CA");
    return OK;
}

RESULT authority_accept(const struct cluster *c, struct span cert_pem, struct span csr_pem,
                        const struct x509_subject *subject, int64_t now_s, struct buf *out,
                        struct why *why) {
    const struct ca *ca = signer(c);
    struct x509_subject got;
    struct buf chain = buf_new(2 * PEM_MAX), leaf = buf_new(PEM_MAX);
    struct span root = buf_span(&ca->root_pem);
    enum err e = x509_first(cert_pem, &leaf, why); /* what else it sends is not needed */
    if (e == OK)
        e = x509_chain(buf_span(&leaf), buf_span(&ca->issuer_pem), buf_span(&c->cross_pem), &chain);
    if (e == OK) e = x509_verify(root, buf_span(&chain), now_s, &got, why);
    if (e == OK) e = check_key(c, buf_span(&chain), csr_pem, root, why);
    if (e == OK) e = check_names(buf_span(&chain), subject, &got, why);
    if (e == OK) e = buf_add_span(out, buf_span(&chain));
    buf_free(&chain);
    buf_free(&leaf);
    return e;
}

/* --- how far it has come -------------------------------------------------------------------- */

struct counting {
    const struct manager *m;
    uint8_t digest[NODE_DIGEST_SIZE]; /* of the key that signs in the end */
    struct rotation_status *out;
};

/* A manager without peers has no sessions in which it could be seen. */
static bool has_converged(const struct counting *c, const struct row *row,
                          const struct node_row *n) {
    static const uint8_t none[NODE_DIGEST_SIZE];
    bool seen = memcmp(n->previous_digest, none, sizeof none) == 0 ||
                (!c->m->peers && strcmp(row->id, c->m->self.node_id) == 0);
    return seen && memcmp(n->issuer_digest, c->digest, sizeof c->digest) == 0;
}

static bool count(void *ctx, const struct row *row) {
    const struct counting *c = ctx;
    struct node_row n;
    if (node_row_decode(row->body, &n) != OK) return true;
    bool converged = has_converged(c, row, &n);
    c->out->nodes++;
    c->out->converged += converged;
    c->out->waiting_down += !converged && n.state == NODE_DOWN;
    if (!converged && n.state != NODE_DOWN && n.granted == NODE_MANAGER) c->out->managers = false;
    return true;
}

void authority_status(const struct manager *m, struct rotation_status *out) {
    const struct cluster *cluster = store_cluster(m->store);
    bool rotating = cluster_rotating(cluster);
    struct counting c = {.m = m, .out = out};
    *out = (struct rotation_status){.managers = true};
    if (rotating)
        out->phase = ROTATION_ROTATING;
    else if (cluster->retired_pem.size > 0)
        out->phase = ROTATION_FINISHING;
    if (x509_key_digest(signer_pem(rotating ? &cluster->next : &cluster->ca), c.digest) == OK)
        row_all(m->store, ROW_NODE, count, &c);
}
