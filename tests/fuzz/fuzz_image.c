/* Any bytes as the image of a state: a restore takes them or says ERR_CORRUPT, in whatever pieces
 * they come, and what it takes has the same image. The tail with the hash is put right here, so
 * that the fuzzer gets past it. */
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static enum err feed(struct machine *m, struct span bytes, size_t piece,
                     struct machine_restore **out) {
    enum err e = OK;
    require(m->restore(m, out) == OK);
    while (e == OK && bytes.size > 0) {
        size_t size = piece < bytes.size ? piece : bytes.size;
        e = m->restore_bytes(*out, span_of(bytes.at, size));
        bytes = span_of(bytes.at + size, bytes.size - size);
    }
    require(e == OK || e == ERR_CORRUPT);
    return e;
}

static void check_same_image(struct machine *m, struct span bytes) {
    struct machine_view *v;
    struct buf out = buf_new(64 * MIB);
    bool done = false;
    require(m->view(m, &v) == OK);
    while (!done)
        require(m->view_next(v, &out, &done) == OK);
    require(span_equal(buf_span(&out), bytes));
    m->view_free(v);
    buf_free(&out);
}

/* The tail that belongs to what was read, so that a mutated image gets as far as an honest one. */
static enum err feed_tail(struct machine *m, struct machine_restore *r,
                          uint8_t tail[IMAGE_TAIL_SIZE]) {
    struct lanes others = restore_others(r);
    memcpy(tail, IMAGE_END, 8);
    put_u64(tail + 8, others.at[0]);
    put_u64(tail + 16, others.at[1]);
    state_hash(restore_state(r), tail + 24);
    return m->restore_bytes(r, span_of(tail, IMAGE_TAIL_SIZE));
}

static void run(struct machine *m, struct span content, size_t piece) {
    struct machine_restore *r;
    uint8_t tail[IMAGE_TAIL_SIZE];
    struct buf whole = buf_new(64 * MIB);
    if (feed(m, content, piece, &r) != OK || feed_tail(m, r, tail) != OK) {
        m->restore_abort(r);
        return;
    }
    enum err e = m->restore_end(r, tail + 24);
    require(e == OK || e == ERR_CORRUPT); /* it may have ended in the middle of a part */
    if (e != OK) return;
    require(buf_add_span(&whole, content) == OK);
    require(buf_add(&whole, tail, sizeof tail) == OK);
    check_same_image(m, buf_span(&whole));
    buf_free(&whole);
}

/* A byte that says how to cut, then an image without its tail. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct store *s;
    if (crypto_start(NULL) != OK || size < 1) return 0;
    require(store_new(&s) == OK);
    run(store_machine(s), span_of(data + 1, size - 1), 1U + data[0]);
    store_free(s);
    return 0;
}
