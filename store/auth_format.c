/* The state of auth.h and its changes as bytes. Both have one form only: what decodes encodes to
 * the same bytes, so that the state's hash is the hash of these.
 *
 * Integers are little-endian; a block is u32 length + bytes.
 *   state:      u8 flags (1: enabled; 2: a token key follows), u64 revision > 0, [32 bytes token
 *               key], u32 n roles, role..., u32 n users, user...
 *   role:       block name, u32 n, permission... ascending by key, then end
 *   permission: u8 (1 read, 2 write, 3 both), block key, block end
 *   user:       block name, block password hash, u32 n, block role name... ascending
 *   change:     u8 operation, then of these what the operation has (table below), in this order:
 *               block user, block role, block password hash, u8 permission, block key and block
 *               end, 32 bytes token key
 * Roles and users ascend by name; enabled only with a token key; sizes: auth_internal.h. */
#include "store/auth_internal.h"

#include <stdlib.h>

#define FLAG_ENABLED 1
#define FLAG_KEY     2

static RESULT bad(enum err e) { return e == ERR_PROTOCOL ? ERR_CORRUPT : e; }

/* --- state, out --- */

static RESULT encode_permission(const struct auth_permission *p, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)p->permission));
    TRY(buf_block(out, p->in.key));
    return buf_block(out, p->in.end);
}

static RESULT encode_role(const struct role *r, struct buf *out) {
    TRY(buf_block(out, r->entry.name));
    TRY(buf_u32(out, r->n));
    for (uint32_t i = 0; i < r->n; i++)
        TRY(encode_permission(&r->at[i], out));
    return OK;
}

static RESULT encode_user(const struct user *u, struct buf *out) {
    TRY(buf_block(out, u->entry.name));
    TRY(buf_block(out, u->password_hash));
    TRY(buf_u32(out, u->n));
    for (uint32_t i = 0; i < u->n; i++)
        TRY(buf_block(out, u->roles[i]));
    return OK;
}

RESULT auth_encode(const struct auth *a, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)((a->enabled ? FLAG_ENABLED : 0) | (a->has_key ? FLAG_KEY : 0))));
    TRY(buf_u64(out, a->revision));
    if (a->has_key) TRY(buf_add(out, a->token_key, AUTH_KEY_SIZE));
    TRY(buf_u32(out, a->roles.n));
    for (uint32_t i = 0; i < a->roles.n; i++)
        TRY(encode_role((const struct role *)a->roles.at[i], out));
    TRY(buf_u32(out, a->users.n));
    for (uint32_t i = 0; i < a->users.n; i++)
        TRY(encode_user((const struct user *)a->users.at[i], out));
    return OK;
}

/* --- state, in --- */

static RESULT decode_permission(struct cursor *c, struct auth_permission *out) {
    uint8_t permission;
    TRY(cursor_u8(c, &permission));
    TRY(cursor_block(c, KEY_MAX, &out->in.key));
    TRY(cursor_block(c, KEY_MAX, &out->in.end));
    if (permission < PERMISSION_READ || permission > PERMISSION_BOTH) return ERR_CORRUPT;
    out->permission = (enum permission)permission;
    return auth_permission_valid(&out->in) ? OK : ERR_CORRUPT;
}

static RESULT decode_permissions(struct cursor *c, struct auth_permission *at, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        TRY(decode_permission(c, &at[i]));
        if (i != 0 && auth_permission_compare(&at[i - 1], &at[i]) >= 0) return ERR_CORRUPT;
    }
    return OK;
}

static RESULT decode_name(struct cursor *c, struct span *out) {
    TRY(cursor_block(c, USER_NAME_MAX, out));
    return out->size == 0 ? ERR_CORRUPT : OK;
}

static RESULT decode_count(struct cursor *c, uint32_t max, uint32_t *out) {
    TRY(cursor_u32(c, out));
    return *out > max || *out > c->left ? ERR_CORRUPT : OK;
}

static RESULT decode_role(struct cursor *c, struct entry **out) {
    struct span name;
    struct role *r;
    uint32_t n;
    TRY(decode_name(c, &name));
    TRY(decode_count(c, PERMISSIONS_MAX, &n));
    struct auth_permission *at = malloc((n + 1) * sizeof *at);
    if (at == NULL) return ERR_NOMEM;
    enum err e = decode_permissions(c, at, n);
    if (e == OK) e = auth_role_new(name, at, n, &r);
    free(at);
    if (e == OK) *out = &r->entry;
    return e;
}

