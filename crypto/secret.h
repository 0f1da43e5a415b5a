/* Key material lives here and nowhere else: memory of libsodium's guarded heap (guard pages,
 * locked, kept out of core dumps, wiped in a forked child, zeroed when freed), read-only once
 * filled. There is no way to print one. Not thread-safe while being filled; immutable after. A
 * forked child may exec or _exit; it must not use or free a secret.
 *
 * What OpenSSL keeps: private keys lie in its own locked heap (made by crypto_start); the key
 * schedules of TLS and AES-GCM in ordinary memory, so a server also turns core dumps off as a
 * whole. */
#ifndef CONCLAVE_SECRET_H
#define CONCLAVE_SECRET_H

#include "crypto/base.h"

struct secret;

/* Must be called once before anything else in crypto/; idempotent, thread-safe. */
RESULT crypto_start(struct why *why);

/* A secret of `size` bytes (1..SECRET_MAX), copied from `bytes` and then made read-only. The
 * caller still has to wipe its own copy. ERR_NOMEM when the memory can't be had or locked. */
RESULT secret_new(const void *bytes, size_t size, struct secret **out);
RESULT secret_random(size_t size, struct secret **out);
/* Filled by `fill`, so that the bytes never exist elsewhere. */
RESULT secret_fill(size_t size, enum err (*fill)(void *ctx, uint8_t *at, size_t size), void *ctx,
                   struct secret **out);
RESULT secret_copy(const struct secret *s, struct secret **out);
void secret_free(struct secret *s); /* NULL is fine */

struct span secret_span(const struct secret *s);                   /* valid until secret_free */
bool secret_equal(const struct secret *a, const struct secret *b); /* constant-time */

/* A 32-byte key bound to a purpose: BLAKE2b keyed with `master` (32 bytes) over
 * purpose || 0 || id. `purpose` is a literal such as "wal segment". */
#define KEY_SIZE 32
RESULT secret_derive(const struct secret *master, const char *purpose, struct span id,
                     struct secret **out);

/* Zeroes the vector registers, in which the last copy of a value may stand for long while a thread
 * sleeps: a debugger's core has them. x86-64 only. */
void secret_wipe_registers(void);

/* Random bytes and ids. */
void random_bytes(void *at, size_t size);
uint64_t random_u64(void);
/* 25 characters of base36 from 17 random bytes, as Swarm makes ids; out has room for 26. */
void random_id(char out[26]);

#endif
