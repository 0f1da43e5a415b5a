/* Who may do what, and what there is to be read (auth.h). A user may read or write an interval when
 * the union of what his roles grant covers it: judging walks from the interval's first key to its
 * last, each step as far as any of his roles reaches from there. An interval that holds no key
 * (its end not above its key) is judged as all from its end to its key, so that nothing is learned
 * by turning one around. */
#include "store/auth_internal.h"

static bool is_root(const struct user *u) {
    uint32_t place;
    return auth_user_has_role(u, ROOT, &place);
}

RESULT auth_root(const struct auth *a, struct span user) {
    if (!a->enabled) return OK;
    if (user.size == 0) return ERR_USER_EMPTY;
    const struct user *u = auth_user_find(a, user);
    if (u == NULL) return ERR_USER_NOT_FOUND;
    return is_root(u) ? OK : ERR_AUTH_DENIED;
}

/* The run that holds the key, or NULL. */
static const struct run *run_at(const struct runs *runs, struct span key) {
    uint32_t low = 0, high = runs->n; /* the first that begins above the key */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (span_compare(runs->at[middle].from, key) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return NULL;
    const struct run *r = &runs->at[low - 1];
    return r->to.size == 0 || span_compare(r->to, key) > 0 ? r : NULL;
}

/* How far the user gets from `key`: the run of any role that ends last, or NULL. */
static const struct run *farthest(const struct auth *a, const struct user *u, enum permission p,
                                  struct span key) {
    const struct run *best = NULL;
    for (uint32_t i = 0; i < u->n; i++) {
        const struct role *role = auth_role_find(a, u->roles[i]);
        if (role == NULL) continue;
        const struct run *r = run_at(p == PERMISSION_READ ? &role->read : &role->write, key);
        if (r == NULL) continue;
        if (r->to.size == 0) return r;
        if (best == NULL || span_compare(r->to, best->to) > 0) best = r;
    }
    return best;
}

/* The keys to be covered: from `first` up to `last`, with or without `last` itself; without any
 * upper end when `endless`. */
struct demand {
    struct span first, last;
    bool inclusive, endless;
};

static struct demand demand_of(const struct interval *in) {
    struct span key = in->key.size == 0 ? span_of("", 1) : in->key; /* the lowest of all keys */
    struct span end = in->end;
    if (end.size == 0) return (struct demand){.first = key, .last = key, .inclusive = true};
    if (end.size == 1 && end.at[0] == 0) return (struct demand){.first = key, .endless = true};
    if (span_compare(end, key) > 0) return (struct demand){.first = key, .last = end};
    return (struct demand){.first = end, .last = key, .inclusive = true};
}

static bool covered(const struct auth *a, const struct user *u, enum permission p,
                    const struct interval *in) {
    struct demand d = demand_of(in);
    struct span at = d.first;
    for (;;) { /* ends: each step goes to the end of another run */
        const struct run *r = farthest(a, u, p, at);
        if (r == NULL) return false;
        if (r->to.size == 0) return true;
        int order = d.endless ? -1 : span_compare(r->to, d.last);
        if (order > 0 || (order == 0 && !d.inclusive)) return true;
        at = r->to;
    }
}

RESULT auth_may(const struct auth *a, struct span user, enum permission p,
                const struct interval *in) {
    if (!a->enabled) return OK;
    if (user.size == 0) return ERR_USER_EMPTY;
    const struct user *u = auth_user_find(a, user);
    if (u == NULL) return ERR_AUTH_DENIED;
    if (is_root(u)) return OK;
    if ((p & PERMISSION_READ) != 0 && !covered(a, u, PERMISSION_READ, in)) return ERR_AUTH_DENIED;
    if ((p & PERMISSION_WRITE) != 0 && !covered(a, u, PERMISSION_WRITE, in)) return ERR_AUTH_DENIED;
    return OK;
}

/* --- reading --- */

bool auth_user(const struct auth *a, struct span user, struct span *password_hash) {
    const struct user *u = auth_user_find(a, user);
    if (u != NULL) *password_hash = u->password_hash;
    return u != NULL;
}

bool auth_role(const struct auth *a, struct span role) { return auth_role_find(a, role) != NULL; }

static void each_entry(const struct table *t, auth_each_name *each, void *ctx) {
    for (uint32_t i = 0; i < t->n; i++)
        each(ctx, t->at[i]->name);
}

void auth_users(const struct auth *a, auth_each_name *each, void *ctx) {
    each_entry(&a->users, each, ctx);
}

void auth_roles(const struct auth *a, auth_each_name *each, void *ctx) {
    each_entry(&a->roles, each, ctx);
}

void auth_user_roles(const struct auth *a, struct span user, auth_each_name *each, void *ctx) {
    const struct user *u = auth_user_find(a, user);
    for (uint32_t i = 0; u != NULL && i < u->n; i++)
        each(ctx, u->roles[i]);
}

void auth_role_permissions(const struct auth *a, struct span role, auth_each_permission *each,
                           void *ctx) {
    const struct role *r = auth_role_find(a, role);
    for (uint32_t i = 0; r != NULL && i < r->n; i++)
        each(ctx, &r->at[i]);
}
