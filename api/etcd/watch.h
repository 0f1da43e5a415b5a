/* The Watch service's beginning and end, and the hub of watches that it drives: api->hub is
 * there while there is a store, also for watchers of the server's own. */
#ifndef CONCLAVE_ETCD_WATCH_H
#define CONCLAVE_ETCD_WATCH_H

#include "api/api.h"
#include "store/watch.h"

/* With the store: makes api->hub. Calling it again is fine. ERR_NOMEM. */
RESULT watches_start(struct api *api);
/* The store goes away. All streams have ended and all watchers are freed before. */
void watches_stop(struct api *api);

#endif
