/* Any bytes: the decoders of what nodes and managers say refuse them, or give what encodes to the
 * same bytes again. */
#include <stdlib.h>

#include "api/node/node_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

static void hello(struct span body) {
    struct node_hello h;
    struct buf again = buf_new(FRAME_MAX);
    if (node_hello_decode(body, &h) == OK) {
        check(node_hello_encode(&h, &again) == OK);
        check(span_equal(buf_span(&again), body));
    }
    buf_free(&again);
}

static void want(struct span body) {
    struct node_want w;
    struct buf again = buf_new(FRAME_MAX);
    if (node_want_decode(body, &w) == OK) {
        check(w.n <= MEMBERS_MAX);
        check(node_want_encode(&w, &again) == OK);
        check(span_equal(buf_span(&again), body));
    }
    buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    hello(span_of(data, size));
    want(span_of(data, size));
    return 0;
}
