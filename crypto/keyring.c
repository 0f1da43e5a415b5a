/* The keyring file and what may happen to it. Called by the server's start, by key rotation and by
 * the renewal of certificates; all of it rare, so every change writes the whole file.
 *
 * The file `keyring`, integers little-endian:
 *
 *   offset    size  what
 *   0         8     "CNCLVRNG"
 *   8         1     version: 1
 *   9         1     kind of the KEK (enum kek_kind)
 *   10        2     zeros
 *   12        4     Argon2id: passes          (zeros unless the kind is KEK_PASSPHRASE,
 *   16        4     Argon2id: memory in KiB     as are memory and salt)
 *   20        16    Argon2id: salt
 *   36        16    file id, random for every writing
 *   52        4     n, the size of the body
 *   56        16    BLAKE2b-128 of bytes 0..55
 *   72        n     the body, sealed by XChaCha20-Poly1305 ...
 *   72 + n    16    ... and its tag
 *   88 + n    16    BLAKE2b-128 of bytes 72..87+n
 *
 * The body is sealed under secret_derive(KEK, "keyring", file id) with counter 0: a key that is
 * used once; bytes 0..71 are its associated data. The checksums have no key: they tell damage (they
 * do not match) from a wrong key (they match, the body does not open). They guard nothing else.
 *
 * The body: count of generations (4), then for each generation its number (4) and its key (32),
 * ascending; the identity as a block (4 bytes of length, 0 for none).
 *
 * Two files, one truth. The KEK of kind KEK_PLAIN lies in the file `kek`; the keyring is never
 * sealed under a key that is not durably in `kek`, and `kek` never loses a key before the keyring
 * is durably sealed under another:
 *
 *   to PLAIN:         write `kek` [new, and old when it was PLAIN too] -> write `keyring` -> write
 *                     `kek` [new] when it held two
 *   from PLAIN:       write `keyring` -> zero and remove `kek`
 *
 * A crash in between leaves a key too many in `kek`, never one too few; keyring_open tries each of
 * them and finishes the work. It syncs the directory first, so that nothing is thrown away or
 * sealed on the strength of a name that a crash could still take back.
 *
 * A change that fails leaves the keyring as it was. Where the new file is to be seen but not known
 * to be durable, further changes are refused (ERR_PRECONDITION) until the keyring is opened again.
 */
#include "crypto/keyring.h"

#include "crypto/kek.h"
#include "crypto/seal.h"

#include <pthread.h>
#include <stdlib.h>

#include <sodium.h>

#define FILE_NAME     "keyring"
#define MAGIC         "CNCLVRNG"
#define MAGIC_SIZE    8
#define VERSION       1
#define AT_PASSES     12
#define AT_MEMORY     16
#define AT_SALT       20
#define AT_ID         36
#define ID_SIZE       16
#define AT_BODY_SIZE  52
#define AT_HEAD_SUM   56
#define SUM_SIZE      16
#define HEAD_SIZE     72
#define FILE_SIZE_MIN (HEAD_SIZE + SEAL_TAG + SUM_SIZE)
#define IDENTITY_MAX  (KEYRING_MAX / 2)

static const uint8_t magic[MAGIC_SIZE] = "CNCLVRNG"; /* without the NUL */

/* One generation of the data encryption key. */
struct generation {
    uint32_t number;    /* 1.. */
    struct secret *dek; /* KEY_SIZE bytes, owned by the keyring */
};

/* What the body holds. */
struct ring {
    struct generation at[DEK_GENERATIONS_MAX]; /* ascending */
    uint32_t count;                            /* 1.. */
    struct secret *identity;                   /* owned by the keyring; NULL: none */
};

/* What the body is sealed under. */
struct lock {
    struct kek_params params; /* in clear in the file */
    struct secret *kek;       /* KEY_SIZE bytes, owned by the keyring */
};

