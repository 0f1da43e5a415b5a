/* etcd's Auth service. What changes users and roles is a command (OP_AUTH), judged where it is
 * applied; what only tells of them is read here after a linearizable read. Passwords are hashed
 * and checked on worker threads (password.h) and never leave this member: a command carries an
 * Argon2id string, and a token (bearer.h) needs no command at all.
 *
 *   UserAdd, UserChangePassword: root? -> hash (a thread) -> command -> answer
 *   Authenticate: read -> check (a thread) -> token
 *
 * Source of the semantics: etcd's v3_server.go and auth store; where its 3.4 and its main differ,
 * main. */
#include <stdlib.h>

#include "api/etcd/bearer.h"
#include "api/etcd/caller.h"
#include "api/etcd/etcd.h"
#include "api/etcd/methods.h"
#include "api/etcd/password.h"
#include "api/etcd/rpc.pb-c.h"
#include "crypto/secret.h"

static const struct auth *auth_of(const struct rpc *r) {
    return store_auth(r->api->manager->store);
}

static struct span text(const char *s) { return span_str(s); }

/* --- answers --------------------------------------------------------------------------------- */

/* A header and nothing else; or, `add`, what it adds to it. */
static void answer(struct rpc *r, uint64_t revision,
                   enum err (*add)(struct rpc *r, struct buf *b)) {
    struct buf b = buf_new(ANSWER_MAX);
    enum err e = etcd_header(&b, 1, r->api, revision);
    if (e == OK && add != NULL) e = add(r, &b);
    if (e == OK)
        rpc_answer_bytes(r, buf_span(&b));
    else
        etcd_fail(r, e, NULL);
    buf_free(&b);
}

static void changed(struct rpc *r, const struct result *result, void *data) {
    (void)data;
    answer(r, result->revision, NULL);
}

static void change(struct rpc *r, const struct auth_change *c) {
    struct command command = {.op = OP_AUTH, .auth = *c};
    etcd_write(r, &command, changed, NULL);
}

/* --- the switch ------------------------------------------------------------------------------ */

static void enable(struct rpc *r, const ProtobufCMessage *m) {
    uint8_t key[AUTH_KEY_SIZE];
    (void)m;
    random_bytes(key, sizeof key);
    change(r, &(struct auth_change){.op = AUTH_ENABLE, .token_key = span_of(key, sizeof key)});
    sodium_memzero(key, sizeof key);
}

static void disable(struct rpc *r, const ProtobufCMessage *m) {
    (void)m;
    change(r, &(struct auth_change){.op = AUTH_DISABLE});
}

static enum err add_status(struct rpc *r, struct buf *b) {
    TRY(pb_number(b, 2, auth_enabled(auth_of(r))));
    return pb_number(b, 3, auth_revision(auth_of(r)));
}

static void status_current(struct rpc *r, void *data) {
    (void)data;
    if (r->caller.refused != OK && auth_enabled(auth_of(r)))
        etcd_fail(r, r->caller.refused, NULL);
    else
        answer(r, 0, add_status);
}

static void status(struct rpc *r, const ProtobufCMessage *m) {
    (void)m;
    etcd_read(r, status_current, NULL);
}

/* --- passwords ------------------------------------------------------------------------------- */

/* A call that waits for a password; the job's ctx. */
struct wait {
    struct rpc *r;           /* NULL: the client has left */
    struct buf name;         /* of the user */
    struct secret *password; /* until the job has it */
    enum auth_op op;         /* AUTH_USER_ADD, AUTH_USER_PASSWORD; of no use in `check` */
    bool check;              /* Authenticate */
};

static void wait_free(struct wait *w) {
    secret_free(w->password);
    buf_wipe(&w->name);
    free(w);
}

static void wait_gone(struct rpc *r) {
    struct wait *w = r->data;
    w->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
}

/* The call, which is its handler's again; NULL: it is gone. */
static struct rpc *wait_end(struct wait *w) {
    struct rpc *r = w->r;
    if (r != NULL) {
        r->gone = NULL;
        r->data = NULL;
    }
    return r;
}

