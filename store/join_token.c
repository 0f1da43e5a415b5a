/* Join tokens as bytes, and what may be done with one (join_token.h). Little-endian; a text is a
 * block without zero bytes.
 *
 *   token:      u8 role, 32 bytes hash, u64 epoch, i64 expires_s, u32 uses max, u32 used, text
 *               addresses, block labels (node.c), u8 revoked (0 or 1)
 *   secret of a standing token: the first 16 bytes derived from the join key for "join token" and
 *               u8 role, u64 epoch; as 25 characters of base36
 *
 * Addresses are IPv4 or IPv6, each with an optional "/bits"; an IPv4 address that comes as a mapped
 * IPv6 one (::ffff:a.b.c.d) counts as IPv4. */
#include "store/join_token.h"

#include <arpa/inet.h>
#include <sodium.h>

#include "crypto/base36.h"
#include "store/store.h"

#define SECRET_BYTES 16

/* --- bytes --- */

static RESULT check(const struct join_token *t) {
    if (t->role != NODE_WORKER && t->role != NODE_MANAGER) return ERR_INVALID;
    if (t->expires_s < 0 || (t->uses_max != 0 && t->used > t->uses_max)) return ERR_INVALID;
    TRY(labels_check(t->labels));
    return join_addresses_check(t->addresses, NULL);
}

RESULT join_token_encode(const struct join_token *t, struct buf *out) {
    TRY(check(t));
    TRY(buf_u8(out, (uint8_t)t->role));
    TRY(buf_add(out, t->hash, JOIN_HASH_SIZE));
    TRY(buf_u64(out, t->epoch));
    TRY(buf_u64(out, (uint64_t)t->expires_s));
    TRY(buf_u32(out, t->uses_max));
    TRY(buf_u32(out, t->used));
    TRY(buf_block(out, span_str(t->addresses)));
    TRY(buf_block(out, t->labels));
    return buf_u8(out, t->revoked);
}

static RESULT decode(struct cursor *in, struct join_token *out) {
    uint8_t role, revoked;
    uint64_t expires_s;
    TRY(cursor_u8(in, &role));
    out->role = (enum node_role)role;
    TRY(cursor_copy(in, out->hash, JOIN_HASH_SIZE));
    TRY(cursor_u64(in, &out->epoch));
    TRY(cursor_u64(in, &expires_s));
    out->expires_s = (int64_t)expires_s;
    TRY(cursor_u32(in, &out->uses_max));
    TRY(cursor_u32(in, &out->used));
    TRY(cursor_text(in, out->addresses, sizeof out->addresses));
    TRY(cursor_block(in, NODE_LABELS_BYTES, &out->labels));
    TRY(cursor_u8(in, &revoked));
    if (revoked > 1) return ERR_CORRUPT;
    out->revoked = revoked == 1;
    TRY(cursor_end(in));
    return check(out);
}

RESULT join_token_decode(struct span body, struct join_token *out) {
    struct cursor in = cursor_of(body);
    *out = (struct join_token){.role = 0};
    return decode(&in, out) == OK ? OK : ERR_CORRUPT;
}

/* --- secrets --- */

void join_token_hash(const char *secret_text, uint8_t out[JOIN_HASH_SIZE]) {
    (void)crypto_generichash(out, JOIN_HASH_SIZE, (const uint8_t *)secret_text, strlen(secret_text),
                             NULL, 0);
}

RESULT join_token_derive(const struct secret *join_key, enum node_role role, uint64_t epoch,
                         char out[JOIN_SECRET_SIZE + 1]) {
    uint8_t id[9], raw[SECRET_BYTES];
    struct secret *derived = NULL;
    id[0] = (uint8_t)role;
    put_u64(id + 1, epoch);
    TRY(secret_derive(join_key, "join token", span_of(id, sizeof id), &derived));
    memcpy(raw, secret_span(derived).at, sizeof raw);
    secret_free(derived);
    base36_text(raw, sizeof raw, out, JOIN_SECRET_SIZE);
    sodium_memzero(raw, sizeof raw);
    return OK;
}

/* --- looking for one --- */

struct search {
    const uint8_t *hash; /* NULL: the standing one of `role` */
    enum node_role role;
    struct row *row;
    struct join_token *out;
    bool found;
};

static bool look_at(void *ctx, const struct row *r) {
    struct search *s = ctx;
    struct join_token t;
    if (join_token_decode(r->body, &t) != OK) return true;
    bool same = s->hash != NULL ? sodium_memcmp(s->hash, t.hash, JOIN_HASH_SIZE) == 0
                                : t.epoch > 0 && t.role == s->role;
    if (!same) return true;
    *s->row = *r;
    *s->out = t;
    s->found = true;
    return s->hash != NULL; /* a secret's place is not told by the time it takes */
}

