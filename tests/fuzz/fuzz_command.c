/* Any bytes as a command: decoding never fails in an unforeseen way, what is decoded encodes to the
 * same bytes, and applying it keeps the state whole. */
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/command.h"
#include "store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void round_trip(struct span bytes) {
    struct command c;
    struct buf again = buf_new(COMMAND_MAX);
    enum err e = command_decode(bytes, &c);
    require(e == OK || err_http(e) == 400 || e == ERR_UNSUPPORTED);
    if (e != OK || bytes.size > COMMAND_MAX) return;
    require(command_encode(&c, &again) == OK);
    require(span_equal(bytes, buf_span(&again)));
    buf_free(&again);
}

/* The input is a row of commands, each behind its u8 length. */
static void apply_all(struct span bytes) {
    struct store *s;
    struct buf result = buf_new(RESULT_MAX);
    struct result r;
    uint64_t revision = 1;
    require(store_new(&s) == OK);
    struct machine *m = store_machine(s);
    for (uint64_t index = 1; bytes.size > 0; index++) {
        size_t size = bytes.at[0] < bytes.size ? bytes.at[0] : bytes.size - 1;
        buf_clear(&result);
        require(m->apply(m, index, span_of(bytes.at + 1, size), &result, NULL) == OK);
        require(result_decode(buf_span(&result), &r) == OK);
        require(store_revision(s) >= revision);
        revision = store_revision(s);
        bytes = span_of(bytes.at + 1 + size, bytes.size - 1 - size);
    }
    buf_free(&result);
    store_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (crypto_start(NULL) != OK) return 0;
    round_trip(span_of(data, size));
    apply_all(span_of(data, size));
    return 0;
}
