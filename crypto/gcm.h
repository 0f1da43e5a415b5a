/* AES-256-GCM under one key, in pieces, for seal.c: by libipsec-mb where the build has it and the
 * processor has the wide AES instructions (VAES with AVX-512) that it is written for, a quarter of
 * the time of OpenSSL 3.0; else by OpenSSL. Both give the same bytes.
 *
 *   begin -> add, add, ... -> end (sealing) or check (opening)
 *
 * One sealing and one opening at a time; one thread at a time. Nonces are the caller's to keep
 * apart. The key schedule lies in guarded memory, with OpenSSL in its own. */
#ifndef CONCLAVE_GCM_H
#define CONCLAVE_GCM_H

#include "crypto/base.h"

#define GCM_NONCE    12
#define GCM_TAG      16
#define GCM_SIZE_MAX (1U << 30) /* of the data under one nonce, and of what goes with it */

enum gcm_way { GCM_SEAL, GCM_OPEN };

struct gcm;

RESULT gcm_new(struct span key, struct gcm **out); /* 32 bytes, not kept; ERR_NOMEM */
void gcm_free(struct gcm *g);                      /* wipes; NULL is fine */

/* An error is ERR_INTERNAL: then it is over. `ad` is read here only. */
RESULT gcm_begin(struct gcm *g, enum gcm_way way, const uint8_t nonce[GCM_NONCE], struct span ad);
RESULT gcm_add(struct gcm *g, enum gcm_way way, struct span in,
               uint8_t *out); /* in place is fine */
RESULT gcm_end(struct gcm *g, uint8_t tag[GCM_TAG]);
RESULT gcm_check(struct gcm *g, const uint8_t tag[GCM_TAG]); /* ERR_CORRUPT: not its tag */

/* For tests and the benchmark: OpenSSL, whatever the machine could do, for all made from now on. */
void gcm_force_openssl(bool forced);
const char *gcm_name(void); /* of what is used: "libipsec-mb", "OpenSSL" */

#endif
