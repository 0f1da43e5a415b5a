/* libconclave: an encrypted, durable key-value store in your process.
 *
 * Open a directory, put, get, iterate, close. Everything on disk is sealed; a write that returned
 * CCL_OK is durable; a read sees every write that has returned. What was overwritten or deleted is
 * forgotten once it takes more memory than what is there. The directory belongs to one handle at a
 * time.
 *
 * The rules that hold for every function:
 *
 * - Errors. A function that can fail returns a code (CCL_OK is 0) and, where it takes a struct
 *   ccl_error and the pointer is not NULL, fills that: the code, what may be done about it (flags),
 *   a sentence. The struct is yours, set its size (CCL_ERROR_INIT); there is no "last error"
 *   anywhere.
 * - Ownership. What you pass in is copied before the call returns. What you get lives in an object
 *   that says how long: a result until ccl_result_free, an iterator's key until its next step.
 * - Threads. A handle may be used by any number of threads at once. An iterator, a result and a
 *   transaction belong to one thread at a time. The log function is called on a thread of the
 *   library, without locks held; it must not call the library.
 * - Fork. In a forked child a handle is of no use: calls give CCL_FORKED, and ccl_close and the
 *   *_free functions only release memory. All descriptors are close-on-exec.
 * - The library never exits, aborts on bad input, prints, installs a signal handler or raises
 *   SIGPIPE. Its threads block all signals.
 * - ABI. Structs that cross the border start with their size; set it with the _INIT macros. A
 *   struct of a newer header is refused (CCL_UNSUPPORTED) if it asks for what this library does not
 *   know, and one of an older header gets defaults for what it lacks. */
#ifndef CONCLAVE_CONCLAVE_H
#define CONCLAVE_CONCLAVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CCL_API __attribute__((visibility("default")))

#define CCL_API_VERSION 1 /* of this header */

#define CCL_KEY_MAX   4096    /* bytes of a key, at least 1 */
#define CCL_VALUE_MAX 1572864 /* bytes of a value */
#define CCL_TXN_MAX   4096    /* puts and deletes in a transaction; and 2 MiB in all */

/* --- process --- */

CCL_API const char *ccl_version(void); /* of the library, "1.2.3" */

enum ccl_code {
    CCL_OK = 0,
    CCL_NOMEM = 1,          /* out of memory */
    CCL_INVALID = 2,        /* an argument is out of its bounds */
    CCL_TOO_LARGE = 3,      /* a transaction is */
    CCL_NOT_FOUND = 4,      /* no such key; no store in the directory */
    CCL_EXISTS = 5,         /* CCL_MUST_NOT_EXIST, and it does */
    CCL_PRECONDITION = 6,   /* mod_revision was asked for, and the key has another one */
    CCL_UNSUPPORTED = 7,    /* of a later version */
    CCL_IO = 8,             /* the disk failed */
    CCL_NOSPACE = 9,        /* the disk is full; reads go on */
    CCL_READONLY = 10,      /* the file system is */
    CCL_CORRUPT = 11,       /* a file is damaged; the text names file and place */
    CCL_LOCKED = 12,        /* the store needs a key of another kind */
    CCL_WRONG_KEY = 13,     /* the key does not open the store */
    CCL_IN_USE = 14,        /* another handle or process has the directory */
    CCL_BUSY = 15,          /* too much is waiting; not applied */
    CCL_TIMEOUT = 16,       /* not applied in time */
    CCL_MAYBE_APPLIED = 17, /* the outcome is not known */
    CCL_NO_LEADER = 18,     /* not applied */
    CCL_NOT_LEADER = 19,    /* not applied */
    CCL_CLOSED = 20,        /* the handle is being closed */
    CCL_FORKED = 21,        /* the handle was opened in another process */
    CCL_PERMISSION = 22,    /* of the directory or its files */
    CCL_INTERNAL = 23,      /* a fault of the library */
    CCL_DIVERGED = 24       /* the state differs from that of the other members */
};

CCL_API const char *ccl_strerror(int code);  /* "out of memory"; never NULL */
CCL_API const char *ccl_code_name(int code); /* "CCL_NOMEM"; never NULL */

#define CCL_RETRY     1u /* certainly not applied: the same call may work later */
#define CCL_MAYBE     2u /* may have been applied: repeat it with the same token, then it is safe */
#define CCL_ELSEWHERE 4u /* not the leader: see `leader` */
#define CCL_FATAL     8u /* the handle is of no use: close it, see to the cause, open again */

