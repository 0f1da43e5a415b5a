/* Where a key encryption key comes from: an unlock key's text, a passphrase by Argon2id, or the
 * file `kek` beside the keyring. Called by keyring.c alone, but for the text form of unlock keys.
 *
 * The file `kek`, integers little-endian:
 *
 *   offset      size  what
 *   0           8     "CNCLVKEK"
 *   8           4     count of keys: 1, or 2 while a plain KEK is being replaced
 *   12          32*n  the keys, the newest first
 *   12 + 32*n   32    BLAKE2b-256 of all before
 *
 * Its keys are in clear: mode 0600 is all that guards them. */
#include "crypto/kek.h"

#include <stdlib.h>

#include <sodium.h>

#define UNLOCK_PREFIX      "SWMKEY-1-"
#define UNLOCK_PREFIX_SIZE (sizeof UNLOCK_PREFIX - 1)
#define BASE64             sodium_base64_VARIANT_ORIGINAL_NO_PADDING

#define FILE_NAME       "kek"
#define FILE_NEW        FILE_NAME ".new" /* what disk_write_file may leave behind */
#define FILE_MAGIC      "CNCLVKEK"
#define FILE_MAGIC_SIZE 8
#define FILE_HEAD       (FILE_MAGIC_SIZE + 4)
#define FILE_SUM        32
#define FILE_SIZE_MAX   (FILE_HEAD + KEK_FILE_KEYS * KEY_SIZE + FILE_SUM)

RESULT unlock_key_format(const struct secret *key, char out[UNLOCK_KEY_TEXT]) {
    struct span bytes = secret_span(key);
    if (bytes.size != KEY_SIZE) return ERR_INVALID;
    memcpy(out, UNLOCK_PREFIX, UNLOCK_PREFIX_SIZE);
    (void)sodium_bin2base64(out + UNLOCK_PREFIX_SIZE, UNLOCK_KEY_TEXT - UNLOCK_PREFIX_SIZE,
                            bytes.at, bytes.size, BASE64);
    return OK;
}

static enum err fill_base64(void *ctx, uint8_t *at, size_t size) {
    const char *const *text = ctx;
    size_t got;
    if (sodium_base642bin(at, size, *text, strlen(*text), NULL, &got, NULL, BASE64) != 0)
        return ERR_INVALID;
    return got == size ? OK : ERR_INVALID;
}

RESULT unlock_key_parse(const char *text, struct secret **out, struct why *why) {
    enum err e = ERR_INVALID;
    if (strnlen(text, UNLOCK_KEY_TEXT) == UNLOCK_KEY_TEXT - 1 &&
        memcmp(text, UNLOCK_PREFIX, UNLOCK_PREFIX_SIZE) == 0) {
        const char *rest = text + UNLOCK_PREFIX_SIZE;
        e = secret_fill(KEY_SIZE, fill_base64, &rest, out);
    }
    if (e != ERR_INVALID) return e;
    return fail_with(why, e, "not an unlock key: it is " UNLOCK_PREFIX " and 43 characters");
}

const char *kek_kind_text(enum kek_kind kind) {
    switch (kind) {
    case KEK_PLAIN: return "no key";
    case KEK_UNLOCK_KEY: return "an unlock key";
    case KEK_PASSPHRASE: return "a passphrase";
    case KEK_FILE: return "a key file";
    }
    return "a key of an unknown kind";
}

struct stretching {
    struct span passphrase;          /* 1..PASSPHRASE_MAX bytes */
    const struct kek_params *params; /* checked */
};

static enum err fill_stretched(void *ctx, uint8_t *at, size_t size) {
    const struct stretching *s = ctx;
    int bad = crypto_pwhash(at, size, (const char *)s->passphrase.at, s->passphrase.size,
                            s->params->salt, s->params->cost.passes,
                            (size_t)s->params->cost.memory_kib * KIB, crypto_pwhash_ALG_ARGON2ID13);
    return bad == 0 ? OK : ERR_NOMEM;
}

RESULT kek_derive(struct kek kek, const struct kek_params *params, struct secret **out,
                  struct why *why) {
    if (kek.key == NULL) return fail_with(why, ERR_INVALID, "a key is needed");
    struct span key = secret_span(kek.key);
    if (kek.kind != KEK_PASSPHRASE) {
        if (key.size != KEY_SIZE) return fail_with(why, ERR_INVALID, "the key is not of 32 bytes");
        return secret_copy(kek.key, out);
    }
    if (key.size > PASSPHRASE_MAX)
        return fail_with(why, ERR_INVALID, "the passphrase is longer than %d bytes",
                         PASSPHRASE_MAX);
    struct stretching s = {.passphrase = key, .params = params};
    enum err e = secret_fill(KEY_SIZE, fill_stretched, &s, out);
    if (e != ERR_NOMEM) return e;
    return fail_with(why, e, "passphrase: %u KiB of memory are needed", params->cost.memory_kib);
}

