/* Changes of secrets, values, services, tasks, epochs and audit records for tests of the store, in
 * the manner of row_lists.h: rows that are well made, which a test then alters. A secret "s" of n
 * versions has the values "s-1" to "s-n". Everything asserts with cmocka. */
#ifndef CONCLAVE_TEST_HELD_LISTS_H
#define CONCLAVE_TEST_HELD_LISTS_H

#include "store/audit.h"
#include "store/service.h"
#include "store/vault.h"
#include "tests/lib/row_lists.h"

#define SOME_SIZE 5 /* bytes of some_value's plaintext */

void list_held(struct row_list *l, enum row_action action, enum row_kind kind, const char *id,
               const char *name, const struct held_row *h);
void list_value(struct row_list *l, enum row_action action, const char *id,
                const struct value_row *v);
void list_service(struct row_list *l, enum row_action action, const char *id, const char *name,
                  const struct service_row *s);
void list_task(struct row_list *l, enum row_action action, const char *id,
               const struct task_row *t);
void list_vault(struct row_list *l, enum row_action action, const char *id,
                const struct vault_row *v);
void list_audit(struct row_list *l, enum audit_what what, const char *detail);

/* Versions 1 to n, the values of secret `id`. */
struct held_row some_held(const char *id, unsigned n);
/* Version `version` of secret or config `id` under an epoch. */
struct value_row some_value(enum row_kind of, const char *id, uint32_t version, uint32_t epoch);
/* Image "host", one replica; it names secret `id` as `name` when id is not NULL. */
struct service_row some_service(const char *id, const char *name, uint32_t version);
struct service_ref some_ref(enum row_kind kind, const char *id, const char *name,
                            const char *target, uint32_t version);
struct task_row some_task(const char *service_id, const char *node_id, enum task_state state);
/* Steady at an epoch, held by "id-1", the node of make_cluster. */
struct vault_row some_vault(uint32_t epoch);

/* A secret with n versions and their values, all CREATE, under epoch 1; its name is its id. */
void list_secret(struct row_list *l, const char *id, unsigned n);
/* A change or a few that belong together, at random over a small world of such rows; many agree
 * with what is there, and many don't. */
void random_held(uint64_t *seed, struct row_list *l);
/* A founded cluster whose vault is at epoch 1. */
struct store *store_with_vault(void);

#endif
