/* A second, naive state machine, written from store.h and command.h alone: a list of keys, a
 * revision, the tokens. It is fed each command when it is applied for the first time anywhere, says
 * what the answer must be, and remembers every version of every key, so that a read at any index
 * can be judged. */
#ifndef CONCLAVE_TESTS_SIM_MODEL_H
#define CONCLAVE_TESTS_SIM_MODEL_H

#include "store/command.h"

struct model;

struct model_key {
    bool there;     /* false: deleted, or never made */
    uint64_t value; /* digest of the bytes */
    uint64_t create_revision, mod_revision, version;
    uint64_t lease; /* 0: none */
};

struct model *model_new(void);
void model_free(struct model *m);

uint64_t model_digest(struct span bytes);
/* Applies a command and says what must come out. *op is the number of the operation that made it
 * (0: none of the clients'); *effective is false when its token was known already. */
void model_apply(struct model *m, uint64_t index, const struct command *c, struct result *expected,
                 uint64_t *op, bool *effective);
/* The key as it was after the whole of entry `index`. */
struct model_key model_get(const struct model *m, struct span key, uint64_t index);
uint64_t model_revision(const struct model *m); /* now */
uint64_t model_keys(const struct model *m);     /* now */
bool model_succeeded(const struct model *m);    /* the last transaction's compares held */
#define MODEL_LEASES 5                          /* ids 1 to 4 */

/* How the number of an operation is put into a command: the first eight bytes of a value; the token
 * of anything but a put, which a batch begins with; of a delete without a token, what follows key
 * and zero in the end of its range. */
#define OP_BYTES 8
uint64_t model_op(const struct command *c);

#endif
