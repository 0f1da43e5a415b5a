/* Nodes and labels as bytes (node.h). Whatever is encoded was checked by the same rules as what is
 * decoded, and what is decoded encodes to the same bytes. Little-endian; a text is a block without
 * zero bytes, shorter than its field.
 *
 *   node:    u8 desired, u8 availability, block labels, text hostname, text os, text arch, text
 *            engine, u64 nano CPUs, u64 memory bytes, u8 state, text message, text address, u8
 *            granted, u64 raft id, text client address, text peer address, u8 certificate, 32 bytes
 *            key digest, 32 bytes issuer digest, i64 not_after_s, 32 bytes wanted digest, u8
 *            approved (0 or 1), text token id
 *   labels:  each: block key, not empty; block value; keys ascend */
#include "store/node.h"

#include <strings.h>

/* --- labels --- */

bool labels_next(struct cursor *labels, struct span *key, struct span *value) {
    return cursor_block(labels, NODE_LABELS_BYTES, key) == OK &&
           cursor_block(labels, NODE_LABELS_BYTES, value) == OK;
}

bool labels_find(struct span labels, struct span key, struct span *value) {
    struct cursor in = cursor_of(labels);
    struct span name;
    while (labels_next(&in, &name, value))
        if (span_equal(name, key)) return true;
    return false;
}

RESULT labels_check(struct span labels) {
    struct cursor in = cursor_of(labels);
    struct span key, value, last = {0};
    if (labels.size > NODE_LABELS_BYTES) return ERR_INVALID;
    for (unsigned n = 0; in.left > 0; n++) {
        if (n == NODE_LABELS_MAX || !labels_next(&in, &key, &value)) return ERR_INVALID;
        if (span_compare(last, key) >= 0) return ERR_INVALID; /* an empty one too */
        last = key;
    }
    return OK;
}

RESULT labels_add(struct buf *labels, struct span key, struct span value) {
    size_t before = labels->size;
    enum err e = buf_block(labels, key);
    if (e == OK) e = buf_block(labels, value);
    if (e == OK) e = labels_check(buf_span(labels));
    if (e != OK) labels->size = before;
    return e;
}

/* --- nodes --- */

static bool good_role(enum node_role r) { return r == NODE_WORKER || r == NODE_MANAGER; }

static RESULT check(const struct node_row *n) {
    if (!good_role(n->desired) || !good_role(n->granted)) return ERR_INVALID;
    if (n->availability < NODE_ACTIVE || n->availability > NODE_DRAIN) return ERR_INVALID;
    if (n->state < NODE_UNKNOWN || n->state > NODE_DISCONNECTED) return ERR_INVALID;
    if (n->certificate < NODE_CERT_ISSUED || n->certificate > NODE_CERT_PENDING) return ERR_INVALID;
    return labels_check(n->labels);
}

static RESULT encode_description(const struct node_row *n, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)n->desired));
    TRY(buf_u8(out, (uint8_t)n->availability));
    TRY(buf_block(out, n->labels));
    TRY(buf_block(out, span_str(n->hostname)));
    TRY(buf_block(out, span_str(n->os)));
    TRY(buf_block(out, span_str(n->arch)));
    TRY(buf_block(out, span_str(n->engine)));
    TRY(buf_u64(out, n->nano_cpus));
    return buf_u64(out, n->memory_bytes);
}

static RESULT encode_status(const struct node_row *n, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)n->state));
    TRY(buf_block(out, span_str(n->message)));
    TRY(buf_block(out, span_str(n->address)));
    TRY(buf_u8(out, (uint8_t)n->granted));
    TRY(buf_u64(out, n->raft_id));
    TRY(buf_block(out, span_str(n->client_address)));
    return buf_block(out, span_str(n->peer_address));
}

static RESULT encode_certificate(const struct node_row *n, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)n->certificate));
    TRY(buf_add(out, n->key_digest, NODE_DIGEST_SIZE));
    TRY(buf_add(out, n->previous_digest, NODE_DIGEST_SIZE));
    TRY(buf_add(out, n->issuer_digest, NODE_DIGEST_SIZE));
    TRY(buf_u64(out, (uint64_t)n->not_after_s));
    TRY(buf_add(out, n->wanted_digest, NODE_DIGEST_SIZE));
    TRY(buf_u8(out, n->approved));
    return buf_block(out, span_str(n->token_id));
}

