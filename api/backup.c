/* See backup.h. Writing: state bytes gather to a chunk, are compressed when that helps, sealed in
 * place and written. Reading goes record by record through buffers of fixed size. */
#include "api/backup.h"

#include <errno.h>
#include <lz4.h>
#include <sodium.h>
#include <stdlib.h>

#include "crypto/seal.h"

#define HEADER_SIZE   32
#define FRAME_SIZE    8
#define SEALED_MAX    (BACKUP_CHUNK + SEAL_TAG)
#define WORD_SIZE     0x00ffffffU
#define WORD_LZ4      0x40000000U
#define WORD_LAST     0x80000000U
#define HEAD_BYTES    (4 + 8 + STATE_HASH_SIZE + 8 + 8)
#define BACKUP_FORMAT 1

static const uint8_t magic[8] = {'C', 'C', 'L', 'B', 'A', 'K', '0', '1'};
static const char key_prefix[] = "CCLBAK-1-";

/* --- the key's text ------------------------------------------------------------------------- */

RESULT backup_key_format(const struct secret *key, char out[BACKUP_KEY_TEXT]) {
    struct span bytes = secret_span(key);
    if (bytes.size != KEY_SIZE) return ERR_INVALID;
    size_t prefix = sizeof key_prefix - 1;
    memcpy(out, key_prefix, prefix);
    (void)sodium_bin2base64(out + prefix, BACKUP_KEY_TEXT - prefix, bytes.at, bytes.size,
                            sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
    return OK;
}

RESULT backup_key_parse(const char *text, struct secret **out, struct why *why) {
    uint8_t key[KEY_SIZE];
    size_t size = 0, prefix = sizeof key_prefix - 1;
    bool good = strncmp(text, key_prefix, prefix) == 0 &&
                sodium_base642bin(key, sizeof key, text + prefix, strlen(text + prefix), NULL,
                                  &size, NULL, sodium_base64_VARIANT_ORIGINAL_NO_PADDING) == 0 &&
                size == KEY_SIZE;
    enum err e = good ? secret_new(key, sizeof key, out)
                      : fail_with(why, ERR_INVALID,
                                  "not a backup's key: it looks like CCLBAK-1-<43 characters>");
    sodium_memzero(key, sizeof key);
    return e;
}

RESULT backup_cluster_key(const struct cluster *c, struct secret **out) {
    if (!c->join_key) return ERR_BUSY;
    return secret_derive(c->join_key, "cluster's backups", span_of(NULL, 0), out);
}

/* --- sealing -------------------------------------------------------------------------------- */

/* What both directions have. */
struct records {
    FILE *file;
    struct sealer *sealer;
    uint64_t number;                          /* of the next record */
    uint8_t ad[HEADER_SIZE + 8 + FRAME_SIZE]; /* header, number, frame */
};

static RESULT start_sealer(struct records *r, const struct secret *key) {
    struct secret *derived = NULL;
    enum err e = secret_derive(key, "backup", span_of(r->ad + 16, 16), &derived);
    if (e == OK) e = sealer_new((enum seal_alg)r->ad[8], derived, &r->sealer);
    secret_free(derived);
    return e;
}

static struct span bind(struct records *r, uint32_t word, uint32_t raw_size) {
    put_u64(r->ad + HEADER_SIZE, r->number);
    put_u32(r->ad + HEADER_SIZE + 8, word);
    put_u32(r->ad + HEADER_SIZE + 12, raw_size);
    return span_of(r->ad, sizeof r->ad);
}

/* --- writing -------------------------------------------------------------------------------- */

struct backup_writer {
    struct records records;
    uint64_t bytes;               /* of the state, so far */
    size_t have;                  /* in chunk */
    uint8_t chunk[BACKUP_CHUNK];  /* gathers */
    uint8_t packed[BACKUP_CHUNK]; /* compressed */
    uint8_t sealed[SEALED_MAX];
};

static RESULT put_bytes(FILE *f, const void *at, size_t size, struct why *why) {
    if (fwrite(at, 1, size, f) == size) return OK;
    return fail_with(why, err_from_errno(errno), "the backup can't be written: %s",
                     strerror(errno));
}

static RESULT write_record(struct backup_writer *w, struct span raw, uint32_t flags,
                           struct why *why) {
    struct span plain = raw;
    int packed = raw.size > 64 ? LZ4_compress_default((const char *)raw.at, (char *)w->packed,
                                                      (int)raw.size, (int)raw.size - 1)
                               : 0;
    if (packed > 0) {
        plain = span_of(w->packed, (size_t)packed);
        flags |= WORD_LZ4;
    }
    uint32_t word = (uint32_t)(plain.size + SEAL_TAG) | flags;
    struct span ad = bind(&w->records, word, (uint32_t)raw.size);
    TRY(seal(w->records.sealer, w->records.number, ad, plain, w->sealed));
    w->records.number++;
    TRY(put_bytes(w->records.file, w->records.ad + HEADER_SIZE + 8, FRAME_SIZE, why));
    return put_bytes(w->records.file, w->sealed, plain.size + SEAL_TAG, why);
}

static RESULT write_head(struct backup_writer *w, const struct backup_head *head, struct why *why) {
    struct buf out = buf_new(HEAD_BYTES);
    TRY(put_bytes(w->records.file, w->records.ad, HEADER_SIZE, why));
    enum err e = buf_u32(&out, BACKUP_FORMAT);
    if (e == OK) e = buf_u64(&out, (uint64_t)head->time_s);
    if (e == OK) e = buf_add(&out, head->hash, sizeof head->hash);
    if (e == OK) e = buf_u64(&out, head->revision);
    if (e == OK) e = buf_u64(&out, head->index);
    if (e == OK) e = write_record(w, buf_span(&out), 0, why);
    buf_free(&out);
    return e;
}

RESULT backup_create(FILE *file, const struct secret *key, const struct backup_head *head,
                     struct backup_writer **out, struct why *why) {
    struct backup_writer *w = calloc(1, sizeof *w);
    if (!w) return fail_with(why, ERR_NOMEM, "no memory for the backup");
    w->records.file = file;
    memcpy(w->records.ad, magic, sizeof magic);
    w->records.ad[8] = (uint8_t)seal_fastest();
    random_bytes(w->records.ad + 16, 16);
    enum err e = start_sealer(&w->records, key);
    if (e == OK) e = write_head(w, head, why);
    if (e != OK)
        backup_writer_free(w);
    else
        *out = w;
    return e;
}

RESULT backup_write(struct backup_writer *w, struct span state, struct why *why) {
    while (state.size > 0) {
        size_t room = BACKUP_CHUNK - w->have, size = state.size < room ? state.size : room;
        memcpy(w->chunk + w->have, state.at, size);
        w->have += size;
        w->bytes += size;
        state = span_of(state.at + size, state.size - size);
        if (w->have < BACKUP_CHUNK) continue;
        TRY(write_record(w, span_of(w->chunk, w->have), 0, why));
        w->have = 0;
    }
    return OK;
}

RESULT backup_finish(struct backup_writer *w, uint64_t *state_bytes, struct why *why) {
    if (w->have > 0) TRY(write_record(w, span_of(w->chunk, w->have), 0, why));
    w->have = 0;
    uint8_t end[16];
    put_u64(end, w->records.number);
    put_u64(end + 8, w->bytes);
    *state_bytes = w->bytes;
    return write_record(w, span_of(end, sizeof end), WORD_LAST, why);
}

void backup_writer_free(struct backup_writer *w) {
    if (!w) return;
    if (w->records.sealer) sealer_free(w->records.sealer);
    sodium_memzero(w, sizeof *w);
    free(w);
}

/* --- reading -------------------------------------------------------------------------------- */

struct reader {
    struct records records;
    const char *name;             /* of the file, for errors */
    uint64_t at;                  /* bytes read */
    crypto_hash_sha256_state sum; /* of them */
    uint64_t bytes;               /* of the state */
    uint8_t sealed[SEALED_MAX];
    uint8_t plain[BACKUP_CHUNK];
    uint8_t raw[BACKUP_CHUNK];
};

static RESULT get_bytes(struct reader *r, void *at, size_t size, struct why *why) {
    size_t got = fread(at, 1, size, r->records.file);
    r->at += got;
    (void)crypto_hash_sha256_update(&r->sum, at, got);
    if (got == size) return OK;
    if (ferror(r->records.file)) return fail_with(why, ERR_IO, "%s: %s", r->name, strerror(errno));
    return fail_with(why, ERR_CORRUPT, "%s: it ends at byte %llu, within a record", r->name,
                     (unsigned long long)r->at);
}

static RESULT damaged(const struct reader *r, uint64_t at, struct why *why) {
    return fail_with(why, ERR_CORRUPT, "%s: record %llu at byte %llu is damaged", r->name,
                     (unsigned long long)r->records.number, (unsigned long long)at);
}

/* The next record, opened; *out points into the reader. */
static RESULT read_record(struct reader *r, struct span *out, bool *last, struct why *why) {
    uint64_t at = r->at;
    uint8_t frame[FRAME_SIZE];
    TRY(get_bytes(r, frame, sizeof frame, why));
    uint32_t word = get_u32(frame), raw_size = get_u32(frame + 4);
    size_t sealed = word & WORD_SIZE;
    bool packed = (word & WORD_LZ4) != 0;
    if ((word & ~(WORD_SIZE | WORD_LZ4 | WORD_LAST)) != 0 || sealed < SEAL_TAG ||
        sealed > SEALED_MAX || raw_size > BACKUP_CHUNK)
        return damaged(r, at, why);
    TRY(get_bytes(r, r->sealed, sealed, why));
    struct span ad = bind(&r->records, word, raw_size);
    if (unseal(r->records.sealer, r->records.number, ad, span_of(r->sealed, sealed), r->plain) !=
        OK)
        return damaged(r, at, why);
    size_t size = sealed - SEAL_TAG;
    if (packed && LZ4_decompress_safe((const char *)r->plain, (char *)r->raw, (int)size,
                                      (int)raw_size) != (int)raw_size)
        return damaged(r, at, why);
    if (!packed && size != raw_size) return damaged(r, at, why);
    *out = span_of(packed ? r->raw : r->plain, raw_size);
    *last = (word & WORD_LAST) != 0;
    r->records.number++;
    return OK;
}

static RESULT read_head(struct reader *r, struct backup_head *head, struct why *why) {
    struct span record;
    uint32_t format;
    uint64_t time_s;
    bool last;
    enum err e = read_record(r, &record, &last, why);
    if (e == ERR_CORRUPT && r->at > HEADER_SIZE + FRAME_SIZE)
        return fail_with(why, ERR_WRONG_KEY,
                         "%s: this key does not open it, or its beginning is damaged", r->name);
    TRY(e);
    struct cursor c = cursor_of(record);
    if (cursor_u32(&c, &format) != OK || format != BACKUP_FORMAT)
        return fail_with(why, ERR_UNSUPPORTED, "%s: a backup of a later version", r->name);
    TRY(cursor_u64(&c, &time_s));
    head->time_s = (int64_t)time_s;
    TRY(cursor_copy(&c, head->hash, sizeof head->hash));
    TRY(cursor_u64(&c, &head->revision));
    TRY(cursor_u64(&c, &head->index));
    return last ? damaged(r, HEADER_SIZE, why) : cursor_end(&c);
}

/* What an etcd client has put behind it. */
static bool good_trailer(struct reader *r) {
    uint8_t zeros[BACKUP_PADDING] = {0}, padding[BACKUP_PADDING];
    uint8_t sum[crypto_hash_sha256_BYTES], found[crypto_hash_sha256_BYTES];
    size_t size = (BACKUP_PADDING - r->at % BACKUP_PADDING) % BACKUP_PADDING;
    if (get_bytes(r, padding, size, NULL) != OK || memcmp(padding, zeros, size) != 0) return false;
    (void)crypto_hash_sha256_final(&r->sum, sum);
    return fread(found, 1, sizeof found, r->records.file) == sizeof found &&
           memcmp(sum, found, sizeof sum) == 0 && fgetc(r->records.file) == EOF;
}

static bool at_end(struct reader *r) {
    int next = fgetc(r->records.file);
    return next == EOF || (ungetc(next, r->records.file) == next && good_trailer(r));
}

static RESULT read_end(struct reader *r, struct span record, struct why *why) {
    bool good = record.size == 16 && get_u64(record.at) == r->records.number - 1 &&
                get_u64(record.at + 8) == r->bytes && at_end(r);
    return good ? OK : fail_with(why, ERR_CORRUPT, "%s: its end does not fit its records", r->name);
}

static RESULT read_all(struct reader *r, const struct secret *key, struct backup_head *head,
                       enum err (*each)(void *ctx, struct span state), void *ctx, struct why *why) {
    TRY(get_bytes(r, r->records.ad, HEADER_SIZE, why));
    static const uint8_t zeros[7] = {0};
    if (memcmp(r->records.ad, magic, sizeof magic) != 0)
        return fail_with(why, ERR_INVALID, "%s: not a backup of conclave", r->name);
    uint8_t alg = r->records.ad[8];
    if (!seal_known(alg) || alg == SEAL_NULL || memcmp(r->records.ad + 9, zeros, 7) != 0)
        return fail_with(why, ERR_CORRUPT, "%s: its header is damaged", r->name);
    TRY(start_sealer(&r->records, key));
    TRY(read_head(r, head, why));
    for (;;) {
        struct span record;
        bool last;
        TRY(read_record(r, &record, &last, why));
        if (last) return read_end(r, record, why);
        r->bytes += record.size;
        enum err e = each(ctx, record);
        if (e != OK) return fail_with(why, e, "%s: the state in it is not understood", r->name);
    }
}

RESULT backup_read(FILE *file, const char *name, const struct secret *key, struct backup_head *head,
                   enum err (*each)(void *ctx, struct span state), void *ctx, struct why *why) {
    struct reader *r = calloc(1, sizeof *r);
    if (!r) return fail_with(why, ERR_NOMEM, "no memory for the backup");
    r->records.file = file;
    r->name = name;
    (void)crypto_hash_sha256_init(&r->sum);
    enum err e = read_all(r, key, head, each, ctx, why);
    if (r->records.sealer) sealer_free(r->records.sealer);
    sodium_memzero(r, sizeof *r);
    free(r);
    return e;
}
