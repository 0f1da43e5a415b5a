/* The implementation of base.h: the error table, sentences about errors, bounded bytes, the cursor.
 */
#include "crypto/base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#undef fail_with /* what base.h tells the static analyser */
#undef fail_in

static const struct {
    const char *name;
    const char *text;
    int http;
    int grpc;
    int exit;
} errors[ERR_COUNT] = {
#define X(name, text, http, grpc, exit) {#name, text, http, grpc, exit},
    ERRORS(X)
#undef X
};

static enum err known(enum err e) { return (unsigned)e < ERR_COUNT ? e : ERR_INTERNAL; }

const char *err_name(enum err e) { return errors[known(e)].name; }
const char *err_text(enum err e) { return errors[known(e)].text; }
int err_http(enum err e) { return errors[known(e)].http; }
int err_grpc(enum err e) { return errors[known(e)].grpc; }
int err_exit(enum err e) { return errors[known(e)].exit; }

enum err err_from_errno(int os_error) {
    switch (os_error) {
    case 0: return OK;
    case ENOMEM: return ERR_NOMEM;
    case ENOSPC:
    case EDQUOT: return ERR_NOSPACE;
    case EROFS: return ERR_READONLY;
    case ENOENT: return ERR_NOT_FOUND;
    case EEXIST: return ERR_EXISTS;
    case EACCES:
    case EPERM: return ERR_PERMISSION;
    case EADDRINUSE: return ERR_IN_USE;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH: return ERR_UNREACHABLE;
    case ETIMEDOUT: return ERR_TIMEOUT;
    default: return ERR_IO;
    }
}

enum err fail_with(struct why *why, enum err e, const char *format, ...) {
    if (why == NULL) return e;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    return e;
}

enum err fail_in(struct why *why, enum err e, const char *prefix) {
    if (why == NULL) return e;
    struct why old = *why;
    const char *rest = old.text[0] != '\0' ? old.text : err_text(e);
    (void)snprintf(why->text, sizeof why->text, "%s: %.*s", prefix,
                   (int)(sizeof why->text - 3 - strnlen(prefix, sizeof why->text / 2)), rest);
    return e;
}

bool span_equal(struct span a, struct span b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.at, b.at, a.size) == 0);
}

int span_compare(struct span a, struct span b) {
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.at, b.at, common);
    if (order != 0) return order;
    return (a.size > b.size) - (a.size < b.size);
}

void buf_free(struct buf *b) {
    free(b->at);
    *b = (struct buf){.max = b->max, .wiped = b->wiped};
}

void buf_wipe(struct buf *b) {
    if (b->at != NULL) sodium_memzero(b->at, b->room);
    buf_free(b);
}

/* realloc may move the bytes and leave the old ones in freed memory. */
static uint8_t *move(const struct buf *b, size_t room) {
    uint8_t *at = malloc(room);
    if (at && b->at) {
        memcpy(at, b->at, b->size);
        sodium_memzero(b->at, b->room);
        free(b->at);
    }
    return at;
}

RESULT buf_reserve(struct buf *b, size_t more) {
    if (more > b->max || b->size > b->max - more) return ERR_TOO_LARGE;
    size_t need = b->size + more;
    if (need <= b->room) return OK;
    size_t room = b->room < 64 ? 64 : b->room;
    while (room < need)
        room = room > b->max / 2 ? b->max : room * 2;
    uint8_t *at = b->wiped ? move(b, room) : realloc(b->at, room);
    if (at == NULL) return ERR_NOMEM;
    b->at = at;
    b->room = room;
    return OK;
}

RESULT buf_add(struct buf *b, const void *at, size_t size) {
    TRY(buf_reserve(b, size));
    if (size != 0) memcpy(b->at + b->size, at, size);
    b->size += size;
    return OK;
}

RESULT buf_add_span(struct buf *b, struct span s) { return buf_add(b, s.at, s.size); }
RESULT buf_u8(struct buf *b, uint8_t v) { return buf_add(b, &v, 1); }

