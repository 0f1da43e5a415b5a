/* Heads of the audit trail: signed, as bytes, as JSON, checked. See audit.h. */
#include <sodium.h>
#include <stdio.h>

#include "api/secret/audit.h"
#include "crypto/x509.h"

const char *audit_what_text(enum audit_what what) {
    static const char *const texts[] = {"?",      "create", "update", "remove", "read", "deliver",
                                        "rotate", "shred",  "escrow", "deny",   "head"};
    return (size_t)what < ARRAY_SIZE(texts) ? texts[what] : texts[0];
}

const char *audit_kind_text(enum row_kind kind) {
    static const char *const texts[] = {"",       "settings", "node",       "token",
                                        "secret", "config",   "value",      "service",
                                        "task",   "audit",    "cluster key"};
    return (size_t)kind < ARRAY_SIZE(texts) ? texts[kind] : "?";
}

/* --- signing -------------------------------------------------------------------------------- */

static RESULT signed_bytes(const struct audit_head *h, struct buf *out) {
    static const char label[] = "conclave audit head"; /* with its zero byte */
    TRY(buf_add(out, label, sizeof label));
    TRY(buf_block(out, span_str(h->cluster_id)));
    TRY(buf_u64(out, h->number));
    return buf_add(out, h->chain, sizeof h->chain);
}

RESULT audit_head_prove(struct audit_head *h, const struct secret *key_pem, struct buf *memory,
                        struct why *why) {
    struct buf bytes = buf_new(1 * KIB);
    enum err e = signed_bytes(h, &bytes);
    if (e == OK) e = x509_prove(key_pem, buf_span(&bytes), memory, why);
    buf_free(&bytes);
    h->signature = buf_span(memory);
    return e;
}

RESULT audit_head_sign(const struct manager *m, struct audit_head *out, struct buf *memory,
                       struct why *why) {
    struct audit_head h = {.signer_pem = buf_span(&m->self.cert_pem)};
    h.number = audit_last(m->store, h.chain);
    if (h.number == 0) memset(h.chain, 0, sizeof h.chain);
    memcpy(h.cluster_id, m->self.cluster_id, sizeof h.cluster_id);
    memcpy(h.node_id, m->self.node_id, sizeof h.node_id);
    TRY(audit_head_prove(&h, m->self.key_pem, memory, why));
    *out = h;
    return OK;
}

RESULT audit_head_proven(const struct audit_head *h, struct why *why) {
    struct buf bytes = buf_new(1 * KIB);
    enum err e = signed_bytes(h, &bytes);
    if (e == OK) e = x509_proof_check(h->signer_pem, buf_span(&bytes), h->signature, why);
    buf_free(&bytes);
    if (e == OK || e == ERR_NOMEM) return e;
    return fail_with(why, ERR_CERTIFICATE, "the head's signature is wrong");
}

RESULT audit_head_check(const struct audit_head *h, struct span roots_pem, struct why *why) {
    struct x509_subject subject;
    TRY(audit_head_proven(h, why));
    TRY(x509_verify_ended(roots_pem, h->signer_pem, &subject, why));
    if (strcmp(subject.ou, ROLE_MANAGER) != 0)
        return fail_with(why, ERR_CERTIFICATE, "the head is signed by somebody who is no manager");
    if (strcmp(subject.o, h->cluster_id) != 0 || strcmp(subject.cn, h->node_id) != 0)
        return fail_with(why, ERR_CERTIFICATE, "the head is signed by somebody else than it says");
    return OK;
}

/* --- bytes ---------------------------------------------------------------------------------- */

RESULT audit_head_encode(const struct audit_head *h, struct buf *out) {
    TRY(buf_u64(out, h->number));
    TRY(buf_add(out, h->chain, sizeof h->chain));
    TRY(buf_block(out, h->signature));
    return buf_block(out, h->signer_pem);
}

static RESULT decode(struct span detail, struct audit_head *h) {
    struct cursor in = cursor_of(detail);
    TRY(cursor_u64(&in, &h->number));
    TRY(cursor_copy(&in, h->chain, sizeof h->chain));
    TRY(cursor_block(&in, AUDIT_SIGNATURE_MAX, &h->signature));
    TRY(cursor_block(&in, AUDIT_RECORD_MAX, &h->signer_pem));
    return cursor_end(&in);
}

RESULT audit_head_decode(struct span detail, struct audit_head *out) {
    struct audit_head h = {.number = 0};
    struct x509_subject subject;
    if (decode(detail, &h) != OK) return ERR_CORRUPT;
    if (x509_subject(h.signer_pem, &subject) != OK) return ERR_CORRUPT;
    if (strlen(subject.o) > CLUSTER_ID_SIZE || strlen(subject.cn) > NODE_ID_SIZE)
        return ERR_CORRUPT;
    (void)snprintf(h.cluster_id, sizeof h.cluster_id, "%.*s", CLUSTER_ID_SIZE, subject.o);
    (void)snprintf(h.node_id, sizeof h.node_id, "%.*s", NODE_ID_SIZE, subject.cn);
    *out = h;
    return OK;
}

