/* The keyring's decoders on any bytes. The first byte chooses: the outer file as it is, the outer
 * file with its checksums made to fit (or the fuzzer never gets past them), or an opened body. */
#include "crypto/kek.h"
#include "crypto/limits.h"

#include <stdlib.h>

#include <sodium.h>

#define HEAD_SIZE 72
#define SUM_SIZE  16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_outer(uint8_t *file, size_t size) {
    struct keyring_outer outer;
    struct why why;
    if (keyring_outer_decode(span_of(file, size), &outer, &why) != OK) return;
    if (outer.head.size + outer.sealed.size + SUM_SIZE != size) abort();
    if (outer.params.kind > KEK_FILE) abort();
}

static void mend(uint8_t *file, size_t size) {
    if (size < HEAD_SIZE + SUM_SIZE) return;
    memcpy(file, "CNCLVRNG", 8);
    put_u32(file + 52, (uint32_t)(size - HEAD_SIZE - 2 * SUM_SIZE));
    (void)crypto_generichash(file + HEAD_SIZE - SUM_SIZE, SUM_SIZE, file, HEAD_SIZE - SUM_SIZE,
                             NULL, 0);
    (void)crypto_generichash(file + size - SUM_SIZE, SUM_SIZE, file + HEAD_SIZE,
                             size - HEAD_SIZE - SUM_SIZE, NULL, 0);
}

static void try_body(const uint8_t *at, size_t size) {
    struct keyring_body body;
    if (keyring_body_decode(span_of(at, size), &body) != OK) return;
    size_t total = 8 + body.identity.size;
    for (uint32_t i = 0; i < body.count; i++)
        total += 4 + body.deks[i].size;
    if (total != size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    uint8_t *copy = malloc(size);
    if (copy == NULL) return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] % 3 == 1) mend(copy, size - 1);
    if (data[0] % 3 == 2)
        try_body(copy, size - 1);
    else
        try_outer(copy, size - 1);
    free(copy);
    return 0;
}
