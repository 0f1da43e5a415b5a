/* Any bytes as users and roles, and as a row of changes of them: what decodes encodes to the same
 * bytes, and whatever changes are applied, the state stays one that decodes. */
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void check(const struct auth *a, const struct span *same) {
    struct auth *again;
    struct buf bytes = buf_new(AUTH_BYTES_MAX + KIB);
    require(auth_encode(a, &bytes) == OK);
    if (same != NULL) require(span_equal(*same, buf_span(&bytes)));
    require(auth_decode(buf_span(&bytes), &again) == OK);
    auth_free(again);
    buf_free(&bytes);
}

static void state(struct span bytes) {
    struct auth *a;
    enum err e = auth_decode(bytes, &a);
    require(e == OK || e == ERR_CORRUPT || e == ERR_NOMEM);
    if (e != OK) return;
    check(a, &bytes);
    auth_free(a);
}

static void change(struct auth *a, struct span bytes) {
    struct auth_change c;
    enum err outcome;
    struct buf again = buf_new(COMMAND_MAX);
    if (auth_change_decode(bytes, &c) != OK) return;
    require(auth_change_encode(&c, &again) == OK && span_equal(bytes, buf_span(&again)));
    uint64_t revision = auth_revision(a);
    require(auth_apply(a, &c, &outcome) == OK);
    require(auth_revision(a) - revision <= (outcome == OK ? 1 : 0));
    if (c.in.key.size != 0) (void)auth_may(a, span_str("u"), PERMISSION_BOTH, &c.in);
    buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span bytes = span_of(data, size);
    struct auth *a;
    if (crypto_start(NULL) != OK) return 0;
    state(bytes);
    require(auth_new(&a) == OK);
    while (bytes.size > 0) { /* each change behind its u8 length */
        size_t part = bytes.at[0] < bytes.size ? bytes.at[0] : bytes.size - 1;
        change(a, span_of(bytes.at + 1, part));
        bytes = span_of(bytes.at + 1 + part, bytes.size - 1 - part);
    }
    check(a, NULL);
    auth_free(a);
    return 0;
}
