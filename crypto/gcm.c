/* See gcm.h. A struct gcm has two contexts, so that opening does not disturb a sealing that has
 * begun. libipsec-mb's functions check no more than their pointers, and fail in no other way. */
#include "crypto/gcm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <openssl/evp.h>
#include <sodium.h>

#ifdef CONCLAVE_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

struct wide; /* what libipsec-mb needs */

struct gcm {
    struct wide *wide;      /* NULL: OpenSSL */
    EVP_CIPHER_CTX *ctx[2]; /* by enum gcm_way */
};

static atomic_bool openssl_forced;

void gcm_force_openssl(bool forced) { atomic_store(&openssl_forced, forced); }

/* --- libipsec-mb ------------------------------------------------------------------------------ */

#ifdef CONCLAVE_IPSEC_MB

#define WIDE_ALIGN 64

struct wide {
    struct gcm_key_data key;            /* the schedule; first: it wants to be aligned */
    struct gcm_context_data context[2]; /* by enum gcm_way */
};

static pthread_once_t wide_once = PTHREAD_ONCE_INIT;
static IMB_MGR *wide_code; /* functions for this processor; NULL: not worth it. Under wide_once */

static void wide_find(void) {
    const uint64_t needed = IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ | IMB_FEATURE_AVX512_SKX;
    IMB_MGR *m = alloc_mb_mgr(0);
    if (m == NULL) return;
    init_mb_mgr_auto(m, NULL);
    if ((m->features & needed) == needed)
        wide_code = m;
    else
        free_mb_mgr(m);
}

static bool wide_here(void) {
    return !atomic_load(&openssl_forced) && pthread_once(&wide_once, wide_find) == 0 &&
           wide_code != NULL;
}

/* Guarded memory ends at a page's end, so a multiple of the alignment is aligned. */
static RESULT wide_new(struct span key, struct wide **out) {
    size_t size = (sizeof **out + WIDE_ALIGN - 1) / WIDE_ALIGN * WIDE_ALIGN;
    *out = sodium_malloc(size);
    if (*out == NULL) return ERR_NOMEM;
    IMB_AES256_GCM_PRE(wide_code, key.at, &(*out)->key);
    return OK;
}

static void wide_free(struct wide *w) { sodium_free(w); }

static void wide_begin(struct wide *w, enum gcm_way way, const uint8_t *nonce, struct span ad) {
    static const uint8_t none[1];
    IMB_AES256_GCM_INIT(wide_code, &w->key, &w->context[way], nonce, ad.size == 0 ? none : ad.at,
                        ad.size);
}

static void wide_add(struct wide *w, enum gcm_way way, struct span in, uint8_t *out) {
    if (way == GCM_SEAL)
        IMB_AES256_GCM_ENC_UPDATE(wide_code, &w->key, &w->context[way], out, in.at, in.size);
    else
        IMB_AES256_GCM_DEC_UPDATE(wide_code, &w->key, &w->context[way], out, in.at, in.size);
}

static void wide_end(struct wide *w, enum gcm_way way, uint8_t tag[GCM_TAG]) {
    if (way == GCM_SEAL)
        IMB_AES256_GCM_ENC_FINALIZE(wide_code, &w->key, &w->context[way], tag, GCM_TAG);
    else
        IMB_AES256_GCM_DEC_FINALIZE(wide_code, &w->key, &w->context[way], tag, GCM_TAG);
}

#else

static bool wide_here(void) { return false; }

static RESULT wide_new(struct span key, struct wide **out) {
    (void)key;
    *out = NULL;
    return ERR_UNSUPPORTED;
}

static void wide_free(struct wide *w) { (void)w; }

static void wide_begin(struct wide *w, enum gcm_way way, const uint8_t *nonce, struct span ad) {
    (void)w;
    (void)way;
    (void)nonce;
    (void)ad;
}

static void wide_add(struct wide *w, enum gcm_way way, struct span in, uint8_t *out) {
    (void)w;
    (void)way;
    (void)in;
    (void)out;
}

static void wide_end(struct wide *w, enum gcm_way way, uint8_t tag[GCM_TAG]) {
    (void)w;
    (void)way;
    (void)tag;
}

#endif

const char *gcm_name(void) { return wide_here() ? "libipsec-mb" : "OpenSSL"; }

