/* Users, roles and permissions, as etcd has them: a role may read or write intervals of keys, a
 * user has roles, "root" may do everything. Replicated, changed only by commands; `revision`
 * grows with each change, and a command carries the one that its caller was judged by, so that
 * apply refuses what was decided on an older table (ERR_AUTH_REVISION; the API tries again).
 *
 * Passwords are kept as Argon2id strings, made and checked by the API on a worker thread, never
 * here. A token that a password buys is sealed with token_key, which is made with the first
 * enabling and lives in the state: any member can check it, and it names user, auth revision and
 * end. */
#ifndef CONCLAVE_AUTH_H
#define CONCLAVE_AUTH_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "store/range.h"

enum permission { PERMISSION_READ = 1, PERMISSION_WRITE = 2, PERMISSION_BOTH = 3 };

enum auth_op {
    AUTH_ENABLE = 1,
    AUTH_DISABLE,
    AUTH_USER_ADD,
    AUTH_USER_DELETE,
    AUTH_USER_PASSWORD,
    AUTH_USER_GRANT,  /* name gets role */
    AUTH_USER_REVOKE, /* the opposite */
    AUTH_ROLE_ADD,
    AUTH_ROLE_DELETE,
    AUTH_ROLE_GRANT,  /* role gets a permission on an interval */
    AUTH_ROLE_REVOKE, /* the opposite */
};

#define AUTH_KEY_SIZE 32
/* One change; spans are the caller's. */
struct auth_change {
    enum auth_op op;
    struct span user;           /* of the user operations */
    struct span role;           /* of the role operations and grants */
    struct span password_hash;  /* Argon2id string; empty: no password (certificate only) */
    enum permission permission; /* of AUTH_ROLE_GRANT */
    struct interval in;         /* of AUTH_ROLE_GRANT, AUTH_ROLE_REVOKE */
    struct span token_key;      /* of AUTH_ENABLE: AUTH_KEY_SIZE fresh random bytes */
};

struct auth; /* never changed in place: a change makes a new one, so that views can keep the old */

RESULT auth_new(struct auth **out);
void auth_free(struct auth *a); /* NULL is fine */
RESULT auth_copy(const struct auth *a, struct auth **out);
/* Carries out a change. What it did wrong is in *outcome, and `a` is as it was; an error is
 * ERR_NOMEM, and `a` is only good for auth_free. */
RESULT auth_apply(struct auth *a, const struct auth_change *c, enum err *outcome);
bool auth_enabled(const struct auth *a);
uint64_t auth_revision(const struct auth *a);
/* Another one whenever judging may come out otherwise: enabling changes it, too, which as with etcd
 * takes no revision. */
uint64_t auth_stamp(const struct auth *a);
const uint8_t *auth_token_key(const struct auth *a); /* AUTH_KEY_SIZE bytes; NULL: never enabled */

/* Judging. All are OK when auth is disabled; ERR_AUTH_DENIED, ERR_USER_EMPTY (no user);
 * auth_root also ERR_USER_NOT_FOUND. PERMISSION_BOTH asks for both. */
RESULT auth_root(const struct auth *a, struct span user);
RESULT auth_may(const struct auth *a, struct span user, enum permission p,
                const struct interval *in);

/* Reading. false: not there. Order: ascending by name. */
struct auth_permission {
    enum permission permission;
    struct interval in;
};
bool auth_user(const struct auth *a, struct span user, struct span *password_hash);
bool auth_role(const struct auth *a, struct span role);
typedef void auth_each_name(void *ctx, struct span name);
typedef void auth_each_permission(void *ctx, const struct auth_permission *p);
void auth_users(const struct auth *a, auth_each_name *each, void *ctx);
void auth_roles(const struct auth *a, auth_each_name *each, void *ctx);
void auth_user_roles(const struct auth *a, struct span user, auth_each_name *each, void *ctx);
void auth_role_permissions(const struct auth *a, struct span role, auth_each_permission *each,
                           void *ctx);

/* Bytes: top of auth.c; hold secrets (buf_wipe). */
RESULT auth_encode(const struct auth *a, struct buf *out);
RESULT auth_decode(struct span bytes, struct auth **out); /* ERR_CORRUPT, ERR_NOMEM */
RESULT auth_change_encode(const struct auth_change *c, struct buf *out);
RESULT auth_change_decode(struct span bytes, struct auth_change *out); /* ERR_INVALID */

#endif