/* --- JSON ----------------------------------------------------------------------------------- */

static void put_base64(struct jout *j, const char *key, struct span bytes) {
    jout_key(j, key);
    jout_base64(j, bytes);
}

void audit_head_put(struct jout *j, const struct audit_head *h) {
    jout_open(j, '{');
    jout_put_text(j, "cluster", h->cluster_id);
    jout_put_text(j, "node", h->node_id);
    jout_put_number(j, "number", h->number);
    jout_put_hex(j, "chain", span_of(h->chain, sizeof h->chain));
    put_base64(j, "signature", h->signature);
    jout_key(j, "signer");
    jout_text(j, h->signer_pem);
    jout_close(j, '}');
}

/* A chain value of 64 hexadecimal digits. */
static RESULT read_chain(const json_t *json, const char *key, uint8_t out[AUDIT_CHAIN],
                         struct why *why) {
    const char *text = jin_string(json, key), *end = NULL;
    size_t size = 0;
    bool good = strlen(text) == 2 * AUDIT_CHAIN &&
                sodium_hex2bin(out, AUDIT_CHAIN, text, 2 * AUDIT_CHAIN, NULL, &size, &end) == 0 &&
                size == AUDIT_CHAIN && *end == '\0';
    return good ? OK : fail_with(why, ERR_INVALID, "field %s is no chain value", key);
}

/* The decoded field at the end of `memory`, which may move when it grows: reserve first. */
static RESULT read_base64(const json_t *json, const char *key, size_t most, struct buf *memory,
                          struct span *out, struct why *why) {
    struct buf bytes = buf_new(most);
    enum err e = jin_bytes(json, key, &bytes, why);
    size_t before = memory->size;
    if (e == OK) e = buf_add_span(memory, buf_span(&bytes));
    if (e == OK) *out = bytes.size > 0 ? span_of(memory->at + before, bytes.size) : span_of("", 0);
    buf_free(&bytes);
    return e;
}

RESULT audit_head_read(const json_t *json, struct audit_head *out, struct buf *memory,
                       struct why *why) {
    struct audit_head h = {.number = 0};
    const char *signer = jin_string(json, "signer");
    buf_clear(memory);
    TRY(jin_text(json, "cluster", h.cluster_id, sizeof h.cluster_id, why));
    TRY(jin_text(json, "node", h.node_id, sizeof h.node_id, why));
    TRY(jin_u64(json, "number", &h.number, why));
    TRY(read_chain(json, "chain", h.chain, why));
    if (signer[0] == '\0' || strlen(signer) > AUDIT_SIGNERS_MAX)
        return fail_with(why, ERR_INVALID, "field signer is no certificate");
    TRY(buf_reserve(memory, AUDIT_SIGNATURE_MAX + AUDIT_SIGNERS_MAX));
    TRY(read_base64(json, "signature", AUDIT_SIGNATURE_MAX, memory, &h.signature, why));
    size_t before = memory->size;
    TRY(buf_add_span(memory, span_str(signer)));
    h.signer_pem = span_of(memory->at + before, memory->size - before);
    *out = h;
    return OK;
}

void audit_link_put(struct jout *j, const struct audit_link *l) {
    jout_open(j, '{');
    jout_put_number(j, "number", l->number);
    jout_put_number(j, "time_ns", (uint64_t)l->time_ns);
    jout_put_hex(j, "prev", span_of(l->prev, sizeof l->prev));
    jout_put_hex(j, "chain", span_of(l->chain, sizeof l->chain));
    put_base64(j, "record", l->record);
}

RESULT audit_link_read(const json_t *json, struct audit_link *out, struct buf *memory,
                       struct why *why) {
    struct audit_link l = {.number = 0};
    uint64_t time_ns = 0;
    buf_clear(memory);
    TRY(jin_u64(json, "number", &l.number, why));
    TRY(jin_u64(json, "time_ns", &time_ns, why));
    TRY(read_chain(json, "prev", l.prev, why));
    TRY(read_chain(json, "chain", l.chain, why));
    TRY(read_base64(json, "record", AUDIT_RECORD_MAX, memory, &l.record, why));
    l.time_ns = (int64_t)time_ns;
    if (audit_decode(l.record, &l.is) != OK)
        return fail_with(why, ERR_CORRUPT, "record %llu can't be read",
                         (unsigned long long)l.number);
    *out = l;
    return OK;
}
