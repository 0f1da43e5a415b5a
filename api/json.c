/* See json.h. Base64 is libsodium's, which takes the same time for all data. */
#include "api/json.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>

void jout_start(struct jout *j, struct buf *out) { *j = (struct jout){.out = out}; }

RESULT jout_end(struct jout *j) {
    if (j->error == OK && j->depth != 0) return ERR_INTERNAL;
    return j->error;
}

static void add(struct jout *j, const void *at, size_t size) {
    if (j->error == OK) j->error = buf_add(j->out, at, size);
}

static void before_value(struct jout *j) {
    if (j->keyed) {
        j->keyed = false;
        return;
    }
    if (j->depth == 0) return;
    if (j->more[j->depth - 1]) add(j, ",", 1);
    j->more[j->depth - 1] = true;
}

void jout_open(struct jout *j, char bracket) {
    before_value(j);
    if (j->depth == JOUT_DEPTH_MAX) {
        if (j->error == OK) j->error = ERR_INTERNAL;
        return;
    }
    j->more[j->depth++] = false;
    add(j, &bracket, 1);
}

void jout_close(struct jout *j, char bracket) {
    if (j->depth > 0) j->depth--;
    add(j, &bracket, 1);
}

void jout_key(struct jout *j, const char *key) { jout_key_span(j, span_str(key)); }

/* Bytes of the UTF-8 character at `at`, 0 when it is none (RFC 3629: shortest form, no surrogates).
 */
static size_t utf8_size(const uint8_t *at, size_t left) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = at[0];
    size_t size = first < 0x80       ? 1
                  : first >> 5 == 6  ? 2
                  : first >> 4 == 14 ? 3
                  : first >> 3 == 30 ? 4
                                     : 0;
    if (size <= 1) return size;
    if (size > left) return 0;
    uint32_t code = first & (0xffU >> (size + 1));
    for (size_t i = 1; i < size; i++) {
        if (at[i] >> 6 != 2) return 0;
        code = code << 6 | (at[i] & 0x3fU);
    }
    return code < least[size] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : size;
}

static void add_escaped(struct jout *j, uint8_t c) {
    if (c == '"' || c == '\\') {
        char pair[2] = {'\\', (char)c};
        add(j, pair, 2);
        return;
    }
    if (j->error != OK) return;
    j->error = c == '\n' ? buf_add(j->out, "\\n", 2) : buf_format(j->out, "\\u%04x", c);
}

void jout_text(struct jout *j, struct span text) {
    before_value(j);
    add(j, "\"", 1);
    size_t plain = 0; /* bytes before i that go out as they are */
    for (size_t i = 0; i < text.size;) {
        uint8_t c = text.at[i];
        size_t size = utf8_size(text.at + i, text.size - i);
        if (size > 0 && c >= 0x20 && c != '"' && c != '\\') {
            i += size;
            continue;
        }
        add(j, text.at + plain, i - plain);
        if (size == 0)
            add(j, "\xef\xbf\xbd", 3);
        else
            add_escaped(j, c);
        plain = ++i;
    }
    if (text.size > plain) add(j, text.at + plain, text.size - plain);
    add(j, "\"", 1);
}

void jout_base64(struct jout *j, struct span bytes) {
    before_value(j);
    add(j, "\"", 1);
    if (j->error == OK && bytes.size > 0) {
        size_t room = sodium_base64_encoded_len(bytes.size, sodium_base64_VARIANT_ORIGINAL);
        j->error = buf_reserve(j->out, room);
        if (j->error == OK) {
            (void)sodium_bin2base64((char *)j->out->at + j->out->size, room, bytes.at, bytes.size,
                                    sodium_base64_VARIANT_ORIGINAL);
            j->out->size += room - 1;
        }
    }
    add(j, "\"", 1);
}

static void add_number(struct jout *j, const char *format, uint64_t value) {
    before_value(j);
    char text[32];
    int size = snprintf(text, sizeof text, "%" PRIu64, value);
    add(j, format, strlen(format));
    add(j, text, (size_t)size);
    add(j, format, strlen(format));
}

void jout_number(struct jout *j, uint64_t value) { add_number(j, "", value); }
void jout_quoted(struct jout *j, uint64_t value) { add_number(j, "\"", value); }

void jout_bool(struct jout *j, bool value) {
    before_value(j);
    add(j, value ? "true" : "false", value ? 4 : 5);
}

void jout_raw(struct jout *j, struct span json) {
    before_value(j);
    add(j, json.at, json.size);
}