static RESULT decode_names(struct cursor *c, struct span *at, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        TRY(decode_name(c, &at[i]));
        if (i != 0 && span_compare(at[i - 1], at[i]) >= 0) return ERR_CORRUPT;
    }
    return OK;
}

static RESULT decode_user(struct cursor *c, struct entry **out) {
    struct span name, hash;
    struct user *u;
    uint32_t n;
    TRY(decode_name(c, &name));
    TRY(cursor_block(c, PASSWORD_HASH_MAX, &hash));
    TRY(decode_count(c, USERS_MAX + 1, &n)); /* every role, and root without an entry */
    struct span *roles = malloc((n + 1) * sizeof *roles);
    if (roles == NULL) return ERR_NOMEM;
    enum err e = decode_names(c, roles, n);
    if (e == OK) e = auth_user_new(name, hash, roles, n, &u);
    free(roles);
    if (e == OK) *out = &u->entry;
    return e;
}

static RESULT decode_table(struct cursor *c, struct auth *a, struct table *t,
                           enum err (*decode)(struct cursor *c, struct entry **out)) {
    uint32_t n;
    TRY(decode_count(c, USERS_MAX, &n));
    for (uint32_t i = 0; i < n; i++) {
        struct entry *e;
        TRY(decode(c, &e));
        if (i != 0 && span_compare(t->at[i - 1]->name, e->name) >= 0) {
            auth_entry_drop(e);
            return ERR_CORRUPT;
        }
        enum err failed = auth_table_insert(a, t, i, e);
        if (failed != OK) return failed == ERR_NOMEM ? failed : ERR_CORRUPT;
    }
    return OK;
}

/* A user's roles exist, but for root. */
static RESULT check_roles(const struct auth *a) {
    for (uint32_t i = 0; i < a->users.n; i++) {
        const struct user *u = (const struct user *)a->users.at[i];
        for (uint32_t k = 0; k < u->n; k++)
            if (!span_equal(u->roles[k], ROOT) && auth_role_find(a, u->roles[k]) == NULL)
                return ERR_CORRUPT;
    }
    return OK;
}

static RESULT decode(struct cursor *c, struct auth *a) {
    uint8_t flags;
    TRY(cursor_u8(c, &flags));
    TRY(cursor_u64(c, &a->revision));
    a->enabled = (flags & FLAG_ENABLED) != 0;
    a->has_key = (flags & FLAG_KEY) != 0;
    if (flags > (FLAG_ENABLED | FLAG_KEY) || a->revision == 0) return ERR_CORRUPT;
    if (a->enabled && !a->has_key) return ERR_CORRUPT;
    if (a->has_key) TRY(cursor_copy(c, a->token_key, AUTH_KEY_SIZE));
    TRY(decode_table(c, a, &a->roles, decode_role));
    TRY(decode_table(c, a, &a->users, decode_user));
    TRY(cursor_end(c));
    if (a->enabled && auth_root(a, ROOT) != OK) return ERR_CORRUPT;
    return check_roles(a);
}

RESULT auth_decode(struct span bytes, struct auth **out) {
    struct cursor c = cursor_of(bytes);
    struct auth *a;
    TRY(auth_new(&a));
    enum err e = bad(decode(&c, a));
    if (e == OK)
        *out = a;
    else
        auth_free(a);
    return e;
}

/* --- changes --- */

enum field {
    FIELD_USER = 1,
    FIELD_ROLE = 2,
    FIELD_HASH = 4,
    FIELD_PERMISSION = 8,
    FIELD_INTERVAL = 16,
    FIELD_KEY = 32,
};