struct keyring {
    pthread_mutex_t mutex; /* guards all below */
    struct disk *disk;     /* borrowed */
    struct kek_cost cost;  /* for passphrases to come */
    struct lock lock;      /* as the file is sealed */
    struct ring ring;      /* as the file has it */
    bool doubtful;         /* the last change may or may not be on the disk */
};

static void checksum(uint8_t out[SUM_SIZE], const uint8_t *at, size_t size) {
    (void)crypto_generichash(out, SUM_SIZE, at, size, NULL, 0);
}

static bool checksum_fits(const uint8_t *at, size_t size) {
    uint8_t sum[SUM_SIZE];
    checksum(sum, at, size);
    return memcmp(sum, at + size, SUM_SIZE) == 0;
}

static enum err damaged(struct why *why, size_t at, const char *what) {
    return fail_with(why, ERR_CORRUPT, FILE_NAME ": damaged at byte %zu: %s", at, what);
}

/* Gives a sentence to errors that came without one. */
static enum err told(enum err e, struct why *why) {
    if (e == OK || why == NULL || why->text[0] != '\0') return e;
    return fail_with(why, e, FILE_NAME ": %s", err_text(e));
}

static void hush(struct why *why) {
    if (why != NULL) why->text[0] = '\0';
}

/* The head's checksum holds: what is wrong now was written so. */
static enum err head_decode(const uint8_t *at, struct kek_params *out, struct why *why) {
    struct kek_params p = {
        .kind = (enum kek_kind)at[9],
        .cost = {.passes = get_u32(at + AT_PASSES), .memory_kib = get_u32(at + AT_MEMORY)}};
    if (at[8] != VERSION)
        return fail_with(why, ERR_UNSUPPORTED, FILE_NAME ": version %u is not known here", at[8]);
    if (at[9] > KEK_FILE) return damaged(why, 9, "an unknown kind of key");
    if (at[10] != 0 || at[11] != 0) return damaged(why, 10, "not zeros");
    memcpy(p.salt, at + AT_SALT, KEK_SALT);
    bool costs = p.cost.passes != 0 || p.cost.memory_kib != 0;
    if (p.kind != KEK_PASSPHRASE && (costs || !sodium_is_zero(p.salt, KEK_SALT)))
        return damaged(why, AT_PASSES, "a cost without a passphrase");
    if (p.kind == KEK_PASSPHRASE &&
        (p.cost.passes < 1 || p.cost.passes > KEK_COST_PASSES_MAX || p.cost.memory_kib < 8 ||
         p.cost.memory_kib > KEK_COST_MEMORY_MAX))
        return damaged(why, AT_PASSES, "the cost of the passphrase is out of bounds");
    *out = p;
    return OK;
}

RESULT keyring_outer_decode(struct span file, struct keyring_outer *out, struct why *why) {
    struct kek_params params;
    if (file.size < FILE_SIZE_MIN) return damaged(why, file.size, "the file ends too early");
    if (memcmp(file.at, magic, MAGIC_SIZE) != 0) return damaged(why, 0, "not a keyring");
    if (!checksum_fits(file.at, AT_HEAD_SUM))
        return damaged(why, MAGIC_SIZE, "the checksum of the head (bytes 0 to 71) does not match");
    TRY(head_decode(file.at, &params, why));
    size_t sealed = file.size - HEAD_SIZE - SUM_SIZE;
    if (get_u32(file.at + AT_BODY_SIZE) != sealed - SEAL_TAG)
        return damaged(why, file.size, "the file's size is not what its head says");
    if (!checksum_fits(file.at + HEAD_SIZE, sealed))
        return damaged(why, HEAD_SIZE, "the checksum of the body (from here on) does not match");
    *out = (struct keyring_outer){.params = params,
                                  .head = span_of(file.at, HEAD_SIZE),
                                  .id = span_of(file.at + AT_ID, ID_SIZE),
                                  .sealed = span_of(file.at + HEAD_SIZE, sealed)};
    return OK;
}

