/* See pb.h. Numbers are varints of at most 10 bytes. A length is one byte where it fits (below
 * 128); pb_close makes room when it does not. */
#include "api/etcd/pb.h"

#include "store/store.h"

#define VARINT_MAX 10 /* bytes of a varint */
enum wire_type { WIRE_VARINT = 0, WIRE_BLOCK = 2 };

static size_t varint_size(uint64_t v) {
    size_t n = 1;
    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static size_t varint_put(uint8_t *at, uint64_t v) {
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        at[n++] = (uint8_t)(v | 0x80);
    at[n++] = (uint8_t)v;
    return n;
}

/* Into room that is there. */
static void add_varint(struct buf *b, uint64_t v) { b->size += varint_put(b->at + b->size, v); }

static void add_tag(struct buf *b, unsigned field, enum wire_type type) {
    add_varint(b, (uint64_t)field << 3 | type);
}

RESULT pb_number(struct buf *b, unsigned field, uint64_t v) {
    if (v == 0) return OK;
    TRY(buf_reserve(b, 2 * VARINT_MAX));
    add_tag(b, field, WIRE_VARINT);
    add_varint(b, v);
    return OK;
}

RESULT pb_bytes(struct buf *b, unsigned field, struct span s) {
    if (s.size == 0) return OK;
    TRY(buf_reserve(b, 2 * VARINT_MAX + s.size));
    add_tag(b, field, WIRE_BLOCK);
    add_varint(b, s.size);
    memcpy(b->at + b->size, s.at, s.size);
    b->size += s.size;
    return OK;
}

RESULT pb_open(struct buf *b, unsigned field, size_t *mark) {
    TRY(buf_reserve(b, VARINT_MAX + 1));
    add_tag(b, field, WIRE_BLOCK);
    b->at[b->size++] = 0;
    *mark = b->size;
    return OK;
}

RESULT pb_close(struct buf *b, size_t mark) {
    size_t size = b->size - mark, more = varint_size(size) - 1;
    if (more > 0) {
        TRY(buf_reserve(b, more));
        memmove(b->at + mark + more, b->at + mark, size);
        b->size += more;
    }
    (void)varint_put(b->at + mark - 1, size);
    return OK;
}

RESULT pb_kv(struct buf *b, unsigned field, const struct kv *kv, bool value) {
    size_t mark;
    TRY(pb_open(b, field, &mark));
    TRY(pb_bytes(b, 1, kv->key));
    TRY(pb_number(b, 2, kv->create_revision));
    TRY(pb_number(b, 3, kv->mod_revision));
    TRY(pb_number(b, 4, kv->version));
    if (value) TRY(pb_bytes(b, 5, kv->value));
    TRY(pb_number(b, 6, kv->lease));
    return pb_close(b, mark);
}