RESULT buf_u16(struct buf *b, uint16_t v) {
    uint8_t raw[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    return buf_add(b, raw, sizeof raw);
}

RESULT buf_u32(struct buf *b, uint32_t v) {
    uint8_t raw[4];
    put_u32(raw, v);
    return buf_add(b, raw, sizeof raw);
}

RESULT buf_u64(struct buf *b, uint64_t v) {
    uint8_t raw[8];
    put_u64(raw, v);
    return buf_add(b, raw, sizeof raw);
}

RESULT buf_block(struct buf *b, struct span s) {
    if (s.size > UINT32_MAX - 4) return ERR_TOO_LARGE;
    TRY(buf_reserve(b, s.size + 4));
    TRY(buf_u32(b, (uint32_t)s.size));
    return buf_add_span(b, s);
}

RESULT buf_format(struct buf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (need < 0) return ERR_INTERNAL;
    size_t size = (size_t)need;
    if (size >= b->max || b->size > b->max - size - 1) return ERR_TOO_LARGE;
    TRY(buf_reserve(b, size + 1));
    va_start(args, format);
    (void)vsnprintf((char *)b->at + b->size, size + 1, format, args);
    va_end(args);
    b->size += size;
    return OK;
}

RESULT cursor_bytes(struct cursor *c, size_t size, struct span *out) {
    if (size > c->left) return ERR_PROTOCOL;
    *out = span_of(c->at, size);
    if (size != 0) c->at += size;
    c->left -= size;
    return OK;
}

RESULT cursor_copy(struct cursor *c, void *out, size_t size) {
    struct span s;
    TRY(cursor_bytes(c, size, &s));
    if (size != 0) memcpy(out, s.at, size);
    return OK;
}

RESULT cursor_u8(struct cursor *c, uint8_t *out) { return cursor_copy(c, out, 1); }

RESULT cursor_u16(struct cursor *c, uint16_t *out) {
    struct span s;
    TRY(cursor_bytes(c, 2, &s));
    *out = (uint16_t)(s.at[0] | (uint16_t)(s.at[1] << 8));
    return OK;
}

RESULT cursor_u32(struct cursor *c, uint32_t *out) {
    struct span s;
    TRY(cursor_bytes(c, 4, &s));
    *out = get_u32(s.at);
    return OK;
}

RESULT cursor_u64(struct cursor *c, uint64_t *out) {
    struct span s;
    TRY(cursor_bytes(c, 8, &s));
    *out = get_u64(s.at);
    return OK;
}

RESULT cursor_block(struct cursor *c, size_t max, struct span *out) {
    struct cursor ahead = *c;
    uint32_t size;
    TRY(cursor_u32(&ahead, &size));
    if (size > max) return ERR_PROTOCOL;
    TRY(cursor_bytes(&ahead, size, out));
    *c = ahead;
    return OK;
}

RESULT cursor_text(struct cursor *c, char *out, size_t room) {
    struct span s;
    struct cursor ahead = *c;
    TRY(cursor_block(&ahead, room - 1, &s));
    if (s.size != 0 && memchr(s.at, 0, s.size) != NULL) return ERR_PROTOCOL;
    if (s.size != 0) memcpy(out, s.at, s.size);
    out[s.size] = '\0';
    *c = ahead;
    return OK;
}

RESULT cursor_end(const struct cursor *c) { return c->left == 0 ? OK : ERR_PROTOCOL; }

void put_u32(uint8_t *at, uint32_t v) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

void put_u64(uint8_t *at, uint64_t v) {
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

uint32_t get_u32(const uint8_t *at) {
    uint32_t v = 0;
    for (int i = 3; i >= 0; i--)
        v = v << 8 | at[i];
    return v;
}

uint64_t get_u64(const uint8_t *at) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | at[i];
    return v;
}
