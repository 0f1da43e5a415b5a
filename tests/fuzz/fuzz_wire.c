/* Any bytes: the frame decoder refuses them, or gives a message that encodes to the same bytes and
 * whose entries can all be read. */
#include <stdlib.h>

#include "raft/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

static void read_all_entries(const struct wire_append *a) {
    struct cursor raw = cursor_of(a->raw);
    struct wire_entry e;
    for (uint32_t i = 0; i < a->n; i++)
        check(wire_next_entry(&raw, &e) == OK);
    check(cursor_end(&raw) == OK);
}

static void decode(struct span frame) {
    struct wire_message m;
    if (wire_decode(frame, &m) != OK) return;
    if (m.type == WIRE_APPEND) read_all_entries(&m.append);
    struct buf again = buf_new(FRAME_MAX);
    check(wire_encode(&m, &again) == OK);
    check(span_equal(buf_span(&again), frame));
    buf_free(&again);
}

/* As given, and once more with a length that fits, so that the fields are reached. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    decode(span_of(data, size));
    struct buf frame = buf_new(FRAME_MAX);
    if (size > 0 && size < FRAME_MAX - 4 && buf_u32(&frame, (uint32_t)size) == OK &&
        buf_add(&frame, data, size) == OK)
        decode(buf_span(&frame));
    buf_free(&frame);
    return 0;
}
