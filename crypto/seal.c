/* The implementation of seal.h. XChaCha20-Poly1305 is one libsodium call a record, AES-256-GCM is
 * gcm.h's. Both give ciphertext, then tag: a file doesn't tell them apart but by its algorithm
 * byte. */
#include "crypto/seal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <sodium.h>

#include "crypto/gcm.h"

#define XCHACHA_NONCE   24
#define MEASURE_SIZE    4096 /* bytes of a record in the measurement */
#define MEASURE_RECORDS 64
#define MEASURE_ROUNDS  8

struct sealer {
    enum seal_alg alg;  /* what seals */
    struct secret *key; /* XChaCha20 only */
    struct gcm *gcm;    /* AES only; it has a copy of the key */
};

static atomic_bool null_allowed; /* the benchmark's switch */

RESULT sealer_new(enum seal_alg alg, const struct secret *key, struct sealer **out) {
    struct span bytes = secret_span(key);
    if (bytes.size != KEY_SIZE) return ERR_INVALID;
    if ((unsigned)alg > UINT8_MAX || !seal_known((uint8_t)alg)) return ERR_UNSUPPORTED;
    struct sealer *s = calloc(1, sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    s->alg = alg;
    enum err e = OK;
    if (alg == SEAL_XCHACHA20) e = secret_copy(key, &s->key);
    if (alg == SEAL_AES256GCM) e = gcm_new(bytes, &s->gcm);
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
    gcm_free(s->gcm);
    free(s);
}

static RESULT gcm_seal(struct gcm *g, const uint8_t *nonce, struct span ad, struct span plain,
                       uint8_t *out) {
    TRY(gcm_begin(g, GCM_SEAL, nonce, ad));
    TRY(gcm_add(g, GCM_SEAL, plain, out));
    return gcm_end(g, out + plain.size);
}

/* The tag is copied first: `out` may lie over the sealed bytes. */
static RESULT gcm_unseal(struct gcm *g, const uint8_t *nonce, struct span ad, struct span cipher,
                         const uint8_t *tag, uint8_t *out) {
    uint8_t expected[GCM_TAG];
    memcpy(expected, tag, sizeof expected);
    TRY(gcm_begin(g, GCM_OPEN, nonce, ad));
    TRY(gcm_add(g, GCM_OPEN, cipher, out));
    return gcm_check(g, expected);
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
    if (plain.size > GCM_SIZE_MAX - SEAL_TAG || ad.size > GCM_SIZE_MAX) return ERR_TOO_LARGE;
    switch (s->alg) {
    case SEAL_NULL: return null_seal(plain, out);
    case SEAL_AES256GCM: return gcm_seal(s->gcm, nonce, ad, plain, out);
    case SEAL_XCHACHA20:
        (void)crypto_aead_xchacha20poly1305_ietf_encrypt(
            out, NULL, plain.at, plain.size, ad.at, ad.size, NULL, nonce, secret_span(s->key).at);
        return OK;
    }
    return ERR_INTERNAL;
}

RESULT seal_begin(struct sealing *g, struct sealer *s, uint64_t counter, struct span ad,
                  uint8_t *out) {
    uint8_t nonce[GCM_NONCE] = {0};
    if (ad.size > GCM_SIZE_MAX) return ERR_TOO_LARGE;
    *g = (struct sealing){.sealer = s, .out = out, .at = out, .counter = counter, .ad = ad};
    if (s->alg != SEAL_AES256GCM) return OK;
    put_u64(nonce, counter);
    return gcm_begin(s->gcm, GCM_SEAL, nonce, ad);
}

RESULT seal_add(struct sealing *g, struct span piece) {
    size_t before = (size_t)(g->at - g->out);
    if (piece.size > GCM_SIZE_MAX - SEAL_TAG - before) return ERR_TOO_LARGE;
    uint8_t *place = g->at;
    g->at += piece.size;
    if (g->sealer->alg == SEAL_AES256GCM) return gcm_add(g->sealer->gcm, GCM_SEAL, piece, place);
    if (piece.size != 0 && piece.at != place) memcpy(place, piece.at, piece.size);
    return OK;
}

RESULT seal_end(struct sealing *g) {
    if (g->sealer->alg == SEAL_AES256GCM) return gcm_end(g->sealer->gcm, g->at);
    return seal(g->sealer, g->counter, g->ad, span_of(g->out, (size_t)(g->at - g->out)), g->out);
}

RESULT unseal(struct sealer *s, uint64_t counter, struct span ad, struct span sealed,
              uint8_t *out) {
    uint8_t nonce[XCHACHA_NONCE] = {0};
    put_u64(nonce, counter);
    if (sealed.size < SEAL_TAG) return ERR_CORRUPT;
    if (sealed.size > GCM_SIZE_MAX || ad.size > GCM_SIZE_MAX) return ERR_TOO_LARGE;
    struct span cipher = span_of(sealed.at, sealed.size - SEAL_TAG);
    const uint8_t *tag = sealed.at + cipher.size;
    switch (s->alg) {
    case SEAL_NULL: return null_unseal(cipher, tag, out);
    case SEAL_AES256GCM: return gcm_unseal(s->gcm, nonce, ad, cipher, tag, out);
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
