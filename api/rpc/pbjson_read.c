/* See pbjson.h. A message within a message gets a length of four bytes, filled in when it is whole:
 * a varint may be longer than it must be, and nothing has to be moved. */
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>

#include "api/etcd/rpc.pb-c.h"
#include "api/rpc/pbjson.h"

#define LENGTH_SIZE 4 /* of a message within a message */
#define LENGTH_MAX  (1U << (7 * LENGTH_SIZE))
#define EXACT_MAX   9007199254740992.0 /* 2^53: doubles are exact below */

enum { WIRE_VARINT = 0, WIRE_BLOCK = 2 };

const ProtobufCMessageDescriptor *pbjson_inner(const ProtobufCMessageDescriptor *type,
                                               const ProtobufCFieldDescriptor *field) {
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) return field->descriptor;
    if (type == &etcdserverpb__request_op__descriptor && field->id == 4)
        return &etcdserverpb__txn_request__descriptor;
    if (type == &etcdserverpb__response_op__descriptor && field->id == 4)
        return &etcdserverpb__txn_response__descriptor;
    return NULL;
}

/* --- the wire --------------------------------------------------------------------------------- */

static RESULT put_varint(struct buf *b, uint64_t v) {
    TRY(buf_reserve(b, 10));
    for (; v >= 0x80; v >>= 7)
        b->at[b->size++] = (uint8_t)(v | 0x80);
    b->at[b->size++] = (uint8_t)v;
    return OK;
}

static RESULT put_tag(struct buf *b, const ProtobufCFieldDescriptor *field, unsigned wire_type) {
    return put_varint(b, (uint64_t)field->id << 3 | wire_type);
}

static RESULT open_message(struct buf *b, const ProtobufCFieldDescriptor *field, size_t *mark) {
    static const uint8_t zeros[LENGTH_SIZE];
    TRY(put_tag(b, field, WIRE_BLOCK));
    TRY(buf_add(b, zeros, sizeof zeros));
    *mark = b->size;
    return OK;
}

static RESULT close_message(struct buf *b, size_t mark) {
    size_t size = b->size - mark;
    if (size >= LENGTH_MAX) return ERR_TOO_LARGE;
    for (unsigned i = 0; i < LENGTH_SIZE; i++)
        b->at[mark - LENGTH_SIZE + i] =
            (uint8_t)((size >> (7 * i) & 0x7f) | (i + 1 < LENGTH_SIZE ? 0x80 : 0));
    return OK;
}

/* --- single values ---------------------------------------------------------------------------- */

static RESULT wrong(const ProtobufCFieldDescriptor *field, const char *what, struct why *why) {
    return fail_with(why, ERR_INVALID, "field %s is not %s", field->name, what);
}

/* Decimal digits, with a sign if `negative` may be. */
static bool parse_digits(const char *text, bool is_signed, uint64_t *out) {
    bool minus = is_signed && text[0] == '-';
    uint64_t n = 0, most = !is_signed ? UINT64_MAX : minus ? 1ULL << 63 : (1ULL << 63) - 1;
    if (minus) text++;
    if (!*text) return false;
    for (; *text; text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (*text < '0' || *text > '9' || n > (most - digit) / 10) return false;
        n = n * 10 + digit;
    }
    *out = minus ? 0 - n : n;
    return true;
}

static bool parse_integer(const json_t *value, bool is_signed, uint64_t *out) {
    if (json_is_string(value))
        return strlen(json_string_value(value)) == json_string_length(value) &&
               parse_digits(json_string_value(value), is_signed, out);
    double real = json_number_value(value);
    if (json_is_real(value) && real > -EXACT_MAX && real < EXACT_MAX &&
        (double)(int64_t)real == real && (is_signed || real >= 0)) {
        *out = (uint64_t)(int64_t)real;
        return true;
    }
    if (!json_is_integer(value) || (!is_signed && json_integer_value(value) < 0)) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static RESULT put_integer(struct buf *b, const ProtobufCFieldDescriptor *field, const json_t *value,
                          struct why *why) {
    uint64_t n = 0;
    bool is_signed = field->type == PROTOBUF_C_TYPE_INT32 || field->type == PROTOBUF_C_TYPE_INT64;
    bool narrow = field->type == PROTOBUF_C_TYPE_INT32 || field->type == PROTOBUF_C_TYPE_UINT32;
    if (!parse_integer(value, is_signed, &n) ||
        (narrow && (is_signed ? (int64_t)n != (int32_t)n : n > UINT32_MAX)))
        return wrong(field, "an integer of its range", why);
    TRY(put_tag(b, field, WIRE_VARINT));
    return put_varint(b, n);
}

static RESULT put_enum(struct buf *b, const ProtobufCFieldDescriptor *field, const json_t *value,
                       struct why *why) {
    uint64_t n = 0;
    const char *name = json_string_value(value);
    const ProtobufCEnumValue *known =
        name ? protobuf_c_enum_descriptor_get_value_by_name(field->descriptor, name) : NULL;
    if (known)
        n = (uint64_t)(int64_t)known->value;
    else if (!parse_integer(value, true, &n) || (int64_t)n != (int32_t)n)
        return wrong(field, "a name or number of its kind", why);
    TRY(put_tag(b, field, WIRE_VARINT));
    return put_varint(b, n);
}

static RESULT put_text(struct buf *b, const ProtobufCFieldDescriptor *field, const json_t *value,
                       struct why *why) {
    if (!json_is_string(value)) return wrong(field, "a text", why);
    TRY(put_tag(b, field, WIRE_BLOCK));
    TRY(put_varint(b, json_string_length(value)));
    return buf_add(b, json_string_value(value), json_string_length(value));
}

#define LINE_BREAKS "\r\n" /* in base64, where Go's decoder passes over them */

/* Which of libsodium's alphabets a text is written in. */
static int base64_variant(const char *text, size_t size) {
    bool url = memchr(text, '-', size) || memchr(text, '_', size);
    size_t signs = 0;
    for (size_t i = 0; i < size; i++)
        signs += memchr(LINE_BREAKS, text[i], 2) == NULL;
    bool padded = signs % 4 == 0;
    if (url)
        return padded ? sodium_base64_VARIANT_URLSAFE : sodium_base64_VARIANT_URLSAFE_NO_PADDING;
    return padded ? sodium_base64_VARIANT_ORIGINAL : sodium_base64_VARIANT_ORIGINAL_NO_PADDING;
}

static RESULT put_bytes(struct buf *b, const ProtobufCFieldDescriptor *field, const json_t *value,
                        struct why *why) {
    if (!json_is_string(value)) return wrong(field, "base64", why);
    const char *text = json_string_value(value);
    size_t size = json_string_length(value), got = 0, mark;
    TRY(open_message(b, field, &mark));
    TRY(buf_reserve(b, size / 4 * 3 + 3));
    if (sodium_base642bin(b->at + b->size, size / 4 * 3 + 3, text, size, LINE_BREAKS, &got, NULL,
                          base64_variant(text, size)) != 0)
        return wrong(field, "base64", why);
    b->size += got;
    return close_message(b, mark);
}

static RESULT put_single(struct buf *b, const ProtobufCFieldDescriptor *field, const json_t *value,
                         struct why *why) {
    switch ((unsigned)field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64: return put_integer(b, field, value, why);
    case PROTOBUF_C_TYPE_ENUM: return put_enum(b, field, value, why);
    case PROTOBUF_C_TYPE_STRING: return put_text(b, field, value, why);
    case PROTOBUF_C_TYPE_BYTES: return put_bytes(b, field, value, why);
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(value)) return wrong(field, "true or false", why);
        TRY(put_tag(b, field, WIRE_VARINT));
        return put_varint(b, json_is_true(value));
    default: return ERR_INTERNAL; /* no message of etcd's has any other */
    }
}

