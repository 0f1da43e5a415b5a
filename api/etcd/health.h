/* gRPC's health service, which lives in health.c: what the rest of the node has to tell it, so that
 * those who watch are told. */
#ifndef CONCLAVE_HEALTH_H
#define CONCLAVE_HEALTH_H

struct api;
void health_changed(struct api *api); /* this node's state, or who leads, may be another one */

#endif