/* Wipes the password of the request. NULL: the call is answered. */
static struct wait *wait_new(struct rpc *r, const char *name, char *password) {
    struct wait *w = calloc(1, sizeof *w);
    size_t size = strlen(password);
    enum err e = w == NULL ? ERR_NOMEM : size > PASSPHRASE_MAX ? ERR_INVALID : OK;
    if (e == OK) {
        w->name = buf_new(USER_NAME_MAX + 1);
        e = buf_add(&w->name, name, strlen(name));
    }
    if (e == OK) e = secret_new(password, size + 1, &w->password);
    if (size > 0) sodium_memzero(password, size);
    if (e == OK) return w;
    if (w != NULL) wait_free(w);
    rpc_fail(r, e == ERR_TOO_LARGE ? ERR_INVALID : e, NULL);
    return NULL;
}

/* Hands the password over to the workers; `done` or an answer follows. */
static void wait_start(struct wait *w, struct rpc *r, void (*done)(struct password_job *j)) {
    struct passwords *p = callers_passwords(r->api->callers);
    struct clock *clock = &r->api->manager->clock;
    struct span password = secret_span(w->password), hash = {0};
    struct password_job *j = calloc(1, sizeof *j);
    enum err e = ERR_NOMEM;
    password.size--;
    if (j != NULL) {
        j->done = done;
        j->ctx = w;
        if (w->check) (void)auth_user(auth_of(r), buf_span(&w->name), &hash);
        e = w->check
                ? password_check(p, buf_span(&w->name), password, hash, clock->now_ms(clock), j)
                : password_make(p, password, j);
    }
    secret_free(w->password);
    w->password = NULL;
    if (e == OK) {
        w->r = r;
        r->data = w;
        r->gone = wait_gone;
        return;
    }
    wait_free(w);
    rpc_fail(r, e, e == ERR_BUSY ? "etcdserver: too many requests" : NULL);
}

/* --- Authenticate ---------------------------------------------------------------------------- */

/* A token is of the password that the user has now: it must be the one that was checked. */
static RESULT check_outcome(const struct rpc *r, const struct wait *w,
                            const struct password_job *j) {
    struct span hash;
    TRY(j->error);
    if (r == NULL || r->api->manager->store == NULL) return ERR_CLOSED;
    if (!auth_user(auth_of(r), buf_span(&w->name), &hash)) return ERR_AUTH_FAILED;
    return span_equal(hash, span_str(j->hash)) ? OK : ERR_AUTH_FAILED;
}

static void checked(struct password_job *j) {
    struct wait *w = j->ctx;
    struct rpc *r = wait_end(w);
    char token[BEARER_TEXT_MAX];
    enum err e = check_outcome(r, w, j);
    password_job_free(j);
    if (r != NULL) {
        struct clock *clock = &r->api->manager->clock;
        if (e == OK) e = bearer_make(auth_of(r), buf_span(&w->name), clock->wall_s(clock), token);
        if (e == ERR_AUTH_FAILED)
            log_event(r->api->log, LOG_WARNING, "auth", "a wrong password or an unknown user");
        struct buf b = buf_new(4 * KIB);
        if (e == OK) e = etcd_header(&b, 1, r->api, 0);
        if (e == OK) e = pb_bytes(&b, 2, span_str(token));
        if (e == OK)
            rpc_answer_bytes(r, buf_span(&b));
        else
            etcd_fail(r, e, NULL);
        buf_wipe(&b);
        sodium_memzero(token, sizeof token);
    }
    wait_free(w);
}

static void authenticate_current(struct rpc *r, void *data) {
    struct wait *w = data;
    if (r == NULL) {
        wait_free(w);
    } else if (!auth_enabled(auth_of(r))) {
        wait_free(w);
        rpc_fail(r, ERR_AUTH_DISABLED, NULL);
    } else {
        w->check = true;
        wait_start(w, r, checked);
    }
}

