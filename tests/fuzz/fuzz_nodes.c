/* Any bytes: what is asked of nodes is refused, or is what can be said again. */
#include <stdlib.h>

#include "api/node/nodes_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct node_ask a, b;
    struct buf bytes = buf_new(NODE_ASK_MAX);
    if (node_ask_decode(span_of(data, size), &a) == OK) {
        check(strlen(a.id) <= NODE_ID_SIZE && a.spec.name.size <= ROW_NAME_MAX);
        check(node_ask_encode(&a, &bytes) == OK);
        check(node_ask_decode(buf_span(&bytes), &b) == OK);
        check(a.kind == b.kind && a.force == b.force && a.version == b.version);
        check(strcmp(a.id, b.id) == 0 && a.spec.role == b.spec.role);
        check(span_equal(a.spec.name, b.spec.name) && span_equal(a.spec.labels, b.spec.labels));
    }
    buf_free(&bytes);
    return 0;
}