/* --- messages --------------------------------------------------------------------------------- */

struct frame {
    const ProtobufCMessageDescriptor *type; /* of the object */
    json_t *object;                         /* being read */
    void *at;                               /* iterator: the next member */
    const ProtobufCFieldDescriptor *field;  /* whose array is being read */
    const json_t *array;                    /* that array; NULL: none */
    size_t i;                               /* its next element */
    size_t mark;                            /* where the message's length goes */
};

/* range_end, or rangeEnd. */
static bool is_camel(const char *name, const char *camel) {
    for (; *name; name++, camel++) {
        char want = *name;
        if (want == '_' && name[1]) {
            name++;
            want = *name >= 'a' && *name <= 'z' ? (char)(*name - 'a' + 'A') : *name;
        }
        if (*camel != want) return false;
    }
    return !*camel;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type,
                                                  const char *name) {
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(type, name);
    for (unsigned i = 0; !field && i < type->n_fields; i++)
        if (is_camel(type->fields[i].name, name)) field = &type->fields[i];
    return field;
}

/* A value of `field`: put, or its message opened as the next frame. */
static RESULT enter(struct frame *frames, unsigned *depth, const ProtobufCFieldDescriptor *field,
                    json_t *value, struct buf *wire, struct why *why) {
    const ProtobufCMessageDescriptor *inner = pbjson_inner(frames[*depth - 1].type, field);
    if (!inner) return put_single(wire, field, value, why);
    if (!json_is_object(value)) return wrong(field, "an object", why);
    if (*depth == GATEWAY_DEPTH_MAX)
        return fail_with(why, ERR_INVALID, "objects are nested too deeply");
    struct frame *f = &frames[(*depth)++];
    *f = (struct frame){.type = inner, .object = value, .at = json_object_iter(value)};
    return open_message(wire, field, &f->mark);
}

static RESULT next_member(struct frame *frames, unsigned *depth, struct buf *wire,
                          struct why *why) {
    struct frame *f = &frames[*depth - 1];
    const char *name = json_object_iter_key(f->at);
    json_t *value = json_object_iter_value(f->at);
    f->at = json_object_iter_next(f->object, f->at);
    const ProtobufCFieldDescriptor *field = find_field(f->type, name);
    if (!field || json_is_null(value)) return OK;
    if (field->label != PROTOBUF_C_LABEL_REPEATED)
        return enter(frames, depth, field, value, wire, why);
    if (!json_is_array(value)) return wrong(field, "an array", why);
    f->field = field;
    f->array = value;
    f->i = 0;
    return OK;
}

RESULT pbjson_read(const ProtobufCMessageDescriptor *type, const json_t *object, struct buf *wire,
                   struct why *why) {
    struct frame frames[GATEWAY_DEPTH_MAX];
    unsigned depth = 1;
    json_t *top = (json_t *)(uintptr_t)object; /* its iterators want it so; nothing is changed */
    frames[0] = (struct frame){.type = type, .object = top, .at = json_object_iter(top)};
    while (depth > 0) {
        struct frame *f = &frames[depth - 1];
        if (f->array && f->i < json_array_size(f->array)) {
            json_t *element = json_array_get(f->array, f->i++);
            TRY(enter(frames, &depth, f->field, element, wire, why));
        } else if (f->array) {
            f->array = NULL;
        } else if (f->at) {
            TRY(next_member(frames, &depth, wire, why));
        } else {
            if (--depth > 0) TRY(close_message(wire, f->mark));
        }
    }
    return OK;
}