static const uint8_t fields[] = {
    [AUTH_ENABLE] = FIELD_KEY,
    [AUTH_DISABLE] = 0,
    [AUTH_USER_ADD] = FIELD_USER | FIELD_HASH,
    [AUTH_USER_DELETE] = FIELD_USER,
    [AUTH_USER_PASSWORD] = FIELD_USER | FIELD_HASH,
    [AUTH_USER_GRANT] = FIELD_USER | FIELD_ROLE,
    [AUTH_USER_REVOKE] = FIELD_USER | FIELD_ROLE,
    [AUTH_ROLE_ADD] = FIELD_ROLE,
    [AUTH_ROLE_DELETE] = FIELD_ROLE,
    [AUTH_ROLE_GRANT] = FIELD_ROLE | FIELD_PERMISSION | FIELD_INTERVAL,
    [AUTH_ROLE_REVOKE] = FIELD_ROLE | FIELD_INTERVAL,
};

static bool has(enum auth_op op, enum field f) { return (fields[op] & f) != 0; }

static bool known(unsigned op) { return op >= AUTH_ENABLE && op <= AUTH_ROLE_REVOKE; }

/* Names and keys may be empty here: what that means is for auth_apply to say. */
static RESULT check_change(const struct auth_change *c) {
    if (!known((unsigned)c->op)) return ERR_INVALID;
    if (has(c->op, FIELD_USER) && c->user.size > USER_NAME_MAX) return ERR_INVALID;
    if (has(c->op, FIELD_ROLE) && c->role.size > USER_NAME_MAX) return ERR_INVALID;
    if (has(c->op, FIELD_HASH) && c->password_hash.size > PASSWORD_HASH_MAX) return ERR_INVALID;
    if (has(c->op, FIELD_INTERVAL) && (c->in.key.size > KEY_MAX || c->in.end.size > KEY_MAX))
        return ERR_INVALID;
    if (has(c->op, FIELD_KEY) && c->token_key.size != AUTH_KEY_SIZE) return ERR_INVALID;
    if (!has(c->op, FIELD_PERMISSION)) return OK;
    return c->permission >= PERMISSION_READ && c->permission <= PERMISSION_BOTH ? OK : ERR_INVALID;
}

RESULT auth_change_encode(const struct auth_change *c, struct buf *out) {
    TRY(check_change(c));
    TRY(buf_u8(out, (uint8_t)c->op));
    if (has(c->op, FIELD_USER)) TRY(buf_block(out, c->user));
    if (has(c->op, FIELD_ROLE)) TRY(buf_block(out, c->role));
    if (has(c->op, FIELD_HASH)) TRY(buf_block(out, c->password_hash));
    if (has(c->op, FIELD_PERMISSION)) TRY(buf_u8(out, (uint8_t)c->permission));
    if (has(c->op, FIELD_INTERVAL)) {
        TRY(buf_block(out, c->in.key));
        TRY(buf_block(out, c->in.end));
    }
    return has(c->op, FIELD_KEY) ? buf_add_span(out, c->token_key) : OK;
}

static RESULT decode_change(struct cursor *in, struct auth_change *c) {
    uint8_t op, permission = PERMISSION_READ;
    TRY(cursor_u8(in, &op));
    if (!known(op)) return ERR_INVALID;
    c->op = (enum auth_op)op;
    if (has(c->op, FIELD_USER)) TRY(cursor_block(in, USER_NAME_MAX, &c->user));
    if (has(c->op, FIELD_ROLE)) TRY(cursor_block(in, USER_NAME_MAX, &c->role));
    if (has(c->op, FIELD_HASH)) TRY(cursor_block(in, PASSWORD_HASH_MAX, &c->password_hash));
    if (has(c->op, FIELD_PERMISSION)) {
        TRY(cursor_u8(in, &permission));
        if (permission < PERMISSION_READ || permission > PERMISSION_BOTH) return ERR_INVALID;
        c->permission = (enum permission)permission;
    }
    if (has(c->op, FIELD_INTERVAL)) {
        TRY(cursor_block(in, KEY_MAX, &c->in.key));
        TRY(cursor_block(in, KEY_MAX, &c->in.end));
    }
    if (has(c->op, FIELD_KEY)) TRY(cursor_bytes(in, AUTH_KEY_SIZE, &c->token_key));
    return cursor_end(in);
}

RESULT auth_change_decode(struct span bytes, struct auth_change *out) {
    struct cursor in = cursor_of(bytes);
    struct auth_change c = {0};
    if (decode_change(&in, &c) != OK) return ERR_INVALID;
    *out = c;
    return OK;
}