RESULT keyring_body_decode(struct span body, struct keyring_body *out) {
    struct cursor c = cursor_of(body);
    struct keyring_body b = {0};
    TRY(cursor_u32(&c, &b.count));
    if (b.count < 1 || b.count > DEK_GENERATIONS_MAX) return ERR_PROTOCOL;
    for (uint32_t i = 0; i < b.count; i++) {
        TRY(cursor_u32(&c, &b.generations[i]));
        TRY(cursor_bytes(&c, KEY_SIZE, &b.deks[i]));
        if (b.generations[i] <= (i == 0 ? 0 : b.generations[i - 1])) return ERR_PROTOCOL;
    }
    TRY(cursor_block(&c, IDENTITY_MAX, &b.identity));
    TRY(cursor_end(&c));
    *out = b;
    return OK;
}

static void ring_free(struct ring *r) {
    for (uint32_t i = 0; i < r->count; i++)
        secret_free(r->at[i].dek);
    secret_free(r->identity);
    *r = (struct ring){0};
}

static enum err ring_decode(const struct secret *body, struct ring *out) {
    struct keyring_body b;
    TRY(keyring_body_decode(secret_span(body), &b));
    struct ring r = {0};
    enum err e = OK;
    for (uint32_t i = 0; i < b.count && e == OK; i++) {
        r.at[i].number = b.generations[i];
        e = secret_new(b.deks[i].at, KEY_SIZE, &r.at[i].dek);
        r.count += e == OK;
    }
    if (e == OK && b.identity.size != 0)
        e = secret_new(b.identity.at, b.identity.size, &r.identity);
    if (e == OK)
        *out = r;
    else
        ring_free(&r);
    return e;
}

static size_t identity_size(const struct ring *r) {
    return r->identity == NULL ? 0 : secret_span(r->identity).size;
}

static size_t body_size(const struct ring *r) {
    return 4 + (size_t)r->count * (4 + KEY_SIZE) + 4 + identity_size(r);
}

/* Writes the body into guarded memory of body_size(). */
static enum err fill_body(void *ctx, uint8_t *at, size_t size) {
    const struct ring *r = ctx;
    const uint8_t *end = at + size;
    put_u32(at, r->count);
    at += 4;
    for (uint32_t i = 0; i < r->count; i++) {
        put_u32(at, r->at[i].number);
        memcpy(at + 4, secret_span(r->at[i].dek).at, KEY_SIZE);
        at += 4 + KEY_SIZE;
    }
    size_t identity = identity_size(r);
    put_u32(at, (uint32_t)identity);
    if (identity != 0) memcpy(at + 4, secret_span(r->identity).at, identity);
    return at + 4 + identity == end ? OK : ERR_INTERNAL;
}

/* The sealer of one writing of the file. */
static enum err sealer_of(const struct secret *kek, struct span id, struct sealer **out) {
    struct secret *key;
    TRY(secret_derive(kek, "keyring", id, &key));
    enum err e = sealer_new(SEAL_XCHACHA20, key, out);
    secret_free(key);
    return e;
}

static void head_encode(const struct lock *lock, size_t body, uint8_t at[HEAD_SIZE]) {
    memset(at, 0, HEAD_SIZE); /* no secret: a fresh buffer */
    memcpy(at, magic, MAGIC_SIZE);
    at[8] = VERSION;
    at[9] = (uint8_t)lock->params.kind;
    put_u32(at + AT_PASSES, lock->params.cost.passes);
    put_u32(at + AT_MEMORY, lock->params.cost.memory_kib);
    memcpy(at + AT_SALT, lock->params.salt, KEK_SALT);
    random_bytes(at + AT_ID, ID_SIZE);
    put_u32(at + AT_BODY_SIZE, (uint32_t)body);
    checksum(at + AT_HEAD_SUM, at, AT_HEAD_SUM);
}