static void authenticate(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthenticateRequest *q = (const void *)m;
    struct wait *w = wait_new(r, q->name, q->password);
    if (w != NULL) etcd_read(r, authenticate_current, w);
}

/* --- users ----------------------------------------------------------------------------------- */

/* The string is of the password that was checked or made, whoever changed what meanwhile. */
static void made(struct password_job *j) {
    struct wait *w = j->ctx;
    struct rpc *r = wait_end(w);
    enum err e = j->error;
    if (r != NULL && e == OK)
        change(r, &(struct auth_change){
                      .op = w->op, .user = buf_span(&w->name), .password_hash = span_str(j->hash)});
    else if (r != NULL)
        etcd_fail(r, e, NULL);
    password_job_free(j);
    wait_free(w);
}

/* Only who may set a password may have one hashed. */
static void hash_current(struct rpc *r, void *data) {
    struct wait *w = data;
    enum err e = r == NULL ? ERR_CLOSED : caller_root(r->api, &r->caller);
    if (e == OK) {
        wait_start(w, r, made);
        return;
    }
    wait_free(w);
    if (r != NULL) rpc_fail(r, e, NULL);
}

static void hash_password(struct rpc *r, enum auth_op op, const char *name, char *password) {
    struct wait *w = wait_new(r, name, password);
    if (w == NULL) return;
    w->op = op;
    etcd_read(r, hash_current, w);
}

static bool refuse_hash(struct rpc *r, const char *hash) {
    if (hash[0] == '\0') return false;
    rpc_fail(r, ERR_INVALID,
             "a hashed password is not taken: passwords are kept as Argon2id; send the password");
    return true;
}

static void user_add(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthUserAddRequest *q = (const void *)m;
    if (refuse_hash(r, q->hashedpassword)) return;
    if (q->options != NULL && q->options->no_password)
        change(r, &(struct auth_change){.op = AUTH_USER_ADD, .user = text(q->name)});
    else if (q->name[0] == '\0')
        rpc_fail(r, ERR_USER_EMPTY, NULL);
    else
        hash_password(r, AUTH_USER_ADD, q->name, q->password);
}

static void user_password(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthUserChangePasswordRequest *q = (const void *)m;
    if (refuse_hash(r, q->hashedpassword)) return;
    hash_password(r, AUTH_USER_PASSWORD, q->name, q->password);
}

static void user_delete(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthUserDeleteRequest *q = (const void *)m;
    change(r, &(struct auth_change){.op = AUTH_USER_DELETE, .user = text(q->name)});
}

static void user_grant(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthUserGrantRoleRequest *q = (const void *)m;
    change(r, &(struct auth_change){
                  .op = AUTH_USER_GRANT, .user = text(q->user), .role = text(q->role)});
}

static void user_revoke(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthUserRevokeRoleRequest *q = (const void *)m;
    change(r, &(struct auth_change){
                  .op = AUTH_USER_REVOKE, .user = text(q->name), .role = text(q->role)});
}

/* --- roles ----------------------------------------------------------------------------------- */

static void role_add(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthRoleAddRequest *q = (const void *)m;
    change(r, &(struct auth_change){.op = AUTH_ROLE_ADD, .role = text(q->name)});
}

static void role_delete(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthRoleDeleteRequest *q = (const void *)m;
    change(r, &(struct auth_change){.op = AUTH_ROLE_DELETE, .role = text(q->role)});
}

/* etcd's permission to ours; false: none of either. */
static bool permission_of(Authpb__Permission__Type type, enum permission *out) {
    static const enum permission ours[] = {PERMISSION_READ, PERMISSION_WRITE, PERMISSION_BOTH};
    if ((unsigned)type >= ARRAY_SIZE(ours)) return false;
    *out = ours[type];
    return true;
}

