/* The bodies of node_wire.h. Format, little-endian:
 *
 *   hello   text name, hostname, os, arch, engine; u64 nano_cpus, memory_bytes;
 *           text client_address, peer_address
 *   want    u64 sequence; u8 role, granted (1 worker, 2 manager); u32 heartbeat_ms;
 *           issuer (32 bytes); u8 renew (0, 1); u64 cert_validity_s; block root_pem (<= PEM_MAX);
 *           u32 n (<= MEMBERS_MAX), then n times u64 raft_id, text node_id, text peer_address
 *
 * A text is a block without control characters that fits its field. Nothing may follow. What the
 * encoder lets through the decoder takes, and a body has one encoding only. */
#include "api/node/node_wire.h"

/* It will stand in tables and logs. */
static bool is_plain(const char *text) {
    for (; *text != '\0'; text++)
        if ((uint8_t)*text < ' ' || *text == 127) return false;
    return true;
}

/* ---- out ---- */

static RESULT put_text(struct buf *out, const char *text, size_t room) {
    size_t size = strnlen(text, room);
    if (size == room || !is_plain(text)) return ERR_INVALID;
    return buf_block(out, span_of(text, size));
}

#define PUT(field) TRY(put_text(out, field, sizeof(field)))

static RESULT put_hello(const struct node_hello *h, struct buf *out) {
    PUT(h->name);
    PUT(h->hostname);
    PUT(h->os);
    PUT(h->arch);
    PUT(h->engine);
    TRY(buf_u64(out, h->nano_cpus));
    TRY(buf_u64(out, h->memory_bytes));
    PUT(h->client_address);
    PUT(h->peer_address);
    return OK;
}

static bool is_role(unsigned role) { return role == NODE_WORKER || role == NODE_MANAGER; }

static RESULT put_managers(const struct node_want *w, struct buf *out) {
    if (w->n > MEMBERS_MAX) return ERR_TOO_LARGE;
    TRY(buf_u32(out, w->n));
    for (unsigned i = 0; i < w->n; i++) {
        const struct wire_member *m = &w->managers[i];
        TRY(buf_u64(out, m->raft_id));
        PUT(m->node_id);
        PUT(m->peer_address);
    }
    return OK;
}

static RESULT put_want(const struct node_want *w, struct buf *out) {
    if (!is_role(w->role) || !is_role(w->granted)) return ERR_INVALID;
    if (w->root_pem.size > PEM_MAX) return ERR_TOO_LARGE;
    TRY(buf_u64(out, w->sequence));
    TRY(buf_u8(out, (uint8_t)w->role));
    TRY(buf_u8(out, (uint8_t)w->granted));
    TRY(buf_u32(out, w->heartbeat_ms));
    TRY(buf_add(out, w->issuer, sizeof w->issuer));
    TRY(buf_u8(out, w->renew));
    TRY(buf_u64(out, w->cert_validity_s));
    TRY(buf_block(out, w->root_pem));
    return put_managers(w, out);
}

/* Whatever fails leaves `out` as it was. */
static RESULT kept(enum err e, struct buf *out, size_t start) {
    if (e != OK) out->size = start;
    return e;
}

RESULT node_hello_encode(const struct node_hello *h, struct buf *out) {
    size_t start = out->size;
    return kept(put_hello(h, out), out, start);
}

RESULT node_want_encode(const struct node_want *w, struct buf *out) {
    size_t start = out->size;
    return kept(put_want(w, out), out, start);
}

/* ---- in ---- */

static RESULT get_text(struct cursor *c, char *out, size_t room) {
    TRY(cursor_text(c, out, room));
    return is_plain(out) ? OK : ERR_PROTOCOL;
}

#define GET(field) TRY(get_text(&c, field, sizeof(field)))

RESULT node_hello_decode(struct span body, struct node_hello *out) {
    struct node_hello h = {0};
    struct cursor c = cursor_of(body);
    GET(h.name);
    GET(h.hostname);
    GET(h.os);
    GET(h.arch);
    GET(h.engine);
    TRY(cursor_u64(&c, &h.nano_cpus));
    TRY(cursor_u64(&c, &h.memory_bytes));
    GET(h.client_address);
    GET(h.peer_address);
    TRY(cursor_end(&c));
    *out = h;
    return OK;
}

static RESULT get_role(struct cursor *c, enum node_role *out) {
    uint8_t role = 0;
    TRY(cursor_u8(c, &role));
    if (!is_role(role)) return ERR_PROTOCOL;
    *out = (enum node_role)role;
    return OK;
}

static RESULT get_bool(struct cursor *c, bool *out) {
    uint8_t v = 0;
    TRY(cursor_u8(c, &v));
    if (v > 1) return ERR_PROTOCOL;
    *out = v == 1;
    return OK;
}

static RESULT get_managers(struct cursor *in, struct node_want *w) {
    struct cursor c = *in;
    uint32_t n = 0;
    TRY(cursor_u32(&c, &n));
    if (n > MEMBERS_MAX) return ERR_PROTOCOL;
    for (w->n = 0; w->n < n; w->n++) {
        struct wire_member *m = &w->managers[w->n];
        TRY(cursor_u64(&c, &m->raft_id));
        GET(m->node_id);
        GET(m->peer_address);
    }
    *in = c;
    return OK;
}

RESULT node_want_decode(struct span body, struct node_want *out) {
    struct node_want w = {0};
    struct cursor c = cursor_of(body);
    TRY(cursor_u64(&c, &w.sequence));
    TRY(get_role(&c, &w.role));
    TRY(get_role(&c, &w.granted));
    TRY(cursor_u32(&c, &w.heartbeat_ms));
    TRY(cursor_copy(&c, w.issuer, sizeof w.issuer));
    TRY(get_bool(&c, &w.renew));
    TRY(cursor_u64(&c, &w.cert_validity_s));
    TRY(cursor_block(&c, PEM_MAX, &w.root_pem));
    TRY(get_managers(&c, &w));
    TRY(cursor_end(&c));
    *out = w;
    return OK;
}
