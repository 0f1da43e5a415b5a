/* The identity blob, little-endian, texts and bytes as u32 length + bytes:
 *   u8 version (3), u8 state, u8 role, text cluster id, text node id, u64 raft id, text name, text
 *   client address, text peer address, text client listen, text peer listen, bytes certificate,
 *   bytes roots, bytes issuer, bytes key, bytes signing key, bytes join key, bytes token, bytes
 *   unlock key (these three empty unless founding), u32 members, each u64 raft id, text node id,
 *   text peer address, cluster keys (identity.h). Version 2 ends before these. */
#include "api/node/identity.h"

#include <sodium.h>

#define IDENTITY_VERSION 3
#define IDENTITY_OLDER   2 /* without cluster keys */

void identity_init(struct node_identity *id) {
    *id = (struct node_identity){
        .cert_pem = buf_new(PEM_MAX), .root_pem = buf_new(PEM_MAX), .issuer_pem = buf_new(PEM_MAX)};
}

void identity_forget_founding(struct node_identity *id) {
    secret_free(id->join_key);
    secret_free(id->token);
    secret_free(id->unlock_key);
    id->join_key = id->token = id->unlock_key = NULL;
}

void identity_forget_vault(struct node_identity *id) {
    while (id->vault_n > 0)
        secret_free(id->vault[--id->vault_n].key);
}

void identity_clear(struct node_identity *id) {
    identity_forget_founding(id);
    identity_forget_vault(id);
    secret_free(id->key_pem);
    secret_free(id->root_key);
    buf_free(&id->cert_pem);
    buf_free(&id->root_pem);
    buf_free(&id->issuer_pem);
    identity_init(id);
}

/* --- cluster keys --------------------------------------------------------------------------- */

static unsigned vault_place(const struct node_identity *id, uint32_t epoch) {
    unsigned at = 0;
    while (at < id->vault_n && id->vault[at].epoch < epoch)
        at++;
    return at;
}

const struct vault_key *vault_key_of(const struct node_identity *id, uint32_t epoch) {
    unsigned at = vault_place(id, epoch);
    return at < id->vault_n && id->vault[at].epoch == epoch ? &id->vault[at] : NULL;
}

RESULT vault_key_put(struct node_identity *id, uint32_t epoch, struct span key) {
    struct vault_key k = {.epoch = epoch};
    unsigned at = vault_place(id, epoch);
    bool there = at < id->vault_n && id->vault[at].epoch == epoch;
    if (key.size != KEY_SIZE || epoch == 0) return ERR_INVALID;
    if (!there && id->vault_n == VAULT_EPOCHS_MAX) return ERR_TOO_LARGE;
    (void)crypto_generichash(k.id, sizeof k.id, key.at, key.size, NULL, 0);
    TRY(secret_new(key.at, key.size, &k.key));
    if (there) {
        secret_free(id->vault[at].key);
    } else {
        memmove(&id->vault[at + 1], &id->vault[at], (id->vault_n - at) * sizeof id->vault[0]);
        id->vault_n++;
    }
    id->vault[at] = k;
    return OK;
}

void vault_key_drop(struct node_identity *id, uint32_t epoch) {
    unsigned at = vault_place(id, epoch);
    if (at == id->vault_n || id->vault[at].epoch != epoch) return;
    secret_free(id->vault[at].key);
    id->vault_n--;
    memmove(&id->vault[at], &id->vault[at + 1], (id->vault_n - at) * sizeof id->vault[0]);
}

RESULT vault_keys_encode(const struct node_identity *id, struct buf *out) {
    TRY(buf_u32(out, id->vault_n));
    for (unsigned i = 0; i < id->vault_n; i++) {
        TRY(buf_u32(out, id->vault[i].epoch));
        TRY(buf_add_span(out, secret_span(id->vault[i].key)));
    }
    return OK;
}

/* Reads all of it; into `id` when there is one. */
static RESULT walk_vault(struct cursor *c, struct node_identity *id) {
    uint32_t n, epoch, last = 0;
    struct span key;
    TRY(cursor_u32(c, &n));
    if (n > VAULT_EPOCHS_MAX) return ERR_PROTOCOL;
    for (uint32_t i = 0; i < n; i++, last = epoch) {
        TRY(cursor_u32(c, &epoch));
        TRY(cursor_bytes(c, KEY_SIZE, &key));
        if (epoch <= last) return ERR_PROTOCOL;
        if (id && !vault_key_of(id, epoch)) TRY(vault_key_put(id, epoch, key));
    }
    return cursor_end(c);
}