static void role_grant(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthRoleGrantPermissionRequest *q = (const void *)m;
    struct auth_change c = {.op = AUTH_ROLE_GRANT, .role = text(q->name)};
    if (q->perm == NULL || !permission_of(q->perm->permtype, &c.permission)) {
        rpc_fail(r, ERR_PERMISSION_NOT_GIVEN, NULL);
        return;
    }
    c.in = (struct interval){.key = etcd_span(q->perm->key), .end = etcd_span(q->perm->range_end)};
    change(r, &c);
}

static void role_revoke(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthRoleRevokePermissionRequest *q = (const void *)m;
    change(r,
           &(struct auth_change){.op = AUTH_ROLE_REVOKE,
                                 .role = text(q->role),
                                 .in = {.key = etcd_span(q->key), .end = etcd_span(q->range_end)}});
}

/* --- telling --------------------------------------------------------------------------------- */

/* What is to be told of, while the read is under way. */
struct question {
    enum err (*tell)(struct rpc *r, const struct question *q, struct buf *b);
    struct buf name; /* of the user or role */
};

struct list {
    struct buf *out; /* the answer */
    enum err error;  /* the first */
};

static void list_name(void *ctx, struct span name) {
    struct list *l = ctx;
    if (l->error == OK) l->error = pb_bytes(l->out, 2, name);
}

static enum err tell_users(struct rpc *r, const struct question *q, struct buf *b) {
    struct list l = {.out = b};
    (void)q;
    TRY(caller_root(r->api, &r->caller));
    auth_users(auth_of(r), list_name, &l);
    return l.error;
}

static enum err tell_roles(struct rpc *r, const struct question *q, struct buf *b) {
    struct list l = {.out = b};
    (void)q;
    TRY(caller_root(r->api, &r->caller));
    auth_roles(auth_of(r), list_name, &l);
    return l.error;
}

/* A user may look at himself. */
static enum err tell_user(struct rpc *r, const struct question *q, struct buf *b) {
    struct span name = buf_span(&q->name), hash;
    struct list l = {.out = b};
    enum err e = caller_root(r->api, &r->caller);
    bool self = r->caller.user[0] != '\0' && span_equal(name, span_str(r->caller.user));
    if (e != OK && !self) return e;
    if (!auth_user(auth_of(r), name, &hash)) return ERR_USER_NOT_FOUND;
    auth_user_roles(auth_of(r), name, list_name, &l);
    return l.error;
}

struct search {
    struct span name; /* that is looked for */
    bool found;
};

static void search_name(void *ctx, struct span name) {
    struct search *s = ctx;
    s->found |= span_equal(s->name, name);
}

static enum err put_permission(struct buf *b, const struct auth_permission *p) {
    size_t mark;
    TRY(pb_open(b, 2, &mark));
    TRY(pb_number(b, 1, (uint64_t)p->permission - 1)); /* etcd counts from 0 */
    TRY(pb_bytes(b, 2, p->in.key));
    TRY(pb_bytes(b, 3, p->in.end));
    return pb_close(b, mark);
}

static void list_permission(void *ctx, const struct auth_permission *p) {
    struct list *l = ctx;
    if (l->error == OK) l->error = put_permission(l->out, p);
}

/* A user may look at his roles. The root role has no permissions; it needs none, and is told to
 * have all. */
static enum err tell_role(struct rpc *r, const struct question *q, struct buf *b) {
    static const struct auth_permission all = {.permission = PERMISSION_BOTH,
                                               .in = {.end = {(const uint8_t *)"", 1}}};
    struct search s = {.name = buf_span(&q->name)};
    struct list l = {.out = b};
    enum err e = caller_root(r->api, &r->caller);
    if (e == ERR_AUTH_DENIED)
        auth_user_roles(auth_of(r), span_str(r->caller.user), search_name, &s);
    if (e != OK && !s.found) return e;
    if (!auth_role(auth_of(r), s.name)) return ERR_ROLE_NOT_FOUND;
    if (span_equal(s.name, span_str("root")))
        list_permission(&l, &all);
    else
        auth_role_permissions(auth_of(r), s.name, list_permission, &l);
    return l.error;
}

