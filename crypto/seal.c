/* The implementation of seal.h. XChaCha20-Poly1305 is one libsodium call a record. AES-256-GCM
 * keeps two OpenSSL contexts with the key schedule in them, one to seal and one to open, so that a
 * record costs only a new nonce. Both give ciphertext, then tag: a file doesn't tell them apart but
 * by its algorithm byte. */
#include "crypto/seal.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <openssl/evp.h>
#include <sodium.h>

#define XCHACHA_NONCE   24
#define GCM_NONCE       12
#define MEASURE_SIZE    4096 /* bytes of a record in the measurement */
#define MEASURE_RECORDS 64
#define MEASURE_ROUNDS  8

struct sealer {
    enum seal_alg alg;       /* what seals */
    struct secret *key;      /* XChaCha20 only; OpenSSL keeps its own copy */
    EVP_CIPHER_CTX *sealing; /* AES only */
    EVP_CIPHER_CTX *opening; /* AES only */
};

static atomic_bool null_allowed; /* the benchmark's switch */

static pthread_once_t gcm_once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *gcm; /* fetched once, under gcm_once; lives as long as the process */

static void gcm_fetch(void) { gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL); }

static enum err gcm_start(struct sealer *s, struct span key) {
    if (pthread_once(&gcm_once, gcm_fetch) != 0 || gcm == NULL) return ERR_NOMEM;
    s->sealing = EVP_CIPHER_CTX_new();
    s->opening = EVP_CIPHER_CTX_new();
    if (s->sealing == NULL || s->opening == NULL) return ERR_NOMEM;
    if (EVP_EncryptInit_ex2(s->sealing, gcm, key.at, NULL, NULL) != 1) return ERR_INTERNAL;
    if (EVP_DecryptInit_ex2(s->opening, gcm, key.at, NULL, NULL) != 1) return ERR_INTERNAL;
    return OK;
}

RESULT sealer_new(enum seal_alg alg, const struct secret *key, struct sealer **out) {
    struct span bytes = secret_span(key);
    if (bytes.size != KEY_SIZE) return ERR_INVALID;
    if ((unsigned)alg > UINT8_MAX || !seal_known((uint8_t)alg)) return ERR_UNSUPPORTED;
    struct sealer *s = calloc(1, sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    s->alg = alg;
    enum err e = OK;
    if (alg == SEAL_XCHACHA20) e = secret_copy(key, &s->key);
    if (alg == SEAL_AES256GCM) e = gcm_start(s, bytes);
    if (e != OK) {
        sealer_free(s);
        return e;
    }
    *out = s;
    return OK;
}

void sealer_free(struct sealer *s) {
    if (s == NULL) return;
    secret_free(s->key);
    EVP_CIPHER_CTX_free(s->sealing); /* OpenSSL wipes the key schedule */
    EVP_CIPHER_CTX_free(s->opening);
    free(s);
}

/* Update wants a pointer even for nothing, and counts in int. */
static bool gcm_ad(EVP_CIPHER_CTX *ctx, struct span ad) {
    int done;
    return ad.size == 0 || EVP_CipherUpdate(ctx, NULL, &done, ad.at, (int)ad.size) == 1;
}

static bool gcm_body(EVP_CIPHER_CTX *ctx, struct span in, uint8_t *out) {
    int done;
    return in.size == 0 || EVP_CipherUpdate(ctx, out, &done, in.at, (int)in.size) == 1;
}

static enum err gcm_seal(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, struct span ad,
                         struct span plain, uint8_t *out) {
    int done;
    bool fine = EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce, NULL) == 1 && gcm_ad(ctx, ad) &&
                gcm_body(ctx, plain, out) &&
                EVP_EncryptFinal_ex(ctx, out + plain.size, &done) == 1 &&
                EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG, out + plain.size) == 1;
    return fine ? OK : ERR_INTERNAL;
}

static enum err gcm_unseal(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, struct span ad,
                           struct span cipher, const uint8_t *tag, uint8_t *out) {
    int done;
    uint8_t
        expected[SEAL_TAG]; /* a copy: out may lie over the sealed bytes, and ctrl isn't const */
    uint8_t nothing[1];
    memcpy(expected, tag, sizeof expected);
    if (EVP_DecryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG, expected) != 1)
        return ERR_INTERNAL;
    if (!gcm_ad(ctx, ad) || !gcm_body(ctx, cipher, out)) return ERR_INTERNAL;
    return EVP_DecryptFinal_ex(ctx, nothing, &done) == 1 ? OK : ERR_CORRUPT;
}