RESULT node_row_encode(const struct node_row *n, struct buf *out) {
    TRY(check(n));
    TRY(encode_description(n, out));
    TRY(encode_status(n, out));
    return encode_certificate(n, out);
}

static RESULT decode_description(struct cursor *in, struct node_row *out) {
    uint8_t desired, availability;
    TRY(cursor_u8(in, &desired));
    TRY(cursor_u8(in, &availability));
    out->desired = (enum node_role)desired;
    out->availability = (enum node_availability)availability;
    TRY(cursor_block(in, NODE_LABELS_BYTES, &out->labels));
    TRY(cursor_text(in, out->hostname, sizeof out->hostname));
    TRY(cursor_text(in, out->os, sizeof out->os));
    TRY(cursor_text(in, out->arch, sizeof out->arch));
    TRY(cursor_text(in, out->engine, sizeof out->engine));
    TRY(cursor_u64(in, &out->nano_cpus));
    return cursor_u64(in, &out->memory_bytes);
}

static RESULT decode_status(struct cursor *in, struct node_row *out) {
    uint8_t state, granted;
    TRY(cursor_u8(in, &state));
    out->state = (enum node_state)state;
    TRY(cursor_text(in, out->message, sizeof out->message));
    TRY(cursor_text(in, out->address, sizeof out->address));
    TRY(cursor_u8(in, &granted));
    out->granted = (enum node_role)granted;
    TRY(cursor_u64(in, &out->raft_id));
    TRY(cursor_text(in, out->client_address, sizeof out->client_address));
    return cursor_text(in, out->peer_address, sizeof out->peer_address);
}

static RESULT decode_certificate(struct cursor *in, struct node_row *out) {
    uint8_t certificate, approved;
    uint64_t not_after_s;
    TRY(cursor_u8(in, &certificate));
    out->certificate = (enum node_certificate)certificate;
    TRY(cursor_copy(in, out->key_digest, NODE_DIGEST_SIZE));
    TRY(cursor_copy(in, out->previous_digest, NODE_DIGEST_SIZE));
    TRY(cursor_copy(in, out->issuer_digest, NODE_DIGEST_SIZE));
    TRY(cursor_u64(in, &not_after_s));
    out->not_after_s = (int64_t)not_after_s;
    TRY(cursor_copy(in, out->wanted_digest, NODE_DIGEST_SIZE));
    TRY(cursor_u8(in, &approved));
    if (approved > 1) return ERR_CORRUPT;
    out->approved = approved == 1;
    return cursor_text(in, out->token_id, sizeof out->token_id);
}

static RESULT decode(struct cursor *in, struct node_row *out) {
    TRY(decode_description(in, out));
    TRY(decode_status(in, out));
    TRY(decode_certificate(in, out));
    TRY(cursor_end(in));
    return check(out);
}

RESULT node_row_decode(struct span body, struct node_row *out) {
    struct cursor in = cursor_of(body);
    *out = (struct node_row){.desired = 0};
    return decode(&in, out) == OK ? OK : ERR_CORRUPT;
}

RESULT node_row_get(const struct store *s, const char *id, struct row *row, struct node_row *out) {
    if (!row_get(s, ROW_NODE, id, row)) return ERR_NOT_FOUND;
    return node_row_decode(row->body, out);
}

struct by_host {
    struct span hostname;
    char *id;
    unsigned n;
};

static bool compare_host(void *ctx, const struct row *r) {
    struct by_host *h = ctx;
    struct node_row n;
    if (node_row_decode(r->body, &n) != OK || strlen(n.hostname) != h->hostname.size ||
        strncasecmp(n.hostname, (const char *)h->hostname.at, h->hostname.size) != 0)
        return true;
    if (h->n++ == 0) memcpy(h->id, r->id, sizeof r->id);
    return h->n < 2;
}

unsigned node_row_of_host(const struct store *s, struct span hostname, char id[NODE_ID_SIZE + 1]) {
    struct by_host h = {.hostname = hostname, .id = id};
    if (hostname.size > 0) row_all(s, ROW_NODE, compare_host, &h);
    return h.n;
}