struct ccl_error {
    uint32_t size;    /* sizeof(struct ccl_error), set by you */
    int32_t code;     /* enum ccl_code */
    uint32_t flags;   /* CCL_RETRY ... */
    int32_t os_error; /* errno of the cause, 0: none or not known */
    char leader[256]; /* address of who leads, "" : not known or not of interest */
    char text[384];   /* a sentence for a person; "" after CCL_OK */
};
#define CCL_ERROR_INIT                                                                             \
    { .size = sizeof(struct ccl_error) }

/* --- handle --- */

struct ccl_db;

#define CCL_CREATE 1u /* make the store if the directory holds none */

enum ccl_key_kind {
    CCL_KEY_PLAIN = 0, /* the key lies in the directory itself: no protection against its reader */
    CCL_KEY_PASSPHRASE = 1, /* Argon2id over `key`; opening takes about a second */
    CCL_KEY_BYTES = 2       /* `key` is 32 random bytes */
};

enum ccl_log_level { CCL_LOG_ERROR = 0, CCL_LOG_WARNING = 1, CCL_LOG_INFO = 2, CCL_LOG_DEBUG = 3 };

struct ccl_open_options {
    uint32_t size;        /* sizeof(struct ccl_open_options) */
    uint32_t api_version; /* CCL_API_VERSION */
    uint32_t flags;       /* CCL_CREATE */
    uint32_t key_kind;    /* enum ccl_key_kind */
    const void *key;      /* copied into guarded memory; wipe yours after the call */
    size_t key_size;      /* bytes */
    void (*log)(void *ctx, int level, const char *text); /* NULL: says nothing */
    void *log_ctx;
    uint32_t
        timeout_ms; /* of opening, 0: 60000. It replays what was written since the last snapshot */
    uint32_t reserved; /* 0 */
};
#define CCL_OPEN_OPTIONS_INIT                                                                      \
    { .size = sizeof(struct ccl_open_options), .api_version = CCL_API_VERSION }

/* Opens the store in directory `path`; `options` NULL: an existing store with a plain key. Blocks
 * until all that was written is there to be read. The directory is made with mode 0700 if it is
 * absent and CCL_CREATE is set. CCL_NOT_FOUND, CCL_LOCKED, CCL_WRONG_KEY, CCL_IN_USE, CCL_CORRUPT,
 * CCL_IO, CCL_NOSPACE, CCL_PERMISSION, CCL_UNSUPPORTED (or: the directory belongs to a server),
 * CCL_TIMEOUT, CCL_NOMEM. */
CCL_API int ccl_open(const char *path, const struct ccl_open_options *options, struct ccl_db **out,
                     struct ccl_error *error);

/* Closes the handle. No other call on it may be under way or follow, but its iterators may be used
 * and freed later. Everything that was acknowledged is durable anyhow. NULL is fine. */
CCL_API void ccl_close(struct ccl_db *db);

struct ccl_status {
    uint32_t size;      /* sizeof(struct ccl_status), set by you */
    uint32_t leading;   /* 1: it takes writes */
    uint64_t revision;  /* of the last write */
    uint64_t keys;      /* number */
    uint64_t bytes;     /* of keys and values */
    uint64_t applied;   /* index of the last log entry in the state */
    uint64_t log_bytes; /* of the log's entries */
    uint64_t snapshot;  /* index of the newest snapshot, 0: none */
};
#define CCL_STATUS_INIT                                                                            \
    { .size = sizeof(struct ccl_status) }
CCL_API int ccl_status_get(struct ccl_db *db, struct ccl_status *out, struct ccl_error *error);

/* --- writing --- */

#define CCL_MUST_NOT_EXIST 1u /* put only a new key, else CCL_EXISTS */
#define CCL_TOKEN          2u /* `token` is set */

struct ccl_write_options {
    uint32_t size;         /* sizeof(struct ccl_write_options) */
    uint32_t flags;        /* CCL_MUST_NOT_EXIST | CCL_TOKEN */
    uint64_t mod_revision; /* not 0: only if the key has this one, else CCL_PRECONDITION */
    uint8_t token[16];     /* random; a write repeated with the same token happens once */
    uint32_t timeout_ms;   /* 0: 5000; after it CCL_TIMEOUT or CCL_MAYBE_APPLIED */
    uint32_t reserved;     /* 0 */
};
#define CCL_WRITE_OPTIONS_INIT                                                                     \
    { .size = sizeof(struct ccl_write_options) }

#define CCL_EXISTED  1u /* the key was there before */
#define CCL_REPEATED 2u /* the token was known: this is what came of the first time */

