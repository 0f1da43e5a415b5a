/* What Lock and Election do in the store on behalf of a caller. etcd's own are clients of their
 * server; so the errors of what they did come out as UNKNOWN with the text, and what they have
 * begun they must clean up when the caller leaves: unlike etcd_write's, an errand's outcome is
 * always told. Unavailability keeps its code, since a client may then try again. */
#ifndef CONCLAVE_ERRAND_H
#define CONCLAVE_ERRAND_H

#include "api/etcd/etcd.h"

/* `e`: of the proposal or of the result; `r`: of a command that was carried out, else NULL. */
typedef void errand_written(void *ctx, enum err e, const char *text, const struct result *r);
typedef void errand_current(void *ctx, enum err e);

/* An error here: `done` won't come. The caller and the command are copied. */
RESULT errand_write(struct api *api, const struct caller *caller, struct command *c,
                    errand_written *done, void *ctx);
/* `done` when this member has applied all that was committed before the call. */
RESULT errand_read(struct api *api, errand_current *done, void *ctx);
void errand_fail(struct rpc *r, enum err e, const char *text);

/* "name/": [key, end) are the keys of those who take part. */
RESULT errand_prefix(struct span name, struct buf *prefix, struct buf *end);
/* The key of the first who took part: lowest create revision; false: nobody. */
bool errand_first(const struct store *s, const struct buf *prefix, const struct buf *end,
                  struct kv *out);
/* Of those below `created` the last; false: none. */
bool errand_before(const struct store *s, const struct buf *prefix, const struct buf *end,
                   uint64_t created, struct kv *out);
/* The transaction "if the key was created at this revision, then this"; `otherwise` may be NULL. */
RESULT errand_txn(struct buf *out, struct span key, uint64_t created, const struct txn_op *then,
                  const struct txn_op *otherwise);

#endif