static enum err null_seal(struct span plain, uint8_t *out) {
    if (plain.size != 0) memmove(out, plain.at, plain.size);
    static const uint8_t zeros[SEAL_TAG];
    memcpy(out + plain.size, zeros, SEAL_TAG);
    return OK;
}

static enum err null_unseal(struct span cipher, const uint8_t *tag, uint8_t *out) {
    if (!sodium_is_zero(tag, SEAL_TAG)) return ERR_CORRUPT;
    if (cipher.size != 0) memmove(out, cipher.at, cipher.size);
    return OK;
}

RESULT seal(struct sealer *s, uint64_t counter, struct span ad, struct span plain, uint8_t *out) {
    uint8_t nonce[XCHACHA_NONCE] = {0};
    put_u64(nonce, counter);
    if (plain.size > INT_MAX - SEAL_TAG || ad.size > INT_MAX) return ERR_TOO_LARGE;
    switch (s->alg) {
    case SEAL_NULL: return null_seal(plain, out);
    case SEAL_AES256GCM: return gcm_seal(s->sealing, nonce, ad, plain, out);
    case SEAL_XCHACHA20:
        (void)crypto_aead_xchacha20poly1305_ietf_encrypt(
            out, NULL, plain.at, plain.size, ad.at, ad.size, NULL, nonce, secret_span(s->key).at);
        return OK;
    }
    return ERR_INTERNAL;
}

RESULT unseal(struct sealer *s, uint64_t counter, struct span ad, struct span sealed,
              uint8_t *out) {
    uint8_t nonce[XCHACHA_NONCE] = {0};
    put_u64(nonce, counter);
    if (sealed.size < SEAL_TAG) return ERR_CORRUPT;
    if (sealed.size > INT_MAX || ad.size > INT_MAX) return ERR_TOO_LARGE;
    struct span cipher = span_of(sealed.at, sealed.size - SEAL_TAG);
    const uint8_t *tag = sealed.at + cipher.size;
    switch (s->alg) {
    case SEAL_NULL: return null_unseal(cipher, tag, out);
    case SEAL_AES256GCM: return gcm_unseal(s->opening, nonce, ad, cipher, tag, out);
    case SEAL_XCHACHA20:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed.at, sealed.size,
                                                          ad.at, ad.size, nonce,
                                                          secret_span(s->key).at) == 0
                   ? OK
                   : ERR_CORRUPT;
    }
    return ERR_INTERNAL;
}

static uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* The best of a few rounds: what else the machine does can only make a round slower. */
static uint64_t measure(enum seal_alg alg, const struct secret *key, uint8_t *record) {
    struct sealer *s;
    if (sealer_new(alg, key, &s) != OK) return UINT64_MAX;
    uint64_t best = UINT64_MAX;
    uint64_t counter = 0;
    for (int round = 0; round < MEASURE_ROUNDS; round++) {
        uint64_t from = now_ns();
        enum err e = OK;
        for (int i = 0; i < MEASURE_RECORDS && e == OK; i++)
            e = seal(s, counter++, span_of(NULL, 0), span_of(record, MEASURE_SIZE), record);
        uint64_t spent = now_ns() - from;
        if (e == OK && spent < best) best = spent;
    }
    sealer_free(s);
    return best;
}

static pthread_once_t fastest_once = PTHREAD_ONCE_INIT;
static enum seal_alg fastest = SEAL_XCHACHA20; /* written once, under fastest_once */

static void find_fastest(void) {
    struct secret *key;
    uint8_t *record = calloc(1, MEASURE_SIZE + SEAL_TAG);
    if (record == NULL) return;
    if (secret_random(KEY_SIZE, &key) == OK) {
        uint64_t chacha = measure(SEAL_XCHACHA20, key, record);
        if (measure(SEAL_AES256GCM, key, record) < chacha) fastest = SEAL_AES256GCM;
        secret_free(key);
    }
    free(record);
}

enum seal_alg seal_fastest(void) {
    (void)pthread_once(&fastest_once, find_fastest);
    return fastest;
}

void seal_allow_null(bool allowed) { atomic_store(&null_allowed, allowed); }

bool seal_known(uint8_t alg) {
    return alg == SEAL_XCHACHA20 || alg == SEAL_AES256GCM ||
           (alg == SEAL_NULL && atomic_load(&null_allowed));
}
