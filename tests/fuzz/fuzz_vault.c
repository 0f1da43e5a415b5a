/* The decoders of cluster keys on any bytes: an escrow file as it is, one with a sum made to fit
 * (or the fuzzer never gets past it), keys as they come with an admission or from the leader. What
 * keys are taken encodes to the same bytes. */
#include "api/node/identity.h"
#include "api/secret/escrow.h"

#include <stdlib.h>

#include <sodium.h>

#define SUM_SIZE 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(uint8_t *file, size_t size) {
    if (size < 8 + SUM_SIZE) return;
    memcpy(file, "CNCLVESC", 8);
    (void)crypto_generichash(file + size - SUM_SIZE, SUM_SIZE, file, size - SUM_SIZE, NULL, 0);
}

static void try_escrow(const uint8_t *file, size_t size) {
    struct escrow_outer outer;
    struct why why;
    if (escrow_decode(span_of(file, size), &outer, &why) != OK) return;
    if (outer.head.size + outer.sealed.size + SUM_SIZE != size) abort();
    if (outer.params.cost.memory_kib > KEK_COST_MEMORY_MAX) abort();
}

static void try_keys(const uint8_t *at, size_t size) {
    struct node_identity id;
    struct span bytes = span_of(at, size);
    struct buf again = buf_new(VAULT_KEYS_SIZE);
    identity_init(&id);
    enum err e = vault_keys_check(bytes);
    if (vault_keys_take(&id, bytes) != e) abort();
    if (e != OK && id.vault_n != 0) abort();
    if (e == OK && vault_keys_encode(&id, &again) != OK) abort();
    if (e == OK && !span_equal(bytes, buf_span(&again))) abort();
    buf_wipe(&again);
    identity_clear(&id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || crypto_start(NULL) != OK) return 0;
    uint8_t *copy = malloc(size);
    if (copy == NULL) return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] % 3 == 1) mend(copy, size - 1);
    if (data[0] % 3 == 2)
        try_keys(copy, size - 1);
    else
        try_escrow(copy, size - 1);
    free(copy);
    return 0;
}
