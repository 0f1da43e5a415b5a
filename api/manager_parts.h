/* What the files that make up a running manager (manager.h) have of each other: its life
 * (manager.c), its world (env.c), what follows the state (table.c), the ways in (found.c), between
 * the roles (worker.c), and what the leader does for others (admit.h, admin.h). */
#ifndef CONCLAVE_MANAGER_PARTS_H
#define CONCLAVE_MANAGER_PARTS_H

#include "api/manager.h"

void manager_forget_ca(struct manager *m); /* found.c: what manager_own_ca has kept */
RESULT manager_start(struct manager *m,
                     struct why *why); /* keys and identity are there -> running */
void manager_stop(struct manager *m,
                  void (*stopped)(struct manager *m)); /* running -> nothing runs */
void manager_set_state(struct manager *m, enum manager_state s);
void manager_undo(struct manager *m, enum err e,
                  const char *text); /* a failed init or join: empty again */
void manager_finish(struct manager *m, enum err e, const char *text); /* tells m->done, if any */
struct kek manager_kek(const struct manager *m); /* as the user wants the keyring sealed */
void manager_env(struct manager *m);             /* env.c: fills m->env, starts its handles */
void manager_env_close(struct manager *m);
RESULT manager_store_open(struct manager *m, struct why *why); /* env.c: the store, watched */
RESULT manager_peers_open(struct manager *m, struct why *why); /* env.c */
void manager_beat_start(struct manager *m);                    /* env.c: housekeeping begins */
void table_follow(struct manager *m); /* table.c: the state's rows -> peers, keys */
void table_beat(struct manager *m);
/* A failure that the node can't go on from: failed, and the owner is told. */
void manager_fail(struct manager *m, enum err e, const char *text);
void manager_certified(struct manager *m); /* the identity has another certificate or roots */
/* Another KEK for the keyring (and DEK, with `rotates`), and m->unlock_key with it. */
RESULT manager_rekey(struct manager *m, struct kek kek, bool rotates, struct why *why);
RESULT worker_start(struct manager *m, struct why *why); /* worker.c: identity -> worker */
void worker_demote(struct manager *m); /* running -> worker; wipes what a manager has */
void worker_promote(struct manager *m, struct asking *a); /* worker -> running, by the answer */
void admit_request(void *ctx, struct join_connection *c, const struct wire_join *request,
                   const struct node_caller *who); /* admit.c */
void admit_step(struct manager *m);                /* in the check phase */
void admit_stop(struct manager *m);
void admin_call(void *ctx, uint64_t from, struct span request, struct reply *reply); /* admin.c */
bool admin_hears(const struct manager *m, const struct replica_member *member);      /* as leader */
void admin_leader(struct manager *m); /* who leads has changed */
void admin_step(struct manager *m);   /* in the check phase */
void admin_stop(struct manager *m);

#endif
