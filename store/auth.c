/* Changes of users, roles and permissions (auth.h), with etcd's outcomes in etcd's order: what is
 * forbidden while auth is enabled comes before what does not exist. Called by apply alone; no
 * clock, no randomness. Every change but enabling, and granting what is granted already, takes the
 * next revision. Source of the semantics: etcd's auth store, asked in its version 3.4 (disabling,
 * and changing a role, revision by revision). */
#include "store/auth_internal.h"

#include <stdlib.h>

#include <sodium.h>

RESULT auth_new(struct auth **out) {
    struct auth *a = calloc(1, sizeof *a);
    if (a == NULL) return ERR_NOMEM;
    a->revision = 1;
    *out = a;
    return OK;
}

void auth_free(struct auth *a) {
    if (a == NULL) return;
    auth_table_free(&a->users);
    auth_table_free(&a->roles);
    sodium_memzero(a, sizeof *a);
    free(a);
}

RESULT auth_copy(const struct auth *a, struct auth **out) {
    struct auth *copy = malloc(sizeof *copy);
    if (copy == NULL) return ERR_NOMEM;
    *copy = *a;
    copy->users = copy->roles = (struct table){0};
    enum err e = auth_table_copy(&a->users, &copy->users);
    if (e == OK) e = auth_table_copy(&a->roles, &copy->roles);
    if (e != OK) {
        auth_free(copy);
        return e;
    }
    *out = copy;
    return OK;
}

bool auth_enabled(const struct auth *a) { return a->enabled; }
uint64_t auth_revision(const struct auth *a) { return a->revision; }
uint64_t auth_stamp(const struct auth *a) { return 2 * a->revision + a->enabled; }
const uint8_t *auth_token_key(const struct auth *a) { return a->has_key ? a->token_key : NULL; }

/* --- the switch --- */

static RESULT enable(struct auth *a, const struct auth_change *c) {
    if (a->enabled) return OK;
    const struct user *root = auth_user_find(a, ROOT);
    uint32_t place;
    if (root == NULL) return ERR_ROOT_USER;
    if (!auth_user_has_role(root, ROOT, &place)) return ERR_ROOT_ROLE;
    a->enabled = a->has_key = true;
    memcpy(a->token_key, c->token_key.at, AUTH_KEY_SIZE);
    return OK;
}

static RESULT disable(struct auth *a) {
    if (!a->enabled) return OK;
    a->enabled = false;
    a->revision++;
    return OK;
}

/* --- users --- */

static RESULT user_add(struct auth *a, const struct auth_change *c) {
    uint32_t place;
    struct user *u;
    if (c->user.size == 0) return ERR_USER_EMPTY;
    if (auth_table_find(&a->users, c->user, &place)) return ERR_USER_EXISTS;
    TRY(auth_user_new(c->user, c->password_hash, NULL, 0, &u));
    TRY(auth_table_insert(a, &a->users, place, &u->entry));
    a->revision++;
    return OK;
}

static RESULT user_delete(struct auth *a, const struct auth_change *c) {
    uint32_t place;
    if (a->enabled && span_equal(c->user, ROOT)) return ERR_AUTH_MANAGEMENT;
    if (!auth_table_find(&a->users, c->user, &place)) return ERR_USER_NOT_FOUND;
    auth_table_remove(a, &a->users, place);
    a->revision++;
    return OK;
}

/* Takes the place of the user at `place`. */
static RESULT user_put(struct auth *a, uint32_t place, struct span password_hash,
                       const struct span *roles, uint32_t n) {
    struct user *u;
    TRY(auth_user_new(a->users.at[place]->name, password_hash, roles, n, &u));
    return auth_table_replace(a, &a->users, place, &u->entry);
}

/* Whoever was made without a password stays without one. */
static RESULT user_password(struct auth *a, const struct auth_change *c) {
    uint32_t place;
    if (!auth_table_find(&a->users, c->user, &place)) return ERR_USER_NOT_FOUND;
    const struct user *old = (const struct user *)a->users.at[place];
    struct span hash = old->password_hash.size == 0 ? old->password_hash : c->password_hash;
    TRY(user_put(a, place, hash, old->roles, old->n));
    a->revision++;
    return OK;
}

static RESULT user_grant(struct auth *a, const struct auth_change *c) {
    uint32_t place, at;
    if (!auth_table_find(&a->users, c->user, &place)) return ERR_USER_NOT_FOUND;
    if (!span_equal(c->role, ROOT) && auth_role_find(a, c->role) == NULL) return ERR_ROLE_NOT_FOUND;
    const struct user *old = (const struct user *)a->users.at[place];
    if (auth_user_has_role(old, c->role, &at)) return OK;
    struct span *roles = malloc((old->n + 1) * sizeof *roles);
    if (roles == NULL) return ERR_NOMEM;
    if (old->n != 0) memcpy(roles, old->roles, at * sizeof *roles);
    roles[at] = c->role;
    if (old->n != 0) memcpy(&roles[at + 1], &old->roles[at], (old->n - at) * sizeof *roles);
    enum err e = user_put(a, place, old->password_hash, roles, old->n + 1);
    free(roles);
    if (e == OK) a->revision++;
    return e;
}

/* The user at `place` loses its role number `at`. */
static RESULT user_lose(struct auth *a, uint32_t place, uint32_t at) {
    const struct user *old = (const struct user *)a->users.at[place];
    struct span *roles = malloc(old->n * sizeof *roles);
    if (roles == NULL) return ERR_NOMEM;
    memcpy(roles, old->roles, at * sizeof *roles);
    memcpy(&roles[at], &old->roles[at + 1], (old->n - at - 1) * sizeof *roles);
    enum err e = user_put(a, place, old->password_hash, roles, old->n - 1);
    free(roles);
    return e;
}