static enum err seal_body(const struct lock *lock, const struct secret *body, uint8_t *file) {
    struct sealer *sealer;
    TRY(sealer_of(lock->kek, span_of(file + AT_ID, ID_SIZE), &sealer));
    enum err e = seal(sealer, 0, span_of(file, HEAD_SIZE), secret_span(body), file + HEAD_SIZE);
    sealer_free(sealer);
    return e;
}

static enum err file_encode(const struct lock *lock, const struct ring *ring, struct buf *out) {
    size_t body = body_size(ring);
    struct secret *plain;
    TRY(buf_reserve(out, FILE_SIZE_MIN + body));
    TRY(secret_fill(body, fill_body, (void *)ring, &plain));
    head_encode(lock, body, out->at);
    enum err e = seal_body(lock, plain, out->at);
    secret_free(plain);
    size_t sealed = body + SEAL_TAG;
    checksum(out->at + HEAD_SIZE + sealed, out->at + HEAD_SIZE, sealed);
    out->size = FILE_SIZE_MIN + body;
    return e;
}

/* Is the file that is to be seen the one that `id` names? Unknown counts as yes. */
static bool seen(struct disk *disk, const uint8_t id[ID_SIZE]) {
    struct buf file = buf_new(KEYRING_MAX);
    struct why ignored;
    enum err e = disk_read_file(disk, FILE_NAME, &file, &ignored);
    bool other = e == ERR_NOT_FOUND ||
                 (e == OK && file.size >= HEAD_SIZE && memcmp(file.at + AT_ID, id, ID_SIZE) != 0);
    buf_free(&file);
    return !other;
}

/* Writes the file; *doubtful when it failed and may be there all the same. */
static enum err save(struct disk *disk, const struct lock *lock, const struct ring *ring,
                     bool *doubtful, struct why *why) {
    struct buf file = buf_new(KEYRING_MAX);
    enum err e = file_encode(lock, ring, &file);
    if (e == OK) {
        e = disk_write_file(disk, FILE_NAME, buf_span(&file), why);
        *doubtful = e != OK && seen(disk, file.at + AT_ID);
    }
    buf_free(&file);
    return e;
}

static enum err load(struct disk *disk, struct buf *file, struct keyring_outer *out,
                     struct why *why) {
    enum err e = disk_read_file(disk, FILE_NAME, file, why);
    if (e == ERR_TOO_LARGE) return damaged(why, KEYRING_MAX, "the file is too long");
    if (e != OK) return e;
    return keyring_outer_decode(buf_span(file), out, why);
}

RESULT keyring_kind(struct disk *disk, enum kek_kind *out, struct why *why) {
    struct buf file = buf_new(KEYRING_MAX);
    struct keyring_outer outer = {0};
    hush(why);
    enum err e = load(disk, &file, &outer, why);
    if (e == OK) *out = outer.params.kind;
    buf_free(&file);
    return told(e, why);
}

struct opening {
    const struct keyring_outer *outer; /* the file */
    struct sealer *sealer;             /* for it */
};

static enum err fill_opened(void *ctx, uint8_t *at, size_t size) {
    const struct opening *o = ctx;
    (void)size;
    enum err e = unseal(o->sealer, 0, o->outer->head, o->outer->sealed, at);
    return e == ERR_CORRUPT ? ERR_WRONG_KEY : e;
}

static enum err ring_open(const struct keyring_outer *outer, const struct secret *kek,
                          struct ring *out) {
    struct opening o = {.outer = outer};
    struct secret *body = NULL;
    TRY(sealer_of(kek, outer->id, &o.sealer));
    enum err e = secret_fill(outer->sealed.size - SEAL_TAG, fill_opened, &o, &body);
    sealer_free(o.sealer);
    if (e == ERR_INVALID) e = ERR_CORRUPT; /* an empty body */
    if (e == OK) e = ring_decode(body, out);
    secret_free(body);
    return e;
}