static void tell(struct rpc *r, void *data) {
    struct question *q = data;
    struct buf b = buf_new(ANSWER_MAX);
    if (r != NULL) {
        enum err e = etcd_header(&b, 1, r->api, 0);
        if (e == OK) e = q->tell(r, q, &b);
        if (e == OK)
            rpc_answer_bytes(r, buf_span(&b));
        else
            etcd_fail(r, e, NULL);
    }
    buf_free(&b);
    buf_free(&q->name);
    free(q);
}

static void ask(struct rpc *r, const char *name,
                enum err (*how)(struct rpc *r, const struct question *q, struct buf *b)) {
    struct question *q = calloc(1, sizeof *q);
    if (q != NULL) {
        q->tell = how;
        q->name = buf_new(USER_NAME_MAX);
        /* A name that is too long is nobody's, as is the empty one. */
        if (strlen(name) > USER_NAME_MAX || buf_add(&q->name, name, strlen(name)) == OK) {
            etcd_read(r, tell, q);
            return;
        }
        free(q);
    }
    rpc_fail(r, ERR_NOMEM, NULL);
}

static void user_get(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthUserGetRequest *q = (const void *)m;
    ask(r, q->name, tell_user);
}

static void user_list(struct rpc *r, const ProtobufCMessage *m) {
    (void)m;
    ask(r, "", tell_users);
}

static void role_get(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__AuthRoleGetRequest *q = (const void *)m;
    ask(r, q->role, tell_role);
}

static void role_list(struct rpc *r, const ProtobufCMessage *m) {
    (void)m;
    ask(r, "", tell_roles);
}

#define METHOD(Name, name, json_path, handler, ...)                                                \
    {                                                                                              \
        .path = "/etcdserverpb.Auth/" Name, .json = json_path, .kind = METHOD_UNARY,               \
        .request = &etcdserverpb__##name##_request__descriptor,                                    \
        .answer = &etcdserverpb__##name##_response__descriptor, .message = handler, __VA_ARGS__    \
    }

const struct method auth_methods[] = {
    METHOD("AuthEnable", auth_enable, "/v3/auth/enable", enable, .manages = true),
    METHOD("AuthDisable", auth_disable, "/v3/auth/disable", disable, .manages = true),
    METHOD("AuthStatus", auth_status, "/v3/auth/status", status, .open = true),
    METHOD("Authenticate", authenticate, "/v3/auth/authenticate", authenticate, .open = true),
    METHOD("UserAdd", auth_user_add, "/v3/auth/user/add", user_add, .manages = true),
    METHOD("UserGet", auth_user_get, "/v3/auth/user/get", user_get, .manages = false),
    METHOD("UserList", auth_user_list, "/v3/auth/user/list", user_list, .manages = false),
    METHOD("UserDelete", auth_user_delete, "/v3/auth/user/delete", user_delete, .manages = true),
    METHOD("UserChangePassword", auth_user_change_password, "/v3/auth/user/changepw", user_password,
           .manages = true),
    METHOD("UserGrantRole", auth_user_grant_role, "/v3/auth/user/grant", user_grant,
           .manages = true),
    METHOD("UserRevokeRole", auth_user_revoke_role, "/v3/auth/user/revoke", user_revoke,
           .manages = true),
    METHOD("RoleAdd", auth_role_add, "/v3/auth/role/add", role_add, .manages = true),
    METHOD("RoleGet", auth_role_get, "/v3/auth/role/get", role_get, .manages = false),
    METHOD("RoleList", auth_role_list, "/v3/auth/role/list", role_list, .manages = false),
    METHOD("RoleDelete", auth_role_delete, "/v3/auth/role/delete", role_delete, .manages = true),
    METHOD("RoleGrantPermission", auth_role_grant_permission, "/v3/auth/role/grant", role_grant,
           .manages = true),
    METHOD("RoleRevokePermission", auth_role_revoke_permission, "/v3/auth/role/revoke", role_revoke,
           .manages = true),
    {.path = NULL},
};
