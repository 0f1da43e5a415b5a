/* Any text as a token, and any bytes behind the seal of a good key: nobody gets in by them, and
 * nothing is read past its end. */
#include <stdlib.h>

#include <sodium.h>

#include "api/etcd/bearer.h"
#include "crypto/secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void change(struct auth *a, struct auth_change c) {
    enum err outcome;
    require(auth_apply(a, &c, &outcome) == OK && outcome == OK);
}

static struct auth *enabled(const uint8_t key[AUTH_KEY_SIZE]) {
    struct auth *a;
    struct span root = span_str("root");
    require(auth_new(&a) == OK);
    change(a, (struct auth_change){.op = AUTH_USER_ADD, .user = root, .password_hash = root});
    change(a, (struct auth_change){.op = AUTH_USER_GRANT, .user = root, .role = root});
    change(a, (struct auth_change){.op = AUTH_ENABLE, .token_key = span_of(key, AUTH_KEY_SIZE)});
    return a;
}

static enum err try_text(const struct auth *a, struct bearers *b, struct span text) {
    const struct bearer_now now = {.wall_s = 1000, .mono_s = 1000};
    char user[USER_NAME_MAX + 1];
    uint8_t proof[AUTH_PROOF_SIZE];
    return bearer_open(a, b, text, &now, user, proof);
}

/* Sealed with the right key, as only another member could have done it. */
static void sealed(const struct auth *a, struct bearers *b, const uint8_t *key, struct span plain) {
    uint8_t raw[256] = {0};
    char text[512];
    unsigned long long size;
    if (plain.size > 128) plain.size = 128;
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(raw + 24, &size, plain.at, plain.size, NULL, 0,
                                                     NULL, raw, key);
    (void)sodium_bin2base64(text, sizeof text, raw, 24 + (size_t)size,
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    require(try_text(a, b, span_str(text)) == ERR_AUTH_TOKEN); /* it can't know the proof */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t key[AUTH_KEY_SIZE] = {1};
    static struct bearers *b; /* 256 KiB: made once */
    if (crypto_start(NULL) != OK) return 0;
    if (b == NULL) require(bearers_new(&b) == OK);
    struct auth *a = enabled(key);
    require(try_text(a, b, span_of(data, size)) == ERR_AUTH_TOKEN);
    sealed(a, b, key, span_of(data, size));
    auth_free(a);
    return 0;
}
