/* See pbjson.h. The wire form is walked as it is; no message is built. */
#include <inttypes.h>
#include <stdio.h>

#include "api/rpc/pbjson.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BLOCK = 2, WIRE_32 = 5 };

struct frame {
    const ProtobufCMessageDescriptor *type; /* of the message */
    struct cursor in;                       /* what is left of it */
    const ProtobufCFieldDescriptor *field;  /* whose array is open; NULL: none */
};

/* A value on the wire. */
struct item {
    const ProtobufCFieldDescriptor *field; /* NULL: none that we know */
    unsigned wire_type;
    uint64_t number;   /* a varint */
    struct span bytes; /* a block */
};

static RESULT take_varint(struct cursor *c, uint64_t *out) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte;
        TRY(cursor_u8(c, &byte));
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = v;
            return OK;
        }
    }
    return ERR_PROTOCOL;
}

static RESULT take_item(struct frame *f, struct item *item) {
    uint64_t tag, size;
    TRY(take_varint(&f->in, &tag));
    item->field = tag >> 3 <= UINT32_MAX
                      ? protobuf_c_message_descriptor_get_field(f->type, (unsigned)(tag >> 3))
                      : NULL;
    item->wire_type = tag & 7;
    switch (item->wire_type) {
    case WIRE_VARINT: return take_varint(&f->in, &item->number);
    case WIRE_64: return cursor_bytes(&f->in, 8, &item->bytes);
    case WIRE_32: return cursor_bytes(&f->in, 4, &item->bytes);
    case WIRE_BLOCK:
        TRY(take_varint(&f->in, &size));
        return size > f->in.left ? ERR_PROTOCOL : cursor_bytes(&f->in, (size_t)size, &item->bytes);
    default: return ERR_PROTOCOL;
    }
}

/* --- single values ---------------------------------------------------------------------------- */

static void put_signed(struct jout *j, int64_t n, bool quoted) {
    char text[32];
    const char *quote = quoted ? "\"" : "";
    int size = snprintf(text, sizeof text, "%s%" PRId64 "%s", quote, n, quote);
    jout_raw(j, span_of(text, (size_t)size));
}

static void put_enum(struct jout *j, const ProtobufCEnumDescriptor *type, int value) {
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);
    if (known)
        jout_text(j, span_str(known->name));
    else
        put_signed(j, value, false);
}

static void put_number(struct jout *j, const ProtobufCFieldDescriptor *field, uint64_t n) {
    switch ((unsigned)field->type) {
    case PROTOBUF_C_TYPE_INT64: put_signed(j, (int64_t)n, true); return;
    case PROTOBUF_C_TYPE_UINT64: jout_quoted(j, n); return;
    case PROTOBUF_C_TYPE_INT32: put_signed(j, (int32_t)n, false); return;
    case PROTOBUF_C_TYPE_BOOL: jout_bool(j, n != 0); return;
    case PROTOBUF_C_TYPE_ENUM: put_enum(j, field->descriptor, (int32_t)n); return;
    default: jout_number(j, n & UINT32_MAX); return;
    }
}

static bool is_number(const ProtobufCFieldDescriptor *field) {
    return field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_BYTES &&
           field->type != PROTOBUF_C_TYPE_MESSAGE;
}

/* Numbers of a repeated field in one block. */
static RESULT put_packed(struct jout *j, const ProtobufCFieldDescriptor *field, struct span bytes) {
    struct cursor c = cursor_of(bytes);
    while (c.left > 0) {
        uint64_t n;
        TRY(take_varint(&c, &n));
        put_number(j, field, n);
    }
    return OK;
}

static RESULT put_single(struct jout *j, const struct item *item) {
    const ProtobufCFieldDescriptor *field = item->field;
    if (is_number(field)) {
        if (item->wire_type == WIRE_BLOCK && field->label == PROTOBUF_C_LABEL_REPEATED)
            return put_packed(j, field, item->bytes);
        if (item->wire_type != WIRE_VARINT) return ERR_PROTOCOL;
        put_number(j, field, item->number);
        return OK;
    }
    if (item->wire_type != WIRE_BLOCK) return ERR_PROTOCOL;
    if (field->type == PROTOBUF_C_TYPE_STRING)
        jout_text(j, item->bytes);
    else
        jout_base64(j, item->bytes);
    return OK;
}

/* A zero that proto3 would not have sent. Members of a oneof and of arrays say something by being
 * there. */
static bool is_nothing(const struct item *item, const ProtobufCMessageDescriptor *inner) {
    const ProtobufCFieldDescriptor *field = item->field;
    if (inner || field->label == PROTOBUF_C_LABEL_REPEATED ||
        (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
        return false;
    return item->wire_type == WIRE_VARINT ? item->number == 0 : item->bytes.size == 0;
}

/* --- messages --------------------------------------------------------------------------------- */

static void close_array(struct jout *j, struct frame *f) {
    if (f->field) jout_close(j, ']');
    f->field = NULL;
}

static void open_field(struct jout *j, struct frame *f, const ProtobufCFieldDescriptor *field) {
    if (f->field == field) return;
    close_array(j, f);
    jout_key(j, field->name);
    if (field->label != PROTOBUF_C_LABEL_REPEATED) return;
    jout_open(j, '[');
    f->field = field;
}

static RESULT next_item(struct frame *frames, unsigned *depth, struct jout *j) {
    struct frame *f = &frames[*depth - 1];
    struct item item = {0};
    TRY(take_item(f, &item));
    if (!item.field) return OK;
    const ProtobufCMessageDescriptor *inner = pbjson_inner(f->type, item.field);
    if (is_nothing(&item, inner)) return OK;
    open_field(j, f, item.field);
    if (!inner) return put_single(j, &item);
    if (item.wire_type != WIRE_BLOCK || *depth == GATEWAY_DEPTH_MAX) return ERR_PROTOCOL;
    jout_open(j, '{');
    frames[(*depth)++] = (struct frame){.type = inner, .in = cursor_of(item.bytes)};
    return OK;
}

RESULT pbjson_write(const ProtobufCMessageDescriptor *type, struct span wire, struct jout *j) {
    struct frame frames[GATEWAY_DEPTH_MAX];
    unsigned depth = 1;
    frames[0] = (struct frame){.type = type, .in = cursor_of(wire)};
    jout_open(j, '{');
    while (depth > 0 && j->error == OK) {
        struct frame *f = &frames[depth - 1];
        if (f->in.left > 0) {
            TRY(next_item(frames, &depth, j));
            continue;
        }
        close_array(j, f);
        jout_close(j, '}');
        depth--;
    }
    return j->error;
}
