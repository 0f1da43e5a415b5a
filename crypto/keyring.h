/* The node's keys in one sealed file: data encryption keys (DEK) by generation, and an identity
 * blob (TLS key, certificate, ids) that this module does not look into. The file is sealed under
 * the key encryption key (KEK), which comes from outside: an unlock key, a passphrase, a key file;
 * or, when autolock is off, from the file `kek` beside it (mode 0600), so that a restart needs
 * nobody.
 *
 * The file format stands byte by byte at the top of keyring.c. Every change is written whole to a
 * new file, synced and renamed: after a crash the old or the new keyring is there, never a mixture.
 *
 * Invariants: at least one generation; generations ascend; the newest is the current one; a
 * generation is destroyed only by keyring_destroy_before, never the current one.
 * Thread-safe: an internal mutex; the returned DEK pointers live until the generation is destroyed,
 * the identity's until it is set anew.
 *
 * With KEK_PLAIN the key lies in clear beside the lock: it protects against the theft of single
 * files (a copied log segment, a backup without `kek`), not of the directory.
 *
 * When a change fails with an error of the disk, the file may be as before or as asked for; where
 * that is in doubt, further changes give ERR_PRECONDITION until it is opened again. After a failed
 * keyring_rekey the caller keeps both KEKs until one of them has opened it. */
#ifndef CONCLAVE_KEYRING_H
#define CONCLAVE_KEYRING_H

#include "crypto/base.h"
#include "crypto/disk.h"
#include "crypto/limits.h"
#include "crypto/secret.h"

struct keyring;

/* How the KEK is had. The file says which kind it needs, in clear, so that errors can say it too.
 */
enum kek_kind { KEK_PLAIN = 0, KEK_UNLOCK_KEY = 1, KEK_PASSPHRASE = 2, KEK_FILE = 3 };

struct kek {
    enum kek_kind kind;
    const struct secret
        *key; /* 32 bytes; a passphrase's text for KEK_PASSPHRASE; NULL for KEK_PLAIN */
};

/* The text form of an unlock key: "SWMKEY-1-" + 43 characters of unpadded standard base64 of 32
 * bytes. */
#define UNLOCK_KEY_TEXT 53 /* with the NUL */
RESULT unlock_key_format(const struct secret *key, char out[UNLOCK_KEY_TEXT]);
RESULT unlock_key_parse(const char *text, struct secret **out, struct why *why); /* ERR_INVALID */

/* Makes a new keyring with one random DEK (generation 1) on `disk` as file `keyring`; ERR_EXISTS
 * when there is one. The disk must outlive the keyring. */
RESULT keyring_create(struct disk *disk, struct kek kek, struct keyring **out, struct why *why);

/* Opens it. ERR_NOT_FOUND: none there. ERR_LOCKED: it needs a KEK of another kind than given (why
 * says which). ERR_WRONG_KEY: the KEK does not open it. ERR_CORRUPT: damaged (why names file and
 * place). */
RESULT keyring_open(struct disk *disk, struct kek kek, struct keyring **out, struct why *why);
RESULT keyring_kind(struct disk *disk, enum kek_kind *out, struct why *why); /* without opening */
void keyring_close(struct keyring *k);

uint32_t keyring_generation(struct keyring *k);                           /* the current one */
uint32_t keyring_oldest(struct keyring *k);                               /* of those it has */
const struct secret *keyring_dek(struct keyring *k, uint32_t generation); /* NULL: no such one */
RESULT keyring_rotate(struct keyring *k, struct why *why);                /* adds a generation */
RESULT keyring_destroy_before(struct keyring *k, uint32_t generation, struct why *why);
/* Another KEK; with `rotates`, in the same write, also what keyring_rotate does: whoever can open
 * the old file never has the new DEK. */
RESULT keyring_rekey(struct keyring *k, struct kek kek, bool rotates, struct why *why);

/* The identity: opaque bytes up to KEYRING_MAX / 2, kept as a secret. NULL until set. */
const struct secret *keyring_identity(struct keyring *k);
RESULT keyring_set_identity(struct keyring *k, const struct secret *identity, struct why *why);

#endif
