/* Entries and the sorted tables that hold them (auth_internal.h). Everything here either happens
 * whole or not at all. */
#include "store/auth_internal.h"

#include <assert.h>
#include <stdlib.h>

#include <sodium.h>

/* --- entries --- */

void auth_entry_drop(struct entry *e) {
    if (e == NULL || --e->refs > 0) return;
    sodium_memzero(e, e->size); /* password hashes */
    free(e);
}

/* Bytes behind an entry, handed out from the front. */
static struct span place_bytes(uint8_t **at, struct span s) {
    if (s.size != 0) memcpy(*at, s.at, s.size);
    struct span placed = span_of(*at, s.size);
    *at += s.size;
    return placed;
}

int auth_permission_compare(const struct auth_permission *a, const struct auth_permission *b) {
    int order = span_compare(a->in.key, b->in.key);
    return order != 0 ? order : span_compare(a->in.end, b->in.end);
}

static bool open_ended(struct span end) { return end.size == 1 && end.at[0] == 0; }

bool auth_permission_valid(const struct interval *in) {
    if (in->key.size == 0) return false;
    return in->end.size == 0 || open_ended(in->end) || span_compare(in->key, in->end) < 0;
}

/* The key's bytes have a zero behind them: key and zero is the end of the key alone. */
static struct run run_of(const struct interval *placed) {
    struct run r = {.from = placed->key, .to = placed->end};
    if (placed->end.size == 0) r.to = span_of(placed->key.at, placed->key.size + 1);
    if (open_ended(placed->end)) r.to = span_of(NULL, 0);
    return r;
}

static struct runs merge(const struct role *r, enum permission p, struct run *at) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        if ((r->at[i].permission & p) == 0) continue;
        struct run next = run_of(&r->at[i].in);
        bool endless = n != 0 && at[n - 1].to.size == 0;
        if (n == 0 || (!endless && span_compare(at[n - 1].to, next.from) < 0))
            at[n++] = next;
        else if (!endless && (next.to.size == 0 || span_compare(next.to, at[n - 1].to) > 0))
            at[n - 1].to = next.to;
    }
    return (struct runs){.n = n, .at = at};
}

static void place_permission(uint8_t **bytes, const struct auth_permission *from,
                             struct auth_permission *to) {
    to->permission = from->permission;
    to->in.key = place_bytes(bytes, from->in.key);
    *(*bytes)++ = 0;
    to->in.end = place_bytes(bytes, from->in.end);
}

RESULT auth_role_new(struct span name, const struct auth_permission *at, uint32_t n,
                     struct role **out) {
    size_t bytes = 4 + name.size + 4, arrays = n * (sizeof *at + 2 * sizeof(struct run));
    size_t size = sizeof(struct role) + arrays + name.size;
    for (uint32_t i = 0; i < n; i++) {
        bytes += 1 + 4 + at[i].in.key.size + 4 + at[i].in.end.size;
        size += at[i].in.key.size + 1 + at[i].in.end.size;
    }
    struct role *r = malloc(size);
    if (r == NULL) return ERR_NOMEM;
    *r = (struct role){.entry = {.refs = 1, .size = size, .bytes = bytes}, .n = n};
    r->at = (struct auth_permission *)(void *)(r + 1);
    struct run *runs = (struct run *)(void *)(r->at + n);
    uint8_t *rest = (uint8_t *)(runs + 2 * n);
    r->entry.name = place_bytes(&rest, name);
    for (uint32_t i = 0; i < n; i++)
        place_permission(&rest, &at[i], &r->at[i]);
    assert(rest == (uint8_t *)r + size);
    r->read = merge(r, PERMISSION_READ, runs);
    r->write = merge(r, PERMISSION_WRITE, runs + n);
    *out = r;
    return OK;
}

