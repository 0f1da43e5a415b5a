/* Secrets and configs: the bodies of ROW_SECRET and ROW_CONFIG (a `held`), and of ROW_VALUE, of
 * which there is one for each version. The name of the row is the secret's; letters compare without
 * case. A value stands in the state sealed under a data key of its own, and that key wrapped by a
 * cluster key (store/vault.h) that is never in the state: whoever has logs, snapshots and backups,
 * but not the managers' keyrings, has no value. A value's row goes with its secret's, and with it
 * the only wrapped copy of its data key.
 *
 * A secret has its versions in ascending order, the newest last; 0 stands for "the newest" wherever
 * a version is named. Docker's clients make version 1 and see the newest. A secret with a driver
 * has no version: an outside program supplies the value whenever it is delivered
 * (api/service/driver.h).
 *
 * Sealed with XChaCha20-Poly1305, nonces random. Associated data of both: "conclave value", 0, the
 * value's row id, the id of the secret, u32 version. Sealed value: nonce 24, ciphertext, tag 16.
 * Wrapped key: nonce 24, 32 bytes, tag 16, with u32 epoch behind the associated data. */
#ifndef CONCLAVE_HELD_H
#define CONCLAVE_HELD_H

#include "crypto/secret.h"
#include "store/node.h"

#define HELD_NAME_MAX     64
#define SECRET_SIZE_MAX   511999  /* bytes of a secret; at least 1 */
#define CONFIG_SIZE_MAX   1023999 /* of a config; at least 1 */
#define HELD_VERSIONS_MAX 64
#define HELD_WORD_MAX     64 /* name of a driver or of a template language */
#define WRAPPED_SIZE      (24 + KEY_SIZE + 16)
#define SEALED_OVERHEAD   (24 + 16)

struct held_version {
    uint32_t number;                 /* from 1, ascending */
    char value_id[NODE_ID_SIZE + 1]; /* its ROW_VALUE */
    uint32_t size;                   /* bytes of the value */
    int64_t created_ns;              /* UTC */
};

struct held_row {
    struct span labels;                 /* as in node.h */
    char templating[HELD_WORD_MAX + 1]; /* "" none, "golang" */
    struct span templating_options;     /* labels' form, kept for docker */
    char driver[HELD_WORD_MAX + 1];     /* "" none; secrets only */
    struct span driver_options;         /* labels' form; given to the driver */
    uint32_t next_version;              /* number of the next value; > those there were */
    unsigned n;                         /* versions; 0 with a driver only */
    struct held_version versions[HELD_VERSIONS_MAX];
};

RESULT held_encode(const struct held_row *h, struct buf *out); /* ERR_INVALID */
RESULT held_decode(struct span body, struct held_row *out);    /* ERR_CORRUPT */
/* The version of this number, or for 0 the newest; NULL: there is none. */
const struct held_version *held_version(const struct held_row *h, uint32_t number);
/* 1 to HELD_NAME_MAX of letters, digits, '-', '_', '.', letters or digits at both ends. */
RESULT held_name_check(struct span name, struct why *why);

struct value_row {
    enum row_kind of;               /* ROW_SECRET, ROW_CONFIG */
    char held_id[NODE_ID_SIZE + 1]; /* whose it is */
    uint32_t version;
    uint32_t epoch; /* of the cluster key; >= 1 */
    uint8_t wrapped[WRAPPED_SIZE];
    struct span sealed; /* size of the value + SEALED_OVERHEAD */
};

RESULT value_encode(const struct value_row *v, struct buf *out); /* ERR_INVALID */
RESULT value_decode(struct span body, struct value_row *out);    /* ERR_CORRUPT */

/* Rules (row_rules.c, row_between.c), whoever proposes; ERR_PRECONDITION:
 *   1. A secret or config that a service names is not removed, nor the version that one names.
 *   2. A secret has a value row for each of its versions and no others: they are made and removed
 *      in one OP_ROWS. A value row is only ever replaced to wrap its key under a higher epoch.
 *   3. next_version never goes down, and a new version is numbered from it on. A version stays what
 *      it was, a secret keeps its name.
 *   4. A value's epoch is at least the vault's oldest and at most its current one. */

#endif