/* --- OpenSSL ---------------------------------------------------------------------------------- */

static pthread_once_t cipher_once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *cipher; /* fetched once, under cipher_once; lives as long as the process */

static void cipher_fetch(void) { cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL); }

static RESULT openssl_new(struct gcm *g, struct span key) {
    if (pthread_once(&cipher_once, cipher_fetch) != 0 || cipher == NULL) return ERR_NOMEM;
    for (int way = GCM_SEAL; way <= GCM_OPEN; way++) {
        g->ctx[way] = EVP_CIPHER_CTX_new();
        if (g->ctx[way] == NULL) return ERR_NOMEM;
        if (EVP_CipherInit_ex2(g->ctx[way], cipher, key.at, NULL, way == GCM_SEAL, NULL) != 1)
            return ERR_INTERNAL;
    }
    return OK;
}

/* Update wants a pointer even for nothing, and counts in int. */
static bool update(EVP_CIPHER_CTX *ctx, struct span in, uint8_t *out) {
    int done;
    return in.size == 0 || EVP_CipherUpdate(ctx, out, &done, in.at, (int)in.size) == 1;
}

/* --- both ------------------------------------------------------------------------------------- */

RESULT gcm_new(struct span key, struct gcm **out) {
    struct gcm *g = calloc(1, sizeof *g);
    if (g == NULL) return ERR_NOMEM;
    enum err e = wide_here() ? wide_new(key, &g->wide) : openssl_new(g, key);
    if (e != OK) {
        gcm_free(g);
        return e;
    }
    *out = g;
    return OK;
}

void gcm_free(struct gcm *g) {
    if (g == NULL) return;
    wide_free(g->wide);
    EVP_CIPHER_CTX_free(g->ctx[GCM_SEAL]); /* OpenSSL wipes the key schedule */
    EVP_CIPHER_CTX_free(g->ctx[GCM_OPEN]);
    free(g);
}

RESULT gcm_begin(struct gcm *g, enum gcm_way way, const uint8_t nonce[GCM_NONCE], struct span ad) {
    if (ad.size > GCM_SIZE_MAX) return ERR_INTERNAL;
    if (g->wide != NULL) {
        wide_begin(g->wide, way, nonce, ad);
        return OK;
    }
    EVP_CIPHER_CTX *ctx = g->ctx[way];
    bool fine = EVP_CipherInit_ex2(ctx, NULL, NULL, nonce, way == GCM_SEAL, NULL) == 1;
    return fine && update(ctx, ad, NULL) ? OK : ERR_INTERNAL;
}

RESULT gcm_add(struct gcm *g, enum gcm_way way, struct span in, uint8_t *out) {
    if (in.size > GCM_SIZE_MAX) return ERR_INTERNAL;
    if (g->wide == NULL) return update(g->ctx[way], in, out) ? OK : ERR_INTERNAL;
    if (in.size > 0) wide_add(g->wide, way, in, out);
    return OK;
}

RESULT gcm_end(struct gcm *g, uint8_t tag[GCM_TAG]) {
    EVP_CIPHER_CTX *ctx = g->ctx[GCM_SEAL];
    int done;
    if (g->wide != NULL) {
        wide_end(g->wide, GCM_SEAL, tag);
        return OK;
    }
    bool fine = EVP_EncryptFinal_ex(ctx, tag, &done) == 1 &&
                EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, GCM_TAG, tag) == 1;
    return fine ? OK : ERR_INTERNAL;
}

RESULT gcm_check(struct gcm *g, const uint8_t tag[GCM_TAG]) {
    EVP_CIPHER_CTX *ctx = g->ctx[GCM_OPEN];
    uint8_t own[GCM_TAG], nothing[1];
    int done;
    if (g->wide != NULL) {
        wide_end(g->wide, GCM_OPEN, own);
        return sodium_memcmp(own, tag, GCM_TAG) == 0 ? OK : ERR_CORRUPT;
    }
    memcpy(own, tag, GCM_TAG); /* ctrl isn't const */
    if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, GCM_TAG, own) != 1) return ERR_INTERNAL;
    return EVP_DecryptFinal_ex(ctx, nothing, &done) == 1 ? OK : ERR_CORRUPT;
}
