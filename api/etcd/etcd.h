/* What the services of etcd's API share: the response header, a write and a linearizable read on
 * behalf of a call, and errors in etcd's words.
 *
 * A call whose client leaves while its write is under way is finished at once; the write goes on,
 * and its `done` sees r == NULL, so that it can free its data. */
#ifndef CONCLAVE_ETCD_H
#define CONCLAVE_ETCD_H

#include "api/etcd/caller.h"
#include "api/etcd/pb.h"
#include "api/etcd/rpc.pb-c.h"
#include "api/rpc/rpc.h"

#define ANSWER_MAX                                                                                 \
    (2 * GIB) /* one encoded answer: bounded by the state itself; etcd has no bound */

uint64_t etcd_cluster_id(const struct api *api); /* a number that stands for the cluster's id */
/* etcdserverpb.ResponseHeader as a field; revision 0: the store's present one. */
void etcd_header_of(const struct api *api,
                    Etcdserverpb__ResponseHeader *out); /* the same, present */
RESULT etcd_header(struct buf *b, unsigned field, const struct api *api, uint64_t revision);

/* `result` is of a command that was carried out: errors have been answered. */
typedef void etcd_written(struct rpc *r, const struct result *result, void *data);
/* Proposes the command on behalf of the caller, with his permissions and his idempotency key.
 * `done` is called exactly once when `data` is not NULL; it may also free it. */
void etcd_write(struct rpc *r, struct command *c, etcd_written *done, void *data);

typedef void etcd_current(struct rpc *r, void *data);
/* Calls `then` when this member has applied all that was committed before; errors are answered, and
 * `then` is called with r == NULL when data is not NULL. */
void etcd_read(struct rpc *r, etcd_current *then, void *data);

/* Gives the request to `then` if its caller may manage (caller_manages), else answers. */
void etcd_manage(struct rpc *r, const ProtobufCMessage *m,
                 void (*then)(struct rpc *r, const ProtobufCMessage *m));

/* Asks whoever leads (admin.h). `then` sees every outcome, and r == NULL when the client has
 * left. */
typedef void etcd_asked(struct rpc *r, enum err e, const char *text, void *data);
void etcd_ask(struct rpc *r, const struct admin_request *request, etcd_asked *then, void *data);

/* Runs `work` on a thread of libuv's pool, then `done` on the loop; r == NULL there: the client has
 * left. `data` is the two functions' own. */
typedef void etcd_work(void *data);
typedef void etcd_worked(struct rpc *r, void *data);
void etcd_do(struct rpc *r, etcd_work *work, etcd_worked *done, void *data);

/* May the caller of a stream read this still? *stamp (auth_stamp) is of when he was judged last; he
 * is judged anew when it is another one by now. */
RESULT etcd_may_still(struct rpc *r, const struct interval *in, uint64_t *stamp);

void etcd_fail(struct rpc *r, enum err e, const char *text); /* rpc_fail in etcd's words */

static inline struct span etcd_span(ProtobufCBinaryData b) { return span_of(b.data, b.len); }

#endif
