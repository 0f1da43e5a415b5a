/* Who asks, and what he may (store/auth.h), on this member and now. A call's caller is, in this
 * order: the user that its token names; else, on the unix socket or with an admin certificate, an
 * operator, whom permissions do not bind; else the user whose name is the CN of the client
 * certificate, when there is one; else nobody, who may do nothing once auth is enabled.
 *
 * A bad token does not fall back to anything: everything is refused with ERR_AUTH_TOKEN. What is
 * permitted is judged when it is done, not when the call began; a write is judged once more where
 * it is applied, by the user's name that its command carries (caller_sign).
 *
 * All return OK while auth is disabled. Otherwise, in this order: ERR_AUTH_TOKEN, OK for operators,
 * ERR_USER_EMPTY for nobody, then what each says. */
#ifndef CONCLAVE_CALLER_H
#define CONCLAVE_CALLER_H

#include "api/api.h"

struct callers; /* tokens in use here and passwords under way; api->callers */
RESULT callers_new(uv_loop_t *loop, struct callers **out);
void callers_free(struct callers *c); /* NULL is fine */
struct passwords *callers_passwords(const struct callers *c);

/* For the RPC layer: fills in user, proof and auth_revision of a caller whose connection is known;
 * token.size 0: it has none. The error is also kept in the caller: a method that is `open` may be
 * called all the same. */
RESULT caller_identify(struct api *api, struct caller *c, struct span token);

RESULT caller_known(const struct api *api, const struct caller *c); /* somebody */
RESULT caller_root(const struct api *api, const struct caller *c);  /* ERR_AUTH_DENIED, ... */
RESULT caller_may(const struct api *api, const struct caller *c, enum permission p,
                  const struct interval *in); /* ERR_AUTH_DENIED */

/* May he change the quorum, or users and roles? With etcd anybody may while auth is disabled; here
 * that holds for the unix socket and a plaintext port. Over TLS there are administrators: while
 * auth is disabled a client without such a certificate may not, ERR_PERMISSION. */
RESULT caller_manages(const struct api *api, const struct caller *c);

/* The command is on his behalf. The spans point into the caller. */
void caller_sign(const struct caller *c, struct command *command);
/* After ERR_AUTH_REVISION: is the user still who he was? Then his auth_revision is the present one.
 * ERR_AUTH_TOKEN: not. */
RESULT caller_renew(const struct api *api, struct caller *c);

#endif