void jout_put_text(struct jout *j, const char *key, const char *text) {
    jout_key(j, key);
    jout_text(j, span_str(text));
}

void jout_put_number(struct jout *j, const char *key, uint64_t value) {
    jout_key(j, key);
    jout_number(j, value);
}

void jout_put_quoted(struct jout *j, const char *key, uint64_t value) {
    if (value == 0) return;
    jout_key(j, key);
    jout_quoted(j, value);
}

void jout_put_bool(struct jout *j, const char *key, bool value) {
    jout_key(j, key);
    jout_bool(j, value);
}

void jout_put_hex(struct jout *j, const char *key, struct span bytes) {
    static const char digits[] = "0123456789abcdef";
    jout_key(j, key);
    before_value(j);
    add(j, "\"", 1);
    for (size_t i = 0; i < bytes.size; i++) {
        char pair[2] = {digits[bytes.at[i] >> 4], digits[bytes.at[i] & 15]};
        add(j, pair, 2);
    }
    add(j, "\"", 1);
}

void jout_key_span(struct jout *j, struct span key) {
    jout_text(j, key);
    add(j, ":", 1);
    j->keyed = true;
}

RESULT jin_parse(struct span text, json_t **out, struct why *why) {
    if (text.size == 0) {
        *out = json_object();
        return *out ? OK : ERR_NOMEM;
    }
    json_error_t error;
    json_t *value = json_loadb((const char *)text.at, text.size, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        return fail_with(why, ERR_INVALID, "not JSON: line %d, column %d: %s", error.line,
                         error.column, error.text);
    if (!json_is_object(value)) {
        json_decref(value);
        return fail_with(why, ERR_INVALID, "not a JSON object");
    }
    *out = value;
    return OK;
}

static const json_t *field(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

RESULT jin_bytes(const json_t *object, const char *key, struct buf *out, struct why *why) {
    const json_t *value = field(object, key);
    if (!value) return OK;
    if (!json_is_string(value))
        return fail_with(why, ERR_INVALID, "field %s is no base64 text", key);
    size_t size = json_string_length(value), got = 0;
    size_t most = size / 4 * 3 + 3;
    if (most > out->max + 6) return fail_with(why, ERR_TOO_LARGE, "field %s is too large", key);
    struct buf bytes = buf_new(most);
    TRY(buf_reserve(&bytes, most));
    if (sodium_base642bin(bytes.at, most, json_string_value(value), size, NULL, &got, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0) {
        buf_wipe(&bytes);
        return fail_with(why, ERR_INVALID, "field %s is not base64", key);
    }
    enum err e = got > out->max - out->size
                     ? fail_with(why, ERR_TOO_LARGE, "field %s is too large", key)
                     : buf_add(out, bytes.at, got);
    buf_wipe(&bytes);
    return e;
}

RESULT jin_text(const json_t *object, const char *key, char *out, size_t room, struct why *why) {
    const json_t *value = field(object, key);
    if (!value) return OK;
    size_t size = json_string_length(value);
    if (!json_is_string(value) || size >= room || strlen(json_string_value(value)) != size)
        return fail_with(why, ERR_INVALID, "field %s is no text of less than %zu bytes", key, room);
    memcpy(out, json_string_value(value), size + 1);
    return OK;
}

RESULT jin_u64(const json_t *object, const char *key, uint64_t *out, struct why *why) {
    const json_t *value = field(object, key);
    if (!value) return OK;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *out = (uint64_t)json_integer_value(value);
        return OK;
    }
    const char *text = json_is_string(value) ? json_string_value(value) : "";
    size_t size = strlen(text);
    errno = 0;
    unsigned long long number = strtoull(text, NULL, 10);
    if (size == 0 || strspn(text, "0123456789") != size || errno == ERANGE)
        return fail_with(why, ERR_INVALID, "field %s is no number", key);
    *out = number;
    return OK;
}

RESULT jin_bool(const json_t *object, const char *key, bool *out, struct why *why) {
    const json_t *value = field(object, key);
    if (!value) return OK;
    if (!json_is_boolean(value))
        return fail_with(why, ERR_INVALID, "field %s is not true or false", key);
    *out = json_is_true(value);
    return OK;
}

const char *jin_string(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

void jin_wipe(json_t *object) {
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        (void)key;
        if (!json_is_string(value)) continue;
        /* jansson owns this memory and lets nobody else write to it; it is about to be freed. */
        sodium_memzero((char *)(uintptr_t)json_string_value(value), json_string_length(value));
    }
}
