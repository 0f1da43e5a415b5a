/* What the Engine API shows of the state: the settings, the CA, a node with the certificate that it
 * has. Everything is read within one callback; nothing is kept. */
#include "api/engine/engine.h"

#include <stdio.h>

#include "api/ca/authority.h"

/* Whose key a digest is of, and the root that goes with it. */
static struct engine_tls tls_of(const struct engine_view *v, const struct cluster *c,
                                const uint8_t digest[NODE_DIGEST_SIZE]) {
    struct engine_tls out = {.trust_root = buf_span(&c->ca.root_pem)};
    const struct engine_issuer *issuer = issuers_find(&v->issuers, digest);
    if (!issuer) return out;
    out.subject = buf_span(&issuer->subject);
    out.public_key = buf_span(&issuer->public_key);
    const uint8_t *from = c->retired_pem.at;
    if (from && issuer->pem.at >= from && issuer->pem.at < from + c->retired_pem.size)
        out.trust_root = issuer->pem; /* it has not come to the present root yet */
    return out;
}

static RESULT add_issuers(struct engine_issuers *all, const struct cluster *c) {
    TRY(issuers_add(all, buf_span(&c->ca.issuer_pem)));
    TRY(issuers_add(all, buf_span(&c->ca.root_pem)));
    TRY(issuers_add(all, buf_span(&c->next.issuer_pem)));
    TRY(issuers_add(all, buf_span(&c->next.root_pem)));
    return issuers_add(all, buf_span(&c->retired_pem));
}

RESULT engine_view(const struct manager *m, struct engine_view *out) {
    const struct cluster *c = store_cluster(m->store);
    uint8_t digest[NODE_DIGEST_SIZE];
    *out = (struct engine_view){0};
    spec_get(m->store, &out->row, &out->spec);
    enum err e = add_issuers(&out->issuers, c);
    if (e == OK) e = authority_issuer(c, digest);
    if (e != OK) {
        issuers_free(&out->issuers);
        return e;
    }
    out->cluster = (struct engine_cluster){.id = c->id,
                                           .row = &out->row,
                                           .spec = &out->spec,
                                           .autolock = c->unlock_key != NULL,
                                           .rotating = c->next.root_pem.size > 0,
                                           .tls = tls_of(out, c, digest)};
    return OK;
}

void engine_view_free(struct engine_view *v) { issuers_free(&v->issuers); }

struct engine_node engine_node_of(const struct manager *m, const struct engine_view *v,
                                  const struct row *row, const struct node_row *node) {
    struct node_member member;
    nodes_member(m, node, &member);
    return (struct engine_node){.row = row,
                                .node = node,
                                .tls = tls_of(v, store_cluster(m->store), node->issuer_digest),
                                .member = member.member,
                                .leader = member.leader,
                                .reachable = member.reachable};
}

/* --- finding a row ---------------------------------------------------------------------------- */

struct beginning {
    const char *text;
    size_t size; /* of the text */
    unsigned n;  /* rows whose id begins so */
    struct row row;
};

static bool look_at_id(void *ctx, const struct row *row) {
    struct beginning *b = ctx;
    if (strncmp(row->id, b->text, b->size) != 0) return true;
    b->n++;
    b->row = *row;
    return true;
}

/* Names are unique without case, and are found only as they are written. */
RESULT engine_find_row(const struct store *s, enum row_kind kind, const char *what,
                       const char *text, struct row *row, struct why *why) {
    if (row_get(s, kind, text, row)) return OK;
    if (row_named(s, kind, span_str(text), row) && span_equal(row->name, span_str(text))) return OK;
    struct beginning b = {.text = text, .size = strlen(text)};
    if (b.size > 0 && b.size < NODE_ID_SIZE) row_all(s, kind, look_at_id, &b);
    if (b.n == 0) return fail_with(why, ERR_NOT_FOUND, "%s %s not found", what, text);
    if (b.n > 1)
        return fail_with(why, ERR_INVALID, "%s %s is ambiguous (%u matches found)", what, text,
                         b.n);
    *row = b.row;
    return OK;
}

/* --- finding a node --------------------------------------------------------------------------- */

struct search {
    const char *text;
    bool prefix;    /* of the id; else the host name, or the name that the operator gave */
    unsigned n;     /* found */
    struct row row; /* the last one */
};

static bool look(void *ctx, const struct row *row) {
    struct search *s = ctx;
    struct node_row node;
    bool found;
    if (s->prefix) {
        found = strncmp(row->id, s->text, strlen(s->text)) == 0;
    } else {
        found = span_equal(row->name, span_str(s->text)) ||
                (node_row_decode(row->body, &node) == OK && strcmp(node.hostname, s->text) == 0);
    }
    if (found) {
        s->n++;
        s->row = *row;
    }
    return true;
}

RESULT engine_find_node(const struct store *s, const char *text, struct row *row,
                        struct node_row *node, struct why *why) {
    struct search search = {.text = text, .n = 1};
    if (!row_get(s, ROW_NODE, text, &search.row)) {
        search.n = 0;
        row_all(s, ROW_NODE, look, &search);
        search.prefix = true;
        if (search.n == 0) row_all(s, ROW_NODE, look, &search);
    }
    if (search.n == 0) return fail_with(why, ERR_NOT_FOUND, "node %s not found", text);
    if (search.n > 1)
        return fail_with(why, ERR_INVALID, "node %s is ambiguous (%u matches found)", text,
                         search.n);
    *row = search.row;
    return node_row_decode(row->body, node);
}
