/* The ground that everything stands on: one error type with one table, the text that explains an
 * error to a person, bounded growable bytes, and the one cursor through which all bytes come in.
 * Nothing here knows of files, sockets or keys. Thread-safe in the sense that nothing is shared.
 *
 * Errors: a function that can fail returns RESULT, which the compiler insists on being used. Where
 * a person will want to know more ("which file, which byte?"), it also takes a `struct why *`,
 * which may be NULL, and fills it with one sentence by fail_with(). TRY passes an error on. */
#ifndef CONCLAVE_BASE_H
#define CONCLAVE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* name, text for people, HTTP status, gRPC code, exit code of the command line */
#define ERRORS(X)                                                                                  \
    X(OK, "ok", 200, 0, 0)                                                                         \
    X(ERR_NOMEM, "out of memory", 503, 8, 71)                                                      \
    X(ERR_INVALID, "invalid argument", 400, 3, 64)                                                 \
    X(ERR_USAGE, "wrong usage", 400, 3, 64)                                                        \
    X(ERR_TOO_LARGE, "too large", 413, 3, 65)                                                      \
    X(ERR_NOT_FOUND, "not found", 404, 5, 1)                                                       \
    X(ERR_EXISTS, "already exists", 409, 6, 73)                                                    \
    X(ERR_PRECONDITION, "not possible in this state", 400, 9, 75)                                  \
    X(ERR_CONFLICT, "update out of sequence", 500, 10, 75)                                         \
    X(ERR_UNSUPPORTED, "not supported", 501, 12, 69)                                               \
    X(ERR_IO, "input/output error", 500, 13, 74)                                                   \
    X(ERR_NOSPACE, "no space left", 507, 8, 74)                                                    \
    X(ERR_READONLY, "read-only file system", 500, 13, 74)                                          \
    X(ERR_CORRUPT, "data is damaged", 500, 15, 76)                                                 \
    X(ERR_LOCKED, "locked: an unlock key is needed", 503, 14, 77)                                  \
    X(ERR_WRONG_KEY, "wrong key", 401, 16, 77)                                                     \
    X(ERR_IN_USE, "in use by another process", 409, 9, 75)                                         \
    X(ERR_NOT_LEADER, "not the leader", 503, 9, 75)                                                \
    X(ERR_NO_LEADER, "no leader", 503, 14, 75)                                                     \
    X(ERR_NOT_MANAGER, "this node is a worker, not a manager", 503, 9, 75)                         \
    X(ERR_MAYBE_APPLIED, "outcome unknown: it may have been applied", 503, 14, 75)                 \
    X(ERR_BUSY, "too busy, try again", 503, 8, 75)                                                 \
    X(ERR_TIMEOUT, "timed out", 504, 14, 75)                                                       \
    X(ERR_UNREACHABLE, "can't be reached", 503, 14, 69)                                            \
    X(ERR_CLOSED, "closed", 503, 14, 75)                                                           \
    X(ERR_UNAUTHENTICATED, "not authenticated", 401, 16, 77)                                       \
    X(ERR_PERMISSION, "permission denied", 403, 7, 77)                                             \
    X(ERR_CERTIFICATE, "certificate refused", 401, 16, 77)                                         \
    X(ERR_PENDING, "awaits approval", 403, 9, 75)                                                  \
    X(ERR_PROTOCOL, "protocol violation", 400, 3, 76)                                              \
    X(ERR_DIVERGED, "state differs from the other members", 500, 15, 76)                           \
    X(ERR_INTERNAL, "internal error", 500, 13, 70)                                                 \
    /* what etcd's clients tell apart by code and text */                                          \
    X(ERR_EMPTY_KEY, "etcdserver: key is not provided", 400, 3, 64)                                \
    X(ERR_KEY_NOT_FOUND, "etcdserver: key not found", 400, 3, 1)                                   \
    X(ERR_VALUE_PROVIDED, "etcdserver: value is provided", 400, 3, 64)                             \
    X(ERR_LEASE_PROVIDED, "etcdserver: lease is provided", 400, 3, 64)                             \
    X(ERR_TOO_MANY_OPS, "etcdserver: too many operations in txn request", 400, 3, 65)              \
    X(ERR_DUPLICATE_KEY, "etcdserver: duplicate key given in txn request", 400, 3, 64)             \
    X(ERR_SORT_OPTION, "etcdserver: invalid sort option", 400, 3, 64)                              \
    X(ERR_REQUEST_TOO_LARGE, "etcdserver: request is too large", 400, 3, 65)                       \
    X(ERR_COMPACTED, "etcdserver: mvcc: required revision has been compacted", 400, 11, 1)         \
    X(ERR_FUTURE_REVISION, "etcdserver: mvcc: required revision is a future revision", 400, 11, 1) \
    X(ERR_QUOTA, "etcdserver: mvcc: database space exceeded", 507, 8, 74)                          \
    X(ERR_LEASE_NOT_FOUND, "etcdserver: requested lease not found", 404, 5, 1)                     \
    X(ERR_LEASE_EXISTS, "etcdserver: lease already exists", 400, 9, 73)                            \
    X(ERR_LEASE_TTL, "etcdserver: too large lease TTL", 400, 11, 64)                               \
    X(ERR_AUTH_DISABLED, "etcdserver: authentication is not enabled", 400, 9, 75)                  \
    X(ERR_AUTH_TOKEN, "etcdserver: invalid auth token", 401, 16, 77)                               \
    X(ERR_AUTH_FAILED, "etcdserver: authentication failed, invalid user ID or password", 400, 3,   \
      77)                                                                                          \
    X(ERR_AUTH_MANAGEMENT, "etcdserver: invalid auth management", 400, 3, 75)                      \
    X(ERR_AUTH_REVISION, "etcdserver: revision of auth store is old", 400, 3, 75)                  \
    X(ERR_AUTH_DENIED, "etcdserver: permission denied", 403, 7, 77)                                \
    X(ERR_ROOT_USER, "etcdserver: root user does not exist", 400, 9, 75)                           \
    X(ERR_ROOT_ROLE, "etcdserver: root user does not have root role", 400, 9, 75)                  \
    X(ERR_USER_EMPTY, "etcdserver: user name is empty", 400, 3, 64)                                \
    X(ERR_USER_EXISTS, "etcdserver: user name already exists", 400, 9, 73)                         \
    X(ERR_USER_NOT_FOUND, "etcdserver: user name not found", 400, 9, 1)                            \
    X(ERR_ROLE_EMPTY, "etcdserver: role name is empty", 400, 3, 64)                                \
    X(ERR_ROLE_EXISTS, "etcdserver: role name already exists", 400, 9, 73)                         \
    X(ERR_ROLE_NOT_FOUND, "etcdserver: role name not found", 400, 9, 1)                            \
    X(ERR_ROLE_NOT_GRANTED, "etcdserver: role is not granted to the user", 400, 9, 1)              \
    X(ERR_PERMISSION_NOT_GIVEN, "etcdserver: permission not given", 400, 3, 64)                    \
    X(ERR_PERMISSION_NOT_GRANTED, "etcdserver: permission is not granted to the role", 400, 9, 1)  \
    X(ERR_CORRUPT_CLUSTER, "etcdserver: corrupt cluster", 500, 15, 76)                             \
    X(ERR_STANDBY, "etcdserver: rpc not supported for learner", 400, 9, 75)                        \
    X(ERR_UNKNOWN, "failed", 500, 2, 70) /* etcd's servers that are clients of their own */

