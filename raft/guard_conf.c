/* Configurations as bytes. The library's decoder trusts its input (no bounds, no role check), so
 * bytes from disk or from a peer are read here first; only what is well-formed and canonical is
 * passed on.
 *
 *   u8   1, the version
 *   u64  number of servers, little-endian
 *   then for each server: u64 id > 0, address with its NUL, u8 role (0 standby, 1 voter, 2 spare)
 *   then zeros up to a multiple of 8 bytes
 *
 * And what one entry may change: exactly one server, the others as they were and in the same order,
 * since the engine matches its progress array by position when the count stays the same. */
#include "raft/guard_internal.h"

#define CONF_VERSION 1

static enum err conf_server(struct cursor *c, struct conf_server *s) {
    uint8_t role = 0;
    TRY(cursor_u64(c, &s->id));
    const uint8_t *end = c->left > 0 ? memchr(c->at, 0, c->left) : NULL;
    if (end == NULL || (size_t)(end - c->at) >= ADDRESS_MAX) return ERR_PROTOCOL;
    struct span address;
    TRY(cursor_bytes(c, (size_t)(end - c->at) + 1, &address));
    TRY(cursor_u8(c, &role));
    s->address = (const char *)address.at;
    s->role = role;
    bool known = role == RAFT_STANDBY || role == RAFT_VOTER || role == RAFT_SPARE;
    return s->id > 0 && known ? OK : ERR_PROTOCOL;
}

static bool conf_has(const struct conf *c, const struct conf_server *s) {
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == s->id) return true;
        if (strcmp(c->servers[i].address, s->address) == 0) return true;
    }
    return false;
}

enum err conf_parse(struct span bytes, struct conf *out) {
    struct cursor c = cursor_of(bytes);
    uint8_t version = 0;
    uint64_t n = 0;
    TRY(cursor_u8(&c, &version));
    TRY(cursor_u64(&c, &n));
    if (version != CONF_VERSION || n == 0 || n > MEMBERS_MAX) return ERR_PROTOCOL;
    out->n = 0;
    while (out->n < n) {
        struct conf_server s;
        TRY(conf_server(&c, &s));
        if (conf_has(out, &s)) return ERR_PROTOCOL;
        out->servers[out->n++] = s;
    }
    if (bytes.size % 8 != 0 || c.left >= 8) return ERR_PROTOCOL;
    for (size_t i = 0; i < c.left; i++)
        if (c.at[i] != 0) return ERR_PROTOCOL;
    return OK;
}

enum err guard_configuration_check(struct span bytes) {
    struct conf c;
    return conf_parse(bytes, &c);
}

enum err conf_decode(struct span bytes, struct raft_configuration *out) {
    struct raft_buffer buf = {.base = (void *)(uintptr_t)bytes.at, .len = bytes.size};
    TRY(guard_configuration_check(bytes));
    return raft_configuration_decode(&buf, out) == 0 ? OK : ERR_NOMEM;
}

enum err conf_copy(const struct raft_configuration *from, struct raft_configuration *to) {
    raft_configuration_init(to);
    for (unsigned i = 0; i < from->n; i++) {
        const struct raft_server *s = &from->servers[i];
        if (raft_configuration_add(to, s->id, s->address, s->role) == 0) continue;
        raft_configuration_close(to);
        return ERR_NOMEM;
    }
    return OK;
}

static bool conf_same(const struct raft_server *a, const struct conf_server *b) {
    return a->id == b->id && a->role == b->role && strcmp(a->address, b->address) == 0;
}

/* Whether the servers at a[i..] and b[j..] are the same to the end. */
static bool conf_rest_same(const struct raft_configuration *a, unsigned i, const struct conf *b,
                           unsigned j) {
    if (a->n - i != b->n - j) return false;
    for (; i < a->n; i++, j++)
        if (!conf_same(&a->servers[i], &b->servers[j])) return false;
    return true;
}

bool conf_one_delta(const struct raft_configuration *from, const struct conf *to) {
    unsigned i = 0;
    while (i < from->n && i < to->n && conf_same(&from->servers[i], &to->servers[i]))
        i++;
    if (i == from->n) return to->n == from->n + 1;                       /* one more, at the end */
    if (to->n + 1 == from->n) return conf_rest_same(from, i + 1, to, i); /* one less */
    if (i == to->n || from->servers[i].id != to->servers[i].id) return false;
    return conf_rest_same(from, i + 1, to, i + 1); /* one with another role or address */
}

bool conf_is_voter(const struct conf *c, uint64_t id) {
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id) return c->servers[i].role == RAFT_VOTER;
    return false;
}

const struct raft_server *conf_find(const struct raft_configuration *c, uint64_t id) {
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id) return &c->servers[i];
    return NULL;
}
