/* The RPC layer as a whole: what the program, the routes and the metrics need of it. One a node, on
 * the loop. */
#ifndef CONCLAVE_RPCS_H
#define CONCLAVE_RPCS_H

#include "api/rpc/rpc.h"

struct rpcs;

/* `services`: as api_services. `routes` (ends with path NULL) follow the gateway's. */
RESULT rpcs_new(struct api *api, uv_loop_t *loop, const struct method *const *services,
                const struct route *routes, struct rpcs **out);
/* After the server is gone: no call is under way. Frees it when its handles are closed. */
void rpcs_close(struct rpcs *r);
const struct route *rpcs_routes(const struct rpcs *r); /* for server_config.routes */
extern const struct route rpc_route;                   /* for server_config.rpc */
/* The state goes away: streams end with ERR_CLOSED. */
void rpcs_stop(struct rpcs *r);
RESULT rpcs_metrics(const struct rpcs *r, struct buf *out); /* Prometheus text */

#endif
