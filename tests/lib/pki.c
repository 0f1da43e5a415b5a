/* The implementation of pki.h: what x509.h makes, with an assert behind every call, since a test
 * without its certificates has nothing to say. */
#include "tests/lib/pki.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

static void must(enum err e, const struct why *why) {
    if (e != OK) (void)fprintf(stderr, "pki: %s: %s\n", err_name(e), why->text);
    assert(e == OK);
}

void pki_new(struct pki *p, const char *cluster_id) {
    struct why why = {0};
    *p = (struct pki){.root = buf_new(PEM_MAX)};
    (void)snprintf(p->cluster_id, sizeof p->cluster_id, "%s", cluster_id);
    must(crypto_start(&why), &why);
    must(x509_key_new(&p->key, &why), &why);
    must(x509_root(p->key, cluster_id, &p->root, &why), &why);
    must(x509_digest(buf_span(&p->root), p->digest), &why);
}

void pki_free(struct pki *p) {
    secret_free(p->key);
    buf_free(&p->root);
}

void pki_node_new(const struct pki *p, const char *node_id, const char *role,
                  const char *cluster_id, int64_t age_s, struct pki_node *out) {
    struct why why = {0};
    struct buf request = buf_new(PEM_MAX);
    struct x509_subject s = {0};
    (void)snprintf(s.cn, sizeof s.cn, "%s", node_id);
    (void)snprintf(s.ou, sizeof s.ou, "%s", role);
    (void)snprintf(s.o, sizeof s.o, "%s", cluster_id);
    *out = (struct pki_node){.cert = buf_new(PEM_MAX)};
    must(x509_key_new(&out->key, &why), &why);
    must(x509_request(out->key, node_id, &request, &why), &why);
    must(x509_issue(p->key, buf_span(&p->root), buf_span(&request), &s, (int64_t)time(NULL) - age_s,
                    NODE_VALIDITY_S, &out->cert, &why),
         &why);
    buf_free(&request);
}

void pki_node_free(struct pki_node *n) {
    secret_free(n->key);
    buf_free(&n->cert);
}
