/* The certificate authority as an operator sees it: what is trusted, what signs, who has
 * certificates of what; its settings; rotations of the root (authority.h). Private keys come in and
 * never go out; bodies that carry one are wiped. */
#include "api/api.h"
#include "api/ca/authority.h"
#include "api/words.h"

#include <stdio.h>

/* --- showing -------------------------------------------------------------------------------- */

/* Of the first certificate of a PEM; "digest": as join tokens pin it. */
static void put_certificate(struct jout *j, const char *key, struct span pem) {
    int64_t from_s, until_s;
    uint8_t key_digest[KEY_DIGEST_SIZE];
    char digest[ROOT_DIGEST_TEXT], title[256];
    if (pem.size == 0 || x509_dates(pem, &from_s, &until_s) != OK ||
        x509_key_digest(pem, key_digest) != OK || x509_digest(pem, digest) != OK ||
        x509_title(pem, title, sizeof title) != OK)
        return;
    jout_key(j, key);
    jout_open(j, '{');
    jout_put_text(j, "subject", title);
    jout_put_number(j, "from_s", (uint64_t)from_s);
    jout_put_number(j, "until_s", (uint64_t)until_s);
    jout_put_hex(j, "key_digest", span_of(key_digest, sizeof key_digest));
    jout_put_text(j, "digest", digest);
    jout_key(j, "pem");
    jout_text(j, pem);
    jout_close(j, '}');
}

static struct span issuer_of(const struct ca *ca) {
    return ca->issuer_pem.size > 0 ? buf_span(&ca->issuer_pem) : buf_span(&ca->root_pem);
}

static void put_roots(struct jout *j, const struct cluster *c) {
    const struct ca *now = cluster_rotating(c) ? &c->next : &c->ca;
    put_certificate(j, "root", buf_span(&c->ca.root_pem));
    if (cluster_rotating(c)) put_certificate(j, "next", buf_span(&c->next.root_pem));
    put_certificate(j, "issuer", issuer_of(now));
    jout_put_bool(j, "has_key", now->key != NULL);
    jout_put_number(j, "rotations", c->rotation);
    jout_key(j, "retired_pem");
    jout_text(j, buf_span(&c->retired_pem));
}

static void put_phase(struct jout *j, const struct manager *m) {
    static const char *const phases[] = {"steady", "rotating", "finishing"};
    struct rotation_status s;
    authority_status(m, &s);
    jout_put_text(j, "phase", phases[s.phase]);
    jout_put_number(j, "nodes", s.nodes);
    jout_put_number(j, "converged", s.converged);
    jout_put_number(j, "down", s.waiting_down);
}

static void put_settings(struct jout *j, const struct store *store) {
    struct row row;
    struct spec spec;
    spec_get(store, &row, &spec);
    jout_put_number(j, "validity_s", (uint64_t)spec_cert_validity_s(&spec));
    jout_put_text(j, "readmit", words_of_readmit(spec.readmit));
    jout_put_number(j, "readmit_within_s", (uint64_t)spec.readmit_within_s);
    jout_key(j, "external");
    jout_open(j, '[');
    for (unsigned i = 0; i < spec.n_external; i++) {
        jout_open(j, '{');
        jout_put_text(j, "url", spec.external[i].url);
        jout_key(j, "ca");
        jout_text(j, spec.external[i].ca_pem);
        jout_close(j, '}');
    }
    jout_close(j, ']');
}

struct holders {
    struct jout *j;
    const struct cluster *cluster;
    uint8_t current[NODE_DIGEST_SIZE]; /* of the key that should have signed */
    int64_t now_s;
};

static bool put_holder(void *ctx, const struct row *r) {
    const struct holders *h = ctx;
    struct jout *j = h->j;
    struct node_row n;
    if (node_row_decode(r->body, &n) != OK) return true;
    const struct node *named = cluster_node(h->cluster, n.raft_id);
    bool current = memcmp(n.issuer_digest, h->current, sizeof h->current) == 0;
    jout_open(j, '{');
    jout_put_text(j, "id", r->id);
    jout_key(j, "name");
    jout_text(j, r->name.size > 0 ? r->name : span_str(named ? named->name : n.hostname));
    jout_put_text(j, "state", words_of_state(n.state));
    jout_put_text(j, "certificate", words_of_certificate(n.certificate));
    jout_put_text(j, "issuer", current ? "current" : "old");
    jout_put_hex(j, "issuer_digest", span_of(n.issuer_digest, NODE_DIGEST_SIZE));
    jout_put_number(j, "until_s", (uint64_t)n.not_after_s);
    jout_put_bool(j, "expired", n.not_after_s > 0 && h->now_s > n.not_after_s);
    jout_close(j, '}');
    return j->error == OK;
}

static void put_holders(struct jout *j, struct manager *m) {
    struct holders h = {
        .j = j, .cluster = store_cluster(m->store), .now_s = m->clock.wall_s(&m->clock)};
    jout_key(j, "holders");
    jout_open(j, '[');
    if (authority_issuer(h.cluster, h.current) == OK) row_all(m->store, ROW_NODE, put_holder, &h);
    jout_close(j, ']');
}