static RESULT user_revoke(struct auth *a, const struct auth_change *c) {
    uint32_t place, at;
    if (a->enabled && span_equal(c->user, ROOT) && span_equal(c->role, ROOT))
        return ERR_AUTH_MANAGEMENT;
    if (!auth_table_find(&a->users, c->user, &place)) return ERR_USER_NOT_FOUND;
    if (!auth_user_has_role((const struct user *)a->users.at[place], c->role, &at))
        return ERR_ROLE_NOT_GRANTED;
    TRY(user_lose(a, place, at));
    a->revision++;
    return OK;
}

/* --- roles --- */

static RESULT role_add(struct auth *a, const struct auth_change *c) {
    uint32_t place;
    struct role *r;
    if (c->role.size == 0) return ERR_ROLE_EMPTY;
    if (auth_table_find(&a->roles, c->role, &place)) return ERR_ROLE_EXISTS;
    TRY(auth_role_new(c->role, NULL, 0, &r));
    TRY(auth_table_insert(a, &a->roles, place, &r->entry));
    a->revision++;
    return OK;
}

/* Its users lose it. */
static RESULT role_delete(struct auth *a, const struct auth_change *c) {
    uint32_t place, at;
    if (a->enabled && span_equal(c->role, ROOT)) return ERR_AUTH_MANAGEMENT;
    if (!auth_table_find(&a->roles, c->role, &place)) return ERR_ROLE_NOT_FOUND;
    for (uint32_t i = 0; i < a->users.n; i++)
        if (auth_user_has_role((const struct user *)a->users.at[i], c->role, &at))
            TRY(user_lose(a, i, at));
    auth_table_remove(a, &a->roles, place);
    a->revision++;
    return OK;
}

static bool permission_find(const struct role *r, const struct auth_permission *p, uint32_t *at) {
    uint32_t low = 0, high = r->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (auth_permission_compare(&r->at[middle], p) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return low < r->n && auth_permission_compare(&r->at[low], p) == 0;
}

/* Puts n permissions in the place of one or none of the role at `place`: number `at`, and `skip`
 * of the old ones from there on go. */
static RESULT role_splice(struct auth *a, uint32_t place, uint32_t at, uint32_t skip,
                          const struct auth_permission *p, uint32_t n) {
    const struct role *old = (const struct role *)a->roles.at[place];
    struct role *r;
    uint32_t total = old->n - skip + n;
    struct auth_permission *all = malloc((total + 1) * sizeof *all);
    if (all == NULL) return ERR_NOMEM;
    memcpy(all, old->at, at * sizeof *all);
    if (n != 0) memcpy(&all[at], p, n * sizeof *all);
    memcpy(&all[at + n], &old->at[at + skip], (old->n - at - skip) * sizeof *all);
    enum err e = auth_role_new(old->entry.name, all, total, &r);
    free(all);
    TRY(e);
    return auth_table_replace(a, &a->roles, place, &r->entry);
}

static RESULT role_grant(struct auth *a, const struct auth_change *c) {
    uint32_t place, at;
    struct auth_permission p = {.permission = c->permission, .in = c->in};
    if (!auth_permission_valid(&c->in)) return ERR_AUTH_MANAGEMENT;
    if (!auth_table_find(&a->roles, c->role, &place)) return ERR_ROLE_NOT_FOUND;
    const struct role *old = (const struct role *)a->roles.at[place];
    bool there = permission_find(old, &p, &at);
    if (!there && old->n >= PERMISSIONS_MAX) return ERR_TOO_LARGE;
    TRY(role_splice(a, place, at, there ? 1 : 0, &p, 1));
    a->revision++;
    return OK;
}

static RESULT role_revoke(struct auth *a, const struct auth_change *c) {
    uint32_t place, at;
    struct auth_permission p = {.in = c->in};
    if (!auth_table_find(&a->roles, c->role, &place)) return ERR_ROLE_NOT_FOUND;
    if (!permission_find((const struct role *)a->roles.at[place], &p, &at))
        return ERR_PERMISSION_NOT_GRANTED;
    TRY(role_splice(a, place, at, 1, NULL, 0));
    a->revision++;
    return OK;
}

static RESULT change(struct auth *a, const struct auth_change *c) {
    switch (c->op) {
    case AUTH_ENABLE: return enable(a, c);
    case AUTH_DISABLE: return disable(a);
    case AUTH_USER_ADD: return user_add(a, c);
    case AUTH_USER_DELETE: return user_delete(a, c);
    case AUTH_USER_PASSWORD: return user_password(a, c);
    case AUTH_USER_GRANT: return user_grant(a, c);
    case AUTH_USER_REVOKE: return user_revoke(a, c);
    case AUTH_ROLE_ADD: return role_add(a, c);
    case AUTH_ROLE_DELETE: return role_delete(a, c);
    case AUTH_ROLE_GRANT: return role_grant(a, c);
    case AUTH_ROLE_REVOKE: return role_revoke(a, c);
    }
    return ERR_UNSUPPORTED;
}

RESULT auth_apply(struct auth *a, const struct auth_change *c, enum err *outcome) {
    enum err e = change(a, c);
    if (e == ERR_NOMEM) return e;
    *outcome = e;
    return OK;
}