struct ccl_written {
    uint32_t size;              /* sizeof(struct ccl_written), set by you */
    uint32_t flags;             /* CCL_EXISTED | CCL_REPEATED */
    uint64_t revision;          /* of the store after the write */
    uint64_t deleted;           /* keys removed */
    uint64_t previous_revision; /* mod_revision of the key before, 0: there was none */
    uint64_t previous_version;  /* puts of the key before, since it was made */
};
#define CCL_WRITTEN_INIT                                                                           \
    { .size = sizeof(struct ccl_written) }

/* Each waits until the write is durable and can be read. `options` and `written` may be NULL;
 * `written` is filled also after CCL_EXISTS and CCL_PRECONDITION. Writes of many threads at once
 * share one sync of the disk. */
CCL_API int ccl_put(struct ccl_db *db, const void *key, size_t key_size, const void *value,
                    size_t value_size, const struct ccl_write_options *options,
                    struct ccl_written *written, struct ccl_error *error);
/* A key that is not there is no error: see `deleted`. */
CCL_API int ccl_del(struct ccl_db *db, const void *key, size_t key_size,
                    const struct ccl_write_options *options, struct ccl_written *written,
                    struct ccl_error *error);
/* All keys in [from, end), in one revision. No mod_revision. */
CCL_API int ccl_del_range(struct ccl_db *db, const void *from, size_t from_size, const void *end,
                          size_t end_size, const struct ccl_write_options *options,
                          struct ccl_written *written, struct ccl_error *error);

/* Puts and deletes that take effect together or not at all, in one revision and one sync. An error
 * while building is kept and reported by the commit. Conditions (CCL_MUST_NOT_EXIST, mod_revision)
 * are those of each put and delete, looked at against the state before the transaction; token and
 * time-out those of the commit. */
struct ccl_txn;
CCL_API struct ccl_txn *ccl_txn_new(struct ccl_db *db); /* NULL: out of memory */
CCL_API void ccl_txn_put(struct ccl_txn *txn, const void *key, size_t key_size, const void *value,
                         size_t value_size, const struct ccl_write_options *options);
CCL_API void ccl_txn_del(struct ccl_txn *txn, const void *key, size_t key_size,
                         const struct ccl_write_options *options);
CCL_API int ccl_txn_commit(struct ccl_txn *txn, const struct ccl_write_options *options,
                           struct ccl_written *written, struct ccl_error *error);
CCL_API void
ccl_txn_free(struct ccl_txn *txn); /* before ccl_close; committed or not; NULL is fine */

/* --- reading --- */

struct ccl_kv {
    uint32_t size;            /* sizeof(struct ccl_kv), set by you */
    uint32_t reserved;        /* 0 */
    const void *key;          /* not NUL-terminated */
    size_t key_size;          /* bytes */
    const void *value;        /* never NULL */
    size_t value_size;        /* bytes */
    uint64_t create_revision; /* revision that made the key */
    uint64_t mod_revision;    /* revision of its last put */
    uint64_t version;         /* puts since it was made */
    uint64_t lease;           /* 0: none */
};
#define CCL_KV_INIT                                                                                \
    { .size = sizeof(struct ccl_kv) }

struct ccl_result;
/* One key. *out is yours to free, and set on CCL_OK only. CCL_NOT_FOUND. */
CCL_API int ccl_get(struct ccl_db *db, const void *key, size_t key_size, struct ccl_result **out,
                    struct ccl_error *error);
CCL_API const void *ccl_result_value(const struct ccl_result *r,
                                     size_t *size); /* size may be NULL */
CCL_API void ccl_result_kv(const struct ccl_result *r, struct ccl_kv *out);
CCL_API void ccl_result_free(struct ccl_result *r); /* NULL is fine */

/* The keys in [from, end), ascending, as they were when the iterator was opened, whatever is
 * written meanwhile; end_size 0: no upper end; from_size 0: from the first. An open iterator keeps
 * what it may still show in memory. Reading it takes no lock. */
struct ccl_iter;
CCL_API int ccl_iter_open(struct ccl_db *db, const void *from, size_t from_size, const void *end,
                          size_t end_size, struct ccl_iter **out, struct ccl_error *error);
/* All keys that begin with `prefix`. */
CCL_API int ccl_iter_open_prefix(struct ccl_db *db, const void *prefix, size_t prefix_size,
                                 struct ccl_iter **out, struct ccl_error *error);
CCL_API int ccl_iter_next(struct ccl_iter *iter, struct ccl_kv *out); /* 1: a key; 0: the end */
CCL_API uint64_t ccl_iter_revision(const struct ccl_iter *iter);      /* of the store it shows */
CCL_API void ccl_iter_free(struct ccl_iter *iter);                    /* NULL is fine */

#ifdef __cplusplus
}
#endif

#endif
