/* What is written of an init once its node is a member: the settings, and the node's own
 * availability. */
#ifndef CONCLAVE_ENGINE_SETTLE_H
#define CONCLAVE_ENGINE_SETTLE_H

#include "api/engine/request.h"
#include "api/node/nodes.h"

struct engine_settle {
    const struct engine_spec *spec; /* NULL: stay as they are */
    enum node_availability availability;
};

/* ERR_NOT_FOUND: there is nothing to write. `done` later, but not when this gives an error. Copies
 * what it needs. */
RESULT engine_settle(struct manager *m, const struct engine_settle *wish, manager_done *done,
                     void *ctx);

#endif
