/* The escrow file, integers little-endian:
 *
 *   offset    size  what
 *   0         8     "CNCLVESC"
 *   8         1     version: 1
 *   9         3     zeros
 *   12        4     Argon2id: passes
 *   16        4     Argon2id: memory in KiB
 *   20        16    Argon2id: salt
 *   36        24    nonce, random
 *   60        4     n, the size of the body
 *   64        n     the body, sealed by XChaCha20-Poly1305; bytes 0..63 are its associated data...
 *   64 + n    16    ...and its tag
 *   80 + n    16    BLAKE2b-128 of all that is before
 *
 * The body: the keys as identity.h encodes them. The sum has no key: it tells damage (it does not
 * match) from a wrong passphrase (it matches, the body does not open), and guards nothing else. */
#include "api/secret/escrow.h"

#include <sodium.h>

#include "api/node/identity.h"

#define MAGIC        "CNCLVESC"
#define MAGIC_SIZE   8
#define VERSION      1
#define AT_PASSES    12
#define AT_MEMORY    16
#define AT_SALT      20
#define AT_NONCE     36
#define NONCE_SIZE   24
#define AT_BODY_SIZE 60
#define HEAD_SIZE    64
#define TAG_SIZE     16
#define SUM_SIZE     16

_Static_assert(NONCE_SIZE == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, "the format says so");
_Static_assert(TAG_SIZE == crypto_aead_xchacha20poly1305_ietf_ABYTES, "the format says so");

static void sum_of(const uint8_t *at, size_t size, uint8_t out[SUM_SIZE]) {
    (void)crypto_generichash(out, SUM_SIZE, at, size, NULL, 0);
}

static RESULT seal_file(struct span keys, const struct secret *kek, struct kek_params *params,
                        struct buf *out) {
    uint8_t file[HEAD_SIZE + VAULT_KEYS_SIZE + TAG_SIZE + SUM_SIZE] = MAGIC;
    unsigned long long size;
    file[MAGIC_SIZE] = VERSION;
    put_u32(file + AT_PASSES, params->cost.passes);
    put_u32(file + AT_MEMORY, params->cost.memory_kib);
    memcpy(file + AT_SALT, params->salt, KEK_SALT);
    random_bytes(file + AT_NONCE, NONCE_SIZE);
    put_u32(file + AT_BODY_SIZE, (uint32_t)keys.size);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(file + HEAD_SIZE, &size, keys.at, keys.size,
                                                     file, HEAD_SIZE, NULL, file + AT_NONCE,
                                                     secret_span(kek).at);
    sum_of(file, HEAD_SIZE + size, file + HEAD_SIZE + size);
    return buf_add(out, file, HEAD_SIZE + size + SUM_SIZE);
}

RESULT escrow_seal(struct span keys, const struct secret *passphrase, struct kek_cost cost,
                   struct buf *out, struct why *why) {
    struct kek_params params = {.kind = KEK_PASSPHRASE, .cost = cost};
    struct secret *kek = NULL;
    if (keys.size == 0 || keys.size > VAULT_KEYS_SIZE) return ERR_INVALID;
    random_bytes(params.salt, sizeof params.salt);
    TRY(kek_derive((struct kek){.kind = KEK_PASSPHRASE, .key = passphrase}, &params, &kek, why));
    enum err e = seal_file(keys, kek, &params, out);
    secret_free(kek);
    return e == OK ? OK : fail_with(why, e, "the escrow can't be written: %s", err_text(e));
}

static enum err damaged(struct why *why, const char *what) {
    return fail_with(why, ERR_CORRUPT, "the escrow file: %s", what);
}

RESULT escrow_decode(struct span file, struct escrow_outer *out, struct why *why) {
    static const uint8_t magic[MAGIC_SIZE] = MAGIC, zeros[3];
    uint8_t sum[SUM_SIZE];
    if (file.size < MAGIC_SIZE || memcmp(file.at, magic, MAGIC_SIZE) != 0)
        return damaged(why, "it is none");
    if (file.size < HEAD_SIZE + TAG_SIZE + SUM_SIZE || file.size > ESCROW_MAX)
        return damaged(why, "it is cut off, or too long");
    size_t summed = file.size - SUM_SIZE;
    sum_of(file.at, summed, sum);
    if (memcmp(sum, file.at + summed, SUM_SIZE) != 0) return damaged(why, "it is damaged");
    if (file.at[MAGIC_SIZE] != VERSION)
        return fail_with(why, ERR_UNSUPPORTED, "the escrow file: version %u is not known here",
                         file.at[MAGIC_SIZE]);
    struct kek_params p = {.kind = KEK_PASSPHRASE,
                           .cost = {.passes = get_u32(file.at + AT_PASSES),
                                    .memory_kib = get_u32(file.at + AT_MEMORY)}};
    memcpy(p.salt, file.at + AT_SALT, KEK_SALT);
    uint32_t body = get_u32(file.at + AT_BODY_SIZE);
    if (memcmp(file.at + MAGIC_SIZE + 1, zeros, sizeof zeros) != 0 || p.cost.passes < 1 ||
        p.cost.passes > KEK_COST_PASSES_MAX || p.cost.memory_kib < 8 ||
        p.cost.memory_kib > KEK_COST_MEMORY_MAX || body == 0 || body > VAULT_KEYS_SIZE ||
        summed != HEAD_SIZE + (size_t)body + TAG_SIZE)
        return damaged(why, "its head is out of bounds");
    *out = (struct escrow_outer){.params = p,
                                 .head = span_of(file.at, HEAD_SIZE),
                                 .nonce = span_of(file.at + AT_NONCE, NONCE_SIZE),
                                 .sealed = span_of(file.at + HEAD_SIZE, body + TAG_SIZE)};
    return OK;
}

struct opening {
    const struct escrow_outer *outer;
    const struct secret *kek;
};

static enum err decrypt(void *ctx, uint8_t *at, size_t size) {
    const struct opening *o = ctx;
    const struct escrow_outer *f = o->outer;
    unsigned long long got;
    int bad = crypto_aead_xchacha20poly1305_ietf_decrypt(at, &got, NULL, f->sealed.at,
                                                         f->sealed.size, f->head.at, f->head.size,
                                                         f->nonce.at, secret_span(o->kek).at);
    return bad == 0 && got == size ? OK : ERR_WRONG_KEY;
}

RESULT escrow_open(struct span file, const struct secret *passphrase, struct secret **keys,
                   struct why *why) {
    struct escrow_outer outer;
    struct secret *kek = NULL, *body = NULL;
    TRY(escrow_decode(file, &outer, why));
    TRY(kek_derive((struct kek){.kind = KEK_PASSPHRASE, .key = passphrase}, &outer.params, &kek,
                   why));
    struct opening o = {.outer = &outer, .kek = kek};
    enum err e = secret_fill(outer.sealed.size - TAG_SIZE, decrypt, &o, &body);
    secret_free(kek);
    if (e == ERR_WRONG_KEY)
        return fail_with(why, e, "the passphrase does not open the escrow file");
    if (e != OK) return fail_with(why, e, "the escrow file: %s", err_text(e));
    if (vault_keys_check(secret_span(body)) != OK) {
        secret_free(body);
        return damaged(why, "the keys in it are not understood");
    }
    *keys = body;
    return OK;
}