enum err {
#define X(name, text, http, grpc, exit) name,
    ERRORS(X)
#undef X
        ERR_COUNT
};

#define MUST_USE __attribute__((warn_unused_result))
#define RESULT   MUST_USE enum err

#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum err try_err_ = (call);                                                                \
        if (try_err_ != OK) return try_err_;                                                       \
    } while (0)

const char *err_name(enum err e); /* "ERR_NOMEM"; never NULL */
const char *err_text(enum err e); /* "out of memory"; never NULL */
int err_http(enum err e);
int err_grpc(enum err e);
int err_exit(enum err e);
enum err err_from_errno(int os_error); /* ENOSPC -> ERR_NOSPACE, EROFS -> ERR_READONLY, ... */

#define WHY_MAX 384

/* One sentence for a person: what failed, where. Belongs to the caller. */
struct why {
    char text[WHY_MAX]; /* NUL-terminated; empty when nothing was said */
};

/* Writes the sentence (why may be NULL) and returns `e`, so that a line can end in
 * `return fail_with(why, ERR_CORRUPT, "%s: record at byte %llu ...", ...)`. Never format a secret.
 */
enum err fail_with(struct why *why, enum err e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<prefix>: " before what why already says (or before err_text(e)); returns `e`. */
enum err fail_in(struct why *why, enum err e, const char *prefix);

#ifdef __clang_analyzer__ /* which can't see from other files that both return `e` */
#define fail_with(why, e, ...)  ((void)fail_with((why), (e), __VA_ARGS__), (e))
#define fail_in(why, e, prefix) ((void)fail_in((why), (e), (prefix)), (e))
#endif

/* Bytes that somebody else owns. */
struct span {
    const uint8_t *at; /* may be NULL when size is 0 */
    size_t size;       /* bytes */
};

static inline struct span span_of(const void *at, size_t size) {
    return (struct span){.at = (const uint8_t *)at, .size = size};
}
static inline struct span span_str(const char *s) { return span_of(s, strlen(s)); }
bool span_equal(struct span a, struct span b);
int span_compare(struct span a, struct span b); /* memcmp order, then the shorter first */

/* Growable bytes with a named maximum: every owner says how much it may ever hold. */
struct buf {
    uint8_t *at; /* malloc'ed, NULL when never grown */
    size_t size; /* bytes in use */
    size_t room; /* bytes allocated */
    size_t max;  /* size may never pass this */
    bool wiped;  /* growing leaves nothing behind in the memory that it moves out of */
};

static inline struct buf buf_new(size_t max) { return (struct buf){.max = max}; }
static inline struct buf buf_new_wiped(size_t max) { return (struct buf){0, 0, 0, max, true}; }
static inline struct span buf_span(const struct buf *b) { return span_of(b->at, b->size); }
void buf_free(struct buf *b); /* frees; b is empty and reusable after */
void buf_wipe(struct buf *b); /* zeroes what it holds, then frees */
static inline void buf_clear(struct buf *b) { b->size = 0; }
RESULT buf_reserve(struct buf *b, size_t more); /* room for `more` further bytes */
RESULT buf_add(struct buf *b, const void *at, size_t size);
RESULT buf_add_span(struct buf *b, struct span s);
RESULT buf_u8(struct buf *b, uint8_t v);
RESULT buf_u16(struct buf *b, uint16_t v); /* all integers are little-endian */
RESULT buf_u32(struct buf *b, uint32_t v);
RESULT buf_u64(struct buf *b, uint64_t v);
RESULT buf_block(struct buf *b, struct span s); /* u32 length, then the bytes */
RESULT buf_format(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The one way in: a bounded cursor. Each read either gives the whole value or ERR_PROTOCOL and
 * leaves its output alone. Spans point into the input. */
struct cursor {
    const uint8_t *at; /* next byte */
    size_t left;       /* bytes not yet read */
};

static inline struct cursor cursor_of(struct span s) {
    return (struct cursor){.at = s.at, .left = s.size};
}
RESULT cursor_u8(struct cursor *c, uint8_t *out);
RESULT cursor_u16(struct cursor *c, uint16_t *out);
RESULT cursor_u32(struct cursor *c, uint32_t *out);
RESULT cursor_u64(struct cursor *c, uint64_t *out);
RESULT cursor_bytes(struct cursor *c, size_t size, struct span *out);
RESULT cursor_copy(struct cursor *c, void *out, size_t size);
RESULT cursor_block(struct cursor *c, size_t max, struct span *out); /* u32 length <= max, bytes */
RESULT cursor_text(struct cursor *c, char *out,
                   size_t room);           /* block as a C string, no NULs in it */
RESULT cursor_end(const struct cursor *c); /* ERR_PROTOCOL when bytes are left over */

/* Fixed-place integers, for file headers and blocks. */
void put_u32(uint8_t *at, uint32_t v);
void put_u64(uint8_t *at, uint64_t v);
uint32_t get_u32(const uint8_t *at);
uint64_t get_u64(const uint8_t *at);

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