static enum err damaged(struct why *why, size_t at, const char *what) {
    return fail_with(why, ERR_CORRUPT, FILE_NAME ": damaged at byte %zu: %s", at, what);
}

static enum err file_decode(struct span file, struct kek_file *out, struct why *why) {
    uint8_t sum[FILE_SUM];
    if (file.size < FILE_HEAD + KEY_SIZE + FILE_SUM) return damaged(why, file.size, "too short");
    if (memcmp(file.at, FILE_MAGIC, FILE_MAGIC_SIZE) != 0) return damaged(why, 0, "not a kek file");
    uint32_t count = get_u32(file.at + FILE_MAGIC_SIZE);
    if (count < 1 || count > KEK_FILE_KEYS || file.size != FILE_HEAD + count * KEY_SIZE + FILE_SUM)
        return damaged(why, FILE_MAGIC_SIZE, "the count of keys does not fit the file");
    size_t body = file.size - FILE_SUM;
    (void)crypto_generichash(sum, sizeof sum, file.at, body, NULL, 0);
    if (memcmp(sum, file.at + body, sizeof sum) != 0)
        return damaged(why, FILE_HEAD, "the checksum does not match");
    for (uint32_t i = 0; i < count; i++)
        TRY(secret_new(file.at + FILE_HEAD + i * KEY_SIZE, KEY_SIZE, &out->keys[i]));
    return OK;
}

RESULT kek_file_read(struct disk *disk, struct kek_file *out, struct why *why) {
    struct buf file = buf_new(FILE_SIZE_MAX);
    *out = (struct kek_file){0};
    enum err e = disk_read_file(disk, FILE_NAME, &file, why);
    if (e == ERR_TOO_LARGE) e = damaged(why, FILE_SIZE_MAX, "too long");
    if (e == ERR_NOT_FOUND)
        e = fail_with(why, ERR_CORRUPT, FILE_NAME ": missing, and nothing else opens the keyring");
    if (e == OK) e = file_decode(buf_span(&file), out, why);
    if (e != OK) kek_file_free(out);
    buf_wipe(&file);
    return e;
}

static enum err file_encode(const struct secret *newest, const struct secret *older,
                            struct buf *out) {
    uint8_t sum[FILE_SUM];
    TRY(buf_reserve(out, FILE_SIZE_MAX)); /* no copy is left behind by growth */
    TRY(buf_add(out, FILE_MAGIC, FILE_MAGIC_SIZE));
    TRY(buf_u32(out, older == NULL ? 1 : 2));
    TRY(buf_add_span(out, secret_span(newest)));
    if (older != NULL) TRY(buf_add_span(out, secret_span(older)));
    (void)crypto_generichash(sum, sizeof sum, out->at, out->size, NULL, 0);
    return buf_add(out, sum, sizeof sum);
}

static enum err zero_out(struct file *f, struct why *why) {
    static const uint8_t zeros[FILE_SIZE_MAX];
    uint64_t size;
    TRY(f->disk->size(f, &size, why));
    if (size > sizeof zeros) size = sizeof zeros;
    if (size != 0) TRY(f->disk->write(f, 0, zeros, (size_t)size, why));
    return f->disk->sync(f, why);
}

/* What was there before is zeroed, as far as a file system lets that happen, once it is certain
 * that it is needed no more. */
RESULT kek_file_write(struct disk *disk, const struct secret *newest, const struct secret *older,
                      struct why *why) {
    struct buf file = buf_new(FILE_SIZE_MAX);
    struct file *before = NULL;
    struct why ignored = {0};
    if (disk->open(disk, FILE_NAME, DISK_WRITE, &before, &ignored) != OK) before = NULL;
    enum err e = file_encode(newest, older, &file);
    if (e == OK) e = disk_write_file(disk, FILE_NAME, buf_span(&file), why);
    if (e == OK && before != NULL) (void)!zero_out(before, &ignored);
    if (before != NULL) disk->close(before);
    buf_wipe(&file);
    return e;
}

/* Zeroing is best effort (a file system may write elsewhere); the name must go. */
static enum err wipe(struct disk *disk, const char *path, bool *any, struct why *why) {
    struct file *f;
    struct why said = {0};
    enum err e = disk->open(disk, path, DISK_WRITE, &f, &said);
    if (e == ERR_NOT_FOUND) return OK;
    if (e != OK) return fail_with(why, e, "%s", said.text);
    *any = true;
    (void)!zero_out(f, &said);
    disk->close(f);
    return disk->remove(disk, path, why);
}

RESULT kek_file_remove(struct disk *disk, struct why *why) {
    bool any = false;
    TRY(wipe(disk, FILE_NAME, &any, why));
    TRY(wipe(disk, FILE_NEW, &any, why));
    return any ? disk->sync_dir(disk, "", why) : OK;
}

void kek_file_free(struct kek_file *f) {
    for (size_t i = 0; i < KEK_FILE_KEYS; i++)
        secret_free(f->keys[i]);
    *f = (struct kek_file){0};
}