static enum err explain(enum err e, enum kek_kind kind, struct why *why) {
    if (e == ERR_PROTOCOL || e == ERR_CORRUPT)
        return damaged(why, HEAD_SIZE, "the body opens but makes no sense");
    if (e != ERR_WRONG_KEY) return e;
    if (kind == KEK_PLAIN)
        return fail_with(why, e, FILE_NAME ": wrong key: the file kek is of another keyring");
    return fail_with(why, e, FILE_NAME ": wrong key: it is locked under %s other than this",
                     kind == KEK_UNLOCK_KEY ? "an unlock key" : kek_kind_text(kind));
}

/* With the keys of the file `kek`; *extra when it holds more than the one that fits. */
static enum err open_plain(struct keyring *k, const struct keyring_outer *outer, bool *extra,
                           struct why *why) {
    struct kek_file file;
    TRY(kek_file_read(k->disk, &file, why));
    enum err e = ERR_WRONG_KEY;
    for (size_t i = 0; i < KEK_FILE_KEYS && file.keys[i] != NULL && e == ERR_WRONG_KEY; i++) {
        e = ring_open(outer, file.keys[i], &k->ring);
        if (e == OK) {
            k->lock.kek = file.keys[i];
            file.keys[i] = NULL;
            *extra = file.keys[1 - i] != NULL;
            break;
        }
    }
    kek_file_free(&file);
    return explain(e, KEK_PLAIN, why);
}

static enum err open_with(struct keyring *k, const struct keyring_outer *outer, struct kek kek,
                          bool *extra, struct why *why) {
    k->lock.params = outer->params;
    if (outer->params.kind != kek.kind)
        return fail_with(why, ERR_LOCKED, FILE_NAME ": locked: %s is needed, %s was given",
                         kek_kind_text(outer->params.kind), kek_kind_text(kek.kind));
    if (kek.kind == KEK_PLAIN) return open_plain(k, outer, extra, why);
    TRY(kek_derive(kek, &outer->params, &k->lock.kek, why));
    return explain(ring_open(outer, k->lock.kek, &k->ring), kek.kind, why);
}

/* Makes durable what was found, then finishes a change that a crash cut short. */
static enum err settle(struct keyring *k, bool extra, struct why *why) {
    TRY(k->disk->sync_dir(k->disk, "", why));
    if (k->lock.params.kind != KEK_PLAIN) return kek_file_remove(k->disk, why);
    return extra ? kek_file_write(k->disk, k->lock.kek, NULL, why) : OK;
}

static struct keyring *keyring_new(struct disk *disk) {
    struct keyring *k = calloc(1, sizeof *k);
    if (k == NULL) return NULL;
    (void)pthread_mutex_init(&k->mutex, NULL);
    k->disk = disk;
    k->cost = KEK_COST;
    return k;
}

void keyring_close(struct keyring *k) {
    if (k == NULL) return;
    ring_free(&k->ring);
    secret_free(k->lock.kek);
    (void)pthread_mutex_destroy(&k->mutex);
    free(k);
}

RESULT keyring_open(struct disk *disk, struct kek kek, struct keyring **out, struct why *why) {
    hush(why);
    struct keyring *k = keyring_new(disk);
    if (k == NULL) return told(ERR_NOMEM, why);
    struct buf file = buf_new(KEYRING_MAX);
    struct keyring_outer outer = {0};
    bool extra = false;
    enum err e = load(disk, &file, &outer, why);
    if (e == OK) e = open_with(k, &outer, kek, &extra, why);
    if (e == OK) e = settle(k, extra, why);
    buf_free(&file);
    if (e == OK)
        *out = k;
    else
        keyring_close(k);
    return told(e, why);
}

/* A new lock for `kek`: the key, and what of it stands in the file. */
static enum err lock_new(struct kek kek, struct kek_cost cost, struct lock *out, struct why *why) {
    struct lock lock = {.params = {.kind = kek.kind}};
    if (kek.kind == KEK_PLAIN) {
        TRY(secret_random(KEY_SIZE, &lock.kek));
    } else {
        if (kek.kind == KEK_PASSPHRASE) {
            lock.params.cost = cost;
            random_bytes(lock.params.salt, KEK_SALT);
        }
        TRY(kek_derive(kek, &lock.params, &lock.kek, why));
    }
    *out = lock;
    return OK;
}

