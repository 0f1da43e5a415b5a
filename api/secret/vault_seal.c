/* Values sealed and opened (formats: store/held.h). Each value has a data key of its own, random,
 * which is wrapped by the cluster key of an epoch; wrapping it anew under another epoch leaves the
 * value as it is. Nonces are random: 24 bytes, too many to meet twice. The associated data names
 * the value's row, its owner and version (and, of the wrapped key, the epoch), so that neither can
 * be moved to another's place. Ids are padded to NODE_ID_SIZE with zeros. */
#include "api/secret/vault_parts.h"

#include <assert.h>

#define NONCE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG   crypto_aead_xchacha20poly1305_ietf_ABYTES

static const char purpose[] = "conclave value"; /* with its zero */

_Static_assert(NONCE + KEY_SIZE + TAG == WRAPPED_SIZE, "held.h says so");
_Static_assert(NONCE + TAG == SEALED_OVERHEAD, "held.h says so");

struct value_ad {
    uint8_t bytes[sizeof purpose + 2 * NODE_ID_SIZE + 8];
    size_t size;
};

static void put_id(uint8_t *at, const char *id) {
    memset(at, 0, NODE_ID_SIZE);
    memcpy(at, id, strnlen(id, NODE_ID_SIZE));
}

/* Epoch 0: of the value itself. */
static struct value_ad ad_of(const char *value_id, const struct value_row *v, uint32_t epoch) {
    struct value_ad ad = {.size = sizeof purpose + 2 * NODE_ID_SIZE + 4};
    memcpy(ad.bytes, purpose, sizeof purpose);
    put_id(ad.bytes + sizeof purpose, value_id);
    put_id(ad.bytes + sizeof purpose + NODE_ID_SIZE, v->held_id);
    put_u32(ad.bytes + ad.size - 4, v->version);
    if (epoch == 0) return ad;
    put_u32(ad.bytes + ad.size, epoch);
    ad.size += 4;
    return ad;
}

static void encrypt(struct span key, const struct value_ad *ad, struct span plain, uint8_t *out) {
    unsigned long long size;
    randombytes_buf(out, NONCE);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(out + NONCE, &size, plain.at, plain.size,
                                                     ad->bytes, ad->size, NULL, out, key.at);
    assert(size == plain.size + TAG);
}

struct opening {
    struct span key, sealed;
    const struct value_ad *ad;
};

static enum err decrypt(void *ctx, uint8_t *at, size_t size) {
    const struct opening *o = ctx;
    unsigned long long got;
    int bad = crypto_aead_xchacha20poly1305_ietf_decrypt(at, &got, NULL, o->sealed.at + NONCE,
                                                         o->sealed.size - NONCE, o->ad->bytes,
                                                         o->ad->size, o->sealed.at, o->key.at);
    return bad == 0 && got == size ? OK : ERR_CORRUPT;
}

static RESULT open_sealed(struct span key, const struct value_ad *ad, struct span sealed,
                          struct secret **out) {
    struct opening o = {.key = key, .sealed = sealed, .ad = ad};
    if (sealed.size <= SEALED_OVERHEAD) return ERR_CORRUPT;
    return secret_fill(sealed.size - SEALED_OVERHEAD, decrypt, &o, out);
}

RESULT vault_wrap(const struct vault_key *key, const char *value_id, const struct value_row *v,
                  struct span data_key, uint8_t out[WRAPPED_SIZE]) {
    struct value_ad ad = ad_of(value_id, v, key->epoch);
    if (data_key.size != KEY_SIZE) return ERR_INVALID;
    encrypt(secret_span(key->key), &ad, data_key, out);
    return OK;
}

RESULT vault_unwrap(const struct vault_key *key, const char *value_id, const struct value_row *v,
                    struct secret **out) {
    struct value_ad ad = ad_of(value_id, v, key->epoch);
    return open_sealed(secret_span(key->key), &ad, span_of(v->wrapped, sizeof v->wrapped), out);
}

RESULT vault_seal(const struct manager *m, const char *value_id, struct span value,
                  struct value_row *v, struct buf *sealed, struct why *why) {
    struct row row;
    struct vault_row state;
    struct secret *data_key = NULL;
    TRY(vault_ready(m, why));
    (void)vault_row_get(m->store, &row, &state);
    const struct vault_key *key = vault_held(m, &state, state.current);
    struct value_ad ad = ad_of(value_id, v, 0);
    size_t at = sealed->size, size = value.size + SEALED_OVERHEAD;
    enum err e = buf_reserve(sealed, size);
    if (e == OK) e = secret_random(KEY_SIZE, &data_key);
    if (e == OK) e = vault_wrap(key, value_id, v, secret_span(data_key), v->wrapped);
    if (e == OK) {
        encrypt(secret_span(data_key), &ad, value, sealed->at + at);
        sealed->size += size;
        v->epoch = key->epoch;
        v->sealed = span_of(sealed->at + at, size);
    }
    secret_free(data_key);
    return e == OK ? OK : fail_with(why, e, "the value can't be sealed: %s", err_text(e));
}

RESULT vault_unseal(const struct manager *m, const char *value_id, const struct value_row *v,
                    struct secret **out, struct why *why) {
    const struct vault_key *key = vault_key_of(&m->self, v->epoch);
    struct secret *data_key = NULL;
    struct value_ad ad = ad_of(value_id, v, 0);
    if (!key)
        return fail_with(why, ERR_PRECONDITION,
                         "the value is sealed under the cluster key of epoch %u, which this "
                         "manager does not hold%s",
                         v->epoch, m->vault && m->vault->lost ? ": import its escrow" : " yet");
    enum err e = vault_unwrap(key, value_id, v, &data_key);
    if (e == OK) e = open_sealed(secret_span(data_key), &ad, v->sealed, out);
    secret_free(data_key);
    if (e == ERR_CORRUPT) return fail_with(why, e, "the sealed value was altered");
    return e == OK ? OK : fail_with(why, e, "the value can't be opened: %s", err_text(e));
}
