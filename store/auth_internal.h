/* The parts of auth.h's state, private to auth.c (changes), auth_table.c (entries and tables),
 * auth_judge.c (who may) and auth_format.c (bytes).
 *
 * A user or a role is an entry: one allocation, never changed once it stands in a table, shared by
 * all the versions of the state that hold it. A change puts a new entry in the old one's place, so
 * copying a state copies two arrays of pointers. The reference counts are touched on the loop
 * alone; a reader on another thread (an image) looks at nothing else that is ever written. */
#ifndef CONCLAVE_AUTH_INTERNAL_H
#define CONCLAVE_AUTH_INTERNAL_H

#include "store/auth.h"

#define ROOT span_str("root") /* the user that auth needs, and the role that may do everything */

struct entry {
    unsigned refs;    /* states that hold it */
    size_t size;      /* of the allocation, to be wiped */
    size_t bytes;     /* of its encoding, counted against AUTH_BYTES_MAX */
    struct span name; /* of 1..USER_NAME_MAX bytes */
};

/* Keys from `from` up to, but without, `to`; to.size 0: without end. */
struct run {
    struct span from, to;
};
struct runs {
    uint32_t n;     /* how many */
    struct run *at; /* ascending, with a gap between each two */
};

struct role {
    struct entry entry;         /* first: an entry of `roles` is a struct role */
    uint32_t n;                 /* permissions */
    struct auth_permission *at; /* ascending by key, then by end; no interval twice */
    struct runs read, write;    /* the same merged, for judging */
};

struct user {
    struct entry entry;        /* first: an entry of `users` is a struct user */
    struct span password_hash; /* empty: none */
    uint32_t n;                /* roles */
    struct span *roles;        /* ascending names; "root" may have no entry in the roles */
};

struct table {
    uint32_t n, room;  /* entries; allocated */
    struct entry **at; /* ascending by name */
};

struct auth {
    bool enabled;                     /* permissions bind */
    bool has_key;                     /* it was enabled once: token_key is there */
    uint8_t token_key[AUTH_KEY_SIZE]; /* what seals tokens; another with each enabling */
    uint64_t revision;                /* > 0; of the last change */
    size_t bytes;                     /* of all entries, at most AUTH_BYTES_MAX */
    struct table users, roles;        /* at most USERS_MAX each */
};

/* --- entries (auth_table.c); spans are copied; refs is 1 --- */
RESULT auth_role_new(struct span name, const struct auth_permission *at, uint32_t n,
                     struct role **out);
RESULT auth_user_new(struct span name, struct span password_hash, const struct span *roles,
                     uint32_t n, struct user **out);
void auth_entry_drop(struct entry *e);

/* --- tables (auth_table.c) --- */
/* Where the name is, or would be. */
bool auth_table_find(const struct table *t, struct span name, uint32_t *place);
const struct role *auth_role_find(const struct auth *a, struct span name); /* NULL: not there */
const struct user *auth_user_find(const struct auth *a, struct span name); /* NULL: not there */
/* Each takes `e` over, also when it fails. ERR_TOO_LARGE: USERS_MAX, AUTH_BYTES_MAX. */
RESULT auth_table_insert(struct auth *a, struct table *t, uint32_t place, struct entry *e);
RESULT auth_table_replace(struct auth *a, struct table *t, uint32_t place, struct entry *e);
void auth_table_remove(struct auth *a, struct table *t, uint32_t place);
RESULT auth_table_copy(const struct table *from, struct table *to);
void auth_table_free(struct table *t);

bool auth_user_has_role(const struct user *u, struct span role, uint32_t *place);
int auth_permission_compare(const struct auth_permission *a, const struct auth_permission *b);
/* A single key, or an end above the key, or "\0". */
bool auth_permission_valid(const struct interval *in);

#endif