RESULT auth_user_new(struct span name, struct span password_hash, const struct span *roles,
                     uint32_t n, struct user **out) {
    size_t bytes = 4 + name.size + 4 + password_hash.size + 4;
    size_t size = sizeof(struct user) + n * sizeof *roles + name.size + password_hash.size;
    for (uint32_t i = 0; i < n; i++) {
        bytes += 4 + roles[i].size;
        size += roles[i].size;
    }
    struct user *u = malloc(size);
    if (u == NULL) return ERR_NOMEM;
    *u = (struct user){.entry = {.refs = 1, .size = size, .bytes = bytes}, .n = n};
    u->roles = (struct span *)(void *)(u + 1);
    uint8_t *rest = (uint8_t *)(u->roles + n);
    u->entry.name = place_bytes(&rest, name);
    u->password_hash = place_bytes(&rest, password_hash);
    for (uint32_t i = 0; i < n; i++)
        u->roles[i] = place_bytes(&rest, roles[i]);
    assert(rest == (uint8_t *)u + size);
    *out = u;
    return OK;
}

bool auth_user_has_role(const struct user *u, struct span role, uint32_t *place) {
    uint32_t low = 0, high = u->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (span_compare(u->roles[middle], role) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *place = low;
    return low < u->n && span_equal(u->roles[low], role);
}

/* --- tables --- */

bool auth_table_find(const struct table *t, struct span name, uint32_t *place) {
    uint32_t low = 0, high = t->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (span_compare(t->at[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *place = low;
    return low < t->n && span_equal(t->at[low]->name, name);
}

const struct role *auth_role_find(const struct auth *a, struct span name) {
    uint32_t place;
    return auth_table_find(&a->roles, name, &place) ? (const struct role *)a->roles.at[place]
                                                    : NULL;
}

const struct user *auth_user_find(const struct auth *a, struct span name) {
    uint32_t place;
    return auth_table_find(&a->users, name, &place) ? (const struct user *)a->users.at[place]
                                                    : NULL;
}

static RESULT table_grow(struct table *t) {
    if (t->n < t->room) return OK;
    uint32_t room = t->room < 8 ? 8 : t->room * 2;
    struct entry **at = realloc(t->at, room * sizeof *at);
    if (at == NULL) return ERR_NOMEM;
    t->at = at;
    t->room = room;
    return OK;
}

static RESULT table_admit(const struct auth *a, const struct table *t, const struct entry *old,
                          const struct entry *e) {
    size_t left = AUTH_BYTES_MAX - (a->bytes - (old == NULL ? 0 : old->bytes));
    if (e->bytes > left || (old == NULL && t->n >= USERS_MAX)) return ERR_TOO_LARGE;
    return OK;
}

RESULT auth_table_insert(struct auth *a, struct table *t, uint32_t place, struct entry *e) {
    enum err failed = table_admit(a, t, NULL, e);
    if (failed == OK) failed = table_grow(t);
    if (failed != OK) {
        auth_entry_drop(e);
        return failed;
    }
    memmove(&t->at[place + 1], &t->at[place], (t->n - place) * sizeof(struct entry *));
    t->at[place] = e;
    t->n++;
    a->bytes += e->bytes;
    return OK;
}

RESULT auth_table_replace(struct auth *a, struct table *t, uint32_t place, struct entry *e) {
    struct entry *old = t->at[place];
    if (table_admit(a, t, old, e) != OK) {
        auth_entry_drop(e);
        return ERR_TOO_LARGE;
    }
    a->bytes = a->bytes - old->bytes + e->bytes;
    t->at[place] = e;
    auth_entry_drop(old);
    return OK;
}

void auth_table_remove(struct auth *a, struct table *t, uint32_t place) {
    struct entry *old = t->at[place];
    t->n--;
    memmove(&t->at[place], &t->at[place + 1], (t->n - place) * sizeof(struct entry *));
    a->bytes -= old->bytes;
    auth_entry_drop(old);
}

RESULT auth_table_copy(const struct table *from, struct table *to) {
    *to = (struct table){0};
    if (from->n == 0) return OK;
    struct entry **at = malloc((from->n + 1) * sizeof *at); /* most changes add one or none */
    if (at == NULL) return ERR_NOMEM;
    *to = (struct table){.n = from->n, .room = from->n + 1, .at = at};
    for (uint32_t i = 0; i < from->n; i++) {
        at[i] = from->at[i];
        at[i]->refs++;
    }
    return OK;
}

void auth_table_free(struct table *t) {
    for (uint32_t i = 0; i < t->n; i++)
        auth_entry_drop(t->at[i]);
    free(t->at);
    *t = (struct table){0};
}
