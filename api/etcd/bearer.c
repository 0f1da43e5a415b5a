/* See bearer.h. The table of last uses is set-associative: a token's nonce chooses a set, and the
 * use that lies longest back makes room. */
#include "api/etcd/bearer.h"

#include <stdlib.h>

#include <sodium.h>

#define VERSION     1
#define NONCE_SIZE  crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_SIZE    crypto_aead_xchacha20poly1305_ietf_ABYTES
#define PLAIN_FIXED (1 + 8 + AUTH_PROOF_SIZE)
#define PLAIN_MAX   (PLAIN_FIXED + USER_NAME_MAX)
#define RAW_MAX     (NONCE_SIZE + PLAIN_MAX + TAG_SIZE)
#define BASE64      sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define WAYS        8 /* tokens of a set */
#define SETS        (BEARERS_MAX / WAYS)

_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == AUTH_KEY_SIZE, "the key fits");
_Static_assert(RAW_MAX * 4 / 3 + 2 < BEARER_TEXT_MAX, "every token fits");

struct use {
    uint64_t nonce;  /* its first bytes; 0: free */
    uint64_t mono_s; /* when it was last used */
};

struct bearers {
    struct use sets[SETS][WAYS];
};

RESULT bearers_new(struct bearers **out) {
    *out = calloc(1, sizeof **out);
    return *out == NULL ? ERR_NOMEM : OK;
}

void bearers_free(struct bearers *b) { free(b); }

RESULT bearer_proof(const struct auth *a, struct span user, uint8_t proof[AUTH_PROOF_SIZE]) {
    struct span hash;
    crypto_generichash_state state;
    uint8_t size[8];
    if (!auth_enabled(a)) return ERR_AUTH_DISABLED;
    if (!auth_user(a, user, &hash) || hash.size == 0) return ERR_AUTH_FAILED;
    put_u64(size, user.size);
    (void)crypto_generichash_init(&state, auth_token_key(a), AUTH_KEY_SIZE, AUTH_PROOF_SIZE);
    (void)crypto_generichash_update(&state, size, sizeof size);
    (void)crypto_generichash_update(&state, user.at, user.size);
    (void)crypto_generichash_update(&state, hash.at, hash.size);
    (void)crypto_generichash_final(&state, proof, AUTH_PROOF_SIZE);
    return OK;
}

RESULT bearer_make(const struct auth *a, struct span user, int64_t wall_s,
                   char out[BEARER_TEXT_MAX]) {
    uint8_t plain[PLAIN_MAX], raw[RAW_MAX];
    if (user.size > USER_NAME_MAX) return ERR_AUTH_FAILED;
    plain[0] = VERSION;
    put_u64(plain + 1, (uint64_t)wall_s);
    TRY(bearer_proof(a, user, plain + 9));
    memcpy(plain + PLAIN_FIXED, user.at, user.size);
    randombytes_buf(raw, NONCE_SIZE);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(raw + NONCE_SIZE, NULL, plain,
                                                     PLAIN_FIXED + user.size, NULL, 0, NULL, raw,
                                                     auth_token_key(a));
    (void)sodium_bin2base64(out, BEARER_TEXT_MAX, raw,
                            NONCE_SIZE + PLAIN_FIXED + user.size + TAG_SIZE, BASE64);
    return OK;
}

/* The place of a token: its own, or the one that it may take. */
static struct use *find_use(struct bearers *b, uint64_t nonce) {
    struct use *set = b->sets[nonce % SETS], *best = &set[0];
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].nonce == nonce) return &set[i];
        if (set[i].mono_s < best->mono_s) best = &set[i];
    }
    return best;
}

static bool young(const struct use *u, uint64_t nonce, int64_t made_s,
                  const struct bearer_now *now) {
    if (u->nonce == nonce && now->mono_s - u->mono_s <= AUTH_TOKEN_S) return true;
    return made_s <= now->wall_s + BEARER_CLOCK_MAX_S && now->wall_s - made_s <= AUTH_TOKEN_S;
}

/* Seals are opened before anything in them is believed. */
static RESULT unseal(const struct auth *a, struct span text, uint64_t *nonce,
                     uint8_t plain[PLAIN_MAX], size_t *size) {
    uint8_t raw[RAW_MAX];
    size_t raw_size;
    unsigned long long plain_size;
    if (!auth_enabled(a) || text.size >= BEARER_TEXT_MAX) return ERR_AUTH_TOKEN;
    if (sodium_base642bin(raw, sizeof raw, (const char *)text.at, text.size, NULL, &raw_size, NULL,
                          BASE64) != 0)
        return ERR_AUTH_TOKEN;
    if (raw_size <= NONCE_SIZE + PLAIN_FIXED + TAG_SIZE) return ERR_AUTH_TOKEN;
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, &plain_size, NULL, raw + NONCE_SIZE,
                                                   raw_size - NONCE_SIZE, NULL, 0, raw,
                                                   auth_token_key(a)) != 0)
        return ERR_AUTH_TOKEN;
    *nonce = get_u64(raw) | 1; /* 0 is a free place */
    *size = (size_t)plain_size;
    return plain[0] == VERSION ? OK : ERR_AUTH_TOKEN;
}

RESULT bearer_open(const struct auth *a, struct bearers *b, struct span text,
                   const struct bearer_now *now, char user[USER_NAME_MAX + 1],
                   uint8_t proof[AUTH_PROOF_SIZE]) {
    uint8_t plain[PLAIN_MAX];
    uint64_t nonce;
    size_t size;
    TRY(unseal(a, text, &nonce, plain, &size));
    struct span name = span_of(plain + PLAIN_FIXED, size - PLAIN_FIXED);
    if (bearer_proof(a, name, proof) != OK) return ERR_AUTH_TOKEN;
    if (sodium_memcmp(proof, plain + 9, AUTH_PROOF_SIZE) != 0) return ERR_AUTH_TOKEN;
    struct use *u = find_use(b, nonce);
    if (!young(u, nonce, (int64_t)get_u64(plain + 1), now)) return ERR_AUTH_TOKEN;
    *u = (struct use){.nonce = nonce, .mono_s = now->mono_s};
    memcpy(user, name.at, name.size);
    user[name.size] = '\0';
    return OK;
}