/* Writes `ring` under `lock`, in the order that the top of this file gives. `old` is what the file
 * was sealed under, NULL when there is none yet. */
static enum err store(struct keyring *k, const struct lock *lock, const struct lock *old,
                      const struct ring *ring, struct why *why) {
    if (k->doubtful)
        return fail_with(why, ERR_PRECONDITION,
                         FILE_NAME ": an earlier change may or may not be on disk: open it again");
    bool replaced = old != NULL && lock->kek != old->kek;
    const struct secret *older = replaced && old->params.kind == KEK_PLAIN ? old->kek : NULL;
    if (lock->params.kind == KEK_PLAIN && (replaced || old == NULL))
        TRY(kek_file_write(k->disk, lock->kek, older, why));
    return save(k->disk, lock, ring, &k->doubtful, why);
}

static enum err create_in(struct keyring *k, struct kek kek, struct why *why) {
    struct file *f;
    enum err e = k->disk->open(k->disk, FILE_NAME, DISK_READ, &f, why);
    if (e == OK) {
        k->disk->close(f);
        return fail_with(why, ERR_EXISTS, FILE_NAME ": there is one already");
    }
    if (e != ERR_NOT_FOUND) return e;
    hush(why);
    TRY(lock_new(kek, k->cost, &k->lock, why));
    TRY(secret_random(KEY_SIZE, &k->ring.at[0].dek));
    k->ring.at[0].number = 1;
    k->ring.count = 1;
    TRY(store(k, &k->lock, NULL, &k->ring, why));
    return kek.kind == KEK_PLAIN ? OK : kek_file_remove(k->disk, why);
}

RESULT keyring_create_at(struct disk *disk, struct kek kek, struct kek_cost cost,
                         struct keyring **out, struct why *why) {
    hush(why);
    struct keyring *k = keyring_new(disk);
    if (k == NULL) return told(ERR_NOMEM, why);
    k->cost = cost;
    enum err e = create_in(k, kek, why);
    if (e == OK)
        *out = k;
    else
        keyring_close(k);
    return told(e, why);
}

RESULT keyring_create(struct disk *disk, struct kek kek, struct keyring **out, struct why *why) {
    return keyring_create_at(disk, kek, KEK_COST, out, why);
}

uint32_t keyring_generation(struct keyring *k) {
    pthread_mutex_lock(&k->mutex);
    uint32_t number = k->ring.at[k->ring.count - 1].number;
    pthread_mutex_unlock(&k->mutex);
    return number;
}

uint32_t keyring_oldest(struct keyring *k) {
    pthread_mutex_lock(&k->mutex);
    uint32_t number = k->ring.at[0].number;
    pthread_mutex_unlock(&k->mutex);
    return number;
}

const struct secret *keyring_dek(struct keyring *k, uint32_t generation) {
    const struct secret *found = NULL;
    pthread_mutex_lock(&k->mutex);
    for (uint32_t i = 0; i < k->ring.count; i++)
        if (k->ring.at[i].number == generation) found = k->ring.at[i].dek;
    pthread_mutex_unlock(&k->mutex);
    return found;
}

static enum err add_generation(struct ring *r, struct why *why) {
    uint32_t newest = r->at[r->count - 1].number;
    struct generation fresh = {.number = newest + 1};
    if (r->count == DEK_GENERATIONS_MAX || newest == UINT32_MAX)
        return fail_with(why, ERR_TOO_LARGE, FILE_NAME ": it holds %u generations already",
                         r->count);
    TRY(secret_random(KEY_SIZE, &fresh.dek));
    r->at[r->count++] = fresh;
    return OK;
}