RESULT vault_keys_check(struct span bytes) {
    struct cursor c = cursor_of(bytes);
    return walk_vault(&c, NULL);
}

RESULT vault_keys_take(struct node_identity *id, struct span bytes) {
    struct cursor c = cursor_of(bytes);
    TRY(vault_keys_check(bytes));
    return walk_vault(&c, id);
}

/* --- the blob ------------------------------------------------------------------------------- */

static struct span bytes_of(const struct secret *s) {
    return s ? secret_span(s) : span_of(NULL, 0);
}

static RESULT encode_members(const struct node_identity *id, struct buf *out) {
    TRY(buf_u32(out, id->n));
    for (unsigned i = 0; i < id->n; i++) {
        TRY(buf_u64(out, id->members[i].raft_id));
        TRY(buf_block(out, span_str(id->members[i].node_id)));
        TRY(buf_block(out, span_str(id->members[i].peer_address)));
    }
    return OK;
}

static RESULT encode(const struct node_identity *id, struct buf *out) {
    TRY(buf_u8(out, IDENTITY_VERSION));
    TRY(buf_u8(out, (uint8_t)id->state));
    TRY(buf_u8(out, (uint8_t)id->role));
    TRY(buf_block(out, span_str(id->cluster_id)));
    TRY(buf_block(out, span_str(id->node_id)));
    TRY(buf_u64(out, id->raft_id));
    TRY(buf_block(out, span_str(id->name)));
    TRY(buf_block(out, span_str(id->client_address)));
    TRY(buf_block(out, span_str(id->peer_address)));
    TRY(buf_block(out, span_str(id->client_listen)));
    TRY(buf_block(out, span_str(id->peer_listen)));
    TRY(buf_block(out, buf_span(&id->cert_pem)));
    TRY(buf_block(out, buf_span(&id->root_pem)));
    TRY(buf_block(out, buf_span(&id->issuer_pem)));
    TRY(buf_block(out, bytes_of(id->key_pem)));
    TRY(buf_block(out, bytes_of(id->root_key)));
    TRY(buf_block(out, bytes_of(id->join_key)));
    TRY(buf_block(out, bytes_of(id->token)));
    TRY(buf_block(out, bytes_of(id->unlock_key)));
    TRY(encode_members(id, out));
    return vault_keys_encode(id, out);
}

RESULT identity_store(const struct node_identity *id, struct keyring *keys, struct why *why) {
    struct buf bytes = buf_new(KEYRING_MAX / 2);
    struct secret *blob = NULL;
    enum err e =
        buf_reserve(&bytes, KEYRING_MAX / 4); /* at once: growing would leave copies behind */
    if (e == OK) e = encode(id, &bytes);
    if (e == OK) e = secret_new(bytes.at, bytes.size, &blob);
    if (e != OK) e = fail_with(why, e, "the node's identity can't be kept: %s", err_text(e));
    if (e == OK) e = keyring_set_identity(keys, blob, why);
    secret_free(blob);
    buf_wipe(&bytes);
    return e;
}

static RESULT take_secret(struct cursor *c, struct secret **out) {
    struct span bytes;
    TRY(cursor_block(c, PEM_MAX, &bytes));
    return bytes.size == 0 ? OK : secret_new(bytes.at, bytes.size, out);
}

static RESULT take_pem(struct cursor *c, struct buf *out) {
    struct span bytes;
    TRY(cursor_block(c, PEM_MAX, &bytes));
    return buf_add_span(out, bytes);
}

static RESULT decode_members(struct cursor *c, struct node_identity *id) {
    uint32_t n;
    TRY(cursor_u32(c, &n));
    if (n > MEMBERS_MAX) return ERR_CORRUPT;
    for (id->n = 0; id->n < n; id->n++) {
        struct wire_member *m = &id->members[id->n];
        TRY(cursor_u64(c, &m->raft_id));
        TRY(cursor_text(c, m->node_id, sizeof m->node_id));
        TRY(cursor_text(c, m->peer_address, sizeof m->peer_address));
    }
    return OK;
}

