/* The implementation of secret.h over libsodium's guarded heap. The bytes lie in pages of their
 * own, between guard pages, locked, out of core dumps and out of forked children; they are filled
 * while writable and read-only from then on. The small struct around them holds no key material. In
 * a forked child the pages read as zeros: a child may exec or _exit, never use or free a secret.
 * OpenSSL's private keys go to its own locked heap, which crypto_start sets up as well. */
#include "crypto/secret.h"

#include "crypto/base36.h"
#include "crypto/limits.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <sodium.h>

#define OPENSSL_HEAP     (1 * MIB) /* private and ephemeral keys of all connections under way */
#define OPENSSL_HEAP_MIN 32        /* its smallest piece */

struct secret {
    size_t size; /* bytes at `at` */
    uint8_t *at; /* guarded, read-only once the secret is published */
};

static pthread_once_t start_once = PTHREAD_ONCE_INIT;
static int start_status = -1; /* written once, under start_once */

/* Every secret locks a page or two: take what the system grants. */
static void raise_lock_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_MEMLOCK, &limit);
}

static void start(void) {
    raise_lock_limit();
    start_status = sodium_init();
    if (start_status >= 0 && CRYPTO_secure_malloc_initialized() == 0)
        (void)CRYPTO_secure_malloc_init(OPENSSL_HEAP, OPENSSL_HEAP_MIN);
}

RESULT crypto_start(struct why *why) {
    if (pthread_once(&start_once, start) != 0 || start_status < 0)
        return fail_with(why, ERR_INTERNAL, "libsodium can't be started: no source of randomness");
    return OK;
}

/* libsodium ignores a failed mlock; a key on the swap disk is not what we promise. */
static enum err harden(const struct secret *s) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)s->at & ~(page - 1);
    uintptr_t end = ((uintptr_t)s->at + s->size + page - 1) & ~(page - 1);
    if (mlock((void *)first, end - first) != 0) return ERR_NOMEM;
    (void)madvise((void *)first, end - first, MADV_DONTDUMP);
    (void)madvise((void *)first, end - first, MADV_WIPEONFORK);
    return OK;
}

static enum err room_new(size_t size, struct secret **out) {
    if (size == 0) return ERR_INVALID;
    if (size > SECRET_MAX) return ERR_TOO_LARGE;
    struct secret *s = malloc(sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    *s = (struct secret){.size = size, .at = sodium_malloc(size)};
    if (s->at == NULL || harden(s) != OK) {
        secret_free(s);
        return ERR_NOMEM;
    }
    *out = s;
    return OK;
}

RESULT secret_fill(size_t size, enum err (*fill)(void *ctx, uint8_t *at, size_t size), void *ctx,
                   struct secret **out) {
    struct secret *s;
    TRY(room_new(size, &s));
    enum err e = fill(ctx, s->at, size);
    if (e == OK && sodium_mprotect_readonly(s->at) != 0) e = ERR_NOMEM;
    if (e != OK) {
        secret_free(s);
        return e;
    }
    *out = s;
    return OK;
}

static enum err fill_copy(void *ctx, uint8_t *at, size_t size) {
    const uint8_t *const *from = ctx;
    memcpy(at, *from, size);
    return OK;
}

RESULT secret_new(const void *bytes, size_t size, struct secret **out) {
    const uint8_t *from = bytes;
    return secret_fill(size, fill_copy, &from, out);
}

static enum err fill_random(void *ctx, uint8_t *at, size_t size) {
    (void)ctx;
    randombytes_buf(at, size);
    return OK;
}

RESULT secret_random(size_t size, struct secret **out) {
    return secret_fill(size, fill_random, NULL, out);
}

RESULT secret_copy(const struct secret *s, struct secret **out) {
    return secret_new(s->at, s->size, out);
}

void secret_free(struct secret *s) {
    if (s == NULL) return;
    sodium_free(s->at); /* makes it writable, zeroes, unmaps */
    free(s);
}

struct span secret_span(const struct secret *s) {
    return span_of(s->at, s->size);
}

bool secret_equal(const struct secret *a, const struct secret *b) {
    return a->size == b->size && sodium_memcmp(a->at, b->at, a->size) == 0;
}

struct derivation {
    const struct secret *master; /* KEY_SIZE bytes */
    const char *purpose;         /* NUL-terminated */
    struct span id;              /* what the key is for */
};

static enum err fill_derived(void *ctx, uint8_t *at, size_t size) {
    const struct derivation *d = ctx;
    crypto_generichash_state state;
    int bad = crypto_generichash_init(&state, d->master->at, d->master->size, size);
    bad |= crypto_generichash_update(&state, (const uint8_t *)d->purpose, strlen(d->purpose) + 1);
    bad |= crypto_generichash_update(&state, d->id.at, d->id.size);
    bad |= crypto_generichash_final(&state, at, size);
    sodium_memzero(&state, sizeof state);
    return bad == 0 ? OK : ERR_INTERNAL;
}

RESULT secret_derive(const struct secret *master, const char *purpose, struct span id,
                     struct secret **out) {
    if (master->size != KEY_SIZE) return ERR_INVALID;
    struct derivation d = {.master = master, .purpose = purpose, .id = id};
    return secret_fill(KEY_SIZE, fill_derived, &d, out);
}

#ifdef __x86_64__

/* The ABI saves none of them across a call. */
static __attribute__((noinline)) void wipe_low(void) { __asm__ volatile("vzeroall" ::: "memory"); }

static __attribute__((noinline, target("avx512f"))) void wipe_high(void) {
    __asm__ volatile("vpxorq %%zmm16, %%zmm16, %%zmm16\n\t"
                     "vpxorq %%zmm17, %%zmm17, %%zmm17\n\t"
                     "vpxorq %%zmm18, %%zmm18, %%zmm18\n\t"
                     "vpxorq %%zmm19, %%zmm19, %%zmm19\n\t"
                     "vpxorq %%zmm20, %%zmm20, %%zmm20\n\t"
                     "vpxorq %%zmm21, %%zmm21, %%zmm21\n\t"
                     "vpxorq %%zmm22, %%zmm22, %%zmm22\n\t"
                     "vpxorq %%zmm23, %%zmm23, %%zmm23\n\t"
                     "vpxorq %%zmm24, %%zmm24, %%zmm24\n\t"
                     "vpxorq %%zmm25, %%zmm25, %%zmm25\n\t"
                     "vpxorq %%zmm26, %%zmm26, %%zmm26\n\t"
                     "vpxorq %%zmm27, %%zmm27, %%zmm27\n\t"
                     "vpxorq %%zmm28, %%zmm28, %%zmm28\n\t"
                     "vpxorq %%zmm29, %%zmm29, %%zmm29\n\t"
                     "vpxorq %%zmm30, %%zmm30, %%zmm30\n\t"
                     "vpxorq %%zmm31, %%zmm31, %%zmm31\n\t" ::
                         : "memory");
}

void secret_wipe_registers(void) {
    if (__builtin_cpu_supports("avx")) wipe_low();
    if (__builtin_cpu_supports("avx512f")) wipe_high();
}

#else

void secret_wipe_registers(void) {}

#endif

void random_bytes(void *at, size_t size) { randombytes_buf(at, size); }

uint64_t random_u64(void) {
    uint64_t v;
    randombytes_buf(&v, sizeof v);
    return v;
}

/* The low 25 digits of a 136-bit number: 129 bits, of which no value is more likely than another by
 * more than one percent. */
void random_id(char out[26]) {
    uint8_t raw[17];
    randombytes_buf(raw, sizeof raw);
    base36_text(raw, sizeof raw, out, 25);
}
