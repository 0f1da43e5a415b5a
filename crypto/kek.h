/* Private to keyring.c, its test and its fuzzer: how a key encryption key comes to be (kek.c), and
 * the parts of the keyring's format that read untrusted bytes (keyring.c). */
#ifndef CONCLAVE_KEK_H
#define CONCLAVE_KEK_H

#include "crypto/keyring.h"

#define KEK_SALT 16 /* bytes, Argon2id */

/* What Argon2id is to cost. */
struct kek_cost {
    uint32_t passes;     /* over the memory */
    uint32_t memory_kib; /* KiB */
};
#define KEK_COST                                                                                   \
    ((struct kek_cost){.passes = 3, .memory_kib = 256 * 1024}) /* libsodium's "moderate" */
#define KEK_COST_PASSES_MAX 64
#define KEK_COST_MEMORY_MAX (4 * 1024 * 1024) /* KiB */

/* What stands in clear about a KEK. */
struct kek_params {
    enum kek_kind kind;     /* how the KEK is had */
    struct kek_cost cost;   /* KEK_PASSPHRASE; else zeros */
    uint8_t salt[KEK_SALT]; /* KEK_PASSPHRASE; else zeros */
};

const char *kek_kind_text(enum kek_kind kind); /* "an unlock key" */
/* The 32-byte key; not for KEK_PLAIN. With a passphrase it blocks for about a second. */
RESULT kek_derive(struct kek kek, const struct kek_params *params, struct secret **out,
                  struct why *why);

/* The file `kek`. While a plain KEK is being replaced it holds two keys. */
#define KEK_FILE_KEYS 2
struct kek_file {
    struct secret *keys[KEK_FILE_KEYS]; /* owned, the newest first; NULL past the last */
};
RESULT kek_file_read(struct disk *disk, struct kek_file *out, struct why *why);
/* Durable and atomic; `older` may be NULL. */
RESULT kek_file_write(struct disk *disk, const struct secret *newest, const struct secret *older,
                      struct why *why);
/* Overwrites with zeros and removes what there is of it, durably. OK when there is nothing. */
RESULT kek_file_remove(struct disk *disk, struct why *why);
void kek_file_free(struct kek_file *f);

/* keyring.c: creation at another cost than KEK_COST; later passphrases of this keyring cost the
 * same. */
RESULT keyring_create_at(struct disk *disk, struct kek kek, struct kek_cost cost,
                         struct keyring **out, struct why *why);

/* keyring.c: the decoders. Spans point into the input. */
struct keyring_outer {
    struct kek_params params; /* checked */
    struct span head;         /* associated data of the sealed body */
    struct span id;           /* random, of this writing of the file */
    struct span sealed;       /* body and tag */
};
RESULT keyring_outer_decode(struct span file, struct keyring_outer *out, struct why *why);

struct keyring_body {
    uint32_t count;                            /* generations, 1..DEK_GENERATIONS_MAX */
    uint32_t generations[DEK_GENERATIONS_MAX]; /* ascending */
    struct span deks[DEK_GENERATIONS_MAX];     /* KEY_SIZE bytes each */
    struct span identity;                      /* empty: none */
};
RESULT keyring_body_decode(struct span body, struct keyring_body *out);

#endif