bool join_token_find(const struct store *s, const char *secret_text, struct row *row,
                     struct join_token *out) {
    uint8_t hash[JOIN_HASH_SIZE];
    struct search search = {.hash = hash, .row = row, .out = out};
    join_token_hash(secret_text, hash);
    row_all(s, ROW_TOKEN, look_at, &search);
    return search.found;
}

bool join_token_standing(const struct store *s, enum node_role role, struct row *row,
                         struct join_token *out) {
    struct search search = {.role = role, .row = row, .out = out};
    row_all(s, ROW_TOKEN, look_at, &search);
    return search.found;
}

/* --- from where --- */

struct network {
    uint8_t at[16]; /* IPv4: mapped into IPv6 */
    unsigned bits;  /* of these; the others are 0 */
};

/* `text` is cut up. */
static bool parse_host(char *text, struct network *out) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    char *end = strchr(text, ']');
    if (text[0] == '[' && end != NULL) { /* [v6]:port */
        text++;
        *end = '\0';
    }
    if (inet_pton(AF_INET6, text, out->at) == 1) {
        out->bits = 128;
        return true;
    }
    char *colon = strchr(text, ':');
    if (colon != NULL) *colon = '\0'; /* v4:port */
    memcpy(out->at, mapped, sizeof mapped);
    out->bits = 32;
    return inet_pton(AF_INET, text, out->at + 12) == 1;
}

static bool parse_bits(const char *text, unsigned max, unsigned *out) {
    unsigned bits = 0;
    size_t size = strlen(text);
    if (size < 1 || size > 3) return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        bits = bits * 10 + (unsigned)(text[i] - '0');
    }
    *out = bits;
    return bits <= max;
}

/* Are the first `bits` the same? */
static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits) {
    if (memcmp(a, b, bits / 8) != 0) return false;
    return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8)) == 0;
}

static bool parse_network(char *text, struct network *out) {
    char *slash = strchr(text, '/');
    if (slash != NULL) *slash = '\0';
    if (strpbrk(text, "[]") != NULL) return false; /* no ports here */
    bool v6 = strchr(text, ':') != NULL;
    if (!parse_host(text, out) || (v6 && out->bits != 128)) return false;
    if (slash != NULL && !parse_bits(slash + 1, out->bits, &out->bits)) return false;
    if (!v6) out->bits += 96;
    return true;
}

/* Takes the first of a list; *list is then what follows it, NULL: nothing. */
static bool take_network(const char **list, struct network *out) {
    char text[64];
    size_t size = strcspn(*list, ",");
    if (size >= sizeof text) return false;
    memcpy(text, *list, size);
    text[size] = '\0';
    *list = (*list)[size] == ',' ? *list + size + 1 : NULL;
    return parse_network(text, out);
}

RESULT join_addresses_check(const char *cidrs, struct why *why) {
    const char *rest = cidrs[0] != '\0' ? cidrs : NULL;
    struct network n;
    if (strlen(cidrs) >= JOIN_ADDRESSES)
        return fail_with(why, ERR_INVALID, "the addresses are longer than %d characters",
                         JOIN_ADDRESSES - 1);
    while (rest != NULL)
        if (!take_network(&rest, &n))
            return fail_with(why, ERR_INVALID,
                             "\"%s\" are no addresses: 10.0.0.0/8,2001:db8::/32 are", cidrs);
    return OK;
}

static bool comes_from(const char *cidrs, const char *remote) {
    char text[ADDRESS_MAX];
    struct network host, n;
    const char *rest = cidrs;
    size_t size = strlen(remote);
    if (size >= sizeof text) return false;
    memcpy(text, remote, size + 1);
    if (!parse_host(text, &host)) return false;
    while (rest != NULL)
        if (take_network(&rest, &n) && same_bits(host.at, n.at, n.bits)) return true;
    return false;
}

/* --- may it be used? --- */

RESULT join_token_usable(const struct join_token *t, int64_t now_s, const char *remote,
                         struct why *why) {
    if (t->revoked) return fail_with(why, ERR_PERMISSION, "the token was revoked");
    if (t->expires_s != 0 && now_s >= t->expires_s)
        return fail_with(why, ERR_PERMISSION, "the token has expired");
    if (t->uses_max != 0 && t->used >= t->uses_max)
        return fail_with(why, ERR_PERMISSION, "the token is used up");
    if (t->addresses[0] != '\0' && (remote == NULL || !comes_from(t->addresses, remote)))
        return fail_with(why, ERR_PERMISSION, "the token can't be used from this address");
    return OK;
}
