/* What the files of secrets.h have of each other: requests (secrets.c), shredding
 * (secrets_shred.c), who may have one by `conclave run` (run_label.c). */
#ifndef CONCLAVE_SECRETS_PARTS_H
#define CONCLAVE_SECRETS_PARTS_H

#include "api/secret/secrets.h"

/* One request, from its building to its answer. */
struct held_op {
    struct manager *manager;
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    char name[HELD_NAME_MAX + 1];
    uint32_t version;   /* told to done */
    bool removes;       /* so that ERR_PRECONDITION means that it is in use */
    struct buf changes; /* the list */
    unsigned n;         /* of them */
    struct write write;
    held_done *done;
    void *ctx; /* of done */
};

RESULT held_op_new(struct manager *m, enum row_kind kind, held_done *done, void *ctx,
                   struct held_op **out, struct why *why);
RESULT held_op_remove(struct held_op *op, const char *id, enum audit_what what,
                      const struct actor *actor, struct why *why);
RESULT held_op_audit(struct held_op *op, enum audit_what what, const struct actor *actor,
                     struct span name, uint32_t version, const char *detail);
/* Proposes it, unless `e` says that it could not be built. Takes over `op` in any case. */
RESULT held_op_send(struct held_op *op, enum err e, struct why *why);
/* The sentence with the services that name it. */
void secrets_in_use(const struct manager *m, enum row_kind kind, const char *id, const char *name,
                    struct why *why);

/* The labels as they are kept, with ids for host names; in `out`, as the caller's to free.
 * `before`: the labels so far, whose list is not judged again. ERR_NOT_FOUND, ERR_INVALID. */
RESULT run_label_resolve(const struct store *s, struct span before, struct span labels,
                         struct buf *out, struct why *why); /* run_label.c */

void shred_step(struct manager *m); /* secrets_shred.c; with the vault's steps */
void shred_end(struct manager *m);

#endif