static RESULT decode(struct cursor *c, struct node_identity *id) {
    uint8_t version, state, role;
    TRY(cursor_u8(c, &version));
    TRY(cursor_u8(c, &state));
    TRY(cursor_u8(c, &role));
    if ((version != IDENTITY_VERSION && version != IDENTITY_OLDER) || state < IDENTITY_MADE ||
        state > IDENTITY_RECOVERED)
        return ERR_CORRUPT;
    if (role != NODE_WORKER && role != NODE_MANAGER) return ERR_CORRUPT;
    id->state = (enum identity_state)state;
    id->role = (enum node_role)role;
    TRY(cursor_text(c, id->cluster_id, sizeof id->cluster_id));
    TRY(cursor_text(c, id->node_id, sizeof id->node_id));
    TRY(cursor_u64(c, &id->raft_id));
    TRY(cursor_text(c, id->name, sizeof id->name));
    TRY(cursor_text(c, id->client_address, sizeof id->client_address));
    TRY(cursor_text(c, id->peer_address, sizeof id->peer_address));
    TRY(cursor_text(c, id->client_listen, sizeof id->client_listen));
    TRY(cursor_text(c, id->peer_listen, sizeof id->peer_listen));
    TRY(take_pem(c, &id->cert_pem));
    TRY(take_pem(c, &id->root_pem));
    TRY(take_pem(c, &id->issuer_pem));
    TRY(take_secret(c, &id->key_pem));
    TRY(take_secret(c, &id->root_key));
    TRY(take_secret(c, &id->join_key));
    TRY(take_secret(c, &id->token));
    TRY(take_secret(c, &id->unlock_key));
    if (!id->key_pem) return ERR_CORRUPT;
    TRY(decode_members(c, id));
    return version == IDENTITY_OLDER ? cursor_end(c) : walk_vault(c, id);
}

RESULT identity_load(struct keyring *keys, struct node_identity *id, struct why *why) {
    const struct secret *blob = keyring_identity(keys);
    if (!blob) return ERR_NOT_FOUND;
    identity_clear(id);
    struct cursor c = cursor_of(secret_span(blob));
    enum err e = decode(&c, id);
    if (e == OK) return OK;
    identity_clear(id);
    return fail_with(why, e == ERR_NOMEM ? e : ERR_CORRUPT,
                     "keyring: the identity in it is not understood");
}

static bool is_name_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("._-", c) != NULL);
}

RESULT name_check(const char *name, struct why *why) {
    size_t size = strlen(name);
    bool like_id = size == NODE_ID_SIZE;
    for (size_t i = 0; i < size; i++) {
        if (!is_name_byte(name[i]))
            return fail_with(why, ERR_INVALID, "a name has only letters, digits, '.', '_' and '-'");
        if ((name[i] < 'a' || name[i] > 'z') && (name[i] < '0' || name[i] > '9')) like_id = false;
    }
    if (size == 0 || size > NAME_MAX_SIZE)
        return fail_with(why, ERR_INVALID, "a name has 1 to %d characters", NAME_MAX_SIZE);
    if (like_id)
        return fail_with(why, ERR_INVALID, "the name looks like a node's id; take another one");
    return OK;
}

static const char token_prefix[] = "SWMTKN-1-";

RESULT token_format(struct span root_pem, const struct secret *secret, char out[JOIN_TOKEN_TEXT]) {
    char digest[ROOT_DIGEST_TEXT];
    TRY(x509_digest(root_pem, digest));
    struct span text = secret_span(secret);
    int size =
        snprintf(out, JOIN_TOKEN_TEXT, "%s%s-%.*s", token_prefix, digest, (int)text.size, text.at);
    return size == JOIN_TOKEN_TEXT - 1 ? OK : ERR_INTERNAL;
}

static bool is_base36(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if ((text[i] < '0' || text[i] > '9') && (text[i] < 'a' || text[i] > 'z')) return false;
    return true;
}

RESULT token_parse(const char *text, char digest[ROOT_DIGEST_TEXT],
                   char secret[TOKEN_SECRET_SIZE + 1], struct why *why) {
    size_t prefix = sizeof token_prefix - 1, first = ROOT_DIGEST_TEXT - 1;
    if (strlen(text) != JOIN_TOKEN_TEXT - 1 || memcmp(text, token_prefix, prefix) != 0 ||
        !is_base36(text + prefix, first) || text[prefix + first] != '-' ||
        !is_base36(text + prefix + first + 1, TOKEN_SECRET_SIZE))
        return fail_with(
            why, ERR_INVALID,
            "not a join token: it looks like SWMTKN-1-<50 characters>-<25 characters>");
    memcpy(digest, text + prefix, first);
    digest[first] = 0;
    memcpy(secret, text + prefix + first + 1, TOKEN_SECRET_SIZE + 1);
    return OK;
}