/* The ring under `lock`, with one generation more when `rotates`. */
static enum err store_next(struct keyring *k, const struct lock *lock, bool rotates,
                           struct why *why) {
    struct ring next = k->ring;
    if (rotates) TRY(add_generation(&next, why));
    enum err e = store(k, lock, &k->lock, &next, why);
    if (e == OK)
        k->ring = next;
    else if (rotates)
        secret_free(next.at[next.count - 1].dek);
    return e;
}

RESULT keyring_rotate(struct keyring *k, struct why *why) {
    hush(why);
    pthread_mutex_lock(&k->mutex);
    enum err e = store_next(k, &k->lock, true, why);
    pthread_mutex_unlock(&k->mutex);
    return told(e, why);
}

static enum err destroy_before(struct keyring *k, uint32_t generation, struct why *why) {
    struct ring *now = &k->ring;
    struct ring next = {.identity = now->identity};
    if (generation > now->at[now->count - 1].number)
        return fail_with(why, ERR_INVALID, FILE_NAME ": the current generation is kept");
    uint32_t gone = 0;
    while (now->at[gone].number < generation)
        gone++;
    if (gone == 0) return OK;
    while (gone + next.count < now->count) {
        next.at[next.count] = now->at[gone + next.count];
        next.count++;
    }
    TRY(store(k, &k->lock, &k->lock, &next, why));
    for (uint32_t i = 0; i < gone; i++)
        secret_free(now->at[i].dek);
    *now = next;
    return OK;
}

RESULT keyring_destroy_before(struct keyring *k, uint32_t generation, struct why *why) {
    hush(why);
    pthread_mutex_lock(&k->mutex);
    enum err e = destroy_before(k, generation, why);
    pthread_mutex_unlock(&k->mutex);
    return told(e, why);
}

/* The old file is replaced; what is left is to take the old key out of `kek`. */
static enum err retire(struct keyring *k, enum kek_kind before, struct why *why) {
    if (k->lock.params.kind != KEK_PLAIN) return kek_file_remove(k->disk, why);
    return before == KEK_PLAIN ? kek_file_write(k->disk, k->lock.kek, NULL, why) : OK;
}

static enum err rekey(struct keyring *k, const struct lock *lock, bool rotates, struct why *why) {
    enum err e = store_next(k, lock, rotates, why);
    if (e != OK) {
        secret_free(lock->kek);
        return e;
    }
    enum kek_kind before = k->lock.params.kind;
    secret_free(k->lock.kek);
    k->lock = *lock;
    return retire(k, before, why);
}

RESULT keyring_rekey(struct keyring *k, struct kek kek, bool rotates, struct why *why) {
    struct lock lock;
    hush(why);
    enum err e = lock_new(kek, k->cost, &lock, why); /* slow with a passphrase: before the mutex */
    if (e != OK) return told(e, why);
    pthread_mutex_lock(&k->mutex);
    e = rekey(k, &lock, rotates, why);
    pthread_mutex_unlock(&k->mutex);
    return told(e, why);
}

const struct secret *keyring_identity(struct keyring *k) {
    pthread_mutex_lock(&k->mutex);
    const struct secret *identity = k->ring.identity;
    pthread_mutex_unlock(&k->mutex);
    return identity;
}

static enum err set_identity(struct keyring *k, const struct secret *identity, struct why *why) {
    struct ring next = k->ring;
    if (secret_span(identity).size > IDENTITY_MAX) return ERR_TOO_LARGE;
    TRY(secret_copy(identity, &next.identity));
    enum err e = store(k, &k->lock, &k->lock, &next, why);
    secret_free(e == OK ? k->ring.identity : next.identity);
    if (e == OK) k->ring.identity = next.identity;
    return e;
}

RESULT keyring_set_identity(struct keyring *k, const struct secret *identity, struct why *why) {
    hush(why);
    pthread_mutex_lock(&k->mutex);
    enum err e = set_identity(k, identity, why);
    pthread_mutex_unlock(&k->mutex);
    return told(e, why);
}
