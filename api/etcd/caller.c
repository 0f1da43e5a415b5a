/* See caller.h. Judging looks at the state as it is now; nothing of it is kept but the auth
 * revision that a write carries. */
#include "api/etcd/caller.h"

#include <stdlib.h>

#include "api/etcd/bearer.h"
#include "api/etcd/password.h"

struct callers {
    struct bearers *bearers;     /* tokens in use */
    struct passwords *passwords; /* being made and checked */
};

RESULT callers_new(uv_loop_t *loop, struct callers **out) {
    struct callers *c = calloc(1, sizeof *c);
    if (c == NULL) return ERR_NOMEM;
    enum err e = bearers_new(&c->bearers);
    if (e == OK) e = passwords_new(loop, &c->passwords);
    if (e != OK) {
        callers_free(c);
        return e;
    }
    *out = c;
    return OK;
}

void callers_free(struct callers *c) {
    if (c == NULL) return;
    passwords_free(c->passwords);
    bearers_free(c->bearers);
    free(c);
}

struct passwords *callers_passwords(const struct callers *c) {
    return c->passwords;
}

static const struct auth *auth_of(const struct api *api) { return store_auth(api->manager->store); }

static struct span user_of(const struct caller *c) { return span_str(c->user); }

/* --- who ------------------------------------------------------------------------------------- */

static RESULT by_token(struct api *api, struct caller *c, struct span token) {
    static const char prefix[] = "Bearer ";
    size_t skip = sizeof prefix - 1;
    struct clock *clock = &api->manager->clock;
    struct bearer_now now = {.wall_s = clock->wall_s(clock), .mono_s = clock->now_ms(clock) / 1000};
    if (token.size > skip && memcmp(token.at, prefix, skip) == 0)
        token = span_of(token.at + skip, token.size - skip);
    TRY(bearer_open(auth_of(api), api->callers->bearers, token, &now, c->user, c->proof));
    c->by_token = true;
    return OK;
}

RESULT caller_identify(struct api *api, struct caller *c, struct span token) {
    struct span hash;
    c->user[0] = '\0';
    c->by_token = false;
    c->refused = OK;
    if (api->manager->store == NULL) return OK;
    const struct auth *a = auth_of(api);
    c->auth_revision = auth_revision(a);
    if (!auth_enabled(a)) return OK;
    if (token.size != 0)
        c->refused = by_token(api, c, token);
    else if (!c->admin && c->by_certificate && auth_user(a, span_str(c->name), &hash))
        memcpy(c->user, c->name, strlen(c->name) + 1);
    return c->refused;
}

/* --- what he may ----------------------------------------------------------------------------- */

static bool is_operator(const struct caller *c) { return c->admin && c->user[0] == '\0'; }

/* *decided: the result is the answer. */
static RESULT decide(const struct api *api, const struct caller *c, bool *decided) {
    *decided = true;
    if (api->manager->store == NULL || !auth_enabled(auth_of(api))) return OK;
    if (c->refused != OK) return c->refused;
    if (is_operator(c)) return OK;
    *decided = false;
    return c->user[0] == '\0' ? ERR_USER_EMPTY : OK;
}

RESULT caller_known(const struct api *api, const struct caller *c) {
    bool decided;
    return decide(api, c, &decided);
}

RESULT caller_root(const struct api *api, const struct caller *c) {
    bool decided;
    TRY(decide(api, c, &decided));
    return decided ? OK : auth_root(auth_of(api), user_of(c));
}

RESULT caller_may(const struct api *api, const struct caller *c, enum permission p,
                  const struct interval *in) {
    bool decided;
    TRY(decide(api, c, &decided));
    return decided ? OK : auth_may(auth_of(api), user_of(c), p, in);
}

RESULT caller_manages(const struct api *api, const struct caller *c) {
    if (!c->tls || c->admin) return OK;
    bool enabled = api->manager->store != NULL && auth_enabled(auth_of(api));
    return enabled ? caller_root(api, c) : ERR_PERMISSION;
}

/* --- writes ---------------------------------------------------------------------------------- */

void caller_sign(const struct caller *c, struct command *command) {
    command->has_user = !is_operator(c);
    command->user = user_of(c);
    command->auth_revision = c->auth_revision;
}

RESULT caller_renew(const struct api *api, struct caller *c) {
    if (api->manager->store == NULL) return ERR_AUTH_TOKEN;
    const struct auth *a = auth_of(api);
    uint8_t proof[AUTH_PROOF_SIZE];
    if (c->by_token && auth_enabled(a)) {
        if (bearer_proof(a, user_of(c), proof) != OK) return ERR_AUTH_TOKEN;
        if (sodium_memcmp(proof, c->proof, AUTH_PROOF_SIZE) != 0) return ERR_AUTH_TOKEN;
    }
    c->auth_revision = auth_revision(a);
    return OK;
}