static void show(struct exchange *x) {
    const struct api *api = x->ctx;
    struct buf out = buf_new(128 * MIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    put_phase(&j, api->manager);
    put_roots(&j, store_cluster(api->manager->store));
    put_settings(&j, api->manager->store);
    put_holders(&j, api->manager);
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

void handle_ca(struct exchange *x) { api_current(x, show); }

/* --- rotating ------------------------------------------------------------------------------- */

RESULT api_chain(const struct exchange *x, json_t *body, struct buf *chain, struct secret **key,
                 struct why *why) {
    const char *pem = jin_string(body, "key");
    size_t size = strlen(pem);
    *key = NULL;
    if (strlen(jin_string(body, "chain")) > PEM_MAX || size > PEM_MAX)
        return fail_with(why, ERR_TOO_LARGE, "a chain or key has at most %llu bytes", PEM_MAX);
    enum err e = buf_add_span(chain, span_str(jin_string(body, "chain")));
    if (e == OK && size > 0) e = secret_new(pem, size, key);
    if (e == OK && size > 0 && chain->size == 0)
        e = fail_with(why, ERR_INVALID, "a key comes with its certificates");
    jin_wipe(body);
    sodium_memzero((uint8_t *)(uintptr_t)x->body.at, x->body.size); /* the connection's own */
    return e;
}

/* {"chain": PEM, "key": PEM}; neither: a new root is made here. */
static void rotate(struct exchange *x) {
    struct api *api = x->ctx;
    json_t *body;
    struct why why = {0};
    struct buf chain = buf_new(PEM_MAX);
    struct secret *key = NULL;
    if (!api_body(x, &body)) return;
    enum err e = api_chain(x, body, &chain, &key, &why);
    json_decref(body);
    if (e == OK) e = authority_rotate(api->manager, buf_span(&chain), key, api_done, x, &why);
    buf_free(&chain);
    secret_free(key);
    if (e != OK) api_fail(x, e, &why);
}

static void abort_rotation(struct exchange *x) {
    struct api *api = x->ctx;
    struct why why = {0};
    enum err e = authority_abort(api->manager, api_done, x, &why);
    if (e != OK) api_fail(x, e, &why);
}

static void force_rotation(struct exchange *x) {
    struct api *api = x->ctx;
    struct why why = {0};
    enum err e = authority_force(api->manager, api_done, x, &why);
    if (e != OK) api_fail(x, e, &why);
}

void handle_ca_rotate(struct exchange *x) { api_current(x, rotate); }
void handle_ca_abort(struct exchange *x) { api_current(x, abort_rotation); }
void handle_ca_force(struct exchange *x) { api_current(x, force_rotation); }

/* --- settings ------------------------------------------------------------------------------- */

static RESULT read_external(const json_t *body, struct spec *spec, struct why *why) {
    const json_t *list = json_object_get(body, "external"), *one;
    size_t i;
    if (!list) return OK;
    if (json_array_size(list) > EXTERNAL_CAS_MAX)
        return fail_with(why, ERR_INVALID, "there are at most %d external authorities",
                         EXTERNAL_CAS_MAX);
    spec->n_external = 0;
    json_array_foreach(list, i, one) {
        struct external_ca *ca = &spec->external[spec->n_external++];
        *ca = (struct external_ca){.ca_pem = span_str(jin_string(one, "ca"))};
        TRY(jin_text(one, "url", ca->url, sizeof ca->url, why));
        if (strncmp(ca->url, "https://", 8) != 0)
            return fail_with(why, ERR_INVALID, "an external authority is asked over https only");
        int64_t from_s, until_s;
        if (ca->ca_pem.size > 0 && x509_dates(ca->ca_pem, &from_s, &until_s) != OK)
            return fail_with(why, ERR_INVALID, "the external authority's root is no certificate");
    }
    return OK;
}

static RESULT read_settings(const json_t *body, struct spec *spec, struct why *why) {
    uint64_t validity_s = (uint64_t)spec->cert_validity_s;
    uint64_t within_s = (uint64_t)spec->readmit_within_s;
    const char *readmit = jin_string(body, "readmit");
    TRY(jin_u64(body, "validity_s", &validity_s, why));
    TRY(jin_u64(body, "readmit_within_s", &within_s, why));
    if (validity_s > 0 && validity_s < CERT_VALIDITY_MIN_S)
        return fail_with(why, ERR_INVALID, "a certificate is valid for %lld s at least",
                         CERT_VALIDITY_MIN_S);
    if (validity_s > DURATION_MAX_S || within_s > DURATION_MAX_S)
        return fail_with(why, ERR_INVALID, "that is longer than a hundred years");
    spec->cert_validity_s = (int64_t)validity_s;
    spec->readmit_within_s = (int64_t)within_s;
    if (readmit[0]) TRY(words_readmit(readmit, &spec->readmit, why));
    return read_external(body, spec, why);
}

static RESULT change(struct exchange *x, const json_t *body, struct spec *spec, struct why *why) {
    const struct api *api = x->ctx;
    struct row row;
    struct buf bytes = buf_new(ROW_BODY_MAX);
    spec_get(api->manager->store, &row, spec);
    TRY(read_settings(body, spec, why));
    enum err e = spec_encode(spec, &bytes);
    struct row_change c = {.action = row.version > 0 ? ROW_REPLACE : ROW_CREATE,
                           .kind = ROW_SPEC,
                           .version = row.version,
                           .name = row.name,
                           .body = buf_span(&bytes)};
    (void)snprintf(c.id, sizeof c.id, "%s", store_cluster(api->manager->store)->id);
    if (e == OK) api_rows(x, &c, 1, api_empty, NULL);
    buf_free(&bytes);
    return e;
}

/* {"validity_s", "readmit", "readmit_within_s", "external": [{"url", "ca"}]}: sets what is there */
static void set(struct exchange *x) {
    json_t *body;
    struct why why = {0};
    struct spec spec;
    if (!api_body(x, &body)) return;
    enum err e = change(x, body, &spec, &why);
    if (e != OK) api_fail(x, e, &why);
    json_decref(body);
}

void handle_ca_set(struct exchange *x) { api_current(x, set); }
