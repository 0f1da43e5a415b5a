/* Managers with a cluster key, for tests of it: short forms of what an operator does with secrets
 * and keys on one of them. Everything asserts with cmocka. */
#ifndef CONCLAVE_TEST_VAULT_WORLD_H
#define CONCLAVE_TEST_VAULT_WORLD_H

#include "api/secret/secrets.h"
#include "api/secret/vault.h"
#include "tests/lib/loners.h"

extern struct loners all;              /* of the test that runs */
extern char made_id[NODE_ID_SIZE + 1]; /* of the last secret that was made */
extern const struct actor tester;

void start_three(void);
bool three_voters(void *ctx); /* of these loners all are, and written down as holders */
void on_held(void *ctx, enum err e, const char *text, const char *id, uint32_t version);
void must(enum err e, const struct why *why);
void await_done(enum err want); /* of the last request */
/* A secret; its id, in made_id. */
const char *create(struct manager *m, const char *name, struct span bytes);
bool opens(const struct manager *m, const char *id, const char *want); /* its newest value */
void rotate(struct manager *m);                                        /* to the end */
struct vault_row vault_of(const struct manager *m);

#endif
